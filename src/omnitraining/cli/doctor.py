"""``omni doctor``: this installation and machine."""

from omnitraining.cli import command_parser


def main(arguments: list[str]) -> int:
    """Say what was found, and what is missing."""
    command_parser("doctor").parse_args(arguments)

    from omnitraining.cli.checks import examine

    return examine()

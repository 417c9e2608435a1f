"""``omni doctor``: a check of this installation and machine."""

from omnitraining.cli import command_parser


def main(arguments: list[str]) -> int:
    """Print versions, devices and optional packages, and run a numerical check."""
    command_parser("doctor").parse_args(arguments)

    from omnitraining.cli.checks import examine

    return examine()

"""``omni list``: what there is."""

from omnitraining.cli import command_parser


def main(arguments: list[str]) -> int:
    """Show experiments, configurations, algorithms, backbones and problems."""
    command_parser("list").parse_args(arguments)

    from omnitraining.experiments.display import listing_table, show

    show(listing_table())
    return 0

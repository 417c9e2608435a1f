"""``omni list``: experiments, configurations, and the classes that a configuration may name."""

from collections.abc import Iterable
from importlib import resources
from typing import Any

from rich.table import Table
from rich.text import Text

from omnitraining.cli import command_parser


def main(arguments: list[str]) -> int:
    """Print the lists."""
    command_parser("list").parse_args(arguments)

    from omnitraining.experiments.display import show

    show(listing_table())
    return 0


def listing_table() -> Table:
    """Experiments and everything a configuration may name, with first lines of their docs."""
    from omnitraining.config.fields import known_classes
    from omnitraining.experiments.experiment import experiments

    table = Table(show_header=False, box=None, pad_edge=False)

    def section(title: str, entries: dict[str, Any]) -> None:
        table.add_row(Text(title, "bold"))
        for name, thing in entries.items():
            text = thing if isinstance(thing, str) else (thing.__doc__ or "").splitlines()[0]
            table.add_row(f"  {name}", text)

    section("experiments (omni reproduce NAME)", {s.name: s.title for s in experiments()})
    configs = resources.files("omnitraining") / "config" / "configs"
    section(
        "configurations (omni train FILE)",
        {
            str(c): c.read_text("utf-8").splitlines()[0].lstrip("# ")
            for c in sorted(configs.iterdir(), key=str)
            if c.name.endswith(".yaml")
        },
    )
    titles = {
        "problem": "problems",
        "environment": "environments of Reinforcement",
        "pretraining": "pre-training",
        "metatraining": "meta-training",
        "backbone": "backbones",
        "new_head": "new heads of Baseline",
    }
    known = known_classes()  # its "algorithm" has meta-training again
    for field, title in titles.items():
        section(title, known[field])
    return table


def fields_table(title: str, fields: Iterable[tuple[str, str, str]]) -> Table:
    """Fields of a configuration, their values, and what they mean."""
    table = Table(title=title, box=None, pad_edge=False)
    for column, widest in (("field", None), ("value", 32), ("meaning", None)):
        table.add_column(column, max_width=widest)
    for field in fields:
        table.add_row(*field)
    return table

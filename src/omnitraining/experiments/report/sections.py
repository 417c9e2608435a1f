"""Parts of a report as Markdown: claims, numbers of the paper, results of a record."""

from collections.abc import Mapping, Sequence
from importlib import import_module

from omnitraining.experiments.claims import Claim, Verdict
from omnitraining.experiments.record import Record, Values, printed
from omnitraining.experiments.tables import markdown, number_text, search_lines

SIGNS = {
    "holds": "✓ holds",
    "does not": "✗ does not",
    "not at equal compute": "≈ not at equal compute",
    "not measured here": "– not measured here",
}
"""A sign beside the words, so that nothing is shown by color alone."""


def results(record: Record, draw: str, picture: str) -> str:
    """Tables and picture of a record.

    Args:
        record: of an experiment or a sweep.
        draw: the module of `figures` that draws it; empty for a search.
        picture: file beside the record; empty if there is none.
    """
    if not draw:
        return search(record)
    module = "varied_fields" if record.failed is not None else draw
    figure = import_module(f"omnitraining.experiments.figures.{module}")
    text: str = figure.section(record, picture)
    return text


def search(record: Record) -> str:
    """Rows of a search by their best validation score, in the unit of the record."""
    seconds = sum(sum(row.training.seconds) for row in record.rows.values())
    table = markdown(*search_lines(record))
    return f"`{record.command}`, {record.unit}, {seconds / 60:.0f} minutes in all:\n\n{table}"


def claims(verdicts: Sequence[tuple[Claim, Verdict]]) -> str:
    """A line per claim: its source, the verdict, and in how many cells."""
    lines = []
    for claim, verdict in verdicts:
        undecided = verdict.cells - verdict.better - verdict.worse
        counts = (
            [str(n) for n in (verdict.better, verdict.worse, undecided)]
            if verdict.cells
            else [""] * 3
        )
        cost = "" if verdict.compute is None else f"{verdict.compute:.2f}"
        lines.append([claim.source, claim.text, sign(verdict), *counts, cost])
    header = ["source", "claim", "verdict", "cells better", "worse", "undecided", "compute"]
    return markdown(header, lines)


def sign(verdict: Verdict) -> str:
    """The verdict in words; a star marks intervals that are not paired."""
    star = "" if verdict.is_paired or not verdict.cells else " *"
    return SIGNS[verdict.word] + star


def published(rows: Mapping[str, Values]) -> str:
    """Numbers that the paper prints of the rows of an experiment; empty if it prints none."""
    papers = {name: printed(row["paper"]) for name, row in rows.items() if "paper" in row}
    keys = list(dict.fromkeys(key for numbers in papers.values() for key in numbers))
    lines = [
        [name, *(number_text(numbers[key]) if key in numbers else "" for key in keys)]
        for name, numbers in papers.items()
    ]
    return markdown(["", *map(str, keys)], lines) if papers else ""

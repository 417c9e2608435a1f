"""Writes the book of results, and the results in README.md and other pages, from the records here.

    python results/render.py            rewrite them
    python results/render.py --check    exit code 1 if they are not what the records say

No number between the markers is typed by hand; a test runs the check.
"""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import endurance

from omnitraining.experiments.figures import tables
from omnitraining.experiments.report import book
from omnitraining.experiments.report.markers import filled
from omnitraining.experiments.report.sections import (
    calibration,
    flows,
    front,
    glyphs,
    policies,
    pretrained,
    search,
    sinusoids,
    speed,
    trust,
)

HERE = Path(__file__).parent
YARDSTICKS = ("yardstick-cifar-fs", "yardstick-omniglot", "yardstick-mini-imagenet")


def front_page(record: Any) -> str:
    """The table of the main README: two records of the same runs."""
    return front(record, json.loads((HERE / "photo-table4.json").read_text()))


def main() -> int:
    pages: dict[Path, dict[str, Callable[[Any], str]]] = {
        HERE.parent / "README.md": {"photo-table2": front_page},
        HERE / "README.md": {
            **{name: tables.markdown for name in YARDSTICKS},
            "glyphs": glyphs,
            "figure5": sinusoids,
            "figure8": partial(policies, picture="figure8.png"),
            "figure8-cheetah": partial(policies, picture="figure8-cheetah.png"),
            "navigation-search": search,
            "glyphs-search": search,
            "calibration": calibration,
            "faults": endurance.faults,
            "demo-load": endurance.demo_load,
            "thread-load": endurance.thread_load,
            "long-run": endurance.long_run,
            "compatibility": endurance.compatibility,
            "benchmarks": speed,
        },
        HERE.parent / "src/omnitraining/models/glyphs/card.md": {"calibration": trust},
        HERE.parent / "docs/guides/pretrained.md": {"pretrained": pretrained},
        HERE.parent / "docs/guides/flows.md": {
            name: flows for name in ("photo-table2", "photo-table4", "figure5")
        },
    }
    wanted = {HERE / "book.md": book.markdown(book.chapters(HERE))}
    for page, sections in pages.items():
        records = {name: HERE / f"{name}.json" for name in sections}
        parts = [
            render(json.loads(records[name].read_text()))
            for name, render in sections.items()
            if records[name].is_file()
        ]
        wanted[page] = filled(page.read_text(), parts)
    stale = [
        page for page, text in wanted.items() if not page.is_file() or page.read_text() != text
    ]
    if "--check" in sys.argv:
        for page in stale:
            print(f"{page} is not what the records say: python results/render.py writes it")
        return int(bool(stale))
    for page in stale:
        page.write_text(wanted[page])
    return 0


if __name__ == "__main__":
    sys.exit(main())

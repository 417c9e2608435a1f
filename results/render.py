"""Writes the report of results, and the tables of README.md and other pages, from the records here.

    python results/render.py            rewrite them
    python results/render.py --check    exit code 1 if they differ from the records

No number between the markers is typed by hand; a test runs the check.
"""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import endurance
import photo_model
from pages import (
    advantages,
    against,
    calibration,
    features,
    flows,
    front,
    glyphs,
    pretrained,
    speed,
    trust,
    unseen,
)

from omnitraining.experiments.figures import adaptation_curves, sinusoid_errors
from omnitraining.experiments.record import Record, from_json
from omnitraining.experiments.report import report
from omnitraining.experiments.report.markers import filled
from omnitraining.experiments.report.sections import search
from omnitraining.experiments.tables import record_markdown

HERE = Path(__file__).parent
MODELS = HERE.parent / "src/omnitraining/models"
YARDSTICKS = ("yardstick-cifar-fs", "yardstick-omniglot", "yardstick-mini-imagenet")


def front_page(record: Record) -> str:
    """The table of the main README: two records of the same runs."""
    return front(record, read(HERE / "photo-table4.json"))


def photos_table(described: Any) -> str:
    """The table of the shipped model of photographs: two files."""
    return photo_model.table(described, read(HERE / "calibration-photos.json"))


def compared(record: Record) -> str:
    """In how many cells Omni-Training is better at equal compute: two records."""
    return against(record, read(HERE / "photo-table4.json"))


def sinusoids(record: Record) -> str:
    """Errors and both pictures."""
    waves = "![waves recovered from five points](figure6.png)\n"
    return f"{sinusoid_errors.section(record, 'figure5.png')}\n{waves}"


def helps(record: Record) -> str:
    """Where Omni-Training is above other methods: two records of the same runs."""
    return advantages(record, read(HERE / "photo-table4.json"))


def unseen_domains(record: Any) -> str:
    """The photo model where it was not trained, beside what needs no training."""
    return unseen(record, read(HERE / "photo-features.json"))


def read(path: Path) -> Any:
    """A record of an experiment, or the values of another file."""
    values = json.loads(path.read_text())
    is_record = isinstance(values, dict) and "experiment" in values and "rows" in values
    return from_json(values) if is_record else values


def main() -> int:
    """Write all pages, or compare them with the records; returns the exit code."""
    pages: dict[Path, dict[str, Callable[[Any], str]]] = {
        HERE.parent / "README.md": {"photo-table2": front_page},
        HERE / "README.md": {
            **{name: record_markdown for name in YARDSTICKS},
            "glyphs": glyphs,
            "figure5": sinusoids,
            "figure5-equal-compute": partial(
                sinusoid_errors.section, picture="figure5-equal-compute.png"
            ),
            "figure8": partial(adaptation_curves.section, picture="figure8.png"),
            "figure8-cheetah": partial(adaptation_curves.section, picture="figure8-cheetah.png"),
            "figure8-equal-data": partial(
                adaptation_curves.section, picture="figure8-equal-data.png"
            ),
            "navigation-search": search,
            "photo-search": search,
            "photo-features": features,
            "photos-unseen": unseen_domains,
            "glyphs-search": search,
            "calibration": calibration,
            "faults": endurance.faults,
            "thread-load": endurance.thread_load,
            "long-run": endurance.long_run,
            "compatibility": endurance.compatibility,
            "benchmarks": speed,
        },
        MODELS / "glyphs/card.md": {"calibration": trust},
        MODELS / "photos/card.md": {
            "calibration-photos": trust,
            "photos-unseen": unseen_domains,
        },
        HERE.parent / "docs/who.md": {"photo-features": photos_table, "photo-table2": compared},
        HERE.parent / "docs/guides/pretrained.md": {"pretrained": pretrained},
        HERE.parent / "docs/guides/does-it-help.md": {"photo-table2": helps},
        HERE.parent / "docs/guides/flows.md": {
            name: flows for name in ("photo-table2", "photo-table4", "figure5")
        },
    }
    wanted = {HERE / "report.md": report.markdown(report.report(HERE))}
    for page, sections in pages.items():
        records = {name: HERE / f"{name}.json" for name in sections}
        parts = [
            render(read(records[name]))
            for name, render in sections.items()
            if records[name].is_file()
        ]
        wanted[page] = filled(page.read_text(), parts)
    picture = HERE.parent / "docs/assets/photos.svg"
    files = (read(HERE / f"{name}.json") for name in ("photo-features", "calibration-photos"))
    wanted[picture] = photo_model.picture(*files)
    stale = [
        page for page, text in wanted.items() if not page.is_file() or page.read_text() != text
    ]
    if "--check" in sys.argv:
        for page in stale:
            print(f"{page} differs from the records: python results/render.py writes it")
        return int(bool(stale))
    for page in stale:
        page.write_text(wanted[page])
    return 0


if __name__ == "__main__":
    sys.exit(main())

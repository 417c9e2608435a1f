"""Merges records that were measured in several places into the records here.

    python results/merge.py runs/photo-tables/photo-table2.json ...

A record of an experiment that is not here yet is copied. Pictures that are drawn from records alone
are drawn again. Then ``python results/render.py``.
"""

import sys
from importlib import import_module
from pathlib import Path

from merging import dropped_seeds, merged

from omnitraining.errors import InputError
from omnitraining.experiments.experiment import experiments
from omnitraining.experiments.record import Record, read_record, write_record

HERE = Path(__file__).parent


def main(paths: list[str]) -> int:
    """Merge each file; returns the exit code."""
    for path in map(Path, paths):
        target = HERE / path.name
        record = read_record(path)
        if dirty := dirty_rows(record):
            print(
                f"{path}: made from a tree with uncommitted changes, which nobody can check out: "
                f"{', '.join(dirty)}; train these rows again from a clean commit",
                file=sys.stderr,
            )
            return 2
        if target.is_file():
            before = read_record(target)
            try:
                record = merged(before, record)
            except InputError as error:
                print(f"{path}: {error}", file=sys.stderr)
                return 2
            for line in dropped_seeds(before, record):
                print(f"{path}: {line}", file=sys.stderr)
        write_record(target, record)
        kinds = {experiment.name: experiment.draw for experiment in experiments()}
        if kinds.get(record.experiment) in ("pairs", "tables", "accuracies", "sinusoid_errors"):
            kind = kinds[record.experiment]
            drawing = import_module(f"omnitraining.experiments.figures.{kind}")
            drawing.draw(record, {}, target.with_suffix(".png"))
    return 0


def dirty_rows(record: Record) -> list[str]:
    """Rows with runs whose commit does not have the code that made them."""
    return [
        name
        for name, row in record.rows.items()
        for facts in row.trainings.values()
        if (facts.provenance.get("commit") or "").endswith("-dirty")
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

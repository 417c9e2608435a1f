"""Merges records that were measured in several places into the records here.

    python results/merge.py runs/photo-tables/photo-table2.json ...

A record of an experiment that is not here yet is copied. Pictures that are drawn from records alone
are drawn anew. Then ``python results/render.py``.
"""

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from merging import merged

from omnitraining.errors import InputError
from omnitraining.experiments.experiment import experiments

HERE = Path(__file__).parent


def main(paths: list[str]) -> int:
    for path in map(Path, paths):
        target = HERE / path.name
        record = json.loads(path.read_text())
        if dirty := dirty_rows(record):
            print(
                f"{path}: made from a tree with uncommitted changes, which nobody can check out: "
                f"{', '.join(dirty)}; train these rows again from a clean commit",
                file=sys.stderr,
            )
            return 2
        if target.is_file():
            try:
                record = merged(json.loads(target.read_text()), record)
            except InputError as error:
                print(f"{path}: {error}", file=sys.stderr)
                return 2
        target.write_text(json.dumps(record, indent=1) + "\n")
        kinds = {experiment.name: experiment.draw for experiment in experiments()}
        if kinds.get(record["experiment"]) in ("pairs", "tables", "accuracies"):
            kind = kinds[record["experiment"]]
            drawing = import_module(f"omnitraining.experiments.figures.{kind}")
            drawing.draw(record, {}, target.with_suffix(".png"))
    return 0


def dirty_rows(record: dict[str, Any]) -> list[str]:
    """Rows with runs whose commit does not have the code that made them."""
    return [
        row
        for row, results in record["rows"].items()
        for facts in results.get("settings", {"": results}).values()
        if (facts.get("provenance", {}).get("commit") or "").endswith("-dirty")
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

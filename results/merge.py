"""Merges records that were measured in several places into the records here.

    python results/merge.py runs/glyph-tables/glyph-table2.json ...

A record of an experiment that is not here yet is copied. Then ``python results/render.py``.
"""

import json
import sys
from pathlib import Path

from omnitraining.errors import InputError
from omnitraining.merging import merged

HERE = Path(__file__).parent


def main(paths: list[str]) -> int:
    for path in map(Path, paths):
        target = HERE / path.name
        record = json.loads(path.read_text())
        if target.is_file():
            try:
                record = merged(json.loads(target.read_text()), record)
            except InputError as error:
                print(f"{path}: {error}", file=sys.stderr)
                return 2
        target.write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

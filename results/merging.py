"""Merging records of one experiment whose rows were measured in several places."""

from omnitraining.errors import InputError
from omnitraining.experiments.records import Values


def merged(before: Values, after: Values) -> Values:
    """One record of what two have; where both have a cell of a row, the later one's counts.

    Differences task by task are kept where both rows are of one record, and dropped where they are
    not: the scores of single tasks are with the runs.

    Args:
        before: the earlier record, as `omnitraining.experiments.records` writes it.
        after: the later one, of other rows, settings or seeds.

    Raises:
        InputError: they are of different experiments, or were judged on different tasks.
    """
    for name in ("experiment", "unit", "higher_is_better"):
        if before.get(name) != after.get(name):
            raise InputError(
                f"records of {before.get('experiment')!r} and {after.get('experiment')!r} cannot "
                f"be merged: they differ in {name}"
            )
    rows = {name: _joined(before["rows"].get(name, {}), after["rows"].get(name, {}))
            for name in {**before["rows"], **after["rows"]}}  # fmt: skip
    _check_tasks(rows)
    newer = {(name, cell) for name, row in after["rows"].items() for cell in row["cells"]}
    reference = before["reference"]
    for name, row in rows.items():
        for cell, found in row["cells"].items():
            parted = ((name, cell) in newer) != ((reference, cell) in newer)
            if parted or ((name, cell) in newer and after["reference"] != reference):
                row["cells"][cell] = {k: v for k, v in found.items() if k != "reference_minus_this"}
    claims = {_about(claim): claim for claim in after.get("claims", [])}
    for claim in before.get("claims", []):
        kept = {
            cell: gap
            for cell, gap in claim["cells"].items()
            if not {(claim["row"], cell), (claim["rival"], cell)} & newer
        }
        later = claims.get(_about(claim), {"cells": {}})["cells"]
        claims[_about(claim)] = {**claim, "cells": kept | later}
    return {**before, "rows": rows, "claims": [c for c in claims.values() if c["cells"]]}


def _joined(old: Values, new: Values) -> Values:
    """A row with the cells of both, and how the runs of each setting were made."""
    both: Values = {**old, **new, "cells": {**old.get("cells", {}), **new.get("cells", {})}}
    if "settings" in both:
        both["settings"] = {**old.get("settings", {}), **new.get("settings", {})}
    return both


def _about(claim: Values) -> tuple[str, str, str]:
    return claim["row"], claim["head"], claim["rival"]


def _check_tasks(rows: Values) -> None:
    tasks: dict[str, str] = {}
    for name, row in rows.items():
        for cell, found in row["cells"].items():
            if tasks.setdefault(cell, found["tasks"]) != found["tasks"]:
                raise InputError(
                    f"records cannot be merged: {name} was judged on other tasks of {cell!r} than "
                    "the rows before it"
                )

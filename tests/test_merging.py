"""Records that were measured in several places become one."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from omnitraining.errors import InputError
from omnitraining.experiments.claims import Claim, judge
from results.merging import merged

Record = dict[str, Any]
ROOT = Path(__file__).parent.parent


def record(reference: str, rows: dict[str, dict[str, float]], **claims: float) -> Record:
    """A record of rows of means by cell, with paired differences to the reference."""
    made = {
        row: {
            "cells": {
                cell: {
                    "tasks": cell,
                    "heads": {"ensemble": {"mean": mean, "interval": 1.0}},
                    "reference_minus_this": {
                        "mean": rows[reference][cell] - mean, "interval": 0.1},
                }
                for cell, mean in cells.items()
            },
            "settings": {cell: {"seconds": [mean]} for cell, mean in cells.items()},
        }
        for row, cells in rows.items()
    }  # fmt: skip
    kept = [
        {"row": row, "head": "ensemble", "rival": reference,
         "cells": {cell: {"mean": gap, "interval": 0.1} for cell in rows[row]}}
        for row, gap in claims.items()
    ]  # fmt: skip
    return {
        "experiment": "mine", "unit": "accuracy %", "higher_is_better": True,
        "reference": reference, "rows": made, "claims": kept,
    }  # fmt: skip


OLD = record("omni", {"omni": {"a": 9.0, "b": 8.0}, "proto": {"a": 8.5, "b": 6.0}}, proto=-0.5)


def test_other_rows_are_added_and_compared_as_independent_with_the_old_ones() -> None:
    new = record("maml", {"maml": {"a": 8.8}, "plain": {"a": 7.0}}, plain=-2.0)
    before = copy.deepcopy(OLD)
    both = merged(OLD, new)
    assert before == OLD, "neither record is changed"
    assert [*both["rows"]] == ["omni", "proto", "maml", "plain"] and both["reference"] == "omni"
    assert "reference_minus_this" not in both["rows"]["maml"]["cells"]["a"]
    assert both["rows"]["proto"] == OLD["rows"]["proto"]
    # 9.0 - 8.8 of two means with an interval of 1 each is nothing; paired, 0.1 would be less.
    verdict = judge(Claim("omni", above="maml"), [both])
    assert (verdict.better, verdict.cells, verdict.is_paired) == (0, 1, False)
    assert judge(Claim("omni", level="proto", margin=1), [both]).is_paired
    plain = judge(Claim("maml", above="plain"), [both])
    assert (plain.better, plain.cells, plain.is_paired) == (1, 1, False)
    assert {(c["row"], *c["cells"]) for c in both["claims"]} == {
        ("plain", "a"),
        ("proto", "a", "b"),
    }


def test_a_cell_measured_anew_replaces_the_old_one_and_its_differences() -> None:
    both = merged(OLD, record("proto", {"proto": {"a": 7.0}}))
    assert both["rows"]["proto"]["cells"]["a"]["heads"]["ensemble"]["mean"] == 7.0
    assert "reference_minus_this" not in both["rows"]["proto"]["cells"]["a"]
    assert both["rows"]["proto"]["cells"]["b"] == OLD["rows"]["proto"]["cells"]["b"]
    assert both["rows"]["proto"]["settings"] == {"a": {"seconds": [7.0]}, "b": {"seconds": [6.0]}}
    assert [[*claim["cells"]] for claim in both["claims"]] == [["b"]]
    verdict = judge(Claim("omni", above="proto"), [both])
    assert (verdict.better, verdict.cells, verdict.is_paired) == (2, 2, False)


def test_another_setting_of_all_rows_keeps_its_own_differences() -> None:
    both = merged(OLD, record("omni", {"omni": {"c": 5.0}, "proto": {"c": 4.0}}, proto=-1.0))
    assert both["rows"]["proto"]["cells"]["c"]["reference_minus_this"]["mean"] == 1.0
    assert judge(Claim("omni", above="proto"), [both]).is_paired
    assert both["claims"][0]["cells"].keys() == {"a", "b", "c"}


def test_merging_with_itself_changes_nothing() -> None:
    assert merged(OLD, OLD) == OLD


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(InputError, match="'mine' and 'other' cannot be merged"):
        merged(OLD, {**OLD, "experiment": "other"})
    new = record("maml", {"maml": {"a": 8.8}})
    new["rows"]["maml"]["cells"]["a"]["tasks"] = "others"
    with pytest.raises(InputError, match="maml was judged on other tasks of 'a'"):
        merged(OLD, new)


def test_the_script_merges_files(tmp_path: Path) -> None:
    script = tmp_path / "merge.py"
    script.write_text((ROOT / "results" / "merge.py").read_text())
    (tmp_path / "merging.py").write_text((ROOT / "results" / "merging.py").read_text())
    (tmp_path / "mine.json").write_text(json.dumps(OLD))
    (tmp_path / "new").mkdir()
    new = record("maml", {"maml": {"a": 8.8}})
    for name in ("mine.json", "first.json"):
        (tmp_path / "new" / name).write_text(json.dumps(new))
        subprocess.run([sys.executable, script, tmp_path / "new" / name], check=True)
    assert json.loads((tmp_path / "mine.json").read_text()) == merged(OLD, new)
    assert json.loads((tmp_path / "first.json").read_text()) == new
    new["rows"]["maml"]["settings"]["a"]["provenance"] = {"commit": "abc1234-dirty"}
    (tmp_path / "new" / "dirty.json").write_text(json.dumps(new))
    command = [sys.executable, script, tmp_path / "new" / "dirty.json"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and "uncommitted changes" in refused.stderr
    assert "maml" in refused.stderr and not (tmp_path / "dirty.json").exists()

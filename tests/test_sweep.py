"""Sweeps: all combinations, in any number of processes, whatever fails or is killed."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from omnitraining.cli import main
from omnitraining.config.run_config import load_run
from omnitraining.errors import InputError
from omnitraining.experiments.figures import varied_fields
from omnitraining.experiments.grid import Combination, combinations, given_fields, listed
from omnitraining.experiments.jobs import in_processes
from omnitraining.experiments.record import Record, from_json, read_record
from omnitraining.runs.run import Run
from tests.reference.tiny import SINUSOIDS

GRID = ("--loss.distill_weight", "0,1", "--training.lr", "0.01,1e30")
"""Of two by two cells, those with a rate of 1e30 diverge."""


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "waves.yaml"
    path.write_text(yaml.safe_dump(SINUSOIDS))
    return path


def sweep(*arguments: object) -> int:
    return main(["sweep", *map(str, arguments)])


@pytest.fixture(scope="module")
def swept(waves: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The grid with two runs at a time; not to be changed."""
    folder = tmp_path_factory.mktemp("swept") / "grid"
    assert sweep(waves, *GRID, "--seeds", "0,1", "--jobs", 2, "--out", folder) == 1
    return folder


def record_of(folder: Path) -> Record:
    return read_record(folder / f"{folder.name}.json")


def scores(folder: Path) -> dict[str, Any]:
    """Scores of every task, by run and cell."""
    return {
        path.parents[1].name: {
            key: cell.scores for key, cell in Run(path.parents[1]).load_evaluation().cells.items()
        }
        for path in folder.glob("*/evaluations/test.json")
    }


# --- what is asked for ---


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("1", ["1"]),
        ("0, 1,3", ["0", "1", "3"]),
        ("[pre,joint],[pre]", ["[pre,joint]", "[pre]"]),
        ("{a: [1,2], b: 3},4", ["{a: [1,2], b: 3}", "4"]),
        ("'a,b',c", ["'a,b'", "c"]),
        ("1,,2", ["1", "", "2"]),
    ],
)
def test_values_are_separated_by_commas_outside_of_brackets(text: str, parts: list[str]) -> None:
    assert listed(text) == parts


def test_fields_are_given_as_two_words_or_one() -> None:
    assert given_fields(["--a.b", "1,2", "--c=-1,0"]) == {"a.b": "1,2", "c": "-1,0"}


def test_the_product_is_in_order_and_one_value_is_the_same_in_all(waves: Path) -> None:
    fields = {
        "loss.distill_weight": ["0", "1"],
        "problem.waves": ["7"],
        "training.lr": ["0.1", "0.2"],
    }
    found = combinations(waves, fields)
    assert [cell.label for cell in found] == [
        f"distill_weight={w}, lr={lr}" for w in (0, 1) for lr in (0.1, 0.2)
    ]
    assert found[1].varied == {"loss.distill_weight": 0.0, "training.lr": 0.2}
    for cell in found:
        assert cell.values["problem"]["init_args"]["waves"] == 7
        assert cell.values["training"]["lr"] == cell.varied["training.lr"]


def test_fields_of_the_same_last_name_are_distinguished(waves: Path) -> None:
    found = combinations(
        waves, {"pretraining.lr": ["0.1", "0.2"], "metatraining.lr": ["0.3", "0.4"]}
    )
    assert found[0].label == "pretraining.lr=0.1, metatraining.lr=0.3"


def test_classes_can_be_swept_and_their_options_are_their_own(waves: Path) -> None:
    found = combinations(waves, {"method": ["omni-training", "meta-training"], "backbone": ["MLP"]})
    assert [cell.values["method"] for cell in found] == ["omni-training", "meta-training"]
    assert found[0].values["backbone"]["init_args"]["hidden"] == [8, 8]


def test_folders_have_harmless_and_different_names() -> None:
    long = ", ".join(f"field{i}={i}" for i in range(40))
    labels = ["w=1, lr=0.1", "data=../../etc", "data=.._.._etc", "vote=[pre,joint]", long]
    names = [Combination(label, {}, {}).folder for label in labels]
    assert len({*names}) == len(names)
    assert all("/" not in name and len(name) <= 100 for name in names)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--loss.weigt", "0,1"], "loss has no field 'weigt': choose from distill_weight, "),
        (
            ["--loss.distill_weight", "0,a"],
            "loss.distill_weight is a: it must be a number",
        ),
        (["--training.lr", "0.1,-1"], "training.lr is -1.0: it must be greater than 0"),
        (
            ["--loss.distill_weight", "1,1.0"],
            "distill_weight=1.0 and distill_weight=1 are the same configuration",
        ),
        (["--loss.distill_weight", "0,,1"], "--loss.distill_weight has 1 empty values"),
        (["--loss.distill_weight"], "--loss.distill_weight has no value"),
        (
            ["--loss.distill_weight", "0", "--loss.distill_weight", "1"],
            "--loss.distill_weight is given twice",
        ),
        (["0,1"], "'0,1' is not understood: fields are given as"),
        (["--seed", "0,1"], "--seed is not swept: give --seeds 0,1,2"),
        (["--seeds", "0,x"], "--seeds is 0,x: it must be integers, as in 0,1,2"),
        (["--seeds", "1,1"], "--seeds is 1,1: a seed is given twice"),
        (["--jobs", "0"], "--jobs is 0: it must be 1 or more"),
        (["--training.device", "tpu9"], "training.device is 'tpu9', which is not usable here"),
    ],
)
def test_wrong_input_is_one_line_before_anything_runs(
    arguments: list[str],
    line: str,
    waves: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert sweep(waves, *arguments, "--out", tmp_path / "out") == 2
    printed = capsys.readouterr()
    assert line in printed.err and printed.err.startswith("omni: ") and printed.err.count("\n") == 1
    assert printed.out == "" and not (tmp_path / "out").exists()


# --- what comes out ---


def test_a_failed_run_leaves_the_others_alone(swept: Path) -> None:
    record = record_of(swept)
    assert [*record.rows] == ["distill_weight=0, lr=0.01", "distill_weight=1, lr=0.01"]
    assert record.reference == "distill_weight=0, lr=0.01" and record.seeds == 2
    assert record.command.endswith("--loss.distill_weight 0,1 --training.lr 0.01,1e30 --seeds 0,1")
    assert sorted(record.failed or {}) == [
        f"distill_weight={w},lr=1e30-{seed}" for w in (0, 1) for seed in (0, 1)
    ]
    assert all("lower training.lr" in reason for reason in (record.failed or {}).values())
    for row in record.rows.values():
        assert row.of_seeds == [0, 1] and row.training.provenance["machine"]
        assert all(seconds > 0 for seconds in row.training.seconds)


def test_the_numbers_equal_the_runs_results(swept: Path) -> None:
    rows, found = record_of(swept).rows, scores(swept)
    for label, folder in (("distill_weight=0, lr=0.01", "distill_weight=0,lr=0.01"),):
        for key, column in rows[label].cells.items():
            both = [found[f"{folder}-{seed}"][key]["ensemble"] for seed in (0, 1)]
            mean = sum(map(sum, both)) / sum(map(len, both))
            assert column.ensemble.mean == pytest.approx(mean, rel=1e-3)
    for name in found:
        config = load_run(Run(swept / name))
        assert config.seed == int(name[-1]) and config.training.lr == 0.01
        assert config.loss.distill_weight == float(name[len("distill_weight=")])


def test_one_run_at_a_time_gives_the_same_and_finished_ones_are_kept(
    swept: Path, waves: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "grid"
    assert sweep(waves, "--loss.distill_weight", "0,1", "--jobs", 1, "--out", out) == 0
    runs = scores(out)
    assert runs == {
        f"distill_weight={w}-0": scores(swept)[f"distill_weight={w},lr=0.01-0"] for w in (0, 1)
    }
    before = {file: file.stat().st_mtime_ns for file in out.glob("*/*.safetensors")}
    capsys.readouterr()
    assert sweep(waves, "--loss.distill_weight", "0,1,3", "--jobs", 1, "--out", out) == 0
    printed = capsys.readouterr()
    assert (
        "3 runs, of which 2 are finished" in printed.out
        and "1/1 distill_weight=3-0: finished" in printed.out
    )
    assert before == {file: file.stat().st_mtime_ns for file in before}
    assert [*record_of(out).rows] == ["distill_weight=0", "distill_weight=1", "distill_weight=3"]
    assert (out / "grid.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match=r"holds a run with another training.steps: choose"):
        main_raises(waves, "--loss.distill_weight", "0,1", "--training.steps", 6, "--out", out)


def main_raises(*arguments: object) -> None:
    from omnitraining.cli import sweep as command

    command.main([*map(str, arguments)])


def test_a_killed_sweep_goes_on_and_ends_alike(swept: Path, waves: Path, tmp_path: Path) -> None:
    out = tmp_path / "grid"
    words = ["--loss.distill_weight", "0,1", "--training.lr", "0.01", "--jobs", "1"]
    program = [str(Path(sys.executable).parent / "omni"), "sweep", str(waves), *words]
    process = subprocess.Popen(
        [*program, "--out", str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 240
    while not scores(out) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert len(scores(out)) == 1
    assert sweep(waves, *words, "--out", out) == 0
    whole = scores(swept)
    assert scores(out) == {
        f"distill_weight={w}-0": whole[f"distill_weight={w},lr=0.01-0"] for w in (0, 1)
    }


# --- the figure ---


def record(varied: list[dict[str, Any]]) -> Record:
    """A record whose means are the row's number."""
    head = {"interval": 0.5, "by_seed": [1.0]}
    rows = {
        str(i): {
            "varied": values,
            "cells": {
                f"latin 5-way {shot}-shot": {
                    "tasks": "h",
                    "heads": {"ensemble": {**head, "mean": 50.0 + i}},
                }
                for shot in (1, 5)
            },
        }
        for i, values in enumerate(varied)
    }
    header = {
        "experiment": "t", "title": "t", "paper": "", "command": "omni", "unit": "accuracy %",
        "tasks": 9, "seeds": 1, "higher_is_better": True, "reference": "0",
    }  # fmt: skip
    return from_json({**header, "rows": rows})


ONE = [{"w": 3}, {"w": 0.5}, {"w": 1}]
TWO = [{"w": w, "lr": lr} for w in (0, 1, 3) for lr in (0.1, 0.2)]


@pytest.mark.parametrize("varied", [ONE, TWO, TWO[:-1]])
def test_one_or_two_numeric_fields_are_drawn(varied: list[dict[str, Any]], tmp_path: Path) -> None:
    made = record(varied)
    assert varied_fields.can_draw(made)
    path = varied_fields.draw(made, None, tmp_path / "f.png")
    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5000


@pytest.mark.parametrize(
    "varied", [[{"m": "a"}, {"m": "b"}], [{"b": True}, {"b": False}], ONE[:1], [{}, {}],
               [{"a": i, "b": i, "c": i} for i in (0, 1)]]
)  # fmt: skip
def test_other_fields_are_not(varied: list[dict[str, Any]]) -> None:
    assert not varied_fields.can_draw(record(varied))


def test_the_error_for_a_script_that_each_run_reads_names_where_to_start_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Python reads the script of a program again in each process that it starts."""
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(InputError, match="below if __name__ == '__main__'"):
        next(in_processes([], print, 1), None)

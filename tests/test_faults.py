"""Runs that the system kills, or stops for lack of space: a short ``benchmarks.faults``."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from benchmarks.faults.kills import MANNERS, differences, killed
from omnitraining.cli import main
from omnitraining.config.recipes import merge
from omnitraining.config.run_config import load_run
from omnitraining.errors import InputError
from omnitraining.experiments.running import train_run
from omnitraining.runs.run import Metrics, Run, load_checkpoint
from tests.reference.tiny import BLOBS, NAVIGATION, SINUSOIDS, Values, config, metrics

EIGHT: Values = {"training": {"steps": 8, "val_every": 2}}


@pytest.mark.parametrize("base", [BLOBS, SINUSOIDS, NAVIGATION], ids=["images", "waves", "acting"])
def test_a_run_that_is_killed_thrice_ends_as_if_it_had_not_been(
    base: Values, tmp_path: Path
) -> None:
    values = merge(base, EIGHT)
    assert not killed(values, tmp_path / "whole")
    folder = tmp_path / "life"
    for manner, at in zip(MANNERS, (0.5, 2, 6), strict=True):
        assert killed(values, folder, manner, at) or (folder / "provenance.json").is_file()
    killed(values, folder)
    assert differences(tmp_path / "whole", folder, tasks=3) == []


def test_a_row_of_metrics_that_was_cut_is_written_again(tmp_path: Path) -> None:
    run = Run(tmp_path, create=True)
    for cut in ("1", "12,tot", "12,total,", "12,total,0."):
        run.write_text("metrics.csv", f"step,name,value\n3,total,0.5\n{cut}")
        Metrics(run, resume_at=5).close()
        assert metrics(tmp_path) == [(3, "total", 0.5)]


def no_space(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("writer", ["save_file", "os.replace", "csv.writer"])
def test_a_full_disk_is_one_line_and_leaves_the_last_good_checkpoint(
    writer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = config(SINUSOIDS, **EIGHT)
    whole = train_run(values, tmp_path / "whole")
    validate, done = type(load_run(whole).problem).validation_scores, 0

    def filled(self: Any, *rest: Any) -> dict[str, float]:
        nonlocal done
        done += 1
        if done > 4:  # student and teacher of two epochs: of the third nothing can be written
            monkeypatch.setattr(f"omnitraining.runs.run.{writer}", no_space)
        return validate(self, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(type(load_run(whole).problem), "validation_scores", filled)
        with pytest.raises(InputError, match=r"cannot write .*: No space left .*--resume"):
            train_run(values, tmp_path / "run")
    monkeypatch.undo()
    run = Run(tmp_path / "run")
    assert load_checkpoint(run.checkpoint("last"), {})["step"] == 4
    load_run(run).load(run)
    assert not [*run.path.glob("*.part")]
    train_run(values, run.path, resume=True)
    assert differences(whole.path, run.path, tasks=3) == []


def test_a_folder_that_may_only_be_read_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def read_only(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EROFS, os.strerror(errno.EROFS), str(tmp_path / "run"))

    run = train_run(config(SINUSOIDS), tmp_path / "run")
    before = {path: path.read_bytes() for path in run.path.glob("*.*")}
    monkeypatch.setattr(Path, "write_text", read_only)
    with pytest.warns(UserWarning, match="cannot write .*: Read-only file system"):
        assert main(["evaluate", str(run.path), "--tasks", "3"]) == 0
    assert "5-shot, 1 step" in capsys.readouterr().out, "what was computed is shown"
    monkeypatch.setattr(Path, "mkdir", read_only)
    monkeypatch.chdir(tmp_path)
    assert main(["train", "sinusoids.yaml", "--training.steps", "1", "--out", "other"]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and "Read-only file system" in printed
    assert {path: path.read_bytes() for path in run.path.glob("*.*")} == before

"""Experiment trackers receive what metrics.csv holds; a resumed training continues their run."""

import csv
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from omnitraining.errors import InputError
from omnitraining.experiments.running import train_run
from omnitraining.training import loop
from tests.reference.tiny import SINUSOIDS, config
from tests.test_training import Interrupt

LENGTH = {"steps": 6, "val_every": 3}


class Tracker:
    """Stands in for the packages: keeps the rows of each run by its id."""

    def __init__(self) -> None:
        self.runs: dict[str, list[tuple[int, str, float]]] = {}
        self.ended: list[str] = []
        self.current = ""

    def begin(self, identity: str | None, **_: Any) -> SimpleNamespace:
        self.current = identity or f"run {len(self.runs)}"
        self.runs.setdefault(self.current, [])
        return SimpleNamespace(
            id=self.current,
            info=SimpleNamespace(run_id=self.current),
            log=self.log,
            finish=self.end,
        )

    def log(self, values: dict[str, float], step: int) -> None:
        self.runs[self.current] += [(step, name, value) for name, value in values.items()]

    def end(self) -> None:
        self.ended.append(self.current)


def package(name: str, tracker: Tracker) -> ModuleType:
    made = ModuleType(name)
    if name == "wandb":
        made.init = lambda id, **rest: tracker.begin(id, **rest)  # type: ignore[attr-defined]
    else:
        made.start_run = lambda run_id, **rest: tracker.begin(run_id)  # type: ignore[attr-defined]
        made.log_metrics = tracker.log  # type: ignore[attr-defined]
        made.log_artifact = lambda path: None  # type: ignore[attr-defined]
        made.end_run = tracker.end  # type: ignore[attr-defined]
    return made


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_receives_every_row_once_and_in_one_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "REPORT_EVERY", 1)
    tracker = Tracker()
    monkeypatch.setitem(sys.modules, name, package(name, tracker))
    chosen = config(SINUSOIDS, training={**LENGTH, "loggers": [name]})
    with pytest.raises(KeyboardInterrupt):
        train_run(chosen, tmp_path / "run", progress=Interrupt(4))  # after the checkpoint of 3
    assert tracker.ended == ["run 0"], "an interrupted run of a tracker is ended too"
    run = train_run(chosen, tmp_path / "run", resume=True)
    assert list(tracker.runs) == ["run 0"] and tracker.ended == ["run 0"] * 2
    with (run.path / "metrics.csv").open() as file:
        rows = [(int(r["step"]), r["name"], float(r["value"])) for r in csv.DictReader(file)]
    assert [*dict.fromkeys(tracker.runs["run 0"])] == rows  # step 4 came twice, with equal values
    assert not (run.path / "tensorboard").exists()


def test_a_tracker_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"training.loggers names wandb, which is not installed"):
        train_run(config(SINUSOIDS, training={"loggers": ["wandb"]}), tmp_path / "run")


def test_other_trackers_may_be_chosen_when_a_run_goes_on(tmp_path: Path) -> None:
    run = train_run(config(SINUSOIDS, training={"loggers": []}), tmp_path / "run")
    assert not (run.path / "tensorboard").exists()
    train_run(config(SINUSOIDS, training=LENGTH), run.path, resume=True)

"""Tuning: ranges, trials that use validation tasks alone, interrupted and resumed searches."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from omnitraining.cli import main
from omnitraining.config.run_config import read_config
from omnitraining.errors import InputError
from omnitraining.experiments import cluster
from omnitraining.experiments.jobs import Job, Work, in_processes
from omnitraining.experiments.tuning import Range, Search, read_range, split_fields
from omnitraining.tasks.classification.problem import EpisodeConfig
from tests.reference.tiny import BLOBS, SINUSOIDS, Blobs, Values

pytest.importorskip("optuna")
RATES = ("--training.lr", "log:0.001..0.1", "--loss.distill_weight", "0,1,3")


class SealedTests(Blobs):
    """Blobs whose test images and their labels are gone as soon as it is made."""

    def __init__(self, protocol: EpisodeConfig) -> None:
        super().__init__(protocol)
        for images in self.benchmarks.values():
            object.__setattr__(images, "images", None)
            object.__setattr__(images, "labels", None)


def here(jobs: Sequence[Job], work: Work, processes: int) -> Iterator[tuple[Job, str | None]]:
    """Jobs one after the other in this process: quicker than new ones."""
    for job in reversed(jobs):  # whichever ends first
        try:
            work(job)
            yield job, None
        except InputError as error:
            yield job, str(error)


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "in_processes", here)


def write(path: Path, values: Values) -> Path:
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture
def waves(tmp_path: Path) -> Path:
    return write(tmp_path / "waves.yaml", SINUSOIDS)


def tune(*arguments: object) -> int:
    return main(["tune", *map(str, arguments)])


def trials(folder: Path) -> list[dict[str, Any]]:
    """By number."""
    found: list[dict[str, Any]] = json.loads((folder / "trials.json").read_text())["trials"]
    return sorted(found, key=lambda trial: int(trial["number"]))


# --- ranges ---


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"low": 1, "high": 3}, Range((), 1.0, 3.0, False)),
        ({"low": "1e-4", "high": 1e-2, "log": True}, Range((), 1e-4, 1e-2, True)),
        ([0, 1.5, "pre"], Range(("0", "1.5", "pre"))),
        ([["pre", "joint"], True, None], Range(('["pre", "joint"]', "true", "null"))),
    ],
)
def test_ranges_are_intervals_or_choices(given: Any, expected: Range) -> None:
    assert read_range("a.b", given) == expected


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (3, "range of a.b is 3: a range is"),
        ([1], r"range of a.b is \[1\]: a range is"),
        ({"low": 1}, "a range is"),
        ({"low": 1, "high": 2, "step": 1}, "a range is"),
        ({"low": "x", "high": 2}, "low and high must be numbers"),
        ({"low": 2, "high": 1}, "low must be below high"),
        ({"low": 1, "high": 2, "log": "maybe"}, "log must be true or false"),
        ({"low": 0, "high": 1, "log": True}, "with log, greater than 0"),
    ],
)
def test_wrong_ranges_are_refused(given: Any, line: str) -> None:
    with pytest.raises(InputError, match=line):
        read_range("a.b", given)


def test_the_command_line_has_ranges_choices_and_fixed_values() -> None:
    fields = {"a": "log:1e-4..1e-2", "b": "0..1", "c": "0,[1,2]", "d": "5"}
    fixed, ranges = split_fields(fields)
    assert fixed == {"d": "5"}
    assert ranges == {
        "a": Range((), 1e-4, 1e-2, True),
        "b": Range((), 0.0, 1.0, False),
        "c": Range(("0", "[1,2]")),
    }


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "nothing to tune: declare ranges in a tune section of"),
        (["--loss.distill_weight", "3"], "nothing to tune"),
        (["--loss.weigt", "0,1"], "loss has no field 'weigt'"),
        (["--training.lr", "-1..1"], "training.lr is -1.0: it must be greater than 0"),
        (
            ["--loss.distill_weight", "0,a"],
            "loss.distill_weight is a: it must be a number",
        ),
        (["--training.steps", "1.5..4"], "training.steps is 1.5: it must be an integer"),
        (
            ["--loss.distill_weight", "0,1", "--trials", "0"],
            "--trials is 0: it must be 1 or more",
        ),
        (["--loss.distill_weight", "3..1"], "low must be below high"),
    ],
)
def test_wrong_input_is_one_line_before_anything_runs(
    arguments: list[str], line: str, waves: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = waves.parent / "out"
    assert tune(waves, *arguments, "--out", out) == 2
    printed = capsys.readouterr()
    assert line in printed.err and printed.err.count("\n") == 1 and printed.out == ""
    assert not out.exists()


def test_without_optuna_there_is_a_hint(
    waves: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert tune(waves, "--loss.distill_weight", "0,1", "--out", waves.parent / "out") == 2
    assert "pip install 'omnitraining[tune]'" in capsys.readouterr().err


# --- searches ---


def test_a_search_writes_its_trials_and_a_configuration_that_trains(
    waves: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = waves.parent / "out"
    assert tune(waves, *RATES, "--training.steps", "3..5", "--trials", 3, "--out", out) == 0
    printed = capsys.readouterr().out
    assert "3 trials, of which 0 failed" in printed and "omni-training in waves" in printed
    found = trials(out)
    assert [trial["number"] for trial in found] == [0, 1, 2]
    for trial in found:
        run = out / f"trial-{trial['number']}"
        assert trial["score"] == json.loads((run / "provenance.json").read_text())["best"]
        config = yaml.safe_load((run / "config.yaml").read_text())
        assert config["training"]["lr"] == float(trial["fields"]["training.lr"])
        assert 0.001 <= config["training"]["lr"] <= 0.1
        assert config["loss"]["distill_weight"] in (0, 1, 3)
        assert config["training"]["steps"] in (3, 4, 5)
        assert not (run / "evaluations").exists(), "no trial is judged on test tasks"
    best = max(found, key=lambda trial: float(trial["score"]))
    text = (out / "best.yaml").read_text()
    assert text.startswith(f"# Trial {best['number']} of 3, validation score")
    config = read_config(out / "best.yaml", [])
    assert config.training.lr == float(best["fields"]["training.lr"])
    assert main(["train", str(out / "best.yaml"), "--out", str(out / "run")]) == 0


def test_ranges_may_be_declared_in_the_configuration(tmp_path: Path) -> None:
    section = {"training.lr": {"low": 0.01, "high": 0.02}, "loss.distill_weight": [0, 1]}
    config = write(tmp_path / "waves.yaml", {**SINUSOIDS, "tune": section})
    assert read_config(config, []).training.lr == 0.01, "other commands read the rest"
    fixed = ("--loss.distill_weight", "3", "--method", "meta-training")
    assert tune(config, *fixed, "--trials", 2, "--out", tmp_path / "out") == 0
    for trial in trials(tmp_path / "out"):
        assert [*trial["fields"]] == ["training.lr"]
        assert 0.01 <= float(trial["fields"]["training.lr"]) <= 0.02
    best = yaml.safe_load((tmp_path / "out" / "best.yaml").read_text())
    assert best["loss"]["distill_weight"] == 3 and best["method"] == "meta-training"


def test_trials_that_fail_are_counted_and_named(
    waves: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = waves.parent / "out"
    assert tune(waves, "--training.lr", "0.01,1e30", "--trials", 6, "--out", out) == 0
    found = trials(out)
    failed = [trial for trial in found if trial["score"] is None]
    assert 0 < len(failed) < 6
    for trial in found:
        assert (trial["score"] is None) == (trial["fields"]["training.lr"] == "1e30")
    printed = capsys.readouterr().out
    assert f"6 trials, of which {len(failed)} failed" in printed
    assert all("lower training.lr" in trial["failure"] for trial in failed)
    assert tune(waves, "--training.lr", "1e30,1e31", "--trials", 2, "--out", out / "bad") == 1


def test_test_tasks_are_never_used(tmp_path: Path) -> None:
    problem = {**BLOBS["problem"], "class_path": "tests.test_tune.SealedTests"}
    config = write(tmp_path / "blobs.yaml", {**BLOBS, "problem": problem})
    assert tune(config, *RATES, "--trials", 2, "--out", tmp_path / "out") == 0
    assert all(trial["score"] is not None for trial in trials(tmp_path / "out"))
    # `train` evaluates on test tasks, and fails without them.
    with pytest.raises((AttributeError, TypeError)):
        main(["train", str(config), "--out", str(tmp_path / "run")])


def test_a_search_that_breaks_off_goes_on_as_if_it_had_not(
    waves: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = waves.parent / "whole", waves.parent / "broken"
    count = ("--trials", 4, "--jobs", 2)
    assert tune(waves, *RATES, *count, "--out", whole) == 0

    def stopped(jobs: Sequence[Job], *others: Any, **named: Any) -> Iterator[Any]:
        if jobs[0].folder.name == "trial-2":
            raise KeyboardInterrupt
        return here(jobs, *others, **named)

    monkeypatch.setattr(cluster, "in_processes", stopped)
    assert tune(waves, *RATES, *count, "--out", broken) == 130
    assert len(trials(broken)) == 2 and (broken / "best.yaml").is_file()
    monkeypatch.setattr(cluster, "in_processes", here)
    assert tune(waves, *RATES, *count, "--out", broken) == 0
    assert trials(broken) == trials(whole)
    kept = {run: run.stat().st_mtime_ns for run in broken.glob("*/last.safetensors")}
    assert tune(waves, *RATES, "--trials", 5, "--jobs", 2, "--out", broken) == 0
    assert len(trials(broken)) == 5
    assert kept == {run: run.stat().st_mtime_ns for run in kept}


@pytest.mark.parametrize("cut", [15, 1])
def test_a_journal_whose_last_line_was_cut_goes_on(cut: int, waves: Path) -> None:
    """As by a program that was killed, or a full disk; which may have left its lock too."""
    out = waves.parent / "out"
    assert tune(waves, *RATES, "--trials", 2, "--out", out) == 0
    journal, before = out / "study.log", trials(out)
    journal.write_bytes(journal.read_bytes()[:-cut])
    (out / "study.log.lock").symlink_to(journal)
    assert tune(waves, *RATES, "--trials", 2, "--out", out) == 0
    assert trials(out) == before
    for line in journal.read_text().splitlines():
        json.loads(line)


@pytest.mark.parametrize("line", [bytes(200) + b"\n", b"{\n", b"5\n", b"{}\n"])
def test_a_journal_that_is_damaged_elsewhere_is_one_line(
    line: bytes, waves: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = waves.parent / "out"
    Search(waves, {}, {"loss.distill_weight": Range(("0", "1"))}, out)
    journal = out / "study.log"
    journal.write_bytes(journal.read_bytes() + line)
    assert tune(waves, "--loss.distill_weight", "0,1", "--trials", 1, "--out", out) == 2
    printed = capsys.readouterr().err
    assert "study.log is damaged" in printed and printed.count("\n") == 1


def test_the_second_of_two_searches_in_a_folder_is_refused(
    waves: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, codes = waves.parent / "out", []

    def meanwhile(jobs: Sequence[Job], *others: Any, **named: Any) -> Iterator[Any]:
        codes.append(tune(waves, *RATES, "--trials", 1, "--out", out))
        return here(jobs, *others, **named)

    monkeypatch.setattr(cluster, "in_processes", meanwhile)
    assert tune(waves, *RATES, "--trials", 1, "--out", out) == 0
    assert codes == [2] and len(trials(out)) == 1
    assert "holds a search that another program goes on with" in capsys.readouterr().err


def test_a_search_in_a_folder_that_was_moved_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the configuration has a path, here of a run that it starts from."""
    monkeypatch.chdir(tmp_path)
    values = {**SINUSOIDS, "training": {**SINUSOIDS["training"], "steps": 0}}
    project = tmp_path / "a"
    project.mkdir()
    assert main(["train", str(write(project / "w.yaml", values)), "--out", f"{project}/run"]) == 0
    config = write(
        project / "waves.yaml", {**values, "method": "joint-training", "start_from": "run"}
    )
    ranges = {"loss.distill_weight": Range(("0", "1"))}
    Search(config, {}, ranges, project / "out")
    project.rename(tmp_path / "b")
    Search(tmp_path / "b" / "waves.yaml", {}, ranges, tmp_path / "b" / "out")


def test_another_search_in_the_folder_is_refused(waves: Path) -> None:
    ranges = {"loss.distill_weight": Range(("0", "1"))}
    Search(waves, {}, ranges, waves.parent / "out")
    Search(waves, {}, ranges, waves.parent / "out")
    for fixed, other in (
        ({"seed": "1"}, ranges),
        ({}, {"loss.distill_weight": Range(("0", "3"))}),
    ):
        with pytest.raises(InputError, match="holds a search of something else: choose another"):
            Search(waves, fixed, other, waves.parent / "out")


@pytest.mark.usefixtures("all_validation_tasks")  # which other processes have
def test_trials_run_in_processes_of_their_own(waves: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = ("--loss.distill_weight", "0,1", "--trials", 2, "--jobs", 2)
    monkeypatch.setattr(cluster, "in_processes", here)
    assert tune(waves, *chosen, "--out", waves.parent / "here") == 0
    monkeypatch.setattr(cluster, "in_processes", in_processes)
    assert tune(waves, *chosen, "--out", waves.parent / "there") == 0
    assert trials(waves.parent / "here") == trials(waves.parent / "there")

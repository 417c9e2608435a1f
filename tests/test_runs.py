"""The run folder: nothing is lost, nothing is half written, nothing is a pickle."""

import json
import os
import pickle
import shutil
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import omnitraining
from omnitraining.cli import main
from omnitraining.config.run_config import load_model
from omnitraining.errors import InputError
from omnitraining.evaluation import Cell, CellKey, Evaluation
from omnitraining.experiments.running import evaluate_run, train_run
from omnitraining.io import files
from omnitraining.io.files import atomic_path, locked, write_atomic
from omnitraining.omninet import OmniNet
from omnitraining.runs import run as runs
from omnitraining.runs import run_data
from omnitraining.runs.run import Metrics, Run, load_checkpoint, provenance, save_checkpoint
from tests.reference.tiny import SINUSOIDS, config, metrics, same, tensors

FACTS = {"step": 3, "best": -0.25, "best_step": 2, "seconds": 1.5}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = train_run(config(SINUSOIDS), tmp_path_factory.mktemp("runs") / "run")
    evaluate_run(run, tasks=3)
    return run


def stepped(kind: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A network with shared weights, buffers, and an optimizer with a state."""
    net = OmniNet(nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7)))
    for branch in net.parameters():
        nn.init.normal_(branch)
    options = {"momentum": 0.9} if kind == "SGD" else {}
    optimizer = getattr(torch.optim, kind)(net.parameters(), lr=0.1, **options)
    for _ in range(2):
        optimizer.zero_grad()
        sum(flow.square().sum() for flow in net(torch.randn(4, 5))).backward()
        optimizer.step()
    return net, optimizer


def state(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    found = optimizer.state_dict()["state"]
    return {f"{i}.{name}": t for i, values in found.items() for name, t in values.items()}


@pytest.mark.parametrize("kind", ["SGD", "AdamW"])
def test_a_checkpoint_restores_weights_buffers_optimizer_and_facts(
    kind: str, tmp_path: Path
) -> None:
    net, optimizer = stepped(kind)
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, {"student": net}, optimizer, FACTS)
    assert [p.name for p in tmp_path.iterdir()] == ["last.safetensors"]  # no .part is left
    torch.manual_seed(1)
    other, of_other = stepped(kind)
    assert not same(other.state_dict(), net.state_dict())
    assert load_checkpoint(path, {"student": other}, of_other) == FACTS
    assert same(other.state_dict(), net.state_dict())
    assert state(optimizer) and same(state(of_other), state(optimizer))
    assert other.pre[0].parametrizations.weight.original is other.joint[0].weight


def test_shared_weights_are_stored_once(tmp_path: Path) -> None:
    net = OmniNet(nn.Sequential(nn.Linear(200, 300)), rank=1)
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, {"student": net}, torch.optim.SGD(net.parameters()), FACTS)
    numbers = 200 * 300 + 300 + 2 * (200 + 300 + 300)  # a joint layer and two branches
    assert sum(t.numel() for t in tensors(path).values()) == numbers
    assert 4 * numbers < path.stat().st_size < 4 * numbers + 2000


def test_infinities_survive(tmp_path: Path) -> None:
    net, optimizer = stepped("SGD")
    save_checkpoint(tmp_path / "c", {"": net}, optimizer, {"best": float("-inf")})
    assert load_checkpoint(tmp_path / "c", {}) == {"best": float("-inf")}


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ([], "its facts are a list"),
        ({**FACTS, "best_weights": "student", "step": "3"}, "step is '3'"),
        ({**FACTS, "best_weights": "student", "step": -1}, "step is -1"),
        ({**FACTS, "best_weights": "student", "best": float("nan")}, "best is nan"),
        ({**FACTS, "best_weights": "both"}, "best_weights is 'both'"),
        (FACTS, "no best_weights"),
        ({"best": 1.0}, "no step"),
    ],
)
def test_odd_facts_of_a_checkpoint_are_damage(
    facts: Any, words: str, finished: Run, tmp_path: Path
) -> None:
    run = Run(shutil.copytree(finished.path, tmp_path / "run"))
    for which in ("last", "best"):
        path = run.checkpoint(which)
        save_file(tensors(path), path, metadata={"facts": json.dumps(facts)})
    with pytest.raises(InputError, match=f"best.safetensors is damaged: {words}"):
        load_model(run)
    with pytest.raises(InputError, match=f"last.safetensors is damaged: {words}"):
        train_run(config(SINUSOIDS), run.path, resume=True)


def test_weights_that_are_not_finite_and_states_of_other_optimizers_are_damage(
    tmp_path: Path,
) -> None:
    net, optimizer = stepped("AdamW")
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, {"": net}, optimizer, FACTS)
    sound = tensors(path)
    for name in ("optimizer.x.step", "optimizer.999.step", "optimizer.0.exp_avg"):
        save_file({**sound, name: torch.zeros(2)}, path, metadata={"facts": json.dumps(FACTS)})
        with pytest.raises(InputError, match=f"is of another optimizer: {name} differs"):
            load_checkpoint(path, {"": net}, optimizer)
    # What no one reads would be lost in silence, and another training go on.
    save_file({**sound, "momenta.0": torch.zeros(2)}, path, metadata={"facts": json.dumps(FACTS)})
    with pytest.raises(InputError, match="holds momenta, which a training of this version does"):
        load_checkpoint(path, {"": net}, optimizer)
    weight = next(name for name in sound if name.endswith("weight"))
    bad = {**sound, weight: torch.full_like(sound[weight], float("nan"))}
    save_file(bad, path, metadata={"facts": json.dumps(FACTS)})
    with pytest.raises(InputError, match=f"is damaged: {weight} is not finite"):
        load_checkpoint(path, {"": net})


# --- one writer, whole files ---


def test_files_are_on_the_disk_before_they_are_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    sync, rename = files.sync, os.replace
    monkeypatch.setattr(files, "sync", lambda path: (calls.append(path.name[:4]), sync(path)))
    monkeypatch.setattr(os, "replace", lambda *two: (calls.append("replace"), rename(*two)))
    net, optimizer = stepped("SGD")
    save_checkpoint(tmp_path / "last.safetensors", {"": net}, optimizer, FACTS)
    assert calls == ["last", "replace", tmp_path.name[:4]]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_checkpoints_have_the_modes_of_other_files(mask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        net, optimizer = stepped("SGD")
        save_checkpoint(tmp_path / "last.safetensors", {"": net}, optimizer, FACTS)
        write_atomic(tmp_path / "text", "x")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {mode}


def test_writers_of_one_file_do_not_share_a_part(tmp_path: Path) -> None:
    target = tmp_path / "file"
    with atomic_path(target) as first, atomic_path(target) as second:
        assert first != second
        first.write_text("1")
        second.write_text("2")
    assert target.read_text() == "1" and [*tmp_path.iterdir()] == [target]


def test_a_lock_ends_with_its_holder_and_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    path.write_text("of a program that was killed")
    for _ in range(2):
        with locked(path, "another one"):
            with pytest.raises(InputError, match="another one"), locked(path, "another one"):
                pass
            assert path.exists()
        assert not path.exists()


def test_where_nothing_can_be_locked_there_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "fcntl", None)
    words = r"\.lock cannot be locked \(this system has no file locks"
    with pytest.warns(UserWarning, match=words), locked(tmp_path / ".lock", "another one"):
        pass


@pytest.mark.parametrize("resume", [False, True])
def test_the_second_of_two_trainings_on_a_folder_is_refused_at_once(
    resume: bool, finished: Run, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    run = Run(shutil.copytree(finished.path, path)) if resume else Run(path, create=True)
    before = sorted(path.rglob("*"))
    words = "already holds a run, which another process is training"
    with run.training_lock(), pytest.raises(InputError, match=words):
        train_run(config(SINUSOIDS, seed=0 if resume else 7), path, resume=resume)
    assert sorted(path.rglob("*")) == before


def test_wrong_input_leaves_no_folder(tmp_path: Path) -> None:
    wrong = config(SINUSOIDS, training={"optimizer": "trpo"})
    with pytest.raises(InputError, match="which is for policies alone"):
        train_run(wrong, tmp_path / "a" / "b" / "run")
    assert not (tmp_path / "a").exists()


def test_what_killed_trainings_left_is_removed(finished: Run, tmp_path: Path) -> None:
    run = Run(shutil.copytree(finished.path, tmp_path / "run"))
    (run.path / "last.safetensors.0123456789abcdef.part").write_bytes(b"half")
    (run.path / "best.safetensors.part").write_bytes(b"half, of an earlier version")
    train_run(config(SINUSOIDS), run.path, resume=True)
    assert [*run.path.glob("*.part")] == [] == [*run.path.glob(".lock")]


# --- data ---


def write_photos(folder: Path, classes: int = 10) -> Path:
    """A folder of classes, each with images of one color and some noise."""
    random = np.random.default_rng(0)
    for number in range(classes):
        (folder / f"c{number}").mkdir(parents=True)
        for image in range(8):
            levels = random.integers(0, 40, (18, 18, 3)) + 20 * number
            Image.fromarray(levels.astype(np.uint8)).save(folder / f"c{number}" / f"{image}.png")
    return folder


PHOTOS: dict[str, Any] = {
    "problem": {
        "class_path": "Photos",
        "init_args": {
            **{"data": "data", "training": ["own"], "validation": "own", "benchmarks": ["own"]},
            **{"size": 16, "complete": False},
            "protocol": {
                **{"ways": 2, "shots": 1, "queries": 2, "batch": 4},
                **{"test_ways": 2, "test_shots": [1]},
            },
        },
    },
    "backbone": {"class_path": "Conv4", "init_args": {"width": 2}},
    "training": {"steps": 2, "val_every": 2, "threads": 1},
}


@pytest.fixture(scope="module")
def of_photos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project: photos.yaml, the data beside it, and a run of them."""
    project = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMNITRAINING_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr("omnitraining.tasks.classification.problem.TEST_TASKS", 4)
        write_photos(project / "data" / "own")
        (project / "photos.yaml").write_text(json.dumps(PHOTOS))
        assert train(project) == 0
        yield project


def train(project: Path, *options: str) -> int:
    run = ("--out", str(project / "run"))
    return main(["train", str(project / "photos.yaml"), *run, *options])


@pytest.fixture
def project(of_photos: Path, tmp_path: Path) -> Path:
    """The same, moved: a copy elsewhere."""
    return shutil.copytree(of_photos, tmp_path / "moved")


def test_a_project_may_be_moved_whole_and_goes_on(
    project: Path, of_photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    stored = json.loads((project / "run" / "data.json").read_text())
    assert stored["splits"]["training 1"]["name"] == "own-train"
    assert "data: ../data\n" in (project / "run" / "config.yaml").read_text()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert train(project, "--resume", "--training.steps", "4") == 0
        assert main(["evaluate", str(project / "run")]) == 0
    # A run that is moved alone finds its data where they were.
    (project / "run").rename(project.parent / "alone")
    shutil.rmtree(project)
    assert main(["evaluate", str(project.parent / "alone")]) == 2
    alone = Run(project.parent / "alone")
    data = json.loads((alone.path / "data.json").read_text())
    data["places"] = {"problem.init_args.data": str(of_photos / "data")}
    alone.write_json("data.json", data)
    assert main(["evaluate", str(alone.path)]) == 0


def test_a_model_is_used_without_its_data(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    support, image = project / "data" / "own", tmp_path / "image.png"
    run, learner = str(project / "run"), str(tmp_path / "a.learner")
    shutil.copy(support / "c0" / "0.png", image)
    shutil.move(support, tmp_path / "support")
    shutil.rmtree(project / "data")
    monkeypatch.setattr(run_data, "describe", None)  # no data are read
    data = json.loads((project / "run" / "data.json").read_text())
    (project / "run" / "data.json").write_text(json.dumps({**data, "places": {}}))
    assert main(["adapt", run, str(tmp_path / "support"), "--out", learner]) == 0
    assert main(["predict", learner, str(image)]) == 0
    for out in ("x.pt", "x.safetensors"):
        kind = {"x.pt": "torch"}.get(out, "safetensors")
        out = str(tmp_path / out)
        assert main(["export", run, "--flow", "meta", "--format", kind, "--out", out]) == 0
    picture = str(tmp_path / "a.png")
    assert main(["attention", run, "--images", str(image), "--out", picture]) == 0
    assert omnitraining.load(run).fit(tmp_path / "support").predict([image]) == ["c0"]
    assert load_model(Run(run)).trained_flows == ("pre", "joint", "meta")


def test_a_class_that_moves_between_splits_is_refused(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names decide which classes are held out: one that is renamed moves others."""
    own = project / "data" / "own"
    names = sorted(path.name for path in own.iterdir())
    (own / names[0]).rename(own / "zebra")
    assert train(project, "--resume") == 2 == main(["evaluate", str(project / "run")])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert (
            "omni: the classes differ from those in the training of" in line and "of own-" in line
        )
        assert "'zebra' of own-" in line or "is in own-" in line
    with pytest.raises(InputError, match="the classes differ from those"):
        evaluate_run(Run(project / "run"))


@pytest.mark.parametrize("change", ["removed", "corrected"])
def test_changed_files_are_refused_to_go_on_with_and_warned_of_elsewhere(
    change: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = project / "run"
    held = json.loads((run / "data.json").read_text())["splits"]["training 1"]["classes"][0]["name"]
    path = project / "data" / "own" / held / "3.png"
    if change == "removed":
        path.unlink()
        words = f"{held!r} of own-train had 8 images and has 7"
    else:
        status = path.stat()
        Image.new("RGB", (18, 18)).save(path)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        words = f"some of the 8 images of {held!r} of own-train"
    assert train(project, "--resume") == 2
    line = f"omni: the files differ from those in the training of {run}: {words}; restore them, "
    assert capsys.readouterr().err == (f"{line}or continue with --resume --changed-data\n")
    with pytest.warns(UserWarning, match="the files differ from those in the training"):
        evaluate_run(Run(run))
    with pytest.warns(UserWarning, match="the files differ from those in the training"):
        assert train(project, "--resume", "--changed-data", "--training.steps", "4") == 0
    assert json.loads((run / "data.json").read_text())["changes"] == [f"before step 3: {words}"]


def test_runs_of_earlier_versions_are_evaluated_with_a_warning(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    (project / "run" / "data.json").unlink()
    with pytest.warns(UserWarning, match="has no description of its data"):
        evaluate_run(Run(project / "run"))
    with pytest.warns(UserWarning, match="has no description of its data"):
        assert train(project, "--resume") == 0
    assert (project / "run" / "data.json").is_file()


@pytest.mark.parametrize(
    "change",
    [
        {"splits": 5},
        {"model": {}},
        {"model": {"shape": [2**40], "pre_outputs": 2, "meta_outputs": 2, "one_joint_head": True}},
        {"inputs": {"x": 1}},
    ],
)
def test_a_damaged_record_of_data_is_one_line(change: dict[str, Any], project: Path) -> None:
    path = project / "run" / "data.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=r"data\.json is damaged"):
        omnitraining.load(project / "run")


def test_a_path_that_leads_to_two_places_is_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project.parent / "data").mkdir()
    monkeypatch.chdir(project.parent)
    assert train(project, "--resume") == 2
    printed = capsys.readouterr().err
    assert "problem.init_args.data is data, of which there are two: " in printed
    # What is not beside the configuration is taken from the current folder, as it was before.
    (project / "data").rename(project.parent / "data" / "data")
    monkeypatch.chdir(project.parent / "data")
    shutil.rmtree(project / "run")
    assert train(project) == 0


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_a_truncated_checkpoint_is_refused(keep: int, finished: Run, tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    path.write_bytes(finished.checkpoint("last").read_bytes()[:keep])
    with pytest.raises(InputError, match=r"last.safetensors is truncated or damaged: .+"):
        load_checkpoint(path, {})


def test_missing_foreign_and_other_checkpoints_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "none", {})
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign")
    with pytest.raises(InputError, match="is not a checkpoint of a run: it lacks 'facts'"):
        load_checkpoint(tmp_path / "foreign", {})
    net, optimizer = stepped("SGD")
    save_checkpoint(tmp_path / "c", {"student": net}, optimizer, FACTS)
    for module, words in [
        ({"student": nn.Linear(5, 7)}, "another model: student.weight differs"),
        ({"teacher": net}, "another model: teacher."),
        ({"student": OmniNet(nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8)))}, "student.joint"),
    ]:
        with pytest.raises(InputError, match=words):
            load_checkpoint(tmp_path / "c", module)


def test_writing_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that dies before the last moment leaves the old file."""
    run = Run(tmp_path / "run", create=True)
    net, optimizer = stepped("SGD")
    run.write_json("facts.json", {"old": 1})
    save_checkpoint(run.checkpoint("last"), {"": net}, optimizer, {"old": 1})

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs.os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        run.write_json("facts.json", {"new": 1})
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(run.checkpoint("last"), {"": net}, optimizer, {"new": 1})
    assert json.loads((run.path / "facts.json").read_text()) == {"old": 1}
    assert load_checkpoint(run.checkpoint("last"), {}) == {"old": 1}


def test_an_evaluation_is_read_as_it_was_written(tmp_path: Path) -> None:
    run = Run(tmp_path, create=True)
    cells = {CellKey("latin", 5, 1): Cell("abc", {"pre": [1 / 3, 100.0], "ensemble": [0.1, 1e-30]})}
    evaluation = Evaluation("accuracy %", True, cells)
    run.save_evaluation("test", evaluation)
    assert run.load_evaluation() == evaluation
    searched = Evaluation("accuracy %", True, {})  # evaluated by validation alone
    run.save_evaluation("none", searched)
    assert run.load_evaluation("none") == searched
    with pytest.raises(InputError, match="has no evaluation: run 'omni evaluate"):
        run.load_evaluation("other")


def evaluation_text(cell: dict[str, Any], **others: Any) -> str:
    known = {"unit": "accuracy %", "higher_is_better": True}
    return json.dumps({**known, **others, "cells": {"a": {"tasks_hash": "x", **cell}}})


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "{}", "[]", "5", '{"cells": {"a": 1}}'),
        evaluation_text({"scores": {"ensemble": ["1", "2"]}}),
        evaluation_text({"scores": {"ensemble": [1.0, float("nan")]}}),
        evaluation_text({"scores": {"ensemble": []}}),
        evaluation_text({"scores": {"ensemble": "12"}}),
        evaluation_text({"scores": {}}),
        evaluation_text({"scores": {"pre": [1.0], "ensemble": [1.0, 2.0]}}),
    ],
)
def test_a_damaged_evaluation_is_refused(text: str, tmp_path: Path) -> None:
    Run(tmp_path, create=True).write_text("evaluations/test.json", text)
    with pytest.raises(InputError, match=r"test.json is damaged .*: run 'omni evaluate"):
        Run(tmp_path, create=True).load_evaluation()


def test_metrics_drop_what_a_resumed_run_writes_again(tmp_path: Path) -> None:
    run = Run(tmp_path, create=True)
    first = Metrics(run, resume_at=0)
    for step in (1, 2, 3):
        first.write(step, {"total": 1 / step})
    first.close()
    Metrics(run, resume_at=2).close()
    assert metrics(tmp_path) == [(1, "total", 1.0), (2, "total", 0.5)]
    Metrics(run, resume_at=0).close()
    assert metrics(tmp_path) == []


def test_provenance_records_what_made_the_run(finished: Run) -> None:
    record = json.loads((finished.path / "provenance.json").read_text())
    assert record.items() >= {**provenance(), "step": 4}.items()
    assert {*provenance()} == {
        *("omnitraining", "commit", "python", "torch", "machine", "cpus", "threads", "device"),
        "processes",
    }
    assert record["best_step"] in (2, 4) and record["seconds"] > 0 and record["peak_mib"] > 50


def test_a_run_folder_holds_only_known_files_and_no_pickle(finished: Run) -> None:
    files = {str(p.relative_to(finished.path)) for p in finished.path.rglob("*") if p.is_file()}
    board = {name for name in files if name.startswith("tensorboard/events.out.tfevents.")}
    assert len(board) == 1
    assert files - board == {
        *("config.yaml", "provenance.json", "metrics.csv", "evaluations/test.json"),
        *("last.safetensors", "best.safetensors"),
    }
    for name in files:
        content = (finished.path / name).read_bytes()
        assert not content.startswith(b"PK")  # torch.save
        with pytest.raises(Exception):  # noqa: B017 (pickle raises many kinds)
            pickle.loads(content)


def test_a_folder_without_configuration_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no run at .*: there is no config.yaml in it"):
        Run(tmp_path)

"""The run folder: nothing is lost, nothing is half written, nothing is a pickle."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from omnitraining import runs
from omnitraining.errors import InputError
from omnitraining.evaluation import Cell, Evaluation
from omnitraining.experiment import evaluate_run, train_run
from omnitraining.omninet import OmniNet
from omnitraining.runs import Metrics, Run, load_checkpoint, provenance, save_checkpoint
from tests.reference.tiny import SINUSOIDS, config, metrics, same, tensors

FACTS = {"step": 3, "best": -0.25, "best_step": 2, "seconds": 1.5}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = train_run(config(SINUSOIDS), tmp_path_factory.mktemp("runs") / "run")
    evaluate_run(run, tasks=3)
    return run


def stepped(kind: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A network with shared weights, buffers, and an optimiser with a state."""
    net = OmniNet(nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7)))
    for branch in net.parameters():
        nn.init.normal_(branch)
    options = {"momentum": 0.9} if kind == "SGD" else {}
    optimiser = getattr(torch.optim, kind)(net.parameters(), lr=0.1, **options)
    for _ in range(2):
        optimiser.zero_grad()
        sum(flow.square().sum() for flow in net(torch.randn(4, 5))).backward()
        optimiser.step()
    return net, optimiser


def state(optimiser: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    found = optimiser.state_dict()["state"]
    return {f"{i}.{name}": t for i, values in found.items() for name, t in values.items()}


@pytest.mark.parametrize("kind", ["SGD", "AdamW"])
def test_a_checkpoint_restores_weights_buffers_optimiser_and_facts(
    kind: str, tmp_path: Path
) -> None:
    net, optimiser = stepped(kind)
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, {"student": net}, optimiser, FACTS)
    assert [p.name for p in tmp_path.iterdir()] == ["last.safetensors"]  # no .part is left
    torch.manual_seed(1)
    other, of_other = stepped(kind)
    assert not same(other.state_dict(), net.state_dict())
    assert load_checkpoint(path, {"student": other}, of_other) == FACTS
    assert same(other.state_dict(), net.state_dict())
    assert state(optimiser) and same(state(of_other), state(optimiser))
    assert other.pre[0].parametrizations.weight.original is other.joint[0].weight


def test_shared_weights_are_stored_once(tmp_path: Path) -> None:
    net = OmniNet(nn.Sequential(nn.Linear(200, 300)), rank=1)
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, {"student": net}, torch.optim.SGD(net.parameters()), FACTS)
    numbers = 200 * 300 + 300 + 2 * (200 + 300 + 300)  # a joint layer and two branches
    assert sum(t.numel() for t in tensors(path).values()) == numbers
    assert 4 * numbers < path.stat().st_size < 4 * numbers + 2000


def test_infinities_survive(tmp_path: Path) -> None:
    net, optimiser = stepped("SGD")
    save_checkpoint(tmp_path / "c", {"": net}, optimiser, {"best": float("-inf")})
    assert load_checkpoint(tmp_path / "c", {}) == {"best": float("-inf")}


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
    net, optimiser = stepped("SGD")
    save_checkpoint(tmp_path / "c", {"student": net}, optimiser, FACTS)
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
    net, optimiser = stepped("SGD")
    run.write_json("facts.json", {"old": 1})
    save_checkpoint(run.checkpoint("last"), {"": net}, optimiser, {"old": 1})

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs.os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        run.write_json("facts.json", {"new": 1})
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(run.checkpoint("last"), {"": net}, optimiser, {"new": 1})
    assert json.loads((run.path / "facts.json").read_text()) == {"old": 1}
    assert load_checkpoint(run.checkpoint("last"), {}) == {"old": 1}


def test_an_evaluation_is_read_as_it_was_written(tmp_path: Path) -> None:
    run = Run(tmp_path, create=True)
    cells = {"latin 5-way 1-shot": Cell("abc", {"pre": [1 / 3, 100.0], "ensemble": [0.1, 1e-30]})}
    evaluation = Evaluation("accuracy %", True, cells)
    run.save_evaluation("test", evaluation)
    assert run.load_evaluation() == evaluation
    with pytest.raises(InputError, match="has no evaluation: run 'omni evaluate"):
        run.load_evaluation("other")


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", "5", '{"cells": {"a": 1}}', '{"cells": {}}'])
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


def test_provenance_says_what_made_the_run(finished: Run) -> None:
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

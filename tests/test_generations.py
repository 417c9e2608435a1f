"""Generations of RFS: a frozen earlier run teaches, and only the new one learns."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from omnitraining.batches import Episode, MiniBatch
from omnitraining.config.run_config import RunConfig, instantiate, load_run
from omnitraining.errors import InputError
from omnitraining.evaluation import Inference
from omnitraining.experiments.running import evaluate_run, train_run
from omnitraining.model import Model
from omnitraining.pretraining import RFS
from omnitraining.runs.run import Run
from omnitraining.training import Training, train
from tests.reference.tiny import BLOBS, SINUSOIDS, Values, config, same, tensors

RFS_ALONE: Values = {"method": "pre-training", "pretraining": {"class_path": "RFS"}}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A first generation."""
    return train_run(config(BLOBS, **RFS_ALONE), tmp_path_factory.mktemp("runs") / "first")


def following(first: Run, **changes: object) -> RunConfig:
    """The second generation, from another seed."""
    return instantiate(
        config(BLOBS, **{**RFS_ALONE, "teacher_run": str(first.path), "seed": 1, **changes})
    )


def teacher(first: Run) -> Model:
    return load_run(first).load(first)


def pre_flow(first: Run) -> nn.Module:
    model = teacher(first)
    return nn.Sequential(model.trunk, model.network("pre"))


def data(experiment: RunConfig) -> tuple[MiniBatch, Episode]:
    random = torch.Generator().manual_seed(0)
    return experiment.problem.minibatch(0, random), experiment.problem.episode(0, random)


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("method", ["pre-training", "omni-training", "joint-training"])
def test_a_generation_learns_the_outputs_of_the_one_before(method: str, first: Run) -> None:
    experiment = following(first, method=method)
    model, (batch, episode) = experiment.build(trust=True), data(experiment)
    terms = model(batch, episode)
    with torch.no_grad():
        teacher_logits = teacher(first).network("pre")(batch.x)
    for name in {"pre", "joint_pre"} & model.networks.keys():
        outputs = model.network(name)(batch.x)
        expected = RFS().distillation_loss(outputs, batch.y, teacher_logits)
        torch.testing.assert_close(terms[f"l_{name}"], expected)
        assert not torch.isclose(expected, RFS().loss(outputs, batch.y))


def test_the_gradient_reaches_the_new_generation_alone(first: Run) -> None:
    experiment = following(first)
    model = experiment.build(trust=True)
    assert model.teacher_run is not None
    previous = model.teacher_run.network
    model(*data(experiment))["total"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
    assert all(p.grad is None and not p.requires_grad for p in previous.parameters())
    mine = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    assert not mine & {id(tensor) for tensor in (*previous.parameters(), *previous.buffers())}


def test_training_leaves_the_generation_before_as_it_was(first: Run, tmp_path: Path) -> None:
    experiment = following(first)
    model = experiment.build(trust=True)
    assert model.teacher_run is not None
    previous = model.teacher_run.network
    before, untrained = state(previous), state(model)
    run = Run(tmp_path / "second", create=True)
    train(model, experiment.problem, Training(steps=4, val_every=2), Inference(), run)
    assert same(state(previous), before) and same(before, state(pre_flow(first)))
    assert not same(state(model), untrained) and not previous.training


def test_a_generation_starts_afresh_and_is_saved_alone(first: Run, tmp_path: Path) -> None:
    choice = config(BLOBS, **RFS_ALONE, teacher_run=str(first.path))
    untaught = config(BLOBS, **RFS_ALONE)
    assert same(
        state(instantiate(choice).build(trust=True)), state(instantiate(untaught).build(trust=True))
    )
    second = train_run(choice, tmp_path / "second", trust=True)
    ours, theirs = (tensors(run.checkpoint("last")) for run in (second, first))
    assert ours.keys() == theirs.keys() and not same(ours, theirs)


def test_a_generation_is_evaluated_and_resumed_without_the_one_before(
    first: Run, tmp_path: Path
) -> None:
    moving = tmp_path / "first"
    shutil.copytree(first.path, moving)
    second = train_run(
        config(BLOBS, **RFS_ALONE, teacher_run=str(moving)), tmp_path / "second", trust=True
    )
    shutil.rmtree(moving)
    evaluation = evaluate_run(second, tasks=2)
    assert all(list(cell.scores) == ["pre", "ensemble"] for cell in evaluation.cells.values())
    third = train_run(
        config(BLOBS, **RFS_ALONE, teacher_run=str(second.path)), tmp_path / "third", trust=True
    )
    assert third.checkpoint("best").is_file()


def test_a_generation_resumes_as_if_it_had_not_stopped(first: Run, tmp_path: Path) -> None:
    options = {**RFS_ALONE, "teacher_run": str(first.path)}
    through = train_run(config(BLOBS, **options), tmp_path / "through", trust=True)
    shorter = config(BLOBS, **options, training={"steps": 2})
    train_run(shorter, tmp_path / "stopped", trust=True)
    stopped = train_run(config(BLOBS, **options), tmp_path / "stopped", resume=True, trust=True)
    assert same(tensors(through.checkpoint("last")), tensors(stopped.checkpoint("last")))


@pytest.mark.parametrize(
    ("previous", "words"),
    [
        (None, "no run at .*nowhere: there is no config.yaml in it"),
        ({"method": "meta-training"}, "run of teacher_run has no pre-flow"),
        (
            {"problem": {"init_args": {"classes": 6}}},
            "Blobs, RFS, ProtoNet do not fit together: ",
        ),
        (SINUSOIDS, "Blobs, RFS, ProtoNet do not fit together: "),
    ],
    ids=["no run", "no pre-flow", "other classes", "other inputs"],
)
def test_a_run_that_cannot_teach_is_refused_in_one_line(
    previous: Values | None, words: str, tmp_path: Path
) -> None:
    folder = tmp_path / "nowhere"
    if previous is SINUSOIDS:
        train_run(config(SINUSOIDS, training={"steps": 1}), folder)
    elif previous is not None:
        train_run(config(BLOBS, **previous, training={"steps": 1}), folder, trust=True)
    with pytest.raises(InputError, match=words) as error:
        train_run(
            config(BLOBS, **RFS_ALONE, teacher_run=str(folder)), tmp_path / "second", trust=True
        )
    assert "\n" not in str(error.value)
    assert not (tmp_path / "second").exists()


def test_an_algorithm_without_generations_is_refused(first: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Baseline has no generations: 'teacher_run' is for RFS"):
        train_run(config(BLOBS, teacher_run=str(first.path)), tmp_path / "second", trust=True)


def test_meta_training_has_nothing_that_a_previous_run_could_teach(first: Run) -> None:
    choice = config(BLOBS, method="meta-training", teacher_run=str(first.path))
    with pytest.raises(InputError, match="meta-training has no pre-training that a teacher_run"):
        instantiate(choice).build(trust=True)

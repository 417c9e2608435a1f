"""HardTasks: which classes are drawn again, in one process and after an interruption."""

import copy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from omnitraining.backbones import Conv4
from omnitraining.batches import Episode
from omnitraining.config.run_config import instantiate
from omnitraining.errors import InputError
from omnitraining.experiments.running import train_run
from omnitraining.metatraining import (
    ANIL,
    MAML,
    HardTasks,
    LearnedFT,
    MetaMaxUp,
    MetaTraining,
    ProtoNet,
)
from omnitraining.metatraining.hard_tasks import FailureClasses
from omnitraining.model import Model, build_model
from omnitraining.runs.run import Run
from omnitraining.tasks.classification.episodes import EpisodeSampler
from omnitraining.tasks.classification.problem import Classification, EpisodeConfig
from omnitraining.training import Progress, Stepper, Training
from tests.reference.hard_tasks import failure_classes
from tests.reference.tiny import BLOBS, SINUSOIDS, Blobs, blobs, config, metrics, same, tensors
from tests.reference.toy import Toy

PROTOCOL = EpisodeConfig(ways=3, shots=2, queries=3, batch=8, test_ways=3, test_shots=(1,), tasks=4)


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def answered(seed: int = 0, tasks: int = 6, classes: int = 20) -> tuple[Tensor, Episode]:
    """Predictions for tasks of three classes, some right and some wrong."""
    episode = Toy(False, classes).episode(0, random(seed), tasks)
    right = torch.nn.functional.one_hot(episode.query_y, 3)
    return right + 0.8 * torch.randn(right.shape, generator=random(seed)), episode


# --- which classes are hard ---


@pytest.mark.parametrize("seed", range(20))
def test_the_classes_of_the_lowest_accuracy_are_collected(seed: int) -> None:
    curriculum = FailureClasses(20, steps=2, hard_steps=1)
    expected = set()
    for step in range(2):
        outputs, episode = answered(10 * seed + step)
        curriculum.observe(step, outputs, episode)
        expected |= {*failure_classes(outputs, episode)}
    assert 1 < len(expected) < 20
    assert curriculum.classes(2).tolist() == sorted(expected)


def test_of_classes_of_one_accuracy_the_first_in_the_task_is_taken() -> None:
    _, episode = answered()
    curriculum = FailureClasses(20, steps=1, hard_steps=1)
    curriculum.observe(0, torch.nn.functional.one_hot(episode.query_y, 3).float(), episode)
    assert {*curriculum.classes(1).tolist()} == {*episode.classes[:, 0].tolist()}


def test_classes_are_collected_anew_in_each_round_and_not_from_hard_tasks() -> None:
    curriculum = FailureClasses(20, steps=2, hard_steps=3)
    rounds: list[list[int]] = []
    for step in range(10):
        outputs, episode = answered(step)
        chosen = curriculum.classes(step)
        assert (chosen is None) == (step % 5 < 2)
        if chosen is not None:
            assert chosen.tolist() == rounds[-1]
        curriculum.observe(step, outputs, episode)
        if step % 5 == 1:
            rounds.append(curriculum.classes(2).tolist())
    assert rounds[0] != rounds[1]


# --- drawing tasks of given classes ---


def test_tasks_of_given_classes_have_no_others_and_all_of_them_equally_often() -> None:
    data, given = blobs(8, 12, "a"), torch.tensor([6, 1, 3, 4])
    sampler = EpisodeSampler(data, ways=3, shots=2, queries=3)
    drawn = sampler.draw(2000, random(), given)
    classes = data.labels[drawn.support[:, :, 0]]
    assert torch.equal(data.labels[drawn.query].unique(dim=2).flatten(1), classes)
    counts = Counter(classes.flatten().tolist())
    assert {*counts} == {1, 3, 4, 6}
    assert all(abs(count / 2000 - 3 / 4) < 0.05 for count in counts.values())
    assert all(len({*task}) == 3 for task in classes.tolist())
    assert len({tuple(task) for task in classes.tolist()}) == 24  # in any order


@pytest.mark.parametrize("given", [[], [5], [5, 2]])
def test_too_few_classes_are_all_drawn_and_then_others_at_random(given: list[int]) -> None:
    data = blobs(8, 12, "a")
    sampler = EpisodeSampler(data, ways=3, shots=2, queries=3)
    drawn = sampler.draw(2000, random(), torch.tensor(given, dtype=torch.long))
    classes = data.labels[drawn.support[:, :, 0]].tolist()
    assert all({*given} < {*task} and len({*task}) == 3 for task in classes)
    counts = Counter(label for task in classes for label in task if label not in given)
    share = (3 - len(given)) / (8 - len(given))
    assert all(abs(counts[label] / 2000 - share) < 0.05 for label in {*range(8)} - {*given})


def test_tasks_are_drawn_as_before_where_no_classes_are_given() -> None:
    sampler = EpisodeSampler(blobs(8, 12, "a"), ways=3, shots=2, queries=3)
    every = sampler.draw(5, random(), torch.arange(8))
    plain = sampler.draw(5, random())
    assert torch.equal(plain.support, every.support) and torch.equal(plain.query, every.query)


def test_each_domain_draws_its_own_of_the_given_classes() -> None:
    parts = [blobs(classes, 12, name) for classes, name in ((5, "a"), (7, "b"))]
    problem = Classification(parts, blobs(4, 12, "v"), {}, PROTOCOL)
    given = torch.tensor([1, 2, 4, 5, 8, 11])
    found = [problem.episode_of_classes(step, random(step), given).classes for step in range(2)]
    assert {*found[0].flatten().tolist()} == {1, 2, 4}
    assert {*found[1].flatten().tolist()} == {5, 8, 11}


# --- in training ---


def made(
    method: Any = "meta-training", algorithm: MetaTraining | None = None, **options: int
) -> tuple[Model, Blobs]:
    problem = Blobs(PROTOCOL)
    torch.manual_seed(0)
    learner = HardTasks(algorithm or ProtoNet(), **options)
    return build_model(method, lambda: Conv4(1, 4), problem, metatraining=learner), problem


@pytest.mark.parametrize("method", ["meta-training", "joint-training", "omni-training"])
def test_hard_steps_have_tasks_of_the_classes_that_the_steps_before_failed_at(method: Any) -> None:
    """The meta-flow decides, or the joint-flow where there is none."""
    model, problem = made(method, steps=2, hard_steps=3)
    flow = "joint_meta" if method == "joint-training" else "meta"
    stepper = Stepper(model, problem, Training(steps=10), torch.device("cpu"))
    failed: set[int] = set()
    for step in range(10):
        samples = stepper.samples(step)
        drawn = {*samples.episode.classes.flatten().tolist()}
        if step % 5 < 2:
            before = copy.deepcopy(model)
            outputs = before.outputs(samples.batch, samples.episode)[flow]
            failed = failed if step % 5 else set()
            failed |= {*failure_classes(outputs, samples.episode)}
        else:
            assert 2 < len(failed) < 8 and drawn <= failed
        stepper.update(samples, step)


def test_hard_tasks_are_learned_from_as_the_algorithm_learns_from_others() -> None:
    model, problem = made(algorithm=ANIL())
    samples = problem.samples(0, random(), model)
    network, parts = model.network("meta"), (samples.episode, samples.batch)
    first, second = (
        learner.outputs_and_loss(network, *parts) for learner in (model.metatraining, ANIL())
    )
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_a_model_without_tasks_keeps_no_failures() -> None:
    model, _ = made("pre-training")
    assert model.curriculum is None and not any("curriculum" in n for n in model.state_dict())


class Interrupt(Progress):
    """Ctrl-C after some steps."""

    def advance(self, done: int, steps: int) -> None:
        if done == 7:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("val_every", "place"), [(4, "hard tasks"), (3, "collection")])
def test_an_interrupted_run_goes_on_with_the_same_hard_tasks(
    tmp_path: Path, val_every: int, place: str
) -> None:
    """From a checkpoint at step 4, amid hard tasks, or at step 6, which is the second of three."""
    hard = {"algorithm": {"class_path": "ANIL"}, "steps": 3, "hard_steps": 2}
    if place == "collection":
        hard |= {"hard_steps": 1}
    values = {
        "method": "meta-training",
        "metatraining": {"class_path": "HardTasks", "init_args": hard},
        "training": {"steps": 9, "val_every": val_every},
        "inference": {"weights": "student"},
        "problem": {"init_args": {"protocol": {"test_ways": 3, "tasks": 2}}},
    }
    chosen = config(BLOBS, **values)
    whole = train_run(chosen, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train_run(chosen, tmp_path / "killed", progress=Interrupt())
    stored = tensors(Run(tmp_path / "killed").checkpoint("last"), "student.")
    assert stored["curriculum.failed"].any()
    resumed = train_run(chosen, tmp_path / "killed", resume=True)
    for which in ("last", "best"):
        assert same(*(tensors(run.checkpoint(which)) for run in (whole, resumed)))
    assert metrics(whole.path) == metrics(resumed.path)


# --- what is refused ---


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"algorithm": MetaMaxUp()}, "metatraining.algorithm is MetaMaxUp, which chooses or chan"),
        ({"algorithm": LearnedFT()}, "metatraining.algorithm is LearnedFT, which chooses or chan"),
        ({"algorithm": HardTasks()}, "metatraining.algorithm is HardTasks, which chooses or chan"),
        ({"algorithm": MAML(task="regression")}, "metatraining.algorithm is MAML for regression"),
        ({"steps": 0}, "metatraining.steps is 0: it must be 1 or more"),
        ({"hard_steps": 0}, "metatraining.hard_steps is 0: it must be 1 or more"),
    ],
)
def test_what_has_no_hard_tasks_is_refused(options: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError, match=line):
        HardTasks(**options)


def test_problems_whose_tasks_have_no_classes_are_refused() -> None:
    waves = instantiate(
        config(SINUSOIDS, metatraining={"class_path": "HardTasks", "init_args": {}})
    )
    with pytest.raises(InputError, match="Sinusoids needs pretraining L2Regression"):
        waves.problem.check(waves.build())
    model = build_model("meta-training", lambda: Conv4(1, 4), Blobs(PROTOCOL))
    model.curriculum = FailureClasses(8, steps=1, hard_steps=1)
    with pytest.raises(InputError, match="Toy does not draw tasks of given classes"):
        Toy(False).samples(1, random(), model)

"""PMM: components of classes, in its two stages."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from omnitraining.config.run_config import instantiate
from omnitraining.errors import InputError
from omnitraining.experiments.running import train_run
from omnitraining.pretraining import PMM, Baseline
from tests.reference import pmm
from tests.reference.tiny import BLOBS, config

CLOSE = {"rtol": 1e-9, "atol": 1e-9}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("components", "margin"), [(1, 0.0), (3, 0.2), (4, 0.01)])
def test_the_first_stage_is_that_of_angles(components: int, margin: float) -> None:
    algorithm = PMM(components, temperature=0.2, margin=margin)
    x, labels = torch.randn(12, 6, requires_grad=True), torch.randint(5, (12,))
    head = algorithm.head(6, 5)
    found = algorithm.loss(head(x), labels)
    expected = pmm.first_stage(x, labels, head.components, components, margin, 0.2)
    torch.testing.assert_close(found, expected, **CLOSE)
    ours, theirs = (torch.autograd.grad(loss, [x, head.components]) for loss in (found, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, **CLOSE)


@pytest.mark.usefixtures("float64")
def test_only_components_with_a_sample_learn() -> None:
    algorithm = PMM(4)
    head, x, labels = algorithm.head(6, 5), torch.randn(3, 6), torch.tensor([1, 1, 3])
    algorithm.loss(head(x), labels).backward()
    chosen = {pmm.nearest(*one, 4) for one in pmm.each(x, labels, head.components)}
    moved = {i for i, slope in enumerate(head.components.grad) if slope.any()}
    assert moved == chosen and len(chosen) > 1


@pytest.mark.usefixtures("float64")
def test_the_second_stage_follows_the_components_of_the_first() -> None:
    algorithm = PMM(3, temperature=0.2, margin=0.1, cooling=0.5)
    x, before = torch.randn(10, 6, requires_grad=True), torch.randn(10, 4)
    labels = torch.randint(5, (10,))
    head, first = algorithm.head(6, 5), algorithm.head(4, 5)
    found = algorithm.distillation_loss(head(x), labels, first(before))
    chosen = [pmm.nearest(*one, 3) for one in pmm.each(before, labels, first.components)]
    expected = pmm.second_stage(x, head.components, chosen, 0.1, 0.1)
    torch.testing.assert_close(found, expected, **CLOSE)
    ours, theirs = (torch.autograd.grad(loss, [x, head.components]) for loss in (found, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, **CLOSE)


@pytest.mark.usefixtures("float64")
def test_one_component_without_a_margin_is_a_cosine_classifier() -> None:
    """Among the classes of the mini-batch, and once more among all, without moving the weights."""
    algorithm = PMM(1, temperature=0.1, margin=0.0)
    head, x = algorithm.head(6, 5), torch.randn(20, 6)
    labels = torch.arange(20) % 5
    cosines = F.normalize(x, dim=-1) @ F.normalize(head.components, dim=-1).mT
    expected = 2 * Baseline().loss(cosines / 0.1, labels)
    torch.testing.assert_close(algorithm.loss(head(x), labels), expected)


def test_features_that_are_a_component_have_a_finite_slope() -> None:
    algorithm = PMM(2)
    head = algorithm.head(4, 3)
    x = head.components.detach()[::2].clone().requires_grad_()
    algorithm.loss(head(x), torch.arange(3)).backward()
    assert x.grad.isfinite().all() and head.components.grad.isfinite().all()


def test_a_run_of_the_second_stage_starts_from_the_first(tmp_path: Path) -> None:
    alone = {
        "method": "pre-training",
        "pretraining": {"class_path": "PMM", "init_args": {"components": 2}},
    }
    first = train_run(config(BLOBS, **alone), tmp_path / "first")
    names = {"teacher_run": str(first.path), "start_from": str(first.path)}
    experiment = instantiate(config(BLOBS, **alone, **names))
    model, random = experiment.build(trust=True).eval(), torch.Generator().manual_seed(0)
    batch, episode = experiment.problem.minibatch(0, random), experiment.problem.episode(0, random)
    terms = model(batch, episode)
    outputs = model.network("pre")(batch.x)
    assert model.teacher_run is not None
    taught = model.teacher_run.logits(batch.x)
    expected = PMM(2).distillation_loss(outputs, batch.y, taught)
    torch.testing.assert_close(terms["l_pre"], expected)
    assert not torch.isclose(expected, PMM(2).loss(outputs, batch.y))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"components": 0}, "components is 0: it must be 1 or more"),
        ({"temperature": 0.0}, "temperature is 0.0: it must be greater than 0"),
        ({"cooling": -1.0}, "cooling is -1.0: it must be greater than 0"),
        ({"margin": math.pi}, "margin is 3.14.*: it must be at least 0 and less than pi / 2"),
    ],
)
def test_it_refuses_numbers_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=rf"pretraining\.{message}"):
        PMM(**options)

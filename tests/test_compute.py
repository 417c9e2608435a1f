"""Counted multiply-adds against closed forms, and against each other."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from omnitraining.datasets.images import LabeledImages
from omnitraining.model import OmniLoss, build_model
from omnitraining.pretraining import Baseline
from omnitraining.runs.compute import multiply_adds
from omnitraining.tasks.classification.problem import Classification, EpisodeConfig
from omnitraining.training import Training

WIDTH = 5


def problem() -> Classification:
    images = torch.randint(256, (120, 1, 8, 8), dtype=torch.uint8)
    data = LabeledImages(images, torch.arange(120) % 6, tuple("abcdef"), "noise")
    return Classification(data, data, {"x": data}, EpisodeConfig(shots=2, queries=3, batch=7))


def backbone() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, WIDTH, 3, padding=1, bias=False), nn.ReLU(), nn.AvgPool2d(8), nn.Flatten()
    )


def test_the_count_of_pretraining_is_the_closed_form() -> None:
    convolution, head = 7 * 64 * 9 * WIDTH, 7 * WIDTH * 6
    model = build_model("pre-training", backbone, problem(), Baseline())
    # Both passes; of the first layer there is no gradient by its input.
    assert multiply_adds(model, problem()) == 2 * convolution + 3 * head


def test_three_flows_and_a_teacher_cost_what_their_passes_cost() -> None:
    omni = partial(build_model, "omni-training", backbone, problem())
    plain = multiply_adds(omni(loss=OmniLoss(distill_weight=0.0)), problem())
    taught = multiply_adds(omni(loss=OmniLoss(distill_weight=3.0)), problem())
    joint = multiply_adds(build_model("joint-training", backbone, problem()), problem())
    assert plain is not None and taught is not None and joint is not None
    assert plain == 2 * joint  # pre- and meta-flow together pass what the joint-flow does
    samples = 7 + 5 * (2 + 3)  # of the mini-batch and of the episode, forward alone
    prototypes = 5 * 10 * WIDTH + 15 * WIDTH * 5  # their means, and the products with the queries
    assert taught - plain == samples * 64 * 9 * WIDTH + 7 * WIDTH * 6 + prototypes


def test_numbers_of_shots_that_are_drawn_count_alike() -> None:
    model = build_model("meta-training", backbone, problem())
    counts = [
        multiply_adds(model, problem().with_changes(replace(problem().protocol, training_shots=s)))
        for s in [(1,), (2,), (1, 2)]
    ]
    assert None not in counts and counts[0] < counts[1]
    assert counts[2] == round((counts[0] + counts[1]) / 2)


def test_counting_changes_nothing() -> None:
    data = problem()
    model = build_model("joint-training", backbone, data)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    multiply_adds(model, data)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("fields", "step", "wanted"),
    [
        ({"schedule": "step", "milestones": (0.5, 0.9), "gamma": 0.1}, 49, 1.0),
        ({"schedule": "step", "milestones": (0.5, 0.9), "gamma": 0.1}, 50, 0.1),
        ({"schedule": "step", "milestones": (0.5, 0.9), "gamma": 0.1}, 90, 0.01),
        ({"warmup": 10}, 0, 0.1),
        ({"warmup": 10}, 9, 1.0),
        ({"warmup": 20, "schedule": "linear"}, 60, 0.5),
        ({"warmup": 20, "schedule": "cosine"}, 60, 0.5),
    ],
)
def test_learning_rates_of_schedules(fields: dict[str, object], step: int, wanted: float) -> None:
    training = Training(steps=100, lr=1.0, **fields)  # type: ignore[arg-type]
    assert training.lr_at(step) == pytest.approx(wanted)

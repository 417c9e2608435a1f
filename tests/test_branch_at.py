"""Losses that enter late: meta-training (``loss.meta_at``), outer flows (``loss.branch_at``)."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from omnitraining.backbones import Conv4
from omnitraining.batches import StepData
from omnitraining.errors import InputError
from omnitraining.experiments.running import train_run
from omnitraining.metatraining import TADAM
from omnitraining.model import Model, OmniLoss, OmniNetOptions, build_model
from omnitraining.runs.compute import multiply_adds
from omnitraining.runs.run import Run
from omnitraining.tasks.classification.problem import Classification
from omnitraining.training import Stepper, Training, loop
from omnitraining.training.stepper import GRADIENT
from tests.reference.tiny import BLOBS, SINUSOIDS, Values, config
from tests.test_compute import problem
from tests.test_training import Interrupt, assert_same_runs, state

CPU = torch.device("cpu")
LATE: Values = {
    "training": {"steps": 8, "val_every": 3},
    "loss": {"branch_at": 5, "distill_weight": 1.0},
}


def model_of(
    method: str,
    data: Classification,
    branch_at: int | float = 0,
    meta_at: int | float = 0,
    shared_until: str | None = None,
) -> Model:
    loss = OmniLoss(branch_at=branch_at, meta_at=meta_at)
    omninet = OmniNetOptions(shared_until=shared_until)
    made = partial(Conv4, 1, width=4, pooled_blocks=2)
    return build_model(method, made, data, loss=loss, omninet=omninet)  # type: ignore[arg-type]


def test_until_then_the_joint_flow_is_trained_as_joint_training_trains_it() -> None:
    data, options = problem(), Training(steps=4, lr=0.01)
    omni, joint = model_of("omni-training", data, 3), model_of("joint-training", data)
    for name in ("joint_pre", "joint_meta"):
        joint.network(name).load_state_dict(omni.network(name).state_dict())
    steppers = [Stepper(model, data, options, CPU) for model in (omni, joint)]
    for step in range(3):
        terms = [stepper.step(step) for stepper in steppers]
        assert set(terms[0]) == set(terms[1])
    for name in ("joint_pre", "joint_meta"):
        trained, plain = (m.network(name).state_dict() for m in (omni, joint))
        assert all(torch.equal(trained[key], plain[key]) for key in plain)
    assert {"l_pre", "l_meta"} <= set(steppers[0].step(3))


def test_the_outer_flows_are_copies_until_then_and_of_their_own_after() -> None:
    data = problem()
    branch_at = 2
    model = model_of("omni-training", data, branch_at)
    stepper = Stepper(model, data, Training(steps=4, lr=0.01), CPU)
    images = torch.rand(6, 1, 8, 8)

    def differences(model: Model) -> list[float]:
        model.eval()
        with torch.no_grad():
            pairs = [
                (model.network(flow)(images), model.network(f"joint_{flow}")(images))
                for flow in ("pre", "meta")
            ]
        return [float((own - joint).abs().max()) for own, joint in pairs]

    for step in range(4):
        stepper.train_mode()
        stepper.step(step)
        for each in (model, stepper.teacher.model):
            found = differences(each)
            assert max(found) < 1e-6 if step < branch_at else min(found) > 1e-5, (step, found)


@pytest.mark.parametrize("method", ["omni-training", "joint-training"])
def test_until_meta_training_enters_the_joint_flow_is_pretrained(method: str) -> None:
    data, options = problem(), Training(steps=4, lr=0.01)
    late, plain = model_of(method, data, 3, 2, "4"), model_of("pre-training", data)
    whole = nn.Sequential(late.trunk, late.network("joint_pre").backbone)
    weights = zip(plain.network("pre").backbone.parameters(), whole.parameters(), strict=True)
    with torch.no_grad():
        for own, other in weights:
            own.copy_(other)
    plain.network("pre").head.load_state_dict(late.network("joint_pre").head.state_dict())
    steppers = [Stepper(model, data, options, CPU) for model in (late, plain)]
    for step in range(2):
        terms = [stepper.step(step) for stepper in steppers]
        assert set(terms[0]) == {"l_joint_pre", "total", GRADIENT}
        assert terms[0]["total"] == terms[1]["total"]
    expected = [*plain.network("pre").backbone.state_dict().values()]
    assert all(map(torch.equal, whole.state_dict().values(), expected))
    names = set(steppers[0].step(2))
    assert {"l_joint_pre", "l_joint_meta"} <= names and "l_pre" not in names
    assert ("l_meta" in steppers[0].step(3)) == (method == "omni-training")


@pytest.mark.parametrize("shared_until", [None, "8"])
def test_meta_training_that_enters_late_costs_nothing_before(shared_until: str | None) -> None:
    """Also where the flows share blocks, which would pass the images of an episode."""
    data = problem()
    models = [
        model_of(method, data, shared_until=shared_until)
        for method in ("pre-training", "joint-training", "omni-training")
    ]
    costs = [multiply_adds(model, data) for model in models]
    late = multiply_adds(model_of("omni-training", data, 3, 2, shared_until), data, steps=10)
    pre, joint, omni = (cost or 0 for cost in costs)
    assert 0 < pre < joint < omni
    assert late == round((2 * pre + joint + 7 * omni) / 10)


@pytest.mark.parametrize("loss", [LATE["loss"], {**LATE["loss"], "meta_at": 2}])
@pytest.mark.parametrize("base", [SINUSOIDS, BLOBS])
def test_a_killed_run_goes_on_to_the_same_end(
    base: Values, loss: Values, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From step 3, before the outer flows and with or without meta-training; from step 6, after."""
    monkeypatch.setattr(loop, "REPORT_EVERY", 2)
    chosen = config(base, **{**LATE, "loss": loss})
    whole = train_run(chosen, tmp_path / "whole")
    for at, kept in ((5, 3), (7, 6)):
        folder = tmp_path / str(at)
        with pytest.raises(KeyboardInterrupt):
            train_run(chosen, folder, progress=Interrupt(at))
        assert state(Run(folder))["step"] == kept
        assert_same_runs(train_run(chosen, folder, resume=True), whole)


def test_multiply_adds_are_the_mean_over_all_steps() -> None:
    data = problem()
    joint = multiply_adds(model_of("joint-training", data), data)
    omni = multiply_adds(model_of("omni-training", data), data)
    assert joint is not None and omni is not None and joint < omni
    late = multiply_adds(model_of("omni-training", data, 3), data, steps=4)
    assert late == round((3 * joint + omni) / 4)


def test_other_methods_have_no_branches_to_wait_for() -> None:
    for method in ("pre-training", "meta-training", "joint-training", "ensemble"):
        model = model_of(method, problem(), 3)
        assert model.trained_at(0) == model.trained_at(None)


def test_what_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"loss.branch_at is -1: it must be a step, an integer"):
        OmniLoss(branch_at=-1)
    with pytest.raises(InputError, match=r"loss.branch_at is 5, but loss.l_joint is false"):
        OmniLoss(branch_at=5, l_joint=False)
    with pytest.raises(InputError, match=r"loss.meta_at is 1.0: it must be .* less than 1"):
        OmniLoss(meta_at=1.0)
    with pytest.raises(InputError, match=r"branch_at is 8 and loss.meta_at is 0.5: both must be"):
        OmniLoss(branch_at=8, meta_at=0.5)
    with pytest.raises(
        InputError, match=r"loss.meta_at is 5: it must be at most loss.branch_at, 3"
    ):
        model_of("omni-training", problem(), 3, 5)
    words = re.escape("loss.branch_at is 8: it must be less than the 8 of training.steps")
    with pytest.raises(InputError, match=words):
        train_run(config(BLOBS, **{**LATE, "loss": {"branch_at": 8}}), tmp_path / "run")


@pytest.mark.parametrize("base", [SINUSOIDS, BLOBS])
def test_a_fraction_is_that_fraction_of_the_steps(base: Values, tmp_path: Path) -> None:
    schedule = {"schedule": "linear", **LATE["training"]}
    given: tuple[tuple[Any, Any], ...] = ((2, 4), (0.25, 0.5))
    runs = [
        train_run(
            config(
                base,
                loss={"meta_at": meta_at, "branch_at": branch_at},
                training={**schedule, "decay_from": branch_at},
            ),
            tmp_path / str(meta_at),
        )
        for meta_at, branch_at in given
    ]
    assert_same_runs(*runs)
    costs = [run.load_provenance()["multiply_adds"] for run in runs]
    assert costs[0] == costs[1] > 0


def test_a_fraction_without_a_number_of_steps_is_refused() -> None:
    model = model_of("omni-training", problem(), 0.5)
    for step in (0, 1):
        with pytest.raises(InputError, match=r"loss.branch_at is 0.5 and .*loss.in_steps"):
            model.trained_at(step)
    Stepper(model, problem(), Training(steps=8), CPU)
    assert "pre" not in model.trained_at(3) and "pre" in model.trained_at(4)


def test_the_rate_decays_from_a_given_step() -> None:
    for start in (6, 0.6):
        options = Training(steps=10, lr=0.2, schedule="linear", decay_from=start)
        assert [options.lr_at(step) for step in (0, 6, 8)] == pytest.approx([0.2, 0.2, 0.1])
    with pytest.raises(InputError, match=r"training.decay_from is 11: it must be from 0 to the 10"):
        Training(steps=10, schedule="cosine", decay_from=11)
    with pytest.raises(InputError, match="only 'linear' and 'cosine' have it"):
        Training(steps=10, decay_from=6)


def test_only_what_a_loss_is_of_is_drawn() -> None:
    data = problem()

    def drawn(step: int, *parts: Any) -> StepData:
        return data.samples(step, torch.Generator().manual_seed(1), model_of(*parts))

    whole = drawn(0, "joint-training", data)
    for step, *parts in [(0, "pre-training", data), (1, "omni-training", data, 3, 2)]:
        without = drawn(step, *parts)
        assert not without.episode and torch.equal(without.batch.x, whole.batch.x)
    assert whole.episode and drawn(2, "omni-training", data, 3, 2).episode
    labeled = build_model(
        "pre-training",
        partial(Conv4, 1, width=4, pooled_blocks=2),
        data,
        loss=OmniLoss(pre_on_episodes=True),
    )
    assert data.samples(0, torch.Generator(), labeled).episode
    assert not len(drawn(0, "meta-training", data).batch.x)
    assert drawn(0, "meta-training", data).episode and len(whole.batch.x)
    tadam = build_model(
        "meta-training", partial(Conv4, 1, 4, pooled_blocks=2), data, metatraining=TADAM()
    )
    assert len(data.samples(0, torch.Generator(), tadam).batch.x)

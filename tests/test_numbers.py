"""Numbers: what is not finite is named, distances and losses are of float32, gradients right."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from omnitraining.batches import Episode, class_means
from omnitraining.config.run_config import instantiate
from omnitraining.errors import InputError
from omnitraining.evaluation import Inference
from omnitraining.experiments.running import train_run
from omnitraining.losses import cross_entropy, distillation, probability_distillation, squared_error
from omnitraining.metatraining import (
    ANIL,
    GNN,
    LEO,
    MAML,
    LearnedFT,
    ProtoNet,
    Reptile,
    TapNet,
)
from omnitraining.metatraining.protonet import Prototypes
from omnitraining.precision import at_least_float32, in_full_precision
from omnitraining.pretraining import PMM
from omnitraining.pretraining.linear_heads import CosineLayer
from omnitraining.runs.run import Run, load_checkpoint
from omnitraining.tasks.reinforcement.navigation import Navigation
from omnitraining.tasks.reinforcement.problem import Reinforcement
from omnitraining.training import Training, loop, train
from tests.reference.tiny import NAVIGATION, SINUSOIDS, config, tensors
from tests.reference.toy import Toy, toy_model
from tests.test_every_algorithm import Algorithm, each_algorithm, toy, training_loss

TERMS = ["l_pre", "r_pre", "l_meta", "r_meta", "l_joint_pre", "l_joint_meta"]
LENGTH = Training(steps=9, val_every=3)


def good_checkpoint(folder: Path, steps: int) -> None:
    """There is a last good checkpoint, of these steps, and it can be loaded."""
    run = Run(folder, create=True)
    assert load_checkpoint(run.checkpoint("last"), {})["step"] == steps
    assert all(x.isfinite().all() for x in tensors(run.checkpoint("last")).values())


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", TERMS)
def test_a_term_that_is_not_finite_is_named_with_its_step_and_samples(
    name: str, value: float, tmp_path: Path
) -> None:
    model, problem = toy_model(distill_weight=1.0)

    def poison(_: nn.Module, args: tuple[Any, ...], terms: dict[str, Tensor]) -> None:
        if args[3] == 7:
            terms[name] = terms[name] + value
            terms["total"] = terms["total"] + terms[name]

    model.register_forward_hook(poison)
    where = "mini-batch" if name.endswith("pre") else "episode"
    words = rf"loss term {name} became {value} on the {where} of training step 7 \(counted from 0\)"
    with pytest.raises(InputError, match=words):
        train(model, problem, LENGTH, Inference(), Run(tmp_path, create=True))
    good_checkpoint(tmp_path, 6)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_is_named_though_the_loss_is_finite(
    value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model, problem), calls = toy_model(), 0

    def poison(gradient: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return gradient * value if calls == 5 else gradient

    [*model.parameters()][-1].register_hook(poison)
    monkeypatch.setattr(loop, "REPORT_EVERY", 100)
    words = r"the gradient became (nan|inf) on the samples of training step 4 \(counted from 0\)"
    with pytest.raises(InputError, match=words):
        train(model, problem, LENGTH, Inference(), Run(tmp_path, create=True))
    good_checkpoint(tmp_path, 3)


def test_the_gradient_is_no_term_of_the_metrics(tmp_path: Path) -> None:
    run = train_run(config(SINUSOIDS), tmp_path / "run")
    assert "gradient" not in (run.path / "metrics.csv").read_text()


def test_an_input_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    class Broken(Toy):
        def episode(self, step: int, random: torch.Generator, tasks: int = 1) -> Episode:
            episode = super().episode(step, random, tasks)
            if step == 4:
                episode.query_x[0, 0, 0] = math.nan
            return episode

    model, _ = toy_model()
    with pytest.raises(InputError, match=r"became nan on the episode of training step 4"):
        problem = Broken(regression=False)
        train(model, problem, LENGTH, Inference(), Run(tmp_path, create=True))
    good_checkpoint(tmp_path, 3)


def test_a_reward_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    run_config = instantiate(config(NAVIGATION))
    problem = run_config.problem
    assert isinstance(problem, Reinforcement)

    class Broken(Navigation):
        is_broken = False

        def step(self, actions: Tensor) -> Any:
            states, rewards, ends = super().step(actions)
            return states, rewards * math.inf if self.is_broken else rewards, ends

    world = problem.environment = Broken(horizon=10)
    samples = problem.samples

    def sampled(step: int, *rest: Any) -> Any:
        world.is_broken = step == 4
        try:
            return samples(step, *rest)
        finally:
            world.is_broken = False

    problem.samples = sampled  # type: ignore[method-assign]
    with pytest.raises(
        InputError, match=r"a reward of task 0 .* not finite .*, in training step 4"
    ):
        train(run_config.build(), problem, LENGTH, Inference(), Run(tmp_path, create=True))
    good_checkpoint(tmp_path, 3)


@each_algorithm
def test_no_algorithm_hides_inputs_that_are_not_finite(algorithm: Algorithm) -> None:
    problem, network = toy(algorithm)
    with torch.no_grad():
        next(network.parameters()).fill_(math.nan)
    assert not training_loss(algorithm, network, problem, 0).isfinite()


# Half precision


@each_algorithm
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_are_of_float32_where_the_network_computes_in_half(
    algorithm: Algorithm, dtype: torch.dtype
) -> None:
    problem, network = toy(algorithm)
    with torch.autocast("cpu", dtype):
        assert network.backbone(problem.example()).dtype == dtype
        torch.manual_seed(0)  # LEO draws its codes, and has dropout
        loss = training_loss(algorithm, network, problem, 0)
    assert loss.dtype == torch.float32 and loss.isfinite()
    loss.backward()
    torch.manual_seed(0)
    exact = training_loss(algorithm, network, problem, 0)
    torch.testing.assert_close(loss, exact, rtol=0.1, atol=0.05)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_distances_are_of_float32(dtype: torch.dtype) -> None:
    """Far from the origin, where bfloat16 would leave none of their digits."""
    query = (10 + torch.randn(1, 6, 8)).to(dtype)
    support = (10 + torch.randn(1, 6, 8)).to(dtype)
    labels, exact = torch.tensor([[0, 1, 2] * 2]), ProtoNet("euclidean", 1.0)
    with torch.autocast("cpu", dtype):
        means = class_means(support, labels, 3)
        logits = exact.fit(nn.Identity(), support, labels, 3)(query)
        cosines = ProtoNet().fit(nn.Identity(), support, labels, 3)(query)
        similar = CosineLayer(8, 4, 10.0)(query)
    found = (means, logits, cosines, similar)
    assert all(x.dtype == torch.float32 for x in found)
    distances = -torch.cdist(query.double(), class_means(support.double(), labels, 3)).square()
    torch.testing.assert_close(logits.double(), distances, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("loss", [squared_error, distillation, probability_distillation])
def test_losses_of_outputs_in_half_are_of_float32(loss: Any, dtype: torch.dtype) -> None:
    outputs, targets = torch.randn(2, 5, 3, dtype=dtype).unbind()
    exact = loss(outputs.double(), targets.double())
    torch.testing.assert_close(loss(outputs, targets).double(), exact, rtol=1e-5, atol=1e-6)
    labels = torch.randint(3, (5,))
    assert cross_entropy(outputs, labels).dtype == torch.float32


def test_float64_is_left_as_it_is() -> None:
    assert at_least_float32(torch.zeros(1, dtype=torch.float64)).dtype == torch.float64
    double = in_full_precision(lambda x, y: x @ y)
    with torch.autocast("cpu", torch.bfloat16):
        assert double(torch.ones(2, 2), torch.ones(2, 2)).dtype == torch.float32


# Gradients


def assert_slopes(
    loss: Any, parameters: list[Tensor], eps: float = 1e-6, tolerance: float = 1e-5
) -> None:
    """The gradient along random directions is the central difference."""
    slopes = torch.autograd.grad(loss(), parameters, allow_unused=True)
    for seed in range(3):
        random = torch.Generator().manual_seed(seed)
        ways = [torch.randn(p.shape, generator=random) for p in parameters]
        slope = sum(((g * w).sum() for g, w in zip(slopes, ways, strict=True) if g is not None))
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                for p, w in zip(parameters, ways, strict=True):
                    p += sign * eps * w
            values.append(loss().detach())
            with torch.no_grad():
                for p, w in zip(parameters, ways, strict=True):
                    p -= sign * eps * w
        difference = (values[0] - values[1]) / (2 * eps)
        torch.testing.assert_close(torch.as_tensor(slope), difference, rtol=tolerance, atol=1e-7)


@pytest.mark.usefixtures("float64")
@each_algorithm
def test_the_gradient_of_every_algorithm_is_that_of_finite_differences(
    algorithm: Algorithm,
) -> None:
    if isinstance(algorithm, MAML | ANIL) and not algorithm.second_order:
        pytest.skip("of the first order is another direction, by design")
    if isinstance(algorithm, TapNet | LEO | Reptile | LearnedFT | PMM):
        pytest.skip("a part of its loss takes no gradient, or another one, by design")
    problem, network = toy(algorithm)
    parameters = [*network.parameters()]
    # The many ReLUs of the graph network bend within a larger step.
    step = (1e-8, 1e-3) if isinstance(algorithm, GNN) else (1e-6, 1e-5)
    assert_slopes(lambda: training_loss(algorithm, network, problem, 0), parameters, *step)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("loss", [distillation, probability_distillation, squared_error])
def test_the_gradients_of_the_losses_equal_finite_differences(loss: Any) -> None:
    student = torch.randn(4, 3, requires_grad=True)
    teacher = torch.randn(4, 3)
    assert torch.autograd.gradcheck(lambda x: loss(x, teacher), student)


@pytest.mark.usefixtures("float64")
def test_the_gradients_of_distances_equal_finite_differences() -> None:
    query = torch.randn(1, 5, 4, requires_grad=True)
    for metric in ("euclidean", "cosine"):
        prototypes = torch.randn(1, 3, 4, requires_grad=True)
        assert torch.autograd.gradcheck(
            lambda p, q, metric=metric: Prototypes(p, metric, 2.0)(q), (prototypes, query)
        )


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("method", ["omni-training", "joint-training", "meta-training"])
def test_the_gradient_of_policies_is_that_of_finite_differences(method: str) -> None:
    """On fixed trajectories: MAML through its inner step, and the policy gradient outside."""
    experiment = instantiate(config(NAVIGATION, method=method))
    model = experiment.build().double().train()
    samples = experiment.problem.samples(0, torch.Generator().manual_seed(0), model)
    parts = samples.batch, samples.episode
    assert_slopes(lambda: model(*parts, joint=samples.joint)["total"], [*model.parameters()])

"""Reinforcement learning: samples, meta-gradients, evaluation, training, and wrong input."""

import copy
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.distributions import Independent, Normal

import omnitraining
from omnitraining.adaptation.batched import expand_weights
from omnitraining.adaptation.inner_loop import sgd_step, sgd_update
from omnitraining.backbones import MLP
from omnitraining.batches import Episode, MiniBatch, StepData
from omnitraining.cli import main
from omnitraining.config.recipes import merge
from omnitraining.config.run_config import instantiate, load_run
from omnitraining.errors import InputError
from omnitraining.evaluation import ENSEMBLE, CellKey, Inference, tasks_hash
from omnitraining.experiments.record import read_record
from omnitraining.experiments.running import evaluate_run, train_run
from omnitraining.metatraining import MAML, ProtoNet
from omnitraining.model import Method, Model, OmniLoss, OmniNetOptions, build_model
from omnitraining.network import Network
from omnitraining.policies.gaussian import GaussianHead, PolicyTargets
from omnitraining.pretraining import REINFORCE, L2Regression
from omnitraining.runs.run import Run
from omnitraining.tasks.reinforcement import problem as module
from omnitraining.tasks.reinforcement.navigation import Navigation
from omnitraining.tasks.reinforcement.policies import per_task_policy, shared_policy
from omnitraining.tasks.reinforcement.problem import TEST_SEED, VALIDATION_SEED, Reinforcement
from omnitraining.tasks.reinforcement.trajectories import Trajectories, rollout
from omnitraining.teacher import Teacher
from omnitraining.training import Stepper, Training, train
from tests.reference.tiny import NAVIGATION, config, metrics, same, tensors

RESULTS = Path(__file__).parents[2] / "results"
METHODS = {
    "pre-training": ("pre",),
    "meta-training": ("meta",),
    "joint-training": ("joint",),
    "ensemble": ("pre", "meta"),
    "omni-training": ("pre", "joint", "meta"),
}
each_method = pytest.mark.parametrize("method", METHODS)


def problem(**options: Any) -> Reinforcement:
    defaults = {
        "environment": Navigation("distance", horizon=6),
        "tasks": 3,
        "trajectories": 4,
        "test_steps": 2,
        "test_tasks": 7,
        "validation_tasks": 5,
    }
    return Reinforcement(**(defaults | options))


def model_of(
    data: Reinforcement,
    method: Method = "omni-training",
    lr: float = 0.1,
    branch_init: Any = "random",
    clip_ratio: float | None = None,
    **options: Any,
) -> Model:
    return build_model(
        method,
        lambda: MLP(2, (6, 4)),
        data,
        REINFORCE(lr=lr, clip_ratio=clip_ratio),
        MAML(task="reinforcement", lr=lr, clip_ratio=clip_ratio, **options),
        OmniLoss(),
        OmniNetOptions(branch_init=branch_init),
    )


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- samples of a training step ---


@each_method
def test_every_flow_learns_from_its_own_trajectories(method: Method) -> None:
    data = problem()
    model = model_of(data, method)
    drawn = data.samples(0, generator(), model)
    flows = METHODS[method]
    assert drawn.report.keys() == {
        *(f"return_{flow}" for flow in flows),
        *(f"return_{flow}_adapted" for flow in flows if flow != "pre"),
    }
    assert (len(drawn.batch.x) > 0) == ("pre" in flows)
    assert (len(drawn.episode.query_x) > 0) == ("meta" in flows)
    assert (drawn.joint is not None) == ("joint" in flows)
    if "pre" in flows:
        assert drawn.batch.x.shape == (3 * 4 * 6, 2) and drawn.batch.y.shape == (3 * 4 * 6, 4)
    if "meta" in flows:
        for part in (drawn.episode.support_x, drawn.episode.query_x):
            assert part.shape == (3, 4 * 6, 2)
    if drawn.joint is not None:  # one set of first trajectories serves both of its losses
        batch, episode = drawn.joint
        assert torch.equal(batch.x, episode.support_x.flatten(0, 1))
        assert torch.equal(batch.y, episode.support_y.flatten(0, 1))


def test_the_old_policy_is_the_policy_of_the_step() -> None:
    """So that every ratio of the surrogate is 1 before the step."""
    data = problem()
    model = model_of(data)
    drawn = data.samples(0, generator(), model)
    outputs = model.outputs(drawn.batch, drawn.episode, drawn.joint)
    assert drawn.joint is not None
    targets = {
        "pre": drawn.batch.y,
        "meta": drawn.episode.query_y,
        "joint_pre": drawn.joint[0].y,
        "joint_meta": drawn.joint[1].query_y,
    }
    assert outputs.keys() == targets.keys()
    for name, output in outputs.items():
        mean, log_std = output.chunk(2, -1)
        y = targets[name]
        log_probs = Independent(Normal(mean, log_std.exp()), 1).log_prob(y[..., :2])
        torch.testing.assert_close(log_probs, y[..., -1], rtol=1e-4, atol=1e-4)


def test_samples_depend_on_the_seed_and_the_weights_alone() -> None:
    data, model = problem(), model_of(problem())
    first, again = (data.samples(3, generator(7), model) for _ in range(2))
    assert torch.equal(first.batch.x, again.batch.x)
    assert torch.equal(first.episode.query_y, again.episode.query_y)
    other = data.samples(3, generator(8), model)
    assert not torch.equal(first.batch.x, other.batch.x)


# --- losses and their gradients ---


def fixed_samples() -> StepData:
    """Random samples of two tasks, with ratios that are not 1."""

    def draw(*shape: int) -> tuple[Tensor, Tensor]:
        actions, advantages = torch.randn(*shape, 2), torch.randn(*shape)
        targets = PolicyTargets(actions, advantages, torch.randn(*shape) - 3)
        return torch.randn(*shape, 2), targets.pack()

    def both() -> tuple[MiniBatch, Episode]:
        return MiniBatch(*draw(9)), Episode(*draw(2, 5), *draw(2, 6))

    return StepData(*both(), joint=both())


def terms_by_hand(
    model: Model, drawn: StepData, lr: float, epsilon: float = math.inf
) -> dict[str, Tensor]:
    """The terms with loops over tasks and torch's own distributions."""

    def log_probs(network: nn.Module, weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        mean, log_std = torch.func.functional_call(network, weights, (x,)).chunk(2, -1)
        return Independent(Normal(mean, log_std.exp()), 1).log_prob(y[..., :2])

    def outer(network: nn.Module, weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        ratio = (log_probs(network, weights, x, y) - y[..., -1]).exp()
        gained = torch.where(  # how far a ratio counts, by the sign of the advantage
            y[..., -2] > 0, ratio.clamp(max=1 + epsilon), ratio.clamp(min=1 - epsilon)
        )
        return -(gained * y[..., -2]).mean()

    def after_a_step(network: nn.Module, e: Episode) -> Tensor:
        weights, losses = dict(network.named_parameters()), []
        for task in range(len(e.support_x)):
            x, y = e.support_x[task], e.support_y[task]
            inner = -(log_probs(network, weights, x, y) * y[..., -2]).mean()
            gradients = torch.autograd.grad(inner, [*weights.values()], create_graph=True)
            fast = {n: w - lr * g for (n, w), g in zip(weights.items(), gradients, strict=True)}
            losses.append(outer(network, fast, e.query_x[task], e.query_y[task]))
        return torch.stack(losses).mean()

    assert drawn.joint is not None
    batches = {"pre": drawn.batch, "joint_pre": drawn.joint[0]}
    episodes = {"meta": drawn.episode, "joint_meta": drawn.joint[1]}
    nets = {name: model.network(name) for name in (*batches, *episodes)}
    return {
        **{f"l_{n}": outer(nets[n], dict(nets[n].named_parameters()), b.x, b.y)
           for n, b in batches.items()},
        **{f"l_{n}": after_a_step(nets[n], e) for n, e in episodes.items()},
    }  # fmt: skip


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("clip_ratio", [None, 0.3])
def test_losses_and_gradients_equal_a_loop_over_tasks(clip_ratio: float | None) -> None:
    model, drawn = model_of(problem(), clip_ratio=clip_ratio), fixed_samples()
    terms = model(drawn.batch, drawn.episode, joint=drawn.joint)
    expected = terms_by_hand(model, drawn, 0.1, clip_ratio or math.inf)
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value)
    parameters = [*model.parameters()]
    for name in expected:
        gradients = (
            torch.autograd.grad(t[name], parameters, retain_graph=True, materialize_grads=True)
            for t in (terms, expected)
        )
        for ours, theirs in zip(*gradients, strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.usefixtures("float64")
def test_the_gradient_of_the_whole_objective_is_that_of_finite_differences() -> None:
    model, drawn = model_of(problem()), fixed_samples()
    teacher = Teacher(model).model
    with torch.no_grad():
        for parameter in model.parameters():  # away from the teacher
            parameter += 0.1 * torch.randn_like(parameter)

    def objective() -> Tensor:
        total: Tensor = model(drawn.batch, drawn.episode, teacher, 0, drawn.joint)["total"]
        return total

    gradients = torch.autograd.grad(objective(), [*model.parameters()])
    width = 1e-5
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        direction = torch.randn_like(parameter)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * width * direction
                values.append(objective().item())
                parameter -= sign * width * direction
        difference = (values[0] - values[1]) / (2 * width)
        assert (gradient * direction).sum().item() == pytest.approx(difference, rel=1e-5, abs=1e-7)


@pytest.mark.usefixtures("float64")
def test_without_second_order_the_inner_gradient_is_a_constant() -> None:
    drawn = fixed_samples()
    gradients = []
    for second_order in (True, False):
        torch.manual_seed(0)
        model = model_of(problem(), "meta-training", second_order=second_order)
        value = model(drawn.batch, drawn.episode)["l_meta"]
        gradients.append(torch.autograd.grad(value, [*model.parameters()]))
    assert any(not torch.allclose(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.usefixtures("float64")
def test_several_updates_are_on_the_same_trajectories_of_policies_adapted_anew() -> None:
    """The first as without the clip; each later one by the loss written out at the new weights."""
    torch.manual_seed(0)
    data, training = problem(), Training(optimizer="sgd", lr=2.0, updates_per_step=3)
    stepper = Stepper(model_of(data, clip_ratio=0.1), data, training, torch.device("cpu"))
    drawn, slow = stepper.samples(0), copy.deepcopy(stepper.model)
    found = stepper.update(drawn, 0)
    unlike = []
    for update in range(3):
        plain, clipped = (
            sum(terms_by_hand(slow, drawn, 0.1, epsilon).values()) for epsilon in (math.inf, 0.1)
        )
        if update == 0:
            assert found["total"].item() == pytest.approx(clipped.item())
        weights = [*slow.parameters()]
        gradients = torch.autograd.grad(clipped, weights, retain_graph=True)
        others = torch.autograd.grad(plain, weights)
        unlike.append(not all(map(torch.allclose, gradients, others)))
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                weight -= 2.0 * gradient
    assert unlike == [False, True, True]  # ratios are 1 in the first update, beyond 1.1 later
    for ours, expected in zip(stepper.model.parameters(), slow.parameters(), strict=True):
        torch.testing.assert_close(ours, expected)


# --- evaluation ---


def test_an_evaluation_has_a_cell_per_number_of_steps_with_every_flow() -> None:
    data = problem()
    evaluation = data.evaluate(model_of(data), Inference(), 7)
    assert list(evaluation.cells) == [
        CellKey("navigation-distance", steps=step) for step in (0, 1, 2)
    ]
    assert evaluation.higher_is_better and evaluation.unit == "return"
    for cell in evaluation.cells.values():
        assert set(cell.scores) == {"pre", "joint", "meta", ENSEMBLE}
        assert all(len(scores) == 7 for scores in cell.scores.values())
    assert len({cell.tasks_hash for cell in evaluation.cells.values()}) == 1


def test_the_return_after_0_steps_is_that_of_the_plain_policy() -> None:
    data = problem()
    model = model_of(data)
    goals = data.fixed_tests(7)
    for flow, name in (("pre", "pre"), ("joint", "joint_meta"), ("meta", "meta")):
        policy = shared_policy(model.network(name))
        trajectories = rollout(data.environment, goals, policy, 4, generator(TEST_SEED))
        returns = data.returns(model, flow, goals, [0.1, 0.1])
        assert returns.shape == (3, 7)
        torch.testing.assert_close(returns[0], trajectories.returns())


@pytest.mark.parametrize(("halve", "second"), [(False, 0.3), (True, 0.15)])
def test_a_flow_adapts_to_its_own_trajectories_after_every_step(halve: bool, second: float) -> None:
    data = problem(halve_rate=halve)
    model = model_of(data, lr=0.3)
    rates = data.test_rates(model, "meta")
    assert rates == [0.3, second]
    network, goals, random = model.network("meta"), torch.rand(2, 2) - 0.5, generator(3)
    (first, w0), (again, w1), (last, w2) = data.adaptation(
        model, "meta", goals, rates, generator(3)
    )
    assert all(torch.equal(w0[n], w) for n, w in expand_weights(network, 2).items())
    for trajectories, weights, lr, after in ((first, w0, 0.3, w1), (again, w1, second, w2)):
        same_again = rollout(data.environment, goals, per_task_policy(network, weights), 4, random)
        torch.testing.assert_close(same_again.states, trajectories.states)
        x, y = trajectories.samples(data.discount, data.gae_lambda)
        expected = sgd_step(network, weights, x, y, REINFORCE().inner_loss, lr)
        for name, value in expected.items():
            torch.testing.assert_close(after[name], value)
    assert not torch.allclose(first.actions, again.actions)
    assert not torch.allclose(again.actions, last.actions)


def test_the_pre_flow_is_fine_tuned_at_its_own_rate() -> None:
    data = problem()
    model = build_model(
        "ensemble",
        lambda: MLP(2, (4,)),
        data,
        REINFORCE(lr=1e-300),  # nothing, in single precision
        MAML(task="reinforcement", lr=1.0),
    )
    goals = torch.rand(2, 2) - 0.5
    adapts = {}
    for flow in ("pre", "meta"):
        rates = data.test_rates(model, flow)[:1]
        (_, before), (_, after) = data.adaptation(model, flow, goals, rates, generator())
        adapts[flow] = any(not torch.equal(before[n], after[n]) for n in before)
    assert adapts == {"pre": False, "meta": True}


def test_rates_of_the_results_may_be_chosen_on_the_validation_tasks() -> None:
    data = problem(rates="validation")
    model = model_of(data, "meta-training", lr=0.4)
    chosen = data.test_rates(model, "meta")
    tasks = data.fixed_validation()
    network, random = model.network("meta"), generator(VALIDATION_SEED)

    def act(weights: dict[str, Tensor]) -> Trajectories:
        return rollout(
            data.environment, tasks, per_task_policy(network, weights), data.trajectories, random
        )

    weights = expand_weights(network, len(tasks))
    trajectories = act(weights)
    for rate in chosen:
        x, y = trajectories.samples(data.discount, data.gae_lambda)
        state, adapted, after = random.get_state(), {}, {}
        for tried in (0.05, 0.1, 0.2, 0.4, 0.8):
            random.set_state(state)
            adapted[tried] = sgd_step(network, weights, x, y, REINFORCE().inner_loss, tried)
            after[tried] = act(adapted[tried])
        returns = {tried: again.returns().mean() for tried, again in after.items()}
        assert rate == max(returns, key=lambda tried: returns[tried])
        weights, trajectories = adapted[rate], after[rate]
    for cell, scores in zip(
        data.evaluate(model, Inference(), 7).cells.values(),
        data.returns(model, "meta", data.fixed_tests(7), chosen),
        strict=True,
    ):
        assert cell.scores[ENSEMBLE] == pytest.approx(scores.tolist())


def test_a_rate_at_which_a_policy_diverges_loses(monkeypatch: pytest.MonkeyPatch) -> None:
    data = problem(rates="validation")
    model = model_of(data, "meta-training", lr=0.4)

    def fragile(limit: float) -> Callable[..., dict[str, Tensor]]:
        def move(*of: Any) -> dict[str, Tensor]:
            return {n: w * (math.nan if of[-1] > limit else 1) for n, w in sgd_update(*of).items()}

        return move

    monkeypatch.setattr(module, "sgd_update", fragile(0.1))
    assert max(data.test_rates(model, "meta")) <= 0.1
    monkeypatch.setattr(module, "sgd_update", fragile(0.0))
    with pytest.raises(InputError, match=r"an action of task 0 .* the policy diverged"):
        data.test_rates(model, "meta")


def test_returns_in_other_environments_are_not_comparable() -> None:
    environments = [
        Navigation(),
        Navigation(scale=1.0),
        Navigation("distance"),
        Navigation(horizon=5),
    ]
    hashes = set()
    for env in environments:
        data = problem(environment=env, test_steps=1)
        cells = data.evaluate(model_of(data, "meta-training"), Inference(), 2).cells
        hashes |= {cell.tasks_hash for cell in cells.values()}
    assert len(hashes) == len(environments)


@pytest.mark.usefixtures("float64")
def test_the_ensemble_is_one_flow_for_all_steps_that_is_best_on_validation_tasks() -> None:
    torch.manual_seed(5)
    data = problem()
    model = model_of(data, branch_init="zeros")
    # The pre-flow starts badly, the joint-flow overshoots, the meta-flow is bad.
    with torch.no_grad():
        model.network("pre").head.mean.bias += 1
        model.network("joint_meta").head.log_std -= 3
        model.network("meta").head.mean.bias += 8
    tasks = data.fixed_validation()
    after = {}
    for flow in model.trained_flows:
        rates, random = data.test_rates(model, flow), generator(VALIDATION_SEED)
        rollouts = [part for part, _ in data.adaptation(model, flow, tasks, rates, random)]
        after[flow] = torch.stack([part.returns().mean() for part in rollouts])
    means = {flow: returns[1:].mean().item() for flow, returns in after.items()}
    # One flow is the best of each number of steps, another one that of all.
    assert [max(after, key=lambda f: after[f][k].item()) for k in range(3)] == [
        "joint",
        "pre",
        "joint",
    ]
    for chosen in ((), ("pre", "joint"), ("pre", "meta"), ("pre",)):
        inference = Inference(flows=chosen) if chosen else Inference()
        best = max(chosen or model.trained_flows, key=lambda flow: means[flow])
        assert data.ensemble(model, inference) == best
        for cell in data.evaluate(model, inference, 7).cells.values():
            assert cell.scores[ENSEMBLE] == cell.scores[best]
        scores = data.validation_scores(model, inference)
        assert scores[ENSEMBLE] == pytest.approx(means[best])
        assert scores["pre"] == pytest.approx(means["pre"])


def own_weights(network: nn.Module) -> dict[str, Tensor]:
    return {n: p.detach().clone().requires_grad_() for n, p in network.named_parameters()}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("flows", [("pre", "joint", "meta"), ("pre", "meta")])
def test_the_mean_policy_is_one_policy_that_acts_and_adapts(flows: tuple[Any, ...]) -> None:
    """Against a loop over tasks with torch's own distributions."""
    torch.manual_seed(4)
    data, inference = problem(halve_rate=True), Inference(flows=flows, policy="mean")
    model = model_of(data, lr=0.3)
    with torch.no_grad():
        model.network("pre").head.mean.bias += 0.5
        model.network("meta").head.log_std -= 1
    networks = [model.network("joint_meta" if flow == "joint" else flow) for flow in flows]

    def written_out(tasks: Tensor, seed: int) -> list[Tensor]:
        """Returns [N] after 0, 1 and 2 steps."""
        random, returns = generator(seed), []
        # Flows share weights in the Omni-Net, but none while they adapt.
        weights = [[own_weights(net) for net in networks] for _ in tasks]

        def outputs(task: int, states: Tensor) -> Tensor:
            parts = [
                torch.func.functional_call(net, own, (states,))
                for net, own in zip(networks, weights[task], strict=True)
            ]
            return sum(parts) / len(parts)

        for lr in (0.3, 0.15, None):
            after = rollout(
                data.environment,
                tasks,
                lambda states: torch.stack([outputs(t, s) for t, s in enumerate(states)]),
                data.trajectories,
                random,
            )
            returns.append(after.returns())
            if lr is None:
                return returns
            x, y = after.samples(data.discount, data.gae_lambda)
            for task in range(len(tasks)):
                mean, log_std = outputs(task, x[task]).chunk(2, -1)
                chances = Independent(Normal(mean, log_std.exp()), 1).log_prob(y[task, :, :2])
                loss = -(chances * y[task, :, 2]).mean()
                for flow, own in enumerate(weights[task]):
                    gradients = torch.autograd.grad(loss, [*own.values()], retain_graph=True)
                    weights[task][flow] = {
                        name: (w - len(flows) * lr * g).detach().requires_grad_()
                        for (name, w), g in zip(own.items(), gradients, strict=True)
                    }
        raise AssertionError

    tests = written_out(data.fixed_tests(7), TEST_SEED)
    cells = data.evaluate(model, inference, 7).cells.values()
    for cell, expected in zip(cells, tests, strict=True):
        assert cell.scores[ENSEMBLE] == pytest.approx(expected.tolist(), rel=1e-6)
        assert {*cell.scores} == {"pre", "joint", "meta", ENSEMBLE}
    validation = data.fixed_validation()
    after = written_out(validation, VALIDATION_SEED)[1:]
    scores = data.validation_scores(model, inference)
    assert scores[ENSEMBLE] == pytest.approx(torch.stack(after).mean().item(), rel=1e-6)
    assert {*scores} == {*flows, ENSEMBLE}
    assert data.ensemble(model, inference) == flows


def test_the_mean_of_equal_flows_acts_and_adapts_as_each_of_them() -> None:
    data = problem()
    model = model_of(data, "ensemble", lr=0.3)
    model.network("meta").load_state_dict(model.network("pre").state_dict())
    evaluation = data.evaluate(model, Inference(policy="mean"), 7)
    for cell in evaluation.cells.values():
        assert cell.scores[ENSEMBLE] == pytest.approx(cell.scores["pre"], rel=1e-4)


def test_fixed_tasks_are_in_no_training_step() -> None:
    data = problem(validation_tasks=200, test_tasks=200)
    fixed = [data.fixed_validation(), data.fixed_tests(200)]
    steps = [seed * 1_000_003 + step for seed in range(4) for step in range(50)]
    training = [data.environment.sample_tasks(20, generator(seed)) for seed in steps]
    assert len(torch.cat([*fixed, *training]).unique(dim=0)) == 400 + 20 * 200


@pytest.mark.parametrize("name", ["figure8", "figure8-cheetah"])
def test_test_tasks_equal_the_tasks_of_the_records(name: str) -> None:
    row = read_record(RESULTS / f"{name}.json").rows["omni-training"]
    for setting, facts in row.trainings.items():
        values = facts.config["problem"]["init_args"]
        environment = values["environment"]
        kind = getattr(omnitraining, environment["class_path"].removeprefix("omnitraining."))
        data = problem(
            environment=kind(**environment["init_args"]),
            test_tasks=values["test_tasks"],
            trajectories=values["trajectories"],
        )
        identity = f"{data.environment.identity()} {data.trajectories}"
        hashes = {c.tasks for k, c in row.cells.items() if k.benchmark == data.environment.name}
        assert hashes == {tasks_hash(identity, data.fixed_tests(values["test_tasks"]))}, setting


def test_every_test_task_has_its_own_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    data = problem()
    model = model_of(data, "meta-training")
    goal = torch.tensor([[0.2, 0.1]]).expand(4, 2)
    monkeypatch.setattr(module, "TASKS_AT_ONCE", 2)
    assert len(data.returns(model, "meta", goal, [0.1])[0].unique()) == 4


def test_other_trajectories_or_another_horizon_are_other_tests() -> None:
    data = problem()
    model = model_of(data)
    longer = Reinforcement(Navigation("distance", horizon=7), 3, 4, test_steps=2, test_tasks=7)
    hashes = [d.evaluate(model, Inference(), 7) for d in (data, longer)]
    hashes.append(data.with_test_shots((5,)).evaluate(model, Inference(), 7))
    assert len({e.cells[CellKey("navigation-distance", steps=1)].tasks_hash for e in hashes}) == 3


# --- training ---

LEARNS: dict[str, Any] = {
    "problem": {
        "init_args": {
            "environment": {"init_args": {"reward": "distance"}},
            "tasks": 8,
            "trajectories": 10,
            "validation_tasks": 2,
        }
    },
    "pretraining": {"init_args": {"lr": 0.3}},
    "metatraining": {"init_args": {"lr": 0.3}},
    "loss": {"distill_weight": 0.0},
    "inference": {"weights": "student"},
}
RECIPES = {
    "adam": {"optimizer": "adam", "lr": 0.05, "steps": 20, "val_every": 20},
    "trpo": {"optimizer": "trpo", "lr": 0.06, "steps": 8, "val_every": 8},
    "ppo": {"lr": 0.03, "updates_per_step": 4, "steps": 8, "val_every": 8},
}


@each_method
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_method_learns_to_adapt(method: Method, recipe: str, tmp_path: Path) -> None:
    """A pre-flow does better before adaptation, the others do better after a step."""
    clip = {"init_args": {"clip_ratio": 0.2}} if recipe == "ppo" else {}
    values = merge(NAVIGATION, LEARNS, {"pretraining": clip, "metatraining": clip})
    experiment = instantiate(config(values, method=method, training=RECIPES[recipe]))
    data, model = experiment.problem, experiment.build()
    assert isinstance(data, Reinforcement)
    tasks = data.environment.sample_tasks(40, generator(TEST_SEED))
    before = {flow: data.returns(model, flow, tasks, [0.3]) for flow in METHODS[method]}
    train(model, data, experiment.training, experiment.inference, Run(tmp_path, create=True))
    for flow, returns in before.items():
        gained = (data.returns(model, flow, tasks, [0.3]) - returns).mean(1)
        assert gained[0] > 0.1 if flow == "pre" else gained[1] > 0.2, (flow, gained)


@pytest.mark.parametrize("optimizer", ["adam", "trpo"])
def test_a_run_that_was_broken_off_ends_in_the_same_weights(optimizer: str, tmp_path: Path) -> None:
    recipe = {"optimizer": optimizer}
    whole = train_run(config(NAVIGATION, training=recipe), tmp_path / "whole")
    train_run(config(NAVIGATION, training=recipe | {"steps": 2}), tmp_path / "broken")
    resumed = train_run(config(NAVIGATION, training=recipe), tmp_path / "broken", resume=True)
    for which in ("last", "best"):
        assert same(*(tensors(run.checkpoint(which)) for run in (whole, resumed)))
    names = {name for _, name, _ in metrics(whole.path)}
    assert {"return_pre", "return_meta_adapted", "l_joint_meta", "validation_student"} <= names


# --- the command line ---


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained and evaluated run; not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    file = folder / "navigation.yaml"
    file.write_text(yaml.safe_dump(NAVIGATION))
    assert main(["train", str(file), "--out", str(folder / "run")]) == 0
    return folder / "run"


TINY = [
    *("--problem.tasks", "2", "--problem.trajectories", "2", "--problem.test_tasks", "4"),
    *("--problem.environment.horizon", "10"),
    *(
        "--problem.validation_tasks",
        "2",
        "--training.steps",
        "1",
        "--training.val_every",
        "1",
    ),
]


def test_the_shipped_configuration_trains_and_is_evaluated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert main(["train", "navigation.yaml", "--out", str(folder), *TINY]) == 0
    out = capsys.readouterr().out
    assert all(str(CellKey("navigation", steps=step)) in out for step in range(5))
    assert all(head in out for head in ("pre", "joint", "meta", "ensemble"))


def test_runs_are_evaluated_and_compared(
    finished: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    before = Run(run).load_evaluation()
    assert main(["evaluate", str(run)]) == 0
    assert Run(run).load_evaluation() == before  # a repeated evaluation gives the same
    assert main(["evaluate", str(run), "--shots", "3", "--tasks", "5"]) == 0
    assert "navigation, 2 steps" in capsys.readouterr().out
    assert main(["compare", str(run), str(finished), "--head", "meta"]) == 0
    assert "+0 ± 0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--shots", "5", "10"], "--shots is (5, 10): give one number of trajectories, 1 or more"),
        (["--shots", "0"], "--shots is (0,): give one number of trajectories"),
        (["--tasks", "21"], "--tasks is 21: it must be from 2 to 20"),
    ],
)
def test_tests_that_there_are_not_are_refused(
    arguments: list[str], words: str, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(finished), *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and words in captured.err


def test_there_are_two_thousand_test_tasks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train_run(
        config(NAVIGATION, problem={"init_args": {"test_tasks": 2000}}, training={"steps": 0}),
        tmp_path / "run",
    )
    assert main(["evaluate", str(run.path), "--tasks", "2001"]) == 2
    assert "--tasks is 2001: it must be from 2 to 2000" in capsys.readouterr().err


# --- wrong input ---

MAML_2 = {"class_path": "MAML", "init_args": {"task": "reinforcement", "steps": 2}}
CLIP_ALL = {"init_args": {"clip_ratio": 1.0}}
LONE = "Reinforcement needs pretraining REINFORCE, and metatraining MAML"
NORM = "tests.tasks.test_reinforcement.Normed"
DROP = "tests.tasks.test_reinforcement.Dropped"


class Normed(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(2, 4), nn.BatchNorm1d(4))


class Dropped(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(2, 4), nn.Dropout())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"metatraining": MAML_2}, f"{LONE} with task reinforcement and steps 1"),
        ({"metatraining": {"class_path": "MAML", "init_args": {"task": "regression"}}}, LONE),
        ({"metatraining": {"class_path": "ProtoNet"}, "method": "pre-training"}, LONE),
        ({"pretraining": {"class_path": "L2Regression"}}, LONE),
        ({"backbone": {"init_args": {"inputs": 3}}}, "does not take inputs of shape [2, 2]"),
        ({"backbone": {"class_path": NORM}}, "there is BatchNorm1d in the backbone"),
        ({"backbone": {"class_path": DROP}}, "there is Dropout in the backbone"),
        ({"problem": {"init_args": {"tasks": 0}}}, "problem.tasks is 0: it must be 1 or more"),
        ({"problem": {"init_args": {"discount": 1.5}}}, "problem.discount is 1.5: it must be from"),
        ({"problem": {"init_args": {"gae_lambda": -0.1}}}, "problem.gae_lambda is -0.1"),
        ({"pretraining": CLIP_ALL}, "pretraining.clip_ratio is 1.0: it must be greater than 0 and"),
        ({"metatraining": CLIP_ALL}, "metatraining.clip_ratio is 1.0: it must be greater than 0"),
        ({"training": {"updates_per_step": 0}}, "training.updates_per_step is 0: it must be 1 or"),
        (
            {"training": {"updates_per_step": 2, "optimizer": "trpo"}},
            "training.updates_per_step is 2, but training.optimizer is 'trpo', which makes one",
        ),
        ({"inference": {"flows": ["meta"]}, "method": "pre-training"}, "inference.flows is"),
        ({"inference": {"policy": "mean"}, "method": "meta-training"}, "the ensemble has one flow"),
        ({"inference": {"policy": "mean", "flows": ["pre"]}}, "the ensemble has one flow, 'pre'"),
        ({"problem": {"init_args": {"environment": {"class_path": "Mars"}}}}, "no class 'Mars'"),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit_leave_no_run(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as error:
        train_run(config(NAVIGATION, **changes), tmp_path / "run")
    assert words in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


class Failing(Navigation):
    """Navigation that returns rewards that are not numbers from some reset on."""

    def __init__(self, good: int = 0, horizon: int = 10) -> None:
        super().__init__(horizon=horizon)
        self.good = good

    def reset(self, tasks: Tensor, random: torch.Generator) -> Tensor:
        self.good -= 1
        return super().reset(tasks, random)

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        states, rewards, ends = super().step(actions)
        return states, rewards if self.good >= 0 else rewards * math.nan, ends


def test_rewards_that_are_not_numbers_stop_a_run_with_its_good_checkpoint(tmp_path: Path) -> None:
    # A try-out and two steps of five rollouts each, and a validation of both weights in between.
    kind = {"class_path": "tests.tasks.test_reinforcement.Failing", "init_args": {"good": 36}}
    choice = config(NAVIGATION, problem={"init_args": {"environment": kind}})
    words = (
        r"navigation: a reward of task 0 \(counted from 0\) is not finite at step 0, in training "
        r"step 2; the last good checkpoint is kept$"
    )
    with pytest.raises(InputError, match=words):
        train_run(choice, tmp_path / "run")
    run = Run(tmp_path / "run", trust=True)
    assert load_run(run).load(run).trained_flows == ("pre", "joint", "meta")


class Few(Navigation):
    def sample_tasks(self, count: int, random: torch.Generator) -> Tensor:
        return super().sample_tasks(count - 1, random)


def test_a_sampler_that_gives_too_few_tasks_leaves_no_run(tmp_path: Path) -> None:
    few = {"environment": {"class_path": "tests.tasks.test_reinforcement.Few"}}
    with pytest.raises(InputError, match=r"Few.sample_tasks\(4\) returned \[3, 2\]: it must"):
        train_run(config(NAVIGATION, problem={"init_args": few}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


class Unnamed(Navigation):
    action_dim = property()


def test_an_environment_that_lacks_an_attribute_is_refused() -> None:
    with pytest.raises(InputError, match=r"^environment Unnamed has no attribute 'action_dim': "):
        Reinforcement(Unnamed())


def test_wrong_algorithms_are_refused_in_python_too() -> None:
    data = problem()
    head = GaussianHead(4, 2)
    assert isinstance(Network(nn.Identity(), head).head, GaussianHead)
    model = build_model("meta-training", lambda: MLP(2, (4,)), data, L2Regression(), ProtoNet())
    with pytest.raises(InputError, match=LONE):
        data.evaluate(model, Inference(), 2)


def test_a_trained_policy_is_evaluated_on_a_part_of_the_tasks(
    finished: Path, tmp_path: Path
) -> None:
    run = Run(shutil.copytree(finished, tmp_path / "run"))
    evaluation = evaluate_run(run, 6, name="custom")
    assert all(len(c.scores[ENSEMBLE]) == 6 for c in evaluation.cells.values())

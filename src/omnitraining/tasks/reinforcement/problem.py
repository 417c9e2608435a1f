"""Few-shot reinforcement learning (paper 6.3): act, adapt by the policy gradient, act again."""

import math
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from statistics import fmean
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from omnitraining.adaptation.batched import Weights, expand_weights
from omnitraining.adaptation.inner_loop import gradients, sgd_step, sgd_update
from omnitraining.batches import Episode, MiniBatch, StepData
from omnitraining.errors import InputError
from omnitraining.evaluation import ENSEMBLE, Cell, CellKey, Evaluation, Inference, tasks_hash
from omnitraining.metatraining import MAML
from omnitraining.model import Model
from omnitraining.network import MeanNetwork, Network
from omnitraining.pretraining import REINFORCE
from omnitraining.tasks.base import Problem
from omnitraining.tasks.reinforcement.environment import Environment, checked_tasks
from omnitraining.tasks.reinforcement.policies import per_task_policy, shared_policy
from omnitraining.tasks.reinforcement.trajectories import DivergedError, Trajectories, rollout

VALIDATION_SEED, TEST_SEED = 2**32 - 1, 2**32 - 2
"""Seeds of fixed tasks, which no training step has: that would take a run with the seed 4294.

torch reads no more than 32 bits of a seed."""

TASKS_AT_ONCE = 200
"""Test tasks whose trajectories are in memory at a time."""

PRODUCTS_ALONE = 50_000_000
"""Multiplications of a step of all policies, about a millisecond, below which one thread acts."""

Flow = str | tuple[str, ...]
"""Whose policy acts: one flow, by name; or the mean of several."""

RATE_FACTORS = (0.125, 0.25, 0.5, 1.0, 2.0)
"""Multiples of the stated learning rate that are tried on the validation tasks."""


class Reinforcement(Problem):
    """Adapt a policy to an unseen task in a few policy-gradient steps.

    In every training step each flow samples trajectories with its own policy in the same new
    tasks. The pre-flow learns from all of them (eq. 18). The meta-flow adapts to each task by one
    gradient step on the trajectories there (the support set), samples trajectories with the
    adapted policy (the query set), and learns to do well after adaptation (eq. 19). The joint-flow
    does both, with the same first trajectories.

    At test every flow alternates between sampling trajectories and a gradient step on them. The
    result after k steps is the mean return of the trajectories sampled after the k-th step.
    "ensemble" is one policy, for all numbers of steps. By default it is one flow: the flow of
    ``inference.flows`` with the highest mean return on the validation tasks after 1, 2, ... steps.
    With ``inference.policy="mean"`` it acts by the mean of the outputs of these flows, and adapts
    to its own trajectories by its policy gradient, as each flow does.

    Args:
        environment: the simulator and its distribution of tasks.
        tasks: per training step.
        trajectories: per task and policy.
        discount: gamma of returns.
        gae_lambda: lambda of generalized advantage estimation.
        test_steps: gradient steps at test; results are reported after each.
        halve_rate: halve the learning rate at test after the first step, as MAML's own
            protocol does; the paper states 0.1 throughout.
        rates: learning rates of the results: ``"stated"``, as in the algorithms; or
            ``"validation"``: in each step, for each flow, the one of an eighth to twice the stated
            rate with the highest return on the validation tasks. A policy whose deviation has
            become small has steeper gradients.
        test_tasks: how many.
        validation_tasks: how many; they are spread evenly over the distribution of tasks where the
            environment can (`Environment.spread_tasks`).
        validation_steps: gradient steps on them; the score is the mean return after each, at the
            learning rates of the results.

    Raises:
        InputError: a number is out of its range, or the environment lacks an attribute.

    Example:
        >>> from omnitraining import Navigation, Reinforcement
        >>> problem = Reinforcement(Navigation(horizon=5), tasks=3, trajectories=2)
        >>> problem.fixed_tests(4).shape  # four goals
        torch.Size([4, 2])
    """

    kind = "reinforcement"
    one_joint_head = True

    def __init__(
        self,
        environment: Environment,
        tasks: int = 20,
        trajectories: int = 20,
        discount: float = 0.99,
        gae_lambda: float = 1.0,
        test_steps: int = 4,
        halve_rate: bool = False,
        rates: Literal["stated", "validation"] = "stated",
        test_tasks: int = 2000,
        validation_tasks: int = 40,
        validation_steps: int = 2,
    ) -> None:
        """Check and keep the options."""
        numbers = {
            "tasks": tasks,
            "trajectories": trajectories,
            "test_steps": test_steps,
            "test_tasks": test_tasks,
            "validation_tasks": validation_tasks,
            "validation_steps": validation_steps,
        }
        for name, number in numbers.items():
            if number < 1:
                raise InputError(f"problem.{name} is {number}: it must be 1 or more")
        for name, factor in {"discount": discount, "gae_lambda": gae_lambda}.items():
            if not 0 <= factor <= 1:
                raise InputError(f"problem.{name} is {factor}: it must be from 0 to 1")
        for name in ("state_dim", "action_dim", "horizon", "name"):
            if not hasattr(environment, name):
                raise InputError(
                    f"environment {type(environment).__name__} has no attribute {name!r}: define "
                    "state_dim, action_dim, horizon and name"
                )
        self.environment = environment
        self.tasks, self.trajectories = tasks, trajectories
        self.discount, self.gae_lambda = discount, gae_lambda
        self.test_steps, self.test_tasks = test_steps, test_tasks
        self.halve_rate, self.rates = halve_rate, rates
        self.validation_tasks, self.validation_steps = validation_tasks, validation_steps
        self.pre_outputs = self.meta_outputs = environment.action_dim
        self.device = torch.device("cpu")

    @property
    def shardable(self) -> Mapping[str, int]:
        """The tasks of a step."""
        return {"problem.tasks": self.tasks}

    def example(self) -> Tensor:
        """Two states [2, S]."""
        return torch.zeros(2, self.environment.state_dim)

    def to(self, device: torch.device) -> None:
        """Simulate and compute on a device."""
        self.device = device

    def with_test_shots(self, shots: tuple[int, ...]) -> "Reinforcement":
        """A copy with another number of trajectories per gradient step."""
        if len(shots) != 1 or shots[0] < 1:
            raise InputError(f"--shots is {shots}: give one number of trajectories, 1 or more")
        changed = copy(self)
        (changed.trajectories,) = shots
        return changed

    def check(self, model: Model) -> None:
        """Refuse algorithms other than REINFORCE and MAML, and networks that mix states.

        Raises:
            InputError: the model has them.
        """
        _algorithms(model)

    def samples(self, step: int, random: torch.Generator, model: Model) -> StepData:
        """Trajectories of every flow in the same new tasks; empty for flows that do not exist.

        Each shard has a part of the step's tasks and its own seed.
        """
        tasks = checked_tasks(self.environment, self.tasks, random)
        if self.shard_count > 1:
            seeds = torch.randint(2**62, (self.shard_count,), generator=random)
            random = torch.Generator().manual_seed(int(seeds[self.shard_index]))
            tasks = tasks.chunk(self.shard_count)[self.shard_index]
        tasks = tasks.to(self.device)
        empty = torch.empty(0)
        nothing = MiniBatch(empty, empty), Episode(empty, empty, empty, empty)
        drawn: dict[str, tuple[MiniBatch, Episode]] = {}
        report: dict[str, Tensor] = {}
        meta = _algorithms(model)[1]
        for flow, network in _policies(model).items():
            before = self._rollout(tasks, network, None, random)
            report[f"return_{flow}"] = before.returns().mean()
            x, y = before.samples(self.discount, self.gae_lambda)
            batch, (_, episode) = MiniBatch(x.flatten(0, 1), y.flatten(0, 1)), nothing
            if flow != "pre":
                weights = expand_weights(network, len(tasks))
                weights = sgd_step(network, weights, x, y, meta.inner_loss, meta.lr)
                after = self._rollout(tasks, network, weights, random)
                report[f"return_{flow}_adapted"] = after.returns().mean()
                episode = Episode(x, y, *after.samples(self.discount, self.gae_lambda))
            drawn[flow] = batch, episode
        return StepData(
            drawn.get("pre", nothing)[0],
            drawn.get("meta", nothing)[1],
            drawn.get("joint"),
            report,
        )

    def validation_scores(self, model: Model, inference: Inference) -> dict[str, float]:
        """Mean returns over the steps on the validation tasks, by flow and of the ensemble."""
        members, candidates = _candidates(model, inference)
        means = {
            flow: _after_steps(self._validated(model, flow, self.validation_steps)[1])
            for flow in dict.fromkeys((*members, *candidates))
        }
        ensemble = max(means[flow] for flow in candidates)
        return {**{flow: means[flow] for flow in members}, ENSEMBLE: ensemble}

    def evaluate(self, model: Model, inference: Inference, tasks: int) -> Evaluation:
        """Mean return per task of every flow and of the ensemble, per number of steps."""
        goals, flows = self.fixed_tests(tasks), model.trained_flows
        _, candidates = _candidates(model, inference)
        validated = {
            flow: self._validated(model, flow, self.test_steps)
            for flow in dict.fromkeys((*flows, *candidates))
        }
        returns = {
            flow: self.returns(model, flow, goals, rates) for flow, (rates, _) in validated.items()
        }
        ensemble = max(candidates, key=lambda flow: _after_steps(validated[flow][1]))
        env = self.environment
        identity = tasks_hash(f"{env.identity()} {self.trajectories}", goals)
        evaluation = Evaluation("return", higher_is_better=True)
        for step in range(self.test_steps + 1):
            scores = {flow: returns[flow][step].tolist() for flow in flows}
            scores[ENSEMBLE] = returns[ensemble][step].tolist()
            evaluation.cells[CellKey(env.name, steps=step)] = Cell(identity, scores)
        return evaluation

    def ensemble(self, model: Model, inference: Inference) -> Flow:
        """The flow, or flows, whose policy `evaluate` has under the name "ensemble"."""
        _, candidates = _candidates(model, inference)
        after = {
            flow: _after_steps(self._validated(model, flow, self.test_steps)[1])
            for flow in candidates
        }
        return max(after, key=lambda flow: after[flow])

    def returns(self, model: Model, flow: Flow, tasks: Tensor, rates: Sequence[float]) -> Tensor:
        """Mean return of a flow in tasks [N, ...] after 0, 1, ... steps [len(rates) + 1, N]."""
        random, parts = torch.Generator().manual_seed(TEST_SEED), []
        for part in tasks.split(TASKS_AT_ONCE):
            after = self.adaptation(model, flow, part, rates, random)
            parts.append(torch.stack([trajectories.returns() for trajectories, _ in after]))
        return torch.cat(parts, 1)

    def adaptation(
        self,
        model: Model,
        flow: Flow,
        tasks: Tensor,
        rates: Sequence[float],
        random: torch.Generator,
    ) -> Iterator[tuple[Trajectories, Weights]]:
        """Adapt the policy of a flow, or the mean policy of several, to tasks.

        Args:
            model: the trained model.
            flow: whose policy adapts.
            tasks: [N, ...].
            rates: learning rate of each step, as from `test_rates`.
            random: source of initial states and actions.

        Yields:
            Trajectories after 0, 1, ... steps, and the weights at that time [N, ...].
        """
        network, (pre, _) = _policy(model, flow), _algorithms(model)
        tasks = tasks.to(self.device)
        weights = expand_weights(network, len(tasks))
        for rate in (*rates, None):
            trajectories = self._rollout(tasks, network, weights, random)
            yield trajectories, weights
            if rate is not None:
                x, y = trajectories.samples(self.discount, self.gae_lambda)
                weights = sgd_step(network, weights, x, y, pre.inner_loss, rate)

    def stated_rates(self, model: Model, flow: Flow, steps: int) -> list[float]:
        """Learning rates of a flow as its algorithm and ``halve_rate`` state them.

        The rates of the mean of F flows are F times the rates of meta-training: a flow is a part
        1 / F of the mean, and so is its gradient; with these rates the mean of F equal flows adapts
        as each of them does.
        """
        pre, meta = _algorithms(model)
        lr = pre.lr if flow == "pre" else meta.lr
        lr = lr if isinstance(flow, str) else len(flow) * lr
        later = lr / 2 if self.halve_rate else lr
        return [lr, *[later] * (steps - 1)]

    def test_rates(self, model: Model, flow: Flow) -> list[float]:
        """Learning rates of a flow in the results, by the option ``rates``."""
        if self.rates == "stated":
            return self.stated_rates(model, flow, self.test_steps)
        return self._validated(model, flow, self.test_steps)[0]

    def _validated(self, model: Model, flow: Flow, steps: int) -> tuple[list[float], list[float]]:
        """Learning rates of a flow by the option ``rates``, and its validation returns.

        Returns:
            Rates of the steps, and mean returns after 0, 1, ... of them.
        """
        network, (pre, _) = _policy(model, flow), _algorithms(model)
        factors = RATE_FACTORS if self.rates == "validation" else (1.0,)
        random = torch.Generator().manual_seed(VALIDATION_SEED)
        tasks = self.fixed_validation().to(self.device)
        weights = expand_weights(network, len(tasks))
        trajectories = self._rollout(tasks, network, weights, random)
        rates, returns = list[float](), [trajectories.returns().mean().item()]
        for stated in self.stated_rates(model, flow, steps):
            x, y = trajectories.samples(self.discount, self.gae_lambda)
            gradient = gradients(network, weights, x, y, pre.inner_loss)
            state, best, failure = random.get_state(), -math.inf, None
            for rate in (factor * stated for factor in factors):
                adapted = sgd_update(weights, gradient, rate)
                random.set_state(state)  # all rates have the same initial states and noise
                try:
                    after = self._rollout(tasks, network, adapted, random)
                except DivergedError as diverged:
                    failure = diverged
                    continue
                if (score := after.returns().mean().item()) > best:
                    best, following = score, (rate, adapted, after)
            if best == -math.inf and failure is not None:
                raise failure
            rate, weights, trajectories = following
            rates.append(rate)
            returns.append(best)
        return rates, returns

    def fixed_tests(self, count: int) -> Tensor:
        """The first of the fixed test tasks [count, ...], on the CPU."""
        random = torch.Generator().manual_seed(TEST_SEED)
        return checked_tasks(self.environment, self.test_tasks, random)[:count]

    def fixed_validation(self) -> Tensor:
        """The validation tasks [V, ...], on the CPU."""
        random = torch.Generator().manual_seed(VALIDATION_SEED)
        return checked_tasks(self.environment, self.validation_tasks, random, spread=True)

    def _rollout(
        self, tasks: Tensor, network: nn.Module, weights: Weights | None, random: torch.Generator
    ) -> Trajectories:
        """Trajectories of one network in all tasks, or with ``weights`` [T, ...] per task."""
        policy = shared_policy(network) if weights is None else per_task_policy(network, weights)
        products = len(tasks) * self.trajectories * sum(p.numel() for p in network.parameters())
        threads = 1 if products < PRODUCTS_ALONE else torch.get_num_threads()
        return rollout(self.environment, tasks, policy, self.trajectories, random, threads)


def _after_steps(returns: Sequence[float]) -> float:
    """The mean of the returns after 1, 2, ... steps, given the returns after 0, 1, ..."""
    return fmean(returns[1:])


def _policies(model: Model) -> dict[str, Network]:
    """The networks of the trained flows."""
    return {flow: model.heads_of(flow)[0].network for flow in model.trained_flows}


def _policy(model: Model, flow: Flow) -> nn.Module:
    """The network of a flow, or one that computes the mean of several.

    Log standard deviations are averaged too, not deviations or variances: networks return and adapt
    them, and flows with small and large deviations count equally.
    """
    networks = _policies(model)
    return networks[flow] if isinstance(flow, str) else MeanNetwork(networks[f] for f in flow)


def _candidates(model: Model, inference: Inference) -> tuple[tuple[str, ...], tuple[Flow, ...]]:
    """The flows of the ensemble, and its candidate policies; validation tasks select the best."""
    members = inference.members(model.trained_flows)
    return members, (members,) if inference.policy == "mean" else members


def _algorithms(model: Model) -> tuple[REINFORCE, MAML]:
    pre, meta = model.pretraining, model.metatraining
    fits = isinstance(meta, MAML) and meta.task == "reinforcement" and meta.steps == 1
    if not isinstance(pre, REINFORCE) or not isinstance(meta, MAML) or not fits:
        raise InputError(
            "Reinforcement needs pretraining REINFORCE, and metatraining MAML with task "
            "reinforcement and steps 1"
        )
    mixing = next((m for m in model.modules() if isinstance(m, (_BatchNorm, _DropoutNd))), None)
    if mixing is not None:
        raise InputError(
            f"there is {type(mixing).__name__} in the backbone: Reinforcement needs one whose "
            "outputs depend on nothing but a state and the weights, as MLP"
        )
    return pre, meta

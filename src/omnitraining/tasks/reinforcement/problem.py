"""Few-shot reinforcement learning (paper 6.3): act, adapt by the policy gradient, act again."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from omnitraining.adaptation.batched import Weights, copies
from omnitraining.adaptation.inner_loop import descended, moved, slopes
from omnitraining.batches import Episode, MiniBatch, StepData
from omnitraining.errors import InputError
from omnitraining.evaluation import ENSEMBLE, Cell, Evaluation, Inference, tasks_hash
from omnitraining.metatraining import MAML
from omnitraining.model import Model
from omnitraining.network import Network
from omnitraining.policies.gaussian import policy_gradient
from omnitraining.pretraining import REINFORCE
from omnitraining.tasks.base import Problem
from omnitraining.tasks.reinforcement.acting import one_policy, policies
from omnitraining.tasks.reinforcement.environment import Environment, checked_tasks
from omnitraining.tasks.reinforcement.trajectories import (
    DivergedError,
    Policy,
    Trajectories,
    rollout,
)

VALIDATION_SEED, TEST_SEED = 2**32 - 1, 2**32 - 2
"""Not the seed of any training step, whose tasks are drawn from the same distribution.

A run would need the seed 4294; torch reads no more than 32 bits."""

AT_ONCE = 200
"""Test tasks whose trajectories are in memory at a time."""


FACTORS = (0.125, 0.25, 0.5, 1.0, 2.0)
"""Of the stated learning rate, to choose from on the validation tasks."""


class Reinforcement(Problem):
    """Adapt a policy to an unseen task in a few policy-gradient steps.

    In every training step each flow acts with its own policy in the same new tasks. The pre-flow
    learns from its trajectories in all of them (eq. 18). The meta-flow adapts to each task by one
    gradient step on its trajectories there (the support set), acts again with the adapted policy
    (the query set), and learns to do well after adaptation (eq. 19). The joint-flow does both,
    from the same first trajectories.

    At test every flow acts, adapts, acts again, and so on; the result after k steps is the mean
    return of the trajectories sampled after the k-th step, from which the next step learns. There
    is no vote: after k steps the ensemble stands for the flow, among those of ``inference.flows``,
    that has the best return on the validation tasks after as many.

    Args:
        environment: the world and its distribution of tasks.
        tasks: per training step.
        trajectories: per task and policy.
        discount: gamma of returns.
        trace: lambda of generalized advantages.
        test_steps: gradient steps at test; results are reported after each.
        halve_rate: halve the learning rate at test after the first step, as MAML's own
            protocol does; the paper says 0.1 throughout.
        rates: learning rates of the results: ``"stated"``, or ``"validation"``: in each step, for
            each flow, that one of an eighth to twice the stated rate which has the best return on
            the validation tasks. A policy that has become sure of itself has steeper gradients.
        test_tasks: how many.
        validation_tasks: how many.
        validation_steps: gradient steps on them; the score is the mean return after each, at the
            learning rates of the results.
    """

    one_joint_head = True

    def __init__(
        self,
        environment: Environment,
        tasks: int = 20,
        trajectories: int = 20,
        discount: float = 0.99,
        trace: float = 1.0,
        test_steps: int = 4,
        halve_rate: bool = False,
        rates: Literal["stated", "validation"] = "stated",
        test_tasks: int = 2000,
        validation_tasks: int = 40,
        validation_steps: int = 2,
    ) -> None:
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
        for name, share in {"discount": discount, "trace": trace}.items():
            if not 0 <= share <= 1:
                raise InputError(f"problem.{name} is {share}: it must be from 0 to 1")
        self.environment = environment
        self.tasks, self.trajectories = tasks, trajectories
        self.discount, self.trace = discount, trace
        self.test_steps, self.test_tasks = test_steps, test_tasks
        self.halve_rate, self.rates = halve_rate, rates
        self.validation_tasks, self.validation_steps = validation_tasks, validation_steps
        self.pre_outputs = self.meta_outputs = environment.actions
        self.device = torch.device("cpu")

    @property
    def shardable(self) -> Mapping[str, int]:
        return {"problem.tasks": self.tasks}

    def example(self) -> Tensor:
        return torch.zeros(2, self.environment.states)

    def to(self, device: torch.device) -> None:
        self.device = device

    def set_test_shots(self, shots: tuple[int, ...]) -> None:
        """Choose the trajectories per gradient step at test."""
        if len(shots) != 1 or shots[0] < 1:
            raise InputError(f"--shots is {shots}: give one number of trajectories, 1 or more")
        (self.trajectories,) = shots

    def samples(self, step: int, random: torch.Generator, model: Model) -> StepData:
        """Trajectories of every flow in the same new tasks; empty for flows that are not there.

        Each shard has a subset of the step's tasks and a seed of its own.
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
            before = self._act(tasks, one_policy(network), random)
            report[f"return_{flow}"] = before.returns().mean()
            x, y = before.samples(self.discount, self.trace)
            batch, (_, episode) = MiniBatch(x.flatten(0, 1), y.flatten(0, 1)), nothing
            if flow != "pre":
                weights = copies(network, len(tasks))
                weights = descended(network, weights, x, y, meta.inner_loss, meta.lr)
                after = self._act(tasks, policies(network, weights), random)
                report[f"return_{flow}_adapted"] = after.returns().mean()
                episode = Episode(x, y, *after.samples(self.discount, self.trace))
            drawn[flow] = batch, episode
        return StepData(
            drawn.get("pre", nothing)[0],
            drawn.get("meta", nothing)[1],
            drawn.get("joint"),
            report,
        )

    def validation_scores(self, model: Model, inference: Inference) -> dict[str, float]:
        """Mean returns over the steps on the validation tasks; of the ensemble, as it is judged."""
        tried = {
            flow: torch.tensor(self._tried(model, flow, self.validation_steps)[1][1:])
            for flow in inference.members(model.trained_flows)
        }
        means = {flow: returns.mean().item() for flow, returns in tried.items()}
        best = torch.stack(list(tried.values())).amax(0)
        return {**means, ENSEMBLE: best.mean().item()}

    def evaluate(self, model: Model, inference: Inference, tasks: int) -> Evaluation:
        """Mean return per task of every flow and of the chosen one, per number of steps."""
        goals = self.fixed_tests(tasks)
        tried = {flow: self._tried(model, flow, self.test_steps) for flow in _policies(model)}
        returns = {flow: self.returns(model, flow, goals, tried[flow][0]) for flow in tried}
        voters = inference.members(model.trained_flows)
        world = self.environment
        identity = tasks_hash(f"{world.identity()} {self.trajectories}", goals)
        evaluation = Evaluation("return", higher_is_better=True)
        for step in range(self.test_steps + 1):
            scores = {flow: values[step].tolist() for flow, values in returns.items()}
            best = max(voters, key=lambda flow: tried[flow][1][step])
            scores[ENSEMBLE] = scores[best]
            evaluation.cells[f"{world.name} {step} steps"] = Cell(identity, scores)
        return evaluation

    def chosen_flow(self, model: Model, inference: Inference, steps: int) -> str:
        """The voting flow with the best return on the validation tasks after gradient steps."""
        voters = inference.members(model.trained_flows)
        after = {flow: self._tried(model, flow, steps)[1][-1] for flow in voters}
        return max(after, key=lambda flow: after[flow])

    def returns(self, model: Model, flow: str, tasks: Tensor, rates: Sequence[float]) -> Tensor:
        """Mean return of a flow in tasks [N, ...] after 0, 1, ... steps [len(rates) + 1, N]."""
        random, parts = torch.Generator().manual_seed(TEST_SEED), []
        for some in tasks.split(AT_ONCE):
            after = self.adaptation(model, flow, some, rates, random)
            parts.append(torch.stack([acted.returns() for acted, _ in after]))
        return torch.cat(parts, 1)

    def adaptation(
        self,
        model: Model,
        flow: str,
        tasks: Tensor,
        rates: Sequence[float],
        random: torch.Generator,
    ) -> Iterator[tuple[Trajectories, Weights]]:
        """A flow in tasks [N, ...]: what it does after 0, 1, ... steps, and its weights then.

        Args:
            model: the trained model.
            flow: that acts.
            tasks: to adapt to.
            rates: learning rate of each step; `test_rates` has those of the results.
            random: source of starts and actions.
        """
        network = _policies(model)[flow]
        tasks = tasks.to(self.device)
        weights = copies(network, len(tasks))
        for rate in (*rates, None):
            trajectories = self._act(tasks, policies(network, weights), random)
            yield trajectories, weights
            if rate is not None:
                x, y = trajectories.samples(self.discount, self.trace)
                weights = descended(network, weights, x, y, policy_gradient, rate)

    def stated_rates(self, model: Model, flow: str, steps: int) -> list[float]:
        """Learning rates of a flow as its algorithm and ``halve_rate`` state them."""
        pre, meta = _algorithms(model)
        lr = pre.lr if flow == "pre" else meta.lr
        later = lr / 2 if self.halve_rate else lr
        return [lr, *[later] * (steps - 1)]

    def test_rates(self, model: Model, flow: str) -> list[float]:
        """Learning rates of a flow in the results, as ``rates`` says."""
        if self.rates == "stated":
            return self.stated_rates(model, flow, self.test_steps)
        return self._tried(model, flow, self.test_steps)[0]

    def _tried(self, model: Model, flow: str, steps: int) -> tuple[list[float], list[float]]:
        """A flow on the validation tasks: its learning rates, as ``rates`` says, and its returns.

        Returns:
            Rates of the steps, and mean returns after 0, 1, ... of them.
        """
        network = _policies(model)[flow]
        factors = FACTORS if self.rates == "validation" else (1.0,)
        random = torch.Generator().manual_seed(VALIDATION_SEED)
        tasks = self._fixed_tasks(VALIDATION_SEED, self.validation_tasks).to(self.device)
        weights = copies(network, len(tasks))
        acted = self._act(tasks, policies(network, weights), random)
        rates, returns = list[float](), [acted.returns().mean().item()]
        for stated in self.stated_rates(model, flow, steps):
            x, y = acted.samples(self.discount, self.trace)
            down, chance = slopes(network, weights, x, y, policy_gradient), random.get_state()
            best, failure = -math.inf, None
            for rate in (factor * stated for factor in factors):
                adapted = moved(weights, down, rate)
                random.set_state(chance)  # every rate meets the same starts and noise
                try:
                    after = self._act(tasks, policies(network, adapted), random)
                except DivergedError as diverged:
                    failure = diverged
                    continue
                if (score := after.returns().mean().item()) > best:
                    best, following = score, (rate, adapted, after)
            if best == -math.inf and failure is not None:
                raise failure
            rate, weights, acted = following
            rates.append(rate)
            returns.append(best)
        return rates, returns

    def fixed_tests(self, count: int) -> Tensor:
        """The first of the fixed test tasks [count, ...], on the CPU."""
        return self._fixed_tasks(TEST_SEED, self.test_tasks)[:count]

    def _act(self, tasks: Tensor, policy: Policy, random: torch.Generator) -> Trajectories:
        return rollout(self.environment, tasks, policy, self.trajectories, random)

    def _fixed_tasks(self, seed: int, count: int) -> Tensor:
        return checked_tasks(self.environment, count, torch.Generator().manual_seed(seed))


def _policies(model: Model) -> dict[str, Network]:
    """The networks of the trained flows."""
    return {flow: model.heads_of(flow)[0].network for flow in model.trained_flows}


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

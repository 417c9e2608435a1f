"""Few-shot regression of sine waves (paper 6.2; Finn et al. 2017, https://arxiv.org/abs/1703.03400)."""

import math
from collections.abc import Mapping
from copy import copy

import torch
from torch import Tensor

from omnitraining.adaptation.inner_loop import adapt_and_predict
from omnitraining.batches import Episode, MiniBatch
from omnitraining.errors import InputError
from omnitraining.evaluation import (
    ENSEMBLE,
    Cell,
    CellKey,
    Evaluation,
    Inference,
    ensemble_mean,
    simplex_grid,
    tasks_hash,
)
from omnitraining.limits import check_seed
from omnitraining.metatraining import MAML, Reptile
from omnitraining.model import Model
from omnitraining.pretraining import L2Regression
from omnitraining.tasks.base import Supervised

POINTS = 50
VALIDATION_TASKS = 600
VALIDATION_SEED, TEST_SEED = 1, 2


class Waves:
    """Waves y = A sin(x + phi): A uniform in [0.1, 5], phi in [0, 2 pi], x in [-5, 5].

    Args:
        count: number of waves W.
        random: source of amplitudes, phases and inputs.

    Attributes:
        x: 50 random inputs of each wave [W, 50, 1].
        y: their values [W, 50, 1].

    Example:
        >>> import torch
        >>> waves = Waves(3, torch.Generator().manual_seed(0))
        >>> waves(torch.zeros(3, 1, 1)).abs().max().item() <= 5  # values at x = 0
        True
    """

    def __init__(self, count: int, random: torch.Generator) -> None:
        """Draw the waves."""
        self.amplitude = 0.1 + 4.9 * torch.rand(count, 1, 1, generator=random)
        self.phase = 2 * math.pi * torch.rand(count, 1, 1, generator=random)
        self.x = 10 * torch.rand(count, POINTS, 1, generator=random) - 5
        self.y = self(self.x)

    def __call__(self, x: Tensor) -> Tensor:
        """Values of every wave at inputs [W, P, 1]."""
        return self.amplitude * torch.sin(x + self.phase)


class Sinusoids(Supervised):
    """Regress a wave from K points in a few gradient steps.

    Training visits the training waves in order; an episode takes ``support`` and ``queries`` of a
    wave's 50 points at random, and a mini-batch takes 50 points of different waves. A test wave has
    K new uniform points for support, and 50 evenly spaced points over [-5, 5] for queries.

    Args:
        waves: training waves.
        support: support points of a training episode.
        queries: query points of a training episode.
        test_shots: support points at test.
        test_steps: gradient steps at test; results are reported after each.
        seed: of the training waves.

    Raises:
        InputError: a number is out of its range.

    Example:
        >>> import torch
        >>> from omnitraining import Sinusoids
        >>> problem = Sinusoids(waves=20, test_shots=(5,))
        >>> episode = problem.episode(0, torch.Generator().manual_seed(0))
        >>> episode.support_x.shape, episode.query_y.shape
        (torch.Size([1, 10, 1]), torch.Size([1, 10, 1]))
    """

    kind = "regression"
    pre_outputs = meta_outputs = 1
    one_joint_head = True

    def __init__(
        self,
        waves: int = 30_000,
        support: int = 10,
        queries: int = 10,
        test_shots: tuple[int, ...] = (5, 10, 20),
        test_steps: int = 10,
        seed: int = 0,
    ) -> None:
        """Draw the training waves."""
        if support < 1 or queries < 1 or support + queries > POINTS:
            raise InputError(
                f"problem.support is {support} and problem.queries {queries}: both must be 1 or "
                f"more and their sum at most {POINTS}, the points of a wave"
            )
        if waves < 1 or test_steps < 1:
            raise InputError("problem.waves and problem.test_steps must be 1 or more")
        check_seed("problem.seed", seed)
        self.waves = Waves(waves, torch.Generator().manual_seed(seed))
        self.support, self.queries = support, queries
        self.test_steps = test_steps
        self.test_shots = _checked_shots(test_shots)
        self.device = torch.device("cpu")

    @property
    def shardable(self) -> Mapping[str, int]:
        """The points of a mini-batch and the queries of an episode."""
        return {
            "the number of points of a mini-batch": POINTS,
            "problem.queries": self.queries,
        }

    def example(self) -> Tensor:
        """Two inputs [2, 1]."""
        return self.waves.x[0, :2].cpu()

    def to(self, device: torch.device) -> None:
        """Move the waves to ``device``."""
        self.waves.x, self.waves.y = self.waves.x.to(device), self.waves.y.to(device)
        self.device = device

    def with_test_shots(self, shots: tuple[int, ...]) -> "Sinusoids":
        """The same problem with other numbers of support points at test.

        Raises:
            InputError: there is none, or one is not from 1 to 50.
        """
        changed = copy(self)
        changed.test_shots = _checked_shots(shots)
        return changed

    def check(self, model: Model) -> None:
        """Refuse algorithms other than L2Regression and MAML or Reptile of the task "regression".

        Raises:
            InputError: the model has others.
        """
        _algorithms(model)
        super().check(model)

    def minibatch(self, step: int, random: torch.Generator) -> MiniBatch:
        """50 points of different waves: inputs and values [50, 1]."""
        wave = torch.randint(len(self.waves.x), (POINTS,), generator=random)
        point = torch.randint(POINTS, (POINTS,), generator=random)
        return MiniBatch(self.waves.x[wave, point], self.waves.y[wave, point])

    def episode(self, step: int, random: torch.Generator) -> Episode:
        """One wave: inputs and values of support [1, S, 1] and queries [1, Q, 1]."""
        wave = step % len(self.waves.x)
        order = torch.randperm(POINTS, generator=random)
        support, query = order[: self.support], order[self.support :][: self.queries]
        x, y = self.waves.x[wave], self.waves.y[wave]
        return Episode(x[None, support], y[None, support], x[None, query], y[None, query])

    def validation_scores(self, model: Model, inference: Inference) -> dict[str, float]:
        """Negative mean squared errors over all shots and steps, on validation waves."""
        errors: dict[str, list[Tensor]] = {}
        for shots in self.test_shots:
            episode = self._tasks(VALIDATION_SEED, VALIDATION_TASKS, shots)
            outputs = self._outputs(model, episode)
            members = inference.members(model.trained_flows)
            outputs[ENSEMBLE] = ensemble_mean(outputs, members)
            for head, y in outputs.items():
                errors.setdefault(head, []).append((y - episode.query_y).square()[1:].mean())
        return {head: -torch.stack(each).mean().item() for head, each in errors.items()}

    def evaluate(self, model: Model, inference: Inference, tasks: int = 600) -> Evaluation:
        """Mean squared error of every flow and of the ensemble, per number of shots and steps."""
        evaluation = Evaluation("mean squared error", higher_is_better=False)
        for shots in self.test_shots:
            episode = self._tasks(TEST_SEED, tasks, shots)
            outputs = self._outputs(model, episode)
            weights = self.ensemble_weights(model, inference, shots)
            identity = tasks_hash("sinusoids", episode.support_x, episode.query_y)
            members = inference.members(model.trained_flows)
            for step in range(1, self.test_steps + 1):
                predictions = {flow: part[step] for flow, part in outputs.items()}
                predictions[ENSEMBLE] = (
                    torch.stack([predictions[flow] for flow in members], -1) @ weights[step]
                )
                scores = {
                    head: (y - episode.query_y).square().mean((1, 2)).tolist()
                    for head, y in predictions.items()
                }
                evaluation.cells[CellKey(shots=shots, steps=step)] = Cell(identity, scores)
        return evaluation

    def curves(
        self, model: Model, inference: Inference, wave: int, shots: int
    ) -> dict[str, Tensor]:
        """Predictions [steps + 1, 50] for one test wave, of each flow and the ensemble (Figure 6).

        Args:
            model: the trained model.
            inference: how the ensemble is formed.
            wave: index of the test wave.
            shots: number of support points K.

        Returns:
            Predictions by flow; also "support_x" and "support_y" [K], "query_x" and "query_y" [50].
        """
        episode = self._tasks(TEST_SEED, wave + 1, shots)[wave:]
        outputs = self._outputs(model, episode)
        weights = self.ensemble_weights(model, inference, shots)
        predictions = torch.stack([outputs[f] for f in inference.members(model.trained_flows)], -1)
        outputs[ENSEMBLE] = torch.einsum("stqom,sm->stqo", predictions, weights)
        return {head: part[:, 0, :, 0] for head, part in outputs.items()} | {
            "support_x": episode.support_x[0, :, 0],
            "support_y": episode.support_y[0, :, 0],
            "query_x": episode.query_x[0, :, 0],
            "query_y": episode.query_y[0, :, 0],
        }

    def _tasks(self, seed: int, count: int, shots: int) -> Episode:
        """Fixed waves; with fewer shots, the support points are the first ones of more shots."""
        waves = Waves(max(count, 600), torch.Generator().manual_seed(seed * 1_000_003))
        x = waves.x[:, :shots]
        grid = torch.linspace(-5, 5, POINTS).view(1, -1, 1).expand(len(x), -1, -1)
        x, y, grid, values = (
            part.to(self.device) for part in (x, waves.y[:, :shots], grid, waves(grid))
        )
        return Episode(x, y, grid, values)[:count]

    @torch.no_grad()
    def _outputs(self, model: Model, episode: Episode) -> dict[str, Tensor]:
        """Predictions [steps + 1, T, Q, 1] of every trained flow, each adapted on its own."""
        pre, meta = _algorithms(model)
        outputs = {}
        for flow in model.trained_flows:
            _, network, algorithm = model.heads_of(flow)[0]
            lr = pre.lr if algorithm is pre else meta.lr
            outputs[flow] = adapt_and_predict(
                network, episode, pre.loss, range(self.test_steps + 1), lr, second_order=False
            ).detach()
        return outputs

    def ensemble_weights(self, model: Model, inference: Inference, shots: int) -> Tensor:
        """Weights of the M flows of the ensemble after each number of steps [steps + 1, M].

        Args:
            model: the trained model.
            inference: with ``ensemble_weights="validation"``, weights are the convex combination
                with the lowest error on validation waves; else they are equal.
            shots: number of support points.
        """
        members = inference.members(model.trained_flows)
        if inference.ensemble_weights == "equal" or len(members) == 1:
            weights = torch.full((self.test_steps + 1, len(members)), 1 / len(members))
            return weights.to(self.device)
        episode = self._tasks(VALIDATION_SEED, VALIDATION_TASKS, shots)
        outputs = self._outputs(model, episode)
        predictions = torch.stack([outputs[flow] for flow in members], -1)
        grid = simplex_grid(len(members), parts=20).to(predictions)
        errors = torch.stack(
            [(predictions @ w - episode.query_y).square().mean((1, 2, 3)) for w in grid]
        )
        return grid[errors.argmin(0)]


def _checked_shots(shots: tuple[int, ...]) -> tuple[int, ...]:
    if not shots or min(shots) < 1 or max(shots) > POINTS:
        raise InputError(f"problem.test_shots is {shots}: give numbers from 1 to {POINTS}")
    return shots


def _algorithms(model: Model) -> tuple[L2Regression, MAML | Reptile]:
    pre, meta = model.pretraining, model.metatraining
    if not isinstance(pre, L2Regression) or not isinstance(meta, MAML | Reptile):
        raise InputError(
            "Sinusoids needs pretraining L2Regression and metatraining MAML or Reptile"
        )
    return pre, meta

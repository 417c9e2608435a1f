"""Ensemble weights for few-shot regression, from the run's validation waves."""

from dataclasses import asdict, dataclass
from typing import Any

from omnitraining.evaluation import Inference
from omnitraining.model import Model
from omnitraining.tasks.regression.sinusoids import Sinusoids


@dataclass(frozen=True)
class CurveWeights:
    """Ensemble weights of the flows by number of support points and of gradient steps.

    Attributes:
        shots: numbers of support points that were measured.
        flows: the members of the ensemble.
        weights: of each flow, [len(shots)][steps + 1][len(flows)].
    """

    shots: tuple[int, ...]
    flows: tuple[str, ...]
    weights: list[list[list[float]]]

    @property
    def steps(self) -> int:
        """Gradient steps at test."""
        return len(self.weights[0]) - 1

    def at(self, points: int, steps: int) -> dict[str, float]:
        """Weights by flow, of the measured number of points that is nearest."""
        nearest = min(range(len(self.shots)), key=lambda i: abs(self.shots[i] - points))
        weights = self.weights[nearest][min(steps, self.steps)]
        return dict(zip(self.flows, weights, strict=True))

    def as_json(self) -> dict[str, Any]:
        """The values as they are kept in files."""
        return asdict(self)


def curve_weights(problem: Sinusoids, model: Model, inference: Inference) -> CurveWeights:
    """The ensemble weights that the evaluation of a run uses."""
    flows = inference.members(model.trained_flows)
    weights = [problem.ensemble_weights(model, inference, k).tolist() for k in problem.test_shots]
    return CurveWeights(problem.test_shots, flows, weights)

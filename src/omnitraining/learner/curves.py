"""Ensemble weights for few-shot regression, from the run's validation waves."""

from dataclasses import dataclass

from omnitraining.evaluation import Inference
from omnitraining.model import Model
from omnitraining.tasks.regression.sinusoids import Sinusoids


@dataclass(frozen=True)
class CurveVotes:
    """Weights of the voting flows in regression, by number of support points and of steps.

    Attributes:
        shots: support points that were measured.
        flows: that vote.
        weights: of each flow [len(shots)][steps + 1][len(flows)].
    """

    shots: tuple[int, ...]
    flows: tuple[str, ...]
    weights: list[list[list[float]]]

    @property
    def steps(self) -> int:
        """Gradient steps at test."""
        return len(self.weights[0]) - 1

    def vote(self, points: int, steps: int) -> dict[str, float]:
        """Weights by flow, of the measured number of points that is nearest."""
        nearest = min(range(len(self.shots)), key=lambda i: abs(self.shots[i] - points))
        weights = self.weights[nearest][min(steps, self.steps)]
        return dict(zip(self.flows, weights, strict=True))


def curve_votes(problem: Sinusoids, model: Model, inference: Inference) -> CurveVotes:
    """The votes that the evaluation of a run uses."""
    voters = inference.members(model.trained_flows)
    weights = [problem.ensemble_weights(model, inference, k).tolist() for k in problem.test_shots]
    return CurveVotes(problem.test_shots, voters, weights)

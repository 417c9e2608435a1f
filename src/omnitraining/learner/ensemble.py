"""Which flows of a trained model predict, and with which weights (paper 4.3)."""

from dataclasses import dataclass

from omnitraining.errors import InputError
from omnitraining.evaluation import ENSEMBLE
from omnitraining.learner.calibration import WEIGHTED
from omnitraining.learner.trained import TrainedModel
from omnitraining.model import FlowHead


@dataclass(frozen=True)
class Ensemble:
    """The flows that predict, as a learner's option ``flow`` selects them (`resolve_flow`).

    Attributes:
        trained: the model.
        head: key of its calibration: a flow, "ensemble" or "vote" (see `Calibration`).
        members: the flows; at some numbers of shots the weight of one may be 0.
    """

    trained: TrainedModel
    head: str
    members: tuple[str, ...]

    def __str__(self) -> str:
        names = {WEIGHTED: "the run's ensemble", ENSEMBLE: "the mean of all flows"}
        return names.get(self.head, f"the {self.head}-flow")

    def weights(self, shots: float) -> dict[str, float]:
        """Weights by flow of a classifier at a number of support images per class."""
        if self.head == WEIGHTED:
            return self.trained.calibration.weights(shots)
        return self._equal()

    def curve_weights(self, points: int, steps: int) -> dict[str, float]:
        """Weights by flow of a regressor at numbers of support points and of gradient steps."""
        if self.head == WEIGHTED:
            return self.trained.curve_weights.at(points, steps)
        return self._equal()

    def heads(self, flow: str) -> list[FlowHead]:
        """The heads that are fitted for a flow."""
        return self.trained.model.heads_of(flow, *self.trained.inference.heads)

    @property
    def needs_only_features(self) -> bool:
        """Whether no member adapts its backbone."""
        return all(
            head.algorithm.needs_only_features for flow in self.members for head in self.heads(flow)
        )

    def _equal(self) -> dict[str, float]:
        return dict.fromkeys(self.members, 1 / len(self.members))


def resolve_flow(trained: TrainedModel, flow: str | None) -> Ensemble:
    """The flows that predict.

    Args:
        trained: the model.
        flow: "pre", "joint", "meta"; "ensemble", the mean of all; None, the ensemble that the run
            was evaluated with.

    Raises:
        InputError: the model has no such flow.
    """
    flows = trained.model.trained_flows
    if flow is None:
        return Ensemble(trained, WEIGHTED, trained.inference.members(flows))
    if flow == ENSEMBLE:
        return Ensemble(trained, ENSEMBLE, flows)
    if flow not in flows:
        raise InputError(
            f"flow is {flow!r}: {trained.name} has {', '.join(flows)}, and 'ensemble', the mean of "
            "all; None is the ensemble that the run was evaluated with"
        )
    return Ensemble(trained, flow, (flow,))

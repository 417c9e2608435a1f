"""Tiny models, made without training: what learners do with them is the same."""

from typing import Any

import yaml

from omnitraining.config.run_config import RunConfig, dump, instantiate
from omnitraining.learner import TrainedModel
from omnitraining.learner.calibration import Calibration, head_weights
from tests.reference.tiny import BLOBS, SINUSOIDS, config


def untrained(
    base: dict[str, Any] = BLOBS, measured: bool = False, **changes: Any
) -> tuple[RunConfig, TrainedModel]:
    """An experiment and its model, as it would be loaded from a run.

    Unless it is ``measured``, which takes a while, its calibration changes nothing.
    """
    resolved = config(base, **changes)
    experiment = instantiate(resolved)
    model = experiment.build().eval()
    members = experiment.inference.members(model.trained_flows)
    weights = dict.fromkeys(members, 1 / len(members))
    heads = head_weights(model, weights)
    even = [index / 100 for index in range(101)]
    flat = Calibration(
        (1, 10),
        {flow: [weight] * 2 for flow, weight in weights.items()},
        {head: [1.0] * 2 for head in heads},
        {} if "MAML" in str(changes) else {head: [even] * 2 for head in heads},
    )
    values = yaml.safe_load(dump(resolved))
    return experiment, TrainedModel.of(
        experiment, model, values, "tiny", None if measured else flat
    )


def curves(**changes: Any) -> tuple[RunConfig, TrainedModel]:
    """The same of sine waves, with the ensemble weights of their evaluation."""
    return untrained(SINUSOIDS, **changes)

"""Tiny models, made without training: what learners do with them is the same."""

from typing import Any

import yaml

from omnitraining.config.run_config import RunConfig, dump, instantiate
from omnitraining.learner import Trained
from omnitraining.learner.calibration import Calibration, head_weights
from tests.reference.tiny import BLOBS, SINUSOIDS, config


def untrained(
    base: dict[str, Any] = BLOBS, measured: bool = False, **changes: Any
) -> tuple[RunConfig, Trained]:
    """An experiment and its model, as it would be loaded from a run.

    Unless it is to be measured, which takes a while, its calibration changes nothing.
    """
    resolved = config(base, **changes)
    experiment = instantiate(resolved)
    model = experiment.build().eval()
    voters = experiment.inference.members(model.trained_flows)
    vote = dict.fromkeys(voters, 1 / len(voters))
    heads = head_weights(model, vote)
    even = [index / 100 for index in range(101)]
    flat = Calibration(
        (1, 10),
        {flow: [weight] * 2 for flow, weight in vote.items()},
        {head: [1.0] * 2 for head in heads},
        {} if "MAML" in str(changes) else {head: [even] * 2 for head in heads},
    )
    values = yaml.safe_load(dump(resolved))
    return experiment, Trained.of(experiment, model, values, "tiny", None if measured else flat)


def curves(**changes: Any) -> tuple[RunConfig, Trained]:
    """The same of sine waves, with the votes of their evaluation."""
    return untrained(SINUSOIDS, **changes)

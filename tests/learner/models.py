"""Tiny trained models of images, made without training: what learners do is the same."""

from typing import Any

import yaml

from omnitraining.experiment import Experiment, dump, instantiate
from omnitraining.learner import Trained
from tests.reference.tiny import BLOBS, SINUSOIDS, config


def untrained(base: dict[str, Any] = BLOBS, **changes: Any) -> tuple[Experiment, Trained]:
    """An experiment and its model, as it would be loaded from a run."""
    resolved = config(base, **changes)
    experiment = instantiate(resolved)
    model = experiment.build().eval()
    return experiment, Trained.of(experiment, model, yaml.safe_load(dump(resolved)), "tiny")


def curves(**changes: Any) -> tuple[Experiment, Trained]:
    """The same of sine waves."""
    return untrained(SINUSOIDS, **changes)

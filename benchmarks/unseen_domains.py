"""The recipe of the model photos on domains it was not trained on, in use: fit and predict.

    omni reproduce photos-left-out --data DIR --out RUNS             train without each domain
    python -m benchmarks.unseen_domains DIR RUNS results/photos-unseen.json        about ten minutes

Each task has ten test classes of a domain. A learner is fitted to five of them and predicts images
of all ten: accuracy; the gap between stated probability and accuracy (expected calibration error);
shares of known and unknown images that ``accept_rate`` 0.95 accepts; and the share of tasks in
which `fit` warns that these are not reliable on such images. CIFAR-FS is measured with the shipped
model.
"""

import json
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.calibration import calibration_error
from omnitraining.datasets import read
from omnitraining.datasets.listing import Listing
from omnitraining.errors import CalibrationWarning
from omnitraining.evaluation import half_width
from omnitraining.learner import FewShotClassifier, TrainedModel
from omnitraining.learner.sources import find

LEFT_OUT = ("mini-imagenet", "cub-2010", "cars-cropped", "miniplaces", "flowers")
WAYS, SHOTS, QUERIES, TASKS, ACCEPTED = 5, (1, 2, 5), 10, 100, 0.95


@dataclass(frozen=True)
class Task:
    """Predictions of one task.

    Attributes:
        probabilities: of the queries of known classes [N, WAYS].
        labels: their classes [N].
        accepted: share of these that are accepted.
        unknown_accepted: the same of the queries of unknown classes.
        warned: whether `fit` warned.
    """

    probabilities: NDArray[np.float64]
    labels: NDArray[np.int64]
    accepted: float
    unknown_accepted: float
    warned: bool


def main() -> None:
    """Measure every domain and write the record."""
    torch.set_num_threads(1)
    data, runs, out = (Path(argument) for argument in sys.argv[1:4])
    models = {name: find(runs / name / "photos-0") for name in LEFT_OUT}
    models["cifar-fs"] = find("photos")
    cells: dict[str, dict[str, float | None]] = {}
    for name, model in models.items():
        listing = read(data / name).split("test")
        for shots in SHOTS:
            print(f"measuring {name}, {shots} shots ...", file=sys.stderr, flush=True)
            random = np.random.default_rng(0)
            tasks = [measured(model, listing, shots, random) for _ in range(TASKS)]
            cells[f"{name} {WAYS}-way {shots}-shot"] = summary(tasks)
    record = {
        "title": "The recipe of photos on domains that were left out of training",
        "command": f"python -m benchmarks.unseen_domains DIR RUNS results/{out.name}",
        "tasks": TASKS,
        "accepted": ACCEPTED,
        "cells": cells,
    }
    out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


def measured(
    model: TrainedModel, listing: Listing, shots: int, random: np.random.Generator
) -> Task:
    """A learner on one random task, fitted to the first half of its classes."""
    labels = np.asarray(listing.labels)
    chosen = random.choice(len(listing.classes), 2 * WAYS, replace=False)
    drawn = np.stack(
        [
            random.choice(np.flatnonzero(labels == label), shots + QUERIES, replace=False)
            for label in chosen
        ]
    )
    support, query = drawn[:WAYS, :shots], drawn[:, shots:]
    learner = FewShotClassifier(model, accept_rate=ACCEPTED)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CalibrationWarning)
        learner.fit(_files(listing, support), np.repeat(np.arange(WAYS), shots))
    probabilities, similarity = learner.predict_with_scores(_files(listing, query))
    accepted, known = similarity >= learner.threshold_, WAYS * QUERIES
    return Task(
        probabilities[:known],
        np.repeat(np.arange(WAYS), QUERIES),
        float(accepted[:known].mean()),
        float(accepted[known:].mean()),
        any(issubclass(warning.category, CalibrationWarning) for warning in caught),
    )


def _files(listing: Listing, indices: NDArray[np.int64]) -> list[Path]:
    return [Path(str(listing.items[int(index)])) for index in indices.ravel()]


def summary(tasks: list[Task]) -> dict[str, float | None]:
    """Percentages over all tasks; and of calibration over tasks without a warning, if there are."""
    scores = [100 * (task.probabilities.argmax(1) == task.labels).mean() for task in tasks]
    quiet = [task for task in tasks if not task.warned]
    values = {
        "accuracy": float(np.mean(scores)),
        "interval": half_width(torch.tensor(scores)),
        "calibration error": _error(tasks),
        "known accepted": 100 * float(np.mean([task.accepted for task in tasks])),
        "unknown accepted": 100 * float(np.mean([task.unknown_accepted for task in tasks])),
        "warned": 100 * (1 - len(quiet) / len(tasks)),
        "calibration error, not warned": _error(quiet) if quiet else None,
        "known accepted, not warned": (
            100 * float(np.mean([task.accepted for task in quiet])) if quiet else None
        ),
    }
    return {name: None if value is None else round(value, 2) for name, value in values.items()}


def _error(tasks: list[Task]) -> float:
    probabilities = torch.from_numpy(np.concatenate([task.probabilities for task in tasks]))
    labels = torch.from_numpy(np.concatenate([task.labels for task in tasks]))
    return 100 * calibration_error(probabilities, labels)


if __name__ == "__main__":
    main()

"""One learner, many threads: ``python -m benchmarks.load.threads``.

Every prediction is made twice, in one thread and in one of 16 threads that share the learner, and
compared bit by bit. Counts are written to results/thread-load.json.
"""

import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.load import RESULTS
from omnitraining.demo import examples
from omnitraining.learner import FewShotClassifier, FewShotRegressor
from omnitraining.runs.run import provenance
from tests.learner.models import curves

THREADS, PREDICTIONS = 16, 10_000
FORMS = ("array", "picture", "file")
"""Forms of images; files are decoded, in threads of each call."""

Prediction = tuple[NDArray[Any], NDArray[Any]]


def differing(
    predict: Callable[[int], Prediction], predictions: int, threads: int = THREADS
) -> dict[str, Any]:
    """The number of predictions of many threads that differ from one thread's.

    Args:
        predict: labels and numbers of a prediction, by its index.
        predictions: how many there are.
        threads: that predict at once.
    """
    filters = [*warnings.filters]
    start = time.perf_counter()
    serial = [predict(index) for index in range(predictions)]
    between = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        parallel = [*pool.map(predict, range(predictions))]
    end = time.perf_counter()
    wrong = sum(
        not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
        for one, other in zip(serial, parallel, strict=True)
    )
    return {
        "predictions": predictions,
        "threads": threads,
        "different": wrong,
        "warning filters changed": filters != [*warnings.filters],
        "seconds serial": round(between - start, 1),
        "seconds in threads": round(end - between, 1),
    }


def classifier(folder: Path) -> Callable[[int], Prediction]:
    """Predictions of Armenian letters by the shipped model, given in all forms in turn.

    Args:
        folder: for files of the letters.
    """
    size = 32
    letters = examples.example(channels=1, size=size)
    support = {name: np.stack([*map(np.asarray, each)]) for name, each in letters.support.items()}
    queries = [np.asarray(image) for group in letters.queries for image in group]
    learner = FewShotClassifier("glyphs", "ensemble", accept_rate=0.95)
    learner.fit(np.concatenate([*support.values()]), np.repeat([*support], examples.SHOTS))
    paths = [folder / f"{number}.png" for number in range(len(queries))]
    for path, query in zip(paths, queries, strict=True):
        Image.fromarray(query).resize((80, 60)).save(path)

    def predict(index: int) -> Prediction:
        number = index // len(FORMS) % len(queries)
        form = FORMS[index % len(FORMS)]
        forms: dict[str, Any] = {
            "array": queries[number][None],
            "picture": [Image.fromarray(queries[number])],
            "file": [paths[number]],
        }
        probabilities, similarity = learner.predict_with_scores(forms[form])
        return learner.to_labels(probabilities, similarity).astype(str), probabilities

    return predict


def regressor() -> Callable[[int], Prediction]:
    """Values of a curve at points that differ from call to call, by a tiny model."""
    x = np.linspace(-4, 4, 10)
    learner = FewShotRegressor(curves()[1]).fit(x, np.sin(x))

    def predict(index: int) -> Prediction:
        points = np.linspace(-4, 4, 20) + index / 1000
        return points, learner.predict(points)

    return predict


def main() -> None:
    """Predict, compare, and write the record."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        kinds = {"classification": classifier(Path(folder)), "regression": regressor()}
        record: dict[str, Any] = {
            "title": "Predictions of one learner by many threads at once, against one by one",
            "command": "python -m benchmarks.load.threads",
            "kinds": {},
        }
        for kind, predict in kinds.items():
            record["kinds"][kind] = differing(predict, PREDICTIONS)
            print(f"{kind}: {record['kinds'][kind]}", flush=True)
    record["provenance"] = provenance()
    path = RESULTS / "thread-load.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    kinds = record["kinds"].values()
    sys.exit(any(kind["different"] or kind["warning filters changed"] for kind in kinds))


if __name__ == "__main__":
    main()

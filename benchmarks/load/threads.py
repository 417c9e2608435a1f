"""One learner, many threads: ``python -m benchmarks.load.threads``.

Every prediction is made twice, one after the other and by 16 threads at once on the same learner,
and compared bit by bit. Counts are written to results/thread-load.json.
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
"""How an image is given; files are decoded, each call in threads of its own."""

Answer = tuple[NDArray[Any], NDArray[Any]]


def differing(
    asked: Callable[[int], Answer], predictions: int, threads: int = THREADS
) -> dict[str, Any]:
    """How many answers of many threads are not, bit by bit, those of one.

    Args:
        asked: the labels and numbers of a prediction.
        predictions: how many there are.
        threads: that ask at once.
    """
    filters = [*warnings.filters]
    start = time.perf_counter()
    serial = [asked(index) for index in range(predictions)]
    between = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        parallel = [*pool.map(asked, range(predictions))]
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


def classifier(folder: Path) -> Callable[[int], Answer]:
    """Predictions of Armenian letters by the shipped model, given in all forms in turn.

    Args:
        folder: for files of the letters.
    """
    size = 32
    support, queries = examples.armenian(size)
    learner = FewShotClassifier("glyphs", "ensemble", accept_rate=0.95)
    pictures = np.concatenate([np.stack(each) for each in support.values()])
    learner.fit(pictures, np.repeat([*support], examples.SHOTS))
    paths = [folder / f"{number}.png" for number in range(len(queries))]
    for path, query in zip(paths, queries, strict=True):
        Image.fromarray(query).resize((80, 60)).save(path)

    def asked(index: int) -> Answer:
        number = index // len(FORMS) % len(queries)
        form = FORMS[index % len(FORMS)]
        forms: dict[str, Any] = {
            "array": queries[number][None],
            "picture": [Image.fromarray(queries[number])],
            "file": [paths[number]],
        }
        probabilities, similarity = learner.predict_with_scores(forms[form])
        return learner.to_labels(probabilities, similarity).astype(str), probabilities

    return asked


def regressor() -> Callable[[int], Answer]:
    """Values of a curve at points that differ from call to call, by a tiny model."""
    x = np.linspace(-4, 4, 10)
    learner = FewShotRegressor(curves()[1]).fit(x, np.sin(x))

    def asked(index: int) -> Answer:
        points = np.linspace(-4, 4, 20) + index / 1000
        return points, learner.predict(points)

    return asked


def main() -> None:
    """Ask, compare, and write what was found."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        kinds = {"classification": classifier(Path(folder)), "regression": regressor()}
        record: dict[str, Any] = {
            "title": "Predictions of one learner by many threads at once, against one by one",
            "command": "python -m benchmarks.load.threads",
            "kinds": {},
        }
        for kind, asked in kinds.items():
            record["kinds"][kind] = differing(asked, PREDICTIONS)
            print(f"{kind}: {record['kinds'][kind]}", flush=True)
    record["provenance"] = provenance()
    path = RESULTS / "thread-load.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    found = record["kinds"].values()
    sys.exit(any(kind["different"] or kind["warning filters changed"] for kind in found))


if __name__ == "__main__":
    main()

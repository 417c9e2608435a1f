"""A baseline for models of photographs: color histograms and HOG with logistic regression.

    pip install scikit-image
    python -m benchmarks.photo_features DIR results/photo-features.json       about ten minutes

DIR is as for ``omni reproduce photo-table2 --data DIR``, whose fixed test tasks these are. These
features need no training, so any trained model should exceed them.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.color import rgb2gray, rgb2hsv
from skimage.feature import hog
from sklearn.linear_model import LogisticRegression

from omnitraining.datasets.images import LabeledImages
from omnitraining.evaluation import half_width
from omnitraining.tasks.classification.photos import Photos
from omnitraining.tasks.classification.problem import EpisodeConfig

BENCHMARKS = ("mini-imagenet", "cifar-fs", "cub-2010", "cars-cropped", "miniplaces", "flowers")
SHOTS, TASKS, SIZE = (1, 5), 600, 64
HISTOGRAM = (8, 4, 4)  # bins of hue, saturation and value
COLOR, INVERSE_PENALTY = 0.5, 10.0  # by the validation classes of flowers, cars and places


def main() -> None:
    """Measure every benchmark and write the record."""
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    problem = Photos(
        data=data,
        training=("flowers",),  # it takes no part
        validation="flowers",
        benchmarks=BENCHMARKS,
        protocol=EpisodeConfig(queries=15),
        size=SIZE,
    )
    record: dict[str, dict[str, float]] = {}
    for name, images in problem.benchmarks.items():
        features = described(images)
        for shots in SHOTS:
            print(f"measuring {name}, {shots} shots ...", file=sys.stderr, flush=True)
            tasks = problem.fixed_tasks(images, 5, shots, TASKS)
            pairs = zip(tasks.support.numpy(), tasks.query.numpy(), strict=True)
            scores = np.array([100 * accuracy(features, *pair) for pair in pairs])
            record[f"{name} 5-way {shots}-shot"] = {
                "mean": round(float(scores.mean()), 2),
                "interval": round(half_width(torch.from_numpy(scores)), 2),
            }
    out.write_text(json.dumps({"accuracy": record}, indent=1) + "\n")
    print(json.dumps(record, indent=1))


def described(images: LabeledImages) -> NDArray[np.float64]:
    """Features [N, D] of all images: HOG of the gray image, and a joint histogram of its colors."""
    return np.stack([_features(image.permute(1, 2, 0).numpy()) for image in images.images])


def _features(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    shape = hog(rgb2gray(image), orientations=9, pixels_per_cell=(8, 8), cells_per_block=(2, 2))
    hsv = rgb2hsv(image).reshape(-1, 3)
    colors, _ = np.histogramdd(hsv, HISTOGRAM, [(0, 1)] * 3)
    roots = np.sqrt(colors.ravel() / len(hsv))  # Euclidean distances are then Hellinger's
    return np.concatenate([shape / np.linalg.norm(shape).clip(1e-9), COLOR * roots])


def accuracy(
    features: NDArray[np.float64], support: NDArray[np.int64], query: NDArray[np.int64]
) -> float:
    """Accuracy on one task of image indices [ways, shots] and [ways, queries]."""
    learner = LogisticRegression(C=INVERSE_PENALTY, max_iter=200)
    ways = np.arange(len(support))
    learner.fit(features[support.ravel()], np.repeat(ways, support.shape[1]))
    return float(learner.score(features[query.ravel()], np.repeat(ways, query.shape[1])))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()

"""Memory and speed of a fit and a prediction of many photographs from disk.

With the shipped model, and with a frozen backbone that takes 224 pixels.

python -m benchmarks.many_images            10,000 images of 224 px; the goal is under 2 GB
python -m benchmarks.many_images 500        fewer
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from torch import nn

from omnitraining import load
from omnitraining.learner import FewShotClassifier

GOAL = 2.0
"""Gigabytes."""

CLASSES, SIDE = 10, 224


def write_images(folder: Path, count: int) -> None:
    """Write JPEG files of colored noise, a folder per class.

    Args:
        folder: that holds the folders.
        count: of images, in all.
    """
    random = np.random.default_rng(0)
    for number in range(count):
        place = folder / f"class {number % CLASSES}"
        place.mkdir(exist_ok=True)
        coarse = random.integers(0, 256, (14, 14, 3), dtype=np.uint8)
        coarse[..., number % 3] //= 1 + number % CLASSES
        Image.fromarray(coarse).resize((SIDE, SIDE)).save(place / f"{number:06}.jpg", quality=90)


def peak() -> float:
    """Most memory of this process so far, in gigabytes (Linux)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def frozen() -> FewShotClassifier:
    """A small frozen backbone that takes the images as they are, so that batches are large."""
    module = nn.Sequential(nn.Conv2d(3, 16, 7, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    learner = load(module, image_size=SIDE, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert isinstance(learner, FewShotClassifier)
    return learner


def main(count: int) -> int:
    """Print times and peak memory; returns 1 if they are above the goal.

    Args:
        count: of images.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_images(folder, count)
        print(f"start: peak {peak():.2f} GB")
        for name, learner in (("photos", FewShotClassifier("photos")), ("frozen", frozen())):
            for title, work in (("fit", learner.fit), ("predict", learner.predict)):
                start = time.perf_counter()
                work(folder)
                seconds = time.perf_counter() - start
                print(f"{name}, {title} of {count:,}: {seconds:.1f} s, peak {peak():.2f} GB")
    return int(peak() > GOAL)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000))

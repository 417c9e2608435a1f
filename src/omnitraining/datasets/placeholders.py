"""Tiny made-up data sets in the layout of real ones, for trial runs without the photographs."""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from omnitraining.io.files import atomic_path

CLASSES, IMAGES, SIDE = 5, 8, 40  # classes of a split, images of a class, pixels
WRITTEN = 1_000_000_000  # modification time of every file, by which a finished one is recognized


def write(folder: Path, names: Iterable[str]) -> Path:
    """Write data sets of made-up images, as FOLDER/NAME/SPLIT/CLASS/0.jpg.

    The splits are train, val and test. The images of a class share a coarse pattern of colors and
    differ in noise. They are the same each time they are written.

    Args:
        folder: folder to write to, made if it does not exist.
        names: names of the data sets.

    Returns:
        The folder.
    """
    for name in names:
        for split in ("train", "val", "test"):
            for number in range(CLASSES):
                _write_class(folder / name / split / f"{name}-{split}-{number}")
    return folder


def _write_class(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(list(folder.name.encode()))
    pattern = random.integers(40, 216, (4, 4, 3))
    for number in range(IMAGES):
        noise = random.integers(-40, 40, (8, 8, 3))
        pixels = pattern.repeat(2, 0).repeat(2, 1) + noise
        image = Image.fromarray(pixels.astype(np.uint8)).resize((SIDE, SIDE))
        path = folder / f"{number}.jpg"
        if path.is_file() and path.stat().st_mtime == WRITTEN:
            continue  # another program may be reading it
        with atomic_path(path) as part:
            image.save(part, "JPEG", quality=95)
            os.utime(part, (WRITTEN, WRITTEN))

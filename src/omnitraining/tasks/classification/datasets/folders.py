"""Data sets in which every class is a folder: with a split, with a rule for it, or without."""

import random
import re
from pathlib import Path

from omnitraining.tasks.classification.datasets.dataset import ALL, WORDS, Found, of_modulo
from omnitraining.tasks.classification.datasets.files import (
    by_split,
    class_images,
    class_paths,
    folder_names,
    image_names,
)

PLACES_IMAGES = 200  # per class, the first by name (Tseng et al., 2020)
PLANTAE_CLASSES, PLANTAE_IMAGES = 200, 600  # the largest classes, and most images of one


def split_folders(path: Path) -> Found | None:
    """``train/``, ``val/`` and ``test/``, or ``base/`` and ``novel/``, with a folder per class."""
    folders = by_split(path / name for name in folder_names(path))
    if not folders or not all(folder_names(folder) for folder in folders.values()):
        return None
    splits = {split: class_paths(folder) for split, folder in folders.items()}
    return "a folder per split, and in it one per class", splits


def class_folders(path: Path) -> Found | None:
    """One folder per class, without a split."""
    if not _holds_classes(path):
        return None
    return "a folder per class, without a split", {ALL: class_paths(path)}


def cub(path: Path) -> Found | None:
    """CUB-200-2011 as published: whole images, split by the modulo rule of CloserLook."""
    for folder in (path / "images", path / "CUB_200_2011" / "images"):
        names = folder_names(folder)
        if names and all(re.match(r"\d{3}\.\w", name) for name in names):
            found = class_paths(folder)
            classes = ((number, name, found[name]) for number, name in enumerate(names))
            return "CUB_200_2011 as published", of_modulo(classes)
    return None


def places(path: Path) -> Found | None:
    """Places365-standard as published: its training images, split by the modulo rule.

    Its own ``val/`` holds other images of the same classes, unlike that of a few-shot split.
    """
    folder, names = path / "train", folder_names(path / "train")
    others = {name for word in WORDS if word != "train" for name in folder_names(path / word)}
    of_few_shot_split = others and others.isdisjoint(names)
    if not path.name.lower().startswith("places") or not names or of_few_shot_split:
        return None

    def first(name: str) -> list[Path]:
        images = class_images(folder, [name])[name]
        return [folder / name / image for image in images[:PLACES_IMAGES]]

    classes = ((number, name, first(name)) for number, name in enumerate(names))
    return "Places365-standard as published", of_modulo(classes)


def plantae(path: Path) -> Found | None:
    """Plantae of iNaturalist: the largest classes, by size, split by the modulo rule.

    Tseng et al. (2020) draw the images of a class without a seed. Here the seed is its name.
    """
    if path.name.lower() != "plantae" or not _holds_classes(path):
        return None
    found = class_images(path, folder_names(path))
    largest = sorted(found, key=lambda name: (len(found[name]), name))[-PLANTAE_CLASSES:]

    def drawn(name: str) -> list[Path]:
        random.Random(name).shuffle(found[name])
        return [path / name / image for image in sorted(found[name][:PLANTAE_IMAGES])]

    classes = ((number, name, drawn(name)) for number, name in enumerate(largest))
    return "Plantae of iNaturalist, a folder per class", of_modulo(classes)


def _holds_classes(path: Path) -> bool:
    names = folder_names(path)
    split = all(name.lower() in WORDS for name in names)  # images of no class
    return len(names) > 1 and not split and any(image_names(path / name) for name in names)

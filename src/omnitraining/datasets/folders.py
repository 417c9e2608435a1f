"""Data sets in which every class is a folder: with a split, with a rule for it, or without."""

import random
import re
from collections.abc import Iterable
from pathlib import Path

from omnitraining.datasets.dataset import SPLIT_ALIASES, UNSPLIT, LayoutMatch, closerlook_split
from omnitraining.datasets.files import (
    beside,
    by_split,
    class_images,
    class_paths,
    contents,
    folder_names,
    image_names,
    in_words,
    merged,
)
from omnitraining.errors import InputError
from omnitraining.io.terminal import first_few

PLACES_IMAGES = 200  # per class, the first by name (Tseng et al., 2020)
PLANTAE_CLASSES, PLANTAE_IMAGES = 200, 600  # the largest classes, and most images of one


def split_folders(path: Path) -> LayoutMatch | None:
    """``train/``, ``val/`` and ``test/``, or ``base/`` and ``novel/``, with a folder per class.

    Returns:
        None if no folder is a split.

    Raises:
        InputError: folders beside them hold images, so that all may be classes; or one is empty.
    """
    names = folder_names(path)
    candidates = [name for name in names if name.lower() in SPLIT_ALIASES]
    splits = [name for name in candidates if _is_split(path / name)]
    if not splits:
        return None
    others = [name for name in names if name not in splits]
    classes = [name for name in others if image_names(path / name)]
    if classes:
        raise InputError(
            f"{path} can be read in two ways: {first_few(splits)} as splits, for they hold folders "
            f"of classes, or as classes, for {first_few(classes)} beside them hold images: rename "
            "what is a class, or move away what is in no split"
        )
    for name in others:
        if name in candidates:
            raise InputError(f"{path / name} holds no class: a split needs a folder for each")
    folders = by_split(path / name for name in splits)
    read = {split: class_paths(folder) for split, folder in folders.items()}
    elsewhere = {"elsewhere": [path / name for name in others]}
    left_out = merged([*(rest for _, rest in read.values()), beside(path), elsewhere])
    return LayoutMatch(
        "a folder per split, and in it one per class",
        {split: images for split, (images, _) in read.items()},
        in_words(path, left_out),
    )


def class_folders(path: Path) -> LayoutMatch | None:
    """One folder per class, without a split; None if the folder holds no classes."""
    if not _holds_classes(path):
        return None
    images, left_out = class_paths(path)
    notes = (*in_words(path, left_out), *named_as_splits(path, images))
    return LayoutMatch("a folder per class, without a split", {UNSPLIT: images}, notes)


def named_as_splits(path: Path, classes: Iterable[str]) -> tuple[str, ...]:
    """The note on classes that have the name of a split; none if there is no such class."""
    ambiguous = [name for name in classes if name.lower() in SPLIT_ALIASES]
    note = "is a class, as the folders beside it are: it is also the name of a split"
    return (f"{path / ambiguous[0]} {note}",) if ambiguous else ()


def cub(path: Path) -> LayoutMatch | None:
    """CUB-200-2011 as published: whole images, split by the rule of CloserLook."""
    for folder in (path / "images", path / "CUB_200_2011" / "images"):
        names = folder_names(folder)
        if names and all(re.match(r"\d{3}\.\w", name) for name in names):
            images, left_out = class_paths(folder)
            classes = ((number, name, images[name]) for number, name in enumerate(names))
            notes = in_words(folder, left_out)
            return LayoutMatch("CUB_200_2011 as published", closerlook_split(classes), notes)
    return None


def places(path: Path) -> LayoutMatch | None:
    """Places365-standard as published: its training images, split by the rule of CloserLook.

    Its own ``val/`` holds other images of the same classes, so it is no few-shot split.
    """
    folder, names = path / "train", folder_names(path / "train")
    others = {
        name for word in SPLIT_ALIASES if word != "train" for name in folder_names(path / word)
    }
    of_few_shot_split = others and others.isdisjoint(names)
    if not path.name.lower().startswith("places") or not names or of_few_shot_split:
        return None

    def first(name: str) -> list[Path]:
        images = class_images(folder, [name])[0][name]
        return [folder / name / image for image in images[:PLACES_IMAGES]]

    classes = ((number, name, first(name)) for number, name in enumerate(names))
    return LayoutMatch("Places365-standard as published", closerlook_split(classes))


def plantae(path: Path) -> LayoutMatch | None:
    """Plantae of iNaturalist: the largest classes, by size, split by the rule of CloserLook.

    Tseng et al. (2020) draw the images of a class without a seed. Here its name is the seed.
    """
    if path.name.lower() != "plantae" or not _holds_classes(path):
        return None
    images, left_out = class_images(path, folder_names(path))
    largest = sorted(images, key=lambda name: (len(images[name]), name))[-PLANTAE_CLASSES:]

    def drawn(name: str) -> list[Path]:
        random.Random(name).shuffle(images[name])
        return [path / name / image for image in sorted(images[name][:PLANTAE_IMAGES])]

    classes = ((number, name, drawn(name)) for number, name in enumerate(largest))
    layout, notes = "Plantae of iNaturalist, a folder per class", in_words(path, left_out)
    return LayoutMatch(layout, closerlook_split(classes), notes)


def _holds_classes(path: Path) -> bool:
    names = folder_names(path)
    split = all(name.lower() in SPLIT_ALIASES for name in names)  # images of no class
    return len(names) > 1 and not split and any(image_names(path / name) for name in names)


def _is_split(path: Path) -> bool:
    """Whether a folder with the name of a split holds class folders."""
    names = contents(path)
    nested = any(image_names(path / name) for name in names.folders)
    return nested or bool(names.folders and not names.images)

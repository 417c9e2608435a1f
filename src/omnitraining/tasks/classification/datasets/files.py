"""Folders of images: which classes and images are there, without opening any."""

import os
from collections.abc import Iterable
from pathlib import Path

from omnitraining.errors import InputError
from omnitraining.tasks.classification.datasets.dataset import SPLITS, WORDS

_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm"),
)


def folder_names(folder: Path) -> list[str]:
    """Names of the subfolders, sorted; none if there is no such folder."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        # Archives made on a Mac unpack to a folder __MACOSX too.
        return sorted(e.name for e in entries if not e.name.startswith((".", "__")) and e.is_dir())


def by_split(paths: Iterable[Path], suffix: str = "") -> dict[str, Path]:
    """The files or folders that are named by a word for a split and the suffix, by that split.

    Raises:
        InputError: there are two for a split.
    """
    found: dict[str, Path] = {}
    for path in paths:
        split = WORDS.get(path.name.lower().removesuffix(suffix))
        if split in found:
            raise InputError(f"{found[split]} and {path.name} are both for {split}: keep one")
        if split:
            found[split] = path
    return {split: found[split] for split in SPLITS if split in found}


def image_names(folder: Path) -> list[str]:
    """Names of the image files in a folder, sorted."""
    with os.scandir(folder) as entries:
        return sorted(
            entry.name
            for entry in entries
            if entry.name.lower().endswith(_SUFFIXES)
            and not entry.name.startswith(".")
            and entry.is_file()
        )


def class_images(folder: Path, classes: Iterable[str]) -> dict[str, list[str]]:
    """Names of the images in the folders of classes, sorted.

    Raises:
        InputError: a class has no image.
    """
    found = {name: image_names(folder / name) for name in classes}
    for name, images in found.items():
        if not images:
            raise InputError(
                f"class {name!r} is empty: {folder / name} holds no image (.jpg, .png, ...)"
            )
    return found


def class_paths(folder: Path) -> dict[str, list[Path]]:
    """Images of all class folders, sorted.

    Raises:
        InputError: a class has no image.
    """
    found = class_images(folder, folder_names(folder))
    return {name: [folder / name / image for image in images] for name, images in found.items()}


def inside(folder: Path, paths: list[Path], source: Path) -> list[Path]:
    """The paths, none of which leads out of the folder: a list may be a stranger's.

    Links are followed: whoever sets them in a folder says what belongs to it.

    Args:
        folder: of the data set.
        paths: of its images.
        source: the file that names them.

    Raises:
        InputError: one of them leads elsewhere.
    """
    top = os.path.abspath(folder) + os.sep
    for path in paths:
        if not os.path.abspath(path).startswith(top):
            raise InputError(
                f"{source} names {path}, which is not in {folder}: a list may only name images "
                "beside it or in folders beside it; move or link them there"
            )
    return paths


def first_missing(paths: Iterable[Path]) -> int | None:
    """Position of the first file that is not there; each folder is looked into only once."""
    present: dict[Path, set[str]] = {}
    for position, path in enumerate(paths):
        folder = path.parent
        if folder not in present:
            present[folder] = set(os.listdir(folder)) if folder.is_dir() else set()
        if path.name not in present[folder]:
            return position
    return None

"""Uploaded class folders: which file belongs to which class, by the names alone."""

from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeAlias

from omnitraining.datasets.dataset import SPLIT_ALIASES
from omnitraining.datasets.files import in_words, is_image_name, is_system_file
from omnitraining.demo.pictures import File
from omnitraining.errors import InputError
from omnitraining.io.terminal import first_few

FILES = 2_000  # of one upload

Parts: TypeAlias = tuple[str, ...]
"""The folders and the name of a file."""


class ClassFiles(NamedTuple):
    """The files of class folders.

    Attributes:
        classes: files by class, both sorted by name.
        left_out: what was left out, a sentence each.
    """

    classes: dict[str, list[File]]
    left_out: list[str]


def class_files(files: Sequence[File], source: str) -> ClassFiles:
    """Sort files into the classes that their folders name, as "photos/cat/1.jpg".

    The folder around the class folders may be there or not. What is neither an image in a class
    folder nor litter of an operating system is counted and named.

    Args:
        files: of an uploaded folder or archive.
        source: its name, for messages.

    Raises:
        InputError: there are too many files, or no class folders, or they are splits.
    """
    if len(files) > FILES:
        raise InputError(f"{source} has {len(files):,} files: {FILES:,} at most.")
    images: list[tuple[Parts, File]] = []
    left_out: dict[str, list[Parts]] = {}
    outside: list[str] = []
    for file in sorted(files, key=lambda file: file.name):
        parts = PurePosixPath(file.name).parts
        if not parts or any(map(is_system_file, parts)):
            continue
        is_image = is_image_name(parts[-1])
        if parts[0] == "/" or ".." in parts:
            outside.append(file.name)
        elif any(part.startswith(".") for part in parts):
            left_out.setdefault("hidden", []).extend([parts] * is_image)
        elif is_image:
            images.append((parts, file))
        else:
            left_out.setdefault("unknown", []).append(parts)
    above = _folders_above([parts for parts, _ in images])
    classes: dict[str, list[File]] = {}
    for parts, file in images:
        folders = parts[above:-1]
        if len(folders) == 1:
            classes.setdefault(" ".join(folders[0].split()), []).append(file)
        elif not folders:
            left_out.setdefault("loose", []).append(parts)
        elif parts[:-1] not in left_out.setdefault("nested", []):
            left_out["nested"].append(parts[:-1])
    _check(source, classes, {parts[above]: 0 for parts, _ in images if len(parts) > above + 1})
    paths = {
        kind: [Path(source, *parts[min(above, len(parts) - 1) :]) for parts in many]
        for kind, many in left_out.items()
    }
    words = [f"L{sentence[1:]}." for sentence in in_words(Path(source), paths)]
    if outside:
        words.append(f"Names that lead out of {source} were left out ({first_few(outside, 3)}).")
    return ClassFiles(dict(sorted(classes.items())), words)


def _check(source: str, classes: Collection[str], folders: Collection[str]) -> None:
    """Refuse a source that holds splits or no classes."""
    wanted = "a folder of images for each class"
    if len(folders) > 1 and all(name.lower() in SPLIT_ALIASES for name in folders):
        raise InputError(
            f"{source} holds splits ({', '.join(folders)}): choose one of them, if it holds "
            f"{wanted}."
        )
    if not classes:
        raise InputError(f"{source} holds no class folders: it must hold {wanted}.")


def _folders_above(names: Sequence[Parts]) -> int:
    """How many folders that hold all images are above the class folders."""
    above = 0
    while names and all(len(parts) - above > 2 for parts in names) and _shared(names, above):
        above += 1
    # Some images lie beside the class folders: "photos/cover.jpg" and "photos/cat/1.jpg".
    beside = any(len(parts) == 3 for parts in names) and any(len(parts) == 2 for parts in names)
    return 1 if not above and beside and _shared(names, 0) else above


def _shared(names: Sequence[Parts], depth: int) -> bool:
    return len({parts[depth] for parts in names}) == 1

"""Folders of images: which classes and images are there, without opening any."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import NamedTuple, TypeAlias

from omnitraining.datasets.dataset import SPLIT_ALIASES, SPLITS
from omnitraining.errors import InputError
from omnitraining.io.terminal import first_few

_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm"),
)

_LITTER = ("__macosx", "__pycache__", "@eadir", "thumbs.db", "desktop.ini")
"""What operating systems and archives leave behind. It is no data, and nothing is said of it."""

LeftOut: TypeAlias = Mapping[str, Sequence[Path]]
"""What was met and is not used, by the kind of it, one of those below."""

_KINDS = {
    "unknown": ("file that is no image by its name", "files that are no images by their names"),
    "hidden": ("hidden image or folder of images", "hidden images or folders of images"),
    "nested": ("folder inside a class", "folders inside classes"),
    "loose": ("image of no class", "images of no class"),
    "broken": ("link that leads nowhere", "links that lead nowhere"),
    "elsewhere": ("folder that is no split", "folders that are no splits"),
}


class Contents(NamedTuple):
    """Names in a folder, sorted, by what they are. Hidden files that are no images are none."""

    images: list[str]
    folders: list[str]
    hidden: list[str]
    unknown: list[str]
    broken: list[str]


def contents(folder: Path) -> Contents:
    """What a folder holds; nothing if there is no such folder.

    Raises:
        InputError: it cannot be read.
    """
    found = Contents([], [], [], [], [])
    if not folder.is_dir():
        return found
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                kind = _kind(entry)
                if kind:
                    getattr(found, kind).append(entry.name)
    except OSError as error:
        raise InputError(f"cannot read {folder}: {error.strerror}") from error
    return Contents(*map(sorted, found))


def _kind(entry: os.DirEntry[str]) -> str:
    """Which of the `Contents` of a folder an entry is; none of them if it is empty."""
    name, is_image = entry.name, entry.name.lower().endswith(_SUFFIXES)
    is_hidden, is_folder = name.startswith("."), entry.is_dir()
    if name.lower() in _LITTER or name.startswith("._"):
        return ""
    if is_hidden:
        return "hidden" if is_folder or is_image else ""
    if is_folder:
        return "folders"
    if not entry.is_file():
        return "broken"
    return "images" if is_image else "unknown"


def folder_names(folder: Path) -> list[str]:
    """Names of the subfolders, sorted; none if there is no such folder."""
    return contents(folder).folders


def image_names(folder: Path) -> list[str]:
    """Names of the image files in a folder, sorted."""
    return contents(folder).images


def by_split(paths: Iterable[Path], suffix: str = "") -> dict[str, Path]:
    """The files or folders that are named by a word for a split and the suffix, by that split.

    Raises:
        InputError: there are two for a split.
    """
    found: dict[str, Path] = {}
    for path in paths:
        split = SPLIT_ALIASES.get(path.name.lower().removesuffix(suffix))
        if split in found:
            raise InputError(f"{found[split]} and {path.name} are both for {split}: keep one")
        if split:
            found[split] = path
    return {split: found[split] for split in SPLITS if split in found}


def class_images(folder: Path, classes: Iterable[str]) -> tuple[dict[str, list[str]], LeftOut]:
    """Names of the images in the folders of classes, sorted; and what else is in these.

    Raises:
        InputError: a class has no image.
    """
    found = {name: contents(folder / name) for name in classes}
    empty = [name for name, held in found.items() if not held.images]
    if empty:
        raise InputError(_empty(folder, empty, found[empty[0]]))
    left_out = merged(in_class(folder / name, held) for name, held in found.items())
    return {name: held.images for name, held in found.items()}, left_out


def _empty(folder: Path, empty: Sequence[str], held: Contents) -> str:
    """What is said of classes without images."""
    others = held.folders or held.unknown
    but = f", but {'folders' if held.folders else 'files'} ({first_few(others, 3)})"
    rest = f"; {len(empty)} classes are empty: {first_few(empty)}" if len(empty) > 1 else ""
    return (
        f"class {empty[0]!r} is empty: {folder / empty[0]} holds no image (.jpg, .png, ...)"
        f"{but if others else ''}{rest}"
    )


def class_paths(folder: Path) -> tuple[dict[str, list[Path]], LeftOut]:
    """Images of all class folders, sorted; and what else is there.

    Raises:
        InputError: a class has no image.
    """
    found, left_out = class_images(folder, folder_names(folder))
    paths = {name: [folder / name / image for image in images] for name, images in found.items()}
    return paths, merged([left_out, beside(folder)])


def in_class(folder: Path, held: Contents) -> LeftOut:
    """What the folder of a class holds besides images."""
    return {
        "unknown": [folder / name for name in held.unknown],
        "hidden": _hidden_images(folder, held),
        "nested": [folder / name for name in held.folders],
        "broken": [folder / name for name in held.broken],
    }


def beside(folder: Path) -> LeftOut:
    """What else is beside the folders of classes or splits that might have been meant for one."""
    held = contents(folder)
    return {
        "loose": [folder / name for name in held.images],
        "hidden": _hidden_images(folder, held),
        "broken": [folder / name for name in held.broken],
    }


def _hidden_images(folder: Path, held: Contents) -> list[Path]:
    paths = [folder / name for name in held.hidden]
    return [path for path in paths if not path.is_dir() or contents(path).images]


def merged(parts: Iterable[LeftOut]) -> LeftOut:
    """All that was left out in several places."""
    whole: dict[str, list[Path]] = {}
    for part in parts:
        for kind, paths in part.items():
            whole.setdefault(kind, []).extend(paths)
    return whole


def in_words(folder: Path, left_out: LeftOut) -> tuple[str, ...]:
    """One line on all that was left out of a folder; none if that is nothing."""
    parts = []
    for kind, (one, many) in _KINDS.items():
        names = [str(path.relative_to(folder)) for path in left_out.get(kind, ())]
        if names:
            words = one if len(names) == 1 else many
            parts.append(f"{len(names)} {words} ({first_few(names, 3)})")
    return (f"left out of {folder}: {', '.join(parts)}",) if parts else ()


def check_inside(folder: Path, paths: list[Path], source: Path) -> list[Path]:
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


def placed(
    folder: Path, source: Path, rows: Sequence[tuple[str, str]], roots: Sequence[Path]
) -> list[Path] | None:
    """Where the images of a list are: names may be full paths, or of another machine or system.

    The first image tells: it is looked for in the roots, there in a folder of its class, and then
    with as few of its leading folders left off as it takes. All others lie alike, and two names
    stay two files.

    Args:
        folder: of the data set, out of which no name may lead.
        source: the file that names the images.
        rows: name and class of each image.
        roots: folders in which the images may lie.

    Returns:
        The path of each image; None if the first is nowhere.

    Raises:
        InputError: a name leads out of the folder.
    """
    names = [name for name, _ in rows]
    if Path(names[0]).is_absolute() and Path(names[0]).is_file():
        return check_inside(folder, [Path(name) for name in names], source)
    kinds = (Path, PureWindowsPath) if any("\\" in name for name in names) else (Path,)
    for kind in kinds:
        parts = [kind(name).parts for name in names]
        if kind(names[0]).anchor:  # of the whole list; a single full path is left to `inside`
            parts = [kind(name).relative_to(kind(name).anchor).parts for name in names]
        for left_off in range(len(parts[0])):
            flat = [some[left_off:] for some in parts]
            if not all(flat) or len(set(flat)) < len(set(parts)):
                break
            forms = [flat]
            if not left_off:
                by_class = [(label, *some) for some, (_, label) in zip(flat, rows, strict=True)]
                # Of one name in two classes each has its own file, if classes have folders.
                alike = len(set(flat)) < len(set(by_class))
                forms = [by_class, flat] if alike else [flat, by_class]
            for root in roots:
                for form in forms:
                    if root.joinpath(*form[0]).is_file():
                        return check_inside(folder, [root.joinpath(*some) for some in form], source)
    return None


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


def check_text(file: Path, text: str) -> None:
    """JSON and pickles can hold halves of characters, which nothing can print.

    Raises:
        InputError: the text has one.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{file}: {text!a} is no text: it holds half a character") from error

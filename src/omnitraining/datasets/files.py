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

_SYSTEM_FILES = ("__macosx", "__pycache__", "@eadir", "thumbs.db", "desktop.ini")
"""Files of operating systems and archives, which are ignored without a note."""

LeftOut: TypeAlias = Mapping[str, Sequence[Path]]
"""Paths that are not used, by the kinds below."""

_KINDS = {
    "unknown": ("file that is no image by its name", "files that are no images by their names"),
    "hidden": ("hidden image or folder of images", "hidden images or folders of images"),
    "nested": ("folder inside a class", "folders inside classes"),
    "loose": ("image of no class", "images of no class"),
    "broken": ("link that leads nowhere", "links that lead nowhere"),
    "elsewhere": ("folder that is no split", "folders that are no splits"),
}


class Contents(NamedTuple):
    """Names in a folder, sorted, by kind.

    Attributes:
        images: image files, by their suffix.
        folders: folders that are not hidden.
        hidden: hidden folders and hidden image files; other hidden files are ignored.
        unknown: other files.
        broken: links that lead nowhere.
    """

    images: list[str]
    folders: list[str]
    hidden: list[str]
    unknown: list[str]
    broken: list[str]


def contents(folder: Path) -> Contents:
    """The contents of a folder; empty if there is no such folder.

    Raises:
        InputError: the folder cannot be read.
    """
    names = Contents([], [], [], [], [])
    if not folder.is_dir():
        return names
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                kind = _kind(entry)
                if kind:
                    getattr(names, kind).append(entry.name)
    except OSError as error:
        raise InputError(f"cannot read {folder}: {error.strerror}") from error
    return Contents(*map(sorted, names))


def is_image_name(name: str) -> bool:
    """Whether a file is an image by its name."""
    return name.lower().endswith(_SUFFIXES)


def is_system_file(name: str) -> bool:
    """Whether a file or folder was made by an operating system or archiver and can be ignored."""
    return name.lower() in _SYSTEM_FILES or name.startswith("._")


def _kind(entry: os.DirEntry[str]) -> str:
    """The field of `Contents` that an entry belongs to; empty if it is ignored."""
    name, is_image = entry.name, is_image_name(entry.name)
    is_hidden, is_folder = name.startswith("."), entry.is_dir()
    if is_system_file(name):
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
    """Files or folders by the split that their name, without the suffix, stands for.

    Args:
        paths: files or folders; others than splits are left out.
        suffix: end of the names, as ".csv".

    Raises:
        InputError: two are for the same split.
    """
    splits: dict[str, Path] = {}
    for path in paths:
        split = SPLIT_ALIASES.get(path.name.lower().removesuffix(suffix))
        if split in splits:
            raise InputError(f"{splits[split]} and {path.name} are both for {split}: keep one")
        if split:
            splits[split] = path
    return {split: splits[split] for split in SPLITS if split in splits}


def class_images(folder: Path, classes: Iterable[str]) -> tuple[dict[str, list[str]], LeftOut]:
    """Image names by class, sorted, and what else the class folders hold.

    Args:
        folder: the folder of the class folders.
        classes: names of the class folders.

    Raises:
        InputError: a class has no image.
    """
    held = {name: contents(folder / name) for name in classes}
    empty = [name for name, names in held.items() if not names.images]
    if empty:
        raise InputError(_empty(folder, empty, held[empty[0]]))
    left_out = merged(in_class(folder / name, names) for name, names in held.items())
    return {name: names.images for name, names in held.items()}, left_out


def _empty(folder: Path, empty: Sequence[str], names: Contents) -> str:
    """The error message of classes without images."""
    others = names.folders or names.unknown
    but = f", but {'folders' if names.folders else 'files'} ({first_few(others, 3)})"
    rest = f"; {len(empty)} classes are empty: {first_few(empty)}" if len(empty) > 1 else ""
    return (
        f"class {empty[0]!r} is empty: {folder / empty[0]} holds no image (.jpg, .png, ...)"
        f"{but if others else ''}{rest}"
    )


def class_paths(folder: Path) -> tuple[dict[str, list[Path]], LeftOut]:
    """Image paths by class folder, sorted, and what else the folder holds.

    Raises:
        InputError: a class has no image.
    """
    names, left_out = class_images(folder, folder_names(folder))
    paths = {name: [folder / name / image for image in images] for name, images in names.items()}
    return paths, merged([left_out, beside(folder)])


def in_class(folder: Path, names: Contents) -> LeftOut:
    """The contents of a class folder besides images."""
    return {
        "unknown": [folder / name for name in names.unknown],
        "hidden": _hidden_images(folder, names),
        "nested": [folder / name for name in names.folders],
        "broken": [folder / name for name in names.broken],
    }


def beside(folder: Path) -> LeftOut:
    """Images and links beside class folders or splits, which belong to none of them."""
    names = contents(folder)
    return {
        "loose": [folder / name for name in names.images],
        "hidden": _hidden_images(folder, names),
        "broken": [folder / name for name in names.broken],
    }


def _hidden_images(folder: Path, names: Contents) -> list[Path]:
    paths = [folder / name for name in names.hidden]
    return [path for path in paths if not path.is_dir() or contents(path).images]


def merged(parts: Iterable[LeftOut]) -> LeftOut:
    """The union of what several places left out."""
    whole: dict[str, list[Path]] = {}
    for part in parts:
        for kind, paths in part.items():
            whole.setdefault(kind, []).extend(paths)
    return whole


def in_words(folder: Path, left_out: LeftOut) -> tuple[str, ...]:
    """One line that counts and names what was left out of a folder; none if nothing was."""
    parts = []
    for kind, (one, many) in _KINDS.items():
        names = [str(path.relative_to(folder)) for path in left_out.get(kind, ())]
        if names:
            noun = one if len(names) == 1 else many
            parts.append(f"{len(names)} {noun} ({first_few(names, 3)})")
    return (f"left out of {folder}: {', '.join(parts)}",) if parts else ()


def check_inside(folder: Path, paths: list[Path], source: Path) -> list[Path]:
    """Check that a list, which may be untrusted, names only files inside the folder.

    Links in the folder are followed.

    Args:
        folder: folder of the data set.
        paths: paths of its images.
        source: the file that names them, for the message.

    Returns:
        The same paths.

    Raises:
        InputError: a path leads out of the folder.
    """
    top = os.path.abspath(folder) + os.sep
    for path in paths:
        if not os.path.abspath(path).startswith(top):
            raise InputError(
                f"{source} names {path}, which is not in {folder}: a list may only name images "
                "beside it or in folders beside it; move or link them there"
            )
    return paths


def resolve_paths(
    folder: Path, source: Path, rows: Sequence[tuple[str, str]], roots: Sequence[Path]
) -> list[Path] | None:
    """Paths of the images of a list, whose names may be full paths or of another system.

    The first image decides: it is searched for in the roots, then there in a folder of its class,
    then without its first folder, without its first two, and so on. All other images must lie in
    the same way, and different names must stay different files.

    Args:
        folder: folder of the data set, out of which no name may lead.
        source: the file that names the images.
        rows: name and class of each image.
        roots: folders in which the images may lie.

    Returns:
        The path of each image; None if the first is not found.

    Raises:
        InputError: a name leads out of the folder.
    """
    names = [name for name, _ in rows]
    if Path(names[0]).is_absolute() and Path(names[0]).is_file():
        return check_inside(folder, [Path(name) for name in names], source)
    kinds = (Path, PureWindowsPath) if any("\\" in name for name in names) else (Path,)
    for kind in kinds:
        parts = [kind(name).parts for name in names]
        if kind(names[0]).anchor:  # of the whole list; a single full path is left to `check_inside`
            parts = [kind(name).relative_to(kind(name).anchor).parts for name in names]
        for left_off in range(len(parts[0])):
            flat = [part[left_off:] for part in parts]
            if not all(flat) or len(set(flat)) < len(set(parts)):
                break
            forms = [flat]
            if not left_off:
                by_class = [(label, *part) for part, (_, label) in zip(flat, rows, strict=True)]
                # The same name in two classes means two files, if classes have folders.
                alike = len(set(flat)) < len(set(by_class))
                forms = [by_class, flat] if alike else [flat, by_class]
            for root in roots:
                for form in forms:
                    if root.joinpath(*form[0]).is_file():
                        return check_inside(folder, [root.joinpath(*part) for part in form], source)
    return None


def first_missing(paths: Iterable[Path]) -> int | None:
    """Position of the first file that does not exist; each folder is listed only once."""
    present: dict[Path, set[str]] = {}
    for position, path in enumerate(paths):
        folder = path.parent
        if folder not in present:
            present[folder] = set(os.listdir(folder)) if folder.is_dir() else set()
        if path.name not in present[folder]:
            return position
    return None


def check_text(file: Path, text: str) -> None:
    """Refuse texts with lone surrogates, which JSON and pickles can hold but nothing can print.

    Args:
        file: the file that holds the text, for the message.
        text: the text.

    Raises:
        InputError: the text has a lone surrogate.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{file}: {text!a} is no text: it holds half a character") from error

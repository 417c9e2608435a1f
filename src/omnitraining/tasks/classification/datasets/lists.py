"""File lists in JSON, as CloserLook (Chen et al., 2019) writes them: one per split."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omnitraining.errors import InputError
from omnitraining.tasks.classification.datasets.dataset import ALL, Found
from omnitraining.tasks.classification.datasets.files import by_split, first_missing, inside

_KEYS = ("label_names", "image_names", "image_labels")


def json_lists(path: Path) -> Found | None:
    """``base.json``, ``val.json`` and ``novel.json``; ``all.json`` only if it is alone."""
    if path.is_file():
        files = {ALL: path} if path.suffix.lower() == ".json" else {}
    else:
        files = by_split(sorted(path.glob("*.json")), ".json") or {ALL: path / "all.json"}
    read = {split: _read(file) for split, file in files.items() if file.is_file()}
    for split, content in read.items():
        if "class_roots" in content:
            raise InputError(
                f"{files[split]} is a file list of EasyFSL, whose CUB has 140, 30 and 30 classes; "
                "here it has 100, 50 and 50: remove its JSON files to have it made from the images"
            )
    if not read or not all(content.keys() >= set(_KEYS) for content in read.values()):
        return None
    return "JSON file lists", {s: _images(files[s], content) for s, content in read.items()}


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is not JSON: {error}") from error
    return content if isinstance(content, dict) else {}


def _images(file: Path, content: dict[str, Any]) -> dict[str, list[Path]]:
    names, images, labels = (content[key] for key in _KEYS)
    if not all(isinstance(part, list) for part in (names, images, labels)) or not images:
        raise InputError(f"{file}: {', '.join(_KEYS)} must be lists that are not empty")
    if len(images) != len(labels):
        raise InputError(f"{file} has {len(images)} image_names, but {len(labels)} image_labels")
    if len(set(map(str, names))) < len(names):
        raise InputError(f"{file} has two label_names that are the same")
    known = range(len(names))
    wrong = [label for label in labels if type(label) is not int or label not in known]
    if wrong:
        raise InputError(
            f"{file}: the label {wrong[0]!r} is not a number from 0 to {len(names) - 1}, a place "
            "in label_names"
        )
    paths = _placed(file, [str(image) for image in images])
    missing = first_missing(paths)
    if missing is not None:
        name = names[labels[missing]]
        raise InputError(f"{file}: class {name!r}: there is no file {paths[missing]}")
    classes: dict[str, list[Path]] = {str(names[label]): [] for label in sorted(set(labels))}
    for label, image in zip(labels, paths, strict=True):
        classes[str(names[label])].append(image)
    return classes


def _placed(file: Path, images: Sequence[str]) -> list[Path]:
    """Where the images are: lists hold full paths, which another machine may have written.

    As many leading folders are left off as it takes to find the first image beside the list.
    """
    paths, folder = [Path(image) for image in images], file.parent
    if paths[0].is_absolute() and paths[0].is_file():
        return inside(folder, paths, file)
    parts = paths[0].relative_to(paths[0].anchor).parts
    for left_off in range(len(parts)):
        if folder.joinpath(*parts[left_off:]).is_file():
            found = [path.relative_to(path.anchor).parts[left_off:] for path in paths]
            return inside(folder, [folder.joinpath(*parts) for parts in found], file)
    return inside(folder, [folder / path for path in paths], file)

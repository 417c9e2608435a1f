"""File lists in JSON, as CloserLook (Chen et al., 2019) writes them, one per split."""

import json
from pathlib import Path
from typing import Any

from omnitraining.datasets.dataset import UNSPLIT, LayoutMatch
from omnitraining.datasets.files import by_split, check_text, first_missing, resolve_paths
from omnitraining.errors import InputError

_KEYS = ("label_names", "image_names", "image_labels")


def json_lists(path: Path) -> LayoutMatch | None:
    """``base.json``, ``val.json`` and ``novel.json``; ``all.json`` only if it is alone.

    Returns:
        None if there is no file list.

    Raises:
        InputError: a list is wrong, or one of EasyFSL, whose split of CUB is another.
    """
    if path.is_file():
        files = {UNSPLIT: path} if path.suffix.lower() == ".json" else {}
    else:
        files = by_split(sorted(path.glob("*.json")), ".json") or {UNSPLIT: path / "all.json"}
    read = {split: _read(file) for split, file in files.items() if file.is_file()}
    for split, content in read.items():
        if "class_roots" in content:
            raise InputError(
                f"{files[split]} is a file list of EasyFSL, whose CUB has 140, 30 and 30 classes; "
                "here it has 100, 50 and 50: remove its JSON files to have it made from the images"
            )
    lists = [split for split, content in read.items() if content.keys() >= set(_KEYS)]
    if not lists:
        return None
    for split in read.keys() - set(lists):
        raise InputError(
            f"{files[split]} is no list of images, as {files[lists[0]].name} is: it must hold "
            f"{', '.join(_KEYS)}"
        )
    return LayoutMatch(
        "JSON file lists", {s: _images(files[s], content) for s, content in read.items()}
    )


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
    rows = [(str(image), str(names[label])) for image, label in zip(images, labels, strict=True)]
    for text in (*map(str, names), *(image for image, _ in rows)):
        check_text(file, text)
    paths = resolve_paths(file.parent, file, rows, [file.parent])
    if paths is None:
        name, class_name = rows[0]
        raise InputError(
            f"{file}: class {class_name!r}: there is no file {name}, nor the end of that path in "
            f"{file.parent}"
        )
    missing = first_missing(paths)
    if missing is not None:
        class_name = rows[missing][1]
        raise InputError(f"{file}: class {class_name!r}: there is no file {paths[missing]}")
    classes: dict[str, list[Path]] = {str(names[label]): [] for label in sorted(set(labels))}
    for label, image in zip(labels, paths, strict=True):
        classes[str(names[label])].append(image)
    return classes

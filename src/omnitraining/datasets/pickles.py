"""Pickles of mini-ImageNet, in the forms of MetaOptNet and learn2learn."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnitraining.datasets.array_pickle import read_pickle
from omnitraining.datasets.dataset import SPLIT_ALIASES, SPLITS, UNSPLIT, LayoutMatch
from omnitraining.datasets.files import check_text
from omnitraining.datasets.listing import Item
from omnitraining.errors import InputError


def pickles(path: Path) -> LayoutMatch | None:
    """One pickle per split, of MetaOptNet's or of learn2learn's form; or a single one.

    Their names are ``miniImageNet_category_split_train_phase_train.pickle``, ``..._val.pickle`` and
    ``..._test.pickle``, or ``mini-imagenet-cache-train.pkl`` and so on.

    Returns:
        None if there is no pickle with such a name.

    Raises:
        InputError: a pickle holds something else, or two are for one split.
    """
    if path.is_file():
        files = {UNSPLIT: path} if path.suffix in (".pickle", ".pkl") else {}
    else:
        files = {}
        for file in sorted(path.iterdir()):
            match = re.fullmatch(r".+[_-](train|val|test)\.(pickle|pkl)", file.name)
            # Further images of the training classes, for other studies, are skipped.
            if match and not re.search(r"train_phase_(val|test)", file.name):
                split = SPLIT_ALIASES[match[1]]
                if split in files:
                    raise InputError(f"{files[split]} and {file.name} are both for {split}")
                files[split] = file
    if not files:
        return None
    order = [split for split in (*SPLITS, UNSPLIT) if split in files]
    splits = {split: _images(files[split]) for split in order}
    for split, classes in splits.items():
        for name in classes:
            check_text(files[split], name)
    return LayoutMatch("pickled arrays", splits)


def _images(file: Path) -> dict[str, list[Item]]:
    content = read_pickle(file)
    try:
        if isinstance(content, Mapping):
            content = {_text(key): value for key, value in content.items()}
            if content.keys() >= {"data", "labels"}:
                return _by_labels(file, content)
            if content.keys() >= {"image_data", "class_dict"}:
                return _by_rows(file, content)
    except InputError:
        raise
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{file} has labels or classes of another form: {error}") from error
    raise InputError(
        f"{file} must hold data and labels (MetaOptNet) or image_data and class_dict (learn2learn)"
    )


def _by_labels(file: Path, content: Mapping[str, Any]) -> dict[str, list[Item]]:
    images, given = _array(file, content["data"]), content["labels"]
    if not all(isinstance(label, _NUMBER) for label in given):
        raise InputError(f"{file} must hold labels as a list of whole numbers")
    labels = np.asarray(given)
    if labels.shape != images.shape[:1]:
        raise InputError(f"{file} has {len(images)} images, but labels of shape {labels.shape}")
    names = {int(number): _text(name) for name, number in content.get("catname2label", {}).items()}
    return {
        names.get(number, str(number)): [images[row] for row in np.flatnonzero(labels == number)]
        for number in np.unique(labels).tolist()
    }


def _by_rows(file: Path, content: Mapping[str, Any]) -> dict[str, list[Item]]:
    images = _array(file, content["image_data"])
    classes: dict[str, list[Item]] = {}
    for name, rows in sorted(content["class_dict"].items()):
        if not all(isinstance(row, _NUMBER) for row in rows):
            raise InputError(f"{file}: class {_text(name)!r} must be a list of indices of images")
        wrong = [row for row in rows if not 0 <= row < len(images)]
        if wrong or not len(rows):
            problem = f"has image {wrong[0]} of {len(images)}" if wrong else "is empty"
            raise InputError(f"{file}: class {_text(name)!r} {problem}")
        classes[_text(name)] = [images[row] for row in rows]
    return classes


_NUMBER = (int, np.integer)


def _array(file: Path, images: object) -> NDArray[np.uint8]:
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4:
        raise InputError(f"{file} must hold images as one array of uint8 [M, H, W, 3]")
    return np.asarray(images)


def _text(name: object) -> str:
    return name.decode("latin1") if isinstance(name, bytes) else str(name)

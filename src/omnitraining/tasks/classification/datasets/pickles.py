"""Pickled arrays, as mini-ImageNet is handed around, read without running anything in them.

A pickle may name any function to be called on reading. Here it may only name what makes arrays and
plain containers; whatever else it names is refused.
"""

import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnitraining.errors import InputError
from omnitraining.tasks.classification.datasets.dataset import ALL, SPLITS, WORDS, Found
from omnitraining.tasks.classification.listing import Item


def pickles(path: Path) -> Found | None:
    """One pickle per split, of MetaOptNet's or of learn2learn's form; or a single one.

    They are ``miniImageNet_category_split_train_phase_train.pickle``, ``..._val.pickle`` and
    ``..._test.pickle``, or ``mini-imagenet-cache-train.pkl`` and so on.
    """
    if path.is_file():
        files = {ALL: path} if path.suffix in (".pickle", ".pkl") else {}
    else:
        files = {}
        for file in sorted(path.iterdir()):
            named = re.fullmatch(r".+[_-](train|val|test)\.(pickle|pkl)", file.name)
            # Of the training classes there are further images, which serve other studies.
            if named and not re.search(r"train_phase_(val|test)", file.name):
                split = WORDS[named[1]]
                if split in files:
                    raise InputError(f"{files[split]} and {file.name} are both for {split}")
                files[split] = file
    if not files:
        return None
    order = [split for split in (*SPLITS, ALL) if split in files]
    return "pickled arrays", {split: _images(files[split]) for split in order}


def _images(file: Path) -> dict[str, list[Item]]:
    content = read_pickle(file)
    if isinstance(content, Mapping):
        content = {k.decode() if isinstance(k, bytes) else k: v for k, v in content.items()}
        if content.keys() >= {"data", "labels"}:
            return _by_labels(file, content)
        if content.keys() >= {"image_data", "class_dict"}:
            return _by_rows(file, content)
    raise InputError(
        f"{file} must hold data and labels (MetaOptNet) or image_data and class_dict (learn2learn)"
    )


def _by_labels(file: Path, content: Mapping[str, Any]) -> dict[str, list[Item]]:
    images, labels = _array(file, content["data"]), np.asarray(content["labels"])
    if labels.shape != images.shape[:1]:
        raise InputError(f"{file} has {len(images)} images, but labels of shape {labels.shape}")
    names = {number: _text(name) for name, number in content.get("catname2label", {}).items()}
    return {
        names.get(number, str(number)): [images[row] for row in np.flatnonzero(labels == number)]
        for number in np.unique(labels).tolist()
    }


def _by_rows(file: Path, content: Mapping[str, Any]) -> dict[str, list[Item]]:
    images = _array(file, content["image_data"])
    found = {}
    for name, rows in sorted(content["class_dict"].items()):
        wrong = [row for row in rows if not 0 <= row < len(images)]
        if wrong or not len(rows):
            what = f"has image {wrong[0]} of {len(images)}" if wrong else "is empty"
            raise InputError(f"{file}: class {_text(name)!r} {what}")
        found[_text(name)] = [images[row] for row in rows]
    return found


def _array(file: Path, images: object) -> NDArray[np.uint8]:
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4:
        raise InputError(f"{file} must hold images as one array of uint8 [M, H, W, 3]")
    return images


def _text(name: object) -> str:
    return name.decode("latin1") if isinstance(name, bytes) else str(name)


def read_pickle(file: Path) -> Any:
    """The content of a pickle of arrays and plain containers, of Python 3 or 2.

    Raises:
        InputError: it names anything else, which is then not imported; or it is damaged.
    """
    try:
        with file.open("rb") as opened:
            return _ArraysOnly(opened, encoding="latin1").load()
    except InputError as error:
        raise InputError(f"{file} {error}") from None
    except Exception as error:  # damaged pickles raise about any type of error
        raise InputError(f"{file} is not a pickle that can be read: {error}") from error


def _frombuffer(
    buffer: bytes, dtype: np.dtype[Any], shape: tuple[int, ...], order: Any
) -> NDArray[Any]:
    return np.frombuffer(buffer, dtype).reshape(shape, order=order)


def _encode(text: str, encoding: str) -> bytes:
    """How protocol 2 of Python 3 writes bytes."""
    if encoding != "latin1":
        raise InputError(f"encodes by {encoding}, which no array does")
    return text.encode("latin1")


_ARRAY, _SCALAR = np.empty(0).__reduce__()[0], np.uint8(0).__reduce__()[0]
_ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): OrderedDict,
    **{
        ("builtins", kind.__name__): kind
        for kind in (dict, list, tuple, set, bytes, bytearray, str)
    },
    **{
        (f"numpy.{core}.{module}", name): value
        for core in ("core", "_core")  # before and from NumPy 2 on
        for module, name, value in (
            ("multiarray", "_reconstruct", _ARRAY),
            ("multiarray", "scalar", _SCALAR),
            ("numeric", "_frombuffer", _frombuffer),
        )
    },
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # Python 2 had other names for some modules.
        place = ({"__builtin__": "builtins"}.get(module, module), name)
        if place not in _ALLOWED:
            raise InputError(
                f"names {module}.{name}, which could run anything: only arrays and plain "
                "containers are read from pickles"
            )
        return _ALLOWED[place]

"""Pickled arrays, as mini-ImageNet is handed around, read without running anything in them.

A pickle may name any function to be called on reading. Here it may only name what makes arrays and
plain containers, for which the functions below stand in; whatever else it names is refused. And a
pickle of a few bytes may stand for gigabytes. Here memory is in proportion to the file.
"""

import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from omnitraining.datasets.dataset import ALL, SPLITS, WORDS, Found
from omnitraining.datasets.files import check_text
from omnitraining.datasets.listing import Item
from omnitraining.errors import InputError


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
    splits = {split: _images(files[split]) for split in order}
    for split, classes in splits.items():
        for name in classes:
            check_text(files[split], name)
    return Found("pickled arrays", splits)


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
    names = {number: _text(name) for name, number in content.get("catname2label", {}).items()}
    return {
        names.get(number, str(number)): [images[row] for row in np.flatnonzero(labels == number)]
        for number in np.unique(labels).tolist()
    }


def _by_rows(file: Path, content: Mapping[str, Any]) -> dict[str, list[Item]]:
    images = _array(file, content["image_data"])
    found = {}
    for name, rows in sorted(content["class_dict"].items()):
        if not all(isinstance(row, _NUMBER) for row in rows):
            raise InputError(f"{file}: class {_text(name)!r} must be a list of places of images")
        wrong = [row for row in rows if not 0 <= row < len(images)]
        if wrong or not len(rows):
            what = f"has image {wrong[0]} of {len(images)}" if wrong else "is empty"
            raise InputError(f"{file}: class {_text(name)!r} {what}")
        found[_text(name)] = [images[row] for row in rows]
    return found


_NUMBER = (int, np.integer)


def _array(file: Path, images: object) -> NDArray[np.uint8]:
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4:
        raise InputError(f"{file} must hold images as one array of uint8 [M, H, W, 3]")
    return np.asarray(images)


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


class _Dtype:
    """A type of array elements; a real one would take what its state says on trust."""

    def __init__(self, code: str, align: bool = False, copy: bool = False) -> None:
        if not re.fullmatch(r"[biuf]\d|[US]\d+", code):
            raise InputError(f"holds arrays of {code}: only numbers and texts are read")
        self.real = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.real = self.real.newbyteorder(state[1])


class _Array(np.ndarray[Any, np.dtype[Any]]):
    """An array, which is empty until it is given its state."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        version, shape, dtype, column_major, data = state
        super().__setstate__((version, shape, dtype.real, column_major, data))


def _reconstruct(kind: None, shape: object, code: object) -> Any:
    return _Array((0,))


def _scalar(dtype: _Dtype, data: str | bytes) -> Any:
    return np.frombuffer(data.encode("latin1") if isinstance(data, str) else data, dtype.real)[0]


def _frombuffer(buffer: bytes, dtype: _Dtype, shape: tuple[int, ...], order: Any) -> NDArray[Any]:
    return np.frombuffer(buffer, dtype.real).reshape(shape, order=order)


def _bytes(data: str | bytes = b"", encoding: str = "latin1") -> bytes:
    """The real one would take a number too, and make as many bytes."""
    return _encode(data, "latin1") if isinstance(data, str) else b"".join([data])


def _bytearray(data: str | bytes = b"", encoding: str = "latin1") -> bytearray:
    return bytearray(_bytes(data))


def _encode(text: str, encoding: str) -> bytes:
    """How the older protocols write bytes."""
    if encoding != "latin1":
        raise InputError(f"encodes by {encoding}, which no array does")
    return text.encode("latin1")


_CONTAINERS: dict[str, Any] = {
    **{kind.__name__: kind for kind in (dict, list, tuple, set, str)},
    **{"bytes": _bytes, "bytearray": _bytearray},
}
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): None,  # of which kind an array is
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): OrderedDict,
    **{(m, name): made for name, made in _CONTAINERS.items() for m in ("builtins", "__builtin__")},
    **{
        (f"numpy.{core}.{name}", function): made
        for core in ("core", "_core")  # before and from NumPy 2 on
        for name, function, made in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _frombuffer),
        )
    },
}


_Read: TypeAlias = Callable[[Any], None]
"""What reads on after a code of a pickle."""


def _once(read: _Read) -> _Read:
    """Reads what was met before, unless it is a container: such a one has a single place.

    Otherwise lists within lists, each named twice, double with every few bytes of the file.
    """

    def load(reader: Any) -> None:
        read(reader)
        if isinstance(reader.stack[-1], dict | frozenset | list | set | tuple):
            raise InputError("has one container in two places, which no data set needs")

    return load


def _shallow(read: _Read) -> _Read:
    """Reads a tuple, unless it is deep: to hash one would overflow the stack of the interpreter."""

    def load(reader: Any) -> None:
        read(reader)
        for inner in reader.stack[-1]:
            if isinstance(inner, tuple) and any(isinstance(part, tuple) for part in inner):
                raise InputError("has tuples within tuples within tuples, which no data set needs")

    return load


def _build(reader: Any) -> None:
    """Gives a state to an array or its type: other things would take attributes on trust."""
    if not isinstance(reader.stack[-2], _Array | _Dtype):
        raise InputError(f"changes a {type(reader.stack[-2]).__name__}, which no data set needs")
    reader.load_build()


def _bytearray8(reader: Any) -> None:
    """Python's makes as many bytes as the pickle says before it looks whether they are there."""
    reader.append(bytearray(reader.read(int.from_bytes(reader.read(8), "little"))))


def _refuse(reader: Any) -> None:
    raise InputError("makes objects in a way that no data set needs")


def _readers() -> dict[int, _Read]:
    """How each code of a pickle is read."""
    readers: dict[int, _Read] = dict(pickle._Unpickler.dispatch)
    for name in _REFUSED:
        readers[getattr(pickle, name)[0]] = _refuse
    for name in ("GET", "BINGET", "LONG_BINGET"):
        code = getattr(pickle, name)[0]
        readers[code] = _once(readers[code])
    for name in ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"):
        code = getattr(pickle, name)[0]
        readers[code] = _shallow(readers[code])
    return {**readers, pickle.BUILD[0]: _build, pickle.BYTEARRAY8[0]: _bytearray8}


_REFUSED = (
    *("EXT1", "EXT2", "EXT4", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "DUP"),
    *("PERSID", "BINPERSID", "NEXT_BUFFER", "READONLY_BUFFER"),
)


class _ArraysOnly(pickle._Unpickler):
    """Python's unpickler, the one that is written in Python.

    The one in C makes room for as many objects as a pickle says it will name: in nine bytes, 64 GB.
    """

    dispatch = _readers()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise InputError(
                f"names {module}.{name}, which could run anything: only arrays and plain "
                "containers are read from pickles"
            )
        return _ALLOWED[module, name]

"""A reader of pickles that hold arrays and plain containers, and nothing that could run.

It interprets the opcodes that such pickles need, as `pickletools` takes them apart, and imports
nothing: a name in the pickle maps to one of the functions below, or is refused. Memory stays in
proportion to the file: lengths are compared with its size, and no container is in two places.
"""

import mmap
import pickletools
import re
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnitraining.errors import InputError


def read_pickle(file: Path) -> Any:
    """The content of a pickle of arrays and plain containers, of Python 3 or 2.

    Texts of Python 2 are read as Latin-1.

    Raises:
        InputError: it names anything else, which is then not imported; or it is damaged.

    Example:
        >>> import pickle, tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.pkl"
        >>> _ = path.write_bytes(pickle.dumps({"labels": [0, 1]}))
        >>> read_pickle(path)
        {'labels': [0, 1]}
    """
    try:
        with (
            file.open("rb") as opened,
            mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            return _Machine().run(content)
    except InputError as error:
        raise InputError(f"{file} {error}") from None
    except Exception as error:  # damaged pickles raise about any type of error
        raise InputError(f"{file} is not a pickle that can be read: {error}") from error


class _Dtype:
    """A type of array elements, whose byte order comes later; numbers and texts only."""

    def __init__(self, code: str, align: bool = False, copy: bool = False) -> None:
        if not re.fullmatch(r"[biuf]\d|[US][1-9]\d*", code):
            raise InputError(f"holds arrays of {code}: only numbers and texts are read")
        self.real = np.dtype(code)


def _empty_array(kind: str, shape: object, code: object) -> NDArray[Any]:
    """An array without elements; its state follows."""
    return np.empty(0, np.uint8)


def _scalar(dtype: _Dtype, data: str | bytes) -> Any:
    return np.frombuffer(data.encode("latin1") if isinstance(data, str) else data, dtype.real)[0]


def _array(buffer: bytes, dtype: _Dtype, shape: tuple[int, ...], order: Any) -> NDArray[Any]:
    return np.frombuffer(buffer, dtype.real).reshape(shape, order=order)


def _encode(text: str, encoding: str) -> bytes:
    """How protocols below 3 write bytes."""
    if encoding != "latin1":
        raise InputError(f"encodes by {encoding}, which no array does")
    return text.encode("latin1")


def _ordered_dict(pairs: Iterable[tuple[Any, Any]] = ()) -> Any:
    return _with_items(OrderedDict(), (part for pair in pairs for part in pair))


def _with_items(target: Any, items: Iterable[Any]) -> Any:
    """The target with keys and values that alternate.

    Hashing tuples within tuples could take forever, so keys are numbers and texts.
    """
    parts = iter(items)
    for key, value in zip(parts, parts, strict=True):
        if not isinstance(key, str | bytes | int | float | np.generic):
            raise InputError(f"has a {type(key).__name__} for a key, which no data set needs")
        target[key] = value
    return target


_NAMES: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): "an array",  # the only kind; never called
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): _ordered_dict,
    **{
        (f"numpy.{core}.{module}", name): function
        for core in ("core", "_core")  # before and from NumPy 2 on
        for module, name, function in (
            ("multiarray", "_reconstruct", _empty_array),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _array),
        )
    },
}
_VALUES = frozenset(
    """
    INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING
    UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 SHORT_BINBYTES BINBYTES BINBYTES8 BYTEARRAY8
    """.split()  # noqa: SIM905
)
"""Opcodes whose argument is the value."""
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


class _Machine:
    """The stack machine of pickles, reduced to what arrays and plain containers need."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, content: Any) -> Any:
        """The object that the opcodes of a file make."""
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name == "STOP":
                break
            self.step(opcode.name, argument)
        return self.stack.pop()

    def step(self, name: str, argument: Any) -> None:
        """Interpret one opcode."""
        stack = self.stack
        match name:
            case _ if name in _VALUES:
                stack.append(argument)
            case _ if name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                self.marks.append(len(stack))
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "LIST":
                stack.append(self.taken())
            case "TUPLE":
                stack.append(tuple(self.taken()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(self.taken(int(name[-1]))))
            case "DICT":
                stack.append(_with_items({}, self.taken()))
            case "APPEND":
                stack[-2].extend(self.taken(1))
            case "APPENDS":
                items = self.taken()
                stack[-1].extend(items)
            case "SETITEM":
                _with_items(stack[-3], self.taken(2))
            case "SETITEMS":
                items = self.taken()
                _with_items(stack[-1], items)
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self.remembered(argument))
            case "GLOBAL":
                stack.append(_named(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                stack.append(_named(*self.taken(2)))
            case "REDUCE":
                function, arguments = self.taken(2)
                stack.append(function(*arguments))
            case "BUILD":
                (state,) = self.taken(1)
                _set_state(stack[-1], state)
            case _:
                raise InputError(f"makes objects by {name}, which no data set needs")

    def taken(self, count: int | None = None) -> list[Any]:
        """Remove and return the last ``count`` values of the stack; all since the mark if None."""
        start = self.marks.pop() if count is None else len(self.stack) - count
        if start < 0:
            raise IndexError("too few values")
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def remembered(self, place: int) -> Any:
        """A value that came before; no container, as lists in lists could double each time."""
        value = self.memo[place]
        if isinstance(value, dict | list | tuple | bytearray):
            raise InputError("has one container in two places, which no data set needs")
        return value


def _named(module: str, name: str) -> Any:
    if (module, name) not in _NAMES:
        raise InputError(
            f"names {module}.{name}, which could run anything: only arrays and plain containers "
            "are read from pickles"
        )
    return _NAMES[module, name]


def _set_state(target: object, state: Any) -> None:
    """Fill an array, or set the byte order of a type."""
    if isinstance(target, np.ndarray):
        version, shape, dtype, column_major, data = state
        target.__setstate__((version, shape, dtype.real, column_major, data))
    elif isinstance(target, _Dtype):
        target.real = target.real.newbyteorder(state[1])
    else:
        raise InputError(f"changes a {type(target).__name__}, which no data set needs")

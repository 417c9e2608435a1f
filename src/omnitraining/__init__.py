"""Omni-Training: one network, three flows, trained by pre-training and meta-training at once.

Names are imported when they are first used, so that the command line starts without torch. They
are listed once, in ``__init__.pyi``, where type checkers look for them too.
"""

from importlib import import_module
from pathlib import Path
from typing import Any


def _listed() -> dict[str, str]:
    """The modules of the public names: lines read ``from MODULE import NAME as NAME``."""
    lines = Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8").splitlines()
    words = [line.split() for line in lines if line.startswith("from ")]
    return {name: module for _, module, _, name, *_ in words}


_MODULES = _listed()
__all__ = sorted(_MODULES)

_FORMERLY = {"LabelledImages": "LabeledImages"}
"""Today's name of a public class, by its former one."""


def __getattr__(name: str) -> Any:
    name = _FORMERLY.get(name, name)
    if name not in _MODULES:
        raise AttributeError(f"module 'omnitraining' has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})

"""Omni-Training: one network, three flows, trained by pre-training and meta-training at once.

Names are imported when they are first used, so that the command line starts without torch. They
are listed once, in ``__init__.pyi``, where type checkers look for them too.
"""

import re
from importlib import import_module
from pathlib import Path
from typing import Any


def _listed() -> dict[str, str]:
    """The modules of the public names, each imported as ``from MODULE import NAME as NAME``."""
    stub = Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    imports = re.findall(r"^from (\S+) import \(?\s*(\w+) as", stub, re.MULTILINE)
    return {name: module for module, name in imports}


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

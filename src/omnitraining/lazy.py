"""Names of a package that are imported when they are first used."""

import re
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def listed(file: str) -> dict[str, str]:
    """The names that a package's stub lists, each with its module.

    They are listed once, as ``from MODULE import NAME as NAME`` in ``__init__.pyi``, where type
    checkers look for them too.

    Args:
        file: the package's ``__init__.py``.
    """
    stub = Path(file).with_suffix(".pyi").read_text(encoding="utf-8")
    imports = re.findall(r"^from (\S+) import \(?\s*(\w+) as", stub, re.MULTILINE)
    return {name: module for module, name in imports}


def getter(package: str, modules: dict[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package, which imports a name's module at its first use.

    Args:
        package: its name.
        modules: of `listed`.

    Raises:
        AttributeError: the package has no such name.
    """

    def attribute(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(modules[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return attribute

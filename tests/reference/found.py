"""The classes that a package holds."""

import importlib
import inspect
import pkgutil
from types import ModuleType


def found_in(package: ModuleType, base: type) -> list[type]:
    """Every class of a package that is made of a base: new files are tested unlisted."""
    classes = set()
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        members = inspect.getmembers(importlib.import_module(module.name), inspect.isclass)
        classes |= {c for _, c in members if issubclass(c, base) and not inspect.isabstract(c)}
    return sorted(classes, key=lambda c: c.__name__)

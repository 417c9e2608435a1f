"""Short names of this library's classes, in full.

The parser looks a short name up among all classes that are imported, so that ``MLP`` would be
ambiguous in a program that has imported torchvision, which has an MLP too.
"""

from collections.abc import Mapping
from typing import Any

from omnitraining.config.fields import known_classes


def with_full_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values with the full names of classes.

    Args:
        values: nested fields of a configuration.
    """
    known = known_classes()

    def full(field: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {k: full(field if k == "class_path" else k, v) for k, v in value.items()}
        return _full_name(known.get(field, {}), value)

    return {field: full(field, value) for field, value in values.items()}


def options_with_full_names(options: list[str]) -> list[str]:
    """Options of the command line with the full names of classes, as ``--backbone MLP``."""
    known, changed, before = known_classes(), list[str](), ""
    for option in options:
        name, equals, value = option.partition("=")
        if name.startswith("--"):
            field = _field(name)
            changed.append(f"{name}{equals}{_full_name(known.get(field, {}), value)}")
            before = "" if equals else field
        else:
            changed.append(_full_name(known.get(before, {}), option))
            before = ""
    return changed


def _field(option: str) -> str:
    return option.removeprefix("--").removesuffix(".class_path").rpartition(".")[2]


def _full_name(classes: Mapping[str, type], name: Any) -> Any:
    return f"omnitraining.{name}" if isinstance(name, str) and name in classes else name

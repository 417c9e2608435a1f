"""Names that fields had in version 0.1, which stored runs and files of users may still have."""

import re
import warnings
from collections.abc import Mapping
from typing import Any

NOW = {"normalise": "normalize", "optimiser": "optimizer"}
"""Today's name of a field, by its former one; none of these names ever meant anything else."""


def with_new_names(values: Any) -> Any:
    """Nested values with today's names of fields."""
    if isinstance(values, list):
        return [with_new_names(value) for value in values]
    if not isinstance(values, Mapping):
        return values
    return {NOW.get(key, key): with_new_names(value) for key, value in values.items()}


def options_with_new_names(options: list[str]) -> list[str]:
    """Options of the command line with today's names of fields.

    Warns:
        UserWarning: one of them has a former name.
    """
    changed = []
    for option in options:
        name, equals, value = option.partition("=")
        parts = [NOW.get(part, part) for part in name.split(".")]
        new = ".".join(parts) if re.fullmatch(r"--[\w.]+", name) else name
        if new != name:
            warnings.warn(f"{name} is called {new} now", stacklevel=2)
        changed.append(f"{new}{equals}{value}")
    return changed

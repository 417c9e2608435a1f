"""What a model of someone else may name: the classes of this library, and nothing else.

A configuration names classes, and to find a class is to run the module that holds it. The file that
a user gives to ``omni train`` is his own. Run folders, saved learners and models on the hub may be
anyone's, so whatever else they name is refused, before anything is imported, unless the user says
that he trusts them.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from omnitraining.errors import InputError
from omnitraining.fields import find_class, known_classes
from omnitraining.metatraining import MetaTraining
from omnitraining.pretraining import LinearHead, PreTraining
from omnitraining.tasks.base import Problem
from omnitraining.tasks.reinforcement.environment import Environment

KINDS = (Problem, Environment, PreTraining, MetaTraining, LinearHead, nn.Module)
"""What a configuration is made of."""

FUNCTIONS = ("make", "sample")
"""Fields that name functions, which only users have."""

CLASS_PATH = "class_path"


def refuse_foreign(values: Mapping[str, Any], source: str) -> None:
    """Check that a configuration names no code but this library's.

    Args:
        values: fields of `Experiment`, not parsed yet.
        source: where they are from.

    Raises:
        InputError: it names something else; the message says what, and how to trust it.
    """
    for name in foreign_names(values):
        raise InputError(
            f"{source} names {name}, which is code from outside omnitraining that would be run: "
            "add --trust (in Python trust=True) if you trust whoever made it"
        )


def foreign_names(values: Any, field: str = "") -> Iterator[str]:
    """Whatever a configuration names that is not this library's.

    Args:
        values: of a field, or of many.
        field: its name.
    """
    if isinstance(values, Mapping):
        for key, value in values.items():
            # The parser reads "problem.class_path" as it does a group within a group.
            yield from foreign_names(value, str(key).rpartition(".")[2])
    elif isinstance(values, list | tuple):
        for value in values:
            yield from foreign_names(value, field)
    elif isinstance(values, str):
        names_class = field == CLASS_PATH or field in known_classes()
        # The parser also reads a text that is YAML, as "{class_path: ...}".
        if (names_class and not _is_ours(values)) or field in FUNCTIONS or CLASS_PATH in values:
            yield values


def _is_ours(name: str) -> bool:
    if "." in name and not name.startswith("omnitraining."):
        return False
    found = find_class(name)
    return (
        found is not None
        and issubclass(found, KINDS)
        and found.__module__.startswith("omnitraining.")
    )

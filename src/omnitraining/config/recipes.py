"""Recipes: choices that belong together, as the paper's, adopted by one word.

``recipe: paper`` in a configuration file, or ``--recipe paper`` on the command line, replaces
fields of the file by the fields of `recipes.yaml`. The resolved configuration of a run has these
fields, and no recipe.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from omnitraining.errors import InputError

Values = dict[str, Any]

FIELD = "recipe"
OWN = "own"
"""The recipe of a configuration that names none: its own fields."""

DEFAULTS = {"pretraining": "Baseline", "metatraining": "ProtoNet"}
"""Classes of fields that a configuration leaves out."""


@cache
def recipes() -> dict[str, Values]:
    """All recipes by name, as `recipes.yaml` has them."""
    found: dict[str, Values] = yaml.safe_load(
        (Path(__file__).parent / "recipes.yaml").read_text("utf-8")
    )
    return found


def with_recipe(values: Mapping[str, Any]) -> Values:
    """A configuration in which the fields of the recipe that it names replace its own.

    Args:
        values: nested fields, not checked yet.

    Raises:
        InputError: there is no such recipe.
    """
    own = {name: value for name, value in values.items() if name != FIELD}
    name = values.get(FIELD, OWN)
    if name == OWN:
        return own
    if not isinstance(name, str) or name not in recipes():
        choices = ", ".join([OWN, *recipes()])
        raise InputError(f"recipe is {name!r}: choose from {choices}")
    recipe = recipes()[name]
    problem = _class(own.get("problem"))
    found = merge(own, recipe["fields"], recipe["problems"].get(problem, {}))
    found = merge(found, _environment(found, recipe["environments"]))
    for field, default in DEFAULTS.items():
        chosen = _class(found.get(field)) or default
        if chosen in recipe["classes"]:
            options = {"class_path": chosen, "init_args": recipe["classes"][chosen]}
            found[field] = merge({"class_path": chosen}, found.get(field) or {}, options)
    return found


def _environment(values: Values, options: Mapping[str, Values]) -> Values:
    """The part of a configuration that gives the simulator its options of a recipe, by class."""
    problem = values.get("problem")
    arguments = problem.get("init_args") if isinstance(problem, Mapping) else None
    simulator = arguments.get("environment") if isinstance(arguments, Mapping) else None
    if (name := _class(simulator)) not in options:
        return {}
    path = simulator["class_path"] if isinstance(simulator, Mapping) else simulator
    chosen = {"class_path": path, "init_args": options[name]}
    return {"problem": {"init_args": {"environment": chosen}}}


def merge(*parts: Mapping[str, Any]) -> Values:
    """Merge nested dictionaries; later ones override. A changed class drops its options."""
    merged: Values = {}
    for part in parts:
        for key, value in part.items():
            below = merged.get(key)
            if isinstance(value, Mapping) and isinstance(below, Mapping):
                other = value.get("class_path", below.get("class_path"))
                same = other == below.get("class_path")
                merged[key] = merge(below if same else {}, value)
            else:
                merged[key] = merge(value) if isinstance(value, Mapping) else value
    return merged


def _class(value: Any) -> str:
    """The name of the class that a field names, without its module; "" if it names none."""
    path = value.get("class_path", "") if isinstance(value, Mapping) else value
    return path.rpartition(".")[2] if isinstance(path, str) else ""

"""The fields of a configuration in words: the classes they may name, and errors people can read."""

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from docstring_parser import parse
from torch import nn

from omnitraining import backbones, metatraining, pretraining
from omnitraining.errors import InputError
from omnitraining.tasks.classification.glyph_problem import Glyphs
from omnitraining.tasks.classification.photos import AUGMENTATIONS, Photos
from omnitraining.tasks.regression.sinusoids import Sinusoids
from omnitraining.tasks.reinforcement.gymnasium_tasks import GymnasiumTasks
from omnitraining.tasks.reinforcement.half_cheetah import (
    HalfCheetahDirection,
    HalfCheetahVelocity,
)
from omnitraining.tasks.reinforcement.navigation import Navigation
from omnitraining.tasks.reinforcement.problem import Reinforcement

_KINDS = {
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "tuple": "a list",
    "Mapping": "a mapping",
    "NoneType": "null",
}


def known_classes() -> dict[str, dict[str, type]]:
    """The classes that a configuration may name without their module, by field."""

    def exported(module: Any, kind: type) -> dict[str, type]:
        found = {name: getattr(module, name) for name in module.__all__}
        return {n: c for n, c in found.items() if issubclass(c, kind) and not inspect.isabstract(c)}

    return {
        "problem": {
            "Glyphs": Glyphs,
            "Photos": Photos,
            "Sinusoids": Sinusoids,
            "Reinforcement": Reinforcement,
        },
        "environment": {
            "Navigation": Navigation,
            "HalfCheetahVelocity": HalfCheetahVelocity,
            "HalfCheetahDirection": HalfCheetahDirection,
            "GymnasiumTasks": GymnasiumTasks,
        },
        "pretraining": exported(pretraining, pretraining.PreTraining),
        "metatraining": exported(metatraining, metatraining.MetaTraining),
        "algorithm": exported(metatraining, metatraining.MetaTraining),
        "backbone": exported(backbones, nn.Module),
        "new_head": exported(pretraining, pretraining.LinearHead),
    }


def find_class(name: str) -> type | None:
    """The class of a short name or of ``package.module.Class``; None if there is none.

    Raises:
        InputError: the module fails when it is imported.
    """
    for classes in known_classes().values():
        if name in classes:
            return classes[name]
    module, _, last = name.rpartition(".")
    try:
        found = getattr(import_module(module), last, None) if module else None
    except ImportError:
        return None
    except Exception as error:  # a module of a user's may fail in any way
        raise InputError(f"{module} cannot be imported: {type(error).__name__}: {error}") from error
    return found if inspect.isclass(found) else None


def check_filled(values: Mapping[str, Any], owner: Any, place: str = "") -> None:
    """Refuse null where a class takes no None, which the parser accepts in nested classes.

    Args:
        values: resolved, as jsonargparse has them.
        owner: the class, or the function, whose parameters the fields are.
        place: where it is named.

    Raises:
        InputError: a field has no value; the message names it, and its default.
    """
    try:
        kinds = get_type_hints(owner.__init__ if inspect.isclass(owner) else owner)
        parameters = inspect.signature(owner).parameters
    except (NameError, TypeError, ValueError):  # a class of a user
        return
    for name, value in values.items():
        kind, parameter = kinds.get(name), parameters.get(name)
        if parameter is None or kind is None:
            continue
        path = f"{place}.{name}" if place else name
        if value is None and not (_takes_none(kind) or parameter.default is None):
            usual = parameter.default
            plain = f" for {usual!r}" if isinstance(usual, int | float | str | tuple) else ""
            must = "give one" if usual is parameter.empty else f"leave it out{plain}"
            raise InputError(f"{path} has no value: {must}")
        if isinstance(value, Mapping) and "class_path" in value:
            if (named := find_class(value["class_path"])) is not None:
                check_filled(value.get("init_args") or {}, named, path)
        elif isinstance(value, Mapping) and is_dataclass(kind):
            check_filled(value, kind, path)


def _takes_none(kind: Any) -> bool:
    return kind in (Any, object) or any(one in (None, type(None), Any) for one in get_args(kind))


def readable(message: str, run_config: type) -> str:
    """One line that names the field, what was wrong, and what is allowed.

    Args:
        message: of jsonargparse, which may span lines.
        run_config: the class whose parameters are the fields.
    """
    message = " ".join(message.split())
    place = ".".join(dict.fromkeys(re.findall(r'Parser key "([\w.]+)"', message)))
    field = place.rpartition(".")[2]
    choices = [*known_classes().get(field, {}), *(AUGMENTATIONS if field == "augmentation" else ())]
    if "arguments are required" in message:
        choices = []  # a class was chosen, and lacks one of these
    naming = f"choose from {', '.join(choices)}, or give package.module.Class"
    if found := re.search(r"Expected a dot import path string: (\S+)", message):
        return f"{place}: there is no class {found[1]!r}: {naming}"
    if found := re.search(r"Expected '([\w.]+)' to be a function that returns", message):
        name = found[1].rpartition(".")[2]
        return f"{place}: annotate what {found[1]} returns: def {name}() -> torch.nn.Module"
    if found := re.search(r"unrecognized arguments: -*(?:(\w+)\.)?([^\s=]+)", message):
        return _unknown("", run_config, *found.groups())
    if found := re.search(r"(?:Group '(\w+)' does not accept option|Option) '(\S+)'", message):
        owner: Any = run_config
        for path in re.findall(r"class_path[ =]'([\w.]+)'", message):
            module, _, name = path.rpartition(".")
            owner = getattr(import_module(module), name)
        return _unknown(place, owner, *found.groups())
    if found := re.search(r"Unable to load config (\S+)", message):
        return f"{place} is {found[1]}: give its fields one by one, as in --training.steps 100"
    kind = r"(?:Expected a |Subtypes: \[)(<class .+?|\S*Literal.+?|collections.+?)"
    value = r"(?:\. Got value: | Errors: .* Given value: )(.+?)(?:\. Got value: .*)?"
    if found := re.search(f"{kind}{value}$", message):
        return f"{place} is {found[2]}: it must be {_kinds(found[1])}"
    for noise in (
        r'Parser key "[\w.]+":',
        r"Problem with given class_path '[\w.]+':",
        r"Type \S+ \S+ expects a function or a callable class:",
        r"\.? Got value: .*",
    ):
        message = re.sub(rf"\s*{noise}\s*", "", message)
    return (f"{place}: " if place else "") + message + (f": {naming}" if choices else "")


def _unknown(place: str, owner: Any, group: str | None, option: str) -> str:
    kinds = get_type_hints(owner.__init__)
    if group is not None and inspect.isclass(kinds.get(group)):
        owner, place = kinds[group], f"{place}.{group}" if place else group
    elif group is not None:
        option = f"{group}.{option}"
    allowed = ", ".join(inspect.signature(owner).parameters)
    return f"{place or 'configuration'} has no field {option!r}: choose from {allowed}"


def _kinds(types: str) -> str:
    """The values that a field accepts, from the representation of its type."""
    if choices := re.search(r"Literal\[(.*?)\]", types):
        return f"one of {choices[1]}"
    names = re.findall(r"(?:<class '(?:\w+\.)*|collections\.abc\.)(\w+)", types)
    return " or ".join(_KINDS.get(name, name) for name in names)


def described(
    owner: type, values: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, str, str]]:
    """Fields with values and meanings; the fields of a class follow the field that names it.

    Args:
        owner: the class whose parameters the fields are.
        values: resolved, as jsonargparse has them.
        prefix: of the names.

    Yields:
        Name and value as the command line takes them, and the meaning.
    """
    meanings = _meanings(owner)
    kinds = get_type_hints(owner.__init__)  # type: ignore[misc]
    for name, value in values.items():
        place, meaning = prefix + name, meanings.get(name, "")
        if isinstance(value, Mapping) and "class_path" in value:
            named = find_class(value["class_path"]) or object  # a function may make a backbone
            choices = known_classes().get(name, {})
            also = f" ({', '.join(choices)}, or package.module.Class)" if choices else ""
            short = named.__name__ if named in choices.values() else value["class_path"]
            yield place, short, meaning + also
            yield from described(named, value.get("init_args") or {}, f"{place}.")
        elif isinstance(value, Mapping) and inspect.isclass(kinds.get(name)):
            yield from described(kinds[name], value, f"{place}.")
        else:
            words = _literals(kinds.get(name))
            also = "" if all(word in meaning for word in words) else f" ({', '.join(words)})"
            yield place, _as_given(value), meaning + also


def _meanings(owner: type) -> dict[str, str]:
    """Meanings of the parameters of a class, from its docstring and its bases'."""
    found: dict[str, str] = {}
    for kind in reversed(owner.__mro__):
        for part in parse(kind.__doc__ or "").params:
            words = (part.description or "").replace("`", "").split()
            found[part.arg_name] = " ".join(words).rstrip(".")
    return found


def _literals(kind: Any) -> tuple[str, ...]:
    """The values that a field may have, if they can be listed."""
    options = [kind, *get_args(kind)]
    return next((tuple(map(str, get_args(o))) for o in options if get_origin(o) is Literal), ())


def _as_given(value: Any) -> str:
    """A value as the command line takes it."""
    return str(value) if isinstance(value, str | Path) else json.dumps(value, default=str)

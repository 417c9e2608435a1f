"""What the configuration of an untrusted model may hold: arguments of this library's classes.

The file that a user gives to ``omni train`` is trusted and may name any class; looking up a class
runs the module that defines it. Run folders, saved learners and models on the hub may come from
anyone. Their values are compared with the parameters of the classes below, and objects are made
only when all values fit. No name in them is imported, and no text in them is parsed again.
"""

import inspect
import math
import os
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from types import ModuleType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from torch import nn

import omnitraining
from omnitraining import backbones, libraries, metatraining, pretraining
from omnitraining.backbones.parallel import ParallelResNet18
from omnitraining.config.fields import known_classes
from omnitraining.config.strict import check_bounds
from omnitraining.errors import InputError
from omnitraining.metatraining import MetaTraining
from omnitraining.pretraining import LinearHead, PreTraining
from omnitraining.tasks.base import Problem
from omnitraining.tasks.reinforcement.environment import Environment

KINDS = (Problem, Environment, PreTraining, MetaTraining, LinearHead, nn.Module)
"""What a configuration is made of."""

ALGORITHMS = (PreTraining, MetaTraining, LinearHead)

CLASS_PATH, INIT_ARGS = "class_path", "init_args"

MOST = {
    "batch": 1 << 20,
    "channels": 1 << 16,
    "components": 10_000,
    "depth": 200,
    "embedding": 1 << 16,
    "heads": 1 << 10,
    "hidden": 1 << 16,
    "horizon": 10_000,
    "image_size": 2_048,
    "inputs": 1 << 24,
    "instances": 10_000,
    "iterations": 10_000,
    "meta_outputs": 1 << 20,
    "passes": 10_000,
    "networks": 100,
    "patch": 2_048,
    "pre_outputs": 1 << 20,
    "queries": 10_000,
    "shape": 4_096,
    "shots": 10_000,
    "size": 1_024,
    "steps": 1_000,
    "tasks": 10_000,
    "test_shots": 10_000,
    "test_steps": 1_000,
    "test_tasks": 100_000,
    "threads": 1_024,
    "trajectories": 1_000,
    "versions": 1_000,
    "validation_steps": 1_000,
    "validation_tasks": 10_000,
    "waves": 1_000_000,
    "width": 1 << 16,
}
"""Largest whole numbers, by field, with which an untrusted model is made: each is far above any
useful value, and low enough that loops end and memory suffices. The weights themselves must be in
the file, so that they are no larger than the file."""

ANY_LENGTH = ("Training.steps",)
"""Fields of these names without a limit, as loaded models are not trained."""

TOGETHER = (
    (("instances", "size", "size"), 1 << 23),  # pixels of each class of glyphs
    (("trajectories", "horizon"), 100_000),  # steps of a task at test
)
"""Fields of a class whose product has a largest value."""

LONGEST = 1_000
"""Entries of a list."""

DEVICE = re.compile(r"(auto|cpu|cuda|mps|xpu)(:\d{1,3})?")


@dataclass(frozen=True)
class Plan:
    """A class and its arguments, of which nothing has been made yet.

    Attributes:
        kind: the class.
        name: its full path; "" of a group of fields.
        arguments: plain values and plans; arguments left out have their defaults.
        each_time: make a function that returns a new object at each call, not an object.
    """

    kind: type
    name: str
    arguments: Mapping[str, Any]
    each_time: bool = False

    def made(self) -> Any:
        """The object."""
        arguments = {name: _made(value) for name, value in self.arguments.items()}
        return partial(self.kind, **arguments) if self.each_time else self.kind(**arguments)


@dataclass(frozen=True)
class Foreign:
    """A class or a function from outside this library, which cannot be looked up.

    Attributes:
        name: its path.
        arguments: plain values.
    """

    name: str
    arguments: Any = None


class Check:
    """Compares plain values with the parameters of classes.

    Args:
        source: where the values are from, for messages.
        problems: classes that a problem may have; this library's if not given.
        foreign: names from outside this library that are accepted; all if None. Objects of
            accepted names are not made, and their arguments have no limits.

    Attributes:
        named: the foreign names that were accepted.
    """

    def __init__(
        self,
        source: str,
        problems: tuple[type, ...] = (),
        foreign: frozenset[str] | None = frozenset(),
    ) -> None:
        """Nothing is read before `plan`."""
        self.source, self.problems, self.foreign = source, problems, foreign
        self.limited = foreign == frozenset()
        self.named: set[str] = set()

    def plan(self, values: Any, kind: type) -> Plan:
        """The plan of a class from its values.

        Raises:
            InputError: the values do not fit the parameters, are out of bounds, or name a class
                from outside this library; the message names the class, and how to trust it.
        """
        check_bounds(values, self.source)
        return self._plan(kind, values, "", "")

    def _plan(self, kind: type, values: Any, place: str, name: str, lazy: bool = False) -> Plan:
        parameters, hints = inspect.signature(kind).parameters, _hints(kind)
        if not isinstance(values, Mapping):
            what = f"{place} is {values!r:.80}: it" if place else "it"
            raise self._wrong(f"{what} must hold fields of {', '.join(parameters)}")
        inside = f"{place}.{INIT_ARGS}" if name else place
        for field in values:
            if field not in parameters:
                raise self._wrong(
                    f"{inside or 'configuration'} has no field {field!r:.80}: choose from "
                    f"{', '.join(parameters)}"
                )
        places = {field: f"{inside}.{field}" if inside else field for field in parameters}
        arguments = {
            field: self._value(
                hints[field], values[field], places[field], f"{kind.__name__}.{field}"
            )
            for field in parameters
            if field in values
        }
        for field, parameter in parameters.items():
            if field not in values and parameter.default is parameter.empty:
                raise self._wrong(f"{places[field]} is missing")
        for fields, most in TOGETHER if self.limited else ():
            if {*fields} <= {*parameters}:
                product = math.prod(arguments.get(f, parameters[f].default) for f in fields)
                if product > most:
                    raise self._wrong(
                        f"{inside}: {' x '.join(fields)} is {product:,}: {self._at_most(most)}"
                    )
        return Plan(kind, name, arguments, lazy)

    def _value(self, hint: Any, value: Any, place: str, owner: str) -> Any:
        origin, inner = get_origin(hint), get_args(hint)
        if origin in (Union, UnionType):
            if value is None and type(None) in inner:
                return None
            for one in inner:
                if get_origin(one) is Literal and _is_choice(value, one):
                    return value
            others = _others(inner)
            fitting = [one for one in others if type(value) is one]  # an integer stays one
            return self._value((fitting or others)[-1], value, place, owner)
        if origin is Literal:
            if _is_choice(value, hint):
                return value
            raise self._wrong(f"{place} is {value!r:.80}: it must be one of {str(inner)[1:-1]}")
        if origin is tuple:
            return self._tuple(inner, value, place, owner)
        if origin is not None and issubclass(origin, Mapping):
            if not isinstance(value, Mapping):
                raise self._wrong(f"{place} is {value!r:.80}: it must be a mapping")
            return {
                self._value(inner[0], key, place, owner): self._value(inner[1], one, place, owner)
                for key, one in value.items()
            }
        if origin is not None and issubclass(origin, Callable):  # type: ignore[arg-type]
            makes_networks = inner[0] == [] and inner[1] is nn.Module
            return self._named(nn.Module if makes_networks else None, value, place, True)
        if issubclass(hint, KINDS):
            return self._named(hint, value, place)
        if is_dataclass(hint) and isinstance(hint, type):
            return self._plan(hint, value, place, "")
        return self._single(hint, value, place, owner)

    def _tuple(self, inner: tuple[Any, ...], value: Any, place: str, owner: str) -> Any:
        if not isinstance(value, list | tuple):
            raise self._wrong(f"{place} is {value!r:.80}: it must be a list")
        if inner[-1] is not ... and len(value) != len(inner):
            raise self._wrong(f"{place} has {len(value)} values: it must have {len(inner)}")
        if self.limited and len(value) > LONGEST:
            raise self._wrong(f"{place} has {len(value):,} values: {self._at_most(LONGEST)}")
        kinds = inner if inner[-1] is not ... else inner[:1] * len(value)
        return tuple(
            self._value(kind, one, place, owner) for kind, one in zip(kinds, value, strict=True)
        )

    def _single(self, hint: type, value: Any, place: str, owner: str) -> Any:
        """A number, a text or a path."""
        allowed = {float: (int, float), Path: (str,)}.get(hint, (hint,))
        if type(value) not in allowed:
            kinds = {int: "an integer", float: "a number", bool: "true or false"}
            kind = kinds.get(hint, "a text")
            raise self._wrong(f"{place} is {value!r:.80}: it must be {kind}")
        if isinstance(value, str):
            self._check_text(value, place, owner)
        elif self.limited and hint is int and owner not in ANY_LENGTH:
            most = MOST.get(owner.rpartition(".")[2], (1 << 63) - 1)
            if not -(1 << 63) <= value <= most:
                raise self._wrong(f"{place} is {value!r:.80}: {self._at_most(most)}")
        elif hint is float:
            if abs(value) > 1e30:  # would be infinite in the 32 bits of a network
                raise self._wrong(f"{place} is {value!r:.80}: it must be less than 1e30")
            return float(value)
        return Path(value) if hint is Path else value

    def _check_text(self, value: str, place: str, owner: str) -> None:
        try:
            os.fsencode(value)
            odd = any(ord(character) < 32 for character in value)
        except UnicodeEncodeError:
            odd = True
        if odd:
            raise self._wrong(f"{place} is {value!r:.80}: it must be a text without control codes")
        if owner == "Training.device" and not DEVICE.fullmatch(value):
            raise self._wrong(f"{place} is {value!r:.80}: give auto, cpu, cuda, mps or xpu")

    def _named(self, kind: type | None, value: Any, place: str, lazy: bool = False) -> Any:
        """The class that a field names, with its arguments; of no kind are functions."""
        whole = isinstance(value, Mapping)
        name, arguments = value, {}
        if whole:
            name, arguments = value.get(CLASS_PATH), value.get(INIT_ARGS, {})
        odd = {*value} - {CLASS_PATH, INIT_ARGS} if whole else set()
        if not isinstance(name, str) or odd:
            raise self._wrong(
                f"{place} is {value!r:.80}: it must be the name of a class, or hold "
                f"{CLASS_PATH} and {INIT_ARGS}"
            )
        found = self._classes(kind).get(name) if kind is not None else None
        if found is None:
            if self.foreign is not None and name not in self.foreign:
                raise self._wrong(
                    f"names {name:.200}, which is code from outside omnitraining that would be "
                    "run: add --trust (in Python trust=True) if you trust its author",
                    "",
                )
            self.named.add(name)
            return Foreign(name, arguments)
        return self._plan(found, arguments, place, f"{found.__module__}.{found.__name__}", lazy)

    def _classes(self, kind: type) -> Mapping[str, type]:
        if kind is Problem and self.problems:
            return {f"{one.__module__}.{one.__name__}": one for one in self.problems}
        return {name: one for name, one in own_classes().items() if issubclass(one, kind)}

    def _at_most(self, most: int) -> str:
        return f"it must be {most:,} or less in a model that is not trusted"

    def _wrong(self, words: str, colon: str = ":") -> InputError:
        return InputError(f"{self.source}{colon} {words}")


@cache
def own_classes() -> Mapping[str, type]:
    """The classes of this library that a configuration may name, by all their names.

    Names are short, as ``Conv4``, or full: ``omnitraining.Conv4``, or the path by the module or by
    a package that has the class. Algorithms that only their own module exports are included.
    """
    found: dict[str, type] = {}
    for classes in known_classes().values():
        found.update(classes)
    public = {name for name in found if name in omnitraining.__all__}
    found = {**found, **{f"omnitraining.{name}": found[name] for name in public}}
    for name in ("LibraryBackbone", "OwnBackbone"):
        found[f"{libraries.__name__}.{name}"] = getattr(libraries, name)
    for kind in {*found.values(), ParallelResNet18}:
        found[f"{kind.__module__}.{kind.__name__}"] = kind
    for package in (pretraining, metatraining):
        for module in (package, *_modules(package)):
            for name, kind in vars(module).items():
                if inspect.isclass(kind) and issubclass(kind, ALGORITHMS):
                    found[f"{module.__name__}.{name}"] = kind
    for name in backbones.__all__:
        found[f"{backbones.__name__}.{name}"] = getattr(backbones, name)
    return {name: kind for name, kind in found.items() if not inspect.isabstract(kind)}


def _modules(package: ModuleType) -> Iterator[ModuleType]:
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        yield import_module(module.name)


@cache
def _hints(kind: type) -> Mapping[str, Any]:
    return get_type_hints(kind.__init__)  # type: ignore[misc]  # of a class, not of an object


def _is_choice(value: Any, hint: Any) -> bool:
    """Whether it is one of the values of a `Literal`."""
    return any(type(value) is type(one) and value == one for one in get_args(hint))


def _others(hints: tuple[Any, ...]) -> list[Any]:
    """The types of a union but for None and for choices, unless there are only choices."""
    some = [one for one in hints if one is not type(None)]
    return [one for one in some if get_origin(one) is not Literal] or some


def _made(value: Any) -> Any:
    return value.made() if isinstance(value, Plan) else value


def flat(plan: Plan) -> dict[str, Any]:
    """The leaves of a plan by their paths, defaults included, to be compared."""
    return dict(_leaves(plan, ""))


def _leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Plan):
        if value.name:
            yield f"{place}.{CLASS_PATH}", value.name
        inside = f"{place}.{INIT_ARGS}." if value.name else f"{place}." if place else ""
        for field, parameter in inspect.signature(value.kind).parameters.items():
            default = _default(value.kind, parameter)
            yield from _leaves(value.arguments.get(field, default), inside + field)
    elif isinstance(value, Foreign):
        yield f"{place}.{CLASS_PATH}", value.name
        yield from _leaves(value.arguments or {}, f"{place}.{INIT_ARGS}")
    elif isinstance(value, Mapping) and value:
        for key, one in value.items():
            yield from _leaves(one, f"{place}.{key}")
    elif value is not None and value != {}:
        yield place, [*value] if isinstance(value, tuple) else value


def _default(kind: type, parameter: inspect.Parameter) -> Any:
    """The default of a parameter, options as plans."""
    value = parameter.default
    if value is parameter.empty:
        return None
    if is_dataclass(kind):
        option = kind.__dataclass_fields__[parameter.name]
        if callable(option.default_factory):
            value = option.default_factory()
    if not is_dataclass(value) or isinstance(value, type):
        return value
    made = type(value)
    name = f"{made.__module__}.{made.__name__}" if isinstance(value, KINDS) else ""
    return Plan(made, name, dict(vars(value)))

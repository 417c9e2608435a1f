"""A configuration as plain values: read from YAML and completed, before its fields are checked."""

import copy
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from omnitraining.config.fields import find_class
from omnitraining.config.recipes import FIELD
from omnitraining.config.strict import fields_of, reading_yaml
from omnitraining.errors import InputError

MAX_VALUES = 100_000
"""Most values of a configuration, aliases counted as often as they occur."""
_INTEGER, _FLOAT, _MERGE = (f"tag:yaml.org,2002:{name}" for name in ("int", "float", "merge"))


def read_values(path: Path) -> dict[str, Any]:
    """The values of a configuration file, not checked yet.

    Args:
        path: the file; the name of a shipped one will do.

    Raises:
        InputError: the file cannot be read.
    """
    shipped = Path(__file__).parent / "configs" / path
    if not path.is_file() and shipped.is_file():
        path = shipped
    if not path.is_file():
        raise InputError(f"no configuration file at {path}: 'omni list' shows the shipped ones")
    return read_yaml(path)


def read_yaml(path: Path) -> dict[str, Any]:
    """The values of a YAML file, of which nothing is run.

    Raises:
        InputError: it is not YAML, holds no fields, has a field twice or a number that YAML 1.1
            parses as another, or expands to too many values.
    """
    with reading_yaml(path):
        node = yaml.compose(path.read_bytes(), Loader=yaml.SafeLoader)
        if _expanded_count(node, {}) > MAX_VALUES:
            raise InputError(f"{path} stands for more than {MAX_VALUES:,} values")
        _check_plain(node, path, set())
        values = yaml.constructor.SafeConstructor().construct_document(node) if node else None
        return fields_of(values, path)


def _expanded_count(node: yaml.Node | None, known: dict[int, int]) -> int:
    """Number of values that a node expands to, with aliases and merge keys counted at every use.

    A few lines of aliases of aliases can expand to more values than there is memory.

    Args:
        node: of a document that has not been expanded.
        known: counts of nodes, by identity; the count of a node that contains itself is above the
            limit.
    """
    if node is None or isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = MAX_VALUES + 1  # while it is counted
        parts = [
            part for item in node.value for part in (item if isinstance(item, tuple) else (item,))
        ]
        known[id(node)] = 1 + sum(_expanded_count(part, known) for part in parts)
    return known[id(node)]


def _check_plain(node: yaml.Node | None, path: Path, seen: set[int]) -> None:
    """Refuse values that YAML 1.1 parses otherwise than a reader would expect.

    Args:
        node: of a document.
        path: of the file.
        seen: identities of the nodes that were checked, as an alias leads to the same node again.

    Raises:
        InputError: a key is there twice, so that its first value would be lost; or a number has
            the form of YAML 1.1's octal (010 is 8) or sexagesimal (1:30 is 90) numbers.
    """
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    place = f"{path}, line {node.start_mark.line + 1}"
    if isinstance(node, yaml.ScalarNode) and node.tag in (_INTEGER, _FLOAT):
        text = node.value.replace("_", "").lstrip("+-")
        if ":" in text or (node.tag == _INTEGER and len(text) > 1 and text.isdecimal()
                           and text[0] == "0"):  # fmt: skip
            number = yaml.constructor.SafeConstructor().construct_object(node)
            raise InputError(
                f"{place}: {node.value} would be read as {number}: write that, or a text in quotes"
            )
    if isinstance(node, yaml.SequenceNode):
        for part in node.value:
            _check_plain(part, path, seen)
    if isinstance(node, yaml.MappingNode):
        names = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                if key.value in names:
                    line = key.start_mark.line + 1
                    raise InputError(f"{path}, line {line}: {key.value!r:.80} is there twice")
                names.add(key.value)
            _check_plain(key, path, seen)
            _check_plain(value, path, seen)


def with_own_defaults(values: Any) -> Any:
    """Values in which every algorithm that is named by class has all its options.

    Otherwise jsonargparse would fill missing options with the values of the default class where the
    named class has options of the same names: MatchingNet would get ProtoNet's scale.
    """
    if not isinstance(values, Mapping):
        return values
    complete = {key: with_own_defaults(value) for key, value in values.items()}
    named = find_class(str(complete.get("class_path")))
    given = complete.get("init_args", {})
    if named is None or not is_dataclass(named) or not isinstance(given, Mapping):
        return complete
    options = {f.name: _plain(f) for f in fields(named) if f.name not in given}
    return {**complete, "init_args": {**given, **options}}


def _plain(option: Field[Any]) -> Any:
    """The default of an option as a configuration would state it."""
    value = option.default_factory() if option.default_factory is not MISSING else option.default
    if not is_dataclass(value) or isinstance(value, type):
        return value
    inner = {f.name: getattr(value, f.name) for f in fields(value)}
    return {"class_path": class_path(type(value)), "init_args": inner}


def class_path(kind: type) -> str:
    """The path by which a configuration names a class, as ``package.module.Class``."""
    return f"{kind.__module__}.{kind.__qualname__}"


def with_classes(values: dict[str, Any], options: list[str]) -> dict[str, Any]:
    """Values of a file without the options of classes that the command line replaces."""
    kept = copy.deepcopy(values)
    for option, following in pairwise([*options, ""]):
        name, _, given = option.partition("=")
        *path, last = name.removeprefix("--").removesuffix(".class_path").split(".")
        given = given or following
        if find_class(given) is None:  # not a class, or one that the parser will refuse
            continue
        holder = kept
        for part in path:
            holder = holder.setdefault(part, {}).setdefault("init_args", {})
        before = holder.get(last)
        before = before.get("class_path", "") if isinstance(before, Mapping) else ""
        if before.rpartition(".")[2] != given.rpartition(".")[2]:
            holder[last] = {"class_path": given}
    return kept


def recipe_of(options: list[str]) -> tuple[str, list[str]]:
    """The recipe that a command line names, or "", and the other options."""
    left, name = [], ""
    given = iter(options)
    for option in given:
        key, equals, value = option.partition("=")
        if key != f"--{FIELD}":
            left.append(option)
        elif not (name := value if equals else next(given, "")):
            raise InputError(f"--{FIELD} has no value: give it as --{FIELD} paper")
    return name, left

"""Files that anyone may have written, read as plain values: bounded, and without any expansion.

YAML has anchors, aliases, merge keys and tags, with which a few lines expand to more values than
there is memory, or to objects. None of them is needed in a file that this library writes, and all
of them are refused here. Nothing is expanded, so that time and memory are in proportion to the
file, which has a largest size.
"""

import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from omnitraining.config.former_names import with_new_names
from omnitraining.errors import InputError

MAX_BYTES = 1 << 18
"""Bytes of a configuration; one that lists a thousand layers has a tenth of this."""
MAX_JSON = 1 << 24
"""Bytes of a JSON text; the JSON of a learner has a label for each support image."""
MAX_DEPTH = 32
MAX_VALUES = 10_000
"""Values of a configuration, each of which takes the YAML parser a tenth of a millisecond."""
MAX_JSON_VALUES = 200_000
MAX_TEXT = 4_096
"""Characters of one text."""

_PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float")}
_MERGE = "tag:yaml.org,2002:merge"


def read_bytes(path: Path, most: int | None = None) -> bytes:
    """The content of an ordinary file.

    Args:
        path: the file; pipes and devices are refused, not waited for.
        most: bytes that it may have.

    Raises:
        InputError: it is no ordinary file, has more bytes, or cannot be read.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        with os.fdopen(os.open(path, flags), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InputError(f"{path} is a folder, a pipe or a device: it must be a file")
            data = file.read(-1 if most is None else most + 1)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    if most is not None and len(data) > most:
        raise InputError(f"{path} has more than {most:,} bytes: it is not what it should be")
    return data


def read_yaml_strictly(path: Path) -> dict[str, Any]:
    """The fields of an untrusted YAML file.

    Keys are texts as they are spelled, so that ``8: full`` is of layer "8".

    Raises:
        InputError: it is not plain YAML of one mapping, or is out of bounds.
    """
    with reading_yaml(path):
        text = read_bytes(path, MAX_BYTES).decode("utf-8")
        events = yaml.parse(text, Loader=yaml.SafeLoader)
        values = fields_of(_Document(events, str(path)).values(), path)
    check_bounds(values, str(path))
    return values


@contextmanager
def reading_yaml(path: Path) -> Iterator[None]:
    """Errors of a YAML parser become one line that names the file."""
    try:
        yield
    except InputError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from error


def fields_of(values: Any, path: Path) -> dict[str, Any]:
    """The fields of a YAML file, with the current names of fields.

    Raises:
        InputError: the values are not a mapping.
    """
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold fields and values, as in 'seed: 0'")
    renamed: dict[str, Any] = with_new_names(values)
    return renamed


def read_json_strictly(text: str | bytes, source: str) -> Any:
    """The values of an untrusted JSON text.

    Args:
        text: of a file.
        source: what the text is from.

    Raises:
        ValueError: it is not JSON, or a key is there twice.
        InputError: it is out of bounds.
    """
    values = parsed_json(text, source)
    check_bounds(values, source, MAX_JSON_VALUES)
    return values


def parsed_json(text: str | bytes, source: str) -> Any:
    """As `read_json_strictly`, without a check of the values."""
    if len(text) > MAX_JSON:
        raise InputError(f"{source} is damaged: its description has more than {MAX_JSON:,} bytes")
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_not_finite)
    except RecursionError as error:
        raise InputError(f"{source} is damaged: values are nested too deeply") from error


def check_bounds(values: Any, source: str, most: int = MAX_VALUES) -> None:
    """Check depth, number and length of plain values.

    Raises:
        InputError: one of them is out of bounds, or a number is not finite.
    """
    left, count = [(values, 0)], 0
    while left:
        value, depth = left.pop()
        count += 1
        if depth > MAX_DEPTH:
            raise InputError(f"{source} nests values more than {MAX_DEPTH} deep")
        if isinstance(value, str) and len(value) > MAX_TEXT:
            raise InputError(f"{source} holds a text of more than {MAX_TEXT:,} characters")
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{source} holds {value}, which is not a finite number")
        if isinstance(value, Mapping):
            left += [(inner, depth + 1) for pair in value.items() for inner in pair]
        elif isinstance(value, list):
            left += [(inner, depth + 1) for inner in value]
        if count + len(left) > most:
            raise InputError(f"{source} stands for more than {most:,} values")


class _Document:
    """The values of one YAML document, from the events of the parser.

    Args:
        events: of `yaml.parse`.
        source: where they are from.
    """

    def __init__(self, events: Iterator[yaml.Event], source: str) -> None:
        self.events, self.source, self.count = events, source, 0
        self.resolver = yaml.resolver.Resolver()
        self.constructor = yaml.constructor.SafeConstructor()

    def values(self) -> Any:
        started = [type(next(self.events)) for _ in range(2)]
        if started != [yaml.StreamStartEvent, yaml.DocumentStartEvent]:
            return None  # an empty file
        found = self._value(next(self.events), 0)
        ended = [type(event) for event in self.events]
        if ended != [yaml.DocumentEndEvent, yaml.StreamEndEvent]:
            raise InputError(f"{self.source} holds more than one document: give one")
        return found

    def _value(self, event: yaml.Event, depth: int) -> Any:
        self.count += 1
        line = event.start_mark.line + 1
        for what, mark in (("anchors (&)", "anchor"), ("tags (!)", "tag")):
            if getattr(event, mark, None) is not None:
                raise self._refused(line, "aliases (*)" if self._is_alias(event) else what)
        if depth > MAX_DEPTH:
            raise InputError(f"{self.source} is not YAML: more than {MAX_DEPTH} levels deep")
        if self.count > MAX_VALUES:
            raise InputError(f"{self.source} stands for more than {MAX_VALUES:,} values")
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        if isinstance(event, yaml.SequenceStartEvent):
            return [*self._until(yaml.SequenceEndEvent, depth)]
        return self._mapping(depth)

    def _until(self, end: type[yaml.Event], depth: int) -> Iterator[Any]:
        while not isinstance(event := next(self.events), end):
            yield self._value(event, depth + 1)

    def _mapping(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            line = event.start_mark.line + 1
            self._value(event, depth + 1)  # for its checks
            if not isinstance(event, yaml.ScalarEvent):
                raise InputError(f"{self.source}, line {line}: a key must be a text")
            if event.implicit[0] and self._tag(event) == _MERGE:
                raise self._refused(line, "merge keys (<<)")
            if event.value in found:
                raise InputError(f"{self.source}, line {line}: {event.value!r:.80} is there twice")
            found[event.value] = self._value(next(self.events), depth + 1)
        return found

    def _scalar(self, event: yaml.ScalarEvent) -> Any:
        if len(event.value) > MAX_TEXT:
            raise InputError(f"{self.source} holds a text of more than {MAX_TEXT:,} characters")
        tag = self._tag(event)
        if tag not in _PLAIN:
            return event.value
        return self.constructor.construct_object(yaml.ScalarNode(tag, event.value))

    def _tag(self, event: yaml.ScalarEvent) -> Any:
        return self.resolver.resolve(yaml.ScalarNode, event.value, event.implicit)

    @staticmethod
    def _is_alias(event: yaml.Event) -> bool:
        return isinstance(event, yaml.AliasEvent)

    def _refused(self, line: int, what: str) -> InputError:
        return InputError(
            f"{self.source}, line {line}: {what} are not read in files that are not trusted: "
            "write values out, or add --trust (in Python trust=True) if you trust its author"
        )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def _not_finite(name: str) -> Any:
    raise ValueError(f"{name} is not a finite number")

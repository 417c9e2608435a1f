"""Fields of a configuration that vary: values from the command line, and all their combinations."""

import re
from dataclasses import dataclass
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace

from omnitraining.config import recipes
from omnitraining.config.run_config import dump, instantiate, read_config
from omnitraining.errors import InputError
from omnitraining.experiments.record import Values
from omnitraining.training import find_device

Fields = dict[str, str]
"""A value, as the command line has it, by field."""


@dataclass(frozen=True)
class Combination:
    """One combination of values.

    Attributes:
        label: the values that differ between cells, as "weight=1, lr=0.01".
        varied: these values by field, as parsed for the configuration.
        values: the whole configuration.
    """

    label: str
    varied: Values
    values: Values

    @property
    def folder(self) -> str:
        """A name for a folder; the same for the same label."""
        if re.fullmatch(r"[\w.+=, -]{1,100}", self.label):
            return self.label.replace(", ", ",")
        short = re.sub(r"[^\w.+=-]+", "_", self.label)[:60]
        return f"{short}-{sha256(self.label.encode()).hexdigest()[:8]}"


def given_fields(options: list[str]) -> Fields:
    """Fields with their texts, from what the command line has beside a command's own options.

    Args:
        options: as in ``--loss.distill_weight 0,1`` or ``--loss.distill_weight=0,1``.

    Raises:
        InputError: a field has no value, or is given twice.
    """
    found: Fields = {}
    rest = list(options)
    while rest:
        name, equals, text = rest.pop(0).partition("=")
        if not name.startswith("--"):
            raise InputError(
                f"{name!r} is not understood: fields are given as --loss.distill_weight 0,1,3"
            )
        field = name.removeprefix("--")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise InputError(f"{name} has no value: give it as {name} VALUE")
            text = rest.pop(0)
        if field in found:
            raise InputError(f"{name} is given twice: separate its values by commas")
        found[field] = text
    return found


def listed(text: str) -> list[str]:
    """The parts of a text between commas; commas inside brackets or quotes do not count."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote or letter in "'\"":
            quote = "" if letter == quote else quote or letter
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def combinations(path: Path, fields: dict[str, list[str]]) -> list[Combination]:
    """All combinations of values, the last field varying fastest; each is checked.

    Args:
        path: configuration file, or the name of a shipped one.
        fields: values by field; a field of one value is the same in all cells.

    Raises:
        InputError: a field is unknown, a value is wrong, or two values are the same.
    """
    for field, values in fields.items():
        if empty := [value for value in values if not value]:
            raise InputError(f"--{field} has {len(empty)} empty values: give it as --{field} 0,1,3")
    several = [field for field, values in fields.items() if len(values) > 1]
    names = _short_names(several)
    found: list[Combination] = []
    for combination in product(*fields.values()):
        chosen = dict(zip(fields, combination, strict=True))
        config = checked(path, chosen)
        label = ", ".join(f"{names[field]}={chosen[field]}" for field in several)
        varied = {
            field: chosen[field] if field == recipes.FIELD else value_of(config, field)
            for field in several
        }
        values = yaml.safe_load(dump(config))
        if twin := next((cell for cell in found if cell.values == values), None):
            raise InputError(f"{label} and {twin.label} are the same configuration")
        found.append(Combination(label or path.stem, varied, values))
    return found


def checked(path: Path, fields: Fields) -> Namespace:
    """A configuration with some fields replaced, checked by instantiating it.

    One thread is used, unless the configuration sets a number: it changes how sums are rounded, and
    results must not depend on how many runs there are at a time.

    Raises:
        InputError: a field is unknown, or a value is wrong or out of range.
    """
    config = read_config(path, [f"--{field}={value}" for field, value in fields.items()])
    if config.training.threads is None:
        config.training.threads = 1
    try:
        find_device(instantiate(config).training.device)
    except InputError as error:
        given = " ".join(f"--{field} {value}" for field, value in fields.items())
        raise InputError(f"with {given}: {error}" if given else str(error)) from error
    return config


def value_of(config: Namespace, field: str) -> Any:
    """The value of a field that the command line names, as "problem.data"."""
    found: Any = config
    for part in field.split("."):
        inner = found.get("init_args") if isinstance(found, Namespace) else None
        found = (inner if inner is not None and part in inner else found)[part]
    if isinstance(found, Namespace) and "class_path" in found:
        return found["class_path"].rpartition(".")[2]
    return found


def _short_names(fields: list[str]) -> dict[str, str]:
    """The last part of every field, or the whole where two would be called the same."""
    last = {field: field.rpartition(".")[2] for field in fields}
    return {f: name if [*last.values()].count(name) == 1 else f for f, name in last.items()}

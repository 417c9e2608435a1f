"""Where the paths of a configuration lead: beside its file, so that a folder can be moved whole.

A path that is not absolute is looked for beside the configuration file; and in the current folder,
if it is there and not beside the file. The configuration of a run has its paths relative to the
run's folder, unless they have nothing but the root in common.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from omnitraining.config.trust import Plan
from omnitraining.errors import InputError


def paths_in(config: Namespace) -> Iterator[tuple[str, Path]]:
    """The fields of a configuration that are paths, by name."""
    for name, value in config.items():
        if isinstance(value, Path):
            yield name, value


def settled(config: Namespace, folder: Path, known: Mapping[str, str] | None = None) -> Namespace:
    """A configuration whose paths are absolute.

    Args:
        config: as it was read.
        folder: of its file.
        known: of a run, where its paths led when it was trained: they are relative to its folder,
            and where one leads nowhere, as that was moved alone, it is where it was.

    Raises:
        InputError: a path leads to two places.
    """
    made: Namespace = config.clone()
    for name, path in paths_in(config):
        made[name] = _settled(name, path, folder, known)
    return made


def settled_plan(
    plan: Plan, folder: Path, known: Mapping[str, str] | None = None, place: str = ""
) -> Plan:
    """The same of the configuration of someone else, of which nothing has been made.

    Args:
        plan: as it was read.
        folder: of its file.
        known: as in `settled`.
        place: of the plan in the whole.
    """
    inside = f"{place}.init_args." if plan.name else f"{place}." if place else ""
    arguments = dict(plan.arguments)
    for name, value in plan.arguments.items():
        if isinstance(value, Plan):
            arguments[name] = settled_plan(value, folder, known, inside + name)
        elif isinstance(value, Path):
            arguments[name] = _settled(inside + name, value, folder, known)
    return replace(plan, arguments=arguments)


def relative(config: Namespace, folder: Path) -> Namespace:
    """A configuration with absolute paths, as it is written to a folder."""
    made: Namespace = config.clone()
    for name, path in paths_in(config):
        own = os.path.abspath(folder)
        if path.is_absolute() and Path(os.path.commonpath([own, path])) != Path(path.anchor):
            made[name] = Path(os.path.relpath(path, own))
    return made


def _settled(name: str, path: Path, folder: Path, known: Mapping[str, str] | None) -> Path:
    path = path.expanduser()
    beside = Path(os.path.abspath(folder / path))
    if known is None:
        return _beside_or_here(name, path, beside)
    return beside if beside.exists() else Path(known.get(name, beside))


def _beside_or_here(name: str, path: Path, beside: Path) -> Path:
    here = Path(os.path.abspath(path))
    if path.is_absolute() or not here.exists():
        return beside
    if beside.exists() and not beside.samefile(here):
        raise InputError(
            f"{name} is {path}, of which there are two: {beside}, beside the configuration, and "
            f"{here}, in the current folder; give the whole path"
        )
    return beside if beside.exists() else here


def as_texts(config: Namespace) -> dict[str, Any]:
    """Where the paths of a configuration lead, by field."""
    return {name: str(path) for name, path in paths_in(config)}

"""Paths in configurations, relative to the configuration file, so that a folder can be moved.

A relative path is resolved against the folder of the configuration file, and against the current
folder if it exists only there. The configuration of a run has paths relative to the run folder,
unless the two share nothing but the root.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from omnitraining.config.starts import library_of
from omnitraining.config.trust import Plan
from omnitraining.errors import InputError


def paths_in(config: Namespace) -> Iterator[tuple[str, Path]]:
    """Names and values of the fields of a configuration that are paths."""
    for name, value in config.items():
        if isinstance(value, Path):
            yield name, value


def absolute_paths(
    config: Namespace, folder: Path, known: Mapping[str, str] | None = None
) -> Namespace:
    """A configuration whose paths are absolute.

    Args:
        config: as read from a file.
        folder: of that file.
        known: absolute paths at the time of training, by field, if this is the configuration of a
            run; used where a relative path does not exist, as the run was moved without the data.

    Raises:
        InputError: a relative path exists both beside the file and in the current folder.
    """
    changed: Namespace = config.clone()
    for name, path in paths_in(config):
        if name != "start_from" or library_of(path) is None:
            changed[name] = _absolute(name, path, folder, known)
    return changed


def absolute_plan_paths(
    plan: Plan, folder: Path, known: Mapping[str, str] | None = None, place: str = ""
) -> Plan:
    """As `absolute_paths`, for the plan of an untrusted configuration, of which no object was made.

    Args:
        plan: as read from a file.
        folder: of that file.
        known: as in `absolute_paths`.
        place: name of the plan's field in the whole configuration.
    """
    inside = f"{place}.init_args." if plan.name else f"{place}." if place else ""
    arguments = dict(plan.arguments)
    for name, value in plan.arguments.items():
        if isinstance(value, Plan):
            arguments[name] = absolute_plan_paths(value, folder, known, inside + name)
        elif isinstance(value, Path) and not (name == "start_from" and library_of(value)):
            arguments[name] = _absolute(inside + name, value, folder, known)
    return replace(plan, arguments=arguments)


def relative_paths(config: Namespace, folder: Path) -> Namespace:
    """A configuration with absolute paths, made relative to a folder where possible."""
    changed: Namespace = config.clone()
    for name, path in paths_in(config):
        own = os.path.abspath(folder)
        if path.is_absolute() and Path(os.path.commonpath([own, path])) != Path(path.anchor):
            changed[name] = Path(os.path.relpath(path, own))
    return changed


def _absolute(name: str, path: Path, folder: Path, known: Mapping[str, str] | None) -> Path:
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


def paths_as_text(config: Namespace) -> dict[str, Any]:
    """The paths of a configuration as strings, by field."""
    return {name: str(path) for name, path in paths_in(config)}

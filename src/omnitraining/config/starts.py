"""Training that starts from a backbone of another library: ``start_from: timm/NAME``.

The name fills in the backbone, and a rank for the branches of its large layers. The run keeps the
architecture alone, so that it is loaded without the library's weights.
"""

import copy
import warnings
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from torch import nn

from omnitraining.backbones import FeatureWise
from omnitraining.config.values import class_path
from omnitraining.errors import InputError
from omnitraining.libraries import LibraryBackbone, of_transformers
from omnitraining.libraries.names import split

RANK = 8
"""Default rank of the branches of a pretrained backbone: full branches would triple its size."""

CLASS = class_path(LibraryBackbone)
HYPHENS = {"--start-from": "--start_from", "--start-weights": "--start_weights"}


def library_of(start: Path | str) -> tuple[str, str] | None:
    """Library and name of a start; None if it is a run folder.

    Raises:
        InputError: there is a folder of that name too.
    """
    parts = split(str(start))
    if parts is not None and Path(start).exists():
        raise InputError(
            f"start_from is {start}, which is a folder here and names a backbone too: give the "
            "whole path of the folder, or go to another one"
        )
    return parts


def with_underscores(options: list[str]) -> list[str]:
    """Options of the command line, with the fields of starts as the configuration has them."""
    changed = []
    for option in options:
        name, equals, value = option.partition("=")
        changed.append(f"{HYPHENS.get(name, name)}{equals}{value}")
    return changed


def with_start(values: Mapping[str, Any], options: list[str]) -> dict[str, Any]:
    """Values of a configuration with the backbone that a start names.

    Args:
        values: of the file.
        options: of the command line.

    Raises:
        InputError: another backbone is named too; or transformers is needed and missing.
    """
    filled = copy.deepcopy(dict(values))
    given = _given(options)
    start = given.get("start_from", filled.get("start_from"))
    parts = library_of(str(start)) if start else None
    if parts is None:
        return filled
    named = "--backbone" if "backbone" in given else "backbone"
    before = given.get("backbone") or (
        filled.get("backbone") if "start_from" not in given else None
    )
    kind = str(before.get("class_path") if isinstance(before, Mapping) else before)
    if before and kind.rpartition(".")[2] != LibraryBackbone.__name__:
        raise InputError(f"start_from is {start}, which is the backbone: leave {named} out")
    if not before:
        arguments = {"source": str(start)}
        if parts[0] == "transformers":
            folder = given.get("start_weights", filled.get("start_weights"))
            place = Path(folder) if folder else None
            arguments["config"] = of_transformers.config_of(str(start), parts[1], place)
        filled["backbone"] = {"class_path": CLASS, "init_args": arguments}
    options_of = {**{"rank": RANK}, **(filled.get("omninet") or {})}
    return {**filled, "omninet": options_of}


def with_start_size(config: Namespace) -> Namespace:
    """A configuration whose backbone of timm is made for the images of the problem.

    Args:
        config: with all its fields.
    """
    backbone, problem = config.get("backbone"), config.get("problem")
    kind = getattr(backbone, "class_path", "").rpartition(".")[2]
    if kind != LibraryBackbone.__name__ or not config.get("start_from"):
        return config
    arguments, size = backbone.init_args, getattr(problem.init_args, "size", None)
    if split(arguments.source)[0] == "timm" and arguments.get("size") is None:  # type: ignore[index]
        arguments.size = size
    return config


def pretrained_start(
    source: str, weights: Path | None, backbone: Callable[[], nn.Module]
) -> LibraryBackbone:
    """The pretrained backbone that a run starts from.

    Args:
        source: its name.
        weights: file of its weights.
        backbone: makes the backbone of the run.

    Warns:
        UserWarning: its images were of another size or normalization than is usual here.

    Raises:
        InputError: the run has another backbone, or the weights are missing.
    """
    made = backbone()
    bare = made.backbone if isinstance(made, FeatureWise) else made
    if not isinstance(bare, LibraryBackbone) or bare.source != source:
        raise InputError(
            f"start_from is {source}, and the backbone a {type(bare).__name__}: it must be "
            f"LibraryBackbone of {source}"
        )
    start = LibraryBackbone.pretrained(source, weights, bare.size)
    try:
        found = start.preprocessing(weights)
    except InputError:  # what learners of frozen backbones do not have may be trained with
        return start
    if bare.size not in (None, found.size):
        warnings.warn(
            f"{source} was trained with images of {found.size} pixels, and problem.size is "
            f"{bare.size}",
            stacklevel=2,
        )
    return start


def _given(options: list[str]) -> dict[str, str]:
    """Options of the command line without dots in their names, by field."""
    found = {}
    for option, following in pairwise([*options, ""]):
        name, equals, value = option.removeprefix("--").partition("=")
        if option.startswith("--"):
            found[name] = value if equals else following
    return found

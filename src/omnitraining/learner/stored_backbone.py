"""The description of a frozen backbone in a learner's file, and how the backbone is rebuilt."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from omnitraining.errors import InputError
from omnitraining.libraries import LibraryBackbone, PooledBackbone
from omnitraining.libraries.backbone import own_module, sha256
from omnitraining.omninet import copied


@dataclass(frozen=True)
class Frozen:
    """Facts on the frozen backbone of a learner.

    Attributes:
        words: features and preprocessing.
        from_library: whether a library makes it, or it is a module of the user's.
        from_file: whether its weights were in a file of the user's.
    """

    words: str
    from_library: bool
    from_file: bool


@dataclass(frozen=True)
class StoredBackbone(Frozen):
    """`Frozen` as stored in a file.

    Attributes:
        sha256: of the weights; see `omnitraining.libraries.backbone.sha256`.
        stored: whether the weights are in the file.
    """

    sha256: str
    stored: bool


def restored_backbone(
    facts: StoredBackbone,
    config: Mapping[str, Any],
    source: str,
    weights: Path | None,
    backbone: nn.Module | None,
) -> PooledBackbone | None:
    """The backbone of a learner's file, whose weights are checked if they are not in it.

    Args:
        facts: on the backbone.
        config: the class of the backbone, and its arguments.
        source: the file.
        weights: file of weights.
        backbone: the user's own module.

    Returns:
        None if the file has all that it takes.

    Raises:
        InputError: weights or module are missing, are given without need, or are not the ones that
            the learner was made with.
    """
    arguments = dict(config["init_args"])
    if facts.from_library and backbone is not None:
        raise InputError(f"the backbone of {source} is {arguments['source']}: leave backbone out")
    if weights is not None and (facts.stored or not facts.from_library):
        raise InputError(f"{source} needs no file of weights: leave weights out")
    if not facts.from_library:
        if backbone is None:
            raise InputError(f"{source}: {own_module(arguments['kind'])}")
        made = PooledBackbone(
            copied(backbone), **{k: v for k, v in arguments.items() if k != "kind"}
        )
    elif facts.stored:
        return None
    elif facts.from_file and weights is None:
        raise InputError(
            f"{source} holds no weights, and the weights of its backbone {arguments['source']} "
            f"were in a file: give that as weights (their SHA-256: {facts.sha256[:16]}...)"
        )
    else:
        features = arguments.pop("features", None)
        arguments.pop("config", None)
        made = LibraryBackbone.pretrained(weights=weights, **arguments)
        made.features = features
    if (found := sha256(made.model)) != facts.sha256 and not facts.stored:
        raise InputError(
            f"the backbone of {source} has other weights now: their SHA-256 is {found[:16]}..., "
            f"that of the learner {facts.sha256[:16]}..."
        )
    return made

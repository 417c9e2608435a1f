"""Backbones of timm: architecture, weights and preprocessing, by its public functions."""

import sys
from pathlib import Path
from typing import Any, cast

from torch import nn

from omnitraining.errors import InputError, described
from omnitraining.libraries.names import (
    Preprocessing,
    fill,
    imported,
    unknown,
    unreachable,
    without_retries,
)


def build(source: str, name: str, size: int | None = None) -> nn.Module:
    """An architecture with random weights, whose output is what its classifier would take.

    Args:
        source: as it was given.
        name: of timm, as "resnet18.a1_in1k".
        size: side of the input, if it is not the model's own.

    Raises:
        InputError: timm is missing, or has no such model.
    """
    return _made(source, name, size, pretrained=False)


def pretrained(source: str, name: str, size: int | None, file: Path | None) -> nn.Module:
    """As `build`, with pretrained weights.

    Args:
        source: as it was given.
        name: of timm.
        size: side of the input, if it is not the model's own.
        file: of weights, in place of the weights on the hub.

    Raises:
        InputError: as in `build`; or there are no weights, they cannot be downloaded, or do not
            fit.
    """
    timm = imported("timm", source)
    if file is None:
        _check_name(timm, source, name)
        if not timm.models.is_model_pretrained(name):
            raise InputError(
                f"timm has no pretrained weights of {name}: give a file of weights "
                "(--weights FILE), or choose from timm.list_pretrained()"
            )
        return _made(source, name, size, pretrained=True)
    model = _made(source, name, size, pretrained=False)
    state = timm.models.load_state_dict(str(file), weights_only=True)
    heads: Any = cast(Any, model).pretrained_cfg.get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    try:
        fill(model, state, heads, str(file))
    except InputError:  # the weights may be as their authors published them
        module = sys.modules[type(model).__module__]
        of_authors = getattr(module, "checkpoint_filter_fn", None)
        if of_authors is None:
            raise
        try:
            state = of_authors(state, model)
        except Exception as error:  # it is made for files of this architecture alone
            raise InputError(f"{file} does not fit {name}: {described(error)}") from error
        fill(model, state, heads, str(file))
    return model


def preprocessing(model: Any, source: str, size: int | None) -> Preprocessing:
    """The preprocessing of a model's training, by `timm.data.resolve_data_config`.

    Args:
        model: of timm.
        source: as it was given.
        size: side of the input, if it is not the model's own.

    Raises:
        InputError: its inputs are not square, or not cropped at the center.
    """
    data = imported("timm", source).data
    found = data.resolve_data_config({"img_size": size} if size else {}, model=model)
    channels, height, width = found["input_size"]
    if height != width or channels not in (1, 3):
        raise InputError(
            f"{source} takes inputs of {channels} x {height} x {width}: learners take square "
            "images of 1 or 3 channels"
        )
    if found["crop_mode"] not in ("center", "squash"):
        raise InputError(
            f"{source} has crop_mode {found['crop_mode']!r}: learners have center and squash"
        )
    return Preprocessing(
        height,
        int(height / found["crop_pct"]),
        tuple(map(float, found["mean"])),
        tuple(map(float, found["std"])),
        found["interpolation"],
        "crop" if found["crop_mode"] == "center" else "stretch",
    )


def pooling(model: Any) -> str:
    """How a model pools its features, in words; empty if the model does not specify it."""
    kind: Any = getattr(model, "global_pool", None)
    if not isinstance(kind, str):  # a module, here or in the head
        holder = kind if kind is not None else getattr(model, "head", None)
        holder = getattr(holder, "global_pool", holder)
        kind = getattr(holder, "pool_type", "")
    words = {"token": "class token", "map": "attention pooling", "avg": "average"}
    return words.get(str(kind), str(kind or ""))


def _made(source: str, name: str, size: int | None, pretrained: bool) -> nn.Module:
    timm = imported("timm", source)
    _check_name(timm, source, name)
    options: dict[str, Any] = {"pretrained": pretrained, "num_classes": 0}

    def create(**more: Any) -> nn.Module:
        model: nn.Module = timm.create_model(name, **options, **more)
        return model

    try:
        with without_retries():
            if size is None:
                return create()
            try:
                return create(img_size=size)
            except TypeError:  # convolutional networks take any size, and have no such option
                return create()
    except RuntimeError as error:
        if "pretrained tag" not in str(error):
            raise
        raise InputError(f"{source}: {error} timm.list_pretrained() lists them") from error
    except Exception as error:
        if not pretrained:
            raise
        raise unreachable(source, error) from error


def _check_name(timm: Any, source: str, name: str) -> None:
    # Names of other sources, as "hf-hub:owner/name", would let a learner's file download anything.
    if ":" in name or "/" in name or not timm.is_model(name):
        raise unknown(source, "timm", name, timm.list_models(), "timm.list_models()")

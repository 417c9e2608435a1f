"""Backbones of torchvision: architecture, weights and preprocessing, by its public functions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from omnitraining.errors import InputError, described
from omnitraining.libraries.names import Preprocessing, fill, imported, unknown, unreachable

HEADS = ("fc", "classifier", "head", "heads")
"""Names of the classifier in the models of torchvision."""

AUXILIARY = ("aux1", "aux2", "AuxLogits")
"""Further classifiers of GoogLeNet and Inception, which serve training only."""


def build(source: str, name: str) -> nn.Module:
    """An architecture with random weights, whose last linear layer is left out.

    Args:
        source: as it was given.
        name: of torchvision, with or without the name of its weights: "resnet18.IMAGENET1K_V1".

    Raises:
        InputError: torchvision is missing, has no such model, or it ends in no linear layer.
    """
    return headless(_made(source, name, None), source)[0]


def pretrained(source: str, name: str, file: Path | None) -> nn.Module:
    """As `build`, with pretrained weights.

    Args:
        source: as it was given.
        name: of torchvision.
        file: of weights, in place of torchvision's weights.

    Raises:
        InputError: as in `build`; or there are no weights, they cannot be downloaded, or do not
            fit.
    """
    if file is None:
        return headless(_made(source, name, _weights(source, name)), source)[0]
    model, head = headless(_made(source, name, None), source)
    fill(model, read_state(file), (head, *AUXILIARY), str(file))
    return model


def preprocessing(source: str, name: str) -> Preprocessing:
    """The preprocessing of the weights' training, by the transforms that belong to them.

    Args:
        source: as it was given.
        name: of torchvision.

    Raises:
        InputError: the transforms are not transforms for classification.
    """
    made = _weights(source, name).transforms()
    try:
        (size,), (stored,) = made.crop_size, made.resize_size
        return Preprocessing(
            size, stored, tuple(made.mean), tuple(made.std), made.interpolation.value
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"{source} is not a classifier of images: its transforms are {type(made).__name__}"
        ) from error


def read_state(file: Path) -> Mapping[str, Tensor]:
    """Weights by name, of a file of safetensors or of torch.

    Files of torch are read with ``weights_only``, so that no code in them is run.

    Raises:
        InputError: there is no such file, or it holds something else.
    """
    if not file.is_file():
        raise InputError(f"there is no file of weights at {file}")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise about any type of error
        raise InputError(f"{file} holds no weights that can be read: {described(error)}") from error
    if not isinstance(state, Mapping) or not all(isinstance(x, Tensor) for x in state.values()):
        raise InputError(f"{file} holds no state dict: it must map names to tensors")
    return state


def headless(model: nn.Module, source: str) -> tuple[nn.Module, str]:
    """A classifier without its last linear layer, and the path of that layer.

    Args:
        model: it is changed.
        source: as it was given.

    Raises:
        InputError: it ends in another layer.
    """
    for name in AUXILIARY:
        if hasattr(model, name):
            setattr(model, name, None)
    leaves = [path for path, module in model.named_modules() if not [*module.children()]]
    linear = [path for path in leaves if isinstance(model.get_submodule(path), nn.Linear)]
    outside = [path for path in linear if path.partition(".")[0] in HEADS]
    if not outside:
        raise InputError(f"{source} does not end in a linear layer, whose input would be features")
    parent, _, last = outside[-1].rpartition(".")
    setattr(model.get_submodule(parent), last, nn.Identity())
    return model, outside[-1]


def _made(source: str, name: str, weights: Any) -> nn.Module:
    models = imported("torchvision", source).models
    name = name.partition(".")[0]
    if name not in models.list_models(module=models):
        known = models.list_models(module=models)
        lister = "torchvision.models.list_models()"
        raise unknown(source, "torchvision", name, known, lister)
    options = {"init_weights": False} if weights is None and name in _SLOW else {}
    try:
        model: nn.Module = models.get_model(name, weights=weights, **options)
    except Exception as error:
        if weights is None:
            raise
        raise unreachable(source, error) from error
    return model


_SLOW = ("googlenet", "inception_v3")  # whose default initialization takes half a minute


def _weights(source: str, name: str) -> Any:
    models = imported("torchvision", source).models
    name, _, tag = name.partition(".")
    if name not in models.list_models(module=models):
        lister = "torchvision.models.list_models()"
        raise unknown(source, "torchvision", name, models.list_models(module=models), lister)
    weights = models.get_model_weights(name)
    if tag and tag not in weights.__members__:
        raise InputError(
            f"{source}: torchvision has no weights {tag!r} of {name}: choose from "
            f"{', '.join(weights.__members__)}"
        )
    return weights[tag] if tag else weights.DEFAULT

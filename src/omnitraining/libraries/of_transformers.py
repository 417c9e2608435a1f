"""Backbones of transformers: architecture, weights and preprocessing, by its Auto classes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from omnitraining.datasets.decoding import Aspect
from omnitraining.errors import InputError, described
from omnitraining.libraries.names import Preprocessing, imported, unreachable, without_retries

NOT_KEPT = ("implementation", "quantization", "auto_map", "backbone", "kernel")
"""Parts of names of fields that would make transformers fetch code or further models."""


OUTPUTS = ("logits", "pooler_output")
"""Outputs of a model; the first it has is used. Logits are features: the classifier is removed."""


class Features(nn.Module):
    """The features of a model of transformers.

    The features of a model of images and texts are the embedding of the image; the features of any
    other model are the inputs of its own classifier.

    Args:
        model: of transformers.
    """

    def __init__(self, model: nn.Module) -> None:
        """Keep the model."""
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        """Features [B, D] of normalized images [B, C, H, W].

        Raises:
            InputError: the model has no such output.
        """
        if of_images(self.model):
            output = self.model.get_image_features(pixel_values=pixels)  # type: ignore[operator]
        else:
            output = self.model(pixel_values=pixels)
        found = [output, *(getattr(output, name, None) for name in OUTPUTS)]
        for features in found:
            if isinstance(features, Tensor):
                return features.flatten(1) if features.dim() == 4 else features
        raise InputError(f"{type(self.model).__name__} has no pooled output")


def of_images(model: Any) -> bool:
    """Whether a model embeds images and texts, as CLIP does."""
    return hasattr(model, "get_image_features")


def build(source: str, config: str) -> nn.Module:
    """An architecture with random weights.

    Args:
        source: as it was given.
        config: of the model, as a text of JSON.

    Raises:
        InputError: transformers is missing, or the configuration is not one of its models.
    """
    transformers = imported("transformers", source)
    try:
        values = _kept_fields(json.loads(config))
        made = transformers.AutoConfig.for_model(**values)
        return Features(_class(transformers, made).from_config(made)).eval()
    except InputError:
        raise
    except Exception as error:  # of any type: the configuration may be of another version
        raise InputError(f"{source} cannot be made: {described(error)}") from error


def config_of(source: str, name: str, folder: Path | None) -> str:
    """The configuration of a model without its classifier, as a text of JSON.

    Args:
        source: as it was given.
        name: on the hub.
        folder: of the model, in place of the hub.

    Raises:
        InputError: transformers is missing, or the configuration cannot be loaded.
    """
    config = _config(imported("transformers", source), source, name, folder)
    return json.dumps(_kept_fields(config.to_diff_dict()), default=str)


def pretrained(source: str, name: str, folder: Path | None) -> tuple[nn.Module, str]:
    """A model with pretrained weights, and its configuration as a text of JSON.

    Args:
        source: as it was given.
        name: on the hub.
        folder: of the model, in place of the hub.

    Raises:
        InputError: transformers is missing, or the model cannot be loaded.
    """
    transformers = imported("transformers", source)
    config = _config(transformers, source, name, folder)
    place = _place(name, folder)
    try:
        with without_retries():
            model, loading = _class(transformers, config).from_pretrained(
                place,
                config=config,
                trust_remote_code=False,
                output_loading_info=True,
                dtype=torch.float32,
            )
    except InputError:
        raise
    except Exception as error:
        raise unreachable(source, error) from error
    if missing := sorted(loading["missing_keys"]):
        raise InputError(
            f"{source} lacks {len(missing)} weights of {type(model).__name__}, as {missing[0]}"
        )
    return Features(model).eval(), json.dumps(_kept_fields(config.to_diff_dict()), default=str)


def preprocessing(source: str, name: str, folder: Path | None) -> Preprocessing:
    """The preprocessing of a model's training, by its image processor.

    Args:
        source: as it was given.
        name: on the hub.
        folder: of the model, in place of the hub.

    Raises:
        InputError: there is no image processor, or it does what learners do not.
    """
    transformers = imported("transformers", source)
    try:
        with without_retries():
            processor = transformers.AutoImageProcessor.from_pretrained(
                _place(name, folder), trust_remote_code=False
            )
    except Exception as error:
        raise InputError(
            f"{source} has no image processor that can be loaded: {described(error)}"
        ) from error
    return _of_processor(processor.to_dict(), source)


def _of_processor(values: Mapping[str, Any], source: str) -> Preprocessing:
    """The preprocessing that the fields of an image processor describe."""
    size, crop = dict(values.get("size") or {}), dict(values.get("crop_size") or {})
    aspect: Aspect = "crop" if "shortest_edge" in size else "stretch"
    stored = size.get("shortest_edge") or size.get("height")
    network = stored
    if values.get("do_center_crop"):
        network = crop.get("height")
    elif "crop_pct" in values and aspect == "crop" and stored and stored < 384:
        network, stored = stored, int(stored / values["crop_pct"])  # as ConvNeXt's processor does
    elif "crop_pct" in values:
        aspect = "stretch"
    elif aspect == "crop":
        raise _unsupported(source, "an image that is not square", values)
    square = size.get("height") == size.get("width") and crop.get("height") == crop.get("width")
    if not (square and isinstance(stored, int) and isinstance(network, int)):
        raise _unsupported(source, "sizes", values)
    if not values.get("do_resize", True) or network > stored:
        raise _unsupported(source, "no resizing, or a crop larger than the image", values)
    if abs(float(values.get("rescale_factor", 1 / 255)) - 1 / 255) > 1e-6:
        raise _unsupported(source, "another range of pixels", values)
    mean, std = values.get("image_mean") or (0.0,) * 3, values.get("image_std") or (1.0,) * 3
    if values.get("do_normalize") is False:
        mean, std = (0.0,) * 3, (1.0,) * 3
    methods = dict(enumerate(("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")))
    statistics = tuple(map(float, mean)), tuple(map(float, std))
    method: Any = methods[int(values.get("resample", 2))]
    return Preprocessing(network, stored, *statistics, method, aspect)


def _kept_fields(values: Any) -> Any:
    """A configuration without the fields of ``NOT_KEPT``, at any depth."""
    if isinstance(values, Mapping):
        return {
            name: _kept_fields(value)
            for name, value in values.items()
            if not any(part in str(name) for part in NOT_KEPT)
        }
    return [*map(_kept_fields, values)] if isinstance(values, list | tuple) else values


def _unsupported(source: str, what: str, values: Mapping[str, Any]) -> InputError:
    shown = {name: values.get(name) for name in ("size", "crop_size", "do_center_crop")}
    return InputError(
        f"the image processor of {source} makes {what}, which learners do not: {shown}"
    )


def _place(name: str, folder: Path | None) -> str:
    if folder is not None and not folder.is_dir():
        raise InputError(
            f"weights of transformers/{name} are {folder}: give the folder that holds config.json, "
            "model.safetensors and preprocessor_config.json"
        )
    return str(folder) if folder is not None else name


def _config(transformers: Any, source: str, name: str, folder: Path | None) -> Any:
    try:
        with without_retries():
            config = transformers.AutoConfig.from_pretrained(
                _place(name, folder), trust_remote_code=False
            )
    except InputError:
        raise
    except Exception as error:
        raise unreachable(source, error) from error
    if not _has_text(config):
        config.num_labels = 0  # so that the classifier is left out
    return config


def _has_text(config: Any) -> bool:
    return hasattr(config, "text_config") and hasattr(config, "vision_config")


def _class(transformers: Any, config: Any) -> Any:
    """The class of a configuration: with image features, of classification, or bare."""
    if _has_text(config):
        return transformers.AutoModel
    mapping = transformers.AutoModelForImageClassification
    known = transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING
    return mapping if type(config) in known else transformers.AutoModel

"""A trained model of a frozen backbone: of timm, torchvision, transformers, or the user's own.

There are no training classes, and so no validation tasks to calibrate with: probabilities have no
temperature, until a fit measures one on its support images.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from omnitraining.config.values import class_path
from omnitraining.datasets.decoding import INTERPOLATIONS, Aspect, Interpolation
from omnitraining.errors import InputError
from omnitraining.learner.calibration import unmeasured
from omnitraining.learner.inputs import ImageInputs
from omnitraining.learner.stored_backbone import Frozen
from omnitraining.learner.trained import TrainedModel
from omnitraining.libraries import (
    LibraryBackbone,
    OwnBackbone,
    PooledBackbone,
    of_timm,
    of_torchvision,
)
from omnitraining.libraries.backbone import Pooling, Precision
from omnitraining.libraries.names import Preprocessing
from omnitraining.metatraining import ProtoNet
from omnitraining.model import build_model
from omnitraining.omninet import copied
from omnitraining.pretraining import RFS, LogisticHead
from omnitraining.tasks.blueprint import BLUEPRINT, Blueprint
from omnitraining.training import find_device

HEADS = ("logistic", "nearest-mean")


@dataclass(frozen=True)
class BackboneOptions:
    """How a backbone is used.

    Args:
        weights: file of the weights of a named backbone (of transformers: folder of the model), in
            place of the weights that its library downloads.
        image_size: side of the input in pixels: of a module; of timm in place of the model's own.
        mean: of each channel, for pixels from 0 to 1; of a module.
        std: standard deviation of each channel; of a module.
        interpolation: of the resizing, ``"bilinear"`` if it is not given; of a module.
        aspect: ``"crop"``, ``"letterbox"`` or ``"stretch"``, as in `Resize`: of a module, where
            ``"crop"`` is the default; of a trained model, in place of the aspect in its training.
        pooling: of a module that returns a map or tokens; see `PooledBackbone`.
        precision: ``"float32"`` (if it is not given), or ``"bfloat16"`` by autocast.
        head: ``"logistic"`` (if it is not given): logistic regression on features of length 1, as
            in RFS; or ``"nearest-mean"``: scaled cosines to the mean of each class.
    """

    weights: Path | str | None = None
    image_size: int | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    interpolation: Interpolation | None = None
    aspect: Aspect | None = None
    pooling: Pooling | None = None
    precision: Precision | None = None
    head: Literal["logistic", "nearest-mean"] | None = None

    @property
    def file(self) -> Path | None:
        """``weights`` as a path.

        Raises:
            InputError: there is no such file or folder.
        """
        if self.weights is None:
            return None
        path = Path(self.weights)
        if not str(self.weights) or not path.exists():
            raise InputError(f"there are no weights at {path}")
        return path

    def given(self) -> list[str]:
        """Names of the options that are given."""
        return [field.name for field in fields(self) if getattr(self, field.name) is not None]


def frozen_model(
    source: str | nn.Module,
    options: BackboneOptions = BackboneOptions(),
    device: str = "auto",
) -> TrainedModel:
    """The trained model of a backbone with pretrained weights.

    Args:
        source: "timm/NAME", "torchvision/NAME", "transformers/NAME", or a module.
        options: how it is used.
        device: that it is on, as in `find_device`.

    Raises:
        InputError: there is no such backbone, its weights are missing, an option is missing, wrong
            or not for this backbone, or what it returns can be read in two ways.
    """
    if options.head not in (*HEADS, None):
        raise InputError(f"head is {options.head!r}: choose from {', '.join(HEADS)}")
    if isinstance(source, str):
        backbone, inputs = _named(source, options)
        config = {"class_path": class_path(LibraryBackbone)}
        name = source
    else:
        backbone, inputs = _own(source, options)
        config = {"class_path": class_path(OwnBackbone)}
        name = type(source).__name__
    backbone.eval()
    example = torch.zeros(1, *inputs.shape)
    words = f"{backbone.words(example)}, {inputs}"
    if isinstance(backbone, LibraryBackbone):
        arguments = backbone.init_args()
    else:
        given = {
            "pooling": backbone.pooling,
            "precision": options.precision,
            "features": backbone.features,
        }
        arguments = {"kind": name, **{n: v for n, v in given.items() if v is not None}}
    facts = Frozen(words, isinstance(source, str), options.weights is not None)
    place = find_device(device, "device")
    whole = {**config, "init_args": arguments}
    return _trained(backbone, whole, inputs, name, facts, options, place)


def _trained(
    backbone: PooledBackbone,
    config: dict[str, Any],
    inputs: ImageInputs,
    name: str,
    facts: Frozen,
    options: BackboneOptions,
    device: torch.device,
) -> TrainedModel:
    sizes = {"shape": [*inputs.shape], "pre_outputs": 2, "meta_outputs": 2, "one_joint_head": False}
    whole: dict[str, Any] = {
        "problem": {"class_path": BLUEPRINT, "init_args": sizes},
        "backbone": config,
    }
    problem = Blueprint(inputs.shape, 2, 2, False)
    if options.head == "nearest-mean":
        flow = "meta"
        metric = {"class_path": class_path(ProtoNet), "init_args": vars(ProtoNet())}
        whole |= {"method": "meta-training", "metatraining": metric}
        model = build_model("meta-training", lambda: backbone, problem, RFS(), ProtoNet())
    else:
        flow = "pre"
        head = {"class_path": class_path(LogisticHead), "init_args": vars(LogisticHead())}
        algorithm = {"class_path": class_path(RFS), "init_args": {"new_head": head}}
        whole |= {"method": "pre-training", "pretraining": algorithm}
        model = build_model("pre-training", lambda: backbone, problem, RFS())
    whole["inference"] = {}
    return TrainedModel(model.to(device), whole, inputs, unmeasured(flow), name, frozen=facts)


def _named(source: str, options: BackboneOptions) -> tuple[PooledBackbone, ImageInputs]:
    own = {"mean", "std", "interpolation", "aspect", "pooling"} & {*options.given()}
    if own:
        name = min(own)
        whose = "a trained model or a module" if name == "aspect" else "a module"
        raise InputError(f"{name} is for {whose} of your own: {source} has that of its library")
    weights = options.file
    precision = options.precision or "float32"
    size = _size(options.image_size)
    backbone = LibraryBackbone.pretrained(source, weights, size, precision)
    return backbone, _inputs(backbone.preprocessing(weights, size))


def _own(module: nn.Module, options: BackboneOptions) -> tuple[PooledBackbone, ImageInputs]:
    if options.weights is not None:
        raise InputError("weights are for a backbone by name: a module has its own")
    needed = ("image_size", "mean", "std")
    given = [name for name in needed if name in options.given()]
    kind = type(module).__name__
    _refuse_classifier(module)
    if not given and hasattr(module, "pretrained_cfg"):  # of timm
        found = of_timm.preprocessing(module, kind, None)
    else:
        if missing := [name for name in needed if name not in given]:
            raise InputError(
                f"{', '.join(missing)} of backbone {kind} {'is' if len(missing) == 1 else 'are'} "
                "missing: give image_size in pixels, mean and std for pixels from 0 to 1, as in "
                "its training (of ImageNet: (0.485, 0.456, 0.406) and (0.229, 0.224, 0.225))"
            )
        size, interpolation = _size(options.image_size), options.interpolation or "bilinear"
        mean, std = (_channels(getattr(options, name), name) for name in ("mean", "std"))
        if len(mean) != len(std):
            raise InputError(f"mean has {len(mean)} channels, std {len(std)}: give as many")
        if interpolation not in INTERPOLATIONS:
            shown = ", ".join(INTERPOLATIONS)
            raise InputError(f"interpolation is {interpolation!r}: choose from {shown}")
        assert size is not None
        found = Preprocessing(size, size, mean, std, interpolation, "crop")
    backbone = PooledBackbone(copied(module), options.pooling, options.precision or "float32")
    inputs = _inputs(found)
    return backbone, inputs if options.aspect is None else inputs.with_aspect(options.aspect)


def _refuse_classifier(module: nn.Module) -> None:
    """Refuse a library's classifier: features could be its outputs or the input of its head."""
    library, kind = type(module).__module__.partition(".")[0], type(module).__name__
    classes = getattr(module, "num_classes", 0) if library == "timm" else 0
    if library == "torchvision":
        ends = [m for n, m in module.named_modules() if n.partition(".")[0] in of_torchvision.HEADS]
        linear = [m for m in ends if isinstance(m, nn.Linear)]
        classes = linear[-1].out_features if linear else 0
    if classes:
        name = "timm/NAME" if library == "timm" else "torchvision/NAME"
        way = "num_classes=0" if library == "timm" else "nn.Identity() for its last linear layer"
        raise InputError(
            f"backbone {kind} is a classifier of {classes} classes: give load({name!r}), or make "
            f"it with {way}"
        )


def _size(size: Any) -> int | None:
    if size is not None and (type(size) is not int or not 8 <= size <= 1024):
        raise InputError(f"image_size is {size!r}: it must be a whole number from 8 to 1,024")
    return size


def _channels(values: Any, name: str) -> tuple[float, ...]:
    try:
        numbers = tuple(map(float, values))
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) not in (1, 3):
        raise InputError(f"{name} is {values!r}: give a number for each of 1 or 3 channels")
    if not all(-1 <= x <= 1 if name == "mean" else 0 < x <= 10 for x in numbers):
        raise InputError(
            f"{name} is {values!r}: it is for pixels from 0 to 1, so divide values for 0 to 255 by "
            "255"
        )
    return numbers


def _inputs(found: Preprocessing) -> ImageInputs:
    channels = len(found.mean)
    return ImageInputs(
        channels, found.stored, found.size, found.mean, found.std, found.aspect, found.interpolation
    )

"""Backbones that other libraries made, as modules that return features [B, D]."""

import hashlib
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from omnitraining.errors import InputError
from omnitraining.libraries import of_timm, of_torchvision, of_transformers
from omnitraining.libraries.names import LIBRARIES, Preprocessing, split

Pooling = Literal["average", "average-last", "class-token", "token-mean"]
POOLINGS: tuple[str, ...] = get_args(Pooling)
Precision = Literal["float32", "bfloat16"]


class PooledBackbone(nn.Module):
    """A module with pooling, so that it returns features [B, D] in float32.

    Args:
        model: returns features [B, D], a map [B, C, H, W] or tokens [B, T, D].
        pooling: of what it returns. ``"average"``: a map [B, C, H, W] over its pixels;
            ``"average-last"``: a map [B, H, W, C]; ``"class-token"``: the first token;
            ``"token-mean"``: the mean of all tokens. If it is not given, there must be one reading.
        precision: ``"float32"``, or ``"bfloat16"`` by autocast.
        features: D, if it is known.

    Attributes:
        features: D; None if it is not known before a forward pass.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> PooledBackbone(nn.Conv2d(3, 5, 3))(torch.rand(2, 3, 8, 8)).shape
        torch.Size([2, 5])
    """

    def __init__(
        self,
        model: nn.Module,
        pooling: Pooling | None = None,
        precision: Precision = "float32",
        features: int | None = None,
    ) -> None:
        """Keep the module; it is not copied."""
        super().__init__()
        for name, given, choices in (
            ("pooling", pooling, (*POOLINGS, None)),
            ("precision", precision, get_args(Precision)),
        ):
            if given not in choices:
                shown = ", ".join(str(choice) for choice in choices if choice)
                raise InputError(f"{name} is {given!r}: choose from {shown}")
        self.model, self.pooling, self.precision = model, pooling, precision
        self.features = features

    def forward(self, x: Tensor) -> Tensor:
        """Features [B, D] of normalized images [B, C, H, W].

        Raises:
            InputError: the module returns something else, or what can be read in two ways.
        """
        if self.precision == "bfloat16":
            with torch.autocast(x.device.type, torch.bfloat16):
                features = self.pooled(self.model(x)).float()
        else:
            features = self.pooled(self.model(x))
        if self.features not in (None, features.shape[1]):
            raise InputError(
                f"backbone {type(self.model).__name__} returns {features.shape[1]} features, and "
                f"not {self.features}"
            )
        return features

    def pooled(self, output: Any) -> Tensor:
        """Features [B, D] of what the module returns.

        Args:
            output: of the module.

        Raises:
            InputError: as in `forward`.
        """
        name = type(self.model).__name__
        if not isinstance(output, Tensor) or output.dim() not in (2, 3, 4):
            shown = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise InputError(
                f"backbone {name} returns {shown}: it must return features [B, D], a map "
                "[B, C, H, W] or tokens [B, T, D]"
            )
        if output.dim() == 2:
            if self.pooling is not None:
                raise InputError(f"pooling is {self.pooling}, but backbone {name} returns [B, D]")
            return output
        pooling = self.pooling or self.own_pooling(output)
        if (output.dim() == 3) != (pooling in ("class-token", "token-mean")):
            raise InputError(f"pooling is {pooling}, but backbone {name} returns "
                             f"{['B', *output.shape[1:]]}".replace("'", ""))  # fmt: skip
        if pooling == "class-token":
            return output[:, 0]
        axes = {"average": (2, 3), "average-last": (1, 2), "token-mean": (1,)}[pooling]
        return output.mean(axes)

    def own_pooling(self, output: Tensor) -> Pooling:
        """The only pooling that fits an output.

        Args:
            output: a map or tokens.

        Raises:
            InputError: there are two.
        """
        name, shape = type(self.model).__name__, [*output.shape[1:]]
        if output.dim() == 3:
            raise InputError(
                f"backbone {name} returns tokens {shape}: give pooling='class-token' or "
                "'token-mean', as its own head does"
            )
        if shape[0] == shape[1]:  # may be [H, W, C] as well
            raise InputError(
                f"backbone {name} returns a map {shape}: give pooling='average' if channels come "
                "first, 'average-last' if they come last"
            )
        return "average"

    def words(self, example: Tensor) -> str:
        """How features come about, in words; their number is kept.

        Args:
            example: an input [1, C, H, W].

        Raises:
            InputError: as in `forward`.
        """
        with torch.no_grad():
            output = self.model(example)
            size = self.features = self.pooled(output).shape[1]
        if output.dim() == 2:
            return f"{size} features{self._of_head()}"
        ways = {
            "average": "global average",
            "average-last": "global average",
            "class-token": "class token",
            "token-mean": "mean of tokens",
        }
        return f"{size} features, {ways[self.pooling or self.own_pooling(output)]}"

    def _of_head(self) -> str:
        return ""


class LibraryBackbone(PooledBackbone):
    """A backbone of timm, torchvision or transformers, with random weights.

    `pretrained` loads weights. Features are what the model's own classifier would take: of timm by
    ``num_classes=0``, of torchvision the input of the last linear layer, of transformers by
    ``num_labels=0`` (of CLIP and the like, the embedding of the image).

    Args:
        source: "timm/NAME", "torchvision/NAME" or "transformers/NAME".
        size: side of the input of a model of timm, if it is not the model's own.
        config: of a model of transformers, as a text of JSON.
        precision: ``"float32"``, or ``"bfloat16"`` by autocast.
        features: D, if it is known; otherwise a forward pass determines it.

    Raises:
        InputError: the library is missing, or has no such model.
    """

    def __init__(
        self,
        source: str,
        size: int | None = None,
        config: str = "",
        precision: Precision = "float32",
        features: int | None = None,
    ) -> None:
        """Make the architecture."""
        library, name = named(source)
        if library == "timm":
            model = of_timm.build(source, name, size)
        elif library == "torchvision":
            model = of_torchvision.build(source, name)
        elif config:
            model = of_transformers.build(source, config)
        else:  # nothing is fetched here, as files of others may name a backbone
            raise InputError(f"backbone {source} needs its config: start_from: {source} has it")
        self._set(model, source, size, config, precision, features)

    @classmethod
    def pretrained(
        cls,
        source: str,
        weights: Path | None = None,
        size: int | None = None,
        precision: Precision = "float32",
    ) -> "LibraryBackbone":
        """A backbone with pretrained weights.

        Args:
            source: as above.
            weights: file of the weights (of transformers: folder of the model), in place of the
                weights that the library downloads.
            size: as above.
            precision: as above.

        Raises:
            InputError: as above; or the weights are missing or do not fit.
        """
        library, name = named(source)
        if size is not None and library != "timm":
            raise InputError(f"image_size is of timm alone, and {source} has its own: leave it out")
        config = ""
        if library == "timm":
            model = of_timm.pretrained(source, name, size, weights)
        elif library == "torchvision":
            model = of_torchvision.pretrained(source, name, weights)
        else:
            model, config = of_transformers.pretrained(source, name, weights)
        made = cls.__new__(cls)
        made._set(model, source, size, config, precision, None)
        return made

    def preprocessing(self, weights: Path | None = None, size: int | None = None) -> Preprocessing:
        """The preprocessing that the weights were trained with.

        Args:
            weights: as in `pretrained`.
            size: side of the input of a model of timm, in place of the model's own.

        Raises:
            InputError: it is not known, or learners have no such preprocessing.
        """
        library, name = named(self.source)
        if library == "timm":
            return of_timm.preprocessing(self.model, self.source, size)
        if library == "torchvision":
            return of_torchvision.preprocessing(self.source, name)
        return of_transformers.preprocessing(self.source, name, weights)

    def _set(
        self,
        model: nn.Module,
        source: str,
        size: int | None,
        config: str,
        precision: Precision,
        features: int | None,
    ) -> None:
        super().__init__(model.eval(), None, precision, features)
        self.source, self.size, self.config = source, size, config

    def init_args(self) -> dict[str, Any]:
        """The arguments that make the same architecture."""
        given: dict[str, Any] = {
            "size": self.size,
            "config": self.config or None,
            "features": self.features,
        }
        given["precision"] = None if self.precision == "float32" else self.precision
        return {"source": self.source, **{n: v for n, v in given.items() if v is not None}}

    def own_pooling(self, output: Tensor) -> Pooling:
        """As the head of the library pools: the class token if there is one, otherwise the mean.

        Args:
            output: a map or tokens.

        Raises:
            InputError: the library does not specify which dimension has the channels.
        """
        if output.dim() == 3:
            prefix = getattr(self.model, "num_prefix_tokens", 0)
            return "class-token" if prefix else "token-mean"
        channels = getattr(self.model, "num_features", None)
        if channels == output.shape[3] != output.shape[1]:
            return "average-last"
        return "average" if channels == output.shape[1] else super().own_pooling(output)

    def _of_head(self) -> str:
        library, _ = named(self.source)
        if library == "timm":
            pooling = of_timm.pooling(self.model)
            return f" ({pooling})" if pooling else ""
        return " (input of its classifier)" if library == "torchvision" else ""

    def extra_repr(self) -> str:
        """The source."""
        return repr(self.source)


class OwnBackbone(PooledBackbone):
    """The place of a module that the user gave, in the configuration of a learner.

    Args:
        kind: the module's class, for messages.
        pooling: as in `PooledBackbone`.
        precision: as in `PooledBackbone`.
        features: as in `PooledBackbone`.

    Raises:
        InputError: always: a file does not hold the module.
    """

    def __init__(
        self,
        kind: str,
        pooling: Pooling | None = None,
        precision: Precision = "float32",
        features: int | None = None,
    ) -> None:
        """Refuse, since there is no module."""
        raise InputError(own_module(kind))


def own_module(kind: str) -> str:
    """The message of a learner whose backbone is a module of the user's.

    Args:
        kind: its class.
    """
    return (
        f"the backbone is a {kind:.80} of your own, which no file holds: in Python, give the "
        "module, as load(FILE, backbone=module)"
    )


def named(source: str) -> tuple[str, str]:
    """Library and name of a source.

    Raises:
        InputError: it names no library.
    """
    parts = split(source)
    if parts is None:
        raise InputError(f"{source!r} names no library: choose from {', '.join(LIBRARIES)}, as "
                         "timm/resnet18")  # fmt: skip
    return parts


def sha256(module: nn.Module) -> str:
    """The SHA-256 of the weights of a module: names, types, shapes and values, sorted by name.

    Args:
        module: of any kind, on any device.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {[*tensor.shape]}\n".encode())
        values = tensor.detach().cpu().contiguous()
        digest.update(values.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()

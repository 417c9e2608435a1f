"""Sources of trained models: shipped, a run, a file, the hub, or a backbone of another library."""

import re
from pathlib import Path
from typing import Any, TypeAlias

from torch import Tensor, nn

from omnitraining.config.strict import read_bytes
from omnitraining.errors import InputError
from omnitraining.learner.frozen import BackboneOptions, frozen_model
from omnitraining.learner.hub_download import download
from omnitraining.learner.trained import TrainedModel
from omnitraining.libraries.names import LIBRARIES, split
from omnitraining.precision import float32_on_cpu
from omnitraining.runs.run import Run

Source: TypeAlias = str | Path | TrainedModel
MODELS = Path(__file__).parents[1] / "models"
WEIGHTS = "weights.safetensors"
DEFAULT_MODEL = "photos"
OF_FILES = ("weights", "aspect")
"""Options of `BackboneOptions` that files of models have too."""


@float32_on_cpu()
def find(
    source: Source,
    trust: bool = False,
    options: BackboneOptions = BackboneOptions(),  # noqa: B008 (frozen)
    device: str = "auto",
) -> TrainedModel:
    """The trained model of a source.

    Args:
        source: as in `omnitraining.load`.
        trust: as in `omnitraining.load`.
        options: of a backbone by name; of a trained model, its aspect; of a file, its weights.
        device: as in `omnitraining.load`.

    Raises:
        InputError: as in `omnitraining.load`.
    """
    check(source)
    if isinstance(source, TrainedModel):
        if device not in ("auto", str(source.device)):
            raise InputError(
                f"device is {device!r}, and the model is on {source.device} already: give the "
                "device when it is loaded"
            )
        refuse_options(source, options, ("aspect",))
        return source.with_aspect(options.aspect)
    if names_backbone(source):
        return frozen_model(str(source), options, device)
    path = file_of(source)
    if path is not None:
        refuse_options(source, options, OF_FILES)
        trained = read_model(path, trust, options.file, device=device)[0]
    else:
        refuse_options(source, options, ("aspect",))
        trained = TrainedModel.from_run(Run(source, trust=trust), device)
    return trained.with_aspect(options.aspect)


def read_model(
    path: Path,
    trust: bool = False,
    weights: Path | None = None,
    backbone: nn.Module | None = None,
    device: str = "auto",
) -> tuple[TrainedModel, dict[str, Tensor], dict[str, Any]]:
    """The model, tensors and fit of a file, see `TrainedModel.from_bytes`.

    Args:
        path: the file. A shipped model has the name of its folder, not of the run that it was.
        trust: as in `TrainedModel.from_bytes`, like the other arguments.
        weights: of a frozen backbone.
        backbone: the user's own module.
        device: that the model is on.

    Raises:
        InputError: as `TrainedModel.from_bytes`.
    """
    made = TrainedModel.from_bytes(read_bytes(path), str(path), trust, weights, backbone, device)
    if path.parent.parent == MODELS:
        made[0].name = path.parent.name
    return made


def names_backbone(source: object) -> bool:
    """Whether a source names a backbone of another library, as "timm/resnet18".

    Raises:
        InputError: there is a file or folder of that name too.
    """
    if not isinstance(source, str) or split(source) is None:
        return False
    if Path(source).exists():
        raise InputError(
            f"{source} is a file or folder here, and names a backbone too: write ./{source} for "
            "the first, or go to another folder"
        )
    return True


def refuse_options(source: object, options: BackboneOptions, allowed: tuple[str, ...]) -> None:
    """Refuse options of backbones that a source does not have.

    Args:
        source: a file, a run, or anything else that is no backbone.
        options: that are given.
        allowed: options that it has.

    Raises:
        InputError: another one is given.
    """
    others = [name for name in options.given() if name not in allowed]
    if others:
        raise InputError(
            f"{others[0]} is for a backbone ({', '.join(f'{n}/NAME' for n in LIBRARIES)}, or a "
            f"module), and {source} is a trained model: leave it out"
        )


def check(source: object) -> None:
    """Check the type of a source.

    Raises:
        InputError: it is neither a name, a path nor a trained model, but for example a network.
    """
    if not isinstance(source, str | Path | TrainedModel):
        shipped = ", ".join(sorted(folder.name for folder in MODELS.iterdir() if folder.is_dir()))
        kind = f"a {type(source).__name__}" if source is not None else "None"
        raise InputError(
            f"model is {kind}: give a shipped model ({shipped}), a run folder, a saved learner, "
            "owner/name on the Hugging Face hub, or timm/NAME, torchvision/NAME or "
            "transformers/NAME; a module of yours is for omnitraining.load, or for "
            "'omni train --backbone'"
        )


def file_of(source: str | Path) -> Path | None:
    """The file of a source; None if it is a run folder. A model of the hub is downloaded.

    Raises:
        InputError: there is no such file or folder, or it holds no model.
    """
    name, path = str(source), Path(source)
    if (MODELS / name / WEIGHTS).is_file() and name == Path(name).name:
        return MODELS / name / WEIGHTS
    if not path.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        path = download(name)
    if path.is_file():
        return path
    if (path / WEIGHTS).is_file():
        return path / WEIGHTS
    if (path / "config.yaml").is_file():
        return None
    shipped = ", ".join(sorted(folder.name for folder in MODELS.iterdir() if folder.is_dir()))
    what = "holds neither a run nor a saved learner" if path.exists() else "does not exist"
    raise InputError(
        f"{source} {what}: give a shipped model ({shipped}), a run folder, a saved learner, or "
        "owner/name on the Hugging Face hub"
    )

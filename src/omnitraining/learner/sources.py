"""Sources of trained models: shipped with the library, a run folder, a file, or the hub."""

import re
from pathlib import Path
from typing import TypeAlias

from omnitraining.config.strict import read_bytes
from omnitraining.errors import InputError
from omnitraining.learner.hub_download import download
from omnitraining.learner.trained import TrainedModel
from omnitraining.precision import float32_on_cpu
from omnitraining.runs.run import Run

Source: TypeAlias = str | Path | TrainedModel
MODELS = Path(__file__).parents[1] / "models"
WEIGHTS = "weights.safetensors"


@float32_on_cpu()
def find(source: Source, trust: bool = False) -> TrainedModel:
    """The trained model of a source.

    Args:
        source: as in `omnitraining.load`.
        trust: as in `omnitraining.load`.

    Raises:
        InputError: as in `omnitraining.load`.
    """
    check(source)
    if isinstance(source, TrainedModel):
        return source
    path = file_of(source)
    if path is not None:
        return TrainedModel.from_bytes(read_bytes(path), str(path), trust)[0]
    return TrainedModel.from_run(Run(source, trust=trust))


def check(source: object) -> None:
    """Check the type of a source.

    Raises:
        InputError: it is neither a name, a path nor a trained model, but for example a network.
    """
    if not isinstance(source, str | Path | TrainedModel):
        shipped = ", ".join(sorted(folder.name for folder in MODELS.iterdir() if folder.is_dir()))
        kind = f"a {type(source).__name__}" if source is not None else "None"
        raise InputError(
            f"model is {kind}: give a shipped model ({shipped}), a run folder, a saved learner, or "
            "owner/name on the Hugging Face hub; 'omni train --backbone' trains a network of yours"
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

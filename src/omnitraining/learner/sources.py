"""Where trained models come from: shipped with the library, a run folder, a file, or the hub."""

import re
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import Tensor

from omnitraining.config import bounds
from omnitraining.config.bounds import Bounds, BoundsError
from omnitraining.config.experiment import CANNOT_BE_MADE
from omnitraining.config.strict import read_bytes
from omnitraining.errors import InputError
from omnitraining.learner import checks
from omnitraining.learner.checks import DamagedError
from omnitraining.learner.trained import Trained
from omnitraining.precision import float32_on_cpu
from omnitraining.runs.run import Run, unique_tensors

if TYPE_CHECKING:
    from omnitraining.learner.classifier import FewShotClassifier
    from omnitraining.learner.regressor import FewShotRegressor

Source: TypeAlias = str | Path | Trained
MODELS = Path(__file__).parents[1] / "models"
WEIGHTS = "weights.safetensors"


@float32_on_cpu()
def load(
    source: Source, trust: bool = False, **options: object
) -> "FewShotClassifier | FewShotRegressor":
    """A learner of a trained model, ready to be fitted; or as it was saved.

    Args:
        source: name of a shipped model ("glyphs"); a run folder; a file that a learner saved, or a
            folder that holds it as weights.safetensors; or "owner/name" on the Hugging Face hub.
        trust: let a model name classes from outside this library, as a backbone of your own,
            which runs them.
        options: of `FewShotClassifier` or `FewShotRegressor`, as ``flow="meta"``. With a learner
            that was fitted before it was saved, it is fitted again with them.

    Raises:
        InputError: there is no such model, it is damaged or of a newer version, or it names what
            is not trusted.
    """
    from omnitraining.learner.classifier import FewShotClassifier
    from omnitraining.learner.regressor import FewShotRegressor

    _check(source)
    path = None if isinstance(source, Trained) else _file(source)
    tensors: dict[str, Tensor] = {}
    facts: dict[str, Any] = {}
    if path is None:
        trained = find(source, trust)
    else:
        trained, tensors, facts = Trained.from_bytes(read_bytes(path), str(path), trust)
    kind = FewShotRegressor if trained.inputs is None else FewShotClassifier
    allowed = [name for name in kind._get_param_names() if name != "model"]
    for name in options:
        if name not in allowed:
            raise InputError(
                f"{kind.__name__} has no option {name!r}: choose from {', '.join(allowed)}"
            )
    try:
        checks.choices(options, trained.model.trained_flows)
    except DamagedError as error:  # what the caller says, not the file
        raise InputError(f"option {str(error).removeprefix('fit.')}") from error
    learner: FewShotClassifier | FewShotRegressor
    weights = sum(tensor.nbytes for tensor in unique_tensors(trained.model).values())
    stored = sum(tensor.nbytes for tensor in tensors.values()) + weights
    try:
        with nullcontext() if trust or path is None else Bounds(stored, bounds.FIT_PRODUCTS):
            learner = kind._restored(trained, tensors, {**facts, **options})
    except BoundsError as error:
        raise InputError(
            f"{source} cannot be fitted again: {error}; add --trust (in Python trust=True) if you "
            "trust whoever made it"
        ) from error
    except InputError:
        raise
    except CANNOT_BE_MADE as error:
        said = str(error) if isinstance(error, DamagedError) else repr(error)
        raise InputError(f"{source} is damaged: {' '.join(said.split())}") from error
    return learner


@float32_on_cpu()
def find(source: Source, trust: bool = False) -> Trained:
    """The trained model of a source.

    Raises:
        InputError: as in `load`.
    """
    _check(source)
    if isinstance(source, Trained):
        return source
    path = _file(source)
    if path is not None:
        return Trained.from_bytes(read_bytes(path), str(path), trust)[0]
    return Trained.from_run(Run(source, trust=trust))


def _check(source: object) -> None:
    """Refuse what is no name, path or trained model, as a network of one's own."""
    if not isinstance(source, str | Path | Trained):
        shipped = ", ".join(sorted(folder.name for folder in MODELS.iterdir() if folder.is_dir()))
        kind = f"a {type(source).__name__}" if source is not None else "None"
        raise InputError(
            f"model is {kind}: give a shipped model ({shipped}), a run folder, a saved learner, or "
            "owner/name on the Hugging Face hub; 'omni train --backbone' trains a network of yours"
        )


def _file(source: str | Path) -> Path | None:
    """The file of a source; None if it is a run folder."""
    name, path = str(source), Path(source)
    if (MODELS / name / WEIGHTS).is_file() and name == Path(name).name:
        return MODELS / name / WEIGHTS
    if not path.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        path = _downloaded(name)
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


def _downloaded(name: str) -> Path:
    try:
        hub = import_module("omnitraining.learner.hub")
    except ImportError as error:
        raise InputError(
            f"{name} is no folder or file here, and this version cannot read from the hub"
        ) from error
    found: Path = hub.download(name)
    return found

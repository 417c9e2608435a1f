"""A learner of a trained model, wherever the model comes from."""

from contextlib import nullcontext
from typing import Any

from torch import Tensor

from omnitraining.config import bounds
from omnitraining.config.bounds import Bounds, BoundsError
from omnitraining.config.run_config import CANNOT_BE_MADE
from omnitraining.config.strict import read_bytes
from omnitraining.errors import InputError
from omnitraining.learner import checks
from omnitraining.learner.checks import DamagedError
from omnitraining.learner.classifier import FewShotClassifier
from omnitraining.learner.regressor import FewShotRegressor
from omnitraining.learner.sources import Source, check, file_of, find
from omnitraining.learner.trained import Trained
from omnitraining.precision import float32_on_cpu
from omnitraining.runs.run import unique_tensors


@float32_on_cpu()
def load(
    source: Source, trust: bool = False, **options: object
) -> FewShotClassifier | FewShotRegressor:
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
    check(source)
    path = None if isinstance(source, Trained) else file_of(source)
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

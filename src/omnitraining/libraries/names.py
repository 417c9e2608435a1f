"""Names of backbones in other libraries: "timm/NAME", "torchvision/NAME", "transformers/NAME"."""

import difflib
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from torch import Tensor, nn

from omnitraining.datasets.decoding import Aspect, Interpolation
from omnitraining.errors import InputError, described

LIBRARIES = ("timm", "torchvision", "transformers")


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing that a backbone was trained with.

    Args:
        size: side of its input in pixels.
        stored: side in pixels that images are resized to before the center crop of that size.
        mean: of each channel, for pixels from 0 to 1.
        std: standard deviation of each channel.
        interpolation: of the resizing.
        aspect: ``"crop"``: the shorter side is resized; ``"stretch"``: both sides are.
    """

    size: int
    stored: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Interpolation = "bilinear"
    aspect: Aspect = "crop"


def split(source: str) -> tuple[str, str] | None:
    """Library and name of a source; None if it names none of the libraries.

    Args:
        source: as "timm/resnet18.a1_in1k" or "transformers/facebook/dinov2-small".
    """
    library, _, name = source.partition("/")
    return (library, name) if library in LIBRARIES and name else None


def imported(library: str, source: str) -> Any:
    """A library.

    Args:
        library: one of ``LIBRARIES``.
        source: of a backbone, for the message.

    Raises:
        InputError: it is not installed, or fails when it is imported.
    """
    if find_spec(library) is None:
        raise InputError(
            f"{source} needs {library}, which is not installed: "
            f"pip install 'omnitraining[{library}]'"
        )
    try:
        return import_module(library)
    except Exception as error:  # as a torchvision that was built for another torch
        raise InputError(
            f"{source} needs {library}, which cannot be imported: {described(error)}"
        ) from error


def unknown(source: str, library: str, name: str, known: Iterable[str], lister: str) -> InputError:
    """The error of a name that a library does not have.

    Args:
        source: as it was given.
        library: one of ``LIBRARIES``.
        name: in that library.
        known: the names that there are.
        lister: a call that lists them.
    """
    near = difflib.get_close_matches(name.partition(".")[0], [*known], 3)
    hint = f"is it {' or '.join(near)}? " if near else ""
    return InputError(f"{source}: {library} has no model {name!r}: {hint}{lister} lists them")


def unreachable(source: str, error: BaseException) -> InputError:
    """The error of weights that are neither cached nor can be downloaded, in one line.

    Args:
        source: of the backbone.
        error: of the library that was to download them.
    """
    reason = described(error).partition(". ")[0].rstrip(".")
    return InputError(
        f"the weights of {source} are not in the cache of {source.partition('/')[0]}, and cannot "
        f"be downloaded: {reason}; if you have them, give them as weights (--weights FILE)"
    )


@contextmanager
def without_retries() -> Iterator[None]:
    """Without the lines that huggingface_hub logs each time it tries again to reach the hub."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def fill(model: nn.Module, state: Mapping[str, Tensor], heads: Iterable[str], source: str) -> None:
    """Load all weights of a backbone; a classifier in the file is left out.

    Args:
        model: without its classifier.
        state: weights by name.
        heads: paths of modules of the classifier, which the model lacks.
        source: of the weights, for messages.

    Raises:
        InputError: weights are missing, of other shapes, or unknown.
    """
    left_out = tuple(f"{head}." for head in heads)
    kept = {n: x for n, x in state.items() if not n.startswith(left_out)} if left_out else state
    own = model.state_dict()
    missing, more = sorted({*own} - {*kept}), sorted({*kept} - {*own})
    if missing or more:
        what, some = ("lacks", missing) if missing else ("has in addition", more)
        raise InputError(
            f"{source} does not fit {type(model).__name__}: it {what} {len(some)} weights, as "
            f"{some[0]}"
        )
    for name, tensor in own.items():
        if kept[name].shape != tensor.shape:
            raise InputError(
                f"{source} does not fit {type(model).__name__}: {name} is "
                f"{[*kept[name].shape]}, not {[*tensor.shape]}"
            )
    model.load_state_dict(dict(kept))

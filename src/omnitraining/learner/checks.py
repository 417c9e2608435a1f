"""Checks of the values of a learner's file, before anything is computed with them.

Every function raises a `DamagedError` whose message lacks the name of the file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields as dataclass_fields
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omnitraining.datasets.decoding import INTERPOLATIONS, Aspect
from omnitraining.evaluation import ENSEMBLE
from omnitraining.learner.calibration import QUANTILES, WEIGHTED, Calibration
from omnitraining.learner.curves import CurveWeights
from omnitraining.learner.inputs import ImageInputs
from omnitraining.learner.stored_backbone import StoredBackbone

MAX_SIDE = 4_096
"""Side of an image."""
MAX_SUPPORT = 20_000
"""Support images or points; the memory of heads grows with the square of their number."""
MAX_STEPS = 1_000
"""Gradient steps on a support set."""
MAX_CHARACTERS = 1 << 26
"""Characters of an array of labels, in which every label takes as many as the longest."""

MAX_LABEL = 1_000
"""Characters of the label of rejected images."""

LABELS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
"""Kinds of numbers that labels may be, as numpy spells them."""


class DamagedError(ValueError):
    """A value that no learner writes."""


def image_inputs(values: Any, shape: Sequence[int]) -> ImageInputs:
    """How images become inputs of the network.

    Args:
        values: as `ImageInputs.as_json` returns them.
        shape: of an input of the network.
    """
    later = {"aspect": "stretch", "interpolation": "bilinear"}  # than the first version of files
    names = ("channels", "stored", "size", "mean", "std", *later)
    given = {**later, **values} if isinstance(values, Mapping) else values
    fields = _fields(given, "inputs", names)
    for name, allowed in (("aspect", get_args(Aspect)), ("interpolation", INTERPOLATIONS)):
        if fields[name] not in allowed:
            raise DamagedError(
                f"inputs.{name} is {fields[name]!r:.80}: it must be {' or '.join(allowed)}"
            )
    channels, stored, size = (
        _whole(fields[name], f"inputs.{name}", 1, MAX_SIDE)
        for name in ("channels", "stored", "size")
    )
    if channels not in (1, 3) or size > stored or (channels, size, size) != tuple(shape):
        raise DamagedError(
            f"inputs of {channels} x {stored} pixels do not fit a network of {shape}"
        )
    mean, std = (
        tuple(_numbers(fields[name], f"inputs.{name}", channels)) for name in ("mean", "std")
    )
    if not all(-1e3 <= value <= 1e3 for value in mean) or not all(1e-6 <= s <= 1e3 for s in std):
        raise DamagedError(f"inputs.mean is {[*mean]} and inputs.std {[*std]}")
    aspect, interpolation = fields["aspect"], fields["interpolation"]
    return ImageInputs(channels, stored, size, mean, std, aspect, interpolation)


def frozen(values: Any) -> StoredBackbone:
    """The stored description of a frozen backbone.

    Args:
        values: by name.
    """
    fields = _fields(
        values, "frozen", tuple(field.name for field in dataclass_fields(StoredBackbone))
    )
    for name, value in fields.items():
        kind = str if name in ("words", "sha256") else bool
        if type(value) is not kind or len(str(value)) > MAX_LABEL:
            raise DamagedError(f"frozen.{name} is {value!r:.80}")
    return StoredBackbone(
        **{**fields, "words": "".join(c for c in fields["words"] if c.isprintable())}
    )


def calibration(values: Any, flows: Sequence[str]) -> Calibration:
    """The calibration of a classifier.

    Args:
        values: as `Calibration.as_json` returns them.
        flows: that the model has.
    """
    names = ("shots", "votes", "temperatures", "familiarity")
    fields = _fields(values, "votes", names)
    shots = _shots(fields["shots"], "votes.shots")
    if [*shots] != sorted({*shots}):
        raise DamagedError(f"votes.shots is {[*shots]}, which does not rise")
    heads = (*flows, ENSEMBLE, WEIGHTED)
    weights = _rows(fields["votes"], "votes.votes", flows, len(shots))
    sums = [sum(column) for column in zip(*weights.values(), strict=True)]
    if not sums or any(w < 0 for row in weights.values() for w in row) or min(sums) <= 0:
        raise DamagedError("votes.votes has a weight below 0, or none above")
    temperatures = _rows(fields["temperatures"], "votes.temperatures", heads, len(shots))
    if any(not 1e-3 <= t <= 1e3 for row in temperatures.values() for t in row):
        raise DamagedError("votes.temperatures has a value that is not from 0.001 to 1,000")
    if missing := {*heads} - {*temperatures}:
        raise DamagedError(f"votes.temperatures has none of {min(missing)}")
    similarity = _mapping(fields["familiarity"], "votes.familiarity", heads)
    quantiles = {
        head: [
            _numbers(row, "votes.familiarity", QUANTILES)
            for row in _list(rows, "votes.familiarity", len(shots))
        ]
        for head, rows in similarity.items()
    }
    return Calibration(shots, weights, temperatures, quantiles)


def curve_weights(values: Any, flows: Sequence[str]) -> CurveWeights:
    """The ensemble weights of a regressor.

    Args:
        values: as `CurveWeights.as_json` returns them.
        flows: that the model has.
    """
    fields = _fields(values, "votes", ("shots", "flows", "weights"))
    shots = _shots(fields["shots"], "votes.shots")
    members = tuple(_list(fields["flows"], "votes.flows"))
    if not members or any(member not in flows for member in members):
        raise DamagedError(f"votes.flows is {[*members]!r:.80}: the model has {', '.join(flows)}")
    weights = [
        [_numbers(step, "votes.weights", len(members)) for step in _list(part, "votes.weights")]
        for part in _list(fields["weights"], "votes.weights", len(shots))
    ]
    counts = {len(part) for part in weights}
    if len(counts) != 1 or not 1 <= min(counts) <= MAX_STEPS + 1:
        raise DamagedError("votes.weights is not of one number of steps")
    return CurveWeights(shots, members, weights)


def options(values: Mapping[str, Any], flows: Sequence[str]) -> None:
    """The options of a learner, as far as they are given.

    Args:
        values: by name.
        flows: that the model has.
    """
    flow, accept_rate, steps = (values.get(name) for name in ("flow", "accept_rate", "steps"))
    if flow is not None and (not isinstance(flow, str) or flow not in (*flows, ENSEMBLE)):
        raise DamagedError(f"fit.flow is {flow!r:.80}: the model has {', '.join(flows)}")
    if accept_rate is not None and (
        type(accept_rate) not in (int, float) or not 0 < accept_rate < 1
    ):
        raise DamagedError(
            f"fit.accept_rate is {accept_rate!r:.80}: it must be above 0 and below 1"
        )
    other = values.get("reject_label")
    if other is not None and (type(other) not in (str, int) or len(str(other)) > MAX_LABEL):
        raise DamagedError(f"fit.reject_label is {other!r:.80}: it must be a text or whole number")
    if steps is not None:
        _whole(steps, "fit.steps", 0, MAX_STEPS)


def labels(values: Any, dtype: Any) -> NDArray[Any]:
    """The labels of a support set.

    Args:
        values: texts or numbers, all of one kind.
        dtype: of the array, as numpy spells it, or "object".
    """
    entries = _list(values, "fit.labels")
    if not 1 <= len(entries) <= MAX_SUPPORT:
        raise DamagedError(
            f"fit.labels has {len(entries):,} entries: 1 to {MAX_SUPPORT:,} are read"
        )
    kinds = {type(label) for label in entries}
    if not kinds <= {str} and not kinds <= {int, float, bool}:
        raise DamagedError("fit.labels holds something else than texts alone or numbers alone")
    kind = dtype.lstrip("<>|=") if isinstance(dtype, str) else ""
    if kinds == {str} and (kind == "object" or kind[:1] == "U"):
        longest = max(map(len, entries))
        if longest * len(entries) > MAX_CHARACTERS:
            raise DamagedError(f"fit.labels would take {longest * len(entries):,} characters")
        return np.array(entries, dtype=object if kind == "object" else str)
    if kinds == {str} or (kind != "object" and kind not in LABELS):
        raise DamagedError(
            f"fit.dtype is {dtype!r:.80}, which labels like {entries[0]!r:.80} are not"
        )
    try:
        array = np.array(entries, dtype=np.dtype(object if kind == "object" else kind))
    except (OverflowError, ValueError) as error:
        raise DamagedError(f"fit.labels does not fit {kind}: {error}") from error
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DamagedError("fit.labels has a value that is not finite")
    return array


def support(
    tensors: Mapping[str, Tensor], kinds: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
) -> dict[str, Tensor]:
    """The kept tensors of a fit.

    Args:
        tensors: by name.
        kinds: dtype and shape of one row, by the names that are allowed.
    """
    for name, tensor in tensors.items():
        if name not in kinds:
            raise DamagedError(f"it holds {name!r:.80}, which its model lacks")
        dtype, shape = kinds[name]
        if tensor.dtype != dtype or tuple(tensor.shape[1:]) != shape or not tensor.dim():
            raise DamagedError(
                f"{name} is {tensor.dtype} {[*tensor.shape]}: the model has {dtype} [S, "
                f"{', '.join(map(str, shape))}]"
            )
        if len(tensor) > MAX_SUPPORT:
            raise DamagedError(f"{name} has {len(tensor):,} rows: {MAX_SUPPORT:,} are read")
        if not tensor.isfinite().all():
            raise DamagedError(f"{name} holds values that are not finite")
    return dict(tensors)


def _fields(values: Any, place: str, names: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(values, Mapping) or {*values} != {*names}:
        raise DamagedError(f"{place} must hold {', '.join(names)}")
    return values


def _mapping(values: Any, place: str, keys: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(values, Mapping) or not {*values} <= {*keys}:
        raise DamagedError(f"{place} must be by {', '.join(keys)}")
    return values


def _list(values: Any, place: str, length: int | None = None) -> list[Any]:
    if not isinstance(values, list) or length not in (None, len(values)):
        raise DamagedError(f"{place} must be a list" + (f" of {length}" if length else ""))
    return values


def _rows(values: Any, place: str, keys: Sequence[str], length: int) -> dict[str, list[float]]:
    rows = _mapping(values, place, keys)
    return {key: _numbers(row, place, length) for key, row in rows.items()}


def _numbers(values: Any, place: str, length: int) -> list[float]:
    for value in _list(values, place, length):
        if type(value) not in (int, float) or not abs(value) <= 1e30:  # nor is NaN
            raise DamagedError(f"{place} holds {value!r:.80}, which is not a number in range")
    return [float(value) for value in values]  # torch has no whole numbers as large


def _shots(values: Any, place: str) -> tuple[int, ...]:
    shots = tuple(_whole(value, place, 1, 1_000_000) for value in _list(values, place))
    if not shots:
        raise DamagedError(f"{place} is empty")
    return shots


def _whole(value: Any, place: str, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise DamagedError(f"{place} is {value!r:.80}: it must be from {least} to {most:,}")
    return value

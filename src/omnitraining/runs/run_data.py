"""The description of the data that a run stores, in data.json.

It holds the sizes and the normalization that the model and its inputs need, so that the model can
be used without the data; and the classes of every split, each with its number of images and, if
they were read from files, a hash. When a run is resumed or evaluated, the data must have the same
classes in the same splits. If files have changed, resuming is refused, and elsewhere a warning is
given.
"""

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import prod
from typing import Any

from omnitraining.config.strict import MAX_JSON, read_bytes, read_json_strictly
from omnitraining.datasets.images import LabeledImages
from omnitraining.errors import InputError
from omnitraining.io.terminal import first_few
from omnitraining.runs.run import Run
from omnitraining.tasks.base import Problem
from omnitraining.tasks.classification.problem import Classification

NAME = "data.json"
VERSION = 1
LARGEST = 2**28
"""Largest size of one input, so that a damaged file cannot exhaust the memory."""


@dataclass(frozen=True)
class ClassRecord:
    """A class of a split: its name and, if it was read from files, their number and hash."""

    name: str
    images: int | None = None
    digest: str | None = None


@dataclass(frozen=True)
class Split:
    """The classes of a part of the data; its name is the name of its `LabeledImages`."""

    name: str
    classes: tuple[ClassRecord, ...]


@dataclass(frozen=True)
class RunData:
    """Description of the data of a run.

    Attributes:
        splits: by their role, as "validation".
        model: sizes that decide its architecture: arguments of a `Blueprint`; none where they do
            not depend on external data.
        inputs: fields of `ImageInputs`; none where a learner cannot take such images.
        places: absolute paths of the configuration, by field.
        changes: of the data between parts of the training, in words.
    """

    splits: Mapping[str, Split] = field(default_factory=dict)
    model: Mapping[str, Any] | None = None
    inputs: Mapping[str, Any] | None = None
    places: Mapping[str, str] = field(default_factory=dict)
    changes: tuple[str, ...] = ()

    @property
    def is_of_files(self) -> bool:
        """Whether images were read from files, which may be missing when the model is used."""
        return any(known.digest for split in self.splits.values() for known in split.classes)


def describe(problem: Problem, places: Mapping[str, str]) -> RunData | None:
    """The description of a problem's data; None if it generates them.

    Args:
        problem: of the run.
        places: absolute paths of the configuration, by field.
    """
    if not isinstance(problem, Classification):
        return None
    from omnitraining.learner.inputs import ImageInputs  # learners import runs

    try:
        inputs = ImageInputs.of(problem).as_json()
    except InputError:  # reported when a learner is loaded
        inputs = None
    parts = {
        **{f"training {n}": images for n, images in enumerate(problem.training, 1)},
        "validation": problem.validation,
        **{f"benchmark {name}": images for name, images in problem.benchmarks.items()},
    }
    model = {
        "shape": [*problem.example().shape[1:]],
        "pre_outputs": problem.pre_outputs,
        "meta_outputs": problem.meta_outputs,
        "one_joint_head": problem.one_joint_head,
    }
    splits = {role: _split(images) for role, images in parts.items()}
    return RunData(splits, model, inputs, places)


def _split(images: LabeledImages) -> Split:
    if images.digests is None:  # there are no hashes, and test images are not read
        return Split(images.name, tuple(ClassRecord(str(name)) for name in images.classes))
    counts = images.labels.bincount(minlength=len(images.classes)).tolist()
    rows = zip(images.classes, counts, images.digests, strict=True)
    return Split(images.name, tuple(ClassRecord(str(name), n, digest) for name, n, digest in rows))


def write(run: Run, data: RunData) -> None:
    """Write data.json."""
    run.write_json(NAME, {"version": VERSION, **asdict(data)})


def read(run: Run) -> RunData | None:
    """Read data.json; None if there is none, as in runs of earlier versions.

    Raises:
        InputError: the file is damaged.
    """
    path = run.path / NAME
    if not path.exists():
        return None
    try:
        record = read_json_strictly(read_bytes(path, MAX_JSON), str(path))
        splits = {
            role: Split(
                str(split["name"]), tuple(ClassRecord(**known) for known in split["classes"])
            )
            for role, split in record["splits"].items()
        }
        data = RunData(
            splits,
            record["model"],
            record["inputs"],
            dict(record["places"]),
            tuple(record["changes"]),
        )
        if data.model is not None:
            _check_sizes(data.model)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is damaged ({error!r}): remove it, and the data are needed to use the run"
        ) from error
    return data


def _check_sizes(model: Mapping[str, Any]) -> None:
    sizes = [*model["shape"], model["pre_outputs"], model["meta_outputs"]]
    if not all(type(size) is int and 0 < size <= LARGEST for size in sizes):
        raise ValueError("sizes are not positive integers")
    if prod(model["shape"]) > LARGEST or type(model["one_joint_head"]) is not bool:
        raise ValueError("sizes are out of range")


def check(run: Run, problem: Problem, resuming: bool = False, accept: bool = False) -> list[str]:
    """Compare the data of a problem with the description that a run stores.

    Args:
        run: with its description.
        problem: with the data as they are now.
        resuming: whether the run will be trained on them.
        accept: train although files have changed.

    Returns:
        The changes of files, in words.

    Raises:
        InputError: the classes of a split have changed; or files have, and the run is trained on.
    """
    before, now = read(run), describe(problem, {})
    if now is None:
        return []
    if before is None or not before.splits:
        if now.is_of_files:
            warnings.warn(
                f"run {run.path} has no description of its data, as runs of earlier versions: "
                "changes of the data are not detected",
                stacklevel=3,
            )
        return []
    if others := class_changes(before.splits, now.splits):
        raise InputError(
            f"the classes differ from those in the training of {run.path}: {first_few(others)}; "
            "restore them, or train a new run"
        )
    changes = file_changes(before.splits, now.splits)
    if not changes:
        return []
    words = f"the files differ from those in the training of {run.path}: {first_few(changes)}"
    if resuming and not accept:
        raise InputError(f"{words}; restore them, or continue with --resume --changed-data")
    warnings.warn(words, stacklevel=3)
    return changes


def class_changes(before: Mapping[str, Split], now: Mapping[str, Split]) -> list[str]:
    """Differences between the classes of splits, in words."""
    changes = []
    for role in {**before, **now}:
        if role not in before or role not in now:
            changes.append(f"{role} is new" if role in now else f"{role} is missing")
            continue
        old, new = ([known.name for known in splits[role].classes] for splits in (before, now))
        name, there = before[role].name, {*new}
        for gone in [known for known in old if known not in there]:
            other = _holder(gone, before, now, role)
            where = f"is in {other} now" if other else "is missing"
            changes.append(f"{gone!r} of {name} {where}")
        known = {*old}
        changes += [f"{new_one!r} of {name} is new" for new_one in new if new_one not in known]
        if known == there and old != new:
            changes.append(f"the classes of {name} are in another order")
    # Classes that have moved are the clearest sign, and come first.
    return sorted(changes, key=lambda words: " now" not in words)


def _holder(
    name: str, before: Mapping[str, Split], now: Mapping[str, Split], left: str
) -> str | None:
    """The split that a class has moved to, if any."""
    for role, split in now.items():
        had = role in before and any(known.name == name for known in before[role].classes)
        if role != left and not had and any(known.name == name for known in split.classes):
            return split.name
    return None


def file_changes(before: Mapping[str, Split], now: Mapping[str, Split]) -> list[str]:
    """Classes whose images differ between splits of the same classes, in words."""
    changes = []
    for role, split in before.items():
        for old, new in zip(split.classes, now[role].classes, strict=True):
            if old.digest is None or new.digest is None:
                continue
            if old.images != new.images:
                changes.append(
                    f"{old.name!r} of {split.name} had {old.images} images and has {new.images}"
                )
            elif old.digest != new.digest:
                changes.append(f"some of the {old.images} images of {old.name!r} of {split.name}")
    return changes

"""What a run keeps of its data: enough to use its model without them, and to see them changed.

It is kept in data.json: sizes and normalization that decide the model and its inputs; and of every
split its classes, each with its number of images and, where they were read from files, a hash of
these. A run that goes on, or is judged, must have the classes that it was trained on, in the same
splits. Other files are refused where training would go on with them, and warned of elsewhere.
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
"""Most numbers of one input, so that a damaged file does not ask for all memory."""


@dataclass(frozen=True)
class Known:
    """A class of a split: its name; and where it was read from files, how many, and their hash."""

    name: str
    images: int | None = None
    digest: str | None = None


@dataclass(frozen=True)
class Split:
    """The images of one part of the data, as `LabeledImages.name` calls it."""

    name: str
    classes: tuple[Known, ...]


@dataclass(frozen=True)
class RunData:
    """What a run keeps of its data.

    Attributes:
        splits: by what they serve for.
        model: sizes that decide its architecture: arguments of a `Blueprint`; none where it takes
            no data from elsewhere to know them.
        inputs: fields of `ImageInputs`; none where a learner cannot take such images.
        places: where paths of the configuration led, by field.
        changes: of the data between parts of the training, in words.
    """

    splits: Mapping[str, Split] = field(default_factory=dict)
    model: Mapping[str, Any] | None = None
    inputs: Mapping[str, Any] | None = None
    places: Mapping[str, str] = field(default_factory=dict)
    changes: tuple[str, ...] = ()

    @property
    def is_of_files(self) -> bool:
        """Whether images were read from files, which may be gone when the model is used."""
        return any(known.digest for split in self.splits.values() for known in split.classes)


def data_of(problem: Problem, places: Mapping[str, str]) -> RunData | None:
    """What a run keeps of the data of a problem; nothing where it makes its own.

    Args:
        problem: of the run.
        places: where paths of its configuration lead, by field.
    """
    if not isinstance(problem, Classification):
        return None
    from omnitraining.learner.inputs import ImageInputs  # learners import runs

    try:
        inputs = ImageInputs.of(problem).as_json()
    except InputError:  # is said where someone wants a learner
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
    if images.digests is None:  # nothing is known of files, and test images are not looked at
        return Split(images.name, tuple(Known(str(name)) for name in images.classes))
    counts = images.labels.bincount(minlength=len(images.classes)).tolist()
    rows = zip(images.classes, counts, images.digests, strict=True)
    return Split(images.name, tuple(Known(str(name), n, digest) for name, n, digest in rows))


def write(run: Run, data: RunData) -> None:
    run.write_json(NAME, {"version": VERSION, **asdict(data)})


def read(run: Run) -> RunData | None:
    """What a run keeps of its data; None if it keeps nothing, as runs of earlier versions.

    Raises:
        InputError: the file is damaged.
    """
    path = run.path / NAME
    if not path.exists():
        return None
    try:
        record = read_json_strictly(read_bytes(path, MAX_JSON), str(path))
        splits = {
            role: Split(str(split["name"]), tuple(Known(**known) for known in split["classes"]))
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


def check(run: Run, problem: Problem, goes_on: bool = False, accept: bool = False) -> list[str]:
    """See that a run has the data that it was trained on.

    Args:
        run: with what it keeps of them.
        problem: with the data as they are now.
        goes_on: whether the run shall be trained on them.
        accept: train on changed files all the same.

    Returns:
        What has changed of the files.

    Raises:
        InputError: the classes of a split are others; or files are, and training would go on.
    """
    before, now = read(run), data_of(problem, {})
    if now is None:
        return []
    if before is None or not before.splits:
        if now.is_of_files:
            warnings.warn(
                f"run {run.path} does not say what data it was trained on, as runs of earlier "
                "versions: whether they are the same is not checked",
                stacklevel=3,
            )
        return []
    if others := class_changes(before.splits, now.splits):
        raise InputError(
            f"the classes are not those that run {run.path} was trained on: {first_few(others)}; "
            "put them back, or train anew"
        )
    changes = file_changes(before.splits, now.splits)
    if not changes:
        return []
    words = f"the files are not those that run {run.path} was trained on: {first_few(changes)}"
    if goes_on and not accept:
        raise InputError(
            f"{words}; put them back, or go on all the same with --resume --changed-data"
        )
    warnings.warn(words, stacklevel=3)
    return changes


def class_changes(before: Mapping[str, Split], now: Mapping[str, Split]) -> list[str]:
    """In which classes the splits differ, in words."""
    changes = []
    for role in {**before, **now}:
        if role not in before or role not in now:
            changes.append(f"{role} was not there" if role in now else f"{role} is not there")
            continue
        old, new = ([known.name for known in splits[role].classes] for splits in (before, now))
        name, there = before[role].name, {*new}
        for gone in [known for known in old if known not in there]:
            other = _holder(gone, before, now, role)
            where = f"is in {other} now" if other else "is not there any more"
            changes.append(f"{gone!r} of {name} {where}")
        known = {*old}
        changes += [
            f"{new_one!r} of {name} was not there" for new_one in new if new_one not in known
        ]
        if known == there and old != new:
            changes.append(f"those of {name} have another order")
    # Classes that have moved say most, and are named first.
    return sorted(changes, key=lambda words: " now" not in words)


def _holder(
    name: str, before: Mapping[str, Split], now: Mapping[str, Split], left: str
) -> str | None:
    """The split that a class has moved to, if it has."""
    for role, split in now.items():
        had = role in before and any(known.name == name for known in before[role].classes)
        if role != left and not had and any(known.name == name for known in split.classes):
            return split.name
    return None


def file_changes(before: Mapping[str, Split], now: Mapping[str, Split]) -> list[str]:
    """Classes whose images differ where splits have the same classes, in words."""
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

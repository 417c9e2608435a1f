"""Benchmarks of photographs from files: mini-ImageNet, CUB, cross-domain, multi-domain, or own."""

import random
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from omnitraining.datasets import DataSet, read
from omnitraining.datasets.dataset import SPLITS, UNSPLIT, subset
from omnitraining.datasets.duplicates import shared_images
from omnitraining.datasets.image_cache import load_images
from omnitraining.datasets.image_sizes import check_sizes
from omnitraining.datasets.images import LabeledImages, gray, rotated
from omnitraining.datasets.listing import Listing
from omnitraining.datasets.standards import complaints
from omnitraining.errors import InputError
from omnitraining.io.terminal import first_few
from omnitraining.tasks.classification.problem import (
    Classification,
    EpisodeConfig,
    channel_statistics,
)
from omnitraining.tasks.classification.transforms import (
    CloserLookAugmentation,
    CustomAugmentation,
    PadCropAugmentation,
    PhotoAugmentation,
    UncroppedAugmentation,
)

HELD_OUT = (0.2, 0.2)

AUGMENTATIONS: Mapping[str, type[PhotoAugmentation]] = {
    "closer-look": CloserLookAugmentation,
    "pad-crop": PadCropAugmentation,
    "none": UncroppedAugmentation,
}


class Photos(Classification):
    """Train on some classes of photographs; test on unseen ones, of the same data sets or others.

    A part of the data is written NAME or NAME:SPLIT, where NAME is a folder (or file) in ``data``
    and SPLIT is train, validation, test, or all. So training on ``mini-imagenet:all``, validating
    on ``cub`` and testing on ``cub`` is mini-ImageNet->CUB; several data sets in training make it
    multi-domain.

    Args:
        data: folder that holds data sets by name, as data/mini-imagenet and data/cub.
        training: parts to train on, each one domain; the split is train if not given.
        validation: part to choose the checkpoint on; the split is validation if not given.
        benchmarks: parts to test on; the split is test if not given.
        protocol: shape of the tasks.
        size: side of the images that the network sees, in pixels; usual are 84 and 224.
        held_out: shares of the classes for validation and for test in data sets that have no
            split. Which classes these are is drawn by a shuffle of their names with a fixed seed.
        complete: refuse a data set with a standard name (mini-imagenet, cub, cars, places,
            plantae) that is another or not complete; false is for smoke runs.
        skip_damaged: leave out images that cannot be decoded, with a warning.
        augmentation: of training images. ``"closer-look"``: crops of 8 to 100 % of the area, for
            84 pixels and more; ``"pad-crop"``: crops of the padded image, which small images need;
            ``"none"``: no crops; or a callable of one's own, as of torchvision's transforms v2 or
            of kornia, by its class path: see `CustomAugmentation`.
        flip: mirror half of the training images; not where left and right differ, as in characters.
            A callable of one's own takes the place of this and of ``jitter``.
        jitter: brightness, contrast and saturation change by up to this factor in training.
        normalize: by the levels of ``"imagenet"`` or of the ``"training"`` images.
        channels: 3, or 1 for gray levels.
        rotations: each class also rotated by 90, 180 and 270 degrees, as three more classes: what
            research does with Omniglot.

    Raises:
        InputError: a data set is missing, wrong or not complete; an image cannot be decoded; or
            classes of one part are also in another.
    """

    def __init__(
        self,
        data: Path,
        training: tuple[str, ...],
        validation: str,
        benchmarks: tuple[str, ...],
        protocol: EpisodeConfig = EpisodeConfig(),  # noqa: B008 (frozen)
        size: int = 84,
        held_out: tuple[float, float] = HELD_OUT,
        complete: bool = True,
        skip_damaged: bool = False,
        augmentation: Literal["closer-look", "pad-crop", "none"]
        | Callable[
            [Tensor], Any
        ] = "closer-look",  # jsonargparse takes a result type for a class to make
        flip: bool = True,
        jitter: float = 0.4,
        normalize: Literal["imagenet", "training"] = "imagenet",
        channels: Literal[1, 3] = 3,
        rotations: bool = False,
    ) -> None:
        if size < 16:
            raise InputError(f"problem.size is {size}: images must be 16 pixels or larger")
        if min(held_out) < 0 or sum(held_out) >= 1:
            raise InputError(f"problem.held_out is {held_out}: give two shares that leave some")
        roles = {
            "training": [_part(text, "train") for text in training],
            "validation": [_part(validation, "validation")],
            "benchmarks": [_part(text, "test") for text in benchmarks],
        }
        for role, parts in roles.items():
            if not parts or len(set(parts)) < len(parts):
                raise InputError(f"problem.{role} must name one part or more, none of them twice")
        sets = {
            name: with_split(_read(data, name, complete), held_out)
            for name in {part.name: None for parts in roles.values() for part in parts}
        }
        listings = {
            part: sets[part.name].split(part.split) for parts in roles.values() for part in parts
        }
        _check_unseen(roles, listings)
        transform: PhotoAugmentation
        if isinstance(augmentation, str):
            if augmentation not in AUGMENTATIONS:
                raise InputError(
                    f"problem.augmentation is {augmentation!r}: choose from "
                    f"{', '.join(AUGMENTATIONS)}, or give package.module.Class of your own"
                )
            transform = AUGMENTATIONS[augmentation](size, flip, jitter)
        else:
            transform = CustomAugmentation(size, augmentation)
        check_sizes(listings.values(), size, must_be_square=rotations)
        images = {
            part: load_images(found, transform.stored, skip_damaged=skip_damaged)
            for part, found in listings.items()
        }
        for seen in roles["training"]:
            for unseen in (*roles["validation"], *roles["benchmarks"]):
                _warn_of_shared(listings, images, seen, unseen)
        if channels == 1:
            images = {part: gray(found) for part, found in images.items()}
        if rotations:
            images = {part: rotated(found) for part, found in images.items()}
        learned = [images[part] for part in roles["training"]]
        if normalize == "training":
            transform.mean, transform.std = channel_statistics(learned)
        super().__init__(
            learned,
            images[roles["validation"][0]],
            {part.title: images[part] for part in roles["benchmarks"]},
            protocol,
            transform,
        )


@dataclass(frozen=True)
class _Part:
    """A split of a data set."""

    name: str
    split: str

    @property
    def title(self) -> str:
        """How a benchmark is called."""
        return self.name if self.split == "test" else f"{self.name}:{self.split}"


def _part(text: str, default: str) -> _Part:
    name, _, split = text.partition(":")
    return _Part(name, split or default)


def _read(data: Path, name: str, complete: bool) -> DataSet:
    if not name or not (data / name).exists():
        there = sorted(entry.name for entry in data.iterdir()) if data.is_dir() else []
        raise InputError(
            f"there is no data set {name!r} in {data}: "
            + (f"it holds {first_few(there)}" if there else "it holds none")
        )
    found = read(data / name)
    wrong = complaints(name, found) if complete else []
    if wrong:
        raise InputError(f"{first_few(wrong)} (for smoke runs, problem.complete false lets it be)")
    return found


def with_split(data_set: DataSet, held_out: tuple[float, float] = HELD_OUT) -> DataSet:
    """The data set, split by classes if it has no split.

    Args:
        data_set: as it was read.
        held_out: shares of the classes for validation and for test.
    """
    if list(data_set.splits) != [UNSPLIT]:
        return data_set
    whole = data_set.splits[UNSPLIT]
    names = sorted(whole.classes)
    random.Random(0).shuffle(names)
    validation, test = (round(share * len(names)) for share in held_out)
    chosen = (names[validation + test :], names[:validation], names[validation : validation + test])
    splits = {
        split: subset(whole, f"{data_set.name}-{split}", classes)
        for split, classes in zip(SPLITS, chosen, strict=True)
        if classes
    }
    return replace(data_set, splits={**splits, UNSPLIT: whole})


def _check_unseen(roles: Mapping[str, Iterable[_Part]], listings: Mapping[_Part, Listing]) -> None:
    """Classes serve for one thing only: for training, for validation, or for test.

    Raises:
        InputError: some serve for two, or are twice among the training classes.
    """
    served: dict[tuple[str, str], tuple[str, _Part]] = {}
    for role, parts in roles.items():
        for part in parts:
            for known in listings[part].classes:
                before, first = served.setdefault((part.name, known), (role, part))
                tested_twice = before == role == "benchmarks"
                if (before, first) != (role, part) and not tested_twice:
                    raise InputError(
                        f"class {known!r} of {part.name} is in problem.{before} "
                        f"({first.name}:{first.split}) and in problem.{role} "
                        f"({part.name}:{part.split}): choose splits that share no class"
                    )


def _warn_of_shared(
    listings: Mapping[_Part, Listing],
    images: Mapping[_Part, LabeledImages],
    seen: _Part,
    unseen: _Part,
) -> None:
    """Warn of images that are in two parts, with the names of a few."""

    def called(part: _Part, position: int) -> str:
        items = listings[part].items
        # Where damaged images were left out, positions do not tell the file.
        named = len(items) == len(images[part].images) and isinstance(items[position], Path)
        return str(items[position]) if named else f"image {position}"

    pairs = shared_images(images[seen].images, images[unseen].images)
    if pairs:
        names = [f"{called(unseen, j)} is {called(seen, i)}" for i, j in pairs]
        warnings.warn(
            f"{len(pairs)} images of {listings[unseen].name} are also in {listings[seen].name}: "
            f"{first_few(names, 3)}",
            stacklevel=3,
        )

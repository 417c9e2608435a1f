"""Few-shot classification of images from files: the paper's data sets or a user's own."""

import random
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from omnitraining.datasets import DataSet, read
from omnitraining.datasets.dataset import SPLITS, UNSPLIT, subset
from omnitraining.datasets.decoding import ASPECTS, Aspect, Resize
from omnitraining.datasets.duplicates import shared_images
from omnitraining.datasets.image_cache import load_images
from omnitraining.datasets.image_sizes import check_sizes
from omnitraining.datasets.images import LabeledImages, gray, rotated
from omnitraining.datasets.listing import Listing
from omnitraining.datasets.standards import standard_differences
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
    """Training on some classes of images in files; tests on unseen classes of these or other data.

    A part of the data is written NAME or NAME:SPLIT, where NAME is a folder (or file) in ``data``
    and SPLIT is train, validation, test, or all. So mini-ImageNet->CUB is training on
    ``mini-imagenet:all``, validation on ``cub`` and test on ``cub``. Several parts in training make
    a multi-domain problem.

    Args:
        data: folder with data sets by name, as data/mini-imagenet and data/cub.
        training: training parts, each one domain; the split is train if not given.
        validation: part for the choice of the checkpoint; the split is validation if not given.
        benchmarks: test parts; the split is test if not given. None, if only validation counts.
        protocol: sizes of episodes and mini-batches.
        size: side of the network input in pixels, usually 84 or 224.
        held_out: fractions of the classes for validation and for test in data sets without a
            split; the classes are chosen by a shuffle of their names with a fixed seed.
        complete: refuse a data set with a standard name (mini-imagenet, cub, cars, places,
            plantae) whose classes or images differ; false is for smoke runs.
        skip_damaged: leave out images that cannot be decoded, with a warning.
        augmentation: augmentation of training images. ``"closer-look"``: crops of 8 to 100 % of the
            area, for 84 pixels and more; ``"pad-crop"``: crops of the padded image, for small
            images; ``"none"``: no crops; or the class path of a callable, as a transform of
            torchvision (v2) or kornia: see `CustomAugmentation`.
        flip: mirror half of the training images; set it to false where left and right differ, as in
            characters. A callable replaces this and ``jitter``.
        jitter: largest relative change of brightness, contrast and saturation in training.
        normalize: mean and standard deviation of ``"imagenet"`` or of the ``"training"`` images.
        channels: 3, or 1 for gray.
        rotations: add the rotations of each class by 90, 180 and 270 degrees as three more classes,
            as is usual for Omniglot.
        aspect: how images become squares, in training, at test and in learners of the run:
            ``"stretch"``, ``"crop"`` (the center) or ``"letterbox"`` (the whole image on gray); see
            `Resize`.

    Raises:
        InputError: a data set is missing, wrong or not complete; an image cannot be decoded; or a
            class is in two parts.

    Example:
        >>> import tempfile, torch
        >>> from omnitraining.datasets import placeholders
        >>> data = placeholders.write(Path(tempfile.mkdtemp()), ["birds"])
        >>> config = EpisodeConfig(ways=2, shots=1, queries=2, test_ways=2, test_shots=(1,))
        >>> problem = Photos(data, ("birds",), "birds", ("birds",), config, size=16)
        >>> problem.episode(0, torch.Generator().manual_seed(0)).support_x.shape
        torch.Size([1, 2, 3, 16, 16])
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
        aspect: Aspect = "stretch",
    ) -> None:
        """List the images, and decode them or map them from the cache."""
        data = Path(data)  # which Python code may give as text
        if size < 16:
            raise InputError(f"problem.size is {size}: images must be 16 pixels or larger")
        if min(held_out) < 0 or sum(held_out) >= 1:
            raise InputError(
                f"problem.held_out is {held_out}: give two fractions that add up to less than 1"
            )
        if aspect not in ASPECTS:
            raise InputError(f"problem.aspect is {aspect!r}: choose from {', '.join(ASPECTS)}")
        self.aspect = aspect
        roles = {
            "training": [_part(text, "train") for text in training],
            "validation": [_part(validation, "validation")],
            "benchmarks": [_part(text, "test") for text in benchmarks],
        }
        for role, parts in roles.items():
            if len(set(parts)) < len(parts) or (not parts and role != "benchmarks"):
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
            part: load_images(
                listing,
                transform.stored,
                skip_damaged=skip_damaged,
                resize=Resize(aspect, center=size),
            )
            for part, listing in listings.items()
        }
        for seen in roles["training"]:
            for unseen in (*roles["validation"], *roles["benchmarks"]):
                _warn_of_shared(listings, images, seen, unseen)
        if channels == 1:
            images = {part: gray(labeled) for part, labeled in images.items()}
        if rotations:
            images = {part: rotated(labeled) for part, labeled in images.items()}
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
        """Name of a benchmark."""
        return self.name if self.split == "test" else f"{self.name}:{self.split}"


def _part(text: str, default: str) -> _Part:
    name, _, split = text.partition(":")
    return _Part(name, split or default)


def _read(data: Path, name: str, complete: bool) -> DataSet:
    if not name or not (data / name).exists():
        names = sorted(entry.name for entry in data.iterdir()) if data.is_dir() else []
        raise InputError(
            f"there is no data set {name!r} in {data}: "
            + (f"it holds {first_few(names)}" if names else "it holds none")
        )
    data_set = read(data / name)
    wrong = standard_differences(name, data_set) if complete else []
    if wrong:
        raise InputError(f"{first_few(wrong)} (for smoke runs, set problem.complete to false)")
    return data_set


def with_split(data_set: DataSet, held_out: tuple[float, float] = HELD_OUT) -> DataSet:
    """The data set, split by classes if it has no split.

    Args:
        data_set: the data set as it was read.
        held_out: fractions of the classes for validation and for test.
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
    """Check that a class is used only in training, in validation, or in test.

    Searches are evaluated on validation classes, so that a part of validation may be a benchmark
    too, if it is named by its split.

    Raises:
        InputError: a class is used in two of these, or twice in training.
    """
    served: dict[tuple[str, str], tuple[str, _Part]] = {}
    for role, parts in roles.items():
        for part in parts:
            for known in listings[part].classes:
                before, first = served.setdefault((part.name, known), (role, part))
                tested_twice = before == role == "benchmarks"
                is_validation = (
                    role == "benchmarks" and first == part and part.split == "validation"
                )
                if (before, first) != (role, part) and not tested_twice and not is_validation:
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
    """Warn of images that are in two parts, and name a few."""

    def name_of(part: _Part, position: int) -> str:
        items = listings[part].items
        # If damaged images were left out, positions differ from the listing.
        named = len(items) == len(images[part].images) and isinstance(items[position], Path)
        return str(items[position]) if named else f"image {position}"

    pairs = shared_images(images[seen].images, images[unseen].images)
    if pairs:
        names = [f"{name_of(unseen, j)} is {name_of(seen, i)}" for i, j in pairs]
        warnings.warn(
            f"{len(pairs)} images of {listings[unseen].name} are also in {listings[seen].name}: "
            f"{first_few(names, 3)}",
            stacklevel=3,
        )

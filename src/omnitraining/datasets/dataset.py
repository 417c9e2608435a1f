"""A data set on disk: its splits, as lists of images that are not opened yet."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, combinations
from pathlib import Path
from typing import NamedTuple, TypeAlias

from omnitraining.datasets.listing import Item, Listing
from omnitraining.errors import InputError

SPLITS = ("train", "validation", "test")
UNSPLIT = "all"
"""Name of the only split of data that have none, and of the union of all splits."""

SPLIT_ALIASES = {
    "train": "train",
    "base": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "novel": "test",
}
"""The split that a name of a file or folder, or a cell of a table, stands for."""

Images: TypeAlias = Mapping[str, Sequence[Item]]
"""Images by the name of their class."""


class LayoutMatch(NamedTuple):
    """A data set read in one of the layouts.

    Attributes:
        layout: description of the layout.
        splits: the images of every split.
        notes: warnings for the user, as of files that were left out.
    """

    layout: str
    splits: Mapping[str, Images]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataSet:
    """A data set on disk.

    Attributes:
        name: name of its folder or file.
        layout: description of its layout.
        splits: listings by "train", "validation" and "test"; or by "all" if there is no split.
        path: its folder or file.
        notes: warnings for the user, as of files that were left out.
    """

    name: str
    layout: str
    splits: dict[str, Listing]
    path: Path
    notes: tuple[str, ...] = ()

    def split(self, name: str) -> Listing:
        """The images of one split; "all" is the union of all splits.

        Raises:
            InputError: there is no such split.
        """
        if name in self.splits:
            return self.splits[name]
        if name == UNSPLIT:
            return _union(f"{self.name}-{UNSPLIT}", list(self.splits.values()))
        raise InputError(f"{self.path} has no split {name!r}: choose from {', '.join(self.names)}")

    @property
    def names(self) -> tuple[str, ...]:
        """Names that `split` accepts."""
        return (*(name for name in self.splits if name != UNSPLIT), UNSPLIT)


def list_images(name: str, images: Images) -> Listing:
    """The listing of images by class, labeled in the order of the classes.

    Args:
        name: name of the listing.
        images: images by class.
    """
    items = [item for group in images.values() for item in group]
    labels = [label for label, group in enumerate(images.values()) for _ in group]
    return Listing(name, tuple(images), items, labels)


def subset(whole: Listing, name: str, classes: Collection[str]) -> Listing:
    """The images of some classes, with new labels.

    Args:
        whole: the listing to choose from.
        name: name of the new listing.
        classes: names of the classes to keep.
    """
    kept = tuple(known for known in whole.classes if known in classes)
    number = {whole.classes.index(known): label for label, known in enumerate(kept)}
    pairs = zip(whole.items, whole.labels, strict=True)
    chosen = [(item, number[label]) for item, label in pairs if label in number]
    return Listing(name, kept, [item for item, _ in chosen], [label for _, label in chosen])


def closerlook_split(
    classes: Iterable[tuple[int, str, Sequence[Item]]],
) -> dict[str, dict[str, Sequence[Item]]]:
    """The split of CloserLook (Chen et al., 2019) for data sets that are published without one.

    Classes of even number are for training, of 1 modulo 4 for validation, of 3 modulo 4 for test.

    Args:
        classes: number (from 0), name and images of each class.

    Example:
        >>> closerlook_split((number, name, []) for number, name in enumerate("abcd"))
        {'train': {'a': [], 'c': []}, 'validation': {'b': []}, 'test': {'d': []}}
    """
    splits: dict[str, dict[str, Sequence[Item]]] = {split: {} for split in SPLITS}
    for number, name, images in classes:
        splits[("train", "validation", "train", "test")[number % 4]][name] = images
    return {split: images for split, images in splits.items() if images}


def check_disjoint(path: Path, splits: Mapping[str, Images]) -> None:
    """Check that no class is in two splits.

    Args:
        path: the data set, for the message.
        splits: images by class, by split.

    Raises:
        InputError: a class is in two splits.
    """
    for first, second in combinations(splits, 2):
        shared = [name for name in splits[first] if name in splits[second]]
        if shared:
            raise InputError(
                f"{path}: class {shared[0]!r} is in {first} and in {second} "
                f"({len(shared)} classes are in both): splits of few-shot data share no class"
            )


def _union(name: str, parts: Sequence[Listing]) -> Listing:
    starts = accumulate((len(part.classes) for part in parts), initial=0)
    pairs = [*zip(parts, starts, strict=False)]
    return Listing(
        name,
        tuple(known for part in parts for known in part.classes),
        [item for part in parts for item in part.items],
        [label + start for part, start in pairs for label in part.labels],
    )

"""A data set as it lies on disk: its splits, none of whose files has been opened yet."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import NamedTuple, TypeAlias

from omnitraining.datasets.listing import Item, Listing
from omnitraining.errors import InputError

SPLITS = ("train", "validation", "test")
UNSPLIT = "all"
SPLIT_ALIASES = {
    "train": "train",
    "base": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "novel": "test",
}
"""Words for splits that are met in names of files and folders, and in tables."""

Images: TypeAlias = Mapping[str, Sequence[Item]]
"""Images by the name of their class."""


class LayoutMatch(NamedTuple):
    """What a reader returns.

    Attributes:
        layout: in plain words.
        splits: the images of every split.
        notes: what was left out, and what else its user should know.
    """

    layout: str
    splits: Mapping[str, Images]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataSet:
    """A data set on disk.

    Attributes:
        name: of its folder or file.
        layout: how it lies there, in plain words.
        splits: listings by "train", "validation" and "test", or "all" if there is no split.
        path: where it lies.
        notes: what was left out, and what else its user should know, in plain words.
    """

    name: str
    layout: str
    splits: dict[str, Listing]
    path: Path
    notes: tuple[str, ...] = ()

    def split(self, name: str) -> Listing:
        """One split; "all" is the union of those there are.

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
        """Names that `split` takes."""
        return (*(name for name in self.splits if name != UNSPLIT), UNSPLIT)


def list_images(name: str, images: Images) -> Listing:
    """Images numbered by class, in the order given."""
    items = [item for some in images.values() for item in some]
    labels = [label for label, some in enumerate(images.values()) for _ in some]
    return Listing(name, tuple(images), items, labels)


def subset(whole: Listing, name: str, classes: Collection[str]) -> Listing:
    """The images of some classes, numbered anew."""
    kept = tuple(known for known in whole.classes if known in classes)
    number = {whole.classes.index(known): label for label, known in enumerate(kept)}
    pairs = zip(whole.items, whole.labels, strict=True)
    chosen = [(item, number[label]) for item, label in pairs if label in number]
    return Listing(name, kept, [item for item, _ in chosen], [label for _, label in chosen])


def closerlook_split(
    classes: Iterable[tuple[int, str, Sequence[Item]]],
) -> dict[str, dict[str, Sequence[Item]]]:
    """The splits of CloserLook (Chen et al., 2019) for data sets that come without one.

    Of the classes, counted from 0, every second is for training; the others are for validation
    and test by turns.

    Args:
        classes: number, name and images of each.
    """
    splits: dict[str, dict[str, Sequence[Item]]] = {split: {} for split in SPLITS}
    for number, name, images in classes:
        splits[("train", "validation", "train", "test")[number % 4]][name] = images
    return {split: images for split, images in splits.items() if images}


def check_disjoint(path: Path, splits: Mapping[str, Images]) -> None:
    """Few-shot splits share no class.

    Raises:
        InputError: two of them do.
    """
    for first, second in combinations(splits, 2):
        shared = [name for name in splits[first] if name in splits[second]]
        if shared:
            raise InputError(
                f"{path}: class {shared[0]!r} is in {first} and in {second} "
                f"({len(shared)} classes are in both): splits of few-shot data share no class"
            )


def _union(name: str, parts: Sequence[Listing]) -> Listing:
    classes, items, labels = list[str](), list[Item](), list[int]()
    for part in parts:
        labels += [label + len(classes) for label in part.labels]
        classes += part.classes
        items += part.items
    return Listing(name, tuple(classes), items, labels)

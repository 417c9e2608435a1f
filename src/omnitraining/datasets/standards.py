"""Classes and numbers of images of the paper's data sets, to check that a folder holds them."""

import re
from dataclasses import dataclass
from pathlib import Path

from omnitraining.datasets.dataset import SPLIT_ALIASES, SPLITS, UNSPLIT, DataSet, closerlook_split

MINI = "mini-imagenet"


@dataclass(frozen=True)
class Standard:
    """A data set of the paper.

    Attributes:
        classes: numbers of classes for training, validation and test.
        images: numbers of images in these splits; None if they are not fixed.
        most: largest number of images of a class; None if there is no limit.
    """

    classes: tuple[int, int, int]
    images: tuple[int, int, int] | None = None
    most: int | None = None


STANDARDS = {
    MINI: Standard((64, 16, 20), (38400, 9600, 12000)),
    "cub": Standard((100, 50, 50), (5885, 2950, 2953)),
    "cars": Standard((98, 49, 49), (4108, 2009, 2027)),
    "places": Standard((183, 91, 91), (36600, 18200, 18200)),
    "plantae": Standard((100, 50, 50), most=600),
}
"""The data sets by name.

The counts are from the file lists of CloserLook (Chen et al., 2019) and of Tseng et al. (2020).
"""


def mini_imagenet() -> dict[str, str]:
    """Split of each class of mini-ImageNet, by synset (Ravi & Larochelle, 2017)."""
    text = (Path(__file__).parent / "splits" / "mini-imagenet.txt").read_text("utf-8")
    rows = [line.split() for line in text.splitlines() if not line.startswith("#")]
    return {synset: SPLIT_ALIASES[word] for word, synset in rows}


def standard_differences(name: str, data_set: DataSet) -> list[str]:
    """Differences between a data set and the standard one of its name, one line for each.

    Args:
        name: name of the data set; nothing is checked if it is not in ``STANDARDS``.
        data_set: the data set as it was read.
    """
    standard, path = STANDARDS.get(name), data_set.path
    if standard is None:
        return []
    count, expected = len(data_set.split(UNSPLIT).classes), sum(standard.classes)
    if count != expected:
        return [f"{path} holds {count} classes: {name} has {expected}"]
    absent = [split for split in SPLITS if split not in data_set.splits]
    if absent:
        return [f"{path} has no split for {' and '.join(absent)}: {name} has one"]
    lines = []
    for position, split in enumerate(SPLITS):
        listing, classes = data_set.splits[split], standard.classes[position]
        if len(listing.classes) != classes:
            count = len(listing.classes)
            lines.append(f"{path} holds {count} classes in {split}: {name} has {classes}")
        elif standard.images and len(listing.items) != standard.images[position]:
            count, images = len(listing.items), standard.images[position]
            lines.append(f"{path} holds {count} images in {split}: {name} has {images}")
        counts = [0] * len(listing.classes)
        for label in listing.labels:
            counts[label] += 1
        if standard.most and max(counts) > standard.most:
            large = listing.classes[counts.index(max(counts))]
            lines.append(
                f"{path} holds {max(counts)} images of class {large!r}: {name} has "
                f"{standard.most} at most"
            )
    return lines + _misplaced(name, data_set)


def _misplaced(name: str, data_set: DataSet) -> list[str]:
    """The first class that is in a wrong split or foreign, as one line; none if all are right."""
    if name == MINI:
        places = mini_imagenet()
    elif name == "cub":
        classes = sorted(data_set.split(UNSPLIT).classes)
        if not all(re.match(r"\d{3}\.", known) for known in classes):
            return []  # without numbers in the names the order is unknown
        splits = closerlook_split((number, known, ()) for number, known in enumerate(classes))
        places = {known: split for split, names in splits.items() for known in names}
    else:
        return []
    wrong = [
        (known, split, places.get(known))
        for split, listing in data_set.splits.items()
        for known in listing.classes
        if places.get(known) != split
    ]
    if not wrong:
        return []
    known, split, right = wrong[0]
    where = f"belongs in {right}" if right else f"is none of {name}"
    return [f"{data_set.path} holds class {known!r} in {split}, which {where}; {len(wrong)} are so"]

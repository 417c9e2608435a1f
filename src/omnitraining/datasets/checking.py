"""Checks a data set on disk: opens every image, and reports damage, copies and small classes."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from rich.table import Table

from omnitraining.datasets import DataSet, standards
from omnitraining.datasets.decoding import decode, open_image
from omnitraining.datasets.listing import Item, Listing
from omnitraining.errors import InputError
from omnitraining.io.terminal import first_few
from omnitraining.io.threads import map_in_threads

WAYS, SHOTS, QUERIES = 5, 5, 16  # of the episodes of the paper, sec. 6.1

_SIDE = 84  # of the test decoding


@dataclass(frozen=True)
class SplitSummary:
    """Counts of one split.

    Attributes:
        per_class: images by name of class.
        sizes: images by width and height in pixels.
        modes: images by their mode in Pillow: RGB is color, L gray, P a palette.
    """

    per_class: dict[str, int]
    sizes: Counter[tuple[int, int]]
    modes: Counter[str]


@dataclass(frozen=True)
class Report:
    """The results of a check.

    Attributes:
        name: name of the data set.
        layout: description of its layout on disk.
        splits: summaries by name of split.
        problems: messages on what must be corrected before the data set can be used.
        warnings: other messages to the user.
    """

    name: str
    layout: str
    splits: dict[str, SplitSummary]
    problems: list[str]
    warnings: list[str]

    @property
    def is_usable(self) -> bool:
        """Whether there are no problems."""
        return not self.problems


@dataclass(frozen=True)
class _Image:
    """One image: its split and class, its content, and the error message if it is damaged."""

    name: str
    split: str
    label: int
    digest: bytes = b""
    size: tuple[int, int] = (0, 0)
    mode: str = ""
    error: str = ""


def check_name(name: str | None) -> None:
    """Check that ``name`` is a known standard data set, or None.

    Raises:
        InputError: it is not.
    """
    if name is not None and name not in standards.STANDARDS:
        known = ", ".join(standards.STANDARDS)
        raise InputError(f"no standard data set is called {name!r}: choose from {known}")


def check(data_set: DataSet, name: str | None = None) -> Report:
    """Open every image of a data set, in parallel threads.

    Args:
        data_set: the data set as it was read.
        name: name of the standard data set that it should be, if any.

    Raises:
        InputError: there is no standard data set of that name.
    """
    check_name(name)
    problems = standards.standard_differences(name, data_set) if name else []
    jobs = [(split, i) for split, part in data_set.splits.items() for i in range(len(part.items))]

    def examine(job: tuple[str, int]) -> _Image:
        split, position = job
        return _examine(split, position, data_set.splits[split])

    images: dict[str, list[_Image]] = {split: [] for split in data_set.splits}
    for image in map_in_threads(examine, jobs, f"checking {data_set.name}"):
        images[image.split].append(image)
    summaries, warnings = {}, [*data_set.notes, *_leaks(images)]
    for split, listing in data_set.splits.items():
        summaries[split] = _summary(listing, images[split])
        problems += _problems(split, images[split], summaries[split])
        warnings += _copies(split, images[split])
        warnings += _too_small(split, summaries[split].per_class)
    return Report(data_set.name, data_set.layout, summaries, problems, warnings)


def table(report: Report) -> Table:
    """One row for every split."""
    grid = Table(title=f"{report.name}: {report.layout}")
    grid.add_column("split")
    for column in ("classes", "images"):
        grid.add_column(column, justify="right")
    for column in ("smallest class", "largest class", "width x height", "modes"):
        grid.add_column(column)
    for name, split in report.splits.items():
        counts = split.per_class
        extremes = [f(counts, key=lambda c: counts[c]) for f in (min, max)] if counts else []
        texts = [
            name,
            str(len(counts)),
            str(sum(counts.values())),
            *(f"{counts[c]} ({c})" for c in extremes),
            _range(split.sizes),
            ", ".join(f"{mode} {count}" for mode, count in split.modes.most_common()),
        ]
        grid.add_row(*texts)
    return grid


def _examine(split: str, position: int, listing: Listing) -> _Image:
    item, label = listing.items[position], int(listing.labels[position])
    if isinstance(item, Path):
        name = str(item)
    else:
        name = f"image {position} of {split} ({listing.classes[label]})"
    try:
        decode(item, _SIDE)
    except InputError as error:
        message = str(error) if isinstance(item, Path) else f"{name} is {error}"
        return _Image(name, split, label, error=message)
    return _Image(name, split, label, *_content(item))


def _content(item: Item) -> tuple[bytes, tuple[int, int], str]:
    """Hash, width and height, and mode of an image that can be decoded."""
    if not isinstance(item, Path):
        digest = hashlib.sha256(np.ascontiguousarray(item).data).digest()
        return digest, (item.shape[1], item.shape[0]), "RGB" if item.ndim == 3 else "L"
    with item.open("rb") as file, open_image(file) as image:
        size, mode = image.size, image.mode
    return hashlib.sha256(item.read_bytes()).digest(), size, mode


def _summary(listing: Listing, images: Sequence[_Image]) -> SplitSummary:
    counts = Counter(image.label for image in images)
    sound = [image for image in images if not image.error]
    return SplitSummary(
        {name: counts[label] for label, name in enumerate(listing.classes)},
        Counter(image.size for image in sound),
        Counter(image.mode for image in sound),
    )


def _problems(split: str, images: Sequence[_Image], summary: SplitSummary) -> list[str]:
    errors = [image.error for image in images if image.error]
    problems = []
    if errors:
        count = f"{len(errors)} of {len(images)} images of {split}"
        problems.append(f"{count} cannot be used: {first_few(errors)}")
    empty = [name for name, count in summary.per_class.items() if not count]
    if empty:
        problems.append(f"{split} has classes without images: {first_few(empty)}")
    if not images:
        problems.append(f"{split} has no images")
    return problems


def _leaks(images: dict[str, list[_Image]]) -> list[str]:
    """Images that are in two splits."""
    warnings = []
    by_content = {
        split: {image.digest: image for image in group if not image.error}
        for split, group in images.items()
    }
    for first, second in combinations(images, 2):
        shared = [digest for digest in by_content[first] if digest in by_content[second]]
        pairs = [f"{by_content[first][d].name} = {by_content[second][d].name}" for d in shared]
        if pairs:
            warnings.append(
                f"images both in {first} and in {second}, which is not unseen then: "
                f"{len(pairs)}: {first_few(pairs)}"
            )
    return warnings


def _copies(split: str, images: Sequence[_Image]) -> list[str]:
    """Images that are in a split more than once."""
    groups = defaultdict(list)
    for image in images:
        if not image.error:
            groups[image.digest].append(image)
    pairs = [(group[0], copy) for group in groups.values() for copy in group[1:]]
    if not pairs:
        return []
    elsewhere = sum(first.label != copy.label for first, copy in pairs)
    names = first_few([f"{first.name} = {copy.name}" for first, copy in pairs])
    return [f"copies in {split}: {len(pairs)}, of which in another class: {elsewhere}: {names}"]


def _too_small(split: str, per_class: dict[str, int]) -> list[str]:
    """Warnings on classes that are too small, or too few, for the episodes of the paper."""
    episode = f"a {WAYS}-way {SHOTS}-shot {QUERIES}-query episode"
    needed, warnings = SHOTS + QUERIES, []
    small = [f"{name} ({count})" for name, count in per_class.items() if 0 < count < needed]
    if small:
        warnings.append(
            f"classes of {split} with fewer images than the {needed} of {episode}: "
            f"{len(small)} of {len(per_class)}: {first_few(small)}"
        )
    if 0 < len(per_class) < WAYS:
        warnings.append(f"{split} has {len(per_class)} classes, too few for {episode}")
    return warnings


def _range(sizes: Counter[tuple[int, int]]) -> str:
    """Widths and heights, as 500 x 375 or 120-500 x 90-500."""
    sides = [sorted({size[axis] for size in sizes}) for axis in (0, 1)]
    return " x ".join(
        str(values[0]) if len(values) == 1 else f"{values[0]}-{values[-1]}"
        for values in sides
        if values
    )

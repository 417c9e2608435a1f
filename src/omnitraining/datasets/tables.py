"""CSV tables of the file and the class of every image, one per split or one for all."""

import csv
import re
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple, TypeAlias

from omnitraining.datasets.dataset import SPLIT_ALIASES, SPLITS, UNSPLIT, LayoutMatch
from omnitraining.datasets.files import (
    by_split,
    check_inside,
    first_missing,
    image_names,
    resolve_paths,
)
from omnitraining.errors import InputError

_FILE = ("filename", "file_name", "file", "image_name", "image", "filepath", "path")
_CLASS = ("label", "class_name", "class", "category")
_SPLIT = ("split", "subset")


class _Row(NamedTuple):
    line: int
    file: str
    label: str
    split: str


class Tables(NamedTuple):
    """The CSV files in a folder that list images, and error messages of the others."""

    usable: list[Path]
    unusable: list[str]


def tables(path: Path) -> Tables:
    """The CSV files in a folder, and in its subfolders ``split`` and ``splits``."""
    read = Tables([], [])
    for place in (path, path / "split", path / "splits"):
        for table in sorted(place.glob("*.csv")):
            try:
                _columns(table, _lines(table))
            except InputError as error:
                read.unusable.append(str(error))
            else:
                read.usable.append(table)
    return read


def split_tables(path: Path) -> LayoutMatch | None:
    """``train.csv``, ``val.csv`` and ``test.csv``, as for mini-ImageNet.

    Returns:
        None if there are fewer than two; of tables that fit ImageNet's own folders one is enough.

    Raises:
        InputError: two tables are for the same split, or a row is wrong.
    """
    by_name = by_split(tables(path).usable, ".csv")
    ranks = bool(by_name) and _are_ranks(path, _first_row(next(iter(by_name.values()))))
    if len(by_name) < 2 and not ranks:
        return None
    layout = "CSV tables for ImageNet's training folders" if ranks else "CSV tables"
    read = _by_rank if ranks else _by_name
    return LayoutMatch(layout, {s: read(path, table, _rows(table)) for s, table in by_name.items()})


def one_table(path: Path, folder: Path | None = None) -> LayoutMatch | None:
    """One CSV file; its name, or a column, may give the split.

    Args:
        path: the file.
        folder: the folder of the data set, if not that of the file.

    Returns:
        None if the path is no CSV file.

    Raises:
        InputError: a row is wrong.
    """
    if path.suffix.lower() != ".csv" or not path.is_file():
        return None
    splits: dict[str, list[_Row]] = {}
    for row in _rows(path):
        splits.setdefault(row.split, []).append(row)
    order = [split for split in (*SPLITS, UNSPLIT) if split in splits]
    images = {split: _by_name(folder or path.parent, path, splits[split]) for split in order}
    return LayoutMatch("one CSV table", images)


_Lines: TypeAlias = list[tuple[int, list[str]]]


def _lines(table: Path) -> _Lines:
    """The cells of each line of a table, with its number."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            lines = [(number, cells) for number, cells in enumerate(csv.reader(file), 1) if cells]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table} is not a CSV file in UTF-8: {error}") from error
    if len(lines) < 2:
        raise InputError(f"{table} needs a first line with the names of columns, and then rows")
    return lines


class _Columns(NamedTuple):
    """Positions of the columns for file, class and split."""

    file: int
    label: int
    split: int | None


def _columns(table: Path, lines: _Lines) -> _Columns:
    columns = [name.strip().lower() for name in lines[0][1]]
    file, label, split = (
        next((columns.index(name) for name in names if name in columns), None)
        for names in (_FILE, _CLASS, _SPLIT)
    )
    if file is None or label is None:
        raise InputError(
            f"{table} has the columns {', '.join(columns)}: it needs one for the file "
            f"({', '.join(_FILE)}) and one for the class ({', '.join(_CLASS)})"
        )
    return _Columns(file, label, split)


def _first_row(table: Path) -> _Row:
    """The first row of a usable table, without checks."""
    lines = _lines(table)
    at, (number, cells) = _columns(table, lines), lines[1]
    cells = [cell.strip() for cell in cells] + [""] * len(lines[0][1])
    return _Row(number, cells[at.file], cells[at.label], UNSPLIT)


def _rows(table: Path) -> list[_Row]:
    """The rows of a table, with the split from its column or from the name of the file."""
    lines = _lines(table)
    at = _columns(table, lines)
    of_all = SPLIT_ALIASES.get(table.stem.lower())

    def row(number: int, cells: list[str]) -> _Row:
        cells = [cell.strip() for cell in cells] + [""] * len(lines[0][1])
        file, label = cells[at.file], cells[at.label]
        if not file or not label:
            raise InputError(
                f"{table}, row {number}: file {file!r} has no class"
                if file
                else f"{table}, row {number}: class {label!r} has no file"
            )
        if at.split is None:
            return _Row(number, file, label, of_all or UNSPLIT)
        split = SPLIT_ALIASES.get(cells[at.split].lower())
        if split is None or split != (of_all or split):
            allowed = f"of {table.name}" if of_all else f"one of {', '.join(SPLIT_ALIASES)}"
            raise InputError(
                f"{table}, row {number}: file {file!r} has the split {cells[at.split]!r}: it "
                f"must be {allowed}"
            )
        return _Row(number, file, label, split)

    return [row(number, cells) for number, cells in lines[1:]]


def _roots(folder: Path, split: str = "train") -> list[Path]:
    """Folders in which the images of a table, or their class folders, may lie."""
    aliases = [alias for alias, known in SPLIT_ALIASES.items() if known == split]
    usual = [folder / name for name in ("images", *aliases, "train", "Data/CLS-LOC/train")]
    imagenet = [
        sorted(folder.glob(f"ILSVRC*{end}")) for end in ("/Data/CLS-LOC/train", "/train", "")
    ]
    return [folder, *usual, *chain(*imagenet)]


def _by_name(folder: Path, table: Path, rows: Sequence[_Row]) -> dict[str, list[Path]]:
    """Images by class; all lie as the first does, with or without class folders."""
    first = rows[0]
    named = [(row.file, row.label) for row in rows]
    paths = resolve_paths(folder, table, named, _roots(folder, first.split))
    if paths is None:
        raise InputError(
            f"{table}, row {first.line}: class {first.label!r}: there is no file {first.file} in "
            f"{folder}, nor in a folder images, train, {first.label} or the like there"
        )
    missing = first_missing(paths)
    if missing is not None:
        row = rows[missing]
        raise InputError(
            f"{table}, row {row.line}: class {row.label!r}: there is no file {paths[missing]}"
        )
    return _by_class(rows, paths)


def _by_class(rows: Sequence[_Row], paths: Sequence[Path]) -> dict[str, list[Path]]:
    images: dict[str, list[Path]] = {label: [] for label in sorted({row.label for row in rows})}
    for row, path in zip(rows, paths, strict=True):
        images[row.label].append(path)
    return images


def _are_ranks(folder: Path, row: _Row) -> bool:
    """Whether files are named by synset and rank, and ImageNet's own files exist.

    Ravi and Larochelle named the images of mini-ImageNet anew: eight digits follow the synset, of
    which the last five are the rank of the image among the files of its class, from 1 on.
    """
    named = re.fullmatch(rf"{re.escape(row.label)}\d{{8}}\.\w+", row.file) is not None
    return named and _imagenet(folder, row.label) is not None


def _imagenet(folder: Path, label: str) -> Path | None:
    """The folder of ImageNet's training folders, if it has one for this class."""
    for root in _roots(folder):
        if (root / label).is_dir() and _ranked(root / label):
            return root
    return None


def _ranked(folder: Path) -> list[str]:
    """ImageNet's names of the images of a class, as n01532829_3.JPEG, sorted by number."""
    pattern = re.compile(r"n\d+_(\d+)\.\w+")
    numbered = [(pattern.fullmatch(name), name) for name in image_names(folder)]
    return [name for _, name in sorted((int(m[1]), name) for m, name in numbered if m)]


def _by_rank(folder: Path, table: Path, rows: Sequence[_Row]) -> dict[str, list[Path]]:
    """Images by class, found by their rank."""
    root = _imagenet(folder, rows[0].label) or folder
    ranked: dict[str, list[str]] = {}
    paths = []
    for row in rows:
        (place,) = check_inside(folder, [root / row.label], table)
        if row.label not in ranked:
            if not place.is_dir():
                raise InputError(
                    f"{table}, row {row.line}: class {row.label!r} has no folder {place}"
                )
            ranked[row.label] = _ranked(place)
        images, rank = ranked[row.label], int(row.file.rpartition(".")[0][-5:])
        if not 0 < rank <= len(images):
            raise InputError(
                f"{table}, row {row.line}: {row.file} is image {rank} of class {row.label!r}, but "
                f"{place} holds {len(images)}"
            )
        paths.append(place / images[rank - 1])
    return _by_class(rows, paths)

"""Recognizes the layout of a data set on disk. Names are listed; no image is opened."""

import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

from omnitraining.datasets.cars import cars
from omnitraining.datasets.dataset import DataSet, LayoutMatch, check_disjoint, list_images
from omnitraining.datasets.files import beside, folder_names, in_words
from omnitraining.datasets.folders import class_folders, cub, places, plantae, split_folders
from omnitraining.datasets.json_lists import json_lists
from omnitraining.datasets.pickles import pickles
from omnitraining.datasets.tables import one_table, split_tables, tables
from omnitraining.errors import InputError
from omnitraining.io.terminal import first_few

Reader: TypeAlias = Callable[[Path], LayoutMatch | None]

_FILES: tuple[Reader, ...] = (json_lists, one_table, pickles)
_LISTS: tuple[Reader, ...] = (json_lists, split_tables, pickles)
"""Lists made for few-shot learning, which come before the folders beside them."""

_FOLDERS: tuple[Reader, ...] = (cub, cars, places, split_folders, plantae, class_folders)
"""Published data sets come before folders in general; the first that fits is taken."""


def read(path: Path) -> DataSet:
    """Recognize the layout of a data set and list its images, as `find`; notes become warnings.

    Args:
        path: a folder, or a CSV table, a JSON list or a pickle.

    Raises:
        InputError: there is nothing, the layout is not known, or something in it is wrong.

    Warns:
        UserWarning: files were left out.
    """
    data_set = find(path)
    for note in data_set.notes:
        warnings.warn(note, stacklevel=2)
    return data_set


def find(path: Path) -> DataSet:
    """Recognize the layout of a data set and list its images.

    Known layouts:

    - mini-ImageNet as CSV tables (``train.csv``, ``val.csv``, ``test.csv``) of Ravi and Larochelle
      or with the original names, beside a folder ``images`` or ImageNet's training folders; as
      pickles of MetaOptNet or learn2learn;
    - CUB-200-2011, Stanford Cars, Places365-standard and Plantae as published, split by the rule
      of CloserLook (Chen et al., 2019) and Tseng et al. (2020);
    - a folder per split with one per class in it; the JSON file lists of CloserLook;
    - other data without a split: a folder per class, or one CSV table (whose rows may name their
      split).

    A folder that holds only another folder stands for that one. Of class folders and one CSV table
    of images, the table is read if it names all images of the folders, in the same classes;
    otherwise the folders are read, and a note states this.

    Args:
        path: a folder, or a CSV table, a JSON list or a pickle.

    Raises:
        InputError: there is nothing, the layout is not known, or something in it is wrong.
    """
    if not path.exists():
        raise InputError(f"there is no data set at {path}")
    match = _recognize(path)
    if match is None:
        names = sorted(entry.name for entry in path.iterdir())[:5] if path.is_dir() else []
        contents = f"it holds {', '.join(names)}" if names else "there is nothing to read"
        raise InputError(
            f"{path} is in no known layout: {contents}; put images in a folder per class, or in "
            "train, val and test with a folder per class each, or name them in a CSV table"
        )
    check_disjoint(path, match.splits)
    name = path.absolute().name if path.is_dir() else path.stem  # of "." too
    splits = {split: list_images(f"{name}-{split}", x) for split, x in match.splits.items()}
    return DataSet(name, match.layout, splits, path, match.notes)


def _recognize(path: Path) -> LayoutMatch | None:
    if path.is_file():
        return _first(path, _FILES)
    listed = _first(path, _LISTS)
    if listed is not None:
        return listed
    usable, unusable = tables(path)
    if usable:
        return _folders_or_table(path, usable, unusable)
    folders = _folders(path)
    if folders is None and unusable:
        raise InputError(unusable[0])
    return folders and _with_notes(folders, unusable)


def _folders_or_table(
    path: Path, usable: Sequence[Path], unusable: Sequence[str]
) -> LayoutMatch | None:
    """A data set with tables of images, beside which there may be class folders.

    Args:
        path: the folder of the data set.
        usable: the tables that list images.
        unusable: reasons why other tables do not.
    """
    listed, problem, table = None, None, usable[0]
    if len(usable) == 1:
        try:
            listed = one_table(table, path)
        except InputError as error:  # raised below, unless there are folders to read
            problem = error
    else:
        names = first_few([known.name for known in usable])
        problem = InputError(f"{path} holds several lists of images, {names}: give one of them")
    if listed and all(image.parent == path / "images" for image in _classes(listed)):
        return listed
    try:
        folders = _folders(path)
    except InputError as error:
        raise InputError(f"{error}; or, for what {table} lists, give that file") from error
    if folders is None:
        if problem is not None:
            raise problem
        return listed
    folders = _with_notes(folders, unusable)
    if listed is None:
        return _with_notes(folders, [str(problem)])
    return _chosen(folders, listed, table)


def _chosen(folders: LayoutMatch, listed: LayoutMatch, source: Path) -> LayoutMatch:
    """The list if it agrees with the class folders and names all their images; else the folders.

    Raises:
        InputError: the classes differ throughout, so that either could be the right one.
    """
    in_folders, in_list = _classes(folders), _classes(listed)
    common = in_folders.keys() & in_list.keys()
    pairs = {(in_folders[path], in_list[path]) for path in common}
    count = f"{source} names {len(common)} of the {len(in_folders)} images in class folders"
    if len(pairs) == len({label for label, _ in pairs}) == len({label for _, label in pairs}):
        if len(common) == len(in_folders):
            return listed
        if len(listed.splits) > 1:
            return listed._replace(notes=(*listed.notes, f"{count}: the others are left out"))
        return _with_notes(folders, [count])
    if not {*in_folders.values()}.isdisjoint(in_list.values()):
        return _with_notes(folders, [f"{count}, and some of them in other classes"])
    folder_classes, list_classes = ([*dict.fromkeys(x.values())] for x in (in_folders, in_list))
    raise InputError(
        f"{source.parent} can be read in two ways: with the folders "
        f"{first_few(folder_classes, 3)} as classes, or with the classes "
        f"{first_few(list_classes, 3)} of {source.name}: give {source} itself for these, or move "
        "it away"
    )


def _classes(match: LayoutMatch) -> dict[Path, str]:
    """The class of each file."""
    return {
        Path(os.path.normpath(image)): label
        for classes in match.splits.values()
        for label, images in classes.items()
        for image in images
        if isinstance(image, Path)
    }


def _with_notes(folders: LayoutMatch, reasons: Iterable[str]) -> LayoutMatch:
    """The folders, with notes on the lists beside them that were not read."""
    notes = (f"{reason}; the folders were read, and not it" for reason in reasons)
    return folders._replace(notes=(*folders.notes, *notes))


def _first(path: Path, readers: Sequence[Reader]) -> LayoutMatch | None:
    return next((match for reader in readers if (match := reader(path)) is not None), None)


def _folders(path: Path) -> LayoutMatch | None:
    """The data set that the folders hold, without regard to lists."""
    match = _first(path, _FOLDERS)
    names = folder_names(path)
    if match is None and len(names) == 1:
        match = _recognize(path / names[0])
        if match is not None:
            return match._replace(notes=(*match.notes, *in_words(path, beside(path))))
    return match

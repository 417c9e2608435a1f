"""Which layout a data set lies in on disk. Names are listed; no image is opened."""

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
"""Lists of files that are meant for few-shot learning say more than the folders beside them."""

_FOLDERS: tuple[Reader, ...] = (cub, cars, places, split_folders, plantae, class_folders)
"""A data set as published says more than folders in general. The first that fits is taken."""


def read(path: Path) -> DataSet:
    """Recognize the layout of a data set and list its images; warn of what was left out.

    See `find`, which does the same and warns of nothing.
    """
    found = find(path)
    for note in found.notes:
        warnings.warn(note, stacklevel=2)
    return found


def find(path: Path) -> DataSet:
    """Recognize the layout of a data set and list its images.

    Known are

    - mini-ImageNet as CSV tables (``train.csv``, ``val.csv``, ``test.csv``) of Ravi and Larochelle
      or with the original names, beside a folder ``images`` or ImageNet's training folders; as
      pickles of MetaOptNet or learn2learn;
    - CUB-200-2011, Stanford Cars, Places365-standard and Plantae as published, split by the rule
      of CloserLook (Chen et al., 2019) and Tseng et al. (2020);
    - a folder per split with one per class in it; the JSON file lists of CloserLook;
    - other data without a split: a folder per class, or one CSV table (whose rows may name their
      split).

    A folder that holds nothing but another folder stands for that one. Where class folders and one
    CSV table of images are both there, the table is taken if it names all images of the folders, in
    the same classes; otherwise the folders are, and the notes say so.

    Args:
        path: a folder, or a CSV table, a JSON list or a pickle.

    Raises:
        InputError: there is nothing, the layout is not known, or something in it is wrong.
    """
    if not path.exists():
        raise InputError(f"there is no data set at {path}")
    found = _recognize(path)
    if found is None:
        held = sorted(entry.name for entry in path.iterdir())[:5] if path.is_dir() else []
        inside = f" it holds {', '.join(held)}" if held else " there is nothing to read"
        raise InputError(
            f"{path} is in no known layout:{inside}; put images in a folder per class, or in "
            "train, val and test with a folder per class each, or name them in a CSV table"
        )
    check_disjoint(path, found.splits)
    name = path.absolute().name if path.is_dir() else path.stem  # of "." too
    splits = {split: list_images(f"{name}-{split}", some) for split, some in found.splits.items()}
    return DataSet(name, found.layout, splits, path, found.notes)


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
    """A data set in which tables name images, which may be those of class folders too.

    Args:
        path: of the data set.
        usable: the tables.
        unusable: why other tables do not list images.
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
    """The class folders, or the list if it says the same of all their images, or more.

    Raises:
        InputError: they have other classes throughout, so that either may be meant.
    """
    held, named = _classes(folders), _classes(listed)
    common = held.keys() & named.keys()
    pairs = {(held[path], named[path]) for path in common}
    count = f"{source} names {len(common)} of the {len(held)} images in class folders"
    if len(pairs) == len({label for label, _ in pairs}) == len({label for _, label in pairs}):
        if len(common) == len(held):
            return listed
        if len(listed.splits) > 1:
            return listed._replace(notes=(*listed.notes, f"{count}: the others are left out"))
        return _with_notes(folders, [count])
    if not {*held.values()}.isdisjoint(named.values()):
        return _with_notes(folders, [f"{count}, and some of them in other classes"])
    of_folders, of_list = ([*dict.fromkeys(known.values())] for known in (held, named))
    raise InputError(
        f"{source.parent} can be read in two ways: with the folders {first_few(of_folders, 3)} as "
        f"classes, or with the classes {first_few(of_list, 3)} of {source.name}: give "
        f"{source} itself for these, or move it away"
    )


def _classes(found: LayoutMatch) -> dict[Path, str]:
    """The class of each file."""
    return {
        Path(os.path.normpath(image)): label
        for classes in found.splits.values()
        for label, images in classes.items()
        for image in images
        if isinstance(image, Path)
    }


def _with_notes(folders: LayoutMatch, reasons: Iterable[str]) -> LayoutMatch:
    """The folders, with the reasons why lists beside them were not read."""
    notes = (f"{reason}; the folders were read, and not it" for reason in reasons)
    return folders._replace(notes=(*folders.notes, *notes))


def _first(path: Path, readers: Sequence[Reader]) -> LayoutMatch | None:
    return next((found for reader in readers if (found := reader(path)) is not None), None)


def _folders(path: Path) -> LayoutMatch | None:
    """What the folders say, without regard to lists."""
    found = _first(path, _FOLDERS)
    inside = folder_names(path)
    if found is None and len(inside) == 1:
        found = _recognize(path / inside[0])
        if found is not None:
            return found._replace(notes=(*found.notes, *in_words(path, beside(path))))
    return found

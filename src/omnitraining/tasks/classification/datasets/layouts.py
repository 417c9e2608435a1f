"""Which layout a data set lies in on disk. Names are listed; no image is opened."""

from collections.abc import Callable
from pathlib import Path

from omnitraining.errors import InputError
from omnitraining.tasks.classification.datasets.cars import cars
from omnitraining.tasks.classification.datasets.dataset import (
    DataSet,
    Found,
    check_disjoint,
    listing,
)
from omnitraining.tasks.classification.datasets.files import folder_names
from omnitraining.tasks.classification.datasets.folders import (
    class_folders,
    cub,
    places,
    plantae,
    split_folders,
)
from omnitraining.tasks.classification.datasets.lists import json_lists
from omnitraining.tasks.classification.datasets.pickles import pickles
from omnitraining.tasks.classification.datasets.tables import one_table, split_tables

# The first that fits: lists of files say more than the folders beside them, and a data set as
# published more than folders in general.
_READERS: tuple[Callable[[Path], Found | None], ...] = (
    json_lists,
    split_tables,
    pickles,
    cub,
    cars,
    places,
    split_folders,
    one_table,
    plantae,
    class_folders,
)


def read(path: Path) -> DataSet:
    """Recognise the layout of a data set and list its images.

    Known are

    - mini-ImageNet as CSV tables (``train.csv``, ``val.csv``, ``test.csv``) of Ravi and Larochelle
      or with the original names, beside a folder ``images`` or ImageNet's training folders; as
      pickles of MetaOptNet or learn2learn;
    - CUB-200-2011, Stanford Cars, Places365-standard and Plantae as published, split by the rule
      of CloserLook (Chen et al., 2019) and Tseng et al. (2020);
    - a folder per split with one per class in it; the JSON file lists of CloserLook;
    - other data without a split: a folder per class, or one CSV table (whose rows may name their
      split).

    A folder that holds nothing but another folder stands for that one.

    Args:
        path: a folder, or a CSV table, a JSON list or a pickle.

    Raises:
        InputError: there is nothing, the layout is not known, or something in it is wrong.
    """
    if not path.exists():
        raise InputError(f"there is no data set at {path}")
    found = _recognise(path)
    if found is None:
        held = sorted(entry.name for entry in path.iterdir())[:5] if path.is_dir() else []
        inside = f" it holds {', '.join(held)}" if held else " there is nothing to read"
        raise InputError(
            f"{path} is in no known layout:{inside}; put images in a folder per class, or in "
            "train, val and test with a folder per class each, or name them in a CSV table"
        )
    layout, images = found
    check_disjoint(path, images)
    name = path.name if path.is_dir() else path.stem
    splits = {split: listing(f"{name}-{split}", some) for split, some in images.items()}
    return DataSet(name, layout, splits, path)


def _recognise(path: Path) -> Found | None:
    for reader in _READERS:
        found = reader(path)
        if found is not None:
            return found
    inside = folder_names(path)
    return _recognise(path / inside[0]) if len(inside) == 1 else None

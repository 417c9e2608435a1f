"""Stanford Cars as published: images in one folder, classes in MATLAB files."""

from pathlib import Path
from typing import Any

import numpy as np

from omnitraining.datasets.dataset import LayoutMatch, closerlook_split
from omnitraining.datasets.files import check_inside, first_missing
from omnitraining.errors import InputError


def cars(path: Path) -> LayoutMatch | None:
    """The images of ``cars_train``, split by the rule of CloserLook in the order of the class ids.

    ``cars_test`` is left out, as by Tseng et al. (2020).

    Returns:
        None if there are no annotations.

    Raises:
        InputError: the annotations are damaged, or an image is missing.
    """
    kits = (path / "devkit", path / "car_devkit" / "devkit", path)
    kit = next((kit for kit in kits if (kit / "cars_train_annos.mat").is_file()), None)
    if kit is None:
        return None
    source = kit / "cars_train_annos.mat"
    table = _read(source, "annotations")
    try:
        rows = [(int(row["class"]), str(row["fname"])) for row in table]
    except (IndexError, ValueError, TypeError) as error:
        raise InputError(f"{source} must give the fields class and fname of images") from error
    names = _class_names(kit / "cars_meta.mat", [number for number, _ in rows])
    folder = path / "cars_train"
    if (folder / "cars_train").is_dir():  # as some copies have it
        folder /= "cars_train"
    paths = [folder / name for _, name in rows]
    missing = first_missing(check_inside(path, paths, source))
    if missing is not None:
        name = names[rows[missing][0]]
        raise InputError(f"{source}: class {name!r}: there is no file {paths[missing]}")
    images: dict[int, list[Path]] = {number: [] for number in names}
    for (number, _), image in zip(rows, paths, strict=True):
        images[number].append(image)
    classes = ((number - 1, names[number], paths) for number, paths in images.items())
    return LayoutMatch("Stanford Cars as published", closerlook_split(classes))


def _class_names(path: Path, numbers: list[int]) -> dict[int, str]:
    """Names of the classes that occur, by number (from 1); the number where names are missing."""
    if not path.is_file():
        return {number: str(number) for number in sorted(set(numbers))}
    names = dict(enumerate(map(str, _read(path, "class_names")), start=1))
    if len(set(names.values())) < len(names):
        raise InputError(f"{path} has two classes of one name")
    unknown = set(numbers) - set(names)
    if unknown:
        raise InputError(
            f"{path} names {len(names)} classes: there is none of number {min(unknown)}"
        )
    return {number: names[number] for number in sorted(set(numbers))}


def _read(path: Path, variable: str) -> Any:
    """An array of a MATLAB file, [N]."""
    # Importing SciPy is slow, so it is imported only where cars are read.
    from scipy.io import loadmat

    try:
        return np.atleast_1d(loadmat(path, squeeze_me=True)[variable])
    except KeyError as error:
        raise InputError(f"{path} holds no variable {variable!r}") from error
    except Exception as error:  # damaged files raise about any type of error in SciPy
        raise InputError(f"{path} is not a MATLAB file that can be read: {error}") from error

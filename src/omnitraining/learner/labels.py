"""Labels that come with images: beside them, in their folders, or in a data set."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from omnitraining.errors import InputError
from omnitraining.learner.image_data import Rows, as_images, kind_of, labels_of
from omnitraining.learner.inputs import Images, class_folders


def labeled(images: Images, y: ArrayLike | None) -> tuple[Images, NDArray[Any] | None]:
    """Images, and their labels [B]; None if they come with the images, which are `Rows` then."""
    items = as_images(images)
    if isinstance(items, Rows):
        if y is not None and items.shuffles:
            raise InputError("y cannot go with a DataLoader that shuffles: leave y out")
        return items, None
    if y is not None and isinstance(images, str | Path) and Path(images).is_dir():
        raise InputError(
            f"{images} is a folder, and y has no order that fits it: leave y out if the folder "
            "holds one per class, or give a list of files"
        )
    if y is not None:
        return items, labels_of(y)
    if not isinstance(images, str | Path):
        raise InputError("there are no labels: give y, or a folder with a folder per class")
    paths, names = class_folders(images)
    return paths, np.array(names)


def as_before(labels: NDArray[Any], known: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers as integers, if the labels of the fit are."""
    both = labels.dtype.kind == "f" and known.dtype.kind in "iu"
    return labels.astype(np.int64) if both else labels


def check_allowed(labels: NDArray[Any], classes: ArrayLike | None) -> None:
    """Check that all labels are among the allowed ``classes``; if None, any label is allowed."""
    if classes is None:
        return
    allowed = labels_of(classes)
    if kind_of(allowed) != kind_of(labels):
        raise InputError(f"labels are {kind_of(labels)}, and classes {kind_of(allowed)}")
    others = labels[~np.isin(labels, allowed)]
    if len(others):
        raise InputError(f"label {others[0].item()!r} is not one of classes")


def checked_weights(weights: ArrayLike | None, count: int) -> NDArray[np.float64] | None:
    """Weights of images [B], checked; None if they are not given."""
    if weights is None:
        return None
    array = np.asarray(weights, np.float64)
    if array.shape != (count,) or not np.isfinite(array).all() or array.sum() <= 0:
        raise InputError(
            f"sample_weight is {list(array.shape)}, sum {array.sum():g}: give a number per image, "
            "with a sum above 0"
        )
    return array


def check_lengths(images: int, labels: int) -> None:
    """Check that there are as many labels as images."""
    if images != labels:
        raise InputError(f"there are {images} images and {labels} labels: give one per image")

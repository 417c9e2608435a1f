"""Images that are in memory or in a torch data set already, listed as those on disk are."""

from collections.abc import Iterable, Sequence, Sized
from threading import Lock
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from omnitraining.errors import InputError
from omnitraining.tasks.classification.listing import Listing


def from_arrays(
    images: NDArray[Any] | Tensor, labels: Iterable[Any] | Tensor, name: str
) -> Listing:
    """List images that are in memory.

    Args:
        images: [M, H, W, C] or [M, C, H, W] with 1 or 3 channels, or [M, H, W]; uint8, or floats
            in [0, 1].
        labels: class of each image, as integers, which may have gaps, or as texts.
        name: of the listing, as "birds".

    Raises:
        InputError: the images have another shape, type or range, or the labels another number or
            type.
    """
    pixels = _pixels(images, name)
    classes, numbers = _numbered(labels, name)
    if len(pixels) != len(numbers):
        raise InputError(f"{name} has {len(pixels)} images, but {len(numbers)} labels")
    return Listing(name, classes, [*pixels], numbers)


def from_dataset(dataset: Any, name: str) -> Listing:
    """List a torch data set without keeping its images.

    Images are asked for again whenever they are needed: once here, to learn the labels, and later
    to be decoded. So they must be the same each time.

    Args:
        dataset: anything with a length whose elements are (image, label); images are of PIL, or
            arrays or tensors of one image as `from_arrays` takes many. Its ``classes``, if there
            are any, name integer labels.
        name: of the listing, as "birds".

    Raises:
        InputError: there is no image, or images or labels are of another kind.
    """
    if not isinstance(dataset, Sized):
        raise InputError(
            f"{name}: a {type(dataset).__name__} has no length, so it cannot be indexed"
        )
    classes, numbers = _numbered((_pair(dataset, i, name)[1] for i in range(len(dataset))), name)
    names = getattr(dataset, "classes", None)
    if isinstance(names, Sequence) and all(known.isdecimal() for known in classes):
        named = [str(names[int(known)]) for known in classes if int(known) < len(names)]
        if len(set(named)) == len(classes):
            classes = tuple(named)
    images = _Images(dataset, name)
    _ = images[0]  # to hear now, not later, that they are of no known kind
    return Listing(name, classes, images, numbers)


class _Images(Sequence[NDArray[np.uint8]]):
    """The images of a torch data set. It is asked by one thread at a time, as it may expect."""

    def __init__(self, dataset: Any, name: str) -> None:
        self._dataset, self._name, self._lock = dataset, name, Lock()

    def __len__(self) -> int:
        return len(self._dataset)

    @overload
    def __getitem__(self, index: int) -> NDArray[np.uint8]: ...
    @overload
    def __getitem__(self, index: slice) -> list[NDArray[np.uint8]]: ...
    def __getitem__(self, index: int | slice) -> NDArray[np.uint8] | list[NDArray[np.uint8]]:
        if isinstance(index, slice):
            return [self[position] for position in range(len(self))[index]]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        with self._lock:
            image = _pair(self._dataset, index, self._name)[0]
        if isinstance(image, Image.Image):
            image = np.asarray(image if image.mode == "L" else image.convert("RGB"))
        if not isinstance(image, np.ndarray | Tensor):
            raise InputError(
                f"image {index} of {self._name} is a {type(image).__name__}: it must be an "
                "image of PIL, an array or a tensor"
            )
        pixels: NDArray[np.uint8] = _pixels(image[None], f"image {index} of {self._name}")[0]
        return pixels


def _pair(dataset: Any, position: int, name: str) -> tuple[Any, Any]:
    element = dataset[position]
    if not isinstance(element, Sequence) or len(element) < 2:
        raise InputError(
            f"element {position} of {name} is a {type(element).__name__}: it must be (image, label)"
        )
    return element[0], element[1]


def _pixels(images: NDArray[Any] | Tensor, name: str) -> NDArray[np.uint8]:
    """Images as uint8 [M, H, W, 3] or [M, H, W]."""
    found = images.detach().cpu().numpy() if isinstance(images, Tensor) else np.asarray(images)
    shape = " x ".join(map(str, found.shape))
    if found.ndim == 4 and found.shape[3] not in (1, 3) and found.shape[1] in (1, 3):
        found = found.transpose(0, 2, 3, 1)
    if found.ndim == 4 and found.shape[3] == 1:
        found = found[..., 0]
    if found.shape[3:] not in ((), (3,)) or found.ndim < 3 or not found.size:
        raise InputError(
            f"{name} has the shape {shape}: it must be M x H x W x C or M x C x H x W with 1 or 3 "
            "channels, or M x H x W"
        )
    if found.dtype == np.uint8:
        return found
    if not np.issubdtype(found.dtype, np.floating):
        raise InputError(f"{name} is of {found.dtype}: it must be of uint8, or of floats in [0, 1]")
    low, high = found.min(), found.max()
    if not (low >= 0 and high <= 1):
        raise InputError(
            f"{name} has values from {low:.4g} to {high:.4g}: floats must be in [0, 1]"
        )
    levels: NDArray[np.uint8] = (found * 255).round().astype(np.uint8)
    return levels


def _numbered(labels: Iterable[Any] | Tensor, name: str) -> tuple[tuple[str, ...], list[int]]:
    """Names of the classes, sorted, and the number of each label among them."""
    if isinstance(labels, Tensor | np.ndarray):
        labels = labels.tolist()
    found = [label.item() if isinstance(label, Tensor | np.generic) else label for label in labels]
    if not found:
        raise InputError(f"{name} is empty")
    kind = int if isinstance(found[0], int) else str
    for position, label in enumerate(found):
        if not isinstance(label, kind):
            raise InputError(
                f"label {position} of {name} is {label!r}: labels must be all integers or all texts"
            )
    classes = sorted(set(found))
    number = {label: position for position, label in enumerate(classes)}
    return tuple(map(str, classes)), [number[label] for label in found]

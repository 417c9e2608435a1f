"""Listings of images that are in arrays or in a torch data set."""

from collections.abc import Iterable, Mapping, Sequence, Set, Sized
from threading import Lock
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from omnitraining.datasets.decoding import undecodable
from omnitraining.datasets.listing import Listing
from omnitraining.datasets.pixels import as_bytes, channels_first, eight_bit
from omnitraining.errors import InputError


def from_arrays(
    images: NDArray[Any] | Tensor, labels: Iterable[Any] | Tensor, name: str
) -> Listing:
    """List images that are in memory.

    Args:
        images: [M, H, W, C] or [M, C, H, W] with 1, 3 or 4 channels, or [M, H, W]; integers from 0
            to 255 (uint16: to 65535), or floats from 0 to 1.
        labels: class of each image, as integers, which may have gaps, or as texts.
        name: name of the listing, as "birds".

    Raises:
        InputError: the images have another shape, type or range, or the labels another number or
            type.

    Example:
        >>> import numpy as np
        >>> pixels = np.zeros((4, 8, 8, 3), np.uint8)
        >>> from_arrays(pixels, ["wren", "robin", "wren", "robin"], "birds").classes
        ('robin', 'wren')
    """
    pixels = _pixels(images, name)
    classes, numbers = _numbered(labels, name)
    if len(pixels) != len(numbers):
        raise InputError(f"{name} has {len(pixels)} images, but {len(numbers)} labels")
    return Listing(name, classes, [*pixels], numbers)


def from_dataset(dataset: Any, name: str) -> Listing:
    """List a torch data set without keeping its images.

    Elements are read once here, for the labels, and again when the images are decoded. So they must
    be the same each time.

    Args:
        dataset: anything with a length whose elements are (image, label). Images are of PIL, or
            arrays or tensors of one image in a form that `from_arrays` accepts. Its ``classes``,
            if there are any, name integer labels, unless a ``target_transform`` has changed these.
        name: name of the listing, as "birds".

    Raises:
        InputError: there is no image, or images or labels are of another kind.
    """
    if not isinstance(dataset, Sized):
        raise InputError(
            f"{name}: a {type(dataset).__name__} has no length, so it cannot be indexed"
        )
    classes, numbers = _numbered((_pair(dataset, i, name)[1] for i in range(len(dataset))), name)
    names = getattr(dataset, "classes", None)
    if (
        isinstance(names, Sequence)
        and all(known.isdecimal() for known in classes)
        and _are_unchanged(dataset, [int(classes[number]) for number in numbers])
    ):
        named = [str(names[int(known)]) for known in classes if int(known) < len(names)]
        if len(set(named)) == len(classes):
            classes = tuple(named)
    images = _Images(dataset, name)
    _ = images[0]  # raises an error now, not later, if its kind is unknown
    return Listing(name, classes, images, numbers)


class _Images(Sequence[NDArray[np.uint8]]):
    """The images of a torch data set, which is read by one thread at a time, as it may expect."""

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
        name = f"image {index} of {self._name}"
        with self._lock:
            image = _pair(self._dataset, index, self._name)[0]
            if isinstance(image, Image.Image):
                try:
                    return np.asarray(eight_bit(image))
                except Exception as error:  # damaged ones raise about any type of error in Pillow
                    raise InputError(f"{name} {undecodable(error)}") from error
        if not isinstance(image, np.ndarray | Tensor):
            raise InputError(
                f"{name} is a {type(image).__name__}: it must be an image of PIL, an array or a "
                "tensor"
            )
        pixels: NDArray[np.uint8] = _pixels(image[None], name)[0]
        return pixels


def _pair(dataset: Any, position: int, name: str) -> tuple[Any, Any]:
    try:
        element = dataset[position]
    except (KeyError, IndexError) as error:
        raise InputError(
            f"element {position} of {name}: {error!r}: a {type(dataset).__name__} must give pairs "
            "(image, label) by position"
        ) from error
    except (OSError, Image.DecompressionBombError) as error:  # a file that it cannot read
        raise InputError(f"image {position} of {name} {undecodable(error)}") from error
    if not isinstance(element, Sequence) or len(element) < 2:
        raise InputError(
            f"element {position} of {name} is a {type(element).__name__}: it must be (image, label)"
        )
    return element[0], element[1]


def _are_unchanged(dataset: Any, labels: list[int]) -> bool:
    """Whether labels are the numbers that the data set gave to its classes."""
    targets = getattr(dataset, "targets", None)
    if targets is None:
        return not any(getattr(dataset, name, None) for name in ("target_transform", "transforms"))
    numbers = targets.tolist() if isinstance(targets, Tensor | np.ndarray) else [*targets]
    return [int(number) for number in numbers] == labels


def _pixels(images: NDArray[Any] | Tensor, name: str) -> NDArray[np.uint8]:
    """Images as uint8 [M, H, W, 3] or [M, H, W]."""
    if not isinstance(images, Tensor):
        try:
            images = np.asarray(images)
        except ValueError as error:
            raise InputError(f"{name}: images differ in size: give arrays of one size") from error
    pixels = channels_first(as_bytes(images, name), name)
    if not pixels.size:
        raise InputError(f"{name} of shape {[*images.shape]} has no pixels")
    if pixels.shape[1] == 1:
        return pixels[:, 0]
    last = np.moveaxis(pixels, 1, 3)
    if last.shape[3] == 3:
        return last
    return np.stack([np.asarray(eight_bit(Image.fromarray(image))) for image in last])


def _numbered(labels: Iterable[Any] | Tensor, name: str) -> tuple[tuple[str, ...], list[int]]:
    """Names of the classes, sorted, and the number of each label among them."""
    if isinstance(labels, str) or not isinstance(labels, Iterable):
        raise InputError(f"labels of {name} are a {type(labels).__name__}: give a list")
    if isinstance(labels, Set | Mapping):
        raise InputError(
            f"labels of {name} are a {type(labels).__name__}, without order: give a list"
        )
    if isinstance(labels, Tensor | np.ndarray):
        labels = labels.tolist()
    values = [label.item() if isinstance(label, Tensor | np.generic) else label for label in labels]
    if not values:
        raise InputError(f"{name} is empty")
    kind = int if isinstance(values[0], int) else str
    for position, label in enumerate(values):
        if not isinstance(label, kind):
            raise InputError(
                f"label {position} of {name} is {label!r}: labels must be all integers or all texts"
            )
    classes = sorted(set(values))
    number = {label: position for position, label in enumerate(classes)}
    return tuple(map(str, classes)), [number[label] for label in values]

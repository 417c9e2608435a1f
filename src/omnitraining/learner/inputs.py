"""Images of any file type, size, channels and number type, as inputs of a network."""

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from omnitraining.datasets.dataset import SPLIT_ALIASES
from omnitraining.datasets.decoding import (
    ASPECTS,
    Aspect,
    Interpolation,
    Resize,
    decode,
    undecodable,
)
from omnitraining.datasets.files import (
    class_paths,
    contents,
    folder_names,
    image_names,
    in_class,
    in_words,
)
from omnitraining.datasets.folders import named_as_splits
from omnitraining.datasets.images import luma
from omnitraining.datasets.listing import Item
from omnitraining.datasets.pixels import CHANNELS, as_bytes, channels_first, check_dense
from omnitraining.errors import InputError
from omnitraining.io.terminal import first_few, tracked
from omnitraining.io.threads import map_in_threads
from omnitraining.learner.image_data import Rows, as_images
from omnitraining.memory import reusing_memory
from omnitraining.tasks.classification.problem import EMBED_BATCH, Classification

Images: TypeAlias = Any
"""An array or tensor of images, or a list of paths, of Pillow images, or of arrays."""


@dataclass(frozen=True)
class ImageInputs:
    """Preprocessing: the inputs of a network, and how images become them.

    Args:
        channels: 1 (gray) or 3 (red, green, blue).
        stored: side in pixels that images are resized to.
        size: side in pixels of the center crop, the network's input.
        mean: mean pixel value of each channel, from 0 to 1.
        std: standard deviation of the pixel values of each channel.
        aspect: how images become squares, see `Resize`.
        interpolation: of the resizing.
    """

    channels: int
    stored: int
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    aspect: Aspect = "stretch"
    interpolation: Interpolation = "bilinear"

    @classmethod
    def of(cls, problem: Classification) -> "ImageInputs":
        """The preprocessing of a training problem.

        Raises:
            InputError: its images are not square, or of neither 1 nor 3 channels; or its
                augmentation has no mean and standard deviation.
        """
        channels, height, width = problem.training[0].images.shape[1:]
        size = problem.example().shape[-1]
        if height != width or channels not in (1, 3):
            raise InputError(
                f"a learner takes square images of 1 or 3 channels: {type(problem).__name__} has "
                f"{channels} x {height} x {width}"
            )
        augmentation = problem.augmentation
        if not (hasattr(augmentation, "mean") and hasattr(augmentation, "std")):
            raise InputError(
                f"augmentation {type(augmentation).__name__} must set mean and std, each [C], for "
                "a learner to normalize images"
            )
        statistics = augmentation.mean, augmentation.std
        per_channel = (x if len(x) == channels else x.mean(0, True) for x in statistics)
        mean, std = (tuple(map(float, x)) for x in per_channel)
        return cls(channels, height, size, mean, std, problem.aspect)

    def with_aspect(self, aspect: Aspect) -> "ImageInputs":
        """The same, with another way to make squares of images.

        Raises:
            InputError: there is no such way.
        """
        if aspect not in ASPECTS:
            raise InputError(f"aspect is {aspect!r}: choose from {', '.join(ASPECTS)}")
        return replace(self, aspect=aspect)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an input of the network."""
        return self.channels, self.size, self.size

    @property
    def resize(self) -> Resize:
        """How an image becomes a square of ``stored`` pixels."""
        return Resize(self.aspect, self.interpolation, self.size)

    def __str__(self) -> str:
        side = f"{self.size} px"
        if self.stored != self.size:
            side += f" of {self.stored}"
        return f"{side} ({self.interpolation}, {ASPECTS[self.aspect]})"

    def as_json(self) -> dict[str, Any]:
        """The values as they are kept in files, without values equal to their defaults."""
        usual = {f.name: f.default for f in fields(self)}
        return {name: value for name, value in asdict(self).items() if value != usual[name]}

    def decoded(self, item: Item | Image.Image) -> NDArray[np.uint8]:
        """An image file, an array or a Pillow image as RGB before the center crop, [3, S, S].

        Args:
            item: as in `decode`.

        Raises:
            InputError: as in `decode`.
        """
        return decode(item, self.stored, self.resize)

    def pixels(self, images: Images) -> Tensor:
        """Images as the network takes them before normalization, uint8 [B, C, H, W].

        Accepted are
        - an array or tensor [B, H, W], [B, H, W, C] or [B, C, H, W] with C = 1, 3 or 4, but for
          [B, H, W] that is likely to be one image in color;
        - a list of such images of any sizes, [H, W], [H, W, C] or [C, H, W];
        - a list of paths of image files of any kind that Pillow reads, or of Pillow images;
        - one Pillow image; or the path of one image file, of a folder of them, or of a folder of
          such folders, sorted by name as text ("10.png" before "2.png");
        - a data set or loader of torch, or a list of pairs of an image and its label, or of rows
          with an "image" (of Hugging Face); labels are ignored.

        Whole numbers are pixel values from 0 to 255 (of uint16, from 0 to 65535),
        floating-point numbers from 0 to 1 (kept with 8 bits), true is white. Other sizes are
        resized with antialiasing, as ``aspect`` and ``interpolation`` specify. Color is converted
        to gray, or gray to color, as the network needs it; transparent pixels become white.

        Args:
            images: in one of these forms.

        Raises:
            InputError: an image cannot be read, has a wrong shape, or pixel values out of range or
                that are not numbers; the message names it.
        """
        return torch.cat([*self.batches(images)])

    def batches(self, images: Images, size: int = EMBED_BATCH) -> Iterator[Tensor]:
        """The same in batches, of which one at a time is in memory.

        Args:
            images: as in `pixels`.
            size: of a batch.

        Raises:
            InputError: as in `pixels`, when the batch is reached.
        """
        corner = round((self.stored - self.size) / 2)
        center = slice(corner, corner + self.size)
        for whole in reusing_memory(self._stored(images, size)):
            yield whole[:, :, center, center].contiguous()

    def _stored(self, images: Images, size: int) -> Iterator[Tensor]:
        """Batches of images before the center crop."""
        items = as_images(images)
        if isinstance(items, Rows):
            ones: Iterator[Tensor] = map(self._one, enumerate(items))
            if (count := items.count) is not None:
                ones = tracked(ones, count, "reading images")
        else:
            items = listed(items)
            if isinstance(items, Tensor | np.ndarray):
                yield from self._of_array(items, size)
                return
            _load_repeated(items)
            ones = map_in_threads(self._one, [*enumerate(items)], "reading images")
        none = True
        while part := [*islice(ones, size)]:
            none = False
            yield torch.stack(part)
        if none:
            raise InputError("there are no images: give one or more")

    def _of_array(self, items: Tensor | NDArray[Any], size: int) -> Iterator[Tensor]:
        if items.ndim < 3:
            raise InputError(
                f"images of shape {list(items.shape)} are no images: give [B, H, W], [B, H, W, C] "
                "or [B, C, H, W]; for one image, a list of it"
            )
        if not len(items):
            raise InputError("there are no images: give one or more")
        check_dense(items, "the images")
        self._check_axes(items)
        # The largest value of all images decides: one batch of dark images may look like 8 bits.
        deep = str(items.dtype).endswith("uint16") and np.asarray(items).max() > 255
        starts = range(0, len(items), size)
        for start in tracked(starts, len(starts), "batches of images"):
            part = items[start : start + size]
            part = np.asarray(part) / np.float32(65535) if deep else part
            values = as_bytes(part, "the images", start)
            pixels = channels_first(values, "the images", len(items))
            if pixels.shape[1:] == (self.channels, self.stored, self.stored):
                yield _tensor(pixels)
            else:
                yield torch.stack([self._square(image, "the images") for image in pixels])

    def _check_axes(self, items: Tensor | NDArray[Any]) -> None:
        """Refuse an array of three axes that is rather one image in color than many in gray.

        Raises:
            InputError: its last axis has the length of channels; or its first one, of a tensor for
                a network of color, as torchvision reads an image.
        """
        shape = list(items.shape)
        last = shape[-1] in CHANNELS[1:]
        first = shape[0] in CHANNELS[1:] and isinstance(items, Tensor) and self.channels == 3
        if len(shape) == 3 and (last or first):
            raise InputError(
                f"images of shape {shape} may be {shape[0]} gray images or one of "
                f"{shape[-1] if last else shape[0]} channels: give a list of one image, or gray "
                "images as [B, 1, H, W]"
            )

    def _one(self, numbered: tuple[int, Any]) -> Tensor:
        number, item = numbered
        name = f"image {number}"
        if isinstance(item, str | Path):
            if "\0" in str(item):
                raise InputError(f"{name} is no path: {str(item)!r} holds a null character")
            return self.colored(torch.from_numpy(self.decoded(Path(item))))
        if isinstance(item, Image.Image):
            try:
                return self.colored(torch.from_numpy(self.decoded(item)))
            except InputError as error:
                raise InputError(f"{name} {error}") from error
        if not isinstance(item, Tensor | np.ndarray):
            raise InputError(
                f"{name} is a {type(item).__name__}: give paths, Pillow images or arrays"
            )
        pixels = as_bytes(item, name)
        return self._square(channels_first(pixels[None], name)[0], name)

    def _square(self, pixels: NDArray[np.uint8], name: str) -> Tensor:
        """One image of bytes [C, H, W], resized and in the network's colors."""
        if pixels.shape[0] == self.channels and pixels.shape[1:] == (self.stored, self.stored):
            return _tensor(pixels)
        if not pixels.size:
            raise InputError(f"{name}: shape {list(pixels.shape)} has no pixels")
        rows = pixels[0] if pixels.shape[0] == 1 else pixels.transpose(1, 2, 0)
        image = Image.fromarray(np.ascontiguousarray(rows))
        return self.colored(torch.from_numpy(self.decoded(image)))

    def colored(self, pixels: Tensor) -> Tensor:
        """Bytes [..., 3, S, S] in as many channels as the network takes."""
        if self.channels == 3:
            return pixels
        return luma(pixels)


def _tensor(pixels: NDArray[np.uint8]) -> Tensor:
    """Pixels as a tensor; a read-only array is copied, as torch would warn of it."""
    return torch.from_numpy(np.require(pixels, requirements=["C", "W"]))


def listed(images: Images) -> Any:
    """Images as an array, a tensor, or a list.

    Raises:
        InputError: there is no such file or folder, or images have no order or another type.
    """
    if isinstance(images, Image.Image):
        return [images]
    if isinstance(images, str | Path):
        path = Path(images)
        if not str(images) or not path.exists():  # an empty text is not the folder one is in
            raise InputError(f"there is no image or folder at {images or repr(images)}")
        if path.is_dir():
            return _of_folder(path)
        return [path]
    if isinstance(images, Tensor):
        return images if images.is_meta else images.detach().cpu()
    if isinstance(images, np.ndarray):
        return images.tolist() if images.dtype.kind in "OUS" else images
    if hasattr(images, "__array__") and not isinstance(images, Sequence):
        return listed(np.asarray(images))
    if isinstance(images, set | frozenset | Mapping):
        raise InputError(f"images are a {type(images).__name__}, which has no order: give a list")
    if isinstance(images, Iterable):
        items = [*images]
        if items and isinstance(items[0], list | tuple | int | float):
            return listed(_as_array(items))
        return items
    raise InputError(f"images are {type(images).__name__}: give arrays, or paths of files")


def class_folders(folder: Path | str) -> tuple[list[Path], list[str]]:
    """Image files of a folder with one folder per class, and the class of each.

    Raises:
        InputError: there is no such folder, or no class in it, or a class has no images.
    """
    if not str(folder) or not Path(folder).is_dir():
        raise InputError(f"there is no folder at {folder}")
    folder = Path(folder)
    names = folder_names(folder)
    if not names:
        raise InputError(f"folder {folder} holds no classes: give a folder of images per class")
    if len(names) > 1 and all(name.lower() in SPLIT_ALIASES for name in names):
        raise InputError(
            f"{folder} holds splits ({', '.join(names)}), not classes: give one of them, as "
            f"{folder / names[0]}, if it holds a folder of images per class"
        )
    classes, left_out = class_paths(folder)
    _warn((*in_words(folder, left_out), *named_as_splits(folder, classes)))
    paths = [path for of_class in classes.values() for path in of_class]
    return paths, [name for name, of_class in classes.items() for _ in of_class]


def _of_folder(folder: Path) -> list[Path]:
    """The images of a folder, or of the class folders in it."""
    listing = contents(folder)
    if listing.images:
        _warn(in_words(folder, in_class(folder, listing)))
        return [folder / name for name in listing.images]
    if any(image_names(folder / name) for name in listing.folders):
        return class_folders(folder)[0]
    inside = f", but folders ({first_few(listing.folders, 3)}): give one of them"
    raise InputError(f"folder {folder} holds no images{inside if listing.folders else ''}")


def _warn(notes: Iterable[str]) -> None:
    for note in notes:
        warnings.warn(note, stacklevel=2)


def _load_repeated(items: Sequence[Any]) -> None:
    """Read the Pillow images that a list holds twice: two threads must not read one at once.

    Raises:
        InputError: one cannot be decoded.
    """
    times = Counter(id(item) for item in items if isinstance(item, Image.Image))
    for number, item in enumerate(items):
        if times.get(id(item), 0) > 1:
            try:
                item.load()
            except Exception as error:  # Pillow raises errors of many types for damaged images
                raise InputError(f"image {number} {undecodable(error)}") from error


def _as_array(nested: list[Any]) -> NDArray[Any]:
    try:
        return np.asarray(nested)
    except ValueError as error:
        raise InputError("images are nested lists of different lengths: give arrays") from error

"""Images that people have, as images that a network takes: any file, size, channels and type."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from omnitraining.errors import InputError
from omnitraining.tasks.classification.datasets.files import class_paths, image_names
from omnitraining.tasks.classification.decoding import decode, in_threads
from omnitraining.tasks.classification.problem import Classification

Images: TypeAlias = Any
"""An array or tensor of images, or a list of paths, of Pillow images, or of arrays."""

CHANNELS = (1, 3, 4)  # grey; red, green, blue; and those with opacity


@dataclass(frozen=True)
class ImageInputs:
    """What the network of a training problem takes, and how images become that.

    Args:
        channels: 1 (grey) or 3 (red, green, blue).
        stored: side in pixels that images are resized to; the aspect is not kept.
        size: side of the centre that the network sees.
        mean: mean level of each channel, from 0 to 1.
        std: standard deviation of the levels of each channel.
    """

    channels: int
    stored: int
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, problem: Classification) -> "ImageInputs":
        """The inputs of a training problem.

        Raises:
            InputError: its images are not square, or of neither 1 nor 3 channels, or its views do
                not say how they normalise.
        """
        channels, height, width = problem.training[0].images.shape[1:]
        views, size = problem.views, problem.example().shape[-1]
        mean, std = (getattr(views, name, None) for name in ("mean", "std"))
        if height != width or channels not in (1, 3) or mean is None or std is None:
            raise InputError(
                f"a learner takes square images of 1 or 3 channels, from views with a mean and a "
                f"std: {type(problem).__name__} has {channels} x {height} x {width} and "
                f"{type(views).__name__}"
            )
        levels = (x if len(x) == channels else x.mean(0, True) for x in (mean, std))
        return cls(channels, height, size, *(tuple(map(float, x)) for x in levels))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what the network sees."""
        return self.channels, self.size, self.size

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def levels(self, images: Images, start: int = 0) -> Tensor:
        """Images as the network sees them before they are normalised, uint8 [B, C, H, W].

        Accepted are
        - an array or tensor [B, H, W], [B, H, W, C] or [B, C, H, W] with C = 1, 3 or 4;
        - a list of such images of any sizes, [H, W], [H, W, C] or [C, H, W];
        - a list of paths of image files of any kind that Pillow reads, or of Pillow images;
        - the path of one image file, or of a folder of them.

        Whole numbers are levels from 0 to 255, floating-point numbers from 0 to 1 (kept with 8
        bits), true is white. Other sizes are resized bilinearly with antialiasing, the aspect
        is not kept; colour becomes grey and grey colour as the network needs it; what is
        transparent becomes white.

        Raises:
            InputError: an image cannot be read, has a wrong shape, or levels out of range or that
                are no numbers; the message names it.
        """
        items = listed(images)
        if isinstance(items, Tensor | np.ndarray) and items.ndim == 2:
            raise InputError(
                f"images of shape {list(items.shape)} are no images: give [B, H, W], [B, H, W, C] "
                "or [B, C, H, W]; for one image, a list of it"
            )
        if not len(items):
            raise InputError("there are no images: give one or more")
        if isinstance(items, Sequence):
            parts = [*in_threads(self._one, [*enumerate(items)], "reading images")]
            whole = torch.stack(parts)
        else:
            pixels = _channels_first(_as_bytes(items, "the images"), "the images")
            if pixels.shape[1:] == (self.channels, self.stored, self.stored):
                whole = torch.from_numpy(np.ascontiguousarray(pixels))
            else:
                whole = torch.stack([self._square(image, "the images") for image in pixels])
        corner = round((self.stored - self.size) / 2)
        centre = slice(corner, corner + self.size)
        return whole[:, :, centre, centre].contiguous()

    def _one(self, numbered: tuple[int, Any]) -> Tensor:
        number, item = numbered
        name = f"image {number}"
        if isinstance(item, str | Path):
            return self.coloured(torch.from_numpy(decode(Path(item), self.stored)))
        if isinstance(item, Image.Image):
            return self.coloured(torch.from_numpy(decode(item, self.stored)))
        if not isinstance(item, Tensor | np.ndarray):
            raise InputError(
                f"{name} is a {type(item).__name__}: give paths, Pillow images or arrays"
            )
        pixels = _as_bytes(item, name)
        return self._square(_channels_first(pixels[None], name)[0], name)

    def _square(self, pixels: NDArray[np.uint8], name: str) -> Tensor:
        """One image of bytes [C, H, W], resized and in the network's colours."""
        if pixels.shape[0] == self.channels and pixels.shape[1:] == (self.stored, self.stored):
            return torch.from_numpy(np.ascontiguousarray(pixels))
        if not pixels.size:
            raise InputError(f"{name}: shape {list(pixels.shape)} has no pixels")
        rows = pixels[0] if pixels.shape[0] == 1 else pixels.transpose(1, 2, 0)
        image = Image.fromarray(np.ascontiguousarray(rows))
        return self.coloured(torch.from_numpy(decode(image, self.stored)))

    def coloured(self, pixels: Tensor) -> Tensor:
        """Bytes [..., 3, S, S] in as many channels as the network takes."""
        if self.channels == 3:
            return pixels
        weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)  # ITU-R 601-2, as Pillow has it
        return (pixels * weights).sum(-3, keepdim=True).round().to(torch.uint8)


def listed(images: Images) -> Any:
    """Images as an array, a tensor, or a list."""
    if isinstance(images, str | Path):
        path = Path(images)
        if not path.exists():
            raise InputError(f"there is no image or folder at {path}")
        if path.is_dir():
            names = image_names(path)
            if not names:
                raise InputError(f"folder {path} holds no images")
            return [path / name for name in names]
        return [path]
    if isinstance(images, Tensor):
        return images.detach().cpu()
    if isinstance(images, np.ndarray):
        return images.tolist() if images.dtype.kind in "OUS" else images
    if hasattr(images, "__array__") and not isinstance(images, Sequence):
        return listed(np.asarray(images))
    if isinstance(images, Iterable):
        found = [*images]
        if found and isinstance(found[0], list | tuple | int | float):
            return listed(_as_array(found))
        return found
    raise InputError(f"images are {type(images).__name__}: give arrays, or paths of files")


def class_folders(folder: Path) -> tuple[list[Path], list[str]]:
    """Image files of a folder with one folder per class, and the class of each.

    Raises:
        InputError: there is no such folder, or no class in it, or a class has no images.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder at {folder}")
    classes = class_paths(folder)
    if not classes:
        raise InputError(f"folder {folder} holds no classes: give a folder of images per class")
    paths = [path for found in classes.values() for path in found]
    return paths, [name for name, found in classes.items() for _ in found]


def _as_array(nested: list[Any]) -> NDArray[Any]:
    try:
        return np.asarray(nested)
    except ValueError as error:
        raise InputError("images are nested lists of different lengths: give arrays") from error


def _as_bytes(image: Tensor | NDArray[Any], name: str) -> NDArray[np.uint8]:
    """Levels from 0 to 255."""
    if isinstance(image, Tensor) and image.layout != torch.strided:
        raise InputError(f"{name}: a tensor of layout {image.layout}: give dense ones")
    levels: NDArray[Any] = image.numpy(force=True) if isinstance(image, Tensor) else image
    if levels.dtype == np.uint8:
        return np.asarray(levels, np.uint8)
    if levels.dtype == bool:
        return np.asarray(255 * levels.astype(np.uint8), np.uint8)
    if levels.dtype.kind not in "iuf":
        raise InputError(f"{name}: levels are {levels.dtype}: give numbers")
    top = 1 if levels.dtype.kind == "f" else 255
    if levels.dtype.kind == "f" and not np.isfinite(levels).all():
        bad = np.argwhere(~np.isfinite(levels))[0].tolist()
        raise InputError(f"{name}: level at {bad} is {levels[tuple(bad)]}: it must be a number")
    if levels.size and (levels.min() < 0 or levels.max() > top):
        kind = "floating-point levels are from 0 to 1" if top == 1 else "levels are from 0 to 255"
        raise InputError(f"{name}: levels from {levels.min()} to {levels.max()}: {kind}")
    return np.asarray((levels * (255 // top)).round(), np.uint8)


def _channels_first(pixels: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
    """Images [B, H, W], [B, H, W, C] or [B, C, H, W] as [B, C, H, W]."""
    if pixels.ndim == 3:
        return np.expand_dims(pixels, 1)
    if pixels.ndim == 4 and pixels.shape[1] in CHANNELS and pixels.shape[3] not in CHANNELS:
        return pixels
    if pixels.ndim == 4 and pixels.shape[3] in CHANNELS and pixels.shape[1] not in CHANNELS:
        return np.moveaxis(pixels, 3, 1)
    raise InputError(
        f"{name} of shape {list(pixels.shape)}: give [B, H, W], [B, H, W, C] or [B, C, H, W] with "
        "C = 1, 3 or 4"
    )

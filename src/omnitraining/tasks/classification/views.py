"""What a network sees of stored images: normalised as they are, or cropped, flipped and jittered.

Images are stored as uint8 and become views batch by batch, on the device where they lie. Random
numbers are drawn on the CPU, so that views do not depend on the device.
"""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from omnitraining.batches import channels_last
from omnitraining.errors import InputError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet: red, green, blue
LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue in a grey level (ITU-R 601-2)
TRIES = 10  # crops drawn before the whole image is taken
SCALE = (0.08, 1.0)  # area of a crop, as part of the image
RATIO = (3 / 4, 4 / 3)  # width of a crop by its height
JITTER = 0.4  # brightness, contrast and colour change by up to this factor


def send(x: Tensor, device: torch.device) -> Tensor:
    """Copy to a device; a GPU is not made to wait for it."""
    if device.type == "cuda" and x.device.type == "cpu":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)


class Views(ABC):
    """Turns stored images, uint8 [B, C, S, S], into normalised network inputs, channels last."""

    @abstractmethod
    def training(self, images: Tensor, random: torch.Generator) -> Tensor:
        """Views to train on, [B, C, H, W]; the generator is on the CPU."""

    @abstractmethod
    def test(self, images: Tensor) -> Tensor:
        """Views to validate and test on, [B, C, H, W]."""


class PlainViews(Views):
    """Whole images as they are, normalised.

    Args:
        mean: mean level of each channel, [C], from 0 to 1.
        std: standard deviation of the levels of each channel, [C].
    """

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        self.mean, self.std = mean, std

    def training(self, images: Tensor, random: torch.Generator) -> Tensor:
        return self.test(images)

    def test(self, images: Tensor) -> Tensor:
        return _normalise(images / 255, self.mean, self.std)


class CloserLookViews(Views):
    """The augmentation of "A Closer Look at Few-shot Classification" (Chen et al., 2019).

    In training, support and query alike: a random crop, resized, and flipped half of the time;
    then random brightness, contrast and colour. At test: the centre. Normalised by ImageNet's
    mean and standard deviation; grey images by the mean of those over channels.

    Images are stored as squares, whatever shape they had. So random crops are parts of the
    stored square, while in the paper they are parts of the original; and they are resized
    bilinearly without antialiasing, which hardly matters as they shrink by at most 1.15.

    Args:
        size: side of the views; stored images have the side ``stored``, int(1.15 * size).
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise InputError(f"views have a size of {size}: it must be 1 or more")
        self.size, self.stored = size, int(1.15 * size)
        self.mean, self.std = torch.tensor(MEAN), torch.tensor(STD)

    def training(self, images: Tensor, random: torch.Generator) -> Tensor:
        self._check(images)
        draws = torch.rand(len(images), 2 * TRIES + 6, generator=random)
        tries, place, flip, strength = draws.split([2 * TRIES, 2, 1, 3], 1)
        boxes = crop_boxes(tries.unflatten(1, (TRIES, 2)), place, self.stored)
        seen = resized_crops(images, boxes, flip[:, 0] < 0.5, self.size)
        factors = 1 + JITTER * (2 * strength - 1)
        return self._normalised(jitter(seen, send(factors, images.device)))

    def test(self, images: Tensor) -> Tensor:
        self._check(images)
        start = round((self.stored - self.size) / 2)
        centre = slice(start, start + self.size)
        return self._normalised(images[:, :, centre, centre] / 255)

    def _normalised(self, images: Tensor) -> Tensor:
        if images.shape[1] == 1:
            return _normalise(images, self.mean.mean(0, True), self.std.mean(0, True))
        return _normalise(images, self.mean, self.std)

    def _check(self, images: Tensor) -> None:
        channels, *sides = images.shape[1:]
        if channels not in (1, 3) or sides != [self.stored] * 2:
            raise InputError(
                f"views of size {self.size} are taken of images of 1 or 3 channels and "
                f"{self.stored} x {self.stored} pixels: these have {channels} and "
                f"{' x '.join(map(str, sides))}"
            )


def crop_boxes(tries: Tensor, place: Tensor, side: int) -> Tensor:
    """Random crops of square images, as torchvision's RandomResizedCrop defines them.

    The area is drawn uniformly and the ratio of the sides log-uniformly, up to ten times, until
    the crop fits; if none does, it is the whole image. The place is uniform.

    Args:
        tries: uniform draws in [0, 1), for the area and the ratio, [B, tries, 2].
        place: uniform draws in [0, 1), for top and left, [B, 2].
        side: of the images, in pixels.

    Returns:
        Top, left, height and width in whole pixels, [B, 4].
    """
    area, ratio = tries.double().unbind(-1)
    area = side**2 * (SCALE[0] + (SCALE[1] - SCALE[0]) * area)
    low, high = torch.tensor(RATIO).double().log()
    ratio = (low + (high - low) * ratio).exp()
    sides = torch.stack([(area / ratio).sqrt(), (area * ratio).sqrt()], -1).round()
    sides = torch.cat([sides, torch.full_like(sides[:, :1], side)], 1)  # the whole image fits
    fits = ((sides > 0) & (sides <= side)).all(-1)
    first = fits.int().argmax(1)
    chosen = sides[torch.arange(len(sides)), first]
    corner = (place.double() * (side - chosen + 1)).floor()
    return torch.cat([corner, chosen], 1).long()


def resized_crops(images: Tensor, boxes: Tensor, flip: Tensor, size: int) -> Tensor:
    """Cut out boxes, resize them bilinearly, and mirror some of them, all in one step.

    Args:
        images: uint8 [B, C, S, S].
        boxes: top, left, height and width [B, 4], on the CPU.
        flip: which to mirror, left to right [B], on the CPU.
        size: side of the results.

    Returns:
        Levels in [0, 1], [B, C, size, size].
    """
    corner, sides = (boxes / images.shape[-1]).split(2, 1)  # as parts of the image; y, x
    middle = 2 * corner + sides - 1  # where the image runs from -1 to 1
    affine = torch.zeros(len(images), 2, 3)
    affine[:, 0, 0] = torch.where(flip, -sides[:, 1], sides[:, 1])
    affine[:, 1, 1] = sides[:, 0]
    affine[:, :, 2] = middle.flip(1)  # x, y
    shape = [*images.shape[:2], size, size]
    grid = F.affine_grid(send(affine, images.device), shape, align_corners=False)
    levels = F.grid_sample(images.to(grid.dtype), grid, padding_mode="border", align_corners=False)
    return levels / 255


def jitter(images: Tensor, factors: Tensor) -> Tensor:
    """Change brightness, then contrast, then colour, as Pillow's ImageEnhance does.

    Args:
        images: levels in [0, 1], [B, C, H, W]; grey images, C = 1, have no colour to change.
        factors: of brightness, contrast and colour, [B, 3]; 1 changes nothing.
    """
    brightness, contrast, colour = factors[:, :, None, None, None].unbind(1)
    images = (images * brightness).clamp(0, 1)
    # Pillow rounds the mean to a whole level.
    mean = (_grey(images).mean((1, 2, 3), keepdim=True) * 255 + 0.5).floor() / 255
    images = torch.lerp(mean, images, contrast).clamp(0, 1)
    if images.shape[1] == 1:
        return images
    return torch.lerp(_grey(images), images, colour).clamp(0, 1)


def _grey(images: Tensor) -> Tensor:
    """Grey levels [B, 1, H, W] of images in colour."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.split(1, 1)
    grey: Tensor = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    return grey


def _normalise(levels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    mean, std = (send(x[:, None, None], levels.device) for x in (mean, std))
    return channels_last((levels - mean) / std)

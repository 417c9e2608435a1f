"""Augmentation: what a network sees of stored images, in training and at test.

Images are stored as uint8 and become views batch by batch, on the device where they lie. Random
numbers are drawn on the CPU, so that views do not depend on the device.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from omnitraining.batches import channels_last
from omnitraining.datasets.images import LUMA
from omnitraining.errors import InputError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet: red, green, blue
TRIES = 10  # crops drawn before the whole image is taken
SCALE = (0.08, 1.0)  # area of a crop, as part of the image
RATIO = (3 / 4, 4 / 3)  # width of a crop by its height
JITTER = 0.4  # brightness, contrast and color change by up to this factor


def send(x: Tensor, device: torch.device) -> Tensor:
    """Copy to a device; a GPU is not made to wait for it."""
    if device.type == "cuda" and x.device.type == "cpu":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)


class Views(ABC):
    """Turns stored images, uint8 [B, C, S, S], into normalized network inputs, channels last."""

    @abstractmethod
    def training(self, images: Tensor, random: torch.Generator) -> Tensor:
        """Views to train on, [B, C, H, W]; the generator is on the CPU."""

    @abstractmethod
    def test(self, images: Tensor) -> Tensor:
        """Views to validate and test on, [B, C, H, W]."""


class PlainViews(Views):
    """Whole images as they are, normalized.

    Args:
        mean: mean level of each channel, [C], from 0 to 1.
        std: standard deviation of the levels of each channel, [C].
    """

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        self.mean, self.std = mean, std

    def training(self, images: Tensor, random: torch.Generator) -> Tensor:
        return self.test(images)

    def test(self, images: Tensor) -> Tensor:
        return _normalize(images / 255, self.mean, self.std)


class AugmentedViews(Views):
    """Views of a fixed size with random flips and colors, and random crops of one kind or another.

    In training, support and query alike: a crop, flipped half of the time; then random brightness,
    contrast and saturation. At test: the center. Normalized by the levels that are given, by
    default ImageNet's; of those of three channels gray images take the mean.

    Args:
        size: side of the views in pixels.
        flip: mirror half of the training views, left to right; for images in which left and right
            differ, as characters and traffic signs, it must be false.
        jitter: brightness, contrast and saturation change by up to this factor; none if 0.
        levels: mean and standard deviation of each channel, [C] each, from 0 to 1.

    Attributes:
        stored: side in pixels of the stored images that views are taken of.

    Raises:
        InputError: the size is below 1, or the jitter not in [0, 1).
    """

    margin = 1.0
    """Side of the stored images, as a multiple of that of the views."""

    def __init__(
        self,
        size: int,
        flip: bool = True,
        jitter: float = JITTER,
        levels: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        if size < 1:
            raise InputError(f"views have a size of {size}: it must be 1 or more")
        if not 0 <= jitter < 1:
            raise InputError(f"jitter is {jitter}: it must be at least 0 and less than 1")
        self.size, self.stored = size, int(self.margin * size)
        self.flip, self.jitter = flip, jitter
        self.mean, self.std = levels or (torch.tensor(MEAN), torch.tensor(STD))

    def training(self, images: Tensor, random: torch.Generator) -> Tensor:
        self._check(images)
        # As many draws with every choice of options, so that one option changes nothing else.
        draws = torch.rand(len(images), 2 * TRIES + 6, generator=random)
        tries, place, flip, strength = draws.split([2 * TRIES, 2, 1, 3], 1)
        mirrored = (flip[:, 0] < 0.5) & self.flip
        seen = self._cropped(images, tries.unflatten(1, (TRIES, 2)), place, mirrored)
        if self.jitter:
            factors = 1 + self.jitter * (2 * strength - 1)
            seen = jitter(seen, send(factors, images.device))
        return self._normalized(seen)

    def test(self, images: Tensor) -> Tensor:
        self._check(images)
        start = round((self.stored - self.size) / 2)
        center = slice(start, start + self.size)
        return self._normalized(images[:, :, center, center] / 255)

    @abstractmethod
    def _cropped(self, images: Tensor, tries: Tensor, place: Tensor, mirrored: Tensor) -> Tensor:
        """Crops in [0, 1], [B, C, size, size].

        Args:
            images: uint8 [B, C, stored, stored].
            tries: uniform draws in [0, 1) for the shape of crops, [B, tries, 2].
            place: the same for their place, [B, 2].
            mirrored: which to mirror, [B], on the CPU.
        """

    def _normalized(self, images: Tensor) -> Tensor:
        mean, std = self.mean, self.std
        if images.shape[1] == 1 and len(mean) > 1:
            mean, std = mean.mean(0, True), std.mean(0, True)
        return _normalize(images, mean, std)

    def _check(self, images: Tensor) -> None:
        channels, *sides = images.shape[1:]
        if channels not in (1, 3) or sides != [self.stored] * 2:
            raise InputError(
                f"views of size {self.size} are taken of images of 1 or 3 channels and "
                f"{self.stored} x {self.stored} pixels: these have {channels} and "
                f"{' x '.join(map(str, sides))}"
            )


class CloserLookViews(AugmentedViews):
    """The augmentation of "A Closer Look at Few-shot Classification" (Chen et al., 2019).

    Crops of 8 to 100 % of the area, resized; at test the center of the stored image.

    Images are stored as squares, whatever shape they had. So random crops are parts of the
    stored square, while in the paper they are parts of the original; and they are resized
    bilinearly without antialiasing, which hardly matters as they shrink by at most 1.15.
    """

    margin = 1.15

    def _cropped(self, images: Tensor, tries: Tensor, place: Tensor, mirrored: Tensor) -> Tensor:
        boxes = crop_boxes(tries, place, self.stored)
        return resized_crops(images, boxes, mirrored, self.size)


class PadCropViews(AugmentedViews):
    """Crops of the padded image, as CIFAR-FS, MetaOptNet and RFS augment theirs.

    The image is padded with black on all sides and a square of its own size is cut out of it at
    random: 4 pixels at 32 and 8 at 84, as those authors take (between and beyond, in proportion).
    """

    def _cropped(self, images: Tensor, tries: Tensor, place: Tensor, mirrored: Tensor) -> Tensor:
        padding = round(self.size / 8) if self.size < 42 else round(self.size * 8 / 84)
        corner = (place * (2 * padding + 1)).floor().long()  # top and left, [B, 2]
        device = images.device
        top, left = send(corner, device).unbind(1)
        # All crops of every image, as a view of it: [B, C, 2 * padding + 1, 2 * padding + 1, H, W]
        crops = F.pad(images, [padding] * 4).unfold(2, self.size, 1).unfold(3, self.size, 1)
        cut = crops[torch.arange(len(images), device=device), :, top, left]
        return _mirrored(cut, mirrored) / 255


class UncroppedViews(AugmentedViews):
    """Whole images, mirrored or with changed colors where that is asked for."""

    def _cropped(self, images: Tensor, tries: Tensor, place: Tensor, mirrored: Tensor) -> Tensor:
        return _mirrored(images, mirrored) / 255


class OwnViews(UncroppedViews):
    """A user's own augmentation in training; whole images at test.

    Args:
        size: side of the views in pixels.
        augmentation: called in each step with every image by itself, levels [C, size, size] from
            0 to 1, as transforms of torchvision and kornia take it; or, if it has an attribute
            ``batched`` that is true, with all images of a batch [B, C, size, size]. It must return
            the same shape. What it draws at random must come from torch, whose seed is set in each
            step.
        levels: mean and standard deviation of each channel, [C] each, from 0 to 1.
    """

    def __init__(
        self,
        size: int,
        augmentation: Callable[[Tensor], Tensor],
        levels: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        super().__init__(size, flip=False, jitter=0.0, levels=levels)
        self.augmentation = augmentation

    def training(self, images: Tensor, random: torch.Generator) -> Tensor:
        self._check(images)
        levels = images / 255
        # It draws from torch's own generator, whose state is ours only here.
        with torch.random.fork_rng():
            torch.manual_seed(int(torch.randint(2**62, (), generator=random)))
            if getattr(self.augmentation, "batched", False):
                made = self._valid(self.augmentation(levels), levels)
            else:
                each = [self._valid(self.augmentation(image), image) for image in levels]
                made = torch.stack(each)
        return self._normalized(made)

    def _valid(self, made: object, given: Tensor) -> Tensor:
        """What the user's callable returned, if it has the shape and type that it was given."""
        name = getattr(self.augmentation, "__name__", type(self.augmentation).__name__)
        if isinstance(made, Tensor) and made.shape == (1, *given.shape):  # as kornia returns one
            made = made[0]
        if not isinstance(made, Tensor) or made.shape != given.shape:
            what = list(made.shape) if isinstance(made, Tensor) else type(made).__name__
            raise InputError(
                f"augmentation {name} returns {what} for levels of shape {list(given.shape)}: it "
                "must return a tensor of the same shape"
            )
        if not made.is_floating_point() or not made.isfinite().all():
            raise InputError(
                f"augmentation {name} returns {made.dtype} or values that are not finite: it must "
                "return floating-point levels from 0 to 1"
            )
        if made.amin() < -0.5 or made.amax() > 1.5:  # normalized already, or levels up to 255
            raise InputError(
                f"augmentation {name} returns levels from {made.amin():.3g} to {made.amax():.3g}: "
                "they must stay between 0 and 1 (normalization follows it: leave it out)"
            )
        return made.to(given.dtype)


def _mirrored(images: Tensor, which: Tensor) -> Tensor:
    """Images [B, C, H, W], of which some are mirrored, left to right; which is on the CPU."""
    return torch.where(send(which, images.device)[:, None, None, None], images.flip(3), images)


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
    """Change brightness, then contrast, then color, as Pillow's ImageEnhance does.

    Args:
        images: levels in [0, 1], [B, C, H, W]; gray images, C = 1, have no color to change.
        factors: of brightness, contrast and color, [B, 3]; 1 changes nothing.
    """
    brightness, contrast, color = factors[:, :, None, None, None].unbind(1)
    # In place, since a mini-batch of small images costs as much in memory traffic as in arithmetic.
    images = (images * brightness).clamp_(0, 1)
    # Pillow rounds the mean to a whole level.
    mean = (_gray(images).mean((1, 2, 3), keepdim=True) * 255 + 0.5).floor() / 255
    images = images.mul_(contrast).add_(mean * (1 - contrast)).clamp_(0, 1)
    if images.shape[1] == 1:
        return images
    gray = _gray(images).mul_(1 - color)
    return images.mul_(color).add_(gray).clamp_(0, 1)


def _gray(images: Tensor) -> Tensor:
    """Gray levels [B, 1, H, W] of images in color, in memory of their own."""
    if images.shape[1] == 1:
        return images.clone()
    red, green, blue = images.split(1, 1)
    gray: Tensor = (LUMA[0] * red).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])
    return gray


def _normalize(levels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    mean, scale = (send(x[:, None, None], levels.device) for x in (mean, 1 / std))
    return channels_last(levels).sub(mean).mul_(scale)

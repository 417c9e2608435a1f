"""Augmentation and normalization: from stored images to network inputs, in training and at test.

Images are stored as uint8 and transformed batch by batch, on their device. Random numbers are drawn
on the CPU, so that a batch does not depend on the device.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from omnitraining.batches import channels_last, to_device
from omnitraining.datasets.images import LUMA
from omnitraining.errors import InputError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet: red, green, blue
TRIES = 10  # crops drawn before the whole image is taken
SCALE = (0.08, 1.0)  # area of a crop, as part of the image
RATIO = (3 / 4, 4 / 3)  # width of a crop by its height
JITTER = 0.4  # brightness, contrast and color change by up to this factor


class Augmentation(ABC):
    """Turns stored images, uint8 [B, C, S, S], into normalized network inputs, channels last.

    Attributes:
        mean: mean of each channel, [C], for pixels from 0 to 1.
        std: standard deviation of each channel, [C].
    """

    mean: Tensor
    std: Tensor

    @abstractmethod
    def train(self, images: Tensor, random: torch.Generator) -> Tensor:
        """Inputs of training, [B, C, H, W], augmented at random.

        Args:
            images: uint8 [B, C, S, S].
            random: source of all randomness, on the CPU.
        """

    @abstractmethod
    def eval(self, images: Tensor) -> Tensor:
        """Inputs of validation and test, [B, C, H, W], of images [B, C, S, S]."""


class NoAugmentation(Augmentation):
    """Whole images, normalized.

    Args:
        mean: mean of each channel, [C], for pixels from 0 to 1.
        std: standard deviation of each channel, [C].

    Example:
        >>> import torch
        >>> plain = NoAugmentation(torch.tensor([0.5]), torch.tensor([0.25]))
        >>> white = torch.full((1, 1, 2, 2), 255, dtype=torch.uint8)
        >>> plain.eval(white).flatten().tolist()
        [2.0, 2.0, 2.0, 2.0]
    """

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        """Keep the statistics."""
        self.mean, self.std = mean, std

    def train(self, images: Tensor, random: torch.Generator) -> Tensor:
        """The same as `eval`: nothing is drawn."""
        return self.eval(images)

    def eval(self, images: Tensor) -> Tensor:
        """Normalized images [B, C, S, S]."""
        return _normalize(images / 255, self.mean, self.std)


class PhotoAugmentation(Augmentation):
    """Random crop, flip and color jitter in training; the center of the image at test.

    Support and query images are augmented alike: cropped (each subclass in its way), mirrored half
    of the time, then changed in brightness, contrast and saturation.

    Args:
        size: side of the network input in pixels.
        flip: mirror half of the training images, left to right. Must be false where left and right
            differ, as in characters and traffic signs.
        jitter: largest relative change of brightness, contrast and saturation; 0 for none.
        normalization: mean and standard deviation of each channel, [C] each, for pixels from 0 to
            1. ImageNet's by default. Gray images are normalized by the averages over channels.

    Attributes:
        stored: side in pixels of the stored images.

    Raises:
        InputError: the size is below 1, or the jitter not in [0, 1).
    """

    margin = 1.0
    """Side of the stored images, as a multiple of ``size``."""

    def __init__(
        self,
        size: int,
        flip: bool = True,
        jitter: float = JITTER,
        normalization: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        """Check and keep the options."""
        if size < 1:
            raise InputError(f"size of the augmentation is {size}: it must be 1 or more")
        if not 0 <= jitter < 1:
            raise InputError(f"jitter is {jitter}: it must be at least 0 and less than 1")
        self.size, self.stored = size, int(self.margin * size)
        self.flip, self.jitter = flip, jitter
        self.mean, self.std = normalization or (torch.tensor(MEAN), torch.tensor(STD))

    def train(self, images: Tensor, random: torch.Generator) -> Tensor:
        """Cropped, mirrored and jittered inputs [B, C, size, size].

        Raises:
            InputError: the images are not of the stored size, or of neither 1 nor 3 channels.
        """
        self._check(images)
        # The number of draws does not depend on options, so that one option changes nothing else.
        draws = torch.rand(len(images), 2 * TRIES + 6, generator=random)
        tries, place, flip, strength = draws.split([2 * TRIES, 2, 1, 3], 1)
        mirrored = (flip[:, 0] < 0.5) & self.flip
        cropped = self._cropped(images, tries.unflatten(1, (TRIES, 2)), place, mirrored)
        if self.jitter:
            factors = 1 + self.jitter * (2 * strength - 1)
            cropped = jitter(cropped, to_device(factors, images.device))
        return self._normalized(cropped)

    def eval(self, images: Tensor) -> Tensor:
        """The center of each image, [B, C, size, size].

        Raises:
            InputError: the images are not of the stored size, or of neither 1 nor 3 channels.
        """
        self._check(images)
        start = round((self.stored - self.size) / 2)
        center = slice(start, start + self.size)
        return self._normalized(images[:, :, center, center] / 255)

    @abstractmethod
    def _cropped(self, images: Tensor, tries: Tensor, place: Tensor, mirrored: Tensor) -> Tensor:
        """Crops with pixels in [0, 1], [B, C, size, size].

        Args:
            images: uint8 [B, C, stored, stored].
            tries: uniform draws in [0, 1) for the shape of crops, [B, tries, 2].
            place: uniform draws in [0, 1) for their place, [B, 2].
            mirrored: images to mirror, [B], on the CPU.
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
                f"inputs of size {self.size} are made of images of 1 or 3 channels and "
                f"{self.stored} x {self.stored} pixels: these have {channels} and "
                f"{' x '.join(map(str, sides))}"
            )


class CloserLookAugmentation(PhotoAugmentation):
    """Crops of 8 to 100 % of the area, resized; the augmentation of CloserLook.

    Chen et al., "A Closer Look at Few-shot Classification", ICLR 2019
    (https://arxiv.org/abs/1904.04232). At test: the center of the stored image.

    Images are stored as squares whatever their shape was. So random crops are parts of the stored
    square, while in the paper they are parts of the original; and they are resized bilinearly
    without antialiasing, which hardly matters as they shrink by at most 1.15.

    Example:
        >>> import torch
        >>> augmentation = CloserLookAugmentation(size=84)
        >>> augmentation.stored
        96
        >>> images = torch.zeros(2, 3, 96, 96, dtype=torch.uint8)
        >>> augmentation.train(images, torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3, 84, 84])
    """

    margin = 1.15

    def _cropped(self, images: Tensor, tries: Tensor, place: Tensor, mirrored: Tensor) -> Tensor:
        boxes = crop_boxes(tries, place, self.stored)
        return resized_crops(images, boxes, mirrored, self.size)


class PadCropAugmentation(PhotoAugmentation):
    """Crops of the padded image, as in CIFAR-FS, MetaOptNet and RFS.

    The image is padded with black on all sides, and a square of the original size is cut out at a
    random place. The padding is 4 pixels at size 32 and 8 at size 84, as in those works, and in
    proportion at other sizes.
    """

    def _cropped(self, images: Tensor, tries: Tensor, place: Tensor, mirrored: Tensor) -> Tensor:
        padding = round(self.size / 8) if self.size < 42 else round(self.size * 8 / 84)
        corner = (place * (2 * padding + 1)).floor().long()  # top and left, [B, 2]
        device = images.device
        top, left = to_device(corner, device).unbind(1)
        # All crops of every image, as a view of it: [B, C, 2 * padding + 1, 2 * padding + 1, H, W]
        crops = F.pad(images, [padding] * 4).unfold(2, self.size, 1).unfold(3, self.size, 1)
        cut = crops[torch.arange(len(images), device=device), :, top, left]
        return _mirrored(cut, mirrored) / 255


class UncroppedAugmentation(PhotoAugmentation):
    """Whole images, flipped and jittered if the options specify it."""

    def _cropped(self, images: Tensor, tries: Tensor, place: Tensor, mirrored: Tensor) -> Tensor:
        return _mirrored(images, mirrored) / 255


class CustomAugmentation(UncroppedAugmentation):
    """A user's function in training; whole images at test.

    Args:
        size: side of the network input in pixels.
        function: called in each step with each image, pixels [C, size, size] from 0 to 1, as
            transforms of torchvision and kornia take it; or, if it has a true attribute
            ``batched``, with the whole batch [B, C, size, size]. It must return the same shape.
            Its random numbers must come from torch's global generator, which is seeded in each
            step.
        normalization: mean and standard deviation of each channel, [C] each, for pixels from 0 to
            1; ImageNet's by default.
    """

    def __init__(
        self,
        size: int,
        function: Callable[[Tensor], Tensor],
        normalization: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        """Switch flips and jitter off, which the function replaces."""
        super().__init__(size, flip=False, jitter=0.0, normalization=normalization)
        self.function = function

    def train(self, images: Tensor, random: torch.Generator) -> Tensor:
        """Images transformed by the function, normalized, [B, C, size, size].

        Raises:
            InputError: the images are not of the stored size, or the function returns another
                shape, other types, or pixels far outside of [0, 1].
        """
        self._check(images)
        pixels = images / 255
        # The function draws from torch's global generator, which is seeded only in here.
        with torch.random.fork_rng():
            torch.manual_seed(int(torch.randint(2**62, (), generator=random)))
            if getattr(self.function, "batched", False):
                augmented = self._valid(self.function(pixels), pixels)
            else:
                each = [self._valid(self.function(image), image) for image in pixels]
                augmented = torch.stack(each)
        return self._normalized(augmented)

    def _valid(self, result: object, given: Tensor) -> Tensor:
        """The result of the user's function, if it has the shape and type of its argument."""
        name = getattr(self.function, "__name__", type(self.function).__name__)
        if isinstance(result, Tensor) and result.shape == (1, *given.shape):  # as kornia returns
            result = result[0]
        if not isinstance(result, Tensor) or result.shape != given.shape:
            kind = list(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise InputError(
                f"augmentation {name} returns {kind} for pixels of shape {list(given.shape)}: it "
                "must return a tensor of the same shape"
            )
        if not result.is_floating_point() or not result.isfinite().all():
            raise InputError(
                f"augmentation {name} returns {result.dtype} or values that are not finite: it "
                "must return floating-point pixels from 0 to 1"
            )
        low, high = result.amin(), result.amax()
        if low < -0.5 or high > 1.5:  # normalized already, or pixels up to 255
            raise InputError(
                f"augmentation {name} returns pixels from {low:.3g} to {high:.3g}: they must stay "
                "between 0 and 1 (normalization follows; leave it out of the function)"
            )
        return result.to(given.dtype)


def _mirrored(images: Tensor, which: Tensor) -> Tensor:
    """Images [B, C, H, W], mirrored left to right where ``which`` [B] is true."""
    return torch.where(to_device(which, images.device)[:, None, None, None], images.flip(3), images)


def crop_boxes(tries: Tensor, place: Tensor, side: int) -> Tensor:
    """Random crops of square images, as torchvision's RandomResizedCrop.

    Area (uniform) and aspect ratio (log-uniform) are drawn up to ten times, until the crop fits; if
    none does, the whole image is taken. The place is uniform.

    Args:
        tries: uniform draws in [0, 1), for the area and the ratio, [B, tries, 2].
        place: uniform draws in [0, 1), for top and left, [B, 2].
        side: side of the images, in pixels.

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
    """Crop, resize bilinearly and flip, in one interpolation.

    Args:
        images: uint8 [B, C, S, S].
        boxes: top, left, height and width [B, 4], on the CPU.
        flip: images to mirror left to right, [B], on the CPU.
        size: side of the results in pixels.

    Returns:
        Pixels in [0, 1], [B, C, size, size].
    """
    corner, sides = (boxes / images.shape[-1]).split(2, 1)  # as parts of the image; y, x
    middle = 2 * corner + sides - 1  # where the image runs from -1 to 1
    affine = torch.zeros(len(images), 2, 3)
    affine[:, 0, 0] = torch.where(flip, -sides[:, 1], sides[:, 1])
    affine[:, 1, 1] = sides[:, 0]
    affine[:, :, 2] = middle.flip(1)  # x, y
    shape = [*images.shape[:2], size, size]
    grid = F.affine_grid(to_device(affine, images.device), shape, align_corners=False)
    pixels = F.grid_sample(images.to(grid.dtype), grid, padding_mode="border", align_corners=False)
    return pixels / 255


def jitter(images: Tensor, factors: Tensor) -> Tensor:
    """Change brightness, then contrast, then saturation, as Pillow's ImageEnhance.

    Args:
        images: pixels in [0, 1], [B, C, H, W]; gray images (C = 1) keep their saturation.
        factors: factors of brightness, contrast and saturation, [B, 3]; 1 changes nothing.
    """
    brightness, contrast, color = factors[:, :, None, None, None].unbind(1)
    # In place, since a mini-batch of small images costs as much in memory traffic as in arithmetic.
    images = (images * brightness).clamp_(0, 1)
    # Pillow rounds the mean to 8 bits.
    mean = (_gray(images).mean((1, 2, 3), keepdim=True) * 255 + 0.5).floor() / 255
    images = images.mul_(contrast).add_(mean * (1 - contrast)).clamp_(0, 1)
    if images.shape[1] == 1:
        return images
    gray = _gray(images).mul_(1 - color)
    return images.mul_(color).add_(gray).clamp_(0, 1)


def _gray(images: Tensor) -> Tensor:
    """Luma [B, 1, H, W] of images in color, as a new tensor."""
    if images.shape[1] == 1:
        return images.clone()
    red, green, blue = images.split(1, 1)
    gray: Tensor = (LUMA[0] * red).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])
    return gray


def _normalize(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    mean, scale = (to_device(x[:, None, None], pixels.device) for x in (mean, 1 / std))
    return channels_last(pixels).sub(mean).mul_(scale)

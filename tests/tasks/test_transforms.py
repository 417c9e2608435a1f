"""Augmentation of stored images: torchvision's crops, Pillow's jitter, ImageNet's normalization."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from omnitraining.errors import InputError
from omnitraining.tasks.classification.transforms import (
    MEAN,
    STD,
    CloserLookAugmentation,
    CustomAugmentation,
    NoAugmentation,
    PadCropAugmentation,
    PhotoAugmentation,
    UncroppedAugmentation,
    crop_boxes,
    jitter,
    resized_crops,
)

WHOLE = torch.tensor([0, 0, 20, 20])
ENHANCE = [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photos(count: int, channels: int = 3, side: int = 20) -> Tensor:
    """uint8 images [count, channels, side, side]: smooth, with all levels from 0 to 255."""
    coarse = torch.rand(count, channels, 5, 5, generator=seeded(1)) * 1.6 - 0.3
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")
    return (smooth.clamp(0, 1) * 255).round().to(torch.uint8)


# --- crops ---


def slow_box(tries: Tensor, place: Tensor, side: int) -> list[int]:
    """RandomResizedCrop.get_params as torchvision documents it, for one square image."""
    low, high = math.log(3 / 4), math.log(4 / 3)
    for area, ratio in tries.tolist():
        target = side * side * (0.08 + (1 - 0.08) * area)
        aspect = math.exp(low + (high - low) * ratio)
        width = round(math.sqrt(target * aspect))
        height = round(math.sqrt(target / aspect))
        if 0 < width <= side and 0 < height <= side:
            top = int(place[0].item() * (side - height + 1))  # randint(0, side - height + 1)
            left = int(place[1].item() * (side - width + 1))
            return [top, left, height, width]
    return [0, 0, side, side]


@pytest.mark.parametrize("side", [9, 96, 257])
def test_crops_equal_torchvision_s(side: int) -> None:
    tries, place = torch.rand(300, 10, 2, generator=seeded()), torch.rand(300, 2)
    expected = [slow_box(*draws, side) for draws in zip(tries, place, strict=True)]
    assert crop_boxes(tries, place, side).tolist() == expected


def test_a_crop_that_never_fits_is_the_whole_image() -> None:
    tries = torch.tensor([1 - 1e-6, 0.01]).expand(2, 10, 2).clone()  # all of it, and tall
    tries[1, 9] = torch.tensor([0.0, 0.5])  # the last try of the second is a small square
    boxes = crop_boxes(tries, torch.zeros(2, 2), 100)
    assert boxes.tolist() == [[0, 0, 100, 100], [0, 0, 28, 28]]


def test_crops_are_spread_over_areas_and_places_as_slow_ones_are() -> None:
    count, side = 4000, 96
    boxes = crop_boxes(torch.rand(count, 10, 2), torch.rand(count, 2), side).double()
    slow = [slow_box(torch.rand(10, 2), torch.rand(2), side) for _ in range(count)]
    for index, one in enumerate((boxes, torch.tensor(slow).double())):
        area, ratio = one[:, 2] * one[:, 3] / side**2, one[:, 3] / one[:, 2]
        assert area.min() > 0.07 and area.max() <= 1 and 0.7 < ratio.min() < ratio.max() < 1.43
        if index == 0:
            first = area.sort().values
    distance = (torch.searchsorted(first, area.sort().values) / count).sub(
        torch.arange(count) / count
    )
    assert distance.abs().max() < 1.95 * math.sqrt(2 / count)  # Kolmogorov-Smirnov, 0.1 %
    # Small crops are never refused: below half of the image the area is uniform.
    below = first[first < 0.5]
    assert abs(below.mean() - 0.29) < 5 * 0.42 / math.sqrt(12 * len(below))
    free = boxes[boxes[:, 2] < 60]
    place = (free[:, 0] + 0.5) / (side - free[:, 2] + 1)
    assert abs(place.mean() - 0.5) < 5 / math.sqrt(12 * len(free))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_whole_image_at_its_own_size_is_the_image(channels: int) -> None:
    images = photos(4, channels)
    seen = resized_crops(images, WHOLE.expand(4, 4), torch.zeros(4, dtype=torch.bool), 20)
    torch.testing.assert_close(seen, images / 255, atol=1e-5, rtol=0)


def test_only_the_chosen_ones_are_mirrored() -> None:
    images = photos(2)
    seen = resized_crops(images, WHOLE.expand(2, 4), torch.tensor([False, True]), 20)
    torch.testing.assert_close(seen[0], images[0] / 255, atol=1e-5, rtol=0)
    torch.testing.assert_close(seen[1], images[1].flip(-1) / 255, atol=1e-5, rtol=0)


def test_a_crop_of_the_size_of_the_view_is_that_part_of_the_image() -> None:
    images, boxes = photos(2), torch.tensor([[3, 7, 8, 8], [12, 0, 8, 8]])
    seen = resized_crops(images, boxes, torch.tensor([False, True]), 8)
    torch.testing.assert_close(seen[0], images[0, :, 3:11, 7:15] / 255, atol=1e-5, rtol=0)
    torch.testing.assert_close(seen[1], images[1, :, 12:, :8].flip(-1) / 255, atol=1e-5, rtol=0)


def test_crops_are_resized_as_pillow_does_to_larger_sizes() -> None:
    """Away from the border, where Pillow uses no pixel beyond the crop."""
    images, boxes = photos(3), torch.tensor([[2, 5, 10, 8], [0, 0, 12, 15], [8, 7, 12, 13]])
    seen = resized_crops(images, boxes, torch.zeros(3, dtype=torch.bool), 16)
    for image, (top, left, height, width), result in zip(images, boxes.tolist(), seen, strict=True):
        part = image[:, top : top + height, left : left + width].permute(1, 2, 0)
        resized = Image.fromarray(part.numpy()).resize((16, 16), Image.Resampling.BILINEAR)
        expected = torch.from_numpy(np.array(resized)).permute(2, 0, 1) / 255
        inside = slice(2, -2)
        error = (result - expected)[:, inside, inside].abs().max()
        assert error < 1.01 / 255


def test_nothing_darkens_the_border() -> None:
    images = torch.full((1, 3, 20, 20), 200, dtype=torch.uint8)
    seen = resized_crops(images, WHOLE[None], torch.zeros(1, dtype=torch.bool), 32)
    torch.testing.assert_close(seen, torch.full((1, 3, 32, 32), 200 / 255))


# --- jitter ---


def pillow(image: Tensor, factors: list[float]) -> Tensor:
    """Enhance one uint8 image [C, H, W]; levels in [0, 1]."""
    array = image.permute(1, 2, 0).numpy()
    picture = Image.fromarray(array[:, :, 0] if len(image) == 1 else array)
    for kind, factor in zip(ENHANCE, factors, strict=True):
        if factor != 1:
            picture = kind(picture).enhance(factor)
    enhanced = torch.from_numpy(np.array(picture))
    return (enhanced[None] if len(image) == 1 else enhanced.permute(2, 0, 1)) / 255


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("step", [0, 1, 2])
@pytest.mark.parametrize("factor", [0.6, 0.93, 1.0, 1.4])
def test_each_step_of_the_jitter_is_that_of_pillow(step: int, channels: int, factor: float) -> None:
    images = photos(5, channels)
    factors = torch.ones(3)
    factors[step] = factor
    seen = jitter(images / 255, factors.expand(5, 3))
    expected = torch.stack([pillow(image, factors.tolist()) for image in images])
    assert (seen - expected).abs().max() < 1.5 / 255
    changes = factor != 1 and (channels == 3 or step < 2)
    assert ((images / 255 - seen).abs().max() > 4 / 255) == changes


def test_contrast_turns_around_the_mean_in_whole_levels() -> None:
    levels = torch.tensor([10.0, 10, 10, 11, 11, 50, 50, 50]).reshape(1, 1, 2, 4)
    for factor, mean in ((0.6, 25.0), (1.2, 25.0)):  # the mean is 25.25
        seen = jitter(levels / 255, torch.tensor([[1.0, factor, 1.0]]))
        torch.testing.assert_close(seen * 255, mean + factor * (levels - mean))


def test_the_steps_of_the_jitter_come_in_the_order_of_pillow_image_by_image() -> None:
    """Pillow cuts off fractions of a level after each step, so errors add up to a few levels."""
    images = photos(40)
    factors = 1 + 0.4 * (2 * torch.rand(40, 3, generator=seeded(2)) - 1)
    seen = jitter(images / 255, factors)
    expected = torch.stack([pillow(*pair) for pair in zip(images, factors.tolist(), strict=True)])
    assert (seen - expected).abs().max() < 4 / 255
    assert (seen - expected).abs().mean() < 1.5 / 255
    assert seen.min() >= 0 and seen.max() <= 1
    other = torch.stack([pillow(i, f[::-1]) for i, f in zip(images, factors.tolist(), strict=True)])
    assert (other - expected).abs().mean() > 8 / 255


# --- augmentation ---


def test_sizes_follow_the_protocol() -> None:
    assert [CloserLookAugmentation(size).stored for size in (84, 224)] == [96, 257]


def test_test_inputs_are_the_center_by_imagenet_statistics() -> None:
    images = photos(3, side=23)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    for size, stored, start in ((20, 23, 2), (18, 20, 1)):  # torchvision rounds 1.5 to 2
        augmentation = CloserLookAugmentation(size)
        assert augmentation.stored == stored
        seen = augmentation.eval(images[:, :, :stored, :stored])
        part = images[:, :, start : start + size, start : start + size].numpy() / 255
        expected = (part - mean[:, None, None]) / std[:, None, None]
        torch.testing.assert_close(seen.double(), torch.from_numpy(expected), atol=1e-5, rtol=0)


def test_gray_images_are_normalized_by_the_mean_over_channels() -> None:
    images = photos(2, 1, side=23)
    expected = (images[:, :, 2:22, 2:22] / 255 - 0.449) / 0.226
    torch.testing.assert_close(
        CloserLookAugmentation(20).eval(images), expected, atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_training_inputs_follow_from_the_generator(channels: int) -> None:
    augmentation, images = CloserLookAugmentation(20), photos(6, channels, side=23)
    first, again, other = (augmentation.train(images, seeded(seed)) for seed in (1, 1, 2))
    assert first.shape == (6, channels, 20, 20) and first.dtype == torch.float32
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_each_image_of_a_batch_is_augmented_by_itself() -> None:
    seen = CloserLookAugmentation(20).train(photos(1, side=23).expand(6, -1, -1, -1), seeded())
    assert min((a - b).abs().mean() for i, a in enumerate(seen) for b in seen[:i]) > 0.01


def test_half_of_the_training_images_are_mirrored_and_the_jitter_fills_its_range() -> None:
    """A ramp from left to right: its slope shows mirroring, its mean brightness the jitter."""
    ramp = torch.linspace(64, 128, 23).expand(2000, 1, 23, 23).to(torch.uint8)
    augmentation = CloserLookAugmentation(20)
    seen = augmentation.train(ramp, seeded()) * augmentation.std.mean() + augmentation.mean.mean()
    mirrored = (seen[..., 0] > seen[..., -1]).double().mean()
    assert abs(mirrored - 0.5) < 5 * 0.5 / math.sqrt(2000)
    level = seen.mean((1, 2, 3)) * 255
    assert 37 < level.min() < 50 and 140 < level.max() < 180


@pytest.mark.parametrize(
    "augmentation", [NoAugmentation(torch.zeros(3), torch.ones(3)), CloserLookAugmentation(20)]
)
def test_inputs_lie_channels_last(augmentation: NoAugmentation | CloserLookAugmentation) -> None:
    images = photos(2, side=23)
    for seen in (augmentation.eval(images), augmentation.train(images, seeded())):
        assert seen.is_contiguous(memory_format=torch.channels_last)


def test_without_augmentation_images_are_only_normalized() -> None:
    images = photos(2)
    augmentation = NoAugmentation(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([1.0, 2.0, 4.0]))
    expected = images.double() / 255
    for channel, (mean, std) in enumerate(((0.1, 1), (0.2, 2), (0.3, 4))):
        expected[:, channel] = (expected[:, channel] - mean) / std
    torch.testing.assert_close(augmentation.eval(images).double(), expected, atol=1e-6, rtol=0)
    assert torch.equal(augmentation.train(images, seeded()), augmentation.eval(images))


def test_images_of_another_size_are_refused() -> None:
    augmentation = CloserLookAugmentation(84)
    for images in (photos(1, side=84), photos(1, 2, side=96)):
        for call in (augmentation.eval, lambda x: augmentation.train(x, seeded())):
            with pytest.raises(InputError, match=r"of 1 or 3 channels and 96 x 96 pixels: these"):
                call(images)
    with pytest.raises(InputError, match="size of the augmentation is 0: it must be 1 or more"):
        CloserLookAugmentation(0)


# --- augmentation to choose ---


def as_bytes(seen: torch.Tensor) -> torch.Tensor:
    """Pixels from 0 to 255 of inputs that are normalized by ImageNet's statistics."""
    mean, std = (torch.tensor(x)[:, None, None] for x in (MEAN, STD))
    return ((seen * std + mean) * 255).round()


@pytest.mark.parametrize(("size", "padding"), [(32, 4), (84, 8), (24, 3), (42, 4), (112, 11)])
def test_a_padded_crop_is_a_window_of_the_image_in_black(size: int, padding: int) -> None:
    image = photos(1, side=size)
    augmentation = PadCropAugmentation(size, jitter=0.0)
    seen = as_bytes(augmentation.train(image.expand(300, -1, -1, -1), seeded()))
    padded = torch.nn.functional.pad(image[0].float(), [padding] * 4)
    windows = {}
    for flip in (False, True):
        for top in range(2 * padding + 1):
            for left in range(2 * padding + 1):
                window = padded[:, top : top + size, left : left + size]
                window = window.flip(2) if flip else window
                windows[window[:, :: size // 4, :: size // 5].numpy().tobytes()] = flip, top, left
    found = [windows[view[:, :: size // 4, :: size // 5].numpy().tobytes()] for view in seen]
    flips, tops, lefts = (np.array(part) for part in zip(*found, strict=True))
    assert 0.4 < flips.mean() < 0.6
    for shifts in (tops, lefts):  # every place is as likely, the first and the last one too
        assert shifts.min() <= padding * 0.2 and shifts.max() >= padding * 1.8
        assert abs(shifts.mean() - padding) < 5 * padding / (3 * 300) ** 0.5


@pytest.mark.parametrize(
    "kind", [CloserLookAugmentation, PadCropAugmentation, UncroppedAugmentation]
)
def test_flips_and_colors_can_be_switched_off(kind: type[PhotoAugmentation]) -> None:
    augmentation = kind(20, flip=False, jitter=0.0)
    ramp = (
        torch.linspace(64, 128, augmentation.stored)
        .expand(200, 3, augmentation.stored, -1)
        .to(torch.uint8)
    )
    seen = augmentation.train(ramp, seeded())
    middle = seen[:, :, 8:12]
    assert (middle[..., 16] > middle[..., 3]).all()
    assert as_bytes(seen).max() <= 128
    if kind is UncroppedAugmentation:
        assert torch.equal(seen, augmentation.eval(ramp))


def test_whole_images_are_mirrored_half_of_the_time() -> None:
    image = photos(1, side=20)
    seen = as_bytes(
        UncroppedAugmentation(20, jitter=0.0).train(image.expand(200, -1, -1, -1), seeded())
    )
    mirrored = (seen == image.flip(3)).flatten(1).all(1)
    assert ((seen == image).flatten(1).all(1) | mirrored).all()
    assert 0.38 < mirrored.float().mean() < 0.62


def test_given_statistics_replace_imagenet_s() -> None:
    normalization = torch.tensor([0.5]), torch.tensor([0.25])
    images = photos(2, 1, side=20)
    seen = UncroppedAugmentation(20, normalization=normalization).eval(images)
    torch.testing.assert_close(seen, (images / 255 - 0.5) / 0.25)


class Batched:
    batched = True

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        assert images.shape[1:] == (3, 20, 20)
        return images * torch.rand(len(images), 1, 1, 1)


@pytest.mark.parametrize(
    "function", [Batched(), lambda image: (image * torch.rand(()))[None], torch.nn.Identity()]
)
def test_a_custom_augmentation_follows_from_the_generator(function: Any) -> None:
    augmentation, images = CustomAugmentation(20, function), photos(4, side=20)
    state = torch.get_rng_state()
    first, again = (augmentation.train(images, seeded(1)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again) and first.shape == (4, 3, 20, 20)
    assert torch.equal(augmentation.eval(images), UncroppedAugmentation(20).eval(images))
    ratios = as_bytes(first).mean((1, 2, 3)) / images.float().mean((1, 2, 3))
    if not isinstance(function, torch.nn.Identity):
        assert len(ratios.mul(100).round().unique()) == 4, "each image has a draw of its own"


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: x[:, 1:], r"returns \[3, 19, 20\] for pixels of shape \[3, 20, 20\]"),
        (lambda x: x.numpy(), "returns ndarray for pixels"),
        (lambda x: (x * 255).byte(), "returns torch.uint8 or values that are not finite"),
        (lambda x: x / 0, "returns torch.float32 or values that are not finite"),
        (lambda x: x * 255, "they must stay between 0 and 1"),
        (lambda x: (x - 0.5) / 0.1, "they must stay between 0 and 1"),
    ],
)
def test_a_function_that_returns_something_else_is_refused(function: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        CustomAugmentation(20, function).train(photos(2, side=20), seeded())


def test_a_jitter_out_of_range_is_refused() -> None:
    with pytest.raises(InputError, match=r"jitter is 1\.5: it must be at least 0 and"):
        PadCropAugmentation(20, jitter=1.5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_inputs_do_not_depend_on_the_device() -> None:
    images, augmentation = photos(6, side=96), CloserLookAugmentation(84)
    here = augmentation.train(images, seeded())
    there = augmentation.train(images.cuda(), seeded())
    torch.testing.assert_close(there.cpu(), here, atol=1e-3, rtol=0)

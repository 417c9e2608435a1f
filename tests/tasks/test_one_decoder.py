"""The same picture gives the same pixels, whichever way it comes in."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from omnitraining.datasets import read
from omnitraining.datasets.arrays import from_arrays, from_dataset
from omnitraining.datasets.decoding import decode
from omnitraining.datasets.image_cache import load_images
from omnitraining.errors import InputError
from omnitraining.learner.inputs import ImageInputs

SIDE = 12
COLOR = ImageInputs(3, SIDE, SIDE, (0.5,) * 3, (0.25,) * 3)
RANDOM = np.random.default_rng(0)
RGBA = RANDOM.integers(0, 256, (20, 31, 4), dtype=np.uint8)
DEEP = RANDOM.integers(0, 65536, (20, 31), dtype=np.uint16)
TURNED = Image.Exif()
TURNED[0x0112] = 6  # a quarter turn


def palette(**options: Any) -> Image.Image:
    image = Image.fromarray(RGBA[..., :3]).quantize(8)
    image.info.update(options)
    return image


def with_opacity(image: Image.Image) -> Image.Image:
    image.putalpha(Image.fromarray(RGBA[..., 3]))
    return image


COLORS = Image.fromarray(RGBA[..., :3])
FILES: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
    "color": (COLORS, "png", {}),
    "gray": (Image.fromarray(RGBA[..., 0]), "png", {}),
    "black and white": (Image.fromarray(RGBA[..., 0] > 99), "png", {}),
    "palette": (palette(), "png", {}),
    "palette with transparency": (palette(), "png", {"transparency": bytes([0, 120, 255])}),
    "palette, one entry transparent": (palette(), "gif", {"transparency": 2}),
    "color with opacity": (Image.fromarray(RGBA), "png", {}),
    "color with opacity, TIFF": (Image.fromarray(RGBA), "tif", {}),
    "gray with opacity": (with_opacity(Image.fromarray(RGBA[..., 0])), "png", {}),
    "a transparent color": (COLORS, "png", {"transparency": tuple(RGBA[0, 0, :3].tolist())}),
    "16 bits": (Image.fromarray(DEEP), "png", {}),
    "16 bits, TIFF": (Image.fromarray(DEEP), "tif", {}),
    "16 bits, a transparent level": (Image.fromarray(DEEP), "png", {"transparency": 40000}),
    "printing colors": (COLORS.convert("CMYK"), "tif", {}),
    "YCbCr": (COLORS.convert("YCbCr"), "jpg", {}),
    "turned": (COLORS, "png", {"exif": TURNED}),
    "turned, JPEG": (COLORS, "jpg", {"exif": TURNED}),
    "turned, TIFF": (COLORS, "tif", {"exif": TURNED}),
    "turned, 16 bits": (Image.fromarray(DEEP), "png", {"exif": TURNED}),
    "turned palette": (palette(), "png", {"exif": TURNED}),
}
"""Image, suffix of its file, and options for saving it."""


def opened(path: Path) -> Image.Image:
    return Image.open(io.BytesIO(path.read_bytes()))  # not loaded yet; no file is left open


def loaded(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
    return image


WAYS: dict[str, Callable[[Path], torch.Tensor]] = {
    "path": lambda path: COLOR.pixels([path]),
    "text": lambda path: COLOR.pixels([str(path)]),
    "one path": lambda path: COLOR.pixels(path),
    "folder": lambda path: COLOR.pixels(path.parent),
    "folder of classes": lambda path: COLOR.pixels(path.parent.parent)[:1],
    "Pillow": lambda path: COLOR.pixels([opened(path)]),
    "Pillow, loaded": lambda path: COLOR.pixels([loaded(path)]),
    "data set on disk": lambda path: load_images(
        read(path.parent.parent).split("all"), SIDE
    ).images[:1],
    "torch data set": lambda path: (
        load_images(from_dataset([(opened(path), 0)], "own"), SIDE).images
    ),
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNITRAINING_CACHE", str(tmp_path / "cache"))


def saved(kind: str, folder: Path) -> Path:
    image, suffix, options = FILES[kind]
    path = folder / "data" / "ara" / f"a.{suffix}"
    for name in ("ara", "emu"):
        (folder / "data" / name).mkdir(parents=True)
        image.save(folder / "data" / name / path.name, **options)
    return path


@pytest.mark.parametrize("kind", FILES)
def test_every_way_in_gives_the_pixels_of_the_file(kind: str, tmp_path: Path) -> None:
    path = saved(kind, tmp_path)
    expected = torch.from_numpy(decode(path, SIDE))[None]
    for way, get in WAYS.items():
        assert torch.equal(get(path), expected), way


@pytest.mark.parametrize(
    ("kind", "at", "color"),
    [
        ("gray with opacity", (0, 0), None),
        ("16 bits", (0, 0), [round(float(DEEP[0, 0]) / 257)] * 3),
        ("turned", (0, 19), RGBA[0, 0, :3].tolist()),
        ("turned, 16 bits", (0, 19), [round(float(DEEP[0, 0]) / 257)] * 3),
        ("a transparent color", (0, 0), [255] * 3),
        ("color with opacity", (0, 0), None),
    ],
)
def test_levels_are_right(
    kind: str, at: tuple[int, int], color: list[int] | None, tmp_path: Path
) -> None:
    """All ways could be wrong alike: a corner of each against its levels."""
    path = saved(kind, tmp_path)
    image = from_dataset([(opened(path), 0)], "own").items[0]
    assert isinstance(image, np.ndarray)
    found = np.broadcast_to(image[at], (3,)).tolist()
    if color is None:
        opacity = RGBA[0, 0, 3] / 255
        shown = RGBA[0, 0, [0] * 3 if "gray" in kind else [0, 1, 2]]
        color = (shown * opacity + 255 * (1 - opacity)).round().tolist()
    assert found == pytest.approx(color, abs=1)


def arrays(kind: str) -> list[NDArray[Any]]:
    """One image [H, W] or [H, W, C] as arrays of all types in which it can be written."""
    image, _, _ = FILES[kind]
    pixels = np.asarray(image)
    found = [pixels]
    if pixels.dtype == np.uint8:
        found += [pixels.astype(np.int64), pixels / 255, (pixels / np.float32(255))]
        found += [pixels / 255 * (1 + 1e-7) - 1e-9]  # rounding errors, as of resizing
    return found


@pytest.mark.parametrize(
    "kind", ["color", "gray", "black and white", "color with opacity", "16 bits"]
)
def test_arrays_give_the_pixels_of_the_file(kind: str, tmp_path: Path) -> None:
    expected = torch.from_numpy(decode(saved(kind, tmp_path), SIDE))[None]
    for array in arrays(kind):
        first = array if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))
        forms = {
            "array": COLOR.pixels(array[None]),
            "list": COLOR.pixels([array]),
            "tensor, channels first": COLOR.pixels([torch.from_numpy(first.copy())]),
            "from_arrays": load_images(from_arrays(array[None], [0], "own"), SIDE).images,
            "from_dataset": load_images(from_dataset([(array, 0)], "own"), SIDE).images,
        }
        for form, found in forms.items():
            assert torch.equal(found, expected), (form, array.dtype)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_levels_of_unknown_range_are_refused_by_every_way(mode: str, tmp_path: Path) -> None:
    image = Image.new(mode, (9, 9), 1)
    image.save(tmp_path / "a.tif")
    words = "cannot be decoded: gray pixels of 32 bits have no known range"
    with pytest.raises(InputError, match=rf"a\.tif {words}"):
        COLOR.pixels([tmp_path / "a.tif"])
    with pytest.raises(InputError, match=f"^image 1 {words}"):
        COLOR.pixels([COLORS, image])
    with pytest.raises(InputError, match=f"^image 0 of own {words}"):
        from_dataset([(image, 0)], "own")


def test_cut_and_closed_images_are_named(tmp_path: Path) -> None:
    COLORS.save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    cut = Image.open(io.BytesIO(content[: len(content) // 2]))
    closed = Image.open(tmp_path / "a.png")
    closed.close()
    for image in (cut, closed):
        with pytest.raises(InputError, match=r"^image 3 cannot be decoded.*\w{5}") as caught:
            COLOR.pixels([COLORS, COLORS, COLORS, image])
        assert "\n" not in str(caught.value)
        with pytest.raises(InputError, match=r"^image 1 of own cannot be decoded.*\w{5}"):
            _ = from_dataset([(COLORS, 0), (image, 1)], "own").items[1]


def test_sixteen_bits_that_may_be_eight_are_refused() -> None:
    dark = np.full((1, 9, 9), 200, np.uint16)
    for attempt in (lambda: COLOR.pixels(dark), lambda: from_arrays(dark, [0], "own")):
        with pytest.raises(InputError, match="pixels of uint16 from 200 to 200 may be of 8 bits"):
            attempt()
    assert COLOR.pixels(np.zeros((1, 9, 9), np.uint16)).max() == 0


@pytest.mark.parametrize("levels", [-0.003, 1.003])
def test_more_than_half_a_level_out_of_range_is_refused(levels: float) -> None:
    for attempt in (
        lambda: COLOR.pixels(np.full((1, 9, 9), levels)),
        lambda: from_arrays(np.full((1, 9, 9), levels), [0], "own"),
    ):
        with pytest.raises(InputError, match="floating-point pixels must be from 0 to 1"):
            attempt()

"""Images of every kind against the pixels they should give, and the cache they are kept in."""

import errno
import io
import os
import resource
import shutil
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import IO, Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from omnitraining.datasets import decoding, image_cache
from omnitraining.datasets import pixels as of_pixels
from omnitraining.datasets.decoding import Resize, decode
from omnitraining.datasets.image_cache import load_images
from omnitraining.datasets.listing import Item, Listing
from omnitraining.errors import InputError
from omnitraining.io import threads

SIDE = 8
NAMED = (("red", (255, 0, 0)), ("gray", (128, 128, 128)), ("teal", (0, 128, 128)))


def saved(folder: Path, image: Image.Image, name: str = "a.png", **options: Any) -> Path:
    image.save(folder / name, **options)
    return folder / name


def color(path: Item) -> tuple[int, ...]:
    """The one color of an image."""
    pixels = decode(path, SIDE).reshape(3, -1)
    assert (pixels == pixels[:, :1]).all()
    return tuple(pixels[:, 0].tolist())


def photograph(width: int = 40, height: int = 30) -> Image.Image:
    """Smooth, as photographs mostly are, and alike in no two directions."""
    y, x = np.mgrid[0:height, 0:width] / [[[height]], [[width]]]
    levels = np.stack([x, y, (x + 2 * y) % 1], -1) * 255
    image = Image.fromarray(levels.astype(np.uint8))
    ImageDraw.Draw(image).ellipse((0, 1, width // 3, 1 + height // 2), "white")
    return image


def pixels_of(image: Image.Image, side: int = SIDE) -> NDArray[np.uint8]:
    """What torch makes of an image in RGB, independent of Pillow's resizing."""
    levels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None].float()
    square: Tensor = torch.nn.functional.interpolate(
        levels, (side, side), mode="bilinear", antialias=True
    )
    return square[0].round().byte().numpy()


def differ(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> int:
    return int(np.abs(first.astype(int) - second).max())


# --- kinds of images ---


@pytest.mark.parametrize(("name", "levels"), NAMED)
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
@pytest.mark.parametrize("extension", ["png", "tif", "webp", "gif"])
def test_every_mode_gives_its_color(
    mode: str, extension: str, name: str, levels: tuple[int, ...], tmp_path: Path
) -> None:
    image = Image.new("RGB", (10, 20), name)
    image = image.quantize(2) if mode == "P" else image.convert(mode)
    options = {"lossless": True} if extension == "webp" else {}
    assert color(saved(tmp_path, image, f"a.{extension}", **options)) == levels


def test_grayscale_becomes_three_equal_channels(tmp_path: Path) -> None:
    for mode, extension in (("L", "png"), ("L", "jpg"), ("LA", "png"), ("P", "png")):
        path = saved(tmp_path, Image.new("L", (9, 9), 77).convert(mode), f"a.{extension}")
        assert color(path) == (77, 77, 77)


def test_black_and_white(tmp_path: Path) -> None:
    assert color(saved(tmp_path, Image.new("1", (9, 9), 1))) == (255, 255, 255)


@pytest.mark.parametrize("extension", ["png", "tif", "pgm", "jp2"])
@pytest.mark.parametrize(
    ("level", "expected"), [(0, 0), (257, 1), (40000, 156), (65406, 254), (65535, 255)]
)
def test_sixteen_bits_are_scaled_not_clipped(
    level: int, expected: int, extension: str, tmp_path: Path
) -> None:
    levels = np.full((12, 10), level, np.uint16)
    path = tmp_path / f"a.{extension}"
    if extension == "pgm":
        path.write_bytes(b"P5 10 12 65535\n" + levels.astype(">u2").tobytes())
    else:
        Image.fromarray(levels).save(path)
    assert color(path) == (expected,) * 3


def test_sixteen_bits_of_big_endian(tmp_path: Path) -> None:
    image = Image.fromarray(np.full((12, 10), 40000, ">u2"))
    assert image.mode == "I;16B" and color(saved(tmp_path, image, "a.tif")) == (156, 156, 156)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_levels_of_unknown_range_are_refused(mode: str, tmp_path: Path) -> None:
    path = saved(tmp_path, Image.new(mode, (9, 9), 1), "a.tif")
    with pytest.raises(InputError, match=r"a\.tif cannot be decoded: gray pixels of 32 bits"):
        decode(path, SIDE)


@pytest.mark.parametrize("extension", ["jpg", "tif"])
def test_printing_colors(extension: str, tmp_path: Path) -> None:
    # Cyan, magenta, yellow and black ink: 255 - ink in each, and black takes from all.
    path = saved(tmp_path, Image.new("CMYK", (16, 16), (255, 0, 0, 0)), f"a.{extension}")
    assert color(path) == pytest.approx((0, 255, 255), abs=2)
    path = saved(tmp_path, Image.new("CMYK", (16, 16), (0, 0, 0, 155)), f"b.{extension}")
    assert color(path) == pytest.approx((100, 100, 100), abs=2)


@pytest.mark.parametrize("extension", ["png", "webp", "tif"])
def test_what_is_transparent_becomes_white(extension: str, tmp_path: Path) -> None:
    options = {"lossless": True, "exact": True} if extension == "webp" else {}
    for alpha, expected in ((0, (255, 255, 255)), (255, (200, 0, 0)), (102, (233, 153, 153))):
        image = Image.new("RGBA", (9, 9), (200, 0, 0, alpha))
        assert color(saved(tmp_path, image, f"a.{extension}", **options)) == expected
    image = Image.new("LA", (9, 9), (0, 51))
    assert color(saved(tmp_path, image)) == (204, 204, 204)


def test_transparent_entries_of_a_palette_become_white(tmp_path: Path) -> None:
    image = Image.new("P", (8, 8))
    image.putpalette([10, 20, 30, 200, 100, 0])
    image.paste(1, (0, 0, 4, 8))
    for extension, transparency in (("png", 0), ("gif", 0), ("png", bytes([0, 255]))):
        path = saved(tmp_path, image, f"a.{extension}", transparency=transparency)
        pixels = decode(path, 8)
        assert pixels[:, 0, 0].tolist() == [200, 100, 0]
        assert pixels[:, 0, 7].tolist() == [255, 255, 255]
    half = saved(tmp_path, image, transparency=bytes([255, 51]))
    assert decode(half, 8)[:, 0, 0].tolist() == [244, 224, 204]


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_transparent_color_becomes_white(mode: str, tmp_path: Path) -> None:
    image = Image.new(mode, (9, 9), 77 if mode == "L" else (1, 2, 3))
    path = saved(tmp_path, image, transparency=77 if mode == "L" else (1, 2, 3))
    assert color(path) == (255, 255, 255)


@pytest.mark.parametrize("extension", ["gif", "webp", "png", "tif"])
def test_of_an_animation_the_first_frame(extension: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (9, 9), name) for name in ("red", "lime", "blue")]
    options = {"lossless": True} if extension == "webp" else {}
    path = saved(
        tmp_path, frames[0], f"a.{extension}", save_all=True, append_images=frames[1:], **options
    )
    with Image.open(path) as image:
        assert image.n_frames == 3
    assert color(path) == (255, 0, 0)


UPRIGHT: dict[int, list[Image.Transpose]] = {
    1: [],
    2: [Image.Transpose.FLIP_LEFT_RIGHT],
    3: [Image.Transpose.ROTATE_180],
    4: [Image.Transpose.FLIP_TOP_BOTTOM],
    5: [Image.Transpose.TRANSPOSE],
    6: [Image.Transpose.ROTATE_270],
    7: [Image.Transpose.TRANSVERSE],
    8: [Image.Transpose.ROTATE_90],
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_orientation_of_the_camera_is_honoured(orientation: int, tmp_path: Path) -> None:
    image = photograph()
    exif = Image.Exif()
    exif[0x0112] = orientation
    expected = image
    for turn in UPRIGHT[orientation]:
        expected = expected.transpose(turn)
    for name, options in (
        ("a.jpg", {"quality": 100, "subsampling": 0}),
        ("a.png", {}),
        ("raw.tif", {}),
        ("lzw.tif", {"compression": "tiff_lzw"}),
    ):
        got = decode(saved(tmp_path, image, name, exif=exif, **options), SIDE)
        assert differ(got, pixels_of(expected)) <= 4, name
    gray = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    got = decode(saved(tmp_path, gray, "gray.tif", exif=exif), SIDE)
    assert differ(got, pixels_of(expected.convert("L"))) <= 1


def test_broken_metadata_spoil_no_pixels(tmp_path: Path) -> None:
    for exif in (b"Exif\0\0", b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff", b"\0" * 9):
        path = saved(tmp_path, photograph(), "a.jpg", exif=exif, quality=100, subsampling=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow may warn of them
            assert differ(decode(path, SIDE), pixels_of(photograph())) <= 4


# --- resizing ---


@pytest.mark.parametrize("size", [(40, 30), (30, 41), (8, 8), (5, 3), (1, 9), (333, 20)])
def test_images_become_squares_with_antialiasing(size: tuple[int, int], tmp_path: Path) -> None:
    image = photograph(*size)
    got = decode(saved(tmp_path, image), SIDE)
    assert got.shape == (3, SIDE, SIDE) and got.dtype == np.uint8 and got.flags.c_contiguous
    assert differ(got, pixels_of(image)) <= 1


def test_a_large_jpeg_is_decoded_at_a_smaller_size_to_the_same_picture(tmp_path: Path) -> None:
    image = photograph(1600, 1200)
    path = saved(tmp_path, image, "a.jpg", quality=95)
    seen = []
    original = decoding._square

    def spy(image: Image.Image, side: int, *rest: Any) -> NDArray[np.uint8]:
        seen.append(image.size)
        return original(image, side, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "_square", spy)
        got = decode(path, 96)
    assert seen == [(400, 300)]
    assert differ(got, pixels_of(image, 96)) <= 12
    assert np.abs(got.astype(int) - pixels_of(image, 96)).mean() < 0.5


def test_arrays_are_images_too(tmp_path: Path) -> None:
    image = photograph()
    assert (decode(np.asarray(image), SIDE) == decode(saved(tmp_path, image), SIDE)).all()
    assert (decode(np.asarray(image)[::-1], SIDE) == decode(np.asarray(image), SIDE)[:, ::-1]).all()
    gray = np.asarray(image.convert("L"))
    assert (decode(gray, SIDE) == decode(np.stack([gray] * 3, -1), SIDE)).all()


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((9, 9, 3), np.float32), "an array of float32 [9, 9, 3]: give uint8 [H, W, 3]"),
        (np.zeros((3, 9, 9), np.uint8), "an array of uint8 [3, 9, 9]"),
        (np.zeros(9, np.uint8), "an array of uint8 [9]"),
        (np.zeros((0, 9), np.uint8), "an array of uint8 [0, 9]"),
    ],
)
def test_other_arrays_are_refused(array: NDArray[Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        decode(array, SIDE)
    assert words in str(caught.value)


# --- files that are no images ---


def encoded(extension: str) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(noise).save(buffer, extension)
    return buffer.getvalue()


KINDS = ("jpeg", "png", "gif", "tiff", "bmp", "webp", "ppm", "jpeg2000")


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_file_is_named_at_whatever_length(kind: str, tmp_path: Path) -> None:
    content = encoded(kind)
    path = tmp_path / "cut"
    for length in (1, 5, 12, 30, 100, len(content) // 2, len(content) * 9 // 10):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match=f"^{path} "), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            decode(path, SIDE)


@pytest.mark.parametrize("kind", KINDS)
def test_a_corrupt_file_is_an_image_or_named(kind: str, tmp_path: Path) -> None:
    content, path = encoded(kind), tmp_path / "corrupt"
    random = np.random.default_rng(0)
    for _ in range(30):
        damaged = np.frombuffer(content, np.uint8).copy()
        start = random.integers(0, min(200, len(damaged) - 8))
        damaged[start : start + 8] = random.integers(0, 256, 8)
        path.write_bytes(damaged.tobytes())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                assert decode(path, SIDE).shape == (3, SIDE, SIDE)
            except InputError as error:
                assert str(error).startswith(f"{path} ") and "\n" not in str(error)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty (0 bytes)"),
        (b"hello", "is not an image, or of a kind that Pillow cannot read"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is not an image, or of a kind"),
        (b"PK\x03\x04" + bytes(99), "is not an image, or of a kind"),
        (encoded("jpeg")[:600], "cannot be decoded: "),
        (encoded("png")[:600], "cannot be decoded: "),
    ],
)
def test_what_is_wrong_with_a_file_is_reported(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        decode(path, SIDE)
    assert str(caught.value).startswith(f"{path} {words}")


def test_what_cannot_be_opened_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none cannot be opened: No such file or directory"):
        decode(tmp_path / "none", SIDE)
    with pytest.raises(InputError, match="cannot be opened: Is a directory"):
        decode(tmp_path, SIDE)


@pytest.mark.parametrize("side", [9_500, 14_000])  # Pillow only warns of the first
def test_a_decompression_bomb_is_refused_before_it_is_decoded(side: int, tmp_path: Path) -> None:
    header = f"P5 {side} {side} 255\n".encode()
    (tmp_path / "bomb.pgm").write_bytes(header + bytes(99))
    words = r"bomb\.pgm has more than 89,478,485 pixels: it may be"
    with pytest.raises(InputError, match=words), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        decode(tmp_path / "bomb.pgm", SIDE)


# --- the cache ---


@pytest.fixture
def listing(tmp_path: Path) -> Listing:
    """Three classes with four images each, of which the last is an array."""
    folder, items = tmp_path / "data" / "birds", list[Item]()
    folder.mkdir(parents=True)
    for i in range(11):
        items.append(saved(folder, Image.new("RGB", (10 + i, 10), (20 * i, i, 0)), f"{i}.png"))
    items.append(np.full((10, 10, 3), 99, np.uint8))
    return Listing("birds-test", ("a", "b", "c"), items, [i // 4 for i in range(12)])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OMNITRAINING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Item]]:
    """Every item that is decoded."""
    seen: list[Item] = []
    original = image_cache.decode

    def spy(item: Item, *how: Any) -> NDArray[np.uint8]:
        seen.append(item)
        return original(item, *how)

    monkeypatch.setattr(image_cache, "decode", spy)
    yield seen


def count(seen: list[Item], call: Callable[[], object]) -> int:
    seen.clear()
    call()
    return len(seen)


def test_load_gives_every_image_its_label_in_the_order_of_the_listing(listing: Listing) -> None:
    data = load_images(listing, SIDE)
    assert data.images.dtype == torch.uint8 and data.images.shape == (12, 3, SIDE, SIDE)
    assert data.labels.dtype == torch.long and data.labels.tolist() == list(listing.labels)
    assert data.classes == ("a", "b", "c") and data.name == "birds-test"
    for item, pixels in zip(listing.items, data.images, strict=True):
        assert (pixels.numpy() == decode(item, SIDE)).all()


def test_each_way_to_a_square_has_its_own_file(listing: Listing, decoded: list[Item]) -> None:
    ways = [Resize("stretch"), Resize("crop"), Resize("letterbox"), Resize("crop", center=SIDE - 2)]
    for resize in (*ways, *ways):
        data = load_images(listing, SIDE, resize=resize)
        for item, pixels in zip(listing.items, data.images, strict=True):
            assert (pixels.numpy() == decode(item, SIDE, resize)).all()
    assert len(decoded) == len(ways) * 12
    # The center of a stretched image is cut out later, and changes no pixel.
    load_images(listing, SIDE, resize=Resize("stretch", center=SIDE - 2))
    assert len(decoded) == len(ways) * 12


@pytest.mark.parametrize("size", [(90, 60), (61, 90), (40, 40), (700, 3)])
@pytest.mark.parametrize("center", [None, 20])
def test_a_letterbox_has_the_whole_image_in_the_center_of_a_gray_square(
    size: tuple[int, int], center: int | None
) -> None:
    pixels = np.random.default_rng(0).integers(0, 100, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    found = np.asarray(Resize("letterbox", "bicubic", center)(image, 30)).astype(int)
    inside = (found != 128).any(2)
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    wide, high = (max(1, round((center or 30) * length / max(size))) for length in size)
    assert (len(columns), len(rows)) == (wide, high) and inside.sum() == wide * high
    for places, length in ((columns, wide), (rows, high)):
        assert abs((places[0]) - (30 - 1 - places[-1])) <= 1  # as far from either edge
        assert (np.diff(places) == 1).all() and len(places) == length
    expected = np.asarray(image.resize((wide, high), Image.Resampling.BICUBIC))
    assert (found[rows][:, columns] == expected).all()


def test_more_images_than_threads_read_ahead_stay_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "AHEAD", 3)
    items = [np.full((9, 9), level, np.uint8) for level in range(100)]
    data = load_images(Listing("gray", ("all",), items, [0] * 100), SIDE)
    assert data.images[:, 0, 0, 0].tolist() == list(range(100))


def test_a_second_load_decodes_nothing(listing: Listing, decoded: list[Item], cache: Path) -> None:
    first = load_images(listing, SIDE)
    assert len(decoded) == 12
    assert count(decoded, lambda: load_images(listing, SIDE)) == 0
    assert load_images(listing, SIDE).fingerprint == first.fingerprint
    assert sorted(path.suffix for path in cache.iterdir()) == [".json", ".uint8"]


def test_a_change_decodes_again(
    listing: Listing, decoded: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loads(listing: Listing, side: int = SIDE, cache: Path | None = None) -> int:
        return count(decoded, lambda: load_images(listing, side, cache))

    def with_items(items: list[Item]) -> Listing:
        return Listing("birds-test", ("a", "b", "c"), items, listing.labels)

    assert loads(listing) == 12 and loads(listing) == 0
    assert loads(listing, side=9) == 12
    assert loads(listing, cache=tmp_path / "elsewhere") == 12
    items = list(listing.items)
    assert loads(with_items([items[1], items[0], *items[2:]])) == 12
    assert loads(with_items([*items[:-1], np.full((10, 10, 3), 98, np.uint8)])) == 12
    relabeled = Listing("birds-test", ("a", "b", "c"), items, [2 - y for y in listing.labels])
    assert loads(relabeled) == 12
    path = items[4]
    assert isinstance(path, Path) and loads(listing) == 0
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert loads(listing) == 0, "the files are the same"
    assert (
        count(decoded, lambda: load_images(listing, SIDE, anew=True)) == 12 and loads(listing) == 0
    )
    saved(path.parent, Image.new("RGB", (300, 200), "lime"), path.name)
    assert loads(listing) == 12
    assert load_images(listing, SIDE).images[4].flatten(1).unique(dim=1).flatten().tolist() == [
        0,
        255,
        0,
    ]
    with monkeypatch.context() as patch:
        patch.setattr("PIL.__version__", "99")
        assert loads(listing) == 12
    monkeypatch.setattr(image_cache, "DECODING", -1)
    assert loads(listing) == 12


def test_data_that_were_moved_are_not_decoded_again(
    listing: Listing, decoded: list[Item], tmp_path: Path
) -> None:
    load_images(listing, SIDE)
    (tmp_path / "data").rename(tmp_path / "moved")
    items = [
        tmp_path / "moved" / item.relative_to(tmp_path / "data") if isinstance(item, Path) else item
        for item in listing.items
    ]
    moved = Listing(listing.name, listing.classes, items, listing.labels)
    assert count(decoded, lambda: load_images(moved, SIDE)) == 0


def test_other_images_of_the_same_names_sizes_and_times_are_decoded(
    decoded: list[Item], tmp_path: Path
) -> None:
    levels = []
    for root, level in (("original", 10), ("darker", 5)):
        folder = tmp_path / root / "class"
        folder.mkdir(parents=True)
        path = saved(folder, Image.new("L", (9, 9), level), "a.bmp")
        os.utime(path, (0, 0))
        data = load_images(Listing("gray", ("class",), [path], [0]), SIDE)
        levels.append(int(data.images[0, 0, 0, 0]))
    assert levels == [10, 5]


@pytest.mark.parametrize("settled", [-60.0, 60.0])
def test_corrected_files_of_equal_size_with_kept_times_are_detected(
    settled: float, decoded: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in the middle of many, and whether the hashes of the old ones were kept or not."""
    monkeypatch.setattr(image_cache, "_SETTLED", settled)
    paths = [saved(tmp_path, Image.new("L", (9, 9), 10), f"{i}.bmp") for i in range(40)]
    listing = Listing("gray", ("class",), paths, [0] * 40)
    before = load_images(listing, SIDE)
    status = paths[17].stat()
    saved(tmp_path, Image.new("L", (9, 9), 5), "17.bmp")
    os.utime(paths[17], ns=(status.st_atime_ns, status.st_mtime_ns))
    assert paths[17].stat().st_size == status.st_size
    after = load_images(listing, SIDE)
    assert after.images[:, 0, 0, 0].tolist() == [10] * 17 + [5] + [10] * 22
    assert before.digests != after.digests


def test_files_are_read_only_if_they_changed(
    listing: Listing, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_cache, "_SETTLED", -60.0)
    first = load_images(listing, SIDE)

    def read(item: Item) -> str:
        raise AssertionError(f"{item} is read again")

    monkeypatch.setattr(image_cache, "_digest", read)
    again = load_images(listing, SIDE)
    assert again.digests == first.digests and len(again.digests or ()) == 3
    (kept,) = cache.glob("*.files.json")
    kept.write_text("{")
    with pytest.raises(AssertionError, match="is read again"):
        load_images(listing, SIDE)


def test_threads_that_decode_the_same_data_all_get_them(
    listing: Listing, decoded: list[Item], cache: Path
) -> None:
    """They have one process number, as two containers may have: no name is made of it."""
    with ThreadPoolExecutor(4) as pool:
        found = [*pool.map(lambda _: load_images(listing, SIDE).fingerprint, range(8))]
    assert len({*found}) == 1 and len(decoded) == 12, "the others wait for the first"
    assert {path.suffix for path in cache.iterdir()} == {".json", ".uint8"}


def test_what_killed_writers_left_is_removed(listing: Listing, cache: Path) -> None:
    path = image_cache.cache_file(listing, SIDE)
    cache.mkdir(exist_ok=True)
    path.with_name(f"{path.name}.0123456789abcdef.part").write_bytes(b"half")
    path.with_name(f"{path.name}.lock").write_bytes(b"")
    load_images(listing, SIDE)
    assert {path.suffix for path in cache.iterdir()} == {".json", ".uint8"}


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), MemoryError()])
def test_errors_of_a_moment_are_not_kept(
    error: Exception, listing: Listing, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = decoding.open_image

    def fails_once(file: IO[bytes]) -> Image.Image:
        if file.name.endswith("/3.png"):
            raise error
        return original(file)

    with monkeypatch.context() as patch:
        patch.setattr(decoding, "open_image", fails_once)
        with pytest.warns(UserWarning, match=r"left out 1 of 12 .*3\.png cannot be "):
            assert len(load_images(listing, SIDE, skip_damaged=True).images) == 11
    assert len(load_images(listing, SIDE, skip_damaged=True).images) == 12


def test_threads_share_a_budget_of_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten images of 100 pixels, of which 250 may be under way, and one that is larger alone."""
    under_way, most, lock = 0, 0, Lock()
    original = decoding._square

    def spy(image: Image.Image, side: int, *rest: Any) -> NDArray[np.uint8]:
        nonlocal under_way, most
        with lock:
            under_way += image.width * image.height
            most = max(most, under_way)
        try:
            return original(image, side, *rest)
        finally:
            with lock:
                under_way -= image.width * image.height

    monkeypatch.setattr(decoding, "_square", spy)
    monkeypatch.setattr(decoding, "_pixels", decoding._Budget(250))
    paths = [saved(tmp_path, Image.new("RGBA", (10, 10)), f"{i}.png") for i in range(10)]
    paths.insert(5, saved(tmp_path, Image.new("RGBA", (20, 20)), "large.png"))
    load_images(Listing("a", ("a",), paths, [0] * 11), SIDE)
    assert under_way == 0 and most == 400


def test_what_is_transparent_is_laid_on_white_row_by_row_to_the_same_pixels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    random = np.random.default_rng(0)
    for mode, channels in (("RGBA", 4), ("LA", 2)):
        image = Image.fromarray(random.integers(0, 256, (37, 20, channels), np.uint8), mode)
        whole = image.convert("RGBA")
        whole = Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole)
        monkeypatch.setattr(of_pixels, "_ROWS", 8)
        assert (np.asarray(of_pixels._on_white(image)) == np.asarray(whole.convert("RGB"))).all()


def test_no_program_is_run_on_what_is_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/run\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    path = tmp_path / "x.png"
    path.write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    )
    with pytest.raises(InputError, match=r"x\.png is not an image, or of a kind"):
        decode(path, SIDE)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("damage", ["truncated", "longer", "no record", "half record", "part"])
def test_a_half_written_cache_is_not_used(
    damage: str, listing: Listing, decoded: list[Item], cache: Path
) -> None:
    expected = load_images(listing, SIDE).fingerprint
    path = image_cache.cache_file(listing, SIDE)
    record, content = path.with_suffix(".json"), path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[:-1])
    elif damage == "longer":
        path.write_bytes(content + content)
    elif damage == "no record":
        record.unlink()
    elif damage == "half record":
        record.write_bytes(record.read_bytes()[:-1])
    else:
        path.rename(path.with_name(f"{path.name}.1.part"))
    assert count(decoded, lambda: load_images(listing, SIDE)) == 12
    assert path.read_bytes() == content and load_images(listing, SIDE).fingerprint == expected


def test_interrupted_decoding_leaves_nothing(
    listing: Listing, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(item: Item, *how: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(image_cache, "decode", stop)
        with pytest.raises(KeyboardInterrupt):
            load_images(listing, SIDE)
    assert list(cache.iterdir()) == []


def test_a_full_disk_is_one_line_that_names_the_file(
    listing: Listing, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(InputError, match=rf"^cannot write {cache}/birds-test-8-\w+\.uint8: "):
            load_images(listing, SIDE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(cache.glob("*.uint8*"))
    usage = shutil.disk_usage(cache)._replace(free=10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match=r"cannot write .*: 3\.6 GB needed, 1\.0 GB free$"):
        load_images(listing, 10_000)


def test_a_cache_folder_that_cannot_be_made_is_named(listing: Listing, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*/file/birds.*: .*/file is not a folder"):
        load_images(listing, SIDE, tmp_path / "file")


def test_odd_names_of_data_sets_are_file_names(cache: Path) -> None:
    load_images(Listing("../my birds/été.v1", ("a",), [np.zeros((9, 9), np.uint8)], [0]), SIDE)
    assert all(path.name.startswith("_my_birds_été_v1-8-") for path in cache.iterdir())


# --- memory maps ---


def test_a_file_larger_than_memory_is_mapped(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.seek(2**40 - 1)
        file.write(b"\7")
    images = image_cache._mapped(tmp_path / "large", (2**30, 1, 2**5, 2**5))
    assert images[torch.tensor([5, 2**30 - 1]), 0, -1, -1].tolist() == [0, 7]


def test_writing_to_images_does_not_change_the_cache(listing: Listing, tmp_path: Path) -> None:
    data = load_images(listing, SIDE)
    fingerprint = load_images(listing, SIDE).fingerprint
    data.images.fill_(1)
    assert load_images(listing, SIDE).fingerprint == fingerprint != data.fingerprint


def test_rows_are_copies_and_outlive_the_file(listing: Listing, cache: Path) -> None:
    data = load_images(listing, SIDE)
    rows = data.images[torch.tensor([3, 1])]
    shutil.rmtree(cache)
    assert rows[0, 0, 0, 0] == 60 and data.images[11, 0, 0, 0] == 99
    data.images.zero_()
    assert rows[0, 0, 0, 0] == 60


def test_hashing_is_left_until_asked_for(listing: Listing, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = load_images(listing, SIDE).fingerprint
    monkeypatch.setattr("omnitraining.datasets.images._CHUNK", 5)
    data = load_images(listing, SIDE)
    assert "fingerprint" not in vars(data)
    assert data.fingerprint == expected
    assert vars(data)["fingerprint"] == expected  # and is not computed again


# --- damaged files ---


def damage(listing: Listing, *positions: int) -> list[str]:
    paths = []
    for position in positions:
        item = listing.items[position]
        assert isinstance(item, Path)
        item.write_bytes(b"")
        paths.append(str(item))
    return paths


def test_all_damaged_files_are_reported_together(listing: Listing, cache: Path) -> None:
    (name,) = damage(listing, 3)
    with pytest.raises(InputError) as caught:
        load_images(listing, SIDE)
    assert str(caught.value) == (
        f"1 of 12 images of birds-test cannot be used: {name} is empty (0 bytes); "
        "repair them, or leave them out (skip_damaged)"
    )
    names = damage(listing, 0, 1, 3, 5, 8, 9, 10)
    with pytest.raises(InputError, match="7 of 12 images of birds-test cannot") as caught:
        load_images(listing, SIDE)
    assert all(name in str(caught.value) for name in names[:5])
    assert names[5] not in str(caught.value) and "; and 2 more; repair" in str(caught.value)
    assert list(cache.iterdir()) == []


def test_damaged_and_missing_files_may_be_left_out(
    listing: Listing, decoded: list[Item], cache: Path
) -> None:
    names = damage(listing, 1, 6)
    gone = listing.items[9]
    assert isinstance(gone, Path)
    gone.unlink()
    for times in (12, 0):  # decoded at first, and then read from the cache with the same warning
        decoded.clear()
        with pytest.warns(UserWarning, match="left out 3 of 12 images of birds-test") as caught:
            data = load_images(listing, SIDE, skip_damaged=True)
        words = str(caught[0].message)
        assert all(name in words for name in (*names, f"{gone} cannot be opened"))
        assert len(decoded) == times and data.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
        kept = [item for i, item in enumerate(listing.items) if i not in (1, 6, 9)]
        for item, pixels in zip(kept, data.images, strict=True):
            assert (pixels.numpy() == decode(item, SIDE)).all()
    with pytest.raises(InputError, match="3 of 12 images of birds-test cannot be used"):
        load_images(listing, SIDE)
    # Mended files are noticed.
    for position in (1, 6, 9):
        saved(gone.parent, Image.new("RGB", (9, 9)), f"{position}.png")
    assert len(load_images(listing, SIDE).images) == 12


def test_an_array_of_another_kind_is_named_by_its_position(listing: Listing) -> None:
    items = [*listing.items[:-1], np.zeros((3, 3, 3), np.float32)]
    wrong = Listing(listing.name, listing.classes, items, listing.labels)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"image 11 is an array of float32 \[3, 3, 3\]"):
        load_images(wrong, SIDE)


def test_a_class_without_images_is_an_error(listing: Listing) -> None:
    damage(listing, 4, 5, 6, 7)
    words = "birds-test has classes with no image left that can be decoded: b$"
    with pytest.raises(InputError, match=words):
        load_images(listing, SIDE, skip_damaged=True)
    classes = (*listing.classes, "d")
    more = Listing("birds", classes, [listing.items[0]] * 3, [0, 1, 2])
    with pytest.raises(InputError, match="birds has classes with no image in it: d"):
        load_images(more, SIDE)
    with pytest.raises(InputError, match="birds has no images"):
        load_images(Listing("birds", (), [], []), SIDE)
    with pytest.raises(InputError, match="side is 0: it must be 1 or more"):
        load_images(listing, 0)

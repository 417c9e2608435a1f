"""Images on disk become tensors: decoded once, kept in a cache, and mapped from there.

Images become squares whose aspect is not kept, as the protocol of CloserLook (Chen et al., 2019)
resizes them at evaluation; training crops are cut from the same squares. Unlike CloserLook, the
orientation that a camera wrote into a file is honoured.
"""

import errno
import hashlib
import json
import mmap
import re
import shutil
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache as remember
from pathlib import Path
from threading import Condition
from typing import IO

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from omnitraining.datasets.caching import cache_folder, cache_lock
from omnitraining.datasets.images import LabeledImages
from omnitraining.datasets.listing import Item, Listing
from omnitraining.datasets.pixels import eight_bit
from omnitraining.errors import InputError
from omnitraining.io.files import open_atomic
from omnitraining.io.terminal import first_few
from omnitraining.io.threads import map_in_threads

DECODING = 2
"""Version of the decoding below; raise it with any change to the pixels."""

MAX_PIXELS = 89_478_485
"""Most pixels of an image file: from here on Pillow suspects a decompression bomb."""

FORMATS = (
    *("AVIF", "BMP", "CUR", "DDS", "DIB", "GIF", "HEIF", "ICNS", "ICO", "JPEG", "JPEG2000"),
    *("JXL", "MPO", "PCX", "PNG", "PPM", "PSD", "QOI", "SGI", "SUN", "TGA", "TIFF", "WEBP"),
    *("XBM", "XPM"),
)
"""Kinds of files that are opened, where Pillow knows them: pixels, and nothing that is run."""

_MAP_NORESERVE = 0x4000  # of Linux, which Python names from version 3.13 on
_SETTLED = 2.0  # seconds: a file that is younger may change again within one tick of the clock
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


class _Budget:
    """What threads may have under way together; what is larger waits until it is alone."""

    def __init__(self, whole: int) -> None:
        self._whole = self._free = whole
        self._changed = Condition()

    @contextmanager
    def taken(self, wanted: int) -> Iterator[None]:
        share = min(wanted, self._whole)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= share)
            self._free -= share
        try:
            yield
        finally:
            with self._changed:
                self._free += share
                self._changed.notify_all()


_pixels = _Budget(MAX_PIXELS)
"""Pixels that are decoded at a time: all threads need no more memory than the largest image."""


def decode(item: Item | Image.Image, side: int) -> NDArray[np.uint8]:
    """One image as RGB of 8 bits, [3, side, side], resized bilinearly with antialiasing.

    Of an animation it is the first frame; 16 bits are scaled to 8; what is transparent becomes
    white; color profiles are not applied.

    Args:
        item: an image file of any kind that Pillow reads, an array, or an image of Pillow.
        side: of the square in pixels; the aspect is not kept.

    Raises:
        InputError: the file is missing, empty, damaged, no image, or larger than ``MAX_PIXELS``;
            the image of Pillow is cut or closed; or the array is not uint8 [H, W, 3] or [H, W].
    """
    if isinstance(item, Image.Image):
        try:
            with _pixels.taken(item.width * item.height):
                return _square(item, side)
        except Exception as error:  # as for files
            raise InputError(undecodable(error)) from error
    if not isinstance(item, Path):
        gray_or_rgb = item.ndim == 2 or (item.ndim == 3 and item.shape[2] == 3)
        if item.dtype != np.uint8 or not gray_or_rgb or not item.size:
            shape = list(item.shape)
            raise InputError(f"an array of {item.dtype} {shape}: give uint8 [H, W, 3] or [H, W]")
        with _pixels.taken(item.shape[0] * item.shape[1]):
            return _square(Image.fromarray(item), side)
    if item.is_fifo():  # of which nothing may ever come
        raise InputError(f"{item} is a pipe: it must be an image file")
    try:
        # Not by name: Pillow maps uncompressed TIFF files with a name, and turns those wrongly.
        with item.open("rb") as file, open_image(file) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            # A JPEG can be decoded at half its size or less, in a fraction of the time. Twice the
            # side is left, so that the antialiasing is still done by the resizing below.
            image.draft(None, (2 * side, 2 * side))
            with _pixels.taken(image.width * image.height):
                return _square(image, side)
    except Exception as error:  # damaged files raise about any type of error in Pillow
        raise InputError(f"{item} {_complaint(item, error)}") from error


def open_image(file: IO[bytes]) -> Image.Image:
    """An image of Pillow, not decoded yet, of those kinds alone that are pixels.

    Pillow knows others too: for PostScript it starts another program on what is in the file.
    """
    return Image.open(file, formats=_formats())


@remember
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _complaint(path: Path, error: Exception) -> str:
    """What is wrong with a file that could not be decoded."""
    if isinstance(error, _BOMBS):
        return f"has more than {MAX_PIXELS:,} pixels: it may be a decompression bomb"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be opened: {error.strerror}"
    if path.stat().st_size == 0:
        return "is empty (0 bytes)"
    if isinstance(error, UnidentifiedImageError):
        return "is not an image, or of a kind that Pillow cannot read"
    return undecodable(error)


def undecodable(error: Exception) -> str:
    """What is said of an image that Pillow began to read."""
    return f"cannot be decoded: {error}" if str(error) else f"cannot be decoded ({error!r})"


def _square(image: Image.Image, side: int) -> NDArray[np.uint8]:
    """Pixels [3, side, side] of an image."""
    image = eight_bit(image).convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def load(
    listing: Listing,
    side: int,
    cache: Path | None = None,
    skip_damaged: bool = False,
    anew: bool = False,
) -> LabeledImages:
    """Decoded images of one split; from the second time on without decoding.

    The images are mapped from the cache file, not read: data may be larger than memory, and
    indexing by a tensor copies only the rows asked for.

    Args:
        listing: the images and their labels.
        side: of the square images in pixels.
        cache: folder of decoded images; by default ``$OMNITRAINING_CACHE``, or else
            ``~/.cache/omnitraining``.
        skip_damaged: leave out images that cannot be decoded, with a warning that names them.
        anew: read and decode all files again, whatever the cache has.

    Returns:
        Images [M, 3, side, side] in the order of the listing.

    Raises:
        InputError: images cannot be decoded (all are counted, the first five named), a class is
            empty, or the cache cannot be written.
    """
    if side < 1:
        raise InputError(f"side is {side}: it must be 1 or more")
    contents = _contents(listing, cache, anew)
    path = _place(listing, side, cache, contents)
    count = len(listing.items)
    damaged = None if anew else _recorded(path, count, side)
    if damaged is None:
        with cache_lock(path):
            damaged = None if anew else _recorded(path, count, side)
            if damaged is None:
                damaged = _decoded(listing, side, path, skip_damaged)
            images = _mapped(path, (count - len(damaged), 3, side, side))
        _refuse(listing, damaged, skip_damaged)
    else:
        _refuse(listing, damaged, skip_damaged)
        images = _mapped(path, (count - len(damaged), 3, side, side))
    if damaged:
        those = f"{len(damaged)} of {count} images of {listing.name}"
        warnings.warn(f"left out {those}: {first_few(damaged.values())}", stacklevel=2)
    labels = [int(label) for i, label in enumerate(listing.labels) if i not in damaged]
    return LabeledImages(
        images, torch.tensor(labels), listing.classes, listing.name, contents.classes
    )


def cache_file(listing: Listing, side: int, cache: Path | None = None) -> Path:
    """The file that holds the decoded images: uint8 [M, 3, side, side] and nothing else.

    Its name is a hash of all that the pixels depend on: of every file these are its content, its
    name and its folder, but not where that lies (data may be moved).
    """
    return _place(listing, side, cache, _contents(listing, cache))


def _place(listing: Listing, side: int, cache: Path | None, contents: "_Contents") -> Path:
    digest = hashlib.sha256(repr((DECODING, PIL.__version__, side, contents.whole)).encode())
    return cache_folder(cache) / f"{_file_name(listing)}-{side}-{digest.hexdigest()[:16]}.uint8"


def _file_name(listing: Listing) -> str:
    return re.sub(r"[^\w-]+", "_", listing.name)


@dataclass(frozen=True)
class _Contents:
    """Hashes of the files and arrays of a listing.

    Attributes:
        seen: of what tells without reading them whether files have changed: names, sizes, times.
        whole: of names, labels and contents.
        classes: of the names and contents of each class.
    """

    seen: str
    whole: str
    classes: tuple[str, ...]


def _contents(listing: Listing, cache: Path | None, anew: bool = False) -> _Contents:
    """Hashes of the contents; files are read only if they changed since they were last.

    Beside the time that programs may set there is one that they cannot (ctime): files that were
    replaced by others of the same size and time are read again.
    """
    states = [_state(item) for item in listing.items]
    seen = hashlib.sha256(repr(states).encode()).hexdigest()
    places = [str(item.absolute()) for item in listing.items if isinstance(item, Path)]
    place = hashlib.sha256(repr((places, listing.labels)).encode()).hexdigest()[:16]
    path = cache_folder(cache) / f"{_file_name(listing)}-{place}.files.json"
    known = None if anew else _known_contents(path, len(listing.classes))
    if known is not None and known.seen == seen:
        return known
    digests = [*map_in_threads(_digest, listing.items, f"reading {listing.name}")]
    whole = hashlib.sha256()
    classes = [hashlib.sha256() for _ in listing.classes]
    for item, label, digest in zip(listing.items, listing.labels, digests, strict=True):
        name = item.absolute().parts[-2:] if isinstance(item, Path) else ()
        whole.update(repr((int(label), name, digest)).encode())
        classes[int(label)].update(repr((name[1:], digest)).encode())
    found = _Contents(seen, whole.hexdigest(), tuple(digest.hexdigest()[:16] for digest in classes))
    youngest = max((state[-1] for state in states if state), default=0)
    if places and all(digests) and youngest < time.time_ns() - _SETTLED * 1e9:
        # A cache that may only be read serves all the same: files are read again the next time.
        with suppress(InputError), open_atomic(path) as file:
            file.write(json.dumps(asdict(found)).encode())
    return found


def _known_contents(path: Path, classes: int) -> _Contents | None:
    """What was kept of contents; None if that is missing or damaged."""
    try:
        found = json.loads(path.read_bytes())
        kept = _Contents(str(found["seen"]), str(found["whole"]), tuple(map(str, found["classes"])))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return kept if len(kept.classes) == classes else None


def _state(item: Item) -> tuple[int, ...]:
    """What changes with a file: its size and times; nothing of an array, or of what is missing."""
    if not isinstance(item, Path):
        return ()
    try:
        status = item.stat()
    except OSError:
        return ()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _digest(item: Item) -> str:
    """Hash of the content of a file or array; "" of a file that cannot be read."""
    digest = hashlib.sha256()
    if not isinstance(item, Path):
        digest.update(repr((str(item.dtype), item.shape)).encode())
        digest.update(np.ascontiguousarray(item).data)
        return digest.hexdigest()
    try:
        if not item.is_file():  # of a pipe nothing may ever come
            return ""
        with item.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError:
        return ""  # decoding says what is wrong with it
    return digest.hexdigest()


def _decoded(listing: Listing, side: int, path: Path, skip_damaged: bool) -> dict[int, str]:
    """Decode all images into a file of the cache; the complaints of those left out by position.

    Errors of a moment, as of a disk or for lack of memory, are not kept: the record that makes the
    file one of the cache is written only if all others are complaints about contents.
    """
    with open_atomic(path) as file:
        damaged, momentary = _write_decoded(listing, side, file)
        _refuse(listing, damaged, skip_damaged)
        _record(path).unlink(missing_ok=True)
    if not momentary:
        with open_atomic(_record(path)) as record:
            record.write(json.dumps({"damaged": damaged}).encode())
    return damaged


def _write_decoded(listing: Listing, side: int, file: IO[bytes]) -> tuple[dict[int, str], bool]:
    """Write the pixels of all images that can be decoded.

    Returns:
        The complaints of others by position, and whether one of them may not come again.
    """
    needed, free = len(listing.items) * 3 * side**2, shutil.disk_usage(Path(file.name).parent).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free")
    momentary = False

    def attempt(position: int) -> NDArray[np.uint8] | str:
        nonlocal momentary
        item = listing.items[position]
        try:
            return decode(item, side)
        except InputError as error:
            momentary = momentary or _is_momentary(error.__cause__)
            return str(error) if isinstance(item, Path) else f"image {position} is {error}"

    damaged = {}
    decoded = map_in_threads(attempt, range(len(listing.items)), f"decoding {listing.name}")
    for position, pixels in enumerate(decoded):
        if isinstance(pixels, str):
            damaged[position] = pixels
        else:
            file.write(pixels.data)
    return damaged, momentary


def _is_momentary(error: BaseException | None) -> bool:
    """Whether an error is of the machine, not of what is in a file.

    Pillow's own errors are of the same types, but have no number. A missing file is seen by its
    name alone, so that what is kept of it does not outlive its absence.
    """
    if isinstance(error, OSError):
        return error.errno not in (None, errno.ENOENT, errno.EISDIR, errno.ENOTDIR)
    return isinstance(error, MemoryError)


def _refuse(listing: Listing, damaged: dict[int, str], skip_damaged: bool) -> None:
    """Raise an error if images are missing that must not be."""
    if damaged and not skip_damaged:
        raise InputError(
            f"{len(damaged)} of {len(listing.items)} images of {listing.name} cannot be used: "
            f"{first_few(damaged.values())}; mend them, or leave them out (skip_damaged)"
        )
    present = {label for i, label in enumerate(listing.labels) if i not in damaged}
    empty = [name for label, name in enumerate(listing.classes) if label not in present]
    if empty:
        left = "left that can be decoded" if damaged else "in it"
        raise InputError(f"{listing.name} has classes with no image {left}: {first_few(empty)}")
    if not present:
        raise InputError(f"{listing.name} has no images")


def _record(path: Path) -> Path:
    """The file beside a cache file that says which images are not in it, and why."""
    return path.with_suffix(".json")


def _recorded(path: Path, count: int, side: int) -> dict[int, str] | None:
    """Complaints of a cache file, by position; None if there is no whole cache file."""
    try:
        found = json.loads(_record(path).read_bytes())["damaged"]
        damaged = {int(position): str(words) for position, words in found.items()}
        whole = path.stat().st_size == (count - len(damaged)) * 3 * side**2
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return damaged if whole else None


def _mapped(path: Path, shape: tuple[int, ...]) -> Tensor:
    """A tensor over a file; writing to it changes a private copy of the page, not the file."""
    with path.open("rb") as file:
        if sys.platform == "linux":
            # Without MAP_NORESERVE, Linux refuses private maps that are larger than its memory.
            pages = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE | _MAP_NORESERVE)
        else:
            pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    return torch.frombuffer(pages, dtype=torch.uint8).view(shape)

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
import warnings
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import IO, Any, TypeVar

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from omnitraining.errors import InputError
from omnitraining.tasks.classification.caching import cache_folder, written_whole
from omnitraining.tasks.classification.images import LabelledImages
from omnitraining.tasks.classification.listing import Item, Listing
from omnitraining.tasks.classification.pixels import eight_bit
from omnitraining.terminal import tracked

DECODING = 2
"""Version of the decoding below; raise it with any change to the pixels."""

MAX_PIXELS = 89_478_485
"""Most pixels of an image file: from here on Pillow suspects a decompression bomb."""

_UNDER_WAY = 256  # images decoded ahead of the writer, which bounds the memory
_SAMPLES = 8  # files of which the cache key holds the content
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)

_PILLOW = r"PIL\."  # modules whose warnings are silenced
_silencing, _silencers = Lock(), 0

T = TypeVar("T")
R = TypeVar("R")


def decode(item: Item | Image.Image, side: int) -> NDArray[np.uint8]:
    """One image as RGB of 8 bits, [3, side, side], resized bilinearly with antialiasing.

    Of an animation it is the first frame; 16 bits are scaled to 8; what is transparent becomes
    white; colour profiles are not applied.

    Args:
        item: an image file of any kind that Pillow reads, an array, or an image of Pillow.
        side: of the square in pixels; the aspect is not kept.

    Raises:
        InputError: the file is missing, empty, damaged, no image, or larger than ``MAX_PIXELS``;
            the image of Pillow is cut or closed; or the array is not uint8 [H, W, 3] or [H, W].
    """
    if isinstance(item, Image.Image):
        try:
            return _square(item, side)
        except Exception as error:  # as for files
            raise InputError(undecodable(error)) from error
    if not isinstance(item, Path):
        grey_or_rgb = item.ndim == 2 or (item.ndim == 3 and item.shape[2] == 3)
        if item.dtype != np.uint8 or not grey_or_rgb or not item.size:
            shape = list(item.shape)
            raise InputError(f"an array of {item.dtype} {shape}: give uint8 [H, W, 3] or [H, W]")
        return _square(Image.fromarray(item), side)
    if item.is_fifo():  # of which nothing may ever come
        raise InputError(f"{item} is a pipe: it must be an image file")
    try:
        # Not by name: Pillow maps uncompressed TIFF files with a name, and turns those wrongly.
        with item.open("rb") as file, Image.open(file) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            # A JPEG can be decoded at half its size or less, in a fraction of the time. Twice the
            # side is left, so that the antialiasing is still done by the resizing below.
            image.draft(None, (2 * side, 2 * side))
            return _square(image, side)
    except Exception as error:  # damaged files raise about any type of error in Pillow
        raise InputError(f"{item} {_complaint(item, error)}") from error


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
    listing: Listing, side: int, cache: Path | None = None, skip_damaged: bool = False
) -> LabelledImages:
    """Decoded images of one split; from the second time on without decoding.

    The images are mapped from the cache file, not read: data may be larger than memory, and
    indexing by a tensor copies only the rows asked for.

    Args:
        listing: the images and their labels.
        side: of the square images in pixels.
        cache: folder of decoded images; by default ``$OMNITRAINING_CACHE``, or else
            ``~/.cache/omnitraining``.
        skip_damaged: leave out images that cannot be decoded, with a warning that names them.

    Returns:
        Images [M, 3, side, side] in the order of the listing.

    Raises:
        InputError: images cannot be decoded (all are counted, the first five named), a class is
            empty, or the cache cannot be written.
    """
    if side < 1:
        raise InputError(f"side is {side}: it must be 1 or more")
    path = cache_file(listing, side, cache)
    damaged = _recorded(path, len(listing.items), side)
    if damaged is None:
        with written_whole(path) as file:
            damaged = _write_decoded(listing, side, file)
            _refuse(listing, damaged, skip_damaged)
            with written_whole(_record(path)) as record:
                record.write(json.dumps({"damaged": damaged}).encode())
    else:
        _refuse(listing, damaged, skip_damaged)
    if damaged:
        count = f"{len(damaged)} of {len(listing.items)} images of {listing.name}"
        warnings.warn(f"left out {count}: {first_few(damaged.values())}", stacklevel=2)
    labels = [int(label) for i, label in enumerate(listing.labels) if i not in damaged]
    images = _mapped(path, (len(labels), 3, side, side))
    return LabelledImages(images, torch.tensor(labels), listing.classes, listing.name)


def cache_file(listing: Listing, side: int, cache: Path | None = None) -> Path:
    """The file that holds the decoded images: uint8 [M, 3, side, side] and nothing else.

    Its name is a hash of all that the pixels depend on. Of every file these are its name and
    folder (but not where that lies: data may be moved), size and time, and of a few files the
    content too, because some archives give the same time to all.
    """
    digest = hashlib.sha256(repr((DECODING, PIL.__version__, side)).encode())
    sampled = range(0, len(listing.items), max(1, len(listing.items) // _SAMPLES))
    for position, (item, label) in enumerate(zip(listing.items, listing.labels, strict=True)):
        digest.update(repr((int(label), _identity(item, position in sampled))).encode())
    name = re.sub(r"[^\w-]+", "_", listing.name)
    return cache_folder(cache) / f"{name}-{side}-{digest.hexdigest()[:16]}.uint8"


def _identity(item: Item, with_content: bool) -> tuple[object, ...]:
    if not isinstance(item, Path):
        content = hashlib.sha256(np.ascontiguousarray(item).data).digest()
        return str(item.dtype), item.shape, content
    name = item.absolute().parts[-2:]
    try:
        status = item.stat()
        content = hashlib.sha256(item.read_bytes()).digest() if with_content else b""
    except OSError:
        return name  # decoding says what is wrong with it
    return *name, status.st_size, status.st_mtime_ns, content


def _write_decoded(listing: Listing, side: int, file: IO[bytes]) -> dict[int, str]:
    """Write the pixels of all images that can be decoded; the complaints of others by position."""
    needed, free = len(listing.items) * 3 * side**2, shutil.disk_usage(Path(file.name).parent).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free")

    def attempt(position: int) -> NDArray[np.uint8] | str:
        item = listing.items[position]
        try:
            return decode(item, side)
        except InputError as error:
            return str(error) if isinstance(item, Path) else f"image {position} is {error}"

    damaged = {}
    positions = range(len(listing.items))
    for position, pixels in enumerate(in_threads(attempt, positions, f"decoding {listing.name}")):
        if isinstance(pixels, str):
            damaged[position] = pixels
        else:
            file.write(pixels.data)
    return damaged


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
        if sys.platform == "win32":
            pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        else:
            # Linux refuses private maps larger than its memory unless told to reserve none for
            # them, as torch.from_file and np.memmap do not. Python has the name from 3.13 on.
            reserve = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)
            access = mmap.PROT_READ | mmap.PROT_WRITE
            pages = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE | reserve, access)
    return torch.frombuffer(pages, dtype=torch.uint8).view(shape)


def in_threads(work: Callable[[T], R], jobs: Sequence[T], title: str) -> Iterator[R]:
    """Results in the order of the jobs, with progress on stderr.

    Few jobs are under way at a time, so that results do not pile up. Pillow's warnings are
    silenced: they are about metadata, and about sizes that :func:`decode` refuses by itself.
    """

    def results() -> Iterator[R]:
        under_way: deque[Future[R]] = deque()
        for job in jobs:
            under_way.append(pool.submit(work, job))
            if len(under_way) >= _UNDER_WAY:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()

    pool = ThreadPoolExecutor()
    try:
        with _pillow_silenced():
            yield from tracked(results(), len(jobs), title)
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _pillow_silenced() -> Iterator[None]:
    """Pillow's warnings are not shown while anyone is in here.

    Python's own `catch_warnings` puts back the filters that it found, also those of another thread
    that has left in between: Pillow would stay silent for the rest of the program, or worse.
    """
    global _silencers
    with _silencing:
        _silencers += 1
        if _silencers == 1:
            warnings.filterwarnings("ignore", module=_PILLOW)
    try:
        yield
    finally:
        with _silencing:
            _silencers -= 1
            own = [entry for entry in warnings.filters if _is_own(entry)]
            for entry in own if _silencers == 0 else ():
                warnings.filters.remove(entry)  # type: ignore[attr-defined]


def _is_own(entry: tuple[Any, ...]) -> bool:
    return bool(getattr(entry[3], "pattern", entry[3]) == _PILLOW)


def first_few(texts: Collection[str], most: int = 5) -> str:
    """The first texts, and how many more there are."""
    rest = [f"and {len(texts) - most} more"] if len(texts) > most else []
    return "; ".join([*islice(texts, most), *rest])

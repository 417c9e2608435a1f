"""Decoded images, kept in a cache file and mapped from there."""

import errno
import hashlib
import json
import mmap
import re
import shutil
import sys
import time
import warnings
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from torch import Tensor

from omnitraining.datasets.caching import cache_folder, cache_lock
from omnitraining.datasets.decoding import DECODING, STRETCHED, Resize, decode
from omnitraining.datasets.images import LabeledImages
from omnitraining.datasets.listing import Item, Listing
from omnitraining.errors import InputError
from omnitraining.io.files import open_atomic
from omnitraining.io.terminal import first_few
from omnitraining.io.threads import map_in_threads

_MAP_NORESERVE = 0x4000  # of Linux; Python has the name from version 3.13 on
_SETTLED = 2.0  # seconds: a younger file may change again within one tick of the clock


def load_images(
    listing: Listing,
    side: int,
    cache: Path | None = None,
    skip_damaged: bool = False,
    anew: bool = False,
    resize: Resize = STRETCHED,
) -> LabeledImages:
    """Decoded images of one split, from the cache if they are there.

    The images are mapped from the cache file, not read: data may be larger than memory, and
    indexing by a tensor copies only the chosen images.

    Args:
        listing: the images and their labels.
        side: side of the square images in pixels.
        cache: folder of decoded images; by default ``$OMNITRAINING_CACHE``, or else
            ``~/.cache/omnitraining``.
        skip_damaged: leave out images that cannot be decoded, with a warning that names them.
        anew: read and decode all files again, even if they are in the cache.
        resize: how an image becomes a square.

    Returns:
        Images [M, 3, side, side] in the order of the listing.

    Raises:
        InputError: images cannot be decoded (all are counted, the first five named), a class is
            empty, or the cache cannot be written.

    Warns:
        UserWarning: damaged images were left out.
    """
    if side < 1:
        raise InputError(f"side is {side}: it must be 1 or more")
    contents = _contents(listing, cache, anew)
    path = _place(listing, side, cache, contents, resize)
    count = len(listing.items)
    damaged = None if anew else _recorded(path, count, side)
    if damaged is None:
        with cache_lock(path):
            damaged = None if anew else _recorded(path, count, side)
            if damaged is None:
                damaged = _decoded(listing, side, path, skip_damaged, resize)
            images = _mapped(path, (count - len(damaged), 3, side, side))
        _refuse(listing, damaged, skip_damaged)
    else:
        _refuse(listing, damaged, skip_damaged)
        images = _mapped(path, (count - len(damaged), 3, side, side))
    if damaged:
        number = f"{len(damaged)} of {count} images of {listing.name}"
        warnings.warn(f"left out {number}: {first_few(damaged.values())}", stacklevel=2)
    labels = [int(label) for i, label in enumerate(listing.labels) if i not in damaged]
    return LabeledImages(
        images, torch.tensor(labels), listing.classes, listing.name, contents.classes
    )


def cache_file(
    listing: Listing, side: int, cache: Path | None = None, resize: Resize = STRETCHED
) -> Path:
    """The file that holds the decoded images: uint8 [M, 3, side, side] and nothing else.

    Its name is a hash of all that the pixels depend on: the content, name and folder of every file,
    but not the path of that folder (data may be moved).

    Args:
        listing: the images and their labels.
        side: side of the square images in pixels.
        cache: folder of decoded images, as of `load_images`.
        resize: as of `load_images`.
    """
    return _place(listing, side, cache, _contents(listing, cache), resize)


def _place(
    listing: Listing, side: int, cache: Path | None, contents: "_Contents", resize: Resize
) -> Path:
    facts = DECODING, PIL.__version__, side, contents.whole, *resize.key
    digest = hashlib.sha256(repr(facts).encode())
    return cache_folder(cache) / f"{_file_name(listing)}-{side}-{digest.hexdigest()[:16]}.uint8"


def _file_name(listing: Listing) -> str:
    return re.sub(r"[^\w-]+", "_", listing.name)


@dataclass(frozen=True)
class _Contents:
    """Hashes of the files and arrays of a listing.

    Attributes:
        seen: hash of the files' sizes and times, to detect changes without reading them.
        whole: hash of names, labels and contents.
        classes: hashes of the names and contents of each class.
    """

    seen: str
    whole: str
    classes: tuple[str, ...]


def _contents(listing: Listing, cache: Path | None, anew: bool = False) -> _Contents:
    """Hashes of the contents; files are read only if they changed since the last time.

    Both the time that programs can set (mtime) and the time that they cannot (ctime) are compared:
    files that were replaced by others of the same size and mtime are read again.
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
    contents = _Contents(
        seen, whole.hexdigest(), tuple(digest.hexdigest()[:16] for digest in classes)
    )
    youngest = max((state[-1] for state in states if state), default=0)
    if places and all(digests) and youngest < time.time_ns() - _SETTLED * 1e9:
        # A read-only cache is no error: files are read again the next time.
        with suppress(InputError), open_atomic(path) as file:
            file.write(json.dumps(asdict(contents)).encode())
    return contents


def _known_contents(path: Path, count: int) -> _Contents | None:
    """Stored hashes; None if they are missing or damaged."""
    try:
        stored = json.loads(path.read_bytes())
        classes = tuple(map(str, stored["classes"]))
        contents = _Contents(str(stored["seen"]), str(stored["whole"]), classes)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return contents if len(classes) == count else None


def _state(item: Item) -> tuple[int, ...]:
    """Size and times of a file; empty for arrays and missing files."""
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
        if not item.is_file():  # reading a pipe might never end
            return ""
        with item.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError:
        return ""  # decoding will report it
    return digest.hexdigest()


def _decoded(
    listing: Listing, side: int, path: Path, skip_damaged: bool, resize: Resize
) -> dict[int, str]:
    """Decode all images into a file of the cache.

    Temporary errors, as of a disk or for lack of memory, are not cached: the record that makes the
    file valid is written only if all errors are of the contents of images.

    Returns:
        The error messages of the images that are left out, by position.
    """
    with open_atomic(path) as file:
        damaged, temporary = _write_decoded(listing, side, file, resize)
        _refuse(listing, damaged, skip_damaged)
        _record(path).unlink(missing_ok=True)
    if not temporary:
        with open_atomic(_record(path)) as record:
            record.write(json.dumps({"damaged": damaged}).encode())
    return damaged


def _write_decoded(
    listing: Listing, side: int, file: IO[bytes], resize: Resize
) -> tuple[dict[int, str], bool]:
    """Write the pixels of all images that can be decoded.

    Returns:
        The error messages of the others by position, and whether an error may be temporary.
    """
    needed, free = len(listing.items) * 3 * side**2, shutil.disk_usage(Path(file.name).parent).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free")
    temporary = False

    def attempt(position: int) -> NDArray[np.uint8] | str:
        nonlocal temporary
        item = listing.items[position]
        try:
            return decode(item, side, resize)
        except InputError as error:
            temporary = temporary or _is_temporary(error.__cause__)
            return str(error) if isinstance(item, Path) else f"image {position} is {error}"

    damaged = {}
    decoded = map_in_threads(attempt, range(len(listing.items)), f"decoding {listing.name}")
    for position, pixels in enumerate(decoded):
        if isinstance(pixels, str):
            damaged[position] = pixels
        else:
            file.write(pixels.data)
    return damaged, temporary


def _is_temporary(error: BaseException | None) -> bool:
    """Whether an error is of the machine, not of the content of a file.

    Pillow's own errors are of the same types, but have no errno. A missing file is no temporary
    error: when it appears, its state changes, and the files are read again.
    """
    if isinstance(error, OSError):
        return error.errno not in (None, errno.ENOENT, errno.EISDIR, errno.ENOTDIR)
    return isinstance(error, MemoryError)


def _refuse(listing: Listing, damaged: dict[int, str], skip_damaged: bool) -> None:
    """Raise an error if damaged images may not be skipped, or a class has no image left."""
    if damaged and not skip_damaged:
        raise InputError(
            f"{len(damaged)} of {len(listing.items)} images of {listing.name} cannot be used: "
            f"{first_few(damaged.values())}; repair them, or leave them out (skip_damaged)"
        )
    present = {label for i, label in enumerate(listing.labels) if i not in damaged}
    empty = [name for label, name in enumerate(listing.classes) if label not in present]
    if empty:
        left = "left that can be decoded" if damaged else "in it"
        raise InputError(f"{listing.name} has classes with no image {left}: {first_few(empty)}")
    if not present:
        raise InputError(f"{listing.name} has no images")


def _record(path: Path) -> Path:
    """The file beside a cache file with the images that are not in it, and why."""
    return path.with_suffix(".json")


def _recorded(path: Path, count: int, side: int) -> dict[int, str] | None:
    """Error messages by position, as recorded with a cache file; None if it is not valid."""
    try:
        stored = json.loads(_record(path).read_bytes())["damaged"]
        damaged = {int(position): str(message) for position, message in stored.items()}
        whole = path.stat().st_size == (count - len(damaged)) * 3 * side**2
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return damaged if whole else None


def _mapped(path: Path, shape: tuple[int, ...]) -> Tensor:
    """A tensor mapped from a file; writing to it changes a private copy, not the file."""
    with path.open("rb") as file:
        if sys.platform == "linux":
            # Without MAP_NORESERVE, Linux refuses private maps that are larger than its memory.
            pages = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE | _MAP_NORESERVE)
        else:
            pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    return torch.frombuffer(pages, dtype=torch.uint8).view(shape)

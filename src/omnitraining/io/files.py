"""Files that a reader sees whole or not at all, and locks that let one process write at a time."""

import os
import secrets
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from omnitraining.errors import InputError

try:
    import fcntl
except ImportError:  # of Windows, where nothing is locked
    fcntl = None  # type: ignore[assignment]

_PLAIN = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""No link is followed and no pipe waited for, which a folder of someone else may hold."""


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A new file to write to, which becomes the file in the end; if that fails, the old one stays.

    Its name is unique, also among machines and containers that share the folder. It is on the disk
    before it is renamed, so that a power cut leaves the old file or the new one.

    Args:
        path: of the file; its folder must be there.
    """
    part = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
    # Not by `tempfile`, whose files only their owner may read.
    descriptor = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    os.close(descriptor)
    try:
        yield part
        os.chmod(part, mode)  # safetensors makes files that only their owner may read
        sync(part)
        os.replace(part, path)
        with suppress(OSError):  # not every file system can; the file itself is there
            sync(path.parent)
    finally:
        with suppress(OSError):  # so that what is not finished does not fill the disk
            part.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file or a folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, text: str) -> None:
    """Write a text, in UTF-8, so that a reader sees the old file or the new one."""
    with replaced(path) as part:
        part.write_text(text, "utf-8")


def remove_parts(path: Path) -> None:
    """Remove what writers of a file left that were killed; call it where no other one writes."""
    for part in path.parent.iterdir():
        if part.name.startswith(f"{path.name}.") and part.name.endswith(".part"):
            part.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, busy: str = "") -> Iterator[None]:
    """Hold a lock, which is a file that is there for as long.

    It is a lock of the kernel (flock): it ends with the process that holds it, however that ends,
    and holds among threads, and among containers and machines that share the folder.

    Args:
        path: of the lock file; its folder must be there.
        busy: what the error says where someone else holds the lock; if empty, this waits for them.

    Raises:
        InputError: someone else holds the lock, and ``busy`` is given.
    """
    descriptor = _acquired(path, busy)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _acquired(path: Path, busy: str) -> int:
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _PLAIN, 0o666)
        except PermissionError:  # the lock of another user
            descriptor = os.open(path, os.O_RDONLY | _PLAIN)
        try:
            _flock(descriptor, path, wait=not busy)
            if _is_file(descriptor, path):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise InputError(busy) from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # whoever held it has removed it, and perhaps someone made a new one


def _flock(descriptor: int, path: Path, wait: bool) -> None:
    try:
        if fcntl is None:
            raise OSError("this system has no file locks")
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError as error:
        words = error.strerror or error
        warnings.warn(
            f"{path} cannot be locked ({words}): let only one program at a time write to "
            f"{path.parent}",
            stacklevel=5,
        )


def _is_file(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one that has the name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False

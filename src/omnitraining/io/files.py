"""Atomic writes of files, and locks that let one process write at a time."""

import json
import os
import secrets
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from omnitraining.errors import InputError

try:
    import fcntl
except ImportError:  # on Windows, where nothing is locked
    fcntl = None  # type: ignore[assignment]

_PLAIN = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""Follow no links and wait for no pipes, which a shared folder may hold."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary file that replaces ``path`` at the end; after an error the old file stays.

    Its name is unique, also among machines and containers that share the folder. It is flushed to
    the disk before it is renamed, so that a power cut leaves the old file or the new one.

    Args:
        path: the file to write; its folder must exist.

    Yields:
        Path of the temporary file, which is empty.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.txt"
        >>> with atomic_path(path) as part:
        ...     _ = part.write_text("new")
        >>> path.read_text()
        'new'
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
        with suppress(OSError):  # some file systems cannot; the file itself is written
            sync(path.parent)
    finally:
        with suppress(OSError):  # an unfinished file must not stay on the disk
            part.unlink(missing_ok=True)


@contextmanager
def open_atomic(path: Path) -> Iterator[IO[bytes]]:
    """The same as `atomic_path`, opened to write bytes; the folder is made if it is missing.

    Raises:
        InputError: the file cannot be written, as on a full disk.
    """
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as part, part.open("wb") as file:
            yield file


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into an InputError that names the file.

    Raises:
        InputError: the block raises OSError.
    """
    try:
        yield
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"cannot write {path}: {path.parent} is not a folder") from error
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


def sync(path: Path) -> None:
    """Wait until a file or a folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, text: str) -> None:
    """Write a text, in UTF-8, so that a reader finds the whole old file or the whole new one."""
    with atomic_path(path) as part:
        part.write_text(text, "utf-8")


def write_json(path: Path, values: Any) -> None:
    """Write values as JSON, so that a reader finds the whole old file or the whole new one."""
    write_atomic(path, json.dumps(values, indent=1) + "\n")


def remove_parts(path: Path) -> None:
    """Remove temporary files left by killed writers of a file; no other writer may be active."""
    for part in path.parent.iterdir():
        if part.name.startswith(f"{path.name}.") and part.name.endswith(".part"):
            part.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, busy: str = "") -> Iterator[None]:
    """Hold a lock, by a lock file that exists as long as the block runs.

    It is a lock of the kernel (flock): it ends with the process that holds it, and excludes other
    threads, and other containers and machines that share the folder.

    Args:
        path: the lock file; its folder must exist.
        busy: message of the error if the lock is taken; if empty, wait until it is free.

    Raises:
        InputError: the lock is taken, and ``busy`` is given.
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
        os.close(descriptor)  # its holder has removed it, and perhaps another one exists now


def _flock(descriptor: int, path: Path, wait: bool) -> None:
    try:
        if fcntl is None:
            raise OSError("this system has no file locks")
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError as error:
        reason = error.strerror or error
        warnings.warn(
            f"{path} cannot be locked ({reason}): let only one program at a time write to "
            f"{path.parent}",
            stacklevel=5,
        )


def _is_file(descriptor: int, path: Path) -> bool:
    """Whether the path still leads to this open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False

"""The temporary folder of a server; folders that killed servers left are deleted."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where a folder cannot be locked: no folders are deleted there
    fcntl = None  # type: ignore[assignment]

PREFIX = "omni-demo-"


@contextmanager
def locked_folder() -> Iterator[Path]:
    """A folder that this process locks; it is deleted at the end.

    The system releases the lock when the process ends, in any way.
    """
    delete_unlocked()
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        lock = _locked(folder)
        if folder.is_dir() and (lock is not None or fcntl is None):
            break
        _unlock(lock)  # another server deleted it before it was locked
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _unlock(lock)


def delete_unlocked() -> None:
    """Delete the folders of this user that no process has locked."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # it is gone, or another user's
            if fcntl is None or folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            lock = _locked(folder)
            if lock is not None:
                shutil.rmtree(folder, ignore_errors=True)
                _unlock(lock)


def _locked(folder: Path) -> int | None:
    """A lock on a folder; None if another process has it."""
    if fcntl is None:
        return None
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def _unlock(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)

"""The temporary folder of a server, and those that servers left which were killed."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where a folder cannot be locked: nothing is swept there
    fcntl = None  # type: ignore[assignment]

PREFIX = "omni-demo-"


@contextmanager
def own_folder() -> Iterator[Path]:
    """A folder that this process holds while it runs; it is deleted in the end.

    The system takes the lock off a folder whose process is gone, however that ended.
    """
    sweep()
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        lock = _locked(folder)
        if folder.is_dir() and (lock is not None or fcntl is None):
            break
        _unlock(lock)  # another server that starts took it for one that was left
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _unlock(lock)


def sweep() -> None:
    """Delete the folders of this user that no process holds."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # it is gone, or another user's
            if fcntl is None or folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            lock = _locked(folder)
            if lock is not None:
                shutil.rmtree(folder, ignore_errors=True)
                _unlock(lock)


def _locked(folder: Path) -> int | None:
    """A lock on a folder, or nothing if another process has it."""
    if fcntl is None:
        return None
    try:
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(opened)
        return None
    return opened


def _unlock(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)

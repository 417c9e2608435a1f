"""The cache of rendered and decoded images."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omnitraining.io.files import locked, remove_parts, write_errors


def cache_folder(folder: Path | None = None) -> Path:
    """The folder, or ``$OMNITRAINING_CACHE``, or else ``~/.cache/omnitraining``."""
    folder = folder or Path(os.environ.get("OMNITRAINING_CACHE", "~/.cache/omnitraining"))
    return folder.expanduser()


@contextmanager
def cache_lock(path: Path) -> Iterator[None]:
    """Hold the lock of a cache file; after waiting for it, the file may exist.

    Raises:
        InputError: its folder cannot be written to.
    """
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_name(f"{path.name}.lock")):
            remove_parts(path)
            yield

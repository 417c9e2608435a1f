"""Where images are kept once they have been rendered or decoded, and how such files are written."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from omnitraining.errors import InputError
from omnitraining.io import files


def cache_folder(folder: Path | None = None) -> Path:
    """The folder, or ``$OMNITRAINING_CACHE``, or else ``~/.cache/omnitraining``."""
    folder = folder or Path(os.environ.get("OMNITRAINING_CACHE", "~/.cache/omnitraining"))
    return folder.expanduser()


@contextmanager
def written_whole(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to, of which a reader sees the whole or nothing.

    Raises:
        InputError: it cannot be written, as on a full disk.
    """
    with named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replaced(path) as part, part.open("wb") as file:
            yield file


@contextmanager
def written_once(path: Path) -> Iterator[None]:
    """Wait until no one else writes a file of the cache; then it may be there.

    Raises:
        InputError: its folder cannot be written to.
    """
    with named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.locked(path.with_name(f"{path.name}.lock")):
            files.remove_parts(path)
            yield


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Says which file could not be written.

    Raises:
        InputError: one could not.
    """
    try:
        yield
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"cannot write {path}: {path.parent} is not a folder") from error
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error

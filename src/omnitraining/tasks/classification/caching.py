"""Where images are kept once they have been rendered or decoded, and how such files are written."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from omnitraining.errors import InputError


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
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                yield file
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"cannot write {path}: {path.parent} is not a folder") from error
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error

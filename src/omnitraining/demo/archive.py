"""Uploaded zip archives: their files, unpacked within limits.

No name in an archive becomes a path on this machine: files are numbered. Unpacked bytes are counted
as they are written, whatever sizes the archive states.
"""

import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from omnitraining.datasets.files import is_image_name
from omnitraining.demo.class_folders import FILES
from omnitraining.demo.pictures import MEGABYTES, File, sentences
from omnitraining.errors import InputError

UNPACKED = 500  # megabytes of all files together
DIRECTORY = 4 * 2**20  # bytes of the list of names
CHUNK = 2**20

_END = struct.Struct("<4s4H2LH")  # of the central directory, as in section 4.3.16 of APPNOTE.TXT
_END_MARK, _END_64_MARK = b"PK\5\6", b"PK\6\7"
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Others may need gigabytes of memory for one file."""


@contextmanager
def unpacked(path: Path, name: str, folder: Path) -> Iterator[tuple[list[File], list[str]]]:
    """The files of an archive, and what is wrong with others, until the block ends.

    Images are unpacked; other files keep their names alone, with the path of the archive.

    Args:
        path: of the archive.
        name: of the archive on the visitor's machine, for messages.
        folder: for temporary files.

    Raises:
        InputError: it is no zip archive, too large, encrypted, or damaged.
    """
    try:
        _check_directory(path, name)
        archive = zipfile.ZipFile(path)
    except InputError:
        raise
    except Exception as error:  # damaged archives raise about any type of error
        raise InputError(f"{name} is no zip archive, or a damaged one.") from error
    with archive, TemporaryDirectory(dir=folder, prefix="zip-") as made:
        files, problems = _files(archive, name, path, Path(made))
        if problems and all(file.path == path for file in files):
            raise InputError(sentences(problems))
        yield files, problems


def _check_directory(path: Path, name: str) -> None:
    """Refuse a long list of names before it is read, which would need much memory.

    Raises:
        InputError: it is long, or written for archives above 4 GB.
        BadZipFile: the archive has no end.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _END.size - 2**16 - 20))
        tail = file.read()
    start = tail.rfind(_END_MARK)
    if start < 0 or start + _END.size > len(tail):
        raise zipfile.BadZipFile
    _, _, _, _, count, length, _, _ = _END.unpack_from(tail, start)
    if tail[max(0, start - 20) :].startswith(_END_64_MARK) or length > DIRECTORY or count > FILES:
        raise InputError(_too_many(name))


def _too_many(name: str) -> str:
    return f"{name} has more than {FILES:,} files, or more than 4 gigabytes: give a smaller one."


def _files(
    archive: zipfile.ZipFile, name: str, path: Path, folder: Path
) -> tuple[list[File], list[str]]:
    files: list[File] = []
    problems: list[str] = []
    left = UNPACKED * 2**20
    members = archive.infolist()
    if len(members) > FILES:
        raise InputError(_too_many(name))
    for number, member in enumerate(members):
        file_name = member.filename.replace("\\", "/")
        if member.is_dir():
            continue
        if not is_image_name(file_name):
            files.append(File(file_name, path))
        elif (problem := _problem(member)) is not None:
            problems.append(f"{file_name} {problem}.")
        else:
            target = folder / str(number)
            try:
                left -= _write(archive, member, target, left)
            except _TooLargeError as error:
                raise InputError(
                    f"{name} has more than {UNPACKED} megabytes of images when it is unpacked: "
                    "give a smaller one."
                ) from error
            except Exception as error:  # damaged archives raise about any type of error
                problems.append(f"{file_name} cannot be unpacked: {error}.")
                continue
            files.append(File(file_name, target))
    return files, problems


class _TooLargeError(Exception):
    """More bytes than are left."""


def _problem(member: zipfile.ZipInfo) -> str | None:
    """Why a file is not unpacked."""
    if member.flag_bits & 1:
        return "is encrypted"
    if member.compress_type not in _METHODS:
        return "is compressed by another method than deflate"
    if member.file_size > MEGABYTES * 2**20:
        return f"has more than {MEGABYTES} megabytes: give a smaller file"
    return None


def _write(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, most: int) -> int:
    """Unpack one file; returns its bytes."""
    written = 0
    with archive.open(member) as packed, target.open("wb") as file:
        while chunk := packed.read(CHUNK):
            written += len(chunk)
            if written > most:
                raise _TooLargeError
            file.write(chunk)
    return written

"""Uploaded zip archives: what is unpacked, and what bombs and strange names lead to."""

import io
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image

from omnitraining.demo import archive
from omnitraining.demo.archive import unpacked
from omnitraining.demo.class_folders import class_files
from omnitraining.errors import InputError


def picture(color: str = "red") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (9, 9), color).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """For temporary files."""
    made = tmp_path / "temporary"
    made.mkdir()
    return made


def zipped(path: Path, members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in members.items():
            file.writestr(zipfile.ZipInfo(name), data, method)
    return path


def test_images_are_unpacked_and_deleted(tmp_path: Path, folder: Path) -> None:
    members = {"mine/cat/1.png": picture("red"), "mine/dog\\2.png": picture("blue")}
    path = zipped(tmp_path / "a.zip", {**members, "mine/notes.txt": b"x", "mine/empty/": b""})
    with unpacked(path, "a.zip", folder) as (files, problems):
        assert not problems
        found = class_files(files, "a.zip")
        assert [*found.classes] == ["cat", "dog"]
        data = [found.classes[name][0].path.read_bytes() for name in ("cat", "dog")]
        assert data == [*members.values()]
        assert found.left_out == [
            "Left out of a.zip: 1 file that is no image by its name (notes.txt)."
        ]
    assert not [*folder.iterdir()]


def test_names_in_an_archive_are_no_paths_of_this_machine(tmp_path: Path, folder: Path) -> None:
    names = ["../../cat/1.png", "/etc/cat/2.png", "C:\\cat\\..\\..\\3.png", "a/./dog/4.png"]
    path = zipped(tmp_path / "a.zip", {**dict.fromkeys(names, picture()), "a/cat/5.png": b"5"})
    before = {*tmp_path.rglob("*")}
    with unpacked(path, "a.zip", folder) as (files, _):
        (made,) = folder.iterdir()
        assert {*tmp_path.rglob("*")} - before == {made, *made.iterdir()}
        assert all(file.path.parent == made for file in files)
        assert all(file.path.name.isdigit() for file in files)
        found = class_files(files, "a.zip")
    assert [*found.classes] == ["cat", "dog"]
    assert found.left_out[-1].startswith("Names that lead out of a.zip were left out (../../cat/1")


def test_a_bomb_is_refused_while_it_is_unpacked(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    megabyte = bytes(2**20)
    path = zipped(tmp_path / "bomb.zip", {f"a/b/{n}.png": megabyte for n in range(9)})
    assert path.stat().st_size < 20_000
    monkeypatch.setattr(archive, "UNPACKED", 3)
    with (
        pytest.raises(InputError, match=r"^bomb\.zip has more than 3 megabytes of images when"),
        unpacked(path, "bomb.zip", folder),
    ):
        raise AssertionError
    assert not [*folder.iterdir()]


def test_a_size_that_is_a_lie_does_not_help(tmp_path: Path, folder: Path) -> None:
    """The size in both heads is one byte; what follows it is never written."""
    path = zipped(tmp_path / "a.zip", {"a/b/1.png": bytes(2**20), "a/b/2.png": picture()})
    size = struct.pack("<L", 2**20)
    assert path.read_bytes().count(size) == 2
    path.write_bytes(path.read_bytes().replace(size, struct.pack("<L", 1)))
    with unpacked(path, "a.zip", folder) as (files, problems):
        assert [file.name for file in files] == ["a/b/2.png"]
        assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 1000
    assert len(problems) == 1 and problems[0].startswith("a/b/1.png cannot be unpacked: Bad CRC")


def test_large_encrypted_and_oddly_compressed_files_are_named(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/b/large.png", bytes(2**20 + 1))
        file.writestr("a/b/odd.png", picture(), zipfile.ZIP_LZMA)
        file.writestr("a/b/secret.png", picture())
        file.writestr("a/b/good.png", picture())
    data = path.read_bytes()
    for mark, place in ((b"PK\1\2", 8), (b"PK\3\4", 6)):  # of the flags, in both heads
        start = data.index(b"a/b/secret.png") if mark == b"PK\3\4" else data.rindex(b"a/b/secret")
        head = data.rindex(mark, 0, start)
        data = data[: head + place] + b"\1" + data[head + place + 1 :]
    path.write_bytes(data)
    monkeypatch.setattr(archive, "MEGABYTES", 1)
    with unpacked(path, "a.zip", folder) as (files, problems):
        assert [file.name for file in files] == ["a/b/good.png"]
    assert problems == [
        "a/b/large.png has more than 1 megabytes: give a smaller file.",
        "a/b/odd.png is compressed by another method than deflate.",
        "a/b/secret.png is encrypted.",
    ]


def test_an_archive_of_encrypted_images_is_reported(tmp_path: Path, folder: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"a/b/1.png": picture(), "a/notes.txt": b""}, 0)
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"^a/b/1\.png is encrypted\."):  # noqa: SIM117
        with unpacked(path, "a.zip", folder):
            raise AssertionError


def test_long_lists_of_names_are_refused_before_they_are_read(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = zipped(tmp_path / "a.zip", {f"a/b/{number}.png": b"" for number in range(2001)})

    def refused() -> None:
        with (
            pytest.raises(InputError, match=r"^a\.zip has more than 2,000 files, or more than 4"),
            unpacked(path, "a.zip", folder),
        ):
            raise AssertionError

    refused()  # once by the count in the archive's end, once where that is wrong
    data = path.read_bytes()
    path.write_bytes(data[:-12] + struct.pack("<H", 5) + data[-10:])
    assert len(zipfile.ZipFile(path).infolist()) == 2001
    refused()
    monkeypatch.setattr(archive, "FILES", 3000)
    monkeypatch.setattr(archive, "DIRECTORY", 100_000)
    with pytest.raises(InputError), unpacked(path, "a.zip", folder):
        raise AssertionError
    zip64 = data[:-22] + b"PK\6\7" + bytes(16) + data[-22:]
    path.write_bytes(zip64)
    with pytest.raises(InputError), unpacked(path, "a.zip", folder):
        raise AssertionError


@pytest.mark.parametrize("content", [b"", b"PK", b"no archive", b"PK\5\6" + bytes(10)])
def test_what_is_no_archive_is_refused(tmp_path: Path, folder: Path, content: bytes) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(content)
    with (
        pytest.raises(InputError, match=r"^a\.zip is no zip archive, or a damaged one\."),
        unpacked(path, "a.zip", folder),
    ):
        raise AssertionError


def test_truncated_and_changed_archives_end_in_a_sentence(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "a.zip"
    data = zipped(path, {f"a/b/{number}.png": picture() for number in range(3)}).read_bytes()
    changed = [data[:end] for end in range(0, len(data), 7)]
    changed += [data[:at] + b"\xff\xff" + data[at + 2 :] for at in range(0, len(data) - 2, 3)]
    read = 0
    for content in changed:
        path.write_bytes(content)
        try:
            with unpacked(path, "a.zip", folder) as (files, _):
                read += len(files)
        except InputError as error:
            assert "\n" not in str(error)
    assert read and not [*folder.iterdir()]

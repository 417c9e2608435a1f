"""What commands show in a real terminal: wide, narrow, with and without color."""

import fcntl
import os
import pty
import struct
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from omnitraining import cli
from tests.reference.tiny import SINUSOIDS


class Terminal:
    """What was written to a pseudo-terminal."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []

    @property
    def text(self) -> str:
        return b"".join(self.chunks).decode().replace("\r\n", "\n")


@contextmanager
def terminal(columns: int = 80) -> Iterator[Terminal]:
    """The standard streams of this process are a pseudo-terminal of so many columns."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    found, streams = Terminal(), (sys.stdout, sys.stderr)
    for stream in streams:
        stream.flush()
    kept = [os.dup(number) for number in range(3)]

    def read() -> None:
        while True:
            try:
                found.chunks.append(os.read(leader, 65536))
            except OSError:  # no process has the other end any more
                return

    for number in range(3):
        os.dup2(follower, number)
    os.close(follower)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield found
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = streams
        for number, old in enumerate(kept):
            os.dup2(old, number)
            os.close(old)
        reader.join()
        os.close(leader)


KINDS = {
    "color": {"TERM": "xterm-256color"},
    "no color": {"TERM": "xterm-256color", "NO_COLOR": "1"},
    "dumb": {"TERM": "dumb"},
}


@pytest.fixture(params=[(k, c) for k in KINDS for c in (30, 140)], ids=lambda p: f"{p[0]}, {p[1]}")
def columns(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Width of a terminal, whose kind the environment says."""
    kind, columns = request.param
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in KINDS[kind].items():
        monkeypatch.setenv(name, value)
    return int(columns)


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "waves.yaml"
    path.write_text(yaml.safe_dump(SINUSOIDS), encoding="utf-8")
    return path


def test_train_shows_progress_and_results(columns: int, waves: Path, tmp_path: Path) -> None:
    with terminal(columns) as shown:
        code = cli.main(["train", str(waves), "--out", str(tmp_path / "run")])
    assert code == 0, shown.text
    assert "run: " in shown.text and "Traceback" not in shown.text
    assert ("\x1b[?25l" in shown.text) == (os.environ["TERM"] != "dumb"), "a bar hides the cursor"

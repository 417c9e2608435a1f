"""What commands show: in real terminals, in any encoding, and to pipes that end early."""

import ast
import csv
import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from PIL import Image
from rich.table import Table

from omnitraining import cli
from omnitraining.experiments import cluster, jobs
from omnitraining.experiments.display import show
from omnitraining.io import terminal
from tests.reference.tiny import SINUSOIDS


class Shown:
    """What was written to a pseudo-terminal."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []

    @property
    def text(self) -> str:
        return b"".join(self.chunks).decode().replace("\r\n", "\n")


@contextmanager
def pseudo_terminal(columns: int = 80) -> Iterator[Shown]:
    """The standard streams of this process are a pseudo-terminal of so many columns."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    found, streams = Shown(), (sys.stdout, sys.stderr)
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
    """Width of a terminal, whose kind is in the environment."""
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
    with pseudo_terminal(columns) as shown:
        code = cli.main(["train", str(waves), "--out", str(tmp_path / "run")])
    assert code == 0, shown.text
    assert "run: " in shown.text and "Traceback" not in shown.text
    assert ("\x1b[?25l" in shown.text) == (os.environ["TERM"] != "dumb"), "a bar hides the cursor"


@pytest.fixture(scope="module")
def run(waves: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert cli.main(["train", str(waves), "--out", str(folder)]) == 0
    return folder


def in_this_process(*_: object) -> jobs.Launch:
    return lambda several, work: ((job, jobs.attempted(work, job)) for job in several)


@pytest.mark.parametrize("columns", [("color", 30), ("dumb", 140)], indirect=True)
def test_every_command_can_be_read_in_a_terminal(
    columns: int,
    run: Path,
    waves: Path,
    photos: Path,
    learner: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster, "launcher", in_this_process)
    monkeypatch.setenv("OMNITRAINING_CACHE", str(tmp_path / "cache"))
    for command in (
        ["list"],
        ["train", str(waves), "--fields"],
        ["evaluate", str(run), "--tasks", "2"],
        ["compare", str(run), str(run)],
        [
            "sweep",
            str(waves),
            "--loss.distill_weight",
            "0,1",
            "--out",
            str(tmp_path / "sweep"),
        ],
        [
            "tune",
            str(waves),
            "--loss.distill_weight",
            "0,1",
            "--trials",
            "2",
            "--out",
            str(tmp_path / "t"),
        ],
        ["report", str(tmp_path / "sweep"), "--out", str(tmp_path / "book")],
        ["data", "check", str(photos)],
        ["predict", str(learner), str(photos / ODD[2])],
        ["predict", str(learner), str(photos / ODD[2]), "--csv"],
        ["evaluate", str(tmp_path / "none")],
    ):
        with pseudo_terminal(columns) as shown:
            code = cli.main(command)
        assert code == (2 if command[-1].endswith("none") else 0), shown.text
        assert "Traceback" not in shown.text and "PWNED\x07" not in shown.text
        if os.environ["TERM"] == "dumb":
            assert "\x1b" not in shown.text


def test_an_experiment_can_be_followed_in_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    command = ["reproduce", "figure5", "--smoke", "--only", "maml", "--out", str(tmp_path / "out")]
    with pseudo_terminal(40) as shown:
        assert cli.main(command) == 0, shown.text
    assert "maml-0" in shown.text and "record: " in shown.text


def test_the_demo_prints_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def serve(trained: object, port: int | None, ready: Callable[[str], None]) -> None:
        ready("http://127.0.0.1:7860")

    monkeypatch.setitem(sys.modules, "omnitraining.demo.server", SimpleNamespace(serve=serve))
    before = signal.getsignal(signal.SIGTERM)
    with pseudo_terminal(40) as shown:
        assert cli.main(["demo"]) == 0
    signal.signal(signal.SIGTERM, before)
    assert shown.text == "demo: http://127.0.0.1:7860\n"


# --- progress ---


def test_training_prints_at_once_what_it_will_do(
    waves: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And how far it is, also where no bar can move."""
    monkeypatch.setattr(terminal.Pace, "FIRST", 0.0)
    monkeypatch.setattr(terminal.Pace, "MOST", 0.0)
    assert cli.main(["train", str(waves), "--out", str(tmp_path / "run")]) == 0
    first, *steps = capsys.readouterr().err.splitlines()
    assert first.startswith("run: 4 steps on cpu, validation every 2, flows pre, joint, meta with ")
    assert "Sinusoids" in first
    assert re.fullmatch(r"run: step 1 of 4, \S+ per second, \d+ s left", steps[0])
    assert re.fullmatch(r"run: step 2, validation .*", steps[2])


def test_the_pace_is_printed_ever_more_rarely(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now)
    for item in terminal.tracked(range(2000), 2000, "work"):
        now = float(item)
    lines = capsys.readouterr().err.splitlines()
    assert [int(line.split()[1]) for line in lines] == [11, 31, 71, 151, 311, 611, 911, 1211, 1511,
                                                        1811]  # fmt: skip
    assert lines[0] == "work: 11 of 2000, 1.1 per second, 30 min left"
    assert [terminal.duration(s) for s in (59, 600, 7200)] == ["59 s", "10 min", "2.0 h"]


# --- names and encodings ---

TITLE = "\x1b]0;PWNED\x07"
ODD = [os.fsdecode(b"caf\xe9"), TITLE, "[red]z", "=1+2", "\u4f60 \xe9", "-1"]
"""Names of classes: bytes that are not UTF-8, a sequence that sets the title, markup, a formula."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of classes with odd names, named oddly themselves."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for number, name in enumerate(ODD):
        (folder / name).mkdir()
        for image in range(2):
            pixels = random.integers(40 * number, 40 * number + 30, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{name}{image}.png")
    return folder


@pytest.fixture(scope="module")
def learner(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("learner") / "odd.learner"
    assert cli.main(["adapt", "glyphs", str(photos), "--out", str(file)]) == 0
    return file


class Console(io.TextIOWrapper):
    """A stream of some encoding that keeps what was written."""

    def __init__(self, encoding: str) -> None:
        self.kept = io.BytesIO()
        super().__init__(self.kept, encoding, errors="strict")

    @property
    def text(self) -> str:
        self.flush()
        return self.kept.getvalue().decode(self.encoding)


@pytest.fixture(params=["ascii", "cp1252", "utf-8"])
def encoding(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def console(encoding: str) -> Iterator[Console]:
    """All that is printed goes to a stream of that encoding."""
    made = Console(encoding)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", made)
        patch.setattr(sys, "stderr", made)
        yield made


def test_any_name_is_shown_in_any_encoding(
    encoding: str, photos: Path, learner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMNITRAINING_CACHE", str(tmp_path / "cache"))
    images = [str(photos / name) for name in ODD]
    told = ""
    for code, command in (
        (0, ["data", "check", str(photos)]),
        (0, ["data", "prepare", str(photos)]),
        (0, ["adapt", "glyphs", str(photos), "--out", str(tmp_path / f"{TITLE}.learner")]),
        (0, ["predict", str(learner), *images]),
        (2, ["predict", str(learner), str(photos / TITLE / "none")]),
        (2, ["report", str(photos / TITLE), "--out", "x.html"]),
        (0, ["list"]),
    ):
        with console(encoding) as shown:
            assert cli.main(command) == code, shown.text
        assert "\x1b" not in shown.text and "Traceback" not in shown.text
        told += shown.text
        assert shown.errors == "strict", "the caller's stream is as it was"
    assert told.count(r"\x1b]0;PWNED\x07") >= 5


def test_json_is_json_in_any_encoding(encoding: str, photos: Path, learner: Path) -> None:
    with console(encoding) as shown:
        assert cli.main(["predict", str(learner), *(str(photos / n) for n in ODD), "--json"]) == 0
    records = json.loads(shown.text)
    assert {*records[0]["probabilities"]} == {*ODD}
    assert {Path(record["image"]).parent.name for record in records} == {*ODD}


def test_json_shows_letters_where_the_console_can() -> None:
    for encoding, wanted in (("utf-8", '"é你"'), ("cp1252", r'"\u00e9\u4f60"')):
        with console(encoding) as shown:
            terminal.say_json("é你")
        assert shown.text.strip() == wanted


def test_a_spreadsheet_calculates_no_name(
    photos: Path, learner: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(photos / "=1+2")
    assert cli.main(["predict", str(learner), "=1+20.png", str(photos / "-1"), "--csv"]) == 0
    rows = [*csv.DictReader(io.StringIO(capsys.readouterr().out))]
    assert [row["label"] for row in rows] == ["'=1+2", "-1", "-1"], "a number is no formula"
    assert "'=1+2" in rows[0] and Path(rows[0]["image"]).is_file()
    assert rows[0]["image"] == "./=1+20.png"


def test_tables_show_texts_as_they_are(encoding: str) -> None:
    table = Table("[bold]a", TITLE, title="[red]t :smile: ±")
    table.add_row("[/]", "\x9b31m\u202e")
    with console(encoding) as shown, terminal.streams():
        show(table)
    assert "\x1b" not in shown.text and "\u202e" not in shown.text
    assert all(text in shown.text for text in ("[bold]a", "[red]t :smile: ", "[/]", r"\u202e"))
    assert ("±" in shown.text) == (encoding != "ascii")


def test_text_files_are_utf_8() -> None:
    """Whatever the locale: an encoding is given wherever the package opens one."""
    for path in Path(cli.__file__).parent.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(call, ast.Call):
                continue
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            given = len(call.args) + any(word.arg == "encoding" for word in call.keywords)
            texts = [a.value for a in call.args if isinstance(a, ast.Constant)]
            least = {"read_text": 1, "write_text": 2}.get(name, 0)
            if name == "open" and ast.unparse(call.func) not in ("Image.open", "os.open"):
                is_binary = any("b" in str(text) and len(str(text)) < 4 for text in texts)
                least = 0 if is_binary else len(call.args) + 1
            assert given >= least, f"{path}, line {call.lineno}: {ast.unparse(call)}"


# --- pipes that end ---


def test_a_reader_that_ends_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    for arguments in (["list"], ["--help"], ["predict", "--help"], ["--version"]):
        with os.fdopen(os.dup(writer), "w") as stream, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            assert cli.main(arguments) == cli.BROKEN_PIPE
    os.close(writer)
    assert capfd.readouterr() == ("", "")


def test_a_closed_output_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert cli.main(["list"]) == 2
    assert capfd.readouterr().err.startswith("omni: standard output is closed: ")
    monkeypatch.setattr(sys, "stderr", None)
    assert cli.main(["list"]) == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device here")
def test_a_full_disk_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with Path("/dev/full").open("w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert cli.main(["list"]) == 2
    assert capfd.readouterr().err == "omni: output: No space left on device\n"

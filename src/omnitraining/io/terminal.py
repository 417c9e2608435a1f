"""Output to a terminal, a pipe or a file: any text, in any encoding, and progress."""

import csv
import io
import json
import os
import re
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import IO, Any, TypeVar

from omnitraining.errors import InputError

CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Control characters except line breaks, and characters that change the direction of writing."""

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters of cells that spreadsheets take for formulas."""


def printable(text: object) -> str:
    r"""A text with control characters escaped, as \x1b; line breaks stay.

    Names in a data set may hold sequences that set the title of a terminal, move its cursor or
    reverse the text after them.
    """
    return CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), str(text))


def one_line(text: object) -> str:
    """The same, with spaces for line breaks."""
    return printable(" ".join(str(text).split("\n")))


def say(text: object = "", error: bool = False) -> None:
    """Print a text and flush, with control characters escaped.

    Args:
        text: the text, which may hold names of files and classes.
        error: print to stderr.
    """
    print(printable(text), file=sys.stderr if error else sys.stdout, flush=True)


def say_json(values: Any) -> None:
    r"""Print JSON; in ASCII, with \u escapes, if the console cannot show all characters."""
    text = json.dumps(values, indent=1, ensure_ascii=False)
    if printable(text) != text or not can_show(text, sys.stdout):
        text = json.dumps(values, indent=1)
    print(text)  # noqa: T201


def say_csv(rows: Sequence[Sequence[object]]) -> None:
    """Print comma-separated values; a quote is put before texts that look like formulas.

    Control characters are escaped if stdout is a terminal, and kept in files.

    Args:
        rows: cells of each line.
    """
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([map(_cell, row) for row in rows])
    text = table.getvalue()
    print(printable(text) if sys.stdout.isatty() else text, end="")  # noqa: T201


def _cell(value: object) -> object:
    """The value, or a text that no spreadsheet takes for a formula."""
    if not isinstance(value, str) or not value.startswith(FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def shows_progress() -> bool:
    """Whether stderr is a terminal that can show a progress bar."""
    can_move = os.environ.get("TERM", "").lower() not in ("dumb", "unknown")
    return sys.stderr is not None and sys.stderr.isatty() and can_move


def first_few(texts: Collection[str], most: int = 5) -> str:
    """The first texts, joined, and the number of the others.

    Args:
        texts: the texts.
        most: number of texts to show.

    Example:
        >>> first_few(["a", "b", "c"], most=2)
        'a; b; and 1 more'
    """
    rest = [f"and {len(texts) - most} more"] if len(texts) > most else []
    return "; ".join([*islice(texts, most), *rest])


T = TypeVar("T")


def tracked(items: Iterable[T], total: int, title: str) -> Iterator[T]:
    """The items, with a progress bar on stderr, or with occasional lines if it is no terminal.

    Args:
        items: items that the caller works on as it takes them.
        total: number of items.
        title: title of the bar.
    """
    if shows_progress():
        from rich.console import Console
        from rich.markup import escape
        from rich.progress import track

        name, console = escape(printable(title)), Console(stderr=True)
        yield from track(items, name, total, console=console, transient=True)
        return
    pace = Pace()
    for done, item in enumerate(items, 1):
        yield item
        if pace.is_due():
            say(f"{title}: {done} of {total}, {pace.describe(done, total)}", error=True)


class Pace:
    """Times of progress lines where no bar can move: after 10 s, then less and less often."""

    FIRST, MOST = 10.0, 300.0

    def __init__(self) -> None:
        """Start the clock."""
        self.start = time.monotonic()
        self.wait, self.next = self.FIRST, self.start + self.FIRST

    def is_due(self) -> bool:
        """Whether a line is due now; the next one is due after twice the time."""
        now = time.monotonic()
        if now < self.next:
            return False
        self.wait = min(2 * self.wait, self.MOST)
        self.next = now + self.wait
        return True

    def describe(self, done: int, total: int) -> str:
        """The rate and the remaining time as text.

        Args:
            done: items done since the start.
            total: items to be done since the start.
        """
        seconds = max(time.monotonic() - self.start, 1e-9)
        rate = done / seconds
        shown = f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"
        return f"{shown} per second, {duration(seconds / done * (total - done))} left"


def duration(seconds: float) -> str:
    """A time as text, in seconds, minutes or hours.

    Example:
        >>> duration(150)
        '2 min'
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def can_show(text: str, stream: IO[str]) -> bool:
    """Whether the encoding of a stream has all characters of a text."""
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def streams() -> Iterator[None]:
    """Let the standard streams take every character, whatever their encoding.

    Raises:
        InputError: stdout is closed.
        OSError: stdout cannot be written to, as BrokenPipeError after ``| head``; the rest of the
            output is dropped.
    """
    if sys.stdout is None:
        raise InputError("standard output is closed: send it to a file, or to /dev/null")
    changed = [(s, s.errors) for s in (sys.stdout, sys.stderr) if isinstance(s, io.TextIOWrapper)]
    for stream, _ in changed:
        stream.reconfigure(errors="backslashreplace")
    try:
        try:
            yield
        except SystemExit:  # of --help
            sys.stdout.flush()
            raise
        sys.stdout.flush()
    except OSError as error:
        if error.filename is None:  # of no file, so perhaps of stdout
            _drop_output()
        raise
    finally:
        with suppress(OSError):  # of stderr
            for stream, errors in changed:
                stream.reconfigure(errors=errors)


def _drop_output() -> None:
    """Discard what is not written yet, which Python would write again at exit."""
    with suppress(OSError):  # a stream without a file needs nothing
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)

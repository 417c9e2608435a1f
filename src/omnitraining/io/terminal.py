"""Text on its way to a console: any name of a file or class, in any encoding, to any pipe."""

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
"""Characters that steer a terminal: all but line breaks, and those of the direction of writing."""

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet takes a cell for a formula if it begins with one of these."""


def printable(text: object) -> str:
    r"""A text whose control characters are spelled out, as \x1b; line breaks stay.

    Names in a data set may hold sequences that set the title of a terminal, move its cursor or
    reverse what follows.
    """
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def one_line(text: object) -> str:
    """The same, with spaces for line breaks."""
    return printable(" ".join(str(text).split("\n")))


def say(text: object = "", error: bool = False) -> None:
    """Print a text at once, for people: with control characters spelled out.

    Args:
        text: perhaps with names of files and classes.
        error: print to stderr.
    """
    print(printable(text), file=sys.stderr if error else sys.stdout, flush=True)


def say_json(values: Any) -> None:
    r"""Print JSON; in ASCII, with \u escapes, where the console cannot show it as it is."""
    text = json.dumps(values, indent=1, ensure_ascii=False)
    if printable(text) != text or not can_show(text, sys.stdout):
        text = json.dumps(values, indent=1)
    print(text)  # noqa: T201


def say_csv(rows: Sequence[Sequence[object]]) -> None:
    """Print comma-separated values; texts that a spreadsheet would calculate begin with a quote.

    Control characters are spelled out where stdout is a terminal; files get them as they are.
    """
    made = io.StringIO()
    csv.writer(made, lineterminator="\n").writerows([map(_cell, row) for row in rows])
    text = made.getvalue()
    print(printable(text) if sys.stdout.isatty() else text, end="")  # noqa: T201


def _cell(value: object) -> object:
    """As it is, or as a text that no spreadsheet calculates."""
    if not isinstance(value, str) or not value.startswith(FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def shows_progress() -> bool:
    """Whether stderr is a terminal that can show a moving bar."""
    can_move = os.environ.get("TERM", "").lower() not in ("dumb", "unknown")
    return sys.stderr is not None and sys.stderr.isatty() and can_move


def first_few(texts: Collection[str], most: int = 5) -> str:
    """The first texts, and how many more there are."""
    rest = [f"and {len(texts) - most} more"] if len(texts) > most else []
    return "; ".join([*islice(texts, most), *rest])


T = TypeVar("T")


def tracked(items: Iterable[T], total: int, title: str) -> Iterator[T]:
    """The items, with a bar on stderr where that is a terminal, and else with lines now and then.

    Args:
        items: that are worked on as they are taken.
        total: how many they are.
        title: of the work.
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
            say(f"{title}: {done} of {total}, {pace.told(done, total)}", error=True)


class Pace:
    """When to say how far work has come where no bar can move: after 10 s, then more rarely."""

    FIRST, MOST = 10.0, 300.0

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.wait, self.next = self.FIRST, self.start + self.FIRST

    def is_due(self) -> bool:
        """Whether to say it now; if so, it is not due again for twice as long."""
        now = time.monotonic()
        if now < self.next:
            return False
        self.wait = min(2 * self.wait, self.MOST)
        self.next = now + self.wait
        return True

    def told(self, done: int, total: int) -> str:
        """The pace and the time that is left.

        Args:
            done: since the work began.
            total: to be done in all.
        """
        seconds = max(time.monotonic() - self.start, 1e-9)
        return f"{done / seconds:.2g} per second, {duration(seconds / done * (total - done))} left"


def duration(seconds: float) -> str:
    """A time in words, in the unit that suits it."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def can_show(text: str, stream: IO[str]) -> bool:
    """Whether the encoding of a stream has all characters."""
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def streams() -> Iterator[None]:
    """Standard streams that take every character, whatever their encoding.

    Raises:
        InputError: stdout is closed.
        OSError: it cannot be written to, as BrokenPipeError where ``head`` has read enough; what
            was not written is dropped.
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
        if error.filename is None:  # it is not of a file, and so perhaps of stdout
            _drop_output()
        raise
    finally:
        with suppress(OSError):  # of stderr
            for stream, errors in changed:
                stream.reconfigure(errors=errors)


def _drop_output() -> None:
    """Send what is not written yet nowhere: Python would try again when it ends."""
    with suppress(OSError):  # a stream without a file needs nothing
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)

"""Side-by-side timing on machines that are noisy."""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

Row = tuple[str, str, float, str, str]


def ratio(
    ours: Callable[[], object],
    other: Callable[[], object],
    rounds: int = 11,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, float, float]:
    """Time two functions in turn.

    Each round runs both, in alternating order, so that a slow spell of the machine hits both.

    Args:
        ours: what is measured.
        other: what it is measured against.
        rounds: how often.
        clock: seconds; `time.process_time` leaves out what other programs take, which matters
            where one call outlasts any spell of the machine.

    Returns:
        Median of ours / other over the rounds, and the median seconds of each.
    """
    ours()
    other()  # both are warm from here on
    pairs = []
    for index in range(rounds):
        first, second = (ours, other) if index % 2 == 0 else (other, ours)
        a, b = _seconds(first, clock), _seconds(second, clock)
        pairs.append((a, b) if index % 2 == 0 else (b, a))
    return (
        statistics.median(a / b for a, b in pairs),
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
    )


def _seconds(function: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    function()
    return clock() - start


def put(rows: list[Row]) -> None:
    """Print rows; with a path as argument, put them into that record in place of older ones."""
    names = ("what", "case", "ratio", "goal", "milliseconds")
    found = [dict(zip(names, row, strict=True)) for row in rows]
    for row in found:
        print(row)
    if len(sys.argv) > 1:
        path, measured = Path(sys.argv[1]), {row["what"] for row in found}
        kept = [row for row in json.loads(path.read_text()) if row["what"] not in measured]
        path.write_text(json.dumps([*kept, *found], indent=1) + "\n")

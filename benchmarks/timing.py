"""Side-by-side timing on machines that are noisy."""

import statistics
import time
from collections.abc import Callable


def ratio(
    ours: Callable[[], object], other: Callable[[], object], rounds: int = 11
) -> tuple[float, float, float]:
    """Time two functions in turn.

    Each round runs both, in alternating order, so that a slow spell of the machine hits both.

    Returns:
        Median of ours / other over the rounds, and the median seconds of each.
    """
    ours()
    other()  # both are warm from here on
    pairs = []
    for index in range(rounds):
        first, second = (ours, other) if index % 2 == 0 else (other, ours)
        a, b = _seconds(first), _seconds(second)
        pairs.append((a, b) if index % 2 == 0 else (b, a))
    return (
        statistics.median(a / b for a, b in pairs),
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
    )


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start

"""Work done in threads, in order, with progress."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from omnitraining.io.terminal import tracked

AHEAD = 256
"""Most jobs that are started before their results are taken, which bounds the memory."""

T = TypeVar("T")
R = TypeVar("R")


def map_in_threads(work: Callable[[T], R], jobs: Sequence[T], title: str) -> Iterator[R]:
    """Results in the order of the jobs, with progress on stderr.

    Args:
        work: called with each job in one of several threads.
        jobs: arguments of the calls.
        title: of the progress bar.

    Example:
        >>> list(map_in_threads(len, ["a", "bc"], "counting"))
        [1, 2]
    """

    def results() -> Iterator[R]:
        running: deque[Future[R]] = deque()
        for job in jobs:
            running.append(pool.submit(work, job))
            if len(running) >= AHEAD:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()

    pool = ThreadPoolExecutor()
    try:
        yield from tracked(results(), len(jobs), title)
    finally:
        pool.shutdown(cancel_futures=True)

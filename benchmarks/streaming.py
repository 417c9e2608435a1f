"""Training from the memory-mapped cache of photographs, against training from memory.

python -m benchmarks.streaming results/benchmarks.json     put these rows into the record

Before every step the file is dropped from memory in both: its pages leave this process (madvise)
and the system's cache (posix_fadvise), so that a step reads from the disk as it would if the data
were larger than memory. Where pages could not be dropped, the case states it.
"""

import ctypes
import mmap
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.classification import photographs
from benchmarks.timing import Row, put
from omnitraining.backbones import Conv4
from omnitraining.metatraining import ProtoNet
from omnitraining.network import Network
from omnitraining.tasks.classification.photos import Photos
from omnitraining.tasks.classification.problem import Classification, EpisodeConfig

WHAT = "steps per second, mapped from the cache / in memory"
SIDE, CLASSES, IMAGES, ROUNDS = 84, 12, 60, 9


def streaming() -> list[Row]:
    """ProtoNet steps of Conv4 on photographs of 84 px, each on an episode and a mini-batch."""
    with tempfile.TemporaryDirectory() as name:
        data, cache = Path(name) / "data", Path(name) / "cache"
        photographs(data / "birds", CLASSES, IMAGES)
        before = os.environ.get("OMNITRAINING_CACHE")
        os.environ["OMNITRAINING_CACHE"] = str(cache)
        try:
            mapped = Photos(data, ("birds",), "birds", ("birds",), EpisodeConfig(batch=64), SIDE)
        finally:
            if before is None:
                del os.environ["OMNITRAINING_CACHE"]
            else:
                os.environ["OMNITRAINING_CACHE"] = before
        (file,) = cache.glob("birds*train*.uint8")
        return rows(mapped, file, Conv4(3, 64), ROUNDS)


def rows(mapped: Photos, file: Path, backbone: nn.Module, rounds: int) -> list[Row]:
    """Whole steps, by wall and by CPU time, and the data of a step alone.

    Args:
        mapped: photographs of one training domain, mapped from a file.
        file: that they are mapped from.
        backbone: that is trained.
        rounds: how often both are timed, in turn.
    """
    copies = [replace(part, images=part.images.clone()) for part in mapped.training]
    memory = Classification(
        copies, mapped.validation, mapped.benchmarks, mapped.protocol, mapped.augmentation
    )
    network = Network(backbone, nn.Identity()).to(memory_format=torch.channels_last)
    share = evict_pages(mapped.training[0].images, file)
    state = "pages dropped" if share < 0.01 else f"{share:.0%} of the pages stayed in memory"
    numbers = iter(range(10**9))

    def data(problem: Classification) -> None:
        step = next(numbers)
        random = torch.Generator().manual_seed(step)
        problem.episode(step, random)
        problem.minibatch(step, random)

    def step(problem: Classification) -> None:
        number = next(numbers)
        random = torch.Generator().manual_seed(number)
        episode = problem.episode(number, random)
        batch = problem.minibatch(number, random)
        network.zero_grad()
        loss = ProtoNet().loss(ProtoNet().predict(network, episode), episode.query_y)
        (loss + network.backbone(batch.x).square().mean()).backward()

    table: list[Row] = []
    for what, work, goal in (("a step", step, ">= 0.9"), ("its data alone", data, "")):
        seconds = _timed(work, mapped, memory, lambda: _drop(mapped, file), rounds)
        for clock, pairs in seconds.items():
            if what == "a step" or clock == "wall":
                ratio = statistics.median(b / a for a, b in pairs)
                a, b = (statistics.median(part) * 1e3 for part in zip(*pairs, strict=True))
                case = f"Conv4, {SIDE} px, {what}, {state}, {clock} time"
                table.append((WHAT, case, ratio, goal, f"{a:.3g} / {b:.3g}"))
    return table


def _drop(mapped: Photos, file: Path) -> None:
    evict_pages(mapped.training[0].images, file)


def _timed(
    work: Callable[[Classification], None],
    mapped: Classification,
    memory: Classification,
    drop: Callable[[], None],
    rounds: int,
) -> dict[str, list[tuple[float, float]]]:
    """Seconds of both, by clock, with the file dropped from memory before each."""
    work(mapped)
    work(memory)
    pairs: dict[str, list[tuple[float, float]]] = {"wall": [], "CPU": []}
    for index in range(rounds):
        taken = {}
        for problem in (mapped, memory) if index % 2 == 0 else (memory, mapped):
            drop()
            wall, cpu = time.perf_counter(), time.process_time()
            work(problem)
            taken[problem] = time.perf_counter() - wall, time.process_time() - cpu
        for position, name in enumerate(pairs):
            pairs[name].append((taken[mapped][position], taken[memory][position]))
    return pairs


def evict_pages(images: Tensor, file: Path) -> float:
    """Drop the pages of a mapped file from this process and from the system's cache.

    Args:
        images: that are mapped from the file, and were never written to.
        file: that holds them.

    Returns:
        The share of pages that are in memory nevertheless.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    length, start = images.nbytes, ctypes.c_void_p(images.data_ptr())
    libc.madvise(start, ctypes.c_size_t(length), 4)  # MADV_DONTNEED
    with file.open("rb") as opened:
        os.fsync(opened.fileno())  # pages that were not written yet cannot be dropped
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    pages = -(-length // mmap.PAGESIZE)
    there = (ctypes.c_ubyte * pages)()
    if libc.mincore(start, ctypes.c_size_t(length), there):
        return 1.0
    return sum(page & 1 for page in there) / pages


if __name__ == "__main__":
    put(streaming())

"""Freed memory is used again: page faults are counted, which a fast or slow machine has alike."""

import ctypes
import os
import resource
import subprocess
import sys

import pytest
import torch

from omnitraining.memory import memory_reused, reusing_memory

PAGES = 3 * 48_000_000 // 4096  # of the three blocks of a round

glibc = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"),
    reason="elsewhere memory_reused has no effect",
)


def rounds(count: int) -> None:
    """Fill three blocks of 48 MB, as a step does with its activations, and free them."""
    for _ in range(count):
        blocks = [torch.zeros(12_000_000) for _ in range(3)]
        del blocks


def faults(count: int) -> int:
    """Page faults of rounds."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    rounds(count)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    """Pages of this process that are in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])


def in_new_process(program: str, **environment: str) -> list[int]:
    """Numbers that a program prints, in a process whose allocator has its defaults."""
    chosen = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
    clean = {name: value for name, value in os.environ.items() if name not in chosen}
    head = "from tests.test_memory import *\n"
    done = subprocess.run(
        [sys.executable, "-c", head + program],
        env={**clean, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return [int(number) for number in done.stdout.split()]


@glibc
def test_blocks_are_mapped_once_inside_and_in_every_round_before() -> None:
    before, inside = in_new_process(
        "print(faults(10))\nwith memory_reused():\n    rounds(8)\n    print(faults(10))"
    )
    assert before > 9 * PAGES
    assert inside < PAGES / 2


@glibc
def test_memory_is_returned_at_the_end() -> None:
    inside, after = in_new_process(
        "with memory_reused():\n    rounds(8)\n    print(resident())\nprint(resident())"
    )
    assert after < inside - 0.9 * PAGES


@glibc
@pytest.mark.parametrize("name", ["MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"])
def test_thresholds_of_the_environment_are_kept(name: str) -> None:
    (found,) = in_new_process(
        "with memory_reused():\n    rounds(8)\n    print(faults(10))", **{name: "1000000"}
    )
    assert found > 9 * PAGES


def test_batches_pass_unchanged_and_end_the_context_early_too() -> None:
    assert [*reusing_memory([])] == []
    assert [*reusing_memory("abc")] == ["a", "b", "c"]
    batches = reusing_memory(range(9))
    assert [next(batches), next(batches)] == [0, 1]
    batches.close()
    with memory_reused(), memory_reused():
        pass

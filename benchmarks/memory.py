"""A training step on the CPU, with freed memory kept by the process and with glibc's defaults.

``python -m benchmarks.memory FILE`` measures this alone and puts it into a record.
"""

import os
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.timing import Row, put
from omnitraining.backbones import Conv4
from omnitraining.batches import channels_last
from omnitraining.memory import memory_reused

WHAT = "CPU-seconds of a step, freed memory kept / returned"
SIZES = (32, 42, 84)
IMAGES, CLASSES = 64, 64
WARM, MEASURED, ROUNDS = 5, 20, 3


def memory() -> list[Row]:
    """CPU-seconds of a process, which has one thread: they contain what the kernel does for it."""
    rows = []
    for size in SIZES:
        pairs = [(_step(size, "kept"), _step(size, "returned")) for _ in range(ROUNDS)]
        ratio = statistics.median(kept / returned for kept, returned in pairs)
        kept, returned = (statistics.median(side) for side in zip(*pairs, strict=True))
        case = f"Conv4-64, {IMAGES} images of {size} px, bfloat16"
        took = f"{kept * 1e3:.3g} / {returned * 1e3:.3g}"
        rows.append((WHAT, case, ratio, "< 1", took))
    return rows


def _step(size: int, how: str) -> float:
    """CPU-seconds of a step in a process of its own: thresholds hold for a whole process."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", "--worker", str(size), how],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    return float(done.stdout)


def _work(size: int, how: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    backbone = Conv4(channels=3, width=64)
    features = backbone(torch.randn(2, 3, size, size)).shape[1]
    network = nn.Sequential(backbone, nn.Linear(features, CLASSES))
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters())
    x = channels_last(torch.randn(IMAGES, 3, size, size))
    labels = torch.randint(CLASSES, (IMAGES,))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(x)
        optimizer.zero_grad()
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    with memory_reused() if how == "kept" else nullcontext():
        for _ in range(WARM):
            step()
        start = time.process_time()
        for _ in range(MEASURED):
            step()
        print((time.process_time() - start) / MEASURED)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        _work(int(sys.argv[2]), sys.argv[3])
    else:
        put(memory())

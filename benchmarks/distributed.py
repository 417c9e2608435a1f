"""Speed-up of a training step by two processes of one thread each.

The step is the same: each of the two has a shard of its samples.
``python -m benchmarks.distributed FILE`` measures this alone and puts it into a record.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.timing import Row, put

CASES = {
    "glyphs, Conv4-32, ProtoNet": "glyphs.yaml",
    "policies, navigation, REINFORCE and MAML": "navigation.yaml",
}
"""Configuration by case."""

WARM, MEASURED, ROUNDS = 10, 30, 3


def distributed() -> list[Row]:
    """By the clock, which other programs slow, and by the CPU time of a process."""
    rows = []
    for case, config in CASES.items():
        pairs = [(_step(1, config), _step(2, config)) for _ in range(ROUNDS)]
        for clock, name in enumerate(("seconds", "CPU-seconds of a process")):
            ratio = statistics.median(one[clock] / two[clock] for one, two in pairs)
            one, two = (
                statistics.median(part[clock] for part in side) for side in zip(*pairs, strict=True)
            )
            took = f"{one * 1e3:.3g} / {two * 1e3:.3g}"
            rows.append((f"{name} of a step, one process / two", case, ratio, "", took))
    return rows


def _step(processes: int, config: str) -> tuple[float, float]:
    """Seconds, and CPU seconds of a process, of a step."""
    with TemporaryDirectory() as folder:
        subprocess.run(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
                *("--nproc-per-node", str(processes), "-m", "benchmarks.distributed", "--worker"),
                *(folder, config),
            ],
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.DEVNULL,
        )
        seconds = json.loads((Path(folder) / "seconds.json").read_text())
        return seconds[0], seconds[1]


def _work(folder: str, config: str) -> None:
    """What each process does; the first one writes how long a step takes."""
    from omnitraining import training
    from omnitraining.config.run_config import read_config
    from omnitraining.distributed import process_group
    from omnitraining.experiments.running import train_run
    from omnitraining.training import loop

    class Clock(training.Progress):
        clocks: list[tuple[float, float]] = []  # noqa: RUF012

        def step(self, done: int, steps: int, terms: dict[str, float]) -> None:
            self.clocks.append((time.perf_counter(), time.process_time()))

    loop.REPORT_EVERY = WARM
    steps = WARM + MEASURED
    length = ["--training.steps", str(steps), "--training.val_every", str(steps)]
    chosen = read_config(Path(config), [*length, "--training.threads", "1"])
    with process_group() as context:
        train_run(chosen, Path(folder) / "run", progress=Clock())
    if context.is_main_process:
        (wall, cpu), (wall_end, cpu_end) = Clock.clocks[0], Clock.clocks[-1]
        seconds = [(wall_end - wall) / MEASURED, (cpu_end - cpu) / MEASURED]
        (Path(folder) / "seconds.json").write_text(json.dumps(seconds))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        _work(*sys.argv[2:])
    else:
        put(distributed())

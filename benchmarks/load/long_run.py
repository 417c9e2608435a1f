"""Memory over the training steps of 24 hours: ``python -m benchmarks.load.long_run``, 8 minutes.

A memory leak grows with steps and validations, whatever the size of the network. So a tiny problem
is trained for as many steps as a large one takes in 24 hours: for classification, ProtoNet steps of
a Conv4 on photographs of 84 pixels (an Omni step takes longer, so that there are fewer); for
reinforcement learning, Omni steps on HalfCheetah with a target velocity. The seconds of a step are
read from records of this repository. The resident memory after every validation is written to
results/long-run.json. With the name of one kind as argument only that is measured.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.load import RESULTS
from omnitraining.config.recipes import merge
from omnitraining.config.run_config import parse
from omnitraining.experiments.record import read_record
from omnitraining.experiments.running import train_run
from omnitraining.runs.run import provenance
from omnitraining.training import Progress
from tests.reference.tiny import BLOBS, NAVIGATION, Values

DAY = 86_400  # seconds
EPOCHS = 100

KINDS: dict[str, Values] = {
    "classification": BLOBS,
    "reinforcement learning": merge(
        NAVIGATION,
        {
            "problem": {
                "init_args": {
                    "environment": {"class_path": "Navigation", "init_args": {"horizon": 5}},
                    **{"tasks": 2, "trajectories": 2, "validation_tasks": 2, "test_steps": 1},
                }
            }
        },
    ),
}


def day(kind: str) -> tuple[int, str]:
    """The number of steps in 24 hours, and the step that was timed."""
    if kind == "classification":
        rows = json.loads((RESULTS / "benchmarks.json").read_text())
        case = "ProtoNet step, Conv4, 84 px"
        timed = next(row for row in rows if row["case"] == case)
        seconds = float(timed["milliseconds"].split(" / ")[0]) / 1000
        return round(DAY / seconds), f"{case}, {seconds:.3g} s (results/benchmarks.json)"
    record = read_record(RESULTS / "figure8-cheetah.json")
    facts = record.rows["omni-training"].trainings["velocity"]
    seconds = facts.seconds[0] / facts.config["training"]["steps"]
    what = "Omni step, HalfCheetah, velocity"
    return round(DAY / seconds), f"{what}, {seconds:.3g} s (results/figure8-cheetah.json)"


class Memory(Progress):
    """The resident memory of this process after every validation.

    Attributes:
        series: step and MiB.
    """

    def __init__(self) -> None:
        self.series: list[tuple[int, float]] = []

    def validated(self, done: int, score: float, best: float) -> None:
        words = Path("/proc/self/status").read_text()
        resident = re.search(r"VmRSS:\s+(\d+) kB", words)
        assert resident, words
        self.series.append((done, round(int(resident[1]) / 1024, 2)))


def trained(kind: str, steps: int, epochs: int = EPOCHS) -> dict[str, Any]:
    """Train in this process.

    Args:
        kind: of the problem.
        steps: of the training.
        epochs: number of validations, with a checkpoint each.

    Returns:
        Memory in MiB after every validation, and its summary: after a tenth of the steps, after
        half, at the end, and the growth in the second half.
    """
    memory = Memory()
    length = {"training": {"steps": steps, "val_every": steps // epochs}}
    with tempfile.TemporaryDirectory() as folder:
        train_run(parse(merge(KINDS[kind], length)), Path(folder) / "run", progress=memory)
    sizes = [size for _, size in memory.series]
    return {
        "steps": steps,
        "epochs": len(sizes),
        "MiB after a tenth": sizes[len(sizes) // 10],
        "MiB at half": sizes[len(sizes) // 2],
        "MiB at the end": sizes[-1],
        "growth in the second half, MiB": round(sizes[-1] - sizes[len(sizes) // 2], 2),
        "series": memory.series,
    }


def main() -> None:
    """Train every kind, or one, in a process of its own, and put it into the record."""
    if sys.argv[1:2] == ["--here"]:
        print(json.dumps(trained(sys.argv[2], int(sys.argv[3]))))
        return
    path = RESULTS / "long-run.json"
    for kind in sys.argv[1:] or KINDS:
        steps, of = day(kind)
        words = [sys.executable, "-m", "benchmarks.load.long_run", "--here", kind, str(steps)]
        output = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout
        measured = {
            "a day of": of,
            **json.loads(output.splitlines()[-1]),
            "provenance": provenance(),
        }
        record = json.loads(path.read_text()) if path.is_file() else {}
        record = {
            "title": "Resident memory over as many training steps as a day has",
            "command": "python -m benchmarks.load.long_run",
            "kinds": {**record.get("kinds", {}), kind: measured},
        }
        path.write_text(json.dumps(record, indent=1) + "\n")
        print(f"{kind}: { {k: v for k, v in measured.items() if k != 'series'} }", flush=True)


if __name__ == "__main__":
    main()

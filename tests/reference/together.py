"""What two processes train: `python -m tests.reference.together FOLDER`.

Both are copies of this one, so that the library is imported once. They train the jobs of
FOLDER/jobs.json one after the other, and keep what each of them has in the end: student and
teacher, in FOLDER/NAME-RANK.safetensors.
"""

import json
import os
import signal
import sys
from importlib import import_module
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torch.multiprocessing import start_processes

from omnitraining.batches import MiniBatch
from omnitraining.config.run_config import parse
from omnitraining.distributed import current_context, process_group
from omnitraining.errors import InputError
from omnitraining.experiments.running import train_run
from omnitraining.model import Model
from omnitraining.runs.run import Run, unique_tensors
from omnitraining.tasks.classification import problem
from omnitraining.tasks.regression import sinusoids
from omnitraining.tasks.regression.sinusoids import Sinusoids
from omnitraining.teacher import Teacher
from omnitraining.training import stepper


class Plain(nn.Sequential):
    """A backbone of images without norms, so that a shard does not depend on the others."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(256, 8), nn.Tanh(), nn.Linear(8, 8))


class Failing(Sinusoids):
    """Process 1 fails in step 3: an `InputError`, NaN, a `RuntimeError`, or it is killed."""

    def __init__(self, how: str) -> None:
        super().__init__(waves=20, test_shots=(5,), test_steps=2)
        self.how = how

    def minibatch(self, step: int, random: torch.Generator) -> MiniBatch:
        batch = super().minibatch(step, random)
        if step != 2 or current_context().is_main_process:
            return batch
        if self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "input":
            raise InputError("the sensor is broken")
        if self.how == "error":
            raise RuntimeError("a mistake of the user's own")
        return MiniBatch(batch.x, batch.y * torch.nan)


def main(folder: Path) -> None:
    teachers: list[Teacher[Model]] = []

    def kept(student: Model, alpha: float) -> Teacher[Model]:
        teachers.append(Teacher(student, alpha))
        students.append(student)
        return teachers[-1]

    students: list[Model] = []
    stepper.Teacher = kept  # type: ignore[assignment, misc]
    problem.VALIDATION_TASKS = sinusoids.VALIDATION_TASKS = 8
    with process_group() as context:
        for name, values in json.loads((folder / "jobs.json").read_text()).items():
            resume = (folder / name).is_dir()
            run = train_run(parse(values), folder / name, resume=resume)
            assert isinstance(run, Run)
            modules = {"student": students[-1], "teacher": teachers[-1].model}
            tensors = {
                f"{which}.{key}": tensor.detach().contiguous()
                for which, module in modules.items()
                for key, tensor in unique_tensors(module).items()
            }
            save_file(tensors, folder / f"{name}-{context.rank}.safetensors")


def as_rank(rank: int, folder: Path) -> None:
    """One of the processes."""
    os.environ["RANK"] = str(rank)
    main(folder)


if __name__ == "__main__":
    import_module("torch._dynamo")  # which DistributedDataParallel would import in each of them
    method = "fork" if sys.platform == "linux" else "spawn"
    start_processes(as_rank, (Path(sys.argv[1]),), nprocs=2, start_method=method)

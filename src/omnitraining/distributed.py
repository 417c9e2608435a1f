"""Several processes that train one model: how they start, share the samples, and fail together.

The engine is torch's own. Its elastic agent, which torchrun runs too, starts the processes of a
machine; `DistributedDataParallel` averages their gradients; gloo carries tensors of the CPU and
NCCL those of GPUs. Processes that torchrun or Slurm's srun has started join by their environment.

Process r of P makes the r-th share of every step: a P-th of the mini-batch, and of the queries of
the episode with its whole support set, or of the tasks of reinforcement learning. The loss of a
step is the mean over shares. What a step sees does not depend on P. All weights are the same
everywhere; process 0 alone judges and writes.
"""

import gc
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from omnitraining.errors import InputError

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

TIMEOUT = timedelta(hours=2)
"""How long processes wait for each other, as while process 0 validates."""

PORT = 29400
"""Of the rendezvous of several machines, where none is given; torchrun's own."""

LAUNCHER = "OMNITRAINING_LAUNCHER"
"""Variable with the number of the process that started this one and may have ended since."""

FAILURE = "omnitraining/failure"
"""Where the first process that fails says so."""


@dataclass(frozen=True)
class Team:
    """The processes that train one model together.

    Attributes:
        rank: number of this process, from 0.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that judges and writes."""
        return self.rank == 0

    def chance(self, seed: int) -> int:
        """Per-rank seed for dropout; rank 0 uses the single-process seed."""
        if self.rank == 0:
            return seed
        return int(np.random.SeedSequence([seed % 2**64, self.rank]).generate_state(1)[0])

    def wrapped(self, model: nn.Module) -> nn.Module:
        """The model; called in this way, its gradients become the means over processes."""
        if self.size == 1:
            return model
        from torch.nn.parallel import DistributedDataParallel

        # A flow whose loss is off has weights without a gradient, and every step has the same.
        return DistributedDataParallel(model, static_graph=True)

    def means(self, values: Mapping[str, float]) -> dict[str, float]:
        """Average scalar metrics over all ranks."""
        if self.size == 1:
            return dict(values)
        from torch import distributed

        sums = torch.tensor([*values.values()], dtype=torch.float64)
        distributed.all_reduce(sums)
        return dict(zip(values, (sums / self.size).tolist(), strict=True))

    def wait(self) -> None:
        """Until all processes are here."""
        self.means({"": 0.0})

    def check(self, device: torch.device, optimizer: str) -> None:
        """Refuse what several processes cannot do.

        Raises:
            InputError: the device is not the CPU or this process's GPU, or the optimizer is TRPO.
        """
        if self.size == 1:
            return
        if optimizer == "trpo":
            raise InputError("training.optimizer is 'trpo', which is for one process alone")
        if device.type not in ("cpu", "cuda"):
            raise InputError(
                f"training.device is {device.type}, where several processes cannot train: set it "
                "to cpu"
            )
        if device.index not in (None, _own_gpu()):
            raise InputError(
                f"training.device names GPU {device.index} for every process: leave it at 'auto', "
                "and each takes its own"
            )


def team() -> Team:
    """The processes that this one has joined; itself alone if it has joined none."""
    from torch import distributed

    if not distributed.is_available() or not distributed.is_initialized():
        return Team()
    return Team(distributed.get_rank(), distributed.get_world_size())


# --- joining ---


def is_started() -> bool:
    """Whether a launcher has started this process as one of several.

    Raises:
        InputError: Slurm has, and did not say where the others are.
    """
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return int(os.environ["WORLD_SIZE"]) > 1
    # Only srun sets this: the rest of a batch script is one process, whatever it has asked for.
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) < 2:
        return False
    if "MASTER_ADDR" not in os.environ:
        raise InputError(
            "srun has started several tasks and none knows where the first one is: export "
            'MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1) before it'
        )
    return True


@contextmanager
def joined() -> Iterator[Team]:
    """Join the other processes, if a launcher has started this one as one of several.

    Whatever ends one process inside ends all: the first to fail says why, and the others leave
    without a word.
    """
    if not is_started():
        yield Team()
        return
    from torch import distributed
    from torch.distributed.rendezvous import rendezvous

    if "RANK" not in os.environ:
        names = {"RANK": "PROCID", "WORLD_SIZE": "STEP_NUM_TASKS", "LOCAL_RANK": "LOCALID"}
        os.environ.update({name: os.environ[f"SLURM_{theirs}"] for name, theirs in names.items()})
        os.environ.setdefault("MASTER_PORT", str(PORT))
    if _has_agent():
        parent = int(os.environ.get(LAUNCHER, os.getppid()))
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if torch.cuda.is_available():
        torch.cuda.set_device(_own_gpu())
    store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
    distributed.init_process_group(store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    try:
        yield Team(rank, size)
    except KeyboardInterrupt:
        if _has_agent() or rank > 0:  # the agent says it, or the first process
            raise SystemExit(130) from None
        raise
    except Exception as error:
        _forget_locals(error)
        raise _said_once(error, store) from None
    finally:
        # Whatever still refers to the group, as a wrapped model in a cycle, keeps threads of gloo
        # alive that abort Python when it ends.
        gc.collect()
        distributed.destroy_process_group()


def _forget_locals(error: BaseException | None) -> None:
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _has_agent() -> bool:
    """Whether torch's elastic agent has started this process and ends it if another one fails."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def _own_gpu() -> int:
    """The GPU of this process among those that it sees, which may be its own alone."""
    return int(os.environ.get("LOCAL_RANK", 0)) % max(1, torch.cuda.device_count())


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _said_once(error: Exception, store: "Store") -> BaseException:
    """What this process raises of an error: that, or nothing where another one says why."""
    mine = f"{os.environ['RANK']} {type(error).__name__}"
    lost = _is_of_connection(error)
    try:
        # An error that follows from another one's comes later, so that the first says it all.
        if store.compare_set(FAILURE, "", mine).decode() != mine:
            return SystemExit(2)
    except RuntimeError:  # the process that keeps the store has ended
        lost = True
    if not lost:
        return error
    time.sleep(5)  # for the agent to say which one ended, and to end this one
    return InputError(
        "another process of this run ended without a word, or cannot be reached; the last good "
        "checkpoint is kept: go on with --resume"
    )


def _is_of_connection(error: Exception) -> bool:
    from torch import distributed

    words = str(error).lower()
    return isinstance(error, distributed.DistError) or (
        isinstance(error, RuntimeError) and ("gloo" in words or "nccl" in words)
    )


# --- starting ---


def launch(
    arguments: list[str],
    device: torch.device,
    devices: int,
    nodes: int = 1,
    rendezvous: str | None = None,
) -> int:
    """Run ``omni`` in processes of this machine that train together; returns the exit code.

    Args:
        arguments: of ``omni``.
        device: that they train on, each on its own if it is a GPU.
        devices: processes on this machine.
        nodes: machines; the same is called on each.
        rendezvous: HOST:PORT of one of them that the others reach.

    Raises:
        InputError: there are fewer GPUs, a process was killed, or the machines do not meet.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if device.type == "cuda" and devices > (gpus := torch.cuda.device_count()):
        raise InputError(f"--devices is {devices}, but GPUs on this machine are {gpus}")
    if nodes > 1 and rendezvous is None:
        raise InputError(
            "several machines must know where to meet: add --rendezvous HOST:PORT, with the name "
            "of one of them"
        )
    config = LaunchConfig(
        min_nodes=nodes,
        max_nodes=nodes,
        nproc_per_node=devices,
        run_id="omni",
        rdzv_backend="c10d",
        rdzv_endpoint=rendezvous or "localhost:0",
        local_addr="localhost" if nodes == 1 else None,
        max_restarts=0,
    )
    with _environment(devices):
        try:
            elastic_launch(config, sys.executable)("-m", "omnitraining", *arguments)
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            if failure.exitcode < 0:
                raise InputError(
                    f"process {rank} was ended by {failure.signal_name()}, which is mostly for "
                    "lack of memory if it is SIGKILL; the last good checkpoint is kept: go on "
                    "with --resume"
                ) from error
            return failure.exitcode
        except SignalException:
            raise KeyboardInterrupt from None
        except (RuntimeError, ValueError) as error:  # of the rendezvous and its store
            place, first = rendezvous or "this machine", str(error).partition("\n")[0]
            raise InputError(f"the processes do not meet at {place}: {first}") from error
    return 0


@contextmanager
def _environment(processes: int) -> Iterator[None]:
    """Of processes that are started inside: who starts them, and their share of the cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = str(max(1, (cores or 1) // processes))
    before = os.environ.copy()
    os.environ.update({"OMP_NUM_THREADS": threads, **before, LAUNCHER: str(os.getpid())})
    logging.disable()  # the agent says in pages what is said here in a line
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        os.environ.clear()
        os.environ.update(before)

"""Distributed training: several processes that each train on a shard of every step.

torchrun or Slurm's srun starts the processes, and `process_group` joins them by the environment
variables that these set. `DistributedDataParallel` averages the gradients, with gloo on CPUs and
NCCL on GPUs.

Process r of P (its rank and the world size) trains on the r-th shard of every step: 1/P of the
mini-batch and of the queries of the episode, with the whole support set; or 1/P of the tasks in
reinforcement learning. The loss is the mean over shards, so the samples of a step do not depend
on P. The main process, rank 0, validates and writes.
"""

import gc
import os
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
from torch import Tensor, nn

from omnitraining.errors import InputError

TIMEOUT = timedelta(hours=2)
"""Longest time that processes wait for each other, as while the main process validates."""


@dataclass(frozen=True)
class DistributedContext:
    """Rank of this process, and number of the processes that train one model.

    Args:
        rank: number of this process, from 0.
        world_size: number of processes.

    Examples:
        >>> DistributedContext().is_main_process
        True
        >>> DistributedContext().all_reduce_mean({"loss": 2.0})
        {'loss': 2.0}
    """

    rank: int = 0
    world_size: int = 1

    @property
    def is_main_process(self) -> bool:
        """Whether this process validates and writes."""
        return self.rank == 0

    def rank_seed(self, seed: int) -> int:
        """Per-rank seed for dropout; rank 0 uses the single-process seed."""
        if self.rank == 0:
            return seed
        return int(np.random.SeedSequence([seed % 2**64, self.rank]).generate_state(1)[0])

    def wrap_ddp(self, model: nn.Module, same_weights: bool = True) -> nn.Module:
        """The model, in `DistributedDataParallel` if there are several processes.

        Args:
            model: on its device.
            same_weights: whether the same weights have a gradient in every step.
        """
        if self.world_size == 1:
            return model
        from torch.nn.parallel import DistributedDataParallel

        # Flows without a loss have weights without a gradient, mostly the same ones in every step.
        return DistributedDataParallel(
            model, static_graph=same_weights, find_unused_parameters=not same_weights
        )

    def all_reduce_mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """Average scalars over all ranks, which call this with the same names."""
        if self.world_size == 1:
            return dict(values)
        from torch import distributed

        sums = torch.tensor([*values.values()], dtype=torch.float64)
        distributed.all_reduce(sums)
        return dict(zip(values, (sums / self.world_size).tolist(), strict=True))

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all ranks, which call this with tensors of one shape."""
        if self.world_size > 1:
            from torch import distributed

            values = values.clone()
            distributed.all_reduce(values)
        return values

    def barrier(self) -> None:
        """Wait until all processes have called this."""
        self.all_reduce_mean({"": 0.0})


def current_context() -> DistributedContext:
    """The context of the process group that this process has joined, or of a single process."""
    from torch import distributed

    if not distributed.is_available() or not distributed.is_initialized():
        return DistributedContext()
    return DistributedContext(distributed.get_rank(), distributed.get_world_size())


@contextmanager
def process_group() -> Iterator[DistributedContext]:
    """Join the other processes, if torchrun or srun has started this one as one of several.

    Raises:
        InputError: srun has started it and MASTER_ADDR is not set; or the connection to another
            process is lost, mostly because the other process has failed.
    """
    _translate_slurm()
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield DistributedContext()
        return
    from torch import distributed

    if torch.cuda.is_available():  # a launcher may give each process one visible GPU
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    distributed.init_process_group(timeout=TIMEOUT)
    context = current_context()
    try:
        yield context
    except KeyboardInterrupt:
        raise (KeyboardInterrupt if context.is_main_process else SystemExit(130)) from None
    except Exception as error:
        traceback.clear_frames(error.__traceback__)  # they refer to the wrapped model
        lost = isinstance(error, distributed.DistError) or "gloo" in str(error)
        # torchrun ends the other processes once one has failed: only the failed one reports.
        if lost or not context.is_main_process:
            time.sleep(10)
        if not lost:
            raise
        raise InputError(
            "another process of this run has failed or cannot be reached; the last good "
            "checkpoint is kept: continue with --resume"
        ) from None
    finally:
        gc.collect()  # a wrapped model in a cycle keeps threads of gloo that abort Python's exit
        distributed.destroy_process_group()


def _translate_slurm() -> None:
    """Set torchrun's variables where srun has started several tasks."""
    # Only srun sets SLURM_STEP_NUM_TASKS; the rest of a batch script is one process.
    if "WORLD_SIZE" in os.environ or int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) == 1:
        return
    if "MASTER_ADDR" not in os.environ:
        raise InputError(
            "srun has started several tasks, but MASTER_ADDR is not set: before srun, export "
            'MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)'
        )
    names = {"RANK": "PROCID", "WORLD_SIZE": "STEP_NUM_TASKS", "LOCAL_RANK": "LOCALID"}
    os.environ.update({name: os.environ[f"SLURM_{slurm}"] for name, slurm in names.items()})
    os.environ.setdefault("MASTER_PORT", "29400")

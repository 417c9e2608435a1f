"""Training: the loop, one step, checkpoints, and their options."""

from omnitraining.training.checkpointer import Checkpointer
from omnitraining.training.loop import check_distributed, train
from omnitraining.training.options import Training, find_device
from omnitraining.training.progress import Progress
from omnitraining.training.stepper import Scheduled, Stepper, faster_precision

__all__ = [
    "Checkpointer",
    "Progress",
    "Scheduled",
    "Stepper",
    "Training",
    "check_distributed",
    "faster_precision",
    "find_device",
    "train",
]

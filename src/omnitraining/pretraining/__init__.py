"""Pre-training algorithms, one file each."""

from omnitraining.pretraining.base import PreTraining
from omnitraining.pretraining.baseline import Baseline
from omnitraining.pretraining.l2_regression import L2Regression
from omnitraining.pretraining.linear_heads import LinearHead, LogisticHead, SGDHead

__all__ = ["Baseline", "L2Regression", "LinearHead", "LogisticHead", "PreTraining", "SGDHead"]

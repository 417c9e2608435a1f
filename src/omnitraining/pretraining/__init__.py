"""Pre-training algorithms, one file each."""

from omnitraining.pretraining.base import LinearPreTraining, PreTraining
from omnitraining.pretraining.baseline import Baseline
from omnitraining.pretraining.baseline_pp import BaselinePP
from omnitraining.pretraining.l2_regression import L2Regression
from omnitraining.pretraining.linear_heads import (
    CosineHead,
    LinearHead,
    LogisticHead,
    SGDHead,
)
from omnitraining.pretraining.neg_margin import NegMargin
from omnitraining.pretraining.pmm import PMM
from omnitraining.pretraining.reinforce import REINFORCE
from omnitraining.pretraining.rfs import RFS
from omnitraining.pretraining.robust import Robust
from omnitraining.pretraining.sgd_cosine_head import SGDCosineHead

__all__ = [
    "PMM",
    "REINFORCE",
    "RFS",
    "Baseline",
    "BaselinePP",
    "CosineHead",
    "L2Regression",
    "LinearHead",
    "LinearPreTraining",
    "LogisticHead",
    "NegMargin",
    "PreTraining",
    "Robust",
    "SGDCosineHead",
    "SGDHead",
]

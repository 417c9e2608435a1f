"""Omni-Training: one network, three flows, trained by pre-training and meta-training at once."""

from omnitraining.backbones import MLP, Conv4, ResNet10, ResNet18
from omnitraining.batches import Episode, MiniBatch
from omnitraining.errors import InputError
from omnitraining.evaluation import Evaluation, Inference, paired_difference
from omnitraining.metatraining import MAML, MetaTraining, ProtoNet
from omnitraining.model import Model, OmniLoss, OmniNetOptions, build_model
from omnitraining.omninet import OmniNet
from omnitraining.pretraining import Baseline, L2Regression, LogisticHead, PreTraining, SGDHead
from omnitraining.runs import Run
from omnitraining.tasks.base import Problem
from omnitraining.tasks.classification.glyph_problem import Glyphs
from omnitraining.tasks.classification.images import LabelledImages
from omnitraining.tasks.classification.problem import Classification, Protocol
from omnitraining.tasks.regression.sinusoids import Sinusoids
from omnitraining.teacher import Teacher
from omnitraining.training import Training, train

__all__ = [
    "MAML",
    "MLP",
    "Baseline",
    "Classification",
    "Conv4",
    "Episode",
    "Evaluation",
    "Glyphs",
    "Inference",
    "InputError",
    "L2Regression",
    "LabelledImages",
    "LogisticHead",
    "MetaTraining",
    "MiniBatch",
    "Model",
    "OmniLoss",
    "OmniNet",
    "OmniNetOptions",
    "PreTraining",
    "Problem",
    "ProtoNet",
    "Protocol",
    "ResNet10",
    "ResNet18",
    "Run",
    "SGDHead",
    "Sinusoids",
    "Teacher",
    "Training",
    "build_model",
    "paired_difference",
    "train",
]

"""The public names, each with its module: for type checkers, and for ``__init__.py``."""

from omnitraining.backbones import MLP as MLP
from omnitraining.backbones import Conv4 as Conv4
from omnitraining.backbones import FeatureWise as FeatureWise
from omnitraining.backbones import Frozen as Frozen
from omnitraining.backbones import R2D2Net as R2D2Net
from omnitraining.backbones import ResNet10 as ResNet10
from omnitraining.backbones import ResNet12 as ResNet12
from omnitraining.backbones import ResNet18 as ResNet18
from omnitraining.backbones import ScaleShift as ScaleShift
from omnitraining.backbones import ViT as ViT
from omnitraining.backbones import WideResNet as WideResNet
from omnitraining.batches import Episode as Episode
from omnitraining.batches import MiniBatch as MiniBatch
from omnitraining.batches import StepData as StepData
from omnitraining.datasets.images import LabeledImages as LabeledImages
from omnitraining.errors import CalibrationWarning as CalibrationWarning
from omnitraining.errors import InputError as InputError
from omnitraining.evaluation import Evaluation as Evaluation
from omnitraining.evaluation import Inference as Inference
from omnitraining.evaluation import paired_difference as paired_difference
from omnitraining.learner import FewShotClassifier as FewShotClassifier
from omnitraining.learner import FewShotRegressor as FewShotRegressor
from omnitraining.learner import load as load
from omnitraining.metatraining import ANIL as ANIL
from omnitraining.metatraining import CAN as CAN
from omnitraining.metatraining import GNN as GNN
from omnitraining.metatraining import LEO as LEO
from omnitraining.metatraining import MAML as MAML
from omnitraining.metatraining import TADAM as TADAM
from omnitraining.metatraining import MatchingNet as MatchingNet
from omnitraining.metatraining import MetaMaxUp as MetaMaxUp
from omnitraining.metatraining import MetaOptNet as MetaOptNet
from omnitraining.metatraining import MetaTraining as MetaTraining
from omnitraining.metatraining import MultiTask as MultiTask
from omnitraining.metatraining import ProtoNet as ProtoNet
from omnitraining.metatraining import RelationNet as RelationNet
from omnitraining.metatraining import Reptile as Reptile
from omnitraining.metatraining import TapNet as TapNet
from omnitraining.model import Model as Model
from omnitraining.model import OmniLoss as OmniLoss
from omnitraining.model import OmniNetOptions as OmniNetOptions
from omnitraining.model import build_model as build_model
from omnitraining.omninet import OmniNet as OmniNet
from omnitraining.pretraining import REINFORCE as REINFORCE
from omnitraining.pretraining import RFS as RFS
from omnitraining.pretraining import Baseline as Baseline
from omnitraining.pretraining import BaselinePP as BaselinePP
from omnitraining.pretraining import CosineHead as CosineHead
from omnitraining.pretraining import L2Regression as L2Regression
from omnitraining.pretraining import LogisticHead as LogisticHead
from omnitraining.pretraining import NegMargin as NegMargin
from omnitraining.pretraining import PreTraining as PreTraining
from omnitraining.pretraining import SGDCosineHead as SGDCosineHead
from omnitraining.pretraining import SGDHead as SGDHead
from omnitraining.runs.run import Run as Run
from omnitraining.tasks.base import Problem as Problem
from omnitraining.tasks.base import Supervised as Supervised
from omnitraining.tasks.classification.glyph_problem import Glyphs as Glyphs
from omnitraining.tasks.classification.photos import Photos as Photos
from omnitraining.tasks.classification.problem import Classification as Classification
from omnitraining.tasks.classification.problem import EpisodeConfig as EpisodeConfig
from omnitraining.tasks.regression.sinusoids import Sinusoids as Sinusoids
from omnitraining.tasks.reinforcement.environment import Environment as Environment
from omnitraining.tasks.reinforcement.gymnasium_tasks import GymnasiumTasks as GymnasiumTasks
from omnitraining.tasks.reinforcement.half_cheetah import (
    HalfCheetahDirection as HalfCheetahDirection,
)
from omnitraining.tasks.reinforcement.half_cheetah import HalfCheetahVelocity as HalfCheetahVelocity
from omnitraining.tasks.reinforcement.navigation import Navigation as Navigation
from omnitraining.tasks.reinforcement.problem import Reinforcement as Reinforcement
from omnitraining.teacher import Teacher as Teacher
from omnitraining.training import Training as Training
from omnitraining.training import train as train

__all__: list[str]

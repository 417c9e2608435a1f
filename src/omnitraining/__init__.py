"""Omni-Training: one network, three flows, trained by pre-training and meta-training at once.

Names are imported when they are first used, so that the command line answers without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omnitraining.backbones import (
        MLP,
        Conv4,
        FeatureWise,
        R2D2Net,
        ResNet10,
        ResNet12,
        ResNet18,
        ViT,
        WideResNet,
    )
    from omnitraining.batches import Episode, MiniBatch, StepData
    from omnitraining.datasets.images import LabeledImages
    from omnitraining.errors import CalibrationWarning, InputError
    from omnitraining.evaluation import Evaluation, Inference, paired_difference
    from omnitraining.learner import FewShotClassifier, FewShotRegressor, load
    from omnitraining.metatraining import (
        GNN,
        MAML,
        MatchingNet,
        MetaOptNet,
        MetaTraining,
        ProtoNet,
        RelationNet,
    )
    from omnitraining.model import Model, OmniLoss, OmniNetOptions, build_model
    from omnitraining.omninet import OmniNet
    from omnitraining.pretraining import (
        REINFORCE,
        RFS,
        Baseline,
        BaselinePP,
        CosineHead,
        L2Regression,
        LogisticHead,
        NegMargin,
        PreTraining,
        SGDHead,
    )
    from omnitraining.runs.run import Run
    from omnitraining.tasks.base import Problem, Supervised
    from omnitraining.tasks.classification.glyph_problem import Glyphs
    from omnitraining.tasks.classification.photos import Photos
    from omnitraining.tasks.classification.problem import Classification, EpisodeConfig
    from omnitraining.tasks.regression.sinusoids import Sinusoids
    from omnitraining.tasks.reinforcement.environment import Environment
    from omnitraining.tasks.reinforcement.gymnasium_tasks import GymnasiumTasks
    from omnitraining.tasks.reinforcement.half_cheetah import (
        HalfCheetahDirection,
        HalfCheetahVelocity,
    )
    from omnitraining.tasks.reinforcement.navigation import Navigation
    from omnitraining.tasks.reinforcement.problem import Reinforcement
    from omnitraining.teacher import Teacher
    from omnitraining.training import Training, train

_PLACES = {
    "backbones": "MLP Conv4 FeatureWise R2D2Net ResNet10 ResNet12 ResNet18 ViT WideResNet",
    "batches": "Episode MiniBatch StepData",
    "errors": "CalibrationWarning InputError",
    "evaluation": "Evaluation Inference paired_difference",
    "learner": "FewShotClassifier FewShotRegressor load",
    "metatraining": "GNN MAML MatchingNet MetaOptNet MetaTraining ProtoNet RelationNet",
    "model": "Model OmniLoss OmniNetOptions build_model",
    "omninet": "OmniNet",
    "pretraining": "REINFORCE RFS Baseline BaselinePP CosineHead L2Regression LogisticHead "
    "NegMargin PreTraining SGDHead",
    "runs.run": "Run",
    "tasks.base": "Problem Supervised",
    "tasks.classification.glyph_problem": "Glyphs",
    "datasets.images": "LabeledImages",
    "tasks.classification.photos": "Photos",
    "tasks.classification.problem": "Classification EpisodeConfig",
    "tasks.regression.sinusoids": "Sinusoids",
    "tasks.reinforcement.environment": "Environment",
    "tasks.reinforcement.gymnasium_tasks": "GymnasiumTasks",
    "tasks.reinforcement.half_cheetah": "HalfCheetahDirection HalfCheetahVelocity",
    "tasks.reinforcement.navigation": "Navigation",
    "tasks.reinforcement.problem": "Reinforcement",
    "teacher": "Teacher",
    "training": "Training train",
}
"""The public names, by the module that holds them."""

_MODULES = {name: module for module, names in _PLACES.items() for name in names.split()}


_FORMERLY = {"LabelledImages": "LabeledImages"}
"""Today's name of a public class, by its former one."""


def __getattr__(name: str) -> Any:
    name = _FORMERLY.get(name, name)
    if name not in _MODULES:
        raise AttributeError(f"module 'omnitraining' has no attribute {name!r}")
    found = getattr(import_module(f"omnitraining.{_MODULES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})


__all__ = [
    "GNN",
    "MAML",
    "MLP",
    "REINFORCE",
    "RFS",
    "Baseline",
    "BaselinePP",
    "CalibrationWarning",
    "Classification",
    "Conv4",
    "CosineHead",
    "Environment",
    "Episode",
    "EpisodeConfig",
    "Evaluation",
    "FeatureWise",
    "FewShotClassifier",
    "FewShotRegressor",
    "Glyphs",
    "GymnasiumTasks",
    "HalfCheetahDirection",
    "HalfCheetahVelocity",
    "Inference",
    "InputError",
    "L2Regression",
    "LabeledImages",
    "LogisticHead",
    "MatchingNet",
    "MetaOptNet",
    "MetaTraining",
    "MiniBatch",
    "Model",
    "Navigation",
    "NegMargin",
    "OmniLoss",
    "OmniNet",
    "OmniNetOptions",
    "Photos",
    "PreTraining",
    "Problem",
    "ProtoNet",
    "R2D2Net",
    "Reinforcement",
    "RelationNet",
    "ResNet10",
    "ResNet12",
    "ResNet18",
    "Run",
    "SGDHead",
    "Sinusoids",
    "StepData",
    "Supervised",
    "Teacher",
    "Training",
    "ViT",
    "WideResNet",
    "build_model",
    "load",
    "paired_difference",
    "train",
]

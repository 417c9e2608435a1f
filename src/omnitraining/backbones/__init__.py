"""Backbones: ordinary modules, which OmniNet turns into three flows."""

from omnitraining.backbones.conv4 import Conv4
from omnitraining.backbones.feature_wise import FeatureWise
from omnitraining.backbones.frozen import Frozen
from omnitraining.backbones.mlp import MLP
from omnitraining.backbones.network_ensemble import NetworkEnsemble
from omnitraining.backbones.r2d2 import R2D2Net
from omnitraining.backbones.resnet import ResNet10, ResNet18
from omnitraining.backbones.resnet12 import ResNet12
from omnitraining.backbones.scale_shift import ScaleShift
from omnitraining.backbones.vit import ViT
from omnitraining.backbones.wide_resnet import WideResNet

__all__ = [  # noqa: RUF022 (as the command line lists them: what goes around a backbone is last)
    "MLP",
    "Conv4",
    "R2D2Net",
    "ResNet10",
    "ResNet12",
    "ResNet18",
    "ViT",
    "WideResNet",
    "FeatureWise",
    "Frozen",
    "NetworkEnsemble",
    "ScaleShift",
]

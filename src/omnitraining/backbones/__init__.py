"""Backbones: ordinary modules that have never heard of flows."""

from omnitraining.backbones.conv4 import Conv4
from omnitraining.backbones.mlp import MLP
from omnitraining.backbones.resnet import ResNet10, ResNet18

__all__ = ["MLP", "Conv4", "ResNet10", "ResNet18"]

"""An image and its mirror image: features are the mean of both."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def with_mirror_images(x: Tensor) -> Tensor:
    """Images [B, C, H, W] followed by their mirror images, [2B, C, H, W]."""
    return torch.cat([x, x.flip(-1)])


def mean_of_views(features: Tensor) -> Tensor:
    """Mean features [B, ...] of each image and its mirror image, of `with_mirror_images`."""
    mean: Tensor = features.unflatten(0, (2, -1)).mean(0)
    return mean


def features_of(
    x: Tensor, trunk: nn.Module, backbones: Iterable[nn.Module], flip: bool
) -> list[Tensor]:
    """The features of images by each backbone.

    Args:
        x: normalized images [B, C, H, W].
        trunk: the layers that all backbones share.
        backbones: from what the trunk returns to features [B, D].
        flip: whether features are the mean of an image's and its mirror image's.
    """
    common = trunk(with_mirror_images(x) if flip else x)
    features = [backbone(common) for backbone in backbones]
    return [mean_of_views(part) for part in features] if flip else features

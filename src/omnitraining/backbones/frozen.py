"""A backbone that stays as it is, under a head that learns."""

from collections.abc import Callable

from torch import Tensor, nn

from omnitraining.errors import InputError


class Frozen(nn.Module):
    """A backbone whose weights and statistics do not change in training.

    It is of use with ``start_from``, which names the run that trained it. Only the head is trained,
    as in `LEO` on the features of a trained network.

    Args:
        backbone: class or function that makes the backbone.

    Raises:
        InputError: a module is given in place of what makes one.

    Shape: as the backbone.

    Example:
        >>> import torch
        >>> from omnitraining import Conv4, Frozen
        >>> backbone = Frozen(lambda: Conv4(width=8)).train()
        >>> images = torch.rand(2, 3, 32, 32)
        >>> torch.equal(backbone(images), backbone.eval()(images))  # running statistics
        True
    """

    def __init__(self, backbone: Callable[[], nn.Module]) -> None:
        """Make the backbone and freeze its weights."""
        super().__init__()
        self.backbone = made_by(backbone).requires_grad_(False)

    def train(self, mode: bool = True) -> "Frozen":
        """Keep the backbone in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Features of the backbone."""
        features: Tensor = self.backbone(x)
        return features


def made_by(backbone: Callable[[], nn.Module]) -> nn.Module:
    """The backbone that a class or a function makes.

    Raises:
        InputError: it is a module. (An existing backbone could neither be initialized from the seed
            of a run nor made twice, as Ensemble needs it.)
    """
    if isinstance(backbone, nn.Module):
        raise InputError(
            f"backbone is a {type(backbone).__name__}: it must be what makes one, as a class "
            "or a function without arguments"
        )
    return backbone()

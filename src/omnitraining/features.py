"""The size of a backbone's features, and a check that it returns features at all."""

import torch
from torch import Tensor, nn

from omnitraining.errors import InputError, described
from omnitraining.libraries import PooledBackbone


@torch.no_grad()
def feature_size(backbone: nn.Module, example: Tensor) -> int:
    """D of a backbone, from forward passes of two inputs and of one in evaluation mode.

    Args:
        backbone: any module.
        example: two inputs [2, ...].

    Raises:
        InputError: the output is not a tensor [2, D], and [1, D] for one input, of the type of
            numbers that heads compute with; or the backbone raises an error.
    """
    if isinstance(backbone, PooledBackbone) and backbone.features is not None:
        return backbone.features  # its forward passes may take seconds
    kind, shape = type(backbone).__name__, list(example.shape)
    features = _output(backbone, example)
    if not isinstance(features, Tensor) or features.dim() != 2 or len(features) != len(example):
        returned = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise InputError(
            f"backbone {kind} returns {returned} for inputs of shape {shape}: wrap it in a module "
            f"that returns features [B, D], here [{len(example)}, D]"
        )
    wanted = example.dtype if example.is_floating_point() else torch.get_default_dtype()
    if features.dtype != wanted:
        raise InputError(
            f"backbone {kind} returns features of {_name(features.dtype)} for inputs of "
            f"{_name(example.dtype)}: they must be of {_name(wanted)}, as .to() makes them"
        )
    size = features.shape[1]
    one = _output(backbone, example[:1])
    if not isinstance(one, Tensor) or one.shape != (1, size):
        returned = list(one.shape) if isinstance(one, Tensor) else type(one).__name__
        raise InputError(
            f"backbone {kind} returns {returned} for one input, of shape {[1, *shape[1:]]}, and "
            f"not {[1, size]}: a squeeze() takes away the dimension of the batch; use flatten(1)"
        )
    return size


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _output(backbone: nn.Module, x: Tensor) -> object:
    """The output of a backbone in evaluation mode; its modes are restored.

    Raises:
        InputError: it raised an error.
    """
    modes = {module: module.training for module in backbone.modules()}
    try:
        return backbone.eval()(x)
    except Exception as error:  # of any kind: it is the user's code
        raise InputError(
            f"backbone {type(backbone).__name__} does not take inputs of shape {list(x.shape)}: "
            f"{described(error)}"
        ) from error
    finally:
        for module, training in modes.items():
            module.training = training

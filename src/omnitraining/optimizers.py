"""SGD and Adam of torch without the import of its compiler, which takes seconds.

Torch decorates methods of its optimizers so that its compiler leaves them alone, and imports the
compiler for that when one of them is first called, whether or not anything is compiled. Here the
undecorated methods are called.
"""

from inspect import unwrap
from typing import Any

import torch


class Uncompiled(torch.optim.Optimizer):
    """Makes an optimizer never import torch's compiler; to be named before torch's class."""

    add_param_group = unwrap(torch.optim.Optimizer.add_param_group)
    load_state_dict = unwrap(torch.optim.Optimizer.load_state_dict)
    state_dict = unwrap(torch.optim.Optimizer.state_dict)
    zero_grad = unwrap(torch.optim.Optimizer.zero_grad)


class SGD(Uncompiled, torch.optim.SGD):
    """`torch.optim.SGD`."""

    step: Any = torch.no_grad()(unwrap(torch.optim.SGD.step))


class Adam(Uncompiled, torch.optim.Adam):
    """`torch.optim.Adam`."""

    step: Any = torch.no_grad()(unwrap(torch.optim.Adam.step))


class AdamW(Uncompiled, torch.optim.AdamW):
    """`torch.optim.AdamW`."""

    step: Any = torch.no_grad()(unwrap(torch.optim.AdamW.step))

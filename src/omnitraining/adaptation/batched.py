"""Networks side by side: of one architecture, each task with weights of its own, all at once."""

from collections.abc import Callable
from functools import reduce
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.utils import parametrize

from omnitraining.backbones import MLP
from omnitraining.network import Network
from omnitraining.omninet import plain
from omnitraining.policies.gaussian import GaussianHead, gaussian

Weights = dict[str, Tensor]

PER_SAMPLE = (Network, MLP, nn.Sequential, nn.Linear, nn.Tanh, nn.ReLU, GaussianHead)
"""Modules known to treat the last dimension alone, and to run what they hold in order."""
RECURRENT = (nn.RNNBase, nn.RNNCellBase)
"""Modules known to have no rule in vmap."""


def copies(network: nn.Module, tasks: int) -> Weights:
    """The weights of a network, once for each of T tasks [T, ...]; no memory is copied."""
    return {name: p.detach().expand(tasks, *p.shape) for name, p in network.named_parameters()}


def is_tied(network: nn.Module) -> bool:
    """Whether a parameter has several names."""
    names = list(network.named_parameters(remove_duplicate=False))
    return len(names) > len(list(network.parameters()))


class SideBySide:
    """T networks as one, differentiable in their weights.

    Where every layer is known, branches are folded into weights and linear layers become batched
    products, at half the cost of vmap; any other network goes through vmap, or network by network
    where vmap cannot, as with recurrent layers and control flow on values. Its buffers are left as
    they are.

    Args:
        network: the architecture.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network, self._known = network, _is_known(network)
        self._apart = any(isinstance(m, RECURRENT) for m in network.modules())
        if self._known:
            branched = any(parametrize.is_parametrized(m) for m in network.modules())
            self._plain = plain(network) if branched else network
            names = [name for name, _ in self._plain.named_parameters()]
            self._folding = _Folding(network, names) if branched else None

    def __call__(self, weights: Weights, x: Tensor) -> Tensor:
        """Outputs [T, M, O] of inputs [T, M, ...] under weights [T, ...]."""
        return self.bind(weights)(x)

    def bind(self, weights: Weights) -> Callable[[Tensor], Tensor]:
        """The T networks as a function of inputs [T, M, ...], which returns [T, M, O].

        Args:
            weights: by the names of the network's parameters [T, ...].
        """
        if not self._known:
            return lambda x: self._unknown(weights, x)
        if (folding := self._folding) is not None:
            weights = {f"network.{name}": weight for name, weight in weights.items()}
            weights = vmap(lambda own: functional_call(folding, own, ()))(weights)
        return _bound(self._plain, weights, "")

    def _unknown(self, weights: Weights, x: Tensor) -> Tensor:
        if not self._apart:
            try:
                return self._mapped(weights, x)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:  # mostly vmap's; of others, each network alone raises its own
                self._apart = True
        alone = [
            self._run(
                {name: w[t] for name, w in weights.items()},
                {name: b.clone() for name, b in self._buffers(weights).items()},
                x[t],
            )
            for t in range(len(x))
        ]
        return torch.stack(alone)

    def _mapped(self, weights: Weights, x: Tensor) -> Tensor:
        buffers = self._buffers(weights)
        state = {name: b.expand(len(x), *b.shape).clone() for name, b in buffers.items()}
        outputs: Tensor = vmap(self._run, randomness="different")(weights, state, x)
        return outputs

    def _run(self, weights: Weights, buffers: Weights, x: Tensor) -> Tensor:
        outputs: Tensor = functional_call(self._network, (weights, buffers), (x,))
        return outputs

    def _buffers(self, weights: Weights) -> Weights:
        """The buffers, without those that adapt, as of a head that was fitted."""
        return {name: b for name, b in self._network.named_buffers() if name not in weights}


def _is_known(network: nn.Module) -> bool:
    """Whether nothing but `PER_SAMPLE` is in a network, beside the branches of Omni-Layers."""
    branched = [m for m in network.modules() if parametrize.is_parametrized(m)]
    branches = {part for m in branched for part in cast(nn.Module, m.parametrizations).modules()}
    # torch derives a class for each parametrized layer.
    kinds = {
        type(m).__bases__[0] if m in branched else type(m)
        for m in network.modules()
        if m not in branches
    }
    return kinds <= {*PER_SAMPLE} and not is_tied(network)


class _Folding(nn.Module):
    """Puts out the effective weights of a network, by their names in its plain copy."""

    def __init__(self, network: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.network = network
        self.names = names

    def forward(self) -> Weights:
        paths = {name: name.rpartition(".") for name in self.names}
        return {
            name: getattr(self.network.get_submodule(path), last)
            for name, (path, _, last) in paths.items()
        }


def _bound(module: nn.Module, weights: Weights, path: str) -> Callable[[Tensor], Tensor]:
    """A known module with the weights that stand under a path."""
    if isinstance(module, nn.Linear):
        weight, bias = weights[f"{path}weight"].mT.contiguous(), weights.get(f"{path}bias")
        added = weight.new_zeros(()) if bias is None else bias.unsqueeze(1)
        return lambda x: torch.baddbmm(added, x, weight)
    if isinstance(module, GaussianHead):
        mean = _bound(module.mean, weights, f"{path}mean.")
        log_std = weights[f"{path}log_std"].unsqueeze(1)
        return lambda features: gaussian(mean(features), log_std)
    children = dict(module.named_children())
    if isinstance(module, Network):  # it may hold more, which its forward pass does not use
        children = {"backbone": module.backbone, "head": module.head}
    parts = [_bound(part, weights, f"{path}{name}.") for name, part in children.items()]
    return (lambda x: reduce(lambda y, part: part(y), parts, x)) if parts else module

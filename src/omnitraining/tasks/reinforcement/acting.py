"""From networks to policies that act fast: branches folded into weights, tasks side by side."""

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from omnitraining.adaptation import Weights
from omnitraining.backbones import MLP
from omnitraining.network import Network
from omnitraining.omninet import plain
from omnitraining.policy import GaussianHead
from omnitraining.tasks.reinforcement.trajectories import Policy

PER_STATE = (Network, MLP, nn.Sequential, nn.Linear, nn.Tanh, nn.ReLU, GaussianHead)
"""Modules known to treat the last dimension alone, whatever comes before it."""


def copies(network: nn.Module, tasks: int) -> Weights:
    """The weights of a network, once for each of T tasks [T, ...]; no memory is copied."""
    return {name: p.detach().expand(tasks, *p.shape) for name, p in network.named_parameters()}


def one_policy(network: nn.Module) -> Policy:
    """One network acts in all tasks."""
    folded = plain(network)
    return lambda states: folded(states.flatten(0, 1)).unflatten(0, states.shape[:2])


def policies(network: nn.Module, weights: Weights) -> Policy:
    """Every task has a network of its own.

    Args:
        network: the architecture.
        weights: by the names of ``network``'s parameters [T, ...].
    """
    folded = plain(network)
    effective: Weights = vmap(lambda own: functional_call(_Folding(network, folded), own, ()))(
        {f"network.{name}": weight for name, weight in weights.items()}
    )
    tied = len(list(folded.named_parameters(remove_duplicate=False))) > len(effective)
    if all(type(module) in PER_STATE for module in folded.modules()) and not tied:
        return _side_by_side(folded, effective)
    return lambda states: vmap(lambda own, s: functional_call(folded, own, (s,)))(effective, states)


class _Folding(nn.Module):
    """Puts out the effective weights of a network, by the names of its plain copy."""

    def __init__(self, network: nn.Module, folded: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.names = [name for name, _ in folded.named_parameters()]

    def forward(self) -> Weights:
        paths = {name: name.rpartition(".") for name in self.names}
        return {
            name: getattr(self.network.get_submodule(path), last)
            for name, (path, _, last) in paths.items()
        }


class _Linears(nn.Module):
    """T linear layers as one product: [T, M, D] -> [T, M, O]. Half the cost of vmap for an MLP."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = weight.mT.contiguous()
        self.bias = weight.new_zeros(()) if bias is None else bias.unsqueeze(1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


def _side_by_side(folded: nn.Module, weights: Weights) -> nn.Module:
    """A module whose linear layers and log standard deviations have a leading task dimension."""
    for path, module in list(folded.named_modules()):
        if type(module) is nn.Linear:
            parent, _, last = path.rpartition(".")
            linears = _Linears(weights[f"{path}.weight"], weights.get(f"{path}.bias"))
            setattr(folded.get_submodule(parent), last, linears)
        elif isinstance(module, GaussianHead):
            spread = weights[f"{path}.log_std"].unsqueeze(1)
            module.log_std = nn.Parameter(spread, requires_grad=False)
    return folded

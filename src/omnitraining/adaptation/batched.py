"""Many networks of one architecture, each with its own weights, evaluated in one batch."""

from collections.abc import Callable, Mapping
from functools import reduce
from itertools import pairwise
from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.utils import parametrize

from omnitraining.network import MeanNetwork, Network

Weights = dict[str, Tensor]
Forward = Callable[[Tensor], Tensor]

LAYERS = (nn.Linear, nn.Tanh, nn.ReLU)
"""Layers that treat the last dimension alone and that `BatchedModules` computes without vmap."""
RECURRENT = (nn.RNNBase, nn.RNNCellBase)
"""Layers without a batching rule in vmap."""


@runtime_checkable
class LinearModule(Protocol):
    """A module that computes a linear layer from weights in a custom parametrization."""

    def as_linear(self, weights: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Weight [..., O, D] and bias [..., O] of the layer.

        Args:
            weights: parameters of the module and of its children [..., *], by name.
        """


def expand_weights(network: nn.Module, tasks: int) -> Weights:
    """The weights of a network, repeated for each of T tasks [T, ...]; no memory is copied.

    Args:
        network: any module.
        tasks: T.
    """
    return {name: p.detach().expand(tasks, *p.shape) for name, p in network.named_parameters()}


def is_tied(network: nn.Module) -> bool:
    """Whether a parameter has several names."""
    names = list(network.named_parameters(remove_duplicate=False))
    return len(names) > len(list(network.parameters()))


class BatchedModules:
    """T networks of one architecture as one function, differentiable in their weights.

    Networks of `LAYERS`, ``nn.Sequential`` and `LinearModule` become batched matrix products, at
    half the cost of vmap; the branches of Omni-Layers are first added to their weights. Other
    networks go through vmap, or through a loop over networks where vmap fails, as with recurrent
    layers and control flow on values. Buffers are not changed.

    Args:
        network: the architecture.

    Example:
        >>> import torch
        >>> network = torch.nn.Linear(2, 1)
        >>> weights = expand_weights(network, 3)
        >>> BatchedModules(network)(weights, torch.zeros(3, 5, 2)).shape
        torch.Size([3, 5, 1])
    """

    def __init__(self, network: nn.Module) -> None:
        """Choose the way to compute the outputs of the network."""
        self._network, self._without_vmap = network, _is_known(network)
        self._needs_loop = any(isinstance(m, RECURRENT) for m in network.modules())
        branched = any(parametrize.is_parametrized(m) for m in network.modules())
        self._effective = _EffectiveWeights(network) if branched and self._without_vmap else None

    def __call__(self, weights: Weights, x: Tensor) -> Tensor:
        """Outputs [T, M, O] of inputs [T, M, ...] under weights [T, ...]."""
        return self.bind(weights)(x)

    def bind(self, weights: Weights) -> Forward:
        """The T networks as a function of inputs [T, M, ...], which returns [T, M, O].

        Args:
            weights: by the names of the network's parameters [T, ...].
        """
        if not self._without_vmap:
            return lambda x: self._vmapped_or_looped(weights, x)
        if (effective := self._effective) is not None:
            weights = {f"network.{name}": weight for name, weight in weights.items()}
            weights = vmap(lambda one: functional_call(effective, one, ()))(weights)
        return _bind(self._network, weights, "")

    def _vmapped_or_looped(self, weights: Weights, x: Tensor) -> Tensor:
        if not self._needs_loop:
            try:
                return self._vmapped(weights, x)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:  # mostly vmap's; the loop raises errors of the network itself
                self._needs_loop = True
        return self._looped(weights, x)

    def _vmapped(self, weights: Weights, x: Tensor) -> Tensor:
        buffers = self._buffers(weights)
        state = {name: b.expand(len(x), *b.shape).clone() for name, b in buffers.items()}
        outputs: Tensor = vmap(self._run, randomness="different")(weights, state, x)
        return outputs

    def _looped(self, weights: Weights, x: Tensor) -> Tensor:
        outputs = [
            self._run(
                {name: w[t] for name, w in weights.items()},
                {name: b.clone() for name, b in self._buffers(weights).items()},
                x[t],
            )
            for t in range(len(x))
        ]
        return torch.stack(outputs)

    def _run(self, weights: Weights, buffers: Weights, x: Tensor) -> Tensor:
        outputs: Tensor = functional_call(self._network, (weights, buffers), (x,))
        return outputs

    def _buffers(self, weights: Weights) -> Weights:
        """The buffers that are not in ``weights``, which may hold buffers of fitted heads."""
        return {name: b for name, b in self._network.named_buffers() if name not in weights}


def _is_known(network: nn.Module) -> bool:
    """Whether `_bind` can compute all modules, apart from the branches of Omni-Layers."""
    branched = [m for m in network.modules() if parametrize.is_parametrized(m)]
    branches = {part for m in branched for part in cast(nn.Module, m.parametrizations).modules()}
    # torch derives a class for each parametrized layer.
    kinds = {
        type(m).__bases__[0] if m in branched else type(m)
        for m in network.modules()
        if m not in branches
    }
    return all(map(_is_known_class, kinds)) and not is_tied(network)


def _is_known_class(kind: type[nn.Module]) -> bool:
    # A subclass may override forward, so that an inherited as_linear does not count.
    return (
        kind in (Network, MeanNetwork, nn.ModuleList, *LAYERS)
        or kind.forward is nn.Sequential.forward
        or "as_linear" in vars(kind)
    )


class _EffectiveWeights(nn.Module):
    """Returns the weights of a network with its branches added, by the names of its layers."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self) -> Weights:
        return {
            f"{path}.{name}" if path else name: getattr(module, name)
            for path, module in self.network.named_modules()
            if "parametrizations" not in path.split(".")
            for name in _parameter_names(module)
        }


def _parameter_names(module: nn.Module) -> list[str]:
    """Names of the weights that a module itself computes with, with branches or without."""
    names = [name for name, _ in module.named_parameters(recurse=False)]
    branched = parametrize.is_parametrized(module)
    return [*names, *cast(nn.ModuleDict, module.parametrizations)] if branched else names


def _bind(module: nn.Module, weights: Mapping[str, Tensor], prefix: str) -> Forward:
    """The forward pass of a known module under the weights whose names have a prefix."""
    if isinstance(module, nn.Linear):
        return _linear(weights[f"{prefix}weight"], weights.get(f"{prefix}bias"))
    if isinstance(module, LinearModule):
        own = {n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)}
        return _linear(*module.as_linear(own))
    if isinstance(module, MeanNetwork):
        networks = module.networks.named_children()
        members = [_bind(each, weights, f"{prefix}networks.{name}.") for name, each in networks]
        return lambda x: torch.stack([member(x) for member in members]).mean(0)
    children = dict(module.named_children())
    if isinstance(module, Network):  # it may hold more, which its forward pass does not use
        children = {"backbone": module.backbone, "head": module.head}
    parts = [_bind(child, weights, f"{prefix}{name}.") for name, child in children.items()]
    for index, (before, child) in enumerate(pairwise(children.values()), 1):
        if isinstance(before, nn.Linear) and isinstance(child, nn.Tanh):
            parts[index] = _tanh_of_a_result
    return (lambda x: reduce(lambda y, part: part(y), parts, x)) if parts else module


def _tanh_of_a_result(x: Tensor) -> Tensor:
    """Tanh, in place where there is no gradient: a layer's output is used only here."""
    return torch.tanh(x) if torch.is_grad_enabled() else x.tanh_()


def _linear(weight: Tensor, bias: Tensor | None) -> Forward:
    """The linear layers of T tasks, of weights [T, O, D] and biases [T, O]."""
    factor = weight.mT.contiguous()
    added = weight.new_zeros(()) if bias is None else bias.unsqueeze(1)
    return lambda x: torch.baddbmm(added, x, factor)

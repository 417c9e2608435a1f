"""Gradient adaptation of a whole network to tasks, all tasks at once: the inner loop of MAML.

theta' = theta - lr * grad_theta E_S l(y, H o F(x; theta))      (below eq. 19, any number of steps)
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.conv import _ConvNd

from omnitraining.batches import Episode, channels_last

Weights = dict[str, Tensor]
Slope = Callable[[Weights, Tensor, Tensor, Weights], Weights]


def adapted_outputs(
    network: nn.Module,
    episode: Episode,
    loss: Callable[[Tensor, Tensor], Tensor],
    after: Sequence[int],
    lr: float,
    second_order: bool = True,
    chunk: int | None = None,
) -> Tensor:
    """Query outputs of a network fine-tuned on each task's support set, after numbers of steps.

    Every parameter of the network adapts, by plain gradient descent on the whole support set.
    Batch norm always uses the statistics of the batch at hand, in training and at test, and its
    running statistics are left as they are (as MAML's own code does).

    Args:
        network: backbone and head.
        episode: T tasks; inputs, not features.
        loss: mean loss of outputs and targets of one task.
        after: numbers of gradient steps to report, rising, 0 or more.
        lr: inner learning rate.
        second_order: let the outer gradient flow through the inner gradients.
        chunk: tasks computed at a time; all at once if None. Networks with norms are computed
            task by task where the outer gradient flows through inner gradients, and those with
            convolutions on a CPU.

    Returns:
        Outputs [len(after), T, Q, O].
    """
    # Without an outer gradient there is nothing to keep the inner graphs for.
    keep_graph = second_order and torch.is_grad_enabled()
    weights: Weights = dict(network.named_parameters())
    if not torch.is_grad_enabled():
        weights = {name: p.detach() for name, p in weights.items()}
    tied = len(list(network.named_parameters(remove_duplicate=False))) > len(weights)
    buffers = {name: b.clone() for name, b in network.named_buffers()}

    def outputs_of(fast: Weights, state: Weights, x: Tensor) -> Tensor:
        outputs: Tensor = functional_call(network, (fast, state), (x,), tie_weights=tied)
        return outputs

    def support_loss(fast: Weights, x: Tensor, y: Tensor, state: Weights) -> Tensor:
        return loss(outputs_of(fast, state, x), y)

    def slope_of_one(fast: Weights, x: Tensor, y: Tensor, state: Weights) -> Weights:
        with torch.enable_grad():
            leaves = {
                name: w if w.requires_grad else w.detach().requires_grad_()
                for name, w in fast.items()
            }
            value = support_loss(leaves, x, y, state)
            slopes = torch.autograd.grad(
                value, list(leaves.values()), create_graph=keep_graph, materialize_grads=True
            )
        return dict(zip(fast, slopes, strict=True))

    def descend(slope: Slope, x: Tensor, y: Tensor, query: Tensor, state: Weights) -> Tensor:
        fast, outputs = weights, []
        for step in range(after[-1] + 1):
            if step in after:
                outputs.append(outputs_of(fast, state, query))
            if step < after[-1]:
                slopes = slope(fast, x, y, state)
                if not second_order:
                    slopes = {name: g.detach() for name, g in slopes.items()}
                fast = {name: w - lr * slopes[name] for name, w in fast.items()}
        return torch.stack(outputs)

    sets = episode.support_x, episode.support_y, episode.query_x
    # Of all ways to compute attention, only the plain one can be differentiated twice.
    with _batch_statistics(network), sdpa_kernel(SDPBackend.MATH):
        if len(episode.support_x) == 1 or _better_apart(network, episode, keep_graph):
            # Plain autograd: torch.func costs several times as much on one small network.
            tasks_apart = [
                descend(slope_of_one, channels_last(x), y, channels_last(query), buffers)
                for x, y, query in zip(*sets, strict=True)
            ]
            return torch.stack(tasks_apart, 1)
        tasks = len(episode.support_x)
        state = {name: b.expand(tasks, *b.shape).clone() for name, b in buffers.items()}
        together = vmap(
            partial(descend, grad(support_loss)),
            out_dims=1,
            randomness="different",
            chunk_size=chunk,
        )
        outputs: Tensor = together(*sets, state)
        return outputs


@torch.no_grad()
def descended(
    network: nn.Module,
    weights: Weights,
    x: Tensor,
    y: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    lr: float,
) -> Weights:
    """T networks of one architecture, each after one gradient step on its own samples.

    For networks whose next samples depend on their weights, as policies; `adapted_outputs` keeps
    the samples. No gradient flows through.

    Args:
        network: backbone and head, without norms that need batch statistics.
        weights: of each network, by the names of ``network``'s parameters [T, ...].
        x: inputs [T, S, ...].
        y: targets [T, S, ...].
        loss: mean loss of outputs and targets of one task.
        lr: learning rate.
    """

    def support_loss(fast: Weights, x: Tensor, y: Tensor) -> Tensor:
        return loss(functional_call(network, fast, (x,)), y)

    slopes = vmap(grad(support_loss))(weights, x, y)
    return {name: w - lr * slopes[name] for name, w in weights.items()}


def adapted(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    steps: int,
    lr: float,
) -> nn.Module:
    """A copy of a network after gradient steps on one support set, ready to be kept.

    The steps are those of `adapted_outputs`. There, batch norm sees the statistics of the queries;
    here it keeps those of the support set, so that every query is judged by itself.

    Args:
        network: backbone and head.
        x: support inputs [S, ...].
        y: their targets [S, ...].
        loss: mean loss of outputs and targets.
        steps: gradient steps.
        lr: learning rate.
    """
    changed = copy.deepcopy(network).requires_grad_().eval()
    optimiser = torch.optim.SGD(changed.parameters(), lr)
    with torch.enable_grad(), _batch_statistics(changed):
        for _ in range(steps):
            optimiser.zero_grad()
            loss(changed(x), y).backward()
            optimiser.step()
    norms = [m for m in changed.modules() if isinstance(m, _BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = 1.0
    with torch.no_grad(), _batch_statistics(changed):
        changed(x)
    return changed.requires_grad_(False)


def _better_apart(network: nn.Module, episode: Episode, keep_graph: bool) -> bool:
    """Whether tasks must, or had better, be computed one after the other.

    Under vmap torch has wrong second derivatives of batch and layer norms (2.13), and convolutions
    with weights per task become grouped ones, which take a CPU more than twice as long.
    """
    has_norms = any(
        isinstance(m, (_NormBase, nn.LayerNorm, nn.GroupNorm)) for m in network.modules()
    )
    has_convolutions = any(isinstance(m, _ConvNd) for m in network.modules())
    on_cpu = episode.support_x.device.type == "cpu"
    return (keep_graph and has_norms) or (on_cpu and has_convolutions)


@contextmanager
def _batch_statistics(network: nn.Module) -> Iterator[None]:
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm)]
    before = [norm.training for norm in norms]
    for norm in norms:
        norm.training = True
    try:
        yield
    finally:
        for norm, training in zip(norms, before, strict=True):
            norm.training = training

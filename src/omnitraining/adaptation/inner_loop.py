"""Gradient adaptation of a whole network to tasks, all tasks at once: the inner loop of MAML.

theta' = theta - lr * grad_theta E_S l(y, H o F(x; theta))      (below eq. 19, any number of steps)
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.conv import _ConvNd

from omnitraining.adaptation.batched import SideBySide, Weights, is_tied
from omnitraining.batches import Episode, channels_last

Loss = Callable[[Tensor, Tensor], Tensor]
Run = Callable[[Weights, Tensor], Tensor]
"""From weights and inputs to outputs."""

ROWS = 8192
"""Support samples that are computed at a time on a CPU, so that small layers stay in its cache."""


def adapted_outputs(
    network: nn.Module,
    episode: Episode,
    loss: Loss,
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
        chunk: tasks computed at a time; if None, as many as fit a CPU's cache, or all on a GPU.
            Networks with norms are computed task by task where the outer gradient flows through
            inner gradients, and those with convolutions on a CPU.

    Returns:
        Outputs [len(after), T, Q, O].
    """
    # Without an outer gradient there is nothing to keep the inner graphs for.
    keep_graph = second_order and torch.is_grad_enabled()
    weights: Weights = dict(network.named_parameters())
    if not torch.is_grad_enabled():
        weights = {name: p.detach() for name, p in weights.items()}
    sets = episode.support_x, episode.support_y, episode.query_x

    def descend(run: Run, loss: Loss, fast: Weights, x: Tensor, y: Tensor, query: Tensor) -> Tensor:
        outputs = []
        for step in range(after[-1] + 1):
            if step in after:
                outputs.append(run(fast, query))
            if step < after[-1]:
                fast = moved(fast, _slopes(run, loss, fast, x, y, keep_graph), lr)
        return torch.stack(outputs)

    def each(tasks: int) -> Weights:
        return {name: w.expand(tasks, *w.shape) for name, w in weights.items()}

    # Of all ways to compute attention, only the plain one can be differentiated twice.
    with _batch_statistics(network), sdpa_kernel(SDPBackend.MATH), _plain_recurrence(network):
        if len(episode.support_x) == 1 or _better_apart(network, episode, keep_graph):
            alone = _alone(network)
            one_by_one = [
                descend(alone, loss, weights, channels_last(x), y, channels_last(query))
                for x, y, query in zip(*sets, strict=True)
            ]
            return torch.stack(one_by_one, 1)
        on_cpu, (tasks, samples) = episode.support_x.device.type == "cpu", sets[1].shape[:2]
        chunk = chunk or (max(1, ROWS // samples) if on_cpu else tasks)
        together, total = SideBySide(network), _total(loss)
        chunks = [
            descend(together, total, each(len(x)), x, y, query)
            for x, y, query in zip(*(part.split(chunk) for part in sets), strict=True)
        ]
        return torch.cat(chunks, 1)


@torch.no_grad()
def descended(
    network: nn.Module,
    weights: Weights,
    x: Tensor,
    y: Tensor,
    loss: Loss,
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
    return moved(weights, slopes(network, weights, x, y, loss), lr)


@torch.no_grad()
def slopes(network: nn.Module, weights: Weights, x: Tensor, y: Tensor, loss: Loss) -> Weights:
    """What the step of `descended` follows, for trying several learning rates."""
    return _slopes(SideBySide(network), _total(loss), weights, x, y, keep_graph=False)


def moved(weights: Weights, slopes: Weights, lr: float) -> Weights:
    """Weights after one step down their slopes."""
    return {name: w - lr * slopes[name] for name, w in weights.items()}


def _slopes(
    run: Run, loss: Loss, weights: Weights, x: Tensor, y: Tensor, keep_graph: bool
) -> Weights:
    """Gradient of a loss by weights, through which gradients flow if the graph is kept."""
    with torch.enable_grad():
        leaves = {
            name: w if w.requires_grad else w.detach().requires_grad_()
            for name, w in weights.items()
        }
        found = torch.autograd.grad(
            loss(run(leaves, x), y),
            list(leaves.values()),
            create_graph=keep_graph,
            materialize_grads=True,
        )
    return dict(zip(weights, found, strict=True))


def _total(loss: Loss) -> Loss:
    """The sum over tasks: its gradient by each task's own weights is that of the task's loss."""

    def total(outputs: Tensor, targets: Tensor) -> Tensor:
        losses: Tensor = vmap(loss)(outputs, targets)
        return losses.sum()

    return total


def _alone(network: nn.Module) -> Run:
    """One network, plainly: torch.func costs several times as much on a small one."""
    tied = is_tied(network)
    buffers = {name: b.clone() for name, b in network.named_buffers()}

    def run(fast: Weights, inputs: Tensor) -> Tensor:
        outputs: Tensor = functional_call(network, (fast, buffers), (inputs,), tie_weights=tied)
        return outputs

    return run


def adapted(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    loss: Loss,
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
    optimizer = torch.optim.SGD(changed.parameters(), lr)
    with torch.enable_grad(), _batch_statistics(changed), _plain_recurrence(changed):
        for _ in range(steps):
            optimizer.zero_grad()
            loss(changed(x), y).backward()
            optimizer.step()
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
def _plain_recurrence(network: nn.Module) -> Iterator[None]:
    """Without cuDNN's recurrent layers: they can be differentiated in training mode alone, once."""
    if torch.cuda.is_available() and any(isinstance(m, nn.RNNBase) for m in network.modules()):
        with torch.backends.cudnn.flags(enabled=False):
            yield
    else:
        yield


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

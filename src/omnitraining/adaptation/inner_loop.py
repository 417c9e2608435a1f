"""The inner loop of MAML: a whole network adapts to each of T tasks by gradient descent.

theta' = theta - lr * grad_theta E_S l(y, H o F(x; theta))      (below eq. 19, any number of steps)
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.conv import _ConvNd

from omnitraining.adaptation.adam import DECAY, EPSILON, AdamWithoutMomentum
from omnitraining.adaptation.batched import BatchedModules, Weights, is_tied
from omnitraining.batches import Episode, channels_last
from omnitraining.optimizers import SGD, Adam

Loss = Callable[[Tensor, Tensor], Tensor]
Run = Callable[[Weights, Tensor], Tensor]
"""From weights and inputs to outputs."""

SAMPLES_AT_ONCE = 8192
"""Support samples that are computed at once on a CPU, so that small layers stay in its cache."""


def adapt_and_predict(
    network: nn.Module,
    episode: Episode,
    loss: Loss,
    steps: Sequence[int],
    lr: float,
    second_order: bool = True,
    chunk: int | None = None,
    adam: bool = False,
) -> Tensor:
    """Query outputs of a network fine-tuned on each task's support set, after numbers of steps.

    Every parameter of the network adapts, by gradient descent on the whole support set.
    Batch norm always uses the statistics of the current batch, in training and at test, and its
    running statistics are not updated (as in MAML's own code).

    Args:
        network: backbone and head.
        episode: T tasks; inputs, not features.
        loss: mean loss of outputs and targets of one task.
        steps: numbers of gradient steps to report, rising, 0 or more.
        lr: inner learning rate.
        second_order: let the outer gradient flow through the inner gradients.
        chunk: tasks computed at a time; if None, the number that fits a CPU's cache, or all on a
            GPU.
            Networks with norms are computed task by task where the outer gradient flows through
            inner gradients, and networks with convolutions on a CPU.
        adam: take steps of `AdamWithoutMomentum`, not of plain gradient descent.

    Returns:
        Outputs [len(steps), T, Q, O].
    """
    parts = adaptations(network, episode, loss, steps, lr, second_order, chunk, adam)
    return torch.cat([outputs for outputs, _ in parts], 1)


def adaptations(
    network: nn.Module,
    episode: Episode,
    loss: Loss,
    steps: Sequence[int],
    lr: float,
    second_order: bool = True,
    chunk: int | None = None,
    adam: bool = False,
    batch: int = 0,
) -> Iterator[tuple[Tensor, Weights]]:
    """As `adapt_and_predict`, with the adapted weights too, for some tasks at a time.

    Args:
        network: backbone and head.
        episode: T tasks; inputs, not features.
        loss: mean loss of outputs and targets of one task.
        steps: numbers of gradient steps to report.
        lr: inner learning rate.
        second_order: let the outer gradient flow through the inner gradients.
        chunk: tasks computed at a time.
        adam: take steps of `AdamWithoutMomentum`.
        batch: samples of each gradient step, which follow each other in the support set, and begin
            again at its start; the whole set if 0.

    Yields:
        Outputs [len(steps), t, Q, O] of the next t tasks, and the weights after the last step
        [t, ...], by name.
    """
    # Without an outer gradient the inner graphs are not needed.
    keep_graph = second_order and torch.is_grad_enabled()
    weights: Weights = dict(network.named_parameters())
    if not torch.is_grad_enabled():
        weights = {name: p.detach() for name, p in weights.items()}
    sets = episode.support_x, episode.support_y, episode.query_x
    size = episode.support_y.shape[1]

    def descend(
        run: Run, loss: Loss, fast: Weights, x: Tensor, y: Tensor, query: Tensor, samples: int
    ) -> tuple[Tensor, Weights]:
        """Adapt to one task or several; ``samples`` is the dimension of the samples."""
        update = AdamWithoutMomentum(lr) if adam else partial(sgd_update, lr=lr)
        outputs, part = [], (x, y)
        for step in range(steps[-1] + 1):
            if step in steps:
                outputs.append(run(fast, query))
            if step < steps[-1]:
                if 0 < batch < size:
                    chosen = torch.arange(step * batch, (step + 1) * batch, device=x.device) % size
                    part = (
                        channels_last(x.index_select(samples, chosen)),
                        y.index_select(samples, chosen),
                    )
                fast = update(fast, _gradients(run, loss, fast, *part, keep_graph))
        return torch.stack(outputs), fast

    def expanded(tasks: int) -> Weights:
        return {name: w.expand(tasks, *w.shape) for name, w in weights.items()}

    # Of all ways to compute attention, only the plain one can be differentiated twice.
    with _batch_statistics(network), sdpa_kernel(SDPBackend.MATH), plain_recurrence(network):
        if len(episode.support_x) == 1 or _needs_loop(network, episode, keep_graph):
            looped = _unbatched(network)
            for x, y, query in zip(*sets, strict=True):
                parts = channels_last(x), y, channels_last(query)
                outputs, fast = descend(looped, loss, weights, *parts, samples=0)
                yield outputs.unsqueeze(1), {name: w.unsqueeze(0) for name, w in fast.items()}
            return
        on_cpu, (tasks, samples) = episode.support_x.device.type == "cpu", sets[1].shape[:2]
        chunk = chunk or (max(1, SAMPLES_AT_ONCE // samples) if on_cpu else tasks)
        batched, total = BatchedModules(network), _summed(loss)
        for x, y, query in zip(*(part.split(chunk) for part in sets), strict=True):
            yield descend(batched, total, expanded(len(x)), x, y, query, samples=1)


@torch.no_grad()
def sgd_step(
    network: nn.Module,
    weights: Weights,
    x: Tensor,
    y: Tensor,
    loss: Loss,
    lr: float,
) -> Weights:
    """The weights of T networks of one architecture, each after a step on its own samples.

    For networks whose next samples depend on their weights, as policies; `adapt_and_predict` uses
    the same samples in every step. No gradient flows through.

    Args:
        network: backbone and head, without norms that need batch statistics.
        weights: of each network, by the names of ``network``'s parameters [T, ...].
        x: inputs [T, S, ...].
        y: targets [T, S, ...].
        loss: mean loss of outputs and targets of one task.
        lr: learning rate.
    """
    return sgd_update(weights, gradients(network, weights, x, y, loss), lr)


@torch.no_grad()
def gradients(network: nn.Module, weights: Weights, x: Tensor, y: Tensor, loss: Loss) -> Weights:
    """The gradients [T, ...] that `sgd_step` uses, for trying several learning rates."""
    return _gradients(BatchedModules(network), _summed(loss), weights, x, y, keep_graph=False)


def sgd_update(weights: Weights, gradients: Weights, lr: float) -> Weights:
    """Weights after one step of plain gradient descent."""
    return {name: w - lr * gradients[name] for name, w in weights.items()}


def _gradients(
    run: Run, loss: Loss, weights: Weights, x: Tensor, y: Tensor, keep_graph: bool
) -> Weights:
    """The gradient of a loss by weights, differentiable if the graph is kept."""
    with torch.enable_grad():
        leaves = {
            name: w if w.requires_grad else w.detach().requires_grad_()
            for name, w in weights.items()
        }
        parts = torch.autograd.grad(
            loss(run(leaves, x), y),
            list(leaves.values()),
            create_graph=keep_graph,
            materialize_grads=True,
        )
    return dict(zip(weights, parts, strict=True))


def _summed(loss: Loss) -> Loss:
    """The sum over tasks: by a task's own weights it has the gradient of that task's loss."""

    def total(outputs: Tensor, targets: Tensor) -> Tensor:
        losses: Tensor = vmap(loss)(outputs, targets)
        return losses.sum()

    return total


def _unbatched(network: nn.Module) -> Run:
    """One network without vmap, which takes several times as long on a small one."""
    tied = is_tied(network)
    buffers = {name: b.clone() for name, b in network.named_buffers()}

    def run(fast: Weights, inputs: Tensor) -> Tensor:
        outputs: Tensor = functional_call(network, (fast, buffers), (inputs,), tie_weights=tied)
        return outputs

    return run


def adapted_copy(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    loss: Loss,
    steps: int,
    lr: float,
    adam: bool = False,
) -> nn.Module:
    """A copy of a network after the gradient steps of `adapt_and_predict` on one support set.

    There, batch norm uses the statistics of the queries; the copy keeps the statistics of the
    support set, so that its prediction of a query does not depend on other queries.

    Args:
        network: backbone and head.
        x: support inputs [S, ...].
        y: their targets [S, ...].
        loss: mean loss of outputs and targets.
        steps: gradient steps.
        lr: learning rate.
        adam: take steps of `AdamWithoutMomentum`.
    """
    adapted = copy.deepcopy(network).requires_grad_().eval()
    optimizer: torch.optim.Optimizer = SGD(adapted.parameters(), lr)
    if adam:
        optimizer = Adam(adapted.parameters(), lr, (0.0, DECAY), EPSILON)
    with torch.enable_grad(), _batch_statistics(adapted), plain_recurrence(adapted):
        for _ in range(steps):
            optimizer.zero_grad()
            loss(adapted(x), y).backward()
            optimizer.step()
    norms = [m for m in adapted.modules() if isinstance(m, _BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = 1.0
    with torch.no_grad(), _batch_statistics(adapted):
        adapted(x)
    return adapted.requires_grad_(False)


def _needs_loop(network: nn.Module, episode: Episode, keep_graph: bool) -> bool:
    """Whether tasks are computed one by one, for correctness or for speed.

    Under vmap, second derivatives of batch and layer norms are wrong (torch 2.13), and convolutions
    with weights per task become grouped ones, which take a CPU more than twice as long.
    """
    has_norms = any(
        isinstance(m, (_NormBase, nn.LayerNorm, nn.GroupNorm)) for m in network.modules()
    )
    has_convolutions = any(isinstance(m, _ConvNd) for m in network.modules())
    on_cpu = episode.support_x.device.type == "cpu"
    return (keep_graph and has_norms) or (on_cpu and has_convolutions)


@contextmanager
def plain_recurrence(network: nn.Module) -> Iterator[None]:
    """Without cuDNN's recurrent layers, differentiable in training mode only, and once.

    Args:
        network: nothing is changed if it has no such layers.
    """
    if torch.cuda.is_available() and any(isinstance(m, nn.RNNBase) for m in network.modules()):
        with torch.backends.cudnn.flags(enabled=False):
            yield
    else:
        yield


def _batch_statistics(network: nn.Module) -> AbstractContextManager[None]:
    """Batch norm uses the statistics of the batch, and is afterwards in its former mode."""
    return in_mode([m for m in network.modules() if isinstance(m, _BatchNorm)], training=True)


@contextmanager
def in_mode(modules: Sequence[nn.Module], training: bool) -> Iterator[None]:
    """Modules in training or evaluation mode, without their children; afterwards as before.

    Args:
        modules: each is set by itself.
        training: the mode.
    """
    before = [module.training for module in modules]
    for module in modules:
        module.training = training
    try:
        yield
    finally:
        for module, former in zip(modules, before, strict=True):
            module.training = former

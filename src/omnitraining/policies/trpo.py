"""Trust-region policy optimization, with the constants of MAML's published code.

Schulman et al. 2015, "Trust region policy optimization" (https://arxiv.org/abs/1502.05477).
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from omnitraining.optimizers import Uncompiled
from omnitraining.policies.gaussian import kl_divergence

Outputs = dict[str, Tensor]
"""Outputs of every policy, by name [..., 2 A]."""


class TRPO(Uncompiled):
    """Lowers the loss as far as possible while policies change by no more than a KL divergence.

    Conjugate gradients find the natural gradient; the full step along it is as long as the bound
    allows. A backtracking line search shortens it until the loss falls and the bound holds; if it
    finds no such step, the weights stay as they are.

    Args:
        parameters: of all policies.
        lr: the bound on the KL divergence, averaged over states and policies.

    Example:
        >>> import torch
        >>> policy = torch.nn.Linear(1, 2)
        >>> states, target = torch.ones(4, 1), torch.zeros(4, 2)
        >>> loss = lambda: (policy(states) - target).square().mean()
        >>> before = loss()
        >>> TRPO(policy.parameters(), 0.01).step(before, loss, lambda: {"policy": policy(states)})
        >>> bool(loss() < before)
        True
    """

    cg_iterations = 10
    damping = 1e-5
    max_backtracks = 15
    backtrack_ratio = 0.8

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        """Optimize the parameters with a KL bound of ``lr``."""
        super().__init__(parameters, {"lr": lr})

    # The arguments are this optimizer's own: torch's closure returns a loss alone.
    def step(  # type: ignore[override]
        self, value: Tensor, loss: Callable[[], Tensor], outputs: Callable[[], Outputs]
    ) -> None:
        """Take one step.

        Args:
            value: the loss of the present weights on fixed samples, with its graph.
            loss: computes that loss for the current weights.
            outputs: computes the outputs of every policy on these samples.
        """
        (group,) = self.param_groups
        parameters: list[nn.Parameter] = group["params"]
        gradient = _flat(_gradient(value, parameters))
        now = outputs()
        reference = {name: part.detach() for name, part in now.items()}
        kl_gradient = _flat(_gradient(_mean_kl(reference, now), parameters, keep=True))

        def fisher_product(vector: Tensor) -> Tensor:
            product = _gradient(kl_gradient @ vector, parameters, retain=True)
            return _flat(product) + self.damping * vector

        direction = conjugate_gradients(fisher_product, gradient, self.cg_iterations)
        curvature = direction @ fisher_product(direction)
        if not curvature > 0:
            return
        full_step = (2 * group["lr"] / curvature).sqrt() * direction
        before = [p.detach().clone() for p in parameters]
        with torch.no_grad():
            for backtrack in range(self.max_backtracks):
                self._move(parameters, before, self.backtrack_ratio**backtrack * full_step)
                if loss() < value and _mean_kl(reference, outputs()) <= group["lr"]:
                    return
            self._move(parameters, before, torch.zeros_like(full_step))

    @staticmethod
    def _move(parameters: list[nn.Parameter], before: list[Tensor], step: Tensor) -> None:
        sizes = [p.numel() for p in parameters]
        for p, old, part in zip(parameters, before, step.split(sizes), strict=True):
            p.copy_(old - part.view_as(p))


def conjugate_gradients(
    product: Callable[[Tensor], Tensor], target: Tensor, iterations: int
) -> Tensor:
    """An approximate solution x [P] of A x = b for a positive definite matrix A.

    Args:
        product: A v of a vector v [P].
        target: b [P].
        iterations: at most; P are exact.
    """
    solution, residual = torch.zeros_like(target), target.clone()
    direction, squared = residual.clone(), residual @ residual
    for _ in range(iterations):
        if squared < 1e-10:
            break
        image = product(direction)
        length = squared / (direction @ image)
        solution = solution + length * direction
        residual = residual - length * image
        direction = residual + (residual @ residual) / squared * direction
        squared = residual @ residual
    return solution


def _mean_kl(reference: Outputs, now: Outputs) -> Tensor:
    return torch.stack([kl_divergence(reference[name], now[name]) for name in now]).mean()


def _gradient(
    value: Tensor, parameters: list[nn.Parameter], keep: bool = False, retain: bool = False
) -> tuple[Tensor, ...]:
    return torch.autograd.grad(
        value,
        parameters,
        create_graph=keep,
        retain_graph=keep or retain,
        materialize_grads=True,
    )


def _flat(parts: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([part.flatten() for part in parts])

"""Trust-region policy optimization (Schulman et al. 2015), as MAML's own code meta-trains."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from omnitraining.policies.gaussian import divergence

Outputs = dict[str, Tensor]


class TRPO(torch.optim.Optimizer):
    """The step that lowers the loss most while policies change by no more than a KL divergence.

    Conjugate gradients find the natural gradient; the step along it is as long as the bound
    allows, and shortened until the loss falls and the bound holds. If it never does, the weights
    stay as they are. Constants are those of MAML's published code.

    Args:
        parameters: of all policies.
        lr: the bound, on the KL divergence averaged over states and policies.
    """

    iterations, damping, shortenings, factor = 10, 1e-5, 15, 0.8

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    # The arguments are this optimizer's own: torch's closure returns a loss alone.
    def step(  # type: ignore[override]
        self, value: Tensor, loss: Callable[[], Tensor], outputs: Callable[[], Outputs]
    ) -> None:
        """Take one step.

        Args:
            value: the loss of the present weights on fixed samples, with its graph.
            loss: computes that loss of whatever weights there are.
            outputs: computes the outputs of every policy on these samples.
        """
        (group,) = self.param_groups
        parameters: list[nn.Parameter] = group["params"]
        slope = _flat(_gradient(value, parameters))
        now = outputs()
        reference = {name: part.detach() for name, part in now.items()}
        curvature = _flat(_gradient(_change(reference, now), parameters, keep=True))

        def fisher(vector: Tensor) -> Tensor:
            product = _gradient(curvature @ vector, parameters, retain=True)
            return _flat(product) + self.damping * vector

        direction = conjugate_gradients(fisher, slope, self.iterations)
        stretch = direction @ fisher(direction)
        if not stretch > 0:
            return
        longest = (2 * group["lr"] / stretch).sqrt() * direction
        before = [p.detach().clone() for p in parameters]
        with torch.no_grad():
            for shortening in range(self.shortenings):
                self._move(parameters, before, self.factor**shortening * longest)
                if loss() < value and _change(reference, outputs()) <= group["lr"]:
                    return
            self._move(parameters, before, torch.zeros_like(longest))

    @staticmethod
    def _move(parameters: list[nn.Parameter], before: list[Tensor], step: Tensor) -> None:
        sizes = [p.numel() for p in parameters]
        for p, old, part in zip(parameters, before, step.split(sizes), strict=True):
            p.copy_(old - part.view_as(p))


def conjugate_gradients(
    product: Callable[[Tensor], Tensor], target: Tensor, iterations: int
) -> Tensor:
    """X with A x close to b, for a positive definite A that is known by its products alone.

    Args:
        product: A v of a vector v [P].
        target: b [P].
        iterations: at most; P are exact.
    """
    solution, rest = torch.zeros_like(target), target.clone()
    direction, size = rest.clone(), rest @ rest
    for _ in range(iterations):
        if size < 1e-10:
            break
        image = product(direction)
        length = size / (direction @ image)
        solution = solution + length * direction
        rest = rest - length * image
        direction, size = rest + (rest @ rest) / size * direction, rest @ rest
    return solution


def _change(reference: Outputs, now: Outputs) -> Tensor:
    return torch.stack([divergence(reference[name], now[name]) for name in now]).mean()


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

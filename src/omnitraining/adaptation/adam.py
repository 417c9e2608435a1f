"""Adam without momentum, for inner loops (as of Reptile, Nichol et al. 2018)."""

from omnitraining.adaptation.batched import Weights

DECAY = 0.999
EPSILON = 1e-8


class AdamWithoutMomentum:
    """Steps of Adam with beta_1 = 0: a gradient over the root of its mean square up to this step.

    v_t = 0.999 v_{t-1} + 0.001 g_t^2,  theta_t = theta_{t-1} - lr g_t / (sqrt(v_t / (1 - 0.999^t))
    + 1e-8)

    One object is for one descent, from its first step.

    Args:
        lr: learning rate.
    """

    def __init__(self, lr: float) -> None:
        """Start without squares."""
        self.lr, self.count = lr, 0
        self.squares: Weights = {}

    def __call__(self, weights: Weights, gradients: Weights) -> Weights:
        """Weights after the next step.

        Args:
            weights: by name, of one network or of several [T, ...].
            gradients: by the same names.
        """
        self.count += 1
        rest = 1 - DECAY**self.count
        moved = {}
        for name, weight in weights.items():
            square = (1 - DECAY) * gradients[name].square()
            if name in self.squares:
                square = DECAY * self.squares[name] + square
            self.squares[name] = square
            moved[name] = weight - self.lr * gradients[name] / ((square / rest).sqrt() + EPSILON)
        return moved

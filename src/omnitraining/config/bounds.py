"""Bounds on the memory and time of building and fitting an untrusted model.

A network is built before its weights are read, so that a short configuration could require more
memory or time than there is. Untrusted models are therefore built within `Bounds`: weights that
cannot be in the file are refused before they are allocated, and so are layers and fits that would
take too long.
"""

from math import prod
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from omnitraining.errors import InputError

COPIES = 16
"""Most copies of a file's values that may be made: an Omni-Net is made of copies of a network."""
SPARE = 1 << 24
"""Values that may be made in addition: 64 MiB."""
MOST_VALUES = 1 << 28
"""Values of one tensor in a forward pass with two inputs, at most: 1 GiB. WRN-28-10 needs 1 / 100
of this."""
MOST_PRODUCTS = 4e12
"""Multiply-adds of that pass, at most; WRN-28-10 as an Omni-Net takes a tenth of this."""
FIT_PRODUCTS = 2e11
"""Multiply-adds of a fit, at most; a fit of 1,000 images of 10 classes takes a tenth of this. It is
slower than a forward pass of the same cost, as its products are of long and narrow matrices."""
EACH_TIME = 250_000
"""Multiply-adds that take as long as the overhead of calling any operation."""


class BoundsError(InputError):
    """Something would take more than it may."""


class Bounds(TorchDispatchMode):
    """Refuses tensors and computations that are too large, before they are made.

    Args:
        stored: bytes of the weights that are there.
        products: multiplications and additions that may be computed.

    Raises:
        BoundsError: within it, where a bound is reached.
    """

    def __init__(self, stored: int, products: float = MOST_PRODUCTS) -> None:
        """Set the limits; entering the mode starts to count."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = COPIES * stored // 4 + SPARE
        self.made, self.products, self.most_products = 0, 0.0, products

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or torch would import its compiler, which takes seconds

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func._overloadpacket.__name__
        given = [one for one in args if isinstance(one, Tensor)]
        if not given and args and isinstance(args[0], list | tuple):
            self._count(prod(size for size in args[0] if isinstance(size, int)))
        elif name in ("clone", "empty_like", "zeros_like", "ones_like"):
            self._count(given[0].numel())
        elif name == "convolution":
            x, weight = given[:2]
            self._compute(x.numel() // max(1, x.shape[1]) * len(weight), weight[0].numel())
        elif name in ("mm", "addmm", "bmm", "baddbmm"):
            left, right = given[-2:]
            outputs = left.numel() // max(1, left.shape[-1]) * right.shape[-1]
            self._compute(outputs, right.shape[-2])
        elif name.startswith(("linalg_", "_linalg_")):
            self._compute(given[0].numel(), max(given[0].shape, default=1))
        self._compute(0, EACH_TIME + sum(one.numel() for one in given))
        return func(*args, **(kwargs or {}))

    def _count(self, values: int) -> None:
        """Values that are made of nothing, as weights are."""
        self.made += values
        if self.made > self.most:
            raise BoundsError("it needs more weights than are stored")

    def _compute(self, outputs: int, each: int) -> None:
        """Count an operation's products: ``each`` per output, or in all if ``outputs`` is 0."""
        self.products += 2.0 * (outputs or 1) * each
        if outputs > MOST_VALUES or self.products > self.most_products:
            raise BoundsError("it would take too much memory or time")

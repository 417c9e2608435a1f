"""Bounds on what it takes to make and to fit a model that someone else describes.

A network is made before its weights are read, so that a few words could ask for more memory or
time than there is. Whoever makes a model of someone else does so within `Bounds`: weights are
refused that the file cannot hold, before they are made, and so are layers and fits that would take
too long.
"""

from math import prod
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from omnitraining.errors import InputError

COPIES = 16
"""How often the values of a file are made at most: an Omni-Net is made of copies of a network."""
SPARE = 1 << 24
"""Values that may be made in addition: 64 MiB."""
MOST_VALUES = 1 << 28
"""Of one tensor of a forward pass with two inputs: 1 GiB. That of WRN-28-10 has 1 / 100 of it."""
MOST_PRODUCTS = 4e12
"""Multiplications and additions of that pass; WRN-28-10 as an Omni-Net takes a tenth of it."""
FIT_PRODUCTS = 2e11
"""The same of a fit. Of 1,000 images of 10 classes it takes a tenth of that; it is a good deal
slower than a forward pass, as its products are of long and narrow matrices."""
EACH_TIME = 250_000
"""Products that would take as long as it takes to call any operation."""


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
        """Outputs of an operation, and the products of each; of no outputs, of all of them."""
        self.products += 2.0 * (outputs or 1) * each
        if outputs > MOST_VALUES or self.products > self.most_products:
            raise BoundsError("it would take too much memory or time")

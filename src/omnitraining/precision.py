"""Distances and losses in float32, also where the backbone computes in half precision.

Differences of large numbers, as in squared distances, have no correct digit left in bfloat16.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from threading import Lock
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def at_least_float32(x: Tensor) -> Tensor:
    """The tensor, in float32 if it was in half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def in_full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """A function of tensors [...] that computes in float32 or better, without autocast."""

    def full(value: Any) -> Any:
        is_real = isinstance(value, Tensor) and value.is_floating_point()
        return at_least_float32(value) if is_real else value

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        device = next(value.device.type for value in args if isinstance(value, Tensor))
        if not torch.is_autocast_enabled(
            device
        ):  # as in an export, which cannot trace what follows
            return function(*args, **kwargs)
        with torch.autocast(device, enabled=False):
            return function(*map(full, args), **kwargs)

    return run


_switching, _inside, _found = Lock(), 0, torch.float32


@contextmanager
def float32_on_cpu() -> Iterator[None]:
    """New tensors are float32 and on the CPU in here, whatever torch's defaults are.

    The default type is that of all threads: the first to come changes it, the last puts it back.
    The default device is that of one thread; where it is the CPU, nothing is done, for a device in
    force makes each call of torch slower.
    """
    global _inside, _found
    with _switching:
        if _inside == 0:
            _found = torch.get_default_dtype()
            if _found != torch.float32:
                torch.set_default_dtype(torch.float32)
        _inside += 1
    try:
        if torch.get_default_device().type == "cpu":
            yield
        else:
            with torch.device("cpu"):
                yield
    finally:
        with _switching:
            _inside -= 1
            if _inside == 0 and _found != torch.float32:
                torch.set_default_dtype(_found)

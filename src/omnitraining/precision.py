"""Distances and losses in float32, also under autocast to half precision.

Differences of large numbers, as in squared distances, have no correct digit in bfloat16.
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
    """The tensor [...], in float32 if it is in half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def in_full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """A function of tensors [...] that computes in float32 or better, without autocast."""

    def full(value: Any) -> Any:
        is_real = isinstance(value, Tensor) and value.is_floating_point()
        return at_least_float32(value) if is_real else value

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        device = next(value.device.type for value in args if isinstance(value, Tensor))
        if not torch.is_autocast_enabled(device):
            return function(*args, **kwargs)  # an export cannot trace autocast
        with torch.autocast(device, enabled=False):
            return function(*map(full, args), **kwargs)

    return run


_lock, _inside, _dtype_before = Lock(), 0, torch.float32


@contextmanager
def float32_on_cpu() -> Iterator[None]:
    """Inside, new tensors are float32 and on the CPU by default.

    The default dtype is global: the first thread to enter changes it, the last one to leave
    restores it. The default device is per thread; it is set only if it is not the CPU, since each
    call of torch is slower with one set.
    """
    global _inside, _dtype_before
    with _lock:
        if _inside == 0:
            _dtype_before = torch.get_default_dtype()
            if _dtype_before != torch.float32:
                torch.set_default_dtype(torch.float32)
        _inside += 1
    try:
        if torch.get_default_device().type == "cpu":
            yield
        else:
            with torch.device("cpu"):
                yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0 and _dtype_before != torch.float32:
                torch.set_default_dtype(_dtype_before)

"""Limits of numeric options, which dataclasses of options check when they are made."""

import math
from collections.abc import Callable

from omnitraining.errors import InputError

MOST_SEED = 10**12
"""Seeds are below: a million times that, and a step, are still integers of 64 bits."""


def check_least(group: str, options: object, least: int, *names: str) -> None:
    """Check that numbers are not below a least one.

    Args:
        group: field of the configuration that the options are of, for the message.
        options: whose attributes the numbers are; attributes that are None are not checked.
        least: the least number that is allowed.
        names: of the attributes.

    Raises:
        InputError: a number is below ``least``, not a number, or infinite.
    """
    _check(group, options, names, lambda value: value >= least, f"{least} or more")


def check_positive(group: str, options: object, *names: str) -> None:
    """Check that numbers are greater than 0; arguments as in `check_least`.

    Raises:
        InputError: a number is 0 or less, not a number, or infinite.
    """
    _check(group, options, names, lambda value: value > 0, "greater than 0")


def check_part(group: str, options: object, *names: str) -> None:
    """Check that numbers are in [0, 1]; arguments as in `check_least`.

    Raises:
        InputError: a number is not from 0 to 1.
    """
    _check(group, options, names, lambda value: 0 <= value <= 1, "from 0 to 1")


def check_proper_part(group: str, options: object, *names: str) -> None:
    """Check that numbers are in [0, 1); arguments as in `check_least`.

    Raises:
        InputError: a number is not in [0, 1).
    """
    _check(group, options, names, lambda value: 0 <= value < 1, "at least 0 and less than 1")


def check_inner_part(group: str, options: object, *names: str) -> None:
    """Check that numbers are parts, neither nothing nor the whole; arguments as in `check_least`.

    Raises:
        InputError: a number is not in (0, 1).
    """
    _check(group, options, names, lambda value: 0 < value < 1, "greater than 0 and less than 1")


def check_moment(group: str, options: object, *names: str) -> None:
    """Check that each number is a step or a fraction of all steps; arguments as of `check_least`.

    Raises:
        InputError: an integer is below 0, or another number is not in [0, 1).
    """
    for name in names:
        value = getattr(options, name)
        if not (value >= 0 if isinstance(value, int) else 0 <= value < 1):
            raise InputError(
                f"{group}.{name} is {value}: it must be a step, an integer of at least 0, or a "
                "fraction of training.steps, at least 0 and less than 1"
            )


def check_seed(option: str, seed: int) -> None:
    """Check that a seed can be one of torch, also when samples of steps are numbered from it.

    Args:
        option: name of the seed, for the message.
        seed: of random numbers.

    Raises:
        InputError: it is too large.
    """
    if abs(seed) >= MOST_SEED:
        raise InputError(f"{option} is {seed}: it must be above -10^12 and below 10^12")


def step_at(moment: int | float, steps: int) -> int:
    """The step, counted from 0, of a moment that `check_moment` allows.

    Args:
        moment: an integer is a step; any other number is a fraction of all steps, rounded down, so
            that it is before the last one.
        steps: of the training.
    """
    return moment if isinstance(moment, int) else int(moment * steps)


def _check(
    group: str,
    options: object,
    names: tuple[str, ...],
    allows: Callable[[float], bool],
    allowed: str,
) -> None:
    for name in names:
        value = getattr(options, name)
        if value is None or (allows(value) and not math.isinf(value)):
            continue
        must = "finite" if math.isinf(value) and allows(value) else allowed
        raise InputError(f"{group}.{name} is {value}: it must be {must}")

"""Every number among the options is checked, whatever it is an option of."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import pytest

from omnitraining import metatraining, pretraining
from omnitraining.errors import InputError
from omnitraining.metatraining import MetaTraining
from omnitraining.model import OmniLoss
from omnitraining.pretraining import PreTraining
from omnitraining.pretraining.linear_heads import LinearHead
from omnitraining.tasks.classification.problem import EpisodeConfig
from omnitraining.training import Training
from tests.reference.found import found_in

CLASSES = [
    *found_in(pretraining, PreTraining),
    *found_in(pretraining, LinearHead),
    *found_in(metatraining, MetaTraining),
    OmniLoss,
    Training,
    EpisodeConfig,
]
NEGATIVE = {("NegMargin", "margin"), ("SGDHead", "seed"), ("SGDCosineHead", "seed")}
"""Options for which every number has a meaning."""


def numbers() -> Iterator[tuple[type, str, type]]:
    """Classes of options, and the names and types of their numbers."""
    for kind in CLASSES:
        hints = get_type_hints(kind)
        for field in dataclasses.fields(kind):
            hint = hints[field.name]
            choices = get_args(hint) if type(None) in get_args(hint) else (hint,)
            types = {*choices} & {int, float}
            if types and (kind.__name__, field.name) not in NEGATIVE:
                yield kind, field.name, types.pop()


def test_there_are_numbers_of_both_types() -> None:
    found = {(kind.__name__, name) for kind, name, _ in numbers()}
    assert found >= {("MAML", "lr"), ("MatchingNet", "steps"), ("CosineHead", "scale")}
    assert not any(kind.__name__ == "Baseline" for kind, *_ in numbers())


@pytest.mark.parametrize(("kind", "name", "of"), [*numbers()])
def test_no_number_is_taken_that_has_no_meaning(kind: type[Any], name: str, of: type) -> None:
    for value in (-1, math.nan, math.inf) if of is float else (-1,):
        with pytest.raises(InputError, match=rf"\.{name} is {value}\b"):
            kind(**{name: value})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_margin_is_a_number(value: float) -> None:
    with pytest.raises(InputError, match=rf"pretraining.margin is {value}: it must be finite"):
        pretraining.NegMargin(margin=value)


@pytest.mark.parametrize(
    ("kind", "name", "least"),
    [
        (metatraining.MAML, "steps", 0),
        (metatraining.LEO, "kl_weight", 0.0),
        (metatraining.CAN, "reduction", 1),
        (pretraining.RFS, "kd_weight", 1.0),
        (pretraining.CosineHead, "steps", 0),
    ],
)
def test_the_last_number_that_is_allowed_is_taken(kind: type[Any], name: str, least: float) -> None:
    assert getattr(kind(**{name: least}), name) == least

"""One learner that many threads ask at once: a short ``benchmarks.load.threads``."""

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.load.threads import classifier, differing, regressor
from omnitraining.datasets.decoding import in_threads


@pytest.fixture(autouse=True)
def _often() -> Iterator[None]:
    """Threads take turns so often that a race is likely to be seen."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("kind", ["images", "curves"])
def test_threads_are_told_what_one_is_told(kind: str, tmp_path: Path) -> None:
    asked = classifier(tmp_path) if kind == "images" else regressor()
    found = differing(asked, 320)
    assert found["different"] == 0
    assert not found["warning filters changed"]


def test_warnings_of_others_are_shown_again_whatever_the_order_of_leaving() -> None:
    before = [*warnings.filters]
    one, other = (in_threads(str, [1, 2], "reading") for _ in range(2))
    assert next(one) == "1" and next(other) == "1"
    assert any("PIL" in str(entry[3]) for entry in warnings.filters)
    assert [*one] == ["2"]
    assert any("PIL" in str(entry[3]) for entry in warnings.filters)  # the other is not done
    assert [*other] == ["2"]
    assert [*warnings.filters] == before

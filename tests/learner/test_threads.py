"""One learner in many threads at once: a short ``benchmarks.load.threads``."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.load.threads import classifier, differing, regressor


@pytest.fixture(autouse=True)
def _often() -> Iterator[None]:
    """Threads take turns so often that a race is likely to be seen."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("kind", ["images", "curves"])
def test_many_threads_predict_as_one(kind: str, tmp_path: Path) -> None:
    predict = classifier(tmp_path) if kind == "images" else regressor()
    found = differing(predict, 320)
    assert found["different"] == 0
    assert not found["warning filters changed"]

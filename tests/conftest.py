"""What all tests share: one thread, a fixed seed, and float64 for those that compare numbers."""

import os
from collections.abc import Iterator

import pytest
import torch

torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def few_validation_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four in place of hundreds, which take most of a tiny training, where scores do not matter."""
    for kind in ("classification.problem", "regression.sinusoids"):
        monkeypatch.setattr(f"omnitraining.tasks.{kind}.VALIDATION_TASKS", 4)


@pytest.fixture
def float64() -> Iterator[None]:
    """Makes float64 the default, so that a wrong formula cannot hide behind rounding."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)

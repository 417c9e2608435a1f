"""What all tests share: one thread, a fixed seed, and float64 for those that compare numbers."""

import os
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

import pytest
import torch

torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _few_validation_tasks() -> Iterator[dict[ModuleType, int]]:
    """Eight, not hundreds, which take most of a tiny training; yields the numbers of users."""
    holders = ("learner.calibration", "tasks.classification.problem", "tasks.regression.sinusoids")
    modules = [import_module(f"omnitraining.{holder}") for holder in holders]
    numbers = {module: module.VALIDATION_TASKS for module in modules}
    with pytest.MonkeyPatch.context() as patch:
        for module in modules:
            patch.setattr(module, "VALIDATION_TASKS", 8)
        yield numbers


@pytest.fixture
def all_validation_tasks(
    _few_validation_tasks: dict[ModuleType, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as users have, where scores matter."""
    for module, number in _few_validation_tasks.items():
        monkeypatch.setattr(module, "VALIDATION_TASKS", number)


@pytest.fixture
def float64() -> Iterator[None]:
    """Makes float64 the default, so that a wrong formula cannot hide behind rounding."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)

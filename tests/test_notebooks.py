"""The notebooks run, from the first cell to the last, and are stored without outputs."""

import dataclasses
import json
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from omnitraining.config.recipes import merge
from omnitraining.errors import CalibrationWarning
from omnitraining.experiments import reproduction
from omnitraining.experiments.experiment import find_experiment
from tests.reference.libraries import library
from tests.test_docs import FAST, generated

FOLDER = Path(__file__).parent.parent / "docs" / "notebooks"
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
SMALL = {
    "problem": {
        "init_args": {
            "size": 16,
            "instances": 8,
            "training_classes": 8,
            "benchmarks": ["digits"],
            "protocol": {"queries": 2, "batch": 8},
        }
    },
    "training": {"steps": 2, "val_every": 2},
}
"""What differs in the experiment from its tiny variant."""


def cells(name: str) -> list[dict[str, Any]]:
    """The cells of a notebook."""
    notebook: dict[str, Any] = json.loads((FOLDER / f"{name}.ipynb").read_text("utf-8"))
    return list(notebook["cells"])


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer steps, classes and tasks than a reader has."""
    experiment = find_experiment("demo")
    smaller = dataclasses.replace(experiment, smoke=merge(experiment.smoke, SMALL))
    monkeypatch.setattr(reproduction, "find_experiment", lambda _: smaller)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_cell_runs(
    name: str, small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "notebook"}
    monkeypatch.setitem(sys.modules, "notebook", type(sys)("notebook"))  # for dataclasses
    for number, cell in enumerate(cells(name)):
        if cell["cell_type"] != "code":
            continue
        code = "".join(cell["source"])
        for imported in re.findall(r"^import (timm|transformers|torchvision)", code, re.MULTILINE):
            library(imported)
        for slow, fast in FAST.items():
            code = re.sub(slow, fast, code)
        with warnings.catch_warnings():
            # A backbone of random weights misclassifies its own images.
            warnings.simplefilter("ignore", CalibrationWarning)
            exec(compile(code, f"{name}, cell {number}", "exec"), names)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_is_stored_without_outputs(name: str) -> None:
    for cell in cells(name):
        assert not cell.get("outputs") and cell.get("execution_count") is None


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_its_links_lead_somewhere(name: str) -> None:
    text = "".join("".join(cell["source"]) for cell in cells(name))
    for target in re.findall(r"\]\(([^)#\s]+)\)", text):
        place = (FOLDER / target).resolve()
        assert place.exists() or place.relative_to(FOLDER.parent).as_posix() in generated()


def test_the_row_that_is_named_as_an_example_is_one_of_table_2() -> None:
    text = "".join("".join(cell["source"]) for cell in cells("reproduce-a-table"))
    (named,) = re.findall(r'only=\["(.+?)"\]', text)
    assert named in find_experiment("table2").rows

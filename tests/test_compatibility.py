"""What earlier versions wrote is read, used and resumed; what is shipped holds all data."""

import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omnitraining.evaluation import CellKey
from omnitraining.learner import support_calibration
from omnitraining.runs.run import Run
from tests.fixtures.make import RUNS, TASKS, answers, resumed, scores

ROOT = Path(__file__).parent.parent
VERSIONS = sorted((ROOT / "tests" / "fixtures").glob("v*"))
WRITTEN = [pytest.param(path, name, id=f"{path.name} {name}") for path in VERSIONS for name in RUNS]
NEAR = {"glyphs": 1.0, "sinusoids": 0.01}
"""How near a mean score must be: 1 % is two of the 200 questions."""


def expected(path: Path, name: str, of: str) -> Any:
    return json.loads((path / "expected.json").read_text())[name][of]


def run(path: Path, name: str, place: Path) -> Run:
    """A copy, so that nothing is written to the run of an earlier version."""
    return Run(shutil.copytree(path / name, place / name))


@pytest.fixture(autouse=True)
def _former_prior(monkeypatch: pytest.MonkeyPatch) -> None:
    """The prior of the temperature of a fit with which the expected probabilities were written."""
    monkeypatch.setattr(support_calibration, "DOMAIN_MEAN", 0.0)
    monkeypatch.setattr(support_calibration, "DOMAIN_SPREAD", 0.3)


def test_there_are_files_of_the_first_version() -> None:
    assert "v0.1.0" in [path.name for path in VERSIONS]


@pytest.mark.parametrize(("path", "name"), WRITTEN)
def test_a_saved_learner_predicts_as_before(path: Path, name: str) -> None:
    found = answers(path / f"{name}.learner")
    np.testing.assert_allclose(found, expected(path, name, "answers"), atol=1e-3)


@pytest.mark.parametrize(("path", "name"), WRITTEN)
def test_a_run_is_a_learner_that_predicts_as_before(path: Path, name: str, tmp_path: Path) -> None:
    copy = run(path, name, tmp_path)
    np.testing.assert_allclose(answers(copy.path), expected(path, name, "answers"), atol=1e-3)
    if name == "glyphs":  # results of validation tasks are read, not measured anew
        kept = "calibration.json"
        assert (copy.path / kept).read_bytes() == (path / name / kept).read_bytes()


@pytest.mark.parametrize(("path", "name"), WRITTEN)
def test_a_run_is_evaluated_as_before(path: Path, name: str, tmp_path: Path) -> None:
    copy = run(path, name, tmp_path)
    before = copy.load_evaluation()
    wanted = {}
    for text, score in expected(path, name, "scores").items():
        cell, _, head = text.rpartition(", ")
        wanted[f"{CellKey.parse(cell)}, {head}"] = score
    assert scores(copy) == pytest.approx(wanted, abs=NEAR[name])
    for cell, now in copy.load_evaluation("again").cells.items():
        assert {len(of_tasks) for of_tasks in now.scores.values()} == {TASKS}
        assert now.scores.keys() == before.cells[cell].scores.keys()


@pytest.mark.parametrize(("path", "name"), WRITTEN)
def test_a_run_goes_on(path: Path, name: str, tmp_path: Path) -> None:
    """The optimizer too: losses come out otherwise if it starts anew."""
    copy = run(path, name, tmp_path)
    before, wanted = copy.load_metrics(), expected(path, name, "resumed")
    found = resumed(copy, 3)
    assert found.keys() == wanted.keys()
    losses = [key for key in wanted if not key.startswith("validation")]
    assert {key: found[key] for key in losses} == pytest.approx(
        {key: wanted[key] for key in losses}, rel=1e-2, abs=1e-4
    )
    after = copy.load_metrics()
    assert all(after[key][: len(rows)] == rows for key, rows in before.items())


@pytest.mark.slow
def test_the_wheel_holds_all_data_and_the_source_distribution_the_tests(tmp_path: Path) -> None:
    """Both are built from a copy, so that nothing is left in the sources."""
    copy, built = tmp_path / "copy", tmp_path / "built"
    junk = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*")
    for name in ("src", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=junk)
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    names = {str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()}
    build = (
        "from setuptools import build_meta as b; "
        f"b.build_sdist({str(built)!r}); b.build_wheel({str(built)!r})"
    )
    subprocess.run([sys.executable, "-c", build], cwd=copy, capture_output=True, check=True)
    (wheel,) = built.glob("*.whl")
    (source,) = built.glob("*.tar.gz")
    package = {name.removeprefix("src/") for name in names if name.startswith("src/")}
    kinds = {Path(name).suffix or Path(name).name for name in package}
    assert kinds >= {".py", ".yaml", ".json", ".txt", ".css", ".md", ".safetensors", ".typed"}
    with zipfile.ZipFile(wheel) as file:
        held = {name for name in file.namelist() if ".dist-info/" not in name}
    assert held == package
    with tarfile.open(source) as archive:
        members = {name.partition("/")[2] for name in archive.getnames()}
    assert members >= {name for name in names if name.startswith(("src/", "tests/"))}

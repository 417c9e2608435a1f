"""Every wrong input gets the one line that docs/bad-input.md says."""

import sys
from pathlib import Path

import pytest

from tests import wrong_inputs
from tests.wrong_inputs import CASES, PAGE, Case, Room


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Room:
    return Room(tmp_path_factory.mktemp("room"))


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text("utf-8")


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.group}: {case.what}")
def test_a_wrong_input_gets_its_line(
    case: Case,
    room: Room,
    page: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A line is told at all; and as some words are Python's own, the same one with Python 3.11."""
    monkeypatch.chdir(tmp_path)
    told = room.told(case)
    assert told and "\n" not in told and not [*tmp_path.iterdir()]
    if sys.version_info[:2] == (3, 11):
        section = page.split(f"\n## {case.group}\n")[1].split("\n## ")[0]
        assert wrong_inputs.row(case, told) in section


def test_the_page_lists_these_inputs_and_no_others(page: str) -> None:
    rows = [line.split(" | ")[0] for line in page.splitlines() if line.startswith("| ")]
    wanted = [f"| {case.what}" for case in CASES]
    assert [row for row in rows if row not in ("| wrong", "| ---")] == wanted
    assert len(wanted) >= 100 and len(set(CASES)) == len(CASES)
    assert page.startswith(wrong_inputs.HEAD.format(count=len(CASES)))


def test_the_readme_has_their_number() -> None:
    readme = (PAGE.parents[1] / "README.md").read_text("utf-8")
    assert f"[{len(CASES)} cases](docs/bad-input.md)" in readme

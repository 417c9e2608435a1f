"""Every wrong input gets one line that names what docs/bad-input.md names."""

import sys
from pathlib import Path

import pytest

from tests import wrong_inputs
from tests.wrong_inputs import CASES, PAGE, Case, Workspace, facts, lines_of


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def lines() -> dict[tuple[str, str], str]:
    return lines_of(PAGE.read_text("utf-8"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.group}: {case.what}")
def test_a_wrong_input_gets_its_line(
    case: Case,
    workspace: Workspace,
    lines: dict[tuple[str, str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The words may change, and some are Python's own; fields, options and values may not."""
    monkeypatch.chdir(tmp_path)
    line = workspace.line_for(case)
    assert line and "\n" not in line and not [*tmp_path.iterdir()]
    if sys.version_info[:2] == (3, 11):
        missing = {fact for fact in facts(lines[case.group, case.what]) if fact not in line}
        assert not missing, line


def test_what_a_line_must_name() -> None:
    line = "omni: loss has no field 'weigt' (--loss.weigt): choose from ema_decay, warmup; 3 or 0.5"
    assert facts(line) == {"weigt", "--loss.weigt", "loss.weigt", "ema_decay", "warmup", "3", "0.5"}
    assert facts("say 'a' in notes of 12 words") == {"a", "12"}


def test_the_page_lists_these_inputs_and_no_others(lines: dict[tuple[str, str], str]) -> None:
    assert [*lines] == [(case.group, case.what) for case in CASES]
    assert len(CASES) >= 100 and len(set(CASES)) == len(CASES)
    assert PAGE.read_text("utf-8").startswith(wrong_inputs.HEAD.format(count=len(CASES)))


def test_the_readme_has_their_number() -> None:
    readme = (PAGE.parents[1] / "README.md").read_text("utf-8")
    assert f"[{len(CASES)} cases](docs/bad-input.md)" in readme

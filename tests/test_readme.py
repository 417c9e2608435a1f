"""The README's Python runs as it stands, and its links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4  # two benchmarks at two numbers of shots
    for line in lines:
        accuracy = float(re.search(r"([\d.]+) ± ", line)[1])
        assert accuracy > 30, "100 steps must lift five ways above chance"
    assert type(names["plain"]).__name__ == "Conv4"


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", README))
def test_links_lead_to_files(target: str) -> None:
    assert target.startswith("http") or (ROOT / target).exists()


def test_the_results_are_what_the_records_say() -> None:
    check = [sys.executable, str(ROOT / "results" / "render.py"), "--check"]
    assert subprocess.run(check).returncode == 0

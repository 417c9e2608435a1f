"""The Gymnasium example of the guide to environments runs as it stands, and from a file too."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from omnitraining.cli import main
from omnitraining.evaluation import CellKey
from tests.reference.tiny import NAVIGATION

PAGE = (Path(__file__).parents[2] / "docs" / "guides" / "environment.md").read_text()
PART = PAGE.partition("## A Gymnasium environment")[2]


def test_a_gymnasium_environment_is_trained_in_and_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", PART, re.DOTALL)
    mine = ModuleType("mine")
    exec(compile(code, "environment.md", "exec"), vars(mine))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        f"{CellKey('point', steps=k)}" for k in range(5)
    ]
    monkeypatch.setitem(sys.modules, "mine", mine)
    (text,) = re.findall(r"```yaml\n(.*?)```", PART, re.DOTALL)
    values = NAVIGATION | yaml.safe_load(text)
    values["problem"]["init_args"] |= {"tasks": 2, "test_tasks": 2, "validation_tasks": 2}
    values["backbone"] = {"class_path": "MLP", "init_args": {"inputs": 1, "hidden": [4]}}
    values["training"] = {"steps": 1, "threads": 1}
    (tmp_path / "point.yaml").write_text(yaml.safe_dump(values))
    assert main(["train", "point.yaml"]) == 0
    assert "point, 4 steps" in capsys.readouterr().out
    assert main(["evaluate", "runs/point", "--trust"]) == 0

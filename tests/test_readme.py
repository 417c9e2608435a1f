"""The README's Python runs as it stands, and its links lead somewhere."""

import re
import runpy
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from omnitraining import cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
LEARNER, TRAINING = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.usefixtures("all_validation_tasks")
def test_the_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(TRAINING, "README.md", "exec"), names)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4  # two benchmarks at two numbers of shots
    for line in lines:
        accuracy = float(re.search(r"([\d.]+) ± ", line)[1])
        assert accuracy > 30, "100 steps must lift five ways above chance"
    assert type(names["plain"]).__name__ == "Conv4"


def test_the_learner_and_its_command_line_twin_run_on_a_folder_of_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Drawings in mixed sizes, colors and formats, in folders with awkward names."""
    monkeypatch.chdir(tmp_path)
    draw: dict[str, Callable[[ImageDraw.ImageDraw, int], None]] = {
        "star": lambda pen, i: pen.regular_polygon((20, 20, 14 + i), 3, rotation=9 * i, fill=255),
        "ring №1 [x]": lambda pen, i: pen.ellipse((5, 5, 30 + i, 31), outline=255, width=3),
        "naïve & cross": lambda pen, i: (
            pen.line((3, 4 + i, 36, 36), 255, 4),
            pen.line((36, 4, 3, 36), 255, 4),
        ),
    }
    for name, shape in draw.items():
        (tmp_path / "mine" / "few" / name).mkdir(parents=True)
        (tmp_path / "mine" / "new").mkdir(exist_ok=True)
        for i, kind in enumerate(("png", "jpg", "webp", "bmp", "gif", "tif")):
            image = Image.new("L" if i % 2 else "RGB", (40, 40))
            shape(ImageDraw.Draw(image), i)
            image = image.resize((30 + 9 * i, 41 + i))
            new = tmp_path / "mine" / "new" / f"{name} {i}.{kind}"
            image.save(new if i > 3 else tmp_path / "mine" / "few" / name / f"ä ({i}).{kind}")
    image.save(tmp_path / "mine" / "new" / "1.png")
    image.save(tmp_path / "mine" / "one more.jpg")
    names: dict[str, Any] = {}
    exec(compile(LEARNER, "README.md", "exec"), names)
    paths = sorted((tmp_path / "mine" / "new").iterdir())
    again = names["again"]
    assert again.counts_ == {"naïve & cross": 4, "ring №1 [x]": 4, "star": 5}
    labels = again.classes_[again.predict_proba(paths).argmax(1)]
    right = [path.name.startswith(label) for path, label in zip(paths, labels, strict=True)]
    assert sum(right) >= 5  # of six; 1.png has no name to go by
    commands = re.findall(r"^(omni (?:adapt|predict) \S+ mine.*)$", README, re.MULTILINE)
    capsys.readouterr()
    for command in commands:
        assert cli.main(shlex.split(command)[1:]) == 0
    assert capsys.readouterr().out.count("mine/new") == len(paths)


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", README))
def test_links_lead_to_files(target: str) -> None:
    assert target.startswith("http") or (ROOT / target).exists()


def test_it_has_150_lines_or_fewer() -> None:
    assert len(README.splitlines()) <= 150


def test_the_results_are_up_to_date_with_the_records(monkeypatch: pytest.MonkeyPatch) -> None:
    script = ROOT / "results" / "render.py"
    monkeypatch.syspath_prepend(script.parent)
    monkeypatch.setattr(sys, "argv", [str(script), "--check"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name="__main__")
    assert not ended.value.code

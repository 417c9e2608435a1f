"""The documentation: its code runs, its links lead somewhere, and it leaves out no public name."""

import contextlib
import io
import re
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image, ImageDraw

import omnitraining
from docs.generate import hooks, reference
from omnitraining import cli
from omnitraining.config import run_config
from omnitraining.errors import CalibrationWarning, InputError
from omnitraining.evaluation import CellKey
from omnitraining.experiments import running
from omnitraining.experiments.experiment import experiments
from omnitraining.runs.run import Run
from tests.reference.tiny import BLOBS, config

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in DOCS.rglob("*.md"))
OUTSIDE = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "results/README.md"]
FAST = {r"\bsteps=\d{2,}": "steps=2", r"\bepoch=\d+": "val_every=2", r"\btasks=\d+": "tasks=4",
        r"\btrajectories=\d+": "trajectories=4"}  # fmt: skip
"""What tests change in the code of the docs: how long things take."""


generated = cache(hooks.generated)


def blocks(page: str, language: str) -> list[str]:
    """Fenced blocks of a language; those marked ``no-run`` are of another."""
    text = (ROOT / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the pages name: pictures of one's own, and runs."""
    folder = tmp_path_factory.mktemp("home")
    for label, corners in (("ring", 30), ("star", 3), ("box", 4)):
        (folder / "mine" / "few" / label).mkdir(parents=True)
        (folder / "mine" / "new").mkdir(exist_ok=True)
        for i in range(3):
            image = Image.new("L", (40, 40))
            ImageDraw.Draw(image).regular_polygon((20, 20, 12 + i), corners, 9 * i, 255)
            image.save(folder / "mine" / "few" / label / f"{i}.png")
            image.save(folder / "mine" / "new" / f"{label} {i}.png")
    image.save(folder / "mine" / "one more.jpg")
    running.train_run(config(BLOBS), folder / "runs" / "glyphs")
    shutil.copytree(folder / "runs" / "glyphs", folder / "runs" / "birds")
    return folder


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_python_runs(page: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page, one after the other, as a reader would paste them."""
    monkeypatch.chdir(home)
    # The runs here are of a problem of the tests; a reader's need no trust.
    monkeypatch.setattr(Run, "trust", property(lambda run: True, lambda run, _: None), False)
    names: dict[str, Any] = {"__name__": "pasted"}
    monkeypatch.setitem(sys.modules, "pasted", type(sys)("pasted"))  # dataclasses look it up
    for number, code in enumerate(blocks(page, "python")):
        for slow, fast in FAST.items():
            code = re.sub(slow, fast, code)
        with warnings.catch_warnings():
            # After the few steps of a test a model misclassifies its own images.
            warnings.simplefilter("ignore", CalibrationWarning)
            exec(compile(code, f"{page}, block {number}", "exec"), names)


def test_few_blocks_are_not_run() -> None:
    left_out = [page for page in PAGES if "```python no-run" in (ROOT / page).read_text()]
    assert set(left_out) <= {
        "docs/guides/pretrained.md",  # downloads weights of timm
        "docs/guides/frozen-backbone.md",  # the same
        "docs/export.md",  # pushes to a hub, with an account
    }


def test_my_own_algorithm_is_short() -> None:
    code = blocks("docs/guides/algorithm.md", "python")[0]
    assert len(code.splitlines()) < 40


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "yaml")])
def test_yaml_is_of_known_fields(page: str) -> None:
    known = {field for field in vars(run_config.RunConfig)["__dataclass_fields__"]}
    for text in blocks(page, "yaml"):
        assert set(yaml.safe_load(text)) <= known | {"tune"}


def commands() -> Iterator[tuple[str, str]]:
    """Every command line in the docs with the page that it is on."""
    for page in (*PAGES, "README.md", "results/README.md"):
        text = (ROOT / page).read_text().replace("\\\n", " ")
        fenced = re.findall(r"^```(?:console)?\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        lines = [line for block in fenced for line in block.splitlines()]
        for line in (*lines, *re.findall(r"`(omni [^`]+)`", text)):
            if line.startswith("omni "):
                yield page, re.split(r"\s{3,}|\s#", line)[0].strip()


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    """The help of each command; of train with all fields."""
    said = {}
    for command in cli.COMMANDS:
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
            cli.main([command, "--help"])
        said[command] = out.getvalue()
    for part in ("check", "prepare"):
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
            cli.main(["data", part, "--help"])
        said["data"] += out.getvalue()
    return said


FIELDS = ("problem", "backbone", "method", "pretraining", "metatraining", "omninet", "loss",
          "training", "inference", "seed", "teacher_run", "start_from", "recipe")  # fmt: skip


@pytest.mark.parametrize(("page", "line"), sorted(set(commands())))
def test_commands_exist(page: str, line: str, helps: dict[str, str]) -> None:
    """Command, options, names of experiments: all that can be checked without running it."""
    words = shlex.split(line)[1:]
    command = words[0]
    assert command in cli.COMMANDS
    if command == "reproduce" and len(words) > 1 and words[1] != "NAME":
        assert words[1] in hooks.experiments.experiments()
    for option in (word for word in words if word.startswith("--")):
        field = option.removeprefix("--").partition(".")[0]
        is_field = command in ("train", "sweep", "tune") and field in FIELDS
        assert is_field or re.search(rf"{re.escape(option)}\b", helps[command])


def test_fields_named_on_command_lines_exist() -> None:
    """`omni train` takes fields as options; a wrong one would be named."""
    with pytest.raises(InputError, match="nonsense"):
        run_config.read_config(Path("glyphs.yaml"), ["--training.nonsense", "1"])
    fields = ["--training.steps", "5", "--metatraining", "ProtoNet", "--metatraining.scale", "20"]
    assert run_config.read_config(Path("glyphs.yaml"), fields).metatraining.init_args.scale == 20


def anchors(text: str) -> set[str]:
    """Anchors of the headings of a page, as GitHub and MkDocs make them."""
    without_code = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.+)$", without_code, re.MULTILINE)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)|[`*]", r"\1", title) for title in titles]
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", p).strip().lower()) for p in plain}


@pytest.mark.parametrize("page", [*PAGES, *OUTSIDE])
def test_links_lead_somewhere(page: str) -> None:
    made = generated()
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", (ROOT / page).read_text()):
        if target.startswith(("http:", "https:")):
            continue
        found = ((ROOT / page).parent / target).resolve() if target else ROOT / page
        place = found.relative_to(DOCS).as_posix() if found.is_relative_to(DOCS) else ""
        text = made.get(place) or (found.read_text() if found.suffix == ".md" else "")
        assert place in made or found.exists(), f"{page} leads to {target}, which is not there"
        assert not anchor or anchor in anchors(text), f"{page}: no heading #{anchor} in {found}"


@pytest.mark.parametrize("name", omnitraining.__all__)
def test_public_names_are_documented(name: str) -> None:
    """Each has a docstring of its own and a place in the reference."""
    assert reference.summary(name)
    module = reference.public_names()[name]
    page = reference.modules()[module]
    assert f"::: {module}\n" in generated()[page]


def test_every_module_has_a_docstring() -> None:
    for module in reference.modules():
        doc = sys.modules[module].__doc__ if module in sys.modules else "not imported here"
        assert doc, f"{module} has no docstring"


def test_pages_of_experiments_show_their_records() -> None:
    """A number of a record stands on its page, and all pages are there."""
    made = generated()
    for shipped in experiments():
        assert f"omni reproduce {shipped.name}" in made[f"experiments/{shipped.name}.md"]
        assert shipped.title == hooks.experiments.experiments()[shipped.name].values["title"]
    record = hooks.experiments.experiments()["glyphs"].record
    assert record is not None
    mean = record.rows["baseline"].cells[CellKey("digits", 5, 1)].ensemble
    assert f"{mean.mean:.1f} ± {mean.interval:.1f}" in made["experiments/glyphs.md"]
    assert "has not been measured" in made["experiments/table2.md"]


@pytest.mark.slow
def test_the_site_builds(tmp_path: Path) -> None:
    """Strictly: a dead link, a dead anchor or a docstring that cannot be read is an error."""
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for name in omnitraining.__all__:
        module = reference.public_names()[name]
        page = tmp_path / reference.modules()[module].replace(".md", ".html")
        assert f'id="{module}.{name}"' in page.read_text()

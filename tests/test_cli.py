"""The program as its user meets it: every command, and one line for every mistake."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from omnitraining.batches import MiniBatch
from omnitraining.cli import COMMANDS, main
from omnitraining.config.fields import described
from omnitraining.config.recipes import merge
from omnitraining.config.run_config import RunConfig, instantiate, read_config
from omnitraining.errors import InputError
from omnitraining.evaluation import CellKey
from omnitraining.experiments import grid, reproduction, sweeping
from omnitraining.experiments.experiment import find_experiment
from omnitraining.experiments.jobs import Job
from omnitraining.metatraining import MatchingNet, ProtoNet
from omnitraining.pretraining import BaselinePP, SGDHead
from omnitraining.runs.run import Run
from omnitraining.tasks.regression.sinusoids import Sinusoids
from tests.reference.tiny import BLOBS, SINUSOIDS, Values

GLYPHS: Values = {
    "problem": {
        "class_path": "Glyphs",
        "init_args": {
            "protocol": {"shots": 1, "queries": 2, "batch": 8, "test_shots": [1]},
            "benchmarks": ["latin"],
            "size": 16,
            "instances": 4,
            "training_classes": 10,
        },
    },
    "backbone": {"class_path": "Conv4", "init_args": {"channels": 1, "width": 8}},
    "training": {"steps": 2, "val_every": 2, "threads": 1},
}
FILES = ["best.safetensors", "config.yaml", "last.safetensors", "metrics.csv", "provenance.json"]


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Characters are rendered once for all of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMNITRAINING_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def write(path: Path, values: Values) -> Path:
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture
def waves(tmp_path: Path) -> Path:
    return write(tmp_path / "waves.yaml", SINUSOIDS)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained and evaluated run; not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    config = write(folder / "waves.yaml", SINUSOIDS)
    assert main(["train", str(config), "--out", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of that run, to break."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


Command = Callable[..., str]


@pytest.fixture
def run_command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command that succeeds and returns what it prints."""

    def call(*arguments: object) -> str:
        capsys.readouterr()
        assert main([str(a) for a in arguments]) == 0
        return capsys.readouterr().out

    return call


@pytest.fixture
def refuses(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command that ends in one line and code 2, and returns the line."""

    def call(*arguments: object) -> str:
        capsys.readouterr()
        assert main([str(a) for a in arguments]) == 2
        captured = capsys.readouterr()
        # Training may have printed this before the error.
        progress = re.compile(r": (step \d|\d+ steps on )")
        lines = [line for line in captured.err.splitlines() if not progress.search(line)]
        assert len(lines) == 1 and lines[0].startswith("omni: "), captured.err
        assert captured.out == "" and "Traceback" not in captured.err
        return lines[0].removeprefix("omni: ")

    return call


# --- commands ---


def test_the_installed_program_starts() -> None:
    program = Path(sys.executable).parent / "omni"
    done = subprocess.run([program, "fly"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == f"omni: 'fly' is not a command: choose from {', '.join(COMMANDS)}\n"


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help_names_every_command(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        assert main(arguments) == 0
    except SystemExit as end:
        assert end.code == 0
    out = capsys.readouterr().out
    assert all(f"  {name}" in out and text in out for name, text in COMMANDS.items())


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train", "config --out --resume --fields"),
        ("evaluate", "run --shots --tasks --json"),
        ("compare", "runs --head"),
        ("reproduce", "name --out --smoke --seeds --only"),
        ("list", "experiments"),
        ("doctor", "installation"),
    ],
)
def test_every_command_has_help(
    command: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert f"omni {command}" in out and all(word in out for word in words.split())


def test_version(run_command: Command) -> None:
    assert run_command("--version").strip() == "0.1.0"


@pytest.mark.parametrize("name", ["glyphs", "navigation", "photos", "sinusoids"])
def test_fields_that_are_listed_can_be_given_as_they_are(name: str) -> None:
    path = Path(f"{name}.yaml")
    given = ["--problem.data", "some where"] if name == "photos" else []
    before = [*described(RunConfig, read_config(path, given).as_dict())]
    assert before[0][0] == "problem" and before[1][0].startswith("problem.")
    assert "torch.nn" not in str(before)
    assert all(meaning for _, _, meaning in before)
    options = [f"--{field}={value}" for field, value, _ in before]
    assert [*described(RunConfig, read_config(path, given + options).as_dict())] == before


def test_fields_of_a_configuration_are_explained(waves: Path, run_command: Command) -> None:
    lines = run_command("train", waves, "--fields").splitlines()
    text = " ".join(" ".join(lines).split())
    assert "optimizer steps, on one mini-batch and one episode each" in text
    assert "(Glyphs, Photos, Sinusoids, Reinforcement, or package.module.Class)" in text
    assert re.search(r"problem.waves +20 ", text) and re.search(r"backbone.hidden +\[8, 8\]", text)
    assert max(map(len, lines)) <= 200
    changed = run_command("train", waves, "--metatraining", "ProtoNet", "--fields")
    assert re.search(r"metatraining +ProtoNet ", changed) and "metatraining.metric" in changed


def test_train_leaves_a_run_that_is_trained_and_evaluated(finished: Path) -> None:
    assert sorted(p.name for p in finished.iterdir() if p.is_file()) == FILES
    assert (finished / "evaluations" / "test.json").is_file()
    cells = Run(finished).load_evaluation().cells
    first, second = cells
    assert (str(first), str(second)) == ("5-shot, 1 step", "5-shot, 2 steps")
    assert len(cells[first].scores["ensemble"]) == 600
    resolved = yaml.safe_load((finished / "config.yaml").read_text())
    assert resolved["loss"]["distill_weight"] == 0.0 and resolved["training"]["steps"] == 4


def test_train_on_images_with_fields_from_the_command_line(
    tmp_path: Path, run_command: Command
) -> None:
    config, folder = write(tmp_path / "glyphs.yaml", GLYPHS), tmp_path / "deep" / "run"
    out = run_command(
        "train", config, "--out", folder, "--loss.distill_weight", "1.5", "--seed", "4"
    )
    assert "latin 5-way 1-shot" in out and f"omni evaluate {folder}" in out
    assert all(head in out for head in ("pre", "joint", "meta", "ensemble"))
    assert sorted(p.name for p in folder.iterdir() if p.is_file()) == sorted([*FILES, "data.json"])
    resolved = yaml.safe_load((folder / "config.yaml").read_text())
    assert resolved["loss"]["distill_weight"] == 1.5 and resolved["seed"] == 4
    # The resolved configuration trains the same run.
    run_command("train", folder / "config.yaml", "--out", tmp_path / "again")
    first, again = (Run(path).load_evaluation() for path in (folder, tmp_path / "again"))
    assert first == again


def test_train_goes_on_with_resume(run: Path, waves: Path, run_command: Command) -> None:
    run_command("train", waves, "--out", run, "--resume", "--training.steps", "6")
    assert json.loads((run / "provenance.json").read_text())["step"] == 6


def test_an_interrupted_command_ends_in_code_130(
    waves: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Sinusoids, "validation_scores", stop)
    assert main(["train", str(waves), "--out", str(tmp_path / "run")]) == 130
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "omni: interrupted; continue a run with --resume"


def test_evaluate_takes_shots_tasks_and_a_file(
    run: Path, tmp_path: Path, run_command: Command
) -> None:
    test = (run / "evaluations" / "test.json").read_text()
    file = tmp_path / "new" / "result.json"
    out = run_command("evaluate", run, "--shots", 3, 7, "--tasks", 5, "--json", file)
    cells = json.loads(file.read_text())["cells"]
    wanted = [CellKey(shots=k, steps=s) for k in (3, 7) for s in (1, 2)]
    assert [CellKey.from_json(cell) for cell in cells] == wanted
    assert all(str(key) in out for key in wanted)
    assert all(len(scores) == 5 for cell in cells for scores in cell["scores"].values())
    assert (run / "evaluations" / "test.json").read_text() == test
    run_command("evaluate", run)
    assert json.loads((run / "evaluations" / "test.json").read_text()) == json.loads(test)


def scores_of(run: Path) -> Any:
    return json.loads((run / "evaluations" / "test.json").read_text())


def rewrite(run: Path, change: Callable[[Any], None]) -> None:
    record = scores_of(run)
    change(record)
    (run / "evaluations" / "test.json").write_text(json.dumps(record))


def test_compare_shows_paired_differences_from_the_first(
    run: Path, finished: Path, run_command: Command
) -> None:
    def worse(record: Any) -> None:
        first = record["cells"][0]["scores"]["ensemble"]
        record["cells"][0]["scores"]["ensemble"] = [score + 0.5 for score in first]

    rewrite(run, worse)
    one, other = (run_command("compare", *pair) for pair in ((finished, run), (run, finished)))
    assert "-0.5 ± " in one and "+0.5 ± " not in one
    assert "+0.5 ± " in other
    assert "n.s." in one  # the other cell is the same: no difference
    assert "-0.5 ± " not in run_command("compare", finished, run, "--head", "pre")


def test_compare_refuses_different_tasks_heads_and_benchmarks(
    run: Path, finished: Path, refuses: Command
) -> None:
    line = refuses("compare", finished, "--head", "chin")
    assert line == f"{finished} has no head 'chin', only pre, joint, meta, ensemble"

    def other_tasks(record: Any) -> None:
        record["cells"][0]["tasks_hash"] = "other"

    rewrite(run, other_tasks)
    line = refuses("compare", finished, run)
    assert "different tasks of '5-shot, 1 step': run 'omni evaluate' on both" in line

    def other_cells(record: Any) -> None:
        record["cells"] = {"latin": record["cells"][0]}  # as version 0.1 had them

    rewrite(run, other_cells)
    line = refuses("compare", finished, run)
    assert "share no benchmark" in line and "latin" in line and "5-shot, 1 step" in line
    shutil.rmtree(run / "evaluations")
    assert f"has no evaluation: run 'omni evaluate {run}'" in refuses("compare", finished, run)
    Run(run).write_text("evaluations/test.json", "{")
    assert "test.json is damaged" in refuses("compare", finished, run)


def test_list_names_everything_a_configuration_may_name(run_command: Command) -> None:
    out = run_command("list")
    for name in ("demo", "figure5", "glyphs.yaml", "Glyphs", "Sinusoids", "Baseline", "MAML"):
        assert name in out
    for name in ("ProtoNet", "L2Regression", "Conv4", "MLP", "ResNet18", "LogisticHead"):
        assert name in out
    assert "  MetaTraining" not in out and "  LinearHead" not in out  # abstract


def test_doctor_finds_this_installation_sound(run_command: Command) -> None:
    out = run_command("doctor")
    assert "yes, to" in out and torch.__version__ in out and "cpus" in out


def test_reproduce_smoke(
    tmp_path: Path, run_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = find_experiment("figure5")
    rows = {row: experiment.rows[row] for row in ("omni-training", "maml")}
    tiny = {
        "problem": {"init_args": {"test_shots": [5, 9], "test_steps": 2}},
        "backbone": {"init_args": {"hidden": [8, 8]}},
        "training": {"steps": 2, "val_every": 2},
    }
    small = dataclasses.replace(experiment, rows=rows, smoke=merge(experiment.smoke, tiny))
    monkeypatch.setattr(reproduction, "find_experiment", lambda name: small)
    out = run_command("reproduce", "figure5", "--smoke", "--out", tmp_path)
    assert "Sinusoid regression" in out and "paper: Figure 5" in out
    assert f"record: {tmp_path / 'figure5.json'}" in out
    assert (tmp_path / "figure5.png").is_file()
    for row in rows:
        assert row in out and (tmp_path / f"{row}-0" / "config.yaml").is_file()


# --- mistakes in a configuration ---

MISTAKES: list[tuple[list[str], str]] = [
    (["--trainin.steps", "1"], "has no field 'trainin.steps': choose from problem, backbone"),
    (["--training.step", "1"], "training has no field 'step': choose from steps, val_every"),
    (["--problem.wavs", "1"], "problem has no field 'wavs': choose from waves, support"),
    (["--backbone.widht", "1"], "backbone has no field 'widht': choose from inputs, hidden"),
    (["stray"], "has no field 'stray': choose from problem"),
    (["--training.steps", "many"], "training.steps is many: it must be an integer"),
    (["--training.steps", "1.5"], "training.steps is 1.5: it must be an integer"),
    (["--training.lr", "fast"], "training.lr is fast: it must be a number"),
    (["--loss.l_pre", "maybe"], "loss.l_pre is maybe: it must be true or false"),
    (["--omninet.rank", "x"], "omninet.rank is x: it must be an integer or null"),
    (["--problem.waves", "x"], "problem.waves is x: it must be an integer"),
    (["--training.optimizer", "lion"], "it must be one of 'adam', 'sgd'"),
    (["--method", "magic"], "it must be one of 'omni-training', 'pre-training'"),
    (["--training.steps", "-1"], "training.steps is -1: it must be 0 or more"),
    (["--training.lr", "-1"], "training.lr is -1.0: it must be greater than 0"),
    (["--loss.ema_decay", "1"], "loss.ema_decay is 1.0: it must be at least 0 and less than 1"),
    (
        ["--loss.distill_weight", "-1"],
        "loss.distill_weight is -1.0: it must be 0 or more",
    ),
    (["--omninet.rank", "0"], "rank is 0: it must be 1 or more"),
    (["--problem.test_shots", "[99]"], "problem.test_shots is (99,): give numbers from 1 to 50"),
    (["--backbone", "Conv9"], "there is no class 'Conv9': choose from MLP, Conv4, R2D2Net"),
    (["--problem", "Waves"], "there is no class 'Waves': choose from Glyphs, Photos"),
    (
        ["--pretraining", "Rot"],
        "there is no class 'Rot': choose from PMM, REINFORCE, RFS,",
    ),
    (["--metatraining", "Rot"], "there is no class 'Rot': choose from ANIL, CAN,"),
    (["--backbone", "no.such.Net"], "No module named 'no': choose from MLP, Conv4"),
    (["--backbone", "torch.nn.Nothing"], "has no attribute 'Nothing': choose from MLP, Conv4"),
    (["--problem", "torch.nn.Linear"], "does not correspond to a subclass of Problem"),
    (["--backbone", "torch.nn.Bilinear"], "required: in1_features, in2_features, out_features"),
    (["--training.device", "tpu9"], "training.device is 'tpu9', which is not usable here"),
    (["--backbone", "torch.nn.Identity"], "Identity has no layer to convert: an Omni-Net needs"),
    (
        ["--backbone", "tests.reference.tiny.Volumes"],
        "returns [2, 2, 2] for inputs of shape [2, 1]: wrap it in a module",
    ),
    (["--backbone", "Conv4"], "does not take inputs of shape [2, 1]"),
    (["--metatraining", "ProtoNet"], "Sinusoids needs pretraining L2Regression and metatraining"),
    (
        ["--method", "pre-training", "--inference.flows", "[meta]"],
        "inference.flows is ['meta'], but the model has only ['pre']",
    ),
    (
        ["--method", "meta-training", "--loss.l_meta", "false"],
        "has no loss to train with: loss.l_pre, loss.l_joint or loss.l_meta must be true",
    ),
]


@pytest.mark.parametrize(
    ("fields", "words"), MISTAKES, ids=lambda v: v[:40] if isinstance(v, str) else " ".join(v)
)
def test_a_wrong_field_is_one_line_and_leaves_no_trace(
    fields: list[str], words: str, waves: Path, tmp_path: Path, refuses: Command
) -> None:
    assert words in refuses("train", waves, "--out", tmp_path / "run", *fields)
    assert not (tmp_path / "run").exists()


IN_FILES: list[tuple[Values, str]] = [
    ({"trainin": {"steps": 2}}, "has no field 'trainin.steps': choose from problem, backbone"),
    ({"training": {"stepz": 2}}, "training has no field 'stepz': choose from steps, val_every"),
    ({"training": {"steps": "abc"}}, "training.steps is abc: it must be an integer"),
    ({"training": 3}, "training is 3: it must hold fields of steps, val_every"),
    ({"training": {"steps": None}}, "training.steps has no value: leave it out for 3000"),
    ({"seed": None}, "seed has no value: leave it out for 0"),
    ({"backbone": {"class_path": "Conv9"}}, "there is no class 'Conv9': choose from MLP, Conv4"),
    ({"backbone": {"class_path": "MLP", "init_args": {"wide": 1}}}, "has no field 'wide'"),
    ({"problem": {"class_path": "Sinusoids", "init_args": {"waves": "x"}}}, "problem.waves is x"),
    ({"problem": 3}, "problem: Not a valid subclass of Problem: choose from Glyphs, Photos"),
    ({"inference": {"flows": ["post"]}}, "inference.flows is post: it must be one of 'pre'"),
    ({"problem": {"class_path": "Glyphs", "init_args": {"protocol": {"wayz": 2}}}}, "shots"),
    (
        {"pretraining": {"class_path": "Baseline", "init_args": {"new_head": "Ridge"}}},
        "pretraining.new_head: there is no class 'Ridge': choose from CosineHead, Logistic",
    ),
]


@pytest.mark.parametrize(("changes", "words"), IN_FILES, ids=lambda v: str(v)[:40])
def test_a_wrong_field_in_a_file_is_one_line_that_names_the_file(
    changes: Values, words: str, tmp_path: Path, refuses: Command
) -> None:
    config = write(tmp_path / "wrong.yaml", {**SINUSOIDS, **changes})
    line = refuses("train", config, "--out", tmp_path / "run")
    assert line.startswith(f"{config}: ") and words in line


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: [1\nb: 2", "is not YAML: "),
        (b"\x80abc", "is not YAML: "),
        (b"hello", "must hold fields and values, as in 'seed: 0'"),
        (b"", "must hold fields and values, as in 'seed: 0'"),
        (b"problem: {class_path: Sinusoids}", "required: backbone"),
    ],
)
def test_a_wrong_file_is_one_line(
    content: bytes, words: str, tmp_path: Path, refuses: Command
) -> None:
    config = tmp_path / "wrong.yaml"
    config.write_bytes(content)
    line = refuses("train", config, "--out", tmp_path / "run")
    assert str(config) in line and words in line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"instances": 2}, "problem.instances is 2, fewer than the 3 images that a class needs"),
        ({"training_classes": 3}, "glyphs-latin-train has 3 classes, fewer than 5 ways"),
        ({"size": 8}, "problem.size is 8: images must be 16 pixels or larger"),
        ({"benchmarks": ["klingon"]}, "'klingon' is not one of latin, greek, cyrillic"),
        ({"protocol": {"ways": 1}}, "protocol.ways is 1: it must be 2 or more"),
    ],
)
def test_impossible_image_tasks_are_one_line(
    options: Values, words: str, tmp_path: Path, refuses: Command
) -> None:
    values = merge(GLYPHS, {"problem": {"init_args": options}})
    config = write(tmp_path / "glyphs.yaml", values)
    assert words in refuses("train", config, "--out", tmp_path / "run")


def test_a_class_with_fewer_images_than_shots_and_queries(tmp_path: Path, refuses: Command) -> None:
    config, run = write(tmp_path / "glyphs.yaml", GLYPHS), tmp_path / "run"
    assert main(["train", str(config), "--out", str(run)]) == 0
    line = refuses("evaluate", run, "--shots", 3, "--tasks", 2)
    expected = "has 4 images, fewer than 3 shots + 2 queries = 5"
    assert line == f"class 'A' of glyphs-latin-test {expected}"


# --- mistakes with runs ---


def test_a_loss_that_becomes_nan_stops_and_keeps_the_last_good_checkpoint(
    waves: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refuses: Command,
    run_command: Command,
) -> None:
    original = Sinusoids.minibatch

    def minibatch(self: Sinusoids, step: int, random: torch.Generator) -> MiniBatch:
        batch = original(self, step, random)
        return MiniBatch(batch.x, batch.y * float("nan")) if step >= 3 else batch

    monkeypatch.setattr(Sinusoids, "minibatch", minibatch)
    line = refuses("train", waves, "--out", tmp_path / "run")
    assert "loss term l_pre became nan on the mini-batch of training step 3" in line
    assert "lower training.lr or the weight of that term" in line
    assert "5-shot, 2 steps" in run_command("evaluate", tmp_path / "run", "--tasks", 2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fly"], "'fly' is not a command: choose from train, evaluate"),
        (["--fly"], "unrecognized arguments: --fly (see 'omni --help')"),
        (["train"], "required: config (see 'omni train --help')"),
        (["train", "none.yaml"], "no configuration file at none.yaml: 'omni list' shows"),
        (["evaluate"], "required: RUN"),
        (["evaluate", "nowhere"], "no run at nowhere: there is no config.yaml in it"),
        (["compare", "nowhere"], "no run at nowhere: there is no config.yaml in it"),
        (["evaluate", "nowhere", "--task", "2"], "unrecognized arguments: --task 2"),
        (["reproduce", "figure0"], "no experiment 'figure0': choose from demo, figure3"),
        (["reproduce", "figure5", "--only", "x"], "no row 'x': choose from omni-training, maml"),
        (["reproduce", "figure5", "--seeds", "x"], "argument --seeds: invalid int value: 'x'"),
        (["list", "x"], "unrecognized arguments: x"),
        (["doctor", "x"], "unrecognized arguments: x"),
    ],
)
def test_wrong_arguments_are_one_line(arguments: list[str], words: str, refuses: Command) -> None:
    assert words in refuses(*arguments)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--tasks", "1"], "--tasks is 1: it must be from 2 to 600"),
        (["--tasks", "601"], "--tasks is 601: it must be from 2 to 600"),
        (["--tasks", "x"], "argument --tasks: invalid int value: 'x'"),
        (["--shots", "0"], "problem.test_shots is (0,): give numbers from 1 to 50"),
        (["--tasks", "2", "--json", f"{__file__}/a"], f"{__file__}/a: {__file__} is not a folder"),
    ],
)
def test_wrong_options_of_evaluate(
    options: list[str], words: str, run: Path, refuses_or_prints: Command
) -> None:
    assert words in refuses_or_prints("evaluate", run, *options)


@pytest.fixture
def refuses_or_prints(capsys: pytest.CaptureFixture[str]) -> Command:
    """As `refuses`, for a command that may have printed its table before."""

    def call(*arguments: object) -> str:
        capsys.readouterr()
        assert main([str(a) for a in arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return call


def damage(run: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    (run / name).write_bytes(change((run / name).read_bytes()))


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        (
            "best.safetensors",
            lambda b: b[: len(b) // 2],
            "best.safetensors is truncated or damaged",
        ),
        ("best.safetensors", lambda b: b"", "best.safetensors is truncated or damaged"),
        ("config.yaml", lambda b: b.replace(b"- 8", b"- 9"), "is of another model: "),
        ("config.yaml", lambda b: b"x: [1", "config.yaml is not YAML"),
        ("config.yaml", lambda b: b"x: 1", "config.yaml: configuration has no field 'x'"),
        ("config.yaml", lambda b: b"hello", "config.yaml must hold fields and values"),
    ],
)
def test_a_damaged_run_is_one_line(
    name: str, change: Callable[[bytes], bytes], words: str, run: Path, refuses: Command
) -> None:
    damage(run, name, change)
    line = refuses("evaluate", run, "--tasks", 2)
    assert words in line and str(run) in line


SCORES = '{"unit": "u", "higher_is_better": true, "cells": {"a": %s}}'


@pytest.mark.parametrize("text", [
    "[]", '{"unit": "u", "higher_is_better": true, "cells": 3}', SCORES % "3",
    SCORES % '{"tasks_hash": "h", "scores": {"ensemble": ["0.5", "0.7"]}}',
    SCORES % '{"tasks_hash": "h", "scores": {"ensemble": []}}',
    SCORES % '{"tasks_hash": "h", "scores": {"ensemble": 3}}',
    SCORES % '{"tasks_hash": "h", "scores": {"pre": [1, 2]}}',
    SCORES % '{"tasks_hash": "h", "scores": {"ensemble": [1, 2], "pre": [1]}}',
])  # fmt: skip
def test_a_damaged_evaluation_is_one_line(text: str, run: Path, refuses: Command) -> None:
    (run / "evaluations" / "test.json").write_text(text)
    assert "test.json is damaged (" in refuses("compare", run, run)


def test_what_cannot_be_written_is_shown(
    run: Path,
    waves: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A result that took minutes or days is printed even if its file cannot be written."""

    def refuse(*_: Any) -> None:
        raise InputError("cannot write it: Read-only file system")

    monkeypatch.setattr(Run, "save_evaluation", refuse)
    with pytest.warns(UserWarning, match="not stored in the run: cannot write it"):
        assert main(["evaluate", str(run), "--tasks", "2", "--json", str(tmp_path / "a")]) == 0
    assert "5-shot, 1 step" in capsys.readouterr().out
    cells = json.loads((tmp_path / "a").read_text())["cells"]
    assert [cell["steps"] for cell in cells] == [1, 2]
    assert main(["train", str(waves), "--out", str(tmp_path / "new")]) == 2
    captured = capsys.readouterr()
    assert "5-shot, 1 step" in captured.out and "Read-only file system" in captured.err


def test_a_record_that_cannot_be_written_is_shown(
    run: Path, waves: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(30, "Read-only file system", "record.json")

    monkeypatch.setattr(sweeping, "write_record", refuse)
    (cell, *_) = grid.combinations(waves, {"loss.distill_weight": ["3", "4"]})
    job = Job(cell.label, "", run, {**cell.values, "seed": 0})
    header = {"experiment": "e", "title": "T", "paper": "p", "command": "c"}
    with pytest.raises(OSError, match="Read-only"):
        sweeping.conclude([cell], [job], run.parent, header)
    assert "T: mean squared error" in capsys.readouterr().out


def test_the_format_of_warnings_is_restored() -> None:
    before = warnings.formatwarning
    assert main(["list"]) == 0
    assert warnings.formatwarning is before


def test_a_run_without_checkpoint_is_one_line(run: Path, refuses: Command) -> None:
    (run / "best.safetensors").unlink()
    assert refuses("evaluate", run) == f"no checkpoint at {run / 'best.safetensors'}"


def test_existing_runs_are_neither_overwritten_nor_mixed(
    run: Path, waves: Path, tmp_path: Path, refuses: Command
) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    line = refuses("train", waves, "--out", run)
    assert line == f"{run} already holds a run: add --resume, or choose another --out"
    line = refuses("train", waves, "--out", tmp_path / "new", "--resume")
    assert line == f"nothing to resume at {tmp_path / 'new'}: there is no such folder"
    line = refuses("train", waves, "--out", run, "--resume", "--loss.distill_weight", "1")
    assert "was trained with another loss.distill_weight: only training.steps" in line
    line = refuses("train", waves, "--out", run, "--resume", "--training.steps", "2")
    assert "training.steps is 2, but" in line and "is at step 4" in line
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    damage(run, "last.safetensors", lambda b: b[:50])
    line = refuses("train", waves, "--out", run, "--resume")
    assert "last.safetensors is truncated or damaged" in line


def test_a_folder_that_cannot_be_made_is_one_line(
    waves: Path, tmp_path: Path, refuses: Command
) -> None:
    (tmp_path / "file").write_text("")
    assert refuses("train", waves, "--out", tmp_path / "file").endswith(
        "file is a file: a run is a folder"
    )
    line = refuses("train", waves, "--out", tmp_path / "file" / "run")
    assert line.endswith("file/run: Not a directory")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--metatraining", "MatchingNet"], MatchingNet()),
        (["--metatraining=MatchingNet"], MatchingNet()),
        (["--metatraining", "MatchingNet", "--metatraining.steps", "3"], MatchingNet(steps=3)),
        (["--metatraining", "ProtoNet"], ProtoNet(scale=3.0)),
        (["--metatraining.scale", "4"], ProtoNet(scale=4.0)),
        (["--pretraining", "BaselinePP"], BaselinePP()),
        (["--pretraining", "BaselinePP", "--pretraining.new_head", "SGDHead"],
         BaselinePP(new_head=SGDHead())),
    ],
)  # fmt: skip
def test_a_class_given_by_name_has_its_own_defaults(
    tmp_path: Path, options: list[str], expected: object
) -> None:
    """It does not inherit options of the same name from the class before it."""
    path = tmp_path / "scaled.yaml"
    path.write_text(yaml.safe_dump(merge(BLOBS, {
        "metatraining": {"class_path": "ProtoNet", "init_args": {"scale": 3.0}}})))  # fmt: skip
    experiment = instantiate(read_config(path, options))
    assert expected in (experiment.metatraining, experiment.pretraining)

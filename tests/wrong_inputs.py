"""Wrong inputs, and the table of the error lines that users read.

    python -m tests.wrong_inputs        writes docs/bad-input.md again

The lines are from the command line, or the message of the `InputError` in Python. Paths are
shortened: DIR is a folder of the user. The tests pin the names and values of each line, not its
words: see `facts`.
"""

import contextlib
import io
import itertools
import json
import math
import os
import pickle
import re
import shutil
import tempfile
from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import omnitraining
from omnitraining import (
    MLP,
    Baseline,
    Classification,
    EpisodeConfig,
    FewShotClassifier,
    FewShotRegressor,
    Inference,
    InputError,
    LabeledImages,
    Navigation,
    OmniLoss,
    OmniNet,
    ProtoNet,
    Reinforcement,
    Training,
    build_model,
    datasets,
)
from omnitraining.cli import main
from omnitraining.config.recipes import merge
from omnitraining.config.run_config import instantiate, parse, read_config
from omnitraining.datasets import image_cache
from omnitraining.datasets.arrays import from_arrays, from_dataset
from omnitraining.experiments.running import train_run
from omnitraining.experiments.tuning import Range, Search
from omnitraining.learner import TrainedModel
from omnitraining.learner.sources import find
from omnitraining.runs.run import Run, load_checkpoint
from omnitraining.tasks.reinforcement.gymnasium_tasks import GymnasiumTasks
from tests.reference.tiny import NAVIGATION, SINUSOIDS, Values, blobs

PAGE = Path(__file__).parents[1] / "docs" / "bad-input.md"

HEAD = """# Error messages

Wrong input ends in one line that names what was wrong and what is allowed, and in exit code 2; in
Python in an `InputError` with that line. A traceback is a bug. These are the inputs that the tests
try, {count} of them, and their lines; `DIR` stands for a folder. `python -m tests.wrong_inputs`
writes this page; the tests check that each line names these fields, options and values.
"""


class Case(NamedTuple):
    """One wrong input."""

    group: str
    what: str
    attempt: Callable[["Workspace"], object]


class Workspace:
    """What users have, in a folder of its own: photographs, runs, a fitted learner.

    Args:
        folder: an empty one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, itertools.count()
        self.photos = folder / "data" / "birds"
        random = np.random.default_rng(0)
        for name in ("ara", "auk", "emu", "jay", "owl", "tit", "wren", "rook", "kite", "gull"):
            for number in range(6):
                self.picture(self.photos / name / f"{number}.png", random)
        self.waves, self.walk = folder / "waves", folder / "walk"
        train_run(parse(SINUSOIDS), self.waves)
        # Whether student or teacher validates better may differ between processors.
        train_run(parse(NAVIGATION | {"inference": {"weights": "student"}}), self.walk)
        self.learner = folder / "birds.learner"
        omnitraining.load("glyphs").fit(self.photos).save(self.learner)

    @cached_property
    def _project(self) -> Path:
        project = self.folder / "project"
        shutil.copytree(self.photos, project / "data" / "birds")
        config = project / "photos.yaml"
        config.write_text(yaml.safe_dump(merge(PHOTOS, problem(data="data"))))
        train_run(read_config(config, []), project / "run")
        return project

    def project(self) -> Path:
        """A configuration, photographs beside it and a run of them, which may be changed."""
        return Path(shutil.copytree(self._project, self.new()))

    def picture(self, path: Path, random: np.random.Generator) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (20, 20, 3), np.uint8)).save(path)
        return path

    def new(self) -> Path:
        """A folder that is not there yet."""
        return self.folder / f"new{next(self.count)}"

    def text(self, name: str, content: str | bytes) -> Path:
        """A file of that name and content in a new folder."""
        path = self.new() / name
        path.parent.mkdir(parents=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def config(self, *changes: Values, base: Values = SINUSOIDS) -> Path:
        """A configuration file."""
        return self.text("config.yaml", yaml.safe_dump(merge(base, *changes)))

    def copy(self, run: Path) -> Path:
        """A run that may be changed."""
        return Path(shutil.copytree(run, self.new() / run.name))

    def omni(self, *words: object) -> None:
        """A command, which must fail with one line; it is raised here."""
        printed = io.StringIO()
        with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(io.StringIO()):
            code = main([str(word) for word in words])
        lines = printed.getvalue().splitlines()
        if code != 2 or len(lines) != 1:
            raise AssertionError(f"code {code}, {len(lines)} lines: {printed.getvalue()}")
        raise InputError(lines[0])

    def train(
        self, *changes: Values, base: Values = SINUSOIDS, options: tuple[str, ...] = ()
    ) -> None:
        """The command that trains a configuration with changes."""
        self.omni("train", self.config(*changes, base=base), "--out", self.new(), *options)

    def train_text(self, content: str | bytes) -> None:
        """The command that trains what a file of that content describes."""
        self.omni("train", self.text("c.yaml", content))

    def line_for(self, case: Case) -> str:
        """The line that a wrong input gets."""
        try:
            case.attempt(self)
        except InputError as error:
            return self.shortened(str(error))
        raise AssertionError(f"{case.what}: nothing was wrong")

    def shortened(self, line: str) -> str:
        line = re.sub(rf"{re.escape(str(self.folder))}/new\d+", "DIR", line)
        line = line.replace(str(self.folder), "DIR")
        line = re.sub(r"https?://\S+|/\S*/omnitraining/", "", line)
        # Pythons quote the choices of an option, or do not.
        line = re.sub(r"\(choose from [^)]*\)", lambda found: found[0].replace("'", ""), line)
        # Lists of what there is grow with the library, and the page shall not.
        many = r"(choose from (?:[^ ,]+, ){3})(?:[^ ,]+, ){4,}(?:(?=or )|[^ ,]+)"
        return re.sub(many, r"\1... ", line).rstrip()


# What the cases are made of


def init(**values: Any) -> Values:
    """Options of a class in a configuration."""
    return {"init_args": values}


def problem(**values: Any) -> Values:
    return {"problem": init(**values)}


def training(**values: Any) -> Values:
    return {"training": values}


def metatraining(name: str, **values: Any) -> Values:
    return {"metatraining": {"class_path": name, **init(**values)}}


PHOTOS: Values = {
    "problem": {
        "class_path": "Photos",
        "init_args": {
            "training": ["birds"],
            "validation": "birds",
            "benchmarks": ["birds"],
            "size": 16,
            "protocol": {
                "ways": 2,
                "shots": 1,
                "queries": 2,
                "batch": 4,
                "test_ways": 2,
                "test_shots": [1],
            },
        },
    },
    "backbone": {"class_path": "Conv4", "init_args": {"width": 4}},
    "training": {"steps": 1, "val_every": 1, "threads": 1},
}
ENVIRONMENT = "problem.init_args.environment"


def photos(workspace: Workspace, *changes: Values, data: Path | None = None) -> None:
    workspace.train({**problem(data=str(data or workspace.photos.parent))}, *changes, base=PHOTOS)


def walking(workspace: Workspace, name: str, **values: Any) -> None:
    """The command that trains in another environment."""
    kind = {"environment": {"class_path": name, "init_args": values}}
    base = merge(NAVIGATION, {})
    del base["problem"]["init_args"]["environment"]
    workspace.train(problem(**kind), base=base)


def damaged(workspace: Workspace, name: str, content: bytes) -> Path:
    """A run of which one file has another content."""
    run = workspace.copy(workspace.waves)
    (run / name).write_bytes(content)
    return run


def cut(workspace: Workspace, name: str) -> Path:
    """A run of which one file ends too early."""
    whole = (workspace.waves / name).read_bytes()
    return damaged(workspace, name, whole[: len(whole) // 2])


def with_checkpoint_facts(workspace: Workspace, **changes: Any) -> Path:
    """A run whose best checkpoint has changed facts."""
    run = workspace.copy(workspace.waves)
    path = run / "best.safetensors"
    facts = {**load_checkpoint(path, {}), **changes}
    save_file(load_file(path), path, {"facts": json.dumps(facts)})
    return run


def busy(workspace: Workspace) -> None:
    """Training of a run that another program trains."""
    run = workspace.copy(workspace.waves)
    with Run(run).training_lock():
        workspace.omni("train", workspace.config(), "--resume", "--out", run)


def renamed_class(workspace: Workspace) -> None:
    project = workspace.project()
    (project / "data" / "birds" / "ara").rename(project / "data" / "birds" / "zebra")
    workspace.omni("evaluate", project / "run")


def removed_image(workspace: Workspace) -> None:
    project = workspace.project()
    (project / "data" / "birds" / "ara" / "0.png").unlink()
    workspace.omni("train", project / "photos.yaml", "--resume", "--out", project / "run")


def two_places(workspace: Workspace) -> None:
    """A relative path that leads to a folder beside the configuration and to one here."""
    path = workspace.config({"start_from": "run"})
    (path.parent / "run").mkdir()
    here = path.parent / "here"
    (here / "run").mkdir(parents=True)
    before = Path.cwd()
    os.chdir(here)
    try:
        workspace.omni("train", path, "--out", workspace.new())
    finally:
        os.chdir(before)


def journal(workspace: Workspace, line: bytes) -> None:
    """A search with a line in its journal that is none."""
    out = workspace.new()
    Search(workspace.config(), {}, {"loss.distill_weight": Range(("0", "1"))}, out)
    with (out / "study.log").open("ab") as file:
        file.write(line)
    workspace.omni("tune", workspace.config(), "--loss.distill_weight", "0,1", "--out", out)


def with_facts(workspace: Workspace, **changes: Any) -> Path:
    """A saved learner whose JSON differs."""
    with safe_open(workspace.learner, "pt") as file:
        facts = json.loads(file.metadata()["learner"])
    path = workspace.text("changed.learner", "")
    save_file(load_file(workspace.learner), path, {"learner": json.dumps({**facts, **changes})})
    return path


def listed(workspace: Workspace, content: str | bytes, name: str = "all.csv") -> None:
    """A check of a data set of one list beside a folder of images."""
    path = workspace.text(name, content)
    shutil.copytree(workspace.photos / "ara", path.parent / "images")
    datasets.read(path.parent)


def pickled(workspace: Workspace, content: object) -> None:
    path = workspace.text("mini-imagenet-cache-train.pkl", pickle.dumps(content))
    datasets.read(path.parent)


def folders(workspace: Workspace, *names: str) -> Path:
    """A folder with empty folders."""
    place = workspace.new()
    for name in names:
        (place / name).mkdir(parents=True)
    return place


def image(workspace: Workspace, name: str, content: bytes) -> None:
    workspace.omni("predict", workspace.learner, workspace.text(name, content))


def whole_png(workspace: Workspace) -> bytes:
    return (workspace.photos / "ara" / "0.png").read_bytes()


@cache
def model() -> TrainedModel:
    return find("glyphs")


def glyphs() -> FewShotClassifier:
    return FewShotClassifier(model())


def gray(count: int = 4) -> np.ndarray[Any, Any]:
    return np.zeros((count, 32, 32), np.uint8)


@cache
def fitted() -> FewShotClassifier:
    return glyphs().fit(gray(), [0, 0, 1, 1])


class Slider(Navigation):
    """An environment of a user, which may go wrong."""

    def __init__(self, states: object = None, rewards: object = None, tasks: object = None) -> None:
        super().__init__(horizon=4)
        self.wrong, self.wrong_tasks = (states, rewards), tasks

    def sample_tasks(self, count: int, random: torch.Generator) -> Any:
        return super().sample_tasks(count, random) if self.wrong_tasks is None else self.wrong_tasks

    def step(self, actions: Tensor) -> Any:
        found = super().step(actions)
        return tuple(x if y is None else y for x, y in zip(found, (*self.wrong, None), strict=True))


def slide(**wrong: object) -> None:
    values = merge(NAVIGATION, {})
    chosen = instantiate(parse(values))
    data = Reinforcement(Slider(**wrong), tasks=3, trajectories=2, test_tasks=2)
    parts = (data, chosen.pretraining, chosen.metatraining, OmniLoss())
    model = build_model("meta-training", chosen.backbone, *parts)
    data.samples(0, torch.Generator().manual_seed(0), model)


def gym(*choices: str, copies: int = 1) -> None:
    import gymnasium

    class Vector:
        num_envs = copies
        single_observation_space: Any = gymnasium.spaces.Box(-1, 1, (2,))
        single_action_space: Any = gymnasium.spaces.Box(-1, 1, (2,))

    for space in choices:
        setattr(Vector, f"single_{space}_space", gymnasium.spaces.Discrete(3))
    world = GymnasiumTasks(lambda count: Vector(), lambda count, random: torch.zeros(count, 1), 5)
    world.reset(torch.zeros(1, 1), torch.Generator())


def small(**protocol: int) -> Classification:
    parts = [blobs(4, 6, name) for name in "abc"]
    return Classification(parts[0], parts[1], {"c": parts[2]}, EpisodeConfig(**protocol))


def convert(backbone: nn.Module, **options: Any) -> OmniNet:
    return OmniNet(backbone, **options)


def computing(forward: Callable[[nn.Module, Tensor], object]) -> None:
    """A model whose backbone computes by a function, of itself and its inputs."""
    Own = type("Own", (MLP,), {"forward": forward})  # noqa: N806 (a class)
    build_model(
        "omni-training", lambda: Own(256, (4,)), small(ways=2, shots=1, queries=1), Baseline()
    )


def computed(net: nn.Module, x: Tensor) -> Tensor:
    return MLP.forward(cast(MLP, net), x.flatten(1))


def holding_itself() -> nn.Module:
    net = nn.Sequential(nn.Linear(2, 2))
    net.forward = lambda x: net[0](x)  # type: ignore[method-assign]
    return net


OMNI = "Command line"
CONFIG = "Configuration"
TRAIN = "Training and resuming"
RUNS = "Runs"
MODELS = "Saved learners and other models"
FITS = "Learning and predicting"
IMAGES = "Images"
DATA = "Data sets"
LISTS = "Lists and pickles of images"
ENVIRONMENTS = "Environments"
PYTHON = "Building blocks in Python"

_CASES = [
    Case(OMNI, "a command that is not there", lambda r: r.omni("trian", "glyphs.yaml")),
    Case(OMNI, "an option that is not there", lambda r: r.omni("evaluate", r.waves, "--shot", 1)),
    Case(OMNI, "an option without its value", lambda r: r.omni("evaluate", r.waves, "--tasks")),
    Case(OMNI, "no run", lambda r: r.omni("evaluate")),
    Case(OMNI, "a word for a number", lambda r: r.omni("evaluate", r.waves, "--tasks", "many")),
    Case(
        OMNI, "a short form of an option", lambda r: r.omni("predict", r.learner, "a.png", "--js")
    ),
    Case(
        OMNI, "two forms of output", lambda r: r.omni("predict", r.learner, "a", "--json", "--csv")
    ),
    Case(
        OMNI,
        "an empty text for a path",
        lambda r: r.omni("adapt", "glyphs", r.photos, "--out", ""),
    ),
    Case(OMNI, "an option of no value", lambda r: r.omni("report", r.folder, "--out=")),
    Case(OMNI, "an option before the command", lambda r: r.omni("--tasks", 3, "evaluate")),
    Case(OMNI, "an experiment that is not there", lambda r: r.omni("reproduce", "table9")),
    Case(
        OMNI, "a row that is not there", lambda r: r.omni("reproduce", "glyphs", "--only", "omny")
    ),
    Case(OMNI, "a budget above one", lambda r: r.omni("reproduce", "glyphs", "--budget", 2)),
    Case(OMNI, "photographs without a folder", lambda r: r.omni("reproduce", "table2")),
    Case(OMNI, "data without a verb", lambda r: r.omni("data", r.photos)),
    Case(OMNI, "a format that is not there", lambda r: r.omni("export", r.waves, "--format", "h5")),
    Case(OMNI, "a picture of another kind", lambda r: r.omni("watch", r.walk, "--out", "a.jpg")),
    Case(OMNI, "a run on curves to watch", lambda r: r.omni("watch", r.waves, "--out", "a.png")),
    Case(OMNI, "attention on curves", lambda r: r.omni("attention", r.waves, "--out", "a.png")),
    Case(CONFIG, "no such file", lambda r: r.omni("train", r.folder / "none.yaml")),
    Case(CONFIG, "a folder for a file", lambda r: r.omni("train", r.folder)),
    Case(CONFIG, "no YAML", lambda r: r.train_text("seed: [1")),
    Case(CONFIG, "a list", lambda r: r.train_text("- seed")),
    Case(CONFIG, "an empty file", lambda r: r.train_text("")),
    Case(CONFIG, "no text at all", lambda r: r.train_text(b"\xff\xfe\x00")),
    Case(
        CONFIG,
        "a tag that makes objects",
        lambda r: r.train_text("!!python/object/apply:os.system [ls]"),
    ),
    Case(CONFIG, "an unknown field", lambda r: r.train({"seeds": 1})),
    Case(CONFIG, "an unknown field in a group", lambda r: r.train(training(step=3))),
    Case(CONFIG, "an unknown option of a class", lambda r: r.train(problem(wave=3))),
    Case(
        CONFIG,
        "an unknown option on the line",
        lambda r: r.train(options=("--training.stepz", "1")),
    ),
    Case(CONFIG, "a text for a number", lambda r: r.train(training(steps="many"))),
    Case(CONFIG, "a fraction for a count", lambda r: r.train(training(steps=1.5))),
    Case(CONFIG, "a list for a number", lambda r: r.train({"seed": [1, 2]})),
    Case(CONFIG, "null for a number", lambda r: r.train({"seed": None})),
    Case(
        CONFIG, "null for an option of a class", lambda r: r.train({"backbone": init(hidden=None)})
    ),
    Case(CONFIG, "null in its options", lambda r: r.train(metatraining("MAML", lr=None))),
    Case(CONFIG, "a seed beyond 64 bits", lambda r: r.train({"seed": 2**70})),
    Case(
        CONFIG,
        "a field that is there twice",
        lambda r: r.train_text("seed: 1\nseed: 2\n"),
    ),
    Case(
        CONFIG,
        "a number that YAML reads as octal",
        lambda r: r.train_text("training: {steps: 0100}\n"),
    ),
    Case(
        CONFIG,
        "a time that YAML reads as a number",
        lambda r: r.train_text("seed: 1:30\n"),
    ),
    Case(
        CONFIG,
        "no data for photographs",
        lambda r: r.train_text("{problem: {class_path: Photos}, backbone: {class_path: Conv4}}"),
    ),
    Case(CONFIG, "a text for true or false", lambda r: r.train({"loss": {"l_pre": "maybe"}})),
    Case(CONFIG, "a number for a group", lambda r: r.train({"training": 3})),
    Case(CONFIG, "a word that is no choice", lambda r: r.train(training(schedule="stairs"))),
    Case(CONFIG, "a method that is not there", lambda r: r.train({"method": "omni"})),
    Case(
        CONFIG,
        "no problem",
        lambda r: r.train_text("backbone: {class_path: MLP}"),
    ),
    Case(
        CONFIG,
        "no backbone",
        lambda r: r.train_text("problem: {class_path: Sinusoids}"),
    ),
    Case(
        CONFIG,
        "a class that is not there",
        lambda r: r.train({"backbone": {"class_path": "Conv5"}}),
    ),
    Case(
        CONFIG,
        "a class of another kind",
        lambda r: r.train({"metatraining": {"class_path": "Baseline", "init_args": {}}}),
    ),
    Case(
        CONFIG,
        "a module that is not there",
        lambda r: r.train({"backbone": {"class_path": "my.models.Mine", "init_args": {}}}),
    ),
    Case(
        CONFIG,
        "a class that its module has not",
        lambda r: r.train(
            {"backbone": {"class_path": "omnitraining.backbones.Mine", "init_args": {}}}
        ),
    ),
    Case(
        CONFIG,
        "a module that cannot be run",
        lambda r: r.train(
            {"backbone": {"class_path": "tests.reference.broken.Mine", "init_args": {}}}
        ),
    ),
    Case(CONFIG, "a number below its least", lambda r: r.train(training(steps=-1))),
    Case(CONFIG, "a learning rate of zero", lambda r: r.train(training(lr=0.0))),
    Case(CONFIG, "a learning rate that is no number", lambda r: r.train(training(lr=".nan"))),
    Case(CONFIG, "a momentum of Adam", lambda r: r.train(training(optimizer="adam", momentum=0.9))),
    Case(CONFIG, "milestones out of order", lambda r: r.train(training(milestones=[0.8, 0.6]))),
    Case(CONFIG, "a warm-up longer than the training", lambda r: r.train(training(warmup=99))),
    Case(CONFIG, "no patience", lambda r: r.train(training(patience=0))),
    Case(CONFIG, "no threads", lambda r: r.train(training(threads=0))),
    Case(CONFIG, "a device that is not there", lambda r: r.train(training(device="tpu9"))),
    Case(
        CONFIG,
        "a negative weight of the loss",
        lambda r: r.train({"loss": {"distill_weight": -1}}),
    ),
    Case(CONFIG, "a memory of the teacher of one", lambda r: r.train({"loss": {"ema_decay": 1.0}})),
    Case(
        CONFIG,
        "no loss at all",
        lambda r: r.train({"loss": {"l_pre": False, "l_meta": False, "l_joint": False}}),
    ),
    Case(CONFIG, "TRPO without a policy", lambda r: r.train(training(optimizer="trpo"))),
    Case(
        CONFIG,
        "several updates without a policy",
        lambda r: r.train(training(updates_per_step=2)),
    ),
    Case(
        CONFIG,
        "the mean of policies without a policy",
        lambda r: r.train({"inference": {"policy": "mean"}}),
    ),
    Case(
        CONFIG,
        "mirror images of curves",
        lambda r: r.train({"inference": {"flip": True}}),
    ),
    Case(
        CONFIG,
        "a flow twice in the ensemble",
        lambda r: r.train({"inference": {"flows": ["pre", "pre"]}}),
    ),
    Case(
        CONFIG,
        "a seed to be tuned",
        lambda r: r.omni("tune", r.config(), "--seed", "0..3", "--out", r.new()),
    ),
    Case(
        CONFIG,
        "a clip of ratios without a policy",
        lambda r: r.train(metatraining("MAML", task="regression", clip_ratio=0.2)),
    ),
    Case(CONFIG, "more points than a wave has", lambda r: r.train(problem(support=90, queries=20))),
    Case(CONFIG, "no shots at test", lambda r: r.train(problem(test_shots=[]))),
    Case(
        CONFIG,
        "a learner of classes for curves",
        lambda r: r.train({"metatraining": {"class_path": "ProtoNet", "init_args": {}}}),
    ),
    Case(CONFIG, "inner steps of no length", lambda r: r.train(metatraining("Reptile", lr=0.0))),
    Case(
        CONFIG,
        "inner steps of Adam on curves",
        lambda r: r.train(metatraining("Reptile", task="regression", optimizer="adam")),
    ),
    Case(CONFIG, "fewer inner steps than none", lambda r: r.train(metatraining("MAML", steps=-1))),
    Case(CONFIG, "an endless inner step", lambda r: r.train(metatraining("MAML", lr=".inf"))),
    Case(
        CONFIG, "logits that are turned round", lambda r: r.train(metatraining("TapNet", scale=-1))
    ),
    Case(CONFIG, "graphs without nodes", lambda r: r.train(metatraining("GNN", embedding=0))),
    Case(
        CONFIG,
        "fine-tuning by a negative number of steps",
        lambda r: r.train({"pretraining": {"class_path": "L2Regression", **init(steps=-1)}}),
    ),
    Case(
        CONFIG,
        "a distillation of more than all of the loss",
        lambda r: r.train({"pretraining": {"class_path": "RFS", **init(kd_weight=1.5)}}),
    ),
    Case(
        CONFIG,
        "a margin that is no number",
        lambda r: r.train({"pretraining": {"class_path": "NegMargin", **init(margin=".nan")}}),
    ),
    Case(
        CONFIG,
        "a new head without a learning rate",
        lambda r: r.train(
            {
                "pretraining": {
                    "class_path": "Baseline",
                    **init(new_head={"class_path": "SGDHead", **init(lr=0.0)}),
                }
            }
        ),
    ),
    Case(
        CONFIG,
        "a weight of the loss that is no number",
        lambda r: r.train({"loss": {"distill_weight": ".nan"}}),
    ),
    Case(
        CONFIG,
        "an augmentation of tasks that is not there",
        lambda r: r.train(metatraining("MetaMaxUp", pool=["flip"])),
    ),
    Case(
        CONFIG,
        "an algorithm over one with losses of its own",
        lambda r: r.train(metatraining("MetaMaxUp", algorithm={"class_path": "CAN"})),
    ),
    Case(
        CONFIG,
        "hard tasks of an algorithm with tasks of its own",
        lambda r: r.train(metatraining("HardTasks", algorithm={"class_path": "MetaMaxUp"})),
    ),
    Case(
        CONFIG,
        "hard tasks that have no classes",
        lambda r: r.train(
            metatraining("HardTasks", algorithm={"class_path": "MAML", **init(task="regression")})
        ),
    ),
    Case(CONFIG, "no hard tasks", lambda r: r.train(metatraining("HardTasks", hard_steps=0))),
    Case(
        CONFIG,
        "noise to learn in a backbone without",
        lambda r: r.train(metatraining("LearnedFT")),
    ),
    Case(
        CONFIG,
        "a class of no components",
        lambda r: r.train({"pretraining": {"class_path": "PMM", "init_args": {"components": 0}}}),
    ),
    Case(
        CONFIG,
        "a probability above one",
        lambda r: r.train({"pretraining": {"class_path": "Robust", "init_args": {"keep": 1.5}}}),
    ),
    Case(CONFIG, "a network of no layers", lambda r: r.train({"backbone": init(hidden=[])})),
    Case(CONFIG, "a layer of no width", lambda r: r.train({"backbone": init(hidden=[0])})),
    Case(
        CONFIG,
        "a layer too wide for memory",
        lambda r: r.train({"backbone": init(hidden=[10**7, 10**7])}),
    ),
    Case(
        CONFIG, "a layer that is not there", lambda r: r.train({"omninet": {"shared_until": "x"}})
    ),
    Case(CONFIG, "a rank of zero", lambda r: r.train({"omninet": {"rank": 0}})),
    Case(
        CONFIG,
        "a vote of an untrained flow",
        lambda r: r.train({"method": "meta-training", "inference": {"flows": ["pre"]}}),
    ),
    Case(
        CONFIG,
        "more ways than classes",
        lambda r: photos(r, problem(protocol={"ways": 40, "test_ways": 40})),
    ),
    Case(CONFIG, "more shots than images", lambda r: photos(r, problem(protocol={"shots": 30}))),
    Case(
        CONFIG,
        "an augmentation that is not there",
        lambda r: photos(r, problem(augmentation="cutmix")),
    ),
    Case(CONFIG, "a way to squares of no name", lambda r: photos(r, problem(aspect="squash"))),
    Case(CONFIG, "a jitter of one", lambda r: photos(r, problem(jitter=1.0))),
    Case(
        CONFIG,
        "an augmentation that changes the shape",
        lambda r: photos(r, problem(augmentation={"class_path": "torch.nn.Flatten"})),
    ),
    Case(
        CONFIG,
        "a negative number of training queries",
        lambda r: photos(r, problem(protocol={"training_queries": -1})),
    ),
    Case(CONFIG, "one way", lambda r: photos(r, problem(protocol={"ways": 1}))),
    Case(CONFIG, "images too small", lambda r: photos(r, problem(size=4))),
    Case(CONFIG, "all classes held out", lambda r: photos(r, problem(held_out=[0.5, 0.5]))),
    Case(CONFIG, "a network for gray images", lambda r: photos(r, {"backbone": init(channels=1)})),
    Case(CONFIG, "a data set that is not there", lambda r: photos(r, problem(training=["cats"]))),
    Case(CONFIG, "a split that is not there", lambda r: photos(r, problem(training=["birds:dev"]))),
    Case(CONFIG, "classes seen in training", lambda r: photos(r, problem(training=["birds:all"]))),
    Case(CONFIG, "the same part twice", lambda r: photos(r, problem(training=["birds", "birds"]))),
    Case(
        TRAIN, "a folder that holds a run", lambda r: r.omni("train", r.config(), "--out", r.waves)
    ),
    Case(TRAIN, "nothing to resume", lambda r: r.train(options=("--resume",))),
    Case(
        TRAIN,
        "another configuration",
        lambda r: r.omni("train", r.config({"seed": 5}), "--resume", "--out", r.waves),
    ),
    Case(TRAIN, "a run that another program trains", busy),
    Case(TRAIN, "data of which an image is gone", removed_image),
    Case(TRAIN, "a path that leads to two places", two_places),
    Case(TRAIN, "a search whose journal is damaged", lambda r: journal(r, bytes(9) + b"\n")),
    Case(
        TRAIN,
        "fewer steps than done",
        lambda r: r.omni("train", r.config(training(steps=2)), "--resume", "--out", r.waves),
    ),
    Case(
        TRAIN,
        "a damaged checkpoint to go on from",
        lambda r: r.omni(
            "train", r.config(training(steps=9)), "--resume", "--out", cut(r, "last.safetensors")
        ),
    ),
    Case(
        TRAIN,
        "a file for a run folder",
        lambda r: r.omni("train", r.config(), "--out", r.text("file", "")),
    ),
    Case(
        TRAIN,
        "a start that is not there",
        lambda r: r.train({"start_from": str(r.folder / "none")}),
    ),
    Case(
        TRAIN,
        "a start of another network",
        lambda r: r.train(
            {"start_from": str(r.waves), "method": "pre-training", "backbone": init(hidden=[9])}
        ),
    ),
    Case(
        TRAIN,
        "a teacher of another method",
        lambda r: r.train({"teacher_run": str(r.waves), "method": "meta-training"}),
    ),
    Case(RUNS, "no run in the folder", lambda r: r.omni("evaluate", r.photos)),
    Case(RUNS, "no folder", lambda r: r.omni("evaluate", r.folder / "none")),
    Case(
        RUNS,
        "no checkpoint",
        lambda r: (
            run := r.copy(r.waves),
            (run / "best.safetensors").unlink(),
            r.omni("evaluate", run),
        ),
    ),
    Case(RUNS, "a truncated checkpoint", lambda r: r.omni("evaluate", cut(r, "best.safetensors"))),
    Case(
        RUNS,
        "an empty checkpoint",
        lambda r: r.omni("evaluate", damaged(r, "best.safetensors", b"")),
    ),
    Case(
        RUNS,
        "a pickle for a checkpoint",
        lambda r: r.omni("evaluate", damaged(r, "best.safetensors", pickle.dumps({"weights": 1}))),
    ),
    Case(
        RUNS,
        "a header too long for its file",
        lambda r: r.omni("evaluate", damaged(r, "best.safetensors", b"\xff" * 40)),
    ),
    Case(
        RUNS,
        "weights without facts",
        lambda r: (
            run := r.copy(r.waves),
            save_file({"a": torch.zeros(1)}, run / "best.safetensors"),
            r.omni("evaluate", run),
        ),
    ),
    Case(
        RUNS,
        "a step that is a text",
        lambda r: r.omni("evaluate", with_checkpoint_facts(r, step="many")),
    ),
    Case(
        RUNS,
        "a best score that is no number",
        lambda r: r.omni("evaluate", with_checkpoint_facts(r, best=math.nan)),
    ),
    Case(RUNS, "a class that has moved to another split", renamed_class),
    Case(
        RUNS,
        "what is kept of its data is damaged",
        lambda r: r.omni("evaluate", damaged(r, "data.json", b"{}")),
    ),
    Case(
        RUNS,
        "a checkpoint of another model",
        lambda r: r.omni(
            "evaluate", damaged(r, "best.safetensors", (r.walk / "best.safetensors").read_bytes())
        ),
    ),
    *(
        Case(
            RUNS,
            what,
            lambda r, text=text: r.omni("evaluate", damaged(r, "config.yaml", text)),  # type: ignore[misc]
        )
        for what, text in (
            ("an untrusted run with aliases", b"seed: &a 1\nloss: *a\n"),
            ("an untrusted run with merge keys", b"loss: {<<: {weight: 1}}\n"),
            ("an untrusted run with tags", b"seed: !!int 1\n"),
            ("an untrusted run with a key that is there twice", b"seed: 1\nseed: 2\n"),
            ("an untrusted run with a text for a group", b'training: "{steps: 3}"\n'),
            ("an untrusted run with a path for a group", b"training: other.yaml\n"),
            ("an untrusted run that asks for too much", b"training: {threads: 100000}\n"),
        )
    ),
    Case(
        CONFIG,
        "a path for a group",
        lambda r: r.train({"training": str(r.text("f.yaml", "steps: 3"))}),
    ),
    Case(
        RUNS,
        "a configuration that is no text",
        lambda r: r.omni("evaluate", damaged(r, "config.yaml", b"\x00\x01")),
    ),
    Case(
        RUNS,
        "a class of a stranger",
        lambda r: r.omni(
            "evaluate",
            damaged(
                r, "config.yaml", yaml.safe_dump({**SINUSOIDS, "backbone": "evil.Mine"}).encode()
            ),
        ),
    ),
    Case(RUNS, "more tasks than there are", lambda r: r.omni("evaluate", r.waves, "--tasks", 9999)),
    Case(RUNS, "one task", lambda r: r.omni("evaluate", r.waves, "--tasks", 1)),
    Case(RUNS, "no shots", lambda r: r.omni("evaluate", r.waves, "--shots", 0)),
    Case(
        RUNS, "two numbers of trajectories", lambda r: r.omni("evaluate", r.walk, "--shots", 1, 2)
    ),
    Case(RUNS, "a comparison before an evaluation", lambda r: r.omni("compare", r.waves)),
    Case(
        RUNS,
        "a damaged evaluation",
        lambda r: (
            run := r.copy(r.waves),
            (run / "evaluations").mkdir(),
            (run / "evaluations" / "test.json").write_text("{"),
            r.omni("compare", run),
        ),
    ),
    Case(
        RUNS,
        "a flow that is not there",
        lambda r: r.omni("watch", r.walk, "--out", "a.png", "--flow", "both"),
    ),
    Case(MODELS, "no such model", lambda r: r.omni("adapt", "glyfs", r.photos, "--out", "a")),
    Case(
        MODELS,
        "a folder of something else",
        lambda r: r.omni("adapt", r.photos, r.photos, "--out", "a"),
    ),
    Case(
        MODELS,
        "a file of something else",
        lambda r: r.omni("predict", r.text("a.learner", "hello"), r.photos / "ara"),
    ),
    Case(
        MODELS,
        "an image for a learner",
        lambda r: r.omni("predict", r.photos / "ara" / "0.png", r.photos / "ara"),
    ),
    Case(
        MODELS,
        "a pickle for a learner",
        lambda r: r.omni("predict", r.text("a.learner", pickle.dumps([1])), r.photos / "ara"),
    ),
    Case(
        MODELS,
        "a truncated learner",
        lambda r: r.omni(
            "predict", r.text("a.learner", r.learner.read_bytes()[:-99]), r.photos / "ara"
        ),
    ),
    Case(
        MODELS,
        "an empty learner",
        lambda r: r.omni("predict", r.text("a.learner", b""), r.photos / "ara"),
    ),
    Case(MODELS, "no file", lambda r: r.omni("predict", r.folder / "no.learner", r.photos / "ara")),
    Case(
        MODELS,
        "weights without a learner",
        lambda r: r.omni("predict", r.waves / "best.safetensors", r.photos / "ara"),
    ),
    Case(
        MODELS,
        "a learner of a later version",
        lambda r: r.omni(
            "predict", with_facts(r, version=99, omnitraining="9.9"), r.photos / "ara"
        ),
    ),
    Case(
        MODELS,
        "a version that is no number",
        lambda r: r.omni("predict", with_facts(r, version="new"), r.photos / "ara"),
    ),
    Case(
        MODELS,
        "a learner without a configuration",
        lambda r: r.omni("predict", with_facts(r, config=None), r.photos / "ara"),
    ),
    Case(
        MODELS,
        "a learner with a flow that its model has not",
        lambda r: r.omni("predict", with_facts(r, fit={"flow": "both"}), r.photos / "ara"),
    ),
    Case(
        MODELS,
        "a learner without votes",
        lambda r: r.omni("predict", with_facts(r, votes={}), r.photos / "ara"),
    ),
    Case(
        MODELS,
        "a learner without inputs",
        lambda r: r.omni("predict", with_facts(r, inputs={}), r.photos / "ara"),
    ),
    Case(
        MODELS,
        "a learner that names a stranger's class",
        lambda r: r.omni(
            "predict", with_facts(r, config={"backbone": "evil.Mine"}), r.photos / "ara"
        ),
    ),
    Case(
        MODELS,
        "a learner with labels of another length",
        lambda r: r.omni(
            "predict", with_facts(r, fit={"labels": ["a"], "dtype": "<U1"}), r.photos / "ara"
        ),
    ),
    Case(
        MODELS,
        "a learner with labels of objects",
        lambda r: r.omni(
            "predict", with_facts(r, fit={"labels": [[1]] * 60, "dtype": "O"}), r.photos / "ara"
        ),
    ),
    Case(
        MODELS,
        "a learner with a type that is none",
        lambda r: r.omni(
            "predict",
            with_facts(r, fit={"labels": ["a", "b"] * 30, "dtype": "x9"}),
            r.photos / "ara",
        ),
    ),
    Case(
        MODELS,
        "a learner that has learned nothing",
        lambda r: r.omni("predict", (glyphs().save(path := r.new()), path)[1], r.photos / "ara"),
    ),
    Case(
        MODELS,
        "an option that learners have not",
        lambda r: omnitraining.load("glyphs", flaw="meta"),
    ),
    Case(MODELS, "a learner on no device", lambda r: omnitraining.load("glyphs", device="tpu9")),
    Case(MODELS, "no numbers", lambda r: omnitraining.load("glyphs", device="meta")),
    Case(
        MODELS,
        "a flow that the model has not",
        lambda r: r.omni("adapt", "glyphs", r.photos, "--flow", "both", "--out", r.new()),
    ),
    Case(
        MODELS,
        "a flow to export that is not there",
        lambda r: r.omni(
            "export", "glyphs", "--flow", "all", "--format", "torch", "--out", r.new()
        ),
    ),
    Case(
        MODELS,
        "no flow to export",
        lambda r: r.omni("export", "glyphs", "--format", "torch", "--out", r.new()),
    ),
    Case(
        MODELS,
        "a folder that is a file",
        lambda r: r.omni("adapt", "glyphs", r.photos, "--out", r.learner / "a"),
    ),
    Case(
        FITS, "an empty folder", lambda r: r.omni("adapt", "glyphs", folders(r, "."), "--out", "a")
    ),
    Case(FITS, "no folder", lambda r: r.omni("adapt", "glyphs", r.folder / "none", "--out", "a")),
    Case(
        FITS,
        "a class without images",
        lambda r: r.omni("adapt", "glyphs", folders(r, "cat", "dog"), "--out", "a"),
    ),
    Case(FITS, "a file for a folder", lambda r: r.omni("adapt", "glyphs", r.learner, "--out", "a")),
    Case(
        FITS,
        "a share above one",
        lambda r: r.omni("adapt", "glyphs", r.photos, "--accept-rate", 95, "--out", "a"),
    ),
    Case(FITS, "one class", lambda r: glyphs().fit(gray(), [1, 1, 1, 1])),
    Case(FITS, "fewer labels than images", lambda r: glyphs().fit(gray(), [0, 1])),
    Case(FITS, "no labels", lambda r: glyphs().fit(gray())),
    Case(FITS, "texts and numbers as labels", lambda r: glyphs().fit(gray(), [0, "a", 0, "a"])),
    Case(FITS, "fractions as labels", lambda r: glyphs().fit(gray(), [0.1, 0.5, 0.2, 0.1])),
    Case(FITS, "labels of two dimensions", lambda r: glyphs().fit(gray(), np.zeros((4, 2)))),
    Case(FITS, "other labels than before", lambda r: fitted().partial_fit(gray(1), ["a"])),
    Case(FITS, "a label that is missing", lambda r: glyphs().fit(gray(), [None, "a", "b", "b"])),
    Case(FITS, "a set of labels", lambda r: glyphs().fit(gray(2), {0, 1})),
    Case(FITS, "a score of other labels", lambda r: fitted().score(gray(2), ["0", "1"])),
    Case(FITS, "weights of another number", lambda r: fitted().score(gray(2), [0, 1], [1.0])),
    Case(
        FITS,
        "a label that is not allowed",
        lambda r: fitted().partial_fit(gray(1), [2], classes=[0, 1]),
    ),
    Case(
        FITS,
        "a text for rejected images beside numbers",
        lambda r: FewShotClassifier(model(), reject_label="unknown").fit(gray(), [0, 0, 1, 1]),
    ),
    Case(
        FITS,
        "a class for rejected images",
        lambda r: FewShotClassifier(model(), reject_label=1).fit(gray(), [0, 0, 1, 1]),
    ),
    Case(
        FITS,
        "steps that are not whole",
        lambda r: FewShotRegressor(r.waves, steps=1.5).fit([0.0], [0.0]),
    ),  # type: ignore[arg-type]
    Case(FITS, "a module as a model", lambda r: omnitraining.load(nn.Linear(2, 2))),  # type: ignore[arg-type]
    Case(
        FITS,
        "a module as a model of a classifier",
        lambda r: FewShotClassifier(nn.Linear(2, 2)).fit(gray(), [0, 0, 1, 1]),  # type: ignore[arg-type]
    ),
    Case(FITS, "no image to predict", lambda r: fitted().predict(gray(0))),
    Case(FITS, "one number for images", lambda r: fitted().predict(3)),
    Case(
        FITS,
        "a model of curves for images",
        lambda r: FewShotClassifier(r.waves).fit(gray(), [0] * 4),
    ),
    Case(
        FITS, "a model of images for curves", lambda r: FewShotRegressor(model()).fit([1.0], [2.0])
    ),
    Case(FITS, "a model of policies", lambda r: omnitraining.load(r.walk)),
    Case(
        FITS,
        "inputs and values of other lengths",
        lambda r: FewShotRegressor(r.waves).fit([1.0], [1, 2]),
    ),
    Case(
        FITS,
        "a value that is no number",
        lambda r: FewShotRegressor(r.waves).fit([1.0], [math.nan]),
    ),
    Case(IMAGES, "no such file", lambda r: r.omni("predict", r.learner, r.folder / "no.png")),
    Case(
        IMAGES, "a pattern of no file", lambda r: r.omni("predict", r.learner, f"{r.folder}/*.gif")
    ),
    Case(IMAGES, "a folder without images", lambda r: r.omni("predict", r.learner, r.waves)),
    Case(
        IMAGES,
        "a folder of splits",
        lambda r: (
            path := r.new(),
            [shutil.copytree(r.photos, path / split) for split in ("train", "test")],
            r.omni("adapt", "glyphs", path, "--out", r.folder / "x"),
        ),
    ),
    Case(IMAGES, "a folder with labels", lambda r: glyphs().fit(r.photos, [0, 1])),
    Case(IMAGES, "a set of files", lambda r: fitted().predict({r.photos / "ara" / "0.png"})),
    Case(
        IMAGES,
        "a Pillow image that was closed",
        lambda r: (
            found := Image.open(r.photos / "ara" / "0.png"),
            found.close(),
            fitted().predict([found]),
        ),
    ),
    Case(IMAGES, "an empty file", lambda r: image(r, "a.png", b"")),
    Case(IMAGES, "a text", lambda r: image(r, "a.jpg", b"hello")),
    Case(IMAGES, "a truncated image", lambda r: image(r, "a.png", whole_png(r)[:90])),
    Case(IMAGES, "a header without an image", lambda r: image(r, "a.png", whole_png(r)[:20])),
    Case(
        IMAGES, "an SVG", lambda r: image(r, "a.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>")
    ),
    Case(IMAGES, "a decompression bomb", lambda r: image(r, "a.ppm", b"P6 20000 20000 255\n")),
    Case(
        IMAGES,
        "gray levels of 32 bits",
        lambda r: (
            path := r.text("a.tif", ""),
            Image.fromarray(np.ones((9, 9), np.float32)).save(path),
            r.omni("predict", r.learner, path),
        ),
    ),
    Case(
        IMAGES, "a level that is no number", lambda r: fitted().predict(np.full((1, 8, 8), np.nan))
    ),
    Case(IMAGES, "an infinite level", lambda r: fitted().predict(np.full((1, 8, 8), np.inf))),
    Case(IMAGES, "levels above one", lambda r: fitted().predict(np.full((1, 8, 8), 2.5))),
    Case(IMAGES, "levels below zero", lambda r: fitted().predict(np.full((1, 8, 8), -1))),
    Case(IMAGES, "one image that is no list", lambda r: fitted().predict(np.zeros((8, 8)))),
    Case(
        IMAGES,
        "one image in color that is no list",
        lambda r: fitted().predict(np.zeros((9, 8, 3), np.uint8)),
    ),
    Case(IMAGES, "two channels", lambda r: fitted().predict(np.zeros((1, 8, 8, 2), np.uint8))),
    Case(
        IMAGES, "five dimensions", lambda r: fitted().predict(np.zeros((1, 1, 8, 8, 3), np.uint8))
    ),
    Case(
        IMAGES, "images of no height", lambda r: fitted().predict(np.zeros((1, 0, 8, 3), np.uint8))
    ),
    Case(IMAGES, "complex numbers", lambda r: fitted().predict(np.zeros((1, 8, 8), complex))),
    Case(IMAGES, "dates", lambda r: fitted().predict(np.zeros((1, 8, 8), "M8[D]"))),
    Case(
        IMAGES,
        "labels of another name",
        lambda r: fitted().fit([{"image": x, "labels": 0} for x in gray(2)]),
    ),
    Case(IMAGES, "rows without an image", lambda r: fitted().predict([{"img": gray(1)[0]}])),
    Case(IMAGES, "numbers of one axis", lambda r: fitted().predict(np.zeros(8))),
    Case(IMAGES, "masked levels", lambda r: fitted().predict(np.ma.masked_equal(gray(), 0))),
    Case(
        IMAGES,
        "a tensor without levels",
        lambda r: fitted().predict(torch.zeros(1, 8, 8, device="meta")),
    ),
    Case(
        IMAGES,
        "a loader that shuffles",
        lambda r: fitted().predict(DataLoader(TensorDataset(torch.zeros(4, 8, 8)), shuffle=True)),
    ),
    Case(IMAGES, "objects", lambda r: fitted().predict([object()])),
    Case(IMAGES, "lists of other lengths", lambda r: fitted().predict([[[1, 2], [3]]])),
    Case(IMAGES, "a sparse tensor", lambda r: fitted().predict(torch.zeros(1, 8, 8).to_sparse())),
    Case(DATA, "no data set", lambda r: r.omni("data", "check", r.folder / "none")),
    Case(DATA, "an unknown standard", lambda r: r.omni("data", "check", r.photos, "--name", "cup")),
    Case(DATA, "a side of zero", lambda r: r.omni("data", "prepare", r.photos, "--size", 0)),
    Case(DATA, "an empty folder", lambda r: datasets.read(folders(r, "."))),
    Case(DATA, "a text file", lambda r: datasets.read(r.text("notes.txt", "hello"))),
    Case(
        DATA,
        "a class without images",
        lambda r: (
            shutil.copytree(r.photos, path := r.new()),
            (path / "cat").mkdir(),
            datasets.read(path),
        ),
    ),
    Case(
        DATA,
        "a class in two splits",
        lambda r: (
            path := r.new(),
            [
                shutil.copytree(r.photos / "ara", path / split / "ara")
                for split in ("train", "test")
            ],
            datasets.read(path),
        ),
    ),
    Case(
        DATA,
        "folders of images beside splits",
        lambda r: (
            path := r.new(),
            shutil.copytree(r.photos, path / "test"),
            shutil.copytree(r.photos / "ara", path / "ara"),
            datasets.read(path),
        ),
    ),
    Case(
        DATA,
        "a split of which nothing is there",
        lambda r: (
            path := r.new(),
            shutil.copytree(r.photos, path / "train"),
            (path / "val").mkdir(),
            datasets.read(path),
        ),
    ),
    Case(
        DATA,
        "splits of which one is missing",
        lambda r: (
            path := r.new(),
            shutil.copytree(r.photos, path / "own" / "train"),
            photos(r, problem(training=["own"], validation="own", benchmarks=["own"]), data=path),
        ),
    ),
    Case(
        DATA,
        "the published list of mini-ImageNet beside other folders",
        lambda r: (
            path := r.new(),
            shutil.copytree(r.photos, path),
            [
                (path / f"{split}.csv").write_text(
                    f"filename,label\n{synset}00000001.jpg,{synset}\n"
                )
                for split, synset in (("train", "n01532829"), ("val", "n01855672"))
            ],
            datasets.read(path),
        ),
    ),
    Case(
        DATA,
        "a table of other classes than the folders",
        lambda r: (
            shutil.copytree(r.photos, path := r.new()),
            (path / "all.csv").write_text("file,label\nara/0.png,red\nara/1.png,blue\n"),
            datasets.read(path),
        ),
    ),
    Case(
        DATA,
        "two tables for one folder",
        lambda r: (
            shutil.copytree(r.photos / "ara", path := r.new()),
            [(path / f"{n}.csv").write_text("file,label\n0.png,red\n") for n in "ab"],
            datasets.read(path),
        ),
    ),
    Case(
        DATA,
        "two folders for one split",
        lambda r: (
            path := r.new(),
            [shutil.copytree(r.photos, path / split) for split in ("train", "base")],
            datasets.read(path),
        ),
    ),
    Case(
        DATA,
        "another data set of a standard name",
        lambda r: (
            path := r.new(),
            shutil.copytree(r.photos, path / "cub"),
            photos(r, problem(training=["cub"], validation="cub", benchmarks=["cub"]), data=path),
        ),
    ),
    Case(
        DATA,
        "a damaged image",
        lambda r: (
            shutil.copytree(r.photos, path := r.new() / "birds"),
            (path / "ara" / "0.png").write_bytes(b"no image"),
            photos(r, data=path.parent),
        ),
    ),
    Case(DATA, "arrays of no images", lambda r: from_arrays(np.zeros((3, 4)), [1, 2, 3], "mine")),
    Case(
        DATA,
        "arrays of levels above one",
        lambda r: from_arrays(np.full((2, 4, 4), 3.0), [1, 2], "mine"),
    ),
    Case(
        DATA,
        "arrays that are no numbers",
        lambda r: from_arrays(np.full((2, 4, 4), np.nan), [1, 2], "mine"),
    ),
    Case(
        DATA,
        "arrays of other whole numbers",
        lambda r: from_arrays(np.full((2, 4, 4), 300), [1, 2], "mine"),
    ),
    Case(
        DATA,
        "arrays and labels of other lengths",
        lambda r: from_arrays(np.zeros((2, 4, 4), np.uint8), [1], "mine"),
    ),
    Case(
        DATA,
        "labels of two kinds",
        lambda r: from_arrays(np.zeros((2, 4, 4), np.uint8), [1, "a"], "mine"),
    ),
    Case(
        DATA,
        "arrays of uint16 that may be of 8 bits",
        lambda r: from_arrays(np.full((2, 4, 4), 9, np.uint16), [1, 2], "mine"),
    ),
    Case(
        DATA,
        "labels in a set",
        lambda r: from_arrays(np.zeros((2, 4, 4), np.uint8), {1, 2}, "mine"),
    ),
    Case(DATA, "a data set without a length", lambda r: from_dataset(iter([]), "mine")),
    Case(DATA, "elements that are no pairs", lambda r: from_dataset([1, 2], "mine")),
    Case(DATA, "a list of objects as images", lambda r: from_dataset([("a", 1)], "mine")),
    Case(
        DATA,
        "a cache that cannot be written",
        lambda r: image_cache.load_images(
            from_arrays(np.zeros((2, 4, 4), np.uint8), [0, 1], "mine"), 8, r.learner
        ),
    ),
    Case(
        LISTS,
        "a row of another split than its table",
        lambda r: listed(r, "filename,label,split\n0.png,ara,test\n", "train.csv"),
    ),
    Case(
        LISTS,
        "half a character",
        lambda r: listed(
            r,
            json.dumps({"label_names": ["\ud800"], "image_names": ["x"], "image_labels": [0]}),
            "base.json",
        ),
    ),
    Case(LISTS, "a table of one line", lambda r: listed(r, "filename,label\n")),
    Case(LISTS, "a table without the columns", lambda r: listed(r, "a,b\n1,2\n")),
    Case(LISTS, "a row without a class", lambda r: listed(r, "filename,label\n0.png,\n")),
    Case(LISTS, "a row without a file", lambda r: listed(r, "filename,label\n,ara\n")),
    Case(
        LISTS,
        "a row of an unknown split",
        lambda r: listed(r, "filename,label,split\n0.png,ara,dev\n"),
    ),
    Case(
        LISTS,
        "a row of a file that is not there",
        lambda r: listed(r, "filename,label\n0.png,ara\n9.png,ara\n"),
    ),
    Case(
        LISTS,
        "a row that leads out of the folder",
        lambda r: listed(r, "filename,label\n0.png,ara\n../../0.png,ara\n"),
    ),
    Case(
        LISTS, "a table in another encoding", lambda r: listed(r, b"filename,label\n0.png,\xe9\n")
    ),
    Case(LISTS, "no JSON", lambda r: listed(r, "{'a': 1}", "base.json")),
    Case(LISTS, "a JSON list without the keys", lambda r: listed(r, "[1]", "base.json")),
    Case(
        LISTS,
        "fewer labels than images",
        lambda r: listed(
            r,
            json.dumps({"label_names": ["a"], "image_names": ["x", "y"], "image_labels": [0]}),
            "base.json",
        ),
    ),
    Case(
        LISTS,
        "a label without a name",
        lambda r: listed(
            r,
            json.dumps({"label_names": ["a"], "image_names": ["x"], "image_labels": [7]}),
            "base.json",
        ),
    ),
    Case(
        LISTS,
        "images that are no list",
        lambda r: listed(
            r,
            json.dumps({"label_names": ["a"], "image_names": "x", "image_labels": [0]}),
            "base.json",
        ),
    ),
    Case(LISTS, "a file list of EasyFSL", lambda r: listed(r, '{"class_roots": []}', "train.json")),
    Case(LISTS, "a pickle of something else", lambda r: pickled(r, [1])),
    Case(LISTS, "a pickle of a stranger", lambda r: pickled(r, {"image_data": print})),
    Case(LISTS, "a pickle of objects", lambda r: pickled(r, np.array([1, "a"], object))),
    Case(
        LISTS,
        "a pickle of fractions",
        lambda r: pickled(r, {"data": np.zeros((1, 4, 4, 3)), "labels": [1]}),
    ),
    Case(
        LISTS,
        "a pickle with a label too few",
        lambda r: pickled(r, {"data": np.zeros((2, 4, 4, 3), np.uint8), "labels": [1]}),
    ),
    Case(
        LISTS,
        "a pickle with labels in texts",
        lambda r: pickled(r, {"data": np.zeros((1, 4, 4, 3), np.uint8), "labels": ["a"]}),
    ),
    Case(
        LISTS,
        "a truncated pickle",
        lambda r: datasets.read(
            r.text("mini-imagenet-cache-train.pkl", pickle.dumps(np.zeros(9))[:40]).parent
        ),
    ),
    Case(
        LISTS,
        "no pickle",
        lambda r: datasets.read(r.text("mini-imagenet-cache-train.pkl", "hello").parent),
    ),
    Case(
        LISTS,
        "a file of MATLAB that is none",
        lambda r: (path := r.text("cars_train_annos.mat", "hello"), datasets.read(path.parent)),
    ),
    Case(ENVIRONMENTS, "an environment that is not there", lambda r: walking(r, "Maze")),
    Case(
        ENVIRONMENTS,
        "a kind of reward that is not there",
        lambda r: walking(r, "Navigation", reward="far"),
    ),
    Case(ENVIRONMENTS, "no horizon", lambda r: walking(r, "Navigation", horizon=0)),
    Case(
        ENVIRONMENTS,
        "a negative cost",
        lambda r: walking(r, "HalfCheetahVelocity", control_cost=-1),
    ),
    Case(ENVIRONMENTS, "no tasks", lambda r: r.train(problem(tasks=0), base=NAVIGATION)),
    Case(
        ENVIRONMENTS,
        "a discount above one",
        lambda r: r.train(problem(discount=2), base=NAVIGATION),
    ),
    Case(
        ENVIRONMENTS,
        "the mean of one policy",
        lambda r: r.train(
            {"method": "meta-training", "inference": {"policy": "mean"}}, base=NAVIGATION
        ),
    ),
    Case(
        ENVIRONMENTS,
        "validated weights of flows that are policies",
        lambda r: r.train({"inference": {"ensemble_weights": "validation"}}, base=NAVIGATION),
    ),
    Case(
        ENVIRONMENTS,
        "a clip of all ratios",
        lambda r: r.train({"metatraining": init(clip_ratio=1.0)}, base=NAVIGATION),
    ),
    Case(
        ENVIRONMENTS,
        "several updates by TRPO",
        lambda r: r.train(training(optimizer="trpo", updates_per_step=2), base=NAVIGATION),
    ),
    Case(
        ENVIRONMENTS,
        "a network for other states",
        lambda r: r.train({"backbone": init(inputs=5)}, base=NAVIGATION),
    ),
    Case(
        ENVIRONMENTS,
        "a classifier for a policy",
        lambda r: r.train(
            {"pretraining": {"class_path": "Baseline", "init_args": {}}}, base=NAVIGATION
        ),
    ),
    Case(ENVIRONMENTS, "tasks of another number", lambda r: slide(tasks=torch.zeros(1, 2))),
    Case(ENVIRONMENTS, "tasks that are no tensor", lambda r: slide(tasks=[1, 2, 3])),
    Case(ENVIRONMENTS, "states of another shape", lambda r: slide(states=torch.zeros(6, 5))),
    Case(ENVIRONMENTS, "rewards of another shape", lambda r: slide(rewards=torch.zeros(6, 1))),
    Case(
        ENVIRONMENTS,
        "a reward that is no number",
        lambda r: slide(rewards=torch.full((6,), math.nan)),
    ),
    Case(ENVIRONMENTS, "an infinite state", lambda r: slide(states=torch.full((6, 2), math.inf))),
    Case(ENVIRONMENTS, "actions that are choices", lambda r: gym("action")),
    Case(ENVIRONMENTS, "observations that are choices", lambda r: gym("observation")),
    Case(ENVIRONMENTS, "copies of another number", lambda r: gym(copies=3)),
    Case(ENVIRONMENTS, "copies that cannot be told their tasks", lambda r: gym()),
    Case(PYTHON, "one class of images", lambda r: EpisodeConfig(ways=1)),
    Case(PYTHON, "more ways than classes", lambda r: small(ways=9)),
    Case(PYTHON, "more shots than images", lambda r: small(ways=2, shots=9)),
    Case(
        PYTHON,
        "labels and images of other lengths",
        lambda r: LabeledImages(
            torch.zeros(3, 1, 4, 4, dtype=torch.uint8),
            torch.zeros(2, dtype=torch.long),
            ("a",),
            "x",
        ),
    ),
    Case(PYTHON, "an optimizer's rate below zero", lambda r: Training(lr=-1)),
    Case(
        PYTHON, "a vote that names no flow", lambda r: Inference(flows=("all",)).members(("pre",))
    ),
    Case(PYTHON, "a backbone without layers", lambda r: convert(nn.Sequential(nn.ReLU()))),
    Case(PYTHON, "a layer that is lazy", lambda r: convert(nn.Sequential(nn.LazyLinear(3)))),
    Case(
        PYTHON,
        "a treatment that is not there",
        lambda r: convert(nn.Sequential(nn.Linear(2, 2)), branches={"0": "thin"}),
    ),
    Case(
        PYTHON,
        "a branch of no layer",
        lambda r: convert(nn.Sequential(nn.Linear(2, 2)), branches={"9": "full"}),
    ),
    Case(PYTHON, "an even kernel", lambda r: convert(nn.Sequential(nn.Conv2d(1, 1, 2)))),
    Case(
        PYTHON,
        "a flow that is not there",
        lambda r: convert(nn.Sequential(nn.Linear(2, 2))).export("all"),
    ),  # type: ignore[arg-type]
    Case(
        PYTHON,
        "features of no vector",
        lambda r: build_model(
            "pre-training",
            lambda: nn.Conv2d(1, 2, 3),
            small(ways=2, shots=1, queries=1),
            Baseline(),
            ProtoNet(),
            OmniLoss(),
        ),
    ),
    Case(
        PYTHON,
        "features that lose the batch",
        lambda r: computing(lambda net, x: computed(net, x).squeeze()),
    ),
    Case(PYTHON, "half features", lambda r: computing(lambda net, x: computed(net, x).half())),
    Case(PYTHON, "a backbone that raises", lambda r: computing(lambda net, x: {}["key"])),
    Case(
        PYTHON,
        "a backbone that detaches its features",
        lambda r: computing(lambda net, x: computed(net, x).detach()),
    ),
    Case(PYTHON, "a backbone that holds itself", lambda r: convert(holding_itself())),
    Case(
        PYTHON,
        "a backbone that is frozen",
        lambda r: convert(nn.Sequential(nn.Linear(2, 2)).requires_grad_(False)),
    ),
    Case(
        PYTHON, "a checkpoint that is not there", lambda r: load_checkpoint(r.folder / "none", {})
    ),
    Case(PYTHON, "a run that is not there", lambda r: Run(r.folder / "none")),
    Case(
        PYTHON,
        "a network of another size",
        lambda r: load_checkpoint(r.waves / "last.safetensors", {"student": MLP(1, (3,))}),
    ),
]

CASES = [
    case
    for group in dict.fromkeys(c.group for c in _CASES)
    for case in _CASES
    if case.group == group
]
"""Group by group, as the page has them."""


def facts(line: str) -> set[str]:
    """What a line must name: options, quoted values, fields with dots, numbers and choices.

    Args:
        line: of a wrong input.
    """
    options = re.findall(r"--[a-z][\w.-]*", line)
    quoted = re.findall(r"(?<!\w)'([^']+)'", line)
    fields = re.findall(r"\b[a-z_]+(?:\.[a-z_]\w*)+\b", line)
    numbers = re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w.]*\w)", line)
    choices = re.search(r"choose from ([\w, -]+)", line)
    listed = [word for word in choices[1].split(", ") if word.strip()] if choices else []
    return {*options, *quoted, *fields, *numbers, *(word.strip() for word in listed)}


def lines_of(page: str) -> dict[tuple[str, str], str]:
    """The lines of a page by group and input."""
    lines, group = {}, ""
    for text in page.splitlines():
        if text.startswith("## "):
            group = text.removeprefix("## ")
        elif group and text.startswith("| ") and text.endswith("` |"):
            what, line = text.removeprefix("| ").split(" | ", 1)
            lines[group, what] = line.removesuffix(" |").strip("`").replace("\\|", "|")
    return lines


def row(case: Case, line: str) -> str:
    """A row of the table."""
    escaped = line.replace("|", "\\|")
    ticks = "``" if "`" in escaped else "`"
    return f"| {case.what} | {ticks}{escaped}{ticks} |\n"


def page(lines: dict[tuple[str, str], str]) -> str:
    """The page of all cases and their lines."""
    parts, before = [HEAD.format(count=len(CASES))], None
    for case in CASES:
        if case.group != before:
            parts.append(f"\n## {case.group}\n\n| wrong input | error line |\n| --- | --- |\n")
            before = case.group
        parts.append(row(case, lines[case.group, case.what]))
    return "".join(parts)


def write() -> None:
    """Try all and write the page."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder))
        lines = {(case.group, case.what): workspace.line_for(case) for case in CASES}
    PAGE.write_text(page(lines), "utf-8")


if __name__ == "__main__":
    write()

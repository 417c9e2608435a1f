"""The parsers of untrusted files, each as a function of the bytes."""

import copy
import json
import math
import pickle
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save

from omnitraining.config.run_config import RunConfig, run_config_of
from omnitraining.config.strict import read_yaml_strictly
from omnitraining.config.trust import Check, flat
from omnitraining.config.values import read_yaml
from omnitraining.datasets.cars import _read as read_matlab
from omnitraining.datasets.decoding import decode
from omnitraining.datasets.json_lists import json_lists
from omnitraining.datasets.pickles import pickles, read_pickle
from omnitraining.datasets.tables import one_table
from omnitraining.evaluation import Cell, CellKey, Evaluation
from omnitraining.learner import FewShotClassifier, FewShotRegressor, TrainedModel, load
from omnitraining.learner.sources import MODELS
from omnitraining.runs.run import Run, load_checkpoint, unique_tensors


class Parser(NamedTuple):
    """A parser, its number of executions, and initial inputs."""

    read: Callable[[bytes], object]
    executions: int
    seeds: list[bytes]


@cache
def place() -> Path:
    """A folder in memory, with an image for lists to name."""
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    Image.new("RGB", (4, 4)).save(folder / "a.png")
    return folder


def written(name: str, data: bytes) -> Path:
    path = place() / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def table(data: bytes) -> object:
    return one_table(written("t.csv", data))


def lists(data: bytes) -> object:
    return json_lists(written("l.json", data))


def pickled(data: bytes) -> object:
    path = written("p.pkl", data)
    read_pickle(path)
    return pickles(path)


def configuration(data: bytes) -> object:
    """The checks of a configuration before anything is made of it."""
    values = read_yaml_strictly(written("config.yaml", data))
    return Check("config.yaml").plan(values, RunConfig)


def own_configuration(data: bytes) -> object:
    """A user's own configuration, whose classes would be imported."""
    return read_yaml(written("own.yaml", data))


def changed_configuration(data: bytes) -> object:
    """A valid configuration with replacements that the bytes choose."""
    values = changed(yaml.safe_load(CONFIG), data)
    plan = Check("config.yaml").plan(values, RunConfig)
    return configuration(yaml.safe_dump(values).encode()), flat(plan)


def changed_learner(data: bytes) -> object:
    """Predictions of a fitted learner with replacements that the bytes choose."""
    number, data = (data[0] % 2 if data else 0), data[1:]
    text, tensors = fitted()[number]
    text, tensors = copy.deepcopy(text), dict(tensors)
    if data and data[0] % 4 == 0:
        change_tensor(tensors, data[1:5])
        data = data[5:]
    learner = load(
        written("x.learner", save(tensors, {"learner": json.dumps(changed(text, data))}))
    )
    return learner.predict(np.zeros((1, 16, 16)) if number == 0 else [0.5])


@cache
def fitted() -> tuple[tuple[Any, dict[str, Any]], ...]:
    """Text and tensors of two small fitted learners: of images, and of curves."""
    files = []
    for kind, fields, votes in (IMAGES, CURVES):
        learner = kind(
            TrainedModel.from_bytes(learner_of(*fields, votes=votes), "a learner", True)[0]
        )
        if kind is FewShotClassifier:
            learner.fit(np.eye(16 * 16).reshape(-1, 16, 16)[:6], list("aabbcc"))
        else:
            learner.fit([0.0, 0.5, 1.0], [0.0, 0.4, 0.8])
        learner.save(place() / "fitted")
        with safe_open(place() / "fitted", "pt") as file:
            text = json.loads(file.metadata()["learner"])
        files.append((text, load_file(place() / "fitted")))
    return tuple(files)


def changed(values: Any, data: bytes) -> Any:
    """Values of which up to four are replaced, added or removed.

    Args:
        values: nested dictionaries and lists, which are changed.
        data: for each change, the place (2 bytes), what is done there, and the new value.
    """
    for start in range(0, min(len(data) - 3, 16), 4):
        holders = [*_holders(values)]
        where, action, what = data[start] << 8 | data[start + 1], data[start + 2], data[start + 3]
        holder, key = holders[where % len(holders)]
        new = copy.deepcopy(ODD[what % len(ODD)])
        if action % 8 == 0:
            del holder[key]
        elif action % 8 == 1 and isinstance(holder, dict):
            holder[WORDS[what % len(WORDS)]] = holder[key]
        elif action % 8 == 2 and isinstance(holder, list):
            holder[key:key] = [holder[key]] * what
        else:
            holder[key] = new
    return values


def _holders(values: Any) -> Iterator[tuple[Any, Any]]:
    """Every position in nested values, as its container and its key."""
    for key in [*values] if isinstance(values, dict) else range(len(values)):
        yield values, key
        if isinstance(values[key], dict | list):
            yield from _holders(values[key])


def change_tensor(tensors: dict[str, Any], data: bytes) -> None:
    """Change type, shape or content of one tensor."""
    number, how = int.from_bytes(data[:2], "big"), data[2:]
    name = sorted(tensors)[number % len(tensors)]
    one, how = tensors[name], how[0] if how else 0
    kinds = (torch.float64, torch.float16, torch.int64, torch.uint8, torch.bool)
    numbers = (math.nan, math.inf, -math.inf, 1e38, 0.0)
    if how % 4 == 0:
        tensors[name] = one.to(kinds[how // 4 % len(kinds)])
    elif how % 4 == 1 and one.is_floating_point():
        tensors[name] = torch.full_like(one, numbers[how // 4 % len(numbers)])
    elif how % 4 == 2:
        tensors[name] = one[: how // 4].clone() if one.dim() else one.view(1)
    else:
        tensors[WORDS[how % len(WORDS)]] = tensors.pop(name)


def evaluation(data: bytes) -> object:
    written("config.yaml", b"seed: 0")
    written("evaluations/test.json", data)
    return Run(place()).load_evaluation()


def checkpoint(data: bytes) -> object:
    return load_checkpoint(written("last.safetensors", data), {})


def learner(data: bytes) -> object:
    return TrainedModel.from_bytes(data, "a learner")


def matlab(data: bytes) -> object:
    return read_matlab(written("m.mat", data), "annotations")


def image(data: bytes) -> object:
    return decode(written("i.png", data), 16)


def dumped(value: Any, protocol: int) -> bytes:
    return pickle.dumps(value, protocol)


def bare_learner(config: object) -> bytes:
    """A learner's file without weights, which would only slow the fuzzer down."""
    text = {"version": 1, "name": "x", "config": config, "inputs": None, "votes": {}, "fit": {}}
    return save({"model.a": torch.zeros(2)}, {"learner": json.dumps(text)})


def learner_of(config: Any, inputs: Any, votes: Any) -> bytes:
    """A learner's file with the weights of an untrained model."""
    model = run_config_of(config, "made", False).build()
    text = {"version": 1, "name": "x", "config": config, "inputs": inputs, "votes": votes}
    tensors = {f"model.{name}": one.clone() for name, one in unique_tensors(model).items()}
    return save(tensors, {"learner": json.dumps({**text, "fit": {}})})


def _config(shape: list[int], **fields: Any) -> Any:
    options = {"shape": shape, "pre_outputs": 1, "meta_outputs": 1, "one_joint_head": True}
    blueprint = {"class_path": "omnitraining.tasks.blueprint.Blueprint", "init_args": options}
    return {"problem": blueprint, "inference": {"flows": ["pre", "joint", "meta"]}, **fields}


def _named(name: str, **options: Any) -> Any:
    return {"class_path": name, "init_args": options}


HEADS = ("pre", "joint", "meta", "ensemble", "vote")
IMAGES = (
    FewShotClassifier,
    (
        _config(
            [1, 16, 16],
            backbone=_named("Conv4", channels=1, width=2),
            pretraining=_named("Baseline", new_head=_named("LogisticHead", iterations=9)),
            metatraining=_named("ProtoNet", scale=10.0),
            omninet={"rank": None, "branches": {"0": "full"}},
        ),
        {"channels": 1, "stored": 16, "size": 16, "mean": [0.5], "std": [0.2]},
    ),
    {
        "shots": [1, 5],
        "votes": {flow: [0.4, 0.3] for flow in HEADS[:3]},
        "temperatures": {head: [1.0, 2.0] for head in HEADS},
        "familiarity": {head: [[0.5] * 101] * 2 for head in HEADS},
    },
)
CURVES = (
    FewShotRegressor,
    (
        _config(
            [1],
            backbone=_named("MLP", inputs=1, hidden=[4]),
            pretraining=_named("L2Regression", steps=2),
            metatraining=_named("MAML", steps=2, task="regression"),
        ),
        None,
    ),
    {"shots": [5], "flows": [*HEADS[:3]], "weights": [[[0.2, 0.3, 0.5]] * 3]},
)
ODD: list[Any] = [
    None, True, 0, -1, 1, 2**31, 2**63, 2**70, 10**400, 0.0, -0.5, 1e-300, 1e300, 1e31, "", "x",
    "\ud800", "a\0b", "os.system", "Conv4", "Photos", "/dev/zero", "x" * 5000, [], [[]], {},
    [0] * 99, [1, 2], ["pre"], {"class_path": "os.system"},
    {"class_path": "MLP", "init_args": {"hidden": [9]}},
    '{"class\\u005fpath": "os.system"}', "<U200000000", "cuda:7", "ensemble", 16, 4096,
    {"class_path": "FeatureWise", "init_args": {"backbone": "Conv4"}}, "SGDHead", "MatchingNet",
    {"class_path": "MetaOptNet"}, {"class_path": "MAML", "init_args": {"steps": 999}}, "GNN",
    {"class_path": "ViT", "init_args": {"image_size": 16, "patch": 1, "channels": 1}}, "RFS",
]  # fmt: skip
"""Replacements of values."""
WORDS = ("class_path", "init_args", "x", "steps", "pre", "support.pre", "problem", "labels", "<<")


def written_changes(count: int) -> list[bytes]:
    """Initial inputs of the fuzzer: random changes."""
    random = np.random.default_rng(0)
    return [random.integers(0, 256, 9, np.uint8).tobytes() for _ in range(count)]


ARRAYS = {"data": np.zeros((2, 2, 2, 3), np.uint8), "labels": [0, 1]}
ROWS = {"image_data": ARRAYS["data"], "class_dict": {"a": [0], "b": [1]}}
CONFIG = (MODELS / "glyphs" / "config.yaml").read_bytes()
ANCHORS = b"a: &a {b: [1]}\nc: {<<: *a, d: *a}\n"
RECORD = Evaluation("%", True, {CellKey("a", 5): Cell("hash", {"ensemble": [0.5, 0.25]})})
LISTS = {"label_names": ["x"], "image_names": ["a.png"], "image_labels": [0]}

PARSERS: dict[str, Parser] = {
    "tables of images (CSV)": Parser(
        table, 100_000, [b"filename,label,split\na.png,x,train\n", b"file,class\n../a.png,y\n"]
    ),
    "file lists (JSON)": Parser(lists, 100_000, [json.dumps(LISTS).encode()]),
    "pickles of arrays": Parser(
        pickled, 100_000, [dumped(v, p) for v in (ARRAYS, ROWS) for p in (0, 2, 4, 5)]
    ),
    "lists of MATLAB": Parser(matlab, 20_000, []),
    "images": Parser(image, 20_000, [(place() / "a.png").read_bytes()]),
    "configurations of runs (YAML)": Parser(configuration, 10_000, [CONFIG]),
    "configurations of runs, changed": Parser(changed_configuration, 20_000, written_changes(50)),
    "configurations of one's own (YAML)": Parser(own_configuration, 10_000, [CONFIG, ANCHORS]),
    "evaluations of runs (JSON)": Parser(
        evaluation,
        100_000,
        [json.dumps(RECORD.as_json()).encode()],
    ),
    "checkpoints": Parser(
        checkpoint,
        50_000,
        [save({"a": torch.zeros(2)}, {"facts": '{"step": 1, "best": -Infinity}'})],
    ),
    "saved learners": Parser(
        learner, 10_000, [bare_learner(yaml.safe_load(CONFIG)), bare_learner(None)]
    ),
    "saved learners, changed": Parser(changed_learner, 5_000, written_changes(50)),
}

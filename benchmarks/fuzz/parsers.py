"""The parsers that read what a stranger may have written, each as a function of the bytes."""

import json
import pickle
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from PIL import Image
from safetensors.torch import save

from omnitraining.evaluation import Cell, Evaluation
from omnitraining.experiment import parse
from omnitraining.learner import Trained
from omnitraining.learner.sources import MODELS
from omnitraining.runs import Run, load_checkpoint
from omnitraining.tasks.classification.datasets.cars import _read as read_matlab
from omnitraining.tasks.classification.datasets.lists import json_lists
from omnitraining.tasks.classification.datasets.pickles import pickles, read_pickle
from omnitraining.tasks.classification.datasets.tables import one_table
from omnitraining.tasks.classification.decoding import decode
from omnitraining.values import read_yaml


class Parser(NamedTuple):
    """A parser, how often to run it, and what to start from."""

    read: Callable[[bytes], object]
    executions: int
    seeds: list[bytes]


@cache
def place() -> Path:
    """A folder in memory, with an image that lists can name."""
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
    return parse(read_yaml(written("config.yaml", data)), "config.yaml", trust=False)


def evaluation(data: bytes) -> object:
    written("config.yaml", b"seed: 0")
    written("evaluations/test.json", data)
    return Run(place()).load_evaluation()


def checkpoint(data: bytes) -> object:
    return load_checkpoint(written("last.safetensors", data), {})


def learner(data: bytes) -> object:
    return Trained.from_bytes(data, "a learner")


def matlab(data: bytes) -> object:
    return read_matlab(written("m.mat", data), "annotations")


def image(data: bytes) -> object:
    return decode(written("i.png", data), 16)


def dumped(value: Any, protocol: int) -> bytes:
    return pickle.dumps(value, protocol)


def learner_of(config: object) -> bytes:
    """A learner's file without weights; those of a real one would only slow the fuzzer down."""
    text = {"version": 1, "name": "x", "config": config, "inputs": None, "votes": {}, "fit": {}}
    return save({"model.a": np_tensor()}, {"learner": json.dumps(text)})


def np_tensor() -> Any:
    import torch

    return torch.zeros(2)


ARRAYS = {"data": np.zeros((2, 2, 2, 3), np.uint8), "labels": [0, 1]}
ROWS = {"image_data": ARRAYS["data"], "class_dict": {"a": [0], "b": [1]}}
CONFIG = (MODELS / "glyphs" / "config.yaml").read_bytes()
RECORD = Evaluation("%", True, {"5-way": Cell("hash", {"pre": [0.5, 0.25]})})
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
    "configurations of runs (YAML)": Parser(configuration, 2_000, [CONFIG]),
    "evaluations of runs (JSON)": Parser(
        evaluation,
        100_000,
        [json.dumps({**vars(RECORD), "cells": {"a": vars(RECORD.cells["5-way"])}}).encode()],
    ),
    "checkpoints": Parser(
        checkpoint, 50_000, [save({"a": np_tensor()}, {"facts": '{"step": 1, "best": -Infinity}'})]
    ),
    "saved learners": Parser(
        learner, 5_000, [learner_of(yaml.safe_load(CONFIG)), learner_of(None)]
    ),
}

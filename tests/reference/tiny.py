"""Configurations that train in a second, and what they are made of."""

import csv
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from safetensors.torch import load_file
from torch import Tensor, nn

from omnitraining.config.recipes import merge
from omnitraining.config.run_config import parse
from omnitraining.datasets.images import LabeledImages
from omnitraining.tasks.classification.problem import Classification, EpisodeConfig

Values = dict[str, Any]


def blobs(
    classes: int, images: int, name: str, seed: int = 0, noise: float = 20.0
) -> LabeledImages:
    """A class is a bright 4x4 square at its place in a dark image [1, 16, 16]."""
    random = torch.Generator().manual_seed(seed)
    pixels = 30 + noise * torch.rand(classes, images, 1, 16, 16, generator=random)
    for label in range(classes):
        row, column = divmod(label, 4)
        pixels[label, :, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 180
    labels = torch.arange(classes).repeat_interleave(images)
    names = tuple(f"{name}{label}" for label in range(classes))
    return LabeledImages(pixels.flatten(0, 1).to(torch.uint8), labels, names, name)


class Blobs(Classification):
    """Separable images; training, validation and test differ in their noise."""

    def __init__(
        self,
        protocol: EpisodeConfig = EpisodeConfig(),  # noqa: B008
        noise: float = 20.0,
        classes: int = 8,
    ) -> None:
        parts = [blobs(classes, 12, name, seed, noise) for seed, name in enumerate("abc")]
        super().__init__(parts[0], parts[1], {"blobs": parts[2]}, protocol)


class Volumes(nn.Sequential):
    """A backbone whose output is not [B, D]."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(1, 4), nn.Unflatten(1, (2, 2)))


SINUSOIDS: Values = {
    "problem": {
        "class_path": "Sinusoids",
        "init_args": {"waves": 20, "test_shots": [5], "test_steps": 2},
    },
    "backbone": {"class_path": "MLP", "init_args": {"hidden": [8, 8]}},
    "pretraining": {"class_path": "L2Regression"},
    "metatraining": {"class_path": "MAML", "init_args": {"task": "regression"}},
    "training": {"steps": 4, "val_every": 2, "optimizer": "sgd", "lr": 0.01, "threads": 1},
}
BLOBS: Values = {
    "problem": {
        "class_path": "tests.reference.tiny.Blobs",
        "init_args": {
            "protocol": {"ways": 3, "shots": 2, "queries": 3, "batch": 8, "test_shots": [1, 2]}
        },
    },
    "backbone": {"class_path": "Conv4", "init_args": {"channels": 1, "width": 4}},
    "training": {"steps": 4, "val_every": 2, "threads": 1},
}
NAVIGATION: Values = {
    "problem": {
        "class_path": "Reinforcement",
        "init_args": {
            "environment": {"class_path": "Navigation", "init_args": {"horizon": 10}},
            "tasks": 4,
            "trajectories": 4,
            "test_steps": 2,
            "test_tasks": 20,
            "validation_tasks": 4,
        },
    },
    "backbone": {"class_path": "MLP", "init_args": {"inputs": 2, "hidden": [8, 8]}},
    "pretraining": {"class_path": "REINFORCE"},
    "metatraining": {"class_path": "MAML", "init_args": {"task": "reinforcement", "lr": 0.1}},
    "loss": {"distill_weight": 1.0},
    "training": {"steps": 4, "val_every": 2, "lr": 0.01, "threads": 1},
}


def config(base: Values, **changes: Any) -> Namespace:
    return parse(merge(base, changes))


def tensors(path: Path, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of a checkpoint below a prefix."""
    found = load_file(path)
    return {n.removeprefix(prefix): t for n, t in found.items() if n.startswith(prefix)}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Whether the same names hold bitwise the same tensors."""
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


def metrics(folder: Path) -> list[tuple[int, str, float]]:
    """Rows of metrics.csv."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [
            (int(row["step"]), row["name"], float(row["value"])) for row in csv.DictReader(file)
        ]

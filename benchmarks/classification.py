"""Few-shot classification: loading, episodic training, and the 600 test tasks."""

import random
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.timing import Row, ratio
from omnitraining.backbones import Conv4, ResNet12
from omnitraining.batches import Episode
from omnitraining.evaluation import Inference
from omnitraining.metatraining import GNN, MAML, MetaTraining, ProtoNet
from omnitraining.model import OmniLoss, OmniNetOptions, build_model
from omnitraining.network import Network
from omnitraining.pretraining import Baseline
from omnitraining.tasks.classification.glyph_problem import Glyphs
from omnitraining.tasks.classification.photos import Photos
from omnitraining.tasks.classification.problem import Classification, EpisodeConfig

SIDE, WAYS, SHOTS, QUERIES = 84, 5, 5, 16


class FilePerImage(Dataset[tuple[Tensor, int]]):
    """What peers do: open, crop, jitter and normalize one file at a time."""

    def __init__(self, folder: Path) -> None:
        self.classes = [sorted(c.iterdir()) for c in sorted(folder.iterdir())]

    def __getitem__(self, key: tuple[int, int, int]) -> tuple[Tensor, int]:
        label, index, slot = key
        with Image.open(self.classes[label][index]) as file:
            image = file.convert("RGB")
        width, height = image.size
        side = int(min(width, height) * random.uniform(0.5, 1))
        left, top = random.randint(0, width - side), random.randint(0, height - side)
        image = image.resize((SIDE, SIDE), box=(left, top, left + side, top + side), resample=2)
        for kind in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            image = kind(image).enhance(random.uniform(0.6, 1.4))
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
        return (pixels - 0.45) / 0.22, slot


class EpisodeKeys:
    """Episodes as lists of (class, image, label)."""

    def __init__(self, data: FilePerImage) -> None:
        self.data = data

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        while True:
            chosen = random.sample(range(len(self.data.classes)), WAYS)
            yield [
                (label, index, slot)
                for slot, label in enumerate(chosen)
                for index in random.sample(range(len(self.data.classes[label])), SHOTS + QUERIES)
            ]


def photographs(folder: Path, classes: int, images: int) -> None:
    """JPEG files of a usual size, smooth enough to be of a usual weight."""
    random = np.random.default_rng(0)
    for split in ("train", "validation", "test"):
        for label in range(classes):
            place = folder / split / f"{split}{label}"
            place.mkdir(parents=True)
            for index in range(images):
                coarse = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
                image = Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)
                image.save(place / f"{index}.jpg", quality=90)


def loading() -> list[Row]:
    """An episode of photographs, and a ProtoNet step on it, against a file per image."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        data = Path(name)
        photographs(data / "birds", classes=6, images=SHOTS + QUERIES)
        problem = Photos(data, ("birds",), "birds", ("birds",), EpisodeConfig(batch=64), SIDE)
        keys = EpisodeKeys(FilePerImage(data / "birds" / "train"))
        loader = iter(DataLoader(keys.data, batch_sampler=keys))  # type: ignore[arg-type]
        draws = torch.Generator().manual_seed(0)

        def ours() -> Episode:
            return problem.episode(0, draws)

        def theirs() -> Episode:
            images, labels = next(loader)
            images, labels = images.unflatten(0, (WAYS, -1)), labels.unflatten(0, (WAYS, -1))
            parts = [x.flatten(0, 1)[None] for t in (images, labels)
                     for x in t.split([SHOTS, QUERIES], 1)]  # fmt: skip
            return Episode(parts[0], parts[2], parts[1], parts[3], WAYS)

        value, a, b = ratio(theirs, ours, rounds=5)
        rows.append(("file per image / ours", "an episode of 84 px", value, "", _ms(b, a)))
        for backbone, rounds in ((Conv4(3, 64), 3), (ResNet12(), 1)):
            network = Network(backbone, nn.Identity()).to(memory_format=torch.channels_last)

            def step(episode: Episode, network: Network = network) -> None:
                network.zero_grad()
                loss = ProtoNet().loss(ProtoNet().predict(network, episode), episode.query_y)
                loss.backward()

            value, a, b = ratio(lambda: step(theirs()), lambda: step(ours()), rounds)
            case = f"ProtoNet step, {type(backbone).__name__}, 84 px"
            rows.append(("file per image / ours", case, value, ">= 2", _ms(b, a)))
    return rows


def test_tasks() -> list[Row]:
    """600 tasks with all four heads, against passing every test image once through each flow."""
    glyphs, inference = Glyphs(benchmarks=("latin",)), Inference(joint_head="both")
    parts = glyphs, Baseline(), ProtoNet(), OmniLoss(distill_weight=3), OmniNetOptions()
    model = build_model("omni-training", lambda: Conv4(1, 32), *parts).eval()
    model = model.to(memory_format=torch.channels_last)
    images = glyphs.benchmarks["latin"].images

    @torch.no_grad()
    def embed() -> None:
        for part in images.split(128):
            x = glyphs.augmentation.eval(part)
            for flow in ("pre", "meta", "joint_pre"):
                model.network(flow).backbone(x)

    def evaluate(problem: Classification) -> None:
        problem.evaluate(model, inference, 600)

    rows: list[Row] = []
    for shots in (1, 5):
        problem = glyphs.with_test_shots((shots,))
        value, a, b = ratio(partial(evaluate, problem), embed, rounds=3)
        case = f"glyphs, Conv4-32, {shots}-shot"
        rows.append(("600 tasks, four heads / embedding", case, value, "<= 1.5", _ms(a, b)))
    return rows


def tasks_at_once() -> list[Row]:
    """Algorithms with work to do at test: a loop over tasks against all tasks at once."""
    rows: list[Row] = []
    kinds: list[tuple[MetaTraining, nn.Module, tuple[int, ...], int]] = [
        (GNN(embedding=32, width=16), nn.Identity(), (64,), 1),
        (MAML(steps=3, lr=0.1), Conv4(1, 16), (1, 32, 32), 1),
    ]
    for algorithm, backbone, shape, shots in kinds:
        count = 60 if isinstance(algorithm, GNN) else 20
        network = Network(backbone, algorithm.head(64, WAYS)).eval()
        labels = [torch.arange(WAYS).repeat_interleave(n).expand(count, -1) for n in (shots, 16)]
        support, query = (torch.randn(*y.shape, *shape) for y in labels)
        episode = Episode(support, labels[0], query, labels[1], WAYS)

        @torch.no_grad()
        def together(
            episode: Episode = episode, a: MetaTraining = algorithm, n: Network = network
        ) -> None:
            a.predict(n, episode)

        def loop(
            episode: Episode = episode, a: MetaTraining = algorithm, n: Network = network
        ) -> None:
            for part in episode.split(1):
                with torch.no_grad():
                    a.predict(n, part)

        value, a, b = ratio(loop, together, rounds=3)
        case = f"{type(algorithm).__name__}, {count} tasks, {shots}-shot"
        rows.append(("tasks one by one / at once", case, value, "", _ms(a, b)))
    return rows


def _ms(first: float, second: float) -> str:
    return f"{first * 1e3:.3g} / {second * 1e3:.3g}"

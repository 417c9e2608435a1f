"""Training steps on images of the usual sizes: share of the data, bfloat16, and peers.

python -m benchmarks.photographs results/benchmarks.json
"""

import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.timing import Row, put, ratio
from omnitraining.backbones import Conv4, ResNet10, ResNet12, ResNet18, WideResNet
from omnitraining.batches import Episode
from omnitraining.datasets.images import LabeledImages
from omnitraining.metatraining import ProtoNet
from omnitraining.model import Method, Model, OmniLoss, OmniNetOptions, build_model
from omnitraining.pretraining import Baseline
from omnitraining.tasks.classification.problem import Classification, EpisodeConfig
from omnitraining.tasks.classification.transforms import PadCropAugmentation
from omnitraining.training import Stepper, Training, faster_precision

SIDES = (32, 42, 84)
CLASSES, IMAGES = 20, 100
PROTOCOL = EpisodeConfig(queries=15)
METHODS: tuple[Method, ...] = ("pre-training", "meta-training", "omni-training")
BACKBONES: dict[str, Callable[[], nn.Module]] = {
    "Conv4-64": partial(Conv4, width=64),
    "ResNet10": ResNet10,
    "ResNet12": ResNet12,
    "ResNet18": ResNet18,
    "WideResNet-16-4": partial(WideResNet, 16, 4),
}


def images(side: int) -> Classification:
    """A problem of random images, whose content takes no part in the time of a step."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(CLASSES).repeat_interleave(IMAGES)
    shape = (CLASSES * IMAGES, 3, side, side)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=random)
    made = LabeledImages(pixels, labels, tuple(map(str, range(CLASSES))), "random")
    return Classification(made, made, {"random": made}, PROTOCOL, PadCropAugmentation(side))


class Steps:
    """Training steps of a method, as the training loop makes them."""

    def __init__(self, problem: Classification, method: Method, bfloat16: bool) -> None:
        torch.manual_seed(0)
        parts = problem, Baseline(), ProtoNet(), OmniLoss(distill_weight=0.0), OmniNetOptions()
        self.model: Model = build_model(method, BACKBONES["Conv4-64"], *parts)
        precision: Literal["float32", "bfloat16"] = "bfloat16" if bfloat16 else "float32"
        self.stepper = Stepper(
            self.model, problem, Training(precision=precision), torch.device("cpu")
        )
        self.number = 0
        self.seconds_of_data = 0.0

    def __call__(self) -> None:
        start = time.perf_counter()
        samples = self.stepper.samples(self.number)
        self.seconds_of_data = time.perf_counter() - start
        self.stepper.update(samples, self.number)
        self.number += 1


def data_share() -> list[Row]:
    """Drawing and augmenting, as part of a step, in the faster precision of this processor."""
    rows: list[Row] = []
    small = images(SIDES[0])
    model = Steps(small, "meta-training", False).model
    low = faster_precision(model, small, torch.device("cpu"))[0] == "bfloat16"
    for side in SIDES:
        problem = images(side)
        for method in METHODS:
            step, shares, whole = Steps(problem, method, low), [], []
            for number in range(9):
                start = time.perf_counter()
                step()
                taken = time.perf_counter() - start
                if number > 1:
                    shares.append(step.seconds_of_data / taken)
                    whole.append(taken)
            share, seconds = statistics.median(shares), statistics.median(whole)
            case = f"random images, Conv4-64, {side} px, {method}"
            times = f"{1e3 * share * seconds:.3g} / {1e3 * seconds:.3g}"
            rows.append(("data / step", case, share, "<= 0.05", times))
    return rows


def bfloat16() -> list[Row]:
    """Both passes of a batch of 64 images of 84 pixels, in bfloat16 against float32."""
    rows: list[Row] = []
    for name, make in BACKBONES.items():
        network = make().to(memory_format=torch.channels_last)
        x = torch.randn(64, 3, 84, 84).to(memory_format=torch.channels_last)

        def passes(low: bool, network: nn.Module = network, x: Tensor = x) -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=low):
                features = network(x)
            network.zero_grad()
            features.float().square().mean().backward()

        value, ours, other = ratio(partial(passes, True), partial(passes, False), rounds=3)
        times = f"{1e3 * ours:.3g} / {1e3 * other:.3g}"
        case = f"{name}, 64 images of 84 px"
        rows.append(("bfloat16 / float32", case, value, "< 1 where it pays", times))
    return rows


def peers() -> list[Row]:
    """Steps per second of ProtoNet against the same episode in a plain loop, and in EasyFSL's.

    Peers have float32 and torch's default memory format, as their examples do, and no augmentation,
    of which ours has flips, crops and colors.
    """
    rows: list[Row] = []
    for side in SIDES:
        problem = images(side)
        episode = problem.episode(0, torch.Generator().manual_seed(0))
        others = {"a plain PyTorch loop": plain(episode)}
        with suppress(ImportError):  # it is not among what developers install
            others["EasyFSL"] = easyfsl(episode)
        for precision, low in (("float32", False), ("bfloat16", True)):
            for name, other in others.items():
                ours = Steps(problem, "meta-training", low)
                value, seconds, theirs = ratio(other, ours, rounds=5)
                case = f"ProtoNet, Conv4-64, {side} px, {precision} against {name}"
                times = f"{1e3 * theirs:.3g} / {1e3 * seconds:.3g}"
                rows.append(("steps per second, ours / peer", case, value, ">= 1", times))
    return rows


def plain(episode: Episode) -> Callable[[], None]:
    """A training step of ProtoNet as one writes it by hand."""
    torch.manual_seed(0)
    network = BACKBONES["Conv4-64"]()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    support, query = (x[0].contiguous() for x in (episode.support_x, episode.query_x))
    labels = episode.query_y[0]

    def step() -> None:
        prototypes = network(support).unflatten(0, (episode.ways, -1)).mean(1)
        loss = F.cross_entropy(-torch.cdist(network(query), prototypes), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def easyfsl(episode: Episode) -> Callable[[], None]:
    """The same by EasyFSL's own classes."""
    from easyfsl.methods import PrototypicalNetworks

    torch.manual_seed(0)
    method = PrototypicalNetworks(BACKBONES["Conv4-64"]())
    optimizer = torch.optim.Adam(method.parameters(), 1e-3)
    support, query = (x[0].contiguous() for x in (episode.support_x, episode.query_x))
    support_labels, labels = episode.support_y[0], episode.query_y[0]

    def step() -> None:
        method.process_support_set(support, support_labels)
        loss = F.cross_entropy(method(query), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    torch.set_num_threads(1)
    put([*data_share(), *bfloat16(), *peers()])

"""What a learner costs beyond the forward passes of its backbones.

python -m benchmarks.learner results/benchmarks.json     put these rows into the record
"""

import time
from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.timing import Row, put, ratio
from omnitraining import load
from omnitraining.config.run_config import instantiate, parse
from omnitraining.evaluation import ENSEMBLE
from omnitraining.learner import FewShotClassifier, TrainedModel
from omnitraining.learner.calibration import Calibration
from omnitraining.learner.inputs import ImageInputs
from tests.reference.libraries import library

SIDE, WAYS, SHOTS, QUERIES = 84, 5, 5, 15


def learner() -> list[Row]:
    """Fit and predict 25 support and 75 query images, against passing these 100 forward.

    By one flow, where all that is not the forward pass weighs most, and by all three.
    """
    trained, random = _untrained(), np.random.default_rng(0)
    support, query = (
        random.integers(0, 256, (WAYS * count, SIDE, SIDE, 3), dtype=np.uint8)
        for count in (SHOTS, QUERIES)
    )
    labels = np.repeat(np.arange(WAYS), SHOTS)
    x = torch.from_numpy(np.concatenate([support, query])).permute(0, 3, 1, 2) / 255 - 0.5
    rows = []
    for flow, flows in (("meta", ("meta",)), (ENSEMBLE, trained.model.trained_flows)):
        # The joint-flow has two heads on one backbone.
        networks = ["joint_pre" if name == "joint" else name for name in flows]
        backbones = [trained.plain_backbone(name) for name in networks]

        def whole(flow: str = flow) -> None:
            FewShotClassifier(trained, flow).fit(support, labels).predict(query)

        @torch.no_grad()
        def forward(backbones: list[nn.Module] = backbones) -> None:
            for backbone in backbones:
                backbone(x)

        value, a, b = ratio(whole, forward, rounds=3, clock=time.process_time)
        passes = "one flow" if len(flows) == 1 else "ensemble of three flows"
        case = f"Omni-ResNet-12, 84 px, 25 + 75 images, {passes}"
        times = f"{a * 1e3:.3g} / {b * 1e3:.3g}"
        rows.append(("fit + predict / forward", case, value, "<= 1.2", times))
    return rows


def frozen(names: tuple[str, ...] = ("resnet18", "vit_small_patch16_224")) -> list[Row]:
    """The same of frozen backbones of timm with random weights; none where timm is missing.

    The learner may be faster than the forward passes, since it chooses the size of its batches.
    """
    random, rows = np.random.default_rng(0), list[Row]()
    if find_spec("timm") is None:
        return rows
    for name in names:
        module = library("timm").create_model(name, num_classes=0).eval()
        learner = load(module, image_size=224, mean=(0.5,) * 3, std=(0.5,) * 3)
        images = random.integers(0, 256, (WAYS * (SHOTS + QUERIES), 224, 224, 3), dtype=np.uint8)
        labels = np.repeat(np.arange(WAYS), SHOTS)
        x = torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1

        def whole(
            learner: FewShotClassifier = learner,
            images: NDArray[np.uint8] = images,
            labels: NDArray[np.int64] = labels,
        ) -> None:
            learner.fit(images[: len(labels)], labels).predict(images[len(labels) :])

        @torch.no_grad()
        def forward(module: nn.Module = module, x: Tensor = x) -> None:
            for part in (x[: WAYS * SHOTS], x[WAYS * SHOTS :]):
                module(part)

        value, a, b = ratio(whole, forward, rounds=3, clock=time.process_time)
        case = f"timm/{name}, frozen, 224 px, 25 + 75 images"
        times = f"{a * 1e3:.3g} / {b * 1e3:.3g}"
        rows.append(("frozen backbone: fit + predict / forward", case, value, "<= 1.1", times))
    return rows


def _untrained() -> TrainedModel:
    """Omni-ResNet-12 with Baseline and ProtoNet, as it starts."""
    sizes = {
        "shape": [3, SIDE, SIDE],
        "pre_outputs": 64,
        "meta_outputs": WAYS,
        "one_joint_head": False,
    }
    config = {
        "problem": {
            "class_path": "omnitraining.tasks.blueprint.Blueprint",
            "init_args": sizes,
        },
        "backbone": {"class_path": "ResNet12"},
        "inference": {"flows": ["pre", "joint", "meta"]},
    }
    model = instantiate(parse(config)).build()
    heads = ("pre", "joint", "meta", "ensemble", "vote")
    flat = Calibration((5,), {f: [1 / 3] for f in heads[:3]}, {h: [1.0] for h in heads}, {})
    inputs = ImageInputs(3, SIDE, SIDE, (0.5,) * 3, (1.0,) * 3)
    return TrainedModel(model, config, inputs, flat, "Omni-ResNet-12")


if __name__ == "__main__":
    torch.manual_seed(0)
    put([*learner(), *frozen()])

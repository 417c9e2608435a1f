"""Backbones that are kept as another run trained them: Frozen, and ScaleShift of MTL."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining.backbones import MLP, Conv4, Frozen, ResNet10, ScaleShift
from omnitraining.config.run_config import instantiate, load_run
from omnitraining.errors import InputError
from omnitraining.experiments.running import train_run
from omnitraining.omninet import OmniNet
from omnitraining.runs.run import Run
from tests.reference.tiny import BLOBS, config

NARROW = {"class_path": "Conv4", "init_args": {"channels": 1, "width": 4}}


class Plain(nn.Module):
    """Two convolutions, of which one has a bias, and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 3, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(3)
        self.inner = nn.Sequential(nn.Conv2d(3, 2, 3, stride=2))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(torch.relu(self.norm(self.first(x)))).flatten(1)


@pytest.mark.usefixtures("float64")
def test_scale_shift_multiplies_kernels_channel_by_channel() -> None:
    backbone, x = ScaleShift(Plain), torch.randn(2, 1, 6, 6)
    plain = backbone.backbone
    torch.testing.assert_close(backbone(x), plain(x))
    for parameter in (*backbone.scales, *backbone.shifts.values()):
        nn.init.normal_(parameter)
    first, second = (
        torch.stack(
            [
                torch.stack([scale[o, i] * kernel[o, i] for i in range(kernel.shape[1])])
                for o in range(len(kernel))
            ]
        )
        for scale, kernel in zip(
            backbone.scales, (plain.first.weight, plain.inner[0].weight), strict=True
        )
    )
    (shift,) = backbone.shifts.values()
    hidden = torch.relu(plain.norm(F.conv2d(x, first, padding=1)))
    expected = F.conv2d(hidden, second, plain.inner[0].bias + shift, stride=2).flatten(1)
    torch.testing.assert_close(backbone(x), expected, rtol=1e-12, atol=1e-12)


def test_scale_shift_learns_all_but_convolutions() -> None:
    backbone = ScaleShift(Plain)
    backbone(torch.randn(2, 1, 6, 6)).square().sum().backward()
    learned = {name for name, p in backbone.named_parameters() if p.grad is not None}
    names = {"backbone.norm.weight", "backbone.norm.bias", "scales.0", "scales.1"}
    assert learned == {*names, "shifts.inner/0"}
    assert not backbone.backbone.first.weight.requires_grad
    assert len(ScaleShift(ResNet10).scales) == 12  # with shortcuts


def test_scale_shift_is_no_part_of_an_omni_net() -> None:
    holder = {"class_path": "ScaleShift", "init_args": {"backbone": NARROW}}
    with pytest.raises(InputError, match=r"layer 'scales' of type ParameterList"):
        instantiate(config(BLOBS, backbone=holder)).build()
    net = OmniNet(ScaleShift(lambda: Conv4(1, 4)), branches={"scales": "private"})
    with pytest.raises(InputError, match=r"an Omni-Net gives each flow its own"):
        net(torch.randn(2, 1, 16, 16))


@pytest.mark.parametrize("holder", [Frozen, ScaleShift])
def test_what_holds_a_backbone_makes_it(holder: type[nn.Module]) -> None:
    with pytest.raises(InputError, match=r"backbone is a Conv4: it must be what makes one"):
        holder(Conv4())


def test_scale_shift_needs_a_convolution() -> None:
    with pytest.raises(InputError, match=r"backbone MLP has no convolution for ScaleShift"):
        ScaleShift(lambda: MLP(3))


def test_a_frozen_backbone_has_neither_gradients_nor_new_statistics() -> None:
    backbone, x = Frozen(Plain).train(), torch.randn(4, 1, 6, 6)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    assert not backbone(x).requires_grad and not backbone.backbone.norm.training
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    assert not backbone.eval().training


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "classifier"
    return train_run(config(BLOBS, method="pre-training"), folder)


@pytest.mark.parametrize(
    ("holder", "algorithm", "kept"),
    [("Frozen", "LEO", ("",)), ("ScaleShift", "ANIL", ("0.weight", "4.weight"))],
)
def test_a_run_on_a_held_backbone_keeps_what_another_run_learned(
    classifier: Run, tmp_path: Path, holder: str, algorithm: str, kept: tuple[str, ...]
) -> None:
    changes = {
        "method": "meta-training",
        "backbone": {"class_path": holder, "init_args": {"backbone": NARROW}},
        "problem": {"init_args": {"protocol": {"test_ways": 3}}},
        "metatraining": {"class_path": algorithm},
        "start_from": str(classifier.path),
        "inference": {"weights": "student"},
    }
    run = train_run(config(BLOBS, **changes), tmp_path / "run", trust=True)
    source = load_run(classifier).load(classifier).network("pre").backbone.state_dict()
    network = load_run(run).load(run).network("meta")
    found = network.backbone.backbone.state_dict()
    names = [name for name in source if name.startswith(kept)]
    assert names and all(torch.equal(found[name], source[name]) for name in names)
    started = instantiate(config(BLOBS, **changes)).build(trust=True).network("meta")
    new = dict(network.named_parameters())
    assert any(not torch.equal(p, new[name]) for name, p in started.named_parameters())

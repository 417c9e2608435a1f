"""Attention maps: their sum is the score, they find what matters, and every backbone has them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining.analysis.attention import (
    attention_maps,
    contrasts,
    heat,
    own_representation,
    predictor_maps,
    similarity,
)
from omnitraining.backbones import Conv4, ResNet10, ResNet12, ResNet18, ViT
from omnitraining.cli import main
from omnitraining.errors import InputError
from omnitraining.experiments.running import train_run
from omnitraining.learner import FewShotClassifier, TrainedModel
from omnitraining.omninet import OmniNet
from omnitraining.runs.run import Run
from tests.reference.tiny import BLOBS, SINUSOIDS, blobs, config


def pooled() -> nn.Sequential:
    """A backbone that averages its last map."""
    return nn.Sequential(nn.Conv2d(1, 6, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


# --- the definition ---


@pytest.mark.usefixtures("float64")
def test_of_a_pooled_map_it_is_the_class_activation_map() -> None:
    backbone, direction, x = pooled(), torch.randn(6), torch.randn(3, 1, 16, 16)
    last = backbone[1](backbone[0](x))
    zhou = torch.einsum("c,bchw->bhw", direction, last) / last[0, 0].numel()
    torch.testing.assert_close(attention_maps(backbone, x, similarity(direction)), zhou)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("make", [lambda: Conv4(1, 4), lambda: pooled()])
def test_evidence_adds_up_to_the_score(make: Callable[[], nn.Module]) -> None:
    backbone, x = make().eval(), torch.randn(3, 1, 32, 32)
    direction = torch.randn(3, backbone(x).shape[1])
    maps = attention_maps(backbone, x, similarity(direction))
    torch.testing.assert_close(maps.sum((1, 2)), (backbone(x) * direction).sum(1))
    own = attention_maps(backbone, x, own_representation)
    torch.testing.assert_close(own.sum((1, 2)), backbone(x).square().sum(1))


def test_contrasts_of_prototypes_add_up_to_nothing() -> None:
    found = contrasts(torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 5.0]]))
    torch.testing.assert_close(found, torch.tensor([[0.0, -2.0], [-1.0, -1.0], [1.0, 3.0]]))


def test_evidence_is_where_the_object_is() -> None:
    """A bright square at row 1, column 2 of a grid of 4 x 4 excites a bright-spot detector."""
    x = torch.zeros(1, 1, 16, 16)
    x[0, 0, 4:8, 8:12] = 1
    backbone = pooled()
    nn.init.constant_(backbone[0].weight, 1 / 9)
    nn.init.zeros_(backbone[0].bias)
    found = F.avg_pool2d(attention_maps(backbone, x).unsqueeze(1), 2)[0, 0]
    assert found.argmax() == 1 * 4 + 2
    assert found[1, 2] > 0.5 * found.sum()


def test_heat_is_positive_evidence_from_0_to_1() -> None:
    evidence = torch.zeros(2, 4, 4)
    evidence[0, 1, 2], evidence[0, 3, 0] = 2.0, -5.0
    found = heat(evidence, torch.zeros(2, 3, 32, 24))
    assert found.shape == (2, 32, 24) and found.min() == 0
    assert found[0].max() == 1 and found[1].max() == 0
    row, column = divmod(int(found[0].argmax()), 24)
    assert 8 <= row < 16 and 12 <= column < 18


# --- any backbone ---


class Tokens(nn.Module):
    """A transformer of torch's own blocks; the mean of its tokens is the feature."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 4, 4)
        block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.patches(x).flatten(2).mT).mean(1)


BACKBONES: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int], tuple[int, int]]] = {
    "conv4": (lambda: Conv4(1, 4), (1, 32, 32), (4, 4)),
    "conv4 at 84": (lambda: Conv4(3, 4), (3, 84, 84), (5, 5)),
    "resnet10, oblong": (lambda: ResNet10(1), (1, 64, 128), (4, 8)),
    "resnet12": (lambda: ResNet12(1), (1, 64, 64), (4, 4)),
    "resnet18": (lambda: ResNet18(1), (1, 84, 84), (6, 6)),
    "vit": (lambda: ViT(32, 8, 16, 2, 2, 1), (1, 32, 32), (4, 4)),
    "torch's own": (Tokens, (1, 32, 32), (8, 8)),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_every_flow_of_any_backbone_has_a_map(name: str) -> None:
    make, shape, size = BACKBONES[name]
    net = OmniNet(make(), branch_init="random").eval()
    x = torch.randn(2, *shape)
    maps = {flow: attention_maps(getattr(net, flow), x) for flow in ("pre", "joint", "meta")}
    assert {tuple(found.shape) for found in maps.values()} == {(2, *size)}
    assert all(found.isfinite().all() and found.any() for found in maps.values())
    assert not torch.allclose(maps["pre"], maps["meta"])
    plain = net.export("meta")
    torch.testing.assert_close(attention_maps(plain, x), maps["meta"], rtol=1e-3, atol=1e-4)


def test_of_a_vision_transformer_it_reads_what_the_last_attention_reads() -> None:
    """Patches reach the class token in the last block by attention alone."""
    vit, x = ViT(32, 8, 16, 2, 2, 1).eval(), torch.randn(2, 1, 32, 32)
    found = attention_maps(vit, x)
    torch.testing.assert_close(found, attention_maps(vit, x, layer="blocks.1.norm1"))
    assert not torch.allclose(found, attention_maps(vit, x, layer="patch_embed"))


def test_nothing_of_the_backbone_changes() -> None:
    net = Conv4(1, 4).eval().requires_grad_(False)
    before, x = {n: t.clone() for n, t in net.state_dict().items()}, torch.randn(2, 1, 16, 16)
    kept = x.clone()
    with torch.no_grad():
        attention_maps(net, x)
    assert torch.equal(x, kept) and not net.training
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())
    assert all(not m._forward_hooks for m in net.modules())
    assert all(p.grad is None and not p.requires_grad for p in net.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "nowhere"}, "layer 'nowhere' is not a module"),
        ({"layer": "16"}, "layer '16' gives no feature map"),
        ({"score": lambda f: f}, r"the shape \[2, 64\]: it must be \[2\]"),
        ({"score": lambda f: f.detach().sum(1)}, "does not depend on any feature map"),
        ({"score": lambda f: 0 * f.sum(1)}, "does not depend on any feature map"),
    ],
)
def test_wrong_input_is_one_line(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        attention_maps(Conv4(1, 16), torch.randn(2, 1, 32, 32), **options)


def test_a_backbone_without_feature_maps_is_one_line() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(256, 8))
    with pytest.raises(InputError, match="Sequential gives no feature map"):
        attention_maps(flat, torch.randn(2, 1, 16, 16))


# --- models and pictures ---


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train_run(config(BLOBS), tmp_path_factory.mktemp("runs") / "omni")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of three images each."""
    folder, data = tmp_path_factory.mktemp("photos"), blobs(2, 3, "p")
    for index, (pixels, label) in enumerate(zip(data.images, data.labels, strict=True)):
        place = folder / data.classes[label]
        place.mkdir(exist_ok=True)
        Image.fromarray(pixels[0].numpy()).save(place / f"{index}.png")
    return folder


def test_every_flow_of_a_fitted_predictor_has_maps(run: Run) -> None:
    data = blobs(3, 6, "x")
    learner = FewShotClassifier(TrainedModel.from_run(run), flow="ensemble").fit(
        data.images, data.labels
    )
    pixels = learner.preprocess(data.images[::6])
    maps = predictor_maps(learner.predictor_, pixels, torch.arange(3))
    assert list(maps) == ["pre", "joint", "meta"]
    for flow, found in maps.items():
        assert found.shape == (3, 4, 4), flow


@pytest.mark.parametrize("colors", [1, 3])
def test_the_command_draws_images_of_a_user(
    run: Run, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], colors: int
) -> None:
    out, image = tmp_path / "map.png", photos / "p0" / "0.png"
    if colors == 3:
        image = tmp_path / "color.jpg"
        Image.open(photos / "p0" / "0.png").convert("RGB").resize((50, 31)).save(image)
    words = ["attention", str(run.path), "--trust", "--images", str(image), str(photos / "p1")]
    assert main([*words, "--out", str(out)]) == 0
    plain = matplotlib.image.imread(out)
    assert main([*words, "--support", str(photos), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"picture: {out}\n" * 2
    learned = matplotlib.image.imread(out)
    assert plain.shape[1] == learned.shape[1] and plain.std() > 0.05 and learned.std() > 0.05


def test_without_images_it_uses_the_first_test_task(run: Run, tmp_path: Path) -> None:
    heights = []
    for models in ([run.path], [run.path, run.path]):
        out = tmp_path / "map.png"
        assert (
            main(["attention", "--trust", *map(str, models), "--count", "3", "--out", str(out)])
            == 0
        )
        heights.append(matplotlib.image.imread(out).shape[0])
    assert heights[1] / heights[0] == pytest.approx(7 / 4, rel=0.01)  # rows: image, three flows


def test_wrong_input_is_one_line_on_the_command_line(
    run: Run, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def says(*words: object) -> str:
        assert main(["attention", *map(str, words), "--trust"]) == 2
        captured = capsys.readouterr()
        assert captured.err.count("\n") == 1
        return captured.err

    out = tmp_path / "map.png"
    waves = train_run(config(SINUSOIDS), tmp_path / "waves").path
    damaged = tmp_path / "no.png"
    damaged.write_text("no image")
    assert "--support needs --images" in says(run.path, "--support", photos, "--out", out)
    assert "--count is 0" in says(run.path, "--count", 0, "--out", out)
    assert "give --images" in says(tmp_path, "--out", out)
    assert "of Sinusoids, not of images" in says(waves, "--out", out)
    assert "is a model of curves" in says(waves, "--images", photos / "p0", "--out", out)
    assert "no.png" in says(run.path, "--images", damaged, "--out", out)
    assert "map.xyz" in says(run.path, "--count", 1, "--out", tmp_path / "map.xyz")
    assert not out.exists()
    shutil.rmtree(waves)

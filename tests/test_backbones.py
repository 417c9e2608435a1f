"""Backbones: sizes, shapes and formulas, DropBlock, feature-wise transformation, and the user's."""

import copy
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _NormBase

from omnitraining.adaptation.inner_loop import adapt_and_predict
from omnitraining.backbones import (
    MLP,
    Conv4,
    FeatureWise,
    R2D2Net,
    ResNet10,
    ResNet12,
    ResNet18,
    ViT,
    WideResNet,
    resnet12,
)
from omnitraining.backbones.dropblock import DropBlock
from omnitraining.backbones.parallel import ParallelResNet18, ThreeConvolutions
from omnitraining.batches import Episode
from omnitraining.config.run_config import instantiate
from omnitraining.errors import InputError
from omnitraining.evaluation import ENSEMBLE, Inference
from omnitraining.experiments.running import train_run
from omnitraining.features import feature_size
from omnitraining.losses import cross_entropy
from omnitraining.model import Model, build_model
from omnitraining.network import Network
from omnitraining.omninet import FLOWS, OmniNet
from omnitraining.runs.run import Run
from omnitraining.teacher import Teacher
from omnitraining.training import train
from tests.reference.tiny import BLOBS, Blobs, Values, config, same, tensors

EXACT = {"rtol": 1e-10, "atol": 1e-10}
exactly = pytest.mark.usefixtures("float64")


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def on_meta(make: Callable[[], nn.Module]) -> nn.Module:
    """A network without memory, for counting."""
    with torch.device("meta"):
        return make()


def settled(backbone: nn.Module) -> nn.Module:
    """Norms as after training, so that none is trivial, and in evaluation."""
    for module in backbone.modules():
        if isinstance(module, (_NormBase, nn.LayerNorm)):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
        if isinstance(module, _NormBase):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return backbone.eval()


# --- sizes; ResNets and Conv4, and their Omni-Nets, are in test_omninet.py ---


def wide_resnet_size(depth: int, width: int) -> int:
    """Stem, 3 stages of (depth - 4) / 6 blocks, their projections, and the last norm."""
    blocks, widths = (depth - 4) // 6, [16, 16 * width, 32 * width, 64 * width]
    total = 27 * 16 + 2 * widths[-1]
    for before, after in pairwise(widths):
        total += 9 * before * after + (2 * blocks - 1) * 9 * after * after
        total += 2 * before + (2 * blocks - 1) * 2 * after  # a norm before each convolution
        total += before * after if before != after else 0
    return total


@pytest.mark.parametrize(("depth", "width"), [(28, 10), (16, 4), (10, 1), (40, 2)])
def test_a_wide_resnet_has_the_parameters_of_its_formula(depth: int, width: int) -> None:
    assert size(on_meta(lambda: WideResNet(depth, width))) == wide_resnet_size(depth, width)


def test_wrn_28_10_with_a_classifier_of_ten_has_the_36_5_million_of_its_paper() -> None:
    with_classifier = size(on_meta(WideResNet)) + 640 * 10 + 10
    assert with_classifier == 36_479_194 == wide_resnet_size(28, 10) + 6_410


def test_the_parallel_resnet_18_has_the_parameters_of_the_omni_net() -> None:
    assert size(on_meta(ParallelResNet18)) == 13_981_376 == size(OmniNet(ResNet18()))


@exactly
def test_three_convolutions_are_the_sum_of_their_formula() -> None:
    made = settled(
        ThreeConvolutions(nn.Conv2d(3, 4, 3, 2, padding=1, bias=False), nn.BatchNorm2d(4))
    )
    x, expected = torch.randn(2, 3, 7, 7), torch.zeros(2, 4, 4, 4)
    for part, padding in zip(made.parts, (1, 0, 0), strict=True):
        conv, norm = part
        maps = F.conv2d(x, conv.weight, stride=2, padding=padding)
        means, scales = norm.running_mean, norm.weight / (norm.running_var + norm.eps).sqrt()
        expected += (maps - means.view(-1, 1, 1)) * scales.view(-1, 1, 1)
        expected += norm.bias.view(-1, 1, 1)
    torch.testing.assert_close(made(x), expected, **EXACT)


def test_every_convolution_of_the_parallel_resnet_18_has_two_beside_it() -> None:
    made = on_meta(ParallelResNet18)
    names = {path for path, m in made.named_modules() if isinstance(m, ThreeConvolutions)}
    plain = {path for path, m in on_meta(ResNet18).named_modules() if isinstance(m, nn.Conv2d)}
    assert names == plain and len(plain) == 20
    assert ParallelResNet18(pool=False).eval()(torch.randn(2, 3, 33, 33)).shape == (2, 2048)


def encoder_layer_size(width: int, rank: int | None = None) -> int:
    """Four linear maps and their biases; norms only where no branches are counted."""
    maps = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]
    biases = sum(outputs for _, outputs in maps)
    if rank is not None:
        return sum(rank * (inputs + outputs) for inputs, outputs in maps) + biases
    return sum(inputs * outputs for inputs, outputs in maps) + biases + 2 * 2 * width


def test_vit_s_16_has_21_665_664_parameters() -> None:
    patches, others = 3 * 16 * 16 * 384 + 384, 384 + 197 * 384 + 2 * 384
    assert size(on_meta(ViT)) == 21_665_664 == patches + others + 12 * encoder_layer_size(384)


@pytest.mark.parametrize("rank", [4, 16])
def test_a_vit_as_an_omni_net_has_low_rank_branches_and_norms_of_its_own(rank: int) -> None:
    """Class token and positions are shared."""
    branches = rank * (768 + 384) + 384 + 12 * encoder_layer_size(384, rank)
    norms = 12 * 2 * 2 * 384 + 2 * 384
    assert size(on_meta(lambda: OmniNet(ViT(), rank))) == 21_665_664 + 2 * (branches + norms)


# --- shapes ---


@pytest.mark.parametrize(
    ("backbone", "side", "features"),
    [
        (lambda: Conv4(3, 64), 84, 1600),
        (lambda: Conv4(1, 4), 33, 4 * 2 * 2),
        (lambda: Conv4(3, 64, pooled_blocks=2), 84, 64 * 21 * 21),
        (lambda: Conv4(1, 4, pooled_blocks=0), 5, 4 * 5 * 5),
        (lambda: Conv4(3, 64, pooled_blocks=3, average=True), 32, 64),
        (lambda: R2D2Net(), 84, (384 + 512) * 9 * 9),
        (lambda: R2D2Net(1, (2, 3, 4, 5), 0.0), 35, (4 + 5) * 3 * 3),
        (lambda: ResNet10(1), 33, 512),
        (lambda: ResNet10(1, pool=False), 33, 512 * 2 * 2),
        (lambda: ResNet18(3, pool=False), 224, 512 * 7 * 7),
        (lambda: ResNet12(), 84, 640),
        (lambda: ResNet12(1, pool=False), 84, 640 * 5 * 5),
        (lambda: ResNet12(1), 32, 640),
        (lambda: WideResNet(), 84, 640),
        (lambda: WideResNet(10, 2, channels=1), 9, 128),
        (lambda: ViT(), 224, 384),
        (lambda: ViT(12, 4, 8, 2, 2, 1), 12, 8),
    ],
)
def test_features_have_the_documented_size(
    backbone: Callable[[], nn.Module], side: int, features: int
) -> None:
    network = on_meta(backbone)
    channels = next(network.parameters()).shape[1] if not isinstance(network, ViT) else (
        network.patch_embed.proj.in_channels
    )  # fmt: skip
    images = torch.empty(2, channels, side, side, device="meta")
    assert network(images).shape == network.eval()(images).shape == (2, features)


@pytest.mark.parametrize(
    ("make", "maps"),
    [(ResNet10, (512, 2, 2)), (ResNet12, (640, 3, 3))],
)
def test_pooled_features_are_the_mean_of_the_unpooled_ones(
    make: Callable[..., nn.Module], maps: tuple[int, int, int]
) -> None:
    pooled, unpooled = settled(make(1)), make(1, pool=False).eval()
    unpooled.load_state_dict(pooled.state_dict())
    x = torch.randn(2, 1, 50, 50)
    mean = unpooled(x).unflatten(1, maps).mean((2, 3))
    torch.testing.assert_close(pooled(x), mean, rtol=1e-4, atol=1e-5)


@exactly
def test_conv4_without_pooling_has_the_same_weights_and_its_first_blocks_pool() -> None:
    network = settled(Conv4(1, 4, pooled_blocks=2))
    assert list(network.state_dict()) == list(Conv4(1, 4).state_dict())
    x = expected = torch.randn(2, 1, 20, 20)
    for block in range(4):
        conv, norm = network[4 * block], network[4 * block + 1]
        expected = F.relu(norm(F.conv2d(expected, conv.weight, padding=1)))
        if block < 2:
            expected = F.max_pool2d(expected, 2)
    torch.testing.assert_close(network(x), expected.flatten(1), **EXACT)


# --- formulas ---


class Weights:
    """Convolution and evaluated batch norm by the names of a state dict."""

    def __init__(self, network: nn.Module) -> None:
        self.state = network.state_dict()

    def conv(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = self.state[f"{name}.weight"]
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    def norm(self, name: str, x: Tensor) -> Tensor:
        names = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(self.state[f"{name}.{part}"] for part in names))


def test_resnet12_is_its_formula() -> None:
    network, x = settled(ResNet12(1)), torch.randn(2, 1, 20, 20)
    w, h = Weights(network), x
    for block in ("layer1", "layer2", "layer3", "layer4"):
        shortcut = w.norm(f"{block}.shortcut.1", w.conv(f"{block}.shortcut.0", h))
        for index in (1, 2, 3):
            h = w.norm(f"{block}.bn{index}", w.conv(f"{block}.conv{index}", h))
            h = F.leaky_relu(h + shortcut if index == 3 else h, 0.1)
        h = F.max_pool2d(h, 2)
    torch.testing.assert_close(network(x), h.mean((2, 3)), rtol=1e-4, atol=1e-4)


@exactly
def test_a_wide_resnet_is_its_formula() -> None:
    network, x = settled(WideResNet(16, 2, dropout=0.5, channels=1)), torch.randn(2, 1, 9, 9)
    w = Weights(network)
    h = w.conv("conv1", x)
    for stage, stride in (("layer1", 1), ("layer2", 2), ("layer3", 2)):
        for index in (0, 1):
            block, step = f"{stage}.{index}", stride if index == 0 else 1
            active = F.relu(w.norm(f"{block}.bn1", h))
            inner = F.relu(w.norm(f"{block}.bn2", w.conv(f"{block}.conv1", active, step)))
            kept = w.conv(f"{block}.shortcut.0", active, step) if index == 0 else h
            h = kept + w.conv(f"{block}.conv2", inner)
    expected = F.relu(w.norm("bn", h)).mean((2, 3))
    torch.testing.assert_close(network(x), expected, **EXACT)


def test_dropout_in_a_wide_resnet_is_between_the_convolutions_and_in_training_only() -> None:
    network, x = WideResNet(10, 1, dropout=1.0, channels=1), torch.randn(2, 1, 8, 8)
    seen = []
    for block in (network.layer1[0], network.layer2[0], network.layer3[0]):
        block.conv2.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    network(x)
    assert all(not entered.any() for entered in seen)
    network.eval()(x)
    assert all(entered.any() for entered in seen[3:])


@exactly
def test_a_vit_is_its_formula() -> None:
    """Sample by sample and head by head."""
    network, images = ViT(8, 4, 6, depth=2, heads=2, channels=3), torch.randn(2, 3, 8, 8)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)
    state = network.state_dict()

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ state[f"{name}.weight"].flatten(1).T + state[f"{name}.bias"]

    def norm(name: str, x: Tensor) -> Tensor:
        centered = x - x.mean(-1, keepdim=True)
        unit = centered / (centered.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return unit * state[f"{name}.weight"] + state[f"{name}.bias"]

    for image, features in zip(images, network(images), strict=True):
        corners = [(row, column) for row in (0, 4) for column in (0, 4)]
        patches = torch.stack([image[:, r : r + 4, c : c + 4].flatten() for r, c in corners])
        x = torch.cat([state["cls_token"][0], linear("patch_embed.proj", patches)])
        x = x + state["pos_embed"][0]
        for block in ("blocks.0", "blocks.1"):
            q, k, v = linear(f"{block}.attn.qkv", norm(f"{block}.norm1", x)).chunk(3, -1)
            heads = []
            for part in (slice(0, 3), slice(3, 6)):
                scores = q[:, part] @ k[:, part].T / 3**0.5
                heads.append(torch.softmax(scores, -1) @ v[:, part])
            x = x + linear(f"{block}.attn.proj", torch.cat(heads, -1))
            hidden = linear(f"{block}.mlp.fc1", norm(f"{block}.norm2", x))
            hidden = 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))
            x = x + linear(f"{block}.mlp.fc2", hidden)
        torch.testing.assert_close(features, norm("norm", x)[0], **EXACT)


def test_the_weights_of_a_vit_have_the_names_and_shapes_of_timm_s() -> None:
    """As vit_small_patch16_224 without its head."""
    shapes: dict[str, list[int]] = {
        "cls_token": [1, 1, 384], "pos_embed": [1, 197, 384],
        "patch_embed.proj.weight": [384, 3, 16, 16], "patch_embed.proj.bias": [384],
        "norm.weight": [384], "norm.bias": [384],
    }  # fmt: skip
    layers = {"attn.qkv": (1152, 384), "attn.proj": (384, 384), "mlp.fc1": (1536, 384)}
    for block in range(12):
        for name, (outputs, inputs) in {**layers, "mlp.fc2": (384, 1536)}.items():
            shapes[f"blocks.{block}.{name}.weight"] = [outputs, inputs]
            shapes[f"blocks.{block}.{name}.bias"] = [outputs]
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"):
            shapes[f"blocks.{block}.{name}"] = [384]
    assert {name: list(t.shape) for name, t in on_meta(ViT).state_dict().items()} == shapes


def test_a_new_vit_has_weights_of_deviation_0_02_and_no_biases() -> None:
    for path, parameter in ViT(32, 16, 64, depth=2, heads=2).named_parameters():
        if path.startswith("patch_embed") or "norm" in path:
            continue
        spread = 0.0 if path.endswith("bias") else 0.02
        assert parameter.std().item() == pytest.approx(spread, rel=0.3), path


def small_resnet12(block_size: int = 2) -> nn.Module:
    """Two blocks of ResNet-12, one of each kind."""
    return nn.Sequential(
        resnet12.Block(1, 4, nn.Dropout(0.1)),
        resnet12.Block(4, 4, DropBlock(0.1, block_size)),
        nn.Flatten(),
    )


SMALL: dict[str, Callable[[], nn.Module]] = {
    "r2d2": lambda: nn.Sequential(nn.Upsample(scale_factor=2), R2D2Net(1, (2, 3, 4, 5))),
    "unpooled conv4": lambda: Conv4(1, 2, pooled_blocks=2),
    "resnet12": small_resnet12,
    "wide resnet": lambda: WideResNet(10, 1, 0.1, 1),
    "vit": lambda: ViT(8, 4, 8, depth=2, heads=2, channels=1),
    "feature-wise conv4": lambda: FeatureWise(lambda: Conv4(1, 4, pooled_blocks=2)),
    "feature-wise residual": lambda: FeatureWise(small_resnet12),
}


@exactly
def test_averaged_conv4_has_the_mean_of_every_channel_over_positions() -> None:
    flat = settled(Conv4(1, 4, pooled_blocks=3))
    averaged = Conv4(1, 4, pooled_blocks=3, average=True).eval()
    averaged.load_state_dict(flat.state_dict())
    x = torch.randn(2, 1, 33, 33)
    torch.testing.assert_close(averaged(x), flat(x).unflatten(1, (4, 16)).mean(2))


@exactly
def test_r2d2_network_is_the_function_of_its_authors() -> None:
    network, x = settled(R2D2Net(2, (3, 4, 5, 6), dropout=0.4)), torch.randn(2, 2, 24, 24)

    def block(x: Tensor, convolution: nn.Module, norm: nn.Module, stride: int) -> Tensor:
        return F.leaky_relu(F.max_pool2d(norm(convolution(x)), 2, stride), 0.1)

    maps = x
    for number, stride in enumerate((2, 2, 2, 1), 1):
        before = maps
        stage = getattr(network, f"block{number}")
        maps = block(maps, stage[0], stage[1], stride)
    expected = torch.cat([F.max_pool2d(before, 2, 1).flatten(1), maps.flatten(1)], 1)
    torch.testing.assert_close(network(x), expected)
    dropped = {float(m.p) for m in network.modules() if isinstance(m, nn.Dropout)}
    assert dropped == {0.4} and not isinstance(network.block2[-1], nn.Dropout)


@exactly
@pytest.mark.parametrize("name", SMALL)
def test_flows_of_every_backbone_start_equal_and_export_as_the_backbone(name: str) -> None:
    backbone, x = settled(SMALL[name]()), torch.randn(3, 1, 8, 8)
    net = OmniNet(backbone, rank=2 if name == "vit" else None).eval()
    for output in net(x):
        torch.testing.assert_close(output, backbone(x), **EXACT)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    outputs = net(x)
    assert not torch.allclose(outputs[0], outputs[1])
    assert not torch.allclose(outputs[0], outputs[2])
    for flow, output in zip(FLOWS, outputs, strict=True):
        plain = SMALL[name]().eval()
        plain.load_state_dict(net.export(flow).state_dict())
        torch.testing.assert_close(plain(x), output, rtol=1e-8, atol=1e-8)


@exactly
@pytest.mark.parametrize("tasks", [1, 2])
@pytest.mark.parametrize(
    ("second_order", "training"), [(True, True), (False, True), (False, False), (None, False)]
)
@pytest.mark.parametrize("name", SMALL)
def test_a_flow_of_every_backbone_adapts_by_maml(
    name: str, second_order: bool | None, tasks: int, training: bool
) -> None:
    """By second and first order, and at test without an outer gradient; noise and drops go on."""
    backbone = SMALL[name]()
    features = feature_size(backbone, torch.zeros(2, 1, 8, 8))
    net = OmniNet(backbone, rank=2 if name == "vit" else None, branch_init="random")
    network = Network(net.meta, nn.Linear(features, 2)).train(training)
    labels = torch.arange(2).repeat(tasks, 3)
    x = torch.randn(2, tasks, 6, 1, 8, 8)
    episode = Episode(x[0], labels, x[1], labels, ways=2)
    with torch.set_grad_enabled(second_order is not None):
        outputs = adapt_and_predict(
            network, episode, cross_entropy, (0, 1), 0.1, second_order or False
        )
    assert outputs.shape == (2, tasks, 6, 2) and outputs.isfinite().all()
    assert (outputs[1] - outputs[0]).abs().max() > 1e-6
    if second_order is not None:
        cross_entropy(outputs[1], labels).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Conv4(pooled_blocks=5), "pooled_blocks is 5: it must be from 0 to 4"),
        (lambda: Conv4(pooled_blocks=-1), "pooled_blocks is -1: it must be from 0 to 4"),
        (lambda: R2D2Net(widths=(1, 2)), "widths is (1, 2): it must be four numbers"),
        (lambda: R2D2Net(widths=(1, 0, 1, 1)), r"it must be four numbers of 1 or more"),
        (lambda: R2D2Net(dropout=1.0), "dropout is 1.0: it must be at least 0 and less than 1"),
        (lambda: ResNet12(drop_rate=1.0), "rate is 1.0: it must be at least 0 and less than 1"),
        (lambda: ResNet12(block_size=0), "size is 0: a block must be 1 or more wide"),
        (lambda: WideResNet(depth=27), "depth is 27: it must be 10, 16, 22, 28 or so on"),
        (lambda: WideResNet(depth=4), "depth is 4: it must be 10, 16, 22, 28 or so on"),
        (lambda: WideResNet(width=0), "width is 0: it must be 1 or more"),
        (lambda: WideResNet(dropout=1.1), "dropout is 1.1: it must be from 0 to 1"),
        (lambda: ViT(depth=0), "depth is 0: it must be 1 or more"),
        (lambda: ViT(84, 16), "patch is 16: it must divide image_size, 84"),
        (lambda: ViT(heads=7), "heads is 7: it must divide width, 384"),
        (
            lambda: ViT(8, 4, 8, 1, 2)(torch.zeros(2, 3, 8, 12)),
            "images are 8x12, but image_size is 8",
        ),
    ],
)
def test_wrong_arguments_are_refused(make: Callable[[], nn.Module], words: str) -> None:
    with pytest.raises(InputError) as caught:
        on_meta(make)
    assert words in str(caught.value)


# --- DropBlock ---

SIZES = [(10, 10, 5), (5, 5, 5), (8, 8, 3), (7, 9, 4)]


def dropped_maps(samples: int, channels: int, rows: int, columns: int, block: int) -> Tensor:
    layer = DropBlock(0.1, block).train()
    return layer(torch.ones(samples, channels, rows, columns)) == 0


@pytest.mark.parametrize(("rows", "columns", "block"), SIZES)
def test_dropblock_keeps_the_share_that_gamma_gives(rows: int, columns: int, block: int) -> None:
    """Gamma = (1 - keep) / b^2 * H W / ((H - b + 1)(W - b + 1)), for each place of a block."""
    places = (rows - block + 1) * (columns - block + 1)
    gamma = 0.1 / block**2 * rows * columns / places
    expected = torch.empty(rows, columns)
    for row in range(rows):
        for column in range(columns):
            covering = sum(
                1
                for top in range(rows - block + 1)
                for left in range(columns - block + 1)
                if top <= row < top + block and left <= column < left + block
            )
            expected[row, column] = (1 - gamma) ** covering
    kept = 1 - dropped_maps(200, 200, rows, columns, block).float().mean((0, 1))
    # 40,000 independent maps: five standard errors of each position
    assert (kept - expected).abs().max() < 5 * (0.25 / 40_000) ** 0.5
    assert kept.mean().item() == pytest.approx(expected.mean().item(), abs=0.005)


@pytest.mark.parametrize(("rows", "columns", "block"), SIZES)
def test_what_dropblock_drops_is_made_of_blocks(rows: int, columns: int, block: int) -> None:
    maps = dropped_maps(30, 30, rows, columns, block).flatten(0, 1)
    single = 0
    for dropped in maps[maps.any(-1).any(-1)]:
        covered = torch.zeros_like(dropped)
        for top in range(rows - block + 1):
            for left in range(columns - block + 1):
                window = slice(top, top + block), slice(left, left + block)
                if dropped[window].all():
                    covered[window] = True
        assert torch.equal(covered, dropped)
        single += int(dropped.sum() == block**2)
    assert single > 0


@pytest.mark.parametrize("side", [5, 3, 1])
def test_on_a_map_no_larger_than_a_block_whole_channels_are_dropped(side: int) -> None:
    maps = dropped_maps(200, 100, side, side, 5)
    assert torch.equal(maps.any(-1).any(-1), maps.all(-1).all(-1))
    assert maps.float().mean().item() == pytest.approx(0.1, abs=0.011)  # five standard errors
    channels = maps[..., 0, 0]
    assert (channels != channels[0]).any() and (channels != channels[:, :1]).any()


@exactly
def test_dropblock_preserves_the_mean_over_the_whole_tensor() -> None:
    layer = DropBlock(0.1, 3).train()
    output = layer(torch.ones(4, 5, 8, 8))
    kept = output != 0
    assert 0 < kept.sum() < kept.numel()
    torch.testing.assert_close(output[kept], (kept.numel() / kept.sum()).expand(int(kept.sum())))
    torch.testing.assert_close(output.mean(), torch.tensor(1.0), **EXACT)
    x = 1 + torch.rand(20, 30, 5, 5)
    mean = sum(layer(x) for layer in [DropBlock(0.1, 5)] * 1000) / 1000
    torch.testing.assert_close(mean, x, rtol=0.065, atol=0.0)  # six standard errors


def test_the_gradient_of_dropblock_is_its_mask() -> None:
    x = torch.randn(4, 5, 8, 8, requires_grad=True)
    output = DropBlock(0.2, 3)(x)
    output.sum().backward()
    torch.testing.assert_close(x.grad * x, output)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_dropblock_keeps_the_type(dtype: torch.dtype) -> None:
    assert DropBlock()(torch.ones(2, 3, 8, 8, dtype=dtype)).dtype == dtype


def test_dropblock_that_drops_all_is_zero_and_not_nan() -> None:
    outputs = [DropBlock(0.9, 5)(torch.ones(1, 1, 5, 5)) for _ in range(20)]
    assert any(not output.any() for output in outputs)
    assert all(output.isfinite().all() for output in outputs)


def test_dropblock_does_nothing_in_evaluation_at_rate_0_and_at_the_first_step() -> None:
    x, layer = torch.randn(4, 5, 8, 8), DropBlock(0.5, 3)
    assert layer.eval()(x) is x
    assert DropBlock(0.0, 3)(x) is x
    layer.train().at_step(0, 10)
    assert layer(x) is x
    layer.at_step(1, 10)
    assert layer(x) is not x


def test_keep_falls_linearly_over_the_first_third_of_training() -> None:
    layer = DropBlock(0.1)
    assert layer.keep == 0.9
    for step, keep in ((0, 1.0), (50, 0.95), (25, 0.975), (100, 0.9), (299, 0.9), (0, 1.0)):
        layer.at_step(step, 300)
        assert layer.keep == pytest.approx(keep, abs=1e-12)


def test_resnet12_drops_after_pooling_by_dropout_in_two_blocks_and_dropblock_in_two() -> None:
    network = on_meta(lambda: ResNet12(drop_rate=0.2, block_size=3))
    drops = [getattr(network, f"layer{index}").drop for index in (1, 2, 3, 4)]
    assert [type(drop) for drop in drops] == [nn.Dropout, nn.Dropout, DropBlock, DropBlock]
    assert [drop.p for drop in drops[:2]] == [0.2, 0.2]
    assert [(drop.rate, drop.size) for drop in drops[2:]] == [(0.2, 3), (0.2, 3)]
    shapes = []
    for drop in drops:
        drop.register_forward_hook(lambda module, inputs, output: shapes.append(output.shape[-1]))
    network(torch.empty(2, 3, 84, 84, device="meta"))
    assert shapes == [42, 21, 10, 5]


def test_dropblock_is_off_in_the_teacher() -> None:
    network = Network(small_resnet12(), nn.Identity())
    teacher, x = Teacher(network).train(), torch.randn(8, 1, 16, 16)
    without = copy.deepcopy(network).train()
    for module in without.modules():
        if isinstance(module, (nn.Dropout, DropBlock)):
            module.eval()
    assert torch.equal(teacher.model(x), without(x))


# --- modules that get the step from the training loop ---


def dropping_run(folder: Path, kill_at: int | None, monkeypatch: pytest.MonkeyPatch) -> Model:
    """Eight steps of Omni-Training with DropBlock, killed in one of them and resumed."""
    monkeypatch.setattr(Blobs, "validation_scores", lambda *_: {ENSEMBLE: 0.0})  # to save time
    experiment = instantiate(config(BLOBS, training={"steps": 8, "val_every": 4}))
    Run(folder, create=True).write_text("config.yaml", "")

    def run(resume: bool) -> Model:
        torch.manual_seed(0)
        model = build_model("omni-training", small_resnet12, experiment.problem)
        parts = experiment.problem, experiment.training, Inference()
        train(model, *parts, Run(folder), resume=resume)
        return model

    if kill_at is None:
        return run(resume=False)
    original = Blobs.minibatch

    def minibatch(self: Blobs, step: int, random: torch.Generator) -> Any:
        if step == kill_at:
            raise KeyboardInterrupt
        return original(self, step, random)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Blobs, "minibatch", minibatch)
        run(resume=False)
    return run(resume=True)


def test_the_loop_sets_each_step_in_every_dropblock_of_the_student_and_none_of_the_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, int, int]] = []
    original = DropBlock.at_step

    def at_step(self: DropBlock, step: int, steps: int) -> None:
        told.append((id(self), step, steps))
        original(self, step, steps)

    monkeypatch.setattr(DropBlock, "at_step", at_step)
    model = dropping_run(tmp_path / "run", None, monkeypatch)
    blocks = [module for module in model.modules() if isinstance(module, DropBlock)]
    assert len(blocks) == 3  # one in each flow
    expected = {(id(block), step, 8) for block in blocks for step in range(8)}
    assert set(told) == expected and len(told) == len(expected)
    assert all(block.keep == pytest.approx(0.9) for block in blocks)


def test_a_killed_run_with_dropblock_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, kill_at in (("whole", None), ("killed", 6)):
        dropping_run(tmp_path / name, kill_at, monkeypatch)
    checkpoints = [Run(tmp_path / name).checkpoint("last") for name in ("whole", "killed")]
    assert same(*map(tensors, checkpoints))


# --- feature-wise transformation ---


def test_the_noise_is_an_affine_map_per_channel_with_the_deviations_of_the_paper() -> None:
    """10,000 channels of one norm stand for as many draws; five standard errors."""
    norm = nn.BatchNorm2d(10_000)
    x = torch.randn(6, 10_000, 2, 2)
    plain = norm.train()(x)
    disturbed = FeatureWise(lambda: nn.Sequential(norm), 0.3, 0.5).train()(x)
    plain, disturbed = (t.transpose(0, 1).flatten(1) for t in (plain, disturbed))
    scale = ((plain * disturbed).mean(1) - plain.mean(1) * disturbed.mean(1)) / plain.var(
        1, correction=0
    )
    shift = disturbed.mean(1) - scale * plain.mean(1)
    affine = scale.unsqueeze(1) * plain + shift.unsqueeze(1)
    torch.testing.assert_close(affine, disturbed, rtol=1e-3, atol=1e-3)  # the same over the batch
    draws = torch.stack([(scale - 1) / 0.3, shift / 0.5])
    assert draws.mean(1).abs().max() < 5 / 10_000**0.5
    assert (draws.std(1) - 1).abs().max() < 5 / 20_000**0.5
    assert torch.corrcoef(draws)[0, 1].abs() < 5 / 10_000**0.5
    assert (draws.abs() < 1).float().mean().item() == pytest.approx(0.6827, abs=0.024)  # normal


@pytest.mark.parametrize(("value", "deviation"), [(0.3, 0.3), (0.0, 0.00693147), (0.01, 0.0131326)])
def test_the_deviations_are_softplus_with_beta_100(value: float, deviation: float) -> None:
    """Log(1 + exp(100 v)) / 100."""
    transformed = FeatureWise(Conv4, gamma=value, beta=value)
    assert transformed.scale == pytest.approx(deviation, rel=1e-4)
    assert transformed.shift == pytest.approx(deviation, rel=1e-4)


class Bottleneck(nn.Module):
    """With the names of torchvision's ResNet."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs // 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs // 2)
        self.conv2 = nn.Conv2d(outputs // 2, outputs // 2, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs // 2)
        self.conv3 = nn.Conv2d(outputs // 2, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
        )

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.relu(self.bn1(self.conv1(x)))
        hidden = self.relu(self.bn2(self.conv2(hidden)))
        return self.relu(self.bn3(self.conv3(hidden)) + self.downsample(x))


class Pretrained(nn.Module):
    """A user's network: a ResNet with torchvision's names, and weights from a file."""

    def __init__(self, weights: str | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(Bottleneck(4, 8, 1))
        self.layer2 = nn.Sequential(Bottleneck(8, 16, 2))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Identity()
        if weights is not None:
            self.load_state_dict(torch.load(weights))

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.fc(self.avgpool(self.layer2(self.layer1(x))).flatten(1))


WIDE = ["layer1.0", "layer2.0", "layer3.0"]
LAST_NORMS: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "conv4": (lambda: Conv4(1, 4), ["1", "5", "9", "13"]),
    "resnet10": (
        ResNet10,
        ["layer1.0.bn2"] + [f"layer{i}.0.{n}" for i in (2, 3, 4) for n in ("bn2", "downsample.1")],
    ),
    "resnet12": (
        ResNet12,
        [f"layer{i}.{n}" for i in (1, 2, 3, 4) for n in ("bn3", "shortcut.1")],
    ),
    "wide resnet": (lambda: WideResNet(10, 1), [f"{block}.bn2" for block in WIDE]),
    "the user's": (
        Pretrained,
        [f"layer{i}.0.{n}" for i in (1, 2) for n in ("bn3", "downsample.1")],
    ),
}


@pytest.mark.parametrize("name", LAST_NORMS)
def test_noise_is_in_the_last_norms_of_residual_blocks_or_else_in_every_norm(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, paths = LAST_NORMS[name]
    network, seen = FeatureWise(make).train(), []
    monkeypatch.setattr(FeatureWise, "_transform", lambda self, number, norm, *_: seen.append(norm))
    x = torch.randn(2, next(network.parameters()).shape[1], 32, 32)
    network(x)
    expected = {network.backbone.get_submodule(path) for path in paths}
    assert len(seen) == len(expected) and set(seen) == expected
    network.eval()(x)
    assert len(seen) == len(expected)
    assert not any(module._forward_hooks for module in network.modules())


def test_training_is_noisy_and_evaluation_is_that_of_the_backbone() -> None:
    network, x = FeatureWise(lambda: Conv4(1, 4)), torch.randn(8, 1, 16, 16)
    assert not torch.allclose(network(x), network(x), rtol=1e-3, atol=1e-3)
    assert torch.equal(network.eval()(x), network.backbone(x))


def test_noise_enters_the_forward_pass_where_it_should() -> None:
    """With the same noise by hand, output and running statistics are the same."""
    network = FeatureWise(lambda: Conv4(1, 4)).train()
    plain, x = copy.deepcopy(network.backbone), torch.randn(3, 1, 16, 16)
    torch.manual_seed(7)
    output = network(x)
    torch.manual_seed(7)
    h = x
    for layer in plain:
        h = layer(h)
        if isinstance(layer, nn.BatchNorm2d):
            noise = torch.randn(2, 4, 1, 1)
            h = h * (1 + 0.3 * noise[0]) + 0.5 * noise[1]
    torch.testing.assert_close(output, h)
    for mine, expected in zip(network.backbone.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(mine, expected)


def test_no_hook_stays_when_the_backbone_fails() -> None:
    network = FeatureWise(lambda: Conv4(1, 4)).train()
    with pytest.raises(RuntimeError):
        network(torch.zeros(2, 3, 16, 16))
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize("shared_until", [None, "backbone.8"])
def test_flows_are_noisy_each_for_itself_and_export_as_the_plain_backbone(
    shared_until: str | None,
) -> None:
    net = OmniNet(FeatureWise(lambda: Conv4(1, 4)), shared_until=shared_until)
    x = torch.randn(3, 1, 16, 16)
    pre, joint, meta = net.train()(x)
    assert not torch.allclose(pre, joint) and not torch.allclose(pre, meta)
    assert not torch.allclose(net.pre(x), pre)
    outputs = net.eval()(x)
    for flow, output in zip(FLOWS, outputs, strict=True):
        plain = net.export(flow).backbone
        assert type(plain) is Conv4 and list(plain.state_dict()) == list(Conv4(1, 4).state_dict())
        assert not any(module._forward_hooks for module in plain.modules())
        torch.testing.assert_close(plain(x), output)


def test_the_teacher_has_no_noise() -> None:
    network = FeatureWise(lambda: Conv4(1, 4))
    teacher, x = Teacher(network).train(), torch.randn(4, 1, 16, 16)
    plain = copy.deepcopy(network.backbone).train()
    assert torch.equal(teacher.model(x), plain(x))


@pytest.mark.parametrize("tasks", [1, 2])
def test_adaptation_at_test_has_no_noise(tasks: int) -> None:
    network = Network(FeatureWise(lambda: Conv4(1, 4)), nn.Linear(4, 2)).eval()
    plain = Network(network.backbone.backbone, network.head).eval()
    labels = torch.arange(2).repeat(tasks, 3)
    x = torch.randn(2, tasks, 6, 1, 16, 16)
    episode = Episode(x[0], labels, x[1], labels, ways=2)
    with torch.no_grad():
        first, second = (
            adapt_and_predict(n, episode, cross_entropy, (0, 2), 0.1) for n in (network, plain)
        )
    torch.testing.assert_close(first, second)


FEATURE_WISE: Values = {
    **BLOBS,
    "backbone": {
        "class_path": "FeatureWise",
        "init_args": {"backbone": BLOBS["backbone"], "gamma": 0.2},
    },
}


def test_a_configuration_may_put_it_around_any_backbone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Blobs, "validation_scores", lambda *_: {ENSEMBLE: 0.0})  # to save time
    network = instantiate(config(FEATURE_WISE)).backbone()
    assert type(network) is FeatureWise and type(network.backbone) is Conv4
    assert network.scale == pytest.approx(0.2) and network.shift == pytest.approx(0.5)
    assert network.backbone[0].weight.shape == (4, 1, 3, 3)
    short: Values = {"training": {**BLOBS["training"], "steps": 2}}
    chosen = {"first": FEATURE_WISE | short, "again": FEATURE_WISE | short, "plain": BLOBS | short}
    runs = {n: train_run(config(base), tmp_path / n) for n, base in chosen.items()}
    first, again = (tensors(runs[name].checkpoint("last")) for name in ("first", "again"))
    assert same(first, again)
    noisy, plain = (
        instantiate(config(chosen[n])).load(runs[n]).network("pre").backbone
        for n in ("first", "plain")
    )
    assert not same(noisy.backbone.state_dict(), plain.state_dict())


def test_a_configured_backbone_is_made_anew_at_each_call_and_from_the_seed() -> None:
    """What a configuration would not do with a backbone that is already made."""
    experiment = instantiate(config(FEATURE_WISE, method="ensemble"))
    first, again = experiment.build(), experiment.build()
    other = replace(experiment, seed=1).build()
    assert same(first.state_dict(), again.state_dict())
    assert not same(first.state_dict(), other.state_dict())
    weights = [first.network(flow).backbone.backbone[0].weight for flow in ("pre", "meta")]
    assert not torch.equal(*weights)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: FeatureWise(Conv4, gamma=-0.1), "gamma is -0.1: it must be 0 or more"),
        (lambda: FeatureWise(Conv4, beta=float("nan")), "beta is nan: it must be 0 or more"),
        (lambda: FeatureWise(Conv4()), "backbone is a Conv4: it must be what makes one"),
        (lambda: FeatureWise(MLP), "backbone MLP has no BatchNorm2d for FeatureWise"),
    ],
)
def test_feature_wise_refuses_what_it_cannot_transform(
    make: Callable[[], nn.Module], words: str
) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert words in str(caught.value)


# --- the user's own backbone ---


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    """Weights of a network after some training."""
    network = settled(Pretrained())
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    return tmp_path / "weights.pt"


def test_pretrained_weights_are_the_joint_flow_and_the_start_of_all_flows(
    pretrained: Path,
) -> None:
    network, x = Pretrained(str(pretrained)).eval(), torch.randn(4, 1, 32, 32)
    net = OmniNet(network).eval()
    assert same(net.joint.state_dict(), network.state_dict())
    expected = network(x)
    for flow, output in zip(FLOWS, net(x), strict=True):
        assert torch.equal(output, expected)
        assert same(net.export(flow).state_dict(), network.state_dict())
    branches = [p for path, p in net.named_parameters() if path.endswith(".branch")]
    assert len(branches) == 2 * 9 and not any(branch.any() for branch in branches)


def test_a_configuration_takes_the_user_s_class_with_its_weights(pretrained: Path) -> None:
    backbone = {"class_path": f"{__name__}.Pretrained", "init_args": {"weights": str(pretrained)}}
    model = instantiate(config({**BLOBS, "backbone": backbone})).build().eval()
    x, loaded = torch.randn(2, 1, 16, 16), torch.load(pretrained)
    assert same(model.network("joint_pre").backbone.state_dict(), loaded)
    outputs = [model.network(name).backbone(x) for name in ("pre", "joint_meta", "meta")]
    assert torch.equal(outputs[0], outputs[1]) and torch.equal(outputs[1], outputs[2])


class Maps(nn.Sequential):
    """A backbone that returns its last map."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())


class Outputs(Maps):
    """A backbone that returns an object, as language models do."""

    def forward(self, x: Tensor) -> Any:
        return SimpleNamespace(last_hidden_state=super().forward(x).flatten(1))


@pytest.mark.parametrize(
    ("backbone", "words"),
    [
        (Maps, r"Maps returns \[2, 4, 16, 16\] for .* wrap it in a module"),
        (Outputs, r"Outputs returns SimpleNamespace for .* wrap it in a module"),
    ],
)
def test_a_backbone_that_returns_no_features_is_refused(
    backbone: type[nn.Module], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        build_model("omni-training", backbone, instantiate(config(BLOBS)).problem)

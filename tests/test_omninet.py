"""Omni-Net: three flows that equal the explicit two-branch computation and export as plain ones."""

import copy
import itertools
import random
from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.utils import parametrizations, parametrize, weight_norm

from omnitraining.backbones import MLP, Conv4, ResNet10, ResNet12, ResNet18
from omnitraining.backbones.resnet import Block
from omnitraining.errors import InputError
from omnitraining.omninet import FLOWS, OmniNet
from tests.reference.two_branch import two_branches
from tests.reference.zoo import ZOO, TinyViT, Words

pytestmark = pytest.mark.usefixtures("float64")
EXACT = {"rtol": 1e-12, "atol": 1e-12}


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def randomized(net: nn.Module, std: float = 0.3) -> nn.Module:
    """Draws every parameter and running statistic, so that no branch or norm is trivial."""
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=std)
    for buffer in net.buffers():
        if buffer.is_floating_point():
            nn.init.uniform_(buffer, 0.5, 1.5)
    return net


def assert_same(
    first: Callable[[Tensor], Tensor],
    second: Callable[[Tensor], Tensor],
    x: Tensor,
    parameters: list[nn.Parameter],
) -> None:
    """Same outputs, and same gradients of every parameter and of the input."""
    results = []
    for compute in (first, second):
        inputs = x.clone().requires_grad_()
        output = compute(inputs)
        weights = torch.linspace(-1, 1, output.numel()).view_as(output)
        slopes = torch.autograd.grad((output * weights).sum(), [inputs, *parameters])
        results.append((output, *slopes))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, **EXACT)


# --- sizes: the paper prints 11.17M and 13.98M for ResNet-18 (Table 8) ---


@pytest.mark.parametrize(
    ("backbone", "plain", "omni"),
    [
        (ResNet18, 11_176_512, 13_981_376),
        (ResNet10, 4_905_792, 6_310_336),
        (ResNet12, 12_424_320, 15_675_776),
        # 4 convolutions 112,320 + batch norm 512. CloserLookFewShot's Conv4 has 113,088 and its
        # Omni-Net 139,072: both have 4 * 64 convolution biases, which our batch norm replaces.
        # Omni: 112,320 + 2 branches * (3 * 64 + 3 * 64 * 64) + 3 norms * 512.
        (Conv4, 113_088 - 256, 139_072 - 256),
    ],
)
def test_an_omni_net_has_the_paper_s_number_of_parameters(
    backbone: type[nn.Module], plain: int, omni: int
) -> None:
    network = backbone()
    assert size(network) == plain
    assert size(OmniNet(network)) == omni


def test_the_printed_sizes_of_an_omni_conv4_are_for_a_conv4_with_biases() -> None:
    """139,072 has the 256 biases of the convolutions once, 139,584 has them in each flow.

    CloserLookFewShot's convolutions have biases. Ours have none, as batch norm takes them away
    again: 138,816. The sizes of ResNets, whose convolutions have none either, do not show whether
    the branch of a convolution with bias has one; here it has none.
    """
    sizes = [(inputs, 64) for inputs in (3, 64, 64, 64)]
    layers: list[nn.Module] = []
    for inputs, outputs in sizes:
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs)]
    with_biases = nn.Sequential(*layers)
    assert size(with_biases) == 113_088
    assert size(OmniNet(with_biases)) == 139_072
    assert size(OmniNet(Conv4())) == 139_072 - 256 == 138_816
    biased_branches = sum(size(nn.Conv2d(*pair, 1)) for pair in sizes)
    norms = sum(size(nn.BatchNorm2d(outputs)) for _, outputs in sizes)
    assert size(with_biases) + 2 * (biased_branches + norms) == 139_584 == 138_816 + 3 * 256


# --- every flow is the explicit two-branch network ---


def random_convnet(dims: int, padding_mode: str, seed: int) -> tuple[nn.Module, Tensor]:
    """Two to three convolutions with any kernel, stride, groups and dilation, norms between."""
    choose = random.Random(seed)
    convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dims - 1]
    side = (23, 13, 7)[dims - 1]
    x = torch.randn(3, 4, *[side] * dims)
    layers: list[nn.Module] = []
    for _ in range(choose.choice((2, 3))):
        fits = [
            (k, d)
            for k, d in itertools.product((1, 3, 5, 7), (1, 2))
            if d * (k // 2) < side and (dims < 3 or k < 7)
        ]
        kernel, dilation = choose.choice(fits)
        stride = choose.choice((1, 2))
        layers += [
            convolution(
                4,
                4,
                kernel,
                stride,
                dilation * (kernel // 2),
                dilation,
                groups=choose.choice((1, 2, 4)),
                bias=choose.random() < 0.5,
                padding_mode=padding_mode,
            ),
            choose.choice((norm(4), nn.GroupNorm(2, 4), nn.PReLU(), nn.Tanh())),
            nn.Tanh(),
        ]
        side = -(-side // stride)
    return nn.Sequential(*layers), x


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("padding_mode", ["zeros", "circular", "reflect"])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_convolutional_flow_is_a_joint_layer_plus_a_1x1_branch(
    dims: int, padding_mode: str, seed: int
) -> None:
    backbone, x = random_convnet(dims, padding_mode, seed)
    net = randomized(OmniNet(backbone))
    for flow in (net.pre, net.meta):
        assert_same(flow, lambda x, f=flow: two_branches(net.joint, f, x), x, [*flow.parameters()])


LAYERS = {
    "linear": (lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)), (5, 4)),
    "linear without bias": (lambda: nn.Sequential(nn.Linear(4, 6, bias=False)), (5, 4)),
    "patches": (lambda: nn.Sequential(nn.Conv2d(3, 6, 4, stride=4)), (2, 3, 8, 8)),
    "odd patches": (lambda: nn.Sequential(nn.Conv1d(3, 6, 5, stride=5)), (2, 3, 15)),
    "same padding": (lambda: nn.Sequential(nn.Conv2d(3, 6, 5, padding="same")), (2, 3, 6, 6)),
    "uneven kernel": (lambda: nn.Sequential(nn.Conv2d(3, 6, (1, 7), (1, 2), (0, 3))), (2, 3, 8, 8)),
    "encoder layer": (
        lambda: nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True),
        (2, 5, 8),
    ),
    "encoder layer without biases": (
        lambda: nn.Sequential(
            nn.TransformerEncoderLayer(4, 4, 4, 0.0, batch_first=True, bias=False),
        ),
        (2, 3, 4),
    ),
}


@pytest.mark.parametrize("rank", [None, 1, 2])
@pytest.mark.parametrize("name", LAYERS)
def test_a_flow_of_other_layers_is_a_joint_layer_plus_a_branch_layer(
    name: str, rank: int | None
) -> None:
    make, shape = LAYERS[name]
    net = randomized(OmniNet(make(), rank=rank))
    for flow in (net.pre, net.meta):
        assert_same(
            flow,
            lambda x, f=flow: two_branches(net.joint, f, x),
            torch.randn(shape),
            [*flow.parameters()],
        )


def test_a_module_used_twice_in_forward_has_one_branch_for_both_uses() -> None:
    net = randomized(OmniNet(Words()))
    x = torch.randint(10, (6, 4))
    for flow in (net.pre, net.meta):
        hidden = flow.table(x).mean(1)
        hidden = torch.tanh(two_branches(net.joint.twice, flow.twice, hidden))
        expected = flow.norm(two_branches(net.joint.twice, flow.twice, hidden))
        torch.testing.assert_close(flow(x), expected, **EXACT)


def test_a_module_at_two_paths_stays_one_module() -> None:
    layer = nn.Linear(4, 4)
    net = OmniNet(nn.Sequential(layer, nn.Tanh(), layer))
    assert net.pre[0] is net.pre[2]
    assert size(net) == 3 * 20


def test_low_rank_branches_have_the_parameters_of_their_factors() -> None:
    net = OmniNet(nn.Linear(30, 20), rank=2)
    assert size(net) == 620 + 2 * (2 * (30 + 20) + 20)


# --- what is shared and what is not ---


@pytest.mark.parametrize("name", ZOO)
def test_the_joint_flow_is_the_backbone_and_does_not_depend_on_branches(name: str) -> None:
    make, example = ZOO[name]
    backbone, x = make(), example()
    net = OmniNet(backbone)
    assert not {id(p) for p in backbone.parameters()} & {id(p) for p in net.parameters()}
    before = net.joint(x)
    joint = {id(p) for p in net.joint.parameters()}
    for parameter in net.parameters():
        if id(parameter) not in joint:
            nn.init.normal_(parameter)
    assert torch.equal(net.joint(x), before)
    torch.testing.assert_close(before, backbone(x), **EXACT)


@pytest.mark.parametrize("name", ZOO)
def test_zero_branches_start_all_flows_equal_and_random_ones_do_not(name: str) -> None:
    make, example = ZOO[name]
    x = example()
    pre, joint, meta = OmniNet(make())(x)
    torch.testing.assert_close(pre, joint, **EXACT)
    torch.testing.assert_close(meta, joint, **EXACT)
    outputs = OmniNet(make(), branch_init="random")(x)
    for one, other in itertools.combinations(outputs, 2):
        assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("name", ZOO)
def test_a_gradient_reaches_every_parameter_of_a_flow_and_none_of_the_others(
    name: str, rank: int | None
) -> None:
    make, example = ZOO[name]
    net = OmniNet(make(), rank=rank, branch_init="random")
    output = net.meta(example())
    (output * torch.linspace(-1, 2, output.numel()).view_as(output) ** 2).sum().backward()
    own = {id(p) for p in net.meta.parameters()}
    for path, parameter in net.named_parameters():
        assert (parameter.grad is not None) == (id(parameter) in own), path


def test_a_convolution_branch_gets_the_gradient_of_the_center_tap() -> None:
    net = randomized(OmniNet(nn.Conv2d(2, 3, 5, padding=2)))
    net.pre(torch.randn(4, 2, 7, 7)).square().sum().backward()
    branch = net.pre.parametrizations.weight[0].branch.grad
    assert branch.abs().min() > 0
    torch.testing.assert_close(branch, net.joint.weight.grad[:, :, 2:3, 2:3], **EXACT)


def test_norms_and_parametric_activations_are_private_to_a_flow() -> None:
    net = OmniNet(ZOO["convnet"][0]())
    for index in (1, 2, 4, 5):
        layers = [getattr(net, flow)[index] for flow in FLOWS]
        tensors = [id(t) for layer in layers for t in (*layer.parameters(), *layer.buffers())]
        assert len(set(tensors)) == len(tensors) > 0
    before = net.joint[1].running_mean.clone()
    net.pre(torch.randn(6, 3, 8, 8))
    assert torch.equal(net.joint[1].running_mean, before)
    assert not torch.equal(net.pre[1].running_mean, before)


def test_tokens_positions_and_embeddings_are_shared() -> None:
    net, words = OmniNet(TinyViT()), OmniNet(Words())
    for flow in FLOWS:
        assert getattr(net, flow).token is net.joint.token
        assert getattr(net, flow).positions is net.joint.positions
        assert getattr(words, flow).table.weight is words.joint.table.weight


# --- export ---


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("name", ZOO)
def test_an_exported_flow_is_the_plain_backbone_with_the_flow_s_outputs(
    name: str, flow: str, training: bool
) -> None:
    make, example = ZOO[name]
    backbone, x = make(), example()
    net = randomized(OmniNet(backbone)).train(training)
    plain = net.export(flow)
    assert type(plain) is type(backbone) and plain.training == training
    assert not {t.data_ptr() for t in plain.state_dict().values()} & {
        t.data_ptr() for t in net.state_dict().values()
    }
    loaded = make().train(training)
    loaded.load_state_dict(plain.state_dict(), strict=True)
    expected = getattr(net, flow)(x)
    torch.testing.assert_close(plain(x), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(loaded(x), expected, rtol=1e-10, atol=1e-10)
    with torch.no_grad():  # torch has other code for transformers without gradients
        torch.testing.assert_close(plain(x), getattr(net, flow)(x), rtol=1e-10, atol=1e-10)


def test_an_exported_flow_is_in_the_mode_of_its_own_flow() -> None:
    net = OmniNet(Conv4(1, 4))
    net.pre.eval()
    assert [net.export(flow).training for flow in FLOWS] == [False, True, True]


def test_export_takes_no_other_word_than_a_flow() -> None:
    with pytest.raises(InputError, match="'post' is not one of pre, joint, meta"):
        OmniNet(nn.Linear(2, 2)).export("post")


# --- the options ---


def test_modules_before_shared_until_are_one_module_in_all_flows() -> None:
    whole, part = OmniNet(ResNet10()), OmniNet(ResNet10(), shared_until="layer3")
    net = OmniNet(ResNet10(), shared_until="layer3")
    branches = 3 * 64 + 2 * 64**2 + (64 * 128 + 128**2 + 64 * 128)  # stem, stages 1 and 2
    norms = 2 * (64 + 2 * 64 + 3 * 128)
    assert size(part) == size(whole) - 2 * (branches + norms)
    for path in ("conv1", "bn1", "layer1.0.bn2", "layer2.0.conv1", "layer2.0.downsample.1"):
        layers = [getattr(net, flow).get_submodule(path) for flow in FLOWS]
        assert layers[0] is layers[1] is layers[2]
    for path in ("layer3.0.conv1", "layer3.0.bn1", "layer4.0.bn2"):
        layers = [getattr(net, flow).get_submodule(path) for flow in FLOWS]
        assert layers[0] is not layers[1] and layers[1] is not layers[2]
    pre, joint, meta = randomized(net, 0.05)(torch.randn(3, 3, 16, 16))
    assert not torch.allclose(pre, joint) and not torch.allclose(pre, meta)


@pytest.mark.parametrize(
    ("branches", "expected"),
    [
        ({}, {"0": 2, "3": 4, "6": 8 + 2}),
        ({"0": "shared"}, {"0": 0, "3": 4, "6": 10}),
        ({"0": "full"}, {"0": 18 + 2, "3": 4, "6": 10}),
        ({"": "full", "6": "shared"}, {"0": 20, "3": 36 + 2, "6": 0}),
        ({nn.Conv2d: "full"}, {"0": 20, "3": 38, "6": 10}),
        ({nn.Conv2d: "full", "3": "shared"}, {"0": 20, "3": 0, "6": 10}),
        ({nn.Linear: "low-rank"}, {"0": 2, "3": 4, "6": (4 + 2) + 2}),
        ({nn.BatchNorm2d: "shared", "6": "private"}, {"1": 0, "6": 10}),
        ({nn.Module: "shared", "3": "pointwise"}, {"0": 0, "1": 0, "3": 4, "6": 0}),
    ],
)
def test_branches_are_overridden_by_path_and_by_class(
    branches: dict[str | type, str], expected: dict[str, int]
) -> None:
    """Counts the parameters of the pre-flow that are not the joint-flow's."""
    backbone = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Tanh(),
        nn.Conv2d(2, 2, 3, padding=1), nn.AdaptiveAvgPool2d((1, 2)), nn.Flatten(),
        nn.Linear(4, 2),
    )  # fmt: skip
    rank = 1 if "low-rank" in branches.values() else None
    net = OmniNet(backbone, branches=branches, rank=rank)
    joint = {id(p) for p in net.joint.parameters()}
    for path, count in expected.items():
        own = net.pre.get_submodule(path).parameters()
        assert sum(p.numel() for p in own if id(p) not in joint) == count, path


def test_a_rule_for_a_module_covers_all_inside_it() -> None:
    """By path or by class alike."""
    for key in ("encoder", nn.TransformerEncoderLayer):
        net = OmniNet(TinyViT(), branches={key: "shared"})
        shared = {id(p) for p in net.joint.encoder.parameters()}
        assert {id(p) for p in net.pre.encoder.parameters()} == shared
    for key in ("0", Block):
        net = OmniNet(nn.Sequential(Block(1, 4, 1), nn.Conv2d(4, 4, 1)), branches={key: "full"})
        joint, pre = net.joint[0].conv1.weight, net.pre[0].conv1
        assert pre.parametrizations.weight[0].branch.shape == joint.shape


# --- flows are modules like any other ---


def test_a_deep_copy_shares_among_its_flows_and_with_nothing_else() -> None:
    net = OmniNet(Conv4(1, 4), shared_until="8")
    clone = copy.deepcopy(net)
    assert size(clone) == size(net)
    assert clone.pre[8].parametrizations.weight.original is clone.joint[8].weight
    assert clone.meta[0] is clone.joint[0]
    x = torch.randn(3, 1, 16, 16)
    before = [output.detach() for output in clone(x)]
    randomized(net)
    for output, expected in zip(clone(x), before, strict=True):
        torch.testing.assert_close(output, expected, **EXACT)


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # vmap over attention
@pytest.mark.parametrize("name", ["mlp", "conv4", "vit", "odd attention"])
def test_functional_call_and_vmap_take_a_flow(name: str) -> None:
    make, example = ZOO[name]
    net, x = OmniNet(make()).eval(), example()
    models = [copy.deepcopy(randomized(net)).meta for _ in range(3)]
    stacked = {
        key: torch.stack([dict(model.named_parameters())[key] for model in models])
        for key, _ in net.meta.named_parameters()
    }
    buffers = {
        key: torch.stack([dict(model.named_buffers())[key] for model in models])
        for key, _ in net.meta.named_buffers()
    }
    together = vmap(lambda p, b: functional_call(net.meta, (p, b), (x,)))(stacked, buffers)
    for output, model in zip(together, models, strict=True):
        torch.testing.assert_close(output, model(x), rtol=1e-10, atol=1e-10)


def test_a_state_dict_brings_an_omni_net_back() -> None:
    net, other = randomized(OmniNet(Conv4(1, 4))), OmniNet(Conv4(1, 4))
    other.load_state_dict(net.state_dict())
    x = torch.randn(3, 1, 16, 16)
    for output, expected in zip(other.eval()(x), net.eval()(x), strict=True):
        assert torch.equal(output, expected)


# --- errors name the layer and the way out ---


class OwnLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x


class OwnConvolution(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).abs()


def tied() -> nn.Module:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    return net


def behind(layer: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(3, 3), layer)


def legacy_weight_norm() -> nn.Module:
    with pytest.warns(FutureWarning):
        return behind(weight_norm(nn.Linear(3, 3)))


@pytest.mark.parametrize(
    ("backbone", "options", "words"),
    [
        (lambda: behind(nn.Conv2d(3, 3, 4)), {}, ["'1'", "'full'", "'shared'"]),
        (lambda: behind(nn.Conv1d(3, 3, 3)), {}, ["'1'", "center tap", "'full'"]),
        (lambda: behind(nn.Conv2d(3, 3, 3, padding=(1, 2))), {}, ["'1'", "center tap", "'full'"]),
        (lambda: behind(nn.Conv2d(3, 3, 3, padding=1, dilation=2)), {}, ["'1'", "center tap"]),
        (lambda: behind(nn.Conv2d(3, 3, 1, padding=1)), {}, ["'1'", "center tap"]),
        (lambda: behind(nn.Conv2d(3, 3, 4)), {"branches": {"1": "pointwise"}}, ["'1'", "'full'"]),
        (lambda: behind(nn.Linear(3, 3)), {"branches": {"1": "pointwise"}}, ["'1'", "'full'"]),
        (tied, {}, ["'0.weight'", "'1.weight'", "tied", "'0': 'shared'", "'1': 'shared'"]),
        (
            lambda: behind(parametrizations.weight_norm(nn.Linear(3, 3))),
            {},
            ["'1'", "remove_parametrizations"],
        ),
        (lambda: OmniNet(behind(nn.ReLU())).pre, {}, ["'0'", "remove_parametrizations"]),
        (legacy_weight_norm, {}, ["'1'", "remove_weight_norm"]),
        (lambda: behind(nn.ConvTranspose2d(3, 3, 3)), {}, ["'1'", "ConvTranspose2d", "'full'"]),
        (lambda: behind(nn.LSTM(3, 3)), {}, ["'1'", "LSTM", "'shared'", "'private'"]),
        (lambda: behind(nn.LSTM(3, 3)), {"branches": {"1": "full"}}, ["'1'", "LSTM", "'shared'"]),
        (lambda: behind(nn.Bilinear(3, 3, 3)), {}, ["'1'", "Bilinear", "'shared'", "'full'"]),
        (
            lambda: nn.Sequential(nn.Linear(3, 3), nn.Bilinear(3, 3, 3), OwnConvolution(3, 3, 3)),
            {},
            ["2 layers", "'1' (Bilinear), '2' (OwnConvolution)", "--omninet.others shared"],
        ),
        (MLP, {"others": "full"}, ["others is 'full'", "'shared' or 'private'"]),
        (
            lambda: behind(OwnConvolution(3, 3, 3, padding=1)),
            {},
            ["'1'", "OwnConvolution", "'shared'", "'full'"],
        ),
        (lambda: behind(nn.LazyLinear(3)), {}, ["'1'", "lazy", "run the backbone once"]),
        (lambda: behind(nn.LazyConv2d(3, 3)), {"branches": {"1": "full"}}, ["'1'", "lazy"]),
        (lambda: behind(nn.LazyBatchNorm2d()), {}, ["'1'", "lazy", "run the backbone once"]),
        (lambda: nn.Sequential(nn.ReLU()), {}, ["Sequential", "no layer to convert"]),
        (lambda: nn.Sequential(nn.BatchNorm2d(3)), {}, ["Sequential", "no layer to convert"]),
        (MLP, {"branches": {nn.Linear: "shared"}}, ["MLP", "no layer to convert"]),
        (MLP, {"shared_until": "9"}, ["shared_until='9'", "not a module"]),
        (MLP, {"shared_until": "3"}, ["MLP", "no layer to convert"]),
        (MLP, {"branches": {"9": "full"}}, ["'9'", "not a module"]),
        (MLP, {"branches": {nn.Conv2d: "full"}}, ["Conv2d", "no module"]),
        (MLP, {"branches": {"0": "half"}}, ["'0'", "'half'", "pointwise, full, low-rank"]),
        (MLP, {"branches": {"0": "low-rank"}}, ["'0'", "low-rank", "rank="]),
        (MLP, {"rank": 0}, ["rank is 0", "1 or more"]),
        (MLP, {"branch_init": "ones"}, ["branch_init", "'ones'", "zeros", "random"]),
    ],
)
def test_what_has_no_exact_treatment_is_refused_with_a_way_out(
    backbone: Callable[[], nn.Module], options: dict[str, object], words: list[str]
) -> None:
    module = backbone()
    with pytest.raises(InputError) as caught:
        OmniNet(module, **options)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("others", ["shared", "private"])
def test_one_option_covers_all_layers_without_a_default(
    others: Literal["shared", "private"],
) -> None:
    layers = nn.Linear(3, 3), nn.Bilinear(3, 3, 3), OwnConvolution(3, 3, 3)
    net = OmniNet(nn.Sequential(*layers), others=others)
    for path in ("1", "2"):
        joint, pre, meta = (
            flow.get_submodule(path).weight for flow in (net.joint, net.pre, net.meta)
        )
        assert (pre is joint) == (meta is joint) == (others == "shared")
        assert torch.equal(pre, joint) and not hasattr(net.pre.get_submodule(path), "branch")


def test_numbers_of_channels_are_private() -> None:
    net = OmniNet(behind(OwnLayer()))
    assert net.pre[1].scale is not net.joint[1].scale
    assert torch.equal(net.pre[1].scale, net.joint[1].scale)


def test_a_convolution_without_a_center_tap_gets_a_low_rank_branch_if_rank_is_given() -> None:
    net = randomized(OmniNet(nn.Sequential(nn.Conv2d(3, 4, 4), nn.Flatten()), rank=2))
    x = torch.randn(2, 3, 6, 6)
    weight, bias = (net.pre[0].parametrizations[name][0] for name in ("weight", "bias"))
    added = (weight.up @ weight.down).view(4, 3, 4, 4)
    expected = net.joint(x) + nn.functional.conv2d(x, added, bias.branch).flatten(1)
    torch.testing.assert_close(net.pre(x), expected)


@pytest.mark.parametrize(
    ("layer", "treatment", "x"),
    [
        (lambda: nn.Conv2d(3, 3, 4), "full", (2, 3, 8, 8)),
        (lambda: nn.Conv1d(3, 3, 3), "full", (2, 3, 8)),
        (lambda: nn.ConvTranspose2d(3, 3, 3), "full", (2, 3, 4, 4)),
        (lambda: nn.Bilinear(3, 3, 3), "shared", None),
        (lambda: nn.LSTM(3, 3), "private", None),
        (OwnLayer, "full", (2, 3)),
    ],
)
def test_the_way_out_of_an_error_works(
    layer: Callable[[], nn.Module], treatment: str, x: tuple[int, ...] | None
) -> None:
    net = randomized(OmniNet(behind(layer()), branches={"1": treatment}))
    if x is not None:  # linear in its weights: the flow is the sum of two layers
        joint, flow, x = net.joint[1], net.pre[1], torch.randn(x)
        branch = layer()
        for name, parameter in branch.named_parameters():
            parameter.data = flow.parametrizations[name][0].branch.data
        torch.testing.assert_close(flow(x), joint(x) + branch(x), **EXACT)
    assert not parametrize.is_parametrized(net.joint[1])


def test_tied_weights_may_be_shared() -> None:
    backbone = nn.Sequential(*tied(), nn.Linear(3, 2))
    net = OmniNet(backbone, branches={"0": "shared", "1": "shared"})
    assert net.pre[0].weight is net.joint[1].weight

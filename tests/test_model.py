"""The loss terms of every method against the equations, computed from the networks themselves."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining.backbones import MLP
from omnitraining.batches import Episode, MiniBatch
from omnitraining.errors import InputError
from omnitraining.features import feature_size
from omnitraining.metatraining import MAML, ProtoNet
from omnitraining.model import Model, OmniLoss, OmniNetOptions, build_model
from omnitraining.omninet import OmniNet
from omnitraining.pretraining import RFS, Baseline, L2Regression
from omnitraining.teacher import Teacher
from tests.reference.toy import INPUTS, Toy

pytestmark = pytest.mark.usefixtures("float64")

L = {"l_pre", "l_meta", "l_joint_pre", "l_joint_meta"}
R = {"r_pre", "r_meta"}
TERMS = {
    "omni-training": L | R,
    "pre-training": {"l_pre"},
    "meta-training": {"l_meta"},
    "joint-training": {"l_joint_pre", "l_joint_meta"},
    "ensemble": {"l_pre", "l_meta"},
}
NETWORKS = {
    "omni-training": ["pre", "joint_pre", "joint_meta", "meta"],
    "pre-training": ["pre"],
    "meta-training": ["meta"],
    "joint-training": ["joint_pre", "joint_meta"],
    "ensemble": ["pre", "meta"],
}


def backbone() -> nn.Module:
    return nn.Sequential(MLP(INPUTS, (8,)), nn.BatchNorm1d(8))


def model_of(
    method: str = "omni-training", loss: OmniLoss | None = None, regression: bool = False
) -> Model:
    algorithms = (L2Regression(), MAML(task="regression")) if regression else (
        Baseline(), ProtoNet(),
    )  # fmt: skip
    return build_model(
        method, backbone, Toy(regression), *algorithms, loss or OmniLoss(distill_weight=3.0),
        OmniNetOptions(branch_init="random"),
    )  # fmt: skip


def data(regression: bool = False) -> tuple[MiniBatch, Episode]:
    problem, random = Toy(regression), torch.Generator().manual_seed(0)
    return problem.minibatch(0, random), problem.episode(0, random)


def teacher_of(model: Model) -> Teacher:
    """A teacher that is not the student."""
    teacher = Teacher(model, model.loss.ema_decay).train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return teacher


def by_hand(model: Model, teacher: Model, batch: MiniBatch, episode: Episode) -> dict[str, Tensor]:
    """Every term, with the losses of the two problems written out."""
    pre, meta, regression = model.pretraining, model.metatraining, episode.ways == 0

    def measure(outputs: Tensor, y: Tensor) -> Tensor:
        if regression:
            return (outputs - y).square().mean()
        return -outputs.log_softmax(-1).gather(-1, y.unsqueeze(-1)).mean()

    terms = {}
    for name in model.networks:
        network, own = model.networks[name], f"l_{name}"
        if name in ("pre", "joint_pre"):
            outputs, target = network(batch.x), batch.y
            distant = teacher.networks[name](batch.x)
        else:
            outputs, target = meta.predict(network, episode), episode.query_y
            distant = meta.predict(teacher.networks[name], episode)
        terms[own] = measure(outputs, target)
        terms[f"r_{name}"] = (outputs - distant).square().mean()
    assert isinstance(pre, L2Regression if regression else Baseline)
    return terms


# --- the terms ---


@pytest.mark.parametrize("regression", [False, True])
@pytest.mark.parametrize("method", TERMS)
def test_the_terms_of_a_method_follow_the_equations(method: str, regression: bool) -> None:
    model = model_of(method, regression=regression)
    teacher, (batch, episode) = teacher_of(model), data(regression)
    terms = model(batch, episode, teacher.model)
    assert set(terms) == TERMS[method] | {"total"}
    expected = by_hand(model, teacher.model, batch, episode)
    for name in TERMS[method]:
        torch.testing.assert_close(terms[name], expected[name], rtol=1e-10, atol=1e-12)
    total = sum((3.0 if name.startswith("r_") else 1.0) * expected[name] for name in TERMS[method])
    torch.testing.assert_close(terms["total"], total, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("method", TERMS)
def test_a_step_reaches_every_parameter_but_no_weight_of_the_teacher(method: str) -> None:
    model = model_of(method)
    teacher, (batch, episode) = teacher_of(model), data()
    before = [p.clone() for p in teacher.parameters()]
    model(batch, episode, teacher.model)["total"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    for parameter, value in zip(teacher.parameters(), before, strict=True):
        assert parameter.grad is None and torch.equal(parameter, value)


@pytest.mark.parametrize("regression", [False, True])
def test_self_distillation_is_zero_against_an_equal_teacher(regression: bool) -> None:
    model = model_of(regression=regression).train()
    teacher, (batch, episode) = Teacher(model).train(), data(regression)
    terms = model(batch, episode, teacher.model)
    assert terms["r_pre"] == 0 and terms["r_meta"] == 0


def test_without_a_teacher_there_is_no_self_distillation() -> None:
    terms = model_of()(*data())
    assert set(terms) == L | {"total"}


@pytest.mark.parametrize(
    ("switch", "gone"),
    [
        ("l_pre", {"l_pre", "r_pre"}),  # J_pre = L_pre + lambda R_pre: a flow without its loss
        ("l_meta", {"l_meta", "r_meta"}),  # is not trained at all (Table 6)
        ("l_joint", {"l_joint_pre", "l_joint_meta"}),
        ("r_pre", {"r_pre"}),
        ("r_meta", {"r_meta"}),
    ],
)
def test_a_switch_removes_its_term_and_no_other(switch: str, gone: set[str]) -> None:
    model, (batch, episode) = model_of(), data()
    teacher = teacher_of(model)
    every = model(batch, episode, teacher.model)
    model.loss = OmniLoss(distill_weight=3.0, **{switch: False})
    rest = model(batch, episode, teacher.model)
    assert set(every) - set(rest) == gone
    for name in set(rest) - {"total"}:
        torch.testing.assert_close(rest[name], every[name])
    removed = sum((3.0 if name.startswith("r_") else 1.0) * every[name] for name in gone)
    torch.testing.assert_close(every["total"] - rest["total"], removed)


def test_self_distillation_may_compare_probabilities() -> None:
    model, (batch, episode) = (
        model_of(loss=OmniLoss(distill_weight=3.0, distill_target="probabilities")),
        data(),
    )
    teacher = teacher_of(model)
    found = model(batch, episode, teacher.model)["r_pre"]
    mine, theirs = (m.networks["pre"](batch.x).softmax(-1) for m in (model, teacher.model))
    torch.testing.assert_close(found, ((mine - theirs) ** 2).sum(-1).mean())


def test_the_weight_of_self_distillation_warms_up_linearly() -> None:
    loss = OmniLoss(distill_weight=3.0, warmup=100)
    assert [loss.weight_at(step) for step in (0, 25, 50, 100, 900)] == [0, 0.75, 1.5, 3, 3]
    assert OmniLoss(distill_weight=3.0).weight_at(0) == 3.0
    model, (batch, episode) = model_of(loss=loss), data()
    teacher = teacher_of(model)
    assert not R & set(model(batch, episode, teacher.model, step=0))
    terms = model(batch, episode, teacher.model, step=50)
    expected = sum(terms[name] for name in L) + 1.5 * sum(terms[name] for name in R)
    torch.testing.assert_close(terms["total"], expected)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"distill_weight": -1.0}, "loss.distill_weight is -1.0.*0 or more"),
        ({"ema_decay": 1.0}, "loss.ema_decay is 1.0.*less than 1"),
        ({"ema_decay": -0.1}, "loss.ema_decay is -0.1.*at least 0"),
        ({"warmup": -1}, "loss.warmup is -1.*0 or more"),
    ],
)
def test_impossible_losses_are_refused(options: dict[str, float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        OmniLoss(**options)


# --- the networks ---


@pytest.mark.parametrize("method", NETWORKS)
def test_a_method_has_its_networks_and_shares_what_it_should(method: str) -> None:
    model = model_of(method)
    assert list(model.networks) == NETWORKS[method]
    plain = sum(p.numel() for p in backbone().parameters())
    heads = {"pre": 8 * 8 + 8, "joint_pre": 8 * 8 + 8}  # ProtoNet has none
    omni = sum(p.numel() for p in OmniNet(backbone()).parameters())
    bodies = {"omni-training": omni, "ensemble": 2 * plain}.get(method, plain)
    expected = bodies + sum(heads.get(name, 0) for name in NETWORKS[method])
    assert sum(p.numel() for p in model.parameters()) == expected


def test_joint_training_has_a_plain_backbone() -> None:
    model = model_of("joint-training")
    names = {name.removeprefix("networks.") for name in model.state_dict()}
    assert {f"joint_pre.backbone.{key}" for key in backbone().state_dict()} < names
    assert model.networks["joint_pre"].backbone is model.networks["joint_meta"].backbone


@pytest.mark.parametrize("regression", [False, True])
def test_the_joint_flow_has_one_head_where_both_questions_are_the_same(regression: bool) -> None:
    model = model_of(regression=regression)
    one = model.networks["joint_pre"].head is model.networks["joint_meta"].head
    assert one == regression


@pytest.mark.parametrize(
    ("flow", "joint_head", "names"),
    [
        ("pre", "meta", ["pre"]),
        ("meta", "pre", ["meta"]),
        ("joint", "pre", ["joint_pre"]),
        ("joint", "meta", ["joint_meta"]),
        ("joint", "both", ["joint_pre", "joint_meta"]),
    ],
)
def test_heads_of_a_flow_are_its_networks_each_with_its_algorithm(
    flow: str, joint_head: str, names: list[str]
) -> None:
    model = model_of()
    heads = model.heads_of(flow, joint_head)
    assert [head.name for head in heads] == names
    for head in heads:
        assert head.network is model.networks[head.name]
        is_pre = head.name in ("pre", "joint_pre")
        assert head.algorithm is (model.pretraining if is_pre else model.metatraining)


@pytest.mark.parametrize(
    ("method", "meta_head", "algorithms"),
    [
        ("omni-training", "meta", ["metatraining"]),
        ("omni-training", "pre", ["pretraining"]),
        ("ensemble", "both", ["pretraining", "metatraining"]),
        ("meta-training", "pre", ["metatraining"]),  # it has no other algorithm
    ],
)
def test_the_meta_flow_may_have_a_head_of_either_algorithm(
    method: str, meta_head: str, algorithms: list[str]
) -> None:
    model = model_of(method)
    heads = model.heads_of("meta", "meta", meta_head)
    assert [head.algorithm for head in heads] == [getattr(model, name) for name in algorithms]
    assert all(head.network is model.networks["meta"] for head in heads)


def test_a_teacher_run_moves_with_the_model_and_is_none_of_its_weights() -> None:
    earlier = model_of("pre-training")
    model = build_model("pre-training", backbone, Toy(False), RFS(), teacher_run=earlier)
    ours, theirs = model.state_dict(), earlier.state_dict()
    assert ours.keys() == theirs.keys()
    assert not {t.data_ptr() for t in ours.values()} & {t.data_ptr() for t in theirs.values()}
    copied = copy.deepcopy(model)
    assert copied.teacher_run is model.teacher_run is not None
    model.float()
    assert {p.dtype for p in earlier.parameters()} == {torch.float32}
    assert not model.teacher_run.network.training


@pytest.mark.parametrize("off", [("pre",), ("joint",), ("pre", "meta"), ("joint", "meta")])
def test_only_flows_whose_loss_is_on_count_as_trained(off: tuple[str, ...]) -> None:
    loss = OmniLoss(distill_weight=3.0, **{f"l_{flow}": False for flow in off})
    left = tuple(flow for flow in ("pre", "joint", "meta") if flow not in off)
    assert model_of(loss=loss).trained_flows == left
    assert model_of("ensemble", loss).trained_flows == tuple(f for f in left if f != "joint")


# --- backbones that do not fit ---


class Shaped(nn.Module):
    """Returns a given value."""

    def __init__(self, output: object) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor) -> object:
        return self.output


class Computing(nn.Module):
    """Computes a given function."""

    def __init__(self, compute: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.compute = compute

    def forward(self, x: Tensor) -> object:
        return self.compute(x)


def stop(x: Tensor) -> Tensor:
    raise StopIteration


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Shaped(torch.zeros(2, 3, 4)), r"Shaped returns \[2, 3, 4\].*\[B, D\], here \[2, D\]"),
        (Shaped(torch.zeros(6)), r"Shaped returns \[6\].*\[B, D\]"),
        (Shaped(torch.zeros(1, 3)), r"Shaped returns \[1, 3\].*\[2, D\]"),
        (Shaped((torch.zeros(2, 3), None)), r"Shaped returns tuple.*\[B, D\]"),
        (Computing(lambda x: x.half()), "returns features of float16 for .* must be of float32"),
        (Computing(lambda x: x.bfloat16()), "returns features of bfloat16 for inputs of float32"),
        (Computing(lambda x: x.long()), "returns features of int64 .* must be of float32"),
        (Computing(lambda x: x.double()), "returns features of float64 .* must be of float32"),
        (Computing(lambda x: x.squeeze()), r"returns \[6\] for one input.*use flatten\(1\)"),
        (Computing(lambda x: x.new_zeros(2, 6)), r"returns \[2, 6\] for one .* not \[1, 6\]"),
        (Computing(lambda x: x[:, : len(x)]), r"returns \[1, 1\] for one .* not \[1, 2\]"),
        (Computing(lambda x: x.missing), r"Computing does not take .* \[2, 6\]: AttributeError: '"),
        (Computing(lambda x: {}["key"]), r"Computing does not take .* \[2, 6\]: KeyError: 'key'$"),
        (Computing(lambda x: x[1:2] + x[1]), r"returns \[1, 6\]"),
        (Computing(lambda x: x + 0 * x[1]), r"does not take inputs of shape \[1, 6\]: IndexError"),
        (Computing(stop), r"does not take inputs of shape \[2, 6\]: StopIteration$"),
        (nn.Linear(5, 3), r"Linear does not take inputs of shape \[2, 6\]: RuntimeError: mat1"),
        (nn.Conv2d(1, 3, 3), r"Conv2d does not take inputs of shape \[2, 6\]"),
        (nn.BatchNorm2d(6), r"BatchNorm2d does not take inputs of shape \[2, 6\]"),
    ],
)
def test_a_backbone_that_does_not_fit_is_refused_by_name_and_shape(
    network: nn.Module, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        feature_size(network, torch.zeros(2, INPUTS, dtype=torch.float32))


def test_the_feature_size_is_read_without_a_trace() -> None:
    network = backbone().train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    assert feature_size(network, torch.zeros(2, INPUTS)) == 8
    assert all(module.training for module in network.modules())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_the_outputs_of_a_network_are_its_head_on_its_features() -> None:
    model, (batch, _) = model_of().eval(), data()
    network = model.networks["pre"]
    expected = F.linear(network.backbone(batch.x), network.head.weight, network.head.bias)
    torch.testing.assert_close(network(batch.x), expected)


def three_layers() -> nn.Module:
    return nn.Sequential(MLP(INPUTS, (8,)), nn.BatchNorm1d(8), nn.Linear(8, 8), nn.Tanh())


def test_layers_before_the_first_omni_layer_are_computed_once_and_change_no_term() -> None:
    """A model whose trunk is split off against the same weights without the split."""

    torch.manual_seed(0)
    options = OmniNetOptions(branch_init="random", shared_until="2")
    split = build_model("omni-training", three_layers, Toy(False), omninet=options)
    net = OmniNet(three_layers(), branch_init="random", shared_until="2")
    flows = {"pre": net.pre, "joint": net.joint, "meta": net.meta}
    whole = Model(flows, Toy(False), Baseline(), ProtoNet(), OmniLoss())
    assert len(list(split.trunk.parameters())) == 4
    with torch.no_grad():
        for name in split.networks:
            theirs = whole.networks[name]
            theirs.head.load_state_dict(split.networks[name].head.state_dict())
            parts = [*split.trunk, *split.networks[name].backbone]
            for mine, other in zip(parts, theirs.backbone, strict=True):
                other.load_state_dict(mine.state_dict())
    batch, episode = data()
    calls: list[int] = []
    split.trunk.register_forward_hook(lambda *_: calls.append(1))
    ours, plain = split(batch, episode), whole(batch, episode)
    for name in plain:
        torch.testing.assert_close(ours[name], plain[name], rtol=1e-12, atol=1e-12)
    assert len(calls) == 2  # the mini-batch and the episode


def test_algorithms_that_adapt_every_layer_get_no_trunk() -> None:
    options = OmniNetOptions(shared_until="2")
    model = build_model(
        "omni-training", three_layers, Toy(False), metatraining=MAML(), omninet=options
    )
    assert not list(model.trunk.parameters())


@pytest.mark.parametrize("method", ["omni-training", "pre-training"])
def test_weights_are_single_precision_on_the_cpu_whatever_torch_s_defaults_are(method: str) -> None:
    before = torch.get_default_dtype()
    problem = Toy(False)
    try:
        torch.set_default_dtype(torch.float16)
        with torch.device("meta"):
            model = build_model(method, backbone, problem)
        assert torch.get_default_dtype() == torch.float16
    finally:
        torch.set_default_dtype(before)
    kinds = {(w.dtype, w.device.type) for w in (*model.parameters(), *model.buffers())}
    assert {kind for kind in kinds if kind[0].is_floating_point} == {(torch.float32, "cpu")}

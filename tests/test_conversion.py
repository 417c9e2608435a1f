"""A backbone whose copies would not compute with their own weights is refused, by its layer."""

import random
import threading
from collections.abc import Callable
from types import MethodType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from omnitraining import conversion
from omnitraining.errors import InputError
from omnitraining.metatraining import ProtoNet
from omnitraining.model import build_model
from omnitraining.omninet import FLOWS, OmniNet
from tests.reference.toy import INPUTS, Toy
from tests.reference.zoo import ZOO


class Two(nn.Module):
    """Two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(INPUTS, 5), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(x)))


OTHER = Two()


def in_a_closure() -> nn.Module:
    net = Two()
    net.forward = lambda x: net.last(torch.tanh(net.first(x)))  # type: ignore[method-assign]
    return net


def in_a_default() -> nn.Module:
    net = Two()

    def forward(x: Tensor, last: nn.Module = net.last) -> Tensor:
        return last(torch.tanh(net.first(x)))

    net.forward = forward  # type: ignore[method-assign]
    return net


def in_a_layer() -> nn.Module:
    net = Two()
    weight, bias = net.last.weight, net.last.bias
    net.last.forward = lambda x: nn.functional.linear(x, weight, bias)  # type: ignore
    return net


def frozen_in_a_layer() -> nn.Module:
    net = in_a_layer()
    net.last.requires_grad_(False)
    return net


def in_a_hook() -> nn.Module:
    net = Two()
    net.first.register_forward_hook(lambda module, given, out: out + net.last.weight.sum())
    return net


def in_an_inner_function() -> nn.Module:
    net = Two()

    def inner(x: Tensor) -> Tensor:
        return net.last(x)

    net.forward = lambda x: inner(torch.tanh(net.first(x)))  # type: ignore[method-assign]
    return net


class Listed(Two):
    """Keeps a weight in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = [nn.Parameter(torch.randn(INPUTS, 5))]

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x @ self.kept[0])


class ListedLayers(Two):
    """Keeps a layer in a dictionary in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = [{"first": nn.Linear(INPUTS, 5)}]

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.kept[0]["first"](x))


class Alias(Two):
    """Computes with a weight that it also keeps in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = [self.first.weight]

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x @ self.kept[0].T)


class Elsewhere(Two):
    """Computes with a module that is not its own."""

    def forward(self, x: Tensor) -> Tensor:
        return OTHER.last(self.first(x))


class Detached(Two):
    """Passes no gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).detach()


HELD = [
    (in_a_closure, "backbone Two keeps in 'forward' a function that holds the backbone", "'last'"),
    (in_a_default, "backbone Two keeps in 'forward' a function", "'last'"),
    (in_a_layer, "layer 'last' of type Linear keeps in 'forward' a function", "layer 'last'"),
    (frozen_in_a_layer, "layer 'last' of type Linear keeps in 'forward'", "layer 'last' of type"),
    (in_a_hook, "layer 'first' of type Linear keeps in '_forward_hooks' a function", "'last'"),
    (in_an_inner_function, "backbone Two keeps in 'forward' a function", "'last'"),
    (Listed, "backbone Listed keeps in 'kept' a weight that is not reg", r"weight \[6, 5\] that"),
    (ListedLayers, "backbone ListedLayers keeps in 'kept' a module that", r"weight \[5, 6\] that"),
    (Alias, "backbone Alias keeps in 'kept' a weight that will be branched", "layer 'first'"),
]


@pytest.mark.parametrize(("make", "words", "_"), HELD)
def test_what_a_copy_would_share_is_refused_before_any_input(
    make: Callable[[], nn.Module], words: str, _: str
) -> None:
    with pytest.raises(InputError, match=f"{words}.*: a copy would compute with the original's"):
        OmniNet(make())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        *[(make, words) for make, _, words in HELD],
        (Elsewhere, r"backbone Elsewhere computes with a weight \[4, 5\] that is not registered"),
        (Detached, "backbone Detached passes no gradient to its weights"),
    ],
)
def test_flows_that_do_not_compute_with_their_own_weights_are_refused(
    make: Callable[[], nn.Module], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what they compute, however a backbone hides its weights."""
    monkeypatch.setattr("omnitraining.omninet.check_held", lambda *_: None)
    with pytest.raises(InputError, match=words):
        build_model("omni-training", make, Toy(regression=False))


@pytest.mark.parametrize("method", ["pre-training", "joint-training", "ensemble"])
def test_other_methods_refuse_it_too_since_the_teacher_is_a_copy(method: Any) -> None:
    with pytest.raises(InputError, match="layer 'last' of type Linear is not reached"):
        build_model(method, in_a_layer, Toy(regression=False))


def test_an_ensemble_needs_two_backbones() -> None:
    net = Two()
    with pytest.raises(InputError, match="share weights: backbone must make a new module at each"):
        build_model("ensemble", lambda: net, Toy(regression=False))


def bound() -> nn.Module:
    """A forward of the instance that a copy does carry over."""

    def forward(self: Two, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x)))

    net = Two()
    net.forward = MethodType(forward, net)  # type: ignore[method-assign]
    net.first.register_forward_hook(lambda module, given, out: 2 * out)
    net.last.act = lambda x: torch.tanh(x)
    return net


class Recurrent(Two):
    """Keeps a list of its weights, as all of torch's recurrent layers do, and one unused layer."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(3, 3)
        self.memory = nn.LSTM(5, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.memory(self.first(x).unsqueeze(1))[0][:, -1])


class Chance(Two):
    """Draws in evaluation mode."""

    def forward(self, x: Tensor) -> Tensor:
        noise = torch.rand(1) + random.random() + float(np.random.rand())
        return super().forward(x + noise)


@pytest.mark.parametrize("make", [bound, Chance])
def test_what_a_copy_carries_over_is_taken(make: Callable[[], nn.Module]) -> None:
    build_model("omni-training", make, Toy(regression=False))


def test_recurrent_layers_may_be_private_or_shared() -> None:
    for treatment in ("private", "shared"):
        net = OmniNet(Recurrent(), branches={"memory": treatment}, example=torch.zeros(2, INPUTS))
        assert all(torch.equal(net.joint(x), net.pre(x)) for x in [torch.rand(2, INPUTS)])


@pytest.mark.parametrize("init", ["zeros", "random"])
@pytest.mark.parametrize("name", ZOO)
def test_every_kind_of_backbone_passes(name: str, init: Any) -> None:
    make, example = ZOO[name]
    OmniNet(make(), 2, init, example=example())


def test_trying_leaves_no_trace() -> None:
    backbone = nn.Sequential(Chance(), nn.BatchNorm1d(4), nn.Dropout()).train()
    backbone[1].eval()
    states = [module.training for module in backbone.modules()]
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    torch.manual_seed(3)
    plain = OmniNet(backbone)
    torch.manual_seed(3)
    expected = torch.get_rng_state(), random.getstate(), np.random.get_state()[2]
    net = OmniNet(backbone, example=torch.zeros(2, INPUTS))
    assert torch.equal(expected[0], torch.get_rng_state())
    assert expected[1:] == (random.getstate(), np.random.get_state()[2])
    for made in (backbone, net.pre, net.joint, net.meta):
        assert made.training
        assert all(weight.grad is None for weight in made.parameters())
    assert [module.training for module in backbone.modules()] == states
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())
    for key, value in plain.state_dict().items():
        assert torch.equal(net.state_dict()[key], value), key


def test_a_branch_of_another_flow_is_no_branch_of_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    net, backbone = OmniNet(Two()), Two()
    own, other = (f.last.parametrizations["weight"][0] for f in (net.pre, net.meta))
    monkeypatch.setattr(own, "forward", lambda joint: joint + other.branch)
    with pytest.raises(InputError, match=r"a weight \[4, 5\] that is not registered"):
        conversion.check_copies(
            backbone, {flow: getattr(net, flow) for flow in FLOWS}, torch.zeros(2, INPUTS)
        )


class Unused(nn.Module):
    """Computes with an embedding alone, which all flows share."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.unused = nn.Embedding(4, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.table(x[:, 0].long())


def test_flows_that_must_stay_equal_are_refused() -> None:
    with pytest.raises(InputError, match="backbone Unused does not use any layer that differs"):
        build_model("omni-training", Unused, Toy(regression=False))
    build_model("pre-training", Unused, Toy(regression=False))


# --- frozen weights ---


class PartlyFrozen(Two):
    """Its first layer is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.first.requires_grad_(False)


def test_frozen_weights_stay_frozen_in_every_flow_and_so_do_their_branches() -> None:
    net = OmniNet(PartlyFrozen(), branch_init="random")
    for flow in (net.pre, net.joint, net.meta):
        for name, weight in flow.named_parameters():
            assert weight.requires_grad == name.startswith("last"), name
    model = build_model("omni-training", PartlyFrozen, Toy(regression=False))
    problem, chance = Toy(regression=False), torch.Generator().manual_seed(0)
    model(problem.minibatch(0, chance), problem.episode(0, chance))["total"].backward()
    for name, weight in model.named_parameters():
        assert (weight.grad is None) == ("first" in name), name


def frozen() -> nn.Module:
    return Two().requires_grad_(False)


def test_backbones_without_anything_to_train_are_refused() -> None:
    with pytest.raises(InputError, match=r"every layer of backbone Two .* is frozen .*stay equal"):
        OmniNet(frozen())
    with pytest.raises(InputError, match=r"every weight of the model is frozen"):
        build_model("meta-training", frozen, Toy(regression=False), metatraining=ProtoNet())
    build_model("pre-training", frozen, Toy(regression=False))  # its head can be trained


class Locked(Two):
    """Holds what cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


def test_a_backbone_that_cannot_be_copied_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match=r"backbone Locked cannot be copied: TypeError: cannot"):
        OmniNet(Locked())

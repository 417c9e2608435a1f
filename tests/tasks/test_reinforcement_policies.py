"""Batched policies compute what each network computes by itself."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from omnitraining.adaptation.batched import BatchedModules, expand_weights
from omnitraining.adaptation.inner_loop import sgd_step
from omnitraining.backbones import MLP
from omnitraining.network import MeanNetwork, Network
from omnitraining.omninet import FLOWS, OmniNet, plain
from omnitraining.policies.gaussian import GaussianHead
from omnitraining.pretraining import REINFORCE
from omnitraining.tasks.reinforcement.policies import per_task_policy, shared_policy

pytestmark = pytest.mark.usefixtures("float64")
TASKS = 3


class Own(nn.Module):
    """A backbone of an unknown class, whose layers may mix states."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 5), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x.flatten(1)))) + x.mean(0).sum()


def tied() -> nn.Sequential:
    network = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2), nn.Linear(2, 4))
    network[2].weight = network[0].weight
    return network


def omni(flow: str, rank: int | None = None) -> nn.Module:
    net = OmniNet(MLP(2, (6, 4)), rank=rank, branch_init="random")
    return getattr(net, flow)


BACKBONES: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: MLP(2, (6, 4)),
    "no bias": lambda: nn.Sequential(nn.Linear(2, 4, bias=False), nn.ReLU()),
    "layer norm": lambda: nn.Sequential(nn.Linear(2, 4), nn.LayerNorm(4)),
    "own class": Own,
    "tied": tied,
    **{f"{flow}-flow": (lambda f=flow: omni(f)) for flow in FLOWS},
    **{f"{flow}-flow, rank 2": (lambda f=flow: omni(f, 2)) for flow in FLOWS},
}
WITHOUT_VMAP = {"mlp", "no bias"} | {name for name in BACKBONES if "flow" in name}
each_backbone = pytest.mark.parametrize("kind", BACKBONES)


def network_of(kind: str) -> Network:
    return Network(BACKBONES[kind](), GaussianHead(4, 3))


def different(network: nn.Module) -> dict[str, Tensor]:
    return {n: w + torch.randn_like(w) for n, w in expand_weights(network, TASKS).items()}


def one_by_one(network: nn.Module, weights: dict[str, Tensor], states: Tensor) -> Tensor:
    own = [{name: w[task] for name, w in weights.items()} for task in range(TASKS)]
    parts = [functional_call(network, w, (s,)) for w, s in zip(own, states, strict=True)]
    return torch.stack(parts).detach()


@each_backbone
def test_policies_are_the_networks_one_by_one(kind: str) -> None:
    network, states = network_of(kind), torch.randn(TASKS, 5, 2)
    weights = different(network)
    policy = per_task_policy(network, weights)
    outputs = policy(states)
    assert outputs.shape == (TASKS, 5, 6)
    torch.testing.assert_close(outputs.detach(), one_by_one(network, weights, states))
    assert BatchedModules(network)._without_vmap == (kind in WITHOUT_VMAP)


@pytest.mark.parametrize("kind", ["mlp", "layer norm", "flows"])
def test_the_mean_of_networks_is_that_of_the_outputs_of_each(kind: str) -> None:
    states = torch.randn(TASKS, 5, 2)
    net = OmniNet(MLP(2, (6, 4)), branch_init="random")
    backbones = [getattr(net, f) if kind == "flows" else BACKBONES[kind]() for f in FLOWS]
    networks = [Network(backbone, GaussianHead(4, 3)) for backbone in backbones]
    mean = MeanNetwork(networks)
    weights = different(mean)  # also between flows
    assert len(weights) == sum(len([*network.parameters()]) for network in networks)
    outputs = per_task_policy(mean, weights)(states)
    each = [
        one_by_one(
            network,
            {n: weights[f"networks.{index}.{n}"] for n, _ in network.named_parameters()},
            states,
        )
        for index, network in enumerate(networks)
    ]
    torch.testing.assert_close(outputs.detach(), sum(each) / 3)
    assert BatchedModules(mean)._without_vmap == (kind != "layer norm")
    torch.testing.assert_close(mean(states[0]), sum(n(states[0]) for n in networks) / 3)


@each_backbone
def test_expanded_weights_are_the_policy_of_the_network(kind: str) -> None:
    network, states = network_of(kind), torch.randn(TASKS, 5, 2)
    if kind != "own class":  # which mixes the states of a batch
        torch.testing.assert_close(
            per_task_policy(network, expand_weights(network, TASKS))(states),
            shared_policy(network)(states),
        )
    torch.testing.assert_close(shared_policy(network)(states[:1])[0], network(states[0]))


@each_backbone
def test_a_gradient_step_of_many_networks_is_that_of_each(kind: str) -> None:
    network = network_of(kind)
    x, y = torch.randn(TASKS, 7, 2), torch.randn(TASKS, 7, 5)
    weights = different(network)
    after = sgd_step(network, weights, x, y, REINFORCE().inner_loss, 0.3)
    for task in range(TASKS):
        own = {name: w[task].clone().requires_grad_() for name, w in weights.items()}
        loss = REINFORCE().inner_loss(functional_call(network, own, (x[task],)), y[task])
        gradients = torch.autograd.grad(loss, [*own.values()])
        for (name, before), gradient in zip(own.items(), gradients, strict=True):
            torch.testing.assert_close(after[name][task], (before - 0.3 * gradient).detach())


def test_a_policy_leaves_the_network_and_its_weights_as_they_are() -> None:
    network = network_of("pre-flow")
    before = {n: p.clone() for n, p in network.named_parameters()}
    weights = different(network)
    kept = {n: w.clone() for n, w in weights.items()}
    per_task_policy(network, weights)(torch.randn(TASKS, 5, 2))
    assert all(torch.equal(p, before[n]) for n, p in network.named_parameters())
    assert all(torch.equal(w, kept[n]) for n, w in weights.items())


def test_a_policy_leaves_the_states_as_they_are() -> None:
    """Also where the first layer is one that computes in place after others."""
    network = Network(nn.Sequential(nn.Tanh(), MLP(2, (4,))), GaussianHead(4, 3))
    states = torch.randn(TASKS, 5, 2)
    kept, weights = states.clone(), different(network)
    with torch.no_grad():
        outputs = per_task_policy(network, weights)(states)
    assert torch.equal(states, kept)
    torch.testing.assert_close(outputs, one_by_one(network, weights, states))


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("flow", FLOWS)
def test_a_plain_copy_of_a_flow_is_its_export(flow: str, rank: int | None) -> None:
    net = OmniNet(MLP(2, (6, 4)), rank=rank, branch_init="random")
    exported, copied = net.export(flow), plain(getattr(net, flow))
    assert type(copied) is type(exported) is MLP
    ours, theirs = copied.state_dict(), exported.state_dict()
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name])
    # Both are free of the Omni-Net, which still has its branches.
    with torch.no_grad():
        copied[0].weight += 1
    assert not torch.allclose(getattr(net, flow)[0].weight, copied[0].weight)
    assert any("parametrizations" in name for name, _ in net.named_parameters())

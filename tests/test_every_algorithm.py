"""Requirements of every algorithm in the two packages, with its default and other options."""

import dataclasses
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from omnitraining import metatraining, pretraining
from omnitraining.backbones import MLP, FeatureWise, NetworkEnsemble
from omnitraining.metatraining import (
    ANIL,
    GNN,
    MAML,
    TADAM,
    HardTasks,
    LearnedFT,
    MatchingNet,
    MetaMaxUp,
    MetaOptNet,
    MetaTraining,
    ProtoNet,
    RelationNet,
    Reptile,
)
from omnitraining.metatraining.gnn import GraphNetwork
from omnitraining.network import Network, PrecomputedFeatures
from omnitraining.pretraining import (
    REINFORCE,
    BaselinePP,
    LogisticHead,
    NegMargin,
    PreTraining,
    Robust,
)
from tests.reference.found import found_in
from tests.reference.toy import INPUTS, Toy

pytestmark = pytest.mark.usefixtures("float64")
Algorithm = PreTraining | MetaTraining


# Options besides the default ones under which a requirement must hold as well.
MORE: list[Algorithm] = [
    BaselinePP(scale=4.0, new_head=LogisticHead()),
    BaselinePP(norm="learned"),
    NegMargin("softmax", margin=-0.3),
    ProtoNet(metric="euclidean", scale=1.0),
    MatchingNet(scale=10.0, steps=2),
    RelationNet(channels=4, target="softmax"),
    GNN(embedding=16, width=16, form="inductive"),
    MAML(task="regression"),
    MAML(steps=3, lr=0.1, second_order=False),
    ANIL(steps=3, second_order=False),
    Reptile(task="regression"),
    Reptile(optimizer="adam", lr=0.05, batch=6, test_steps=20),
    MetaOptNet(jitter=1.0),
    MetaOptNet("ridge"),
    MetaMaxUp(MetaOptNet("ridge")),
    HardTasks(ANIL(lr=1.0)),
    # At a scale of 100 its second derivatives overflow in float16, in which nothing trains.
    LearnedFT(MatchingNet(scale=10.0), lr=0.1),
    MetaOptNet("ridge", penalty=1.0, normalize=True, scale=5.0),
]
FOUND = [*found_in(pretraining, PreTraining), *found_in(metatraining, MetaTraining)]
# Policies return actions, not predictions: tasks/test_reinforcement.py tests these for them.
EVERY: list[Algorithm] = [
    *(c() for c in FOUND if c not in (REINFORCE, Robust)),
    Robust(keep=1.0, dropout=0.0),  # tests of gradients need a loss that is not random
    *MORE,
]
each_algorithm = pytest.mark.parametrize("algorithm", EVERY, ids=repr)

# Options with which an algorithm learns the toy problem in a second, and how many steps it takes.
QUICK: dict[str, tuple[dict[str, Any], int]] = {
    "ANIL": ({"lr": 1.0}, 30),
    "CAN": ({"channels": 4}, 30),
    "GNN": ({"embedding": 16, "width": 16}, 120),
    "LEO": ({"latents": 8, "lr": 0.1, "dropout": 0.0}, 60),
    "L2Regression": ({"steps": 3, "lr": 0.3}, 30),
    "MAML": ({"steps": 3, "lr": 0.3}, 30),
    "RelationNet": ({"channels": 4}, 30),
    "Reptile": ({"steps": 5, "lr": 0.3}, 30),
}


def test_the_packages_hold_the_algorithms_that_we_know_of() -> None:
    assert {c.__name__ for c in FOUND} >= {
        *("Baseline", "BaselinePP", "L2Regression", "NegMargin", "REINFORCE", "RFS"),
        *("ANIL", "GNN", "MAML", "MatchingNet", "MetaOptNet", "ProtoNet", "RelationNet"),
    }


def regresses(algorithm: Algorithm) -> bool:
    """Whether the loss takes values, not class indices, as targets."""
    try:
        return bool(algorithm.loss(torch.ones(1, 3), torch.ones(1, 3)) == 0)
    except (RuntimeError, ValueError):
        return False


def convolution(features: int) -> nn.Module:
    """A backbone with a norm of maps, here of one position."""
    layers = nn.Conv2d(INPUTS, 16, 1), nn.BatchNorm2d(16), nn.Tanh(), nn.Flatten()
    return nn.Sequential(nn.Unflatten(1, (INPUTS, 1, 1)), *layers, nn.Linear(16, features))


def toy(algorithm: Algorithm) -> tuple[Toy, Network]:
    """A problem and a network for it; its features are 4x4 maps where channels are asked for."""
    problem, channels = Toy(regresses(algorithm)), getattr(algorithm, "channels", None)
    features = 16 * channels if channels else 8
    pre = isinstance(algorithm, PreTraining)
    outputs = problem.pre_outputs if pre else problem.meta_outputs
    backbone: nn.Module = MLP(INPUTS, (16, features))
    if isinstance(algorithm, TADAM):  # it needs norms
        layers = nn.Linear(INPUTS, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, features)
        backbone = nn.Sequential(*layers)
    if isinstance(algorithm, LearnedFT):
        backbone = FeatureWise(partial(convolution, features), learned=True)
    if isinstance(algorithm, Robust):
        backbone = NetworkEnsemble(partial(MLP, INPUTS, (16, features)), 2, own_views=False)
        features *= 2
    if isinstance(algorithm, PreTraining):
        return problem, Network(backbone, algorithm.head_for(backbone, features, outputs))
    head = algorithm.head_for(backbone, features, outputs, problem.pre_outputs)
    if isinstance(algorithm, TADAM):  # at its start tasks do not differ
        head.multipliers.data.fill_(0.1)
    return problem, Network(backbone, head)


def training_loss(algorithm: Algorithm, network: Network, problem: Toy, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    if isinstance(algorithm, PreTraining):
        batch = problem.minibatch(0, random)
        return algorithm.loss(network(batch.x), batch.y)
    episode, batch = problem.episode(0, random), problem.minibatch(0, random)
    if isinstance(algorithm, LearnedFT):
        torch.manual_seed(seed)  # of its noise
        drawn = problem.episode(0, random, tasks=2)
        episode = dataclasses.replace(drawn, domains=2)
    return algorithm.outputs_and_loss(network, episode, batch)[1]


def train(algorithm: Algorithm, network: Network, problem: Toy, steps: int) -> None:
    optimizer = torch.optim.Adam(network.train().parameters(), 0.01)
    for step in range(steps):
        optimizer.zero_grad()
        training_loss(algorithm, network, problem, seed=step).backward()
        optimizer.step()


def score(algorithm: Algorithm, network: Network, problem: Toy) -> Tensor:
    """Accuracy on new tasks, or the share of the targets' variance that is explained."""
    episode = problem.episode(0, torch.Generator().manual_seed(1000), tasks=20)
    with torch.no_grad():
        outputs = algorithm.predict(network.eval(), episode)
    if not problem.regression:
        return (outputs.argmax(-1) == episode.query_y).double().mean()
    return 1 - (outputs - episode.query_y).square().mean() / episode.query_y.square().mean()


@each_algorithm
def test_predictions_have_a_row_of_outputs_per_query(algorithm: Algorithm) -> None:
    problem, network = toy(algorithm)
    episode = problem.episode(0, torch.Generator().manual_seed(0), tasks=5)
    outputs = algorithm.predict(network, episode)
    assert outputs.shape == (5, 12, problem.meta_outputs)


@each_algorithm
def test_gradients_reach_every_parameter_that_can_change_the_loss(algorithm: Algorithm) -> None:
    """A norm or a softmax takes out the bias before it; that one alone may have no gradient."""
    problem, network = toy(algorithm)
    loss = training_loss(algorithm, network, problem, seed=0)
    loss.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        if parameter.grad.abs().sum() < 1e-10:
            assert name.endswith(".bias"), name
            with torch.no_grad():
                parameter += 1
            torch.testing.assert_close(training_loss(algorithm, network, problem, seed=0), loss)


@each_algorithm
def test_the_loss_is_a_mean_over_samples(algorithm: Algorithm) -> None:
    outputs = torch.randn(2, 6, 3)
    targets = torch.randn(2, 6, 3) if regresses(algorithm) else torch.randint(3, (2, 6))
    if isinstance(algorithm, PreTraining):  # its head may give more than a logit for each class
        outputs = algorithm.head(4, 3)(torch.randn(12, 4)).unflatten(0, (2, 6))
    once = algorithm.loss(outputs, targets)
    twice = algorithm.loss(torch.cat([outputs, outputs], 1), torch.cat([targets, targets], 1))
    torch.testing.assert_close(once, twice)


@each_algorithm
def test_the_order_of_the_support_set_does_not_matter(algorithm: Algorithm) -> None:
    problem, network = toy(algorithm)
    episode = problem.episode(0, torch.Generator().manual_seed(0), tasks=3)
    order = torch.randperm(episode.support_x.shape[1])
    shuffled = dataclasses.replace(
        episode, support_x=episode.support_x[:, order], support_y=episode.support_y[:, order]
    )
    first, second = (algorithm.predict(network.eval(), e) for e in (episode, shuffled))
    torch.testing.assert_close(first, second, rtol=1e-10, atol=1e-10)


def rename_classes(head: nn.Module, new: Tensor) -> None:
    """Rename the classes in a head whose weights are ordered by class."""
    ways = len(new)
    if isinstance(head, GraphNetwork):  # labels are columns of the nodes, logits rows of the last
        slots = torch.arange(ways) + head.embed.out_features
        for adjacency in head.adjacencies:
            weight = adjacency.layers[0].weight.data
            weight[:, slots] = weight[:, slots[new]]
        for layer in (*head.layers, head.last):
            weight = layer.linear.weight.data
            for labels in (slots, slots + weight.shape[1] // 2):  # its own, then its neighbors'
                weight[:, labels] = weight[:, labels[new]]
        head = head.last.linear
    if isinstance(head, nn.Linear) and head.out_features == ways:
        head.weight.data, head.bias.data = head.weight.data[new], head.bias.data[new]


@each_algorithm
def test_renaming_the_classes_renames_the_outputs(algorithm: Algorithm) -> None:
    problem, network = toy(algorithm)
    episode = problem.episode(0, torch.Generator().manual_seed(0), tasks=3)
    new = torch.arange(problem.meta_outputs).roll(1)
    before = algorithm.predict(network.eval(), episode)
    if problem.regression:
        renamed = dataclasses.replace(episode, support_y=episode.support_y[..., new])
    else:
        renamed = dataclasses.replace(episode, support_y=new.argsort()[episode.support_y])
    rename_classes(network.head, new)
    after = algorithm.predict(network, renamed)
    torch.testing.assert_close(after, before[..., new], rtol=1e-10, atol=1e-10)
    assert not torch.allclose(after, before)


@each_algorithm
def test_tasks_are_predicted_one_by_one(algorithm: Algorithm) -> None:
    problem, network = toy(algorithm)
    episode = problem.episode(0, torch.Generator().manual_seed(0), tasks=4)
    together = algorithm.predict(network.eval(), episode)
    alone = [algorithm.predict(network, task) for task in episode.split(1)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-10, atol=1e-10)


ANY_WAYS = [a for a in EVERY if not regresses(a) and not getattr(a, "fixed_ways", False)]


@pytest.mark.parametrize("algorithm", ANY_WAYS, ids=repr)
def test_tasks_may_have_other_numbers_of_classes(algorithm: Algorithm) -> None:
    problem, network = toy(algorithm)
    problem.ways = 2 if getattr(algorithm, "limited_ways", False) else 5
    episode = problem.episode(0, torch.Generator().manual_seed(0), tasks=2)
    ways = problem.ways
    assert algorithm.predict(network.eval(), episode).shape == (2, 4 * ways, ways)


@pytest.mark.parametrize("algorithm", [a for a in EVERY if a.needs_only_features], ids=repr)
def test_known_features_predict_what_inputs_predict(algorithm: Algorithm) -> None:
    problem, network = toy(algorithm)
    network.eval()
    episode = problem.episode(0, torch.Generator().manual_seed(0), tasks=3)
    x = torch.cat([episode.support_x, episode.query_x], 1)
    indices = torch.arange(x[..., 0].numel()).view(3, -1)
    lookup = Network(PrecomputedFeatures(network.backbone(x.flatten(0, 1))), network.head)
    by_index = dataclasses.replace(episode, support_x=indices[:, :9], query_x=indices[:, 9:])
    torch.testing.assert_close(
        algorithm.predict(lookup.eval(), by_index), algorithm.predict(network.eval(), episode)
    )


@each_algorithm
def test_the_same_seed_gives_the_same_weights_and_predictions(algorithm: Algorithm) -> None:
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        problem, network = toy(algorithm)
        train(algorithm, network, problem, steps=3)
        episode = problem.episode(0, torch.Generator().manual_seed(9), tasks=2)
        results.append([*network.parameters(), algorithm.predict(network.eval(), episode)])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@each_algorithm
def test_it_learns_a_toy_problem(algorithm: Algorithm) -> None:
    """New tasks, not training tasks: the features must be without noise."""
    torch.manual_seed(1)
    options, steps = QUICK.get(type(algorithm).__name__, ({}, 30))
    if getattr(algorithm, "optimizer", None) == "adam":  # whose steps have a length of their own
        options = {}
    algorithm = dataclasses.replace(algorithm, **options)
    problem, network = toy(algorithm)
    before = score(algorithm, network, problem)
    train(algorithm, network, problem, steps)
    after = score(algorithm, network, problem)
    assert after > 0.85 and after > before

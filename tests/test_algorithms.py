"""What every algorithm in the two packages promises, and each of them against a slow reference."""

import dataclasses
import importlib
import inspect
import pkgutil
from types import ModuleType

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining import metatraining, pretraining
from omnitraining.backbones import MLP
from omnitraining.batches import Episode
from omnitraining.metatraining import MAML, MetaTraining, ProtoNet
from omnitraining.network import KnownFeatures, Network
from omnitraining.pretraining import Baseline, L2Regression, LogisticHead, PreTraining, SGDHead
from tests.reference import equations, maml
from tests.reference.toy import INPUTS, Toy

pytestmark = pytest.mark.usefixtures("float64")
Algorithm = PreTraining | MetaTraining


def found_in(package: ModuleType, base: type) -> list[type]:
    """Every algorithm of a package: a new file is tested without a word here."""
    classes = set()
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        members = inspect.getmembers(importlib.import_module(module.name), inspect.isclass)
        classes |= {c for _, c in members if issubclass(c, base) and not inspect.isabstract(c)}
    return sorted(classes, key=lambda c: c.__name__)


# Options besides the default ones under which a promise must hold as well.
MORE = [
    ProtoNet(metric="euclidean", scale=1.0),
    MAML(task="regression"),
    MAML(steps=3, lr=0.1, second_order=False),
]
PRE = [c() for c in found_in(pretraining, PreTraining)]
META = [c() for c in found_in(metatraining, MetaTraining)] + MORE
each_algorithm = pytest.mark.parametrize("algorithm", PRE + META, ids=repr)


def test_the_packages_hold_the_algorithms_that_we_know_of() -> None:
    names = {type(algorithm).__name__ for algorithm in PRE + META}
    assert names >= {"Baseline", "L2Regression", "MAML", "ProtoNet"}


def regresses(algorithm: Algorithm) -> bool:
    """Whether the loss takes values, not class indices, as targets."""
    try:
        return bool(algorithm.loss(torch.ones(1, 3), torch.ones(1, 3)) == 0)
    except (RuntimeError, ValueError):
        return False


def toy(algorithm: Algorithm) -> tuple[Toy, Network]:
    problem = Toy(regresses(algorithm))
    pre = isinstance(algorithm, PreTraining)
    outputs = problem.pre_outputs if pre else problem.meta_outputs
    return problem, Network(MLP(INPUTS, (16, 8)), algorithm.head(8, outputs))


def training_loss(algorithm: Algorithm, network: Network, problem: Toy, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    if isinstance(algorithm, PreTraining):
        batch = problem.minibatch(0, random)
        return algorithm.loss(network(batch.x), batch.y)
    episode = problem.episode(0, random)
    return algorithm.loss(algorithm.predict(network, episode), episode.query_y)


def train(algorithm: Algorithm, network: Network, problem: Toy, steps: int) -> None:
    optimiser = torch.optim.Adam(network.parameters(), 0.01)
    for step in range(steps):
        optimiser.zero_grad()
        training_loss(algorithm, network, problem, seed=step).backward()
        optimiser.step()


def score(algorithm: Algorithm, network: Network, problem: Toy) -> Tensor:
    """Accuracy on new tasks, or the share of the targets' variance that is explained."""
    episode = problem.episode(0, torch.Generator().manual_seed(1000), tasks=20)
    with torch.no_grad():
        outputs = algorithm.predict(network, episode)
    if not problem.regression:
        return (outputs.argmax(-1) == episode.query_y).double().mean()
    return 1 - (outputs - episode.query_y).square().mean() / episode.query_y.square().mean()


# --- promises of every algorithm ---


@each_algorithm
def test_predictions_have_a_row_of_outputs_per_query(algorithm: Algorithm) -> None:
    problem, network = toy(algorithm)
    episode = problem.episode(0, torch.Generator().manual_seed(0), tasks=5)
    outputs = algorithm.predict(network, episode)
    assert outputs.shape == (5, 12, problem.meta_outputs)


@each_algorithm
def test_gradients_reach_every_parameter(algorithm: Algorithm) -> None:
    problem, network = toy(algorithm)
    training_loss(algorithm, network, problem, seed=0).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@each_algorithm
def test_the_loss_is_a_mean_over_samples(algorithm: Algorithm) -> None:
    outputs = torch.randn(2, 6, 3)
    targets = torch.randn(2, 6, 3) if regresses(algorithm) else torch.randint(3, (2, 6))
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
    first, second = (algorithm.predict(network, e) for e in (episode, shuffled))
    torch.testing.assert_close(first, second, rtol=1e-10, atol=1e-10)


@each_algorithm
def test_renaming_the_classes_renames_the_outputs(algorithm: Algorithm) -> None:
    """The rows of a head that the algorithm starts from are renamed along."""
    problem, network = toy(algorithm)
    episode = problem.episode(0, torch.Generator().manual_seed(0), tasks=3)
    new = torch.arange(problem.meta_outputs).roll(1)
    before = algorithm.predict(network, episode)
    if problem.regression:
        renamed = dataclasses.replace(episode, support_y=episode.support_y[..., new])
    else:
        renamed = dataclasses.replace(episode, support_y=new.argsort()[episode.support_y])
    if isinstance(network.head, nn.Linear) and len(network.head.bias) == len(new):
        network.head.weight.data = network.head.weight.data[new]
        network.head.bias.data = network.head.bias.data[new]
    after = algorithm.predict(network, renamed)
    torch.testing.assert_close(after, before[..., new], rtol=1e-10, atol=1e-10)
    assert not torch.allclose(after, before)


@each_algorithm
def test_tasks_are_judged_each_by_itself(algorithm: Algorithm) -> None:
    problem, network = toy(algorithm)
    episode = problem.episode(0, torch.Generator().manual_seed(0), tasks=4)
    parts = [getattr(episode, name)[2:3] for name in ("support_x", "support_y", "query_x")]
    alone = Episode(*parts, episode.query_y[2:3], episode.ways)
    torch.testing.assert_close(
        algorithm.predict(network, episode)[2:3], algorithm.predict(network, alone)
    )


@pytest.mark.parametrize("algorithm", [a for a in PRE + META if a.needs_only_features], ids=repr)
def test_known_features_predict_what_inputs_predict(algorithm: Algorithm) -> None:
    problem, network = toy(algorithm)
    episode = problem.episode(0, torch.Generator().manual_seed(0), tasks=3)
    x = torch.cat([episode.support_x, episode.query_x], 1)
    indices = torch.arange(x[..., 0].numel()).view(3, -1)
    lookup = Network(KnownFeatures(network.backbone(x.flatten(0, 1))), network.head)
    by_index = dataclasses.replace(episode, support_x=indices[:, :9], query_x=indices[:, 9:])
    torch.testing.assert_close(
        algorithm.predict(lookup, by_index), algorithm.predict(network, episode)
    )


@each_algorithm
def test_the_same_seed_gives_the_same_weights_and_predictions(algorithm: Algorithm) -> None:
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        problem, network = toy(algorithm)
        train(algorithm, network, problem, steps=3)
        episode = problem.episode(0, torch.Generator().manual_seed(9), tasks=2)
        results.append([*network.parameters(), algorithm.predict(network, episode)])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@each_algorithm
def test_it_learns_a_toy_problem(algorithm: Algorithm) -> None:
    """New tasks, not those of training: noise must have been left out of the features."""
    torch.manual_seed(1)
    if isinstance(algorithm, MAML | L2Regression):
        algorithm = dataclasses.replace(algorithm, steps=3, lr=0.3)
    problem, network = toy(algorithm)
    before = score(algorithm, network, problem)
    train(algorithm, network, problem, steps=200)
    after = score(algorithm, network, problem)
    assert after > 0.85 and after > before


# --- each algorithm against its reference ---


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_protonet_equals_the_loop_over_classes_and_queries(metric: str, scale: float) -> None:
    problem, network = toy(ProtoNet())
    episode = problem.episode(0, torch.Generator().manual_seed(0), tasks=3)
    outputs = ProtoNet(metric, scale).predict(network, episode)
    for t in range(3):
        expected = equations.prototype_logits(
            network(episode.support_x[t]), episode.support_y[t], network(episode.query_x[t]),
            3, metric, scale,
        )  # fmt: skip
        torch.testing.assert_close(outputs[t], expected, rtol=1e-10, atol=1e-10)


def test_prototypes_are_means_where_classes_differ_in_size() -> None:
    x, labels = torch.randn(1, 6, 4), torch.tensor([[2, 0, 0, 1, 0, 2]])
    network, query = Network(nn.Identity(), nn.Identity()), torch.randn(1, 2, 4)
    outputs = ProtoNet("euclidean", 1.0).predict(network, Episode(x, labels, query, labels, 3))
    expected = equations.prototype_logits(x[0], labels[0], query[0], 3, "euclidean", 1.0)
    torch.testing.assert_close(outputs[0], expected)


def test_protonet_normalises_support_and_query_in_one_batch() -> None:
    problem, _ = toy(ProtoNet())
    network = Network(nn.BatchNorm1d(INPUTS), nn.Identity()).train()
    episode = problem.episode(0, torch.Generator().manual_seed(0))
    ProtoNet().predict(network, episode)
    x = torch.cat([episode.support_x[0], episode.query_x[0]])
    torch.testing.assert_close(network.backbone.running_mean, 0.1 * x.mean(0))


@pytest.mark.parametrize("second_order", [True, False])
@pytest.mark.parametrize("steps", [1, 3])
def test_maml_adapts_as_its_options_say(steps: int, second_order: bool) -> None:
    problem, network = Toy(regression=False), Network(MLP(INPUTS, (8,)), nn.Linear(8, 3))
    algorithm = MAML(steps, 0.2, second_order)
    slopes = []
    for by_hand in (False, True):
        episode = problem.episode(0, torch.Generator().manual_seed(0))
        weights, support = [*network.parameters()], (episode.support_x[0], episode.support_y[0])
        if by_hand:
            outputs = maml.adapted(weights, support, episode.query_x[0], steps, 0.2, second_order)
        else:
            outputs = algorithm.predict(network, episode)[0]
        slopes += torch.autograd.grad(algorithm.loss(outputs, episode.query_y[0]), weights)
    for found, expected in zip(slopes[:4], slopes[4:], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_l2_regression_fine_tunes_as_its_options_say() -> None:
    problem, network = Toy(regression=True), Network(MLP(INPUTS, (8,)), nn.Linear(8, 2))
    episode = problem.episode(0, torch.Generator().manual_seed(0))
    outputs = L2Regression(steps=3, lr=0.2).predict(network, episode)[0]
    support = episode.support_x[0], episode.support_y[0]
    expected = maml.adapted([*network.parameters()], support, episode.query_x[0], 3, 0.2)
    torch.testing.assert_close(outputs, expected, rtol=1e-10, atol=1e-10)


def test_baseline_trains_a_softmax_classifier_with_a_zero_bias() -> None:
    head = Baseline().head(8, 5)
    assert isinstance(head, nn.Linear) and head.weight.shape == (5, 8) and not head.bias.any()
    outputs, labels = torch.randn(7, 5), torch.randint(5, (7,))
    expected = equations.cross_entropy(outputs, labels)
    assert Baseline().loss(outputs, labels).item() == pytest.approx(expected, rel=1e-12)


def features(tasks: int, ways: int = 3, shots: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Overlapping classes, so that a fit has something to weigh."""
    centres = torch.randn(tasks, ways, 6)
    labels = torch.arange(ways).repeat_interleave(shots).expand(tasks, -1)
    support = centres.repeat_interleave(shots, 1) + torch.randn(tasks, ways * shots, 6)
    return support, labels, torch.randn(tasks, 5, 6)


@pytest.mark.parametrize("penalty", [0.001, 0.01, 0.3])
def test_the_logistic_head_solves_scikit_learn_s_problem(penalty: float) -> None:
    """Scikit-learn minimises C * sum of cross-entropies + ||W||^2 / 2: C = 1 / (n * penalty)."""
    support, labels, query = features(2)
    head = LogisticHead(penalty, iterations=2000)
    logits = head.logits(support, labels, query, 3)
    for t in range(2):
        x, q = F.normalize(support[t], dim=-1), F.normalize(query[t], dim=-1)
        c = 1 / (len(x) * penalty)
        peer = LogisticRegression(C=c, fit_intercept=False, tol=1e-12, max_iter=10_000)
        peer.fit(x.numpy(), labels[t].numpy())
        expected = torch.from_numpy(peer.decision_function(q.numpy()))
        torch.testing.assert_close(logits[t], expected, rtol=1e-4, atol=1e-4)


def objective_gradient(weight: Tensor, support: Tensor, labels: Tensor, penalty: float) -> Tensor:
    weight = weight.clone().requires_grad_()
    logits = F.normalize(support, dim=-1) @ weight
    losses = F.cross_entropy(logits.mT, labels, reduction="none").mean(1)
    objective = losses.sum() + penalty / 2 * weight.square().sum()
    return torch.autograd.grad(objective, weight)[0]


@pytest.mark.parametrize(("penalty", "close"), [(0.001, 1e-3), (0.01, 1e-4), (0.1, 1e-9)])
def test_the_logistic_head_converges_in_its_default_number_of_iterations(
    penalty: float, close: float
) -> None:
    support, labels, _ = features(20, shots=1)
    unit = torch.eye(6).expand(20, -1, -1)  # unit queries: their logits are the weights
    weight = LogisticHead(penalty).logits(support, labels, unit, 3)
    slope = objective_gradient(weight, support, labels, penalty)
    assert slope.flatten(1).norm(dim=1).max() < close
    assert objective_gradient(0 * weight, support, labels, penalty).norm() > 0.1


def test_600_logistic_heads_at_once_are_the_heads_one_by_one() -> None:
    support, labels, query = features(600)
    head = LogisticHead()
    together = head.logits(support, labels, query, 3)
    for t in range(0, 600, 50):
        part = slice(t, t + 1)
        alone = head.logits(support[part], labels[part], query[part], 3)
        torch.testing.assert_close(together[part], alone, rtol=1e-10, atol=1e-10)


def test_the_logistic_head_does_not_see_the_length_of_features() -> None:
    support, labels, query = features(2)
    stretched = support * torch.rand(2, 12, 1) * 9
    first, second = (LogisticHead().logits(s, labels, query, 3) for s in (support, stretched))
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("tasks", [1, 3])
def test_the_sgd_head_is_torch_s_sgd_on_a_linear_layer(tasks: int) -> None:
    """Momentum and dampening 0.9 (Chen et al. 2019), same initial weights and order."""
    support, labels, query = features(tasks)
    head = SGDHead(lr=0.1, weight_decay=0.01, batch=5, passes=7, seed=4)
    logits = head.logits(support, labels, query, 3)
    random = torch.Generator().manual_seed(4)
    start = (torch.rand(tasks, 7, 3, generator=random) * 2 - 1) * 6**-0.5
    orders = [torch.rand(tasks, 12, generator=random).argsort(1) for _ in range(7)]
    for t in range(tasks):
        layer = nn.Linear(6, 3)
        layer.weight.data, layer.bias.data = start[t, :6].T.clone(), start[t, 6].clone()
        optimiser = torch.optim.SGD(
            layer.parameters(), lr=0.1, momentum=0.9, dampening=0.9, weight_decay=0.01
        )
        for order in orders:
            for chosen in order[t].split(5):
                optimiser.zero_grad()
                F.cross_entropy(layer(support[t, chosen]), labels[t, chosen]).backward()
                optimiser.step()
        torch.testing.assert_close(logits[t], layer(query[t]), rtol=1e-10, atol=1e-10)


def test_the_sgd_head_starts_as_a_linear_layer_of_torch_starts() -> None:
    support, labels, _ = features(400)
    query = torch.cat([torch.zeros(400, 1, 6), torch.eye(6).expand(400, -1, -1)], 1)
    start = SGDHead(passes=0).logits(support, labels, query, 3)
    bias, weight = start[:, 0], start[:, 1:] - start[:, :1]
    bound = nn.Linear(6, 3).weight.new_tensor(6**-0.5)
    for values in (bias, weight):
        assert values.abs().max() <= bound and values.abs().max() > 0.95 * bound
        assert values.std() == pytest.approx(bound.item() / 3**0.5, rel=0.05)


def test_the_sgd_head_repeats_and_takes_its_seed_to_heart() -> None:
    data = features(2)
    first, again, other = (SGDHead(passes=2, seed=s).logits(*data, 3) for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.allclose(first, other)

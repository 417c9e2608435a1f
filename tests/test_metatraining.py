"""Each meta-training algorithm against a slow reference, a closed form or another library."""

import copy
import dataclasses
import importlib
import warnings

import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Ridge
from sklearn.svm import LinearSVC
from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining.backbones import MLP
from omnitraining.batches import Episode
from omnitraining.errors import InputError
from omnitraining.metatraining import (
    GNN,
    MAML,
    MatchingNet,
    MetaOptNet,
    MetaTraining,
    ProtoNet,
    RelationNet,
)
from omnitraining.network import Network
from tests.reference import equations, gnn, maml, matchingnet, relationnet
from tests.reference.toy import INPUTS, Toy

pytestmark = pytest.mark.usefixtures("float64")
CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def task(seed: int = 0, tasks: int = 1) -> Episode:
    """Three classes, three shots, four queries each."""
    return Toy(regression=False).episode(0, torch.Generator().manual_seed(seed), tasks)


def features(
    tasks: int = 1, size: int = 6, ways: int = 3, shots: int = 3, queries: int = 2
) -> Episode:
    """Features of overlapping classes, so that a fit has something to weigh."""
    centers = torch.randn(tasks, ways, size)
    parts = []
    for count in (shots, queries):
        labels = torch.arange(ways).repeat_interleave(count).expand(tasks, -1)
        noise = torch.randn(tasks, ways * count, size)
        parts += [centers.repeat_interleave(count, 1) + noise, labels]
    return Episode(*parts, ways)


def shuffled(episode: Episode) -> Episode:
    """The same tasks with their support samples in another order."""
    order = torch.randperm(episode.support_x.shape[1])
    return dataclasses.replace(
        episode, support_x=episode.support_x[:, order], support_y=episode.support_y[:, order]
    )


def on_features(algorithm: MetaTraining, size: int = 6, ways: int = 3) -> Network:
    return Network(nn.Identity(), algorithm.head(size, ways))


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# --- ProtoNet ---


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "distance"])
@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_protonet_equals_the_loop_over_classes_and_queries(metric: str, scale: float) -> None:
    episode, network = task(tasks=3), Network(MLP(INPUTS, (16, 8)), nn.Identity())
    outputs = ProtoNet(metric, scale).predict(network, episode)
    for t in range(3):
        expected = equations.prototype_logits(
            network(episode.support_x[t]), episode.support_y[t], network(episode.query_x[t]),
            3, metric, scale,
        )  # fmt: skip
        torch.testing.assert_close(outputs[t], expected, **CLOSE)


def test_prototypes_are_means_where_classes_differ_in_size() -> None:
    x, labels = torch.randn(1, 6, 4), torch.tensor([[2, 0, 0, 1, 0, 2]])
    network, query = Network(nn.Identity(), nn.Identity()), torch.randn(1, 2, 4)
    outputs = ProtoNet("euclidean", 1.0).predict(network, Episode(x, labels, query, labels, 3))
    expected = equations.prototype_logits(x[0], labels[0], query[0], 3, "euclidean", 1.0)
    torch.testing.assert_close(outputs[0], expected)


@pytest.mark.parametrize(
    "algorithm",
    [ProtoNet(), MatchingNet(), RelationNet(channels=1), GNN(), MetaOptNet()],
    ids=lambda a: type(a).__name__,
)
def test_support_and_query_are_normalized_in_one_batch(algorithm: MetaTraining) -> None:
    backbone = nn.Sequential(nn.BatchNorm1d(INPUTS), nn.Linear(INPUTS, 16))
    episode = task()
    algorithm.predict(Network(backbone, algorithm.head(16, 3)).train(), episode)
    x = torch.cat([episode.support_x[0], episode.query_x[0]])
    torch.testing.assert_close(backbone[0].running_mean, 0.1 * x.mean(0))


# --- MatchingNet ---


@pytest.mark.parametrize(("scale", "steps"), [(100.0, None), (10.0, None), (10.0, 2)])
def test_matchingnet_equals_the_loop_over_samples_and_steps(
    scale: float, steps: int | None
) -> None:
    algorithm = MatchingNet(scale, steps)
    network, episode = on_features(algorithm), shuffled(features(3))
    outputs = algorithm.predict(network, episode)
    for t in range(3):
        expected = matchingnet.log_probabilities(
            network.head.read_support, network.head.read_query, episode.support_x[t],
            episode.support_y[t], episode.query_x[t], 3, scale, steps,
        )  # fmt: skip
        torch.testing.assert_close(outputs[t], expected, **CLOSE)


def test_matchingnet_reads_the_support_set_with_a_torch_lstm_in_its_new_order() -> None:
    network, episode = on_features(MatchingNet()), shuffled(features())
    support, labels, _ = network.head(episode)
    order = matchingnet.canonical_order(episode.support_x[0], episode.support_y[0], 3)
    plain = episode.support_x[0, order]
    read = network.head.read_support(plain)[0]
    torch.testing.assert_close(support[0], plain + read[:, :6] + read[:, 6:], **CLOSE)
    assert torch.equal(labels[0], episode.support_y[0, order])


def test_matchingnet_puts_out_logs_of_probabilities() -> None:
    network, episode = on_features(MatchingNet()), features(2)
    p = MatchingNet().predict(network, episode).exp() - 1e-6
    torch.testing.assert_close(p.sum(-1), torch.ones(2, 6))
    assert (p > -1e-12).all()


def test_matchingnet_s_head_has_as_many_weights_as_the_published_one() -> None:
    """Two directions of 4 x 512 x (512 + 512 + 2), and 4 x 512 x (1024 + 512 + 2)."""
    assert count(MatchingNet().head(512, 5)) == 7_352_320


# --- RelationNet ---


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("side", [4, 5, 7, 10])
def test_relationnet_equals_a_network_that_reads_pairs_of_maps(side: int, training: bool) -> None:
    algorithm = RelationNet(channels=3)
    episode = shuffled(features(size=3 * side**2))
    network = on_features(algorithm, 3 * side**2).train()
    algorithm.predict(network, features(size=3 * side**2))  # running statistics of their own
    reference = relationnet.plain(network.head.train(training))
    outputs = algorithm.predict(network, episode)
    pairs = relationnet.pairs(
        episode.support_x[0], episode.support_y[0], episode.query_x[0], 3, 3, side
    )
    torch.testing.assert_close(outputs[0], reference(pairs).view(-1, 3), **CLOSE)
    after = zip(network.head.buffers(), reference.buffers(), strict=True)
    for ours, theirs in after:
        torch.testing.assert_close(ours, theirs)


def test_relationnet_s_head_has_as_many_weights_as_the_published_one() -> None:
    assert count(RelationNet(channels=512).head(512 * 7 * 7, 5)) == 7_085_073


def test_relationnet_learns_by_squared_error_or_by_cross_entropy() -> None:
    outputs, labels = torch.randn(7, 3), torch.randint(3, (7,))
    total = 0.0
    for row, label in zip(outputs.tolist(), labels.tolist(), strict=True):
        for n, value in enumerate(row):
            total += (torch.tensor(value).sigmoid().item() - (n == label)) ** 2
    assert RelationNet().loss(outputs, labels).item() == pytest.approx(total / 21, rel=1e-12)
    softmax = RelationNet(target="softmax").loss(outputs, labels).item()
    assert softmax == pytest.approx(equations.cross_entropy(outputs, labels), rel=1e-12)


@pytest.mark.parametrize("size", [512, 64 * 9, 64 * 16 + 1, 64 * 20])
def test_relationnet_refuses_features_that_are_no_maps(size: int) -> None:
    with pytest.raises(InputError, match=rf"channels is 64.*{size} features.*4x4 or more"):
        RelationNet().head(size, 5)


# --- GNN ---


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("form", ["transductive", "inductive"])
def test_the_gnn_equals_a_network_over_all_pairs_of_nodes(form: str, training: bool) -> None:
    algorithm = GNN(embedding=5, width=4, form=form)
    network = on_features(algorithm).train()
    algorithm.predict(network, features())  # running statistics of their own
    network.train(training)
    slow = copy.deepcopy(network.head)
    episode = shuffled(features())
    outputs = algorithm.predict(network, episode)
    expected = gnn.logits(slow, episode.support_x[0], episode.support_y[0], episode.query_x[0])
    torch.testing.assert_close(outputs[0], expected, **CLOSE)
    for name, buffer in slow.named_buffers():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(network.head.get_buffer(name), buffer, **CLOSE)
    found, wanted = (
        torch.autograd.grad(logits.square().sum(), list(head.parameters()), materialize_grads=True)
        for logits, head in ((outputs, network.head), (expected, slow))
    )
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


def test_the_gnn_has_the_sizes_of_the_published_one() -> None:
    head = GNN().head(512, 5)
    assert [a.layers[0].in_features for a in head.adjacencies] == [133, 181, 229]
    assert [layer.linear.in_features for layer in (*head.layers, head.last)] == [266, 362, 458]
    assert count(head.embed) + count(head.norm) == 65_920
    assert count(head) == 401_914
    assert count(GNN(form="inductive").head(512, 5)) == 401_914


def moved_by_the_last_query(form: str, training: bool) -> Tensor:
    """How far the logits of each query move when the last query changes."""
    algorithm = GNN(embedding=5, width=4, form=form)
    network, episode = on_features(algorithm).train(training), features()
    query = episode.query_x.clone()
    query[0, -1] += 1
    other = dataclasses.replace(episode, query_x=query)
    first, second = (algorithm.predict(network, e) for e in (episode, other))
    return (first - second).abs().amax(-1)[0]


def test_queries_of_a_transductive_gnn_are_classified_together() -> None:
    assert (moved_by_the_last_query("transductive", training=False) > 1e-6).all()


def test_queries_of_an_inductive_gnn_are_classified_one_by_one() -> None:
    moved = moved_by_the_last_query("inductive", training=False)
    assert (moved[:-1] < 1e-12).all() and moved[-1] > 1e-6
    assert (moved_by_the_last_query("inductive", training=True) > 1e-9).all()  # batch statistics


@pytest.mark.parametrize("form", ["transductive", "inductive"])
def test_a_gnn_takes_any_number_of_shots_but_not_of_ways(form: str) -> None:
    algorithm = GNN(embedding=5, width=4, form=form)
    network = on_features(algorithm).eval()
    for shots in (1, 4):
        assert algorithm.predict(network, features(shots=shots)).shape == (1, 6, 3)
    with pytest.raises(InputError, match=r"made for 3 ways.*task has 4"):
        algorithm.predict(network, features(ways=4))


def test_a_transductive_gnn_needs_equally_many_queries_of_each_class() -> None:
    episode = features()
    uneven = dataclasses.replace(
        episode, query_x=episode.query_x[:, :5], query_y=episode.query_y[:, :5]
    )
    with pytest.raises(InputError, match="5 queries cannot be of 3 classes"):
        GNN().predict(on_features(GNN()), uneven)
    inductive = GNN(form="inductive")
    assert inductive.predict(on_features(inductive).eval(), uneven).shape == (1, 5, 3)


@pytest.mark.parametrize(
    ("algorithm", "limit"),
    [
        (MatchingNet(), "TASKS_AT_ONCE"),
        (RelationNet(channels=1), "PAIRS_AT_ONCE"),
        (GNN(embedding=5, width=4), "GRAPHS_AT_ONCE"),
        (GNN(embedding=5, width=4, form="inductive"), "GRAPHS_AT_ONCE"),
    ],
    ids=lambda value: repr(value) if isinstance(value, MetaTraining) else "",
)
@pytest.mark.parametrize("size", [1, 40])
def test_tasks_in_parts_are_predicted_as_tasks_at_once(
    algorithm: MetaTraining, limit: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, episode = on_features(algorithm, 16).eval(), features(5, 16)
    monkeypatch.setattr(importlib.import_module(type(algorithm).__module__), limit, 10**6)
    at_once = algorithm.predict(network, episode)
    monkeypatch.setattr(importlib.import_module(type(algorithm).__module__), limit, size)
    torch.testing.assert_close(algorithm.predict(network, episode), at_once, **CLOSE)


# --- MetaOptNet ---

FEW, MANY = {"size": 20, "shots": 3}, {"size": 4, "shots": 5}  # more features, more samples


@pytest.mark.parametrize("shape", [FEW, MANY], ids=["more features", "more samples"])
@pytest.mark.parametrize("penalty", [0.1, 50.0])
def test_the_ridge_head_is_scikit_learn_s(penalty: float, shape: dict[str, int]) -> None:
    episode, algorithm = features(2, **shape), MetaOptNet("ridge", penalty)
    outputs = algorithm.predict(on_features(algorithm), episode)
    for t in range(2):
        peer = Ridge(alpha=penalty, fit_intercept=False)
        peer.fit(episode.support_x[t].numpy(), F.one_hot(episode.support_y[t]).numpy())
        expected = torch.from_numpy(peer.predict(episode.query_x[t].numpy()))
        torch.testing.assert_close(outputs[t], expected, **CLOSE)


@pytest.mark.parametrize("shape", [FEW, MANY], ids=["more features", "more samples"])
def test_a_mean_of_squared_errors_is_r2_d2_s_ridge(shape: dict[str, int]) -> None:
    """Whose features and one-hot labels are divided by the root of the number of samples."""
    episode, algorithm = features(2, **shape), MetaOptNet("ridge", 2.0, reduction="mean")
    outputs = algorithm.predict(on_features(algorithm), episode)
    for t in range(2):
        root = episode.support_x.shape[1] ** 0.5
        x, y = episode.support_x[t] / root, F.one_hot(episode.support_y[t]) / root
        weight = torch.linalg.inv(x.mT @ x + 2.0 * torch.eye(x.shape[1])) @ x.mT @ y
        torch.testing.assert_close(outputs[t], episode.query_x[t] @ weight, **CLOSE)


@pytest.mark.parametrize("shape", [FEW, MANY], ids=["more features", "more samples"])
@pytest.mark.parametrize("cost", [0.01, 0.1, 1.0])
def test_the_svm_head_is_scikit_learn_s(cost: float, shape: dict[str, int]) -> None:
    episode, algorithm = features(2, **shape), MetaOptNet("svm", cost=cost)
    outputs = algorithm.predict(on_features(algorithm), episode)
    for t in range(2):
        peer = LinearSVC(
            C=cost, multi_class="crammer_singer", fit_intercept=False, tol=1e-9, max_iter=10**6
        )
        with warnings.catch_warnings():  # newer versions announce that this SVM will go
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("error", ConvergenceWarning)
            peer.fit(episode.support_x[t].numpy(), episode.support_y[t].numpy())
        expected = torch.from_numpy(peer.decision_function(episode.query_x[t].numpy()))
        torch.testing.assert_close(outputs[t], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [FEW, MANY], ids=["more features", "more samples"])
@pytest.mark.parametrize(
    "algorithm",
    [MetaOptNet("ridge", 0.5), MetaOptNet(cost=0.1), MetaOptNet(cost=1.0, normalize=True)],
    ids=repr,
)
def test_the_gradient_of_a_fit_is_that_of_its_finite_differences(
    algorithm: MetaOptNet, shape: dict[str, int]
) -> None:
    episode, network = features(**shape), on_features(algorithm)

    def logits(support: Tensor, query: Tensor) -> Tensor:
        return algorithm.predict(
            network, dataclasses.replace(episode, support_x=support, query_x=query)
        )

    inputs = episode.support_x.requires_grad_(), episode.query_x.requires_grad_()
    assert torch.autograd.gradcheck(logits, inputs, fast_mode=True)


def test_metaoptnet_fits_features_of_length_one_if_asked() -> None:
    episode = features()
    stretched = dataclasses.replace(episode, support_x=episode.support_x * torch.rand(1, 9, 1))
    for normalize in (True, False):
        algorithm = MetaOptNet(normalize=normalize)
        first, second = (algorithm.predict(on_features(algorithm), e) for e in (episode, stretched))
        assert torch.allclose(first, second) == normalize


def test_metaoptnet_s_scale_multiplies_the_logits() -> None:
    episode, algorithm = features(), MetaOptNet(scale=7.0)
    plain = MetaOptNet().predict(on_features(MetaOptNet()), episode)
    torch.testing.assert_close(algorithm.predict(on_features(algorithm), episode), 7 * plain)


# --- MAML ---


@pytest.mark.parametrize("second_order", [True, False])
@pytest.mark.parametrize("steps", [1, 3])
def test_maml_adapts_as_its_options_specify(steps: int, second_order: bool) -> None:
    network, algorithm = (
        Network(MLP(INPUTS, (8,)), nn.Linear(8, 3)), MAML(steps, 0.2, second_order),
    )  # fmt: skip
    slopes = []
    for by_hand in (False, True):
        episode = task()
        weights, support = [*network.parameters()], (episode.support_x[0], episode.support_y[0])
        if by_hand:
            outputs = maml.adapted(weights, support, episode.query_x[0], steps, 0.2, second_order)
        else:
            outputs = algorithm.predict(network, episode)[0]
        slopes += torch.autograd.grad(algorithm.loss(outputs, episode.query_y[0]), weights)
    for found, expected in zip(slopes[:4], slopes[4:], strict=True):
        torch.testing.assert_close(found, expected, **CLOSE)

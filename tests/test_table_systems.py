"""Systems of the paper's Table 2 against slow references: outputs and gradients."""

import copy
from collections.abc import Iterable

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining.adaptation.modulation import (
    Modulation,
    modulated,
    modulated_copy,
    modulated_norms,
)
from omnitraining.backbones import MLP, ResNet10
from omnitraining.batches import Episode, MiniBatch
from omnitraining.errors import InputError
from omnitraining.metatraining import CAN, LEO, TADAM, MultiTask, ProtoNet, TapNet
from omnitraining.metatraining.base import MetaTraining
from omnitraining.network import Network
from tests.reference import can, leo, tadam, tapnet
from tests.reference.toy import INPUTS, Toy

pytestmark = pytest.mark.usefixtures("float64")
CLOSE = {"rtol": 1e-10, "atol": 1e-10}
NOTHING = MiniBatch(torch.empty(0), torch.empty(0))
CLASSES = Toy(regression=False).pre_outputs


def task(tasks: int = 1) -> Episode:
    """Three classes, three shots, four queries each; classes are not in order."""
    return Toy(regression=False).episode(0, torch.Generator().manual_seed(0), tasks)


def network_for(algorithm: MetaTraining, features: int = 8, ways: int = 3) -> Network:
    backbone = MLP(INPUTS, (features,))
    return Network(backbone, algorithm.head_for(backbone, features, ways, CLASSES))


def assert_same(
    found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], network: nn.Module
) -> None:
    """Outputs, losses, and the gradients of the losses."""
    torch.testing.assert_close(found, expected, **CLOSE)
    weights = [*network.parameters()]
    ours, theirs = (
        torch.autograd.grad(loss, weights, materialize_grads=True) for _, loss in (found, expected)
    )
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, **CLOSE)


def parts(network: Network, episode: Episode) -> Iterable[tuple[Tensor, Tensor, Tensor]]:
    """Support features, labels and query features of every task."""
    for t in range(len(episode.support_x)):
        support, query = (
            network.backbone(episode.support_x[t]),
            network.backbone(episode.query_x[t]),
        )
        yield support, episode.support_y[t], query


# --- TapNet ---


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_tapnet_projects_onto_the_null_space_of_a_singular_value_decomposition(
    scale: float,
) -> None:
    algorithm, episode = TapNet(scale), task(3)
    network = network_for(algorithm)
    vectors = network.head.vectors
    rows = [tapnet.logits(vectors, *part, scale) for part in parts(network, episode)]
    outputs = torch.stack(rows)
    found = algorithm.outputs_and_loss(network, episode, NOTHING)
    assert_same(found, (outputs, F.cross_entropy(outputs.mT, episode.query_y)), network)


def test_a_new_task_of_tapnet_is_given_the_nearest_references() -> None:
    algorithm, episode = TapNet(), task(3)
    network = network_for(algorithm, ways=5)
    found = algorithm.predict(network, episode)
    for t, (support, labels, query) in enumerate(parts(network, episode)):
        prototypes = torch.stack([support[labels == n].mean(0) for n in range(3)])
        chosen = tapnet.matched(network.head.vectors, prototypes)
        expected = tapnet.logits(network.head.vectors[chosen], support, labels, query, 1.0)
        torch.testing.assert_close(found[t], expected, **CLOSE)


def test_references_are_matched_by_distance_each_to_one_class() -> None:
    head = TapNet().head(4, 3)
    head.vectors.data = torch.tensor([[0.0, 0, 0, 0], [1, 0, 0, 0], [5, 0, 0, 0]])
    # Both are nearest to reference 0, the second one by less.
    prototypes = torch.tensor([[[0.3, 0, 0, 0], [0.1, 0, 0, 0]]])
    assert head.match(prototypes).tolist() == [[1, 0]]


def test_tapnet_refuses_more_ways_than_references_and_too_few_features() -> None:
    head = TapNet().head(8, 3)
    labels = torch.arange(4)[None]
    with pytest.raises(InputError, match="made for up to 3 ways, and the task has 4"):
        TapNet().fit(head, torch.randn(1, 4, 8), labels, 4)
    with pytest.raises(InputError, match=r"as there are features, 3, more than ways, 3"):
        TapNet().head(3, 3)


# --- Multi-Task ---


def test_multi_task_trains_one_vector_per_class_on_whole_tasks() -> None:
    """As the authors' code: labels of training are renamed, and both sets are the data."""
    algorithm, episode = MultiTask(), task(3)
    network = network_for(algorithm)
    weight, losses, rows = network.head.weight, [], []
    for t, (support, labels, query) in enumerate(parts(network, episode)):
        names = episode.classes[t].tolist()
        samples = [*zip(support, labels.tolist(), strict=True)]
        queries = [*zip(query, episode.query_y[t].tolist(), strict=True)]
        for x, label in samples + queries:
            logits = torch.stack([x @ weight[name] for name in names])
            losses.append(torch.logsumexp(logits, 0) - logits[label])
        rows.append(torch.stack([torch.stack([x @ weight[n] for n in names]) for x, _ in queries]))
    found = algorithm.outputs_and_loss(network, episode, NOTHING)
    assert_same(found, (torch.stack(rows), sum(losses) / len(losses)), network)


def test_weights_of_multi_task_start_in_the_size_of_one_task_s() -> None:
    torch.manual_seed(0)
    head = MultiTask().head_for(nn.Identity(), 100, 5, 80)
    assert head.weight.shape == (80, 100) and head.bias is None
    assert head.weight.abs().max().item() == pytest.approx(0.1 * 4, rel=0.01)


def test_a_new_task_of_multi_task_is_fitted_by_scikit_learn_s_regression() -> None:
    episode = task()
    network = network_for(MultiTask())
    found = MultiTask().predict(network, episode)[0]
    ((support, labels, query),) = parts(network, episode)
    peer = LogisticRegression(C=3.0, fit_intercept=False, tol=1e-12, max_iter=10_000)
    peer.fit(F.normalize(support, dim=-1).detach().numpy(), labels.numpy())
    expected = peer.decision_function(F.normalize(query, dim=-1).detach().numpy())
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-3, atol=1e-3)


def test_multi_task_needs_the_classes_of_training() -> None:
    episode = task()
    unknown = Episode(
        episode.support_x, episode.support_y, episode.query_x, episode.query_y, episode.ways
    )
    with pytest.raises(InputError, match=r"Episode\.classes"):
        MultiTask().outputs_and_loss(network_for(MultiTask()), unknown, NOTHING)


# --- CAN ---


@pytest.mark.parametrize("training", [True, False])
def test_can_equals_the_network_that_computes_every_correlation(training: bool) -> None:
    algorithm, episode = CAN(channels=3, scale=5.0, temperature=0.3, weight=0.7), task()
    network = network_for(algorithm, 3 * 12)
    algorithm.outputs_and_loss(network.train(), episode, NOTHING)  # running statistics
    network.train(training)
    slow = copy.deepcopy(network.head)
    support, labels, query = (
        network.backbone(episode.support_x[0]), episode.support_y[0],
        network.backbone(episode.query_x[0]),
    )  # fmt: skip
    means = torch.stack([support[labels == n].mean(0) for n in range(3)]).view(3, 3, 12)
    maps = can.attended(slow, means, query.view(-1, 3, 12))
    outputs = can.logits(maps, 3, 5.0)[None]
    near, among_all = can.losses(
        maps, episode.query_y[0].tolist(), episode.classes[0].tolist(), 5.0,
        network.head.classifier, 3,
    )  # fmt: skip
    loss = 0.7 * torch.stack(near).mean() + torch.stack(among_all).mean()
    found = algorithm.outputs_and_loss(network, episode, NOTHING)
    torch.testing.assert_close(found, (outputs, loss), **CLOSE)
    for name, buffer in slow.named_buffers():
        torch.testing.assert_close(network.head.get_buffer(name), buffer, **CLOSE)
    slopes = torch.autograd.grad(found[1], [*network.head.parameters()])
    own = [*slow.fusion.parameters(), *network.head.classifier.parameters()]
    for one, other in zip(slopes, torch.autograd.grad(loss, own), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)
    if not training:
        torch.testing.assert_close(algorithm.predict(network, episode), outputs, **CLOSE)


def test_can_s_attention_adds_up_to_one_more_than_positions() -> None:
    head = CAN(channels=3).head(36, 5).eval()
    attended = head(torch.rand(2, 5, 3, 12), torch.rand(2, 4, 3, 12))
    assert attended.classes.shape == (2, 4, 5, 3) and attended.queries.shape == (2, 4, 5, 12)
    torch.testing.assert_close(attended.queries.sum(-1), torch.full((2, 4, 5), 13.0))


@pytest.mark.parametrize("size", [1, 40])
def test_tasks_of_can_in_parts_are_predicted_as_tasks_at_once(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    algorithm, episode = CAN(channels=2), task(3)
    network = network_for(algorithm, 16).eval()
    at_once = algorithm.predict(network, episode)
    monkeypatch.setattr("omnitraining.metatraining.can.PAIRS_AT_ONCE", size)
    torch.testing.assert_close(algorithm.predict(network, episode), at_once, **CLOSE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 0}, r"channels is 0: it must be 1 or more"),
        ({"reduction": 0}, r"reduction is 0: it must be 1 or more"),
        ({"temperature": 0.0}, r"temperature is 0.0: it must be greater than 0"),
        ({"channels": 7}, r"channels is 7, but the backbone gives 36 features: CAN needs"),
        ({"channels": 36}, r"channels is 36, but the backbone gives 36 features: CAN needs"),
    ],
)
def test_can_refuses_what_it_cannot_compare(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=rf"metatraining\.{message}"):
        CAN(**options).head(36, 5)


# --- TADAM ---


def with_norms(algorithm: TADAM) -> Network:
    """Two norms that are modulated and one in a shortcut, which is not."""
    backbone = tadam.Backbone(INPUTS)
    network = Network(backbone, algorithm.head_for(backbone, 8, 3, CLASSES))
    nn.init.normal_(network.head.multipliers)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    return network


def minibatch() -> MiniBatch:
    return Toy(regression=False).minibatch(0, torch.Generator().manual_seed(1))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("metric", ["distance", "cosine"])
def test_tadam_equals_a_network_with_its_modulations_written_out(
    metric: str, training: bool
) -> None:
    algorithm = TADAM(metric, scale=1.7, multiplier_decay=0.3)
    network, episode, batch = with_norms(algorithm), task(), minibatch()
    algorithm.outputs_and_loss(network.train(), episode, batch)  # running statistics
    network.train(training)
    network.head.at_step(30, 100)
    slow = copy.deepcopy(network)
    outputs = tadam.logits(
        slow, episode.support_x[0], episode.support_y[0], episode.query_x[0], 3, metric
    )
    losses = (
        F.cross_entropy(outputs, episode.query_y[0]),
        F.cross_entropy(slow.head.classifier(tadam.embed(slow.backbone, batch.x, None)), batch.y),
    )
    weight = 0.9 * 0.9**6  # at 30 % of training, six twentieths
    penalty = 0.15 * sum(m**2 for m in slow.head.multipliers.flatten())
    loss = (1 - weight) * losses[0] + weight * losses[1] + penalty
    found = algorithm.outputs_and_loss(network, episode, batch)
    torch.testing.assert_close(found, (outputs[None], loss), **CLOSE)
    for name, buffer in slow.named_buffers():
        torch.testing.assert_close(network.get_buffer(name), buffer, **CLOSE)
    ours, theirs = (
        torch.autograd.grad(value, [*net.parameters()], materialize_grads=True)
        for value, net in ((found[1], network), (loss, slow))
    )
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


def test_tadam_starts_as_protonet() -> None:
    """Post-multipliers are zero at first."""
    backbone, episode = tadam.Backbone(INPUTS).eval(), task(2)
    network = Network(backbone, TADAM("cosine", scale=3.0).head_for(backbone, 8, 3, CLASSES))
    expected = ProtoNet("cosine", 3.0).predict(Network(backbone, nn.Identity()), episode)
    torch.testing.assert_close(TADAM("cosine").predict(network, episode), expected, **CLOSE)


def test_a_network_that_tadam_has_adapted_predicts_what_tadam_predicts() -> None:
    algorithm, episode = TADAM(scale=2.0), task()
    network = with_norms(algorithm)
    algorithm.outputs_and_loss(network.train(), episode, minibatch())
    network.eval()
    adapted = algorithm.adapt(network, episode.support_x[0], episode.support_y[0])
    before = copy.deepcopy(network.state_dict())
    torch.testing.assert_close(
        adapted(episode.query_x[0]), algorithm.predict(network, episode), **CLOSE
    )
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    assert not network.backbone._modules["norm1"]._forward_hooks


def test_a_norm_without_weights_is_modulated_in_a_copy_too() -> None:
    norm = nn.BatchNorm1d(3, affine=False).eval()
    given = {"": Modulation(torch.rand(1, 3), torch.rand(1, 3))}
    x = torch.rand(4, 3)
    copied = modulated_copy(norm, given)
    torch.testing.assert_close(copied(x), modulated(norm, x, given), **CLOSE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"auxiliary": 1.0}, "auxiliary is 1.0: it must be at least 0 and less than 1"),
        ({"multiplier_decay": -1.0}, "multiplier_decay is -1.0: it must be 0 or more"),
    ],
)
def test_tadam_refuses_numbers_out_of_range(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=rf"metatraining\.{message}"):
        TADAM(**options)


def test_tadam_needs_a_backbone_and_norms_in_it() -> None:
    with pytest.raises(InputError, match=r"backbone MLP has none"):
        TADAM().head_for(MLP(INPUTS, (8,)), 8, 3, CLASSES)
    with pytest.raises(InputError, match=r"call head_for"):
        TADAM().head(8, 3)
    assert [*modulated_norms(ResNet10(channels=1))] == [
        name
        for name, module in ResNet10(channels=1).named_modules()
        if isinstance(module, nn.BatchNorm2d) and "downsample" not in name
    ]


# --- LEO ---


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("steps", "fine_steps"), [(0, 0), (3, 2)])
def test_leo_adapts_codes_as_autograd_does(steps: int, fine_steps: int, training: bool) -> None:
    algorithm, episode = (
        LEO(
            latents=3, steps=steps, lr=0.7, fine_steps=fine_steps, fine_lr=0.4, kl_weight=0.3,
            encoder_penalty=0.2, orthogonality=0.1,
        ),
        task(),
    )  # fmt: skip
    network = network_for(algorithm).train(training)
    ((support, labels, query),) = parts(network, episode)
    unit = F.normalize(support, dim=-1)
    torch.manual_seed(5)  # of dropout, codes and weights
    weight, divergence, drift = leo.classifiers(network.head, unit, labels, 3, steps, fine_steps)
    outputs = F.normalize(query, dim=-1) @ weight.T
    rows = F.normalize(network.head.decode.weight.T, dim=-1)
    correlation = (rows @ rows.T - torch.eye(3)).square().mean()
    loss = F.cross_entropy(outputs, episode.query_y[0])
    loss = loss + 0.3 * divergence + 0.2 * drift + 0.1 * correlation
    torch.manual_seed(5)
    found = algorithm.outputs_and_loss(network, episode, NOTHING)
    assert_same(found, (outputs[None], loss), network)
    if not training:
        torch.testing.assert_close(algorithm.predict(network, episode), outputs[None], **CLOSE)


def test_deviations_of_leo_at_their_least_are_constant() -> None:
    """Of weights it is exp(u) - (1 - offset): zero or below where u is far below zero."""
    algorithm, episode = LEO(latents=3, steps=2, lr=0.1, dropout=0.0), task()
    network = network_for(algorithm)
    with torch.no_grad():
        network.head.decode.weight[8:] *= 3
    spread = network.head._weights(torch.randn(1, 9, 3))[1]
    assert 0.1 < (spread <= 1e-10).double().mean() < 0.9
    ((support, labels, _),) = parts(network, episode)
    torch.manual_seed(5)
    expected = leo.classifiers(network.head, F.normalize(support, dim=-1), labels, 3, 2, 5)[0]
    torch.manual_seed(5)
    found = algorithm.fit(network.head, support[None], labels[None], 3).weight[0]
    torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latents": 0}, "latents is 0: it must be 1 or more"),
        ({"steps": -1}, "steps is -1: it must be 0 or more"),
        ({"dropout": 1.0}, "dropout is 1.0: it must be at least 0 and less than 1"),
    ],
)
def test_leo_refuses_numbers_out_of_range(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=rf"metatraining\.{message}"):
        LEO(**options)


@pytest.mark.parametrize("size", [1, 2])
def test_tasks_of_leo_in_parts_are_predicted_as_tasks_at_once(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    algorithm, episode = LEO(latents=3), task(3)
    network = network_for(algorithm).eval()
    at_once = algorithm.predict(network, episode)
    monkeypatch.setattr("omnitraining.metatraining.leo.TASKS_AT_ONCE", size)
    torch.testing.assert_close(algorithm.predict(network, episode), at_once, **CLOSE)

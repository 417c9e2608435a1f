"""Options with which algorithms are as their authors' code has them, and ANIL."""

import math
from typing import Any

import pytest
import torch
from sklearn.svm import LinearSVC
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from omnitraining.backbones import MLP
from omnitraining.batches import Episode
from omnitraining.errors import InputError
from omnitraining.metatraining import ANIL, MatchingNet, MetaOptNet
from omnitraining.network import Network
from omnitraining.pretraining import BaselinePP, SGDCosineHead
from tests.reference import anil, matchingnet
from tests.reference.toy import INPUTS, Toy

pytestmark = pytest.mark.usefixtures("float64")
CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def task(tasks: int = 1) -> Episode:
    """Three classes, three shots, four queries each."""
    return Toy(regression=False).episode(0, torch.Generator().manual_seed(0), tasks)


@pytest.mark.parametrize("second_order", [True, False])
@pytest.mark.parametrize("steps", [0, 1, 4])
def test_anil_adapts_the_head_as_autograd_does(steps: int, second_order: bool) -> None:
    algorithm, episode = ANIL(steps, 0.3, second_order), task(3)
    network = Network(MLP(INPUTS, (8,)), algorithm.head(8, 3))
    nn.init.normal_(network.head.bias)
    found = algorithm.predict(network, episode)
    expected = torch.stack(
        [
            anil.adapted(
                network.head, network.backbone(episode.support_x[t]), episode.support_y[t],
                network.backbone(episode.query_x[t]), steps, 0.3, second_order,
            )
            for t in range(3)
        ]
    )  # fmt: skip
    torch.testing.assert_close(found, expected, **CLOSE)
    for ours, theirs in zip(
        *(
            torch.autograd.grad(algorithm.loss(outputs, episode.query_y), network.parameters())
            for outputs in (found, expected)
        ),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, **CLOSE)


def test_first_order_anil_has_another_gradient_but_the_same_predictions() -> None:
    network, episode = Network(MLP(INPUTS, (8,)), ANIL().head(8, 3)), task()
    outputs, slopes = [], []
    for second_order in (True, False):
        outputs.append(ANIL(second_order=second_order).predict(network, episode))
        loss = ANIL().loss(outputs[-1], episode.query_y)
        slopes.append(torch.autograd.grad(loss, [*network.backbone.parameters()])[0])
    torch.testing.assert_close(*outputs)
    assert not torch.allclose(*slopes)


@pytest.mark.parametrize(
    ("options", "message"), [({"steps": -1}, "steps is -1"), ({"lr": 0.0}, "lr is 0.0")]
)
def test_anil_refuses_numbers_out_of_range(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=rf"metatraining\.{message}"):
        ANIL(**options)


def shuffled_features(size: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Features [1, 9, D] of three overlapping classes, their labels in any order, and queries."""
    labels = torch.arange(3).repeat(3)[torch.randperm(9)]
    return (
        (torch.randn(3, size)[labels] + torch.randn(9, size))[None],
        labels[None],
        torch.randn(1, 5, size),
    )


def test_matchingnet_reads_the_support_set_in_the_given_order() -> None:
    support, labels, query = shuffled_features()
    algorithm = MatchingNet(order="given")
    head = algorithm.head(6, 3)
    found = algorithm.fit(head, support, labels, 3)(query)[0]
    expected = matchingnet.log_probabilities(
        head.read_support, head.read_query, support[0], labels[0], query[0], 3, 100.0, None,
        as_given=True,
    )  # fmt: skip
    torch.testing.assert_close(found, expected, **CLOSE)
    turned = algorithm.fit(head, support.flip(1), labels.flip(1), 3)(query)[0]
    assert not torch.allclose(turned, found)


def test_matchingnet_without_context_weights_labels_by_cosines() -> None:
    support, labels, query = shuffled_features()
    algorithm = MatchingNet(scale=10.0, context=False)
    head = algorithm.head(6, 3)
    assert not list(head.parameters())
    found = algorithm.fit(head, support, labels, 3)(query)[0]
    for one, log_probabilities in zip(query[0], found, strict=True):
        weights = torch.tensor(
            [math.exp(10 * max(0.0, torch.cosine_similarity(one, x, dim=0))) for x in support[0]]
        )
        shares = [weights[labels[0] == n].sum() / weights.sum() + 1e-6 for n in range(3)]
        torch.testing.assert_close(log_probabilities, torch.tensor(shares).log(), **CLOSE)


@pytest.mark.parametrize("options", [{"steps": 2}, {"order": "given"}])
def test_options_of_the_context_are_refused_without_it(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="it is for context: true"):
        MatchingNet(context=False, **options)


@pytest.mark.parametrize("jitter", [0.3, 1.0])
def test_a_jitter_is_a_feature_of_its_own_for_each_support_sample(jitter: float) -> None:
    """X X^T + j I is the kernel of features [x, sqrt(j) e_i], which queries do not have."""
    support, labels, query = shuffled_features(20)
    found = MetaOptNet(jitter=jitter).fit(nn.Identity(), support, labels, 3)(query)[0]
    own = jitter**0.5 * torch.eye(9)
    peer = LinearSVC(
        C=0.1, multi_class="crammer_singer", fit_intercept=False, tol=1e-9, max_iter=10**6
    )
    peer.fit(torch.cat([support[0], own], 1).numpy(), labels[0].numpy())
    padded = F.pad(query[0], (0, 9)).numpy()
    expected = torch.from_numpy(peer.decision_function(padded))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    without = MetaOptNet().fit(nn.Identity(), support, labels, 3)(query)[0]
    assert not torch.allclose(found, without, rtol=1e-3)


def test_a_jitter_is_for_the_svm_alone_and_not_below_zero() -> None:
    with pytest.raises(InputError, match=r"metatraining\.jitter is 1.0, but .*only 'svm' has it"):
        MetaOptNet("ridge", jitter=1.0)
    with pytest.raises(InputError, match=r"metatraining\.jitter is -1.0: it must be 0 or more"):
        MetaOptNet(jitter=-1.0)


def normalized_layer(features: int, outputs: int) -> nn.Linear:
    return weight_norm(nn.Linear(features, outputs, bias=False), dim=0)


def test_learned_norms_are_torch_s_weight_norm() -> None:
    ours, layer, x = (
        BaselinePP(scale=2.0, norm="learned").head(8, 5),
        normalized_layer(8, 5),
        torch.randn(6, 8),
    )
    weights = layer.parametrizations.weight  # the norms g, and the directions v
    weights.original1.data = ours.weight.detach().clone()
    weights.original0.data = ours.norms.detach()[:, None].clone()
    torch.testing.assert_close(layer.weight, ours.weight)  # it starts as the plain weights
    weights.original0.data *= 3
    ours.norms.data *= 3
    found, expected = ours(x), 2.0 * layer(F.normalize(x, dim=-1))
    torch.testing.assert_close(found, expected, **CLOSE)
    slopes = torch.autograd.grad(found.square().sum(), (ours.weight, ours.norms))
    theirs = torch.autograd.grad(expected.square().sum(), (weights.original1, weights.original0))
    torch.testing.assert_close(slopes[0], theirs[0], **CLOSE)
    torch.testing.assert_close(slopes[1], theirs[1][:, 0], **CLOSE)


def test_the_sgd_cosine_head_is_torch_s_sgd_on_a_weight_norm() -> None:
    """Momentum and dampening 0.9 (Chen et al. 2019), same initial weights and order."""
    labels = torch.arange(3).repeat_interleave(4).expand(2, -1)
    support, query = torch.randn(2, 12, 6), torch.randn(2, 5, 6)
    head = SGDCosineHead(lr=0.1, weight_decay=0.01, batch=5, passes=7, seed=4)
    found = head.logits(support, labels, query, 3)
    random = torch.Generator().manual_seed(4)
    start = (torch.rand(2, 3, 6, generator=random) * 2 - 1) * 6**-0.5
    orders = [torch.rand(2, 12, generator=random).argsort(1) for _ in range(7)]
    for t in range(2):
        layer = normalized_layer(6, 3)
        weights = layer.parametrizations.weight
        weights.original1.data = start[t].clone()
        weights.original0.data = start[t].norm(dim=1, keepdim=True)
        optimizer = torch.optim.SGD(
            layer.parameters(), lr=0.1, momentum=0.9, dampening=0.9, weight_decay=0.01
        )
        for order in orders:
            for chosen in order[t].split(5):
                optimizer.zero_grad()
                logits = 2.0 * layer(F.normalize(support[t, chosen], dim=-1))
                F.cross_entropy(logits, labels[t, chosen]).backward()
                optimizer.step()
        expected = 2.0 * layer(F.normalize(query[t], dim=-1))
        torch.testing.assert_close(found[t], expected, **CLOSE)


def test_the_sgd_cosine_head_needs_a_batch() -> None:
    with pytest.raises(InputError, match=r"new_head\.batch is 0: it must be 1 or more"):
        SGDCosineHead(batch=0)

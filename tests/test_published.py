"""Prototypical, matching and relation networks compute what their papers state."""

import pytest
import torch
from torch import nn

from omnitraining.batches import Episode
from omnitraining.metatraining import MatchingNet, ProtoNet, RelationNet
from omnitraining.network import Network
from tests.reference import matchingnet, published, relationnet

pytestmark = pytest.mark.usefixtures("float64")
WAYS = 5


def episode(size: int, shots: int = 3, queries: int = 4) -> Episode:
    """One task of features of overlapping classes, its support samples in no order."""
    centers, parts = torch.randn(WAYS, size), []
    for count in (shots, queries):
        labels = torch.arange(WAYS).repeat_interleave(count)
        parts += [centers[labels] + torch.randn(len(labels), size), labels]
    order = torch.randperm(WAYS * shots)
    return Episode(
        parts[0][order][None], parts[1][order][None], parts[2][None], parts[3][None], WAYS
    )


@torch.no_grad()
def test_prototypical_networks() -> None:
    task, network = episode(20), Network(nn.Identity(), nn.Identity())
    expected = published.prototypical(task.support_x[0], task.support_y[0], task.query_x[0])
    outputs = ProtoNet("euclidean", scale=1.0).predict(network, task)[0]
    torch.testing.assert_close(outputs, expected)


@torch.no_grad()
def test_matching_networks() -> None:
    """In the order in which ours puts the support set."""
    task, algorithm = episode(20), MatchingNet()
    network = Network(nn.Identity(), algorithm.head(20, WAYS))
    order = matchingnet.canonical_order(task.support_x[0], task.support_y[0], WAYS)
    expected = published.matching(
        network.head.read_support,
        network.head.read_query,
        task.support_x[0, order],
        task.support_y[0, order],
        task.query_x[0],
        algorithm.scale,
    )
    torch.testing.assert_close(algorithm.predict(network, task)[0], expected)


@torch.no_grad()
def test_relation_networks() -> None:
    """By the published relation module with the weights of ours."""
    task, algorithm = episode(6 * 7 * 7), RelationNet(channels=6)
    network = Network(nn.Identity(), algorithm.head(6 * 7 * 7, WAYS)).eval()
    maps = [x[0].unflatten(1, (6, 7, 7)) for x in (task.support_x, task.query_x)]
    module = relationnet.plain(network.head)
    expected = published.relation(module, maps[0], task.support_y[0], maps[1])
    torch.testing.assert_close(algorithm.predict(network, task)[0].sigmoid(), expected)

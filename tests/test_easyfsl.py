"""The same scores as EasyFSL's on the same features and weights.

EasyFSL is no dependency, since it asks for torchvision; where it is installed, this runs.
"""

import pytest
import torch
from torch import Tensor, nn

from omnitraining.batches import Episode
from omnitraining.metatraining import MatchingNet, ProtoNet, RelationNet
from omnitraining.network import Network
from tests.reference import matchingnet, relationnet

peers = pytest.importorskip("easyfsl.methods")

CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # EasyFSL has float32 in its code


def episode(size: int, ways: int = 5, shots: int = 3, queries: int = 4) -> Episode:
    """One task of features of overlapping classes, its support samples in no order."""
    centers, parts = torch.randn(ways, size), []
    for count in (shots, queries):
        labels = torch.arange(ways).repeat_interleave(count)
        parts += [centers[labels] + torch.randn(len(labels), size), labels]
    order = torch.randperm(ways * shots)
    return Episode(
        parts[0][order][None], parts[1][order][None], parts[2][None], parts[3][None], ways
    )


def scores(peer: nn.Module, support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
    peer.eval().process_support_set(support, labels)
    return peer(query)


@torch.no_grad()
def test_prototypical_networks() -> None:
    """EasyFSL's scores are negative distances, ours negative squared ones."""
    task, network = episode(20), Network(nn.Identity(), nn.Identity())
    expected = scores(
        peers.PrototypicalNetworks(), task.support_x[0], task.support_y[0], task.query_x[0]
    )
    outputs = ProtoNet("euclidean", scale=1.0).predict(network, task)[0]
    torch.testing.assert_close(outputs, -expected.square(), **CLOSE)


@torch.no_grad()
def test_matching_networks() -> None:
    """The same embeddings in context; for the scores EasyFSL leaves out 100 relu(cosine)."""
    task, algorithm = episode(20), MatchingNet()
    network = Network(nn.Identity(), algorithm.head(20, 5))
    peer = peers.MatchingNetworks(
        feature_dimension=20,
        support_encoder=network.head.read_support,
        query_encoder=network.head.read_query,
    ).eval()
    order = matchingnet.canonical_order(task.support_x[0], task.support_y[0], 5)
    peer.process_support_set(task.support_x[0, order], task.support_y[0, order])
    support, labels, query = network.head(task)
    torch.testing.assert_close(support[0], peer.contextualized_support_features, **CLOSE)
    torch.testing.assert_close(labels[0], peer.one_hot_support_labels.argmax(1))
    torch.testing.assert_close(query[0], peer.encode_query_features(task.query_x[0]), **CLOSE)
    cosine = nn.functional.cosine_similarity(query[0, :, None], support[0, None], dim=-1)
    attention = torch.softmax(100 * cosine.relu(), 1)
    expected = (attention @ peer.one_hot_support_labels + 1e-6).log()
    torch.testing.assert_close(algorithm.predict(network, task)[0], expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_relation_networks() -> None:
    """With the relation module of ours, and a sigmoid, as the other's."""
    task, algorithm = episode(6 * 7 * 7), RelationNet(channels=6)
    network = Network(nn.Identity(), algorithm.head(6 * 7 * 7, 5)).eval()
    peer = peers.RelationNetworks(
        feature_dimension=6,
        relation_module=nn.Sequential(relationnet.plain(network.head), nn.Sigmoid()),
    )
    maps = [x[0].unflatten(1, (6, 7, 7)) for x in (task.support_x, task.query_x)]
    expected = scores(peer, maps[0], task.support_y[0], maps[1])
    outputs = algorithm.predict(network, task)[0]
    torch.testing.assert_close(outputs.sigmoid(), expected, **CLOSE)

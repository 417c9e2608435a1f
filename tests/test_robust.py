"""Robust ensembles: their losses, what each network gets, and the network distilled from them."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from omnitraining.backbones import MLP, Conv4, NetworkEnsemble
from omnitraining.batches import MiniBatch
from omnitraining.errors import InputError
from omnitraining.model import OmniLoss, build_model
from omnitraining.network import Network
from omnitraining.pretraining import Baseline, Robust
from omnitraining.tasks.classification.problem import EpisodeConfig
from omnitraining.tasks.classification.transforms import UncroppedAugmentation
from tests.reference import robust
from tests.reference.tiny import Blobs
from tests.reference.toy import INPUTS, Toy

CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network_of(algorithm: Robust, networks: int) -> Network:
    backbone = NetworkEnsemble(partial(MLP, INPUTS, (5,)), networks, own_views=False)
    return Network(backbone, algorithm.head_for(backbone, 5 * networks, 8))


def batch() -> MiniBatch:
    return Toy(regression=False).minibatch(0, random())


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("networks", [1, 2, 4])
@pytest.mark.parametrize("relation", ["cooperation", "diversity", "none"])
def test_the_loss_is_that_of_all_networks_and_pairs(relation: Any, networks: int) -> None:
    algorithm = Robust(relation, weight=3.0, relation_temperature=1.7)
    network, data = network_of(algorithm, networks).eval(), batch()
    outputs = network(data.x)
    assert outputs.shape == (32, networks, 8)
    found = algorithm.loss(outputs, data.y)
    weight = 0.0 if relation == "none" else 3.0
    expected = robust.loss(outputs.unbind(1), data.y, relation, weight, 1.7)
    torch.testing.assert_close(found, expected, **CLOSE)
    ours, theirs = (
        torch.autograd.grad(loss, [*network.parameters()], retain_graph=True)
        for loss in (found, expected)
    )
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, **CLOSE)


@pytest.mark.usefixtures("float64")
def test_networks_that_are_left_out_are_neither_trained_nor_followed() -> None:
    algorithm = Robust(dropout=0.0, keep=0.5)
    network, data, counts = network_of(algorithm, 6), batch(), []
    for _ in range(200):
        outputs = network(data.x)
        kept = [k for k in range(6) if outputs[:, k].any()]
        counts.append(len(kept))
        if len(counts) > 20:
            continue
        loss = algorithm.loss(outputs, data.y)
        whole = network.eval()(data.x).unbind(1)
        network.train()
        expected = robust.loss([whole[k] for k in kept], data.y, "cooperation", 10.0, 1.0)
        torch.testing.assert_close(loss, expected, **CLOSE)
        network.zero_grad()
        loss.backward()
        trained = [
            k
            for k, part in enumerate(network.backbone.networks)
            if any(weight.grad.any() for weight in part.parameters())
        ]
        assert trained == kept
    assert min(counts) >= 1 and 2.8 < sum(counts) / 200 < 3.3  # of six, one at least


@pytest.mark.usefixtures("float64")
def test_one_network_is_a_classifier_without_dropout() -> None:
    backbone = MLP(INPUTS, (5,))
    network, data = Network(backbone, Robust(keep=0.0).head_for(backbone, 5, 8)).train(), batch()
    outputs = network(data.x)
    torch.testing.assert_close(outputs, network(data.x))
    expected = Baseline().loss(outputs[:, 0], data.y)
    torch.testing.assert_close(Robust().loss(outputs, data.y), expected)


@pytest.mark.usefixtures("float64")
def test_one_network_is_distilled_from_the_mean_of_many() -> None:
    algorithm, labels = Robust(temperature=3.0, kd_weight=0.7), torch.randint(8, (6,))
    student = torch.randn(6, 1, 8, requires_grad=True)
    teachers = 4 * torch.randn(6, 5, 8)
    found = algorithm.distillation_loss(student, labels, teachers)
    expected = robust.distillation(student[:, 0], teachers.unbind(1), labels, 0.7, 3.0)
    torch.testing.assert_close(found, expected, **CLOSE)
    slopes = [torch.autograd.grad(loss, student)[0] for loss in (found, expected)]
    torch.testing.assert_close(*slopes, **CLOSE)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("networks", [1, 3])
def test_new_tasks_have_the_mean_of_the_networks_probabilities(networks: int) -> None:
    algorithm = Robust()
    network = network_of(algorithm, networks).eval()
    episode = Toy(regression=False).episode(0, random(), tasks=2)
    found = algorithm.predict(network, episode).exp()
    for t in range(2):
        support, query = (
            [part(x[t]) for part in network.backbone.networks]
            for x in (episode.support_x, episode.query_x)
        )
        expected = robust.probabilities(support, episode.support_y[t], query, 3)
        torch.testing.assert_close(found[t], expected, **CLOSE)


def test_every_network_gets_its_own_augmentation_of_an_image() -> None:
    backbone = NetworkEnsemble(partial(Conv4, 1, 4), 3).eval()
    x = torch.randn(2, 3, 1, 16, 16)
    parts = [network(x[:, k]) for k, network in enumerate(backbone.networks)]
    torch.testing.assert_close(backbone(x), torch.cat(parts, 1))
    same = [network(x[:, 0]) for network in backbone.networks]
    torch.testing.assert_close(backbone(x[:, 0]), torch.cat(same, 1))
    assert not torch.equal(parts[0], parts[1])


def problem() -> Blobs:
    data = Blobs(EpisodeConfig(ways=3, shots=2, queries=2, batch=8, test_ways=3, test_shots=(1,)))
    data.augmentation = UncroppedAugmentation(16, jitter=0.0)  # half of the images are mirrored
    return data


@pytest.mark.parametrize("method", ["pre-training", "omni-training", "joint-training", "ensemble"])
def test_a_problem_draws_as_many_views_as_there_are_networks(method: Any) -> None:
    data = problem()
    model = build_model(
        method, lambda: NetworkEnsemble(partial(Conv4, 1, 4), 3), data, Robust(keep=1.0)
    )
    drawn = data.samples(0, random(), model)
    assert drawn.batch.x.shape == (8, 3, 1, 16, 16)
    assert not drawn.episode if method == "pre-training" else drawn.episode.query_x.dim() == 5
    plain = data.minibatch(0, random())
    torch.testing.assert_close(drawn.batch.x[:, 0], plain.x)
    assert torch.equal(drawn.batch.y, plain.y)
    views = drawn.batch.x.unbind(1)
    for other in views[1:]:
        mirrored = (other == views[0].flip(3)).flatten(1).all(1)
        same = (other == views[0]).flatten(1).all(1)
        assert (mirrored | same).all() and mirrored.any()
    terms = model.train()(drawn.batch, drawn.episode)
    assert all(term.isfinite() for term in terms.values())
    terms["total"].backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_problems_without_augmentation_have_no_views() -> None:
    toy = Toy(regression=False)
    ensemble = partial(NetworkEnsemble, partial(MLP, INPUTS, (5,)), 2)
    model = build_model("pre-training", partial(ensemble, own_views=False), toy, Robust())
    assert toy.samples(0, random(), model).batch.x.shape == (32, INPUTS)
    model = build_model("pre-training", ensemble, toy, Robust())
    with pytest.raises(InputError, match=r"Toy does not augment .* set its own_views to false"):
        toy.samples(0, random(), model)


def test_views_and_episodes_cannot_be_one_batch() -> None:
    with pytest.raises(InputError, match=r"pre_on_episodes is true, but each network .*own_views"):
        build_model(
            "joint-training", lambda: NetworkEnsemble(partial(Conv4, 1, 4), 2), problem(), Robust(),
            loss=OmniLoss(pre_on_episodes=True),
        )  # fmt: skip


@pytest.mark.parametrize("method", ["pre-training", "joint-training"])
def test_a_run_of_an_ensemble_teaches_one_network(method: Any) -> None:
    data = problem()
    ensemble = build_model(
        "pre-training", lambda: NetworkEnsemble(partial(Conv4, 1, 4), 3), data, Robust()
    )
    student = build_model(method, partial(Conv4, 1, 4), data, Robust(), teacher_run=ensemble)
    drawn = data.samples(0, random(), student)
    assert drawn.batch.x.dim() == 4
    terms = student.train()(drawn.batch, drawn.episode)
    network = student.network("pre" if method == "pre-training" else "joint_pre")
    with torch.no_grad():
        teachers = ensemble.eval().network("pre")(drawn.batch.x)
    expected = robust.distillation(
        network(drawn.batch.x)[:, 0], teachers.unbind(1), drawn.batch.y, 0.8, 5.0
    )
    found = terms["l_pre" if method == "pre-training" else "l_joint_pre"]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": -1.0}, "weight is -1.0: it must be 0 or more"),
        ({"temperature": 0.0}, "temperature is 0.0: it must be greater than 0"),
        ({"relation_temperature": -1.0}, "relation_temperature is -1.0: it must be greater than 0"),
        ({"keep": 1.5}, "keep is 1.5: it must be from 0 to 1"),
        ({"kd_weight": -0.1}, "kd_weight is -0.1: it must be from 0 to 1"),
        ({"dropout": 1.0}, "dropout is 1.0: it must be at least 0 and less than 1"),
    ],
)
def test_it_refuses_numbers_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=rf"pretraining\.{message}"):
        Robust(**options)


def test_an_ensemble_has_a_network() -> None:
    with pytest.raises(InputError, match=r"backbone\.networks is 0: it must be 1 or more"):
        NetworkEnsemble(partial(MLP, 2), 0)
    with pytest.raises(InputError, match="backbone is a Linear: it must be what makes one"):
        NetworkEnsemble(nn.Linear(2, 2))


def test_features_of_all_networks_serve_other_algorithms() -> None:
    """ProtoNet takes them as one vector."""
    model = build_model(
        "meta-training", lambda: NetworkEnsemble(partial(Conv4, 1, 4), 3), problem()
    )
    assert model.feature_sizes["meta"] == 12 and model.views == 1
    data = problem().samples(0, random(), model)
    assert data.episode.query_x.dim() == 5
    assert model(data.batch, data.episode)["l_meta"].isfinite()

"""Learned feature-wise transformation, against trainings with other strengths of the noise."""

import copy
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from omnitraining.backbones import Conv4, FeatureWise
from omnitraining.batches import Episode, MiniBatch
from omnitraining.errors import InputError
from omnitraining.metatraining import (
    ANIL,
    CAN,
    GNN,
    MAML,
    LearnedFT,
    MatchingNet,
    MetaOptNet,
    MetaTraining,
    ProtoNet,
    RelationNet,
)
from omnitraining.model import Model, OmniLoss, build_model
from omnitraining.network import Network
from omnitraining.tasks.classification.problem import Classification, EpisodeConfig
from omnitraining.teacher import Teacher
from tests.reference import learned_ft
from tests.reference.tiny import Blobs
from tests.reference.toy import Toy, toy_model

NOTHING = MiniBatch(torch.empty(0), torch.empty(0))
EACH = [
    ProtoNet(),
    MatchingNet(scale=10.0),
    RelationNet(channels=4),
    GNN(embedding=8, width=8),
    ANIL(),
    MetaOptNet("ridge"),
    MetaOptNet("svm"),
]
each_algorithm = pytest.mark.parametrize("algorithm", EACH, ids=lambda a: type(a).__name__)


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noisy() -> FeatureWise:
    """16 px images to flattened 4x4 maps of 4 channels."""
    return FeatureWise(lambda: Conv4(1, 4, pooled_blocks=2), learned=True)


def network_of(algorithm: MetaTraining) -> Network:
    backbone = noisy()
    network = Network(backbone, algorithm.head_for(backbone, 64, 3, 8)).train()
    for name, weight in network.named_parameters():
        if "gammas" in name or "betas" in name:
            nn.init.uniform_(weight, 0.2, 0.6)
    return network


def tasks() -> Episode:
    """Two tasks, of three classes with two shots and three queries."""
    support, query = (torch.arange(3).repeat_interleave(n).expand(2, -1) for n in (2, 3))
    x = (torch.randn(*labels.shape, 1, 16, 16) for labels in (support, query))
    return Episode(next(x), support, next(x), query, ways=3, domains=2)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("algorithm", [ProtoNet(), RelationNet(channels=4)], ids=repr)
def test_strengths_have_the_slope_of_the_unseen_domain_after_a_step(
    algorithm: MetaTraining,
) -> None:
    learned, episode = LearnedFT(algorithm, lr=0.3), tasks()
    network = network_of(learned)
    torch.manual_seed(7)
    outputs, loss = learned.outputs_and_loss(network, episode, NOTHING)
    names = [name for name, _ in network.named_parameters()]
    slopes = dict(zip(names, torch.autograd.grad(loss, [*network.parameters()]), strict=True))
    seen, unseen = episode[:1], episode[1:]

    def simply(net: Network, part: Episode) -> torch.Tensor:
        return algorithm.loss(algorithm.predict(net, part), part.query_y)

    slow = copy.deepcopy(network)
    torch.manual_seed(7)
    expected = simply(slow, seen)
    torch.testing.assert_close(loss, expected)
    expected.backward()
    after = learned_ft.moved(slow_without_slopes(slow), seen, simply, 0.3, seed=7)
    torch.testing.assert_close(outputs[1:], algorithm.predict(after, unseen))
    for name, weight in slow.named_parameters():
        if "gammas" not in name and "betas" not in name:
            torch.testing.assert_close(slopes[name], weight.grad)
    plain = slow_without_slopes(slow)
    for name in ("backbone.gammas.0", "backbone.gammas.3", "backbone.betas.1", "backbone.betas.3"):
        found = [
            learned_ft.slope(
                plain, name, channel,
                lambda: simply(learned_ft.moved(plain, seen, simply, 0.3, seed=7), unseen), 1e-6,
            )
            for channel in range(4)
        ]  # fmt: skip
        torch.testing.assert_close(slopes[name], torch.tensor(found), rtol=1e-4, atol=1e-7)
        assert slopes[name].abs().max() > 1e-6


def slow_without_slopes(network: Network) -> Network:
    copied = copy.deepcopy(network)
    copied.zero_grad()
    return copied


def two_domains(batch: int = 8) -> Classification:
    """Blobs, and blobs whose images are inverted."""
    sizes = EpisodeConfig(
        ways=3, shots=2, queries=2, batch=batch, test_ways=3, test_shots=(1,), tasks=2
    )
    first = Blobs(sizes)
    (images,) = first.training
    other = replace(images, images=255 - images.images, name="inverted")
    return Classification([images, other], first.validation, first.benchmarks, sizes)


@pytest.mark.parametrize("method", ["meta-training", "omni-training", "joint-training", "ensemble"])
@each_algorithm
def test_every_algorithm_and_method_has_finite_slopes(algorithm: MetaTraining, method: Any) -> None:
    data = two_domains()
    loss = OmniLoss(distill_weight=3.0)
    model = build_model(method, noisy, data, metatraining=LearnedFT(algorithm), loss=loss).train()
    drawn = data.samples(0, random(), model)
    terms = model(drawn.batch, drawn.episode, Teacher(model).train().model)
    assert all(term.isfinite() for term in terms.values())
    terms["total"].backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all(), name
        assert weight.grad.any() or name.endswith("bias"), name


def test_a_step_has_tasks_of_two_domains_each_with_its_own_classes() -> None:
    data = two_domains()
    model = build_model("meta-training", noisy, data, metatraining=LearnedFT())
    orders, classes = set(), len(data.training[0].classes)
    for step in range(20):
        episode = data.samples(step, random(step), model).episode
        assert episode.domains == 2 and len(episode.query_y) == 4
        assert episode.classes is not None
        sides = episode.classes >= classes
        assert sides[:2].all() or not sides[:2].any()
        assert torch.equal(sides[2:], ~sides[:2])
        orders.add(bool(sides[0, 0]))
    assert orders == {True, False}


def test_tasks_of_one_domain_a_step_are_drawn_as_ever() -> None:
    data = two_domains()
    one = data.episode(1, random(3))
    assert one.domains == 1 and len(one.query_y) == 2 and one.classes is not None
    assert (one.classes >= len(data.training[0].classes)).all()


def test_the_unseen_domain_and_predictions_are_without_noise() -> None:
    learned, episode = LearnedFT(lr=1e-12), tasks()
    network = network_of(learned)
    first, second = (learned.outputs_and_loss(network, episode, NOTHING)[0] for _ in range(2))
    assert not torch.allclose(first[:1], second[:1])
    torch.testing.assert_close(first[1:], second[1:])
    assert network.backbone.training
    quiet = network.eval()
    expected = ProtoNet().predict(quiet, episode)
    torch.testing.assert_close(learned.predict(quiet, episode), expected)


def trained(model: Model, data: Classification, steps: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for step in range(steps):
        torch.manual_seed(step)
        drawn = data.samples(step, random(step), model)
        optimizer.zero_grad()
        model(drawn.batch, drawn.episode)["total"].backward()
        optimizer.step()


def test_it_learns_and_strengths_move() -> None:
    data = two_domains()
    model = build_model("meta-training", noisy, data, metatraining=LearnedFT()).train()
    before = copy.deepcopy(model.state_dict())

    def loss() -> float:
        model.eval()
        tasks = [data.episode(step, random(1000 + step)) for step in range(10)]
        with torch.no_grad():
            logits = [model.metatraining.predict(model.network("meta"), task) for task in tasks]
            losses = [F.cross_entropy(x.mT, t.query_y) for x, t in zip(logits, tasks, strict=True)]
        model.train()
        return torch.stack(losses).mean().item()

    first = loss()
    trained(model, data, 30)
    assert loss() < 0.6 * first
    for name, weight in model.state_dict().items():
        if "gammas" in name or "betas" in name:
            assert not torch.equal(weight, before[name])


def test_noise_of_learned_strength_starts_as_noise_of_constant_strength() -> None:
    x = torch.randn(4, 1, 16, 16)
    constant = FeatureWise(lambda: Conv4(1, 4))
    learned = FeatureWise(lambda: Conv4(1, 4), learned=True)
    learned.backbone.load_state_dict(constant.backbone.state_dict())
    outputs = []
    for backbone in (constant, learned):
        torch.manual_seed(3)
        outputs.append(backbone(x))
    torch.testing.assert_close(*outputs)
    assert not [*constant.gammas, *constant.betas]
    assert [len(strength) for strength in learned.gammas] == [4] * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0.0}, r"metatraining\.lr is 0.0: it must be greater than 0"),
        (
            {"algorithm": CAN()},
            r"metatraining\.algorithm is CAN, which does not train as it predicts",
        ),
        ({"algorithm": MAML()}, r"metatraining\.algorithm is MAML, which adapts the backbone"),
    ],
)
def test_it_refuses_what_it_cannot_train(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        LearnedFT(**options)


def test_it_needs_noise_of_learned_strength_and_two_domains() -> None:
    data = two_domains()
    for backbone in (partial(Conv4, 1, 4), lambda: FeatureWise(partial(Conv4, 1, 4))):
        with pytest.raises(InputError, match=r"must be FeatureWise with learned: true"):
            build_model("meta-training", backbone, data, metatraining=LearnedFT())
    single = Blobs(data.protocol)
    model = build_model("meta-training", noisy, single, metatraining=LearnedFT())
    with pytest.raises(InputError, match=r"needs 2 domains of training, and there is 1: name more"):
        single.samples(0, random(), model)
    with pytest.raises(InputError, match=r"needs tasks of 2 domains in each step, .* are of 1"):
        model(single.minibatch(0, random()), single.episode(0, random()))
    toys, toy = toy_model()
    toys.metatraining = LearnedFT()
    with pytest.raises(InputError, match=r"Toy has one domain of training, .* needs 2"):
        toy.samples(0, random(), toys)
    assert isinstance(toy, Toy)


def test_it_passes_tasks_itself() -> None:
    data, loss = two_domains(), OmniLoss(pre_on_episodes=True)
    model = build_model("joint-training", noisy, data, metatraining=LearnedFT(), loss=loss)
    drawn = data.samples(0, random(), model)
    with pytest.raises(InputError, match=r"pre_on_episodes is true, but LearnedFT passes tasks"):
        model(drawn.batch, drawn.episode)

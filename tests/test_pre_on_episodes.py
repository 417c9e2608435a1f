"""Pre-training losses on the samples of the episode too (``loss.pre_on_episodes``)."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from omnitraining.backbones import MLP, Conv4
from omnitraining.batches import Episode, MiniBatch
from omnitraining.errors import InputError
from omnitraining.metatraining import MAML, MetaTraining, ProtoNet
from omnitraining.model import Model, OmniLoss, OmniNetOptions, build_model
from omnitraining.pretraining import Baseline, L2Regression
from omnitraining.runs.compute import multiply_adds
from omnitraining.tasks.regression.sinusoids import Sinusoids
from omnitraining.training import Stepper, Training
from tests.test_compute import backbone, problem


def built(method: str, on: bool, metatraining: MetaTraining = ProtoNet()) -> Model:  # noqa: B008
    loss = OmniLoss(pre_on_episodes=on)
    parts = problem(), Baseline(), metatraining, loss
    torch.manual_seed(0)
    return build_model(method, backbone, *parts)  # type: ignore[arg-type]


def data() -> tuple[MiniBatch, Episode]:
    samples = problem().samples(0, torch.Generator().manual_seed(3), built("joint-training", True))
    return samples.batch, samples.episode


@pytest.mark.parametrize("method", ["joint-training", "omni-training", "pre-training"])
def test_the_losses_equal_separate_passes(method: str) -> None:
    model, plain = built(method, True), built(method, False)  # of equal weights, and without norms
    batch, episode = data()
    assert episode.classes is not None
    of_support = episode.classes[0][episode.support_y[0]]
    of_query = episode.classes[0][episode.query_y[0]]
    x = torch.cat([batch.x, episode.support_x[0], episode.query_x[0]])
    y = torch.cat([batch.y, of_support, of_query])
    terms, expected = model(batch, episode), plain(batch, episode)
    for name, network in (("l_pre", "pre"), ("l_joint_pre", "joint_pre")):
        if name in terms:
            wanted = F.cross_entropy(plain.network(network)(x), y)
            torch.testing.assert_close(terms[name], wanted)
            assert not torch.isclose(terms[name], expected[name])
    for name in ("l_meta", "l_joint_meta"):
        if name in terms:
            torch.testing.assert_close(terms[name], expected[name])
    outputs = model.outputs(batch, episode)
    pre = "joint_pre" if method == "joint-training" else "pre"
    assert outputs[pre].shape == (len(y), 6)


def test_gradients_equal_separate_passes() -> None:
    model, plain = built("joint-training", True), built("joint-training", False)
    batch, episode = data()
    model(batch, episode)["total"].backward()
    whole = batch.with_episode(episode)
    loss = F.cross_entropy(plain.network("joint_pre")(whole.x), whole.y)
    network = plain.network("joint_meta")
    loss = loss + ProtoNet().loss(ProtoNet().predict(network, episode), episode.query_y)
    loss.backward()
    for own, other in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad)


def test_joint_training_passes_no_sample_twice() -> None:
    on, off = (multiply_adds(built("joint-training", flag), problem()) for flag in (True, False))
    assert on is not None and off is not None
    head = 3 * 5 * (2 + 3) * 5 * 6  # three products of the head, on the samples of the episode
    assert on == off + head


def test_it_trains_with_a_trunk_and_a_teacher() -> None:
    torch.manual_seed(0)
    images = problem()
    model = build_model(
        "omni-training",
        lambda: Conv4(1, width=4, pooled_blocks=2),
        images,
        loss=OmniLoss(pre_on_episodes=True, distill_weight=1.0, branch_at=1),
        omninet=OmniNetOptions(shared_until="8"),
    )
    stepper = Stepper(model, images, Training(steps=3), torch.device("cpu"))
    terms = [stepper.step(step) for step in range(3)]
    assert "r_pre" not in terms[0] and terms[2]["r_pre"] > 0
    assert all(term["total"].isfinite() for term in terms)


def test_what_cannot_serve_both_losses_is_refused() -> None:
    with pytest.raises(InputError, match="pre_on_episodes is true, but MAML adapts the backbone"):
        built("joint-training", True, MAML())
    waves = Sinusoids(waves=20, test_shots=(5,), test_steps=1)
    model = build_model(
        "pre-training",
        lambda: MLP(hidden=(8,)),
        waves,
        L2Regression(),
        ProtoNet(),
        OmniLoss(pre_on_episodes=True),
    )
    samples = waves.samples(0, torch.Generator().manual_seed(0), model)
    with pytest.raises(InputError, match="do not state their training classes"):
        model(samples.batch, samples.episode)


def test_a_norm_gets_batch_and_episode_together() -> None:
    sizes: list[int] = []

    class Seen(nn.Identity):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            sizes.append(len(x))
            return x

    images = problem()
    model = build_model(
        "joint-training",
        lambda: nn.Sequential(nn.Flatten(), Seen(), nn.Linear(64, 4)),
        images,
        loss=OmniLoss(pre_on_episodes=True),
    )
    sizes.clear()
    model(*data())
    assert sizes == [7 + 5 * (2 + 3)]


def test_the_episode_can_be_the_whole_mini_batch() -> None:
    images = problem().with_changes(replace(problem().protocol, batch=0))
    model = built("omni-training", True)
    images.check(model)
    samples = images.samples(0, torch.Generator().manual_seed(3), model)
    episode = samples.episode
    assert len(samples.batch.x) == len(samples.batch.y) == 0
    assert episode.classes is not None
    labels = torch.cat([episode.support_y, episode.query_y], 1)
    own = episode.classes.gather(1, labels).flatten()
    x = torch.cat([episode.support_x, episode.query_x], 1).flatten(0, 1)
    terms = model(samples.batch, episode)
    for name, network in (("l_pre", "pre"), ("l_joint_pre", "joint_pre")):
        torch.testing.assert_close(terms[name], F.cross_entropy(model.network(network)(x), own))
    parts = [
        model(samples.batch.shard(rank, 3), episode.shard(rank, 3))["l_meta"] for rank in range(3)
    ]
    torch.testing.assert_close(torch.stack(parts).mean(), terms["l_meta"])


def test_a_mini_batch_without_images_needs_the_images_of_the_episode() -> None:
    images = problem().with_changes(replace(problem().protocol, batch=0))
    with pytest.raises(InputError, match=r"protocol\.batch is 0: .* unless loss\.pre_on_episodes"):
        images.check(built("omni-training", False))


def test_several_processes_would_count_the_support_set_several_times() -> None:
    images = problem().with_changes(replace(problem().protocol, batch=9))
    images.shard(0, 3)
    images.check(built("omni-training", False))
    with pytest.raises(InputError, match="pre_on_episodes is true, but 3 processes have the same"):
        images.check(built("omni-training", True))

"""Meta-MaxUp: augmentation of whole tasks, and the worst version of each."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining.backbones import Conv4
from omnitraining.batches import Episode, MiniBatch
from omnitraining.config.run_config import dump, instantiate
from omnitraining.errors import InputError
from omnitraining.metatraining import CAN, MetaMaxUp, MetaOptNet, ProtoNet
from omnitraining.model import OmniLoss, build_model
from omnitraining.network import Network
from omnitraining.task_augmentation import AUGMENTATIONS, in_versions, query_cutmix, task_rotate
from omnitraining.tasks.classification.problem import EpisodeConfig
from tests.reference import meta_maxup
from tests.reference.tiny import BLOBS, Blobs, config
from tests.reference.toy import Toy, toy_model

NOTHING = MiniBatch(torch.empty(0), torch.empty(0))


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tasks(count: int = 3, side: int = 12, fill: Tensor | None = None) -> Episode:
    """Three classes, two shots and four queries; images of noise, or each full of its class."""
    support, query = (torch.arange(3).repeat_interleave(n).expand(count, -1) for n in (2, 4))

    def images(labels: Tensor) -> Tensor:
        if fill is not None:
            return fill[labels][..., None, None, None].expand(-1, -1, 3, side, side)
        return torch.randn(*labels.shape, 3, side, side)

    return Episode(images(support), support, images(query), query, ways=3)


def test_cutmix_returns_how_much_of_each_image_is_of_which_class() -> None:
    value = torch.tensor([1.0, 10.0, 100.0])
    mixed = query_cutmix(tasks(50, fill=value), random())
    share = mixed.mixture.share.unsqueeze(1)
    expected = share * value[mixed.query_y] + (1 - share) * value[mixed.mixture.labels]
    torch.testing.assert_close(mixed.query_x.mean((2, 3, 4)), expected)
    assert torch.equal(mixed.mixture.labels.sort(1).values, mixed.query_y)  # a permutation


def test_the_box_of_cutmix_is_one_rectangle_and_the_same_in_all_queries_of_a_task() -> None:
    before = tasks(30)
    changed = (query_cutmix(before, random()).query_x != before.query_x).any(2)  # [T, Q, H, W]
    for task in changed:
        boxes = {image.numpy().tobytes() for image in task if image.any()}
        assert len(boxes) <= 1
        for image in task:
            rows, columns = image.any(1), image.any(0)
            assert torch.equal(image, rows.unsqueeze(1) & columns)
            assert all((np.diff(np.flatnonzero(axis)) == 1).all() for axis in (rows, columns))


def test_shares_of_cutmix_are_of_a_beta_distribution() -> None:
    """Mean 1/2 and variance 1/20; a box that sticks out of its image leaves more of it."""
    share = query_cutmix(tasks(4000, side=30), random()).mixture.share
    assert 0.55 < share.mean() < 0.75
    centered = torch.rand(4000, 3, generator=random(1)).median(1).values
    assert abs(centered.mean() - 0.5) < 0.02 and abs(centered.var() - 0.05) < 0.005


def test_classes_are_rotated_as_numpy_rotates_support_and_query_alike() -> None:
    before = tasks(400, side=5)
    after, counts = task_rotate(before, random()), np.zeros(4)
    for t, label in [(t, label) for t in range(400) for label in range(3)]:
        turns = []
        for part in ("support", "query"):
            chosen = getattr(before, f"{part}_y")[t] == label
            old, new = (getattr(one, f"{part}_x")[t][chosen].numpy() for one in (before, after))
            turns.append([k for k in range(4) if (np.rot90(old, k, (2, 3)) == new).all()])
        assert turns[0] == turns[1] and len(turns[0]) == 1
        counts[turns[0]] += 1
    assert np.abs(counts / 1200 - [1 / 2, 1 / 6, 1 / 6, 1 / 6]).max() < 0.04


@pytest.mark.parametrize("part", ["query", "support"])
def test_a_box_of_half_of_the_images_is_erased(part: str) -> None:
    before = tasks(300, side=20)
    after = AUGMENTATIONS[f"{part}-erase"](before, random())
    other = {"query": "support", "support": "query"}[part]
    assert torch.equal(getattr(after, f"{other}_x"), getattr(before, f"{other}_x"))
    images = getattr(after, f"{part}_x").flatten(0, 1)
    gone = (images == 0).all(1)
    kept = images != 0
    torch.testing.assert_close(images[kept], getattr(before, f"{part}_x").flatten(0, 1)[kept])
    areas = gone.float().mean((1, 2))
    assert 0.45 < (areas > 0).float().mean() < 0.55
    areas = areas[areas > 0]
    assert areas.min() < 0.05 and 0.3 < areas.max() < 0.45 and abs(areas.mean() - 0.21) < 0.02
    for box in gone:
        assert torch.equal(box, box.any(1).unsqueeze(1) & box.any(0))


def test_versions_are_drawn_from_the_pool_and_are_of_no_known_classes() -> None:
    before = replace(tasks(2), classes=torch.zeros(2, 3, dtype=torch.long))
    pool = ("query-erase", "task-rotate+query-cutmix")
    made = in_versions(before, pool, 40, random())
    assert made.versions == 40 and made.query_x.shape[0] == 80 and made.classes is None
    cut = (made.mixture.share.view(40, 2) < 1).any(1)
    assert 8 < cut.sum() < 32
    support = made.support_x.unflatten(0, (40, 2)) == before.support_x
    support = support.flatten(1)
    assert support[~cut].all() and not support[cut].all()
    assert torch.equal(made.support_y, before.support_y.repeat(40, 1))
    again = in_versions(before, pool, 40, random())
    assert torch.equal(made.query_x, again.query_x)


@pytest.mark.usefixtures("float64")
def test_the_loss_is_the_worst_version_s_of_each_task() -> None:
    algorithm = MetaMaxUp(ProtoNet(), versions=4)
    embed = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, 8), nn.Tanh())
    network = Network(embed, algorithm.head(8, 3))
    drawn = tasks(5)
    versions = [
        in_versions(drawn, (entry,), 1, random(seed))
        for seed, entry in enumerate(("query-cutmix", "query-erase", "task-rotate"))
    ]
    joined = Episode(
        *(
            torch.cat([getattr(version, name) for version in versions])
            for name in ("support_x", "support_y", "query_x", "query_y")
        ),
        ways=3, versions=3,
        mixture=replace(
            versions[0].mixture,
            labels=torch.cat([version.mixture.labels for version in versions]),
            share=torch.cat([version.mixture.share for version in versions]),
        ),
    )  # fmt: skip
    outputs, loss = algorithm.outputs_and_loss(network, joined, NOTHING)
    expected = meta_maxup.loss(embed, versions, [True, False, False])
    torch.testing.assert_close(loss, expected)
    slow = [meta_maxup.logits(embed, joined[t : t + 1]) for t in range(15)]
    torch.testing.assert_close(outputs, torch.stack(slow))
    ours, theirs = (torch.autograd.grad(one, [*embed.parameters()]) for one in (loss, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.usefixtures("float64")
def test_tasks_that_are_not_augmented_are_learned_as_the_algorithm_learns_them() -> None:
    episode = Toy(regression=False).episode(0, random(), tasks=3)
    network = Network(nn.Linear(6, 4), nn.Identity())
    for algorithm in (ProtoNet(), MetaOptNet("ridge")):
        wrapped = MetaMaxUp(algorithm)
        network.head = wrapped.head(4, 3)
        expected = algorithm.outputs_and_loss(network, episode, NOTHING)
        torch.testing.assert_close(wrapped.outputs_and_loss(network, episode, NOTHING), expected)


def problem() -> Blobs:
    return Blobs(EpisodeConfig(ways=3, shots=2, queries=2, batch=8, test_ways=3, test_shots=(1,)))


def test_training_takes_all_versions_of_the_tasks_that_are_drawn() -> None:
    data, backbone = problem(), partial(Conv4, 1, 4)
    wrapped, plain = (
        build_model("omni-training", backbone, data, metatraining=meta)
        for meta in (MetaMaxUp(versions=3, pool=("task-rotate",)), ProtoNet())
    )
    drawn, single = (data.samples(2, random(5), model) for model in (wrapped, plain))
    assert torch.equal(drawn.batch.x, single.batch.x)
    assert drawn.episode.versions == 3 and len(drawn.episode.query_y) == 3
    pixels = drawn.episode.support_x.flatten(3).sort().values
    own = single.episode.support_x.flatten(3).sort().values
    torch.testing.assert_close(pixels, own.repeat(3, 1, 1, 1))
    terms = wrapped.train()(drawn.batch, drawn.episode)
    terms["total"].backward()
    outputs = wrapped.outputs(drawn.batch, drawn.episode)["meta"]
    losses = [F.cross_entropy(*pair) for pair in zip(outputs, drawn.episode.query_y, strict=True)]
    torch.testing.assert_close(terms["l_meta"], torch.stack(losses).max())


def test_a_shard_has_its_queries_with_their_second_classes() -> None:
    mixed = query_cutmix(tasks(), random())
    parts = [mixed.shard(index, 2) for index in range(2)]
    rows = torch.cat([part.mixture.labels.view(3, 3, 2) for part in parts], 2).flatten(1)
    assert torch.equal(rows, mixed.mixture.labels)
    assert all(torch.equal(part.mixture.share, mixed.mixture.share) for part in parts)


def test_a_configuration_names_the_algorithm_and_its_options() -> None:
    inner = {"class_path": "MetaOptNet", "init_args": {"solver": "ridge"}}
    choice = config(
        BLOBS,
        metatraining={"class_path": "MetaMaxUp", "init_args": {"algorithm": inner, "versions": 2}},
    )
    expected = MetaMaxUp(MetaOptNet("ridge"), versions=2)
    assert instantiate(choice).metatraining == expected
    assert "omnitraining.MetaOptNet" in dump(choice)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"versions": 0}, r"metatraining\.versions is 0: it must be 1 or more"),
        ({"pool": ()}, r"metatraining\.pool is empty"),
        ({"pool": ("flip",)}, r"metatraining\.pool has 'flip': choose from query-cutmix, query-"),
        ({"pool": ("query-cutmix+query-erase",)}, r"joined by '\+', query-cutmix last"),
        (
            {"algorithm": CAN()},
            r"metatraining\.algorithm is CAN, which does not train as it predicts",
        ),
        ({"algorithm": MetaMaxUp()}, r"metatraining\.algorithm is MetaMaxUp, which does not train"),
    ],
)
def test_it_refuses_what_it_cannot_augment(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MetaMaxUp(**options)


def test_it_refuses_inputs_that_are_not_images_or_not_square() -> None:
    model, toy = toy_model()
    model.metatraining = MetaMaxUp()
    with pytest.raises(InputError, match=r"augmented in images \[C, H, W\], .* are \[6\]"):
        toy.samples(0, random(), model)
    oblong = tasks(side=12)
    oblong = replace(oblong, query_x=oblong.query_x[..., :10])
    with pytest.raises(InputError, match=r"task-rotate needs square images, .* 12 x 10 pixels"):
        task_rotate(oblong, random())


def test_augmented_tasks_have_no_labels_for_the_pretraining_losses() -> None:
    data = problem()
    loss = OmniLoss(pre_on_episodes=True)
    model = build_model(
        "joint-training", partial(Conv4, 1, 4), data, metatraining=MetaMaxUp(), loss=loss
    )
    drawn = data.samples(0, random(), model)
    with pytest.raises(InputError, match=r"loss\.pre_on_episodes is true, .* MetaMaxUp augments"):
        model(drawn.batch, drawn.episode)

"""Few-shot tasks: right classes, disjoint sets, uniform draws, the same tasks for the same seed."""

import pytest
import torch
from torch import Tensor

from omnitraining.datasets.images import LabeledImages
from omnitraining.errors import InputError
from omnitraining.tasks.classification.episodes import EpisodeSampler, TaskIndices

SIZES = (9, 5, 14, 6, 8)  # images of each class
LABELS = torch.cat([torch.full((size,), label) for label, size in enumerate(SIZES)])
LABELS = LABELS[torch.randperm(len(LABELS), generator=torch.Generator().manual_seed(0))]


def toys(labels: Tensor) -> LabeledImages:
    images = torch.zeros(len(labels), 1, 1, 1, dtype=torch.uint8)
    return LabeledImages(images, labels, tuple("abcde"), "toys")


def draw(
    tasks: int = 200, seed: int = 0, labels: Tensor = LABELS, shots: int = 2, queries: int = 3
) -> TaskIndices:
    sampler = EpisodeSampler(toys(labels), 3, shots, queries)
    return sampler.draw(tasks, torch.Generator().manual_seed(seed))


def test_support_and_query_have_the_asked_shape_and_share_no_sample() -> None:
    tasks = draw()
    assert tasks.support.shape == (200, 3, 2) and tasks.query.shape == (200, 3, 3)
    for support, query in zip(tasks.support, tasks.query, strict=True):
        drawn = [*support.flatten().tolist(), *query.flatten().tolist()]
        assert len(set(drawn)) == len(drawn) == 15


def test_every_row_is_one_class_and_the_rows_of_a_task_are_different_classes() -> None:
    tasks = draw()
    classes = LABELS[torch.cat([tasks.support, tasks.query], 2)]
    assert (classes == classes[:, :, :1]).all()
    assert all(len(set(rows)) == 3 for rows in classes[:, :, 0].tolist())


def test_classes_and_samples_are_drawn_uniformly() -> None:
    """Also where classes differ in size; five standard deviations."""
    count = 6000
    tasks = draw(count)
    first = LABELS[tasks.support[:, :, 0]]  # [T, N]
    for row in range(3):  # each class is equally often each label
        frequency = (first[:, row].bincount(minlength=5) / count).sub(1 / 5).abs()
        assert frequency.max() < 5 * (0.2 * 0.8 / count) ** 0.5
    for name, part, taken in (("support", tasks.support, 2), ("query", tasks.query, 3)):
        times = part.flatten().bincount(minlength=len(LABELS)) / count
        for label, size in enumerate(SIZES):
            chance = 3 / 5 * taken / size
            error = (times[LABELS.eq(label)] - chance).abs().max()
            assert error < 5 * (chance * (1 - chance) / count) ** 0.5, (name, label)


def test_a_class_of_just_enough_samples_gives_all_of_them() -> None:
    tasks = draw(shots=2, queries=3)  # class 1 has five
    drawn = torch.cat([tasks.support, tasks.query], 2)
    rows = drawn[LABELS[drawn[:, :, 0]] == 1]
    expected = (LABELS == 1).nonzero().flatten().tolist()
    assert len(rows) > 50 and all(sorted(row) == expected for row in rows.tolist())


def test_the_same_seed_draws_the_same_tasks() -> None:
    first, again, other = draw(seed=1), draw(seed=1), draw(seed=2)
    assert torch.equal(first.support, again.support) and torch.equal(first.query, again.query)
    assert not torch.equal(first.support, other.support)


def test_fewer_shots_keep_the_first_ones_and_the_queries() -> None:
    tasks = draw()
    fewer = tasks.with_shots(1)
    assert torch.equal(fewer.support, tasks.support[:, :, :1])
    assert torch.equal(fewer.query, tasks.query)


@pytest.mark.parametrize(
    ("ways", "shots", "queries", "words"),
    [
        (6, 1, 1, "toys has 5 classes, fewer than 6 ways"),
        (3, 2, 4, "class 'b' of toys has 5 images, fewer than 2 shots + 4 queries = 6"),
        (3, 20, 20, "class 'b' of toys has 5 images, fewer than 20 shots"),
    ],
)
def test_impossible_tasks_are_refused_with_numbers(
    ways: int, shots: int, queries: int, words: str
) -> None:
    with pytest.raises(InputError) as caught:
        EpisodeSampler(toys(LABELS), ways, shots, queries)
    assert words in str(caught.value)


@pytest.mark.parametrize("missing", [1, 4])
def test_a_class_without_samples_is_refused_by_its_name(missing: int) -> None:
    labels = torch.tensor([label for label in range(5) for _ in range(9) if label != missing])
    with pytest.raises(InputError, match=f"class '{'abcde'[missing]}' of toys has 0 images"):
        draw(labels=labels)

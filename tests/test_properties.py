"""What holds for all episodes, splits, numberings of classes, and configurations."""

import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omnitraining.config.recipes import merge
from omnitraining.config.run_config import dump, parse
from omnitraining.datasets.arrays import from_arrays
from omnitraining.datasets.dataset import (
    SPLITS,
    UNSPLIT,
    DataSet,
    closerlook_split,
    list_images,
    subset,
)
from omnitraining.datasets.images import LabeledImages
from omnitraining.errors import InputError
from omnitraining.tasks.classification.episodes import EpisodeSampler
from omnitraining.tasks.classification.photos import with_split
from tests.reference.tiny import BLOBS, NAVIGATION, SINUSOIDS

FEW = settings(max_examples=100, deadline=None, derandomize=True)
SLOW = settings(FEW, max_examples=25, suppress_health_check=[HealthCheck.too_slow])

counts = st.lists(st.integers(1, 9), min_size=1, max_size=8)
names = st.text(string.ascii_letters + "äß漢 ._-", min_size=1, max_size=6)
classes_of_images = st.dictionaries(
    names, st.lists(st.integers(0, 99).map(lambda n: Path(f"{n}.png")), min_size=1, max_size=5)
)


def labeled(per_class: list[int], seed: int) -> LabeledImages:
    labels = torch.arange(len(per_class)).repeat_interleave(torch.tensor(per_class))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    images = torch.zeros(len(labels), 1, 1, 1, dtype=torch.uint8)
    return LabeledImages(images, labels, tuple(map(str, range(len(per_class)))), "x")


@FEW
@given(counts, st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**31))
def test_episodes_are_disjoint_labeled_right_and_the_same_again(
    per_class: list[int], ways: int, shots: int, queries: int, seed: int
) -> None:
    data = labeled(per_class, seed)
    possible = ways <= len(per_class) and shots + queries <= min(per_class)
    if not possible:
        with pytest.raises(InputError):
            EpisodeSampler(data, ways, shots, queries)
        return
    sampler = EpisodeSampler(data, ways, shots, queries)
    tasks, again = (sampler.draw(7, torch.Generator().manual_seed(seed)) for _ in range(2))
    assert tasks.support.shape == (7, ways, shots) and tasks.query.shape == (7, ways, queries)
    assert tasks.support.equal(again.support) and tasks.query.equal(again.query)
    for support, query in zip(tasks.support, tasks.query, strict=True):
        drawn = torch.cat([support, query], 1)
        assert len(drawn.unique()) == drawn.numel()  # no image twice
        found = data.labels[drawn]
        assert (found == found[:, :1]).all() and len(found[:, 0].unique()) == ways
    fewer = tasks.with_shots(1)
    assert fewer.support.equal(tasks.support[:, :, :1]) and fewer.query.equal(tasks.query)


@FEW
@given(counts, st.integers(0, 2**31))
def test_fewer_tasks_are_the_first_of_more_classes(per_class: list[int], seed: int) -> None:
    """Every class that can be drawn is drawn sometimes."""
    data = labeled([count + 1 for count in per_class], seed)
    drawn = EpisodeSampler(data, 1, 1, 1).draw(200, torch.Generator().manual_seed(seed))
    assert set(data.labels[drawn.support].flatten().tolist()) == {*range(len(per_class))}


@FEW
@given(classes_of_images, st.floats(0, 0.49), st.floats(0, 0.49))
def test_a_split_takes_every_class_once(
    images: dict[str, list[Path]], validation: float, test: float
) -> None:
    whole = DataSet("x", "made up", {UNSPLIT: list_images("x-all", images)}, Path("x"))
    held_out = validation, test
    split = with_split(whole, held_out)
    parts = [split.splits[name] for name in SPLITS if name in split.splits]
    classes = [known for part in parts for known in part.classes]
    assert sorted(classes) == sorted(images)  # none twice, none lost
    for part in parts:
        for known, label in zip(part.classes, range(len(part.classes)), strict=True):
            mine = [item for item, at in zip(part.items, part.labels, strict=True) if at == label]
            assert mine == images[known]
    assert {n: s.classes for n, s in with_split(whole, held_out).splits.items()} == {
        n: s.classes for n, s in split.splits.items()
    }


@FEW
@given(st.lists(names, unique=True, max_size=20))
def test_the_modulo_rule_takes_every_class_once_and_half_for_training(known: list[str]) -> None:
    splits = closerlook_split((number, name, [Path(name)]) for number, name in enumerate(known))
    found = [name for split in splits.values() for name in split]
    assert sorted(found) == sorted(known) and len(set(found)) == len(found)
    assert len(splits.get("train", {})) == -(-len(known) // 2)


@FEW
@given(classes_of_images, st.data())
def test_a_restriction_numbers_the_kept_classes_anew(
    images: dict[str, list[Path]], data: st.DataObject
) -> None:
    whole = list_images("x", images)
    kept = data.draw(st.sets(st.sampled_from([*images] or ["none"])))
    part = subset(whole, "y", kept)
    assert set(part.classes) == kept & {*images}
    assert sorted(set(part.labels)) == [*range(len(part.classes))]
    found = [(part.classes[at], item) for at, item in zip(part.labels, part.items, strict=True)]
    assert found == [(name, item) for name, some in images.items() if name in kept for item in some]


@FEW
@given(
    st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=20) | st.lists(names, min_size=1)
)
def test_labels_are_numbered_without_gaps_in_order(labels: list[Any]) -> None:
    made = from_arrays(np.zeros((len(labels), 2, 2), np.uint8), labels, "mine")
    assert [made.classes[number] for number in made.labels] == [str(label) for label in labels]
    assert [*made.classes] == [str(label) for label in sorted(set(labels))]
    assert set(made.labels) == {*range(len(made.classes))}


fields = st.fixed_dictionaries(
    {},
    optional={
        "seed": st.integers(0, 2**31),
        "method": st.sampled_from(["omni-training", "meta-training", "joint-training", "ensemble"]),
        "training": st.fixed_dictionaries(
            {},
            optional={
                "steps": st.integers(0, 10**6),
                "val_every": st.integers(1, 10**6),
                "lr": st.floats(1e-12, 1e6),
                "weight_decay": st.floats(0, 1e3),
                "schedule": st.sampled_from(["constant", "linear", "cosine"]),
                "precision": st.sampled_from(["float32", "bfloat16"]),
                "threads": st.none() | st.integers(1, 64),
                "device": st.sampled_from(["auto", "cpu", "cuda:1", "null", "1", "true", "1e3"]),
            },
        ),
        "loss": st.fixed_dictionaries(
            {},
            optional={
                "distill_weight": st.floats(0, 100),
                "ema_decay": st.floats(0, 0.999),
                "r_pre": st.booleans(),
                "l_meta": st.booleans(),
            },
        ),
        "omninet": st.fixed_dictionaries(
            {}, optional={"rank": st.none() | st.integers(1, 9), "shared_until": st.text("012.ab")}
        ),
        "start_from": st.none() | st.text(string.ascii_letters + "/. ~#:'", min_size=1).map(str),
    },
)


@SLOW
@given(fields, st.sampled_from([BLOBS, SINUSOIDS, NAVIGATION]))
def test_a_configuration_survives_being_written_and_read(
    changes: dict[str, Any], base: dict[str, Any]
) -> None:
    """As a run keeps it: what was meant, to the last digit, and the same text when written anew."""
    config = parse(merge(base, changes))
    text = dump(config)
    again = parse(yaml.safe_load(text))
    assert dump(again) == text
    assert dict(again.items()) == dict(config.items())
    for group, value in changes.items():
        given_fields = value if isinstance(value, dict) else {"": value}
        for name, wanted in given_fields.items():
            found = again[f"{group}.{name}".rstrip(".")]
            assert found == (Path(wanted) if group == "start_from" and wanted else wanted)

"""Domains of glyphs: what is trained on, what is tested on, and that the two never look alike."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from omnitraining.datasets import glyphs
from omnitraining.datasets.images import LabeledImages
from omnitraining.errors import InputError
from omnitraining.evaluation import Inference
from omnitraining.experiments.record import read_record
from omnitraining.metatraining import ProtoNet
from omnitraining.model import OmniLoss, OmniNetOptions, build_model
from omnitraining.pretraining import Baseline
from omnitraining.tasks.classification.glyph_problem import SCRIPTS, Glyphs, similar_characters
from omnitraining.tasks.classification.problem import Classification, EpisodeConfig
from tests.reference.tiny import blobs
from tools import glyph_classes

RECORD = Path(__file__).parents[2] / "results" / "glyphs.json"
RENDER = glyphs.render
PROTOCOL = EpisodeConfig(ways=3, shots=1, queries=1, batch=8, test_ways=3, test_shots=(1,))


def plain(character: str, size: int, instances: int, seed: int) -> Tensor:
    """Replaces the rendering, which is slow: pixels that identify the character."""
    levels = torch.tensor([*divmod(ord(character), 256)], dtype=torch.uint8)
    return levels.repeat(instances, 1, size, size // 2)


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMNITRAINING_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(glyphs, "render", plain)
        yield


def problem(training: tuple[str, ...] = ("latin",), benchmarks: tuple[str, ...] = ()) -> Glyphs:
    return Glyphs(PROTOCOL, benchmarks, size=16, instances=2, training=training)


def names(images: LabeledImages) -> str:
    return "".join(images.classes)


def whole(script: str) -> str:
    return glyphs.classes(script, "test")


# --- what is trained on ---


def test_without_further_words_latin_is_trained_on_and_all_else_is_tested_on() -> None:
    data = problem(benchmarks=("latin", "greek", "cyrillic", "georgian", "armenian", "digits"))
    assert [names(part) for part in data.training] == [glyphs.classes("latin", "train")]
    assert names(data.validation) == glyphs.classes("latin", "validation")
    expected = {script: whole(script) for script in ("latin", *SCRIPTS)} | {"digits": "0123456789"}
    assert {name: names(images) for name, images in data.benchmarks.items()} == expected


@pytest.mark.parametrize("unseen", SCRIPTS)
def test_of_the_other_scripts_all_classes_are_trained_on_that_have_no_twin_in_the_unseen_one(
    unseen: str,
) -> None:
    seen = tuple(script for script in SCRIPTS if script != unseen)
    data = problem(("latin", *seen), (unseen,))
    assert names(data.training[0]) == glyphs.classes("latin", "train")
    assert names(data.validation) == glyphs.classes("latin", "validation")
    assert names(data.benchmarks[unseen]) == whole(unseen)
    alike = similar_characters()
    for script, part in zip(seen, data.training[1:], strict=True):
        dropped = set(whole(script)) - set(part.classes)
        assert dropped == {c for c in whole(script) if alike.get(c, set()) & set(whole(unseen))}
        assert names(part) == "".join(c for c in whole(script) if c not in dropped)
    assert data.pre_outputs == sum(len(part.classes) for part in data.training)


def test_every_image_keeps_its_class_where_others_are_dropped() -> None:
    (part,) = problem(("armenian",), ("cyrillic", "georgian", "digits")).training
    assert 0 < len(part.classes) < len(whole("armenian"))
    assert part.labels.tolist() == [label for label in range(len(part.classes)) for _ in range(2)]
    for image, label in zip(part.images, part.labels, strict=True):
        assert torch.equal(image, plain(part.classes[label], 16, 1, 0)[0])


def test_letters_that_look_like_digits_are_not_trained_on_where_digits_are_tested() -> None:
    (alone,) = problem(("georgian",), ("latin",)).training
    (part,) = problem(("georgian",), ("latin", "digits")).training
    assert set(alone.classes) - set(part.classes) == set("ვჳც")


def test_fewer_classes_are_the_first_of_each_domain() -> None:
    data = Glyphs(PROTOCOL, (), 16, 2, training_classes=4, training=("latin", "greek"))
    expected = [glyphs.classes("latin", "train")[:4], whole("greek")[:4]]
    assert [names(part) for part in data.training] == expected
    assert all(part.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3] for part in data.training)


# --- scripts ---


def test_scripts_are_split_by_the_rule_of_cub_and_twins_are_one_class() -> None:
    data = problem(("scripts",), ("scripts",))
    alike, kept = similar_characters(), list[str]()
    for script in SCRIPTS:
        for character in whole(script):
            if not any(other in alike.get(character, ()) for other in kept):
                kept.append(character)
    splits: dict[str, str] = {"train": "", "validation": "", "test": ""}
    for index, character in enumerate(kept):
        split = "train" if index % 2 == 0 else "validation" if index % 4 == 1 else "test"
        splits[split] += character
    assert names(data.training[0]) == splits["train"]
    assert names(data.validation) == splits["validation"]
    assert names(data.benchmarks["scripts"]) == splits["test"]
    # every image is of the class that its label names
    for images in (*data.training, data.validation, data.benchmarks["scripts"]):
        for image, label in zip(images.images, images.labels, strict=True):
            assert torch.equal(image, plain(images.classes[label], 16, 1, 0)[0])


def test_scripts_go_with_latin_whose_validation_then_chooses() -> None:
    data = problem(("latin", "scripts"), ("scripts", "latin"))
    assert names(data.validation) == glyphs.classes("latin", "validation")
    assert [part.name for part in data.training] == ["glyphs-latin-train", "glyphs-scripts-train"]


# --- what is refused ---


@pytest.mark.parametrize(
    ("training", "benchmarks", "words"),
    [
        ((), (), "problem.training is empty: choose from latin, greek"),
        (("digits",), (), "training domain 'digits' is not one of latin, greek"),
        (("latin",), ("runic",), "benchmark 'runic' is not one of latin, greek"),
        (("greek",), ("greek",), "benchmark 'greek' has classes of training domain 'greek'"),
        (("scripts",), ("greek",), "benchmark 'greek' has classes of training domain 'scripts'"),
        (("latin", "greek"), ("scripts",), "benchmark 'scripts' has classes of training domain"),
        (("latin", "latin"), (), "training domains 'latin' and 'latin' share classes"),
        (("greek", "scripts"), (), "training domains 'greek' and 'scripts' share classes"),
    ],
)
def test_domains_that_share_classes_or_are_unknown_are_refused(
    training: tuple[str, ...], benchmarks: tuple[str, ...], words: str
) -> None:
    with pytest.raises(InputError) as caught:
        problem(training, benchmarks)
    assert words in str(caught.value)


# --- similar characters ---


def test_stored_twins_equal_the_twins_that_the_rule_finds() -> None:
    path = Path(glyphs.__file__).with_name("glyph_twins.json")
    assert json.loads(path.read_text("utf-8"))["twins"] == glyph_classes.twins()


def test_known_look_alikes_are_twins_and_only_classes_of_different_domains_are() -> None:
    alike = similar_characters()
    for one, other in ("ФՓ", "ΨѰ", "3ვ", "Ⴑն"):
        assert other in alike[one] and one in alike[other]
    domains = [whole(script) for script in SCRIPTS] + ["0123456789"]
    home = {character: domain for domain in domains for character in domain}
    assert all(home[one] != home[other] for one in alike for other in alike[one])


# --- tasks ---


def test_the_tasks_equal_the_tasks_of_the_published_record() -> None:
    """Other test tasks would make all records void."""
    row = read_record(RECORD).rows["omni-training"]
    options = row.training.config["problem"]["init_args"]
    latin = glyphs.load("latin", "test", size=options["size"], instances=options["instances"])
    protocol, rest = (
        EpisodeConfig(**options["protocol"] | {"test_shots": (1, 5)}),
        blobs(8, 30, "rest"),
    )
    # Neither training nor the model has a part in the tasks.
    data = Classification(rest, rest, {"latin": latin}, protocol)
    network = build_model(
        "meta-training",
        lambda: nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16, 8)),
        data,
        Baseline(),
        ProtoNet(),
        OmniLoss(),
        OmniNetOptions(),
    )
    for name, cell in data.evaluate(network, Inference()).cells.items():
        assert cell.tasks_hash == row.cells[name].tasks

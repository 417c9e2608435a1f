"""The rendered characters: correct labels, disjoint splits, and one set of pictures per seed."""

import itertools
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from omnitraining.datasets import glyphs
from omnitraining.datasets.images import gray, rotated
from tools import glyph_classes

SPLITS = [("latin", "train"), ("latin", "validation"), ("latin", "test")] + [
    (script, "test") for script in ("greek", "cyrillic", "georgian", "armenian")
]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("OMNITRAINING_CACHE", str(tmp_path))
    yield


@pytest.fixture
def four_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glyphs, "classes", lambda script, split: "AEΩж")


@pytest.mark.parametrize(("script", "split"), SPLITS)
def test_every_class_has_its_images_and_none_is_blank(script: str, split: str) -> None:
    data = glyphs.load(script, split, instances=2)
    count = len(data.classes)
    assert data.images.shape == (2 * count, 1, 32, 32) and data.images.dtype == torch.uint8
    assert data.labels.tolist() == [label for label in range(count) for _ in range(2)]
    assert data.classes == tuple(glyphs.classes(script, split))
    # Noise alone would leave block means flat: 0.12 * 255 / 4 is below 8.
    blocks = torch.nn.functional.avg_pool2d(data.images.float(), 4).flatten(1)
    assert (blocks.max(1).values - blocks.min(1).values).min() > 25


def test_there_are_enough_classes() -> None:
    least = [300, 60, 100, 30, 30, 30, 30]
    for (script, split), number in zip(SPLITS, least, strict=True):
        assert len(glyphs.classes(script, split)) >= number


def test_splits_share_no_class_and_no_base_letter() -> None:
    lists = [glyphs.classes(script, split) for script, split in SPLITS]
    assert len(set("".join(lists))) == len("".join(lists))
    for one, other in itertools.combinations(lists[:3], 2):
        bases = [{unicodedata.normalize("NFD", c)[0].casefold() for c in s} for s in (one, other)]
        assert not bases[0] & bases[1]


def test_classes_are_plain_letters_of_their_script() -> None:
    for script, split in SPLITS:
        for character in glyphs.classes(script, split):
            assert unicodedata.name(character).startswith(script.upper())
            assert unicodedata.category(character) in ("Lu", "Ll", "Lo")
            assert unicodedata.normalize("NFKC", character) == character


def test_known_look_alikes_are_never_two_classes() -> None:
    every = "".join(glyphs.classes(script, split) for script, split in SPLITS)
    for group in ("AАΑ", "CcСсϹϲᴄ", "XxХхΧ", "VvᴠѴν", "KКΚ", "PРΡ", "Яᴙ", "Иᴎ", "ßβ", "ŢȚ"):
        assert sum(character in every for character in group) <= 1, group
    assert not set(every) & set("0123456789OoОоΟοOlI1IІΙ")


def test_no_test_class_looks_like_a_training_class() -> None:
    seen = glyphs.classes("latin", "train")[::4] + glyphs.classes("latin", "validation")[::4]
    latin = glyphs.classes("latin", "test")[::4]
    foreign = "".join(glyphs.classes(script, "test")[::6] for script, _ in SPLITS[3:])
    table = glyph_classes.distances([*seen, *latin, *foreign])[: len(seen), len(seen) :]
    assert table[:, : len(latin)].min() >= glyph_classes.KIN_ALIKE
    assert table[:, len(latin) :].min() >= glyph_classes.FOREIGN_ALIKE


def test_distance_of_characters() -> None:
    # Latin A and Cyrillic A are one drawing; E and X share none; the rest is in between.
    table = glyph_classes.distances([*"AАEXíi"])
    assert table[0, 1] < 0.01
    assert table[2, 3] > 0.6
    assert table.diagonal().max() == 0 and table.equal(table.T)


def test_family_and_letter() -> None:
    assert [glyph_classes.family(c) for c in "aǞɹɾÆɛ"] == ["A", "A", "R", "R", "AE", "E"]
    assert glyph_classes.letter("Ș") == glyph_classes.letter("ş")
    assert glyph_classes.letter("ᴀ") == glyph_classes.letter("A") != glyph_classes.letter("Á")


def test_families_are_dealt_whole_and_by_share() -> None:
    splits = glyph_classes.deal([*"AÀÁÂBḂCĆDĎ"])
    # A comes first; then validation and test are empty; then train is furthest below its share.
    assert splits == {"train": [*"ADÀÁÂĎ"], "validation": [*"BḂ"], "test": [*"CĆ"]}


@pytest.mark.usefixtures("four_classes")
def test_images_follow_from_the_seed(tmp_path: Path) -> None:
    first = glyphs.load("latin", "test", instances=3)
    again = glyphs.load("latin", "test", instances=3, cache=tmp_path / "elsewhere")
    other = glyphs.load("latin", "test", instances=3, seed=1)
    assert first.images.equal(again.images) and not first.images.equal(other.images)
    assert first.fingerprint == again.fingerprint != other.fingerprint


@pytest.mark.usefixtures("four_classes")
def test_images_are_identified_by_what_decides_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another processor renders some pixels a level apart, of which tasks must not depend."""
    latin = glyphs.load("latin", "test", instances=3)
    apart = replace(latin, images=latin.images ^ 1)
    assert not apart.images.equal(latin.images) and apart.fingerprint == latin.fingerprint
    assert replace(latin, labels=latin.labels.flip(0)).fingerprint != latin.fingerprint
    assert replace(latin, recipe="").fingerprint != replace(apart, recipe="").fingerprint
    for other in (gray(latin), rotated(latin), glyphs.load("latin", "test", size=16, instances=3)):
        assert other.fingerprint != latin.fingerprint
    monkeypatch.setattr(glyphs, "RENDERING", glyphs.RENDERING + 1)
    assert glyphs.load("latin", "test", instances=3).fingerprint != latin.fingerprint


def test_an_image_depends_on_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    three = glyphs.render("Ω", 32, 3, seed=0)
    assert glyphs.render("Ω", 32, 5, seed=0)[:3].equal(three)
    monkeypatch.setattr(glyphs, "classes", lambda script, split: "AΩ")
    assert glyphs.load("latin", "test", instances=3).images[3:].equal(three)


@pytest.mark.usefixtures("four_classes")
def test_second_load_reads_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered = glyphs.load("latin", "test", instances=2)
    monkeypatch.delattr(glyphs, "render")
    assert glyphs.load("latin", "test", instances=2).images.equal(rendered.images)
    assert [path.suffix for path in tmp_path.iterdir()] == [".npz"]
    with pytest.raises(NameError):
        glyphs.load("latin", "test", instances=3)


@pytest.mark.usefixtures("four_classes")
def test_changed_classes_or_rendering_miss_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    glyphs.load("latin", "test", instances=1)
    monkeypatch.setattr(glyphs, "RENDERING", -1)
    glyphs.load("latin", "test", instances=1)
    monkeypatch.setattr(glyphs, "classes", lambda script, split: "AEΩ")
    assert len(glyphs.load("latin", "test", instances=1).images) == 3
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.usefixtures("four_classes")
@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "other shape", "no archive"])
def test_damaged_cache_is_rendered_again(tmp_path: Path, damage: str) -> None:
    expected = glyphs.load("latin", "test", instances=2).images
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    middle = len(content) // 2
    if damage == "other shape":
        np.savez(path, images=np.zeros((1, 1, 32, 32), np.uint8))
    else:
        path.write_bytes({
            "truncated": content[:middle],
            "empty": b"",
            "flipped": content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :],
            "no archive": b"not an archive",
        }[damage])  # fmt: skip
    assert glyphs.load("latin", "test", instances=2).images.equal(expected)
    assert path.read_bytes() == content


def test_errors_say_what_is_allowed() -> None:
    with pytest.raises(ValueError, match="no script 'runic'; there are: latin, greek, cyrillic"):
        glyphs.load("runic", "test")
    with pytest.raises(ValueError, match="greek has no split 'train', only: test"):
        glyphs.load("greek", "train")
    with pytest.raises(ValueError, match="latin has no split 'val', only: train, validation"):
        glyphs.load("latin", "val")
    with pytest.raises(ValueError, match="instances >= 1"):
        glyphs.load("latin", "test", instances=0)
    with pytest.raises(ValueError, match="no bundled text face has"):
        glyphs.render("漢", 32, 1, seed=0)

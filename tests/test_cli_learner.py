"""``omni adapt`` and ``omni predict``, as a person with photographs uses them."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

import omnitraining
from omnitraining import FewShotClassifier
from omnitraining.cli import main
from omnitraining.datasets import digits

KINDS = ("png", "jpg", "bmp", "gif", "webp", "tif")
NAMES = ("naïve [one] №1", "two & three", "#4 – ünï", "z,\"")  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Handwritten digits with awkward names, in mixed sizes, colors and formats."""
    folder, data = tmp_path_factory.mktemp("photos [1]"), digits.load(size=32)
    for number, name in enumerate(NAMES):
        for j, index in enumerate((data.labels == number).nonzero()[:8, 0]):
            image = Image.fromarray(data.images[index, 0].numpy()).resize((40 + 7 * j, 33 + j))
            place = folder / "support" / name if j < 5 else folder / "query"
            place.mkdir(parents=True, exist_ok=True)
            image = image.convert("RGB") if j % 2 else image
            image.save(place / f"{name} ({j}) [x].{KINDS[j % 6]}")
    return folder


@pytest.fixture(scope="module")
def learned(photos: Path) -> Path:
    out = photos / "out" / "my photos.learner"
    assert main(["adapt", "glyphs", str(photos / "support"), "--out", str(out)]) == 0
    return out


def printed(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main([str(word) for word in words]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main([str(word) for word in words]) == 2
    out, error = capsys.readouterr()
    assert not out and error.startswith("omni: ") and error.count("\n") == 1
    return error


def test_adapt_prints_what_was_learned_and_what_comes_next(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = printed(capsys, "adapt", "glyphs", photos / "support", "--out", tmp_path / "a")
    assert "20 images of 4 classes: " in out and f"omni predict {tmp_path / 'a'} IMAGE" in out


def test_class_folders_are_predicted_as_they_are_learned(
    photos: Path, learned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = json.loads(printed(capsys, "predict", learned, photos / "support", "--json"))
    assert [Path(row["image"]).parent.name for row in found] == [n for n in sorted(NAMES)
                                                                for _ in range(5)]  # fmt: skip
    assert sum(Path(row["image"]).parent.name == row["label"] for row in found) >= 16


def test_a_folder_of_images_is_labeled(
    photos: Path, learned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = printed(capsys, "predict", learned, photos / "query")
    lines = [line for line in table.splitlines() if "(" in line]
    assert len(lines) == 12
    for name in NAMES:  # brackets are kept, not read as markup
        assert sum(f"{name} (" in line for line in lines) == 3
    records = json.loads(printed(capsys, "predict", learned, photos / "query", "--json"))
    right = [Path(record["image"]).name.startswith(record["label"]) for record in records]
    assert sum(right) >= 11
    for record in records:
        assert record["probabilities"].keys() == {*NAMES}
        assert sum(record["probabilities"].values()) == pytest.approx(1, abs=1e-3)
        odds = record["probabilities"]
        assert odds[record["label"]] == max(odds.values())


def test_csv_can_be_read_back(
    photos: Path, learned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = printed(capsys, "predict", learned, photos / "query", "--csv")
    rows = [*csv.DictReader(io.StringIO(out))]
    assert [*rows[0]] == ["image", "label", *sorted(NAMES)] and len(rows) == 12


def test_images_are_named_one_by_one_or_by_a_pattern(
    photos: Path, learned: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos)
    one = Path("query") / f"{NAMES[0]} (5) [x].tif"
    out = printed(capsys, "predict", learned, one, "query/two*", "--json")
    assert [Path(r["image"]).name[:4] for r in json.loads(out)] == ["naïv", "two ", "two ", "two "]
    found = printed(capsys, "predict", learned, "support/*/*(0)*", "--csv")
    assert found.count("\n") == 5
    assert "no file matches query/x*" in refused(capsys, "predict", learned, "query/x*")


def test_unknown_images_are_none_of_these(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapt = ("adapt", "glyphs", photos / "support", "--out", tmp_path / "a")
    printed(capsys, *adapt, "--accept-rate", "0.9", "--flow", "pre")
    noise = np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    assert "none of these" in printed(capsys, "predict", tmp_path / "a", tmp_path / "noise.png")
    words = ("predict", tmp_path / "a", tmp_path / "noise.png", "--json")
    assert json.loads(printed(capsys, *words))[0]["label"] is None
    assert "noise.png,," in printed(capsys, *words[:-1], "--csv")
    with pytest.warns(FutureWarning, match="reject is called accept_rate now"):
        printed(capsys, *adapt[:-1], tmp_path / "b", "--reject", "0.9", "--flow", "pre")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    both = refused(capsys, *adapt, "--reject", "0.9", "--accept-rate", "0.9")
    assert "reject is the former name of accept_rate" in both


def test_wrong_input_is_one_line(
    photos: Path, learned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ("--out", tmp_path / "x")
    (tmp_path / "note.png").write_text("no image")
    (tmp_path / "one" / "cat").mkdir(parents=True)
    Image.new("L", (9, 9)).save(tmp_path / "one" / "cat" / "a.png")
    for words, command in {
        "SUPPORT is missing: omni adapt photos FOLDER": ("adapt", "photos", *out),
        "there is no folder at": ("adapt", "glyphs", tmp_path / "none", *out),
        "holds no classes": ("adapt", "glyphs", photos / "query", *out),
        "images (1) are all of one class, 'cat'": ("adapt", "glyphs", tmp_path / "one", *out),
        "rows does not exist: give a shipped": ("adapt", "rows", photos / "support", *out),
        "flow is 'mid'": ("adapt", "glyphs", photos / "support", *out, "--flow", "mid"),
        "accept_rate is 2.0": ("adapt", "glyphs", photos / "support", *out, "--accept-rate", "2"),
        "arguments are required: --out": ("adapt", "glyphs", photos / "support"),
        "there is no saved learner at": ("predict", tmp_path / "x", tmp_path / "note.png"),
        "note.png is not an image": ("predict", learned, tmp_path / "note.png"),
        "note.png is not a learner": ("predict", tmp_path / "note.png", learned),
        "not allowed with argument --json": ("predict", learned, photos, "--json", "--csv"),
    }.items():
        assert words in refused(capsys, *command)
    assert not (tmp_path / "x").exists()


def test_a_model_that_was_not_fitted_is_distinguished(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    omnitraining.load("glyphs").save(tmp_path / "model")
    words = refused(capsys, "predict", tmp_path / "model", photos / "query")
    assert "has not learned any classes yet: use 'omni adapt' first" in words


def test_a_learner_is_evaluated_on_class_folders(
    photos: Path, learned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    support, record = photos / "support", tmp_path / "a.json"
    out = printed(
        capsys, "evaluate", learned, support, "--json", record, "--figures", tmp_path / "b"
    )
    found = json.loads(record.read_text())
    assert f"accuracy {found['accuracy']:.1%} (95 % interval " in out
    assert found["images"] == 20 and sum(map(sum, found["confusion"])) == 20
    assert all(name in out for name in NAMES) and "confusion.png" in out
    rows = [*csv.reader(io.StringIO(printed(capsys, "evaluate", learned, support, "--csv")))]
    assert rows[0] == ["image", "class", "predicted", "probability"]
    assert sum(row[1] == row[2] for row in rows[1:]) == found["correct"]


def test_options_of_runs_and_learners_are_distinguished(
    photos: Path, learned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "FOLDER is missing" in refused(capsys, "evaluate", learned)
    assert "is a file" in refused(capsys, "evaluate", learned, photos, "--shots", 1)
    assert "is no file" in refused(capsys, "evaluate", tmp_path, photos / "support")


def test_the_photo_model_is_the_default(photos: Path, tmp_path: Path) -> None:
    support, query = photos / "support", photos / "query"
    assert main(["adapt", "--out", str(tmp_path / "a"), str(support)]) == 0
    assert main(["adapt", "photos", "--out", str(tmp_path / "b"), str(support)]) == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    adapted = omnitraining.load(tmp_path / "a")
    for learner in (omnitraining.load(), FewShotClassifier()):
        assert_array_equal(learner.fit(support).predict_proba(query), adapted.predict_proba(query))

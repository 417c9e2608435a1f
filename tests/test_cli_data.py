"""``omni data`` as its user meets it: folders on disk in, lines and exit codes out."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from omnitraining import datasets
from omnitraining.cli import main
from omnitraining.datasets import image_cache, standards
from omnitraining.tasks.classification.photos import Photos, with_split
from omnitraining.tasks.classification.problem import EpisodeConfig
from tests.reference import layouts

SPLITS = {"train": 6, "val": 5, "test": 5}
IMAGES = 21


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OMNITRAINING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    """A sound data set of small images: a folder per split and class."""
    random = np.random.default_rng(0)
    for split, classes in SPLITS.items():
        for label in range(classes):
            folder = tmp_path / "birds" / split / f"{split}-{label}"
            folder.mkdir(parents=True)
            for i in range(IMAGES):
                levels = random.integers(0, 256, (9, 11, 3), np.uint8)
                Image.fromarray(levels).save(folder / f"{i:02}.png")
    return tmp_path / "birds"


Runs = Callable[..., tuple[int, list[str], list[str]]]


@pytest.fixture
def omni(capsys: pytest.CaptureFixture[str]) -> Runs:
    """Runs ``omni data``; returns the exit code and the lines on stdout and stderr."""

    def call(*arguments: object) -> tuple[int, list[str], list[str]]:
        capsys.readouterr()
        code = main(["data", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out.splitlines(), captured.err.splitlines()

    return call


# --- check ---


def test_a_sound_data_set_can_be_used(birds: Path, omni: Runs, cache: Path) -> None:
    code, out, err = omni("check", birds)
    assert code == 0 and err == [] and not cache.exists()
    assert "birds: a folder per split, and in it one per class" in out[0]
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in out if "│" in line]
    assert rows == [
        ["train", "6", "126", "21 (train-0)", "21 (train-0)", "11 x 9", "RGB 126"],
        ["validation", "5", "105", "21 (val-0)", "21 (val-0)", "11 x 9", "RGB 105"],
        ["test", "5", "105", "21 (test-0)", "21 (test-0)", "11 x 9", "RGB 105"],
    ]
    assert out[-1] == f"{birds} can be used   next: omni data prepare {birds}"


def test_damaged_images_must_be_corrected(birds: Path, omni: Runs) -> None:
    wrong = birds / "test" / "test-3" / "05.png"
    wrong.write_text("hello")
    code, out, err = omni("check", birds)
    assert code == 1 and err == []
    assert out[-1] == (
        f"must be corrected: 1 of 105 images of test cannot be used: {wrong} is not an image, or "
        "of a kind that Pillow cannot read"
    )


def test_warnings_leave_a_data_set_usable(birds: Path, omni: Runs) -> None:
    source, target = birds / "train/train-1/02.png", birds / "test/test-0/07.png"
    target.write_bytes(source.read_bytes())
    (birds / "val/val-2/20.png").unlink()
    code, out, err = omni("check", birds)
    assert code == 0 and err == []
    assert out[-3:-1] == [
        f"warning: images both in train and in test, which is not unseen then: 1: {source} = "
        f"{target}",
        "warning: classes of validation with fewer images than the 21 of a 5-way 5-shot 16-query "
        "episode: 1 of 5: val-2 (20)",
    ]


def test_another_data_set_than_its_name_says_must_be_corrected(birds: Path, omni: Runs) -> None:
    code, out, err = omni("check", birds, "--name", "cub")
    assert code == 1 and err == []
    assert out[-1] == f"must be corrected: {birds} holds 16 classes: cub has 200"


def test_data_in_no_known_layout_must_be_corrected(tmp_path: Path, omni: Runs) -> None:
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "notes.txt").write_text("")
    code, out, err = omni("check", tmp_path / "odd")
    assert code == 1 and err == []
    (line,) = out
    assert line.startswith(f"must be corrected: {tmp_path / 'odd'} is in no known layout")


def test_an_empty_class_must_be_corrected(birds: Path, omni: Runs) -> None:
    (birds / "train" / "ghost").mkdir()
    code, out, err = omni("check", birds)
    assert code == 1 and err == [] and len(out) == 1
    assert out[0].startswith("must be corrected: class 'ghost' is empty")


def test_what_is_left_out_is_reported_once_and_before_training(birds: Path, omni: Runs) -> None:
    (birds / "test" / "test-3" / "a.heic").touch()
    (birds / "notes.csv").write_text("day,weather\n1,sunny\n")
    code, out, err = omni("check", birds)
    assert code == 0 and err == [] and len(out) == len(set(out))
    left_out, not_read = out[-3:-1]
    assert left_out == (
        f"warning: left out of {birds}: 1 file that is no image by its name (test/test-3/a.heic)"
    )
    assert not_read.startswith(f"warning: {birds / 'notes.csv'} has the columns day, weather: it ")
    code, out, err = omni("prepare", birds, "--size", 12)
    assert code == 0 and err == [left_out, not_read]


# --- prepare ---


def test_prepared_images_are_the_images_that_training_loads(
    birds: Path, omni: Runs, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = omni("prepare", birds, "--size", 12)
    assert code == 0 and err == []
    side, files = 13, sorted(cache.glob("*.uint8"))
    assert [path.name.rsplit("-", 1)[0] for path in files] == [
        f"birds-{split}-13" for split in ("test", "train", "validation")
    ]
    for line, split, count in zip(
        out, ("train", "validation", "test"), (126, 105, 105), strict=True
    ):
        (file,) = (path for path in files if f"-{split}-" in path.name)
        size = count * 3 * side * side
        assert file.stat().st_size == size
        assert line == (f"{split}: {count} images of 13 x 13 pixels, {size / 1e6:.1f} MB in {file}")
    monkeypatch.delattr(image_cache, "decode")  # as nothing is decoded again
    assert omni("prepare", birds, "--size", 12) == (0, out, [])
    data = image_cache.load_images(datasets.read(birds).splits["train"], side)
    with Image.open(birds / "train" / "train-1" / "00.png") as image:
        expected = np.asarray(image.resize((13, 13), Image.Resampling.BILINEAR))
    assert data.labels[21] == 1 and (data.images[21].permute(1, 2, 0).numpy() == expected).all()
    assert data.labels.equal(torch.arange(6).repeat_interleave(21))


@pytest.mark.parametrize(("augmentation", "side"), [("pad-crop", 12), ("none", 12)])
def test_the_size_of_what_is_prepared_is_that_of_the_augmentation(
    augmentation: str, side: int, birds: Path, omni: Runs, cache: Path
) -> None:
    code, out, _ = omni("prepare", birds, "--size", 12, "--augmentation", augmentation)
    assert code == 0 and f"train: 126 images of {side} x {side} pixels" in out[0]
    assert {path.name.rsplit("-", 2)[1] for path in cache.glob("*.uint8")} == {str(side)}


def test_the_folder_and_size_of_what_is_prepared(
    birds: Path, omni: Runs, cache: Path, tmp_path: Path
) -> None:
    code, out, _ = omni("prepare", birds, "--cache", tmp_path / "deep" / "er")
    assert code == 0 and not cache.exists()
    assert f"126 images of 96 x 96 pixels, 3.5 MB in {tmp_path / 'deep' / 'er'}" in out[0]


def test_damaged_images_end_preparing_or_are_left_out(birds: Path, omni: Runs) -> None:
    empty, cut = birds / "train/train-0/00.png", birds / "train/train-5/20.png"
    empty.write_bytes(b"")
    cut.write_bytes(cut.read_bytes()[:70])
    code, out, (line,) = omni("prepare", birds)
    assert code == 2 and out == []
    assert line.startswith("omni: 2 of 126 images of birds-train cannot be used: ")
    assert f"{empty} is empty (0 bytes); {cut} cannot be decoded: " in line
    for _ in range(2):
        code, out, (line,) = omni("prepare", birds, "--skip-damaged")
        assert code == 0 and out[0].startswith("train: 124 images of 96 x 96 pixels")
        assert line.startswith(f"warning: left out 2 of 126 images of birds-train: {empty} is ")


def test_a_cache_that_cannot_be_written_is_one_line(
    birds: Path, omni: Runs, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    code, out, (line,) = omni("prepare", birds, "--cache", tmp_path / "file")
    assert code == 2 and out == []
    assert line.startswith(f"omni: cannot write {tmp_path / 'file' / 'birds-train-96-'}")
    assert line.endswith(f": {tmp_path / 'file'} is not a folder")


# --- layouts ---


@pytest.mark.parametrize("layout", [name for name in layouts.LAYOUTS if name != "easyfsl"])
def test_every_layout_is_checked_and_prepared(
    layout: str, omni: Runs, cache: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "Plantae" if layout == "plantae" else tmp_path / "places-data"
    expected = layouts.write_layout(layout, folder, classes=8, images=3)
    code, out, err = omni("check", folder)
    assert code == 0 and err == [] and out[-1].startswith(f"{folder} can be used")
    rows = [line.strip("│").split("│") for line in out if "│" in line]
    counts = {row[0].strip(): int(row[1]) for row in rows}
    assert counts == {split: len(members) for split, members in expected.items()}
    assert all("a 5-way 5-shot 16-query episode" in line for line in out if "warning" in line)
    code, out, err = omni("prepare", folder, "--size", 32)
    # What has no split is prepared in the parts that training splits it into.
    splits = {s: part for s, part in with_split(datasets.read(folder)).splits.items()
              if s != "all" or "train" in expected}  # fmt: skip
    assert code == 0 and err == [] and len(out) == len(splits)
    for line, (split, listing) in zip(out, splits.items(), strict=True):
        members = expected.get(split, expected.get("all"))
        images = np.fromfile(line.rsplit(" in ", 1)[1], np.uint8).reshape(-1, 3, 36, 36)
        assert line.startswith(f"{split}: {len(images)} images of 36 x 36 pixels")
        for pixels, label in zip(images, listing.labels, strict=True):
            number = members[listing.classes[label]]
            assert layouts.nearest(pixels.transpose(1, 2, 0), 8) == number


def test_what_is_prepared_is_not_decoded_again_for_training(
    omni: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layouts.write_layout("class-folders", tmp_path / "own", classes=10, images=4)
    assert omni("prepare", tmp_path / "own", "--size", 16)[0] == 0
    monkeypatch.setattr(image_cache, "decode", lambda *_: pytest.fail("decoded again"))
    protocol = EpisodeConfig(ways=2, shots=1, queries=2, test_ways=2, test_shots=(1,))
    Photos(tmp_path, ("own",), "own", ("own",), protocol, size=16)


def test_data_of_another_split_must_be_corrected(omni: Runs, tmp_path: Path) -> None:
    layouts.write_layout("easyfsl", tmp_path / "cub")
    code, out, err = omni("check", tmp_path / "cub")
    assert code == 1 and err == [] and len(out) == 1 and out[0].startswith("must be corrected: ")


def test_a_data_set_that_is_what_its_name_says(
    omni: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layouts.write_layout("cub", tmp_path / "cub", classes=8, images=3)
    for images, expected in (((12, 6, 6), 0), ((12, 6, 7), 1)):
        tiny = standards.Standard((4, 2, 2), images)
        monkeypatch.setitem(standards.STANDARDS, "cub", tiny)
        code, out, _ = omni("check", tmp_path / "cub", "--name", "cub")
        assert code == expected
    assert f"must be corrected: {tmp_path / 'cub'} holds 6 images in test: cub has 7" in out


# --- wrong use ---


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "the following arguments are required: {check,prepare} (see 'omni data --help')"),
        (("fly",), "invalid choice: 'fly'"),
        (("check",), "the following arguments are required: PATH (see 'omni data check --help')"),
        (("check", "nowhere"), "there is no data set at nowhere"),
        (("prepare", "nowhere"), "there is no data set at nowhere"),
        (("check", ".", "--nam", "cub"), "unrecognized arguments: --nam cub"),
        (("check", ".", "--name", "birds"), "no standard data set is called 'birds': choose from"),
        (("prepare", ".", "--size", "0"), "--size is 0: it must be 1 or more"),
        (("prepare", ".", "--size", "big"), "argument --size: invalid int value: 'big'"),
    ],
)
def test_wrong_use_is_one_line(arguments: tuple[str, ...], words: str, omni: Runs) -> None:
    code, out, (line,) = omni(*arguments)
    assert code == 2 and out == [] and line.startswith("omni: ") and words in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--help",), "check prepare PATH train val test CSV JSON mini-ImageNet"),
        (("check", "--help"), "PATH --name exit code 0 1"),
        (("prepare", "--help"), "PATH --size --cache --skip-damaged OMNITRAINING_CACHE"),
    ],
)
def test_help_has_what_a_newcomer_needs(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["data", *arguments])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert all(word in out for word in words.split())

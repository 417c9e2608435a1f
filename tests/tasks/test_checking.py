"""What is reported of data sets with known faults."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from omnitraining.datasets import DataSet
from omnitraining.datasets.checking import Report, check, table
from omnitraining.datasets.listing import Item, Listing
from omnitraining.errors import InputError


def noise(seed: int | list[int], width: int = 12, height: int = 10) -> Image.Image:
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(levels)


def split(folder: Path, name: str, images: int = 21, classes: int = 5) -> Listing:
    """A split of files, none like another."""
    items = list[Item]()
    (folder / name).mkdir()
    for i in range(classes * images):
        path = folder / name / f"{i}.png"
        noise([*name.encode(), i]).save(path)
        items.append(path)
    labels = [i // images for i in range(len(items))]
    return Listing(f"birds-{name}", tuple(f"{name}{i}" for i in range(classes)), items, labels)


@pytest.fixture
def birds(tmp_path: Path) -> DataSet:
    """A data set without fault."""
    splits = {name: split(tmp_path, name) for name in ("train", "validation", "test")}
    return DataSet("birds", "folders [of] classes", splits, tmp_path)


def file(data_set: DataSet, split: str, position: int) -> Path:
    path = data_set.splits[split].items[position]
    assert isinstance(path, Path)
    return path


def shown(report: Report) -> list[str]:
    console = Console(width=200, markup=False)
    with console.capture() as capture:
        console.print(table(report))
    return [line for line in capture.get().splitlines() if "│" in line]


def test_a_sound_data_set_has_no_findings(birds: DataSet) -> None:
    report = check(birds)
    assert report.is_usable and report.problems == [] and report.warnings == []
    assert report.name == "birds" and list(report.splits) == ["train", "validation", "test"]
    test = report.splits["test"]
    assert test.per_class == {f"test{i}": 21 for i in range(5)}
    assert test.sizes == {(12, 10): 105} and test.modes == {"RGB": 105}


def test_sizes_modes_and_classes_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    noise(0, 30, 8).convert("L").save(folder / "gray.jpg")
    noise(1, 9, 20).quantize().save(folder / "palette.png")
    noise(2, 9, 8).convert("CMYK").save(folder / "ink.tif")
    arrays = [np.asarray(noise(3, 50, 60)), np.asarray(noise(4, 50, 60).convert("L"))]
    items: list[Item] = [*sorted(folder.iterdir()), *arrays]
    listing = Listing("odd-all", ("few", "[many]"), items, [0, 1, 1, 1, 1])
    report = check(DataSet("odd", "a table", {"all": listing}, folder))
    summary = report.splits["all"]
    assert summary.per_class == {"few": 1, "[many]": 4}
    sizes = {(30, 8): 1, (9, 20): 1, (9, 8): 1, (50, 60): 2}
    assert summary.sizes == sizes and summary.modes == Counter(L=2, P=1, CMYK=1, RGB=1)
    (row,) = shown(report)
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells[:6] == ["all", "2", "5", "1 (few)", "4 ([many])", "9-50 x 8-60"]
    assert cells[6].startswith("L 2, ")


def test_every_damaged_file_is_counted_and_five_are_named(birds: DataSet) -> None:
    for position in (3, 5, 7, 20, 50, 51, 104):
        file(birds, "test", position).write_bytes(b"")
    file(birds, "train", 0).unlink()
    content = file(birds, "train", 9).read_bytes()
    file(birds, "train", 9).write_bytes(content[:200])
    report = check(birds)
    assert not report.is_usable and report.warnings == []  # empty files are no duplicates
    train, test = report.problems
    assert train.startswith("2 of 105 images of train cannot be used: ")
    assert f"{file(birds, 'train', 0)} cannot be opened: No such file or directory; " in train
    assert f"{file(birds, 'train', 9)} cannot be decoded: " in train
    assert test.startswith("7 of 105 images of test cannot be used: ")
    assert f"{file(birds, 'test', 50)} is empty (0 bytes); and 2 more" in test
    assert str(file(birds, "test", 51)) not in test
    assert sum(report.splits["test"].sizes.values()) == 98


def test_an_array_that_is_no_image_is_named_by_its_position() -> None:
    items: list[Item] = [np.zeros((9, 9), np.uint8), np.zeros((3, 9, 9), np.uint8)]
    listing = Listing("odd-all", ("a",), items, [0, 0])
    report = check(DataSet("odd", "a pickle", {"all": listing}, Path("odd")))
    (problem,) = report.problems
    assert "image 1 of all (a) is an array of uint8 [3, 9, 9]: give uint8 [H, W, 3]" in problem


def test_images_in_two_splits_are_named(birds: DataSet) -> None:
    for source, target in ((4, 100), (5, 8)):
        shutil.copy(file(birds, "train", source), file(birds, "test", target))
    report = check(birds)
    assert report.is_usable
    pairs = [f"{file(birds, 'train', a)} = {file(birds, 'test', b)}" for a, b in ((4, 100), (5, 8))]
    assert report.warnings == [
        f"images both in train and in test, which is not unseen then: 2: {'; '.join(pairs)}"
    ]
    shutil.copy(file(birds, "train", 4), file(birds, "validation", 0))
    between = [warning[:40] for warning in check(birds).warnings]
    assert between == [
        "images both in train and in validation, ",
        "images both in train and in test, which ",
        "images both in validation and in test, w",
    ]


def test_copies_within_a_split_are_named(birds: DataSet) -> None:
    for target in (1, 2, 30):  # two in the same class and one in another
        shutil.copy(file(birds, "train", 0), file(birds, "train", target))
    (warning,) = check(birds).warnings
    pairs = [f"{file(birds, 'train', 0)} = {file(birds, 'train', i)}" for i in (1, 2, 30)]
    assert warning == f"copies in train: 3, of which in another class: 1: {'; '.join(pairs)}"


def test_copies_of_arrays_are_found() -> None:
    same = np.asarray(noise(0))
    other = same.copy()
    other[0, 0, 0] += 1
    train = Listing("t", ("a",), [same, other], [0, 0])
    test = Listing("t", ("b",), [same.copy()], [0])
    report = check(DataSet("odd", "a pickle", {"train": train, "test": test}, Path("odd")))
    leak = report.warnings[0]
    assert leak.endswith(": 1: image 0 of train (a) = image 0 of test (b)")


def test_classes_too_small_for_episodes_are_named(tmp_path: Path) -> None:
    train = split(tmp_path, "train", images=20)
    test = split(tmp_path, "test", images=21, classes=4)
    report = check(DataSet("birds", "folders", {"train": train, "test": test}, tmp_path))
    assert report.is_usable
    names = "; ".join(f"train{i} (20)" for i in range(5))
    assert report.warnings == [
        "classes of train with fewer images than the 21 of a 5-way 5-shot 16-query episode: "
        f"5 of 5: {names}",
        "test has 4 classes, too few for a 5-way 5-shot 16-query episode",
    ]


def test_classes_and_splits_without_images_must_be_corrected(tmp_path: Path) -> None:
    some = split(tmp_path, "train")
    train = Listing(some.name, (*some.classes, "ghost"), some.items, some.labels)
    splits = {"train": train, "test": Listing("t", (), [], [])}
    report = check(DataSet("birds", "folders", splits, tmp_path))
    assert report.problems == ["train has classes without images: ghost", "test has no images"]
    assert "0 (ghost)" in shown(report)[0] and len(shown(report)) == 2


def test_another_data_set_than_the_standard_one_must_be_corrected(birds: DataSet) -> None:
    report = check(birds, "cub")
    assert not report.is_usable
    assert report.problems == [f"{birds.path} holds 15 classes: cub has 200"]
    with pytest.raises(InputError, match="no standard data set is called 'cubs': choose from mini"):
        check(birds, "cubs")

"""Every layout of few-shot data on disk is read to the right classes, splits and images."""

import json
import os
import pickle
import random
import struct
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

from omnitraining.datasets import DataSet, files, read
from omnitraining.datasets.array_pickle import read_pickle
from omnitraining.datasets.arrays import from_arrays, from_dataset
from omnitraining.datasets.dataset import subset
from omnitraining.datasets.listing import Item, Listing
from omnitraining.datasets.standards import mini_imagenet, standard_differences
from omnitraining.errors import InputError
from tests.reference.layouts import (
    LAYOUTS,
    PLANTS,
    SYNSETS,
    nearest,
    picture,
    table,
    write_cars,
    write_layout,
)

READABLE = [name for name in LAYOUTS if name != "easyfsl"]
CUB_IMAGES = [60] * 200
"""Images of each class of CUB-200-2011; those that have other than 60 follow."""
for _count, _classes in {
    59: "9 19 20 23 28 33 34 37 39 43 60 78 97 107 115 117 119 124 125 126 135 149 153 157 160 166 "
    "168 169 179 181 196",
    58: "3 15 16 58 141 190",
    57: "17 75",
    56: "12 22 178",
    53: "7 32 84",
    52: "24",
    51: "151",
    50: "65 101 113 187",
    49: "105",
    48: "8",
    45: "18",
    44: "5",
    41: "6",
}.items():
    for _number in _classes.split():
        CUB_IMAGES[int(_number) - 1] = _count


def pixels(item: Item) -> NDArray[np.uint8]:
    return np.asarray(Image.open(item)) if isinstance(item, Path) else item


def empty_files(folder: Path, classes: dict[str, int]) -> None:
    for name, count in classes.items():
        (folder / name).mkdir(parents=True)
        for image in range(count):
            (folder / name / f"{image:04}.jpg").touch()


def fails(path: Path) -> str:
    with pytest.raises(InputError) as error:
        read(path)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("layout", READABLE)
def test_splits_classes_and_images_are_read_as_written(layout: str, tmp_path: Path) -> None:
    expected = write_layout(layout, tmp_path / "some", classes=8, images=3)
    found = read(tmp_path / "some")
    assert found.name == "some" and found.path == tmp_path / "some"
    assert list(found.splits) == list(expected)
    for split, members in expected.items():
        listing = found.splits[split]
        assert listing.name == f"some-{split}"
        assert listing.classes == tuple(members)
        assert set(listing.labels) == set(range(len(members)))
        numbers = list(members.values())
        for item, label in zip(listing.items, listing.labels, strict=True):
            assert nearest(pixels(item), 8) == numbers[label]
        assert len({pixels(item).tobytes() for item in listing.items}) == len(listing.items)


@pytest.mark.parametrize("layout", READABLE)
def test_every_image_is_found_once(layout: str, tmp_path: Path) -> None:
    write_layout(layout, tmp_path / "some", classes=8, images=3)
    found = read(tmp_path / "some")
    counts = {
        known: count
        for listing in found.splits.values()
        for known, count in Counter(listing.classes[label] for label in listing.labels).items()
    }
    wanted = {"plantae": [3, 4, 5, 6, 7, 8, 9, 10], "class-folders": [3] * 4 + [4] * 4}
    assert sorted(counts.values()) == wanted.get(layout, [3] * 8)


def test_splits_can_be_united(tmp_path: Path) -> None:
    expected = write_layout("split-folders", tmp_path / "mini", images=2)
    found = read(tmp_path / "mini")
    whole = found.split("all")
    numbers = [number for members in expected.values() for number in members.values()]
    assert whole.name == "mini-all" and len(whole.items) == 16
    for item, label in zip(whole.items, whole.labels, strict=True):
        assert nearest(pixels(item), 8) == numbers[label]
    assert found.split("test") is found.splits["test"]
    with pytest.raises(InputError, match="has no split 'half': choose from train, validation"):
        found.split("half")


def test_classes_can_be_chosen(tmp_path: Path) -> None:
    listing = Listing("x", ("a", "b", "c"), [Path(n) for n in "1234"], [2, 0, 1, 2])
    some = subset(listing, "y", {"c", "b"})
    assert (some.classes, some.labels) == (("b", "c"), [1, 0, 1])
    assert [str(item) for item in some.items] == ["1", "3", "4"]


def test_no_image_is_opened(tmp_path: Path) -> None:
    empty_files(tmp_path / "plants", dict.fromkeys(PLANTS, 3))
    assert len(read(tmp_path / "plants").split("all").items) == 36


# mini-ImageNet


def test_rank_is_by_the_number_of_the_file_not_by_its_name(tmp_path: Path) -> None:
    for synset in SYNSETS["train"][:2]:
        numbers = [1000, 7, 20, 115, 9]
        for number in numbers:
            (tmp_path / "train" / synset).mkdir(parents=True, exist_ok=True)
            (tmp_path / "train" / synset / f"{synset}_{number}.JPEG").touch()
        (tmp_path / "train" / synset / "readme.jpg").touch()  # not an image of ImageNet
    rows = [[f"{s}{rank:08}.jpg", s] for s in SYNSETS["train"][:2] for rank in (1, 3, 5)]
    table(tmp_path / "train.csv", ["filename", "label"], rows)
    found = read(tmp_path)
    assert found.layout == "CSV tables for ImageNet's training folders"
    names = [
        item.stem.split("_")[1] for item in found.splits["train"].items if isinstance(item, Path)
    ]
    assert names == ["7", "20", "1000"] * 2


def test_a_rank_that_no_image_has_is_reported(tmp_path: Path) -> None:
    write_layout("ilsvrc", tmp_path / "mini", images=2)
    synset = SYNSETS["test"][0]
    table(
        tmp_path / "mini" / "test.csv", ["filename", "label"], [[f"{synset}00000007.jpg", synset]]
    )
    message = fails(tmp_path / "mini")
    assert f"test.csv, row 2: {synset}00000007.jpg is image 7 of class '{synset}'" in message
    assert message.endswith("holds 6")


def test_a_class_without_folder_in_imagenet_is_reported(tmp_path: Path) -> None:
    write_layout("ilsvrc", tmp_path / "mini", images=2)
    table(
        tmp_path / "mini" / "val.csv",
        ["filename", "label"],
        [["n0999999900000001.jpg", "n09999999"]],
    )
    assert "val.csv, row 2: class 'n09999999' has no folder" in fails(tmp_path / "mini")


def test_full_size_folders_beside_tables_are_found(tmp_path: Path) -> None:
    expected = write_layout("split-folders", tmp_path / "mini", images=2)
    for word, split in (("train", "train"), ("val", "validation"), ("test", "test")):
        rows = [[f"{synset}_0001.jpg", synset] for synset in expected[split]]
        table(tmp_path / "mini" / f"{word}.csv", ["filename", "label"], rows)
    found = read(tmp_path / "mini")
    assert [len(listing.items) for listing in found.splits.values()] == [4, 2, 2]


@pytest.mark.parametrize("place", ["split", "splits"])
def test_tables_may_lie_in_a_folder(place: str, tmp_path: Path) -> None:
    write_layout("flat-csv", tmp_path / "mini", images=2)
    (tmp_path / "mini" / place).mkdir()
    for word in ("train", "val", "test"):
        (tmp_path / "mini" / f"{word}.csv").rename(tmp_path / "mini" / place / f"{word}.csv")
    assert len(read(tmp_path / "mini").splits["train"].items) == 8


# Tables


def test_a_missing_file_is_reported_with_its_row_and_class(tmp_path: Path) -> None:
    write_layout("flat-csv", tmp_path / "mini", images=3)
    synset = SYNSETS["train"][1]
    gone = tmp_path / "mini" / "images" / f"{synset}00000002.jpg"
    gone.unlink()
    assert fails(tmp_path / "mini").endswith(
        f"train.csv, row 6: class '{synset}': there is no file {gone}"
    )


def test_a_table_whose_first_file_is_missing_names_the_folders_searched(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    table(tmp_path / "birds.csv", ["file", "label"], [["a.jpg", "wren"]])
    assert "birds.csv, row 2: class 'wren': there is no file a.jpg in" in fails(tmp_path)


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ("name,species\na.jpg,wren\n", "has the columns name, species: it needs one for the file"),
        ("file\na.jpg\n", "has the columns file: it needs one for the file"),
        ("", "needs a first line with the names of columns, and then rows"),
        ("file,label\n", "needs a first line with the names of columns, and then rows"),
        ("file,label\na.jpg,wren\na.jpg,\n", "row 3: file 'a.jpg' has no class"),
        ("file,label\na.jpg,wren\na.jpg\n", "row 3: file 'a.jpg' has no class"),
        ("file,label\n,wren\n", "row 2: class 'wren' has no file"),
        ("file,label,split\na.jpg,wren,half\n", "row 2: file 'a.jpg' has the split 'half'"),
        ("file,label,split\na.jpg,wren,\n", "row 2: file 'a.jpg' has the split ''"),
        ("file,label\n\xff,wren\n", "is not a CSV file in UTF-8"),
    ],
)
def test_bad_tables_are_reported(content: str, wrong: str, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    (tmp_path / "birds.csv").write_bytes(content.encode("latin1"))
    assert wrong in fails(tmp_path)
    assert str(tmp_path / "birds.csv") in fails(tmp_path / "birds.csv")


def test_a_table_is_read_by_itself_too(tmp_path: Path) -> None:
    write_layout("one-csv", tmp_path / "some", images=2)
    found = read(tmp_path / "some" / "plants.csv")
    assert found.name == "plants" and list(found.splits) == ["all"]
    assert found.splits["all"].classes == tuple(sorted(PLANTS[:8]))


def test_tables_of_spreadsheets_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    (tmp_path / "birds.csv").write_bytes(b"\xef\xbb\xbfFile , Label\r\na.jpg, wren\r\n\r\n")
    assert read(tmp_path).splits["all"].classes == ("wren",)


# JSON lists


def test_lists_written_on_another_machine_find_the_images_beside_them(tmp_path: Path) -> None:
    write_layout("json", tmp_path / "cub", images=2)
    for file in (tmp_path / "cub").glob("*.json"):
        file.write_text(file.read_text().replace(str(tmp_path), "/home/someone/data"))
    found = read(tmp_path / "cub")
    items = [item for item in found.split("all").items if isinstance(item, Path)]
    assert len(items) == 16 and all(item.is_file() for item in items)


def test_a_single_list_of_all_has_no_split(tmp_path: Path) -> None:
    write_layout("json", tmp_path / "cub", images=2)
    for word in ("val", "novel"):
        (tmp_path / "cub" / f"{word}.json").unlink()
    (tmp_path / "cub" / "base.json").rename(tmp_path / "cub" / "all.json")
    assert list(read(tmp_path / "cub").splits) == ["all"]
    assert len(read(tmp_path / "cub" / "all.json").splits["all"].classes) == 4


def test_the_other_split_of_cub_is_refused(tmp_path: Path) -> None:
    write_layout("easyfsl", tmp_path / "cub", images=1)
    message = fails(tmp_path / "cub")
    assert "train.json is a file list of EasyFSL" in message
    assert "140, 30 and 30" in message and "100, 50 and 50" in message


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"image_labels": [0]}, "has 2 image_names, but 1 image_labels"),
        ({"image_labels": [0, 2]}, "the label 2 is not a number from 0 to 1"),
        ({"image_labels": [0, "b"]}, "the label 'b' is not a number from 0 to 1"),
        ({"image_names": [], "image_labels": []}, "must be lists that are not empty"),
        ({"label_names": ["a", "a"]}, "has two label_names that are the same"),
        ({"label_names": "ab"}, "must be lists that are not empty"),
        ({"image_names": ["a.jpg", "c.jpg"]}, "class 'b': there is no file"),
    ],
)
def test_bad_lists_are_reported(change: dict[str, Any], wrong: str, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    (tmp_path / "b.jpg").touch()
    good = {"label_names": ["a", "b"], "image_names": ["a.jpg", "b.jpg"], "image_labels": [0, 1]}
    (tmp_path / "base.json").write_text(json.dumps(good))
    assert read(tmp_path).splits["train"].labels == [0, 1]
    (tmp_path / "base.json").write_text(json.dumps({**good, **change}))
    assert wrong in fails(tmp_path) and "base.json" in fails(tmp_path)


def test_what_is_not_json_is_reported(tmp_path: Path) -> None:
    (tmp_path / "base.json").write_text("{'label_names': ")
    assert "base.json is not JSON" in fails(tmp_path)


# Pickles


class _Python2(pickle._Pickler):  # type: ignore[name-defined,misc]
    """Writes what Python 2 and its NumPy wrote: texts are bytes, and modules have old names."""

    dispatch: ClassVar[dict[Any, Any]] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def _save_string(self, value: str | bytes) -> None:
        data = value.encode("latin1") if isinstance(value, str) else value
        self.write(b"T" + struct.pack("<i", len(data)) + data)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = _save_string


def python2(content: object, file: Path) -> None:
    with file.open("wb") as opened:
        _Python2(opened, 2).dump(content)
    file.write_bytes(file.read_bytes().replace(b"numpy._core", b"numpy.core"))


def test_pickles_of_python_2_are_read(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 84, 84, 3), dtype=np.uint8)
    content = {"data": images, "labels": [80, 80, 81, 81]}
    file = tmp_path / "miniImageNet_category_split_test.pickle"
    python2(content, file)
    assert b"numpy.core.multiarray" in file.read_bytes()
    assert b"_codecs" not in file.read_bytes()
    listing = read(tmp_path).splits["test"]
    assert (listing.classes, listing.labels) == (("80", "81"), [0, 0, 1, 1])
    assert (np.stack([pixels(item) for item in listing.items]) == images).all()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("order", ["C", "F"])
def test_pickles_of_every_protocol_are_read(protocol: int, order: Any, tmp_path: Path) -> None:
    array = np.asarray(np.arange(24, dtype=np.uint8).reshape(2, 3, 4), order=order)
    swapped = np.array([1, 256], ">i4")
    content = [
        {"a": (1, 2.5, "x", b"\xff\x00", None, True)},
        *(OrderedDict(b=2), np.int64(7)),
    ]
    texts = np.array(["n01", "n02"])
    (tmp_path / "x.pkl").write_bytes(pickle.dumps([content, array, swapped, texts], protocol))
    found, *arrays = read_pickle(tmp_path / "x.pkl")
    assert found == content
    for made, wanted in zip(arrays, (array, swapped, texts), strict=True):
        assert made.shape == wanted.shape and made.tolist() == wanted.tolist()
        assert made.dtype.kind == wanted.dtype.kind  # numbers may come in another byte order


class _Creates:
    """Unpickled by an ordinary reader, it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, ...]]:
        return os.system, (f"touch '{self.path}'",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_would_run_something_is_refused(protocol: int, tmp_path: Path) -> None:
    trap, file = tmp_path / "trap", tmp_path / "mini-imagenet-cache-train.pkl"
    file.write_bytes(pickle.dumps({"image_data": _Creates(trap)}, protocol))
    message = fails(tmp_path)
    assert f"{file} names {os.system.__module__}.system, which could run anything" in message
    assert not trap.exists()
    pickle.loads(file.read_bytes())
    assert trap.exists()  # so it would have run


@pytest.mark.parametrize(
    "named", ["builtins.eval", "numpy.load", "numpy.core.multiarray.fromfile", "builtins.getattr"]
)
def test_what_else_a_pickle_names_is_refused(named: str, tmp_path: Path) -> None:
    module, _, name = named.rpartition(".")
    file = tmp_path / "x.pkl"
    file.write_bytes(f"c{module}\n{name}\n(Vx\ntR.".encode())
    with pytest.raises(InputError, match=f"{file} names {module}.{name}, which could run"):
        read_pickle(file)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_objects_are_refused(protocol: int, tmp_path: Path) -> None:
    # Their bytes would be taken for addresses, if the state of their type were made up.
    file = tmp_path / "x.pkl"
    file.write_bytes(pickle.dumps(np.array([1, "a"], object), protocol))
    with pytest.raises(InputError, match=f"{file} holds arrays of O"):
        read_pickle(file)


def test_codecs_serve_for_bytes_only(tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(b"c_codecs\nencode\n(Vx\nVrot13\ntR.")
    with pytest.raises(InputError, match="encodes by rot13"):
        read_pickle(tmp_path / "x.pkl")


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ([1], "must hold data and labels"),
        ({"data": 1}, "must hold data and labels"),
        ({"data": [1], "labels": [1]}, "one array of uint8"),
        ({"data": np.zeros((1, 2, 2, 3)), "labels": [1]}, "one array of uint8"),
        ({"data": np.zeros((2, 2, 2, 3), np.uint8), "labels": [1]}, "has 2 images, but labels of"),
        (
            {"image_data": np.zeros((2, 2, 2, 3), np.uint8), "class_dict": {"n01": [0, 2]}},
            "class 'n01' has image 2 of 2",
        ),
        (
            {"image_data": np.zeros((2, 2, 2, 3), np.uint8), "class_dict": [0, 1]},
            "has labels or classes of another form",
        ),
        (
            {"image_data": np.zeros((2, 2, 2, 3), np.uint8), "class_dict": {"n01": []}},
            "class 'n01' is empty",
        ),
        (
            {"image_data": np.zeros((2, 2, 2, 3), np.uint8), "class_dict": {"\ud800": [0]}},
            r"'\ud800' is no text: it holds half a character",
        ),
    ],
)
def test_bad_pickles_are_reported(content: object, wrong: str, tmp_path: Path) -> None:
    file = tmp_path / "mini-imagenet-cache-val.pkl"
    file.write_bytes(pickle.dumps(content))
    assert wrong in fails(tmp_path) and str(file) in fails(file)


def test_damaged_pickles_are_reported(tmp_path: Path) -> None:
    file = tmp_path / "mini-imagenet-cache-val.pkl"
    file.write_bytes(pickle.dumps({"image_data": np.zeros(9)})[:40])
    assert f"{file} is not a pickle that can be read" in fails(tmp_path)


# CUB, cars, places, plants


def test_cub_is_split_by_the_modulo_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sum(CUB_IMAGES) == 11788
    counts = {f"{i:03}.Bird_{i}": count for i, count in enumerate(CUB_IMAGES, 1)}
    empty_files(tmp_path / "cub" / "CUB_200_2011" / "images", dict.fromkeys(counts, 0))
    contents = files.contents  # writing that many files would take long
    monkeypatch.setattr(
        files,
        "contents",
        lambda folder: contents(folder)._replace(
            images=[f"{i:04}.jpg" for i in range(counts.get(folder.name, 0))]
        ),
    )
    found = read(tmp_path / "cub")
    classes = [len(listing.classes) for listing in found.splits.values()]
    images = [len(listing.items) for listing in found.splits.values()]
    assert list(found.splits) == ["train", "validation", "test"]
    assert (classes, images) == ([100, 50, 50], [5885, 2950, 2953])
    assert found.splits["test"].classes[:2] == ("004.Bird_4", "008.Bird_8")
    assert standard_differences("cub", found) == []
    assert standard_differences("plantae", found) == [] and standard_differences("own", found) == []


def test_cub_is_recognized_without_its_outer_folder(tmp_path: Path) -> None:
    write_layout("cub", tmp_path / "cub", images=1)
    assert read(tmp_path / "cub" / "CUB_200_2011").splits.keys() == {"train", "validation", "test"}


def test_cars_of_one_missing_file_are_reported(tmp_path: Path) -> None:
    write_layout("cars", tmp_path / "cars", images=1)
    (tmp_path / "cars" / "cars_train" / "00007.jpg").unlink()
    assert "class 'Acura RL Sedan 2012': there is no file" in fails(tmp_path / "cars")


def test_all_cars_are_split_into_98_49_and_49_classes(tmp_path: Path) -> None:
    write_cars(tmp_path / "cars", [(i % 196 + 1, f"{i:05}.jpg") for i in range(392)])
    (tmp_path / "cars" / "cars_train").mkdir()
    for i in range(392):
        (tmp_path / "cars" / "cars_train" / f"{i:05}.jpg").touch()
    assert "cars_meta.mat names 12 classes: there is none of number 13" in fails(tmp_path / "cars")
    (tmp_path / "cars" / "devkit" / "cars_meta.mat").unlink()
    found = read(tmp_path / "cars")
    assert [len(s.classes) for s in found.splits.values()] == [98, 49, 49]
    assert found.splits["validation"].classes[:3] == ("2", "6", "10")
    assert standard_differences("cars", found) == [
        f"{tmp_path}/cars holds {few} images in {split}: cars has {many}"
        for split, few, many in (
            *(("train", 196, 4108), ("validation", 98, 2009), ("test", 98, 2027)),
        )
    ]


def test_bad_annotations_are_reported(tmp_path: Path) -> None:
    write_cars(tmp_path, [(0, "1.jpg")])
    assert "names 12 classes: there is none of number 0" in fails(tmp_path)
    write_cars(tmp_path, [(1, "1.jpg")])
    assert "class 'AM General Hummer SUV 2000': there is no file" in fails(tmp_path)
    (tmp_path / "devkit" / "cars_train_annos.mat").write_bytes(b"none" * 99)
    assert "cars_train_annos.mat is not a MATLAB file that can be read" in fails(tmp_path)
    meta = (tmp_path / "devkit" / "cars_meta.mat").read_bytes()
    savemat(tmp_path / "devkit" / "cars_train_annos.mat", {"annotations": [[1, 2]]})
    assert "cars_train_annos.mat must give the fields class and fname" in fails(tmp_path)
    (tmp_path / "devkit" / "cars_train_annos.mat").write_bytes(meta)
    assert "cars_train_annos.mat holds no variable 'annotations'" in fails(tmp_path)


def test_places_take_the_first_200_images(tmp_path: Path) -> None:
    names = {f"place_{i:03}": 1 for i in range(365)} | {"place_003": 203}
    empty_files(tmp_path / "places" / "train", names)
    empty_files(tmp_path / "places" / "val", {"place_000": 1})
    found = read(tmp_path / "places")
    assert [len(s.classes) for s in found.splits.values()] == [183, 91, 91]
    assert found.splits["test"].classes[0] == "place_003"
    taken = [item.name for item in found.splits["test"].items if isinstance(item, Path)]
    assert taken[:200] == [f"{i:04}.jpg" for i in range(200)] and len(taken) == 290


def test_places_with_a_few_shot_split_keep_it(tmp_path: Path) -> None:
    for word, name in (("train", "alley"), ("val", "arcade"), ("test", "alcove")):
        empty_files(tmp_path / "places" / word, {name: 1})
    splits = read(tmp_path / "places").splits
    assert {split: listing.classes[0] for split, listing in splits.items()} == {
        **{"train": "alley", "validation": "arcade", "test": "alcove"}
    }


def test_plantae_are_the_200_largest_classes(tmp_path: Path) -> None:
    sizes = {f"plant {i:03}": 1 + i // 101 for i in range(202)} | {"plant 000": 603}
    random.Random(0).shuffle(names := list(sizes))
    empty_files(tmp_path / "Plantae", {name: sizes[name] for name in names})
    found = read(tmp_path / "Plantae")
    # The two smallest, 001 and 002, are left out; of equal size is 003, the largest is 000.
    assert [len(s.classes) for s in found.splits.values()] == [100, 50, 50]
    assert found.splits["train"].classes[:2] == ("plant 003", "plant 005")
    assert found.splits["validation"].classes[0] == "plant 004"
    assert found.splits["test"].classes[-1] == "plant 000"
    of_largest = [item for item in found.splits["test"].items if "plant 000" in str(item)]
    assert len(of_largest) == len(set(map(str, of_largest))) == 600
    assert of_largest != sorted((tmp_path / "Plantae" / "plant 000").iterdir())[:600]
    assert read(tmp_path / "Plantae") == found
    assert standard_differences("plantae", found) == []


# Folders


def test_an_empty_class_folder_is_reported(tmp_path: Path) -> None:
    write_layout("split-folders", tmp_path / "mini", images=1)
    empty = tmp_path / "mini" / "val" / "n01855672"
    (empty / "n01855672_0000.jpg").rename(empty / "n01855672_0000.txt")
    assert fails(tmp_path / "mini").startswith(
        f"class 'n01855672' is empty: {empty} holds no image"
    )


def test_a_class_in_two_splits_is_reported(tmp_path: Path) -> None:
    empty_files(tmp_path / "train", {"wren": 1, "jay": 1})
    empty_files(tmp_path / "test", {"wren": 1})
    assert "class 'wren' is in train and in test (1 classes are in both)" in fails(tmp_path)


def test_two_folders_for_one_split_are_reported(tmp_path: Path) -> None:
    for word in ("train", "val", "validation"):
        empty_files(tmp_path / word, {word: 1})
    assert fails(tmp_path) == (
        f"{tmp_path / 'val'} and validation are both for validation: keep one"
    )


def test_a_folder_that_holds_only_another_stands_for_it(tmp_path: Path) -> None:
    write_layout("split-folders", tmp_path / "mini" / "mini_imagenet_full_size", images=1)
    assert list(read(tmp_path / "mini").splits) == ["train", "validation", "test"]


def test_what_is_no_data_set_is_reported(tmp_path: Path) -> None:
    assert fails(tmp_path / "none") == f"there is no data set at {tmp_path / 'none'}"
    assert "is in no known layout: there is nothing to read" in fails(tmp_path)
    (tmp_path / "notes.txt").touch()
    assert "is in no known layout: it holds notes.txt; put images in" in fails(tmp_path)
    assert "is in no known layout: there is nothing" in fails(tmp_path / "notes.txt")
    empty_files(tmp_path, {"train": 1, "test": 1})  # images of no class
    assert "is in no known layout: it holds notes.txt, test, train" in fails(tmp_path)


# Standards


def made(path: str, splits: dict[str, dict[str, int]]) -> DataSet:
    return DataSet(
        "x",
        "made",
        {
            split: Listing(
                split,
                tuple(classes),
                [Path("x.jpg")] * sum(classes.values()),
                [label for label, count in enumerate(classes.values()) for _ in range(count)],
            )
            for split, classes in splits.items()
        },
        Path(path),
    )


def test_mini_imagenet_has_64_16_and_20_synsets() -> None:
    assert Counter(mini_imagenet().values()) == {"train": 64, "validation": 16, "test": 20}
    splits = {s: dict.fromkeys(names, 600) for s, names in SYNSETS.items()}
    assert standard_differences("mini-imagenet", made("/data/mini", splits)) == []


def test_a_wrong_data_set_behind_a_name_is_reported() -> None:
    counts = {"train": 64, "validation": 16, "test": 20}
    birds = {s: {f"{s}{i}": 1 for i in range(count)} for s, count in counts.items()}
    assert standard_differences("cub", made("/data/cub", {"all": birds["train"]})) == [
        "/data/cub holds 64 classes: cub has 200"
    ]
    found = standard_differences("mini-imagenet", made("/data/mini", birds))
    assert found[0] == "/data/mini holds 64 images in train: mini-imagenet has 38400"
    assert found[-1] == (
        "/data/mini holds class 'train0' in train, which is none of mini-imagenet; 100 are so"
    )
    splits = {s: dict.fromkeys(names, 600) for s, names in SYNSETS.items()}
    first = SYNSETS["test"][0]
    del splits["test"][first]
    splits["train"][first] = 600
    assert standard_differences("mini-imagenet", made("/data/mini", splits)) == [
        "/data/mini holds 65 classes in train: mini-imagenet has 64",
        "/data/mini holds 19 classes in test: mini-imagenet has 20",
        f"/data/mini holds class {first!r} in train, which belongs in test; 1 are so",
    ]


def test_a_standard_data_set_without_a_split_is_reported() -> None:
    birds = {f"{i:03}.Bird": 1 for i in range(1, 201)}
    assert standard_differences("cub", made("/data/cub", {"all": birds})) == [
        "/data/cub has no split for train and validation and test: cub has one"
    ]


def test_another_split_of_cub_is_reported() -> None:
    birds = [f"{i:03}.Bird" for i in range(1, 201)]
    splits = {"train": birds[:100], "validation": birds[100:150], "test": birds[150:]}
    found = standard_differences(
        "cub", made("/cub", {s: dict.fromkeys(b, 59) for s, b in splits.items()})
    )
    assert found[-1] == (
        "/cub holds class '002.Bird' in train, which belongs in validation; 124 are so"
    )


def test_too_many_images_of_a_plant_are_reported() -> None:
    plants = {s: {f"{s}{i}": 2 for i in range(n)} for s, n in (("train", 100), ("test", 50))}
    plants["validation"] = {f"v{i}": 2 + 599 * (i == 7) for i in range(50)}
    assert standard_differences("plantae", made("/p", plants)) == [
        "/p holds 601 images of class 'v7': plantae has 600 at most"
    ]


# Own data in memory


IMAGES = np.stack([picture(number, 0, 10) for number in range(4)])  # [4, 14, 10, 3]


@pytest.mark.parametrize(
    "images",
    [
        IMAGES,
        IMAGES.transpose(0, 3, 1, 2),
        torch.from_numpy(IMAGES),
        torch.from_numpy(IMAGES).permute(0, 3, 1, 2),
        IMAGES / 255,
        (torch.from_numpy(IMAGES) / 255).permute(0, 3, 1, 2),
        (IMAGES / 255).astype(np.float32),
    ],
)
def test_arrays_of_any_order_and_type_are_listed(images: Any) -> None:
    listing = from_arrays(images, [7, -1, 7, 30], "own")
    assert (listing.name, listing.classes, listing.labels) == (
        "own",
        ("-1", "7", "30"),
        [1, 0, 1, 2],
    )
    assert (np.stack([pixels(item) for item in listing.items]) == IMAGES).all()


@pytest.mark.parametrize("images", [IMAGES[..., 0], IMAGES[..., :1], IMAGES[:, None, :, :, 0]])
def test_gray_arrays_are_listed(images: NDArray[np.uint8]) -> None:
    listing = from_arrays(images, ["b", "a", "b", "b"], "own")
    assert (listing.classes, listing.labels) == (("a", "b"), [1, 0, 1, 1])
    assert (np.stack([pixels(item) for item in listing.items]) == IMAGES[..., 0]).all()


@pytest.mark.parametrize(
    ("images", "labels", "wrong"),
    [
        (IMAGES, [1, 2], "own has 4 images, but 2 labels"),
        (IMAGES[0, 0], [1], r"own of shape \[10, 3\]: give \[B, H, W\], \[B, H, W, C\] or"),
        (np.zeros((2, 8, 8, 2), np.uint8), [1, 2], r"own of shape \[2, 8, 8, 2\]: give"),
        (IMAGES[:0], [], r"own of shape \[0, 14, 10, 3\] has no pixels"),
        (IMAGES.astype(float), [1] * 4, "floating-point pixels must be from 0 to 1"),
        (IMAGES / 255 - 0.5, [1] * 4, "floating-point pixels must be from 0 to 1"),
        (IMAGES * np.nan, [1] * 4, r"own: pixel at \[0, 0, 0, 0\] is nan"),
        (
            IMAGES.astype(int) * 2,
            [1] * 4,
            "own: pixels from .*: integer pixels must be",
        ),
        ([IMAGES[0], IMAGES[1, :9]], [1, 2], "own: images differ in size: give arrays of one size"),
        (IMAGES, "abca", "labels of own are a str: give a list"),
        (IMAGES, 7, "labels of own are a int: give a list"),
        (IMAGES, {1, 2, 3, 4}, "labels of own are a set, without order: give a list"),
        (IMAGES, dict.fromkeys("abcd"), "labels of own are a dict, without order"),
        (IMAGES, [1, 2, "b", 3], "label 2 of own is 'b': labels must be all integers or all texts"),
        (IMAGES, [1.0, 2.0, 3.0, 4.0], "label 0 of own is 1.0"),
    ],
)
def test_bad_arrays_are_reported(images: Any, labels: Any, wrong: str) -> None:
    with pytest.raises(InputError, match=wrong):
        from_arrays(images, labels, "own")


@pytest.mark.parametrize(
    "made_of",
    [
        Image.fromarray,
        lambda image: image,
        lambda image: torch.from_numpy(image).permute(2, 0, 1) / 255,
    ],
)
def test_torch_data_sets_are_listed(made_of: Callable[[NDArray[np.uint8]], Any]) -> None:
    labels = torch.tensor([5, 2, 2, 5])
    dataset = [(made_of(image), label) for image, label in zip(IMAGES, labels, strict=True)]
    listing = from_dataset(dataset, "own")
    assert (listing.classes, listing.labels) == (("2", "5"), [1, 0, 0, 1])
    assert len(listing.items) == 4
    assert (np.stack([pixels(item) for item in listing.items]) == IMAGES).all()
    assert (np.stack(listing.items[1:3]) == IMAGES[1:3]).all()


class _Named(list[tuple[Any, int]]):
    classes = ("ant", "bee", "cow")


def test_names_of_a_torch_data_set_are_kept() -> None:
    gray = Image.fromarray(IMAGES[0, :, :, 0])
    listing = from_dataset(_Named([(gray, 2), (gray, 0)]), "own")
    assert (listing.classes, listing.labels) == (("ant", "cow"), [1, 0])
    assert pixels(listing.items[0]).shape == (14, 10)
    unknown = from_dataset(_Named([(gray, 2), (gray, 3)]), "own")
    assert unknown.classes == ("2", "3")


def test_names_are_left_out_where_labels_are_other_numbers() -> None:
    """As torchvision's: targets as they were, and a transform of them that items go through."""
    gray = Image.fromarray(IMAGES[0, :, :, 0])
    changed = _Named([(gray, 2), (gray, 0)])
    changed.target_transform = lambda target: 2 - target  # type: ignore[attr-defined]
    assert from_dataset(changed, "own").classes == ("0", "2")
    changed.targets = torch.tensor([0, 2])  # type: ignore[attr-defined]
    assert from_dataset(changed, "own").classes == ("0", "2")
    changed.targets = [2, 0]  # type: ignore[attr-defined]
    assert from_dataset(changed, "own").classes == ("ant", "cow")


def test_a_file_that_a_torch_data_set_cannot_read_is_named(tmp_path: Path) -> None:
    class Files(list[str]):
        def __getitem__(self, index: Any) -> Any:
            return Image.open(super().__getitem__(index)), 0

    (tmp_path / "b.png").write_text("no image")
    with pytest.raises(InputError, match=r"image 0 of own cannot be decoded: .*b\.png"):
        from_dataset(Files([str(tmp_path / "b.png")]), "own")


@pytest.mark.parametrize(
    ("dataset", "wrong"),
    [
        ([], "own is empty"),
        (iter([]), "has no length"),
        ([1, 2], "element 0 of own is a int"),
        ([("a.jpg", 1)], "image 0 of own is a str"),
        ({"train": [1]}, "element 0 of own: KeyError.0.: a dict must give"),
        ([(IMAGES[0], None)], "label 0 of own is None"),
        ([(IMAGES[0].astype(float), 1)], "image 0 of own: pixels from 0.0 to"),
    ],
)
def test_bad_torch_data_sets_are_reported(dataset: Any, wrong: str) -> None:
    with pytest.raises(InputError, match=wrong):
        from_dataset(dataset, "own")

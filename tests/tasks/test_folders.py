"""Folders as people have them: what is left out is named, and ambiguity is reported."""

import csv
import json
import warnings
from pathlib import Path

import pytest

from omnitraining.datasets import DataSet, find, read
from omnitraining.errors import InputError


def files(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def classes(folder: Path, *names: str, images: int = 4) -> Path:
    return files(folder, *(f"{name}/{i}.jpg" for name in names for i in range(images)))


def table(path: Path, *rows: str, columns: str = "image,label") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([columns, *rows]) + "\n")
    return path


def counts(found: DataSet) -> dict[str, dict[str, int]]:
    return {
        split: {name: listing.labels.count(i) for i, name in enumerate(listing.classes)}
        for split, listing in found.splits.items()
    }


def refused(path: Path) -> str:
    with pytest.raises(InputError) as error:
        find(path)
    assert "\n" not in str(error.value)
    return str(error.value)


ALL = {"all": {"ara": 4, "auk": 4, "emu": 4, "jay": 4}}


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    return classes(tmp_path / "birds", *ALL["all"])


# What is left out


def test_all_that_is_left_out_is_counted_and_named(birds: Path) -> None:
    files(birds, "ara/a.heic", "ara/notes.txt", "emu/.b.jpg", ".old/c.png", "jay/young/d.jpg")
    files(birds, "e.jpg", "f.png")
    (birds / "auk" / "z.jpg").symlink_to(birds / "gone.jpg")
    with pytest.warns(UserWarning) as caught:
        found = read(birds)
    assert counts(found) == ALL
    (warning,) = caught
    assert str(warning.message) == (
        f"left out of {birds}: "
        "2 files that are no images by their names (ara/a.heic; ara/notes.txt), "
        "2 hidden images or folders of images (emu/.b.jpg; .old), "
        "1 folder inside a class (jay/young), 2 images of no class (e.jpg; f.png), "
        "1 link that leads nowhere (auk/z.jpg)"
    )
    assert found.notes == (str(warning.message),)


def test_many_are_counted_and_three_are_named(birds: Path) -> None:
    files(birds, *(f"ara/{i}.heic" for i in range(9)))
    (note,) = find(birds).notes
    assert note.endswith(
        "9 files that are no images by their names (ara/0.heic; ara/1.heic; ara/2.heic; and 6 more)"
    )


def test_files_of_operating_systems_are_not_reported(birds: Path) -> None:
    files(birds, ".DS_Store", "ara/.DS_Store", "ara/._0.jpg", "ara/Thumbs.db", "emu/desktop.ini")
    files(birds, "__MACOSX/ara/._0.jpg", "__pycache__/a.pyc", ".git/HEAD", "README.md")
    files(birds, "jay/.thumbs/a.txt", "jay/.gitkeep")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert counts(read(birds)) == ALL


def test_a_class_may_be_called_anything_that_is_not_hidden(tmp_path: Path) -> None:
    found = find(classes(tmp_path, "__init__", "_b", "ara"))
    assert counts(found) == {"all": {"__init__": 4, "_b": 4, "ara": 4}} and found.notes == ()


def test_what_is_left_out_of_splits_is_named(tmp_path: Path) -> None:
    classes(tmp_path, "train/ara", "train/emu", "test/jay")
    files(tmp_path, "train/a.jpg", "test/jay/b.txt", "docs/readme.txt", "extra/wren/0.jpg")
    found = find(tmp_path)
    assert counts(found) == {"train": {"ara": 4, "emu": 4}, "test": {"jay": 4}}
    assert found.notes == (
        f"left out of {tmp_path}: 1 file that is no image by its name (test/jay/b.txt), "
        "1 image of no class (train/a.jpg), 2 folders that are no splits (docs; extra)",
    )


def test_images_beside_the_only_folder_are_named(birds: Path) -> None:
    files(birds.parent, "a.jpg")
    assert find(birds.parent).notes == (f"left out of {birds.parent}: 1 image of no class (a.jpg)",)


def test_all_empty_classes_are_counted(birds: Path) -> None:
    for name in ("kea", "owl"):
        (birds / name / "young").mkdir(parents=True)
    assert refused(birds) == (
        f"class 'kea' is empty: {birds / 'kea'} holds no image (.jpg, .png, ...), but folders "
        "(young); 2 classes are empty: kea; owl"
    )
    files(birds, "kea/a.heic")
    (birds / "kea" / "young").rmdir()
    assert "no image (.jpg, .png, ...), but files (a.heic); 2 classes" in refused(birds)


def test_a_link_to_a_class_that_is_not_there_is_named(birds: Path) -> None:
    (birds / "kea").symlink_to(birds.parent / "not mounted")
    assert find(birds).notes == (f"left out of {birds}: 1 link that leads nowhere (kea)",)


# Names of splits


@pytest.mark.parametrize("name", ["test", "novel", "base", "train", "Val"])
def test_a_class_called_as_a_split_does_not_hide_the_others(name: str, tmp_path: Path) -> None:
    classes(tmp_path, "ara", "emu", name)
    found = find(tmp_path)
    assert counts(found) == {"all": dict.fromkeys(sorted(["ara", "emu", name]), 4)}
    assert found.notes == (
        f"{tmp_path / name} is a class, as the folders beside it are: it is also the name of a "
        "split",
    )
    files(tmp_path, f"{name}/old/0.jpg")
    assert refused(tmp_path) == (
        f"{tmp_path} can be read in two ways: {name} as splits, for they hold folders of classes, "
        "or as classes, for ara; emu beside them hold images: rename what is a class, or move away "
        "what is in no split"
    )


def test_images_of_no_class_in_a_split_are_not_left_out(tmp_path: Path) -> None:
    classes(tmp_path, "train/ara", "train/emu", "test")
    assert "can be read in two ways: train as splits" in refused(tmp_path)


def test_an_empty_split_is_named(tmp_path: Path) -> None:
    classes(tmp_path, "train/ara", "train/emu")
    (tmp_path / "val").mkdir()
    assert (
        refused(tmp_path) == f"{tmp_path / 'val'} holds no class: a split needs a folder for each"
    )


def test_a_split_that_is_not_there_is_named_when_asked_for(tmp_path: Path) -> None:
    found = find(classes(tmp_path, "train/ara", "train/emu", "test/jay"))
    with pytest.raises(InputError, match="has no split 'validation': choose from train, test, all"):
        found.split("validation")


# Folders and tables


def rows(birds: Path, **labels: str) -> list[str]:
    """Rows of all images, of some folders with another label."""
    paths = sorted(path.relative_to(birds) for path in birds.rglob("*.jpg"))
    return [f"{path},{labels.get(path.parts[0], path.parts[0])}" for path in paths]


def test_predictions_in_a_folder_do_not_become_its_labels(birds: Path) -> None:
    file = table(birds / "predictions.csv", *rows(birds)[:8], columns="image,label,ara,auk")
    found = find(birds)
    assert counts(found) == ALL
    assert found.notes == (
        f"{file} names 8 of the 16 images in class folders; the folders were read, and not it",
    )
    wrong = [row.replace(",ara", ",emu", 1) for row in rows(birds)[:1]]
    table(file, *wrong, *rows(birds)[1:])
    found = find(birds)
    assert counts(found) == ALL
    assert "names 16 of the 16 images in class folders, and some of them in other" in found.notes[0]
    assert counts(find(file))["all"]["emu"] == 5  # if the table is meant, it is given itself
    table(file, *(f"/elsewhere/photos/{row}" for row in rows(birds)[:3]))
    assert counts(find(birds)) == ALL
    table(file, "gone/1.jpg,ara")
    (note,) = find(birds).notes
    assert "there is no file gone/1.jpg" in note and note.endswith("folders were read, and not it")


@pytest.mark.parametrize("name", ["test.csv", "train.csv"])
def test_tables_of_one_split_do_so_neither(name: str, birds: Path) -> None:
    table(birds / name, *rows(birds)[:8])
    assert counts(find(birds)) == ALL and "8 of the 16" in find(birds).notes[0]
    table(birds / name, *rows(birds)[:2], "emu/0.jpg,")  # as predictions that reject
    assert counts(find(birds)) == ALL and "row 4: file 'emu/0.jpg' has no" in find(birds).notes[0]


def test_a_table_that_names_the_classes_of_all_folders_is_taken(birds: Path) -> None:
    table(birds / "names.csv", *rows(birds, ara="Ara ararauna", emu="Dromaius"))
    found = find(birds)
    assert (found.layout, found.notes) == ("one CSV table", ())
    assert counts(found) == {"all": {"Ara ararauna": 4, "Dromaius": 4, "auk": 4, "jay": 4}}


def test_a_table_with_a_split_is_taken_and_what_it_lacks_is_reported(birds: Path) -> None:
    splits = {"ara": "train", "auk": "val", "emu": "test"}
    lines = [f"{row},{splits[row[:3]]}" for row in rows(birds) if row[:3] in splits]
    file = table(birds / "list.csv", *lines, columns="file,class,split")
    found = find(birds)
    assert list(found.splits) == ["train", "validation", "test"]
    assert found.notes == (f"{file} names 12 of the 16 images in class folders: the others are "
                           "left out",)  # fmt: skip


def test_tables_that_list_no_images_are_skipped(birds: Path) -> None:
    file = table(birds / "notes.csv", "1,sunny", columns="day,weather")
    found = find(birds)
    assert counts(found) == ALL
    assert found.notes[0].startswith(f"{file} has the columns day, weather: it needs one for the")
    assert found.notes[0].endswith("; the folders were read, and not it")
    table(birds / "train.csv", "1,0.5", columns="step,loss")
    table(birds / "val.csv", "1,0.5", columns="step,loss")
    assert counts(find(birds)) == ALL and len(find(birds).notes) == 3


def test_other_classes_throughout_are_refused(birds: Path) -> None:
    file = table(birds / "list.csv", *(f"{row[:9]},{'ab'[i % 2]}" for i, row in
                                       enumerate(rows(birds))))  # fmt: skip
    assert refused(birds) == (
        f"{birds} can be read in two ways: with the folders ara; auk; emu; and 1 more as classes, "
        f"or with the classes a; b of list.csv: give {file} itself for these, or move it away"
    )
    assert counts(find(file)) == {"all": {"a": 8, "b": 8}}


def test_a_folder_images_belongs_to_its_table(tmp_path: Path) -> None:
    classes(tmp_path, "images", "masks")
    table(tmp_path / "all.csv", "0.jpg,wren", "1.jpg,jay")
    assert counts(find(tmp_path)) == {"all": {"jay": 1, "wren": 1}}


def test_several_tables_are_refused_by_name(birds: Path) -> None:
    for name in ("a.csv", "b.csv"):
        table(birds / "ara" / name, "0.jpg,wren", "1.jpg,jay")
    assert refused(birds / "ara") == (
        f"{birds / 'ara'} holds several lists of images, a.csv; b.csv: give one of them"
    )
    for name in ("a.csv", "b.csv"):
        (birds / "ara" / name).rename(birds / name)
    assert counts(find(birds)) == ALL and "a.csv; b.csv" in find(birds).notes[0]


def test_folders_that_cannot_be_read_are_reported_with_their_table(birds: Path) -> None:
    file = table(birds / "list.csv", *rows(birds))
    (birds / "kea").mkdir()
    assert refused(birds).startswith("class 'kea' is empty: ")
    assert refused(birds).endswith(f"; or, for what {file} lists, give that file")


def test_a_row_of_another_split_than_its_table_is_refused(birds: Path) -> None:
    file = table(birds / "train.csv", "ara/0.jpg,ara,train", "emu/0.jpg,emu,test",
                 columns="file,label,split")  # fmt: skip
    assert refused(file) == (
        f"{file}, row 3: file 'emu/0.jpg' has the split 'test': it must be of train.csv"
    )


def test_a_published_list_that_does_not_fit_is_refused(birds: Path) -> None:
    for word in ("train", "val", "test"):
        table(birds / f"{word}.csv", "n0153282900000001.jpg,n01532829", columns="filename,label")
    assert "train.csv, row 2: class 'n01532829': there is no file n0153282900000001" in refused(
        birds
    )


# Where the images of lists are


NAMES = {
    "beside": "ara/0.jpg",
    "with a dot": "./ara/0.jpg",
    "backslashes": "ara\\0.jpg",
    "of another machine": "/home/someone/data/birds/ara/0.jpg",
    "of Windows": "C:\\Users\\Someone\\birds\\ara\\0.jpg",
    "of a share": "\\\\server\\data\\birds\\ara\\0.jpg",
    "of the folder above": "birds/ara/0.jpg",
    "here": "{birds}/ara/0.jpg",
}


@pytest.mark.parametrize("form", ["csv", "json"])
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_tables_and_lists_find_images_alike(name: str, form: str, birds: Path) -> None:
    end = "ara\\0.jpg" if "\\" in name else "ara/0.jpg"
    names = [
        name.format(birds=birds).replace(end, end.replace("ara", known).replace("0", str(i)))
        for known in ALL["all"]
        for i in range(4)
    ]
    if form == "csv":
        with (birds / "all.csv").open("w", newline="") as file:
            csv.writer(file).writerows(
                [["file", "label"], *([name, ["a", "b"][i // 8]] for i, name in enumerate(names))]
            )
        found = find(birds / "all.csv")
    else:
        content = {"label_names": ["a", "b"], "image_names": names,
                   "image_labels": [0] * 8 + [1] * 8}  # fmt: skip
        (birds / "base.json").write_text(json.dumps(content))
        found = find(birds)
    (listing,) = found.splits.values()
    assert listing.labels == [0] * 8 + [1] * 8
    assert [str(item) for item in listing.items] == [
        str(birds / known / f"{i}.jpg") for known in ALL["all"] for i in range(4)
    ]


@pytest.mark.parametrize("form", ["csv", "json"])
def test_two_names_never_become_one_file(form: str, tmp_path: Path) -> None:
    files(tmp_path, "images/0.jpg", "0.jpg")
    if form == "csv":
        table(tmp_path / "all.csv", "wren/0.jpg,wren", "jay/0.jpg,jay")
    else:
        content = {"label_names": ["wren", "jay"], "image_names": ["wren/0.jpg", "jay/0.jpg"],
                   "image_labels": [0, 1]}  # fmt: skip
        (tmp_path / "base.json").write_text(json.dumps(content))
    assert "class 'wren': there is no file wren/0.jpg" in refused(tmp_path)


def test_one_name_in_two_classes_is_two_files_in_their_folders(tmp_path: Path) -> None:
    files(tmp_path, "0.jpg", "wren/0.jpg", "jay/0.jpg")
    found = find(table(tmp_path / "all.csv", "0.jpg,wren", "0.jpg,jay"))
    assert {str(item) for item in found.splits["all"].items} == {
        str(tmp_path / "wren" / "0.jpg"), str(tmp_path / "jay" / "0.jpg")}  # fmt: skip


@pytest.mark.parametrize("key", ["label_names", "image_names"])
def test_half_a_character_is_refused(key: str, tmp_path: Path) -> None:
    files(tmp_path, "a.jpg")
    content = {"label_names": ["a"], "image_names": ["a.jpg"], "image_labels": [0]}
    (tmp_path / "base.json").write_text(json.dumps({**content, key: ["a\ud800"]}))
    assert refused(tmp_path) == (
        f"{tmp_path / 'base.json'}: 'a\\ud800' is no text: it holds half a character"
    )


def test_a_list_of_another_form_beside_lists_is_named(tmp_path: Path) -> None:
    files(tmp_path, "a.jpg")
    content = {"label_names": ["a"], "image_names": ["a.jpg"], "image_labels": [0]}
    (tmp_path / "base.json").write_text(json.dumps(content))
    (tmp_path / "val.json").write_text('{"annotations": []}')
    assert refused(tmp_path).startswith(
        f"{tmp_path / 'val.json'} is no list of images, as base.json is: it must hold label_names"
    )

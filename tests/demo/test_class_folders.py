"""Uploaded class folders: which file is of which class, and what is left out."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omnitraining.demo import class_folders, handlers, session
from omnitraining.demo.class_folders import ClassFiles, class_files
from omnitraining.demo.pictures import File
from omnitraining.demo.session import Session
from omnitraining.errors import InputError
from omnitraining.learner import TrainedModel
from omnitraining.learner.inputs import class_folders as learner_class_folders
from omnitraining.learner.sources import find

NOWHERE = Path("nowhere")


@pytest.fixture(scope="module")
def trained() -> TrainedModel:
    return find("glyphs")


def sorted_into(*names: str) -> tuple[dict[str, list[str]], list[str]]:
    found = class_files([File(name, NOWHERE) for name in names], "photos")
    return {name: [f.name for f in files] for name, files in found.classes.items()}, found.left_out


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (["photos/cat/2.jpg", "photos/cat/10.png", "photos/dog/a.webp"], {"cat": 2, "dog": 1}),
        (["cat/1.jpg", "dog/1.jpg"], {"cat": 1, "dog": 1}),
        (["cat/1.jpg", "cat/2.jpg"], {"cat": 2}),
        (["home/me/photos/cat/1.jpg", "home/me/photos/dog/1.jpg"], {"cat": 1, "dog": 1}),
        (["photos/cover.jpg", "photos/cat/1.jpg", "photos/dog/1.jpg"], {"cat": 1, "dog": 1}),
        (["photos/cat/1.jpg", "photos/cat/old/2.jpg", "photos/dog/3.jpg"], {"cat": 1, "dog": 1}),
        (["photos/ big  cat /1.JPG", "photos/große Katze/1.jpg"], {"big cat": 1, "große Katze": 1}),
        (["photos/test/1.jpg"], {"test": 1}),
    ],
)
def test_a_class_is_the_folder_of_its_images(names: list[str], classes: dict[str, int]) -> None:
    found, _ = sorted_into(*names)
    assert {name: len(files) for name, files in found.items()} == classes


def test_what_is_left_out_is_counted_and_named_in_one_line() -> None:
    classes, left_out = sorted_into(
        *("photos/cat/1.jpg", "photos/dog/1.jpg", "photos/notes.txt", "photos/cat/clip.mp4"),
        *("photos/cover.png", "photos/cat/old/3.jpg", "photos/cat/old/4.jpg", "photos/.x/1.jpg"),
        *("photos/.DS_Store", "__MACOSX/photos/cat/._1.jpg", "photos/cat/Thumbs.db"),
        *("photos/../../cat/9.jpg", "/etc/cat/8.jpg"),
    )
    assert classes == {"cat": ["photos/cat/1.jpg"], "dog": ["photos/dog/1.jpg"]}
    assert left_out == [
        "Left out of photos: 2 files that are no images by their names (cat/clip.mp4; notes.txt), "
        "1 hidden image or folder of images (.x/1.jpg), 1 folder inside a class (cat/old), "
        "1 image of no class (cover.png).",
        "Names that lead out of photos were left out (/etc/cat/8.jpg; photos/../../cat/9.jpg).",
    ]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["photos/1.jpg.txt"], "photos holds no class folders: it must hold a folder of images"),
        (["1.jpg", "2.jpg"], "photos holds no class folders"),
        (["d/train/cat/1.jpg", "d/test/cat/2.jpg"], "photos holds splits (test, train): choose"),
        (["train/1.jpg", "test/2.jpg"], "photos holds splits (test, train): choose one of them"),
        (["a/1.jpg"] * 2001, "photos has 2,001 files: 2,000 at most."),
        ([], "photos holds no class folders"),
    ],
)
def test_what_holds_no_classes_is_refused(names: list[str], words: str) -> None:
    with pytest.raises(InputError) as caught:
        sorted_into(*names)
    assert str(caught.value).startswith(words)


def folder_of(tmp_path: Path, classes: dict[str, int]) -> list[File]:
    """Files of class folders with one color per class."""
    files = []
    for number, (name, count) in enumerate(classes.items()):
        (tmp_path / name).mkdir(parents=True)
        for index in range(count):
            path = tmp_path / name / f"{index:02}.png"
            Image.new("RGB", (40, 30), (9 * number, index, 0)).save(path)
            files.append(File(f"mine/{name}/{path.name}", path))
    return files


def test_classes_and_pictures_equal_the_learner_s(trained: TrainedModel, tmp_path: Path) -> None:
    made, files = Session(trained), folder_of(tmp_path, {"a": 3, "b": 2})
    words = made.add_folders(class_files(files, "mine"))
    assert words == "5 pictures of 2 classes."
    paths, labels = learner_class_folders(tmp_path)
    wanted = trained.image_inputs.pixels(paths)
    found = [picture for many in made.pictures.values() for picture in many]
    assert [name for name, many in made.pictures.items() for _ in many] == labels
    assert (np.stack(found)[:, :1] == wanted.numpy()).all()


def test_limits_hold_and_are_reported(trained: TrainedModel, tmp_path: Path) -> None:
    made = Session(trained)
    files = folder_of(tmp_path, {"full": 30, "x" * 81: 1, "broken": 2, "small": 2})
    for file in files:
        if "broken" in file.name or file.path.stem == "03":
            file.path.write_bytes(b"no image")
    words = made.add_folders(class_files(files, "mine"))
    assert {name: len(many) for name, many in made.pictures.items()} == {"full": 20, "small": 2}
    assert words == (
        "22 pictures of 2 classes. A class takes 20 pictures, the first by name: “full” (30). No "
        "picture of “broken”. mine/broken/00.png is not an image, or of a kind that Pillow cannot "
        "read. mine/broken/01.png is not an image, or of a kind that Pillow cannot read. "
        "mine/full/03.png is not an image, or of a kind that Pillow cannot read. And 1 more."
    )
    assert [int(picture[1, 0, 0]) > 0 for picture in made.pictures["full"][:1]] == [False]
    with pytest.raises(InputError, match="All these classes are full already"):
        made.add_folders(ClassFiles({"full": files[:3]}, []))
    many = {f"class {number}": files[:1] for number in range(session.CLASSES)}
    with pytest.raises(InputError, match="There would be 22 classes: 20 at most"):
        made.add_folders(ClassFiles(many, []))
    broken = [file for file in files if "broken" in file.name]
    with pytest.raises(InputError, match=r"mine/broken/00\.png is not an image"):
        made.add_folders(ClassFiles({"new": broken}, []))
    assert [*made.pictures] == ["full", "small"]


def test_names_of_files_come_from_the_browser_and_must_fit(
    trained: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Session(trained)
    files = folder_of(tmp_path, {"a": 1, "b": 1})
    paths = [str(file.path) for file in files]
    for names in (None, "ab", [], ["mine/a/1.png"]):
        with pytest.raises(InputError, match="did not send the names of the folders"):
            handlers._add_folder(made, paths, names)
    with pytest.raises(InputError, match="Choose a folder first"):
        handlers._add_folder(made, [], [])
    assert handlers._add_folder(made, paths, [f.name for f in files]) == "2 pictures of 2 classes."
    monkeypatch.setattr(class_folders, "FILES", 1)
    with pytest.raises(InputError, match="mine has 2 files: 1 at most"):
        handlers._add_folder(made, paths, [f.name for f in files])

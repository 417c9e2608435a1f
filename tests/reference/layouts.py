"""Tiny image data sets in every layout that the library reads, with real names and shapes."""

import colorsys
import csv
import json
import pickle
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

from omnitraining.datasets.standards import mini_imagenet

SYNSETS = {
    split: [synset for synset, known in mini_imagenet().items() if known == split]
    for split in ("train", "validation", "test")
}
BIRDS = (
    *("001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross"),
    *("004.Groove_billed_Ani", "005.Crested_Auklet", "006.Least_Auklet", "007.Parakeet_Auklet"),
    *("008.Rhinoceros_Auklet", "009.Brewer_Blackbird", "010.Red_winged_Blackbird"),
    *("011.Rusty_Blackbird", "012.Yellow_headed_Blackbird"),
)
CARS = (
    *("AM General Hummer SUV 2000", "Acura RL Sedan 2012", "Acura TL Sedan 2012"),
    *("Acura TL Type-S 2008", "Acura TSX Sedan 2012", "Acura Integra Type R 2001"),
    *("Acura ZDX Hatchback 2012", "Aston Martin V8 Vantage Convertible 2012"),
    *("Aston Martin V8 Vantage Coupe 2012", "Aston Martin Virage Convertible 2012"),
    *("Aston Martin Virage Coupe 2012", "Audi RS 4 Convertible 2008"),
)
PLACES = (
    *("airfield", "airplane_cabin", "airport_terminal", "alcove", "alley", "amphitheater"),
    *("amusement_arcade", "amusement_park", "apartment_building-outdoor", "aquarium"),
    *("aqueduct", "arcade"),
)
PLANTS = (
    *("Acer rubrum", "Achillea millefolium", "Aesculus californica", "Alliaria petiolata"),
    *("Asclepias syriaca", "Daucus carota", "Galium aparine", "Hedera helix"),
    *("Lonicera japonica", "Quercus agrifolia", "Rhus typhina", "Trillium ovatum"),
)

Expected = dict[str, dict[str, int]]
"""By split, the classes in the order in which they are read, and the number of their color."""


def color(number: int) -> NDArray[np.float64]:
    """Red, green and blue of a class, 0 to 255; classes of near numbers differ clearly."""
    return 255 * np.array(colorsys.hsv_to_rgb(number * 0.618 % 1, 0.9, 0.4 + 0.15 * (number % 4)))


def picture(number: int, seed: int, side: int = 20) -> NDArray[np.uint8]:
    """An image [side + 4, side, 3] of a class: its color and noise."""
    noise = np.random.default_rng((number, seed)).normal(0, 12, (side + 4, side, 3))
    return (color(number) + noise).clip(0, 255).astype(np.uint8)


def nearest(pixels: NDArray[np.uint8], classes: int) -> int:
    """The number of the class whose color an image has."""
    mean = pixels.reshape(-1, 3).mean(0)
    return int(np.argmin([((color(number) - mean) ** 2).sum() for number in range(classes)]))


def write_layout(
    name: str, folder: Path, classes: int = 8, images: int = 6, side: int = 20
) -> Expected:
    """Write a data set and return what must be read from it.

    Args:
        name: of the layout, one of ``LAYOUTS`` (or "easyfsl", which is refused).
        folder: to make; its name is the name of the data set.
        classes: 4 to 12; half are for training, the others for validation and test.
        images: per class; more in layouts in which it differs.
        side: of the images in pixels; images in pickles have always 84.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return LAYOUTS[name](folder, classes, images, side)


def save(path: Path, number: int, side: int) -> Path:
    """Write one image file; its noise depends on its name and that of its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = zlib.crc32(f"{path.parent.name}/{path.name}".encode())
    Image.fromarray(picture(number, seed, side)).save(path)
    return path


def table(path: Path, header: list[str], rows: list[list[str]]) -> None:
    """Write a CSV table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def _synsets(classes: int) -> Expected:
    """The first classes of every split of mini-ImageNet."""
    counts = {"train": classes // 2, "validation": classes // 4}
    counts["test"] = classes - sum(counts.values())
    numbers = iter(range(classes))
    return {s: {c: next(numbers) for c in SYNSETS[s][:count]} for s, count in counts.items()}


def _modulo(names: tuple[str, ...], classes: int) -> Expected:
    """Every second class for training, the others for validation and test by turns."""
    found: Expected = {"train": {}, "validation": {}, "test": {}}
    for number, name in enumerate(names[:classes]):
        split = "train" if number % 2 == 0 else "validation" if number % 4 == 1 else "test"
        found[split][name] = number
    return {split: members for split, members in found.items() if members}


def _ilsvrc(folder: Path, classes: int, images: int, side: int) -> Expected:
    """CSVs of Ravi and Larochelle; of three images of a class in ImageNet's folder one is named.

    Numbers of images sort differently as texts and as numbers.
    """
    expected = _synsets(classes)
    for word, split in (("train", "train"), ("val", "validation"), ("test", "test")):
        rows = []
        for synset, number in expected[split].items():
            tree = folder / "ILSVRC2015" / "Data" / "CLS-LOC" / "train" / synset
            for image in range(3 * images):
                save(tree / f"{synset}_{7 * image**2 + 3}.JPEG", number, side)
            rows += [[f"{synset}{rank:08}.jpg", synset] for rank in range(2, 3 * images, 3)]
        table(folder / f"{word}.csv", ["filename", "label"], rows)
    return expected


def _flat_csv(folder: Path, classes: int, images: int, side: int) -> Expected:
    expected = _synsets(classes)
    for word, split in (("train", "train"), ("val", "validation"), ("test", "test")):
        rows = []
        for synset, number in expected[split].items():
            for image in range(images):
                name = f"{synset}{image + 1:08}.jpg"
                save(folder / "images" / name, number, side)
                rows.append([name, synset])
        table(folder / f"{word}.csv", ["filename", "label"], rows)
    return expected


def _original_names(folder: Path, classes: int, images: int, side: int) -> Expected:
    expected = _synsets(classes)
    for word, split in (("train", "train"), ("val", "validation"), ("test", "test")):
        rows = []
        for synset, number in expected[split].items():
            for image in range(images):
                name = f"{synset}_{9 * image + 5}.JPEG"
                save(folder / "images" / synset / name, number, side)
                rows.append([synset, name])
        table(folder / f"{word}.csv", ["class_name", "image_name"], rows)
    return expected


def _split_folders(words: dict[str, str]) -> Callable[[Path, int, int, int], Expected]:
    def write(folder: Path, classes: int, images: int, side: int) -> Expected:
        expected = _synsets(classes)
        for split, word in words.items():
            _folders(folder / word, expected[split], images, side)
        return expected

    return write


def _folders(folder: Path, classes: Mapping[str, int], images: int, side: int) -> None:
    for name, number in classes.items():
        for image in range(images):
            save(folder / name / f"{name.split('.')[-1]}_{image:04}.jpg", number, side)


def _arrays(members: dict[str, int], images: int) -> NDArray[np.uint8]:
    made = [picture(number, i, 84)[:84] for number in members.values() for i in range(images)]
    return np.stack(made)


def _metaoptnet(folder: Path, classes: int, images: int, side: int) -> Expected:
    """Labels number all classes through, so that labels of validation and test have gaps."""
    expected = _synsets(classes)
    files = {"train": "train_phase_train", "validation": "val", "test": "test"}
    for split, word in (*files.items(), ("train", "train_phase_val")):
        members = expected[split]
        content = {
            "data": _arrays(members, images),
            "labels": [number for number in members.values() for _ in range(images)],
            "catname2label": members,
            "label2catname": {number: name for name, number in members.items()},
        }
        path = folder / f"miniImageNet_category_split_{word}.pickle"
        path.write_bytes(pickle.dumps(content))
    return expected


def _learn2learn(folder: Path, classes: int, images: int, side: int) -> Expected:
    expected = _synsets(classes)
    for split, word in (("train", "train"), ("validation", "val"), ("test", "test")):
        members = expected[split]
        rows = {name: [*range(i * images, (i + 1) * images)] for i, name in enumerate(members)}
        content = {"image_data": _arrays(members, images), "class_dict": rows}
        (folder / f"mini-imagenet-cache-{word}.pkl").write_bytes(pickle.dumps(content))
    return expected


def _json(folder: Path, classes: int, images: int, side: int) -> Expected:
    """CloserLook's lists: all of them name all classes and use the labels of their own."""
    expected = _modulo(BIRDS, classes)
    _folders(folder / "images", {n: i for i, n in enumerate(BIRDS[:classes])}, images, side)
    for split, word in (("train", "base"), ("validation", "val"), ("test", "novel")):
        pairs = [
            (str(path), number)
            for name, number in expected[split].items()
            for path in sorted((folder / "images" / name).iterdir())
        ]
        content = {
            "label_names": BIRDS[:classes],
            "image_names": [path for path, _ in pairs],
            "image_labels": [number for _, number in pairs],
        }
        (folder / f"{word}.json").write_text(json.dumps(content))
    return expected


def _easyfsl(folder: Path, classes: int, images: int, side: int) -> Expected:
    _folders(folder / "images", {n: i for i, n in enumerate(BIRDS[:classes])}, images, side)
    for word in ("train", "val", "test"):
        content = {
            "class_names": BIRDS[:2],
            "class_roots": [f"./data/CUB/images/{name}" for name in BIRDS[:2]],
        }
        (folder / f"{word}.json").write_text(json.dumps(content))
    return {}


def _cub(folder: Path, classes: int, images: int, side: int) -> Expected:
    """As its archive unpacks: a folder and a file beside it."""
    inner = folder / "CUB_200_2011"
    _folders(inner / "images", {n: i for i, n in enumerate(BIRDS[:classes])}, images, side)
    (inner / "classes.txt").write_text("".join(f"{i} {n}\n" for i, n in enumerate(BIRDS, 1)))
    (inner / "parts").mkdir()
    (folder / "attributes.txt").write_text("1 has_bill_shape::curved_(up_or_down)\n")
    (folder / "segmentations").mkdir()
    return _modulo(BIRDS, classes)


def _cars(folder: Path, classes: int, images: int, side: int) -> Expected:
    """Images are numbered through in another order than the classes."""
    order = [*reversed(range(classes))] * images
    write_cars(folder, [(number + 1, f"{i:05}.jpg") for i, number in enumerate(order, 1)])
    for i, number in enumerate(order, 1):
        save(folder / "cars_train" / f"{i:05}.jpg", number, side)
    save(folder / "cars_test" / "00001.jpg", 0, side)
    return _modulo(CARS, classes)


def write_cars(folder: Path, rows: list[tuple[int, str]]) -> None:
    """The annotations of Stanford Cars: class ids, from 1 on, and names of files."""
    fields = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")
    annotations = np.zeros((1, len(rows)), dtype=[(field, object) for field in fields])
    for place, (number, name) in enumerate(rows):
        annotations[0, place] = (1, 1, 18, 22, number, name)
    names = np.empty((1, len(CARS)), dtype=object)
    names[0] = CARS
    (folder / "devkit").mkdir(parents=True, exist_ok=True)
    savemat(folder / "devkit" / "cars_train_annos.mat", {"annotations": annotations})
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": names})


def _places(folder: Path, classes: int, images: int, side: int) -> Expected:
    """Training and validation images of the same classes, as its archive unpacks."""
    members = {name: number for number, name in enumerate(sorted(PLACES[:classes]))}
    for name, number in members.items():
        for image in range(images):
            path = folder / "places365_standard" / "train" / name / f"{image + 1:08}.jpg"
            save(path, number, side)
        path = folder / "places365_standard" / "val" / name / f"Places365_val_{number:08}.jpg"
        save(path, number, side)
    (folder / "places365_standard" / "train.txt").write_text("")
    return _modulo(tuple(members), classes)


def _plantae(folder: Path, classes: int, images: int, side: int) -> Expected:
    """A later species has fewer images, so that sorting by name and by size differ."""
    sized = [(name, images + classes - 1 - i) for i, name in enumerate(PLANTS[:classes])]
    for number, (name, count) in enumerate(reversed(sized)):
        for image in range(count):
            save(folder / "Plantae" / name / f"{1000 * number + image}.jpg", number, side)
    return _modulo(tuple(name for name, _ in reversed(sized)), classes)


def _class_folders(folder: Path, classes: int, images: int, side: int) -> Expected:
    """Classes of unequal size, and files that are no images."""
    members = {name: number for number, name in enumerate(sorted(PLANTS[:classes]))}
    for name, number in members.items():
        _folders(folder, {name: number}, images + number % 2, side)
    (folder / "notes.txt").write_text("taken in May")
    (folder / PLANTS[0] / "Thumbs.db").write_bytes(b"\0")
    return {"all": members}


def _one_csv(folder: Path, classes: int, images: int, side: int) -> Expected:
    members = {name: number for number, name in enumerate(sorted(PLANTS[:classes]))}
    rows = []
    for image in range(images):
        for name, number in members.items():
            path = save(folder / "photos" / f"{number}-{image}.png", number, side)
            rows.append([str(path.relative_to(folder)), "May", name])
    table(folder / "plants.csv", ["file", "month", "class"], rows)
    return {"all": members}


def _one_csv_with_split(folder: Path, classes: int, images: int, side: int) -> Expected:
    expected = _modulo(tuple(sorted(PLANTS)), classes)
    rows = []
    for split, members in expected.items():
        for name, number in members.items():
            for image in range(images):
                path = save(folder / f"{number}-{image}.png", number, side)
                rows.append([path.name, name, {"validation": "val"}.get(split, split)])
    table(folder / "plants.csv", ["filename", "label", "split"], rows[::-1])
    return expected


LAYOUTS: dict[str, Callable[[Path, int, int, int], Expected]] = {
    "ilsvrc": _ilsvrc,
    "flat-csv": _flat_csv,
    "original-names": _original_names,
    "split-folders": _split_folders({"train": "train", "validation": "val", "test": "test"}),
    "base-novel": _split_folders({"train": "base", "validation": "validation", "test": "novel"}),
    "metaoptnet": _metaoptnet,
    "learn2learn": _learn2learn,
    "json": _json,
    "cub": _cub,
    "cars": _cars,
    "places": _places,
    "plantae": _plantae,
    "class-folders": _class_folders,
    "one-csv": _one_csv,
    "one-csv-with-split": _one_csv_with_split,
    "easyfsl": _easyfsl,
}

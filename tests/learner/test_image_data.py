"""What people have: one picture, data sets and loaders of torch, rows, tables; and odd labels."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from omnitraining import FewShotClassifier, InputError
from omnitraining.learner import TrainedModel
from omnitraining.learner.image_data import Rows, labels_of
from omnitraining.learner.inputs import ImageInputs
from omnitraining.tasks.classification.problem import Classification
from tests.learner.models import untrained

NAMES = ("ara", "emu", "owl")


class Pairs(Dataset[Any]):
    """A data set of torch, as torchvision has them: items have no end, only a length."""

    def __init__(self, images: list[Any], labels: list[int]) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.images[index % len(self.images)], self.labels[index % len(self.images)]


class Alone(Dataset[Any]):
    """The same without labels."""

    def __init__(self, images: list[Any]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        return self.images[index % len(self.images)]


class Hub:
    """A data set of Hugging Face, as far as it is used: rows, and columns by name."""

    column_names = ("image", "label")

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]

    def __iter__(self) -> Any:
        return iter(self.rows)


@pytest.fixture(scope="module")
def tiny() -> TrainedModel:
    return untrained()[1]


@pytest.fixture(scope="module")
def images() -> tuple[NDArray[np.uint8], list[int]]:
    problem = untrained()[0].problem
    assert isinstance(problem, Classification)
    data = problem.benchmarks["blobs"]
    return data.images[:36, 0].numpy(), data.labels[:36].tolist()


@pytest.fixture(scope="module")
def expected(
    tiny: TrainedModel, images: tuple[NDArray[np.uint8], list[int]]
) -> NDArray[np.float64]:
    x, y = images
    return FewShotClassifier(tiny).fit(x, y).predict_proba(x)


def labeled(x: NDArray[np.uint8], y: list[int], folder: Path) -> dict[str, Any]:
    """The images with their labels, in all forms."""
    pictures, paths = [Image.fromarray(each) for each in x], []
    for number, picture in enumerate(pictures):
        picture.save(folder / f"{number}.png")
        paths.append(str(folder / f"{number}.png"))
    tensors = TensorDataset(torch.from_numpy(x)[:, None] / 255, torch.tensor(y))
    rows = [{"image": a, "label": b, "id": 7} for a, b in zip(pictures, y, strict=True)]
    return {
        "data set": Pairs(pictures, y),
        "tensors": tensors,
        "loader": DataLoader(tensors, batch_size=5),
        "one by one": DataLoader(tensors, batch_size=None),
        "pairs": [*zip(paths, y, strict=True)],
        "rows": rows,
        "rows that come": iter(rows),
        "hub": Hub(rows),
        "columns": {"image": pictures, "label": y},
    }


def test_labeled_images_in_all_forms_are_one_fit(
    tiny: TrainedModel,
    images: tuple[NDArray[np.uint8], list[int]],
    expected: NDArray[np.float64],
    tmp_path: Path,
) -> None:
    x, y = images
    for name, form in labeled(x, y, tmp_path).items():
        learner = FewShotClassifier(tiny).fit(form)
        np.testing.assert_allclose(learner.predict_proba(x), expected, atol=1e-5, err_msg=name)
        if name != "rows that come":  # which have gone
            np.testing.assert_array_equal(learner.predict(form), learner.predict(x), name)
            assert learner.score(form) == learner.score(x, y), name
            assert learner.partial_fit(form).counts_[0] == 24, name


def test_images_without_labels_in_all_forms(
    tiny: TrainedModel,
    images: tuple[NDArray[np.uint8], list[int]],
    expected: NDArray[np.float64],
    tmp_path: Path,
) -> None:
    x, y = images
    labeled(x, y, tmp_path)
    paths = [str(tmp_path / f"{number}.png") for number in range(len(x))]
    forms: dict[str, Any] = {
        "array of one column": np.array(paths)[:, None],
        "data set": Alone([Image.fromarray(each) for each in x]),
        "loader": DataLoader(TensorDataset(torch.from_numpy(x)[:, None]), batch_size=7),
        "loader of images": DataLoader(Alone([torch.from_numpy(each) for each in x]), batch_size=7),
        "rows": [{"image": path} for path in paths],
        "come": (each for each in x),
    }
    for name, form in forms.items():
        learner = FewShotClassifier(tiny).fit(form, y)
        np.testing.assert_allclose(learner.predict_proba(x), expected, atol=1e-5, err_msg=name)
        if name not in ("come", "array of one column"):
            with pytest.raises(InputError, match="there are no labels"):
                learner.fit(form)
    one = FewShotClassifier(tiny).fit(x, y).predict_proba(Image.fromarray(x[3]))
    np.testing.assert_allclose(one, expected[3:4], atol=1e-5)


def test_labels_may_be_given_twice_if_they_agree(
    tiny: TrainedModel, images: tuple[NDArray[np.uint8], list[int]]
) -> None:
    x, y = images
    learner = FewShotClassifier(tiny).fit(Pairs([*x], y), y)
    with pytest.raises(InputError, match="y differs from the labels of the data set: leave y out"):
        learner.fit(Pairs([*x], y), y[::-1])
    with pytest.raises(InputError, match="there are 36 images and 35 labels"):
        learner.fit(Alone([*x]), y[1:])
    assert learner.counts_ == {0: 12, 1: 12, 2: 12}


def test_loaders_that_shuffle_have_labels_but_no_order(
    tiny: TrainedModel,
    images: tuple[NDArray[np.uint8], list[int]],
    expected: NDArray[np.float64],
) -> None:
    x, y = images
    loader = DataLoader(Pairs([torch.from_numpy(each) for each in x], y), 5, shuffle=True)
    learner = FewShotClassifier(tiny).fit(loader)
    # Which images are held out together depends on their order, and so does the temperature: the
    # logits are the same up to a factor.
    found, wanted = (
        np.log(p) - np.log(p).mean(1)[:, None] for p in (learner.predict_proba(x), expected)
    )
    np.testing.assert_allclose(
        found / np.linalg.norm(found), wanted / np.linalg.norm(wanted), atol=1e-3
    )
    assert learner.score(loader) == learner.score(x, y)
    with pytest.raises(InputError, match="a DataLoader that shuffles gives its images in another"):
        learner.predict(loader)
    with pytest.raises(InputError, match="y cannot go with a DataLoader that shuffles"):
        learner.fit(loader, y)


PIXELS = np.zeros((8, 8), np.uint8)
WRONG: dict[str, tuple[Any, str]] = {
    "row": ([{"img": PIXELS}], "row 0 has 'img': its image must be called 'image'"),
    "three parts": (Pairs([(PIXELS, 1)], [2]), "image 0 is a tuple: give paths, Pillow images or"),
    "parts": (Alone([(PIXELS, 1, 2)]), "item 0 has 3 parts: give an image, and its label"),
    "things": (Alone([object()]), "image 0 is a object: give paths, Pillow images or arrays"),
    "empty": (Alone([]), "there are no images: give one or more"),
    "some labels": ([{"image": PIXELS, "label": 1}, {"image": PIXELS}], "image 1 has no label"),
    "no axis": (np.array(5.0), r"images of shape \[\] are no images"),
    "row of numbers": (np.zeros(5), r"images of shape \[5\] are no images"),
    "meta": (torch.zeros(2, 8, 8, device="meta"), "a tensor on the meta device holds no pixels"),
    "masked": (np.ma.masked_equal(PIXELS[None], 0), "an array with masked pixels: fill them"),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_what_holds_no_images_is_refused(wrong: tuple[Any, str]) -> None:
    with pytest.raises(InputError, match=wrong[1]) as caught:
        ImageInputs(1, 8, 8, (0.5,), (0.25,)).pixels(wrong[0])
    assert "\n" not in str(caught.value)


class NAType:
    """As pandas has it: no comparison with it is true or false."""

    def __eq__(self, _: object) -> Any:
        return self

    def __bool__(self) -> bool:
        raise TypeError("boolean value of NA is ambiguous")

    __hash__ = object.__hash__


MISSING: list[Any] = [None, float("nan"), np.nan, NAType(), np.float32("nan")]


@pytest.mark.parametrize("label", MISSING, ids=lambda label: type(label).__name__)
def test_a_missing_label_is_named(label: Any) -> None:
    for others in (["a", "b"], [3, 4]):
        for y in ([label, *others], np.array([label, *others], object)):
            with pytest.raises(InputError, match="label 0 is missing"):
                labels_of(y)


def test_labels_of_all_kinds() -> None:
    whole: list[Any] = [
        [0, 1],
        (0, 1),
        np.array([[0], [1]]),
        np.array([0.0, 1.0]),
        torch.tensor([0, 1]),
        torch.tensor([0.0, 1.0], dtype=torch.bfloat16),
        iter([0, 1]),
    ]
    for y in whole:
        assert labels_of(y).tolist() == [0, 1]
    wrong: dict[str, Any] = {
        "labels are a set: give a list": {0, 1},
        "labels are a dict: give a list": {"a.png": 1},
        "label 1 is missing": np.ma.masked_equal([0, 1], 1),
        "labels are numbers, and true or false": [True, 2],
        "labels are lists of different lengths": [[1], [1, 2]],
        "labels are texts and numbers": ["a", 2],
    }
    for words, y in wrong.items():
        with pytest.raises(InputError, match=words):
            labels_of(y)


def test_arrays_of_16_bits_and_of_half_precision_are_read_batch_by_batch() -> None:
    inputs = ImageInputs(1, 8, 8, (0.5,), (0.25,))
    deep = np.zeros((300, 8, 8), np.uint16)
    deep[299] = 65535
    deep[0] = 200
    assert [each.max().item() for each in inputs.pixels(deep)[[0, 1, 299]]] == [1, 0, 255]
    half = torch.ones(2, 8, 8, dtype=torch.bfloat16)
    assert inputs.pixels(half).unique().tolist() == [255]
    wrong = np.zeros((300, 8, 8))
    wrong[290, 1, 2] = np.nan
    with pytest.raises(InputError, match=r"pixel at \[290, 1, 2\] is nan"):
        inputs.pixels(wrong)
    with pytest.raises(InputError, match=r"of shape \[300, 2, 8, 8\]"):
        inputs.pixels(np.zeros((300, 2, 8, 8)))


def test_few_images_are_in_memory_at_a_time() -> None:
    inputs = ImageInputs(1, 8, 8, (0.5,), (0.25,))
    drawn = []

    class Counted(Alone):
        def __getitem__(self, index: int) -> Any:
            drawn.append(index)
            return PIXELS

    batches = inputs.batches(Counted([0] * 300))
    assert len(next(batches)) == 128 and len(drawn) == 128
    assert [len(each) for each in batches] == [128, 44]


def test_how_many_images_there_are_is_known_where_the_source_has_a_length() -> None:
    whole = TensorDataset(torch.zeros(7, 8, 8))

    class Endless(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return iter(torch.zeros(3, 8, 8))

    counts = {
        "data set": (whole, 7),
        "loader": (DataLoader(whole, batch_size=3), 7),
        "loader of images": (DataLoader(whole, batch_size=None), 7),
        "batches of its own": (DataLoader(whole, batch_sampler=[[0, 1], [2]]), None),
        "stream": (Endless(), None),
        "loader of a stream": (DataLoader(Endless(), batch_size=2), None),
        "rows": ([{"image": "a"}] * 4, 4),
    }
    assert {name: Rows(source).count for name, (source, _) in counts.items()} == {
        name: count for name, (_, count) in counts.items()
    }

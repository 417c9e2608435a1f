"""One picture in many forms is one input; what is no image is refused by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from omnitraining import Classification, EpisodeConfig, InputError
from omnitraining.datasets.images import LabeledImages
from omnitraining.learner.inputs import ImageInputs, class_folders, listed
from omnitraining.tasks.classification.transforms import CloserLookAugmentation, NoAugmentation

GRAY = ImageInputs(1, 16, 16, (0.5,), (0.25,))
COLOR = ImageInputs(3, 23, 20, (0.4, 0.5, 0.6), (0.2, 0.2, 0.2))


def picture(height: int = 16, width: int = 16, channels: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def forms(pixels: NDArray[np.uint8], folder: Path) -> dict[str, Any]:
    Image.fromarray(pixels).save(folder / "a.png")
    first = pixels.transpose(2, 0, 1)
    return {
        "bytes, channels last": pixels[None],
        "bytes, channels first": first[None],
        "tensor": torch.from_numpy(first.copy())[None],
        "int64": pixels[None].astype(np.int64),
        "floats": pixels[None] / 255,
        "float tensor": torch.from_numpy(first.copy())[None] / 255,
        "list of arrays": [pixels],
        "list of tensors": [torch.from_numpy(first.copy())],
        "Pillow": [Image.fromarray(pixels)],
        "one Pillow": Image.fromarray(pixels),
        "path": [folder / "a.png"],
        "name": [str(folder / "a.png")],
        "array of names": np.array([str(folder / "a.png")]),
        "one path": folder / "a.png",
        "folder": str(folder),
        "nested lists": [pixels.tolist()],
        "opaque": [np.concatenate([pixels, np.full((*pixels.shape[:2], 1), 255, np.uint8)], 2)],
    }


@pytest.mark.parametrize("inputs", [GRAY, COLOR], ids=["gray", "color"])
@pytest.mark.parametrize("shape", [(16, 16), (23, 23), (40, 31), (9, 50)], ids=str)
def test_all_forms_of_a_picture_are_one_input(
    inputs: ImageInputs, shape: tuple[int, int], tmp_path: Path
) -> None:
    pixels = picture(*shape)
    resized = Image.fromarray(pixels).resize((inputs.stored,) * 2, Image.Resampling.BILINEAR)
    expected = np.asarray(resized)[None] if inputs.channels == 3 else None
    expected = np.asarray(resized).transpose(2, 0, 1)
    if inputs.channels == 1:
        expected = np.asarray(resized.convert("L"))[None]
    corner = round((inputs.stored - inputs.size) / 2)
    expected = expected[:, corner : corner + inputs.size, corner : corner + inputs.size]
    for name, form in forms(pixels, tmp_path).items():
        found = inputs.pixels(form)
        assert found.dtype == torch.uint8 and found.shape == (1, *inputs.shape), name
        difference = np.abs(found[0].numpy().astype(int) - expected.astype(int))
        assert difference.max() <= 1, name  # Pillow rounds its gray levels down at times


def test_gray_is_repeated_for_networks_of_color() -> None:
    gray = picture(channels=1)[..., 0]
    for form in (gray[None], [gray], [gray[None]], gray[None, ..., None], gray[None] / 255):
        found = COLOR.pixels(form)
        assert found.shape == (1, *COLOR.shape)
        assert torch.equal(found[:, 0], found[:, 1]) and torch.equal(found[:, 0], found[:, 2])


def test_images_of_the_networks_own_size_stay_as_they_are() -> None:
    pixels = picture(channels=1)[..., 0]
    assert np.array_equal(GRAY.pixels(pixels[None])[0, 0].numpy(), pixels)
    assert np.array_equal(GRAY.pixels([pixels / 255])[0, 0].numpy(), pixels)
    assert GRAY.pixels(np.eye(16, dtype=bool)[None]).unique().tolist() == [0, 255]


def test_images_of_a_list_may_differ_in_size_and_kind(tmp_path: Path) -> None:
    Image.fromarray(picture(30, 20)).save(tmp_path / "ä [1].webp")
    mixed = [picture(5, 60), tmp_path / "ä [1].webp", Image.new("P", (9, 9)), np.zeros((7, 7))]
    assert GRAY.pixels(mixed).shape == (4, 1, 16, 16)


def test_the_inputs_of_a_problem_are_what_its_augmentation_returns() -> None:
    pixels = torch.from_numpy(picture(channels=3)).permute(2, 0, 1).expand(40, -1, -1, -1)
    labels = torch.arange(4).repeat_interleave(10)
    for channels in (1, 3):
        for augmentation in (None, CloserLookAugmentation(14)):
            data = LabeledImages(pixels[:, :channels].contiguous(), labels, tuple("abcd"), "data")
            protocol = EpisodeConfig(ways=2, shots=1, queries=2, test_ways=2, test_shots=(1,))
            problem = Classification(data, data, {"data": data}, protocol, augmentation)
            inputs = ImageInputs.of(problem)
            found = inputs.pixels(data.images[:2]) / 255
            mean, std = (torch.tensor(x).view(-1, 1, 1) for x in (inputs.mean, inputs.std))
            torch.testing.assert_close(
                (found - mean) / std, problem.augmentation.eval(data.images[:2])
            )
    wide = LabeledImages(torch.zeros(40, 1, 8, 16, dtype=torch.uint8), labels, ("a",) * 4, "wide")
    problem = Classification(
        wide, wide, {}, protocol, NoAugmentation(torch.zeros(1), torch.ones(1))
    )
    with pytest.raises(InputError, match=r"takes square images of 1 or 3 channels.* 1 x 8 x 16"):
        ImageInputs.of(problem)


NAN = np.zeros((3, 8, 8))
NAN[1, 2, 3] = np.nan
WRONG: dict[str, tuple[Any, str]] = {
    "nan": (NAN, r"the images: pixel at \[1, 2, 3\] is nan: it must be a number"),
    "nan in a list": ([NAN[0], NAN[1]], r"image 1: pixel at \[2, 3\] is nan"),
    "infinite": ([np.full((4, 4), np.inf)], "image 0: pixel at .* is inf"),
    "floats to 255": (np.full((2, 8, 8), 254.0), "from 254.0 to 254.0: floating-point pixels must"),
    "16 bits": (
        np.full((2, 8, 8), 999),
        "pixels from 999 to 999: integer pixels must be from 0 to 255",
    ),
    "negative": (
        np.full((2, 8, 8), -1),
        "pixels from -1 to -1: integer pixels must be from 0 to 255",
    ),
    "table": (np.zeros((5, 64)), r"images of shape \[5, 64\] are no images: give \[B, H, W\]"),
    "five axes": (np.zeros((1, 1, 1, 4, 4)), r"the images of shape \[1, 1, 1, 4, 4\]: give"),
    "two channels": (np.zeros((2, 2, 8, 8)), r"of shape \[2, 2, 8, 8\]: give .* C = 1, 3 or 4"),
    "either": (np.zeros((2, 3, 3, 3)), r"of shape \[2, 3, 3, 3\]: give"),
    "one in color": (
        np.zeros((9, 8, 3), np.uint8),
        r"\[9, 8, 3\] may be 9 gray images or one of 3",
    ),
    "one with opacity": (torch.zeros(9, 8, 4), r"\[9, 8, 4\] may be 9 gray images or one of 4"),
    "one as nested lists": ([[[0] * 3] * 8] * 9, r"\[9, 8, 3\] may be 9 gray images or one of 3"),
    "row": ([np.zeros(4)], r"image 0 of shape \[1, 4\]: give"),
    "no pixels": ([np.zeros((0, 4))], "has no pixels"),
    "none": ([], "there are no images: give one or more"),
    "complex": (np.zeros((2, 8, 8), complex), "pixels are complex128: give numbers"),
    "ragged": ([[[1, 2], [3]]], "nested lists of different lengths"),
    "things": ([object()], "image 0 is a object: give paths, Pillow images or arrays"),
    "number": (7, "images are int: give arrays, or paths of files"),
    "nowhere": ("/no/such/folder", "there is no image or folder at /no/such/folder"),
    "set": ({"a.png", "b.png"}, "images are a set, which has no order: give a list"),
    "dict": ({"a.png": 0}, "images are a dict, which has no order: give a list"),
    "frozen set": (frozenset(["a.png"]), "images are a frozenset, which has no order"),
    "empty text": ("", "there is no image or folder at ''"),
    "null": (["a\0.png"], r"image 0 is no path: 'a\\x00.png' holds a null character"),
    "no file": (["/no/such.png"], "/no/such.png cannot be opened: No such file"),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_what_is_no_image_is_refused_in_one_line(wrong: tuple[Any, str]) -> None:
    images, words = wrong
    for inputs in (GRAY, COLOR):
        with pytest.raises(InputError, match=words) as caught:
            inputs.pixels(images)
        assert "\n" not in str(caught.value)


def test_one_tensor_in_color_is_not_taken_for_three_in_gray() -> None:
    """As torchvision reads an image; an array of numpy would have its channels last."""
    image = torch.zeros(3, 9, 8, dtype=torch.uint8)
    with pytest.raises(InputError, match=r"\[3, 9, 8\] may be 3 gray images or one of 3 channels"):
        COLOR.pixels(image)
    assert len(COLOR.pixels([image])) == 1
    assert len(COLOR.pixels(image[:, None])) == len(COLOR.pixels(image.numpy())) == 3
    assert len(GRAY.pixels(image)) == 3


def test_files_that_are_no_images_are_named(tmp_path: Path) -> None:
    (tmp_path / "note.png").write_text("not an image")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(InputError, match=r"empty.jpg is empty"):
        GRAY.pixels(tmp_path)
    with pytest.raises(InputError, match=r"note.png is not an image, or of a kind that Pillow"):
        GRAY.pixels([tmp_path / "note.png"])
    (tmp_path / "sub").mkdir()
    with pytest.raises(InputError, match="sub holds no images"):
        GRAY.pixels(tmp_path / "sub")


def test_folders_of_classes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder at"):
        class_folders(tmp_path / "x")
    with pytest.raises(InputError, match="holds no classes: give a folder of images per class"):
        class_folders(tmp_path)
    (tmp_path / "b").mkdir()
    with pytest.raises(InputError, match=r"class 'b' is empty: .*b holds no image"):
        class_folders(tmp_path)
    (tmp_path / "a [2]").mkdir()
    (tmp_path / ".hidden").mkdir()
    for name in ("b/2.PNG", "b/1.jpg", "b/.DS_Store", "b/notes.txt", "a [2]/ü.gif"):
        (tmp_path / name).touch()
    with pytest.warns(UserWarning, match=r"1 file that is no image by its name \(b/notes.txt\)$"):
        paths, labels = class_folders(tmp_path)
    assert labels == ["a [2]", "b", "b"]
    assert [path.name for path in paths] == ["ü.gif", "1.jpg", "2.PNG"]


def test_folders_of_splits_are_no_classes(tmp_path: Path) -> None:
    for name in ("train/ara/1.jpg", "test/emu/1.jpg"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"holds splits \(test, train\), not classes: give one of"):
        class_folders(tmp_path)
    for name in ("train/1.jpg", "test/1.jpg"):  # nor are they of images without a class
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"holds splits \(test, train\), not classes: give one of"):
        class_folders(tmp_path)
    (tmp_path / "train" / "1.jpg").unlink()
    assert class_folders(tmp_path / "train")[1] == ["ara"]


def test_a_class_called_as_a_split_is_reported(tmp_path: Path) -> None:
    for name in ("ara/1.jpg", "test/1.jpg", "__a/1.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    with pytest.warns(
        UserWarning, match=r"test is a class, as the folders beside it are"
    ) as caught:
        assert class_folders(tmp_path)[1] == ["__a", "ara", "test"]
    assert len(caught) == 1


def test_images_are_found_in_a_folder_or_in_its_class_folders(tmp_path: Path) -> None:
    names = ("b/2.png", "b/10.png", "a/1.png")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(picture()).save(tmp_path / name)
    found = [path.relative_to(tmp_path).as_posix() for path in listed(tmp_path)]
    assert found == ["a/1.png", "b/10.png", "b/2.png"]
    assert found == [path.relative_to(tmp_path).as_posix() for path in class_folders(tmp_path)[0]]
    for name in ("c.png", ".d.png", "e.heic"):
        Image.fromarray(picture()).save(tmp_path / name, "png")
    with pytest.warns(UserWarning) as caught:
        assert listed(tmp_path) == [tmp_path / "c.png"]
    (warning,) = caught
    assert str(warning.message).startswith(f"left out of {tmp_path}: 1 file that is no image")
    assert "1 hidden image or folder of images (.d.png), 2 folders" in str(warning.message)


def test_an_image_may_be_in_a_list_often(tmp_path: Path) -> None:
    """Pillow reads a file when it is asked for pixels, and many threads ask."""
    Image.fromarray(picture(600, 800)).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        found = COLOR.pixels([image] * 12)
    assert found.unique(dim=0).shape[0] == 1
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:900])
    match = r"^image 1 cannot be decoded: "
    with Image.open(tmp_path / "b.png") as cut, pytest.raises(InputError, match=match):
        COLOR.pixels([image, cut, image, cut])


def test_numbers_that_numpy_lacks_are_taken() -> None:
    levels = torch.full((1, 16, 16), 0.5, dtype=torch.bfloat16)
    assert GRAY.pixels(levels).unique().tolist() == [128]


def test_arrays_that_may_not_be_written_to_are_taken_as_they_are() -> None:
    """As NumPy has the pixels of a Pillow image; a warning is an error in these tests."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8), dtype=np.uint8)
    fixed = pixels.copy()
    fixed.setflags(write=False)
    inputs = ImageInputs(1, 8, 8, (0.5,), (0.25,))
    for images in (fixed, [*fixed], np.asarray(Image.fromarray(pixels[0]))[None]):
        assert (inputs.pixels(images)[0, 0].numpy() == pixels[0]).all()

"""Photographs from files become the benchmark that is asked for, or one clear line."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from omnitraining.config.run_config import instantiate
from omnitraining.datasets.duplicates import shared_images
from omnitraining.datasets.images import LabeledImages, gray, rotated
from omnitraining.errors import InputError
from omnitraining.experiments.running import train_run
from omnitraining.learner.inputs import ImageInputs
from omnitraining.tasks.classification.photos import Photos
from omnitraining.tasks.classification.problem import EpisodeConfig
from tests.reference.layouts import PLANTS, SYNSETS, nearest, write_layout
from tests.reference.tiny import BLOBS, config

PROTOCOL = EpisodeConfig(ways=2, shots=1, queries=2, batch=8, test_ways=2, test_shots=(1, 2))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data sets of 8 classes, and own ones of 10."""
    folder = tmp_path_factory.mktemp("data")
    write_layout("split-folders", folder / "mini-imagenet", images=4)
    for name in ("cub", "cars"):
        write_layout(name, folder / name, images=4)
    write_layout("class-folders", folder / "own", classes=10, images=4)
    return folder


@pytest.fixture
def changing(data: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    shutil.copytree(data, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNITRAINING_CACHE", str(tmp_path_factory.getbasetemp() / "photos"))


@pytest.mark.parametrize("aspect", ["stretch", "crop", "letterbox"])
@pytest.mark.parametrize("augmentation", ["closer-look", "pad-crop"])
def test_training_test_and_learner_make_squares_alike(
    data: Path, tmp_path: Path, aspect: str, augmentation: str
) -> None:
    """A long image goes through all three; each way gives other pixels."""
    random = np.random.default_rng(0)
    for number in range(40):
        folder = tmp_path / "own" / "abcdefghij"[number % 10]
        folder.mkdir(parents=True, exist_ok=True)
        noise = random.integers(0, 256, (5, 7, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((60, 23)).save(folder / f"{number}.png")
    problem = photos(
        tmp_path,
        training=("own",),
        validation="own",
        benchmarks=("own",),
        augmentation=augmentation,
        aspect=aspect,
    )
    inputs = ImageInputs.of(problem)
    assert inputs.aspect == aspect
    for images in (*problem.training, problem.validation, *problem.benchmarks.values()):
        paths = [p for c in images.classes for p in sorted((tmp_path / "own" / c).iterdir())]
        stored = np.stack([inputs.decoded(path) for path in paths])
        assert (images.images.numpy() == stored).all()
        seen = problem.augmentation.eval(images.images)
        mean, std = (torch.tensor(x).view(-1, 1, 1) for x in (inputs.mean, inputs.std))
        torch.testing.assert_close((inputs.pixels(paths) / 255 - mean) / std, seen)
    words = {"stretch": "aspect not kept", "crop": "center crop", "letterbox": "on a gray square"}
    assert words[aspect] in str(inputs)
    assert (aspect == "stretch") != (words[aspect] in problem.summary)


def photos(data: Path, **changes: Any) -> Photos:
    options: dict[str, Any] = {
        "training": ("mini-imagenet",),
        "validation": "mini-imagenet",
        "benchmarks": ("mini-imagenet",),
        "protocol": PROTOCOL,
        "size": 16,
        "complete": False,
    }
    return Photos(data, **{**options, **changes})


def fails(data: Path, **changes: Any) -> str:
    with pytest.raises(InputError) as error:
        photos(data, **changes)
    assert "\n" not in str(error.value)
    return str(error.value)


def colors(images: LabeledImages) -> list[int]:
    """The class whose color each image has."""
    return [nearest(image, 10) for image in images.images.permute(0, 2, 3, 1).numpy()]


def test_parts_have_usual_splits(data: Path) -> None:
    problem = photos(data)
    parts = (*problem.training, problem.validation, problem.benchmarks["mini-imagenet"])
    for part, (split, count) in zip(
        parts, (("train", 4), ("validation", 2), ("test", 2)), strict=True
    ):
        assert part.name == f"mini-imagenet-{split}"
        assert part.classes == tuple(SYNSETS[split][:count])
        assert part.images.shape == (4 * count, 3, 18, 18)  # 1.15 times 16
    assert colors(problem.validation) == [4] * 4 + [5] * 4
    assert problem.validation.labels.tolist() == [0] * 4 + [1] * 4
    assert problem.example().shape == (2, 3, 16, 16)


def test_training_on_all_of_one_and_testing_on_another_is_cross_domain(data: Path) -> None:
    problem = photos(data, training=("mini-imagenet:all",), validation="cub", benchmarks=("cub",))
    assert problem.pre_outputs == 8 and len(problem.training[0].images) == 32
    assert problem.validation.classes == ("002.Laysan_Albatross", "006.Least_Auklet")
    assert list(problem.benchmarks) == ["cub"]
    assert problem.benchmarks["cub"].classes == ("004.Groove_billed_Ani", "008.Rhinoceros_Auklet")


def test_several_data_sets_are_domains_of_their_own(data: Path) -> None:
    problem = photos(
        data,
        training=("mini-imagenet", "cub"),
        benchmarks=("cars", "mini-imagenet", "own", "cars:validation"),
    )
    assert [part.name for part in problem.training] == ["mini-imagenet-train", "cub-train"]
    assert problem.pre_outputs == 4 + 4
    assert list(problem.benchmarks) == ["cars", "mini-imagenet", "own", "cars:validation"]
    random = torch.Generator().manual_seed(0)
    assert problem.minibatch(0, random).y.max() > 3  # labels of the second domain follow


def test_a_search_needs_no_test_classes_and_paths_may_be_text(data: Path) -> None:
    problem = photos(str(data), benchmarks=())  # type: ignore[arg-type]
    assert not problem.benchmarks and len(problem.validation.images) > 0


def test_own_folders_are_split_by_classes(data: Path) -> None:
    own = {"training": ("own",), "validation": "own", "benchmarks": ("own",)}
    problem = photos(data, **own, held_out=(0.2, 0.3))
    parts = [problem.training[0], problem.validation, problem.benchmarks["own"]]
    assert [len(part.classes) for part in parts] == [5, 2, 3]
    names = sorted(PLANTS[:10])
    assert sorted(name for part in parts for name in part.classes) == names
    assert [name for part in parts for name in part.classes] != names  # they are shuffled
    for part in parts:
        wanted = [names.index(part.classes[label]) for label in part.labels.tolist()]
        assert colors(part) == wanted
    again = photos(data, **own, held_out=(0.2, 0.3))
    assert again.benchmarks["own"].classes == parts[2].classes
    whole = photos(data, benchmarks=("own:all",)).benchmarks["own:all"]
    assert whole.classes == tuple(names)


def test_test_classes_are_never_seen_in_training(data: Path) -> None:
    first = SYNSETS["test"][0]
    assert fails(data, training=("mini-imagenet:all",), validation="cub") == (
        f"class {first!r} of mini-imagenet is in problem.training (mini-imagenet:all) and in "
        "problem.benchmarks (mini-imagenet:test): choose splits that share no class"
    )
    assert "is in problem.validation (mini-imagenet:test) and in problem.benchmarks" in fails(
        data, validation="mini-imagenet:test"
    )
    assert "is in problem.training (mini-imagenet:train) and in problem.validation" in fails(
        data, validation="mini-imagenet:train"
    )
    searched = photos(data, benchmarks=("mini-imagenet:validation",))
    (benchmark,) = searched.benchmarks.values()
    assert benchmark.classes == searched.validation.classes
    assert "(cub:train) and in problem.training (cub:all)" in fails(
        data, training=("cub", "cub:all")
    )


def test_a_class_in_train_and_test_folders_is_an_error(changing: Path) -> None:
    first = SYNSETS["train"][0]
    shutil.copytree(
        changing / "mini-imagenet/train" / first, changing / "mini-imagenet/test" / first
    )
    assert f"class {first!r} is in train and in test" in fails(changing)


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"training": ("mini",)}, "there is no data set 'mini' in {data}: it holds cars; cub; "),
        ({"validation": ""}, "there is no data set '' in {data}"),
        ({"validation": "cub:val"}, "no split 'val': choose from train, validation, test, all"),
        ({"training": ()}, "problem.training must name one part or more, none of them twice"),
        ({"benchmarks": ("cub", "cub:test")}, "problem.benchmarks must name one part or more"),
        ({"size": 8}, "problem.size is 8: images must be 16 pixels or larger"),
        ({"held_out": (0.5, 0.5)}, "problem.held_out is (0.5, 0.5): give two fractions"),
        ({"held_out": (-0.1, 0.5)}, "problem.held_out is (-0.1, 0.5): give two fractions"),
        ({"validation": "own", "held_out": (0.0, 0.2)}, "own has no split 'validation'"),
        ({"complete": True}, "{data}/mini-imagenet holds 8 classes: mini-imagenet has 100"),
        ({"protocol": EpisodeConfig()}, "mini-imagenet-train has 4 classes, fewer than 5 ways"),
    ],
)
def test_wrong_options_are_reported(changes: dict[str, Any], wrong: str, data: Path) -> None:
    assert wrong.format(data=data) in fails(data, **changes)


def test_an_empty_data_folder_is_reported(tmp_path: Path) -> None:
    assert fails(tmp_path).endswith(f"'mini-imagenet' in {tmp_path}: it holds none")
    assert fails(tmp_path / "none").endswith("it holds none")


def test_own_data_need_not_be_complete(data: Path) -> None:
    own = {"training": ("own",), "validation": "own", "benchmarks": ("own",)}
    assert photos(data, **own, complete=True).pre_outputs == 6


def test_an_image_in_training_and_test_is_warned_of(changing: Path) -> None:
    train, test = (
        changing / "mini-imagenet" / split / SYNSETS[split][0] for split in ("train", "test")
    )
    first, second = sorted(train.iterdir())[:2]
    shutil.copy(first, test / "copy.jpg")
    shutil.copy(second, test / "another.jpg")
    with pytest.warns(UserWarning) as caught:
        photos(changing)
    assert [str(warning.message) for warning in caught] == [
        "2 images of mini-imagenet-test are also in mini-imagenet-train: "
        f"{test / 'another.jpg'} is {second}; {test / 'copy.jpg'} is {first}"
    ]


def test_shared_images_have_the_same_pixels() -> None:
    random = np.random.default_rng(0)
    first = torch.from_numpy(random.integers(0, 256, (6, 3, 9, 9), dtype=np.uint8))
    second = first[[5, 2, 2, 0]].clone()
    second[3, 2, 0, 0] ^= 1  # the middle row is the same, but not all of the image
    assert shared_images(first, second) == [(5, 0), (2, 1), (2, 2)]
    assert shared_images(first[:2], second) == []


def test_damaged_images_can_be_left_out(changing: Path) -> None:
    broken = changing / "mini-imagenet/train" / SYNSETS["train"][0] / "broken.jpg"
    broken.write_bytes(b"no image")
    assert f"{broken} is not an image" in fails(changing)
    with pytest.warns(UserWarning, match="left out 1 of 17 images of mini-imagenet-train"):
        assert len(photos(changing, skip_damaged=True).training[0].images) == 16


def test_a_configuration_trains_on_photographs(data: Path, tmp_path: Path) -> None:
    problem = {
        "class_path": "omnitraining.tasks.classification.photos.Photos",
        "init_args": {
            "data": str(data),
            "training": ["mini-imagenet", "cub"],
            "validation": "mini-imagenet",
            "benchmarks": ["cub"],
            "protocol": {"ways": 2, "shots": 1, "queries": 2, "batch": 8, "test_shots": [1]},
            "size": 16,
            "complete": False,
        },
    }
    backbone = {"class_path": "Conv4", "init_args": {"channels": 3, "width": 4}}
    run_config = config(BLOBS, problem=problem, backbone=backbone)
    run = train_run(run_config, tmp_path / "run")
    assert run.checkpoint("best").is_file()
    assert instantiate(run_config).problem.pre_outputs == 8


# --- gray levels, rotations, sizes, augmentation ---


def few(*shape: int) -> LabeledImages:
    images = torch.randint(256, shape, dtype=torch.uint8)
    return LabeledImages(images, torch.arange(shape[0]) % 2, ("a", "b"), "few")


def test_gray_levels_equal_pillow_s() -> None:
    colored = few(5, 3, 7, 7)
    made = gray(colored)
    assert made.classes == colored.classes and torch.equal(made.labels, colored.labels)
    for image, level in zip(colored.images, made.images, strict=True):
        by_pillow = np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L"))
        assert np.abs(level[0].numpy().astype(int) - by_pillow).max() <= 1


def test_rotations_are_classes_of_their_own() -> None:
    made = rotated(few(6, 1, 5, 5))
    assert made.classes == (
        "a", "b", "a rotated 90", "b rotated 90",
        "a rotated 180", "b rotated 180", "a rotated 270", "b rotated 270",
    )  # fmt: skip
    assert made.labels.tolist() == [0, 1] * 3 + [2, 3] * 3 + [4, 5] * 3 + [6, 7] * 3
    for turn in range(4):
        for index in range(6):
            expected = np.rot90(made.images[index, 0].numpy(), turn)
            assert np.array_equal(made.images[6 * turn + index, 0].numpy(), expected)
    with pytest.raises(InputError, match="few has images of 5 x 4 pixels: only squares"):
        rotated(few(2, 1, 5, 4))


def test_a_problem_in_gray_with_rotations(changing: Path) -> None:
    for path in (changing / "mini-imagenet").rglob("*.jpg"):
        with Image.open(path) as image:
            square = image.resize((20, 20))
        square.save(path)
    problem = photos(
        changing, channels=1, rotations=True, augmentation="none", normalize="training"
    )
    assert problem.pre_outputs == 16 and problem.example().shape == (2, 1, 16, 16)
    assert len(problem.validation.classes) == 8
    seen = problem.augmentation.eval(problem.training[0].images)
    torch.testing.assert_close(seen.mean(), torch.tensor(0.0), atol=1e-4, rtol=0)
    torch.testing.assert_close(seen.std(), torch.tensor(1.0), atol=1e-3, rtol=0)


def test_only_square_files_can_be_rotated(changing: Path) -> None:
    (first, *_) = sorted((changing / "mini-imagenet/train").rglob("*.*"))
    Image.new("RGB", (30, 20)).save(first, "PNG")
    message = fails(changing, rotations=True)
    assert str(first) in message and "has 30 x 20 pixels: only squares can be rotated" in message


def test_images_that_are_enlarged_are_named(data: Path) -> None:
    with pytest.warns(UserWarning, match="are smaller than") as caught:
        photos(data, size=300)
    words = [str(warning.message) for warning in caught]
    assert [w.split(" images read of ")[1].split()[0] for w in words] == [
        f"mini-imagenet-{split}" for split in ("train", "validation", "test")
    ]
    assert (
        words[0].startswith("16 of 16 ")
        and "problem.size, 300 pixels, and are enlarged" in words[0]
    )
    assert words[0].endswith("n01532829_0000.jpg has 20 x 24")


@pytest.mark.parametrize(("name", "side"), [("closer-look", 18), ("pad-crop", 16), ("none", 16)])
def test_the_augmentation_decides_how_images_are_stored(data: Path, name: str, side: int) -> None:
    problem = photos(data, augmentation=name)
    assert problem.training[0].images.shape[2:] == (side, side)
    assert problem.episode(0, torch.Generator()).support_x.shape[2:] == (3, 16, 16)


def test_an_augmentation_that_is_not_there_is_refused(data: Path) -> None:
    assert fails(data, augmentation="crop").startswith(
        "problem.augmentation is 'crop': choose from closer-look, pad-crop, none, or give"
    )


def test_several_tasks_a_step_lie_side_by_side(data: Path) -> None:
    problem = photos(data, protocol=replace(PROTOCOL, tasks=3))
    episode = problem.episode(0, torch.Generator().manual_seed(0))
    assert episode.support_x.shape[:2] == (3, 2) and episode.query_y.shape == (3, 4)


def test_training_may_have_fewer_queries_than_the_test(data: Path) -> None:
    problem = photos(data, protocol=replace(PROTOCOL, training_queries=1))
    assert problem.episode(0, torch.Generator()).query_y.shape == (1, 2)
    images = problem.validation
    assert problem.fixed_tasks(images, 2, 1, 3).query.shape == (3, 2, 2)
    assert problem.shardable["problem.protocol.training_queries"] == 1
    with pytest.raises(InputError, match=r"protocol\.training_queries is -1: it must be"):
        replace(PROTOCOL, training_queries=-1)


def test_training_shots_are_drawn_anew_in_each_step(data: Path) -> None:
    problem = photos(data, protocol=replace(PROTOCOL, training_shots=(1, 2)))
    random = torch.Generator().manual_seed(0)
    drawn = [problem.episode(0, random).support_x.shape[1] for _ in range(40)]
    assert {*drawn} == {2, 4} and 10 <= drawn.count(2) <= 30  # two ways
    assert problem.fixed_tasks(problem.validation, 2, 1, 3).support.shape == (3, 2, 1)
    with pytest.raises(InputError, match=r"protocol\.training_shots is \(1, 0\): give numbers"):
        replace(PROTOCOL, training_shots=(1, 0))


class Dimmed:
    """An augmentation of one's own, as a configuration may name it."""

    def __init__(self, least: float = 0.5) -> None:
        self.least = least

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        assert image.shape == (3, 16, 16)
        return image * (self.least + (1 - self.least) * torch.rand(()))


def test_a_configuration_names_an_augmentation_of_one_s_own(data: Path) -> None:
    options = {"data": str(data), "training": ["mini-imagenet"], "validation": "mini-imagenet",
               "benchmarks": ["mini-imagenet"], "size": 16, "complete": False,
               "augmentation": {"class_path": f"{__name__}.Dimmed", "init_args": {"least": 0.25}},
               "protocol": {"ways": 2, "shots": 1, "queries": 2, "test_ways": 2, "test_shots": [1]},
               }  # fmt: skip
    made = instantiate(
        config(BLOBS, problem={"class_path": "Photos", "init_args": options})
    ).problem
    assert made.augmentation.function.least == 0.25
    first, again = (made.minibatch(3, torch.Generator().manual_seed(1)).x for _ in range(2))
    assert torch.equal(first, again)

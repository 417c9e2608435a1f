"""Learners of a frozen backbone: saving, calibration, what is asked of a module, the commands."""

import copy
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.base import clone  # type: ignore[import-untyped]
from torch import Tensor, nn

from omnitraining import CalibrationWarning, FewShotClassifier, InputError, load
from omnitraining.cli import main
from omnitraining.learner.support_calibration import LARGEST, likely_temperature
from omnitraining.libraries.backbone import sha256
from tests.reference.libraries import library

COLORS = {"blue": (20, 40, 220), "green": (30, 200, 40), "red": (210, 30, 30)}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Counting(nn.Module):
    """Mean colors of four parts of an image, [B, 12]; counts the images that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.seen: list[int] = []

    def __deepcopy__(self, memo: Any) -> "Counting":
        return self  # so that the count is that of the learner

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        return self.scale * nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)


def picture(name: str, seed: int) -> Image.Image:
    random = np.random.default_rng(seed)
    pixels = np.array(COLORS[name]) + random.normal(0, 40, (30, 40, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("photos")
    for name in COLORS:
        (place / "few" / name).mkdir(parents=True)
        (place / "new").mkdir(exist_ok=True)
        for number in range(4):
            picture(name, number).save(place / "few" / name / f"{number}.png")
        picture(name, 9).save(place / "new" / f"{name}.png")
    return place


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    timm = library("timm")
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "resnet10t.safetensors"
    save_file(timm.create_model("resnet10t").state_dict(), path)
    return path


def own(module: nn.Module | None = None, **options: Any) -> FewShotClassifier:
    learner = load(module or Counting(), image_size=24, mean=MEAN, std=STD, **options)
    assert isinstance(learner, FewShotClassifier)
    return learner


def test_a_module_learns_predicts_and_is_measured(folder: Path) -> None:
    learner = own(accept_rate=0.9).fit(folder / "few")
    assert learner.predict(folder / "new").tolist() == [*COLORS]
    assert learner.fit_report_.images == 12 and learner.fit_report_.accuracy == 1.0
    noise = np.random.default_rng(0).integers(0, 256, (1, 30, 40, 3), dtype=np.uint8)
    assert learner.predict(noise)[0] is None
    assert "12 features" in repr(learner) and "24 px" in repr(learner)


def test_heads_of_nearest_means_are_prototypes(folder: Path) -> None:
    learner = own(head="nearest-mean").fit(folder / "few")
    assert learner.predict(folder / "new").tolist() == [*COLORS]
    (flow,) = learner.predictor_.flows
    assert type(learner.predictor_.flows[flow].heads[0]).__name__ == "Prototypes"


def test_every_support_image_is_embedded_once(folder: Path) -> None:
    module = Counting()
    learner = own(module)
    module.seen.clear()  # of the check of the shape of its features
    learner.fit(folder / "few")
    assert sum(module.seen) == 12
    first = learner.predict_proba(folder / "new")
    module.seen.clear()
    learner.set_params(accept_rate=0.5).fit(folder / "few")
    learner.partial_fit([picture("red", 1)], ["red"])
    assert module.seen == [] or sum(module.seen) == 3  # the query images above
    assert learner.counts_ == {"blue": 4, "green": 4, "red": 5}
    learner.partial_fit([picture("red", 77)], ["red"])
    assert sum(module.seen) == 1
    learner.fit(folder / "few")
    np.testing.assert_allclose(learner.predict_proba(folder / "new"), first, rtol=1e-5)


def test_a_fit_does_not_change_the_module(folder: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    before = copy.deepcopy(module.state_dict())
    own(module).fit(folder / "few").predict(folder / "new")
    assert module.training and all(p.requires_grad for p in module.parameters())
    assert all(torch.equal(before[n], x) for n, x in module.state_dict().items())


def test_one_image_per_class_is_not_calibrated(folder: Path) -> None:
    images, names = [picture(name, 0) for name in COLORS], [*COLORS]
    with pytest.warns(CalibrationWarning, match="each class has one image"):
        learner = own().fit(images, names)
    assert learner.predict(images).tolist() == names
    with pytest.raises(InputError, match="accept_rate is measured on the support images"):
        own(accept_rate=0.9).fit(images, names)


def test_temperature_follows_the_accuracy() -> None:
    random = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(4000, 5, generator=random, dtype=torch.float64)
    labels = logits.softmax(-1).multinomial(1, generator=random)[:, 0]
    # Probabilities that are too sharp by a factor of 3 need the temperature 3.
    assert likely_temperature((3 * logits).softmax(-1), labels) == pytest.approx(3, rel=0.1)
    assert likely_temperature(logits.softmax(-1), labels) == pytest.approx(1, rel=0.1)
    few = torch.eye(3, dtype=torch.float64) * 0.4 + 0.2  # all correct: likelihood has no maximum
    assert -LARGEST < np.log(likely_temperature(few, torch.arange(3))) < 0
    none = few[:0], torch.arange(0)
    step = 2 * LARGEST / 200
    assert np.log(likely_temperature(*none, 0.45, 0.1)) == pytest.approx(0.1, abs=step / 2)


def test_files_of_a_module_need_it_again(folder: Path, tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    learner = own(module).fit(folder / "few")
    expected = learner.predict_proba(folder / "new")
    for weights in (True, False):
        learner.save(tmp_path / "own.learner", weights=weights)
        with pytest.raises(InputError, match=r"Sequential of your own.*backbone=module"):
            load(tmp_path / "own.learner")
        again = load(tmp_path / "own.learner", backbone=module)
        np.testing.assert_array_equal(again.predict_proba(folder / "new"), expected)
    other = copy.deepcopy(module)
    nn.init.zeros_(other[0].bias)
    with pytest.raises(InputError, match="has other weights now"):
        load(tmp_path / "own.learner", backbone=other)
    for copied in (pickle.loads(pickle.dumps(learner)), copy.deepcopy(learner)):
        np.testing.assert_array_equal(copied.predict_proba(folder / "new"), expected)
    assert not hasattr(clone(learner), "classes_")


def test_files_of_a_named_backbone(folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    learner = load("timm/resnet10t", weights=checkpoint, image_size=32).fit(folder / "few")
    expected = learner.predict_proba(folder / "new")
    learner.save(tmp_path / "whole.learner")
    again = load(tmp_path / "whole.learner")
    np.testing.assert_array_equal(again.predict_proba(folder / "new"), expected)
    assert repr(again) == repr(learner)
    learner.save(tmp_path / "name.learner", weights=False)
    assert (tmp_path / "name.learner").stat().st_size < 100_000
    with pytest.raises(InputError, match=r"holds no weights.*give that as weights"):
        load(tmp_path / "name.learner")
    again = load(tmp_path / "name.learner", weights=checkpoint)
    np.testing.assert_array_equal(again.predict_proba(folder / "new"), expected)
    other = library("timm").create_model("resnet10t").state_dict()
    save_file(other, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="has other weights now"):
        load(tmp_path / "name.learner", weights=tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="needs no file of weights"):
        load(tmp_path / "whole.learner", weights=checkpoint)


def test_only_frozen_backbones_can_be_saved_without_weights(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="glyphs is no frozen backbone"):
        load("glyphs").save(tmp_path / "x.learner", weights=False)


def test_the_hash_depends_on_every_weight() -> None:
    layer = nn.Linear(2, 2)
    before = sha256(layer)
    assert sha256(copy.deepcopy(layer)) == before
    with torch.no_grad():
        layer.bias[1] += 1e-6
    assert sha256(layer) != before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "image_size, mean, std of backbone Flatten are missing"),
        ({"image_size": 24, "mean": MEAN}, "std of backbone Flatten is missing"),
        ({"image_size": 4, "mean": MEAN, "std": STD}, "image_size is 4"),
        ({"image_size": 24, "mean": (124, 116, 104), "std": STD}, "divide .* by 255"),
        ({"image_size": 24, "mean": MEAN, "std": (0.2,)}, "mean has 3 channels, std 1"),
        ({"image_size": 24, "mean": MEAN, "std": STD, "pooling": "max"}, "pooling is 'max'"),
        ({"image_size": 24, "mean": MEAN, "std": STD, "head": "svm"}, "head is 'svm'"),
        ({"image_size": 24, "mean": MEAN, "std": STD, "weights": "x"}, "a module has its own"),
        ({"image_size": 24, "mean": MEAN, "std": STD, "interpolation": "cubic"}, "bicubic"),
    ],
)
def test_what_a_module_needs_is_named_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        load(nn.Flatten(), **options)
    assert "\n" not in str(raised.value)


def test_options_of_backbones_are_refused_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="image_size is for a backbone"):
        load("glyphs", image_size=32)
    with pytest.raises(InputError, match="leave weights and backbone out"):
        load("glyphs", backbone=nn.Flatten())
    with pytest.raises(InputError, match="give the module as source"):
        load("timm/resnet18", backbone=nn.Flatten())


def test_a_folder_with_the_name_of_a_backbone_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "timm" / "resnet18").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"write ./timm/resnet18 for the first"):
        load("timm/resnet18")


def test_classifiers_of_libraries_are_refused() -> None:
    timm = library("timm")
    with pytest.raises(InputError, match=r"classifier of 1000 classes.*num_classes=0"):
        load(timm.create_model("resnet10t"), image_size=24, mean=MEAN, std=STD)
    learner = load(timm.create_model("resnet10t", num_classes=0))  # it has its preprocessing
    assert "512 features, 176 px" in repr(learner)
    models = library("torchvision").models
    with pytest.raises(InputError, match="classifier of 1000 classes"):
        load(models.resnet18(), image_size=24, mean=MEAN, std=STD)


def test_commands(
    folder: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "mine.learner")
    words = ["timm/resnet10t", str(folder / "few"), "--weights", str(checkpoint), "--out", out]
    assert main(["adapt", *words, "--image-size", "32", "--accept-rate", "0.9"]) == 0
    printed = capsys.readouterr().out
    assert "backbone: timm/resnet10t, 512 features" in printed
    assert "of 12 images, each held out once" in printed
    assert main(["predict", out, str(folder / "new")]) == 0
    assert "blue.png" in capsys.readouterr().out
    words[-1] = str(tmp_path / "name.learner")
    assert main(["adapt", *words, "--image-size", "32", "--no-weights"]) == 0
    assert main(["predict", words[-1], str(folder / "new")]) == 2
    assert main(["predict", words[-1], str(folder / "new"), "--weights", str(checkpoint)]) == 0


def test_onnx_of_a_frozen_backbone(folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    learner = load("timm/resnet10t", weights=checkpoint, image_size=32, precision="bfloat16").fit(
        folder / "few"
    )
    learner.save(tmp_path / "mine.learner")
    words = [str(tmp_path / "mine.learner"), "--format", "onnx", "--out", str(tmp_path / "x.onnx")]
    assert main(["export", *words]) == 0
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx")
    images = learner.preprocess(folder / "new").numpy()
    found = session.run(None, {"images": images})[0]
    np.testing.assert_allclose(found, learner.predict_proba(folder / "new"), atol=0.02)


def test_a_session_of_the_demo(folder: Path, checkpoint: Path) -> None:
    from omnitraining.demo.pictures import as_picture
    from omnitraining.demo.session import Session
    from omnitraining.learner.frozen import BackboneOptions
    from omnitraining.learner.sources import find

    session = Session(find("timm/resnet10t", options=BackboneOptions(checkpoint, 32)))
    for name in COLORS:
        paths = sorted((folder / "few" / name).iterdir())
        session.add(name, [as_picture(path, session.inputs) for path in paths])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asked = as_picture(folder / "new" / "red.png", session.inputs)
        (result,) = session.predict([asked]).predictions
    assert result.label == "red" and result.unknown in (True, False)

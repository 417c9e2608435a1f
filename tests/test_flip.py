"""Predictions from the mean of the features of an image and its mirror image."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import omnitraining
from omnitraining import FewShotClassifier, Inference, InputError
from omnitraining.learner.export import save_predictor
from omnitraining.tasks.classification.problem import Classification
from omnitraining.views import features_of
from tests.learner.models import curves, untrained

LAYERS = {"omninet": {"shared_until": "8"}, "inference": {"flip": True}}


@pytest.fixture(scope="module")
def fitted() -> tuple[FewShotClassifier, Tensor]:
    """A learner that flips, and images of unknown classes."""
    experiment, trained = untrained(**LAYERS)
    assert isinstance(experiment.problem, Classification)
    blobs = experiment.problem.benchmarks["blobs"]
    return FewShotClassifier(trained).fit(blobs.images[:48], blobs.labels[:48]), blobs.images[48:60]


def test_a_mirror_image_has_the_same_probabilities(
    fitted: tuple[FewShotClassifier, Tensor],
) -> None:
    learner, images = fitted
    found = learner.predict_proba(images)
    np.testing.assert_allclose(learner.predict_proba(images.flip(-1)), found, atol=1e-5)
    plain = FewShotClassifier(untrained(omninet=LAYERS["omninet"])[1])
    plain.fit(images, np.repeat([0, 1], 6))
    assert np.abs(plain.predict_proba(images.flip(-1)) - plain.predict_proba(images)).max() > 1e-3


def test_features_are_the_mean_of_two_passes() -> None:
    trained = untrained(**LAYERS)[1]
    trunk, backbone = trained.model.trunk, trained.plain_backbone("pre")
    x = torch.rand(3, *trained.image_inputs.shape)
    with torch.no_grad():
        (found,) = features_of(x, trunk, [backbone], flip=True)
        one, other = backbone(trunk(x)), backbone(trunk(x.flip(3)))
    torch.testing.assert_close(found, (one + other) / 2)


def test_features_of_the_learner_are_the_same(fitted: tuple[FewShotClassifier, Tensor]) -> None:
    learner, images = fitted
    np.testing.assert_allclose(
        learner.transform(images), learner.transform(images.flip(-1)), atol=1e-5
    )


def test_a_saved_learner_flips_and_older_versions_refuse_its_file(
    fitted: tuple[FewShotClassifier, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, images = fitted
    learner.save(tmp_path / "mine.learner")
    loaded = omnitraining.load(tmp_path / "mine.learner")
    assert isinstance(loaded, FewShotClassifier) and loaded.predictor_.flip
    np.testing.assert_allclose(loaded.predict_proba(images), learner.predict_proba(images))
    monkeypatch.setattr("omnitraining.learner.trained.VERSION", 2)
    with pytest.raises(InputError, match=r"of version 3, .* reads up to version 2"):
        omnitraining.load(tmp_path / "mine.learner")


def test_an_exported_classifier_flips(
    fitted: tuple[FewShotClassifier, Tensor], tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    learner, images = fitted
    save_predictor(learner, tmp_path / "mine.onnx")  # which compares it with PyTorch
    session = onnxruntime.InferenceSession(tmp_path / "mine.onnx")
    x = learner.preprocess(images)
    one, other = (session.run(None, {"images": part.numpy()})[0] for part in (x, x.flip(-1)))
    np.testing.assert_allclose(one, other, atol=1e-5)
    np.testing.assert_allclose(one, learner.predict_proba(images), atol=1e-4)


def test_an_algorithm_that_adapts_the_backbone_is_refused() -> None:
    maml = {"class_path": "MAML", "init_args": {"steps": 1}}
    with pytest.raises(InputError, match=r"inference\.flip is true, but MAML adapts the backbone"):
        untrained(metatraining=maml, inference={"flip": True})[0].inference.check(
            None, untrained(metatraining=maml)[1].model
        )


def test_other_kinds_of_problems_are_refused() -> None:
    model = curves()[1].model
    with pytest.raises(InputError, match="for image classification"):
        Inference(flip=True).check("regression", model)

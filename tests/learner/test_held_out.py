"""A fit measures its own accuracy, and warns where calibration does not hold."""

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_sample_image

import omnitraining
from omnitraining import CalibrationWarning, FewShotClassifier
from omnitraining.datasets import digits
from omnitraining.learner.calibration import Calibration
from omnitraining.learner.ensemble import resolve_flow
from omnitraining.learner.fit_result import FitResult
from omnitraining.learner.fitting import Support
from omnitraining.learner.held_out import FitReport, _report, folds, held_out, predictions
from tests.learner.models import untrained

Data = tuple[NDArray[np.uint8], NDArray[np.int64]]


@pytest.mark.parametrize("counts", [(5, 5, 5), (2, 2), (1, 3), (1, 7, 2), (10, 12), (23, 6, 1)])
def test_each_image_is_left_out_once_and_no_class_is_emptied(counts: tuple[int, ...]) -> None:
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    left, kept, first = folds(labels, len(counts))
    for out, rest in zip(left, kept, strict=True):
        assert sorted([*out.tolist(), *rest.tolist()]) == [*range(len(labels))]
        assert set(labels[rest].tolist()) == {*range(len(counts))}
    judged = left[first].tolist()
    assert len(judged) == len({*judged})
    single = [number for number, label in enumerate(labels.tolist()) if counts[label] == 1]
    assert not {*judged} & {*single}
    if len({*counts}) == 1 and counts[0] <= 5:
        assert len(judged) == len(labels)


def test_one_image_of_each_class_cannot_be_held_out_and_there_is_a_warning() -> None:
    assert folds(torch.arange(4), 4)[0].shape == (0, 0)
    x = np.random.default_rng(0).integers(0, 256, (4, 32, 32), np.uint8)
    with pytest.warns(CalibrationWarning, match="each class has one image, so it cannot be"):
        learner = FewShotClassifier("glyphs").fit(x, [0, 1, 2, 3])
    assert learner.fit_report_ == FitReport(0) and learner.fit_report_.calibrated is None


def test_images_held_out_are_predicted_as_by_a_fit_without_them() -> None:
    experiment, trained = untrained()
    images: Any = experiment.problem.benchmarks["blobs"]  # type: ignore[attr-defined]
    x, y = images.images[:36:4], images.labels[:36:4]  # three images of three classes
    fit = FewShotClassifier(trained).fit(x, y)._fit_result
    assert isinstance(fit, FitResult)
    held, kept, _ = folds(fit.support.labels, 3)
    probabilities, truth = [], []
    for out, rest in zip(held, kept, strict=True):
        learner = FewShotClassifier(trained).fit(x[rest], y[rest])
        probabilities.append(learner.predict_proba(x[out]))
        truth.append(y[out].numpy())
    found, expected = fit.report, np.concatenate(probabilities)
    assert found.images == 9
    assert found.confidence == pytest.approx(expected.max(1).mean(), abs=0.01)
    assert found.accuracy == pytest.approx((expected.argmax(1) == np.concatenate(truth)).mean())


def test_deviations_of_a_hand_counted_example() -> None:
    found = _report(torch.full((25,), 0.8), torch.tensor([1.0] * 10 + [0.0] * 15), 0.3)
    assert found.accuracy == pytest.approx(0.4) and found.confidence == pytest.approx(0.8)
    spread = ((25 * 0.16 + 0.25) / 625 + 0.03**2) ** 0.5
    assert found.deviation == pytest.approx(0.4 / spread)
    assert found.rank_deviation == pytest.approx(0.2 / (0.42**2 / 25 + 0.06**2) ** 0.5)
    assert found.calibrated is False
    assert _report(torch.full((25,), 0.8), torch.ones(25), 0.9).calibrated is True
    unmeasured = _report(torch.full((25,), 0.8), torch.zeros(25), None)
    assert unmeasured.calibrated is False and "similarity" not in unmeasured.warning("tiny")


def test_ranks_are_by_the_quantiles_that_were_measured() -> None:
    low, high = np.linspace(0, 0.5, 101).tolist(), np.linspace(0, 1, 101).tolist()
    made = Calibration((1, 4), {"pre": [1.0, 1.0]}, {"vote": [1.0, 1.0]}, {"vote": [low, high]})
    for shots, similarity, expected in ((1, 0.25, 0.5), (4, 0.25, 0.25), (2, 0.75, 1), (9, -1, 0)):
        found = made.ranks("vote", shots, np.array([similarity]))
        assert found == pytest.approx([expected])


def test_networks_that_are_adapted_are_not_held_out() -> None:
    _, trained = untrained(
        metatraining={"class_path": "MAML", "init_args": {"steps": 1}},
        inference={"flows": ["meta"]},
    )
    support = Support({"levels": torch.zeros(4, 1, 16, 16)}, torch.tensor([0, 0, 1, 1]), 2)
    ensemble = resolve_flow(trained, None)
    assert predictions(ensemble, support) is None
    assert held_out(ensemble, support, None) == FitReport(0)


@pytest.fixture(scope="module")
def written() -> Data:
    """Five handwritten digits of each class, which the shipped model can separate."""
    data = digits.load(size=32)
    chosen = [torch.nonzero(data.labels == number)[:5, 0] for number in range(6)]
    index = torch.cat(chosen)
    return data.images[index, 0].numpy(), data.labels[index].numpy()


@pytest.fixture(scope="module")
def photographs() -> Data:
    """Pieces of a photograph, in no order."""
    whole = load_sample_image("china.jpg")
    corners = np.random.default_rng(0).integers(0, 360, (30, 2))
    return np.stack([whole[y : y + 64, x : x + 64] for y, x in corners]), np.arange(30) // 5


def test_characters_are_not_warned_of_and_what_is_unlike_them_is_once(
    written: Data, photographs: Data, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        good = FewShotClassifier("glyphs").fit(*written)
    report = good.fit_report_
    assert report.images == 30 and report.calibrated
    assert report.accuracy and report.accuracy > 0.8
    learner = FewShotClassifier("glyphs")
    for method in (learner.fit, learner.partial_fit):
        with pytest.warns(CalibrationWarning) as caught:
            method(*photographs)
        assert len(caught) == 1 and Path(caught[0].filename) == Path(__file__)
        text = str(caught[0].message)
        assert "unlike those that glyphs was validated on" in text and "\n" not in text
        assert "probabilities are not calibrated here, and accept_rate is not reliable" in text
    learner.fit_report_.accuracy  # noqa: B018 (measured once)
    learner.save(tmp_path / "photographs")
    for twin in (pickle.loads(pickle.dumps(learner)), omnitraining.load(tmp_path / "photographs")):
        assert twin.fit_report_ == learner.fit_report_  # and there is no second warning


def test_wrong_labels_give_a_warning(written: Data) -> None:
    """Labels that were mixed up are found too: no prediction is right."""
    x, y = written
    with pytest.warns(CalibrationWarning, match=r"of 30 support images, each held out once"):
        FewShotClassifier("glyphs").fit(x, np.roll(y, 2)[np.random.default_rng(0).permutation(30)])

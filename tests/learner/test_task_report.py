"""A report on labeled images, checked with scikit-learn, statsmodels' formula and by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import binomtest
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

from omnitraining import FewShotClassifier, InputError
from omnitraining.datasets import digits
from omnitraining.learner.task_report import TaskReport, wilson_interval

CLASSES = np.array(["ant", "bee", "cat", "dog"])


@pytest.fixture
def report() -> TaskReport:
    """Random predictions of 200 images, a tenth rejected, none of them of the last class."""
    rng = np.random.default_rng(0)
    labels = rng.choice([*CLASSES[:3], "elk"], 200, p=[0.3, 0.3, 0.3, 0.1])
    probabilities = rng.dirichlet([0.5] * 4, 200)
    probabilities[np.arange(200), np.searchsorted(CLASSES, labels) % 4] += 0.5
    probabilities /= probabilities.sum(1, keepdims=True)
    return TaskReport(CLASSES, labels, probabilities, rng.random(200) > 0.1, range(200))


def of_known(report: TaskReport) -> tuple[NDArray[Any], NDArray[Any]]:
    guess = CLASSES[report.probabilities.argmax(1)].astype(object)
    guess[~report.accepted] = "rejected"
    known = report.labels != "elk"
    return report.labels[known].astype(object), guess[known]


def test_numbers_equal_scikit_learn_s(report: TaskReport) -> None:
    true, guess = of_known(report)
    names = [*CLASSES, "rejected"]
    assert report.count == len(true) and report.accuracy == accuracy_score(true, guess)
    assert (report.confusion == confusion_matrix(true, guess, labels=names)[:4]).all()
    precision, recall, _, images = precision_recall_fscore_support(
        true, guess, labels=CLASSES, zero_division=np.nan
    )
    rows = report.per_class()
    assert [row["images"] for row in rows] == images.tolist()
    expected = [None if np.isnan(x) else pytest.approx(x) for x in precision]
    assert [row["precision"] for row in rows] == expected
    assert [row["recall"] for row in rows[:3]] == pytest.approx(recall[:3].tolist())
    assert rows[3]["recall"] is None and sum(row["rejected"] for row in rows) > 5
    known = report.labels != "elk"
    for k in (1, 2, 3):
        theirs = top_k_accuracy_score(
            report.labels[known], report.probabilities[known], k=k, labels=CLASSES
        )
        assert report.top(k) == pytest.approx(theirs)
    assert report.top(4) == 1


@pytest.mark.parametrize(("correct", "images"), [(0, 5), (5, 5), (1, 3), (45, 60), (999, 1000)])
def test_the_interval_is_that_of_scipy(correct: int, images: int) -> None:
    theirs = binomtest(correct, images).proportion_ci(0.95, "wilson")
    assert wilson_interval(correct, images) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert wilson_interval(0, 0) == (0, 1)


def test_classes_of_one_side_alone_are_named(report: TaskReport) -> None:
    elks = report.labels == "elk"
    assert report.unknown == {"elk": elks.sum()} and report.missing == ["dog"]
    assert report.unknown_rejected == pytest.approx(1 - report.accepted[elks].mean())
    assert "no images of dog" in str(report) and f"elk ({elks.sum()})" in str(report)


def test_mistakes_are_accepted_wrong_and_sorted_by_confidence(report: TaskReport) -> None:
    found = report.mistakes(1000)
    true, guess = of_known(report)
    assert len(found) == ((guess != true) & (guess != "rejected")).sum() > 10
    shares = report.probabilities[found].max(1)
    assert (np.diff(shares) <= 0).all() and report.mistakes(3) == found[:3]
    with pytest.raises(InputError, match="k is 5: it must be from 1 to 4"):
        report.top(5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits as files, of names that are formulas or mathematics elsewhere."""
    place, data = tmp_path_factory.mktemp("digits"), digits.load(size=32)
    for number, name in enumerate(("$one$", "two_2", "three")):
        for j, index in enumerate((data.labels == number).nonzero()[:8, 0].tolist()):
            path = place / ("few" if j < 3 else "new") / name / f"{name} {j}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(data.images[index, 0].numpy()).save(path)
    return place


def test_a_learner_reports_on_a_folder_as_it_predicts(folder: Path, tmp_path: Path) -> None:
    learner = FewShotClassifier("glyphs").fit(folder / "few")
    report = learner.report(folder / "new")
    assert report.accuracy == learner.score(folder / "new") and report.count == 15
    assert (report.probabilities == learner.predict_proba(report.images)).all()
    assert not report.missing and not report.unknown and report.unknown_rejected is None
    numbers = report.as_json()
    assert np.trace(numbers["confusion"]) == numbers["correct"]
    wrong = TaskReport(report.classes, np.roll(report.labels, 5), report.probabilities,
                       report.accepted, report.images)  # fmt: skip
    made = wrong.save_figures(tmp_path / "a" / "b")
    assert [path.name for path in made] == ["confusion.png", "mistakes.png"]
    for path in made:
        with Image.open(path) as image:
            assert np.asarray(image.convert("L")).std() > 10
    assert wrong.plot().axes[0].get_ylabel() == "class"


def test_rejected_images_are_not_correct() -> None:
    data = digits.load(size=32)
    x, y = data.images[:60, 0].numpy(), data.labels[:60].numpy()
    learner = FewShotClassifier("glyphs", accept_rate=0.3).fit(x[:40], y[:40])
    report = learner.report(x[40:], y[40:])
    assert report.accuracy == learner.score(x[40:], y[40:])
    assert report.confusion[:, -1].sum() == sum(p is None for p in learner.predict(x[40:])) > 0
    assert "rejected, which are errors" in str(report)


def test_images_of_other_classes_alone_are_refused() -> None:
    images = np.stack([np.eye(28), np.fliplr(np.eye(28))])
    learner = FewShotClassifier("glyphs").fit(images, ["down", "up"])
    with pytest.raises(InputError, match="they are of left, and it has down, up"):
        learner.report(images, ["left", "left"])
    with pytest.raises(InputError, match="use one kind"):
        learner.report(images, [0, 1])


def test_features_are_what_the_prototypes_are_compared_with() -> None:
    data = digits.load(size=32)
    x, y = data.images[:40, 0].numpy(), data.labels[:40].numpy()
    learner = FewShotClassifier("glyphs", flow="pre").fit(x[:30], y[:30])
    features = learner.transform(x)
    assert features.dtype == np.float32 and np.linalg.norm(features, axis=1) == pytest.approx(1)
    prototypes = learner.predictor_.flows["pre"].prototypes.numpy()
    nearest = (features[30:] @ prototypes.T).max(1)
    assert nearest == pytest.approx(learner.similarity(x[30:]), abs=1e-5)
    whole = FewShotClassifier("glyphs").fit(x[:30], y[:30])
    width = features.shape[1] * len(whole.predictor_.flows)
    assert whole.transform(x[:3]).shape == (3, width)

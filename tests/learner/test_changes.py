"""After `set_params`, threads, copies and odd settings of torch, a learner is as it was fitted."""

import copy
import pickle
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score
from sklearn.model_selection import cross_val_score

import omnitraining
from omnitraining import FewShotClassifier, FewShotRegressor, InputError
from omnitraining.learner import TrainedModel
from omnitraining.precision import float32_on_cpu
from omnitraining.tasks.classification.problem import Classification
from tests.learner.models import curves, untrained

Data = tuple[NDArray[np.uint8], NDArray[np.int64]]


@pytest.fixture(scope="module")
def tiny() -> TrainedModel:
    return untrained()[1]


@pytest.fixture(scope="module")
def waves() -> TrainedModel:
    return curves()[1]


@pytest.fixture(scope="module")
def images() -> Data:
    problem = untrained()[0].problem
    assert isinstance(problem, Classification)
    data = problem.benchmarks["blobs"]
    return data.images[:48, 0].numpy(), data.labels[:48].numpy()


@pytest.fixture(scope="module")
def half() -> float:
    """An ``accept_rate`` that accepts some of the images."""
    return 0.5


def twins(learner: Any, path: Path) -> Iterator[Any]:
    """Copies of a learner, in all the ways."""
    yield pickle.loads(pickle.dumps(learner))
    yield copy.deepcopy(learner)
    learner.save(path)
    yield omnitraining.load(path)


CHANGES: list[dict[str, Any]] = [
    {"flow": "meta"},
    {"flow": None},
    {"accept_rate": None},
    {"accept_rate": 0.5},
    {"accept_rate": 7, "flow": "none"},
    {"reject_label": -9},
    {"model": "nowhere"},
]


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_options_count_from_the_next_fit_on(
    tiny: TrainedModel, images: Data, half: float, changes: dict[str, Any], tmp_path: Path
) -> None:
    x, y = images
    learner = FewShotClassifier(tiny, "pre", accept_rate=half, reject_label=-1).fit(x[:36], y[:36])
    labels, probabilities = learner.predict(x), learner.predict_proba(x)
    assert (labels == -1).any() and (labels != -1).any()
    learner.set_params(**changes)
    for each in (learner, *twins(learner, tmp_path / "file")):
        assert each.predict(x).tolist() == labels.tolist()
        assert np.array_equal(each.predict_proba(x), probabilities)
        assert each.threshold_ == learner.threshold_
    assert omnitraining.load(tmp_path / "file").flow == "pre"
    assert clone(learner).get_params() == learner.get_params()
    assert not hasattr(clone(learner), "classes_")


def test_a_curve_is_as_it_was_fitted(waves: TrainedModel, tmp_path: Path) -> None:
    x = np.linspace(-2, 2, 5)
    learner = FewShotRegressor(waves, "pre", steps=1).fit(x, np.sin(x))
    expected = learner.predict(x)
    for changes in ({"flow": "meta"}, {"steps": 0}, {"flow": "none", "steps": -1}):
        learner.set_params(**changes)
        for each in (learner, *twins(learner, tmp_path / "file")):
            assert np.array_equal(each.predict(x), expected)
    assert not hasattr(clone(learner), "networks_")
    for steps in (2.5, "3"):
        with pytest.raises(InputError, match=r"steps is .*: it must be 0 or more, a whole number"):
            FewShotRegressor(waves, steps=steps).fit(x, x)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="y has masked values: leave them out"):
        FewShotRegressor(waves).fit(x, np.ma.masked_less(x, 0))
    with pytest.raises(InputError, match="x is lists of different lengths: give numbers"):
        FewShotRegressor(waves).fit([[1], [1, 2]], [1, 2])
    half = torch.tensor([0.5, 1.0], dtype=torch.bfloat16)
    assert FewShotRegressor(waves).fit(half, [0, 1]).predict(half).shape == (2,)


def test_one_thread_predicts_while_another_fits(tiny: TrainedModel, images: Data) -> None:
    """Labels are from one fit or from the other, never from neither."""
    x, y = images
    few, many = (y < 2), (y < 4)
    names = np.array(list("abcd"))[y]
    learner = FewShotClassifier(tiny, "pre").fit(x[few], names[few])
    first = learner.predict(x).tolist()
    second = clone(learner).fit(x[many], names[many]).predict(x).tolist()
    assert first != second

    def teach() -> None:
        for _ in range(15):
            learner.fit(x[many], names[many])
            learner.fit(x[few], names[few])

    with ThreadPoolExecutor(2) as pool:
        taught = pool.submit(teach)
        asked = 0
        while not taught.done() or asked < 5:
            assert learner.predict(x).tolist() in (first, second)
            asked += 1
        taught.result()


def test_classes_of_partial_fit_limit_the_allowed_labels(tiny: TrainedModel, images: Data) -> None:
    x, y = images
    learner = FewShotClassifier(tiny).partial_fit(x[:24], y[:24], classes=[0, 1, 2])
    learner.partial_fit(x[24:36], y[24:36], classes=np.arange(3))
    assert learner.classes_.tolist() == [0, 1, 2]
    with pytest.raises(InputError, match="label 3 is not one of classes"):
        learner.partial_fit(x[36:], y[36:], classes=[0, 1, 2])
    with pytest.raises(InputError, match="labels are numbers, and classes texts"):
        learner.partial_fit(x[36:], y[36:], classes=["a"])
    assert learner.partial_fit(x[36:], y[36:].astype(float)).classes_.dtype == np.int64
    assert learner.partial_fit(x[36:], y[36:].astype(np.uint8)).counts_[3] == 36 - 12


def test_labels_of_another_kind_are_refused(tiny: TrainedModel, images: Data) -> None:
    """Texts never equal numbers: a score of 0 would be meaningless."""
    x, y = images
    learner = FewShotClassifier(tiny).fit(x[:36], y[:36])
    assert learner.score(x[:36], y[:36].astype(float)) == learner.score(x[:36], y[:36])
    for labels in (y[:36].astype(str), y[:36] > 0):
        for method in (learner.score, learner.partial_fit):
            with pytest.raises(InputError, match="labels of the fit are int64: use one kind"):
                method(x[:36], labels)
    for weights in ([1], [0] * 36, [np.nan] * 36):
        with pytest.raises(InputError, match="give a number per image, with a sum above 0"):
            learner.score(x[:36], y[:36], weights)


def test_reject_is_a_former_name_of_accept_rate(images: Data, tmp_path: Path) -> None:
    x, y = images[0][:36], images[1][:36]
    expected = FewShotClassifier("glyphs", accept_rate=0.9).fit(x, y)
    expected.save(tmp_path / "learner")
    with pytest.warns(FutureWarning, match="reject is called accept_rate now"):
        former = FewShotClassifier("glyphs", reject=0.9).fit(x, y)
    with pytest.warns(FutureWarning, match="reject is called accept_rate now"):
        loaded = omnitraining.load(tmp_path / "learner", reject=0.5)
    assert former.threshold_ == expected.threshold_
    assert isinstance(loaded, FewShotClassifier)
    assert loaded.accept_rate == 0.5 and loaded.threshold_ > expected.threshold_
    with pytest.raises(InputError, match="reject is the former name of accept_rate: give accept_"):
        FewShotClassifier("glyphs", accept_rate=0.9, reject=0.9).fit(x, y)
    with pytest.raises(InputError, match="reject is the former name of accept_rate: give accept_"):
        omnitraining.load("glyphs", accept_rate=0.9, reject=0.9)


@pytest.mark.parametrize(("kind", "label"), [(str, "unknown"), (int, -1)])
def test_metrics_of_rejected_images(
    tiny: TrainedModel, images: Data, half: float, kind: Any, label: Any
) -> None:
    x, y = images
    y = y.astype(kind)
    learner = FewShotClassifier(tiny, "pre", accept_rate=half, reject_label=label).fit(
        x[:36], y[:36]
    )
    found = learner.predict(x)
    rejected = learner.similarity(x) < learner.threshold_
    assert found.dtype.kind == np.asarray(label).dtype.kind
    assert ((found == label) == rejected).all() and 0 < rejected.mean() < 1
    truth = np.where(rejected, label, y)  # rejected unknown images count as correct
    assert learner.score(x, y) == accuracy_score(y, found) <= learner.score(x, truth)
    assert f1_score(y, found, average="macro") >= 0 and len(confusion_matrix(y, found)) == 5
    scores = cross_val_score(learner, x, y, scoring="accuracy", cv=3, error_score="raise")
    assert np.isfinite(scores).all()


WRONG_LABELS: list[tuple[Any, str]] = [
    ("unknown", "reject_label is 'unknown', and labels are numbers: it must be of their kind"),
    (0.5, "it must be of their kind, as 'unknown' or -1, or None"),
    (True, "it must be of their kind"),
    ([1], "it must be of their kind"),
    (1, "reject_label is 1, which is the label of a class: choose another"),
]


@pytest.mark.parametrize(("label", "words"), WRONG_LABELS, ids=str)
def test_a_wrong_label_for_rejected_images(
    tiny: TrainedModel, images: Data, label: Any, words: str
) -> None:
    x, y = images
    with pytest.raises(InputError, match=words):
        FewShotClassifier(tiny, accept_rate=0.9, reject_label=label).fit(x, y)


def test_models_that_are_none_are_refused_in_one_line(images: Data) -> None:
    for source in (torch.nn.Linear(2, 2), None, 3, FewShotClassifier("glyphs"), ["glyphs"]):
        ways = [lambda source: FewShotClassifier(source).fit(*images), omnitraining.load]
        for way in ways[:1] if isinstance(source, torch.nn.Module) else ways:
            with pytest.raises(InputError, match=r"model is .*: give a shipped model \(glyphs, ph"):
                way(source)  # type: ignore[arg-type]
    for accept_rate in ("0.9", np.nan, 1, True):
        with pytest.raises(InputError, match=r"accept_rate is .*: it must be above 0 and below 1"):
            FewShotClassifier("glyphs", accept_rate=accept_rate).fit(*images)  # type: ignore[arg-type]
    assert FewShotClassifier("glyphs", accept_rate=np.float32(0.9)).fit(*images).threshold_ > 0  # type: ignore[arg-type]


@pytest.fixture
def odd(request: pytest.FixtureRequest) -> Iterator[None]:
    """Torch with another default type or device."""
    if request.param == "meta":
        torch.set_default_device("meta")
    else:
        torch.set_default_dtype(request.param)
    yield
    torch.set_default_device(None)
    torch.set_default_dtype(torch.float32)


def answers(images: Data, waves: Path) -> tuple[Any, ...]:
    learner = FewShotClassifier("glyphs", accept_rate=0.9).fit(images[0][:36], images[1][:36])
    learner.partial_fit(images[0][36:], images[1][36:])
    points = np.linspace(-2, 2, 5)
    curve = omnitraining.load(waves).fit(points, np.sin(points))
    copied = pickle.loads(pickle.dumps(learner))
    return (
        *learner.predict_with_scores(images[0]),
        *copied.predict_with_scores(images[0]),
        learner.score(*images),
        curve.predict(points),
        learner.fit_report_.accuracy,
    )


@pytest.mark.filterwarnings("ignore::omnitraining.CalibrationWarning")
@pytest.mark.parametrize("odd", [torch.float16, torch.float64, "meta"], ids=str, indirect=True)
def test_defaults_of_torch_change_nothing(
    odd: None, images: Data, waves: TrainedModel, tmp_path: Path
) -> None:
    with float32_on_cpu():
        FewShotRegressor(waves).save(tmp_path / "waves")
        expected = answers(images, tmp_path / "waves")
    before = torch.get_default_dtype(), torch.get_default_device()
    for one, other in zip(answers(images, tmp_path / "waves"), expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (torch.get_default_dtype(), torch.get_default_device()) == before


def test_warnings_are_as_before() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with float32_on_cpu(), float32_on_cpu():
            assert torch.zeros(1).dtype == torch.float32

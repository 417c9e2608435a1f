"""Learners are estimators: scikit-learn's own checks, cross-validation, pipelines, searches."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import Tags
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import check_is_fitted, validate_data

from omnitraining import FewShotClassifier
from omnitraining.learner import TrainedModel
from omnitraining.tasks.classification.problem import Classification
from tests.learner.models import untrained


class Rows(FewShotClassifier):
    """Tables for the checks of scikit-learn: the numbers of a row become gray levels of an image.

    What a table is, and how many columns it has, is checked here; all else is the learner's.
    """

    def fit(self, X: Any, y: Any = None) -> "Rows":  # noqa: N803
        X, y = validate_data(self, X, y)  # noqa: N806
        super().fit(self.drawn(X), y)
        return self

    def partial_fit(self, X: Any, y: Any = None, classes: Any = None) -> "Rows":  # noqa: N803
        """Classes come as they come: the list that scikit-learn's convention has is not needed."""
        if not hasattr(self, "predictor_"):
            return self.fit(X, y)
        X, y = validate_data(self, X, y, reset=False)  # noqa: N806
        super().partial_fit(self.drawn(X), y)
        return self

    def _predict(self, found: Any, X: Any) -> Any:  # noqa: N803
        X = validate_data(self, X, reset=False)  # noqa: N806
        return super()._predict(found, self.drawn(X))

    def transform(self, X: Any) -> Any:  # noqa: N803
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)  # noqa: N806
        return super().transform(self.drawn(X))

    @staticmethod
    def drawn(X: NDArray[Any]) -> NDArray[Any]:  # noqa: N803
        """Images [B, 16, 16]: a bar per number, as wide as there is room."""
        levels = 1 / (1 + np.exp(-np.asarray(X, np.float64)))
        columns = levels[:, np.arange(16) * X.shape[1] // 16]
        return np.repeat(columns[:, None], 16, axis=1)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        return tags


def tiny() -> TrainedModel:
    return untrained(backbone={"init_args": {"width": 16}})[1]


@parametrize_with_checks([Rows(tiny(), "pre")])  # none is expected to fail
def test_learners_pass_the_checks_for_classifiers(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def images() -> tuple[NDArray[np.uint8], NDArray[np.str_]]:
    problem = untrained()[0].problem
    assert isinstance(problem, Classification)
    data = problem.benchmarks["blobs"]
    return data.images[:36].numpy(), np.array([data.classes[i] for i in data.labels[:36]])


def test_cross_validation_and_search(images: tuple[NDArray[np.uint8], NDArray[np.str_]]) -> None:
    x, y = images
    trained, folds = tiny(), StratifiedKFold(3)
    scores = cross_val_score(FewShotClassifier(trained), x, y, cv=folds)
    expected = [
        FewShotClassifier(trained).fit(x[train], y[train]).score(x[test], y[test])
        for train, test in folds.split(x, y)
    ]
    assert scores.tolist() == expected and min(expected) > 0.5
    # Of rates of acceptance the one that rejects nearly all images must lose.
    rates = {"accept_rate": [1e-9, None]}
    search = GridSearchCV(FewShotClassifier(trained, reject_label="none"), rates, cv=folds)
    search.fit(x, y)
    assert search.best_params_ == {"accept_rate": None}
    assert search.cv_results_["mean_test_score"][0] < search.best_score_
    np.testing.assert_array_equal(
        search.predict(x), FewShotClassifier(trained).fit(x, y).predict(x)
    )


def test_a_pipeline_of_images(images: tuple[NDArray[np.uint8], NDArray[np.str_]]) -> None:
    x, y = images
    plain = FewShotClassifier(tiny()).fit(255 - x[::2], y[::2])
    piped = make_pipeline(FunctionTransformer(lambda x: 255 - x), FewShotClassifier(tiny()))
    piped.fit(x[::2], y[::2])
    assert np.array_equal(piped.predict(x), plain.predict(255 - x))
    assert piped.score(x[1::2], y[1::2]) == plain.score(255 - x[1::2], y[1::2])


def test_parameters_are_kept_by_clones() -> None:
    learner = FewShotClassifier("glyphs", flow="meta", accept_rate=0.9, reject_label=-1)
    options = {"flow": "meta", "accept_rate": 0.9, "reject_label": -1, "reject": None}
    assert clone(learner).get_params() == {"model": "glyphs", **options}
    assert learner.set_params(flow=None).flow is None
    trained = tiny()
    assert clone(FewShotClassifier(trained)).model is trained
    assert repr(FewShotClassifier(trained)) == (
        "FewShotClassifier(model=<trained model tiny: 16 px (bilinear, aspect not kept)>)"
    )

"""A few-shot classifier of images with the methods of scikit-learn."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import (  # type: ignore[import-untyped]
    BaseEstimator,
    ClassifierMixin,
    TransformerMixin,
)
from sklearn.utils import Tags  # type: ignore[import-untyped]
from sklearn.utils.validation import check_is_fitted  # type: ignore[import-untyped]
from torch import Tensor
from torch.nn import functional as F

from omnitraining.errors import CalibrationWarning, InputError
from omnitraining.io.terminal import first_few
from omnitraining.learner import checks
from omnitraining.learner.calibration import Calibration
from omnitraining.learner.ensemble import resolve_flow
from omnitraining.learner.feature_cache import FeatureCache
from omnitraining.learner.fit_result import FitResult, Options, current_accept_rate, fit_support
from omnitraining.learner.fitting import PIXELS, embed
from omnitraining.learner.held_out import FitReport, one_image_each
from omnitraining.learner.image_data import Rows, as_images, check_kind, labels_of
from omnitraining.learner.inputs import Images
from omnitraining.learner.labels import (
    as_before,
    check_allowed,
    check_lengths,
    checked_weights,
    labeled,
)
from omnitraining.learner.predictor import Predictor
from omnitraining.learner.sources import DEFAULT_MODEL, Source, find
from omnitraining.learner.task_report import TaskReport, task_report
from omnitraining.learner.trained import TrainedModel, save_file
from omnitraining.precision import float32_on_cpu


class FewShotClassifier(ClassifierMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Few-shot classification of images: classes that were not trained on, from a few images each.

    Images are an array or tensor [B, H, W], [B, H, W, C] or [B, C, H, W] with C = 1, 3 or 4; a
    list of such images of any sizes, of Pillow images, or of paths of files that Pillow reads; or
    the path of one image, of a folder of images, or of a folder with one such folder per class.
    Files of folders are sorted by name as text: "10.png" comes before "2.png". Whole numbers
    are pixel values from 0 to 255 (of uint16, from 0 to 65535), floating-point numbers from 0
    to 1. Images become squares, in gray or color, and are normalized as in training. The shipped
    models resize them without keeping their aspect; ``load("photos", aspect="crop")`` makes another
    choice.

    A data set or loader of torch, a list of pairs (image, label), or rows with an "image" and a
    "label" (as data sets of Hugging Face have them) are images with their labels: leave ``y`` out.

    Options that are changed after a fit have effect from the next fit on; until then the learner
    predicts, and is saved and copied, as it was fitted.

    Args:
        model: a trained model: name of a shipped one ("photos", or "glyphs" for characters), run
            folder, file that a learner saved, or name on the Hugging Face hub.
        flow: the flow that predicts, "pre", "joint" or "meta", or "ensemble", the mean of all
            (paper 4.3). None is the ensemble that the run was evaluated with. A single flow needs
            one forward pass, an ensemble one for each of its flows.
        accept_rate: share of images of known classes, in (0, 1), that are accepted. Images with a
            lower similarity are out-of-distribution, and `predict` returns ``reject_label`` for
            them. The similarity that it needs was measured on the validation tasks of the run.
            None accepts all images.
        reject_label: label of images that are rejected. The metrics of scikit-learn need one of
            the type of the labels, as "unknown" or -1.
        reject: former name of ``accept_rate``.

    Attributes:
        classes_: labels, sorted.
        counts_: support images by label.
        predictor_: the fitted `Predictor`, an `nn.Module`.
        calibration_: the `Calibration`: of the model's validation tasks, moved to the domain of
            the support images; or, of a frozen backbone, by the support images alone.
        threshold_: similarity from which an image is accepted, if ``accept_rate`` is given.
        fit_report_: a `FitReport` on the support images, each predicted by heads fitted without it.

    Example:
        >>> import numpy as np
        >>> from omnitraining import FewShotClassifier
        >>> images = np.stack([np.eye(28), np.fliplr(np.eye(28))])
        >>> learner = FewShotClassifier("glyphs").fit(images, ["down", "up"])
        >>> learner.predict(images).tolist(), learner.predict_proba(images).shape
        (['down', 'up'], (2, 2))
    """

    def __init__(
        self,
        model: Source = DEFAULT_MODEL,
        flow: str | None = None,
        accept_rate: float | None = None,
        reject_label: str | int | None = None,
        reject: float | None = None,
    ) -> None:
        """Keep the options; the model is loaded by `fit`."""
        self.model, self.flow, self.accept_rate = model, flow, accept_rate
        self.reject_label, self.reject = reject_label, reject

    @float32_on_cpu()
    def fit(self, X: Images, y: ArrayLike | None = None) -> "FewShotClassifier":  # noqa: N803
        """Learn new classes, in place of the classes of an earlier fit.

        Args:
            X: images; or a folder with a folder of images per class, without ``y``.
            y: the label of each image, texts or whole numbers. Classes may differ in their number
                of images.

        Warns:
            CalibrationWarning: the images are so unlike validation images that probabilities and
                ``accept_rate`` are not reliable; or each class has one image, so that this cannot
                be measured.

        Raises:
            InputError: images and labels do not fit together, there are fewer than two classes, an
                image cannot be read, or the model cannot predict this many classes.
        """
        trained = find(self.model)
        return self._learn(trained, *self._embedded(trained, X, y))

    @float32_on_cpu()
    def partial_fit(
        self,
        X: Images,  # noqa: N803
        y: ArrayLike | None = None,
        classes: ArrayLike | None = None,
    ) -> "FewShotClassifier":
        """Add images of known or new classes to the fit; only these are embedded.

        Args:
            X: images, as in `fit`.
            y: their labels.
            classes: all labels that are allowed; any label is, if it is not given.

        Raises:
            InputError: as in `fit`; or ``model`` or ``flow`` were changed since the last fit.
        """
        known = self._fit_result
        if known is not None and (known.options.source, known.options.flow) != (
            self.model,
            self.flow,
        ):
            raise InputError("model or flow were changed since the fit: fit again")
        trained = find(self.model) if known is None else known.trained
        kept, labels = self._embedded(trained, X, y, known, classes)
        if known is not None:
            kept = {name: torch.cat([old, kept[name]]) for name, old in known.support.kept.items()}
            labels = np.concatenate([known.labels, as_before(labels, known.labels)])
        return self._learn(trained, kept, labels)

    def predict(self, X: Images) -> NDArray[Any]:  # noqa: N803
        """The label of each image [B]; ``reject_label`` where it is rejected."""
        fit = self._fitted()
        return fit.to_labels(*self._predict(fit, X))

    def predict_proba(self, X: Images) -> NDArray[np.float64]:  # noqa: N803
        """Calibrated probabilities [B, N] of `classes_`, given that the image is of one of them."""
        return self.predict_with_scores(X)[0]

    @torch.no_grad()
    @float32_on_cpu()
    def transform(self, X: Images) -> NDArray[np.float32]:  # noqa: N803
        """Features [B, D] of images, for other estimators.

        The features of the flows that predict are each scaled to length 1 and concatenated; the
        labels of the fit do not change them, except where an algorithm adapts the network.

        Args:
            X: images, as in `fit`.

        Raises:
            InputError: an image cannot be read; or an algorithm adapts the network, so that there
                are no features before its last layer.
        """
        fit = self._fitted()
        if not fit.ensemble.needs_only_features:
            raise InputError(f"{fit.ensemble} adapts the network: choose another flow for features")
        batches = fit.trained.image_inputs.batches(X, fit.trained.batch)
        kept = embed(fit.ensemble, batches)
        flows = [F.normalize(kept[flow], dim=-1) for flow in fit.predictor.weights]
        features: NDArray[np.float32] = torch.cat(flows, 1).float().numpy(force=True)
        return features

    def similarity(self, X: Images) -> NDArray[np.float64]:  # noqa: N803
        """Cosine similarity of each image to the nearest class [B], the score of ``accept_rate``.

        See `Predictor.predict_with_scores`.
        """
        return self.predict_with_scores(X)[1]

    def predict_with_scores(
        self,
        X: Images,  # noqa: N803
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Probabilities [B, N] and similarities [B] of one pass.

        See `Predictor.predict_with_scores`.
        """
        return self._predict(self._fitted(), X)

    def to_labels(
        self, probabilities: NDArray[np.float64], similarity: NDArray[np.float64]
    ) -> NDArray[Any]:
        """The labels [B] that `predict` returns for the results of `predict_with_scores`.

        Args:
            probabilities: [B, N].
            similarity: [B].
        """
        return self._fitted().to_labels(probabilities, similarity)

    def score(
        self,
        X: Images,  # noqa: N803
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> float:
        """Accuracy: the share of images whose label is predicted. Rejected images are errors.

        Args:
            X: images; or a folder with a folder of images per class, without ``y``.
            y: their labels.
            sample_weight: weight of each image.

        Raises:
            InputError: as in `fit`; or labels are of another type than the labels of the fit.
        """
        fit = self._fitted()
        _, labels, probabilities, similarity = self._predict_labeled(fit, X, y)
        predicted = fit.to_labels(probabilities, similarity)
        return float(
            np.average(predicted == labels, weights=checked_weights(sample_weight, len(labels)))
        )

    def report(self, X: Images, y: ArrayLike | None = None) -> TaskReport:  # noqa: N803
        """Accuracy with its interval, per class, confusions and mistakes on labeled images.

        Print it for the main numbers; `TaskReport.save_figures` draws the confusion matrix and the
        most confident mistakes. What the fit measured on its own images is `fit_report_`.

        Args:
            X: images that were not in the fit; or a folder with a folder of them per class,
                without ``y``.
            y: their labels. Images of classes that the learner does not have are counted apart.

        Raises:
            InputError: as in `score`; or no image is of a class of the learner.
        """
        fit = self._fitted()
        images, labels, probabilities, similarity = self._predict_labeled(fit, X, y)
        accepted = similarity >= (-np.inf if fit.threshold is None else fit.threshold)
        paths = isinstance(images, list) and all(isinstance(i, str | Path) for i in images)
        names = images if paths else range(len(labels))
        return task_report(fit.classes, labels, probabilities, accepted, names)

    def _predict_labeled(
        self,
        fit: FitResult,
        X: Images,  # noqa: N803
        y: ArrayLike | None,
    ) -> tuple[Images, NDArray[Any], NDArray[np.float64], NDArray[np.float64]]:
        """Images, their labels [B], probabilities [B, N] and similarities [B]."""
        images, labels = labeled(X, y)
        if labels is not None:
            check_kind(labels, fit.labels)
        probabilities, similarity = self._predict(fit, images)
        if isinstance(images, Rows):
            labels = labels_of(images.agreed(y))
            check_kind(labels, fit.labels)
        assert labels is not None
        check_lengths(len(probabilities), len(labels))
        return images, labels, probabilities, similarity

    @float32_on_cpu()
    def preprocess(self, X: Images) -> Tensor:  # noqa: N803
        """Images as `predictor_` takes them: [B, C, H, W], pixel values in [0, 1]."""
        trained = self._fitted().trained
        return trained.image_inputs.pixels(X).to(trained.device) / 255

    def save(self, path: Path | str, weights: bool = True) -> None:
        """Write the model and the support set to one file (safetensors; no pickle).

        A learner that was not fitted is saved as a model without its data. A fitted one is written
        as it was fitted, with its options at that time.

        Args:
            path: the file.
            weights: write the weights of a frozen backbone too. Without them the file has their
                name and SHA-256: loading takes them from where they were, and checks them.

        Raises:
            InputError: the file cannot be written, labels are neither texts nor numbers, or
                weights are to be left out of a model that is no frozen backbone.
        """
        fit = self._fit_result
        if fit is None:
            trained, options = find(self.model), self._options()
            tensors, values = dict[str, Tensor](), dict[str, Any]()
        else:
            trained, options = fit.trained, fit.options
            tensors = {f"support.{name}": kept for name, kept in fit.support.kept.items()}
            values = {"labels": fit.labels.tolist(), "dtype": fit.labels.dtype.str}
        values |= {"flow": options.flow, "accept_rate": _plain(options.accept_rate)}
        if options.reject_label is not None:
            label = _plain(options.reject_label)
            values["reject_label"] = int(label) if isinstance(label, float) else label
        save_file(Path(path), trained.to_bytes(tensors, values, weights))

    @classmethod
    @float32_on_cpu()
    def _restored(
        cls, trained: TrainedModel, tensors: Mapping[str, Tensor], values: Mapping[str, Any]
    ) -> "FewShotClassifier":
        """A learner from the parts of its file."""
        checks.options(values, trained.model.trained_flows)
        names = ("flow", "accept_rate", "reject_label")
        learner = cls(trained, **{name: values.get(name) for name in names})
        kept = checks.support(tensors, _kept_kinds(trained))
        if "labels" in values:
            labels = checks.labels(values["labels"], values["dtype"])
            for name, rows in sorted(kept.items()):
                if len(labels) != len(rows):
                    raise checks.DamagedError(
                        f"{name} has {len(rows)} rows of {len(labels)} labels"
                    )
            rows_of = {n.removeprefix("support."): x.to(trained.device) for n, x in kept.items()}
            learner._fit = fit_support(trained, learner._options(), rows_of, labels)
        elif kept:
            raise checks.DamagedError("it holds support images, but no labels of them")
        return learner

    @property
    def classes_(self) -> NDArray[Any]:
        """Labels, sorted."""
        return self._attribute("classes_").classes

    @property
    def counts_(self) -> dict[Any, int]:
        """Support images by label."""
        return self._attribute("counts_").counts

    @property
    def predictor_(self) -> Predictor:
        """The fitted `Predictor`."""
        return self._attribute("predictor_").predictor

    @property
    def threshold_(self) -> float:
        """Similarity from which an image is accepted."""
        threshold = self._attribute("threshold_").threshold
        if threshold is None:
            raise AttributeError("threshold_ exists only if accept_rate was given at the fit")
        return threshold

    @property
    def fit_report_(self) -> FitReport:
        """Accuracy, confidence and similarity of support images that were held out in turn."""
        return self._attribute("fit_report_").report

    @property
    def calibration_(self) -> Calibration:
        """The `Calibration` of the predictions, at the shots of the support set."""
        return self._attribute("calibration_").calibration

    @property
    def _fit_result(self) -> FitResult | None:
        """The last fit; to be read once, since another thread may fit."""
        fit: FitResult | None = self.__dict__.get("_fit")
        return fit

    def _attribute(self, name: str) -> FitResult:
        fit = self._fit_result
        if fit is None:
            raise AttributeError(f"{type(self).__name__} has no {name} before it is fitted")
        return fit

    def _fitted(self) -> FitResult:
        check_is_fitted(self)
        fit = self._fit_result
        assert fit is not None
        return fit

    def _options(self) -> Options:
        accept_rate = current_accept_rate(self.accept_rate, self.reject)
        return Options(self.model, self.flow, accept_rate, self.reject_label)

    def _learn(
        self, trained: TrainedModel, kept: Mapping[str, Tensor], labels: NDArray[Any]
    ) -> "FewShotClassifier":
        fit = fit_support(trained, self._options(), kept, labels)
        self._fit = fit  # changed only once all that can fail is done
        if fit.report.calibrated is False:
            warnings.warn(fit.report.warning(trained.name), CalibrationWarning, stacklevel=4)
        elif len(labels) == len(fit.classes):
            warnings.warn(one_image_each(fit.trained), CalibrationWarning, stacklevel=4)
        return self

    def _embedded(
        self,
        trained: TrainedModel,
        images: Images,
        y: ArrayLike | None,
        known: FitResult | None = None,
        classes: ArrayLike | None = None,
    ) -> tuple[dict[str, Tensor], NDArray[Any]]:
        """The kept tensors of images (see `Support`), and their labels."""
        inputs = trained.image_inputs
        images, labels = labeled(images, y)

        def check(labels: NDArray[Any]) -> None:
            if known is not None:
                check_kind(labels, known.labels)
            check_allowed(labels, classes)

        if labels is not None:
            check(labels)
            if hasattr(images, "__len__") and not isinstance(images, str):
                check_lengths(len(images), len(labels))
        ensemble, batches = resolve_flow(trained, self.flow), inputs.batches(images, trained.batch)
        if trained.frozen is None:
            kept = embed(ensemble, batches)
        else:
            cache = self.__dict__.setdefault("_features", FeatureCache())
            kept = cache.embed(ensemble, batches, keep=known is not None)
        if isinstance(images, Rows):
            labels = labels_of(images.agreed(y))
            check(labels)
        assert labels is not None
        check_lengths(len(next(iter(kept.values()))), len(labels))
        return kept, labels

    @torch.no_grad()
    @float32_on_cpu()
    def _predict(
        self,
        fit: FitResult,
        X: Images,  # noqa: N803
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Probabilities [B, N] and similarities [B]."""
        images = as_images(X)
        if isinstance(images, Rows) and images.shuffles and not isinstance(X, Rows):
            raise InputError(
                "a DataLoader that shuffles gives its images in another order each time: use one "
                "with shuffle=False"
            )
        trained = fit.trained
        # Lists: tensors that are kept between the large ones of batches would fragment the heap,
        # and memory would grow with the number of images.
        rows, scores = list[list[float]](), list[float]()
        for pixels in trained.image_inputs.batches(images, trained.batch):
            found, similar = fit.predictor.predict_with_scores(pixels.to(trained.device) / 255)
            rows += found.tolist()
            scores += similar.tolist()
        probabilities, similarity = np.array(rows, np.float64), np.array(scores, np.float64)
        if not (np.isfinite(probabilities).all() and np.isfinite(similarity).all()):
            raise InputError(
                f"{trained.name} predicts values that are not finite: the model, or its support "
                "set, is damaged"
            )
        return probabilities / probabilities.sum(1, keepdims=True), similarity

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:  # noqa: N803 (of scikit-learn)
        text, fit = super().__repr__(N_CHAR_MAX), self._fit_result
        if fit is None:
            return str(text)
        names = first_few([*map(str, fit.classes.tolist())])
        counts = f"{len(fit.labels)} images of {len(fit.classes)} classes"
        return f"<{text}, fitted to {counts}: {names}>"

    def __sklearn_is_fitted__(self) -> bool:
        return self._fit_result is not None

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = []  # features are of 32 bits
        return tags


def _kept_kinds(trained: TrainedModel) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Tensors that a fit may keep (see `Support`): dtype and shape of one row by name."""
    sizes = trained.model.feature_sizes
    kinds = {f"support.{flow}": (torch.float32, (sizes[flow],)) for flow in sizes}
    return {**kinds, f"support.{PIXELS}": (torch.uint8, trained.image_inputs.shape)}


def _plain(value: Any) -> Any:
    """A number or text of Python."""
    return value.item() if isinstance(value, np.generic) else value

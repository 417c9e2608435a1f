"""A few-shot classifier of images with the methods of scikit-learn."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin  # type: ignore[import-untyped]
from sklearn.utils import Tags  # type: ignore[import-untyped]
from sklearn.utils.validation import check_is_fitted  # type: ignore[import-untyped]
from torch import Tensor

from omnitraining.errors import CalibrationWarning, InputError
from omnitraining.learner import checks
from omnitraining.learner.fitting import LEVELS, embed
from omnitraining.learner.given import Rows, check_kind, given, kind_of, labels_of
from omnitraining.learner.held_out import FitReport
from omnitraining.learner.inputs import ImageInputs, Images, class_folders
from omnitraining.learner.learned import Learned, Options, learned
from omnitraining.learner.predictor import Predictor
from omnitraining.learner.sources import Source, find
from omnitraining.learner.trained import Trained, save_file
from omnitraining.precision import float32_on_cpu


class FewShotClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Tells classes of images apart that were never trained on, from a few images of each.

    Images are an array or tensor [B, H, W], [B, H, W, C] or [B, C, H, W] with C = 1, 3 or 4; a
    list of such images of any sizes, of Pillow images, or of paths of files that Pillow reads; or
    the path of one image, of a folder of images, or of a folder with one such folder per class.
    Files of folders are sorted by name as texts are: "10.png" comes before "2.png". Whole numbers
    are levels from 0 to 255, those of uint16 from 0 to 65535, floating-point numbers from 0 to 1.
    They are resized (the aspect is not kept), turned to gray
    or color, and normalized as in training.

    A data set or loader of torch, a list of pairs (image, label), or rows with an "image" and a
    "label" (as data sets of Hugging Face have them) are images with their labels: leave ``y`` out.

    Options that are changed after a fit count from the next fit on; until then the learner
    predicts, and is saved and copied, as it was fitted.

    Args:
        model: a trained model: name of a shipped one ("glyphs"), run folder, file that a learner
            saved, or name on the Hugging Face hub.
        flow: the flow that predicts, "pre", "joint" or "meta", or "ensemble", the mean of all
            (paper 4.3). None is the vote that the run was judged by. A single flow needs one
            forward pass, a vote one for each of its flows.
        reject: share of images of known classes, in (0, 1), that shall be accepted; the others
            are none of these classes, and `predict` gives ``reject_label`` for them. How alike an
            image and its class must be for that was measured on the validation tasks of the run.
            None rejects nothing.
        reject_label: what `predict` gives for images that are none of these classes. The metrics
            of scikit-learn need one of the kind of the labels, as "unknown" or -1.

    Attributes:
        classes_: labels, sorted.
        counts_: support images by label.
        predictor_: the fitted `Predictor`, an `nn.Module`.
        threshold_: familiarity from which an image is accepted, if ``reject`` is given.
        fit_report_: how the support images fared that were left out in turn, a `FitReport`.
    """

    def __init__(
        self,
        model: Source = "glyphs",
        flow: str | None = None,
        reject: float | None = None,
        reject_label: str | int | None = None,
    ) -> None:
        self.model, self.flow, self.reject = model, flow, reject
        self.reject_label = reject_label

    @float32_on_cpu()
    def fit(self, X: Images, y: ArrayLike | None = None) -> "FewShotClassifier":  # noqa: N803
        """Learn new classes; whatever was learned before is forgotten.

        Warns (`CalibrationWarning`) if the images are so unlike those of validation that neither
        probabilities nor ``reject`` can be trusted, as far as two images of a class tell.

        Args:
            X: images; or a folder with a folder of images per class, without ``y``.
            y: the label of each image, texts or whole numbers; as many of each as there are.

        Raises:
            InputError: images and labels do not fit together, there are fewer than two classes, an
                image cannot be read, or the model cannot answer so many classes.
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
        """Learn more images, of known classes or of new ones; only these are embedded.

        Args:
            X: images, as in `fit`.
            y: their labels.
            classes: all labels that are allowed. It may be left out: classes come as they come.

        Raises:
            InputError: as in `fit`; or ``model`` or ``flow`` were changed since.
        """
        known = self._learned
        if known is not None and (known.options.source, known.options.flow) != (
            self.model,
            self.flow,
        ):
            raise InputError("model or flow were changed since the fit: fit again")
        trained = find(self.model) if known is None else known.trained
        kept, labels = self._embedded(trained, X, y, known, classes)
        if known is not None:
            kept = {name: torch.cat([old, kept[name]]) for name, old in known.support.kept.items()}
            labels = np.concatenate([known.labels, _as_before(labels, known.labels)])
        return self._learn(trained, kept, labels)

    def predict(self, X: Images) -> NDArray[Any]:  # noqa: N803
        """The label of each image; ``reject_label`` where it is none of the classes."""
        found = self._fit_made()
        return found.decide(*self._judge(found, X))

    def decide(
        self, probabilities: NDArray[np.float64], familiarity: NDArray[np.float64]
    ) -> NDArray[Any]:
        """The labels that `predict` gives to images of which `judge` said this."""
        return self._fit_made().decide(probabilities, familiarity)

    def predict_proba(self, X: Images) -> NDArray[np.float64]:  # noqa: N803
        """Calibrated probabilities [B, N], in the order of `classes_`, given it is one of them."""
        return self.judge(X)[0]

    def familiarity(self, X: Images) -> NDArray[np.float64]:  # noqa: N803
        """How alike each image is to the most similar class, at most 1; see `Predictor.judge`."""
        return self.judge(X)[1]

    def judge(self, X: Images) -> tuple[NDArray[np.float64], NDArray[np.float64]]:  # noqa: N803
        """Probabilities [B, N] and familiarity [B] from one pass; see `Predictor.judge`."""
        return self._judge(self._fit_made(), X)

    def score(
        self,
        X: Images,  # noqa: N803
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> float:
        """Share of images whose label is predicted; a known image that is rejected is wrong.

        Args:
            X: images; or a folder with a folder of images per class, without ``y``.
            y: their labels.
            sample_weight: weight of each image.

        Raises:
            InputError: as `fit` says; or labels are of another kind than those of the fit.
        """
        learned_ = self._fit_made()
        images, labels = _labeled(X, y)
        if labels is not None:
            check_kind(labels, learned_.labels)
        found = learned_.decide(*self._judge(learned_, images))
        if isinstance(images, Rows):
            labels = labels_of(images.agreed(y))
            check_kind(labels, learned_.labels)
        assert labels is not None
        _check_lengths(len(found), len(labels))
        return float(np.average(found == labels, weights=_weights(sample_weight, len(labels))))

    @float32_on_cpu()
    def levels(self, X: Images) -> Tensor:  # noqa: N803
        """Images as `predictor_` takes them: levels in [0, 1], [B, C, H, W]."""
        trained = self._fit_made().trained
        return _inputs(trained).levels(X).to(trained.device) / 255

    def save(self, path: Path | str) -> None:
        """Write the model and what was learned to one file (safetensors; no pickle).

        A learner that was not fitted can be saved too, as a model without its data. One that was
        is written as it was fitted, with the options that it had then.

        Raises:
            InputError: the file cannot be written, or labels are neither texts nor numbers.
        """
        found = self._learned
        if found is None:
            trained, tensors, fit = find(self.model), dict[str, Tensor](), dict[str, Any]()
            options = Options(self.model, self.flow, self.reject, self.reject_label)
        else:
            trained, options = found.trained, found.options
            tensors = {f"support.{name}": kept for name, kept in found.support.kept.items()}
            fit = {"labels": found.labels.tolist(), "dtype": found.labels.dtype.str}
        fit |= {"flow": options.flow, "reject": _plain(options.reject)}
        if options.reject_label is not None:
            label = _plain(options.reject_label)
            fit["reject_label"] = int(label) if isinstance(label, float) else label
        save_file(Path(path), trained.to_bytes(tensors, fit))

    @classmethod
    @float32_on_cpu()
    def _restored(
        cls, trained: Trained, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
    ) -> "FewShotClassifier":
        """A learner from the parts of its file."""
        checks.choices(facts, trained.model.trained_flows)
        made = cls(trained, facts.get("flow"), facts.get("reject"), facts.get("reject_label"))
        kept = checks.support(tensors, _kept_kinds(trained))
        if "labels" in facts:
            labels = checks.labels(facts["labels"], facts["dtype"])
            for name, rows in sorted(kept.items()):
                if len(labels) != len(rows):
                    raise checks.DamagedError(
                        f"{name} has {len(rows)} rows of {len(labels)} labels"
                    )
            rows_of = {n.removeprefix("support."): x.to(trained.device) for n, x in kept.items()}
            made._made = learned(trained, made._options(), rows_of, labels)
        elif kept:
            raise checks.DamagedError("it holds support images, but no labels of them")
        return made

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
        """Familiarity from which an image is accepted."""
        threshold = self._attribute("threshold_").threshold
        if threshold is None:
            raise AttributeError("threshold_ is there only if reject was given at the fit")
        return threshold

    @property
    def fit_report_(self) -> FitReport:
        """How the support images fared that were left out in turn."""
        return self._attribute("fit_report_").report

    @property
    def _learned(self) -> Learned | None:
        """What the last fit made; read once, it stays one fit while another thread fits."""
        found: Learned | None = self.__dict__.get("_made")
        return found

    def _attribute(self, name: str) -> Learned:
        found = self._learned
        if found is None:
            raise AttributeError(f"{type(self).__name__} has no {name} before it is fitted")
        return found

    def _fit_made(self) -> Learned:
        check_is_fitted(self)
        found = self._learned
        assert found is not None
        return found

    def _options(self) -> Options:
        return Options(self.model, self.flow, self.reject, self.reject_label)

    def _learn(
        self, trained: Trained, kept: Mapping[str, Tensor], labels: NDArray[Any]
    ) -> "FewShotClassifier":
        # Nothing is changed before all that can fail has been done.
        made = learned(trained, self._options(), kept, labels)
        self._made = made
        if made.report.calibrated is False:
            warnings.warn(made.report.warning(trained.name), CalibrationWarning, stacklevel=4)
        return self

    def _embedded(
        self,
        trained: Trained,
        images: Images,
        y: ArrayLike | None,
        known: Learned | None = None,
        classes: ArrayLike | None = None,
    ) -> tuple[dict[str, Tensor], NDArray[Any]]:
        """What is kept of images, and their labels."""
        inputs = _inputs(trained)
        images, labels = _labeled(images, y)

        def check(found: NDArray[Any]) -> None:
            if known is not None:
                check_kind(found, known.labels)
            _check_allowed(found, classes)

        if labels is not None:
            check(labels)
            if hasattr(images, "__len__") and not isinstance(images, str):
                _check_lengths(len(images), len(labels))
        kept = embed(trained, inputs.batches(images), self.flow)
        if isinstance(images, Rows):
            labels = labels_of(images.agreed(y))
            check(labels)
        assert labels is not None
        _check_lengths(len(next(iter(kept.values()))), len(labels))
        return kept, labels

    @torch.no_grad()
    @float32_on_cpu()
    def _judge(
        self,
        found: Learned,
        X: Images,  # noqa: N803
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        rows = given(X)
        if isinstance(rows, Rows) and rows.shuffles and not isinstance(X, Rows):
            raise InputError(
                "a DataLoader that shuffles gives its images in another order each time: use one "
                "with shuffle=False"
            )
        device = found.trained.device
        parts = [
            found.predictor.judge(part.to(device) / 255)
            for part in _inputs(found.trained).batches(rows)
        ]
        probabilities, familiarity = (
            torch.cat(part).double().cpu().numpy() for part in zip(*parts, strict=True)
        )
        if not (np.isfinite(probabilities).all() and np.isfinite(familiarity).all()):
            raise InputError(
                f"{found.trained.name} answers with values that are not finite: the model, or what "
                "it was fitted with, is damaged"
            )
        return probabilities / probabilities.sum(1, keepdims=True), familiarity

    def __sklearn_is_fitted__(self) -> bool:
        return self._learned is not None

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags


def _kept_kinds(trained: Trained) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """What a fit may keep, as `embed` gives it: dtype and shape of one row by name."""
    sizes = trained.model.feature_sizes
    kinds = {f"support.{flow}": (torch.float32, (sizes[flow],)) for flow in sizes}
    shape = trained.inputs.shape if trained.inputs else ()
    return {**kinds, f"support.{LEVELS}": (torch.uint8, shape)}


def _inputs(trained: Trained) -> ImageInputs:
    if trained.inputs is None:
        raise InputError(f"{trained.name} is a model of curves: it cannot classify images")
    return trained.inputs


def _labeled(images: Images, y: ArrayLike | None) -> tuple[Images, NDArray[Any] | None]:
    """Images, and their labels [B]; None if they come with the images, which are `Rows` then."""
    found = given(images)
    if isinstance(found, Rows):
        if y is not None and found.shuffles:
            raise InputError("y cannot go with a DataLoader that shuffles: leave y out")
        return found, None
    if y is not None and isinstance(images, str | Path) and Path(images).is_dir():
        raise InputError(
            f"{images} is a folder, and y has no order that fits it: leave y out if the folder "
            "holds one per class, or give a list of files"
        )
    if y is not None:
        return found, labels_of(y)
    if not isinstance(images, str | Path):
        raise InputError("there are no labels: give y, or a folder with a folder per class")
    paths, names = class_folders(images)
    return paths, np.array(names)


def _as_before(labels: NDArray[Any], known: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers as integers, if the labels of the fit are."""
    both = labels.dtype.kind == "f" and known.dtype.kind in "iu"
    return labels.astype(np.int64) if both else labels


def _check_allowed(labels: NDArray[Any], classes: ArrayLike | None) -> None:
    if classes is None:
        return
    allowed = labels_of(classes)
    if kind_of(allowed) != kind_of(labels):
        raise InputError(f"labels are {kind_of(labels)}, and classes {kind_of(allowed)}")
    others = labels[~np.isin(labels, allowed)]
    if len(others):
        raise InputError(f"label {others[0].item()!r} is not one of classes")


def _weights(weights: ArrayLike | None, count: int) -> NDArray[np.float64] | None:
    if weights is None:
        return None
    found = np.asarray(weights, np.float64)
    if found.shape != (count,) or not np.isfinite(found).all() or found.sum() <= 0:
        raise InputError(
            f"sample_weight is {list(found.shape)}, sum {found.sum():g}: give a number per image, "
            "with a sum above 0"
        )
    return found


def _plain(value: Any) -> Any:
    """A number or text of Python."""
    return value.item() if isinstance(value, np.generic) else value


def _check_lengths(images: int, labels: int) -> None:
    if images != labels:
        raise InputError(f"there are {images} images and {labels} labels: give one per image")

"""A few-shot classifier of images with the methods of scikit-learn."""

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

from omnitraining.errors import InputError
from omnitraining.learner import checks
from omnitraining.learner.fitting import LEVELS, Support, embed, fitted, flows_of
from omnitraining.learner.inputs import Images, class_folders
from omnitraining.learner.predictor import Predictor
from omnitraining.learner.sources import Source, find
from omnitraining.learner.trained import Trained, save_file
from omnitraining.tasks.classification.problem import EMBED_BATCH


class FewShotClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Tells classes of images apart that were never trained on, from a few images of each.

    Images are an array or tensor [B, H, W], [B, H, W, C] or [B, C, H, W] with C = 1, 3 or 4; a
    list of such images of any sizes, of Pillow images, or of paths of files that Pillow reads; or
    the path of one image, of a folder of images, or of a folder with one such folder per class.
    Files of folders are sorted by name as texts are: "10.png" comes before "2.png". Whole numbers
    are levels from 0 to 255, those of uint16 from 0 to 65535, floating-point numbers from 0 to 1.
    They are resized (the aspect is not kept), turned to grey
    or colour, and normalised as in training.

    Args:
        model: a trained model: name of a shipped one ("glyphs"), run folder, file that a learner
            saved, or name on the Hugging Face hub.
        flow: the flow that predicts, "pre", "joint" or "meta", or "ensemble", the mean of all
            (paper 4.3). None is the vote that the run was judged by. A single flow needs one
            forward pass, a vote one for each of its flows.
        reject: share of images of known classes, in (0, 1), that shall be accepted; the others
            are none of these classes, and `predict` gives None for them. How alike an image and
            its class must be for that was measured on the validation tasks of the run. None
            rejects nothing.

    Attributes:
        classes_: labels, sorted.
        counts_: support images by label.
        predictor_: the fitted `Predictor`, an `nn.Module`.
        threshold_: familiarity from which an image is accepted, if ``reject`` is given.
    """

    def __init__(
        self, model: Source = "glyphs", flow: str | None = None, reject: float | None = None
    ) -> None:
        self.model, self.flow, self.reject = model, flow, reject

    def fit(self, X: Images, y: ArrayLike | None = None) -> "FewShotClassifier":  # noqa: N803
        """Learn new classes; whatever was learned before is forgotten.

        Args:
            X: images; or a folder with a folder of images per class, without ``y``.
            y: the label of each image, texts or whole numbers; as many of each as there are.

        Raises:
            InputError: images and labels do not fit together, there are fewer than two classes, an
                image cannot be read, or the model cannot answer so many classes.
        """
        trained = find(self.model)
        X, labels = _labelled(X, y)  # noqa: N806
        self._fit(trained, embed(trained, _levels(trained, X, labels), self.flow), labels)
        return self

    def partial_fit(self, X: Images, y: ArrayLike | None = None) -> "FewShotClassifier":  # noqa: N803
        """Learn more images, of known classes or of new ones; only these are embedded.

        Args:
            X: images, as in `fit`.
            y: their labels.

        Raises:
            InputError: as in `fit`; or ``model`` or ``flow`` were changed since.
        """
        if not hasattr(self, "predictor_"):
            return self.fit(X, y)
        if self._fitted_with != (self.model, self.flow):
            raise InputError("model or flow were changed since the fit: fit again")
        X, labels = _labelled(X, y)  # noqa: N806
        if labels.dtype.kind != self._labels.dtype.kind:
            raise InputError(
                f"labels are {labels.dtype}, those of the fit {self._labels.dtype}: use one kind"
            )
        new = embed(self._trained, _levels(self._trained, X, labels), self.flow)
        kept = {name: torch.cat([old, new[name]]) for name, old in self._kept.items()}
        self._fit(self._trained, kept, np.concatenate([self._labels, labels]))
        return self

    def predict(self, X: Images) -> NDArray[Any]:  # noqa: N803
        """The label of each image; None where ``reject`` says that it is none of the classes."""
        return self.decide(*self.judge(X))

    def decide(
        self, probabilities: NDArray[np.float64], familiarity: NDArray[np.float64]
    ) -> NDArray[Any]:
        """The labels that `predict` gives to images of which `judge` said this."""
        labels: NDArray[Any] = self.classes_[probabilities.argmax(1)]
        if self.reject is None:
            return labels
        accepted = familiarity >= self.threshold_
        chosen = labels.astype(object)
        chosen[~accepted] = None
        return chosen

    def predict_proba(self, X: Images) -> NDArray[np.float64]:  # noqa: N803
        """Calibrated probabilities [B, N], in the order of `classes_`, given it is one of them."""
        return self.judge(X)[0]

    def familiarity(self, X: Images) -> NDArray[np.float64]:  # noqa: N803
        """How alike each image is to the most similar class, at most 1; see `Predictor.judge`."""
        return self.judge(X)[1]

    def score(
        self,
        X: Images,  # noqa: N803
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> float:
        """Share of images whose label is predicted; images that are rejected count as wrong.

        Args:
            X: images; or a folder with a folder of images per class, without ``y``.
            y: their labels.
            sample_weight: weight of each image.
        """
        X, labels = _labelled(X, y)  # noqa: N806
        found = self.predict(X)
        _check_lengths(len(found), len(labels))
        weights = None if sample_weight is None else np.asarray(sample_weight, np.float64)
        return float(np.average(found == labels, weights=weights))

    def levels(self, X: Images) -> Tensor:  # noqa: N803
        """Images as `predictor_` takes them: levels in [0, 1], [B, C, H, W]."""
        check_is_fitted(self)
        return _levels(self._trained, X, None).to(self._trained.device) / 255

    def save(self, path: Path | str) -> None:
        """Write the model and what was learned to one file (safetensors; no pickle).

        A learner that was not fitted can be saved too, as a model without its data.

        Raises:
            InputError: the file cannot be written, or labels are neither texts nor numbers.
        """
        trained = find(self.model)
        tensors: dict[str, Tensor] = {}
        fit: dict[str, Any] = {}
        if hasattr(self, "predictor_"):
            trained = self._trained
            tensors = {f"support.{name}": kept for name, kept in self._kept.items()}
            fit = {
                "labels": self._labels.tolist(),
                "dtype": self._labels.dtype.str if self._labels.dtype != object else "object",
            }
        save_file(Path(path), trained.to_bytes(tensors, {**fit, **self._options()}))

    def _options(self) -> dict[str, Any]:
        return {"flow": self.flow, "reject": self.reject}

    @classmethod
    def _restored(
        cls, trained: Trained, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
    ) -> "FewShotClassifier":
        """A learner from the parts of its file."""
        checks.choices(facts, trained.model.trained_flows)
        made = cls(trained, facts.get("flow"), facts.get("reject"))
        kept = checks.support(tensors, _kept_kinds(trained))
        if "labels" in facts:
            labels = checks.labels(facts["labels"], facts["dtype"])
            for name, rows in kept.items():
                if len(labels) != len(rows):
                    raise checks.DamagedError(
                        f"{name} has {len(rows)} rows of {len(labels)} labels"
                    )
            rows_of = {n.removeprefix("support."): x.to(trained.device) for n, x in kept.items()}
            made._fit(trained, rows_of, labels)
        elif kept:
            raise checks.DamagedError("it holds support images, but no labels of them")
        return made

    def _fit(self, trained: Trained, kept: Mapping[str, Tensor], labels: NDArray[Any]) -> None:
        if self.reject is not None and not 0 < self.reject < 1:
            raise InputError(f"reject is {self.reject}: it must be above 0 and below 1, as 0.95")
        classes, indices = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            images, only = f"the images ({len(labels)})", repr(classes.tolist()[0])
            raise InputError(f"{images} are all of one class, {only}: give two classes or more")
        support = Support(kept, torch.from_numpy(indices.astype(np.int64)), len(classes))
        head, words, _ = flows_of(trained, self.flow)
        if self.reject is not None:
            if head not in trained.calibration.familiarity:
                raise InputError(
                    f"reject needs features that stay as they are, which {words} has not: leave it "
                    "out or choose another flow"
                )
            self.threshold_ = trained.calibration.threshold(head, support.shots, self.reject)
        # Nothing is changed before all that can fail has been done.
        predictor = fitted(trained, support, self.flow)
        self.classes_, self.predictor_ = classes, predictor
        self.counts_ = dict(zip(classes.tolist(), np.bincount(indices).tolist(), strict=True))
        self._trained, self._kept, self._labels = trained, dict(kept), labels
        self._fitted_with = self.model, self.flow

    @torch.no_grad()
    def judge(self, X: Images) -> tuple[NDArray[np.float64], NDArray[np.float64]]:  # noqa: N803
        """Probabilities [B, N] and familiarity [B] from one pass; see `Predictor.judge`."""
        check_is_fitted(self)
        predictor: Predictor = self.predictor_
        found = [predictor.judge(part) for part in self.levels(X).split(EMBED_BATCH)]
        probabilities, familiarity = (
            torch.cat(parts).double().cpu().numpy() for parts in zip(*found, strict=True)
        )
        if not (np.isfinite(probabilities).all() and np.isfinite(familiarity).all()):
            raise InputError(
                f"{self._trained.name} answers with values that are not finite: the model, or what "
                "it was fitted with, is damaged"
            )
        return probabilities / probabilities.sum(1, keepdims=True), familiarity

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        state.pop("predictor_", None)  # it is made of the rest
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_kept" in state:
            self._fit(self._trained, self._kept, self._labels)

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


def _levels(trained: Trained, images: Images, labels: NDArray[Any] | None) -> Tensor:
    if trained.inputs is None:
        raise InputError(f"{trained.name} is a model of curves: it cannot classify images")
    levels = trained.inputs.levels(images)
    if labels is not None:
        _check_lengths(len(levels), len(labels))
    return levels


def _labelled(images: Images, y: ArrayLike | None) -> tuple[Images, NDArray[Any]]:
    """Images and their labels [B]."""
    if y is None:
        if not isinstance(images, str | Path):
            raise InputError("there are no labels: give y, or a folder with a folder per class")
        paths, names = class_folders(images)
        return paths, np.array(names)
    if isinstance(images, str | Path) and Path(images).is_dir():
        raise InputError(
            f"{images} is a folder, and y has no order that fits it: leave y out if the folder "
            "holds one per class, or give a list of files"
        )
    return images, _labels(y)


def _labels(y: ArrayLike) -> NDArray[Any]:
    labels = y.numpy(force=True) if isinstance(y, Tensor) else np.asarray(y)
    given = y if isinstance(y, list | tuple) else labels if labels.dtype == object else ()
    if len({isinstance(label, str) for label in given}) > 1:
        raise InputError("labels are texts and numbers: give only texts, or only whole numbers")
    if labels.dtype == object:
        labels = np.array(labels.tolist())
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    what = f"{labels.dtype} {list(labels.shape)}"
    if labels.dtype.kind == "f" and not (np.isfinite(labels) & (labels == labels.round())).all():
        what = f"continuous, {what}"
    elif labels.ndim == 1 and labels.dtype.kind in "iubUf":
        return labels
    raise InputError(f"labels are {what}: give one text or whole number per image")


def _check_lengths(images: int, labels: int) -> None:
    if images != labels:
        raise InputError(f"there are {images} images and {labels} labels: give one per image")

"""Results of a fitted learner on labeled images: accuracy, classes, confusions, mistakes.

The interval of an accuracy is Wilson's, which holds for few images and near 0 and 1 (Wilson 1927,
"Probable inference, the law of succession, and statistical inference", Journal of the American
Statistical Association 22).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from omnitraining.errors import InputError
from omnitraining.evaluation import as_frame

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NORMAL = 1.959963984540054
"""The 97.5th percentile of the standard normal distribution."""


def wilson_interval(correct: int, images: int) -> tuple[float, float]:
    """The 95 % interval of an accuracy.

    Args:
        correct: number of images that are predicted correctly.
        images: number of images; without any, the interval is (0, 1).
    """
    if images == 0:
        return 0.0, 1.0
    share, square = correct / images, NORMAL**2 / images
    middle = (share + square / 2) / (1 + square)
    half = NORMAL / (1 + square) * (share * (1 - share) / images + square / images / 4) ** 0.5
    low = 0.0 if correct == 0 else middle - half
    high = 1.0 if correct == images else middle + half
    return low, high


@dataclass(frozen=True)
class TaskReport:
    """Predictions of labeled images, and what follows from them.

    Classes that the learner does not have are left out of every number: see `unknown`.

    Attributes:
        classes: of the learner, sorted [N].
        labels: true labels of all images [B], which may be of other classes.
        probabilities: calibrated [B, N].
        accepted: which images are not rejected as out-of-distribution [B].
        images: what was predicted: paths, or the numbers of the images [B].

    Example:
        >>> import numpy as np
        >>> from omnitraining import FewShotClassifier
        >>> images = np.stack([np.eye(28), np.fliplr(np.eye(28))])
        >>> report = FewShotClassifier("glyphs").fit(images, ["down", "up"]).report(
        ...     images, ["down", "down"])
        >>> report.accuracy, report.confusion.tolist(), report.missing
        (0.5, [[1, 1, 0], [0, 0, 0]], ['up'])
    """

    classes: NDArray[Any]
    labels: NDArray[Any]
    probabilities: NDArray[np.float64]
    accepted: NDArray[np.bool_]
    images: Sequence[Any]

    @cached_property
    def known(self) -> NDArray[np.bool_]:
        """Which images are of a class of the learner [B]."""
        return np.isin(self.labels, self.classes)

    @property
    def unknown(self) -> dict[Any, int]:
        """Number of images by class that the learner does not have."""
        names, counts = np.unique(self.labels[~self.known], return_counts=True)
        return dict(zip(names.tolist(), counts.tolist(), strict=True))

    @property
    def missing(self) -> list[Any]:
        """Classes of the learner without images here."""
        return [name for name in self.classes.tolist() if name not in {*self.labels.tolist()}]

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """Images by class [N] and prediction [N + 1]; the last column counts rejected images."""
        ways, known = len(self.classes), self.known
        true = np.searchsorted(self.classes, self.labels[known])
        guess = np.where(self.accepted, self.probabilities.argmax(1), ways)[known]
        table = np.zeros((ways, ways + 1), np.int64)
        np.add.at(table, (true, guess), 1)
        return table

    @property
    def shown_confusion(self) -> NDArray[np.int64]:
        """`confusion`, without its last column if no image is rejected."""
        return self.confusion if self.rejected else self.confusion[:, :-1]

    @property
    def rejected(self) -> int:
        """Images of classes that the learner has which are rejected."""
        return int(self.confusion[:, -1].sum())

    @property
    def count(self) -> int:
        """Images of classes that the learner has."""
        return int(self.known.sum())

    @property
    def correct(self) -> int:
        """Number of these images that are predicted correctly; a rejected image is not."""
        return int(np.trace(self.confusion))

    @property
    def accuracy(self) -> float:
        """Share of these images that are predicted correctly."""
        return self.correct / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the accuracy, over images."""
        return wilson_interval(self.correct, self.count)

    @property
    def confidence(self) -> float:
        """Mean calibrated probability of the predicted class; ideally near the accuracy."""
        return float(self.probabilities[self.known].max(1).mean())

    @property
    def unknown_rejected(self) -> float | None:
        """Share of the images of other classes that are rejected; None without such images."""
        others = self.accepted[~self.known]
        return float(1 - others.mean()) if len(others) else None

    def top(self, k: int) -> float:
        """Share of images whose class is among the k most probable, rejected or not.

        Args:
            k: from 1 to the number of classes.

        Raises:
            InputError: it is out of range.
        """
        if not 1 <= k <= len(self.classes):
            raise InputError(f"k is {k}: it must be from 1 to {len(self.classes)}, the classes")
        true = np.searchsorted(self.classes, self.labels[self.known])
        first = np.argsort(-self.probabilities[self.known], axis=1, kind="stable")[:, :k]
        return float((first == true[:, None]).any(1).mean())

    def per_class(self) -> list[dict[str, Any]]:
        """Images, recall and its interval, and precision of each class with images or predictions.

        Recall is the share of the class's images that are predicted as the class (None without
        images); precision is the share of the images predicted as the class that are of it (None
        without such predictions).
        """
        table, rows = self.confusion, []
        for number, name in enumerate(self.classes.tolist()):
            images, guessed = int(table[number].sum()), int(table[:, number].sum())
            hits = int(table[number, number])
            rows.append(
                {
                    "class": name,
                    "images": images,
                    "recall": hits / images if images else None,
                    "interval": wilson_interval(hits, images),
                    "precision": hits / guessed if guessed else None,
                    "rejected": int(table[number, -1]),
                }
            )
        return rows

    def mistakes(self, most: int = 24) -> list[int]:
        """Numbers of the images that are predicted wrongly, the most confident first.

        Rejected images and images of classes that the learner does not have are left out.

        Args:
            most: how many.
        """
        guess = self.classes[self.probabilities.argmax(1)]
        wrong = np.flatnonzero(self.known & self.accepted & (guess != self.labels))
        order = np.argsort(-self.probabilities[wrong].max(1), kind="stable")
        numbers: list[int] = wrong[order][:most].tolist()
        return numbers

    def in_words(self) -> list[str]:
        """The main numbers, a line each."""
        low, high = self.interval
        tops = [k for k in (2, 3, 5) if k < len(self.classes)]
        lines = [
            f"accuracy {self.accuracy:.1%} (95 % interval {low:.1%} to {high:.1%}), "
            f"{self.correct} of {self.count} images",
            f"mean probability of the prediction {self.confidence:.1%}",
        ]
        if tops:
            lines.insert(1, ", ".join(f"top-{k} {self.top(k):.1%}" for k in tops))
        if self.rejected:
            lines.append(
                f"{self.rejected} images of known classes rejected, which are errors above"
            )
        if self.missing:
            lines.append(f"no images of {', '.join(map(str, self.missing))}")
        if self.unknown:
            named = ", ".join(f"{name} ({n})" for name, n in self.unknown.items())
            share = f"{self.unknown_rejected or 0:.0%} rejected"
            lines.append(f"left out, since the learner has no such class: {named}; {share}")
        return lines

    def __str__(self) -> str:
        return "\n".join(self.in_words())

    def __repr__(self) -> str:
        return f"<report of {self.in_words()[0]}>"

    def to_frame(self) -> Any:
        """`per_class` as a pandas DataFrame.

        Raises:
            InputError: pandas is not installed.
        """
        return as_frame(self.per_class())

    def as_json(self) -> dict[str, Any]:
        """The numbers as JSON has them."""
        return {
            "images": self.count,
            "correct": self.correct,
            "accuracy": self.accuracy,
            "interval": list(self.interval),
            "mean_probability": self.confidence,
            "top": {str(k): self.top(k) for k in (1, 2, 3, 5) if k <= len(self.classes)},
            "classes": [{**row, "interval": list(row["interval"])} for row in self.per_class()],
            "confusion": self.confusion.tolist(),
            "missing": self.missing,
            "unknown": {str(name): count for name, count in self.unknown.items()},
            "unknown_rejected": self.unknown_rejected,
        }

    def plot(self) -> "Figure":
        """The confusion matrix, as a figure of matplotlib."""
        from omnitraining.learner.task_figures import confusion_figure

        return confusion_figure(self)

    def save_figures(self, folder: Path | str, pixels: Any = None) -> list[Path]:
        """Write confusion.png and, if the images can be shown, mistakes.png.

        Args:
            folder: made if it is missing.
            pixels: for images that were not given as paths, [B, H, W] or [B, H, W, C] as
                matplotlib shows them; without them their mistakes are not drawn.

        Raises:
            InputError: the folder cannot be made.
        """
        from omnitraining.learner.task_figures import save_report

        return save_report(self, Path(folder), pixels)


def task_report(
    classes: NDArray[Any],
    labels: NDArray[Any],
    probabilities: NDArray[np.float64],
    accepted: NDArray[np.bool_],
    images: Sequence[Any],
) -> TaskReport:
    """A report, of which the arguments are checked.

    Args:
        classes: as in `TaskReport`, like the other arguments.
        labels: of all images.
        probabilities: of all images.
        accepted: of all images.
        images: paths or numbers.

    Raises:
        InputError: no image is of a class of the learner.
    """
    report = TaskReport(classes, labels, probabilities, accepted, images)
    if not report.count:
        here, there = (", ".join(map(str, names[:5])) for names in (np.unique(labels), classes))
        raise InputError(
            f"no image is of a class of the learner: they are of {here}, and it has {there}"
        )
    return report

"""The classes of one visitor of the demo: pictures by class, and a learner fitted to them.

Pictures are kept as squares of the size that the learner resizes them to, so that memory is bounded
and no file has to stay. Sessions share the trained model alone, which does not change.
"""

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omnitraining.demo.class_folders import ClassFiles
from omnitraining.demo.pictures import Picture, Reader, sentences
from omnitraining.demo.predictions import Prediction, as_image, predict
from omnitraining.errors import CalibrationWarning, InputError
from omnitraining.evaluation import ENSEMBLE
from omnitraining.io.terminal import first_few
from omnitraining.learner import FewShotClassifier, TrainedModel, export
from omnitraining.learner.held_out import FitReport

CLASSES = 20
IMAGES = 20  # of one class
NAME = 80  # characters


@dataclass(frozen=True)
class Predictions:
    """Predictions for some pictures.

    Attributes:
        predictions: one for each picture.
        fit_seconds: time of fitting the pictures that were new; about 0 without any.
        seconds: time of the predictions.
    """

    predictions: list[Prediction]
    fit_seconds: float
    seconds: float


class Session:
    """Pictures by class, and a learner that is fitted to them when it has to predict.

    Args:
        trained: a trained model of images.

    Attributes:
        pictures: by class, in the order in which classes were added.

    Raises:
        InputError: the model is one of curves.
    """

    def __init__(self, trained: TrainedModel) -> None:
        """Start without classes."""
        self.trained, self.inputs = trained, trained.image_inputs
        self.side = self.inputs.stored
        self.pictures: dict[str, list[Picture]] = {}
        self._new: list[tuple[str, Picture]] = []  # to which the learner is not fitted yet
        self._learner: FewShotClassifier | None = None

    def add(self, name: str, pictures: Sequence[Picture]) -> None:
        """Add pictures to a class, old or new; all of them or none.

        Args:
            name: of the class.
            pictures: of the class.

        Raises:
            InputError: the name is missing or too long, there are no pictures, or too many pictures
                or classes.
        """
        name = " ".join(name.split())
        if not name:
            raise InputError("Give the class a name first.")
        if len(name) > NAME:
            raise InputError(f"The name has {len(name)} characters: {NAME} at most.")
        if not pictures:
            raise InputError(f"Choose one or more pictures of “{name}” first.")
        known = self.pictures.get(name, [])
        if not known and len(self.pictures) == CLASSES:
            raise InputError(f"There are {CLASSES} classes already, which is the most: remove one.")
        if len(known) + len(pictures) > IMAGES:
            raise InputError(
                f"“{name}” would have {len(known) + len(pictures)} pictures: {IMAGES} at most."
            )
        self.pictures[name] = [*known, *pictures]
        self._new += [(name, picture) for picture in pictures]

    def add_folders(self, found: ClassFiles) -> str:
        """Add the pictures of class folders; returns what was added and left out, in one line.

        Of a class with more pictures than are allowed, the first by name are taken.

        Args:
            found: files by class.

        Raises:
            InputError: there are too many classes, or no file is a picture; nothing is added then.
        """
        named = {name: files for name, files in found.classes.items() if len(name) <= NAME}
        count = len({*self.pictures, *named})
        if count > CLASSES:
            raise InputError(f"There would be {count} classes: {CLASSES} at most.")
        reader = Reader(self.inputs)
        room = {name: IMAGES - len(self.pictures.get(name, ())) for name in named}
        pictures = {name: reader.pictures(files, room[name]) for name, files in named.items()}
        problems = reader.problems + [
            f"“{name}” has {len(name)} characters: {NAME} at most."
            for name in found.classes
            if name not in named
        ]
        full = [
            f"“{name}” ({len(named[name])})"
            for name, taken in pictures.items()
            if len(taken) == room[name] < len(named[name])
        ]
        empty = [f"“{name}”" for name, taken in pictures.items() if not taken and room[name]]
        if not any(pictures.values()):
            raise InputError(sentences(problems) or "All these classes are full already.")
        for name, taken in pictures.items():
            if taken:
                self.add(name, taken)
        added = [taken for taken in pictures.values() if taken]
        words = [f"{counted(sum(map(len, added)), 'picture')} of {counted(len(added), 'class')}."]
        if full:
            words.append(f"A class takes {IMAGES} pictures, the first by name: {first_few(full)}.")
        if empty:
            words.append(f"No picture of {first_few(empty)}.")
        return " ".join([*words, *found.left_out, sentences(problems)]).strip()

    def remove(self, name: str) -> None:
        """Delete a class.

        Raises:
            InputError: there is no such class.
        """
        if name not in self.pictures:
            raise InputError("Choose the class to remove first.")
        del self.pictures[name]
        self._reset_learner()

    def clear(self) -> None:
        """Delete all classes."""
        self.pictures = {}
        self._reset_learner()

    def predict(self, pictures: Sequence[Picture]) -> Predictions:
        """Fit the learner to the pictures that are new, and predict others.

        Args:
            pictures: to classify, one or more.

        Raises:
            InputError: there are fewer than two classes, or the model cannot learn them.
        """
        start = time.perf_counter()
        learner = self.learner()
        fitted = time.perf_counter()
        predictions = predict(learner, pictures)
        return Predictions(predictions, fitted - start, time.perf_counter() - fitted)

    def report(self) -> FitReport | None:
        """What the fit measured on its pictures; None with fewer than two classes.

        Raises:
            InputError: the model cannot learn the classes.
        """
        return self.learner().fit_report_ if len(self.pictures) > 1 else None

    def learner(self) -> FewShotClassifier:
        """The learner, fitted to all pictures.

        Raises:
            InputError: as in `predict`.
        """
        if len(self.pictures) < 2:
            missing = "two classes" if not self.pictures else "one more class"
            raise InputError(f"Add {missing} first: there must be two or more to choose from.")
        learner = self._learner or FewShotClassifier(self.trained, ENSEMBLE)
        if self._new:
            names = [name for name, _ in self._new]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CalibrationWarning)  # shown on the page instead
                learner.partial_fit([as_image(picture) for _, picture in self._new], names)
            self._learner, self._new = learner, []
        return learner

    def save(self, folder: Path) -> Path:
        """Write the fitted learner to a file in a folder.

        Raises:
            InputError: as in `predict`, or the file cannot be written.
        """
        path = folder / "classes.learner"
        self.learner().save(path)
        return path

    def save_onnx(self, folder: Path) -> Path:
        """Write the fitted predictor as one ONNX file in a folder.

        Raises:
            InputError: as in `predict`, an algorithm cannot become ONNX, or a package is missing.
        """
        path = folder / "classes.onnx"
        export.save_predictor(self.learner(), path)
        return path

    def _reset_learner(self) -> None:
        self._learner = None
        self._new = [(name, picture) for name, many in self.pictures.items() for picture in many]


def counted(number: int, noun: str) -> str:
    """A number with its noun, as "1 picture" or "2 classes"."""
    plural = "classes" if noun == "class" else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"

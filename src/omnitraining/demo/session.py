"""The classes of one visitor of the demo: pictures by class, and a learner fitted to them.

Pictures are kept as squares of the size that the learner resizes them to, so that memory is bounded
and no file has to stay. Sessions share the trained model alone, which does not change.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from omnitraining.analysis.attention import heat, predictor_maps
from omnitraining.datasets.decoding import open_image
from omnitraining.errors import InputError
from omnitraining.evaluation import ENSEMBLE
from omnitraining.learner import FewShotClassifier, TrainedModel, export
from omnitraining.learner.inputs import ImageInputs

CLASSES = 20
IMAGES = 20  # of one class
NAME = 40  # characters
MEGABYTES = 20  # of one file
MEGAPIXELS = 50  # of one picture
SECONDS = 60  # for reading the pictures of one upload
ACCEPT_RATE = 0.95  # share of pictures of known classes that are not called unknown

Picture: TypeAlias = NDArray[np.uint8]
"""An image [3, S, S], where S is the side that the model resizes to."""


@dataclass(frozen=True)
class FlowPrediction:
    """The prediction of one flow, or of the ensemble.

    Attributes:
        flow: "pre", "joint", "meta" or "ensemble".
        probabilities: calibrated, by class.
        heat: evidence for the label that the ensemble predicts, [H, W] from 0 to 1; None of the
            ensemble, and of a network without feature maps.
    """

    flow: str
    probabilities: dict[str, float]
    heat: NDArray[np.float32] | None

    @property
    def label(self) -> str:
        """The most likely class."""
        return max(self.probabilities, key=self.probabilities.__getitem__)


@dataclass(frozen=True)
class Prediction:
    """The prediction of a model for a picture.

    Attributes:
        pixels: the picture as the network takes it, uint8 [C, H, W].
        flows: the prediction of each flow, and last that of the ensemble.
        unknown: whether the picture is unlike all classes; None if the model has no threshold.
        fit_seconds: time of fitting the pictures that were new; about 0 without any.
        seconds: time of the prediction.
    """

    pixels: NDArray[np.uint8]
    flows: list[FlowPrediction]
    unknown: bool | None
    fit_seconds: float
    seconds: float

    @property
    def label(self) -> str:
        """The class that the ensemble predicts."""
        return self.flows[-1].label


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

    def read(self, files: Sequence[Path | Image.Image]) -> list[Picture]:
        """Pictures of uploaded files or drawings; gray if the network takes gray images.

        Args:
            files: uploaded files, or Pillow images.

        Raises:
            InputError: a file is no image, too large, or reading takes too long.
        """
        start, pictures = time.monotonic(), []
        for file in files:
            if time.monotonic() - start > SECONDS:
                raise InputError(
                    f"Reading the pictures took more than {SECONDS} seconds: give fewer or smaller "
                    "ones."
                )
            pixels = self.inputs.colored(torch.from_numpy(_read(file, self.inputs)))
            pictures.append(pixels.expand(3, -1, -1).numpy())
        return pictures

    def add(self, name: str, pictures: Sequence[Picture]) -> None:
        """Add pictures to a class, old or new; all of them or none.

        Args:
            name: of the class.
            pictures: of it.

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

    def remove(self, name: str) -> None:
        """Forget a class.

        Raises:
            InputError: there is no such class.
        """
        if name not in self.pictures:
            raise InputError("Choose the class to remove first.")
        del self.pictures[name]
        self._forget()

    def clear(self) -> None:
        """Forget everything."""
        self.pictures = {}
        self._forget()

    def predict(self, picture: Picture) -> Prediction:
        """Fit the learner to the pictures that are new, and predict.

        Args:
            picture: to classify.

        Raises:
            InputError: there are fewer than two classes, or the model cannot learn them.
        """
        start = time.perf_counter()
        learner = self.learner()
        fitted = time.perf_counter()
        prediction = _predict(learner, picture)
        return Prediction(*prediction, fitted - start, time.perf_counter() - fitted)

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
            learner.partial_fit([_image(picture) for _, picture in self._new], names)
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

    def _forget(self) -> None:
        self._learner = None
        self._new = [(name, picture) for name, many in self.pictures.items() for picture in many]


def _read(file: Path | Image.Image, inputs: ImageInputs) -> Picture:
    if isinstance(file, Image.Image):
        return inputs.decoded(file)
    name = file.name
    if not file.is_file():
        raise InputError(f"{name} is not there any more: choose it again.")
    if file.stat().st_size > MEGABYTES * 2**20:
        raise InputError(f"{name} has more than {MEGABYTES} megabytes: give a smaller file.")
    try:
        with file.open("rb") as stream, open_image(stream) as image:
            pixels = image.width * image.height
    except Exception:
        pixels = 0  # decoding raises the error
    if pixels > MEGAPIXELS * 1e6:
        raise InputError(
            f"{name} has {pixels / 1e6:.0f} million pixels: {MEGAPIXELS} million at most."
        )
    try:
        return inputs.decoded(file)
    except InputError as error:
        raise InputError(f"{str(error).replace(str(file), name)}.") from error


def _image(picture: Picture) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0)))


@torch.no_grad()
def _predict(
    learner: FewShotClassifier, picture: Picture
) -> tuple[NDArray[np.uint8], list[FlowPrediction], bool | None]:
    """The input of the network, the predictions, and whether the picture is unlike all classes."""
    predictor, names = learner.predictor_, [str(name) for name in learner.classes_]
    pixels = learner.preprocess([_image(picture)])
    ensemble, similarity = predictor.predict_with_scores(pixels)
    by_flow = predictor.predict_per_flow(pixels)
    try:
        maps = predictor_maps(predictor, pixels, ensemble.argmax(1))
    except InputError:  # a network without feature maps
        maps = {}
    rows = [*by_flow.items(), *([(ENSEMBLE, ensemble)] if len(by_flow) > 1 else [])]
    flows = []
    for flow, probabilities in rows:
        shown = heat(maps[flow], pixels)[0].cpu().numpy() if flow in maps else None
        by_class = dict(zip(names, probabilities[0].tolist(), strict=True))
        flows.append(FlowPrediction(flow, by_class, shown))
    calibration, unknown = learner.calibration_, None
    if ENSEMBLE in calibration.similarity:
        shots = sum(learner.counts_.values()) / len(names)
        unknown = similarity.item() < calibration.threshold(ENSEMBLE, shots, ACCEPT_RATE)
    return (pixels[0] * 255).round().to(torch.uint8).cpu().numpy(), flows, unknown

"""What one visitor of the demo has taught: pictures by class, and the learner of them.

Pictures are kept as the squares that the learner would resize them to, so that memory is bounded
and no file has to stay. Nothing is shared between two sessions but the trained model, which does
not change.
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
from omnitraining.datasets.decoding import decode, opened
from omnitraining.errors import InputError
from omnitraining.evaluation import ENSEMBLE
from omnitraining.learner import FewShotClassifier, Trained, export

CLASSES = 20
IMAGES = 20  # of one class
NAME = 40  # characters
MEGABYTES = 20  # of one file
MEGAPIXELS = 50  # of one picture
SECONDS = 60  # in which the pictures of one upload must have been read
ACCEPTED = 0.95  # share of pictures of known classes that are not called strangers

Picture: TypeAlias = NDArray[np.uint8]
"""An image [3, S, S], where S is the side that the model resizes to."""


@dataclass(frozen=True)
class Opinion:
    """What one flow, or all of them together, thinks of a picture.

    Attributes:
        flow: "pre", "joint", "meta" or "ensemble".
        probabilities: calibrated, by class.
        heat: what speaks for the label of the answer, [H, W] from 0 to 1; None of an ensemble and
            of a network without maps.
    """

    flow: str
    probabilities: dict[str, float]
    heat: NDArray[np.float32] | None

    @property
    def label(self) -> str:
        """The most likely class."""
        return max(self.probabilities, key=self.probabilities.__getitem__)


@dataclass(frozen=True)
class Answer:
    """What the model thinks of a picture.

    Attributes:
        levels: the picture as the network sees it, uint8 [C, H, W].
        opinions: of each flow, and of all of them last.
        stranger: whether the picture is unlike all classes; None if the model cannot tell.
        fit_seconds: since the learner was asked to learn what is new; 0 if nothing was.
        ask_seconds: that the answer took.
    """

    levels: NDArray[np.uint8]
    opinions: list[Opinion]
    stranger: bool | None
    fit_seconds: float
    ask_seconds: float

    @property
    def label(self) -> str:
        """The answer."""
        return self.opinions[-1].label


class Session:
    """Pictures by class, and a learner that is fitted when it is asked.

    Args:
        trained: a trained model of images.

    Attributes:
        pictures: by class, in the order in which classes were added.

    Raises:
        InputError: the model is one of curves.
    """

    def __init__(self, trained: Trained) -> None:
        if trained.inputs is None:
            raise InputError(f"{trained.name} is a model of curves: the demo needs one of images")
        self.trained = trained
        self.inputs, self.side = trained.inputs, trained.inputs.stored
        self.pictures: dict[str, list[Picture]] = {}
        self._new: list[tuple[str, Picture]] = []  # what the learner has not learned yet
        self._learner: FewShotClassifier | None = None

    def read(self, files: Sequence[Path | Image.Image]) -> list[Picture]:
        """Pictures of uploaded files, or of drawings; gray where the network gets them so.

        Raises:
            InputError: a file is no image, too large, or reading takes too long.
        """
        start, found = time.monotonic(), []
        for file in files:
            if time.monotonic() - start > SECONDS:
                raise InputError(
                    f"Reading the pictures took more than {SECONDS} seconds: give fewer or smaller "
                    "ones."
                )
            pixels = self.inputs.colored(torch.from_numpy(_read(file, self.side)))
            found.append(pixels.expand(3, -1, -1).numpy())
        return found

    def add(self, name: str, pictures: Sequence[Picture]) -> None:
        """Add examples of a class, or a new class; all of them or none.

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

    def ask(self, picture: Picture) -> Answer:
        """Learn what is new, and answer.

        Raises:
            InputError: there are fewer than two classes, or the model cannot learn them.
        """
        start = time.perf_counter()
        learner = self.learner()
        learned = time.perf_counter()
        answer = _judge(self.trained, learner, picture)
        done = time.perf_counter()
        return Answer(*answer, learned - start, done - learned)

    def learner(self) -> FewShotClassifier:
        """The learner of all pictures.

        Raises:
            InputError: as in `ask`.
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
            InputError: as in `ask`, or the file cannot be written.
        """
        path = folder / "classes.learner"
        self.learner().save(path)
        return path

    def save_onnx(self, folder: Path) -> Path:
        """Write the fitted predictor as one ONNX file in a folder.

        Raises:
            InputError: as in `ask`, an algorithm cannot become ONNX, or a package is missing.
        """
        path = folder / "classes.onnx"
        export.save_predictor(self.learner(), path)
        return path

    def _forget(self) -> None:
        self._learner = None
        self._new = [(name, picture) for name, many in self.pictures.items() for picture in many]


def _read(file: Path | Image.Image, side: int) -> Picture:
    if isinstance(file, Image.Image):
        return decode(file, side)
    name = file.name
    if not file.is_file():
        raise InputError(f"{name} is not there any more: choose it again.")
    if file.stat().st_size > MEGABYTES * 2**20:
        raise InputError(f"{name} has more than {MEGABYTES} megabytes: give a smaller file.")
    try:
        with file.open("rb") as stream, opened(stream) as image:
            pixels = image.width * image.height
    except Exception:
        pixels = 0  # decode says what is wrong with it
    if pixels > MEGAPIXELS * 1e6:
        raise InputError(
            f"{name} has {pixels / 1e6:.0f} million pixels: {MEGAPIXELS} million at most."
        )
    try:
        return decode(file, side)
    except InputError as error:
        raise InputError(f"{str(error).replace(str(file), name)}.") from error


def _image(picture: Picture) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0)))


@torch.no_grad()
def _judge(
    trained: Trained, learner: FewShotClassifier, picture: Picture
) -> tuple[NDArray[np.uint8], list[Opinion], bool | None]:
    """The picture as it was seen, the opinions, and whether it is unlike all classes."""
    predictor, names = learner.predictor_, [str(name) for name in learner.classes_]
    levels = learner.levels([_image(picture)])
    vote, familiarity = predictor.judge(levels)
    flows = predictor.opinions(levels)
    try:
        maps = predictor_maps(predictor, levels, vote.argmax(1))
    except InputError:  # a network that has no places
        maps = {}
    opinions = []
    for flow, probabilities in [*flows.items(), *([(ENSEMBLE, vote)] if len(flows) > 1 else [])]:
        shown = heat(maps[flow], levels)[0].cpu().numpy() if flow in maps else None
        odds = dict(zip(names, probabilities[0].tolist(), strict=True))
        opinions.append(Opinion(flow, odds, shown))
    calibration = trained.calibration
    stranger = None
    if ENSEMBLE in calibration.familiarity:
        shots = sum(learner.counts_.values()) / len(names)
        stranger = familiarity.item() < calibration.threshold(ENSEMBLE, shots, ACCEPTED)
    seen = (levels[0] * 255).round().to(torch.uint8).cpu().numpy()
    return seen, opinions, stranger

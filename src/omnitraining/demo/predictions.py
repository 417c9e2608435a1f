"""Predictions of a fitted learner, by flow, with what a page shows of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from omnitraining.analysis.attention import heat, predictor_maps
from omnitraining.demo.pictures import Picture
from omnitraining.errors import InputError
from omnitraining.evaluation import ENSEMBLE
from omnitraining.learner import FewShotClassifier

ACCEPT_RATE = 0.95  # share of pictures of known classes that are not called unknown
PERHAPS = 0.7  # probability below which a label is only "perhaps" right


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

    @property
    def probability(self) -> float:
        """The probability of the most likely class."""
        return self.probabilities[self.label]


@dataclass(frozen=True)
class Prediction:
    """The prediction of a model for a picture.

    Attributes:
        pixels: the picture as the network takes it, uint8 [C, H, W].
        flows: the prediction of each flow, and last the ensemble's.
        unknown: whether the picture is unlike all classes; None if the model has no threshold.
    """

    pixels: NDArray[np.uint8]
    flows: list[FlowPrediction]
    unknown: bool | None

    @property
    def label(self) -> str:
        """The class that the ensemble predicts."""
        return self.flows[-1].label

    @property
    def probability(self) -> float:
        """The ensemble's probability of the label."""
        return self.flows[-1].probability


@torch.no_grad()
def predict(learner: FewShotClassifier, pictures: Sequence[Picture]) -> list[Prediction]:
    """Predict pictures.

    Args:
        learner: fitted.
        pictures: one or more.
    """
    predictor, names = learner.predictor_, [str(name) for name in learner.classes_]
    inputs = learner.preprocess([as_image(picture) for picture in pictures])
    ensemble, similarity = predictor.predict_with_scores(inputs)
    by_flow = predictor.predict_per_flow(inputs)
    try:
        maps = {
            flow: heat(evidence, inputs).cpu().numpy()
            for flow, evidence in predictor_maps(predictor, inputs, ensemble.argmax(1)).items()
        }
    except InputError:  # a network without feature maps
        maps = {}
    rows = [*by_flow.items(), *([(ENSEMBLE, ensemble)] if len(by_flow) > 1 else [])]
    threshold = _threshold(learner)
    pixels = (inputs * 255).round().to(torch.uint8).cpu().numpy()
    return [
        Prediction(
            pixels[index],
            [
                FlowPrediction(
                    flow,
                    dict(zip(names, probabilities[index].tolist(), strict=True)),
                    maps[flow][index] if flow in maps else None,
                )
                for flow, probabilities in rows
            ],
            None if threshold is None else similarity[index].item() < threshold,
        )
        for index in range(len(pictures))
    ]


def as_image(picture: Picture) -> Image.Image:
    """A picture as an image of Pillow."""
    return Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0)))


def _threshold(learner: FewShotClassifier) -> float | None:
    """The similarity below which a picture is unlike all classes; None if it was not measured."""
    calibration = learner.calibration_
    if ENSEMBLE not in calibration.similarity:
        return None
    shots = sum(learner.counts_.values()) / len(learner.classes_)
    return calibration.threshold(ENSEMBLE, shots, ACCEPT_RATE)

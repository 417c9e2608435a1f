"""From a trained model to a fitted few-shot predictor: fit, predict, save, load."""

from omnitraining.learner.classifier import FewShotClassifier
from omnitraining.learner.loading import load
from omnitraining.learner.predictor import FlowPredictor, Predictor
from omnitraining.learner.regressor import FewShotRegressor
from omnitraining.learner.trained import TrainedModel

__all__ = [
    "FewShotClassifier",
    "FewShotRegressor",
    "FlowPredictor",
    "Predictor",
    "TrainedModel",
    "load",
]

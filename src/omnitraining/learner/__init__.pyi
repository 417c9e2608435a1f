"""The public names, each with its module: for type checkers, and for ``__init__.py``."""

from omnitraining.learner.classifier import FewShotClassifier as FewShotClassifier
from omnitraining.learner.loading import load as load
from omnitraining.learner.predictor import FlowPredictor as FlowPredictor
from omnitraining.learner.predictor import Predictor as Predictor
from omnitraining.learner.regressor import FewShotRegressor as FewShotRegressor
from omnitraining.learner.trained import TrainedModel as TrainedModel

__all__: list[str]

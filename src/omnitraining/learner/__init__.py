"""From a trained model to a fitted few-shot predictor: fit, predict, save, load.

Names are imported when they are first used, so that training starts without scikit-learn.
"""

from omnitraining.lazy import getter, listed

_MODULES = listed(__file__)
__all__ = sorted(_MODULES)
__getattr__ = getter(__name__, _MODULES)

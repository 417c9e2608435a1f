"""Few-shot image data sets in the layouts in which they are met on disk."""

from omnitraining.datasets.dataset import DataSet
from omnitraining.datasets.layouts import find, read

__all__ = ["DataSet", "find", "read"]

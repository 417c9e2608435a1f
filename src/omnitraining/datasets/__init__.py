"""Image data sets for few-shot learning: the layouts on disk, decoding, and built-in glyphs."""

from omnitraining.datasets.dataset import DataSet
from omnitraining.datasets.layouts import find, read

__all__ = ["DataSet", "find", "read"]

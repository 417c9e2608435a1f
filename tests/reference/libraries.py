"""timm, torchvision and transformers in the tests, also where torchvision's operators do not load.

The torchvision of the package index is built for CUDA. Beside a torch for the CPU its compiled part
cannot be loaded, and it fails when it is imported, since two of its operators are missing. They
serve detection alone; here they are declared, so that models and transforms can be tested.
"""

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch


@cache
def _declared() -> Any:
    """The library of operators, which lasts as long as it is held."""
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        return None
    try:
        torch.ops.load_library(str(Path(spec.origin).with_name("_C.so")))
    except OSError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return library
    return None


def library(name: str) -> Any:
    """A library; the test is skipped where it is not installed.

    Args:
        name: "timm", "torchvision" or "transformers".
    """
    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    _declared()
    return import_module(name)

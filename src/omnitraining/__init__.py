"""Omni-Training: one network, three flows, trained by pre-training and meta-training at once.

Names are imported when they are first used, so that the command line starts without torch. They
are listed once, in ``__init__.pyi``, where type checkers look for them too.
"""

from typing import Any

from omnitraining.lazy import getter, listed

_MODULES = listed(__file__)
__all__ = sorted(_MODULES)

_FORMERLY = {"LabelledImages": "LabeledImages"}
"""Today's name of a public class, by its former one."""

_attribute = getter(__name__, _MODULES)


def __getattr__(name: str) -> Any:
    return _attribute(_FORMERLY.get(name, name))


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})

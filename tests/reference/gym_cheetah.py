"""Gymnasium's own HalfCheetah-v5, without the packages that it needs for pictures alone."""

import sys
from types import ModuleType
from typing import Any

import pytest


def make(patch: pytest.MonkeyPatch) -> Any:
    """An environment; call it in an empty folder, where MuJoCo may leave its log."""
    for name in ("glfw", "imageio"):
        if name not in sys.modules:
            patch.setitem(sys.modules, name, ModuleType(name))
    from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv

    return HalfCheetahEnv()

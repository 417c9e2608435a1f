"""A HalfCheetah before and after adaptation, as a filmstrip or as an animation.

Outlines of the bodies are drawn with matplotlib, from the positions that MuJoCo computes: its own
renderer needs OpenGL, which many machines without a screen lack.
"""

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from torch import Tensor

from omnitraining.experiments.figures.canvas import save, subplots
from omnitraining.experiments.figures.navigation_paths import actor, moment
from omnitraining.model import Model
from omnitraining.tasks.reinforcement.environment import Environment
from omnitraining.tasks.reinforcement.half_cheetah import (
    SECONDS,
    HalfCheetah,
    HalfCheetahVelocity,
    Physics,
)
from omnitraining.tasks.reinforcement.problem import TEST_SEED, Flow, Reinforcement

FRAMES = 6
FRONT, BACK = "#0072B2", "#56B4E9"
"""Colors of the legs."""


def draw(
    problem: Reinforcement,
    model: Model,
    flow: Flow,
    rates: Sequence[float],
    path: Path,
    task: int = 0,
) -> Path:
    """The first trajectory in a test task, before adaptation above and after it below.

    Args:
        problem: on a HalfCheetah.
        model: trained on it.
        flow: whose policy adapts.
        rates: learning rate of each gradient step of the adaptation.
        path: the picture; animated if it ends in .gif.
        task: which of the fixed test tasks.
    """
    env = problem.environment
    if not isinstance(env, HalfCheetah):
        raise TypeError("a filmstrip needs a run on a HalfCheetah")
    goal = problem.fixed_tests(task + 1)[task:]
    recorder = _Recorder(env)
    recorded = copy.copy(problem)
    recorded.environment = recorder
    random, shots = torch.Generator().manual_seed(TEST_SEED), []
    for step, (rollout, _) in enumerate(recorded.adaptation(model, flow, goal, rates, random)):
        if step in (0, len(rates)):
            label = f"{moment(step)}: mean return {rollout.returns().item():.3g}"
            shots.append((label, np.stack(recorder.positions)))
    skeleton = _Skeleton(env.physics)
    title = f"{actor(flow)}, {_goal(env, goal.item())}"
    if path.suffix.lower() == ".gif":
        _animation(skeleton, shots, title).save(str(path), PillowWriter(fps=10), dpi=70)
        return path
    return save(_strip(skeleton, shots, title), path, dpi=110)


def _goal(env: HalfCheetah, goal: float) -> str:
    if isinstance(env, HalfCheetahVelocity):
        return f"goal: run at {goal:.2f} m/s"
    return "goal: run forwards" if goal > 0 else "goal: run backwards"


class _Recorder(Environment):
    """A HalfCheetah that records joint positions [9] of the first copy, of every step."""

    def __init__(self, env: HalfCheetah) -> None:
        self.env, self.name, self.horizon = env, env.name, env.horizon
        self.state_dim, self.action_dim = env.state_dim, env.action_dim
        self.positions: list[Any] = []

    def sample_tasks(self, count: int, random: torch.Generator) -> Tensor:
        return self.env.sample_tasks(count, random)

    def reset(self, tasks: Tensor, random: torch.Generator) -> Tensor:
        states = self.env.reset(tasks, random)
        self.positions = [self.env.physics.positions[0].copy()]
        return states

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        outcome = self.env.step(actions)
        self.positions.append(self.env.physics.positions[0].copy())
        return outcome


class _Skeleton:
    """Outlines of the body's shapes for given joint positions."""

    def __init__(self, physics: Physics) -> None:
        self.mujoco, self.model = physics.mujoco, physics.model
        self.data = self.mujoco.MjData(self.model)
        capsule = self.mujoco.mjtGeom.mjGEOM_CAPSULE
        self.shapes = [g for g in range(self.model.ngeom) if self.model.geom_type[g] == capsule]
        self.names = [self.model.geom(shape).name for shape in self.shapes]

    def outlines(self, positions: Any) -> list[Any]:
        """Outlines [points, 2] of all shapes, in meters forwards and upwards."""
        self.data.qpos[:] = positions
        self.mujoco.mj_kinematics(self.model, self.data)
        return [self._outline(shape) for shape in self.shapes]

    def _outline(self, shape: int) -> Any:
        radius, half, _ = self.model.geom_size[shape]
        center = self.data.geom_xpos[shape][[0, 2]]
        along = self.data.geom_xmat[shape].reshape(3, 3)[[0, 2], 2]
        heading = math.atan2(along[1], along[0])
        around = heading + np.linspace(-math.pi / 2, math.pi / 2, 9)
        cap = radius * np.stack([np.cos(around), np.sin(around)], 1)
        return np.concatenate([center + half * along + cap, center - half * along - cap])


class _Frame:
    """Axes that show 2.4 meters of ground, with the body in the middle."""

    def __init__(self, axis: Axes, skeleton: _Skeleton) -> None:
        self.axis, self.skeleton = axis, skeleton
        axis.axhspan(-1, 0, color="0.85", zorder=0)
        axis.set_ylim(-0.2, 1.6)
        axis.set_aspect("equal")
        axis.set_yticks([])
        axis.tick_params(labelsize=7)
        self.shapes = [
            Polygon([(0, 0)], ec="white", lw=0.4, fc=color, zorder=order)
            for color, order in map(_color, skeleton.names)
        ]
        for shape in self.shapes:
            axis.add_patch(shape)

    def show(self, positions: Any, caption: str) -> None:
        x = float(positions[0])
        for shape, outline in zip(self.shapes, self.skeleton.outlines(positions), strict=True):
            shape.set_xy(outline)
        self.axis.set_xlim(x - 1.2, x + 1.2)
        self.axis.set_xticks(range(math.ceil(x - 1.2), math.floor(x + 1.2) + 1))
        self.axis.set_title(caption, fontsize=9)


def _color(name: str) -> tuple[str, int]:
    """Color and order of a shape: the front leg is nearer than the back leg."""
    if name in ("torso", "head"):
        return "0.35", 1
    return (FRONT, 2) if name.startswith("f") else (BACK, 1)


def _caption(positions: Any, t: int) -> str:
    return f"{t * SECONDS:.1f} s, {positions[t][0] - positions[0][0]:+.1f} m"


def _strip(skeleton: _Skeleton, shots: list[tuple[str, Any]], title: str) -> Figure:
    """A row per label and positions [steps + 1, 9], of evenly spaced moments."""
    size = 2.2 * FRAMES, 2.1 * len(shots) + 0.5
    figure, axes = subplots(len(shots), FRAMES, size)
    for (label, positions), row in zip(shots, axes, strict=True):
        moments = np.linspace(0, len(positions) - 1, FRAMES).round().astype(int)
        for axis, t in zip(row, moments, strict=True):
            _Frame(axis, skeleton).show(positions[t], _caption(positions, t))
        row[0].set_ylabel(label.replace(": ", "\n"), fontsize=9)
    figure.suptitle(f"{title}; numbers on the ground are meters", fontsize=11)
    figure.tight_layout()
    return figure


def _animation(skeleton: _Skeleton, shots: list[tuple[str, Any]], title: str) -> FuncAnimation:
    """The same as frames for a tenth of a second each, at the speed of the simulation."""
    figure, axes = subplots(len(shots), 1, (5, 4 * len(shots)))
    frames = [_Frame(axis, skeleton) for axis in axes[:, 0]]

    def show(t: int) -> list[Artist]:
        for (label, positions), frame in zip(shots, frames, strict=True):
            frame.show(positions[t], f"{label}\n{_caption(positions, t)}")
        return []

    figure.suptitle(title, fontsize=11)
    figure.subplots_adjust(hspace=0.35)
    every = round(0.1 / SECONDS)
    moments = range(0, len(shots[0][1]), every)
    return FuncAnimation(figure, show, frames=moments, init_func=lambda: [])

"""Paths of 2D Navigation before adaptation and after each gradient step."""

from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure

from omnitraining.experiments.figures.canvas import save, subplots
from omnitraining.experiments.figures.lines import color
from omnitraining.model import Model
from omnitraining.tasks.reinforcement.problem import TEST_SEED, Flow, Reinforcement

TASKS, PATHS = 5, 3
"""The first test tasks, and the first trajectories of each."""


def draw(
    problem: Reinforcement, model: Model, flow: Flow, rates: Sequence[float], path: Path
) -> Path:
    """Save the figure of `paths`, with the same arguments, to a file."""
    return save(paths(problem, model, flow, rates), path)


def paths(problem: Reinforcement, model: Model, flow: Flow, rates: Sequence[float]) -> Figure:
    """One column per gradient step; a color per test task (the first ones, not chosen).

    Args:
        problem: on `Navigation`.
        model: trained on it.
        flow: whose policy adapts.
        rates: learning rate of each gradient step.
    """
    tasks, random = problem.fixed_tests(TASKS), torch.Generator().manual_seed(TEST_SEED)
    goals = tasks.tolist()
    size = 3.1 * len(rates) + 3.1, 3.8
    figure, (axes,) = subplots(1, len(rates) + 1, size, sharex=True, sharey=True)
    rollouts = problem.adaptation(model, flow, tasks, rates, random)
    for step, (axis, (trajectories, _)) in enumerate(zip(axes, rollouts, strict=True)):
        for task, goal in enumerate(goals):
            for states, valid in zip(
                trajectories.states[task, :PATHS], trajectories.valid[task, :PATHS], strict=True
            ):
                x, y = states[valid].cpu().T.tolist()
                axis.plot(x, y, color=color(task), lw=0.8, alpha=0.7)
            axis.plot(*goal, "*", color=color(task), ms=17, mec="white", mew=1.2, zorder=3)
        axis.plot(0, 0, "o", color="black", ms=5, zorder=3)
        mean = trajectories.returns().mean().item()
        axis.set_title(f"{moment(step)}\nmean return {mean:.3g}", fontsize=10)
        axis.set_aspect("equal")
        axis.grid(alpha=0.3)
    axes[0].set_xlim(-0.75, 0.75)
    axes[0].set_xticks([-0.5, 0, 0.5])
    axes[0].set_ylim(-0.75, 0.75)
    title = (
        f"{actor(flow)}: {PATHS} paths from the center in each of {len(goals)} tasks, stars: goals"
    )
    figure.suptitle(title, fontsize=11)
    figure.tight_layout()
    return figure


def actor(flow: Flow) -> str:
    """A label for whose policy acts."""
    return f"{flow}-flow" if isinstance(flow, str) else f"mean of {', '.join(flow)}"


def moment(count: int) -> str:
    """A label for the time after a number of gradient steps."""
    return "before adaptation" if count == 0 else f"after {count} step{'s' if count > 1 else ''}"

"""Picture of a transferability report: where every flow carries, and what fine-tuning adds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omnitraining.analysis.transfer import STEPS, Transfer
from omnitraining.experiments.figures.canvas import save, subplots
from omnitraining.experiments.figures.lines import MARKERS, color


def draw(found: Transfer, path: Path) -> Path:
    """A line of panels per number of shots: accuracy by images; gain by steps of fine-tuning.

    Args:
        found: what was measured.
        path: the picture.
    """
    places = list(dict.fromkeys(key.benchmark for key in found.frozen.cells))
    steps = [f"{step} step" + "s" * (step > 1) for step in STEPS[1:]]
    figure, axes = subplots(
        len(found.shots),
        2,
        figsize=(10.5, 1.0 + 3.2 * len(found.shots)),
        width_ratios=(len(places), len(steps)),
        layout="constrained",
    )
    for (left, right), shots in zip(axes, found.shots, strict=True):
        cells = [found.frozen_cell(place, shots) for place in places]
        heads = {h: [(c.mean(h), c.interval(h)) for c in cells] for h in cells[0].scores}
        _points(left, heads, places)
        left.set_ylabel(f"{shots}-shot, {found.frozen.unit}")
        gains = {
            flow: [(gap.mean, gap.interval) for gap in found.gains(flow, shots)]
            for flow in found.flows
            if found.tuned.cells  # fine-tuning may have been left out
        }
        _points(right, gains, steps)
        right.axhline(0, color="0.6", lw=1, zorder=0)
        right.set_ylabel("gain, points")
    axes[0, 0].set_title("frozen flows, new heads", fontsize=10)
    axes[0, 1].set_title(f"{found.own}: whole flows fine-tuned", fontsize=10)
    axes[0, 0].legend(frameon=False, fontsize=9)
    return save(figure, path)


def _points(axis: Any, series: dict[str, list[tuple[float, float]]], names: Sequence[str]) -> None:
    """Points with intervals, side by side at every name."""
    for index, (label, values) in enumerate(series.items()):
        offset = (index - (len(series) - 1) / 2) * 0.13
        axis.errorbar(
            [place + offset for place in range(len(names))],
            [mean for mean, _ in values],
            [width for _, width in values],
            fmt=MARKERS[index % len(MARKERS)],
            color=color(index),
            capsize=3,
            label=label,
        )
    axis.set_xticks(range(len(names)), names)
    axis.set_xlim(-0.5, len(names) - 0.5)
    axis.grid(axis="y", alpha=0.3)

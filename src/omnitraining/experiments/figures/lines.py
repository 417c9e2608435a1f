"""Colors and markers of rows, and a line with its interval."""

from collections.abc import Sequence
from typing import Any

from omnitraining.experiments.record import Mean

COLORS = ("#D55E00", "#0072B2", "#000000", "#009E73", "#999999", "#CC79A7", "#56B4E9", "#E69F00")
"""Distinct for color-blind readers too (Okabe and Ito 2008)."""
MARKERS = "osv^DP*X"


def color(index: int) -> str:
    """The color of the row of an index."""
    return COLORS[index % len(COLORS)]


def line_with_band(
    axis: Any, x: Sequence[float], values: Sequence[Mean], index: int, label: str
) -> None:
    """The means of a row, and a band of their 95 % intervals.

    Args:
        axis: of matplotlib.
        x: places of the means.
        values: of the row.
        index: of the row, for its color and marker.
        label: in the legend.
    """
    low = [value.mean - value.interval for value in values]
    high = [value.mean + value.interval for value in values]
    line_between(axis, x, [value.mean for value in values], (low, high), index, label)


def line_between(
    axis: Any,
    x: Sequence[float],
    means: Sequence[float],
    bounds: tuple[Sequence[float], Sequence[float]],
    index: int,
    label: str,
) -> None:
    """The means of a row, and a band from the lower to the upper bounds; as `line_with_band`."""
    marker = MARKERS[index % len(MARKERS)]
    axis.plot(x, means, marker=marker, ms=5, color=color(index), label=label, zorder=3)
    axis.fill_between(x, *bounds, color=color(index), alpha=0.2, linewidth=0)

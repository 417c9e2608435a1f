"""What curves of several rows share: colors, markers, and a line with its interval."""

from collections.abc import Sequence
from typing import Any

COLORS = ("#D55E00", "#0072B2", "#000000", "#009E73", "#999999", "#CC79A7", "#56B4E9", "#E69F00")
"""Told apart by color-blind readers too (Okabe and Ito 2008)."""
MARKERS = "osv^DP*X"


def color(index: int) -> str:
    """Of the row of an index."""
    return COLORS[index % len(COLORS)]


def line_with_band(
    axis: Any, x: Sequence[float], values: Sequence[dict[str, Any]], index: int, label: str
) -> None:
    """The means of a row, and a band of their 95 % intervals.

    Args:
        axis: of matplotlib.
        x: places of the means.
        values: each with ``mean`` and ``interval``, as records have them.
        index: of the row, for its color and marker.
        label: in the legend.
    """
    means = [value["mean"] for value in values]
    low = [value["mean"] - value["interval"] for value in values]
    high = [value["mean"] + value["interval"] for value in values]
    line_between(axis, x, means, (low, high), index, label)


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

"""Figure 10: each flow of Omni-Training against its counterpart that is trained alone."""

import re
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from omnitraining.errors import InputError
from omnitraining.experiments.figures.lines import line_between, line_with_band
from omnitraining.experiments.figures.pairs import configuration
from omnitraining.runs.run import Run

Record = dict[str, Any]
Curve = list[tuple[int, float]]

ALONE = {"pre": "pre-training", "meta": "meta-training"}
"""The method of the counterpart of each flow."""
COLORS = {"pre": (0, 1), "meta": (3, 5)}
"""Of a flow and of its counterpart, as numbers of `lines.COLORS`."""
ACROSS = 4


def counterparts(record: Record) -> dict[str, str]:
    """The row that is trained alone as each flow of the reference is, by flow.

    Args:
        record: as `omnitraining.experiments.reproduction` writes it.
    """
    methods = {row: configuration(own)["method"] for row, own in record["rows"].items()}
    found = {flow: [r for r, m in methods.items() if m == alone] for flow, alone in ALONE.items()}
    return {flow: rows[0] for flow, rows in found.items() if rows}


def training_loss(run: Run, flow: str) -> Curve:
    """The loss of a flow by training step: its mean since the validation before.

    Raises:
        InputError: as in `validation`.
    """
    reported, curve, before = run.load_metrics().get(f"l_{flow}", []), [], 0
    for step, _ in validation(run, flow):
        curve.append((step, mean(loss for at, loss in reported if before < at <= step)))
        before = step
    return curve


def validation(run: Run, flow: str) -> Curve:
    """The validation score of a flow by training step.

    Where both student and teacher are judged, it is the better one's.

    Raises:
        InputError: there are no such scores in the run.
    """
    metrics, best = run.load_metrics(), dict[int, float]()
    for weights in ("student", "teacher"):
        for step, score in metrics.get(f"validation_{weights}_{flow}", []):
            best[step] = max(score, best.get(step, score))
    if not best:
        raise InputError(
            f"{run.path} has no validation scores of its {flow}-flow, which were not logged once: "
            "train it anew"
        )
    return sorted(best.items())


def draw(record: Record, runs: dict[str, list[Run]], path: Path) -> Path:
    """Per setting, losses and validation accuracies; then accuracies by steps of fine-tuning.

    Args:
        record: as `reproduction` writes it; its first row has several flows.
        runs: by row, those of each setting one after the other.
        path: the picture.

    Raises:
        InputError: a run has no validation scores of single flows.
    """
    omni, alone = record["reference"], counterparts(record)
    settings, tuned = [*_settings(record, omni)], _tuned(record, omni)
    down = len(settings) + -(-len(tuned) // ACROSS)
    figure, grid = plt.subplots(
        down, ACROSS, figsize=(16, 0.9 + 3.2 * down), squeeze=False, layout="constrained"
    )
    for line, setting in zip(grid, settings, strict=False):
        pairs = zip((line[:2], line[2:]), ALONE, strict=True)
        for (left, right), flow in pairs:
            for index, row in enumerate([omni, *([alone[flow]] if flow in alone else [])]):
                own = _of_setting(record, runs, row, setting)
                look = COLORS[flow][index], _label(row, flow, row == omni)
                _between_seeds(left, [training_loss(run, flow) for run in own], *look)
                _between_seeds(right, [validation(run, flow) for run in own], *look)
            left.set_ylabel("training loss")
            right.set_ylabel("validation accuracy, %")
            for axis in (left, right):
                axis.set_xlabel("training steps")
                axis.set_title(" ".join(filter(None, (setting, f"({flow}-flow)"))), fontsize=10)
    rest = list(grid[len(settings) :].flat)
    for axis, (place, cells) in zip(rest, tuned.items(), strict=False):
        for flow, other in alone.items():
            for index, row in zip(COLORS[flow], (omni, other), strict=True):
                if not all(cell in record["rows"][row]["cells"] for cell in cells.values()):
                    continue
                heads = [
                    record["rows"][row]["cells"][cell]["heads"][flow] for cell in cells.values()
                ]
                line_with_band(
                    axis, range(len(cells)), heads, index, _label(row, flow, row == omni)
                )
        axis.set_xticks(range(len(cells)), [f"{steps}" for steps in cells])
        axis.set_xlabel("gradient steps of fine-tuning")
        axis.set_ylabel(f"test {record['unit']}")
        axis.set_title(f"{place}, fine-tuned", fontsize=10)
    for axis in rest[len(tuned) :]:
        axis.set_visible(False)
    return _finish(figure, record, path)


def _finish(figure: Any, record: Record, path: Path) -> Path:
    named: dict[str, Any] = {}
    for axis in figure.axes:
        axis.grid(alpha=0.3)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
        handles, labels = axis.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
    seeds = record["seeds"]
    bands = "bands over training: lowest to highest seed; " if seeds > 1 else ""
    words = f"mean of {seeds} seeds; " if seeds > 1 else "1 seed; "
    figure.suptitle(
        f"{record['title']}\n{words}{bands}bands of fine-tuning: 95 % intervals over tasks",
        fontsize=11,
    )
    figure.legend(named.values(), named.keys(), ncol=4, loc="outside lower center", frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _settings(record: Record, row: str) -> Sequence[str]:
    return [*record["rows"][row].get("settings", {"": None})]


def _of_setting(record: Record, runs: dict[str, list[Run]], row: str, setting: str) -> list[Run]:
    """The runs of a row in a setting; none if it has none there."""
    seeds, settings = record["seeds"], _settings(record, row)
    if setting not in settings:
        return []
    first = seeds * settings.index(setting)
    return runs[row][first : first + seeds]


def _tuned(record: Record, row: str) -> dict[str, dict[int, str]]:
    """Cells of fine-tuning with the most shots: by benchmark and by steps."""
    parts = [
        (found[1], int(found[2]), int(found[3]), cell)
        for cell in record["rows"][row]["cells"]
        if (found := re.fullmatch(r"(.+) (\d+)-shot, (\d+) steps", cell))
    ]
    most = max((shots for _, shots, _, _ in parts), default=0)
    places: dict[str, dict[int, str]] = {}
    for place, shots, steps, cell in parts:
        if shots == most:
            places.setdefault(f"{place} {shots}-shot", {})[steps] = cell
    return places


def _label(row: str, flow: str, is_omni: bool) -> str:
    return f"{row}, {flow}-flow" if is_omni else row


def _between_seeds(axis: Any, curves: list[Curve], index: int, label: str) -> None:
    """The mean curve of some seeds, and a band from the lowest to the highest."""
    if not curves:
        return
    steps = [step for step, _ in curves[0]]
    values = [[value for _, value in found] for found in zip(*curves, strict=True)]
    bounds = [min(each) for each in values], [max(each) for each in values]
    line_between(axis, steps, [mean(each) for each in values], bounds, index, label)

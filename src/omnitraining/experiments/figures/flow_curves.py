"""Figure 10: each flow of Omni-Training against its counterpart that is trained alone."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from omnitraining.errors import InputError
from omnitraining.evaluation import CellKey
from omnitraining.experiments.figures.canvas import one_legend, open_sides, save, subplots
from omnitraining.experiments.figures.lines import line_between, line_with_band
from omnitraining.experiments.figures.tables import section as table_section
from omnitraining.experiments.record import Record
from omnitraining.experiments.tables import markdown, seeds_in_short, short_number
from omnitraining.runs.run import Run

Curve = list[tuple[int, float]]

ALONE = {"pre": "pre-training", "meta": "meta-training"}
"""The method of the counterpart of each flow."""
COLORS = {"pre": (0, 1), "meta": (3, 5)}
"""Colors of a flow and of its counterpart, as numbers of `lines.COLORS`."""
ACROSS = 4


def counterparts(record: Record) -> dict[str, str]:
    """By flow of the reference, the row that is trained as this flow alone is."""
    methods = {name: row.training.config["method"] for name, row in record.rows.items()}
    rows = {flow: [r for r, m in methods.items() if m == alone] for flow, alone in ALONE.items()}
    return {flow: names[0] for flow, names in rows.items() if names}


def section(record: Record, picture: str) -> str:
    """The table, the picture, and each flow beside its counterpart.

    Args:
        record: with several flows in its first row.
        picture: file beside the record; empty if there is none.
    """
    reference = record.rows[record.reference]
    lines = [
        [title, *(short_number(row.cells[key].heads[flow]) if key in row.cells else ""
                  for key in record.keys)]
        for flow, other in counterparts(record).items()
        for title, row in (
            (f"{record.reference}, {flow}-flow alone", reference),
            (other, record.rows[other]),
        )
    ]  # fmt: skip
    header = ["", *(str(key.without_ways) for key in record.keys)]
    words = "Flow by flow; cells with steps are of fine-tuned flows:\n\n"
    return f"{table_section(record, picture)}\n{words}{markdown(header, lines)}"


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

    Where both student and teacher are evaluated, it is the better one's.

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
            "train it again"
        )
    return sorted(best.items())


def draw(record: Record, runs: dict[str, list[Run]], path: Path) -> Path:
    """Per setting, losses and validation accuracies; then accuracies by steps of fine-tuning.

    Args:
        record: with several flows in its first row.
        runs: by row, setting after setting.
        path: the picture.

    Raises:
        InputError: a run has no validation scores of single flows.
    """
    omni, alone = record.reference, counterparts(record)
    settings, tuned = [*_settings(record, omni)], _tuned(record, omni)
    down = len(settings) + -(-len(tuned) // ACROSS)
    size = 16, 0.9 + 3.2 * down
    figure, grid = subplots(down, ACROSS, figsize=size, layout="constrained")
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
                own_cells = record.rows[row].cells
                if not all(key in own_cells for key in cells.values()):
                    continue
                heads = [own_cells[key].heads[flow] for key in cells.values()]
                line_with_band(
                    axis, range(len(cells)), heads, index, _label(row, flow, row == omni)
                )
        axis.set_xticks(range(len(cells)), [f"{steps}" for steps in cells])
        axis.set_xlabel("gradient steps of fine-tuning")
        axis.set_ylabel(f"test {record.unit}")
        axis.set_title(f"{place}, fine-tuned", fontsize=10)
    for axis in rest[len(tuned) :]:
        axis.set_visible(False)
    return _finish(figure, record, path)


def _finish(figure: Any, record: Record, path: Path) -> Path:
    for axis in figure.axes:
        axis.grid(alpha=0.3)
        open_sides(axis)
    several = record.seeds > 1
    bands = "bands over training: lowest to highest seed; " if several else ""
    words = f"{'mean of ' * several}{seeds_in_short(record)}; "
    figure.suptitle(
        f"{record.title}\n{words}{bands}bands of fine-tuning: 95 % intervals over tasks",
        fontsize=11,
    )
    one_legend(figure, ncol=4, loc="outside lower center")
    return save(figure, path, dpi=110)


def _settings(record: Record, row: str) -> Sequence[str]:
    return [*record.rows[row].trainings]


def _of_setting(record: Record, runs: dict[str, list[Run]], row: str, setting: str) -> list[Run]:
    """The runs of a row in a setting; none if it has none there."""
    settings = _settings(record, row)
    if setting not in settings:
        return []
    first = record.seeds * settings.index(setting)
    return runs[row][first : first + record.seeds]


def _tuned(record: Record, row: str) -> dict[str, dict[int, CellKey]]:
    """Cells of fine-tuning with the most shots: by benchmark and by steps."""
    keys = [key for key in record.rows[row].cells if key.steps is not None]
    most = max((key.shots or 0 for key in keys), default=0)
    places: dict[str, dict[int, CellKey]] = {}
    for key in keys:
        if key.shots == most and key.steps is not None:
            places.setdefault(str(replace(key, steps=None)), {})[key.steps] = key
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

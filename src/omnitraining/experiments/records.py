"""Records of experiments: results and provenance of the runs of every row and setting."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
import yaml

from omnitraining.errors import InputError
from omnitraining.evaluation import ENSEMBLE, Cell, Evaluation, half_width, paired_difference
from omnitraining.experiments.claims import Claim, differences, training_cost
from omnitraining.io.files import write_json
from omnitraining.runs.run import Run

Values: TypeAlias = dict[str, Any]

OF_PROVENANCE = (
    "omnitraining",
    "commit",
    "python",
    "torch",
    "machine",
    "device",
    "cpus",
    "threads",
)
"""What a record says of the program and the machine that made a row."""

Results: TypeAlias = dict[str, dict[str, list[Run]]]
"""Finished runs by row and setting, one for each seed; the setting is "" where there is none."""


@dataclass(frozen=True)
class Shown:
    """What of the runs goes into a record.

    Attributes:
        benchmarks: whose cells are kept, as they are called in the record; all if empty.
        called: by setting, other names of its benchmarks, where settings share one.
        cells: by setting, the endings of the cells that are kept; all where there are none.
        parts: names of the evaluations of a run, whose cells stand together.
    """

    benchmarks: Sequence[str] = ()
    called: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    cells: Mapping[str, Sequence[str]] = field(default_factory=dict)
    parts: Sequence[str] = ("test",)


def make_record(
    facts: Values,
    results: Results,
    shown: Shown,
    beside: dict[str, Values],
    claims: list[Claim],
) -> tuple[Values, dict[str, Evaluation]]:
    """Everything a table or figure needs, and where it came from.

    Args:
        facts: what the record says first: experiment, title, paper, command.
        results: finished runs; the first row is the reference of differences.
        shown: what of them goes into the record.
        beside: what rows say beside what was measured, as what the paper prints.
        claims: differences between rows that are kept, task by task.

    Returns:
        The record, and the evaluation of every row, pooled over seeds.

    Raises:
        InputError: results cannot be joined or pooled.
    """
    by_seed = evaluations(results, shown)
    pooled = {row: pool(several) for row, several in by_seed.items()}
    reference, best = next(iter(pooled.items()))
    record: Values = {
        **facts,
        "unit": best.unit,
        "higher_is_better": best.higher_is_better,
        "reference": reference,
        "tasks": max((len(cell.scores[ENSEMBLE]) for cell in best.cells.values()), default=0),
        "seeds": len(by_seed[reference]),
        "intervals": "over tasks and seeds" if len(by_seed[reference]) > 1 else "over tasks",
        "rows": rows_of(results, by_seed, pooled, beside),
        "claims": differences(claims, by_seed),
    }
    return record, pooled


def write_record(path: Path, record: Values) -> None:
    """Write a record, so that the file is either old or new, never half."""
    write_json(path, record)


def evaluations(results: Results, shown: Shown) -> dict[str, list[Evaluation]]:
    """Results by row and seed, with the cells of all settings together.

    Args:
        results: finished runs.
        shown: what of them is kept.

    Raises:
        InputError: two settings have the same cell.
    """
    by_row = {}
    for row, settings in results.items():
        columns = {
            setting: [_evaluation(run, setting, shown) for run in runs]
            for setting, runs in settings.items()
        }
        seeds = len(next(iter(columns.values())))
        kept = shown.benchmarks
        by_row[row] = [join({s: c[i] for s, c in columns.items()}, kept) for i in range(seeds)]
    return by_row


def _evaluation(run: Run, setting: str, shown: Shown) -> Evaluation:
    """What a run was judged by, with the names that benchmarks have in the record."""
    parts = [run.load_evaluation(name) for name in shown.parts]
    called, endings = shown.called.get(setting, {}), tuple(shown.cells.get(setting, ("",)))
    cells = {}
    for name, cell in (item for part in parts for item in part.cells.items()):
        if not name.endswith(endings):
            continue
        benchmark, space, rest = name.partition(" ")
        cells[called.get(benchmark, benchmark) + space + rest] = cell
    return replace(parts[0], cells=cells)


def join(by_setting: dict[str, Evaluation], show: Sequence[str]) -> Evaluation:
    """One evaluation with the cells of several settings.

    Raises:
        InputError: two of them have the same cell.
    """
    cells: dict[str, Cell] = {}
    origin: dict[str, str] = {}
    for setting, evaluation in by_setting.items():
        for name, cell in evaluation.cells.items():
            if show and name.split()[0] not in show:
                continue
            if name in cells:
                raise InputError(
                    f"settings {origin[name]} and {setting} both have results on {name!r}: "
                    "they must be judged on different benchmarks"
                )
            cells[name], origin[name] = cell, setting
    first = next(iter(by_setting.values()))
    return Evaluation(first.unit, first.higher_is_better, cells)


def pool(evaluations: list[Evaluation]) -> Evaluation:
    """One evaluation of several seeds: every task's score is its mean over seeds.

    Raises:
        InputError: the seeds were judged on different tasks.
    """
    first = evaluations[0]
    cells = {}
    for name, cell in first.cells.items():
        others = [evaluation.cells[name] for evaluation in evaluations]
        if any(other.tasks_hash != cell.tasks_hash for other in others):
            raise InputError(f"seeds were judged on different tasks of {name!r}")
        cells[name] = Cell(
            cell.tasks_hash,
            {
                head: torch.tensor([other.scores[head] for other in others]).mean(0).tolist()
                for head in cell.scores
            },
        )
    return Evaluation(first.unit, first.higher_is_better, cells)


def rows_of(
    results: Results,
    by_seed: dict[str, list[Evaluation]],
    pooled: dict[str, Evaluation],
    beside: dict[str, Values],
) -> Values:
    """What a table or figure needs of every row; numbers are rounded.

    Args:
        results: finished runs.
        by_seed: their evaluations, by row and seed.
        pooled: the mean of these over seeds; the first row is the reference of differences.
        beside: what rows say beside what was measured, as what the paper prints.
    """
    reference = next(iter(pooled))
    rows: Values = {}
    for row, evaluation in pooled.items():
        cells = {}
        for name, cell in evaluation.cells.items():

            def scores(of: str, head: str = ENSEMBLE, name: str = name) -> list[list[float]]:
                return [one.cells[name].scores[head] for one in by_seed[of]]

            heads = {
                head: {
                    "mean": _round(cell.mean(head)),
                    "interval": _round(half_width(torch.tensor(scores(row, head)))),
                    "by_seed": [_round(one.cells[name].mean(head)) for one in by_seed[row]],
                }
                for head in cell.scores
            }
            cells[name] = {"tasks": cell.tasks_hash, "heads": heads}
            rival = pooled[reference].cells.get(name)
            if rival is not None and rival.tasks_hash == cell.tasks_hash:
                gap = paired_difference(scores(reference), scores(row))
                cells[name]["reference_minus_this"] = {
                    "mean": _round(gap.mean),
                    "interval": _round(gap.interval),
                }
        facts = {setting: _facts(runs) for setting, runs in results[row].items()}
        measured = {"cells": cells, **facts.get("", {"settings": facts})}
        rows[row] = measured | beside.get(row, {})
    return rows


def costs(record: Values) -> dict[str, list[str]]:
    """Multiply-adds and seconds of the trainings of every row, in each of its settings.

    Milliseconds of a step stand beside them where ``omni reproduce --cost`` has timed all rows by
    turns: seconds of whole trainings have whatever else the machine did in them.

    Args:
        record: as `make_record` makes it.

    Returns:
        Texts by row; none where nothing was counted, as in records of early versions.
    """
    found: dict[str, list[str]] = {}
    is_counted = False
    for row, results in record["rows"].items():
        found[row] = []
        for setting, facts in results.get("settings", {"": results}).items():
            cost, seconds = training_cost(facts), facts.get("seconds", [])
            count = "no count" if cost is None else f"{cost / 1e12:.3g}e12 multiply-adds"
            text = f"{count}, {sum(seconds) / max(1, len(seconds)):.0f} s"
            step = results.get("seconds_per_step", {}).get(setting)
            found[row].append(text + (f" ({1000 * step:.3g} ms a step)" if step else ""))
            is_counted |= cost is not None
    return found if is_counted else {}


def _facts(runs: list[Run]) -> Values:
    """How the runs of a row were made."""
    facts = [run.load_provenance() for run in runs]
    return {
        "config": _without_places(
            yaml.safe_load((runs[0].path / "config.yaml").read_text("utf-8"))
        ),
        "seconds": [round(f["seconds"], 1) for f in facts],
        "steps": [f["step"] for f in facts],
        "multiply_adds_per_step": facts[0].get("multiply_adds"),
        "precision": facts[0].get("precision", "float32"),
        "peak_mib": [f["peak_mib"] for f in facts],
        "best_step": [f["best_step"] for f in facts],
        "validation": [_round(f["best"]) for f in facts],
        "provenance": {name: facts[0].get(name) for name in OF_PROVENANCE},
    }


def _without_places(config: Values) -> Values:
    """A configuration without the folders of the machine that it ran on."""
    if "data" in config["problem"].get("init_args", {}):
        config["problem"]["init_args"]["data"] = "DIR"
    for name in ("teacher_run", "start_from"):
        if config.get(name):
            config[name] = Path(config[name]).name
    return config


def _round(value: float) -> float:
    return float(f"{value:.4g}")

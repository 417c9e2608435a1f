"""From finished runs to a record: results pooled over seeds, costs, provenance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import torch
import yaml

from omnitraining.errors import InputError
from omnitraining.evaluation import (
    ENSEMBLE,
    Cell,
    CellKey,
    Evaluation,
    half_width,
)
from omnitraining.experiments.claims import Claim, comparisons
from omnitraining.experiments.record import (
    Column,
    Mean,
    Record,
    Row,
    TrainingFacts,
    Values,
    rounded,
)
from omnitraining.runs.run import Run

PROVENANCE = (
    "omnitraining",
    "commit",
    "python",
    "torch",
    "machine",
    "device",
    "cpus",
    "threads",
)
"""Entries of a run's provenance that go into a record."""

Results: TypeAlias = dict[str, dict[str, list[Run]]]
"""Finished runs by row and setting, one for each seed; the setting is "" where there is none."""


@dataclass(frozen=True)
class Selection:
    """The cells of the runs that go into a record.

    Attributes:
        benchmarks: names in the record; all if empty.
        rename: by setting, other names of its benchmarks, where settings share one.
        shots: by setting, the numbers of shots that are kept; all where there are none.
        evaluations: names of the evaluations of a run, whose cells stand together.
    """

    benchmarks: Sequence[str] = ()
    rename: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    shots: Mapping[str, Sequence[int]] = field(default_factory=dict)
    evaluations: Sequence[str] = ("test",)


def make_record(
    header: Values,
    results: Results,
    selection: Selection,
    beside: Mapping[str, Row],
    claims: Sequence[Claim],
) -> Record:
    """Everything a table or figure needs, and where it came from.

    Args:
        header: experiment, title, paper, command and other fields of `Record`.
        results: finished runs; the first row is the reference of differences.
        selection: the cells that go into the record.
        beside: what rows have beside what was measured, as numbers of the paper.
        claims: differences between rows that are kept, task by task.

    Raises:
        InputError: results cannot be joined or pooled.
    """
    by_seed = evaluations(results, selection)
    pooled = {row: pool(several) for row, several in by_seed.items()}
    reference, best = next(iter(pooled.items()))
    seeds = len(by_seed[reference])
    rows = {}
    for name, evaluation in pooled.items():
        row = replace(beside.get(name, Row()))
        row.cells = {
            key: _column(key, by_seed[name], by_seed[reference]) for key in evaluation.cells
        }
        row.trainings = {setting: _facts(runs) for setting, runs in results[name].items()}
        rows[name] = row
    return Record(
        **header,
        unit=best.unit,
        higher_is_better=best.higher_is_better,
        reference=reference,
        tasks=max((len(cell.scores[ENSEMBLE]) for cell in best.cells.values()), default=0),
        seeds=seeds,
        intervals="over tasks and seeds" if seeds > 1 else "over tasks",
        rows=rows,
        claims=comparisons(claims, by_seed),
    )


def evaluations(results: Results, selection: Selection) -> dict[str, list[Evaluation]]:
    """Results by row and seed, with the cells of all settings together.

    Raises:
        InputError: two settings have the same cell.
    """
    by_row = {}
    for row, settings in results.items():
        columns = {
            setting: [_evaluation(run, setting, selection) for run in runs]
            for setting, runs in settings.items()
        }
        seeds = len(next(iter(columns.values())))
        kept = selection.benchmarks
        by_row[row] = [join({s: c[i] for s, c in columns.items()}, kept) for i in range(seeds)]
    return by_row


def _evaluation(run: Run, setting: str, selection: Selection) -> Evaluation:
    """The evaluations of a run in one, with the names that benchmarks have in the record."""
    parts = [run.load_evaluation(name) for name in selection.evaluations]
    rename, shots = selection.rename.get(setting, {}), selection.shots.get(setting, ())
    cells = {
        replace(key, benchmark=rename.get(key.benchmark, key.benchmark)): cell
        for part in parts
        for key, cell in part.cells.items()
        if not shots or key.shots in shots
    }
    return replace(parts[0], cells=cells)


def join(by_setting: Mapping[str, Evaluation], benchmarks: Sequence[str]) -> Evaluation:
    """One evaluation with the cells of several settings.

    Args:
        by_setting: evaluations of the settings.
        benchmarks: that are kept; all if empty.

    Raises:
        InputError: two of them have the same cell.
    """
    cells: dict[CellKey, Cell] = {}
    origin: dict[CellKey, str] = {}
    for setting, evaluation in by_setting.items():
        for key, cell in evaluation.cells.items():
            if benchmarks and key.benchmark not in benchmarks:
                continue
            if key in cells:
                raise InputError(
                    f"settings {origin[key]} and {setting} both have results on '{key}': "
                    "they must be evaluated on different benchmarks"
                )
            cells[key], origin[key] = cell, setting
    first = next(iter(by_setting.values()))
    return Evaluation(first.unit, first.higher_is_better, cells)


def pool(evaluations: Sequence[Evaluation]) -> Evaluation:
    """One evaluation of several seeds: every task's score is its mean over seeds.

    Raises:
        InputError: the seeds were evaluated on different tasks.
    """
    first = evaluations[0]
    cells = {}
    for key, cell in first.cells.items():
        others = [evaluation.cells[key] for evaluation in evaluations]
        if any(other.tasks_hash != cell.tasks_hash for other in others):
            raise InputError(f"seeds were evaluated on different tasks of '{key}'")
        means = {
            head: torch.tensor([other.scores[head] for other in others]).mean(0).tolist()
            for head in cell.scores
        }
        cells[key] = Cell(cell.tasks_hash, means)
    return Evaluation(first.unit, first.higher_is_better, cells)


def _column(key: CellKey, own: Sequence[Evaluation], reference: Sequence[Evaluation]) -> Column:
    """Rounded results of a row in one cell, and the reference's lead where both met its tasks."""
    cell, other = own[0].cells[key], reference[0].cells.get(key)
    made = column_of(
        cell.tasks_hash, {h: [one.cells[key].scores[h] for one in own] for h in cell.scores}
    )
    if other is None or other.tasks_hash != cell.tasks_hash:
        return made
    return made.compared([one.cells[key].scores[ENSEMBLE] for one in reference])


def column_of(tasks: str, scores: Mapping[str, list[list[float]]]) -> Column:
    """Rounded results in one cell.

    Args:
        tasks: hash of the test tasks.
        scores: of each head, by seed and task [S, T].
    """
    heads = {}
    for head, each in scores.items():
        values = torch.tensor(each, dtype=torch.float64)
        by_seed = tuple(map(rounded, values.mean(1).tolist()))
        heads[head] = Mean(rounded(values.mean().item()), rounded(half_width(values)), by_seed)
    return Column(tasks, heads, scores=dict(scores))


def _facts(runs: Sequence[Run]) -> TrainingFacts:
    """How the runs of a row were trained."""
    facts = [run.load_provenance() for run in runs]
    configs = [yaml.safe_load((run.path / "config.yaml").read_text("utf-8")) for run in runs]
    return TrainingFacts(
        config=_without_folders(configs[0]),
        seeds=[config["seed"] for config in configs],
        seconds=[round(f["seconds"], 1) for f in facts],
        steps=[f["step"] for f in facts],
        multiply_adds_per_step=facts[0].get("multiply_adds"),
        precision=facts[0].get("precision", "float32"),
        peak_mib=[f["peak_mib"] for f in facts],
        best_step=[f["best_step"] for f in facts],
        validation=[rounded(f["best"]) for f in facts],
        provenance={name: facts[0].get(name) for name in PROVENANCE},
    )


def _without_folders(config: Values) -> Values:
    """A configuration without the folders of the machine that it ran on."""
    if "data" in config["problem"].get("init_args", {}):
        config["problem"]["init_args"]["data"] = "DIR"
    for name in ("teacher_run", "start_from"):
        if config.get(name):
            config[name] = Path(config[name]).name
    return config

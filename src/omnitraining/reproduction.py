"""Whole experiments: train every row for every seed, judge, and draw a table and a figure.

An experiment is one YAML file in ``experiments/``: what of the paper it reproduces, a common
configuration, and per row what differs. Its results go into one record, from which tables and
figures are drawn.
"""

import importlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import yaml

from omnitraining.display import TrainingDisplay, comparison_table, show, validation_table
from omnitraining.errors import InputError
from omnitraining.evaluation import Cell, Evaluation, half_width, paired_difference
from omnitraining.experiment import changed_fields, evaluate_run, parse, train_run
from omnitraining.runs import Run

Values = dict[str, Any]


@dataclass(frozen=True)
class Suite:
    """An experiment of several rows.

    A row may say ``continues: ROW``: it is that row trained on for more steps, which with a
    constant learning rate gives the same weights as training it afresh, at less cost.

    Attributes:
        name: of the file.
        title: what it shows, in a line.
        paper: what the paper reports, in words.
        time: how long it takes, and where that was measured.
        config: fields common to all rows.
        rows: per row, the fields that differ; the first row is the reference of differences.
        smoke: fields of the tiny variant.
        seeds: seeds of weights and samples.
        draw: module of ``omnitraining.analysis`` whose ``draw`` makes the figure; empty for a
            search, which is judged by validation alone.
        folder: default folder of runs, where experiments share them.
    """

    name: str
    title: str
    paper: str
    time: str
    config: Values
    rows: dict[str, Values]
    smoke: Values
    seeds: list[int]
    draw: str
    folder: str = ""


def suites() -> list[Suite]:
    """All shipped experiments, by name."""
    folder = resources.files("omnitraining") / "experiments"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".yaml")), key=lambda f: f.name)
    return [Suite(f.name.removesuffix(".yaml"), **yaml.safe_load(f.read_text())) for f in files]


def find_suite(name: str) -> Suite:
    """The experiment of a name.

    Raises:
        InputError: there is none.
    """
    found = {suite.name: suite for suite in suites()}
    if name not in found:
        raise InputError(f"no experiment {name!r}: choose from {', '.join(found)}")
    return found[name]


def reproduce(
    name: str,
    folder: Path | None = None,
    smoke: bool = False,
    seeds: list[int] | None = None,
    only: list[str] | None = None,
) -> Path:
    """Run an experiment; runs that are there are kept, unfinished ones resumed.

    Args:
        name: of the experiment.
        folder: where runs, record and figure go.
        smoke: the tiny variant.
        seeds: instead of the experiment's own.
        only: train only these rows, and draw nothing.

    Returns:
        The record.

    Raises:
        InputError: there is no such experiment or row, or a run in the folder has another
            configuration.
    """
    suite = find_suite(name)
    for row in only or []:
        if row not in suite.rows:
            raise InputError(f"{name} has no row {row!r}: choose from {', '.join(suite.rows)}")
    folder = folder or Path("runs") / ((suite.folder or name) + ("-smoke" if smoke else ""))
    print(f"{name}: {suite.title}\n  paper: {suite.paper}\n  time: {suite.time}", flush=True)
    used = seeds or suite.seeds[: 1 if smoke else None]
    results: dict[str, list[Run]] = {}
    for seed in used:
        for row, fields in suite.rows.items():
            if only and row not in only:
                continue
            if before := fields.get("continues"):
                _take_over(folder / f"{before}-{seed}", folder / f"{row}-{seed}")
            fields = _fields(suite, row)
            values = merge(suite.config, fields, suite.smoke if smoke else {}, {"seed": seed})
            run = _finish(folder / f"{row}-{seed}", values, 20 if smoke else 600)
            results.setdefault(row, []).append(run)
    path = folder / f"{name}.json"
    if not only:
        pooled = {row: pool([r.load_evaluation() for r in runs]) for row, runs in results.items()}
        record = _record(suite, results, pooled, smoke)
        path.write_text(json.dumps(record, indent=1) + "\n")
        if suite.draw:
            show(comparison_table(pooled))
            drawing = importlib.import_module(f"omnitraining.analysis.{suite.draw}")
            print(f"figure: {drawing.draw(record, results, folder / f'{name}.png')}")
        else:
            show(validation_table(name, {r: v["validation"] for r, v in record["rows"].items()}))
        print(f"record: {path}")
    return path


def _fields(suite: Suite, row: str) -> Values:
    """What differs in a row, with what differs in the row that it continues."""
    fields = dict(suite.rows[row])
    before = fields.pop("continues", None)
    return merge(_fields(suite, before), fields) if before else fields


def _take_over(before: Path, folder: Path) -> None:
    """Start a run from where another one ended."""
    if folder.exists():
        return
    if not (before / "provenance.json").is_file():
        raise InputError(f"{folder} goes on from {before}, which is not trained: train it first")
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name in ("last.safetensors", "best.safetensors", "metrics.csv"):
        shutil.copy(before / name, part / name)
    part.rename(folder)


def _finish(folder: Path, values: Values, tasks: int) -> Run:
    """A trained and judged run of a configuration."""
    config = parse(values)
    if (folder / "config.yaml").is_file() and (changed := changed_fields(Run(folder), config)):
        raise InputError(
            f"{folder} holds a run with another {', '.join(changed)}: choose another --out"
        )
    if not (folder / "provenance.json").is_file():
        with TrainingDisplay(folder.name) as progress:
            train_run(config, folder, resume=folder.exists(), progress=progress)
    run = Run(folder)
    if not (folder / "evaluations" / "test.json").is_file():
        evaluate_run(run, tasks)
    return run


def merge(*parts: Mapping[str, Any]) -> Values:
    """Nested dictionaries over one another; later ones win. A changed class drops its options."""
    merged: Values = {}
    for part in parts:
        for key, value in part.items():
            below = merged.get(key)
            if isinstance(value, Mapping) and isinstance(below, Mapping):
                other = value.get("class_path", below.get("class_path"))
                same = other == below.get("class_path")
                merged[key] = merge(below if same else {}, value)
            else:
                merged[key] = merge(value) if isinstance(value, Mapping) else value
    return merged


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


def _record(
    suite: Suite, results: dict[str, list[Run]], pooled: dict[str, Evaluation], smoke: bool
) -> Values:
    """Everything a table or figure needs, and where it came from; numbers are rounded."""
    reference, best = next(iter(pooled.items()))
    rows: Values = {}
    for row, evaluation in pooled.items():
        runs = results[row]
        by_seed = [run.load_evaluation() for run in runs]
        cells: Values = {}
        for name, cell in evaluation.cells.items():
            heads = {
                head: {
                    "mean": _round(cell.mean(head)),
                    "interval": _round(half_width(torch.tensor(scores))),
                    "by_seed": [_round(one.cells[name].mean(head)) for one in by_seed],
                }
                for head, scores in cell.scores.items()
            }
            gap = paired_difference(best.cells[name].scores["ensemble"], cell.scores["ensemble"])
            cells[name] = {
                "tasks": cell.tasks_hash,
                "heads": heads,
                "reference_minus_this": {
                    "mean": _round(gap.mean),
                    "interval": _round(gap.interval),
                },
            }
        facts = [json.loads((run.path / "provenance.json").read_text()) for run in runs]
        rows[row] = {
            "config": yaml.safe_load((runs[0].path / "config.yaml").read_text()),
            "cells": cells,
            "seconds": [round(f["seconds"], 1) for f in facts],
            "peak_mib": [f["peak_mib"] for f in facts],
            "best_step": [f["best_step"] for f in facts],
            "validation": [_round(f["best"]) for f in facts],
            "provenance": {
                k: facts[0][k] for k in ("commit", "torch", "device", "cpus", "threads")
            },
        }
    return {
        "experiment": suite.name,
        "title": suite.title,
        "paper": suite.paper,
        "command": f"omni reproduce {suite.name}" + (" --smoke" if smoke else ""),
        "unit": best.unit,
        "higher_is_better": best.higher_is_better,
        "reference": reference,
        "tasks": max((len(cell.scores["ensemble"]) for cell in best.cells.values()), default=0),
        "seeds": len(results[reference]),
        "rows": rows,
    }


def _round(value: float) -> float:
    return float(f"{value:.4g}")

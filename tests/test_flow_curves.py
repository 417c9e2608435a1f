"""Figures 10 and 11: what is drawn of the runs, against numbers written by hand."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from omnitraining.errors import InputError
from omnitraining.experiments.figures import canvas, flow_attention, flow_curves
from omnitraining.experiments.record import from_json
from omnitraining.runs.run import Run

HEADER = "step,name,value\n"
OMNI = """\
2,l_pre,3.0
4,l_pre,2.0
4,l_meta,1.5
4,validation_student,50.0
4,validation_student_pre,40.0
4,validation_student_meta,45.0
4,validation_teacher,51.0
4,validation_teacher_pre,42.0
4,validation_teacher_meta,44.0
6,l_pre,1.0
6,l_meta,1.0
6,validation_student,60.0
6,validation_student_pre,55.0
6,validation_student_meta,56.0
"""


def run_of(folder: Path, rows: str) -> Run:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("seed: 0\n")
    (folder / "metrics.csv").write_text(HEADER + rows)
    return Run(folder)


def test_losses_are_means_since_the_validation_before_and_the_better_weights_count(
    tmp_path: Path,
) -> None:
    run = run_of(tmp_path / "omni", OMNI)
    assert flow_curves.training_loss(run, "pre") == [(4, 2.5), (6, 1.0)]
    assert flow_curves.training_loss(run, "meta") == [(4, 1.5), (6, 1.0)]
    assert flow_curves.validation(run, "pre") == [(4, 42.0), (6, 55.0)]
    assert flow_curves.validation(run, "meta") == [(4, 45.0), (6, 56.0)]


def test_runs_without_scores_of_flows_are_one_line(tmp_path: Path) -> None:
    run = run_of(tmp_path / "old", "4,l_pre,2.0\n4,validation_student,50.0\n")
    with pytest.raises(InputError, match="has no validation scores of its pre-flow"):
        flow_curves.validation(run, "pre")
    (run.path / "metrics.csv").write_text("step,name,value\nx,y,z\n")
    with pytest.raises(InputError, match=r"metrics\.csv is missing or damaged"):
        run.load_metrics()


def cell(**means: float) -> dict[str, Any]:
    return {
        "tasks": "h",
        "heads": {head: {"mean": mean, "interval": 1.0} for head, mean in means.items()},
    }


def row(method: str, **means: float) -> dict[str, Any]:
    """A row of one setting whose cell after a step is lower by one."""
    return {
        "settings": {"here": {"config": {"method": method}}},
        "cells": {
            f"cub 5-way {shots}-shot, {steps} steps": cell(
                **{head: mean + shots - steps for head, mean in means.items()}
            )
            for shots in (1, 5)
            for steps in (0, 1)
        },
    }


def test_every_flow_is_drawn_beside_its_counterpart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {
        "experiment": "flows", "title": "Flows", "paper": "nothing", "command": "omni",
        "reference": "omni", "seeds": 2, "tasks": 9, "unit": "accuracy %", "higher_is_better": True,
        "rows": {
            "omni": row("omni-training", pre=50, meta=60, ensemble=70),
            "alone": row("pre-training", pre=40, ensemble=40),
            "episodes": row("meta-training", meta=30, ensemble=30),
        },
    }  # fmt: skip
    record = from_json(values)
    assert flow_curves.counterparts(record) == {"pre": "alone", "meta": "episodes"}
    names = {"omni": OMNI, "alone": OMNI, "episodes": OMNI}
    runs = {
        name: [run_of(tmp_path / f"{name}-{seed}", rows.replace(",3.0", f",{3 + seed}"))
               for seed in (0, 1)]
        for name, rows in names.items()
    }  # fmt: skip
    figures: list[Any] = []

    def saved(figure: Any, path: Path, **options: Any) -> Path:
        figures.append(figure)
        return canvas.save(figure, path, **options)

    monkeypatch.setattr(flow_curves, "save", saved)
    path = flow_curves.draw(record, runs, tmp_path / "a.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    (figure,) = figures
    drawn = [
        {line.get_label(): line.get_xydata().tolist() for line in axis.lines}
        for axis in figure.axes
        if axis.get_visible()
    ]
    loss, accuracy, meta_loss, meta_accuracy, tuned = drawn
    assert loss == {"omni, pre-flow": [[4, 2.75], [6, 1]], "alone": [[4, 2.75], [6, 1]]}
    assert list(accuracy) == list(loss) and accuracy["alone"] == [[4, 42], [6, 55]]
    assert list(meta_loss) == list(meta_accuracy) == ["omni, meta-flow", "episodes"]
    assert tuned == {
        "omni, pre-flow": [[0, 55], [1, 54]], "alone": [[0, 45], [1, 44]],
        "omni, meta-flow": [[0, 65], [1, 64]], "episodes": [[0, 35], [1, 34]],
    }  # fmt: skip
    assert [axis.get_xlabel() for axis in figure.axes[:5]] == ["training steps"] * 4 + [
        "gradient steps of fine-tuning"
    ]
    band = figure.axes[0].collections[0].get_datalim(figure.axes[0].transData)
    assert (band.y0, band.y1) == (1.0, 3.0), "from the lowest to the highest seed"


def test_attention_is_drawn_of_the_first_run_of_each_row_the_reference_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    runs = {n: [run_of(tmp_path / f"{n}-{s}", "") for s in (0, 1)] for n in ("omni", "alone")}
    grid = "omnitraining.experiments.figures.attention_grid"
    monkeypatch.setattr(f"{grid}.first_task", lambda run, count: (run.name, count))
    monkeypatch.setattr(f"{grid}.rows_of_task", lambda source, *task: [(source, task)])
    monkeypatch.setattr(f"{grid}.draw", lambda rows, path: asked.extend(rows) or path)
    monkeypatch.setattr(flow_attention, "find", lambda path, trust: path.name)
    path = flow_attention.draw(SimpleNamespace(reference="omni"), runs, tmp_path / "a.png")
    assert path == tmp_path / "a.png"
    assert asked == [("alone-0", ("omni-0", 8)), ("omni-0", ("omni-0", 8))]

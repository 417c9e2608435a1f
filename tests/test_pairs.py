"""The figure of algorithms alone and inside Omni-Training, and experiments that are like others."""

from pathlib import Path
from typing import Any

import pytest

from omnitraining.experiments.experiment import find_experiment
from omnitraining.experiments.figures import pairs
from omnitraining.experiments.record import Record, from_json

PROTO, GNN = {"class_path": "ProtoNet"}, {"class_path": "GNN"}
PLAIN, NOISY = {"class_path": "Conv4"}, {"class_path": "FeatureWise"}


def row(method: str, meta: object, *numbers: tuple[float, float], backbone: object = PLAIN) -> Any:
    names = ("birds 5-way 1-shot", "birds 5-way 5-shot", "cars 5-way 1-shot")
    cells = {
        name: {"tasks": name, "heads": {"ensemble": {"mean": mean, "interval": interval}}}
        for name, (mean, interval) in zip(names, numbers, strict=False)
    }
    return {
        "cells": cells,
        "config": {"method": method, "metatraining": meta, "backbone": backbone},
    }


@pytest.fixture
def record() -> Record:
    noisy = row("meta-training", PROTO, (10.0, 1.0), backbone=NOISY)
    rows = {
        "ft-proto": noisy,
        "omni-proto": row("omni-training", PROTO, (60.0, 1.0), (80.0, 1.0), (50.0, 1.0)),
        "omni-gnn": row("omni-training", GNN, (40.0, 1.0)),
        "baseline": row("pre-training", PROTO, (59.0, 1.0), (81.0, 1.0), (45.0, 1.0)),
        "protonet": row("meta-training", PROTO, (55.0, 1.0), (77.0, 2.5)),
    }
    return from_json(
        {
            "experiment": "birds", "title": "birds", "paper": "nothing", "command": "omni",
            "unit": "accuracy %", "higher_is_better": True, "reference": "omni-proto",
            "tasks": 600, "seeds": 1, "rows": rows,
        }
    )  # fmt: skip


def test_a_row_is_paired_with_its_algorithm_alone_on_the_same_backbone(record: Record) -> None:
    assert pairs.pairs(record) == {"omni-proto": "protonet"}


def test_leads_count_cells_above_and_clearly_above(record: Record) -> None:
    assert pairs.leads(record) == [
        ("omni-proto", "protonet", 2, 2, 1),  # 60 against 55 ± 2; 80 against 77 ± 3.5
        ("omni-proto", "baseline", 3, 2, 1),  # 1 above, 1 below, 5 above
    ]


def test_rows_of_several_settings_are_paired_too(record: Record) -> None:
    for results in record.rows.values():
        results.trainings = {"one": results.training, "two": results.training}
    assert pairs.pairs(record) == {"omni-proto": "protonet"}


def test_the_figure_is_drawn_with_cells_missing(record: Record, tmp_path: Path) -> None:
    assert pairs.draw(record, {}, tmp_path / "pairs.png").stat().st_size > 10_000
    for name in ("protonet", "baseline", "ft-proto"):
        del record.rows[name]
    assert pairs.draw(record, {}, tmp_path / "few.png").is_file()


def test_an_experiment_like_another_has_its_rows_and_its_own() -> None:
    two, four, five, seven = (find_experiment(f"photo-table{number}") for number in (2, 4, 5, 7))
    assert four.rows == two.rows and four.config == two.config and four.folder == two.folder
    assert {*five.rows} - {"learned-ft"} < {*two.rows} and list(four.settings) == ["mini-imagenet"]
    assert list(seven.rows) == ["omni-proto", "protonet", "protonet, wider"]


def test_the_domain_of_the_test_is_not_trained_on() -> None:
    settings = find_experiment("photo-table5").settings
    assert len(settings) == 4
    for name, fields in settings.items():
        options = fields["problem"]["init_args"]
        assert options["benchmarks"] == [name]
        assert {*options["training"]} == {"mini-imagenet", *settings} - {name}

"""Experiments: every shipped one runs, and its record holds the results of its runs."""

import dataclasses
import importlib
import json
import re
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from omnitraining.config.recipes import merge
from omnitraining.config.run_config import instantiate, load_run, parse, read_config
from omnitraining.errors import InputError
from omnitraining.evaluation import Cell, CellKey, Difference, Evaluation, half_width
from omnitraining.experiments import reproduction
from omnitraining.experiments.experiment import Experiment, experiments, find_experiment
from omnitraining.experiments.record import Record, read_record
from omnitraining.experiments.recording import pool
from omnitraining.experiments.reproduction import reproduce
from omnitraining.experiments.tables import costs
from omnitraining.model import OmniLoss
from omnitraining.runs.run import Run
from omnitraining.training import Training

SUITES = [experiment.name for experiment in experiments()]
PHOTOS = [s.name for s in experiments() if s.config["problem"]["class_path"] == "Photos"]
RUN = [
    s.name for s in experiments() if not s.settings and s.name not in PHOTOS
]  # see test_tables.py
ROOT = Path(__file__).parents[1]
PACKAGE = Path(reproduction.__file__).parent
MEASURED = {
    ROOT / "results" / f"{name}.json"
    for name in (
        *("benchmarks", "calibration", "calibration-photos", "compatibility", "faults"),
        *("full-size", "fuzz", "long-run", "photo-features", "photos-unseen", "thread-load"),
    )
}
RESULTS = sorted(set((ROOT / "results").glob("*.json")) - MEASURED)
TINY: dict[str, dict[str, Any]] = {
    "Glyphs": {
        "problem": {
            "init_args": {
                "size": 16,
                "instances": 8,
                "training_classes": 8,
                "benchmarks": ["latin"],
                "protocol": {"queries": 2, "batch": 8},
            }
        },
        "backbone": {"init_args": {"width": 8}},
    },
    "Sinusoids": {
        "problem": {"init_args": {"waves": 5, "test_shots": [5, 10], "test_steps": 3}},
        "backbone": {"init_args": {"hidden": [8, 8]}},
    },
    "Reinforcement": {
        "problem": {
            "init_args": {
                "environment": {"init_args": {"horizon": 4}},
                **{"tasks": 2, "trajectories": 2, "validation_tasks": 2, "test_tasks": 20},
            }
        },
        "backbone": {"init_args": {"hidden": [8, 8]}},
    },
}


FEW_ROWS = 3
"""Rows of a search that are trained here; all rows are parsed."""


# --- merging and pooling ---


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([{"a": 1}, {"b": 2}], {"a": 1, "b": 2}),
        ([{"a": {"x": 1, "y": 2}}, {"a": {"y": 3}}], {"a": {"x": 1, "y": 3}}),
        ([{"a": {"x": 1}}, {"a": 2}], {"a": 2}),
        ([{"a": 1}, {"a": {"x": 2}}], {"a": {"x": 2}}),
        ([{"a": {"x": [1, 2]}}, {"a": {"x": [3]}}, {}], {"a": {"x": [3]}}),
    ],
)
def test_later_fields_win(parts: list[dict[str, Any]], expected: dict[str, Any]) -> None:
    assert merge(*parts) == expected


def test_another_class_drops_the_options_of_the_first_and_the_same_keeps_them() -> None:
    maml = {"metatraining": {"class_path": "MAML", "init_args": {"lr": 0.1, "steps": 2}}}
    other = {"metatraining": {"class_path": "ProtoNet"}}
    same = {"metatraining": {"class_path": "MAML", "init_args": {"lr": 0.3}}}
    unnamed = {"metatraining": {"init_args": {"lr": 0.4}}}
    assert merge(maml, other) == other
    assert merge(maml, same)["metatraining"]["init_args"] == {"lr": 0.3, "steps": 2}
    assert merge(maml, unnamed)["metatraining"] == {
        "class_path": "MAML",
        "init_args": {"lr": 0.4, "steps": 2},
    }


def test_merging_changes_none_of_its_parts() -> None:
    first, second = {"a": {"x": {"y": 1}}}, {"a": {"x": {"z": 2}}}
    merged = merge(first, second)
    merged["a"]["x"]["y"] = 5
    assert first == {"a": {"x": {"y": 1}}} and second == {"a": {"x": {"z": 2}}}


def evaluation(tasks_hash: str, *scores: float) -> Evaluation:
    cells = {CellKey("cell"): Cell(tasks_hash, {"ensemble": [*scores]})}
    return Evaluation("accuracy %", True, cells)


def test_pooling_takes_the_mean_over_seeds_task_by_task() -> None:
    pooled = pool([evaluation("h", 1.0, 5.0, 0.0), evaluation("h", 3.0, 5.0, 1.0)])
    assert pooled == evaluation("h", 2.0, 5.0, 0.5)


def test_seeds_on_different_tasks_are_not_pooled() -> None:
    with pytest.raises(InputError, match="seeds were evaluated on different tasks of 'cell'"):
        pool([evaluation("h", 1.0), evaluation("other", 1.0)])


# --- shipped files ---

PARSED: set[str] = set()
"""Fields and values of the rows so far. Each is parsed by itself, so new ones alone need be."""


@pytest.mark.parametrize(
    ("name", "smoke"), [*((name, False) for name in SUITES), *((name, True) for name in RUN)]
)
def test_every_row_of_every_experiment_parses(name: str, smoke: bool) -> None:
    experiment = find_experiment(name)
    assert experiment.title and experiment.paper and experiment.time and experiment.seeds
    if experiment.draw:  # a search is evaluated by validation and draws nothing
        assert callable(
            importlib.import_module(f"omnitraining.experiments.figures.{experiment.draw}").draw
        )
    photos = {"problem": {"init_args": {"data": "anywhere"}}} if name in PHOTOS else {}
    jobs = reproduction.plan(experiment, Path("runs"), [0], smoke, photos, budget=1.0)
    known: set[str] = set()
    for job in jobs:  # every row once, and every setting once
        fields = {json.dumps(item, sort_keys=True) for item in job.values.items()}
        if not {job.row, f"in {job.setting}"} <= known and not fields <= PARSED:
            parse(job.values, str(job.folder))
            PARSED.update(fields)
        assert {"problem", "backbone"} <= job.values.keys()
        known |= {job.row, f"in {job.setting}"}
    assert known == {*experiment.rows, *(f"in {s}" for s in experiment.settings or [""])}


@pytest.mark.parametrize("smoke", [False, True])
@pytest.mark.parametrize("name", SUITES)
def test_steps_at_which_something_begins_are_before_the_end(name: str, smoke: bool) -> None:
    photos = {"problem": {"init_args": {"data": "anywhere"}}} if name in PHOTOS else {}
    for job in reproduction.plan(find_experiment(name), Path("runs"), [0], smoke, photos):
        training, loss = Training(**job.values["training"]), OmniLoss(**job.values.get("loss", {}))
        assert loss.all_entered_at < training.steps or not training.steps, job.folder


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("configs/*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_configuration_parses_and_has_a_comment(path: Path) -> None:
    assert path.read_text().startswith("# ")
    config = read_config(path, ["--training.steps", "3"])
    assert config.training.steps == 3


@pytest.mark.parametrize("path", RESULTS, ids=lambda p: p.stem)
def test_committed_results_have_what_tables_and_figures_need(path: Path) -> None:
    record = read_record(path)
    check_record(record)
    trainings = [facts for row in record.rows.values() for facts in row.trainings.values()]
    if all(facts.steps for facts in trainings):  # of version 0.1, some are from changed trees
        assert not any(facts.provenance["commit"].endswith("-dirty") for facts in trainings)


# --- running them ---


def check_record(record: Record) -> None:
    assert record.reference == next(iter(record.rows)) and record.seeds >= 1
    keys = {key for row in record.rows.values() for key in row.cells}
    for name, row in record.rows.items():
        # Some rows of searches are by validation alone, or older than a benchmark.
        searched = not find_experiment(record.experiment).draw
        one_setting = len(row.trainings) == 1 and "" in row.trainings
        assert not one_setting or row.cells.keys() == keys or searched
        for facts in row.trainings.values():
            assert facts.config and facts.seconds and facts.peak_mib and facts.best_step
            assert facts.provenance
        seeds = {len(facts.seconds) for facts in row.trainings.values()}
        for column in row.cells.values():
            assert column.tasks and "ensemble" in column.heads
            for mean in column.heads.values():
                assert mean.interval >= 0 and len(mean.by_seed) in seeds
            if name == record.reference:
                assert {record.seeds} == seeds
                assert column.reference_minus_this == Difference(0, 0)


@pytest.fixture(scope="module")
def shrunk(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Makes the experiments' smoke variants smaller still, with a cache of their own."""

    def find(name: str) -> Experiment:
        experiment = find_experiment(name)
        problem = experiment.config["problem"]["class_path"].rpartition(".")[2]
        steps = {"training": {"steps": 2, "val_every": 2, "threads": 1}}
        rows = experiment.rows if experiment.draw else dict([*experiment.rows.items()][:FEW_ROWS])
        smoke = merge(experiment.smoke, TINY[problem], steps)
        return dataclasses.replace(experiment, rows=rows, smoke=smoke)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMNITRAINING_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(reproduction, "find_experiment", find)
        yield find


@pytest.fixture(scope="module", params=RUN)
def reproduced(
    request: pytest.FixtureRequest, shrunk: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Experiment, Path]:
    experiment = shrunk(request.param)
    folder = tmp_path_factory.getbasetemp() / (experiment.folder or experiment.name)
    return experiment, reproduce(request.param, folder, smoke=True)


def test_every_experiment_runs_and_draws_its_figure(reproduced: tuple[Experiment, Path]) -> None:
    experiment, path = reproduced
    assert path.name == f"{experiment.name}.json"
    record = read_record(path)
    check_record(record)
    assert list(record.rows) == list(experiment.rows) and record.tasks == 20
    assert record.command == f"omni reproduce {experiment.name} --smoke"
    if not experiment.draw:
        assert all(len(row.training.validation) == 1 for row in record.rows.values())
        return
    picture = path.with_suffix(".png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n")
    width, height = struct.unpack(">II", picture[16:24])
    assert width > 400 and height > 300 and len(picture) > 10_000


def test_a_record_holds_the_numbers_of_its_runs(reproduced: tuple[Experiment, Path]) -> None:
    experiment, path = reproduced
    record = read_record(path)
    reference = load(path, record.reference)
    for row, results in record.rows.items():
        found = load(path, row)
        assert list(results.cells) == list(found)
        for name, cell in results.cells.items():
            assert cell.tasks == found[name]["tasks_hash"]
            scores = {head: numbers(s) for head, s in found[name]["scores"].items()}
            assert cell.heads.keys() == scores.keys()
            for head, (mean, interval) in scores.items():
                written = cell.heads[head]
                assert written.mean == pytest.approx(mean, rel=1e-3)
                assert written.by_seed == pytest.approx([mean], rel=1e-3)
                assert written.interval == pytest.approx(interval, rel=1e-3, abs=1e-9)
            if cell.tasks != reference[name]["tasks_hash"]:
                assert cell.reference_minus_this is None  # as in a search among environments
                continue
            gaps = [
                one - other
                for one, other in zip(
                    reference[name]["scores"]["ensemble"],
                    found[name]["scores"]["ensemble"],
                    strict=True,
                )
            ]
            mean, interval = numbers(gaps)
            gap = cell.reference_minus_this
            assert gap and gap.mean == pytest.approx(mean, rel=1e-3, abs=1e-5)
            assert gap.interval == pytest.approx(interval, rel=1e-3, abs=1e-5)
        config = yaml.safe_load(
            (path.parent / f"{row}-{experiment.seeds[0]}/config.yaml").read_text()
        )
        if config.get("start_from"):  # a record names no folder of the machine
            config["start_from"] = Path(config["start_from"]).name
        assert results.training.config == config


def load(path: Path, row: str) -> dict[CellKey, dict[str, Any]]:
    (folder,) = path.parent.glob(f"{row}-[0-9]*")
    cells = json.loads((folder / "evaluations/test.json").read_text())["cells"]
    return {CellKey.from_json(cell): cell for cell in cells}


def numbers(scores: list[float]) -> tuple[float, float]:
    """Mean and half-width, written out."""
    mean = sum(scores) / len(scores)
    variance = sum((score - mean) ** 2 for score in scores) / len(scores)
    return mean, 1.96 * (variance / len(scores)) ** 0.5


def test_given_again_it_keeps_its_runs(reproduced: tuple[Experiment, Path]) -> None:
    experiment, path = reproduced
    files = [*path.parent.glob("*/*.safetensors"), *path.parent.glob("*/evaluations/*.json")]
    before = {file: file.stat().st_mtime_ns for file in files}
    record = path.read_text()
    assert reproduce(experiment.name, path.parent, smoke=True).read_text() == record
    assert before == {file: file.stat().st_mtime_ns for file in files}


def test_a_run_of_another_configuration_is_not_touched(
    reproduced: tuple[Experiment, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, path = reproduced
    changed = dataclasses.replace(
        experiment, smoke=merge(experiment.smoke, {"loss": {"distill_weight": 7}})
    )
    monkeypatch.setattr(reproduction, "find_experiment", lambda name: changed)
    with pytest.raises(
        InputError, match=r"holds a run with another loss.distill_weight: choose another"
    ):
        reproduce(experiment.name, path.parent, smoke=True)


def test_several_seeds_are_pooled(
    shrunk: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = shrunk("figure5")
    rows = {row: experiment.rows[row] for row in ("omni-training", "maml")}
    small = dataclasses.replace(experiment, rows=rows)
    monkeypatch.setattr(reproduction, "find_experiment", lambda name: small)
    path = reproduce("figure5", tmp_path, smoke=True, seeds=[1, 2])
    record = read_record(path)
    check_record(record)
    assert record.seeds == 2
    for row, results in record.rows.items():
        folders = [Run(tmp_path / f"{row}-{seed}") for seed in (1, 2)]
        assert [load_run(folder).seed for folder in folders] == [1, 2]
        for name, cell in results.cells.items():
            both = [run.load_evaluation().cells[name].scores["ensemble"] for run in folders]
            mean, interval = torch.tensor(both).mean().item(), half_width(torch.tensor(both))
            head = cell.ensemble
            assert (head.mean, head.interval) == pytest.approx((mean, interval), rel=1e-3)
            assert head.by_seed == pytest.approx([*map(lambda s: numbers(s)[0], both)], rel=1e-3)


def test_policies_are_trained_in_a_setting_and_drawn(shrunk: Any, tmp_path: Path) -> None:
    path = reproduce("figure8", tmp_path, smoke=True, settings=["navigation"])
    record = read_record(path)
    check_record(record)
    assert list(record.rows) == list(shrunk("figure8").rows)
    keys = [CellKey("navigation", steps=step) for step in range(5)]
    assert list(record.rows["maml"].cells) == keys
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "budget", "expected"),
    [
        ("figure8", 0.25, {"steps": 250, "val_every": 25, "tasks": 10, "test_tasks": 500}),
        ("figure5", 0.1, {"steps": 3000, "val_every": 300}),
        ("figure8", 1.0, {"steps": 500, "val_every": 50, "tasks": 20}),
    ],
)
def test_a_budget_is_a_fraction_of_the_work(
    name: str, budget: float, expected: dict[str, int]
) -> None:
    found = reproduction.within_budget(find_experiment(name).config, budget)
    numbers = {**found["training"], **found["problem"].get("init_args", {})}
    assert {key: numbers.get(key) for key in expected} == expected


def test_a_budget_moves_the_steps_at_which_something_begins() -> None:
    values = {
        "problem": {"class_path": "Photos"},
        "training": {"steps": 1000, "val_every": 100, "warmup": 20, "decay_from": 0.5},
        "loss": {"branch_at": 700, "meta_at": 600, "distill_weight": 3.0},
    }
    found = reproduction.within_budget(values, 0.1)
    assert found["training"] == {"steps": 100, "val_every": 10, "warmup": 2, "decay_from": 0.5}
    assert found["loss"] == {"branch_at": 70, "meta_at": 60, "distill_weight": 3.0}


def test_fields_of_a_row_in_a_setting_override_the_row_there_alone() -> None:
    config = {"training": {"steps": 7, "lr": 0.1}}
    settings = {
        "near": {"training": {"lr": 0.2}, "rows": {"one": {"training": {"lr": 0.3}}}},
        "far": {"training": {"lr": 0.4}},
    }
    rows: dict[str, Any] = {"one": {"training": {"steps": 8}}, "two": {}}
    experiment = dataclasses.replace(
        find_experiment("figure8"), config=config, rows=rows, settings=settings
    )
    found = {
        (job.row, job.setting): job.values for job in reproduction.plan(experiment, Path(), [0])
    }
    rates = {place: values["training"]["lr"] for place, values in found.items()}
    assert rates == {
        ("one", "near"): 0.3, ("two", "near"): 0.2, ("one", "far"): 0.4, ("two", "far"): 0.4,
    }  # fmt: skip
    assert found["one", "near"] == {"training": {"steps": 8, "lr": 0.3}, "seed": 0}


@pytest.mark.parametrize("budget", [0.0, 1.5, -1.0])
def test_impossible_budgets_are_refused(budget: float, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"--budget is .*: it must be greater than 0 and at most 1"
    ):
        reproduce("figure8", tmp_path / "runs", budget=budget)


def test_only_some_rows_may_be_trained(shrunk: Any, tmp_path: Path) -> None:
    path = reproduce("figure5", tmp_path, smoke=True, only=["maml"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["figure5.json", "maml-0"]  # no figure
    assert list(read_record(path).rows) == ["maml"]
    assert instantiate(parse(yaml.safe_load((tmp_path / "maml-0/config.yaml").read_text())))


def test_unknown_experiments_and_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no experiment 'figure0': choose from .*figure5"):
        reproduce("figure0", tmp_path)
    with pytest.raises(InputError, match="figure5 has no row 'x': choose from omni-training, maml"):
        reproduce("figure5", tmp_path, only=["x"])


def test_steps_of_all_rows_are_timed_and_the_record_has_their_seconds(
    shrunk: Any, tmp_path: Path
) -> None:
    path = reproduce("demo", tmp_path, smoke=True, cost=True)
    assert [p.name for p in tmp_path.iterdir()] == ["demo.costs.json"]  # nothing was trained
    timed = json.loads(path.read_text())["rows"]
    assert list(timed) == [*find_experiment("demo").rows]
    one = {row: by[""] for row, by in timed.items()}
    assert all(cost["seconds"] > 0 for cost in one.values())
    record = read_record(reproduce("demo", tmp_path, smoke=True))
    for row, results in record.rows.items():
        assert results.training.multiply_adds_per_step == one[row]["multiply_adds"]
        assert results.seconds_per_step[""] == pytest.approx(one[row]["seconds"], rel=1e-3)
        assert re.search(r" s \(.* ms a step\)$", costs(record)[row][0])
    parts = one["baseline"]["multiply_adds"] + one["protonet"]["multiply_adds"]
    assert one["ensemble"]["multiply_adds"] == one["joint-training"]["multiply_adds"] == parts
    assert one["omni-training"]["multiply_adds"] > parts


def test_a_step_is_timed_before_the_run_that_it_starts_from_is_there(tmp_path: Path) -> None:
    begun = [row for row, own in find_experiment("pretrained").rows.items() if "start_from" in own]
    path = reproduce("pretrained", tmp_path, smoke=True, cost=True, only=begun[:1])
    assert list(json.loads(path.read_text())["rows"]) == begun[:1]

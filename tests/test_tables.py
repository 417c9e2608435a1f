"""Tables of several settings: what is trained where, what is shown, and the paper's own tables."""

import dataclasses
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from rich.console import Console
from torch import Tensor

from omnitraining.backbones import ResNet18
from omnitraining.backbones.resnet import Block
from omnitraining.cli import main
from omnitraining.config.recipes import merge
from omnitraining.config.run_config import instantiate, load_run, parse
from omnitraining.datasets import placeholders, read
from omnitraining.datasets.standards import STANDARDS
from omnitraining.errors import InputError
from omnitraining.evaluation import Cell, CellKey, Difference, Evaluation
from omnitraining.experiments import display, jobs, recording, reproduction
from omnitraining.experiments.experiment import Experiment, completed, experiments, find_experiment
from omnitraining.experiments.figures import canvas, tables
from omnitraining.experiments.record import (
    Column,
    Mean,
    Record,
    Row,
    TrainingFacts,
    from_json,
    read_record,
)
from omnitraining.experiments.recording import Selection, evaluations, join, make_record
from omnitraining.experiments.report import sections
from omnitraining.experiments.reproduction import reproduce
from omnitraining.experiments.tables import (
    reached,
    record_markdown,
    record_table,
    search_lines,
)
from omnitraining.runs.run import Run
from omnitraining.tasks.classification import photos
from tests.reference.tiny import BLOBS, SINUSOIDS, Values

TABLES = ["table2", "table3", "table4", "table5"]
ABLATIONS = ["table6", "table7", "figure3", "figure9", "figure10", "figure11", "figure12"]
ALL = [
    experiment.name
    for experiment in experiments()
    if experiment.settings or experiment.name in TABLES
]
SMALL: Values = {"init_args": {"waves": 5, "test_steps": 1}}
WAVES = Experiment(
    name="waves",
    title="Waves of two kinds",
    paper="nothing",
    time="no time",
    config={**SINUSOIDS, "training": {**SINUSOIDS["training"], "steps": 2}},
    settings={
        "few": {"problem": {"init_args": {**SMALL["init_args"], "test_shots": [2, 3]}}},
        "many": {"problem": {"init_args": {**SMALL["init_args"], "test_shots": [9]}}},
    },
    rows={
        "maml": {"method": "meta-training", "paper": {"2-shot, 1 step": [1.5, 0.25]}},
        "baseline": {"method": "pre-training", "settings": ["many"]},
    },
    smoke={},
    seeds=[0, 1],
    draw="tables",
)
Use = Callable[..., Experiment]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """Makes an experiment, with some of it replaced, the one that any name finds."""

    def replace(experiment: Experiment, **changes: Any) -> Experiment:
        changed = dataclasses.replace(experiment, **changes)
        monkeypatch.setattr(reproduction, "find_experiment", lambda name: changed)
        return changed

    return replace


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of WAVES, complete; not to be changed."""
    folder = tmp_path_factory.mktemp("waves")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reproduction, "find_experiment", lambda name: WAVES)
        assert reproduce("waves", folder, smoke=True, seeds=[0, 1], settings=["few", "many"])
    return folder


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "waves"))


def runs_in(folder: Path) -> list[str]:
    return sorted(str(f.parent.relative_to(folder)) for f in folder.rglob("provenance.json"))


def record_of(folder: Path, name: str = "waves") -> Record:
    return read_record(folder / f"{name}.json")


TWO, THREE, NINE = (CellKey(shots=shots, steps=1) for shots in (2, 3, 9))


# --- settings ---

RUNS = ["few/maml-0", "few/maml-1", "many/baseline-0", "many/baseline-1", "many/maml-0",
        "many/maml-1"]  # fmt: skip


def test_a_row_is_trained_once_in_each_of_its_settings_with_each_seed(trained: Path) -> None:
    assert runs_in(trained) == RUNS
    for name in RUNS:
        experiment = load_run(Run(trained / name))
        assert experiment.seed == int(name[-1])
        shots = (2, 3) if name.startswith("few/") else (9,)
        assert experiment.problem.test_shots == shots  # type: ignore[attr-defined]


def test_a_record_joins_the_cells_of_the_settings(trained: Path) -> None:
    rows = record_of(trained).rows
    assert list(rows["maml"].cells) == [TWO, THREE, NINE]
    assert list(rows["baseline"].cells) == [NINE]
    for row, cell, setting in (
        ("maml", THREE, "few"),
        ("maml", NINE, "many"),
        ("baseline", NINE, "many"),
    ):
        means = [
            Run(trained / setting / f"{row}-{seed}").load_evaluation().cells[cell].mean()
            for seed in (0, 1)
        ]
        head = rows[row].cells[cell].ensemble
        assert head.by_seed == pytest.approx(means, rel=1e-3)
        assert head.mean == pytest.approx(sum(means) / 2, rel=1e-3)


def test_a_record_states_how_the_runs_of_each_setting_were_made(trained: Path) -> None:
    rows = record_of(trained).rows
    assert {row: list(made.trainings) for row, made in rows.items()} == {
        "maml": ["few", "many"],
        "baseline": ["many"],
    }
    for setting, facts in rows["maml"].trainings.items():
        shots = facts.config["problem"]["init_args"]["test_shots"]
        assert shots == WAVES.settings[setting]["problem"]["init_args"]["test_shots"]
        assert len(facts.seconds) == 2


def test_differences_are_taken_where_both_rows_have_results(trained: Path) -> None:
    rows = record_of(trained).rows
    maml, baseline = (rows[row].cells[NINE] for row in ("maml", "baseline"))
    gap = maml.ensemble.mean - baseline.ensemble.mean
    assert baseline.reference_minus_this
    assert baseline.reference_minus_this.mean == pytest.approx(gap, abs=2e-3)
    gaps = [column.reference_minus_this for column in rows["maml"].cells.values()]
    assert all(gap and gap.mean == 0 for gap in gaps)


def test_differences_on_other_tasks_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = {CellKey(name): Cell("one", {"ensemble": [1.0, 4.0]}) for name in ("a", "b")}
    found = {
        "first": Evaluation("error", False, cells),
        "second": Evaluation("error", False, {**cells, **one_cell("b").cells}),
    }
    monkeypatch.setattr(recording, "evaluations", lambda *_: {r: [e] for r, e in found.items()})
    header = {"experiment": "x", "title": "", "paper": "", "command": ""}
    made = make_record(header, {"first": {}, "second": {}}, Selection(), {}, [])
    gaps = {str(key): own.reference_minus_this for key, own in made.rows["second"].cells.items()}
    assert gaps == {"a": Difference(0.0, 0.0), "b": None}


def one_cell(name: str) -> Evaluation:
    key = CellKey.parse(name)
    return Evaluation("accuracy %", True, {key: Cell("hash", {"ensemble": [1.0, 2.0]})})


def test_settings_with_the_same_cell_are_refused() -> None:
    both = {"here": one_cell("cub 1-shot"), "there": one_cell("cub 1-shot")}
    with pytest.raises(InputError, match="settings here and there both have results on 'cub 1-sho"):
        join(both, [])
    joined = join({**both, "there": one_cell("cars 1-shot")}, [])
    assert joined.cells.keys() == {CellKey("cub", shots=1), CellKey("cars", shots=1)}


def test_settings_that_share_a_benchmark_give_it_names(trained: Path) -> None:
    runs = {"few": [Run(trained / "few/maml-0")], "many": [Run(trained / "many/maml-0")]}
    renamed = Selection(["few", "many"], {"few": {"": "few"}, "many": {"": "many"}})
    (joined,) = evaluations({"maml": runs}, renamed)["maml"]
    assert list(map(str, joined.cells)) == [
        "few 2-shot, 1 step", "few 3-shot, 1 step", "many 9-shot, 1 step"
    ]  # fmt: skip
    (joined,) = evaluations({"maml": runs}, dataclasses.replace(renamed, benchmarks=["many"]))[
        "maml"
    ]
    assert list(map(str, joined.cells)) == ["many 9-shot, 1 step"]


def test_a_file_may_keep_some_rows_and_settings_of_another() -> None:
    claims = [{"row": "a", "better_than": "b"}, {"row": "c", "better_than": "b"}]
    files: dict[str, Values] = {
        "first": {
            "rows": {"a": {"x": 1}, "b": {}, "c": {}}, "settings": {"s": {}, "t": {}},
            "claims": claims, "title": "First",
        },
        "second": {
            "like": "first", "keep": {"rows": ["b", "a"], "settings": ["t"]},
            "rows": {"d": {}}, "settings": {"u": {}},
        },
    }  # fmt: skip
    found = completed("second", files)
    assert list(found["rows"]) == ["b", "a", "d"] and found["rows"]["a"] == {"x": 1}
    assert list(found["settings"]) == ["t", "u"] and found["claims"] == claims[:1]
    assert "keep" not in found and files["second"]["keep"]


def test_only_some_settings_may_be_trained(tmp_path: Path, use: Use) -> None:
    use(WAVES)
    reproduce("waves", tmp_path, seeds=[0], settings=["few"])
    assert runs_in(tmp_path) == ["few/maml-0"]
    assert list(record_of(tmp_path).rows) == ["maml"]
    reproduce("waves", tmp_path, seeds=[0], settings=["many"], only=["maml"])
    assert runs_in(tmp_path) == ["few/maml-0", "many/maml-0"]
    cells = record_of(tmp_path).rows["maml"].cells
    assert list(cells) == [TWO, THREE, NINE], "the first is kept"


def test_the_tiny_variant_is_of_one_seed_and_one_setting(tmp_path: Path, use: Use) -> None:
    use(WAVES)
    reproduce("waves", tmp_path, smoke=True)
    assert runs_in(tmp_path) == ["few/maml-0"]


def test_unknown_settings_are_refused(tmp_path: Path, use: Use) -> None:
    use(WAVES)
    with pytest.raises(InputError, match="waves has no setting 'x': choose from few, many"):
        reproduce("waves", tmp_path, settings=["few", "x"])
    with pytest.raises(InputError, match="waves has no baseline in few"):
        reproduce("waves", tmp_path, settings=["few"], only=["baseline"])
    use(WAVES, settings={}, rows={"maml": {"method": "meta-training"}})
    with pytest.raises(InputError, match="waves has no setting 'x': it has none"):
        reproduce("waves", tmp_path, settings=["x"])
    assert not list(tmp_path.iterdir())


def test_a_run_of_another_configuration_is_reported_before_anything_is_trained(
    copy: Path, use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(jobs, "train_run")
    use(WAVES, config={**WAVES.config, "loss": {"distill_weight": 7.0}})
    shutil.rmtree(copy / "few")
    with pytest.raises(InputError, match=r"many/maml-0 holds a run with another loss\.dist"):
        reproduce("waves", copy, seeds=[0], settings=["few"])


# --- what is shown ---


def test_experiments_show_different_benchmarks_of_the_same_runs(copy: Path, use: Use) -> None:
    settings = {
        "few": {**WAVES.settings["few"], "rename": {"": "little"}, "shots": [2]},
        "many": {**WAVES.settings["many"], "rename": {"": "much"}},
    }
    use(WAVES, name="other", show=["much"], settings=settings, seeds=[0])
    before = {f: f.stat().st_mtime_ns for f in copy.rglob("*.safetensors")}
    reproduce("other", copy)
    assert before == {f: f.stat().st_mtime_ns for f in copy.rglob("*.safetensors")}
    (key,) = record_of(copy, "other").rows["maml"].cells
    assert key == dataclasses.replace(NINE, benchmark="much")
    one = record_of(copy, "other").rows["maml"].cells[key].ensemble
    assert one.by_seed == record_of(copy).rows["maml"].cells[NINE].ensemble.by_seed[:1]
    use(WAVES, name="third", settings=settings, seeds=[0])
    reproduce("third", copy)
    cells = record_of(copy, "third").rows["maml"].cells
    assert list(map(str, cells)) == ["little 2-shot, 1 step", "much 9-shot, 1 step"]


def test_an_interrupted_experiment_shows_and_keeps_what_is_there(
    tmp_path: Path,
    use: Use,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    use(WAVES, seeds=[0])
    train_run = jobs.train_run

    def stopped(config: Any, folder: Path, **options: Any) -> Run:
        if folder == tmp_path / stop:
            raise KeyboardInterrupt
        return train_run(config, folder, **options)

    monkeypatch.setattr(jobs, "train_run", stopped)
    stop = "few/maml-0"
    with pytest.raises(KeyboardInterrupt):
        reproduce("waves", tmp_path)
    assert not (tmp_path / "waves.json").exists(), "nothing was there"
    stop = "many/baseline-0"
    capsys.readouterr()
    assert main(["reproduce", "waves", "--out", str(tmp_path)]) == 130
    out = capsys.readouterr().out
    assert "maml" in out and "baseline" not in out and "paper 1.50 ± 0.25" in out
    assert list(record_of(tmp_path).rows) == ["maml"] and "figure" not in out
    assert len(record_of(tmp_path).rows["maml"].cells) == 3
    stop = ""
    before = (tmp_path / "few/maml-0/last.safetensors").stat().st_mtime_ns
    reproduce("waves", tmp_path)
    assert list(record_of(tmp_path).rows) == ["maml", "baseline"]
    assert before == (tmp_path / "few/maml-0/last.safetensors").stat().st_mtime_ns
    assert (tmp_path / "waves.png").read_bytes().startswith(b"\x89PNG")


def test_a_row_has_results_once_all_its_seeds_are_there(copy: Path) -> None:
    def there(*seeds: int) -> dict[str, list[str]]:
        jobs = reproduction.plan(WAVES, copy, list(seeds), False, {}, 1.0)
        return {row: list(by) for row, by in reproduction._finished(WAVES, jobs).items()}

    assert there(0, 1) == {"maml": ["few", "many"], "baseline": ["many"]}
    (copy / "few/maml-1/evaluations/test.json").unlink()
    (copy / "many/baseline-1/provenance.json").unlink()
    assert there(0, 1) == {"maml": ["many"]}
    assert there(0) == {"maml": ["few", "many"], "baseline": ["many"]}
    assert there(0, 1, 2) == {}


# --- generations ---

GENERATIONS = Experiment(
    name="generations",
    title="Two generations",
    paper="nothing",
    time="no time",
    config={
        **BLOBS,
        "method": "pre-training",
        "training": {"steps": 1, "val_every": 1, "threads": 1},
    },
    rows={
        "first": {"pretraining": {"class_path": "RFS", "init_args": {"temperature": 2.0}}},
        "second": {"teacher_run": "first"},
        "second+": {"continues": "second", "training": {"steps": 2}},
    },
    smoke={},
    seeds=[3],
    draw="tables",
)


def test_a_generation_is_taught_by_the_run_of_the_same_seed(tmp_path: Path, use: Use) -> None:
    use(GENERATIONS)
    with pytest.raises(InputError, match=r"second-3 goes on from .*first-3, which is not trained"):
        reproduce("generations", tmp_path, only=["second"])
    assert not list(tmp_path.iterdir())
    reproduce("generations", tmp_path)
    experiments = {
        row: load_run(Run(tmp_path / f"{row}-3", trust=True)) for row in GENERATIONS.rows
    }
    assert experiments["first"].teacher_run is None
    for row in ("second", "second+"):
        assert experiments[row].teacher_run == tmp_path / "first-3"
        assert experiments[row].pretraining == experiments["first"].pretraining
        assert experiments[row].pretraining.temperature == 2.0  # type: ignore[attr-defined]
    facts = record_of(tmp_path, "generations").rows["second"].training
    assert facts.config["teacher_run"] == "first-3", "no folder of this machine"


def test_rows_go_on_from_runs_by_the_names_that_these_have() -> None:
    rows = {
        "first": {"run": "shared"},
        "second": {"teacher_run": "first"},
        "third": {"start_from": "first"},
        "fourth": {"continues": "first"},
    }
    experiment = dataclasses.replace(WAVES, rows=rows, settings={})
    first, second, third, fourth = reproduction.plan(experiment, Path("x"), [0], False, {}, 1.0)
    shared = Path("x/shared-0")
    assert first.folder == fourth.continues == shared
    assert second.values["teacher_run"] == third.values["start_from"] == str(shared.absolute())


def test_a_row_goes_where_the_row_goes_that_it_continues() -> None:
    rows = {
        "first": {"settings": ["many"], "smoke": {"seed": 1}},
        "second": {"teacher_run": "first"},
        "third": {"continues": "second", "settings": ["few"]},
    }
    experiment = dataclasses.replace(WAVES, rows=rows)
    jobs = reproduction.plan(experiment, Path("x"), [0], True, {}, 1.0)
    assert [str(job.folder) for job in jobs] == [
        "x/few/third-0",
        "x/many/first-0",
        "x/many/second-0",
    ]


# --- photographs ---


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMNITRAINING_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


NEEDS = {
    "table2": ["mini-imagenet", "cub"],
    "table3": ["mini-imagenet", "cub"],
    "table4": ["mini-imagenet", "cub", "cars", "places", "plantae"],
    "table5": ["mini-imagenet", "cub", "cars", "places", "plantae"],
    "figure3": ["mini-imagenet", "cub", "cars", "places", "plantae"],
}


@pytest.mark.parametrize("name", [*TABLES, *ABLATIONS])
def test_tables_name_the_data_that_they_need(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", name]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith(f"omni: {name} needs photographs: give --data DIR, a folder that holds ")
    listed, _, rest = line.partition("holds ")[2].partition(";")
    assert set(listed.split(", ")) == set(NEEDS.get(name, NEEDS["table2"])) and "--smoke" in rest
    assert captured.out == ""


def test_data_are_checked_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(jobs, "train_run")
    data = placeholders.write(tmp_path, ["mini-imagenet"])
    with pytest.raises(InputError, match=r"mini-imagenet holds 15 classes: mini-imagenet has 100"):
        reproduce("table2", tmp_path / "out", data=data)
    (tmp_path / "mini-imagenet").rename(tmp_path / "mini")
    message = f"there is no data set 'cub' in {tmp_path}: table2 needs cub"
    with pytest.raises(InputError, match=message):
        reproduce("table2", tmp_path / "out", data=data, settings=["cub"])
    assert not (tmp_path / "out").exists()


def test_experiments_that_make_their_samples_take_no_data(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="figure5 takes no --data: it makes its own samples"):
        reproduce("figure5", data=tmp_path)


def test_the_command_line_passes_all_options(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(reproduction, "reproduce", lambda *values: given.extend(values))
    options = "--out o --smoke --seeds 1 2 --only a b --settings s t --data d --budget 0.5 --cost"
    assert main(["reproduce", "table2", *options.split()]) == 0
    assert given == [
        "table2",
        Path("o"),
        True,
        [1, 2],
        ["a", "b"],
        ["s", "t"],
        Path("d"),
        0.5,
        True,
    ]


def small_table(name: str, *rows: str) -> Experiment:
    """A shipped table with a small network, and some of its rows."""
    experiment = find_experiment(name)
    network = {"class_path": "Conv4", "init_args": {"width": 4}}
    smoke = {**experiment.smoke, "backbone": network}
    return dataclasses.replace(
        experiment, rows={row: experiment.rows[row] for row in rows}, smoke=smoke
    )


def test_placeholders_stand_in_for_missing_photographs(tmp_path: Path, use: Use) -> None:
    experiment = use(small_table("table5", "protonet"))
    record = record_of(reproduce("table5", tmp_path, smoke=True).parent, "table5")
    assert record.command == "omni reproduce table5 --smoke"
    assert runs_in(tmp_path) == ["cub/protonet-0"]
    row = record.rows["protonet"]
    assert list(row.cells) == [CellKey("cub", 5, 1), CellKey("cub", 5, 5)]
    published = experiment.rows["protonet"]["paper"]
    assert row.paper == {CellKey.parse(cell): tuple(given) for cell, given in published.items()}
    assert row.trainings["cub"].config["problem"]["init_args"]["data"] == "DIR"
    made = yaml.safe_load((tmp_path / "cub/protonet-0/config.yaml").read_text())
    assert made["problem"]["init_args"]["complete"] is False
    problem = load_run(Run(tmp_path / "cub/protonet-0")).problem
    assert [part.name for part in problem.training] == [  # type: ignore[attr-defined]
        f"{name}-train" for name in ("mini-imagenet", "cars", "places", "plantae")
    ]
    before = record_of(tmp_path, "table5")
    reproduce("table5", tmp_path, smoke=True)
    assert record_of(tmp_path, "table5") == before, "placeholders are the same again"


def test_given_data_are_used_in_the_tiny_variant_too(
    tmp_path: Path, use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(small_table("table3", "protonet"))
    data = placeholders.write(tmp_path / "data", ["mini-imagenet", "cub"])
    with pytest.raises(InputError, match="mini-imagenet holds 15 classes"):
        reproduce("table3", tmp_path / "out", smoke=True, data=data)
    assert not (tmp_path / "out").exists()
    for module in (reproduction, photos):  # as if they were complete
        monkeypatch.setattr(module, "standard_differences", lambda name, data_set: [])
    monkeypatch.chdir(tmp_path)
    reproduce("table3", tmp_path / "out", smoke=True, data=Path("data"))
    assert runs_in(tmp_path / "out") == ["mini-imagenet-cub/protonet-0"]
    assert "--smoke --data DIR" in record_of(tmp_path / "out", "table3").command
    made = (tmp_path / "out/mini-imagenet-cub/protonet-0/config.yaml").read_text()
    options = yaml.safe_load(made)["problem"]
    folder = tmp_path / "out/mini-imagenet-cub/protonet-0"
    assert (folder / options["init_args"]["data"]).resolve() == data.resolve()
    assert options["init_args"]["complete"]


def test_placeholders_have_the_layout_of_a_data_set_and_differ(tmp_path: Path) -> None:
    def contents(folder: Path) -> list[tuple[str, bytes, int]]:
        files = sorted(folder.rglob("*.jpg"))
        return [(f.name, f.read_bytes(), f.stat().st_mtime_ns) for f in files]

    first = placeholders.write(tmp_path / "a", ["cub", "cars"])
    assert contents(first) == contents(placeholders.write(tmp_path / "b", ["cub", "cars"]))
    for name in ("cub", "cars"):
        data_set = read(first / name)
        assert {s: len(part.classes) for s, part in data_set.splits.items()} == {
            "train": 5,
            "validation": 5,
            "test": 5,
        }
    pixels = set()
    for file in first.rglob("*.jpg"):
        with Image.open(file) as image:
            pixels.add(image.tobytes())
    assert len(pixels) == 2 * 3 * 5 * 8


# --- the shipped tables ---


@pytest.mark.parametrize("name", TABLES)
def test_fields_of_rows_of_shipped_tables_fit_together(name: str) -> None:
    experiment = find_experiment(name)
    benchmarks = [
        benchmark
        for setting in (experiment.settings or {"": {}}).values()
        for benchmark in merge(experiment.config, setting)["problem"]["init_args"]["benchmarks"]
    ]
    assert len(benchmarks) == len(set(benchmarks)), "cells of settings would clash"
    before: list[str] = []
    for row, own in experiment.rows.items():
        assert {own.get("teacher_run"), own.get("continues")} <= {None, *before}
        assert set(own.get("settings", [])) <= set(experiment.settings)
        for cell, (mean, half) in own.get("paper", {}).items():
            benchmark, _, shots = cell.partition(" ")
            assert benchmark in benchmarks and shots in ("1-shot", "5-shot")
            assert 20 < mean < 100 and 0 < half < 2
        before.append(row)
    with_numbers = [own["paper"] for own in experiment.rows.values() if "paper" in own]
    assert len(with_numbers[0]) == 2 * len(benchmarks)


@pytest.mark.parametrize("name", ABLATIONS)
def test_numbers_of_the_paper_are_for_its_cells(name: str) -> None:
    """Cells have the names that settings give to benchmarks; means may lack an interval."""
    experiment, cells = find_experiment(name), set()
    for setting in experiment.settings.values():
        for benchmark in setting["problem"]["init_args"]["benchmarks"]:
            shown = setting.get("rename", {}).get(benchmark, benchmark)
            assert shown not in cells, "cells of settings would clash"
            cells.add(shown)
    for own in experiment.rows.values():
        for cell, (mean, *half) in own.get("paper", {}).items():
            assert CellKey.parse(cell).benchmark in cells and 20 < mean < 100 and len(half) < 2
    for claim in experiment.claims:
        assert {CellKey.parse(cell).benchmark for cell in claim.cells} <= cells


def test_experiments_that_share_a_folder_have_the_same_runs_in_it() -> None:
    """Or the second of them would refuse the runs of the first."""
    found: dict[Path, tuple[str, Any]] = {}
    data = {"problem": {"init_args": {"data": "anywhere"}}}
    for experiment in experiments():
        photographs = experiment.config["problem"]["class_path"] == "Photos"
        folder = Path(experiment.folder or experiment.name)
        for job in reproduction.plan(
            experiment, folder, [0], False, data if photographs else {}, 1.0
        ):
            whole = merge(job.values)
            first, values = found.setdefault(job.folder, (experiment.name, whole))
            assert values == whole or parse(values) == parse(whole), (
                f"{first}, {experiment.name}: {job}"
            )


def test_the_blocks_of_figure_12_are_the_blocks_of_a_resnet_18() -> None:
    blocks = [name for name, m in ResNet18().named_modules() if isinstance(m, Block)]
    rows = find_experiment("figure12").rows
    first = [row["omninet"]["shared_until"] for row in rows.values() if "omninet" in row]
    assert first == blocks[1:] and len(blocks) == 8


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the tiny variants of small networks leave in the folder that they share."""
    folder = tmp_path_factory.mktemp("photographs")
    main = ("omni-proto", "baseline", "protonet")
    chosen = {
        "figure10": main,
        "figure11": main,
        "table7": ("omni-proto", "protonet, 13.98M"),
        "table6": ("omni-proto", "L_pre and L_meta"),
        "figure9": ("omni-proto", "protonet", "joint-training", "ensemble"),
        "figure12": ("omni-proto", "lambda 1"),
        "figure3": ("baseline", "protonet"),
    }
    for name, rows in chosen.items():
        with pytest.MonkeyPatch.context() as patch:
            experiment = small_table(name, *rows)
            patch.setattr(
                reproduction, "find_experiment", lambda name, experiment=experiment: experiment
            )
            before = {f: f.stat().st_mtime_ns for f in folder.rglob("best.safetensors")}
            reproduce(name, folder, smoke=True)
            after = {f: f.stat().st_mtime_ns for f in folder.rglob("best.safetensors")}
            assert before.items() <= after.items(), "a run was trained twice"
    return folder


@pytest.mark.parametrize("name", ABLATIONS)
def test_the_tiny_variants_run_in_one_folder(name: str, photographs: Path) -> None:
    assert (photographs / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    rows = record_of(photographs, name).rows
    assert all(results.cells for results in rows.values())
    (key, *_) = rows.popitem()[1].cells
    crossed = name in ("figure9", "figure12")
    assert key.benchmark in (["mini-imagenet→cub"] if crossed else ["mini-imagenet", "cub"])
    assert key.ways == 5


def test_records_and_the_report_have_fine_tuned_flows(photographs: Path) -> None:
    record = record_of(photographs, "figure10")
    cells = record.rows["omni-proto"].cells
    key = CellKey("cub", 5, 5, 10)
    assert list(cells[key].heads) == ["pre", "joint", "meta", "ensemble"]
    assert CellKey("cub", 5, 5) in cells
    run = Run(photographs / "cub" / "omni-proto-0")
    scores = run.load_evaluation("tuned").cells[key].scores["pre"]
    assert cells[key].heads["pre"].mean == pytest.approx(sum(scores) / len(scores), rel=1e-3)
    text = sections.results(record, "flow_curves", "")
    assert "| omni-proto, pre-flow alone |" in text and "cub 5-shot, 10 steps" in text
    assert record.claims[0].head == "pre"


@pytest.mark.parametrize(
    ("name", "setting", "images", "epochs"),
    [
        ("table2", "mini-imagenet", STANDARDS["mini-imagenet"].images[0], 100),  # type: ignore[index]
        ("table2", "cub", STANDARDS["cub"].images[0], 400),  # type: ignore[index]
        ("table3", "", sum(STANDARDS["mini-imagenet"].images), 100),  # type: ignore[arg-type]
        ("table4", "", STANDARDS["mini-imagenet"].images[0], 100),  # type: ignore[index]
        (
            "table5",
            "plantae",
            sum(STANDARDS[n].images[0] for n in ("mini-imagenet", "cub", "cars", "places")),  # type: ignore[index]
            100,
        ),
    ],
)
def test_lengths_are_the_epochs_of_the_paper(
    name: str, setting: str, images: int, epochs: int
) -> None:
    experiment = find_experiment(name)
    length = merge(experiment.config, experiment.settings.get(setting, {}))["training"]
    assert length["steps"] == epochs * math.ceil(images / 64)
    assert length["steps"] % length["val_every"] == 0


def test_an_unseen_domain_is_not_trained_on() -> None:
    experiment = find_experiment("table5")
    domains = ["mini-imagenet", "cub", "cars", "places", "plantae"]
    assert list(experiment.settings) == domains[1:]
    for unseen, fields in experiment.settings.items():
        parts = fields["problem"]["init_args"]
        assert parts["benchmarks"] == [unseen]
        assert parts["training"] == [name for name in domains if name != unseen]


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_the_tiny_variant_of_every_table_runs(name: str, tmp_path: Path) -> None:
    try:
        record = record_of(reproduce(name, tmp_path, smoke=True).parent, name)
        assert list(record.rows) == list(find_experiment(name).rows)
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    finally:
        shutil.rmtree(tmp_path)  # some gigabytes


@pytest.mark.slow
def test_a_resnet_18_adapts_by_maml() -> None:
    """The tiny variants have a small network in this row, for the sake of 200 validation tasks."""
    experiment = find_experiment("table3")
    (job,) = (
        job
        for job in reproduction.plan(experiment, Path("x"), [0], False, {}, 1.0)
        if job.row == "maml"
    )
    protocol = {"protocol": {"shots": 1, "queries": 1, "batch": 4, "test_shots": [1]}}
    glyphs = {"benchmarks": ["latin"], "training_classes": 10, "instances": 4, **protocol}
    values = merge(
        job.values,
        {"problem": {"class_path": "Glyphs", "init_args": glyphs}},
        {"backbone": {"init_args": {"channels": 1}}},
    )
    run_config = instantiate(parse(values))
    random = torch.Generator().manual_seed(0)
    model, problem = run_config.build(), run_config.problem
    terms = model(problem.minibatch(0, random), problem.episode(0, random))
    total: Tensor = terms["total"]
    total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


# --- drawing ---


def record(rows: dict[str, dict[str, Any]], higher_is_better: bool = True) -> Record:
    """A record with the given means and numbers of the paper."""
    values = {
        "experiment": "table9",
        "title": "A table",
        "paper": "nothing",
        "command": "omni reproduce table9",
        "unit": "accuracy %",
        "higher_is_better": higher_is_better,
        "reference": next(iter(rows)),
        "tasks": 600,
        "seeds": 2,
        "rows": {
            name: {
                "cells": {
                    cell: {"tasks": "h", "heads": {"ensemble": {"mean": mean, "interval": 0.5}}}
                    for cell, mean in row["ours"].items()
                },
                **({"paper": row["paper"]} if "paper" in row else {}),
            }
            for name, row in rows.items()
        },
    }
    return from_json(values)


PARTIAL = record(
    {
        "one": {
            "ours": {"cub 5-way 1-shot": 50.0, "cub 5-way 5-shot": 70.123},
            "paper": {"cub 5-shot": [71.0, 0.4], "cub 1-shot": [49.0, 0.6]},
        },
        "two": {"ours": {"cub 5-way 1-shot": 40.0, "cars 5-way 1-shot": 30.0}},
        "three": {"ours": {}, "paper": {"cars 1-shot": [31.0, 0.25]}},
    }
)


def test_markdown_has_ours_and_the_papers_numbers_the_best_of_ours_bold() -> None:
    lines = record_markdown(PARTIAL).splitlines()
    assert lines == [
        "**A table** (`omni reproduce table9`; accuracy %, 600 tasks, 2 seeds, 95 % intervals over "
        "tasks).",
        "",
        "|  | cub 5-shot | cub 1-shot | cars 1-shot |",
        "| --- | --- | --- | --- |",
        "| one | **70.12 ± 0.50**<br>paper 71.00 ± 0.40 | **50.00 ± 0.50**<br>paper 49.00 ± 0.60 "
        "| – |",
        "| two | – | 40.00 ± 0.50 | **30.00 ± 0.50** |",
        "| three | – | – | –<br>paper 31.00 ± 0.25 |",
    ]


def test_means_of_the_paper_may_lack_an_interval(tmp_path: Path) -> None:
    rows = {"one": {"ours": {"cub 5-shot": 50.0}, "paper": {"cub 5-shot": [73.44]}}}
    made = record(rows)
    assert "| one | **50.00 ± 0.50**<br>paper 73.44 |" in record_markdown(made)
    assert "| one | 73.44 |" in sections.published({"one": rows["one"]})
    assert tables.draw(made, {}, tmp_path / "a.png").is_file()


def test_the_best_error_is_the_lowest() -> None:
    rows = {"one": {"ours": {"5-shot": 0.3}}, "two": {"ours": {"5-shot": 0.2}}}
    assert "| two | **0.20 ± 0.50** |" in record_markdown(record(rows, False))


def test_the_printed_table_has_the_same() -> None:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(record_table(PARTIAL))
    text = [" ".join(line.replace("│", " ").split()) for line in capture.get().splitlines()]
    assert "one 70.12 ± 0.50 50.00 ± 0.50 –" in text
    assert text[text.index("one 70.12 ± 0.50 50.00 ± 0.50 –") + 1] == (
        "paper 71.00 ± 0.40 paper 49.00 ± 0.60"
    )
    assert "two – 40.00 ± 0.50 30.00 ± 0.50" in text and "paper 31.00 ± 0.25" in text
    plain = display._Plain(width=120, force_terminal=True, color_system="standard")
    with plain.capture() as capture:
        plain.print(record_table(PARTIAL))
    shown = capture.get()
    assert "\x1b[1m70.12 ± 0.50" in shown and "[bold]" not in shown and "\0" not in shown


def points(path: Path, monkeypatch: pytest.MonkeyPatch, drawn: Record) -> dict[str, Any]:
    """What is drawn, by panel and label: values along x and along y."""
    figures: list[Any] = []

    def saved(figure: Any, path: Path) -> Path:
        figures.append(figure)
        return canvas.save(figure, path)

    monkeypatch.setattr(tables, "save", saved)
    assert tables.draw(drawn, {}, path) == path
    (figure,) = figures
    return {
        axis.get_title(): {
            bars.get_label(): bars.lines[0].get_xydata().tolist() for bars in axis.containers
        }
        for axis in figure.axes
        if axis.get_visible()
    }


def test_the_figure_has_a_point_for_every_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = points(tmp_path / "a.png", monkeypatch, PARTIAL)
    assert list(found) == ["cub 5-shot", "cub 1-shot", "cars 1-shot"]
    values = {
        cell: {label: {round(y): x for x, y in some} for label, some in labels.items()}
        for cell, labels in found.items()
    }
    assert values == {
        "cub 5-shot": {"here": {0: 70.123}, "paper": {0: 71.0}},
        "cub 1-shot": {"here": {0: 50.0, 1: 40.0}, "paper": {0: 49.0}},
        "cars 1-shot": {"here": {1: 30.0}, "paper": {2: 31.0}},
    }
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width > 600


def test_without_numbers_of_the_paper_it_is_the_figure_of_accuracies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {name: {"ours": {"cub 1-shot": 50.0, "cub 5-shot": 60.0}} for name in ("one", "two")}
    called = []
    monkeypatch.setattr(tables.accuracies, "draw", lambda *values: called.append(values))
    tables.draw(record(rows), {}, tmp_path / "a.png")
    assert len(called) == 1


# --- yardsticks ---


@pytest.mark.parametrize(
    ("ours", "published", "words"),
    [
        ((60.0, 0.7), (60.0, 0.7), "reached"),
        ((58.7, 0.7), (60.0, 0.7), "reached"),
        ((58.5, 0.7), (60.0, 0.7), "0.1 short"),
        ((58.5, 0.7), (60.0, None), "0.8 short"),
        ((70.0, 0.1), (60.0, 0.1), "reached"),
    ],
)
def test_a_number_is_reached_where_the_intervals_meet(
    ours: tuple[float, float], published: tuple[float, float | None], words: str
) -> None:
    assert reached(ours, published) == words
    made = record({"one": {"ours": {"d 5-way 1-shot": ours[0]}, "paper": {"d 1-shot": published}}})
    made.rows["one"].cells[CellKey("d", 5, 1)].heads["ensemble"] = Mean(*ours)
    assert words not in record_markdown(made)
    assert words in record_markdown(dataclasses.replace(made, yardstick=True))


def test_a_setting_may_keep_the_cells_of_its_own_shots(trained: Path) -> None:
    runs = {"few": [Run(trained / "few/maml-0")]}
    every, kept = (
        evaluations({"maml": runs}, Selection(shots=shots))["maml"][0]
        for shots in ({}, {"few": [3]})
    )
    assert list(every.cells) == [TWO, THREE] and list(kept.cells) == [THREE]


@pytest.mark.parametrize(
    "name", [experiment.name for experiment in experiments() if experiment.yardstick]
)
def test_every_yardstick_row_trains_and_published_numbers_have_cells(name: str) -> None:
    """A cell without a run of its own could never be reached."""
    experiment = find_experiment(name)
    for row, own in experiment.rows.items():
        shots = [
            number
            for setting in own["settings"]
            for number in experiment.settings[setting].get("shots", [1, 5])
        ]
        for cell in own.get("paper", {}):
            assert CellKey.parse(cell).shots in shots, f"{row}: {cell}"


def test_what_trainings_cost_stands_beside_their_accuracy() -> None:
    made = record({"one": {"ours": {"d 1-shot": 50.0}}, "two": {"ours": {"d 1-shot": 40.0}}})
    assert "training" not in record_markdown(made), "nothing was counted"
    few = TrainingFacts(
        multiply_adds_per_step=2_000_000_000, steps=[500, 1500], seconds=[10.0, 31.0]
    )
    many = dataclasses.replace(few, steps=[3000, 3000])
    made.rows["one"].trainings = {"few": few, "many": many}
    made.rows["two"].trainings = {"": TrainingFacts(seconds=[7.0])}
    lines = record_markdown(made).splitlines()
    assert lines[2].endswith("| training, by setting |")
    assert lines[4].endswith("| 2e12 multiply-adds, 20 s<br>6e12 multiply-adds, 20 s |")
    assert lines[5].endswith("| no count, 7 s |")


def test_a_search_is_ordered_by_validation_with_means_over_other_domains() -> None:
    def row(validation: float, *means: float) -> Row:
        keys = [CellKey("a", 5, 1), CellKey("b", 5, 1), CellKey("a", 5, 5), CellKey("b", 5, 5)]
        cells = {
            key: Column("", {"ensemble": Mean(mean, 1.0)})
            for key, mean in zip(keys, means, strict=False)
        }
        return Row(cells, {"": TrainingFacts(seconds=[60.4], validation=[validation])})

    rows = {"low": row(50.0, 10.0, 20.0, 40.0, 60.0), "high": row(51.0)}
    record = Record("a", "", "", "", "accuracy %", True, "low", 2, 1, rows=rows)
    header, lines = search_lines(record)
    assert header == [
        "row", "validation", "other domains, 1-shot", "other domains, 5-shot", "seconds"
    ]  # fmt: skip
    assert lines == [["high", "51.00", "", "", "60"], ["low", "50.00", "15.00", "50.00", "60"]]


def test_validation_classes_that_are_a_benchmark_stand_apart_in_a_search() -> None:
    config = {"problem": {"init_args": {"validation": "a"}}}
    cells = {
        CellKey(name, 5, 5): Column("", {"ensemble": Mean(mean, 1.0)})
        for name, mean in (("a:validation", 10.0), ("b", 20.0), ("c", 40.0))
    }
    row = Row(cells, {"": TrainingFacts(config, seconds=[60.4], validation=[50.0])})
    record = Record("a", "", "", "", "accuracy %", True, "low", 2, 1, rows={"low": row})
    header, lines = search_lines(record)
    assert header == [
        "row", "validation", "validation classes, 5-shot", "other domains, 5-shot", "seconds"
    ]  # fmt: skip
    assert lines == [["low", "50.00", "10.00", "30.00", "60"]]


def test_a_search_does_not_rank_validation_tasks_of_different_ways_together() -> None:
    def row(ways: int, score: float) -> Row:
        config = {"problem": {"init_args": {"protocol": {"ways": ways}}}}
        return Row({}, {"": TrainingFacts(config, seconds=[1.0], validation=[score])})

    rows = {"many": row(16, 90.0), "low": row(5, 50.0), "high": row(5, 51.0)}
    record = Record("a", "", "", "", "accuracy %", True, "low", 2, 1, rows=rows)
    _, lines = search_lines(record)
    assert [line[:2] for line in lines] == [
        ["high", "51.00"], ["low", "50.00"], ["many", "90.00 (16-way)"]
    ]  # fmt: skip

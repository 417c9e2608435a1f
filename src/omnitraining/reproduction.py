"""Whole experiments: train every row for every seed, judge, and draw a table and a figure.

An experiment is one YAML file in ``experiments/``: what of the paper it reproduces, a common
configuration, and per row what differs. Its results go into one record, from which tables and
figures are drawn.
"""

import importlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from omnitraining.claims import Claim
from omnitraining.display import TrainingDisplay, comparison_table, show, validation_table
from omnitraining.errors import InputError
from omnitraining.jobs import Job, check_unchanged, judge, train, tune
from omnitraining.recipes import merge, with_recipe
from omnitraining.records import Results, Shown, Values, write_record
from omnitraining.runs import Run
from omnitraining.tasks.classification import placeholders
from omnitraining.tasks.classification.datasets import read
from omnitraining.tasks.classification.datasets.standards import complaints

OF_A_ROW = ("run", "continues", "previous", "start", "settings", "paper", "smoke")
"""What a row may say beside fields of the configuration."""

OF_A_SETTING = ("called",)
"""What a setting may say beside fields of the configuration."""

TUNED_IN_SMOKE = 2  # tasks of fine-tuning in the tiny variant


@dataclass(frozen=True)
class Suite:
    """An experiment of several rows.

    A file may say ``like: NAME``: it has what the experiment of that name has, except for what it
    says itself; its rows are added, and a row that is null is left out, with claims about it.
    With ``keep: {rows: [ROW, ...], settings: [SETTING, ...]}`` it has only those of the other's
    rows or settings, in that order, and then its own.

    A row holds fields of the configuration. Beside them it may say

    - ``run: NAME``: its runs are called so and not as the row, because a row of another experiment
      in the same folder has the same ones;
    - ``continues: ROW``: it is that row trained on for more steps, which with a constant learning
      rate gives the same weights as training it afresh, at less cost;
    - ``previous: ROW``: it is that row again, taught by its run of the same setting and seed;
    - ``start: ROW``: it starts from the backbone of that row's run of the same setting and seed;
    - ``settings: [NAME, ...]``: it is trained in these settings only;
    - ``paper: {"cub 5-shot": [91.09, 0.38], ...}``: mean and interval that the paper prints, or
      the mean alone;
    - ``recipe: NAME``: fields of a recipe stand over those of the row (`omnitraining.recipes`);
    - ``smoke: FIELDS``: its own fields of the tiny variant.

    A row that continues another or names a previous one has its fields and its settings.

    A setting may say ``called: {BENCHMARK: NAME}``: what a benchmark is called in the record, for
    settings that share one.

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
        settings: separate trainings of every row that together make one table, as on
            mini-ImageNet and on CUB: per setting, the fields that differ.
        claims: what is said about rows, as fields of `Claim`.
        show: benchmarks that go into the record; all if empty. Experiments that share a folder
            have the same configurations, and can show different benchmarks of the same runs.
        tuned: first test tasks on which the whole backbone of every flow is fine-tuned too, whose
            cells stand beside the others (Figure 10c); none if 0.
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
    settings: dict[str, Values] = field(default_factory=dict)
    claims: list[Values] = field(default_factory=list)
    show: list[str] = field(default_factory=list)
    tuned: int = 0


def suites() -> list[Suite]:
    """All shipped experiments, by name; Figure 10 comes after Figure 9."""
    folder = resources.files("omnitraining") / "experiments"
    files = [file for file in folder.iterdir() if file.name.endswith(".yaml")]
    values = {f.name.removesuffix(".yaml"): yaml.safe_load(f.read_text()) for f in files}

    def place(name: str) -> list[tuple[int, str]]:
        parts = re.split(r"(\d+)", name)
        return [(int(part), "") if part.isdigit() else (0, part) for part in parts]

    return [Suite(name, **completed(name, values)) for name in sorted(values, key=place)]


def completed(name: str, values: dict[str, Values]) -> Values:
    """What a file says, over what the file says that it names as ``like``.

    Args:
        name: of the experiment.
        values: of all files, by the names of their experiments.
    """
    own = dict(values[name])
    like = own.pop("like", None)
    if like is None:
        return own
    before = completed(like, values)
    keep = own.pop("keep", {})
    taken = {row: before["rows"][row] for row in keep.get("rows", before["rows"])}
    rows = {**taken, **own.pop("rows", {})}
    if "settings" in keep:
        places = {name: before["settings"][name] for name in keep["settings"]}
        own["settings"] = {**places, **own.get("settings", {})}
    kept = {row: fields for row, fields in rows.items() if fields is not None}
    about = [claim for claim in before.get("claims", []) if _rows_of(claim) <= {*kept}]
    return {**before, "claims": about, **own, "rows": kept}


def _rows_of(claim: Values) -> set[str]:
    return {claim[key] for key in ("row", "above", "level") if key in claim}


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
    settings: list[str] | None = None,
    data: Path | None = None,
    budget: float = 1.0,
) -> Path:
    """Run an experiment; runs that are there are kept, unfinished ones resumed.

    The record and the table have what is finished, also when training is interrupted and when it
    was finished by another call: a row has results in a setting once all its seeds are there.

    Args:
        name: of the experiment.
        folder: where runs, record and figure go.
        smoke: the tiny variant, of the first seed and the first setting if not told otherwise.
        seeds: instead of the experiment's own.
        only: train only these rows, and draw no figure.
        settings: train only in these settings.
        data: folder of data sets, for experiments on photographs.
        budget: fraction of the training that the experiment states, as `within_budget` cuts it.

    Returns:
        The record.

    Raises:
        InputError: there is no such experiment, row or setting; data sets are missing; or a run
            in the folder has another configuration.
    """
    suite = find_suite(name)
    _check_names(name, "row", only, suite.rows)
    _check_names(name, "setting", settings, suite.settings)
    if not 0 < budget <= 1:
        raise InputError(f"--budget is {budget}: it must be greater than 0 and at most 1")
    part = f"-budget-{budget:g}" * (budget < 1) + "-smoke" * smoke
    folder = folder or Path("runs") / ((suite.folder or name) + part)
    used = seeds or suite.seeds[: 1 if smoke else None]
    settings = settings or [*suite.settings][: 1 if smoke else None]
    data_fields = _data_fields(suite, folder, smoke, settings, data)
    jobs = plan(suite, folder, used, smoke, data_fields, budget)
    chosen = [
        job
        for job in jobs
        if (not only or job.row in only) and (not settings or job.setting in settings)
    ]
    if not chosen:
        raise InputError(f"{name} has no {' or '.join(only or [])} in {', '.join(settings)}")
    for job in jobs:
        check_unchanged(job)
    print(f"{name}: {suite.title}\n  paper: {suite.paper}\n  time: {suite.time}", flush=True)
    path = folder / f"{name}.json"
    command = f"omni reproduce {name}" + " --smoke" * smoke + " --data DIR" * (data is not None)
    command += f" --budget {budget:g}" * (budget < 1)
    try:
        for job in chosen:
            with TrainingDisplay(job.title) as progress:
                train(job, progress)
            judge(job, 20 if smoke else None)
            if suite.tuned:
                tune(job, TUNED_IN_SMOKE if smoke else suite.tuned)
    finally:  # an interrupted experiment shows what is there
        results = _finished(suite, jobs)
        if results:
            _write_record(suite, results, command, path)
    if suite.draw and not only:
        drawing = importlib.import_module(f"omnitraining.analysis.{suite.draw}")
        runs = {row: [run for some in by.values() for run in some] for row, by in results.items()}
        record = json.loads(path.read_text())
        print(f"figure: {drawing.draw(record, runs, path.with_suffix('.png'))}")
    return path


def plan(
    suite: Suite,
    folder: Path,
    seeds: list[int],
    smoke: bool = False,
    data: Values | None = None,
    budget: float = 1.0,
) -> list[Job]:
    """All runs of an experiment, in the order in which they are trained.

    Args:
        suite: the experiment.
        folder: of the runs.
        seeds: of weights and samples.
        smoke: the tiny variant.
        data: fields of the configuration that say where photographs are.
        budget: fraction of the training, as `within_budget` cuts it.
    """
    jobs = []
    for seed in seeds:
        for setting in suite.settings or [""]:
            place = folder / setting
            for row, own in suite.rows.items():
                if setting not in _option(suite, row, "settings", suite.settings or [""]):
                    continue
                values = with_recipe(
                    merge(suite.config, _setting(suite, setting), _fields(suite, row))
                )
                values = merge(
                    values,
                    merge(suite.smoke, _option(suite, row, "smoke", {})) if smoke else {},
                    data or {},
                    {"seed": seed},
                )
                values = within_budget(values, budget)
                if teacher := _teacher(suite, row):
                    values["previous"] = str((place / _run(suite, teacher, seed)).absolute())
                if begun := own.get("start"):
                    values["start"] = str((place / _run(suite, begun, seed)).absolute())
                before = own.get("continues")
                continues = place / _run(suite, before, seed) if before else None
                target = place / _run(suite, row, seed)
                # Whatever a row goes on from is another row of the same experiment.
                jobs.append(Job(row, setting, target, values, continues, trust=True))
    return jobs


def within_budget(values: Values, budget: float) -> Values:
    """A configuration that trains for a fraction of what it would.

    In reinforcement learning half of the cut is in tasks per step and half in steps, so that the
    simulated steps are that fraction, and test tasks are cut by the fraction; elsewhere the cut
    is in steps.
    """
    if budget == 1:
        return values
    training, problem = values["training"], values["problem"].get("init_args", {})
    acting = "tasks" in problem and values["problem"]["class_path"] == "Reinforcement"
    share = budget**0.5 if acting else budget
    steps = {name: max(1, round(share * training[name])) for name in ("steps", "epoch")}
    fields: Values = {"training": steps if training["steps"] else {}}
    if acting:
        fewer = {
            "tasks": max(1, round(share * problem["tasks"])),
            "test_tasks": max(2, round(budget * problem.get("test_tasks", 2000))),
        }
        fields["problem"] = {"init_args": fewer}
    return merge(values, fields)


def _run(suite: Suite, row: str, seed: int) -> str:
    """Name of the run of a row."""
    return f"{suite.rows[row].get('run', row)}-{seed}"


def _setting(suite: Suite, name: str) -> Values:
    """Fields of the configuration that differ in a setting."""
    fields = suite.settings.get(name, {})
    return {key: value for key, value in fields.items() if key not in OF_A_SETTING}


def _origin(suite: Suite, row: str) -> str | None:
    """The row whose fields a row has too."""
    own = suite.rows[row]
    return own.get("continues") or own.get("previous")


def _fields(suite: Suite, row: str) -> Values:
    """What differs in a row, with what differs in the row that it goes on from."""
    fields = {key: value for key, value in suite.rows[row].items() if key not in OF_A_ROW}
    before = _origin(suite, row)
    return merge(_fields(suite, before), fields) if before else fields


def _option(suite: Suite, row: str, name: str, default: Any) -> Any:
    """What a row says beside its fields, or else the row that it goes on from."""
    before = _origin(suite, row)
    inherited = _option(suite, before, name, default) if before else default
    return suite.rows[row].get(name, inherited)


def _teacher(suite: Suite, row: str) -> str | None:
    """The row that teaches a row."""
    own = suite.rows[row]
    return _teacher(suite, own["continues"]) if "continues" in own else own.get("previous")


def _data_fields(
    suite: Suite, folder: Path, smoke: bool, settings: list[str], data: Path | None
) -> Values:
    """Where the photographs are, if an experiment needs any; made up for the tiny variant."""
    if suite.config["problem"]["class_path"] != "Photos":
        if data is not None:
            raise InputError(f"{suite.name} takes no --data: it makes its own samples")
        return {}
    names = _data_sets(suite, settings)
    if data is None and smoke:
        made = placeholders.write(folder / "placeholders", names).absolute()
        return {"problem": {"init_args": {"data": str(made), "complete": False}}}
    if data is None:
        raise InputError(
            f"{suite.name} needs photographs: give --data DIR, a folder that holds "
            f"{', '.join(names)}; or try it with --smoke, which makes up a few"
        )
    # Before the first training, not after it, is the time to hear that the second lacks its data.
    for name in names:
        if not (data / name).exists():
            raise InputError(
                f"there is no data set {name!r} in {data}: {suite.name} needs {', '.join(names)}"
            )
        if wrong := complaints(name, read(data / name)):
            raise InputError(wrong[0])
    return {"problem": {"init_args": {"data": str(data.absolute())}}}


def _data_sets(suite: Suite, settings: list[str]) -> list[str]:
    """Names of the data sets that an experiment on photographs reads."""
    names: dict[str, None] = {}
    for setting in settings or [""]:
        values = merge(suite.config, _setting(suite, setting))["problem"]["init_args"]
        for part in (*values["training"], values["validation"], *values["benchmarks"]):
            names[part.partition(":")[0]] = None
    return list(names)


def _check_names(suite: str, what: str, given: list[str] | None, known: Mapping[str, Any]) -> None:
    for name in given or []:
        if name not in known:
            choice = f"choose from {', '.join(known)}" if known else "it has none"
            raise InputError(f"{suite} has no {what} {name!r}: {choice}")


def _finished(suite: Suite, jobs: list[Job]) -> Results:
    """Runs by row and setting, as far as those of all seeds are trained and judged."""
    results: Results = {}
    for row in suite.rows:
        for setting in suite.settings or [""]:
            those = [job for job in jobs if (job.row, job.setting) == (row, setting)]
            judged = [job.is_judged and (job.is_tuned or not suite.tuned) for job in those]
            if those and all(job.is_trained for job in those) and all(judged):
                results.setdefault(row, {})[setting] = [Run(job.folder) for job in those]
    return results


def _write_record(suite: Suite, results: Results, command: str, path: Path) -> None:
    """Write and show everything a table or figure needs, and where it came from."""
    facts = {
        "experiment": suite.name,
        "title": suite.title,
        "paper": suite.paper,
        "command": command,
    }
    paper = {row: {"paper": own["paper"]} for row, own in suite.rows.items() if "paper" in own}
    claims = [Claim(**claim) for claim in suite.claims]
    called = {name: fields.get("called", {}) for name, fields in suite.settings.items()}
    shown = Shown(suite.show, called, ("test", "tuned") if suite.tuned else ("test",))
    record, pooled = write_record(path, facts, results, shown, paper, claims)
    if suite.draw in ("tables", "pairs", "flow_curves", "flow_attention"):
        from omnitraining.analysis import tables  # matplotlib is not for 'omni list' to wait for

        show(tables.table(record))
    elif suite.draw:
        show(comparison_table(pooled))
    else:
        show(validation_table(suite.name, {r: v["validation"] for r, v in record["rows"].items()}))
    print(f"record: {path}")

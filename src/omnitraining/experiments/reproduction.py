"""Whole experiments: train every row for every seed, evaluate, and draw a table and a figure.

An experiment is one YAML file in ``experiments/``: what of the paper it reproduces, a common
configuration, and per row what differs. Its results go into one record, from which tables and
figures are drawn.
"""

import importlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omnitraining.config.recipes import merge, with_recipe
from omnitraining.datasets import placeholders, read
from omnitraining.datasets.standards import standard_differences
from omnitraining.errors import InputError
from omnitraining.experiments.display import TrainingDisplay, show
from omnitraining.experiments.experiment import OF_A_ROW, OF_A_SETTING, Experiment, find_experiment
from omnitraining.experiments.jobs import Job, check_unchanged, evaluate, fine_tune, train
from omnitraining.experiments.record import Row, Values, printed, read_record, write_record
from omnitraining.experiments.recording import Results, Selection, make_record
from omnitraining.experiments.tables import costs, record_table, search_table
from omnitraining.experiments.timing import cost_table, step_costs
from omnitraining.io.files import locked, write_json
from omnitraining.io.terminal import say
from omnitraining.runs.run import Run, provenance

FINE_TUNED_IN_SMOKE = 2  # tasks of fine-tuning in the tiny variant


def reproduce(
    name: str,
    folder: Path | None = None,
    smoke: bool = False,
    seeds: list[int] | None = None,
    only: list[str] | None = None,
    settings: list[str] | None = None,
    data: Path | None = None,
    budget: float = 1.0,
    cost: bool = False,
) -> Path:
    """Run an experiment; finished runs are kept, unfinished ones resumed.

    The record and the table have all finished rows, also when training is interrupted and when
    another call finished them: a row has results in a setting once all its seeds are finished.

    Args:
        name: of the experiment.
        folder: where runs, record and figure go.
        smoke: the tiny variant, of the first seed and the first setting by default.
        seeds: instead of the experiment's own.
        only: train only these rows, and draw no figure.
        settings: train only in these settings.
        data: folder of data sets, for experiments on photographs.
        budget: fraction of the training that the experiment states, as `within_budget` cuts it.
        cost: train nothing, but time a step of every chosen row, by turns in one run; the record
            has these seconds when it is written the next time.

    Returns:
        The record; with ``cost``, the file of the costs.

    Raises:
        InputError: there is no such experiment, row or setting; data sets are missing; or a run
            in the folder has another configuration.
    """
    experiment = find_experiment(name)
    _check_names(name, "row", only, experiment.rows)
    _check_names(name, "setting", settings, experiment.settings)
    if not 0 < budget <= 1:
        raise InputError(f"--budget is {budget}: it must be greater than 0 and at most 1")
    part = f"-budget-{budget:g}" * (budget < 1) + "-smoke" * smoke
    folder = folder or Path("runs") / ((experiment.folder or name) + part)
    used = seeds or experiment.seeds[: 1 if smoke else None]
    settings = settings or [*experiment.settings][: 1 if smoke else None]
    data_fields = _data_fields(experiment, folder, smoke, settings, data)
    jobs = plan(experiment, folder, used, smoke, data_fields, budget)
    chosen = [
        job
        for job in jobs
        if (not only or job.row in only) and (not settings or job.setting in settings)
    ]
    if not chosen:
        raise InputError(f"{name} has no {' or '.join(only or [])} in {', '.join(settings)}")
    if cost:
        return _time_steps(name, folder, chosen)
    for job in jobs:
        check_unchanged(job)
    say(f"{name}: {experiment.title}\n  paper: {experiment.paper}\n  time: {experiment.time}")
    path = folder / f"{name}.json"
    command = f"omni reproduce {name}" + " --smoke" * smoke + " --data DIR" * (data is not None)
    command += f" --budget {budget:g}" * (budget < 1)
    if seeds and seeds != experiment.seeds and not smoke:
        command += f" --seeds {' '.join(map(str, seeds))}"
    try:
        for job in chosen:
            with TrainingDisplay(job.title) as progress:
                train(job, progress)
            evaluate(job, 20 if smoke else None)
            if tasks := experiment.fine_tuned_tasks:
                fine_tune(job, FINE_TUNED_IN_SMOKE if smoke else tasks)
    finally:  # an interrupted experiment shows what is there
        folder.mkdir(parents=True, exist_ok=True)
        # Another process may train other rows; the last one to end finds all finished runs.
        with locked(folder / ".lock"):
            results = _finished(experiment, jobs)
            if results:
                _write_record(experiment, results, command, path)
    if experiment.draw and not only:
        drawing = importlib.import_module(f"omnitraining.experiments.figures.{experiment.draw}")
        runs = {row: [run for some in by.values() for run in some] for row, by in results.items()}
        picture = drawing.draw(read_record(path), runs, path.with_suffix(".png"))
        say(f"figure: {picture}")
    return path


def _time_steps(name: str, folder: Path, jobs: list[Job]) -> Path:
    """Time a training step of every row, with its first seed; show and keep the result."""
    first = {(job.row, job.setting): job for job in reversed(jobs)}
    chosen = [job for job in jobs if first[job.row, job.setting] is job]
    say(f"{name}: a training step of {len(chosen)} rows, by turns")
    timed = step_costs(chosen)
    rows: Values = {}
    for job, one in zip(chosen, timed, strict=True):
        rows.setdefault(job.row, {})[job.setting] = asdict(one)
    # Written whole, never added to: seconds of different runs do not compare.
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.costs.json"
    write_json(path, {"provenance": provenance(), "rows": rows})
    names = ["/".join(filter(None, (job.setting, job.row))) for job in chosen]
    show(cost_table(name, dict(zip(names, timed, strict=True))))
    return path


def plan(
    experiment: Experiment,
    folder: Path,
    seeds: list[int],
    smoke: bool = False,
    data: Values | None = None,
    budget: float = 1.0,
) -> list[Job]:
    """All runs of an experiment, in the order in which they are trained.

    Args:
        experiment: the experiment.
        folder: of the runs.
        seeds: of weights and samples.
        smoke: the tiny variant.
        data: fields of the configuration that specify where photographs are.
        budget: fraction of the training, as `within_budget` cuts it.
    """
    jobs = []
    for seed in seeds:
        for setting in experiment.settings or [""]:
            place = folder / setting
            for row, own in experiment.rows.items():
                if setting not in _option(experiment, row, "settings", experiment.settings or [""]):
                    continue
                values = with_recipe(
                    merge(
                        experiment.config,
                        _setting(experiment, setting),
                        _fields(experiment, row, setting),
                    )
                )
                values = merge(
                    values,
                    merge(experiment.smoke, _option(experiment, row, "smoke", {})) if smoke else {},
                    data or {},
                    {"seed": seed},
                )
                values = within_budget(values, budget)
                if teacher := _teacher(experiment, row):
                    values["teacher_run"] = str(
                        (place / _run(experiment, teacher, seed)).absolute()
                    )
                if begun := own.get("start_from"):
                    values["start_from"] = str((place / _run(experiment, begun, seed)).absolute())
                before = own.get("continues")
                continues = place / _run(experiment, before, seed) if before else None
                target = place / _run(experiment, row, seed)
                # A row can only continue another row of the same experiment.
                jobs.append(Job(row, setting, target, values, continues, trust=True))
    return jobs


_MOMENTS = {"training": ("warmup", "decay_from"), "loss": ("warmup", "branch_at", "meta_at")}
"""Options that are steps of a training, by field of the configuration."""


def within_budget(values: Values, budget: float) -> Values:
    """A configuration that trains for a fraction of the full training.

    In reinforcement learning half of the cut is in tasks per step and half in steps, so that the
    simulated steps are that fraction, and test tasks are cut by the fraction; elsewhere the cut
    is in steps. Steps at which something begins or ends are cut likewise.
    """
    if budget == 1:
        return values
    training, problem = values["training"], values["problem"].get("init_args", {})
    acting = "tasks" in problem and values["problem"]["class_path"] == "Reinforcement"
    share = budget**0.5 if acting else budget
    fields: Values = {}
    if training["steps"]:
        fields = {
            part: {
                name: round(share * moment)
                for name in names
                if isinstance(moment := values.get(part, {}).get(name), int)  # no fraction
            }
            for part, names in _MOMENTS.items()
        }
        lengths = {name: max(1, round(share * training[name])) for name in ("steps", "val_every")}
        fields["training"] |= lengths
    if acting:
        fewer = {
            "tasks": max(1, round(share * problem["tasks"])),
            "test_tasks": max(2, round(budget * problem.get("test_tasks", 2000))),
        }
        fields["problem"] = {"init_args": fewer}
    return merge(values, fields)


def _run(experiment: Experiment, row: str, seed: int) -> str:
    """Name of the run of a row."""
    return f"{experiment.rows[row].get('run', row)}-{seed}"


def _setting(experiment: Experiment, name: str) -> Values:
    """Fields of the configuration that differ in a setting."""
    fields = experiment.settings.get(name, {})
    return {key: value for key, value in fields.items() if key not in OF_A_SETTING}


def _origin(experiment: Experiment, row: str) -> str | None:
    """The row whose fields a row has too."""
    own = experiment.rows[row]
    return own.get("continues") or own.get("teacher_run")


def _fields(experiment: Experiment, row: str, setting: str) -> Values:
    """The fields that a row changes in a setting, with the fields of the row that it continues."""
    fields = {key: value for key, value in experiment.rows[row].items() if key not in OF_A_ROW}
    there = experiment.settings.get(setting, {}).get("rows", {}).get(row, {})
    before = _origin(experiment, row)
    return merge(_fields(experiment, before, setting) if before else {}, fields, there)


def _option(experiment: Experiment, row: str, name: str, default: Any) -> Any:
    """A key of a row that is no field of the configuration, or of the row that it continues."""
    before = _origin(experiment, row)
    inherited = _option(experiment, before, name, default) if before else default
    return experiment.rows[row].get(name, inherited)


def _teacher(experiment: Experiment, row: str) -> str | None:
    """The row that teaches a row."""
    own = experiment.rows[row]
    return _teacher(experiment, own["continues"]) if "continues" in own else own.get("teacher_run")


def _data_fields(
    experiment: Experiment, folder: Path, smoke: bool, settings: list[str], data: Path | None
) -> Values:
    """Where the photographs are, if an experiment needs any; made up for the tiny variant."""
    if experiment.config["problem"]["class_path"] != "Photos":
        if data is not None:
            raise InputError(f"{experiment.name} takes no --data: it makes its own samples")
        return {}
    names = _data_sets(experiment, settings)
    if data is None and smoke:
        made = placeholders.write(folder / "placeholders", names).absolute()
        return {"problem": {"init_args": {"data": str(made), "complete": False}}}
    if data is None:
        raise InputError(
            f"{experiment.name} needs photographs: give --data DIR, a folder that holds "
            f"{', '.join(names)}; or try it with --smoke, which makes up a few"
        )
    # Before the first training, not after it, is the time to hear that the second lacks its data.
    for name in names:
        if not (data / name).exists():
            raise InputError(
                f"there is no data set {name!r} in {data}: {experiment.name} needs "
                f"{', '.join(names)}"
            )
        if wrong := standard_differences(name, read(data / name)):
            raise InputError(wrong[0])
    return {"problem": {"init_args": {"data": str(data.absolute())}}}


def _data_sets(experiment: Experiment, settings: list[str]) -> list[str]:
    """Names of the data sets that an experiment on photographs reads."""
    names: dict[str, None] = {}
    for setting in settings or [""]:
        values = merge(experiment.config, _setting(experiment, setting))["problem"]["init_args"]
        for part in (*values["training"], values["validation"], *values["benchmarks"]):
            names[part.partition(":")[0]] = None
    return list(names)


def _check_names(
    experiment: str, what: str, given: list[str] | None, known: Mapping[str, Any]
) -> None:
    for name in given or []:
        if name not in known:
            choice = f"choose from {', '.join(known)}" if known else "it has none"
            raise InputError(f"{experiment} has no {what} {name!r}: {choice}")


def _finished(experiment: Experiment, jobs: list[Job]) -> Results:
    """Runs by row and setting, as far as all seeds are trained and evaluated."""
    results: Results = {}
    for row in experiment.rows:
        for setting in experiment.settings or [""]:
            own = [job for job in jobs if (job.row, job.setting) == (row, setting)]
            if own and all(_is_finished(job, experiment) for job in own):
                results.setdefault(row, {})[setting] = [Run(job.folder) for job in own]
    return results


def _is_finished(job: Job, experiment: Experiment) -> bool:
    is_fine_tuned = job.is_fine_tuned or not experiment.fine_tuned_tasks
    return job.is_trained and job.is_evaluated and is_fine_tuned


def _write_record(experiment: Experiment, results: Results, command: str, path: Path) -> None:
    """Write and show everything a table or figure needs, and where it came from."""
    header = {
        "experiment": experiment.name,
        "title": experiment.title,
        "paper": experiment.paper,
        "command": command,
        "yardstick": experiment.yardstick,
    }
    settings = experiment.settings
    selection = Selection(
        experiment.show,
        {name: fields.get("rename", {}) for name, fields in settings.items()},
        {name: fields.get("shots", []) for name, fields in settings.items()},
        ("test", "tuned") if experiment.fine_tuned_tasks else ("test",),
    )
    seconds = _seconds_per_step(path.with_name(f"{experiment.name}.costs.json"))
    beside = {
        row: Row(paper=printed(own.get("paper", {})), seconds_per_step=seconds.get(row, {}))
        for row, own in experiment.rows.items()
    }
    record = make_record(header, results, selection, beside, experiment.claims)
    if experiment.draw:
        show(record_table(record))
    else:
        show(search_table(experiment.name, record))
    for row, texts in costs(record).items():
        say(f"training of {row}: {'; '.join(texts)}")
    write_record(path, record)
    say(f"record: {path}")


def _seconds_per_step(path: Path) -> dict[str, dict[str, float]]:
    """By row and setting, as ``--cost`` has timed them; empty where it has not."""
    if not path.is_file():
        return {}
    rows = json.loads(path.read_text("utf-8"))["rows"]
    return {
        row: {setting: float(f"{one['seconds']:.4g}") for setting, one in by_setting.items()}
        for row, by_setting in rows.items()
    }

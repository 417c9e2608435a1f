"""Experiments: one YAML file each in ``experiments/``."""

import re
from dataclasses import dataclass, field
from functools import cache
from importlib import resources

import yaml

from omnitraining.errors import InputError
from omnitraining.experiments.claims import Claim
from omnitraining.experiments.record import Values

OF_A_ROW = ("run", "continues", "teacher_run", "start_from", "settings", "paper", "smoke")
"""Keys of a row that are not fields of the configuration."""

OF_A_SETTING = ("rename", "shots", "rows")
"""Keys of a setting that are not fields of the configuration."""


@dataclass(frozen=True)
class Experiment:
    """An experiment of several rows.

    A file with ``like: NAME`` inherits everything from the experiment of that name; its own entries
    override, its rows are added, and a row that is null is removed, with the claims about it. With
    ``keep: {rows: [ROW, ...], settings: [SETTING, ...]}`` it inherits these rows or settings only,
    in that order.

    A row holds fields of the configuration, and may have these keys:

    - ``run: NAME``: name of its runs, instead of the row's, where a row of another experiment in
      the same folder has the same runs;
    - ``continues: ROW``: it is that row trained on for more steps, which with a constant learning
      rate gives the same weights as training it afresh, at less cost;
    - ``teacher_run: ROW``: it is that row again, taught by its run of the same setting and seed;
    - ``start_from: ROW``: it starts from the weights of that row's run, same setting and seed;
    - ``settings: [NAME, ...]``: it is trained in these settings only;
    - ``paper: {"cub 5-shot": [91.09, 0.38], ...}``: mean and interval that the paper prints, or
      the mean alone;
    - ``recipe: NAME``: fields of a recipe override the row's (`recipes`);
    - ``smoke: FIELDS``: its own fields of the tiny variant.

    A row that continues another or has a teacher has its fields and its settings.

    A setting may have ``rename: {BENCHMARK: NAME}``, names of its benchmarks in the record, where
    settings share one; ``shots: [1]``, the only numbers of shots whose results go into the record;
    and ``rows: {ROW: FIELDS, ...}``, fields of a row that differ there.

    Attributes:
        name: of the file.
        title: what it shows, in a line.
        paper: what the paper reports, in words.
        time: how long it takes, and where that was measured.
        config: fields common to all rows.
        rows: per row, the fields that differ; the first row is the reference of differences.
        smoke: fields of the tiny variant.
        seeds: seeds of weights and samples.
        draw: module of `figures` that makes the figure; empty for a search, which is evaluated by
            validation alone.
        folder: default folder of runs, where experiments share them.
        settings: separate trainings of every row that together make one table, as on
            mini-ImageNet and on CUB: per setting, the fields that differ.
        claims: of the paper, about rows.
        show: benchmarks that go into the record; all if empty. Experiments that share a folder
            have the same configurations, and can show different benchmarks of the same runs.
        fine_tuned_tasks: number of the first test tasks on which the whole backbone of every flow
            is fine-tuned too, with results beside the others (Figure 10c); none if 0.
        yardstick: rows are rivals, and ``paper`` what their own authors published: the record shows
            which numbers are reached.
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
    claims: list[Claim] = field(default_factory=list)
    show: list[str] = field(default_factory=list)
    fine_tuned_tasks: int = 0
    yardstick: bool = False


@cache
def experiments() -> tuple[Experiment, ...]:
    """All shipped experiments, by name; Figure 10 comes after Figure 9."""
    folder = resources.files("omnitraining") / "experiments"
    files = [file for file in folder.iterdir() if file.name.endswith(".yaml")]
    # The parser in C, where PyYAML has it, takes a sixth of the time.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    values = {f.name.removesuffix(".yaml"): yaml.load(f.read_text("utf-8"), loader) for f in files}

    def place(name: str) -> list[tuple[int, str]]:
        parts = re.split(r"(\d+)", name)
        return [(int(part), "") if part.isdigit() else (0, part) for part in parts]

    return tuple(_made(name, completed(name, values)) for name in sorted(values, key=place))


def _made(name: str, values: Values) -> Experiment:
    claims = [Claim(**claim) for claim in values.pop("claims", [])]
    return Experiment(name, **values, claims=claims)


def completed(name: str, values: dict[str, Values]) -> Values:
    """The entries of a file over the entries of the file that it is ``like``.

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
    return {claim[key] for key in ("row", "better_than", "equivalent_to") if key in claim}


def find_experiment(name: str) -> Experiment:
    """The experiment of a name.

    Raises:
        InputError: there is none.
    """
    found = {experiment.name: experiment for experiment in experiments()}
    if name not in found:
        raise InputError(f"no experiment {name!r}: choose from {', '.join(found)}")
    return found[name]

"""Experiments: one YAML file each in ``experiments/``."""

import re
from dataclasses import dataclass, field
from importlib import resources

import yaml

from omnitraining.errors import InputError
from omnitraining.experiments.records import Values

OF_A_ROW = ("run", "continues", "teacher_run", "start_from", "settings", "paper", "smoke")
"""What a row may say beside fields of the configuration."""

OF_A_SETTING = ("called", "cells", "rows")
"""What a setting may say beside fields of the configuration."""


@dataclass(frozen=True)
class Experiment:
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
    - ``teacher_run: ROW``: it is that row again, taught by its run of the same setting and seed;
    - ``start_from: ROW``: it starts from the weights of that row's run, same setting and seed;
    - ``settings: [NAME, ...]``: it is trained in these settings only;
    - ``paper: {"cub 5-shot": [91.09, 0.38], ...}``: mean and interval that the paper prints, or
      the mean alone;
    - ``recipe: NAME``: fields of a recipe stand over those of the row (`recipes`);
    - ``smoke: FIELDS``: its own fields of the tiny variant.

    A row that continues another or has a teacher has its fields and its settings.

    A setting may say ``called: {BENCHMARK: NAME}``: what a benchmark is called in the record, for
    settings that share one; ``cells: [ENDING, ...]``: only cells whose names end so go into the
    record, as those of the shots that the setting trains for; and ``rows: {ROW: FIELDS, ...}``:
    fields of a row that differ there.

    Attributes:
        name: of the file.
        title: what it shows, in a line.
        paper: what the paper reports, in words.
        time: how long it takes, and where that was measured.
        config: fields common to all rows.
        rows: per row, the fields that differ; the first row is the reference of differences.
        smoke: fields of the tiny variant.
        seeds: seeds of weights and samples.
        draw: module of `figures` whose ``draw`` makes the figure; empty for a
            search, which is judged by validation alone.
        folder: default folder of runs, where experiments share them.
        settings: separate trainings of every row that together make one table, as on
            mini-ImageNet and on CUB: per setting, the fields that differ.
        claims: what is said about rows, as fields of `Claim`.
        show: benchmarks that go into the record; all if empty. Experiments that share a folder
            have the same configurations, and can show different benchmarks of the same runs.
        tuned: first test tasks on which the whole backbone of every flow is fine-tuned too, whose
            cells stand beside the others (Figure 10c); none if 0.
        yardstick: rows are rivals, and ``paper`` what their own authors published: the record says
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
    claims: list[Values] = field(default_factory=list)
    show: list[str] = field(default_factory=list)
    tuned: int = 0
    yardstick: bool = False


def experiments() -> list[Experiment]:
    """All shipped experiments, by name; Figure 10 comes after Figure 9."""
    folder = resources.files("omnitraining") / "experiments"
    files = [file for file in folder.iterdir() if file.name.endswith(".yaml")]
    values = {f.name.removesuffix(".yaml"): yaml.safe_load(f.read_text("utf-8")) for f in files}

    def place(name: str) -> list[tuple[int, str]]:
        parts = re.split(r"(\d+)", name)
        return [(int(part), "") if part.isdigit() else (0, part) for part in parts]

    return [Experiment(name, **completed(name, values)) for name in sorted(values, key=place)]


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


def find_experiment(name: str) -> Experiment:
    """The experiment of a name.

    Raises:
        InputError: there is none.
    """
    found = {experiment.name: experiment for experiment in experiments()}
    if name not in found:
        raise InputError(f"no experiment {name!r}: choose from {', '.join(found)}")
    return found[name]

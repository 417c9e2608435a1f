"""The record of an experiment: results, cost and provenance of each row, as one JSON file.

    record = read_record(Path("results/glyphs.json"))
    record.rows["protonet"].cells[CellKey("latin", 5, 1)].heads["ensemble"].mean

`recording` makes records from runs; tables, figures and verdicts are drawn from them.
"""

import base64
import json
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from omnitraining.errors import InputError
from omnitraining.evaluation import (
    ENSEMBLE,
    CellKey,
    Difference,
    as_frame,
    keyed_cells,
    paired_difference,
)
from omnitraining.io.files import write_json

Values = dict[str, Any]
"""Nested values of a configuration, as YAML and JSON have them."""

Number = tuple[float, float | None]
"""A published mean and the half-width of its interval, if one is given."""


def rounded(value: float) -> float:
    """A number with the four digits that records have."""
    return float(f"{value:.4g}")


@dataclass(frozen=True)
class Mean:
    """A mean over tasks and seeds.

    Attributes:
        mean: of the score.
        interval: half-width of its 95 % interval.
        by_seed: the mean over tasks of each seed.
    """

    mean: float
    interval: float
    by_seed: tuple[float, ...] = ()


@dataclass
class Column:
    """Results of a row in one column.

    Attributes:
        tasks: hash of the test tasks.
        heads: results by head: each flow, and the ensemble.
        reference_minus_this: paired difference of the reference row's ensemble from this row's.
        scores: of each head, by seed and task [S, T], so that seeds and rows that are measured
            later can be joined and compared task by task; empty in older records.
    """

    tasks: str
    heads: dict[str, Mean]
    reference_minus_this: Difference | None = None
    scores: dict[str, list[list[float]]] = field(default_factory=dict, repr=False)

    @property
    def ensemble(self) -> Mean:
        """The result that counts: of the ensemble, or of the only head."""
        return self.heads[ENSEMBLE]

    def compared(self, reference: list[list[float]]) -> "Column":
        """The same results with the reference's lead.

        Args:
            reference: scores of its ensemble on the same tasks, by seed and task [S, T].
        """
        gap = paired_difference(reference, self.scores[ENSEMBLE])
        lead = Difference(rounded(gap.mean), rounded(gap.interval))
        return replace(self, reference_minus_this=lead)


@dataclass(frozen=True)
class TrainingFacts:
    """How the runs of a row were trained in one setting; lists have an entry per seed.

    Attributes:
        config: the configuration of the first seed, without folders of the machine.
        seeds: of the runs; none in older records.
        seconds: of training.
        steps: of training; none in records of version 0.1.
        multiply_adds_per_step: counted; None where they cannot be.
        precision: of training, ``"float32"`` or ``"bfloat16"``.
        peak_mib: peak memory of the process.
        best_step: of the checkpoint that is used.
        validation: its validation score.
        provenance: commit, versions and machine.
    """

    config: Values = field(default_factory=dict)
    seeds: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    multiply_adds_per_step: int | None = None
    precision: str = "float32"
    peak_mib: list[int] = field(default_factory=list)
    best_step: list[int] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    provenance: Values = field(default_factory=dict)

    @property
    def multiply_adds(self) -> float | None:
        """Multiply-adds of a whole training, averaged over seeds; None where not counted."""
        if not self.multiply_adds_per_step or not self.steps:
            return None
        return self.multiply_adds_per_step * sum(self.steps) / len(self.steps)


@dataclass
class Row:
    """Results of one method.

    Attributes:
        cells: results by what they were measured on.
        trainings: how the runs were trained, by setting; the setting is "" where there is none.
        paper: what the paper, or the method's authors, printed.
        seconds_per_step: by setting, timed with all rows in turn.
        varied: in a sweep, the values of the fields that were varied.
        of_seeds: in a sweep, the seeds that are finished.
    """

    cells: dict[CellKey, Column] = field(default_factory=dict)
    trainings: dict[str, TrainingFacts] = field(default_factory=dict)
    paper: dict[CellKey, Number] = field(default_factory=dict)
    seconds_per_step: dict[str, float] = field(default_factory=dict)
    varied: Values = field(default_factory=dict)
    of_seeds: list[int] = field(default_factory=list)

    def __repr__(self) -> str:
        means = [f"{k} {c.ensemble.mean:.4g}" for k, c in self.cells.items() if c.heads]
        return f"<row: {', '.join(means) or 'not measured'}>"

    @property
    def training(self) -> TrainingFacts:
        """Facts on the training of the first setting."""
        return next(iter(self.trainings.values()))


@dataclass(frozen=True)
class Comparison:
    """Paired differences of one row's head from another row's ensemble, by cell."""

    row: str
    head: str
    rival: str
    cells: dict[CellKey, Difference]

    @property
    def rows_and_head(self) -> tuple[str, str, str]:
        """The two rows and the head that are compared."""
        return self.row, self.head, self.rival


@dataclass
class Record:
    """Everything that a table or figure needs, and its provenance.

    Attributes:
        experiment: its name.
        title: what it shows, in a line.
        paper: what the paper reports, in words.
        command: that wrote the record.
        unit: of the scores.
        higher_is_better: direction of the scores.
        reference: the row that differences refer to.
        tasks: test tasks per cell; 0 for a search, which is evaluated by validation alone.
        seeds: how many the reference has.
        intervals: what they cover.
        rows: results by row.
        claims: differences of the rows that the experiment has claims about.
        yardstick: whether ``paper`` of the rows are numbers to be reached.
        failed: in a sweep, why runs failed, by their names.
    """

    experiment: str
    title: str
    paper: str
    command: str
    unit: str
    higher_is_better: bool
    reference: str
    tasks: int
    seeds: int
    intervals: str = "over tasks"
    rows: dict[str, Row] = field(default_factory=dict)
    claims: list[Comparison] = field(default_factory=list)
    yardstick: bool = False
    failed: dict[str, str] | None = None

    def __repr__(self) -> str:
        return (
            f"<record of {self.experiment}: {self.unit}, {len(self.rows)} rows, "
            f"{len(self.keys)} cells of {self.tasks} tasks, {self.seeds} seeds>"
        )

    def to_frame(self) -> Any:
        """Mean and interval of each head of each cell of each row, as a pandas DataFrame.

        Raises:
            InputError: pandas is not installed.
        """
        return as_frame(
            [
                {
                    "row": name,
                    **asdict(key),
                    "head": head,
                    "mean": found.mean,
                    "interval": found.interval,
                }
                for name, row in self.rows.items()
                for key, column in row.cells.items()
                for head, found in column.heads.items()
            ]
        )

    @property
    def sign(self) -> int:
        """1 where a higher score is better, else -1."""
        return 1 if self.higher_is_better else -1

    @property
    def keys(self) -> list[CellKey]:
        """The cells of all rows, in the order of their appearance."""
        return list(dict.fromkeys(key for row in self.rows.values() for key in row.cells))


# --- JSON ---


def read_record(path: Path) -> Record:
    """The record in a file.

    Raises:
        InputError: it cannot be read, or is damaged.
    """
    try:
        return from_json(json.loads(path.read_text("utf-8")))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged or not a record: {error}") from error


def write_record(path: Path, record: Record) -> None:
    """Write a record, so that the file is either old or new, never half."""
    write_json(path, as_json(record))


def as_json(record: Record) -> Values:
    """Values that JSON can hold, without entries that are empty; `from_json` reads them."""
    values: Values = {one.name: getattr(record, one.name) for one in fields(record)}
    values["rows"] = {name: _row_as_json(row) for name, row in record.rows.items()}
    values["claims"] = [
        {
            "row": claim.row,
            "head": claim.head,
            "rival": claim.rival,
            "cells": _cells_as_json(claim.cells, asdict),
        }
        for claim in record.claims
    ]
    if not record.yardstick:
        del values["yardstick"]
    if record.failed is None:
        del values["failed"]
    return values


def _row_as_json(row: Row) -> Values:
    values = {
        "cells": _cells_as_json(row.cells, _column_as_json),
        "trainings": {name: asdict(training) for name, training in row.trainings.items()},
        "paper": _cells_as_json(row.paper, lambda number: {"printed": list(number)}),
        "seconds_per_step": row.seconds_per_step,
        "varied": row.varied,
        "of_seeds": row.of_seeds,
    }
    return {name: value for name, value in values.items() if value or name == "cells"}


def _column_as_json(column: Column) -> Values:
    values = asdict(replace(column, scores={}))
    values["scores"] = {head: _packed(scores) for head, scores in column.scores.items()}
    return {name: value for name, value in values.items() if value not in (None, {})}


def _packed(scores: Sequence[Sequence[float]]) -> list[str]:
    """Scores by seed as texts: float32, compressed, and in base 64, a tenth of their digits."""
    return [
        base64.b64encode(zlib.compress(struct.pack(f"<{len(one)}f", *one), 9)).decode()
        for one in scores
    ]


def _unpacked(texts: Sequence[str]) -> list[list[float]]:
    """The scores that `_packed` encoded in these texts.

    Raises:
        ValueError: they are damaged.
    """
    try:
        parts = [zlib.decompress(base64.b64decode(text, validate=True)) for text in texts]
        return [[value for (value,) in struct.iter_unpack("<f", part)] for part in parts]
    except (zlib.error, struct.error) as error:
        raise ValueError(f"scores: {error}") from error


T = TypeVar("T")


def _cells_as_json(cells: Mapping[CellKey, T], as_values: Callable[[T], Values]) -> list[Values]:
    return [{**key.as_json(), **as_values(cell)} for key, cell in cells.items()]


def from_json(values: Any) -> Record:
    """The record that `as_json` made these values of, now or in version 0.1.

    Raises:
        ValueError: they are none; the message names what is wrong.
    """
    try:
        return Record(
            **{
                one.name: values[one.name]
                for one in fields(Record)
                if one.name in values and one.name not in ("rows", "claims")
            },
            rows={name: _row(row) for name, row in values["rows"].items()},
            claims=[_comparison(claim) for claim in values.get("claims", [])],
        )
    except KeyError as error:
        raise ValueError(f"it lacks {error}") from error
    except (AttributeError, TypeError, IndexError) as error:
        raise ValueError(" ".join(str(error).split())) from error


def _row(values: Values) -> Row:
    cells = {
        key: Column(
            str(cell["tasks"]),
            {head: _mean(found) for head, found in cell["heads"].items()},
            _difference(cell.get("reference_minus_this")),
            {head: _unpacked(texts) for head, texts in cell.get("scores", {}).items()},
        )
        for key, cell in keyed_cells(values["cells"])
    }
    return Row(
        cells,
        {name: _training(facts) for name, facts in _trainings(values).items()},
        dict(_published(values.get("paper", []))),
        dict(values.get("seconds_per_step", {})),
        dict(values.get("varied", {})),
        list(values.get("of_seeds", [])),
    )


def _trainings(values: Values) -> Values:
    """By setting; version 0.1 had them as ``settings``, or among the entries of the row."""
    for name in ("trainings", "settings"):
        if name in values:
            return dict(values[name])
    return {"": values} if "seconds" in values or "config" in values else {}


def _training(values: Values) -> TrainingFacts:
    return TrainingFacts(
        **{one.name: values[one.name] for one in fields(TrainingFacts) if one.name in values}
    )


def _published(values: Any) -> Iterator[tuple[CellKey, Number]]:
    """The published numbers by cell; experiments and version 0.1 have the cells as texts."""
    if isinstance(values, dict):
        values = [{**CellKey.parse(name).as_json(), "printed": v} for name, v in values.items()]
    for own in values:
        mean, interval = (*own["printed"], None)[:2]
        yield CellKey.from_json(own), (mean, interval)


def printed(values: Mapping[str, list[float]]) -> dict[CellKey, Number]:
    """Published numbers of a row of an experiment, as its YAML has them."""
    return dict(_published(dict(values)))


def _mean(values: Values) -> Mean:
    return Mean(float(values["mean"]), float(values["interval"]), tuple(values.get("by_seed", ())))


def _difference(values: Values | None) -> Difference | None:
    return None if values is None else Difference(float(values["mean"]), float(values["interval"]))


def _comparison(values: Values) -> Comparison:
    cells = {
        key: Difference(float(cell["mean"]), float(cell["interval"]))
        for key, cell in keyed_cells(values["cells"])
    }
    return Comparison(values["row"], values["head"], values["rival"], cells)

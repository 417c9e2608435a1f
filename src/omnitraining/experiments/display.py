"""Output on the terminal: tables of results and the progress of training."""

from collections.abc import Iterable
from importlib import resources
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from omnitraining import training
from omnitraining.errors import InputError
from omnitraining.evaluation import ENSEMBLE, Evaluation, paired_difference
from omnitraining.io.terminal import Pace, can_show, one_line, printable, say, shows_progress


class _Plain(Console):
    """A console that takes texts as they are: no markup, no emoji codes, no control characters."""

    def on_broken_pipe(self) -> None:
        raise  # for the command line, which ends; rich would end the process here

    def render_str(self, text: str, **options: Any) -> Text:
        if not can_show("±", self.file):
            text = text.replace("±", "+/-")
        return super().render_str(printable(text), **options | {"markup": False, "emoji": False})


def show(table: Table) -> None:
    """Print a table; as wide as it needs where the output is not a terminal.

    Titles and cells are texts as they are, and may hold any name of a file or class.
    """
    console = _Plain()
    if not console.is_terminal:
        console = _Plain(width=200)
    console.print(table)


class TrainingDisplay(training.Progress):
    """A progress bar with losses, validation score and time left; plain lines in a log file.

    Args:
        title: what is being trained.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.score = ""
        self.pace, self.first = Pace(), 0
        self.bar: Progress | None = None

    def __enter__(self) -> "TrainingDisplay":
        if shows_progress():
            self.bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),  # the number of steps is not known before the first ones
                TimeRemainingColumn(),
                TextColumn(  # gives way where there is little room
                    "{task.fields[losses]}",
                    markup=False,
                    table_column=Column(ratio=1, no_wrap=True),
                ),
                console=_Plain(stderr=True),
                transient=True,
                expand=True,
            )
            self.task = self.bar.add_task(printable(self.title), total=None, losses="")
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def begins(self, done: int, steps: int, plan: str) -> None:
        self.pace, self.first = Pace(), done
        self.note(f"step {done}, {plan}" if done else plan)

    def note(self, line: str) -> None:
        text = one_line(f"{self.title}: {line}")
        if self.bar is None:
            say(text, error=True)
        else:
            self.bar.console.print(text)

    def moved(self, done: int, steps: int) -> None:
        if self.bar is not None:
            self.bar.update(self.task, completed=done, total=steps)
        elif self.pace.is_due():
            told = self.pace.told(done - self.first, steps - self.first)
            self.note(f"step {done} of {steps}, {told}")

    def step(self, done: int, steps: int, terms: dict[str, float]) -> None:
        if self.bar is not None:
            losses = "  ".join(f"{name} {value:.3f}" for name, value in terms.items())
            self.bar.update(self.task, losses=f"{self.score}  {losses}")

    def validated(self, done: int, score: float, best: float) -> None:
        self.score = f"validation {score:.4g} (best {best:.4g})"
        if self.bar is None:
            self.note(f"step {done}, {self.score}")


def evaluation_table(title: str, evaluation: Evaluation) -> Table:
    """Cells as rows, heads as columns, each mean with its 95 % interval."""
    heads = list(dict.fromkeys(h for cell in evaluation.cells.values() for h in cell.scores))
    table = Table(title=f"{title}: {evaluation.unit}, mean and 95 % interval over tasks")
    table.add_column("benchmark")
    for head in heads:
        table.add_column(head, justify="right")
    for name, cell in evaluation.cells.items():
        table.add_row(name, *(_with_interval(cell.mean(h), cell.interval(h)) for h in heads))
    return table


def comparison_table(evaluations: dict[str, Evaluation], head: str = ENSEMBLE) -> Table:
    """Runs as columns; below each mean the paired difference of the reference from it.

    Args:
        evaluations: by run name; the first is the reference.
        head: the head to compare; runs that have one head only are compared by their ensemble.

    Raises:
        InputError: the runs were judged on different tasks, or share none.
    """
    (reference, first), *others = evaluations.items()
    table = Table(
        title=f"{first.unit}; below it: {reference} minus that run, paired, 95 % interval"
    )
    table.add_column("benchmark")
    for name in evaluations:
        table.add_column(name, justify="right")
    shared = [c for c in first.cells if all(c in other.cells for _, other in others)]
    if not shared:
        found = "; ".join(f"{name} has {', '.join(e.cells)}" for name, e in evaluations.items())
        raise InputError(f"these runs share no benchmark: {found}")
    for name in shared:
        mine = first.cells[name]
        if head not in mine.scores:
            raise InputError(f"{reference} has no head {head!r}, only {', '.join(mine.scores)}")
        row = [_with_interval(mine.mean(head), mine.interval(head))]
        for other, evaluation in others:
            cell = evaluation.cells[name]
            if cell.tasks_hash != mine.tasks_hash or len(cell.scores[ENSEMBLE]) != len(
                mine.scores[head]
            ):
                raise InputError(
                    f"{reference} and {other} were judged on different tasks of {name!r}: "
                    "run 'omni evaluate' on both"
                )
            theirs = head if head in cell.scores else ENSEMBLE
            gap = paired_difference(mine.scores[head], cell.scores[theirs])
            mark = "" if gap.is_significant else " n.s."
            row.append(
                f"{_with_interval(cell.mean(theirs), cell.interval(theirs))}\n"
                f"{gap.mean:+.3g} ± {gap.interval:.2g}{mark}"
            )
        table.add_row(name, *row)
    return table


def validation_table(title: str, scores: dict[str, list[float]]) -> Table:
    """Best validation score of every row of a search, by seed, best first."""
    table = Table("row", "best validation score, by seed", title=title)
    for row, values in sorted(scores.items(), key=lambda item: -sum(item[1])):
        table.add_row(row, "  ".join(f"{value:.4g}" for value in values))
    return table


def sweep_table(record: dict[str, Any]) -> Table:
    """Cells of a sweep with what is best in validation and the results on every benchmark.

    Args:
        record: as `omnitraining.experiments.sweeping` writes it.
    """
    rows = record["rows"]
    lines: dict[str, list[str]] = {"seeds": [], "best validation score": []}
    for row in rows.values():
        scores = row["validation"]
        lines["seeds"].append(", ".join(map(str, row["of_seeds"])))
        lines["best validation score"].append(f"{sum(scores) / len(scores):.4g}")
        for name, cell in row["cells"].items():
            head = cell["heads"][ENSEMBLE]
            lines.setdefault(name, []).append(_with_interval(head["mean"], head["interval"]))
    title = f"{record['title']}: {record['unit']}, mean over seeds, 95 % interval over tasks"
    if len(lines) <= 8:
        table = Table("", *(name.replace(" ", "\n") for name in lines), title=title)
        for label, texts in zip(rows, zip(*lines.values(), strict=True), strict=True):
            table.add_row(label, *texts)
    else:
        table = Table("", *(label.replace(", ", "\n") for label in rows), title=title)
        for name, line in lines.items():
            table.add_row(name, *line)
    return table


def _with_interval(mean: float, interval: float) -> str:
    return f"{mean:.2f} ± {interval:.2f}" if abs(mean) >= 10 else f"{mean:.4f} ± {interval:.4f}"


def fields_table(title: str, fields: Iterable[tuple[str, str, str]]) -> Table:
    """Fields of a configuration, their values, and what they mean."""
    table = Table(title=title, box=None, pad_edge=False)
    for column, widest in (("field", None), ("value", 32), ("meaning", None)):
        table.add_column(column, max_width=widest)
    for field in fields:
        table.add_row(*field)
    return table


def listing_table() -> Table:
    """Experiments and everything a configuration may name, with first lines of their docs."""
    from omnitraining.config.fields import known_classes
    from omnitraining.experiments.experiment import experiments

    table = Table(show_header=False, box=None, pad_edge=False)

    def section(title: str, entries: dict[str, Any]) -> None:
        table.add_row(Text(title, "bold"))
        for name, thing in entries.items():
            text = thing if isinstance(thing, str) else (thing.__doc__ or "").splitlines()[0]
            table.add_row(f"  {name}", text)

    section("experiments (omni reproduce NAME)", {s.name: s.title for s in experiments()})
    configs = resources.files("omnitraining") / "config" / "configs"
    section(
        "configurations (omni train FILE)",
        {
            str(c): c.read_text("utf-8").splitlines()[0].lstrip("# ")
            for c in sorted(configs.iterdir(), key=str)
            if c.name.endswith(".yaml")
        },
    )
    titles = {
        "problem": "problems",
        "environment": "environments of Reinforcement",
        "pretraining": "pre-training",
        "metatraining": "meta-training",
        "backbone": "backbones",
        "new_head": "new heads of Baseline",
    }
    for field, classes in known_classes().items():
        section(titles[field], classes)
    return table

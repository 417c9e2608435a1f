"""Output on the terminal: tables, and the progress of training."""

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
        """Prepare the display; entering it starts the bar."""
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

    def begin(self, done: int, steps: int, plan: str) -> None:
        """Show the plan, and the step of a resumed run."""
        self.pace, self.first = Pace(), done
        self.note(f"step {done}, {plan}" if done else plan)

    def note(self, line: str) -> None:
        """Show a line beside the progress."""
        text = one_line(f"{self.title}: {line}")
        if self.bar is None:
            say(text, error=True)
        else:
            self.bar.console.print(text)

    def advance(self, done: int, steps: int) -> None:
        """Show the number of finished steps; in a log file every few seconds."""
        if self.bar is not None:
            self.bar.update(self.task, completed=done, total=steps)
        elif self.pace.is_due():
            rate = self.pace.describe(done - self.first, steps - self.first)
            self.note(f"step {done} of {steps}, {rate}")

    def step(self, done: int, steps: int, terms: dict[str, float]) -> None:
        """Show the loss terms of a step, where there is a bar."""
        if self.bar is not None:
            losses = "  ".join(f"{name} {value:.3f}" for name, value in terms.items())
            self.bar.update(self.task, losses=f"{self.score}  {losses}")

    def validated(self, done: int, score: float, best: float) -> None:
        """Show a validation score, and the best one."""
        self.score = f"validation {score:.4g} (best {best:.4g})"
        if self.bar is None:
            self.note(f"step {done}, {self.score}")

"""Callbacks of a training."""

REPORT_EVERY = 50
"""Steps between reports of losses; there is one at every validation too."""


class Progress:
    """Callbacks of a training; the default ignores them."""

    def begin(self, done: int, steps: int, plan: str) -> None:
        """Called before the first step.

        Args:
            done: steps made before, by a resumed run.
            steps: steps of the training.
            plan: what is trained and how, in a line.
        """

    def advance(self, done: int, steps: int) -> None:
        """Called after each step."""

    def step(self, done: int, steps: int, terms: dict[str, float]) -> None:
        """Called every `REPORT_EVERY` steps, with the mean losses since the last call."""

    def validated(self, done: int, score: float, best: float) -> None:
        """Called after a validation."""

    def note(self, line: str) -> None:
        """Called with a choice that was made, or a reason to stop, in one line."""

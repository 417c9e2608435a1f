"""Validation and checkpoints in the course of a training."""

import math
import time
from typing import Any

from omnitraining.errors import InputError
from omnitraining.evaluation import ENSEMBLE, Inference
from omnitraining.model import Model
from omnitraining.runs.run import (
    Metrics,
    Run,
    load_checkpoint,
    save_checkpoint,
    training_state,
)
from omnitraining.training.progress import Progress
from omnitraining.training.stepper import Stepper


class Checkpointer:
    """Validates a model in training, and keeps its last and its best checkpoint.

    Args:
        run: folder of the checkpoints.
        stepper: with the model, its teacher and its optimizer.
        inference: how to predict in validation.
        progress: receives the scores.

    Attributes:
        state: plain values that checkpoints store beside the tensors: step, best_step, best (its
            score), best_weights ("student" or "teacher"), precision, seconds, seconds_of_steps.
    """

    def __init__(
        self, run: Run, stepper: Stepper, inference: Inference, progress: Progress
    ) -> None:
        """Start with the state of an untrained model."""
        self.run, self.stepper, self.inference, self.progress = run, stepper, inference, progress
        self.modules: dict[str, Model] = {
            "student": stepper.model,
            "teacher": stepper.teacher.model,
        }
        self.state: dict[str, Any] = {
            "step": 0, "best_step": 0, "best": -math.inf, "seconds": 0.0, "seconds_of_steps": 0.0
        }  # fmt: skip
        self._start = time.monotonic()

    def resume(self) -> None:
        """Continue from the last checkpoint, in the precision that the run began with.

        Raises:
            InputError: there is none, or it is damaged or of another model.
        """
        last = self.run.checkpoint("last")
        stored = load_checkpoint(last, {**self.modules}, self.stepper.optimizer)
        self.state |= training_state(last, stored)
        self._start = time.monotonic() - self.state["seconds"]
        if self.stepper.precision == "auto":
            self.stepper.precision = self.state.get("precision") or "auto"

    def end_epoch(self, step: int, metrics: Metrics) -> None:
        """Validate and write the checkpoints, if this is the main process.

        Args:
            step: steps made.
            metrics: where the scores go.

        Raises:
            InputError: a weight is not finite, or a checkpoint cannot be written.
        """
        _check_weights(self.stepper.model, step)
        if not self.stepper.context.is_main_process:
            return
        score, weights = self._validate(step, metrics)
        if score > self.state["best"]:
            self.state.update(best=score, best_step=step, best_weights=weights)
        self.state.update(step=step, seconds=time.monotonic() - self._start)
        # The last one comes last: a run killed before it is as if this epoch had not been.
        for name in ("best", "last") if self.state["best_step"] == step else ("last",):
            path = self.run.checkpoint(name)
            save_checkpoint(path, self.modules, self.stepper.optimizer, self.state)
        self.progress.validated(step, score, self.state["best"])

    def _validate(self, step: int, metrics: Metrics) -> tuple[float, str]:
        """The score of the student or the teacher, as `inference` selects, and its name."""
        scores, logged = {}, {}
        for name, model in self.modules.items():
            if self.inference.weights in (name, "best"):
                by_head = self.stepper.problem.validation_scores(model.eval(), self.inference)
                scores[name] = logged[f"validation_{name}"] = by_head.pop(ENSEMBLE)
                logged |= {f"validation_{name}_{flow}": s for flow, s in by_head.items()}
        self.stepper.train_mode()
        metrics.write(step, logged)
        weights, score = max(scores.items(), key=lambda item: item[1])
        return score, weights


def _check_weights(model: Model, done: int) -> None:
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise InputError(
                f"weights {name} are not finite at or shortly before step {done}; the last good "
                "checkpoint is kept: lower training.lr or loss.distill_weight"
            )

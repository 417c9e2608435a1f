"""Experiment trackers that receive the metrics of a training, through their own packages."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

from omnitraining.errors import InputError

LoggerName = Literal["tensorboard", "wandb", "mlflow"]
_MODULES = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb", "mlflow": "mlflow"}


class Logger(Protocol):
    """A tracker of scalars."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log values of a step by name."""

    def close(self) -> None:
        """Write what is buffered, and end the tracker's run."""


def make_loggers(
    names: Sequence[LoggerName] | None, folder: Path, resume_at: int = 0
) -> list[Logger]:
    """The trackers of a training.

    Args:
        names: of the trackers; TensorBoard where it is installed, if None.
        folder: of the run, whose name and ``config.yaml`` the trackers receive.
        resume_at: last step that is kept of an earlier part of the training.

    Raises:
        InputError: a package is not installed.
    """
    loggers: list[Logger] = []
    for name in ("tensorboard",) if names is None else names:
        try:
            package = import_module(_MODULES[name])
        except ImportError as error:
            if names is None:
                continue
            raise InputError(
                f"training.loggers names {name}, which is not installed: pip install {name}"
            ) from error
        loggers.append(_KINDS[name](package, folder, resume_at))
    return loggers


class TensorBoardLogger:
    """Event files in ``tensorboard/`` of the run.

    Args:
        package: ``torch.utils.tensorboard``.
        folder: as in `make_loggers`, and so is the rest.
        resume_at: later steps are hidden.
    """

    def __init__(self, package: Any, folder: Path, resume_at: int) -> None:
        """Open the event file."""
        self._writer = package.SummaryWriter(
            str(folder / "tensorboard"), purge_step=resume_at or None
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log values of a step by name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush the event file."""
        self._writer.close()


class WandbLogger:
    """A run of Weights & Biases, which a resumed training continues.

    Project, entity and mode are wandb's own: ``WANDB_PROJECT``, ``WANDB_ENTITY``, ``WANDB_MODE``.

    Args:
        package: ``wandb``.
        folder: as in `make_loggers`.
        resume_at: steps before are in the earlier part of the run.
    """

    def __init__(self, package: Any, folder: Path, resume_at: int) -> None:
        """Begin the run, or continue it."""
        identity = folder / "wandb-id.txt"
        known = _earlier_run(identity, resume_at)
        self._run = package.init(
            name=folder.name,
            dir=str(folder),
            config=_config(folder),
            id=known,
            resume="allow" if known else None,
        )
        identity.write_text(self._run.id, "utf-8")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log values of a step by name."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """End the run."""
        self._run.finish()


class MLflowLogger:
    """A run of MLflow, which a resumed training continues.

    Server and experiment are MLflow's own: ``MLFLOW_TRACKING_URI``, ``MLFLOW_EXPERIMENT_NAME``.

    Args:
        package: ``mlflow``.
        folder: as in `make_loggers`.
        resume_at: steps before are in the earlier part of the run.
    """

    def __init__(self, package: Any, folder: Path, resume_at: int) -> None:
        """Begin the run, or continue it."""
        identity = folder / "mlflow-id.txt"
        known = _earlier_run(identity, resume_at)
        self._mlflow = package
        run = package.start_run(run_id=known, run_name=None if known else folder.name)
        identity.write_text(run.info.run_id, "utf-8")
        if known is None and (folder / "config.yaml").is_file():
            package.log_artifact(str(folder / "config.yaml"))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log values of a step by name."""
        self._mlflow.log_metrics(dict(values), step=step)

    def close(self) -> None:
        """End the run."""
        self._mlflow.end_run()


def _earlier_run(identity: Path, resume_at: int) -> str | None:
    """The identity, from a file, of the tracker's run that a resumed training continues, if any."""
    return identity.read_text("utf-8").strip() if resume_at and identity.is_file() else None


def _config(folder: Path) -> dict[str, Any]:
    from omnitraining.config.values import read_yaml

    path = folder / "config.yaml"
    return dict(read_yaml(path)) if path.is_file() else {}


_KINDS: dict[str, Callable[[Any, Path, int], Logger]] = {
    "tensorboard": TensorBoardLogger,
    "wandb": WandbLogger,
    "mlflow": MLflowLogger,
}

"""The run folder: everything needed to resume, evaluate and trace a training run.

    config.yaml          the resolved configuration; paths in it are relative to this folder
    data.json            classes and file hashes of the training data, and the sizes that a model
                         needs of them, so that the model can be used without the data
    provenance.json      versions, commit, machine; wall time and peak memory when it has ended
    metrics.csv          losses and validation scores by step; TensorBoard files in tensorboard/
    last.safetensors     weights, teacher, optimizer and step of the latest checkpoint
    best.safetensors     the same at the best validation score
    evaluations/*.json   results with the hash of their tasks
    calibration.json     temperatures, ensemble weights and OOD thresholds of learners, from
                         validation tasks; measured at the end of training on files, and otherwise
                         when a learner is first loaded
    .lock                held by the process that trains the run

No file is a pickle, and the configuration may name classes from outside this library only if the
run is trusted: an untrusted run is safe to load.
"""

import csv
import json
import math
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from omnitraining.distributed import current_context
from omnitraining.errors import InputError
from omnitraining.evaluation import Evaluation
from omnitraining.io.files import atomic_path, locked, remove_parts
from omnitraining.runs.loggers import Logger, LoggerName, make_loggers


class Run:
    """A run folder.

    Args:
        path: the folder.
        create: make the folder if it is missing, for a new run.
        trust: let the configuration name classes from outside this library, whose code then runs.

    Attributes:
        path: the folder.
        trust: as given; true for a run that is created, which is the caller's own.

    Raises:
        InputError: the folder is not a run.

    Examples:
        >>> from tempfile import mkdtemp
        >>> run = Run(mkdtemp(), create=True)
        >>> run.write_json("notes.json", {"seed": 3})
        >>> run.checkpoint("best").name
        'best.safetensors'
    """

    def __init__(self, path: Path | str, create: bool = False, trust: bool = False) -> None:
        """Open or create the folder."""
        self.path, self.trust = Path(path), trust or create
        if create:
            self.path.mkdir(parents=True, exist_ok=True)
        elif not (self.path / "config.yaml").is_file():
            raise InputError(f"no run at {self.path}: there is no config.yaml in it")

    def __repr__(self) -> str:
        try:
            values = self.load_provenance()
        except InputError:
            return f"<run {self.path}, not trained yet>"
        return (
            f"<run {self.path}, {values['best']:.4g} in validation at step {values['best_step']}>"
        )

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.name

    def checkpoint(self, which: str) -> Path:
        """Path of the "last" or "best" checkpoint."""
        return self.path / f"{which}.safetensors"

    @contextmanager
    def training_lock(self) -> Iterator[None]:
        """Lock the run for training, and remove partial files of an interrupted process.

        Raises:
            InputError: another process trains the run.
        """
        busy = (
            f"{self.path} already holds a run, which another process is training: wait until it "
            "ends, or choose another --out"
        )
        with locked(self.path / ".lock", busy):
            for name in ("last.safetensors", "best.safetensors", "metrics.csv"):
                remove_parts(self.path / name)
            yield

    def write_text(self, name: str, text: str) -> None:
        """Write a file of the run atomically.

        Raises:
            InputError: it cannot be written, or a link leads out of the folder.
        """
        target = self.path / name
        if not target.parent.resolve().is_relative_to(self.path.resolve()):
            raise InputError(f"cannot write {target}: {target.parent} is a link out of the run")
        with _named(target):
            target.parent.mkdir(exist_ok=True)
            with atomic_path(target) as part:
                part.write_text(text, "utf-8")

    def write_json(self, name: str, values: Mapping[str, Any]) -> None:
        """Write a JSON file of the run atomically; errors as in `write_text`."""
        self.write_text(name, json.dumps(values, indent=1))

    def load_metrics(self) -> dict[str, list[tuple[int, float]]]:
        """Steps and values by name, as `Metrics` wrote them.

        Raises:
            InputError: there are none, or they are damaged.
        """
        path, metrics = self.path / "metrics.csv", dict[str, list[tuple[int, float]]]()
        if not path.is_file():
            raise InputError(f"{path} is missing or damaged: train the run anew")
        rows, complaint = _metrics_rows(path)
        if complaint:
            raise InputError(f"{path} is missing or damaged ({complaint}): train the run anew")
        for step, name, value in rows:
            metrics.setdefault(name, []).append((step, value))
        return metrics

    def load_provenance(self) -> dict[str, Any]:
        """Versions, machine, time, and best checkpoint of a training that has ended.

        Raises:
            InputError: the training has not ended, or the file is damaged.
        """
        path = self.path / "provenance.json"
        if not path.is_file():
            raise InputError(f"run {self.path} is not trained: continue with --resume")
        try:
            values = json.loads(path.read_text("utf-8"))
            _check_values(values, {"best": _number, "best_step": _count, "seconds": _duration})
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{path} is damaged ({error}): training with --resume writes it again"
            ) from error
        return dict(values)

    def save_evaluation(self, name: str, evaluation: Evaluation) -> Path:
        """Write an evaluation to ``evaluations/NAME.json``; returns the file.

        Raises:
            InputError: it cannot be written.
        """
        self.write_text(f"evaluations/{name}.json", json.dumps(evaluation.as_json()))
        return self.path / "evaluations" / f"{name}.json"

    def load_evaluation(self, name: str = "test") -> Evaluation:
        """Read ``evaluations/NAME.json``.

        Raises:
            InputError: it is missing or damaged.
        """
        path = self.path / "evaluations" / f"{name}.json"
        if not path.is_file():
            raise InputError(f"run {self.path} has no evaluation: run 'omni evaluate {self.path}'")
        try:
            return Evaluation.from_json(json.loads(path.read_text("utf-8")))
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"evaluation {path} is damaged ({error}): run 'omni evaluate {self.path}'"
            ) from error


class Metrics:
    """Scalars by step, in metrics.csv and in experiment trackers.

    Args:
        run: the run folder.
        resume_at: drop the rows after this step, which a resumed run writes again.
        silent: write nothing, as all processes but the main one.
        loggers: the trackers; TensorBoard where it is installed, if None.
    """

    def __init__(
        self,
        run: Run,
        resume_at: int,
        silent: bool = False,
        loggers: Sequence[LoggerName] | None = None,
    ) -> None:
        """Start metrics.csv, or continue it."""
        self.path, self.silent = run.path / "metrics.csv", silent
        self.loggers: list[Logger] = []
        if silent:
            return
        rows: list[tuple[int, str, float]] = []
        if resume_at and self.path.is_file():
            rows, _ = _metrics_rows(self.path)
        with _replaced(self.path) as part, part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["step", "name", "value"])
            writer.writerows((s, name, repr(v)) for s, name, v in rows if s <= resume_at)
        self.loggers = make_loggers(loggers, run.path, resume_at)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add a row per value.

        Raises:
            InputError: the file cannot be written.
        """
        if self.silent:
            return
        with _named(self.path):
            with self.path.open("a", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerows([step, name, repr(value)] for name, value in values.items())
            for logger in self.loggers:
                logger.write(step, values)

    def close(self) -> None:
        """Write what trackers have buffered, and end their runs."""
        for logger in self.loggers:
            with _named(self.path):
                logger.close()


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the file in the error if it cannot be written."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"cannot write {path}: {reason}; what was written before is kept: continue "
            "the run with --resume"
        ) from error


@contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """A temporary path, which replaces the file at the end; after an error the old file stays.

    Raises:
        InputError: it cannot be written, as on a full disk.
    """
    with _named(path), atomic_path(path) as part:
        yield part


def _metrics_rows(path: Path) -> tuple[list[tuple[int, str, float]], str]:
    """Step, name and value of the valid rows of metrics.csv, and the error in the next one.

    If a run was killed, the last row may be cut off, as "1" of "12,total,0.5": that is no error.
    """
    rows: list[tuple[int, str, float]] = []
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True)[1:], 2):
        try:
            step, name, value = next(csv.reader([line.decode()]))
            row = int(step), name, float(value)
        except (ValueError, csv.Error, StopIteration) as error:
            return rows, f"line {number}: {error}" if line.endswith(b"\n") else ""
        if line.endswith(b"\n"):
            rows.append(row)
    return rows, ""


def _count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _number(value: Any) -> bool:
    return type(value) in (int, float) and not math.isnan(value)


def _duration(value: Any) -> bool:
    return _number(value) and 0 <= value < math.inf


def _weights(value: Any) -> bool:
    return value in ("student", "teacher")


STATE = {"step": _count, "best_step": _count, "best": _number, "seconds": _duration}
"""What a training stores in a checkpoint beside the tensors, and a check of each value."""


def training_state(path: Path, stored: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The state of a training that a checkpoint holds beside the tensors, checked.

    Args:
        path: of the checkpoint.
        stored: what `load_checkpoint` has returned for it, if that was called before.

    Raises:
        InputError: a value is missing or damaged.
    """
    stored = load_checkpoint(path, {}) if stored is None else stored
    # Without a best score there are no best weights.
    best = {} if stored.get("best") == -math.inf else {"best_weights": _weights}
    try:
        _check_values(stored, {**STATE, **best})
    except ValueError as error:
        raise InputError(f"checkpoint {path} is damaged: {error}") from error
    return dict(stored)


def _check_values(values: Any, checks: Mapping[str, Callable[[Any], bool]]) -> None:
    """Raise a ValueError that names the first value that is missing or wrong."""
    if not isinstance(values, dict):
        raise ValueError(f"it holds a {type(values).__name__}")
    for name, is_sound in checks.items():
        if name not in values or not is_sound(values[name]):
            raise ValueError(f"{name} is {values[name]!r:.50}" if name in values else f"no {name}")


STORED_STATE = "facts"
"""Key of the state in the metadata of a checkpoint."""

OF_OPTIMIZERS = ("optimizer", "optimiser")
"""Prefix of an optimizer's tensors, and the prefix in version 0.1."""


def save_checkpoint(
    path: Path,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
) -> None:
    """Write modules, optimizer and the state of a training as one safetensors file, atomically.

    Args:
        path: of the file.
        modules: by the prefix of their tensors' names; a tensor that flows share is stored once.
        optimizer: of their weights.
        state: plain values, stored as JSON in the metadata.

    Raises:
        InputError: it cannot be written, as on a full disk; the checkpoint before stays.
    """
    tensors = {}
    for prefix, module in modules.items():
        for name, tensor in unique_tensors(module).items():
            tensors[f"{prefix}.{name}"] = tensor.detach().contiguous().cpu().clone()
    for index, moments in optimizer.state_dict()["state"].items():
        for name, value in moments.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{name}"] = value.contiguous().cpu().clone()
    with _replaced(path) as part:
        save_file(tensors, part, metadata={STORED_STATE: json.dumps(state)})


def load_checkpoint(
    path: Path, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer | None = None
) -> dict[str, Any]:
    """Restore what `save_checkpoint` wrote; returns the state.

    Args:
        path: of the file.
        modules: restored in place, by prefix; without any, and without an optimizer, no tensor is
            read.
        optimizer: restored in place.

    Raises:
        InputError: the file is missing, damaged, or of another model.
    """
    if not path.is_file():
        raise InputError(f"no checkpoint at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            state = json.loads((file.metadata() or {})[STORED_STATE])
            wanted = modules or optimizer is not None
            names = file.keys() if wanted else ()
            tensors = {name: file.get_tensor(name) for name in names}
    except KeyError as error:
        raise InputError(f"{path} is not a checkpoint of a run: it lacks {error}") from error
    except (SafetensorError, ValueError, RecursionError) as error:
        raise InputError(f"checkpoint {path} is truncated or damaged: {error}") from error
    if not isinstance(state, dict):
        raise InputError(f"checkpoint {path} is damaged: its facts are a {type(state).__name__}")
    for prefix, module in modules.items():
        for name, tensor in unique_tensors(module).items():
            stored = tensors.get(f"{prefix}.{name}")
            if stored is None or stored.shape != tensor.shape:
                raise InputError(f"checkpoint {path} is of another model: {prefix}.{name} differs")
            if isinstance(tensor, nn.Parameter) and not stored.isfinite().all():
                raise InputError(f"checkpoint {path} is damaged: {prefix}.{name} is not finite")
            with torch.no_grad():
                tensor.copy_(stored)
    if optimizer is not None:
        unread = {name.partition(".")[0] for name in tensors} - {*modules, *OF_OPTIMIZERS}
        if unread:  # without them the training would differ
            raise InputError(
                f"checkpoint {path} holds {', '.join(sorted(unread))}, which a training of this "
                "version does not have: train it with the version that wrote it"
            )
        _restore(optimizer, tensors, path)
    return state


def _restore(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Restore the state of an optimizer from the tensors of a checkpoint.

    Raises:
        InputError: they are of another optimizer.
    """
    groups = optimizer.state_dict()["param_groups"]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        if kind not in OF_OPTIMIZERS:
            continue
        index, _, key = rest.partition(".")
        known = index.isdecimal() and int(index) < len(parameters)
        if not known or tensor.shape not in (parameters[int(index)].shape, torch.Size(())):
            raise InputError(f"checkpoint {path} is of another optimizer: {name} differs")
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def unique_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name; tensors that flows share, once."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def provenance() -> dict[str, Any]:
    """Versions, commit, machine, threads and processes of this process."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
        check=False,
    ).stdout.strip()
    return {
        "omnitraining": version("omnitraining"),
        "commit": commit or None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": _machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processes": current_context().world_size,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def _machine() -> str:
    """Architecture and, on Linux, the model name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf-8", "replace").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return ", ".join([platform.machine(), *names[:1]])


def peak_memory() -> int:
    """Peak memory of this process in MiB: of the GPU if there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() >> 20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak >> 20 if sys.platform == "darwin" else peak >> 10

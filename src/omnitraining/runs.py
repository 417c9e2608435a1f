"""The run folder: everything that is needed to resume, judge and trust a training run.

    config.yaml          the resolved configuration
    provenance.json      versions, commit, machine; wall time and peak memory when it has ended
    metrics.csv          losses and validation scores by step; TensorBoard files in tensorboard/
    last.safetensors     weights, teacher, optimiser and step of the latest checkpoint
    best.safetensors     the same at the best validation score
    evaluations/*.json   results with the hash of their tasks
    calibration.json     what validation tasks say to learners; measured when it is first loaded

Nothing in it is a pickle, and classes that the configuration names are run only if they are this
library's or the run is trusted: a run received from a stranger is safe to load.
"""

import csv
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from omnitraining.distributed import team
from omnitraining.errors import InputError
from omnitraining.evaluation import Evaluation, evaluation_from


class Run:
    """A run folder.

    Args:
        path: the folder; made if it is not there and ``create`` is set.
        create: start a new run.
        trust: let its configuration name classes from outside this library, which runs them.

    Attributes:
        path: the folder.
        trust: as given; a run that is created is the caller's own, and trusted.

    Raises:
        InputError: the folder is not a run.
    """

    def __init__(self, path: Path | str, create: bool = False, trust: bool = False) -> None:
        self.path, self.trust = Path(path), trust or create
        if create:
            self.path.mkdir(parents=True, exist_ok=True)
        elif not (self.path / "config.yaml").is_file():
            raise InputError(f"no run at {self.path}: there is no config.yaml in it")

    @property
    def name(self) -> str:
        return self.path.name

    def checkpoint(self, which: str) -> Path:
        """Path of the "last" or "best" checkpoint."""
        return self.path / f"{which}.safetensors"

    def write_text(self, name: str, text: str) -> None:
        """Write a file so that it is either old or new, never half.

        Raises:
            InputError: it cannot be written, or a link would lead it out of the folder.
        """
        target = self.path / name
        if not target.parent.resolve().is_relative_to(self.path.resolve()):
            raise InputError(f"cannot write {target}: {target.parent} is a link out of the run")
        part = target.with_name(f"{target.name}.part")
        if part.is_symlink():  # in a run of someone else, to any file
            part.unlink()
        with _replaced(target) as part:
            target.parent.mkdir(exist_ok=True)
            part.write_text(text, "utf-8")

    def write_json(self, name: str, values: Mapping[str, Any]) -> None:
        self.write_text(name, json.dumps(values, indent=1))

    def load_metrics(self) -> dict[str, list[tuple[int, float]]]:
        """Steps and values by name, as `Metrics` wrote them.

        Raises:
            InputError: there are none, or they are damaged.
        """
        path, found = self.path / "metrics.csv", dict[str, list[tuple[int, float]]]()
        try:
            with path.open(newline="", encoding="utf-8") as file:
                for step, name, value in list(csv.reader(file))[1:]:
                    found.setdefault(name, []).append((int(step), float(value)))
        except (FileNotFoundError, ValueError) as error:
            raise InputError(
                f"{path} is missing or damaged ({error}): train the run anew"
            ) from error
        return found

    def save_evaluation(self, name: str, evaluation: Evaluation) -> Path:
        self.write_text(f"evaluations/{name}.json", json.dumps(asdict(evaluation)))
        return self.path / "evaluations" / f"{name}.json"

    def load_evaluation(self, name: str = "test") -> Evaluation:
        path = self.path / "evaluations" / f"{name}.json"
        if not path.is_file():
            raise InputError(f"run {self.path} has no evaluation: run 'omni evaluate {self.path}'")
        try:
            return evaluation_from(json.loads(path.read_text("utf-8")))
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"evaluation {path} is damaged ({error}): run 'omni evaluate {self.path}'"
            ) from error


class Metrics:
    """Rows of numbers by step, in metrics.csv and, where installed, TensorBoard.

    Args:
        run: the run folder.
        resume_at: drop rows from this step on, which a resumed run writes again.
        silent: write nothing, as where another process does.
    """

    def __init__(self, run: Run, resume_at: int, silent: bool = False) -> None:
        self.path, self.silent, self.board = run.path / "metrics.csv", silent, None
        if silent:
            return
        rows = []
        if resume_at and self.path.is_file():
            with self.path.open(newline="", encoding="utf-8") as file:
                # The last row may be cut where the run was killed: "1" of "12,total,0.5".
                rows = [row for row in csv.reader(file) if len(row) == 3 and row[0] != "step"]
        with _replaced(self.path) as part, part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["step", "name", "value"])
            writer.writerows(row for row in rows if int(row[0]) <= resume_at)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            pass
        else:
            self.board = SummaryWriter(str(run.path / "tensorboard"), purge_step=resume_at or None)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        if self.silent:
            return
        with _named(self.path):
            with self.path.open("a", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerows([step, name, repr(value)] for name, value in values.items())
            if self.board is not None:
                for name, value in values.items():
                    self.board.add_scalar(name, value, step)

    def close(self) -> None:
        if self.board is not None:
            with _named(self.path):
                self.board.close()


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Says which file could not be written."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"cannot write {path}: {reason}; what was written before is kept, and a run goes on "
            "from it with --resume"
        ) from error


@contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """A place to write to; what is there in the end becomes the file, or the old one stays.

    Raises:
        InputError: it cannot be written, as on a full disk.
    """
    part = path.with_name(f"{path.name}.part")
    with _named(path):
        try:
            yield part
            os.replace(part, path)
        except (OSError, SafetensorError):
            with suppress(OSError):  # so that it does not fill the disk
                part.unlink(missing_ok=True)
            raise


def save_checkpoint(
    path: Path,
    modules: Mapping[str, nn.Module],
    optimiser: torch.optim.Optimizer,
    facts: Mapping[str, Any],
) -> None:
    """Write modules, optimiser state and plain facts as one safetensors file, atomically.

    Raises:
        InputError: it cannot be written, as on a full disk; the checkpoint before stays.
    """
    tensors = {}
    for prefix, module in modules.items():
        for name, tensor in unique_tensors(module).items():
            tensors[f"{prefix}.{name}"] = tensor.detach().contiguous().cpu().clone()
    for index, state in optimiser.state_dict()["state"].items():
        for name, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"optimiser.{index}.{name}"] = value.contiguous().cpu().clone()
    with _replaced(path) as part:
        save_file(tensors, part, metadata={"facts": json.dumps(facts)})


def load_checkpoint(
    path: Path, modules: Mapping[str, nn.Module], optimiser: torch.optim.Optimizer | None = None
) -> dict[str, Any]:
    """Restore what `save_checkpoint` wrote; returns the facts.

    Raises:
        InputError: the file is missing, damaged, or of another model.
    """
    if not path.is_file():
        raise InputError(f"no checkpoint at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["facts"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except KeyError as error:
        raise InputError(f"{path} is not a checkpoint of a run: it lacks {error}") from error
    except (SafetensorError, ValueError, RecursionError) as error:
        raise InputError(f"checkpoint {path} is truncated or damaged: {error}") from error
    for prefix, module in modules.items():
        for name, tensor in unique_tensors(module).items():
            stored = tensors.get(f"{prefix}.{name}")
            if stored is None or stored.shape != tensor.shape:
                raise InputError(f"checkpoint {path} is of another model: {prefix}.{name} differs")
            with torch.no_grad():
                tensor.copy_(stored)
    if optimiser is not None:
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "optimiser":
                index, _, key = rest.partition(".")
                state.setdefault(int(index), {})[key] = tensor
        groups = optimiser.state_dict()["param_groups"]
        optimiser.load_state_dict({"state": state, "param_groups": groups})
    return dict(facts)


def unique_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, each once however many flows share it."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def provenance() -> dict[str, Any]:
    """Versions, commit and machine of this process."""
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
        "processes": team().size,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def _machine() -> str:
    """Architecture, and the processor's own name where the system tells it."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text("utf-8", "replace").splitlines() if told.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return ", ".join([platform.machine(), *names[:1]])


def peak_memory() -> int:
    """Peak memory of this process in MiB: on the GPU where there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() >> 20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak >> 20 if sys.platform == "darwin" else peak >> 10

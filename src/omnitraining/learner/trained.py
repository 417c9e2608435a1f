"""A trained model without its data: what learners start from, and how it is kept in a file.

A file is one safetensors file: tensors, and in its metadata one JSON text, "learner". Nothing in
it is a pickle. `Trained` needs no training data once it has been made from a run.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from omnitraining.config.run_config import (
    CANNOT_BE_MADE,
    RunConfig,
    load_model,
    load_run,
    of_learner,
    run_config_of,
)
from omnitraining.config.strict import (
    MAX_JSON,
    parsed_json,
    read_bytes,
    read_json_strictly,
    read_yaml_strictly,
)
from omnitraining.config.values import read_yaml
from omnitraining.errors import InputError
from omnitraining.evaluation import Inference
from omnitraining.io.files import open_atomic
from omnitraining.learner import checks
from omnitraining.learner.calibration import Calibration, calibrate
from omnitraining.learner.curves import CurveVotes, curve_votes
from omnitraining.learner.inputs import ImageInputs
from omnitraining.model import Model
from omnitraining.omninet import plain
from omnitraining.precision import float32_on_cpu
from omnitraining.runs import run_data
from omnitraining.runs.run import Run, training_facts, unique_tensors
from omnitraining.tasks.blueprint import BLUEPRINT
from omnitraining.tasks.classification.problem import Classification
from omnitraining.tasks.regression.sinusoids import Sinusoids
from omnitraining.training import find_device

VERSION = 1
"""Of the files below; raise it with any change that older versions cannot read."""

_NOT_KEPT = ("problem", "training", "seed", "teacher_run", "start_from")


class Trained:
    """A trained model, its inputs, and what was measured on its validation tasks.

    Attributes:
        model: with the weights of the best checkpoint.
        config: fields of `RunConfig`, with a `Blueprint` for a problem.
        inputs: what it takes, of images; None in regression.
        votes: calibration of a classifier, or the votes of a regression.
        name: of the run or file.
        trust: whether its configuration may name classes from outside this library.

    Raises:
        InputError: a weight is not finite.
    """

    def __init__(
        self,
        model: Model,
        config: Mapping[str, Any],
        inputs: ImageInputs | None,
        votes: Calibration | CurveVotes,
        name: str,
        trust: bool = False,
    ) -> None:
        self.model, self.trust = model.eval().requires_grad_(False), trust
        self.config, self.inputs, self.votes, self.name = dict(config), inputs, votes, name
        self.inference = Inference(**_tuples(self.config.get("inference", {})))
        for part, tensor in unique_tensors(model).items():
            if not tensor.isfinite().all():
                raise InputError(
                    f"{name} is damaged: model.{part} holds values that are not finite"
                )
        backbones = {model.network(n).backbone for n in model.networks}
        self._plain = {backbone: plain(backbone).eval() for backbone in backbones}

    def __repr__(self) -> str:
        return f"<trained model {self.name}>"

    def __deepcopy__(self, _: object) -> "Trained":
        return self  # nothing in it changes, so that clones of a learner can share it

    def __reduce__(self) -> tuple[Any, ...]:
        return _revived, (self.to_bytes({}, {}), self.name)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.model.parameters()).device

    @property
    def model_ways(self) -> int:
        """Classes of a training task."""
        ways: int = self.config["problem"]["init_args"]["meta_outputs"]
        return ways

    @property
    def calibration(self) -> Calibration:
        """What validation tasks said about a classifier."""
        return cast(Calibration, self.votes)

    def plain_backbone(self, network: str) -> nn.Module:
        """The backbone of a network, with its effective weights in plain layers."""
        return self._plain[self.model.network(network).backbone]

    @classmethod
    def from_run(cls, run: Run) -> "Trained":
        """The best checkpoint of a run; its validation tasks are measured once and remembered.

        Its data are needed only if they have not been measured, and by runs of earlier versions.

        Raises:
            InputError: the run, or data that are needed, cannot be loaded, or it is of another
                kind of task.
        """
        path = run.path / "config.yaml"
        config = read_yaml(path) if run.trust else read_yaml_strictly(path)
        if (found := cls._without_data(run, config)) is not None:
            return found
        run_config = load_run(run)
        run_data.check(run, run_config.problem)
        model = run_config.load(run).cpu()
        if not isinstance(run_config.problem, Classification):
            return cls.of(run_config, model, config, run.name, trust=run.trust)
        measured = calibrated(run, run_config, model)
        return cls.of(run_config, model, config, run.name, measured, run.trust)

    @classmethod
    def _without_data(cls, run: Run, config: Mapping[str, Any]) -> "Trained | None":
        """The best checkpoint of a run that keeps all that is needed; None if it does not."""
        data = run_data.read(run)
        if data is None or data.model is None or data.inputs is None:
            return None
        model = load_model(run)
        if (votes := _kept_calibration(run, model)) is None:
            return None
        try:
            inputs = checks.image_inputs(data.inputs, data.model["shape"])
        except checks.DamagedError as error:
            raise InputError(f"{run.path / run_data.NAME} is damaged: {error}") from error
        kept = {key: value for key, value in config.items() if key not in _NOT_KEPT}
        kept["problem"] = {"class_path": BLUEPRINT, "init_args": dict(data.model)}
        return cls(model.to(find_device("auto")), kept, inputs, votes, run.name, run.trust)

    @classmethod
    def of(
        cls,
        run_config: RunConfig,
        model: Model,
        config: Mapping[str, Any],
        name: str,
        calibration: Calibration | None = None,
        trust: bool = True,
    ) -> "Trained":
        """A trained model, without its data.

        Args:
            run_config: its problem has the validation tasks.
            model: what was trained, on the CPU.
            config: the fields of the configuration.
            name: of the model.
            calibration: measured before; it is measured now if not given.
            trust: whether the fields may name classes from outside this library.

        Raises:
            InputError: the problem is neither of images nor of curves.
        """
        problem = run_config.problem
        votes: Calibration | CurveVotes
        if isinstance(problem, Classification):
            inputs = ImageInputs.of(problem)
            votes = calibration or calibrate(problem, model, run_config.inference)
        elif isinstance(problem, Sinusoids):
            inputs, votes = None, curve_votes(problem, model, run_config.inference)
        else:
            raise InputError(
                f"{name} is of {type(problem).__name__}: learners classify images or fit curves"
            )
        kept = {key: value for key, value in config.items() if key not in _NOT_KEPT}
        sizes = {
            "shape": [*problem.example().shape[1:]],
            "pre_outputs": problem.pre_outputs,
            "meta_outputs": problem.meta_outputs,
            "one_joint_head": problem.one_joint_head,
        }
        kept["problem"] = {"class_path": BLUEPRINT, "init_args": sizes}
        return cls(model.to(find_device("auto")), kept, inputs, votes, name, trust)

    def to_bytes(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> bytes:
        """The content of a file: the model, and tensors and facts of a fit, if there is one."""
        weights = {f"model.{name}": x for name, x in unique_tensors(self.model).items()}
        stored = {
            n: x.detach().cpu().contiguous().clone() for n, x in {**weights, **tensors}.items()
        }
        text = {
            "version": VERSION,
            "omnitraining": version("omnitraining"),
            "name": self.name,
            "config": self.config,
            "inputs": self.inputs.as_json() if self.inputs else None,
            "votes": asdict(self.votes),
            "fit": dict(facts),
        }
        return save_tensors(stored, metadata={"learner": json.dumps(text)})

    @classmethod
    def from_bytes(
        cls, data: bytes, source: str, trust: bool = False
    ) -> tuple["Trained", dict[str, Tensor], dict[str, Any]]:
        """What `to_bytes` wrote.

        Args:
            data: the content of a file.
            source: where it is from.
            trust: whether classes that it names from outside this library may be run.

        Raises:
            InputError: the bytes are damaged, something else, or of a newer version, or name what
                is not trusted; the message names the source.
        """
        text, tensors = _opened(data, source)
        try:
            config = of_learner(text["config"])
            run_config = run_config_of(config, source, trust)
            model = run_config.build() if trust else run_config.bounded(len(data), source)
            flows = model.trained_flows
            inputs, votes = None, text["votes"]
            if text["inputs"] is None:
                votes = checks.curve_votes(votes, flows)
            else:
                shape = config["problem"]["init_args"]["shape"]
                inputs = checks.image_inputs(text["inputs"], shape)
                votes = checks.calibration(votes, flows)
            facts, name = {**text["fit"]}, _shown(text["name"])
            checks.choices(facts, flows)
            run_config.inference.members(flows)
        except (KeyError, TypeError, AttributeError, checks.DamagedError) as error:
            said = error if isinstance(error, checks.DamagedError) else repr(error)
            raise InputError(f"{source} is damaged: {said}") from error
        for name_, tensor in unique_tensors(model).items():
            stored = tensors.pop(f"model.{name_}", None)
            if stored is None or stored.shape != tensor.shape or stored.dtype != tensor.dtype:
                raise InputError(f"{source} is damaged: model.{name_} is missing or differs")
            with torch.no_grad():
                tensor.copy_(stored)
            if not stored.isfinite().all():
                raise InputError(f"{source} is damaged: model.{name_} is not finite")
        made = cls(model.to(find_device("auto")), config, inputs, votes, name, trust)
        return made, tensors, facts


def save_file(path: Path, data: bytes) -> None:
    """Write a learner's file, whole or not at all."""
    with open_atomic(path) as file:
        file.write(data)


def _opened(data: bytes, source: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The JSON text and the tensors of a file."""
    try:
        length = int.from_bytes(data[:8], "little")
        if length > len(data) - 8:
            raise ValueError("the file ends before its head does")
        metadata = parsed_json(data[8 : 8 + length], source)["__metadata__"]
        text = read_json_strictly(metadata["learner"], source)
        found = text["version"]
        if type(found) is not int:
            raise TypeError("version")
    except InputError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{source} is not a learner: give a file that a learner saved") from error
    if found > VERSION:
        raise InputError(
            f"{source} is of version {found}, written by omnitraining "
            f"{_shown(text.get('omnitraining'))}: this omnitraining {version('omnitraining')} "
            f"reads up to version {VERSION}; update it"
        )
    try:
        return text, load_tensors(data)
    except (SafetensorError, *CANNOT_BE_MADE) as error:
        raise InputError(f"{source} is truncated or damaged: {error}") from error


def _shown(name: Any) -> str:
    """A name of someone else, as it may be shown in a line."""
    return "".join(c if c.isprintable() else "?" for c in str(name)[:200])


@float32_on_cpu()
def _revived(data: bytes, name: str) -> Trained:
    # Whoever unpickles runs what is in the pickle anyway.
    return Trained.from_bytes(data, name, trust=True)[0]


def _tuples(values: Mapping[str, Any], *only: str) -> dict[str, Any]:
    """Values in which lists, or only those named, are tuples again."""
    return {
        key: tuple(value) if isinstance(value, list) and (key in only or not only) else value
        for key, value in values.items()
    }


def calibrated(run: Run, run_config: RunConfig, model: Model) -> Calibration:
    """The calibration of a run, from its folder, where it is kept for its best checkpoint."""
    if (kept := _kept_calibration(run, model)) is not None:
        return kept
    problem = cast(Classification, run_config.problem)
    measured = calibrate(problem, model, run_config.inference)
    with suppress(OSError, InputError):  # a run that may only be read is measured anew each time
        run.write_json("calibration.json", {"of": _best(run), **measured.as_json()})
    return measured


def _kept_calibration(run: Run, model: Model) -> Calibration | None:
    """What was measured of a run; None if that was not, or of another checkpoint, or is damaged."""
    path = run.path / "calibration.json"
    try:
        record = read_json_strictly(read_bytes(path, MAX_JSON), str(path))
        if record.pop("of") == _best(run):
            return checks.calibration(record, model.trained_flows)
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    return None


def _best(run: Run) -> dict[str, Any]:
    facts = training_facts(run.checkpoint("best"))
    return {name: facts[name] for name in ("best_step", "best_weights")}

"""A trained model without its data, from which learners start, and its file.

A file is one safetensors file: tensors, and one JSON text in its metadata, "learner". Nothing in
it is a pickle. A `TrainedModel` needs no training data once it has been made from a run.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from omnitraining.config.run_config import (
    INSTANTIATION_ERRORS,
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
from omnitraining.datasets.decoding import Aspect
from omnitraining.errors import InputError
from omnitraining.evaluation import Inference
from omnitraining.io.files import open_atomic
from omnitraining.learner import checks
from omnitraining.learner.calibration import Calibration, calibrate
from omnitraining.learner.curves import CurveWeights, curve_weights
from omnitraining.learner.inputs import ImageInputs
from omnitraining.learner.stored_backbone import Frozen, restored_backbone
from omnitraining.libraries import PooledBackbone
from omnitraining.libraries.backbone import sha256
from omnitraining.model import Model
from omnitraining.omninet import plain
from omnitraining.precision import float32_on_cpu
from omnitraining.runs import run_data
from omnitraining.runs.run import Run, training_state, unique_tensors
from omnitraining.tasks.blueprint import BLUEPRINT
from omnitraining.tasks.classification.problem import EMBED_BATCH, Classification
from omnitraining.tasks.regression.sinusoids import Sinusoids
from omnitraining.training import find_device

VERSION = 3
"""Version of the file format; raise it with any change that older versions cannot read. Models that
the first version can read are still written in it."""

BATCH_PIXELS = 32 * 224**2
"""Number of pixels that a frozen backbone embeds at a time."""

_NOT_KEPT = ("problem", "training", "seed", "teacher_run", "start_from", "start_weights")
_FIT_KEYS = {"accept_rate": "reject"}
"""Names in files of what is kept of a fit, where they differ."""


class TrainedModel:
    """A trained model, its inputs, and what was measured on its validation tasks.

    Nothing in it changes, so that learners and threads can share one.

    Args:
        model: with the weights of the best checkpoint.
        config: fields of `RunConfig`, with a `Blueprint` for a problem.
        inputs: how images become inputs of the network; None in regression.
        measured: the calibration of a classifier, or the ensemble weights of a regressor.
        name: of the run or file.
        trust: whether its configuration may name classes from outside this library.
        frozen: of the backbone, if it is a frozen one of another library or of the user's.

    Attributes:
        inference: which flows predict, and with which weights.

    Raises:
        InputError: a weight is not finite.

    Example:
        >>> from omnitraining import load
        >>> trained = load("glyphs").model
        >>> trained
        <trained model glyphs: 32 px (bilinear, aspect not kept)>
        >>> trained.model.trained_flows, trained.image_inputs.shape
        (('pre', 'joint', 'meta'), (1, 32, 32))
    """

    def __init__(
        self,
        model: Model,
        config: Mapping[str, Any],
        inputs: ImageInputs | None,
        measured: Calibration | CurveWeights,
        name: str,
        trust: bool = False,
        frozen: Frozen | None = None,
    ) -> None:
        """Freeze the model, check its weights, and merge its Omni-Layers into plain layers."""
        self.model, self.trust = model.eval().requires_grad_(False), trust
        self.config, self.inputs, self.name = dict(config), inputs, name
        self.measured, self.frozen = measured, frozen
        self.inference = Inference(**_tuples(self.config.get("inference", {})))
        for part, tensor in unique_tensors(model).items():
            if not tensor.isfinite().all():
                raise InputError(
                    f"{name} is damaged: model.{part} holds values that are not finite"
                )
        backbones = {model.network(n).backbone for n in model.networks}
        # A frozen backbone has no Omni-Layers, and may be large: it is not copied.
        self._plain = {b: b if frozen else plain(b).eval() for b in backbones}

    def __repr__(self) -> str:
        about = f": {self.frozen.words if self.frozen else self.inputs or 'curves'}"
        return f"<trained model {self.name}{about}>"

    def __deepcopy__(self, _: object) -> "TrainedModel":
        return self  # clones of a learner share it

    def __reduce__(self) -> tuple[Any, ...]:
        own = self.frozen is not None and not self.frozen.from_library
        module = self.pooled_backbone.model if own else None  # which no file holds
        return _unpickled, (self.to_bytes({}, {}), self.name, module)

    @property
    def device(self) -> torch.device:
        """The device of its weights."""
        return next(self.model.parameters()).device

    @property
    def model_ways(self) -> int:
        """Classes of a training task."""
        ways: int = self.config["problem"]["init_args"]["meta_outputs"]
        return ways

    @property
    def image_inputs(self) -> ImageInputs:
        """How images become inputs of the network.

        Raises:
            InputError: it is a model of curves.
        """
        if self.inputs is None:
            raise InputError(f"{self.name} is a model of curves: give a model of images")
        return self.inputs

    @property
    def calibration(self) -> Calibration:
        """Calibration of a classifier on validation episodes.

        Raises:
            InputError: it is a model of curves.
        """
        if not isinstance(self.measured, Calibration):
            raise InputError(f"{self.name} is a model of curves: give a model of images")
        return self.measured

    @property
    def curve_weights(self) -> CurveWeights:
        """Ensemble weights of a regressor.

        Raises:
            InputError: it is a model of images.
        """
        if not isinstance(self.measured, CurveWeights):
            raise InputError(f"{self.name} is a model of images: give a model of curves")
        return self.measured

    def with_calibration(self, calibration: Calibration) -> "TrainedModel":
        """A copy with another calibration, which shares the model.

        Args:
            calibration: of a fit.
        """
        made = object.__new__(type(self))
        made.__dict__ = {**self.__dict__, "measured": calibration}
        return made

    def with_aspect(self, aspect: Aspect | None) -> "TrainedModel":
        """A copy with another way to make squares of images, which shares the model.

        Args:
            aspect: as in `Resize`; None changes nothing.

        Raises:
            InputError: there is no such way, or it is a model of curves.
        """
        if aspect is None:
            return self
        made = object.__new__(type(self))
        made.__dict__ = {**self.__dict__, "inputs": self.image_inputs.with_aspect(aspect)}
        return made

    @property
    def batch(self) -> int:
        """Images that are embedded at a time: fewer if they are large, to limit memory."""
        size = self.image_inputs.size
        return max(1, min(EMBED_BATCH, BATCH_PIXELS // size**2)) if self.frozen else EMBED_BATCH

    def plain_backbone(self, network: str) -> nn.Module:
        """The backbone of a network, with its effective weights in plain layers."""
        return self._plain[self.model.network(network).backbone]

    @property
    def pooled_backbone(self) -> PooledBackbone:
        """The frozen backbone.

        Raises:
            InputError: the model was trained with this library.
        """
        backbone = self.model.network(self.model.trained_flows[0]).backbone
        if self.frozen is None or not isinstance(backbone, PooledBackbone):
            raise InputError(f"{self.name} is no frozen backbone: its weights are its own")
        return backbone

    @classmethod
    def from_run(cls, run: Run, device: str = "auto") -> "TrainedModel":
        """The best checkpoint of a run, calibrated; the calibration is kept in the run.

        Its data are needed only if there is no calibration, and by runs of earlier versions.

        Args:
            run: the run.
            device: that the model is on, as in `find_device`.

        Raises:
            InputError: the run, or data that are needed, cannot be loaded, or its task is neither
                classification nor regression.
        """
        path = run.path / "config.yaml"
        config = read_yaml(path) if run.trust else read_yaml_strictly(path)
        if (trained := cls._without_data(run, config, device)) is not None:
            return trained
        run_config = load_run(run)
        run_data.check(run, run_config.problem)
        model = run_config.load(run).cpu()
        if not isinstance(run_config.problem, Classification):
            return cls.of(run_config, model, config, run.name, trust=run.trust, device=device)
        calibration = calibrate_run(run, run_config, model)
        return cls.of(run_config, model, config, run.name, calibration, run.trust, device)

    @classmethod
    def _without_data(
        cls, run: Run, config: Mapping[str, Any], device: str
    ) -> "TrainedModel | None":
        """The best checkpoint of a run that keeps all that is needed; None if it does not."""
        data = run_data.read(run)
        if data is None or data.model is None or data.inputs is None:
            return None
        model = load_model(run)
        if (calibration := _kept_calibration(run, model)) is None:
            return None
        try:
            inputs = checks.image_inputs(data.inputs, data.model["shape"])
        except checks.DamagedError as error:
            raise InputError(f"{run.path / run_data.NAME} is damaged: {error}") from error
        kept = {key: value for key, value in config.items() if key not in _NOT_KEPT}
        kept["problem"] = {"class_path": BLUEPRINT, "init_args": dict(data.model)}
        model = model.to(find_device(device, "device"))
        return cls(model, kept, inputs, calibration, run.name, run.trust)

    @classmethod
    def of(
        cls,
        run_config: RunConfig,
        model: Model,
        config: Mapping[str, Any],
        name: str,
        calibration: Calibration | None = None,
        trust: bool = True,
        device: str = "auto",
    ) -> "TrainedModel":
        """A trained model, without its data.

        Args:
            run_config: its problem has the validation tasks.
            model: the trained model, on the CPU.
            config: the fields of the configuration.
            name: of the model.
            calibration: of the model; it is measured if not given.
            trust: whether the fields may name classes from outside this library.
            device: that the model is on, as in `find_device`.

        Raises:
            InputError: the problem is neither of images nor of curves.
        """
        problem = run_config.problem
        measured: Calibration | CurveWeights
        if isinstance(problem, Classification):
            inputs = ImageInputs.of(problem)
            measured = calibration or calibrate(problem, model, run_config.inference)
        elif isinstance(problem, Sinusoids):
            inputs, measured = None, curve_weights(problem, model, run_config.inference)
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
        model = model.to(find_device(device, "device"))
        return cls(model, kept, inputs, measured, name, trust)

    def to_bytes(
        self, tensors: Mapping[str, Tensor], fit: Mapping[str, Any], weights: bool = True
    ) -> bytes:
        """The content of a file.

        Args:
            tensors: kept support set of a fit; none if there is no fit.
            fit: options and labels of a learner, as JSON has them.
            weights: whether the weights of a frozen backbone are in the file, or only their name
                and hash.

        Raises:
            InputError: weights are to be left out, and the model has no frozen backbone.
        """
        left_out = set() if weights else {*map(id, unique_tensors(self.pooled_backbone).values())}
        parts = unique_tensors(self.model).items()
        own = {f"model.{name}": x for name, x in parts if id(x) not in left_out}
        stored = {n: x.detach().cpu().contiguous().clone() for n, x in {**own, **tensors}.items()}
        text = {
            "version": VERSION if self.inference.flip else 2 if self.frozen else 1,
            "omnitraining": version("omnitraining"),
            "name": self.name,
            "config": self.config,
            "inputs": self.inputs.as_json() if self.inputs else None,
            "votes": self.measured.as_json(),
            "fit": {_FIT_KEYS.get(key, key): value for key, value in fit.items()},
        }
        if self.frozen is not None:
            digest = sha256(self.pooled_backbone.model)
            text["frozen"] = {**asdict(self.frozen), "sha256": digest, "stored": weights}
        return save_tensors(stored, metadata={"learner": json.dumps(text)})

    @classmethod
    def from_bytes(
        cls,
        data: bytes,
        source: str,
        trust: bool = False,
        weights: Path | None = None,
        backbone: nn.Module | None = None,
        device: str = "auto",
    ) -> tuple["TrainedModel", dict[str, Tensor], dict[str, Any]]:
        """The model, tensors and fit that `to_bytes` wrote.

        Args:
            data: the content of a file.
            source: where it is from.
            trust: whether classes that it names from outside this library may be run.
            weights: file of the weights of a frozen backbone, if the file lacks them.
            backbone: the user's own module, if the file is of one.
            device: that the model is on, as in `find_device`.

        Raises:
            InputError: the bytes are damaged, something else, or of a newer version, or name what
                is not trusted; the message names the source.
        """
        text, tensors = _opened(data, source)
        try:
            config = of_learner(text["config"])
            run_config = run_config_of(config, source, trust)
            size, frozen, given = len(data), None, None
            if "frozen" in text:
                facts = checks.frozen(text["frozen"])
                frozen = Frozen(facts.words, facts.from_library, facts.from_file)
                given = restored_backbone(facts, config["backbone"], source, weights, backbone)
            elif weights is not None or backbone is not None:
                raise InputError(f"{source} is no frozen backbone: leave weights and backbone out")
            if given is not None:
                run_config = replace(run_config, backbone=lambda: given)
                size += sum(tensor.nbytes for tensor in unique_tensors(given).values())
            model = run_config.build() if trust else run_config.bounded(size, source)
            inputs, measured = _checked_parts(text, config, model)
            names = {key: name for name, key in _FIT_KEYS.items()}
            fit = {names.get(key, key): value for key, value in {**text["fit"]}.items()}
            checks.options(fit, model.trained_flows)
            run_config.inference.check(None, model)
            name = _printable(text["name"])
        except (KeyError, TypeError, AttributeError, checks.DamagedError) as error:
            reason = error if isinstance(error, checks.DamagedError) else repr(error)
            raise InputError(f"{source} is damaged: {reason}") from error
        if frozen is not None and not facts.stored:
            assert given is not None
            known = {id(tensor) for tensor in unique_tensors(given).values()}
            own = {n: x for n, x in unique_tensors(model).items() if id(x) not in known}
        else:
            own = unique_tensors(model)
        _fill(own, tensors, source)
        model = model.to(find_device(device, "device"))
        trained = cls(model, config, inputs, measured, name, trust, frozen)
        return trained, tensors, fit


def _checked_parts(
    text: Mapping[str, Any], config: Mapping[str, Any], model: Model
) -> tuple[ImageInputs | None, Calibration | CurveWeights]:
    """Inputs, and calibration or ensemble weights, of the JSON text of a file."""
    flows, measured = model.trained_flows, text["votes"]
    if text["inputs"] is None:
        return None, checks.curve_weights(measured, flows)
    shape = config["problem"]["init_args"]["shape"]
    return checks.image_inputs(text["inputs"], shape), checks.calibration(measured, flows)


def _fill(own: Mapping[str, Tensor], tensors: dict[str, Tensor], source: str) -> None:
    """Copy the weights of a file into a model, and remove them from ``tensors``."""
    for name, tensor in own.items():
        stored = tensors.pop(f"model.{name}", None)
        if stored is None or stored.shape != tensor.shape or stored.dtype != tensor.dtype:
            raise InputError(f"{source} is damaged: model.{name} is missing or differs")
        with torch.no_grad():
            tensor.copy_(stored)
        if not stored.isfinite().all():
            raise InputError(f"{source} is damaged: model.{name} is not finite")


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
        format_version = text["version"]
        if type(format_version) is not int:
            raise TypeError("version")
    except InputError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{source} is not a learner: give a file that a learner saved") from error
    if format_version > VERSION:
        raise InputError(
            f"{source} is of version {format_version}, written by omnitraining "
            f"{_printable(text.get('omnitraining'))}: this omnitraining {version('omnitraining')} "
            f"reads up to version {VERSION}; update it"
        )
    try:
        return text, load_tensors(data)
    except (SafetensorError, *INSTANTIATION_ERRORS) as error:
        raise InputError(f"{source} is truncated or damaged: {error}") from error


def _printable(name: Any) -> str:
    """A name from a file, fit for a line of text."""
    return "".join(c if c.isprintable() else "?" for c in str(name)[:200])


@float32_on_cpu()
def _unpickled(data: bytes, name: str, module: nn.Module | None = None) -> TrainedModel:
    # A pickle is trusted: it can run anything itself.
    return TrainedModel.from_bytes(data, name, trust=True, backbone=module)[0]


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of JSON with tuples for lists."""
    return {
        key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
    }


def calibrate_run(run: Run, run_config: RunConfig, model: Model) -> Calibration:
    """The calibration of a run's best checkpoint, measured once and kept in its folder."""
    if (kept := _kept_calibration(run, model)) is not None:
        return kept
    problem = cast(Classification, run_config.problem)
    calibration = calibrate(problem, model, run_config.inference)
    with suppress(OSError, InputError):  # a read-only run is measured each time
        run.write_json("calibration.json", {"of": _best(run), **calibration.as_json()})
    return calibration


def _kept_calibration(run: Run, model: Model) -> Calibration | None:
    """The calibration in a run; None if there is none, or of another checkpoint, or damaged."""
    path = run.path / "calibration.json"
    try:
        record = read_json_strictly(read_bytes(path, MAX_JSON), str(path))
        if record.pop("of") == _best(run):
            return checks.calibration(record, model.trained_flows)
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    return None


def _best(run: Run) -> dict[str, Any]:
    state = training_state(run.checkpoint("best"))
    return {name: state[name] for name in ("best_step", "best_weights")}

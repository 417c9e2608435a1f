"""The typed configuration of a run: problem, backbone, method, and how to train them.

[79] H.-Y. Tseng, H.-Y. Lee, J.-B. Huang, M.-H. Yang: "Cross-Domain Few-Shot Classification via
Learned Feature-Wise Transformation", ICLR 2020, https://arxiv.org/abs/2001.08735
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentError, ArgumentParser, Namespace
from torch import nn

from omnitraining.backbones import FeatureWise, Frozen, ScaleShift
from omnitraining.config.bounds import Bounds
from omnitraining.config.class_names import options_with_full_names, with_full_names
from omnitraining.config.fields import check_filled, readable
from omnitraining.config.former_names import options_with_new_names, with_new_names
from omnitraining.config.recipes import FIELD, with_recipe
from omnitraining.config.starts import (
    library_of,
    pretrained_start,
    with_start,
    with_start_size,
    with_underscores,
)
from omnitraining.config.strict import read_yaml_strictly
from omnitraining.config.trust import Check, Plan
from omnitraining.config.values import (
    read_values,
    read_yaml,
    recipe_of,
    with_classes,
    with_own_defaults,
)
from omnitraining.errors import InputError
from omnitraining.evaluation import Inference
from omnitraining.limits import check_seed
from omnitraining.metatraining import MetaTraining, ProtoNet
from omnitraining.model import Method, Model, OmniLoss, OmniNetOptions, build_model
from omnitraining.pretraining import Baseline, PreTraining
from omnitraining.runs import run_data
from omnitraining.runs.paths import absolute_paths, absolute_plan_paths
from omnitraining.runs.run import Run, load_checkpoint, training_state
from omnitraining.tasks.base import Problem
from omnitraining.tasks.blueprint import BLUEPRINT, FORMERLY, Blueprint
from omnitraining.training import Training, find_device

AROUND_BACKBONES = FeatureWise, Frozen, ScaleShift
"""Modules that hold a plain backbone, which may start from another run."""

INSTANTIATION_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""Errors of classes, numpy and torch for values of the right types that do not fit."""


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides the weights and the scores of a run.

    Args:
        problem: tasks for training and evaluation, as ``Glyphs`` or ``package.module.Class``.
        backbone: the network to train, as ``Conv4`` or ``package.module.Class``.
        method: what is trained: the three flows of Omni-Training, or a rival (paper 3.3).
        pretraining: the pre-training algorithm.
        metatraining: the meta-training algorithm.
        omninet: how the backbone becomes an Omni-Net.
        loss: terms of the Omni-Loss.
        training: length and optimization.
        inference: how to predict.
        seed: of weights and samples.
        teacher_run: run folder of the generation before this one, whose pre-flow teaches it (RFS).
        start_from: run folder of one backbone of the same kind whose weights initialize this one,
            as the GNN and FT rows of [79] start from a Baseline (a backbone inside `FeatureWise`,
            `Frozen` or `ScaleShift` counts as one); or "timm/NAME", "torchvision/NAME" or
            "transformers/NAME", which is then the backbone.
        start_weights: file of the weights of such a backbone (of transformers: folder of the
            model), in place of the weights that its library downloads.
    """

    problem: Problem
    backbone: Callable[[], nn.Module]
    method: Method = "omni-training"
    pretraining: PreTraining = field(default_factory=Baseline)
    metatraining: MetaTraining = field(default_factory=ProtoNet)
    omninet: OmniNetOptions = field(default_factory=OmniNetOptions)
    loss: OmniLoss = field(default_factory=OmniLoss)
    training: Training = field(default_factory=Training)
    inference: Inference = field(default_factory=Inference)
    seed: int = 0
    teacher_run: Path | None = None
    start_from: Path | None = None
    start_weights: Path | None = None

    def __post_init__(self) -> None:
        check_seed("seed", self.seed)

    def build(self, trust: bool = False) -> Model:
        """The model before training; the same for the same seed.

        Args:
            trust: whether other runs that are named may run classes from outside this library.

        Raises:
            InputError: the parts do not fit together, or another run that is named cannot be
                loaded.
        """
        teacher = (
            _trained(self.teacher_run, trust).requires_grad_(False) if self.teacher_run else None
        )
        return self.assembled(teacher, self._source(trust))

    def _source(self, trust: bool) -> nn.Module | None:
        """The backbone whose weights initialize this one."""
        if self.start_from is None or library_of(self.start_from) is None:
            if self.start_weights is not None:
                raise InputError("start_weights are of a backbone that start_from names: timm/NAME")
            if self.start_from is None:
                return None
            model = _trained(self.start_from, trust)
            return model.network(model.trained_flows[0]).backbone
        return pretrained_start(str(self.start_from), self.start_weights, self.backbone)

    def assembled(self, teacher: Model | None = None, source: nn.Module | None = None) -> Model:
        """The model before training, given what it needs of other runs.

        Args:
            teacher: model of the generation before.
            source: backbone whose weights initialize this one.

        Raises:
            InputError: the parts do not fit together.
        """
        torch.manual_seed(self.seed)
        try:
            return build_model(
                self.method,
                partial(_started, self.backbone, source) if source else self.backbone,
                self.problem,
                self.pretraining,
                self.metatraining,
                self.loss.in_steps(self.training.steps),
                self.omninet,
                teacher,
            )
        except RuntimeError as error:  # of torch, for example out of memory
            raise InputError(f"the model cannot be made: {str(error).splitlines()[0]}") from error

    def load(self, run: Run) -> Model:
        """The trained model of a run, at its best validation score.

        Raises:
            InputError: the checkpoint is missing, damaged or of another model; or the run is not
                trusted, and its model would take more than it should.
        """
        state = training_state(run.checkpoint("best"))
        if "best_weights" not in state:
            raise InputError(f"checkpoint {run.checkpoint('best')} is damaged: no best_weights")
        alone = replace(self, teacher_run=None, start_from=None, start_weights=None)
        model = alone.build() if run.trust else alone.bounded(run.checkpoint("best"))
        load_checkpoint(run.checkpoint("best"), {state["best_weights"]: model})
        return model.to(find_device(self.training.device)).eval()

    def bounded(self, stored: Path | int, source: str = "") -> Model:
        """The model before training, if building it takes no more memory than its weights suggest.

        Args:
            stored: the file of the weights, or its size in bytes.
            source: where the weights are from, if no file is given.

        Raises:
            InputError: it takes more, or the parts do not fit together.
        """
        size = stored.stat().st_size if isinstance(stored, Path) else stored
        try:
            with Bounds(size):
                return self.assembled()
        except (InputError, *INSTANTIATION_ERRORS) as error:
            reason = " ".join(f"{error}".split())
            raise InputError(f"{source or stored} is damaged: {reason:.300}") from error

    def ready(self, run: Run) -> Model:
        """The trained model of a run, ready for evaluation.

        The data must have the classes of the training; the problem is moved to the model's device.
        Use it inside `cpu_threads`: the number of threads changes how sums are rounded.
        """
        run_data.check(run, self.problem)
        self.problem.to(find_device(self.training.device))
        return self.load(run)


def _trained(folder: Path, trust: bool) -> Model:
    return load_model(Run(folder, trust=trust))


def _started(backbone: Callable[[], nn.Module], start: nn.Module) -> nn.Module:
    """A new backbone with the weights of another."""
    made = backbone()
    bare, source = (b.backbone if isinstance(b, AROUND_BACKBONES) else b for b in (made, start))
    try:
        bare.load_state_dict(source.state_dict())
    except (RuntimeError, KeyError) as error:
        raise InputError(
            f"the run of start_from holds a {type(source).__name__} that does not fit this "
            f"{type(bare).__name__}: it must be a run of one plain backbone of the same kind"
        ) from error
    return made


class _Parser(ArgumentParser):
    """Computes its defaults once, as parsing requests them again for every class."""

    _known_defaults: Namespace | None = None

    def get_defaults(self, *args: Any, **options: Any) -> Namespace:
        """A copy of the defaults."""
        if self._known_defaults is None:
            self._known_defaults = super().get_defaults(*args, **options)
        return self._known_defaults.clone()


@cache
def parser() -> ArgumentParser:
    """The parser whose options are the fields of `RunConfig`."""
    made = _Parser(exit_on_error=False, allow_abbrev=False)
    made.add_class_arguments(RunConfig)
    return made


def load_run(run: Run) -> RunConfig:
    """The experiment of a run folder, with its data.

    Raises:
        InputError: its configuration is damaged or out of bounds; or it names a class from outside
            this library, and the run is not trusted; or data are not there.
    """
    if run.trust:
        return instantiate(config_of(run))
    return _instantiate_plan(plan_of(run), str(run.path / "config.yaml"))


def load_model(run: Run) -> Model:
    """The trained model of a run, at its best validation score.

    The data are not needed, but by runs of earlier versions.

    Raises:
        InputError: as `load_run`.
    """
    data = run_data.read(run)
    if data is None or data.model is None:
        return load_run(run).load(run)
    path = run.path / "config.yaml"
    values = read_yaml(path) if run.trust else read_yaml_strictly(path)
    if not run.trust:
        Check(str(path)).plan(values, RunConfig)  # its problem too, of which nothing is made
    problem = {"class_path": BLUEPRINT, "init_args": dict(data.model)}
    return run_config_of({**values, "problem": problem}, str(path), run.trust).load(run)


def of_learner(config: Any) -> Any:
    """The fields in a learner's file, as this version names them and the class of its problem."""
    config = with_new_names(config)
    problem = config.get("problem") if isinstance(config, dict) else None
    if isinstance(problem, dict) and problem.get("class_path") == FORMERLY:
        return {**config, "problem": {**problem, "class_path": BLUEPRINT}}
    return config


def run_config_of(config: Any, source: str, trust: bool) -> RunConfig:
    """The experiment that a learner's file describes.

    Args:
        config: its fields, with a `Blueprint` for a problem, as `of_learner` has them.
        source: where they are from.
        trust: whether classes from outside this library may be run.

    Raises:
        InputError: as in `instantiate_strictly` and `parse`.
    """
    if trust:
        return instantiate(parse(config, source))
    try:
        return instantiate_strictly(config, source, (Blueprint,))
    except InputError as error:
        if str(error).startswith(source):
            raise
        raise InputError(f"{source} is damaged: {error}") from error  # of an option's own class


def instantiate_strictly(
    values: Any, source: str, problems: tuple[type[Problem], ...] = ()
) -> RunConfig:
    """The experiment that an untrusted source describes, made of this library's classes alone.

    Nothing is imported, opened or made before all of it has been checked, and no text is parsed.

    Args:
        values: nested fields.
        source: where they are from.
        problems: classes that a problem may have; this library's if not given.

    Raises:
        InputError: a field is unknown, has a wrong value or one that is out of bounds, or names
            what is not this library's; the message names the source.
    """
    return _instantiate_plan(Check(source, problems).plan(values, RunConfig), source)


def _instantiate_plan(plan: Plan, source: str) -> RunConfig:
    try:
        made: RunConfig = plan.made()
    except InputError:
        raise
    except INSTANTIATION_ERRORS as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{source}: its parts cannot be made: {reason:.200}") from error
    return made


def config_of(run: Run) -> Namespace:
    """The configuration of a trusted run, its paths absolute."""
    path, data = run.path / "config.yaml", run_data.read(run)
    return absolute_paths(
        parse(read_yaml(path), str(path)), run.path, data.places if data else None
    )


def plan_of(run: Run, foreign: frozenset[str] = frozenset()) -> Plan:
    """The configuration of a run that is not trusted; of other classes it may name ``foreign``."""
    path, data = run.path / "config.yaml", run_data.read(run)
    plan = Check(str(path), foreign=foreign).plan(read_yaml_strictly(path), RunConfig)
    return absolute_plan_paths(plan, run.path, data.places if data else None)


def parse(values: Mapping[str, Any], source: str = "configuration") -> Namespace:
    """Check a nested dictionary of the caller's own against the fields of `RunConfig`.

    The modules of the classes that it names are run. For values that are not trusted use
    `instantiate_strictly`.

    Args:
        values: the dictionary.
        source: where it is from.

    Raises:
        InputError: a field is unknown or has a wrong value; the message names the source.
    """
    values = with_new_names(values)
    made = parser()
    defaults = [*made.get_defaults().items(branches=True)]
    # The parser ignores null, and takes a text in place of a group of fields as a path.
    for name, default in defaults:
        given = _given(values, name, default)
        is_class = isinstance(given, str) and isinstance(default, Namespace)
        if is_class and "class_path" in default and given.replace(".", "").isidentifier():
            continue  # the name of a class for its path
        if isinstance(default, Namespace) and not isinstance(given, (Mapping, Namespace)):
            names = ", ".join(vars(default))
            raise InputError(f"{source}: {name} is {given!r}: it must hold fields of {names}")
    with _one_line_errors(source):
        config: Namespace = made.parse_object(with_full_names(with_own_defaults(values)))
    for name, default in defaults:
        if _given(values, name, default) is None and default is not None:
            raise InputError(f"{source}: {name} has no value: leave it out for {default!r}")
    return config


def _given(values: Mapping[str, Any], name: str, default: Any) -> Any:
    """The value of a field by its path, or its default."""
    given: Any = values
    for part in name.split("."):
        given = given.get(part, default) if isinstance(given, Mapping) else default
    return given


def read_config(path: Path, options: list[str]) -> Namespace:
    """A configuration file with fields overridden from the command line.

    Args:
        path: the file; the name of a shipped one will do.
        options: fields as the command line has them, ``--seed 1``; ``--recipe paper`` too.

    Raises:
        InputError: the file cannot be read, there is no such recipe, or a field is unknown or has
            a wrong value.
    """
    values = read_values(path)
    values.pop("tune", None)  # is for 'omni tune' alone
    name, options = recipe_of(options_with_new_names(with_underscores(options)))
    values = with_recipe(values | ({FIELD: name} if name else {}))
    values = with_start(values, options)
    start = parse(values, str(path))
    if (changed := with_classes(values, options)) != values:
        start = parse(changed, "command line")
    # What is shipped has no data beside it.
    start = absolute_paths(start, path.parent if path.is_file() else Path())
    with _one_line_errors("command line"):
        options = options_with_full_names(options)
        config: Namespace = parser().parse_args(options, namespace=start)
    return with_start_size(config)


@contextmanager
def _one_line_errors(source: str) -> Iterator[None]:
    """Turn the parser's messages, which may span lines, into one line that names the source."""
    try:
        yield
    except ArgumentError as error:
        raise InputError(f"{source}: {readable(str(error), RunConfig)}") from error


def instantiate(config: Namespace) -> RunConfig:
    """The objects that a configuration names.

    Raises:
        InputError: a class does not take its options.
    """
    check_filled(config.as_dict(), RunConfig)
    try:
        return RunConfig(**vars(parser().instantiate(config)))
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        raise InputError(f"configuration: {' '.join(str(error).split())}") from error


def dump(config: Namespace) -> str:
    """The resolved configuration as YAML."""
    text: str = parser().dump(config)
    return text

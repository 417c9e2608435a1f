"""An experiment is a typed configuration: problem, backbone, method, and how to train them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace
from torch import nn

from omnitraining import distributed
from omnitraining.backbones import FeatureWise
from omnitraining.config.bounds import Bounds
from omnitraining.config.fields import readable
from omnitraining.config.recipes import FIELD, with_recipe
from omnitraining.config.strict import read_yaml_strictly
from omnitraining.config.trust import Check, Plan, flat
from omnitraining.config.values import (
    read_values,
    read_yaml,
    recipe_of,
    with_classes,
    with_own_defaults,
)
from omnitraining.errors import InputError
from omnitraining.evaluation import Evaluation, Inference
from omnitraining.metatraining import MetaTraining, ProtoNet
from omnitraining.model import Method, Model, OmniLoss, OmniNetOptions, build_model
from omnitraining.pretraining import Baseline, PreTraining
from omnitraining.runs import run_data
from omnitraining.runs.compute import multiply_adds
from omnitraining.runs.places import as_texts, relative, settled, settled_plan
from omnitraining.runs.run import Run, load_checkpoint, provenance, training_facts
from omnitraining.tasks.base import Problem
from omnitraining.training import Progress, Training, find_device, train

RESUMABLE = ("training.steps", "training.epoch", "training.device", "training.threads")
"""Fields that may change when a run is resumed: how long and where, not what."""

CANNOT_BE_MADE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What classes, numpy and torch say to values that have the right types and still do not fit."""


@dataclass(frozen=True)
class Experiment:
    """Everything that decides the weights and the scores of a run.

    Args:
        problem: tasks to train on and to be judged on, as ``Glyphs`` or ``package.module.Class``.
        backbone: the network to train, as ``Conv4`` or ``package.module.Class``.
        method: what is trained: the three flows of Omni-Training, or a rival (paper 3.3).
        pretraining: the pre-training algorithm.
        metatraining: the meta-training algorithm.
        omninet: how the backbone becomes an Omni-Net.
        loss: terms of the Omni-Loss.
        training: length and optimisation.
        inference: how to predict.
        seed: of weights and samples.
        previous: run folder of the generation before this one, whose pre-flow teaches it (RFS).
        start: run folder of one backbone of the same kind whose weights this one starts from, as
            the GNN and FT rows of [79] start from a Baseline.
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
    previous: Path | None = None
    start: Path | None = None

    def build(self, trust: bool = False) -> Model:
        """The model before training; the same for the same seed.

        Args:
            trust: whether other runs that are named may run classes from outside this library.

        Raises:
            InputError: the parts do not fit together, or another run that is named cannot be
                loaded.
        """
        previous = _trained(self.previous, trust).requires_grad_(False) if self.previous else None
        start = _trained(self.start, trust) if self.start else None
        return self.assembled(previous, start)

    def assembled(self, previous: Model | None = None, start: Model | None = None) -> Model:
        """The model before training, with those of other runs that it needs at hand.

        Raises:
            InputError: the parts do not fit together.
        """
        torch.manual_seed(self.seed)
        try:
            return build_model(
                self.method,
                partial(_started, self.backbone, start) if start else self.backbone,
                self.problem,
                self.pretraining,
                self.metatraining,
                self.loss,
                self.omninet,
                previous,
            )
        except RuntimeError as error:  # of torch, as for want of memory
            raise InputError(f"the model cannot be made: {str(error).splitlines()[0]}") from error

    def load(self, run: Run) -> Model:
        """The trained model of a run, at its best validation score.

        Raises:
            InputError: the checkpoint is missing, damaged or of another model; or the run is not
                trusted, and its model would take more than it should.
        """
        facts = training_facts(run.checkpoint("best"))
        if "best_weights" not in facts:
            raise InputError(f"checkpoint {run.checkpoint('best')} is damaged: no best_weights")
        alone = replace(self, previous=None, start=None)
        model = alone.build() if run.trust else alone.bounded(run.checkpoint("best"))
        load_checkpoint(run.checkpoint("best"), {facts["best_weights"]: model})
        return model.to(find_device(self.training.device)).eval()

    def bounded(self, stored: Path | int, source: str = "") -> Model:
        """The model before training, if making it takes no more than its weights suggest.

        Args:
            stored: the file that has them, or its bytes.
            source: where they are from, if no file is given.

        Raises:
            InputError: it takes more, or the parts do not fit together.
        """
        size = stored.stat().st_size if isinstance(stored, Path) else stored
        try:
            with Bounds(size):
                return self.assembled()
        except (InputError, *CANNOT_BE_MADE) as error:
            said = " ".join(f"{error}".split())
            raise InputError(f"{source or stored} is damaged: {said:.300}") from error

    def ready(self, run: Run) -> Model:
        """The trained model of a run, with all that judging it needs.

        The data must have the classes of the training. The threads are those of training, since
        their number changes how sums are rounded, and the problem is on the model's device.
        """
        run_data.check(run, self.problem)
        if self.training.threads:
            torch.set_num_threads(self.training.threads)
        self.problem.to(find_device(self.training.device))
        return self.load(run)


def _trained(folder: Path, trust: bool) -> Model:
    return load_model(Run(folder, trust=trust))


def _started(backbone: Callable[[], nn.Module], model: Model) -> nn.Module:
    """A new backbone with the weights of a trained model's."""
    made = backbone()
    bare, source = (
        b.backbone if isinstance(b, FeatureWise) else b
        for b in (made, model.network(model.trained_flows[0]).backbone)
    )
    try:
        bare.load_state_dict(source.state_dict())
    except (RuntimeError, KeyError) as error:
        raise InputError(
            f"the run named as start holds a {type(source).__name__} that does not fit this "
            f"{type(bare).__name__}: it must be a run of one plain backbone of the same kind"
        ) from error
    return made


def parser(**options: Any) -> ArgumentParser:
    """A parser whose options are the fields of `Experiment`."""
    made = ArgumentParser(exit_on_error=False, allow_abbrev=False, **options)
    made.add_class_arguments(Experiment)
    return made


def train_run(
    config: Namespace,
    folder: Path,
    resume: bool = False,
    progress: Progress | None = None,
    trust: bool = False,
    changed_data: bool = False,
) -> Run:
    """Train a configuration into a folder, which becomes a run.

    Args:
        config: the caller's own; the classes that it names are run.
        folder: of the run.
        resume: go on with the run that is there.
        progress: told of losses and scores.
        trust: whether other runs that it names, as ``start``, may run classes from outside this
            library.
        changed_data: go on although files of the data have changed.

    Raises:
        InputError: the folder already holds a run and ``resume`` is not set, or the other way
            round; another process trains it; its data have changed; or something in the
            configuration does not fit.
    """
    _check_folder(folder, resume)
    team = distributed.team()
    if not team.leads:
        team.wait()  # so that none finds what process 0 writes
        return _train(config, folder, resume, progress, trust, changed_data)
    # Wrong input shall leave no trace: a folder that is made here is removed if nothing is in it.
    with _made(folder), Run(folder, create=True).only_writer():
        _check_folder(folder, resume)  # another process may have made it
        team.wait()
        return _train(config, folder, resume, progress, trust, changed_data)


def _check_folder(folder: Path, resume: bool) -> None:
    if (folder / "config.yaml").is_file() and not resume:
        raise InputError(f"{folder} already holds a run: add --resume, or choose another --out")
    if resume and not folder.is_dir():
        raise InputError(f"nothing to resume at {folder}: there is no such folder")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: a run is a folder")


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """A folder; what was made of it is removed again if it stays empty."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):  # it is not empty
            for place in missing:
                place.rmdir()


def _train(
    config: Namespace,
    folder: Path,
    resume: bool,
    progress: Progress | None,
    trust: bool,
    changed_data: bool,
) -> Run:
    """Train into a folder that no other process writes to."""
    config = settled(config, Path())
    experiment = instantiate(config)
    device, team = find_device(experiment.training.device), distributed.team()
    team.check(device, experiment.training.optimiser)
    experiment.problem.share(team.rank, team.size)
    model = experiment.build(trust)
    _try_out(experiment, model)
    changes: tuple[str, ...] = ()
    run = Run(folder, create=True)
    if (folder / "config.yaml").is_file():
        _check_unchanged(Run(folder), config)
    started = resume and run.checkpoint("last").is_file()
    if started:
        done = training_facts(run.checkpoint("last"))["step"]
        if done > experiment.training.steps:
            raise InputError(
                f"training.steps is {experiment.training.steps}, but {folder} is at step {done}: "
                "it must be that or more"
            )
        found = run_data.check(run, experiment.problem, goes_on=True, accept=changed_data)
        changes = tuple(f"before step {done + 1}: {change}" for change in found)
    cost = multiply_adds(model, experiment.problem, device) if team.leads else None
    team.wait()  # so that none has read what process 0 writes now
    if team.leads:
        _write_origin(run, config, experiment.problem, changes)
    facts = train(
        model,
        experiment.problem,
        experiment.training,
        experiment.inference,
        run,
        experiment.seed,
        started,
        progress,
    )
    if team.leads:
        run.write_json("provenance.json", provenance() | facts | {"multiply_adds": cost})
        _calibrate(run, experiment)
    return run


def _write_origin(run: Run, config: Namespace, problem: Problem, changes: tuple[str, ...]) -> None:
    """Write down what a run is trained with, and on."""
    before = run_data.read(run)
    places = as_texts(config)
    data = run_data.data_of(problem, places)
    if data is None and places:
        data = run_data.RunData(places=places)
    if data is not None:
        known = before.changes if before else ()
        run_data.write(run, replace(data, changes=(*known, *changes)))
    run.write_text("config.yaml", dump(relative(config, run.path)))


def _calibrate(run: Run, experiment: Experiment) -> None:
    """Measure on its validation tasks what learners of a run need, if its data are in files.

    These may be gone when a learner is wanted. Whatever else a problem has, it can make again.
    """
    data = run_data.read(run)
    if not run.checkpoint("best").is_file():  # no validation had a score
        return
    if data is not None and data.inputs is not None and data.is_of_files:
        from omnitraining.learner.trained import calibrated  # learners import this module

        experiment.problem.to(torch.device("cpu"))
        calibrated(run, experiment, experiment.load(run).cpu())


@torch.no_grad()
def _try_out(experiment: Experiment, model: Model) -> None:
    """The losses of one step, to find out before training whether the parts fit together."""
    if not model.trained_flows:
        raise InputError(
            f"{experiment.method} has no loss to train with: loss.l_pre, loss.l_joint or "
            "loss.l_meta must be true"
        )
    experiment.inference.voters(model.trained_flows)
    experiment.training.make_optimiser(model)
    problem, random = experiment.problem, torch.Generator().manual_seed(0)
    meta = type(experiment.metatraining)
    other = sorted(problem.test_outputs - {problem.meta_outputs})
    if meta.fixed_ways and other and {"meta", "joint_meta"} & {*model.networks}:
        raise InputError(
            f"{meta.__name__} answers tasks of as many ways as it was trained on, "
            f"{problem.meta_outputs}, but there are test tasks of {other[0]}: set protocol.ways "
            "and protocol.test_ways alike, or leave that benchmark out"
        )
    try:
        samples = problem.samples(0, random, model.eval())
        model(samples.batch, samples.episode, joint=samples.joint)
    except RuntimeError as error:
        parts = (problem, experiment.pretraining, experiment.metatraining)
        raise InputError(
            f"{', '.join(type(part).__name__ for part in parts)} do not fit together: "
            f"{str(error).splitlines()[0]}"
        ) from error


def load_run(run: Run) -> Experiment:
    """The experiment of a run folder, with its data.

    Raises:
        InputError: its configuration is damaged or out of bounds; or it names a class from outside
            this library, and the run is not trusted; or data are not there.
    """
    if run.trust:
        return instantiate(_config_of(run))
    return _made_of(_plan_of(run), str(run.path / "config.yaml"))


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
        Check(str(path)).plan(values, Experiment)  # its problem too, of which nothing is made
    from omnitraining.learner.trained import BLUEPRINT, experiment_of  # learners import this module

    problem = {"class_path": BLUEPRINT, "init_args": dict(data.model)}
    return experiment_of({**values, "problem": problem}, str(path), run.trust).load(run)


def strictly_made(values: Any, source: str, problems: tuple[type[Problem], ...] = ()) -> Experiment:
    """The experiment that someone else describes, made of this library's classes alone.

    Nothing is imported, opened or made before all of it has been checked, and no text is parsed.

    Args:
        values: nested fields.
        source: where they are from.
        problems: classes that may stand for a problem; those of this library if not given.

    Raises:
        InputError: a field is unknown, has a wrong value or one that is out of bounds, or names
            what is not this library's; the message names the source.
    """
    return _made_of(Check(source, problems).plan(values, Experiment), source)


def _made_of(plan: Plan, source: str) -> Experiment:
    try:
        made: Experiment = plan.made()
    except InputError:
        raise
    except CANNOT_BE_MADE as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{source}: its parts cannot be made: {said:.200}") from error
    return made


def _config_of(run: Run) -> Namespace:
    """The configuration of a trusted run, its paths absolute."""
    path, data = run.path / "config.yaml", run_data.read(run)
    return settled(parse(read_yaml(path), str(path)), run.path, data.places if data else None)


def _plan_of(run: Run, foreign: frozenset[str] = frozenset()) -> Plan:
    """The same of a run that is not trusted, which names no more than is given."""
    path, data = run.path / "config.yaml", run_data.read(run)
    plan = Check(str(path), foreign=foreign).plan(read_yaml_strictly(path), Experiment)
    return settled_plan(plan, run.path, data.places if data else None)


def changed_fields(run: Run, config: Namespace) -> list[str]:
    """Fields in which a configuration differs from that of a run.

    Nothing that the run names is made for that, nor imported.

    Raises:
        InputError: the run names a class from outside this library that the configuration does
            not name, and the run is not trusted.
    """
    given = yaml.safe_load(dump(settled(config, Path())))
    if run.trust:
        old, new = (dict(one.items()) for one in (_config_of(run), parse(given)))
    else:
        asked = Check("configuration", foreign=None)
        new = flat(asked.plan(given, Experiment))
        old = flat(_plan_of(run, frozenset({*asked.named, ""})))  # never empty: nothing is limited
    return [name for name in {**old, **new} if old.get(name) != new.get(name)]


def _check_unchanged(run: Run, config: Namespace) -> None:
    changed = [name for name in changed_fields(run, config) if name not in RESUMABLE]
    if changed:
        raise InputError(
            f"{run.path} was trained with another {', '.join(changed)}: only "
            f"{', '.join(RESUMABLE)} may change with --resume"
        )


def evaluate_run(
    run: Run, tasks: int | None = None, shots: tuple[int, ...] = (), name: str = "test"
) -> Evaluation:
    """Judge a run on the fixed test tasks and keep the result in its folder.

    Args:
        run: the run folder.
        tasks: test tasks per cell, from 2 to those that the problem has, which is the default.
        shots: support samples; as configured if not given.
        name: of the record in ``evaluations/``.

    Raises:
        InputError: the run cannot be judged, or the result cannot be written.
    """
    evaluation = judged(run, tasks, shots)
    run.save_evaluation(name, evaluation)
    return evaluation


def judged(run: Run, tasks: int | None = None, shots: tuple[int, ...] = ()) -> Evaluation:
    """The same without keeping the result, as of a run that may only be read."""
    experiment = load_run(run)
    problem = experiment.problem
    tasks = problem.test_tasks if tasks is None else tasks
    if not 2 <= tasks <= problem.test_tasks:
        raise InputError(f"--tasks is {tasks}: it must be from 2 to {problem.test_tasks}")
    if shots:
        problem.set_test_shots(shots)
    return problem.evaluate(experiment.ready(run), experiment.inference, tasks)


def parse(values: Mapping[str, Any], source: str = "configuration") -> Namespace:
    """Check a nested dictionary of the caller's own against the fields of `Experiment`.

    The modules of the classes that it names are run. For values of someone else there is
    `strictly_made`.

    Args:
        values: the dictionary.
        source: where it is from.

    Raises:
        InputError: a field is unknown or has a wrong value; the message names the source.
    """
    made = parser()
    defaults = [*made.get_defaults().items(branches=True)]
    # The parser takes null as if it were not there, and a text for a group of fields as a path.
    for name, default in defaults:
        given = _given(values, name, default)
        is_class = isinstance(given, str) and isinstance(default, Namespace)
        if is_class and "class_path" in default and given.replace(".", "").isidentifier():
            continue  # the name of a class for its path
        if isinstance(default, Namespace) and not isinstance(given, (Mapping, Namespace)):
            names = ", ".join(vars(default))
            raise InputError(f"{source}: {name} is {given!r}: it must hold fields of {names}")
    with _one_line_errors(source):
        config: Namespace = made.parse_object(with_own_defaults(values))
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
    name, options = recipe_of(options)
    values = with_recipe(values | ({FIELD: name} if name else {}))
    start = parse(values, str(path))
    if (changed := with_classes(values, options)) != values:
        start = parse(changed, "command line")
    # What is shipped has no data beside it.
    start = settled(start, path.parent if path.is_file() else Path())
    with _one_line_errors("command line"):
        config: Namespace = parser().parse_args(options, namespace=start)
        return config


@contextmanager
def _one_line_errors(source: str) -> Iterator[None]:
    """Turn the parser's messages, which may span lines, into one line that names the source."""
    try:
        yield
    except ArgumentError as error:
        raise InputError(f"{source}: {readable(str(error), Experiment)}") from error


def instantiate(config: Namespace) -> Experiment:
    """The objects that a configuration names.

    Raises:
        InputError: a class does not take its options.
    """
    try:
        return Experiment(**vars(parser().instantiate(config)))
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        raise InputError(f"configuration: {' '.join(str(error).split())}") from error


def dump(config: Namespace) -> str:
    """The resolved configuration as YAML."""
    text: str = parser().dump(config)
    return text

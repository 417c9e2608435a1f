"""An experiment is a typed configuration: problem, backbone, method, and how to train them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace
from torch import nn

# Imported so that a configuration may name them by class name alone.
from omnitraining import backbones  # noqa: F401
from omnitraining.errors import InputError
from omnitraining.evaluation import Evaluation, Inference
from omnitraining.metatraining import MetaTraining, ProtoNet
from omnitraining.model import Method, Model, OmniLoss, OmniNetOptions, build_model
from omnitraining.pretraining import Baseline, PreTraining
from omnitraining.runs import Run, load_checkpoint, provenance
from omnitraining.tasks.base import Problem
from omnitraining.tasks.classification.glyph_problem import Glyphs  # noqa: F401
from omnitraining.tasks.regression.sinusoids import Sinusoids  # noqa: F401
from omnitraining.training import Progress, Training, find_device, train


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

    def build(self) -> Model:
        """The untrained model; the same for the same seed."""
        torch.manual_seed(self.seed)
        return build_model(
            self.method,
            self.backbone,
            self.problem,
            self.pretraining,
            self.metatraining,
            self.loss,
            self.omninet,
        )

    def load(self, run: Run, weights: str | None = None) -> Model:
        """The trained model of a run, at its best validation score.

        Args:
            run: the run folder.
            weights: ``"teacher"`` or ``"student"``; by default as ``inference`` says.
        """
        model = self.build()
        load_checkpoint(run.checkpoint("best"), {weights or self.inference.weights: model})
        return model.to(find_device(self.training.device)).eval()


def parser(**options: Any) -> ArgumentParser:
    """A parser whose options are the fields of `Experiment`."""
    made = ArgumentParser(exit_on_error=False, **options)
    made.add_class_arguments(Experiment)
    return made


def train_run(
    config: Namespace, folder: Path, resume: bool = False, progress: Progress | None = None
) -> Run:
    """Train a configuration into a folder, which becomes a run.

    Raises:
        InputError: the folder already holds a run and ``resume`` is not set, or the other way
            round, or something in the configuration does not fit.
    """
    if (folder / "config.yaml").is_file() and not resume:
        raise InputError(f"{folder} already holds a run: add --resume, or choose another --out")
    if resume and not folder.is_dir():
        raise InputError(f"nothing to resume at {folder}: there is no such folder")
    experiment = instantiate(config)
    model = experiment.build()  # before the folder is made, so that a wrong input leaves no trace
    run = Run(folder, create=True)
    run.write_text("config.yaml", dump(config))
    started = resume and run.checkpoint("last").is_file()
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
    run.write_json("provenance.json", provenance() | facts)
    return run


def load_run(run: Run) -> Experiment:
    """The experiment of a run folder."""
    return instantiate(parse(yaml.safe_load((run.path / "config.yaml").read_text())))


def evaluate_run(
    run: Run, tasks: int = 600, shots: tuple[int, ...] = (), name: str = "test"
) -> Evaluation:
    """Judge a run on the fixed test tasks and keep the result in its folder.

    Args:
        run: the run folder.
        tasks: test tasks per cell, from 2 to 600.
        shots: support samples; as configured if not given.
        name: of the record in ``evaluations/``.
    """
    if not 2 <= tasks <= 600:
        raise InputError(f"--tasks is {tasks}: it must be from 2 to 600")
    experiment = load_run(run)
    problem = experiment.problem
    if shots:
        problem.set_test_shots(shots)
    model = experiment.load(run)
    problem.to(find_device(experiment.training.device))
    evaluation = problem.evaluate(model, experiment.inference, tasks)
    run.save_evaluation(name, evaluation)
    return evaluation


def parse(values: dict[str, Any]) -> Namespace:
    """Check a nested dictionary against the fields of `Experiment`."""
    with _one_line_errors("configuration"):
        config: Namespace = parser().parse_object(values)
    return config


def read_config(path: Path, fields: list[str]) -> Namespace:
    """A configuration file with fields overridden from the command line.

    Raises:
        InputError: the file cannot be read, or a field is unknown or has a wrong value.
    """
    if not path.is_file():
        raise InputError(f"no configuration file at {path}")
    try:
        values = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold fields and values, as in 'seed: 0'")
    with _one_line_errors(str(path)):
        start = parser().parse_object(values)
    with _one_line_errors("command line"):
        config: Namespace = parser().parse_args(fields, namespace=start)
        return config


@contextmanager
def _one_line_errors(source: str) -> Iterator[None]:
    """Turn the parser's messages, which may span lines, into one line that names the source."""
    try:
        yield
    except ArgumentError as error:
        raise InputError(f"{source}: {' '.join(str(error).split())}") from error


def instantiate(config: Namespace) -> Experiment:
    return Experiment(**vars(parser().instantiate(config)))


def dump(config: Namespace) -> str:
    """The resolved configuration as YAML."""
    text: str = parser().dump(config)
    return text

"""Transferability of a trained model: across tasks and domains, frozen and fine-tuned.

The paper measures it for pre-training and meta-training on its benchmarks (Figures 3 and 10c). Here
it is measured for every flow of one model, on the user's own images.
"""

import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from omnitraining.adaptation.batched import BatchedModules, Weights, expand_weights
from omnitraining.adaptation.inner_loop import sgd_step
from omnitraining.batches import Episode
from omnitraining.config.run_config import load_run
from omnitraining.datasets.duplicates import shared_images
from omnitraining.datasets.images import LabeledImages
from omnitraining.errors import InputError
from omnitraining.evaluation import (
    ENSEMBLE,
    Cell,
    CellKey,
    Difference,
    Evaluation,
    Inference,
    ensemble_mean,
    paired_difference,
    tasks_hash,
)
from omnitraining.heads import LinearClassifier
from omnitraining.io.terminal import duration, tracked
from omnitraining.losses import cross_entropy
from omnitraining.model import Model
from omnitraining.network import Network
from omnitraining.omninet import plain
from omnitraining.runs.run import Run
from omnitraining.tasks.classification.episodes import TaskIndices
from omnitraining.tasks.classification.problem import ADAPT_BATCH, Classification
from omnitraining.threads import cpu_threads

TRAINED, NEW = "trained classes", "new classes"
STEPS = (0, 1, 10)
"""Gradient steps of fine-tuning, as in Figure 10c."""
RATES = (0.01, 0.1, 1.0)
"""Learning rates of fine-tuning, of which the validation tasks choose one for each flow."""

LEAST = 5
"""Least number of tasks of fine-tuning; intervals over fewer mean nothing."""


@dataclass(frozen=True)
class Transfer:
    """Measured accuracies of a model.

    Attributes:
        own: name of the user's images.
        shots: support images per class, rising.
        frozen: accuracy of every flow and of the ensemble, by images and shots.
        tuned: accuracy of every flow on the user's images, by shots and steps of fine-tuning.
    """

    own: str
    shots: tuple[int, ...]
    frozen: Evaluation
    tuned: Evaluation

    @property
    def flows(self) -> tuple[str, ...]:
        """The flows of the model, without the ensemble."""
        heads = next(iter(self.frozen.cells.values())).scores
        return tuple(head for head in heads if head != ENSEMBLE)

    def frozen_cell(self, images: str, shots: int) -> Cell:
        """Results of frozen flows on images, by their name, with a number of shots."""
        cells = self.frozen.cells.items()
        return next(c for key, c in cells if (key.benchmark, key.shots) == (images, shots))

    def tuned_cell(self, shots: int, steps: int) -> Cell:
        """Results on the user's images after fine-tuning."""
        return self.tuned.cells[CellKey(self.own, shots=shots, steps=steps)]

    def gains(self, flow: str, shots: int) -> list[Difference]:
        """Paired gain of a flow on the user's images by each number of steps above 0.

        Empty if fine-tuning was left out.
        """
        if not self.tuned.cells:
            return []
        cells = [self.tuned_cell(shots, steps).scores[flow] for steps in STEPS]
        return [paired_difference(after, cells[0]) for after in cells[1:]]


def measure(
    problem: Classification,
    model: Model,
    inference: Inference,
    own: LabeledImages,
    tasks: int,
    tuned_tasks: int,
    minutes: float | None = None,
) -> Transfer:
    """Evaluate a model on the classes of training, on new ones, and on the user's own images.

    New classes are the validation classes. The checkpoint was chosen by them, so their accuracy is
    slightly optimistic. Tasks on all three have the same ways, shots and queries.

    Args:
        problem: of the training, with its images.
        model: the trained model.
        inference: how it predicts.
        own: the user's images, in the format of the problem's images.
        tasks: number of tasks on each kind of images.
        tuned_tasks: number of the first of them, on which networks are fine-tuned.
        minutes: limit of fine-tuning: it is done on fewer tasks, or none, if it would take longer.

    Warns:
        UserWarning: the model was trained on some of the user's images, or fewer tasks are
            fine-tuned.

    Raises:
        InputError: the user's images are too few for a task, or the new heads are not linear.
    """
    reduced = for_images(problem, own)
    trained = reduced.training
    for domain in trained:
        if known := len(shared_images(domain.images, own.images)):
            warnings.warn(
                f"the model was trained on {known} of the {len(own.images)} images of {own.name}: "
                "results on them do not show the accuracy on new images",
                stacklevel=2,
            )
    many = len(trained) > 1
    reduced = reduced.with_changes(
        benchmarks={
            **{f"{TRAINED} of {i.name}" if many else TRAINED: i for i in trained},
            NEW: reduced.validation,
            own.name: own,
        }
    )
    frozen = reduced.evaluate(model, inference, tasks)
    tuned = Evaluation(frozen.unit, frozen.higher_is_better)
    shots = reduced.protocol.test_shots
    if minutes is not None:
        tuned_tasks = _affordable(reduced, model, own, tuned_tasks, minutes)
    if tuned_tasks:
        parts = len(model.trained_flows) * (1 + len(shots))
        for _ in tracked(_tune(reduced, model, own, tuned_tasks, tuned), parts, "fine-tuning"):
            pass
    return Transfer(own.name, shots, frozen, tuned)


def _tune(
    problem: Classification, model: Model, own: LabeledImages, tasks: int, tuned: Evaluation
) -> Iterator[str]:
    """Fine-tune every flow on the user's images, into an evaluation; yields after each part."""
    ways, tunable = problem.ways(own), {}
    for flow in model.trained_flows:
        backbone = plain(_backbone(model, flow)).eval()
        tunable[flow] = backbone, chosen_rate(problem, model, backbone, tasks)
        yield flow
    for shots in problem.protocol.test_shots:
        episodes = problem.fixed_tasks(own, ways, shots, tasks)
        identity = tasks_hash(own.fingerprint, episodes.support, episodes.query)
        accuracies = {}
        for flow, (backbone, rate) in tunable.items():
            accuracies[flow] = fine_tuned(problem, model, backbone, own, episodes, rate)
            yield flow
        for index, steps in enumerate(STEPS):
            scores = {flow: by_steps[index].tolist() for flow, by_steps in accuracies.items()}
            tuned.cells[CellKey(own.name, shots=shots, steps=steps)] = Cell(identity, scores)


@torch.no_grad()
def _affordable(
    problem: Classification, model: Model, own: LabeledImages, wanted: int, minutes: float
) -> int:
    """Number of tasks that can be fine-tuned in the minutes, by the measured time of one step."""
    backbone = plain(_backbone(model, model.trained_flows[0])).eval()
    shots = problem.protocol.test_shots
    episodes = problem.fixed_tasks(own, problem.ways(own), shots[-1], 1)
    episode = problem.test_episode(own, episodes)
    start = time.monotonic()
    logits = _tuned_logits(model, backbone, episode, RATES[0])
    next(logits)
    next(logits)
    parts = len(model.trained_flows) * (len(RATES) + len(shots))
    each = (time.monotonic() - start) * STEPS[-1] * parts
    fitting = int(60 * minutes / each)
    if fitting >= wanted:
        return wanted
    fitting = fitting if fitting >= LEAST else 0
    warnings.warn(
        f"fine-tuning on {wanted} tasks would take about {duration(each * wanted)} here: "
        + (f"it is done on {fitting}" if fitting else "it is left out")
        + f"; --tuned-tasks {wanted} does it on all",
        stacklevel=3,
    )
    return fitting


def tune_run(run: Run, tasks: int) -> Evaluation:
    """Evaluate a run with the whole backbone of each flow fine-tuned; save it in its folder.

    Args:
        run: of image classification.
        tasks: number of the first fixed test tasks, per benchmark and number of shots.

    Raises:
        InputError: the run is not on images, or the new heads are not linear.
    """
    run_config = load_run(run)
    problem = run_config.problem
    if not isinstance(problem, Classification):
        raise InputError(f"{run.path} is of {type(problem).__name__}, not of image classification")
    with cpu_threads(run_config.training.threads):
        evaluation = tuned(problem, run_config.ready(run), run_config.inference, tasks)
    run.save_evaluation("tuned", evaluation)
    return evaluation


def tuned(problem: Classification, model: Model, inference: Inference, tasks: int) -> Evaluation:
    """Accuracy of every fine-tuned flow and their equal ensemble, by benchmark, shots and steps.

    Args:
        problem: of the training.
        model: the trained model.
        inference: which flows vote.
        tasks: the first of the fixed test tasks.

    Raises:
        InputError: the new heads are not linear.
    """
    evaluation = Evaluation("accuracy %", higher_is_better=True)
    tunable, members = _tunable(problem, model, tasks), inference.members(model.trained_flows)
    for name, images in problem.benchmarks.items():
        ways = problem.ways(images)
        for shots in problem.protocol.test_shots:
            episodes = problem.fixed_tasks(images, ways, shots, tasks)
            identity = tasks_hash(images.fingerprint, episodes.support, episodes.query)
            probabilities = {
                flow: tuned_probabilities(problem, model, backbone, images, episodes, rate)
                for flow, (backbone, rate) in tunable.items()
            }
            probabilities[ENSEMBLE] = ensemble_mean(probabilities, members)
            accuracies = {head: _accuracy(part) for head, part in probabilities.items()}
            for index, steps in enumerate(STEPS):
                scores = {head: part[index].tolist() for head, part in accuracies.items()}
                evaluation.cells[CellKey(name, ways, shots, steps)] = Cell(identity, scores)
    return evaluation


def _tunable(
    problem: Classification, model: Model, tasks: int
) -> dict[str, tuple[nn.Module, float]]:
    """Every flow with plain layers, and its learning rate of fine-tuning."""
    backbones = {flow: plain(_backbone(model, flow)).eval() for flow in model.trained_flows}
    return {f: (b, chosen_rate(problem, model, b, tasks)) for f, b in backbones.items()}


def for_images(problem: Classification, own: LabeledImages) -> Classification:
    """The problem with as few shots and queries per task as the user's images require.

    Raises:
        InputError: there are fewer than two classes, or a class has a single image.
    """
    counts = own.labels.bincount(minlength=len(own.classes))
    if len(own.classes) < 2:
        raise InputError(f"{own.name} has {len(own.classes)} class: two or more make a task")
    fewest = int(counts.min())
    if fewest < 2:
        name = own.classes[int(counts.argmin())]
        raise InputError(
            f"class {name!r} of {own.name} has {fewest} image: to learn from and to ask about, "
            "every class needs two or more"
        )
    old = problem.protocol
    shots = tuple(s for s in sorted(set(old.test_shots)) if s < fewest) or (1,)
    queries = min(old.queries, fewest - shots[-1])
    return problem.with_changes(
        protocol=replace(old, test_shots=shots, shots=shots[-1], queries=queries)
    )


def chosen_rate(problem: Classification, model: Model, backbone: nn.Module, tasks: int) -> float:
    """The learning rate of fine-tuning that is best on validation tasks after the most steps."""
    images, shots = problem.validation, problem.protocol.test_shots[-1]
    episodes = problem.fixed_tasks(images, problem.ways(images), shots, tasks)
    last = {
        rate: fine_tuned(problem, model, backbone, images, episodes, rate)[-1].mean()
        for rate in RATES
    }
    return max(last, key=lambda rate: last[rate])


def fine_tuned(
    problem: Classification,
    model: Model,
    backbone: nn.Module,
    images: LabeledImages,
    tasks: TaskIndices,
    rate: float,
) -> Tensor:
    """Accuracy in percent after each of `STEPS`, [len(STEPS), T]; as `tuned_probabilities`."""
    return _accuracy(tuned_probabilities(problem, model, backbone, images, tasks, rate))


def _accuracy(probabilities: Tensor) -> Tensor:
    """In percent, from probabilities [..., T, Q, N] of queries that stand class by class."""
    queries, ways = probabilities.shape[-2:]
    labels = torch.arange(ways).repeat_interleave(queries // ways)
    return 100 * (probabilities.argmax(-1) == labels).float().mean(-1)


@torch.no_grad()
def tuned_probabilities(
    problem: Classification,
    model: Model,
    backbone: nn.Module,
    images: LabeledImages,
    tasks: TaskIndices,
    rate: float,
) -> Tensor:
    """Probabilities of the queries after each of `STEPS`, [len(STEPS), T, Q, N].

    In every task the pre-training algorithm fits a new linear head on the features; then backbone
    and head follow the gradient of the cross-entropy on the support set. Batch norm keeps the
    statistics of training.

    Args:
        problem: the problem whose images have the same format.
        model: its pre-training algorithm fits the heads.
        backbone: a flow, with plain layers.
        images: the images of the tasks.
        tasks: T tasks.
        rate: learning rate.

    Raises:
        InputError: the heads are not linear.
    """
    parts = []
    splits = (part.split(ADAPT_BATCH) for part in (tasks.support, tasks.query))
    for support, query in zip(*splits, strict=True):
        episode = problem.test_episode(images, TaskIndices(support, query))
        logits = torch.stack([*_tuned_logits(model, backbone, episode, rate)])
        parts.append(logits.softmax(-1).cpu())
    return torch.cat(parts, 1)


def _tuned_logits(
    model: Model, backbone: nn.Module, episode: Episode, rate: float
) -> Iterator[Tensor]:
    """Query logits [T, Q, N] after each of `STEPS`."""
    x, y = episode.support_x, episode.support_y
    features = backbone(x.flatten(0, 1)).unflatten(0, x.shape[:2])
    head = model.pretraining.fit(nn.Identity(), features, y, episode.ways)
    if not isinstance(head, LinearClassifier):
        raise InputError(
            f"{type(model.pretraining).__name__} fits heads that are not linear: these are not "
            "fine-tuned"
        )
    network = Network(backbone, _OneTask(head))
    batched = BatchedModules(network)
    weights: Weights = expand_weights(network, len(x))  # of the backbone: the head's are buffers
    weights |= {f"head.{name}": tensor for name, tensor in head.named_buffers()}
    for step in range(STEPS[-1] + 1):
        if step in STEPS:
            yield batched(weights, episode.query_x)
        if step < STEPS[-1]:
            weights = sgd_step(network, weights, x, y, cross_entropy, rate)


class _OneTask(nn.Module):
    """The linear classifier of the first of many tasks: features [B, D] to logits [B, N]."""

    def __init__(self, heads: LinearClassifier) -> None:
        super().__init__()
        self.normalize, self.scale = heads.normalize, heads.scale
        self.register_buffer("weight", heads.weight[0])
        self.register_buffer("bias", None if heads.bias is None else heads.bias[0])
        self.weight: Tensor
        self.bias: Tensor | None

    def forward(self, features: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias[None]
        one = LinearClassifier(self.weight[None], bias, self.normalize, self.scale)
        logits: Tensor = one(features[None])[0]
        return logits


def _backbone(model: Model, flow: str) -> nn.Module:
    return nn.Sequential(model.trunk, model.heads_of(flow)[0].network.backbone)

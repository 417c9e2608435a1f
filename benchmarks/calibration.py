"""Calibration of the shipped models, and their detection of unknown classes.

    python -m benchmarks.calibration results/calibration.json               about five minutes
    python -m benchmarks.calibration results/calibration-photos.json photos DIR

The first is of the model of characters. The second is of the model of photographs, on the data sets
in DIR, named as for ``omni reproduce photo-table2``.

On the test tasks of every benchmark: accuracy, and the expected calibration error before and after
the temperatures that were fitted on validation tasks. And on tasks of ten classes, of which five
have support images: how well similarity separates queries of known and unknown classes (AUROC), the
shares that the threshold for 95 % of known queries accepts; and the same for other scores.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from benchmarks.ood_scores import Score, scores
from omnitraining.config.run_config import instantiate, read_config
from omnitraining.evaluation import ensemble_mean
from omnitraining.learner import TrainedModel
from omnitraining.learner.calibration import (
    WEIGHTED,
    _first_of_each,
    cosine_similarities,
    head_weights,
)
from omnitraining.learner.predictor import tempered
from omnitraining.learner.sources import MODELS, find
from omnitraining.tasks.classification.episodes import EpisodeSampler, TaskIndices
from omnitraining.tasks.classification.glyph_problem import Glyphs
from omnitraining.tasks.classification.problem import Classification

SHOTS, WAYS, TASKS, ACCEPTED = (1, 3, 5), 5, 600, 0.95
IMAGES = 24  # of each training class, for the scores that need some
Cells = dict[str, dict[str, float]]


def main() -> None:
    """Measure a shipped model and write the record."""
    torch.set_num_threads(1)
    out, (name, data) = sys.argv[1], sys.argv[2:] or ("glyphs", "")
    trained = find(name)
    problem = (photos(name, data) if data else Glyphs()).with_test_shots(SHOTS)
    by_flow = {} if data else training_scores(trained, problem)  # other scores on glyphs alone
    probabilities: dict[str, Cells] = {}
    detection: Cells = {}
    others: dict[str, Cells] = {}
    for benchmark, images in problem.benchmarks.items():
        known: dict[nn.Module, Tensor] = {}
        for shots in SHOTS:
            print(f"measuring {benchmark}, {shots} shots ...", file=sys.stderr, flush=True)
            heads, labels, _ = problem.probabilities(
                trained.model, trained.inference, images, WAYS, shots, TASKS, known
            )
            cell = f"{benchmark} {WAYS}-way {shots}-shot"
            probabilities[cell] = calibration(trained, heads, labels, shots)
            sampler = EpisodeSampler(images, 2 * WAYS, shots, problem.protocol.queries)
            tasks = sampler.draw(TASKS, torch.Generator().manual_seed(0))
            detection[cell] = unknown_detection(trained, known, tasks, shots)
            if by_flow:
                others[cell] = comparison(trained, known, tasks, shots, by_flow)
    record = {
        "title": f"Calibration and unknown classes: the shipped model {trained.name}",
        "command": f"python -m benchmarks.calibration results/{Path(out).name}"
        + (f" {name} DIR" if data else ""),  # no folder of the machine
        "tasks": TASKS,
        "accepted": ACCEPTED,
        "probabilities": probabilities,
        "strangers": detection,
        "scores": others,
    }
    Path(out).write_text(json.dumps(record, indent=1) + "\n")


def photos(name: str, data: str) -> Classification:
    """The problem that a shipped model was trained on, with its benchmarks."""
    config = MODELS / name / "config.yaml"
    problem = instantiate(read_config(config, ["--problem.data", data])).problem
    assert isinstance(problem, Classification)
    return problem


def calibration(
    trained: TrainedModel, heads: Mapping[str, Tensor], labels: Tensor, shots: int
) -> dict[str, dict[str, float]]:
    """Accuracy and calibration error of every head on test tasks."""
    errors = {}
    for head, weights in head_weights(trained.model, trained.calibration.weights(shots)).items():
        before = ensemble_mean(heads, weights)
        after = tempered(before, trained.calibration.temperature(head, shots))
        errors[head] = {
            "accuracy": (before.argmax(-1) == labels).float().mean().item() * 100,
            "confidence before": before.amax(-1).mean().item() * 100,
            "confidence after": after.amax(-1).mean().item() * 100,
            "error before": calibration_error(before, labels) * 100,
            "error after": calibration_error(after, labels) * 100,
        }
    return errors


def calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Expected calibration error: the mean gap between confidence and accuracy, by confidence.

    Args:
        probabilities: [..., N].
        labels: [...].
        bins: of equal width.
    """
    confidence, guess = (x.flatten() for x in probabilities.max(-1))
    correct = (guess == labels.flatten()).double()
    bin_of = (confidence * bins).long().clamp(max=bins - 1)
    gaps = torch.zeros(bins, dtype=torch.float64)
    gaps = gaps.index_add(0, bin_of, correct - confidence.double())
    return gaps.abs().sum().item() / len(correct)


def unknown_detection(
    trained: TrainedModel, known: Mapping[nn.Module, Tensor], tasks: TaskIndices, shots: int
) -> dict[str, float]:
    """Detection of queries of the last classes of tasks, which have no support images."""
    support = tasks.support[:, :WAYS]
    similarity = []
    for part in (tasks.query[:, :WAYS], tasks.query[:, WAYS:]):
        mixed = [
            weight
            * cosine_similarities(known[head.network.backbone], TaskIndices(support, part)).amax(-1)
            for flow, weight in trained.calibration.weights(shots).items()
            for head in trained.model.heads_of(flow, *trained.inference.heads)[:1]
        ]
        similarity.append(torch.stack(mixed).sum(0).flatten())
    known_scores, unknown_scores = similarity
    threshold = trained.calibration.threshold(WEIGHTED, shots, ACCEPTED)
    truth = torch.cat([torch.ones(len(known_scores)), torch.zeros(len(unknown_scores))])
    return {
        "auroc": float(roc_auc_score(truth, torch.cat(similarity))),
        "known accepted": (known_scores >= threshold).float().mean().item() * 100,
        "strangers rejected": (unknown_scores < threshold).float().mean().item() * 100,
    }


def training_scores(trained: TrainedModel, problem: Classification) -> dict[str, dict[str, Score]]:
    """The scores of each member of the ensemble, by its features of training images."""
    images, known = _first_of_each(problem.training[0], IMAGES), dict[nn.Module, Tensor]()
    problem.probabilities(trained.model, trained.inference, images, WAYS, 1, 1, known)
    return {
        flow: scores(features(trained, flow, known), images.labels)
        for flow in trained.calibration.weights(1)
    }


def features(trained: TrainedModel, flow: str, known: Mapping[nn.Module, Tensor]) -> Tensor:
    """Features of length 1 [M, D], as the similarity uses them."""
    head = trained.model.heads_of(flow, *trained.inference.heads)[0]
    return nn.functional.normalize(known[head.network.backbone].double(), dim=-1)


def comparison(
    trained: TrainedModel,
    known: Mapping[nn.Module, Tensor],
    tasks: TaskIndices,
    shots: int,
    by_flow: Mapping[str, Mapping[str, Score]],
) -> Cells:
    """AUROC of each score, and its rejections where 95 % of these known queries are accepted."""
    support, by_score = tasks.support[:, :WAYS], {}
    parts = (tasks.query[:, :WAYS], tasks.query[:, WAYS:])
    for name in next(iter(by_flow.values())):
        mixed = []
        for part in parts:
            total = torch.tensor(0.0, dtype=torch.float64)
            for flow, weight in trained.calibration.weights(shots).items():
                x = features(trained, flow, known)
                means, queries = x[support].mean(2), x[part.flatten(1)]
                total = total + weight * by_flow[flow][name](means, queries, shots)
            mixed.append(total.flatten())
        known_scores, unknown_scores = mixed
        truth = torch.cat([torch.ones(len(known_scores)), torch.zeros(len(unknown_scores))])
        threshold = known_scores.kthvalue(round((1 - ACCEPTED) * len(known_scores))).values
        by_score[name] = {
            "auroc": float(roc_auc_score(truth, torch.cat(mixed))),
            "strangers rejected": (unknown_scores < threshold).double().mean().item() * 100,
        }
    return by_score


if __name__ == "__main__":
    main()

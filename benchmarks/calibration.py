"""How far the shipped model's probabilities can be trusted, and how well it knows strangers.

    python -m benchmarks.calibration results/calibration.json       about five minutes

On the test tasks of every benchmark: accuracy, and the expected calibration error before and after
the temperatures that were fitted on validation tasks. And on tasks of ten classes, of which five
have support images: how well familiarity tells queries of known classes from the others (AUROC),
and what the threshold for 95 % of known queries does; and how well other scores would tell them.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from benchmarks.strangers import Score, scores
from omnitraining.learner import Trained
from omnitraining.learner.calibration import (
    VOTE,
    _first_of_each,
    calibration_error,
    cosines,
    head_weights,
)
from omnitraining.learner.predictor import tempered
from omnitraining.learner.sources import find
from omnitraining.tasks.classification.episodes import EpisodeSampler, TaskIndices
from omnitraining.tasks.classification.glyph_problem import Glyphs

SHOTS, WAYS, TASKS, ACCEPTED = (1, 3, 5), 5, 600, 0.95
IMAGES = 24  # of each training class, for the scores that need some
Cells = dict[str, dict[str, float]]


def main() -> None:
    """Measure the shipped model and write the record."""
    torch.set_num_threads(1)
    trained, problem = find("glyphs"), Glyphs().with_test_shots(SHOTS)
    by_flow = training_scores(trained, problem)
    probabilities: dict[str, Cells] = {}
    strangers: Cells = {}
    others: dict[str, Cells] = {}
    for name, images in problem.benchmarks.items():
        known: dict[nn.Module, Tensor] = {}
        for shots in SHOTS:
            print(f"measuring {name}, {shots} shots ...", file=sys.stderr, flush=True)
            heads, labels, _ = problem.probabilities(
                trained.model, trained.inference, images, WAYS, shots, TASKS, known
            )
            cell = f"{name} {WAYS}-way {shots}-shot"
            probabilities[cell] = sureness(trained, heads, labels, shots)
            sampler = EpisodeSampler(images, 2 * WAYS, shots, problem.protocol.queries)
            tasks = sampler.draw(TASKS, torch.Generator().manual_seed(0))
            strangers[cell] = recognition(trained, known, tasks, shots)
            others[cell] = comparison(trained, known, tasks, shots, by_flow)
    record = {
        "title": "Calibration and strangers: the shipped model on glyphs",
        "command": "python -m benchmarks.calibration results/calibration.json",
        "tasks": TASKS,
        "accepted": ACCEPTED,
        "probabilities": probabilities,
        "strangers": strangers,
        "scores": others,
    }
    Path(sys.argv[1]).write_text(json.dumps(record, indent=1) + "\n")


def sureness(
    trained: Trained, heads: Mapping[str, Tensor], labels: Tensor, shots: int
) -> dict[str, dict[str, float]]:
    """Accuracy and calibration error of every head on test tasks."""
    found = {}
    for head, weights in head_weights(trained.model, trained.calibration.vote(shots)).items():
        before = torch.stack([weight * heads[flow] for flow, weight in weights.items()]).sum(0)
        after = tempered(before, trained.calibration.temperature(head, shots))
        found[head] = {
            "accuracy": (before.argmax(-1) == labels).float().mean().item() * 100,
            "confidence before": before.amax(-1).mean().item() * 100,
            "confidence after": after.amax(-1).mean().item() * 100,
            "error before": calibration_error(before, labels) * 100,
            "error after": calibration_error(after, labels) * 100,
        }
    return found


def recognition(
    trained: Trained, known: Mapping[nn.Module, Tensor], tasks: TaskIndices, shots: int
) -> dict[str, float]:
    """How the vote tells queries of the first classes of tasks from those of the others."""
    support = tasks.support[:, :WAYS]
    familiarity = []
    for part in (tasks.query[:, :WAYS], tasks.query[:, WAYS:]):
        mixed = [
            weight * cosines(known[head.network.backbone], TaskIndices(support, part)).amax(-1)
            for flow, weight in trained.calibration.vote(shots).items()
            for head in trained.model.heads_of(flow, trained.inference.joint_head)[:1]
        ]
        familiarity.append(torch.stack(mixed).sum(0).flatten())
    mine, strange = familiarity
    threshold = trained.calibration.threshold(VOTE, shots, ACCEPTED)
    truth = torch.cat([torch.ones(len(mine)), torch.zeros(len(strange))])
    return {
        "auroc": float(roc_auc_score(truth, torch.cat(familiarity))),
        "known accepted": (mine >= threshold).float().mean().item() * 100,
        "strangers rejected": (strange < threshold).float().mean().item() * 100,
    }


def training_scores(trained: Trained, problem: Glyphs) -> dict[str, dict[str, Score]]:
    """The scores of each flow that votes, by its features of training images."""
    images, known = _first_of_each(problem.training[0], IMAGES), dict[nn.Module, Tensor]()
    problem.probabilities(trained.model, trained.inference, images, WAYS, 1, 1, known)
    return {
        flow: scores(features(trained, flow, known), images.labels)
        for flow in trained.calibration.vote(1)
    }


def features(trained: Trained, flow: str, known: Mapping[nn.Module, Tensor]) -> Tensor:
    """Features of length 1 [M, D], as familiarity has them."""
    head = trained.model.heads_of(flow, trained.inference.joint_head)[0]
    return nn.functional.normalize(known[head.network.backbone].double(), dim=-1)


def comparison(
    trained: Trained,
    known: Mapping[nn.Module, Tensor],
    tasks: TaskIndices,
    shots: int,
    by_flow: Mapping[str, Mapping[str, Score]],
) -> Cells:
    """What each score would do, at the threshold that accepts just 95 % of these known queries."""
    support, found = tasks.support[:, :WAYS], {}
    parts = (tasks.query[:, :WAYS], tasks.query[:, WAYS:])
    for name in next(iter(by_flow.values())):
        mixed = []
        for part in parts:
            total = torch.tensor(0.0, dtype=torch.float64)
            for flow, weight in trained.calibration.vote(shots).items():
                x = features(trained, flow, known)
                means, queries = x[support].mean(2), x[part.flatten(1)]
                total = total + weight * by_flow[flow][name](means, queries, shots)
            mixed.append(total.flatten())
        mine, strange = mixed
        truth = torch.cat([torch.ones(len(mine)), torch.zeros(len(strange))])
        threshold = mine.kthvalue(round((1 - ACCEPTED) * len(mine))).values
        found[name] = {
            "auroc": float(roc_auc_score(truth, torch.cat(mixed))),
            "strangers rejected": (strange < threshold).double().mean().item() * 100,
        }
    return found


if __name__ == "__main__":
    main()

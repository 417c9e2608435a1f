"""How far the shipped model's probabilities can be trusted, and how well it knows strangers.

    python -m benchmarks.calibration results/calibration.json       about three minutes

On the test tasks of every benchmark: accuracy, and the expected calibration error before and after
the temperatures that were fitted on validation tasks. And on tasks of ten classes, of which five
have support images: how well familiarity tells queries of known classes from the others (AUROC),
and what the threshold for 95 % of known queries does.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from omnitraining.learner import Trained
from omnitraining.learner.calibration import VOTE, calibration_error, cosines, head_weights
from omnitraining.learner.predictor import tempered
from omnitraining.learner.sources import find
from omnitraining.tasks.classification.episodes import EpisodeSampler, TaskIndices
from omnitraining.tasks.classification.glyph_problem import Glyphs
from omnitraining.tasks.classification.problem import new_heads

SHOTS, WAYS, TASKS, ACCEPTED = (1, 3, 5), 5, 600, 0.95
Cells = dict[str, dict[str, float]]


def main() -> None:
    """Measure the shipped model and write the record."""
    torch.set_num_threads(1)
    trained, problem = find("glyphs"), Glyphs()
    problem.set_test_shots(SHOTS)
    probabilities: dict[str, Cells] = {}
    strangers: Cells = {}
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
    record = {
        "title": "Calibration and strangers: the shipped model on glyphs",
        "command": "python -m benchmarks.calibration results/calibration.json",
        "tasks": TASKS,
        "accepted": ACCEPTED,
        "probabilities": probabilities,
        "strangers": strangers,
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
            weight
            * cosines(
                known[trained.model.network(network).backbone], TaskIndices(support, part)
            ).amax(-1)
            for flow, weight in trained.calibration.vote(shots).items()
            for network, _ in new_heads(trained.model, flow, trained.inference)[:1]
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


if __name__ == "__main__":
    main()

"""``omni evaluate``: a run on the fixed test tasks, or a saved learner on labeled images."""

import argparse
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnitraining.cli import add_backbone, add_device, add_trust, command_parser
from omnitraining.errors import InputError
from omnitraining.io.files import open_atomic
from omnitraining.io.terminal import FORMULA, say, say_csv

if TYPE_CHECKING:
    from rich.table import Table

    from omnitraining.learner.task_report import TaskReport

MOST_COLUMNS = 12
"""Classes up to which the confusion matrix is printed; it is drawn for any number."""


def main(arguments: list[str]) -> int:
    """Evaluate a run and store the results in it, or a learner; print the results."""
    parser = command_parser(
        "evaluate",
        "A learner that 'omni adapt' wrote is evaluated on FOLDER, which holds one folder per\n"
        "class with images that were not given to 'omni adapt'.",
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="run folder, or a saved learner")
    parser.add_argument(
        "images", metavar="FOLDER", type=Path, nargs="?", help="of a learner: folder of classes"
    )
    parser.add_argument("--shots", type=int, nargs="+", default=[],
                        help="of a run: numbers of support samples per class")  # fmt: skip
    parser.add_argument(
        "--tasks", type=int, help="of a run: test tasks per cell (default: all, mostly 600)"
    )
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    parser.add_argument(
        "--figures",
        type=Path,
        metavar="DIR",
        help="of a learner: write the confusion matrix and the most confident mistakes, as PNG",
    )
    parser.add_argument(
        "--csv", action="store_true", help="of a learner: print a row per image instead"
    )
    add_device(parser)
    add_backbone(parser, whole=False)
    add_trust(parser)
    options = parser.parse_args(arguments)
    return _of_learner(options) if options.run.is_file() else _of_run(options)


def _of_run(options: argparse.Namespace) -> int:
    given = {"FOLDER": options.images, "--figures": options.figures, "--csv": options.csv or None,
             "--weights": options.weights,
             "--device": None if options.device == "auto" else options.device}  # fmt: skip
    for name, value in given.items():
        if value is not None:
            raise InputError(
                f"{name} is for a saved learner, and {options.run} is no file: 'omni adapt' "
                "makes one"
            )
    from omnitraining.experiments import running
    from omnitraining.experiments.display import show
    from omnitraining.experiments.tables import evaluation_table
    from omnitraining.runs.run import Run

    run = Run(options.run, trust=options.trust)
    name = "test" if not options.shots and options.tasks is None else "custom"
    evaluation = running.compute_evaluation(run, options.tasks, tuple(options.shots))
    show(evaluation_table(run.name, evaluation))
    try:
        run.save_evaluation(name, evaluation)
    except InputError as error:  # the run is read-only
        warnings.warn(f"the result is not stored in the run: {error}", stacklevel=1)
    if options.json:
        _write_json(options.json, evaluation.as_json())
    return 0


def _of_learner(options: argparse.Namespace) -> int:
    from omnitraining.experiments.display import show
    from omnitraining.learner import FewShotClassifier, load

    if options.shots or options.tasks is not None:
        raise InputError(f"--shots and --tasks are for a run folder, and {options.run} is a file")
    given = {} if options.weights is None else {"weights": options.weights}
    learner = load(options.run, options.trust, device=options.device, **given)
    if not isinstance(learner, FewShotClassifier) or not hasattr(learner, "predictor_"):
        raise InputError(f"{options.run} has not learned any classes yet: use 'omni adapt' first")
    if options.images is None:
        raise InputError(f"FOLDER is missing: a folder of images per class to evaluate "
                         f"{options.run} on")  # fmt: skip
    report = learner.report(options.images)
    made = report.save_figures(options.figures) if options.figures else []
    if options.json:
        _write_json(options.json, report.as_json())
    if options.csv:
        say_csv(image_rows(report))
        return 0
    for line in report.in_words():
        say(line)
    show(class_table(report))
    if len(report.classes) <= MOST_COLUMNS:
        show(confusion_table(report))
    if made:
        say(f"figures: {', '.join(map(str, made))}")
    return 0


def class_table(report: "TaskReport") -> "Table":
    """A row per class: images, recall with its interval, precision."""
    from rich.table import Table

    table = Table("class", "images", "recall", "95 % interval", "precision", "rejected",
                  box=None, pad_edge=False)  # fmt: skip
    for row in report.per_class():
        low, high = row["interval"]
        interval = f"{low:.0%} to {high:.0%}" if row["images"] else ""
        recall, precision = (
            "" if row[name] is None else f"{row[name]:.0%}" for name in ("recall", "precision")
        )
        table.add_row(
            str(row["class"]), str(row["images"]), recall, interval, precision, str(row["rejected"])
        )
    return table


def confusion_table(report: "TaskReport") -> "Table":
    """Images by class (rows) and prediction (columns)."""
    from rich.table import Table

    counts, names = report.shown_confusion, [str(name) for name in report.classes.tolist()]
    columns = [*names, "rejected"][: counts.shape[1]]
    table = Table("class \\ predicted", *columns, box=None, pad_edge=False)
    for name, row in zip(names, counts.tolist(), strict=True):
        table.add_row(name, *(str(number) if number else "." for number in row))
    return table


def image_rows(report: "TaskReport") -> list[list[object]]:
    """Rows of CSV: image, class, predicted class (empty if rejected), its probability."""
    rows: list[list[object]] = [["image", "class", "predicted", "probability"]]
    for number, image in enumerate(report.images):
        path = f"./{image}" if str(image).startswith(FORMULA) else str(image)
        best = report.probabilities[number].argmax()
        label = report.classes[best].item() if report.accepted[number] else None
        share = round(float(report.probabilities[number, best]), 4)
        rows.append([path, report.labels[number].item(), label, share])
    return rows


def _write_json(path: Path, values: Any) -> None:
    with open_atomic(path) as file:
        file.write(json.dumps(values).encode())

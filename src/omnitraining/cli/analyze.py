"""``omni analyze``: transferability of a model, and which flow to use on your own images."""

from pathlib import Path

from omnitraining.cli import add_trust, command_parser
from omnitraining.errors import InputError
from omnitraining.io.terminal import say

TUNED, MINUTES = 40, 5.0
"""Defaults: tasks of fine-tuning, and the minutes that they may take."""


def main(arguments: list[str]) -> int:
    """Evaluate the flows of a run on the user's images."""
    parser = command_parser(
        "analyze",
        "Accuracy on the classes of training, on new classes and on your own images, with frozen\n"
        "and with fine-tuned flows, and a recommendation which flow to use. --out draws a figure\n"
        "and writes the numbers as JSON beside it.",
    )
    parser.add_argument("run", type=Path, help="run folder, of image classification")
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="your images: a folder per class"
    )
    parser.add_argument("--out", type=Path, metavar="FILE.png", help="the figure")
    parser.add_argument(
        "--tasks", type=int, default=200, help="test tasks on each kind of images (default: 200)"
    )
    parser.add_argument(
        "--tuned-tasks",
        type=int,
        help="number of these tasks on which whole flows are fine-tuned too (default: 40, or the "
        "number that takes five minutes here)",
    )
    add_trust(parser)
    options = parser.parse_args(arguments)
    tuned_tasks = TUNED if options.tuned_tasks is None else options.tuned_tasks
    if not 2 <= tuned_tasks <= options.tasks:
        raise InputError(
            f"--tasks is {options.tasks} and --tuned-tasks {tuned_tasks}: the second must "
            "be 2 or more, and not more than the first"
        )
    if options.out is not None and options.out.suffix.lower() != ".png":
        raise InputError(f"--out is {options.out}: it must end in .png")

    from omnitraining.analysis import transfer
    from omnitraining.config.run_config import load_run
    from omnitraining.datasets import read
    from omnitraining.datasets.image_cache import load_images
    from omnitraining.datasets.images import LabeledImages
    from omnitraining.experiments.display import show
    from omnitraining.experiments.figures import transfer_chart, transfer_report
    from omnitraining.experiments.tables import evaluation_table
    from omnitraining.learner.inputs import ImageInputs
    from omnitraining.runs.run import Run
    from omnitraining.tasks.classification.problem import Classification
    from omnitraining.threads import cpu_threads

    run = Run(options.run, trust=options.trust)
    run_config = load_run(run)
    problem = run_config.problem
    if not isinstance(problem, Classification):
        raise InputError(f"{run.path} is of {type(problem).__name__}, not of image classification")
    model = run_config.ready(run)
    inputs = ImageInputs.of(problem)
    stored = load_images(read(options.data).split("all"), inputs.stored, resize=inputs.resize)
    own = LabeledImages(
        inputs.colored(stored.images), stored.labels, stored.classes, options.data.resolve().name
    )
    say(
        f"{run.name}: {', '.join(model.trained_flows)} on {len(own.images)} images of "
        f"{len(own.classes)} classes in {own.name}: {options.tasks} tasks each on trained classes, "
        f"new ones and these, then fine-tuning on {tuned_tasks}",
        error=True,
    )
    minutes = MINUTES if options.tuned_tasks is None else None
    with cpu_threads(run_config.training.threads):
        measured = transfer.measure(
            problem, model, run_config.inference, own, options.tasks, tuned_tasks, minutes
        )
    show(evaluation_table(f"{run.name}, frozen", measured.frozen))
    if measured.tuned.cells:
        show(evaluation_table(f"{run.name}, fine-tuned", measured.tuned))
    for sentence in transfer_report.advice(measured):
        say(f"- {sentence}")
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        say(f"picture: {transfer_chart.draw(measured, options.out)}")
        say(f"numbers: {transfer_report.write(measured, options.out.with_suffix('.json'))}")
    return 0

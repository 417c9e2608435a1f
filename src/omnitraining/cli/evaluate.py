"""``omni evaluate``: results of a run on the fixed test tasks."""

import json
import warnings
from pathlib import Path

from omnitraining.cli import add_trust, command_parser
from omnitraining.errors import InputError


def main(arguments: list[str]) -> int:
    """Evaluate a run, print the results and store them in the run."""
    parser = command_parser("evaluate")
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument(
        "--shots", type=int, nargs="+", default=[], help="numbers of support samples per class"
    )
    parser.add_argument("--tasks", type=int, help="test tasks per cell (default: all, mostly 600)")
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    add_trust(parser)
    options = parser.parse_args(arguments)

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
        options.json.write_text(json.dumps(evaluation.as_json()), "utf-8")
    return 0

"""``omni compare``: a table of several runs."""

from pathlib import Path

from omnitraining.cli import command_parser


def main(arguments: list[str]) -> int:
    """Print the scores of runs, and paired differences from the first."""
    parser = command_parser(
        "compare", "Evaluate the runs on the same tasks before (omni evaluate RUN)."
    )
    parser.add_argument(
        "runs", type=Path, nargs="+", help="run folders; the first is the reference"
    )
    parser.add_argument("--head", default="ensemble", help="pre, joint, meta or ensemble (default)")
    options = parser.parse_args(arguments)

    from omnitraining.experiments.display import show
    from omnitraining.experiments.tables import comparison_table
    from omnitraining.runs.run import Run

    runs = [Run(path) for path in options.runs]
    evaluations = {str(run.path): run.load_evaluation() for run in runs}
    show(comparison_table(evaluations, options.head))
    return 0

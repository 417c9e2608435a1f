"""``omni reproduce``: a table or figure of the paper, or its counterpart on shipped data."""

from pathlib import Path

from omnitraining.cli import command_parser


def main(arguments: list[str]) -> int:
    """Train, evaluate and draw what is missing."""
    parser = command_parser(
        "reproduce",
        "Finished runs are kept and unfinished ones resumed: repeat an interrupted command to\n"
        "continue it.",
    )
    parser.add_argument("name", help="experiment, as 'omni list' names it")
    parser.add_argument("--out", type=Path, help="folder of runs and results (default: runs/NAME)")
    parser.add_argument(
        "--smoke", action="store_true", help="a tiny variant, as a test that it runs"
    )
    parser.add_argument("--seeds", type=int, nargs="+", help="seeds (default: the experiment's)")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="train only these rows")
    parser.add_argument(
        "--settings",
        nargs="+",
        metavar="NAME",
        help="train only on these data sets, as cub",
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="folder of data sets, as DIR/cub ('omni data')"
    )
    parser.add_argument(
        "--budget",
        type=float,
        default=1.0,
        metavar="FRACTION",
        help="train for a fraction of the stated budget (default: 1)",
    )
    parser.add_argument(
        "--cost",
        action="store_true",
        help="no training: time the training steps of all rows, for the record",
    )
    options = parser.parse_args(arguments)

    from omnitraining.experiments.reproduction import reproduce

    reproduce(
        options.name,
        options.out,
        options.smoke,
        options.seeds,
        options.only,
        options.settings,
        options.data,
        options.budget,
        options.cost,
    )
    return 0

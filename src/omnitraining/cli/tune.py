"""``omni tune``: a search for the options with the best validation score."""

import shlex
from pathlib import Path

from omnitraining.cli import add_launcher, add_trust_in_named_runs, command_parser
from omnitraining.errors import InputError
from omnitraining.io.terminal import say


def main(arguments: list[str]) -> int:
    """Search, and write the best configuration; returns 1 if every trial failed."""
    parser = command_parser(
        "tune",
        "The options to tune are a section of the configuration,\n"
        "  tune: {training.lr: {low: 0.001, high: 0.01, log: true}, loss.distill_weight: [0, 3]}\n"
        "or given on the command line, where a single value is fixed:\n"
        "  omni tune glyphs.yaml --training.lr log:0.0001..0.01 --loss.distill_weight 0,1,3 \\\n"
        "    --training.steps 300 --out tuned\n"
        "Trials are compared on validation tasks alone. For a fair comparison of methods, tune\n"
        "each with the same trials and steps, as with --method pre-training. To continue a\n"
        "search, repeat the command, with more --trials if it has ended.",
    )
    parser.add_argument("config", type=Path, help="YAML file; see 'omni list' for shipped ones")
    parser.add_argument(
        "--trials", type=int, default=20, help="in total, with failed ones (default: 20)"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, help="trials at a time, each with one thread (default: 1)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of trials")
    add_launcher(parser)
    add_trust_in_named_runs(parser)
    options, rest = parser.parse_known_args(arguments)
    for name in ("trials", "jobs"):
        if (value := getattr(options, name)) < 1:
            raise InputError(f"--{name} is {value}: it must be 1 or more")

    from omnitraining.experiments import cluster, grid, tuning
    from omnitraining.experiments.display import show

    fixed, given = tuning.split_fields(grid.given_fields(rest))
    declared = tuning.declared(options.config)
    ranges = {f: r for f, r in {**declared, **given}.items() if f not in fixed}
    launch = cluster.launcher(options.launcher, options.jobs, options.out, options.request)
    search = tuning.Search(options.config, fixed, ranges, options.out, options.trust)
    command = shlex.join(["omni", "tune", str(options.config), *rest])
    try:
        search.run(options.trials, options.jobs, launch)
    finally:  # an interrupted search shows what is there
        if trials := search.trials():
            show(tuning.trials_table(f"{search.method} in {options.config.stem}", trials))
        search.conclude(f"{command} --trials {options.trials}")
    failed = sum(trial.score is None for trial in trials)
    say(f"{len(trials)} trials, of which {failed} failed")
    for trial in trials:
        if trial.score is None:
            say(f"  trial {trial.number}: {trial.failure}")
    if failed == len(trials):
        return 1
    best = options.out / "best.yaml"
    say(f"best: {best}   next: omni train {best}")
    return 0

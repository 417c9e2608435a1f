"""``omni sweep``: a configuration with every combination of given values and seeds."""

import shlex
from pathlib import Path

from omnitraining.cli import add_launcher, add_trust_in_named_runs, command_parser
from omnitraining.errors import InputError
from omnitraining.io.terminal import say


def main(arguments: list[str]) -> int:
    """Train and evaluate all combinations; returns 1 if a run failed."""
    parser = command_parser(
        "sweep",
        "Every field of the configuration takes values separated by commas, as in\n"
        "  omni sweep glyphs.yaml --loss.distill_weight 0,1,3 --seeds 0,1 --out sweep\n"
        "Finished runs are kept and unfinished ones resumed: repeat an interrupted command to\n"
        "continue it. If a run fails, the others continue.",
    )
    parser.add_argument("config", type=Path, help="YAML file; see 'omni list' for shipped ones")
    parser.add_argument("--seeds", metavar="N,N,...", help="(default: that of the configuration)")
    parser.add_argument(
        "--jobs",
        type=int,
        help="runs at a time, each with one thread (default: one per core; 1 on a GPU; all on a "
        "cluster, each with the cores of its job)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of results")
    add_launcher(parser)
    add_trust_in_named_runs(parser)
    options, rest = parser.parse_known_args(arguments)

    from omnitraining.experiments import cluster, grid, jobs, sweeping

    if options.jobs is not None and options.jobs < 1:
        raise InputError(f"--jobs is {options.jobs}: it must be 1 or more")
    fields = grid.given_fields(rest)
    if "seed" in fields:
        raise InputError("--seed is not swept: give --seeds 0,1,2")
    values = {field: grid.listed(text) for field, text in fields.items()}
    combinations = grid.combinations(options.config, values)
    seeds = sweeping.read_seeds(options.seeds, combinations[0].values["seed"])
    varied = [*combinations[0].varied] or ["seeds"]
    command = ["omni", "sweep", str(options.config), *rest]
    description = {
        "experiment": options.out.absolute().name,
        "title": f"Sweep of {', '.join(varied)} in {options.config.stem}",
        "paper": "no counterpart",
        "command": shlex.join([*command, *(["--seeds", options.seeds] if options.seeds else [])]),
    }
    processes = options.jobs
    if processes is None and options.launcher == "processes":
        processes = jobs.default_processes(combinations[0].values["training"]["device"])
    launch = cluster.launcher(options.launcher, processes, options.out, options.request)
    failures = sweeping.sweep(combinations, seeds, options.out, launch, description, options.trust)
    for name, reason in failures.items():
        say(f"failed: {name}: {reason}", error=True)
    if failures:
        say("repeat the command to try them again", error=True)
    return int(bool(failures))

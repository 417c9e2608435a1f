"""``omni train``: a model from a configuration file, here or in several processes."""

import os
from contextlib import nullcontext
from pathlib import Path

from omnitraining.cli import add_trust_in_named_runs, command_parser
from omnitraining.errors import InputError
from omnitraining.io.terminal import say


def main(arguments: list[str]) -> int:
    """Train into a run folder, and judge the run."""
    parser = command_parser(
        "train",
        "Every field of the configuration is an option too, as in\n"
        "  omni train glyphs.yaml --training.steps 500 --loss.distill_weight 1 --seed 2\n"
        "--recipe paper takes over all choices of the paper: lambda, heads, metric, optimizer.\n"
        "Print them all with: omni train CONFIG --fields\n"
        "With other classes, those have other fields: omni train CONFIG --backbone ViT --fields\n"
        "Processes that torchrun or srun has started train one model together.",
    )
    parser.add_argument("config", type=Path, help="YAML file; see 'omni list' for shipped ones")
    parser.add_argument("--out", type=Path, help="run folder (default: runs/NAME)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in the folder")
    parser.add_argument(
        "--changed-data",
        action="store_true",
        help="with --resume: go on although files of the data have changed",
    )
    parser.add_argument("--fields", action="store_true", help="print all fields and exit")
    parser.add_argument(
        "--devices",
        type=int,
        default=1,
        metavar="N",
        help="processes on this machine that share every step, each with a GPU of its own where "
        "there are GPUs (default: 1)",
    )
    parser.add_argument(
        "--nodes",
        type=int,
        default=1,
        metavar="N",
        help="machines that do so; give the same command on each (default: 1)",
    )
    parser.add_argument("--rendezvous", metavar="HOST:PORT", help="where several machines meet")
    add_trust_in_named_runs(parser)
    known, fields = parser.parse_known_args(arguments)
    for name in ("devices", "nodes"):
        if (value := getattr(known, name)) < 1:
            raise InputError(f"--{name} is {value}: it must be 1 or more")

    from omnitraining import distributed
    from omnitraining.cli.list import fields_table
    from omnitraining.config import run_config
    from omnitraining.config.fields import described
    from omnitraining.experiments import running
    from omnitraining.experiments.display import TrainingDisplay, show
    from omnitraining.experiments.tables import evaluation_table
    from omnitraining.training import find_device

    folder = known.out or Path("runs") / known.config.stem
    config = run_config.read_config(known.config, fields)
    if known.fields:
        title = f"Fields of {known.config}; each is an option, as --training.steps 500"
        show(fields_table(title, described(run_config.RunConfig, config.as_dict())))
        return 0
    if known.devices * known.nodes > 1 and "RANK" not in os.environ:
        device = find_device(config.training.device)
        return distributed.launch(
            ["train", *arguments], device, known.devices, known.nodes, known.rendezvous
        )
    with (
        distributed.joined() as team,
        TrainingDisplay(folder.name) if team.leads else nullcontext() as progress,
    ):
        run = running.train_run(
            config, folder, known.resume, progress, known.trust, known.changed_data
        )
    if not team.leads:
        return 0
    say(f"{run.name}: judging it on the test tasks", error=True)
    evaluation = running.judged(run)
    show(evaluation_table(run.name, evaluation))
    run.save_evaluation("test", evaluation)
    say(f"run: {folder}   again: omni evaluate {folder}")
    return 0

"""The command line: parses, calls the library, prints. Wrong input ends in one line and code 2."""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from omnitraining.errors import InputError

COMMANDS = {
    "train": "train a model from a configuration file into a run folder",
    "evaluate": "judge a run on the fixed test tasks",
    "compare": "table of several runs, with paired differences from the first",
    "reproduce": "run a whole experiment: train, judge, table, figure",
    "sweep": "train a configuration with all combinations of some values",
    "tune": "search options by validation tasks alone, for any method",
    "report": "write the results book: records beside the paper, with verdicts",
    "adapt": "learn new classes from a few images of each, into a file",
    "predict": "label images with what 'omni adapt' has learned",
    "export": "write a flow or a fitted predictor for use without this library",
    "demo": "teach a few classes in the browser, ask, and see what each flow thinks",
    "attention": "draw where the flows of models look",
    "analyse": "judge every flow on your own images: which to use, and why",
    "watch": "draw what a policy does before and after adaptation",
    "data": "check a data set on disk, or decode its images ahead of training",
    "list": "what there is: experiments, algorithms, backbones, problems",
    "doctor": "check this installation and machine",
}


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see '{self.prog} --help')")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, or 2 for wrong input, or 130 if interrupted."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    try:
        return _run(list(sys.argv[1:] if arguments is None else arguments))
    except InputError as error:
        print(f"omni: {_one_line(error)}", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, a folder that may not be written to, and the like
        words = f"{error.filename or 'file'}: {error.strerror or error}"
        print(f"omni: {_one_line(words)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("omni: interrupted; a run goes on with --resume", file=sys.stderr)
        return 130


def _one_line(message: object) -> str:
    """A message as a terminal can take it: names of files may hold whatever there is."""
    return "".join(c if c.isprintable() else " " for c in str(message))


def _run(arguments: list[str]) -> int:
    parser = _Parser(
        prog="omni",
        description="Omni-Training: few-shot learning by pre-training and meta-training at once.",
        epilog="commands:\n" + "\n".join(f"  {name:10} {text}" for name, text in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="omni COMMAND [OPTIONS]   ('omni COMMAND --help' says which)",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    if not arguments or arguments[0].startswith("-"):
        if parser.parse_args(arguments).version:
            from importlib.metadata import version

            print(version("omnitraining"))
        else:
            parser.print_help()
        return 0
    command, *rest = arguments
    if command not in COMMANDS:
        raise InputError(f"{command!r} is not a command: choose from {', '.join(COMMANDS)}")
    handlers = {
        "train": _train,
        "evaluate": _evaluate,
        "compare": _compare,
        "reproduce": _reproduce,
        "data": _data,
        "list": _list,
        "doctor": _doctor,
    }
    if command in handlers:
        return handlers[command](rest)
    code: int = import_module(f"omnitraining.commands.{command}").main(rest)
    return code


def command_parser(command: str, epilog: str = "") -> argparse.ArgumentParser:
    """The parser of a command, whose errors are one line."""
    return _Parser(
        prog=f"omni {command}",
        description=COMMANDS[command][0].upper() + COMMANDS[command][1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_trust(parser: argparse.ArgumentParser) -> None:
    """The option to run what a model names: commands that load one have it."""
    parser.add_argument(
        "--trust",
        action="store_true",
        help="let the model name classes from outside omnitraining, as a backbone of your own; "
        "they are run, so trust whoever made it",
    )


def add_trust_in_named_runs(parser: argparse.ArgumentParser) -> None:
    """The option to run what other runs name: commands that train have it."""
    parser.add_argument(
        "--trust",
        action="store_true",
        help="let runs that are named by start or previous name classes from outside omnitraining",
    )


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """Where runs are done: commands that make several have these options."""
    parser.add_argument(
        "--launcher",
        choices=("processes", "slurm", "local"),
        default="processes",
        help="processes of this machine (default); jobs of Slurm, by submitit; or submitit's "
        "stand-in for it on this machine, to try it out",
    )
    parser.add_argument(
        "--request",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="what each run asks of the scheduler, by submitit's names: timeout_min=240 "
        "gpus_per_node=1 cpus_per_task=4 mem_gb=16 slurm_partition=gpu ...",
    )


def _train(arguments: list[str]) -> int:
    parser = command_parser(
        "train",
        "Every field of the configuration is an option too, as in\n"
        "  omni train glyphs.yaml --training.steps 500 --loss.weight 1 --seed 2\n"
        "--recipe paper takes over all choices of the paper: lambda, heads, metric, optimiser.\n"
        "Print them all with: omni train CONFIG --fields\n"
        "Processes that torchrun or srun has started train one model together.",
    )
    parser.add_argument("config", type=Path, help="YAML file; see 'omni list' for shipped ones")
    parser.add_argument("--out", type=Path, help="run folder (default: runs/NAME)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in the folder")
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

    from omnitraining import distributed, experiment
    from omnitraining.display import TrainingDisplay, evaluation_table, show
    from omnitraining.training import find_device

    if known.fields:
        experiment.parser(prog="omni train CONFIG").print_help()
        return 0
    folder = known.out or Path("runs") / known.config.stem
    config = experiment.read_config(known.config, fields)
    if known.devices * known.nodes > 1 and "RANK" not in os.environ:
        device = find_device(config.training.device)
        return distributed.launch(
            ["train", *arguments], device, known.devices, known.nodes, known.rendezvous
        )
    with (
        distributed.joined() as team,
        TrainingDisplay(folder.name) if team.leads else nullcontext() as progress,
    ):
        run = experiment.train_run(config, folder, known.resume, progress, known.trust)
    if not team.leads:
        return 0
    evaluation = experiment.evaluate_run(run)
    show(evaluation_table(run.name, evaluation))
    print(f"run: {folder}   again: omni evaluate {folder}")
    return 0


def _evaluate(arguments: list[str]) -> int:
    parser = command_parser("evaluate")
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument(
        "--shots", type=int, nargs="+", default=[], help="support samples per class"
    )
    parser.add_argument("--tasks", type=int, help="test tasks per cell (default: all, mostly 600)")
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    add_trust(parser)
    options = parser.parse_args(arguments)

    from omnitraining import experiment
    from omnitraining.display import evaluation_table, show
    from omnitraining.runs import Run

    run = Run(options.run, trust=options.trust)
    name = "test" if not options.shots and options.tasks is None else "custom"
    evaluation = experiment.evaluate_run(run, options.tasks, tuple(options.shots), name)
    show(evaluation_table(run.name, evaluation))
    if options.json:
        options.json.write_text((run.path / "evaluations" / f"{name}.json").read_text())
    return 0


def _compare(arguments: list[str]) -> int:
    parser = command_parser(
        "compare", "Runs must have been judged on the same tasks (omni evaluate RUN)."
    )
    parser.add_argument(
        "runs", type=Path, nargs="+", help="run folders; the first is the reference"
    )
    parser.add_argument("--head", default="ensemble", help="pre, joint, meta or ensemble (default)")
    options = parser.parse_args(arguments)

    from omnitraining.display import comparison_table, show
    from omnitraining.runs import Run

    runs = [Run(path) for path in options.runs]
    evaluations = {str(run.path): run.load_evaluation() for run in runs}
    show(comparison_table(evaluations, options.head))
    return 0


def _reproduce(arguments: list[str]) -> int:
    parser = command_parser(
        "reproduce",
        "Runs that are there already are kept, and broken ones resumed, so a command\n"
        "that was stopped goes on when given again.",
    )
    parser.add_argument("name", help="experiment, as 'omni list' names it")
    parser.add_argument("--out", type=Path, help="folder of runs and results (default: runs/NAME)")
    parser.add_argument(
        "--smoke", action="store_true", help="a tiny variant that only shows it runs"
    )
    parser.add_argument("--seeds", type=int, nargs="+", help="seeds (default: the experiment's)")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="train only these rows")
    parser.add_argument(
        "--settings", nargs="+", metavar="NAME", help="train only in these, as table2 on cub"
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
    options = parser.parse_args(arguments)

    from omnitraining.reproduction import reproduce

    reproduce(
        options.name,
        options.out,
        options.smoke,
        options.seeds,
        options.only,
        options.settings,
        options.data,
        options.budget,
    )
    return 0


def _data(arguments: list[str]) -> int:
    parser = command_parser(
        "data",
        "PATH is a folder with one folder of images per class, or with train, val and test that\n"
        "hold those; a CSV table or JSON list of images; or CUB, Cars, Places, Plantae or\n"
        "mini-ImageNet as they are published. Start with: omni data check PATH",
    )
    commands = parser.add_subparsers(dest="what", required=True, metavar="{check,prepare}")
    check = commands.add_parser(
        "check",
        help="open every image, count classes, find damage and duplicates",
        description="Open every image of a data set and say what was found, and what to mend.",
        epilog="The exit code is 0 if the data set can be used, and 1 if something must be mended.",
        allow_abbrev=False,
    )
    prepare = commands.add_parser(
        "prepare",
        help="decode all images once, so that training starts at once",
        description="Decode all images of a data set into the cache, from which training reads "
        "them. The first training does so by itself; this does it ahead.",
        allow_abbrev=False,
    )
    for each in (check, prepare):
        each.add_argument("path", type=Path, metavar="PATH", help="folder or file of the data set")
    check.add_argument("--name", help="standard data set that it should be, as cub")
    prepare.add_argument(
        "--size",
        type=int,
        default=84,
        help="side in pixels of what the network sees (default: 84); images are kept at 1.15 "
        "times that side, and cropped in training",
    )
    prepare.add_argument(
        "--cache",
        type=Path,
        help="folder of decoded images (default: $OMNITRAINING_CACHE or ~/.cache/omnitraining); "
        "training finds another folder by that variable",
    )
    prepare.add_argument(
        "--skip-damaged", action="store_true", help="leave out images that cannot be decoded"
    )
    options = parser.parse_args(arguments)
    if not options.path.exists():
        raise InputError(f"there is no data set at {options.path}")
    if options.what == "check":
        return _check_data(options.path, options.name)
    if options.size < 1:
        raise InputError(f"--size is {options.size}: it must be 1 or more")
    return _prepare_data(options.path, options.size, options.cache, options.skip_damaged)


def _check_data(path: Path, name: str | None) -> int:
    from omnitraining.display import show
    from omnitraining.tasks.classification import checking, datasets

    checking.check_name(name)
    try:
        data_set = datasets.read(path)
    except InputError as error:
        print(f"must be mended: {error}")
        return 1
    report = checking.check(data_set, name)
    show(checking.table(report))
    for words in report.problems:
        print(f"must be mended: {words}")
    for words in report.warnings:
        print(f"warning: {words}")
    if report.is_usable:
        print(f"{path} can be used   next: omni data prepare {path}")
    return 0 if report.is_usable else 1


def _prepare_data(path: Path, size: int, cache: Path | None, skip_damaged: bool) -> int:
    from omnitraining.tasks.classification import datasets, decoding
    from omnitraining.tasks.classification.photos import with_split

    side = decoding.resized_side(size)
    splits = with_split(datasets.read(path)).splits
    # What has no split is used in the parts that it is split into, and not as a whole.
    for split, listing in splits.items():
        if split == "all" and len(splits) > 1:
            continue
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            images = decoding.load(listing, side, cache, skip_damaged).images
        for warning in caught:
            print(f"warning: {warning.message}", file=sys.stderr)
        file = decoding.cache_file(listing, side, cache)
        shape = f"{len(images)} images of {side} x {side} pixels"
        print(f"{split}: {shape}, {images.numel() / 1e6:.1f} MB in {file}")
    return 0


def _list(arguments: list[str]) -> int:
    command_parser("list").parse_args(arguments)

    from omnitraining.display import listing_table, show

    show(listing_table())
    return 0


def _doctor(arguments: list[str]) -> int:
    command_parser("doctor").parse_args(arguments)

    from omnitraining.doctor import examine

    return examine()

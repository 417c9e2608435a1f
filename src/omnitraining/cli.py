"""The command line: parses, calls the library, prints. Wrong input ends in one line and code 2."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from omnitraining.errors import InputError

COMMANDS = {
    "train": "train a model from a configuration file into a run folder",
    "evaluate": "judge a run on the fixed test tasks",
    "compare": "table of several runs, with paired differences from the first",
    "reproduce": "run a whole experiment: train, judge, table, figure",
    "list": "what there is: experiments, algorithms, backbones, problems",
    "doctor": "check this installation and machine",
}


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see '{self.prog} --help')")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, or 2 for wrong input, or 130 if interrupted."""
    try:
        return _run(list(sys.argv[1:] if arguments is None else arguments))
    except InputError as error:
        print(f"omni: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, a folder that may not be written to, and the like
        print(f"omni: {error.filename or 'file'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("omni: interrupted; a run goes on with --resume", file=sys.stderr)
        return 130


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
        "list": _list,
        "doctor": _doctor,
    }
    return handlers[command](rest)


def _parser(command: str, epilog: str = "") -> _Parser:
    return _Parser(
        prog=f"omni {command}",
        description=COMMANDS[command][0].upper() + COMMANDS[command][1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _train(arguments: list[str]) -> int:
    parser = _parser(
        "train",
        "Every field of the configuration is an option too, as in\n"
        "  omni train glyphs.yaml --training.steps 500 --loss.weight 1 --seed 2\n"
        "Print them all with: omni train CONFIG --fields",
    )
    parser.add_argument("config", type=Path, help="YAML file; see 'omni list' for shipped ones")
    parser.add_argument("--out", type=Path, help="run folder (default: runs/NAME)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in the folder")
    parser.add_argument("--fields", action="store_true", help="print all fields and exit")
    known, fields = parser.parse_known_args(arguments)

    from omnitraining import experiment
    from omnitraining.display import TrainingDisplay, evaluation_table, show

    if known.fields:
        experiment.parser(prog="omni train CONFIG").print_help()
        return 0
    folder = known.out or Path("runs") / known.config.stem
    config = experiment.read_config(known.config, fields)
    with TrainingDisplay(folder.name) as progress:
        run = experiment.train_run(config, folder, known.resume, progress)
    evaluation = experiment.evaluate_run(run)
    show(evaluation_table(run.name, evaluation))
    print(f"run: {folder}   again: omni evaluate {folder}")
    return 0


def _evaluate(arguments: list[str]) -> int:
    parser = _parser("evaluate")
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument(
        "--shots", type=int, nargs="+", default=[], help="support samples per class"
    )
    parser.add_argument("--tasks", type=int, default=600, help="test tasks per cell (default: 600)")
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    options = parser.parse_args(arguments)

    from omnitraining import experiment
    from omnitraining.display import evaluation_table, show
    from omnitraining.runs import Run

    run = Run(options.run)
    name = "test" if not options.shots and options.tasks == 600 else "custom"
    evaluation = experiment.evaluate_run(run, options.tasks, tuple(options.shots), name)
    show(evaluation_table(run.name, evaluation))
    if options.json:
        options.json.write_text((run.path / "evaluations" / f"{name}.json").read_text())
    return 0


def _compare(arguments: list[str]) -> int:
    parser = _parser("compare", "Runs must have been judged on the same tasks (omni evaluate RUN).")
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
    parser = _parser(
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
    parser.add_argument("--only", nargs="+", help="train only these rows")
    options = parser.parse_args(arguments)

    from omnitraining.reproduction import reproduce

    reproduce(options.name, options.out, options.smoke, options.seeds, options.only)
    return 0


def _list(arguments: list[str]) -> int:
    _parser("list").parse_args(arguments)

    from omnitraining.display import listing_table, show

    show(listing_table())
    return 0


def _doctor(arguments: list[str]) -> int:
    _parser("doctor").parse_args(arguments)

    from omnitraining.doctor import examine

    return examine()

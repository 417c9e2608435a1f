"""The command line. Wrong input ends with one line on stderr and exit code 2."""

import argparse
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

from omnitraining.errors import InputError
from omnitraining.io.terminal import one_line, say, streams
from omnitraining.memory import memory_reused

if TYPE_CHECKING:
    from omnitraining.learner.frozen import BackboneOptions

BROKEN_PIPE = 141
"""Exit code where the reader of a pipe ends, as in ``| head``: 128 + SIGPIPE."""

COMMANDS = {
    "train": "train a model from a configuration file into a run folder",
    "evaluate": "evaluate a run on the fixed test episodes, or a learner on your images",
    "compare": "table of several runs, with paired differences from the first",
    "reproduce": "run a whole experiment: train, evaluate, table, figure",
    "sweep": "train a configuration with all combinations of some values",
    "tune": "search options of any method on validation tasks",
    "report": "write a report: records beside the paper, with verdicts",
    "adapt": "learn new classes from a few images of each, into a file",
    "predict": "label images by the classes that 'omni adapt' learned",
    "export": "write a flow or a fitted predictor for use without this library",
    "demo": "interactive few-shot demo in the browser",
    "attention": "draw attention maps of the flows of models",
    "analyze": "evaluate every flow on your own images, and recommend one",
    "watch": "draw trajectories of a policy before and after adaptation",
    "data": "check a data set on disk, or decode its images ahead of training",
    "list": "list experiments, algorithms, backbones, problems",
    "doctor": "check this installation and machine",
}


FORMERLY = {"analyse": "analyze"}
"""Current names of renamed commands."""


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see '{self.prog} --help')")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, or 2 for wrong input, or 130 if interrupted."""
    try:
        with streams(), _one_line_warnings():
            # Not list(...): the command of that name is a module of this package.
            return _run([*(sys.argv[1:] if arguments is None else arguments)])
    except BrokenPipeError:
        return BROKEN_PIPE
    except InputError as error:
        say(f"omni: {one_line(error)}", error=True)
        return 2
    except OSError as error:  # a full disk, a folder that may not be written to, and the like
        words = f"{error.filename or 'output'}: {error.strerror or error}"
        say(f"omni: {one_line(words)}", error=True)
        return 2
    except KeyboardInterrupt:
        say("omni: interrupted; continue a run with --resume", error=True)
        return 130


@contextmanager
def _one_line_warnings() -> Iterator[None]:
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"warning: {one_line(message)}\n"
    try:
        yield
    finally:
        warnings.formatwarning = before


def _run(arguments: list[str]) -> int:
    parser = _Parser(
        prog="omni",
        description="Omni-Training: few-shot learning by pre-training and meta-training at once.",
        epilog="commands:\n" + "\n".join(f"  {name:10} {text}" for name, text in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="omni COMMAND [OPTIONS]   (see 'omni COMMAND --help')",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    if not arguments or arguments[0].startswith("-"):
        if parser.parse_args(arguments).version:
            from importlib.metadata import version

            say(version("omnitraining"))
        else:
            parser.print_help()
        return 0
    command, *rest = arguments
    command = FORMERLY.get(command, command)
    if command not in COMMANDS:
        raise InputError(f"{command!r} is not a command: choose from {', '.join(COMMANDS)}")
    _check_not_empty(rest)
    with memory_reused():
        code: int = import_module(f"omnitraining.cli.{command}").main(rest)
    return code


def _check_not_empty(arguments: list[str]) -> None:
    """Refuse empty texts, as of a shell variable that is not set: as a path they are this folder.

    Raises:
        InputError: an argument is empty.
    """
    for before, argument in zip(("", *arguments), arguments, strict=False):
        option, sign, value = argument.partition("=")
        if not argument.strip():
            place = f" after {before}" if before else ""
            raise InputError(f"there is an empty argument{place}: give a value, or leave it out")
        if sign and not value and option.startswith("--"):
            raise InputError(f"{option} is empty: give a value, or leave it out")


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
    """Add ``--trust`` to a command that loads a model."""
    parser.add_argument(
        "--trust",
        action="store_true",
        help="allow classes from outside omnitraining, as a backbone of your own; loading the "
        "model runs their code",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add ``--device`` to a command that loads a learner."""
    parser.add_argument(
        "--device",
        default="auto",
        metavar="NAME",
        help="cpu, cuda:1 or the like (default: a GPU if there is one)",
    )


def add_backbone(parser: argparse.ArgumentParser, whole: bool = True) -> None:
    """Add the options of a backbone by name to a command that loads a model.

    Args:
        parser: of the command.
        whole: all of them, or only ``--weights``, which a learner's file may need.
    """
    group = parser.add_argument_group("backbones (timm/NAME, torchvision/NAME, transformers/NAME)")
    group.add_argument(
        "--weights",
        metavar="FILE",
        help="weights of the backbone, in place of the weights that its library downloads (of "
        "transformers: the folder of the model)",
    )
    if not whole:
        return
    parser.add_argument(
        "--aspect",
        choices=("stretch", "crop", "letterbox"),
        help="how pictures become squares: resized, as they look squeezed; the center of each; or "
        "the whole of each, with gray beside it (default: as in training; backbones by name have "
        "their own)",
    )
    group.add_argument(
        "--image-size", type=int, metavar="PIXELS", help="of timm, in place of the model's own"
    )
    group.add_argument(
        "--precision", choices=("float32", "bfloat16"), help="of the backbone (default: float32)"
    )
    group.add_argument(
        "--head",
        choices=("logistic", "nearest-mean"),
        help="logistic regression on features of length 1 (default), or the nearest class mean",
    )


def backbone_options(options: argparse.Namespace) -> "BackboneOptions":
    """The options of `add_backbone`.

    Args:
        options: as parsed.
    """
    from omnitraining.learner.frozen import BackboneOptions

    names = ("weights", "image_size", "precision", "head", "aspect")
    given: Any = {name: getattr(options, name, None) for name in names}
    return BackboneOptions(**given)


def add_trust_in_named_runs(parser: argparse.ArgumentParser) -> None:
    """Add ``--trust`` to a command that trains, and may load other runs."""
    parser.add_argument(
        "--trust",
        action="store_true",
        help="allow classes from outside omnitraining in the runs of start_from and teacher_run: "
        "loading them runs their code",
    )


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """Add ``--launcher`` and ``--request`` to a command that makes several runs."""
    parser.add_argument(
        "--launcher",
        choices=("processes", "slurm", "local"),
        default="processes",
        help="processes of this machine (default); jobs of Slurm, by submitit; or submitit's "
        "local executor, for a trial on this machine",
    )
    parser.add_argument(
        "--request",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="resources of each run, by submitit's names: timeout_min=240 gpus_per_node=1 "
        "cpus_per_task=4 mem_gb=16 slurm_partition=gpu ...",
    )

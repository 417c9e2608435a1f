"""``omni train``: a model from a configuration file, here or in several processes."""

import logging
import os
from argparse import SUPPRESS
from contextlib import nullcontext
from pathlib import Path

from omnitraining.cli import add_trust_in_named_runs, command_parser
from omnitraining.errors import InputError
from omnitraining.io.terminal import say

TORCHRUN = (
    "torchrun --nnodes N --nproc-per-node N --rdzv-backend c10d --rdzv-endpoint HOST:PORT -m "
    "omnitraining train CONFIG"
)


def main(arguments: list[str]) -> int:
    """Train into a run folder, and evaluate the run."""
    parser = command_parser(
        "train",
        "Every field of the configuration is an option too, as in\n"
        "  omni train glyphs.yaml --training.steps 500 --loss.distill_weight 1 --seed 2\n"
        "--recipe paper sets all choices of the paper: lambda, heads, metric, optimizer.\n"
        "Print them all with: omni train CONFIG --fields\n"
        "Other classes have other fields: omni train CONFIG --backbone ViT --fields\n"
        "Every flow starts from a pretrained backbone with\n"
        "  omni train CONFIG --start-from timm/NAME (torchvision/NAME, transformers/NAME), with\n"
        "  --start-weights FILE for weights of your own\n"
        "Several processes train one model if torchrun or srun starts them:\n"
        "  torchrun --nproc-per-node 2 -m omnitraining train CONFIG",
    )
    parser.add_argument("config", type=Path, help="YAML file; see 'omni list' for shipped ones")
    parser.add_argument("--out", type=Path, help="run folder (default: runs/NAME)")
    parser.add_argument("--resume", action="store_true", help="continue the run in the folder")
    parser.add_argument(
        "--changed-data",
        action="store_true",
        help="with --resume: continue although files of the data have changed",
    )
    parser.add_argument("--fields", action="store_true", help="print all fields and exit")
    parser.add_argument(
        "--devices",
        type=int,
        default=1,
        metavar="N",
        help="processes on this machine, as torchrun --nproc-per-node N; each has its own GPU, "
        "where there are GPUs (default: 1)",
    )
    parser.add_argument("--nodes", help=SUPPRESS)  # of version 0.1
    parser.add_argument("--rendezvous", help=SUPPRESS)
    add_trust_in_named_runs(parser)
    known, fields = parser.parse_known_args(arguments)
    if known.devices < 1:
        raise InputError(f"--devices is {known.devices}: it must be 1 or more")
    if known.nodes or known.rendezvous:
        raise InputError(f"--nodes and --rendezvous are gone: on each machine, run {TORCHRUN}")

    from omnitraining.cli.list import fields_table
    from omnitraining.config import run_config
    from omnitraining.config.fields import described
    from omnitraining.distributed import process_group
    from omnitraining.experiments import running
    from omnitraining.experiments.display import TrainingDisplay, show
    from omnitraining.experiments.tables import evaluation_table

    folder = known.out or Path("runs") / known.config.stem
    config = run_config.read_config(known.config, fields)
    if known.fields:
        title = f"Fields of {known.config}; each is an option, as --training.steps 500"
        show(fields_table(title, described(run_config.RunConfig, config.as_dict())))
        return 0
    if known.devices > 1 and "RANK" not in os.environ:
        return _torchrun(known.devices, config.training.device, ["train", *arguments])
    with (
        process_group() as context,
        TrainingDisplay(folder.name) if context.is_main_process else nullcontext() as progress,
    ):
        run = running.train_run(
            config, folder, known.resume, progress, known.trust, known.changed_data
        )
    if not context.is_main_process:
        return 0
    say(f"{run.name}: evaluating it on the test tasks", error=True)
    evaluation = running.compute_evaluation(run)
    show(evaluation_table(run.name, evaluation))
    run.save_evaluation("test", evaluation)
    say(f"run: {folder}   again: omni evaluate {folder}")
    return 0


def _torchrun(processes: int, device: str, arguments: list[str]) -> int:
    """Run ``omni`` in several processes of this machine, as torchrun; returns the exit code.

    Raises:
        InputError: there are fewer GPUs, or the system has ended a process.
    """
    import torch
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    from omnitraining.training import find_device

    gpus = torch.cuda.device_count()
    if find_device(device).type == "cuda" and processes > gpus:
        raise InputError(f"--devices is {processes}, but GPUs on this machine are {gpus}")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, torch.get_num_threads() // processes)))
    logging.disable()  # torchrun's log repeats a failure in pages
    try:
        run.main(
            ["--standalone", f"--nproc-per-node={processes}", "-m", "omnitraining", *arguments]
        )
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            raise InputError(
                f"process {rank} was ended by {failure.signal_name()}, which is mostly for lack of "
                "memory if it is SIGKILL; the last good checkpoint is kept: continue with --resume"
            ) from error
        return failure.exitcode
    except SignalException:
        return 130
    finally:
        logging.disable(logging.NOTSET)
    return 0

"""``omni watch``: a picture of a policy before and after adaptation."""

from pathlib import Path

from omnitraining.cli import add_trust, command_parser
from omnitraining.errors import InputError
from omnitraining.io.terminal import say


def main(arguments: list[str]) -> int:
    """Draw trajectories of a trained policy in test tasks."""
    parser = command_parser(
        "watch",
        "Runs on Navigation: paths in the first test tasks, before and after each gradient step.\n"
        "Runs on a HalfCheetah: a filmstrip before and after adaptation; a .gif is animated.",
    )
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="PNG, or GIF")
    parser.add_argument(
        "--flow", help="pre, joint or meta (default: the best on the validation tasks)"
    )
    parser.add_argument("--steps", type=int, help="gradient steps (default: all of the results)")
    parser.add_argument(
        "--task", type=int, default=0, help="test task of a HalfCheetah, from 0 (default: 0)"
    )
    add_trust(parser)
    options = parser.parse_args(arguments)
    kind = options.out.suffix.lower()
    if kind not in (".png", ".gif"):
        raise InputError(f"--out is {options.out}: it must end in .png or .gif")

    from omnitraining.config.run_config import load_run
    from omnitraining.experiments.figures import cheetah_strip, navigation_paths
    from omnitraining.runs.run import Run
    from omnitraining.tasks.reinforcement.half_cheetah import HalfCheetah
    from omnitraining.tasks.reinforcement.navigation import Navigation
    from omnitraining.tasks.reinforcement.problem import Reinforcement
    from omnitraining.threads import cpu_threads

    run = Run(options.run, trust=options.trust)
    run_config = load_run(run)
    problem = run_config.problem
    if not isinstance(problem, Reinforcement) or not isinstance(
        problem.environment, (Navigation, HalfCheetah)
    ):
        raise InputError(f"{run.path} is not a run on Navigation or a HalfCheetah")
    model = run_config.ready(run)
    if options.flow is not None and options.flow not in model.trained_flows:
        raise InputError(
            f"{run.path} has no flow {options.flow!r}: {', '.join(model.trained_flows)}"
        )
    if not 0 <= options.task < problem.test_tasks:
        raise InputError(f"--task is {options.task}: it must be from 0 to {problem.test_tasks - 1}")
    steps = problem.test_steps if options.steps is None else options.steps
    if not 1 <= steps <= problem.test_steps:
        raise InputError(f"--steps is {steps}: it must be from 1 to {problem.test_steps}")
    with cpu_threads(run_config.training.threads):
        flow = options.flow or problem.ensemble(model, run_config.inference)
        drawn = problem, model, flow, problem.test_rates(model, flow)[:steps], options.out
        if isinstance(problem.environment, HalfCheetah):
            picture = cheetah_strip.draw(*drawn, options.task)
        elif kind == ".gif":
            raise InputError(
                f"--out is {options.out}: paths of Navigation do not move; give a .png"
            )
        else:
            picture = navigation_paths.draw(*drawn)
    say(f"picture: {picture}")
    return 0

"""Figure 6: waves recovered from five points after one and ten gradient steps."""

from pathlib import Path

from omnitraining.config.run_config import load_run
from omnitraining.experiments.figures import accuracies
from omnitraining.experiments.figures.canvas import save, subplots
from omnitraining.experiments.record import Record
from omnitraining.runs.run import Run
from omnitraining.tasks.regression.sinusoids import Sinusoids

WAVES = (0, 1)
SHOTS = 5
SHOWN = {"baseline": "Pre-Training (Baseline)", "maml": "Meta-Training (MAML)",
         "omni-training": "Omni-Training"}  # fmt: skip


section = accuracies.section


def draw(record: Record, runs: dict[str, list[Run]], path: Path) -> Path:
    """A row per test wave (the first ones, not chosen), a column per method.

    Args:
        record: not needed.
        runs: runs by row; the first seed is drawn.
        path: the picture.
    """
    rows = [row for row in SHOWN if row in runs]
    figure, axes = subplots(
        len(WAVES),
        len(rows),
        figsize=(4.2 * len(rows), 2.9 * len(WAVES)),
        sharex=True,
        sharey="row",
    )
    for column, row in enumerate(rows):
        run_config = load_run(runs[row][0])
        problem, model = run_config.problem, run_config.load(runs[row][0])
        if not isinstance(problem, Sinusoids):
            raise TypeError("Figure 6 is drawn from runs on Sinusoids")
        for line, wave in enumerate(WAVES):
            curves = problem.curves(model, run_config.inference, wave, SHOTS)
            axis = axes[line, column]
            x, ensemble = curves["query_x"], curves["ensemble"]
            axis.plot(x, curves["query_y"], color="0.4", lw=1.5, label="ground truth")
            axis.plot(x, ensemble[1], "--", color="tab:blue", label="1 step")
            axis.plot(x, ensemble[min(10, len(ensemble) - 1)], color="tab:red", label="10 steps")
            axis.plot(
                curves["support_x"],
                curves["support_y"],
                "^",
                color="black",
                ms=7,
                label="support points",
            )
            axis.grid(alpha=0.3)
            if line == 0:
                axis.set_title(SHOWN[row])
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, ncol=4, loc="lower center", frameon=False)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    return save(figure, path)

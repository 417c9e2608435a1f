"""Figure 11: where pre-training, meta-training and the flows of Omni-Training look."""

from pathlib import Path

from omnitraining.experiments.figures import attention_grid, tables
from omnitraining.experiments.record import Record
from omnitraining.learner.sources import find
from omnitraining.runs.run import Run

IMAGES = 8


section = tables.section


def draw(record: Record, runs: dict[str, list[Run]], path: Path) -> Path:
    """A line per flow, the flows of the reference last; a column per image.

    Args:
        record: with several flows in its first row.
        runs: runs by row; the first of each is drawn.
        path: the picture.
    """
    reference = record.reference
    chosen = [own[0] for row, own in runs.items() if row != reference] + [runs[reference][0]]
    task = attention_grid.first_task(chosen[-1], IMAGES)
    rows = []
    for run in chosen:
        rows += attention_grid.rows_of_task(find(run.path, trust=True), *task)
    return attention_grid.draw(rows, path)

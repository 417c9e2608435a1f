"""Advice of a transferability report: which flow to use on the user's images, and why."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omnitraining.analysis.transfer import NEW, STEPS, TRAINED, Transfer
from omnitraining.evaluation import ENSEMBLE, Cell, Evaluation, paired_difference
from omnitraining.io.files import write_json


def advice(found: Transfer) -> list[str]:
    """Which flow to use on the user's images and why, in sentences."""
    sentences = []
    for shots in found.shots:
        cell = found.frozen_cell(found.own, shots)
        many = f"{shots} image" + "s" * (shots > 1)
        sentences.append(f"With {many} per class: {_choice(found.flows, cell)}")
        if found.tuned.cells:
            sentences.append(f"With {many} per class: {_tuning(found, shots)}")
    most = found.shots[-1]
    for flow in found.flows:
        seen, new, own = (
            found.frozen_cell(where, most).mean(flow) for where in (_trained(found), NEW, found.own)
        )
        sentences.append(
            f"The {flow}-flow goes from {seen:.1f} % on trained classes to {new:.1f} % on new "
            f"classes (across tasks) and {own:.1f} % on {found.own} (across domains)."
        )
    return sentences


def _choice(flows: Sequence[str], cell: Cell) -> str:
    best = max(cell.scores, key=cell.mean)
    single = max(flows, key=cell.mean)
    if best != ENSEMBLE or len(flows) == 1:
        return f"use the {single}-flow, {_number(cell, single)}; no other is better."
    gap = paired_difference(cell.scores[ENSEMBLE], cell.scores[single])
    lead = f"{gap.mean:.1f} ± {gap.interval:.1f} points"
    if gap.is_significant:
        return (
            f"use the ensemble, {_number(cell, ENSEMBLE)}; the best flow alone, {single}, is "
            f"below it by {lead}, for a fraction of the time."
        )
    return (
        f"use the {single}-flow, {_number(cell, single)}; the ensemble, "
        f"{_number(cell, ENSEMBLE)}, costs {len(flows)} times as much and is not "
        f"significantly better ({lead})."
    )


def _tuning(found: Transfer, shots: int) -> str:
    after = found.tuned_cell(shots, STEPS[-1])
    flow = max(found.flows, key=after.mean)
    gap = found.gains(flow, shots)[-1]
    gain = f"{gap.mean:+.1f} ± {gap.interval:.1f} points for the {flow}-flow"
    worth = "pays" if gap.is_significant and gap.mean > 0 else "does not pay"
    return f"fine-tuning the whole flow for {STEPS[-1]} steps {worth} ({gain})."


def _trained(found: Transfer) -> str:
    """The images trained on; of several domains, the first."""
    return next(key.benchmark for key in found.frozen.cells if key.benchmark.startswith(TRAINED))


def _number(cell: Cell, head: str) -> str:
    return f"{cell.mean(head):.1f} ± {cell.interval(head):.1f} %"


def write(found: Transfer, path: Path) -> Path:
    """Means, intervals and advice as JSON."""

    def cells(evaluation: Evaluation) -> dict[str, Any]:
        return {
            str(key): {h: {"mean": cell.mean(h), "interval": cell.interval(h)} for h in cell.scores}
            for key, cell in evaluation.cells.items()
        }

    record = {
        "data": found.own,
        "unit": found.frozen.unit,
        "frozen": cells(found.frozen),
        "fine_tuned": cells(found.tuned),
        "advice": advice(found),
    }
    write_json(path, record)
    return path

"""The figure of accuracies: every row is seen, at its place or as a number at the edge."""

from pathlib import Path
from typing import Any

import pytest

from omnitraining.experiments.figures import accuracies, canvas
from omnitraining.experiments.record import Record, from_json


def record(means: dict[str, list[float]]) -> Record:
    """Rows with means on two benchmarks."""
    rows = {
        row: {
            "cells": {
                f"{place} 5-way 1-shot": {
                    "tasks": place,
                    "heads": {"ensemble": {"mean": mean, "interval": 0.5}},
                }
                for place, mean in zip(("near", "far"), values, strict=True)
            }
        }
        for row, values in means.items()
    }
    header = {
        "experiment": "rows", "title": "rows", "paper": "", "command": "omni", "tasks": 2,
        "seeds": 1, "unit": "accuracy %", "higher_is_better": True, "reference": next(iter(means)),
    }  # fmt: skip
    return from_json({**header, "rows": rows})


@pytest.mark.parametrize(
    ("lost", "numbers"),
    [
        ([24.8, 26.4], {"24.8", "26.4"}),
        ([24.8, 76.0], {"24.8"}),  # where there is room for it, it stands at its place
        ([66.0, 76.0], set()),
    ],
)
def test_what_is_far_below_all_others_is_a_number_at_the_edge(
    lost: list[float], numbers: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Any] = []

    def saved(figure: Any, path: Path, **options: Any) -> Path:
        kept.append(figure)
        return canvas.save(figure, path, **options)

    monkeypatch.setattr(accuracies, "save", saved)
    means = {"ours": [74.0, 81.0], "one": [72.0, 79.0], "two": [70.0, 77.0], "lost": lost}
    accuracies.draw(record(means), None, tmp_path / "picture.png")
    (figure,) = kept
    (axis,) = figure.axes
    assert {text.get_text().split()[-1] for text in axis.texts} == numbers
    lowest, _ = axis.get_ylim()
    shown = [mean for values in means.values() for mean in values if f"{mean:.1f}" not in numbers]
    assert 0 < min(shown) - lowest < 3
    legend = {text.get_text() for text in figure.legends[0].get_texts()}
    assert legend == {*means}

"""Printed runs, learners, results and data describe their contents in a line or two."""

from pathlib import Path

import numpy as np
import pytest
import torch

from omnitraining import FewShotClassifier, LabeledImages, load
from omnitraining.datasets.listing import Listing
from omnitraining.evaluation import Cell, CellKey, Evaluation
from omnitraining.experiments.record import Row, read_record
from omnitraining.learner.calibration import Calibration

IMAGES = np.stack([np.eye(28), np.fliplr(np.eye(28))] * 2)


@pytest.fixture(scope="module")
def learner() -> FewShotClassifier:
    return FewShotClassifier("glyphs").fit(IMAGES, ["down", "up", "down", "up"])


def test_a_learner_shows_what_it_was_fitted_to(learner: FewShotClassifier) -> None:
    assert repr(FewShotClassifier()) == "FewShotClassifier()"
    assert repr(learner) == (
        "<FewShotClassifier(model='glyphs'), fitted to 4 images of 2 classes: down; up>"
    )
    assert repr(load("photos").model) == "<trained model photos: 42 px (bilinear, aspect not kept)>"
    calibration = Calibration((1, 5), {}, {"pre": [1.0, 2.0], "ensemble": [1.0, 2.0]}, {})
    assert repr(calibration) == "<calibration of pre, ensemble at 1, 5 images per class>"
    assert str(learner.fit_report_).startswith("of 4 images, each held out once, 100% are")


def test_a_report_of_a_task_shows_its_accuracy_and_has_a_frame(learner: FewShotClassifier) -> None:
    report = learner.report(IMAGES, ["down", "up", "down", "down"])
    assert repr(report) == (
        "<report of accuracy 75.0% (95 % interval 30.1% to 95.4%), 3 of 4 images>"
    )
    pytest.importorskip("pandas")
    frame = report.to_frame()
    assert frame["class"].tolist() == ["down", "up"]
    assert frame["images"].tolist() == [3, 1] and frame["recall"].tolist() == [2 / 3, 1]


def test_results_show_means_and_not_every_score() -> None:
    cell = Cell("hash", {"pre": [60.0, 64.0] * 300, "ensemble": [70.0, 74.0] * 300})
    assert repr(cell) == "<pre 62 ± 0.16, ensemble 72 ± 0.16 in 600 tasks>"
    whole = Evaluation("accuracy %", True, {CellKey("cub", 5, 1): cell})
    assert repr(whole) == (
        "<evaluation, accuracy %; cub 5-way 1-shot: pre 62.0 ± 0.2, ensemble 72.0 ± 0.2>"
    )


def test_a_record_shows_its_size_and_has_a_frame() -> None:
    record = read_record(Path(__file__).parents[1] / "results" / "photo-table2.json")
    cells, rows = len(record.keys), len(record.rows)
    assert repr(record).startswith(
        f"<record of photo-table2: accuracy %, {rows} rows, {cells} cells of {record.tasks} tasks"
    )
    name, row = next(iter(record.rows.items()))
    assert all(str(key) in repr(row) for key in row.cells) and len(repr(row)) < 100
    assert repr(Row()) == "<row: not measured>"
    pytest.importorskip("pandas")
    frame = record.to_frame()
    of_row = frame[(frame["row"] == name) & (frame["head"] == "ensemble")]
    assert of_row["mean"].tolist() == [c.ensemble.mean for c in row.cells.values()]


def test_data_show_their_sizes_and_not_every_image() -> None:
    pixels = torch.zeros(6, 1, 8, 8, dtype=torch.uint8)
    images = LabeledImages(pixels, torch.arange(6) % 2, ("cat", "dog"), "pets")
    assert repr(images) == "<pets: 6 images of 2 classes, 1 x 8 x 8>"
    arrays = [np.zeros((8, 8), np.uint8)] * 6
    assert repr(Listing("pets", ("cat", "dog"), arrays, [0, 1] * 3)) == (
        "<pets: 6 images of 2 classes>"
    )

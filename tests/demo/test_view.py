"""What the page shows of a fit and of predictions; its examples."""

import re
from collections.abc import Mapping

import numpy as np
import pytest
from PIL import Image

from omnitraining.datasets.decoding import ASPECTS
from omnitraining.demo import view
from omnitraining.demo.examples import QUERIES, SHOTS, example
from omnitraining.demo.html import image
from omnitraining.demo.pictures import Query, as_picture
from omnitraining.demo.prediction_cards import LEGEND, prediction_cards
from omnitraining.demo.predictions import ACCEPT_RATE, PERHAPS, FlowPrediction, Prediction
from omnitraining.demo.session import Predictions, Session
from omnitraining.learner.held_out import FitReport
from omnitraining.learner.inputs import ImageInputs
from omnitraining.learner.sources import find

PIXELS = np.zeros((3, 48, 48), np.uint8)
TWO = {"cat": [PIXELS, PIXELS], "dog": [PIXELS]}


def answer(probabilities: Mapping[str, float], unknown: bool | None = False) -> str:
    flows = [FlowPrediction(flow, {**probabilities}, None) for flow in ("pre", "ensemble")]
    query = Query("mine.jpg", PIXELS, Image.new("RGB", (90, 30)))
    return prediction_cards([query], Predictions([Prediction(PIXELS, flows, unknown)], 0, 0.01))


def verdict(html: str) -> tuple[str, str]:
    found = re.search(r'omni-label">(.*?)</strong> <span>(.*?)</span>', html)
    assert found
    return found[1], found[2]


@pytest.mark.parametrize(
    ("probability", "unknown", "shown"),
    [
        (0.93, False, ("cat", "93%")),
        (0.93, None, ("cat", "93%")),
        (PERHAPS, False, ("cat", "70%")),
        (0.699, False, ("perhaps cat", "70%")),
        (0.51, None, ("perhaps cat", "51%")),
        (0.93, True, ("unlike all classes", "nearest: cat, 93%")),
        (0.999, False, ("cat", "over 99%")),
    ],
)
def test_a_label_is_shown_with_its_degree_of_certainty(
    probability: float, unknown: bool | None, shown: tuple[str, str]
) -> None:
    html = answer({"cat": probability, "dog": 1 - probability}, unknown)
    assert verdict(html) == shown
    assert ("omni-unsure" in html) == (shown[0] != "cat")
    assert f"{PERHAPS:.0%}" in LEGEND and f"{ACCEPT_RATE:.0%}" in LEGEND and LEGEND in html


def test_every_picture_has_a_card_with_its_own_preview() -> None:
    asked = [Query(f"{n}.jpg", PIXELS, Image.new("RGB", (90, 30 + n))) for n in range(3)]
    flow = FlowPrediction("pre", {name: 0.1 for name in "abcdefghij"}, None)
    html = prediction_cards(asked, Predictions([Prediction(PIXELS, [flow], False)] * 3, 0.25, 1.5))
    assert html.count("omni-label") == 3 and "open" not in html
    assert [f"{n}.jpg</p>" in html for n in range(3)] == [True] * 3
    assert "3 pictures predicted in 1.5 s, after fitting the new pictures in 250 ms." in html
    assert html.count("7 others") == 6  # of the card, and of its flow


def test_names_are_never_cut() -> None:
    name = "Tachybaptus ruficollis " * 3 + "x" * 11
    html = answer({name: 0.9, "dog": 0.1})
    assert html.count(name) == 3  # verdict, and the bars of ensemble and flow
    assert name in view.classes({name: [PIXELS]})


def test_accuracy_is_shown_once_it_is_measured() -> None:
    shown = view.fit(FitReport(25, 0.84, 0.8, 0.5), TWO, "photos")
    assert "<strong>84%</strong> (21 of 25, each held out once" in shown
    assert "unlike" not in shown
    one_each = {"cat": [PIXELS], "dog": [PIXELS]}
    assert "One picture of each class" in view.fit(FitReport(0), one_each, "photos")
    assert "not measured with this model" in view.fit(FitReport(0), TWO, "photos")
    assert "omni-silent" in view.fit(None, {}, "photos")


def test_the_warning_of_a_fit_is_on_the_page() -> None:
    report = FitReport(25, 0.2, 0.8, 0.1, deviation=5.0, rank_deviation=4.0)
    assert report.calibrated is False
    shown = view.fit(report, TWO, "photos")
    assert "omni-note" in shown and "These pictures are unlike those that photos was vali" in shown
    assert "where 80% would be right" in shown


def test_a_session_reports_what_the_learner_measured_and_does_not_warn() -> None:
    made = Session(find("glyphs"))
    letters = [
        [as_picture(image, made.inputs) for image in images]
        for images in example(1, made.side).support.values()
    ]
    made.add("4", [letters[4][0], letters[0][1]])
    assert made.report() is None
    for number in range(4):  # each held-out picture is like the one of another class
        made.add(str(number), [letters[number][0], letters[number + 1][1]])
    report = made.report()  # pytest makes an error of a warning
    assert report is not None and report == made.learner().fit_report_
    assert report.images == 10 and report.calibrated is False


def test_the_page_states_how_pictures_are_resized() -> None:
    statistics = (0.5,) * 3, (0.2,) * 3
    said = {
        aspect: view.resizing(ImageInputs(3, 256, 224, *statistics, aspect=aspect))
        for aspect in ASPECTS
    }
    assert all("squares of 224 x 224 pixels in color" in words for words in said.values())
    assert "squeezed" in said["stretch"] and "the center" in said["crop"]
    assert "gray beside" in said["letterbox"]
    assert "32 x 32 pixels in gray: pict" in view.resizing(find("glyphs").image_inputs)


@pytest.mark.parametrize("model", ["photos", "glyphs"])
def test_both_models_have_an_example_that_they_get_right(model: str) -> None:
    made = Session(find(model))
    shown = example(made.inputs.channels, made.side)
    for name, images in shown.support.items():
        assert len(images) == SHOTS
        made.add(name, [as_picture(each, made.inputs) for each in images])
    report = made.report()
    assert report is not None and report.calibrated
    assert len(shown.queries) == QUERIES
    for group in shown.queries:
        found = made.predict([as_picture(each, made.inputs) for each in group]).predictions
        assert [one.label for one in found] == [*shown.support]
    colored = [np.asarray(each.convert("RGB")) for each in shown.queries[0]]
    assert any((each != each[..., :1]).any() for each in colored) == (model == "photos")


def test_images_are_embedded_sharp_if_small_and_compressed_if_large() -> None:
    small, large = image(PIXELS, "a <b>"), image(Image.new("L", (300, 200)), "c")
    assert 'class="omni-coarse"' in small and "image/png" in small and "a &lt;b&gt;" in small
    assert "omni-coarse" not in large and "image/jpeg" in large

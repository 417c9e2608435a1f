"""What a visitor of the demo teaches and asks, without a browser or gradio."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from omnitraining import load
from omnitraining.cli import main
from omnitraining.demo import html, page, pictures, session, view
from omnitraining.demo.drawing import centered
from omnitraining.demo.examples import SHOTS, example
from omnitraining.demo.pictures import File, Picture, Query, Reader, as_picture
from omnitraining.demo.prediction_cards import prediction_cards
from omnitraining.demo.predictions import Prediction
from omnitraining.demo.session import Session
from omnitraining.errors import InputError
from omnitraining.learner import FewShotClassifier, TrainedModel
from omnitraining.learner.sources import find
from tests.learner.models import curves


@pytest.fixture(scope="module")
def trained() -> TrainedModel:
    return find("glyphs")


@pytest.fixture
def taught(trained: TrainedModel) -> Session:
    """A session with the five letters."""
    made = Session(trained)
    for name, images in example(1, made.side).support.items():
        made.add(name, [as_picture(image, made.inputs) for image in images])
    return made


def queries(taught: Session) -> list[Picture]:
    return [
        as_picture(image, taught.inputs)
        for group in example(1, taught.side).queries
        for image in group
    ]


def predicted(taught: Session, picture: Picture) -> Prediction:
    (found,) = taught.predict([picture]).predictions
    return found


def test_the_prediction_equals_a_learner_s_of_the_same_images(taught: Session) -> None:
    learner = FewShotClassifier("glyphs", "ensemble")
    support = example(1, 32).support
    images = [np.asarray(image) for many in support.values() for image in many]
    learner.fit(np.stack(images), np.repeat([*support], SHOTS))
    asked = queries(taught)[:5]
    found = taught.predict(asked).predictions
    for picture, one in zip(asked, found, strict=True):
        wanted = learner.predict_proba(picture[None, 0])[0]
        assert one.label == learner.predict(picture[None, 0])[0]
        assert [*one.flows[-1].probabilities] == [*learner.classes_]
        np.testing.assert_allclose([*one.flows[-1].probabilities.values()], wanted, atol=1e-5)
        assert one.probability == pytest.approx(wanted.max(), abs=1e-5)


def test_pictures_are_predicted_one_by_one_as_all_at_once(taught: Session) -> None:
    asked = queries(taught)[:4]
    together = taught.predict(asked).predictions
    for picture, one in zip(asked, together, strict=True):
        alone = predicted(taught, picture)
        assert (alone.pixels == one.pixels).all() and alone.unknown == one.unknown
        for left, right in zip(alone.flows, one.flows, strict=True):
            assert left.probabilities == pytest.approx(right.probabilities, abs=1e-5)
            if left.heat is not None:
                np.testing.assert_allclose(left.heat, right.heat, atol=1e-4)


def test_every_flow_has_a_prediction_and_a_map(taught: Session) -> None:
    found = predicted(taught, queries(taught)[0])
    assert [flow.flow for flow in found.flows] == ["pre", "joint", "meta", "ensemble"]
    for flow in found.flows:
        assert sum(flow.probabilities.values()) == pytest.approx(1, abs=1e-5)
    for flow in found.flows[:3]:
        assert flow.heat is not None and flow.heat.shape == found.pixels.shape[1:]
        assert flow.heat.min() >= 0 and flow.heat.max() <= 1
    assert found.flows[-1].heat is None


def test_what_is_added_later_is_as_if_it_had_been_there(
    trained: TrainedModel, taught: Session
) -> None:
    slow, picture = Session(trained), queries(taught)[1]
    for name, many in [*taught.pictures.items()]:
        slow.add(name, many)
        if len(slow.pictures) > 1:
            slow.predict([picture])
    one, other = predicted(taught, picture), predicted(slow, picture)
    for left, right in zip(one.flows, other.flows, strict=True):
        assert left.probabilities == pytest.approx(right.probabilities, abs=1e-5)
    slow.remove(one.label)
    assert one.label not in predicted(slow, picture).flows[-1].probabilities


def test_sessions_share_nothing(trained: TrainedModel, taught: Session) -> None:
    other = Session(trained)
    assert not other.pictures
    other.add("a", queries(taught)[:1])
    assert "a" not in taught.pictures


def test_what_is_saved_predicts_the_same(taught: Session, tmp_path: Path) -> None:
    learner = load(taught.save(tmp_path))
    assert isinstance(learner, FewShotClassifier)
    for picture in queries(taught)[:3]:
        assert learner.predict(picture[None])[0] == predicted(taught, picture).label


def test_files_are_read_as_the_learner_reads_them(trained: TrainedModel, tmp_path: Path) -> None:
    path = tmp_path / "café [1].jpg"
    Image.effect_mandelbrot((90, 70), (-2, -1, 1, 1), 9).save(path)
    inputs = trained.image_inputs
    (picture,) = Reader(inputs).pictures([File(path.name, path)])
    assert (inputs.pixels([path]) == inputs.pixels(picture[None])).all()


@pytest.mark.parametrize(
    ("name", "count", "words"),
    [
        ("  ", 1, "Give the class a name first."),
        ("x" * 81, 1, "The name has 81 characters: 80 at most."),
        ("cat", 0, "Choose one or more pictures of “cat” first."),
        ("cat", 21, "“cat” would have 21 pictures: 20 at most."),
    ],
)
def test_what_cannot_be_added_is_reported(
    taught: Session, name: str, count: int, words: str
) -> None:
    before = {name: [*pictures] for name, pictures in taught.pictures.items()}
    with pytest.raises(InputError, match=re.escape(words)):
        taught.add(name, count * queries(taught)[:1])
    assert before.keys() == taught.pictures.keys()


def test_there_are_two_classes_or_more_and_not_too_many(
    trained: TrainedModel, taught: Session
) -> None:
    picture, made = queries(taught)[0], Session(trained)
    with pytest.raises(InputError, match="Add two classes first"):
        made.predict([picture])
    for number in range(session.CLASSES):
        made.add(f"class {number}", [picture])
        if number == 0:
            with pytest.raises(InputError, match="Add one more class first"):
                made.predict([picture])
    with pytest.raises(InputError, match="There are 20 classes already"):
        made.add("one more", [picture])
    made.add("class 3", [picture])  # an old one still takes pictures
    with pytest.raises(InputError, match="Choose the class to remove first"):
        made.remove("nobody")


def test_files_that_are_no_pictures_are_named_and_the_rest_is_kept(
    trained: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes, wide, good = (tmp_path / name for name in ("notes.png", "wide.png", "good.png"))
    notes.write_text("no image")
    Image.new("1", (9000, 6000)).save(wide)
    Image.new("RGB", (9, 9), "red").save(good)
    gone = File("gone.png", tmp_path / "gone.png")
    files = [File(f"mine/{path.name}", path) for path in (notes, wide, good)]
    reader = Reader(trained.image_inputs)
    assert len(reader.pictures([*files, gone])) == 1
    assert reader.problems == [
        "mine/notes.png is not an image, or of a kind that Pillow cannot read.",
        "mine/wide.png has 54 million pixels: 50 million at most.",
        "gone.png is not there any more: choose it again.",
    ]
    assert len(reader.pictures(files[2:] * 3, most=2)) == 2
    monkeypatch.setattr(pictures, "MEGABYTES", 0)
    with pytest.raises(InputError, match=r"^mine/notes\.png has more than 0 megabytes"):
        Reader(trained.image_inputs).queries(files[:1])
    monkeypatch.setattr(pictures, "SECONDS", -1)
    with pytest.raises(InputError, match="took more than -1 seconds"):
        Reader(trained.image_inputs).pictures(files[1:])


def test_questions_have_a_preview_with_their_own_aspect_and_orientation(
    trained: TrainedModel, tmp_path: Path
) -> None:
    path = tmp_path / "long.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.new("RGB", (900, 300), "red").save(path, exif=exif)
    reader = Reader(trained.image_inputs)
    (query,) = reader.queries([File("long.jpg", path)])
    assert query.name == "long.jpg" and query.preview.size == (80, 240)
    assert query.picture.shape == (3, 32, 32) and not reader.problems
    with pytest.raises(InputError, match="These are 21 pictures: 20 at most at a time"):
        reader.queries(21 * [File("long.jpg", path)])


def test_a_drawing_is_centered_and_an_empty_one_refused() -> None:
    empty = Image.new("RGBA", (280, 280))
    for nothing in (None, {"composite": None}, {"composite": empty}):
        with pytest.raises(InputError, match="Draw something first"):
            centered(nothing)
    drawn = empty.copy()
    ImageDraw.Draw(drawn).rectangle((10, 20, 59, 119), fill="black")
    found = np.asarray(centered({"composite": drawn}))
    assert found.shape == (130, 130)  # 1.3 times the longer side
    rows, columns = (found == 0).nonzero()
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (15, 114, 40, 89)


def test_names_cannot_write_html(taught: Session) -> None:
    name = "<img src=x onerror=alert(1)>"
    taught.add(name, queries(taught)[:1])
    asked = Query(name, queries(taught)[0], Image.new("RGB", (9, 9)))
    shown = prediction_cards([asked], taught.predict([asked.picture]))
    fit = view.fit(taught.report(), {name: [], "other": []}, name)
    for text in (view.classes(taught.pictures), shown, html.message(name, True), html.note(name)):
        assert "<img src=x" not in text and "&lt;img src=x" in text
    assert "<img src=x" not in fit


def test_the_empty_page_states_what_to_do() -> None:
    assert "Name one below" in view.classes({})
    assert "two classes or more" in prediction_cards([], None).lower()
    one = {"cat": [np.zeros((3, 8, 8), np.uint8)]}
    assert "1 picture<" in view.classes(one) and "add another" in view.classes(one)


def test_models_of_curves_are_refused() -> None:
    with pytest.raises(InputError, match="model of curves"):
        Session(curves()[1])


def test_the_command_names_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(page, "import_module", missing)
    assert main(["demo"]) == 2
    assert capsys.readouterr().err == (
        "omni: the demo needs gradio, which is not installed: pip install 'omnitraining[demo]'\n"
    )
    assert main(["demo", "nowhere"]) == 2
    assert "nowhere does not exist" in capsys.readouterr().err


def test_pictures_are_shown_as_the_network_gets_them(trained: TrainedModel) -> None:
    color = Image.new("RGB", (40, 40), (200, 110, 0))
    picture = as_picture(color, trained.image_inputs)
    assert picture.shape == (3, 32, 32) and np.unique(picture).tolist() == [124]


def test_errors_of_handlers_are_a_sentence_on_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    def wrong() -> page.Updates:
        raise InputError("Choose a picture first.")

    def broken() -> page.Updates:
        return {}["missing"]

    assert page.with_message(dict, "place")() == {"place": html.message("")}
    assert page.with_message(wrong, "place")() == {
        "place": html.message("Choose a picture first.", True)
    }
    assert page.with_message(broken, "place")() == {"place": html.message(page.FAILED, True)}
    assert "KeyError: 'missing'" in capsys.readouterr().err

"""How pictures become squares can be chosen for a trained model, and is kept in files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import omnitraining
from omnitraining import FewShotClassifier, InputError
from omnitraining.cli import main
from omnitraining.learner.frozen import BackboneOptions
from omnitraining.learner.sources import find
from tests.learner.models import curves, untrained

WIDE = Image.fromarray(np.tile(np.arange(96, dtype=np.uint8), (32, 1)))
"""A slope of 32 x 96 pixels."""


def expected(aspect: str) -> Image.Image:
    if aspect == "stretch":
        return WIDE.resize((32, 32), Image.Resampling.BILINEAR)
    if aspect == "crop":
        return WIDE.crop((32, 0, 64, 32))
    square = Image.new("L", (96, 96), 128)  # of no use for its gray, only for the picture's rows
    square.paste(WIDE, (0, 32))
    return square.resize((32, 32), Image.Resampling.BILINEAR)


@pytest.mark.parametrize("aspect", ["stretch", "crop", "letterbox"])
def test_the_inputs_of_a_shipped_model_follow_the_aspect(aspect: str) -> None:
    learner = omnitraining.load("glyphs", aspect=aspect)
    pixels = find(learner.model).image_inputs.pixels([WIDE])[0, 0].int()
    wanted = torch.from_numpy(np.array(expected(aspect))).int()
    rows = slice(12, 20) if aspect == "letterbox" else slice(None)
    assert (pixels[rows] - wanted[rows]).abs().max() <= 1
    if aspect == "letterbox":
        assert len(pixels[:9].unique()) == 1  # the gray above the picture


def test_it_is_kept_in_a_file_and_cannot_change_after_a_fit(tmp_path: Path) -> None:
    images, file = [WIDE, WIDE.rotate(180)], tmp_path / "a.learner"
    learner = omnitraining.load("glyphs", aspect="crop")
    assert isinstance(learner, FewShotClassifier)
    learner.fit(images, ["up", "down"])
    learner.save(file)
    again = omnitraining.load(file)
    assert find(again.model).image_inputs.aspect == "crop"
    assert np.array_equal(again.predict_proba(images), learner.predict_proba(images))
    with pytest.raises(InputError, match=r"aspect is 'stretch', but .*a.learner was fitted with"):
        omnitraining.load(file, aspect="stretch")
    assert (
        find(omnitraining.load("glyphs").model).image_inputs.aspect == "stretch"
    )  # it is not shared


def test_wrong_ones_are_refused() -> None:
    _, model = untrained()
    with pytest.raises(InputError, match="aspect is 'round': choose from stretch, crop, letterbox"):
        omnitraining.load("glyphs", aspect="round")
    with pytest.raises(InputError, match="is a model of curves"):
        omnitraining.load(curves()[1], aspect="crop")
    with pytest.raises(InputError, match="image_size is for a backbone"):
        find(model, options=BackboneOptions(image_size=64))
    assert find(omnitraining.load(model, aspect="crop").model).image_inputs.aspect == "crop"


def test_the_command_line_has_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, angle in (("a", 0), ("b", 180)):
        (tmp_path / "support" / name).mkdir(parents=True)
        for number in range(2):
            WIDE.rotate(angle).save(tmp_path / "support" / name / f"{number}.png")
    out = str(tmp_path / "mine.learner")
    arguments = ["adapt", "glyphs", str(tmp_path / "support"), "--aspect", "letterbox"]
    assert main([*arguments, "--out", out]) == 0
    learner = omnitraining.load(out)
    assert isinstance(learner, FewShotClassifier)
    assert find(learner.model).image_inputs.aspect == "letterbox"

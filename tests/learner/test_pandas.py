"""Columns and tables of pandas; left out where it is not installed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from omnitraining import FewShotClassifier, InputError
from omnitraining.learner.image_data import labels_of
from omnitraining.learner.inputs import ImageInputs

pd: Any = pytest.importorskip("pandas")


def test_columns_of_paths_and_of_labels(tmp_path: Path) -> None:
    paths, names = [], ["light", "dark"] * 2
    for number, name in enumerate(names):
        paths.append(str(tmp_path / f"{number}.png"))
        pixels = np.eye(32, dtype=np.uint8) * (250 if name == "light" else 60)
        Image.fromarray(pixels).save(paths[-1])
    expected = FewShotClassifier("glyphs").fit(paths, names).predict_proba(paths)
    table = pd.DataFrame({"image": paths, "label": names}, index=[7, 3, 9, 1])
    forms = ((table["image"], table["label"]), (table[["image"]], table[["label"]]), (table, None))
    for x, y in forms:
        found = FewShotClassifier("glyphs").fit(x, y)
        np.testing.assert_allclose(found.predict_proba(x), expected, atol=1e-6)
        assert found.score(x, y) == 1
    other = pd.DataFrame({"a": ["x"], "b": ["y"]})
    with pytest.raises(InputError, match="images are a table of columns 'a', 'b': call the"):
        ImageInputs(1, 8, 8, (0.5,), (0.25,)).pixels(other)


def test_labels_of_pandas() -> None:
    for y in (pd.Series([0, 1], dtype="Int64"), pd.Series([0, 1], dtype="category")):
        assert labels_of(y).tolist() == [0, 1]
    assert labels_of(pd.Series(["a", "b"], dtype="string")).tolist() == ["a", "b"]
    for label in (None, float("nan"), pd.NA, pd.NaT):
        for others in (["a", "b"], [3, 4]):
            with pytest.raises(InputError, match="label 2 is missing"):
                labels_of(pd.Series([*others, label], dtype=object))
    for kind in ("Int64", "string"):
        with pytest.raises(InputError, match="label 1 is missing"):
            labels_of(pd.array(["1", None] if kind == "string" else [1, None], dtype=kind))

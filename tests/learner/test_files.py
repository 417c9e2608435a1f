"""Where learners come from, and files that are none."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import omnitraining
from omnitraining import FewShotClassifier, InputError
from omnitraining.datasets import digits
from omnitraining.experiments.running import train_run
from omnitraining.learner import TrainedModel
from tests.learner.models import untrained
from tests.reference.tiny import BLOBS, config


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "tiny"
    FewShotClassifier(untrained()[1]).save(path)
    return path


def rewritten(path: Path, out: Path, **changes: Any) -> Path:
    """The file with other facts; a fact of None is left out."""
    with safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()["learner"])
    facts = {key: value for key, value in {**facts, **changes}.items() if value is not None}
    save_file(load_file(path), out, metadata={"learner": json.dumps(facts)})
    return out


def test_a_newer_version_is_named(saved: Path, tmp_path: Path) -> None:
    path = rewritten(saved, tmp_path / "new", version=99, omnitraining="9.9")
    with pytest.raises(
        InputError, match=r"is of version 99, written by omnitraining 9.9: .*update"
    ):
        omnitraining.load(path)


@pytest.mark.parametrize("changes", [{"config": None}, {"votes": {}}, {"inputs": {"side": 3}}])
def test_missing_facts_are_damage(saved: Path, tmp_path: Path, changes: Mapping[str, Any]) -> None:
    with pytest.raises(InputError, match="bad is damaged"):
        omnitraining.load(rewritten(saved, tmp_path / "bad", **changes))


def test_missing_weights_are_damage(saved: Path, tmp_path: Path) -> None:
    with safe_open(saved, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(saved)
    name = min(tensors)
    del tensors[name]
    save_file(tensors, tmp_path / "bad", metadata=metadata)
    with pytest.raises(InputError, match=f"bad is damaged: {name} is missing or differs"):
        omnitraining.load(tmp_path / "bad")


def test_other_files_are_no_learners(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "other"
    for content in (b"", b"no model", bytes(100), b"\xff" * 100, b"\x80\x04K\x01."):
        path.write_bytes(content)
        with pytest.raises(InputError, match="other is not a learner: give a file that a learner"):
            omnitraining.load(path)
    path.write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(InputError, match="other is truncated or damaged"):
        omnitraining.load(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="other is not a learner"):
        omnitraining.load(path)


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"nowhere does not exist: give a shipped model \(glyphs, ph"
    ):
        omnitraining.load("nowhere")
    with pytest.raises(InputError, match="holds neither a run nor a saved learner"):
        omnitraining.load(tmp_path)
    with pytest.raises(InputError, match="FewShotClassifier has no option 'flaw': choose from"):
        omnitraining.load("glyphs", flaw="meta")


def test_a_run_is_loaded_and_its_calibration_kept(tmp_path: Path) -> None:
    train_run(config(BLOBS), tmp_path / "run")
    first = omnitraining.load(tmp_path / "run", trust=True).model
    record = tmp_path / "run" / "calibration.json"
    assert isinstance(first, TrainedModel)
    values = json.loads(record.read_text())
    values["temperatures"]["vote"][0] = 7.0
    record.write_text(json.dumps(values))
    second = omnitraining.load(tmp_path / "run", trust=True).model
    assert isinstance(second, TrainedModel)
    assert second.calibration.temperature("vote", 1) == 7.0
    record.write_text(json.dumps({**values, "of": "another checkpoint"}))
    third = omnitraining.load(tmp_path / "run", trust=True).model
    assert isinstance(third, TrainedModel) and third.calibration == first.calibration


def test_the_shipped_model_reads_handwriting() -> None:
    """It was trained on printed Latin letters; handwritten digits were not among them."""
    learner = omnitraining.load("glyphs")
    assert isinstance(learner, FewShotClassifier)
    data = digits.load(size=32)
    order = torch.randperm(len(data.labels), generator=torch.Generator().manual_seed(0))
    x, y = data.images[order, 0], data.labels[order]
    assert learner.fit(x[:60], y[:60]).score(x[60:360], y[60:360]) > 0.8


def test_the_shipped_model_is_small_has_a_card_and_is_in_the_wheel() -> None:
    import tomllib

    root = Path(omnitraining.__file__).parents[2]
    folder = Path(omnitraining.__file__).parent / "models" / "glyphs"
    assert (folder / "weights.safetensors").stat().st_size < 2_000_000
    for word in ("Data", "License", "Commit"):
        assert f"## {word}" in (folder / "card.md").read_text()
    tools = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = tools["package-data"]["omnitraining"]
    shipped = {path for pattern in patterns for path in folder.parents[1].glob(pattern)}
    assert shipped >= {*folder.iterdir()}


def test_probabilities_of_the_shipped_model_do_not_change() -> None:
    """A change of these numbers is a change of behavior: say so in the changelog."""
    learner = omnitraining.load("glyphs")
    assert isinstance(learner, FewShotClassifier)
    rows = np.arange(32 * 32, dtype=np.uint8).reshape(32, 32)
    x = np.stack([np.roll(rows, 5 * shift, shift % 2) for shift in range(8)])
    found = learner.fit(x[:6], list("aabbcc")).predict_proba(x[6:])
    np.testing.assert_allclose(
        found, [[0.1317, 0.6214, 0.2469], [0.4712, 0.2296, 0.2992]], atol=1e-3
    )


def test_an_option_that_is_wrong_is_no_damage() -> None:
    for options in ({"accept_rate": 95}, {"flow": "mid"}, {"reject_label": [1]}):
        with pytest.raises(InputError, match=f"option {next(iter(options))} is ") as caught:
            omnitraining.load("glyphs", **options)
        assert "damaged" not in str(caught.value)


def test_every_source_takes_a_device(saved: Path, tmp_path: Path) -> None:
    """The CPU is the only one that every machine has; a wrong one shows that it is checked."""
    train_run(config(BLOBS), tmp_path / "run")
    sources: list[tuple[Any, dict[str, Any]]] = [
        ("glyphs", {}),
        (saved, {"trust": True}),
        (tmp_path / "run", {"trust": True}),
        (torch.nn.Flatten(), {"image_size": 8, "mean": [0.5] * 3, "std": [1] * 3}),
    ]
    for source, options in sources:
        trained = omnitraining.load(source, device="cpu", **options).model
        with pytest.raises(InputError, match="device is 'tpu9', which is not usable here"):
            omnitraining.load(source, device="tpu9", **options)
    with pytest.raises(InputError, match="device is 'cuda', and the model is on cpu already"):
        omnitraining.load(trained, device="cuda")

"""Learners' files that were changed by hand are damaged: in one line, soon, in little memory."""

import json
import math
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import omnitraining
from omnitraining import FewShotClassifier, FewShotRegressor, InputError
from omnitraining.cli import main
from omnitraining.config import bounds
from omnitraining.learner import TrainedModel
from tests.learner.models import curves, untrained
from tests.reference.tiny import blobs

Text, Tensors = dict[str, Any], dict[str, Tensor]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fitted classifier, "images", and a fitted regressor, "waves"."""
    folder, data = tmp_path_factory.mktemp("files"), blobs(3, 4, "x")
    names = np.array(["a", "b", "c"])[data.labels]
    FewShotClassifier(untrained()[1], accept_rate=0.9).fit(data.images, names).save(
        folder / "images"
    )
    x = np.linspace(-1, 1, 6)
    FewShotRegressor(curves()[1]).fit(x, np.sin(x)).save(folder / "waves")
    return folder


def changed(path: Path, out: Path, change: Callable[[Text, Tensors], object]) -> Path:
    """The file with a change of its text and tensors."""
    with safe_open(path, "pt") as file:
        text = json.loads(file.metadata()["learner"])
    tensors = load_file(path)
    change(text, tensors)
    save_file(tensors, out, metadata={"learner": json.dumps(text)})
    return out


def at(*path: Any, value: Any) -> Callable[[Text, Tensors], object]:
    """Sets one value in the text."""

    def change(text: Text, _: Tensors) -> None:
        place: Any = text
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


def tensor(start: str, change: Callable[[Tensor], Tensor]) -> Callable[[Text, Tensors], object]:
    """Changes the first tensor whose name starts so."""

    def apply(_: Text, tensors: Tensors) -> None:
        name = min(name for name in tensors if name.startswith(start))
        tensors[name] = change(tensors[name]).contiguous()

    return apply


def with_one(value: float) -> Callable[[Tensor], Tensor]:
    def change(x: Tensor) -> Tensor:
        x.view(-1)[-1] = value
        return x

    return change


def in_config(field: str, name: str, **options: Any) -> Callable[[Text, Tensors], object]:
    return at("config", field, value={"class_path": name, "init_args": options})


MODEL = "model.networks"
HEAVY = {"class_path": "LogisticHead", "init_args": {"iterations": 2**70}}
NO_BATCH = {"class_path": "SGDHead", "init_args": {"batch": 0}}
IMAGES: dict[str, tuple[Callable[[Text, Tensors], object], str]] = {
    "NaN weight": (tensor(MODEL, with_one(math.nan)), "is not finite"),
    "infinite weight": (tensor(MODEL, with_one(math.inf)), "is not finite"),
    "double weight": (tensor(MODEL, Tensor.double), "is missing or differs"),
    "half weight": (tensor(MODEL, Tensor.half), "is missing or differs"),
    "whole weight": (tensor(MODEL, Tensor.long), "is missing or differs"),
    "NaN support": (tensor("support.", with_one(math.nan)), "values that are not finite"),
    "double support": (tensor("support.", Tensor.double), r"is torch.float64 \[12, "),
    "narrow support": (tensor("support.", lambda x: x[:, :2]), r"\[12, 2\]: the model has"),
    "flat support": (tensor("support.", lambda x: x[:, 0]), r"\[12\]: the model has"),
    "short support": (tensor("support.", lambda x: x[:3]), "has 3 rows"),
    "other tensors": (lambda _, x: x.update(more=torch.zeros(3)), "holds 'more', which its"),
    "temperature 0": (at("votes", "temperatures", "vote", 0, value=0), "not from 0.001 to"),
    "temperature NaN": (at("votes", "temperatures", "vote", 0, value=math.nan), "is not a learner"),
    "temperature 1e999": (
        at("votes", "temperatures", "vote", 0, value=10**400),
        "not a number in range",
    ),
    "no temperature": (at("votes", "temperatures", value={}), "has none of"),
    "short temperatures": (at("votes", "temperatures", "vote", value=[1.0]), "a list of 2"),
    "negative vote": (at("votes", "votes", "pre", 0, value=-1.0), "below 0"),
    "no votes": (at("votes", "votes", value={}), "none above"),
    "odd vote": (at("votes", "votes", "more", value=[1.0, 1.0]), "must be by pre, joint, meta"),
    "text quantile": (at("votes", "familiarity", "vote", 0, 0, value="x"), "holds 'x'"),
    "few quantiles": (at("votes", "familiarity", "vote", 0, value=[1.0]), "a list of 101"),
    "falling shots": (at("votes", "shots", value=[10, 1]), "does not rise"),
    "shot 0": (at("votes", "shots", value=[0, 1]), "from 1 to"),
    "std 0": (at("inputs", "std", value=[0.0]), r"inputs\.std \[0\.0\]"),
    "std many": (at("inputs", "std", value=[1.0, 1.0]), "a list of 1"),
    "mean text": (at("inputs", "mean", value="0"), "a list of 1"),
    "stored huge": (at("inputs", "stored", value=2**40), "from 1 to 4,096"),
    "size other": (at("inputs", "size", value=8), "do not fit"),
    "size true": (at("inputs", "size", value=True), "from 1 to 4,096"),
    "inputs a list": (at("inputs", value=[]), "inputs must hold"),
    "wide dtype": (at("fit", "dtype", value="<U200000000"), ""),
    "odd dtype": (at("fit", "dtype", value="V9"), "labels like 'a' are not"),
    "dtype of time": (at("fit", "dtype", value="<M8[ns]"), "labels like 'a' are not"),
    "fields in dtype": (at("fit", "dtype", value=[["a", "O"]]), "labels like 'a' are not"),
    "small dtype": (
        lambda text, _: text["fit"].update(labels=[300] * 6 + [1] * 6, dtype="|u1"),
        "does not fit u1",
    ),
    "labels of kinds": (at("fit", "labels", 0, value=1), "texts alone or numbers alone"),
    "labels nested": (at("fit", "labels", value=[["a"]] * 12), "texts alone or numbers alone"),
    "no labels": (at("fit", "labels", value=[]), "1 to 20,000 are read"),
    "labels a text": (at("fit", "labels", value="abcabcabcabc"), "must be a list"),
    "labels without dtype": (lambda text, _: text["fit"].pop("dtype"), "is damaged: .*dtype"),
    "support without labels": (lambda text, _: text["fit"].pop("labels"), "no labels of them"),
    "long label": (at("fit", "labels", 0, value="x" * 9_999), "text of more than 4,096"),
    "flow": (at("fit", "flow", value="both"), "fit.flow is 'both'"),
    "reject": (at("fit", "reject", value=2), "fit.accept_rate is 2"),
    "reject a text": (at("fit", "reject", value="0.5"), "fit.accept_rate is '0.5'"),
    "fit a list": (at("fit", value=[1]), "is damaged"),
    "version a float": (at("version", value=1.5), "is not a learner"),
    "scale infinite": (in_config("metatraining", "ProtoNet", scale=10**400), "must be less"),
    "iterations": (in_config("pretraining", "Baseline", new_head=HEAVY), "10,000 or less"),
    "deep text": (at("fit", "flow", value=json.loads("[" * 200 + "]" * 200)), "nests values"),
    "photos": (in_config("problem", "Photos", data="/"), "names Photos, which is code from"),
    "no batch": (in_config("pretraining", "Baseline", new_head=NO_BATCH), "batch is 0: it must be"),
    "no channels": (in_config("metatraining", "RelationNet", channels=0), "channels is 0: it must"),
    "another head": (in_config("metatraining", "RelationNet", channels=4), "is damaged"),
    "another network": (in_config("backbone", "Conv4", channels=1, width=5), "differs|damaged"),
    "large network": (in_config("backbone", "ResNet18", channels=1), "weights than are stored"),
}


@pytest.mark.parametrize("case", IMAGES)
def test_changed_classifiers_are_damaged(case: str, files: Path, tmp_path: Path) -> None:
    change, words = IMAGES[case]
    path = changed(files / "images", tmp_path / "bad", change)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    if words:
        with pytest.raises(InputError, match=words) as caught:
            omnitraining.load(path)
        assert "\n" not in str(caught.value) and "bad" in str(caught.value)
        assert len(str(caught.value)) < 600
    else:  # the change has no effect, so that the file may be read
        learner = omnitraining.load(path)
        assert isinstance(learner, FewShotClassifier)
        assert learner.predict(blobs(3, 1, "q").images).dtype.itemsize < 100
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # KiB
    assert time.monotonic() - start < 10


def test_a_fit_that_would_take_too_long_is_refused(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few bytes of support set can require a square matrix of many rows, many times."""
    heavy = {"class_path": "LogisticHead", "init_args": {"iterations": 10_000}}
    change = in_config("pretraining", "Baseline", new_head=heavy)
    monkeypatch.setattr(bounds, "FIT_PRODUCTS", 1e10)
    assert omnitraining.load(files / "images")
    with pytest.raises(InputError, match=r"cannot be fitted again: .*memory or time; add --trust"):
        omnitraining.load(changed(files / "images", tmp_path / "bad", change))


WAVES: dict[str, tuple[Callable[[Text, Tensors], object], str]] = {
    "NaN point": (tensor("support.y", with_one(math.nan)), "values that are not finite"),
    "wide points": (tensor("support.x", lambda x: x.expand(-1, 2)), r"\[6, 2\]: the model has"),
    "fewer points": (tensor("support.x", lambda x: x[:2]), "2 inputs and 6 values"),
    "no y": (lambda _, x: x.pop("support.y"), "is damaged: KeyError"),
    "steps": (at("fit", "steps", value=2**70), "from 0 to 1,000"),
    "steps a text": (at("fit", "steps", value="9"), "from 0 to 1,000"),
    "no flows": (at("votes", "flows", value=[]), "the model has pre, joint, meta"),
    "flow that is not": (at("votes", "flows", 0, value="x"), "the model has pre, joint, meta"),
    "no weights": (at("votes", "weights", value=[]), "a list of 1"),
    "no steps": (at("votes", "weights", 0, value=[]), "not of one number of steps"),
    "text weight": (at("votes", "weights", 0, 0, 0, value="1"), "holds '1'"),
    "many shots": (at("votes", "shots", value=[1] * 9), "a list of 9"),
    "no inputs key": (lambda text, _: text.pop("inputs"), "is damaged: KeyError"),
}


@pytest.mark.parametrize("case", WAVES)
def test_changed_regressors_are_damaged(case: str, files: Path, tmp_path: Path) -> None:
    change, words = WAVES[case]
    path = changed(files / "waves", tmp_path / "bad", change)
    with pytest.raises(InputError, match=words) as caught:
        omnitraining.load(path)
    assert "\n" not in str(caught.value)


def test_what_was_not_changed_is_read(files: Path, tmp_path: Path) -> None:
    for name in ("images", "waves"):
        path = changed(files / name, tmp_path / name, lambda text, tensors: None)
        assert omnitraining.load(path).get_params()["model"] is not None


def test_a_key_that_is_there_twice_is_damage(files: Path, tmp_path: Path) -> None:
    with safe_open(files / "images", "pt") as file:
        text = file.metadata()["learner"]
    twice = text.replace('"version": 1', '"version": 1, "fit": {}')
    save_file(load_file(files / "images"), tmp_path / "bad", metadata={"learner": twice})
    with pytest.raises(InputError, match="is not a learner"):
        omnitraining.load(tmp_path / "bad")


def test_weights_of_votes_may_be_large_whole_numbers(files: Path, tmp_path: Path) -> None:
    change = at("votes", "weights", 0, 0, 0, value=2**70)
    learner = omnitraining.load(changed(files / "waves", tmp_path / "x", change))
    assert isinstance(learner, FewShotRegressor) and np.isfinite(learner.predict([0.5])).all()


def test_names_in_files_are_shown_on_one_line(files: Path, tmp_path: Path) -> None:
    path = changed(files / "images", tmp_path / "x", at("name", value="a\n\x1b[31m" + "b" * 999))
    model = omnitraining.load(path).model
    assert isinstance(model, TrainedModel) and model.name == "a??[31m" + "b" * 193


def test_answers_are_numbers(files: Path) -> None:
    """Weights can be finite and yet too large to compute with."""
    learner = omnitraining.load(files / "images")
    assert isinstance(learner, FewShotClassifier)
    with torch.no_grad():
        next(iter(learner.predictor_.flows.children())).prototypes.fill_(math.nan)
    with pytest.raises(InputError, match="predicts values that are not finite"):
        learner.predict(blobs(3, 1, "q").images)


def test_a_run_with_weights_that_are_no_numbers_is_no_learner(files: Path) -> None:
    experiment, trained = untrained()
    with torch.no_grad():
        next(trained.model.parameters()).fill_(math.nan)
    with pytest.raises(InputError, match=r"tiny is damaged: model\..* not finite"):
        TrainedModel.of(experiment, trained.model, trained.config, "tiny", trained.calibration)


def test_the_command_reports_it_in_one_line(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = changed(files / "images", tmp_path / "bad", tensor(MODEL, with_one(math.nan)))
    assert main(["predict", str(path), str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1

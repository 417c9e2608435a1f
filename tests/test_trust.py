"""A model from a stranger runs nothing: classes from outside the library are not even imported."""

import inspect
import shutil
import sys
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import yaml

import omnitraining
from omnitraining import hub
from omnitraining.cli import main
from omnitraining.errors import InputError
from omnitraining.experiment import (
    Experiment,
    changed_fields,
    evaluate_run,
    load_run,
    parse,
    train_run,
)
from omnitraining.fields import known_classes
from omnitraining.learner import FewShotClassifier, Trained
from omnitraining.recipes import merge
from omnitraining.runs import Run
from omnitraining.trust import FUNCTIONS, KINDS, foreign_names
from tests.reference.tiny import SINUSOIDS, Values, config

OWN = """
from pathlib import Path
import torch
from omnitraining.backbones import MLP
from omnitraining.tasks.regression.sinusoids import Sinusoids
Path({touched!r}).touch()

class Mine(MLP):
    pass

def mine() -> torch.nn.Module:
    return MLP([8, 8])
"""


@pytest.fixture
def touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that the module ``stranger`` makes when it is imported."""
    path = tmp_path / "touched"
    (tmp_path / "stranger.py").write_text(OWN.format(touched=str(path)))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "stranger", raising=False)
    return path


ATTACKS: list[Values] = [
    {"backbone": {"class_path": "stranger.Mine"}},
    {"backbone": "stranger.Mine"},
    {"backbone": "stranger.mine"},
    {"backbone": {"class_path": "os.system", "init_args": {"command": "true"}}},
    {"backbone": {"class_path": "torch.hub.load", "init_args": {"repo_or_dir": "a/b"}}},
    {"backbone": {"class_path": "omnitraining.runs.os.system"}},
    {"backbone": {"class_path": "omnitraining.fields.import_module"}},
    {"backbone": {"class_path": "omnitraining.omninet.nn.Identity"}},
    {"backbone": {"class_path": "omnitraining.runs.Run", "init_args": {"path": "x"}}},
    {"backbone": "omnitraining.experiment.train_run"},
    {"backbone.class_path": "stranger.Mine"},
    {"backbone": "{class_path: stranger.Mine}"},
    {"problem": {"class_path": "stranger.Sinusoids"}},
    {"problem": {"class_path": "Sinusoids", "dict_kwargs": {"a": {"class_path": "stranger.Mine"}}}},
    {"problem.class_path": "stranger.Sinusoids"},
    {"pretraining": {"class_path": "RFS", "init_args": {"new_head": "stranger.Mine"}}},
    {"pretraining": {"class_path": "RFS", "init_args": {"new_head": "{class_path: stranger.M}"}}},
    {"metatraining": ["stranger.Mine"]},
    {"training": {"device": "{class_path: stranger.Mine}"}},
    {
        "backbone": {
            "class_path": "FeatureWise",
            "init_args": {"backbone": {"class_path": "stranger.Mine"}},
        }
    },
    *(
        {
            "problem": {
                "class_path": "Reinforcement",
                "init_args": {
                    "environment": {
                        "class_path": "GymnasiumTasks",
                        "init_args": {"make": make, "sample": "os.system", "horizon": 3},
                    }
                },
            }
        }
        for make in ("stranger.mine", "omnitraining.hub.download", "os.system")
    ),
]


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_whatever_a_strangers_run_names_is_not_run(
    attack: Values, touched: Path, tmp_path: Path
) -> None:
    run = Run(tmp_path / "run", create=True)
    run.write_text("config.yaml", yaml.safe_dump({**SINUSOIDS, **attack}))
    with pytest.raises(InputError, match=r"config.yaml names .* add --trust \(in Python trust=Tr"):
        load_run(Run(run.path))
    with pytest.raises(InputError, match="add --trust"):
        changed_fields(Run(run.path), config(SINUSOIDS))
    assert not touched.exists() and "stranger" not in sys.modules


def _fields(kind: Any) -> Iterator[tuple[str, Any]]:
    """Parameters of a class and of the groups of parameters in it, and their types."""
    hints = get_type_hints(kind.__init__)
    for name in inspect.signature(kind).parameters:
        if name in hints:
            yield name, hints[name]
            if is_dataclass(hints[name]):
                yield from _fields(hints[name])


def _plain(hint: Any) -> bool:
    """Whether values of a type are read without looking for a class or a function."""
    if get_args(hint) and not str(hint).startswith("collections.abc.Callable"):
        return all(map(_plain, get_args(hint))) or "Literal" in str(hint)
    return hint in (int, float, bool, str, Path, type(None), ...) or is_dataclass_group(hint)


def is_dataclass_group(hint: Any) -> bool:
    return is_dataclass(hint) and not issubclass(hint, KINDS)  # type: ignore[arg-type]


def test_every_field_that_names_a_class_or_a_function_is_watched() -> None:
    """Otherwise a text in a new field could name what is then imported."""
    watched = {*known_classes(), *FUNCTIONS}
    shipped = {kind for classes in known_classes().values() for kind in classes.values()}
    found = {
        name for kind in (Experiment, *shipped) for name, hint in _fields(kind) if not _plain(hint)
    }
    assert found <= watched and {"backbone", "problem", "new_head", "make"} <= found


def test_the_classes_of_the_library_need_no_trust() -> None:
    for classes in known_classes().values():
        for name, kind in classes.items():
            for path in (name, f"{kind.__module__}.{name}"):
                assert not [*foreign_names({"class_path": path})], path


def own_run(folder: Path) -> Run:
    change = {"backbone": {"class_path": "stranger.Mine", "init_args": {"hidden": [8, 8]}}}
    values = merge({**SINUSOIDS, "backbone": {}}, change)
    return train_run(parse(values), folder)


def test_what_is_trusted_is_run(touched: Path, tmp_path: Path) -> None:
    run = own_run(tmp_path / "run")
    evaluate_run(run, tasks=3)  # the caller's own
    touched.unlink()
    learner = omnitraining.load(run.path, trust=True)
    learner.save(tmp_path / "saved")
    sys.modules.pop("stranger")
    for source in (run.path, tmp_path / "saved"):
        with pytest.raises(InputError, match=r"names stranger.Mine, .* add --trust"):
            omnitraining.load(source)
        with pytest.raises(InputError, match=r"names stranger.Mine, .* add --trust"):
            FewShotClassifier(source).fit(["a"], [1])
        with pytest.raises(InputError, match=r"names stranger\.Mine"):
            hub.from_pretrained(source)
    with pytest.raises(InputError, match=r"names stranger\.Mine"):
        evaluate_run(Run(run.path))
    assert not touched.exists() and "stranger" not in sys.modules
    assert isinstance(omnitraining.load(tmp_path / "saved", trust=True).model, Trained)
    assert touched.exists()


def test_a_run_that_another_starts_from_is_a_strangers(touched: Path, tmp_path: Path) -> None:
    own_run(tmp_path / "theirs")
    shutil.move(tmp_path / "theirs", tmp_path / "moved")
    sys.modules.pop("stranger")
    touched.unlink()
    for field in ("start", "previous"):
        chosen = config(SINUSOIDS, method="meta-training", **{field: str(tmp_path / "moved")})
        with pytest.raises(InputError, match=r"moved/config\.yaml names stranger\.Mine"):
            train_run(chosen, tmp_path / "run")
    assert not touched.exists() and not (tmp_path / "run").exists()


def test_a_run_of_ones_own_classes_is_resumed_without_saying_so(
    touched: Path, tmp_path: Path
) -> None:
    run = own_run(tmp_path / "run")
    sys.modules.pop("stranger")
    change = {"backbone": {"class_path": "stranger.Mine", "init_args": {"hidden": [8, 8]}}}
    longer = merge({**SINUSOIDS, "backbone": {}}, change, {"training": {"steps": 6}})
    train_run(parse(longer), run.path, resume=True)


@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", "RUN"],
        ["adapt", "RUN", "FOLDER", "--out", "OUT"],
        ["predict", "SAVED", "image.png"],
        ["export", "RUN", "--format", "torch", "--out", "OUT"],
        ["attention", "RUN", "--out", "OUT.png"],
        ["watch", "RUN", "--out", "OUT.png"],
        ["demo", "RUN"],
    ],
)
def test_commands_say_it_in_one_line(
    command: list[str], touched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path / "RUN", create=True)
    run.write_text("config.yaml", yaml.safe_dump({**SINUSOIDS, "backbone": "stranger.mine"}))
    if "SAVED" in command:
        made = own_run(tmp_path / "own")
        omnitraining.load(made.path, trust=True).save(tmp_path / "SAVED")
        sys.modules.pop("stranger")
        touched.unlink()
    words = [str(tmp_path / w) if w.isupper() or "OUT" in w else w for w in command]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "names stranger." in said and "add --trust" in said
    assert not touched.exists()

"""A model from a stranger runs nothing: classes from outside the library are not even imported."""

import contextlib
import inspect
import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

import omnitraining
from omnitraining.cli import main
from omnitraining.config.fields import known_classes
from omnitraining.config.recipes import merge
from omnitraining.config.run_config import RunConfig, dump, load_run, parse
from omnitraining.config.trust import Check, own_classes
from omnitraining.errors import InputError
from omnitraining.experiments.running import changed_fields, evaluate_run, train_run
from omnitraining.learner import FewShotClassifier, TrainedModel, hub
from omnitraining.runs.run import Run
from tests.reference.tiny import NAVIGATION, SINUSOIDS, Values, config

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


GLYPHS: Values = {
    "problem": {
        "class_path": "Glyphs",
        "init_args": {
            "benchmarks": ["latin"],
            "size": 16,
            "instances": 21,
            "protocol": {"shots": 2},
        },
    },
    "backbone": {"class_path": "Conv4", "init_args": {"channels": 1, "width": 4}},
}
NAMED = "names .*, which is code from outside .* add --trust (in Python trust=True)"
ODD = "it must be the name of a class, or hold class_path and init_args"


def gymnasium(make: Any, sample: Any = "os.system") -> Values:
    """A problem whose environment is made by functions."""
    options = {"make": make, "sample": sample, "horizon": 3}
    environment = {"class_path": "GymnasiumTasks", "init_args": options}
    return {"problem": {"class_path": "Reinforcement", "init_args": {"environment": environment}}}


def in_head(head: Any) -> Values:
    return {"pretraining": {"class_path": "RFS", "init_args": {"new_head": head}}}


ESCAPED = '{"class\\u005fpath": "stranger.Mine"}'
ATTACKS: list[tuple[Values, str]] = [
    ({"backbone": {"class_path": "stranger.Mine"}}, NAMED),
    ({"backbone": "stranger.Mine"}, NAMED),
    ({"backbone": "stranger.mine"}, NAMED),
    ({"backbone": {"class_path": "os.system", "init_args": {"command": "true"}}}, NAMED),
    ({"backbone": {"class_path": "torch.hub.load", "init_args": {"repo_or_dir": "a/b"}}}, NAMED),
    ({"backbone": {"class_path": "omnitraining.runs.run.os.system"}}, NAMED),
    ({"backbone": {"class_path": "omnitraining.config.fields.import_module"}}, NAMED),
    ({"backbone": {"class_path": "omnitraining.omninet.nn.Identity"}}, NAMED),
    ({"backbone": {"class_path": "omnitraining.runs.run.Run", "init_args": {"path": "x"}}}, NAMED),
    ({"backbone": {"class_path": "omnitraining.backbones.resnet.ResNet"}}, NAMED),
    ({"backbone": {"class_path": "omnitraining.tasks.blueprint.Blueprint"}}, NAMED),
    ({"backbone": "omnitraining.experiments.running.train_run"}, NAMED),
    ({"backbone": "Sinusoids"}, NAMED),
    ({"backbone.class_path": "stranger.Mine"}, "has no field 'backbone.class_path'"),
    ({"config": "f.json"}, "has no field 'config'"),
    ({"backbone": "{class_path: stranger.Mine}"}, NAMED),
    ({"backbone": {"class_path": "MLP", "init_args": "{hidden: [8]}"}}, "must hold fields"),
    ({"backbone": {"class_path": "MLP", "dict_kwargs": {}}}, ODD),
    ({"backbone": {"class_path": ["MLP"]}}, ODD),
    ({"backbone": {"init_args": {"hidden": [8, 8]}}}, ODD),
    ({"backbone": "FILE"}, NAMED),
    ({"problem": {"class_path": "stranger.Sinusoids"}}, NAMED),
    ({"problem": {"class_path": "omnitraining.tasks.blueprint.Blueprint"}}, NAMED),
    ({"problem": {"class_path": "Sinusoids", "dict_kwargs": {"a": "stranger.Mine"}}}, ODD),
    ({"problem.class_path": "stranger.Sinusoids"}, "has no field"),
    ({"problem": {"class_path": "Glyphs", "init_args": {"protocol": ESCAPED}}}, "must hold fields"),
    ({"problem": {"class_path": "Glyphs", "init_args": {"protocol": "FILE"}}}, "must hold fields"),
    (in_head("stranger.Mine"), NAMED),
    (in_head("{class_path: stranger.M}"), NAMED),
    (in_head({"class_path": "Conv4"}), NAMED),
    (in_head(ESCAPED), NAMED),
    ({"metatraining": ["stranger.Mine"]}, ODD),
    ({"metatraining": ESCAPED}, NAMED),
    ({"training": {"device": "{class_path: stranger.Mine}"}}, "training.device is .*give auto"),
    ({"training": {"steps": "{class_path: stranger.Mine}"}}, "steps is .*must be an integer"),
    ({"seed": ESCAPED}, "seed is .*must be an integer"),
    *(
        ({group: text}, f"{group} is .*: it must hold fields of")
        for group in ("inference", "loss", "omninet", "training")
        for text in (ESCAPED, "FILE", ["stranger.Mine"], None)
    ),
    ({"omninet": {"branches": ESCAPED}}, "must be a mapping"),
    ({"omninet": {"shared_until": {"class_path": "stranger.Mine"}}}, "must be a text"),
    (
        {"backbone": {"class_path": "FeatureWise", "init_args": {"backbone": "stranger.Mine"}}},
        NAMED,
    ),
    *(
        (gymnasium(make), NAMED)
        for make in ("stranger.mine", "omnitraining.learner.hub.download", "os.system", ESCAPED)
    ),
    (gymnasium(["os.system"]), ODD),
]


@pytest.mark.parametrize(("attack", "words"), ATTACKS, ids=str)
def test_whatever_a_strangers_run_names_is_not_run(
    attack: Values, words: str, touched: Path, tmp_path: Path
) -> None:
    second = tmp_path / "f.json"
    second.write_text('{"class_path": "stranger.Mine"}')
    run = Run(tmp_path / "run", create=True)
    text = yaml.safe_dump({**SINUSOIDS, **attack}).replace("FILE", str(second))
    run.write_text("config.yaml", text)
    words = words.replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(InputError, match=f"config.yaml:? {words}|config.yaml: .*{words}") as caught:
        load_run(Run(run.path))
    assert "\n" not in str(caught.value)
    with contextlib.suppress(InputError):
        changed_fields(Run(run.path), config(SINUSOIDS))
    for source in (run.path, learner_of({**SINUSOIDS, **attack}, tmp_path / "learner")):
        with pytest.raises(InputError):
            omnitraining.load(source)
    assert not touched.exists() and "stranger" not in sys.modules


def learner_of(fields: Values, path: Path) -> Path:
    """A learner's file without weights."""
    text = {"version": 1, "name": "x", "config": fields, "inputs": None, "votes": {}, "fit": {}}
    save_file({"model.a": torch.zeros(2)}, path, {"learner": json.dumps(text)})
    return path


def test_a_foreign_name_is_not_compared_without_trust(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", create=True)
    run.write_text("config.yaml", yaml.safe_dump({**SINUSOIDS, "backbone": "stranger.Mine"}))
    with pytest.raises(InputError, match=r"names stranger\.Mine, .*add --trust"):
        changed_fields(Run(run.path), config(SINUSOIDS))


def test_every_parameter_of_every_class_is_of_a_type_that_is_checked() -> None:
    """Otherwise a new parameter would end in an error of the check itself."""
    for kind in {*own_classes().values(), RunConfig}:
        for name in inspect.signature(kind).parameters:
            with pytest.raises(InputError):
                Check("x", foreign=frozenset({"y"}))._plan(kind, {name: object()}, "p", "n")


def test_the_classes_of_the_library_need_no_trust() -> None:
    for classes in known_classes().values():
        for name, kind in classes.items():
            for path in (name, f"{kind.__module__}.{name}"):
                assert own_classes()[path] is kind
    assert not [name for name in own_classes() if "." in name and name[:13] != "omnitraining."]


def test_what_is_made_strictly_is_what_the_parser_makes(tmp_path: Path) -> None:
    late = {"loss": {"branch_at": 2, "meta_at": 1}, "training": {"decay_from": 0.5}}
    late = merge(SINUSOIDS, {"training": {"schedule": "linear"}}, late)
    for number, base in enumerate((SINUSOIDS, NAVIGATION, GLYPHS, late)):
        run = Run(tmp_path / str(number), create=True)
        run.write_text("config.yaml", dump(parse(base)))
        strict, free = load_run(Run(run.path)), load_run(Run(run.path, trust=True))
        for name in ("method", "pretraining", "metatraining", "omninet", "loss", "training"):
            assert getattr(strict, name) == getattr(free, name), name
            assert repr(getattr(strict, name)) == repr(getattr(free, name)), "2 is not 2.0"
        assert strict.inference == free.inference and strict.seed == free.seed
        assert str(strict.backbone()) == str(free.backbone())
        assert vars(strict.problem).keys() == vars(free.problem).keys()
        assert changed_fields(Run(run.path), parse(base)) == []
        longer = merge(base, {"training": {"steps": 9}, "seed": 3})
        assert changed_fields(Run(run.path), parse(longer)) == ["training.steps", "seed"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"training": {"threads": 10**6}}, r"training\.threads is 1000000: it must be 1,024 or"),
        ({"seed": 2**70}, "seed is 11805916"),
        ({"seed": True}, "seed is True: it must be an integer"),
        ({"loss": {"distill_weight": 1e300}}, r"loss\.distill_weight is 1e\+300: it must be less"),
        ({"loss": {"distill_weight": math.inf}}, "holds inf, which is not a finite number"),
        ({"method": "none"}, "method is 'none': it must be one of 'omni-training', "),
        ({"start_from": "a\0b"}, "must be a text without control codes"),
        ({"start_from": "\ud800"}, "must be a text without control codes|is not YAML"),
        ({"backbone": {"class_path": "ViT", "init_args": {"depth": 10**9}}}, "200 or less"),
        ({"backbone": {"class_path": "MLP", "init_args": {"hidden": [1] * 2000}}}, "1,000 or"),
        ({"problem": {"class_path": "Sinusoids", "init_args": {"waves": 10**9}}}, "1,000,000 or"),
        (
            {"problem": {"class_path": "Glyphs", "init_args": {"size": 1000, "instances": 9000}}},
            "instances x size x size is 9,000,000,000: it must be 8,388,608 or less",
        ),
        (
            {
                "problem": {
                    "class_path": "Reinforcement",
                    "init_args": {"environment": "Navigation", "trajectories": 10**6},
                }
            },
            "1,000 or less in a model that is not trusted",
        ),
        ({"metatraining": {"class_path": "MAML", "init_args": {"steps": 2**40}}}, "1,000 or less"),
        (in_head({"class_path": "LogisticHead", "init_args": {"iterations": 2**70}}), "10,000 or"),
        ({"problem": {"class_path": "Photos"}}, r"problem\.init_args\.data is missing"),
    ],
)
def test_numbers_of_strangers_have_bounds(change: Values, words: str, tmp_path: Path) -> None:
    run = Run(tmp_path / "run", create=True)
    run.write_text("config.yaml", yaml.safe_dump({**SINUSOIDS, **change}))
    with pytest.raises(InputError, match=words):
        load_run(Run(run.path))


def test_a_network_is_no_larger_than_its_weights(tmp_path: Path) -> None:
    """A million values in each of two layers, and a hundred thousand layers of pixels."""
    wide = {"class_path": "MLP", "init_args": {"hidden": [60_000, 60_000]}}
    run = train_run(parse(SINUSOIDS), tmp_path / "run")
    run.write_text("config.yaml", yaml.safe_dump({**SINUSOIDS, "backbone": wide}))
    with pytest.raises(InputError, match="needs more weights than are stored"):
        omnitraining.load(run.path)
    shape = {"shape": [1, 4096, 4096], "pre_outputs": 2, "meta_outputs": 2, "one_joint_head": False}
    fields = {
        "problem": {"class_path": "omnitraining.tasks.blueprint.Blueprint", "init_args": shape},
        "backbone": {"class_path": "Conv4", "init_args": {"channels": 1, "width": 64}},
    }
    with pytest.raises(InputError, match=r"more weights than are stored|too much memory or time"):
        omnitraining.load(learner_of(fields, tmp_path / "learner"))


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
    assert isinstance(omnitraining.load(tmp_path / "saved", trust=True).model, TrainedModel)
    assert touched.exists()


def test_a_run_that_another_starts_from_is_a_strangers(touched: Path, tmp_path: Path) -> None:
    own_run(tmp_path / "theirs")
    shutil.move(tmp_path / "theirs", tmp_path / "moved")
    sys.modules.pop("stranger")
    touched.unlink()
    for field in ("start_from", "teacher_run"):
        chosen = config(SINUSOIDS, method="meta-training", **{field: str(tmp_path / "moved")})
        with pytest.raises(InputError, match=r"moved/config\.yaml names stranger\.Mine"):
            train_run(chosen, tmp_path / "run")
    assert not touched.exists() and not (tmp_path / "run").exists()


def test_a_run_of_ones_own_classes_is_resumed_without_trust(touched: Path, tmp_path: Path) -> None:
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
def test_commands_report_it_in_one_line(
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
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and "names stranger." in printed and "add --trust" in printed
    assert not touched.exists()

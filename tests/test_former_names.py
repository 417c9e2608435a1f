"""Files, options and commands of version 0.1 have names that are spelled otherwise today."""

from pathlib import Path

import pytest
import yaml

import omnitraining
from omnitraining import cli
from omnitraining.config.former_names import NOW, options_with_new_names, with_new_names
from omnitraining.config.run_config import of_learner, parse, read_config, run_config_of
from omnitraining.config.strict import read_yaml_strictly
from omnitraining.config.values import read_yaml
from tests.reference.tiny import BLOBS, NAVIGATION

OLD = {
    **BLOBS,
    "start": "runs/first",
    "previous": "runs/second",
    "training": {"steps": 2, "optimiser": "sgd", "epoch": 2},
    "loss": {"weight": 0.5, "alpha": 0.9, "distill_on": "probabilities"},
    "inference": {"vote": ["pre"], "vote_weights": "validation"},
    "metatraining": {
        "class_path": "MetaOptNet",
        "init_args": {"solver": "ridge", "normalise": True},
    },
}


def test_configurations_are_read_with_todays_names(tmp_path: Path) -> None:
    path = tmp_path / "old.yaml"
    path.write_text(yaml.safe_dump(OLD))
    for values in (OLD, read_yaml(path), read_yaml_strictly(path)):
        config = parse(values)
        assert config.training.optimizer == "sgd" and config.training.val_every == 2
        assert config.loss.distill_weight == 0.5 and config.loss.ema_decay == 0.9
        assert config.loss.distill_target == "probabilities"
        assert config.inference.flows == ("pre",)
        assert config.inference.ensemble_weights == "validation"
        assert config.metatraining.init_args.normalize is True
        assert (config.start_from, config.teacher_run) == (Path("runs/first"), Path("runs/second"))


@pytest.mark.parametrize("name", ["RFS", "omnitraining.RFS", "omnitraining.pretraining.rfs.RFS"])
def test_options_of_a_class_are_read_with_todays_names(name: str) -> None:
    old = {"class_path": name, "init_args": {"share": 0.25}}
    assert parse({**BLOBS, "pretraining": old}).pretraining.init_args.kd_weight == 0.25
    other = {"class_path": "mine.RFS", "init_args": {"share": 0.25}}
    assert with_new_names(other) == other

    old = {"class_path": "Reinforcement", "init_args": {"environment": "Navigation", "trace": 0.9}}
    config = parse({**NAVIGATION, "problem": old})
    assert config.problem.init_args.gae_lambda == 0.9
    options = ["--problem.trace=1", "--problem.init_args.trace=1"]
    with pytest.warns(UserWarning, match="trace is called"):
        new = ["--problem.gae_lambda=1", "--problem.init_args.gae_lambda=1"]
        assert options_with_new_names(options) == new


def test_learners_are_read_with_todays_names() -> None:
    shape = {"shape": [3, 8, 8], "pre_outputs": 2, "meta_outputs": 2, "one_joint_head": False}
    kept = {
        "problem": {"class_path": "omnitraining.learner.trained.Blueprint", "init_args": shape},
        "backbone": {"class_path": "Conv4", "init_args": {"width": 2, "pooled_blocks": 1}},
        "metatraining": OLD["metatraining"],
    }
    for trust in (False, True):
        made = run_config_of(of_learner(kept), "old.learner", trust)
        assert made.metatraining == omnitraining.MetaOptNet("ridge", normalize=True)
        assert made.problem.pre_outputs == 2


def test_options_of_the_command_line_are_taken_with_a_warning() -> None:
    options = ["--training.optimiser=sgd", "--seed", "3", "--training.lr", "optimiser"]
    with pytest.warns(UserWarning, match=r"^--training.optimiser is called --training.optimizer"):
        found = options_with_new_names(options)
    assert found == ["--training.optimizer=sgd", *options[1:]]  # values stay as they are
    with pytest.warns(UserWarning, match="is called"):
        config = read_config(Path("glyphs.yaml"), ["--training.optimiser", "sgd"])
    assert config.training.optimizer == "sgd"


def test_no_name_of_today_is_a_former_one() -> None:
    assert not {name.rpartition(".")[2] for name in NOW} & {*NOW.values()}
    nested = [{"training": {"optimiser": 1}, "loss.weight": [0, 1], 8: {"weight": 2}}, (2,)]
    now = [
        {"training": {"optimizer": 1}, "loss.distill_weight": [0, 1], 8: {"weight": 2}},
        (2,),
    ]
    assert with_new_names(nested) == now


def test_commands_and_classes_have_their_former_names_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["analyse", "--help"])
    assert "omni analyze" in capsys.readouterr().out
    assert omnitraining.LabelledImages is omnitraining.LabeledImages

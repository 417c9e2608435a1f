"""Short names of classes mean this library's, whatever else is imported."""

from pathlib import Path

import pytest
from torch import nn

import omnitraining
from omnitraining.config.class_names import options_with_full_names
from omnitraining.config.fields import known_classes
from omnitraining.config.run_config import dump, instantiate, parse, read_config
from omnitraining.metatraining import ProtoNet as OurProtoNet


class MLP(nn.Module):
    """Another library's class of the same name, which the parser finds among imported ones."""


class ProtoNet(OurProtoNet):
    """A user's own."""


@pytest.mark.parametrize("options", [[], ["--backbone", "MLP"], ["--backbone=MLP"]])
def test_a_class_of_the_same_name_elsewhere_is_not_meant(options: list[str]) -> None:
    config = read_config(Path("sinusoids.yaml"), [*options, "--backbone.hidden", "[7]"])
    assert config.backbone.class_path == "omnitraining.MLP"
    assert type(instantiate(config).backbone()).__module__.startswith("omnitraining.")
    values = {"problem": "Glyphs", "backbone": "Conv4", "metatraining": "ProtoNet"}
    assert parse(values).metatraining.class_path == "omnitraining.ProtoNet"


def test_names_are_full_wherever_a_class_may_stand() -> None:
    values = {
        "problem": "Glyphs",
        "backbone": {"class_path": "FeatureWise", "init_args": {"backbone": "ResNet10"}},
        "pretraining": {"class_path": "RFS", "init_args": {"new_head": "SGDHead"}},
    }
    config = parse(values)
    assert "omnitraining.FeatureWise" in dump(config) and "SGDHead" in dump(config)
    options = [
        "--pretraining.new_head",
        "SGDHead",
        "--seed",
        "MLP",
        "--x",
        "--backbone",
        "mine.MLP",
    ]
    found = options_with_full_names(options)
    assert found[1] == "omnitraining.SGDHead" and found[2:] == options[2:]


def test_every_class_is_public_under_its_name() -> None:
    for classes in known_classes().values():
        assert all(getattr(omnitraining, name) is found for name, found in classes.items())

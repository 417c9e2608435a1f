"""Training that starts from a backbone of timm: three flows on its weights, and runs that last."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from omnitraining import InputError, OmniNet, load
from omnitraining.cli import main
from omnitraining.config.run_config import instantiate, read_config
from omnitraining.config.starts import RANK
from omnitraining.datasets import placeholders
from omnitraining.libraries import LibraryBackbone
from tests.reference.libraries import library

VIT = "timm/vit_tiny_patch16_224"
FAMILIES: dict[str, dict[str, int]] = {
    # with LayerScale, affine layers, standardized weights, padding by the input; made small
    "convnextv2_atto": {},
    "resmlp_12_224": {"img_size": 64},
    "resnetv2_18": {},
    "tf_efficientnet_lite0": {},
    "vit_small_patch14_dinov2": {"img_size": 56, "depth": 2},
    "xcit_nano_12_p16_224": {"img_size": 64, "depth": 2},
}
PROTOCOL = {"ways": 2, "shots": 1, "queries": 2, "batch": 4, "test_ways": 2, "test_shots": [1]}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small images, a configuration, and weights of a ViT."""
    timm, folder = library("timm"), tmp_path_factory.mktemp("data")
    placeholders.write(folder, ["birds"])
    values = {
        "problem": {
            "class_path": "Photos",
            "init_args": {
                "data": str(folder),
                "training": ["birds"],
                "validation": "birds",
                "benchmarks": ["birds"],
                "size": 32,
                "complete": False,
                "protocol": PROTOCOL,
            },
        },
        "backbone": {"class_path": "ResNet12"},
        "training": {"steps": 1, "val_every": 1},
    }
    (folder / "small.yaml").write_text(yaml.safe_dump(values))
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224")
    save_file(model.state_dict(), folder / "vit.safetensors")
    return folder


@pytest.mark.parametrize("name", FAMILIES)
def test_flows_of_models_of_timm(name: str) -> None:
    timm, own = library("timm"), FAMILIES[name]
    model = timm.create_model(name, num_classes=0, **own).eval()
    x = torch.randn(2, 3, *[own.get("img_size", 64)] * 2)
    net = OmniNet(model, rank=2, example=x[:1]).eval()
    expected = model(x)
    for flow in net(x):
        torch.testing.assert_close(flow, expected)
    net.pre(x).square().sum().backward()
    branches = {n: p for n, p in net.pre.named_parameters() if ".branch" in n or ".up" in n}
    assert branches and all(p.grad is not None for p in branches.values())
    assert all(p.grad is None for n, p in net.meta.named_parameters() if n in branches)


def test_a_start_is_the_backbone_with_low_rank_branches(workspace: Path) -> None:
    options = ["--start-from", VIT, "--start-weights", str(workspace / "vit.safetensors")]
    config = read_config(workspace / "small.yaml", options)
    assert config.backbone.init_args.source == VIT and config.backbone.init_args.size == 32
    assert config.omninet.rank == RANK
    assert (
        read_config(workspace / "small.yaml", [*options, "--omninet.rank", "3"]).omninet.rank == 3
    )
    with pytest.warns(UserWarning, match="trained with images of 224 pixels, and .* is 32"):
        model = instantiate(config).build().eval()
    start = LibraryBackbone.pretrained(VIT, workspace / "vit.safetensors", size=32).eval()
    x = torch.randn(2, 3, 32, 32)
    for flow in ("pre", "meta", "joint_pre"):
        torch.testing.assert_close(model.network(flow).backbone(x), start(x))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_run_lasts_without_the_weights_of_its_start(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", str(workspace / "small.yaml"), "--out", str(tmp_path / "run")]
    weights = tmp_path / "once.safetensors"
    weights.write_bytes((workspace / "vit.safetensors").read_bytes())
    assert main([*words, "--start-from", VIT, "--start-weights", str(weights)]) == 0
    weights.unlink()
    learner = load(tmp_path / "run").fit(workspace / "birds" / "test")  # nothing has to be trusted
    assert learner.model.model.trained_flows == ("pre", "joint", "meta")
    learner.save(tmp_path / "mine.learner")
    found = load(tmp_path / "mine.learner").predict_proba(workspace / "birds" / "test")
    assert torch.equal(
        *map(torch.tensor, (found, learner.predict_proba(workspace / "birds" / "test")))
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--backbone", "Conv4", "--start-from", VIT], "leave --backbone out"),
        (["--start_weights", "x.safetensors"], "start_weights are of a backbone"),
        (["--start-from", "timm/resnet1o"], "timm has no model 'resnet1o'"),
    ],
)
def test_a_start_that_does_not_fit_is_one_line(
    workspace: Path, tmp_path: Path, options: list[str], message: str, capsys: Any
) -> None:
    words = ["train", str(workspace / "small.yaml"), "--out", str(tmp_path / "run")]
    assert main([*words, *options]) == 2
    error = capsys.readouterr().err
    assert message in error.splitlines()[-1] and not (tmp_path / "run").exists()


def test_a_file_with_another_backbone_is_refused(workspace: Path) -> None:
    values = yaml.safe_load((workspace / "small.yaml").read_text())
    (workspace / "both.yaml").write_text(yaml.safe_dump({**values, "start_from": VIT}))
    with pytest.raises(InputError, match="which is the backbone: leave backbone out"):
        read_config(workspace / "both.yaml", [])
    del values["backbone"]
    (workspace / "one.yaml").write_text(yaml.safe_dump({**values, "start_from": VIT}))
    assert read_config(workspace / "one.yaml", []).backbone.init_args.source == VIT

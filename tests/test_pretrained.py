"""Training starts from the weights that a user's own factory returns."""

import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from omnitraining.backbones import Conv4
from omnitraining.cli import main
from omnitraining.config.run_config import instantiate
from omnitraining.learner.sources import find
from tests.reference.tiny import BLOBS, config

FACTORY = """
from safetensors.torch import load_file
from torch import nn
from omnitraining import Conv4

def with_weights() -> nn.Module:
    backbone = Conv4(channels=1, width=4)
    backbone.load_state_dict(load_file("{path}"))
    return backbone

def unsaid():
    return Conv4(channels=1, width=4)

class WithWeights(Conv4):
    def __init__(self, width: int = 4) -> None:
        super().__init__(1, width)
        self.load_state_dict(load_file("{path}"))
"""


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Conv4:
    """A backbone whose weights are on disk, and a module of factories that load them."""
    backbone, path = Conv4(1, 4).eval(), tmp_path / "checkpoint.safetensors"
    save_file(backbone.state_dict(), path)
    (tmp_path / "my_models.py").write_text(FACTORY.replace("{path}", str(path)))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_models", raising=False)
    return backbone


@pytest.mark.parametrize("method", ["omni-training", "pre-training", "ensemble"])
@pytest.mark.parametrize("name", ["my_models.with_weights", "my_models.WithWeights"])
def test_every_flow_starts_from_the_checkpoint(checkpoint: Conv4, name: str, method: str) -> None:
    model = instantiate(config({**BLOBS, "backbone": name}, method=method)).build().eval()
    x = torch.randn(3, 1, 16, 16)
    for network in model.networks.values():
        torch.testing.assert_close(network.backbone(model.trunk(x)), checkpoint(x))


def test_the_command_takes_a_factory_and_its_run_can_be_used(
    checkpoint: Conv4, tmp_path: Path
) -> None:
    path, run = tmp_path / "blobs.yaml", tmp_path / "run"
    path.write_text(yaml.safe_dump(BLOBS))
    words = ["train", str(path), "--backbone", "my_models.with_weights", "--out", str(run)]
    assert main(words) == 0
    trained = find(run, trust=True)
    before = checkpoint.state_dict()
    after = trained.plain_backbone("meta").state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_a_function_without_a_return_type_is_one_line(
    checkpoint: Conv4, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "glyphs.yaml", "--backbone", "my_models.unsaid", "--out", str(tmp_path / "r")]
    assert main(words) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "annotate what my_models.unsaid returns: def unsaid() -> torch.nn.Module" in message

"""Exported models are the backbone itself, and ONNX files compute what PyTorch computes."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from omnitraining.backbones import Conv4, ResNet18, ViT
from omnitraining.cli import main
from omnitraining.errors import InputError
from omnitraining.experiments.running import train_run
from omnitraining.learner import FewShotClassifier, export, load
from omnitraining.learner.sources import find
from omnitraining.omninet import OmniNet
from omnitraining.runs.run import Run
from tests.reference.tiny import BLOBS, SINUSOIDS, blobs, config

NARROW = {"class_path": "Conv4", "init_args": {"channels": 1, "width": 4}}
NOISY = {"class_path": "FeatureWise", "init_args": {"backbone": NARROW}}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    values = config(BLOBS, omninet={"shared_until": "4"})
    return train_run(values, tmp_path_factory.mktemp("runs") / "omni")


@pytest.fixture(scope="module")
def fitted(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that a fitted learner saved."""
    path, data = tmp_path_factory.mktemp("fitted") / "learner", blobs(3, 4, "x")
    labels = np.array(["ä", "b", "c"])[data.labels]
    FewShotClassifier(find(run.path, trust=True), accept_rate=0.95).fit(data.images, labels).save(
        path
    )
    return path


Command = Callable[..., str]


@pytest.fixture
def refuses(capsys: pytest.CaptureFixture[str]) -> Command:
    def call(*words: object) -> str:
        capsys.readouterr()
        assert main(["export", *map(str, words), "--trust"]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        return lines[0]

    return call


# --- plain weights ---


def torchvision_names(blocks: tuple[int, ...]) -> list[str]:
    """State-dict keys of torchvision's resnet of basic blocks, without its classifier fc.

    Its block has conv1, bn1, conv2, bn2, and downsample.0 and .1 where the shapes differ.
    """

    def norm(path: str) -> list[str]:
        parts = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        return [f"{path}.{part}" for part in parts]

    names = ["conv1.weight", *norm("bn1")]
    for stage, count in enumerate(blocks, 1):
        for block in range(count):
            at = f"layer{stage}.{block}"
            names += [f"{at}.conv1.weight", *norm(f"{at}.bn1")]
            names += [f"{at}.conv2.weight", *norm(f"{at}.bn2")]
            if stage > 1 and block == 0:
                names += [f"{at}.downsample.0.weight", *norm(f"{at}.downsample.1")]
    return names


def test_an_exported_resnet18_has_the_names_of_torchvisions() -> None:
    names = torchvision_names((2, 2, 2, 2))
    assert len(names) == 120  # torchvision's 122 less fc.weight and fc.bias
    assert list(OmniNet(ResNet18()).export("meta").state_dict()) == names


@pytest.mark.parametrize("kind", ["torch", "safetensors"])
@pytest.mark.parametrize("flow", ["pre", "joint", "meta"])
def test_weights_load_into_the_untouched_class(
    run: Run, tmp_path: Path, kind: str, flow: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "weights"
    words = [
        "export",
        str(run.path),
        "--trust",
        "--flow",
        flow,
        "--format",
        kind,
        "--out",
        str(out),
    ]
    assert main(words) == 0
    assert f"{flow}-flow as Conv4" in capsys.readouterr().out
    read = torch.load(out) if kind == "torch" else load_file(out)
    plain = Conv4(1, 4).eval()
    plain.load_state_dict(read)
    trained, x = find(run.path, trust=True), torch.randn(3, 1, 16, 16)
    network = {"joint": "joint_meta"}.get(flow, flow)
    wanted = trained.model.network(network).backbone(trained.model.trunk(x))
    torch.testing.assert_close(plain(x), wanted)


def test_safetensors_state_the_input_of_the_model(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "weights"
    trained = find(run.path, trust=True)
    export.save_safetensors(export.plain_flow(trained, "pre"), out, export.metadata_of(trained))
    with safe_open(out, framework="pt") as file:
        facts = file.metadata()
    assert facts["format"] == "pt" and facts["model"] == "omni"
    assert json.loads(facts["backbone"])["init_args"]["width"] == 4
    images = json.loads(facts["images"])
    assert (images["channels"], images["size"]) == (1, 16)
    assert images["mean"] == pytest.approx(trained.inputs.mean if trained.inputs else None)


@pytest.mark.parametrize("method", ["pre-training", "joint-training", "ensemble"])
def test_other_methods_have_flows_to_export(method: str, tmp_path: Path) -> None:
    made = train_run(config(BLOBS, method=method, backbone=NOISY), tmp_path / "run")
    trained = find(made.path, trust=True)
    for flow in trained.model.trained_flows:
        plain = export.plain_flow(trained, flow)
        assert type(plain) is Conv4 and not plain.training
        network = {"joint": "joint_meta"}.get(flow, flow)
        x = torch.randn(2, 1, 16, 16)
        torch.testing.assert_close(plain(x), trained.model.network(network).backbone(x))


def test_a_regression_has_flows_to_export(tmp_path: Path) -> None:
    made, out = train_run(config(SINUSOIDS), tmp_path / "waves"), tmp_path / "weights"
    words = ["--flow", "meta", "--format", "torch", "--out", str(out)]
    assert main(["export", str(made.path), *words]) == 0
    assert {name.partition(".")[0] for name in torch.load(out)} == {"0", "2"}


# --- mistakes ---


def test_wrong_words_are_one_line(run: Run, fitted: Path, tmp_path: Path, refuses: Command) -> None:
    out = ("--out", tmp_path / "x")
    assert "add --flow pre or joint or meta" in refuses(run.path, "--format", "torch", *out)
    assert "has pre, joint, meta" in refuses(run.path, "--format", "torch", "--flow", "no", *out)
    assert "choose from" in refuses(run.path, "--format", "gif", *out)
    assert "does not exist" in refuses(tmp_path / "none", "--format", "torch", *out)
    blocked = tmp_path / "file" / "x"
    (tmp_path / "file").write_text("")
    message = refuses(run.path, "--format", "torch", "--flow", "pre", "--out", blocked)
    assert "cannot write" in message
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("package", ["onnxruntime", "onnxscript"])
def test_without_a_package_the_error_names_the_command_that_installs_it(
    run: Run, tmp_path: Path, refuses: Command, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    words = ("--format", "onnx", "--flow", "pre", "--out", tmp_path / "x")
    message = refuses(run.path, *words)
    assert package in message and "pip install 'omnitraining[export]'" in message


def test_a_learner_that_has_learned_nothing_is_one_line(run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has not learned any classes"):
        export.save_predictor(FewShotClassifier(run.path), tmp_path / "x")


# --- ONNX: torch takes seconds to start its exporter ---


def session(path: Path) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.slow
def test_a_flow_as_onnx_takes_batches_of_any_size(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "flow.onnx"
    words = [
        "export",
        str(run.path),
        "--trust",
        "--flow",
        "meta",
        "--format",
        "onnx",
        "--out",
        str(out),
    ]
    assert main(words) == 0
    told = float(capsys.readouterr().out.split("differ by ")[1].split()[0])
    assert told <= 1e-4
    plain, network = export.plain_flow(find(run.path, trust=True), "meta"), session(out)
    for count in (1, 2, 7):
        x = torch.randn(count, 1, 16, 16)
        (found,) = network.run(None, {"images": x.numpy()})
        np.testing.assert_allclose(found, plain(x).detach(), atol=1e-4)
    facts = network.get_modelmeta().custom_metadata_map
    assert facts["flow"] == "meta" and "mean" in json.loads(facts["images"])


@pytest.mark.slow
def test_a_fitted_predictor_is_one_onnx_file(run: Run, fitted: Path, tmp_path: Path) -> None:
    out = tmp_path / "fitted.onnx"
    assert main(["export", str(fitted), "--trust", "--format", "onnx", "--out", str(out)]) == 0
    learner, network = load(fitted, trust=True), session(out)
    assert isinstance(learner, FewShotClassifier)
    x = blobs(3, 5, "q", seed=9).images
    images = learner.preprocess(x)
    probabilities, similarity = network.run(None, {"images": images.numpy()})
    np.testing.assert_allclose(probabilities, learner.predict_proba(x), atol=1e-4)
    np.testing.assert_allclose(similarity, learner.similarity(x), atol=1e-4)
    facts = network.get_modelmeta().custom_metadata_map
    assert json.loads(facts["labels"]) == ["b", "c", "ä"] == learner.classes_.tolist()
    assert float(facts["threshold"]) == pytest.approx(learner.threshold_)


@pytest.mark.slow
def test_a_transformer_as_onnx(tmp_path: Path) -> None:
    vit = ViT(16, 8, 8, 1, 2, 1)
    x = torch.randn(2, 1, 16, 16)
    largest = export._save_onnx(vit, x, ("features",), {}, tmp_path / "vit.onnx")
    assert largest < 1e-4


@pytest.mark.slow
def test_what_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_difference", lambda *_: 0.5)
    with pytest.raises(InputError, match=r"differs from PyTorch by 5.0e-01, more than 1e-04"):
        export._save_onnx(nn.Flatten(), torch.randn(2, 1, 4, 4), ("y",), {}, tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []

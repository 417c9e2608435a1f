"""Export for use without this library: a flow as plain weights, a flow or a fit as an ONNX file.

Weights are a state dict of the original backbone class: an Omni-Layer becomes one layer with the
sum of its weights. ONNX files take batches of any size; before they are written, their outputs in
onnxruntime are compared with PyTorch.
"""

import copy
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from omnitraining.backbones import FeatureWise
from omnitraining.config.run_config import run_config_of
from omnitraining.errors import InputError
from omnitraining.io.files import open_atomic
from omnitraining.learner import FewShotClassifier, Predictor, TrainedModel
from omnitraining.libraries import PooledBackbone

TOLERANCE = 1e-4
"""Largest difference between the outputs of an ONNX file and of PyTorch that is accepted."""

EXAMPLES, BATCHES = 2, (1, 5)  # images of the export, and of the comparison


def plain_flow(trained: TrainedModel, flow: str) -> nn.Module:
    """One flow as an instance of the backbone's own class, in evaluation mode, on the CPU.

    `FeatureWise` is removed: at test it does nothing.

    Args:
        trained: the model.
        flow: one of the flows that it has.

    Raises:
        InputError: the model has no such flow.
    """
    flows = trained.model.trained_flows
    if flow not in flows:
        raise InputError(f"flow is {flow!r}: {trained.name} has {', '.join(flows)}")
    if trained.frozen is not None:
        return copy.deepcopy(trained.pooled_backbone).cpu().eval()
    head = trained.model.heads_of(flow, *trained.inference.heads)[0]
    backbone, source = _backbone(trained), trained.model
    rest = trained.plain_backbone(head.name)
    if isinstance(source.trunk, nn.Identity):
        backbone.load_state_dict(rest.state_dict())
    else:  # a sequential backbone, whose first layers are the same for all flows
        parts = [*source.trunk.children(), *rest.children()]
        for layer, part in zip(backbone.children(), parts, strict=True):
            layer.load_state_dict(part.state_dict())
    bare = backbone.backbone if isinstance(backbone, FeatureWise) else backbone
    return bare.cpu().eval()


def _backbone(trained: TrainedModel) -> nn.Module:
    """A new backbone of a model."""
    return run_config_of(trained.config, trained.name, trained.trust).backbone()


def save_torch(module: nn.Module, path: Path) -> None:
    """Write a state dict as `torch.save` does; read it with ``torch.load(path)``."""
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with open_atomic(path) as file:
        torch.save(state, file)


def save_safetensors(module: nn.Module, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a state dict as safetensors; read it with ``safetensors.torch.load_file(path)``.

    Args:
        module: the module.
        path: the file.
        metadata: texts by key.
    """
    state = {name: tensor.contiguous().clone() for name, tensor in module.state_dict().items()}
    with open_atomic(path) as file:
        file.write(save_tensors(state, metadata={"format": "pt", **metadata}))


def metadata_of(trained: TrainedModel) -> dict[str, str]:
    """Metadata of a file of weights: version, model, backbone, and preprocessing of images."""
    metadata = {
        "omnitraining": version("omnitraining"),
        "model": trained.name,
        "backbone": json.dumps(trained.config["backbone"]),
    }
    if trained.inputs is not None:
        metadata["images"] = json.dumps(trained.inputs.as_json())
    return metadata


def save_flow(trained: TrainedModel, flow: str, path: Path) -> float:
    """Write one flow as ONNX: normalized "images" [B, C, H, W] to "features" [B, D].

    The metadata hold mean and std of the normalization ``(pixels - mean) / std``, pixel values
    from 0 to 1.

    Args:
        trained: the model.
        flow: one of the flows that it has.
        path: the file.

    Returns:
        The largest difference from PyTorch.

    Raises:
        InputError: the flow does not exist, its backbone cannot become ONNX, or the difference is
            too large; or a package is missing.
    """
    module = plain_flow(trained, flow)
    example = torch.randn(EXAMPLES, *trained.config["problem"]["init_args"]["shape"])
    metadata = {**metadata_of(trained), "flow": flow}
    return _save_onnx(module, example, ("features",), metadata, path)


def save_predictor(learner: FewShotClassifier, path: Path) -> float:
    """Write a fitted classifier as ONNX: "images" [B, C, H, W] with pixel values in [0, 1].

    Its outputs are "probabilities" [B, N], calibrated, and "similarity" [B] to the nearest class.
    The metadata hold the labels as a JSON list; and, if the learner has an ``accept_rate``, the
    "threshold" of similarity below which an image is rejected.

    Args:
        learner: fitted.
        path: the file.

    Returns:
        The largest difference from PyTorch.

    Raises:
        InputError: the learner is not fitted, an algorithm cannot become ONNX, or the difference
            is too large; or a package is missing.
    """
    if not hasattr(learner, "predictor_"):
        raise InputError("the learner has not learned any classes yet: fit it first")
    module = copy.deepcopy(_WithScores(learner.predictor_)).cpu()
    metadata = {
        "omnitraining": version("omnitraining"),
        "labels": json.dumps(learner.classes_.tolist()),
    }
    if hasattr(learner, "threshold_"):
        metadata["threshold"] = repr(float(learner.threshold_))
    example = torch.rand(EXAMPLES, *learner.predictor_.shape)
    return _save_onnx(module, example, ("probabilities", "similarity"), metadata, path)


class _WithScores(nn.Module):
    """A predictor whose forward pass returns probabilities and similarities."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.predictor = predictor

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.predictor.predict_with_scores(images)


def _save_onnx(
    module: nn.Module,
    example: Tensor,
    outputs: Sequence[str],
    metadata: Mapping[str, str],
    path: Path,
) -> float:
    """Write a module of "images" as ONNX if onnxruntime agrees; returns the largest difference."""
    onnxruntime = _needed("onnxruntime")
    _needed("onnxscript")
    module.eval().requires_grad_(False)
    for part in module.modules():
        if isinstance(part, PooledBackbone):
            part.precision = "float32"  # an export cannot trace autocast
    with _quiet():
        try:
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=["images"],
                output_names=[*outputs],
                verbose=False,
            )
        except Exception as error:  # the exporter has no common class of errors
            reason = _reason(error)
            raise InputError(f"{path} cannot be written as ONNX: {reason}") from error
    model = cast(Any, program).model_proto
    for key, text in metadata.items():
        model.metadata_props.add(key=key, value=text)
    data = model.SerializeToString()
    largest = _difference(onnxruntime, data, module, example)
    if not largest <= TOLERANCE:
        raise InputError(
            f"{path} is not written: as ONNX the model differs from PyTorch by {largest:.1e}, more "
            f"than {TOLERANCE:.0e}"
        )
    with open_atomic(path) as file:
        file.write(data)
    return largest


def _difference(onnxruntime: Any, data: bytes, module: nn.Module, example: Tensor) -> float:
    """The largest difference of any output, over batches of other sizes than the example."""
    try:
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        largest = 0.0
        for size in BATCHES:
            x = example[:1].expand(size, *example.shape[1:]) + 0.1 * torch.rand(
                size, *example.shape[1:]
            )
            expected = module(x)
            expected = (expected,) if isinstance(expected, Tensor) else expected
            outputs = session.run(None, {"images": x.numpy()})
            for one, other in zip(expected, outputs, strict=True):
                largest = max(largest, (one - torch.from_numpy(other)).abs().max().item())
    except Exception as error:  # onnxruntime has no public class of errors
        raise InputError(f"onnxruntime cannot run this model: {_reason(error)}") from error
    return largest


def _needed(package: str) -> Any:
    try:
        return import_module(package)
    except ImportError as error:
        raise InputError(
            f"ONNX needs {package}, which is not installed: pip install 'omnitraining[export]'"
        ) from error


def _reason(error: BaseException) -> str:
    """The first cause of an error, in a line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's messages on torchvision and on its own deprecations."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

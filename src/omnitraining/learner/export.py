"""Models for use without this library: a flow as plain weights, a flow or a fit as one ONNX file.

Weights are a state dict of the untouched backbone class: an Omni-Layer is one layer with the sum
of its weights. ONNX files take batches of any size, and what onnxruntime computes with them is
compared with PyTorch before they are written.
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
from omnitraining.learner import FewShotClassifier, Predictor, Trained

TOLERANCE = 1e-4
"""Largest difference between an ONNX file and PyTorch that is let pass."""

EXAMPLES, BATCHES = 2, (1, 5)  # images that a file is made with, and that it is compared on


def plain_flow(trained: Trained, flow: str) -> nn.Module:
    """One flow as an instance of the backbone's own class, in evaluation mode, on the CPU.

    `FeatureWise` is left out: at test it is what is inside it.

    Args:
        trained: the model.
        flow: one of the flows that it has.

    Raises:
        InputError: the model has no such flow.
    """
    flows = trained.model.trained_flows
    if flow not in flows:
        raise InputError(f"flow is {flow!r}: {trained.name} has {', '.join(flows)}")
    head = trained.model.heads_of(flow, trained.inference.joint_head)[0]
    made, source = _backbone(trained), trained.model
    rest = trained.plain_backbone(head.name)
    if isinstance(source.trunk, nn.Identity):
        made.load_state_dict(rest.state_dict())
    else:  # a sequential backbone, whose first layers are the same for all flows
        parts = [*source.trunk.children(), *rest.children()]
        for layer, part in zip(made.children(), parts, strict=True):
            layer.load_state_dict(part.state_dict())
    bare = made.backbone if isinstance(made, FeatureWise) else made
    return bare.cpu().eval()


def _backbone(trained: Trained) -> nn.Module:
    """A new backbone of a model."""
    return run_config_of(trained.config, trained.name, trained.trust).backbone()


def save_torch(module: nn.Module, path: Path) -> None:
    """Write a state dict as `torch.save` does; read it with ``torch.load(path)``."""
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with open_atomic(path) as file:
        torch.save(state, file)


def save_safetensors(module: nn.Module, path: Path, facts: Mapping[str, str]) -> None:
    """Write a state dict as safetensors; read it with ``safetensors.torch.load_file(path)``.

    Args:
        module: whose state dict.
        path: the file.
        facts: texts to go with it.
    """
    state = {name: tensor.contiguous().clone() for name, tensor in module.state_dict().items()}
    with open_atomic(path) as file:
        file.write(save_tensors(state, metadata={"format": "pt", **facts}))


def facts_of(trained: Trained) -> dict[str, str]:
    """What goes into a file beside the weights: where they come from and what the model takes."""
    facts = {
        "omnitraining": version("omnitraining"),
        "model": trained.name,
        "backbone": json.dumps(trained.config["backbone"]),
    }
    if trained.inputs is not None:
        facts["images"] = json.dumps(trained.inputs.as_json())
    return facts


def save_flow(trained: Trained, flow: str, path: Path) -> float:
    """Write one flow as ONNX: normalized "images" [B, C, H, W] to "features" [B, D].

    The metadata say how images are normalized: ``(levels - mean) / std``, levels from 0 to 1.

    Returns:
        The largest difference from PyTorch.

    Raises:
        InputError: the flow does not exist, its backbone cannot become ONNX, or the difference is
            too large; or a package is missing.
    """
    module = plain_flow(trained, flow)
    example = torch.randn(EXAMPLES, *trained.config["problem"]["init_args"]["shape"])
    facts = {**facts_of(trained), "flow": flow}
    return _save_onnx(module, example, "images", ("features",), facts, path)


def save_predictor(learner: FewShotClassifier, path: Path) -> float:
    """Write a fitted classifier as ONNX, from "levels" [B, C, H, W] in [0, 1].

    Its outputs are "probabilities" [B, N], calibrated, and "familiarity" [B]. The metadata hold
    the labels as a JSON list; and, where the learner rejects, the "threshold" of familiarity below
    which an image is of none of these classes.

    Returns:
        The largest difference from PyTorch.

    Raises:
        InputError: an algorithm cannot become ONNX, or the difference is too large; or a package
            is missing.
    """
    if not hasattr(learner, "predictor_"):
        raise InputError("the learner has not learned any classes yet: fit it first")
    module = copy.deepcopy(_Judge(learner.predictor_)).cpu()
    facts = {
        "omnitraining": version("omnitraining"),
        "labels": json.dumps(learner.classes_.tolist()),
    }
    if hasattr(learner, "threshold_"):
        facts["threshold"] = repr(float(learner.threshold_))
    example = torch.rand(EXAMPLES, *learner.predictor_.shape)
    return _save_onnx(module, example, "levels", ("probabilities", "familiarity"), facts, path)


class _Judge(nn.Module):
    """A predictor with both its answers, as a module that is called."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.predictor = predictor

    def forward(self, levels: Tensor) -> tuple[Tensor, Tensor]:
        return self.predictor.judge(levels)


def _save_onnx(
    module: nn.Module,
    example: Tensor,
    name: str,
    outputs: Sequence[str],
    facts: Mapping[str, str],
    path: Path,
) -> float:
    """Write a module as ONNX once onnxruntime agrees with it; returns the largest difference."""
    onnxruntime = _needed("onnxruntime")
    _needed("onnxscript")
    module.eval().requires_grad_(False)
    with _quiet():
        try:
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=[name],
                output_names=[*outputs],
                verbose=False,
            )
        except Exception as error:  # of many kinds, none of them in common but this one
            reason = _reason(error)
            raise InputError(f"{path} cannot be written as ONNX: {reason}") from error
    model = cast(Any, program).model_proto
    for key, text in facts.items():
        model.metadata_props.add(key=key, value=text)
    written = model.SerializeToString()
    largest = _difference(onnxruntime, written, module, example, name)
    if not largest <= TOLERANCE:
        raise InputError(
            f"{path} is not written: as ONNX the model differs from PyTorch by {largest:.1e}, more "
            f"than {TOLERANCE:.0e}"
        )
    with open_atomic(path) as file:
        file.write(written)
    return largest


def _difference(
    onnxruntime: Any, written: bytes, module: nn.Module, example: Tensor, name: str
) -> float:
    """The largest difference of any output, over batches of other sizes than the example."""
    try:
        session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
        largest = 0.0
        for size in BATCHES:
            x = example[:1].expand(size, *example.shape[1:]) + 0.1 * torch.rand(
                size, *example.shape[1:]
            )
            wanted = module(x)
            wanted = (wanted,) if isinstance(wanted, Tensor) else wanted
            found = session.run(None, {name: x.numpy()})
            for one, other in zip(wanted, found, strict=True):
                largest = max(largest, (one - torch.from_numpy(other)).abs().max().item())
    except Exception as error:  # onnxruntime has no public class of its own for them
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
    """The exporter speaks of torchvision and of its own deprecations, which help nobody here."""
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

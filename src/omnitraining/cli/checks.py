"""The checks of ``omni doctor``."""

import importlib.util
import os
import time

import torch
from rich.table import Table
from torch import nn

from omnitraining.experiments.display import show
from omnitraining.omninet import OmniNet
from omnitraining.runs.run import provenance

EXTRAS = {
    "tensorboard": "pip install 'omnitraining[tensorboard]' for metrics in TensorBoard",
    "onnxruntime": "pip install 'omnitraining[export]' for ONNX",
    "huggingface_hub": "pip install 'omnitraining[hub]' for models on the hub",
}


def examine() -> int:
    """Print versions, device and optional packages, and check that folding a layer is exact.

    Returns:
        The exit code: 1 if the outputs of a folded Omni-Layer are wrong on this machine.
    """
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in provenance().items():
        table.add_row(name, str(value))
    table.add_row("cache", os.environ.get("OMNITRAINING_CACHE", "~/.cache/omnitraining"))
    for module, hint in EXTRAS.items():
        is_installed = importlib.util.find_spec(module) is not None
        table.add_row(module, "installed" if is_installed else f"not installed: {hint}")
    start = time.perf_counter()
    torch.manual_seed(0)
    net = OmniNet(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1)), branch_init="random").double()
    x = torch.randn(8, 8, 32, 32, dtype=torch.float64)
    branch = next(net.meta.get_submodule("0.parametrizations.weight.0").parameters())
    two_layers = net.joint(x) + nn.functional.conv2d(x, branch)
    error = (net.export("meta")(x) - two_layers).abs().max().item()
    is_exact = error < 1e-12
    table.add_row(
        "a folded layer equals two layers",
        f"{'yes' if is_exact else 'NO'}, to {error:.0e} ({time.perf_counter() - start:.1f} s)",
    )
    show(table)
    return 0 if is_exact else 1

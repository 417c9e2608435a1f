"""Omni-Layers as the paper draws them: a joint layer and a branch layer apart, summed (eq. 3)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

CONVOLUTION = {nn.Conv1d: F.conv1d, nn.Conv2d: F.conv2d, nn.Conv3d: F.conv3d}


def branch(flow: nn.Module, name: str) -> nn.Module | None:
    """What a flow adds to a shared parameter."""
    return flow.parametrizations[name][0] if parametrize.is_parametrized(flow, name) else None


def branch_tensor(flow: nn.Module, name: str) -> Tensor | None:
    found = branch(flow, name)
    return None if found is None else found.branch


def branch_layer(joint: nn.Module, flow: nn.Module, x: Tensor) -> Tensor:
    """The output of the branch alone, as a layer of its own."""
    weight, bias = branch(flow, "weight"), branch_tensor(flow, "bias")
    if isinstance(joint, nn.Linear):
        if hasattr(weight, "down"):
            return F.linear(F.linear(x, weight.down), weight.up, bias)
        return F.linear(x, weight.branch, bias)
    convolve = CONVOLUTION[type(joint)]
    if hasattr(weight, "down"):
        inner = weight.down.reshape(-1, *joint.weight.shape[1:])
        outer = weight.up.reshape(*weight.up.shape, *[1] * (joint.weight.dim() - 2))
        return convolve(convolve(x, inner, stride=joint.stride), outer, bias)
    if weight.branch.shape == joint.weight.shape and max(joint.kernel_size) > 1:  # the same size
        options = (joint.stride, joint.padding, joint.dilation, joint.groups)
        return convolve(x, weight.branch, bias, *options)
    assert set(weight.branch.shape[2:]) == {1} and bias is None  # eq. 3: 1x1, without bias
    return convolve(x, weight.branch, None, joint.stride, groups=joint.groups)


def two_branches(joint: nn.Module, flow: nn.Module, x: Tensor) -> Tensor:
    """The output of a flow, layer by layer; what has no branch is the flow's own."""
    if isinstance(flow, nn.Sequential):
        for joint_layer, flow_layer in zip(joint, flow, strict=True):
            x = two_branches(joint_layer, flow_layer, x)
        return x
    if isinstance(flow, nn.TransformerEncoderLayer):
        x = flow.norm1(x + attention(joint.self_attn, flow.self_attn, x))
        hidden = F.relu(two_branches(joint.linear1, flow.linear1, x))
        return flow.norm2(x + two_branches(joint.linear2, flow.linear2, hidden))
    if not parametrize.is_parametrized(flow):
        return flow(x)
    return joint(x) + branch_layer(joint, flow, x)


def attention(joint: nn.MultiheadAttention, flow: nn.MultiheadAttention, x: Tensor) -> Tensor:
    """Self-attention, sample by sample and head by head, with two-branch projections."""
    added = branch(flow, "in_proj_weight")
    weight = added.up @ added.down if hasattr(added, "down") else added.branch
    projected = F.linear(x, joint.in_proj_weight, joint.in_proj_bias)
    projected = projected + F.linear(x, weight, branch_tensor(flow, "in_proj_bias"))
    samples = []
    for q, k, v in zip(*projected.chunk(3, -1), strict=True):
        heads = []
        for h in range(joint.num_heads):
            part = slice(h * joint.head_dim, (h + 1) * joint.head_dim)
            scores = q[:, part] @ k[:, part].T / joint.head_dim**0.5
            heads.append(torch.softmax(scores, -1) @ v[:, part])
        samples.append(torch.cat(heads, -1))
    return two_branches(joint.out_proj, flow.out_proj, torch.stack(samples))

"""Checks that copies of a backbone compute with their own weights, as flows of an Omni-Net must.

A deep copy does not copy functions. If a module keeps a function that refers to its weights, a copy
of the module computes with the weights of the original, and does not train.
"""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import CodeType, FunctionType, MethodType

import numpy as np
import torch
from torch import Tensor, nn

from omnitraining.errors import InputError

MOVE = 0.1
"""Change of the weights in the check, relative to their size."""
TOLERANCE = 1e-3
"""Difference of outputs that counts as rounding, relative to their size."""
REMEDY = (
    "a copy would compute with the original's weights, and not train: let it compute with what "
    "self has registered, lists in an nn.ModuleList or nn.ParameterList"
)


def own_tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers that a module itself holds, by every name they have."""
    return [
        *module.named_parameters(recurse=False, remove_duplicate=False),
        *module.named_buffers(recurse=False, remove_duplicate=False),
    ]


# --- attributes and hooks of modules ---


def check_held(backbone: nn.Module, branched: set[str]) -> None:
    """Refuse a backbone with functions that refer to it, or with weights that are not registered.

    Args:
        backbone: any module.
        branched: paths of modules whose weights will be branched.

    Raises:
        InputError: it has one; the message names the module.
    """
    modules = dict(backbone.named_modules())
    registered = {id(module) for module in modules.values()}
    paths: dict[int, set[str]] = {}
    for path, module in modules.items():
        for _, tensor in own_tensors(module):
            paths.setdefault(id(tensor), set()).add(path)
    for path, module in modules.items():
        for name, held in _kept(module):
            where = f"{_module(path, module)} keeps in {name!r}"
            if isinstance(held, FunctionType):
                if any(id(part) in registered or id(part) in paths for part in _within(held)):
                    raise InputError(f"{where} a function that holds the backbone: {REMEDY}")
            elif isinstance(held, nn.Module) and id(held) not in registered:
                if any(weight.requires_grad for weight in held.parameters()):
                    raise InputError(f"{where} a module that is not registered: {REMEDY}")
            elif isinstance(held, nn.Parameter) and not isinstance(module, nn.RNNBase):
                if held.requires_grad and id(held) not in paths:
                    raise InputError(f"{where} a weight that is not registered: {REMEDY}")
                if paths.get(id(held), set()) & branched:
                    raise InputError(f"{where} a weight that will be branched: {REMEDY}")


def _module(path: str, module: nn.Module) -> str:
    kind = type(module).__name__
    return f"layer {path!r} of type {kind}" if path else f"backbone {kind}"


def _kept(module: nn.Module) -> Iterator[tuple[str, object]]:
    """Functions, modules and weights in attributes and hooks of a module, with their names.

    Registered parameters, buffers and modules are left out.
    """
    for name, value in vars(module).items():
        if name not in ("_parameters", "_buffers", "_modules"):
            yield from ((name, part) for part in _parts(value))


def _parts(value: object) -> Iterator[object]:
    """Functions, modules and weights in containers, partials and bound methods, at any depth."""
    waiting, seen = [value], set[int]()
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, Mapping):
            waiting += part.values()
        elif isinstance(part, list | tuple | set | frozenset):
            waiting += part
        elif isinstance(part, partial):
            waiting += [part.func, part.args, part.keywords]
        elif isinstance(part, MethodType):
            waiting += [part.__self__]
        elif isinstance(part, FunctionType | nn.Module | Tensor):
            yield part


def _within(function: FunctionType) -> Iterator[object]:
    """Objects that a function refers to: by closure, by defaults, by the globals that it uses."""
    waiting, seen = [function], set[int]()
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        held = [_content(cell) for cell in each.__closure__ or ()]
        held += [each.__defaults__, each.__kwdefaults__, vars(each)]
        held += [each.__globals__.get(name) for name in _names(each.__code__)]
        for part in _parts(held):
            yield part
            if isinstance(part, FunctionType):
                waiting.append(part)


def _content(cell: object) -> object:
    try:
        return getattr(cell, "cell_contents", None)
    except ValueError:  # it is empty
        return None


def _names(code: CodeType) -> set[str]:
    inner = [part for part in code.co_consts if isinstance(part, CodeType)]
    return set(code.co_names).union(*map(_names, inner))


# --- outputs of copies ---


def check_copies(backbone: nn.Module, copies: Mapping[str, nn.Module], example: Tensor) -> None:
    """Refuse a backbone whose copies compute with other weights than their own.

    Every weight of the copies is changed a little, and the outputs of each copy are compared with
    the outputs of the backbone with that copy's effective weights. All runs in evaluation mode;
    weights, modes and random states are restored.

    Args:
        backbone: the original, which shares no weight with the copies.
        copies: by name; they may share weights with each other, and may be parametrized.
        example: inputs [B, ...].

    Raises:
        InputError: the message names the layer.
    """
    if torch.is_inference_mode_enabled():
        return  # nothing will be trained, and there are no gradients to compare
    modules = [backbone, *copies.values()]
    with _same_afterwards(modules, example.device) as saved:
        if example.is_floating_point():  # zeros would hide the effect of weights
            example = example + torch.rand_like(example)
        _move(backbone, copies)
        if _fit(backbone, copies, example):
            return
        _restore(saved)
        with torch.no_grad():
            first, second = _output(backbone, example), _output(backbone, example)
        if not _agree(first, second):
            return  # its outputs are random, so that they cannot be compared
        raise InputError(f"{_failing_layer(backbone, copies, example, saved)}: {REMEDY}")


Saved = list[tuple[Tensor, Tensor]]
"""Tensors, each with a copy of its former values."""


@contextmanager
def _same_afterwards(modules: list[nn.Module], device: torch.device) -> Iterator[Saved]:
    """Evaluation mode inside; weights, modes and random states are restored at the end."""
    modes = {part: part.training for module in modules for part in module.modules()}
    tensors = {id(t): t for m in modules for t in (*m.parameters(), *m.buffers())}
    saved = [(tensor, tensor.detach().clone()) for tensor in tensors.values()]
    others = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            for module in modules:
                module.eval()
            yield saved
    finally:
        random.setstate(others[0])
        np.random.set_state(others[1])
        _restore(saved)
        for part, training in modes.items():
            part.training = training


@torch.no_grad()
def _restore(saved: Saved) -> None:
    for tensor, before in saved:
        tensor.copy_(before)


@torch.no_grad()
def _move(backbone: nn.Module, copies: Mapping[str, nn.Module], only: str | None = None) -> None:
    """Change all weights of the copies, or the weights of one layer, given by its path."""
    paths = [path for path, _ in backbone.named_modules() if only is None or path == only]
    weights: dict[int, Tensor] = {}
    for copied in copies.values():
        for layer in map(copied.get_submodule, paths):
            branched = getattr(layer, "parametrizations", None)
            inner = branched.parameters() if isinstance(branched, nn.Module) else ()
            own = [tensor for _, tensor in own_tensors(layer)]
            weights |= {id(tensor): tensor for tensor in (*own, *inner)}
    for tensor in weights.values():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        if not isinstance(tensor, nn.Parameter):  # as a variance, which must stay positive
            tensor.mul_(1 + MOVE * torch.rand_like(tensor))
            continue
        rows = tensor if tensor.dim() > 1 else tensor.view(-1, 1)
        size = torch.linalg.vector_norm(tensor).item() / tensor.numel() ** 0.5
        size = max(size, rows[0].numel() ** -0.5)
        # Of rank 1: drawing every entry of large weights would take longer than all the rest.
        down, along = _drawn(rows.flatten(1)[:, :1]), _drawn(rows[:1])
        rows.addcmul_(down.view(-1, *[1] * (rows.dim() - 1)), along, value=MOVE * size)


def _drawn(like: Tensor) -> Tensor:
    """Random numbers of either sign that are not near 0."""
    return (0.5 + torch.rand_like(like)) * torch.randn_like(like).sign()


def _fit(backbone: nn.Module, copies: Mapping[str, nn.Module], example: Tensor) -> bool:
    """Whether each copy has the outputs of the backbone with that copy's effective weights.

    The backbone is left with the weights of the last copy.

    Raises:
        InputError: an output depends on weights that are not the copy's own, or has no gradient.
    """
    of_copies, reached, shared = [], set[int](), set[int]()
    with torch.enable_grad():
        for copied in copies.values():
            outputs = _output(copied, example)
            leaves = _own_leaves(backbone, copied, outputs)
            shared |= reached & leaves
            reached |= leaves
            of_copies.append([output.detach() for output in outputs])
    if len(copies) > 1 and reached == shared:
        raise InputError(
            f"backbone {type(backbone).__name__} does not use any layer that differs between "
            "flows, so that they would stay equal: an Omni-Net needs a convolution or linear layer"
        )
    with torch.no_grad():
        for copied, outputs in zip(copies.values(), of_copies, strict=True):
            for path, layer in backbone.named_modules():
                own = copied.get_submodule(path)
                for name, tensor in own_tensors(layer):
                    tensor.copy_(getattr(own, name))
            if not _agree(outputs, _output(backbone, example)):
                return False
    return True


def _output(module: nn.Module, example: Tensor) -> list[Tensor]:
    """The tensors that a module returns, with the same seeds at every call."""
    torch.default_generator.manual_seed(0)
    if example.is_cuda:
        torch.cuda.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    return [part for part in _parts(module(example)) if isinstance(part, Tensor)]


def _agree(outputs: list[Tensor], expected: list[Tensor]) -> bool:
    def near(one: Tensor, other: Tensor) -> bool:
        if one.shape != other.shape:
            return False
        one, other = one.detach().double(), other.detach().double()
        size = other[other.isfinite()].abs().max().item() if other.isfinite().any() else 0.0
        return torch.allclose(one, other, rtol=0, atol=TOLERANCE * size, equal_nan=True)

    return len(outputs) == len(expected) and all(map(near, outputs, expected))


def _own_leaves(backbone: nn.Module, copied: nn.Module, outputs: list[Tensor]) -> set[int]:
    """Trainable weights of a copy on which its outputs depend, by identity.

    Raises:
        InputError: they depend on others as well, or on none.
    """
    own = {id(weight) for weight in copied.parameters()}
    reached = {id(leaf): leaf for leaf in _leaves(outputs)}
    originals = {id(t): path for path, m in backbone.named_modules() for _, t in own_tensors(m)}
    for number, leaf in reached.items():
        if number in originals:
            path = originals[number]
            layer = _module(path, backbone.get_submodule(path))
            raise InputError(f"{layer} is not reached through self: {REMEDY}")
        if number not in own:
            raise InputError(
                f"backbone {type(backbone).__name__} computes with a weight {list(leaf.shape)} "
                f"that is not registered: {REMEDY}"
            )
    if not reached and any(weight.requires_grad for weight in copied.parameters()):
        raise InputError(
            f"backbone {type(backbone).__name__} passes no gradient to its weights: it must not "
            "compute under no_grad nor detach its output; set requires_grad of a weight that "
            "must not change to False instead"
        )
    return {*reached}


def _leaves(outputs: list[Tensor]) -> Iterator[Tensor]:
    """Trainable tensors on which some outputs depend."""
    waiting, seen = [output.grad_fn for output in outputs], set[object]()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(leaf := getattr(node, "variable", None), Tensor):
            yield leaf
        waiting += [following for following, _ in node.next_functions]


def _failing_layer(
    backbone: nn.Module, copies: Mapping[str, nn.Module], example: Tensor, saved: Saved
) -> str:
    """The first layer whose changed weights do not change the outputs as they should."""
    for path, layer in backbone.named_modules():
        if own_tensors(layer):
            _move(backbone, copies, path)
            fit = _fit(backbone, copies, example)
            _restore(saved)
            if not fit:
                return f"{_module(path, layer)} is not reached through self"
    return f"backbone {type(backbone).__name__} is not the same in a copy"

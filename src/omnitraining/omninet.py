"""Omni-Net: any backbone becomes three flows that share their joint weights (paper 4.1, eq. 3-6).

A layer of the pre-flow computes ``f_joint(x) + f_pre(x)``. Convolution and linear layers are linear
in their weights, so that sum is one layer with the weight ``W_joint + embed(W_pre)``, where a 1x1
branch kernel is embedded at the center tap of the joint kernel. A flow therefore costs what the
plain backbone costs and exports as the plain backbone.

``joint`` is a copy of the backbone; ``pre`` and ``meta`` are deep copies that share its joint
parameters, and in which ``weight`` of every Omni-Layer is a `torch.nn.utils.parametrize`
parametrization over the shared parameter. A flow is thus an ordinary module of the backbone's own
class, with all its methods and sub-modules; `copy.deepcopy` (the EMA teacher),
`torch.func.functional_call` (MAML) and vmap work on it as on any module; and no layer is rebuilt,
so strides, groups, padding modes and sub-classes are kept. Calling one backbone with the flow's
effective parameters would be as exact, but flows would no longer be modules of that class.

Random branches are initialized as convolutions are in [13] W.-Y. Chen et al., "A Closer Look at
Few-shot Classification", ICLR 2019, https://arxiv.org/abs/1904.04232
"""

import copy
from collections.abc import Mapping
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from omnitraining.conversion import check_copies, check_held, own_tensors
from omnitraining.errors import InputError, described
from omnitraining.libraries.names import LIBRARIES

Flow = Literal["pre", "joint", "meta"]
FLOWS = get_args(Flow)
Treatment = Literal["pointwise", "full", "low-rank", "shared", "private"]
TREATMENTS = get_args(Treatment)
BranchInit = Literal["zeros", "random"]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
PRIVATE = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.PReLU)


class PointwiseBranch(nn.Module):
    """Adds a 1x1 kernel at the center tap of an odd kernel: f_joint + a 1x1 convolution.

    Args:
        joint: weight of a convolution [O, I, ...].
        init: as in `OmniNet`.
    """

    def __init__(self, joint: Tensor, init: BranchInit) -> None:
        """Make the branch [O, I, 1, ...]."""
        super().__init__()
        kernel = joint.shape[2:]
        self.branch = nn.Parameter(joint.new_zeros(joint.shape[:2] + (1,) * len(kernel)))
        self.padding = [side for k in reversed(kernel) for side in (k // 2, k // 2)]
        if init == "random":  # the fan-out rule of the paper's backbones (algorithm as in [13])
            nn.init.normal_(self.branch, std=(2 / joint.shape[0]) ** 0.5)

    def forward(self, joint: Tensor) -> Tensor:
        """Effective weight of the flow, of the shape of the joint weight."""
        return joint + nn.functional.pad(self.branch, self.padding)


class FullBranch(nn.Module):
    """Adds a branch of the joint tensor's own shape: f_joint + a layer of the same size.

    Args:
        joint: weight or bias of a layer.
        init: as in `OmniNet`.
    """

    def __init__(self, joint: Tensor, init: BranchInit) -> None:
        """Make the branch, of the shape of ``joint``."""
        super().__init__()
        self.branch = nn.Parameter(torch.zeros_like(joint))
        if init == "random" and joint.dim() > 1:  # torch's own rule for Linear and convolutions
            nn.init.kaiming_uniform_(self.branch, a=5**0.5)

    def forward(self, joint: Tensor) -> Tensor:
        """Effective weight of the flow, of the shape of the joint weight."""
        return joint + self.branch


class LowRankBranch(nn.Module):
    """Adds ``up @ down`` of rank r, for layers whose full branch would be large.

    Args:
        joint: weight of a layer [O, ...].
        init: as in `OmniNet`.
        rank: r.
    """

    def __init__(self, joint: Tensor, init: BranchInit, rank: int) -> None:
        """Make ``up`` [O, r] and ``down`` [r, I], where the joint weight has O * I entries."""
        super().__init__()
        outputs, inputs = joint.shape[0], joint[0].numel()
        self.up = nn.Parameter(joint.new_zeros(outputs, rank))
        self.down = nn.Parameter(joint.new_empty(rank, inputs))
        nn.init.kaiming_uniform_(self.down, a=5**0.5)
        if init == "random":
            nn.init.normal_(self.up, std=rank**-0.5)

    def forward(self, joint: Tensor) -> Tensor:
        """Effective weight of the flow, of the shape of the joint weight."""
        return joint + (self.up @ self.down).view_as(joint)


class OmniNet(nn.Module):
    """Three flows of one backbone: ``net.pre(x)``, ``net.joint(x)``, ``net.meta(x)`` (eq. 4-6).

    Each flow is a module of the backbone's class and is called as the backbone is. Convolutions
    get 1x1 branches without bias; linear layers and packed attention weights get a branch of the
    same size, with bias, or a low-rank one. Norms and parametric activations are private to each
    flow. Every other parameter (positions, class tokens, embeddings) is shared. A frozen parameter
    (``requires_grad`` is False) stays frozen in every flow, and so do its branches.

    Args:
        backbone: any module; it is copied and not changed.
        rank: give linear layers branches of this rank instead of full ones.
        branch_init: ``"zeros"`` starts all flows equal; ``"random"`` initializes the branch as
            the layer itself. The paper does not state it; zeros measured better.
        shared_until: path of the first module that becomes an Omni-Layer, in the order of
            ``backbone.named_modules()``; all flows share the modules before it (Figure 12).
        branches: treatment by module path or class, in place of the default:
            ``"pointwise"``, ``"full"``, ``"low-rank"``, ``"shared"`` or ``"private"``. It covers
            the named module and all inside it, except sub-modules without the parameters it needs.
        others: treatment of layers that have no default, ``"shared"`` or ``"private"``.
        example: inputs [B, ...] to check that every flow computes with its own weights;
            `build_model` gives inputs of its problem.

    Attributes:
        pre: the pre-flow.
        joint: the joint-flow.
        meta: the meta-flow.

    Raises:
        InputError: no layer can be converted, a layer has no exact treatment, or copies of the
            backbone would compute with its own weights; the message names the layer and a
            solution.

    Example:
        >>> import torch
        >>> from omnitraining import Conv4, OmniNet
        >>> net = OmniNet(Conv4(width=8))
        >>> images = torch.rand(2, 3, 32, 32)
        >>> pre, joint, meta = net(images)
        >>> pre.shape
        torch.Size([2, 32])
        >>> plain = net.export("meta")
        >>> type(plain).__name__, torch.allclose(plain(images), net.meta(images), atol=1e-5)
        ('Conv4', True)
    """

    def __init__(
        self,
        backbone: nn.Module,
        rank: int | None = None,
        branch_init: BranchInit = "zeros",
        shared_until: str | None = None,
        branches: Mapping[str | type, Treatment] | None = None,
        example: Tensor | None = None,
        others: Literal["shared", "private"] | None = None,
    ) -> None:
        """Copy the backbone three times and branch two of the copies."""
        super().__init__()
        if branch_init not in get_args(BranchInit):
            choices = " or ".join(map(repr, get_args(BranchInit)))
            raise InputError(f"branch_init is {branch_init!r}: it must be {choices}")
        if others not in ("shared", "private", None):
            raise InputError(f"others is {others!r}: it must be 'shared' or 'private'")
        treatments = _treatments(backbone, rank, shared_until, dict(branches or {}), others)
        self.shared_until = shared_until
        self.joint = copied(backbone)
        self.pre = _branch_off(self.joint, treatments, rank, branch_init)
        self.meta = _branch_off(self.joint, treatments, rank, branch_init)
        if example is not None:
            check_copies(backbone, {flow: getattr(self, flow) for flow in FLOWS}, example)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs of the pre-, joint- and meta-flow for the same inputs [B, ...], [B, D] each."""
        return self.pre(x), self.joint(x), self.meta(x)

    def split(self) -> tuple[nn.Module, dict[str, nn.Module]]:
        """The layers before the first Omni-Layer, and the rest of each flow by name.

        All flows share the first part, so that it needs one forward pass. It can be separated only
        in a sequential backbone of which ``shared_until`` is a direct child; in any other backbone
        it is the identity, and the rest is the whole flow.
        """
        rest = {flow: getattr(self, flow) for flow in FLOWS}
        names = [name for name, _ in self.joint.named_children()]
        if not isinstance(self.joint, nn.Sequential) or self.shared_until not in names:
            return nn.Identity(), rest
        first = names.index(self.shared_until)
        trunk = nn.Sequential(*list(self.joint)[:first])
        return trunk, {name: nn.Sequential(*list(flow)[first:]) for name, flow in rest.items()}

    @torch.no_grad()
    def export(self, flow: Flow) -> nn.Module:
        """One flow as the plain backbone: same class, same state-dict keys, effective weights.

        Args:
            flow: "pre", "joint" or "meta".

        Raises:
            InputError: there is no such flow.
        """
        if flow not in FLOWS:
            raise InputError(f"flow {flow!r} is not one of {', '.join(FLOWS)}")
        plain, source = copy.deepcopy(self.joint), getattr(self, flow)
        for path, module in plain.named_modules():
            origin = source.get_submodule(path)
            for name, tensor in own_tensors(module):
                tensor.copy_(getattr(origin, name))
        return plain.train(source.training)


@torch.no_grad()
def plain(module: nn.Module) -> nn.Module:
    """A copy of a module in which every Omni-Layer is a plain layer with effective weights."""
    copied = copy.deepcopy(module)
    for layer in [m for m in copied.modules() if parametrize.is_parametrized(m)]:
        branched = cast(nn.ModuleDict, layer.parametrizations)
        weights = {name: getattr(layer, name).clone() for name in branched}
        del layer.parametrizations
        # torch derives a class for each parametrized layer; copies share it, so that its own
        # remove_parametrizations would change the original too.
        layer.__class__ = type(layer).__bases__[0]
        for name, weight in weights.items():
            layer.register_parameter(name, nn.Parameter(weight))
    return copied


def copied(backbone: nn.Module) -> nn.Module:
    """A deep copy of a backbone.

    Raises:
        InputError: a part of it cannot be copied.
    """
    try:
        return copy.deepcopy(backbone)
    except Exception as error:  # any: it is the user's code
        raise InputError(
            f"backbone {type(backbone).__name__} cannot be copied: {described(error)}"
        ) from error


def _branch_off(
    joint: nn.Module, treatments: dict[str, Treatment], rank: int | None, init: BranchInit
) -> nn.Module:
    """A copy of the joint flow that shares its joint weights and adds branches to them."""
    shared: dict[int, object] = {}
    for path, treatment in treatments.items():
        module = joint.get_submodule(path)
        if treatment == "shared" and not list(module.children()):
            shared[id(module)] = module
        elif treatment != "private":
            shared.update((id(p), p) for p in module.parameters(recurse=False))
    flow = copy.deepcopy(joint, shared)
    for path, treatment in treatments.items():
        module = flow.get_submodule(path)
        if treatment in ("pointwise", "full", "low-rank"):
            for name, tensor in list(module.named_parameters(recurse=False)):
                if treatment == "pointwise" and tensor.dim() == 1:
                    continue  # the 1x1 branch of a convolution has no bias (13,981,376 gate)
                branch: nn.Module
                if treatment == "pointwise":
                    branch = PointwiseBranch(tensor, init)
                elif treatment == "full" or tensor.dim() == 1 or rank is None:
                    branch = FullBranch(tensor, init)
                else:
                    branch = LowRankBranch(tensor, init, rank)
                branch.requires_grad_(tensor.requires_grad)
                parametrize.register_parametrization(module, name, branch)
    return flow


def _treatments(
    backbone: nn.Module,
    rank: int | None,
    shared_until: str | None,
    branches: dict[str | type, Treatment],
    others: Treatment | None,
) -> dict[str, Treatment]:
    """The treatment of every module that itself has parameters or buffers, by path."""
    modules = dict(backbone.named_modules())
    _check_arguments(modules, rank, shared_until, branches)
    treatments: dict[str, Treatment] = {}
    unknown: dict[str, str] = {}
    before_first = shared_until is not None
    for path, module in modules.items():
        before_first = before_first and path != shared_until
        shared = before_first and not (shared_until or "").startswith(path + "." if path else "")
        if parametrize.is_parametrized(module):
            raise InputError(
                f"layer {path!r} is already parametrized (weight or spectral norm): "
                "call torch.nn.utils.parametrize.remove_parametrizations on it first"
            )
        hooks = module._forward_pre_hooks.values()
        if any(isinstance(hook, (WeightNorm, SpectralNorm)) for hook in hooks):
            raise InputError(
                f"layer {path!r} has a weight or spectral norm: call "
                "torch.nn.utils.remove_weight_norm or remove_spectral_norm on it first"
            )
        if any(isinstance(p, UninitializedParameter) for p in module.parameters(recurse=False)):
            raise InputError(f"layer {path!r} is lazy: run the backbone once before converting it")
        if not own_tensors(module):
            continue
        chosen = _chosen(path, modules, branches)
        if shared:
            treatments[path] = "shared"
        elif chosen is not None:
            treatments[path] = chosen
        elif (default := _default(module, rank)) is not None:
            treatments[path] = default
        elif others is not None:
            treatments[path] = others
        else:
            unknown[path] = type(module).__name__
    if unknown:
        raise InputError(_without_treatment(unknown, modules))
    _check_result(backbone, treatments)
    return treatments


def _default(module: nn.Module, rank: int | None) -> Treatment | None:
    """The treatment of a module by its type; None if it has none."""
    linear: Treatment = "low-rank" if rank else "full"
    if isinstance(module, CONVOLUTIONS) and _plain_layer(module, CONVOLUTIONS):
        if _centered(module):
            return "pointwise"
        if module.stride == module.kernel_size and module.padding in (
            "valid",
            (0,) * len(module.stride),
        ):
            return linear  # patches that do not overlap: a linear layer on each patch
        return "low-rank" if rank else None
    if isinstance(module, nn.Linear) and _plain_layer(module, (nn.Linear,)):
        return linear
    if isinstance(module, nn.MultiheadAttention):
        return linear  # its packed input projections are linear in their weights
    if isinstance(module, PRIVATE):
        return "private"
    parameters = list(module.parameters(recurse=False))
    if not parameters:
        return "private"  # buffers only, as of a norm without affine parameters
    if isinstance(module, nn.Embedding) or list(module.children()):
        return "shared"  # as positions and class tokens
    if all(max(p.shape, default=1) == p.numel() for p in parameters):
        return "private"  # a number for each channel, as of LayerScale
    return None


def _without_treatment(unknown: Mapping[str, str], modules: Mapping[str, nn.Module]) -> str:
    """The message on layers that have no default treatment, all of them at once.

    Args:
        unknown: type by path.
        modules: of the backbone, by path.
    """
    path, kind = next(iter(unknown.items()))
    if len(unknown) == 1 and isinstance(modules[path], CONVOLUTIONS):
        return (
            f"layer {path!r} ({modules[path]}) has no center tap for a 1x1 branch: pass "
            f"branches={{{path!r}: 'full'}} for a branch of the layer's size or 'shared' for none"
        )
    if len(unknown) == 1:
        return (
            f"layer {path!r} of type {kind} has parameters of a kind that cannot be branched by "
            f"default: pass branches={{{path!r}: 'shared'}}, 'private' (a copy per flow), or "
            "'full' if its output is linear in them"
        )
    shown = ", ".join(f"{one!r} ({kind})" for one, kind in unknown.items())
    return (
        f"{len(unknown)} layers cannot be branched by default: {shown}; pass others='shared' "
        "(--omninet.others shared) for all of them, 'private' for a copy per flow, or branches= "
        "for each"
    )


def _centered(module: nn.Module) -> bool:
    """Whether a 1x1 convolution of the same stride reads just the center tap of this one."""
    if not isinstance(module, CONVOLUTIONS):
        return False
    if any(k % 2 == 0 for k in module.kernel_size):
        return False
    if module.padding == "same":
        return True
    if module.padding == "valid":
        return all(k == 1 for k in module.kernel_size)
    sides = zip(module.padding, module.dilation, module.kernel_size, strict=True)
    return all(p == d * (k // 2) for p, d, k in sides)


def _plain_layer(module: nn.Module, bases: tuple[type[nn.Module], ...]) -> bool:
    """Whether the layer computes what its base class computes, with its own weight.

    Layers of timm and the like may compute their kernel from the weight, as weight-standardized
    convolutions do, or the padding from the input: the branch is added to the weight before that.
    """
    base = next(b for b in bases if isinstance(module, b))
    same = type(module).__module__.partition(".")[0] in LIBRARIES or all(
        getattr(type(module), name, None) is getattr(base, name, None)
        for name in ("forward", "_conv_forward")
    )
    return same and isinstance(module._parameters.get("weight"), nn.Parameter)


def _chosen(
    path: str, modules: dict[str, nn.Module], branches: dict[str | type, Treatment]
) -> Treatment | None:
    """The user's treatment of a module: by the nearest enclosing path, else by its class."""
    parts = path.split(".") if path else []
    enclosing = [".".join(parts[:length]) for length in range(len(parts), -1, -1)]
    for prefix in enclosing:
        if prefix in branches:
            return branches[prefix]
    for prefix in enclosing:
        for kind, treatment in branches.items():
            if isinstance(kind, type) and isinstance(modules[prefix], kind):
                return treatment
    return None


def _check_arguments(
    modules: dict[str, nn.Module],
    rank: int | None,
    shared_until: str | None,
    branches: dict[str | type, Treatment],
) -> None:
    if rank is not None and rank < 1:
        raise InputError(f"rank is {rank}: it must be 1 or more")
    if shared_until is not None and shared_until not in modules:
        raise InputError(f"shared_until={shared_until!r} is not a module of the backbone")
    for key, treatment in branches.items():
        if isinstance(key, str) and key not in modules:
            raise InputError(f"branches names {key!r}, which is not a module of the backbone")
        if isinstance(key, type) and not any(isinstance(m, key) for m in modules.values()):
            raise InputError(f"branches names {key.__name__}, but the backbone has no module of it")
        if treatment not in TREATMENTS:
            raise InputError(
                f"branches[{key!r}] is {treatment!r}, not one of {', '.join(TREATMENTS)}"
            )
        if treatment == "low-rank" and rank is None:
            raise InputError(f"branches[{key!r}] is 'low-rank': give rank= as well")


def _check_result(backbone: nn.Module, treatments: dict[str, Treatment]) -> None:
    branched = {p for p, t in treatments.items() if t in ("pointwise", "full", "low-rank")}
    if not branched:
        raise InputError(
            f"backbone {type(backbone).__name__} has no layer to convert: an Omni-Net needs at "
            "least one convolution or linear layer that is not shared"
        )
    check_held(backbone, branched)
    unshared = [p for p, treatment in treatments.items() if treatment != "shared"]
    if not any(
        w.requires_grad
        for p in unshared
        for w in backbone.get_submodule(p).parameters(recurse=False)
    ):
        raise InputError(
            f"every layer of backbone {type(backbone).__name__} that is not shared is frozen "
            "(requires_grad is False), so that its flows would stay equal: unfreeze one"
        )
    for path in branched:
        module = backbone.get_submodule(path)
        if isinstance(module, nn.RNNBase):
            raise InputError(
                f"layer {path!r} of type {type(module).__name__} keeps a list of its weights and "
                "takes no branch: use 'shared' or 'private'"
            )
        if treatments[path] == "pointwise" and not _centered(module):
            raise InputError(
                f"layer {path!r} ({module}) has no center tap for a 'pointwise' branch: "
                "use 'full' or 'shared'"
            )
    owner: dict[int, str] = {}
    for path in treatments:
        for name, parameter in backbone.get_submodule(path).named_parameters(recurse=False):
            first = owner.setdefault(id(parameter), f"{path}.{name}")
            if first != f"{path}.{name}" and {path, first.rpartition(".")[0]} & branched:
                raise InputError(
                    f"weights {first!r} and {path + '.' + name!r} are tied, so branches would "
                    f"part them: pass branches={{{first.rpartition('.')[0]!r}: 'shared', "
                    f"{path!r}: 'shared'}}"
                )

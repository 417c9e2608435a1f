"""The trainable model: networks per flow, and the losses of one step (paper 3.3, 4.2, 4.3).

Every method is a set of flows. Pre-training alone has a pre-flow, meta-training alone a meta-flow,
Joint-Training a joint-flow on a plain backbone, Ensemble a pre- and a meta-flow that share nothing,
and Omni-Training the three flows of an Omni-Net. The loss of a flow does not depend on the method.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from omnitraining import losses
from omnitraining.batches import Episode, MiniBatch
from omnitraining.conversion import check_copies
from omnitraining.errors import InputError
from omnitraining.features import feature_size
from omnitraining.libraries import PooledBackbone
from omnitraining.limits import check_least, check_moment, check_proper_part, step_at
from omnitraining.metatraining import MetaTraining, ProtoNet
from omnitraining.network import Network
from omnitraining.omninet import FLOWS, BranchInit, OmniNet, copied
from omnitraining.pretraining import Baseline, PreTraining

Method = Literal["omni-training", "pre-training", "meta-training", "joint-training", "ensemble"]
_PLAIN = {
    "pre-training": ("pre",),
    "meta-training": ("meta",),
    "joint-training": ("joint",),
    "ensemble": ("pre", "meta"),
}


class TaskSpec(Protocol):
    """The facts of a problem that decide the architecture of a model; every `Problem` has them.

    Attributes:
        pre_outputs: outputs of the pre-training head.
        meta_outputs: outputs of the meta-training head.
        one_joint_head: whether the joint-flow has one head for both kinds of training.
    """

    pre_outputs: int
    meta_outputs: int
    one_joint_head: bool

    def example(self) -> Tensor:
        """Two inputs [2, ...], on the CPU."""


@dataclass(frozen=True)
class OmniNetOptions:
    """How the backbone becomes an Omni-Net; see `OmniNet`.

    Args:
        branch_init: ``"zeros"`` or ``"random"``.
        rank: rank of the branches of linear layers; full if not given.
        shared_until: path of the first module that becomes an Omni-Layer.
        branches: treatment by module path.
        others: treatment of layers that have no default: ``"shared"`` or ``"private"``.

    Example:
        >>> from omnitraining import OmniNetOptions
        >>> OmniNetOptions(rank=8, branches={"stem": "full"}).branch_init
        'zeros'
    """

    branch_init: BranchInit = "zeros"
    rank: int | None = None
    shared_until: str | None = None
    branches: Mapping[str, str] | None = None
    others: Literal["shared", "private"] | None = None


@dataclass(frozen=True)
class OmniLoss:
    """Weights and terms of the Omni-Loss (eq. 7-15); each term can be switched off (Table 6).

    Args:
        distill_weight: lambda, the weight of self-distillation in Omni-Training. The paper has 3;
            0 was better for classification at the lengths that were measured (results/README.md).
        warmup: steps over which lambda rises linearly from 0.
        ema_decay: alpha of eq. 9, the decay of the EMA teacher, in [0, 1).
        distill_target: ``"outputs"``, as in eq. 10 and 13, or ``"probabilities"``.
        l_pre: pre-training of the pre-flow.
        l_meta: meta-training of the meta-flow.
        l_joint: joint-training of the joint-flow.
        r_pre: self-distillation of the pre-flow.
        r_meta: self-distillation of the meta-flow.
        branch_at: step at which L_pre and L_meta enter, or below 1 the fraction of all steps. Until
            then the joint-flow alone is trained, at the cost of Joint-Training, and the outer flows
            are copies of it. The paper trains all flows from step 0.
        meta_at: step, or fraction of all steps, at which meta-training enters, in the joint-flow
            too. Until then the joint-flow is pre-trained alone, at the cost of pre-training. The
            paper has 0, and no start from a pre-trained network either, which Meta-Baseline
            (Y. Chen et al., ICCV 2021, https://arxiv.org/abs/2003.04390) trains in a separate run.
        pre_on_episodes: the pre-training losses are of the episode's samples too, with their
            classes of training, and one pass of a flow serves both losses: more labels for the same
            compute, in Joint-Training too. The paper keeps the two apart.

    Raises:
        InputError: a number is out of range; ``branch_at`` or ``meta_at`` has no joint-flow to
            train; or one is a step, and the other a fraction.

    Example:
        >>> from omnitraining import OmniLoss
        >>> loss = OmniLoss(distill_weight=3.0, warmup=100)
        >>> loss.weight_at(50)
        1.5
    """

    distill_weight: float = 0.0
    warmup: int = 0
    ema_decay: float = 0.99
    distill_target: Literal["outputs", "probabilities"] = "outputs"
    l_pre: bool = True
    l_meta: bool = True
    l_joint: bool = True
    r_pre: bool = True
    r_meta: bool = True
    branch_at: int | float = 0
    meta_at: int | float = 0
    pre_on_episodes: bool = False

    def __post_init__(self) -> None:
        check_least("loss", self, 0, "distill_weight", "warmup")
        check_moment("loss", self, "branch_at", "meta_at")
        check_proper_part("loss", self, "ema_decay")
        for name in ("branch_at", "meta_at"):
            if (at := getattr(self, name)) and not self.l_joint:
                raise InputError(
                    f"loss.{name} is {at}, but loss.l_joint is false: until then nothing would be "
                    "trained"
                )
        if self.branch_at and self.meta_at and type(self.branch_at) is not type(self.meta_at):
            raise InputError(
                f"loss.branch_at is {self.branch_at} and loss.meta_at is {self.meta_at}: both must "
                "be steps, or both fractions of training.steps"
            )

    def in_steps(self, steps: int) -> "OmniLoss":
        """The same with ``branch_at`` and ``meta_at`` in steps.

        Args:
            steps: of the training.
        """
        return replace(
            self,
            branch_at=step_at(self.branch_at, steps),
            meta_at=step_at(self.meta_at, steps),
        )

    def weight_at(self, step: int | None) -> float:
        """Lambda at a step, counted from 0; its full value if the step is None."""
        part = 1.0 if step is None or not self.warmup else min(1.0, step / self.warmup)
        return self.distill_weight * part

    @property
    def all_entered_at(self) -> int:
        """The first step in which all losses are trained.

        Raises:
            InputError: it is given as a fraction of all steps, which `in_steps` turns into steps.
        """
        at = max(self.meta_at, self.branch_at)
        if not isinstance(at, int):
            raise InputError(
                f"loss.branch_at is {self.branch_at} and loss.meta_at is {self.meta_at}, fractions "
                "of training.steps: 'loss.in_steps(steps)' turns them into steps"
            )
        return at

    def phases(self, steps: int) -> dict[int, float]:
        """The first step of each phase of a training, in which the same losses are trained.

        Args:
            steps: of the training; if 0, the last phase is all of it.

        Returns:
            Fraction of the steps in each phase, by its first step.
        """
        if steps == 0:
            return {self.all_entered_at: 1.0}
        entries = (step_at(moment, steps) for moment in (self.meta_at, self.branch_at))
        starts = sorted({0, *(at for at in entries if at < steps)})
        return {a: (b - a) / steps for a, b in zip(starts, [*starts[1:], steps], strict=True)}

    def distillation(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Self-distillation R of an outer flow, by ``distill_target`` (eq. 10 and 13); a scalar.

        Args:
            student: outputs [..., O].
            teacher: outputs of the EMA teacher for the same inputs [..., O].
        """
        if self.distill_target == "probabilities":
            return losses.probability_distillation(student, teacher)
        return losses.distillation(student, teacher)


class FlowHead(NamedTuple):
    """A head of a flow.

    Attributes:
        name: of its network in `Model.networks`.
        network: the backbone of the flow with this head.
        algorithm: it trains the head, and fits a new one to a new task.
    """

    name: str
    network: Network
    algorithm: PreTraining | MetaTraining


class Model(nn.Module):
    """The networks of a method. Called with a mini-batch and an episode it returns the loss terms.

    Args:
        flows: backbone of each flow, by "pre", "joint" and "meta".
        problem: it decides the sizes of the heads.
        pretraining: the pre-training algorithm.
        metatraining: the meta-training algorithm.
        loss: terms of the Omni-Loss.
        trunk: layers before all backbones; none if not given.
        teacher_run: trained model of an earlier run, whose pre-flow teaches this one (RFS).

    Attributes:
        trunk: the layers before the first Omni-Layer, which all flows share.
        networks: "pre", "meta", "joint_pre" and "joint_meta", as far as the method has them. The
            joint-flow has two heads over one backbone, as a 64-way classifier cannot classify a
            5-way task; in regression the two are one.
        feature_sizes: D of the features [B, D] of each flow.
        curriculum: what chooses the classes of training tasks; None if all are drawn.

    Example:
        >>> import torch
        >>> from types import SimpleNamespace
        >>> from omnitraining import Conv4, Episode, MiniBatch, build_model
        >>> problem = SimpleNamespace(
        ...     pre_outputs=8,
        ...     meta_outputs=2,
        ...     one_joint_head=False,
        ...     example=lambda: torch.rand(2, 1, 16, 16),
        ... )
        >>> model = build_model("omni-training", lambda: Conv4(1, width=4), problem)
        >>> x, y = torch.rand(4, 1, 16, 16), torch.tensor([0, 0, 1, 1])
        >>> terms = model(MiniBatch(x, y), Episode(x[None], y[None], x[None], y[None], ways=2))
        >>> list(terms)
        ['l_pre', 'l_meta', 'l_joint_pre', 'l_joint_meta', 'total']
    """

    def __init__(
        self,
        flows: Mapping[str, nn.Module],
        problem: TaskSpec,
        pretraining: PreTraining,
        metatraining: MetaTraining,
        loss: OmniLoss,
        trunk: nn.Module | None = None,
        teacher_run: "Model | None" = None,
    ) -> None:
        """Make the heads, of the size of each backbone's features."""
        super().__init__()
        self.trunk = trunk or nn.Identity()
        self.teacher_run = TeacherRun(teacher_run) if teacher_run is not None else None
        self.pretraining, self.metatraining, self.loss = pretraining, metatraining, loss
        learns_tasks = bool({"meta", "joint"} & flows.keys())
        self.curriculum = metatraining.curriculum(problem.pre_outputs) if learns_tasks else None

        def pre_head(backbone: nn.Module, features: int) -> nn.Module:
            return pretraining.head_for(backbone, features, problem.pre_outputs)

        def meta_head(backbone: nn.Module, features: int) -> nn.Module:
            sizes = features, problem.meta_outputs, problem.pre_outputs
            return metatraining.head_for(backbone, *sizes)

        with torch.no_grad():
            example = self.trunk.eval()(_example(problem))
        self.trunk.train()
        self.networks = nn.ModuleDict()
        self.feature_sizes: dict[str, int] = {}
        for flow, backbone in flows.items():
            features = self.feature_sizes[flow] = feature_size(backbone, example)
            if flow == "pre":
                self.networks["pre"] = Network(backbone, pre_head(backbone, features))
            elif flow == "meta":
                self.networks["meta"] = Network(backbone, meta_head(backbone, features))
            else:
                head = pre_head(backbone, features)
                other = head if problem.one_joint_head else meta_head(backbone, features)
                self.networks["joint_pre"] = Network(backbone, head)
                self.networks["joint_meta"] = Network(backbone, other)

    def forward(
        self,
        batch: MiniBatch,
        episode: Episode,
        teacher: "Model | None" = None,
        step: int | None = None,
        joint: tuple[MiniBatch, Episode] | None = None,
    ) -> dict[str, Tensor]:
        """The loss terms of one step, scalars by name; "total" is the Omni-Loss (eq. 15).

        Args:
            batch: mini-batch for pre-training.
            episode: tasks for meta-training.
            teacher: the EMA teacher; without it there is no self-distillation.
            step: training step, which determines lambda and the losses that have entered, and is
                given to the curriculum; by default all have entered, and lambda is full.
            joint: mini-batch and episode of the joint-flow, if it has its own.
        """
        terms: dict[str, Tensor] = {}
        options, weight = self.loss, self.loss.weight_at(step)
        batch = self._labeled(batch, episode)
        trained = self.trained_at(step)
        outputs, meta_losses = self._outputs_and_losses(batch, episode, joint, trained)
        logits = outputs.get("meta", outputs.get("joint_meta"))
        if self.curriculum is not None and logits is not None and step is not None:
            self.curriculum.observe(step, logits, episode)
        targets: dict[str, Tensor] = {}
        if teacher is not None and weight > 0:
            on = {"pre": options.r_pre, "meta": options.r_meta}
            distilled = [flow for flow in trained if on.get(flow)]
            with torch.no_grad():
                targets, _ = teacher._outputs_and_losses(batch, episode, None, distilled)
        teacher_logits = self.teacher_run.logits(batch.x) if self.teacher_run is not None else None
        j_pre = j_meta = l_joint = next(self.parameters()).new_zeros(())
        if "pre" in outputs:
            j_pre = terms["l_pre"] = self._pre_loss(outputs["pre"], batch, teacher_logits)  # eq. 8
            if "pre" in targets:
                terms["r_pre"] = options.distillation(outputs["pre"], targets["pre"])  # eq. 10
                j_pre = losses.regularized_loss(j_pre, terms["r_pre"], weight)  # eq. 11
        if "meta" in outputs:
            j_meta = terms["l_meta"] = meta_losses["meta"]  # eq. 12
            if "meta" in targets:
                terms["r_meta"] = options.distillation(outputs["meta"], targets["meta"])  # eq. 13
                j_meta = losses.regularized_loss(j_meta, terms["r_meta"], weight)  # eq. 14
        if "joint_pre" in outputs:
            own = batch if joint is None else joint[0]
            l_joint = terms["l_joint_pre"] = self._pre_loss(
                outputs["joint_pre"], own, teacher_logits
            )
            if "joint_meta" in outputs:
                terms["l_joint_meta"] = meta_losses["joint_meta"]
                l_joint = losses.joint_loss(l_joint, terms["l_joint_meta"])  # eq. 7
        terms["total"] = losses.omni_loss(j_pre, j_meta, l_joint)  # eq. 15
        return terms

    def outputs(
        self,
        batch: MiniBatch,
        episode: Episode,
        joint: tuple[MiniBatch, Episode] | None = None,
        step: int | None = None,
    ) -> dict[str, Tensor]:
        """H o F of every trained flow, by the names of `networks`.

        Args:
            batch: mini-batch for pre-training.
            episode: tasks for meta-training.
            joint: mini-batch and episode of the joint-flow, if it has its own.
            step: training step, as of `forward`.

        Returns:
            Outputs [B, O] of the mini-batch, by "pre" and "joint_pre", and [T, Q, O] of the
            queries, by "meta" and "joint_meta". With ``loss.pre_on_episodes`` the first go on with
            the samples of the episode.
        """
        batch = self._labeled(batch, episode)
        return self._outputs_and_losses(batch, episode, joint, self.trained_at(step))[0]

    def _labeled(self, batch: MiniBatch, episode: Episode) -> MiniBatch:
        """The samples of the pre-training losses."""
        return batch.with_episode(episode) if self.loss.pre_on_episodes else batch

    def _outputs_and_losses(
        self,
        batch: MiniBatch,
        episode: Episode,
        joint: tuple[MiniBatch, Episode] | None,
        trained: Collection[str],
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """`outputs` of the trained networks for a batch that is `_labeled`, and l_meta by name."""
        networks = cast(Mapping[str, Network], self.networks)
        outputs: dict[str, Tensor] = {}
        losses: dict[str, Tensor] = {}
        together = self.loss.pre_on_episodes
        if together:
            batch, episode = _through(self.trunk, batch, episode)
        else:
            batch, episode = self._through_trunk(batch, episode)

        def learn(name: str, network: Network) -> None:
            outputs[name], losses[name] = self.metatraining.outputs_and_loss(
                network, episode, batch
            )

        if "pre" in trained:
            outputs["pre"] = networks["pre"](batch.x)
        if "meta" in trained:
            learn("meta", networks["meta"])
        if "joint_pre" in trained:
            batch, episode = joint or (batch, episode)
            pre, meta = networks["joint_pre"], networks["joint_meta"]
            if together:
                batch, episode = _through(pre.backbone, batch, episode)
                pre, meta = (Network(nn.Identity(), network.head) for network in (pre, meta))
            outputs["joint_pre"] = pre(batch.x)
            if "joint_meta" in trained:
                learn("joint_meta", meta)
        return outputs, losses

    def trained_at(self, step: int | None) -> tuple[str, ...]:
        """Names of the networks that are trained in a step, counted from 0; all if it is None.

        The outer flows enter at ``loss.branch_at``, meta-training at ``loss.meta_at``.
        """
        heads = {"pre": ("pre",), "joint": ("joint_pre", "joint_meta"), "meta": ("meta",)}
        names = [name for flow in self.trained_flows for name in heads[flow]]
        if step is not None and step < self.loss.all_entered_at:
            if step < self.loss.branch_at:
                names = [name for name in names if name.startswith("joint")]
            if step < self.loss.meta_at:
                names.remove("joint_meta")
        return tuple(names)

    def needs_episode(self, step: int | None = None) -> bool:
        """Whether a loss of a step, counted from 0, is of tasks; of any step if it is None."""
        networks = self.trained_at(step)
        return self.loss.pre_on_episodes or any(name.endswith("meta") for name in networks)

    def needs_batch(self, step: int | None = None) -> bool:
        """Whether a loss of a step, counted from 0, is of the mini-batch; of any if it is None."""
        networks = self.trained_at(step)
        return self.metatraining.needs_batch or any(name.endswith("pre") for name in networks)

    @torch.no_grad()
    def copy_joint_flow(self) -> None:
        """Give the outer flows the private norms and heads of the joint-flow.

        With branches that start at zero both then compute what the joint-flow computes.
        """
        for flow in ("pre", "meta"):
            joint = self.network(f"joint_{flow}").state_dict()
            for name, tensor in self.network(flow).state_dict().items():
                if name in joint:
                    tensor.copy_(joint[name])

    def _pre_loss(self, outputs: Tensor, batch: MiniBatch, teacher_logits: Tensor | None) -> Tensor:
        if teacher_logits is None:
            return self.pretraining.loss(outputs, batch.y)
        return self.pretraining.distillation_loss(outputs, batch.y, teacher_logits)

    def _through_trunk(self, batch: MiniBatch, episode: Episode) -> tuple[MiniBatch, Episode]:
        """The batch, and the episode if there is one, with trunk features in place of inputs."""
        if isinstance(self.trunk, nn.Identity):
            return batch, episode
        batch = replace(batch, x=self.trunk(batch.x))
        if episode:  # Support and query pass together, as in metric algorithms.
            episode = episode.with_inputs(self.trunk(episode.inputs()))
        return batch, episode

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Model":
        """Move the teacher run along with the model, to a device or a type of numbers."""
        if self.teacher_run is not None:
            self.teacher_run.network._apply(fn, recurse)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def network(self, name: str) -> Network:
        """A network by its name in `networks`."""
        return cast(Network, self.networks[name])

    def heads_of(
        self,
        flow: str,
        joint_head: Literal["pre", "meta", "both"] = "meta",
        meta_head: Literal["pre", "meta", "both"] = "meta",
    ) -> list[FlowHead]:
        """The heads that a flow predicts with: one, or both algorithms' of the joint- or meta-flow.

        Args:
            flow: one of `trained_flows`.
            joint_head: of the joint-flow: the head of pre-training, of meta-training, or both.
            meta_head: the same of the meta-flow; its own head in a model without pre-training.
        """
        algorithms: dict[str, PreTraining | MetaTraining]
        algorithms = {"pre": self.pretraining, "meta": self.metatraining}
        names = {flow: flow}
        if flow == "joint":
            names = {head: f"joint_{head}" for head in _heads(joint_head)}
        elif flow == "meta" and self.trained_flows != ("meta",):
            names = dict.fromkeys(_heads(meta_head), "meta")
        return [FlowHead(n, self.network(n), algorithms[head]) for head, n in names.items()]

    @property
    def views(self) -> int:
        """Augmentations of each sample of the mini-batch that the backbone takes.

        If there are several, inputs of mini-batches are [B, V, ...]; see `NetworkEnsemble`.
        """
        learned = [self.network(name) for name in ("pre", "joint_pre") if name in self.networks]
        return max((getattr(network.backbone, "views", 1) for network in learned), default=1)

    @property
    def trained_flows(self) -> tuple[str, ...]:
        """Flows that exist and whose loss is on: the only ones to predict with (Table 6)."""
        on = {"pre": self.loss.l_pre, "joint": self.loss.l_joint, "meta": self.loss.l_meta}
        return tuple(flow for flow in FLOWS if flow in self.feature_sizes and on[flow])


def _heads(chosen: Literal["pre", "meta", "both"]) -> tuple[str, ...]:
    return ("pre", "meta") if chosen == "both" else (chosen,)


def _through(module: nn.Module, batch: MiniBatch, episode: Episode) -> tuple[MiniBatch, Episode]:
    """Outputs of a module in place of inputs; the batch ends with the samples of the episode."""
    x = module(batch.x)
    own = len(x) - episode.support_y.numel() - episode.query_y.numel()
    return replace(batch, x=x), episode.with_inputs(x[own:])


class TeacherRun:
    """The frozen pre-flow of an earlier run, whose logits teach a model (RFS).

    It is no module, so that its weights are neither trained nor saved with the model; a copy of the
    model, as the EMA teacher, shares it.

    Args:
        model: the model of that run; its modules are put in evaluation mode.
    """

    def __init__(self, model: Model) -> None:
        """Take its trunk and pre-flow, without a copy."""
        self.network = nn.Sequential(model.trunk, model.network("pre")).eval()

    def __deepcopy__(self, memo: dict[int, object]) -> "TeacherRun":
        return self

    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        """Outputs [B, O] of inputs [B, ...]."""
        logits: Tensor = self.network(x)
        return logits


def build_model(
    method: Method,
    backbone: Callable[[], nn.Module],
    problem: TaskSpec,
    pretraining: PreTraining = Baseline(),  # noqa: B008 (options are frozen)
    metatraining: MetaTraining = ProtoNet(),  # noqa: B008
    loss: OmniLoss = OmniLoss(),
    omninet: OmniNetOptions = OmniNetOptions(),
    teacher_run: Model | None = None,
) -> Model:
    """Build the model of a method, a set of flows.

    Only Omni-Training has self-distillation and branches; other methods ignore their options.

    Args:
        method: Omni-Training, or a method that the paper compares it with (3.3).
        backbone: makes a new backbone at each call; Ensemble needs two.
        problem: it decides the sizes of the heads and of the inputs.
        pretraining: the pre-training algorithm.
        metatraining: the meta-training algorithm.
        loss: terms of the Omni-Loss.
        omninet: how the backbone becomes an Omni-Net.
        teacher_run: trained model of an earlier run, whose pre-flow teaches this one (RFS).

    Raises:
        InputError: the backbone cannot become an Omni-Net or does not return [B, D], or the
            teacher run has no pre-flow.

    Example:
        >>> import torch
        >>> from types import SimpleNamespace
        >>> from omnitraining import MLP, Baseline, ProtoNet, build_model
        >>> problem = SimpleNamespace(
        ...     pre_outputs=8,
        ...     meta_outputs=5,
        ...     one_joint_head=False,
        ...     example=lambda: torch.rand(2, 3),
        ... )
        >>> model = build_model("omni-training", lambda: MLP(3), problem, Baseline(), ProtoNet())
        >>> model.trained_flows, model.feature_sizes["joint"]
        (('pre', 'joint', 'meta'), 64)
    """
    example = _example(problem)
    with _made_for(example):
        parts = pretraining, metatraining, loss, omninet, teacher_run
        return _built(method, backbone, problem, example, *parts)


def _example(problem: TaskSpec) -> Tensor:
    """Two inputs [2, ...], on the CPU, of at least single precision."""
    with torch.device("cpu"):
        example = problem.example()
    return example.float() if example.dtype in (torch.float16, torch.bfloat16) else example


@contextmanager
def _made_for(example: Tensor) -> Iterator[None]:
    """Make weights of the inputs' type of numbers and on their device.

    torch's defaults may be half precision, or a device such as meta.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(example.dtype if example.is_floating_point() else before)
    try:
        with example.device:
            yield
    finally:
        torch.set_default_dtype(before)


def _built(
    method: Method,
    backbone: Callable[[], nn.Module],
    problem: TaskSpec,
    example: Tensor,
    pretraining: PreTraining,
    metatraining: MetaTraining,
    loss: OmniLoss,
    omninet: OmniNetOptions,
    teacher_run: Model | None,
) -> Model:
    if teacher_run is not None and "pre" not in teacher_run.networks:
        raise InputError("the run of teacher_run has no pre-flow, which is what teaches")
    if loss.pre_on_episodes and not metatraining.needs_only_features:
        raise InputError(
            f"loss.pre_on_episodes is true, but {type(metatraining).__name__} adapts the backbone "
            "to each episode, so that one pass cannot serve both losses: choose another algorithm"
        )
    if teacher_run is not None and method == "meta-training":
        raise InputError("meta-training has no pre-training that a teacher_run could teach")
    flows: dict[str, nn.Module]
    trunk: nn.Module = nn.Identity()
    if method == "omni-training":
        made, options = backbone(), vars(omninet)
        feature_size(made, example)
        net = OmniNet(made, **options, example=None if _is_known(made) else example[:1])
        flows = {"pre": net.pre, "joint": net.joint, "meta": net.meta}
        if metatraining.needs_only_features:  # others adapt every layer, so that none is in common
            trunk, flows = net.split()
    else:
        flows = {flow: backbone() for flow in _PLAIN[method]}
        _check_plain(flows, example)
    if method != "omni-training":
        meta_at = loss.meta_at if method == "joint-training" else 0
        loss = replace(loss, distill_weight=0.0, branch_at=0, meta_at=meta_at)
    elif loss.meta_at > loss.branch_at:
        raise InputError(
            f"loss.meta_at is {loss.meta_at}: it must be at most loss.branch_at, "
            f"{loss.branch_at}, as the meta-flow has no loss before"
        )
    model = Model(flows, problem, pretraining, metatraining, loss, trunk, teacher_run)
    if loss.pre_on_episodes and model.views > 1:
        raise InputError(
            "loss.pre_on_episodes is true, but each network of NetworkEnsemble takes its own "
            "augmentation of a mini-batch: set own_views to false"
        )
    if loss.branch_at:
        model.copy_joint_flow()
    if not any(weight.requires_grad for weight in model.parameters()):
        raise InputError(
            "every weight of the model is frozen (requires_grad is False), so that there is "
            "nothing to train: unfreeze a layer of the backbone"
        )
    return model


def _check_plain(flows: Mapping[str, nn.Module], example: Tensor) -> None:
    """Refuse backbones that share weights, or that the EMA teacher could not copy."""
    weights = [weight for flow in flows.values() for weight in flow.parameters()]
    if len({id(weight) for weight in weights}) < len(weights):
        raise InputError(
            "the backbone of the pre-flow and that of the meta-flow share weights: backbone must "
            "make a new module at each call"
        )
    for flow in flows.values():
        feature_size(flow, example)
        if not _is_known(flow) and not isinstance(flow, PooledBackbone):
            check_copies(flow, {"copy": copied(flow)}, example[:1])


def _is_known(backbone: nn.Module) -> bool:
    """Whether all its layers are of torch or of this library, which are tested to be copyable.

    Others are tried out, which takes several forward passes, also when a trained model is loaded.
    """
    return all(
        type(module).__module__.partition(".")[0] in ("torch", "omnitraining")
        for module in backbone.modules()
    )

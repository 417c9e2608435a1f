"""Few-shot image classification: mini-batches, episodes, and the fixed test episodes."""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from omnitraining.batches import Episode, MiniBatch, joined, to_device
from omnitraining.datasets.decoding import ASPECTS, Aspect
from omnitraining.datasets.images import LabeledImages
from omnitraining.errors import InputError
from omnitraining.evaluation import (
    ENSEMBLE,
    Cell,
    CellKey,
    Evaluation,
    Inference,
    best_ensemble_weights,
    ensemble_mean,
    tasks_hash,
)
from omnitraining.limits import check_least
from omnitraining.metatraining import MetaTraining
from omnitraining.model import Model
from omnitraining.network import Network, PrecomputedFeatures
from omnitraining.pretraining import PreTraining
from omnitraining.tasks.base import Supervised
from omnitraining.tasks.classification.domains import Domains
from omnitraining.tasks.classification.episodes import EpisodeSampler, TaskIndices
from omnitraining.tasks.classification.transforms import Augmentation, NoAugmentation
from omnitraining.views import features_of

TEST_TASKS = 600
VALIDATION_TASKS = 200
EMBED_BATCH = 128  # images embedded at a time at test; more would not fit in CPU caches
ADAPT_BATCH = 20  # tasks adapted at a time by algorithms that change the network
STATISTICS_IMAGES = 10_000  # most images that mean and standard deviation are computed from


@dataclass(frozen=True)
class EpisodeConfig:
    """Sizes of episodes and mini-batches (paper 6.1).

    Args:
        ways: classes per task.
        shots: support images per class in training and validation.
        queries: query images per class.
        batch: images of a mini-batch; 0 with ``loss.pre_on_episodes`` if the images of the episode
            are the whole mini-batch.
        training_queries: query images per class in training; ``queries`` if 0.
        training_shots: numbers of support images per class in training, of which one is drawn in
            each step; ``shots`` if empty.
        tasks: tasks of a training step; the loss is the mean over them. CloserLook (Chen et al.,
            2019) trains MAML with four.
        test_ways: classes per test task; fewer if a benchmark has fewer classes.
        test_shots: numbers of support images per class at test.
        augmented_supports: augmented copies of each support image at test, in its place, as RFS
            (Tian et al., 2020) takes five; the image itself if 0. They are the same in all tasks.

    Raises:
        InputError: a number is out of range.

    Example:
        >>> EpisodeConfig(ways=5, shots=1, queries=15).test_shots
        (1, 5)
    """

    ways: int = 5
    shots: int = 5
    queries: int = 16
    batch: int = 64
    training_queries: int = 0
    training_shots: tuple[int, ...] = ()
    tasks: int = 1
    test_ways: int = 5
    test_shots: tuple[int, ...] = (1, 5)
    augmented_supports: int = 0

    def __post_init__(self) -> None:
        check_least("protocol", self, 1, "shots", "queries", "tasks")
        check_least("protocol", self, 0, "batch", "training_queries", "augmented_supports")
        check_least("protocol", self, 2, "ways", "test_ways")
        if self.training_shots and min(self.training_shots) < 1:
            raise InputError(
                f"protocol.training_shots is {self.training_shots}: give numbers of 1 or more"
            )
        if not self.test_shots or min(self.test_shots) < 1:
            raise InputError(f"protocol.test_shots is {self.test_shots}: give numbers of 1 or more")


class Classification(Supervised):
    """Few-shot classification from labeled images.

    Validation and test tasks are drawn from fixed seeds, so that they are the same for every
    method. With several training domains, mini-batches are drawn uniformly from their union, with
    the classes of all domains, and each episode is drawn from one domain, in turn.

    Args:
        training: images of the base classes, or one set of them per training domain.
        validation: images of other classes, for the choice of the checkpoint.
        benchmarks: test images, of unseen classes, by benchmark name.
        protocol: sizes of episodes and mini-batches.
        augmentation: how stored images become network inputs; by default they are normalized by
            the mean and standard deviation of the training images, and nothing else.

    Attributes:
        aspect: how other images become squares in learners, see `Resize`.

    Raises:
        InputError: a class has too few images for the protocol, there are too few classes, or
            images of training domains differ in shape.

    Example:
        >>> import torch
        >>> def data(name: str) -> LabeledImages:
        ...     pixels = torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8)
        ...     classes = tuple(f"{name} {number}" for number in range(5))
        ...     return LabeledImages(pixels, torch.arange(40) % 5, classes, name)
        >>> config = EpisodeConfig(ways=3, shots=1, queries=2, test_ways=3, test_shots=(1,))
        >>> problem = Classification(data("base"), data("val"), {"new": data("new")}, config)
        >>> episode = problem.episode(0, torch.Generator().manual_seed(0))
        >>> episode.support_x.shape, episode.query_x.shape
        (torch.Size([1, 3, 1, 8, 8]), torch.Size([1, 6, 1, 8, 8]))
    """

    kind = "classification"
    one_joint_head = False
    aspect: Aspect = "stretch"

    def __init__(
        self,
        training: LabeledImages | Sequence[LabeledImages],
        validation: LabeledImages,
        benchmarks: Mapping[str, LabeledImages],
        protocol: EpisodeConfig,
        augmentation: Augmentation | None = None,
    ) -> None:
        """Check the sizes of all parts; nothing is drawn."""
        self.training = (training,) if isinstance(training, LabeledImages) else tuple(training)
        self.validation, self.benchmarks = validation, dict(benchmarks)
        self.protocol = protocol
        self.domains = Domains(self.training)
        self.pre_outputs, self.meta_outputs = self.domains.classes, protocol.ways
        self.samplers = [
            EpisodeSampler(
                images,
                protocol.ways,
                max(protocol.training_shots, default=protocol.shots),
                protocol.training_queries or protocol.queries,
            )
            for images in self.training
        ]
        # Too small test sets are an error now, not after the training.
        self._sampler(validation, self._ways(validation, protocol.ways))
        for images in self.benchmarks.values():
            self._sampler(images, self._ways(images, protocol.test_ways))
        self.augmentation = augmentation or NoAugmentation(*channel_statistics(self.training))

    @property
    def summary(self) -> str:
        """Names and sizes of the data, in a line."""

        def counted(images: LabeledImages) -> str:
            return f"{len(images.classes)} classes, {len(images.images)} images"

        parts = [f"training on {images.name}: {counted(images)}" for images in self.training]
        parts += [f"validation: {counted(self.validation)}"]
        parts += [
            f"test on {name}: {len(images.classes)} classes"
            for name, images in self.benchmarks.items()
        ]
        if self.aspect != "stretch":
            parts.append(f"images: {ASPECTS[self.aspect]}")
        return f"{type(self).__name__} ({'; '.join(parts)})"

    @property
    def shardable(self) -> Mapping[str, int]:
        """Mini-batches and the queries of an episode can be split."""
        protocol = self.protocol
        name = "training_queries" if protocol.training_queries else "queries"
        return {
            "problem.protocol.batch": protocol.batch,
            f"problem.protocol.{name}": getattr(protocol, name),
        }

    @property
    def test_outputs(self) -> frozenset[int]:
        """Numbers of ways of the validation and test tasks."""
        tests = {self.ways(images) for images in self.benchmarks.values()}
        return frozenset({*tests, self._ways(self.validation, self.protocol.ways)})

    def check(self, model: Model) -> None:
        """Refuse losses of the mini-batch that would have no images, or some of them twice."""
        super().check(model)
        if self.shard_count > 1 and model.loss.pre_on_episodes:
            raise InputError(
                f"loss.pre_on_episodes is true, but {self.shard_count} processes have the same "
                "support images, which would count that many times: train it with one process"
            )
        if self.protocol.batch == 0 and not model.loss.pre_on_episodes:
            raise InputError(
                "protocol.batch is 0: it must be 1 or more, unless loss.pre_on_episodes is true, "
                "so that the images of the episode are the mini-batch"
            )

    def example(self) -> Tensor:
        """The first two training images as network inputs [2, C, H, W]."""
        return self.augmentation.eval(self.training[0].images[:2])

    def to(self, device: torch.device) -> None:
        """Move small training sets to the device; batches of larger ones are moved."""
        self.domains.to(device)

    def with_test_shots(self, shots: tuple[int, ...]) -> "Classification":
        """A copy that shares the data, with other numbers of support images per class at test."""
        return self.with_changes(protocol=replace(self.protocol, test_shots=shots))

    def with_changes(
        self,
        protocol: EpisodeConfig | None = None,
        benchmarks: Mapping[str, LabeledImages] | None = None,
    ) -> "Classification":
        """A copy that shares the data, with other validation and test tasks.

        Args:
            protocol: sizes of its episodes; unchanged if not given.
            benchmarks: its test images by benchmark name; unchanged if not given.
        """
        changed = copy(self)
        changed.protocol = protocol or self.protocol
        changed.benchmarks = dict(self.benchmarks if benchmarks is None else benchmarks)
        return changed

    @property
    def sizes_of_steps(self) -> "tuple[Classification, ...]":
        """One problem for each of the numbers of shots that are drawn in training."""
        shots = self.protocol.training_shots or (self.protocol.shots,)
        protocols = [replace(self.protocol, training_shots=(number,)) for number in shots]
        return tuple(self.with_changes(protocol) for protocol in protocols)

    def minibatch(self, step: int, random: torch.Generator) -> MiniBatch:
        """Augmented images of all training domains, with labels over all of them."""
        images, labels = self._drawn(random)
        x = self.augmentation.train(images, random)
        return MiniBatch(x, to_device(labels, x.device))

    def minibatch_in_views(self, step: int, random: torch.Generator, views: int) -> MiniBatch:
        """Images of all training domains in several augmentations [B, views, C, H, W]."""
        images, labels = self._drawn(random)
        x = torch.stack([self.augmentation.train(images, random) for _ in range(views)], 1)
        return MiniBatch(x, to_device(labels, x.device))

    def _drawn(self, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Stored images of a mini-batch and their labels over all domains, these on the CPU."""
        labels = self.domains.labels
        chosen = torch.randint(len(labels), (self.protocol.batch,), generator=random)
        return self.domains.fetch(chosen), labels[chosen]

    def episode(self, step: int, random: torch.Generator) -> Episode:
        """Tasks with augmented images of one training domain, the next one in each step."""
        return self._tasks_of([step % len(self.samplers)], random)

    def episode_of_classes(self, step: int, random: torch.Generator, classes: Tensor) -> Episode:
        """Tasks as of `episode`, of some classes and, if they are too few, of others of the domain.

        Args:
            step: counted from 0.
            random: source of all randomness, on the CPU.
            classes: their indices [M] over all domains, on the CPU.
        """
        return self._tasks_of([step % len(self.samplers)], random, classes)

    def episode_of_domains(self, step: int, random: torch.Generator, count: int) -> Episode:
        """Tasks of ``count`` random domains, with the same number of each as in `episode`.

        Raises:
            InputError: there are fewer domains.
        """
        own = len(self.samplers)
        if own < count:
            raise InputError(
                f"metatraining needs {count} domains of training, and there "
                f"{'is' if own == 1 else 'are'} {own}: name more data sets in problem.training"
            )
        return self._tasks_of(torch.randperm(own, generator=random)[:count].tolist(), random)

    def _tasks_of(
        self, domains: Sequence[int], random: torch.Generator, classes: Tensor | None = None
    ) -> Episode:
        """Tasks of some domains, one domain after another, with augmented images."""
        drawn = [
            self.samplers[domain].draw(
                self.protocol.tasks, random, self.domains.own_classes(domain, classes)
            )
            for domain in domains
        ]
        if shots := self.protocol.training_shots:
            number = shots[int(torch.randint(len(shots), (), generator=random))]
            drawn = [tasks.with_shots(number) for tasks in drawn]
        parts = []
        for domain, tasks in zip(domains, drawn, strict=True):
            start = self.domains.starts[domain]
            images = partial(self._augmented, start=start, random=random)
            classes = self.domains.labels[start + tasks.support[:, :, 0]]
            part = _episode(tasks, images)
            parts.append(replace(part, classes=to_device(classes, part.query_y.device)))
        return replace(joined(parts), domains=len(parts))

    def _augmented(self, index: Tensor, start: int, random: torch.Generator) -> Tensor:
        """Augmented images of a domain, whose first one is at ``start`` of all."""
        return self.augmentation.train(self.domains.fetch(start + index), random)

    def validation_scores(self, model: Model, inference: Inference) -> dict[str, float]:
        """Accuracies (%) on the validation tasks, which have the sizes of training episodes."""
        protocol = self.protocol
        ways = self._ways(self.validation, protocol.ways)
        heads, labels, _ = self.probabilities(
            model, inference, self.validation, ways, protocol.shots, VALIDATION_TASKS, {}
        )
        mean = ensemble_mean(heads, inference.members(tuple(heads)))
        return {
            head: (p.argmax(-1) == labels).float().mean().item() * 100
            for head, p in {**heads, ENSEMBLE: mean}.items()
        }

    def evaluate(self, model: Model, inference: Inference, tasks: int = TEST_TASKS) -> Evaluation:
        """Accuracy (%) of every flow and of the ensemble, per benchmark and number of shots."""
        evaluation = Evaluation("accuracy %", higher_is_better=True)
        weights = self._ensemble_weights(model, inference)
        for name, images in self.benchmarks.items():
            ways = self.ways(images)
            known: dict[nn.Module, Tensor] = {}
            for shots in self.protocol.test_shots:
                copies = self.protocol.augmented_supports
                heads, labels, drawn = self.probabilities(
                    model, inference, images, ways, shots, tasks, known, copies
                )
                heads[ENSEMBLE] = ensemble_mean(heads, weights[shots])
                scores = {
                    head: ((p.argmax(-1) == labels).float().mean(1) * 100).tolist()
                    for head, p in heads.items()
                }
                identity = tasks_hash(images.fingerprint, drawn.support, drawn.query)
                evaluation.cells[CellKey(name, ways, shots)] = Cell(identity, scores)
        return evaluation

    def fixed_tasks(self, images: LabeledImages, ways: int, shots: int, count: int) -> TaskIndices:
        """The first of the fixed tasks on which every model is evaluated.

        Args:
            images: images that the tasks are drawn from.
            ways: classes per task.
            shots: support images per class.
            count: number of tasks.
        """
        drawn = self._sampler(images, ways).draw(
            max(count, TEST_TASKS), torch.Generator().manual_seed(ways)
        )
        return TaskIndices(drawn.support[:count, :, :shots], drawn.query[:count])

    def test_episode(self, images: LabeledImages, tasks: TaskIndices) -> Episode:
        """Tasks with their network inputs, without random augmentation."""
        device = self.domains.device
        return _episode(
            tasks, lambda index: self.augmentation.eval(to_device(images.images[index], device))
        )

    def ways(self, images: LabeledImages) -> int:
        """Number of classes of a test task on these images."""
        return self._ways(images, self.protocol.test_ways)

    def _ways(self, images: LabeledImages, wanted: int) -> int:
        """The requested number of ways, or all classes if there are fewer; two at least."""
        return max(2, min(wanted, len(images.classes)))

    def _sampler(self, images: LabeledImages, ways: int) -> EpisodeSampler:
        """A sampler of the most shots; tasks of fewer shots take the first support samples."""
        most = max(*self.protocol.test_shots, self.protocol.shots)
        return EpisodeSampler(images, ways, most, self.protocol.queries)

    def _ensemble_weights(self, model: Model, inference: Inference) -> dict[int, dict[str, float]]:
        """Weight of each flow in the ensemble, by number of shots."""
        members = inference.members(model.trained_flows)
        equal = dict.fromkeys(members, 1 / len(members))
        chosen = dict.fromkeys(self.protocol.test_shots, equal)
        if inference.ensemble_weights == "equal" or len(members) == 1:
            return chosen
        known: dict[nn.Module, Tensor] = {}
        for shots in self.protocol.test_shots:
            ways = self.ways(self.validation)
            copies = self.protocol.augmented_supports
            flows, labels, _ = self.probabilities(
                model, inference, self.validation, ways, shots, VALIDATION_TASKS, known, copies
            )
            chosen[shots] = best_ensemble_weights({flow: flows[flow] for flow in members}, labels)
        return chosen

    @torch.no_grad()
    def probabilities(
        self,
        model: Model,
        inference: Inference,
        images: LabeledImages,
        ways: int,
        shots: int,
        count: int,
        known: dict[nn.Module, Tensor],
        copies: int = 0,
    ) -> tuple[dict[str, Tensor], Tensor, TaskIndices]:
        """Class probabilities on the first fixed tasks of some images.

        Args:
            model: the trained model.
            inference: options of the prediction.
            images: images of the tasks.
            ways: classes per task.
            shots: support images per class.
            count: number of tasks.
            known: features of the images by backbone, which this fills as needed.
            copies: augmented copies of each support image, in its place.

        Returns:
            Probabilities [T, Q, N] by trained flow, labels [T, Q], and the tasks.

        Raises:
            InputError: there are copies, and an algorithm adapts the whole network.
        """
        tasks = self.fixed_tasks(images, ways, shots, count)
        self._embed(model, inference, images, known, copies)
        shown = tasks.with_copies(copies, len(images.images))
        heads = {}
        for flow in model.trained_flows:
            logits = [
                self._logits(head.network, head.algorithm, images, shown, known)
                for head in model.heads_of(flow, *inference.heads)
            ]
            heads[flow] = torch.stack([part.softmax(-1) for part in logits]).mean(0)
        labels = torch.arange(ways).repeat_interleave(self.protocol.queries).expand(count, -1)
        return heads, labels, tasks

    def _embed(
        self,
        model: Model,
        inference: Inference,
        images: LabeledImages,
        known: dict[nn.Module, Tensor],
        copies: int,
    ) -> None:
        """Compute the features of all images by the backbones that tasks do not change, once.

        Features of augmented copies follow: of all images once, then of all images again.
        """
        model.eval()
        inference.check_flip(model)
        heads = [
            head for flow in model.trained_flows for head in model.heads_of(flow, *inference.heads)
        ]
        if copies and not all(head.algorithm.needs_only_features for head in heads):
            raise InputError(
                f"protocol.augmented_supports is {copies}: it must be 0 for algorithms that adapt "
                "the whole network"
            )
        backbones = {
            head.network.backbone for head in heads if head.algorithm.needs_only_features
        } - known.keys()
        features: dict[nn.Module, list[Tensor]] = {backbone: [] for backbone in backbones}
        random = torch.Generator().manual_seed(0)
        for copy_number in range(1 + copies if backbones else 0):
            for raw in images.images.split(EMBED_BATCH):
                pixels = to_device(raw, self.domains.device)
                augmentation = self.augmentation
                x = augmentation.train(pixels, random) if copy_number else augmentation.eval(pixels)
                found = features_of(x, model.trunk, features, inference.flip)
                for backbone, part in zip(features, found, strict=True):
                    features[backbone].append(part)
        known.update((backbone, torch.cat(parts)) for backbone, parts in features.items())

    def _logits(
        self,
        network: Network,
        algorithm: PreTraining | MetaTraining,
        images: LabeledImages,
        tasks: TaskIndices,
        known: dict[nn.Module, Tensor],
    ) -> Tensor:
        """Logits [T, Q, N] of one head, fitted on all tasks at once where features suffice."""
        device = self.domains.device
        if algorithm.needs_only_features:
            lookup = Network(PrecomputedFeatures(known[network.backbone]), network.head)
            episode = _episode(tasks, lambda index: to_device(index, device))
            return algorithm.predict(lookup, episode).float().cpu()
        outputs = []
        for support, query in zip(
            tasks.support.split(ADAPT_BATCH), tasks.query.split(ADAPT_BATCH), strict=True
        ):
            episode = self.test_episode(images, TaskIndices(support, query))
            outputs.append(algorithm.predict(network, episode).float().cpu())
        return torch.cat(outputs)


def _episode(tasks: TaskIndices, fetch: Callable[[Tensor], Tensor]) -> Episode:
    """Tasks with their inputs, which ``fetch`` returns for the indices of all samples."""
    count, ways = tasks.support.shape[:2]
    parts = [part.flatten(1) for part in (tasks.support, tasks.query)]
    sizes = [part.shape[1] for part in parts]
    x = fetch(torch.cat(parts, 1).flatten()).unflatten(0, (count, -1)).split(sizes, 1)
    y = [
        torch.arange(ways, device=part.device).repeat_interleave(size // ways).expand(count, -1)
        for part, size in zip(x, sizes, strict=True)
    ]
    return Episode(x[0], y[0], x[1], y[1], ways)


def channel_statistics(parts: Sequence[LabeledImages]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, [C] each, for pixels from 0 to 1.

    Args:
        parts: the images; if there are more than ``STATISTICS_IMAGES``, that many are taken, evenly
            spaced.
    """
    domains = Domains(parts)
    count = min(len(domains.labels), STATISTICS_IMAGES)
    chosen = torch.linspace(0, len(domains.labels) - 1, count, dtype=torch.float64).round().long()
    number, total, squares = 0, torch.tensor(0.0), torch.tensor(0.0)
    for index in chosen.split(EMBED_BATCH):
        pixels = domains.fetch(index).double()
        number += pixels[:, 0].numel()
        total = total + pixels.sum((0, 2, 3))
        squares = squares + pixels.square().sum((0, 2, 3))
    variance = (squares - total.square() / number) / (number - 1)
    return (total / number / 255).float(), (variance.sqrt() / 255).float()

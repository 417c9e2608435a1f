"""Few-shot classification of made-up images: right tasks, right scores, right votes."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from omnitraining.backbones import Conv4
from omnitraining.batches import Episode
from omnitraining.datasets.images import LabeledImages
from omnitraining.errors import InputError
from omnitraining.evaluation import ENSEMBLE, Cell, CellKey, Inference
from omnitraining.metatraining import MAML, MetaTraining, ProtoNet
from omnitraining.model import Method, Model, OmniLoss, OmniNetOptions, build_model
from omnitraining.network import Network
from omnitraining.pretraining import Baseline, PreTraining
from omnitraining.tasks.classification import domains as domain_module
from omnitraining.tasks.classification import problem as module
from omnitraining.tasks.classification.episodes import EpisodeSampler
from omnitraining.tasks.classification.problem import Classification, EpisodeConfig
from omnitraining.tasks.classification.transforms import Augmentation, NoAugmentation
from tests.reference.tiny import blobs

PROTOCOL = EpisodeConfig(ways=3, shots=2, queries=3, batch=8, test_ways=3, test_shots=(1, 2))
NAMES = (CellKey("blobs", 3, 1), CellKey("blobs", 3, 2))


def dull(noise: Tensor) -> LabeledImages:
    """Images that are mostly noise, so that no method gets all of them right."""
    clean = blobs(6, 9, "dull", seed=5)
    images = clean.images.float() * 0.15 + noise
    return LabeledImages(images.to(torch.uint8), clean.labels, clean.classes, clean.name)


@pytest.fixture
def data() -> Classification:
    return Classification(
        blobs(8, 12, "a"), blobs(7, 9, "b", 1), {"blobs": blobs(6, 9, "c", 2)}, PROTOCOL
    )


@pytest.fixture
def hard() -> Classification:
    images = [dull(200 * torch.rand(54, 1, 16, 16)) for _ in range(2)]
    return Classification(blobs(8, 12, "a"), images[0], {"blobs": images[1]}, PROTOCOL)


def pixels() -> nn.Module:
    """Features in which made-up images of different classes are far apart."""
    return nn.Sequential(nn.Flatten(), nn.Linear(256, 64))


def model(
    data: Classification,
    method: Method = "omni-training",
    pretraining: PreTraining | None = None,
    metatraining: MetaTraining | None = None,
    loss: OmniLoss | None = None,
    backbone: Callable[[], nn.Module] = lambda: Conv4(1, 4),
) -> Model:
    """Flows of different weights; running statistics of the training images."""
    made = build_model(
        method,
        backbone,
        data,
        pretraining or Baseline(),
        metatraining or ProtoNet(),
        loss or OmniLoss(),
        OmniNetOptions(branch_init="random"),
    )
    made.train()
    random = torch.Generator().manual_seed(0)
    for step in range(20):
        made(data.minibatch(step, random), data.episode(step, random))
    return made.eval()


def slow(
    network: nn.Module, algorithm: PreTraining | MetaTraining, data: Classification, shots: int
) -> list[tuple[Tensor, Tensor]]:
    """Per test task, probabilities and labels of the queries, from raw images."""
    images, protocol = data.benchmarks["blobs"], PROTOCOL
    sampler = EpisodeSampler(images, 3, 2, protocol.queries)
    tasks = sampler.draw(600, torch.Generator().manual_seed(3))
    found = []
    for support, query in zip(tasks.support[:8], tasks.query[:8], strict=True):
        parts = []
        for rows in (support[:, :shots], query):
            parts.append(torch.stack([data.augmentation.eval(images.images[row]) for row in rows]))
            parts.append(torch.arange(3)[:, None].expand(rows.shape))
        x, y, query_x, query_y = (part.flatten(0, 1)[None] for part in parts)
        with torch.no_grad():
            outputs = algorithm.predict(network, Episode(x, y, query_x, query_y, 3))
        found.append((outputs[0].softmax(-1), query_y[0]))
    return found


def accuracies(tasks: list[tuple[Tensor, Tensor]]) -> list[float]:
    return [100 * (p.argmax(-1) == y).float().mean().item() for p, y in tasks]


# --- scores ---


@pytest.mark.parametrize(
    ("method", "heads"),
    [
        ("omni-training", ["pre", "joint", "meta"]),
        ("ensemble", ["pre", "meta"]),
        ("pre-training", ["pre"]),
        ("joint-training", ["joint"]),
    ],
)
def test_every_flow_and_the_ensemble_are_evaluated_and_separable_classes_are_separated(
    method: Method, heads: list[str], data: Classification
) -> None:
    network = model(data, method, backbone=pixels)
    found = data.evaluate(network, Inference(), 10)
    assert found.unit == "accuracy %" and found.higher_is_better
    assert tuple(found.cells) == NAMES
    for cell in found.cells.values():
        assert list(cell.scores) == [*heads, ENSEMBLE]
        assert all(scores == [100.0] * 10 for scores in cell.scores.values())


def test_a_flow_whose_loss_is_off_is_not_evaluated(data: Classification) -> None:
    off = model(data, loss=OmniLoss(l_meta=False))
    assert list(data.evaluate(off, Inference(), 2).cells[NAMES[0]].scores) == [
        *("pre", "joint", ENSEMBLE)
    ]


@pytest.mark.parametrize("shots", [1, 2])
@pytest.mark.parametrize(
    ("joint_head", "meta_head"), [("pre", "meta"), ("meta", "both"), ("both", "pre")]
)
def test_scores_equal_a_slow_loop_over_raw_images(
    shots: int, joint_head: str, meta_head: str, hard: Classification
) -> None:
    network = model(hard)
    inference = Inference(joint_head=joint_head, meta_head=meta_head)  # type: ignore[arg-type]
    cell = hard.evaluate(network, inference, 8).cells[NAMES[shots - 1]]
    pre, meta = network.pretraining, network.metatraining
    flows = {
        "pre": slow(network.network("pre"), pre, hard, shots),
    }
    outer = {
        "pre": slow(network.network("meta"), pre, hard, shots),
        "meta": slow(network.network("meta"), meta, hard, shots),
    }
    joint = {
        "pre": slow(network.network("joint_pre"), pre, hard, shots),
        "meta": slow(network.network("joint_meta"), meta, hard, shots),
    }
    for heads in (outer, joint):
        heads["both"] = [
            ((p + q) / 2, y) for (p, y), (q, _) in zip(heads["pre"], heads["meta"], strict=True)
        ]
    flows["joint"], flows["meta"] = joint[joint_head], outer[meta_head]
    flows[ENSEMBLE] = [
        ((p + q + r) / 3, y)
        for (p, y), (q, _), (r, _) in zip(flows["pre"], flows["joint"], flows["meta"], strict=True)
    ]
    for head, tasks in flows.items():
        assert cell.scores[head] == pytest.approx(accuracies(tasks), abs=1e-4), head
    assert cell.mean() < 95  # or all of this would show little


def test_algorithms_that_change_the_network_are_given_images(
    hard: Classification, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ADAPT_BATCH", 3)  # 8 tasks in 3 parts, the last one smaller
    maml = MAML(steps=2, lr=0.1)
    network = model(hard, "meta-training", metatraining=maml)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    cell = hard.evaluate(network, Inference(), 8).cells[NAMES[1]]
    assert cell.scores["meta"] == cell.scores[ENSEMBLE]
    expected = accuracies(slow(network.network("meta"), maml, hard, 2))
    assert cell.scores["meta"] == pytest.approx(expected, abs=1e-4)
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())


def test_fewer_tasks_are_the_first_of_more(hard: Classification) -> None:
    network = model(hard)
    few, many = (hard.evaluate(network, Inference(), count).cells for count in (4, 12))
    for name in NAMES:
        for head, scores in few[name].scores.items():
            assert scores == pytest.approx(many[name].scores[head][:4])


# --- tasks ---


def hashes(data: Classification, network: Model) -> list[str]:
    return [cell.tasks_hash for cell in data.evaluate(network, Inference(), 4).cells.values()]


def test_every_method_is_evaluated_on_the_same_tasks(data: Classification) -> None:
    methods: list[Method] = ["omni-training", "pre-training", "meta-training"]
    found = {tuple(hashes(data, model(data, method))) for method in methods}
    assert len(found) == 1 and len({*found.pop()}) == 2  # shots differ


def test_other_images_are_other_tasks(data: Classification) -> None:
    images = data.benchmarks["blobs"]
    other = images.images.clone()
    other[0, 0, 0, 0] += 1
    changed = LabeledImages(other, images.labels, images.classes, images.name)
    network = model(data)
    rival = Classification(data.training, data.validation, {"blobs": changed}, PROTOCOL)
    assert not {*hashes(data, network)} & {*hashes(rival, network)}


def test_fewer_shots_have_the_first_images_of_more_and_the_same_queries(
    data: Classification, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    original = module.tasks_hash

    def spy(fingerprint: str, support: Tensor, query: Tensor) -> str:
        seen.append((support, query))
        return original(fingerprint, support, query)

    monkeypatch.setattr(module, "tasks_hash", spy)
    data.evaluate(model(data), Inference(), 5)
    (one, query), (two, same_query) = seen
    assert one.shape == (5, 3, 1) and two.shape == (5, 3, 2)
    assert torch.equal(one, two[:, :, :1]) and torch.equal(query, same_query)


def test_ways_are_capped_at_the_classes_of_a_benchmark() -> None:
    wide = EpisodeConfig(ways=3, shots=1, queries=3, test_ways=7, test_shots=(1,))
    data = Classification(blobs(8, 9, "a"), blobs(7, 9, "b"), {"few": blobs(4, 9, "c")}, wide)
    assert list(data.evaluate(model(data), Inference(), 2).cells) == [CellKey("few", 4, 1)]


def test_shots_may_be_chosen_later_but_must_fit(data: Classification) -> None:
    network = model(data)
    more = data.with_test_shots((4,))
    assert list(more.evaluate(network, Inference(), 2).cells) == [CellKey("blobs", 3, 4)]
    assert list(data.evaluate(network, Inference(), 2).cells) != list(
        more.evaluate(network, Inference(), 2).cells
    )
    data = data.with_test_shots((7,))
    with pytest.raises(InputError, match=r"class 'c0' of c has 9 images, fewer than .* = 10"):
        data.evaluate(network, Inference(), 2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ways": 1}, "protocol.ways is 1: it must be 2 or more"),
        ({"test_ways": 0}, "protocol.test_ways is 0: it must be 2 or more"),
        ({"queries": 0}, "protocol.queries is 0: it must be 1 or more"),
        ({"test_shots": ()}, "protocol.test_shots is (): give numbers of 1 or more"),
        ({"test_shots": (1, 0)}, "protocol.test_shots is (1, 0): give numbers of 1 or more"),
    ],
)
def test_impossible_protocols_are_refused(options: dict[str, int], words: str) -> None:
    with pytest.raises(InputError) as caught:
        EpisodeConfig(**options)  # type: ignore[arg-type]
    assert str(caught.value) == words


def test_more_ways_than_training_classes_are_refused() -> None:
    with pytest.raises(InputError, match="a has 8 classes, fewer than 9 ways"):
        Classification(blobs(8, 12, "a"), blobs(8, 12, "b"), {}, EpisodeConfig(ways=9, queries=3))


# --- training data ---


def seen_as(data: Classification) -> dict[tuple[float, ...], int]:
    """The label, over all domains, of every training image without augmentation."""
    labels = iter(range(1000))
    table = {}
    for domain in data.training:
        own = [next(labels) for _ in domain.classes]
        for image, label in zip(data.augmentation.eval(domain.images), domain.labels, strict=True):
            table[tuple(image.flatten().tolist())] = own[label]
    return table


def test_inputs_are_normalized_by_the_training_images_alone() -> None:
    first, second = blobs(8, 12, "a"), blobs(6, 9, "c", 2)
    brighter = LabeledImages(second.images // 2, second.labels, second.classes, second.name)
    datas = [
        Classification(first, second, {"x": images}, PROTOCOL) for images in (second, brighter)
    ]
    training = datas[0].augmentation.eval(first.images)
    assert training.mean().abs() < 1e-5 and (training.std() - 1).abs() < 1e-4
    levels = first.images.double() / 255
    expected = (second.images.double() / 255 - levels.mean()) / levels.std()
    for data in datas:
        torch.testing.assert_close(data.augmentation.eval(second.images).double(), expected)


def test_batches_and_episodes_are_labeled_training_images(data: Classification) -> None:
    table = seen_as(data)
    random = torch.Generator().manual_seed(0)
    batch = data.minibatch(0, random)
    assert batch.x.shape == (8, 1, 16, 16)
    assert [table[tuple(x.flatten().tolist())] for x in batch.x] == batch.y.tolist()
    episode = data.episode(0, random)
    assert episode.ways == 3
    classes: dict[int, set[int]] = {0: set(), 1: set(), 2: set()}
    for x, y in ((episode.support_x, episode.support_y), (episode.query_x, episode.query_y)):
        for image, label in zip(x[0], y[0].tolist(), strict=True):
            classes[label].add(table[tuple(image.flatten().tolist())])
    assert all(len(originals) == 1 for originals in classes.values())
    assert len(set.union(*classes.values())) == 3
    assert episode.support_x.shape[:2] == (1, 6) and episode.query_x.shape[:2] == (1, 9)


# --- several domains, and sets larger than memory ---


@pytest.fixture(params=["small", "large"])
def domains(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Classification:
    """Three domains of 8, 5 and 3 classes; when large, they are not copied into one tensor."""
    if request.param == "large":
        monkeypatch.setattr(domain_module, "MOVED", 0)
    parts = [blobs(8, 6, "a"), blobs(5, 12, "d", 3), blobs(3, 28, "e", 4)]
    data = Classification(parts, blobs(7, 9, "b", 1), {"blobs": blobs(6, 9, "c", 2)}, PROTOCOL)
    data.to(torch.device("cpu"))
    return data


def test_minibatches_are_uniform_over_the_union_and_have_all_its_classes(
    domains: Classification,
) -> None:
    table, random = seen_as(domains), torch.Generator().manual_seed(0)
    assert domains.pre_outputs == 16 and domains.meta_outputs == 3
    times = torch.zeros(16)
    for step in range(300):
        batch = domains.minibatch(step, random)
        assert [table[tuple(x.flatten().tolist())] for x in batch.x] == batch.y.tolist()
        times += batch.y.bincount(minlength=16)
    images = torch.tensor([6.0] * 8 + [12] * 5 + [28] * 3)
    expected = images / images.sum() * 2400
    assert ((times - expected).abs() < 5 * expected.sqrt()).all()


def test_every_episode_is_of_one_domain_and_domains_take_turns(domains: Classification) -> None:
    table, random = seen_as(domains), torch.Generator().manual_seed(0)
    found = []
    for step in range(60):
        episode = domains.episode(step, random)
        labels = {}
        for x, y in ((episode.support_x, episode.support_y), (episode.query_x, episode.query_y)):
            for image, label in zip(x[0], y[0].tolist(), strict=True):
                original = table[tuple(image.flatten().tolist())]
                assert labels.setdefault(label, original) == original
        assert len(set(labels.values())) == 3
        found += [{0 if label < 8 else 1 if label < 13 else 2 for label in labels.values()}]
    assert found == [{0}, {1}, {2}] * 20


def test_episodes_name_their_training_classes(domains: Classification) -> None:
    table, random = seen_as(domains), torch.Generator().manual_seed(0)
    for step in range(6):
        episode = domains.episode(step, random)
        labels = episode.training_classes(episode.query_y)[0].tolist()
        assert labels == [table[tuple(image.flatten().tolist())] for image in episode.query_x[0]]
    first = next(iter(domains.benchmarks.values()))
    tasks = domains.test_episode(first, domains.fixed_tasks(first, 3, 1, 2))
    with pytest.raises(InputError, match=r"a problem that sets Episode\.classes"):
        tasks.training_classes(tasks.query_y)


def test_large_sets_give_the_batches_of_small_ones_and_stay_in_their_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [blobs(8, 12, "a"), blobs(5, 9, "d", 3)]
    rest = blobs(7, 9, "b", 1), {"blobs": blobs(6, 9, "c", 2)}, PROTOCOL
    mapped = []
    for part in parts:
        np.save(tmp_path / f"{part.name}.npy", part.images.numpy())
        pixels = np.load(tmp_path / f"{part.name}.npy", mmap_mode="r+")
        mapped.append(replace(part, images=torch.from_numpy(pixels)))
    for few in (slice(0, 1), slice(0, 2)):
        small = Classification(parts[few], *rest)
        with monkeypatch.context() as patch:
            patch.setattr(domain_module, "MOVED", 0)
            large = Classification(mapped[few], *rest)
            large.to(torch.device("cpu"))
            for step in range(4):
                randoms = [torch.Generator().manual_seed(step) for _ in range(2)]
                batches = [
                    data.minibatch(step, random)
                    for data, random in zip((small, large), randoms, strict=True)
                ]
                assert torch.equal(batches[0].x, batches[1].x)
                assert torch.equal(batches[0].y, batches[1].y)
                episodes = [
                    data.episode(step, random)
                    for data, random in zip((small, large), randoms, strict=True)
                ]
                assert torch.equal(episodes[0].inputs(), episodes[1].inputs())
            held = [images.data_ptr() for images in large.domains._images]
            assert held == [part.images.data_ptr() for part in mapped[few]]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("moved", [0, 2**31])
def test_batches_on_a_gpu_equal_batches_on_the_cpu(
    moved: int, data: Classification, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(domain_module, "MOVED", moved)
    found = []
    for device in (torch.device("cpu"), torch.device("cuda")):
        data.to(device)
        random = torch.Generator().manual_seed(0)
        batch, episode = data.minibatch(0, random), data.episode(0, random)
        assert {t.device.type for t in (batch.x, batch.y, episode.query_x, episode.query_y)} == {
            device.type
        }
        found.append([batch.x.cpu(), batch.y.cpu(), episode.inputs().cpu()])
    for here, there in zip(*found, strict=True):
        torch.testing.assert_close(here, there)


def test_domains_that_do_not_go_together_are_refused() -> None:
    rest = blobs(7, 9, "b"), {}, PROTOCOL
    color = blobs(8, 12, "d")
    color = replace(color, images=color.images.expand(-1, 3, -1, -1))
    with pytest.raises(InputError, match="images of d are 3 x 16 x 16, images of a 1 x 16 x 16"):
        Classification([blobs(8, 12, "a"), color], *rest)
    with pytest.raises(InputError, match="there is no training domain: give one or more"):
        Classification([], *rest)
    with pytest.raises(InputError, match="d has 2 classes, fewer than 3 ways"):
        Classification([blobs(8, 12, "a"), blobs(2, 12, "d")], *rest)


# --- augmentation ---


class Marked(Augmentation):
    """Training inputs are above 100; lists the methods that were called."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def train(self, images: Tensor, random: torch.Generator) -> Tensor:
        self.calls.append("train")
        return images / 255 + 100 + torch.rand(len(images), 1, 1, 1, generator=random)

    def eval(self, images: Tensor) -> Tensor:
        self.calls.append("eval")
        return images / 255


@pytest.mark.parametrize("metatraining", [ProtoNet(), MAML(steps=1, lr=0.1)])
def test_only_training_images_are_augmented(metatraining: MetaTraining) -> None:
    augmentation, random = Marked(), torch.Generator().manual_seed(0)
    parts = blobs(8, 12, "a"), blobs(7, 9, "b", 1), {"blobs": blobs(6, 9, "c", 2)}
    data = Classification(*parts, PROTOCOL, augmentation)
    batch, episode = data.minibatch(0, random), data.episode(0, random)
    for x in (batch.x, episode.support_x, episode.query_x):
        assert x.min() > 100
    # support and query are seen at once, and each image is augmented by itself
    assert augmentation.calls == ["train", "train"]
    assert len(set(episode.inputs().flatten(1).min(1).values.tolist())) == 15
    assert torch.equal(data.example(), data.training[0].images[:2] / 255)
    network = model(data, "meta-training", metatraining=metatraining, backbone=pixels)
    for evaluate in (data.validation_scores, data.evaluate):
        augmentation.calls.clear()
        evaluate(network, Inference())
        assert set(augmentation.calls) == {"eval"}


def test_statistics_of_many_images_come_from_a_sample_of_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second half is brighter: images from the start alone would be too dark."""
    first, second = blobs(8, 30, "a"), blobs(8, 30, "d", 1)
    second = replace(second, images=second.images // 2 + 120)
    rest = blobs(7, 9, "b"), {"x": blobs(6, 9, "c")}, PROTOCOL
    exact = Classification([first, second], *rest).augmentation
    monkeypatch.setattr(module, "STATISTICS_IMAGES", 60)
    some = Classification([first, second], *rest).augmentation
    assert isinstance(exact, NoAugmentation) and isinstance(some, NoAugmentation)
    levels = torch.cat([first.images, second.images]).double() / 255
    torch.testing.assert_close(exact.mean, levels.mean((0, 2, 3)).float())
    torch.testing.assert_close(exact.std, levels.std((0, 2, 3)).float())
    assert not torch.equal(some.mean, exact.mean)
    torch.testing.assert_close(some.mean, exact.mean, atol=0.01, rtol=0)
    torch.testing.assert_close(some.std, exact.std, atol=0.01, rtol=0)


def test_each_channel_is_normalized_by_its_own_statistics() -> None:
    gray = blobs(8, 12, "a")
    color = replace(gray, images=torch.cat([gray.images, gray.images // 2], 1))
    augmentation = Classification(color, color, {"x": color}, PROTOCOL).augmentation
    levels = color.images.double() / 255
    assert isinstance(augmentation, NoAugmentation)
    torch.testing.assert_close(augmentation.mean, levels.mean((0, 2, 3)).float())
    torch.testing.assert_close(augmentation.std, levels.std((0, 2, 3)).float())


# --- the vote ---


def test_chosen_weights_are_the_nearest_to_equal_that_do_best(
    data: Classification, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pre-flow is right at 0.62, the meta-flow wrong at 0.9: at 10 : 3 they part."""
    heads = {"pre": torch.tensor([[[0.62, 0.38]]]), "meta": torch.tensor([[[0.1, 0.9]]])}
    answer = heads, torch.tensor([[0]]), ""
    monkeypatch.setattr(data, "probabilities", lambda *_: answer)
    network = model(data, "ensemble")
    weights = data._ensemble_weights(network, Inference(ensemble_weights="validation"))
    for shots in (1, 2):
        assert weights[shots] == pytest.approx({"pre": 0.8, "meta": 0.2})
    equal = data._ensemble_weights(network, Inference())
    assert equal == {shots: {"pre": 0.5, "meta": 0.5} for shots in (1, 2)}


def test_chosen_weights_do_best_on_validation_tasks(hard: Classification) -> None:
    network, inference = model(hard), Inference(ensemble_weights="validation")
    weights = hard._ensemble_weights(network, inference)
    for shots in (1, 2):
        heads, labels, _ = hard.probabilities(
            network, inference, hard.validation, 3, shots, module.VALIDATION_TASKS, {}
        )
        vote = sum(weight * heads[flow] for flow, weight in weights[shots].items())

        def hits(p: Tensor, labels: Tensor = labels) -> float:
            return (p.argmax(-1) == labels).float().mean().item()

        rivals = [*heads.values(), sum(heads.values()) / 3]
        rivals += [(p + q) / 2 for p, q in pairwise(heads.values())]
        assert all(hits(vote) >= hits(rival) - 1e-6 for rival in rivals)


def test_the_ensemble_is_weighted_as_chosen(
    hard: Classification, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {shots: {"pre": 0.0, "joint": 0.0, "meta": 1.0} for shots in (1, 2)}
    monkeypatch.setattr(hard, "_ensemble_weights", lambda *_: chosen)
    cells = hard.evaluate(model(hard), Inference(), 8).cells

    def same(cell: Cell) -> bool:
        return cell.scores[ENSEMBLE] == cell.scores["meta"]

    assert all(same(cell) for cell in cells.values())
    assert any(cell.scores["pre"] != cell.scores["meta"] for cell in cells.values())


def test_only_flows_that_vote_count(hard: Classification) -> None:
    cells = hard.evaluate(model(hard), Inference(flows=("joint",)), 8).cells
    assert all(cell.scores[ENSEMBLE] == cell.scores["joint"] for cell in cells.values())


def test_validation_is_the_accuracy_of_the_equal_vote(hard: Classification) -> None:
    network = model(hard)
    heads, labels, _ = hard.probabilities(
        network, Inference(), hard.validation, 3, 2, module.VALIDATION_TASKS, {}
    )
    vote = sum(heads.values()) / 3
    expected = (vote.argmax(-1) == labels).float().mean().item() * 100
    assert hard.validation_scores(network, Inference())[ENSEMBLE] == pytest.approx(expected)
    scores = hard.validation_scores(network, Inference(flows=("pre",)))
    assert scores == {
        head: pytest.approx((p.argmax(-1) == labels).float().mean().item() * 100)
        for head, p in {**heads, "ensemble": heads["pre"]}.items()
    }
    assert hard.validation_scores(network, Inference(flows=("pre",)))[ENSEMBLE] == pytest.approx(
        (heads["pre"].argmax(-1) == labels).float().mean().item() * 100
    )


def test_validation_has_fewer_ways_where_there_are_fewer_classes() -> None:
    wide = EpisodeConfig(ways=5, shots=2, queries=3, batch=8, test_ways=4, test_shots=(1,))
    tests = {"three": blobs(3, 12, "d"), "eight": blobs(8, 12, "e")}
    problem = Classification(blobs(8, 12, "a"), blobs(2, 12, "b"), tests, wide)
    assert problem.test_outputs == {2, 3, 4} and problem.meta_outputs == 5
    model = build_model("joint-training", lambda: Conv4(1, 4), problem).eval()
    assert (
        0
        <= problem.validation_scores(model, Inference(ensemble_weights="validation"))[ENSEMBLE]
        <= 100
    )
    cells = problem.evaluate(model, Inference(ensemble_weights="validation"), tasks=5).cells
    assert list(cells) == [CellKey("three", 3, 1), CellKey("eight", 4, 1)]


class Noisy(NoAugmentation):
    """Noise on training images, of which no two are the same."""

    def train(self, images: Tensor, random: torch.Generator) -> Tensor:
        return self.eval(images) + torch.rand(images.shape, generator=random)


def test_augmented_copies_take_the_place_of_support_images() -> None:
    """Of every support image so many features, drawn once with the same seed; queries are plain."""
    copies, images = 3, blobs(6, 9, "c", 2)
    augmentation = Noisy(torch.tensor([0.5]), torch.tensor([0.2]))
    data = Classification(
        blobs(8, 12, "a"), blobs(7, 9, "b", 1), {"blobs": images},
        replace(PROTOCOL, augmented_supports=copies), augmentation,
    )  # fmt: skip
    trained = model(data, "pre-training")
    (head,) = trained.heads_of("pre", "pre")
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        plain = head.network.backbone(augmentation.eval(images.images))
        views = [
            head.network.backbone(augmentation.train(images.images, random)) for _ in range(copies)
        ]
    tasks = data.fixed_tasks(images, 3, 1, 4)
    for task, (support, query) in enumerate(zip(tasks.support, tasks.query, strict=True)):
        rows = [view[row] for row in support for view in views]
        x, y = torch.cat(rows), torch.arange(3).repeat_interleave(copies)
        labels = torch.arange(3)[:, None].expand(query.shape).flatten()
        episode = Episode(x[None], y[None], plain[query.flatten()][None], labels[None], 3)
        with torch.no_grad():
            wanted = head.algorithm.predict(Network(nn.Identity(), head.network.head), episode)
        found, _, _ = data.probabilities(trained, Inference(), images, 3, 1, 4, {}, copies)
        torch.testing.assert_close(found["pre"][task], wanted[0].softmax(-1), atol=1e-4, rtol=1e-4)
    labels = torch.arange(3).repeat_interleave(PROTOCOL.queries)
    wanted = 100 * (found["pre"].argmax(-1) == labels).float().mean(1)
    scores = data.evaluate(trained, Inference(), 4).cells[NAMES[0]].scores["pre"]
    assert scores == pytest.approx(wanted.tolist())


def test_copies_of_supports_are_refused_where_networks_adapt(data: Classification) -> None:
    data.protocol = replace(PROTOCOL, augmented_supports=2)
    maml = model(data, "meta-training", metatraining=MAML())
    with pytest.raises(InputError, match="augmented_supports is 2: it must be 0 for algorithms"):
        data.evaluate(maml, Inference(), 2)

"""The inner loop of MAML against a computation unrolled by hand."""

import copy
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from omnitraining.adaptation.batched import BatchedModules, Weights
from omnitraining.adaptation.inner_loop import adapt_and_predict
from omnitraining.backbones import MLP, Conv4, ResNet10
from omnitraining.batches import Episode, MiniBatch
from omnitraining.errors import InputError
from omnitraining.losses import cross_entropy, squared_error
from omnitraining.metatraining import Reptile
from omnitraining.network import Network
from omnitraining.omninet import OmniNet
from omnitraining.teacher import Teacher
from tests.reference import maml, reptile
from tests.reference.zoo import TinyViT

pytestmark = pytest.mark.usefixtures("float64")
CLOSE = {"rtol": 1e-10, "atol": 1e-10}
LOSSES = {"regression": squared_error, "classification": cross_entropy}


def perceptron() -> Network:
    return Network(MLP(2, (5,)), nn.Linear(5, 3))


def episode(tasks: int, kind: str = "regression", shape: tuple[int, ...] = (2,)) -> Episode:
    """Tasks of 6 support and 4 query samples."""
    if kind == "regression":
        return Episode(
            torch.randn(tasks, 6, *shape), torch.randn(tasks, 6, 3),
            torch.randn(tasks, 4, *shape), torch.randn(tasks, 4, 3),
        )  # fmt: skip
    labels = torch.arange(3).repeat(tasks, 2)
    x = torch.randn(tasks, 6, *shape), torch.randn(tasks, 4, *shape)
    return Episode(x[0], labels, x[1], labels[:, :4], ways=3)


def single(tasks: Episode, index: int) -> Episode:
    part = slice(index, index + 1)
    return Episode(
        tasks.support_x[part], tasks.support_y[part], tasks.query_x[part], tasks.query_y[part],
        tasks.ways,
    )  # fmt: skip


def outer_gradients(loss: Tensor, network: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(network.parameters())))


@pytest.mark.parametrize("second_order", [True, False])
@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("tasks", [1, 3])
@pytest.mark.parametrize("kind", LOSSES)
def test_outputs_and_outer_gradients_equal_an_unrolling_by_hand(
    kind: str, tasks: int, steps: int, second_order: bool
) -> None:
    network, data, loss = perceptron(), episode(tasks, kind), LOSSES[kind]
    outputs = adapt_and_predict(network, data, loss, (steps,), 0.3, second_order)[0]
    expected = torch.stack([
        maml.adapted(
            list(network.parameters()), (data.support_x[t], data.support_y[t]),
            data.query_x[t], steps, 0.3, second_order,
        )
        for t in range(tasks)
    ])  # fmt: skip
    torch.testing.assert_close(outputs, expected, **CLOSE)
    actual = outer_gradients(loss(outputs, data.query_y), network)
    expected_gradients = outer_gradients(loss(expected, data.query_y), network)
    for one, other in zip(actual, expected_gradients, strict=True):
        torch.testing.assert_close(one, other, **CLOSE)


@pytest.mark.parametrize("tasks", [1, 3])
def test_the_second_order_gradient_is_not_the_first_order_one(tasks: int) -> None:
    network, data = perceptron(), episode(tasks)
    gradients = [
        outer_gradients(
            squared_error(
                adapt_and_predict(network, data, squared_error, (1,), 0.3, order)[0], data.query_y
            ),
            network,
        )
        for order in (True, False)
    ]
    assert all((a - b).abs().max() > 1e-4 for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("tasks", [1, 3])
def test_several_numbers_of_steps_are_reported_in_one_pass(tasks: int) -> None:
    network, data = perceptron(), episode(tasks)
    outputs = adapt_and_predict(network, data, squared_error, (0, 1, 4), 0.3)
    assert outputs.shape == (3, tasks, 4, 3)
    torch.testing.assert_close(outputs[0], network(data.query_x), **CLOSE)
    for index, steps in enumerate((0, 1, 4)):
        alone = adapt_and_predict(network, data, squared_error, (steps,), 0.3)[0]
        torch.testing.assert_close(outputs[index], alone, **CLOSE)


def conv4() -> nn.Module:
    return Network(Conv4(1, 4), nn.Linear(4, 3))


class Recurrent(nn.Module):
    """Reads two numbers one after the other."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.memory = kind(1, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.memory(x.unsqueeze(-1))[0][:, -1]


class Stepwise(nn.Module):
    """The same with a cell."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(1, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x[:, 1:], self.cell(x[:, :1]))


class Branching(nn.Module):
    """Branches on values: in Python, by a mask, and by numpy."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.first, self.last = nn.BatchNorm1d(2), nn.Linear(2, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(self.norm(x)))
        if x.mean() > 0:
            x = 2 * x
        scale = 1 + x[x > 0].mean() + float(x.detach().abs().max().numpy())
        return self.last(x * scale)


NETWORKS = {
    "lstm": (lambda: Network(Recurrent(nn.LSTM), nn.Linear(4, 3)), (2,)),
    "gru": (lambda: Network(Recurrent(nn.GRU), nn.Linear(4, 3)), (2,)),
    "cell": (lambda: Network(Stepwise(), nn.Linear(4, 3)), (2,)),
    "control flow": (Branching, (2,)),
    "perceptron": (perceptron, (2,)),
    "conv4": (conv4, (1, 16, 16)),
    "flow of conv4": (
        lambda: Network(OmniNet(Conv4(1, 4), branch_init="random").meta, nn.Linear(4, 3)),
        (1, 16, 16),
    ),
    "other norms": (
        lambda: nn.Sequential(
            nn.Linear(2, 4), nn.LayerNorm(4), nn.Tanh(), nn.Unflatten(1, (2, 2)),
            nn.InstanceNorm1d(2, affine=True), nn.Flatten(), nn.Tanh(), nn.Linear(4, 3),
        ),
        (2,),
    ),
    "low-rank flow": (
        lambda: Network(OmniNet(MLP(2, (5,)), 1, "random").pre, nn.Linear(5, 3)), (2,)
    ),
}  # fmt: skip


@pytest.mark.parametrize("chunk", [None, 2])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("second_order", [True, False])
def test_tasks_in_a_batch_equal_tasks_one_by_one(
    name: str, chunk: int | None, second_order: bool
) -> None:
    """Gradients too: under vmap, torch differentiates norms wrongly the second time."""
    make, shape = NETWORKS[name]
    network, data = make(), episode(3, "classification", shape)

    def outputs(part: Episode) -> Tensor:
        return adapt_and_predict(network, part, cross_entropy, (0, 2), 0.1, second_order, chunk)

    batched, looped = outputs(data), torch.cat([outputs(single(data, t)) for t in range(3)], 1)
    torch.testing.assert_close(batched, looped, rtol=1e-8, atol=1e-8)
    actual = outer_gradients(cross_entropy(batched[1], data.query_y), network)
    expected_gradients = outer_gradients(cross_entropy(looped[1], data.query_y), network)
    for one, other in zip(actual, expected_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-8)
    assert all(gradient.abs().sum() > 0 for gradient in actual)


def test_a_flow_of_a_residual_omni_net_adapts_its_joint_and_its_branch_weights() -> None:
    net = OmniNet(ResNet10(1), branch_init="random").float()
    network = Network(net.meta, nn.Linear(512, 3).float())
    data = episode(1, "classification", (1, 8, 8))
    x = data.support_x.float(), data.query_x.float()
    data = Episode(x[0], data.support_y, x[1], data.query_y, 3)
    outputs = adapt_and_predict(network, data, cross_entropy, (0, 1), 0.01)
    assert (outputs[1] - outputs[0]).abs().max() > 1e-4
    cross_entropy(outputs[1], data.query_y).backward()
    assert net.joint.conv1.weight.grad is not None
    assert all(p.grad.abs().sum() > 0 for p in network.parameters())


@pytest.mark.parametrize("tasks", [1, 3])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_uses_the_batch_and_leaves_running_statistics_and_modes_alone(
    tasks: int, training: bool
) -> None:
    network = conv4().train(training)
    network.backbone[4].eval()  # a mode set by hand survives too
    modes = [m.training for m in network.modules()]
    buffers = {name: b.clone() for name, b in network.named_buffers()}
    data = episode(tasks, "classification", (1, 16, 16))
    outputs = adapt_and_predict(network, data, cross_entropy, (0, 1), 0.1)
    assert [m.training for m in network.modules()] == modes
    for name, buffer in network.named_buffers():
        assert torch.equal(buffer, buffers[name])
    by_batch = copy.deepcopy(network).train()
    for t in range(tasks):
        expected = by_batch(data.query_x[t])
        torch.testing.assert_close(outputs[0, t], expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("tasks", [1, 3])
def test_adaptation_works_without_outer_gradients(tasks: int) -> None:
    network, data = conv4(), episode(tasks, "classification", (1, 16, 16))
    expected = adapt_and_predict(network, data, cross_entropy, (0, 2), 0.1)
    with torch.no_grad():
        outputs = adapt_and_predict(network, data, cross_entropy, (0, 2), 0.1)
    assert not outputs.requires_grad
    torch.testing.assert_close(outputs, expected, **CLOSE)
    assert all(p.grad is None and p.requires_grad for p in network.parameters())


class Failing(nn.Linear):
    """Fails under vmap, and without it too."""

    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("no such layer" if x.mean() > -9 else "")


def test_errors_of_a_network_are_its_own() -> None:
    """The message of vmap would hide the cause."""
    with pytest.raises(RuntimeError, match="no such layer"):
        adapt_and_predict(Failing(2, 3), episode(3), squared_error, (1,), 0.1)


def test_vmap_is_tried_once_where_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    mapped = BatchedModules._vmapped

    def counted(self: BatchedModules, weights: Weights, x: Tensor) -> Tensor:
        tried.append(1)
        return mapped(self, weights, x)

    monkeypatch.setattr(BatchedModules, "_vmapped", counted)
    network = nn.Sequential(Doubling(), nn.Linear(2, 3))
    adapt_and_predict(network, episode(3), squared_error, (0, 2), 0.1)
    assert len(tried) == 1
    adapt_and_predict(
        Network(Recurrent(nn.LSTM), nn.Linear(4, 3)), episode(3), squared_error, (1,), 1
    )
    assert len(tried) == 1


class Doubling(nn.Module):
    """Branches on a value."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x if x.mean() > 0 else x


@pytest.mark.parametrize("tasks", [1, 3])
def test_a_frozen_network_adapts_and_stays_frozen(tasks: int) -> None:
    """The teacher, or a backbone of which the user froze a part."""
    network, data = conv4(), episode(tasks, "classification", (1, 16, 16))
    expected = adapt_and_predict(network, data, cross_entropy, (0, 2), 0.1)
    teacher = Teacher(network).model
    outputs = adapt_and_predict(teacher, data, cross_entropy, (0, 2), 0.1)
    torch.testing.assert_close(outputs, expected, **CLOSE)
    assert not any(p.requires_grad for p in teacher.parameters())


@pytest.mark.parametrize("tasks", [1, 3])
def test_a_parameter_that_the_forward_pass_does_not_use_stays_as_it_is(tasks: int) -> None:
    network, data = perceptron(), episode(tasks)
    expected = adapt_and_predict(network, data, squared_error, (0, 2), 0.1)
    network.spare = nn.Linear(2, 2)
    outputs = adapt_and_predict(network, data, squared_error, (0, 2), 0.1)
    torch.testing.assert_close(outputs, expected, **CLOSE)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("tasks", [1, 2])
@pytest.mark.filterwarnings("ignore:There is a performance drop")  # vmap over attention
def test_transformers_adapt_with_and_without_outer_gradients(tasks: int, training: bool) -> None:
    network = Network(OmniNet(TinyViT(), branch_init="random").meta, nn.Linear(8, 3))
    data = episode(tasks, "classification", (3, 8, 8))
    network.train(training)
    outputs = adapt_and_predict(network, data, cross_entropy, (0, 2), 0.1)
    cross_entropy(outputs[1], data.query_y).backward()
    assert all(p.grad.abs().sum() > 0 for p in network.parameters())
    with torch.no_grad():
        again = adapt_and_predict(network, data, cross_entropy, (0, 2), 0.1)
    torch.testing.assert_close(again, outputs, **CLOSE)


class Tied(nn.Module):
    """One weight under two names, in two modules."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))


@pytest.mark.parametrize("tasks", [1, 2])
def test_tied_weights_adapt_as_one(tasks: int) -> None:
    network = Tied()
    data = episode(tasks)
    data = Episode(data.support_x, data.support_y[..., :2], data.query_x, data.query_y[..., :2])
    outputs = adapt_and_predict(network, data, squared_error, (1,), 0.1)[0]
    for t in range(tasks):
        by_hand = copy.deepcopy(network)
        squared_error(by_hand(data.support_x[t]), data.support_y[t]).backward()
        torch.optim.SGD(by_hand.parameters(), 0.1).step()
        torch.testing.assert_close(outputs[t], by_hand(data.query_x[t]), **CLOSE)


@pytest.mark.parametrize("tasks", [1, 3])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("regression", {}),
        ("regression", {"batch": 4}),
        ("classification", {}),
        ("classification", {"optimizer": "adam"}),
        ("classification", {"optimizer": "adam", "batch": 4, "test_steps": 6}),
        ("classification", {"batch": 99, "test_steps": 0}),
    ],
)
@pytest.mark.parametrize("backbone", ["perceptron", "convolutions"])
def test_reptile_s_gradient_is_the_mean_way_back_from_networks_that_sgd_trained(
    backbone: str,
    kind: Literal["classification", "regression"],
    options: dict[str, Any],
    tasks: int,
) -> None:
    """Batches follow each other in the support set; at test, all of it is in every step."""
    network = perceptron() if backbone == "perceptron" else conv4()
    data = episode(tasks, kind, (2,) if backbone == "perceptron" else (1, 16, 16))
    algorithm = Reptile(4, 0.03, kind, **options)
    size = data.support_y.shape[1]

    def trained(steps: int, batch: int) -> list[nn.Module]:
        chosen = steps, 0.03, options.get("optimizer", "sgd"), batch
        return [
            reptile.trained(network, x, y, algorithm.loss, *chosen)
            for x, y in zip(data.support_x, data.support_y, strict=True)
        ]

    copies = trained(4, options.get("batch", 0) if options.get("batch", 0) < size else 0)
    nothing = MiniBatch(torch.empty(0), torch.empty(0))
    outputs, loss = algorithm.outputs_and_loss(network, data, nothing)
    expected = [copied(x) for copied, x in zip(copies, data.query_x, strict=True)]
    torch.testing.assert_close(outputs, torch.stack(expected), **CLOSE)
    at_test = trained(options.get("test_steps", 4), 0)
    expected = [copied(x) for copied, x in zip(at_test, data.query_x, strict=True)]
    torch.testing.assert_close(algorithm.predict(network, data), torch.stack(expected), **CLOSE)
    squared = 0.0
    for name, (own, slope) in zip(
        dict(network.named_parameters()),
        zip(network.parameters(), outer_gradients(loss, network), strict=True),
        strict=True,
    ):
        ways = torch.stack([own - copied.get_parameter(name) for copied in copies])
        torch.testing.assert_close(slope, ways.mean(0) / 0.03, **CLOSE)
        squared += ways.square().sum().item()
    assert loss.item() == pytest.approx(squared / (2 * 0.03 * tasks))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": -1}, "steps is -1: it must be 0 or more"),
        ({"lr": 0.0}, "lr is 0.0: it must be greater than 0"),
        ({"batch": -1}, "batch is -1: it must be 0 or more"),
        ({"test_steps": -1}, "test_steps is -1: it must be 0 or more"),
        ({"optimizer": "adam", "task": "regression"}, "optimizer is 'adam', but metatraining.task"),
        ({"test_steps": 3, "task": "regression"}, "test_steps is 3, but metatraining.task is 'reg"),
    ],
)
def test_reptile_refuses_numbers_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=rf"metatraining\.{message}"):
        Reptile(**options)


@pytest.mark.parametrize(("samples", "batch", "steps"), [(9, 4, 5), (6, 3, 8), (6, 4, 1)])
def test_reptile_s_batches_go_through_the_support_set_again_and_again(
    samples: int, batch: int, steps: int
) -> None:
    numbers = torch.arange(float(samples)).expand(200, -1)
    data = Episode(numbers.unsqueeze(-1), numbers, numbers.unsqueeze(-1), numbers)
    algorithm = Reptile(steps, batch=batch)
    drawn = algorithm.prepared(data, torch.Generator().manual_seed(0))
    assert drawn.support_y.shape == (200, steps * batch)
    assert torch.equal(drawn.support_x.squeeze(-1), drawn.support_y)
    assert drawn.query_x is data.query_x
    for task in drawn.support_y:
        for first in range(0, steps * batch, samples):
            turn = task[first : first + samples].tolist()
            assert len({*turn}) == len(turn)
    places = torch.stack([drawn.support_y[:, 0] == n for n in range(samples)]).double().mean(1)
    assert (places - 1 / samples).abs().max() < 0.1
    again = algorithm.prepared(data, torch.Generator().manual_seed(0))
    assert torch.equal(again.support_y, drawn.support_y)


@pytest.mark.parametrize("options", [{}, {"batch": 9}, {"batch": 4, "steps": 0}])
def test_reptile_leaves_a_support_set_that_a_step_takes_whole(options: dict[str, Any]) -> None:
    data = episode(2, "classification")
    size = data.support_y.shape[1]
    assert size <= 9
    assert Reptile(**options).prepared(data, torch.Generator()) is data


def test_reptile_s_copy_is_adapted_as_its_prediction_is() -> None:
    network, data = perceptron(), episode(1, "classification")
    algorithm = Reptile(2, 0.03, optimizer="adam", batch=2, test_steps=5)
    adapted = algorithm.adapt(network, data.support_x[0], data.support_y[0])
    torch.testing.assert_close(
        adapted(data.query_x[0]), algorithm.predict(network, data)[0].detach(), **CLOSE
    )


def test_an_outer_step_of_the_inner_rate_is_the_mean_of_the_adapted_weights() -> None:
    """The meta-step of 1 of Reptile's authors is SGD at `lr`; a part of it, SGD at that part."""
    data, nothing = episode(3, "classification"), MiniBatch(torch.empty(0), torch.empty(0))
    algorithm = Reptile(4, 0.03, optimizer="adam", batch=2)
    for part in (1.0, 0.25):
        network = perceptron()
        start = copy.deepcopy(network)
        adapted = [
            reptile.trained(network, x, y, algorithm.loss, 4, 0.03, "adam", 2)
            for x, y in zip(data.support_x, data.support_y, strict=True)
        ]
        optimizer = torch.optim.SGD(network.parameters(), part * algorithm.lr)
        algorithm.outputs_and_loss(network, data, nothing)[1].backward()
        optimizer.step()
        for name, weight in network.named_parameters():
            mean = torch.stack([copied.get_parameter(name) for copied in adapted]).mean(0)
            expected = torch.lerp(start.get_parameter(name), mean, part)
            torch.testing.assert_close(weight, expected, **CLOSE)

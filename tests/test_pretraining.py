"""Each pre-training algorithm and each new head against a slow reference or another library."""

import math
from typing import Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining.backbones import MLP
from omnitraining.errors import InputError
from omnitraining.network import Network
from omnitraining.pretraining import (
    RFS,
    Baseline,
    BaselinePP,
    CosineHead,
    L2Regression,
    LogisticHead,
    NegMargin,
    SGDHead,
)
from tests.reference import equations, maml
from tests.reference.toy import INPUTS, Toy

pytestmark = pytest.mark.usefixtures("float64")


# --- L2Regression ---


def test_l2_regression_fine_tunes_as_its_options_specify() -> None:
    problem, network = Toy(regression=True), Network(MLP(INPUTS, (8,)), nn.Linear(8, 2))
    episode = problem.episode(0, torch.Generator().manual_seed(0))
    outputs = L2Regression(steps=3, lr=0.2).predict(network, episode)[0]
    support = episode.support_x[0], episode.support_y[0]
    expected = maml.adapted([*network.parameters()], support, episode.query_x[0], 3, 0.2)
    torch.testing.assert_close(outputs, expected, rtol=1e-10, atol=1e-10)


# --- Baseline, Baseline++, NegMargin, RFS ---


def test_baseline_trains_a_softmax_classifier_with_a_zero_bias() -> None:
    head = Baseline().head(8, 5)
    assert isinstance(head, nn.Linear) and head.weight.shape == (5, 8) and not head.bias.any()
    outputs, labels = torch.randn(7, 5), torch.randint(5, (7,))
    expected = equations.cross_entropy(outputs, labels)
    assert Baseline().loss(outputs, labels).item() == pytest.approx(expected, rel=1e-12)


def cosine(x: Tensor, w: Tensor) -> float:
    return float((x @ w / (x.norm() * w.norm())).detach())


def test_baseline_plus_plus_compares_features_and_class_weights_by_cosine() -> None:
    algorithm = BaselinePP(scale=7.0)
    head, x, labels = algorithm.head(8, 5), torch.randn(6, 8), torch.randint(5, (6,))
    assert [p.shape for p in head.parameters()] == [(5, 8)]
    logits = torch.tensor([[7 * cosine(row, w) for w in head.weight] for row in x])
    torch.testing.assert_close(head(x), logits, rtol=1e-10, atol=1e-10)
    expected = equations.cross_entropy(logits, labels)
    assert algorithm.loss(head(x), labels).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("margin", [-0.3, -0.02, 0.1])
@pytest.mark.parametrize("similarity", ["cosine", "softmax"])
def test_the_margin_is_taken_off_the_similarity_to_the_true_class(
    similarity: str, margin: float
) -> None:
    algorithm = NegMargin(similarity, margin, scale=20.0)
    head, x, labels = algorithm.head(8, 5), torch.randn(6, 8), torch.randint(5, (6,))
    assert [p.shape for p in head.parameters()] == [(5, 8)]
    total = 0.0
    for row, label in zip(x, labels.tolist(), strict=True):
        rows = [(w, margin * (n == label)) for n, w in enumerate(head.weight)]
        if similarity == "cosine":
            logits = [20 * (cosine(row, w) - m) for w, m in rows]
        else:
            logits = [float((row @ w).detach()) - m for w, m in rows]
        total += math.log(sum(math.exp(value) for value in logits)) - logits[label]
    assert algorithm.loss(head(x), labels).item() == pytest.approx(total / 6, rel=1e-12)


def test_a_negative_margin_is_easier_to_meet_than_none_and_a_positive_one_harder() -> None:
    outputs, labels = torch.randn(9, 5), torch.randint(5, (9,))
    for similarity in ("cosine", "softmax"):
        losses = [
            NegMargin(similarity, margin).loss(outputs, labels) for margin in (-0.3, 0.0, 0.3)
        ]
        assert losses[0] < losses[1] < losses[2]


def test_without_a_margin_neg_margin_is_baseline_and_baseline_plus_plus() -> None:
    outputs, labels = torch.randn(9, 5), torch.randint(5, (9,))
    expected = Baseline().loss(outputs, labels)
    assert torch.equal(NegMargin("softmax", margin=0.0).loss(outputs, labels), expected)
    assert torch.equal(NegMargin("cosine", margin=0.0).loss(outputs, labels), expected)
    torch.manual_seed(2)
    ours, x = NegMargin("cosine", scale=10.0).head(8, 5), torch.randn(6, 8)
    torch.manual_seed(2)
    assert torch.equal(ours(x), BaselinePP(scale=10.0).head(8, 5)(x))


@pytest.mark.parametrize(("temperature", "kd_weight"), [(4.0, 0.5), (1.0, 1.0), (2.0, 0.2)])
def test_rfs_learns_labels_and_the_outputs_of_the_generation_before(
    temperature: float, kd_weight: float
) -> None:
    """kd_weight T^2 KL(teacher || student), both at temperature T, and the rest cross-entropy."""
    outputs, teacher_logits = torch.randn(6, 5) * 3, torch.randn(6, 5) * 3
    labels = torch.randint(5, (6,))
    divergence = 0.0
    for ours, theirs in zip(outputs.tolist(), teacher_logits.tolist(), strict=True):
        q = equations.softmax([value / temperature for value in ours])
        p = equations.softmax([value / temperature for value in theirs])
        divergence += sum(b * (math.log(b) - math.log(a)) for a, b in zip(q, p, strict=True)) / 6
    labeled = equations.cross_entropy(outputs, labels)
    expected = kd_weight * temperature**2 * divergence + (1 - kd_weight) * labeled
    found = RFS(temperature, kd_weight).distillation_loss(outputs, labels, teacher_logits)
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_a_generation_that_agrees_with_the_one_before_learns_from_labels_alone() -> None:
    outputs, labels = torch.randn(6, 5), torch.randint(5, (6,))
    found = RFS().distillation_loss(
        outputs, labels, outputs + 3
    )  # a softmax does not depend on the 3
    torch.testing.assert_close(found, 0.5 * Baseline().loss(outputs, labels))
    torch.testing.assert_close(RFS().loss(outputs, labels), Baseline().loss(outputs, labels))


def test_algorithms_without_generations_refuse_a_teacher() -> None:
    with pytest.raises(InputError, match="Baseline has no generations: 'teacher_run' is for RFS"):
        Baseline().distillation_loss(torch.ones(2, 3), torch.ones(2).long(), torch.ones(2, 3))


# --- new linear heads ---


def features(tasks: int, ways: int = 3, shots: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Overlapping classes, so that a fit has something to weigh."""
    centers = torch.randn(tasks, ways, 6)
    labels = torch.arange(ways).repeat_interleave(shots).expand(tasks, -1)
    support = centers.repeat_interleave(shots, 1) + torch.randn(tasks, ways * shots, 6)
    return support, labels, torch.randn(tasks, 5, 6)


@pytest.mark.parametrize("penalty", [0.001, 0.01, 0.3])
def test_the_logistic_head_solves_scikit_learn_s_problem(penalty: float) -> None:
    """Scikit-learn minimizes C * sum of cross-entropies + ||W||^2 / 2: C = 1 / (n * penalty)."""
    support, labels, query = features(2)
    head = LogisticHead(penalty, iterations=2000)
    logits = head.logits(support, labels, query, 3)
    for t in range(2):
        x, q = F.normalize(support[t], dim=-1), F.normalize(query[t], dim=-1)
        c = 1 / (len(x) * penalty)
        peer = LogisticRegression(C=c, fit_intercept=False, tol=1e-12, max_iter=10_000)
        peer.fit(x.numpy(), labels[t].numpy())
        expected = torch.from_numpy(peer.decision_function(q.numpy()))
        torch.testing.assert_close(logits[t], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("penalty", [0.5, 1.0])
def test_a_summed_loss_is_scikit_learn_s_own_penalty(penalty: float) -> None:
    support, labels, query = features(2)
    head = LogisticHead(penalty, iterations=2000, reduction="sum")
    logits = head.logits(support, labels, query, 3)
    for t in range(2):
        x, q = F.normalize(support[t], dim=-1), F.normalize(query[t], dim=-1)
        peer = LogisticRegression(C=1 / penalty, fit_intercept=False, tol=1e-12, max_iter=10_000)
        peer.fit(x.numpy(), labels[t].numpy())
        expected = torch.from_numpy(peer.decision_function(q.numpy()))
        torch.testing.assert_close(logits[t], expected, rtol=1e-4, atol=1e-4)


def objective_gradient(weight: Tensor, support: Tensor, labels: Tensor, penalty: float) -> Tensor:
    weight = weight.clone().requires_grad_()
    logits = F.normalize(support, dim=-1) @ weight
    losses = F.cross_entropy(logits.mT, labels, reduction="none").mean(1)
    objective = losses.sum() + penalty / 2 * weight.square().sum()
    return torch.autograd.grad(objective, weight)[0]


@pytest.mark.parametrize(("penalty", "close"), [(0.001, 1e-3), (0.01, 1e-4), (0.1, 1e-9)])
def test_the_logistic_head_converges_in_its_default_number_of_iterations(
    penalty: float, close: float
) -> None:
    support, labels, _ = features(20, shots=1)
    unit = torch.eye(6).expand(20, -1, -1)  # unit queries: their logits are the weights
    weight = LogisticHead(penalty).logits(support, labels, unit, 3)
    slope = objective_gradient(weight, support, labels, penalty)
    assert slope.flatten(1).norm(dim=1).max() < close
    assert objective_gradient(0 * weight, support, labels, penalty).norm() > 0.1


def test_600_logistic_heads_at_once_are_the_heads_one_by_one() -> None:
    support, labels, query = features(600)
    head = LogisticHead()
    together = head.logits(support, labels, query, 3)
    for t in range(0, 600, 50):
        part = slice(t, t + 1)
        alone = head.logits(support[part], labels[part], query[part], 3)
        torch.testing.assert_close(together[part], alone, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_more_features_than_samples_are_solved_for_by_the_same_steps(
    reduction: Literal["mean", "sum"],
) -> None:
    """Features of zeros change nothing, but let the Gram matrix be the smaller problem."""
    support, labels, query = features(2)
    head = LogisticHead(0.1, iterations=7, reduction=reduction)
    few = head.logits(F.pad(support, (0, 30)), labels, F.pad(query, (0, 30)), 3)
    torch.testing.assert_close(head.logits(support, labels, query, 3), few)


def test_the_logistic_head_does_not_depend_on_the_length_of_features() -> None:
    support, labels, query = features(2)
    stretched = support * torch.rand(2, 12, 1) * 9
    first, second = (LogisticHead().logits(s, labels, query, 3) for s in (support, stretched))
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("tasks", [1, 3])
def test_the_sgd_head_is_torch_s_sgd_on_a_linear_layer(tasks: int) -> None:
    """Momentum and dampening 0.9 (Chen et al. 2019), same initial weights and order."""
    support, labels, query = features(tasks)
    head = SGDHead(lr=0.1, weight_decay=0.01, batch=5, passes=7, seed=4)
    logits = head.logits(support, labels, query, 3)
    random = torch.Generator().manual_seed(4)
    start = (torch.rand(tasks, 7, 3, generator=random) * 2 - 1) * 6**-0.5
    orders = [torch.rand(tasks, 12, generator=random).argsort(1) for _ in range(7)]
    for t in range(tasks):
        layer = nn.Linear(6, 3)
        layer.weight.data, layer.bias.data = start[t, :6].T.clone(), start[t, 6].clone()
        optimizer = torch.optim.SGD(
            layer.parameters(), lr=0.1, momentum=0.9, dampening=0.9, weight_decay=0.01
        )
        for order in orders:
            for chosen in order[t].split(5):
                optimizer.zero_grad()
                F.cross_entropy(layer(support[t, chosen]), labels[t, chosen]).backward()
                optimizer.step()
        torch.testing.assert_close(logits[t], layer(query[t]), rtol=1e-10, atol=1e-10)


def test_the_sgd_head_starts_as_a_linear_layer_of_torch_starts() -> None:
    support, labels, _ = features(400)
    query = torch.cat([torch.zeros(400, 1, 6), torch.eye(6).expand(400, -1, -1)], 1)
    start = SGDHead(passes=0).logits(support, labels, query, 3)
    bias, weight = start[:, 0], start[:, 1:] - start[:, :1]
    bound = nn.Linear(6, 3).weight.new_tensor(6**-0.5)
    for values in (bias, weight):
        assert values.abs().max() <= bound and values.abs().max() > 0.95 * bound
        assert values.std() == pytest.approx(bound.item() / 3**0.5, rel=0.05)


def test_the_sgd_head_is_reproducible_and_depends_on_its_seed() -> None:
    data = features(2)
    first, again, other = (SGDHead(passes=2, seed=s).logits(*data, 3) for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.allclose(first, other)


def cosine_loss(weight: Tensor, support: Tensor, labels: Tensor, scale: float) -> Tensor:
    logits = scale * F.normalize(support, dim=-1) @ F.normalize(weight, dim=-1).T
    return F.cross_entropy(logits, labels)


def test_the_cosine_head_descends_the_cross_entropy_along_the_sphere() -> None:
    support, labels, query = features(2)
    logits = CosineHead(scale=8.0, lr=0.2, steps=5).logits(support, labels, query, 3)
    for t in range(2):
        unit = F.normalize(support[t], dim=-1)
        weight = torch.stack([F.normalize(unit[labels[t] == n].mean(0), dim=0) for n in range(3)])
        for _ in range(5):
            weight.requires_grad_()
            # At unit weights the gradient of a function of directions is tangent to the sphere.
            (slope,) = torch.autograd.grad(cosine_loss(weight, unit, labels[t], 8.0), weight)
            weight = F.normalize(weight.detach() - 0.2 * slope, dim=-1)
        expected = 8 * F.normalize(query[t], dim=-1) @ weight.T
        torch.testing.assert_close(logits[t], expected, rtol=1e-10, atol=1e-10)


def test_the_cosine_head_ends_in_the_minimum_that_scipy_finds() -> None:
    support, labels, _ = features(3)
    unit = torch.eye(6).expand(3, -1, -1)  # unit queries: their logits are the weights
    weights = CosineHead(scale=5.0, lr=0.1, steps=5000).logits(support, labels, unit, 3).mT / 5

    def value_and_slope(flat: NDArray[np.float64], t: int) -> tuple[float, NDArray[np.float64]]:
        weight = torch.tensor(flat).view(3, 6).requires_grad_()
        value = cosine_loss(weight, support[t], labels[t], 5.0)
        return value.item(), torch.autograd.grad(value, weight)[0].flatten().numpy()

    for t in range(3):
        start = torch.stack([support[t][labels[t] == n].mean(0) for n in range(3)])
        peer = minimize(
            value_and_slope, start.flatten().numpy(), t, jac=True, method="BFGS", tol=1e-12
        )
        found = cosine_loss(weights[t], support[t], labels[t], 5.0)
        assert found.item() == pytest.approx(peer.fun, rel=1e-8)
        expected = F.normalize(torch.from_numpy(peer.x).view(3, 6), dim=-1)
        torch.testing.assert_close(weights[t], expected, rtol=1e-4, atol=1e-4)


def test_the_cosine_head_gains_on_prototypes_in_its_default_steps() -> None:
    support, labels, _ = features(20)
    unit = torch.eye(6).expand(20, -1, -1)
    losses = []
    for steps in (0, 30, 300):
        weights = CosineHead(steps=steps).logits(support, labels, unit, 3).mT / 10
        parts = zip(weights, support, labels, strict=True)
        losses.append(sum(cosine_loss(w, x, y, 10.0) for w, x, y in parts))
    start, default, end = losses
    assert start - default > 0.8 * (start - end) > 0

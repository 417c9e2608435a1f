"""Waves: their ranges, the order of training, the fixed test waves, and the scores."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from omnitraining.backbones import MLP
from omnitraining.batches import Episode
from omnitraining.errors import InputError
from omnitraining.evaluation import ENSEMBLE, CellKey, Evaluation, Inference, simplex_grid
from omnitraining.metatraining import MAML, ProtoNet
from omnitraining.model import Model, OmniLoss, OmniNetOptions, build_model
from omnitraining.pretraining import Baseline, L2Regression
from omnitraining.runs.run import Run
from omnitraining.tasks.regression.sinusoids import TEST_SEED, VALIDATION_SEED, Sinusoids, Waves
from omnitraining.training import Training, train
from tests.reference import maml

pytestmark = pytest.mark.usefixtures("float64", "all_validation_tasks")
STEPS = 2


def problem(**options: object) -> Sinusoids:
    defaults = {"waves": 20, "test_shots": (5, 10), "test_steps": STEPS}
    return Sinusoids(**(defaults | options))


def model(data: Sinusoids, lr: float = 0.02, method: str = "omni-training") -> Model:
    algorithms = L2Regression(lr=lr), MAML(lr=lr, task="regression")
    options = OmniNetOptions(branch_init="random")
    return build_model(method, lambda: MLP(1, (8,)), data, *algorithms, OmniLoss(), options)


def fixed_waves(seed: int) -> tuple[Waves, torch.Tensor, torch.Tensor]:
    waves = Waves(600, torch.Generator().manual_seed(seed * 1_000_003))
    grid = torch.linspace(-5, 5, 50).view(1, 50, 1).expand(600, -1, -1)
    return waves, grid, waves(grid)


# --- waves ---


def test_amplitudes_phases_and_inputs_are_uniform_in_the_paper_s_ranges() -> None:
    waves = Waves(4000, torch.Generator().manual_seed(0))
    limits = ((waves.amplitude, 0.1, 5.0), (waves.phase, 0, 2 * math.pi), (waves.x, -5, 5))
    for values, low, high in limits:
        assert values.min() >= low and values.max() <= high
        shares = torch.histc(values, 10, low, high) / values.numel()
        assert (shares - 0.1).abs().max() < 5 * (0.09 / values.numel()) ** 0.5
    assert waves.x.shape == waves.y.shape == (4000, 50, 1)


def test_a_wave_is_an_amplitude_times_the_sine_of_the_shifted_input() -> None:
    waves = Waves(3, torch.Generator().manual_seed(0))
    for w in range(3):
        a, phase = waves.amplitude[w].item(), waves.phase[w].item()
        for x, y in zip(waves.x[w].flatten().tolist(), waves.y[w].flatten().tolist(), strict=True):
            assert y == pytest.approx(a * math.sin(x + phase), abs=1e-12)


# --- training ---


def rows(x: torch.Tensor, y: torch.Tensor) -> set[tuple[float, ...]]:
    return set(map(tuple, torch.cat([x, y], -1).flatten(0, -2).tolist()))


def test_episodes_visit_the_waves_in_order_and_split_their_points() -> None:
    data = problem(support=10, queries=15)
    for step in (0, 1, 2, 19, 20, 41):
        episode = data.episode(step, torch.Generator().manual_seed(step))
        assert episode.support_x.shape == (1, 10, 1) and episode.query_x.shape == (1, 15, 1)
        support = rows(episode.support_x, episode.support_y)
        query = rows(episode.query_x, episode.query_y)
        assert support | query < rows(data.waves.x[step % 20], data.waves.y[step % 20])
        assert not support & query and len(support | query) == 25


def test_a_mini_batch_mixes_points_of_different_waves() -> None:
    data = problem()
    batch = data.minibatch(0, torch.Generator().manual_seed(0))
    assert batch.x.shape == batch.y.shape == (50, 1)
    assert rows(batch.x, batch.y) < rows(data.waves.x, data.waves.y)
    waves = {(data.waves.x == x).nonzero()[0, 0].item() for x in batch.x}
    assert len(waves) > 10


def test_the_samples_of_a_step_depend_on_the_seed_alone() -> None:
    first, again = problem(), problem()
    for draw in ("minibatch", "episode"):
        parts = [
            vars(getattr(p, draw)(3, torch.Generator().manual_seed(7))) for p in (first, again)
        ]
        for name, value in parts[0].items():
            other = parts[1][name]
            same = torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other
            assert same, name
    assert not torch.equal(first.waves.x, problem(seed=1).waves.x)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"support": 30, "queries": 21}, "support is 30 and problem.queries 21.*at most 50"),
        ({"support": 0}, "support is 0.*1 or"),
        ({"queries": 0}, "queries 0: both must be 1 or"),
        ({"test_shots": ()}, r"test_shots is \(\)"),
        ({"test_shots": (5, 51)}, r"test_shots is \(5, 51\): give numbers from 1 to 50"),
        ({"waves": 0}, "1 or more"),
        ({"test_steps": 0}, "1 or more"),
    ],
)
def test_impossible_problems_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        problem(**options)


# --- tests ---


def scores(evaluation: Evaluation, cell: CellKey, head: str = ENSEMBLE) -> list[float]:
    return evaluation.cells[cell].scores[head]


def test_an_evaluation_has_a_cell_per_shots_and_steps_with_every_flow_and_the_ensemble() -> None:
    data = problem()
    evaluation = data.evaluate(model(data), Inference(), 7)
    names = [CellKey(shots=shots, steps=step) for shots in (5, 10) for step in (1, 2)]
    assert list(evaluation.cells) == names and not evaluation.higher_is_better
    for cell in evaluation.cells.values():
        assert set(cell.scores) == {"pre", "joint", "meta", ENSEMBLE}
        assert all(len(values) == 7 for values in cell.scores.values())
    hashes = [cell.tasks_hash for cell in evaluation.cells.values()]
    assert hashes[0] == hashes[1] != hashes[2] == hashes[3]


def test_a_network_that_predicts_zero_has_the_mean_square_of_the_wave_as_its_error() -> None:
    data = problem()
    silent = model(data, lr=1e-30)
    for parameter in silent.parameters():
        nn.init.zeros_(parameter)
    evaluation = data.evaluate(silent, Inference(), 9)
    expected = fixed_waves(TEST_SEED)[2][:9].square().mean((1, 2)).tolist()
    for cell in evaluation.cells.values():
        for values in cell.scores.values():
            assert values == pytest.approx(expected, rel=1e-12)
    validation = fixed_waves(VALIDATION_SEED)[2].square().mean().item()
    assert data.validation_scores(silent, Inference())[ENSEMBLE] == pytest.approx(
        -validation, rel=1e-12
    )


@pytest.mark.parametrize("shots", [5, 10])
def test_a_flow_is_fine_tuned_on_the_first_points_and_evaluated_on_even_ones(shots: int) -> None:
    data = problem()
    plain = model(data, lr=0.05, method="meta-training")
    evaluation = data.evaluate(plain, Inference(), 3)
    waves, grid, truth = fixed_waves(TEST_SEED)
    for t in range(3):
        support = waves.x[t, :shots], waves.y[t, :shots]
        for step in (1, 2):
            outputs = maml.adapted([*plain.parameters()], support, grid[t], step, 0.05)
            error = (outputs - truth[t]).square().mean().item()
            cell = CellKey(shots=shots, steps=step)
            assert scores(evaluation, cell, "meta")[t] == pytest.approx(error, rel=1e-10)
            assert scores(evaluation, cell)[t] == pytest.approx(error, rel=1e-10)


@pytest.mark.parametrize("tasks", [1, 4])
def test_fewer_tasks_are_the_first_of_more(tasks: int) -> None:
    data = problem()
    network = model(data)
    few, many = (data.evaluate(network, Inference(), count) for count in (tasks, 12))
    for name, cell in few.cells.items():
        for head, values in cell.scores.items():
            assert values == pytest.approx(many.cells[name].scores[head][:tasks], rel=1e-10)


def test_test_validation_and_training_waves_are_different_waves() -> None:
    amplitudes = [fixed_waves(seed)[0].amplitude for seed in (TEST_SEED, VALIDATION_SEED)]
    amplitudes.append(Sinusoids(waves=600).waves.amplitude)
    values = torch.cat(amplitudes).flatten()
    assert len(values.unique()) == 1800


# --- the ensemble ---


def test_an_equal_ensemble_is_the_mean_of_the_flows_predictions() -> None:
    data = problem()
    network = model(data)
    curves = data.curves(network, Inference(), wave=2, shots=5)
    mean = torch.stack([curves[flow] for flow in ("pre", "joint", "meta")]).mean(0)
    torch.testing.assert_close(curves[ENSEMBLE], mean)
    error = (curves[ENSEMBLE][1] - curves["query_y"]).square().mean().item()
    evaluation = data.evaluate(network, Inference(), 3)
    assert scores(evaluation, CellKey(shots=5, steps=1))[2] == pytest.approx(error, rel=1e-10)


def test_chosen_ensemble_weights_are_convex_and_the_best_on_validation_waves() -> None:
    data, inference = problem(), Inference(ensemble_weights="validation")
    network = model(data)
    nn.init.normal_(network.networks["pre"].head.weight, std=9.0)  # one flow is bad
    weights = data.ensemble_weights(network, inference, shots=5)
    assert weights.shape == (STEPS + 1, 3) and weights.min() >= 0
    torch.testing.assert_close(weights.sum(1), torch.ones(STEPS + 1))
    waves, grid, truth = fixed_waves(VALIDATION_SEED)
    outputs = data._outputs(network, Episode(waves.x[:, :5], waves.y[:, :5], grid, truth))
    flows = [outputs[flow] for flow in ("pre", "joint", "meta")]
    for step in range(STEPS + 1):
        ensemble = sum(w * flow[step] for w, flow in zip(weights[step], flows, strict=True))
        best = (ensemble - truth).square().mean()
        rivals = [flow[step] for flow in flows] + [sum(flow[step] for flow in flows) / 3]
        assert all(best <= (rival - truth).square().mean() + 1e-12 for rival in rivals)
        assert weights[step, 0] <= 0.2
        stacked = torch.stack([flow[step] for flow in flows], -1)
        tried = [(stacked @ w.to(stacked) - truth).square().mean() for w in simplex_grid(3, 20)]
        assert best <= min(tried) + 1e-12, "no other weights do better on these waves"


def test_other_flows_do_not_count_in_the_ensemble() -> None:
    data = problem()
    evaluation = data.evaluate(model(data), Inference(flows=("meta",)), 4)
    for name in evaluation.cells:
        assert scores(evaluation, name) == pytest.approx(
            scores(evaluation, name, "meta"), rel=1e-12
        )


def test_other_algorithms_are_refused() -> None:
    data = problem()
    algorithms = Baseline(), ProtoNet()
    wrong = build_model(
        "ensemble", lambda: MLP(1, (8,)), data, *algorithms, OmniLoss(), OmniNetOptions()
    )
    with pytest.raises(InputError, match="L2Regression and metatraining MAML"):
        data.evaluate(wrong, Inference(), 2)


def test_maml_of_another_kind_of_problem_is_refused_before_the_first_step(tmp_path: Path) -> None:
    data, algorithms = problem(), (L2Regression(), MAML(task="classification"))
    run, training = Run(tmp_path, create=True), Training(steps=1)
    wrong = build_model("meta-training", lambda: MLP(1, (8,)), data, *algorithms)
    words = "^metatraining.task is 'classification', but Sinusoids is a problem of regression: set"
    with pytest.raises(InputError, match=words):
        train(wrong, data, training, Inference(), run)
    assert not run.checkpoint("last").exists()
    unused = build_model("pre-training", lambda: MLP(1, (8,)), data, *algorithms)
    data.check(unused)


def test_an_option_of_policies_is_refused_before_the_first_step(tmp_path: Path) -> None:
    data, run = problem(), Run(tmp_path, create=True)
    model = build_model(
        "omni-training", lambda: MLP(1, (8,)), data, L2Regression(), MAML(task="regression")
    )
    with pytest.raises(InputError, match=r"^inference\.policy is 'mean', which is for reinf"):
        train(model, data, Training(steps=1), Inference(policy="mean"), run)
    assert not run.checkpoint("last").exists()


def test_ensemble_weights_and_validation_use_no_test_waves(monkeypatch: pytest.MonkeyPatch) -> None:
    data, seeds = problem(), []
    tasks = data._tasks

    def recorded(seed: int, *rest: Any) -> Episode:
        seeds.append(seed)
        return tasks(seed, *rest)

    monkeypatch.setattr(data, "_tasks", recorded)
    network, inference = model(data), Inference(ensemble_weights="validation")
    data.ensemble_weights(network, inference, shots=5)
    data.validation_scores(network, inference)
    assert {*seeds} == {VALIDATION_SEED}

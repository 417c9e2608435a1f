"""Intervals, pairs of methods, ensemble weights and the identity of test tasks."""

import math
import sys
from types import ModuleType

import pytest
import torch

from omnitraining.errors import InputError
from omnitraining.evaluation import (
    ENSEMBLE,
    Cell,
    CellKey,
    Evaluation,
    Inference,
    ensemble_mean,
    half_width,
    paired_difference,
    simplex_grid,
    student_t,
    tasks_hash,
)


def test_the_interval_is_196_standard_errors_with_the_population_s_deviation() -> None:
    # 1, 2, 3, 6: mean 3, squared deviations 4 + 1 + 0 + 9, over 4 and not over 3
    expected = 1.96 * math.sqrt(14 / 4) / math.sqrt(4)
    assert half_width(torch.tensor([1.0, 2.0, 3.0, 6.0])) == pytest.approx(expected, rel=1e-12)
    cell = Cell("", {ENSEMBLE: [1.0, 2.0, 3.0, 6.0], "pre": [5.0, 5.0, 5.0, 5.0]})
    assert cell.mean() == 3 and cell.interval() == pytest.approx(expected)
    assert cell.mean("pre") == 5 and cell.interval("pre") == 0


def test_the_interval_of_many_scores_is_computed_in_double_precision() -> None:
    values = torch.full((600,), 80.0) + torch.tensor([1e-4, -1e-4]).repeat(300)
    spread = values.double().std(correction=0).item()
    assert half_width(values) == pytest.approx(1.96 * spread / math.sqrt(600), rel=1e-9)


def test_the_interval_of_a_paired_difference_is_by_the_spread_of_the_differences() -> None:
    hard_and_easy = [10.0, 50.0, 90.0, 30.0]
    better = [score + gain for score, gain in zip(hard_and_easy, (1, 2, 1, 2), strict=True)]
    difference = paired_difference(better, hard_and_easy)
    assert difference.mean == pytest.approx(1.5)
    assert difference.interval == pytest.approx(1.96 * 0.5 / 2)
    assert difference.is_significant
    assert paired_difference(hard_and_easy, better).mean == pytest.approx(-1.5)
    assert paired_difference(hard_and_easy, better).is_significant
    assert not paired_difference([1.0, 3.0], [2.0, 2.0]).is_significant
    assert not paired_difference(better, better).is_significant


def test_only_scores_of_the_same_tasks_can_be_paired() -> None:
    with pytest.raises(InputError, match="cannot pair 2 with 3 tasks"):
        paired_difference([1.0, 2.0], [1.0, 2.0, 3.0])


def test_the_interval_over_seeds_and_tasks_is_the_two_way_formula() -> None:
    scores = torch.tensor(
        [[1.0, 2.0, 3.0, 6.0], [3.0, 4.0, 5.0, 8.0]]
    )  # the second seed is 2 above
    over_tasks = 1.96 * math.sqrt(14 / 4) / 2  # of 2, 3, 4, 7
    over_seeds = 12.706204736 * math.sqrt(2) / math.sqrt(2)  # of 3 and 5, one degree of freedom
    assert half_width(scores) == pytest.approx(math.hypot(over_tasks, over_seeds), rel=1e-9)
    assert half_width(scores[:1]) == half_width(scores[0]) == pytest.approx(over_tasks)
    assert half_width(scores[:1].expand(3, -1)) == pytest.approx(over_tasks)  # seeds that agree


@pytest.mark.slow
def test_the_interval_over_seeds_and_tasks_covers_in_95_of_100_draws() -> None:
    random = torch.Generator().manual_seed(0)
    for seeds in (2, 3, 5):
        covered = 0
        for _ in range(1000):
            task = torch.randn(1, 200, generator=random) * 10
            seed = torch.randn(seeds, 1, generator=random)
            scores = task + seed + torch.randn(seeds, 200, generator=random) * 3
            covered += abs(scores.mean().item()) <= half_width(scores)
        assert covered >= 940, f"{seeds} seeds: {covered}"


def test_student_t_has_the_points_of_the_tables() -> None:
    from scipy.stats import t

    for degrees in range(1, 40):
        assert student_t(degrees) == pytest.approx(t.ppf(0.975, degrees), rel=1e-9)


def test_differences_are_paired_by_seed_and_task() -> None:
    first, second = [[1.0, 4.0], [2.0, 6.0]], [[0.0, 2.0], [1.0, 4.0]]
    gap = paired_difference(first, second)  # 1, 2 with both seeds
    assert (gap.mean, gap.interval) == pytest.approx((1.5, 1.96 * 0.5 / math.sqrt(2)))


def test_a_difference_between_other_numbers_of_seeds_has_their_spread() -> None:
    first, second = [[1.0, 4.0], [2.0, 6.0], [3.0, 8.0]], [[0.0, 2.0], [2.0, 4.0]]
    gap = paired_difference(first, second)  # 2 and 6 less 1 and 3
    over_tasks = 1.96 * 1.0 / math.sqrt(2)
    variance = (2 * 1.5**2 + 2 * 1.0**2) / 3  # of 2.5, 4, 5.5 and of 1, 3: three degrees of freedom
    over_seeds = student_t(3) * math.sqrt(variance * (1 / 3 + 1 / 2))
    assert gap.mean == pytest.approx(2.0)
    assert gap.interval == pytest.approx(math.hypot(over_tasks, over_seeds))
    alone = paired_difference(first, second[0])  # the spread of the others counts for it too
    over_seeds = student_t(2) * 1.5 * math.sqrt(1 / 3 + 1)
    assert alone.interval == pytest.approx(math.hypot(1.96 * 1.0 / math.sqrt(2), over_seeds))
    assert paired_difference(second, first).interval == pytest.approx(gap.interval)


@pytest.mark.parametrize("corners", [1, 2, 3, 4])
@pytest.mark.parametrize("parts", [1, 10, 20])
def test_the_grid_holds_every_convex_combination_once(corners: int, parts: int) -> None:
    grid = simplex_grid(corners, parts)
    count = 1 if corners == 1 else math.comb(parts + corners - 1, corners - 1)
    assert grid.shape == (count, corners)
    assert grid.min() >= 0
    torch.testing.assert_close(grid.sum(1), torch.ones(count))
    assert len({tuple(row) for row in (grid * parts).round().tolist()}) == count
    for corner in torch.eye(corners):
        assert (grid == corner).all(1).any()


def test_the_hash_of_tasks_changes_with_data_samples_order_and_shape() -> None:
    support, query = torch.arange(12).view(2, 6), torch.arange(8).view(2, 4)
    swapped = support.clone()
    swapped[0, 0], swapped[0, 1] = 1, 0
    variants = [
        tasks_hash("a", support, query),
        tasks_hash("b", support, query),
        tasks_hash("a", query, support),
        tasks_hash("a", swapped, query),
        tasks_hash("a", support.view(3, 4), query),
        tasks_hash("a", support[:1], query),
        tasks_hash("a", support, query + 1),
    ]
    assert len(set(variants)) == len(variants)
    assert tasks_hash("a", support, query) == variants[0]
    assert tasks_hash("a", support.T.contiguous().T, query) == variants[0]


@pytest.mark.parametrize(
    ("vote", "trained", "voters"),
    [
        (("pre", "joint", "meta"), ("pre", "joint", "meta"), ("pre", "joint", "meta")),
        (("pre", "joint", "meta"), ("joint",), ("joint",)),
        (("meta", "joint"), ("pre", "joint", "meta"), ("joint", "meta")),
        (("pre",), ("pre", "meta"), ("pre",)),
    ],
)
def test_the_ensemble_has_the_chosen_flows_that_are_trained(
    vote: tuple[str, ...], trained: tuple[str, ...], voters: tuple[str, ...]
) -> None:
    assert Inference(flows=vote).members(trained) == voters


def test_a_vote_of_no_trained_flow_is_refused() -> None:
    with pytest.raises(InputError, match=r"\['pre'\], but the model has only \['joint', 'meta'\]"):
        Inference(flows=("pre",)).members(("joint", "meta"))


def test_an_ensemble_is_the_mean_of_its_members_equal_or_weighted() -> None:
    outputs = {"pre": torch.tensor([1.0, 2.0]), "joint": torch.tensor([5.0, 8.0])}
    outputs["meta"] = torch.tensor([100.0, 100.0])
    assert ensemble_mean(outputs, ("pre", "joint")).tolist() == [3.0, 5.0]
    assert ensemble_mean(outputs, {"pre": 0.75, "joint": 0.25}).tolist() == [2.0, 3.5]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("cub 5-way 1-shot", CellKey("cub", ways=5, shots=1)),
        ("mini-imagenet→cub 5-shot, 10 steps", CellKey("mini-imagenet→cub", shots=5, steps=10)),
        ("K=5 10 steps", CellKey(shots=5, steps=10)),
        ("5-shot, 1 step", CellKey(shots=5, steps=1)),
        ("navigation-distance 0 steps", CellKey("navigation-distance", steps=0)),
        ("latin", CellKey("latin")),
    ],
)
def test_keys_of_cells_are_read_in_todays_and_in_earlier_texts(text: str, key: CellKey) -> None:
    assert CellKey.parse(text) == key
    assert CellKey.parse(str(key)) == key == CellKey.from_json(key.as_json())


def test_results_as_rows_a_frame_a_text_and_a_picture() -> None:
    cells = {
        CellKey("cub", ways=5, shots=1): Cell("a", {"pre": [60.0, 80.0], ENSEMBLE: [70.0, 90.0]}),
        CellKey("cub", ways=5, shots=5): Cell("b", {ENSEMBLE: [90.0, 91.0]}),
    }
    evaluation = Evaluation("accuracy %", True, cells)
    rows = evaluation.rows()
    assert [(row["shots"], row["head"], row["mean"]) for row in rows] == [
        (1, "pre", 70.0),
        (1, ENSEMBLE, 80.0),
        (5, ENSEMBLE, 90.5),
    ]
    assert rows[0]["interval"] == pytest.approx(1.96 * 10 / 2**0.5) and rows[0]["tasks"] == 2
    lines = str(evaluation).splitlines()
    assert lines[1] == "cub 5-way 1-shot: pre 70.0 ± 13.9, ensemble 80.0 ± 13.9"
    axis = evaluation.plot().axes[0]
    assert sorted(bar.get_height() for bar in axis.patches) == [70.0, 80.0, 90.5]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["pre", ENSEMBLE]


def test_a_frame_needs_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = Evaluation("accuracy %", True, {CellKey("x"): Cell("a", {ENSEMBLE: [1.0, 2.0]})})
    made = ModuleType("pandas")
    made.DataFrame = list  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pandas", made)
    assert evaluation.to_frame() == evaluation.rows()
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="needs pandas: pip install pandas"):
        evaluation.to_frame()

"""Records that were measured in several places become one."""

import copy
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from omnitraining.errors import InputError
from omnitraining.evaluation import CellKey, Difference
from omnitraining.experiments.claims import Claim, verdict
from omnitraining.experiments.record import (
    Column,
    Comparison,
    Mean,
    Record,
    Row,
    TrainingFacts,
    read_record,
    write_record,
)
from omnitraining.experiments.recording import column_of
from omnitraining.experiments.tables import caption, seeds_in_short
from results.merging import dropped_seeds, merged

A, B, C = (CellKey(name) for name in "abc")
ROOT = Path(__file__).parent.parent


def record(reference: str, rows: dict[str, dict[str, float]], **claims: float) -> Record:
    """A record of rows of means by cell, with paired differences to the reference."""
    made = {}
    for name, cells in rows.items():
        made[name] = Row(
            {
                CellKey(cell): Column(
                    cell,
                    {"ensemble": Mean(mean, 1.0)},
                    Difference(rows[reference][cell] - mean, 0.1),
                )
                for cell, mean in cells.items()
            },
            {cell: TrainingFacts(seconds=[mean]) for cell, mean in cells.items()},
        )
    kept = [
        Comparison(
            row, "ensemble", reference, {CellKey(c): Difference(gap, 0.1) for c in rows[row]}
        )
        for row, gap in claims.items()
    ]
    return Record(
        "mine", "Mine", "nothing", "omni", "accuracy %", True, reference, 600, 1,
        rows=made, claims=kept,
    )  # fmt: skip


OLD = record("omni", {"omni": {"a": 9.0, "b": 8.0}, "proto": {"a": 8.5, "b": 6.0}}, proto=-0.5)


def test_other_rows_are_added_and_compared_as_independent_with_the_old_ones() -> None:
    new = record("maml", {"maml": {"a": 8.8}, "plain": {"a": 7.0}}, plain=-2.0)
    before = copy.deepcopy(OLD)
    both = merged(OLD, new)
    assert before == OLD, "neither record is changed"
    assert [*both.rows] == ["omni", "proto", "maml", "plain"] and both.reference == "omni"
    assert both.rows["maml"].cells[A].reference_minus_this is None
    assert both.rows["proto"] == OLD.rows["proto"]
    # 9.0 - 8.8 of two means with an interval of 1 each is nothing; paired, 0.1 would be less.
    found = verdict(Claim("omni", better_than="maml"), [both])
    assert (found.better, found.cells, found.is_paired) == (0, 1, False)
    assert verdict(Claim("omni", equivalent_to="proto", margin=1), [both]).is_paired
    plain = verdict(Claim("maml", better_than="plain"), [both])
    assert (plain.better, plain.cells, plain.is_paired) == (1, 1, False)
    assert {(c.row, *c.cells) for c in both.claims} == {("plain", A), ("proto", A, B)}


def test_a_cell_measured_anew_replaces_the_old_one_and_its_differences() -> None:
    both = merged(OLD, record("proto", {"proto": {"a": 7.0}}))
    assert both.rows["proto"].cells[A].ensemble.mean == 7.0
    assert both.rows["proto"].cells[A].reference_minus_this is None
    assert both.rows["proto"].cells[B] == OLD.rows["proto"].cells[B]
    assert [t.seconds for t in both.rows["proto"].trainings.values()] == [[7.0], [6.0]]
    assert [[*claim.cells] for claim in both.claims] == [[B]]
    found = verdict(Claim("omni", better_than="proto"), [both])
    assert (found.better, found.cells, found.is_paired) == (2, 2, False)


def test_a_row_measured_anew_whole_keeps_none_of_its_old_trainings() -> None:
    new = record("proto", {"proto": {"a": 7.0, "b": 5.0}})
    new.rows["proto"].trainings = {"both": TrainingFacts(seconds=[3.0])}
    assert [*merged(OLD, new).rows["proto"].trainings] == ["both"]


def test_another_setting_of_all_rows_keeps_its_own_differences() -> None:
    both = merged(OLD, record("omni", {"omni": {"c": 5.0}, "proto": {"c": 4.0}}, proto=-1.0))
    assert both.rows["proto"].cells[C].reference_minus_this == Difference(1.0, 0.1)
    assert verdict(Claim("omni", better_than="proto"), [both]).is_paired
    assert both.claims[0].cells.keys() == {A, B, C}


def test_merging_with_itself_changes_nothing() -> None:
    assert merged(OLD, OLD) == OLD


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(InputError, match="'mine' and 'other' cannot be merged"):
        merged(OLD, replace(OLD, experiment="other"))
    new = record("maml", {"maml": {"a": 8.8}})
    new.rows["maml"].cells[A].tasks = "others"
    with pytest.raises(InputError, match="maml was evaluated on other tasks of 'a'"):
        merged(OLD, new)


def test_rows_of_one_record_may_have_other_tasks_of_a_cell() -> None:
    """As in a search that has the same goals in another simulator."""
    varied = record("maml", {"maml": {"a": 8.8}, "faster": {"a": 9.0}})
    varied.rows["faster"].cells[A].tasks = "faster"
    both = merged(OLD, varied)
    assert both.rows["faster"].cells[A].tasks == "faster"
    again = record("slower", {"slower": {"a": 7.0}})
    assert merged(both, again).rows.keys() == {*both.rows, "slower"}
    again.rows["slower"].cells[A].tasks = "slower"
    with pytest.raises(InputError, match="slower was evaluated on other tasks of 'a'"):
        merged(both, again)


def test_the_script_merges_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process: as a program of its own it would import everything anew each time."""

    def merge(path: Path) -> object:
        monkeypatch.setattr(sys, "argv", [str(script), str(path)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(script), run_name="__main__")
        return ended.value.code

    monkeypatch.syspath_prepend(tmp_path)
    script = tmp_path / "merge.py"
    script.write_text((ROOT / "results" / "merge.py").read_text())
    (tmp_path / "merging.py").write_text((ROOT / "results" / "merging.py").read_text())
    write_record(tmp_path / "mine.json", OLD)
    (tmp_path / "new").mkdir()
    new = record("maml", {"maml": {"a": 8.8}})
    for name in ("mine.json", "first.json"):
        write_record(tmp_path / "new" / name, new)
        assert merge(tmp_path / "new" / name) == 0
    assert read_record(tmp_path / "mine.json") == merged(OLD, new)
    assert read_record(tmp_path / "first.json") == new
    new.rows["maml"].trainings["a"].provenance["commit"] = "abc1234-dirty"
    write_record(tmp_path / "new" / "dirty.json", new)
    assert merge(tmp_path / "new" / "dirty.json") == 2
    refused = capsys.readouterr().err
    assert "uncommitted changes" in refused
    assert "maml" in refused and not (tmp_path / "dirty.json").exists()


def measured(seeds: dict[str, list[int]], steps: int = 5, cells: str = "ab") -> Record:
    """A record of rows with the scores of each task of some seeds."""
    rows = {}
    for name, numbers in seeds.items():
        runs = {seed: {cell: scores(name, seed, cell) for cell in cells} for seed in numbers}
        rows[name] = Row(
            {
                CellKey(cell): column_of(
                    cell, {h: [runs[seed][cell] for seed in numbers] for h in ("pre", "ensemble")}
                )
                for cell in cells
            },
            {
                "": TrainingFacts(
                    {
                        "problem": "Sinusoids",
                        "backbone": "MLP",
                        "training": {"steps": steps},
                        "seed": numbers[0],
                        "start_from": f"pre-{numbers[0]}",
                    },
                    seeds=numbers,
                    seconds=[float(seed) for seed in numbers],
                    steps=[steps] * len(numbers),
                    peak_mib=[1] * len(numbers),
                    best_step=[5] * len(numbers),
                    validation=[50.0] * len(numbers),
                )
            },
        )
        reference = rows["omni"] if "omni" in rows else rows[name]
        for key, column in rows[name].cells.items():
            rows[name].cells[key] = column.compared(reference.cells[key].scores["ensemble"])
    count = len(seeds[next(iter(seeds))])
    return Record(
        "mine", "Mine", "nothing", "omni", "accuracy %", True, next(iter(seeds)), 4, count,
        "over tasks and seeds" if count > 1 else "over tasks", rows,
    )  # fmt: skip


def scores(row: str, seed: int, cell: str) -> list[float]:
    random = torch.Generator().manual_seed(sum(map(ord, row + cell)) + 1000 * seed)
    return (100 * torch.rand(4, generator=random)).tolist()


def test_rows_measured_in_several_places_equal_rows_measured_in_one() -> None:
    whole = measured({"omni": [0], "proto": [0], "maml": [0]})
    parts = [measured({name: [0]}) for name in ("omni", "proto", "maml")]
    assert merged(merged(parts[0], parts[1]), parts[2]) == whole
    assert whole.rows["maml"].cells[A].reference_minus_this
    assert verdict(Claim("proto", better_than="maml"), [whole]).is_paired


def test_seeds_measured_in_several_places_equal_seeds_measured_in_one() -> None:
    whole = measured({"omni": [0, 1, 2], "proto": [0, 1, 2]})
    parts = [measured({"omni": [seed], "proto": [seed]}) for seed in (1, 0, 2)]
    alone = merged(whole, measured({"proto": [1]}))
    assert alone.rows["proto"].cells == whole.rows["proto"].cells
    both = merged(merged(parts[0], parts[1]), parts[2])
    for record in (both, whole):  # one configuration stands for all seeds
        for row in record.rows.values():
            row.training.config.clear()
    assert both == whole and both.seeds == 3


def test_seeds_of_another_configuration_are_not_joined() -> None:
    before, other = measured({"omni": [0]}), measured({"omni": [1]}, steps=7)
    both = merged(before, other)
    assert both.rows["omni"].training.seeds == [1] and both.seeds == 1
    assert both.rows["omni"].cells == other.rows["omni"].cells
    (line,) = dropped_seeds(before, both)
    assert "omni" in line and "[0] are replaced: other training.steps" in line
    assert not dropped_seeds(before, merged(before, measured({"omni": [1]})))


def test_options_that_are_newer_than_a_record_have_their_defaults() -> None:
    before, after = measured({"omni": [0]}), measured({"omni": [1]})
    after.rows["omni"].training.config["training"]["updates_per_step"] = 1
    assert merged(before, after).rows["omni"].training.seeds == [0, 1]
    after.rows["omni"].training.config["training"]["updates_per_step"] = 2
    assert merged(before, after).rows["omni"].training.seeds == [1]


def test_costs_and_the_command_are_of_all_seeds_and_the_caption_names_the_rows_with_fewer() -> None:
    before = replace(measured({"omni": [0], "proto": [0]}), command="omni reproduce mine --seeds 0")
    before.rows["omni"] = replace(before.rows["omni"], seconds_per_step={"": 0.5})
    both = merged(before, measured({"omni": [1, 2]}))
    assert both.command == "omni reproduce mine --seeds 0 1 2"
    assert both.rows["omni"].seconds_per_step == {"": 0.5}
    assert "3 seeds (1 of proto), 95 % intervals" in caption(both)
    assert "1 seed, 95 %" in caption(before)
    assert seeds_in_short(both) == "1 to 3 seeds" and seeds_in_short(before) == "1 seed"


def test_scores_are_as_exact_in_a_file_as_float32(tmp_path: Path) -> None:
    before = measured({"omni": [0, 3]})
    write_record(tmp_path / "a.json", before)
    after = read_record(tmp_path / "a.json")
    for key, column in before.rows["omni"].cells.items():
        found = after.rows["omni"].cells[key].scores
        for head, each in column.scores.items():
            torch.testing.assert_close(torch.tensor(found[head]), torch.tensor(each))
    text = (tmp_path / "a.json").read_text()
    (tmp_path / "b.json").write_text(text.replace('"scores": {\n', '"scores": {\n "x": ["!"],\n'))
    with pytest.raises(InputError, match=r"b\.json is damaged or not a record"):
        read_record(tmp_path / "b.json")

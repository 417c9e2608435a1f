"""Claims and the report: verdicts by known numbers, pages with the numbers of the records."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from omnitraining.cli import main
from omnitraining.errors import InputError
from omnitraining.evaluation import Cell, CellKey, Difference, Evaluation, paired_difference
from omnitraining.experiments.claims import Claim, Verdict, comparisons, verdict
from omnitraining.experiments.experiment import Experiment, experiments
from omnitraining.experiments.record import Comparison, as_json, from_json, read_record
from omnitraining.experiments.report import markers, report
from omnitraining.experiments.report.provenance import full_size, provenance
from omnitraining.experiments.tables import short_number

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results"
Values = dict[str, Any]


def head(mean: float, interval: float) -> Values:
    return {"mean": mean, "interval": interval, "by_seed": [mean]}


def record(higher: bool = True, **rows: dict[str, tuple[float, float]]) -> Values:
    """Rows of means and intervals by cell, in the form of version 0.1."""
    first = next(iter(rows))
    made = {}
    for row, cells in rows.items():
        made[row] = {
            "cells": {
                cell: {
                    "tasks": "same",
                    "heads": {"pre": head(mean - 1, half), "ensemble": head(mean, half)},
                    "reference_minus_this": {"mean": rows[first][cell][0] - mean, "interval": 0.5},
                }
                for cell, (mean, half) in cells.items()
            },
            "multiply_adds_per_step": 100,
            "steps": [10, 10],
            "seconds": [60.0, 120.0],
            "peak_mib": [500, 1500],
            "validation": [1.0],
            "provenance": {"commit": None, "torch": "2.13.0", "device": "cpu", "cpus": 2},
        }
    return {
        "experiment": "mine", "title": "Mine", "paper": "nothing", "command": "omni sweep mine",
        "unit": "accuracy %", "higher_is_better": higher, "reference": first, "tasks": 600,
        "seeds": 1, "rows": made,
    }  # fmt: skip


CELLS = [f"{where} 5-way {shot}-shot" for where in ("latin", "greek") for shot in (1, 5)]


def with_gaps(*gaps: float, higher: bool = True) -> Values:
    """Two rows; the first minus the second is as given, with an interval of 0.5."""
    return record(
        higher,
        omni={cell: (50.0 + gap, 1.0) for cell, gap in zip(CELLS, gaps, strict=True)},
        rival={cell: (50.0, 1.0) for cell in CELLS},
    )


def judge(claim: Claim, records: list[Values]) -> Verdict:
    """The verdict by the files of records."""
    return verdict(claim, [from_json(values) for values in records])


# --- verdicts ---


@pytest.mark.parametrize(
    ("gaps", "word", "better", "worse"),
    [
        ((1, 1, 1, 1), "holds", 4, 0),
        ((1, 1, 1, 0.4), "holds", 3, 0),
        ((1, 1, 0.4, 0.4), "does not", 2, 0),
        ((1, 1, 1, -0.6), "does not", 3, 1),
        ((-1, -1, -1, -1), "does not", 0, 4),
    ],
)
def test_a_claim_holds_in_most_cells_and_against_none(
    gaps: tuple[float, ...], word: str, better: int, worse: int
) -> None:
    found = judge(Claim("omni", better_than="rival"), [with_gaps(*gaps)])
    assert (found.word, found.better, found.worse, found.cells) == (word, better, worse, 4)
    assert found.is_paired
    turned = judge(Claim("rival", better_than="omni"), [with_gaps(*gaps)])
    assert (turned.better, turned.worse) == (worse, better)
    lower = judge(
        Claim("omni", better_than="rival"), [with_gaps(*(-gap for gap in gaps), higher=False)]
    )
    assert lower == found


@pytest.mark.parametrize(
    ("gaps", "word", "within", "beyond"),
    [
        ((0.4, -0.4, 0, 1), "holds", 4, 0),
        ((1.4, -1.4, 1.6, 1), "holds", 3, 0),  # intervals of 0.5 each: 1.6 may be 2.1
        ((1.4, 1.6, 1.6, 1), "does not", 2, 0),
        ((0, 0, 0, 3), "does not", 3, 1),
        ((9, 9, 9, 9), "does not", 0, 4),  # far better is not equivalent
    ],
)
def test_equivalent_means_within_the_margin_on_both_sides(
    gaps: tuple[float, ...], word: str, within: int, beyond: int
) -> None:
    claim, turned = (
        Claim("omni", equivalent_to="rival", margin=2),
        Claim("rival", equivalent_to="omni", margin=2),
    )
    for each in (claim, turned):
        found = judge(each, [with_gaps(*gaps)])
        assert (found.word, found.better, found.worse) == (word, within, beyond)


@pytest.mark.parametrize(
    ("omni", "rival", "word", "ratio"),
    [
        ((300, [10, 10]), (150, [20, 20]), "holds", 1.0),
        ((300, [10, 10]), (100, [20, 20]), "not at equal compute", 1.5),
        ((300, [10, 12]), (300, [11, 11]), "holds", 1.0),
        ((300, [5]), (300, [20]), "holds", 0.25),  # less compute is no objection
        ((None, [10]), (300, [10]), "not at equal compute", None),
    ],
)
def test_a_claim_holds_only_at_equal_compute(
    omni: tuple[int | None, list[int]],
    rival: tuple[int | None, list[int]],
    word: str,
    ratio: float | None,
) -> None:
    made = with_gaps(1, 1, 1, 1)
    for name, (step, steps) in (("omni", omni), ("rival", rival)):
        made["rows"][name] |= {"multiply_adds_per_step": step, "steps": steps}
    found = judge(Claim("omni", better_than="rival"), [made])
    assert (found.word, found.compute) == (word, ratio)
    lost = judge(Claim("rival", better_than="omni"), [made])
    assert lost.word == "does not"


def test_the_setting_with_the_greatest_ratio_of_compute_decides() -> None:
    made = from_json(with_gaps(1, 1, 1, 1))
    for name, steps in (("omni", [10, 20]), ("rival", [10, 10])):
        facts = made.rows[name].training
        made.rows[name].trainings = {
            setting: replace(facts, steps=[count])
            for setting, count in zip(("here", "there"), steps, strict=True)
        }
    found = verdict(Claim("omni", better_than="rival"), [made])
    assert (found.word, found.compute) == ("not at equal compute", 2.0)


def test_kept_differences_of_errors_count_the_other_way_round() -> None:
    """Row minus rival is negative where the row has the lower error, and so is better."""
    made = from_json(with_gaps(0, 0, 0, 0, higher=False))
    made.reference = "none"
    kept = {key: Difference(-1.0, 0.5) for key in made.rows["omni"].cells}
    made.claims = [Comparison("omni", "pre", "rival", kept)]
    found = verdict(Claim("omni", better_than="rival", head="pre"), [made])
    assert (found.better, found.worse, found.is_paired) == (4, 0, True)


def test_a_claim_may_be_about_some_cells() -> None:
    made = with_gaps(1, 1, -1, -1)
    assert judge(Claim("omni", better_than="rival", cells=("latin",)), [made]).word == "holds"
    assert (
        judge(Claim("omni", better_than="rival", cells=("greek 5-way 1-shot",)), [made]).cells == 1
    )
    assert (
        judge(Claim("omni", better_than="rival", cells=("lat",)), [made]).word
        == "not measured here"
    )


def test_what_was_not_run_is_not_measured() -> None:
    assert judge(Claim("omni", better_than="rival"), []).word == "not measured here"
    assert judge(Claim("omni", better_than="nobody"), [with_gaps(1, 1, 1, 1)]).cells == 0


def test_flows_are_compared_as_if_independent() -> None:
    # The pre-flow is 1 below the ensemble; intervals of 1 each make one of the root of 2.
    found = judge(Claim("omni", better_than="rival", head="pre"), [with_gaps(2.5, 2.4, 2.3, 0)])
    assert (found.better, found.worse, found.is_paired) == (1, 0, False)
    assert 2.5 - 1 > 2**0.5 > 2.4 - 1


def test_records_keep_differences_of_claims_task_by_task() -> None:
    scores = {"pre": [1.0, 2.0, 6.0], "ensemble": [2.0, 3.0, 9.0]}
    others = {"ensemble": [1.0, 3.5, 4.0]}
    a, b = CellKey("a"), CellKey("b")
    pooled = {
        "omni": Evaluation("accuracy %", True, {a: Cell("h", scores), b: Cell("h", scores)}),
        "maml": Evaluation("accuracy %", True, {a: Cell("h", others), b: Cell("i", others)}),
    }
    claims = [Claim("omni", better_than="maml", head="pre"), Claim("omni", better_than="nobody")]
    (kept,) = comparisons(claims, {row: [each] for row, each in pooled.items()})
    gap = paired_difference(scores["pre"], others["ensemble"])
    assert [*kept.cells] == [a], "b was evaluated on other tasks"
    assert kept.cells[a].mean == pytest.approx(gap.mean, rel=1e-3)
    assert kept.cells[a].interval == pytest.approx(gap.interval, rel=1e-3)
    made = from_json(record(omni={"a": (5.0, 9.0)}, maml={"a": (0.0, 9.0)}))
    made.claims = [Comparison(*kept.rows_and_head, {a: Difference(1.0, 0.5)})]
    assert from_json(as_json(made)).claims == made.claims
    paired = verdict(claims[0], [made])
    assert (paired.better, paired.is_paired) == (1, True), "by the ends of 9 it would be undecided"


def test_a_claim_is_of_one_kind() -> None:
    for wrong in ({}, {"better_than": "a", "equivalent_to": "b"}):
        with pytest.raises(InputError, match="give better_than or equivalent_to, one of the two"):
            Claim("omni", **wrong)
    for wrong in ({"equivalent_to": "a"}, {"better_than": "a", "margin": 1.0}):
        with pytest.raises(InputError, match="give a margin above 0 with equivalent_to"):
            Claim("omni", **wrong)
    claim = Claim("omni", better_than="maml", head="meta", cells=["latin"])
    assert claim.text == "omni, meta-flow alone, above maml on latin"


@pytest.mark.parametrize("experiment", [s for s in experiments() if s.claims], ids=lambda s: s.name)
def test_claims_of_experiments_are_about_their_rows(experiment: Experiment) -> None:
    for claim in experiment.claims:
        assert {claim.row, claim.rival} <= {*experiment.rows} and claim.source


# --- records ---


def test_a_record_of_version_0_1_and_one_of_today_hold_the_same() -> None:
    """Cells by texts and trainings among the entries of a row, against keys and trainings."""
    old = with_gaps(1, 2, 3, 4)
    for row in old["rows"].values():
        row["paper"] = {"latin 5-shot": [50.0, 0.5], "greek 5-shot": [49.0]}
    made = from_json(old)
    now = json.loads(json.dumps(as_json(made)))
    assert from_json(now) == made
    row = made.rows["omni"]
    key = CellKey("greek", ways=5, shots=1)
    assert row.cells[key].heads["pre"].mean == 52.0 and row.cells[key].ensemble.mean == 53.0
    assert made.rows["rival"].cells[key].reference_minus_this == Difference(3.0, 0.5)
    assert row.training.multiply_adds == 1000 and row.training.steps == [10, 10]
    assert row.paper == {
        CellKey("latin", shots=5): (50.0, 0.5),
        CellKey("greek", shots=5): (49.0, None),
    }
    settings = {"settings": {"a": {"seconds": [1.0]}, "b": {"seconds": [2.0]}}, "cells": {}}
    made = from_json({**old, "rows": {"omni": settings}})
    assert [one.seconds for one in made.rows["omni"].trainings.values()] == [[1.0], [2.0]]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"rows": {"a": {"cells": [{"benchmark": "x"}]}}}, "it lacks 'tasks'"),
        ({"rows": {"a": {"cells": [{"benchmark": 3}]}}}, "benchmark is 3: it must be a text"),
        ({"rows": {"a": {"cells": [{"shots": "1"}]}}}, "shots is '1': it must be an integer"),
        ({"rows": {"a": {"cells": 3}}}, "cells must be a list of mappings"),
        ({"rows": []}, "has no attribute 'items'"),
    ],
)
def test_a_damaged_record_names_what_is_wrong(change: Values, line: str) -> None:
    with pytest.raises(ValueError, match=re.escape(line)):
        from_json({**with_gaps(1, 1, 1, 1), **change})


# --- the report ---


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A folder with one sweep, with a picture and a run that failed."""
    folder = tmp_path / "results"
    folder.mkdir()
    made = with_gaps(1, 1, 1, 1)
    made["failed"] = {"omni-1": "loss term l_pre became nan"}
    for row in made["rows"].values():
        row["of_seeds"] = [0]
    (folder / "mine.json").write_text(json.dumps(made))
    (folder / "benchmarks.json").write_text("[]")
    shutil.copy(RESULTS / "figure6.png", folder / "mine.png")
    return folder


def test_the_report_has_the_numbers_of_the_records(results: Path) -> None:
    pages = {section.name: section for section in report.report(results)}
    assert [name for name, section in pages.items() if section.is_measured] == ["mine"]
    text = pages["mine"].text
    assert "51.0 ± 1.0" in text and "omni-1: loss term l_pre became nan" in text
    assert "| Commit | not recorded |" in text and "| Machine | not recorded; 2 cores" in text
    assert "6 minutes" in text and "1,500 MiB" in text
    assert "| Python not recorded" not in text and "Python not recorded" in text
    assert "71.30 ± 0.71" in pages["table3"].text, "the paper's numbers"
    assert "Not measured here. The command is `omni reproduce table3 --data DIR`" in (
        pages["table3"].text
    )


def test_a_folder_gets_pages_and_pictures(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(results), "--out", str(tmp_path / "report")]) == 0
    assert "1 of " in capsys.readouterr().out
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert {"index.md", "mine.md", "mine.png", "table2.md", "figure5.md"} <= names
    for target in re.findall(r"\]\(([^)#]+)\)", (tmp_path / "report" / "index.md").read_text()):
        assert target in names


def test_a_record_without_a_picture_shows_none(results: Path) -> None:
    (results / "mine.png").unlink()
    section = next(section for section in report.report(results) if section.name == "mine")
    assert "![" not in section.text and "51.0 ± 1.0" in section.text


EVIL = "<script>alert(1)</script>"


def test_untrusted_records_are_text(results: Path, tmp_path: Path) -> None:
    """No HTML of a title, unit, row, file or note, and no file from elsewhere."""
    made = json.loads((results / "mine.json").read_text())
    for field in ("title", "unit", "command", "paper"):
        made[field] = f"{EVIL} {made[field]}"
    for place in ("../secret.png", str(tmp_path / "secret.png"), "https://evil.example/x.png"):
        made["title"] += f'\n\n![x]({place} "t")'
    made["rows"][EVIL] = made["rows"].pop("rival")
    made["failed"][EVIL] = EVIL
    (results / "mine.json").write_text(json.dumps(made))
    (results / f"{EVIL.replace('/', '')}.json").write_text(json.dumps(made))
    (results / "README.md").write_bytes(
        f"# T\n\n{EVIL}\n\n[a](javascript:x) \xe9".encode("latin-1")
    )
    (tmp_path / "secret.png").write_bytes(b"secret")
    (results / "linked.png").symlink_to(tmp_path / "secret.png")
    made["title"] += "![x](linked.png)"
    (results / "other.json").write_text(json.dumps(made))
    assert main(["report", str(results), "--out", str(tmp_path / "deep" / "report")]) == 0
    pages = [*(tmp_path / "deep").rglob("*")]
    assert not (tmp_path / "deep" / "secret.png").exists()
    for page_of in (path for path in pages if path.suffix == ".md" and path.stem != "notes"):
        assert "<script" not in page_of.read_text("utf-8")
    assert {path.name for path in pages if path.suffix == ".png"} <= {"mine.png"}


@pytest.mark.parametrize("change", [
    {"rows": 3}, {"rows": {"a": {}}}, {"reference": "nobody"}, {"unit": None, "rows": []},
])  # fmt: skip
def test_a_damaged_record_is_one_line(
    change: Values, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = json.loads((results / "mine.json").read_text())
    made.pop("failed")
    (results / "mine.json").write_text(json.dumps({**made, "experiment": "figure5", **change}))
    assert main(["report", str(results), "--out", str(tmp_path / "new")]) == 2
    assert "json is damaged or not a record: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda folder: folder.rmdir(), "there is no folder of records at"),
        (lambda folder: None, "there is no record in"),
        (lambda folder: (folder / "a.json").write_text("{"), "a.json is damaged"),
    ],
)
def test_folders_without_records_are_one_line(
    make: Any, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    make(folder)
    assert main(["report", str(folder), "--out", str(tmp_path / "new")]) == 2
    printed = capsys.readouterr().err
    assert line in printed and printed.count("\n") == 1


def test_out_must_be_a_folder(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for out in (results / "mine.json", results.parent / "d.html"):
        assert main(["report", str(results), "--out", str(out)]) == 2
        assert "it must be a folder" in capsys.readouterr().err


def test_the_committed_report_has_the_numbers_of_the_records() -> None:
    text = (RESULTS / "report.md").read_text()
    assert text == report.markdown(report.report(RESULTS)), "python results/render.py"
    maml = read_record(RESULTS / "figure5.json").rows["maml"]
    assert short_number(maml.cells[CellKey(shots=5, steps=10)].ensemble) in text


def test_every_table_and_figure_of_the_paper_is_mentioned() -> None:
    text = (RESULTS / "report.md").read_text()
    for item in report.OF_THE_PAPER:
        assert re.search(rf"{item}(?!\d)", text)


def test_what_stands_between_markers_is_replaced() -> None:
    text = f"before\n{markers.BEGIN}\nold\n{markers.END}\nafter\n"
    assert markers.filled(text, ["new\n"]) == text.replace("old", "new")
    assert markers.outside(text, "words") == "before\nwords\nafter\n"


def test_a_record_of_a_part_estimates_the_whole() -> None:
    part = record(omni={"latin 5-way 1-shot": (50.0, 1.0)})
    assert "full size" not in provenance(from_json(part))
    part["command"] = "omni reproduce figure8 --budget 0.05"
    text = provenance(from_json(part))
    assert "| Training time at full size, estimated from that | 60 minutes, on the" in text


def test_what_the_full_size_takes_counts_a_shared_run_once() -> None:
    run = {"run": "a-0", "steps": 60000, "teraflop per step": 1.8, "hours": 1.5, "GiB": 3.8}
    rows = {"a, cub": run, "b, cub": {**run, "run": "b-0", "hours": 2.5}, "c, cub": run}
    counted = {"command": "count", "TFLOP per second": 20.0, "experiments": {"table9": rows}}
    text = full_size(counted, "table9")
    assert "(`count`): 4 hours of training for the 2 runs of one seed, at 20 TFLOP" in text
    assert "| a, cub | 60,000 | 1.8 | 1.5 | 3.8 |" in text
    assert full_size(counted, "table8") == ""


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_the_command_of_a_record_names_no_folder_of_a_machine(path: Path) -> None:
    values = json.loads(path.read_text())
    command = values.get("command", "") if isinstance(values, dict) else ""
    assert not re.search(r"(^|\s|=)[/~]", command), command

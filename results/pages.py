"""Tables of this repository's own pages: README, results, guides, the card of the shipped model."""

from collections.abc import Mapping
from typing import Any

from omnitraining.evaluation import ENSEMBLE, CellKey, Difference
from omnitraining.experiments.claims import EQUAL, Claim, better_and_worse, compute_ratio, gaps
from omnitraining.experiments.record import Record
from omnitraining.experiments.tables import (
    against_each_row,
    by_shots,
    markdown,
    number_of_seeds,
    seeds,
    short_number,
)

Values = Mapping[str, Any]
"""A file of a benchmark, which is no record of an experiment."""

HEADS = {"vote": "ensemble, weights by validation", ENSEMBLE: "ensemble, equal weights"}
"""Names in tables of two entries of the calibration file."""


def front(near: Record, far: Record) -> str:
    """Unseen classes of the training domain, and the mean over other domains, with the compute.

    Args:
        near: record with one benchmark, of the training domain.
        far: record of the same runs with the benchmarks of other domains.
    """
    (name,) = {key.benchmark for key in near.keys}
    others = list(dict.fromkeys(key.benchmark for key in far.keys))
    lines = []
    for label, row in near.rows.items():
        other_domains = [
            [
                column.ensemble.mean
                for key, column in far.rows[label].cells.items()
                if key.shots == s
            ]
            for s in (1, 5)
        ]
        home = [
            short_number(column.ensemble)
            for shots in (1, 5)
            for key, column in row.cells.items()
            if key.shots == shots
        ]
        cost = row.training.multiply_adds
        spent = f"{cost / 1e12:.1f}" if cost else ""
        means = [f"{sum(each) / len(each):.1f}" for each in other_domains]
        steps, (step,) = row.training.steps[0], row.seconds_per_step.values() or (0,)
        minutes = f"{step * steps / 60:.0f}" if step else ""
        lines.append([label, *home, *means, str(steps), spent, minutes])
    header = ["", f"{name} 1-shot", "5-shot", f"{len(others)} other domains 1-shot", "5-shot"]
    words = (
        f"**Trained on {name}, tested on its unseen classes and on {', '.join(others)}** "
        f"(`{near.command}`; Conv4 of 64 channels, 42 px, 5-way accuracy in %, {near.tasks} "
        f"episodes, {seeds(near)}, 95 % intervals {near.intervals}; other domains: mean; minutes: "
        "of all training steps on one core, as timed with all rows in turn).\n"
    )
    table = markdown([*header, "steps", "10^12 multiply-adds", "minutes"], lines)
    return "\n".join([words, table, against(near, far)])


def of_equal_compute(record: Record) -> list[str]:
    """Rows that were trained for the compute of the reference."""
    reference = record.rows[record.reference]
    ratios = {
        name: compute_ratio(reference, row)
        for name, row in record.rows.items()
        if name != record.reference
    }
    return [name for name, ratio in ratios.items() if ratio and 1 / EQUAL <= ratio <= EQUAL]


def against(near: Record, far: Record) -> str:
    """In how many cells the reference is better and worse than each row of equal compute."""
    words = []
    for name in of_equal_compute(near):
        leads = [gap for record in (near, far) for gap in leads_over(name, record)[0].values()]
        better, worse = better_and_worse(leads)
        words.append(f"{name} {better} / {worse}")
    cells = sum(len(record.rows[record.reference].cells) for record in (near, far))
    return (
        f"At equal compute {near.reference} is better / worse, with an interval that excludes "
        f"zero, in so many of {cells} cells: {'; '.join(words)}. {unpaired(near)}\n"
    )


def leads_over(name: str, record: Record) -> tuple[dict[CellKey, Difference], bool]:
    """Differences of the reference from a row by cell, and whether they are paired."""
    return gaps(Claim(record.reference, better_than=name), record)


def unpaired(record: Record) -> str:
    """Which rows of equal compute are not compared in pairs with the reference, in a sentence."""
    names = [name for name in of_equal_compute(record) if not leads_over(name, record)[1]]
    if not names:
        return "Differences are paired over episodes."
    return (
        f"Differences are paired over episodes, but for {', '.join(names)}, whose scores of single "
        "episodes were not kept: their intervals are those of independent means, and wider."
    )


def advantages(near: Record, far: Record) -> str:
    """Differences of the reference from every row of equal compute, cell by cell."""
    names = of_equal_compute(near)
    lines = []
    for record in (near, far):
        leads = {name: leads_over(name, record)[0] for name in names}
        for key, column in record.rows[record.reference].cells.items():
            line = [f"{key.benchmark}, {key.shots}-shot", f"{column.ensemble.mean:.1f}"]
            for name in names:
                gap = leads[name].get(key)
                text = f"{gap.mean:+.1f} ± {gap.interval:.1f}" if gap else ""
                line.append(f"**{text}**" if gap and gap.is_significant else text)
            lines.append(line)
    return (
        f"`{near.command}` and `{far.command}`: 5-way accuracy of {near.reference} in %, and how "
        f"much it is above each other method; {seeds(near)}, {near.tasks} episodes, 95 % intervals "
        f"{near.intervals}. {unpaired(near)}\n\n"
        + markdown(["unseen classes of", near.reference, *(f"above {n}" for n in names)], lines)
    )


def glyphs(record: Record) -> str:
    """The demonstration on generated characters: accuracies, and differences in pairs."""
    words = (
        f"**{record.title}** (`{record.command}`; 5-way accuracy in %, {record.tasks} tasks, "
        f"{seeds(record)}, 95 % intervals {record.intervals}; all rows but those named otherwise "
        "are trained for as many multiply-adds as the first).\n"
    )
    picture = "![accuracy of every method on every benchmark](glyphs.png)\n"
    return "\n".join([words, picture, by_shots(record), against_each_row(record, "accuracy")])


def pretrained(record: Record) -> str:
    """Accuracies of the shipped model and of its counterparts."""
    words = (
        f"`{record.command}`; 5-way accuracy in %, {record.tasks} tasks, "
        f"{'mean of ' * (record.seeds > 1)}{seeds(record)}, 95 % interval {record.intervals}.\n"
    )
    return f"{words}\n{by_shots(record)}"


def flows(record: Record) -> str:
    """The flows of the reference one by one, and their ensemble."""
    cells = record.rows[record.reference].cells
    shown = [key for key in cells if key.steps in (None, 1, 10)]
    lines = [
        [head, *(short_number(cells[key].heads[head]) for key in shown)]
        for head in cells[shown[0]].heads
    ]
    words = (
        f"`{record.command}`, {record.unit}, "
        f"{'mean of ' * (record.seeds > 1)}{number_of_seeds(record.seeds)}, "
        f"95 % intervals {record.intervals}, {record.tasks} tasks:\n"
    )
    return "\n".join([words, markdown(["", *(str(key.without_ways) for key in shown)], lines)])


def speed(rows: list[dict[str, Any]]) -> str:
    """Ratios of the benchmarks."""
    lines = [[r["what"], r["case"], f"{r['ratio']:.3g}", r["goal"]] for r in rows]
    table = markdown(["what", "case", "ratio", "goal"], lines)
    return f"**Speed** (`make bench`; ratios measured side by side).\n\n{table}"


def features(record: Values) -> str:
    """What color histograms and HOG with logistic regression reach, by benchmark."""
    cells = {
        cell: f"{v['mean']:.1f} ± {v['interval']:.1f}" for cell, v in record["accuracy"].items()
    }
    names = list(dict.fromkeys(cell.rsplit(" ", 2)[0] for cell in cells))
    lines = [[name, *(cells[f"{name} 5-way {shots}-shot"] for shots in (1, 5))] for name in names]
    return (
        "**What any model of photographs has to beat**: histograms of colors and HOG at 64 pixels "
        "with logistic regression, without any training (`python -m benchmarks.photo_features DIR "
        "results/photo-features.json`; 5-way accuracy in %, 600 tasks).\n\n"
        + markdown(["", "1-shot", "5-shot"], lines)
    )


def unseen(record: Values, without_training: Values) -> str:
    """The photo model's recipe on domains it was not trained on, beside histograms and HOG.

    Args:
        record: of `benchmarks.unseen_domains`.
        without_training: of `benchmarks.photo_features`.
    """
    lines = []
    for cell, v in record["cells"].items():
        bar = without_training["accuracy"].get(cell)
        lines.append(
            [
                cell,
                f"{v['accuracy']:.1f} ± {v['interval']:.1f}",
                f"{bar['mean']:.1f} ± {bar['interval']:.1f}" if bar else "",
                f"{v['calibration error']:.1f}",
                f"{v['known accepted']:.0f}",
                f"{100 - v['unknown accepted']:.0f}",
                f"{v['warned']:.0f}",
            ]
        )
    asked = f"{100 * record['accepted']:.0f}"
    return (
        "**On domains that were left out of training** (the recipe of `photos` without that "
        "domain, at a quarter of its steps, `omni reproduce photos-left-out`; CIFAR-FS with the "
        "shipped model; "
        f"{record['tasks']} tasks a row, `{record['command']}`).\n\n"
        + markdown(
            [
                "tasks",
                "accuracy %",
                "histograms and HOG %",
                "calibration error",
                f"known accepted % ({asked} wanted)",
                "unknown rejected %",
                "fits that warn %",
            ],
            lines,
        )
    )


def trust(record: Values) -> str:
    """Calibration and rejection of unknown classes by the shipped model, per benchmark."""
    lines = []
    for cell, heads in record["probabilities"].items():
        ensemble = heads.get("vote", heads[ENSEMBLE])
        found = record.get("unknown", record.get("strangers"))[cell]
        rejected = found.get("unknown rejected", found.get("strangers rejected"))
        lines.append(
            [cell, f"{ensemble['accuracy']:.1f}", f"{ensemble['error before']:.1f}",
             f"{ensemble['error after']:.1f}", f"{found['auroc']:.3f}",
             f"{found['known accepted']:.0f}", f"{rejected:.0f}"]
        )  # fmt: skip
    errors = "calibration error before", "after"
    accepted = f"known accepted % ({record['accepted']:.0%} wanted)"
    unknown = "AUROC of unknown classes", accepted, "unknown rejected %"
    header = ["tasks", "accuracy %", *errors, *unknown]
    return f"{markdown(header, lines)}\n`{record['command']}`\n"


def calibration(record: Values) -> str:
    """The same, and the calibration error of each flow, averaged over tasks."""
    cells = record["probabilities"].values()
    heads = [
        [HEADS.get(head, head),
         *(f"{sum(c[head][key] for c in cells) / len(cells):.1f}"
           for key in ("accuracy", "error before", "error after"))]
        for head in next(iter(cells))
    ]  # fmt: skip
    return (
        f"**{record['title']}** ({record['tasks']} tasks per row; percentage points).\n\n"
        + trust(record)
        + "\nMean over these rows, by the flow that predicts:\n\n"
        + markdown(["head", "accuracy %", "calibration error before", "after"], heads)
        + _scores(record)
    )


def _scores(record: Values) -> str:
    """Other scores of unknown classes than similarity, averaged over benchmarks."""
    cells: dict[str, dict[str, dict[str, float]]] = record.get("scores", {})
    shots = list(dict.fromkeys(cell.split()[-1] for cell in cells))
    lines = []
    for name in next(iter(cells.values()), ()):
        line = [name]
        for shot in shots:
            own = [scores[name] for cell, scores in cells.items() if cell.endswith(shot)]
            keys = [key for key in own[0] if key == "auroc" or key.endswith(" rejected")]
            auroc, rejected = (sum(each[key] for each in own) / len(own) for key in keys)
            line.append(f"{auroc:.3f}, {rejected:.0f} %")
        lines.append(line)
    if not lines:
        return ""
    return (
        "\nOther scores, on the same tasks: AUROC, and unknown queries rejected where "
        f"{record['accepted']:.0%} of known queries are accepted, mean over benchmarks. The first "
        "is the library's.\n\n" + markdown(["score", *shots], lines)
    )

"""What a record says, as Markdown: tables, verdicts, pictures. No number is typed by hand."""

from typing import Any

from omnitraining.experiments.claims import EQUAL, Claim, Verdict, compute_ratio, training_cost
from omnitraining.experiments.figures import flow_curves, pairs, tables

Record = dict[str, Any]

SIGNS = {
    "holds": "✓ holds",
    "does not": "✗ does not",
    "not at equal compute": "≈ not at equal compute",
    "not measured here": "– not measured here",
}
"""Signs stand beside words, so that nothing is told by color alone."""


def results(record: Record, draw: str, picture: str) -> str:
    """Everything that a record says of results, and its picture.

    Args:
        record: as `omnitraining.experiments.records` writes it.
        draw: the module of `figures` that draws it; "" for a search.
        picture: file beside the record; "" if there is none.
    """
    if "failed" in record:
        text = sweep(record, picture)
    elif not draw:
        text = search(record)
    elif draw == "pairs":
        text = algorithms(record)
    elif draw == "sinusoid_errors":
        text = sinusoids(record)
    elif draw == "adaptation_curves":
        text = policies(record, picture)
    elif draw in ("tables", "flow_attention", "flow_curves"):
        text = tables.markdown(record) + (f"\n![{record['title']}]({picture})\n" if picture else "")
        text += f"\n{single_flows(record)}" if draw == "flow_curves" else ""
    else:
        first = (
            f"`{record['command']}`; {record['unit']}, {record['tasks']} tasks, {seeds(record)}, "
        )
        figure = [f"![{record['title']}]({picture})\n"] if picture else []
        lines = [*accuracies(record), verdicts(record, "accuracy")]
        text = "\n".join([first + f"95 % intervals {over(record)}.\n", *figure, *lines])
    return text


def seeds(record: Record) -> str:
    return "1 seed" if record["seeds"] == 1 else f"{record['seeds']} seeds"


def over(record: Record) -> str:
    """What the intervals of a record cover; those of early versions cover tasks alone."""
    covered: str = record.get("intervals", "over tasks")
    return covered


def sweep(record: Record, picture: str) -> str:
    """Results by the values that were varied, and the runs that failed."""
    rows = record["rows"]
    cells = list(dict.fromkeys(cell for row in rows.values() for cell in row["cells"]))
    lines = [
        [name, ", ".join(map(str, row["of_seeds"])),
         *(number(row["cells"][cell]) if cell in row["cells"] else "" for cell in cells)]
        for name, row in rows.items()
    ]  # fmt: skip
    failed = [f"- {name}: {reason}" for name, reason in record["failed"].items()]
    parts = [
        f"`{record['command']}`; {record['unit']}, {record['tasks']} tasks, mean over seeds, 95 % "
        f"intervals {over(record)}.\n",
        table(["", "seeds", *cells], lines),
        f"![{record['title']}]({picture})\n" if picture else "",
        "\n".join(["Runs that failed:\n", *failed, ""]) if failed else "",
    ]
    return "\n".join(filter(None, parts))


def claims(found: list[tuple[Claim, Verdict]]) -> str:
    """A line per claim: where it is said, the verdict, and by how many cells."""
    lines = []
    for claim, verdict in found:
        apart = verdict.cells - verdict.better - verdict.worse
        counts = (
            [str(n) for n in (verdict.better, verdict.worse, apart)] if verdict.cells else [""] * 3
        )
        star = "" if verdict.is_paired or not verdict.cells else " *"
        cost = "" if verdict.compute is None else f"{verdict.compute:.2f}"
        lines.append([claim.of, claim.text, SIGNS[verdict.word] + star, *counts, cost])
    header = ["said in", "claim", "verdict", "cells better", "worse", "not told apart", "compute"]
    return table(header, lines)


def printed(rows: dict[str, Record]) -> str:
    """What the paper prints of some rows; empty if it prints nothing."""
    papers = {row: tables.printed(own) for row, own in rows.items() if "paper" in own}
    cells = list(dict.fromkeys(cell for found in papers.values() for cell in found))
    body = [
        [row, *(tables.number_text(found[c]) if c in found else "" for c in cells)]
        for row, found in papers.items()
    ]
    return table(["", *cells], body) if papers else ""


def search(record: Record) -> str:
    rows = sorted(record["rows"].items(), key=lambda row: -row[1]["validation"][0])
    seconds = sum(row["seconds"][0] for row in record["rows"].values())
    return (
        f"`{record['command']}`, {seconds / 60:.0f} minutes in all:\n\n"
        + table(
            ["row", f"best validation {record['unit']}", "seconds"],
            [[name, f"{row['validation'][0]:.2f}", f"{row['seconds'][0]:.0f}"]
             for name, row in rows],
        )
    )  # fmt: skip


def glyphs(record: Record) -> str:
    """The demonstration on generated characters: accuracies, cost and verdicts."""
    lines = [
        f"**{record['title']}** (`{record['command']}`; 5-way accuracy in %, {record['tasks']} "
        f"tasks, {seeds(record)}, 95 % intervals {over(record)}; all rows but those named "
        "otherwise are trained for as many multiply-adds as the first).\n",
        "![accuracy of every method on every benchmark](glyphs.png)\n",
        *accuracies(record),
    ]
    lines.append(verdicts(record, "accuracy"))
    return "\n".join(lines)


def pretrained(record: Record) -> str:
    seeds = "1 seed" if record["seeds"] == 1 else f"mean of {record['seeds']} seeds"
    first = (
        f"`{record['command']}`; 5-way accuracy in %, {record['tasks']} tasks, {seeds}, 95 % "
        f"interval {over(record)}.\n"
    )
    return "\n".join([first, *accuracies(record)])


def flows(record: Record) -> str:
    """The flows of the reference one by one, and their vote."""
    cells = record["rows"][record["reference"]]["cells"]
    shown = [c for c in cells if not c.endswith("steps") or c.split()[1] in ("1", "10")]
    heads = cells[shown[0]]["heads"]
    return "\n".join(
        [
            f"`{record['command']}`, {record['unit']}, mean of {record['seeds']} seeds, 95 % "
            f"intervals over {record['tasks']} tasks:\n",
            table(
                ["", *(cell.replace(" 5-way", "") for cell in shown)],
                [["vote" if head == "ensemble" else head,
                  *(number(cells[cell], head) for cell in shown)] for head in heads],
            ),
        ]
    )  # fmt: skip


def single_flows(record: Record) -> str:
    """Flows of the reference, each beside the row that is trained as that flow alone is."""
    alone = flow_curves.counterparts(record)
    cells = list(dict.fromkeys(cell for row in record["rows"].values() for cell in row["cells"]))
    lines = [
        [
            title,
            *(number(row["cells"][cell], flow) if cell in row["cells"] else "" for cell in cells),
        ]
        for flow, other in alone.items()
        for title, row in (
            (f"{record['reference']}, {flow}-flow alone", record["rows"][record["reference"]]),
            (other, record["rows"][other]),
        )
    ]
    return "Flow by flow; cells with steps are of fine-tuned flows:\n\n" + table(
        ["", *(cell.replace(" 5-way", "") for cell in cells)], lines
    )


def algorithms(record: Record) -> str:
    """A counterpart of a table of the paper: all rows, the figure, and who is above whom."""
    lines = [
        [omni, other, f"{above} of {cells}", f"{clear} of {cells}"]
        for omni, other, cells, above, clear in pairs.verdicts(record)
    ]
    return "\n".join(
        [
            tables.markdown(record),
            f"![each algorithm alone and inside Omni-Training]({record['experiment']}.png)\n",
            table(["row", "against", "above", "above, intervals disjoint"], lines),
        ]
    )


def trust(record: Record) -> str:
    """What the vote of the shipped model may be trusted with, task by task."""
    lines = []
    for cell, heads in record["probabilities"].items():
        vote, strangers = heads["vote"], record["strangers"][cell]
        lines.append(
            [cell, f"{vote['accuracy']:.1f}", f"{vote['error before']:.1f}",
             f"{vote['error after']:.1f}", f"{strangers['auroc']:.3f}",
             f"{strangers['known accepted']:.0f}", f"{strangers['strangers rejected']:.0f}"]
        )  # fmt: skip
    accepted = f"{record['accepted']:.0%}"
    return (
        table(
            ["tasks", "accuracy %", "calibration error before", "after", "AUROC of strangers",
             f"known accepted % ({accepted} wanted)", "strangers rejected %"],
            lines,
        )
        + f"\n`{record['command']}`\n"
    )  # fmt: skip


def calibration(record: Record) -> str:
    """The same, and the calibration error of each flow, averaged over tasks."""
    cells = record["probabilities"].values()
    heads = [
        [head, *(f"{sum(c[head][key] for c in cells) / len(cells):.1f}"
                 for key in ("accuracy", "error before", "error after"))]
        for head in next(iter(cells))
    ]  # fmt: skip
    return (
        f"**{record['title']}** ({record['tasks']} tasks per row; percentage points).\n\n"
        + trust(record)
        + "\nMean over these rows, by the flow that predicts:\n\n"
        + table(["head", "accuracy %", "calibration error before", "after"], heads)
        + _scores(record)
    )


def _scores(record: Record) -> str:
    """How well other scores than familiarity would tell strangers, averaged over benchmarks."""
    cells = record.get("scores", {})
    shots = list(dict.fromkeys(cell.split()[-1] for cell in cells))
    lines = []
    for name in next(iter(cells.values()), ()):
        line = [name]
        for shot in shots:
            own = [found[name] for cell, found in cells.items() if cell.endswith(shot)]
            auroc, rejected = (
                sum(each[key] for each in own) / len(own) for key in ("auroc", "strangers rejected")
            )
            line.append(f"{auroc:.3f}, {rejected:.0f} %")
        lines.append(line)
    if not lines:
        return ""
    return (
        "\nOther scores, on the same tasks: AUROC, and strangers rejected where just "
        f"{record['accepted']:.0%} of known queries are accepted, mean over benchmarks. The first "
        "is the library's.\n\n" + table(["score", *shots], lines)
    )


def accuracies(record: Record) -> list[str]:
    """A table per number of shots: rows are methods, columns are benchmarks."""
    rows, reference = record["rows"], record["reference"]
    cells = list(rows[reference]["cells"])
    lines = []
    for shot in dict.fromkeys(cell.split()[-1] for cell in cells):
        chosen = [cell for cell in cells if cell.endswith(shot)]
        lines += [
            table(
                [shot, *(cell.split()[0] for cell in chosen)],
                [[name, *(number(row["cells"][cell]) for cell in chosen)]
                 for name, row in rows.items()],
            )
        ]  # fmt: skip
    return lines


def sinusoids(record: Record) -> str:
    rows, reference = record["rows"], record["reference"]
    shown = [cell for cell in rows[reference]["cells"] if cell.split()[1] in ("1", "2", "5", "10")]
    chosen = [cell for cell in shown if cell.startswith(("K=5 ", "K=20"))]
    heads = [(name, "ensemble", row) for name, row in rows.items()]
    heads[1:1] = [
        (f"{reference}, {flow}-flow alone", flow, rows[reference])
        for flow in ("pre", "joint", "meta")
    ]
    lines = [
        f"**{record['title']}** (`{record['command']}`; mean squared error on {record['tasks']} "
        f"unseen waves, mean of {record['seeds']} seeds).\n",
        "![error by gradient steps](figure5.png)\n",
        table(
            ["", *(cell.replace(" steps", "") for cell in chosen)],
            [[name, *(number(row["cells"][cell], head) for cell in chosen)]
             for name, head, row in heads],
        ),
        "Columns: support points K and gradient steps.\n",
        verdicts(record, "error"),
        "![waves recovered from five points](figure6.png)\n",
    ]  # fmt: skip
    return "\n".join(lines)


PUBLISHED = {
    "navigation-distance": [-40.41, -11.68, -3.33, -3.23],
    "cheetah-direction": [-50.69, 293.2, 313.5, 315.7],
}
"""Returns of MAML after 0 to 3 gradient steps that its authors print [22], on their simulator."""


def policies(record: Record, picture: str) -> str:
    """Returns by gradient steps, one table per environment; the reference also flow by flow."""
    rows, reference = record["rows"], record["reference"]
    seeds = f"{record['seeds']} seed" + "s" * (record["seeds"] > 1)
    lines = [
        f"**{record['title']}** (`{record['command']}`; return per trajectory, mean over "
        f"{record['tasks']} unseen tasks, {seeds}, 95 % interval {over(record)}).\n",
        f"![return by gradient steps]({picture})\n" if picture else "",
    ]
    worlds = dict.fromkeys(c.split()[0] for row in rows.values() for c in row["cells"])
    for world in worlds:
        lines_of = []
        for name, row in rows.items():
            cells = [cell for cell in row["cells"] if cell.split()[0] == world]
            heads = ["ensemble", "pre", "joint", "meta"] if name == reference else ["ensemble"]
            for head in heads if cells else []:
                title = name if head == "ensemble" else f"{name}, {head}-flow alone"
                lines_of.append([title, *(number(row["cells"][c], head, small=2) for c in cells)])
        steps = len(lines_of[0]) - 1
        if world in PUBLISHED:
            printed = [f"{value:.1f}" for value in PUBLISHED[world]]
            lines_of.append(["MAML, published", *printed, *[""] * (steps - len(printed))])
        lines.append(table([world, *(f"{k} steps" for k in range(steps))], lines_of))
    return "\n".join([*lines, verdicts(record, "return")])


def speed(rows: list[Record]) -> str:
    lines = [[r["what"], r["case"], f"{r['ratio']:.3g}", r["goal"]] for r in rows]
    return "**Speed** (`make bench`; ratios measured side by side).\n\n" + table(
        ["what", "case", "ratio", "goal"], lines
    )


def _better_and_worse(gaps: list[Record], sign: int) -> tuple[int, int]:
    """Differences for and against the reference whose intervals exclude zero."""
    better = sum(sign * gap["mean"] > gap["interval"] for gap in gaps)
    worse = sum(-sign * gap["mean"] > gap["interval"] for gap in gaps)
    return better, worse


def verdicts(record: Record, what: str) -> str:
    """In how many cells the reference is better, worse, or not told apart, per rival."""
    sign = 1 if record["higher_is_better"] else -1
    lines = []
    for name, row in record["rows"].items():
        if name == record["reference"]:
            continue
        cells = row["cells"].values()
        gaps = [c["reference_minus_this"] for c in cells if "reference_minus_this" in c]
        if not gaps:  # it was measured elsewhere than the reference
            continue
        better, worse = _better_and_worse(gaps, sign)
        smallest = min(gaps, key=lambda gap: sign * gap["mean"])
        lines.append(
            [name, f"{better} of {len(gaps)}", str(worse), str(len(gaps) - better - worse),
             f"{smallest['mean']:+.3g} ± {smallest['interval']:.2g}"]
        )  # fmt: skip
    return (
        f"Paired over tasks, {record['reference']} has the better {what}, with a 95 % interval "
        "that excludes zero, in:\n\n"
        + table(["against", "better", "worse", "undecided", "least favorable difference"], lines)
    )


def number(cell: Record, head: str = "ensemble", small: int = 3) -> str:
    """Mean and interval, with so many digits after the point where the mean is below 10."""
    value = cell["heads"][head]
    digits = 1 if abs(value["mean"]) >= 10 else small
    return f"{value['mean']:.{digits}f} ± {value['interval']:.{digits}f}"


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def front(near: Record, far: Record) -> str:
    """Unseen classes of the training domain, and the mean over other domains, with what it cost.

    Args:
        near: record with one benchmark, that of the training domain.
        far: record of the same runs with the benchmarks of other domains.
    """
    name = next(iter(near["rows"][near["reference"]]["cells"])).split()[0]
    others = list(dict.fromkeys(c.split()[0] for c in far["rows"][far["reference"]]["cells"]))
    lines = []
    for row, results in near["rows"].items():
        cells = list(results["cells"].values())
        means = [cell["heads"]["ensemble"]["mean"] for cell in far["rows"][row]["cells"].values()]
        spread = [sum(means[i::2]) / len(others) for i in range(2)]  # one shot and five, by turns
        (facts,) = results.get("settings", {"": results}).values()
        cost = training_cost(facts)
        spent = f"{cost / 1e12:.1f}" if cost else ""
        shown = [number(cells[0]), number(cells[1]), *(f"{mean:.1f}" for mean in spread)]
        lines.append([row, *shown, str(facts["steps"][0]), spent])
    header = ["", f"{name} 1-shot", "5-shot", f"{len(others)} other domains 1-shot", "5-shot"]
    return "\n".join(
        [
            f"**Trained on {name}, tested on its unseen classes and on {', '.join(others)}** "
            f"(`{near['command']}`; Conv4 of 64 channels, 42 px, 5-way accuracy in %, "
            f"{near['tasks']} episodes, {seeds(near)}, 95 % intervals {over(near)}; other domains: "
            "mean).\n",
            table([*header, "steps", "10^12 multiply-adds"], lines),
            _against(near, far),
        ]
    )


def _against(near: Record, far: Record) -> str:
    """In how many cells the reference is better and worse than each row of equal compute."""
    words = []
    for row in near["rows"]:
        ratio = compute_ratio(near["rows"][near["reference"]], near["rows"][row])
        if row == near["reference"] or ratio is None or not 1 / EQUAL <= ratio <= EQUAL:
            continue
        gaps = [
            cell["reference_minus_this"]
            for record in (near, far)
            for cell in record["rows"][row]["cells"].values()
            if "reference_minus_this" in cell
        ]
        better, worse = _better_and_worse(gaps, 1)
        words.append(f"{row} {better} / {worse}")
    cells = sum(len(r["rows"][r["reference"]]["cells"]) for r in (near, far))
    return (
        f"At equal compute {near['reference']} is better / worse, paired over episodes with an "
        f"interval that excludes zero, in so many of {cells} cells: {'; '.join(words)}.\n"
    )

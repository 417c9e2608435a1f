"""Results as tables: for the terminal (rich) and in Markdown."""

import sys
from collections.abc import Iterable, Mapping, Sequence

from rich.table import Table
from rich.text import Text

from omnitraining.errors import InputError
from omnitraining.evaluation import (
    ENSEMBLE,
    CellKey,
    Difference,
    Evaluation,
    paired_difference,
)
from omnitraining.experiments.claims import better_and_worse, shortfall
from omnitraining.experiments.record import Mean, Number, Record, Row
from omnitraining.io.terminal import can_show

MISSING = "–"
BEST = "\0"
"""Before the best mean of a column on its way to a terminal, where no text has it."""


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown.

    Example:
        >>> print(markdown(["", "accuracy"], [["protonet", "61.2"]]), end="")
        |  | accuracy |
        | --- | --- |
        | protonet | 61.2 |
    """
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


# --- one model, or a few ---


def evaluation_table(title: str, evaluation: Evaluation) -> Table:
    """Cells as rows, heads as columns, each mean with its 95 % interval."""
    heads = list(dict.fromkeys(h for cell in evaluation.cells.values() for h in cell.scores))
    table = Table(title=f"{title}: {evaluation.unit}, mean and 95 % interval over tasks")
    table.add_column("benchmark")
    for head in heads:
        table.add_column(head, justify="right")
    for key, cell in evaluation.cells.items():
        texts = (_with_interval(cell.mean(head), cell.interval(head)) for head in heads)
        table.add_row(str(key), *texts)
    return table


def comparison_table(evaluations: Mapping[str, Evaluation], head: str = ENSEMBLE) -> Table:
    """Runs as columns; below each mean the paired difference of the reference from it.

    Args:
        evaluations: by run name; the first is the reference.
        head: the head to compare; runs that have one head only are compared by their ensemble.

    Raises:
        InputError: the runs were evaluated on different tasks, or share none.
    """
    (reference, first), *others = evaluations.items()
    table = Table(
        title=f"{first.unit}; below it: {reference} minus that run, paired, 95 % interval"
    )
    table.add_column("benchmark")
    for name in evaluations:
        table.add_column(name, justify="right")
    shared = [key for key in first.cells if all(key in other.cells for _, other in others)]
    if not shared:
        listed = "; ".join(
            f"{name} has {', '.join(map(str, e.cells))}" for name, e in evaluations.items()
        )
        raise InputError(f"these runs share no benchmark: {listed}")
    for key in shared:
        mine = first.cells[key]
        if head not in mine.scores:
            raise InputError(f"{reference} has no head {head!r}, only {', '.join(mine.scores)}")
        row = [_with_interval(mine.mean(head), mine.interval(head))]
        for other, evaluation in others:
            cell = evaluation.cells[key]
            counts = len(cell.scores[ENSEMBLE]), len(mine.scores[head])
            if cell.tasks_hash != mine.tasks_hash or counts[0] != counts[1]:
                raise InputError(
                    f"{reference} and {other} were evaluated on different tasks of '{key}': "
                    "run 'omni evaluate' on both"
                )
            theirs = head if head in cell.scores else ENSEMBLE
            gap = paired_difference(mine.scores[head], cell.scores[theirs])
            mark = "" if gap.is_significant else " n.s."
            row.append(
                f"{_with_interval(cell.mean(theirs), cell.interval(theirs))}\n"
                f"{gap.mean:+.3g} ± {gap.interval:.2g}{mark}"
            )
        table.add_row(str(key), *row)
    return table


def _with_interval(mean: float, interval: float) -> str:
    return f"{mean:.2f} ± {interval:.2f}" if abs(mean) >= 10 else f"{mean:.4f} ± {interval:.4f}"


# --- records ---


def record_table(record: Record) -> Table:
    """Methods and cells of a record; below each mean the published one.

    The best of our means in each cell is bold; a cell without a run shows a dash. Methods are rows;
    they are columns where there are more cells than fit beside each other.
    """
    title = f"{record.command}: {caption(record)}"
    cells, texts = columns(record), _texts(record, BEST, "")
    if len(cells) > 8:
        grid = Table("", *texts, title=title)
        for index, key in enumerate(cells):
            lines = (Text("\n").join(map(_styled, row[index])) for row in texts.values())
            grid.add_row(str(key), *lines)
        return grid
    grid = Table(title=title)
    grid.add_column("")
    for key in cells:
        grid.add_column(str(key).replace(" ", "\n", 1), justify="right")
    for row, own in texts.items():
        grid.add_row(row, *(Text("\n").join(map(_styled, lines)) for lines in own))
    return grid


def _styled(line: str) -> Text:
    """A line of a cell as rich shows it."""
    shown = line if can_show("±", sys.stdout) else line.replace("±", "+/-")
    return Text(shown.removeprefix(BEST), "bold" if line.startswith(BEST) else "")


def record_markdown(record: Record) -> str:
    """The same table in Markdown, with the cost of training, below a line with its facts."""
    title = f"**{record.title}** (`{record.command}`; {caption(record)})."
    spent = costs(record)
    header = ["", *map(str, columns(record)), *(["training, by setting"] if spent else [])]
    lines = []
    for row, cells in _texts(record, "**", "**").items():
        beside = ["<br>".join(spent[row])] if spent else []
        lines.append([row, *("<br>".join(texts) for texts in cells), *beside])
    return f"{title}\n\n{markdown(header, lines)}"


def columns(record: Record) -> list[CellKey]:
    """The measured and the published cells, without ways, grouped by benchmark."""
    met = [key for row in record.rows.values() for key in (*row.paper, *means(row))]
    benchmarks = list(dict.fromkeys(key.benchmark for key in met))
    return sorted(dict.fromkeys(met), key=lambda key: benchmarks.index(key.benchmark))


def means(row: Row) -> dict[CellKey, Mean]:
    """Results of the ensemble by cell, without ways, as papers have them."""
    return {key.without_ways: column.ensemble for key, column in row.cells.items()}


def _texts(record: Record, begin: str, end: str) -> dict[str, list[list[str]]]:
    """Lines of text of every cell by row; the best of our means stands between two marks."""
    cells = columns(record)
    ours = {name: means(row) for name, row in record.rows.items()}
    choose = max if record.higher_is_better else min
    best = {
        key: choose((own[key].mean for own in ours.values() if key in own), default=None)
        for key in cells
    }
    texts: dict[str, list[list[str]]] = {}
    for name, row in record.rows.items():
        texts[name] = []
        for key in cells:
            mean, published = ours[name].get(key), row.paper.get(key)
            text = MISSING if mean is None else number_text((mean.mean, mean.interval))
            if mean is not None and mean.mean == best[key]:
                text = f"{begin}{text}{end}"
            beside = [f"paper {number_text(published)}"] if published else []
            if published and mean and record.yardstick:
                beside.append(reached((mean.mean, mean.interval), published))
            texts[name].append([text, *beside])
    return texts


def number_text(number: Number) -> str:
    """A mean with its interval, if there is one."""
    mean, half = number
    return f"{mean:.2f}" if half is None else f"{mean:.2f} ± {half:.2f}"


def reached(ours: tuple[float, float], published: Number) -> str:
    """Whether a published number is reached, in words."""
    short = shortfall(ours, published)
    return f"{short:.1f} short" if short else "reached"


def short_number(mean: Mean, small: int = 3) -> str:
    """Mean and interval, with ``small`` digits after the point where the mean is below 10."""
    digits = 1 if abs(mean.mean) >= 10 else small
    return f"{mean.mean:.{digits}f} ± {mean.interval:.{digits}f}"


def seeds(record: Record) -> str:
    """The number of seeds, in words, and the rows that have another number."""
    others: dict[int, list[str]] = {}
    for name, count in _seeds_by_row(record).items():
        if count != record.seeds:
            others.setdefault(count, []).append(name)
    exceptions = "; ".join(f"{n} of {' / '.join(names)}" for n, names in others.items())
    return f"{number_of_seeds(record.seeds)}{f' ({exceptions})' if exceptions else ''}"


def seeds_in_short(record: Record) -> str:
    """The number of seeds, or the least and the largest of all rows, as the title of a picture."""
    counts = [record.seeds, *_seeds_by_row(record).values()]
    least = f"{min(counts)} to " if min(counts) < max(counts) else ""
    return least + number_of_seeds(max(counts))


def _seeds_by_row(record: Record) -> dict[str, int]:
    return {
        name: max((len(facts.seconds) for facts in row.trainings.values()), default=0)
        or record.seeds
        for name, row in record.rows.items()
    }


def number_of_seeds(count: int) -> str:
    """A number of seeds, in words."""
    return "1 seed" if count == 1 else f"{count} seeds"


def caption(record: Record) -> str:
    """Unit, tasks, seeds and intervals, in words."""
    return (
        f"{record.unit}, {record.tasks} tasks, {seeds(record)}, 95 % intervals {record.intervals}"
    )


def costs(record: Record) -> dict[str, list[str]]:
    """Multiply-adds and seconds of the trainings of every row, in each of its settings.

    Milliseconds of a step are added where ``omni reproduce --cost`` has timed all rows in turn:
    seconds of a whole training depend on other load on the machine.

    Returns:
        Texts by row; none where nothing was counted, as in records of early versions.
    """
    texts: dict[str, list[str]] = {}
    is_counted = False
    for name, row in record.rows.items():
        texts[name] = []
        for setting, facts in row.trainings.items():
            cost = facts.multiply_adds
            count = "no count" if cost is None else f"{cost / 1e12:.3g}e12 multiply-adds"
            text = f"{count}, {sum(facts.seconds) / max(1, len(facts.seconds)):.0f} s"
            step = row.seconds_per_step.get(setting)
            texts[name].append(text + (f" ({1000 * step:.3g} ms a step)" if step else ""))
            is_counted |= cost is not None
    return texts if is_counted else {}


def by_shots(record: Record) -> str:
    """A table per number of shots: rows are methods, columns are benchmarks."""
    cells = list(record.rows[record.reference].cells)
    parts = []
    for shots in dict.fromkeys(key.shots for key in cells):
        chosen = [key for key in cells if key.shots == shots]
        header = ["" if shots is None else f"{shots}-shot", *(key.benchmark for key in chosen)]
        lines = [
            [name, *(short_number(row.cells[key].ensemble) for key in chosen)]
            for name, row in record.rows.items()
        ]
        parts.append(markdown(header, lines))
    return "\n".join(parts)


def against_each_row(record: Record, what: str) -> str:
    """In how many cells the reference is better, worse, or undecided, per other row.

    Args:
        record: with the reference.
        what: is better, as "accuracy".
    """
    lines = []
    for name, row in record.rows.items():
        gaps = [
            Difference(record.sign * gap.mean, gap.interval)
            for column in row.cells.values()
            if (gap := column.reference_minus_this)
        ]
        if name == record.reference or not gaps:  # or measured elsewhere than the reference
            continue
        better, worse = better_and_worse(gaps)
        least = min(gaps, key=lambda gap: gap.mean)
        lines.append(
            [name, f"{better} of {len(gaps)}", str(worse), str(len(gaps) - better - worse),
             f"{record.sign * least.mean:+.3g} ± {least.interval:.2g}"]
        )  # fmt: skip
    return (
        f"Paired over tasks, {record.reference} has the better {what}, with a 95 % interval that "
        "excludes zero, in:\n\n"
        + markdown(["against", "better", "worse", "undecided", "least favorable difference"], lines)
    )


def search_lines(record: Record) -> tuple[list[str], list[list[str]]]:
    """Rows of a search, best first: validation scores by seed, and the means of its other cells.

    Returns:
        The header and the lines. Cells are averaged over benchmarks, for each number of shots; the
        validation classes, if they are a benchmark too, stand apart. Validation tasks have the
        ways of training: rows that have others than most are at the end, with their number.
    """
    keys = [key for row in record.rows.values() for key in row.cells if key.shots]
    own = {key.benchmark for key in keys if key.benchmark == _validation(record)}
    columns = {
        f"{where}, {shots}-shot": (shots, is_own)
        for where, is_own in (("validation classes", True), ("other domains", False))
        for shots in sorted({key.shots or 0 for key in keys if (key.benchmark in own) == is_own})
    }
    header = ["row", "validation", *columns, "seconds"]
    ways = {name: _training_ways(row) for name, row in record.rows.items()}
    usual = max(ways.values(), key=[*ways.values()].count, default=None)
    lines = []
    for name, row in sorted(
        record.rows.items(),
        key=lambda item: (ways[item[0]] != usual, -sum(item[1].training.validation)),
    ):
        means = [
            [
                column.ensemble.mean
                for key, column in row.cells.items()
                if key.shots == shots and (key.benchmark in own) == is_own
            ]
            for shots, is_own in columns.values()
        ]
        lines.append(
            [
                name,
                "  ".join(f"{score:.2f}" for score in row.training.validation)
                + (f" ({ways[name]}-way)" if ways[name] != usual else ""),
                *(f"{sum(values) / len(values):.2f}" if values else "" for values in means),
                f"{sum(row.training.seconds):.0f}",
            ]
        )
    return header, lines


def _training_ways(row: Row) -> int | None:
    """Classes of a training episode, or None where there are none, as in regression."""
    options = row.training.config.get("problem", {}).get("init_args", {})
    ways: int | None = options.get("protocol", {}).get("ways")
    return ways


def _validation(record: Record) -> str:
    """The part of the data that the rows of a search are validated on; "" if none is named."""
    for row in record.rows.values():
        for facts in row.trainings.values():
            name = facts.config.get("problem", {}).get("init_args", {}).get("validation", "")
            return name if ":" in name else f"{name}:validation"
    return ""


def search_table(title: str, record: Record) -> Table:
    """`search_lines` for the terminal."""
    header, lines = search_lines(record)
    table = Table(*header, title=title)
    for line in lines:
        table.add_row(*line)
    return table


def sweep_table(record: Record) -> Table:
    """Combinations of a sweep with the best validation score and the results on every benchmark.

    Args:
        record: as `sweeping` writes it.
    """
    lines: dict[str, list[str]] = {"seeds": [], "best validation score": []}
    for row in record.rows.values():
        scores = row.training.validation
        lines["seeds"].append(", ".join(map(str, row.of_seeds)))
        lines["best validation score"].append(f"{sum(scores) / len(scores):.4g}")
        for key, column in row.cells.items():
            text = _with_interval(column.ensemble.mean, column.ensemble.interval)
            lines.setdefault(str(key), []).append(text)
    title = f"{record.title}: {record.unit}, mean over seeds, 95 % interval over tasks"
    if len(lines) <= 8:
        table = Table("", *(name.replace(" ", "\n") for name in lines), title=title)
        for label, texts in zip(record.rows, zip(*lines.values(), strict=True), strict=True):
            table.add_row(label, *texts)
    else:
        table = Table("", *(label.replace(", ", "\n") for label in record.rows), title=title)
        for name, line in lines.items():
            table.add_row(name, *line)
    return table

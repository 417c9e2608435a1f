"""The book: a chapter per experiment with the paper's numbers, ours, and a verdict per claim."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnitraining.errors import InputError
from omnitraining.experiments.claims import Claim, Verdict, judge
from omnitraining.experiments.experiment import Experiment, experiments
from omnitraining.experiments.report import markers, origin, sections

Record = dict[str, Any]

OF_THE_PAPER = [*(f"Table {i}" for i in range(2, 8)),
                *(f"Figure {i}" for i in (3, 5, 6, 8, 9, 10, 11, 12))]  # fmt: skip
"""Tables and figures of the paper that show results."""

INTRODUCTION = """\
Every number here is drawn from records that `omni reproduce` and `omni sweep` wrote; none was
typed. A claim **holds** if the 95 % interval of the difference excludes zero in its favor in more
than half of the cells, and against it in none, **and both rows were trained for equally many
multiply-adds** (the column "compute" has the ratio, which may be 1.1). Where it would hold, but the
compute differs or was not counted, the verdict is "not at equal compute". Two rows are level if the
interval lies within the margin that the claim states, in more than half of the cells, and beyond it
in none; their columns "better" and "worse" count these. A cell is a column of a table: a benchmark
and a number of shots or steps. Intervals are over test tasks and, where the table says so, over
seeds. Differences are taken task by task, except where a star stands: there the two rows count as
independent.
"""


@dataclass(frozen=True)
class Chapter:
    """What the book says of one experiment.

    Attributes:
        name: of the experiment, or of the record if it is of none that is shipped.
        title: what it shows, in a line.
        claims: each with its verdict.
        text: Markdown without the heading; pictures are named as they lie beside the records.
        is_measured: whether there is a record.
    """

    name: str
    title: str
    claims: list[tuple[Claim, Verdict]]
    text: str
    is_measured: bool


def read_records(folder: Path) -> dict[str, Record]:
    """Records of experiments in a folder, by the names of their files.

    Raises:
        InputError: there is no such folder, no record in it, or one is damaged.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder of records at {folder}")
    found = {}
    for path in sorted(folder.glob("*.json")):
        record = _read(path)
        if isinstance(record, dict) and "experiment" in record and "rows" in record:
            found[as_text(path.stem)] = record
    if not found:
        raise InputError(
            f"there is no record in {folder}: 'omni reproduce' and 'omni sweep' write them"
        )
    return found


def _read(path: Path) -> Any:
    try:
        return as_text(json.loads(path.read_text("utf-8")))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged: {error}") from error


def as_text(value: Any) -> Any:
    """Values in which no text is HTML, nor more than one line: records may be a stranger's."""
    if isinstance(value, str):
        return " ".join(value.replace("<", "&lt;").split("\n"))
    if isinstance(value, list):
        return [as_text(part) for part in value]
    if isinstance(value, dict):
        return {as_text(name): as_text(part) for name, part in value.items()}
    return value


@contextmanager
def _whole(stem: str) -> Iterator[None]:
    """Says which record lacks what is needed, or has it in another form."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError, IndexError, StopIteration) as error:
        words = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{stem}.json is damaged or not a record: {words}") from error


def chapters(folder: Path) -> list[Chapter]:
    """All chapters, in the order of the paper, and what is not of the paper after that.

    What the README of the folder says beside tables is the last one.

    Args:
        folder: of records and of the pictures beside them.

    Raises:
        InputError: there are no records, or one is damaged.
    """
    records = read_records(folder)
    known = {experiment.name: experiment for experiment in experiments()}
    counted = folder / "full-size.json"
    whole = _read(counted) if counted.is_file() else {}
    found = []
    for experiment in known.values():
        with _whole(experiment.name):
            found.append(_chapter(experiment, records, folder, whole))
    for stem, record in records.items():
        with _whole(stem):
            if record["experiment"] not in known:
                found.append(_foreign(stem, record, folder))
    found.sort(key=lambda chapter: _place(chapter.name))
    readme = folder / "README.md"
    return [*found, *([_notes(readme)] if readme.is_file() else [])]


def claims_of(experiment: Experiment, records: dict[str, Record]) -> list[tuple[Claim, Verdict]]:
    """The claims of an experiment, each with its verdict by all records of it."""
    own = [record for record in records.values() if record["experiment"] == experiment.name]
    return [
        (claim, judge(claim, own)) for claim in (Claim(**fields) for fields in experiment.claims)
    ]


def _chapter(
    experiment: Experiment, records: dict[str, Record], folder: Path, whole: Record
) -> Chapter:
    own = {s: record for s, record in records.items() if record["experiment"] == experiment.name}
    judged = claims_of(experiment, records)
    parts = [f"In the paper: {experiment.paper}.\n"]
    if judged:
        parts += [sections.claims(judged)]
    if table := sections.printed(experiment.rows):
        parts += ["What the paper prints:\n", table]
    for stem, record in own.items():
        picture = f"{stem}.png" if (folder / f"{stem}.png").is_file() else ""
        parts += [sections.results(record, experiment.draw, picture), origin.origin(record)]
    picture = f"{experiment.name}.png"
    if not own and (folder / picture).is_file():
        parts += [f"![{experiment.title}]({picture})\n", _drawn_from(experiment, records)]
    elif not own:
        parts += [_missing(experiment)]
    if counted := origin.full_size(whole, experiment.name):
        parts += [counted]
    return Chapter(experiment.name, experiment.title, judged, "\n".join(parts), bool(own))


def _foreign(stem: str, record: Record, folder: Path) -> Chapter:
    """A record of no shipped experiment, as a sweep."""
    picture = f"{stem}.png" if (folder / f"{stem}.png").is_file() else ""
    text = sections.results(record, "tables", picture) + "\n" + origin.origin(record)
    return Chapter(stem, record["title"], [], text, True)


def _notes(readme: Path) -> Chapter:
    """What a person has written about the results."""
    title, _, text = markers.outside(readme.read_text("utf-8", "replace"), "").partition("\n")
    return Chapter("notes", title.removeprefix("# "), [], text.replace("\n## ", "\n### "), True)


def _drawn_from(experiment: Experiment, records: dict[str, Record]) -> str:
    siblings = {s.name for s in experiments() if s.folder and s.folder == experiment.folder} & {
        *records
    }
    return f"Drawn from the runs of {', '.join(sorted(siblings)) or 'other experiments'}.\n"


def _missing(experiment: Experiment) -> str:
    data = " --data DIR" if experiment.config["problem"]["class_path"] == "Photos" else ""
    return (
        f"Not measured here. The command is `omni reproduce {experiment.name}{data}`; time: "
        f"{' '.join(experiment.time.split())}.\n"
    )


def _place(name: str) -> tuple[int, int, str]:
    """Tables of the paper come first, then its figures, each with what stands for it here."""
    if found := re.match(r"(?:glyph-|photo-)?(table|figure)(\d+)", name):
        return ("table", "figure").index(found[1]), int(found[2]), name
    return 2, 0, name


def verdicts(found: list[Chapter], link: str = "#{}") -> str:
    """All claims of all chapters in one table, in how many they hold, and what is missing.

    Args:
        found: chapters.
        link: to a chapter, whose name stands for the braces.
    """
    lines = []
    for chapter in found:
        for claim, verdict in chapter.claims:
            counts = (
                f"{verdict.better} / {verdict.worse} / {verdict.cells}" if verdict.cells else ""
            )
            star = "" if verdict.is_paired or not verdict.cells else " *"
            name = f"[{chapter.name}]({link.format(chapter.name)})"
            word = sections.SIGNS[verdict.word] + star
            lines.append([claim.of, claim.text, word, counts, name])
    lines.sort(key=lambda line: _place(line[0].lower().replace(" ", "")))
    words: list[str] = [verdict.word for chapter in found for _, verdict in chapter.claims]
    counted = ", ".join(f"{word}: {words.count(word)}" for word in sections.SIGNS)
    header = ["said in", "claim", "verdict", "cells better / worse / all", "experiment"]
    return f"{len(words)} claims; {counted}.\n\n{sections.table(header, lines)}\n{_absent(found)}"


def _absent(found: list[Chapter]) -> str:
    """Tables and figures of the paper on which there is nothing."""
    there = " ".join([*(claim.of for chapter in found for claim, _ in chapter.claims),
                      *(re.sub(r"(glyph-|photo-)?(table|figure)", r"\2 ", chapter.name).capitalize()
                        for chapter in found)])  # fmt: skip
    absent = [item for item in OF_THE_PAPER if not re.search(rf"{item}(?!\d)", there)]
    return f"No experiment yet, and so not measured here: {', '.join(absent)}.\n" if absent else ""


def front(found: list[Chapter], link: str = "#{}") -> str:
    """What stands before the chapters: how to read them, and all verdicts."""
    return "\n".join(["# Results book\n", INTRODUCTION, "## Verdicts\n", verdicts(found, link)])


def pages(found: list[Chapter]) -> dict[str, str]:
    """The book as a page per chapter and a first one, by the names of their files."""
    first = front(found, "{}.md") + "\nAll chapters:\n\n"
    listed = "".join(
        f"- [{chapter.name}]({chapter.name}.md): {chapter.title}\n" for chapter in found
    )
    texts = {f"{c.name}.md": f"# {c.name}\n\n{c.title}.\n\n{c.text}" for c in found}
    return {"index.md": first + listed, **texts}


def pictures(found: list[Chapter], folder: Path) -> list[str]:
    """Names of the pictures that are shown and lie in the folder of the records."""
    named = re.findall(r"!\[[^]]*\]\(([^)]+)\)", "".join(chapter.text for chapter in found))
    return [name for name in dict.fromkeys(named) if is_picture(folder, name)]


def is_picture(folder: Path, name: str) -> bool:
    """Whether a name is that of a picture in a folder, and not of a file elsewhere."""
    path = folder / name
    is_inside = path.resolve().parent == folder.resolve()
    return is_inside and path.suffix.lower() == ".png" and path.is_file()


def markdown(found: list[Chapter]) -> str:
    """The whole book as one page; pictures are named as they lie beside the records."""
    parts = [front(found)]
    for chapter in found:
        parts += [f"## {chapter.name}\n", f"{chapter.title}.\n", chapter.text]
    return "\n".join(parts)

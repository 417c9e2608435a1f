"""The report: a section per experiment with the paper's numbers, ours, and a verdict per claim."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnitraining.errors import InputError
from omnitraining.experiments.claims import Claim, Verdict, verdict
from omnitraining.experiments.experiment import Experiment, experiments
from omnitraining.experiments.record import Record, from_json
from omnitraining.experiments.report import markers, sections
from omnitraining.experiments.report.provenance import full_size, provenance
from omnitraining.experiments.tables import markdown as table

OF_THE_PAPER = [*(f"Table {i}" for i in range(2, 8)),
                *(f"Figure {i}" for i in (3, 5, 6, 8, 9, 10, 11, 12))]  # fmt: skip
"""Tables and figures of the paper that show results."""

INTRODUCTION = """\
Every number here comes from records that `omni reproduce` and `omni sweep` wrote; none was typed. A
claim **holds** if the 95 % interval of the difference excludes zero in its favor in more than half
of the cells, and against it in none, **and both rows were trained for equally many multiply-adds**
(the column "compute" has the ratio, which may be 1.1). Where it would hold, but the compute differs
or was not counted, the verdict is "not at equal compute". Two rows are equivalent if the interval
lies within the margin that the claim states in more than half of the cells, and beyond it in none;
their columns "better" and "worse" count these. A cell is a column of a table: a benchmark and a
number of shots or steps. Intervals are over test tasks and, where the table states so, over seeds.
Differences are paired task by task, except where a star stands: there the two rows count as
independent.
"""


@dataclass(frozen=True)
class Section:
    """The report on one experiment.

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
    records = {}
    for path in sorted(folder.glob("*.json")):
        values = _read(path)
        if isinstance(values, dict) and "experiment" in values and "rows" in values:
            try:
                records[as_text(path.stem)] = from_json(values)
            except ValueError as error:
                raise InputError(f"{path} is damaged or not a record: {error}") from error
    if not records:
        raise InputError(
            f"there is no record in {folder}: 'omni reproduce' and 'omni sweep' write them"
        )
    return records


def _read(path: Path) -> Any:
    try:
        return as_text(json.loads(path.read_text("utf-8")))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged: {error}") from error


def as_text(value: Any) -> Any:
    """Values in which no text is HTML, nor more than one line: records may be untrusted."""
    if isinstance(value, str):
        return " ".join(value.replace("<", "&lt;").split("\n"))
    if isinstance(value, list):
        return [as_text(part) for part in value]
    if isinstance(value, dict):
        return {as_text(name): as_text(part) for name, part in value.items()}
    return value


def report(folder: Path) -> list[Section]:
    """All sections, in the order of the paper, and what is not of the paper after that.

    The README of the folder is the last one.

    Args:
        folder: of records and of the pictures beside them.

    Raises:
        InputError: there are no records, or one is damaged.
    """
    records = read_records(folder)
    known = {experiment.name: experiment for experiment in experiments()}
    counted = folder / "full-size.json"
    counts = _read(counted) if counted.is_file() else {}
    found = [_section(experiment, records, folder, counts) for experiment in known.values()]
    for stem, record in records.items():
        if record.experiment not in known:
            picture = _picture(folder, stem)
            text = _results(stem, record, "tables", picture) + "\n" + provenance(record)
            found.append(Section(stem, record.title, [], text, True))
    found.sort(key=lambda section: _place(section.name))
    readme = folder / "README.md"
    return [*found, *([_notes(readme)] if readme.is_file() else [])]


def verdicts_of(
    experiment: Experiment, records: Mapping[str, Record]
) -> list[tuple[Claim, Verdict]]:
    """The claims of an experiment, each with its verdict by all records of it."""
    own = [record for record in records.values() if record.experiment == experiment.name]
    return [(claim, verdict(claim, own)) for claim in experiment.claims]


def _section(
    experiment: Experiment, records: Mapping[str, Record], folder: Path, counts: Any
) -> Section:
    own = {s: record for s, record in records.items() if record.experiment == experiment.name}
    verdicts = verdicts_of(experiment, records)
    parts = [f"In the paper: {experiment.paper}.\n"]
    if verdicts:
        parts += [sections.claims(verdicts)]
    if numbers := sections.published(experiment.rows):
        parts += ["What the paper prints:\n", numbers]
    for stem, record in own.items():
        text = _results(stem, record, experiment.draw, _picture(folder, stem))
        parts += [text, provenance(record)]
    picture = _picture(folder, experiment.name)
    if not own and picture:
        parts += [f"![{experiment.title}]({picture})\n", _drawn_from(experiment, records)]
    elif not own:
        parts += [_missing(experiment)]
    if counted := full_size(counts, experiment.name):
        parts += [counted]
    return Section(experiment.name, experiment.title, verdicts, "\n".join(parts), bool(own))


def _results(stem: str, record: Record, draw: str, picture: str) -> str:
    """Tables and picture of a record, whose rows may lack what its experiment needs.

    Raises:
        InputError: they do.
    """
    try:
        return sections.results(record, draw, picture)
    except (KeyError, IndexError, StopIteration, TypeError, ValueError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{stem}.json is damaged or not a record: {reason}") from error


def _picture(folder: Path, stem: str) -> str:
    return f"{stem}.png" if (folder / f"{stem}.png").is_file() else ""


def _notes(readme: Path) -> Section:
    """The hand-written part of the README beside the records."""
    title, _, text = markers.outside(readme.read_text("utf-8", "replace"), "").partition("\n")
    return Section("notes", title.removeprefix("# "), [], text.replace("\n## ", "\n### "), True)


def _drawn_from(experiment: Experiment, records: Mapping[str, Record]) -> str:
    siblings = {e.name for e in experiments() if e.folder and e.folder == experiment.folder}
    names = sorted(siblings & {*records})
    return f"Drawn from the runs of {', '.join(names) or 'other experiments'}.\n"


def _missing(experiment: Experiment) -> str:
    data = " --data DIR" if experiment.config["problem"]["class_path"] == "Photos" else ""
    return (
        f"Not measured here. The command is `omni reproduce {experiment.name}{data}`; time: "
        f"{' '.join(experiment.time.split())}.\n"
    )


def _place(name: str) -> tuple[int, int, str]:
    """Tables of the paper come first, then its figures, each with its counterparts here."""
    if match := re.match(r"(?:glyph-|photo-)?(table|figure)(\d+)", name):
        return ("table", "figure").index(match[1]), int(match[2]), name
    return 2, 0, name


def verdicts(report: Sequence[Section], link: str = "#{}") -> str:
    """All claims of all sections in one table, in how many they hold, and what is missing.

    Args:
        report: its sections.
        link: to a section, whose name replaces the braces.
    """
    lines = []
    for section in report:
        for claim, found in section.claims:
            counts = f"{found.better} / {found.worse} / {found.cells}" if found.cells else ""
            name = f"[{section.name}]({link.format(section.name)})"
            lines.append([claim.source, claim.text, sections.sign(found), counts, name])
    lines.sort(key=lambda line: _place(line[0].lower().replace(" ", "")))
    words: list[str] = [found.word for section in report for _, found in section.claims]
    counted = ", ".join(f"{word}: {words.count(word)}" for word in sections.SIGNS)
    header = ["source", "claim", "verdict", "cells better / worse / all", "experiment"]
    return f"{len(words)} claims; {counted}.\n\n{table(header, lines)}\n{_absent(report)}"


def _absent(report: Sequence[Section]) -> str:
    """Tables and figures of the paper that no experiment is about."""
    there = " ".join([*(claim.source for section in report for claim, _ in section.claims),
                      *(re.sub(r"(glyph-|photo-)?(table|figure)", r"\2 ", section.name).capitalize()
                        for section in report)])  # fmt: skip
    absent = [item for item in OF_THE_PAPER if not re.search(rf"{item}(?!\d)", there)]
    return f"No experiment yet, and so not measured here: {', '.join(absent)}.\n" if absent else ""


def front(report: Sequence[Section], link: str = "#{}") -> str:
    """The first page: how to read the report, and all verdicts."""
    return "\n".join(
        ["# Report of results\n", INTRODUCTION, "## Verdicts\n", verdicts(report, link)]
    )


def pages(report: Sequence[Section]) -> dict[str, str]:
    """The report as a page per section and a first one, by the names of their files."""
    first = front(report, "{}.md") + "\nAll sections:\n\n"
    listed = "".join(
        f"- [{section.name}]({section.name}.md): {section.title}\n" for section in report
    )
    texts = {f"{s.name}.md": f"# {s.name}\n\n{s.title}.\n\n{s.text}" for s in report}
    return {"index.md": first + listed, **texts}


def pictures(report: Sequence[Section], folder: Path) -> list[str]:
    """Names of the pictures that are shown and lie in the folder of the records."""
    named = re.findall(r"!\[[^]]*\]\(([^)]+)\)", "".join(section.text for section in report))
    return [name for name in dict.fromkeys(named) if is_picture(folder, name)]


def is_picture(folder: Path, name: str) -> bool:
    """Whether a name is of a picture in a folder, and not of a file elsewhere."""
    path = folder / name
    is_inside = path.resolve().parent == folder.resolve()
    return is_inside and path.suffix.lower() == ".png" and path.is_file()


def markdown(report: Sequence[Section]) -> str:
    """The whole report as one page; pictures are named as they lie beside the records."""
    parts = [front(report)]
    for section in report:
        parts += [f"## {section.name}\n", f"{section.title}.\n", section.text]
    return "\n".join(parts)

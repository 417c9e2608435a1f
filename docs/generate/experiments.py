"""A page per experiment, from its file and its record. Nothing is typed by hand."""

import json
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml

from docs.generate.places import PACKAGE, ROOT, relative, with_links
from omnitraining.experiments.experiment import completed
from omnitraining.experiments.experiment import experiments as shipped
from omnitraining.experiments.record import Record, read_record
from omnitraining.experiments.report import report, sections
from omnitraining.experiments.report.markers import outside
from omnitraining.experiments.report.provenance import full_size, provenance
from omnitraining.experiments.tables import markdown
from results import pages as measurements

WITHOUT_ALGORITHMS = ("", "accuracies", "flow_curves", "flow_attention")
"""What experiments draw that do not compare algorithms."""

SECTIONS = {
    "Tables and figures of the paper": r"(table|figure)\d",
    "Compact counterparts": r"photo-(table|figure)\d",
    "Yardsticks": r"yardstick-",
    "Searches of recipes": r".+-search",
    "Others": r"",
}
"""Parts of the menu, each with the beginning of the names of its experiments; the first fits."""


@dataclass(frozen=True)
class Experiment:
    """An experiment, from its file and, if it was run, its record.

    Attributes:
        name: of the file.
        comment: what stands at the top of the file.
        values: entries of the file over the entries of the file that it is ``like``.
        text: the file itself.
        record: of results; none if there is none yet.
    """

    name: str
    comment: str
    values: dict[str, Any]
    text: str
    record: Record | None

    @property
    def page(self) -> str:
        """Place on the site."""
        return f"experiments/{self.name}.md"

    @property
    def menu_title(self) -> str:
        """The title, shorter, with the number in the paper."""
        title = self.values["title"].removeprefix("Compact counterpart of ")
        title = title.partition(", at equal")[0]
        place = re.fullmatch(r"(table|figure)(\d+)", self.name)
        return f"{place[1].capitalize()} {place[2]}: {title}" if place else str(title)


def menu() -> list[dict[str, list[dict[str, str]]]]:
    """The sections of the menu, each with titles and pages in the order of their numbers."""
    sections: dict[str, list[dict[str, str]]] = {title: [] for title in SECTIONS}
    for experiment in sorted(experiments().values(), key=lambda e: _numbered(e.name)):
        fits = (title for title, begin in SECTIONS.items() if re.match(begin, experiment.name))
        sections[next(fits)].append({experiment.menu_title: experiment.page})
    return [{title: pages} for title, pages in sections.items()]


def _numbered(name: str) -> tuple[bool, list[str | int]]:
    """Tables before figures, and figure 3 before figure 10."""
    parts = re.split(r"(\d+)", name)
    return "figure" in name, [int(part) if part.isdigit() else part for part in parts]


@cache
def experiments() -> dict[str, Experiment]:
    """All shipped experiments by name."""
    folder = PACKAGE / "experiments"
    texts = {one.name: (folder / f"{one.name}.yaml").read_text() for one in shipped()}
    files = {name: yaml.safe_load(text) for name, text in texts.items()}
    return {
        name: Experiment(name, _comment(text), completed(name, files), text, _record(name))
        for name, text in texts.items()
    }


def _record(name: str) -> Record | None:
    path = ROOT / "results" / f"{name}.json"
    return read_record(path) if path.is_file() else None


def _benchmark(name: str) -> Any:
    """The values of a benchmark's file; none if it was not run."""
    path = ROOT / "results" / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else None


def pages() -> dict[str, str]:
    """Texts by place on the site: the list, a page per experiment, and other measurements."""
    found = {experiment.page: _page(experiment) for experiment in experiments().values()}
    found["experiments/index.md"] = _index()
    if speed := _benchmark("benchmarks"):
        found["experiments/speed.md"] = f"# Speed\n\n{measurements.speed(speed)}"
    if calibration := _benchmark("calibration"):
        text = f"# Calibration and unknown classes\n\n{measurements.calibration(calibration)}"
        found["experiments/calibration.md"] = text
    found["experiments/decisions.md"] = _decisions()
    found["experiments/verdicts.md"] = _verdicts()
    return found


@cache
def _records() -> dict[str, Record]:
    """All records of results by the names of their files."""
    return report.read_records(ROOT / "results")


@cache
def report_sections() -> list[report.Section]:
    """The sections of the report of results."""
    return report.report(ROOT / "results")


def _verdicts() -> str:
    """The front of the report, with links to the pages of the experiments."""
    return report.front(report_sections(), "{}.md")


def _comment(text: str) -> str:
    """The comment at the top of a file, as paragraphs and lists of Markdown."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        body = line.removeprefix("#").removeprefix(" ")
        if body.startswith("- ") and lines and not lines[-1].startswith(("- ", "  ")):
            lines.append("")
        lines.append(f"  {body}" if body.startswith("  ") else body)
    return "\n".join(lines)


def _page(experiment: Experiment) -> str:
    values = experiment.values
    needs_data = "Photos" in str(values["config"]["problem"])
    data = " --data DIR" if needs_data else ""
    lines = [
        f"# {values['title']}\n",
        "| | |\n| --- | --- |",
        f"| In the paper | {values['paper']} |",
        f"| Command | `omni reproduce {experiment.name}{data}` |",
        f"| A tiny variant | `omni reproduce {experiment.name} --smoke` |",
        f"| Time | {' '.join(values['time'].split())} |",
        f"| Rows | {', '.join(f'`{row}`' for row in values['rows'])} |",
        f"| Seeds | {', '.join(map(str, values['seeds']))} |\n",
        *_claims(experiment.name),
        "## Results\n",
        *(_results(experiment) or _missing(experiment)),
        full_size(_benchmark("full-size") or {}, experiment.name),
        "## The experiment\n",
        experiment.comment + "\n",
        f'??? note "{experiment.name}.yaml"\n',
        "    ```yaml",
        *(f"    {line}".rstrip() for line in experiment.text.splitlines()),
        "    ```",
    ]
    return "\n".join(lines) + "\n"


def _claims(name: str) -> list[str]:
    """What is claimed, and the verdicts."""
    verdicts = next(section.claims for section in report_sections() if section.name == name)
    return ["## Claims\n", sections.claims(verdicts)] if verdicts else []


def _results(experiment: Experiment) -> list[str]:
    """All records of it: also of other budgets, which have files of their own."""
    lines = []
    for stem, found in sorted(_records().items(), key=lambda item: item[0] != experiment.name):
        if found.experiment == experiment.name:
            shown = f"{stem}.png" if _is_drawn(f"{stem}.png") else ""
            text = sections.results(found, experiment.values["draw"], shown)
            lines += [with_links(text, "results/README.md", experiment.page), ""]
            lines += [provenance(found)]
    return lines


def _missing(experiment: Experiment) -> list[str]:
    """What there is to show without a record: shared runs, or the numbers of the paper."""
    values, picture = experiment.values, f"{experiment.name}.png"
    lines = []
    if _is_drawn(picture):
        place = relative(f"results/{picture}", experiment.page)
        lines = [f"![{values['title']}]({place})\n"]
        siblings = [
            f"[{e.name}]({e.name}.md)"
            for e in experiments().values()
            if e.record and e.values.get("folder") and e.values["folder"] == values.get("folder")
        ]
        if siblings:
            return [*lines, f"Drawn from the runs of {', '.join(siblings)}.\n"]
    lines.append("There is no record yet: this experiment has not been measured.\n")
    if table := sections.published(values["rows"]):
        lines += ["What the paper prints:\n", table]
    return lines


def _is_drawn(picture: str) -> bool:
    return (ROOT / "results" / picture).is_file()


def _index() -> str:
    body = [
        [f"[{e.name}]({e.name}.md)", e.values["title"], "yes" if e.record else
         "in part" if _is_drawn(f"{e.name}.png") else "no"]
        for e in experiments().values()
    ]  # fmt: skip
    return (
        "# Experiments\n\nAn experiment is one file: what of the paper it reproduces, a common "
        "configuration, and per row what differs. `omni reproduce NAME` trains and evaluates "
        "every row on fixed tasks, and draws a table and a figure; given again, it resumes. "
        "Numbers on these pages are drawn from the records of such runs when the site "
        "is built.\n\n"
        + markdown(["name", "what", "measured"], body)
        + "\n[How the recipes were chosen, and what the results do not show](decisions.md) is part "
        "of them. Beside experiments, [speed](speed.md) and [calibration](calibration.md) were "
        "measured.\n"
    )


def _decisions() -> str:
    """The README of the results without its tables, which have pages of their own."""
    text = (ROOT / "results" / "README.md").read_text()
    place = "experiments/decisions.md"
    whole = outside(text, "Every table has [a page](index.md).\n")
    return with_links(whole, "results/README.md", place).replace(
        relative("results/index.md", place), "index.md"
    )


def with_algorithm(name: str, kind: str) -> dict[str, tuple[Record, list[str]]]:
    """Records with rows of an algorithm, each with the names of these rows.

    Rows of Omni-Training count for their meta-training algorithm; a pre-training algorithm counts
    where it is alone.

    Args:
        name: class of the algorithm.
        kind: "pretraining" or "metatraining".
    """
    methods = ("pre-training",) if kind == "pretraining" else ("meta-training", "omni-training")
    found = {}
    for experiment in experiments().values():
        # Others compare methods, recipes and flows, not algorithms.
        if not experiment.record or experiment.values["draw"] in WITHOUT_ALGORITHMS:
            continue
        rows = [
            row
            for row, results in experiment.record.rows.items()
            if results.cells
            and results.training.config["method"] in methods
            and results.training.config[kind]["class_path"].rpartition(".")[2] == name
        ]
        if rows:
            found[experiment.name] = (experiment.record, rows)
    return found

"""A page per algorithm, from its file: name = file = page."""

import ast
from dataclasses import dataclass
from typing import Any

from docs.generate.experiments import with_algorithm
from docs.generate.places import PACKAGE
from omnitraining.evaluation import CellKey
from omnitraining.experiments.tables import markdown, seeds, short_number

KINDS = {"pretraining": "PreTraining", "metatraining": "MetaTraining"}
"""Folders of algorithms, with the end of the names of their base classes, which ``base`` holds."""

MOST_CELLS = 8


@dataclass(frozen=True)
class Algorithm:
    """Facts about an algorithm, from its file.

    Attributes:
        name: class.
        kind: "pretraining" or "metatraining".
        file: stem of its file.
        title: first line of the file.
        facts: constants of the class, as ``fixed_ways``.
    """

    name: str
    kind: str
    file: str
    title: str
    facts: dict[str, Any]

    @property
    def page(self) -> str:
        """Place on the site."""
        return f"algorithms/{self.file}.md"

    @property
    def module(self) -> str:
        """Its path for import."""
        return f"omnitraining.{self.kind}.{self.file}"


def algorithms() -> list[Algorithm]:
    """All algorithms, pre-training first, without importing any."""
    found = []
    for kind, base in KINDS.items():
        for path in sorted({*(PACKAGE / kind).glob("*.py")} - {PACKAGE / kind / "base.py"}):
            tree = ast.parse(path.read_text())
            title = (ast.get_docstring(tree) or "").partition("\n")[0]
            for node in tree.body:
                if isinstance(node, ast.ClassDef) and any(
                    ast.unparse(above).endswith(base) for above in node.bases
                ):
                    facts = {
                        ast.unparse(line.targets[0]): line.value.value
                        for line in node.body
                        if isinstance(line, ast.Assign) and isinstance(line.value, ast.Constant)
                    }
                    found.append(Algorithm(node.name, kind, path.stem, title, facts))
    return found


def pages() -> dict[str, str]:
    """Texts by place on the site."""
    return {algorithm.page: _page(algorithm) for algorithm in algorithms()}


def _page(algorithm: Algorithm) -> str:
    other = next(kind for kind in KINDS if kind != algorithm.kind)
    word = "Pre-training" if algorithm.kind == "pretraining" else "Meta-training"
    facts = [f"- {word} algorithm. [What each needs](../algorithms.md), side by side."]
    if not algorithm.facts.get("needs_only_features", True):
        facts.append("- At test it adapts the whole network, not only a head.")
    if algorithm.facts.get("fixed_ways"):
        facts.append("- Test tasks must have as many classes as training tasks.")
    lines = [
        f"# {algorithm.name}\n",
        algorithm.title + "\n",
        *facts,
        f"\nIn a configuration, alone (`method: {word.lower()}`) or in Omni-Training with any "
        f"{other.replace('training', '-training')} algorithm for the same kind of problem:\n",
        "```yaml",
        "method: omni-training",
        f"{algorithm.kind}: {{class_path: {algorithm.name}}}",
        "```\n",
        *_numbers(algorithm),
        "## Options and code\n",
        f"::: {algorithm.module}",
        "    options:",
        "      show_source: true\n",
    ]
    return "\n".join(lines) + "\n"


def _numbers(algorithm: Algorithm) -> list[str]:
    lines = []
    for name, (record, rows) in with_algorithm(algorithm.name, algorithm.kind).items():
        cells = list(dict.fromkeys(key for row in rows for key in record.rows[row].cells))
        shown = cells if len(cells) <= MOST_CELLS else _spread(cells)
        body = [
            [row, *(short_number(own[key].ensemble) if key in own else "" for key in shown)]
            for row in rows
            if (own := record.rows[row].cells)
        ]
        lines += [
            f"[{record.title}](../experiments/{name}.md), {record.unit}, "
            f"mean of {seeds(record)}, 95 % intervals {record.intervals}, {record.tasks} tasks:\n",
            markdown(["", *(str(key.without_ways) for key in shown)], body),
        ]
    return ["## Measured\n", *lines] if lines else []


def _spread(cells: list[CellKey]) -> list[CellKey]:
    """Some of many cells, from the first to the last."""
    last = len(cells) - 1
    return [cells[round(i * last / (MOST_CELLS - 1))] for i in range(MOST_CELLS)]

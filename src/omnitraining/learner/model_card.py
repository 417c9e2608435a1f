"""The card of a model on the hub: README.md with a head of metadata."""

import html
import json
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import yaml

from omnitraining.config.strict import MAX_JSON, read_bytes, read_json_strictly, read_yaml_strictly
from omnitraining.config.values import read_yaml
from omnitraining.errors import InputError
from omnitraining.evaluation import Evaluation
from omnitraining.learner.classifier import FewShotClassifier
from omnitraining.learner.regressor import FewShotRegressor
from omnitraining.learner.sources import find
from omnitraining.learner.trained import TrainedModel
from omnitraining.runs.run import Run

PROVENANCE = ("omnitraining", "commit", "torch", "python", "device", "step", "best_step", "seconds")
"""Facts of a training that the card has."""


def card(
    learner: FewShotClassifier | FewShotRegressor, run: Run | None, name: str, license: str
) -> str:
    """The card of a model: use, training data, results, provenance and configuration.

    Folders of this machine are left out, and no name in it becomes HTML or a link.

    Args:
        learner: of the model.
        run: of the model, if its folder is known: with data, results and provenance.
        name: of the model on the hub, or of its folder.
        license: of the weights.
    """
    trained = find(learner.model)
    parts = [
        f"---\n{yaml.safe_dump(_metadata(trained, license), sort_keys=False)}---\n\n"
        f"# {plain_text(trained.name)}",
        *_use(trained, name),
    ]
    if isinstance(learner, FewShotClassifier) and hasattr(learner, "classes_"):
        parts.append(f"It is fitted to the classes {', '.join(map(plain_text, learner.classes_))}.")
    no_run = "Its run is not known: there are no data, results and provenance."
    parts += _training(run) if run else [no_run]
    config = {key: value for key, value in trained.config.items() if key != "problem"}
    parts += ["## Configuration", fenced("yaml", yaml.safe_dump(config, sort_keys=False))]
    return "\n\n".join(parts) + "\n"


def _metadata(trained: TrainedModel, license: str) -> dict[str, Any]:
    """The metadata of the hub."""
    metadata: dict[str, Any] = {
        "library_name": "omnitraining",
        "license": license,
        "tags": ["few-shot-learning", "meta-learning", "omni-training"],
    }
    if trained.inputs is not None:
        metadata["pipeline_tag"] = "image-classification"
    return metadata


def _use(trained: TrainedModel, name: str) -> list[str]:
    """Inputs of the model, and code that loads and fits it."""
    inputs = "points of a curve"
    fit = "learner.fit(x, y)                 # points of a new curve"
    if trained.inputs is not None:
        channels, height, width = trained.inputs.shape
        colors = "gray" if channels == 1 else "color"
        inputs = f"images of any size, resized to {height} x {width} pixels in {colors}"
        fit = 'learner.fit("folder")             # a folder of images per class\n'
        fit += 'learner.predict(["image.jpg"])'
    flows = ", ".join(trained.model.trained_flows)
    return [
        "A few-shot model made with omnitraining: it learns new classes or curves from a few "
        f"examples, without training. Flows: {flows}. Inputs: {inputs}.",
        fenced(
            "python",
            "from omnitraining.learner.hub import from_pretrained\n\n"
            f"learner = from_pretrained({json.dumps(name)})\n{fit}\n",
        ),
    ]


def is_evaluated(run: Run) -> bool:
    """Whether a run has results on its test tasks."""
    return (run.path / "evaluations" / "test.json").is_file()


def _training(run: Run) -> list[str]:
    """Data, results and provenance of a run, as paragraphs."""
    path = run.path / "config.yaml"
    config = read_yaml(path) if run.trust else read_yaml_strictly(path)
    data = yaml.safe_dump(_without_folders(config["problem"]), sort_keys=False)
    results = "It was not evaluated: `omni evaluate` has not been run."
    if is_evaluated(run):
        results = _table(run.load_evaluation())
    facts = _provenance(run)
    words = [f"{key} {plain_text(facts[key])}" for key in PROVENANCE if facts.get(key) is not None]
    return [
        "## Training data",
        fenced("yaml", data),
        "## Results",
        results,
        f"## Provenance\n\n{', '.join(words) or 'unknown'}",
    ]


def _provenance(run: Run) -> dict[str, Any]:
    path = run.path / "provenance.json"
    try:
        text = read_bytes(path, MAX_JSON) if path.is_file() else b"{}"
        facts = {**read_json_strictly(text, str(path))}
        if "seconds" in facts:
            facts["seconds"] = round(facts["seconds"])
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged: {error}") from error
    return facts


def plain_text(value: object) -> str:
    """A name or a number as Markdown without markup, on one line."""
    shown = "".join(c if c.isprintable() else " " for c in str(value))
    return re.sub(r"([\\`*_\[\]|~#$])", r"\\\1", html.escape(shown, quote=False))


def fenced(language: str, text: str) -> str:
    """A block of code, whose fence is longer than any in the text."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}{fence}"


def _table(evaluation: Evaluation) -> str:
    """Results as a table: a row per benchmark, a column per head, means with 95 % intervals."""
    heads = list(dict.fromkeys(h for cell in evaluation.cells.values() for h in cell.scores))
    rows = [["", *map(plain_text, heads)], ["---"] * (1 + len(heads))]
    for name, cell in evaluation.cells.items():
        digits = 2 if abs(cell.mean()) >= 10 else 4
        numbers = (f"{cell.mean(h):.{digits}f} ± {cell.interval(h):.{digits}f}" for h in heads)
        rows.append([plain_text(name), *numbers])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    count = len(next(iter(next(iter(evaluation.cells.values())).scores.values())))
    caption = f"{plain_text(evaluation.unit)}, mean and 95 % interval over {count} fixed tasks"
    return f"{caption}.\n\n" + "\n".join(lines)


def _without_folders(value: Any) -> Any:
    """Values in which paths are reduced to their last name."""
    if isinstance(value, Mapping):
        return {key: _without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_folders(inner) for inner in value]
    is_path = isinstance(value, str) and any(mark in value for mark in "/\\~")
    return PurePath(value.replace("\\", "/")).name if is_path else value

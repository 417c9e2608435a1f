"""Trained models on the Hugging Face hub: weights without a pickle, and a card that says what for.

A model on the hub is a folder of weights.safetensors, which a learner reads, README.md, its card,
and, if it comes from a run that was judged, evaluation.json. The same folder works on a disk.
"""

import html
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from omnitraining.config.strict import MAX_JSON, read_bytes, read_json_strictly, read_yaml_strictly
from omnitraining.config.values import read_yaml
from omnitraining.errors import InputError
from omnitraining.evaluation import Evaluation
from omnitraining.learner import FewShotClassifier, FewShotRegressor, load
from omnitraining.learner.hub_download import reached
from omnitraining.learner.sources import WEIGHTS, Source, find
from omnitraining.runs.run import Run

ORIGIN = ("omnitraining", "commit", "torch", "python", "device", "step", "best_step", "seconds")


def save_pretrained(
    source: Source, folder: Path | str, license: str = "unknown", trust: bool = False
) -> Path:
    """Write to a folder what `push_to_hub` would push.

    Args:
        source: what `omnitraining.learner.load` takes: a run folder, a saved learner, ...
        folder: it is made if it is not there.
        license: of the weights, as the hub spells it: "mit", "cc-by-4.0", ...
        trust: as in `omnitraining.learner.load`.

    Raises:
        InputError: there is no such model, or it cannot be written.
    """
    folder = Path(folder)
    _write(source, folder, folder.name, license, trust)
    return folder


def push_to_hub(
    source: Source,
    name: str,
    license: str = "unknown",
    private: bool = False,
    token: str | None = None,
    trust: bool = False,
) -> str:
    """Put a model on the hub, and say where it is.

    Args:
        source: as in `save_pretrained`.
        name: "owner/name"; it is made if it is not there.
        license: of the weights.
        private: whether others may not see it; has no effect on what is there already.
        token: to write with; by default that of ``hf auth login``.
        trust: as in `omnitraining.learner.load`.

    Raises:
        InputError: there is no such model, or the hub cannot be reached or says no; or
            huggingface_hub is not installed.
    """
    with TemporaryDirectory() as folder:
        _write(source, Path(folder), name, license, trust)
        with reached(name) as hub:
            api = hub.HfApi(token=token)
            url = api.create_repo(name, private=private, exist_ok=True)
            message = f"Upload by omnitraining {version('omnitraining')}"
            api.upload_folder(repo_id=name, folder_path=folder, commit_message=message)
    return str(url)


def from_pretrained(
    name: str | Path, trust: bool = False, **options: object
) -> FewShotClassifier | FewShotRegressor:
    """The learner of a model on the hub, or in a folder that `save_pretrained` wrote.

    Args:
        name: "owner/name", or the folder.
        trust: as in `omnitraining.learner.load`.
        options: of the learner, as ``flow="meta"``.

    Raises:
        InputError: there is no such model, it is damaged, or the hub cannot be reached.
    """
    return load(name, trust, **options)


def _is_judged(run: Run) -> bool:
    return (run.path / "evaluations" / "test.json").is_file()


def _write(source: Source, folder: Path, name: str, license: str, trust: bool) -> None:
    learner, run = load(source, trust), _run(source, trust)
    learner.save(folder / WEIGHTS)
    if run and _is_judged(run):  # written anew: a link in a run could lead to any file
        values = json.dumps(asdict(run.load_evaluation()))
        (folder / "evaluation.json").write_text(values, "utf-8")
    (folder / "README.md").write_text(card(learner, run, name, license), "utf-8")


def card(
    learner: FewShotClassifier | FewShotRegressor, run: Run | None, name: str, license: str
) -> str:
    """The card of a model: what it is, how to load it, its data, results and configuration.

    Nothing in it tells where on a disk the data were, and no name in it becomes HTML or a link.

    Args:
        learner: of the model.
        run: that the model is from, if its folder is known: with data, results and origin.
        name: of the model on the hub, or what stands for it.
        license: of the weights.
    """
    trained = find(learner.model)
    head: dict[str, Any] = {
        "library_name": "omnitraining",
        "license": license,
        "tags": ["few-shot-learning", "meta-learning", "omni-training"],
    }
    if trained.inputs is not None:
        head["pipeline_tag"] = "image-classification"
    flows = ", ".join(trained.model.trained_flows)
    takes = "points of a curve"
    fit = "learner.fit(x, y)                 # points of a new curve"
    if trained.inputs is not None:
        channels, height, width = trained.inputs.shape
        colors = "gray" if channels == 1 else "color"
        takes = f"images of any size, which it sees in {colors}, {height} x {width} pixels"
        fit = 'learner.fit("folder")             # a folder of images per class\n'
        fit += 'learner.predict(["image.jpg"])'
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n\n# {plain_text(trained.name)}",
        "A few-shot model made with omnitraining: it learns new classes or curves from a few "
        f"examples, without training. Flows: {flows}. It takes {takes}.",
        fenced(
            "python",
            "from omnitraining.learner.hub import from_pretrained\n\n"
            f"learner = from_pretrained({json.dumps(name)})\n{fit}\n",
        ),
    ]
    if isinstance(learner, FewShotClassifier) and hasattr(learner, "classes_"):
        parts.append(f"It has learned already: {', '.join(map(plain_text, learner.classes_))}.")
    parts += _origin(run) if run else ["It did not come with its data, results or origin."]
    shown = {key: value for key, value in trained.config.items() if key != "problem"}
    parts += ["## Configuration", fenced("yaml", yaml.safe_dump(shown, sort_keys=False))]
    return "\n\n".join(parts) + "\n"


def _origin(run: Run) -> list[str]:
    """Data, results and origin of a run, as paragraphs."""
    path, origin = run.path / "config.yaml", run.path / "provenance.json"
    config = read_yaml(path) if run.trust else read_yaml_strictly(path)
    data = yaml.safe_dump(_without_places(config["problem"]), sort_keys=False)
    parts = ["## Training data", fenced("yaml", data), "## Results"]
    if _is_judged(run):
        parts += [_table(run.load_evaluation())]
    else:
        parts += ["It was not judged: `omni evaluate` has not been run."]
    try:
        text = read_bytes(origin, MAX_JSON) if origin.is_file() else b"{}"
        facts = {**read_json_strictly(text, str(origin))}
        if "seconds" in facts:
            facts["seconds"] = round(facts["seconds"])
    except (TypeError, ValueError) as error:
        raise InputError(f"{origin} is damaged: {error}") from error
    words = [f"{key} {plain_text(facts[key])}" for key in ORIGIN if facts.get(key) is not None]
    return [*parts, f"## Origin\n\n{', '.join(words) or 'unknown'}"]


def plain_text(value: object) -> str:
    """A name or a number as Markdown that shows it as it is, on one line."""
    shown = "".join(c if c.isprintable() else " " for c in str(value))
    return re.sub(r"([\\`*_\[\]|~#$])", r"\\\1", html.escape(shown, quote=False))


def fenced(language: str, text: str) -> str:
    """A block of code that nothing in it can end."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}{fence}"


def _table(evaluation: Evaluation) -> str:
    """Cells as rows, heads as columns, each mean with its 95 % interval."""
    heads = list(dict.fromkeys(h for cell in evaluation.cells.values() for h in cell.scores))
    rows = [["", *map(plain_text, heads)], ["---"] * (1 + len(heads))]
    for name, cell in evaluation.cells.items():
        digits = 2 if abs(cell.mean()) >= 10 else 4
        numbers = (f"{cell.mean(h):.{digits}f} ± {cell.interval(h):.{digits}f}" for h in heads)
        rows.append([plain_text(name), *numbers])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    count = len(next(iter(next(iter(evaluation.cells.values())).scores.values())))
    words = (
        f"{plain_text(evaluation.unit)}, mean and 95 % interval over {count} tasks that are fixed"
    )
    return f"{words}.\n\n" + "\n".join(lines)


def _without_places(value: Any) -> Any:
    """Values in which paths are only the last of their names."""
    if isinstance(value, Mapping):
        return {key: _without_places(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_places(inner) for inner in value]
    is_path = isinstance(value, str) and any(mark in value for mark in "/\\~")
    return PurePath(value.replace("\\", "/")).name if is_path else value


def _run(source: Source, trust: bool) -> Run | None:
    """The run folder of a source, if it is one."""
    if isinstance(source, str | Path) and (Path(source) / "config.yaml").is_file():
        return Run(source, trust=trust)
    return None

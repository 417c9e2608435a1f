"""Trained models on the Hugging Face hub.

A model on the hub is a folder of weights.safetensors, which a learner reads, its card README.md,
and, if it comes from a run that was evaluated, evaluation.json. The same folder works on a disk.
"""

import json
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from omnitraining.learner import FewShotClassifier, FewShotRegressor, load
from omnitraining.learner.hub_download import reached
from omnitraining.learner.model_card import card, is_evaluated
from omnitraining.learner.sources import WEIGHTS, Source
from omnitraining.runs.run import Run


def save_pretrained(
    source: Source, folder: Path | str, license: str = "unknown", trust: bool = False
) -> Path:
    """Write the files that `push_to_hub` uploads to a folder.

    Args:
        source: what `omnitraining.learner.load` takes: a run folder, a saved learner, ...
        folder: it is created if it does not exist.
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
    """Upload a model to the hub.

    Args:
        source: as in `save_pretrained`.
        name: "owner/name"; it is created if it does not exist.
        license: of the weights.
        private: whether a new model is private; has no effect on an existing one.
        token: with write access; by default that of ``hf auth login``.
        trust: as in `omnitraining.learner.load`.

    Returns:
        Its address.

    Raises:
        InputError: there is no such model, or the hub cannot be reached or refuses it; or
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
    name: str | Path, trust: bool = False, **options: Any
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


def _write(source: Source, folder: Path, name: str, license: str, trust: bool) -> None:
    learner, run = load(source, trust), _run_of(source, trust)
    learner.save(folder / WEIGHTS)
    if run and is_evaluated(run):  # not copied: a link in a run could lead to any file
        values = json.dumps(run.load_evaluation().as_json())
        (folder / "evaluation.json").write_text(values, "utf-8")
    (folder / "README.md").write_text(card(learner, run, name, license), "utf-8")


def _run_of(source: Source, trust: bool) -> Run | None:
    """The run folder of a source, if it is one."""
    if isinstance(source, str | Path) and (Path(source) / "config.yaml").is_file():
        return Run(source, trust=trust)
    return None

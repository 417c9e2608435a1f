"""The hub, without a network: a folder stands for it, and only uploads and downloads are faked."""

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import yaml
from markdown_it import MarkdownIt

from omnitraining.errors import InputError
from omnitraining.evaluation import CellKey
from omnitraining.experiments.running import evaluate_run, train_run
from omnitraining.learner import (
    FewShotClassifier,
    TrainedModel,
    hub,
    hub_download,
    load,
    model_card,
)
from omnitraining.runs.run import Run
from tests.reference.tiny import BLOBS, SINUSOIDS, blobs, config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = train_run(config(BLOBS), tmp_path_factory.mktemp("runs") / "omni")
    evaluate_run(made, tasks=20)
    return made


@pytest.fixture
def wire(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the hub."""
    there = tmp_path / "hub"

    def create_repo(self: object, name: str, private: bool, exist_ok: bool) -> str:
        (there / name).mkdir(parents=True, exist_ok=exist_ok)
        return f"https://hub.test/{name}"

    def upload_folder(self: object, *, repo_id: str, folder_path: str, commit_message: str) -> None:
        assert commit_message.startswith("Upload by omnitraining")
        shutil.copytree(folder_path, there / repo_id, dirs_exist_ok=True)

    def snapshot_download(name: str, allow_patterns: list[str]) -> str:
        if not (there / name).is_dir():
            raise RuntimeError(f"404 Client Error.\nno {name} here")
        return str(there / name)

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create_repo)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload_folder)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return there


def fitted(source: Any, **options: object) -> FewShotClassifier:
    data = blobs(3, 4, "x")
    learner = load(source, trust=True, **options)
    assert isinstance(learner, FewShotClassifier)
    return learner.fit(data.images, data.labels)


def test_a_model_comes_back_as_it_was_pushed(run: Run, wire: Path) -> None:
    assert hub.push_to_hub(run.path, "me/omni", "mit", trust=True) == "https://hub.test/me/omni"
    names = {path.name for path in (wire / "me" / "omni").iterdir()}
    assert names == {"README.md", "weights.safetensors", "evaluation.json"}
    x = blobs(3, 5, "q", seed=9).images
    here, back = fitted(run.path), hub.from_pretrained("me/omni", trust=True, flow=None)
    assert isinstance(back, FewShotClassifier)
    data = blobs(3, 4, "x")
    np.testing.assert_array_equal(
        back.fit(data.images, data.labels).predict_proba(x), here.predict_proba(x)
    )
    # The learner itself takes the name too.
    np.testing.assert_array_equal(fitted("me/omni").predict_proba(x), here.predict_proba(x))


def test_a_fitted_learner_comes_back_fitted(run: Run, tmp_path: Path) -> None:
    learner = fitted(run.path)
    learner.save(tmp_path / "cats")
    folder = hub.save_pretrained(tmp_path / "cats", tmp_path / "folder", trust=True)
    back = hub.from_pretrained(folder, trust=True)
    x = blobs(3, 5, "q", seed=9).images
    assert isinstance(back, FewShotClassifier)
    np.testing.assert_array_equal(back.predict_proba(x), learner.predict_proba(x))
    text = (folder / "README.md").read_text()
    assert "It is fitted to the classes 0, 1, 2." in text and "run is not known" in text


def test_the_card_has_data_results_configuration_license_and_how_to_load(
    run: Run, tmp_path: Path
) -> None:
    folder = hub.save_pretrained(run.path, tmp_path / "folder", "cc-by-4.0", trust=True)
    text = (folder / "README.md").read_text()
    head = yaml.safe_load(text.split("---")[1])
    assert head["license"] == "cc-by-4.0" and head["library_name"] == "omnitraining"
    assert head["pipeline_tag"] == "image-classification"
    assert 'learner = from_pretrained("folder")' in text
    assert "tests.reference.tiny.Blobs" in text  # the data
    cell = run.load_evaluation().cells[CellKey.parse("blobs 5-way 1-shot")]
    assert f"{cell.mean():.2f} ± {cell.interval():.2f}" in text and "over 20 fixed tasks" in text
    configuration = yaml.safe_load(text.split("## Configuration")[1].split("```")[1][5:])
    assert configuration["metatraining"]["init_args"] == {"metric": "cosine", "scale": 10.0}
    assert str(tmp_path) not in text


def test_no_name_in_a_card_is_html_or_ends_its_block(run: Run, tmp_path: Path) -> None:
    data, names = blobs(2, 4, "x"), ["<img src=x onerror=alert(1)>", "[a](javascript:b)\n# c|d"]
    learner = load(run.path, trust=True)
    assert isinstance(learner, FewShotClassifier) and isinstance(learner.model, TrainedModel)
    learner.model.config["omninet"] = {"shared_until": "a\n\n```\n\n<script>"}
    learner.model.name = "<b>"
    learner.fit(data.images, np.array(names)[data.labels])
    text = model_card.card(learner, None, 'x"\n```\n<i>', "mit")
    page = MarkdownIt().render(text.split("---\n", 2)[2])
    assert not set(re.findall(r"<(\w+)", page)) - {"h1", "h2", "p", "pre", "code", "strong"}
    assert "&lt;img src=x onerror=alert(1)&gt;, [a](javascript:b) # c|d." in page


def test_what_a_run_links_to_is_not_pushed(run: Run, tmp_path: Path) -> None:
    copied = Run(shutil.copytree(run.path, tmp_path / "run"), trust=True)
    (tmp_path / "secret").write_text('{"key": "secret"}')
    (copied.path / "evaluations" / "test.json").unlink()
    (copied.path / "evaluations" / "test.json").symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match=r"test\.json is damaged"):
        hub.save_pretrained(copied.path, tmp_path / "folder", trust=True)
    assert not (tmp_path / "folder" / "evaluation.json").exists()


def test_the_card_has_no_folder_of_this_machine(run: Run, tmp_path: Path) -> None:
    copied = tmp_path / "run"
    shutil.copytree(run.path, copied)
    values = yaml.safe_load((copied / "config.yaml").read_text())
    values["problem"]["init_args"]["data"] = "/home/anna/secret/birds"
    (copied / "config.yaml").write_text(yaml.safe_dump(values))
    text = model_card.card(load(run.path, trust=True), Run(copied), "me/omni", "mit")
    assert "data: birds" in text and "anna" not in text


def test_a_model_of_curves_has_a_card_too(tmp_path: Path) -> None:
    run = train_run(config(SINUSOIDS), tmp_path / "waves")
    text = (hub.save_pretrained(run.path, tmp_path / "folder") / "README.md").read_text()
    assert "points of a curve" in text and "was not evaluated" in text
    assert "license: unknown" in text and "pipeline_tag" not in text


def test_errors_of_the_hub_are_one_line(wire: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^me/none on the hub: 404 Client Error\.$"):
        hub_download.download("me/none")
    with pytest.raises(InputError, match="does not exist"):
        hub.push_to_hub(tmp_path / "nothing", "me/x")


def test_without_the_package_the_error_names_the_command_that_installs_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"pip install 'omnitraining\[hub\]'"):
        hub_download.download("me/omni")

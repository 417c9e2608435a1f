"""Runs that start from another run's backbone, and algorithms made for a number of ways."""

import shutil
from pathlib import Path

import pytest
import torch

from omnitraining.config.run_config import instantiate, load_run
from omnitraining.errors import InputError
from omnitraining.experiments.running import train_run
from omnitraining.model import Model
from omnitraining.runs.run import Run
from tests.reference.tiny import BLOBS, config

NARROW = {"class_path": "Conv4", "init_args": {"channels": 1, "width": 4}}
NOISY = {"class_path": "FeatureWise", "init_args": {"backbone": NARROW}}


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "classifier"
    return train_run(config(BLOBS, method="pre-training"), folder)


def trained(run: Run) -> Model:
    return load_run(run).load(run)


def test_a_run_starts_from_the_trained_backbone_of_another(classifier: Run) -> None:
    begun = instantiate(config(BLOBS, method="meta-training", start=str(classifier.path))).build(
        trust=True
    )
    wanted = trained(classifier).network("pre").backbone.state_dict()
    found = begun.network("meta").backbone.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in found)
    fresh = instantiate(config(BLOBS, method="meta-training")).build()
    assert not torch.equal(
        found["0.weight"], fresh.network("meta").backbone.state_dict()["0.weight"]
    )


def test_every_flow_of_an_omni_net_starts_from_it(classifier: Run) -> None:
    begun = instantiate(config(BLOBS, start=str(classifier.path))).build(trust=True).eval()
    wanted = trained(classifier)
    x = torch.randn(3, 1, 16, 16)
    for flow in ("pre", "meta", "joint_pre"):
        features = begun.network(flow).backbone(begun.trunk(x))
        torch.testing.assert_close(features, wanted.network("pre").backbone(x))


def test_feature_wise_noise_goes_around_a_started_backbone(classifier: Run) -> None:
    begun = instantiate(
        config(BLOBS, method="meta-training", backbone=NOISY, start=str(classifier.path))
    ).build(trust=True)
    wanted = trained(classifier).network("pre").backbone.state_dict()
    inside = begun.network("meta").backbone.backbone.state_dict()
    assert all(torch.equal(inside[name], wanted[name]) for name in wanted)


def test_a_started_run_is_loaded_without_the_other(classifier: Run, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(classifier.path, other)
    run = train_run(
        config(BLOBS, method="meta-training", start=str(other)), tmp_path / "run", trust=True
    )
    before = trained(run).state_dict()
    shutil.rmtree(other)
    after = trained(run).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": {"class_path": "Conv4", "init_args": {"channels": 1, "width": 8}}},
         "holds a Conv4 that does not fit this Conv4"),
        ({"start_from": "nowhere"}, "no run at .*/nowhere"),
    ],
)  # fmt: skip
def test_a_start_that_does_not_fit_is_one_line(
    classifier: Run, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    values = {"method": "meta-training", "start_from": str(classifier.path), **changes}
    with pytest.raises(InputError, match=message) as raised:
        train_run(config(BLOBS, **values), tmp_path / "run", trust=True)
    assert "\n" not in str(raised.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize("algorithm", ["GNN", "MAML"])
@pytest.mark.parametrize("method", ["omni-training", "meta-training", "joint-training"])
def test_algorithms_of_fixed_ways_refuse_other_test_tasks_before_training(
    tmp_path: Path, method: str, algorithm: str
) -> None:
    changes = {
        "method": method,
        "metatraining": {"class_path": algorithm},
        "problem": {"init_args": {"protocol": {"test_ways": 4}}},
    }
    with pytest.raises(InputError, match=f"{algorithm} answers tasks of as many ways .* of 4"):
        train_run(config(BLOBS, **changes), tmp_path / "run", trust=True)
    assert not (tmp_path / "run").exists()
    train_run(config(BLOBS, **{**changes, "method": "pre-training"}), tmp_path / "run", trust=True)

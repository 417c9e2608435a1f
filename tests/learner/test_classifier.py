"""A learner predicts what the evaluation predicts, for every algorithm, also when saved."""

import copy
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor

import omnitraining
from omnitraining import FewShotClassifier, InputError
from omnitraining.learner import TrainedModel
from omnitraining.learner.predictor import tempered
from omnitraining.tasks.classification.problem import Classification
from tests.learner.models import curves, untrained

RELATIONS = {"class_path": "RelationNet", "init_args": {"channels": 4}}
MAPS = {"class_path": "Conv4", "init_args": {"channels": 1, "width": 4, "pooled_blocks": 2}}
ALGORITHMS: dict[str, dict[str, Any]] = {
    "protonet": {},
    "euclidean": {"metatraining": {"class_path": "ProtoNet", "init_args": {"metric": "euclidean"}}},
    "both heads": {"inference": {"joint_head": "both", "flows": ["pre", "joint"]}},
    "matchingnet": {"metatraining": {"class_path": "MatchingNet"}},
    "matchingnet, no context": {
        "metatraining": {"class_path": "MatchingNet", "init_args": {"context": False}}
    },
    "svm": {"metatraining": {"class_path": "MetaOptNet", "init_args": {"solver": "svm"}}},
    "ridge": {
        "metatraining": {
            "class_path": "MetaOptNet",
            "init_args": {"solver": "ridge", "normalize": True},
        }
    },
    "relationnet": {"metatraining": RELATIONS, "backbone": MAPS},
    "gnn": {
        "metatraining": {"class_path": "GNN", "init_args": {"form": "inductive"}},
        "problem": {"init_args": {"protocol": {"test_ways": 3}}},
    },
    "baseline++": {"pretraining": {"class_path": "BaselinePP"}},
    "neg-margin": {"pretraining": {"class_path": "NegMargin"}},
    "rfs": {"pretraining": {"class_path": "RFS"}},
    "sgd": {
        "pretraining": {
            "class_path": "Baseline",
            "init_args": {"new_head": {"class_path": "SGDHead", "init_args": {"passes": 3}}},
        }
    },
    "ensemble": {"method": "ensemble"},
    "pre-training": {"method": "pre-training"},
    "trunk": {"omninet": {"shared_until": "8"}},
    "flip": {"inference": {"flip": True}},
    "flip, trunk": {"inference": {"flip": True}, "omninet": {"shared_until": "8"}},
    "flip, maps": {"inference": {"flip": True}, "metatraining": RELATIONS, "backbone": MAPS},
}


@pytest.fixture(scope="module")
def tiny() -> TrainedModel:
    return untrained()[1]


@pytest.fixture(scope="module")
def images() -> Iterator[tuple[Tensor, Tensor]]:
    """Images of eight classes, twelve each, and their labels."""
    problem = untrained()[0].problem
    assert isinstance(problem, Classification)
    test = problem.benchmarks["blobs"]
    yield test.images, test.labels


@pytest.mark.parametrize("changes", ALGORITHMS.values(), ids=ALGORITHMS)
def test_probabilities_equal_the_evaluation_s(changes: dict[str, Any]) -> None:
    experiment, trained = untrained(**changes)
    trained.calibration.temperatures["ensemble"] = [0.5, 0.5]
    problem, inference = experiment.problem, experiment.inference
    assert isinstance(problem, Classification)
    test = problem.benchmarks["blobs"]
    heads, _, tasks = problem.probabilities(trained.model, inference, test, 3, 2, 1, {})
    support, query = tasks.support[0].flatten(), tasks.query[0].flatten()
    labels = ["a", "b", "c"]
    learner = FewShotClassifier(trained, flow="ensemble")
    learner.fit(test.images[support], np.repeat(labels, 2))
    assert learner.classes_.tolist() == labels
    found = learner.predictor_.predict_per_flow(learner.preprocess(test.images[query]))
    for flow, expected in heads.items():
        calibrated = tempered(expected[0], learner.predictor_.temperatures[flow])
        torch.testing.assert_close(found[flow], calibrated, atol=1e-5, rtol=1e-4)
    mixed = torch.stack([*heads.values()]).mean(0)[0].clamp_min(1e-12).log()
    expected = (mixed / learner.calibration_.temperature("ensemble", 2)).softmax(-1)
    found = learner.predict_proba(test.images[query])
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-4)
    np.testing.assert_allclose(found.sum(1), 1)


def test_a_vote_has_the_weights_of_the_inference(
    tiny: TrainedModel, images: tuple[Tensor, Tensor]
) -> None:
    _, voting = untrained(inference={"flows": ["pre", "meta"]})
    x, y = images
    learner = FewShotClassifier(voting).fit(x[:48], y[:48])
    assert learner.predictor_.weights == {"pre": 0.5, "meta": 0.5}
    assert FewShotClassifier(tiny).fit(x[:48], y[:48]).predictor_.weights.keys() == {
        *("pre", "joint", "meta")
    }


@pytest.mark.parametrize(("flow", "passes"), [("meta", 1), ("pre", 1), ("ensemble", 3), (None, 3)])
def test_each_flow_passes_once_and_only_if_needed(
    tiny: TrainedModel, images: tuple[Tensor, Tensor], flow: str | None, passes: int
) -> None:
    x, y = images
    learner = FewShotClassifier(tiny, flow).fit(x[:36], y[:36])
    calls = []
    for part in learner.predictor_.flows.values():
        for backbone in part.backbones:
            backbone.register_forward_hook(lambda *_: calls.append(1))
    learner.predict(x[36:40])
    assert len(calls) == passes


def test_more_images_are_learned_as_if_all_had_come_at_once(
    tiny: TrainedModel, images: tuple[Tensor, Tensor]
) -> None:
    x, y = images
    together = FewShotClassifier(tiny).fit(x[:40], y[:40].numpy())  # three classes and some
    in_parts = FewShotClassifier(tiny).partial_fit(x[:17], y[:17].numpy())
    in_parts.partial_fit(x[17:18], y[17:18].numpy()).partial_fit(x[18:40], y[18:40].numpy())
    assert in_parts.counts_ == together.counts_ == {0: 12, 1: 12, 2: 12, 3: 4}
    np.testing.assert_allclose(
        in_parts.predict_proba(x[:48]), together.predict_proba(x[:48]), atol=1e-5
    )


def test_only_new_images_are_embedded(tiny: TrainedModel, images: tuple[Tensor, Tensor]) -> None:
    x, y = images
    learner = FewShotClassifier(tiny, "pre").fit(x[:36], y[:36])
    seen = []
    handle = tiny.plain_backbone("pre").register_forward_hook(lambda _, x, __: seen.append(x[0]))
    learner.partial_fit(x[36:38], y[36:38])
    handle.remove()
    assert [len(part) for part in seen] == [2]


@pytest.mark.parametrize("labels", [["cat", "Hund", "näïve №1"], [3, 7, 11], [True, False]])
def test_a_saved_learner_is_the_same(
    tiny: TrainedModel, images: tuple[Tensor, Tensor], labels: list[Any], tmp_path: Path
) -> None:
    x, y = images
    kept = y < len(labels)
    learner = FewShotClassifier(tiny, "meta", accept_rate=0.9)
    learner.fit(x[kept], [labels[i] for i in y[kept]])
    learner.save(tmp_path / "new" / "mine")
    loaded = omnitraining.load(tmp_path / "new" / "mine")
    assert isinstance(loaded, FewShotClassifier)
    options = {"flow": "meta", "accept_rate": 0.9, "reject_label": None, "reject": None}
    assert loaded.get_params() == {**options, "model": loaded.model}
    assert loaded.classes_.tolist() == sorted(labels)
    assert loaded.classes_.dtype == learner.classes_.dtype
    for one, other in zip(
        learner.predict_with_scores(x), loaded.predict_with_scores(x), strict=True
    ):
        assert np.array_equal(one, other)
    assert loaded.predict(x).tolist() == learner.predict(x).tolist()
    loaded.partial_fit(x[kept][:1], [labels[0]])
    with safe_open(tmp_path / "new" / "mine", "pt") as file:
        text = json.loads(file.metadata()["learner"])
    assert text["version"] == 1 and text["fit"]["flow"] == "meta"


def test_a_learner_that_was_not_fitted_is_saved_as_a_model(
    tiny: TrainedModel, images: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    x, y = images
    FewShotClassifier(tiny).save(tmp_path / "model")
    loaded = omnitraining.load(tmp_path / "model", flow="pre")
    assert isinstance(loaded, FewShotClassifier) and loaded.flow == "pre"
    expected = FewShotClassifier(tiny, "pre").fit(x[:24], y[:24]).predict_proba(x)
    assert np.array_equal(loaded.fit(x[:24], y[:24]).predict_proba(x), expected)


def test_pickles_and_copies_predict_the_same(
    tiny: TrainedModel, images: tuple[Tensor, Tensor]
) -> None:
    x, y = images
    learner = FewShotClassifier(tiny).fit(x[:24], y[:24])
    for twin in (pickle.loads(pickle.dumps(learner)), copy.deepcopy(learner)):
        assert np.array_equal(twin.predict_proba(x), learner.predict_proba(x))


@pytest.mark.usefixtures("all_validation_tasks")
def test_what_is_unlike_all_classes_is_none_of_these() -> None:
    experiment, trained = untrained(measured=True)
    problem = experiment.problem
    assert isinstance(problem, Classification)
    _, _, tasks = problem.probabilities(
        trained.model, experiment.inference, problem.validation, 5, 2, 60, {}
    )
    accepted = []
    for support, query in zip(tasks.support[:40], tasks.query[:40], strict=True):
        x = problem.validation.images
        learner = FewShotClassifier(trained, accept_rate=0.8)
        learner.fit(x[support.flatten()], np.repeat(list("abcde"), 2))
        labels = learner.predict(x[query.flatten()])
        assert set(labels) <= {*"abcde", None}
        accepted += [label is not None for label in labels]
        rejected = learner.similarity(x[query.flatten()]) < learner.threshold_
        assert [label is None for label in labels] == rejected.tolist()
    assert np.mean(accepted) == pytest.approx(0.8, abs=0.06)  # on the very tasks it was chosen on


def test_maml_adapts_the_network_and_classifies_each_image_by_itself(
    images: tuple[Tensor, Tensor],
) -> None:
    _, trained = untrained(
        metatraining={"class_path": "MAML", "init_args": {"steps": 3, "lr": 0.1}},
        inference={"flows": ["meta"]},
        problem={"init_args": {"protocol": {"test_ways": 3}}},
    )
    x, y = images
    learner = FewShotClassifier(trained).fit(x[:36], y[:36])
    together = learner.predict_proba(x[:36])
    alone = np.concatenate([learner.predict_proba(x[i : i + 1]) for i in range(36)])
    np.testing.assert_allclose(alone, together, atol=1e-5)
    before = [p.clone() for p in trained.model.parameters()]
    learner.partial_fit(x[:1], y[:1])
    assert all(torch.equal(a, b) for a, b in zip(before, trained.model.parameters(), strict=True))
    with pytest.raises(InputError, match=r"as many classes as it was trained on, 3, and .* has 4"):
        FewShotClassifier(trained).fit(x[:48], y[:48])
    with pytest.raises(InputError, match="accept_rate needs features that are not adapted"):
        FewShotClassifier(trained, accept_rate=0.9).fit(x[:36], y[:36])


def test_a_transductive_gnn_is_refused_but_not_its_pre_flow(
    images: tuple[Tensor, Tensor],
) -> None:
    _, trained = untrained(
        metatraining={"class_path": "GNN"}, problem={"init_args": {"protocol": {"test_ways": 3}}}
    )
    x, y = images
    with pytest.raises(InputError, match="a transductive GNN predicts queries together"):
        FewShotClassifier(trained).fit(x[:36], y[:36])
    FewShotClassifier(trained, "pre").fit(x[:48], y[:48])


FAULTS: dict[str, tuple[Any, Any, dict[str, Any], str]] = {
    "lengths": (slice(0, 24), [0] * 23, {}, "there are 24 images and 23 labels: give one per"),
    "one class": (
        slice(0, 5),
        [1] * 5,
        {},
        r"images \(5\) are all of one class, 1: give two classes",
    ),
    "one image": (slice(0, 1), ["cat"], {}, r"images \(1\) are all of one class, 'cat': give two"),
    "no images": (slice(0, 0), [], {}, "there are no images: give one or more"),
    "values": (
        slice(0, 2),
        [0.5, 1.0],
        {},
        r"labels are continuous, float64 \[2\]: give one text or whole",
    ),
    "mixed": (slice(0, 2), [0, "1"], {}, "labels are texts and numbers: give only texts, or"),
    "table": (slice(0, 2), [[0, 1], [1, 0]], {}, r"labels are int64 \[2, 2\]: give one text or"),
    "no labels": (slice(0, 2), None, {}, "there are no labels: give y, or a folder with a folder"),
    "flow": (
        slice(0, 24),
        [0, 1] * 12,
        {"flow": "mid"},
        "flow is 'mid': tiny has pre, joint, meta",
    ),
    "accept rate": (slice(0, 24), [0, 1] * 12, {"accept_rate": 1.5}, "accept_rate is 1.5: it must"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_wrong_support_set_is_refused(
    tiny: TrainedModel, images: tuple[Tensor, Tensor], fault: tuple[Any, Any, dict[str, Any], str]
) -> None:
    part, y, options, words = fault
    with pytest.raises(InputError, match=words):
        FewShotClassifier(tiny, **options).fit(images[0][part], y)


def test_a_fit_that_fails_leaves_what_was_learned(
    tiny: TrainedModel, images: tuple[Tensor, Tensor]
) -> None:
    x, y = images
    learner = FewShotClassifier(tiny).fit(x[:24], y[:24])
    before = learner.predict_proba(x)
    with pytest.raises(
        InputError, match="labels are <U3, labels of the fit are int64: use one kind"
    ):
        learner.partial_fit(x[:1], ["cat"])
    with pytest.raises(InputError, match="are all of one class, 0"):
        learner.fit(x[:2], [0, 0])
    assert np.array_equal(learner.predict_proba(x), before)
    learner.set_params(flow="pre")
    with pytest.raises(InputError, match="model or flow were changed since the fit: fit again"):
        learner.partial_fit(x[:1], y[:1])


def test_images_and_curves_are_not_mixed_up(
    images: tuple[Tensor, Tensor], tiny: TrainedModel
) -> None:
    with pytest.raises(InputError, match="tiny is a model of curves: give a model of images"):
        FewShotClassifier(curves()[1]).fit(images[0][:24], images[1][:24])
    with pytest.raises(InputError, match="tiny is a model of images: give a model of curves"):
        omnitraining.FewShotRegressor(tiny).fit([0.0, 1.0], [0.0, 1.0])


def test_a_folder_takes_no_labels(tiny: TrainedModel, tmp_path: Path) -> None:
    """Files are sorted as texts, 10 before 2, and labels by numbers would go to others."""
    for name in ("a/1.png", "b/2.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("L", (9, 9), 77).save(tmp_path / name)
    learner = FewShotClassifier(tiny).fit(tmp_path)
    for method in (FewShotClassifier(tiny).fit, learner.partial_fit, learner.score):
        for folder in (tmp_path, str(tmp_path / "a")):
            with pytest.raises(InputError, match="is a folder, and y has no order that fits it"):
                method(folder, [0, 1])
    assert len(learner.predict(tmp_path)) == 2 and learner.score(tmp_path) in (0, 0.5, 1)

"""Defaults of options: the shipped configurations, the API and the command line share them."""

from pathlib import Path

import pytest

from omnitraining.config.run_config import parse, read_config
from omnitraining.evaluation import Inference
from omnitraining.metatraining import (
    ANIL,
    GNN,
    MAML,
    MatchingNet,
    MetaOptNet,
    ProtoNet,
    RelationNet,
)
from omnitraining.model import OmniLoss, OmniNetOptions
from omnitraining.pretraining import RFS, Baseline, BaselinePP, LogisticHead, NegMargin
from omnitraining.training import Training
from tests.reference.tiny import SINUSOIDS


def test_defaults_of_the_method() -> None:
    assert OmniLoss() == OmniLoss(
        distill_weight=0.0, warmup=0, ema_decay=0.99, distill_target="outputs",
        l_pre=True, l_meta=True, l_joint=True, r_pre=True, r_meta=True,
    )  # fmt: skip
    assert Inference() == Inference(
        flows=("pre", "joint", "meta"), ensemble_weights="equal", joint_head="both", weights="best"
    )
    assert OmniNetOptions() == OmniNetOptions(branch_init="zeros", shared_until=None)
    training = Training(steps=1)
    assert (training.optimizer, training.lr, training.schedule) == ("adam", 1e-3, "constant")


@pytest.mark.parametrize(
    ("made", "given"),
    [
        (ProtoNet(), ProtoNet(metric="cosine", scale=10.0)),
        (MetaOptNet(), MetaOptNet(solver="svm", penalty=50.0, normalize=False, jitter=0.0)),
        (MatchingNet(), MatchingNet(scale=100.0, order="canonical")),
        (RelationNet(), RelationNet(channels=64, target="one-hot")),
        (GNN(), GNN(embedding=128, width=96, form="transductive")),
        (MAML(), MAML(task="classification", lr=0.02, steps=1, second_order=True)),
        (ANIL(), ANIL(steps=5, lr=0.1, second_order=True)),
        (Baseline(), Baseline(new_head=LogisticHead(penalty=0.01, iterations=100))),
        (BaselinePP(), BaselinePP(scale=10.0, norm="unit")),
        (NegMargin(), NegMargin(similarity="cosine", margin=-0.02, scale=30.0)),
        (RFS(), RFS(temperature=4.0, kd_weight=0.5)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_defaults_of_algorithms(made: object, given: object) -> None:
    assert made == given


@pytest.mark.parametrize("name", ["glyphs", "photos", "navigation", "sinusoids"])
def test_shipped_configurations_differ_from_the_defaults_only_where_a_record_has_a_reason(
    name: str,
) -> None:
    config = read_config(Path(f"{name}.yaml"), [])
    inference, loss = Inference(), OmniLoss()
    if name in ("glyphs", "sinusoids"):
        inference = Inference(ensemble_weights="validation")
    if name == "sinusoids":
        loss = OmniLoss(distill_weight=3.0)
    if name == "photos":  # photo-table2: pre-training first, linear heads; flip: flows.md
        inference = Inference(joint_head="pre", meta_head="pre", flip=True)
        loss = OmniLoss(meta_at=0.7, branch_at=0.7)
    assert Inference(**vars(config.inference)) == inference
    assert OmniLoss(**vars(config.loss)) == loss
    if name in ("glyphs", "photos"):
        assert ProtoNet(**vars(config.metatraining.init_args)) == ProtoNet()
        assert config.pretraining.class_path == "omnitraining.Baseline"


def test_what_is_changed_in_a_configuration_is_no_default_of_the_next() -> None:
    changed, before = parse(SINUSOIDS), parse(SINUSOIDS)
    for name, value in [*changed.items()]:
        if isinstance(value, list):
            value.append("another")
        changed[name] = None
    assert parse(SINUSOIDS) == before

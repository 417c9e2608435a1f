"""Every meta-training with every pre-training algorithm, in the methods that train both at once."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from omnitraining.backbones import Conv4, FeatureWise
from omnitraining.batches import Episode, MiniBatch
from omnitraining.config.run_config import dump, instantiate, load_run
from omnitraining.evaluation import ENSEMBLE, CellKey, Inference
from omnitraining.metatraining import (
    ANIL,
    CAN,
    GNN,
    LEO,
    MAML,
    TADAM,
    HardTasks,
    MatchingNet,
    MetaMaxUp,
    MetaOptNet,
    MetaTraining,
    MultiTask,
    ProtoNet,
    RelationNet,
    Reptile,
    TapNet,
)
from omnitraining.model import Method, Model, OmniLoss, build_model
from omnitraining.pretraining import (
    PMM,
    RFS,
    Baseline,
    BaselinePP,
    NegMargin,
    PreTraining,
    Robust,
)
from omnitraining.runs.run import Run
from omnitraining.tasks.classification.problem import Classification, EpisodeConfig
from omnitraining.teacher import Teacher
from omnitraining.training import train
from tests.reference.tiny import BLOBS, Blobs, config, same

PRE = [Baseline(), BaselinePP(), NegMargin(), RFS(), Robust(), PMM(components=3)]
META = [
    ProtoNet(),
    MatchingNet(),
    RelationNet(channels=4),
    GNN(embedding=8, width=8),
    GNN(embedding=8, width=8, form="inductive"),
    MAML(),
    ANIL(),
    Reptile(lr=0.1),
    MetaOptNet("svm"),
    MetaOptNet("ridge"),
    MetaMaxUp(MetaOptNet("ridge"), versions=2),
    MetaMaxUp(MAML(), versions=2),
    HardTasks(ANIL(), steps=1),
    HardTasks(CAN(channels=4), steps=1),
    TapNet(),
    MultiTask(),
    CAN(channels=4),
    TADAM(),
    LEO(latents=4),
]


def name_of(value: object) -> str:
    """A class and the option that distinguishes two of it."""
    if not isinstance(value, PreTraining | MetaTraining):
        return str(value)
    option = getattr(value, "form", getattr(value, "solver", ""))
    option = type(value.algorithm).__name__ if isinstance(value, MetaMaxUp | HardTasks) else option
    return f"{type(value).__name__} {option}".strip()


each_meta = pytest.mark.parametrize("meta", META, ids=name_of)
each_pre = pytest.mark.parametrize("pre", PRE, ids=name_of)
few_pairs = pytest.mark.parametrize(
    ("pre", "meta"),
    [(PRE[number % len(PRE)], meta) for number, meta in enumerate(META)],
    ids=name_of,
)


def backbone() -> nn.Module:
    """16 px images to flattened 4x4 maps of 4 channels, which every algorithm takes."""
    return Conv4(1, 4, pooled_blocks=2)


@pytest.fixture(scope="module")
def problem() -> Classification:
    return Blobs(EpisodeConfig(ways=3, shots=2, queries=2, batch=8, test_ways=3, test_shots=(1,)))


def samples(problem: Classification, random: torch.Generator) -> tuple[MiniBatch, Episode]:
    return problem.minibatch(0, random), problem.episode(0, random)


@pytest.fixture(scope="module")
def data(problem: Classification) -> tuple[MiniBatch, Episode]:
    return samples(problem, torch.Generator().manual_seed(0))


def prepared(meta: MetaTraining, data: tuple[MiniBatch, Episode]) -> tuple[MiniBatch, Episode]:
    """The episode as `Supervised.samples` passes it on."""
    return data[0], meta.prepared(data[1], torch.Generator().manual_seed(0))


def model_of(
    problem: Classification,
    pre: PreTraining,
    meta: MetaTraining,
    method: Method = "omni-training",
    loss: OmniLoss = OmniLoss(distill_weight=3.0),  # noqa: B008
) -> Model:
    model = build_model(method, backbone, problem, pre, meta, loss).train()
    for name, parameter in model.named_parameters():
        if name.endswith("multipliers"):  # of TADAM, whose tasks do not differ at its start
            parameter.data.fill_(0.1)
    return model


def assert_gradients(model: Model, loss: Tensor) -> None:
    """Finite, everywhere; zero only for biases, which a norm or a softmax may take out."""
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0 or name.endswith("bias"), name


@each_pre
@each_meta
def test_one_step_of_omni_training_has_finite_terms_and_reaches_every_parameter(
    pre: PreTraining, meta: MetaTraining, problem: Classification, data: tuple[MiniBatch, Episode]
) -> None:
    model, data = model_of(problem, pre, meta), prepared(meta, data)
    teacher = Teacher(model).train()
    terms = model(*data, teacher.model)
    names = {"l_pre", "l_meta", "l_joint_pre", "l_joint_meta", "r_pre", "r_meta", "total"}
    assert terms.keys() == names and all(term.isfinite() for term in terms.values())
    # The teacher is still the student; without a graph some kernels round otherwise.
    assert terms["r_pre"] < 1e-12
    assert terms["r_meta"] < 1e-12 or isinstance(meta, LEO)  # whose student alone draws samples
    assert_gradients(model, terms["total"])
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    optimizer.step()
    teacher.update()
    terms = model(*data, teacher.model)
    assert all(term.isfinite() for term in terms.values())
    assert terms["r_pre"] > 0 and terms["r_meta"] > 0


@each_meta
def test_a_step_in_bfloat16_is_the_step_in_float32_but_for_rounding(
    meta: MetaTraining, problem: Classification, data: tuple[MiniBatch, Episode]
) -> None:
    model, data = model_of(problem, RFS(), meta), prepared(meta, data)
    teacher = Teacher(model).train()
    torch.manual_seed(0)
    exact = model(*data, teacher.model)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        terms = model(*data, teacher.model)
    for name, term in terms.items():
        torch.testing.assert_close(term.float(), exact[name], rtol=0.1, atol=0.01)
    assert_gradients(model, terms["total"])


@few_pairs
@pytest.mark.parametrize("method", ["joint-training", "ensemble"])
def test_one_step_of_a_rival_has_finite_terms_and_reaches_every_parameter(
    method: Method,
    pre: PreTraining,
    meta: MetaTraining,
    problem: Classification,
    data: tuple[MiniBatch, Episode],
) -> None:
    model, data = model_of(problem, pre, meta, method), prepared(meta, data)
    terms = model(*data, Teacher(model).train().model)
    parts = ("l_joint_pre", "l_joint_meta") if method == "joint-training" else ("l_pre", "l_meta")
    assert terms.keys() == {*parts, "total"} and all(term.isfinite() for term in terms.values())
    assert_gradients(model, terms["total"])


@each_pre
@each_meta
def test_every_head_is_evaluated(
    pre: PreTraining, meta: MetaTraining, problem: Classification
) -> None:
    model = model_of(problem, pre, meta)
    found = problem.evaluate(model, Inference(joint_head="both"), 2)
    assert list(found.cells) == [CellKey("blobs", 3, 1)]
    for cell in found.cells.values():
        assert list(cell.scores) == ["pre", "joint", "meta", ENSEMBLE]
        assert all(0 <= score <= 100 for scores in cell.scores.values() for score in scores)


@pytest.mark.parametrize(
    ("pre", "meta"),
    [
        ("BaselinePP", {"class_path": "GNN", "init_args": {"embedding": 8, "width": 8}}),
        ("RFS", {"class_path": "RelationNet", "init_args": {"channels": 4}}),
        ("NegMargin", {"class_path": "MetaOptNet", "init_args": {"solver": "ridge"}}),
    ],
    ids=["BaselinePP-GNN", "RFS-RelationNet", "NegMargin-MetaOptNet"],
)
def test_a_run_that_is_loaded_gives_what_it_gave_at_the_end_of_training(
    pre: str, meta: dict[str, Any], tmp_path: Path
) -> None:
    choice = config(
        BLOBS,
        backbone={"init_args": {"pooled_blocks": 2}},
        pretraining={"class_path": pre},
        metatraining=meta,
        training={"steps": 2},
        inference={"weights": "student"},
    )
    experiment, run = instantiate(choice), Run(tmp_path / "run", create=True)
    run.write_text("config.yaml", dump(choice))
    model, problem = experiment.build(), experiment.problem
    train(model, problem, experiment.training, experiment.inference, run)
    loaded, model = load_run(run).load(run), model.eval()
    assert same(dict(loaded.state_dict()), dict(model.state_dict()))
    batch, episode = samples(problem, torch.Generator().manual_seed(5))
    with torch.no_grad():
        for name in ("pre", "joint_pre"):
            ours, theirs = (m.network(name)(batch.x) for m in (model, loaded))
            torch.testing.assert_close(theirs, ours)
        for name in ("meta", "joint_meta"):
            ours, theirs = (
                m.metatraining.predict(m.network(name), episode) for m in (model, loaded)
            )
            torch.testing.assert_close(theirs, ours)


def loss_without_noise(model: Model, problem: Classification) -> float:
    """Mean meta-training loss in ten new episodes, without noise."""
    random = torch.Generator().manual_seed(1000)
    with torch.no_grad():
        terms = [model.eval()(*samples(problem, random))["l_meta"] for _ in range(10)]
    model.train()
    return torch.stack(terms).mean().item()


@pytest.mark.parametrize(
    ("meta", "steps"),
    [
        (ProtoNet(), 30),
        (MatchingNet(scale=10.0), 30),
        (RelationNet(channels=4), 40),
        (GNN(embedding=16, width=16), 80),
    ],
    ids=name_of,
)
def test_algorithms_learn_through_the_noise_of_feature_wise_transformation(
    meta: MetaTraining, steps: int, problem: Classification
) -> None:
    model = build_model(
        "meta-training", lambda: FeatureWise(backbone), problem, metatraining=meta
    ).train()
    before = loss_without_noise(model, problem)
    first, second = (model(*samples(problem, torch.Generator())) for _ in range(2))
    assert first["l_meta"] != second["l_meta"]  # there is noise
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for step in range(steps):
        loss = model(*samples(problem, torch.Generator().manual_seed(step)))["total"]
        optimizer.zero_grad()
        assert_gradients(model, loss)
        optimizer.step()
    after = loss_without_noise(model, problem)
    assert after < 0.5 * before

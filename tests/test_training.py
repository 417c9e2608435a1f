"""The training loop: reproducible, resumable, and it learns."""

import math
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from itertools import count
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from omnitraining import training
from omnitraining.config.recipes import merge
from omnitraining.config.run_config import instantiate
from omnitraining.errors import InputError
from omnitraining.evaluation import ENSEMBLE, Inference
from omnitraining.experiments import reproduction
from omnitraining.experiments.experiment import Experiment
from omnitraining.experiments.reproduction import reproduce
from omnitraining.experiments.running import train_run
from omnitraining.runs.run import Run, load_checkpoint
from omnitraining.training import Progress, Stepper, Training, checkpointer, loop, stepper, train
from tests.reference.tiny import BLOBS, SINUSOIDS, Values, config, metrics, same, tensors
from tests.reference.toy import toy_model

EIGHT = {"training": {"steps": 8, "val_every": 4}}


def state(run: Run, which: str = "last") -> dict[str, Any]:
    return load_checkpoint(run.checkpoint(which), {})


def assert_same_runs(first: Run, second: Run) -> None:
    for which in ("last", "best"):
        one, other = first.checkpoint(which), second.checkpoint(which)
        assert same(tensors(one), tensors(other))
        timeless = {"seconds": 0, "seconds_of_steps": 0}
        assert state(first, which) | timeless == state(second, which) | timeless
    assert metrics(first.path) == metrics(second.path)


# --- the same again ---


@pytest.mark.parametrize("base", [SINUSOIDS, BLOBS])
def test_the_same_seed_gives_the_same_run_and_another_seed_another(
    base: Values, tmp_path: Path
) -> None:
    first, again, other = (
        train_run(config(base, seed=seed), tmp_path / name)
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    )
    assert_same_runs(first, again)
    assert not same(tensors(first.checkpoint("last")), tensors(other.checkpoint("last")))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Values], Run]:
    """Runs of eight steps that nothing interrupts, one per configuration."""

    def run(base: Values) -> Run:
        folder = folders / base["problem"]["class_path"]
        if not folder.is_dir():
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(loop, "REPORT_EVERY", 3)
                train_run(config(base, **EIGHT), folder)
        return Run(folder)

    folders = tmp_path_factory.mktemp("whole")
    return run


class Interrupt(Progress):
    """Ctrl-C after some steps."""

    def __init__(self, after: int) -> None:
        self.after = after

    def advance(self, done: int, steps: int) -> None:
        if done == self.after:
            raise KeyboardInterrupt


def interrupt_in_save(monkeypatch: pytest.MonkeyPatch, which: str, at: int) -> None:
    original = checkpointer.save_checkpoint

    def save(path: Path, modules: Any, optimizer: Any, values: Any) -> None:
        if path.stem == which and values["step"] == at:
            raise KeyboardInterrupt
        original(path, modules, optimizer, values)

    monkeypatch.setattr(checkpointer, "save_checkpoint", save)


@pytest.mark.parametrize(
    ("base", "name", "at"),
    [
        (SINUSOIDS, "step", 3),
        (SINUSOIDS, "step", 5),
        (SINUSOIDS, "best", 4),
        (SINUSOIDS, "last", 8),
        (BLOBS, "step", 8),
        (BLOBS, "last", 4),
    ],
)
def test_a_killed_run_goes_on_to_the_same_end(
    base: Values,
    name: str,
    at: int,
    whole: Callable[[Values], Run],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Wherever it is killed: before a checkpoint, between two of them, or before the last one."""
    monkeypatch.setattr(loop, "REPORT_EVERY", 3)  # rows between checkpoints too
    chosen = config(base, **EIGHT)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        if name != "step":
            interrupt_in_save(patch, name, at)
        train_run(chosen, tmp_path / "killed", progress=Interrupt(at if name == "step" else 99))
    assert not (tmp_path / "killed" / "provenance.json").exists()
    assert_same_runs(train_run(chosen, tmp_path / "killed", resume=True), whole(base))


def toy_run(
    folder: Path,
    scores: Iterable[float],
    weights: Literal["student", "teacher", "best"] = "student",
    resume: bool = False,
    nan_from: float = math.inf,
    **options: Any,
) -> Run:
    """A training on toy data with given validation scores."""
    model, problem = toy_model()
    problem.scores, problem.nan_from = iter(scores), nan_from
    run, inference = Run(folder, create=True), Inference(weights=weights)
    train(model, problem, Training(**options), inference, run, resume=resume)
    return run


def test_a_run_killed_between_two_checkpoints_does_not_lose_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the first validation is the best, so that no later one makes up for it."""
    length = {"steps": 4, "val_every": 2}
    whole = toy_run(tmp_path / "whole", (-2.0, -4.0), **length)
    for which in ("best", "last"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            interrupt_in_save(patch, which, at=2)
            toy_run(tmp_path / which, (-2.0,), **length)
        is_saved = Run(tmp_path / which, create=True).checkpoint("last").is_file()
        run = toy_run(tmp_path / which, (-2.0, -4.0), resume=is_saved, **length)
        assert_same_runs(run, whole)
        assert state(run, "best")["step"] == 2


def test_a_finished_run_is_left_as_it_is_by_resume(tmp_path: Path) -> None:
    run = train_run(config(SINUSOIDS), tmp_path / "run")
    before = {path: path.read_bytes() for path in run.path.glob("*.safetensors")}
    train_run(config(SINUSOIDS), run.path, resume=True)
    assert before == {path: path.read_bytes() for path in run.path.glob("*.safetensors")}


def test_more_steps_are_the_only_other_way_to_go_on(tmp_path: Path) -> None:
    run = train_run(config(SINUSOIDS), tmp_path / "run")
    longer = train_run(config(SINUSOIDS, training={"steps": 6}), run.path, resume=True)
    assert state(longer)["step"] == 6
    before = (run.path / "config.yaml").read_text()
    for change, words in [
        ({"training": {"steps": 2}}, "training.steps is 2, but .* is at step 6"),
        (
            {"loss": {"distill_weight": 1}},
            "trained with another loss.distill_weight: only training.steps,",
        ),
        ({"backbone": {"init_args": {"hidden": [9]}}}, "another backbone.init_args.hidden"),
    ]:
        with pytest.raises(InputError, match=words):
            train_run(config(merge(SINUSOIDS, EIGHT, change)), run.path, resume=True)
    assert (run.path / "config.yaml").read_text() == before


def experiment(rows: dict[str, Values]) -> Experiment:
    """An experiment on sinusoids at a constant learning rate."""
    return Experiment("toy", "", "", "", SINUSOIDS, rows, {}, [3], "none")


def test_a_row_that_continues_another_is_as_if_trained_afresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: dict[str, Values] = {
        "short": {"loss": {"distill_weight": 1.0}},
        "long": {"continues": "short", "training": {"steps": 6}},
        "longest": {"continues": "long", "training": {"steps": 8}},
        "afresh": {"loss": {"distill_weight": 1.0}, "training": {"steps": 8}},
    }
    monkeypatch.setattr(reproduction, "find_experiment", lambda name: experiment(rows))
    reproduce("toy", tmp_path, only=list(rows))
    assert_same_runs(Run(tmp_path / "longest-3"), Run(tmp_path / "afresh-3"))
    assert state(Run(tmp_path / "long-3"))["step"] == 6
    assert state(Run(tmp_path / "short-3"))["step"] == 4


def test_a_row_cannot_continue_one_that_is_not_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: dict[str, Values] = {"short": {}, "long": {"continues": "short"}}
    monkeypatch.setattr(reproduction, "find_experiment", lambda name: experiment(rows))
    with pytest.raises(InputError, match=r"goes on from .*short-3, which is not trained"):
        reproduce("toy", tmp_path, only=["long"])
    assert not (tmp_path / "long-3").exists()


# --- checkpoints ---


@pytest.mark.parametrize(
    ("weights", "scores", "step", "chosen"),
    [
        ("teacher", [1, 3, 2], 4, "teacher"),
        ("student", [3, 3, 2], 2, "student"),
        ("best", [1, 2, 5, 0, 4, 3], 4, "student"),  # student and teacher by turns
        ("best", [1, 2, 3, 4, 0, 6], 6, "teacher"),
    ],
)
def test_the_best_checkpoint_is_that_of_the_best_validation_score(
    weights: Any, scores: list[float], step: int, chosen: str, tmp_path: Path
) -> None:
    run = toy_run(tmp_path, scores, weights, steps=6, val_every=2)
    best = state(run, "best")
    assert (best["step"], best["best_step"], best["best"]) == (step, step, max(scores))
    assert best["best_weights"] == chosen
    assert state(run)["step"] == 6


def test_student_and_teacher_are_different_weights(tmp_path: Path) -> None:
    run = train_run(config(SINUSOIDS), tmp_path / "run")
    student, teacher = (
        tensors(run.checkpoint("last"), prefix) for prefix in ("student.", "teacher.")
    )
    assert student.keys() == teacher.keys() and not same(student, teacher)
    chosen = config(SINUSOIDS, loss={"ema_decay": 0.0})
    run = train_run(chosen, tmp_path / "no memory")
    assert same(*(tensors(run.checkpoint("last"), p) for p in ("student.", "teacher.")))


@pytest.mark.parametrize(("val_every", "at", "good"), [(2, 4, 4), (2, 5, 4), (3, 4, 3)])
def test_a_loss_that_is_not_finite_stops_and_leaves_the_last_good_checkpoint(
    val_every: int, at: int, good: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "REPORT_EVERY", 4)
    with pytest.raises(InputError, match=r"loss term l_pre became nan .* training.lr"):
        toy_run(tmp_path, count(), nan_from=at, steps=9, val_every=val_every)
    run = Run(tmp_path, create=True)
    assert state(run)["step"] == good
    assert all(t.isfinite().all() for t in tensors(run.checkpoint("last")).values())
    load_checkpoint(run.checkpoint("last"), {"student": toy_model()[0]})


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    chosen = config(SINUSOIDS, training={"steps": 1, "lr": 3e38})
    with pytest.raises(InputError, match=r"weights networks\S+ are not finite at .* step 1"):
        train_run(chosen, tmp_path / "run")
    assert not list((tmp_path / "run").glob("*.safetensors"))


# --- what is reported ---


@pytest.mark.parametrize(
    ("changes", "terms"),
    [
        ({}, "l_pre r_pre l_meta r_meta l_joint_pre l_joint_meta"),
        ({"loss": {"r_pre": False, "l_meta": False}}, "l_pre l_joint_pre l_joint_meta"),
        ({"loss": {"distill_weight": 0}}, "l_pre l_meta l_joint_pre l_joint_meta"),
        ({"method": "meta-training"}, "l_meta"),
        ({"method": "joint-training"}, "l_joint_pre l_joint_meta"),
    ],
)
def test_metrics_hold_every_active_term(changes: Values, terms: str, tmp_path: Path) -> None:
    base = merge(SINUSOIDS, {"loss": {"distill_weight": 1.0}, "inference": {"weights": "teacher"}})
    run = train_run(config(base, **changes), tmp_path / "r")
    rows = metrics(run.path)
    for step in (2, 4):
        values = {name: value for at, name, value in rows if at == step}
        scores = {name for name in values if name.startswith("validation_")}
        assert values.keys() - scores == {*terms.split(), "total"}
        flows = {term.split("_")[1] for term in terms.split() if term.startswith("l_")}
        assert scores == {"validation_teacher", *(f"validation_teacher_{f}" for f in flows)}
        if len(flows) == 1:
            first, second = (values[name] for name in scores)
            assert first == pytest.approx(second, rel=1e-6)
    assert {at for at, _, _ in rows} == {2, 4}
    assert all(math.isfinite(value) for *_, value in rows)


def test_a_reported_loss_is_the_mean_since_the_last_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fine, coarse = [], []
    for every, into in ((1, fine), (3, coarse)):
        monkeypatch.setattr(loop, "REPORT_EVERY", every)
        run = train_run(config(SINUSOIDS, **EIGHT), tmp_path / str(every))
        into += [(at, value) for at, name, value in metrics(run.path) if name == "total"]
    each = dict(fine)
    assert list(each) == [*range(1, 9)]
    for steps, (at, value) in zip([(1, 2, 3), (4,), (5, 6), (7, 8)], coarse, strict=True):
        assert at == steps[-1]
        assert value == pytest.approx(sum(each[s] for s in steps) / len(steps), rel=1e-6)


@pytest.mark.usefixtures("all_validation_tasks")
def test_it_learns(tmp_path: Path) -> None:
    """An error of about 4.2 becomes 2.8."""
    size = {"init_args": {"hidden": [32, 32]}}
    length = {"steps": 400, "val_every": 200, "optimizer": "adam", "lr": 0.01}
    chosen = config(SINUSOIDS, method="meta-training", backbone=size, training=length)
    untrained = instantiate(chosen)
    before = -untrained.problem.validation_scores(untrained.build().eval(), untrained.inference)[
        ENSEMBLE
    ]
    run = train_run(chosen, tmp_path / "run")
    assert -state(run)["best"] < 0.75 * before


# --- options ---


def test_threads_are_set_in_training_alone(tmp_path: Path) -> None:
    class Threads(Progress):
        number = 0

        def advance(self, done: int, steps: int) -> None:
            self.number = torch.get_num_threads()

    (model, problem), before, seen = toy_model(), torch.get_num_threads(), Threads()
    options, run = Training(steps=1, threads=before + 1), Run(tmp_path, create=True)
    train(model, problem, options, Inference(), run, progress=seen)
    assert (seen.number, torch.get_num_threads()) == (before + 1, before)


@pytest.mark.parametrize(
    ("schedule", "formula"),
    [
        ("constant", lambda done: 0.3),
        ("linear", lambda done: 0.3 * (1 - done)),
        ("cosine", lambda done: 0.3 * 0.5 * (1 + math.cos(math.pi * done))),
    ],
)
def test_the_optimizer_steps_at_the_scheduled_learning_rate(schedule: Any, formula: Any) -> None:
    model, problem = toy_model()
    options = Training(steps=4, optimizer="sgd", schedule=schedule, lr=0.3)
    stepper, rates = Stepper(model, problem, options, torch.device("cpu")), []
    stepper.optimizer.register_step_pre_hook(
        lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"])
    )
    for step in range(4):
        stepper.step(step)
    assert rates == pytest.approx([formula(index / 4) for index in range(4)], abs=1e-12)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": -1}, "training.steps is -1: it must be 0 or more"),
        ({"val_every": -1}, "training.val_every is -1: it must be 1 or more"),
        ({"lr": 0.0}, "training.lr is 0.0: it must be greater than 0"),
        ({"lr": math.nan}, "training.lr is nan: it must be greater than 0"),
        ({"weight_decay": -0.1}, "training.weight_decay is -0.1: it must be 0 or more"),
        ({"threads": 0}, "training.threads is 0: it must be 1 or more"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        Training(**options)
    assert str(caught.value) == words


def test_weight_decay_is_decoupled_under_adam_and_off_by_default() -> None:
    layer = torch.nn.Linear(1, 1)
    assert isinstance(Training(optimizer="adam").make_optimizer(layer), torch.optim.AdamW)
    assert isinstance(Training(optimizer="sgd").make_optimizer(layer), torch.optim.SGD)
    groups = Training(weight_decay=0.1, lr=0.5).make_optimizer(layer).param_groups
    assert groups[0]["weight_decay"] == 0.1 and groups[0]["lr"] == 0.5
    assert Training().make_optimizer(layer).param_groups[0]["weight_decay"] == 0


# --- optimizer options, early ending, precision ---


def test_sgd_has_its_momentum_and_adam_refuses_one() -> None:
    model = torch.nn.Linear(2, 1)
    made = Training(optimizer="sgd", lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)
    (group,) = made.make_optimizer(model).param_groups
    assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0.9, True, 0.01)
    for wrong, words in (
        ({"momentum": 0.9}, "only 'sgd' has it"),
        ({"optimizer": "sgd", "nesterov": True}, "but training.momentum is 0: set both"),
        ({"momentum": 1.0, "optimizer": "sgd"}, r"it must be at least 0 and less than 1"),
        ({"milestones": (0.5, 0.2)}, "give rising parts of all steps"),
        ({"milestones": (1.0,)}, "give rising parts of all steps"),
        ({"gamma": 0.0}, r"it must be in \(0, 1\]"),
        ({"clip": 0.0}, "it must be greater than 0"),
        ({"patience": 0}, "it must be 1 or more"),
        ({"warmup": 9, "steps": 8}, "it must be from 0 to the 8 of training.steps"),
    ):
        with pytest.raises(InputError, match=words):
            Training(**wrong)  # type: ignore[arg-type]


def test_a_clipped_gradient_has_the_norm_that_is_allowed(tmp_path: Path) -> None:
    step = {"steps": 1, "val_every": 1, "optimizer": "sgd", "lr": 1.0}
    moved = {}
    start = instantiate(config(BLOBS, training=step)).build()
    for clip in (None, 1e-3):
        run = train_run(config(BLOBS, training={**step, "clip": clip}), tmp_path / str(clip))
        after = instantiate(config(BLOBS, training=step)).build()
        load_checkpoint(run.checkpoint("last"), {"student": after})
        changes = [
            (one - other).flatten()
            for one, other in zip(after.parameters(), start.parameters(), strict=True)
        ]
        moved[clip] = torch.cat(changes).norm().item()
    assert moved[None] > 1e-2 and moved[1e-3] == pytest.approx(1e-3, rel=1e-2)


def test_training_ends_when_patience_is_over_and_resumes_to_the_same(tmp_path: Path) -> None:
    fields = {"steps": 40, "val_every": 2, "patience": 2}
    run = toy_run(tmp_path, (1.0, 3.0, 2.0, 3.0, 9.0), **fields)
    assert (state(run)["step"], state(run)["best_step"]) == (8, 4)
    before = tensors(run.checkpoint("last"))
    assert same(tensors(toy_run(tmp_path, (), resume=True, **fields).checkpoint("last")), before)


@pytest.mark.parametrize(("slow", "wanted"), [("float32", "bfloat16"), ("bfloat16", "float32")])
def test_the_faster_precision_is_taken(
    slow: str, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = instantiate(config(BLOBS))
    clock = 0.0

    def autocast(*_: object, enabled: bool) -> Any:
        nonlocal clock
        clock += 2.0 if (slow == "bfloat16") == enabled else 1.0
        return nullcontext()

    monkeypatch.setattr(stepper.torch, "autocast", autocast)
    monkeypatch.setattr(stepper.time, "perf_counter", lambda: clock)
    model = experiment.build()
    before = [parameter.clone() for parameter in model.parameters()]
    state = torch.get_rng_state()
    found = stepper.faster_precision(model, experiment.problem, torch.device("cpu"))
    ratio = 2.0 if wanted == "bfloat16" else 0.5
    assert found == (wanted, f"a step in bfloat16 is {ratio:.2f} times as fast as in float32 here")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), before, strict=True))


def test_a_run_keeps_the_precision_it_was_begun_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stepper, "faster_precision", lambda *_: ("float32", "so it is"))
    notes: list[str] = []
    auto = config(SINUSOIDS, training={**EIGHT["training"], "precision": "auto"})

    class Notes(training.Progress):
        def note(self, line: str) -> None:
            notes.append(line)

    run = train_run(auto, tmp_path / "auto", progress=Notes())
    assert notes == ["precision float32: so it is"] and state(run)["precision"] == "float32"
    stated = train_run(config(SINUSOIDS, **EIGHT), tmp_path / "stated")
    assert same(tensors(run.checkpoint("last")), tensors(stated.checkpoint("last")))
    monkeypatch.setattr(stepper, "faster_precision", lambda *_: pytest.fail("asked again"))
    train_run(auto, run.path, resume=True)

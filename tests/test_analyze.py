"""Transferability reports: fine-tuning against a plain loop, advice by hand, and the command."""

import copy
import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from omnitraining.analysis import transfer
from omnitraining.analysis.transfer import NEW, STEPS, TRAINED, Transfer
from omnitraining.backbones import Conv4
from omnitraining.cli import main
from omnitraining.datasets.images import LabeledImages
from omnitraining.errors import InputError
from omnitraining.evaluation import ENSEMBLE, Cell, CellKey, Evaluation, Inference
from omnitraining.experiments.figures import transfer_chart
from omnitraining.experiments.figures.transfer_report import advice
from omnitraining.experiments.running import train_run
from omnitraining.heads import LinearClassifier
from omnitraining.io import terminal
from omnitraining.metatraining import ProtoNet
from omnitraining.model import Model, build_model
from omnitraining.omninet import plain
from omnitraining.pretraining import Baseline, BaselinePP
from omnitraining.tasks.classification.problem import EpisodeConfig
from tests.reference.tiny import BLOBS, SINUSOIDS, Blobs, blobs, config

PROTOCOL = EpisodeConfig(ways=3, shots=2, queries=3, batch=8, test_ways=3, test_shots=(1, 2))


def model_of(problem: Blobs, pretraining: Baseline | BaselinePP) -> Model:
    model = build_model("omni-training", lambda: Conv4(1, 4), problem, pretraining, ProtoNet())
    for norm in [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]:
        norm.running_mean.uniform_(-0.1, 0.1)
        norm.running_var.uniform_(0.5, 1.5)
    return model.eval()


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("pretraining", [Baseline(), BaselinePP()])
@pytest.mark.parametrize("flow", ["pre", "joint", "meta"])
def test_fine_tuning_is_gradient_descent_in_every_task(
    flow: str, pretraining: Baseline | BaselinePP
) -> None:
    problem = Blobs(PROTOCOL)
    model = model_of(problem, pretraining).double()
    images = problem.benchmarks["blobs"]
    tasks = problem.fixed_tasks(images, 3, 2, 4)
    backbone = transfer._backbone(model, flow)
    episode = problem.test_episode(images, tasks)
    found = torch.stack([*transfer._tuned_logits(model, backbone, episode, 0.5)])
    for task in range(4):
        x, y = episode.support_x[task], episode.support_y[task]
        network = copy.deepcopy(backbone)
        head = pretraining.fit(nn.Identity(), network(x)[None].detach(), y[None], 3)
        assert isinstance(head, LinearClassifier)
        for name, buffer in list(head.named_buffers()):
            delattr(head, name)
            head.register_parameter(name, nn.Parameter(buffer))
        descent = torch.optim.SGD([*network.parameters(), *head.parameters()], 0.5)
        for step in range(STEPS[-1] + 1):
            if step in STEPS:
                wanted = head(network(episode.query_x[task])[None])[0]
                torch.testing.assert_close(found[STEPS.index(step), task], wanted)
            descent.zero_grad()
            nn.functional.cross_entropy(head(network(x)[None])[0], y).backward()
            descent.step()
    assert not torch.allclose(found[0], found[-1])


def test_accuracy_is_that_of_the_logits() -> None:
    problem = Blobs(PROTOCOL)
    model, images = model_of(problem, Baseline()), problem.benchmarks["blobs"]
    tasks, backbone = problem.fixed_tasks(images, 3, 2, 25), transfer._backbone(model, "pre")
    found = transfer.fine_tuned(problem, model, backbone, images, tasks, 0.1)
    episode = problem.test_episode(images, tasks)
    with torch.no_grad():
        logits = torch.stack([*transfer._tuned_logits(model, backbone, episode, 0.1)])
    hits = (logits.argmax(-1) == episode.query_y).float().mean(-1)
    torch.testing.assert_close(found, 100 * hits)
    assert found.shape == (len(STEPS), 25)  # of more than one batch of tasks


@pytest.fixture
def _one_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of fine-tuning, to save time; how it is chosen has a test of its own."""
    monkeypatch.setattr(transfer, "RATES", (0.1,))


@pytest.mark.usefixtures("_one_rate")
def test_runs_are_fine_tuned_flow_by_flow_and_as_an_ensemble() -> None:
    problem = Blobs(PROTOCOL)
    model, images = model_of(problem, Baseline()), problem.benchmarks["blobs"]
    found = transfer.tuned(problem, model, Inference(flows=("pre", "meta")), 4)
    names = [CellKey("blobs", 3, k, steps) for k in (1, 2) for steps in STEPS]
    assert [*found.cells] == names
    tasks = problem.fixed_tasks(images, 3, 2, 4)
    parts = {}
    for flow in ("pre", "joint", "meta"):
        # With plain layers: to move joint and branch weights each by the rate would be twice it.
        backbone = plain(transfer._backbone(model, flow)).eval()
        rate = transfer.chosen_rate(problem, model, backbone, 4)
        parts[flow] = transfer.tuned_probabilities(problem, model, backbone, images, tasks, rate)
        wanted = transfer.fine_tuned(problem, model, backbone, images, tasks, rate)
        for place, name in enumerate(names[3:]):
            assert found.cells[name].scores[flow] == pytest.approx(wanted[place].tolist())
    labels = problem.test_episode(images, tasks).query_y
    vote = (parts["pre"] + parts["meta"]).argmax(-1)
    for place, name in enumerate(names[3:]):
        hits = (vote[place] == labels).float().mean(-1) * 100
        assert found.cells[name].scores[ENSEMBLE] == pytest.approx(hits.tolist())


def test_measuring_changes_neither_the_problem_nor_the_model() -> None:
    problem = Blobs(PROTOCOL)
    model, own = model_of(problem, Baseline()), blobs(4, 5, "mine", 9)
    weights = copy.deepcopy(model.state_dict())
    found = transfer.measure(problem, model, Inference(), own, 6, 3)
    assert problem.protocol == PROTOCOL
    assert [*problem.benchmarks] == ["blobs"]
    assert all(torch.equal(weights[name], w) for name, w in model.state_dict().items())
    assert found.flows == ("pre", "joint", "meta")
    assert len(found.frozen.cells) == 6
    for place in (TRAINED, NEW, "mine"):
        assert len(found.frozen_cell(place, 1).scores[ENSEMBLE]) == 6
    assert len(found.tuned_cell(2, STEPS[-1]).scores["meta"]) == 3


def test_frozen_results_equal_an_evaluation() -> None:
    problem = Blobs(PROTOCOL)
    model = model_of(problem, Baseline())
    found = transfer.measure(problem, model, Inference(), problem.benchmarks["blobs"], 6, 0)
    own = problem.benchmarks["blobs"]
    for shots in (1, 2):
        wanted = problem.evaluate(model, Inference(), 6).cells[CellKey("blobs", 3, shots)]
        assert found.frozen_cell(own.name, shots) == wanted


def test_images_trained_on_are_counted() -> None:
    problem = Blobs(PROTOCOL)
    own = copy.copy(problem.benchmarks["blobs"])
    images = own.images.clone()
    images[:3] = problem.training[0].images[5:8]
    mixed = LabeledImages(images, own.labels, own.classes, "mine")
    with pytest.warns(UserWarning, match=r"trained on 3 of the 96 images of mine: results"):
        transfer.measure(problem, model_of(problem, Baseline()), Inference(), mixed, 2, 0)


def test_rates_are_chosen_on_validation_images(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Blobs(PROTOCOL)
    model, own = model_of(problem, Baseline()), blobs(4, 5, "mine", 9)
    asked: list[tuple[str, float]] = []

    def tuned(_: object, __: object, ___: object, images: LabeledImages, tasks: object,
              rate: float) -> torch.Tensor:  # fmt: skip
        asked.append((images.name, rate))
        best = {"b": 0.1, "mine": 1.0}[images.name]  # elsewhere another rate would be best
        return torch.full((len(STEPS), 3), 90.0 if rate == best else 10.0)

    monkeypatch.setattr(transfer, "fine_tuned", tuned)
    transfer.measure(problem, model, Inference(), own, 6, 3)
    assert {rate for name, rate in asked if name == "b"} == {*transfer.RATES}
    assert {rate for name, rate in asked if name == "mine"} == {0.1}


@pytest.mark.parametrize(
    ("images", "shots", "queries"), [(12, (1, 2), 3), (4, (1, 2), 2), (2, (1,), 1)]
)
def test_tasks_fit_the_images_that_there_are(
    images: int, shots: tuple[int, ...], queries: int
) -> None:
    judged = transfer.for_images(Blobs(PROTOCOL), blobs(3, images, "mine"))
    assert (judged.protocol.test_shots, judged.protocol.queries) == (shots, queries)


@pytest.mark.parametrize(
    ("classes", "images", "message"),
    [(1, 5, "mine has 1 class: two or more"), (3, 1, "class 'mine0' of mine has 1 image: ")],
)
def test_images_that_make_no_task_are_refused(classes: int, images: int, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        transfer.for_images(Blobs(PROTOCOL), blobs(classes, images, "mine"))


@pytest.mark.usefixtures("_one_rate")
def test_fine_tuning_that_would_take_too_long_is_cut(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal.Pace, "FIRST", 0.0)
    problem, own = Blobs(PROTOCOL), blobs(4, 5, "mine", 9)
    parts = problem, model_of(problem, Baseline()), Inference(), own, 6, 6
    with pytest.warns(UserWarning, match=r"on 6 tasks would take about .*: it is left out; --tun"):
        found = transfer.measure(*parts, minutes=0.0)
    assert not found.tuned.cells and found.flows == ("pre", "joint", "meta")
    assert not any("fine-tuning" in sentence for sentence in advice(found))
    assert transfer_chart.draw(found, tmp_path / "a.png").is_file()
    assert "fine-tuning: " not in capsys.readouterr().err
    whole = transfer.measure(*parts, minutes=1e6)
    assert len(whole.tuned_cell(1, 10).scores["pre"]) == 6
    assert "fine-tuning: 1 of 9, " in capsys.readouterr().err


# --- advice ---


def made_up(own: dict[str, list[float]], tuned: list[list[float]]) -> Transfer:
    """Results of one shot; results on other images are far off, so that they cannot be mixed up."""
    far = {head: [5.0, 5.0] for head in own}
    frozen = {CellKey(TRAINED, 5, 1): far, CellKey(NEW, 5, 1): far, CellKey("mine", 5, 1): own}
    flows = [head for head in own if head != ENSEMBLE]
    after = {
        CellKey("mine", shots=1, steps=steps): dict.fromkeys(flows, scores)
        for steps, scores in zip(STEPS, tuned, strict=True)
    }
    evaluations = (
        Evaluation("accuracy %", True, {n: Cell("", scores) for n, scores in cells.items()})
        for cells in (frozen, after)
    )
    return Transfer("mine", (1,), *evaluations)


SAME = [[50.0, 60.0]] * 3


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (
            {"pre": [70.0, 72.0], "meta": [60.0, 61.0], ENSEMBLE: [80.0, 82.0]},
            "use the ensemble, 81.0 ± 1.4 %; the best flow alone, pre, is below it by 10.0 ± 0.0",
        ),
        (
            {"pre": [70.0, 72.0], "meta": [60.0, 61.0], ENSEMBLE: [69.0, 74.0]},
            "use the pre-flow, 71.0 ± 1.4 %; the ensemble, 71.5 ± 3.5 %, costs 2 times as much "
            "and is not significantly better (0.5 ± 2.1 points)",
        ),
        (
            {"pre": [70.0, 72.0], "meta": [80.0, 81.0], ENSEMBLE: [75.0, 76.0]},
            "use the meta-flow, 80.5 ± 0.7 %; no other is better",
        ),
        ({"pre": [70.0, 72.0], ENSEMBLE: [70.0, 72.0]}, "use the pre-flow, 71.0 ± 1.4 %"),
    ],
)
def test_the_flow_to_use_is_the_cheapest_that_is_as_good(
    own: dict[str, list[float]], said: str
) -> None:
    first, *_ = advice(made_up(own, SAME))
    assert first.startswith("With 1 image per class: ")
    assert said in first


@pytest.mark.parametrize(
    ("tuned", "said"),
    [
        ([[50.0, 60.0], [51.0, 60.0], [53.0, 63.0]], "pays (+3.0 ± 0.0 points for the pre-flow)"),
        ([[50.0, 60.0], [50.0, 60.0], [47.0, 57.0]], "does not pay (-3.0 ± 0.0 points"),
        ([[50.0, 60.0], [50.0, 60.0], [50.0, 64.0]], "does not pay (+2.0 ± 2.8 points"),
    ],
)
def test_fine_tuning_pays_if_its_gain_is_certain(tuned: list[list[float]], said: str) -> None:
    own = {"pre": [70.0, 72.0], ENSEMBLE: [70.0, 72.0]}
    assert said in advice(made_up(own, tuned))[1]


# --- the command ---


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_run(config(BLOBS), tmp_path_factory.mktemp("runs") / "blobs").path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("my photos")
    images = blobs(4, 6, "kind ", seed=9)
    for number, (pixels, label) in enumerate(zip(images.images, images.labels, strict=True)):
        place = folder / images.classes[label]
        place.mkdir(exist_ok=True)
        Image.fromarray(pixels[0].numpy()).save(place / f"{number}.png")
    return folder


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNITRAINING_CACHE", str(tmp_path / "cache"))


def test_the_command_recommends_a_flow(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "new folder" / "report.png"
    few = ["--tasks", "5", "--tuned-tasks", "2"]
    command = ["analyze", str(run), "--data", str(photos), "--out", str(picture), *few, "--trust"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert f"{photos.name} 4-way 2-shot" in printed
    assert "- With 1 image per class: use the " in printed
    with Image.open(picture) as drawn:
        assert drawn.size > (600, 300)
    record = json.loads(picture.with_suffix(".json").read_text())
    assert all(f"- {sentence}" in printed for sentence in record["advice"])
    for cell in (*record["frozen"].values(), *record["fine_tuned"].values()):
        assert all(0 <= head["mean"] <= 100 for head in cell.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "report.pdf"], "--out is report.pdf: it must end in .png"),
        (["--tasks", "5"], "--tasks is 5 and --tuned-tasks 40: the second must be 2 or more"),
        (["--tasks", "5", "--tuned-tasks", "1"], "--tuned-tasks 1: the second must be 2 or more"),
    ],
)
def test_wrong_options_are_named(
    run: Path,
    photos: Path,
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["analyze", str(run), "--data", str(photos), "--trust", *options]) == 2
    assert message in capsys.readouterr().err


def test_only_classification_is_analyzed(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_run(config(SINUSOIDS), tmp_path / "waves")
    assert main(["analyze", str(tmp_path / "waves"), "--data", str(photos)]) == 2
    assert "is of Sinusoids, not of image classification" in capsys.readouterr().err

"""Pictures of policies: curves, paths, filmstrips, and the command that draws them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from omnitraining.cli import main
from omnitraining.config.run_config import instantiate, load_run
from omnitraining.experiments.figures import adaptation_curves, cheetah_strip, navigation_paths
from omnitraining.experiments.record import Record, from_json
from omnitraining.experiments.running import train_run
from omnitraining.runs.run import Run
from omnitraining.tasks.reinforcement.half_cheetah import Physics
from omnitraining.tasks.reinforcement.problem import TEST_SEED, Reinforcement
from tests.reference.tiny import NAVIGATION, SINUSOIDS, config

CHEETAH: dict[str, Any] = {
    "problem": {
        "init_args": {
            "environment": {"class_path": "HalfCheetahDirection", "init_args": {"horizon": 6}},
            "tasks": 2,
            "trajectories": 2,
            "validation_tasks": 2,
        }
    },
    "backbone": {"init_args": {"inputs": 17}},
    "training": {"steps": 0},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Untrained runs; not to be changed."""
    folder = tmp_path_factory.mktemp("runs")
    choices = {
        "navigation": config(NAVIGATION, training={"steps": 0}),
        "cheetah": config(NAVIGATION, **CHEETAH),
        "sinusoids": config(SINUSOIDS, training={"steps": 0}),
    }
    return {name: train_run(choice, folder / name).path for name, choice in choices.items()}


@pytest.mark.parametrize(
    ("name", "module"), [("navigation", navigation_paths), ("cheetah", cheetah_strip)]
)
def test_the_command_draws_a_flow_after_steps_of_the_results(
    name: str, module: Any, runs: dict[str, Path], tmp_path: Path
) -> None:
    out, run = tmp_path / "picture.png", Run(runs[name])
    assert main(["watch", str(run.path), "--out", str(out), "--flow", "meta", "--steps", "1"]) == 0
    run_config = load_run(run)
    problem, model = run_config.problem, run_config.ready(run)
    assert isinstance(problem, Reinforcement)
    rates = problem.test_rates(model, "meta")[:1]
    expected = module.draw(problem, model, "meta", rates, tmp_path / "expected.png")
    assert out.read_bytes() == expected.read_bytes()


def test_paths_of_navigation_are_the_trajectories_before_their_end() -> None:
    experiment = instantiate(config(NAVIGATION))
    problem, model = experiment.problem, experiment.build()
    assert isinstance(problem, Reinforcement)
    rates = [0.1, 0.05]
    figure = navigation_paths.paths(problem, model, "meta", rates)
    tasks, random = problem.fixed_tests(5), torch.Generator().manual_seed(TEST_SEED)
    rollouts = problem.adaptation(model, "meta", tasks, rates, random)
    assert len(figure.axes) == 3
    for axes, (trajectories, _) in zip(figure.axes, rollouts, strict=True):
        drawn = [torch.tensor(line.get_xydata()).float() for line in axes.lines]
        expected = []
        for states, valid, goal in zip(trajectories.states, trajectories.valid, tasks, strict=True):
            expected += [s[v] for s, v in zip(states[:3], valid[:3], strict=True)] + [goal[None]]
        expected.append(torch.zeros(1, 2))  # where all start
        assert len(drawn) == len(expected)
        assert all(torch.equal(a, b) for a, b in zip(drawn, expected, strict=True))
        assert f"{trajectories.returns().mean():.3g}" in axes.get_title()


def test_a_strip_shows_the_body_at_evenly_spaced_moments() -> None:
    skeleton = cheetah_strip._Skeleton(Physics())
    positions = np.random.default_rng(0).normal(size=(2, 11, 9))
    shots = [("before", positions[0]), ("after", positions[1])]
    figure = cheetah_strip._strip(skeleton, shots, "title")
    assert len(figure.axes) == 12
    for index, axes in enumerate(figure.axes):
        shown = positions[index // 6, 2 * (index % 6)]
        outlines = [polygon.get_xy()[:-1] for polygon in axes.patches[1:]]  # after the ground
        np.testing.assert_allclose(outlines, skeleton.outlines(shown))
        assert axes.get_xlim() == pytest.approx((shown[0] - 1.2, shown[0] + 1.2))
        assert axes.get_title().startswith(f"{index % 6 / 10:.1f} s")


def test_a_cheetah_moves_in_the_time_of_the_simulation(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "cheetah.gif"
    assert main(["watch", str(runs["cheetah"]), "--out", str(out), "--steps", "1"]) == 0
    assert capsys.readouterr().out == f"picture: {out}\n"
    with Image.open(out) as image:
        assert image.format == "GIF" and image.n_frames == 4  # 0, 0.1, 0.2 and 0.3 seconds
        assert image.info["duration"] == 100


@pytest.mark.parametrize(
    ("run", "arguments", "words"),
    [
        ("navigation", ["--out", "a.gif"], "paths of Navigation do not move; give a .png"),
        ("navigation", ["--out", "a.mp4"], "--out is a.mp4: it must end in .png or .gif"),
        ("navigation", ["--out", "a.png", "--steps", "3"], "--steps is 3: it must be from 1 to 2"),
        ("navigation", ["--out", "a.png", "--flow", "x"], "has no flow 'x': pre, joint, meta"),
        ("cheetah", ["--out", "a.png", "--task", "20"], "--task is 20: it must be from 0 to 19"),
        ("sinusoids", ["--out", "a.png"], "is not a run on Navigation or a HalfCheetah"),
    ],
)
def test_what_cannot_be_drawn_is_reported_in_a_line(
    run: str,
    arguments: list[str],
    words: str,
    runs: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["watch", str(runs[run]), *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and words in captured.err
    assert not Path(arguments[1]).exists()


def test_the_recorded_positions_are_of_the_adaptation() -> None:
    experiment = instantiate(config(NAVIGATION, **CHEETAH))
    problem, model = experiment.problem, experiment.build()
    assert isinstance(problem, Reinforcement)
    recorder = cheetah_strip._Recorder(problem.environment)  # type: ignore[arg-type]
    goal = problem.fixed_tests(1)
    (plain, _), _ = problem.adaptation(model, "meta", goal, [0.1], torch.Generator())
    problem.environment = recorder
    (recorded, _), *_ = problem.adaptation(model, "meta", goal, [], torch.Generator())
    assert torch.equal(plain.states, recorded.states)
    # States are all positions but that along the ground, before velocities.
    positions = np.stack(recorder.positions)
    assert positions.shape == (7, 9)
    np.testing.assert_allclose(positions[:-1, 1:], recorded.states[0, 0, :, :8], rtol=1e-6)


def test_outlines_equal_the_body_s() -> None:
    physics = Physics()
    skeleton = cheetah_strip._Skeleton(physics)
    assert len(skeleton.names) == 8 and {"torso", "head"} <= set(skeleton.names)
    at_rest = np.concatenate(skeleton.outlines(physics.rest))
    shifted = physics.rest.copy()
    shifted[0] += 2.5
    outlines = np.concatenate(skeleton.outlines(shifted))
    np.testing.assert_allclose(outlines - at_rest, np.tile([2.5, 0], (len(at_rest), 1)), atol=1e-12)
    # The torso is a capsule of radius 0.046, 1 metre from end to end of its axis, level, 0.7 high.
    torso = skeleton.outlines(physics.rest)[skeleton.names.index("torso")]
    np.testing.assert_allclose(np.ptp(torso, axis=0), [1.092, 0.092], atol=1e-3)
    np.testing.assert_allclose(torso[:, 1].mean(), 0.7, atol=1e-6)


def record(environments: int, rows: int) -> Record:
    """Curves of every row; the first has three flows, and only the last lacks an environment."""

    def cell(row: int, step: int) -> dict[str, Any]:
        names = ("pre", "joint", "meta", "ensemble") if row == 0 else ("meta", "ensemble")
        return {
            "tasks": "h",
            "heads": {n: {"mean": -20 / (step + 1) - row, "interval": 0.5} for n in names},
        }

    values = {
        "experiment": "curves", "title": "Curves", "paper": "", "command": "omni", "unit": "return",
        "higher_is_better": True, "tasks": 9, "seeds": 1,
        "reference": "row 0",
        "rows": {
            f"row {row}": {
                "cells": {
                    f"env-{e} {step} steps": cell(row, step)
                    for e in range(environments - (row == rows - 1 > 0))
                    for step in range(5)
                }
            }
            for row in range(rows)
        },
    }  # fmt: skip
    return from_json(values)


@pytest.mark.parametrize(("environments", "rows"), [(1, 1), (4, 6)])
def test_curves_are_the_means_of_every_row_and_of_the_flows_of_the_reference(
    environments: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(adaptation_curves, "save", lambda figure, path: figures.append(figure))
    adaptation_curves.draw(record(environments, rows), None, Path("curves.png"))
    (figure,) = figures
    assert [axes.get_title() for axes in figure.axes] == [f"env-{e}" for e in range(environments)]
    for axes in figure.axes:
        in_panel = rows - (axes is figure.axes[-1] and rows > 1)
        means = [[-20 / (step + 1) - row for step in range(5)] for row in range(in_panel)]
        assert [list(line.get_ydata()) for line in axes.lines] == [means[0]] * 4 + means[1:]
        assert [list(line.get_xdata()) for line in axes.lines] == [[0, 1, 2, 3, 4]] * (in_panel + 3)
    assert len(figure.legends[0].get_texts()) == rows + 3


def test_moments_in_words() -> None:
    words = [navigation_paths.moment(count) for count in range(3)]
    assert words == ["before adaptation", "after 1 step", "after 2 steps"]

"""Recipes take over the choices that they name, and nothing else."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from omnitraining import cli
from omnitraining.config.recipes import recipes, with_recipe
from omnitraining.config.run_config import dump, instantiate, parse, read_config
from omnitraining.errors import InputError
from omnitraining.experiments.experiment import find_experiment
from omnitraining.experiments.reproduction import plan
from omnitraining.metatraining import GNN, MatchingNet, ProtoNet
from omnitraining.pretraining import SGDHead
from omnitraining.tasks.reinforcement.problem import Reinforcement

GLYPHS = {"problem": {"class_path": "Glyphs"}, "backbone": {"class_path": "Conv4"}}


def test_the_paper_s_recipe_is_what_the_paper_says() -> None:
    config = read_config(Path("glyphs.yaml"), ["--recipe", "paper", "--training.steps", "7"])
    made = instantiate(config)
    assert made.metatraining == ProtoNet(metric="distance", scale=1.0)  # eq. 20
    assert made.pretraining.new_head == SGDHead()
    assert (made.loss.distill_weight, made.loss.ema_decay, made.loss.distill_target) == (
        3.0,
        0.99,
        "outputs",
    )
    assert (made.training.optimizer, made.training.lr) == ("adam", 1e-3)
    assert made.inference.flows == ("pre", "joint", "meta") and made.inference.joint_head == "pre"
    assert made.omninet.shared_until is None, "every layer is an Omni-Layer"
    # What it does not name stays: sizes of the file, steps of the command line.
    own = instantiate(read_config(Path("glyphs.yaml"), []))
    assert made.training.steps == 7 and made.training.val_every == own.training.val_every
    assert made.backbone().state_dict().keys() == own.backbone().state_dict().keys()


@pytest.mark.parametrize("name", ["glyphs", "photos", "sinusoids", "navigation"])
def test_it_fits_every_kind_of_problem(name: str) -> None:
    config = read_config(Path(f"{name}.yaml"), ["--recipe=paper"])
    again = parse(yaml.safe_load(dump(config)))
    assert dump(again) == dump(config), "a resolved configuration has fields, and no recipe"
    assert config.loss.distill_weight == 3.0
    assert config.loss.branch_at == config.loss.meta_at == config.training.decay_from == 0
    if name == "navigation":
        made = instantiate(config)
        assert isinstance(made.problem, Reinforcement)
        assert made.problem.rates == "stated" and made.training.lr == 0.03
        assert made.pretraining.lr == made.metatraining.lr == 0.1
        assert made.problem.gae_lambda == 1 and made.problem.environment.scale == 0.1


@pytest.mark.parametrize(
    ("environment", "scale"),
    [
        ("Navigation", 0.1),
        ({"class_path": "omnitraining.Navigation", "init_args": {"scale": 0.5, "horizon": 9}}, 0.1),
        ({"class_path": "HalfCheetahVelocity", "init_args": {"horizon": 9}}, None),
        ("mine.Maze", None),
        (None, None),
        (3, None),
    ],
)
def test_a_simulator_takes_its_options_of_the_recipe_and_keeps_its_others(
    environment: Any, scale: float | None
) -> None:
    problem = {"class_path": "Reinforcement", "init_args": {"environment": environment}}
    found = with_recipe({"problem": problem, "recipe": "paper"})["problem"]["init_args"][
        "environment"
    ]
    if scale is None:
        assert found == environment
        return
    assert found["init_args"].pop("scale") == scale
    written = environment if isinstance(environment, dict) else {"class_path": environment}
    kept = {**written.get("init_args", {})}
    kept.pop("scale", None)
    assert found == {"class_path": written["class_path"], "init_args": kept}


def test_the_command_line_wins_over_the_recipe_and_the_recipe_over_the_file(
    tmp_path: Path,
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({**GLYPHS, "recipe": "paper", "loss": {"distill_weight": 0.5}}))
    assert read_config(file, []).loss.distill_weight == 3.0
    assert read_config(file, ["--loss.distill_weight", "2"]).loss.distill_weight == 2.0
    assert read_config(file, ["--recipe", "own"]).loss.distill_weight == 0.5


def test_algorithms_keep_options_that_the_recipe_does_not_name() -> None:
    matching = {"class_path": "MatchingNet", "init_args": {"scale": 5.0, "steps": 2}}
    made = instantiate(parse(with_recipe({**GLYPHS, "metatraining": matching, "recipe": "paper"})))
    assert made.metatraining == MatchingNet()
    gnn = {"class_path": "omnitraining.GNN", "init_args": {"width": 8}}
    made = instantiate(parse(with_recipe({**GLYPHS, "metatraining": gnn, "recipe": "paper"})))
    assert made.metatraining == GNN(width=8)


@pytest.mark.parametrize("wrong", ["papers", 3, None, ["paper"], {"paper": 1}])
def test_unknown_recipes_are_refused_in_one_line(wrong: object) -> None:
    with pytest.raises(InputError, match="choose from own, paper") as caught:
        with_recipe({**GLYPHS, "recipe": wrong})
    assert "\n" not in str(caught.value)


def test_a_recipe_without_a_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "glyphs.yaml", "--recipe"]) == 2
    assert "--recipe has no value: give it as --recipe paper" in capsys.readouterr().err


def test_rows_of_experiments_have_recipes() -> None:
    experiment = find_experiment("photo-table2")
    assert experiment.rows["omni-proto-paper"]["recipe"] in recipes()


@pytest.mark.parametrize("name", ["table2", "table3", "table4", "table5"])
def test_the_first_row_of_every_full_size_table_has_the_recipe_of_the_paper(name: str) -> None:
    data = {"problem": {"init_args": {"data": "anywhere"}}}
    for job in plan(find_experiment(name), Path("runs"), [0], data=data):
        if job.row == "omni-proto":
            values = {**job.values, "recipe": "paper"}
            assert parse(job.values) == parse(with_recipe(values)), job.setting

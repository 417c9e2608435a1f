"""Environments: rewards by hand, HalfCheetah against Gymnasium's, any Gymnasium environment."""

import importlib
import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from torch import Tensor

from omnitraining.errors import InputError
from omnitraining.policies.gaussian import log_prob
from omnitraining.tasks.reinforcement.environment import Environment, checked_tasks
from omnitraining.tasks.reinforcement.gymnasium_tasks import GymnasiumTasks
from omnitraining.tasks.reinforcement.half_cheetah import (
    HalfCheetah,
    HalfCheetahDirection,
    HalfCheetahVelocity,
)
from omnitraining.tasks.reinforcement.navigation import Navigation
from omnitraining.tasks.reinforcement.trajectories import rollout
from tests.reference import gym_cheetah


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- navigation ---


@pytest.mark.parametrize(
    ("reward", "expected"), [("squared", [-0.25, -0.04]), ("distance", [-0.5, -0.2])]
)
def test_navigation_moves_by_at_most_a_tenth_and_pays_minus_the_distance(
    reward: Any, expected: list[float]
) -> None:
    env = Navigation(reward)
    assert env.reset(torch.tensor([[0.4, -0.4], [0.3, 0.0]]), generator()).tolist() == [[0, 0]] * 2
    states, rewards, ends = env.step(torch.tensor([[0.5, -3.0], [7.0, 0.0]]))
    # 0.05 of the way to the right and 0.1 down; then 0.35 and 0.3 are missing: 0.4610 in all.
    torch.testing.assert_close(states, torch.tensor([[0.05, -0.1], [0.1, 0.0]]))
    missing = [math.hypot(0.35, 0.3), 0.2]
    power = 2 if reward == "squared" else 1
    assert rewards.tolist() == pytest.approx([-(m**power) for m in missing], rel=1e-6)
    assert not ends.any()
    states, rewards, ends = env.step(torch.tensor([[0.5, 0.0], [1.0, 0.0]]))
    assert rewards[1].item() == pytest.approx(-(0.1**power), rel=1e-5)


def test_navigation_ends_where_both_coordinates_are_near_the_goal() -> None:
    env = Navigation(scale=1.0)
    goals = torch.tensor([[0.05, 0.05], [0.05, 0.05], [0.05, 0.05]])
    env.reset(goals, generator())
    _, _, ends = env.step(torch.tensor([[0.059, 0.041], [0.05, 0.061], [0.0, 0.05]]))
    assert ends.tolist() == [True, False, False]


def test_goals_are_uniform_in_a_square_around_the_start() -> None:
    goals = Navigation().sample_tasks(5000, generator())
    assert goals.shape == (5000, 2) and goals.abs().max() <= 0.5
    shares = torch.histc(goals, 10, -0.5, 0.5) / goals.numel()
    assert (shares - 0.1).abs().max() < 5 * (0.09 / goals.numel()) ** 0.5


@pytest.mark.parametrize("count", [1, 2, 3, 5, 10, 12, 25, 40])
def test_spread_goals_are_centers_of_cells_of_equal_area(count: int) -> None:
    goals = Navigation().spread_tasks(count, generator()).double()
    assert goals.shape == (count, 2) and goals.abs().max() < 0.5
    assert len(goals.unique(dim=0)) == count
    torch.testing.assert_close(goals.mean(0), torch.zeros(2).double(), atol=1e-6, rtol=0)
    rows = goals[:, 1].unique()
    bottom = -0.5
    for y in rows.tolist():
        x = goals[goals[:, 1] == y, 0]
        torch.testing.assert_close(x, (torch.arange(len(x)) + 0.5).double() / len(x) - 0.5)
        height = 2 * (y - bottom)
        assert height / len(x) == pytest.approx(1 / count, rel=1e-4)  # the area of a cell
        assert 0.3 < height * len(x) < 3.1  # cells are no strips
        bottom += height
    assert bottom == pytest.approx(0.5)


def test_goals_are_not_spread_where_a_subclass_draws_others() -> None:
    class Corner(Navigation):
        def sample_tasks(self, count: int, random: torch.Generator) -> Tensor:
            return torch.full((count, 2), 0.4)

    class Corners(Corner):
        def spread_tasks(self, count: int, random: torch.Generator) -> Tensor:
            return torch.full((count, 2), 0.3)

    values = [
        checked_tasks(kind(), 3, generator(), spread=True).unique().tolist()
        for kind in (Corner, Corners)
    ]
    assert values == [[pytest.approx(0.4)], [pytest.approx(0.3)]]


@pytest.mark.parametrize("options", [{"scale": 0}, {"horizon": 0}, {"scale": -1.0}])
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"environment.scale is .* and environment.horizon"):
        Navigation(**options)


# --- HalfCheetah ---


@pytest.fixture
def gym_env(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.chdir(tmp_path)  # MuJoCo's log lies where it is called
    return gym_cheetah.make(monkeypatch)


def test_ten_steps_of_every_copy_equal_gymnasium_s(gym_env: Any) -> None:
    """From the same states and by the same actions, some of them beyond the bounds."""
    env, copies = HalfCheetahVelocity(control_cost=0.1), 3
    tasks = torch.zeros(copies)
    states = [env.reset(tasks, generator(5))]
    start = env.physics.positions.copy(), env.physics.velocities.copy()
    actions = 2 * torch.randn(10, copies, 6, generator=generator(6))
    steps = [env.step(a) for a in actions]
    states += [s for s, _, _ in steps]
    for copy in range(copies):
        gym_env.reset(seed=0)
        gym_env.set_state(start[0][copy], start[1][copy])
        torch.testing.assert_close(
            states[0][copy].double(), torch.from_numpy(gym_env._get_obs()), rtol=1e-6, atol=1e-7
        )
        for t in range(10):
            clipped = actions[t, copy].clamp(-1, 1).double().numpy()
            observation, reward, terminated, truncated, info = gym_env.step(clipped)
            torch.testing.assert_close(
                states[t + 1][copy].double(), torch.from_numpy(observation), rtol=1e-6, atol=1e-6
            )
            # Its reward is v - 0.1 |a|^2, ours here -|v - 0| - 0.1 |a|^2.
            expected = reward - info["x_velocity"] - abs(info["x_velocity"])
            assert steps[t][1][copy].item() == pytest.approx(expected, abs=1e-5)
            assert not (terminated or truncated or steps[t][2][copy])
    # In float64 there is no difference to speak of at all.
    np.testing.assert_allclose(
        np.concatenate([env.physics.positions[-1], env.physics.velocities[-1]]),
        np.concatenate([gym_env.data.qpos, gym_env.data.qvel]),
        atol=1e-9,
    )


def test_starts_equal_the_starts_of_gymnasium_s_cheetah() -> None:
    env = HalfCheetahDirection(horizon=1)
    states = env.reset(torch.ones(2000), generator())
    positions, velocities = env.physics.positions, env.physics.velocities
    assert states.shape == (2000, 17) and np.abs(positions).max() <= 0.1
    assert positions.std() == pytest.approx(0.2 / 12**0.5, rel=0.02)
    assert velocities.std() == pytest.approx(0.1, rel=0.02)


def test_rewards_of_the_cheetah_by_hand() -> None:
    velocity, direction = HalfCheetahVelocity(horizon=1), HalfCheetahDirection(horizon=1)
    actions = torch.tensor([[1.0, 0, 0, 0, 0, 0], [-2.0, 0.5, 0, 0, 0, 0]])
    costs = torch.tensor([0.05, 0.05 * 1.25])  # after clipping
    for env, tasks in (
        (velocity, torch.tensor([0.5, 1.5])),
        (direction, torch.tensor([1.0, -1])),
    ):
        env.reset(tasks, generator())
        before = env.physics.positions[:, 0].copy()
        _, rewards, _ = env.step(actions)
        speeds = torch.from_numpy((env.physics.positions[:, 0] - before) / 0.05).float()
        gained = -(speeds - tasks).abs() if env is velocity else tasks * speeds
        torch.testing.assert_close(rewards, gained - costs)


def test_tasks_of_the_cheetah_are_speeds_and_directions() -> None:
    speeds = HalfCheetahVelocity().sample_tasks(2000, generator())
    assert speeds.shape == (2000,) and speeds.min() >= 0 and speeds.max() <= 2
    assert speeds.mean().item() == pytest.approx(1, abs=0.05)


def test_spread_speeds_are_centers_of_equal_parts() -> None:
    speeds = HalfCheetahVelocity().spread_tasks(4, generator())
    assert speeds.tolist() == [0.25, 0.75, 1.25, 1.75]
    directions = HalfCheetahDirection().spread_tasks(10, generator())
    assert sorted(directions.tolist()) == [-1.0] * 5 + [1.0] * 5


def test_directions_are_as_many_of_each() -> None:
    environment = HalfCheetahDirection()
    drawn = [environment.sample_tasks(9, generator(seed)) for seed in range(200)]
    tasks = torch.stack(drawn)
    assert set(tasks.flatten().tolist()) == {-1.0, 1.0}
    assert set(tasks.sum(1).tolist()) == {-1.0, 1.0}
    assert tasks.mean(0).abs().max() < 0.25  # each direction is equally likely
    assert environment.sample_tasks(2000, generator()).sum() == 0


@pytest.mark.parametrize("options", [{"control_cost": -0.1}, {"horizon": 0}])
def test_impossible_cheetahs_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"environment.control_cost is .* and environment.horizon"):
        HalfCheetahVelocity(**options)


def missing(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Make packages look as if they were not installed."""

    def gone(name: str) -> Any:
        if name.split(".")[0] in names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return importlib.import_module(name)

    for module in ("half_cheetah", "gymnasium_tasks"):
        monkeypatch.setattr(f"omnitraining.tasks.reinforcement.{module}.import_module", gone)


@pytest.mark.parametrize("kind", [HalfCheetahVelocity, HalfCheetahDirection])
def test_without_mujoco_there_is_a_hint_in_one_line(
    kind: type[HalfCheetah], monkeypatch: pytest.MonkeyPatch
) -> None:
    missing(monkeypatch, "mujoco")
    with pytest.raises(InputError) as error:
        kind()
    assert str(error.value) == (
        "HalfCheetah needs MuJoCo 3.17 or newer and Gymnasium: pip install 'omnitraining[rl]'"
    )


def test_without_gymnasium_there_is_a_hint_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    missing(monkeypatch, "gymnasium")
    with pytest.raises(InputError, match=r"GymnasiumTasks needs Gymnasium: pip install '"):
        GymnasiumTasks(SyncVectorEnv, lambda n, _: torch.zeros(n), 5)


# --- any Gymnasium environment ---


class Line(gymnasium.Env[Any, Any]):
    """A point on a line that is rewarded near ``task``; the episode ends there, or beyond 3."""

    observation_space = Box(-np.inf, np.inf, (1,))
    action_space = Box(-0.5, 0.5, (1, 1))

    def __init__(self) -> None:
        self.task = np.float32(0)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.x = self.np_random.uniform(-0.1, 0.1)
        self.goal = float(self.task)
        return np.array([self.x], np.float32), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        self.x += action.item()
        reward = -abs(self.x - self.goal)
        ends = reward > -0.3
        return np.array([self.x], np.float32), reward, ends, abs(self.x) > 3, {}


def lines(copies: int) -> SyncVectorEnv:
    return SyncVectorEnv([Line] * copies)


def wrapped_lines(copies: int) -> SyncVectorEnv:
    limited = gymnasium.wrappers.TimeLimit
    return SyncVectorEnv([lambda: limited(Line(), max_episode_steps=3)] * copies)


def points(count: int, random: torch.Generator) -> Tensor:
    return 4 * torch.rand(count, generator=random) - 2


def right(states: Tensor) -> Tensor:
    """A policy that always goes right, with almost no noise."""
    return torch.tensor([0.5, -10.0]).expand(*states.shape[:-1], 2)


def test_every_copy_of_a_gymnasium_environment_has_its_task() -> None:
    env = GymnasiumTasks(lines, points, horizon=6)
    assert (env.state_dim, env.action_dim) == (1, 1)
    tasks = torch.tensor([1.0, -1.0])
    trajectories = rollout(env, tasks, right, 2, generator())
    x = trajectories.states[..., 0]
    assert x[..., 0].abs().max() <= 0.1 and len(x[..., 0].unique()) == 4
    torch.testing.assert_close(x[1].diff(dim=-1), torch.full((2, 5), 0.5), atol=1e-3, rtol=0)
    torch.testing.assert_close(
        trajectories.rewards[1, :, :5], -(x[1, :, 1:] + 1).abs(), atol=1e-3, rtol=0
    )
    # The first task is reached, within 0.3 of 1, by the second step; nothing counts after it.
    assert trajectories.valid[0].tolist() == [[True] * 2 + [False] * 4] * 2
    assert trajectories.valid[1].all()
    assert (trajectories.rewards[0, :, 2:] == 0).all() and (
        trajectories.states[0, :, 2:] == 0
    ).all()


def test_a_truncated_episode_has_ended() -> None:
    env = GymnasiumTasks(wrapped_lines, points, horizon=6)
    trajectories = rollout(env, torch.tensor([-2.0]), right, 2, generator())
    assert trajectories.valid.sum(-1).tolist() == [[3, 3]]
    again = rollout(env, torch.tensor([-2.0]), right, 2, generator())
    torch.testing.assert_close(
        trajectories.states, again.states
    )  # the same seed gives the same initial states


def test_the_number_of_copies_may_change() -> None:
    env = GymnasiumTasks(lines, points, horizon=2)
    for count in (1, 3, 2):
        trajectories = rollout(env, env.sample_tasks(count, generator()), right, 2, generator())
        assert trajectories.states.shape == (count, 2, 2, 1)


class Undeclared(Line):
    """Reads its task with a default, and declares no such attribute."""

    def __init__(self) -> None:
        self.goals: list[float] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        task = getattr(self, "task", np.float32(0.5))
        self.task = task
        self.goals.append(float(task))
        return super().reset(seed=seed)


def ready_made(kind: type[Line] = Undeclared) -> Callable[[int], SyncVectorEnv]:
    """Environments as gymnasium.make wraps them."""
    spec = gymnasium.envs.registration.EnvSpec("Line-v0", kind, max_episode_steps=9)
    return lambda copies: SyncVectorEnv(
        [lambda: gymnasium.make(spec, disable_env_checker=True)] * copies
    )


class Clipped(gymnasium.wrappers.vector.ClipReward):
    """A wrapper of vector environments, which has no set_attr."""


class Own(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A wrapper that reads the task too."""

    task = None


@pytest.mark.parametrize(
    "make",
    [
        ready_made(),
        lambda copies: Clipped(ready_made()(copies), -9, 9),
        lambda copies: SyncVectorEnv([lambda: Own(Own(Undeclared()))] * copies),
        lambda copies: SyncVectorEnv([lambda: Own(gymnasium.wrappers.TimeLimit(Undeclared(), 9))]
                                     * copies),
    ],
)  # fmt: skip
def test_tasks_arrive_through_any_wrapper(make: Callable[[int], Any]) -> None:
    env = GymnasiumTasks(make, points, horizon=2)
    tasks = torch.linspace(-2, 2, 5)
    rollout(env, tasks, right, 1, generator())
    copies = env.vector.unwrapped.envs
    assert [copy.unwrapped.goals for copy in copies] == [[goal] for goal in tasks.tolist()]
    if isinstance(copies[0], Own):
        assert [float(copy.task) for copy in copies] == tasks.tolist()


class Overwriting(Line):
    """Draws a task of its own."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.task = np.float32(1)
        return super().reset(seed=seed)


class Fixed(Line):
    """Has a task that cannot be set."""

    task = property(lambda self: np.float32(1))  # type: ignore[assignment]

    def __init__(self) -> None:
        pass


class Native(gymnasium.vector.VectorEnv[Any, Any, Any]):
    """Simulates its copies together, and has no way to set their tasks."""

    single_observation_space = single_action_space = Box(-1, 1, (1,))

    def __init__(self, copies: int) -> None:
        self.num_envs = copies


class Settable(Native):
    """One whose tasks can be set."""

    def set_attr(self, name: str, values: list[Any]) -> None:
        self.tasks = values

    def get_attr(self, name: str) -> tuple[Any, ...]:
        return tuple(self.tasks)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return np.zeros((self.num_envs, 1), np.float32), {}


class Forgetful(Settable):
    def get_attr(self, name: str) -> tuple[Any, ...]:
        return tuple(self.tasks[:1] * self.num_envs)


def test_tasks_of_vector_environments_without_copies_are_set() -> None:
    env = GymnasiumTasks(Settable, points, horizon=2)
    env.reset(torch.tensor([1.0, 2.0]), generator())
    assert env.vector.tasks == [1, 2]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            ready_made(Overwriting),
            r"'task' of copy 0 is 1.0 after a reset, and not -2.0 as it was set",
        ),
        (ready_made(Fixed), r"'task' cannot be set: AttributeError: property"),
        (Native, r"Native has neither copies in 'envs' nor set_attr and get_attr, which set"),
        (lambda n: gymnasium.wrappers.vector.ClipReward(Native(n), 0, 1), r"Native has neither"),
        (Forgetful, r"'task' of copy 1 is -2.0 after a reset, and not 2.0"),
        (lambda n: lines(1), r"make\(2\) returned 1 copies: it must return .* of 2 copies"),
        (lambda n: Line(), r"make\(1\) returned Line: it must return a gymnasium.vector.VectorEnv"),
    ],
)
def test_tasks_that_do_not_arrive_are_refused(make: Any, words: str) -> None:
    with pytest.raises(InputError, match=f"environment gymnasium: .*{words}"):
        GymnasiumTasks(make, points, 5).reset(torch.tensor([-2.0, 2.0]), generator())


class Declared(Line):
    task = None


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_tasks_of_copies_in_processes_are_set_if_their_class_has_the_attribute() -> None:
    def copies_of(make: Callable[[], Any]) -> Callable[[int], AsyncVectorEnv]:
        return lambda copies: AsyncVectorEnv([make] * copies, shared_memory=False)

    limited = gymnasium.wrappers.TimeLimit
    env = GymnasiumTasks(copies_of(lambda: limited(Declared(), 9)), points, horizon=2)
    trajectories = rollout(env, torch.tensor([1.0, -1.0]), right, 1, generator())
    env.vector.close()
    x = trajectories.states[:, 0, 1, 0]
    torch.testing.assert_close(
        trajectories.rewards[:, 0, 0], -(x - torch.tensor([1.0, -1.0])).abs()
    )
    for make, words in (
        (lambda: limited(Undeclared(), 9), "no class has an attribute 'task': .* Undeclared must"),
        (lambda: Own(Declared()), "Own and Declared has an attribute 'task'"),
    ):
        env = GymnasiumTasks(copies_of(make), points, horizon=2)
        with pytest.raises(InputError, match=words):
            env.reset(torch.tensor([1.0]), generator())
        env.vector.close()


class Buttons(Line):
    action_space = Discrete(3)  # type: ignore[assignment]


class Words(Line):
    observation_space = Discrete(3)  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Buttons, r"environment gymnasium: the action space is Discrete\(3\): .* needs a Box"),
        (Words, r"environment gymnasium: the observation space is Discrete\(3\)"),
    ],
)
def test_spaces_that_are_no_boxes_are_refused(kind: type[Line], words: str) -> None:
    with pytest.raises(InputError, match=words):
        GymnasiumTasks(lambda copies: SyncVectorEnv([kind] * copies), points, 5)


def test_a_horizon_of_0_is_refused() -> None:
    with pytest.raises(InputError, match=r"environment.horizon is 0"):
        GymnasiumTasks(lines, points, 0)


# --- rollouts ---


def steady(states: Tensor) -> Tensor:
    return torch.cat([states, torch.zeros_like(states)], -1)


def test_trajectories_hold_what_happened() -> None:
    env, tasks = Navigation(horizon=4), torch.tensor([[0.4, 0.4], [-0.3, 0.2]])
    trajectories = rollout(env, tasks, steady, 3, generator())
    assert trajectories.states.shape == trajectories.actions.shape == (2, 3, 4, 2)
    assert (trajectories.states[:, :, 0] == 0).all() and trajectories.valid.all()
    steps = (0.1 * trajectories.actions).clamp(-0.1, 0.1)
    torch.testing.assert_close(
        trajectories.states[:, :, 1:], (trajectories.states + steps)[:, :, :-1]
    )
    offsets = trajectories.states + steps - tasks[:, None, None]
    torch.testing.assert_close(trajectories.rewards, -offsets.square().sum(-1))
    torch.testing.assert_close(
        trajectories.log_probs, log_prob(steady(trajectories.states), trajectories.actions)
    )
    torch.testing.assert_close(trajectories.returns(), trajectories.rewards.sum(2).mean(1))


def test_log_probabilities_are_of_the_actions_under_any_deviation() -> None:
    def narrow(states: Tensor) -> Tensor:
        log_stds = states.new_tensor([-3.0, 0.5]) + 0.3 * states
        return torch.cat([states.cos(), log_stds], -1)

    trajectories = rollout(Navigation(horizon=4), torch.zeros(2, 2), narrow, 3, generator())
    expected = log_prob(narrow(trajectories.states), trajectories.actions)
    torch.testing.assert_close(
        trajectories.log_probs[trajectories.valid],
        expected[trajectories.valid],
        rtol=1e-4,
        atol=1e-4,
    )


class Stepwise(Navigation):
    """Navigation whose rewards are computed at every step."""

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return super().step(actions)


@pytest.mark.parametrize("reward", ["squared", "distance"])
def test_rewards_of_all_steps_at_once_equal_the_rewards_of_each_step(reward: Any) -> None:
    tasks = 0.4 * torch.rand(5, 2, generator=generator()) - 0.2  # near enough that some end
    later, stepwise = (
        rollout(kind(reward, 1.0, 60), tasks, steady, 40, generator(1))
        for kind in (Navigation, Stepwise)
    )
    assert 0 < (~later.valid).sum() < later.valid.numel()
    for name, value in vars(later).items():
        assert torch.equal(value, getattr(stepwise, name)), name


def test_outcomes_of_a_wrong_shape_are_named() -> None:
    class Odd(Navigation):
        def outcomes(self, states: Tensor) -> tuple[Tensor, Tensor]:
            rewards, ends = super().outcomes(states)
            return (rewards, ends) if states.dim() == 2 else (rewards[0], ends)

    words = r"Odd.outcomes returned rewards and ends of shapes \[\[4\], \[3, 4\]\] for states of "
    with pytest.raises(InputError, match=words + r"shape \[3, 4, 2\]: they must be \[\[3, 4\], "):
        rollout(Odd(horizon=3), torch.zeros(2, 2), steady, 2, generator())


@pytest.mark.parametrize("fails", [False, True])
def test_one_thread_acts_and_the_others_are_there_again_afterwards(fails: bool) -> None:
    seen, before = list[int](), torch.get_num_threads()

    def watching(states: Tensor) -> Tensor:
        seen.append(torch.get_num_threads())
        return steady(states) + (math.nan if fails else 0)

    torch.set_num_threads(3)
    try:
        with pytest.raises(InputError) if fails else nullcontext():
            rollout(Navigation(horizon=2), torch.zeros(2, 2), watching, 2, generator())
        rollout(
            Navigation(horizon=1),
            torch.zeros(2, 2),
            lambda s: watching(s).nan_to_num(),
            2,
            generator(),
            2,
        )
        assert seen == [1, 1, 2] and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


class Broken(Navigation):
    """Something goes wrong in the third copy at the second step; every copy ends at the third."""

    def __init__(self, fault: str) -> None:
        super().__init__(horizon=5)
        self.fault = fault

    def reset(self, tasks: Tensor, random: torch.Generator) -> Tensor:
        self.t = 0
        return super().reset(tasks, random)

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        states, rewards, _ = super().step(actions)
        self.t += 1
        if self.t == 2 and self.fault == "state":
            states[2, 1] = math.nan
        if self.t == 2 and self.fault == "reward":
            rewards[2] = math.inf
        if self.t > 3:  # values after the end are ignored
            states, rewards = states * math.nan, rewards * math.nan
        if self.fault == "shape":
            rewards = rewards.unsqueeze(-1)
        return states, rewards, torch.full_like(rewards, self.t >= 3, dtype=torch.bool)


def test_values_after_the_end_are_ignored() -> None:
    trajectories = rollout(Broken("none"), torch.zeros(2, 2), steady, 2, generator())
    assert trajectories.valid.sum(-1).eq(3).all()
    for part in (
        trajectories.states,
        trajectories.actions,
        trajectories.rewards,
        trajectories.log_probs,
    ):
        assert part.isfinite().all() and (part[:, :, 3:] == 0).all()
    assert all(part.isfinite().all() for part in trajectories.samples(0.99, 1.0))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("state", r"navigation: a state of task 1 \(counted from 0\) is not finite at step 2"),
        ("reward", r"navigation: a reward of task 1 \(counted from 0\) is not finite at step 1"),
        ("shape", r"Broken returned .* shapes \[\[4, 2\], \[4, 1\], \[4, 1\]\] for 4 copies"),
    ],
)
def test_faults_of_an_environment_are_named_with_task_and_step(fault: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        rollout(Broken(fault), torch.zeros(2, 2), steady, 2, generator())


def test_a_policy_that_diverged_is_named() -> None:
    def lost(states: Tensor) -> Tensor:
        outputs = steady(states)
        outputs[1] *= math.nan
        return outputs

    words = r"an action of task 1 \(counted from 0\) is not finite at step 0: the policy diverged"
    with pytest.raises(InputError, match=words):
        rollout(Navigation(horizon=3), torch.zeros(2, 2), lost, 2, generator())


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (torch.zeros(3, 2), r"Odd.sample_tasks\(4\) returned \[3, 2\]: .*first dimension is 4"),
        (torch.zeros(()), r"returned \[\]"),
        ([0.0] * 4, "returned list"),
    ],
)
def test_a_sampler_that_returns_the_wrong_number_of_tasks_is_named(
    returned: Any, words: str
) -> None:
    class Odd(Navigation):
        def sample_tasks(self, count: int, random: torch.Generator) -> Tensor:
            return returned

    env: Environment = Odd()
    with pytest.raises(InputError, match=words):
        checked_tasks(env, 4, generator())

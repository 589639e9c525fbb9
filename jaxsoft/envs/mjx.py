"""Gymnasium's MuJoCo tasks (v5) on the device: its own model files, stepped by MuJoCo MJX, with its own rules.

Each task is a `Task`, the rules that gymnasium's class of that name has; the rest is shared. Whatever follows from the
joints (where a body is, what force a contact has) is left by a step as of its last evaluation of the dynamics, just
before the joints were moved for the last time. Gymnasium observes and rewards those values, and so do these tasks.

Source: gymnasium's `envs/mujoco/*_v5.py`.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxsoft.envs import brax
from jaxsoft.envs.mujoco import import_mjx, quiet
from jaxsoft.envs.parameters import check_params
from jaxsoft.envs.wrappers import time_limit
from jaxsoft.errors import InputError, positive_integer
from jaxsoft.types import Box, Env, EnvSpec, TimeStep, make_time_step

Rewards = dict[str, jax.Array]
"""The terms whose sum is the reward, under the names they have in gymnasium's `info`."""


class Task(NamedTuple):
    """The rules of one task; `data` is MJX's `Data` of one environment.

    Attributes:
        model_file: in gymnasium's assets.
        num_obs: size of an observation.
        num_actions: number of actuators.
        start: `(key, qpos, qvel) -> (qpos, qvel)`; the model's resting joints with the noise of a reset.
        observe: `(data) -> obs`.
        terminated: `(data) -> bool`.
        rewards: `(data, velocity, action, terminated) -> Rewards`; the velocity is that of `place`.
        place: `(data) -> []`; x of the body whose speed is rewarded, metres.
        frame_skip: physics steps per step.
        max_action: actions are between −max_action and max_action.
        max_episode_steps: gymnasium's time limit.
        contact_forces: whether a step has to derive `cfrc_ext`, the bodies' contact forces.
    """

    model_file: str
    num_obs: int
    num_actions: int
    start: Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
    observe: Callable[[Any], jax.Array]
    terminated: Callable[[Any], jax.Array]
    rewards: Callable[[Any, jax.Array, jax.Array, jax.Array], Rewards]
    place: Callable[[Any], jax.Array] = lambda data: data.qpos[0]
    frame_skip: int = 4
    max_action: float = 1.0
    max_episode_steps: int = 1_000
    contact_forces: bool = False


@struct.dataclass
class State:
    """All that a step depends on: the rest of MJX's `Data` follows from it.

    Attributes:
        qpos: [num_positions], joint positions in metres and radians.
        qvel: [num_velocities], joint velocities.
        qacc_warmstart: [num_velocities], where the solver of the contacts starts.
        place: [], `Task.place` as the last step left it.
    """

    qpos: jax.Array
    qvel: jax.Array
    qacc_warmstart: jax.Array
    place: jax.Array


class Simulator(NamedTuple):
    """A task with its model.

    Attributes:
        task: the rules.
        model: MJX's `Model`.
        data: MJX's `Data` of the model at rest, whose other fields `State` fills in.
        dt: seconds per step.
    """

    task: Task
    model: Any
    data: Any
    dt: float


def names() -> list[str]:
    """The tasks' names within this suite: gymnasium's."""
    return list(TASKS)


def has(name: str) -> bool:
    """Whether the suite has a task of this name."""
    return name in TASKS


def spec(name: str) -> EnvSpec:
    """What one task looks like; needs neither MuJoCo nor gymnasium."""
    task = TASKS[name]
    bound = np.full(task.num_actions, task.max_action, np.float32)
    obs_dtype = np.dtype(jnp.result_type(float))
    space = Box(-bound, bound)
    return EnvSpec(f"mjx/{name}", (task.num_obs,), obs_dtype, space, task.max_episode_steps, costly_reset=True)


def make(name: str, *, max_episode_steps: int | None = None, **params: Any) -> Env:
    """Builds one task.

    Args:
        name: gymnasium's own name, for example `Hopper-v5`.
        max_episode_steps: another time limit.
        **params: none are known.

    Raises:
        InputError: gymnasium or MuJoCo is not installed, or there is no such parameter.
    """
    check_params(f"mjx/{name}", params, {}, ("max_episode_steps",))
    limit = TASKS[name].max_episode_steps if max_episode_steps is None else max_episode_steps
    limit = positive_integer("max_episode_steps", limit)
    simulator = make_simulator(name)

    @jax.jit  # traced once, though training asks for it thrice: MJX takes seconds to trace
    def reset(key: jax.Array) -> tuple[State, TimeStep]:
        state, obs = start(key, simulator)
        return state, make_time_step(obs)

    @jax.jit
    def step(key: jax.Array, state: State, action: jax.Array) -> tuple[State, TimeStep]:
        state, obs, rewards, terminated = transition(state, action, simulator)
        return state, make_time_step(obs, sum(rewards.values()), terminated)

    return time_limit(Env(replace(spec(name), max_episode_steps=limit), reset, step), limit)


def make_simulator(name: str) -> Simulator:
    """Loads gymnasium's model of a task and prepares it for the device.

    Raises:
        InputError: gymnasium or MuJoCo is not installed.
    """
    model, task = _load_model(name), TASKS[name]
    mjx, dt = import_mjx(), task.frame_skip * model.opt.timestep
    return Simulator(task, mjx.put_model(model, impl="jax"), mjx.make_data(model, impl="jax"), dt)


def _load_model(name: str) -> Any:
    """MuJoCo's own `MjModel` of a task."""
    gymnasium = importlib.util.find_spec("gymnasium")
    if gymnasium is None or importlib.util.find_spec("mujoco") is None or gymnasium.origin is None:
        raise InputError(f"mjx/{name} needs gymnasium's models and MuJoCo: pip install 'jaxsoft[mujoco]'")
    import_mjx()
    mujoco: Any = importlib.import_module("mujoco")
    assets = Path(gymnasium.origin).parent / "envs" / "mujoco" / "assets"
    with quiet():
        return mujoco.MjModel.from_xml_path(str(assets / TASKS[name].model_file))


FILM_SUFFIX = ".html"
"""What `film` writes."""


def film(path: Path, states: Sequence[Any], returns: Sequence[float], name: str, **params: Any) -> None:
    """Writes an episode as a page with Brax's viewer; see `jaxsoft.envs.brax.film`."""
    mujoco: Any = importlib.import_module("mujoco")
    model = _load_model(name)
    data = mujoco.MjData(model)

    def pose(state: State) -> tuple[np.ndarray, np.ndarray]:
        data.qpos[:] = state.qpos
        mujoco.mj_kinematics(model, data)
        return data.xpos[1:].copy(), data.xquat[1:].copy()  # the first body is the world

    brax.save_page(path, brax.load_system(model), [pose(state) for state, _ in states])


def start(key: jax.Array, simulator: Simulator) -> tuple[State, jax.Array]:
    """An episode's first state and observation."""
    data = simulator.data
    return state_at(*simulator.task.start(key, data.qpos, data.qvel), simulator)


def state_at(qpos: jax.Array, qvel: jax.Array, simulator: Simulator) -> tuple[State, jax.Array]:
    """The state and observation of given joints, like gymnasium's `set_state`: no contact force has been derived."""
    mjx = import_mjx()
    data = mjx.forward(simulator.model, simulator.data.replace(qpos=qpos, qvel=qvel))
    data = data.replace(qpos=qpos)  # MJX has normalised its quaternions: MuJoCo leaves them until they are moved
    return _state(data, simulator.task), simulator.task.observe(data)


def transition(state: State, action: jax.Array, simulator: Simulator) -> tuple[State, jax.Array, Rewards, jax.Array]:
    """One step of a task.

    Args:
        state: where it starts.
        action: [num_actions], in the actuators' own units.
        simulator: from `make_simulator`.

    Returns:
        The next state, its observation [num_obs], the reward's terms, and whether the task ended.
    """
    mjx = import_mjx()
    task, model = simulator.task, simulator.model
    data = simulator.data.replace(
        qpos=state.qpos, qvel=state.qvel, qacc_warmstart=state.qacc_warmstart, ctrl=action.astype(state.qpos.dtype)
    )
    data = jax.lax.fori_loop(0, task.frame_skip, lambda _, data: mjx.step(model, data), data)
    if task.contact_forces:
        data = mjx.rne_postconstraint(model, data)
    velocity = (task.place(data) - state.place) / simulator.dt
    terminated = task.terminated(data)
    rewards = task.rewards(data, velocity, action, terminated)
    return _state(data, task), task.observe(data), rewards, terminated


def _state(data: Any, task: Task) -> State:
    return State(data.qpos, data.qvel, data.qacc_warmstart, task.place(data))


# Resets.


def _uniform(key: jax.Array, qpos: jax.Array, qvel: jax.Array, *, scale: float) -> tuple[jax.Array, jax.Array]:
    """Uniform noise on positions and velocities."""
    position_key, velocity_key = jax.random.split(key)
    return (
        qpos + jax.random.uniform(position_key, qpos.shape, qpos.dtype, -scale, scale),
        qvel + jax.random.uniform(velocity_key, qvel.shape, qvel.dtype, -scale, scale),
    )


def _uniform_and_normal(
    key: jax.Array, qpos: jax.Array, qvel: jax.Array, *, scale: float
) -> tuple[jax.Array, jax.Array]:
    """Uniform noise on positions, normal noise on velocities."""
    position_key, velocity_key = jax.random.split(key)
    return (
        qpos + jax.random.uniform(position_key, qpos.shape, qpos.dtype, -scale, scale),
        qvel + scale * jax.random.normal(velocity_key, qvel.shape, qvel.dtype),
    )


def _reacher_start(key: jax.Array, qpos: jax.Array, qvel: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Noise on the arm; a resting target, uniform in the disc of radius 0.2 m."""
    arm_key, radius_key, angle_key = jax.random.split(key, 3)
    position_key, velocity_key = jax.random.split(arm_key)
    radius = 0.2 * jnp.sqrt(jax.random.uniform(radius_key, (), qpos.dtype))
    angle = jax.random.uniform(angle_key, (), qpos.dtype, 0, 2 * np.pi)
    target = radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)])
    qpos = qpos + jax.random.uniform(position_key, qpos.shape, qpos.dtype, -0.1, 0.1)
    qvel = qvel + jax.random.uniform(velocity_key, qvel.shape, qvel.dtype, -0.005, 0.005)
    return qpos.at[-2:].set(target), qvel.at[-2:].set(0)


# Observations.


def _joints(data: Any, *, skip: int = 0) -> jax.Array:
    """Positions, without the first `skip`, and velocities."""
    return jnp.concatenate([data.qpos[skip:], data.qvel])


def _joints_with_clipped_velocities(data: Any) -> jax.Array:
    return jnp.concatenate([data.qpos[1:], jnp.clip(data.qvel, -10, 10)])


def _contact_forces(data: Any) -> jax.Array:
    return jnp.clip(data._impl.cfrc_ext, -1, 1)


def _ant_obs(data: Any) -> jax.Array:
    return jnp.concatenate([data.qpos[2:], data.qvel, _contact_forces(data)[1:].flatten()])


def _double_pendulum_obs(data: Any) -> jax.Array:
    cart, angles = data.qpos[:1], data.qpos[1:]
    force = jnp.clip(data.qfrc_constraint[:1], -10, 10)
    return jnp.concatenate([cart, jnp.sin(angles), jnp.cos(angles), jnp.clip(data.qvel, -10, 10), force])


def _to_target(data: Any) -> jax.Array:
    """[3], from the target to the arm's tip; metres."""
    fingertip, target = 3, 4  # bodies of reacher.xml
    return data.xpos[fingertip] - data.xpos[target]


def _reacher_obs(data: Any) -> jax.Array:
    angles, target = data.qpos[:2], data.qpos[2:]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles), target, data.qvel[:2], _to_target(data)[:2]])


# Ends.


def _never(data: Any) -> jax.Array:
    return jnp.zeros((), bool)


def _hopper_fell(data: Any) -> jax.Array:
    height, angle = data.qpos[1], data.qpos[2]
    healthy = jnp.all(jnp.abs(_joints(data, skip=2)) < 100) & (height > 0.7) & (jnp.abs(angle) < 0.2)
    return ~healthy


def _walker_fell(data: Any) -> jax.Array:
    height, angle = data.qpos[1], data.qpos[2]
    return ~((height > 0.8) & (height < 2) & (jnp.abs(angle) < 1))


def _ant_fell(data: Any) -> jax.Array:
    height = data.qpos[2]
    return ~(jnp.all(jnp.isfinite(_joints(data))) & (height >= 0.2) & (height <= 1))


def _pendulum_fell(data: Any) -> jax.Array:
    return ~jnp.all(jnp.isfinite(_joints(data))) | (jnp.abs(data.qpos[1]) > 0.2)


def _double_pendulum_fell(data: Any) -> jax.Array:
    return data.site_xpos[0, 2] <= 1


# Rewards.


def _run(data: Any, velocity: jax.Array, action: jax.Array, terminated: jax.Array, *, action_cost: float) -> Rewards:
    """The speed, less the squared action."""
    return {"reward_forward": velocity, "reward_ctrl": -action_cost * jnp.sum(action**2)}


def _run_upright(
    data: Any, velocity: jax.Array, action: jax.Array, terminated: jax.Array, *, action_cost: float
) -> Rewards:
    """That, and 1 for a step that does not end the task."""
    rewards = _run(data, velocity, action, terminated, action_cost=action_cost)
    return rewards | {"reward_survive": 1.0 - terminated}


def _ant_rewards(data: Any, velocity: jax.Array, action: jax.Array, terminated: jax.Array) -> Rewards:
    contact_cost = 5e-4 * jnp.sum(_contact_forces(data) ** 2)
    return _run_upright(data, velocity, action, terminated, action_cost=0.5) | {"reward_contact": -contact_cost}


def _pendulum_rewards(data: Any, velocity: jax.Array, action: jax.Array, terminated: jax.Array) -> Rewards:
    return {"reward_survive": 1.0 - terminated}


def _double_pendulum_rewards(data: Any, velocity: jax.Array, action: jax.Array, terminated: jax.Array) -> Rewards:
    x, _, height = data.site_xpos[0]
    _, lower, upper = data.qvel
    return {
        "reward_survive": 10 * (1.0 - terminated),
        "distance_penalty": -(0.01 * x**2 + (height - 2) ** 2),
        "velocity_penalty": -(1e-3 * lower**2 + 5e-3 * upper**2),
    }


def _reacher_rewards(data: Any, velocity: jax.Array, action: jax.Array, terminated: jax.Array) -> Rewards:
    return {"reward_dist": -jnp.linalg.norm(_to_target(data)), "reward_ctrl": -jnp.sum(action**2)}


def _torso_place(data: Any) -> jax.Array:
    return data.xpos[1, 0]


TASKS = {
    "Hopper-v5": Task(
        model_file="hopper.xml",
        num_obs=11,
        num_actions=3,
        start=partial(_uniform, scale=5e-3),
        observe=_joints_with_clipped_velocities,
        terminated=_hopper_fell,
        rewards=partial(_run_upright, action_cost=1e-3),
    ),
    "HalfCheetah-v5": Task(
        model_file="half_cheetah.xml",
        num_obs=17,
        num_actions=6,
        start=partial(_uniform_and_normal, scale=0.1),
        observe=partial(_joints, skip=1),
        terminated=_never,
        rewards=partial(_run, action_cost=0.1),
        frame_skip=5,
    ),
    "Walker2d-v5": Task(
        model_file="walker2d_v5.xml",
        num_obs=17,
        num_actions=6,
        start=partial(_uniform, scale=5e-3),
        observe=_joints_with_clipped_velocities,
        terminated=_walker_fell,
        rewards=partial(_run_upright, action_cost=1e-3),
    ),
    "Ant-v5": Task(
        model_file="ant.xml",
        num_obs=105,
        num_actions=8,
        start=partial(_uniform_and_normal, scale=0.1),
        observe=_ant_obs,
        terminated=_ant_fell,
        rewards=_ant_rewards,
        place=_torso_place,
        frame_skip=5,
        contact_forces=True,
    ),
    "Swimmer-v5": Task(
        model_file="swimmer.xml",
        num_obs=8,
        num_actions=2,
        start=partial(_uniform, scale=0.1),
        observe=partial(_joints, skip=2),
        terminated=_never,
        rewards=partial(_run, action_cost=1e-4),
    ),
    "InvertedPendulum-v5": Task(
        model_file="inverted_pendulum.xml",
        num_obs=4,
        num_actions=1,
        start=partial(_uniform, scale=0.01),
        observe=_joints,
        terminated=_pendulum_fell,
        rewards=_pendulum_rewards,
        frame_skip=2,
        max_action=3.0,
    ),
    "InvertedDoublePendulum-v5": Task(
        model_file="inverted_double_pendulum.xml",
        num_obs=9,
        num_actions=1,
        start=partial(_uniform_and_normal, scale=0.1),
        observe=_double_pendulum_obs,
        terminated=_double_pendulum_fell,
        rewards=_double_pendulum_rewards,
        frame_skip=5,
    ),
    "Reacher-v5": Task(
        model_file="reacher.xml",
        num_obs=10,
        num_actions=2,
        start=_reacher_start,
        observe=_reacher_obs,
        terminated=_never,
        rewards=_reacher_rewards,
        frame_skip=2,
        max_episode_steps=50,
    ),
}
"""The tasks, with the defaults of gymnasium's v5."""

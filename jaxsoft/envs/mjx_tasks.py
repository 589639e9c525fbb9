"""The rules of gymnasium's MuJoCo tasks (v5): where they start, what they observe, when they end, what they reward.

Source: gymnasium's `envs/mujoco/*_v5.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

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
        terminated: `(data) -> bool`; by default never.
        place: `(data) -> []`; x whose speed is rewarded, metres.
        speed_reward: the weight of the speed of `place`, in metres per second; None: no such term.
        action_cost: the weight of the squared action, a cost.
        survival: the reward for a step that does not end the task.
        other_rewards: `(data) -> Rewards`.
        frame_skip: physics steps per step.
        max_action: actions are between −max_action and max_action.
        max_episode_steps: gymnasium's time limit.
        contact_forces: whether a step has to derive `cfrc_ext`, the bodies' contact forces.
        exact_contacts: whether contacts and turns of free bodies are MuJoCo's; else MJX's, which the older tasks keep.
        solver_rounds: steps of Newton's method for the forces of contacts and limits: two more than the hardest of
            3,000 states (1,000 of the humanoids) needs to agree to 1e-11 (`python benchmarks/mjx_rounds.py`). A harder
            one is solved less exactly, without a word: nothing asks the device whether it has converged.
    """

    model_file: str
    num_obs: int
    num_actions: int
    start: Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
    observe: Callable[[Any], jax.Array]
    terminated: Callable[[Any], jax.Array] = lambda data: jnp.zeros((), bool)
    place: Callable[[Any], jax.Array] = lambda data: data.qpos[0]
    speed_reward: float | None = 1.0
    action_cost: float = 0.0
    survival: float = 0.0
    other_rewards: Callable[[Any], Rewards] = lambda data: {}
    frame_skip: int = 4
    max_action: float = 1.0
    max_episode_steps: int = 1_000
    contact_forces: bool = False
    exact_contacts: bool = False
    solver_rounds: int = 4  # of tasks in which nothing touches


def rewards(task: Task, data: Any, velocity: jax.Array, action: jax.Array, terminated: jax.Array) -> Rewards:
    """The terms of a step's reward; the velocity is that of `task.place`, in metres per second."""
    terms: Rewards = {}
    if task.speed_reward is not None:
        terms["reward_forward"] = task.speed_reward * velocity
    if task.action_cost:
        terms["reward_ctrl"] = -task.action_cost * jnp.sum(action**2)
    if task.survival:
        terms["reward_survive"] = task.survival * (1.0 - terminated)
    return terms | task.other_rewards(data)


# Resets.


def _uniform(key: jax.Array, x: jax.Array, scale: float) -> jax.Array:
    return x + jax.random.uniform(key, x.shape, x.dtype, -scale, scale)


def _normal(key: jax.Array, x: jax.Array, scale: float) -> jax.Array:
    return x + scale * jax.random.normal(key, x.shape, x.dtype)


def _noise(
    key: jax.Array, qpos: jax.Array, qvel: jax.Array, *, scale: float, velocity_noise: Any = _uniform
) -> tuple[jax.Array, jax.Array]:
    """Uniform noise on positions, that or other noise on velocities."""
    position_key, velocity_key = jax.random.split(key)
    return _uniform(position_key, qpos, scale), velocity_noise(velocity_key, qvel, scale)


def _reacher_start(key: jax.Array, qpos: jax.Array, qvel: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Noise on the arm; a resting target, uniform in the disc of radius 0.2 m."""
    arm_key, radius_key, angle_key = jax.random.split(key, 3)
    position_key, velocity_key = jax.random.split(arm_key)
    radius = 0.2 * jnp.sqrt(jax.random.uniform(radius_key, (), qpos.dtype))
    angle = jax.random.uniform(angle_key, (), qpos.dtype, 0, 2 * np.pi)
    target = radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)])
    qpos, qvel = _uniform(position_key, qpos, 0.1), _uniform(velocity_key, qvel, 0.005)
    return qpos.at[-2:].set(target), qvel.at[-2:].set(0)


def _pusher_start(key: jax.Array, qpos: jax.Array, qvel: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Noise on the arm's velocities; an object uniform in the rectangle around the goal, but not within 0.17 m of it.

    Gymnasium draws points of the rectangle until one is far enough, which 62 % are. This draws 32 at once and takes the
    first of these; that none is has the probability 0.38³² = 3e-14.
    """
    object_key, velocity_key = jax.random.split(key)
    points = jax.random.uniform(object_key, (32, 2), qpos.dtype, jnp.array([-0.3, -0.2]), jnp.array([0.0, 0.2]))
    first = jnp.argmax(jnp.sum(points**2, axis=1) > 0.17**2)
    qpos = qpos.at[-4:].set(jnp.append(points[first], jnp.zeros(2)))
    return qpos, _uniform(velocity_key, qvel, 0.005).at[-4:].set(0)


# Observations.


def _joints(data: Any, *, skip: int = 0) -> jax.Array:
    """Positions, without the first `skip`, and velocities."""
    return jnp.concatenate([data.qpos[skip:], data.qvel])


def _clipped_joints(data: Any) -> jax.Array:
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


def _humanoid_obs(data: Any) -> jax.Array:
    inertias, velocities, forces = (x[1:].flatten() for x in (data._impl.cinert, data.cvel, data._impl.cfrc_ext))
    return jnp.concatenate([data.qpos[2:], data.qvel, inertias, velocities, data.qfrc_actuator[6:], forces])


def _pusher_places(data: Any) -> jax.Array:
    """[3, 3], where the arm's tips, the object and the goal are; metres."""
    return data.xpos[10:13]  # of the bodies of pusher_v5.xml


def _pusher_obs(data: Any) -> jax.Array:
    return jnp.concatenate([data.qpos[:7], data.qvel[:7], *_pusher_places(data)])


# Ends.


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


def _humanoid_fell(data: Any) -> jax.Array:
    height = data.qpos[2]
    return ~((height > 1) & (height < 2))


def _pendulum_fell(data: Any) -> jax.Array:
    return ~jnp.all(jnp.isfinite(_joints(data))) | (jnp.abs(data.qpos[1]) > 0.2)


def _double_pendulum_fell(data: Any) -> jax.Array:
    return data.site_xpos[0, 2] <= 1


# Rewards.


def _double_pendulum_rewards(data: Any) -> Rewards:
    x, _, height = data.site_xpos[0]
    _, lower, upper = data.qvel
    return {
        "distance_penalty": -(0.01 * x**2 + (height - 2) ** 2),
        "velocity_penalty": -(1e-3 * lower**2 + 5e-3 * upper**2),
    }


def _impact(data: Any) -> jax.Array:
    """Gymnasium's cost of what touches a humanoid; its forces are not clipped, their cost is."""
    return jnp.minimum(5e-7 * jnp.sum(data._impl.cfrc_ext**2), 10.0)


def _standup_rewards(data: Any) -> Rewards:
    timestep = 0.003  # of the physics: gymnasium divides a height by it, and calls that a speed
    return {
        "reward_linup": data.qpos[2] / timestep,
        "reward_quadctrl": -0.1 * jnp.sum(data.ctrl**2),
        "reward_impact": -_impact(data),
    }


def _pusher_rewards(data: Any) -> Rewards:
    tips, pushed, goal = _pusher_places(data)
    return {
        "reward_near": -0.5 * jnp.linalg.norm(pushed - tips),
        "reward_dist": -jnp.linalg.norm(pushed - goal),
    }


_humanoid = partial(
    Task,
    num_obs=348,
    num_actions=17,
    start=partial(_noise, scale=0.01),
    observe=_humanoid_obs,
    frame_skip=5,
    max_action=0.4,
    contact_forces=True,
    exact_contacts=True,
)

TASKS = {
    "Hopper-v5": Task(
        model_file="hopper.xml",
        num_obs=11,
        num_actions=3,
        start=partial(_noise, scale=5e-3),
        observe=_clipped_joints,
        terminated=_hopper_fell,
        action_cost=1e-3,
        survival=1.0,
        solver_rounds=6,
    ),
    "HalfCheetah-v5": Task(
        model_file="half_cheetah.xml",
        num_obs=17,
        num_actions=6,
        start=partial(_noise, scale=0.1, velocity_noise=_normal),
        observe=partial(_joints, skip=1),
        action_cost=0.1,
        frame_skip=5,
        solver_rounds=10,
    ),
    "Walker2d-v5": Task(
        model_file="walker2d_v5.xml",
        num_obs=17,
        num_actions=6,
        start=partial(_noise, scale=5e-3),
        observe=_clipped_joints,
        terminated=_walker_fell,
        action_cost=1e-3,
        survival=1.0,
        solver_rounds=8,
    ),
    "Ant-v5": Task(
        model_file="ant.xml",
        num_obs=105,
        num_actions=8,
        start=partial(_noise, scale=0.1, velocity_noise=_normal),
        observe=_ant_obs,
        terminated=_ant_fell,
        place=lambda data: data.xpos[1, 0],  # of the torso
        action_cost=0.5,
        survival=1.0,
        other_rewards=lambda data: {"reward_contact": -(5e-4 * jnp.sum(_contact_forces(data) ** 2))},
        frame_skip=5,
        contact_forces=True,
        solver_rounds=10,
    ),
    "Humanoid-v5": _humanoid(
        model_file="humanoid.xml",
        terminated=_humanoid_fell,
        place=lambda data: data.subtree_com[0, 0],  # of the centre of mass
        speed_reward=1.25,
        action_cost=0.1,
        survival=5.0,
        other_rewards=lambda data: {"reward_contact": -_impact(data)},
        solver_rounds=8,
    ),
    "HumanoidStandup-v5": _humanoid(
        model_file="humanoidstandup.xml",
        speed_reward=None,
        survival=1.0,
        other_rewards=_standup_rewards,
        solver_rounds=10,
    ),
    "Swimmer-v5": Task(
        model_file="swimmer.xml",
        num_obs=8,
        num_actions=2,
        start=partial(_noise, scale=0.1),
        observe=partial(_joints, skip=2),
        action_cost=1e-4,
        solver_rounds=5,
    ),
    "InvertedPendulum-v5": Task(
        model_file="inverted_pendulum.xml",
        num_obs=4,
        num_actions=1,
        start=partial(_noise, scale=0.01),
        observe=_joints,
        terminated=_pendulum_fell,
        speed_reward=None,
        survival=1.0,
        frame_skip=2,
        max_action=3.0,
    ),
    "InvertedDoublePendulum-v5": Task(
        model_file="inverted_double_pendulum.xml",
        num_obs=9,
        num_actions=1,
        start=partial(_noise, scale=0.1, velocity_noise=_normal),
        observe=_double_pendulum_obs,
        terminated=_double_pendulum_fell,
        speed_reward=None,
        survival=10.0,
        other_rewards=_double_pendulum_rewards,
        frame_skip=5,
    ),
    "Reacher-v5": Task(
        model_file="reacher.xml",
        num_obs=10,
        num_actions=2,
        start=_reacher_start,
        observe=_reacher_obs,
        speed_reward=None,
        action_cost=1.0,
        other_rewards=lambda data: {"reward_dist": -jnp.linalg.norm(_to_target(data))},
        frame_skip=2,
        max_episode_steps=50,
    ),
    "Pusher-v5": Task(
        model_file="pusher_v5.xml",
        num_obs=23,
        num_actions=7,
        start=_pusher_start,
        observe=_pusher_obs,
        speed_reward=None,
        action_cost=0.1,
        other_rewards=_pusher_rewards,
        frame_skip=5,
        max_action=2.0,
        max_episode_steps=100,
        exact_contacts=True,
        solver_rounds=7,
    ),
}
"""The tasks, with the defaults of gymnasium's v5."""

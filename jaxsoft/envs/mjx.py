"""Gymnasium's MuJoCo tasks (v5) on the device: its own model files, stepped by MuJoCo MJX, with its own rules.

Whatever follows from the joints (where a body is, what force a contact has) is left by a step as of its last evaluation
of the dynamics, just before the joints were moved for the last time. Gymnasium observes and rewards those values, and
so do these tasks.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxsoft.envs import brax
from jaxsoft.envs.mjx_contacts import contact_geoms
from jaxsoft.envs.mjx_physics import Joints, forward, step
from jaxsoft.envs.mjx_tasks import TASKS, Rewards, Task, rewards
from jaxsoft.envs.mujoco import import_mjx, mute_warnings
from jaxsoft.envs.parameters import check_params
from jaxsoft.envs.suites import Film, Suite
from jaxsoft.envs.wrappers import time_limit
from jaxsoft.errors import InputError, positive_integer
from jaxsoft.types import Box, Env, EnvSpec, TimeStep, make_time_step


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
        geoms: of each contact, for `mjx_physics.step`; None where contacts are MJX's.
    """

    task: Task
    model: Any
    data: Any
    dt: float
    geoms: np.ndarray | None


def spec(name: str) -> EnvSpec:
    """The spec of one task; needs neither MuJoCo nor gymnasium."""
    task = TASKS[name]
    bound = np.full(task.num_actions, task.max_action, np.float32)
    obs_dtype = np.dtype(jnp.result_type(float))
    space = Box(-bound, bound)
    limit = task.max_episode_steps
    more = {"costly_reset": True, "earliest_truncation": limit}
    return EnvSpec(f"mjx/{name}", (task.num_obs,), obs_dtype, space, limit, **more)


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
    task_spec = replace(spec(name), max_episode_steps=limit, earliest_truncation=limit)

    @jax.jit  # traced once, though training asks for it thrice: MJX takes seconds to trace
    def reset(key: jax.Array) -> tuple[State, TimeStep]:
        data = simulator.data
        state, obs = joint_state(*simulator.task.start(key, data.qpos, data.qvel), simulator)
        return state, make_time_step(obs)

    @jax.jit
    def env_step(key: jax.Array, state: State, action: jax.Array) -> tuple[State, TimeStep]:
        state, obs, terms, terminated = transition(state, action, simulator)
        return state, make_time_step(obs, sum(terms.values()), terminated)

    return time_limit(Env(task_spec, reset, env_step), limit)


def make_simulator(name: str) -> Simulator:
    """Loads gymnasium's model of a task and prepares it for the device.

    Raises:
        InputError: gymnasium or MuJoCo is not installed.
    """
    model, task = _load_model(name), TASKS[name]
    mjx, dt = import_mjx(), task.frame_skip * model.opt.timestep
    model, data = mjx.put_model(model, impl="jax"), mjx.make_data(model, impl="jax")
    return Simulator(task, model, data, dt, contact_geoms(model, data) if task.exact_contacts else None)


def _load_model(name: str) -> Any:
    """MuJoCo's own `MjModel` of a task, for a solver that MJX does not refuse: ours takes the place of every one."""
    gymnasium = importlib.util.find_spec("gymnasium")
    if gymnasium is None or importlib.util.find_spec("mujoco") is None or gymnasium.origin is None:
        raise InputError(f"mjx/{name} needs gymnasium's models and MuJoCo: pip install 'jaxsoft[mujoco]'")
    import_mjx()
    mujoco: Any = importlib.import_module("mujoco")
    assets = Path(gymnasium.origin).parent / "envs" / "mujoco" / "assets"
    with mute_warnings():
        model = mujoco.MjModel.from_xml_path(str(assets / TASKS[name].model_file))
    model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
    return model


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


def joint_state(qpos: jax.Array, qvel: jax.Array, simulator: Simulator) -> tuple[State, jax.Array]:
    """The state and observation of given joints, like gymnasium's `set_state`: no contact force has been derived."""
    joints = Joints(qpos, qvel, simulator.data.qacc_warmstart)
    data = forward(simulator.model, simulator.data, joints, simulator.task.solver_rounds, simulator.geoms)
    data = data.replace(qpos=qpos)  # MJX has normalised its quaternions: MuJoCo leaves them until they are moved
    return _state(joints, data, simulator.task), simulator.task.observe(data)


def transition(state: State, action: jax.Array, simulator: Simulator) -> tuple[State, jax.Array, Rewards, jax.Array]:
    """One step of a task.

    Args:
        state: where it starts.
        action: [num_actions], in the actuators' own units.
        simulator: from `make_simulator`.

    Returns:
        The next state, its observation [num_obs], the reward's terms, and whether the task ended.
    """
    task, model = simulator.task, simulator.model
    rest = simulator.data.replace(ctrl=action.astype(state.qpos.dtype))

    def frame(_: int, carry: tuple[Joints, Any]) -> tuple[Joints, Any]:
        return step(model, rest, carry[0], task.solver_rounds, simulator.geoms)

    joints = Joints(state.qpos, state.qvel, state.qacc_warmstart)
    joints, data = jax.lax.fori_loop(0, task.frame_skip, frame, (joints, rest))
    if task.contact_forces:
        data = import_mjx().rne_postconstraint(model, data)
    data = data.replace(qpos=joints.qpos, qvel=joints.qvel)
    velocity = (task.place(data) - state.place) / simulator.dt
    terminated = task.terminated(data)
    terms = rewards(task, data, velocity, action, terminated)
    return _state(joints, data, task), task.observe(data), terms, terminated


def _state(joints: Joints, data: Any, task: Task) -> State:
    return State(joints.qpos, joints.qvel, joints.qacc, task.place(data))


SUITE = Suite("mjx", lambda: list(TASKS), make, spec=spec, film=Film(".html", film), fused_keys=True)

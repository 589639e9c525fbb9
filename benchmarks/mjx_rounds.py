"""How many rounds the solver of `mjx/...` needs: `python benchmarks/mjx_rounds.py [TASK ...]`.

States are what C MuJoCo meets in gymnasium's own tasks: starts, long rollouts of random actions (each held for a while,
falls not ended), and hard landings: bodies lifted and thrown down, until after they have struck, and Pusher's gripper
where its object is. From each of them one step of the task is taken by C MuJoCo, with a tolerance of 1e-14, and by
`jaxsoft.envs.mjx` with every number of rounds, in double precision. An error is the largest difference of a joint's
velocity (m/s, rad/s) after the step; from MuJoCo, and from the result of 24 rounds: some contacts of two capsules are
MJX's own, whatever its solver.
"""

from __future__ import annotations

import argparse
import importlib
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from jaxsoft.envs import mjx
from jaxsoft.envs.mjx_tasks import TASKS
from jaxsoft.envs.mujoco import mute_warnings

mujoco: Any = importlib.import_module("mujoco")

ROUNDS = (1, 2, 3, 4, 5, 6, 8, 12, 24)

HEIGHTS = {
    **dict.fromkeys(["Hopper-v5", "HalfCheetah-v5", "Walker2d-v5"], 1),
    **dict.fromkeys(["Ant-v5", "Humanoid-v5", "HumanoidStandup-v5"], 2),
}
"""The joint along which a body falls, of the tasks in which one does."""

RESTING = {"Pusher-v5": 4}
"""Contacts that there always are, of an object with the table on which it lies."""


class Steps(NamedTuple):
    """States, actions, and where C MuJoCo's step led; [num_states, ...].

    Attributes:
        qpos: joint positions.
        qvel: joint velocities.
        qacc: the last accelerations, where solvers start.
        action: [num_states, num_actions].
        next_qpos: positions after the step.
        next_qvel: velocities after it.
        touching: whether there was a contact after the step, of more than what always lies on something.
    """

    qpos: np.ndarray
    qvel: np.ndarray
    qacc: np.ndarray
    action: np.ndarray
    next_qpos: np.ndarray
    next_qvel: np.ndarray
    touching: np.ndarray


def reach(env: Any, random: np.random.Generator) -> None:
    """Puts Pusher's gripper near the table, and its object at one of the gripper's three capsules."""
    gripper = [13, 14, 15]
    while True:
        env.data.qpos[:7] = random.uniform(*env.model.jnt_range[:7].T)
        mujoco.mj_kinematics(env.model, env.data)
        heights = env.data.geom_xpos[gripper, 2]
        if heights.min() > -0.3 and heights.max() < -0.2:
            break
    x, y, _ = env.data.geom_xpos[random.choice(gripper)]
    env.data.qpos[7:9] = random.uniform(-0.09, 0.09, 2) + np.array([y + 0.05, x - 0.45])
    env.data.qvel[:] = random.normal(0, 0.5, len(env.data.qvel))


def record(name: str, num_states: int, seed: int = 0) -> Steps:
    """A third of the states each: first steps, long rollouts, hard landings."""
    with mute_warnings():
        env: Any = gymnasium.make(name).unwrapped
    env.model.opt.tolerance, env.model.opt.ls_tolerance = 1e-14, 1e-6
    env.model.opt.solver, env.model.opt.iterations = mujoco.mjtSolver.mjSOL_NEWTON, 100  # the humanoids' ends too early
    random, data, height = np.random.default_rng(seed), env.data, HEIGHTS.get(name)
    low, high = env.action_space.low, env.action_space.high
    resting, rows = RESTING.get(name, 0), []

    def step(keep: bool, action: np.ndarray) -> None:
        before = data.qpos.copy(), data.qvel.copy(), data.qacc_warmstart.copy(), action
        env.do_simulation(action, env.frame_skip)
        if keep:
            rows.append((*before, data.qpos.copy(), data.qvel.copy(), data.ncon > resting))

    def some_action() -> np.ndarray:
        share = random.uniform(size=len(low))
        return low + (high - low) * (share if random.random() < 0.5 else np.round(share))

    def first_steps() -> None:
        for _ in range(4):
            step(True, random.uniform(low, high))

    def long_rollout() -> None:
        for t in range(50):
            action = some_action()
            for _ in range(20):
                step(t % 2 == 0 and random.random() < 0.2, action)

    def hard_landing() -> None:
        action = some_action()
        for _ in range(random.integers(100)):
            step(False, action)
        if height is not None:
            data.qpos[height] += random.uniform(0.2, 1.0)
            data.qvel[:] += random.normal(0, 3, len(data.qvel))
            data.qvel[height] = -random.uniform(2, 10)
        if name == "Pusher-v5":
            reach(env, random)
        for _ in range(30):
            step(True, action)

    for i, add in enumerate((first_steps, long_rollout, hard_landing), start=1):
        while len(rows) < num_states * i // 3:
            env.reset(seed=seed + len(rows))
            add()
    return Steps(*(np.array(column) for column in zip(*rows[:num_states], strict=True)))


def velocities(name: str, steps: Steps, dtype: Any) -> np.ndarray:
    """[len(ROUNDS), num_states, num_velocities] after the step."""
    simulator = mjx.make_simulator(name)

    def one(num_rounds: jax.Array, qpos: jax.Array, qvel: jax.Array, qacc: jax.Array, action: jax.Array) -> jax.Array:
        task = simulator.task._replace(solver_rounds=num_rounds)
        state = mjx.State(qpos, qvel, qacc, jnp.zeros((), qpos.dtype))
        return mjx.transition(state, action, simulator._replace(task=task))[0].qvel

    run = jax.jit(jax.vmap(one, in_axes=(None, 0, 0, 0, 0)))
    inputs = [jnp.asarray(x, dtype) for x in steps[:4]]
    return np.array([run(jnp.int32(n), *inputs) for n in ROUNDS])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=list(TASKS), help="by default all of them")
    parser.add_argument("--num-states", type=int, default=3_000)
    parser.add_argument("--single", action="store_true", help="in single precision, in which one trains")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", not arguments.single)
    for name in arguments.tasks:
        steps = record(name, arguments.num_states)
        touching, fastest = steps.touching.mean(), np.abs(steps.qvel).max()
        print(f"\n{name}: {len(steps.qpos)} states, {touching:.0%} touching, fastest joint {fastest:.0f}")
        print(f"{'':8}from MuJoCo{'':27}  from 24 rounds")
        print("rounds    median      99 %    99.9 %   largest      99.9 %   largest")
        all_rounds = velocities(name, steps, float)
        for rounds, qvel in zip(ROUNDS, all_rounds, strict=True):
            error, rest = (np.abs(qvel - other).max(1) for other in (steps.next_qvel, all_rounds[-1]))
            columns = [np.quantile(error, q) for q in (0.5, 0.99, 0.999, 1)], [np.quantile(rest, q) for q in (0.999, 1)]
            print(f"{rounds:6}" + "  ".join("".join(f"{x:10.1e}" for x in part) for part in columns), flush=True)


if __name__ == "__main__":
    main()

"""The solver of the constraints, against what defines its answer."""

from __future__ import annotations

import importlib
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from jaxsoft.envs import mjx
from jaxsoft.envs.mjx_physics import Rows, minimum_on_line, positions, products_apart, solve, solve_positive, turn
from jaxsoft.envs.mjx_tasks import TASKS
from jaxsoft.envs.mujoco import mute_warnings

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from mjx_rounds import HEIGHTS, reach


def problem(seed: int, n: int = 6, num_rows: int = 38) -> tuple[jax.Array, jax.Array, Rows, jax.Array]:
    """Inertia, force, rows of which a third is switched off like those of bodies apart, and a start."""
    random = np.random.default_rng(seed)
    root = random.normal(size=(n, n))
    apart = random.random((num_rows, 1)) < 1 / 3
    jacobian = np.where(apart, 0, random.normal(size=(num_rows, n)))
    target = np.where(apart[:, 0], 0, random.normal(0, 30, num_rows))
    rows = Rows(*map(jnp.asarray, (jacobian, np.exp(random.normal(0, 2, num_rows)), target)))
    inertia, force, start = root @ root.T + np.eye(n), random.normal(0, 30, n), random.normal(0, 100, n)
    return jnp.asarray(inertia), jnp.asarray(force), rows, jnp.asarray(start)


@pytest.mark.parametrize("num_rows", [1, 38])
def test_the_solvers_answer_is_the_minimum(num_rows: int, x64: None) -> None:
    # the cost is strictly convex: where its gradient is zero is its minimum
    problems = [problem(seed, num_rows=num_rows) for seed in range(200)]
    inertia, force, rows, start = jax.tree.map(lambda *x: jnp.stack(x), *problems)
    run = jax.jit(jax.vmap(solve, in_axes=(0, 0, 0, 0, None)))
    qacc, push = run(inertia, force, rows, start, 24)
    miss = np.einsum("bij,bj->bi", rows.jacobian, qacc) - rows.target
    np.testing.assert_allclose(push, rows.stiffness * np.maximum(-miss, 0), rtol=0, atol=1e-9)
    gradient = np.einsum("bij,bj->bi", inertia, qacc) - force - np.einsum("bij,bi->bj", rows.jacobian, push)
    np.testing.assert_allclose(gradient, 0, rtol=0, atol=1e-9)
    assert (push > 0).any()
    # from the answer itself there is nowhere to go; single precision ends at the same
    again, _ = run(inertia, force, rows, qacc, 2)
    np.testing.assert_allclose(again, qacc, rtol=0, atol=1e-9)
    single = jax.tree.map(lambda x: x.astype(jnp.float32), (inertia, force, rows, start))
    np.testing.assert_allclose(run(single[0], single[1], single[2], single[3], 24)[0], qacc, rtol=1e-4, atol=1e-2)


def test_without_rows_that_push_one_round_is_enough(x64: None) -> None:
    inertia, force, rows, start = problem(0)
    qacc, push = solve(inertia, force, rows._replace(target=jnp.full(38, -1e9)), start, 1)
    np.testing.assert_allclose(qacc, np.linalg.solve(inertia, force), rtol=1e-10)
    assert not push.any()


def test_the_minimum_on_a_line_is_where_the_slope_is_zero(x64: None) -> None:
    random, line = np.random.default_rng(0), jax.jit(minimum_on_line)
    for num_rows in (1, 2, 30):
        for _ in range(100):
            miss, change = random.normal(size=(2, num_rows)) * [[1], [10]] * (random.random(num_rows) < 0.9)
            stiffness, curve = np.exp(random.normal(0, 3, num_rows)), np.exp(random.normal())

            def slope(x: float, smooth: float, terms: Any = (miss, change, stiffness, curve)) -> float:
                miss, change, stiffness, curve = terms
                return smooth + x * curve + np.sum(stiffness * change * np.minimum(miss + x * change, 0))

            smooth = -slope(0, 0) - np.exp(random.normal(0, 2))  # so that the cost falls at first
            root: Any = optimize.brentq(slope, 0, 1e5, args=(smooth,), xtol=1e-15)
            found = line(slope(0, smooth), curve, miss, change, stiffness)
            np.testing.assert_allclose(found, root, rtol=1e-8)
    nowhere = line(0.0, 0.0, np.ones(3), np.zeros(3), np.ones(3))  # the direction is zero
    assert np.isfinite(nowhere)


def test_small_systems_are_solved(x64: None) -> None:
    for n in (1, 2, 9, 14):
        matrix, vector = problem(n, n)[:2]
        np.testing.assert_allclose(solve_positive(matrix, vector), np.linalg.solve(matrix, vector), rtol=1e-9)


def test_products_of_quaternions_are_kept_apart_where_asked_and_left_as_they_were() -> None:
    simulator, quaternions = mjx.make_simulator("Pusher-v5"), importlib.import_module("mujoco.mjx._src.math")
    multiply = quaternions.quat_mul

    def barriers(geoms: np.ndarray | None) -> int:
        program = jax.make_jaxpr(lambda qpos: positions(simulator.model, simulator.data.replace(qpos=qpos), geoms))
        return str(program(simulator.data.qpos)).count("optimization_barrier")

    assert simulator.geoms is not None
    assert barriers(None) == 0
    assert barriers(simulator.geoms) >= 7  # a hinge each
    assert quaternions.quat_mul is multiply

    def fail() -> None:
        with products_apart(), ThreadPoolExecutor() as another:
            assert quaternions.quat_mul is not multiply
            trace = jax.make_jaxpr(lambda x: quaternions.quat_mul(x, x))
            assert "optimization_barrier" not in str(another.submit(trace, jnp.ones(4)).result())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert quaternions.quat_mul is multiply


def test_a_free_body_turns_by_the_rotation_vector(x64: None) -> None:
    half = np.sqrt(0.5)
    quarter = turn(jnp.asarray([1.0, 0, 0, 0]), jnp.asarray([0, 0, np.pi / 2]))
    np.testing.assert_allclose(quarter, [half, 0, 0, half], atol=1e-15)
    back = turn(turn(quarter, jnp.asarray([0.3, -0.2, 0.1])), -jnp.asarray([0.3, -0.2, 0.1]))
    np.testing.assert_allclose(back, quarter, atol=1e-15)
    # of its own frame: turned about z, its x is the world's y
    np.testing.assert_allclose(turn(quarter, jnp.asarray([np.pi / 2, 0, 0])), [0.5, 0.5, 0.5, 0.5], atol=1e-15)
    np.testing.assert_array_equal(turn(jnp.asarray([0, 1.0, 0, 0]), jnp.zeros(3)), [0, 1, 0, 0])


MARKS = {"InvertedPendulum-v5": [], "Hopper-v5": [pytest.mark.thorough]}
"""Of the tasks that are not too slow to compile."""


def thrown(keys: jax.Array, simulator: mjx.Simulator, height: int | None) -> tuple[jax.Array, jax.Array]:
    """Starts at high speeds, where a body falls downwards."""

    def start(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        start_key, throw_key, speed_key = jax.random.split(key, 3)
        qpos, qvel = simulator.task.start(start_key, simulator.data.qpos, simulator.data.qvel)
        qvel += 3 * jax.random.normal(throw_key, qvel.shape)
        if height is not None:
            qvel = qvel.at[height].set(-jax.random.uniform(speed_key, (), minval=2.0, maxval=10.0))
        return qpos, qvel

    return jax.vmap(start)(keys)


def at_the_object(num_members: int) -> tuple[jax.Array, jax.Array]:
    """Starts of Pusher with its gripper at the object, which is at rest."""
    with mute_warnings():
        env, random = gymnasium.make("Pusher-v5").unwrapped, np.random.default_rng(0)
    starts = []
    for _ in range(num_members):
        reach(env, random)
        starts.append((env.data.qpos.copy(), env.data.qvel * (np.arange(11) < 7)))  # type: ignore[attr-defined]
    qpos, qvel = (jnp.asarray(np.array(x)) for x in zip(*starts, strict=True))
    return qpos, qvel


@pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS.get(name, [pytest.mark.slow])) for name in TASKS])
def test_a_tasks_rounds_suffice_in_hard_landings(name: str, x64: None) -> None:
    # states of C MuJoCo, and the agreement with it: benchmarks/mjx_rounds.py
    simulator, num_members, num_steps = mjx.make_simulator(name), 64, 25
    task, keys = simulator.task, jax.random.split(jax.random.key(0), num_members)
    of_pusher = name == "Pusher-v5"
    starts = at_the_object(num_members) if of_pusher else thrown(keys, simulator, HEIGHTS.get(name))

    def run(key: jax.Array, qpos: jax.Array, qvel: jax.Array) -> jax.Array:
        def step(state: mjx.State, action: jax.Array) -> tuple[mjx.State, jax.Array]:
            def after(num_rounds: jax.Array) -> mjx.State:
                rules = simulator._replace(task=task._replace(solver_rounds=num_rounds))
                return mjx.transition(state, action, rules)[0]

            both = jax.vmap(after)(jnp.asarray([task.solver_rounds, 30]))
            return jax.tree.map(lambda x: x[0], both), both.qvel

        shape = num_steps, task.num_actions
        actions = jax.random.uniform(key, shape, minval=-task.max_action, maxval=task.max_action)
        return jax.lax.scan(step, mjx.joint_state(qpos, qvel, simulator)[0], actions)[1]

    qvel = jax.jit(jax.vmap(run))(keys, *starts)
    np.testing.assert_allclose(qvel[:, :, 0], qvel[:, :, 1], rtol=0, atol=1e-9)
    if of_pusher:
        assert jnp.sum(jnp.abs(qvel[:, 0, 0, 7:9]).max(1) > 1e-3) > num_members / 4  # the gripper struck the object
    else:
        assert jnp.abs(jnp.diff(qvel[:, :, 0], axis=1)).max() > 1  # something was struck

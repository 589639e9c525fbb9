"""Gymnasium's MuJoCo tasks on the device, side by side with gymnasium's own.

Both start from the same joints and take the same actions. In double precision they agree to rounding, so that a rule
that is not gymnasium's cannot hide behind a tolerance; single precision, in which one trains, has a test of its own.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxsoft.envs import env_spec, make_env, mjx
from jaxsoft.envs.mjx_tasks import TASKS
from jaxsoft.envs.mujoco import import_mjx, mute_warnings
from jaxsoft.envs.wrappers import wrap_for_training
from jaxsoft.errors import InputError
from jaxsoft.types import Box

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from mjx_rounds import RESTING, reach

mujoco: Any = importlib.import_module("mujoco")

import_mjx()
mjx_math, collision_primitive = (
    importlib.import_module(f"mujoco.mjx._src.{name}") for name in ("math", "collision_primitive")
)


NUM_STARTS, NUM_STEPS = 32, 8

MARKS = {"InvertedPendulum-v5": [], "Hopper-v5": [pytest.mark.thorough]}
"""Of the tasks that are not too slow: MJX's programs take a minute to compile where bodies touch."""

APART = "Ant-v5", "Pusher-v5"
"""Tasks with tests of their own: what they do at a contact is not gymnasium's to rounding."""

NAMES = [pytest.param(name, marks=MARKS.get(name, [pytest.mark.slow])) for name in TASKS if name not in APART]

TERMS = {
    "Hopper-v5": ["reward_forward", "reward_ctrl", "reward_survive"],
    "HalfCheetah-v5": ["reward_forward", "reward_ctrl"],
    "Walker2d-v5": ["reward_forward", "reward_ctrl", "reward_survive"],
    "Ant-v5": ["reward_forward", "reward_ctrl", "reward_survive", "reward_contact"],
    "Humanoid-v5": ["reward_forward", "reward_ctrl", "reward_survive", "reward_contact"],
    "HumanoidStandup-v5": ["reward_linup", "reward_quadctrl", "reward_impact", "reward_survive"],
    "Swimmer-v5": ["reward_forward", "reward_ctrl"],
    "InvertedPendulum-v5": ["reward_survive"],
    "InvertedDoublePendulum-v5": ["reward_survive", "distance_penalty", "velocity_penalty"],
    "Reacher-v5": ["reward_dist", "reward_ctrl"],
    "Pusher-v5": ["reward_dist", "reward_ctrl", "reward_near"],
}

UNNAMED = {"reward_survive": 1.0}
"""What gymnasium's HumanoidStandup adds to each reward and leaves out of its `info`."""

TOLERANCE = 1e-9
"""Of double precision: rounding, 1e-15 of numbers up to 30, grows through 8 steps of contacts."""

SOLVER_TOLERANCE = 1e-14
"""In place of MuJoCo's 1e-8, at which the two solvers may stop an iteration apart: joints then differ by 1e-6."""


class Recorded(NamedTuple):
    """What gymnasium does from `NUM_STARTS` states along `NUM_STEPS` actions; steps have [NUM_STARTS, NUM_STEPS].

    Attributes:
        qpos: [NUM_STARTS, num_positions].
        qvel: [NUM_STARTS, num_velocities].
        actions: [NUM_STARTS, NUM_STEPS, num_actions].
        first_obs: [NUM_STARTS, num_obs].
        obs: [NUM_STARTS, NUM_STEPS, num_obs].
        reward: the reward.
        terminated: the flag.
        terms: the reward's terms, by name.
        touching: whether MuJoCo had a contact since the start.
    """

    qpos: np.ndarray
    qvel: np.ndarray
    actions: np.ndarray
    first_obs: np.ndarray
    obs: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    terms: dict[str, np.ndarray]
    touching: np.ndarray


def gymnasium_env(name: str) -> Any:
    with mute_warnings():
        return gymnasium.make(name).unwrapped


def record(
    name: str, solver_tolerance: float = SOLVER_TOLERANCE, seed: int = 0, move: Callable[[Any, Any], None] | None = None
) -> Recorded:
    """Starts are what a few random actions lead to, or up to 60 of them, falls included; `move` changes them."""
    env, random = gymnasium_env(name), np.random.default_rng(seed)
    env.model.opt.tolerance = solver_tolerance
    env.model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON  # the humanoids' own, PGS, stops before it has converged
    low, high = env.action_space.low, env.action_space.high
    terms, resting = TERMS[name], RESTING.get(name, 0)
    rows: list[tuple[Any, ...]] = []
    for i in range(NUM_STARTS):
        env.reset(seed=seed + i)
        for _ in range(random.integers(4 if i % 2 else 60)):
            if env.step(random.uniform(low, high))[2]:
                break
        if move is not None:
            move(env, random)
        qpos, qvel = env.data.qpos.copy(), env.data.qvel.copy()
        env.reset()
        env.set_state(qpos, qvel)
        first_obs, touching, steps = env._get_obs(), env.data.ncon > resting, []
        actions = random.uniform(low, high, (NUM_STEPS, len(low)))
        for action in actions:
            obs, reward, terminated, _, info = env.step(action)
            touching |= env.data.ncon > resting
            steps.append((obs, reward, terminated, [(UNNAMED | info)[term] for term in terms], touching))
        rows.append((qpos, qvel, actions, first_obs, *map(np.array, zip(*steps, strict=True))))
    qpos, qvel, actions, first_obs, obs, reward, terminated, values, touching = map(np.array, zip(*rows, strict=True))
    by_name = {term: values[..., i] for i, term in enumerate(terms)}
    return Recorded(qpos, qvel, actions, first_obs, obs, reward, terminated, by_name, touching)


def replay(
    name: str, recorded: Recorded, solver_tolerance: float = SOLVER_TOLERANCE
) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """The same in ours: first_obs, obs, terminated, terms."""
    simulator = mjx.make_simulator(name)
    model = simulator.model.tree_replace({"opt.tolerance": jnp.asarray(solver_tolerance)})
    simulator = simulator._replace(model=model)

    def run(qpos: jax.Array, qvel: jax.Array, actions: jax.Array) -> Any:
        def step(state: mjx.State, action: jax.Array) -> Any:
            state, *outcome = mjx.transition(state, action, simulator)
            return state, outcome

        state, first_obs = mjx.joint_state(qpos, qvel, simulator)
        obs, terms, terminated = jax.lax.scan(step, state, actions)[1]
        return first_obs, obs, terminated, terms

    return jax.device_get(jax.jit(jax.vmap(run))(*map(jnp.asarray, recorded[:3])))


@pytest.mark.parametrize("name", NAMES)
def test_steps_are_gymnasiums(name: str, x64: None) -> None:
    recorded = record(name)
    first_obs, obs, terminated, terms = replay(name, recorded)
    np.testing.assert_allclose(first_obs, recorded.first_obs, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(sum(recorded.terms.values()), recorded.reward, rtol=0, atol=TOLERANCE)
    np.testing.assert_array_equal(terminated, recorded.terminated)
    np.testing.assert_allclose(obs, recorded.obs, rtol=TOLERANCE / 100, atol=TOLERANCE)  # forces reach 3,000
    for term, values in recorded.terms.items():
        np.testing.assert_allclose(terms[term], values, rtol=0, atol=TOLERANCE, err_msg=term)
    assert set(terms) == set(recorded.terms)
    may_end = name not in ("HalfCheetah-v5", "Swimmer-v5", "Reacher-v5", "HumanoidStandup-v5")
    assert recorded.terminated.any() == may_end
    assert not recorded.terminated.all()
    if name in ("Hopper-v5", "HalfCheetah-v5", "Walker2d-v5", "Humanoid-v5", "HumanoidStandup-v5"):
        assert recorded.touching.any()
        assert recorded.touching.all() == (name == "HumanoidStandup-v5")  # which lies


@pytest.mark.slow
@pytest.mark.parametrize("own_tangents", [False, True])
def test_ant_steps_are_gymnasiums_but_for_what_mjx_does_otherwise(
    own_tangents: bool, x64: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MJX differs from MuJoCo in two things that only Ant meets.

    Within a Runge-Kutta step it turns a free body otherwise, by about 1e-6 in a physics step, which the next contact
    multiplies. And it gives a capsule that stands steeper than 60° on a plane a tangent of another direction, on which
    the friction depends, as its pyramid is not round. With MuJoCo's tangents only the first difference is left.
    """
    if not own_tangents:
        monkeypatch.setattr(collision_primitive, "math", _WithMujocoTangents())
    recorded = record("Ant-v5", 1e-8)
    first_obs, obs, terminated, terms = replay("Ant-v5", recorded, 1e-8)
    np.testing.assert_allclose(first_obs, recorded.first_obs, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(sum(recorded.terms.values()), recorded.reward, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(terms["reward_ctrl"], recorded.terms["reward_ctrl"], rtol=0, atol=TOLERANCE)
    assert set(terms) == set(recorded.terms)

    error = {term: np.abs(values - recorded.terms[term])[:, 0] for term, values in terms.items()}
    error["obs"] = np.abs(obs - recorded.obs)[:, 0].max(-1)
    in_air, on_ground = ~recorded.touching[:, 0], recorded.touching[:, 0]
    assert min(in_air.sum(), on_ground.sum()) >= 10
    assert error["obs"][in_air].max() < 1e-4
    assert error["reward_forward"][in_air].max() < 1e-5
    assert error["reward_contact"][in_air].max() == 0
    limits = {"obs": 2.0, "reward_forward": 0.3, "reward_contact": 0.01}  # forces are clipped to ±1
    if not own_tangents:
        limits = {"obs": 0.1, "reward_forward": 1e-3, "reward_contact": 1e-4}
    for what, limit in limits.items():
        assert error[what][on_ground].max() <= limit, what
    assert (recorded.terms["reward_contact"][:, 0] < -1e-3).any()  # the contact forces were there to be compared
    np.testing.assert_array_equal(terminated[:, 0], recorded.terminated[:, 0])
    assert recorded.terminated[:, 0].any()
    assert not recorded.terminated[:, 0].all()


@pytest.mark.thorough
@pytest.mark.parametrize("touches", [False, True])
def test_pusher_steps_are_gymnasiums_but_for_what_mujoco_rounds(touches: bool, x64: None) -> None:
    """MuJoCo looks for the contacts of a capsule with a cylinder by iterations, which end at 1e-6 and at times before.

    Ours are exact (`test_mjx_contacts.py`), so steps that begin at such a contact agree less closely.
    """
    recorded = record("Pusher-v5", move=reach if touches else None)
    first_obs, obs, terminated, terms = replay("Pusher-v5", recorded)
    np.testing.assert_allclose(first_obs, recorded.first_obs, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(sum(recorded.terms.values()), recorded.reward, rtol=0, atol=TOLERANCE)
    assert set(terms) == set(recorded.terms)
    assert not terminated.any()
    assert not recorded.terminated.any()
    error = np.abs(obs - recorded.obs).max(-1)
    for term, values in recorded.terms.items():
        error = np.maximum(error, np.abs(terms[term] - values))
    if not touches:
        assert not recorded.touching.any()
        assert error.max() < TOLERANCE
    else:
        struck = error[recorded.touching[:, 0], 0]
        assert len(struck) > NUM_STARTS / 2
        assert np.median(struck) < 1e-5
        assert np.quantile(struck, 0.9) < 1e-3  # the others are what MuJoCo misses, by up to a few millimetres


class _WithMujocoTangents:
    """MJX's `math` as its plane-capsule collision sees it, with every capsule lying flat enough."""

    def __getattr__(self, name: str) -> Any:
        return getattr(mjx_math, name)

    def normalize_with_norm(self, x: jax.Array, axis: int | None = None) -> tuple[jax.Array, jax.Array]:
        x, norm = mjx_math.normalize_with_norm(x, axis)
        return x, (norm > 1e-6).astype(x.dtype)


@pytest.mark.thorough
def test_single_precision_stays_close_to_gymnasiums_double() -> None:
    # an error of rounding, 1e-7, grows where a foot strikes: it was 4e-6 at most
    recorded = record("Hopper-v5", 1e-8)
    env = make_env("mjx/Hopper-v5")

    def step(qpos: jax.Array, qvel: jax.Array, action: jax.Array) -> tuple[Any, Any]:
        state, time_step = env.reset(jax.random.key(0))
        state = (mjx.State(qpos, qvel, jnp.zeros_like(qvel), qpos[0]), state[1])
        return time_step, env.step(jax.random.key(0), state, action)[1]

    inputs = [jnp.asarray(x, jnp.float32) for x in (recorded.qpos, recorded.qvel, recorded.actions[:, 0])]
    first, after = jax.jit(jax.vmap(step))(*inputs)
    assert after.obs.dtype == env.spec.obs_dtype == np.float32
    assert after.reward.dtype == np.float32
    assert np.abs(first.obs[0] - np.array([1.25, *[0] * 10])).max() <= 5.001e-3  # rest, and the noise of a reset
    np.testing.assert_allclose(after.obs, recorded.obs[:, 0], rtol=0, atol=1e-4)
    np.testing.assert_allclose(after.reward, recorded.reward[:, 0], rtol=0, atol=1e-4)
    np.testing.assert_array_equal(after.terminated, recorded.terminated[:, 0])


@pytest.mark.parametrize("name", TASKS)
def test_resets_are_distributed_like_gymnasiums(name: str) -> None:
    env, num_resets = gymnasium_env(name), 600
    env.reset(seed=0)
    theirs = []
    for _ in range(num_resets):
        env.reset()
        theirs.append(np.concatenate([env.data.qpos, env.data.qvel]))
    start, qpos, qvel = TASKS[name].start, jnp.asarray(env.init_qpos), jnp.asarray(env.init_qvel)
    keys = jax.random.split(jax.random.key(0), num_resets)
    ours = np.concatenate(jax.vmap(lambda key: start(key, qpos, qvel))(keys), axis=1)
    if name == "Pusher-v5":
        assert np.linalg.norm(ours[:, 7:9], axis=1).min() > 0.17
    for our, their in zip(ours.T, np.array(theirs).T, strict=True):
        comparison: Any = stats.ks_2samp(our, their)
        assert comparison.pvalue > 1e-5  # 221 joints are compared in all
        np.testing.assert_allclose([our.mean(), our.std()], [their.mean(), their.std()], atol=0.15 * their.std())


@pytest.mark.parametrize("name", TASKS)
def test_specs_are_gymnasiums(name: str) -> None:
    env, spec = gymnasium_env(name), env_spec(f"mjx/{name}")
    assert spec.obs_shape == env.observation_space.shape
    space = spec.action_space
    assert isinstance(space, Box)
    np.testing.assert_array_equal([space.low, space.high], [env.action_space.low, env.action_space.high])
    assert spec.max_episode_steps == gymnasium.spec(name).max_episode_steps
    assert TASKS[name].frame_skip == env.frame_skip
    assert env.fullpath.endswith(f"/{TASKS[name].model_file}")


def test_training_truncates_at_the_limit_and_restarts_from_new_starts() -> None:
    num_envs, limit = 3, 4
    env = make_env("mjx/InvertedPendulum-v5", max_episode_steps=limit)
    assert env.spec.id == f"mjx/InvertedPendulum-v5?max_episode_steps={limit}"
    envs = wrap_for_training(env, num_envs)

    @jax.jit
    def run(key: jax.Array) -> Any:
        state, first = envs.reset(key)
        keys = jax.random.split(key, 3 * limit)
        return first, jax.lax.scan(lambda state, key: envs.step(key, state, jnp.zeros((num_envs, 1))), state, keys)[1]

    first, steps = run(jax.random.key(0))
    np.testing.assert_array_equal(np.flatnonzero(steps.truncated.all(1)), [3, 7, 11])
    assert env.spec.earliest_truncation == env.spec.max_episode_steps
    assert not np.any(steps.terminated)
    np.testing.assert_array_equal(steps.episode_return[limit - 1], limit)
    starts = np.concatenate([first.obs, *np.asarray(steps.obs)[limit - 1 :: limit]])
    assert np.abs(starts).max() <= 0.01
    assert len(np.unique(starts, axis=0)) == 4 * num_envs


def test_types_stay_the_same() -> None:
    env, key = make_env("mjx/Hopper-v5"), jax.random.key(0)
    first = jax.eval_shape(env.reset, key)
    after = jax.eval_shape(env.step, key, first[0], jnp.zeros(3))
    types = [jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree) for tree in (first, after)]
    assert types[0] == types[1]


@pytest.mark.parametrize("missing", ["gymnasium", "mujoco"])
def test_without_the_extra_one_line_names_it(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find(name))
    with pytest.raises(InputError, match=r"mjx/Hopper-v5 needs .*: pip install 'jaxsoft\[mujoco\]'"):
        make_env("mjx/Hopper-v5")
    assert env_spec("mjx/Hopper-v5").obs_shape == (11,)  # what there is can still be listed


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"frame_skip": 2}, "mjx/Hopper-v5 has no parameter 'frame_skip'; it has: max_episode_steps"),
        ({"max_episode_steps": 10.5}, "max_episode_steps is 10.5; it must be a positive integer"),
        ({"max_episode_steps": 0}, "max_episode_steps is 0; it must be a positive integer"),
    ],
)
def test_wrong_parameters_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_env("mjx/Hopper-v5", **params)


def test_loading_a_model_prints_and_writes_nothing(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    mjx.make_simulator("HalfCheetah-v5")  # its model file has a deprecated attribute
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())

"""Suites that are extras, each against its own step function; skipped where its package is not installed."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsoft import check_env, make_env, make_train
from jaxsoft.envs import find, missing_extras, names, suites
from jaxsoft.errors import InputError
from jaxsoft.training.turns import random_action
from jaxsoft.types import Box

NUM_STEPS = 200

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


class Native(NamedTuple):
    """A suite's own environment.

    Attributes:
        reset: `(key) -> state`.
        step: `(key, state, action) -> state`.
        look: `(state) -> (obs, reward, done)`, `done` for whatever reason.
        own_state: of the adapter's state.
    """

    reset: Callable[..., Any]
    step: Callable[..., Any]
    look: Callable[[Any], tuple[Any, Any, Any]]
    own_state: Callable[[Any], Any] = lambda state: state


def playground(name: str, limit: int) -> Native:
    importlib.import_module("jaxsoft.envs.mujoco").import_mjx()
    registry = pytest.importorskip("mujoco_playground").registry
    env = registry.load(name, config_overrides={"impl": "jax"})
    return Native(env.reset, lambda key, state, action: env.step(state, action), lambda s: (s.obs, s.reward, s.done))


def craftax(name: str, limit: int) -> Native:
    env = pytest.importorskip("craftax.craftax_env").make_craftax_env_from_name(name, auto_reset=False)
    params = env.default_params.replace(max_timesteps=limit)

    def reset(key: jax.Array) -> Any:
        obs, state = env.reset_env(key, params)
        return obs, state, jnp.zeros(()), jnp.zeros((), bool)

    def step(key: jax.Array, state: Any, action: jax.Array) -> Any:
        return env.step_env(key, state[1], action, params)[:4]

    return Native(reset, step, lambda s: (s[0], s[2], s[3]), lambda s: s[1])


def xminigrid(name: str, limit: int) -> Native:
    env, params = pytest.importorskip("xminigrid").make(name, max_steps=limit)
    return Native(
        lambda key: env.reset(params, key),
        lambda key, state, action: env.step(params, state, action),
        lambda s: (s.observation, s.reward, s.last()),
    )


def pgx(name: str, limit: int) -> Native:
    env = pytest.importorskip("pgx").make(name)
    return Native(
        env.init,
        lambda key, state, action: env.step(state, action, key),
        lambda s: (s.observation, s.rewards[0], s.terminated | (s._step_count >= limit)),
    )


def navix(name: str, limit: int) -> Native:
    try:
        module: Any = importlib.import_module("navix")
    except (ImportError, AttributeError) as error:
        pytest.skip(f"NAVIX cannot be imported: {error}")
    env = module.make(name, max_steps=limit)
    return Native(
        env.reset, lambda key, state, action: env.step(state, action), lambda s: (s.observation, s.reward, s.is_done())
    )


LIMIT = 50
CASES = [
    (playground, "playground/CartpoleBalance", "episode_length"),
    (craftax, "craftax/Craftax-Classic-Symbolic-v1", "max_timesteps"),
    (xminigrid, "xminigrid/MiniGrid-Empty-5x5", "max_steps"),
    (pgx, "pgx/minatar-breakout", "max_episode_steps"),
    (pgx, "pgx/2048", "max_episode_steps"),
    (navix, "navix/Navix-Empty-5x5-v0", "max_steps"),
]


@pytest.mark.parametrize(("native", "env_id", "limit"), CASES, ids=[case[1] for case in CASES])
def test_states_rewards_and_ends_are_the_suites_own(native: Any, env_id: str, limit: str) -> None:
    """From the state where an episode ended, both start anew with the same key."""
    own = native(env_id.partition("/")[2], LIMIT)
    env = make_env(env_id, **{limit: LIMIT})
    check_env(env)
    assert env.spec.max_episode_steps == LIMIT

    def plain(state: Any) -> Any:
        return jax.tree.map(
            lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x, state
        )

    def follow(carry: Any, key: jax.Array) -> tuple[Any, Any]:
        state, theirs, like = carry
        action_key, step_key, reset_key = jax.random.split(key, 3)
        action = random_action(action_key, env.spec.action_space, 1)[0]
        state, time_step = env.step(step_key, state, action)
        theirs = own.step(step_key, theirs, action)
        theirs = jax.tree.map(lambda x, y: jnp.asarray(x, y.dtype), theirs, like)
        seen = time_step, own.look(theirs), plain(state[0]), plain(own.own_state(theirs))
        fresh, their_fresh = env.reset(reset_key)[0], own.reset(reset_key)
        state, theirs = jax.tree.map(
            lambda x, y: jnp.where(time_step.done, x, jnp.asarray(y, x.dtype)),
            (fresh, jax.tree.map(lambda x, y: jnp.asarray(x, y.dtype), their_fresh, like)),
            (state, theirs),
        )
        return (state, theirs, like), seen

    @jax.jit
    def run(key: jax.Array) -> Any:
        state, first = env.reset(key)
        theirs = own.reset(key)
        seen = first.obs, own.look(theirs)[0]
        like = jax.tree.map(jnp.asarray, theirs)
        return seen, jax.lax.scan(follow, (state, like, like), jax.random.split(key, NUM_STEPS))[1]

    (obs, their_obs), (steps, (next_obs, reward, done), state, their_state) = run(jax.random.key(3))
    np.testing.assert_array_equal(obs, their_obs)
    rtol, atol = (1e-4, 1e-5) if isinstance(env.spec.action_space, Box) else (1e-6, 0)
    close: Any = {"rtol": rtol, "atol": atol}
    np.testing.assert_allclose(steps.next_obs, next_obs, **close)
    np.testing.assert_allclose(steps.reward, reward, **close)
    if native is playground:  # whose time limit is a wrapper's
        done = np.asarray(done, bool) | (np.arange(1, NUM_STEPS + 1) % LIMIT == 0)
    np.testing.assert_array_equal(steps.done, done)
    assert not (steps.terminated & steps.truncated).any()
    assert env.spec.earliest_truncation == env.spec.max_episode_steps
    assert steps.terminated.any() if native is pgx else steps.truncated.any()
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **close), state, their_state)


@pytest.mark.parametrize("env_id", [case[1] for case in CASES])
def test_agents_take_them(env_id: str) -> None:
    if env_id.partition("/")[0] in missing_extras():
        pytest.skip("not installed")
    try:
        env = make_env(env_id)
    except InputError as error:
        pytest.skip(str(error))
    agent = "sac" if isinstance(env.spec.action_space, Box) else "sac_discrete"
    jax.eval_shape(make_train(agent, env, total_timesteps=100, learning_starts=10), jax.random.key(0))


@pytest.mark.parametrize("suite_name", suites.OPTIONAL)
def test_what_is_not_installed_is_named_with_its_extra(suite_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(suites.OPTIONAL, suite_name, "no_such_module")
    assert suite_name in missing_extras()
    assert not any(name.startswith(f"{suite_name}/") for name in names())
    with pytest.raises(InputError, match=rf"pip install 'jaxsoft\[{suite_name}\]'"):
        make_env(f"{suite_name}/anything")


@pytest.mark.parametrize("env_id", [case[1] for case in CASES[:4] + CASES[5:]])
def test_listed_names_are_the_packages(env_id: str) -> None:
    suite_name = env_id.partition("/")[0]
    if suite_name in missing_extras():
        pytest.skip("not installed")
    registered = {
        "playground": lambda: importlib.import_module("mujoco_playground").registry.ALL_ENVS,
        "xminigrid": lambda: importlib.import_module("xminigrid").registered_environments(),
        "pgx": lambda: importlib.import_module("pgx").available_envs(),
        "navix": lambda: importlib.import_module("navix").registry(),
        "craftax": lambda: find(env_id)[0].names(),
    }
    try:
        there = registered[suite_name]()
    except AttributeError as error:
        pytest.skip(str(error))
    assert set(find(env_id)[0].names()) <= set(there)


def test_listing_them_imports_none() -> None:
    code = """
import sys
from jaxsoft.envs import names, suites
names()
print([module for module in suites.OPTIONAL.values() if module in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsoft.envs import finite, make_env, names
from jaxsoft.envs.mdp import FiniteMDP, draw, expected_rewards, mdp_env, reachable_states, transition_matrix
from jaxsoft.errors import InputError
from jaxsoft.types import Discrete

TAXI_ID = "Taxi-v4" if "Taxi-v4" in gymnasium.registry else "Taxi-v3"  # one table under two names, see taxi()
GYMNASIUM = {
    "Taxi-v3": (finite.taxi, TAXI_ID, {}),
    "FrozenLake-v1": (finite.frozen_lake, "FrozenLake-v1", {}),
    "FrozenLake-v1, dry": (partial(finite.frozen_lake, is_slippery=False), "FrozenLake-v1", {"is_slippery": False}),
    "FrozenLake8x8-v1": (partial(finite.frozen_lake, "8x8"), "FrozenLake8x8-v1", {}),
    "CliffWalking-v1": (finite.cliff_walking, "CliffWalking-v1", {}),
    "CliffWalking-v1, wet": (partial(finite.cliff_walking, is_slippery=True), "CliffWalking-v1", {"is_slippery": True}),
}


@pytest.mark.parametrize("name", GYMNASIUM)
def test_equals_gymnasiums_table_entry_by_entry(name):
    build, gymnasium_id, kwargs = GYMNASIUM[name]
    theirs: Any = gymnasium.make(gymnasium_id, **kwargs).unwrapped
    with jax.enable_x64(True):
        mdp = jax.tree.map(np.asarray, build())
    assert (mdp.num_states, mdp.num_actions) == (len(theirs.P), len(theirs.P[0]))
    np.testing.assert_array_equal(mdp.initial_probs, theirs.initial_state_distrib)
    for state, row in theirs.P.items():
        for action, outcomes in row.items():
            at = state, action
            ours = list(
                zip(mdp.transition_probs[at], mdp.next_states[at], mdp.rewards[at], mdp.terminated[at], strict=True)
            )
            np.testing.assert_allclose(
                np.array(ours[: len(outcomes)], float), np.array(outcomes, float), rtol=1e-15, atol=0
            )
            assert all(probability == 0 for probability, *_ in ours[len(outcomes) :])


@pytest.mark.parametrize("name", ["Taxi-v3", "FrozenLake-v1", "FrozenLake8x8-v1"])
def test_has_gymnasiums_time_limit(name):
    gymnasium_spec = gymnasium.spec(TAXI_ID if name == "Taxi-v3" else name)
    assert make_env(f"finite/{name}").spec.max_episode_steps == gymnasium_spec.max_episode_steps


def test_deterministic_dynamics_are_stored_as_one_outcome():
    assert finite.taxi().transition_probs.shape == (500, 6, 1)


@pytest.mark.parametrize("name", finite.names())
def test_every_listed_mdp_is_one(name):
    mdp = finite.make_mdp(name)
    np.testing.assert_allclose(mdp.transition_probs.sum(-1), 1, atol=1e-6)
    np.testing.assert_allclose(mdp.initial_probs.sum(), 1, atol=1e-6)
    assert f"finite/{name}" in names()


def rollout(env: Any, num_steps: int, action: int | None = None):
    """Steps of one environment until `num_steps`, without resets; uniform actions unless one is given."""

    def step(state, key):
        action_key, step_key = jax.random.split(key)
        uniform = jax.random.randint(action_key, (), 0, env.spec.action_space.num_actions)
        state, time_step = env.step(step_key, state, uniform if action is None else jnp.int32(action))
        return state, time_step

    keys = jax.random.split(jax.random.key(1), num_steps)
    return jax.lax.scan(step, env.reset(jax.random.key(0))[0], keys)[1]


def test_steps_as_its_table_says():
    env = make_env("finite/Chain-5", max_episode_steps=4)
    steps = rollout(env, 5, action=1)
    np.testing.assert_array_equal(jnp.argmax(steps.next_obs, -1), [1, 2, 3, 4, 4])
    np.testing.assert_array_equal(steps.reward, [0, 0, 0, 0, 1])
    np.testing.assert_array_equal(steps.terminated, [False] * 4 + [True])
    np.testing.assert_array_equal(steps.truncated, [False] * 3 + [True, False])  # an end on the limit is no truncation
    assert env.spec.obs_shape == (5,)
    assert env.spec.max_episode_steps == 4
    assert env.spec.earliest_truncation == env.spec.max_episode_steps


def test_visits_follow_the_probabilities():
    mdp = finite.garnet(jax.random.key(2), 4, 1, 3)
    steps = jax.jit(partial(rollout, mdp_env(mdp, "garnet", 10), 40_000))()
    states = np.argmax(steps.next_obs, -1)
    counts = np.zeros((4, 4))
    np.add.at(counts, (states[:-1], states[1:]), 1)
    visited = counts.sum(-1) > 1_000
    frequencies = counts[visited] / counts[visited].sum(-1, keepdims=True)
    np.testing.assert_allclose(frequencies, transition_matrix(mdp)[visited, 0], atol=0.05)
    assert visited.sum() >= 2


def test_taxi_starts_as_gymnasiums_does():
    env = make_env("finite/Taxi-v3")
    obs = jax.vmap(lambda key: env.reset(key)[1].obs)(jax.random.split(jax.random.key(0), 2_000))
    possible = np.asarray(finite.taxi().initial_probs) > 0
    starts = set(np.asarray(jnp.argmax(obs, -1)).tolist())
    assert starts <= set(np.flatnonzero(possible).tolist())
    assert len(starts) > 290  # of 300


def test_dense_rows_become_lists_without_their_zeros():
    probs = np.array([[[0.0, 0.25, 0.75]], [[1.0, 0.0, 0.0]], [[0.0, 0.0, 1.0]]])
    rewards = np.arange(9.0).reshape(3, 1, 3)
    mdp = FiniteMDP(probs, rewards, terminated=[False, False, True], discount=0.5)
    assert mdp.transition_probs.shape == (3, 1, 2)
    np.testing.assert_array_equal(mdp.next_states[0, 0], [1, 2])
    np.testing.assert_array_equal(mdp.terminated[0, 0], [False, True])
    np.testing.assert_allclose(expected_rewards(mdp), (probs * rewards).sum(-1))
    np.testing.assert_allclose(transition_matrix(mdp), probs * np.array([1, 1, 0]))


def test_an_outcome_of_probability_zero_is_never_drawn():
    cumulative = jnp.cumsum(jnp.array([0.0, 0.3, 0.0, 0.699999, 0.0], jnp.float32))  # sums to a little less than 1
    uniforms = jnp.array([0.0, 0.29, 0.31, 1 - 2**-24], jnp.float32)
    np.testing.assert_array_equal(jax.vmap(draw, (0, None))(uniforms, cumulative), [1, 1, 3, 3])


def test_the_goals_are_equally_far():
    mdp = finite.gridworld(5, 7)
    assert int(mdp.terminated.sum()) == 4 * 4 + 4 * 2  # all actions in a corner, two steps into each
    assert int(jnp.argmax(mdp.initial_probs)) == 2 * 7 + 3


def test_a_named_garnet_is_the_same_whatever_generator_jax_is_set_to():
    def play() -> Any:
        env = make_env("finite/Garnet-8x3x2", seed=1)
        state, _ = env.reset(jax.random.key(0, impl="threefry2x32"))
        return env.step(jax.random.key(1, impl="threefry2x32"), state, jnp.int32(2))[1]

    expected = play()
    with jax.default_prng_impl("rbg"):
        jax.tree.map(np.testing.assert_array_equal, play(), expected)


def test_garnets_differ_by_key_and_vmap():
    keys = jax.random.split(jax.random.key(0), 3)
    batch = jax.vmap(lambda key: finite.garnet(key, 6, 2, 3))(keys)
    alone = finite.garnet(keys[1], 6, 2, 3)
    np.testing.assert_array_equal(batch.next_states[1], alone.next_states)
    assert not np.array_equal(batch.rewards[0], batch.rewards[1])
    assert all(len(set(row)) == 3 for row in np.asarray(alone.next_states).reshape(-1, 3))


def test_names_with_other_numbers():
    assert make_env("finite/Chain-7").spec.obs_shape == (7,)
    assert make_env("finite/MultiGoal-3x5").spec.obs_shape == (15,)
    assert make_env("finite/Garnet-8x3x2", seed=1, discount=0.5).spec.action_space == Discrete(3)
    assert float(finite.make_mdp("Taxi-v3", discount=0.5).discount) == 0.5


UNIFORM = np.full((2, 1, 2), 0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transition_probs": UNIFORM * 0.9}, r"transition_probs\[0, 0\] sums to 0.9; it must sum to 1"),
        ({"transition_probs": [[[1.5, -0.5]]] * 2}, r"transition_probs is -0.5 .*; it must be 0 or a positive"),
        ({"transition_probs": np.full((2, 1, 2), np.nan)}, "transition_probs is nan"),
        ({"transition_probs": np.full((2, 1, 3), 1 / 3)}, r"shape \[2, 1, 3\]; its last axis must have S=2"),
        ({"transition_probs": np.ones(2)}, r"transition_probs has shape \[2\]"),
        ({"rewards": np.zeros(3)}, r"rewards has shape \[3\]; it must be \[2, 1, 2\] or \[2, 1\]"),
        ({"rewards": np.full((2, 1), np.inf)}, "rewards is inf .*; it must be a finite number"),
        ({"terminated": [True]}, r"terminated has shape \[1\]"),
        ({"initial_probs": [0.5, 0.4]}, r"initial_probs sums to 0.9"),
        ({"initial_probs": [1.0]}, r"initial_probs has shape \[1\]"),
        ({"discount": 1.5}, "discount is 1.5; it must be between 0 and 1"),
        ({"next_states": np.full((2, 1, 2), 2)}, "next_states is 2 .*; it must be a state from 0 to 1"),
    ],
)
def test_refuses_what_is_no_mdp(changes, message):
    arguments = {"transition_probs": UNIFORM, "rewards": np.zeros((2, 1))} | changes
    with pytest.raises(InputError, match=message):
        FiniteMDP(**arguments)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("Taxi-v9", {}, r"unknown environment 'finite/Taxi-v9'; did you mean finite/Taxi-v3"),
        ("Chain-0", {}, "length is 0; it must be a positive integer"),
        ("MultiGoal-2x9", {}, "2x9; each side must be 3 or longer"),
        ("Garnet-3x2x4", {}, "branching no more than the states"),
        ("Taxi-v3", {"is_slippery": True}, "has no parameter 'is_slippery'; it has: max_episode_steps, discount"),
        ("FrozenLake-v1", {"map_name": "9x9"}, "has no parameter 'map_name'"),
        ("Chain-5", {"discount": -1.0}, "discount is -1"),
        ("Chain-5", {"max_episode_steps": 0}, "max_episode_steps is 0"),
    ],
)
def test_refuses_names_and_parameters_it_does_not_have(name, params, message):
    with pytest.raises(InputError, match=message):
        make_env(f"finite/{name}", **params)


def test_an_mdp_is_a_pytree():
    mdp = finite.chain(3)
    assert isinstance(jax.tree.map(lambda x: x, mdp), FiniteMDP)


def test_is_made_from_dense_arrays_in_the_order_of_their_names():
    """Two states; action 0 stays, action 1 changes the state: into state 1 it ends the task."""
    probs = np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]])
    rewards = np.array([[[0.5, 9.0], [9.0, 2.0]], [[9.0, 0.0], [-1.0, 9.0]]])  # 9: impossible
    terminated = np.array([[[False, False], [False, True]], [[False, False], [False, False]]])
    mdp = FiniteMDP(probs, rewards, terminated, np.array([1.0, 0.0]), 0.9)
    assert mdp.transition_probs.shape == (2, 2, 1)
    np.testing.assert_allclose(expected_rewards(mdp), [[0.5, 2.0], [0.0, -1.0]])
    np.testing.assert_allclose(transition_matrix(mdp), probs * ~terminated)
    env = mdp_env(mdp, "two", 10)
    state, _ = env.reset(jax.random.key(0))
    _, step = env.step(jax.random.key(1), state, jnp.int32(1))
    assert (float(step.reward), bool(step.terminated), int(jnp.argmax(step.next_obs))) == (2.0, True, 1)


def test_a_changed_process_is_checked_again():
    mdp = finite.frozen_lake()
    assert float(replace(mdp, discount=0.5).discount) == 0.5
    np.testing.assert_array_equal(replace(mdp, discount=0.5).next_states, mdp.next_states)
    with pytest.raises(InputError, match="discount is 2; it must be between 0 and 1"):
        replace(mdp, discount=2.0)


def test_reachable_states_are_those_that_play_can_visit():
    assert reachable_states(finite.taxi()).sum() == 400  # 404 with the four deliveries, where the task has ended
    assert reachable_states(finite.chain(7)).all()
    goals = [0, 4, 20, 24]
    assert np.flatnonzero(~reachable_states(finite.gridworld(5, 5))).tolist() == goals

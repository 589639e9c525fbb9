"""Fixed data sets: what is recorded, what is learned from them, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.probe_envs import counting

from jaxsoft import make_env, make_offline_train
from jaxsoft.envs import finite
from jaxsoft.envs.mdp import mdp_env
from jaxsoft.errors import InputError
from jaxsoft.tabular import soft_value_iteration
from jaxsoft.training.offline import INTERACTION_SETTINGS, record, uniform_policy
from jaxsoft.types import Choice, Discrete, Transition

TEMPERATURE, DISCOUNT = 0.2, 0.9
LINEAR: dict[str, Any] = {
    "num_updates": 1500,
    "hidden_sizes": (),
    "temperature": TEMPERATURE,
    "discount": DISCOUNT,
    "learning_rate": 0.02,
    "polyak": 0.9,
    "eval_every": 0,
}


@pytest.fixture(scope="module")
def key() -> jax.Array:
    return jax.random.key(3)


@pytest.fixture(scope="module")
def chain_data() -> Transition:
    env = mdp_env(finite.chain(6), "finite/Chain-6", max_episode_steps=25)
    return record(jax.random.key(0), uniform_policy(env.spec.action_space, 4), env, num_steps=500, num_envs=4)


# Recording


def test_a_policy_may_draw_by_any_function_of_jax_random_and_tell_its_choice_as_agents_do(key: jax.Array) -> None:
    def act(key: jax.Array, obs: jax.Array) -> Choice:
        drawn = 10.0 + jax.random.poisson(key, 3.0, (2, 1))
        return Choice(jnp.tanh(drawn), jnp.zeros(2), drawn)

    data = record(key, act, counting(5), num_steps=4, num_envs=2)
    assert data.pre_tanh is not None
    assert (data.pre_tanh >= 10).all()  # where the action has lost it
    with pytest.raises(InputError, match="the key is of the generator"):
        record(jax.random.key(0, impl="rbg"), act, counting(5), num_steps=4, num_envs=2)


def test_a_record_holds_every_step_with_its_true_successor(key: jax.Array) -> None:
    env = counting(5, action_space=Discrete(3))
    data = record(key, uniform_policy(Discrete(3), 2), env, num_steps=12, num_envs=2)
    assert data.obs.shape == (12, 2, 1)
    assert data.action.shape == data.reward.shape == (12, 2)
    np.testing.assert_array_equal(data.next_obs, data.obs + 1)
    np.testing.assert_array_equal(data.reward[:, 0], [1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1, 2])
    np.testing.assert_array_equal(np.flatnonzero(data.truncated[:, 1]), [4, 9])  # type: ignore[index]
    assert not np.any(data.terminated)
    np.testing.assert_allclose(np.asarray(data.log_prob), -np.log(3), rtol=1e-6)
    goes_on = ~np.asarray(data.truncated)[:-1]
    np.testing.assert_array_equal(np.asarray(data.obs)[1:][goes_on], np.asarray(data.next_obs)[:-1][goes_on])


def test_the_recorded_policy_chooses_the_actions(key: jax.Array) -> None:
    def act(key: jax.Array, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.full(obs.shape[:1], 2), jnp.zeros(obs.shape[:1])

    data = record(key, act, counting(5, action_space=Discrete(3)), num_steps=4, num_envs=3)
    assert np.all(np.asarray(data.action) == 2)


def test_uniformly_random_continuous_actions_fill_the_bounds(key: jax.Array) -> None:
    env = make_env("gymnax/Pendulum-v1")  # torques in [−2, 2]
    data = jax.device_get(record(key, uniform_policy(env.spec.action_space, 64), env, num_steps=40, num_envs=64))
    assert data.action.min() == pytest.approx(-1, abs=0.01)
    assert data.action.max() == pytest.approx(1, abs=0.01)
    np.testing.assert_allclose(data.log_prob, -np.log(2), rtol=1e-6)
    # the dynamics tell the torque that arrived: 2 a, not a nor 4 a
    torque = (data.next_obs[..., 2] - data.obs[..., 2]) / 0.05 / 3 - 5 * data.obs[..., 1]
    slow = np.abs(data.next_obs[..., 2]) < 7.9  # where the speed's own bound has no part
    np.testing.assert_allclose(torque[slow], 2 * data.action[slow, 0], atol=1e-3)


# Learning


@pytest.mark.parametrize(("trace", "lambda_"), [("retrace", 0.9), ("tree_backup", 1.0), ("uncorrected", 0.0)])
def test_what_is_learned_from_a_uniformly_random_policy_is_the_optimal_q(
    chain_data: Transition, key: jax.Array, trace: str, lambda_: float
) -> None:
    mdp = finite.chain(6, discount=DISCOUNT)
    env = mdp_env(mdp, "finite/Chain-6", max_episode_steps=25)
    train = make_offline_train("soft_q_replay", env, trace=trace, lambda_=lambda_, **LINEAR)
    state, _ = jax.jit(train)(key, chain_data)
    (kernel,) = jax.tree.leaves(state.agent_state.policy.params)
    best = soft_value_iteration(mdp, temperature=TEMPERATURE).q
    np.testing.assert_allclose(kernel[0], best, atol=0.02)


def test_the_data_is_shared_by_seeds_that_differ(chain_data: Transition) -> None:
    env = mdp_env(finite.chain(6), "finite/Chain-6", max_episode_steps=25)
    train = make_offline_train("soft_q_replay", env, **LINEAR | {"num_updates": 20, "eval_every": 10})
    learn = jax.jit(jax.vmap(train, (0, None)))
    states, metrics = learn(jax.random.split(jax.random.key(0), 3), chain_data)
    assert metrics["timestep"].tolist() == [[10, 20]] * 3
    assert metrics["eval_return"].shape == (3, 2)
    (kernels,) = jax.tree.leaves(states.agent_state.policy.params)
    assert len(np.unique(np.asarray(kernels).reshape(3, -1), axis=0)) == 3
    again, _ = learn(jax.random.split(jax.random.key(0), 3), chain_data)
    jax.tree.map(np.testing.assert_array_equal, again.agent_state, states.agent_state)


def test_observations_are_normalised_by_the_whole_data_set(chain_data: Transition, key: jax.Array) -> None:
    env = mdp_env(finite.chain(6), "finite/Chain-6", max_episode_steps=25)
    settings = LINEAR | {"num_updates": 2, "normalise_obs": True}
    state, _ = jax.jit(make_offline_train("soft_q_replay", env, **settings))(key, chain_data)
    statistics = state.agent_state.policy.obs_statistics
    obs = np.asarray(chain_data.obs).reshape(-1, 6)
    np.testing.assert_allclose(statistics.mean, obs.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(statistics.variance, obs.var(axis=0), atol=1e-5)


def test_the_units_of_scaled_rewards_do_not_matter(chain_data: Transition, key: jax.Array) -> None:
    env = mdp_env(finite.chain(6), "finite/Chain-6", max_episode_steps=25)
    train = jax.jit(make_offline_train("soft_q_replay", env, **LINEAR | {"num_updates": 20, "scale_rewards": True}))
    in_thousands = replace(chain_data, reward=1000 * chain_data.reward)
    (kernel,), (of_thousands,) = (
        jax.tree.leaves(train(key, data)[0].agent_state.policy.params) for data in (chain_data, in_thousands)
    )
    np.testing.assert_allclose(kernel, of_thousands, rtol=1e-4, atol=1e-6)
    unscaled, _ = jax.jit(make_offline_train("soft_q_replay", env, **LINEAR | {"num_updates": 20}))(key, chain_data)
    assert not np.allclose(kernel, jax.tree.leaves(unscaled.agent_state.policy.params)[0], atol=1e-3)


# What is refused


def test_an_agent_of_fresh_experience_is_refused() -> None:
    with pytest.raises(InputError, match="soft_q learns from fresh experience only"):
        make_offline_train("soft_q", make_env("finite/Chain-20"), num_updates=10)


def test_no_update_is_refused() -> None:
    with pytest.raises(InputError, match="num_updates is 0; it must be a positive integer"):
        make_offline_train("soft_q_replay", make_env("finite/Chain-20"), num_updates=0)


@pytest.mark.parametrize("name", sorted(INTERACTION_SETTINGS))
def test_settings_of_what_is_not_done_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} is 2; nothing is done in the environment here, so leave it out"):
        make_offline_train("soft_q_replay", make_env("finite/Chain-20"), num_updates=10, **{name: 2})


def test_data_of_the_wrong_shape_is_refused(chain_data: Transition, key: jax.Array) -> None:
    env = mdp_env(finite.chain(6), "finite/Chain-6", max_episode_steps=25)
    train = make_offline_train("soft_q_replay", env, **LINEAR)
    with pytest.raises(InputError, match=r"rewards have shape \[500\]; they must be \[num_steps, num_envs\]"):
        train(key, jax.tree.map(lambda x: x[:, 0], chain_data))
    with pytest.raises(InputError, match="with at least 8 steps"):
        train(key, jax.tree.map(lambda x: x[:5], chain_data))


def test_a_coefficient_that_needs_the_behaviour_needs_its_log_probabilities(
    chain_data: Transition, key: jax.Array
) -> None:
    env = mdp_env(finite.chain(6), "finite/Chain-6", max_episode_steps=25)
    unknown = replace(chain_data, log_prob=None)
    with pytest.raises(InputError, match="retrace needs the behaviour's log-probabilities"):
        make_offline_train("soft_q_replay", env, trace="retrace", **LINEAR)(key, unknown)
    make_offline_train("soft_q_replay", env, trace="tree_backup", **LINEAR | {"num_updates": 1})(key, unknown)

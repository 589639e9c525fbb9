"""TD3 and DDPG: one update against NumPy, exploration, and values that are known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.learning import solve
from support.one_update import (
    BATCH_SIZE,
    CONTINUOUS,
    DISCOUNT,
    OBS_DIM,
    SETTINGS,
    a_batch,
    assert_descended,
    assert_moved,
    assert_same,
    noise_of,
    two_states,
)
from support.probe_envs import action_reward, stopped_on_reward
from support.reference import sac as reference
from support.reference.soft_q import as_float64, gradient

from jaxsoft.agents import ddpg, td3


def td3_gradients(before: Any, after: Any, batch: Any, smoothing: np.ndarray | float) -> tuple[Any, Any]:
    """Of J_Q and, with the Q-functions as they are after their step, of J_π."""
    next_action = reference.deterministic_policy(before.target_actor_params, batch.next_obs)
    next_action = np.clip(next_action + smoothing, -1, 1)
    next_value = reference.q_values(before.target_critic_params, batch.next_obs, next_action).min(0)
    targets = batch.reward + DISCOUNT * np.where(batch.terminated, 0, next_value)

    def critic_loss(params: Any) -> float:
        return reference.critic_loss(params, batch.obs, batch.action, targets)

    def actor_loss(params: Any) -> float:
        action = reference.deterministic_policy(params, batch.obs)
        return -float(np.mean(reference.q_values(after.critic_params, batch.obs, action)[0]))

    of_critic = gradient(critic_loss, as_float64(before.critic_params))
    return of_critic, gradient(actor_loss, as_float64(before.actor_params))


def test_td3_smooths_its_targets_and_delays_its_policy() -> None:
    config = td3.Config(**SETTINGS, target_noise=0.4, target_noise_clip=0.3)
    update, before, other = two_states(td3, config, CONTINUOUS)
    before = replace(before, target_actor_params=other.actor_params, target_critic_params=other.critic_params)
    batch, key = a_batch(CONTINUOUS, BATCH_SIZE), jax.random.key(9)
    noise = 0.4 * noise_of(key, BATCH_SIZE)
    assert (abs(noise) > 0.3).any()

    first, _ = update(key, before, batch)
    of_critic, _ = td3_gradients(before, first, batch, np.clip(noise, -0.3, 0.3))
    assert_descended("critic", before, first, of_critic)
    for name in ("actor_params", "target_actor_params", "target_critic_params"):
        assert_same(getattr(first, name), getattr(before, name))
    assert_same(first.opt_states["actor"], before.opt_states["actor"])

    second, _ = update(key, first, batch)  # Adam's second step of the Q-functions, but the policy's first
    _, of_actor = td3_gradients(first, second, batch, 0.0)
    assert_descended("actor", first, second, of_actor)
    assert_moved(first.target_actor_params, second.actor_params, second.target_actor_params)
    assert_moved(first.target_critic_params, second.critic_params, second.target_critic_params)

    third, _ = update(key, second, batch)
    assert_same(third.actor_params, second.actor_params)


def test_ddpg_has_one_critic_no_smoothing_and_no_delay() -> None:
    update, before, other = two_states(ddpg, ddpg.Config(**SETTINGS), CONTINUOUS)
    before = replace(before, target_actor_params=other.actor_params, target_critic_params=other.critic_params)
    assert all(len(x) == 1 for x in jax.tree.leaves(before.critic_params))
    batch = a_batch(CONTINUOUS, BATCH_SIZE)
    after, _ = update(jax.random.key(9), before, batch)
    of_critic, of_actor = td3_gradients(before, after, batch, 0.0)
    assert_descended("critic", before, after, of_critic)
    assert_descended("actor", before, after, of_actor)
    assert_moved(before.target_actor_params, after.actor_params, after.target_actor_params)
    assert_moved(before.target_critic_params, after.critic_params, after.target_critic_params)


def test_exploration_is_noise_of_the_set_size_within_bounds() -> None:
    config = td3.Config(**SETTINGS, exploration_noise=0.3)
    agent = td3.make(config, CONTINUOUS, 1)
    state, obs = jax.jit(agent.init)(jax.random.key(0)), jnp.full((4000, OBS_DIM), 0.1)
    action, _ = jax.jit(agent.explore)(jax.random.key(1), state, obs)
    noise = np.asarray(action - jax.jit(agent.act)(jax.random.key(1), state, obs)[0])
    np.testing.assert_allclose(noise.mean(0), 0, atol=0.02)
    np.testing.assert_allclose(noise.std(0), 0.3, rtol=0.05)  # the mode is far from the bounds here
    bold = td3.make(replace(config, exploration_noise=10.0), CONTINUOUS, 1)
    assert np.abs(jax.jit(bold.explore)(jax.random.key(1), state, obs)[0]).max() == 1


ENDLESS = 1 / (1 - 0.8)


@pytest.mark.parametrize("agent", ["td3", pytest.param("ddpg", marks=pytest.mark.thorough)])
def test_values_are_right_where_only_time_limits_stop_episodes(agent: str) -> None:
    for state in solve(agent, stopped_on_reward()):
        for value, expected in {0.0: 0.8 * ENDLESS, 1.0: ENDLESS}.items():
            obs = np.full((1, 1), value)  # at the policy's own action: others it has long left
            q = reference.q_values(state.critic_params, obs, reference.deterministic_policy(state.actor_params, obs))
            np.testing.assert_allclose(q, expected, atol=0.1)


@pytest.mark.parametrize("agent", ["td3", "ddpg"])
def test_the_policy_finds_the_best_action(agent: str) -> None:
    for state in solve(agent, action_reward(best=0.5), total_timesteps=2000):
        action = reference.deterministic_policy(state.actor_params, np.zeros((1, 1)))
        np.testing.assert_allclose(action, 0.5, atol=0.05)

"""SAC on sequences: its targets against NumPy, λ = 0, and values that are known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from learning import solve
from one_update import (
    ACTION_DIM,
    CONTINUOUS,
    DISCOUNT,
    OBS_DIM,
    SETTINGS,
    TEMPERATURE,
    a_batch,
    noise_of,
    two_states,
)
from probe_envs import peak_ahead, stopped_on_reward
from reference import sac as reference

from jaxsoft import make_env, make_train
from jaxsoft.agents import sac
from jaxsoft.distributions import TanhNormal
from jaxsoft.errors import InputError
from jaxsoft.networks import TanhNormalPolicy, q_ensemble
from jaxsoft.ops import trace_coefficients
from jaxsoft.types import Env

LENGTH, NUM_SEQUENCES, LAMBDA = 4, 5, 0.8
MULTI_STEP = sac.Config(**SETTINGS, temperature=TEMPERATURE, sequence_length=LENGTH, lambda_=LAMBDA)


def test_multi_step_targets_match_numpy() -> None:
    _, state, other = two_states(sac, MULTI_STEP, CONTINUOUS)
    state = replace(state, target_critic_params=other.critic_params)
    batch, key = a_batch(CONTINUOUS, LENGTH, NUM_SEQUENCES), jax.random.key(9)
    hidden_sizes = MULTI_STEP.hidden_sizes
    networks = sac.make_networks(TanhNormalPolicy(ACTION_DIM, hidden_sizes), q_ensemble(2, hidden_sizes), obs_rank=1)
    # what follows an end is never looked at
    beyond = replace(batch, next_obs=np.where(batch.terminated[..., None], np.nan, batch.next_obs))  # type: ignore[index]
    arguments = state.target_critic_params, TEMPERATURE, DISCOUNT, LAMBDA, batch, noise_of(key, LENGTH, NUM_SEQUENCES)
    expected = reference.multi_step_targets(state.actor_params, *arguments)
    targets = jax.jit(sac.multi_step_targets, static_argnums=2)(key, state, networks, beyond, DISCOUNT, LAMBDA)
    np.testing.assert_allclose(targets, expected, rtol=1e-4, atol=1e-4)
    one_step = jax.jit(sac.critic_targets, static_argnums=2)(key, state, networks, beyond, DISCOUNT)
    assert (abs(targets - one_step) > 1e-2).mean() > 0.3


def test_without_lambda_sequences_are_single_transitions() -> None:
    plain_update, before, other = two_states(sac, replace(MULTI_STEP, sequence_length=1, lambda_=0.0), CONTINUOUS)
    update, _, _ = two_states(sac, replace(MULTI_STEP, lambda_=0.0), CONTINUOUS)
    before = replace(before, target_critic_params=other.critic_params)
    batch, key = a_batch(CONTINUOUS, LENGTH, NUM_SEQUENCES), jax.random.key(9)
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)
    actual, expected = update(key, before, batch), plain_update(key, before, flat)
    # the same formula on the same numbers, compiled in two programs: sums may be fused in another order
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), actual, expected)


@pytest.mark.parametrize("mean", [0.3, 12.0])
def test_on_policy_the_coefficients_are_1_at_the_bounds_too(mean: float) -> None:
    # tanh(12) is 1 in float32: what was drawn cannot be had back from the action, and its density neither
    policy = TanhNormal(jnp.full((100, 1), mean), jnp.full((100, 1), -0.5))
    networks: Any = sac.Networks(lambda params, obs: policy, None, None)  # type: ignore[arg-type]
    agent = sac.assemble(MULTI_STEP, CONTINUOUS, networks, lambda key: (jnp.zeros(()), jnp.zeros(())), -1.0)
    action, log_prob = agent.explore(jax.random.key(0), agent.init(jax.random.key(0)), jnp.zeros((100, OBS_DIM)))
    np.testing.assert_array_equal(trace_coefficients("retrace", policy.log_prob(action), log_prob), 1)


def test_lambda_without_sequences_is_refused() -> None:
    for agent, env_id in (("sac", "gymnax/Pendulum-v1"), ("sac_discrete", "gymnax/CartPole-v1")):
        with pytest.raises(InputError, match=r"lambda_ is 0.9; without sequences it must be 0 \(sequence_length is 1"):
            make_train(agent, make_env(env_id), total_timesteps=20_000, lambda_=0.9)


ENDLESS = 1 / (1 - 0.8)
SOFT = np.log(np.sqrt(np.pi / 20))  # of `peak_ahead` at temperature 1


@pytest.mark.parametrize(
    ("env", "values", "settings"),
    [
        (stopped_on_reward(), {0.0: 0.8 * ENDLESS, 1.0: ENDLESS}, {}),  # only ever stopped by its time limit
        pytest.param(
            peak_ahead(),
            {0.0: 0.8 * SOFT},
            {"temperature": 1.0, "learning_rate": 1e-3, "hidden_sizes": (32, 32)},
            marks=pytest.mark.thorough,
        ),
    ],
    ids=["stopped_on_reward", "peak_ahead"],
)
def test_learned_values_are_the_known_ones(env: Env, values: dict[float, float], settings: dict[str, Any]) -> None:
    # random actions at first, and those of policies long gone: the coefficients have to set them right
    for state in solve("sac", env, lambda_=0.9, sequence_length=5, batch_size=16, **settings):
        for obs, expected in values.items():
            q = reference.q_values(state.critic_params, np.full((5, 1), obs), np.linspace(-0.5, 0.5, 5)[:, None])
            np.testing.assert_allclose(q, expected, atol=0.15)

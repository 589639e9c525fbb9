"""SAC on sequences: its targets against NumPy, λ = 0, and values that are known."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.learning import solve
from support.one_update import (
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
from support.probe_envs import action_reward, peak_ahead, stopped_on_reward
from support.reference import sac as reference
from support.reference.tanh_normal import log_prob_of_distant_pre_tanh

from jaxsoft import make_env, make_train
from jaxsoft.agents import actor_critic, sac
from jaxsoft.errors import InputError
from jaxsoft.nn.distributions import TanhNormal
from jaxsoft.nn.networks import Layers, QFunction, TanhNormalPolicy, ensemble
from jaxsoft.ops import trace_coefficients
from jaxsoft.training.config import make_config
from jaxsoft.training.loop import init, make_loop
from jaxsoft.training.state import Loop
from jaxsoft.training.turns import take_turn
from jaxsoft.types import Choice, Env

LENGTH, NUM_SEQUENCES, LAMBDA = 4, 5, 0.8
MULTI_STEP = sac.Config(**SETTINGS, temperature=TEMPERATURE, sequence_length=LENGTH, lambda_=LAMBDA)


def far_out(state: Any, batch: Any) -> tuple[Any, Any]:
    """A policy whose means are near 12 and −13, and what an earlier one stored, 0.3 away: all actions are ±1."""
    params = jax.tree.map(np.array, state.actor_params)
    params["params"]["Dense_0"]["bias"] += np.array([12, -13, -1, -1], np.float32)  # means, log standard deviations
    mean, log_std = (x.reshape(batch.action.shape) for x in reference.policy(params, batch.obs.reshape(-1, OBS_DIM)))
    pre_tanh = (mean + 0.3 + np.exp(log_std) * 2 * batch.action).astype(np.float32)
    log_prob = log_prob_of_distant_pre_tanh(pre_tanh, mean + 0.3, log_std).astype(np.float32)
    stored = replace(batch, action=np.tanh(pre_tanh), pre_tanh=pre_tanh, log_prob=log_prob)
    return replace(state, actor_params=params), stored


@pytest.mark.parametrize("saturated", [False, True])
def test_multi_step_targets_match_numpy(saturated: bool) -> None:
    _, state, other = two_states(sac, MULTI_STEP, CONTINUOUS)
    state = replace(state, target_critic_params=other.critic_params)
    batch, key = a_batch(CONTINUOUS, LENGTH, NUM_SEQUENCES), jax.random.key(9)
    if saturated:
        state, batch = far_out(state, batch)
        np.testing.assert_array_equal(np.abs(batch.action), 1)
    layers = Layers(MULTI_STEP.hidden_sizes)
    networks = sac.make_networks(TanhNormalPolicy(ACTION_DIM, layers), ensemble(QFunction, 2)(layers), obs_rank=1)
    # what follows an end is never looked at
    beyond = replace(batch, next_obs=np.where(batch.terminated[..., None], np.nan, batch.next_obs))  # type: ignore[index]
    arguments = state.target_critic_params, TEMPERATURE, DISCOUNT, LAMBDA, batch, noise_of(key, LENGTH, NUM_SEQUENCES)
    expected = reference.multi_step_targets(state.actor_params, *arguments)
    targets = jax.jit(sac.multi_step_targets, static_argnums=2)(key, state, networks, beyond, MULTI_STEP)
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
def test_coefficients_are_those_of_the_draws_at_the_bounds_too(mean: float) -> None:
    # tanh(12) is 1 in float32: what was drawn cannot be had back from the action, and its density neither
    policy, later = (TanhNormal(jnp.full((100, 1), m), jnp.full((100, 1), np.log(0.3))) for m in (mean, mean - 1))
    networks: Any = sac.Networks(lambda params, obs: policy, None, None)  # type: ignore[arg-type]
    agent = sac.assemble(MULTI_STEP, CONTINUOUS, networks, lambda key: (jnp.zeros(()), jnp.zeros(())), -1.0)
    chosen = Choice(*agent.explore(jax.random.key(0), agent.init(jax.random.key(0)), jnp.zeros((100, OBS_DIM))))

    def coefficients(policy: TanhNormal) -> np.ndarray:
        log_pi = actor_critic.stored_log_prob(policy, chosen.action, chosen.pre_tanh)
        return np.asarray(trace_coefficients("retrace", log_pi, chosen.log_prob))

    np.testing.assert_array_equal(coefficients(policy), 1)
    noise = (np.asarray(chosen.pre_tanh, np.float64)[:, 0] - mean) / 0.3
    expected = np.minimum(1, np.exp((noise**2 - (noise + 1 / 0.3) ** 2) / 2))
    assert np.median(expected) < 0.01
    np.testing.assert_allclose(coefficients(later), expected, rtol=1e-4)


def test_sequences_hold_the_value_before_tanh_and_single_transitions_do_not(key: jax.Array) -> None:
    def loop_of(**settings: Any) -> Loop:
        sizes = {"learning_starts": 40, "replay_capacity": 50, "batch_size": 5, "hidden_sizes": (3,)}
        return make_loop(action_reward(), make_config("sac", "", sizes | settings))

    sequences, single = loop_of(sequence_length=2, lambda_=0.9), loop_of()
    state = cast(Any, jax.jit(partial(init, loop=sequences))(key))
    rows = jax.tree.map(lambda x: np.asarray(x[:40]), state.replay_state.data)
    np.testing.assert_allclose(rows.pre_tanh, np.arctanh(rows.action), rtol=1e-4)  # of random actions, too
    after = cast(Any, jax.eval_shape(partial(take_turn, loop=sequences), state))
    assert after.replay_state.data.pre_tanh.shape == after.replay_state.data.action.shape
    assert cast(Any, jax.eval_shape(partial(init, loop=single), key)).replay_state.data.pre_tanh is None


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

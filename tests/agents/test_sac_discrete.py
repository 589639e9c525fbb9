"""Discrete SAC: one update against NumPy, and values that are known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import optax
import pytest
from support.learning import solve
from support.one_update import (
    BATCH_SIZE,
    DISCOUNT,
    DISCRETE,
    NUM_ACTIONS,
    SETTINGS,
    TEMPERATURE,
    a_batch,
    assert_descended,
    assert_moved,
    assert_same,
    two_states,
)
from support.probe_envs import choice_ahead, stopped_on_reward
from support.reference import soft_q as reference
from support.reference.soft_q import as_float64, gradient

from jaxsoft.agents import sac_discrete
from jaxsoft.types import Discrete, Env


def log_policy(params: Any, obs: Any) -> np.ndarray:
    """Log π [..., A]."""
    logits = reference.q_values(params, obs)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def twins(params: Any, obs: Any) -> np.ndarray:
    """Both Q-functions [2, ..., A]."""
    return np.stack([reference.q_values(reference.member(params, i), obs) for i in range(2)])


def test_discrete_sac_takes_exact_expectations() -> None:
    config = sac_discrete.Config(**SETTINGS, temperature=TEMPERATURE, target_entropy_share=0.5)
    update, before, other = two_states(sac_discrete, config, DISCRETE)
    before = replace(before, target_critic_params=other.critic_params)
    batch = a_batch(DISCRETE, BATCH_SIZE)
    after, metrics = update(jax.random.key(9), before, batch)
    again, _ = update(jax.random.key(10), before, batch)
    assert_same(again, after)  # nothing is drawn

    def soft_values(actor_params: Any, critic_params: Any, obs: Any) -> np.ndarray:
        log_pi, q = log_policy(actor_params, obs), twins(critic_params, obs).min(0)
        return np.array(
            [
                sum(np.exp(p[a]) * (x[a] - TEMPERATURE * p[a]) for a in range(NUM_ACTIONS))
                for p, x in zip(log_pi, q, strict=True)
            ]
        )

    next_value = soft_values(before.actor_params, before.target_critic_params, batch.next_obs)
    targets = batch.reward + DISCOUNT * np.where(batch.terminated, 0, next_value)

    def critic_loss(params: Any) -> float:
        q_a = twins(params, batch.obs)[:, np.arange(BATCH_SIZE), np.asarray(batch.action)]
        return sum(0.5 * float(np.mean((q - targets) ** 2)) for q in q_a)

    def actor_loss(params: Any) -> float:
        return -float(np.mean(soft_values(params, after.critic_params, batch.obs)))

    assert_descended("critic", before, after, gradient(critic_loss, as_float64(before.critic_params)))
    assert_descended("actor", before, after, gradient(actor_loss, as_float64(before.actor_params)))
    assert_moved(before.target_critic_params, after.critic_params, after.target_critic_params)
    log_pi = log_policy(before.actor_params, batch.obs)
    entropy = -np.mean(np.sum(np.exp(log_pi) * log_pi, -1))
    np.testing.assert_allclose(metrics["entropy"], entropy, rtol=1e-5)
    moment = optax.tree.get(after.opt_states["temperature"], "mu")  # of J_τ in log τ
    np.testing.assert_allclose(moment, 0.1 * TEMPERATURE * (entropy - 0.5 * np.log(NUM_ACTIONS)), rtol=1e-4)


def test_discrete_sac_sees_images_through_convolutions() -> None:
    spec = replace(DISCRETE, obs_shape=(10, 10, 4), obs_dtype=np.dtype(bool))
    agent = sac_discrete.make(sac_discrete.Config(hidden_sizes=(8,), channels=(2,)), spec, 1)
    state = jax.eval_shape(agent.init, jax.random.key(0))
    assert state.actor_params["params"]["Conv_0"]["kernel"].shape == (3, 3, 4, 2)
    assert state.critic_params["params"]["Conv_0"]["kernel"].shape == (2, 3, 3, 4, 2)
    obs = jax.ShapeDtypeStruct((7, 10, 10, 4), bool)
    action, log_prob = jax.eval_shape(agent.act, jax.random.key(0), state, obs)
    assert action.shape == log_prob.shape == (7,)


GAMMA, ARMS, TWO = 0.8, (1.0, 0.5, -1.0), Discrete(2)
BONUS = TEMPERATURE * np.log(2)  # of acting at random where both actions are as good
CHOICE = TEMPERATURE * np.log(np.sum(np.exp(np.array(ARMS) / TEMPERATURE)))


@pytest.mark.parametrize(
    ("env", "values"),
    [
        (choice_ahead(ARMS), {0.0: GAMMA * CHOICE, 1.0: ARMS}),
        pytest.param(
            stopped_on_reward(TWO),  # only ever by its time limit
            {0.0: GAMMA * (1 + BONUS) / (1 - GAMMA), 1.0: (1 + GAMMA * BONUS) / (1 - GAMMA)},
            marks=pytest.mark.thorough,
        ),
    ],
    ids=["choice_ahead", "stopped_on_reward"],
)
def test_learned_values_are_the_known_ones(env: Env, values: dict[float, Any]) -> None:
    for state in solve("sac_discrete", env, temperature=TEMPERATURE):
        for obs, expected in values.items():
            q = twins(state.critic_params, np.array([[obs]]))
            np.testing.assert_allclose(q, np.broadcast_to(expected, q.shape), atol=0.1, err_msg=f"at {obs}")
        if env.spec.id == "probe/choice_ahead":
            log_pi = log_policy(state.actor_params, np.array([[1.0]]))[0]
            np.testing.assert_allclose(np.exp(log_pi), np.exp((np.array(ARMS) - CHOICE) / TEMPERATURE), atol=0.03)

"""λ-returns for control: full steps from an arbitrary Q can cycle for ever, see experiments/convergence.md."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.reference import returns as reference

from jaxsoft.envs.mdp import FiniteMDP
from jaxsoft.ops import boltzmann_log_probs, soft_value, trace_coefficients
from jaxsoft.tabular import soft_policy_iteration

# State 0: stay, or go to state 1. State 1: back to state 0 either way, with reward 1 or without. The behaviour rarely
# goes, and rarely takes the reward.
NEXT_STATE = np.array([[0, 1], [0, 0]])
REWARD = np.array([[0.0, 0.0], [1.0, 0.0]])
BEHAVIOUR = np.array([[0.9, 0.1], [0.1, 0.9]])
GAMMA, TAU, LOG_PRIOR = 0.95, 0.05, np.full(2, -np.log(2))
STAY = np.array([[10.0, 0.0], [0.0, 0.0]])
"""A first Q that believes in staying."""


def backup(q: jax.Array, trace: str, lambda_: float | jax.Array, reward: np.ndarray = REWARD) -> jax.Array:
    """The expected λ-return of every pair under the behaviour: Q + (I − γλ P c μ)⁻¹ (r + γ P V − Q)."""
    log_pi = boltzmann_log_probs(q, jnp.asarray(LOG_PRIOR), TAU)
    kept = BEHAVIOUR * trace_coefficients(trace, log_pi, jnp.log(BEHAVIOUR))  # [S, A], of each next pair
    moves = jax.nn.one_hot(NEXT_STATE.ravel(), 2)[:, :, None] * kept  # [S·A, S', A']
    errors = reward + GAMMA * soft_value(q, jnp.asarray(LOG_PRIOR), TAU)[NEXT_STATE] - q
    return q + jnp.linalg.solve(jnp.eye(4) - GAMMA * lambda_ * moves.reshape(4, 4), errors.ravel()).reshape(2, 2)


@partial(jax.jit, static_argnames="trace")
@partial(jax.vmap, in_axes=(0, 0, 0, None, None))
def last_three(
    q: jax.Array, step_size: jax.Array, lambda_: jax.Array, trace: str, reward: np.ndarray = REWARD
) -> jax.Array:
    """Q after 1,500 to 1,502 backups, [3, S, A]."""

    def step(q: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        q = q + step_size * (backup(q, trace, lambda_, reward) - q)
        return q, q

    return jax.lax.scan(step, q, length=1_502)[1][-3:]


def optimum(reward: np.ndarray) -> np.ndarray:
    mdp = FiniteMDP(np.eye(2)[NEXT_STATE], reward, discount=GAMMA)
    return np.asarray(soft_policy_iteration(mdp, temperature=TAU, tolerance=1e-11).q)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("trace", ["tree_backup", "retrace"])
def test_full_steps_cycle_where_small_ones_and_those_from_a_pessimistic_q_converge(trace: str) -> None:
    cases = [  # a first Q, the step size, λ
        (STAY, 1.0, 1.0),
        (STAY, 1.0, 0.7),
        (STAY, 0.5, 1.0),
        (np.zeros((2, 2)), 1.0, 1.0),
        (np.full((2, 2), -20.0), 1.0, 1.0),
        (STAY, 1.0, 0.0),
    ]
    results = np.asarray(last_three(*map(jnp.array, zip(*cases, strict=True)), trace, REWARD))
    for first, _, last in results[:2]:
        np.testing.assert_allclose(last, first, atol=1e-9)
    found = [np.abs(after - before).max() for before, after, _ in results[:2]]
    np.testing.assert_allclose(found, [2.027, 1.0005 if trace == "tree_backup" else 1.0008], atol=1e-4 * 3)
    q_star = optimum(REWARD)
    np.testing.assert_allclose(results[2:], np.broadcast_to(q_star, (4, 3, 2, 2)), atol=1e-8)
    for q in (results[0, 0], results[0, 1]):
        assert np.abs(q - q_star).max() > 2
    for q in (np.zeros((2, 2)), np.full((2, 2), -20.0)):
        assert (np.asarray(backup(jnp.asarray(q), trace, 1.0)) >= q - 1e-12).all()  # pessimistic
    assert (np.asarray(backup(jnp.asarray(STAY), trace, 1.0)) < STAY).any()  # and this one is not


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("trace", ["tree_backup", "retrace"])
def test_q_0_is_no_safe_start_where_rewards_are_negative(trace: str) -> None:
    """The same process with all rewards less by 2: Q* is less by 2/(1 − γ), and Q = 0 is far above it."""
    zeros = np.zeros((2, 2))
    cases = [(zeros, 1.0, 1.0), (zeros, 0.5, 1.0), (zeros - 100, 1.0, 1.0)]
    full, small, pessimistic = np.asarray(last_three(*map(jnp.array, zip(*cases, strict=True)), trace, REWARD - 2))
    np.testing.assert_allclose(full[2], full[0], atol=1e-9)
    assert np.abs(full[1] - full[0]).max() > 1
    np.testing.assert_allclose(small[2], optimum(REWARD) - 2 / (1 - GAMMA), atol=1e-8)
    np.testing.assert_allclose(pessimistic[2], small[2], atol=1e-8)


@pytest.mark.usefixtures("x64")
def test_importance_sampling_at_lambda_1_evaluates_the_policy_exactly() -> None:
    """In expectation it is soft policy iteration, which never cycles."""
    q = jnp.asarray(STAY)
    evaluated, log_pi = (
        np.asarray(backup(q, "importance_sampling", 1.0)),
        boltzmann_log_probs(q, jnp.asarray(LOG_PRIOR), TAU),
    )
    pi, penalty = np.exp(log_pi), TAU * (np.asarray(log_pi) - LOG_PRIOR)
    v = np.sum(pi * (evaluated - penalty), axis=-1)
    np.testing.assert_allclose(evaluated, REWARD + GAMMA * v[NEXT_STATE], atol=1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("trace", ["tree_backup", "retrace"])
def test_the_backup_is_the_sum_over_all_that_may_follow(trace: str) -> None:
    """From the definitions: errors of all later pairs, weighed with probability and trace, until γ^k is nothing."""
    rng = np.random.default_rng(0)
    q, lambda_ = 0.1 * rng.normal(size=(2, 2)), 0.8
    v, pi = (np.array([f(row, LOG_PRIOR, TAU) for row in q]) for f in (reference.soft_value, reference.boltzmann))
    expected = q.copy()
    for s, a in np.ndindex(2, 2):
        weights = np.zeros((2, 2))
        weights[s, a] = 1.0
        for _ in range(200):
            following = np.zeros((2, 2))
            for i, j in np.ndindex(2, 2):
                expected[s, a] += weights[i, j] * (REWARD[i, j] + GAMMA * v[NEXT_STATE[i, j]] - q[i, j])
                for b, mu in enumerate(BEHAVIOUR[NEXT_STATE[i, j]]):
                    c = reference.coefficient(trace, pi[NEXT_STATE[i, j]], b, mu)
                    following[NEXT_STATE[i, j], b] += weights[i, j] * GAMMA * lambda_ * mu * c
            weights = following
    np.testing.assert_allclose(backup(jnp.asarray(q), trace, lambda_), expected, rtol=1e-10)

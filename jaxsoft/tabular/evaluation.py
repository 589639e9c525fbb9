"""The values of a given policy in a finite MDP: soft, by sweeps or exactly, and its plain mean return.

    Q ← r + γ P V^π,    V^π(s) = Σ_a π(a|s) Q(s,a) − τ KL[π(·|s) ‖ π0(·|s)]

Source: Haarnoja et al. 2018a, arXiv:1801.01290, lemma 1, with a reference policy.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from flax import struct

from jaxsoft.envs.mdp import FiniteMDP, expected_rewards, transition_matrix
from jaxsoft.errors import require
from jaxsoft.ops import kl_divergence
from jaxsoft.tabular.checks import check_iteration, check_objective, check_policy
from jaxsoft.tabular.sweeps import SweepHistory, bellman_backup, discounted_probs, repeat_sweeps


@struct.dataclass
class Evaluation:
    """Result of `soft_policy_evaluation`: the policy's soft action values [S, A], and the history of the sweeps."""

    q: jax.Array
    history: SweepHistory


def soft_policy_evaluation(
    mdp: FiniteMDP,
    policy: jax.Array,
    *,
    temperature: float | jax.Array,
    reference_log_probs: jax.Array | None = None,
    tolerance: float = 1e-6,
    max_sweeps: int = 20_000,
    num_recorded: int = 1_000,
    initial_v: jax.Array | None = None,
) -> Evaluation:
    """Soft action values of a policy, by sweeps until V changes by no more than the tolerance (Lemma 1).

        V ← Σ_a π (r + γ P V) − τ KL[π ‖ π0],    Q = r + γ P V

    Args:
        mdp: the process.
        policy: [S, A], probabilities π(a|s).
        temperature: [], τ > 0.
        reference_log_probs: [S, A], log π0; uniform by default.
        tolerance: largest change of V in the last sweep, in units of reward; the error is at most γ/(1−γ) times that.
            Where the dtype cannot tell so little from rounding, four units in the last place of the largest value.
        max_sweeps: after which it stops in any case; static.
        num_recorded: first sweeps whose residual is kept; static.
        initial_v: [S]; zeros by default.

    Raises:
        InputError: a number out of range, rows of the policy that do not sum to 1, a reference that forbids every
            action, or shapes that do not fit the process.
    """
    temperature, reference_log_probs = check_objective(mdp, temperature, reference_log_probs)
    policy = check_policy(mdp, policy)
    check_iteration(tolerance, max_sweeps=max_sweeps, num_recorded=num_recorded)
    v = jnp.zeros(mdp.num_states, policy.dtype) if initial_v is None else jnp.asarray(initial_v, policy.dtype)
    return evaluate(mdp, policy, temperature, reference_log_probs, tolerance, v, max_sweeps, num_recorded)


@partial(jax.jit, static_argnames=("max_sweeps", "num_recorded"))
def evaluate(
    mdp: FiniteMDP,
    policy: jax.Array,
    temperature: jax.Array,
    reference_log_probs: jax.Array,
    tolerance: float | jax.Array,
    v: jax.Array,
    max_sweeps: int,
    num_recorded: int,
) -> Evaluation:
    """`soft_policy_evaluation` of checked arrays, starting from V [S]."""
    gains = jnp.sum(policy * expected_rewards(mdp), axis=-1) - _penalty(policy, temperature, reference_log_probs)
    weights = policy[..., None] * discounted_probs(mdp)

    def update(v: jax.Array) -> jax.Array:
        return gains + jnp.sum(weights * v[mdp.next_states], axis=(-2, -1))

    v, history = repeat_sweeps(update, v, tolerance, max_sweeps, num_recorded)
    return Evaluation(bellman_backup(mdp, v), history)


def soft_policy_evaluation_exact(
    mdp: FiniteMDP,
    policy: jax.Array,
    *,
    temperature: float | jax.Array,
    reference_log_probs: jax.Array | None = None,
) -> jax.Array:
    """Soft action values of a policy, by solving its linear equations.

        (I − γ P_π) V = r_π − τ KL[π ‖ π0],    Q = r + γ P V

    S × S numbers are held, and S³ operations done. For the arguments see `soft_policy_evaluation`.

    Returns:
        [S, A], Q^π.

    Raises:
        InputError: as `soft_policy_evaluation`.
    """
    temperature, reference_log_probs = check_objective(mdp, temperature, reference_log_probs)
    return _evaluation_exact(mdp, check_policy(mdp, policy), temperature, reference_log_probs)


@jax.jit
def _evaluation_exact(
    mdp: FiniteMDP, policy: jax.Array, temperature: jax.Array, reference_log_probs: jax.Array
) -> jax.Array:
    matrix = mdp.discount * jnp.einsum("sa,sat->st", policy, transition_matrix(mdp))
    gains = jnp.sum(policy * expected_rewards(mdp), axis=-1) - _penalty(policy, temperature, reference_log_probs)
    return bellman_backup(mdp, jnp.linalg.solve(jnp.eye(mdp.num_states, dtype=gains.dtype) - matrix, gains))


def _penalty(policy: jax.Array, temperature: jax.Array, reference_log_probs: jax.Array) -> jax.Array:
    """[S], τ KL[π ‖ π0]."""
    return temperature * kl_divergence(jnp.log(policy), reference_log_probs)


def expected_return(mdp: FiniteMDP, policy: jax.Array, *, max_episode_steps: int) -> jax.Array:
    """Mean return of an episode in the plain task: undiscounted, without penalty, with a time limit.

        G(s, h) = Σ_a π(a|s) Σ_k p(k|s,a) [ r(s,a,k) + (1 − terminated(s,a,k)) G(s_k, h − 1) ],    G(s, 0) = 0

    Args:
        mdp: the process; its discount is not used.
        policy: [S, A], probabilities π(a|s).
        max_episode_steps: the time limit; static.

    Returns:
        [], Σ_s initial(s) G(s, max_episode_steps).

    Raises:
        InputError: rows of the policy that do not sum to 1, or no step at all.
    """
    require("max_episode_steps", max_episode_steps, lambda x: x >= 1, "a positive integer")
    return _expected_return(mdp, check_policy(mdp, policy), max_episode_steps)


@partial(jax.jit, static_argnames="max_episode_steps")
def _expected_return(mdp: FiniteMDP, policy: jax.Array, max_episode_steps: int) -> jax.Array:
    rewards = jnp.sum(policy * expected_rewards(mdp), axis=-1)
    weights = policy[..., None] * jnp.where(mdp.terminated, 0, mdp.transition_probs)

    def longer(_: int | jax.Array, returns: jax.Array) -> jax.Array:
        return rewards + jnp.sum(weights * returns[mdp.next_states], axis=(-2, -1))

    returns = jax.lax.fori_loop(0, max_episode_steps, longer, jnp.zeros_like(rewards))
    return jnp.sum(mdp.initial_probs * returns)

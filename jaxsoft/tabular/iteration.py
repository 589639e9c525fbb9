"""Soft policy improvement and iteration, and soft value iteration, on finite MDPs.

    π ← π_Q, the Boltzmann policy of Q

Everything is jit-compiled and vmaps over temperatures, references, discounts and MDPs of one size.

Source: Haarnoja et al. 2018a, arXiv:1801.01290, lemma 2 and theorem 1, with a reference policy.
"""

from __future__ import annotations

from functools import partial
from typing import Generic, TypeVar

import jax
import jax.numpy as jnp
from flax import struct

from jaxsoft.envs.mdp import FiniteMDP, expected_rewards
from jaxsoft.ops import boltzmann_log_probs, soft_value
from jaxsoft.tabular.checks import check_iteration, check_objective, check_policy
from jaxsoft.tabular.evaluation import evaluate
from jaxsoft.tabular.sweeps import SweepHistory, attainable_tolerance, bellman_backup, discounted_probs, repeat_sweeps


@struct.dataclass
class PolicyHistory:
    """Residuals and gains of the policies; entry i is of the i-th policy evaluated, each [max_iterations].

    Attributes:
        residuals: how far Q is from solving the optimality equation: max |r + γ P V_Q − Q| (Theorem 1: goes to 0).
        smallest_gains: the least that any Q(s,a) gained over the policy before (Lemma 2: never below −tolerance).
        largest_gains: the most that any Q(s,a) gained.
        num_sweeps: int32, sweeps of each evaluation (0 where there was none).
        num_iterations: [], int32, policies evaluated.
    """

    residuals: jax.Array
    smallest_gains: jax.Array
    largest_gains: jax.Array
    num_sweeps: jax.Array
    num_iterations: jax.Array


History = TypeVar("History", PolicyHistory, SweepHistory)


@struct.dataclass
class Optimum(Generic[History]):
    """Result of `soft_policy_iteration` and `soft_value_iteration`.

    Attributes:
        q: [S, A], Q* within the tolerance.
        v: [S], the soft value of `q`.
        policy: [S, A], probabilities of the Boltzmann policy of `q`.
        history: of the policies or of the sweeps.
    """

    q: jax.Array
    v: jax.Array
    policy: jax.Array
    history: History


def soft_policy_improvement(
    q: jax.Array, *, temperature: float | jax.Array, reference_log_probs: jax.Array
) -> jax.Array:
    """The policy that is best for these values: its own values are nowhere lower (Lemma 2).

        π(a|s) = π0(a|s) exp((Q(s,a) − V_Q(s)) / τ)

    Args:
        q: [S, A], Q of the present policy.
        temperature: [], τ > 0.
        reference_log_probs: [S, A], log π0.

    Returns:
        [S, A], probabilities.

    Raises:
        InputError: the temperature is not a positive number.
    """
    return jnp.exp(boltzmann_log_probs(q, reference_log_probs, temperature))


def soft_policy_iteration(
    mdp: FiniteMDP,
    *,
    temperature: float | jax.Array,
    reference_log_probs: jax.Array | None = None,
    tolerance: float = 1e-6,
    max_iterations: int = 100,
    max_sweeps: int = 20_000,
    initial_policy: jax.Array | None = None,
) -> Optimum[PolicyHistory]:
    """Evaluates and improves in turn until no value changes by more than the tolerance (Theorem 1).

    Each evaluation starts from the soft value of the Q before, which is nowhere above the new policy's value.

    Args:
        mdp: the process.
        temperature: [], τ > 0.
        reference_log_probs: [S, A], log π0; uniform by default.
        tolerance: in units of reward, of each evaluation and of the optimality equation at the end; see
            `soft_policy_evaluation`.
        max_iterations: policies evaluated at most; static.
        max_sweeps: sweeps of one evaluation at most; static.
        initial_policy: [S, A], probabilities; the Boltzmann policy of Q = 0, which is the reference, by default.

    Raises:
        InputError: as `soft_policy_evaluation`.
    """
    temperature, reference_log_probs = check_objective(mdp, temperature, reference_log_probs)
    check_iteration(tolerance, max_iterations=max_iterations, max_sweeps=max_sweeps)
    if initial_policy is None:
        initial_policy = jax.nn.softmax(reference_log_probs, axis=-1)
    policy = check_policy(mdp, initial_policy)
    return _policy_iteration(mdp, policy, temperature, reference_log_probs, tolerance, max_iterations, max_sweeps)


@partial(jax.jit, static_argnames=("max_iterations", "max_sweeps"))
def _policy_iteration(
    mdp: FiniteMDP,
    policy: jax.Array,
    temperature: jax.Array,
    reference_log_probs: jax.Array,
    tolerance: float | jax.Array,
    max_iterations: int,
    max_sweeps: int,
) -> Optimum[PolicyHistory]:
    def unfinished(result: Optimum[PolicyHistory]) -> jax.Array:
        i = result.history.num_iterations
        unsolved = result.history.residuals[i - 1] > attainable_tolerance(tolerance, result.q)
        return (i == 0) | (unsolved & (i < max_iterations))

    def iterate(result: Optimum[PolicyHistory]) -> Optimum[PolicyHistory]:
        history, i = result.history, result.history.num_iterations
        evaluation = evaluate(
            mdp, result.policy, temperature, reference_log_probs, tolerance, result.v, max_sweeps, num_recorded=1
        )
        q = evaluation.q
        v = soft_value(q, reference_log_probs, temperature)
        gain = jnp.where(i == 0, jnp.nan, q - result.q)
        history = PolicyHistory(
            residuals=history.residuals.at[i].set(jnp.max(jnp.abs(bellman_backup(mdp, v) - q))),
            smallest_gains=history.smallest_gains.at[i].set(jnp.min(gain)),
            largest_gains=history.largest_gains.at[i].set(jnp.max(gain)),
            num_sweeps=history.num_sweeps.at[i].set(evaluation.history.num_sweeps),
            num_iterations=i + 1,
        )
        policy = soft_policy_improvement(q, temperature=temperature, reference_log_probs=reference_log_probs)
        return Optimum(q, v, policy, history)

    empty = jnp.full(max_iterations, jnp.nan, policy.dtype)
    history = PolicyHistory(empty, empty, empty, jnp.zeros(max_iterations, jnp.int32), jnp.int32(0))
    first = Optimum(jnp.zeros_like(policy), jnp.zeros(mdp.num_states, policy.dtype), policy, history)
    return jax.lax.while_loop(unfinished, iterate, first)


def soft_value_iteration(
    mdp: FiniteMDP,
    *,
    temperature: float | jax.Array,
    reference_log_probs: jax.Array | None = None,
    tolerance: float = 1e-6,
    max_sweeps: int = 20_000,
    num_recorded: int = 1_000,
) -> Optimum[SweepHistory]:
    """The optimal soft values by sweeps of the optimality equation, until V changes by no more than the tolerance.

        V(s) ← τ log Σ_a π0(a|s) exp(Q(s,a)/τ),    Q = r + γ P V

    For the arguments see `soft_policy_evaluation`.

    Raises:
        InputError: as `soft_policy_evaluation`.
    """
    temperature, reference_log_probs = check_objective(mdp, temperature, reference_log_probs)
    check_iteration(tolerance, max_sweeps=max_sweeps, num_recorded=num_recorded)
    return _value_iteration(mdp, temperature, reference_log_probs, tolerance, max_sweeps, num_recorded)


@partial(jax.jit, static_argnames=("max_sweeps", "num_recorded"))
def _value_iteration(
    mdp: FiniteMDP,
    temperature: jax.Array,
    reference_log_probs: jax.Array,
    tolerance: float | jax.Array,
    max_sweeps: int,
    num_recorded: int,
) -> Optimum[SweepHistory]:
    rewards, weights = expected_rewards(mdp), discounted_probs(mdp)

    def update(v: jax.Array) -> jax.Array:
        q = rewards + jnp.sum(weights * v[mdp.next_states], axis=-1)
        return soft_value(q, reference_log_probs, temperature)

    v = jnp.zeros(mdp.num_states, rewards.dtype)
    v, history = repeat_sweeps(update, v, tolerance, max_sweeps, num_recorded)
    q = bellman_backup(mdp, v)
    policy = soft_policy_improvement(q, temperature=temperature, reference_log_probs=reference_log_probs)
    return Optimum(q, soft_value(q, reference_log_probs, temperature), policy, history)

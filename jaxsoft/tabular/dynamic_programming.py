"""Soft policy evaluation, improvement and iteration, and soft value iteration, on finite MDPs.

    evaluation     Q ← r + γ P V^π,  V^π(s) = Σ_a π(a|s) Q(s,a) − τ KL[π(·|s) ‖ π0(·|s)]
    improvement    π ← π_Q, the Boltzmann policy of Q

Everything is jit-compiled and vmaps over temperatures, references, discounts and MDPs of one size. Histories have a
fixed length; entries that were not needed are NaN.

Source: Haarnoja et al. 2018a, arXiv:1801.01290, lemmas 1 and 2 and theorem 1, with a reference policy.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import struct

from jaxsoft.envs.mdp import FiniteMDP, expected_rewards, transition_matrix
from jaxsoft.errors import require
from jaxsoft.ops import boltzmann_log_probs, kl_divergence, soft_value
from jaxsoft.tabular.checks import check_iteration, check_objective, check_policy

_ROUNDING = 4
"""Units in the last place of the largest value by which two sweeps may differ for ever."""

_PATIENCE = 200
"""Sweeps without progress after which such a difference counts as rounding."""


@struct.dataclass
class SweepHistory:
    """How sweeps over the states went.

    Attributes:
        residuals: [num_recorded], the largest change of V in each sweep; shrinks by γ or faster (Lemma 1).
        num_sweeps: [], int32.
    """

    residuals: jax.Array
    num_sweeps: jax.Array


@struct.dataclass
class PolicyHistory:
    """How policies followed one another; entry i is of the i-th policy evaluated, each [max_iterations].

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


@struct.dataclass
class Evaluation:
    """Result of `soft_policy_evaluation`.

    Attributes:
        q: [S, A], the policy's soft action values.
        history: of the sweeps.
    """

    q: jax.Array
    history: SweepHistory


@struct.dataclass
class PolicyIteration:
    """Result of `soft_policy_iteration`.

    Attributes:
        q: [S, A], the last policy's action values; Q* within the tolerance.
        v: [S], the soft value of `q`.
        policy: [S, A], probabilities of the Boltzmann policy of `q`.
        history: of the policies.
    """

    q: jax.Array
    v: jax.Array
    policy: jax.Array
    history: PolicyHistory


@struct.dataclass
class ValueIteration:
    """Result of `soft_value_iteration`.

    Attributes:
        q: [S, A], Q* within the tolerance.
        v: [S], the soft value of `q`.
        policy: [S, A], probabilities of the Boltzmann policy of `q`.
        history: of the sweeps.
    """

    q: jax.Array
    v: jax.Array
    policy: jax.Array
    history: SweepHistory


def bellman_backup(mdp: FiniteMDP, v: jax.Array) -> jax.Array:
    """Action values one step before these state values.

        Q(s,a) = Σ_k p(k|s,a) [ r(s,a,k) + γ (1 − terminated(s,a,k)) V(s_k) ]

    Args:
        mdp: the process.
        v: [S], V.

    Returns:
        [S, A], Q.
    """
    discounts = jnp.where(mdp.terminated, 0, mdp.discount)
    return jnp.sum(mdp.transition_probs * (mdp.rewards + discounts * v[mdp.next_states]), axis=-1)


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
    return _evaluate(mdp, policy, temperature, reference_log_probs, tolerance, v, max_sweeps, num_recorded)


def soft_policy_evaluation_exact(
    mdp: FiniteMDP,
    policy: jax.Array,
    *,
    temperature: float | jax.Array,
    reference_log_probs: jax.Array | None = None,
) -> jax.Array:
    """Soft action values of a policy, by solving its linear equations.

        (I − γ P_π) V = r_π − τ KL[π ‖ π0],    Q = r + γ P V

    Args:
        mdp: the process; S × S numbers are held, and S³ operations done.
        policy: [S, A], probabilities π(a|s).
        temperature: [], τ > 0.
        reference_log_probs: [S, A], log π0; uniform by default.

    Returns:
        [S, A], Q^π.

    Raises:
        InputError: as `soft_policy_evaluation`.
    """
    temperature, reference_log_probs = check_objective(mdp, temperature, reference_log_probs)
    return _evaluate_exactly(mdp, check_policy(mdp, policy), temperature, reference_log_probs)


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
) -> PolicyIteration:
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
    return _iterate_policies(mdp, policy, temperature, reference_log_probs, tolerance, max_iterations, max_sweeps)


def soft_value_iteration(
    mdp: FiniteMDP,
    *,
    temperature: float | jax.Array,
    reference_log_probs: jax.Array | None = None,
    tolerance: float = 1e-6,
    max_sweeps: int = 20_000,
    num_recorded: int = 1_000,
) -> ValueIteration:
    """The optimal soft values by sweeps of the optimality equation, until V changes by no more than the tolerance.

        V(s) ← τ log Σ_a π0(a|s) exp(Q(s,a)/τ),    Q = r + γ P V

    Args:
        mdp: the process.
        temperature: [], τ > 0.
        reference_log_probs: [S, A], log π0; uniform by default.
        tolerance: largest change of V in the last sweep, in units of reward; see `soft_policy_evaluation`.
        max_sweeps: after which it stops in any case; static.
        num_recorded: first sweeps whose residual is kept; static.

    Raises:
        InputError: as `soft_policy_evaluation`.
    """
    temperature, reference_log_probs = check_objective(mdp, temperature, reference_log_probs)
    check_iteration(tolerance, max_sweeps=max_sweeps, num_recorded=num_recorded)
    return _iterate_values(mdp, temperature, reference_log_probs, tolerance, max_sweeps, num_recorded)


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

    def one_step_more(_: int | jax.Array, returns: jax.Array) -> jax.Array:
        return rewards + jnp.sum(weights * returns[mdp.next_states], axis=(-2, -1))

    returns = jax.lax.fori_loop(0, max_episode_steps, one_step_more, jnp.zeros_like(rewards))
    return jnp.sum(mdp.initial_probs * returns)


def _sweep(
    update: Callable[[jax.Array], jax.Array],
    v: jax.Array,
    tolerance: float | jax.Array,
    max_sweeps: int,
    num_recorded: int,
) -> tuple[jax.Array, SweepHistory]:
    """Repeats V ← update(V) until V is still."""

    def unfinished(state: tuple[jax.Array, ...]) -> jax.Array:
        v, _, num_sweeps, residual, _, num_stalled = state
        # A slow contraction moves by single units in the last place for long, and stands still only after that.
        stuck = (num_stalled >= _PATIENCE) & (residual <= _attainable(tolerance, v))
        return (residual > tolerance) & ~stuck & (num_sweeps < max_sweeps)

    def sweep(state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        v, residuals, num_sweeps, _, least, num_stalled = state
        new_v = update(v)
        residual = jnp.max(jnp.abs(new_v - v))
        residuals = residuals.at[num_sweeps].set(residual, mode="drop")
        num_stalled = jnp.where(residual < least, 0, num_stalled + 1)
        return new_v, residuals, num_sweeps + 1, residual, jnp.minimum(residual, least), num_stalled

    infinity = jnp.asarray(jnp.inf, v.dtype)
    start = (v, jnp.full(num_recorded, jnp.nan, v.dtype), jnp.int32(0), infinity, infinity, jnp.int32(0))
    v, residuals, num_sweeps, *_ = jax.lax.while_loop(unfinished, sweep, start)
    return v, SweepHistory(residuals, num_sweeps)


def _attainable(tolerance: float | jax.Array, values: jax.Array) -> jax.Array:
    """The tolerance, or what rounding leaves of values as large as these."""
    return jnp.maximum(tolerance, _ROUNDING * jnp.finfo(values.dtype).eps * jnp.max(jnp.abs(values)))


def _discounted_probs(mdp: FiniteMDP) -> jax.Array:
    """[S, A, K], γ p(k|s,a) where the task goes on."""
    return jnp.where(mdp.terminated, 0, mdp.discount * mdp.transition_probs)


def _penalty(policy: jax.Array, temperature: jax.Array, reference_log_probs: jax.Array) -> jax.Array:
    """[S], τ KL[π ‖ π0]."""
    return temperature * kl_divergence(jnp.log(policy), reference_log_probs)


@partial(jax.jit, static_argnames=("max_sweeps", "num_recorded"))
def _evaluate(
    mdp: FiniteMDP,
    policy: jax.Array,
    temperature: jax.Array,
    reference_log_probs: jax.Array,
    tolerance: float | jax.Array,
    v: jax.Array,
    max_sweeps: int,
    num_recorded: int,
) -> Evaluation:
    gains = jnp.sum(policy * expected_rewards(mdp), axis=-1) - _penalty(policy, temperature, reference_log_probs)
    weights = policy[..., None] * _discounted_probs(mdp)

    def update(v: jax.Array) -> jax.Array:
        return gains + jnp.sum(weights * v[mdp.next_states], axis=(-2, -1))

    v, history = _sweep(update, v, tolerance, max_sweeps, num_recorded)
    return Evaluation(bellman_backup(mdp, v), history)


@jax.jit
def _evaluate_exactly(
    mdp: FiniteMDP, policy: jax.Array, temperature: jax.Array, reference_log_probs: jax.Array
) -> jax.Array:
    matrix = mdp.discount * jnp.einsum("sa,sat->st", policy, transition_matrix(mdp))
    gains = jnp.sum(policy * expected_rewards(mdp), axis=-1) - _penalty(policy, temperature, reference_log_probs)
    return bellman_backup(mdp, jnp.linalg.solve(jnp.eye(mdp.num_states, dtype=gains.dtype) - matrix, gains))


@partial(jax.jit, static_argnames=("max_iterations", "max_sweeps"))
def _iterate_policies(
    mdp: FiniteMDP,
    policy: jax.Array,
    temperature: jax.Array,
    reference_log_probs: jax.Array,
    tolerance: float | jax.Array,
    max_iterations: int,
    max_sweeps: int,
) -> PolicyIteration:
    def unfinished(result: PolicyIteration) -> jax.Array:
        i = result.history.num_iterations
        unsolved = result.history.residuals[i - 1] > _attainable(tolerance, result.q)
        return (i == 0) | (unsolved & (i < max_iterations))

    def iterate(result: PolicyIteration) -> PolicyIteration:
        history, i = result.history, result.history.num_iterations
        evaluation = _evaluate(
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
        return PolicyIteration(q, v, policy, history)

    empty = jnp.full(max_iterations, jnp.nan, policy.dtype)
    history = PolicyHistory(empty, empty, empty, jnp.zeros(max_iterations, jnp.int32), jnp.int32(0))
    start = PolicyIteration(jnp.zeros_like(policy), jnp.zeros(mdp.num_states, policy.dtype), policy, history)
    return jax.lax.while_loop(unfinished, iterate, start)


@partial(jax.jit, static_argnames=("max_sweeps", "num_recorded"))
def _iterate_values(
    mdp: FiniteMDP,
    temperature: jax.Array,
    reference_log_probs: jax.Array,
    tolerance: float | jax.Array,
    max_sweeps: int,
    num_recorded: int,
) -> ValueIteration:
    rewards, weights = expected_rewards(mdp), _discounted_probs(mdp)

    def update(v: jax.Array) -> jax.Array:
        q = rewards + jnp.sum(weights * v[mdp.next_states], axis=-1)
        return soft_value(q, reference_log_probs, temperature)

    v = jnp.zeros(mdp.num_states, rewards.dtype)
    v, history = _sweep(update, v, tolerance, max_sweeps, num_recorded)
    q = bellman_backup(mdp, v)
    policy = soft_policy_improvement(q, temperature=temperature, reference_log_probs=reference_log_probs)
    return ValueIteration(q, soft_value(q, reference_log_probs, temperature), policy, history)

"""The numbers of soft_q_lambda.py, which says what they are: errors, variances of returns, lengths of traces."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pages import TRACES
from rows import error_weights, median, read_rows, weighted_error, write_rows

from jaxsoft.envs import finite
from jaxsoft.envs.mdp import FiniteMDP, reachable_states, transition_matrix
from jaxsoft.ops import boltzmann_log_probs, soft_lambda_returns, soft_value, trace_coefficients
from jaxsoft.tabular import record_transitions, soft_policy_iteration, soft_q_lambda
from jaxsoft.tabular.behaviour import Behaviour, BoltzmannBehaviour, OnPolicy, Uniform

ROWS = Path(__file__).parent / "soft_q_lambda.csv"
NUM_SEEDS = 256
NUM_STEPS, NUM_RECORDS = 4_000, 8
LAMBDAS = (0.0, 0.4, 0.7, 0.9, 1.0)
STEP_SIZES = (0.03, 0.1, 0.25, 0.5, 1.0)
DIVERGED_ABOVE = 10.0
SHOWN_LAMBDA = 0.9
"""Of the figures that have no λ on an axis."""
TEMPERATURES = np.geomspace(0.1, 100, 19)
"""As multiples of the task's own."""


class Task(NamedTuple):
    """An MDP, or one per seed, with the temperature and the time limit it is learned with."""

    name: str
    build: Callable[[], FiniteMDP]
    temperature: float
    max_episode_steps: int
    one_per_seed: bool = False


def garnets() -> FiniteMDP:
    """A random MDP for every seed."""
    keys = jax.random.split(jax.random.key(1), NUM_SEEDS)
    return jax.vmap(lambda key: finite.garnet(key, 20, 4, 3))(keys)


TASKS = (
    Task("Chain-20", partial(finite.chain, 20), 0.02, 1_600),
    Task("MultiGoal-7x7", partial(finite.gridworld, 7, 7), 0.1, 490),
    Task("CliffWalking", finite.cliff_walking, 0.5, 1_000),
    Task("Garnet-20x4x3", garnets, 1.0, 100, one_per_seed=True),
)


def behaviours(temperature: float | jax.Array) -> dict[str, Behaviour]:
    """Who acts: the target policy, one of twice its temperature, or anyone."""
    return {"on-policy": OnPolicy(), "near-policy": BoltzmannBehaviour(2 * temperature), "far-off-policy": Uniform()}


BEHAVIOURS = ("on-policy", "near-policy", "far-off-policy")


class Row(NamedTuple):
    """One setting: medians over seeds and the ends of their 95 % intervals."""

    task: str
    behaviour: str
    trace: str
    lambda_: float
    step_size: float
    mean_error: float
    mean_error_low: float
    mean_error_high: float
    final_error: float
    final_error_low: float
    final_error_high: float
    num_diverged: int


def measure() -> list[Row]:
    """Learns every setting with every seed, and writes the numbers."""
    rows = []
    for task in TASKS:
        mdps, q_star, weights = solve_task(task)
        for behaviour_name, behaviour in behaviours(task.temperature).items():
            for trace in TRACES:
                start = time.perf_counter()
                # λ = 0 has no trace: it is learned once and stands for all four.
                lambdas = LAMBDAS if trace == TRACES[0] else LAMBDAS[1:]
                pairs = [(lambda_, step_size) for lambda_ in lambdas for step_size in STEP_SIZES]
                errors = learn(
                    mdps, q_star, weights, jnp.array(pairs), behaviour, task.temperature, trace=trace, task=task
                )
                for (lambda_, step_size), seeds in zip(pairs, np.asarray(errors), strict=True):
                    name = trace if lambda_ else "one step"
                    rows.append(Row(task.name, behaviour_name, name, lambda_, step_size, *summary(seeds)))
                print(f"{task.name}, {behaviour_name}, {trace}: {time.perf_counter() - start:.0f} s", flush=True)
    write_rows(ROWS, rows)
    return read_rows(ROWS, Row)


def solve_task(task: Task) -> tuple[FiniteMDP, jax.Array, jax.Array]:
    """A task's MDP or MDPs, their Q*, and the weights of the error, which sum to 1 over Q*²."""
    mdps = task.build()

    def solve(mdp: FiniteMDP) -> tuple[jax.Array, jax.Array]:
        best = soft_policy_iteration(mdp, temperature=task.temperature, tolerance=1e-5)
        return best.q, best.policy

    q_star, policy = jax.vmap(solve)(mdps) if task.one_per_seed else solve(mdps)
    reachable = jnp.ones(policy.shape[-2]) if task.one_per_seed else jnp.asarray(reachable_states(mdps), float)
    return mdps, q_star, error_weights(q_star, policy, reachable)


@partial(jax.jit, static_argnames=("trace", "task"))
def learn(
    mdps: FiniteMDP,
    q_star: jax.Array,
    weights: jax.Array,
    pairs: jax.Array,
    behaviour: Behaviour,
    temperature: float,
    *,
    trace: str,
    task: Task,
) -> jax.Array:
    """Errors E [num_pairs, NUM_SEEDS, NUM_RECORDS] of pairs (λ, α) [num_pairs, 2]."""
    keys = jax.random.split(jax.random.key(0), NUM_SEEDS)
    axis = 0 if task.one_per_seed else None

    def seed(
        key: jax.Array, mdp: FiniteMDP, q_star: jax.Array, weights: jax.Array, lambda_: jax.Array, step_size: jax.Array
    ) -> jax.Array:
        learned = soft_q_lambda(
            key,
            mdp,
            num_steps=NUM_STEPS,
            num_records=NUM_RECORDS,
            temperature=temperature,
            lambda_=lambda_,
            step_size=step_size,
            trace=trace,
            behaviour=behaviour,
            max_episode_steps=task.max_episode_steps,
        )
        return weighted_error(learned.history.q, q_star, weights)

    def setting(pair: jax.Array) -> jax.Array:
        return jax.vmap(seed, (0, axis, axis, axis, None, None))(keys, mdps, q_star, weights, pair[0], pair[1])

    return jax.lax.map(setting, pairs)  # one after the other: the tables of 256 seeds stay in the cache


def summary(errors: np.ndarray) -> tuple[Any, ...]:
    """Medians and intervals of errors [NUM_SEEDS, NUM_RECORDS], and the number of diverged seeds."""
    diverged = ~np.all(np.isfinite(errors) & (errors < DIVERGED_ABOVE), axis=-1)
    errors = np.where(diverged[:, None], np.inf, errors)
    return *median(errors.mean(-1)), *median(errors[:, -1]), int(diverged.sum())


class Spread(NamedTuple):
    """How noisy λ-returns are while Q stands at Q*/2 and λ is 0.9: ratios of variances, medians over seeds.

    The variance is that of the returns of one state and action, averaged over those visited. `far` is the total
    variation between the behaviour and the target policy, averaged over visits.
    """

    task: str
    behaviour: str
    far: float
    sampling_to_tree: tuple[float, float, float]
    retrace_to_tree: tuple[float, float, float]


def spread(task: Task, behaviour_name: str) -> Spread:
    """Variances of the forward view's returns on data recorded with Q frozen."""
    mdps, q_star, _ = solve_task(task)
    behaviour = behaviours(task.temperature)[behaviour_name]
    axis = 0 if task.one_per_seed else None
    keys = jax.random.split(jax.random.key(2), NUM_SEEDS)
    one = partial(return_variances, behaviour=behaviour, task=task)
    variances, far = jax.jit(jax.vmap(one, (0, axis, axis)))(keys, mdps, q_star / 2)
    variances = {name: np.asarray(value) for name, value in variances.items()}
    tree = variances["tree_backup"]
    ratios = variances["importance_sampling"] / tree, variances["retrace"] / tree
    return Spread(task.name, behaviour_name, float(far.mean()), *(median(ratio) for ratio in ratios))


def return_variances(
    key: jax.Array, mdp: FiniteMDP, q: jax.Array, *, behaviour: Behaviour, task: Task
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Variance of λ-returns given state and action, for every trace coefficient; and how far off-policy it is."""
    limit = task.max_episode_steps
    e = record_transitions(
        key, mdp, num_steps=NUM_STEPS, temperature=task.temperature, q=q, behaviour=behaviour, max_episode_steps=limit
    )
    reference = jnp.full_like(q, -jnp.log(mdp.num_actions))
    v, log_pi = soft_value(q, reference, task.temperature), boltzmann_log_probs(q, reference, task.temperature)
    discount = jnp.where(e.terminated, 0, mdp.discount)
    q_a_t = jnp.roll(q[e.state, e.action], -1)
    pair = e.state * mdp.num_actions + e.action
    total = partial(jax.ops.segment_sum, segment_ids=pair, num_segments=q.size)
    variances = {}
    for trace in TRACES:
        c = jnp.roll(trace_coefficients(trace, log_pi[e.state, e.action], e.log_mu), -1)
        returns = soft_lambda_returns(
            e.reward, discount, v[e.next_state], q_a_t, jnp.where(e.truncated, 0, c), SHOWN_LAMBDA
        )
        counts, sums = total(jnp.ones_like(returns)), total(returns)
        residuals = returns - (sums / jnp.maximum(counts, 1))[pair]
        variances[trace] = jnp.sum(residuals**2) / jnp.sum(jnp.maximum(counts - 1, 0))
    tau = jnp.asarray(task.temperature)
    mu = jax.vmap(behaviour.log_probs, (0, 0, None, 0))(q, reference, tau, jnp.arange(mdp.num_states))
    return variances, jnp.mean(0.5 * jnp.sum(jnp.abs(jnp.exp(mu) - jnp.exp(log_pi)), axis=-1)[e.state])


def trace_lengths(task: Task) -> dict[tuple[str, str], np.ndarray]:
    """Mean length of a trace at Q*, in steps, for behaviours and trace coefficients over `TEMPERATURES`: exactly.

    L(s,a) = 1 + γ λ Σ_s' P(s'|s,a) Σ_a' μ(a'|s') c(a'|s') L(s',a'), averaged over states that can be visited and a ~ μ.
    """
    mdp = jax.tree.map(lambda x: x[0], task.build()) if task.one_per_seed else task.build()
    weights = jnp.asarray(reachable_states(mdp), float)
    matrix, reference = transition_matrix(mdp), jnp.full((mdp.num_states, mdp.num_actions), -jnp.log(mdp.num_actions))

    def length(temperature: jax.Array, behaviour: str, trace: str) -> jax.Array:
        q = soft_policy_iteration(mdp, temperature=temperature, tolerance=1e-5).q
        log_pi = boltzmann_log_probs(q, reference, temperature)
        acting = behaviours(temperature)[behaviour]
        log_mu = jax.vmap(acting.log_probs, (0, 0, None, 0))(q, reference, temperature, jnp.arange(mdp.num_states))
        kept = jnp.exp(log_mu) * trace_coefficients(trace, log_pi, log_mu)

        def longer(_: int | jax.Array, lengths: jax.Array) -> jax.Array:
            return 1 + mdp.discount * SHOWN_LAMBDA * matrix @ jnp.sum(kept * lengths, axis=-1)

        lengths = jax.lax.fori_loop(0, 200, longer, jnp.ones_like(q))
        return weights @ jnp.sum(jnp.exp(log_mu) * lengths, axis=-1) / jnp.sum(weights)

    pairs = [(behaviour, trace) for behaviour in BEHAVIOURS for trace in ("tree_backup", "retrace")]
    temperatures = jnp.asarray(TEMPERATURES) * task.temperature
    return {
        pair: np.asarray(jax.jit(jax.vmap(partial(length, behaviour=pair[0], trace=pair[1])))(temperatures))
        for pair in pairs
    }

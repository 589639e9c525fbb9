"""The numbers of off_policy.py, which says what they are: gains over one-step learning from the same behaviour."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from lambda_on_cartpole import AT_ONCE, CARTPOLE
from reference_policies import BEHAVIOURS, TASKS, Task, make_priors, solve
from rows import error_weights, median, read_rows, weighted_error, write_rows
from soft_q_lambda_numbers import DIVERGED_ABOVE, garnets

import jaxsoft
from jaxsoft.agents import boltzmann, soft_q
from jaxsoft.envs.mdp import FiniteMDP, reachable_states
from jaxsoft.fleet.programs import seed_keys
from jaxsoft.ops import boltzmann_log_probs
from jaxsoft.ops.traces import TRACES
from jaxsoft.reports.statistics import iqm_interval
from jaxsoft.tabular import soft_q_lambda
from jaxsoft.tabular.behaviour import Behaviour, Fixed
from jaxsoft.types import Agent, EnvSpec, Metrics, Transition

ROWS = Path(__file__).with_name("off_policy.csv")
ONE_STEP = "one step"
LAMBDAS = (0.5, 0.9, 1.0)
NUM_SEEDS, NUM_STEPS, NUM_RECORDS = 128, 4_000, 8
STEP_SIZES = (0.05, 0.1, 0.25, 0.5, 1.0)
GARNET, GARNET_TEMPERATURES, GARNET_STEPS = "Garnet-20x4x3", (0.1, 1.0), 100
STRANGER = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Share of another MDP's soft optimum in the behaviour."""
FLOOR = 0.1
"""Share of uniformly random actions in the behaviour beside it, so that every action is tried."""
RANDOM = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Share of uniformly random actions on CartPole."""
CARTPOLE_SEEDS, CARTPOLE_LAMBDA = 32, 0.9
CARTPOLE_SETTINGS = {"hidden_sizes": (16,), "total_timesteps": 40_000, "eval_every": 10_000}
CARTPOLE_CELLS = ((ONE_STEP, 0.0, 1e-2), (ONE_STEP, 0.0, 3e-2), *((trace, CARTPOLE_LAMBDA, 3e-2) for trace in TRACES))
"""Coefficient, λ and step size, as in lambda_on_cartpole.py: longer returns need the larger step size, and one step
does better with the smaller one, where the policy acts."""


class Row(NamedTuple):
    """One setting over seeds.

    `tv` and `kl` are the distances of the behaviour from the target policy, TV(μ, π) and KL[π ‖ μ]. On tables `score`
    is the median of the mean errors and `gain` that of their ratios to one step at its best step size with the same
    seed; on CartPole the IQM of the final returns and that of their differences to one step at the better of two.
    """

    task: str
    temperature: float
    prior: str
    behaviour: str
    tv: float
    kl: float
    trace: str
    lambda_: float
    step_size: float
    score: float
    score_low: float
    score_high: float
    gain: float
    gain_low: float
    gain_high: float
    num_diverged: int
    num_seeds: int


class Problem(NamedTuple):
    """A process per seed with its solution, [NUM_SEEDS, ...], and a behaviour to learn it from."""

    mdps: FiniteMDP
    q_star: jax.Array
    policy: jax.Array
    weights: jax.Array
    reference: jax.Array
    temperature: float
    behaviour: Behaviour
    max_episode_steps: int


def measure(rows: list[Row]) -> list[Row]:
    """The rows that are missing, after those that are not."""
    known = {(row.task, row.temperature) for row in rows}
    for temperature in GARNET_TEMPERATURES:
        if (GARNET, temperature) not in known:
            for share, problem in garnet_problems(temperature).items():
                rows = [*rows, *learn_table((GARNET, temperature, "neutral", share), problem, TRACES)]
            write_rows(ROWS, rows)
    for task in TASKS[:2]:
        for temperature in task.temperatures:
            if (task.name, temperature) not in known:
                for (prior, name), problem in prior_problems(task, temperature).items():
                    setting = task.name, temperature, prior, name
                    rows = [*rows, *learn_table(setting, problem, ("tree_backup", "retrace"))]
                write_rows(ROWS, rows)
    if (CARTPOLE, 1.0) not in known:
        rows = [*rows, *learn_cartpole()]
        write_rows(ROWS, rows)
    return read_rows(ROWS, Row)


def garnet_problems(temperature: float) -> dict[str, Problem]:
    """A Garnet per seed, and fixed behaviours from its own soft optimum's to that of the next seed's Garnet."""
    mdps = jax.tree.map(lambda x: x[:NUM_SEEDS], garnets())
    reference = jnp.full(mdps.rewards.shape[:3], -jnp.log(mdps.rewards.shape[2]))
    q_star, policy = jax.jit(jax.vmap(solve, (0, None, 0)))(mdps, temperature, reference)
    weights = error_weights(q_star, policy, jnp.ones(q_star.shape[1]))
    stranger = jnp.roll(policy, 1, axis=0)
    acting = {x: (1 - FLOOR) * ((1 - x) * policy + x * stranger) + FLOOR * jnp.exp(reference) for x in STRANGER}
    return {
        f"{x:g}": Problem(mdps, q_star, policy, weights, reference, temperature, Fixed(probs), GARNET_STEPS)
        for x, probs in acting.items()
    }


def prior_problems(task: Task, temperature: float) -> dict[tuple[str, str], Problem]:
    """One process, learned relative to each prior, while the target policy or anyone acts."""
    problems = {}
    for prior, reference in make_priors(task.mdp).items():
        q_star, policy = solve(task.mdp, temperature, reference)
        weights = error_weights(q_star, policy, jnp.asarray(reachable_states(task.mdp), float))
        same = jax.tree.map(
            lambda x: jnp.broadcast_to(x, (NUM_SEEDS, *jnp.shape(x))), (task.mdp, q_star, policy, weights, reference)
        )
        for name, behaviour in BEHAVIOURS.items():
            problems[prior, name] = Problem(
                *same, temperature=temperature, behaviour=behaviour, max_episode_steps=task.max_episode_steps
            )
    return problems


def learn_table(setting: tuple[str, float, str, str], problem: Problem, traces: Sequence[str]) -> list[Row]:
    """Rows of one step and of every coefficient, λ and step size."""
    start = time.perf_counter()
    errors: dict[tuple[str, float, float], np.ndarray] = {}
    for i, trace in enumerate(traces):
        pairs = list(itertools.product(LAMBDAS if i else (0.0, *LAMBDAS), STEP_SIZES))
        found = np.asarray(learn(problem, jnp.array(pairs), trace=trace))
        is_lost = ~np.all(np.isfinite(found) & (found < DIVERGED_ABOVE), axis=-1)
        for pair, lost, own in zip(pairs, is_lost, found, strict=True):
            errors[(trace if pair[0] else ONE_STEP, *pair)] = np.where(lost, np.inf, own.mean(axis=-1))
    one_step = min((own for name, own in errors.items() if name[0] == ONE_STEP), key=np.median)
    tv, kl = (float(x) for x in distances(problem))
    print(*setting, f"{time.perf_counter() - start:.0f} s", flush=True)
    return [
        Row(*setting, tv, kl, *name, *median(own), *median(own / one_step), int(np.isinf(own).sum()), NUM_SEEDS)
        for name, own in errors.items()
    ]


@partial(jax.jit, static_argnames="trace")
def learn(problem: Problem, pairs: jax.Array, *, trace: str) -> jax.Array:
    """Errors [num_pairs, NUM_SEEDS, NUM_RECORDS] of pairs (λ, α)."""

    def setting(pair: jax.Array) -> jax.Array:
        def seed(key: jax.Array, own: Problem) -> jax.Array:
            learned = soft_q_lambda(
                key,
                own.mdps,
                num_steps=NUM_STEPS,
                num_records=NUM_RECORDS,
                temperature=own.temperature,
                lambda_=pair[0],
                step_size=pair[1],
                trace=trace,
                reference_log_probs=own.reference,
                behaviour=own.behaviour,
                max_episode_steps=own.max_episode_steps,
            )
            return weighted_error(learned.history.q, own.q_star, own.weights)

        keys = jax.random.split(jax.random.key(0), NUM_SEEDS)
        return jax.vmap(seed, (0, AXES))(keys, problem)

    return jax.lax.map(setting, pairs)


AXES: Any = Problem(*[0] * 5, None, 0, None)  # type: ignore
"""What there is one of for every seed."""


@jax.jit
def distances(problem: Problem) -> jax.Array:
    """TV(μ, π) and KL[π ‖ μ] at Q*, means over the states that can be visited and over seeds."""

    def seed(own: Problem) -> jax.Array:
        tau = jnp.asarray(own.temperature)
        log_pi = boltzmann_log_probs(own.q_star, own.reference, tau)
        act = jax.vmap(own.behaviour.log_probs, (0, 0, None, 0))
        log_mu = act(own.q_star, own.reference, tau, jnp.arange(len(own.q_star)))
        visited = jnp.sum(own.weights, axis=-1) > 0
        return jnp.array([jnp.sum(visited * x) / jnp.sum(visited) for x in far_apart(log_pi, log_mu)])

    return jnp.mean(jax.vmap(seed, (AXES,))(problem), axis=0)


def far_apart(log_pi: jax.Array, log_mu: jax.Array) -> tuple[jax.Array, jax.Array]:
    """TV(μ, π) and KL[π ‖ μ] of log-probabilities [..., A]: [...] each."""
    pi = jnp.exp(log_pi)
    kl = jnp.sum(jnp.where(pi > 0, pi * (log_pi - log_mu), 0), axis=-1)
    return 0.5 * jnp.sum(jnp.abs(pi - jnp.exp(log_mu)), axis=-1), kl


def learn_cartpole() -> list[Row]:
    """Rows of `CARTPOLE_CELLS` for each share of random actions; all seeds of all shares at once."""
    found = {}
    for cell in CARTPOLE_CELLS:
        start = time.perf_counter()
        trace, lambda_, learning_rate = cell
        named = {} if trace == ONE_STEP else {"trace": trace}
        found[cell] = cartpole_returns(CARTPOLE_SETTINGS | named | {"lambda_": lambda_, "learning_rate": learning_rate})
        print(f"CartPole, {trace}, α = {learning_rate:g}: {time.perf_counter() - start:.0f} s", flush=True)
    rows = []
    for i, share in enumerate(RANDOM):
        scores = {cell: metrics["eval_return"][i] for cell, metrics in found.items()}
        one_step = max(
            (scores[cell] for cell in scores if cell[0] == ONE_STEP), key=lambda own: iqm_interval(own).point
        )
        for cell, own in scores.items():
            tv, kl = (float(found[cell][name][i].mean()) for name in ("tv", "kl"))
            numbers = *iqm_interval(own), *iqm_interval(own - one_step)
            setting = CARTPOLE, 1.0, "neutral", f"{share:g}", tv, kl, *cell
            rows.append(Row(*setting, *numbers, num_diverged=int((~np.isfinite(own)).sum()), num_seeds=len(own)))
    return rows


def cartpole_returns(settings: dict[str, Any]) -> dict[str, np.ndarray]:
    """The last report's metrics [shares, seeds]."""
    kind = replace(soft_q.KIND, make=make_with_distances)
    env = jaxsoft.make_env(CARTPOLE)

    def learn_one(member: tuple[jax.Array, jax.Array]) -> Metrics:
        key, share = member
        whole = jaxsoft.make_train(kind, env, exploration=share, **settings)
        metrics = whole(key)[1]
        return {name: metrics[name][-1] for name in ("eval_return", "tv", "kl_to_behaviour")}

    keys = seed_keys(jnp.tile(jnp.arange(CARTPOLE_SEEDS, dtype=jnp.int32), len(RANDOM)))
    shares = jnp.repeat(jnp.asarray(RANDOM, jnp.float32), CARTPOLE_SEEDS)
    found = jax.jit(lambda *x: jax.lax.map(learn_one, x, batch_size=AT_ONCE))(keys, shares)
    found = {name: np.asarray(x).reshape(len(RANDOM), CARTPOLE_SEEDS) for name, x in found.items()}
    return {"eval_return": found["eval_return"], "tv": found["tv"], "kl": found["kl_to_behaviour"]}


def make_with_distances(config: soft_q.Config, spec: EnvSpec, num_updates: int) -> Agent:
    """Soft Q(λ) whose metrics tell how far its behaviour is from its policy."""
    agent = soft_q.make(config, spec, num_updates)
    network = boltzmann.q_function(config, spec)
    policy = boltzmann.make_boltzmann(config, spec, network.apply, num_updates)  # type: ignore[arg-type]

    def update(key: jax.Array, state: soft_q.State, batch: Transition) -> tuple[soft_q.State, Metrics]:
        log_pi = boltzmann.policy_log_probs(policy, state.policy, batch.obs)
        share, num_actions = boltzmann.exploration(policy, state.policy), log_pi.shape[-1]
        tv, kl = far_apart(log_pi, jnp.log((1 - share) * jnp.exp(log_pi) + share / num_actions))
        state, metrics = agent.update(key, state, batch)
        return state, metrics | {"tv": jnp.mean(tv), "kl_to_behaviour": jnp.mean(kl)}

    return agent._replace(update=update, metrics=(*agent.metrics, "tv", "kl_to_behaviour"))

"""Online Soft Q(λ) against the known Q*: `python experiments/soft_q_lambda.py` (about 15 minutes on 2 CPU cores).

Four tasks, three behaviours, four trace coefficients, λ × step size, 256 seeds each. It writes beside itself

    soft_q_lambda.csv               every setting's errors, with intervals, and its diverged seeds
    soft_q_lambda.md                the questions, the answers in words and their tables
    soft_q_lambda_lambda.png        error over λ, each at its best step size
    soft_q_lambda_step_size.png     error over the step size at λ = 0.9
    soft_q_lambda_temperature.png   how long traces are at each temperature

`--redraw` keeps the numbers of soft_q_lambda.csv and does the rest again.

The error of a table Q is E = sqrt(Σ w (Q − Q*)² / Σ w Q*²), w the optimal soft policy's probabilities in every state that
can be visited: 1 before the first step (Q = 0), and not moved by actions that the optimal policy never takes. `mean_error`
averages it over the run (the area under the learning curve: speed), `final_error` is the last. A seed has diverged where
E is no finite number or above 10; it counts as infinite. Over seeds: the median, with the order statistics that bound it
with 95 % confidence whatever the distribution.
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsoft.envs import finite
from jaxsoft.envs.mdp import FiniteMDP, reachable_states
from jaxsoft.ops.traces import TRACES
from jaxsoft.tabular import soft_policy_iteration, soft_q_lambda
from jaxsoft.tabular.behaviour import Behaviour, Boltzmann, OnPolicy, Uniform

HERE = Path(__file__).parent
NUM_SEEDS = 256
NUM_STEPS, NUM_RECORDS = 4_000, 8
LAMBDAS = (0.0, 0.4, 0.7, 0.9, 1.0)
STEP_SIZES = (0.03, 0.1, 0.25, 0.5, 1.0)
DIVERGED_ABOVE = 10.0


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


def behaviours(temperature: float) -> dict[str, Behaviour]:
    """Who acts: the target policy, one of twice its temperature, or anyone."""
    return {"on-policy": OnPolicy(), "near-policy": Boltzmann(2 * temperature), "far-off-policy": Uniform()}


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


def main() -> None:
    rows = read() if "--redraw" in sys.argv[1:] else measure()
    print(len(rows))


def measure() -> list[Row]:
    """Learns every setting with every seed, and writes the numbers."""
    rows = []
    for task in TASKS:
        mdps, q_star, weights = solved(task)
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
    with (HERE / "soft_q_lambda.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows([f"{value:.4g}" if isinstance(value, float) else value for value in row] for row in rows)
    return read()


def read() -> list[Row]:
    """The numbers as they were written."""
    with (HERE / "soft_q_lambda.csv").open() as file:
        records = list(csv.DictReader(file))
    kinds = {"task": str, "behaviour": str, "trace": str, "num_diverged": int}
    return [Row(**{name: kinds.get(name, float)(value) for name, value in record.items()}) for record in records]


def solved(task: Task) -> tuple[FiniteMDP, jax.Array, jax.Array]:
    """A task's MDP or MDPs, their Q*, and the weights of the error, which sum to 1 over Q*²."""
    mdps = task.build()

    def solve(mdp: FiniteMDP) -> tuple[jax.Array, jax.Array]:
        best = soft_policy_iteration(mdp, temperature=task.temperature, tolerance=1e-5)
        return best.q, best.policy

    q_star, policy = jax.vmap(solve)(mdps) if task.one_per_seed else solve(mdps)
    reachable = jnp.ones(policy.shape[-2]) if task.one_per_seed else jnp.asarray(reachable_states(mdps), float)
    weights = reachable[:, None] * policy
    return mdps, q_star, weights / jnp.sum(weights * q_star**2, axis=(-2, -1), keepdims=True)


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
        return jnp.sqrt(jnp.sum(weights * (learned.history.q - q_star) ** 2, axis=(-2, -1)))

    def setting(pair: jax.Array) -> jax.Array:
        return jax.vmap(seed, (0, axis, axis, axis, None, None))(keys, mdps, q_star, weights, pair[0], pair[1])

    return jax.lax.map(setting, pairs)  # one after the other: the tables of 256 seeds stay in the cache


def summary(errors: np.ndarray) -> tuple[Any, ...]:
    """Medians and intervals of errors [NUM_SEEDS, NUM_RECORDS], and the number of diverged seeds."""
    diverged = ~np.all(np.isfinite(errors) & (errors < DIVERGED_ABOVE), axis=-1)
    errors = np.where(diverged[:, None], np.inf, errors)
    return *median(errors.mean(-1)), *median(errors[:, -1]), int(diverged.sum())


def median(values: np.ndarray) -> tuple[float, float, float]:
    """The median of values [n] and the order statistics that hold that of the population with 95 % confidence."""
    from scipy.stats import binom

    ordered = np.sort(values)
    below = int(binom.ppf(0.025, len(values), 0.5))
    return float(np.median(values)), float(ordered[below - 1]), float(ordered[len(values) - below])


if __name__ == "__main__":
    main()

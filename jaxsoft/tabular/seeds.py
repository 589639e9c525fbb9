"""Many seeds of an online learner side by side, and how far each is from the optimum."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxsoft.envs.mdp import reachable_states
from jaxsoft.ops import boltzmann_log_probs
from jaxsoft.random import make_key
from jaxsoft.tabular.online import Learner, advance, init_learner_state
from jaxsoft.tabular.problem import Problem


def learn_seeds(
    problem: Problem, learner: Learner, seeds: np.ndarray, q_star: np.ndarray
) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    """Learns with seeds [num_seeds]; yields a report after each of the learner's `num_records` equal parts.

    A report has columns by name, each [num_seeds], and beside them is Q, [num_seeds, S, A]. Distances are those to
    `q_star`, [S, A]; of a diverged seed it is infinite.
    """
    num_steps, num_records = learner.settings.num_steps, learner.settings.num_records
    part, num_seeds = num_steps // num_records, len(seeds)
    keys = jax.vmap(make_key)(jnp.asarray(seeds))
    state = jax.jit(jax.vmap(partial(init_learner_state, learner=learner)))(keys)
    measure = jax.jit(jax.vmap(partial(_measure, problem, jnp.asarray(q_star, problem.mdp.rewards.dtype))))
    learn_part = jax.jit(jax.vmap(lambda state: advance(learner, state, part)), donate_argnums=0)
    learn_part = learn_part.lower(state).compile()
    for step in range(part, num_steps + 1, part):
        began = time.perf_counter()
        state, history = jax.block_until_ready(learn_part(state))
        speed = num_seeds * part / (time.perf_counter() - began)
        distances, returns = jax.device_get(measure(state.q))
        report = {
            "seed": seeds,
            "step": np.full(num_seeds, step),
            "distance": distances,
            "return": returns,
            "behaviour_reward": np.asarray(history.mean_rewards)[:, 0],
            "episodes": np.asarray(history.num_episodes)[:, 0],
            "diverged": ~np.isfinite(distances),
            "steps_per_second": np.full(num_seeds, speed),
        }
        yield report, np.asarray(state.q)


def _measure(problem: Problem, q_star: jax.Array, q: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Largest distance to Q* in states that can be visited, and the soft policy's mean return.

    Where Q is no longer finite they are infinite: there is no policy, and such a seed must not look like a good one.
    """
    finite = jnp.all(jnp.isfinite(q))
    distance = jnp.max(jnp.abs(q - q_star), where=reachable_states(problem.mdp)[:, None], initial=0)
    policy = jnp.exp(boltzmann_log_probs(jnp.where(finite, q, 0), problem.reference_log_probs, problem.temperature))
    mean = problem.mean_return(policy)
    return jnp.where(finite, distance, jnp.inf), jnp.where(finite, mean, -jnp.inf)

"""Sums over turns, and the report: evaluation, means, failures."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import jax
import jax.numpy as jnp

from jaxsoft.ops.averages import Sum, add, no_sum
from jaxsoft.training import failures
from jaxsoft.training.evaluation import evaluate
from jaxsoft.training.state import Loop, Totals, TrainState
from jaxsoft.types import Metrics, TimeStep


def add_episodes(totals: Totals, time_step: TimeStep) -> Totals:
    """Counts the episodes that ended in a step of all environments, or in several steps [T, num_envs]."""
    episode = jnp.stack([time_step.episode_return, time_step.episode_length.astype(jnp.float32)], axis=-1)
    sums = jnp.sum(jnp.where(time_step.done[..., None], episode, 0), axis=-2)
    num = jnp.sum(time_step.done, axis=-1, dtype=jnp.int32)
    sums, num = jnp.sum(sums.reshape(-1, 2), axis=0), jnp.sum(num, dtype=jnp.int32)
    return replace(totals, episodes=add(totals.episodes, sums), num_episodes=totals.num_episodes + num)


def add_updates(totals: Totals, metrics: Metrics, num_updates: int, timestep: jax.Array) -> Totals:
    """Counts `num_updates` updates made at `timestep`, whose metrics may have a leading axis."""
    sums = [jnp.sum(metrics[name]) for name in sorted(metrics)]
    updates = add(totals.updates, jnp.stack(sums)) if sums else totals.updates
    return replace(
        totals,
        updates=updates,
        num_updates=totals.num_updates + num_updates,
        bad_since=failures.mark_bad_sums(totals.bad_since, updates.value, timestep),
    )


def make_report(state: TrainState, loop: Loop) -> tuple[TrainState, Metrics]:
    """Evaluates the policy, averages the totals since the last report, and resets them.

    A seed that has failed gets its last good agent back; its metrics are NaN.
    """
    totals, config = state.totals, loop.config
    failure, agent_state = failures.mark_failures(state.failure, state.agent_state, totals.bad_since, state.timestep)
    state = replace(state, failure=failure, agent_state=agent_state)
    metrics: Metrics = {}
    if config.eval_every:
        key, eval_key = jax.random.split(state.key)
        state = replace(state, key=key)
        episodes = evaluate(
            eval_key,
            lambda key, obs: loop.agent.act(key, state.agent_state, obs, deterministic=True)[0],
            loop.env,
            config.eval_episodes,
        )
        metrics |= {
            "eval_return": jnp.mean(episodes.returns),
            "eval_length": jnp.mean(episodes.lengths, dtype=jnp.float32),
        }
    episode_return, episode_length = _mean(totals.episodes, totals.num_episodes)
    metrics |= {
        "episode_return": episode_return,
        "episode_length": episode_length,
        "num_episodes": totals.num_episodes,
    }
    metrics |= dict(zip(sorted(loop.agent.metrics), _mean(totals.updates, totals.num_updates), strict=True))
    has_failed = failure.timestep > 0
    metrics = {
        name: jnp.where(has_failed, jnp.nan, x) if jnp.issubdtype(x.dtype, jnp.floating) else x
        for name, x in metrics.items()
    }
    metrics |= {"timestep": state.timestep, "failed_at": failure.timestep}
    names = failures.quantity_names(loop.agent.metrics)
    metrics |= {f"{failures.PREFIX}{name}": x for name, x in zip(names, failure.quantities, strict=True)}
    return replace(state, totals=no_totals(loop.agent.metrics)), metrics


def _mean(total: Sum, num_terms: jax.Array) -> jax.Array:
    """The mean [...] of a sum; without terms NaN, or 0 under `jax_debug_nans`."""
    none = 0.0 if getattr(jax.config, "jax_debug_nans") else jnp.nan  # noqa: B009 (pyright does not know it)
    return jnp.where(num_terms > 0, total.value / jnp.maximum(num_terms, 1).astype(jnp.float32), none)


def no_totals(metrics: Collection[str]) -> Totals:
    """Zero totals, for metrics of these names."""
    none, size = jnp.zeros((), jnp.int32), len(metrics)
    return Totals(no_sum((size,)), no_sum((2,)), none, none, jnp.zeros(size, jnp.int32))

"""Seeds whose losses or parameters are no longer finite: each is marked, and gets its last good agent back.

A turn checks only the sums of the updates' metrics, at no measurable cost: a sum that has met NaN or infinity never
becomes finite again, so the timestep of the failure is exact. A report checks the whole agent, too. It marks a seed
that failed and restores its agent from the last report at which it was finite, or from the start; so does every later
report. Seeds share the program, and no numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxsoft.trees import join_floats

PARAMETERS = "parameters"
"""The quantity that stands for the agent's whole state, moments and statistics included."""

PREFIX = "failed/"
"""Prefix of a quantity's name among the metrics of a report."""

NEVER = jnp.iinfo(jnp.int32).max


@struct.dataclass
class Failure:
    """When a seed failed, if it did, and its last good agent.

    Attributes:
        timestep: [], int32, at which a quantity first was not finite; 0: none was.
        quantities: [num_metrics + 1], bool, which of `quantity_names` were not finite then.
        last_good: the agent's state at the last report at which all was finite.
    """

    timestep: jax.Array
    quantities: jax.Array
    last_good: Any


def no_failure(agent_state: Any, metrics: Collection[str]) -> Failure:
    """The record of a seed that has not failed; `metrics` are the names of the agent's."""
    return Failure(jnp.zeros((), jnp.int32), jnp.zeros(len(metrics) + 1, bool), agent_state)


def quantity_names(metrics: Iterable[str]) -> list[str]:
    """The quantities that are checked: the agent's metrics, ordered by name, then its state."""
    return [*sorted(metrics), PARAMETERS]


def mark_bad_sums(bad_since: jax.Array, sums: jax.Array, timestep: jax.Array) -> jax.Array:
    """The timestep at which each sum first was not finite, [num_metrics], int32; 0, as at first: it always was.

    The sums are in the order of `quantity_names`.
    """
    return jnp.where((bad_since == 0) & ~jnp.isfinite(sums), timestep, bad_since)


def mark_failures(failure: Failure, agent_state: Any, bad_since: jax.Array, timestep: jax.Array) -> tuple[Failure, Any]:
    """Marks a seed that has failed since the last report, and restores the agent of one that ever has.

    Args:
        failure: until the last report.
        agent_state: the present one.
        bad_since: [num_metrics], from `mark_bad_sums`, since the last report.
        timestep: [], int32, environment steps taken.

    Returns:
        The failure now, and the agent's state: the present one, or the last good one of a seed that has failed.
    """
    # parameters go bad in an update and make the next one's metrics bad: only those that do not are news
    bad = jnp.append(bad_since, jnp.where(all_finite(agent_state), 0, timestep))
    since = jnp.where(bad > 0, bad, NEVER)
    first, has_failed = jnp.min(since), failure.timestep > 0
    is_bad = jnp.any(bad > 0)
    is_new = is_bad & ~has_failed
    well = jax.tree.map(lambda last, now: jnp.where(has_failed | is_bad, last, now), failure.last_good, agent_state)
    failure = Failure(
        timestep=jnp.where(is_new, first, failure.timestep),
        quantities=failure.quantities | (is_new & (since == first)),
        last_good=well,
    )
    return failure, well


def all_finite(tree: Any) -> jax.Array:
    """Whether all floating-point numbers of a tree are finite; []."""
    return jnp.all(jnp.isfinite(join_floats(tree)))


def failure_names(metrics: Mapping[str, Any]) -> str:
    """The quantities that were not finite when a seed failed, from one of its reports.

    >>> failure_names({"failed_at": 300, "failed/q_loss": True, "failed/entropy": False, "failed/parameters": True})
    'q_loss, parameters'
    """
    names = [name.removeprefix(PREFIX) for name, x in metrics.items() if name.startswith(PREFIX) and x]
    return ", ".join(sorted(names, key=lambda name: (name == PARAMETERS, name)))

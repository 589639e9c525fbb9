"""Bad numbers: a seed whose losses or parameters are no longer finite is marked, and set back to where it was well.

Turn by turn only the sums of the updates' metrics are looked at, which costs nothing that can be measured: a sum that
has met NaN or infinity never becomes finite again, so the step at which it first was not is exact. At every report all
that the agent has learned is looked at as well. What is not well then is marked, and its agent put back to how it was
at the last report at which it was, or to its start; every later report puts it there again. The other seeds share
the program with it, and no numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

PARAMETERS = "parameters"
"""The name of all that an agent has learned and keeps, moments and statistics included."""

PREFIX = "failed/"
"""What the names of the quantities follow in the names of a report's metrics."""

NEVER = jnp.iinfo(jnp.int32).max


@struct.dataclass
class Failure:
    """Where a seed's numbers first went bad, and its agent before that.

    Attributes:
        timestep: [], int32, environment steps taken by then; 0: they never did.
        quantities: [num_metrics + 1], bool, which of `quantity_names` were not finite then.
        last_good: the agent's state at the last report at which it was well.
    """

    timestep: jax.Array
    quantities: jax.Array
    last_good: Any


def no_failure(agent_state: Any, metrics: Collection[str]) -> Failure:
    """So far all is well, also with the agent's metrics of these names."""
    return Failure(jnp.zeros((), jnp.int32), jnp.zeros(len(metrics) + 1, bool), agent_state)


def quantity_names(metrics: Iterable[str]) -> list[str]:
    """What is looked at: the agent's metrics, in the order of their names, and then its parameters."""
    return [*sorted(metrics), PARAMETERS]


def mark_bad_sums(bad_since: jax.Array, sums: jax.Array, timestep: jax.Array) -> jax.Array:
    """Remembers of each sum the timestep after which it was not finite for the first time; 0: it always was.

    Args:
        bad_since: [num_metrics], int32; zeros at first.
        sums: [num_metrics], in the order of `quantity_names`.
        timestep: [], int32.
    """
    return jnp.where((bad_since == 0) & ~jnp.isfinite(sums), timestep, bad_since)


def mark_failures(failure: Failure, agent_state: Any, bad_since: jax.Array, timestep: jax.Array) -> tuple[Failure, Any]:
    """At a report: marks a seed that has failed, and puts it back.

    Args:
        failure: so far.
        agent_state: the agent's state now.
        bad_since: [num_metrics], from `mark_bad_sums`, since the last report.
        timestep: [], int32, environment steps taken.

    Returns:
        What is known of failure now, and the agent's state: as it was, or, of a seed that has failed, as it was at
        the last report at which it was well.
    """
    # parameters go bad in an update and make the next one's metrics bad: only those that do not are news
    bad = jnp.append(bad_since, jnp.where(all_finite(agent_state), 0, timestep))
    since = jnp.where(bad > 0, bad, NEVER)
    first, has_failed = jnp.min(since), failure.timestep > 0
    is_bad = jnp.any(bad > 0)
    is_new = is_bad & ~has_failed
    well = jax.tree.map(
        lambda last, now: jnp.where(has_failed | is_bad, last, now),
        failure.last_good,
        agent_state,
    )
    failure = Failure(
        timestep=jnp.where(is_new, first, failure.timestep),
        quantities=failure.quantities | (is_new & (since == first)),
        last_good=well,
    )
    return failure, well


def all_finite(tree: Any) -> jax.Array:
    """Whether all floating-point numbers of a tree are finite; [].

    They are joined first: to look at each array alone is a kernel for each, and a large part of compiling a training.
    """
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.all(jnp.isfinite(jnp.concatenate([x.ravel() for x in floats])))


def failure_names(metrics: Mapping[str, Any]) -> str:
    """Which of the quantities of one seed's report were not finite when it failed.

    >>> failure_names({"failed_at": 300, "failed/q_loss": True, "failed/entropy": False, "failed/parameters": True})
    'q_loss, parameters'
    """
    names = [name.removeprefix(PREFIX) for name, x in metrics.items() if name.startswith(PREFIX) and x]
    return ", ".join(sorted(names, key=lambda name: (name == PARAMETERS, name)))

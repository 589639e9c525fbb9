"""Bad numbers: a seed whose losses or parameters are no longer finite is marked, and set back to where it was well.

Turn by turn only the sums of the updates' metrics are looked at, which costs nothing that can be measured: a sum that
has met NaN or infinity never becomes finite again, so the step at which it first was not is exact. At every report all
that the agent has learned is looked at as well. What is not well then is marked, and its agent put back to how it was
at the last report at which it was, or to its start; every later report puts it there again. The other seeds share
the program with it, and no numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxsoft.types import Metrics

PARAMETERS = "parameters"
"""The name of all that an agent has learned and keeps, moments and statistics included."""


@struct.dataclass
class Failure:
    """Where a seed's numbers first went bad, and its agent before that.

    Attributes:
        timestep: [], int32, environment steps taken by then; 0: they never did.
        quantities: [], int32, what was not finite then, a bit for each of `quantity_names`.
        last_well: the agent's state at the last report at which it was well.
    """

    timestep: jax.Array
    quantities: jax.Array
    last_well: Any


def no_failure(agent_state: Any) -> Failure:
    """So far all is well."""
    return Failure(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32), agent_state)


def no_bad_sums(metrics: Iterable[str]) -> dict[str, jax.Array]:
    """Timesteps for `mark_bad_sums`: no sum is bad."""
    return {name: jnp.zeros((), jnp.int32) for name in metrics}


def mark_bad_sums(bad_since: dict[str, jax.Array], sums: Metrics, timestep: jax.Array) -> dict[str, jax.Array]:
    """Remembers of each sum the timestep after which it was not finite for the first time; 0: it always was."""
    return {
        name: jnp.where((bad_since[name] == 0) & ~jnp.isfinite(sums[name]), timestep, bad_since[name]) for name in sums
    }


def judge(
    failure: Failure, agent_state: Any, bad_since: dict[str, jax.Array], timestep: jax.Array
) -> tuple[Failure, Any]:
    """At a report: marks a seed that has failed, and puts it back.

    Args:
        failure: so far.
        agent_state: the agent's state now.
        bad_since: from `mark_bad_sums`, since the last report.
        timestep: [], int32, environment steps taken.

    Returns:
        What is known of failure now, and the agent's state: as it was, or, of a seed that has failed, as it was at
        the last report at which it was well.
    """
    bad = [bad_since[name] for name in sorted(bad_since)]
    # parameters go bad in an update and make the next one's metrics bad: only those that do not are news
    bad.append(jnp.where(all_finite(agent_state), 0, timestep))
    since = jnp.stack([jnp.where(x > 0, x, jnp.iinfo(jnp.int32).max) for x in bad])
    first, has_failed, is_new = jnp.min(since), failure.timestep > 0, failure.timestep == 0
    is_bad = first < jnp.iinfo(jnp.int32).max
    bits = jnp.sum(jnp.where(since == first, 1 << jnp.arange(len(bad)), 0))
    well = jax.tree.map(
        lambda last, now: jnp.where(has_failed | is_bad, last, now),
        failure.last_well,
        agent_state,
    )
    failure = Failure(
        timestep=jnp.where(is_new & is_bad, first, failure.timestep),
        quantities=jnp.where(is_new & is_bad, bits, failure.quantities),
        last_well=well,
    )
    return failure, well


def all_finite(tree: Any) -> jax.Array:
    """Whether all floating-point numbers of a tree are finite; [].

    They are joined first: to look at each array alone is a kernel for each, and a large part of compiling a training.
    """
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.all(jnp.isfinite(jnp.concatenate([x.ravel() for x in floats])))


def quantity_names(metrics: Iterable[str], quantities: int) -> str:
    """The bits of `Failure.quantities` in words, where `metrics` are the names of an update's.

    >>> quantity_names(["q_loss", "entropy"], 0b110)
    'q_loss, parameters'
    """
    return ", ".join(name for i, name in enumerate([*sorted(metrics), PARAMETERS]) if quantities >> i & 1)

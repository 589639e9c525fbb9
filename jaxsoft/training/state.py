"""The state of the training loop, and what the loop's functions need beside it."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import jax
from flax import struct

from jaxsoft.ops.averages import Sum
from jaxsoft.training import failures, replay
from jaxsoft.training.config import TrainConfig
from jaxsoft.trees import batch_like, map_leaves
from jaxsoft.types import Agent, Env, Experience, Rollouts


@struct.dataclass
class Totals:
    """Sums since the last report.

    Attributes:
        updates: [num_metrics], the agent's metrics, summed over updates, in the order of their names.
        episodes: [2], returns and lengths of the episodes that ended in training, summed.
        num_episodes: [], int32, such episodes.
        num_updates: [], int32, shared by all seeds.
        bad_since: [num_metrics], int32, the timestep of the first that was not finite, or 0.
    """

    updates: Sum
    episodes: Sum
    num_episodes: jax.Array
    num_updates: jax.Array
    bad_since: jax.Array


@struct.dataclass
class TrainState:
    """All that a training needs to go on.

    Attributes:
        key: the seed's random key.
        timestep: [], int32, environment steps taken, over all environments, or updates on fixed data; shared by all
            seeds.
        env_state: of the wrapped environments, leaves [num_envs, ...]; None with fixed data.
        obs: [num_envs, *obs_shape], what the agent acts on next; None with fixed data.
        agent_state: parameters and optimisers.
        replay_state: past transitions, or the fixed data; None for an agent that learns from rollouts.
        totals: since the last report.
        failure: whether the seed's numbers went bad, and where.
    """

    key: jax.Array
    timestep: jax.Array
    env_state: Any
    obs: jax.Array | None
    agent_state: Any
    replay_state: replay.ReplayState | None
    totals: Totals
    failure: failures.Failure


class Loop(NamedTuple):
    """All that the loop's functions need beside their state.

    Attributes:
        agent: the learner.
        env: the unwrapped environment, for evaluation.
        envs: `num_envs` of them, wrapped for training.
        experience: what the agent's updates are fed with.
        config: all settings.
    """

    agent: Agent
    env: Env
    envs: Env
    experience: Experience
    config: TrainConfig


def seed_axes(experience: Experience) -> Any:
    """The axes of a `TrainState` under a vmap over seeds, as a tree prefix: 0, or None for what is shared.

    The counters that do not depend on what was learned must stay unbatched, or writing to a replay becomes a scatter.
    """
    state, replay_state, totals = cast(Any, (TrainState, replay.ReplayState, Totals))
    is_fresh = isinstance(experience, Rollouts)
    ring = replay_state(data=0, insert_index=None, num_filled=None, last_obs=0, position=None)
    return state(
        key=0,
        timestep=None,
        env_state=0,
        obs=0,
        agent_state=0,
        replay_state=None if is_fresh else ring,
        totals=totals(updates=0, episodes=0, num_episodes=0, num_updates=None, bad_since=0),
        failure=0,
    )


def batch_own(key: jax.Array, state: TrainState, axes: Any) -> TrainState:
    """The state, of which a vmap over the key batches what seeds do not share, by `seed_axes`: see `batch_like`."""
    return map_leaves(lambda axis, x, own: x if axis is None else own, axes, state, batch_like(key, state))

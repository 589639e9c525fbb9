"""Flax modules: functions of observations (and actions) that agents learn."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxsoft.distributions import TanhNormal

LOG_STD_BOUNDS = (-20.0, 2.0)
"""Limits of a policy's log standard deviation, those of Haarnoja et al.'s own code."""


class MLP(nn.Module):
    """Dense layers with ReLU after every one; [..., features] -> [..., hidden_sizes[-1]]."""

    hidden_sizes: Sequence[int]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for size in self.hidden_sizes:
            x = nn.relu(nn.Dense(size)(x))
        return x


class TanhNormalPolicy(nn.Module):
    """A squashed Gaussian policy; obs [..., features] -> `TanhNormal` over [..., action_dim]."""

    action_dim: int
    hidden_sizes: Sequence[int]

    @nn.compact
    def __call__(self, obs: jax.Array) -> TanhNormal:
        hidden = MLP(self.hidden_sizes)(obs)
        mean, log_std = jnp.split(nn.Dense(2 * self.action_dim)(hidden), 2, axis=-1)
        return TanhNormal(mean, jnp.clip(log_std, *LOG_STD_BOUNDS))


class QFunction(nn.Module):
    """An action-value function; obs [..., features], action [..., action_dim] -> [...]."""

    hidden_sizes: Sequence[int]

    @nn.compact
    def __call__(self, obs: jax.Array, action: jax.Array) -> jax.Array:
        hidden = MLP(self.hidden_sizes)(jnp.concatenate([obs, action], axis=-1))
        return nn.Dense(1)(hidden).squeeze(-1)


class DiscreteQFunction(nn.Module):
    """Action values of all discrete actions, with layer normalisation; obs [..., *obs_shape] -> [..., num_actions].

    Images, observations of rank 3, first pass 3 × 3 convolutions of `channels` each, the network of the MinAtar
    papers. Without hidden sizes, and for other observations, the function is linear.

    Layer normalisation is what lets Q-learning do without a target network: Gallici et al. 2024, arXiv:2407.04811.
    """

    num_actions: int
    hidden_sizes: Sequence[int]
    channels: Sequence[int]
    obs_rank: int

    @nn.compact
    def __call__(self, obs: jax.Array) -> jax.Array:
        x = obs.astype(jnp.float32)
        if self.obs_rank == IMAGE_RANK:
            for size in self.channels:
                x = nn.relu(nn.LayerNorm()(nn.Conv(size, (3, 3), padding="VALID")(x)))
        x = x.reshape(*x.shape[: x.ndim - self.obs_rank], -1)
        for size in self.hidden_sizes:
            x = nn.relu(nn.LayerNorm()(nn.Dense(size)(x)))
        return nn.Dense(self.num_actions)(x)


IMAGE_RANK = 3
"""Observations of this rank are images [height, width, channels]."""


def q_ensemble(num_members: int, hidden_sizes: Sequence[int]) -> nn.Module:
    """Independent Q-functions with stacked parameters; obs, action -> [num_members, ...]."""
    stacked = nn.vmap(
        QFunction,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=None,  # type: ignore[arg-type]  # the same inputs for every member
        out_axes=0,
        axis_size=num_members,
    )
    return stacked(hidden_sizes)

"""Flax modules: functions of observations (and actions) that agents learn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxsoft.errors import InputError
from jaxsoft.nn.distributions import TanhNormal
from jaxsoft.nn.layers import Conv3x3, Dense, LayerNorm, layer_normalise, orthogonal
from jaxsoft.ops.averages import clamp
from jaxsoft.types import EnvSpec

LOG_STD_BOUNDS = (-20.0, 2.0)
"""Limits of a policy's log standard deviation, those of Haarnoja et al.'s own code."""

IMAGE_RANK = 3
"""Observations of this rank are images [height, width, channels]."""


class MLP(nn.Module):
    """Dense layers with ReLU after every one; [..., features] -> [..., hidden_sizes[-1]]."""

    hidden_sizes: Sequence[int]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for size in self.hidden_sizes:
            x = nn.relu(Dense(size)(x))
        return x


class TanhNormalPolicy(nn.Module):
    """A squashed Gaussian policy; obs [..., features] -> `TanhNormal` over [..., action_dim]."""

    action_dim: int
    hidden_sizes: Sequence[int]

    @nn.compact
    def __call__(self, obs: jax.Array) -> TanhNormal:
        hidden = MLP(self.hidden_sizes)(obs)
        mean, log_std = jnp.split(nn.Dense(2 * self.action_dim)(hidden), 2, axis=-1)
        return TanhNormal(mean, clamp(log_std, *LOG_STD_BOUNDS))


class OrthogonalMLP(nn.Module):
    """Dense layers of orthogonal weights, tanh after all but the last; obs [..., *obs_shape] -> [..., num_outputs].

    Images, observations of rank 3, first pass 3 × 3 convolutions; others are flattened. The weights' gain is √2, and in
    the last layer `final_gain`: if it is small, the first policy is nearly the same in all states. It is the usual
    network of PPO: Andrychowicz et al. 2020, "What matters in on-policy reinforcement learning?", arXiv:2006.05990.

    Attributes:
        num_outputs: of the last layer.
        hidden_sizes: widths of the hidden layers.
        channels: of the convolutions.
        obs_rank: of one observation.
        final_gain: of the last layer's weights.
    """

    num_outputs: int
    hidden_sizes: Sequence[int]
    channels: Sequence[int]
    obs_rank: int
    final_gain: float

    @nn.compact
    def __call__(self, obs: jax.Array) -> jax.Array:
        x = obs.astype(jnp.float32)
        for i, size in enumerate(self.channels if self.obs_rank == IMAGE_RANK else ()):
            x = nn.tanh(Conv3x3(size, orthogonal(math.sqrt(2)), name=f"Conv_{i}")(x))
        x = x.reshape(*x.shape[: x.ndim - self.obs_rank], -1)
        for size in self.hidden_sizes:
            x = nn.tanh(nn.Dense(size, kernel_init=orthogonal(math.sqrt(2)))(x))
        return nn.Dense(self.num_outputs, kernel_init=orthogonal(self.final_gain))(x)


class ConstantNoisePolicy(nn.Module):
    """A squashed Gaussian policy with the same standard deviation everywhere, e⁰ at first.

    Obs [..., *obs_shape] -> `TanhNormal` over [..., action_dim]; `mean` computes its mean.
    """

    mean: OrthogonalMLP

    @nn.compact
    def __call__(self, obs: jax.Array) -> TanhNormal:
        mean = self.mean(obs)
        log_std = self.param("log_std", nn.initializers.zeros, (mean.shape[-1],), jnp.float32)
        return TanhNormal(mean, jnp.broadcast_to(clamp(log_std, *LOG_STD_BOUNDS), mean.shape))


class DeterministicPolicy(nn.Module):
    """A squashed deterministic policy; obs [..., features] -> actions [..., action_dim] in [−1, 1]."""

    action_dim: int
    hidden_sizes: Sequence[int]

    @nn.compact
    def __call__(self, obs: jax.Array) -> jax.Array:
        return jnp.tanh(nn.Dense(self.action_dim)(MLP(self.hidden_sizes)(obs)))


class ValueFunction(nn.Module):
    """A state-value function; obs [..., features] -> [...]."""

    hidden_sizes: Sequence[int]

    @nn.compact
    def __call__(self, obs: jax.Array) -> jax.Array:
        return nn.Dense(1)(MLP(self.hidden_sizes)(obs)).squeeze(-1)


class QFunction(nn.Module):
    """An action-value function; obs [..., features], action [..., action_dim] -> [...]."""

    hidden_sizes: Sequence[int]

    @nn.compact
    def __call__(self, obs: jax.Array, action: jax.Array) -> jax.Array:
        hidden = MLP(self.hidden_sizes)(jnp.concatenate([obs, action], axis=-1))
        return nn.Dense(1)(hidden).squeeze(-1)


class DiscreteQFunction(nn.Module):
    """Action values of all discrete actions, with layer normalisation; obs [..., *obs_shape] -> [..., num_actions].

    Images, observations of rank 3, first pass 3 × 3 convolutions, the network of the MinAtar papers; others are
    flattened. Without hidden sizes the function is linear, without a bias: of one-hot observations, a table.

    Layer normalisation is what lets Q-learning do without a target network: Gallici et al. 2024, arXiv:2407.04811.

    Attributes:
        num_actions: A.
        hidden_sizes: widths of the hidden layers.
        channels: of the convolutions.
        obs_rank: of one observation.
        kernel_init: of all layers.
        activation: of the hidden layers.
        learned_scale: whether layer normalisation is followed by a learned scale and offset.
    """

    num_actions: int
    hidden_sizes: Sequence[int]
    channels: Sequence[int]
    obs_rank: int
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    learned_scale: bool = True

    @nn.compact
    def __call__(self, obs: jax.Array) -> jax.Array:
        x = obs.astype(jnp.float32)
        if self.obs_rank == IMAGE_RANK and self.hidden_sizes:
            for i, size in enumerate(self.channels):
                x = self._activate(Conv3x3(size, self.kernel_init, name=f"Conv_{i}")(x))
        x = x.reshape(*x.shape[: x.ndim - self.obs_rank], -1)
        for size in self.hidden_sizes:
            x = self._activate(nn.Dense(size, kernel_init=self.kernel_init)(x))
        return nn.Dense(self.num_actions, kernel_init=self.kernel_init, use_bias=bool(self.hidden_sizes))(x)

    def _activate(self, x: jax.Array) -> jax.Array:
        if not self.learned_scale:
            return self.activation(layer_normalise(x))
        return self.activation(LayerNorm()(x))


def action_value(q: jax.Array, action: jax.Array) -> jax.Array:
    """Q(s, a) of the actions taken: q [..., A], action [...] -> [...].

    A sum with one-hot weights and no gather: a gather's gradient is a scatter, which is slow and not fused.
    """
    return jnp.sum(q * jax.nn.one_hot(action, q.shape[-1], dtype=q.dtype), axis=-1)


def check_channels(channels: Sequence[int], spec: EnvSpec) -> None:
    """Checks that images are large enough for the convolutions; other observations have none.

    Raises:
        InputError: an image would be smaller than a convolution.
    """
    if len(spec.obs_shape) != IMAGE_RANK:
        return
    most = (min(spec.obs_shape[:2]) - 1) // 2
    if len(channels) > most:
        raise InputError(
            f"channels is {channels}; each 3 × 3 convolution takes 2 from the observations' height and width, so "
            f"{list(spec.obs_shape)} in {spec.id} leaves room for {most} at most"
        )


def q_ensemble(num_members: int, hidden_sizes: Sequence[int]) -> nn.Module:
    """Independent Q-functions with stacked parameters; obs, action -> [num_members, ...]."""
    return ensemble(QFunction, num_members)(hidden_sizes)


def ensemble(module: type[nn.Module], num_members: int) -> type[nn.Module]:
    """Independent members of one kind with stacked parameters, leaves [num_members, ...], on the same inputs."""
    return nn.vmap(
        module,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=None,  # type: ignore[arg-type]
        out_axes=0,
        axis_size=num_members,
    )

"""Flax modules: functions of observations (and actions) that agents learn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxsoft.errors import InputError, in_one_line
from jaxsoft.nn.distributions import TanhNormal
from jaxsoft.nn.layers import Conv3x3, Dense, LayerNorm, orthogonal, standardise_apart
from jaxsoft.ops.averages import clamp
from jaxsoft.ops.reductions import sum_last
from jaxsoft.types import EnvSpec

LOG_STD_BOUNDS = (-20.0, 2.0)
"""Limits of a policy's log standard deviation, those of Haarnoja et al.'s own code."""

IMAGE_RANK = 3
"""Observations of this rank are images [height, width, channels]."""


ActivationName = Literal["relu", "tanh", "elu", "gelu", "silu", "leaky_relu"]

Network = nn.Module | Callable[[], nn.Module] | None
"""The setting: hidden layers of one's own, a Flax module or a function that makes one; None: the agent's."""


class Layers(NamedTuple):
    """The hidden layers of a network.

    Attributes:
        sizes: widths of dense layers.
        activation: after each of them.
        own: a module [batch, *input_shape] -> [batch, features] in their place, or None.
    """

    sizes: Sequence[int]
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    own: nn.Module | None = None


def make_layers(config: Any) -> Layers:
    """Hidden layers from an agent's `hidden_sizes`, `activation` and `network`, for one of its networks."""
    return Layers(config.hidden_sizes, getattr(nn, config.activation), own_module(config.network))


def own_module(network: Network) -> nn.Module | None:
    """Hidden layers of one's own; each call has a copy of a module."""
    return network.clone() if isinstance(network, nn.Module) else network() if network else None


def check_network(network: Network, input_shape: Sequence[int]) -> None:
    """Checks hidden layers of one's own on an input, without computing anything.

    Raises:
        InputError: they fail, or put out something else than an array [1, features].
    """
    wanted = "it must be a Flax module, or a function without arguments that makes one"
    try:
        module = own_module(network)
    except Exception as error:
        raise InputError(f"network fails when it is called ({in_one_line(error)}); {wanted}") from error
    if module is None:
        return
    if not isinstance(module, nn.Module):
        raise InputError(f"network makes {type(module).__name__}; {wanted}")
    x = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    try:
        out = jax.eval_shape(lambda x: module.init_with_output(jax.random.key(0), x)[0], x)
    except Exception as error:  # whatever somebody's module raises
        message = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise InputError(f"network fails on an input of shape {list(x.shape)} ({message})") from error
    if not isinstance(out, jax.ShapeDtypeStruct) or out.ndim != 2 or not jnp.issubdtype(out.dtype, jnp.floating):
        got = f"{out.dtype}{list(out.shape)}" if isinstance(out, jax.ShapeDtypeStruct) else type(out).__name__
        raise InputError(
            f"network gives {got} for an input of shape {list(x.shape)}; it must give floats [1, features]"
        )


def with_few_axes(obs: jax.Array, rank: int) -> jax.Array:
    """Observations as float32, and images with one batch axis: TPUs pad an axis to 128, and a long one less."""
    obs = obs.astype(jnp.float32)
    return obs.reshape(-1, *obs.shape[-rank:]) if rank == IMAGE_RANK else obs


def apply_own(module: nn.Module, x: jax.Array, rank: int) -> jax.Array:
    """Hidden layers of one's own, which need to know one batch axis only; [..., *input_shape] -> [..., features]."""
    batch_shape, input_shape = x.shape[: x.ndim - rank], x.shape[x.ndim - rank :]
    return module(x.reshape(-1, *input_shape)).reshape(*batch_shape, -1)


class MLP(nn.Module):
    """The hidden layers of a vector; [..., features] -> [..., layers.sizes[-1]]."""

    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.layers.own is not None:
            return apply_own(self.layers.own, x, 1)
        for size in self.layers.sizes:
            x = self.layers.activation(Dense(size)(x))
        return x


class TanhNormalPolicy(nn.Module):
    """A squashed Gaussian policy; obs [..., features] -> `TanhNormal` over [..., action_dim]."""

    action_dim: int
    layers: Layers

    @nn.compact
    def __call__(self, obs: jax.Array) -> TanhNormal:
        return tanh_normal(nn.Dense(2 * self.action_dim)(MLP(self.layers)(obs)))


def tanh_normal(output: jax.Array) -> TanhNormal:
    """The squashed Gaussian of a network's means and log standard deviations; [..., 2 action_dim]."""
    mean, log_std = jnp.split(output, 2, axis=-1)
    return TanhNormal(mean, clamp(log_std, *LOG_STD_BOUNDS))


class OrthogonalMLP(nn.Module):
    """Dense layers of orthogonal weights, activated but for the last; obs [..., *obs_shape] -> [..., num_outputs].

    Images, observations of rank 3, first pass 3 × 3 convolutions; others are flattened. The weights' gain is √2, and in
    the last layer `final_gain`: if it is small, the first policy is nearly the same in all states. It is the usual
    network of PPO: Andrychowicz et al. 2020, "What matters in on-policy reinforcement learning?", arXiv:2006.05990.

    Attributes:
        num_outputs: of the last layer.
        layers: the hidden ones; some of one's own take the observation as it is.
        channels: of the convolutions.
        obs_rank: of one observation.
        final_gain: of the last layer's weights.
    """

    num_outputs: int
    layers: Layers
    channels: Sequence[int]
    obs_rank: int
    final_gain: float

    @nn.compact
    def __call__(self, obs: jax.Array) -> jax.Array:
        x, activation, init = with_few_axes(obs, self.obs_rank), self.layers.activation, orthogonal(math.sqrt(2))
        if self.layers.own is not None:
            x = apply_own(self.layers.own, x, self.obs_rank)
        else:
            for i, size in enumerate(self.channels if self.obs_rank == IMAGE_RANK else ()):
                x = activation(Conv3x3(size, init, name=f"Conv_{i}")(x))
            x = x.reshape(*x.shape[: x.ndim - self.obs_rank], -1)
            for size in self.layers.sizes:
                x = activation(Dense(size, init)(x))
        x = nn.Dense(self.num_outputs, kernel_init=orthogonal(self.final_gain))(x)
        return x.reshape(*obs.shape[: obs.ndim - self.obs_rank], self.num_outputs)


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
    layers: Layers

    @nn.compact
    def __call__(self, obs: jax.Array) -> jax.Array:
        return jnp.tanh(nn.Dense(self.action_dim)(MLP(self.layers)(obs)))


class ValueFunction(nn.Module):
    """A state-value function; obs [..., features] -> [...]."""

    layers: Layers

    @nn.compact
    def __call__(self, obs: jax.Array) -> jax.Array:
        return nn.Dense(1)(MLP(self.layers)(obs)).squeeze(-1)


class QFunction(nn.Module):
    """An action-value function; obs [..., features], action [..., action_dim] -> [...]."""

    layers: Layers

    @nn.compact
    def __call__(self, obs: jax.Array, action: jax.Array) -> jax.Array:
        hidden = MLP(self.layers)(jnp.concatenate([obs, action], axis=-1))
        return nn.Dense(1)(hidden).squeeze(-1)


class DiscreteQFunction(nn.Module):
    """Action values of all discrete actions, with layer normalisation; obs [..., *obs_shape] -> [..., num_actions].

    Images, observations of rank 3, first pass 3 × 3 convolutions, the network of the MinAtar papers; others are
    flattened. Without hidden sizes the function is linear, without a bias: of one-hot observations, a table.

    Layer normalisation is what lets Q-learning do without a target network: Gallici et al. 2024, arXiv:2407.04811.

    Attributes:
        num_actions: A.
        layers: the hidden ones; some of one's own take the observation as it is.
        channels: of the convolutions.
        obs_rank: of one observation.
        kernel_init: of all layers.
        learned_scale: whether layer normalisation is followed by a learned scale and offset.
    """

    num_actions: int
    layers: Layers
    channels: Sequence[int]
    obs_rank: int
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    learned_scale: bool = True

    @nn.compact
    def __call__(self, obs: jax.Array) -> jax.Array:
        x, sizes, own = with_few_axes(obs, self.obs_rank), self.layers.sizes, self.layers.own
        if own is not None:
            x = apply_own(own, x, self.obs_rank)
        else:
            for i, size in enumerate(self.channels if self.obs_rank == IMAGE_RANK and sizes else ()):
                x = self._activate(Conv3x3(size, self.kernel_init, name=f"Conv_{i}")(x))
            x = x.reshape(*x.shape[: x.ndim - self.obs_rank], -1)
            for size in sizes:
                x = self._activate(Dense(size, self.kernel_init)(x))
        is_linear = not sizes and own is None
        x = nn.Dense(self.num_actions, kernel_init=self.kernel_init, use_bias=not is_linear)(x)
        return x.reshape(*obs.shape[: obs.ndim - self.obs_rank], self.num_actions)

    def _activate(self, x: jax.Array) -> jax.Array:
        if not self.learned_scale:
            return self.layers.activation(standardise_apart(x))
        return self.layers.activation(LayerNorm()(x))


def action_value(q: jax.Array, action: jax.Array) -> jax.Array:
    """Q(s, a) of the actions taken: q [..., A], action [...] -> [...].

    A sum with one-hot weights and no gather: a gather's gradient is a scatter, which is slow and not fused.
    """
    return sum_last(q * jax.nn.one_hot(action, q.shape[-1], dtype=q.dtype))


def check_channels(channels: Sequence[int], spec: EnvSpec) -> None:
    """Raises an `InputError` for images too small for their convolutions; other observations have none."""
    if len(spec.obs_shape) != IMAGE_RANK:
        return
    most = (min(spec.obs_shape[:2]) - 1) // 2
    if len(channels) > most:
        raise InputError(
            f"channels is {channels}; each 3 × 3 convolution takes 2 from the observations' height and width, so "
            f"{list(spec.obs_shape)} in {spec.id} leaves room for {most} at most"
        )


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

"""Layers with flax's parameters and functions, computed as XLA runs them fast, and initial weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

MAX_TERMS = 8
"""Most inputs of a hidden layer whose product is written as a sum, in one kernel with the next operation."""


class Dense(nn.Module):
    """A hidden layer; [..., in] -> [..., features]: `flax.linen.Dense`, of the same parameters, faster by `affine`.

    Not for a last layer: a sum may be computed again in another kernel, and differ in the last bit.
    """

    features: int
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features), jnp.float32)
        return affine(x, kernel, self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32))


@jax.custom_vjp
def affine(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """The function x W + b; x [..., in], W [in, out], b [out] -> [..., out].

    XLA's CPU backend is slow at products of matrices with a side of a few, which are sums here; on a GPU a sum is one
    kernel with what follows it, and a product is not. JAX's own gradient of W is a product [out, in] that has to be
    transposed, at every update; this one is xᵀ g. So there is one way for all backends. Derivatives are in reverse mode
    only.
    """
    y = jnp.broadcast_to(bias, (*x.shape[:-1], len(bias)))
    if len(kernel) > MAX_TERMS:
        return x @ kernel + y
    for i, row in enumerate(kernel):
        y = y + x[..., i, None] * jnp.broadcast_to(row, y.shape)
    return y


def _affine_forward(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return affine(x, kernel, bias), (x, kernel)


def _affine_backward(
    inputs: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, kernel = inputs
    rows, gradients = (y.reshape(-1, y.shape[-1]) for y in (x, gradient))
    if len(kernel) > MAX_TERMS:
        sums = sums_apart(rows, gradients)
    else:
        sums = jax.lax.platform_dependent(rows, gradients, cpu=sums_apart, default=sums_at_once)
    return gradient @ kernel.T, sums[0], sums[1]


def sums_apart(rows: jax.Array, gradients: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Gradients of the weights [in, out] and the bias [out], Σ x gᵀ and Σ g; [n, in], [n, out]."""
    return rows.T @ gradients, gradients.sum(axis=0)


def sums_at_once(rows: jax.Array, gradients: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The same as one product, with a 1 after each x: a kernel less, but more work, which a CPU would notice."""
    both = jnp.concatenate([rows, jnp.ones_like(rows[:, :1])], axis=1).T @ gradients
    return both[:-1], both[-1]


affine.defvjp(_affine_forward, _affine_backward)


class Conv3x3(nn.Module):
    """A 3 × 3 convolution without padding; [..., height, width, channels] -> [..., height − 2, width − 2, features].

    The same function, of the same parameters, as `flax.linen.Conv`, as a product of matrices: its neighbourhoods with
    the kernel. Under a `vmap` over parameters a convolution becomes a grouped one, which XLA runs several times slower
    on a CPU, and for which it copies a whole replay into another layout on a GPU: there is one way for all backends.
    """

    features: int
    kernel_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        height, width, channels = x.shape[-3:]
        kernel = self.param("kernel", self.kernel_init, (3, 3, channels, self.features), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        neighbours = [x[..., i : height - 2 + i, j : width - 2 + j, :] for i in range(3) for j in range(3)]
        return jnp.concatenate(neighbours, axis=-1) @ kernel.reshape(-1, self.features) + bias


EPSILON = 1e-6
"""Added to variances before they divide."""


def standardise(x: jax.Array) -> jax.Array:
    """The function (x − E[x]) / √(V[x] + 1e-6) over the last axis; [..., n] -> [..., n].

    XLA's GPU backend makes one kernel of a layer that is normalised by the textbook's formula. On a CPU the mean square
    is faster, which reads its input once.
    """
    return jax.lax.platform_dependent(x, cpu=standardise_in_one_pass, default=standardise_in_two_passes)


def standardise_in_one_pass(x: jax.Array) -> jax.Array:
    """By V[x] = E[x²] − E[x]²."""
    mean, square = jnp.mean(x, axis=-1, keepdims=True), jnp.mean(jnp.square(x), axis=-1, keepdims=True)
    variance = square - jnp.square(mean)
    # flax's `maximum` has a gradient that compares rounded numbers; see `ops.averages.least`
    return (x - mean) * jax.lax.rsqrt(jnp.where(variance > 0, variance, 0) + EPSILON)


def standardise_in_two_passes(x: jax.Array) -> jax.Array:
    """By V[x] = E[(x − E[x])²]."""
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + EPSILON)


class LayerNorm(nn.Module):
    """`flax.linen.LayerNorm`, of the same parameters and numbers: `standardise`(x) · scale + bias; [..., features]."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, size, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, size, jnp.float32)
        scale, bias = (parameter.reshape((1,) * (x.ndim - 1) + size) for parameter in (scale, bias))
        return standardise(x) * scale + bias


def standardise_apart(x: jax.Array) -> jax.Array:
    """The same function as `standardise`, for streaming learners, which need a network's value twice.

    With a barrier XLA's CPU backend computes it once for acting and for the gradient.
    """

    def with_barrier(x: jax.Array) -> jax.Array:
        centred = x - jnp.mean(x, axis=-1, keepdims=True)
        variance = jnp.mean(centred**2, axis=-1, keepdims=True)
        return centred / jax.lax.optimization_barrier(jnp.sqrt(variance + EPSILON))

    return jax.lax.platform_dependent(x, cpu=with_barrier, default=standardise_in_two_passes)


def sparse_initializer(sparsity: float) -> nn.initializers.Initializer:
    """Uniform weights within ±1/√fan_in; of every unit's incoming weights a share `sparsity` is 0.

    The share is rounded up, but every unit keeps one weight.

    Source: Elsayed et al. 2024, "Streaming deep reinforcement learning finally works", arXiv:2410.14606.
    """

    def initialise(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        fan_in, fan_out = math.prod(shape[:-1]), shape[-1]
        weight_key, order_key = jax.random.split(key)
        weights = jax.random.uniform(weight_key, (fan_in, fan_out), dtype, -1, 1) / math.sqrt(fan_in)
        rank = jnp.argsort(jnp.argsort(jax.random.uniform(order_key, (fan_in, fan_out), dtype), axis=0), axis=0)
        return jnp.where(rank < min(math.ceil(sparsity * fan_in), fan_in - 1), 0, weights).reshape(shape)

    return initialise  # type: ignore[return-value]


def orthogonal(gain: float) -> nn.initializers.Initializer:
    """A random matrix of orthonormal rows or columns, whichever are fewer, times `gain`; uniform over all of these.

    flax's version calls LAPACK, in which jaxlib's CPU backend deadlocks if several seeds or networks call it at once on
    few cores.
    """

    def initialise(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        fan_in, fan_out = math.prod(shape[:-1]), shape[-1]
        rows = orthonormal(jax.random.normal(key, (min(fan_in, fan_out), max(fan_in, fan_out)), dtype))
        return gain * (rows.T if fan_in > fan_out else rows).reshape(shape)

    return initialise  # type: ignore[return-value]


def orthonormal(vectors: jax.Array) -> jax.Array:
    """Rows of length 1 at right angles, each in the span of the first rows up to its own; [n, d], n ≤ d.

    Gram-Schmidt; the earlier rows are projected out twice, since once is not enough in floating point. Source: Giraud
    et al. 2005, "Rounding error analysis of the classical Gram-Schmidt orthogonalization process".
    """

    def step(i: jax.Array, rows: jax.Array) -> jax.Array:
        row, is_earlier = rows[i], jnp.arange(len(rows)) < i
        for _ in range(2):
            row = row - jnp.where(is_earlier, rows @ row, 0) @ rows
        return rows.at[i].set(row / jnp.linalg.norm(row))

    return jax.lax.fori_loop(0, len(vectors), step, vectors)

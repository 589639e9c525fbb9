"""Random keys whose numbers are JAX's own, drawn in one kernel instead of many.

On CPU, JAX compiles each use of its default generator, Threefry-2x32, to a loop of five rounds of small
kernels (it keeps programs short). A reinforcement-learning step draws often and little, so that these loops
take a large part of a small agent's step. The same hash without the loop fuses into a single kernel.
`fused` turns a default key into one that uses it: every function of `jax.random` gives the same numbers.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.random import define_prng_impl, threefry_prng_impl

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def fused(key: jax.Array) -> jax.Array:
    """The same key, of the kind that draws in one kernel; keys of another generator pass through unchanged.

    Args:
        key: a typed key (`jax.random.key`) or a raw one (`jax.random.PRNGKey`) of JAX's default generator.
    """
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    if str(jax.random.key_impl(key)) != "threefry2x32":
        return key
    return jax.random.wrap_key_data(jax.random.key_data(key), impl=_FUSED)


def threefry_2x32(key: jax.Array, high: jax.Array, low: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The Threefry-2x32 hash with 20 rounds of the counters (high, low), elementwise.

    Args:
        key: [2], uint32.
        high: [...], uint32, first words of the counters.
        low: [...], uint32, second words.

    Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3.
    """
    word_0, word_1 = (lax.index_in_dim(key, i, keepdims=False) for i in range(2))
    word_2 = lax.bitwise_xor(lax.bitwise_xor(word_0, word_1), np.uint32(_PARITY))
    return _batched_rounds(*(lax.broadcast(word, low.shape) for word in (word_0, word_1, word_2)), high, low)


@jax.custom_batching.custom_vmap
def _batched_rounds(*words: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _threefry_rounds(*words)


@_batched_rounds.def_vmap
def _batch_rounds(axis_size: int, in_batched: list[bool], *words: jax.Array) -> Any:
    """Batching elementwise arithmetic is broadcasting: nothing of its hundred operations is traced again."""
    batched = (x if b else jnp.broadcast_to(x, (axis_size, *x.shape)) for x, b in zip(words, in_batched, strict=True))
    return _batched_rounds(*batched), (True, True)


@jax.jit
def _threefry_rounds(
    word_0: jax.Array, word_1: jax.Array, word_2: jax.Array, high: jax.Array, low: jax.Array
) -> tuple[jax.Array, jax.Array]:
    words = (word_0, word_1, word_2)
    high, low = lax.add(high, word_0), lax.add(low, word_1)
    for i in range(5):
        for distance in _ROTATIONS[i % 2]:
            high = lax.add(high, low)
            low = lax.bitwise_xor(high, _rotate_left(low, distance))
        high = lax.add(high, words[(i + 1) % 3])
        low = lax.add(low, lax.add(words[(i + 2) % 3], np.uint32(i + 1)))
    return high, low


def _rotate_left(x: jax.Array, distance: int) -> jax.Array:
    return lax.bitwise_or(lax.shift_left(x, np.uint32(distance)), lax.shift_right_logical(x, np.uint32(32 - distance)))


def _hash_positions(key: jax.Array, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Hashes each position of an array of this shape, counted in row-major order (below 2³²)."""
    size = math.prod(shape)
    if size > 2**32:
        raise ValueError(f"shape {shape} has more than 2**32 entries")
    low = lax.reshape(lax.iota(np.uint32, size), shape)
    return threefry_2x32(key, lax.full_like(low, 0), low)


def _split(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return _stack(*_hash_positions(key, shape))


def _random_bits(key: jax.Array, bit_width: int, shape: tuple[int, ...]) -> jax.Array:
    high, low = _hash_positions(key, shape)
    if bit_width == 64:
        return (high.astype(jnp.uint64) << 32) | low.astype(jnp.uint64)
    return lax.convert_element_type(lax.bitwise_xor(high, low), f"uint{bit_width}")


def _fold_in(key: jax.Array, data: int | jax.Array) -> jax.Array:
    return _stack(*threefry_2x32(key, jnp.uint32(0), jnp.asarray(data, jnp.uint32)))


def _stack(high: jax.Array, low: jax.Array) -> jax.Array:
    return lax.concatenate([lax.expand_dims(x, (x.ndim,)) for x in (high, low)], high.ndim)


_FUSED = define_prng_impl(
    key_shape=(2,),
    seed=threefry_prng_impl.seed,
    split=_split,
    random_bits=_random_bits,
    fold_in=_fold_in,
    name="jaxsoft_threefry2x32",
    tag="jaxsoft_fry",
)

"""Random keys whose numbers are JAX's own, drawn in one kernel instead of many.

On CPU, JAX compiles each use of its default generator, Threefry-2x32, to a loop of five rounds of small kernels. A
training draws in dozens of places, and these loops are a third of the time that it takes to compile. The same hash
without the loop is a single kernel. `fused` turns a default key into one that uses it: the numbers are the same.

A few functions of `jax.random`, for example `poisson`, refuse keys that are not JAX's own. Code from outside, such as
an environment, gets those: `unfused`.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.extend.random import define_prng_impl, threefry_prng_impl
from jax.interpreters import batching, mlir

from jaxsoft.errors import InputError

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA
_DEFAULT = "threefry2x32"


def make_key(seed: int | jax.Array) -> jax.Array:
    """`jax.random.key(seed)` of Threefry, whatever generator JAX's settings name: runs must not depend on them."""
    return jax.random.key(seed, impl=_DEFAULT)


def fused(key: jax.Array) -> jax.Array:
    """The same key, of the kind that draws in one kernel; keys of another generator pass through unchanged.

    Args:
        key: a typed key (`jax.random.key`) or a raw one (`jax.random.PRNGKey`) of JAX's default generator.
    """
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    if str(jax.random.key_impl(key)) != _DEFAULT:
        return key
    return jax.random.wrap_key_data(jax.random.key_data(key), impl=_FUSED)


def unfused(key: jax.Array) -> jax.Array:
    """The same key as one of JAX's own; keys that are not from `fused` pass through unchanged."""
    if jax.random.key_impl(key) != _FUSED:
        return key
    return jax.random.wrap_key_data(jax.random.key_data(key), impl=_DEFAULT)


def require_threefry(key: jax.Array) -> None:
    """Checks that what is drawn with a key does not depend on its neighbours under a `vmap`.

    Raises:
        InputError: the key, typed or raw, is not of JAX's default generator: those of `rbg` do.
    """
    generator = str(jax.random.key_impl(unfused(key)))
    if generator != _DEFAULT:
        raise InputError(
            f"the key is of the generator {generator}, with which a seed's numbers depend on its neighbours under a "
            "vmap; it must be of threefry2x32: jax.random.key(seed, impl='threefry2x32')"
        )


def random_index(key: jax.Array, shape: tuple[int, ...], bound: int | jax.Array) -> jax.Array:
    """Integers 0, …, bound − 1, uniform up to 2⁻³² in relative terms: ⌊u · bound / 2⁶⁴⌋ of 64 random bits u.

    `jax.random.randint` hashes three times for it, one after the other; this is one hash.

    Args:
        key: of Threefry.
        shape: of the result, int32.
        bound: [], from 1 to 2³¹ − 1.
    """
    high, low = _hash_positions(jax.random.key_data(key), shape)
    bound = jnp.asarray(bound, jnp.uint32)
    carry = _multiply_high(low, bound)
    middle = high * bound + carry  # modulo 2³²
    return (_multiply_high(high, bound) + (middle < carry)).astype(jnp.int32)


def _multiply_high(x: jax.Array, y: jax.Array) -> jax.Array:
    """The upper 32 of the 64 bits of a product of two uint32, from products of their halves."""
    half, mask = np.uint32(16), np.uint32(0xFFFF)
    lowest = (x & mask) * (y & mask)
    first = (x >> half) * (y & mask) + (lowest >> half)
    second = (x & mask) * (y >> half) + (first & mask)
    return (x >> half) * (y >> half) + (first >> half) + (second >> half)


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
    hashed_high, hashed_low = _ROUNDS.bind(
        *(lax.broadcast(word, low.shape) for word in (word_0, word_1, word_2)), high, low
    )
    return hashed_high, hashed_low


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


def _flat_rounds(*words: jax.Array) -> list[jax.Array]:
    """The rounds of words of any shape, as of vectors: a program has them once for each size."""
    flat = (lax.reshape(word, (word.size,)) for word in words)
    return [lax.reshape(x, words[0].shape) for x in _threefry_rounds(*flat)]


def _separate_rounds(*words: jax.Array) -> list[jax.Array]:
    """The rounds, kept out of other kernels.

    Keys are hashed from keys. XLA's CPU compiler would put one hash into the next, once for each of its words, and so
    on along the chain: XLA of jax 0.11 does not come to an end with it.
    """
    return list(lax.optimization_barrier(_flat_rounds(*words)))


def _batch_rounds(words: Any, axes: Any) -> tuple[Any, tuple[int, int]]:
    """Batching elementwise arithmetic is broadcasting."""
    size = next(word.shape[axis] for word, axis in zip(words, axes, strict=True) if axis is not None)
    batched = (batching.bdim_at_front(word, axis, size) for word, axis in zip(words, axes, strict=True))
    return _ROUNDS.bind(*batched), (0, 0)


_ROUNDS = Primitive("threefry_rounds")
"""Elementwise, of five arrays. A primitive of its own, so that its hundred operations are traced when a program is
lowered, and no sooner: under two vmaps JAX would trace them three times for every draw."""
_ROUNDS.multiple_results = True
_ROUNDS.def_impl(_threefry_rounds)
_ROUNDS.def_abstract_eval(lambda *words: [ShapedArray(words[0].shape, words[0].dtype)] * 2)
batching.primitive_batchers[_ROUNDS] = _batch_rounds
mlir.register_lowering(_ROUNDS, mlir.lower_fun(_flat_rounds, multiple_results=True))
mlir.register_lowering(_ROUNDS, mlir.lower_fun(_separate_rounds, multiple_results=True), platform="cpu")


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

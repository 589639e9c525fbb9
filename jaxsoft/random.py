"""Random keys whose numbers are JAX's own, drawn in one kernel instead of many.

On CPU, JAX compiles each use of its default generator, Threefry-2x32, to a loop of five rounds of small kernels. A
training draws in dozens of places, and these loops are a third of the time that it takes to compile. The same hash
without the loop is a single kernel. `fused` turns a default key into one that uses it: the numbers are the same.

A few functions of `jax.random`, for example `poisson`, refuse keys that are not JAX's own. Code from outside, such as
an environment, gets those: `unfused`.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import ShapedArray
from jax.experimental.xla_metadata import set_xla_metadata
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
    words = _split(jax.random.key_data(key), shape)
    high, low = words[..., 0], words[..., 1]
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


def threefry_2x32(key: jax.Array, counters: jax.Array) -> jax.Array:
    """The Threefry-2x32 hash, with 20 rounds, of counters (0, c) with one key.

    Args:
        key: [2], uint32.
        counters: [n], uint32, c.

    Returns:
        [n, 2], uint32: both words of each hash.

    Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3.
    """
    return _HASH.bind(key, counters, size=counters.size, words=True)


def _rounds(key: jax.Array, counters: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both words of the hash of [n, 2] keys and [n or 1, m] counters, [n, m] each."""
    shape = (key.shape[0], counters.shape[1])
    word_0, word_1 = (lax.slice_in_dim(key, i, i + 1, axis=1) for i in range(2))
    words = (word_0, word_1, lax.bitwise_xor(lax.bitwise_xor(word_0, word_1), np.uint32(_PARITY)))
    words = [lax.broadcast_in_dim(word, shape, (0, 1)) for word in words]
    high, low = words[0], lax.add(lax.broadcast_in_dim(counters, shape, (0, 1)), words[1])
    for i in range(5):
        for distance in _ROTATIONS[i % 2]:
            high = lax.add(high, low)
            low = lax.bitwise_xor(high, _rotate_left(low, distance))
        high = lax.add(high, words[(i + 1) % 3])
        low = lax.add(low, lax.add(words[(i + 2) % 3], np.uint32(i + 1)))
    return high, low


def _rotate_left(x: jax.Array, distance: int) -> jax.Array:
    return lax.bitwise_or(lax.shift_left(x, np.uint32(distance)), lax.shift_right_logical(x, np.uint32(32 - distance)))


@partial(jax.jit, static_argnames=("size", "words", "once"))
def _threefry_rounds(key: jax.Array, *counters: jax.Array, size: int, words: bool, once: bool) -> jax.Array:
    """Both words of each hash [n, m, 2], or their 32 bits [n, m], of counters or of the positions below m.

    `once` keeps the rounds from being two times in the kernel that joins both words, for compilers that would.
    """
    high, low = _rounds(key, *(counters or (lax.broadcasted_iota(np.uint32, (1, size), 1),)))
    if not words:
        return lax.bitwise_xor(high, low)
    if not once:
        return lax.concatenate([lax.expand_dims(x, (2,)) for x in (high, low)], 2)
    high, low = (lax.broadcast_in_dim(x, (*x.shape, 2), (0, 1)) for x in (high, low))
    return lax.select(lax.eq(lax.broadcasted_iota(np.int32, high.shape, 2), np.int32(0)), high, low)


def _hash(key: jax.Array, *counters: jax.Array, size: int, words: bool, once: bool = False) -> jax.Array:
    """The hash of arrays of any rank, as of matrices: a program has the rounds once for each size."""
    shape = _hash_shape(key, *counters, size=size, words=words)
    batch = shape[: key.ndim - 1]
    key = jnp.broadcast_to(key, (*batch, 2)).reshape(math.prod(batch), 2)
    if any(math.prod(x.shape[:-1]) != 1 for x in counters):
        counters = tuple(jnp.broadcast_to(x, (*batch, size)) for x in counters)
    counters = tuple(x.reshape(math.prod(x.shape[:-1]), size) for x in counters)
    return _threefry_rounds(key, *counters, size=size, words=words, once=once).reshape(shape)


def _called_hash(key: jax.Array, *counters: jax.Array, size: int, words: bool) -> jax.Array:
    """The hash as a function that is called, and no part of the kernels around it.

    Keys are hashed from keys. XLA's CPU compiler would put one hash into the next, once for each of its words, and so
    on along the chain: XLA of jax 0.11 does not come to an end with it.
    """
    with set_xla_metadata(inlineable="false"):
        return _hash(key, *counters, size=size, words=words, once=True)


def _hash_shape(*operands: Any, size: int, words: bool) -> tuple[Any, ...]:
    return (*lax.broadcast_shapes(*(x.shape[:-1] for x in operands)), size, *(2,) * words)


def _batch_hash(operands: Any, axes: Any, **options: Any) -> tuple[jax.Array, int]:
    """Leading axes are batches, of size 1 in an operand that has none."""
    operands = (
        lax.expand_dims(x, (0,)) if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in zip(operands, axes, strict=True)
    )
    return _HASH.bind(*operands, **options), 0


_HASH = Primitive("threefry_hash")
"""The hash of keys [..., 2] and counters [..., m]: both words [..., m, 2], or 32 bits [..., m].

Without counters it hashes the positions 0, …, m − 1. A primitive of its own, so that its hundred operations are traced
when a program is lowered, and no sooner: under two vmaps JAX would trace them three times for every draw.
"""
_HASH.def_impl(jax.jit(_hash, static_argnames=("size", "words")))
_HASH.def_abstract_eval(lambda *operands, **options: ShapedArray(_hash_shape(*operands, **options), np.uint32))
batching.primitive_batchers[_HASH] = _batch_hash
mlir.register_lowering(_HASH, mlir.lower_fun(_hash, multiple_results=False))
mlir.register_lowering(_HASH, mlir.lower_fun(_called_hash, multiple_results=False), platform="cpu")


def _hash_positions(key: jax.Array, shape: tuple[int, ...], *, words: bool) -> jax.Array:
    """Hashes each position of an array of this shape, counted in row-major order (below 2³²)."""
    size = math.prod(shape)
    if size > 2**32:
        raise ValueError(f"shape {shape} has more than 2**32 entries")
    return lax.reshape(_HASH.bind(key, size=size, words=words), (*shape, *(2,) * words))


def _split(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return _hash_positions(key, shape, words=True)


def _random_bits(key: jax.Array, bit_width: int, shape: tuple[int, ...]) -> jax.Array:
    if bit_width < 64:
        return lax.convert_element_type(_hash_positions(key, shape, words=False), f"uint{bit_width}")
    words = _split(key, shape).astype(jnp.uint64)
    return (words[..., 0] << 32) | words[..., 1]


def _fold_in(key: jax.Array, data: int | jax.Array) -> jax.Array:
    return threefry_2x32(key, jnp.asarray(data, jnp.uint32)[None])[0]


_FUSED = define_prng_impl(
    key_shape=(2,),
    seed=threefry_prng_impl.seed,
    split=_split,
    random_bits=_random_bits,
    fold_in=_fold_in,
    name="jaxsoft_threefry2x32",
    tag="jaxsoft_fry",
)

"""The fused generator draws JAX's own numbers, bit for bit."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsoft.random import fused, random_index, threefry_2x32, unfused

DRAWS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "normal": lambda key: jax.random.normal(key, (5, 3)),
    "normal_scalar": lambda key: jax.random.normal(key),
    "normal_empty": lambda key: jax.random.normal(key, (0, 3)),
    "uniform": lambda key: jax.random.uniform(key, (7,), minval=-2.0, maxval=3.0),
    "uniform_half": lambda key: jax.random.uniform(key, (7,), jnp.bfloat16),
    "randint": lambda key: jax.random.randint(key, (101,), 0, 12345),
    "bits_8": lambda key: jax.random.bits(key, (9,), jnp.uint8),
    "bits_16": lambda key: jax.random.bits(key, (3, 3), jnp.uint16),
    "bits_32": lambda key: jax.random.bits(key, (2, 3, 4), jnp.uint32),
    "bernoulli": lambda key: jax.random.bernoulli(key, 0.3, (64,)),
    "categorical": lambda key: jax.random.categorical(key, jnp.arange(5.0), shape=(11,)),
    "permutation": lambda key: jax.random.permutation(key, 17),
    "gamma": lambda key: jax.random.gamma(key, 2.0, (3,)),
    "split": lambda key: jax.random.key_data(jax.random.split(key, 7)),
    "split_2d": lambda key: jax.random.key_data(jax.random.split(key, (2, 3))),
    "fold_in": lambda key: jax.random.key_data(jax.random.fold_in(key, 12345)),
    "split_then_draw": lambda key: jax.vmap(jax.random.uniform)(jax.random.split(jax.random.fold_in(key, 3), 4)),
}

WIDE_DRAWS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "bits_64": lambda key: jax.random.bits(key, (2, 5), jnp.uint64),
    "normal_64": lambda key: jax.random.normal(key, (5,), jnp.float64),
    "uniform_64": lambda key: jax.random.uniform(key, (5,), jnp.float64),
    "randint_64": lambda key: jax.random.randint(key, (5,), 0, 2**40, jnp.int64),
    "fold_in_64": lambda key: jax.random.key_data(jax.random.fold_in(key, 7)),
}


def assert_bit_identical(actual: jax.Array, expected: jax.Array) -> None:
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    assert np.asarray(actual).tobytes() == np.asarray(expected).tobytes()


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_fused_key_draws_the_default_keys_numbers(draw: Callable[[jax.Array], jax.Array]) -> None:
    for seed in (0, 2**31 + 5):
        key = jax.random.key(seed)
        assert_bit_identical(jax.jit(draw)(fused(key)), jax.jit(draw)(key))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("draw", WIDE_DRAWS.values(), ids=WIDE_DRAWS)
def test_fused_key_draws_the_default_keys_64_bit_numbers(draw: Callable[[jax.Array], jax.Array]) -> None:
    key = jax.random.key(3)
    drawn = draw(fused(key))
    assert drawn.dtype.itemsize == 8 or drawn.dtype == jnp.uint32  # x64 is really on; key data are always uint32
    assert_bit_identical(drawn, draw(key))


@pytest.mark.parametrize("name", ["normal", "split", "fold_in", "randint"])
def test_numbers_agree_under_nested_vmap(name: str) -> None:
    keys = jax.random.split(jax.random.key(1), (2, 3))
    nested = jax.jit(jax.vmap(jax.vmap(DRAWS[name])))
    assert_bit_identical(nested(jax.vmap(jax.vmap(fused))(keys)), nested(keys))


def test_a_program_has_the_rounds_once_for_each_size(key: jax.Array) -> None:
    def draw(key: jax.Array) -> tuple[jax.Array, ...]:
        return tuple(jax.random.bits(key, shape, jnp.uint32) for shape in ((2, 3), (6,), (3, 2), (5,)))

    keys = jax.random.split(fused(key), (2, 2))
    program = jax.jit(jax.vmap(jax.vmap(draw))).lower(keys).as_text()
    assert program.count("func.func private @_threefry_rounds") == 2


def test_fold_in_agrees_for_traced_and_batched_data() -> None:
    key, data = jax.random.key(1), jnp.arange(5)
    fold = jax.jit(jax.vmap(lambda key, i: jax.random.key_data(jax.random.fold_in(key, i)), in_axes=(None, 0)))
    assert_bit_identical(fold(fused(key), data), fold(key, data))


def test_raw_keys_are_taken_too() -> None:
    raw = jax.random.PRNGKey(5)
    assert_bit_identical(jax.random.normal(fused(raw), (3,)), jax.random.normal(raw, (3,)))


def test_keys_of_another_generator_pass_through_unchanged() -> None:
    key = jax.random.key(5, impl="rbg")
    assert fused(key) is key


def test_fusing_twice_is_fusing_once(key: jax.Array) -> None:
    once = fused(key)
    assert_bit_identical(jax.random.normal(fused(once), (3,)), jax.random.normal(once, (3,)))


def test_unfused_keys_are_jaxs_own_of_the_same_numbers(key: jax.Array) -> None:
    back = unfused(fused(key))
    assert back.dtype == key.dtype
    assert_bit_identical(jax.random.key_data(back), jax.random.key_data(key))
    assert_bit_identical(jax.random.poisson(back, 3.0), jax.random.poisson(key, 3.0))  # refuses any other kind of key
    assert unfused(key) is key
    assert unfused(jax.random.key(5, impl="rbg")).dtype == jax.random.key(5, impl="rbg").dtype


def random123(key: tuple[int, ...], counter: tuple[int, int]) -> list[int]:
    """Threefry-2x32 as the Random123 library writes it, in Python's integers."""
    rotations, modulus = (13, 15, 26, 6, 17, 29, 16, 24), 2**32
    schedule = [*key, key[0] ^ key[1] ^ 0x1BD11BDA]
    x, y = ((word + part) % modulus for word, part in zip(counter, key, strict=True))
    for i in range(20):
        x = (x + y) % modulus
        y = ((y << rotations[i % 8]) | (y >> (32 - rotations[i % 8]))) % modulus ^ x
        if i % 4 == 3:
            x, y = (x + schedule[(i // 4 + 1) % 3]) % modulus, (y + schedule[(i // 4 + 2) % 3] + i // 4 + 1) % modulus
    return [x, y]


@pytest.mark.parametrize(
    ("key", "counter", "hashed"),
    [
        ((0x00000000, 0x00000000), (0x00000000, 0x00000000), [0x6B200159, 0x99BA4EFE]),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), [0x1CB996FC, 0xBB002BE7]),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), [0xC4923A9C, 0x483DF7A0]),
    ],
)
def test_the_reference_gives_the_known_answers_of_random123(
    key: tuple[int, int], counter: tuple[int, int], hashed: list[int]
) -> None:
    assert random123(key, counter) == hashed  # kat_vectors, threefry2x32 with 20 rounds


def test_hash_is_threefry_of_each_counter() -> None:
    keys = np.random.default_rng(0).integers(0, 2**32, (3, 2), dtype=np.uint32)
    counters = np.asarray([0, 1, 2**31, 2**32 - 1], np.uint32)
    expected = [[random123(tuple(key.tolist()), (0, int(c))) for c in counters] for key in keys]
    np.testing.assert_array_equal(
        jax.vmap(threefry_2x32, (0, None))(jnp.asarray(keys), jnp.asarray(counters)), expected
    )


def test_hash_takes_keys_and_counters_of_their_own_under_a_vmap(key: jax.Array) -> None:
    keys = jax.random.key_data(jax.random.split(key, (2, 3)))
    counters = jnp.arange(24, dtype=jnp.uint32).reshape(2, 3, 4)
    both = jax.vmap(jax.vmap(threefry_2x32))(keys, counters)
    assert_bit_identical(
        both, jnp.stack([jnp.stack([*map(threefry_2x32, k, c)]) for k, c in zip(keys, counters, strict=True)])
    )
    only_counters = jax.vmap(threefry_2x32, (None, 1))(keys[0, 0], counters[0])
    assert_bit_identical(only_counters, jnp.stack([threefry_2x32(keys[0, 0], c) for c in counters[0].T]))


def test_keys_are_exported_with_a_symbolic_number_of_them(key: jax.Array) -> None:
    def draw(data: jax.Array) -> jax.Array:
        return jax.vmap(lambda key: jax.random.normal(jax.random.split(fused(key))[0], (3,)))(
            jax.random.wrap_key_data(data)
        )

    (size,) = jax.export.symbolic_shape("b")
    exported = jax.export.export(jax.jit(draw))(jax.ShapeDtypeStruct((size, 2), jnp.uint32))
    data = jax.random.key_data(jax.random.split(key, 4))
    assert_bit_identical(jnp.asarray(exported.call(data)), jax.jit(draw)(data))


def test_a_cpu_computes_a_hash_apart_and_once(key: jax.Array) -> None:
    program = (
        jax.jit(lambda key: jax.random.split(jax.random.split(key)[0], 3)).lower(fused(key)).compile().as_text() or ""
    )
    assert program.count(" call(") == 2
    assert program.count(" xor(") <= 2 * 23


def test_more_positions_than_a_32_bit_counter_has_are_refused(key: jax.Array) -> None:
    with pytest.raises(ValueError, match=r"more than 2\*\*32"):
        jax.jit(lambda key: jax.random.bits(fused(key), (2**17, 2**16))).lower(key)


@pytest.mark.parametrize("bound", [1, 2, 3, 7, 1000, 2**31 - 1])
def test_random_index_is_the_product_of_64_bits(bound: int):
    key, shape = fused(jax.random.key(bound)), (2000,)
    # a key's children are its hashes of 0, 1, 2, ...
    words = np.asarray(jax.random.key_data(jax.random.split(jax.random.key(bound), shape[0])), np.uint64)
    expected = [(int(high) << 32 | int(low)) * bound >> 64 for high, low in words]
    index = random_index(key, shape, bound)
    assert index.dtype == jnp.int32
    np.testing.assert_array_equal(index, expected)
    np.testing.assert_array_equal(random_index(jax.random.key(bound), shape, jnp.int32(bound)), expected)

"""Rows that were packed are the same rows, to the bit."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxsoft.training.packing import pack, scan_packed, unpack


def row(num_envs: int = 3) -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(num_envs, 2, 2)).astype(np.float32)
    obs[0, 0] = [np.nan, -0.0]
    obs[1, 0] = np.array([1, 0x7FC12345], np.uint32).view(np.float32)  # a subnormal number, a NaN of its own
    return {
        "obs": jnp.asarray(obs),
        "action": jnp.asarray([-1, 2**31 - 1, -(2**31)], jnp.int32),
        "terminated": jnp.asarray([True, False, True]),
        "half": jnp.asarray([[1.5], [-2], [0.1]], jnp.bfloat16),
        "nibbles": jnp.asarray([[1, -2], [3, 0], [-8, 7]], jnp.int4),
        "pairs_of_bits": jnp.asarray([[1], [0], [-2]], jnp.int2),
        "tiny": jnp.asarray([[0.5], [-6], [0]], jnp.float4_e2m1fn),
        "image": jnp.asarray(rng.integers(0, 256, (num_envs, 5, 5)), jnp.uint8),
        "key": jax.random.split(jax.random.key(0), num_envs),
    }


def bits(x: jax.Array) -> np.ndarray:
    return np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)


def test_every_field_comes_back_to_the_bit():
    fields = row()
    words, others = pack(fields)
    assert words.dtype == jnp.uint32
    assert words.shape == (3, 4 + 1 + 1 + 1)
    assert {x.dtype.name for x in others} == {"int4", "int2", "float4_e2m1fn", "uint8", "key<fry>"}
    back = unpack(words, others, fields)
    for name, x in fields.items():
        assert back[name].dtype == x.dtype
        assert bits(back[name]).tobytes() == bits(x).tobytes(), name


def test_a_packed_scan_puts_out_what_a_scan_does():
    def step(carry: jax.Array, x: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        fields = row() | {"action": row()["action"] // 2 + x}
        return carry + x, fields | {"none": None}  # type: ignore[dict-item]

    for length in (1, 4):
        xs = jnp.arange(length)
        carry, rows = jax.jit(lambda xs: scan_packed(step, jnp.int32(0), xs))(xs)
        expected_carry, expected = jax.lax.scan(step, jnp.int32(0), xs)
        assert carry == expected_carry
        assert jax.tree.structure(rows) == jax.tree.structure(expected)
        for ours, theirs in zip(jax.tree.leaves(rows), jax.tree.leaves(expected), strict=True):
            assert bits(ours).tobytes() == bits(theirs).tobytes()

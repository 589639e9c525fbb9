"""Reductions that are written out give what JAX's own give, gradients included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsoft.ops.reductions import MAX_ENTRIES, argmax_last, log_softmax_last, max_last, sum_last, take_last

SIZES = (1, 2, 3, MAX_ENTRIES, MAX_ENTRIES + 1)


def numbers(size: int) -> np.ndarray:
    x = np.random.default_rng(size).normal(size=(50, 4, size)).astype(np.float32)
    x[0, 0] = x[0, 0, 0]  # ties
    x[1, 0] = -np.inf
    x[2, 0, -1] = np.inf
    x[3, 0, -1] = np.nan
    x[4, 0] = np.nan
    return x


@pytest.mark.parametrize("size", SIZES)
def test_they_equal_numpys(size: int):
    x = numbers(size)
    index = np.random.default_rng(0).integers(0, size, x.shape[:-1])
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(sum_last(jnp.asarray(x)), x.sum(axis=-1), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(max_last(jnp.asarray(x), keepdims=True), x.max(axis=-1, keepdims=True))
    np.testing.assert_array_equal(argmax_last(jnp.asarray(x)), np.argmax(x, axis=-1))
    np.testing.assert_array_equal(
        take_last(jnp.asarray(x), jnp.asarray(index)), np.take_along_axis(x, index[..., None], axis=-1)[..., 0]
    )


@pytest.mark.parametrize("size", [3, MAX_ENTRIES + 1])
def test_gradients_and_softmax_equal_jaxs(size: int):
    x = jnp.asarray(numbers(size)[5:])
    index = jnp.asarray(np.random.default_rng(1).integers(0, size, x.shape[:-1]))

    def ours(x: jax.Array) -> jax.Array:
        return jnp.sum(take_last(log_softmax_last(x), index) * sum_last(x**2))

    def theirs(x: jax.Array) -> jax.Array:
        taken = jnp.take_along_axis(jax.nn.log_softmax(x), index[..., None], axis=-1)[..., 0]
        return jnp.sum(taken * jnp.sum(x**2, axis=-1))

    np.testing.assert_allclose(ours(x), theirs(x), rtol=1e-5)
    np.testing.assert_allclose(jax.grad(ours)(x), jax.grad(theirs)(x), rtol=1e-4, atol=1e-5)

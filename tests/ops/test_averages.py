"""Sums of a hundred million terms, slow copies near 1, and the gradient of a minimum."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsoft.ops.averages import Sum, add, clamp, least, no_sum, polyak_average


@jax.jit
def sums(num_terms: jax.Array) -> tuple[Sum, Sum]:
    """Of a constant, and of noise in [0, 1) of which every term of the second half is 1 larger."""

    def body(i: jax.Array, totals: tuple[Sum, Sum]) -> tuple[Sum, Sum]:
        noise = ((i.astype(jnp.uint32) * jnp.uint32(2654435761)) >> 8).astype(jnp.float32) / 2**24
        return add(totals[0], jnp.float32(0.1)), add(totals[1], noise + (i >= num_terms // 2))

    return jax.lax.fori_loop(0, num_terms, body, (no_sum(), no_sum()))


def test_sums_lose_no_digits() -> None:
    # a plain sum of these: 1/5 and 1/3 of the truth; a running mean: 0.94 instead of 1
    num_terms = 100_000_000
    constant, drifting = sums(num_terms)
    np.testing.assert_allclose(constant.value / num_terms, np.float32(0.1), rtol=1e-7)
    np.testing.assert_allclose(drifting.value / num_terms, 1.0, rtol=1e-6)


def test_sums_are_exact_whatever_the_order_of_size() -> None:
    terms = np.array([1.0, 1e8, 3.0, -1e8, 1e-8, 2.0**-30], np.float32)
    total, _ = jax.lax.scan(lambda total, x: (add(total, x), None), no_sum(), jnp.asarray(terms))
    exact = np.sum(terms.astype(np.float64))
    np.testing.assert_allclose(np.float64(total.value) + np.float64(total.rest), exact, rtol=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_sum_stays_bad(bad: float) -> None:
    total = no_sum()
    for x in (1.0, bad, 1.0, -bad, 2.0):
        total = add(total, jnp.float32(x))
    assert not np.isfinite(total.value)


@pytest.mark.parametrize("polyak", [0.0, 0.995, 0.9999999, 1.0])
def test_slow_copies_move_by_one_less_polyak(polyak: float) -> None:
    slow, fast = jnp.zeros(3), jnp.array([1.0, -2.0, 3e-3])
    moved = jax.jit(lambda: polyak_average({"w": slow}, {"w": fast}, polyak))()["w"]
    np.testing.assert_allclose(moved, (1 - polyak) * np.asarray(fast, np.float64), rtol=1e-6)


def test_slow_copies_stay_where_they_have_arrived() -> None:
    weights = jnp.linspace(0.1, 1, 1000)
    arrived = jax.jit(
        lambda: jax.lax.fori_loop(0, 10_000, lambda _, w: polyak_average(w, weights, 0.9999999), weights)
    )()
    np.testing.assert_array_equal(arrived, weights)


def test_without_polyak_the_copy_is_the_parameter() -> None:
    old, new = jnp.array([1e8, jnp.inf]), jnp.array([1e-3, 1.0])
    for polyak in (0.0, jnp.zeros(())):
        np.testing.assert_array_equal(polyak_average(old, new, polyak), new)


def test_the_least_is_nan_where_one_is() -> None:
    np.testing.assert_array_equal(least(jnp.array([[1.0, jnp.nan, 3.0], [jnp.nan, 2.0, 2.0]])), [jnp.nan, jnp.nan, 2])


def test_the_gradient_of_the_least_goes_to_one_entry() -> None:
    q = jnp.array([[1.0, 2.0, 3.0, -1.0], [1.0, 1.0, 4.0, -1.0]])
    np.testing.assert_array_equal(least(q), [1, 1, 3, -1])
    gradient = jax.jit(jax.grad(lambda q: jnp.sum(least(q))))(q)
    np.testing.assert_array_equal(gradient, [[1, 0, 1, 1], [0, 1, 0, 0]])  # of equals the first
    np.testing.assert_array_equal(least(q[:1]), q[0])


def test_the_gradient_of_a_clamp_is_one_within_the_bounds() -> None:
    x = jnp.array([-3.0, -0.5, 0.0, 0.5, 3.0])
    np.testing.assert_array_equal(clamp(x, -1, 1), [-1, -0.5, 0, 0.5, 1])
    np.testing.assert_array_equal(jax.grad(lambda x: jnp.sum(clamp(x, -1, 1)))(x), [0, 1, 1, 1, 0])

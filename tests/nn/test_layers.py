"""Layers are flax's own, with the same parameters; initial weights are distributed as they should be."""

from __future__ import annotations

import math
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from flax import linen as nn

from jaxsoft.nn.layers import (
    Conv3x3,
    Dense,
    LayerNorm,
    orthonormal,
    sparse_initializer,
    standardise_in_one_pass,
    standardise_in_two_passes,
    sums_apart,
    sums_at_once,
)


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(40, 7), (4, 30), (3, 3, 5, 8)])
def test_every_unit_has_exactly_its_share_of_zeros(shape: tuple[int, ...], sparsity: float, key: jax.Array) -> None:
    weights = np.asarray(sparse_initializer(sparsity)(key, shape))
    assert weights.shape == shape
    incoming = weights.reshape(-1, shape[-1])
    zeros = min(math.ceil(sparsity * len(incoming)), len(incoming) - 1)  # every unit keeps one
    np.testing.assert_array_equal((incoming == 0).sum(0), zeros)
    assert np.abs(incoming).max() <= 1 / math.sqrt(len(incoming))


def test_sparse_weights_are_uniform_and_every_units_zeros_are_its_own(key: jax.Array) -> None:
    weights = np.asarray(sparse_initializer(0.5)(key, (50, 200)))
    bound = 1 / math.sqrt(50)
    kept = weights[weights != 0]
    assert scipy.stats.kstest(kept, scipy.stats.uniform(-bound, 2 * bound).cdf).pvalue > 1e-3
    assert len(np.unique(weights == 0, axis=1).T) == 200
    # every input is as likely to be cut as any other: 100 of 200, give or take 7
    assert np.abs((weights == 0).sum(1) - 100).max() < 4.5 * math.sqrt(50)
    other = np.asarray(sparse_initializer(0.5)(jax.random.key(1), (50, 200)))
    assert ((weights == 0) != (other == 0)).mean() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("shape", [(10, 10, 4), (2, 5, 7, 6, 3), (3, 3, 1)])
def test_a_convolution_is_flax_s_with_the_same_parameters(shape: tuple[int, ...], key: jax.Array) -> None:
    ours, theirs = Conv3x3(5, nn.initializers.lecun_normal()), nn.Conv(5, (3, 3), padding="VALID")
    x_key, bias_key, init_key = jax.random.split(key, 3)
    x = jax.random.normal(x_key, shape)
    params: Any = theirs.init(init_key, x)
    jax.tree.map(np.testing.assert_array_equal, ours.init(init_key, x), params)
    params["params"]["bias"] = jax.random.normal(bias_key, (5,))

    def value_and_gradient(module: nn.Module) -> tuple[jax.Array, Any]:
        gradient = jax.grad(lambda params, x: jnp.sum(jnp.sin(module.apply(params, x))), (0, 1))(params, x)  # type: ignore[arg-type]
        return module.apply(params, x), gradient  # type: ignore[return-value]

    for a, b in zip(*(jax.tree.leaves(value_and_gradient(module)) for module in (ours, theirs)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (64, 64), (40, 256)])
def test_orthonormal_rows_are_those_of_numpys_factorisation(shape: tuple[int, int], key: jax.Array) -> None:
    vectors = jax.random.normal(key, shape)
    q, r = np.linalg.qr(np.asarray(vectors, np.float64).T)
    np.testing.assert_allclose(jax.jit(orthonormal)(vectors), (q * np.sign(np.diag(r))).T, rtol=1e-3, atol=1e-4)


def test_nearly_equal_rows_still_end_at_right_angles(key: jax.Array) -> None:
    first, noise = jax.random.normal(key, (2, 1, 50))
    rows = np.asarray(jax.jit(orthonormal)(jnp.concatenate([first, first + 1e-4 * noise])))
    np.testing.assert_allclose(rows @ rows.T, np.eye(2), atol=1e-6)


@pytest.mark.parametrize("batch_shape", [(), (7,), (3, 7)])
@pytest.mark.parametrize("num_inputs", [3, 20])
def test_a_hidden_layer_is_that_of_flax_and_so_are_its_gradients(
    num_inputs: int, batch_shape: tuple[int, ...], strict_ranks: None
) -> None:
    x = jax.random.normal(jax.random.key(1), (*batch_shape, num_inputs))
    ours, flax = Dense(5), nn.Dense(5)
    params = ours.init(jax.random.key(2), x)
    jax.tree.map(np.testing.assert_array_equal, params, flax.init(jax.random.key(2), x))
    params = jax.tree.map(lambda p: p + 0.1, params)  # also the bias

    def gradients(layer: nn.Module, params: Any, x: jax.Array) -> Any:
        def loss(*args: Any) -> jax.Array:
            y: Any = layer.apply(*args)
            return jnp.sum(jnp.sin(y))

        return jax.grad(loss, argnums=(0, 1))(params, x)

    def assert_close(actual: Any, expected: Any) -> None:
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)

    assert_close(ours.apply(params, x), flax.apply(params, x))
    jax.tree.map(assert_close, gradients(ours, params, x), gradients(flax, params, x))
    two = jax.tree.map(lambda p: jnp.stack([p, 2 * p]), params)  # of an ensemble on the same inputs
    of_both = jax.vmap(gradients, (None, 0, None))
    jax.tree.map(assert_close, of_both(ours, two, x), of_both(flax, two, x))


def test_both_ways_to_sum_the_gradients_are_one_function(key: jax.Array) -> None:
    rows, gradients = jax.random.normal(key, (9, 3)), jax.random.normal(jax.random.fold_in(key, 1), (9, 4))
    expected = np.einsum("ni,no->io", rows, gradients), np.sum(gradients, 0)
    for way in (sums_apart, sums_at_once):
        for found, x in zip(way(rows, gradients), expected, strict=True):
            np.testing.assert_allclose(found, x, rtol=1e-5, atol=1e-5)


def test_layer_norm_is_flaxs_own(key: jax.Array) -> None:
    x = jnp.concatenate([jax.random.normal(key, (5, 7)), jnp.full((1, 7), 3.0)])  # a row without variance, too
    ours, flaxs = LayerNorm(), nn.LayerNorm()
    params = jax.tree.map(lambda p: p + 0.3, flaxs.init(key, x))
    jax.tree.map(np.testing.assert_array_equal, ours.init(key, x), flaxs.init(key, x))

    def applied(network: nn.Module, x: jax.Array) -> jax.Array:
        return cast(jax.Array, network.apply(params, x))

    np.testing.assert_allclose(applied(ours, x), applied(flaxs, x), rtol=1e-6, atol=1e-6)
    gradients = [jax.grad(lambda x, net=net: jnp.sum(jnp.sin(applied(net, x))))(x[:5]) for net in (ours, flaxs)]
    np.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-5)


def test_both_ways_to_standardise_are_one_function(key: jax.Array) -> None:
    x = 3 + 2 * jax.random.normal(key, (5, 7))
    ways = standardise_in_one_pass, standardise_in_two_passes
    expected = (x - np.mean(x, -1, keepdims=True)) / np.sqrt(np.var(x, -1, keepdims=True) + 1e-6)
    for way in ways:
        np.testing.assert_allclose(way(x), expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(way(jnp.full((2, 7), 3.0)), 0, atol=1e-3)  # rounding, of no variance
    gradients = [jax.grad(lambda x, way=way: jnp.sum(jnp.sin(way(x))))(x) for way in ways]
    np.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-5)
    # far from 0 the mean square loses digits, and two passes keep them
    np.testing.assert_allclose(standardise_in_two_passes(x + 1e4), expected, atol=5e-3)

"""Initial weights, layer normalisation, and the linear function that is a table."""

from __future__ import annotations

import math
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from flax import linen as nn

from jaxsoft.nn import networks
from jaxsoft.nn.networks import (
    Conv3x3,
    Dense,
    DiscreteQFunction,
    OrthogonalMLP,
    ensemble,
    orthonormal,
    sparse_initializer,
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


def q_function(hidden_sizes: tuple[int, ...], obs_rank: int = 1, **settings: Any) -> DiscreteQFunction:
    return DiscreteQFunction(3, hidden_sizes, (4,), obs_rank, **settings)


def test_without_hidden_layers_it_is_linear_and_of_one_hot_observations_a_table(key: jax.Array) -> None:
    network = q_function(())
    params = jax.jit(network.init)(key, jnp.zeros(5))
    (table,) = jax.tree.leaves(params)
    assert table.shape == (5, 3)
    np.testing.assert_array_equal(jax.jit(network.apply)(params, jnp.eye(5)), table)


@pytest.mark.parametrize("shape", [(), (2, 3)])
@pytest.mark.parametrize("hidden_sizes", [(), (8, 8)])
def test_leading_axes_are_the_batchs(shape: tuple[int, ...], hidden_sizes: tuple[int, ...], key: jax.Array) -> None:
    network = q_function(hidden_sizes, obs_rank=3)
    params = jax.jit(network.init)(key, jnp.zeros((5, 5, 2)))
    obs = jax.random.normal(key, (*shape, 5, 5, 2))
    q = jax.jit(network.apply)(params, obs)
    assert isinstance(q, jax.Array)
    assert q.shape == (*shape, 3)
    if shape:
        each = jax.jit(jax.vmap(lambda x: network.apply(params, x)))(obs.reshape(-1, 5, 5, 2))
        np.testing.assert_allclose(q.reshape(-1, 3), each, rtol=1e-4, atol=1e-5)


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


def test_images_pass_convolutions_and_whole_numbers_are_taken(key: jax.Array) -> None:
    network = q_function((8,), obs_rank=3)
    params = jax.jit(network.init)(key, jnp.zeros((5, 5, 2), bool))
    assert params["params"]["Conv_0"]["kernel"].shape == (3, 3, 2, 4)
    assert params["params"]["Dense_0"]["kernel"].shape == (3 * 3 * 4, 8)
    assert jax.jit(network.apply)(params, jnp.ones((5, 5, 2), jnp.uint8)).dtype == jnp.float32  # type: ignore[union-attr]


@pytest.mark.parametrize("obs_shape", [(5,), (5, 5, 2)])
def test_orthogonal_weights_have_their_gains_and_layers_their_tanh(obs_shape: tuple[int, ...], key: jax.Array) -> None:
    network = OrthogonalMLP(2, (24, 8), (6,), len(obs_shape), final_gain=0.01)
    params = jax.jit(network.init)(key, jnp.zeros(obs_shape))["params"]
    assert set(params) == {"Dense_0", "Dense_1", "Dense_2"} | ({"Conv_0"} if len(obs_shape) == 3 else set())
    for name, layer in params.items():
        kernel, gain = np.asarray(layer["kernel"]), 0.01 if name == "Dense_2" else math.sqrt(2)
        kernel = kernel.reshape(-1, kernel.shape[-1])
        kernel = kernel if len(kernel) >= kernel.shape[1] else kernel.T
        np.testing.assert_allclose(kernel.T @ kernel, gain**2 * np.eye(kernel.shape[1]), atol=1e-5 * gain**2)
        np.testing.assert_array_equal(layer["bias"], 0)
    obs = jax.random.normal(key, (3, *obs_shape))
    if len(obs_shape) == 1:
        x = np.asarray(obs, np.float64)
        for name in ("Dense_0", "Dense_1"):
            x = np.tanh(x @ np.asarray(params[name]["kernel"]))
        output = jax.jit(network.apply)({"params": params}, obs)
        np.testing.assert_allclose(output, x @ np.asarray(params["Dense_2"]["kernel"]), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (64, 64), (40, 256)])
def test_orthonormal_rows_are_those_of_numpys_factorisation(shape: tuple[int, int], key: jax.Array) -> None:
    vectors = jax.random.normal(key, shape)
    q, r = np.linalg.qr(np.asarray(vectors, np.float64).T)
    np.testing.assert_allclose(jax.jit(orthonormal)(vectors), (q * np.sign(np.diag(r))).T, rtol=1e-3, atol=1e-4)


def test_orthogonal_weights_do_without_lapack(key: jax.Array) -> None:
    """Several of its batched factorisations at once wait for each other forever on few cores (jaxlib 0.10)."""
    network = OrthogonalMLP(2, (24, 8), (6,), 1, final_gain=0.01)
    program = jax.jit(jax.vmap(network.init, (0, None))).lower(jax.random.split(key, 2), jnp.zeros(5))
    assert "custom_call" not in program.as_text()


def test_nearly_equal_rows_still_end_at_right_angles(key: jax.Array) -> None:
    first, noise = jax.random.normal(key, (2, 1, 50))
    rows = np.asarray(jax.jit(orthonormal)(jnp.concatenate([first, first + 1e-4 * noise])))
    np.testing.assert_allclose(rows @ rows.T, np.eye(2), atol=1e-6)


def test_hidden_layers_are_normalised_before_their_activation(key: jax.Array) -> None:
    network = q_function((64,), learned_scale=False, activation=lambda x: x)
    params = jax.jit(network.init)(key, jnp.zeros(5))["params"]
    assert set(params) == {"Dense_0", "Dense_1"}  # no learned scale: nothing to learn in the normalisation
    obs = 7 * jax.random.normal(key, (5,))
    before = np.asarray(obs @ params["Dense_0"]["kernel"], np.float64)
    hidden = (before - before.mean()) / np.sqrt(before.var() + 1e-6)
    expected = hidden @ np.asarray(params["Dense_1"]["kernel"])
    np.testing.assert_allclose(jax.jit(network.apply)({"params": params}, obs), expected, rtol=1e-4, atol=1e-5)


def test_members_of_an_ensemble_differ_and_see_the_same(key: jax.Array) -> None:
    twins = ensemble(DiscreteQFunction, 2)(3, (8,), (4,), 1, kernel_init=nn.initializers.lecun_normal())
    params = jax.jit(twins.init)(key, jnp.zeros((1, 5)))
    obs = jax.random.normal(key, (6, 5))
    q = jax.jit(twins.apply)(params, obs)
    assert isinstance(q, jax.Array)
    assert q.shape == (2, 6, 3)
    for member in range(2):
        own = jax.tree.map(lambda x, m=member: x[m], params)
        np.testing.assert_allclose(q[member], jax.jit(q_function((8,)).apply)(own, obs), rtol=1e-5, atol=1e-6)
    kernels = np.asarray(params["params"]["Dense_0"]["kernel"])
    assert (kernels[0] != kernels[1]).all()


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


def test_layer_norm_is_flaxs_own(key: jax.Array) -> None:
    x = jnp.concatenate([jax.random.normal(key, (5, 7)), jnp.full((1, 7), 3.0)])  # a row without variance, too
    ours, flaxs = networks.LayerNorm(), nn.LayerNorm()
    params = jax.tree.map(lambda p: p + 0.3, flaxs.init(key, x))
    jax.tree.map(np.testing.assert_array_equal, ours.init(key, x), flaxs.init(key, x))

    def applied(network: nn.Module, x: jax.Array) -> jax.Array:
        return cast(jax.Array, network.apply(params, x))

    np.testing.assert_allclose(applied(ours, x), applied(flaxs, x), rtol=1e-6, atol=1e-6)
    gradients = [jax.grad(lambda x, net=net: jnp.sum(jnp.sin(applied(net, x))))(x[:5]) for net in (ours, flaxs)]
    np.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-5)

"""Networks: their shapes and layers, and the linear function that is a table."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxsoft.agents.actor_critic import ActorCriticConfig
from jaxsoft.errors import InputError
from jaxsoft.nn.networks import (
    DiscreteQFunction,
    Layers,
    OrthogonalMLP,
    QFunction,
    check_network,
    ensemble,
    make_layers,
)


def q_function(hidden_sizes: tuple[int, ...], obs_rank: int = 1, **settings: Any) -> DiscreteQFunction:
    return DiscreteQFunction(3, Layers(hidden_sizes), (4,), obs_rank, **settings)


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


def test_images_pass_convolutions_and_whole_numbers_are_taken(key: jax.Array) -> None:
    network = q_function((8,), obs_rank=3)
    params = jax.jit(network.init)(key, jnp.zeros((5, 5, 2), bool))
    assert params["params"]["Conv_0"]["kernel"].shape == (3, 3, 2, 4)
    assert params["params"]["Dense_0"]["kernel"].shape == (3 * 3 * 4, 8)
    assert jax.jit(network.apply)(params, jnp.ones((5, 5, 2), jnp.uint8)).dtype == jnp.float32  # type: ignore[union-attr]


@pytest.mark.parametrize("obs_shape", [(5,), (5, 5, 2)])
def test_orthogonal_weights_have_their_gains_and_layers_their_tanh(obs_shape: tuple[int, ...], key: jax.Array) -> None:
    network = OrthogonalMLP(2, Layers((24, 8), nn.tanh), (6,), len(obs_shape), final_gain=0.01)
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


def test_orthogonal_weights_do_without_lapack(key: jax.Array) -> None:
    """Several of its batched factorisations at once wait for each other forever on few cores (jaxlib 0.10)."""
    network = OrthogonalMLP(2, Layers((24, 8), nn.tanh), (6,), 1, final_gain=0.01)
    program = jax.jit(jax.vmap(network.init, (0, None))).lower(jax.random.split(key, 2), jnp.zeros(5))
    assert "custom_call" not in program.as_text()


def test_hidden_layers_are_normalised_before_their_activation(key: jax.Array) -> None:
    network = DiscreteQFunction(3, Layers((64,), lambda x: x), (4,), 1, learned_scale=False)
    params = jax.jit(network.init)(key, jnp.zeros(5))["params"]
    assert set(params) == {"Dense_0", "Dense_1"}  # no learned scale: nothing to learn in the normalisation
    obs = 7 * jax.random.normal(key, (5,))
    before = np.asarray(obs @ params["Dense_0"]["kernel"], np.float64)
    hidden = (before - before.mean()) / np.sqrt(before.var() + 1e-6)
    expected = hidden @ np.asarray(params["Dense_1"]["kernel"])
    np.testing.assert_allclose(jax.jit(network.apply)({"params": params}, obs), expected, rtol=1e-4, atol=1e-5)


def test_members_of_an_ensemble_differ_and_see_the_same(key: jax.Array) -> None:
    twins = ensemble(DiscreteQFunction, 2)(3, Layers((8,)), (4,), 1, kernel_init=nn.initializers.lecun_normal())
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


class Own(nn.Module):
    num_features: int = 5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        assert x.ndim == 2
        return nn.elu(nn.Dense(self.num_features)(x))


class Pair(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return x, x


def test_layers_of_ones_own_have_parameters_of_their_own_and_see_one_batch_axis() -> None:
    for network in (Own(), Own):
        layers = [make_layers(ActorCriticConfig(network=network)) for _ in range(2)]
        assert layers[0].own is not layers[1].own
        critic = ensemble(QFunction, 2)(layers[0])
        obs, action = jnp.ones((3, 4, 2)), jnp.ones((3, 4, 1))
        q, params = critic.init_with_output(jax.random.key(0), obs, action)
        assert q.shape == (2, 3, 4)
        kernels = [x for x in jax.tree.leaves(params) if x.shape == (2, 3, 5)]
        assert len(kernels) == 1
        assert not np.allclose(kernels[0][0], kernels[0][1])


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda: nn.Conv(3, (3, 3)), r"network fails on an input of shape \[1, 4\]"),
        (lambda: Pair(), r"network gives tuple for an input of shape \[1, 4\]; it must give floats \[1, features\]"),
        (nn.Dense, r"network fails when it is called \(TypeError: .*; it must be a Flax module, or a function without"),
        (lambda: 3, "network makes int; it must be a Flax module"),
        (lambda: nn.GRUCell(3), r"network fails on an input of shape \[1, 4\]"),
    ],
)
def test_layers_that_do_not_fit_are_told(network: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_network(network, (4,))

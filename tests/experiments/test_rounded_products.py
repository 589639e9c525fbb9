"""Products, and nothing else, have rounded operands, wherever in a program they stand."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from jaxsoft.envs import make_env
from jaxsoft.nn.layers import affine
from jaxsoft.training.config import make_config
from jaxsoft.training.loop import init, make_loop
from jaxsoft.training.turns import take_turn

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def experiments(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """The modules, which stand in no package."""
    monkeypatch.syspath_prepend(EXPERIMENTS)
    return {name: importlib.import_module(name) for name in ("rounded_products", "precision")}


def learn(x: jax.Array, w: jax.Array, bias: jax.Array, v: jax.Array) -> tuple[jax.Array, Any]:
    """A loss with gradients, and other products: in a layer with its own rule, in loops, a conditional and a jit."""

    def loss(w: jax.Array, v: jax.Array) -> jax.Array:
        y = jax.nn.relu(affine(x, w, bias))
        y, _ = jax.lax.scan(lambda y, v: (jnp.tanh(y @ v), None), y, v)
        return 0.5 * jax.lax.cond(y[0, 0] < 2, lambda y: jnp.sum((y @ y.T) ** 2), jnp.sum, y)

    def layers(x: jax.Array) -> tuple[jax.Array, ...]:
        convolved = jax.lax.conv(x.reshape(1, 1, 6, 12), w[None, None, :3, :3], (1, 1), "VALID")
        return x[:1] @ w, w @ v[0, 0], x[:, :1] @ w[:1], jnp.einsum("bi,bij->bj", w[:2], v), convolved

    value, gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(w, v)
    _, power = jax.lax.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, c[1] @ v[0]), (0, x))
    return value, (*gradients, power, layers(x))


def learn_by_hand(x: np.ndarray, w: np.ndarray, bias: np.ndarray, v: np.ndarray) -> tuple[Any, Any]:
    """The same in bfloat16, step by step."""

    def narrow(x: np.ndarray) -> np.ndarray:
        return np.asarray(x, jnp.bfloat16).astype(np.float32)

    def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        a, b = narrow(a), narrow(b)
        if 1 in (*a.shape, b.shape[1]):
            return narrow(a[:, :, None] * b).sum(axis=1)
        return a @ b

    ys = [np.maximum(dot(x, w) + bias, 0)]
    for layer in v:
        ys.append(np.tanh(dot(ys[-1], layer)))
    gram = dot(ys[-1], ys[-1].T)
    gradient, gradients = dot(gram, ys[-1]) + dot(gram.T, ys[-1]), []
    for y, before, layer in zip(ys[:0:-1], ys[-2::-1], v[::-1], strict=True):
        gradient = gradient * (1 - y**2)
        gradients.insert(0, dot(before.T, gradient))
        gradient = dot(gradient, layer.T)
    batched = np.concatenate([dot(w[i : i + 1], v[i]) for i in range(2)])
    windows = np.lib.stride_tricks.sliding_window_view(narrow(x), (3, 3))
    convolved = np.einsum("ijpq,pq->ij", windows, narrow(w[:3, :3]))[None, None]
    others = (dot(x[:1], w), dot(w, v[0, 0][:, None])[:, 0], dot(x[:, :1], w[:1]), batched, convolved)
    gradient_w = dot(x.T, gradient * (ys[0] > 0))
    return 0.5 * np.sum(gram**2), (gradient_w, np.stack(gradients), dot(dot(x, v[0]), v[0]), others)


def test_products_of_a_program_and_of_its_gradients(experiments: dict[str, ModuleType]):
    module, rng = experiments["rounded_products"], np.random.default_rng(0)
    shapes = ((6, 12), (12, 12), (12,), (2, 12, 12))
    arguments = [0.4 * rng.normal(size=shape).astype(np.float32) for shape in shapes]
    full, same, narrow = jax.jit(
        lambda *args: (learn(*args), *(module.rounded_products(learn, bits)(*args) for bits in (23, 7)))
    )(*arguments)
    jax.tree.map(np.testing.assert_array_equal, same, full)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), narrow, learn_by_hand(*arguments))
    assert all(np.abs(x - y).max() > 1e-3 for x, y in zip(*map(jax.tree.leaves, (full, narrow)), strict=True))


def rounded(jaxpr: Any) -> Iterator[bool]:
    """Of each product in a program, whether both of its operands are rounded to ten bits."""
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    source = {output: equation for equation in jaxpr.eqns for output in equation.outvars}
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            operands = [source.get(x) for x in equation.invars]
            yield all(x is not None and x.params.get("mantissa_bits") == 10 for x in operands)
        for inner in jaxprs_in_params(equation.params):
            yield from rounded(inner)


@pytest.mark.parametrize(("agent", "env_id"), [("sac", "gymnax/Pendulum-v1"), ("soft_q", "gymnax/CartPole-v1")])
def test_every_product_of_a_turn(agent: str, env_id: str, experiments: dict[str, ModuleType]):
    def products(precision: str) -> list[bool]:
        kind = experiments["precision"].rounded_kind(agent, precision)
        loop = make_loop(make_env(env_id), make_config(kind, env_id, {"total_timesteps": 50_000}))
        state = jax.eval_shape(lambda key: init(key, loop), jax.random.key(0))
        return list(rounded(jax.make_jaxpr(lambda state: take_turn(state, loop))(state)))

    full, narrow = products("float32"), products("tensorfloat32")
    assert len(full) > 5
    assert not any(full)
    assert narrow == [True] * len(full)

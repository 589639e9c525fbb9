"""Products of the agent are in the precision that was asked for, with their gradients; the environment's in float32."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

import jaxsoft
from jaxsoft.agents import AGENTS
from jaxsoft.errors import InputError
from jaxsoft.training.config import make_config
from jaxsoft.training.loop import init, make_loop
from jaxsoft.training.turns import take_turn
from jaxsoft.types import Box, Discrete, Env, EnvSpec, make_time_step

STEPS = {"total_timesteps": 10_000, "hidden_sizes": (16, 16)}
HIGHEST, NARROW = jax.lax.Precision.HIGHEST, jax.lax.DotAlgorithmPreset.BF16_BF16_F32


def turning(is_discrete: bool) -> Env:
    """An environment whose only step is a product: it turns the plane."""
    space: Any = Discrete(2) if is_discrete else Box(np.array([-1.0], np.float32), np.array([1.0], np.float32))
    quarter = jnp.array([[0.0, -1.0], [1.0, 0.0]])

    def reset(key: jax.Array) -> tuple[jax.Array, Any]:
        state = jax.random.normal(key, (2,))
        return state, make_time_step(state)

    def step(key: jax.Array, state: jax.Array, action: jax.Array) -> tuple[jax.Array, Any]:
        state = quarter @ state
        return state, make_time_step(state, jnp.sum(state))

    return Env(EnvSpec("own/Turning", (2,), np.dtype(np.float32), space, 10), reset, step)


def products(jaxpr: Any) -> Iterator[Any]:
    """The precisions of all products of a program."""
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        if equation.primitive.name == "dot_general":
            yield equation.params["precision"]
        for inner in jaxprs_in_params(equation.params):
            yield from products(inner)


def count_products(agent: str, precision: str) -> Counter[Any]:
    env = turning(AGENTS[agent].action_spaces == (Discrete,))
    loop = make_loop(env, make_config(agent, "own/Turning", STEPS | {"matmul_precision": precision}))
    state = jax.eval_shape(lambda key: init(key, loop), jax.random.key(0))
    found = Counter(products(jax.make_jaxpr(lambda state: take_turn(state, loop))(state)))
    return Counter({str(precision): n for precision, n in found.items()})


FEW = ("ppo", "sac", "sac_discrete", "soft_q", "soft_q_stream")
"""Of every kind of network and of experience one."""


@pytest.mark.parametrize(
    "agent", [pytest.param(name, marks=[] if name in FEW else pytest.mark.thorough) for name in sorted(AGENTS)]
)
def test_every_product_of_a_turn(agent: str):
    default, full, narrow = (count_products(agent, precision) for precision in ("default", "float32", "bfloat16"))
    assert default.keys() == {str(None), str((HIGHEST, HIGHEST))}
    num_env = default[str((HIGHEST, HIGHEST))]
    assert 0 < num_env < default.total()
    assert full == Counter({str((HIGHEST, HIGHEST)): default.total()})
    assert narrow == Counter({str(NARROW): default.total() - num_env, str((HIGHEST, HIGHEST)): num_env})


@pytest.mark.thorough
def test_on_a_cpu_all_precisions_are_float32():
    def returns(precision: str) -> np.ndarray:
        result = jaxsoft.train(
            "soft_q", turning(True), num_seeds=1, total_timesteps=64, num_envs=4, rollout_length=16, num_minibatches=2,
            hidden_sizes=(8,), eval_every=64, eval_episodes=2, matmul_precision=precision,
        )  # fmt: skip
        return np.asarray(result.metrics["q_mean"])

    expected = returns("default")
    assert np.isfinite(expected).all()
    np.testing.assert_array_equal(returns("float32"), expected)


def test_there_is_no_other_precision():
    with pytest.raises(InputError, match=r"matmul_precision is 'double'.*default, float32, tensorfloat32"):
        make_config("sac", "own/Turning", {"matmul_precision": "double"})

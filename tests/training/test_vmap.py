"""Training under a vmap: over seeds, over settings, and with derivatives."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.probe_envs import counting
from support.small_loop import ROLLOUTS, SEEDS, SEQUENCES, STREAM, TINY, of_seed, pendulum

from jaxsoft.fleet import programs
from jaxsoft.training.config import make_config
from jaxsoft.training.evaluation import evaluate
from jaxsoft.training.loop import begin, make_loop, make_train
from jaxsoft.training.state import TrainState
from jaxsoft.types import Discrete, Metrics, TimeStep


def test_a_loop_is_vmapped_over_seeds_without_guesses() -> None:
    """JAX takes another pass over a loop for each guess of what becomes batched: of these it took eight, and two."""
    env, num_seeds, passes = counting(5), 7, []

    @jax.custom_batching.custom_vmap
    def noted(x: jax.Array) -> jax.Array:
        return x

    @noted.def_vmap
    def note(size: int, batched: list[bool], x: jax.Array) -> tuple[jax.Array, bool]:
        passes.append(size)
        return noted(x), batched[0]

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        state, time_step = env.step(key, state, action)
        return state, replace(time_step, obs=noted(time_step.obs))

    noting, keys = env._replace(step=step), programs.seed_keys(SEEDS[:num_seeds])
    jax.jit(jax.vmap(make_train("sac", noting, **TINY | {"eval_every": 0}))).trace(keys)
    assert passes.count(num_seeds) == 3  # of the prefill one, of the turns, a loop within a loop, two
    passes.clear()
    jax.jit(jax.vmap(lambda key: evaluate(key, lambda key, obs: jnp.zeros((2, 1)), noting, 2))).trace(keys)
    assert passes.count(num_seeds) == 1


def test_the_first_state_can_be_differentiated_under_a_vmap() -> None:
    config = make_config("sac", "gymnax/Pendulum-v1", TINY)

    def log_temperature(key: jax.Array, temperature: jax.Array) -> jax.Array:
        loop = make_loop(pendulum(), config, {"temperature": temperature})
        return begin(key, loop)[1].agent_state.log_temperature

    slopes = jax.vmap(jax.grad(log_temperature, argnums=1), (0, None))(programs.seed_keys(SEEDS[:2]), 2.0)
    np.testing.assert_allclose(slopes, [0.5, 0.5])


def test_learning_rates_can_be_vmapped() -> None:
    rates, key = jnp.asarray([1e-4, 3e-3]), jax.random.key(2)
    settings: dict[str, Any] = {k: v for k, v in TINY.items() if k != "learning_rate"} | {
        "eval_every": 0,
        "total_timesteps": 60,
    }

    def train(rate: jax.Array) -> tuple[TrainState, Metrics]:
        return make_train("sac", counting(5), **settings, learning_rate=rate)(key)

    together, _ = jax.jit(jax.vmap(train))(rates)
    alone, _ = jax.jit(make_train("sac", counting(5), **settings, learning_rate=3e-3))(key)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
        of_seed(together.agent_state.actor_params, 1),
        alone.agent_state.actor_params,
    )
    moved = [np.asarray(x) for x in jax.tree.leaves(together.agent_state.actor_params)]
    assert all((x[0] != x[1]).any() for x in moved)


@pytest.mark.parametrize(
    ("agent", "settings"),
    [
        ("soft_q_stream", STREAM),
        pytest.param("soft_q", ROLLOUTS, marks=pytest.mark.thorough),
        pytest.param("soft_q_replay", SEQUENCES, marks=pytest.mark.thorough),
    ],
)
def test_hyper_parameters_of_soft_q_can_be_vmapped(agent: str, settings: dict[str, Any]) -> None:
    env, key = counting(5, action_space=Discrete(3)), jax.random.key(2)
    names, cells = ("learning_rate", "lambda_", "temperature"), jnp.array([[1e-3, 0.0, 0.1], [1e-2, 0.9, 1.0]])

    def learn(numbers: Any) -> TrainState:
        return make_train(agent, env, **settings, **dict(zip(names, numbers, strict=True)))(key)[0]

    together = jax.jit(jax.vmap(learn))(cells)
    alone = jax.jit(lambda: learn((1e-2, 0.9, 1.0)))()
    close = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4)
    jax.tree.map(close, of_seed(together.agent_state.policy.params, 1), alone.agent_state.policy.params)
    moved = [np.asarray(x) for x in jax.tree.leaves(together.agent_state.policy.params)]
    assert any((x[0] != x[1]).any() for x in moved)

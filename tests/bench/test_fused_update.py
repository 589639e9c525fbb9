"""The one kernel of benchmarks/fused_kernel.py is SAC's update, to rounding, in Pallas's interpreter."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsoft.agents import sac
from jaxsoft.types import Box, EnvSpec, Transition

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from fused_kernel import fused_update


@pytest.mark.parametrize(
    ("obs_dim", "action_dim", "width", "batch_size", "log_std"),
    [
        (11, 3, 32, 16, 1.9),  # near the bound, and some beyond
        pytest.param(3, 1, 64, 64, 0.0, marks=pytest.mark.thorough),
        pytest.param(3, 1, 64, 64, 1.9, marks=pytest.mark.thorough),
    ],
)
def test_it_is_the_update_of_sac(obs_dim: int, action_dim: int, width: int, batch_size: int, log_std: float) -> None:
    config = sac.Config(batch_size=batch_size, hidden_sizes=(width, width), learning_rate=3e-3, polyak=0.9)
    ones = np.ones(action_dim, np.float32)
    agent = sac.make(config, EnvSpec("probe/fused", (obs_dim,), np.dtype(np.float32), Box(-ones, ones), 10), 100)

    def batch(key: jax.Array) -> Transition:
        obs, next_obs = jax.random.normal(key, (2, batch_size, obs_dim))
        action = jnp.tanh(jax.random.normal(key, (batch_size, action_dim)))
        return Transition(obs, action, obs[:, 0], next_obs, obs[:, 1] > 1)

    fused = partial(fused_update, config=config, target_entropy=-float(action_dim), interpret=True)

    def run(update: Any, key: jax.Array) -> Any:
        def step(state: Any, key: jax.Array) -> Any:
            state, metrics = update(key, state, batch(key))
            return state, (state, metrics)

        first = agent.init(key)
        first.actor_params["params"]["Dense_0"]["bias"] += jnp.arange(2 * action_dim) // action_dim * log_std
        last, (states, metrics) = jax.lax.scan(step, first, jax.random.split(key, 5))
        return first, jax.tree.map(lambda x: x[0], states), last.actor_params, metrics

    keys = jax.random.split(jax.random.key(0), 2)
    (first, state, last, metrics), (_, expected, _, expected_metrics) = (
        jax.jit(jax.vmap(partial(run, update)))(keys) for update in (fused, agent.update)
    )
    for name, x in expected_metrics.items():
        np.testing.assert_allclose(metrics[name], x, rtol=2e-4, atol=1e-5, err_msg=name)
    # after one update: SAC's own moments, and what Adam makes of them. It divides a gradient by its size, so that two
    # roundings of one that is nearly 0 give two steps
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-7), state.opt_states, expected.opt_states)
    np.testing.assert_allclose(state.log_temperature, expected.log_temperature, rtol=1e-5)
    for name in ("actor", "critic"):
        opt, old = state.opt_states[name][0], getattr(first, f"{name}_params")
        steps = jax.tree.map(lambda mu, nu: 3e-3 * (mu / 0.1) / (np.sqrt(nu / 1e-3) + 1e-8), opt.mu, opt.nu)
        new = jax.tree.map(np.subtract, old, steps)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), getattr(state, f"{name}_params"), new)
    slow = jax.tree.map(lambda old, new: old + 0.1 * (new - old), first.target_critic_params, state.critic_params)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), state.target_critic_params, slow)
    assert np.max(np.abs(last["params"]["MLP_0"]["Dense_1"]["bias"])) > 4 * 3e-3  # five steps were taken

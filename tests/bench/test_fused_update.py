"""The one kernel of benchmarks/fused_update.py is SAC's update, to rounding, in Pallas's interpreter."""

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
from fused_update import fused_update


@pytest.mark.parametrize(("obs_dim", "action_dim", "width", "batch_size"), [(3, 1, 64, 64), (11, 3, 32, 16)])
def test_it_is_the_update_of_sac(obs_dim: int, action_dim: int, width: int, batch_size: int) -> None:
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
            return update(key, state, batch(key))

        return jax.lax.scan(step, agent.init(key), jax.random.split(key, 5))

    keys = jax.random.split(jax.random.key(0), 2)
    (state, metrics), (expected, expected_metrics) = (
        jax.jit(jax.vmap(partial(run, update)))(keys) for update in (fused, agent.update)
    )
    for name, x in expected_metrics.items():
        np.testing.assert_allclose(metrics[name], x, rtol=2e-4, atol=1e-5, err_msg=name)
    # Adam divides by the root of a moment: where a gradient is nearly 0 its rounding shows
    close = partial(np.testing.assert_allclose, rtol=1e-3, atol=3e-5)
    jax.tree.map(close, state, expected)
    first = agent.init(keys[0])
    assert not np.allclose(
        state.actor_params["params"]["Dense_0"]["kernel"][0], first.actor_params["params"]["Dense_0"]["kernel"]
    )

"""What holds on an accelerator; without one there is nothing to test here."""

from typing import Any

import jax
import numpy as np
import pytest

import jaxsoft

pytestmark = pytest.mark.skipif(jax.default_backend() == "cpu", reason="needs an accelerator")


@pytest.mark.parametrize(
    ("agent", "env", "settings"),
    [
        ("sac", "gymnax/Pendulum-v1", {"total_timesteps": 2_000}),
        ("soft_q", "gymnax/Breakout-MinAtar", {"total_timesteps": 8_192}),
        ("soft_q_stream", "gymnax/CartPole-v1", {"total_timesteps": 5_000}),
    ],
)
def test_the_same_seeds_give_the_same_bits_twice(agent: str, env: str, settings: dict[str, Any]):
    def train() -> list[np.ndarray]:
        jax.clear_caches()
        result = jaxsoft.train(agent, env, num_seeds=16, eval_every=1_000, **settings)
        return [np.asarray(x) for x in jax.tree.leaves(result.states)]

    for once, again in zip(train(), train(), strict=True):
        np.testing.assert_array_equal(once, again)

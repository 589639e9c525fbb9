"""What holds on an accelerator; without one there is nothing to test here."""

from functools import partial
from typing import Any

import jax
import numpy as np
import pytest

import jaxsoft
from jaxsoft.training.config import make_config
from jaxsoft.training.loop import advance, init, make_loop

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


@pytest.mark.parametrize(("agent", "env_id"), [("sac", "gymnax/Pendulum-v1"), ("soft_q_stream", "gymnax/CartPole-v1")])
def test_loops_of_few_kernels_give_the_same_numbers(agent: str, env_id: str):
    env = jaxsoft.make_env(env_id)
    loop = make_loop(env, make_config(agent, env_id, {"total_timesteps": 2_000, "matmul_precision": "float32"}))
    state = jax.jit(partial(init, loop=loop))(jax.random.key(0))

    def agent_after_three_turns(platform: str) -> Any:
        return jax.jit(partial(advance, loop=loop, platform=platform))(state, 3).agent_state

    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5),
        agent_after_three_turns("gpu"),
        agent_after_three_turns("cpu"),
    )

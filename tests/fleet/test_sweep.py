"""What happens while a sweep starts."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import jax
import numpy as np
import pytest
from support.probe_envs import action_reward

from jaxsoft.fleet import sweep
from jaxsoft.training.config import make_config
from jaxsoft.training.loop import make_trainer

SETTINGS = {
    "total_timesteps": 100,
    "learning_starts": 10,
    "batch_size": 4,
    "replay_capacity": 100,
    "hidden_sizes": (4,),
    "eval_every": 0,
}


@pytest.fixture
def logged_compilations(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """JAX's log of what it compiles, in any thread."""
    before = getattr(jax.config, "jax_log_compiles")  # noqa: B009 (pyright does not know it)
    jax.config.update("jax_log_compiles", True)
    with caplog.at_level(logging.WARNING):
        yield caplog
    jax.config.update("jax_log_compiles", before)


def test_turns_are_compiled_once_and_while_the_sweep_starts(logged_compilations: pytest.LogCaptureFixture) -> None:
    env = action_reward()
    seeds = sweep.make_sweep(make_trainer(env, make_config("sac", env.spec.id, SETTINGS)))

    def num_compilations() -> int:
        return sum("Finished XLA compilation of jit(advance)" in x for x in logged_compilations.messages)

    state = sweep.start(seeds, np.arange(3, dtype=np.int32))
    assert num_compilations() == 1
    for num_turns in (1, 2):
        state = seeds.advance(state, np.int32(num_turns))
    assert num_compilations() == 1
    assert int(state.timestep) == 13

"""What happens while the members of a program start."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import jax
import numpy as np
import pytest
from support.probe_envs import action_reward

from jaxsoft.fleet.programs import init_members, make_program
from jaxsoft.training.config import make_config

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


def test_turns_are_compiled_once_and_while_members_start(logged_compilations: pytest.LogCaptureFixture) -> None:
    env = action_reward()
    program = make_program(env, make_config("sac", env.spec.id, SETTINGS))

    def num_compilations() -> int:
        return sum("Finished XLA compilation of jit(advance)" in x for x in logged_compilations.messages)

    state = init_members(program, np.arange(3, dtype=np.int32))
    assert num_compilations() == 1
    for num_turns in (1, 2):
        state = program.advance(state, {}, np.int32(num_turns))
    assert num_compilations() == 1
    assert int(state.timestep) == 13

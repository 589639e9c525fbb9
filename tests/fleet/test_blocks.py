"""Seeds in blocks: the numbers are those of all seeds at once."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from support.probe_envs import counting

from jaxsoft.fleet.programs import init_members, make_program
from jaxsoft.ops.averages import Sum
from jaxsoft.training.config import make_config
from jaxsoft.training.state import TrainState
from jaxsoft.types import Discrete

NUM_SEEDS = 7


def trained(block: int | None) -> TrainState:
    env = counting(5, action_space=Discrete(3))
    settings = {"total_timesteps": 100, "hidden_sizes": (8,), "eval_every": 0}
    program = make_program(env, make_config("soft_q_stream", env.spec.id, settings), block=block)
    state = init_members(program, np.arange(NUM_SEEDS, dtype=np.int32))
    for _ in range(2):
        state = program.advance(state, {}, np.int32(20))
    return state


@pytest.fixture(scope="module")
def at_once() -> TrainState:
    return trained(None)


def numbers(state: TrainState) -> list[jax.Array]:
    """All of a state's; of sums their values, whose rests are rounding and nothing else."""
    values = jax.tree.map(lambda x: x.value if isinstance(x, Sum) else x, state, is_leaf=lambda x: isinstance(x, Sum))
    return jax.tree.leaves(values)


@pytest.mark.parametrize("block", [1, 2, 5, 7])  # without a rest, with rests of 1 and 2 seeds, and all in one
def test_blocks_of_seeds_learn_what_all_at_once_do(block: int, at_once: TrainState) -> None:
    in_blocks = trained(block)
    assert int(in_blocks.timestep) == int(in_blocks.totals.num_updates) == 40  # counted once, not once per block
    for a, b in zip(numbers(in_blocks), numbers(at_once), strict=True):
        if jax.numpy.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert len(np.unique(jax.random.key_data(in_blocks.key), axis=0)) == NUM_SEEDS

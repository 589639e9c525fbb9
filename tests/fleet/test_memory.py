"""XLA's own account of memory: the replay stays in place."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsoft
from jaxsoft.fleet.programs import make_program, seed_keys
from jaxsoft.training.config import make_config

NUM_SEEDS = 4
SETTINGS = {
    "total_timesteps": 3000,
    "learning_starts": 100,
    "replay_capacity": 200_000,
    "hidden_sizes": (16, 16),
    "batch_size": 16,
    "eval_every": 1000,
    "eval_episodes": 2,
}
REPLAY_BYTES = NUM_SEEDS * 200_000 * (4 * (3 + 1 + 1 + 3) + 1)  # obs, action, reward, next_obs, terminated


def test_a_whole_training_run_needs_no_second_replay():
    train = jaxsoft.make_train("sac", jaxsoft.make_env("gymnax/Pendulum-v1"), **SETTINGS)
    compiled = jax.jit(jax.vmap(train)).lower(seed_keys(jnp.arange(NUM_SEEDS))).compile()
    memory = compiled.memory_analysis()
    assert memory is not None
    assert memory.output_size_in_bytes > REPLAY_BYTES  # the final state holds the replay
    assert memory.temp_size_in_bytes < 0.1 * REPLAY_BYTES


@pytest.mark.parametrize(("num_envs", "updates_per_step"), [(1, 1), (8, 4)])
def test_the_host_loop_updates_the_replay_where_it_is(num_envs: int, updates_per_step: int):
    env = jaxsoft.make_env("gymnax/Pendulum-v1")
    settings = SETTINGS | {"num_envs": num_envs, "updates_per_step": updates_per_step}
    program = make_program(env, make_config("sac", env.spec.id, settings))
    state = jax.eval_shape(program.init, seed_keys(jnp.arange(NUM_SEEDS)), {})
    memory = program.advance.lower(state, {}, np.int32(1)).compile().memory_analysis()
    assert memory is not None
    assert memory.alias_size_in_bytes > REPLAY_BYTES  # the donated replay is written to, not copied
    assert memory.temp_size_in_bytes < 0.1 * REPLAY_BYTES

"""XLA's own account of memory: the replay stays in place."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsoft
from jaxsoft.envs import make_env
from jaxsoft.errors import InputError
from jaxsoft.fleet import memory
from jaxsoft.fleet.devices import fewest_devices
from jaxsoft.fleet.programs import copy_on_device, make_program, seed_keys
from jaxsoft.runs.driver import explain_memory
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


# What is told before compiling


def test_a_sweep_is_cut_to_what_fits() -> None:
    need = memory.Need(replay=700, agent=200, environments=50, update=50)
    assert memory.seeds_per_chunk(need, 8, memory.Capacity(10**9)) == 8
    assert memory.seeds_per_chunk(need, 1000, memory.Capacity(100_000)) == 77  # 80 fit, in 13 chunks of about that size
    assert memory.seeds_per_chunk(need, 1000, memory.Capacity(100_000, num_devices=4)) == 250
    with pytest.raises(InputError, match=r"a seed needs 1\.0 kB \(700 B replay, .*\), and the device has 1\.0 kB"):
        memory.seeds_per_chunk(need, 8, memory.Capacity(1000))


@pytest.mark.parametrize("num_devices", [1, 2, 3, 8])
def test_devices_that_share_a_memory_hold_what_one_would_hold(num_devices: int) -> None:
    need = memory.Need(replay=700, agent=200, environments=50, update=50)
    for room, num_seeds in itertools.product(range(1, 20), range(1, 40)):
        shared = memory.Capacity(math.ceil(1000 * room / memory.USABLE), num_devices, is_shared=True)
        chunk = memory.seeds_per_chunk(need, num_seeds, shared)
        assert chunk >= min(num_seeds, room // 4)  # no more than half is lost to equal shares, and half to equal chunks
        used = len(fewest_devices(chunk, range(num_devices)))
        assert -(-chunk // used) * used <= room  # with the seeds that fill the devices up


def test_only_what_fits_a_cores_cache_is_trained_in_blocks() -> None:
    cpu = jax.devices("cpu")[0]
    small = memory.Need(replay=0, agent=40_000, environments=1_000, update=59_000, checkpoint=82_000)
    assert memory.seeds_per_block(small, cpu) == memory.CACHE // 100_000
    assert memory.seeds_per_block(small._replace(replay=1), cpu) is None  # its replay would be copied out and back
    assert memory.seeds_per_block(small._replace(update=memory.CACHE), cpu) is None
    assert memory.seeds_per_block(small, SimpleNamespace(platform="gpu")) is None


@pytest.mark.parametrize(
    ("agent", "env_id", "given"),
    [
        ("sac", "gymnax/Pendulum-v1", {"replay_capacity": 20_000, "hidden_sizes": (64, 64), "batch_size": 64}),
        pytest.param(
            "soft_q",
            "gymnax/CartPole-v1",
            {"hidden_sizes": (64, 64), "num_envs": 8},
            marks=pytest.mark.thorough,
        ),
        pytest.param("ppo", "gymnax/Pendulum-v1", {}, marks=pytest.mark.thorough),
        ("soft_q", "gymnax/Breakout-MinAtar", {"hidden_sizes": (64,), "num_envs": 8}),
    ],
)
def test_what_is_told_is_about_what_xla_needs(agent: str, env_id: str, given: dict[str, Any]) -> None:
    env, num_seeds = make_env(env_id), 16
    config = make_config(agent, env_id, given | {"total_timesteps": 50_000})
    program = make_program(env, config)
    told = num_seeds * memory.need_of(program.loop).total
    state = jax.eval_shape(program.init, seed_keys(np.arange(num_seeds)), {})
    analysis = program.advance.lower(state, {}, np.int32(1)).compile().memory_analysis()
    assert analysis is not None
    needed = analysis.argument_size_in_bytes + analysis.temp_size_in_bytes
    if state.replay_state is None:  # copies of a checkpoint being written, of the next, and of one being made
        copied = copy_on_device.lower(state).compile().memory_analysis()
        assert copied is not None
        assert copied.alias_size_in_bytes == 0
        needed += 3 * copied.output_size_in_bytes
    assert 0.8 * needed < told < 2 * needed


def test_out_of_memory_names_the_setting() -> None:
    def run_out() -> None:
        with explain_memory(1000):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 12345 bytes.")

    with pytest.raises(InputError, match=r"for 1000 seeds in one program; .* a smaller --seeds-per-chunk than 1000"):
        run_out()

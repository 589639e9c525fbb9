"""JAX's double precision changes no dtype: every agent trains in it, and a run of one mode goes on in the other."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.probe_envs import UNIT_BOX, ends_both_ways
from support.run_numbers import results
from support.subjects import SMALL, Subject, after, small_config, train

from jaxsoft.agents import AGENTS
from jaxsoft.envs import make_env
from jaxsoft.envs.wrappers import wrap_for_training
from jaxsoft.fleet import programs
from jaxsoft.fleet.programs import make_program
from jaxsoft.runs.config import RunConfig
from jaxsoft.runs.driver import Interrupted
from jaxsoft.runs.policies import load_policy
from jaxsoft.training.config import make_config
from jaxsoft.training.loop import advance, init, make_loop, make_train
from jaxsoft.training.offline import make_offline_train, record, uniform_policy
from jaxsoft.training.report import make_report
from jaxsoft.types import Box, Discrete, Env, EnvSpec, TimeStep, make_time_step

WIDE = [np.dtype(name) for name in ("float64", "int64", "uint64")]
KINDS = [(name, kind) for name, module in AGENTS.items() for kind in (Box, Discrete) if kind in module.action_spaces]
TINY: dict[str, Any] = {"hidden_sizes": (4,), "batch_size": 4, "learning_starts": 10, "replay_capacity": 30}


def assert_narrow(tree: Any) -> None:
    wide = {jax.tree_util.keystr(path): x.dtype for path, x in jax.tree_util.tree_leaves_with_path(tree)}
    assert not {name: dtype for name, dtype in wide.items() if dtype in WIDE}


def careless(space: Box | Discrete) -> Env:
    """Says nowhere how wide its numbers are, so that in double precision a step leaves others than a reset."""

    def reset(key: jax.Array) -> tuple[Any, TimeStep]:
        return (0, jax.random.uniform(key, (2,), jnp.float32)), make_time_step(jnp.array([0.0]))

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        time, place = state[0] + jnp.sum(jnp.ones(1, int)), state[1] * jnp.array([0.5, 2.0])
        return (time, place), make_time_step(jnp.array([1.0]) * time, jnp.sum(place), terminated=time >= 3)

    return Env(EnvSpec("probe/careless", (1,), np.dtype(np.float64), space, 3), reset, step)


@pytest.mark.parametrize(("agent", "kind"), KINDS, ids=lambda x: getattr(x, "__name__", x))
def test_every_agents_states_are_32_bits_wide(agent: str, kind: type, x64: None) -> None:
    settings: dict[str, Any] = {"target_entropy": 0.5} if agent in ("sac_discrete", "soft_q") else {}
    config = small_config(agent, total_timesteps=64, **settings).train
    env = careless(UNIT_BOX if kind is Box else Discrete(3))

    def run(key: jax.Array) -> Any:
        loop = make_loop(env, config, {"learning_rate": jnp.float32(1e-3)})
        state, metrics = make_report(advance(init(key, loop), 2, loop), loop)
        return advance(state, 2, loop), metrics

    assert_narrow(jax.eval_shape(run, jax.random.key(0)))


@pytest.mark.parametrize(
    "env_id",
    [
        "gymnax/Pendulum-v1",
        "gymnax/Breakout-MinAtar",  # its own code fails in double precision
        "finite/Taxi-v3",
        "brax/inverted_pendulum?action_repeat=2",
        pytest.param("mjx/Hopper-v5", marks=pytest.mark.thorough),
    ],
)
def test_every_suites_states_are_32_bits_wide(env_id: str, x64: None) -> None:
    env = wrap_for_training(make_env(env_id), 2)
    space = env.spec.action_space
    actions = jnp.zeros((2, *space.shape), space.dtype)
    before = jax.eval_shape(env.reset, jax.random.key(0))
    after_step = jax.eval_shape(env.step, jax.random.key(0), before[0], actions)
    assert_narrow(before)
    types = [jax.tree.map(lambda x: (x.shape, x.dtype), part) for part in (before, after_step)]
    assert types[0] == types[1]
    assert env.spec.obs_dtype == before[1].obs.dtype


def test_traced_settings_are_32_bits_wide(x64: None) -> None:
    env = ends_both_ways(0.2, 5)
    settings = {name: x for name, x in SMALL.items() if name in vars(make_config("sac", "", {}).agent)}

    def learn(rate: jax.Array) -> Any:
        settings["learning_rate"] = rate
        return make_train("sac", env, total_timesteps=64, eval_every=0, **settings)(jax.random.key(0))

    assert_narrow(jax.eval_shape(jax.vmap(learn), jnp.array([1e-3, 1e-2])))


def test_data_sets_are_32_bits_wide(x64: None) -> None:
    env = careless(Discrete(3))
    train = make_offline_train("soft_q_replay", env, num_updates=10, hidden_sizes=(4,), batch_size=4, eval_every=5)

    def run(key: jax.Array) -> Any:
        data = record(key, uniform_policy(env.spec.action_space), env, num_steps=20)
        return data, train(key, data)

    assert_narrow(jax.eval_shape(run, jax.random.key(0)))


@pytest.mark.parametrize("agent", ["sac", "sac_v1", "td3", "ddpg", "sac_discrete", "soft_q_replay"])
def test_data_of_ones_own_may_be_64_bits_wide(agent: str, x64: None) -> None:
    discrete = agent in ("sac_discrete", "soft_q_replay")
    env = careless(Discrete(3)) if discrete else careless(UNIT_BOX)
    known = AGENTS[agent].Config.__dataclass_fields__
    settings = {name: TINY[name] for name in ("hidden_sizes", "batch_size") if name in known}
    train = make_offline_train(agent, env, num_updates=10, eval_every=5, **settings)

    def act(key: jax.Array, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
        drawn = jax.random.uniform(key, (1,) if discrete else (1, *env.spec.action_space.shape))  # float64 here
        return ((drawn * 3).astype(int) if discrete else drawn), jnp.zeros(1)

    recorded = jax.eval_shape(lambda key: record(key, act, env, num_steps=20), jax.random.key(0))
    assert_narrow(recorded)
    own = jax.tree.map(lambda x: np.zeros(x.shape, np.float64 if x.dtype == np.float32 else x.dtype), recorded)
    assert_narrow(jax.eval_shape(train, jax.random.key(0), own))


@pytest.mark.thorough
def test_a_run_goes_on_in_the_other_mode_and_ends_as_in_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "SECONDS_PER_SLICE", 0.0)
    train_config = make_config("soft_q_replay", "", {"total_timesteps": 40, "eval_every": 20, **TINY})
    config = RunConfig("finite/FrozenLake-v1", train_config, num_seeds=2, checkpoint_every=20)

    def subject() -> Subject:
        """Traced anew, in the present mode."""
        return Subject(config, make_program(make_env(config.env_id), config.train), tmp_path / "whole")

    train(subject(), tmp_path / "whole")
    for x64, num_slices in ((True, 3), (False, 5), (True, 100)):
        with jax.enable_x64(x64), suppress(Interrupted):
            train(subject(), tmp_path / "mixed", should_stop=after(num_slices))
    (mixed, mixed_state), (whole, whole_state) = (
        results(tmp_path / name, *config.chunks) for name in ("mixed", "whole")
    )
    assert mixed.schema == whole.schema
    np.testing.assert_allclose(mixed["q_loss"], whole["q_loss"], rtol=1e-3)
    assert mixed_state.keys() == whole_state.keys()
    for name, x in whole_state.items():
        assert mixed_state[name].dtype == x.dtype
        np.testing.assert_allclose(mixed_state[name], x, rtol=1e-3, atol=1e-5, err_msg=name)  # but for rounding
    obs = np.eye(16)
    actions = []
    for x64 in (False, True):
        with jax.enable_x64(x64):
            actions.append(load_policy(tmp_path / "mixed", seed=1)(obs))
    np.testing.assert_array_equal(*actions)
    assert actions[0].dtype == actions[1].dtype == np.int32

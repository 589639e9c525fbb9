"""The one loop: the same from the host and in one program, seeds that do not mix, and what goes into the replay."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.probe_envs import UNIT_BOX, counting
from support.small_loop import ROLLOUTS, SEEDS, STREAM, TINY, a_loop, comparable, of_seed, pendulum

from jaxsoft import agents
from jaxsoft.envs import make_env
from jaxsoft.envs.wrappers import wrap_for_evaluation
from jaxsoft.errors import InputError
from jaxsoft.fleet import programs
from jaxsoft.training.config import make_config, setting_types
from jaxsoft.training.failures import failure_names
from jaxsoft.training.loop import advance, init, make_loop, make_train
from jaxsoft.training.report import add_updates, make_report, no_totals
from jaxsoft.training.state import Totals, TrainState, seed_axes
from jaxsoft.types import (
    Discrete,
    Env,
    EnvSpec,
    Metrics,
    make_time_step,
)


def assert_all_equal(actual: Any, expected: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, comparable(actual), comparable(expected))


# Whole runs of eight seeds


@pytest.fixture(scope="module")
def program() -> Any:
    return jax.jit(jax.vmap(make_train("sac", pendulum(), **TINY)))


@pytest.fixture(scope="module")
def trained(program: Any) -> tuple[TrainState, Metrics]:
    return program(programs.seed_keys(SEEDS))


def test_one_program_and_the_hosts_loop_agree(trained: tuple[TrainState, Metrics]) -> None:
    # Keys and counts exactly. Numbers but for their last bits: XLA fuses the two programs differently, and
    # the order of a sum is the program's.
    def close(actual: np.ndarray, expected: np.ndarray) -> None:
        if np.issubdtype(expected.dtype, np.inexact):
            np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
        else:
            np.testing.assert_array_equal(actual, expected)

    states, metrics = trained
    env = pendulum()
    seeds_program = programs.make_program(env, make_config("sac", env.spec.id, TINY))
    reports: list[Any] = []
    last: Any = states
    for last, _, _, report, *_ in programs.run(seeds_program, programs.init_members(seeds_program, SEEDS)):  # noqa: B007
        if report is not None:
            reports.append(report)
    for name, expected in metrics.items():
        close(np.stack([report[name] for report in reports], axis=1), np.asarray(expected))
    # the host's state keeps one copy of what the seeds share; in a plain vmap every seed has its own
    shared = (lambda s: s.timestep), (lambda s: s.replay_state.num_filled)
    for part in shared:
        assert_all_equal(part(states), jnp.broadcast_to(part(last), SEEDS.shape))
    for part in (lambda s: s.agent_state, lambda s: s.replay_state.data, lambda s: (s.key, s.obs, s.env_state)):
        jax.tree.map(close, comparable(part(last)), comparable(part(states)))


def test_the_same_keys_give_the_same_bits(program: Any, trained: tuple[TrainState, Metrics]) -> None:
    assert_all_equal(program(programs.seed_keys(SEEDS)), trained)


def test_a_seeds_result_does_not_depend_on_its_neighbours(program: Any, trained: tuple[TrainState, Metrics]) -> None:
    # To float tolerance only: a batched matrix product may sum in another order. Over these 80 updates the
    # difference stays small; a seed that saw another's numbers would be nowhere near.
    alone, alone_metrics = program(programs.seed_keys(SEEDS[3:4]))

    def close(actual: np.ndarray, expected: np.ndarray) -> None:
        np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-3)

    jax.tree.map(close, of_seed(alone_metrics, 0), of_seed(trained[1], 3))
    for part in ("agent_state", "replay_state", "obs"):
        jax.tree.map(close, of_seed(getattr(alone, part), 0), of_seed(getattr(trained[0], part), 3))


def test_seeds_differ_in_networks_resets_random_actions_and_noise() -> None:
    loop = a_loop(pendulum())
    keys = programs.seed_keys(SEEDS)
    state = jax.jit(jax.vmap(partial(init, loop=loop)))(keys)
    data = state.replay_state.data
    for name, values in {
        "networks": jax.tree.leaves(state.agent_state.actor_params)[1],
        "resets": data.obs[:, 0],
        "random actions": data.action[:, :20],
    }.items():
        assert len(np.unique(np.asarray(values).reshape(len(SEEDS), -1), axis=0)) == len(SEEDS), name
    # noise: the same state but for the key goes another way
    agent_state = jax.tree.map(lambda x: x[:1].repeat(len(SEEDS), axis=0), state.agent_state)
    alike = state.replace(agent_state=agent_state, obs=jnp.zeros_like(state.obs))  # type: ignore[attr-defined]
    actions = jax.jit(jax.vmap(lambda s: advance(s, 1, loop)))(alike).replay_state.data.action[:, 20]
    assert len(np.unique(actions)) == len(SEEDS)


def test_seeds_share_the_counters_and_nothing_else() -> None:
    loop = a_loop(counting(5))
    axes = seed_axes(loop.experience)
    # out_axes=None is an error if one of them came out batched
    state = jax.jit(jax.vmap(partial(init, loop=loop), out_axes=axes))(programs.seed_keys(SEEDS[:2]))
    state, metrics = jax.jit(jax.vmap(lambda s: make_report(advance(s, 3, loop), loop), (axes,), (axes, 0)))(state)
    assert state.timestep.shape == state.totals.num_updates.shape == state.replay_state.insert_index.shape == ()
    np.testing.assert_array_equal(metrics["timestep"], [23, 23])


@pytest.mark.parametrize(
    ("agent", "settings"), [pytest.param("soft_q", ROLLOUTS, marks=pytest.mark.thorough), ("soft_q_stream", STREAM)]
)
def test_one_program_of_many_seeds_the_hosts_loop_and_a_seed_alone_agree(agent: str, settings: dict[str, Any]) -> None:
    def close(actual: Any, expected: Any) -> None:
        for a, b in zip(jax.tree.leaves(comparable(actual)), jax.tree.leaves(comparable(expected)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)

    env, seeds = counting(5, action_space=Discrete(3)), SEEDS[:3]
    program = make_train(agent, env, **settings)
    states, metrics = jax.jit(jax.vmap(program))(programs.seed_keys(seeds))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(states.agent_state))

    alone, alone_metrics = jax.jit(program)(jax.random.key(2))
    close(alone.agent_state, of_seed(states.agent_state, 2))
    close(alone_metrics, of_seed(metrics, 2))

    seeds_program, reports = programs.make_program(env, make_config(agent, env.spec.id, settings)), []
    last: Any = None
    for last, _, _, report, *_ in programs.run(seeds_program, programs.init_members(seeds_program, seeds)):  # noqa: B007
        if report is not None:
            reports.append(report)
    for name, expected in metrics.items():
        close(np.stack([report[name] for report in reports], axis=1), np.asarray(expected))
    close(last.agent_state, states.agent_state)
    assert last.timestep.shape == last.totals.num_updates.shape == ()
    assert last.replay_state is None
    assert int(metrics["timestep"][0, -1]) == settings["total_timesteps"]
    parameters = jax.tree.leaves(states.agent_state.policy.params)
    assert all(len(np.unique(np.asarray(x).reshape(3, -1), axis=0)) == 3 for x in parameters if np.asarray(x).any())


# Reports


def test_scaled_rewards_are_learned_from_and_episodes_are_reported_in_the_environments_units() -> None:
    env = counting(4, action_space=Discrete(2))  # return 1 + 2 + 3 + 4
    _, metrics = jax.jit(make_train("soft_q", env, **ROLLOUTS))(jax.random.key(0))
    # an episode takes four steps, as a turn does
    np.testing.assert_array_equal(metrics["episode_return"], 6 * [10])


def test_reports_fall_on_multiples_of_the_interval_and_on_the_end(trained: tuple[TrainState, Metrics]) -> None:
    np.testing.assert_array_equal(trained[1]["timestep"], np.tile([40, 80, 100], (len(SEEDS), 1)))


def test_reported_episodes_are_those_that_ended_since_the_last_report() -> None:
    env = counting(4)  # return 1 + 2 + 3 + 4
    _, metrics = jax.jit(make_train("sac", env, **(TINY | {"num_envs": 2})))(jax.random.key(0))
    np.testing.assert_array_equal(metrics["timestep"], [40, 80, 100])
    # 20, 20 and 10 steps of two environments, an episode of each ending at every fourth
    np.testing.assert_array_equal(metrics["num_episodes"], [10, 10, 4])
    for name, expected in {"episode_return": 10, "episode_length": 4, "eval_return": 10, "eval_length": 4}.items():
        np.testing.assert_array_equal(metrics[name], [expected] * 3)


def test_without_an_ended_episode_the_means_are_nan_and_without_evaluation_there_is_no_eval_return() -> None:
    settings = TINY | {"eval_every": 0, "total_timesteps": 40}
    _, metrics = jax.jit(make_train("sac", counting(30), **settings))(jax.random.key(0))
    assert "eval_return" not in metrics
    ended = np.asarray(metrics["num_episodes"]) > 0
    assert ended.sum() == 1  # at step 30
    np.testing.assert_array_equal(np.isnan(metrics["episode_return"]), ~ended)
    np.testing.assert_array_equal(metrics["episode_return"][ended], [465])
    assert all(np.isfinite(metrics[name]).all() for name in ("critic_loss", "actor_loss", "entropy", "temperature"))


# Refusals


def test_sac_refuses_discrete_actions() -> None:
    with pytest.raises(InputError, match=r"sac needs continuous actions; those of gymnax/CartPole-v1 are discrete"):
        make_train("sac", make_env("gymnax/CartPole-v1"), total_timesteps=5000)


def test_training_must_be_longer_than_its_prefill() -> None:
    with pytest.raises(InputError, match=r"total_timesteps is 20, but the first update comes after 20 random steps"):
        make_train("sac", counting(5), **(TINY | {"total_timesteps": 20}))


def test_keys_under_which_seeds_depend_on_their_neighbours_are_refused() -> None:
    env = counting(5, action_space=Discrete(3))
    train = make_train("soft_q_stream", env, **STREAM)
    begin = partial(init, loop=make_loop(env, make_config("soft_q_stream", "", STREAM)))
    for generator in ("rbg", "unsafe_rbg"):
        key = jax.random.key(0, impl=generator)
        for use in (train, begin, jax.vmap(train)):
            with pytest.raises(
                InputError, match=rf"the key is of the generator {generator}, .*it must be of threefry2x32"
            ):
                jax.eval_shape(use, key[None] if use not in (train, begin) else key)
    for key in (jax.random.key(0), jax.random.PRNGKey(0)):
        jax.eval_shape(begin, key)


# Numbers


def test_means_of_many_updates_lose_no_digits() -> None:
    num_updates = 20_000_000  # a plain sum is off by a quarter

    def update(i: jax.Array, totals: Totals) -> Totals:
        return add_updates(totals, {"loss": jnp.float32(0.1)}, 1, i)

    totals = jax.jit(lambda: jax.lax.fori_loop(0, num_updates, update, no_totals(["loss"])))()
    np.testing.assert_allclose(totals.updates.value[0] / totals.num_updates, 0.1, rtol=1e-6)


def test_returns_of_long_episodes_lose_no_digits() -> None:
    num_steps = 20_000_000

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, Any]:
        return state, make_time_step(jnp.zeros(1), 0.1)

    spec = EnvSpec("probe/long", (1,), np.dtype(np.float32), Discrete(2), num_steps)
    env = wrap_for_evaluation(Env(spec, lambda key: (jnp.int32(0), make_time_step(jnp.zeros(1))), step))

    def play(key: jax.Array) -> jax.Array:
        def once_more(_: Any, carry: Any) -> Any:
            return env.step(key, carry[0], jnp.int32(0))

        return jax.lax.fori_loop(0, num_steps, once_more, env.reset(key))[1].episode_return

    np.testing.assert_allclose(jax.jit(play)(jax.random.key(0)), 0.1 * num_steps, rtol=1e-6)


def test_a_seed_whose_observations_are_bad_from_the_start_is_named_and_put_back_to_a_finite_state() -> None:
    env = counting(5)

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, Any]:
        state, time_step = env.step(key, state, action)
        return state, replace(time_step, obs=time_step.obs + jnp.nan, next_obs=time_step.next_obs + jnp.nan)

    settings = TINY | {"normalise_obs": True, "eval_every": 0, "hidden_sizes": (4,)}
    state, metrics = jax.jit(make_train("td3", env._replace(step=step), **settings))(jax.random.key(0))
    assert metrics["failed_at"][0] == 21  # the first update follows 20 random steps
    assert failure_names({name: x[-1] for name, x in metrics.items()}) == "critic_loss, q_mean"
    assert metrics["failed/parameters"].dtype == bool
    for tree in (state.agent_state, state.failure.last_good):
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(tree))


KINDS = ("td3", "ppo", "soft_q_stream")
"""Agents of replay without a density, of rollouts, and of single steps."""


@pytest.mark.parametrize(
    "agent", [pytest.param(name, marks=[] if name in KINDS else pytest.mark.thorough) for name in agents.AGENTS]
)
def test_nothing_is_nan_on_purpose(agent: str) -> None:
    """With `jax_debug_nans` every NaN is an error: episodes last longer than the first reports."""
    space = Discrete(3) if Discrete in agents.get_agent(agent).action_spaces else UNIT_BOX
    settings = DEBUGGED | ({"num_envs": 1} if agent.endswith("_stream") else {"normalise_obs": True})
    known = settings.keys() & setting_types(agents.get_agent(agent))
    with jax.debug_nans(True):
        env = counting(15, action_space=space)
        seeds = programs.make_program(env, make_config(agent, "", {name: settings[name] for name in known}))
        slices = programs.run(seeds, programs.init_members(seeds, SEEDS[:1]))
        reports = [one.metrics for one in slices if one.metrics is not None]
        assert reports[0]["num_episodes"] == 0
        assert reports[-1]["failed_at"] == 0


DEBUGGED = {
    "total_timesteps": 16,
    "num_envs": 2,
    "hidden_sizes": (4,),
    "learning_starts": 4,
    "batch_size": 4,
    "replay_capacity": 20,
    "sequence_length": 2,
    "rollout_length": 4,
    "num_epochs": 1,
    "num_minibatches": 2,
    "eval_every": 8,
    "eval_episodes": 1,
}

"""The one loop: the same from the host and in one program, seeds that do not mix, and what goes into the replay."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from probe_envs import counting

from jaxsoft import sweep
from jaxsoft.config import experience_of, make_config
from jaxsoft.envs import make_env
from jaxsoft.errors import InputError
from jaxsoft.schedule import num_prefill_steps, segments
from jaxsoft.training import (
    Trainer,
    TrainState,
    make_train,
    make_trainer,
    random_action,
)
from jaxsoft.types import Discrete, Env, Metrics

TINY: dict[str, Any] = {
    "total_timesteps": 100,
    "learning_starts": 20,
    "batch_size": 8,
    "replay_capacity": 200,
    "hidden_sizes": (8, 8),
    "learning_rate": 1e-3,
    "eval_every": 40,
    "eval_episodes": 2,
}
SEEDS = np.arange(8, dtype=np.int32)

# LLVM's optimisations are half of the compile time, and these programs run for a moment
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def a_trainer(env: Env, **settings: Any) -> Trainer:
    return make_trainer("sac", env, make_config("sac", env.spec.id, TINY | settings))


def pendulum() -> Env:
    return make_env("gymnax/Pendulum-v1", max_steps_in_episode=15)


def comparable(tree: Any) -> Any:
    """Keys as their data, so that NumPy can look at them."""

    def plain(x: jax.Array) -> np.ndarray:
        is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(x) if is_key else x)

    return jax.tree.map(plain, tree)


def assert_all_equal(actual: Any, expected: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, comparable(actual), comparable(expected))


def of_seed(state: Any, seed: int) -> Any:
    """One seed's leaves; in a plain vmap every leaf has the seeds in front."""
    return jax.tree.map(lambda x: x[seed], comparable(state))


# Whole runs of eight seeds


@pytest.fixture(scope="module")
def program() -> Any:
    return jax.jit(jax.vmap(make_train("sac", pendulum(), **TINY)))


@pytest.fixture(scope="module")
def trained(program: Any) -> tuple[TrainState, Metrics]:
    return program(sweep.seed_keys(SEEDS))


def test_one_program_and_the_hosts_loop_agree(trained: tuple[TrainState, Metrics]) -> None:
    # Keys and counts exactly. Numbers but for their last bits: XLA fuses the two programs differently, and
    # the order of a sum is the program's.
    def close(actual: np.ndarray, expected: np.ndarray) -> None:
        if np.issubdtype(expected.dtype, np.inexact):
            np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
        else:
            np.testing.assert_array_equal(actual, expected)

    states, metrics = trained
    trainer = a_trainer(pendulum())
    reports: list[Any] = []
    last: Any = states
    for last, report in sweep.run(sweep.make_sweep(trainer), SEEDS, trainer.segments):  # noqa: B007
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
    assert_all_equal(program(sweep.seed_keys(SEEDS)), trained)


def test_a_seeds_result_does_not_depend_on_its_neighbours(program: Any, trained: tuple[TrainState, Metrics]) -> None:
    # To float tolerance only: a batched matrix product may sum in another order. Over these 80 updates the
    # difference stays small; a seed that saw another's numbers would be nowhere near.
    alone, alone_metrics = program(sweep.seed_keys(SEEDS[3:4]))

    def close(actual: np.ndarray, expected: np.ndarray) -> None:
        np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-3)

    jax.tree.map(close, of_seed(alone_metrics, 0), of_seed(trained[1], 3))
    for part in ("agent_state", "replay_state", "obs"):
        jax.tree.map(close, of_seed(getattr(alone, part), 0), of_seed(getattr(trained[0], part), 3))


def test_seeds_differ_in_networks_resets_random_actions_and_noise() -> None:
    trainer = a_trainer(pendulum())
    keys = sweep.seed_keys(SEEDS)
    state = jit(jax.vmap(trainer.init))(keys)
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
    actions = jit(jax.vmap(lambda s: trainer.advance(s, 1)))(alike).replay_state.data.action[:, 20]
    assert len(np.unique(actions)) == len(SEEDS)


def test_seeds_share_the_counters_and_nothing_else() -> None:
    trainer = a_trainer(counting(5))
    axes = trainer.seed_axes
    # out_axes=None is an error if one of them came out batched
    state = jit(jax.vmap(trainer.init, out_axes=axes))(sweep.seed_keys(SEEDS[:2]))
    state, metrics = jit(jax.vmap(lambda s: trainer.report(trainer.advance(s, 3)), (axes,), (axes, 0)))(state)
    assert state.timestep.shape == state.totals.num_updates.shape == state.replay_state.insert_index.shape == ()
    np.testing.assert_array_equal(metrics["timestep"], [23, 23])


def test_learning_rates_can_be_vmapped() -> None:
    rates, key = jnp.asarray([1e-4, 3e-3]), jax.random.key(2)
    settings: dict[str, Any] = {k: v for k, v in TINY.items() if k != "learning_rate"} | {
        "eval_every": 0,
        "total_timesteps": 60,
    }

    def train(rate: jax.Array) -> tuple[TrainState, Metrics]:
        return make_train("sac", counting(5), **settings, learning_rate=rate)(key)

    together, _ = jit(jax.vmap(train))(rates)
    alone, _ = jit(make_train("sac", counting(5), **settings, learning_rate=3e-3))(key)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
        of_seed(together.agent_state.actor_params, 1),
        alone.agent_state.actor_params,
    )
    moved = [np.asarray(x) for x in jax.tree.leaves(together.agent_state.actor_params)]
    assert all((x[0] != x[1]).any() for x in moved)


# Reports


def test_reports_fall_on_multiples_of_the_interval_and_on_the_end(trained: tuple[TrainState, Metrics]) -> None:
    np.testing.assert_array_equal(trained[1]["timestep"], np.tile([40, 80, 100], (len(SEEDS), 1)))


def test_reported_episodes_are_those_that_ended_since_the_last_report() -> None:
    env = counting(4)  # return 1 + 2 + 3 + 4
    _, metrics = jit(make_train("sac", env, **(TINY | {"num_envs": 2})))(jax.random.key(0))
    np.testing.assert_array_equal(metrics["timestep"], [40, 80, 100])
    # 20, 20 and 10 steps of two environments, an episode of each ending at every fourth
    np.testing.assert_array_equal(metrics["num_episodes"], [10, 10, 4])
    for name, expected in {"episode_return": 10, "episode_length": 4, "eval_return": 10, "eval_length": 4}.items():
        np.testing.assert_array_equal(metrics[name], [expected] * 3)


def test_without_an_ended_episode_the_means_are_nan_and_without_evaluation_there_is_no_eval_return() -> None:
    settings = TINY | {"eval_every": 0, "total_timesteps": 40}
    _, metrics = jit(make_train("sac", counting(30), **settings))(jax.random.key(0))
    assert "eval_return" not in metrics
    ended = np.asarray(metrics["num_episodes"]) > 0
    assert ended.sum() == 1  # at step 30
    np.testing.assert_array_equal(np.isnan(metrics["episode_return"]), ~ended)
    np.testing.assert_array_equal(metrics["episode_return"][ended], [465])
    assert all(np.isfinite(metrics[name]).all() for name in ("critic_loss", "actor_loss", "entropy", "temperature"))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # counted in steps of all environments, after the prefill
        ({"total_timesteps": 100, "eval_every": 25, "learning_starts": 10}, [15, 25, 25, 25]),
        ({"total_timesteps": 100, "eval_every": 40, "learning_starts": 10}, [30, 40, 20]),  # does not divide
        ({"total_timesteps": 100, "eval_every": 25, "learning_starts": 60}, [15, 25]),  # prefill past two reports
        ({"total_timesteps": 100, "eval_every": 25, "learning_starts": 50}, [25, 25]),  # prefill to a report exactly
        ({"total_timesteps": 100, "eval_every": 500, "learning_starts": 10}, [90]),  # only the last one
        ({"total_timesteps": 100, "eval_every": 100, "learning_starts": 10}, [90]),
        # three environments: timesteps 25, 50, 75, 100 are in steps 9, 17, 25, 34; the prefill of 10 takes 4
        ({"total_timesteps": 100, "eval_every": 25, "learning_starts": 10, "num_envs": 3}, [5, 8, 8, 9]),
        # an interval below one step of all environments: a report at every step
        ({"total_timesteps": 32, "eval_every": 2, "learning_starts": 8, "num_envs": 8}, [1, 1, 1]),
        # no evaluation: 20 reports, less those within the prefill
        ({"total_timesteps": 200, "eval_every": 0, "learning_starts": 10}, [10] * 19),
        ({"total_timesteps": 30, "eval_every": 0, "learning_starts": 5}, [1, *[2] * 12]),
    ],
)
def test_segments(settings: dict[str, Any], expected: list[int]) -> None:
    config = make_config("sac", "probe", settings | {"replay_capacity": 1000})
    experience = experience_of("sac", config)
    steps = segments(config, experience)
    assert steps.dtype == np.int32
    assert steps.tolist() == expected
    total = (num_prefill_steps(config, experience) + steps.sum()) * config.num_envs
    assert 0 <= total - config.total_timesteps < config.num_envs


# Steps, updates and the replay


@pytest.mark.parametrize(("num_envs", "updates_per_step"), [(1, 1), (3, 2)])
def test_steps_and_updates_are_counted(num_envs: int, updates_per_step: int) -> None:
    settings = {"num_envs": num_envs, "updates_per_step": updates_per_step, "learning_starts": 20}
    trainer = a_trainer(counting(5), **settings)
    state = jit(trainer.init)(jax.random.key(0))
    prefill = -(-20 // num_envs)
    assert int(state.timestep) == prefill * num_envs
    assert int(state.totals.num_updates) == 0

    state = jit(trainer.advance)(state, 7)
    assert int(state.timestep) == (prefill + 7) * num_envs
    assert int(state.replay_state.num_filled) == prefill + 7
    assert int(state.totals.num_updates) == 7 * updates_per_step
    for opt_state in state.agent_state.opt_states.values():  # as the optimisers count them
        assert int(optax.tree.get(opt_state, "count")) == 7 * updates_per_step

    _, metrics = jit(trainer.report)(state)
    # the first temperature is 1 and falls by at most 1e-3 in log at each update: a sum would be far from it
    assert 0.95 < metrics["temperature"] < 1.0


@pytest.mark.parametrize(("num_envs", "terminates"), [(3, False), (1, True)])
def test_replay_holds_true_transitions(num_envs: int, terminates: bool) -> None:
    length, prefill, num_steps = 4, 24, 30
    env = counting(length, terminates=terminates)
    trainer = a_trainer(env, num_envs=num_envs, learning_starts=prefill * num_envs, replay_capacity=1000)
    state = jit(lambda key: trainer.advance(trainer.init(key), num_steps))(jax.random.key(1))
    data = jax.tree.map(lambda x: np.asarray(x[: prefill + num_steps]), state.replay_state.data)
    obs, next_obs = data.obs[..., 0], data.next_obs[..., 0]
    ended = np.arange(prefill + num_steps) % length == length - 1

    np.testing.assert_array_equal(next_obs, obs + 1)  # the true successor, also at an episode's end
    np.testing.assert_array_equal(data.reward, np.tile((np.arange(len(obs)) % length + 1.0)[:, None], num_envs))
    np.testing.assert_array_equal(data.terminated, np.tile((ended & terminates)[:, None], num_envs))
    np.testing.assert_array_equal(obs[1:][~ended[:-1]], next_obs[:-1][~ended[:-1]])  # what is acted on next
    starts = obs[np.append(True, ended[:-1])]
    assert (starts < 1).all()
    # 14 episodes of each environment from 4096 starts: all alike, or alike in all environments, shows
    assert len(np.unique(starts)) >= starts.size - 1


def prefill_actions(**settings: Any) -> np.ndarray:
    trainer = a_trainer(counting(5), total_timesteps=5000, replay_capacity=5000, **settings)
    state = jit(trainer.init)(jax.random.key(3))
    return np.asarray(state.replay_state.data.action[: int(state.replay_state.num_filled), :, 0])


def test_prefill_actions_are_uniform_and_independent() -> None:
    actions = prefill_actions(num_envs=2, learning_starts=4000)
    assert actions.shape == (2000, 2)
    assert scipy.stats.kstest(actions.ravel(), scipy.stats.uniform(-1, 2).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(actions.T)[0, 1]) < 4 / np.sqrt(2000)  # the two environments
    assert abs(np.corrcoef(actions[:-1, 0], actions[1:, 0])[0, 1]) < 4 / np.sqrt(2000)  # successive steps


def test_prefill_actions_are_held() -> None:
    actions = prefill_actions(num_envs=2, learning_starts=200, random_action_repeat=30)
    assert actions.shape == (100, 2)
    np.testing.assert_array_equal(actions, actions[np.arange(100) // 30 * 30])
    assert len(np.unique(actions)) == 4 * 2  # four blocks, the last cut short, in two environments


def test_random_actions_are_within_each_dimensions_bounds(key: jax.Array) -> None:
    space = pendulum().spec.action_space
    actions = np.asarray(random_action(key, space, 1000))
    assert actions.shape == (1000, 1)
    assert -2 <= actions.min() < -1.9
    assert 1.9 < actions.max() <= 2
    chosen = np.asarray(random_action(key, Discrete(3), 1000))
    assert chosen.shape == (1000,)
    assert set(chosen) == {0, 1, 2}


def test_a_full_ring_forgets_the_oldest() -> None:
    trainer = a_trainer(counting(1000), replay_capacity=30, learning_starts=20)
    state = jit(lambda key: trainer.advance(trainer.init(key), 25))(jax.random.key(0))
    rewards = np.sort(np.asarray(state.replay_state.data.reward[:, 0]))  # the reward is the step's number
    np.testing.assert_array_equal(rewards, np.arange(16, 46))


# Refusals


def test_sac_refuses_discrete_actions() -> None:
    with pytest.raises(InputError, match=r"sac needs continuous actions; those of gymnax/CartPole-v1 are discrete"):
        make_train("sac", make_env("gymnax/CartPole-v1"), total_timesteps=5000)


def test_an_agent_of_discrete_actions_refuses_continuous_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    from jaxsoft.agents import sac

    monkeypatch.setattr(sac, "ACTION_SPACE", Discrete)
    with pytest.raises(InputError, match=r"needs discrete actions; those of gymnax/Pendulum-v1 are continuous"):
        make_train("sac", make_env("gymnax/Pendulum-v1"), total_timesteps=5000)


def test_training_must_be_longer_than_its_prefill() -> None:
    with pytest.raises(InputError, match=r"total_timesteps is 20, but the first update comes after 20 random steps"):
        make_train("sac", counting(5), **(TINY | {"total_timesteps": 20}))

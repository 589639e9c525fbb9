"""Settings that are ignored: every one of the agents' has an effect, and the loop does what its own say."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import struct
from jax.interpreters import partial_eval
from support.probe_envs import UNIT_BOX, counting

from jaxsoft import make_offline_train, make_train
from jaxsoft.agents import AGENTS, ddpg, td3
from jaxsoft.training.offline import record, uniform_policy
from jaxsoft.types import (
    Agent,
    AgentConfig,
    AgentKind,
    Box,
    Discrete,
    Env,
    EnvSpec,
    Experience,
    Metrics,
    ReplayBatches,
    Rollouts,
    TimeStep,
    Transition,
    make_time_step,
)

# The agents' own


class OwnLayers(nn.Module):
    """Hidden layers of one's own, for images and vectors."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.soft_sign(nn.Dense(7)(x.reshape(len(x), -1)))


OBS_SHAPE = (5, 5, 1)
"""An image, so that convolutions have something to do."""

SMALL: dict[str, Any] = {
    "hidden_sizes": (3,),
    "channels": (2,),
    "batch_size": 4,
    "rollout_length": 4,
    "num_epochs": 2,
    "num_minibatches": 2,
    "sequence_length": 3,
    "lambda_": 0.5,
    "entropy_weight": 0.1,
    "exploration": 0.2,
}

OTHERWISE: dict[str, Any] = {
    "hidden_sizes": (3, 3),
    "channels": (2, 2),
    "trace": "uncorrected",
    "exploration_policy": "reference",
    "reference": "average",
    "num_minibatches": 4,
    "sparsity": 0.25,
    "activation": "elu",
    "network": lambda: OwnLayers(),
    "step_size_rule": "intentional",
}
"""Other values of a program's constants; for the rest flags are switched, and sizes grow by 1."""

OPTIONAL: list[dict[str, Any]] = [
    {"final_exploration": 0.1},
    {"final_temperature": 0.01},
    {"target_entropy": 0.5},
    {"target_kl": 0.2},
    {"reference": "average"},
]
"""What is off at first: each switches on others that only matter beside it."""

NAMES_OF_EXPERIENCE = {"replay_capacity": "capacity", "rollout_length": "length"}


def spec_of(name: str) -> EnvSpec:
    ones = np.ones(2, np.float32)
    space = Box(-ones, ones) if Box in AGENTS[name].action_spaces else Discrete(3)
    return EnvSpec("probe/settings", OBS_SHAPE, np.dtype(np.float32), space, 10)


def small_config(name: str, **settings: Any) -> Any:
    config_class = AGENTS[name].Config
    names = {field.name for field in fields(config_class)}
    return config_class(**{k: v for k, v in SMALL.items() if k in names} | settings)


def a_batch(spec: EnvSpec, experience: Experience) -> Transition:
    """Shapes are all that counts."""
    if isinstance(experience, Rollouts):
        shape = experience.length, 1 if experience.length == 1 else 2
    else:
        shape = (experience.sequence_length,) * (experience.sequence_length > 0) + (experience.batch_size,)
    obs, numbers = jnp.zeros((*shape, *OBS_SHAPE)), jnp.zeros(shape)
    action = jnp.zeros((*shape, *spec.action_space.shape), spec.action_space.dtype)
    return Transition(obs, action, numbers, obs, numbers > 0, numbers > 0, numbers)


def traced(name: str, config: Any) -> Any:
    """What the agent does and learns at these settings as a program, whose first inputs are the numbers among them."""
    module, spec = AGENTS[name], spec_of(name)
    batch = a_batch(spec, module.experience(config))

    def everything(config: Any, key: jax.Array) -> Any:
        agent = module.make(config, spec, 100)
        state = agent.init(key)
        return agent.explore(key, state, batch.obs), agent.update(key, state, batch)[0]

    return jax.make_jaxpr(everything)(config, jax.random.key(0))


def settings_of(name: str, *, numbers: bool) -> set[str]:
    """Names of an agent's settings that are inputs of a program, or of those that are its constants."""
    return {f.name for f in fields(AGENTS[name].Config) if f.metadata.get("pytree_node", True) is numbers}


@pytest.mark.parametrize("name", AGENTS)
def test_no_number_among_an_agents_settings_is_ignored(name: str) -> None:
    # one that nothing depends on is an input that the program does not need
    names, used = settings_of(name, numbers=True), set()
    for switched_on in [{}, *(on for on in OPTIONAL if hasattr(AGENTS[name].Config, *on))]:
        config = small_config(name, **switched_on)
        jaxpr = traced(name, config).jaxpr
        _, needed = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
        paths = [jax.tree_util.keystr(path)[1:] for path, _ in jax.tree_util.tree_leaves_with_path(config)]
        used |= {path for path, is_needed in zip(paths, needed, strict=False) if is_needed}
    assert used == names


@pytest.mark.parametrize("name", AGENTS)
def test_no_size_word_or_flag_among_an_agents_settings_is_ignored(name: str) -> None:
    module, spec, base = AGENTS[name], spec_of(name), small_config(name)

    def shapes(config: Any) -> Any:
        state = jax.eval_shape(module.make(config, spec, 100).init, jax.random.key(0))
        return jax.tree.structure(state), [(x.shape, x.dtype) for x in jax.tree.leaves(state)]

    for setting in settings_of(name, numbers=False):
        old = getattr(base, setting)
        new = OTHERWISE[setting] if setting in OTHERWISE else not old if isinstance(old, bool) else old + 1
        assert new != old, setting
        config = replace(base, **{setting: new})
        experience, at = module.experience(config), NAMES_OF_EXPERIENCE.get(setting, setting)
        if hasattr(experience, at):
            assert getattr(experience, at) == new, setting
        elif shapes(config) == shapes(base):
            assert str(traced(name, config)) != str(traced(name, base)), setting


# Specific values, where the ones above only have to matter


def test_policies_are_delayed_by_as_many_updates_as_are_set() -> None:
    spec = spec_of("td3")
    agent = td3.make(small_config("td3", policy_delay=3), spec, 100)
    batch = a_batch(spec, ReplayBatches(8, 4, 0, 1))

    def update(state: td3.State, key: jax.Array) -> tuple[td3.State, td3.State]:
        state = agent.update(key, state, batch)[0]
        return state, state

    keys = jax.random.split(jax.random.key(0), 7)
    states = jax.jit(lambda key: jax.lax.scan(update, agent.init(key), keys)[1])(jax.random.key(1))
    (bias,) = (x for x in jax.tree.leaves(states.opt_states["actor"]) if x.dtype == jnp.int32)
    np.testing.assert_array_equal(bias, [0, 0, 1, 1, 1, 2, 2])


def test_ddpg_hands_on_all_of_its_settings() -> None:
    base = ddpg.Config()
    other = {name: 0.5 * getattr(base, name) for name in settings_of("ddpg", numbers=True)}
    other |= {name: OTHERWISE.get(name, 7) for name in settings_of("ddpg", numbers=False)}
    of_td3 = ddpg.td3_config(ddpg.Config(**other))
    assert {name: getattr(of_td3, name) for name in other} == other


# The loop's, by an agent that remembers what it was handed

MOST_UPDATES, NUM_ENVS, DISCOUNT, BEST_ACTION = 90, 2, 0.5, 0.5


@struct.dataclass
class RecorderConfig(AgentConfig):
    discount: float = DISCOUNT
    from_rollouts: bool = struct.field(pytree_node=False, default=False)
    rollout_length: int = struct.field(pytree_node=False, default=7)
    noise_repeat: int = struct.field(pytree_node=False, default=1)
    batch_size: int = struct.field(pytree_node=False, default=16)
    learning_starts: int = struct.field(pytree_node=False, default=20)
    updates_per_step: int = struct.field(pytree_node=False, default=1)
    sequence_length: int = struct.field(pytree_node=False, default=6)


@struct.dataclass
class Seen:
    """The batches of all updates and a number drawn with the key of each, [MOST_UPDATES, ...]."""

    batches: Transition
    drawn: jax.Array
    num_updates: jax.Array


TOLD: dict[str, int] = {}
"""How many updates the recorder that was made last was told of."""


def experience(config: RecorderConfig) -> Rollouts | ReplayBatches:
    if config.from_rollouts:
        return Rollouts(config.rollout_length, config.noise_repeat)
    replayed = config.batch_size, config.learning_starts, config.updates_per_step
    return ReplayBatches(1000, *replayed, sequence_length=config.sequence_length)


def act(key: jax.Array, state: Any, obs: jax.Array, *, deterministic: bool = False) -> tuple[jax.Array, jax.Array]:
    """The best action is always the same; others are drawn, and take themselves for their log-probability."""
    drawn = jax.random.uniform(key, obs.shape[:-1], minval=-1, maxval=BEST_ACTION - 0.1)
    return (jnp.full_like(drawn, BEST_ACTION) if deterministic else drawn)[..., None], drawn


def update(key: jax.Array, state: Seen, batch: Transition) -> tuple[Seen, Metrics]:
    at = state.num_updates
    batches = jax.tree.map(lambda seen, x: seen.at[at].set(x), state.batches, replace(batch, pre_tanh=None))
    return Seen(batches, state.drawn.at[at].set(jax.random.uniform(key)), at + 1), {"mean": jnp.mean(batch.reward)}


def make(config: RecorderConfig, spec: EnvSpec, num_updates: int) -> Agent:
    TOLD["num_updates"] = num_updates
    replayed, fresh = (config.sequence_length, config.batch_size), (config.rollout_length, NUM_ENVS)
    numbers = jnp.zeros((MOST_UPDATES, *(fresh if config.from_rollouts else replayed)))
    vectors, flags = numbers[..., None], numbers > 0
    batches = Transition(vectors, vectors, numbers, vectors, flags, flags, numbers)
    nothing = Seen(batches, jnp.zeros(MOST_UPDATES), jnp.int32(0))
    return Agent(init=lambda key: nothing, act=act, update=update, explore=act, metrics=("mean",))


RECORDER = AgentKind("recorder", RecorderConfig, (Box,), experience, make)


def seen_in_training(env: Env, **settings: Any) -> Seen:
    """What the agent saw in a whole run, without room for more updates."""
    loop = {"num_envs": NUM_ENVS, "eval_every": 0}
    state, _ = jax.jit(make_train(RECORDER, env, **loop | settings))(jax.random.key(0))
    seen = jax.device_get(state.agent_state)
    num_updates = int(seen.num_updates)
    assert num_updates == TOLD["num_updates"]  # schedules end with the run
    return jax.tree.map(lambda x: x[:num_updates], replace(seen, num_updates=np.zeros(num_updates)))


def test_updates_after_one_step_have_batches_and_keys_of_their_own_and_schedules_know_their_number() -> None:
    settings = {"total_timesteps": 60, "updates_per_step": 3}
    seen = seen_in_training(counting(4), **settings)
    assert len(seen.drawn) == (60 - 20) // NUM_ENVS * 3
    assert len(np.unique(seen.drawn)) == len(seen.drawn)
    assert len(np.unique(seen.batches.action[..., 0], axis=0)) == len(seen.drawn)


def test_noise_is_kept_for_as_many_steps_as_are_set_within_a_rollout() -> None:
    seen = seen_in_training(counting(4), total_timesteps=42, from_rollouts=True, noise_repeat=3)
    action = seen.batches.action[..., 0]
    assert action.shape == (3, 7, NUM_ENVS)
    np.testing.assert_array_equal(action, action[:, [0, 0, 0, 3, 3, 3, 6]])
    assert len(np.unique(action)) == 3 * 3 * NUM_ENVS  # new in every block, rollout and environment


def sizes_of_returns(reward: np.ndarray, done: np.ndarray) -> np.ndarray:
    """The root mean square of all discounted returns until each step of all environments; [T]."""
    returns, squares, sizes = np.zeros(reward.shape[1]), [], []
    for r, ended in zip(reward, done, strict=True):
        returns = DISCOUNT * returns + r
        squares += [*returns**2]
        sizes.append(np.sqrt(np.mean(squares)))
        returns = np.where(ended, 0, returns)
    return np.array(sizes)


def test_rewards_are_scaled_where_that_is_set_by_returns_of_the_agents_discount() -> None:
    steps = {"total_timesteps": 42, "from_rollouts": True}
    plain, seen = (seen_in_training(counting(4), **steps, scale_rewards=flag).batches for flag in (False, True))
    reward, done = (np.reshape(x, (-1, NUM_ENVS)) for x in (plain.reward, plain.truncated))  # type: ignore[arg-type]
    np.testing.assert_array_equal(reward[:, 0], np.arange(21) % 4 + 1)
    expected = reward / sizes_of_returns(reward, done)[:, None]
    np.testing.assert_allclose(seen.reward.reshape(-1, NUM_ENVS), expected, rtol=1e-4)


def a_sign_and_the_best_action() -> Env:
    """One step; the reward is a sign drawn at the reset, less what the action is away from the best one."""

    def reset(key: jax.Array) -> tuple[Any, TimeStep]:
        return jax.random.rademacher(key, (), jnp.float32), make_time_step(jnp.zeros(1))

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        return state, make_time_step(jnp.zeros(1), state - abs(action[0] - BEST_ACTION), terminated=True)

    return Env(EnvSpec("probe/sign", (1,), np.dtype(np.float32), UNIT_BOX, 1), reset, step)


def test_evaluation_in_training_takes_the_best_actions_in_as_many_episodes_as_are_set() -> None:
    settings = {"total_timesteps": 84, "from_rollouts": True, "eval_every": 14, "eval_episodes": 7}
    train = make_train(RECORDER, a_sign_and_the_best_action(), num_envs=NUM_ENVS, **settings)
    _, metrics = jax.jit(jax.vmap(train))(jax.random.split(jax.random.key(0), 20))
    sums = 7 * np.asarray(metrics["eval_return"]).ravel()  # of seven signs, where no action takes anything away
    assert len(sums) == 20 * 6
    np.testing.assert_allclose(sums, 2 * np.round((sums + 1) / 2) - 1, atol=1e-5)
    assert {-3, -1, 1, 3} <= set(np.round(sums)) <= {-7, -5, -3, -1, 1, 3, 5, 7}
    assert (np.abs(np.asarray(metrics["episode_return"])) < 1.9).all()  # they do in training
    assert np.ptp(np.asarray(metrics["episode_return"])) > 0


# Fixed data sets


def test_offline_batches_are_stretches_of_the_data_with_its_time_limits_and_scaled_rewards() -> None:
    env = counting(4)
    uniform = uniform_policy(UNIT_BOX, 3)
    data = jax.jit(lambda key: record(key, uniform, env, num_steps=30, num_envs=3))(jax.random.key(1))
    settings = {"num_updates": 40, "eval_every": 0, "scale_rewards": True}
    state, _ = jax.jit(make_offline_train(RECORDER, env, **settings))(jax.random.key(0), data)
    batches = jax.tree.map(lambda x: x[:40], jax.device_get(state.agent_state.batches))
    assert TOLD["num_updates"] == int(state.agent_state.num_updates) == 40
    data = jax.device_get(data)
    # every action is another number: it tells the row
    row_of = {float(x): at for at, x in np.ndenumerate(data.action[..., 0])}
    rows, envs = np.moveaxis(np.array([row_of[float(x)] for x in batches.action.ravel()]).reshape(40, 6, 16, 2), -1, 0)
    assert (envs == envs[:, :1]).all()
    np.testing.assert_array_equal(rows, rows[:, :1] + np.arange(6)[:, None])
    assert set(rows[:, 0].ravel()) == set(range(25))
    for name in ("obs", "next_obs", "terminated", "truncated", "log_prob"):
        np.testing.assert_array_equal(getattr(batches, name), getattr(data, name)[rows, envs], err_msg=name)
    assert batches.truncated.any()
    size = sizes_of_returns(data.reward, data.truncated)[-1]
    np.testing.assert_allclose(batches.reward, data.reward[rows, envs] / size, rtol=1e-4)

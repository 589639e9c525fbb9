"""An environment that breaks the contract is told so in one line, before anything is compiled."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.probe_envs import UNIT_BOX, counting

from jaxsoft import make_offline_train, make_train, record
from jaxsoft.envs import check_env, make_env
from jaxsoft.errors import InputError
from jaxsoft.runs.plan import plan_run
from jaxsoft.training.evaluation import evaluate
from jaxsoft.types import Box, Discrete, Env, EnvSpec, TimeStep, make_time_step

OBS = jnp.zeros(3)
SPEC = EnvSpec("probe/own", (3,), np.dtype(np.float32), UNIT_BOX, 10)


def reset(key: jax.Array) -> tuple[Any, TimeStep]:
    return {"time": jnp.int32(0), "place": jnp.zeros(2)}, make_time_step(OBS)


def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
    return state | {"time": state["time"] + 1}, make_time_step(OBS, jnp.sum(action))


WELL = Env(SPEC, reset, step)


def with_box(low: Any, high: Any) -> Env:
    return WELL._replace(spec=replace(SPEC, action_space=Box(low, high)))


def with_spec(**changes: Any) -> Env:
    return WELL._replace(spec=replace(SPEC, **changes))


def after_reset(state: Any = None, **changes: Any) -> Env:
    """Whose reset returns another state, or a time step with other fields."""

    def other(key: jax.Array) -> tuple[Any, TimeStep]:
        own, time_step = reset(key)
        return own if state is None else state, replace(time_step, **changes)

    return WELL._replace(reset=other)


def after_step(state: Any = None, **changes: Any) -> Env:
    def other(key: jax.Array, old: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        own, time_step = step(key, old, action)
        return own if state is None else state, replace(time_step, **changes)

    return WELL._replace(step=other)


def bounds(*numbers: float, dtype: Any = np.float32) -> np.ndarray:
    return np.array(numbers, dtype)


@dataclass
class Unregistered:
    x: Any


class Cart:
    """Like an environment of Brax."""

    action_size = 1

    def step(self, state: Any, action: jax.Array) -> Any:
        return state


BROKEN: list[tuple[Any, str]] = [
    ("gymnax/CartPole-v1", "env is 'gymnax/CartPole-v1'; it must be make_env('gymnax/CartPole-v1'), or an Env("),
    (gymnax.make("CartPole-v1")[0], "env is gymnax's own CartPole; it must be jaxsoft.from_gymnax(env, params), or"),
    (gymnax.make("CartPole-v1"), "env is gymnax's own CartPole; it must be jaxsoft.from_gymnax(env, params), or"),
    (Cart(), "env is Brax's own Cart; it must be jaxsoft.from_brax(env), or an Env(spec, reset, step)"),
    (None, "env is None; it must be make_env('suite/name'), or an Env(spec, reset, step)"),
    ((SPEC, reset, step), "; it must be make_env('suite/name'), or an Env(spec, reset, step)"),
    (Env(None, reset, step), "spec is None; it must be an EnvSpec"),  # type: ignore[arg-type]
    (with_spec(id=3), "id is 3; it must be a text"),
    (with_spec(obs_shape=[3]), "obs_shape is [3]; it must be a tuple of positive integers"),
    (with_spec(obs_shape=3), "obs_shape is 3; it must be a tuple of positive integers"),
    (with_spec(obs_shape=(3.0,)), "obs_shape is (3.0,); it must be a tuple of positive integers"),
    (with_spec(obs_shape=(0,)), "obs_shape is (0,); it must be a tuple of positive integers"),
    (with_spec(obs_dtype="floaty"), "obs_dtype is 'floaty'; it must be a dtype of real numbers or of bool"),
    (with_spec(obs_dtype=np.complex64), "obs_dtype is complex64; it must be a dtype of real numbers or of bool"),
    (with_spec(obs_dtype=None), "obs_dtype is None; it must be a dtype of real numbers or of bool"),
    (with_spec(obs_dtype=str), "obs_dtype is str; it must be a dtype of real numbers or of bool"),
    (with_spec(action_space=4), "action_space is 4; it must be a Box or a Discrete"),
    (with_spec(action_space=Discrete(0)), "num_actions is 0; it must be a positive integer"),
    (with_spec(action_space=Discrete(2.0)), "num_actions is 2.0; it must be a positive integer"),  # type: ignore[arg-type]
    (with_spec(action_space=Discrete(True)), "num_actions is True; it must be a positive integer"),
    (with_spec(max_episode_steps=0), "max_episode_steps is 0; it must be a positive integer"),
    (with_spec(max_episode_steps=-5), "max_episode_steps is -5; it must be a positive integer"),
    (with_spec(max_episode_steps=100.7), "max_episode_steps is 100.7; it must be a positive integer"),
    (with_spec(max_episode_steps=None), "max_episode_steps is None; it must be a positive integer"),
    (with_spec(max_episode_steps=2**31), "max_episode_steps is 2147483648; it must be a positive integer below 2^31"),
    (with_box([-1.0], [1.0]), "action_space.low is [-1.0]; it must be a NumPy array of floating-point numbers"),
    (with_box(-1.0, 1.0), "action_space.low is -1.0; it must be a NumPy array of floating-point numbers"),
    (with_box(np.float32(-1), np.float32(1)), "action_space.low is np.float32(-1.0); it must be a NumPy array"),
    (with_box(bounds(-1), 1), "action_space.high is 1; it must be a NumPy array of floating-point numbers"),
    (with_box(bounds(-1, dtype=int), bounds(1)), "action_space.low is int64[1]; it must be a NumPy array of floating"),
    (with_box(bounds(), bounds()), "action_space.low is float32[0]; it must be a NumPy array"),
    (with_box(bounds(-1), bounds(1, 1)), "action_space.low is float32[1] and high is float32[2]; they must be alike"),
    (with_box(bounds(-1, 3), bounds(1, 2)), "actions of probe/own go from 3 to 2; low must not be above high"),
    (with_box(bounds(np.nan), bounds(1)), "actions of probe/own go from nan to 1; low must not be above high"),
    (with_box(bounds(-1), bounds(np.inf)), "actions of probe/own go from -1 to inf; low must not be above high"),
    (
        with_box(bounds(-3.4e38), bounds(3.4e38)),
        "actions of probe/own go from -3.4e+38 to 3.4e+38; low must not be above high",
    ),
    (WELL._replace(reset=4), "reset is 4; it must be a function of (key)"),
    (WELL._replace(reset=lambda: None), "reset takes (); it must be a function of (key)"),
    (WELL._replace(reset=lambda key, params: None), "reset takes (key, params); it must be a function of (key)"),
    (WELL._replace(step=lambda state, action: None), "step takes (state, action); it must be a function of (key, stat"),
    (WELL._replace(reset=lambda key: None), "reset returns None; it must return (state, TimeStep), see make_time_step"),
    (WELL._replace(reset=lambda key: OBS), "reset returns float32[3]; it must return (state, TimeStep), see make_time"),
    (WELL._replace(reset=lambda key: (OBS, {"a": 1})), "reset returns (float32[3], {'a': 1}); it must return (state"),
    (WELL._replace(reset=lambda key: reset(key)[::-1]), ", which are swapped; it must return (state, TimeStep)"),
    (
        WELL._replace(step=lambda key, state, action: (OBS, 0, 0.0, False, {})),
        "step returns (float32[3], 0, 0.0, False, {}); it must return (state, TimeStep), see make_time_step",
    ),
    (after_reset(obs=jnp.zeros(4)), "obs of reset is float32[4]; it must be float32[3], as the spec says"),
    (after_reset(obs=jnp.zeros(3, int)), "obs of reset is int32[3]; it must be float32[3], as the spec says"),
    (after_reset(obs=[0.0, 0.0, 0.0]), "obs of reset is [0.0, 0.0, 0.0]; it must be float32[3], as the spec says"),
    (after_step(obs=jnp.zeros((3, 1))), "obs of step is float32[3, 1]; it must be float32[3], as the spec says"),
    (after_step(next_obs=jnp.zeros(4)), "next_obs of step is float32[4]; it must be float32[3], as the spec says"),
    (after_step(reward=jnp.zeros(1)), "reward of step is float32[1]; it must be float32[], see make_time_step"),
    (after_step(reward=jnp.int32(1)), "reward of step is int32[]; it must be float32[], see make_time_step"),
    (after_step(reward=None), "reward of step is None; it must be float32[], see make_time_step"),
    (after_step(terminated=jnp.zeros(3, bool)), "terminated of step is bool[3]; it must be bool[], see make_time_step"),
    (after_step(truncated=jnp.float32(0)), "truncated of step is float32[]; it must be bool[], see make_time_step"),
    (after_reset(episode_length=jnp.float32(0)), "episode_length of reset is float32[]; it must be int32[]"),
    (after_reset({"time": 0, "place": "here"}), "state['place'] is 'here'; it must be an array, or a pytree of arrays"),
    (after_step(Unregistered(0)), "state is Unregistered; it must be an array, or a pytree of arrays"),
    (after_step({"time": 0}), "state has one structure after reset and another after step, ({'place': *, 'time': *"),
    (
        after_step({"time": jnp.int32(0), "place": jnp.zeros(3)}),
        "state['place'] is float32[2] after reset and float32[3] after step; it must stay the same",
    ),
    (
        after_step({"time": jnp.float32(0), "place": jnp.zeros(2)}),
        "state['time'] is int32[] after reset and float32[] after step; it must stay the same",
    ),
]


@pytest.mark.parametrize(("env", "message"), BROKEN, ids=[message[:40] for _, message in BROKEN])
def test_names_what_is_wrong_in_one_line(env: Any, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as error:
        check_env(env)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "env",
    [
        WELL,
        WELL._replace(reset=lambda key: ({"time": 0, "place": jnp.zeros(2)}, make_time_step(OBS))),  # weakly typed
        counting(3, action_space=Discrete(2)),
        with_spec(obs_dtype=np.dtype(np.float64)),  # JAX makes it float32
        with_spec(obs_dtype=jnp.float32, obs_shape=(np.int64(3),), max_episode_steps=np.int64(5)),
        with_box(bounds(0, 1), bounds(0, 2)),  # one of two actions leaves no choice
        with_box(jnp.zeros(1), jnp.ones(1)),
        WELL._replace(reset=jax.jit(reset), step=jax.jit(step)),
    ],
)
def test_lets_pass_what_can_be_trained_in(env: Env) -> None:
    check_env(env)


@pytest.mark.parametrize("env_id", ["gymnax/CartPole-v1", "finite/Taxi-v3", "brax/reacher?backend=generalized"])
@pytest.mark.parametrize("double", [False, True])
def test_suites_keep_the_contract(env_id: str, double: bool) -> None:
    with jax.enable_x64(double):
        check_env(make_env(env_id))


def with_step(step: Callable[..., Any]) -> Env:
    return WELL._replace(step=step)


class Outside:
    """Numbers that an environment keeps where no key and no state is."""

    rng, calls = np.random.default_rng(0), 0


def noisy_reset(key: jax.Array) -> tuple[Any, TimeStep]:
    return {"time": jnp.int32(0), "place": jnp.asarray(Outside.rng.normal(size=2), jnp.float32)}, make_time_step(OBS)


def counting_step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
    Outside.calls += 1
    return state, make_time_step(OBS, float(Outside.calls))


@jax.jit
def shake(x: jax.Array) -> jax.Array:
    """With a number that is drawn when it is traced."""
    return x + Outside.rng.normal()


def shaken_step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
    return state, make_time_step(OBS, shake(jnp.sum(action)))


class Leaky:
    """It remembers its best reward in itself."""

    best = jnp.float32(-9)

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        self.best = jnp.maximum(self.best, jnp.sum(action))
        return state, make_time_step(OBS, self.best)


def at(time: int, **changes: Any) -> Env:
    """What is well until a step, counted from 1."""

    def other(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        state, time_step = step(key, state, action)
        return state, jax.tree.map(
            lambda x, y: jnp.where(state["time"] == time, y, x), time_step, replace(time_step, **changes)
        )

    return with_step(other)


def to_host(x: jax.Array) -> jax.Array:
    return jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct((), jnp.float32), x)


THOROUGHLY_BROKEN: list[tuple[Env, str]] = [
    (WELL._replace(reset=noisy_reset), "state['place'] of reset is another when it is called again with the same key;"),
    (WELL._replace(reset=jax.jit(noisy_reset)), "state['place'] of reset is another when it is called again"),
    (
        with_step(counting_step),
        "reward of step is another when it is called again with the same key, state and action;",
    ),
    (with_step(shaken_step), "reward of step is another when it is called again"),
    (with_step(Leaky().step), "the environment keeps a traced array outside of its state: line "),
    (
        WELL._replace(render=lambda state: np.zeros((3, 3))),
        "render returns float64[3, 3]; it must return NumPy's uint8",
    ),
    (with_step(lambda key, state, action: (state, make_time_step(OBS, to_host(jnp.sum(action))))), "under jax.vmap"),
    (after_reset(terminated=jnp.bool_(True)), "terminated of reset is true; an episode must not end before its first"),
    (after_reset(truncated=jnp.bool_(True)), "truncated of reset is true; an episode must not end before its first"),
    (after_reset(obs=OBS + jnp.inf), "obs of reset is not finite"),
    (after_reset(next_obs=OBS + 1), "next_obs of reset is not its obs"),
    (
        at(3, reward=jnp.float32(jnp.nan)),
        "reward of step is nan in step 3 of an episode with random actions; it must be",
    ),
    (at(4, reward=jnp.float32(-jnp.inf)), "reward of step is -inf in step 4 of an episode with random actions"),
    (at(5, obs=OBS + jnp.nan, next_obs=OBS + jnp.nan), "obs of step is not finite in step 5, with random actions"),
    (
        at(7, truncated=jnp.bool_(True))._replace(spec=replace(SPEC, earliest_truncation=8)),
        "step truncates an episode in its step 7; earliest_truncation in the spec says not before step 8",
    ),
    (at(6, obs=OBS + 1), "obs of step is not its next_obs in step 6; they must be the same: jaxsoft itself starts new"),
]


@pytest.mark.parametrize(("env", "message"), THOROUGHLY_BROKEN, ids=[message[:40] for _, message in THOROUGHLY_BROKEN])
def test_a_thorough_check_names_what_only_running_shows(env: Env, message: str) -> None:
    check_env(env)
    with pytest.raises(InputError, match=re.escape(message)) as error:
        check_env(env, thorough=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (
            at(10, terminated=jnp.bool_(True)),
            "all episodes are terminated in step 10, which is max_episode_steps: if that",
        ),
        (at(7, truncated=jnp.bool_(True)), "episodes are truncated in step 7, and max_episode_steps is 10; if that is"),
    ],
)
def test_a_thorough_check_warns_of_time_limits_that_are_said_in_another_way(env: Env, message: str) -> None:
    with pytest.warns(UserWarning, match=message) as told:
        check_env(env, thorough=True)
    assert told[0].filename == __file__


def moving(
    at_the_end: Callable[[jax.Array], jax.Array], start: Callable[[jax.Array], jax.Array], *, resets: bool = False
) -> Env:
    """Every third step ends the episode, and `at_the_end`, a function of the key, is then observed."""

    def first(key: jax.Array) -> tuple[Any, TimeStep]:
        obs = start(key)
        return (jnp.int32(0), obs), make_time_step(obs)

    def then(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        time, place = state
        ended = time % 3 == 2
        obs = jnp.where(ended, at_the_end(key), place + 1)
        return (jnp.where(ended & resets, 0, time + 1), obs), make_time_step(obs, 1.0, ended)

    return Env(SPEC, first, then)


def draw(key: jax.Array) -> jax.Array:
    return jax.random.uniform(key, (3,))


@pytest.mark.parametrize("start", [draw, lambda key: OBS])
def test_a_thorough_check_warns_of_an_environment_that_resets_itself(start: Callable[[jax.Array], jax.Array]) -> None:
    with pytest.warns(UserWarning, match="the last observations of episodes look like those of the next ones'") as told:
        check_env(moving(start, start, resets=True), thorough=True)
    assert told[0].filename == __file__


def infinite_after_the_end(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
    state, time_step = step(key, state, action)
    return state, replace(time_step, terminated=state["time"] == 2, reward=3 / (4 - state["time"]))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "env",
    [
        WELL,
        at(3, terminated=jnp.bool_(True)),
        at(10, truncated=jnp.bool_(True)),
        with_step(infinite_after_the_end),
        WELL._replace(reset=lambda key: ({"time": 0, "place": jnp.zeros(2)}, make_time_step(OBS))),  # weakly typed
        make_env("gymnax/CartPole-v1"),
        make_env("finite/Taxi-v3"),
        moving(lambda key: OBS + 9, draw),
        moving(lambda key: OBS + 9, lambda key: OBS),
        moving(draw, draw),  # the end shows what was drawn
        moving(lambda key: OBS, lambda key: OBS),  # it ends at home
    ],
    ids=range(11),
)
def test_a_thorough_check_lets_pass_what_is_well(env: Env) -> None:
    check_env(env, thorough=True)


def untraceable(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
    state = state | {"time": state["time"] + 1}
    return state, make_time_step(OBS, 1.0 if state["time"] > 3 else 0.0)


@pytest.mark.parametrize(
    "broken",
    [
        untraceable,
        lambda key, state, action: (state, make_time_step(OBS, float(action[0]))),
        lambda key, state, action: (state, make_time_step(OBS, np.asarray(action)[0])),
        lambda key, state, action: (state, make_time_step(OBS[np.arange(3) >= state["time"]])),
        lambda key, state, action: (state, make_time_step(OBS, range(4)[state["time"]])),
    ],
)
def test_what_cannot_be_traced_is_told_with_its_line(broken: Callable[..., Any]) -> None:
    line = broken.__code__.co_firstlineno + 2 * (broken is untraceable)
    with pytest.raises(InputError, match=f"cannot be traced: line {line} of test_check.py needs the value of") as error:
        check_env(with_step(broken))
    assert "\n" not in str(error.value)


def test_compiles_nothing() -> None:
    names: list[str] = []

    def listen(event: str, duration_secs: float, **details: str | int) -> None:
        names.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        check_env(WELL)
        check_env(counting(3))
        of_check = list(names)
        jax.jit(lambda x: x + 12345)(1)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    compiles = [name for name in names if "backend_compile" in name]
    assert compiles
    assert not set(compiles) & set(of_check)


class OwnError(Exception):
    pass


def test_an_error_of_ones_own_shows_where_it_was_raised() -> None:
    def fails(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        raise OwnError("mine")

    with pytest.raises(InputError, match=r"own code fails: OwnError: mine \(line \d+ of test_check.py\)") as error:
        check_env(WELL._replace(step=fails))
    assert isinstance(error.value.__cause__, OwnError)  # with its traceback


KEY = jax.random.key(0)
ENTRIES: dict[str, Callable[[Any], Any]] = {
    "make_train": lambda env: make_train("sac", env, total_timesteps=2_000),
    "make_offline_train": lambda env: make_offline_train("soft_q_replay", env, num_updates=10),
    "record": lambda env: record(KEY, lambda key, obs: (obs, obs), env, num_steps=2),
    "evaluate": lambda env: evaluate(KEY, lambda key, obs: obs, env, 2),
    "a run": lambda env: plan_run(None, env, None),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_is_made_wherever_an_environment_comes_in(entry: str) -> None:
    for env, message in ((gymnax.make("Pendulum-v1")[0], "env is gymnax's own"), (after_step(obs=OBS[:2]), "obs of ")):
        with pytest.raises(InputError, match=message):
            ENTRIES[entry](env)

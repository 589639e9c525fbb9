"""Settings: one name everywhere, presets under what is given, and bad values told in one line."""

from types import ModuleType

import jax
import numpy as np
import pytest

from jaxsoft import agents, make_env, make_train
from jaxsoft.agents import sac
from jaxsoft.config import RULES, TrainConfig, make_config, preset, settings_of, validate
from jaxsoft.envs import names as env_names
from jaxsoft.errors import InputError
from jaxsoft.types import Box, Discrete, EnvSpec

SPEC = EnvSpec("probe/Any-v0", (3,), np.dtype(np.float32), Box(-np.ones(1), np.ones(1)), 10)


def test_settings_survive_the_round_trip():
    config = make_config("sac", "gymnax/Pendulum-v1", {"learning_rate": 2e-3, "num_envs": 4})
    assert make_config("sac", "", settings_of(config)) == config


def test_given_settings_come_before_the_preset_and_the_preset_before_defaults():
    settings = settings_of(make_config("sac", "gymnax/Pendulum-v1", {"batch_size": 32}))
    tuned, defaults = preset("sac", "gymnax/Pendulum-v1"), sac.Config()
    assert settings["batch_size"] == 32
    assert settings["learning_rate"] == tuned["learning_rate"] != defaults.learning_rate
    assert settings["polyak"] == defaults.polyak


@pytest.mark.parametrize("agent", agents.AGENTS)
def test_presets_name_known_environments_and_valid_settings(agent: str):
    tuned = [env_id for env_id in env_names() if preset(agent, env_id)]
    assert tuned
    for env_id in tuned:
        validate(make_config(agent, env_id, {}), agent, make_env(env_id).spec)


def test_every_setting_has_a_rule():
    without = {name for name in settings_of(TrainConfig(sac.Config())) if name not in RULES}
    assert without == {"learn_temperature"}  # a flag: its type is its rule


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; it must be a positive integer"),
        ({"num_envs": -1}, "num_envs is -1; it must be a positive integer"),
        ({"total_timesteps": 0}, "total_timesteps is 0"),
        ({"replay_capacity": 0}, "replay_capacity is 0"),
        ({"learning_starts": -1}, "learning_starts is -1"),
        ({"updates_per_step": 0}, "updates_per_step is 0"),
        ({"eval_episodes": 0}, "eval_episodes is 0"),
        ({"eval_every": -1}, "eval_every is -1; it must be 0 or a positive integer"),
        ({"hidden_sizes": (64, 0)}, r"hidden_sizes is \(64, 0\); it must be one or more positive integers"),
        ({"hidden_sizes": ()}, r"hidden_sizes is \(\)"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; it must be a positive number"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"discount": 1.5}, "discount is 1.5; it must be between 0 and 1"),
        ({"polyak": -0.1}, "polyak is -0.1"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"batch_size": 300, "replay_capacity": 200}, "batch_size is 300, more than replay_capacity, 200"),
        ({"num_envs": 512, "replay_capacity": 300}, "replay_capacity is 300, less than one step of num_envs=512"),
        (
            {"total_timesteps": 1000, "learning_starts": 1000},
            "total_timesteps is 1000, but the first update comes after",
        ),
        ({"total_timesteps": 1000, "learning_starts": 999, "num_envs": 16}, "after 1008 random steps"),
    ],
)
def test_bad_values_are_named(settings: dict, message: str):
    with pytest.raises(InputError, match=message):
        validate(make_config("sac", "", {"total_timesteps": 10_000} | settings), "sac", SPEC)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rat": 1e-3}, "unknown setting 'learning_rat'; did you mean learning_rate"),
        ({"batch_size": "64"}, "batch_size is '64'; it must be an integer"),
        ({"batch_size": 64.5}, "batch_size is 64.5; it must be an integer"),
        ({"learning_rate": "fast"}, "learning_rate is 'fast'; it must be a number"),
        ({"learn_temperature": 1}, "learn_temperature is 1; it must be true or false"),
        ({"hidden_sizes": 64}, "hidden_sizes is 64; it must be integers"),
    ],
)
def test_unknown_names_and_types_are_named(settings: dict, message: str):
    with pytest.raises(InputError, match=message):
        make_config("sac", "", settings)


def test_unknown_agent_is_told_its_nearest():
    with pytest.raises(InputError, match="unknown agent 'sca'; did you mean sac"):
        make_config("sca", "", {})


def test_continuous_agent_refuses_discrete_actions():
    with pytest.raises(InputError, match=r"sac needs continuous actions; those of gymnax/CartPole-v1 are discrete"):
        make_train("sac", make_env("gymnax/CartPole-v1"), total_timesteps=10_000)


def test_discrete_agent_refuses_continuous_actions(monkeypatch: pytest.MonkeyPatch):
    module = ModuleType("discrete_agent")
    module.__dict__.update(Config=sac.Config, ACTION_SPACE=Discrete, experience=sac.experience, make=sac.make)
    monkeypatch.setitem(agents.AGENTS, "discrete_agent", module)
    with pytest.raises(
        InputError, match="discrete_agent needs discrete actions; those of gymnax/Pendulum-v1 are continuous"
    ):
        make_train("discrete_agent", make_env("gymnax/Pendulum-v1"), total_timesteps=10_000)


def test_unbounded_actions_are_refused():
    spec = EnvSpec("probe/Unbounded-v0", (3,), np.dtype(np.float32), Box(np.full(1, -np.inf), np.full(1, np.inf)), 10)
    with pytest.raises(InputError, match="sac needs a vector of bounded actions"):
        validate(make_config("sac", "", {}), "sac", spec)


def test_numpy_and_jax_scalars_are_taken_as_numbers():
    settings = settings_of(
        make_config("sac", "", {"learning_rate": jax.numpy.float32(0.5), "batch_size": np.int64(32)})
    )
    assert settings["learning_rate"] == 0.5
    assert settings["batch_size"] == 32

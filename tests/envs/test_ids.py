"""An environment's id: its suite, its name, and values for its parameters."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from jaxsoft.envs import env_spec, make_env, names
from jaxsoft.errors import InputError
from jaxsoft.training.config import make_config


@pytest.mark.parametrize(
    ("env_id", "params", "expected"),
    [
        ("finite/Taxi-v3", {}, "finite/Taxi-v3"),
        ("finite/Taxi-v3", {"discount": 0.9}, "finite/Taxi-v3?discount=0.9"),
        ("finite/Taxi-v3?discount=0.9", {}, "finite/Taxi-v3?discount=0.9"),
        (
            "finite/FrozenLake-v1?is_slippery=false",
            {"discount": 0.5},
            "finite/FrozenLake-v1?discount=0.5&is_slippery=false",
        ),
        ("gymnax/Pendulum-v1?max_steps_in_episode=7", {}, "gymnax/Pendulum-v1?max_steps_in_episode=7"),
        ("gymnax/Pendulum-v1?g=9", {"g": 1e20}, "gymnax/Pendulum-v1?g=1e%2B20"),
    ],
)
def test_an_id_carries_the_parameters_and_builds_the_same_environment(env_id: str, params: dict, expected: str) -> None:
    spec = make_env(env_id, **params).spec
    assert spec.id == expected
    assert make_env(spec.id).spec.id == expected
    assert make_env(spec.id).spec.max_episode_steps == spec.max_episode_steps


def test_a_parameter_in_the_id_is_the_keyword() -> None:
    by_id, by_keyword = make_env("gymnax/Pendulum-v1?g=0"), make_env("gymnax/Pendulum-v1", g=0)
    usual = make_env("gymnax/Pendulum-v1")
    obs = []
    for env in (by_id, by_keyword, usual):
        state, _ = env.reset(jax.random.key(0))
        obs.append(env.step(jax.random.key(0), state, jnp.zeros(1))[1].obs.tolist())
    assert obs[0] == obs[1] != obs[2]
    assert make_env("gymnax/Pendulum-v1?max_steps_in_episode=7").spec.max_episode_steps == 7


def test_a_keyword_goes_before_the_id() -> None:
    env = make_env("gymnax/Pendulum-v1?max_steps_in_episode=7", max_steps_in_episode=9)
    assert env.spec.id == "gymnax/Pendulum-v1?max_steps_in_episode=9"
    assert env.spec.max_episode_steps == 9


def test_traced_parameters_stay_usable_though_no_id_can_carry_them() -> None:
    ids = []

    def first_obs(discount: jax.Array) -> jax.Array:
        env = make_env("finite/Chain-5", discount=discount)
        ids.append(env.spec.id)
        return env.reset(jax.random.key(0))[1].obs

    assert jax.vmap(first_obs)(jnp.array([0.5, 0.9])).shape == (2, 5)
    assert ids == ["finite/Chain-5?discount=…"]
    assert make_env("finite/Chain-5", discount=jnp.float32(0.5)).spec.id == "finite/Chain-5?discount=0.5"


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("gymnax/Pendulum-v1?g", "must be like \\?name=value&other=value"),
        ("gymnax/Pendulum-v1?", "must be like \\?name=value&other=value"),
        ("gymnax/Pendulum-v1?x=1", "has no parameter 'x'"),
        ("gymnax/Pendulum-v1?g=strong", "g is 'strong'; it must be a finite number, like its default, 10.0"),
        ("gymnax/Pendulum-v1?g=NaN", "g is nan; it must be a finite number"),
        ("gymnax/Pendulum-v1?g=1&m=2&g=1", "names 'g' twice"),
        ("gymnax/Pendulum-v1?max_steps_in_episode=0", "max_steps_in_episode is 0; it must be a positive integer"),
        ("gymnax/Pendulum-v1?max_steps_in_episode=-5", "max_steps_in_episode is -5; it must be a positive integer"),
        ("gymnax/Pendulum-v1?max_steps_in_episode=100.7", "max_steps_in_episode is 100.7; it must be a positive int"),
        ("gymnax/Pendulum-v1?max_steps_in_episode=1e10", "is 10000000000.0; it must be .* below 2\\^31"),
        ("gymnax/Pendulum-v1?max_steps_in_episode=NaN", "max_steps_in_episode is nan; it must be a positive integer"),
        ("gymnax/Pendulum-v1?max_steps_in_episode=true", "max_steps_in_episode is True; it must be a positive integer"),
        ("gymnax/Pendulum-v1?max_steps=9", "has no parameter 'max_steps'; .*; did you mean max_steps_in_episode?"),
        ("gymnax/BernoulliBandit-misc?max_steps_in_episode=0.5", "is 0.5; it must be a positive integer"),
        ("gymnax/Asterix-MinAtar?ramping=1", "ramping is 1; it must be true or false, like its default, True"),
        ("gymnax/Asterix-MinAtar?ramp_interval=0", "ramp_interval is 0; it must be a positive integer"),
        ("gymnax/Acrobot-v1?available_torque=[1,2]", "it must be 3 numbers, like its default, \\[-1.0, 0.0, 1.0\\]"),
        ("gymnax/Acrobot-v1?available_torque=strong", "available_torque is 'strong'; it must be 3 numbers"),
        ("gymnax/Pendulm-v1?g=1", "unknown environment .*; did you mean gymnax/Pendulum-v1"),
        ("finite/Taxi-v3?discount=high", "discount is 'high'; it must be a finite number, like its default, 0.99"),
        ("finite/Taxi-v3?discount=2", "discount is 2; it must be between 0 and 1"),
        ("finite/FrozenLake-v1?is_slippery=5", "is_slippery is 5; it must be true or false"),
        ("finite/Garnet-8x3x2?seed=0.5", "seed is 0.5; it must be 0 or a positive integer"),
        ("finite/Chain-" + "9" * 5000, "is too large"),
        ("finite/Taxi-v3?max_episode_steps=2.5", "max_episode_steps is 2.5; it must be a positive integer"),
        ("finite/Garnet-8x3x2?seed=x", "seed is 'x'; it must be 0 or a positive integer"),
    ],
)
def test_bad_parameters_are_refused_in_one_line(env_id: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make_env(env_id)
    assert "\n" not in str(caught.value)


def test_parameters_become_what_their_defaults_are() -> None:
    for steps in ("50", "5e1"):
        assert make_env(f"gymnax/Pendulum-v1?max_steps_in_episode={steps}").spec.max_episode_steps == 50
    env = make_env("gymnax/Acrobot-v1?available_torque=[-2,0,2]&dt=1", max_steps_in_episode=jnp.int32(7))
    assert env.spec.max_episode_steps == 7
    assert make_env("finite/Chain-5?max_episode_steps=2e1").spec.max_episode_steps == 20
    observed = jax.vmap(lambda g: make_env("gymnax/Pendulum-v1", g=g).reset(jax.random.key(0))[1].obs)(jnp.ones(2))
    assert observed.shape == (2, 3)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("gymnax/Pendulm", "gymnax/Pendulum-v1"),
        ("gymnax/cartpole-v0", "gymnax/CartPole-v1"),
        ("CartPol-v1", "gymnax/CartPole-v1"),
        ("brax/Hopper-v5", "mjx/Hopper-v5 or brax/hopper"),
        ("mjx/hopper", "mjx/Hopper-v5 or brax/hopper"),
        ("Ant-v4", "mjx/Ant-v5 or brax/ant"),
        ("gymnax/MountainCar-v1", "gymnax/MountainCar-v0"),
        ("finite/Garnet-9", "finite/Garnet-20x4x3"),
        ("gymnax/Asterix", "gymnax/Asterix-MinAtar"),
    ],
)
def test_a_misspelt_name_is_told_what_it_may_mean_and_nothing_else(written: str, meant: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"{written!r}; did you mean {meant}? (`jaxsoft list` shows all)")):
        make_env(written)


@pytest.mark.parametrize("written", ["gymnax/", "", "/", "gymnax/xyz", "×", "x/y/z"])
def test_where_nothing_is_near_nothing_is_suggested(written: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"unknown environment {written!r} (`jaxsoft list` shows all)")):
        make_env(written)


def test_the_preset_is_the_environments_whatever_its_parameters() -> None:
    plain, with_params = (make_config("sac", f"gymnax/Pendulum-v1{query}", {}) for query in ("", "?g=9"))
    assert plain == with_params != make_config("sac", "", {})


def test_a_spec_is_that_of_the_environment() -> None:
    for env_id in ("gymnax/CartPole-v1", "finite/Taxi-v3", "finite/Taxi-v3?max_episode_steps=9"):
        assert env_spec(env_id) == make_env(env_id).spec


def test_specs_are_told_without_importing_brax_or_mujoco() -> None:
    code = """
import json, sys
from jaxsoft.envs import env_spec, names
assert not {"gymnax", "brax", "mujoco", "jaxsoft.envs.finite", "jaxsoft.envs.mjx"} & set(sys.modules)
ids = [env_spec(name).id for name in names() if name.partition("/")[0] in ("finite", "brax", "mjx")]
print(json.dumps([ids, [module for module in ("brax", "mujoco") if module in sys.modules]]))
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ids, imported = json.loads(printed.stdout)
    assert {"brax/hopper", "mjx/Hopper-v5"} <= set(ids) <= set(names())
    assert imported == []
    assert "maintained" not in printed.stderr

"""An environment's id: its suite, its name, and values for its parameters."""

from __future__ import annotations

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from jaxsoft.config import make_config
from jaxsoft.envs import env_spec, make_env, names
from jaxsoft.errors import InputError


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
        ("gymnax/Pendulum-v1?x=1", "has no parameter 'x'"),
        ("gymnax/Pendulum-v1?g=strong", "g is 'strong'; it must be a number"),
        ("gymnax/Pendulm-v1?g=1", "unknown environment .*; did you mean gymnax/Pendulum-v1"),
        ("finite/Taxi-v3?discount=high", "discount is 'high'; it must be between 0 and 1"),
        ("finite/Taxi-v3?max_episode_steps=2.5", "max_episode_steps is 2.5; it must be a positive integer"),
        ("finite/Garnet-8x3x2?seed=x", "seed is 'x'; it must be 0 or a positive integer"),
    ],
)
def test_bad_parameters_are_refused_in_one_line(env_id: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make_env(env_id)
    assert "\n" not in str(caught.value)


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
ids = [env_spec(name).id for name in names() if not name.startswith("gymnax/")]
print(json.dumps([ids, [module for module in ("brax", "mujoco") if module in sys.modules]]))
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ids, imported = json.loads(printed.stdout)
    assert {"brax/hopper", "mjx/Hopper-v5"} <= set(ids) <= set(names())
    assert imported == []
    assert "maintained" not in printed.stderr

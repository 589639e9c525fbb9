"""A suite from outside: its environments go wherever a named one goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.probe_envs import UNIT_BOX, counting

from jaxsoft.envs import Film, Suite, env_spec, find, make_env, names, register_suite
from jaxsoft.envs.suites import BUILT_IN, SUITES
from jaxsoft.envs.wrappers import wrap_for_training
from jaxsoft.errors import InputError
from jaxsoft.reports.video import Episode, check_film, film
from jaxsoft.types import Env, TimeStep


def make(name: str, *, length: int = 5) -> Env:
    """Counts steps from a random number, drawn by a function that refuses all keys but JAX's own."""
    env = counting(length, action_space=UNIT_BOX)

    def reset(key: jax.Array) -> tuple[Any, TimeStep]:
        state, time_step = env.reset(key)
        return (state, jax.random.poisson(key, 3.0)), time_step

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        inner, time_step = env.step(key, state[0], action)
        return (inner, state[1]), time_step

    return Env(env.spec, reset, step)


def write(path: Path, states: Sequence[Any], returns: Sequence[float], name: str, **params: Any) -> None:
    path.write_text(f"{name} {params} {len(states)} {returns[-1]}")


@pytest.fixture
def lab() -> Iterator[Suite]:
    suite = Suite("lab", lambda: ["Counter-v0"], make, film=Film(".txt", write))
    register_suite(suite)
    yield suite
    del SUITES["lab"]


def test_its_environments_are_found_listed_and_made(lab: Suite) -> None:
    assert find("lab/Counter-v0?length=7") == (lab, "Counter-v0", {"length": 7})
    assert "lab/Counter-v0" in names()
    assert env_spec("lab/Counter-v0").max_episode_steps == make("Counter-v0").spec.max_episode_steps
    env = make_env("lab/Counter-v0", length=7)
    assert env.spec.id == "lab/Counter-v0?length=7"
    envs = wrap_for_training(env, 3)

    @jax.jit
    def run(key: jax.Array) -> TimeStep:
        return jax.lax.scan(lambda state, key: envs.step(key, state, jnp.zeros((3, 1))), envs.reset(key)[0], keys)[1]

    keys = jax.random.split(jax.random.key(0), 8)
    ends = np.asarray(run(keys[0]).done)
    np.testing.assert_array_equal(ends.sum(0), 1)
    assert ends[6].all()
    with pytest.raises(InputError, match=r"unknown environment 'lab/Countr-v0'; did you mean lab/Counter-v0\?"):
        make_env("lab/Countr-v0")


def test_it_films_and_describes_its_environments_as_it_likes(lab: Suite, tmp_path: Path) -> None:
    film(tmp_path / "film.txt", Episode([0, 1], [0.0, 2.5]), "lab/Counter-v0?length=7")
    assert (tmp_path / "film.txt").read_text() == "Counter-v0 {'length': 7} 2 2.5"
    spec = make("Counter-v0").spec

    def refuse(name: str) -> None:
        raise InputError(f"{name} is too dark")

    lab = lab._replace(
        has=lambda name: name.startswith("Any"), spec=lambda name: spec, film=Film(".txt", write, refuse)
    )
    register_suite(lab)
    assert env_spec("lab/Anything") is spec
    with pytest.raises(InputError, match="Anything is too dark"):
        check_film(tmp_path / "film.txt", "lab/Anything")
    with pytest.raises(InputError, match="unknown environment 'lab/Counter-v0'"):
        find("lab/Counter-v0")


@pytest.mark.parametrize("name", [*BUILT_IN, "gymnasium", "", "a/b", "a?b"])
def test_a_name_that_is_taken_or_no_name_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"the suite's name is .*; it must be letters, digits and any of _ \. -, and"):
        register_suite(Suite(name, list, make))

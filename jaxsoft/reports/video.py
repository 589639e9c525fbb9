"""An episode of a trained policy as a moving picture."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxsoft import envs
from jaxsoft.envs import Film
from jaxsoft.envs.check import check_picture
from jaxsoft.envs.suites import write_gif
from jaxsoft.envs.wrappers import full_products
from jaxsoft.errors import InputError
from jaxsoft.random import make_key
from jaxsoft.runs.files import tell_errors, write_atomically
from jaxsoft.runs.policies import Policy
from jaxsoft.training.evaluation import evaluation_key
from jaxsoft.types import Env


class Episode(NamedTuple):
    """A recorded episode.

    Attributes:
        states: the environment's, NumPy, one per step; the start is the first.
        returns: the sum of rewards up to each, the first 0.
    """

    states: list[Any]
    returns: list[float]


def check_film(path: Path, env_id: str) -> Film:
    """Checks that episodes of an environment can be filmed to `path`, before one is played; returns its renderer.

    Raises:
        InputError: there is no renderer, it writes files of another kind, or there can be no file of that name.
    """
    suite, name, _ = envs.find(env_id)
    renderer = suite.film or _film_of_renders(env_id)
    if path.suffix != renderer.suffix:
        raise InputError(f"video is {path}; a film of {env_id} is a {renderer.suffix} file")
    if not path.parent.is_dir():
        raise InputError(f"video is {path}; there is no folder {path.parent}")
    if path.exists() and not path.is_file():
        raise InputError(f"video is {path}, which is not a regular file")
    renderer.check(name)
    return renderer


def _film_of_renders(env_id: str) -> Film:
    """A GIF of the pictures that an environment draws of its states.

    Raises:
        InputError: it draws none, or its first is no picture.
    """
    env = envs.make_env(env_id)
    if (render := env.render) is None:
        suite_name = env_id.partition("/")[0]
        raise InputError(f"{env_id} cannot be filmed: there is no renderer for {suite_name}, and its Env has no render")
    check_picture(render(jax.device_get(env.reset(make_key(0))[0])))
    return Film(".gif", lambda path, states, *_, **params: write_gif(path, [render(state) for state in states]))


def play(policy: Policy, env: Env, *, seed: int) -> Episode:
    """Plays one episode in an unwrapped environment, up to `max_episode_steps`; `seed` is for its start and noise."""
    key, reset_key = jax.random.split(evaluation_key(seed))
    env = full_products(env)  # as in training and evaluation
    step = jax.jit(env.step)
    state, time_step = jax.jit(env.reset)(reset_key)
    states, returns = [jax.device_get(state)], [0.0]
    while not time_step.done and len(returns) <= env.spec.max_episode_steps:
        key, step_key = jax.random.split(key)
        state, time_step = step(step_key, state, policy(np.asarray(time_step.obs)))
        states.append(jax.device_get(state))
        returns.append(returns[-1] + float(time_step.reward))
    return Episode(states, returns)


def film(path: Path, episode: Episode, env_id: str) -> None:
    """Writes an episode: a GIF of gymnax's environments and one's own, a page for a browser of Brax's and MuJoCo's.

    Raises:
        InputError: there is no renderer, or the file cannot be written.
    """
    renderer = check_film(path, env_id)
    _, name, params = envs.find(env_id)
    with tempfile.TemporaryDirectory() as folder:
        partial = Path(folder) / f"film{path.suffix}"
        with tell_errors(path, "written"):
            renderer.write(partial, episode.states, episode.returns, name, **params)
            content = partial.read_bytes()
    write_atomically(path, content)

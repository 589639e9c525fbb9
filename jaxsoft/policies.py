"""Trained policies, read from run directories: played, loaded, used as references."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsoft import checkpoint
from jaxsoft.config import TrainConfig, check, validate
from jaxsoft.envs import make_env
from jaxsoft.envs.gymnasium import PREFIX, make_host_envs
from jaxsoft.envs.wrappers import to_bounds
from jaxsoft.errors import InputError
from jaxsoft.evaluation import EpisodeTotals, evaluate, evaluate_on_host
from jaxsoft.files import within
from jaxsoft.runs import REFERENCE, RunConfig, checkpoint_folder, read_config, reference_run, same_training
from jaxsoft.sweep import seed_keys
from jaxsoft.training import make_agent
from jaxsoft.types import Agent, Box, Discrete, Env, EnvSpec

DEEPEST = 8
"""How many references of references a run may have."""


def with_reference(config: TrainConfig, spec: EnvSpec, path: Path | None = None) -> TrainConfig:
    """Settings whose reference policy, if it is that of an earlier run, is loaded as a function.

    Args:
        config: the settings.
        spec: of the environment in which they are to be used.
        path: the earlier run's directory, if it is no longer where `reference` says: a run keeps its own copy.

    Raises:
        InputError: no such run, or its policy acts on other observations or with other actions.
    """
    if reference_run(config) is None:
        return config
    path = path or reference_run(config)
    assert path is not None
    if path.name == REFERENCE:
        within(path.parent, REFERENCE)
    if path.parts[-DEEPEST:] == DEEPEST * (REFERENCE,):
        raise InputError(f"{path} is a reference of references, {DEEPEST} deep")
    if not (path / "config.json").is_file():
        raise InputError(
            f"reference is {str(path)!r}; it must be uniform, average, comma-separated logits, or an earlier run's "
            "directory"
        )
    env = make_env(read_config(path).env_id)
    theirs, ours = ((s.obs_shape, s.action_space) for s in (env.spec, spec))
    if theirs != ours:
        raise InputError(
            f"reference {path} is a policy of {env.spec.id}, whose observations and actions are not those of {spec.id}"
        )
    return dataclasses.replace(config, agent=dataclasses.replace(config.agent, reference=load_reference(path)))


def load_reference(path: str | Path, *, seed: int | None = None) -> Callable[[jax.Array], jax.Array]:
    """A trained policy of discrete actions as a reference policy, for the setting `reference`.

    Args:
        path: a run directory.
        seed: which of the run's seeds; by default its first.

    Returns:
        A function of observations [..., *obs_shape] -> log π [..., A].

    Raises:
        InputError: `path` is no run directory, has no such seed, or its actions are continuous.
    """
    config, _, agent, states = read_agents(Path(path))
    if agent.log_probs is None:
        raise InputError(f"{path} cannot be a reference: the actions of {config.agent_name} are continuous")
    log_probs, state = agent.log_probs, _of_seed(states, config, seed, Path(path))
    return lambda obs: jax.lax.stop_gradient(log_probs(state, obs))


def _of_seed(states: Any, config: RunConfig, seed: int | None, path: Path) -> Any:
    """One seed's state; None is the first."""
    seed = config.seed if seed is None else seed
    if seed not in config.seeds:
        raise InputError(f"seed is {seed}; {path} has seeds {config.seeds[0]} to {config.seeds[-1]}")
    return jax.tree.map(lambda x: x[seed - config.seed], states)


def read_agents(path: Path) -> tuple[RunConfig, Env, Agent, Any]:
    """Reads what a run has learned: its settings, environment, agent, and the states [num_seeds, ...].

    Raises:
        InputError: `path` is no run directory, or one that is cut short.
    """
    config = read_config(path)
    env = make_env(config.env_id)
    validate(config.train, config.agent_name, env.spec)
    agent = make_agent(config.agent_name, env, with_reference(config.train, env.spec, path / REFERENCE))
    states = [_read_chunk(path, config, agent, seeds) for seeds in config.chunks]
    return config, env, agent, jax.tree.map(lambda *x: jnp.concatenate(x), *states)


def _read_chunk(path: Path, config: RunConfig, agent: Agent, seeds: np.ndarray) -> Any:
    """What one chunk of seeds has learned, once it is trained to the end: leaves [len(seeds), ...], NumPy."""
    folder = checkpoint_folder(path, seeds)
    found = checkpoint.newest(folder, same_training(config))
    if found is None:
        raise InputError(f"{folder} is missing: the run was cut short before it was saved")
    if found.timestep < config.train.total_timesteps:
        raise InputError(
            f"{path} is not trained to the end: seeds {seeds[0]} to {seeds[-1]} are at timestep {found.timestep:,} of "
            f"{config.train.total_timesteps:,} (jaxsoft train --resume {path})"
        )
    example = jax.eval_shape(lambda: jax.vmap(agent.init)(seed_keys(jnp.asarray(seeds))))
    return checkpoint.read_agents(found, example)


def evaluate_run(
    path: Path, *, num_episodes: int, deterministic: bool, seed: int = 0, env_id: str | None = None
) -> tuple[RunConfig, np.ndarray, np.ndarray]:
    """Plays `num_episodes` episodes with each seed's final policy.

    Every policy meets the same starts, which come from `seed`.

    Args:
        path: a run directory.
        num_episodes: episodes of each policy.
        deterministic: the policies' modes, or samples from them.
        seed: of the episodes.
        env_id: another environment than the run's, one of gymnasium's own (`gymnasium/Hopper-v5`) included; its
            observations and actions must have the same shapes.

    Returns:
        The run's settings, and the episodes' returns and lengths, each [num_seeds, num_episodes].
    """
    check("num_episodes", num_episodes)
    config, env, agent, states = read_agents(path)
    if env_id is not None and env_id.startswith(PREFIX):
        totals = _play_on_host(agent, states, env.spec, env_id, num_episodes, deterministic, seed)
        return config, np.asarray(totals.returns), np.asarray(totals.lengths)
    if env_id is not None:
        trained_in, env = env.spec, make_env(env_id)
        _check_fit(trained_in, env.spec)

    def play(state: Any) -> EpisodeTotals:
        def act(key: jax.Array, obs: jax.Array) -> jax.Array:
            return agent.act(key, state, obs, deterministic=deterministic)[0]

        return evaluate(jax.random.key(seed), act, env, num_episodes)

    totals = jax.jit(jax.vmap(play))(states)
    return config, np.asarray(totals.returns), np.asarray(totals.lengths)


def _play_on_host(
    agent: Agent, states: Any, trained_in: EnvSpec, env_id: str, num_episodes: int, deterministic: bool, seed: int
) -> EpisodeTotals:
    """Episodes of every seed's policy in gymnasium's own environments: leaves [num_seeds, num_episodes]."""
    spec, envs = make_host_envs(env_id, num_episodes)
    _check_fit(trained_in, spec)

    @jax.jit
    def act(state: Any, key: jax.Array, obs: jax.Array) -> jax.Array:
        action, _ = agent.act(key, state, obs, deterministic=deterministic)
        return to_bounds(action, spec.action_space) if isinstance(spec.action_space, Box) else action

    def play(state: Any) -> EpisodeTotals:
        return evaluate_on_host(jax.random.key(seed), partial(act, state), envs, seed=seed)

    num_seeds = jax.tree.leaves(states)[0].shape[0]
    totals = [play(jax.tree.map(lambda x, i=i: x[i], states)) for i in range(num_seeds)]
    return jax.tree.map(lambda *x: jnp.stack(x), *totals)


def _check_fit(trained_in: EnvSpec, spec: EnvSpec) -> None:
    """Whether policies trained in one environment can act in another.

    Raises:
        InputError: the observations or actions differ.
    """
    shapes = [
        (of.obs_shape, of.action_space if isinstance(of.action_space, Discrete) else of.action_space.shape)
        for of in (trained_in, spec)
    ]
    if shapes[0] != shapes[1]:
        told = (
            f"observations {list(of.obs_shape)} and actions {of.action_space} in {of.id}" for of in (trained_in, spec)
        )
        raise InputError(f"the policies do not fit: {', '.join(told)}")


def load_policy(path: str | Path, *, seed: int | None = None, deterministic: bool = True) -> Policy:
    """A trained policy as a plain function: NumPy observation in, NumPy action out.

    Args:
        path: a run directory.
        seed: which of the run's seeds; by default its first.
        deterministic: the policy's mode, or a sample from it.

    Returns:
        A `Policy` that takes one observation [*obs_shape] or a batch of them [n, *obs_shape], and gives
        actions in the environment's own units.

    Raises:
        InputError: `path` is no run directory, is cut short, or has no such seed.
    """
    config, env, agent, states = read_agents(Path(path))
    return Policy(agent, _of_seed(states, config, seed, Path(path)), env, deterministic)


class Policy:
    """A trained policy; call it with observations. It draws from its own key, so a new one repeats itself."""

    def __init__(self, agent: Agent, state: Any, env: Env, deterministic: bool) -> None:
        self.env_spec = env.spec
        self.deterministic = deterministic
        self._key = jax.random.key(0)
        self._state = state
        space = env.spec.action_space

        def act(key: jax.Array, state: Any, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
            key, act_key = jax.random.split(key)
            action, _ = agent.act(act_key, state, obs, deterministic=deterministic)
            return key, to_bounds(action, space) if isinstance(space, Box) else action

        self._act = jax.jit(act)

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """Chooses an action for each observation."""
        obs = np.asarray(obs, self.env_spec.obs_dtype)
        shape = self.env_spec.obs_shape
        if obs.shape[obs.ndim - len(shape) :] != shape or obs.ndim < len(shape):
            raise InputError(f"the observation has shape {obs.shape}; {self.env_spec.id} has {shape}")
        self._key, action = self._act(self._key, self._state, obs)
        return np.asarray(action)

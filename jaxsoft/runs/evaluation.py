"""Episodes with the policies of all members of a run, on the device or in gymnasium's own environments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsoft.envs import make_env
from jaxsoft.envs.gymnasium import PREFIX, make_host_envs
from jaxsoft.envs.wrappers import scale_to_bounds
from jaxsoft.errors import InputError
from jaxsoft.runs.config import RunConfig
from jaxsoft.runs.policies import read_agents
from jaxsoft.runs.tables import FailedSeed
from jaxsoft.training.config import TrainConfig, check
from jaxsoft.training.evaluation import EpisodeTotals, evaluate, evaluate_on_host, member_keys
from jaxsoft.training.loop import make_loop
from jaxsoft.types import Discrete, Env, EnvSpec


class Evaluation(NamedTuple):
    """Episodes of all members of a run, cell by cell.

    Attributes:
        config: the run's settings.
        returns: [num_cells * num_seeds, num_episodes], float32. Members that failed or have no checkpoint play no
            episodes: they have −∞ and NaN.
        lengths: [num_cells * num_seeds, num_episodes], int32; 0 where no episode was played.
        timesteps: [num_cells * num_seeds], int32, environment steps that each has learned from; 0 without a checkpoint.
        failed: the members that failed.
    """

    config: RunConfig
    returns: np.ndarray
    lengths: np.ndarray
    timesteps: np.ndarray
    failed: list[FailedSeed]


def evaluate_run(
    path: Path,
    *,
    num_episodes: int,
    deterministic: bool,
    seed: int = 0,
    env_id: str | None = None,
    env: Env | None = None,
) -> Evaluation:
    """Plays episodes with the policy of every member of a run by its newest checkpoint.

    The episodes' starts follow from `seed`, the cell and the member's seed: an interval over seeds includes the spread
    of the starts, and a policy's episodes do not depend on the other members.

    Args:
        path: a run directory.
        num_episodes: episodes of each policy.
        deterministic: the policies' modes, or samples from them.
        seed: of the episodes.
        env_id: another environment than the run's, one of gymnasium's own (`gymnasium/Hopper-v5`) included; its
            observations and actions must have the same shapes.
        env: the environment that the run was trained in; by default it is made from its id.
    """
    check("num_episodes", num_episodes)
    config, env, programs = read_agents(path, env)
    if env_id is not None and env_id.startswith(PREFIX):
        envs_spec, host_envs = make_host_envs(env_id, num_episodes)
        _check_fit(env.spec, envs_spec)
        play = partial(_play_on_host, spec=envs_spec, envs=host_envs, obs_dtype=env.spec.obs_dtype)
    else:
        played_in = env if env_id is None else make_env(env_id)
        _check_fit(env.spec, played_in.spec)
        play = partial(_play, env=played_in, num_episodes=num_episodes)
    num_members = len(config.cells) * config.num_seeds
    returns = np.full((num_members, num_episodes), np.nan, np.float32)
    lengths, timesteps = np.zeros((num_members, num_episodes), np.int32), np.zeros(num_members, np.int32)
    for learned in programs:
        places = learned.cells * config.num_seeds + learned.seeds - config.seed
        timesteps[places], returns[places] = learned.timesteps, -np.inf
        well = np.flatnonzero(~learned.has_failed)
        if not len(well):
            continue
        act = _make_act(env, learned.train, deterministic)
        keys = member_keys(seed, learned.cells[well], learned.seeds[well])
        members = jax.tree.map(lambda x, well=well: x[well], (learned.states, learned.arguments))
        totals = play(act, members, keys)
        returns[places[well]], lengths[places[well]] = totals.returns, totals.lengths
    failed = sorted(one for learned in programs for one in learned.failed)
    return Evaluation(config, returns, lengths, timesteps, failed)


MemberAct = Callable[[tuple[Any, Any], jax.Array, jax.Array], jax.Array]
"""`((state, arguments), key, obs [n, *obs_shape]) -> action [n, *action_shape]`, continuous ones in [−1, 1]."""


def _make_act(env: Env, train: TrainConfig, deterministic: bool) -> MemberAct:
    """How any member of a program acts."""

    def act(member: tuple[Any, Any], key: jax.Array, obs: jax.Array) -> jax.Array:
        state, arguments = member
        return make_loop(env, train, arguments).agent.act(key, state, obs, deterministic=deterministic)[0]

    return act


def _play(act: MemberAct, members: Any, keys: jax.Array, *, env: Env, num_episodes: int) -> EpisodeTotals:
    """Episodes of every member's policy with its own key: leaves [num_members, num_episodes]."""

    def play(member: Any, key: jax.Array) -> EpisodeTotals:
        return evaluate(key, partial(act, member), env, num_episodes)

    return jax.jit(jax.vmap(play))(members, keys)


def _play_on_host(
    act: MemberAct, members: Any, keys: jax.Array, *, spec: EnvSpec, envs: Sequence[Any], obs_dtype: np.dtype
) -> EpisodeTotals:
    """As `_play`, in gymnasium's own environments."""

    @jax.jit
    def act_in_bounds(member: Any, key: jax.Array, obs: jax.Array) -> jax.Array:
        return scale_to_bounds(act(member, key, obs), spec.action_space)

    def play(member: Any, key: jax.Array) -> EpisodeTotals:
        return evaluate_on_host(key, partial(act_in_bounds, member), envs, obs_dtype)

    totals = [play(jax.tree.map(lambda x, i=i: x[i], members), key) for i, key in enumerate(keys)]
    return jax.tree.map(lambda *x: jnp.stack(x), *totals)


def _check_fit(trained_in: EnvSpec, spec: EnvSpec) -> None:
    """Refuses to play in an environment other than the policies' own if observations or actions differ."""
    first, second = (
        (one.obs_shape, one.action_space if isinstance(one.action_space, Discrete) else one.action_space.shape)
        for one in (trained_in, spec)
    )
    if not np.can_cast(spec.obs_dtype, trained_in.obs_dtype, "same_kind"):
        differing = (f"{one.obs_dtype.name} observations in {one.id}" for one in (trained_in, spec))
    elif first != second:
        differing = (
            f"observations {list(one.obs_shape)} and actions {one.action_space} in {one.id}"
            for one in (trained_in, spec)
        )
    else:
        return
    raise InputError(f"the policies do not fit: {', '.join(differing)}")

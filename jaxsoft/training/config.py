"""Settings: one frozen dataclass for the loop, with the agent's inside; presets; validation on the host.

A setting has one name everywhere: keyword of `make_train`, key of `config.json`, option of the command line.
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

import jax
import numpy as np
from jax.core import Tracer

from jaxsoft.agents import get_agent
from jaxsoft.agents.references import Reference
from jaxsoft.errors import InputError, nearest
from jaxsoft.nn.networks import Network
from jaxsoft.precision import MatmulPrecision
from jaxsoft.types import (
    AgentConfig,
    AgentKind,
    Box,
    Discrete,
    EnvSpec,
    OnlineExperience,
    ReplayBatches,
    Rollouts,
    check_bounds,
)


@dataclass(frozen=True)
class TrainConfig:
    """Settings of the training of one seed.

    Attributes:
        kind: which agent it is.
        agent: its own settings.
        total_timesteps: environment steps to take, over all environments, random ones included.
        num_envs: environments stepped side by side, for each seed.
        scale_rewards: divide rewards by the running size of their discounted returns; they are then within ±10.
        eval_every: timesteps between evaluations; 0 switches evaluation off.
        eval_episodes: episodes of one evaluation.
        matmul_precision: of the agent's products of matrices; see `jaxsoft.precision`.
    """

    kind: AgentKind
    agent: AgentConfig
    total_timesteps: int = 100_000
    num_envs: int = 1
    scale_rewards: bool = False
    eval_every: int = 5_000
    eval_episodes: int = 10
    matmul_precision: MatmulPrecision = "default"

    @property
    def experience(self) -> OnlineExperience:
        """The kind of experience of the agent's updates."""
        return self.kind.experience(self.agent)


LOOP_SETTINGS = tuple(field.name for field in dataclasses.fields(TrainConfig) if field.name not in ("kind", "agent"))
"""Names of the settings that are not the agent's own."""


def make_config(agent: str | AgentKind, env_id: str, settings: Mapping[str, Any]) -> TrainConfig:
    """Settings for one agent in one environment: the agent's defaults, the preset, and `settings` over them.

    Args:
        agent: its name, for example `sac`, or its kind.
        env_id: for example `gymnax/Pendulum-v1`.
        settings: the loop's and the agent's settings by name, in one flat mapping.

    Raises:
        InputError: no such agent or setting, or a value of the wrong type. `validate` checks the values.
    """
    kind = get_agent(agent)
    values = coerce_all(kind, {**kind.loop_defaults, **preset(kind, env_id), **settings})
    agent_config = kind.Config(
        **{name: values.pop(name) for name in typing.get_type_hints(kind.Config) if name in values}
    )
    return TrainConfig(kind, agent_config, **values)


def with_settings(config: TrainConfig, settings: Mapping[str, Any]) -> TrainConfig:
    """Replaces settings, the loop's and the agent's in one flat mapping; values may be traced."""
    agent_settings = {name: value for name, value in settings.items() if name in vars(config.agent)}
    loop_settings = {name: value for name, value in settings.items() if name not in agent_settings}
    agent = dataclasses.replace(config.agent, **agent_settings) if agent_settings else config.agent
    return dataclasses.replace(config, agent=agent, **loop_settings)


def setting_types(kind: AgentKind) -> dict[str, Any]:
    """The types of an agent's settings and of the loop's, by name."""
    loop_types = typing.get_type_hints(TrainConfig)
    return typing.get_type_hints(kind.Config) | {name: loop_types[name] for name in LOOP_SETTINGS}


def coerce_all(kind: AgentKind, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Converts the values of settings to their types.

    Raises:
        InputError: no such setting, or a value of the wrong type.
    """
    known = setting_types(kind)
    for name in settings:
        if name not in known:
            raise InputError(f"unknown setting {name!r}{nearest(name, known)} (settings: {', '.join(known)})")
    return {name: _coerce(name, value, known[name]) for name, value in settings.items()}


def preset(kind: AgentKind, env_id: str) -> dict[str, Any]:
    """Tuned settings of one agent in one environment, whatever its parameters; empty where there are none."""
    file = resources.files("jaxsoft.training") / "presets" / f"{kind.name}.toml"
    return tomllib.loads(file.read_text()).get(env_id.partition("?")[0], {}) if file.is_file() else {}


def settings_of(config: TrainConfig) -> dict[str, Any]:
    """The flat mapping that `make_config` takes; every setting is named."""
    loop = {name: getattr(config, name) for name in LOOP_SETTINGS}
    return loop | {f.name: getattr(config.agent, f.name) for f in dataclasses.fields(config.agent)}


def validate(config: TrainConfig, spec: EnvSpec) -> None:
    """Checks settings against each other and against the environment, before anything is compiled.

    Values that are traced (a vmap over hyper-parameters) cannot be looked at and are taken as they are.

    Raises:
        InputError: names the setting, its value and what is allowed.
    """
    validate_settings(config, spec)
    experience = config.experience
    if config.eval_every and config.total_timesteps > MOST_REPORTS * config.eval_every:
        raise InputError(
            f"eval_every is {config.eval_every}; at total_timesteps={config.total_timesteps} it must be "
            f"{-(-config.total_timesteps // MOST_REPORTS)} at least, or 0: {MOST_REPORTS:,} reports are the most"
        )
    _validate_counts(config, experience)
    if isinstance(experience, ReplayBatches):
        _validate_replay(config, experience)
    elif experience.length * config.num_envs % experience.num_minibatches:
        raise InputError(
            f"num_minibatches is {experience.num_minibatches}; it must divide rollout_length × num_envs, "
            f"{experience.length} × {config.num_envs}"
        )
    config.kind.check(config.agent, config.num_envs)


def validate_settings(config: TrainConfig, spec: EnvSpec) -> None:
    """Checks each setting by itself, and whether the agent can act in the environment.

    Raises:
        InputError: names the setting, its value and what is allowed.
    """
    for name, value in settings_of(config).items():
        if name in RULES and not isinstance(value, Tracer):
            check(name, value)
    _validate_action_space(config.kind, spec)


def _validate_counts(config: TrainConfig, experience: OnlineExperience) -> None:
    """Checks that turns and updates can be counted in int32."""
    per_turn = config.num_envs * (experience.length if isinstance(experience, Rollouts) else 1)
    num_turns = -(-config.total_timesteps // per_turn)
    if num_turns * per_turn > MOST:
        raise InputError(
            f"total_timesteps is {config.total_timesteps}; rounded up to whole turns of {per_turn} steps it must be "
            "below 2^31"
        )
    is_fresh = isinstance(experience, Rollouts)
    num_updates = experience.num_epochs * experience.num_minibatches if is_fresh else experience.updates_per_step
    if num_turns * num_updates > MOST:
        raise InputError(
            f"total_timesteps is {config.total_timesteps}; with {num_updates} gradient steps in each of {num_turns} "
            "turns all of them must be below 2^31"
        )


def _validate_replay(config: TrainConfig, experience: ReplayBatches) -> None:
    capacity, num_envs = experience.capacity, config.num_envs
    if experience.batch_size > capacity:
        raise InputError(f"batch_size is {experience.batch_size}, more than replay_capacity, {capacity}")
    if num_envs > capacity:
        raise InputError(f"replay_capacity is {capacity}, less than one step of num_envs={num_envs} environments")
    first_update = -(-experience.learning_starts // num_envs) * num_envs
    if config.total_timesteps <= first_update:
        raise InputError(
            f"total_timesteps is {config.total_timesteps}, but the first update comes after {first_update} random "
            f"steps (learning_starts={experience.learning_starts}, num_envs={num_envs})"
        )
    length = experience.sequence_length
    if length and min(capacity, first_update) // num_envs < length:
        raise InputError(
            f"sequence_length is {length}; the replay must hold that many steps of every environment before the "
            f"first update (learning_starts={experience.learning_starts}, replay_capacity={capacity}, "
            f"num_envs={num_envs})"
        )


def _validate_action_space(kind: AgentKind, spec: EnvSpec) -> None:
    names, found = {Box: "continuous", Discrete: "discrete"}, spec.action_space
    if not isinstance(found, kind.action_spaces):
        raise InputError(
            f"{kind.name} needs {names[kind.action_spaces[0]]} actions; those of {spec.id} are "
            f"{names[type(found)]}: {found}"
        )
    if isinstance(found, Box):
        if len(found.shape) != 1:
            raise InputError(f"{kind.name} needs a vector of actions; those of {spec.id} are {found}")
        check_bounds(spec.id, found)


def check(name: str, value: Any) -> None:
    """Checks one setting against its rule in `RULES`.

    Raises:
        InputError: for example «batch_size is 0; it must be a positive integer».
    """
    test, allowed = RULES[name]
    if not test(value):
        raise InputError(f"{name} is {value}; it must be {allowed}")


MOST_REPORTS = 1_000_000

Rule = tuple[Callable[[Any], bool], str]
MOST = 2**31 - 1
"""The largest count: programs count in int32."""

_SIZE: Rule = (lambda x: 0 < x <= MOST, "a positive integer below 2^31")
_COUNT: Rule = (lambda x: 0 <= x <= MOST, "0 or a positive integer below 2^31")
_POSITIVE: Rule = (lambda x: 0 < x < math.inf, "a positive number")
_NOT_NEGATIVE: Rule = (lambda x: 0 <= x < math.inf, "0 or a positive number")
_FRACTION: Rule = (lambda x: 0 <= x <= 1, "between 0 and 1")
_SIZES: Rule = (lambda x: len(x) <= 100 and all(size > 0 for size in x), "positive integers, 100 at most, or none")
_OPTIONAL_POSITIVE: Rule = (lambda x: x is None or 0 < x < math.inf, "a positive number, or none")
_OPTIONAL_FRACTION: Rule = (lambda x: x is None or 0 <= x <= 1, "between 0 and 1, or none")
_FINITE: Rule = (lambda x: x is None or math.isfinite(x), "a finite number")

RULES: dict[str, Rule] = {
    "total_timesteps": _SIZE,
    "num_envs": _SIZE,
    "num_seeds": (lambda x: 0 < x <= 1_000_000, "a positive integer, 1,000,000 at most"),
    "num_episodes": _SIZE,
    "seed": (lambda x: 0 <= x < 2**30, "0 or a positive integer below 2^30"),
    "seeds_per_chunk": _COUNT,
    "checkpoint_every": _COUNT,
    "keep_checkpoints": _SIZE,
    "eval_every": _COUNT,
    "eval_episodes": _SIZE,
    "learning_rate": _POSITIVE,
    "discount": _FRACTION,
    "polyak": _FRACTION,
    "temperature": _POSITIVE,
    "target_entropy": _FINITE,
    "batch_size": _SIZE,
    "replay_capacity": _SIZE,
    "learning_starts": _COUNT,
    "random_action_repeat": _SIZE,
    "updates_per_step": _SIZE,
    "hidden_sizes": _SIZES,
    "channels": _SIZES,
    "lambda_": _FRACTION,
    "final_temperature": _OPTIONAL_POSITIVE,
    "target_kl": _OPTIONAL_POSITIVE,
    "temperature_learning_rate": _POSITIVE,
    "exploration": _FRACTION,
    "final_exploration": _OPTIONAL_FRACTION,
    "decay_fraction": _FRACTION,
    "reference_polyak": _FRACTION,
    "rollout_length": _SIZE,
    "noise_repeat": _SIZE,
    "num_epochs": _SIZE,
    "num_minibatches": _SIZE,
    "max_grad_norm": _POSITIVE,
    "clip_range": (lambda x: 0 < x < 1, "between 0 and 1, both excluded"),
    "entropy_weight": _NOT_NEGATIVE,
    "value_weight": _POSITIVE,
    "sequence_length": _SIZE,
    "num_critics": (lambda x: x in (1, 2), "1 or 2"),
    "overshoot_bound": _NOT_NEGATIVE,
    "actor_overshoot_bound": _NOT_NEGATIVE,
    "target_entropy_share": _FRACTION,
    "exploration_noise": _NOT_NEGATIVE,
    "target_noise": _NOT_NEGATIVE,
    "target_noise_clip": _NOT_NEGATIVE,
    "policy_delay": _SIZE,
    "sparsity": (lambda x: 0 <= x < 1, "at least 0 and less than 1"),
}
"""Allowed values of each setting; a name means the same for every agent."""


def _coerce(name: str, value: Any, kind: Any) -> Any:
    """Converts a value to its field's type: integers to floats, lists to tuples; refuses all else."""
    if isinstance(value, (jax.Array, np.generic)) and not isinstance(value, Tracer) and value.ndim == 0:
        value = value.item()
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is bool and isinstance(value, bool):
        return value
    if kind is int and number and math.isfinite(value) and value == int(value):
        return int(value)
    if kind in (float, float | None):
        if number:
            return float(value)
        if isinstance(value, Tracer):
            return value.astype(np.float32)
        if value is None and kind is not float:
            return value
    if kind == tuple[int, ...] and isinstance(value, (list, tuple)):
        return tuple(_coerce(name, size, int) for size in value)
    if kind == Network:
        if value is None or callable(value):
            return value
        if value == "none":
            return None
        allowed = "none, or in Python a Flax module or a function that makes one"
        raise InputError(f"{name} is {value!r}; it must be {allowed}")
    if kind == Reference and (isinstance(value, str) or callable(value)):
        return value
    if kind == Reference and isinstance(value, (list, tuple)):
        return ",".join(str(_coerce(name, logit, float)) for logit in value)
    literals = [part for part in (kind, *typing.get_args(kind)) if typing.get_origin(part) is Literal]
    if literals:
        allowed = typing.get_args(literals[0])
        if value in allowed or (callable(value) and kind not in literals):
            return value
        near = nearest(str(value), allowed)
        or_own = "" if kind in literals else ", or in Python a function"
        raise InputError(f"{name} is {value!r}{near}; it must be one of: {', '.join(allowed)}{or_own}")
    words = {bool: "true or false", int: "an integer", float: "a number", float | None: "a number or none"}
    words[Reference] = "a reference policy's name, logits, or a function"
    raise InputError(f"{name} is {value!r}; it must be {words.get(kind, 'integers')}")

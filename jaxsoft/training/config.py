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

from jaxsoft.agents import get_agent, ppo, soft_q, soft_q_stream
from jaxsoft.agents.references import Reference
from jaxsoft.errors import InputError, nearest
from jaxsoft.nn.networks import IMAGE_RANK
from jaxsoft.types import AgentConfig, Box, EnvSpec, Experience, ReplayBatches, Rollouts, check_bounds


@dataclass(frozen=True)
class TrainConfig:
    """Settings of the training of one seed.

    Attributes:
        agent: the agent's own settings.
        total_timesteps: environment steps to take, over all environments, random ones included.
        num_envs: environments stepped side by side, for each seed.
        scale_rewards: divide rewards by the running size of their discounted returns; they are then within ±10.
        eval_every: timesteps between evaluations; 0 switches evaluation off.
        eval_episodes: episodes of one evaluation.
    """

    agent: AgentConfig
    total_timesteps: int = 100_000
    num_envs: int = 1
    scale_rewards: bool = False
    eval_every: int = 5_000
    eval_episodes: int = 10


def make_config(agent_name: str, env_id: str, settings: Mapping[str, Any]) -> TrainConfig:
    """Settings for one agent in one environment: the agent's defaults, the preset, and `settings` over them.

    Args:
        agent_name: for example `sac`.
        env_id: for example `gymnax/Pendulum-v1`.
        settings: the loop's and the agent's settings by name, in one flat mapping.

    Raises:
        InputError: no such agent or setting, or a value of the wrong type. `validate` checks the values.
    """
    loop_defaults = getattr(get_agent(agent_name), "LOOP_DEFAULTS", {})
    values = coerce_all(agent_name, loop_defaults | preset(agent_name, env_id) | dict(settings))
    agent_class = get_agent(agent_name).Config
    agent = agent_class(**{name: values.pop(name) for name in _field_types(agent_class) if name in values})
    return TrainConfig(agent, **values)


def with_settings(config: TrainConfig, settings: Mapping[str, Any]) -> TrainConfig:
    """The same settings but for those given, the loop's and the agent's in one flat mapping; values may be traced."""
    of_agent = {name: value for name, value in settings.items() if name in vars(config.agent)}
    of_loop = {name: value for name, value in settings.items() if name not in of_agent}
    agent = dataclasses.replace(config.agent, **of_agent) if of_agent else config.agent
    return dataclasses.replace(config, agent=agent, **of_loop)


def setting_types(agent_name: str) -> dict[str, Any]:
    """The types of an agent's settings and of the loop's, by name."""
    types = _field_types(get_agent(agent_name).Config) | _field_types(TrainConfig)
    types.pop("agent")
    return types


def coerce_all(agent_name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by name, their values as their types.

    Raises:
        InputError: no such agent or setting, or a value of the wrong type.
    """
    known = setting_types(agent_name)
    for name in settings:
        if name not in known:
            raise InputError(f"unknown setting {name!r}{nearest(name, known)} (settings: {', '.join(known)})")
    return {name: _coerce(name, value, known[name]) for name, value in settings.items()}


def preset(agent_name: str, env_id: str) -> dict[str, Any]:
    """Tuned settings of one agent in one environment, whatever its parameters; empty where there are none."""
    file = resources.files("jaxsoft.training") / "presets" / f"{agent_name}.toml"
    return tomllib.loads(file.read_text()).get(env_id.partition("?")[0], {}) if file.is_file() else {}


def settings_of(config: TrainConfig) -> dict[str, Any]:
    """The flat mapping that `make_config` takes; every setting is named."""
    loop = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name != "agent"}
    return loop | {f.name: getattr(config.agent, f.name) for f in dataclasses.fields(config.agent)}


def validate(config: TrainConfig, agent_name: str, spec: EnvSpec) -> None:
    """Checks settings against each other and against the environment, before anything is compiled.

    Values that are traced (a vmap over hyper-parameters) cannot be looked at and are taken as they are.

    Raises:
        InputError: names the setting, its value and what is allowed.
    """
    validate_settings(config, agent_name, spec)
    experience = experience_of(agent_name, config)
    if config.eval_every and config.total_timesteps > MOST_REPORTS * config.eval_every:
        raise InputError(
            f"eval_every is {config.eval_every}; at total_timesteps={config.total_timesteps} it must be "
            f"{-(-config.total_timesteps // MOST_REPORTS)} at least, or 0: {MOST_REPORTS:,} reports are the most"
        )
    _validate_counts(config, experience)
    if isinstance(experience, ReplayBatches):
        _validate_replay(config, experience)
    if isinstance(config.agent, soft_q.Config | ppo.Config):
        _validate_minibatches(config, config.agent)
    if isinstance(config.agent, soft_q_stream.Config) and config.num_envs != 1:
        raise InputError(
            f"num_envs is {config.num_envs}; it must be 1: {agent_name} learns from every step as it comes"
        )


def validate_settings(config: TrainConfig, agent_name: str, spec: EnvSpec) -> None:
    """Checks each setting by itself, and whether the agent can act in the environment.

    Raises:
        InputError: names the setting, its value and what is allowed.
    """
    for name, value in settings_of(config).items():
        if name in RULES and not isinstance(value, Tracer):
            check(name, value)
    _validate_action_space(agent_name, spec)
    _validate_channels(config.agent, spec)


def experience_of(agent_name: str, config: TrainConfig) -> Experience:
    """What the agent's updates are fed with, at these settings."""
    return get_agent(agent_name).experience(config.agent)


def _validate_counts(config: TrainConfig, experience: Experience) -> None:
    """Checks what is counted: whole turns of the loop, and the updates in them."""
    per_turn = config.num_envs * (experience.length if isinstance(experience, Rollouts) else 1)
    num_turns = -(-config.total_timesteps // per_turn)
    if num_turns * per_turn > MOST:
        raise InputError(
            f"total_timesteps is {config.total_timesteps}; rounded up to whole turns of {per_turn} steps it must be "
            "below 2^31"
        )
    per_update = getattr(config.agent, "num_epochs", 1) * getattr(config.agent, "num_minibatches", 1)
    num_updates = experience.updates_per_step if isinstance(experience, ReplayBatches) else per_update
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


def _validate_minibatches(config: TrainConfig, agent: soft_q.Config | ppo.Config) -> None:
    num_samples = agent.rollout_length * config.num_envs
    if num_samples % agent.num_minibatches:
        raise InputError(
            f"num_minibatches is {agent.num_minibatches}; it must divide rollout_length × num_envs, "
            f"{agent.rollout_length} × {config.num_envs}"
        )
    if isinstance(agent, ppo.Config) and num_samples == agent.num_minibatches:
        raise InputError(
            f"num_minibatches is {agent.num_minibatches}; it must be less than rollout_length × num_envs: an advantage "
            "by itself, brought to mean 0, teaches nothing"
        )


def _validate_channels(agent: Any, spec: EnvSpec) -> None:
    if len(spec.obs_shape) != IMAGE_RANK or not hasattr(agent, "channels"):
        return
    if not (agent.hidden_sizes or isinstance(agent, ppo.Config)):  # a linear Q-function has no convolutions
        return
    most = (min(spec.obs_shape[:2]) - 1) // 2
    if len(agent.channels) > most:
        raise InputError(
            f"channels is {agent.channels}; each 3 × 3 convolution takes 2 from the observations' height and width, so "
            f"{list(spec.obs_shape)} in {spec.id} leaves room for {most} at most"
        )


def _validate_action_space(agent_name: str, spec: EnvSpec) -> None:
    kinds = {True: "continuous", False: "discrete"}
    wanted, found = get_agent(agent_name).ACTION_SPACE, spec.action_space  # a class, or a union of classes
    if not isinstance(found, wanted):
        raise InputError(
            f"{agent_name} needs {kinds[wanted is Box]} actions; those of {spec.id} are "
            f"{kinds[isinstance(found, Box)]}: {found}"
        )
    if isinstance(found, Box):
        if len(found.shape) != 1:
            raise InputError(f"{agent_name} needs a vector of actions; those of {spec.id} are {found}")
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
_SIZES: Rule = (
    lambda x: len(x) <= 100 and all(size > 0 for size in x),
    "positive integers, 100 at most, or none",
)
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
    "target_entropy_share": _FRACTION,
    "exploration_noise": _NOT_NEGATIVE,
    "target_noise": _NOT_NEGATIVE,
    "target_noise_clip": _NOT_NEGATIVE,
    "policy_delay": _SIZE,
    "sparsity": (lambda x: 0 <= x < 1, "at least 0 and less than 1"),
}
"""What each setting may be; a name means the same for every agent."""


def _field_types(config_class: type) -> dict[str, Any]:
    return typing.get_type_hints(config_class)


def _coerce(name: str, value: Any, kind: Any) -> Any:
    """A value as its field's type: integers may stand for floats, lists for tuples; nothing else is guessed."""
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
    if kind == Reference and (isinstance(value, str) or callable(value)):
        return value
    if kind == Reference and isinstance(value, (list, tuple)):
        return ",".join(str(_coerce(name, logit, float)) for logit in value)
    if typing.get_origin(kind) is Literal:
        return _one_of(name, value, typing.get_args(kind))
    words = {bool: "true or false", int: "an integer", float: "a number", float | None: "a number or none"}
    words[Reference] = "a reference policy's name, logits, or a function"
    raise InputError(f"{name} is {value!r}; it must be {words.get(kind, 'integers')}")


def _one_of(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise InputError(f"{name} is {value!r}{nearest(str(value), allowed)}; it must be one of: {', '.join(allowed)}")
    return value

"""The settings of every online tabular learner: one dataclass, checked and completed once, before compilation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxsoft.envs.mdp import FiniteMDP
from jaxsoft.errors import InputError, positive_integer, require
from jaxsoft.tabular.behaviour import Behaviour, Uniform, check_behaviour
from jaxsoft.tabular.checks import check_objective, check_reference, check_table

NO_LIMIT = 2**31 - 1
"""Steps of an episode that no time limit stops."""

UNSET: Any = None
"""A setting whose default `resolve_acting` or `resolve_recorded` fills in."""


@struct.dataclass(kw_only=True)
class LearnerSettings:
    """Keywords of every online learner. All but the sizes are leaves, which a `vmap` can map over.

    Attributes:
        temperature: [], τ > 0.
        step_size: [], α, above 0 and at most 1.
        half_life: [], steps after which the step size is half as large: α_t = α / (1 + t / half_life); by default it
            stays.
        lambda_: [], λ, between 0 and 1; for methods that have one.
        discount: [], γ, between 0 and 1; by default the process's own.
        reference_log_probs: [S, A], log π0; uniform by default.
        initial_q: [S, A], Q before the first step; zeros by default.
        behaviour: the policy that acts, see `jaxsoft.tabular.behaviour`; by default every action alike.
        max_episode_steps: [], time limit, a truncation; none by default.
        num_steps: environment steps; static.
        num_records: snapshots of Q to keep, a divisor of the number of steps; static.
    """

    temperature: float | jax.Array
    step_size: float | jax.Array
    half_life: float | jax.Array = np.inf
    lambda_: float | jax.Array = 1.0
    discount: float | jax.Array = UNSET
    reference_log_probs: jax.Array = UNSET
    initial_q: jax.Array = UNSET
    behaviour: Behaviour = UNSET
    max_episode_steps: int | jax.Array = UNSET
    num_steps: int = struct.field(pytree_node=False, default=UNSET)
    num_records: int = struct.field(pytree_node=False, default=1)


def resolve_acting(settings: LearnerSettings, mdp: FiniteMDP) -> LearnerSettings:
    """The complete settings of a learner that acts in a process, as arrays of the process's dtype.

    Raises:
        InputError: a number out of range, a reference that forbids every action, shapes that do not fit the process,
            or records that do not divide the steps.
    """
    behaviour = Uniform() if settings.behaviour is None else settings.behaviour
    check_behaviour(mdp, behaviour)
    temperature, reference = check_objective(mdp, settings.temperature, settings.reference_log_probs)
    discount = mdp.discount if settings.discount is None else settings.discount
    return _resolve(settings, temperature, reference, behaviour=behaviour, discount=discount)


def resolve_recorded(settings: LearnerSettings, rewards: jax.Array) -> LearnerSettings:
    """The complete settings of a learner of recorded transitions with these rewards [T], as arrays of their dtype.

    Raises:
        InputError: as `resolve_acting`; no discount or no reference, or a setting that only a learner that acts has.
    """
    for name in ("discount", "reference_log_probs"):
        if getattr(settings, name) is None:
            raise InputError(f"{name} is None; recorded transitions have no default for it")
    for name in ("behaviour", "max_episode_steps", "num_steps"):
        if getattr(settings, name) is not None:
            raise InputError(f"{name} is {getattr(settings, name)}; it must be None for recorded transitions")
    dtype = jnp.asarray(rewards).dtype
    temperature, reference = check_reference(settings.temperature, settings.reference_log_probs, dtype)
    return _resolve(settings, temperature, reference, num_steps=len(rewards))


def _resolve(
    settings: LearnerSettings, temperature: jax.Array, reference: jax.Array, **defaults: Any
) -> LearnerSettings:
    settings = replace(settings, temperature=temperature, reference_log_probs=reference, **defaults)
    num_steps = positive_integer("num_steps", settings.num_steps)
    num_records = positive_integer("num_records", settings.num_records)
    if num_steps % num_records:
        raise InputError(f"num_records is {num_records}; it must divide the number of steps, {num_steps}")
    require("discount", settings.discount, lambda x: (x >= 0) & (x <= 1), "between 0 and 1")
    require("lambda_", settings.lambda_, lambda x: (x >= 0) & (x <= 1), "between 0 and 1")
    require("step_size", settings.step_size, lambda x: (x > 0) & (x <= 1), "above 0 and at most 1")
    require("half_life", settings.half_life, lambda x: x > 0, "a positive number")
    limit = NO_LIMIT if settings.max_episode_steps is None else settings.max_episode_steps
    require("max_episode_steps", limit, lambda x: (x >= 1) & (x <= NO_LIMIT), "a positive integer below 2^31")
    q = jnp.zeros_like(reference) if settings.initial_q is None else settings.initial_q
    check_table("initial_q", q, reference.shape)
    require("initial_q", q, np.isfinite, "a finite number")
    numbers = {name: getattr(settings, name) for name in ("discount", "lambda_", "step_size", "half_life")}
    return replace(
        settings,
        **{name: jnp.asarray(value, reference.dtype) for name, value in numbers.items()},
        initial_q=jnp.asarray(q, reference.dtype),
        max_episode_steps=jnp.asarray(limit, jnp.int32),
        num_steps=num_steps,
        num_records=num_records,
    )

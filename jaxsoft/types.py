"""The words every other module uses: spaces, environments, time steps, transitions and agents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxsoft.errors import InputError

Metrics = dict[str, jax.Array]
"""Named scalars of one update or one evaluation; a leading axis per scan and per `vmap` around it."""


@dataclass(frozen=True)
class Box:
    """Continuous actions between `low` and `high` (two NumPy arrays of the action's shape)."""

    low: np.ndarray
    high: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one action."""
        return self.low.shape

    @property
    def dtype(self) -> np.dtype:
        """Dtype of one action."""
        return self.low.dtype

    def __str__(self) -> str:
        low, high = (f"{bound.flat[0]:g}" if (bound == bound.flat[0]).all() else "…" for bound in (self.low, self.high))
        return f"Box{list(self.shape)} in [{low}, {high}]"


def check_bounds(env_id: str, space: Box) -> None:
    """Refuses bounds between which no action can be computed.

    Raises:
        InputError: in the dtype that JAX computes in, low is above high, or high − low is not finite.
    """
    dtype = jax.dtypes.canonicalize_dtype(space.dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = (np.asarray(bound, dtype) for bound in (space.low, space.high))
        wrong = ~(np.isfinite(high - low) & (low <= high))
    if wrong.any():
        raise InputError(
            f"the actions of {env_id} go from {low[wrong][0]:g} to {high[wrong][0]:g}; low must not be above high, nor "
            f"high − low infinite in {dtype}"
        )


@dataclass(frozen=True)
class Discrete:
    """Actions 0, 1, …, `num_actions` − 1."""

    num_actions: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one action: a scalar."""
        return ()

    @property
    def dtype(self) -> np.dtype:
        """Dtype of one action."""
        return np.dtype(np.int32)

    def __str__(self) -> str:
        return f"Discrete({self.num_actions})"


ActionSpace = Box | Discrete


@dataclass(frozen=True)
class EnvSpec:
    """All that an agent needs to know of an environment before the first step.

    Attributes:
        id: the name `make_env` takes, for example `gymnax/Pendulum-v1`.
        obs_shape: shape of one observation.
        obs_dtype: dtype of one observation.
        action_space: `Box` or `Discrete`.
        max_episode_steps: steps after which every episode has ended; training and evaluation truncate it there.
        costly_reset: whether a reset costs a good part of a step, so that it must not be done at every step.
        earliest_truncation: no episode is truncated before this step of it. Where it is a late one, as the time limit
            is, a replay may store each observation once.
    """

    id: str
    obs_shape: tuple[int, ...]
    obs_dtype: np.dtype
    action_space: ActionSpace
    max_episode_steps: int
    costly_reset: bool = False
    earliest_truncation: int = 1


@struct.dataclass
class TimeStep:
    """The result of one call of `Env.reset` or `Env.step`, beside the state.

    `obs` is what the agent acts on next; `next_obs` is the true successor of the last action. They differ
    only where an episode ended and the auto-reset wrapper has put the next episode's first observation into
    `obs`. A learner bootstraps from `next_obs` unless `terminated`: a time limit is not an end of the task.

    Attributes:
        obs: [*obs_shape].
        next_obs: [*obs_shape].
        reward: [], float32.
        terminated: [], bool; the task ended, the value beyond is zero.
        truncated: [], bool; a time limit stopped the episode, the value beyond is not zero.
        episode_return: [], undiscounted sum of the episode's rewards so far (filled by `record_episodes`).
        episode_length: [], int32, steps of the episode so far (filled by `record_episodes`).
    """

    obs: jax.Array
    next_obs: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    episode_return: jax.Array
    episode_length: jax.Array

    @property
    def done(self) -> jax.Array:
        """Whether the episode ended at this step, for either reason."""
        return self.terminated | self.truncated


def make_time_step(
    obs: jax.Array,
    reward: float | jax.Array = 0.0,
    terminated: bool | jax.Array = False,
    truncated: bool | jax.Array = False,
) -> TimeStep:
    """The time step of a single, unwrapped environment; without rewards and flags, an episode's first."""
    return TimeStep(
        obs=obs,
        next_obs=obs,
        reward=jnp.asarray(reward, jnp.float32),
        terminated=jnp.asarray(terminated, bool),
        truncated=jnp.asarray(truncated, bool),
        episode_return=jnp.zeros((), jnp.float32),
        episode_length=jnp.zeros((), jnp.int32),
    )


class Env(NamedTuple):
    """An environment as two pure functions of a single environment's state; wrappers return another `Env`.

    Attributes:
        spec: what the environment looks like.
        reset: `(key) -> (state, TimeStep)`.
        step: `(key, state, action) -> (state, TimeStep)`.
        render: `(state) -> [height, width, 3]`, uint8, NumPy: a picture of a state, drawn on the host. None: no films.
    """

    spec: EnvSpec
    reset: Callable[[jax.Array], tuple[Any, TimeStep]]
    step: Callable[[jax.Array, Any, jax.Array], tuple[Any, TimeStep]]
    render: Callable[[Any], np.ndarray] | None = None


@struct.dataclass
class Transition:
    """One step of experience, the unit of replay.

    Attributes:
        obs: [*obs_shape], the observation acted on.
        action: [*action_shape], in [−1, 1] for continuous actions.
        reward: [].
        next_obs: [*obs_shape], the true successor, also where the episode ended; see `ReplayBatches.uses_terminal_obs`.
        terminated: [], bool; cuts the bootstrap. A time limit does not.
        truncated: [], bool; a time limit ended the episode: returns of several steps stop there. None in batches of
            single steps, which have no use for it.
        log_prob: [], log μ(action|obs) of the policy that acted; None likewise, and where that has no density.
        pre_tanh: [*action_shape], arctanh(action) as it was drawn: tanh rounds it away near ±1. None likewise, of
            discrete actions, and of data that has only the actions.
    """

    obs: jax.Array
    action: jax.Array
    reward: jax.Array
    next_obs: jax.Array
    terminated: jax.Array
    truncated: jax.Array | None = None
    log_prob: jax.Array | None = None
    pre_tanh: jax.Array | None = None


@dataclass(frozen=True)
class Rollouts:
    """Fresh experience: an update gets the last `length` steps of all environments, once.

    Its batches are [length, num_envs, ...].

    Attributes:
        length: T, steps of every environment.
        noise_repeat: steps for which the random numbers that choose actions are kept.
        num_epochs: passes of an update over its rollout.
        num_minibatches: gradient steps in one pass; they divide the rollout into equal parts.
    """

    length: int
    noise_repeat: int = 1
    num_epochs: int = 1
    num_minibatches: int = 1


@dataclass(frozen=True)
class ReplayBatches:
    """Replayed experience: after every step, updates get batches drawn from past transitions.

    Its batches are [batch_size, ...]; of sequences, [sequence_length, batch_size, ...].

    Attributes:
        capacity: transitions kept, the oldest replaced first.
        batch_size: transitions, or sequences, in one update.
        learning_starts: timesteps of uniformly random actions before the first update.
        updates_per_step: updates after each step of the (one or more) environments.
        random_action_repeat: steps that each of those random actions is held.
        sequence_length: consecutive steps of one environment in a sequence; 0: single transitions.
        uses_terminal_obs: whether updates look at `next_obs` of terminated transitions. Where they do not, a replay may
            store each observation once; it then gives such a transition another observation as `next_obs`.
    """

    capacity: int
    batch_size: int
    learning_starts: int
    updates_per_step: int
    random_action_repeat: int = 1
    sequence_length: int = 0
    uses_terminal_obs: bool = True


@dataclass(frozen=True)
class FixedData:
    """Fixed experience: updates get batches drawn from a data set.

    Its batches are those of `ReplayBatches`.

    Attributes:
        batch_size: transitions, or sequences, in one update.
        sequence_length: consecutive steps of one environment in a sequence; 0: single transitions.
    """

    batch_size: int
    sequence_length: int = 0


OnlineExperience = Rollouts | ReplayBatches
"""Experience of an agent that acts while it learns."""

Experience = OnlineExperience | FixedData
"""Experience of an agent's updates."""


@struct.dataclass
class AgentConfig:
    """Settings that every agent has; each agent's `Config` adds its own.

    Attributes:
        learning_rate: step size.
        discount: γ, the weight of the next step's value.
    """

    learning_rate: float = 3e-4
    discount: float = 0.99


class Act(Protocol):
    """Chooses actions for a batch of observations: [..., *obs_shape] -> ([..., *action_shape], [...])."""

    def __call__(
        self, key: jax.Array, state: Any, obs: jax.Array, *, deterministic: bool = False
    ) -> tuple[jax.Array, jax.Array | None]:
        """Returns the actions and their log-probabilities; a deterministic action is the policy's mode.

        Log-probabilities are None where actions have no density, as a policy's that is itself deterministic.
        """
        ...


class Choice(NamedTuple):
    """Chosen actions, with what later updates need to know about them.

    Attributes:
        action: [..., *action_shape], in [−1, 1] for continuous actions.
        log_prob: [...], see `Act`.
        pre_tanh: [..., *action_shape], arctanh(action) as it was drawn; None where nothing was squashed.
    """

    action: jax.Array
    log_prob: jax.Array | None
    pre_tanh: jax.Array | None = None


Explore = Callable[[jax.Array, Any, jax.Array], tuple[Any, ...]]
"""Chooses actions while learning: `(key, state, obs [..., *obs_shape]) -> Choice`, or a tuple of its first two."""


def no_statistics(state: Any, obs: jax.Array) -> Any:
    """`Agent.observe` of an agent that keeps no statistics of its observations."""
    return state


class Agent(NamedTuple):
    """A learner as pure functions.

    Attributes:
        init: `(key) -> state`; everything that the agent learns and its optimisers' moments.
        act: `(key, state, obs) -> (action, log_prob)`, the learned policy; see `Act`.
        update: `(key, state, batch) -> (state, metrics)`; one update on a batch of its kind of experience.
        explore: `(key, state, obs) -> Choice`; how it acts while it learns.
        metrics: names of what an update measures, each [].
        observe: `(state, obs [..., *obs_shape]) -> state`; takes fresh observations into running statistics.
        log_probs: `(state, obs [..., *obs_shape]) -> [..., num_actions]`, log π; None for continuous actions.
    """

    init: Callable[[jax.Array], Any]
    act: Act
    update: Callable[[jax.Array, Any, Transition], tuple[Any, Metrics]]
    explore: Explore
    metrics: tuple[str, ...]
    observe: Callable[[Any, jax.Array], Any] = no_statistics
    log_probs: Callable[[Any, jax.Array], jax.Array] | None = None


@dataclass(frozen=True)
class AgentKind:
    """A kind of agent: all that the layers above need to know about it.

    Attributes:
        name: for the command line, presets and `config.json`.
        Config: the class of its settings.
        action_spaces: the classes of action spaces that it acts in.
        experience: `(config) -> OnlineExperience`; what its updates are fed with.
        make: `(config, spec, num_updates) -> Agent`, for training environments like `spec`, whose continuous actions
            are in [−1, 1]. `num_updates` is that of the whole run, for schedules. Raises `InputError` where settings
            contradict each other or do not fit the environment.
        loop_defaults: the loop's settings where neither a preset nor the user says otherwise.
        check: `(config, num_envs) -> None`; raises `InputError` where they do not fit. By default all do.
    """

    name: str
    Config: type[AgentConfig]
    action_spaces: tuple[type[Box] | type[Discrete], ...]
    experience: Callable[[Any], OnlineExperience]
    make: Callable[[Any, EnvSpec, int], Agent]
    loop_defaults: Mapping[str, Any] = field(default_factory=dict)
    check: Callable[[Any, int], None] = lambda config, num_envs: None

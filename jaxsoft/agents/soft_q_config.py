"""The settings that every Soft Q(λ) agent has, and their checks against each other and against the environment."""

from __future__ import annotations

import math
from typing import Literal

from flax import struct
from jax.core import Tracer

from jaxsoft.agents.references import Reference
from jaxsoft.errors import InputError
from jaxsoft.nn.networks import ActivationName, Network
from jaxsoft.ops.traces import TraceFunction, TraceName
from jaxsoft.types import AgentConfig

Trace = TraceName | TraceFunction
"""The setting: a trace coefficient's name, or in Python a function, see `jaxsoft.ops.trace_coefficients`."""


@struct.dataclass
class SoftQConfig(AgentConfig):
    """Settings that every Soft Q(λ) agent has.

    Attributes:
        learning_rate: step size of the Q-function.
        discount: γ, the weight of the next step's value.
        lambda_: λ, from 0 (one-step targets) to 1 (targets reach as far as the trace coefficients allow).
        trace: trace coefficient: tree_backup, retrace, importance_sampling, uncorrected, watkins, or in Python a
            function.
        temperature: τ, the price of a nat of divergence from the reference, in units of reward.
        final_temperature: last value of a scheduled τ, which falls geometrically.
        target_entropy: entropy in nats that τ is adapted to keep.
        target_kl: divergence from the reference in nats that τ is adapted to keep.
        temperature_learning_rate: Adam's step size for log τ, where it is adapted.
        exploration: ε, share of `exploration_policy` in the actions taken in training; `uniform` also takes actions
            that the reference forbids.
        final_exploration: last value of a scheduled ε, which falls linearly.
        exploration_policy: ρ, uniform or reference.
        decay_fraction: share of the training at which the schedules of τ and ε end.
        reference: π0: uniform, average (of the agent itself), logits (comma-separated), or an earlier run's directory.
        reference_polyak: share of the old average kept at every update, for the reference `average`.
        normalise_obs: bring observations to mean 0 and variance 1 by running statistics.
        hidden_sizes: widths of the hidden layers; none: a linear function.
        activation: after the hidden layers.
        network: hidden layers of one's own in their place, a Flax module or a function that makes one; Python only.
        channels: of the 3 × 3 convolutions before them, where observations are images.
    """

    learning_rate: float = 5e-4
    lambda_: float = 0.9
    trace: Trace = struct.field(pytree_node=False, default="retrace")
    temperature: float = 0.1
    final_temperature: float | None = None
    target_entropy: float | None = None
    target_kl: float | None = None
    temperature_learning_rate: float = 1e-3
    exploration: float = 0.0
    final_exploration: float | None = None
    exploration_policy: Literal["uniform", "reference"] = struct.field(pytree_node=False, default="uniform")
    decay_fraction: float = 0.5
    reference: Reference = struct.field(pytree_node=False, default="uniform")
    reference_polyak: float = 0.99
    normalise_obs: bool = struct.field(pytree_node=False, default=False)
    hidden_sizes: tuple[int, ...] = struct.field(pytree_node=False, default=(128, 128))
    channels: tuple[int, ...] = struct.field(pytree_node=False, default=(16,))
    activation: ActivationName = struct.field(pytree_node=False, default="relu")
    network: Network = struct.field(pytree_node=False, default=None)


def check_targets(config: SoftQConfig, num_actions: int) -> None:
    """Refuses two ways to set τ at once, and targets that no policy has: they would drive τ for ever.

    Raises:
        InputError: names the settings.
    """
    names = ("final_temperature", "target_entropy", "target_kl")
    given = [name for name in names if getattr(config, name) is not None]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} are both given; the temperature can follow only one of them")
    largest = math.log(num_actions)
    for name in ("target_entropy", "target_kl"):
        target = getattr(config, name)
        if target is not None and not isinstance(target, Tracer) and not 0 < target < largest:
            raise InputError(f"{name} is {target}; with {num_actions} actions it must be between 0 and {largest:.4g}")

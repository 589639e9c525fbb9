"""Deep Deterministic Policy Gradient: TD3 without its three additions (twins, smoothing, delay).

One update on a batch of transitions, in this order; π̄ and Q̄ are the slow copies:

    y    = r + γ (1 − terminated) Q̄(s', π̄(s'))
    J_Q  = ½ E (Q(s, a) − y)²
    J_π  = −E Q(s, π(s))
    θ̄   ← polyak θ̄ + (1 − polyak) θ,             of the policy and the Q-function

While it learns it acts by clip(π(s) + N(0, σ_e²), −1, 1): independent noise instead of the paper's correlated noise,
which TD3's authors found no better. As in `td3` there is no density: log-probabilities are None.

Source: Lillicrap et al. 2016, "Continuous control with deep reinforcement learning", arXiv:1509.02971.
"""

from __future__ import annotations

import dataclasses

from flax import struct

from jaxsoft.agents import td3
from jaxsoft.agents.actor_critic import ActorCriticConfig, replay_batches
from jaxsoft.types import Agent, AgentKind, Box, EnvSpec


@struct.dataclass
class Config(ActorCriticConfig):
    """Settings of DDPG. Actions are in [−1, 1]; so are the units of their noise.

    Attributes:
        exploration_noise: σ_e, standard deviation of the noise on the actions taken in training.
    """

    exploration_noise: float = 0.1


def make(config: Config, spec: EnvSpec, num_updates: int) -> Agent:
    """Builds DDPG for a `Box` of shape [action_dim] in [−1, 1]."""
    return td3.make(td3_config(config), spec, num_updates)


def td3_config(config: Config) -> td3.Config:
    """The settings at which TD3 is DDPG."""
    shared = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}  # type: ignore[arg-type]
    return td3.Config(**shared, target_noise=0.0, policy_delay=1, num_critics=1)


KIND = AgentKind("ddpg", Config, (Box,), replay_batches, make)

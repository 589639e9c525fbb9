"""Soft Actor-Critic for discrete actions: SAC whose expectations over actions are exact sums.

One update on a batch of transitions, in this order:

    y    = r + γ (1 − terminated) Σ_a π(a|s') [min_i Q_θ̄i(s', a) − τ log π(a|s')]
    J_Q  = ½ Σ_i E (Q_θi(s, a) − y)²
    J_π  = E Σ_a π(a|s) [τ log π(a|s) − min_i Q_θi(s, a)]
    J_τ  = τ E (H[π(·|s)] − H̄)
    θ̄   ← polyak θ̄ + (1 − polyak) θ

H̄ is a share of log |A|, the entropy of the uniform policy. The paper's 0.98 keeps policies all but uniform wherever
one action is best; the share is a setting, and lower here. Images pass through convolutions, as in `soft_q`.

Source: Christodoulou 2019, "Soft actor-critic for discrete action settings", arXiv:1910.07207.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxsoft.agents import sac
from jaxsoft.agents.sac import NUM_CRITICS, Networks
from jaxsoft.nn.distributions import Categorical
from jaxsoft.nn.networks import DiscreteQFunction, action_value, check_channels, check_network, ensemble, make_layers
from jaxsoft.ops.reductions import log_softmax_last, sum_last
from jaxsoft.types import Agent, AgentKind, Discrete, EnvSpec


@struct.dataclass
class Config(sac.Config):
    """Settings of discrete SAC: SAC's, with another target of the entropy.

    Attributes:
        target_entropy: H̄ in nats; by default `target_entropy_share` of log |A|.
        target_entropy_share: H̄ as a share of the largest entropy, log |A|.
        channels: of the 3 × 3 convolutions before the hidden layers, where observations are images.
    """

    target_entropy_share: float = 0.3
    channels: tuple[int, ...] = struct.field(pytree_node=False, default=(16,))


def make(config: Config, spec: EnvSpec, num_updates: int) -> Agent:
    """Builds discrete SAC for `Discrete` actions.

    Raises:
        InputError: a λ without sequences to use it on.
    """
    check_network(config.network, spec.obs_shape)
    check_channels(config.channels if config.hidden_sizes and config.network is None else (), spec)
    num_actions: int = spec.action_space.num_actions  # type: ignore[union-attr]
    sizes = config.channels, len(spec.obs_shape)
    actor = DiscreteQFunction(num_actions, make_layers(config), *sizes)
    critic = ensemble(DiscreteQFunction, NUM_CRITICS)(num_actions, make_layers(config), *sizes)
    networks = make_networks(actor, critic)

    def init(key: jax.Array) -> tuple[Any, Any]:
        actor_key, critic_key = jax.random.split(key)
        obs = jnp.zeros((1, *spec.obs_shape))
        return actor.init(actor_key, obs), critic.init(critic_key, obs)

    largest = math.log(num_actions)
    target_entropy = config.target_entropy_share * largest if config.target_entropy is None else config.target_entropy
    return sac.assemble(config, spec, networks, init, target_entropy)


def make_networks(actor: DiscreteQFunction, critic: Any) -> Networks:
    """SAC's networks from two that give a number per action: the policy's logits, and the twins' Q [2, ..., A]."""

    def policy(actor_params: Any, obs: jax.Array) -> Categorical:
        return Categorical(log_softmax_last(actor.apply(actor_params, obs)))  # type: ignore[arg-type]

    def q_values(critic_params: Any, obs: jax.Array, action: jax.Array) -> jax.Array:
        return action_value(critic.apply(critic_params, obs), action)

    def policy_and_q(
        key: jax.Array, actor_params: Any, critic_params: Any, obs: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        log_probs = policy(actor_params, obs).log_probs
        q = critic.apply(critic_params, obs).min(axis=0)
        return tuple(sum_last(jnp.exp(log_probs) * x) for x in (q, log_probs))  # type: ignore[return-value]

    return Networks(policy, q_values, policy_and_q)


KIND = AgentKind("sac_discrete", Config, (Discrete,), sac.experience, make)

"""Proximal Policy Optimisation, for continuous and discrete actions: the baseline without maximum entropy.

One update on a rollout of T steps, by the policy and the value function that made it:

    G_t  = r_t + γ_t [ V(s_{t+1}) + λ c_{t+1} (G_{t+1} − V(s_{t+1})) ],    γ_t = γ (1 − terminated_t)
    A_t  = G_t − V(s_t) = Σ_{k≥0} (Π_{i=1..k} γ λ c_{t+i}) δ_{t+k}         generalised advantage estimation

c is 1 within an episode and 0 from one to the next. So a time limit bootstraps from the true successor's value, a
terminal does not, and neither lets the trace pass. Then some epochs of minibatches, A brought to mean 0 and variance 1
in each, ρ = π(a|s) / π_old(a|s):

    J_π  = −E min(ρ A, clip(ρ, 1 − ε, 1 + ε) A)
    J_V  = ½ E (V(s) − G)²
    J    = J_π + w_V J_V − w_H E H[π(·|s)],    its gradient shortened to `max_grad_norm`

Continuous actions are those of SAC, a = tanh(u) with Gaussian u, but for a standard deviation that is the same in all
states. In ρ the tanh cancels: it is the ratio of the two Gaussians at the u that was drawn, which is stored beside the
action. Only in the entropy, an estimate by one draw, does tanh matter.

Source: Schulman et al. 2017, "Proximal policy optimization algorithms", arXiv:1707.06347; the advantages: Schulman et
al. 2016, arXiv:1506.02438; the details, which decide: Engstrom et al. 2020, arXiv:2005.12729.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxsoft.agents.actor_critic import init_statistics, lambda_returns, make_agent, stored_log_prob
from jaxsoft.agents.gradients import clip_by_norm, descend
from jaxsoft.agents.minibatches import (
    flatten_rollout,
    minibatch_indices,
    rollouts,
    scan_mean,
    step_sizes,
    take_minibatch,
)
from jaxsoft.errors import InputError
from jaxsoft.nn import normalisation
from jaxsoft.nn.distributions import Categorical, TanhNormal
from jaxsoft.nn.networks import (
    ActivationName,
    ConstantNoisePolicy,
    Network,
    OrthogonalMLP,
    check_channels,
    check_network,
    make_layers,
)
from jaxsoft.ops.averages import clamp, least
from jaxsoft.ops.reductions import log_softmax_last
from jaxsoft.types import Agent, AgentConfig, AgentKind, Box, Discrete, EnvSpec, Metrics, Transition

METRICS = ("policy_loss", "kl", "clip_fraction", "value_loss", "value_mean", "entropy")
"""Names of an update's metrics."""

ADAM_EPSILON = 1e-5
"""As in the implementations that reproduce the paper's results; Adam's default is 1e-8."""

SMALLEST_DEVIATION = 1e-8
"""Added to the standard deviation of the advantages before they are divided by it."""


@struct.dataclass
class Config(AgentConfig):
    """Settings of PPO.

    Attributes:
        learning_rate: Adam's step size, for both networks; of its first step, where it decays.
        lambda_: λ of the advantages, from 0 (one step, biased) to 1 (as long as the rollout, noisy).
        clip_range: ε, how far ρ may leave 1 before an improvement no longer counts.
        entropy_weight: w_H, the worth of a nat of entropy, in standard deviations of the advantage.
        value_weight: w_V, of the value function's loss; it matters only for the common length of the gradients.
        max_grad_norm: gradients longer than this, of both networks together, are shortened to it.
        rollout_length: T, steps of every environment between updates.
        noise_repeat: steps for which the random numbers that choose actions are kept, within a rollout. Actions that
            persist reach further; their probabilities are taken as those of each step by itself.
        num_epochs: passes over a rollout.
        num_minibatches: gradient steps in one pass.
        decay_learning_rate: let the step size fall linearly to 0 over the training.
        normalise_obs: bring observations to mean 0 and variance 1 by running statistics.
        hidden_sizes: widths of the hidden layers, of both networks alike.
        activation: after the hidden layers.
        network: hidden layers of one's own in their place, a Flax module or a function that makes one; Python only.
        channels: of the 3 × 3 convolutions before them, where observations are images.
    """

    lambda_: float = 0.95
    clip_range: float = 0.2
    entropy_weight: float = 0.0
    value_weight: float = 0.5
    max_grad_norm: float = 0.5
    rollout_length: int = struct.field(pytree_node=False, default=128)
    noise_repeat: int = struct.field(pytree_node=False, default=1)
    num_epochs: int = struct.field(pytree_node=False, default=10)
    num_minibatches: int = struct.field(pytree_node=False, default=32)
    decay_learning_rate: bool = struct.field(pytree_node=False, default=True)
    normalise_obs: bool = struct.field(pytree_node=False, default=True)
    hidden_sizes: tuple[int, ...] = struct.field(pytree_node=False, default=(64, 64))
    channels: tuple[int, ...] = struct.field(pytree_node=False, default=(16,))
    activation: ActivationName = struct.field(pytree_node=False, default="tanh")
    network: Network = struct.field(pytree_node=False, default=None)


@struct.dataclass
class Params:
    """Parameters of both networks; the gradients have the same form."""

    policy: Any
    value: Any


@struct.dataclass
class State:
    """Everything PPO learns.

    Attributes:
        params: of policy and value function.
        opt_state: Adam's moments.
        obs_statistics: of the observations, where they are normalised; else None.
    """

    params: Params
    opt_state: optax.OptState
    obs_statistics: normalisation.Statistics | None = None


class Networks(NamedTuple):
    """PPO's networks, as functions of parameters and observations. Kinds of actions differ only here.

    Attributes:
        policy: `(policy_params, obs [..., *obs_shape]) -> TanhNormal` over [..., action_dim], or `Categorical`.
        value: `(value_params, obs) -> [...]`.
    """

    policy: Callable[[Any, jax.Array], TanhNormal | Categorical]
    value: Callable[[Any, jax.Array], jax.Array]


class Samples(NamedTuple):
    """The losses' data of each step.

    Attributes:
        obs: [B, *obs_shape], as the networks see it.
        action: [B, *action_shape].
        log_prob: [B], log π_old(a|s).
        advantage: [B], A.
        target: [B], G.
        pre_tanh: [B, action_dim], u of continuous actions, where it is known.
    """

    obs: jax.Array
    action: jax.Array
    log_prob: jax.Array
    advantage: jax.Array
    target: jax.Array
    pre_tanh: jax.Array | None = None


def make(config: Config, spec: EnvSpec, num_updates: int) -> Agent:
    """Builds PPO for `Discrete` actions, or a `Box` of shape [action_dim] in [−1, 1]; the decay spans `num_updates`."""
    check_network(config.network, spec.obs_shape)
    check_channels(config.channels if config.network is None else (), spec)
    space, sizes = spec.action_space, (config.channels, len(spec.obs_shape))
    is_discrete = isinstance(space, Discrete)
    num_scores = space.num_actions if is_discrete else space.shape[0]
    scores = OrthogonalMLP(num_scores, make_layers(config), *sizes, final_gain=0.01)
    policy = scores if is_discrete else ConstantNoisePolicy(scores)
    value = OrthogonalMLP(1, make_layers(config), *sizes, final_gain=1.0)
    networks = make_networks(policy, value)
    optimiser = make_optimiser(config, num_updates)

    def init(key: jax.Array) -> State:
        policy_key, value_key = jax.random.split(key)
        obs = jnp.zeros((1, *spec.obs_shape))
        params = Params(policy.init(policy_key, obs), value.init(value_key, obs))
        return State(params, optimiser.init(params), init_statistics(config, spec))  # type: ignore[arg-type]

    update = partial(_update, config=config, networks=networks, optimiser=optimiser)
    return make_agent(spec, init, lambda state, obs: networks.policy(state.params.policy, obs), update, METRICS)


def make_optimiser(config: Config, num_updates: int) -> optax.GradientTransformation:
    """Adam on gradients of bounded length."""
    adam = optax.adam(step_sizes(config, num_updates), eps=ADAM_EPSILON)
    return optax.chain(clip_by_norm(config.max_grad_norm), adam)


def make_networks(policy: OrthogonalMLP | ConstantNoisePolicy, value: OrthogonalMLP) -> Networks:
    """The modules as functions; where the policy's gives a number per action, these are logits."""

    def distribution(params: Any, obs: jax.Array) -> TanhNormal | Categorical:
        output: Any = policy.apply(params, obs)
        return output if isinstance(output, TanhNormal) else Categorical(log_softmax_last(output))

    def state_value(params: Any, obs: jax.Array) -> jax.Array:
        output: Any = value.apply(params, obs)
        return output.squeeze(-1)

    return Networks(distribution, state_value)


def rollout_targets(batch: Transition, next_value: jax.Array, config: Config) -> jax.Array:
    """G of a rollout [T, num_envs, ...], from V of its true successors [T, num_envs]; see the first equation above."""
    next_value = jnp.where(batch.terminated, 0.0, next_value)
    return lambda_returns(batch, next_value, next_value, 1.0, discount=config.discount, lambda_=config.lambda_)


def policy_loss(log_prob: jax.Array, samples: Samples, clip_range: float | jax.Array) -> tuple[jax.Array, Metrics]:
    """J_π for log π(a|s) `log_prob` [B], and of each sample its loss and measures of the distance between π and π_old.

    `kl` estimates KL[π_old ‖ π] by E[ρ − 1 − log ρ], whose terms are never negative; `clip_fraction` is the share of
    the samples whose ρ is out of the range.
    """
    log_ratio = log_prob - samples.log_prob
    ratio = jnp.exp(log_ratio)
    centred = samples.advantage - jnp.mean(samples.advantage)
    advantage = centred / (jnp.std(samples.advantage) + SMALLEST_DEVIATION)
    clipped = clamp(ratio, 1 - clip_range, 1 + clip_range)
    losses = -least([ratio * advantage, clipped * advantage])
    is_clipped = (jnp.abs(ratio - 1) > clip_range).astype(losses.dtype)
    return jnp.mean(losses), {"policy_loss": losses, "kl": ratio - 1 - log_ratio, "clip_fraction": is_clipped}


def loss(
    params: Params, key: jax.Array, networks: Networks, samples: Samples, config: Config
) -> tuple[jax.Array, Metrics]:
    """J on a minibatch, and metrics, whose means are one kernel; the key draws the entropy's estimate."""
    distribution, value = networks.policy(params.policy, samples.obs), networks.value(params.value, samples.obs)
    log_prob = stored_log_prob(distribution, samples.action, samples.pre_tanh)
    j_policy, measured = policy_loss(log_prob, samples, config.clip_range)
    value_losses, entropy = 0.5 * (value - samples.target) ** 2, distribution.entropy(key)
    total = j_policy + config.value_weight * jnp.mean(value_losses) - config.entropy_weight * jnp.mean(entropy)
    measured |= {"value_loss": value_losses, "value_mean": value, "entropy": jnp.broadcast_to(entropy, value.shape)}
    means = jnp.mean(jnp.stack(list(measured.values())), axis=1)
    return total, dict(zip(measured, means, strict=True))


def _update(
    key: jax.Array,
    state: State,
    batch: Transition,
    config: Config,
    networks: Networks,
    optimiser: optax.GradientTransformation,
) -> tuple[State, Metrics]:
    """Advantages and targets once, then gradient steps on shuffled minibatches of the rollout."""
    shuffle_key, entropy_key = jax.random.split(key)
    value, next_value = (networks.value(state.params.value, obs) for obs in (batch.obs, batch.next_obs))
    targets = rollout_targets(batch, next_value, config)
    assert batch.log_prob is not None
    samples = flatten_rollout(
        Samples(batch.obs, batch.action, batch.log_prob, targets - value, targets, batch.pre_tanh)
    )

    def step(
        carry: tuple[Params, optax.OptState], inputs: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[Params, optax.OptState], Metrics]:
        indices, key = inputs
        minibatch = take_minibatch(samples, indices)
        params, opt_state, metrics = descend(optimiser, loss, *carry, key, networks, minibatch, config)
        return (params, opt_state), metrics

    indices = minibatch_indices(shuffle_key, targets.size, config.num_epochs, config.num_minibatches)
    keys = jax.random.split(entropy_key, len(indices))
    carry = state.params, state.opt_state
    (params, opt_state), metrics = scan_mean(step, carry, (indices, keys), METRICS)
    return replace(state, params=params, opt_state=opt_state), metrics


def check(config: Config, num_envs: int) -> None:
    """Raises an `InputError` where a minibatch would have one advantage."""
    if config.rollout_length * num_envs == config.num_minibatches:
        raise InputError(
            f"num_minibatches is {config.num_minibatches}; it must be less than rollout_length × num_envs: an "
            "advantage by itself, brought to mean 0, teaches nothing"
        )


KIND = AgentKind(
    "ppo",
    Config,
    (Box, Discrete),
    rollouts,
    make,
    loop_defaults={"num_envs": 16, "total_timesteps": 1_000_000, "eval_every": 50_000, "scale_rewards": True},
    check=check,
)

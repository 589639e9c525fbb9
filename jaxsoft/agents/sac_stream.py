"""Streaming Soft Actor-Critic: one environment step, one update; traces on actor and critic, no replay, no batch.

The critic is the soft value, V(s) = E_π Σ_k γ^k (r_{t+k} − τ log π(a_{t+k}|s_{t+k})). After every step:

    δ   = r_t − τ log π_θ(a_t|s_t) + γ_t V_w(s_{t+1}) − V_w(s_t)
    e_w ← γ λ c e_w + ∇_w V_w(s_t),               w ← w + α_w δ e_w          c = 0 where an episode begins, else 1
    e_θ ← γ λ c e_θ + ∇_θ log π_θ(a_t|s_t),       θ ← θ + α_θ δ e_θ
    J_τ = −τ (log π(a_t|s_t) + H̄)                                            descended with Adam, if H̄ is given

α_w and α_θ are bounded as by `obgd` in `jaxsoft.agents.step_sizes`, each with its κ.

The penalty is that of the action taken. It was drawn from π, so E δ = 0 for all states if and only if V is the soft
value of π. The entropy needs no gradient of its own. With r̃ = r − τ log π_θ and J = E Σ γ^t r̃_t,

    ∇J = E Σ_t γ^t [ ∇log π(a_t|s_t) Σ_{k≥t} γ^{k−t} r̃_k + ∇r̃_t ],    E_a ∇r̃_t = −τ E_a ∇log π(a|s_t) = 0

and the first term contains the gradient of the present entropy: E_a ∇log π (−τ log π) = τ ∇H[π(·|s)]. An entropy
bonus, as in stream AC(λ), would count it twice. The sampled penalty has less variance near the optimum, too: there, in
a deterministic task, δ = 0 for every action.

With κ > 0 steps along long traces are shortened more than others, so their mean is no gradient of J; such an optimum
remains a fixed point. As in all traces without γ^t, states count alike, however late in an episode they come.

Source: Elsayed et al. 2024, "Streaming deep reinforcement learning finally works", arXiv:2410.14606 (stream AC(λ): its
networks, normalisation and step size); Haarnoja et al. 2018b, arXiv:1812.05905 (policy and temperature).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxsoft.agents import streaming
from jaxsoft.agents.actor_critic import init_statistics, make_agent, one_step_targets, stored_log_prob
from jaxsoft.agents.gradients import descend
from jaxsoft.agents.sac import mean_temperature_loss
from jaxsoft.agents.step_sizes import StepSize, bounded_move
from jaxsoft.nn import normalisation
from jaxsoft.nn.distributions import TanhNormal
from jaxsoft.nn.layers import sparse_initializer
from jaxsoft.nn.networks import ActivationName, DiscreteQFunction, Network, check_network, make_layers, tanh_normal
from jaxsoft.types import Agent, AgentConfig, AgentKind, Box, EnvSpec, Metrics, Transition

Policy = Callable[[Any, jax.Array], TanhNormal]
StateValue = Callable[[Any, jax.Array], jax.Array]

METRICS = ("value_loss", "value_mean", "step_size", "actor_step_size", "entropy", "temperature")
"""Names of an update's metrics."""


@struct.dataclass
class Config(AgentConfig):
    """Settings of streaming SAC.

    The bounds are those of Elsayed et al.; wide networks on scaled rewards, whose |δ| is far below 1, learn faster with
    a tenth of them.

    Attributes:
        learning_rate: α, the largest step size of both functions; the bounds may make a step smaller.
        lambda_: λ of both traces, from 0 (one step) to 1 (traces fade by γ alone).
        overshoot_bound: κ of the value function, the bound on its step size; 0: no bound.
        actor_overshoot_bound: κ of the policy.
        temperature: τ, the price of entropy; where it is adapted, its first value.
        target_entropy: H̄, entropy in nats that τ is adapted to keep; None: τ is fixed.
        temperature_learning_rate: Adam's step size for log τ, where it is adapted.
        sparsity: share of every unit's incoming weights that begin at 0.
        normalise_obs: bring observations to mean 0 and variance 1 by running statistics.
        hidden_sizes: widths of the hidden layers, of both networks alike; none: linear functions.
        activation: after the hidden layers.
        network: hidden layers of one's own in their place, a Flax module or a function that makes one; Python only.
    """

    learning_rate: float = 1.0
    lambda_: float = 0.8
    overshoot_bound: float = 2.0
    actor_overshoot_bound: float = 3.0
    temperature: float = 0.01
    target_entropy: float | None = None
    temperature_learning_rate: float = 1e-4
    sparsity: float = struct.field(pytree_node=False, default=0.9)
    normalise_obs: bool = struct.field(pytree_node=False, default=True)
    hidden_sizes: tuple[int, ...] = struct.field(pytree_node=False, default=(64, 64))
    activation: ActivationName = struct.field(pytree_node=False, default="leaky_relu")
    network: Network = struct.field(pytree_node=False, default=None)


@struct.dataclass
class State:
    """Everything streaming SAC learns.

    Attributes:
        actor_params: θ, of the policy.
        value_params: w, of the value function.
        actor_trace: e_θ, like the parameters.
        value_trace: e_w, likewise.
        continues: [], whether the next step belongs to the same episode as the traces.
        log_temperature: [], log τ.
        temperature_opt_state: Adam's.
        obs_statistics: of the observations, where they are normalised; else None.
    """

    actor_params: Any
    value_params: Any
    actor_trace: Any
    value_trace: Any
    continues: jax.Array
    log_temperature: jax.Array
    temperature_opt_state: optax.OptState
    obs_statistics: normalisation.Statistics | None = None


def make(config: Config, spec: EnvSpec, num_updates: int) -> Agent:
    """Builds the agent for a `Box` of shape [action_dim] in [−1, 1]."""
    check_network(config.network, spec.obs_shape)
    (action_dim,) = spec.action_space.shape

    def module(num_outputs: int) -> DiscreteQFunction:
        sparse = sparse_initializer(config.sparsity)
        return DiscreteQFunction(num_outputs, make_layers(config), (), len(spec.obs_shape), sparse, learned_scale=False)

    actor, critic = module(2 * action_dim), module(1)

    def policy(params: Any, obs: jax.Array) -> TanhNormal:
        return tanh_normal(actor.apply(params, obs))  # type: ignore[arg-type]

    def state_value(params: Any, obs: jax.Array) -> jax.Array:
        return critic.apply(params, obs).squeeze(-1)  # type: ignore[union-attr]

    def init(key: jax.Array) -> State:
        keys, obs = jax.random.split(key), jnp.zeros(spec.obs_shape)
        actor_params, value_params = actor.init(keys[0], obs), critic.init(keys[1], obs)
        log_temperature = jnp.log(jnp.asarray(config.temperature, jnp.float32))
        return State(
            actor_params=actor_params,
            value_params=value_params,
            actor_trace=jax.tree.map(jnp.zeros_like, actor_params),
            value_trace=jax.tree.map(jnp.zeros_like, value_params),
            continues=jnp.zeros((), bool),
            log_temperature=log_temperature,
            temperature_opt_state=optax.adam(config.temperature_learning_rate).init(log_temperature),
            obs_statistics=init_statistics(config, spec),
        )

    update = partial(_update, config=config, policy=policy, state_value=state_value)
    return make_agent(spec, init, lambda state, obs: policy(state.actor_params, obs), update, METRICS)


def _update(
    key: jax.Array, state: State, batch: Transition, config: Config, policy: Policy, state_value: StateValue
) -> tuple[State, Metrics]:
    """One step of critic, actor and temperature on one transition: a batch [1, 1, ...]."""
    # The policy and V(s_t) of a batch of one, as when the action was chosen: it is then evaluated once for both.
    step = jax.tree.map(lambda x: x[0], batch)
    tau = jnp.exp(state.log_temperature)

    def log_prob_of(params: Any) -> jax.Array:
        return stored_log_prob(policy(params, step.obs), step.action, step.pre_tanh)[0]

    log_prob, score = jax.value_and_grad(log_prob_of)(state.actor_params)
    value, slope = jax.value_and_grad(lambda params: state_value(params, step.obs)[0])(state.value_params)
    target = one_step_targets(step, state_value(state.value_params, step.next_obs), config.discount)[0]
    td_error = target - tau * log_prob - value

    decay = config.discount, config.lambda_, state.continues

    def follow(params: Any, trace: Any, gradient: Any, bound: float | jax.Array) -> tuple[Any, Any, jax.Array]:
        trace = streaming.extend(trace, gradient, *decay)
        move = bounded_move(StepSize(config.learning_rate, bound), td_error, trace)
        return streaming.follow(params, move), trace, move.step_size

    value_params, value_trace, step_size = follow(state.value_params, state.value_trace, slope, config.overshoot_bound)
    actor_params, actor_trace, actor_step_size = follow(
        state.actor_params, state.actor_trace, score, config.actor_overshoot_bound
    )

    log_temperature, opt_state = state.log_temperature, state.temperature_opt_state
    if config.target_entropy is not None:
        adam = optax.adam(config.temperature_learning_rate)
        log_temperature, opt_state, _ = descend(
            adam, mean_temperature_loss, log_temperature, opt_state, log_prob[None], config.target_entropy
        )

    measured = 0.5 * td_error**2, value, step_size, actor_step_size, -log_prob, jnp.exp(log_temperature)
    continues = ~(step.terminated | step.truncated)[0]  # type: ignore[operator]
    learned = actor_params, value_params, actor_trace, value_trace
    state = State(*learned, continues, log_temperature, opt_state, state.obs_statistics)
    return state, dict(zip(METRICS, measured, strict=True))


KIND = AgentKind(
    "sac_stream",
    Config,
    (Box,),
    streaming.experience,
    make,
    loop_defaults={"total_timesteps": 1_000_000, "eval_every": 50_000, "scale_rewards": True},
    check=partial(streaming.check, "sac_stream"),
)

"""Truly online Soft Q(λ): one environment step, one update; eligibility traces, no replay, no batch, no target network.

After every step:

    e ← γ λ c_t e + ∇_w Q_w(s_t, a_t)                         c_t by the present Q; the trace of a new episode is 0
    δ = r_t + γ_t V(s_{t+1}) − Q_w(s_t, a_t)
    w ← w + α' δ e                                            α' by a rule, see `jaxsoft.agents.step_sizes`

With `obgd`, κ = 0 and a linear Q of one-hot observations this is the tabular backward view. Thousands of such agents
under a `vmap` are one program.

Source: Mahajan & Seymour 2026, "Soft Q(λ)", arXiv:2604.13780 (traces); Elsayed et al. 2024, "Streaming deep
reinforcement learning finally works", arXiv:2410.14606 (step size, sparse initialisation, normalisation).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxsoft.agents import boltzmann, streaming
from jaxsoft.agents.boltzmann import Boltzmann, PolicyState
from jaxsoft.agents.soft_q import METRICS, policy_metrics
from jaxsoft.agents.soft_q_config import SoftQConfig
from jaxsoft.agents.step_sizes import RULES, Rule, Step, StepSize, StepSizeRule
from jaxsoft.nn.layers import sparse_initializer
from jaxsoft.nn.networks import ActivationName, action_value
from jaxsoft.nn.normalisation import features
from jaxsoft.ops import boltzmann_policy, soft_value, trace_coefficients
from jaxsoft.ops.reductions import max_last, take_last
from jaxsoft.types import Agent, AgentKind, Discrete, EnvSpec, Metrics, Transition


@struct.dataclass
class Config(SoftQConfig):
    """Settings of streaming Soft Q(λ).

    Attributes:
        learning_rate: α, the largest step size of obgd; of intentional, the share of the TD error that a step is meant
            to correct, for which 1 is much: its authors have 0.25 to 0.5.
        lambda_: λ, from 0 (one step) to 1 (traces fade by γ and their coefficients alone).
        step_size_rule: obgd, or intentional: see `jaxsoft.agents.step_sizes`.
        overshoot_bound: κ, obgd's bound on the step size; 0: no bound.
        sparsity: share of every unit's incoming weights that begin at 0.
        normalise_obs: bring observations to mean 0 and variance 1 by running statistics.
        hidden_sizes: widths of the hidden layers; none: a linear function.
    """

    learning_rate: float = 1.0
    lambda_: float = 0.8
    step_size_rule: StepSizeRule = struct.field(pytree_node=False, default="obgd")
    overshoot_bound: float = 2.0
    sparsity: float = struct.field(pytree_node=False, default=0.9)
    normalise_obs: bool = struct.field(pytree_node=False, default=True)
    hidden_sizes: tuple[int, ...] = struct.field(pytree_node=False, default=(64, 64))
    activation: ActivationName = struct.field(pytree_node=False, default="leaky_relu")


@struct.dataclass
class State:
    """Everything the agent learns.

    Attributes:
        policy: the Q-function's parameters, and all else that acting needs.
        trace: e, like the parameters.
        continues: [], bool; whether the next step belongs to the same episode as the trace.
        memory: the step-size rule's.
    """

    policy: PolicyState
    trace: Any
    continues: jax.Array
    memory: Any = ()


def make(config: Config, spec: EnvSpec, num_updates: int, rule: Rule | None = None) -> Agent:
    """Builds the agent for one environment with `Discrete` actions; the schedules span `num_updates`.

    `rule` is a step-size rule of one's own in place of the one that is named in `config`.
    """
    sparse = sparse_initializer(config.sparsity)
    network = boltzmann.q_function(config, spec, kernel_init=sparse, learned_scale=False)
    policy = boltzmann.make_boltzmann(config, spec, network.apply, num_updates)  # type: ignore[arg-type]
    rule = rule or RULES[config.step_size_rule]

    def init(key: jax.Array) -> State:
        params = network.init(key, jnp.zeros(spec.obs_shape))
        no_trace, continues = jax.tree.map(jnp.zeros_like, params), jnp.zeros((), bool)
        return State(boltzmann.init(policy, params), no_trace, continues, rule.init(params))

    update = partial(_update, config=config, policy=policy, rule=rule)
    return boltzmann.make_agent(policy, init, update, (*METRICS, "step_size"))


def _update(
    key: jax.Array, state: State, batch: Transition, config: Config, policy: Boltzmann, rule: Rule
) -> tuple[State, Metrics]:
    """The backward view on one transition: a batch [1, 1, ...]."""
    row, policy_state = jax.tree.map(lambda x: x[0, 0], batch), state.policy
    tau = boltzmann.temperature(policy, policy_state)
    # q(s_t) as a batch of one, as when the action was chosen: the compiler then evaluates it once for both.
    obs, next_obs = features(policy_state, row.obs[None]), features(policy_state, row.next_obs)
    reference, next_reference = (
        boltzmann.reference_log_probs(policy, policy_state, x) for x in (row.obs, row.next_obs)
    )

    def taken_value(params: Any) -> tuple[jax.Array, jax.Array]:
        q = policy.q_values(params, obs)
        return action_value(q[0], row.action), q

    (q_a, q), gradient = jax.value_and_grad(taken_value, has_aux=True)(policy_state.params)
    # Without the barrier XLA computes Q's last product once more for each use, on accelerators.
    q, next_q = jax.lax.optimization_barrier((q, policy.q_values(policy_state.params, next_obs)))
    next_value = soft_value(next_q, next_reference, tau)
    td_error = row.reward + config.discount * jnp.where(row.terminated, 0, next_value) - q_a

    log_probs, divergence = boltzmann_policy(q, reference, tau)
    log_pi_a, log_pi_max = take_last(log_probs[0], row.action), max_last(log_probs[0])
    continued = trace_coefficients(config.trace, log_pi_a, row.log_prob, log_pi_max)
    coefficient = jnp.where(state.continues, continued, 0)
    trace = streaming.extend(state.trace, gradient, config.discount, config.lambda_, coefficient)
    number = policy_state.num_updates.astype(jnp.float32) + 1
    step = Step(gradient, trace, td_error, config.discount * config.lambda_, number)
    memory, move = rule.move(StepSize(config.learning_rate, config.overshoot_bound), state.memory, step)
    params = streaming.follow(policy_state.params, move)

    metrics = {"q_loss": 0.5 * td_error**2, "q_mean": q_a, "step_size": move.step_size}
    metrics |= policy_metrics(policy, policy_state, log_probs, divergence)
    # A flag starts the next trace: setting this one to 0 would be another pass over as much memory as the parameters.
    continues = ~(row.terminated | row.truncated)  # type: ignore[operator]
    policy_state = boltzmann.adapt_temperature(policy, policy_state, log_probs, divergence)
    return State(boltzmann.finish_update(policy, policy_state, params), trace, continues, memory), metrics


KIND = AgentKind(
    "soft_q_stream",
    Config,
    (Discrete,),
    streaming.experience,
    make,
    loop_defaults={"total_timesteps": 1_000_000, "eval_every": 50_000, "scale_rewards": True},
    check=partial(streaming.check, "soft_q_stream"),
)

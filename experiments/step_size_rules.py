"""Streaming Soft Q(λ) with published step-size rules, as an agent of one's own: `soft_q_stream` with `rule`.

Every rule takes the step's gradient g, its trace e and its TD error δ; t counts steps from 1, κ is `overshoot_bound`:

    obgd            w ← w + α' δ e,      α' = α / max(1, α κ max(|δ|, 1) ‖e‖₁)

    adaptive_obgd   v ← 0.999 v + 0.001 (δ e)²,              d = e / √(v / (1 − 0.999^t) + 1e-8)
                    w ← w + α' δ d,      α' = α / max(1, α κ max(|δ|, 1) ‖d‖₁)

    intentional     v ← 0.999 v + 0.001 g²,                  s = √(v / (1 − 0.999^t)) + 1e-8
                    n ← γλ n + (1 − γλ) Σ g²/s,              n̂ = n / (1 − (γλ)^t)
                    m ← 0.9998 m + 0.0002 δ² from m = 1,     δ' = δ within ±20 √(m / (1 − 0.9998^t))
                    w ← w + α' δ' e/s,   α' = α / max(√(n̂ Σ e²/s), 1e-8)

    adaptive_q      v ← γλ v + (1 − γλ) g²
                    w ← w + α min(max(δ, −1), 1) e / (√v + 0.1)

Without a trace (λ = 0) `intentional` moves Q(s, a) by the share α of δ', to first order.

`late_cut` cuts the trace after the update of an action that is not greedy; the trace coefficient `watkins` cuts it
before, so that earlier actions never learn from what came of that action, and that action's own gradient stays.

Sources: Elsayed et al. 2024, arXiv:2410.14606, and its authors' code, mohmdelsayed/streaming-drl (the first two, and
the late cut); Sharifnassab et al. 2026, "Intentional updates for streaming reinforcement learning", arXiv:2604.19033,
as in its authors' code, sharifnassab/Intentional_RL; Gogianu et al. 2026, "Revisiting Adam for streaming
reinforcement learning", arXiv:2605.06764, as noahfarr/stremax states it: the paper's own text was not at hand.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jaxsoft.agents import boltzmann, soft_q_stream, streaming
from jaxsoft.agents.boltzmann import Boltzmann
from jaxsoft.agents.soft_q import METRICS, policy_metrics
from jaxsoft.nn.layers import sparse_initializer
from jaxsoft.nn.networks import action_value
from jaxsoft.nn.normalisation import features
from jaxsoft.ops import accumulate_trace, boltzmann_policy, decay_trace, soft_value, trace_coefficients
from jaxsoft.ops.reductions import max_last, take_last
from jaxsoft.trees import join_floats
from jaxsoft.types import Agent, AgentKind, Discrete, EnvSpec, Metrics, Transition

RuleName = Literal["obgd", "adaptive_obgd", "intentional", "adaptive_q"]


@struct.dataclass
class Config(soft_q_stream.Config):
    """Settings of streaming Soft Q(λ), and two more.

    Attributes:
        rule: which step-size rule.
        late_cut: whether a trace ends with the update of an action that is not greedy.
    """

    rule: RuleName = struct.field(pytree_node=False, default="obgd")
    late_cut: bool = struct.field(pytree_node=False, default=False)


@struct.dataclass
class State(soft_q_stream.State):
    """Streaming Soft Q(λ)'s state, and the rule's own.

    Attributes:
        memory: the rule's moving averages.
        num_steps: [], int32, t.
    """

    memory: Any
    num_steps: jax.Array


class Step(NamedTuple):
    """What a rule is given.

    Attributes:
        gradient: g, like the parameters.
        trace: e, with g in it.
        td_error: [], δ.
        number: [], t as a float.
    """

    gradient: Any
    trace: Any
    td_error: jax.Array
    number: jax.Array


class Rule(NamedTuple):
    """A step-size rule.

    Attributes:
        init: `(params) -> memory`.
        move: `(config, memory, step) -> (memory, direction, size)`; parameters move by size × direction.
    """

    init: Callable[[Any], Any]
    move: Callable[[Config, Any, Step], tuple[Any, Any, jax.Array]]


def moving_average(decay: float | jax.Array, average: Any, x: Any) -> Any:
    """Of trees: decay × average + (1 − decay) x."""
    return jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, average, x)


def squares(tree: Any) -> Any:
    """Every number squared."""
    return jax.tree.map(jnp.square, tree)


def zeros(params: Any) -> Any:
    """A moment of each parameter before the first step."""
    return jax.tree.map(jnp.zeros_like, params)


def scaled(tree: Any, factor: jax.Array) -> Any:
    """A tree times a number."""
    return jax.tree.map(lambda x: factor * x, tree)


def bound(config: Config, td_error: jax.Array, direction: Any) -> jax.Array:
    """The step size of ObGD along a direction."""
    size = streaming.StepSize(config.learning_rate, config.overshoot_bound)
    return streaming.bounded_step_size(size, td_error, direction)


def obgd(config: Config, memory: tuple[()], step: Step) -> tuple[tuple[()], Any, jax.Array]:
    """The package's own rule."""
    return memory, scaled(step.trace, step.td_error), bound(config, step.td_error, step.trace)


def adaptive_obgd(config: Config, memory: Any, step: Step) -> tuple[Any, Any, jax.Array]:
    """ObGD along the trace in units of its own size."""
    memory = moving_average(0.999, memory, squares(scaled(step.trace, step.td_error)))
    correction = 1 - 0.999**step.number
    direction = jax.tree.map(lambda e, v: e / jnp.sqrt(v / correction + 1e-8), step.trace, memory)
    return memory, scaled(direction, step.td_error), bound(config, step.td_error, direction)


def intentional(
    config: Config, memory: tuple[Any, jax.Array, jax.Array], step: Step
) -> tuple[tuple[Any, jax.Array, jax.Array], Any, jax.Array]:
    """A step that is meant to move the values along the trace by a share of the TD error."""
    moments, energy, errors = memory
    fade, correction = config.discount * config.lambda_, 1 - 0.999**step.number
    moments = moving_average(0.999, moments, squares(step.gradient))
    scale = jax.tree.map(lambda v: jnp.sqrt(v / correction) + 1e-8, moments)

    def length(tree: Any) -> jax.Array:
        return jnp.sum(join_floats(jax.tree.map(lambda x, s: jnp.square(x) / s, tree, scale)))

    energy = moving_average(fade, energy, length(step.gradient))
    errors = moving_average(0.9998, errors, jnp.square(step.td_error))
    most = 20 * jnp.sqrt(errors / (1 - 0.9998**step.number))
    td_error = jnp.clip(step.td_error, -most, most)
    size = config.learning_rate / jnp.maximum(jnp.sqrt(energy / (1 - fade**step.number) * length(step.trace)), 1e-8)
    return (moments, energy, errors), jax.tree.map(lambda e, s: td_error * e / s, step.trace, scale), size


def adaptive_q(config: Config, memory: Any, step: Step) -> tuple[Any, Any, jax.Array]:
    """Adam's scale, of gradients as old as the trace, and a bounded TD error."""
    memory = moving_average(config.discount * config.lambda_, memory, squares(step.gradient))
    td_error = jnp.clip(step.td_error, -1, 1)
    direction = jax.tree.map(lambda e, v: td_error * e / (jnp.sqrt(v) + 0.1), step.trace, memory)
    return memory, direction, jnp.asarray(config.learning_rate, jnp.float32)


RULES: dict[str, Rule] = {
    "obgd": Rule(lambda params: (), obgd),
    "adaptive_obgd": Rule(zeros, adaptive_obgd),
    "intentional": Rule(lambda params: (zeros(params), jnp.zeros(()), jnp.ones(())), intentional),
    "adaptive_q": Rule(zeros, adaptive_q),
}


def make(config: Config, spec: EnvSpec, num_updates: int) -> Agent:
    """Builds the agent for one environment with `Discrete` actions; the schedules span `num_updates`."""
    sparse = sparse_initializer(config.sparsity)
    network = boltzmann.q_function(config, spec, kernel_init=sparse, learned_scale=False)
    policy = boltzmann.make_boltzmann(config, spec, network.apply, num_updates)  # type: ignore[arg-type]
    rule = RULES[config.rule]

    def init(key: jax.Array) -> State:
        params = network.init(key, jnp.zeros(spec.obs_shape))
        state, continues = boltzmann.init(policy, params), jnp.zeros((), bool)
        return State(state, zeros(params), continues, rule.init(params), jnp.zeros((), jnp.int32))

    update = partial(_update, config=config, policy=policy, rule=rule)
    return boltzmann.make_agent(policy, init, update, (*METRICS, "step_size"))


def _update(
    key: jax.Array, state: State, batch: Transition, config: Config, policy: Boltzmann, rule: Rule
) -> tuple[State, Metrics]:
    """The backward view on one transition, as in `soft_q_stream`."""
    step, policy_state = jax.tree.map(lambda x: x[0, 0], batch), state.policy
    tau = boltzmann.temperature(policy, policy_state)
    obs, next_obs = features(policy_state, step.obs[None]), features(policy_state, step.next_obs)
    reference, next_reference = (
        boltzmann.reference_log_probs(policy, policy_state, x) for x in (step.obs, step.next_obs)
    )

    def taken_value(params: Any) -> tuple[jax.Array, jax.Array]:
        q = policy.q_values(params, obs)
        return action_value(q[0], step.action), q

    (q_a, q), gradient = jax.value_and_grad(taken_value, has_aux=True)(policy_state.params)
    next_value = soft_value(policy.q_values(policy_state.params, next_obs), next_reference, tau)
    td_error = step.reward + config.discount * jnp.where(step.terminated, 0, next_value) - q_a

    log_probs, divergence = boltzmann_policy(q, reference, tau)
    log_pi_a, log_pi_max = take_last(log_probs[0], step.action), max_last(log_probs[0])
    continued = trace_coefficients(config.trace, log_pi_a, step.log_prob, log_pi_max)
    coefficient = jnp.where(state.continues, continued, 0)
    trace = decay_trace(state.trace, config.discount, config.lambda_, coefficient)
    trace, num_steps = accumulate_trace(trace, gradient), state.num_steps + 1
    memory, direction, size = rule.move(
        config, state.memory, Step(gradient, trace, td_error, num_steps.astype(jnp.float32))
    )
    params = jax.tree.map(lambda w, d: w + size * d, policy_state.params, direction)

    metrics = {"q_loss": 0.5 * td_error**2, "q_mean": q_a, "step_size": size}
    metrics |= policy_metrics(policy, policy_state, log_probs, divergence)
    continues = ~(step.terminated | step.truncated)  # type: ignore[operator]
    if config.late_cut:
        continues &= log_pi_a >= log_pi_max
    policy_state = boltzmann.adapt_temperature(policy, policy_state, log_probs, divergence)
    policy_state = boltzmann.finish_update(policy, policy_state, params)
    return State(policy_state, trace, continues, memory, num_steps), metrics


KIND = AgentKind(
    "soft_q_stream_rules",
    Config,
    (Discrete,),
    streaming.experience,
    make,
    loop_defaults=soft_q_stream.KIND.loop_defaults,
    check=partial(streaming.check, "soft_q_stream_rules"),
)

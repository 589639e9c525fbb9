"""More step-size rules that were published, as an agent of one's own: `soft_q_stream` with four in place of two.

`obgd` and `intentional` are the package's, see `jaxsoft.agents.step_sizes`. With the names from there:

    adaptive_obgd   v ← 0.999 v + 0.001 (δ e)²,              d = e / √(v / (1 − 0.999^t) + 1e-8)
                    w ← w + α' δ d,      α' = α / max(1, α κ max(|δ|, 1) ‖d‖₁)

    adaptive_q      v ← γλ v + (1 − γλ) g²
                    w ← w + α min(max(δ, −1), 1) e / (√v + 0.1)

`late_cut` cuts the trace after the update of an action that is not greedy; the trace coefficient `watkins` cuts it
before, so that earlier actions never learn from what came of that action, and that action's own gradient stays.

Sources: Elsayed et al. 2024, arXiv:2410.14606, and its authors' code, mohmdelsayed/streaming-drl (`adaptive_obgd` and
the late cut); Gogianu et al. 2026, "Revisiting Adam for streaming reinforcement learning", arXiv:2605.06764, as
noahfarr/stremax states it: the paper's own text was not at hand.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import struct

from jaxsoft.agents import soft_q_stream
from jaxsoft.agents.step_sizes import RULES, Move, Rule, Step, StepSize, bounded_step_size, moving_average
from jaxsoft.ops.reductions import max_last, take_last
from jaxsoft.types import Agent, EnvSpec, Metrics, Transition

RuleName = Literal["obgd", "adaptive_obgd", "intentional", "adaptive_q"]


@struct.dataclass
class Config(soft_q_stream.Config):
    """Settings of streaming Soft Q(λ), with other rules and one setting more.

    Attributes:
        step_size_rule: one of these four.
        late_cut: whether a trace ends with the update of an action that is not greedy.
    """

    step_size_rule: RuleName = struct.field(pytree_node=False, default="obgd")  # type: ignore[assignment]
    late_cut: bool = struct.field(pytree_node=False, default=False)


def zeros(params: Any) -> Any:
    """A moment of each parameter before the first step."""
    return jax.tree.map(jnp.zeros_like, params)


def adaptive_obgd(size: StepSize, memory: Any, step: Step) -> tuple[Any, Move]:
    """ObGD along the trace in units of its own size."""
    memory = moving_average(0.999, memory, jax.tree.map(lambda e: jnp.square(step.td_error * e), step.trace))
    correction = 1 - 0.999**step.number
    direction = jax.tree.map(lambda e, v: e / jnp.sqrt(v / correction + 1e-8), step.trace, memory)
    return memory, Move(direction, step.td_error, bounded_step_size(size, step.td_error, direction))


def adaptive_q(size: StepSize, memory: Any, step: Step) -> tuple[Any, Move]:
    """Adam's scale, of gradients as old as the trace, and a bounded TD error."""
    memory = moving_average(step.fading, memory, jax.tree.map(jnp.square, step.gradient))
    direction = jax.tree.map(lambda e, v: e / (jnp.sqrt(v) + 0.1), step.trace, memory)
    return memory, Move(direction, jnp.clip(step.td_error, -1, 1), jnp.asarray(size.learning_rate, jnp.float32))


OTHERS = {"adaptive_obgd": Rule(zeros, adaptive_obgd), "adaptive_q": Rule(zeros, adaptive_q)}


def make(config: Config, spec: EnvSpec, num_updates: int) -> Agent:
    """Builds the agent for one environment with `Discrete` actions; the schedules span `num_updates`."""
    agent = soft_q_stream.make(config, spec, num_updates, (RULES | OTHERS)[config.step_size_rule])
    log_probs_of = agent.log_probs
    if not config.late_cut or log_probs_of is None:
        return agent

    def update(key: jax.Array, state: soft_q_stream.State, batch: Transition) -> tuple[soft_q_stream.State, Metrics]:
        log_probs, action = log_probs_of(state, batch.obs[0, 0]), batch.action[0, 0]
        is_greedy = take_last(log_probs, action) >= max_last(log_probs)
        state, metrics = agent.update(key, state, batch)
        return replace(state, continues=state.continues & is_greedy), metrics

    return agent._replace(update=update)


KIND = replace(soft_q_stream.KIND, name="soft_q_stream_rules", Config=Config, make=make)

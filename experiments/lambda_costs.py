"""What does λ cost? `python experiments/lambda_costs.py`, or `... --chip h100`, without having one; minutes.

Programs are compiled, never run, and what they are compiled to is counted, as in `benchmarks/kernels.py`: the kernels
of one turn, the bytes that they read and write, the bytes of the state. Of each agent the turn as it is, and what its
longer returns add: the same without them is compiled beside it. Numbers go to lambda_costs.csv, a row per chip and
program; those of other chips stay. A chip's compiler is a package: `make check-accelerators` has them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from rows import read_rows, write_rows

import jaxsoft
from jaxsoft.agents import soft_q_stream, streaming
from jaxsoft.agents.step_sizes import StepSize, bounded_move
from jaxsoft.bench.chips import chips
from jaxsoft.bench.compiled import program_cost, turn_cost
from jaxsoft.bench.measure import trace
from jaxsoft.bench.workloads import Workload, find_workloads
from jaxsoft.ops import soft_q_targets, soft_value
from jaxsoft.ops.traces import TRACES
from jaxsoft.trees import bytes_of

ROWS = Path(__file__).with_suffix(".csv")
ROLLOUT, NUM_ENVS, NUM_ACTIONS = 64, 64, 2
"""Those of the workload soft-q; CartPole has two actions."""


class Cost(NamedTuple):
    """What one turn of one member runs, and how many environment steps it is."""

    chip: str
    program: str
    kernels: int
    bytes: int
    steps: int


def turn(workload: Workload, devices: Sequence[Any], **settings: Any) -> tuple[int, int, int]:
    """Kernels, bytes and environment steps of a turn of one member."""
    case = workload.make({**workload.settings, **settings}, 1, devices)
    cost = turn_cost(trace(case)[1].lower().compile().as_text() or "")
    return cost.num_kernels, cost.num_bytes, case.steps


def function(call: Callable[..., Any], device: Any, *shapes: Any) -> tuple[int, int]:
    """Kernels and bytes of a function of arrays of these shapes."""
    sharding = jax.sharding.SingleDeviceSharding(device)
    given = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes)
    cost = program_cost(jax.jit(call).lower(*given).compile().as_text() or "")
    return cost.num_kernels, cost.num_bytes


def targets(*experience: jax.Array, trace: str | None) -> jax.Array:
    """Targets of a rollout [T, N]: of one step where there is no coefficient."""
    reward, terminated, truncated, q_next, action_next, log_mu_next, lambda_ = experience
    reference, tau, discount = jnp.full(NUM_ACTIONS, -jnp.log(NUM_ACTIONS)), 1.0, 0.99
    if trace is None:
        return reward + discount * (1 - terminated) * soft_value(q_next, reference, tau)
    one = partial(soft_q_targets, discount=discount, temperature=tau, lambda_=lambda_, trace=trace)
    return jax.vmap(one, (1, 1, 1, 1, None, 1, 1), 1)(
        reward, terminated, truncated, q_next, reference, action_next, log_mu_next
    )


def without_trace(params: Any, gradient: Any, td_error: jax.Array) -> Any:
    """The streaming update at λ = 0, for which a trace need not be kept: the bound takes the gradient."""
    return streaming.follow(params, bounded_move(StepSize(1.0, 2.0), td_error, gradient))


def with_trace(params: Any, eligibility: Any, gradient: Any, td_error: jax.Array, coefficient: jax.Array) -> Any:
    eligibility = streaming.extend(eligibility, gradient, 0.99, 0.8, coefficient)
    move = bounded_move(StepSize(1.0, 2.0), td_error, eligibility)
    return streaming.follow(params, move), eligibility, move.step_size


def measure(chip: str, device: Any) -> list[Cost]:
    """All programs, compiled for one device."""
    rollouts, stream, replay = find_workloads(["soft-q", "soft-q-stream", "soft-q-replay"])
    steps = ROLLOUT * NUM_ENVS
    numbers, flags = jnp.zeros((ROLLOUT, NUM_ENVS)), jnp.zeros((ROLLOUT, NUM_ENVS), bool)
    actions, scalar = jnp.zeros((ROLLOUT, NUM_ENVS), jnp.int32), jnp.zeros(())
    experience = numbers, flags, flags, jnp.zeros((ROLLOUT, NUM_ENVS, NUM_ACTIONS)), actions, numbers, scalar
    found = [Cost(chip, "rollouts, a turn", *turn(rollouts, [device]))]
    for name in (None, *TRACES):
        counts = function(partial(targets, trace=name), device, *experience)
        found.append(Cost(chip, f"rollouts, targets, {name or 'one step'}", *counts, steps))
    agent = soft_q_stream.make(soft_q_stream.Config(), jaxsoft.make_env("gymnax/CartPole-v1").spec, 1)
    state: Any = jax.eval_shape(agent.init, jax.random.key(0))
    params = state.policy.params
    found += [
        Cost(chip, "stream, a turn", *turn(stream, [device])),
        Cost(chip, "stream, an update", *function(with_trace, device, params, params, params, scalar, scalar), 1),
        Cost(chip, "stream, an update without a trace", *function(without_trace, device, params, params, scalar), 1),
        Cost(chip, "stream, parameters", 0, bytes_of(params), 1),
        Cost(chip, "replay, a turn, 8 sequences of 8", *turn(replay, [device], batch_size=8, sequence_length=8)),
        Cost(chip, "replay, a turn, 64 transitions", *turn(replay, [device], batch_size=64, sequence_length=1)),
    ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chip", help="h100; by default the present backend")
    options = parser.parse_args()
    device = chips(options.chip)[0] if options.chip else jax.local_devices()[0]
    chip = options.chip or jax.default_backend()
    jax.config.update("jax_enable_compilation_cache", False)
    kept = [cost for cost in (read_rows(ROWS, Cost) if ROWS.exists() else []) if cost.chip != chip]
    write_rows(ROWS, [*kept, *measure(chip, device)])
    print(ROWS.read_text(), end="")


if __name__ == "__main__":
    main()

"""How many agents of streaming Soft Q(λ) fit beside each other, and how near are they to the memory's speed?

`python benchmarks/stream.py` writes stream.md and stream.png beside itself; about 4 minutes on 2 cores.

A step of one agent must read and write its parameters and its trace: 16 bytes for every parameter in float32, whatever
the learner does. The ceilings are a program that does nothing else, w ← w + α e, e ← ρ e + β, on arrays of the same
size and the same devices (on a CPU the cores), in turn with the learner. For the memory's ceiling all agents take a
step before the next step; for the cache's, a block of them takes all its steps first, as the learner's blocks do.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from rounds import Slices, alternate, make_parser

import jaxsoft
from jaxsoft.cpu import block_size
from jaxsoft.fleet.devices import ALONG_SEEDS, fewest_devices, seed_mesh
from jaxsoft.fleet.memory import need_of, seeds_per_block
from jaxsoft.fleet.programs import Program, init_members, make_program, seed_keys
from jaxsoft.reports.plots import COLOURS, tidy
from jaxsoft.training.config import make_config
from jaxsoft.training.loop import make_loop

HERE = Path(__file__).resolve().parent
NUM_AGENTS = (1, 4, 16, 64, 256, 1024, 4096)
ENV_ID, HIDDEN = "gymnax/CartPole-v1", (64, 64)
SECONDS = 1.0

ORDER = (
    "The ceilings take each number once; a step cannot. Parameters are read for Q(s), for its gradient and for Q(s') "
    "before the error δ is known, and traces are read and written before their length bounds the step size; only then "
    "the update may read both again and write the parameters. That is a parameter's 4 bytes 8 times, where the "
    "ceilings move them 4 times: from the cache, the same operations cannot make more than about half of its ceiling."
)
"""Why the learner must stay below the cache's ceiling."""


class Row(NamedTuple):
    """Speeds of one number of agents, each [rounds], steps per second of all agents."""

    num_agents: int
    learner: np.ndarray
    memory: np.ndarray
    cache: np.ndarray


def make(num_agents: int) -> tuple[Program, int | None]:
    """The agents, and of how many a block is."""
    config = make_config("soft_q_stream", ENV_ID, {"hidden_sizes": HIDDEN, "eval_every": 0})
    env = jaxsoft.make_env(ENV_ID)
    devices = fewest_devices(num_agents, jax.local_devices())
    block = seeds_per_block(need_of(make_loop(env, config)), devices[0])
    return make_program(env, config, devices, block), block


def move(state: Any, num_steps: jax.Array) -> Any:
    """The ceiling of all agents at once: reads and writes parameters and traces, and nothing else."""

    def step(_: jax.Array, state: Any) -> Any:
        params, trace = state
        return (
            jax.tree.map(lambda w, e: w + 1e-3 * e, params, trace),
            jax.tree.map(lambda e: 0.9 * e + 1e-3, trace),
        )

    return jax.lax.fori_loop(0, num_steps, step, state)


def move_in_blocks(state: Any, num_steps: jax.Array, size: int) -> Any:
    """The same, `size` agents after another."""
    return jax.lax.map(lambda one: move(one, num_steps), state, batch_size=size)


def measure(num_agents: int, rounds: int) -> Row:
    """Learner and ceilings in turn; each gets as many steps as take a second."""
    program, block = make(num_agents)
    state = init_members(program, np.arange(num_agents, dtype=np.int32))
    moved = state.agent_state.policy.params, state.agent_state.trace
    devices = fewest_devices(num_agents, jax.local_devices())
    each = num_agents // len(devices)
    size = block_size(each, min(each, block or each))
    on_each = partial(
        jax.shard_map,
        mesh=seed_mesh(devices),
        in_specs=(ALONG_SEEDS, PartitionSpec()),
        out_specs=ALONG_SEEDS,
        check_vma=False,
    )
    programs = {
        "learner": lambda state, num_steps: program.advance(state, {}, num_steps),
        "memory": jax.jit(on_each(move), donate_argnums=0),
        "cache": jax.jit(on_each(partial(move_in_blocks, size=size)), donate_argnums=0),
    }
    states: dict[str, Any] = {name: jax.tree.map(jnp.copy, moved) for name in programs} | {"learner": state}
    slices = {name: Slices(advance, states[name], SECONDS) for name, advance in programs.items()}
    return Row(num_agents, **{name: num_agents * steps for name, steps in alternate(slices, rounds).items()})


def num_params() -> int:
    """Parameters of one agent."""
    state = jax.eval_shape(make(1)[0].init, jax.eval_shape(lambda: seed_keys(jnp.arange(1, dtype=jnp.int32))), {})
    return sum(x.size for x in jax.tree.leaves(state.agent_state.policy.params))


def write(rows: list[Row]) -> None:
    params = num_params()
    best = max(rows, key=lambda row: np.median(row.learner))
    lines = [
        f"Streaming Soft Q(λ) on CartPole-v1, hidden {HIDDEN}, {params:,} parameters, so that a step must move "
        f"{16 * params / 1000:,.0f} kB. Steps per second of all agents, medians of {len(rows[0].learner)} rounds; the "
        "ceilings only read and write parameters and traces: the memory's for all agents step by step, the cache's for "
        "a block of agents after the other, as the learner does it. Made by `python benchmarks/stream.py` on "
        f"{len(jax.devices())} × {jax.devices()[0].device_kind}.",
        "",
        "| agents | steps/s | min – max | moved at least, GB/s | memory's ceiling | share of it | cache's ceiling | "
        "share of it |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        learner = np.median(row.learner)
        shares = (f"{np.median(x):,.0f} | {np.median(row.learner / x):.0%}" for x in (row.memory, row.cache))
        lines.append(
            f"| {row.num_agents:,} | {learner:,.0f} | {row.learner.min():,.0f} – {row.learner.max():,.0f} | "
            f"{16 * params * learner / 1e9:.1f} | {' | '.join(shares)} |"
        )
    lines += ["", f"Most steps per second: {best.num_agents:,} agents at {np.median(best.learner):,.0f}.", "", ORDER]
    text = "\n".join(lines) + "\n"
    (HERE / "stream.md").write_text(text)
    print(text, end="")


def draw(rows: list[Row]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.8), dpi=110, layout="constrained")
    axes = figure.subplots()
    agents = [row.num_agents for row in rows]
    lines = {"cache": "the cache's ceiling", "memory": "the memory's ceiling", "learner": "learner"}
    for (name, label), colour, marker in zip(lines.items(), COLOURS, "^so", strict=False):
        values = np.array([getattr(row, name) for row in rows])
        axes.fill_between(agents, values.min(1), values.max(1), color=colour, alpha=0.2, linewidth=0)
        axes.loglog(agents, np.median(values, axis=1), marker=marker, color=colour, label=label, markersize=4)
    axes.set(xlabel="agents side by side", ylabel="steps per second, all agents", title="Streaming Soft Q(λ)")
    axes.set_xticks(agents, [f"{n:,}" for n in agents])
    axes.minorticks_off()
    tidy(axes)
    axes.legend(frameon=False)
    figure.savefig(HERE / "stream.png", metadata={"Software": None})


def main() -> None:
    rounds = make_parser(__doc__, 5).parse_args().rounds
    jaxsoft.use_all_cores()
    rows = []
    for num_agents in NUM_AGENTS:
        rows.append(measure(num_agents, rounds))
        print(f"{num_agents:,} agents: {np.median(rows[-1].learner):,.0f} steps/s", flush=True)
    write(rows)
    draw(rows)


if __name__ == "__main__":
    main()

"""What a turn is compiled to: `python benchmarks/kernels.py`, or `... soft_q_stream --num-seeds 2 8`.

One turn of many seeds, as `jaxsoft train` compiles it for one device of the present backend. Kernels are those of the
compiled loop over turns, with those of its inner loops as often as these go round, where the compiler knows it. Counts
repeat to the last one, where clocks do not: compare them before and after a change. A kernel of a small agent costs a
CPU about 20 ns besides its arithmetic. CPU seconds are those of XLA's compilation alone, of all threads, without cache.
"""

from __future__ import annotations

import argparse
import re
import time
from collections import Counter

import jax
import numpy as np

import jaxsoft
from jaxsoft.agents import AGENTS
from jaxsoft.fleet.programs import make_program, seed_keys
from jaxsoft.training.config import make_config
from jaxsoft.types import Discrete

ENVS = {True: "gymnax/CartPole-v1", False: "gymnax/Pendulum-v1"}
"""By whether the agent acts in discrete spaces only."""

KINDS = ("fusion", "call", "custom-call", "dot", "while", "conditional")
"""Instructions that are counted by themselves; `other` are the rest of those that run something."""

OTHERS = ("copy", "sort", "convolution", "dynamic-slice", "dynamic-update-slice", "scatter", "gather", "reduce")


def compiled_turns(agent: str, num_seeds: int) -> tuple[jax.stages.Compiled, float]:
    """The program of the turns of `num_seeds` seeds, and the CPU seconds that XLA took for it."""
    env_id = ENVS[AGENTS[agent].action_spaces == (Discrete,)]
    config = make_config(agent, env_id, {"eval_every": 0})
    program = make_program(jaxsoft.make_env(env_id), config)
    keys = seed_keys(np.arange(num_seeds, dtype=np.int32))
    lowered = program.advance.lower(jax.eval_shape(program.init, keys, {}), {}, np.int32(1))
    began = time.process_time()
    return lowered.compile(), time.process_time() - began


def instructions(hlo: str) -> dict[str, list[tuple[str, str]]]:
    """Of every computation of a program its instructions: what they do, and the rest of their line."""
    found, name = {}, ""
    for line in hlo.splitlines():
        if start := re.match(r"(?:ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$", line):
            found[name := start.group(1)] = []
        elif instruction := re.match(r" +(?:ROOT )?%[\w.\-]+ = .*? ([a-z][\w\-]*)\((.*)", line):
            found[name].append(instruction.groups())
    return found


def count(name: str, computations: dict[str, list[tuple[str, str]]]) -> Counter[str]:
    """Kernels of a computation by kind, those of its inner loops as often as they go round."""
    kinds: Counter[str] = Counter()
    for kind, rest in computations[name]:
        if kind in KINDS:
            kinds[kind] += 1
        elif kind in OTHERS:
            kinds["other"] += 1
        if kind == "while":
            rounds = re.search(r'known_trip_count":\{"n":"(\d+)"', rest)
            inner = count(re.findall(r"body=%([\w.\-]+)", rest)[0], computations)
            kinds += Counter({k: n * int(rounds.group(1) if rounds else 1) for k, n in inner.items()})
    return kinds


def kernels(compiled: jax.stages.Compiled) -> Counter[str]:
    """Kernels of one round of a program's largest loop."""
    computations = instructions(compiled.as_text() or "")
    bodies = [
        re.findall(r"body=%([\w.\-]+)", rest)[0] for of in computations.values() for kind, rest in of if kind == "while"
    ]
    return max((count(body, computations) for body in bodies), key=lambda kinds: kinds.total())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("agents", nargs="*", default=sorted(AGENTS), help="by default all of them")
    parser.add_argument("--num-seeds", type=int, nargs="+", default=[8], help="seeds in one program; each is a line")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}")
    print(f"{'':16}seeds kernels" + "".join(f"{kind:>13}" for kind in (*KINDS, "other")) + " temporaries  CPU seconds")
    for agent in arguments.agents:
        for num_seeds in arguments.num_seeds:
            compiled, seconds = compiled_turns(agent, num_seeds)
            kinds, memory = kernels(compiled), compiled.memory_analysis()
            counts = "".join(f"{kinds[kind]:13}" for kind in (*KINDS, "other"))
            temporaries = f"{memory.temp_size_in_bytes / 1e3:>9,.0f} kB" if memory else f"{'?':>12}"
            print(f"{agent:16}{num_seeds:5} {kinds.total():7}{counts}{temporaries}{seconds:13.2f}", flush=True)


if __name__ == "__main__":
    main()

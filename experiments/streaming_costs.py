"""What a step of each step-size rule costs on an H100, without having one: `python experiments/streaming_costs.py`.

A turn of ten agents on MinAtar's Breakout, with the published network, is compiled for the chip; its kernels and bytes
are counted and written to streaming_costs.csv. The compilers are packages: see `make check-accelerators`.
"""

from __future__ import annotations

import step_size_rules
import streaming
from rows import write_rows

import jaxsoft
from jaxsoft.bench.cases import training
from jaxsoft.bench.chips import H100, chips
from jaxsoft.bench.compiled import turn_cost
from jaxsoft.bench.measure import trace
from jaxsoft.trees import bytes_of

PUBLISHED = {"hidden_sizes": (128,), "channels": (16,), "total_timesteps": streaming.PUBLISHED_STEPS, "eval_every": 0}


def cost(rule: str) -> streaming.Cost:
    """Of one rule; of the hard maximum, which costs what a soft value does."""
    settings = streaming.HARD | streaming.RULES[rule] | PUBLISHED
    settings |= {"agent": step_size_rules.KIND.name, "env": streaming.TASKS["Breakout"].env_id}
    init, advance = trace(training(settings, streaming.NUM_COUNTED, chips(H100)))
    counted = turn_cost(advance.lower().compile().as_text() or "")
    state = bytes_of(init.out_info.agent_state) / streaming.NUM_COUNTED
    return streaming.Cost(rule, counted.num_kernels, counted.num_bytes / 1e6, state / 1e6)


if __name__ == "__main__":
    jaxsoft.register_agent(step_size_rules.KIND)
    costs = [cost(rule) for rule in streaming.RULES]
    print(*costs, sep="\n")
    write_rows(streaming.COST_ROWS, costs)

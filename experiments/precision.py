"""Do agents learn as well with TF32 or bfloat16 products? `python experiments/precision.py`, on a CPU.

A CPU computes products in float32 whatever `matmul_precision` is. So the operands of every product of the agent are
rounded here as a GPU or TPU rounds them, with its gradients' products; sums, parameters, moments and environments
stay float32. The presets with 16 seeds, Breakout with a fifth of its steps. Numbers in precision.csv are kept.
"""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import curves
from pages import table
from rounded_products import MANTISSA_BITS, rounded_products

import jaxsoft
from jaxsoft.agents import get_agent
from jaxsoft.reports.statistics import Interval, iqm_interval
from jaxsoft.types import Agent, AgentKind, EnvSpec

TASKS: dict[str, tuple[str, str, int, dict[str, Any]]] = {
    "Pendulum": ("sac", "gymnax/Pendulum-v1", 16, {}),
    "CartPole": ("soft_q", "gymnax/CartPole-v1", 16, {}),
    "Breakout": ("soft_q", "gymnax/Breakout-MinAtar", 16, {"total_timesteps": 200_000, "eval_every": 20_000}),
}
"""Agent, environment, number of seeds and settings over the preset's."""

FINAL = slice(-curves.LAST, None)
"""The last evaluations."""

ANSWER = """
# Precision of products
"""


@cache
def rounded_kind(agent: str, precision: str) -> AgentKind:
    """A kind of agent that learns as another one, all its functions with rounded products."""
    kind = get_agent(agent)
    if precision == "float32":
        return kind

    def make(config: Any, spec: EnvSpec, num_updates: int) -> Agent:
        made = kind.make(config, spec, num_updates)
        functions = {name: x for name, x in made._asdict().items() if callable(x)}
        bits = MANTISSA_BITS[precision]
        return made._replace(**{name: rounded_products(x, bits) for name, x in functions.items()})

    return replace(kind, name=f"{agent}_{precision}", make=make)


def make_run(task: str, precision: str) -> curves.Run:
    """A task at its preset, with products of one precision."""
    agent, env_id, num_seeds, settings = TASKS[task]
    config = curves.make_run_config(agent, env_id, settings, num_seeds)
    kind = rounded_kind(agent, precision)
    jaxsoft.register_agent(kind)
    config = replace(config, train=replace(config.train, kind=kind))
    return curves.Run(task, precision, f"precision/{task}-{precision}", config)


def write_differences(file: Path, measured: curves.Curves) -> None:
    """Adds the table of differences to float32, seed by seed."""

    def difference(task: str, precision: str, reports: slice) -> Interval:
        narrow, full = (measured[task, label].returns[reports].mean(axis=0) for label in (precision, "float32"))
        return iqm_interval(narrow - full)

    lines = ["", "## Against float32", ""]
    lines += ["IQM over seeds of the difference to the same seed in float32, with its 95 % bootstrap interval."]
    rows = (
        (f"{task}, {precision}", *(difference(task, precision, reports) for reports in (FINAL, slice(None))))
        for task, precision in measured
        if precision != "float32"
    )
    lines += ["", *table(("", "final", "average"), rows)]
    file.write_text(file.read_text() + "\n".join(lines) + "\n")


if __name__ == "__main__":
    stem = Path(__file__).with_suffix("")
    runs = [make_run(task, precision) for task in TASKS for precision in MANTISSA_BITS]
    write_differences(stem.with_suffix(".md"), curves.main(__doc__, stem, runs, answer=ANSWER))

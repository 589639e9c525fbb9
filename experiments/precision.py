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

REPORTS = {"last evaluation": slice(-1, None), "final": slice(-curves.LAST, None), "average": slice(None)}
"""The evaluations that are compared."""

ANSWER = """
# Precision of products

Products in TF32 or bfloat16 learn as well as in float32, as far as 16 seeds tell: all intervals of differences to the
same seeds in float32 hold 0. On CartPole the last evaluation of every seed is 500 in all three. On Pendulum the middle
seeds end within 0.3 of float32; intervals reach far down there because some seeds still miss the swing in one of the
last three evaluations (a return below −250): 1 of 16 in float32, 3 in TF32, 3 in bfloat16. So few seeds cannot tell
chance from a small harm here. The default stays JAX's own: TF32 on GPUs, bfloat16 on TPUs.

On an H100 256 SAC seeds of an earlier version on Pendulum, at the same preset, reached −149.9 [−153.9, −146.0] in TF32
(not committed). That card multiplies 51.7 TFLOP/s in float32, 406 in TF32 and 788 to 813 in bfloat16. SAC with 256
seeds of (256, 256) uses [11 % of TF32's](../docs/benchmarking.md#an-h100-before), smaller networks less: kernels and
bytes bind there, and bfloat16 saves neither.

These numbers are of a CPU that rounds operands to nearest. A hidden layer of at most 8 inputs is a sum, not a product,
and is not rounded. Products with a vector are rounded here in TF32, and on GPUs are not.
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
    """Adds tables of the last evaluation, and of differences to float32, seed by seed."""

    def difference(task: str, precision: str, reports: slice) -> Interval:
        narrow, full = (measured[task, label].returns[reports].mean(axis=0) for label in (precision, "float32"))
        return iqm_interval(narrow - full)

    by_task = curves.by_task(measured)
    lasts = ((task, *(iqm_interval(curve.returns[-1]) for curve in own.values())) for task, own in by_task.items())
    differences = (
        (f"{task}, {precision}", *(difference(task, precision, reports) for reports in REPORTS.values()))
        for task, precision in measured
        if precision != "float32"
    )
    lines = ["", "## Last evaluation", "", *table(("", *MANTISSA_BITS), lasts), "", "## Against float32", ""]
    lines += ["IQM over seeds of the difference to the same seed in float32, with its 95 % bootstrap interval.", ""]
    lines += table(("", *REPORTS), differences)
    file.write_text(file.read_text() + "\n".join(lines) + "\n")


if __name__ == "__main__":
    stem = Path(__file__).with_suffix("")
    runs = [make_run(task, precision) for task in TASKS for precision in MANTISSA_BITS]
    write_differences(stem.with_suffix(".md"), curves.main(__doc__, stem, runs, answer=ANSWER))

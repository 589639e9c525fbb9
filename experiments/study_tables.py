"""The tables of docs/soft_q_lambda.md."""

from __future__ import annotations

from collections.abc import Iterable

import deep_soft_q
import lambda_costs
import off_policy
import reference_policies
from pages import TRACES, table
from rows import read_rows
from study_numbers import parse_page

from jaxsoft.ops.traces import TRACES as ALL_TRACES


def make_tables() -> dict[str, str]:
    """All of them by name, in Markdown."""
    far = read_rows(off_policy.ROWS, off_policy.Row)
    tables = {
        "theory": theory_table(far),
        "deep_table": deep_table(deep_soft_q.read()),
        "priors_table": priors_table(far),
        "costs": cost_table(read_rows(lambda_costs.ROWS, lambda_costs.Cost)),
    }
    return {name: "\n".join(lines) for name, lines in tables.items()}


def deep_table(cells: list[deep_soft_q.Cell]) -> list[str]:
    """Final returns at each task's best temperature: one step, and every coefficient at λ = 0.9."""
    columns = {}
    for task, digits in {"CartPole": ".0f", "Acrobot": ".0f", "DeepSea": ".2f", "Breakout": ".1f"}.items():
        own = [cell for cell in cells if cell.task == task]
        tau = deep_soft_q.best_temperature(own)
        at = [x for x in own if x.temperature == tau and x.lambda_ in (0.0, deep_soft_q.SHOWN_LAMBDA)]
        steps = f"{deep_soft_q.TASKS[task].total_timesteps:,} steps"
        columns[f"{task}, τ = {tau:g}, {steps}"] = {x.trace: x.final.in_words(digits) for x in at}
    names = {deep_soft_q.ONE_STEP: "λ = 0"} | {trace: f"`{trace}`" for trace in TRACES}
    return table(("", *columns), ((name, *(x[trace] for x in columns.values())) for trace, name in names.items()))


def priors_table(rows: list[off_policy.Row]) -> list[str]:
    """Gains of Retrace for each task and temperature, by who acts and by prior."""
    settings = [(task.name, tau) for task in reference_policies.TASKS[:2] for tau in task.temperatures]
    lines = []
    for behaviour, acts in {"on-policy": "the policy", "uniform": "uniform"}.items():
        for prior in reference_policies.PRIORS:
            own = off_policy.select(rows, behaviour=behaviour, prior=prior, trace="retrace")
            found = [off_policy.select(own, task=task, temperature=tau) for task, tau in settings]
            lines.append((acts, prior, *(off_policy.gain(off_policy.best(x)).in_words(".2f") for x in found)))
    return table(("acting", "prior", *(f"{task}, τ = {tau:g}" for task, tau in settings)), lines, num_words=2)


def theory_table(rows: list[off_policy.Row]) -> list[str]:
    """What each coefficient needs, and what was seen to cycle and to diverge."""
    cycles = parse_page("convergence")
    known = {"tree_backup": "no", "retrace": "yes", "importance_sampling": "yes", "uncorrected": "no", "watkins": "no"}
    bounded = {"tree_backup", "retrace", "importance_sampling"}
    symbol = {
        "tree_backup": "π(a)",
        "retrace": "min(1, π(a)/μ(a))",
        "importance_sampling": "π(a)/μ(a)",
        "uncorrected": "1",
        "watkins": "1 if a is greedy, else 0",
    }
    garnets = off_policy.select(rows, task=off_policy.GARNET)
    lines = []
    for trace in ALL_TRACES:
        starts = (cycles[f"{trace}; 1; random Q, α = {step}"] for step in ("1", "0.5"))
        seen = " / ".join(x if isinstance(x, str) else f"{x:.0f}" for x in starts)
        lost = (
            f"{sum(row.num_diverged for row in off_policy.select(garnets, trace=trace, lambda_=x)):,}"
            for x in off_policy.LAMBDAS
        )
        lines.append(
            (
                f"`{trace}`",
                symbol[trace],
                known[trace],
                "yes" if trace in bounded else "no",
                seen,
                " / ".join(lost),
            )
        )
    header = (
        "coefficient",
        "c",
        "needs μ",
        "evaluation contracts",
        "no rest, α = 1 / 0.5",
        "diverged, λ = 0.5 / 0.9 / 1",
    )
    return table(header, lines, num_words=len(header))


def cost_table(costs: Iterable[lambda_costs.Cost]) -> list[str]:
    """What longer returns add to a turn, per chip."""
    of = {(x.chip, x.program): x for x in costs}
    compared = {
        "rollouts, Retrace": ("rollouts, targets, retrace", "rollouts, targets, one step", "rollouts, a turn"),
        "replay, 8 sequences of 8": (
            "replay, a turn, 8 sequences of 8",
            "replay, a turn, 64 transitions",
            "replay, a turn, 64 transitions",
        ),
        "stream": ("stream, an update", "stream, an update without a trace", "stream, a turn"),
    }
    lines = []
    for name, programs in compared.items():
        for chip in dict.fromkeys(chip for chip, _ in of):
            longer, short, turn = (of[chip, program] for program in programs)
            kernels, moved = longer.kernels - short.kernels, longer.bytes - short.bytes
            lines.append(
                (
                    name,
                    {"cpu": "CPU", "h100": "H100"}[chip],
                    f"{turn.steps:,}",
                    f"{turn.kernels:,}",
                    f"{kernels:+,}",
                    f"{turn.bytes / turn.steps / 1e3:,.1f}",
                    f"{moved / turn.steps / 1e3:+,.2f}",
                )
            )
    header = ("agent", "chip", "steps of a turn", "kernels of a turn", "λ adds", "kB per step", "λ adds, kB")
    return table(header, lines, num_words=2)

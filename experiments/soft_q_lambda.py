"""How fast does online Soft Q(λ) find the known Q*? `python experiments/soft_q_lambda.py`, 20 minutes on 2 cores.

Four tasks, three behaviours, four trace coefficients, λ × step size, 256 seeds each. It writes beside itself

    soft_q_lambda.csv               every setting's errors, with intervals, and its diverged seeds
    soft_q_lambda.md                the questions, the answers in words and their tables
    soft_q_lambda_lambda.png        error over λ, each at its best step size
    soft_q_lambda_step_size.png     error over the step size at λ = 0.9
    soft_q_lambda_temperature.png   how long traces are at each temperature

`--redraw` keeps the numbers of soft_q_lambda.csv and does the rest again.

The error of a table Q is E = sqrt(Σ w (Q − Q*)² / Σ w Q*²), w the optimal soft policy's probabilities in every state
that can be visited: it is 1 before the first step (Q = 0), and actions that the optimal policy never takes do not move
it. `mean_error` averages it over the run (the area under the learning curve: speed), `final_error` is the last. A seed
has diverged where E is no finite number or above 10; it counts as infinite. Over seeds: the median, with the order
statistics that bound it with 95 % confidence whatever the distribution.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pages import TRACES, save, table
from rows import read_rows
from soft_q_lambda_numbers import (
    BEHAVIOURS,
    LAMBDAS,
    NUM_SEEDS,
    NUM_STEPS,
    ROWS,
    SHOWN_LAMBDA,
    STEP_SIZES,
    TASKS,
    TEMPERATURES,
    Row,
    Spread,
    measure,
    spread,
    trace_lengths,
)

from jaxsoft.reports.plots import COLOURS

HERE = Path(__file__).parent
CASES = list(itertools.product((task.name for task in TASKS), BEHAVIOURS))
COLOUR_OF = dict(zip(TRACES, COLOURS, strict=False))


def main() -> None:
    rows = read_rows(ROWS, Row) if "--redraw" in sys.argv[1:] else measure()
    spreads = [spread(task, name) for task, name in itertools.product(TASKS, BEHAVIOURS)]
    lengths = {task.name: trace_lengths(task) for task in TASKS}
    draw_lambda(rows)
    draw_step_size(rows)
    draw_lengths(lengths)
    write(rows, spreads, lengths)


def draw_lambda(rows: list[Row]) -> None:
    """Mean error over λ, each at its best step size."""
    figure, panels = grid("λ", "mean error, at the best step size")
    for axes, task, behaviour in panels:
        for name, colour in COLOUR_OF.items():
            band(axes, LAMBDAS, [best_row(rows, task, behaviour, name, x) for x in LAMBDAS], name, colour)
        axes.set_xticks(LAMBDAS, [f"{x:g}" for x in LAMBDAS])
    save(figure, HERE / "soft_q_lambda_lambda.png")


def draw_step_size(rows: list[Row]) -> None:
    """Mean error over the step size."""
    figure, panels = grid("step size α", f"mean error at λ = {SHOWN_LAMBDA:g}")
    for axes, task, behaviour in panels:
        for name, colour in ({"one step": "0.3"} | COLOUR_OF).items():
            lambda_ = 0.0 if name == "one step" else SHOWN_LAMBDA
            found = [find_row(rows, task, behaviour, name, lambda_, step_size) for step_size in STEP_SIZES]
            band(axes, STEP_SIZES, found, name, colour)
        axes.set_xscale("log")
        axes.set_xticks(STEP_SIZES, [f"{x:g}" for x in STEP_SIZES])
        axes.minorticks_off()
    save(figure, HERE / "soft_q_lambda_step_size.png")


def draw_lengths(lengths: dict[str, dict[tuple[str, str], np.ndarray]]) -> None:
    """Mean length of traces over the temperature."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.4, 2.9), dpi=100, layout="constrained")
    for axes, task in zip(figure.subplots(1, len(TASKS), sharey=True), TASKS, strict=True):
        for behaviour, colour in zip(BEHAVIOURS, COLOURS, strict=False):
            for trace, style in (("tree_backup", "-"), ("retrace", ":")):
                label = behaviour if trace == "tree_backup" else None
                x = TEMPERATURES * task.temperature
                axes.plot(x, lengths[task.name][behaviour, trace], style, color=colour, label=label)
        axes.axvline(task.temperature, color="0.8", linewidth=1, zorder=0)
        axes.set(xscale="log", xlabel="temperature τ", title=task.name)
    figure.axes[0].set_ylabel(f"mean trace length at λ = {SHOWN_LAMBDA:g}")
    figure.axes[0].plot([], [], ":", color="0.4", label="the same, retrace")
    figure.axes[1].legend(*figure.axes[0].get_legend_handles_labels(), frameon=False, fontsize=8, loc="upper left")
    save(figure, HERE / "soft_q_lambda_temperature.png", has_legend=False)


def grid(x: str, y: str) -> tuple[Any, list[tuple[Any, str, str]]]:
    """A panel for each task (rows) and behaviour (columns)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.4, 11.0), dpi=72, layout="constrained")
    figure.supxlabel(x, fontsize=11)
    figure.supylabel(y, fontsize=11)
    axes = figure.subplots(len(TASKS), len(BEHAVIOURS), sharex=True, sharey="row")
    panels = []
    for i, task in enumerate(TASKS):
        for j, behaviour in enumerate(BEHAVIOURS):
            axes[i, j].set_title(f"{task.name}, {behaviour}", fontsize=10)
            axes[i, j].set_ylim(0, 1.1)
            panels.append((axes[i, j], task.name, behaviour))
    return figure, panels


def band(axes: Any, x: Sequence[float], rows: Sequence[Row], name: str, colour: str) -> None:
    """Mean errors and their intervals; above the panel's top, where it is not learning, a cross."""
    points = np.array([(row.mean_error, row.mean_error_low, row.mean_error_high) for row in rows])
    shown = np.where(points < 1.1, points, np.nan)
    top = np.clip(np.where(np.isnan(points), np.inf, points), None, 1.1)
    axes.plot(x, shown[:, 0], "o-", color=colour, markersize=3, linewidth=1.5, label=name)
    axes.fill_between(x, top[:, 1], top[:, 2], color=colour, alpha=0.2, linewidth=0)
    lost = np.isnan(shown[:, 0])
    axes.plot(np.asarray(x)[lost], np.full(lost.sum(), 1.07), "x", color=colour, markersize=5)


def find_row(rows: list[Row], task: str, behaviour: str, trace: str, lambda_: float, step_size: float) -> Row:
    """One setting's numbers; λ = 0 has no trace."""
    trace = trace if lambda_ else "one step"
    wanted = task, behaviour, trace, lambda_, step_size
    (row,) = [row for row in rows if row[:5] == wanted]
    return row


def best_row(rows: list[Row], task: str, behaviour: str, trace: str, lambda_: float) -> Row:
    """The step size with the least mean error."""
    return min(
        (find_row(rows, task, behaviour, trace, lambda_, step) for step in STEP_SIZES), key=lambda row: row.mean_error
    )


class Setting(NamedTuple):
    """A trace coefficient, λ and α over all tasks and behaviours: how many times the least mean error it makes.

    `mean` is the geometric mean of these ratios, `worst` the largest.
    """

    trace: str
    lambda_: float
    step_size: float
    mean: float
    worst: float
    num_diverged: int


def ranking(rows: list[Row], tasks: Sequence[str]) -> list[Setting]:
    """All settings, the best first; one that loses the median seed somewhere has an infinite mean."""
    least = {
        (t, b): min(r.mean_error for r in rows if (r.task, r.behaviour) == (t, b)) for t in tasks for b in BEHAVIOURS
    }
    settings = []
    for trace, lambda_, step_size in dict.fromkeys(row[2:5] for row in rows):
        found = [find_row(rows, task, behaviour, trace, lambda_, step_size) for task, behaviour in least]
        ratios = np.array([row.mean_error / least[row.task, row.behaviour] for row in found])
        num_diverged = sum(row.num_diverged for row in found)
        mean = float(np.exp(np.log(ratios).mean()))
        settings.append(Setting(trace, lambda_, step_size, mean, float(ratios.max()), num_diverged))
    return sorted(settings, key=lambda setting: setting.mean)


def write(rows: list[Row], spreads: list[Spread], lengths: dict[str, dict[tuple[str, str], np.ndarray]]) -> None:
    text = REPORT.format(
        num_seeds=NUM_SEEDS,
        num_steps=f"{NUM_STEPS:,}",
        same_step="\n".join(same_step_table(rows)),
        errors="\n".join(error_table(rows)),
        diverged="\n".join(diverged_table(rows)),
        spreads="\n".join(spread_table(spreads)),
        lengths="\n".join(length_table(lengths)),
        ranking="\n".join(ranking_table(rows)),
    )
    (HERE / "soft_q_lambda.md").write_text(text)
    print(text, end="")


def same_step_table(rows: list[Row]) -> list[str]:
    """Tasks and behaviours in which traces are better or worse than one step of the same size."""
    lines = []
    for step_size in STEP_SIZES:
        cells = []
        for trace in TRACES:
            better = worse = 0
            for name, behaviour in CASES:
                one_step = find_row(rows, name, behaviour, "one step", 0.0, step_size)
                traced = find_row(rows, name, behaviour, trace, SHOWN_LAMBDA, step_size)
                better += traced.mean_error_high < one_step.mean_error_low
                worse += traced.mean_error_low > one_step.mean_error_high
            cells.append(f"{better} / {worse}")
        lines.append((f"{step_size:g}", *cells))
    return table(("α", *TRACES), lines, num_words=0)


def error_table(rows: list[Row]) -> list[str]:
    """The least mean error of each trace coefficient with λ > 0, and of one step."""
    lines = []
    for name, behaviour in CASES:
        one_step = best_row(rows, name, behaviour, "one step", 0.0)
        cells = [f"{number(one_step)}, α {one_step.step_size:g}"]
        for trace in TRACES:
            found = [best_row(rows, name, behaviour, trace, lambda_) for lambda_ in LAMBDAS[1:]]
            best = min(found, key=lambda row: row.mean_error)
            better = "**" if best.mean_error_high < one_step.mean_error_low else ""
            cells.append(f"{better}{number(best)}{better}, λ {best.lambda_:g}, α {best.step_size:g}")
        lines.append((f"{name}, {behaviour}", *cells))
    return table(("task, behaviour", "one step", *TRACES), lines)


def number(row: Row) -> str:
    return f"{row.mean_error:.3f} [{row.mean_error_low:.3f}, {row.mean_error_high:.3f}]"


def num_runs() -> int:
    """Of a trace coefficient with one behaviour and one λ: all tasks, step sizes and seeds."""
    return len(TASKS) * len(STEP_SIZES) * NUM_SEEDS


def diverged_table(rows: list[Row]) -> list[str]:
    """Seeds that diverged, of all tasks and step sizes."""
    columns = list(itertools.product(BEHAVIOURS, LAMBDAS[1:]))
    lines = []
    for trace in TRACES:
        found = [[row for row in rows if (row.trace, row.behaviour, row.lambda_) == (trace, *at)] for at in columns]
        lines.append((trace, *(f"{sum(row.num_diverged for row in part):,}" for part in found)))
    return table((f"of {num_runs():,}", *(f"{behaviour}, λ {x:g}" for behaviour, x in columns)), lines)


def spread_table(spreads: list[Spread]) -> list[str]:
    """Ratios of variances."""
    lines = []
    for task, behaviour, far, *ratios in spreads:
        cells = (f"{x:.3g} [{low:.3g}, {high:.3g}]" for x, low, high in ratios)
        lines.append((f"{task}, {behaviour}", f"{far:.2f}", *cells))
    header = "total variation μ, π", "importance_sampling / tree_backup", "retrace / tree_backup"
    return table(("task, behaviour", *header), lines)


def length_table(lengths: dict[str, dict[tuple[str, str], np.ndarray]]) -> list[str]:
    """Mean lengths of Tree Backup's traces at three temperatures."""
    shown = [0, int(np.argmin(np.abs(TEMPERATURES - 1))), len(TEMPERATURES) - 1]
    columns = list(itertools.product(BEHAVIOURS, shown))
    header = (f"{behaviour}, {TEMPERATURES[i]:.3g} τ" for behaviour, i in columns)
    lines = [(task, *(f"{x[name, 'tree_backup'][i]:.2f}" for name, i in columns)) for task, x in lengths.items()]
    return table(("task", *header), lines)


def ranking_table(rows: list[Row]) -> list[str]:
    """The best setting of every trace coefficient, over all tasks and without the cliff."""
    names, lines = [task.name for task in TASKS], []
    for label, tasks in (("all", names), ("all but CliffWalking", [name for name in names if name != "CliffWalking"])):
        ranked = ranking(rows, tasks)
        for trace in ("one step", *TRACES):
            best = next(setting for setting in ranked if setting.trace == trace)
            setting = f"{trace}, λ {best.lambda_:g}, α {best.step_size:g}"
            lines.append((label, setting, f"{best.mean:.2f}", f"{best.worst:.2f}", best.num_diverged))
    return table(("tasks", "setting", "geometric mean", "worst", "diverged seeds"), lines, num_words=2)


REPORT = """\
# A first empirical look at Soft Q(λ)

Tabular, online, accumulating traces, Q = 0 at first, {num_steps} steps, {num_seeds} seeds (on Garnet each with an
MDP of its own), a constant step size. On-policy: the present Boltzmann policy acts; near-policy: that of twice the
temperature; far-off-policy: the uniform policy. The mean error is the weighted relative distance to Q*, averaged
over the run (1 is Q = 0 for ever): medians over seeds and 95 % intervals. Made by `python
experiments/soft_q_lambda.py`, which says exactly what is measured; all numbers are in
[soft_q_lambda.csv](soft_q_lambda.csv).

## Does λ > 0 speed up credit assignment?

At the same small step size, yes, nearly everywhere. Of the 12 tasks and behaviours, so many are better / worse than
one step at λ = 0.9, the intervals apart:

{same_step}

With the best step size of each, yes where a distant reward has to be carried back, and less elsewhere. On the chain
the best trace halves the mean error under every behaviour. In the gridworld and on Garnets it takes off about a
fifth at most, and next to nothing on-policy, where the error is that of states no longer visited. On the cliff
under on- and near-policy behaviour no trace is as good as one step at α = 1, which is exact there because nothing
is random: Tree Backup is faster than one step of the same size up to α = 0.25, but cannot use the larger steps.
Bold: better than one step, the intervals apart. Each entry is at its best λ and α.

{errors}

![Mean error over λ](soft_q_lambda_lambda.png)

## Where does the uncorrected return go wrong?

Not by a wrong goal: the errors δ have mean zero at Q*, whoever acts. It goes wrong by divergence, far off-policy
and from λ = 0.4 on; at λ = 1 every seed is lost at every step size on the chain and on the cliff. Near the target
policy it is about as good as the corrected ones up to λ = 0.7. Seeds that diverged, of all tasks and step sizes:

{diverged}

On-policy the ratio π/μ is 1, and retrace, importance sampling and uncorrected are one algorithm. That it diverges
too, at λ = 1 or at large steps, is no matter of corrections: accumulating traces add up where states are visited
again, until the step α e is too large. Tree Backup's coefficient keeps its traces short: it lost seeds in 2 of 240
settings only, on the cliff at λ = 1 and α = 1. Far off-policy retrace lost only 10 seeds, on the chain at λ = 1 and
α = 1.

## Is Tree Backup's variance lower than importance sampling's?

Yes, in 11 of 12 cases. Ratios of the variance of λ-returns of one state and action, λ = 0.9, while Q stands at
Q*/2: 2 to 50 on- and near-policy, 50 to several thousand far off-policy, where products of ratios grow. The
exception is the cliff on-policy. A lower variance is not free: it comes from shorter traces (below), and retrace
with its moderate variance learns faster than Tree Backup on the chain, in the gridworld and on Garnets.

{spreads}

![Mean error over the step size](soft_q_lambda_step_size.png)

Crosses: the median seed does not learn (its error is above 1.1) or has diverged.

## How does the temperature shorten Tree Backup's traces?

On-policy a trace is kept by π(a) of an action drawn from π, on average Σ π²: near 1 for a cold policy, 1/A for a
hot one. With a uniform behaviour the temperature changes nothing: the mean of π(a) over all actions is 1/A whatever
π is, and only who keeps a trace changes: a cold policy keeps few, and these whole. Retrace's traces (dotted) grow
with the temperature where another policy acts, because π and μ both approach the reference. Mean length in steps at
Q*, λ = 0.9, computed exactly, at a tenth of the task's τ, at τ, and at a hundred times τ:

{lengths}

![Mean trace length over the temperature](soft_q_lambda_temperature.png)

## Which setting would we recommend?

How many times the least mean error of a task and behaviour a setting makes, for each coefficient's setting with the
least geometric mean:

{ranking}

Retrace with λ = 0.7 where the behaviour's probabilities are known, Tree Backup with λ = 0.9 to 1 where they are
not. The step size is near 1 because three of the tasks are deterministic; on-policy, on Garnets and in the gridworld,
0.1 to 0.5 was best. Where nothing is random and penalties of exploration are large, as on the cliff, one step at α = 1
is hard to beat. We would not use importance sampling or the uncorrected return above λ = 0.4 unless the target policy,
or one near it, acts. """


if __name__ == "__main__":
    main()

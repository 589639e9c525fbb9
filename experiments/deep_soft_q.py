"""Which trace coefficient, λ and temperature for deep Soft Q(λ)? `python experiments/deep_soft_q.py`.

Soft Q(λ) on rollouts, every coefficient × λ × temperature, 16 seeds each; one run directory per task and coefficient,
whose λ, temperatures and seeds are trained at once. At λ = 0 every coefficient is one-step soft Q-learning, which is
trained once. It writes beside itself

    deep_soft_q.csv     every cell's scores, with intervals
    deep_soft_q.md      tables
    deep_soft_q.png     scores over λ and over the temperature

Numbers that are in deep_soft_q.csv are kept, and drawn again; the rest is trained in run directories below `--runs`,
hours on 2 cores for all of it. `--only TASK` measures one task.

`final` is a seed's mean greedy return over the last three evaluations, `average` over all of them: the area under its
learning curve, the speed. Over seeds: the interquartile mean with its 95 % stratified bootstrap interval.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, NamedTuple

import curves
import numpy as np
from pages import TRACES, save, table

from jaxsoft.reports.plots import COLOURS
from jaxsoft.reports.statistics import Interval

ROWS = Path(__file__).with_suffix(".csv")
NUM_SEEDS, NUM_REPORTS = 16, 16
LAMBDAS = (0.5, 0.9, 1.0)
SHOWN_LAMBDA = 0.9
ONE_STEP = "one-step"
PROGRAMS = {ONE_STEP: (0.0,)} | dict.fromkeys(TRACES, LAMBDAS)
"""The λ of each program's cells; a coefficient's name, or that of λ = 0."""


class Task(NamedTuple):
    """An environment, a budget, the temperatures that are compared, and settings that all cells share."""

    env_id: str
    total_timesteps: int
    temperatures: tuple[float, ...]
    settings: dict[str, Any]


SHARED = {"exploration": 0.25, "final_exploration": None, "noise_repeat": 1}
"""Without exploration the policy that acts is the one that is learned, and three of the coefficients are one."""

SMALL = {
    "hidden_sizes": (64, 64),
    "num_envs": 16,
    "rollout_length": 32,
    "num_epochs": 4,
    "num_minibatches": 4,
    "learning_rate": 1e-3,
}
"""All that presets set, too: an environment's tuned settings have no part in these comparisons."""

IMAGES = SMALL | {"hidden_sizes": (64,), "channels": (8,), "num_epochs": 2}
LARGE_RETURNS = {"learning_rate": 3e-3}
"""Where returns are hundreds, the Q-function has far to go; with the step size of 1e-3 it does not arrive in
these budgets."""

TASKS = {
    "CartPole": Task("gymnax/CartPole-v1", 65_536, (0.1, 1.0, 10.0), SMALL | LARGE_RETURNS),
    "CartPole, small steps": Task("gymnax/CartPole-v1", 65_536, (0.1, 1.0, 10.0), SMALL),
    "Acrobot": Task("gymnax/Acrobot-v1", 131_072, (0.1, 1.0, 10.0), SMALL | LARGE_RETURNS),
    "DeepSea": Task("gymnax/DeepSea-bsuite", 16_384, (0.1, 0.3, 1.0), SMALL),
    "Breakout": Task("gymnax/Breakout-MinAtar", 65_536, (0.01, 0.03, 0.1), IMAGES),
}

ANSWER = """
# Which trace coefficient, λ and temperature?

**Take `retrace`, λ = 0.9, steps that are large enough, and tune the temperature**: of three, 0.1 was best on Acrobot
and DeepSea, 1 on CartPole, 0.01 on Breakout. Retrace with λ = 0.9 and τ = 0.1 is the default of Soft Q(λ)'s agents.

* **λ: 0.9, if the step size allows it.** Where reward is rare it decides: on Acrobot one-step learning does not find
  the goal in this budget at any temperature (−453 [−500, −335] at best), and λ = 0.9 with τ = 0.1 does with every
  coefficient (Retrace: −91 [−96, −88]). On DeepSea more seeds find it, 0.62 [0.12, 0.99] against 0.24 [−0.01, 0.74],
  though not so many more that 16 seeds tell the two apart. Where rewards are frequent it gains less: CartPole 496
  [468, 500] against 450 [390, 493], Breakout at τ = 0.01 4.1 [3.8, 4.6] against 3.3 [2.9, 3.9], and there all the way
  (average 2.7 against 1.9). Between 0.9 and 1 there is hardly a difference that these seeds can show.
* **The step size comes first.** On CartPole with 1e-3 in place of 3e-3, one step at its best τ, 1, ends highest: 398
  [342, 448] against 356 [326, 392] of the best cell with λ > 0, within the intervals, and apart from 189 [149, 300] of
  Retrace at λ = 0.9 and the same τ. Longer returns are large at once, the Q-function is far away from them, and what
  tells actions apart is lost in that distance: [λ on CartPole](lambda_on_cartpole.md).
* **Coefficient.** Retrace is near the best everywhere. `uncorrected` is a little faster still (Acrobot's average −264
  against −297, DeepSea's 0.45 against 0.35, Breakout's 3.2 against 2.7): a quarter of random actions biases it little,
  but nothing bounds what other behaviour would do. Tree Backup is as good where π is nearly greedy (on Breakout at τ =
  0.01 it ends a little higher), and falls behind where it is not and π(a) cuts every trace: Acrobot at τ = 1, λ = 0.9
  −466 [−496, −400] against Retrace's −336 [−461, −176]. Importance sampling gains nothing over Retrace, and at λ = 1
  pays for its variance (Breakout: 3.2 [2.9, 3.5] against 4.5 [4.0, 5.1]; CartPole, τ = 0.1: 321 [216, 427] against 406
  [318, 473]).
* **Temperature** matters most, and depends on the task: it is a price in units of reward. At τ = 10 no agent learns
  Acrobot, whose steps cost 1, while on CartPole τ = 10 is faster on average than 1 for every coefficient at λ = 0.9,
  but not for one step, and all but Tree Backup end lower. τ = 0.1 is the best of the three on Acrobot and DeepSea, the
  worst on CartPole, and on Breakout too high. With more steps more temperatures do: τ = 1 learns Acrobot in 500,000
  ([the preset](../docs/results.md#classic-control-discrete-actions)).

The budgets are small, Breakout's most of all: its agents are far from done. The intervals are plain percentiles of the
bootstrap, as they were made when this was measured; `iqm_interval` makes them wider today.
"""


class Cell(NamedTuple):
    """One setting's scores over seeds."""

    task: str
    trace: str
    lambda_: float
    temperature: float
    final: Interval
    average: Interval


def make_run(name: str, trace: str) -> curves.Run:
    """A grid of every temperature and λ with one coefficient: one program."""
    task = TASKS[name]
    settings = SHARED | task.settings | {"trace": TRACES[0] if trace == ONE_STEP else trace}
    budget = {"total_timesteps": task.total_timesteps, "eval_every": task.total_timesteps // NUM_REPORTS}
    sweep = {"temperature": task.temperatures, "lambda_": PROGRAMS[trace]}
    config = curves.make_run_config("soft_q", task.env_id, settings | budget, NUM_SEEDS, sweep=sweep)
    return curves.Run(name, trace, f"deep_soft_q/{name.replace(', ', '-').replace(' ', '-')}-{trace}", config)


def measure(folder: Path, run: curves.Run) -> list[Cell]:
    """The scores of every cell of a run's grid."""
    return [
        Cell(run.task, run.label, x.settings["lambda_"], x.settings["temperature"], curves.final(x), curves.average(x))
        for x in curves.train(folder, run)
    ]


def read() -> list[Cell]:
    """The cells that have been measured."""
    if not ROWS.exists():
        return []
    cells = []
    with ROWS.open() as lines:
        for task, trace, *numbers in list(csv.reader(lines))[1:]:
            x = [float(number) for number in numbers]
            cells.append(Cell(task, trace, x[0], x[1], Interval(*x[2:5]), Interval(*x[5:])))
    return cells


def save_rows(cells: list[Cell]) -> None:
    """Every cell as one row."""
    header = ["task", "trace", "lambda", "temperature"]
    header += [f"{score}_{end}" for score in ("final", "average") for end in ("iqm", "low", "high")]
    with ROWS.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for *names, lambda_, temperature, final, average in cells:
            writer.writerow([*names, *(f"{x:.4g}" for x in (lambda_, temperature, *final, *average))])


def best_temperature(cells: list[Cell]) -> float:
    """The temperature whose final scores, meant over all coefficients and λ, one step among them, are best."""
    temperatures = sorted({cell.temperature for cell in cells})
    return max(temperatures, key=lambda tau: np.mean([c.final.point for c in cells if c.temperature == tau]))


def write(cells: list[Cell]) -> None:
    """The tables: scores over λ at each task's best temperature, and over temperatures at one λ."""
    lines = [
        ANSWER.strip(),
        "",
        f"Soft Q(λ) on rollouts: coefficient × λ × temperature, {NUM_SEEDS} seeds each. IQM of the final greedy return "
        "with its 95 % bootstrap interval; in italics that of the average over training (speed). Made by "
        "`python experiments/deep_soft_q.py`.",
    ]
    for name in dict.fromkeys(cell.task for cell in cells):
        ours = [cell for cell in cells if cell.task == name]
        tau, task = best_temperature(ours), TASKS[name]
        lines += ["", f"## {name}", "", f"`{task.env_id}`, {task.total_timesteps:,} steps.", ""]
        at_best = {trace: [c for c in cells_of(ours, trace) if c.temperature == tau] for trace in TRACES}
        lines += _score_table(f"τ = {tau:g}", [f"λ = {lam:g}" for lam in (0, *LAMBDAS)], at_best)
        shown = {ONE_STEP: 0.0} | dict.fromkeys(TRACES, SHOWN_LAMBDA)
        at_lambda = {
            "one-step, λ = 0" if trace == ONE_STEP else trace: [c for c in ours if (c.trace, c.lambda_) == (trace, x)]
            for trace, x in shown.items()
        }
        columns = [f"τ = {t:g}" for t in task.temperatures]
        lines += ["", *_score_table(f"λ = {SHOWN_LAMBDA:g}", columns, at_lambda)]
    ROWS.with_suffix(".md").write_text("\n".join(lines) + "\n")


def cells_of(cells: list[Cell], trace: str) -> list[Cell]:
    """A coefficient's cells over λ, the one of λ = 0 among them."""
    return sorted((cell for cell in cells if cell.trace in (ONE_STEP, trace)), key=lambda cell: cell.lambda_)


def _score_table(corner: str, columns: list[str], rows: dict[str, list[Cell]]) -> list[str]:
    scores = {name: [f"{_short(cell.final)} *{cell.average.point:.3g}*" for cell in row] for name, row in rows.items()}
    return table((corner, *columns), ((name, *row) for name, row in scores.items()))


def _short(value: Interval) -> str:
    return f"{value.point:.3g} [{value.low:.3g}, {value.high:.3g}]"


def draw(cells: list[Cell]) -> None:
    """A row per task: over λ at its best temperature, and over the temperature at one λ."""
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(cell.task for cell in cells))
    figure = Figure(figsize=(9.0, 2.6 * len(tasks)), dpi=88, layout="constrained")
    for (left, right), name in zip(figure.subplots(len(tasks), 2, squeeze=False), tasks, strict=True):
        ours = [cell for cell in cells if cell.task == name]
        tau = best_temperature(ours)
        for i, (trace, colour) in enumerate(zip(TRACES, COLOURS, strict=False)):
            at_best = [c.final for c in cells_of(ours, trace) if c.temperature == tau]
            at_lambda = [c.final for c in ours if (c.trace, c.lambda_) == (trace, SHOWN_LAMBDA)]
            for axes, scores in ((left, at_best), (right, at_lambda)):
                point, low, high = np.array(scores).T
                beside = np.arange(len(point)) + 0.09 * (i - (len(TRACES) - 1) / 2)
                axes.errorbar(
                    beside, point, (point - low, high - point), fmt="o-", color=colour, label=trace, ms=4, lw=1
                )
        left.set(title=f"{name}, τ = {tau:g}", xlabel="λ", ylabel="final return")
        left.set_xticks(range(1 + len(LAMBDAS)), [f"{x:g}" for x in (0, *LAMBDAS)])
        right.set(title=f"{name}, λ = {SHOWN_LAMBDA:g}", xlabel="temperature τ")
        right.set_xticks(range(len(TASKS[name].temperatures)), [f"{x:g}" for x in TASKS[name].temperatures])
    save(figure, ROWS.with_suffix(".png"))


def main() -> None:
    folder, only = curves.parse(__doc__, TASKS)
    cells = read()
    for name in [only] if only else TASKS:
        for trace in PROGRAMS:
            if not any((cell.task, cell.trace) == (name, trace) for cell in cells):
                cells += measure(folder, make_run(name, trace))
                save_rows(cells)
    cells = [cell for name in TASKS for cell in cells if cell.task == name and is_whole(name, cells)]
    write(cells)
    draw(cells)


def is_whole(name: str, cells: list[Cell]) -> bool:
    """Whether every coefficient has been measured in this task."""
    return {cell.trace for cell in cells if cell.task == name} == PROGRAMS.keys()


if __name__ == "__main__":
    main()

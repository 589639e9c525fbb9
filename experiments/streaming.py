"""Which step-size rule, and does a soft value beat a hard maximum, on a stream? `python experiments/streaming.py`.

Streaming Soft Q(λ) beside stream Q(λ), with published step-size rules (`step_size_rules.py`), on three classic tasks
and MinAtar. Both agents are `soft_q_stream`: stream Q(λ) is its limit of temperature 0, with Watkins's cut and an
ε-greedy behaviour. It writes streaming.csv, .md and .png beside itself; numbers in streaming.csv are kept. All of it
takes about an hour on 2 cores that others use, too.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import curves
import numpy as np
import step_size_rules
from pages import save, table
from rows import read_rows

import jaxsoft
from jaxsoft.reports.plots import COLOURS

HARD = {"temperature": 1e-6, "trace": "watkins", "exploration": 1.0, "final_exploration": 0.01}
SOFT = {"temperature": 0.3, "final_temperature": 0.01, "decay_fraction": 0.2}
RULES: dict[str, dict[str, Any]] = {
    "ObGD": {"step_size_rule": "obgd"},
    "AdaptiveObGD": {"step_size_rule": "adaptive_obgd"},
    "Intentional": {"step_size_rule": "intentional", "learning_rate": 0.25},
    "Adaptive Q": {"step_size_rule": "adaptive_q", "learning_rate": 4.6e-4},
}
CONSTANT = {"temperature": 0.1}
OTHERS = {"late cut": "ObGD with a late cut (above), an early fall (below)", "early fall": ""}
"""Of the picture's last curve in a panel."""
LATE_CUT = {"late_cut": True, "trace": "uncorrected"}


class Task(NamedTuple):
    """What all agents learn, and how much of it.

    Attributes:
        env_id: of the environment.
        num_seeds: of each agent.
        settings: of all agents.
        decay_fraction: share of the training in which ε falls, as its authors have it.

    """

    env_id: str
    num_seeds: int
    settings: dict[str, Any]
    decay_fraction: float


class Cost(NamedTuple):
    """Of one turn of ten agents on an H100, see streaming_costs.py.

    Attributes:
        rule: the step-size rule.
        kernels: that a turn launches.
        megabytes: that they read and write.
        state: megabytes of one agent's state.

    """

    rule: str
    kernels: int
    megabytes: float
    state: float


KERNEL, COPY = 1.1e-6, 3.0e12
"""Of an H100, measured: seconds of a kernel, however little it does; bytes per second, read and written."""

NUM_COUNTED, COST_ROWS = 10, Path(__file__).with_name("streaming_costs.csv")
"""Agents of a turn whose cost was counted, and where that stands."""

PUBLISHED_STEPS = 5_000_000
"""Of every game, in the authors' code."""

CLASSIC = {"total_timesteps": 500_000, "eval_every": 25_000, "hidden_sizes": (32, 32)}
MINATAR = {"total_timesteps": 200_000, "eval_every": 20_000, "hidden_sizes": (32,), "channels": (16,)}
TASKS = {
    "CartPole": Task("gymnax/CartPole-v1", 16, CLASSIC, 0.05),
    "Acrobot": Task("gymnax/Acrobot-v1", 16, CLASSIC, 0.05),
    "MountainCar": Task("gymnax/MountainCar-v0?max_steps_in_episode=10000", 16, CLASSIC | {"eval_every": 50_000}, 0.05),
    "Breakout": Task("gymnax/Breakout-MinAtar", 8, MINATAR, 0.2),
}
SHOWN = ("CartPole", "Acrobot", "Breakout")
"""Those that are drawn: nobody learns the other."""

ANSWER = """
# Streams

**Which step-size rule?** Intentional updates (Sharifnassab et al. 2026). On Breakout they end at
{final[Breakout; soft, Intentional]:.1f} with a soft value and at {final[Breakout; hard, Intentional]:.1f} with a hard
maximum, where ObGD ends at {final[Breakout; soft, ObGD]:.1f} and {final[Breakout; hard, ObGD]:.1f}. On Acrobot with a
hard maximum they are the fastest: an average of {average[Acrobot; hard, Intentional]:.0f} against
{average[Acrobot; hard, ObGD]:.0f}. They are nowhere worse beyond the intervals. Adaptive Q with its authors' constants
is about as good on Breakout, though some soft seeds learn little; on CartPole and Acrobot its averages are the lowest,
mostly within the intervals. AdaptiveObGD gains nothing over ObGD. No seed's numbers
ceased to be finite. The package has ObGD, and intentional updates: `--step-size-rule intentional --learning-rate 0.25`;
the others are an agent of one's own for `make_train`, [step_size_rules.py](step_size_rules.py).

**Does soft beat hard?** No. With the same rule, final returns of the two differ within their intervals in every task,
and on Acrobot the soft one learns more slowly under three of the four rules: its averages are lower, with intervals
apart. There τ falls in a fifth of the training, and the ε of the hard one in a twentieth. If τ falls as early, the two
are alike on Acrobot, {average[Acrobot; soft, early fall]:.0f} against {average[Acrobot; hard, ObGD]:.0f}; but on
CartPole the soft one is slower, {average[CartPole; soft, early fall]:.0f} against {average[CartPole; hard, ObGD]:.0f}.
At a constant 0.1 of scaled rewards, the default, ObGD learns CartPole and not Acrobot, where it ends at
{final[Acrobot; soft, constant]:.0f}; falling from 0.3 to 0.01 it ends at {final[Acrobot; soft, ObGD]:.0f}. Smaller
constants were not tried. MountainCar, in episodes of up to 10,000 steps, is learned by none: seeds of all agents reach
the goal in one evaluation and not in the next, and final returns are between {worst:,.0f} and {best:,.0f}.

**What does it cost?** A soft value costs what a maximum does. A rule with moments costs half as much state again, and
below some {few:.0f} agents on a GPU, where kernels bind, up to {slower:.0%} more time (last table).

**Stream Q(λ)** (Elsayed et al. 2024) is a setting of `soft_q_stream`, step by step the same as a hard maximum in NumPy
(`tests/experiments`):

    jaxsoft train soft_q_stream gymnax/Acrobot-v1 --temperature 1e-6 --trace watkins --exploration 1 \\
        --final-exploration 0.01 --decay-fraction 0.05 --hidden-sizes 32 32

One thing is not: its authors' code cuts the trace after the update of an action that is not greedy, Watkins before. So
actions before an exploratory one learn from its outcome, and it never learns from later ones. `late cut` does the same.
Final returns show no difference: {final[CartPole; hard, late cut].point:.0f} against
{final[CartPole; hard, ObGD].point:.0f}, {final[Acrobot; hard, late cut]:.0f} against
{final[Acrobot; hard, ObGD]:.0f}, {final[Breakout; hard, late cut]:.1f} against {final[Breakout; hard, ObGD]:.1f}. On
Acrobot the late cut is on average a little slower, {average[Acrobot; hard, late cut]:.0f} against
{average[Acrobot; hard, ObGD]:.0f}, within the intervals.

**Other differences from that code.** Time limits bootstrap here, and CartPole and Acrobot keep their limit of 500
steps, where it has 10,000. Time is no part of the observation. Every unit keeps one incoming weight: of inputs up to
nine the code's sparsity of 0.9 keeps none. Rewards are divided by the root mean square of the returns,
not by their deviation, and bounded. MinAtar is gymnax's. For a CPU's sake Breakout has a hidden layer of 32 and 200,000
steps, where the code has 128 and 5,000,000.

**Published numbers.** Those of stream Q(λ), of intentional updates and of Adaptive Q are in figures of papers of which
only abstracts and code could be read here: none stands beside ours. On MinAtar's own Breakout, after 5,000,000 steps,
figures of Young & Tian 2019 ([arXiv:1903.03176](https://arxiv.org/abs/1903.03176)) show about 17 for AC(λ = 0.8), which
learns from a stream, and 10 for DQN (read off, ±5 %).

**Not known.** Whether the order holds after 5,000,000 steps, in wide networks and in the other three games. On an
H100 that is {minutes[ObGD]:.1f} minutes for each game and agent with ObGD, ten seeds: {minutes_obgd:.0f} minutes for
soft and hard in four games, {hours_all:.1f} hours with all four rules. Step sizes are the authors'; the schedule of τ
was chosen on other seeds of CartPole and Acrobot. No suite here has a task like LunarLander. Not tried: SwiftTD
(Javed et al. 2024), which is for linear functions.

Sources: Elsayed, Vasan & Mahmood 2024, [arXiv:2410.14606](https://arxiv.org/abs/2410.14606), with their code (ObGD,
AdaptiveObGD); Sharifnassab et al. 2026, [arXiv:2604.19033](https://arxiv.org/abs/2604.19033), as in their code with its
η of 0.25 for MinAtar; Gogianu, Lutu & Pascanu 2026, [arXiv:2605.06764](https://arxiv.org/abs/2605.06764), as
[stremax](https://github.com/noahfarr/stremax) states their rule.

![Returns of all agents and rules over the training](streaming.png)
"""

COSTS = """
A turn of ten agents on Breakout with the published network (a layer of 128), compiled for an H100 and counted
(`streaming_costs.py`); minutes are the larger of 1.1 µs for each kernel and the bytes at 3.0 TB/s, [which were measured
there](../docs/benchmarking.md#an-h100-before), without evaluations.
"""


def make_run(name: str, label: str, settings: dict[str, Any]) -> curves.Run:
    """One agent in one task."""
    task = TASKS[name]
    settings = task.settings | settings
    config = curves.make_run_config(step_size_rules.KIND, task.env_id, settings, task.num_seeds)
    return curves.Run(name, label, f"streaming/{name}-{label.replace(', ', '-').replace(' ', '-')}", config)


def runs() -> list[curves.Run]:
    """Every agent with every rule in every task; by ObGD the late cut, a τ that falls as early as ε, a constant τ."""
    found = []
    for name, task in TASKS.items():
        hard = HARD | {"decay_fraction": task.decay_fraction}
        for kind, settings in (("soft", SOFT), ("hard", hard)):
            found += [make_run(name, f"{kind}, {rule}", settings | RULES[rule]) for rule in RULES]
        found.append(make_run(name, "hard, late cut", hard | LATE_CUT))
        if name != "Breakout":
            found.append(make_run(name, "soft, early fall", SOFT | {"decay_fraction": task.decay_fraction}))
            found.append(make_run(name, "soft, constant", CONSTANT))
    return found


def draw(file: Path, measured: curves.Curves, unit: str) -> None:
    """A column per task; above the agents with a hard maximum, below the soft ones, a curve per rule."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    figure = Figure(figsize=(1.0 + 3.2 * len(SHOWN), 5.4), dpi=80, layout="constrained")
    panels = figure.subplots(2, len(SHOWN), sharex="col", sharey="col", squeeze=False)
    colours = dict(zip(RULES, COLOURS, strict=False)) | dict.fromkeys(OTHERS, COLOURS[-1])
    for (task, label), curve in measured.items():
        kind, rule = label.split(", ")
        if task in SHOWN and rule != "constant":
            axes = panels[int(kind == "soft"), SHOWN.index(task)]
            curves.draw_curve(axes, curve, color=colours[rule], label=OTHERS.get(rule, rule))
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    for axes, task in zip(panels[0], SHOWN, strict=True):
        axes.set_title(task)
    for axes, kind in zip(panels[:, 0], ("hard maximum", "soft"), strict=True):
        axes.set_ylabel(f"return, {kind}")
    for axes in panels[1]:
        axes.set_xlabel(unit)
    save(figure, file)


def answer(measured: curves.Curves) -> str:
    """The words with their numbers; a minus is a minus."""
    from study_numbers import Names, Number  # which reads the pages of other experiments

    costs = {cost.rule: cost for cost in read_rows(COST_ROWS, Cost)}
    minutes = {rule: PUBLISHED_STEPS * seconds(cost) / 60 for rule, cost in costs.items()}
    hill = [curves.final(curve).point for (task, _), curve in measured.items() if task == "MountainCar"]
    scores = {
        kind: Names({f"{task}; {label}": Number(*score(curve)) for (task, label), curve in measured.items()})
        for kind, score in (("final", curves.final), ("average", curves.average))
    }
    text = ANSWER.format(
        **scores,
        minutes=minutes,
        worst=min(hill),
        best=max(hill),
        few=np.median([NUM_COUNTED * cost.kernels * KERNEL / (cost.megabytes * 1e6 / COPY) for cost in costs.values()]),
        slower=max(minutes.values()) / minutes["ObGD"] - 1,
        minutes_obgd=8 * minutes["ObGD"],
        hours_all=8 * sum(minutes.values()) / 60,
    )
    return re.sub(r"(?<![\w-])-(?=\d)", "−", text)


def write_costs(file: Path) -> None:
    """Adds a table of what the rules cost."""
    lines = ["", "## What the rules cost", "", COSTS.strip(), ""]
    header = ("", "kernels", "MB moved", "MB of an agent's state", "minutes of 5,000,000 steps")
    lines += table(header, map(cost_row, read_rows(COST_ROWS, Cost)))
    file.write_text(file.read_text() + "\n".join(lines) + "\n")


def seconds(cost: Cost) -> float:
    """Of a turn on an H100."""
    return max(cost.kernels * KERNEL, cost.megabytes * 1e6 / COPY)


def cost_row(cost: Cost) -> tuple[str, ...]:
    """A line of the table of costs."""
    numbers = cost.megabytes, cost.state, PUBLISHED_STEPS * seconds(cost) / 60
    return cost.rule, str(cost.kernels), *(f"{x:.3g}" for x in numbers)


if __name__ == "__main__":
    jaxsoft.register_agent(step_size_rules.KIND)
    stem = Path(__file__).with_suffix("")
    curves.main(__doc__, stem, runs(), answer=answer, picture=draw)
    write_costs(stem.with_suffix(".md"))

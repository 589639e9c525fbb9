"""How far off-policy may the data be? `python experiments/off_policy.py`, a quarter of an hour on 2 busy cores.

Every number is a comparison with one-step soft Q-learning from the *same* behaviour, so that what a behaviour explores
cancels out. It writes beside itself

    off_policy.csv      every setting's scores and gains, with intervals, and its diverged seeds
    off_policy.md       the answers and their tables
    off_policy.png      gains over the distance of the behaviour from the policy

Parts that are in off_policy.csv are kept. `off_policy_numbers.py` says exactly what is measured.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from lambda_on_cartpole import CARTPOLE
from off_policy_numbers import (
    CARTPOLE_SEEDS,
    FLOOR,
    GARNET,
    GARNET_TEMPERATURES,
    LAMBDAS,
    NUM_SEEDS,
    NUM_STEPS,
    ONE_STEP,
    RANDOM,
    ROWS,
    STEP_SIZES,
    STRANGER,
    Row,
    measure,
)
from pages import draw_band, save, table
from reference_policies import BEHAVIOURS, PRIORS, TASKS
from rows import read_rows

from jaxsoft.ops.traces import TRACES
from jaxsoft.reports.plots import COLOURS
from jaxsoft.reports.statistics import Interval

COLOUR_OF: dict[str, str] = dict(zip(TRACES, COLOURS, strict=False))
MARKER_OF: dict[str, str] = dict(zip(TRACES, "os^Dv", strict=True))


def main() -> None:
    rows = measure(read_rows(ROWS, Row) if ROWS.exists() else [])
    draw(rows)
    ROWS.with_suffix(".md").write_text(report(rows))


def select(rows: Sequence[Row], **wanted: Any) -> list[Row]:
    """The rows whose fields have these values."""
    return [row for row in rows if all(getattr(row, name) == value for name, value in wanted.items())]


def best(rows: Sequence[Row]) -> Row:
    """The row with the least error."""
    return min(rows, key=lambda row: row.score)


def returns(rows: Sequence[Row], trace: str) -> list[Row]:
    """CartPole's rows of a coefficient over the shares of random actions, of one step at its better step size."""
    own = select(rows, task=CARTPOLE, trace=trace)
    return [max(select(own, behaviour=f"{share:g}"), key=lambda row: row.score) for share in RANDOM]


def gain(row: Row) -> Interval:
    return Interval(row.gain, row.gain_low, row.gain_high)


def score(row: Row) -> Interval:
    return Interval(row.score, row.score_low, row.score_high)


def draw(rows: list[Row]) -> None:
    """Gains of each coefficient over the distance: on Garnets at each temperature, and on CartPole."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.4, 3.4), dpi=80, layout="constrained")
    panels = figure.subplots(1, 3)
    for axes, temperature in zip(panels, GARNET_TEMPERATURES, strict=False):
        draw_garnets(axes, rows, temperature, COLOUR_OF)
        axes.set(title=f"Garnets, τ = {temperature:g}", xlabel="TV(μ, π)", ylabel="error / that of one step")
    draw_cartpole(panels[2], rows, COLOUR_OF)
    panels[2].set(title="CartPole, λ = 0.9", xlabel="TV(μ, π)", ylabel="return")
    save(figure, ROWS.with_suffix(".png"), first=panels[2].get_lines()[-1:])


def draw_garnets(axes: Any, rows: list[Row], temperature: float, colour_of: dict[str, str]) -> None:
    """Ratios of errors, each at its best λ and step size, over the total variation."""
    for trace, colour in colour_of.items():
        own = select(rows, task=GARNET, temperature=temperature, trace=trace)
        points = [best(select(own, behaviour=f"{share:g}")) for share in STRANGER]
        far = [point.tv for point in points]
        draw_band(axes, far, [gain(point) for point in points], f"{MARKER_OF[trace]}-", color=colour, label=trace)


def draw_cartpole(axes: Any, rows: list[Row], colour_of: dict[str, str]) -> None:
    """Returns over the total variation; λ = 0 is dashed."""
    for trace, colour in {**colour_of, ONE_STEP: "0.5"}.items():
        points = returns(rows, trace)
        style = "p--" if trace == ONE_STEP else f"{MARKER_OF[trace]}-"
        far = [point.tv for point in points]
        draw_band(axes, far, [score(point) for point in points], style, color=colour, label=trace)


def report(rows: list[Row]) -> str:
    """The page; a minus is a minus."""
    from study_numbers import far_numbers  # which reads this module's rows

    numbers = far_numbers(rows)
    for name, temperature in zip(("sharp", "soft"), GARNET_TEMPERATURES, strict=True):
        setting = f"{GARNET}; τ {temperature:g}; neutral; "
        for kind, ending in (("gain", ""), ("tv", "_tv")):
            own = {
                f"share {key.removeprefix(setting)}": x for key, x in numbers[kind].items() if key.startswith(setting)
            }
            numbers[name + ending] = own
    text = REPORT.format(
        **numbers,
        num_seeds=NUM_SEEDS,
        num_steps=f"{NUM_STEPS:,}",
        num_runs=NUM_SEEDS * len(STEP_SIZES),
        floor=f"{FLOOR:.0%}".replace("%", " %"),
        cartpole_seeds=CARTPOLE_SEEDS,
        garnets="\n".join(garnet_table(rows)),
        diverged="\n".join(diverged_table(rows)),
        cartpole="\n".join(cartpole_table(rows)),
        priors="\n".join(prior_table(rows)),
    )
    return re.sub(r"(?<![\w-])-(?=\d)", "−", text)


def garnet_table(rows: list[Row]) -> list[str]:
    """Ratios at the best λ and step size, and which these are."""
    lines = []
    for temperature in GARNET_TEMPERATURES:
        for share in STRANGER:
            own = select(rows, task=GARNET, temperature=temperature, behaviour=f"{share:g}")
            found = [best(select(own, trace=trace)) for trace in TRACES]
            one_step = best(select(own, trace=ONE_STEP))
            cells = (f"{gain(row).in_words('.2f')}, λ {row.lambda_:g}, α {row.step_size:g}" for row in found)
            far = f"{one_step.tv:.2f}", f"{one_step.kl:.2f}", f"{one_step.score:.3f}, α {one_step.step_size:g}"
            lines.append((f"{temperature:g}", f"{share:g}", *far, *cells))
    return table(("τ", "stranger's share", "TV(μ, π)", "KL[π ‖ μ]", "one step's error", *TRACES), lines, num_words=0)


def diverged_table(rows: list[Row]) -> list[str]:
    """Seeds that diverged at any step size."""
    lines = []
    for temperature in GARNET_TEMPERATURES:
        for share in STRANGER:
            own = select(rows, task=GARNET, temperature=temperature, behaviour=f"{share:g}")
            lost = [
                " / ".join(f"{sum(x.num_diverged for x in select(own, trace=t, lambda_=lam)):,}" for lam in LAMBDAS)
                for t in TRACES
            ]
            lines.append((f"{temperature:g}", f"{own[0].tv:.2f}", *lost))
    return table(("τ", "TV(μ, π)", *TRACES), lines, num_words=0)


def cartpole_table(rows: list[Row]) -> list[str]:
    """Returns of λ = 0 and of every coefficient."""
    lines = []
    for one_step, *longer in zip(*(returns(rows, trace) for trace in (ONE_STEP, *TRACES)), strict=True):
        retrace = longer[TRACES.index("retrace")]
        best_step = f"{score(one_step)}, α {one_step.step_size:g}"
        cells = (str(score(row)) for row in longer)
        lines.append((one_step.behaviour, f"{one_step.tv:.2f} / {retrace.tv:.2f}", best_step, *cells))
    return table(("ε", "TV(μ, π), λ = 0 / retrace", "λ = 0", *TRACES), lines, num_words=0)


def prior_table(rows: list[Row]) -> list[str]:
    """Ratios of Retrace and Tree Backup at their best λ, for each task, temperature, behaviour and prior."""
    lines = []
    for task in TASKS[:2]:
        for temperature in task.temperatures:
            for behaviour in BEHAVIOURS:
                for prior in PRIORS:
                    own = select(rows, task=task.name, temperature=temperature, behaviour=behaviour, prior=prior)
                    one_step = best(select(own, trace=ONE_STEP))
                    found = [best(select(own, trace=trace)) for trace in ("tree_backup", "retrace")]
                    cells = (f"{gain(row).in_words('.2f')}, λ {row.lambda_:g}, α {row.step_size:g}" for row in found)
                    far = f"{one_step.tv:.2f}", f"{one_step.score:.3f}, α {one_step.step_size:g}"
                    lines.append((f"{task.name}, {temperature:g}", behaviour, prior, *far, *cells))
    header = "task, τ", "acting", "prior", "TV(μ, π)", "one step's error", "tree_backup", "retrace"
    return table(header, lines, num_words=3)


REPORT = """\
# How far off-policy may the data be?

Longer returns are held against one-step soft Q-learning from the *same* behaviour, so that what the behaviour explores
cancels out. Two distances: the total variation TV(μ, π) and KL[π ‖ μ], between the behaviour μ and the policy π that is
learned. Made by `python experiments/off_policy.py`; all numbers are in [off_policy.csv](off_policy.csv).

* **With a sharp policy every coefficient that cuts loses its gain where the behaviour is that of another task.** On
  random MDPs at τ = 0.1 Retrace's error is {sharp[share 0; retrace]:.2f} of one step's at a TV of
  {sharp_tv[share 0]:.2f}, {sharp[share 0.5; retrace]:.2f} at {sharp_tv[share 0.5]:.2f} and
  {sharp[share 1; retrace]:.2f} at {sharp_tv[share 1]:.2f}; Tree Backup and Watkins's cut are alike. None of the three
  lost a seed at any setting. We suppose that it is the traces, which get shorter; but at the largest TV one step's own
  error is three times as large, too, since states of interest are hardly visited.
* **A softer policy costs Tree Backup and the cut their gain, and Retrace nothing.** At a TV of about 0.4 Retrace's
  error is the same share of one step's at both temperatures, {sharp[share 0.5; retrace]:.2f} and
  {soft[share 1; retrace]:.2f}, where Tree Backup goes from {sharp[share 0.5; tree_backup]:.2f} to
  {soft[share 1; tree_backup]:.2f} and the cut from {sharp[share 0.5; watkins]:.2f} to {soft[share 1; watkins]:.2f}.
  No soft policy here was farther from its behaviour than {soft_tv[share 1]:.2f}.
* **Importance sampling and `uncorrected` are costly on tables.** At λ = 0.9, over all step sizes, more than a quarter
  of all runs diverge, and at τ = 0.1 even the best settings of `uncorrected` are worse than one step. Distances are
  those at Q*: at first π is uniform, and a behaviour that ends near it is far from it.
* **With a network, rollouts of 32 steps and Adam, nothing diverged, and the longest traces ended highest.** On
  CartPole with every action random `uncorrected` gains {far_cartpole_gain[ε 1; uncorrected]:.0f} over λ = 0,
  importance sampling {far_cartpole_gain[ε 1; importance_sampling]:.0f}, Retrace
  {far_cartpole_gain[ε 1; retrace]:.0f}. Near the policy, up to a quarter of random actions, the three are alike.
* **A reference policy changes what λ gains.** Where the behaviour is uniform, Retrace gains more relative to a good
  prior than to a bad one in all four settings. Where the policy acts, a bad prior leaves nothing to gain: no reward is
  found, and no λ carries back what was not found.

![Gains over the distance of the behaviour](off_policy.png)

## Random MDPs

Online tables as in [a first look at Soft Q(λ)](soft_q_lambda.md): {num_steps} steps, a constant step size, an MDP of 20
states and 4 actions for each of {num_seeds} seeds. The behaviour is fixed: {floor} of uniformly random actions, the
rest shared by the soft optimum of the MDP itself and that of another one, the stranger. A number is the mean error over
that of one step at its own best step size with the same seed (median and 95 % interval), each at its best λ of 0.5,
0.9, 1 and its best α of 0.05 to 1: 1 is no gain, less is a gain. The best setting was chosen on the same seeds.

{garnets}

Seeds that diverged at λ = 0.5 / 0.9 / 1, of {num_runs} each, over all step sizes; those of the others count as
infinitely far:

{diverged}

## CartPole

Soft Q(λ) on rollouts as in [λ on CartPole](lambda_on_cartpole.md), λ = 0.9, α = 0.03, τ = 1, and λ = 0 at the better of
α = 0.01 and 0.03; a share ε of the actions is uniformly random. IQM over {cartpole_seeds} seeds of the final return,
none failed. They were trained by a later version than those of that page, which rounds differently: the same setting
differs by up to 23, within the intervals. The distance is the mean of the last quarter of the training. At ε = 0
Retrace, importance sampling and `uncorrected` are one coefficient.

{cartpole}

## Reference policies

The priors of [what a reference policy does to learning](reference_policies.md), {num_steps} steps, {num_seeds} seeds;
numbers as for random MDPs. 1.00 [1.00, 1.00] under a bad prior that acts means that nobody learned anything.

{priors}
"""


if __name__ == "__main__":
    main()

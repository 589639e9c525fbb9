"""What soft λ-returns learn from a fixed data set: `python experiments/fixed_data.py`, a quarter of an hour on 2 cores.

CartPole, from 50,000 steps of a uniformly random policy, which balances the pole for 20 steps on average: one-step soft
Q-learning (λ = 0) against every trace coefficient and λ. 16 seeds each, every one with a data set of its own. Nobody
acts: the environment only judges what was learned. Numbers that are in fixed_data.csv are kept.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path

import curves
import jax
import jax.numpy as jnp

import jaxsoft
from jaxsoft.fleet.programs import seed_keys
from jaxsoft.ops.traces import TRACES
from jaxsoft.reports.plots import COLOURS
from jaxsoft.reports.statistics import Interval, iqm_interval
from jaxsoft.training.offline import uniform_policy
from jaxsoft.types import Metrics

LAMBDAS = (0.5, 0.9, 1.0)
NUM_ENVS, NUM_STEPS = 10, 5_000
SHARED = {
    "num_updates": 10_000,
    "eval_every": 500,
    "temperature": 1.0,
    "learning_rate": 1e-3,
    "polyak": 0.99,
    "hidden_sizes": (64, 64),
    "batch_size": 16,
    "sequence_length": 8,
}

ANSWER = """
# Learning from a fixed data set

CartPole, from 50,000 steps of a uniformly random policy, which balances the pole for 20 steps on average.

**Longer returns learn faster from the same data, and do not protect from learning too long.** Over the first 2,000
gradient steps every coefficient with λ ≥ 0.9 but Tree Backup's is better than one-step soft Q-learning. After 500 steps
Retrace with λ = 1 balances for 281 [244, 333] steps and one-step learning for 165 [110, 217], whose best is 207
[184, 232] after 1,000; over the 2,000, on the same data sets, they differ by +54 [+35, +75]. Tree Backup gains less,
+12 [−6, +30] at λ = 1: π(a) < 1 multiplies its traces at every step, however well the data suit π.

**Later all of them lose what they had**, one-step learning too: at 10,000 gradient steps, 26 passes over the data, the
policies balance for 120 to 180 steps. Random data hold hardly a state of long balancing, so values there are
extrapolated, and, we suppose, the worse the better the networks fit the data. No λ changes that: no final score
differs from one-step learning's by more than its interval (Tree Backup's at λ = 1 comes nearest, +40 [−1, +87]).

So with fixed data: Retrace with λ near 1, and stop early.
"""

ONE_STEP = "λ = 0"


def label_of(trace: str, lambda_: float) -> str:
    """A cell's name."""
    return f"{trace}, λ = {lambda_:g}" if lambda_ else ONE_STEP


def cells() -> list[curves.Cell]:
    """One-step soft Q-learning, and every coefficient × λ."""
    settings = {ONE_STEP: {"lambda_": 0.0}}
    settings |= {label_of(trace, lam): {"trace": trace, "lambda_": lam} for trace in TRACES for lam in LAMBDAS}
    return [
        curves.Cell("CartPole", label, "soft_q_replay", "gymnax/CartPole-v1", SHARED | own)
        for label, own in settings.items()
    ]


def train(cell: curves.Cell, num_seeds: int) -> list[curves.Curve]:
    """Trains all seeds in one program, each from its own data; a list of one."""
    env = jaxsoft.make_env(cell.env_id)
    act = uniform_policy(env.spec.action_space, NUM_ENVS)
    learn = jaxsoft.make_offline_train(cell.agent, env, **cell.settings)

    def run(key: jax.Array) -> Metrics:
        data_key, key = jax.random.split(key)
        data = jaxsoft.record(data_key, act, env, num_steps=NUM_STEPS, num_envs=NUM_ENVS)
        return learn(key, data)[1]

    metrics = jax.device_get(jaxsoft.spread(run)(seed_keys(jnp.arange(num_seeds, dtype=jnp.int32))))
    return [curves.Curve(cell.task, cell.label, metrics["timestep"][0], metrics["eval_return"])]


def paired(measured: Sequence[curves.Curve], trace: str, lambda_: float, reports: slice) -> Interval:
    """How much higher than one-step learning's a cell's mean return over `reports` is, on the same data sets."""
    by_label = {curve.label: curve.returns[:, reports].mean(axis=1) for curve in measured}
    return iqm_interval(by_label[label_of(trace, lambda_)] - by_label[ONE_STEP])


EARLY, FINAL = slice(4), slice(-curves.LAST, None)
"""The evaluations of the first 2,000 gradient steps, and the last."""


def write_differences(file: Path, measured: Sequence[curves.Curve]) -> None:
    """Adds the table of paired differences."""
    lines = ["", "## Against one-step soft Q-learning", ""]
    lines += [
        "IQM over the data sets of the difference to λ = 0 on the same data, with its 95 % bootstrap interval.",
        "",
    ]
    lines += ["| | first 2,000 gradient steps | final |", "|---|--:|--:|"]
    for trace, lam in itertools.product(TRACES, LAMBDAS):
        early, final = (paired(measured, trace, lam, reports) for reports in (EARLY, FINAL))
        lines.append(f"| {label_of(trace, lam)} | {early} | {final} |")
    file.write_text(file.read_text() + "\n".join(lines) + "\n")


def draw(file: Path, measured: Sequence[curves.Curve], unit: str) -> None:
    """Paired differences over λ, early and final, and the learning curves of λ = 0 and of the largest λ."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    colours: dict[str, str] = dict(zip(TRACES, COLOURS, strict=False))
    figure = Figure(figsize=(10.4, 3.5), dpi=100, layout="constrained")
    early, final, learning = figure.subplots(1, 3)
    for axes, reports, title in ((early, EARLY, "first 2,000 gradient steps"), (final, FINAL, "final")):
        for trace, colour in colours.items():
            gains = [paired(measured, trace, lam, reports) for lam in (0, *LAMBDAS)]
            curves.draw_line(axes, (0, *LAMBDAS), gains, colour, trace, "o-")
        axes.set(title=title, xlabel="λ", ylabel="return beyond that of λ = 0", ylim=(-60, 90))
    for curve in measured:
        trace, _, lam = curve.label.partition(", λ = ")
        if lam in ("", f"{LAMBDAS[-1]:g}"):
            points = [iqm_interval(returns) for returns in curve.returns.T]
            curves.draw_line(learning, curve.timesteps, points, colours.get(trace, "0.3"), curve.label)
    learning.set(title="λ = 0, and the largest λ", xlabel=unit, ylabel="return")
    learning.xaxis.set_major_formatter(EngFormatter(sep=""))
    for axes in (early, final, learning):
        curves.finish_axes(axes)
    lines, labels = early.get_legend_handles_labels()
    one_step = learning.get_lines()[0]
    figure.legend([one_step, *lines], [ONE_STEP, *labels], frameon=False, loc="outside upper center", ncols=5)
    figure.savefig(file, metadata={"Software": None})


if __name__ == "__main__":
    stem = Path(__file__).with_suffix("")
    curves.main(
        __doc__ or "", stem, cells(), num_seeds=16, answer=ANSWER, measure=train, picture=draw, unit="gradient steps"
    )
    write_differences(stem.with_suffix(".md"), curves.read(stem.with_suffix(".csv")))

"""What do soft λ-returns learn from a fixed data set? `python experiments/fixed_data.py`, a quarter of an hour.

CartPole, from 50,000 steps of a uniformly random policy, which balances the pole for 20 steps on average: one-step soft
Q-learning (λ = 0) against every trace coefficient and λ. 16 seeds each, every one with a data set of its own. Nobody
acts: the environment only judges what was learned. Numbers that are in fixed_data.csv are kept.
"""

import itertools
from pathlib import Path

import curves
import jax
from pages import TRACES, draw_band, save, table

import jaxsoft
from jaxsoft.reports.plots import COLOURS
from jaxsoft.reports.statistics import Interval, iqm_interval
from jaxsoft.runs.tables import CellReturns
from jaxsoft.training.config import settings_of
from jaxsoft.training.offline import INTERACTION_SETTINGS, uniform_policy
from jaxsoft.types import Metrics

LAMBDAS = (0.5, 0.9, 1.0)
ENV_ID, NUM_SEEDS = "gymnax/CartPole-v1", 16
NUM_ENVS, NUM_STEPS = 10, 5_000
SHARED = {
    "total_timesteps": 10_000,  # gradient steps, here
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


def runs() -> list[curves.Run]:
    """One-step soft Q-learning, and every coefficient × λ."""
    settings = {ONE_STEP: {"lambda_": 0.0}}
    settings |= {label_of(trace, lam): {"trace": trace, "lambda_": lam} for trace in TRACES for lam in LAMBDAS}
    return [
        curves.Run("CartPole", label, "", curves.make_run_config("soft_q_replay", ENV_ID, SHARED | own, NUM_SEEDS))
        for label, own in settings.items()
    ]


def train(_: Path, run: curves.Run) -> curves.Curves:
    """Trains all seeds in one program, each from its own data."""
    env, config = jaxsoft.make_env(run.config.env_id), run.config.train
    settings = {name: x for name, x in settings_of(config).items() if name not in INTERACTION_SETTINGS}
    learn = jaxsoft.make_offline_train(config.kind, env, num_updates=config.total_timesteps, **settings)
    act = uniform_policy(env.spec.action_space, NUM_ENVS)

    def learn_from_own_data(key: jax.Array) -> Metrics:
        data_key, key = jax.random.split(key)
        data = jaxsoft.record(data_key, act, env, num_steps=NUM_STEPS, num_envs=NUM_ENVS)
        return learn(key, data)[1]

    found = curves.map_seeds(learn_from_own_data, run.config.num_seeds)
    return {(run.task, run.label): CellReturns({}, found["timestep"][0], found["eval_return"].T)}


def paired(measured: curves.Curves, trace: str, lambda_: float, reports: slice) -> Interval:
    """How much higher than one-step learning's a cell's mean return over `reports` is, on the same data sets."""
    cell, one_step = (measured["CartPole", label].returns[reports] for label in (label_of(trace, lambda_), ONE_STEP))
    return iqm_interval(cell.mean(axis=0) - one_step.mean(axis=0))


EARLY, FINAL = slice(4), slice(-curves.LAST, None)
"""The evaluations of the first 2,000 gradient steps, and the last."""


def write_differences(file: Path, measured: curves.Curves) -> None:
    """Adds the table of paired differences."""
    lines = ["", "## Against one-step soft Q-learning", ""]
    lines += ["IQM over the data sets of the difference to λ = 0 on the same data, with its 95 % bootstrap interval."]
    rows = (
        (label_of(trace, lam), *(paired(measured, trace, lam, reports) for reports in (EARLY, FINAL)))
        for trace, lam in itertools.product(TRACES, LAMBDAS)
    )
    lines += ["", *table(("", "first 2,000 gradient steps", "final"), rows)]
    file.write_text(file.read_text() + "\n".join(lines) + "\n")


def draw(file: Path, measured: curves.Curves, unit: str) -> None:
    """Paired differences over λ, early and final, and the learning curves of λ = 0 and of the largest λ."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    colours: dict[str, str] = dict(zip(TRACES, COLOURS, strict=False))
    figure = Figure(figsize=(10.4, 3.5), dpi=100, layout="constrained")
    early, final, learning = figure.subplots(1, 3)
    for axes, reports, title in ((early, EARLY, "first 2,000 gradient steps"), (final, FINAL, "final")):
        for trace, colour in colours.items():
            gains = [paired(measured, trace, lam, reports) for lam in (0, *LAMBDAS)]
            draw_band(axes, (0, *LAMBDAS), gains, "o-", color=colour, label=trace, markersize=3)
        axes.set(title=title, xlabel="λ", ylabel="return beyond that of λ = 0", ylim=(-60, 90))
    for (_, label), curve in measured.items():
        trace, _, lam = label.partition(", λ = ")
        if lam in ("", f"{LAMBDAS[-1]:g}"):
            curves.draw_curve(learning, curve, color=colours.get(trace, "0.3"), label=label)
    learning.set(title="λ = 0, and the largest λ", xlabel=unit, ylabel="return")
    learning.xaxis.set_major_formatter(EngFormatter(sep=""))
    save(figure, file, first=learning.get_lines()[:1])


if __name__ == "__main__":
    stem = Path(__file__).with_suffix("")
    measured = curves.main(__doc__, stem, runs(), answer=ANSWER, measure=train, picture=draw, unit="gradient steps")
    write_differences(stem.with_suffix(".md"), measured)

"""Why is a large λ far worse than λ = 0 on CartPole in few steps? `python experiments/lambda_on_cartpole.py`.

Soft Q(λ) on rollouts with one hidden layer of 16, 40,000 steps, every other setting as the preset has it. Each part is
one program, whose step sizes, λ and seeds are trained at once. It writes beside itself

    lambda_on_cartpole.csv     every cell's scores, with intervals
    lambda_on_cartpole.md      tables
    lambda_on_cartpole.png     scores over step sizes

Parts that are in lambda_on_cartpole.csv are kept; all of it takes about a quarter of an hour on 2 cores.

A score is a seed's mean return over ten greedy episodes at the end; over seeds: the interquartile mean with its 95 %
bootstrap interval. The level is the mean of Q(s, a) in the last quarter of the training, over all seeds.
"""

from __future__ import annotations

import argparse
import itertools
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pages import draw_band, save, table
from rows import read_rows, write_rows

import jaxsoft
from jaxsoft.agents import boltzmann, soft_q
from jaxsoft.fleet.programs import seed_keys
from jaxsoft.nn.networks import action_value
from jaxsoft.nn.normalisation import features
from jaxsoft.ops.traces import TRACES
from jaxsoft.reports.plots import COLOURS
from jaxsoft.reports.statistics import Interval, iqm_interval
from jaxsoft.types import Agent, AgentKind, EnvSpec, Metrics, Transition

ROWS = Path(__file__).with_suffix(".csv")
CARTPOLE, ACROBOT = "gymnax/CartPole-v1", "gymnax/Acrobot-v1"
LAMBDAS = (0.0, 0.5, 0.8, 0.9, 1.0)
SMALL, LARGE = (1e-3, 3e-3), (1e-2, 3e-2, 1e-1)
TWO = {"learning_rate": SMALL, "lambda_": (0.0, 0.9)}
BEHAVIOUR = {"exploration": 0.25}
GREEDY = {"exploration": 0.1, "temperature": 0.01}
AT_ONCE = 16
"""Members trained side by side: their parameters and environments stay in a core's cache."""


class Part(NamedTuple):
    """Cells of one program: a grid of numbers, and settings that shape the program."""

    grid: dict[str, tuple[float, ...]]
    settings: dict[str, Any]
    num_seeds: int = 32
    env_id: str = CARTPOLE
    total_timesteps: int = 40_000
    reward_scale: float = 1.0
    level: str = ""
    """`start`: Q starts at 20 for every action; `follow`: the mean error of a rollout is added to Q at once."""


class Cell(NamedTuple):
    """One setting's scores over seeds."""

    part: str
    learning_rate: float
    lambda_: float
    iqm: float
    low: float
    high: float
    level: float
    num_seeds: int


def coefficients(settings: dict[str, Any], grid: dict[str, tuple[float, ...]], suffix: str) -> dict[str, Part]:
    """A part per trace coefficient."""
    return {f"{trace}{suffix}": Part(grid, settings | {"trace": trace}) for trace in TRACES}


PARTS = {
    f"{trace}, on-policy": Part({"learning_rate": SMALL, "lambda_": LAMBDAS}, {"trace": trace}, num_seeds=64)
    for trace in ("retrace", "tree_backup", "watkins")
}
PARTS |= {
    "as it is": Part(TWO, {}),
    "Q starts at 20": Part(TWO, {}, level="start"),
    "the level follows at once": Part(TWO, {}, level="follow"),
    "rewards and τ × 0.1": Part(TWO, {"temperature": 0.1}, reward_scale=0.1),
    "16 epochs": Part(TWO, {"num_epochs": 16}),
    "constant step size": Part(TWO, {"decay_learning_rate": False}),
    "scale_rewards, τ = 0.3": Part(TWO, {"scale_rewards": True, "temperature": 0.3}),
    "large steps": Part({"learning_rate": LARGE, "lambda_": LAMBDAS}, {}),
    "Acrobot": Part({"learning_rate": SMALL + LARGE, "lambda_": (0.0, 0.9)}, {}, env_id=ACROBOT),
}
PARTS |= coefficients(BEHAVIOUR, {"learning_rate": (3e-3, 3e-2), "lambda_": (0.9,)}, ", ε = 0.25")
PARTS |= {
    f"{trace}, ε-greedy": Part({"learning_rate": (3e-3, 3e-2), "lambda_": (0.0, 0.9)}, GREEDY | {"trace": trace})
    for trace in ("watkins", "retrace")
}
WIDE = Part(TWO, {"hidden_sizes": (128, 128)}, num_seeds=8)
PARTS |= {
    "layers of (128, 128)": WIDE,
    "layers of (128, 128), 200,000 steps": WIDE._replace(total_timesteps=200_000),
}

SHOWN = {"CartPole": ("retrace, on-policy", "large steps"), "Acrobot": ("Acrobot",)}
"""The parts of each task's scores over step sizes."""

ANSWER = """
# Why is a large λ worse on CartPole?

**The step size is too small for the returns. λ-targets are far from an untrained Q-function, and a large λ pays only
where Q can reach them during the training.** With one hidden layer of 16 and 40,000 steps, Retrace at λ = 0.9 ends at
84 where λ = 0 ends at 258 (step size 3e-3), at 9.5 where λ = 0 ends at 24 (1e-3). At a step size of 3e-2 it is 500
[498, 500] against 331 [306, 372].

* **How far Q can go.** 40,000 steps are 39 rollouts of 32 gradient steps: 1,250. Adam moves every weight by about the
  step size α at most, which falls to 0, and the features are normalised. The level, the part of Q that all states and
  actions share, therefore moves by about 0.2 × width × α × gradient steps, more where the weights grow on the way: 4 at
  α = 1e-3, 12 at 3e-3. Measured are 4.6 and 14; discounted returns are up to 100.
* **What a distance does.** Q starts near 0 and true values are far above: every λ-target says that the action taken was
  better than thought. The action that is taken more often rises faster and is taken more often: at 1e-3 most seeds end
  with one action in all states, which is a return of 9.4. One-step targets lie at most a reward above Q, so that a
  failure, whose target is one reward, soon stands out.
* **The test.** If Q starts at 20 for all actions, and nothing else is changed, λ = 0.9 is no worse than λ = 0: 64
  against 64 and 121 against 135. If the mean error of each rollout is added to Q at once, λ = 0.9 is no longer behind
  at 1e-3 (77 [59, 96] against 56 [48, 71]) and less far behind at 3e-3 (162 against 311 in place of 67 against 249):
  there the differences between states have far to go, too. In a unit of reward ten times as large, where returns are
  small numbers but the problem and the relative noise of its targets are the same, λ = 0.9 is ahead at 1e-3, 68 against
  26, and not behind at 3e-3, 165 [141, 199] against 110 [79, 148]. So it is with `scale_rewards`: 71 against 31, and
  229 [186, 273] against 174 [138, 222]. With four times the epochs it is ahead at 3e-3 (499 against 356), and with a
  wider network (477 [430, 500] against 341 [261, 412]). A constant step size goes further and leaves less of the gap
  (273 against 369).
* **What it is not.** The targets are right: those of twenty rollouts of this training agreed with a loop in NumPy to
  1e-5, and tables approach Q* at λ = 0.8, too (`tests/`). The relative variance of the targets is the same at every
  step size and in every unit of reward. Exploration helps little: with a quarter of random actions Retrace ends at 121
  at 3e-3 and at 500 at 3e-2.
* **λ = 0 has a limit of its own,** which no step size lifts: a rollout's targets lie at most a reward above Q. With 39
  rollouts its level is 22 to 26 wherever the steps are large enough, and its policies end at 331 to 415.
* **Coefficients.** Without exploration Retrace, importance sampling and `uncorrected` are one coefficient, 1. The
  shorter the trace, the smaller the lag at small steps: Tree Backup and Watkins's cut lose less at 3e-3, λ = 0.9 (223
  and 195). At 3e-2 it is the other way round: with a quarter of random actions, Retrace, importance sampling and
  `uncorrected` end at 500, Watkins's cut at 416 [349, 468], Tree Backup at 373 [296, 445].
* **The baseline that others use,** Watkins's cut and ε-greedy behaviour (τ = 0.01, ε = 0.1), ends lower than the same
  cut with τ = 1 and ε = 0.25, at 3e-2 within the intervals (360 [263, 441] against 416 [349, 468]), and has the same
  turn: 15 against 50 of λ = 0 at 3e-3, 360 [263, 441] against 255 [196, 338] at 3e-2. With this behaviour Retrace and
  the cut are hardly different coefficients.
* **Acrobot** tells nothing for sure in 40,000 steps of so small a network: at 1e-3 and 3e-3 no cell learns it, and
  beyond them the intervals of λ = 0 and λ = 0.9 overlap. Nothing there speaks for small steps.

**What to do.** Take α of at least V / (0.2 × width × gradient steps): V is the largest discounted return, 1/(1 − γ) for
a reward of 1 per step; width is that of the last hidden layer; gradient steps are those of the whole training. That is
0.025 here and 0.003 with 128 units. The default of 1e-3 fits the default budget of 500,000 steps, where 0.00025 would
do: after 200,000 steps the score is 500 with either λ. At 40,000 steps it is too small for λ = 0.9 (167 against
344). What else helps: more epochs, or `scale_rewards`. `q_mean` in the metrics shows the fault: a level that climbs
until the training ends, far below the returns. Where the steps cannot be large, a small λ or a short trace loses least.
"""


NUMBERS = """
Soft Q(λ) on rollouts with the preset of CartPole, but for `hidden_sizes` = (16,) and the settings named; 40,000 steps.
A score is the IQM over seeds of the mean return of ten greedy episodes at the end, with its 95 % bootstrap interval; in
italics the level, the mean of Q(s, a) in the last quarter of the training. 64 seeds with small steps on-policy, 8 with
the hidden layers of (128, 128), else 32; none failed. Made by `python experiments/lambda_on_cartpole.py`.
"""


def shift(params: Any, by: float | jax.Array) -> Any:
    """Adds the same to Q of all states and actions: to the bias of the last layer."""
    layers = params["params"]
    last = max(name for name in layers if name.startswith("Dense"))
    moved = layers[last] | {"bias": layers[last]["bias"] + by}
    return params | {"params": layers | {last: moved}}


def make(config: soft_q.Config, spec: EnvSpec, num_updates: int, *, level: str) -> Agent:
    """Soft Q(λ) whose level, the part of Q that all states and actions share, is set from outside."""
    agent = soft_q.make(config, spec, num_updates)
    network = boltzmann.q_function(config, spec)
    policy = boltzmann.make_boltzmann(config, spec, network.apply, num_updates)  # type: ignore[arg-type]

    def with_level(state: soft_q.State, by: float | jax.Array) -> soft_q.State:
        return replace(state, policy=replace(state.policy, params=shift(state.policy.params, by)))

    def init(key: jax.Array) -> soft_q.State:
        return with_level(agent.init(key), 20.0)

    def update(key: jax.Array, state: soft_q.State, batch: Transition) -> tuple[soft_q.State, Metrics]:
        own, tau = state.policy, boltzmann.temperature(policy, state.policy)
        targets = soft_q.sequence_targets(own.params, policy, own, batch, tau)
        q_a = action_value(policy.q_values(own.params, features(own, batch.obs)), batch.action)
        return agent.update(key, with_level(state, jnp.mean(targets - q_a)), batch)

    return agent._replace(init=init) if level == "start" else agent._replace(update=update)


def scale_rewards(env: jaxsoft.Env, by: float) -> jaxsoft.Env:
    """The same task in another unit of reward; times τ in that unit, the same optimal policy."""

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, Any]:
        state, time_step = env.step(key, state, action)
        return state, replace(time_step, reward=by * time_step.reward)

    return env._replace(step=step) if by != 1 else env


def measure(name: str, part: Part) -> list[Cell]:
    """Trains a part's cells."""
    env = scale_rewards(jaxsoft.make_env(part.env_id), part.reward_scale)
    kind = replace(soft_q.KIND, make=partial(make, level=part.level)) if part.level else soft_q.KIND
    settings = {"hidden_sizes": (16,), "eval_every": part.total_timesteps // 4} | part.settings

    def learn(member: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        key, numbers = member
        return train(kind, env, part, settings | dict(zip(part.grid, numbers, strict=True)))(key)

    cells = list(itertools.product(*part.grid.values()))
    keys = seed_keys(jnp.tile(jnp.arange(part.num_seeds, dtype=jnp.int32), len(cells)))
    numbers = jnp.repeat(jnp.asarray(cells, jnp.float32), part.num_seeds, axis=0)
    start = time.perf_counter()
    found = jax.jit(lambda *x: jax.lax.map(learn, x, batch_size=AT_ONCE))(keys, numbers)
    returns, levels = (np.asarray(x).reshape(len(cells), part.num_seeds) / part.reward_scale for x in found)
    print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    return [
        Cell(name, learning_rate, lambda_, *iqm_interval(returns[i]), float(levels[i].mean()), part.num_seeds)
        for i, (learning_rate, lambda_) in enumerate(cells)
    ]


def train(kind: AgentKind, env: jaxsoft.Env, part: Part, settings: dict[str, Any]) -> Any:
    """`(key) -> (final return, level)`."""
    whole = jaxsoft.make_train(kind, env, total_timesteps=part.total_timesteps, **settings)

    def last(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        metrics = whole(key)[1]
        return metrics["eval_return"][-1], metrics["q_mean"][-1]

    return last


def text(cell: Cell) -> str:
    """The score and, in italics, the level."""
    return f"{Interval(cell.iqm, cell.low, cell.high)} *{cell.level:.3g}*"


def score_table(corner: str, rows: dict[str, list[Cell]]) -> list[str]:
    """A table: a row per name, a column per step size and λ."""
    first = next(iter(rows.values()))
    several = len({cell.learning_rate for cell in first}) > 1
    header = [f"λ = {c.lambda_:g}" + (f", α = {c.learning_rate:g}" if several else "") for c in first]
    return table((corner, *header), ((name, *map(text, row)) for name, row in rows.items()))


def by_step_size(cells: list[Cell]) -> dict[str, list[Cell]]:
    """A row per step size."""
    return {f"{x:g}": [c for c in cells if c.learning_rate == x] for x in sorted({c.learning_rate for c in cells})}


def write(cells: list[Cell]) -> None:
    """The answer and its tables."""
    of = {name: [cell for cell in cells if cell.part == name] for name in PARTS}
    on_policy = [name for name in PARTS if name.endswith("on-policy")]
    lines = [ANSWER.strip(), "", *NUMBERS.strip().splitlines(), "", "## Small steps"]
    for step_size in SMALL:
        rows = {name: [c for c in of[name] if c.learning_rate == step_size] for name in on_policy}
        lines += ["", *score_table(f"α = {step_size:g}", rows)]
    changed = [name for name, part in PARTS.items() if part.grid == TWO]
    lines += ["", "## What is changed", "", *score_table("", {name: of[name] for name in changed})]
    lines += ["", f"![Scores over step sizes]({ROWS.stem}.png)"]
    for task, names in SHOWN.items():
        rows = by_step_size([cell for name in names for cell in of[name]])
        lines += ["", f"## Step sizes on {task}", "", *score_table("α", rows)]
    exploring = {name: of[name] for name, part in PARTS.items() if "exploration" in part.settings}
    lines += ["", "## Exploring behaviour"]
    for greedy in (False, True):
        rows = {name: row for name, row in exploring.items() if name.endswith("greedy") == greedy}
        lines += ["", *score_table("", rows)]
    ROWS.with_suffix(".md").write_text("\n".join(lines) + "\n")


def draw(cells: list[Cell]) -> None:
    """Scores over step sizes, a line per λ."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 3.2), dpi=100, layout="constrained")
    for axes, (task, names) in zip(figure.subplots(1, 2), SHOWN.items(), strict=True):
        for lambda_, colour in zip(LAMBDAS, COLOURS, strict=False):
            line = [c for name in names for c in cells if (c.part, c.lambda_) == (name, lambda_)]
            if line:
                at = [c.learning_rate for c in line]
                draw_band(axes, at, [(c.iqm, c.low, c.high) for c in line], color=colour, label=f"λ = {lambda_:g}")
        axes.set(title=task, xlabel="step size α", ylabel="final return", xscale="log")
    save(figure, ROWS.with_suffix(".png"))


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    cells = read_rows(ROWS, Cell) if ROWS.exists() else []
    for name, part in PARTS.items():
        if all(cell.part != name for cell in cells):
            cells += measure(name, part)
            write_rows(ROWS, cells)
    write(cells)
    draw(cells)


if __name__ == "__main__":
    main()

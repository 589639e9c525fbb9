"""What does a reference policy do to learning? `python experiments/reference_policies.py`, five minutes on 2 cores.

A good prior takes an optimal action of the plain task with probability 0.8, a bad one with 0.05, a neutral one any
alike. Two things change with the prior. The problem itself: each prior has its own Q*, and the price of doing what it
dislikes is τ log 1/π0 a step, so that at a high temperature the optimum follows a bad prior. And the way to the
solution: online Soft Q(λ) is measured by its distance to its own Q* and by what its policy earns in the plain task,
once with the target policy acting, which explores as the prior does, and once with a uniform behaviour, which takes
exploration out.

It writes reference_policies.csv, reference_policies.md and reference_policies.png beside itself; `--redraw` keeps the
numbers.
"""

from __future__ import annotations

import itertools
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pages import draw_band, save, table
from rows import error_weights, median, read_rows, weighted_error, write_rows

from jaxsoft.envs import finite
from jaxsoft.envs.mdp import FiniteMDP, expected_rewards, reachable_states, transition_matrix
from jaxsoft.ops import boltzmann_log_probs
from jaxsoft.reports.plots import COLOURS
from jaxsoft.tabular import soft_policy_iteration, soft_q_lambda
from jaxsoft.tabular.behaviour import Behaviour, OnPolicy, Uniform

POINTS = Path(__file__).with_suffix(".csv")
NUM_SEEDS = 256
NUM_STEPS, NUM_RECORDS = 6_000, 20
LAMBDA, STEP_SIZE = 0.9, 0.5
PRIORS = {"good": 0.8, "neutral": None, "bad": 0.05}
"""Probability of an optimal action; all of them share it."""
COLOUR_OF = {"good": COLOURS[2], "neutral": COLOURS[0], "bad": COLOURS[1]}
BEHAVIOURS: dict[str, Behaviour] = {"on-policy": OnPolicy(), "uniform": Uniform()}


class Task(NamedTuple):
    """An MDP, its time limit, two temperatures to learn at, and temperatures to solve at."""

    name: str
    mdp: FiniteMDP
    max_episode_steps: int
    temperatures: tuple[float, float]


TASKS = (
    Task("Chain-20", finite.chain(20), 1_600, (0.005, 0.05)),
    Task("MultiGoal-7x7", finite.gridworld(7, 7), 490, (0.02, 0.2)),
    Task("CliffWalking", finite.cliff_walking(), 1_000, (0.2, 2.0)),
)


SETTINGS = [(task.name, temperature) for task in TASKS for temperature in task.temperatures]


class Point(NamedTuple):
    """One setting after so many steps: medians over seeds and 95 % intervals.

    `error` is the distance to the prior's own Q*, weighted as in soft_q_lambda.py; `earned` the discounted return of
    the learned policy in the plain task. `own_optimum` is what the prior's optimal soft policy earns there.
    """

    task: str
    temperature: float
    prior: str
    behaviour: str
    step: int
    error: float
    error_low: float
    error_high: float
    earned: float
    earned_low: float
    earned_high: float
    own_optimum: float
    num_diverged: int


def main() -> None:
    points = read_rows(POINTS, Point) if "--redraw" in sys.argv[1:] else measure()
    shifted = {task.name: shift(task) for task in TASKS}
    draw(points, shifted)
    write(points, shifted)


def measure() -> list[Point]:
    """Learns every setting with every seed, and writes the numbers."""
    points = []
    for task in TASKS:
        settings = itertools.product(task.temperatures, make_priors(task.mdp).items(), BEHAVIOURS.items())
        for temperature, (prior, log_probs), (name, behaviour) in settings:
            errors, earned, own_optimum = learn(task, temperature, log_probs, behaviour)
            diverged = ~np.isfinite(errors).all(axis=-1, keepdims=True)
            errors, earned = np.where(diverged, np.inf, errors), np.where(diverged, -np.inf, earned)
            for i in range(NUM_RECORDS):
                setting = task.name, temperature, prior, name, NUM_STEPS // NUM_RECORDS * (i + 1)
                medians = *median(errors[:, i]), *median(earned[:, i])
                points.append(Point(*setting, *medians, own_optimum, int(diverged.sum())))
            print(task.name, temperature, prior, name, flush=True)
    write_rows(POINTS, points)
    return read_rows(POINTS, Point)


def make_priors(mdp: FiniteMDP) -> dict[str, jax.Array]:
    """Log π0 [S, A] of each prior; optimal actions are those within rounding of the best in the plain task."""
    q = soft_policy_iteration(mdp, temperature=1e-4, tolerance=1e-6).q
    best: jax.Array = q >= jnp.max(q, axis=-1, keepdims=True) - 1e-3
    num_best = jnp.sum(best, axis=-1, keepdims=True)
    num_others = mdp.num_actions - num_best
    priors = {}
    for name, share in PRIORS.items():
        share_of_best = num_best / mdp.num_actions if share is None else jnp.where(num_others == 0, 1.0, share)
        others = (1 - share_of_best) / jnp.maximum(num_others, 1)
        priors[name] = jnp.log(jnp.where(best, share_of_best / num_best, others))
    return priors


def solve(mdp: FiniteMDP, temperature: float | jax.Array, log_probs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Q* and the optimal soft policy of one prior."""
    best = soft_policy_iteration(mdp, temperature=temperature, reference_log_probs=log_probs, tolerance=1e-5)
    return best.q, best.policy


def plain_return(mdp: FiniteMDP, policy: jax.Array) -> jax.Array:
    """Mean discounted return from the start, without penalty and without time limit, exactly."""
    rewards = jnp.sum(policy * expected_rewards(mdp), axis=-1)
    matrix = mdp.discount * jnp.einsum("sa,sat->st", policy, transition_matrix(mdp))
    return mdp.initial_probs @ jnp.linalg.solve(jnp.eye(mdp.num_states) - matrix, rewards)


Shift = tuple[np.ndarray, dict[str, np.ndarray]]
"""Temperatures, and for each prior what its optimal soft policy earns in the plain task at them."""


def shift(task: Task) -> Shift:
    """Solves the problem of every prior over temperatures."""
    low, high = task.temperatures
    temperatures = np.geomspace(low / 2, high * 10, 15)

    def earned(log_probs: jax.Array, temperature: jax.Array) -> jax.Array:
        return plain_return(task.mdp, solve(task.mdp, temperature, log_probs)[1])

    sweep = jax.jit(jax.vmap(earned, (None, 0)))
    priors = make_priors(task.mdp)
    return temperatures, {name: np.asarray(sweep(prior, jnp.asarray(temperatures))) for name, prior in priors.items()}


def learn(
    task: Task, temperature: float, log_probs: jax.Array, behaviour: Behaviour
) -> tuple[np.ndarray, np.ndarray, float]:
    """Errors and plain returns [NUM_SEEDS, NUM_RECORDS] of one prior, and the plain return of its optimum."""
    q_star, policy = solve(task.mdp, temperature, log_probs)
    weights = error_weights(q_star, policy, jnp.asarray(reachable_states(task.mdp), float))

    def seed(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        learned = soft_q_lambda(
            key,
            task.mdp,
            num_steps=NUM_STEPS,
            num_records=NUM_RECORDS,
            temperature=temperature,
            lambda_=LAMBDA,
            step_size=STEP_SIZE,
            reference_log_probs=log_probs,
            behaviour=behaviour,
            max_episode_steps=task.max_episode_steps,
        )
        policies = jnp.exp(boltzmann_log_probs(learned.history.q, log_probs, temperature))
        errors = weighted_error(learned.history.q, q_star, weights)
        return errors, jax.vmap(partial(plain_return, task.mdp))(policies)

    keys = jax.random.split(jax.random.key(0), NUM_SEEDS)
    errors, earned = jax.jit(jax.vmap(seed))(keys)
    return np.asarray(errors), np.asarray(earned), float(plain_return(task.mdp, policy))


def draw(points: list[Point], shifted: dict[str, Shift]) -> None:
    """For each task: where the optimum goes with the temperature, and learning at the lower of two temperatures."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.4, 8.4), dpi=80, layout="constrained")
    panels = figure.subplots(len(TASKS), 3)
    for row, task in zip(panels, TASKS, strict=True):
        temperatures, earned = shifted[task.name]
        for prior, colour in COLOUR_OF.items():
            row[0].plot(temperatures, earned[prior], color=colour, label=f"{prior} prior")
            for behaviour, style in (("on-policy", "-"), ("uniform", "--")):
                curve = curve_of(points, task.name, task.temperatures[0], prior, behaviour)
                steps = [point.step for point in curve]
                for axes, name in ((row[1], "error"), (row[2], "earned")):
                    draw_band(axes, steps, [interval_of(point, name) for point in curve], style, color=colour)
        for temperature in task.temperatures:
            row[0].axvline(temperature, color="0.8", linewidth=1, zorder=0)
        row[0].set(xscale="log", ylabel="return of the optimum", title=f"{task.name}: the optimum of each prior")
        row[1].set(ylabel="error against its own Q*", title=f"learning, τ = {task.temperatures[0]:g}")
        row[1].set_ylim(bottom=0)
        row[2].set(ylabel="return of the learned policy", title=f"learning, τ = {task.temperatures[0]:g}")
        for axes, label in zip(row, ("temperature τ", "environment steps", "environment steps"), strict=True):
            axes.set_xlabel(label)
    panels[0, 0].plot([], [], "-", color="0.4", label="on-policy acts")
    panels[0, 0].plot([], [], "--", color="0.4", label="uniform acts")
    save(figure, POINTS.with_suffix(".png"))


def curve_of(points: list[Point], task: str, temperature: float, prior: str, behaviour: str) -> list[Point]:
    """One setting's points in the order of their steps."""
    return [point for point in points if point[:4] == (task, temperature, prior, behaviour)]


def write(points: list[Point], shifted: dict[str, Shift]) -> None:
    """The answers and their tables."""
    text = REPORT.format(
        num_steps=f"{NUM_STEPS:,}",
        num_seeds=NUM_SEEDS,
        lambda_=LAMBDA,
        step_size=STEP_SIZE,
        learning="\n".join(learning_table(points)),
        optima="\n".join(optimum_table(shifted)),
        lost=diverged_in_words(points),
    )
    POINTS.with_suffix(".md").write_text(text)
    print(text, end="")


def diverged_in_words(points: list[Point]) -> str:
    """How many seeds of which settings diverged."""
    last = [point for point in points if point.step == NUM_STEPS]
    lost = [
        f"{p.num_diverged} of {p.task}, τ {p.temperature:g}, {p.prior}, {p.behaviour}" for p in last if p.num_diverged
    ]
    num_lost = sum(point.num_diverged for point in last)
    found = f"{num_lost} of {len(last) * NUM_SEEDS:,} runs diverged"
    counting = "counts" if num_lost == 1 else "count"
    return f"{found} and {counting} as infinitely far ({'; '.join(lost)})." if lost else f"{found}."


def interval_of(point: Point, name: str) -> tuple[float, float, float]:
    """The median of `error` or `earned`, and the ends of its interval."""
    median, low, high = (getattr(point, name + end) for end in ("", "_low", "_high"))
    return median, low, high


def learning_table(points: list[Point]) -> list[str]:
    """Errors and returns of every setting."""
    early, rows = NUM_STEPS // 4, []
    for task, behaviour, prior in itertools.product(SETTINGS, BEHAVIOURS, PRIORS):
        curve = curve_of(points, *task, prior, behaviour)
        looks = [next(point for point in curve if point.step == early), curve[-1]]
        numbers = [interval_of(point, name) for name in ("error", "earned") for point in looks]
        cells = (f"{x:.3f} [{low:.3f}, {high:.3f}]" for x, low, high in numbers)
        rows.append(("{}, {:g}".format(*task), behaviour, prior, *cells, f"{curve[-1].own_optimum:.3f}"))
    header = ["task, τ", "acting", "prior", f"error after {early:,}", f"after {NUM_STEPS:,}"]
    return table([*header, f"return after {early:,}", f"after {NUM_STEPS:,}", "of its optimum"], rows, num_words=3)


def optimum_table(shifted: dict[str, Shift]) -> list[str]:
    """What the optimum of each prior earns, from the lowest temperature to the highest."""
    rows = []
    for task in TASKS:
        temperatures, earned = shifted[task.name]
        nearest = [int(np.argmin(np.abs(np.log(temperatures / t)))) for t in task.temperatures]
        shown = [0, *nearest, len(temperatures) - 1]
        for prior in PRIORS:
            rows.append(
                (f"{task.name}, {prior}", *(f"{earned[prior][i]:.3f} (τ {temperatures[i]:.2g})" for i in shown))
            )
    return table(("task, prior", "lowest τ", "lower τ learned", "higher τ learned", "highest τ"), rows)


REPORT = """\
# What a reference policy does to learning

Online Soft Q(λ) with Tree Backup, λ = {lambda_}, α = {step_size}, Q = 0 at first, {num_seeds} seeds, {num_steps}
steps. A good prior gives an optimal action of the plain task the probability 0.8, a bad one 0.05, a neutral one
treats all alike. The error is the weighted relative distance to the prior's own Q*; returns are discounted and in
the plain task, without penalty, of the learned soft policy: medians over seeds and 95 % intervals. {lost} Made by
`python experiments/reference_policies.py`; all numbers are in [reference_policies.csv](reference_policies.csv).

![The optimum of each prior, and learning](reference_policies.png)

## What a prior makes of the optimum

An action that the prior takes with probability p costs τ log 1/p where it is always taken. With the bad prior that
is 3 τ a step, over the 20 steps of the chain, 6 of the gridworld and 13 of the cliff. That price equals what
reaching the goal gains at τ = 0.014, 0.043 and 2.2, and there the returns of its optimum begin to fall (left
column), within a factor of two or three to nothing: the soft optimum is then to do as the prior does. A neutral
prior's optimum fades slowly, a good one's hardly. Order is not guaranteed in between: on the cliff at τ = 2 the bad
prior's optimum earns more than the neutral one's. What the optimum of each prior earns (return in the plain task):

{optima}

A learner that is perfectly close to such a Q* has learned the wrong task: on the chain at τ = 0.05, with a
uniform behaviour, the bad prior's error is the smallest of all, and its policy earns nothing. The error against
one's own Q* says how well a problem is solved, not which problem.

## What it does to learning speed

Where the target policy acts, the prior explores. With a bad one the median seed has not found the reward of the
chain or the gridworld after {num_steps} steps, at either temperature: the error stays at 1, though at the low
temperature its optimum is as good as the others'. With a good one the return there is within 3 % of the best
possible at the first look, after 300 steps. The error then falls slowly or not at all: what is hardly tried is
hardly learned.

Where the behaviour is uniform, exploration is the same for all priors, and little is left of the difference: at low
temperatures the errors fall to 0.001 under all priors on the chain and in the gridworld, and on the cliff to 0.50,
0.54 and 0.56. A good prior is a little ahead on the way, because its V is nearer to what the best action gives
while Q still knows little. The policy's return differs for longer: it follows a bad prior until the differences in
Q are as large as τ log 1/p, after 2,100 steps on the chain.

{learning}

## What to do with it

A prior that is believed to be good saves exploration, which is most of what can be saved. One that may be bad needs
a temperature at which the price of the whole way, steps × τ log 1/p, is below what the way gains, and a behaviour
that does not depend on it.
"""


if __name__ == "__main__":
    main()

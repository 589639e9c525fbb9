"""Online learners from the command line: many seeds side by side, a report at even distances, and the conclusion."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsoft.cli.console import make_console, training_progress
from jaxsoft.cli.tabular.options import LearningOptions
from jaxsoft.cli.tabular.problem import Problem, find_optimum, make_behaviour, make_problem
from jaxsoft.envs.mdp import reachable_states
from jaxsoft.fleet.programs import seed_keys
from jaxsoft.ops import boltzmann_log_probs
from jaxsoft.reports.plots import learning_picture
from jaxsoft.reports.statistics import Interval, count_in_words, ends_in_words, iqm_interval
from jaxsoft.runs import directory
from jaxsoft.runs.tables import write_arrays, write_columns
from jaxsoft.tabular import expected_return
from jaxsoft.tabular.online import LearnerState, LearningHistory, Rule, advance, init_learner_state, make_learner
from jaxsoft.tabular.settings import LearnerSettings
from jaxsoft.training.config import check

RECORDS = 20
"""Reports of a run whose number is not given: the largest divisor of its steps up to this."""


def report_header(num_seeds: int) -> str:
    """The columns of `report_line` for so many seeds."""
    distance = f"max |Q − Q*|, IQM{ends_in_words(num_seeds)}"
    return f"{'step':>10}  {distance:>36}  {'return of the soft policy':>30}  {'diverged':>8}  {'steps/s':>10}"


def learn(
    make_rule: Callable[..., tuple[Rule, float]], out: Path, description: dict[str, Any], options: LearningOptions
) -> None:
    """Learns with all seeds, shows how it goes, and writes the run folder; `make_rule(options) -> (rule, lambda_)`.

    Raises:
        InputError: an option that the library refuses, or a folder that is not empty or cannot be written.
    """
    rule, lambda_ = make_rule(options)
    problem = make_problem(options)
    num_steps = options.num_steps
    num_records = options.num_records or _num_records(num_steps)
    settings = LearnerSettings(
        **problem.objective,
        step_size=options.step_size,
        lambda_=lambda_,
        half_life=np.inf if options.half_life is None else options.half_life,
        behaviour=make_behaviour(options),
        max_episode_steps=problem.max_episode_steps,
        num_steps=num_steps,
        num_records=num_records,
    )
    learner = make_learner(problem.mdp, rule, settings)
    check("num_seeds", options.num_seeds)
    check("seed", options.seed)
    directory.check_empty(out)
    console = make_console()
    seeds = np.arange(options.seed, options.seed + options.num_seeds, dtype=np.int32)
    where = f"{count_in_words(len(seeds), 'seed')}, on {jax.devices()[0].device_kind}"
    console.print(f"{description['method']} on {problem.env_id}, {where}", style="bold")
    start_time = time.perf_counter()
    q_star, best_return = find_optimum(problem)
    part = num_steps // num_records
    state: LearnerState = jax.jit(jax.vmap(partial(init_learner_state, learner=learner)))(seed_keys(jnp.asarray(seeds)))
    score = jax.jit(jax.vmap(partial(_score, problem, jnp.asarray(q_star, problem.mdp.rewards.dtype))))
    reports: list[Report] = []
    with training_progress(console) as progress:
        bar = progress.add_task("compiling", total=num_steps, num_seeds=len(seeds), iqm="")
        learn_part = jax.jit(jax.vmap(lambda state: advance(learner, state, part)), donate_argnums=0)
        learn_part = learn_part.lower(state).compile()
        console.print(report_header(len(seeds)))
        for step in range(part, num_steps + 1, part):
            last = time.perf_counter()
            state, history = jax.block_until_ready(learn_part(state))
            speed = len(seeds) * part / (time.perf_counter() - last)
            reports.append(make_report(seeds, step, score(state.q), history, speed))
            console.print(report_line(reports[-1]))
            progress.update(bar, description="learning", completed=step)
    with directory.new_results(out, description):
        columns = {name: np.concatenate([report.columns[name] for report in reports]) for name in reports[0].columns}
        write_columns(out / "history.parquet", columns)
        write_arrays(out / "result.npz", {"q": np.asarray(state.q), "q_star": q_star, "seeds": seeds})
        learning_picture(
            out / "history.png",
            np.array([report.columns["step"][0] for report in reports]),
            np.array([report.distance for report in reports]),
            np.array([report.returns for report in reports]),
            best_return,
            title=_title(description, problem, int(reports[-1].columns["diverged"].sum())),
        )
    console.print(conclusion(reports[-1], q_star, best_return), soft_wrap=True)
    console.print(f"learned in {time.perf_counter() - start_time:.1f} s, compilation included", soft_wrap=True)
    console.print(f"figure      {out / 'history.png'}", soft_wrap=True)
    console.print(f"run folder  {out}", soft_wrap=True)


class Report(NamedTuple):
    """All seeds at one step.

    Attributes:
        columns: by name, [num_seeds], as they are written.
        distance: of the largest |Q − Q*|, over seeds.
        returns: of the return of the soft policy, over seeds.
    """

    columns: dict[str, np.ndarray]
    distance: Interval
    returns: Interval


def make_report(seeds: np.ndarray, step: int, scores: Any, history: LearningHistory, speed: float) -> Report:
    """A report of all seeds; a diverged one counts as infinitely far, in the interquartile mean, too."""
    distances, returns = jax.device_get(scores)
    columns = {
        "seed": seeds,
        "step": np.full(len(seeds), step),
        "distance": distances,
        "return": returns,
        "behaviour_reward": np.asarray(history.mean_rewards)[:, 0],
        "episodes": np.asarray(history.num_episodes)[:, 0],
        "diverged": ~np.isfinite(distances),
        "steps_per_second": np.full(len(seeds), speed),
    }
    return Report(columns, iqm_interval(distances), iqm_interval(returns))


def _num_records(num_steps: int) -> int:
    return max((count for count in range(1, RECORDS + 1) if num_steps > 0 and num_steps % count == 0), default=1)


def _score(problem: Problem, q_star: jax.Array, q: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Largest distance to Q* in states that can be visited, and the soft policy's mean return in the plain task.

    Where Q is no longer finite they are infinite: there is no policy, and such a seed must not look like a good one.
    """
    finite = jnp.all(jnp.isfinite(q))
    distance = jnp.max(jnp.abs(q - q_star), where=reachable_states(problem.mdp)[:, None], initial=0)
    policy = jnp.exp(boltzmann_log_probs(jnp.where(finite, q, 0), problem.reference_log_probs, problem.temperature))
    mean = expected_return(problem.mdp, policy, max_episode_steps=problem.max_episode_steps)
    return jnp.where(finite, distance, jnp.inf), jnp.where(finite, mean, -jnp.inf)


def report_line(report: Report) -> str:
    """One report in one line."""
    columns = report.columns
    return (
        f"{columns['step'][0]:>10,}  {report.distance.in_words('.3g'):>36}  {report.returns.in_words('.3g'):>30}"
        f"  {columns['diverged'].sum():>8}  {columns['steps_per_second'][0]:>10,.0f}"
    )


def conclusion(report: Report, q_star: np.ndarray, best_return: float) -> str:
    """What all seeds found, in one line."""
    seeds, diverged = count_in_words(len(report.columns["seed"]), "seed"), int(report.columns["diverged"].sum())
    lost = f"{diverged} of them DIVERGED (counted as infinitely far)" if diverged else "none diverged"
    return (
        f"max |Q − Q*| {report.distance.in_words('.3g')} where |Q*| reaches {np.abs(q_star).max():.3g}; "
        f"return of the soft policy {report.returns.in_words('.3g')}, of the optimal one {best_return:.3g} "
        f"(IQM over {seeds}, {lost})"
    )


def _title(description: dict[str, Any], problem: Problem, num_diverged: int) -> str:
    shown = {"lambda_": "λ", "trace": "", "n": "n", "backup": "", "behaviour": "acting:", "step_size": "α"}
    parts = [f"{label} {description[name]}".strip() for name, label in shown.items() if name in description]
    parts += [f"{num_diverged} of {count_in_words(description['num_seeds'], 'seed')} diverged"] if num_diverged else []
    return f"{description['method']} on {problem.env_id}, τ {problem.temperature:g}\n" + ", ".join(parts)

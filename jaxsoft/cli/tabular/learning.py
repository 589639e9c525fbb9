"""Online learners from the command line: many seeds side by side, a report at even distances, and the conclusion."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxsoft.cli.console import make_console, print_end, print_line
from jaxsoft.cli.tabular.options import LearningOptions
from jaxsoft.cli.tabular.problem import make_behaviour, make_problem
from jaxsoft.reports.plots import learning_picture
from jaxsoft.reports.progress import make_bar
from jaxsoft.reports.statistics import count_in_words, ends_in_words, iqm_interval
from jaxsoft.runs.results import check_empty, write_results
from jaxsoft.tabular.online import Rule, make_learner
from jaxsoft.tabular.problem import find_optimum
from jaxsoft.tabular.seeds import learn_seeds
from jaxsoft.tabular.settings import LearnerSettings
from jaxsoft.training.config import check

RECORDS = 20
"""Reports of a run whose number is not given: the largest divisor of its steps up to this."""

Report = Mapping[str, np.ndarray]
"""All seeds at one step: columns by name, each [num_seeds]."""


def learn(
    make_rule: Callable[..., tuple[Rule, float]], out: Path, description: dict[str, Any], options: LearningOptions
) -> None:
    """Learns with all seeds, shows how it goes, and writes the run folder; `make_rule(options) -> (rule, lambda_)`.

    Raises:
        InputError: an option that the library refuses, or a folder that is not empty or cannot be written.
    """
    rule, lambda_ = make_rule(options)
    problem = make_problem(options)
    settings = LearnerSettings(
        **problem.objective,
        step_size=options.step_size,
        lambda_=lambda_,
        half_life=np.inf if options.half_life is None else options.half_life,
        behaviour=make_behaviour(options),
        max_episode_steps=problem.max_episode_steps,
        num_steps=options.num_steps,
        num_records=options.num_records or _num_records(options.num_steps),
    )
    learner = make_learner(problem.mdp, rule, settings)
    check("num_seeds", options.num_seeds)
    check("seed", options.seed)
    check_empty(out)
    console, start_time = make_console(), time.perf_counter()
    seeds = np.arange(options.seed, options.seed + options.num_seeds, dtype=np.int32)
    where = f"{count_in_words(len(seeds), 'seed')}, on {jax.devices()[0].device_kind}"
    print_line(console, f"{description['method']} on {options.env}, {where}", style="bold")
    q_star, best_return = find_optimum(problem)
    reports, q = [], q_star
    with make_bar(console) as progress:
        bar = progress.add_task("compiling", total=options.num_steps, num_seeds=len(seeds), iqm="")
        console.print(report_header(len(seeds)))
        for report, q in learn_seeds(problem, learner, seeds, q_star):  # noqa: B007 (the last q is written)
            reports.append(report)
            console.print(report_line(report))
            progress.update(bar, description="learning", completed=report["step"][0])
    history = {name: np.concatenate([report[name] for report in reports]) for name in reports[0]}
    title = _title(description, options, int(reports[-1]["diverged"].sum()))
    picture = write_results(
        out,
        description,
        history,
        {"q": q, "q_star": q_star, "seeds": seeds},
        lambda file: learning_picture(file, history, best_return, title=title),
    )
    took = f"learned in {time.perf_counter() - start_time:.1f} s"
    print_end(console, conclusion(reports[-1], q_star, best_return), took, picture)


def _num_records(num_steps: int) -> int:
    return max((count for count in range(1, RECORDS + 1) if num_steps > 0 and num_steps % count == 0), default=1)


def report_header(num_seeds: int) -> str:
    """The columns of `report_line` for so many seeds."""
    distance = f"max |Q − Q*|, IQM{ends_in_words(num_seeds)}"
    return f"{'step':>10}  {distance:>36}  {'return of the soft policy':>30}  {'diverged':>8}  {'steps/s':>10}"


def _intervals_in_words(report: Report) -> tuple[str, str]:
    """Statistics over seeds of the distances to Q* and of the returns."""
    distance, mean_return = (iqm_interval(report[name]).in_words(".3g") for name in ("distance", "return"))
    return distance, mean_return


def report_line(report: Report) -> str:
    """One report in one line."""
    distance, mean_return = _intervals_in_words(report)
    return (
        f"{report['step'][0]:>10,}  {distance:>36}  {mean_return:>30}"
        f"  {report['diverged'].sum():>8}  {report['steps_per_second'][0]:>10,.0f}"
    )


def conclusion(report: Report, q_star: np.ndarray, best_return: float) -> str:
    """The result of all seeds in one line."""
    distance, mean_return = _intervals_in_words(report)
    seeds, diverged = count_in_words(len(report["seed"]), "seed"), int(report["diverged"].sum())
    lost = f"{diverged} of them DIVERGED (counted as infinitely far)" if diverged else "none diverged"
    return (
        f"max |Q − Q*| {distance} where |Q*| reaches {np.abs(q_star).max():.3g}; "
        f"return of the soft policy {mean_return}, of the optimal one {best_return:.3g} "
        f"(IQM over {seeds}, {lost})"
    )


def _title(description: dict[str, Any], options: LearningOptions, num_diverged: int) -> str:
    shown = {"lambda_": "λ", "trace": "", "n": "n", "backup": "", "behaviour": "acting:", "step_size": "α"}
    parts = [f"{label} {description[name]}".strip() for name, label in shown.items() if name in description]
    parts += [f"{num_diverged} of {count_in_words(options.num_seeds, 'seed')} diverged"] if num_diverged else []
    return f"{description['method']} on {options.env}, τ {options.temperature:g}\n" + ", ".join(parts)

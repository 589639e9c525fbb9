"""Dynamic programming from the command line: solve in float64, then a table, a figure and the conclusion."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsoft.cli.console import make_console, print_end, print_line
from jaxsoft.cli.tabular.options import EvaluationOptions, Options, PolicyIterationOptions, ValueIterationOptions
from jaxsoft.cli.tabular.problem import make_problem, read_array
from jaxsoft.reports.plots import residuals_picture
from jaxsoft.runs.results import write_results
from jaxsoft.tabular import (
    soft_policy_evaluation,
    soft_policy_evaluation_exact,
    soft_policy_iteration,
    soft_value_iteration,
)
from jaxsoft.tabular.problem import Problem, find_optimum

LARGEST_SOLVED = 2_000
"""States up to which an evaluation is held against the exact solution, which takes their number cubed."""


class Solution(NamedTuple):
    """The result of an algorithm.

    Attributes:
        history: by name, one number per policy or sweep; the first is their number, counted from 1.
        tables: by name, what was found, [S, A] or [S].
        conclusion: in one line.
    """

    history: dict[str, np.ndarray]
    tables: dict[str, np.ndarray]
    conclusion: str


def iterate_policies(problem: Problem, options: PolicyIterationOptions) -> Solution:
    """Soft policy iteration."""
    result = soft_policy_iteration(
        problem.mdp,
        **problem.objective,
        tolerance=options.tolerance,
        max_sweeps=options.max_sweeps,
        max_iterations=options.max_iterations,
    )
    gained, result = _return(problem, result.policy), jax.device_get(result)
    n = int(result.history.num_iterations)
    history = {
        "policy": np.arange(1, n + 1),
        "sweeps": result.history.num_sweeps[:n],
        "residual": result.history.residuals[:n],
        "smallest_gain": result.history.smallest_gains[:n],
        "largest_gain": result.history.largest_gains[:n],
    }
    residual = history["residual"][-1]
    conclusion = (
        f"{_verdict(residual, options.tolerance)} after {n} policies and {history['sweeps'].sum():,} sweeps: "
        f"{_distance(problem, residual)}; {gained}"
    )
    return Solution(history, {"q": result.q, "v": result.v, "policy": result.policy}, conclusion)


def iterate_values(problem: Problem, options: ValueIterationOptions) -> Solution:
    """Soft value iteration."""
    result = soft_value_iteration(problem.mdp, **problem.objective, **_sweep_keywords(options))
    gained, result = _return(problem, result.policy), jax.device_get(result)
    history, verdict = _read_sweeps(result, options)
    conclusion = f"{verdict}: {_distance(problem, history['residual'][-1])}; {gained}"
    return Solution(history, {"q": result.q, "v": result.v, "policy": result.policy}, conclusion)


def evaluate_policy(problem: Problem, options: EvaluationOptions) -> Solution:
    """Soft policy evaluation of a policy [S, A], read from a file or uniform."""
    shape = problem.mdp.num_states, problem.mdp.num_actions
    uniform = options.policy == "uniform"
    probs = jnp.full(shape, 1 / shape[1]) if uniform else jnp.asarray(read_array("policy", options.policy))
    result = soft_policy_evaluation(problem.mdp, probs, **problem.objective, **_sweep_keywords(options))
    gained, result = _return(problem, probs), jax.device_get(result)
    found = f"Q* is up to {np.max(find_optimum(problem)[0] - result.q):.3g} above this policy's Q"
    if problem.mdp.num_states <= LARGEST_SOLVED:
        exact = np.asarray(soft_policy_evaluation_exact(problem.mdp, probs, **problem.objective))
        found = f"max |Q − Q by linear solve| {np.abs(result.q - exact).max():.1e}, {found}"
    history, verdict = _read_sweeps(result, options)
    return Solution(history, {"q": result.q, "policy": np.asarray(probs)}, f"{verdict}: {found}; {gained}")


def _sweep_keywords(options: ValueIterationOptions) -> dict[str, Any]:
    """The keywords of an algorithm that sweeps, every sweep recorded."""
    return {"tolerance": options.tolerance, "max_sweeps": options.max_sweeps, "num_recorded": options.max_sweeps}


def _read_sweeps(result: Any, options: ValueIterationOptions) -> tuple[dict[str, np.ndarray], str]:
    """The history of an algorithm's sweeps, and in words whether they were enough."""
    n = int(result.history.num_sweeps)
    history = {"sweep": np.arange(1, n + 1), "residual": result.history.residuals[:n]}
    return history, f"{_verdict(history['residual'][-1], options.tolerance)} after {n:,} sweeps"


def _verdict(residual: float, tolerance: float) -> str:
    if not np.isfinite(residual):
        return "DIVERGED (the residual is no finite number)"
    return "solved" if residual <= tolerance else f"NOT SOLVED (residual above the tolerance {tolerance:g})"


def _distance(problem: Problem, residual: float) -> str:
    """The residual, and the distance to Q* that it allows: the optimality operator contracts by γ."""
    discount = float(problem.mdp.discount)
    bound = f", so |Q − Q*| ≤ {residual / (1 - discount):.1e}" if discount < 1 else ""
    return f"residual {residual:.1e}{bound}"


def _return(problem: Problem, policy: jax.Array) -> str:
    return f"return of the policy {float(problem.mean_return(policy)):.3f}"


def solve(solver: Callable[..., Solution], out: Path, description: dict[str, Any], options: Options) -> None:
    """Solves in float64, writes the run folder, and prints the table and the conclusion.

    Raises:
        InputError: an option that the library refuses, or a folder that is not empty or cannot be written.
    """
    start_time = time.perf_counter()
    with jax.enable_x64(True):
        solution = solver(make_problem(options), options)
    took = f"solved in {time.perf_counter() - start_time:.1f} s"
    heading = f"{description['method']} on {options.env}"
    picture = write_results(
        out,
        description,
        solution.history,
        solution.tables,
        lambda file: residuals_picture(file, solution.history, title=f"{heading}, τ = {options.temperature:g}"),
    )
    console = make_console()
    print_line(console, heading, style="bold")
    console.print("".join(f"{name.replace('_', ' '):>16}" for name in solution.history))
    for row in shown_rows(len(solution.history["residual"])):
        console.print("".join(f"{_cell(column[row]):>16}" for column in solution.history.values()))
    print_end(console, solution.conclusion, took, picture)


def shown_rows(num_rows: int) -> list[int]:
    """All of a short history; of a long one the first, second, fifth, tenth, twentieth, … and the last.

    >>> shown_rows(30)
    [0, 1, 4, 9, 19, 29]
    """
    if num_rows <= 20:
        return list(range(num_rows))
    rows = [step * 10**power - 1 for power in range(9) for step in (1, 2, 5)]
    return [row for row in rows if row < num_rows - 1] + [num_rows - 1]


def _cell(value: np.generic) -> str:
    if np.issubdtype(value.dtype, np.integer):
        return f"{value:,}"
    return "" if np.isnan(value) else f"{value:.2e}"

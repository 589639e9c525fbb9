"""Dynamic programming from the command line: solve in float64, then a table, a figure and what was found."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsoft.cli.console import make_console
from jaxsoft.cli.tabular.problem import Problem, find_optimum
from jaxsoft.reports.plots import residuals_picture
from jaxsoft.runs import directory
from jaxsoft.runs.tables import write_arrays, write_columns
from jaxsoft.tabular import (
    expected_return,
    soft_policy_evaluation,
    soft_policy_evaluation_exact,
    soft_policy_iteration,
    soft_value_iteration,
)

LARGEST_SOLVED = 2_000
"""States up to which an evaluation is held against the exact solution, which takes their number cubed."""


class Solution(NamedTuple):
    """What an algorithm found.

    Attributes:
        problem: what was solved.
        history: by name, one number per policy or sweep; the first is their number, counted from 1.
        tables: by name, what was found, [S, A] or [S].
        conclusion: in one line.
        seconds: compilation included.
    """

    problem: Problem
    history: dict[str, np.ndarray]
    tables: dict[str, np.ndarray]
    conclusion: str
    seconds: float


def iterate_policies(problem: Problem, *, tolerance: float, max_sweeps: int, max_iterations: int) -> Solution:
    """Soft policy iteration.

    Raises:
        InputError: see `soft_policy_iteration`.
    """
    start = time.perf_counter()
    result = soft_policy_iteration(
        problem.mdp,
        temperature=problem.temperature,
        reference_log_probs=problem.reference_log_probs,
        tolerance=tolerance,
        max_sweeps=max_sweeps,
        max_iterations=max_iterations,
    )
    gained = _return(problem, result.policy)
    result = jax.device_get(result)
    seconds = time.perf_counter() - start
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
        f"{_end(residual, tolerance)} after {n} policies and {history['sweeps'].sum():,} sweeps: "
        f"{_distance(problem, residual)}; {gained}"
    )
    return Solution(problem, history, {"q": result.q, "v": result.v, "policy": result.policy}, conclusion, seconds)


def iterate_values(problem: Problem, *, tolerance: float, max_sweeps: int) -> Solution:
    """Soft value iteration.

    Raises:
        InputError: see `soft_value_iteration`.
    """
    start = time.perf_counter()
    result = soft_value_iteration(
        problem.mdp,
        temperature=problem.temperature,
        reference_log_probs=problem.reference_log_probs,
        tolerance=tolerance,
        max_sweeps=max_sweeps,
        num_recorded=max_sweeps,
    )
    gained = _return(problem, result.policy)
    result = jax.device_get(result)
    seconds = time.perf_counter() - start
    n = int(result.history.num_sweeps)
    history = {"sweep": np.arange(1, n + 1), "residual": result.history.residuals[:n]}
    residual = history["residual"][-1]
    conclusion = f"{_end(residual, tolerance)} after {n:,} sweeps: {_distance(problem, residual)}; {gained}"
    return Solution(problem, history, {"q": result.q, "v": result.v, "policy": result.policy}, conclusion, seconds)


def evaluate_policy(problem: Problem, policy: np.ndarray | None, *, tolerance: float, max_sweeps: int) -> Solution:
    """Soft policy evaluation of a policy [S, A]; None is the uniform one.

    Raises:
        InputError: see `soft_policy_evaluation`.
    """
    start = time.perf_counter()
    shape = problem.mdp.num_states, problem.mdp.num_actions
    probs = jnp.full(shape, 1 / shape[1]) if policy is None else jnp.asarray(policy)
    objective = {"temperature": problem.temperature, "reference_log_probs": problem.reference_log_probs}
    result = soft_policy_evaluation(
        problem.mdp, probs, **objective, tolerance=tolerance, max_sweeps=max_sweeps, num_recorded=max_sweeps
    )
    gained = _return(problem, probs)
    q = np.asarray(result.q)
    found = f"Q* is up to {np.max(find_optimum(problem).q - q):.3g} above this policy's Q"
    if problem.mdp.num_states <= LARGEST_SOLVED:
        exact = np.asarray(soft_policy_evaluation_exact(problem.mdp, probs, **objective))
        found = f"max |Q − Q by linear solve| {np.abs(q - exact).max():.1e}, {found}"
    n = int(result.history.num_sweeps)
    history = {"sweep": np.arange(1, n + 1), "residual": np.asarray(result.history.residuals[:n])}
    conclusion = f"{_end(history['residual'][-1], tolerance)} after {n:,} sweeps: {found}; {gained}"
    return Solution(problem, history, {"q": q, "policy": np.asarray(probs)}, conclusion, time.perf_counter() - start)


def _end(residual: float, tolerance: float) -> str:
    if not np.isfinite(residual):
        return "DIVERGED (the residual is no finite number)"
    return "solved" if residual <= tolerance else f"NOT SOLVED (residual above the tolerance {tolerance:g})"


def _distance(problem: Problem, residual: float) -> str:
    """How far from Q* this residual still allows: the optimality operator contracts by γ."""
    discount = float(problem.mdp.discount)
    bound = f", so |Q − Q*| ≤ {residual / (1 - discount):.1e}" if discount < 1 else ""
    return f"residual {residual:.1e}{bound}"


def _return(problem: Problem, policy: jax.Array) -> str:
    mean = expected_return(problem.mdp, policy, max_episode_steps=problem.max_episode_steps)
    return f"return of the policy {float(mean):.3f}"


def report(out: Path, description: dict[str, Any], solution: Solution) -> None:
    """Writes the run folder and prints the table and what was found.

    Raises:
        InputError: there is something in `out` already, or it cannot be written.
    """
    title = f"{description['method']} on {solution.problem.env_id}, τ = {solution.problem.temperature:g}"
    with directory.new_results(out, description):
        write_columns(out / "history.parquet", solution.history)
        write_arrays(out / "result.npz", solution.tables)
        residuals_picture(out / "history.png", solution.history, title=title)
    console = make_console()
    console.print(f"{description['method']} on {solution.problem.env_id}", style="bold")
    names = list(solution.history)
    console.print("".join(f"{name.replace('_', ' '):>16}" for name in names))
    for row in shown_rows(len(solution.history[names[0]])):
        console.print("".join(f"{_cell(solution.history[name][row]):>16}" for name in names))
    console.print(solution.conclusion, soft_wrap=True)
    console.print(f"solved in {solution.seconds:.1f} s, compilation included", soft_wrap=True)
    console.print(f"figure      {out / 'history.png'}", soft_wrap=True)
    console.print(f"run folder  {out}", soft_wrap=True)


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

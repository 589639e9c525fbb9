"""Runs grouped into algorithms and tasks, with scores that compare between tasks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxsoft.errors import InputError
from jaxsoft.fleet.grid import cell_in_words
from jaxsoft.reports.aggregates import Scores, aggregate_intervals, interval_of, probability_of_improvement
from jaxsoft.reports.statistics import Interval, Range, json_numbers, rank
from jaxsoft.runs.config import RunConfig, read_config
from jaxsoft.runs.tables import FailedSeed, failed_seeds, read_metrics, read_returns
from jaxsoft.training.config import settings_of

GROUPINGS = ("agent", "run")


class Part(NamedTuple):
    """The seeds of one run, or of one cell of its sweep.

    Attributes:
        path: of the run directory.
        config: of the run.
        cell: the cell's number.
        timesteps: [num_reports].
        scores: [num_reports, num_seeds]; −∞ of seeds that failed.
        failed: seeds that failed.
    """

    path: Path
    config: RunConfig
    cell: int
    timesteps: np.ndarray
    scores: np.ndarray
    failed: list[FailedSeed]

    @property
    def task(self) -> str:
        """The environment's id."""
        return self.config.env_id

    @property
    def settings(self) -> dict[str, Any]:
        """All settings of its training."""
        return settings_of(self.config.train_of(self.cell))


class Algorithm(NamedTuple):
    """The returns of one algorithm.

    Attributes:
        name: the agent and the settings that tell it from the others.
        parts: for each task, the runs in it.
        intervals: IQM, median, mean and, for a given γ, optimality gap.
        improvement: the probability that the best algorithm's score is higher; None of the best.
    """

    name: str
    parts: list[list[Part]]
    intervals: dict[str, Interval]
    improvement: Interval | None = None

    @property
    def scores(self) -> Scores:
        """At the end of each run: [num_seeds] of each task."""
        return _final_scores(self.parts)

    @property
    def num_failed(self) -> int:
        """Seeds that failed, over all tasks."""
        return sum(len(part.failed) for task in self.parts for part in task)

    @property
    def num_seeds(self) -> tuple[int, int]:
        """The smallest and the largest number of seeds in a task."""
        numbers = [len(scores) for scores in self.scores]
        return min(numbers), max(numbers)


class Comparison(NamedTuple):
    """Algorithms in the same tasks, the highest IQM first.

    Attributes:
        tasks: the environments' ids.
        algorithms: best first.
        is_normalised: whether scores are other numbers than returns.
        gamma: of the optimality gap; None: there is none.
    """

    tasks: list[str]
    algorithms: list[Algorithm]
    is_normalised: bool
    gamma: float | None


def compare_runs(
    paths: Sequence[Path], *, by: str = "agent", normalise: Sequence[str] = (), gamma: float | None = None
) -> Comparison:
    """Compares the returns that runs have reached at their last reports.

    Args:
        paths: run directories; each cell of a sweep counts as a run.
        by: `agent`: an algorithm is an agent with the settings in which its runs in one task differ; `run`: each run.
        normalise: how a return becomes a score, see `normalisers`; by default none in one task and minmax in several.
        gamma: score that is good enough, of the optimality gap; by default 1, and without normalisation no gap.

    Raises:
        InputError: no run directory; an algorithm lacks a task; a seed would count twice; or no such normalisation.
    """
    if by not in GROUPINGS:
        raise InputError(f"by is {by!r}; it must be {' or '.join(GROUPINGS)}")
    parts = [part for path in dict.fromkeys(paths) for part in read_parts(path)]
    tasks = list(dict.fromkeys(part.task for part in parts))
    bounds = normalisers(normalise or (["minmax"] if len(tasks) > 1 else ["none"]), parts)
    parts = [part._replace(scores=_scale(part.scores, bounds[part.task])) for part in parts]
    is_normalised = any(bounds.values())
    gamma = 1.0 if gamma is None and is_normalised else gamma
    algorithms = []
    for name, own in _group(parts, by).items():
        by_task = [[part for part in own if part.task == task] for task in tasks]
        _check_group(name, dict(zip(tasks, by_task, strict=True)))
        algorithms.append(Algorithm(name, by_task, aggregate_intervals(_final_scores(by_task), gamma)))
    order = rank([algorithm.intervals["iqm"].point for algorithm in algorithms])
    best, *others = [algorithms[i] for i in order]
    rest = [x._replace(improvement=interval_of(probability_of_improvement, best.scores, x.scores)) for x in others]
    return Comparison(tasks, [best, *rest], is_normalised, gamma)


def read_parts(path: Path) -> list[Part]:
    """The cells of a run that have a report of all their seeds; a run that is no sweep is one cell.

    Raises:
        InputError: it is no run directory, or has no such report.
    """
    config, failed = read_config(path), failed_seeds(read_metrics(path).to_pydict())
    parts = []
    for i, (_, timesteps, returns) in enumerate(read_returns(path)):
        if not len(timesteps):
            what = f"{cell_in_words(config.cells[i])} in {path}" if config.sweep else str(path)
            raise InputError(f"{what} has no report of all its seeds yet")
        own = [one for one in failed if one.cell == i and one.timestep <= timesteps[-1]]
        parts.append(Part(path, config, i, timesteps, returns, own))
    return parts


def normalisers(words: Sequence[str], parts: Sequence[Part]) -> dict[str, tuple[float, float] | None]:
    """The returns that become 0 and 1 in each task, score = (return − A) / (B − A); None: the score is the return.

    Args:
        words: `none`; `minmax`: the lowest and the highest return of any report of any run in the task; `A:B`; or
            `TASK=` and one of these, which is of that task only.
        parts: the runs.

    Raises:
        InputError: names the word, and what is allowed.
    """
    tasks = list(dict.fromkeys(part.task for part in parts))
    given: dict[str, str] = {}
    for word in words:
        task, _, rule = word.rpartition("=")  # an id may have parameters, with = in them
        if task and task not in tasks:
            raise InputError(f"normalise names {task}; the runs are in {', '.join(tasks)}")
        given[task] = rule
    return {task: _bounds(given.get(task, given.get("", "minmax")), task, parts) for task in tasks}


def _bounds(rule: str, task: str, parts: Sequence[Part]) -> tuple[float, float] | None:
    if rule == "none":
        return None
    if rule == "minmax":
        returns = np.concatenate([part.scores.ravel() for part in parts if part.task == task])
        finite = returns[np.isfinite(returns)]
        return (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    low, _, high = rule.partition(":")
    try:
        bounds = float(low), float(high)
    except ValueError:
        bounds = (math.nan, math.nan)
    if not all(map(math.isfinite, bounds)) or bounds[0] == bounds[1]:
        raise InputError(
            f"normalise is {rule!r}; it must be none, minmax or A:B, the different returns that become 0 and 1"
        )
    return bounds


def _scale(returns: np.ndarray, bounds: tuple[float, float] | None) -> np.ndarray:
    """Scores of returns; a seed that failed keeps −∞, also where lower returns are better."""
    if bounds is None:
        return returns
    low, high = bounds
    return np.where(np.isneginf(returns), returns, (returns - low) / (high - low or 1.0))


def _final_scores(by_task: Sequence[Sequence[Part]]) -> Scores:
    return [np.concatenate([part.scores[-1] for part in parts]) for parts in by_task]


def _group(parts: Sequence[Part], by: str) -> dict[str, list[Part]]:
    """The runs of each algorithm, by its name."""
    differing = {part.config.train.kind.name: _differing_settings(parts, part) for part in parts}
    groups: dict[str, list[Part]] = {}
    for part in parts:
        agent = part.config.train.kind.name
        if by == "run":
            words = [str(part.path), cell_in_words(part.config.cells[part.cell])]
        else:
            settings = part.settings
            words = [agent, cell_in_words({name: settings[name] for name in differing[agent]})]
        groups.setdefault(", ".join(filter(None, words)), []).append(part)
    return groups


def _differing_settings(parts: Sequence[Part], one: Part) -> list[str]:
    """The settings in which runs of an agent differ within some task: tasks may have presets of their own."""
    own = [part for part in parts if part.config.train.kind.name == one.config.train.kind.name]
    names = [
        name
        for part, other in itertools.pairwise(sorted(own, key=lambda part: part.task))
        if part.task == other.task
        for name, value in part.settings.items()
        if other.settings[name] != value
    ]
    return [name for name in one.settings if name in names]


def _check_group(name: str, by_task: Mapping[str, Sequence[Part]]) -> None:
    """Refuses an algorithm that lacks a task, or a seed of which would count twice: aggregates would not compare."""
    for task, parts in by_task.items():
        if not parts:
            raise InputError(f"{name} has no run in {task}; algorithms are compared over the same tasks")
        holders: dict[int, Path] = {}
        for part in parts:
            for seed in part.config.seeds.tolist():
                if seed in holders:
                    message = f"{holders[seed]} and {part.path} both hold seed {seed} of {name} in {task}"
                    raise InputError(f"{message}: it would count twice (--by run compares the runs)")
                holders[seed] = part.path


def is_unfinished(part: Part) -> bool:
    """Whether its last report is before the end of training."""
    return bool(part.timesteps[-1] < part.config.train.total_timesteps)


def describe(comparison: Comparison) -> dict[str, Any]:
    """A comparison for JSON; −∞ and NaN are None."""
    return {
        "tasks": comparison.tasks,
        "normalised": comparison.is_normalised,
        "gamma": comparison.gamma,
        "algorithms": [
            {
                "name": one.name,
                "runs": list(dict.fromkeys(str(part.path) for task in one.parts for part in task)),
                "num_seeds": [len(scores) for scores in one.scores],
                "failed_seeds": one.num_failed,
                "scores": [json_numbers(scores) for scores in one.scores],
                **{name: _interval(interval) for name, interval in one.intervals.items()},
                **({"probability_best_is_better": _interval(one.improvement)} if one.improvement else {}),
            }
            for one in comparison.algorithms
        ],
    }


def _interval(interval: Interval) -> dict[str, Any]:
    ends = "min_max" if isinstance(interval, Range) else "interval"
    point, *bounds = json_numbers(interval)
    return {"point": point, ends: bounds}

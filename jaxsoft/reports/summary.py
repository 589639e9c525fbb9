"""Summary of the episodes of a run's policies: an interval for each cell, the best cell, the seed in its middle."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from jaxsoft.reports.statistics import Interval, Range, iqm_interval, json_numbers, rank
from jaxsoft.runs.evaluation import Evaluation

NO_INTERVAL = Range(math.nan, math.nan, math.nan)
"""The interval of a cell whose seeds have no checkpoint."""


class Summary(NamedTuple):
    """An evaluation, cell by cell.

    Attributes:
        evaluation: the episodes.
        mean_returns: [num_cells, num_seeds]; −∞ of seeds that failed, NaN of seeds without a checkpoint.
        intervals: [num_cells], of the interquartile means over seeds that have a checkpoint.
        ranked: [num_cells], numbers of the cells, best first.
    """

    evaluation: Evaluation
    mean_returns: np.ndarray
    intervals: list[Interval]
    ranked: np.ndarray


def summarise(evaluation: Evaluation) -> Summary:
    """Means and intervals of an evaluation."""
    shape = len(evaluation.config.cells), evaluation.config.num_seeds
    mean_returns = evaluation.returns.mean(axis=1).reshape(shape)
    is_saved = (evaluation.timesteps > 0).reshape(shape)
    intervals = [
        iqm_interval(returns[saved]) if saved.any() else NO_INTERVAL
        for returns, saved in zip(mean_returns, is_saved, strict=True)
    ]
    return Summary(evaluation, mean_returns, intervals, rank([interval.point for interval in intervals]))


def median_member(summary: Summary) -> tuple[int, int] | None:
    """The cell and the seed in the middle of those with a finite mean return, in the best cell that has one."""
    is_well = np.isfinite(summary.mean_returns)
    if not is_well.any():
        return None
    cell = int(next(i for i in summary.ranked if is_well[i].any()))
    order = np.argsort(summary.mean_returns[cell])
    well = order[is_well[cell][order]]
    return cell, int(summary.evaluation.config.seeds[well[len(well) // 2]])


def describe(summary: Summary) -> dict[str, Any]:
    """An evaluation for JSON; a sweep's cells best first. −∞ and NaN are None."""
    evaluation, config = summary.evaluation, summary.evaluation.config
    shape = summary.mean_returns.shape
    lengths, timesteps = evaluation.lengths.mean(axis=1).reshape(shape), evaluation.timesteps.reshape(shape)
    cells = [
        {
            "eval_return": json_numbers(summary.mean_returns[i]),
            "eval_length": lengths[i].tolist(),
            "timestep": timesteps[i].tolist(),
            "failed": [one._asdict() for one in evaluation.failed if one.cell == i],
            "missing": config.seeds[timesteps[i] == 0].tolist(),
            "iqm": json_numbers(interval)[0],
            "min_max" if isinstance(interval, Range) else "iqm_interval": json_numbers(interval)[1:],
        }
        for i, interval in enumerate(summary.intervals)
    ]
    if not config.sweep:
        return {"seeds": config.seeds.tolist(), **cells[0]}
    return {
        "seeds": config.seeds.tolist(),
        "cells": [{"settings": config.cells[i]} | cells[i] for i in summary.ranked],
    }

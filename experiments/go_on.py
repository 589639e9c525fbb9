"""What experiments that make run directories share: begin one, or go on where it stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from jaxsoft import runs
from jaxsoft.runs.config import CONFIG, RunConfig


def train_on(path: Path, config: RunConfig, should_stop: Callable[[], bool] = lambda: False) -> None:
    """Trains a run directory to its end and prints where it stands; of one that is finished nothing is trained.

    Raises:
        SystemExit: it was trained with other settings.
        runs.Interrupted: after `should_stop` was true; what was learned is saved.
    """
    if not (path / CONFIG).exists():
        events = runs.train(path, config, should_stop=should_stop)
    else:
        saved = runs.read_config(path)
        if saved != replace(config, seeds_per_chunk=saved.seeds_per_chunk):
            raise SystemExit(f"{path} was trained with other settings; remove it, or name another folder with --runs")
        events = runs.resume(path, should_stop=should_stop)
    for progress in events:
        if progress.rows is not None:
            print(f"{path}: timestep {progress.timestep:,}", flush=True)

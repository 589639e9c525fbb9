"""Loggers: hand the reports of a training to other programs while the device works.

    result = jaxsoft.train("sac", "gymnax/Pendulum-v1", loggers=[jaxsoft.loggers.TensorBoard(), print])

Any function of a `Report` is a logger. Each has a queue and a thread of its own, so the training never waits; one that
raises is told of in a warning, gets no more reports, and stops nothing.
"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxsoft.errors import InputError
from jaxsoft.reports.series import Report, Series, series_of
from jaxsoft.runs.directory import LOGS
from jaxsoft.runs.files import path_inside


class Logger:
    """A logger that has something to open or to close; subclass it for one of your own.

    >>> class Printer(Logger):
    ...     def log(self, report, series):
    ...         print(report.timestep, series.name, series.scalars["eval_return/iqm"])

    Args:
        per_seed: log every seed, instead of interquartile means over seeds with their intervals.
    """

    def __init__(self, *, per_seed: bool = False) -> None:
        self.per_seed = per_seed

    def open(self, run: Path, settings: Mapping[str, Any]) -> None:
        """Called before the first report, with the run directory and its settings as in `config.json`."""

    def __call__(self, report: Report) -> None:
        for series in series_of(report, per_seed=self.per_seed):
            self.log(report, series)

    def log(self, report: Report, series: Series) -> None:
        """Logs one series of a report."""
        raise NotImplementedError

    def close(self) -> None:
        """Called after the last report."""


class TensorBoard(Logger):
    """Event files for TensorBoard, a folder for each series, by default in `RUN/logs/tensorboard`.

    >>> TensorBoard("runs/board", per_seed=True)  # doctest: +SKIP
    """

    def __init__(self, folder: str | Path | None = None, *, per_seed: bool = False) -> None:
        super().__init__(per_seed=per_seed)
        self._module = _import("tensorboardX", "tensorboardX")
        self._folder = folder

    def open(self, run: Path, settings: Mapping[str, Any]) -> None:
        self._run, self._writers = run, {}

    def log(self, report: Report, series: Series) -> None:
        if series.name not in self._writers:
            name = series.name.replace("/", "_")
            given = self._folder
            path = path_inside(self._run, LOGS, "tensorboard", name) if given is None else Path(given, name)
            self._writers[series.name] = self._module.SummaryWriter(str(path))
        for tag, value in series.scalars.items():
            self._writers[series.name].add_scalar(tag, value, report.timestep)

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()


class JsonLines(Logger):
    """A line of JSON for each series of a report, by default in `RUN/logs/metrics.jsonl`; −∞ is null.

    A run that goes on appends: a report that is made again, because the process was killed, stands there twice.

    >>> JsonLines("runs/log.jsonl")  # doctest: +SKIP
    """

    def __init__(self, path: str | Path | None = None, *, per_seed: bool = False) -> None:
        super().__init__(per_seed=per_seed)
        self._path = path

    def open(self, run: Path, settings: Mapping[str, Any]) -> None:
        path = path_inside(run, LOGS, "metrics.jsonl") if self._path is None else Path(self._path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a")

    def log(self, report: Report, series: Series) -> None:
        scalars = {name: x if math.isfinite(x) else None for name, x in series.scalars.items()}
        line = {"timestep": report.timestep, "cell": dict(report.cell), "seeds": series.seeds, **scalars}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class _Tracker(Logger):
    """A package that keeps many runs, each begun by `init`, ended by `finish`."""

    package: str

    def __init__(self, project: str = "jaxsoft", *, per_seed: bool = False, **init: Any) -> None:
        super().__init__(per_seed=per_seed)
        self._module = _import(self.package, f"jaxsoft[{self.package}]")
        self._init = {"project": project, **init}

    def open(self, run: Path, settings: Mapping[str, Any], **given: Any) -> None:
        given |= {"name": run.absolute().name, "config": dict(settings)}
        self._run = self._module.init(**given | self._init)

    def close(self) -> None:
        self._run.finish()


class WandB(_Tracker):
    """Weights & Biases, one of its runs for a training; names of several series stand before their metrics.

    Its files are in `RUN/logs/wandb`, its horizontal axis is `timestep`. `pip install 'jaxsoft[wandb]'`.

    Args:
        project: its name there.
        per_seed: see `Logger`.
        **init: more for `wandb.init`: `mode="offline"`, `entity=…`.

    >>> WandB("pendulum", mode="offline")  # doctest: +SKIP
    """

    package = "wandb"

    def open(self, run: Path, settings: Mapping[str, Any], **given: Any) -> None:
        folder = path_inside(run, LOGS, "wandb").parent
        folder.mkdir(exist_ok=True)
        super().open(run, settings, dir=str(folder), reinit="create_new", **given)
        self._run.define_metric("*", step_metric="timestep")

    def log(self, report: Report, series: Series) -> None:
        self._run.log({"timestep": report.timestep, **_prefixed(series)})


class Trackio(_Tracker):
    """trackio, which keeps its tables in a folder of its own (TRACKIO_DIR). `pip install 'jaxsoft[trackio]'`.

    Args:
        project: its name there.
        per_seed: see `Logger`.
        **init: more for `trackio.init`: `space_id=…`.

    >>> Trackio("pendulum")  # doctest: +SKIP
    """

    package = "trackio"

    def log(self, report: Report, series: Series) -> None:
        self._run.log(_prefixed(series), step=report.timestep)


LOGGERS: dict[str, type[Logger]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "jsonl": JsonLines,
    "trackio": Trackio,
}
"""The loggers that `--log` names."""


def _prefixed(series: Series) -> dict[str, float]:
    prefix = f"{series.name}/" if series.name else ""
    return {f"{prefix}{name}": x for name, x in series.scalars.items()}


def _import(module: str, extra: str) -> Any:
    """Imports a logger's package, not in its thread: some import each other, which two threads cannot do at once."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        raise InputError(f"{module} is not installed: pip install '{extra}'") from None


def check_loggers(loggers: Any) -> None:
    """Checks that loggers are a list of functions of a report, or of `Logger`s.

    Raises:
        InputError: names the one that is none.
    """
    if not isinstance(loggers, Sequence) or isinstance(loggers, str):
        raise InputError(f"loggers is {loggers!r}; it must be a list, for example [jaxsoft.loggers.JsonLines(), print]")
    for logger in loggers:
        if isinstance(logger, type) and issubclass(logger, Logger):
            raise InputError(f"loggers has the class {logger.__name__}; it must be an instance: {logger.__name__}()")
        if not callable(logger):
            near = LOGGERS[logger if isinstance(logger, str) and logger in LOGGERS else "jsonl"].__name__
            raise InputError(f"loggers has {logger!r}; it must be a function, or like jaxsoft.loggers.{near}()")

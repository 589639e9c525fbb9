"""Loggers at work while the device is: each has a queue and a thread, so the training waits for none."""

from __future__ import annotations

import queue
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxsoft.errors import printable
from jaxsoft.reports.loggers import Logger
from jaxsoft.reports.series import Report, reports_of
from jaxsoft.runs.config import RunConfig, describe
from jaxsoft.runs.driver import Progress

LIMIT = 30.0
"""Seconds that loggers have at the end for what is left in their queues."""


class Logging:
    """Hands a run's new reports to loggers, each in its own thread, from entering it to leaving it.

    A logger is a function of a `Report`, or a `Logger`. All of them have `limit` seconds when it is left.
    """

    def __init__(
        self, loggers: Sequence[Callable[[Report], Any]], run: Path, config: RunConfig, limit: float = LIMIT
    ) -> None:
        self._workers = [_Worker(logger, run, describe(config)) for logger in loggers]
        self._limit = limit

    def __enter__(self) -> Callable[[Progress], None]:
        return self.put

    def put(self, progress: Progress) -> None:
        """Hands on the reports in a run's progress, if there are some; returns at once."""
        for report in reports_of(progress) if self._workers else ():
            for worker in self._workers:
                worker.put(report)

    def __exit__(self, *_: object) -> None:
        end = time.monotonic() + self._limit
        for worker in self._workers:
            worker.put(None)
        for worker in self._workers:
            worker.wait(max(0.0, end - time.monotonic()))


class _Worker:
    """One logger with its queue and its thread, which starts with the first report."""

    def __init__(self, logger: Callable[[Report], Any], run: Path, settings: Mapping[str, Any]) -> None:
        self._logger, self._run, self._settings = logger, run, settings
        self._name = getattr(logger, "__name__", type(logger).__name__)
        self._reports: queue.SimpleQueue[Report | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def put(self, report: Report | None) -> None:
        if self._thread.ident is None and report is not None:
            self._thread.start()
        if self._thread.is_alive():
            self._reports.put(report)

    def wait(self, seconds: float) -> None:
        if self._thread.is_alive():
            self._thread.join(seconds)
        if self._thread.is_alive():
            warnings.warn(f"the logger {self._name} had too little time: reports may be missing in it", stacklevel=2)

    def _work(self) -> None:
        logger = self._logger
        around = logger if isinstance(logger, Logger) else Logger()
        try:
            around.open(self._run, self._settings)
            for report in iter(self._reports.get, None):
                logger(report)
            around.close()
        except BaseException as error:  # SystemExit, too: nothing in here ends a training
            message = printable(f"{type(error).__name__}: {error}")[:200]
            warnings.warn(f"the logger {self._name} failed and gets no more reports ({message})", stacklevel=1)

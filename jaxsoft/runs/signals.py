"""Ctrl-C and SIGTERM as a request to stop, for a program that asks between its steps."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator, Sequence
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Request:
    """Whether the process was asked to stop: the first signal that asked, if one did, and when, in seconds."""

    signal: int | None = None
    time: float = 0.0

    def __call__(self) -> bool:
        """Whether a signal has come."""
        return self.signal is not None

    @property
    def status(self) -> int:
        """The exit status that says so: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + (self.signal or 0)


@contextlib.contextmanager
def catch_signals(signals: Sequence[signal.Signals] = SIGNALS) -> Iterator[Request]:
    """Notes the first signal in a request; a second one, a second later, ends the process as usual.

    Within a second it counts as the same: launchers send a signal to a process and to its parent, which passes it on.
    """
    request = Request()
    previous = {number: signal.getsignal(number) for number in signals}

    def note(number: int, _: FrameType | None) -> None:
        if request.signal is None:
            request.signal, request.time = number, time.monotonic()
        elif time.monotonic() > request.time + 1:
            signal.signal(number, previous[signal.Signals(number)])
            signal.raise_signal(number)

    for number in signals:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number in signals:
            signal.signal(number, previous[number])

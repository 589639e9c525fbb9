"""Ctrl-C and SIGTERM as a request that is looked at when it suits."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Request:
    """Whether the process was asked to stop.

    Attributes:
        signal: by which signal; None: it was not.
        time: when, in seconds.
    """

    signal: int | None = None
    time: float = 0.0

    def __call__(self) -> bool:
        """Whether it was."""
        return self.signal is not None

    @property
    def status(self) -> int:
        """The exit status that says so: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + (self.signal or 0)


@contextlib.contextmanager
def catch_signals() -> Iterator[Request]:
    """While it lasts, the first signal is only noted; one that comes later ends the process as it always did.

    Within a second it is the same one: launchers send it to a process and to its parent, which passes it on.
    """
    request = Request()
    previous = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, _: FrameType | None) -> None:
        if request.signal is None:
            request.signal, request.time = number, time.monotonic()
        elif time.monotonic() > request.time + 1:
            signal.signal(number, previous[signal.Signals(number)])
            signal.raise_signal(number)

    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number in SIGNALS:
            signal.signal(number, previous[number])

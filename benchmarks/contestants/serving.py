"""How a contestant talks to `peers.py`: it builds once, then trains and evaluates for every seed it is sent."""

import importlib.metadata
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

EPISODES = 32
"""Of one evaluation."""


class Trial(NamedTuple):
    """A training that is ready to run.

    Attributes:
        run: `(seed) -> (steps per second, mean return of the final policy for each seed)`; timed is training alone.
        compile_seconds: what tracing and compiling took; None where each run compiles or nothing is compiled.
        device: that it runs on, where JAX says so.
    """

    run: Callable[[int], tuple[float, list[float]]]
    compile_seconds: float | None = None
    device: str | None = None


def serve(make: Callable[..., Trial], libraries: Sequence[str]) -> None:
    """Runs a contestant: JSON settings in the first argument, seeds on standard input, JSON lines as answers.

    They go to the file descriptor that ANSWERS names, since libraries print, too; else to standard output.

    Args:
        make: the trial at these settings, given by name.
        libraries: whose versions are told.
    """
    answers = os.fdopen(int(os.environ.get("ANSWERS", "1")), "w")

    def answer(**values: Any) -> None:
        print(json.dumps(values), file=answers, flush=True)

    trial = make(**json.loads(sys.argv[1]))
    versions = {name: importlib.metadata.version(name) for name in libraries}
    answer(compile=trial.compile_seconds, device=trial.device, versions=versions)
    for line in sys.stdin:
        steps_per_second, returns = trial.run(int(line))
        answer(steps_per_second=steps_per_second, returns=returns)

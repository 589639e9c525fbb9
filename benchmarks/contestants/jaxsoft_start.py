"""From the start of `jaxsoft train` to its first training step, 8 SAC seeds on Pendulum; one JSON line."""

import json
import time

process_start = time.perf_counter()

import contextlib  # noqa: E402
import gc  # noqa: E402
import tempfile  # noqa: E402
from typing import Any  # noqa: E402

from jaxsoft.cli import main  # noqa: E402
from jaxsoft.runs import driver  # noqa: E402

seconds = {"import": time.perf_counter() - process_start}


def train_run(*args: Any, run: Any = driver.train_run, **kwargs: Any) -> Any:
    """The command's own, up to the first slice of the training, which is one step."""
    next(run(*args, **kwargs))
    seconds["first_step"] = time.perf_counter() - process_start
    raise SystemExit


if __name__ == "__main__":
    gc.freeze()  # as the command's script does
    driver.train_run = train_run
    with tempfile.TemporaryDirectory() as runs, contextlib.suppress(SystemExit):
        main(["train", "sac", "gymnax/Pendulum-v1", "--num-seeds", "8", "--out", f"{runs}/run"])
    print(json.dumps(seconds))

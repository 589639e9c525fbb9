"""How long until training begins? `python benchmarks/start.py`, about 3 minutes on 2 cores.

Tracing and compiling the whole program of 8 SAC seeds on Pendulum, and the time from the start of `jaxsoft train` to
its first training step, without and with the persistent cache.
"""

from __future__ import annotations

import json
import tempfile

from rich.table import Table
from rounds import in_words, make_console, make_parser, run_contestant

PROGRAM = {
    "agent": "sac",
    "env_id": "gymnax/Pendulum-v1",
    "num_seeds": 8,
    "num_steps": 100,
    "learning_starts": 500,
    "hidden_sizes": (64, 64),
    "batch_size": 64,
    "replay_capacity": 10_000,
}


def main() -> None:
    rounds = make_parser(__doc__, 5).parse_args().rounds
    compiled, cold, warm = [], [], []
    for _ in range(rounds):
        built = run_contestant("jaxsoft_train.py", json.dumps(PROGRAM), JAX_ENABLE_COMPILATION_CACHE="false")
        compiled.append(built["compile"])
        with tempfile.TemporaryDirectory() as cache:
            environment = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}
            for seconds in (cold, warm):
                seconds.append(run_contestant("jaxsoft_start.py", **environment)["first_step"])
    table = Table(title=f"starting, seconds, {rounds} rounds, 8 seeds")
    for column in ("what", "median (min – max)", "wanted"):
        table.add_column(column, justify="left" if column == "what" else "right")
    table.add_row("tracing and compiling the whole program", in_words(compiled, ".1f"), "≤ 8")
    table.add_row("the command's start to its first step, cold", in_words(cold, ".1f"), "")
    table.add_row("the same from the cache", in_words(warm, ".1f"), "≤ 3")
    make_console().print(table)


if __name__ == "__main__":
    main()

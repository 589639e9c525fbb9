"""How the contestants in JAX are timed: one compilation, then a few calls."""

import json
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import jax


def measure(program: Any, keys: Sequence[jax.Array]) -> dict[str, float]:
    """Seconds of tracing a jitted function of keys, of compiling it, and of its fastest call with one of `keys`."""
    times = [time.perf_counter()]
    lowered = program.lower(keys[0])
    times.append(time.perf_counter())
    compiled = lowered.compile()
    times.append(time.perf_counter())
    for each in keys:
        jax.block_until_ready(compiled(each))
        times.append(time.perf_counter())
    trace, compilation, *calls = (end - begin for begin, end in pairwise(times))
    return {"trace": trace, "compile": compilation, "call": min(calls)}


def print_speed(program: Any, keys: Sequence[jax.Array], num_steps: int) -> None:
    """One JSON line: seconds of tracing and compiling, and steps per second where a call makes `num_steps`."""
    seconds = measure(program, keys)
    print(json.dumps(seconds | {"steps_per_second": num_steps / seconds["call"]}))

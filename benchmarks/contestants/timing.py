"""How programs in JAX are timed: one compilation, then calls that are waited for."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from serving import Trial


def compile_timed(program: Any, keys: jax.Array) -> tuple[Any, dict[str, float]]:
    """A jitted function of keys, compiled, and the seconds of tracing and of compiling it."""
    times = [time.perf_counter()]
    lowered = program.lower(keys)
    times.append(time.perf_counter())
    compiled = lowered.compile()
    times.append(time.perf_counter())
    return compiled, {"trace": times[1] - times[0], "compile": times[2] - times[1]}


def timed(function: Callable[..., Any], *args: Any) -> tuple[float, Any]:
    """Seconds of a call until its result is there, and the result."""
    jax.block_until_ready(args)
    start = time.perf_counter()
    result = jax.block_until_ready(function(*args))
    return time.perf_counter() - start, result


def measure(program: Any, keys: Sequence[jax.Array]) -> dict[str, float]:
    """Seconds of tracing a jitted function of keys, of compiling it, and of its fastest call with one of `keys`."""
    compiled, seconds = compile_timed(program, keys[0])
    return seconds | {"call": min(timed(compiled, each)[0] for each in keys)}


def make_trial(
    train: Any,
    mean_return: Callable[[jax.Array, Any], jax.Array],
    make_key: Callable[[jax.Array], jax.Array],
    num_seeds: int,
    num_steps: int,
) -> Trial:
    """A trial of many seeds side by side.

    Args:
        train: jitted, `(keys [num_seeds]) -> state`, whose leaves have a leading axis [num_seeds].
        mean_return: `(key, state) -> []` of one seed: the final policy over `EPISODES` episodes.
        make_key: `(number) -> key`.
        num_seeds: trained together; a trial's are consecutive numbers.
        num_steps: that the speed counts, of each seed.
    """
    make_keys = jax.jit(jax.vmap(make_key))
    evaluate = jax.jit(jax.vmap(mean_return))
    compiled, seconds = compile_timed(train, make_keys(np.arange(num_seeds)))

    def run(seed: int) -> tuple[float, list[float]]:
        numbers = num_seeds * seed + np.arange(num_seeds)
        taken, state = timed(compiled, make_keys(numbers))
        returns = evaluate(make_keys(1_000_000 + numbers), state)
        return num_seeds * num_steps / taken, np.asarray(returns, float).tolist()

    return Trial(run, sum(seconds.values()), jax.devices()[0].device_kind)

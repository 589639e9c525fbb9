"""How many environment steps a second do this project's wrappers leave of Brax's own raw steps?

    python benchmarks/envs.py              # prints the table and writes envs.md beside this file; some minutes
    python benchmarks/envs.py --backends   # instead: every Brax environment on every backend, raw

The contestants step 32 environments with random actions, each a compiled program of its own, and take turns in short
slices, so that a machine whose speed drifts drifts for all. `raw` is `vmap` of Brax's own step and never resets: its
environments stay wherever they have fallen. `training` is what agents train in: actions scaled to the bounds, time
limit, totals of the episodes, and a fresh random start for every one; without resets it stays where raw does. `reset
at every step` is the usual alternative.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rounds import Slices, alternate, in_words, machine, make_parser

from jaxsoft.envs import brax, make_env
from jaxsoft.envs.wrappers import auto_reset, vectorise, wrap_for_evaluation, wrap_for_training
from jaxsoft.errors import InputError
from jaxsoft.random import fused
from jaxsoft.types import Env

NUM_ENVS = 32
NAMES = ("hopper", "halfcheetah")
SLICE_SECONDS = 0.5
WANTED = 0.9


def ours(envs: Env) -> Slices:
    """Wrapped environments under random actions."""
    num_actions = envs.spec.action_space.shape[-1]

    def step(_: Any, carry: Any) -> Any:
        state, key = carry
        key, action_key, step_key = jax.random.split(key, 3)
        action = jax.random.uniform(action_key, (NUM_ENVS, num_actions), minval=-1, maxval=1)
        return envs.step(step_key, state, action)[0], key

    state = jax.jit(lambda key: envs.reset(fused(key))[0])(jax.random.key(0))
    return _slices(step, state)


def raw(name: str, backend: str) -> Slices:
    """Brax's own step, vmapped, without any reset."""
    env = brax._raw(name, backend, {})

    def step(_: Any, carry: Any) -> Any:
        state, key = carry
        key, action_key = jax.random.split(key)
        action = jax.random.uniform(action_key, (NUM_ENVS, env.action_size), minval=-1, maxval=1)
        after = jax.vmap(env.step)(state, action)
        return jax.tree.map(lambda new, old: new.astype(old.dtype), after, state), key

    state = jax.jit(lambda key: jax.vmap(env.reset)(jax.random.split(key, NUM_ENVS)))(jax.random.key(0))
    return _slices(step, state)


def _slices(step: Callable[[Any, Any], Any], state: Any) -> Slices:
    advance = jax.jit(lambda state, num_steps: jax.lax.fori_loop(0, num_steps, step, state))
    return Slices(advance, (state, fused(jax.random.key(1))), SLICE_SECONDS)


def speeds(contestants: Mapping[str, Slices], rounds: int) -> dict[str, np.ndarray]:
    """Environment steps per second of each contestant in each round, [rounds]."""
    return {name: NUM_ENVS * steps for name, steps in alternate(contestants, rounds).items()}


def compare(rounds: int) -> str:
    """The table of our wrappers against Brax's raw step."""
    lines = [
        f"Environment steps per second of {NUM_ENVS} environments under random actions, median (min – max) of {rounds} "
        f"slices of about {SLICE_SECONDS:g} s, in turn. {machine()}. Made by `python benchmarks/envs.py`.",
        "",
        f"| environment | | steps per second | over raw (wanted: training ≥ {WANTED}) |",
        "|---|---|--:|--:|",
    ]
    for name in NAMES:
        env = make_env(f"brax/{name}", backend="spring")
        measured = speeds(
            {
                "raw": raw(name, "spring"),
                "training": ours(wrap_for_training(env, NUM_ENVS)),
                "training, without resets": ours(vectorise(wrap_for_evaluation(env), NUM_ENVS)),
                "reset at every step": ours(vectorise(auto_reset(wrap_for_evaluation(env)), NUM_ENVS)),
            },
            rounds,
        )
        for what, values in measured.items():
            ratio = "" if what == "raw" else in_words(values / measured["raw"])
            title = f"`brax/{name}`, spring" if what == "raw" else ""
            lines.append(f"| {title} | {what} | {in_words(values, ',.0f')} | {ratio} |")
            print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"


def backends(rounds: int) -> str:
    """The table of every Brax environment on every backend."""
    lines = ["| environment | " + " | ".join(brax.BACKENDS) + " |", "|---|" + "--:|" * len(brax.BACKENDS)]
    for name in brax.SUITE.names():
        cells = []
        for backend in brax.BACKENDS:
            try:
                (values,) = speeds({backend: raw(name, backend)}, rounds).values()
                cells.append(f"{np.median(values):,.0f}")
            except InputError:
                cells.append("")
        lines.append(f"| {name} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = make_parser(__doc__, 15)
    parser.add_argument("--backends", action="store_true", help="measure the backends, raw, and write no file")
    options = parser.parse_args()
    warnings.simplefilter("ignore", DeprecationWarning)  # Brax's, of MJX's fields
    if options.backends:
        print(backends(options.rounds))
        return
    table = compare(options.rounds)
    print(table)
    Path(__file__).with_suffix(".md").write_text(table)


if __name__ == "__main__":
    main()

"""One update of an actor-critic agent: a batch, and what has to hold between the states before and after it."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import jax
import numpy as np
import optax

from jaxsoft.types import Box, Discrete, EnvSpec, Transition
from support.reference.soft_q import leaves

BATCH_SIZE, OBS_DIM, ACTION_DIM, NUM_ACTIONS = 6, 2, 2, 3
UNIT_BOX = Box(np.full(ACTION_DIM, -1, np.float32), np.full(ACTION_DIM, 1, np.float32))
CONTINUOUS = EnvSpec("probe/continuous", (OBS_DIM,), np.dtype(np.float32), UNIT_BOX, 10)
DISCRETE = EnvSpec("probe/discrete", (OBS_DIM,), np.dtype(np.float32), Discrete(NUM_ACTIONS), 10)
DISCOUNT, TEMPERATURE, LEARNING_RATE, POLYAK = 0.7, 0.3, 1e-3, 0.9
SETTINGS: dict[str, Any] = {
    "hidden_sizes": (5,),
    "learning_rate": LEARNING_RATE,
    "discount": DISCOUNT,
    "polyak": POLYAK,
    "batch_size": BATCH_SIZE,
}


def a_batch(spec: EnvSpec, *shape: int) -> Any:
    """Random transitions, or sequences whose episodes end in both ways: a `Transition` of NumPy arrays."""
    rng = np.random.default_rng(5)
    numbered = np.arange(np.prod(shape)).reshape(shape)
    terminated, truncated = numbered % 7 == 3, numbered % 7 == 5
    obs, next_obs = rng.normal(size=(2, *shape, OBS_DIM)).astype(np.float32)
    if len(shape) == 2:
        ended = (terminated | truncated)[:-1, :, None]
        next_obs[:-1] = np.where(ended, next_obs[:-1], obs[1:])
    if spec is DISCRETE:
        action = rng.integers(NUM_ACTIONS, size=shape).astype(np.int32)
    else:
        action = rng.uniform(-0.9, 0.9, (*shape, ACTION_DIM)).astype(np.float32)
    reward, log_prob = rng.normal(size=(2, *shape)).astype(np.float32)
    return Transition(obs, action, reward, next_obs, terminated, truncated, log_prob)  # type: ignore[arg-type]


def two_states(module: ModuleType, config: Any, spec: EnvSpec) -> tuple[Any, Any, Any]:
    """The jitted update, and two initial states: parameters of the second can stand for slow copies."""
    agent = module.make(config, spec, 1)
    init = jax.jit(agent.init)
    return jax.jit(agent.update), init(jax.random.key(0)), init(jax.random.key(1))


def noise_of(key: jax.Array, *shape: int) -> np.ndarray:
    """The standard normal noise that an agent draws with this key for actions of this batch shape."""
    return np.asarray(jax.random.normal(key, (*shape, ACTION_DIM)), np.float64)


def assert_descended(name: str, before: Any, after: Any, expected_gradient: Any) -> None:
    """The first moment is 0.1 of the gradient, all of it; the step is Adam's first, of its size."""
    field = f"{name}_params"
    moment = optax.tree.get(after.opt_states[name], "mu")
    for actual, expected in zip(jax.tree.leaves(moment), leaves(expected_gradient), strict=True):
        np.testing.assert_allclose(actual, 0.1 * expected, rtol=2e-3, atol=1e-6, err_msg=name)
        assert np.abs(expected).max() > 1e-4, name
    grads = jax.tree.map(lambda m: m / 0.1, moment)
    stepped = jax.tree.map(lambda p, g: p - LEARNING_RATE * g / (abs(g) + 1e-8), getattr(before, field), grads)
    # a gradient of 0 to rounding has a step of any size up to the learning rate
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), getattr(after, field), stepped)


def assert_moved(slow_before: Any, fast_after: Any, slow_after: Any) -> None:
    """The slow copy moved by 1 − polyak to the new parameters."""
    for old, fast, new in zip(*(jax.tree.leaves(p) for p in (slow_before, fast_after, slow_after)), strict=True):
        np.testing.assert_allclose(new, POLYAK * np.asarray(old) + (1 - POLYAK) * np.asarray(fast), atol=1e-6)


def assert_same(actual: Any, expected: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, actual, expected)

"""The trace that the streaming agents share, and what follows it."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jaxsoft.agents.step_sizes import Move
from jaxsoft.agents.streaming import extend, follow


def test_a_trace_fades_and_takes_the_new_gradient_in() -> None:
    old, gradient = {"w": jnp.asarray([4.0, -8.0])}, {"w": jnp.asarray([0.5, 0.25])}
    np.testing.assert_allclose(extend(old, gradient, 0.5, 0.5, 1.0)["w"], [1.5, -1.75])
    np.testing.assert_allclose(extend(old, gradient, 0.5, 0.5, 0.5)["w"], [1.0, -0.75])
    np.testing.assert_array_equal(extend(old, gradient, 0.5, 0.5, 0.0)["w"], gradient["w"])


def test_parameters_follow_a_direction_by_step_size_and_error() -> None:
    move = Move({"w": jnp.asarray([1.5, -1.75])}, jnp.float32(-2.0), jnp.float32(0.1))
    after = follow({"w": jnp.asarray([1.0, 2.0])}, move)
    np.testing.assert_allclose(after["w"], [1 - 0.1 * 2 * 1.5, 2 + 0.1 * 2 * 1.75], rtol=1e-6)

"""The step that the streaming agents share."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jaxsoft.agents.streaming import Decay, StepSize, bounded_step_size, step


def test_the_step_size_is_bounded_by_the_inverse_of_overshoot_error_and_trace() -> None:
    trace = {"a": jnp.asarray([1.0, -2.0]), "b": jnp.asarray([[0.5]])}

    def size(learning_rate: float, overshoot_bound: float, td_error: float) -> np.ndarray:
        return np.asarray(bounded_step_size(StepSize(learning_rate, overshoot_bound), jnp.float32(td_error), trace))

    np.testing.assert_allclose(size(1.0, 2.0, -3.0), 1 / (2 * 3 * 3.5), rtol=1e-6)
    np.testing.assert_allclose(size(1.0, 2.0, 0.1), 1 / (2 * 3.5), rtol=1e-6)  # errors count from 1
    assert size(0.01, 2.0, 0.1) == np.float32(0.01)
    assert size(1.0, 0.0, 100.0) == 1


def test_a_step_goes_along_the_faded_trace_with_the_new_gradient_in_it() -> None:
    params, old, gradient = ({"w": jnp.asarray(x)} for x in ([1.0, 2.0], [4.0, -8.0], [0.5, 0.25]))
    after, trace, size = step(params, old, gradient, jnp.float32(-2.0), Decay(0.5, 0.5, 1.0), StepSize(0.1, 0.0))
    np.testing.assert_allclose(trace["w"], [1.5, -1.75])
    np.testing.assert_allclose(after["w"], [1 - 0.1 * 2 * 1.5, 2 + 0.1 * 2 * 1.75])
    assert size == np.float32(0.1)

"""Step-size rules of streams: each against NumPy, and what it promises."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.reference.soft_q import leaves
from support.streams import (
    HARD,
    LEARNING_RATES,
    NUMBERS,
    SMALL,
    assert_close,
    by_hand,
    learn,
    learn_known_values,
    some_steps,
)

from jaxsoft.agents import soft_q_stream
from jaxsoft.agents.step_sizes import RULES, Moments, Step, StepSize, bounded_step_size


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_matches_numpy(rule: Any) -> None:
    steps, learning_rate = some_steps(), LEARNING_RATES[rule]
    config = soft_q_stream.Config(step_size_rule=rule, learning_rate=learning_rate, **NUMBERS, **HARD, **SMALL)
    first, params, sizes = learn(soft_q_stream, config, steps)
    assert_close(params, sizes, by_hand(rule, first, steps, learning_rate))
    if rule == "obgd":  # the bound holds at some steps and not at others
        assert sizes.min() < 0.999 * learning_rate
        assert sizes.max() == np.float32(learning_rate)


@pytest.mark.parametrize(("rule", "learning_rate"), [("obgd", 1.0), ("intentional", 0.25)])
def test_every_rule_learns_values_that_are_known(rule: Any, learning_rate: float) -> None:
    config = soft_q_stream.Config(step_size_rule=rule, learning_rate=learning_rate, **NUMBERS, **HARD, **SMALL)
    learn_known_values(soft_q_stream, config)


def test_the_bounded_step_size_is_the_inverse_of_overshoot_error_and_trace() -> None:
    trace = {"a": jnp.asarray([1.0, -2.0]), "b": jnp.asarray([[0.5]])}

    def size(learning_rate: float, overshoot_bound: float, td_error: float) -> np.ndarray:
        return np.asarray(bounded_step_size(StepSize(learning_rate, overshoot_bound), jnp.float32(td_error), trace))

    np.testing.assert_allclose(size(1.0, 2.0, -3.0), 1 / (2 * 3 * 3.5), rtol=1e-6)
    np.testing.assert_allclose(size(1.0, 2.0, 0.1), 1 / (2 * 3.5), rtol=1e-6)  # errors count from 1
    assert size(0.01, 2.0, 0.1) == np.float32(0.01)
    assert size(1.0, 0.0, 100.0) == 1


def test_an_intended_step_moves_a_linear_value_by_its_share_of_the_error() -> None:
    steps, share = some_steps(), 0.3
    numbers = {**NUMBERS, "lambda_": 0.0, "hidden_sizes": (), "normalise_obs": False, "sparsity": 0.0}
    config = soft_q_stream.Config(step_size_rule="intentional", learning_rate=share, **numbers, **HARD)
    first, (kernels,), _ = learn(soft_q_stream, config, steps)
    before = [leaves(first)[0], *kernels[:-1]]
    for step, w, moved in zip(steps[:-1], before, kernels[:-1], strict=False):
        q, after = ((step["obs"] @ x)[step["action"]] for x in (w, moved))
        ahead = 0 if step["terminated"] else NUMBERS["discount"] * (step["next_obs"] @ w).max()
        np.testing.assert_allclose(after - q, share * (step["reward"] + ahead - q), rtol=1e-4)


def test_the_energy_of_whole_traces_is_the_mean_of_all_steps() -> None:
    memory, moved = intend([1.0, 3.0, -2.0], fading=1.0)
    squares, means = np.array([1, 9, 4]), np.array([1, 10 / 2, 14 / 3])  # v fades by a thousandth
    np.testing.assert_allclose(memory.energy, np.mean(squares / np.sqrt(means)), rtol=1e-3)
    assert np.isfinite(moved)


def test_an_intended_step_is_its_share_also_after_much_larger_gradients() -> None:
    np.testing.assert_allclose(intend([1.0, 1.0, 1e-4], fading=0.0)[1], 1, rtol=1e-3)


def intend(gradients: list[float], fading: float) -> tuple[Moments, float]:
    """The moments after steps of 2,000 equal parameters, by how much the last one moves a linear value at δ = 1."""
    rule, params = RULES["intentional"], {"w": jnp.zeros(2_000)}
    memory, trace, moved = rule.init(params), params, 0.0
    for t, gradient in enumerate(gradients, start=1):
        one = {"w": jnp.full(2_000, gradient)}
        trace = jax.tree.map(lambda e, g: fading * e + g, trace, one)
        step = Step(one, trace, jnp.float32(1), fading, jnp.float32(t))
        memory, move = rule.move(StepSize(1.0, 0.0), memory, step)
        moved = float(move.step_size * move.td_error * jnp.sum(move.direction["w"] * one["w"]))
    return memory._replace(energy=memory.energy / 2_000), moved


def test_an_intended_step_bounds_errors_by_twenty_times_their_size() -> None:
    one, number = {"w": jnp.ones(1)}, jnp.float32(1e6)
    for error, expected in ((1000.0, 20 * np.sqrt(0.9998 + 0.0002 * 1e6)), (-1000.0, -283.54), (20.0, 20.0)):
        step = Step(one, one, jnp.float32(error), 0.8, number)
        _, move = RULES["intentional"].move(StepSize(1.0, 0.0), Moments(one, jnp.ones(()), jnp.ones(())), step)
        np.testing.assert_allclose(move.td_error, expected, rtol=1e-4)

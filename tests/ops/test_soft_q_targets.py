"""Targets made of experience: against a loop over episodes, the golden sequences, and the operators beneath."""

from __future__ import annotations

from typing import Any

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.golden_cases import load
from support.precision import BOTH, assert_close, precision
from support.reference import returns as reference

from jaxsoft.errors import InputError
from jaxsoft.ops import soft_q_targets
from jaxsoft.ops.traces import TRACES

LENGTH, NUM_ACTIONS = 9, 3
NUMBERS: dict[str, Any] = {"discount": 0.9, "temperature": 0.4, "lambda_": 0.8}
TARGETS = jax.jit(soft_q_targets, static_argnames="trace")


def experience(seed: int = 0) -> dict[str, np.ndarray]:
    """A random sequence with ends of both kinds inside it; log μ is that of no particular policy."""
    rng = np.random.default_rng(seed)
    at = np.arange(LENGTH)
    return {
        "r": rng.normal(size=LENGTH),
        "terminated": at == 2,
        "truncated": at == 5,
        "q": 2 * rng.normal(size=(LENGTH, NUM_ACTIONS)),
        "reference": np.log(rng.dirichlet(np.ones(NUM_ACTIONS), LENGTH)),
        "action": rng.integers(NUM_ACTIONS, size=LENGTH),
        "mu": rng.uniform(0.2, 1, LENGTH),
    }


def targets_of(e: dict[str, np.ndarray], **numbers: Any) -> np.ndarray:
    with precision(np.float64):
        arrays = (e["r"], e["terminated"], e["truncated"], e["q"], e["reference"], e["action"], np.log(e["mu"]))
        return np.asarray(TARGETS(*map(jnp.asarray, arrays), **(NUMBERS | {"trace": "retrace"} | numbers)))


def loop_over(e: dict[str, np.ndarray], **numbers: Any) -> np.ndarray:
    return reference.soft_q_targets(*e.values(), **(NUMBERS | {"trace": "retrace"} | numbers))


@BOTH
@pytest.mark.parametrize("trace", [trace for trace in TRACES if trace != "watkins"])
def test_golden_sequences(trace: str, dtype: type) -> None:
    for case in load("sequences"):
        with precision(dtype):
            targets = TARGETS(
                jnp.asarray(case["rewards"], dtype),
                jnp.asarray(case["terminated"], bool),
                jnp.asarray(case["truncated"], bool),
                jnp.asarray(case["next_q"], dtype),
                jnp.asarray(case["reference_log_probs"], dtype),
                jnp.asarray(case["next_action"], jnp.int32),
                jnp.asarray(case["behaviour_log_probs"][np.arange(len(case["rewards"])), case["next_action"]], dtype),
                discount=case["discount"],
                temperature=case["temperature"],
                lambda_=case["lambda_"],
                trace=trace,
            )
        assert targets.dtype == dtype
        assert_close(targets, case[trace], dtype)


@settings(deadline=None, max_examples=100)
@given(
    hnp.arrays(np.float64, (LENGTH, NUM_ACTIONS + 1), elements=st.floats(-10, 10, width=32)),
    hnp.arrays(np.float64, (LENGTH, NUM_ACTIONS), elements=st.floats(-3, 3, width=32)),
    hnp.arrays(np.int8, LENGTH, elements=st.integers(0, 5)),
    hnp.arrays(np.int32, LENGTH, elements=st.integers(0, NUM_ACTIONS - 1)),
    hnp.arrays(np.float64, LENGTH, elements=st.floats(0.0625, 1, width=32)),
    st.floats(0, 1, width=32),
    st.sampled_from(TRACES),
)
def test_targets_agree_with_the_loop_over_episodes(values, logits, ends, action, mu, lambda_, trace) -> None:
    log_prior = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    arrays = values[:, 0], ends == 0, ends == 1, values[:, 1:], log_prior, action, mu
    e = dict(zip(experience(), arrays, strict=True))
    first, second = np.sort(e["q"] + NUMBERS["temperature"] * log_prior)[:, :-3:-1].T
    assume(trace != "watkins" or np.all(first - second > 1e-9))  # rounding decides a tie of sums
    loop = loop_over(e, lambda_=lambda_, trace=trace)
    scale = max(1.0, np.abs(loop).max())
    np.testing.assert_allclose(targets_of(e, lambda_=lambda_, trace=trace), loop, rtol=1e-9, atol=1e-9 * scale)


@pytest.mark.parametrize("trace", TRACES)
def test_one_step_targets_do_not_depend_on_the_coefficient(trace: str) -> None:
    e = experience()
    v = [reference.soft_value(q, p, NUMBERS["temperature"]) for q, p in zip(e["q"], e["reference"], strict=True)]
    expected = e["r"] + NUMBERS["discount"] * np.where(e["terminated"], 0, v)
    np.testing.assert_allclose(targets_of(e, lambda_=0.0, trace=trace), expected, rtol=1e-12)


@pytest.mark.parametrize("trace", TRACES)
@pytest.mark.parametrize("kind", ["terminated", "truncated"])
def test_nothing_behind_an_episodes_end_reaches_before_it(trace: str, kind: str) -> None:
    e = experience()
    end = int(np.flatnonzero(e[kind])[0])
    other = {name: x.copy() for name, x in e.items()}
    other["r"][end + 1 :] += 100
    other["q"][end + 1 :] -= 7
    for name in ("action", "mu"):  # those at the end itself are the next episode's first
        other[name][end:] = e[name][end:][::-1]
    np.testing.assert_array_equal(targets_of(other, trace=trace)[: end + 1], targets_of(e, trace=trace)[: end + 1])


def test_a_time_limit_bootstraps_where_a_terminal_step_does_not() -> None:
    e = experience()
    targets, ended, stopped = targets_of(e), 2, 5
    v = reference.soft_value(e["q"][stopped], e["reference"][stopped], NUMBERS["temperature"])
    assert targets[ended] == e["r"][ended]
    np.testing.assert_allclose(targets[stopped], e["r"][stopped] + NUMBERS["discount"] * v, rtol=1e-12)


@pytest.mark.parametrize("trace", TRACES)
def test_forbidden_actions_have_no_effect_whatever_their_value(trace: str) -> None:
    e = experience()
    e["reference"] = np.tile([np.log(0.5), np.log(0.5), -np.inf], (LENGTH, 1))
    e["action"] %= 2
    wild = e | {"q": e["q"] * [1, 1, 0] + [0, 0, 1e30]}
    np.testing.assert_allclose(targets_of(wild, trace=trace), targets_of(e, trace=trace), rtol=1e-12)
    np.testing.assert_allclose(targets_of(e, trace=trace), loop_over(e, trace=trace), rtol=1e-10)


@pytest.mark.parametrize("trace", ["tree_backup", "retrace", "importance_sampling", "watkins"])
def test_the_trace_stops_where_a_forbidden_action_was_taken(trace: str) -> None:
    # an exploring policy may take what π never does: c = π/μ = 0
    e = experience()
    e["reference"] = np.tile([np.log(0.5), np.log(0.5), -np.inf], (LENGTH, 1))
    e["action"][:] = 2
    np.testing.assert_array_equal(targets_of(e, trace=trace), targets_of(e, trace=trace, lambda_=0.0))
    assert np.isfinite(targets_of(e, trace=trace)).all()


def test_watkins_cuts_at_the_first_action_that_is_not_greedy() -> None:
    e = experience()
    scores = e["q"] + NUMBERS["temperature"] * e["reference"]  # what π ranks actions by
    greedy = e | {"action": scores.argmax(-1)}
    np.testing.assert_allclose(targets_of(greedy, trace="watkins"), targets_of(greedy, trace="uncorrected"))
    other = e | {"action": scores.argmin(-1)}
    np.testing.assert_array_equal(targets_of(other, trace="watkins"), targets_of(other, lambda_=0.0))
    tied = other | {"q": np.zeros_like(e["q"]), "reference": np.full_like(e["q"], -np.log(NUM_ACTIONS))}
    np.testing.assert_allclose(targets_of(tied, trace="watkins"), targets_of(tied, trace="uncorrected"))


def test_beyond_a_terminal_step_nothing_counts_not_even_nan() -> None:
    e = experience()
    wild = e | {"q": np.where(e["terminated"][:, None], np.nan, e["q"])}
    np.testing.assert_array_equal(targets_of(wild), targets_of(e))
    nothing_allowed = e | {"reference": np.where(e["terminated"][:, None], -np.inf, e["reference"])}
    np.testing.assert_array_equal(targets_of(nothing_allowed), targets_of(e))


def test_the_last_action_and_its_probability_have_no_effect() -> None:
    e = experience()
    other = {name: x.copy() for name, x in e.items()}
    other["action"][-1], other["mu"][-1] = (e["action"][-1] + 1) % NUM_ACTIONS, 1e-3
    for trace in TRACES:
        np.testing.assert_array_equal(targets_of(other, trace=trace), targets_of(e, trace=trace))


def test_one_reference_serves_all_steps() -> None:
    e = experience()
    row = e["reference"][0]
    together = targets_of(e | {"reference": row})
    np.testing.assert_array_equal(together, targets_of(e | {"reference": np.tile(row, (LENGTH, 1))}))


def test_on_policy_retrace_with_lambda_1_is_the_discounted_sum_of_rewards_less_what_v_and_q_differ_by() -> None:
    # c = 1 at μ = π: G = Σ γ^k (r + γ V − Q) + Q, whose V − Q are the sampled price −τ log π/π0
    e = experience() | {"terminated": np.zeros(LENGTH, bool), "truncated": np.zeros(LENGTH, bool)}
    tau, discount = NUMBERS["temperature"], NUMBERS["discount"]
    pi = np.array([reference.boltzmann(q, p, tau) for q, p in zip(e["q"], e["reference"], strict=True)])
    taken = np.arange(LENGTH), e["action"]
    e["mu"] = pi[taken]
    price = tau * (np.log(pi[taken]) - e["reference"][taken])
    expected, beyond = np.zeros(LENGTH), reference.soft_value(e["q"][-1], e["reference"][-1], tau)
    for t in reversed(range(LENGTH)):
        last = t == LENGTH - 1
        expected[t] = e["r"][t] + discount * (beyond if last else expected[t + 1] - price[t])
    np.testing.assert_allclose(targets_of(e, lambda_=1.0), expected, rtol=1e-9)


def test_gradients_are_finite_with_forbidden_actions() -> None:
    e = experience()
    log_prior = jnp.log(jnp.asarray([0.5, 0.5, 0.0]))

    def total(q: jax.Array) -> jax.Array:
        arrays = (e["r"], e["terminated"], e["truncated"])
        last = (e["action"] % 2, np.log(e["mu"]))
        return TARGETS(
            *map(jnp.asarray, arrays), q, log_prior, *map(jnp.asarray, last), **NUMBERS, trace="retrace"
        ).sum()

    gradient = np.asarray(jax.grad(total)(jnp.asarray(e["q"])))
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[:, 2], 0)


def test_an_unknown_behaviour_is_enough_for_coefficients_that_need_none() -> None:
    e = experience()
    with precision(np.float64):
        arrays = [jnp.asarray(x) for x in list(e.values())[:-1]]
        targets = TARGETS(*arrays, None, **NUMBERS, trace="tree_backup")
        np.testing.assert_allclose(targets, targets_of(e, trace="tree_backup"), rtol=1e-12)
        with pytest.raises(InputError, match="retrace needs the behaviour's log-probabilities"):
            TARGETS(*arrays, None, **NUMBERS, trace="retrace")


def test_shapes_and_names_are_checked() -> None:
    e = experience()
    with pytest.raises(InputError, match="unknown trace coefficient 'retrase'; did you mean retrace"):
        targets_of(e, trace="retrase")
    for mu in (e["mu"][:-1], e["mu"][:1]):  # the second would broadcast
        with pytest.raises(AssertionError):
            targets_of(e | {"mu": mu})

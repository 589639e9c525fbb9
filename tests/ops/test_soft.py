from __future__ import annotations

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.golden_cases import load
from support.precision import BOTH, assert_close, precision
from support.reference import returns as reference

from jaxsoft.errors import InputError
from jaxsoft.ops import boltzmann_log_probs, boltzmann_policy, kl_divergence, kl_penalty, soft_value, temperature_loss

NUM_ACTIONS = 5
VALUES = hnp.arrays(np.float64, NUM_ACTIONS, elements=st.floats(-50, 50, width=32))
WEIGHTS = hnp.arrays(np.float64, NUM_ACTIONS, elements=st.floats(0.0625, 1, width=32))
TEMPERATURES = st.floats(0.0625, 16, width=32)


@jax.jit
def traced(q, log_prior, temperature):
    log_probs = boltzmann_log_probs(q, log_prior, temperature)
    return soft_value(q, log_prior, temperature), log_probs, kl_divergence(log_probs, log_prior)


def all_three(q, log_prior, temperature, dtype=np.float64):
    """Value, log-probabilities and divergence in one compiled call; NumPy out, so that no digit is lost later."""
    with precision(dtype):
        return jax.device_get(traced(jnp.asarray(q, dtype), jnp.asarray(log_prior, dtype), temperature))


def log_normalised(weights: np.ndarray) -> np.ndarray:
    return np.log(weights / weights.sum())


@BOTH
def test_golden_values_policies_and_divergences(dtype):
    for case in load("sequences"):
        v, log_probs, divergence = all_three(case["next_q"], case["reference_log_probs"], case["temperature"], dtype)
        assert_close(v, case["next_soft_value"], dtype)
        assert_close(np.exp(log_probs), case["next_boltzmann_probs"], dtype)
        assert_close(divergence, case["next_kl"], dtype)
        assert v.dtype == log_probs.dtype == divergence.dtype == dtype


@settings(deadline=None, max_examples=100)
@given(VALUES, WEIGHTS, TEMPERATURES)
def test_agrees_with_the_loops(q, weights, temperature):
    log_prior = log_normalised(weights)
    v, log_probs, divergence = all_three(q, log_prior, temperature)
    probs = reference.boltzmann(q, log_prior, temperature)
    np.testing.assert_allclose(v, reference.soft_value(q, log_prior, temperature), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(np.exp(log_probs), probs, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(divergence, reference.kl(probs, log_prior), rtol=1e-10, atol=1e-10)


@settings(deadline=None, max_examples=50)
@given(VALUES, WEIGHTS, TEMPERATURES, st.booleans())
def test_value_is_expected_q_minus_the_penalty(q, weights, temperature, counting):
    log_prior = np.zeros(NUM_ACTIONS) if counting else log_normalised(weights)
    v, log_probs, divergence = all_three(q, log_prior, temperature)
    expected = np.sum(np.exp(log_probs) * q) - temperature * divergence
    np.testing.assert_allclose(v, expected, rtol=1e-11, atol=1e-11)


def test_zeros_as_reference_give_the_entropy_bonus():
    q = jnp.array([1.0, 2.0, -1.0])
    np.testing.assert_allclose(
        soft_value(q, jnp.zeros(3), 0.5), 0.5 * np.log(np.exp(np.array(q) / 0.5).sum()), rtol=1e-6
    )
    log_probs = boltzmann_log_probs(q, jnp.zeros(3), 0.5)
    entropy = -np.sum(np.exp(log_probs) * log_probs)
    np.testing.assert_allclose(kl_divergence(log_probs, jnp.zeros(3)), -entropy, rtol=1e-6)


def test_low_temperature_is_the_maximum_and_the_greedy_policy():
    q = jnp.array([1e3, -5.0, 1e3 + 0.5, 2e3])
    log_prior = jnp.log(jnp.array([0.6, 0.3, 0.1, 0.0]))  # the best action is forbidden
    np.testing.assert_array_equal(soft_value(q, log_prior, 1e-6), 1e3 + 0.5)
    np.testing.assert_allclose(jnp.exp(boltzmann_log_probs(q, log_prior, 1e-6)), [0, 0, 1, 0], atol=1e-6)


def test_ties_are_shared_as_the_reference_shares_them():
    probs = jnp.exp(boltzmann_log_probs(jnp.array([7.0, 7.0, 6.0]), jnp.log(jnp.array([0.1, 0.3, 0.6])), 1e-4))
    np.testing.assert_allclose(probs, [0.25, 0.75, 0], atol=1e-6)


def test_high_temperature_is_the_references_mean_and_the_reference():
    q, prior = np.array([1.0, -5.0, 3.0]), np.array([0.6, 0.3, 0.1])
    v, log_probs, _ = all_three(q, np.log(prior), 1e7)
    np.testing.assert_allclose(v, prior @ q, atol=1e-5)  # the next term is Var[Q] / 2τ
    np.testing.assert_allclose(np.exp(log_probs), prior, atol=1e-6)


DISTRIBUTIONS, COUNTING = slice(3), slice(3, 4)


def grid_of_temperatures():
    """Float32 Q [draws, A], log π0 [references, A] and τ [temperatures]."""
    q = np.random.default_rng(0).uniform(0, 3, (20, NUM_ACTIONS))
    weights = np.array([[0.2] * 5, [0.6, 0.3, 0.1, 0, 0], [1e-20, 0.2, 0.5, 0.3, 0], [1] * 5])
    with np.errstate(divide="ignore"):
        return tuple(x.astype(np.float32) for x in (q, np.log(weights), np.logspace(-3, 6, 19)))


@pytest.fixture(scope="module")
def many_temperatures():
    """Float32 results and their long-double values [temperatures, references, draws of Q, ...], and temperatures."""
    q, log_prior, temperatures = grid_of_temperatures()
    weights = np.exp(log_prior.astype(np.longdouble))
    weights[DISTRIBUTIONS] /= weights[DISTRIBUTIONS].sum(-1, keepdims=True)

    def results(q, log_prior, temperature):
        value, slopes = jax.value_and_grad(soft_value, argnums=(0, 1, 2))(q, log_prior, temperature)
        log_probs = boltzmann_log_probs(q, log_prior, temperature)
        same_log_probs, policy_kl = boltzmann_policy(q, log_prior, temperature)
        return {"v": value, "dq": slopes[0], "dprior": slopes[1], "dt": slopes[2], "log_probs": log_probs} | {
            "kl": kl_divergence(log_probs, log_prior),
            "policy_kl": policy_kl,
            "difference": jnp.where(same_log_probs == log_probs, 0, same_log_probs - log_probs),
        }

    grid = jax.vmap(jax.vmap(jax.vmap(results, (0, None, None)), (None, 0, None)), (None, None, 0))
    found = {name: np.asarray(x, np.longdouble) for name, x in jax.jit(grid)(q, log_prior, temperatures).items()}

    tau = temperatures.astype(np.longdouble)[:, None, None]
    w, q = weights[None, :, None, :], q.astype(np.longdouble)[None, None]
    highest = np.max(np.where(w > 0, q, -np.inf), axis=-1, keepdims=True)
    mass = np.sum(w * np.exp((q - highest) / tau[..., None]), axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_ratio = (q - highest) / tau[..., None] - np.log(mass)
        log_probs = np.where(w > 0, np.log(w) + log_ratio, -np.inf)
    kl = np.sum(np.exp(log_probs) * log_ratio, axis=-1)
    v = highest[..., 0] + tau * np.log(mass[..., 0])
    exact = {"v": v, "dq": np.exp(log_probs), "dprior": tau[..., None] * np.exp(log_probs), "dt": -kl}
    return found, exact | {"log_probs": log_probs, "kl": kl, "policy_kl": kl}, tau[..., 0, 0]


def test_at_no_temperature_does_a_value_lose_digits(many_temperatures):
    found, exact, tau = many_temperatures
    for name, atol in {"v": 2e-6, "dq": 1e-6}.items():
        np.testing.assert_allclose(found[name][:, DISTRIBUTIONS], exact[name][:, DISTRIBUTIONS], atol=atol, rtol=0)
    # the last digit of a log π0 of −46 is 4e-6
    np.testing.assert_allclose(found["log_probs"], exact["log_probs"], rtol=1e-6, atol=4e-6)
    np.testing.assert_allclose(found["v"][:, COUNTING], exact["v"][:, COUNTING], rtol=1e-6)
    np.testing.assert_allclose(found["dprior"], exact["dprior"], rtol=1e-5, atol=1e-6 * tau.max())
    np.testing.assert_allclose(found["dt"][:, COUNTING], exact["dt"][:, COUNTING], rtol=1e-5, atol=1e-5)


def test_at_no_temperature_does_a_penalty_lose_digits(many_temperatures):
    # the divergence falls as 1/τ², and what is paid for it as 1/τ
    found, exact, tau = many_temperatures
    tau = tau[:, None, None]
    for name in ("kl", "policy_kl", "dt"):
        error = (found[name] - exact[name])[:, DISTRIBUTIONS] * np.maximum(1, tau)
        np.testing.assert_allclose(error / (1 + np.abs(exact[name][:, DISTRIBUTIONS])), 0, atol=2e-6, err_msg=name)
    for name in ("kl", "policy_kl"):
        np.testing.assert_allclose(found[name][:, COUNTING], exact[name][:, COUNTING], rtol=2e-6, atol=2e-6)


def test_a_constant_reference_loses_no_digits_either(many_temperatures):
    """A NumPy array is one, whose sums need no second formula where it gives every allowed action its share."""
    _, exact, tau = many_temperatures
    q, log_priors, temperatures = grid_of_temperatures()
    for i, log_prior in enumerate(log_priors[DISTRIBUTIONS]):

        def results(q, temperature, log_prior=log_prior):
            value, slopes = jax.value_and_grad(soft_value)(q, log_prior, temperature)
            log_probs, kl = boltzmann_policy(q, log_prior, temperature)
            return {"v": value, "dq": slopes, "log_probs": log_probs, "policy_kl": kl}

        grid = jax.jit(jax.vmap(jax.vmap(results, (0, None)), (None, 0)))
        found = jax.device_get(grid(q, temperatures))
        for name, atol in {"v": 2e-6, "dq": 2e-6, "log_probs": 4e-6}.items():
            np.testing.assert_allclose(found[name], exact[name][:, i], rtol=1e-6 * (name == "log_probs"), atol=atol)
        error = (found["policy_kl"] - exact["policy_kl"][:, i]) * np.maximum(1, tau[:, None])
        np.testing.assert_allclose(error / (1 + np.abs(exact["policy_kl"][:, i])), 0, atol=2e-6)


@pytest.mark.parametrize("make", [np.asarray, jnp.asarray], ids=["constant", "array"])
def test_rows_without_a_finite_value(make):
    uniform, forbidden = make(np.log(np.full(3, 1 / 3, np.float32))), make(np.full(3, -np.inf, np.float32))
    q = jnp.array([1.0, 2.0, 3.0])
    for policy in (boltzmann_log_probs(q, forbidden, 1.0), boltzmann_policy(q, forbidden, 1.0)[0]):
        np.testing.assert_array_equal(policy, -np.inf)
    assert soft_value(jnp.full(3, -jnp.inf), uniform, 1.0) == -jnp.inf
    assert soft_value(jnp.array([0.0, jnp.inf, 0.0]), uniform, 1.0) == jnp.inf
    assert jnp.isnan(soft_value(jnp.array([0.0, jnp.nan, 0.0]), uniform, 1.0))


@pytest.mark.parametrize(
    ("dtype", "x64"),
    [
        *((dtype, x64) for dtype in ("int32", "bfloat16", "float16", "float32") for x64 in (False, True)),
        ("float64", True),
    ],
)
def test_a_constant_reference_is_computed_with_as_the_array_of_it(dtype, x64):
    weights = np.array([0.3, 0.45, 0.25])
    with jax.enable_x64(x64):
        q = jnp.asarray([0, 1, 2], dtype)
        for reference_dtype in ("bfloat16", "float32", "float64"):
            constant = np.log(weights).astype(jnp.dtype(reference_dtype))
            for temperature in (0.1, 1.0, 1e3):
                found, expected = (
                    (soft_value(q, x, temperature), boltzmann_log_probs(q, x, temperature))
                    for x in (constant, jnp.asarray(constant))
                )
                eps = max(float(jnp.finfo(x.dtype).eps) for x in (*expected, jnp.asarray(constant), q / temperature))
                for x, y in zip(found, expected, strict=True):
                    assert x.dtype == y.dtype
                    np.testing.assert_allclose(np.float64(x), np.float64(y), rtol=8 * eps, atol=8 * eps)


@pytest.mark.usefixtures("x64")
def test_a_float32_distribution_keeps_the_digits_of_q_in_float64():
    weights = np.random.default_rng(0).dirichlet(np.ones(6))
    q = np.random.default_rng(1).normal(size=6)
    reference = np.log(weights).astype(np.float32)
    probs = np.exp(np.float64(reference))
    for x in (reference, jnp.asarray(reference)):
        found = soft_value(jnp.asarray(q), x, 1e6)
        np.testing.assert_allclose(found, probs @ q / probs.sum(), atol=1e-6)


def test_an_unlikely_action_is_as_unlikely_as_it_should_be():
    """Its share of the gradient, and of the sum where there are very many, is not lost beside 1."""
    q = jnp.zeros(1_000).at[0].set(17.5)
    log_prior = jnp.full(1_000, -jnp.log(1_000.0))
    value, slopes = jax.value_and_grad(soft_value)(q, log_prior, 1.0)
    np.testing.assert_allclose(value, np.log(np.mean(np.exp(np.float64(q)))), rtol=1e-6)
    np.testing.assert_allclose(slopes, np.exp(np.float64(q) - 17.5) / np.sum(np.exp(np.float64(q) - 17.5)), rtol=1e-5)


def test_a_policy_is_the_same_with_its_divergence(many_temperatures):
    np.testing.assert_array_equal(many_temperatures[0]["difference"], 0)


@pytest.mark.parametrize("forbidden_q", [0.0, 1e30, np.inf, -np.inf, np.nan])
def test_a_forbidden_action_is_exactly_zero_and_harms_no_gradient(forbidden_q):
    q = jnp.array([0.5, forbidden_q, -1.0])
    log_prior = jnp.log(jnp.array([0.5, 0.0, 0.5]))
    allowed = np.array([0, 2])

    def value_and_divergence(q, log_prior, temperature):
        log_probs = boltzmann_log_probs(q, log_prior, temperature)
        return soft_value(q, log_prior, temperature) + kl_divergence(log_probs, log_prior)

    log_probs = boltzmann_log_probs(q, log_prior, 0.7)
    assert jnp.exp(log_probs)[1] == 0
    assert log_probs[1] == -jnp.inf
    differentiate = jax.jit(jax.value_and_grad(value_and_divergence, argnums=(0, 1, 2)))
    total, gradients = differentiate(q, log_prior, 0.7)
    total_without, without = differentiate(q[allowed], log_prior[allowed], 0.7)
    np.testing.assert_allclose(total, total_without, rtol=1e-6)
    assert all(np.isfinite(g).all() for g in gradients)
    assert gradients[0][1] == 0
    np.testing.assert_allclose(gradients[0][allowed], without[0], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(gradients[2], without[2], rtol=1e-5, atol=1e-7)


def test_the_values_gradient_is_the_policy():
    q, log_prior = jnp.array([0.5, 2.0, -1.0]), jnp.log(jnp.array([0.5, 0.2, 0.3]))
    np.testing.assert_allclose(
        jax.grad(soft_value)(q, log_prior, 0.7), jnp.exp(boltzmann_log_probs(q, log_prior, 0.7)), rtol=1e-6
    )


def test_a_gradient_in_the_temperature_is_minus_the_divergence():
    q, log_prior = jnp.array([0.5, 2.0, -1.0]), jnp.log(jnp.array([0.5, 0.2, 0.3]))
    gradient = jax.grad(soft_value, argnums=2)(q, log_prior, 0.7)
    np.testing.assert_allclose(gradient, -kl_divergence(boltzmann_log_probs(q, log_prior, 0.7), log_prior), rtol=1e-5)


def test_a_very_unlikely_best_action_still_counts():
    v = soft_value(jnp.array([0.0, 1.0]), jnp.array([0.0, -200.0]), 1e-3)
    np.testing.assert_allclose(v, 1 - 0.2, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_keeps_the_dtype(dtype):
    q, log_prior = jnp.array([1.0, 2.0], dtype), jnp.full(2, -np.log(2), dtype)
    log_probs = boltzmann_log_probs(q, log_prior, 0.5)
    assert soft_value(q, log_prior, 0.5).dtype == log_probs.dtype == kl_divergence(log_probs, log_prior).dtype == dtype


def test_a_reference_broadcasts_and_leading_axes_are_kept():
    q = np.random.default_rng(0).normal(size=(3, 4, NUM_ACTIONS))
    log_prior = np.full(NUM_ACTIONS, -np.log(NUM_ACTIONS))
    v, log_probs, divergence = all_three(q, log_prior, 0.5)
    assert log_probs.shape == q.shape
    assert v.shape == divergence.shape == (3, 4)
    for i, j in np.ndindex(3, 4):
        np.testing.assert_allclose(v[i, j], reference.soft_value(q[i, j], log_prior, 0.5), rtol=1e-12)


def test_every_action_forbidden_is_minus_infinity():
    assert soft_value(jnp.ones(3), jnp.full(3, -jnp.inf), 1.0) == -jnp.inf


def test_divergence_from_a_reference_that_forbids_is_infinite():
    assert kl_divergence(jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([1.0, 0.0]))) == jnp.inf


@settings(deadline=None, max_examples=50)
@given(VALUES, WEIGHTS, TEMPERATURES, st.booleans())
def test_the_sampled_penalty_is_the_divergence_on_average_and_q_above_the_value(q, weights, temperature, counting):
    log_prior = np.zeros(NUM_ACTIONS) if counting else log_normalised(weights)
    v, log_probs, divergence = all_three(q, log_prior, temperature)
    with precision(np.float64):
        every, prior, actions = jnp.tile(log_probs, (NUM_ACTIONS, 1)), jnp.asarray(log_prior), jnp.arange(NUM_ACTIONS)
        sampled, full = (np.asarray(kl_penalty(name, every, prior, actions)) for name in ("sampled", "full"))
    np.testing.assert_allclose(full, np.full(NUM_ACTIONS, divergence), rtol=1e-12)
    probs = reference.boltzmann(q, log_prior, temperature)
    taken = probs > 1e-300  # below, the reference has lost digits
    np.testing.assert_allclose(sampled[taken], np.log(probs[taken]) - log_prior[taken], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(np.sum(probs * sampled), divergence, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose((q - temperature * sampled)[taken], v, rtol=1e-9, atol=1e-9)


def test_the_sampled_penalty_of_an_action_that_is_never_taken_is_0_and_harms_no_gradient():
    log_prior = jnp.log(jnp.array([0.5, 0.0, 0.5]))

    def sampled(q, action):
        return kl_penalty("sampled", boltzmann_log_probs(q, log_prior, 0.7), log_prior, action)

    penalties, gradients = jax.vmap(jax.value_and_grad(sampled), (None, 0))(jnp.array([0.5, 9.0, -1.0]), jnp.arange(3))
    assert penalties[1] == 0
    assert penalties[0] > 0 > penalties[2]
    assert np.isfinite(gradients).all()
    assert not gradients[:, 1].any()


def test_refuses_an_unknown_penalty():
    with pytest.raises(InputError, match=r"unknown penalty 'samples'; did you mean sampled\? \(there are: full"):
        kl_penalty("samples", jnp.zeros(3), jnp.zeros(3), jnp.int32(0))


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.inf, np.nan, jnp.float32(0)])
def test_refuses_a_temperature_that_is_not_positive(temperature):
    with pytest.raises(InputError, match=r"temperature is .*; it must be a positive number"):
        soft_value(jnp.ones(3), jnp.zeros(3), temperature)
    with pytest.raises(InputError, match="temperature is"):
        boltzmann_log_probs(jnp.ones(3), jnp.zeros(3), temperature)


def test_the_temperature_may_be_traced():
    q, log_prior = jnp.array([0.5, 2.0]), jnp.log(jnp.array([0.5, 0.5]))
    temperatures = jnp.array([0.1, 1.0])
    batched = jax.vmap(soft_value, in_axes=(None, None, 0))(q, log_prior, temperatures)
    np.testing.assert_allclose(batched, [soft_value(q, log_prior, t) for t in temperatures], rtol=1e-6)


def test_temperature_loss_moves_towards_the_target_entropy():
    too_certain = jax.grad(temperature_loss)(jnp.float32(0), jnp.float32(3.0), -1.0)
    too_random = jax.grad(temperature_loss)(jnp.float32(0), jnp.float32(-3.0), -1.0)
    assert too_certain < 0 < too_random  # descent raises the temperature of a policy that is too certain

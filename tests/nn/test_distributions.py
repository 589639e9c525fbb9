"""The tanh-normal policy against SciPy in float64, and against itself; distributions over discrete actions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from support.reference.tanh_normal import log_prob_of_distant_pre_tanh, log_prob_of_pre_tanh

from jaxsoft.nn.distributions import Categorical, TanhNormal, mix


def a_distribution(shape: tuple[int, ...] = (64, 3)) -> TanhNormal:
    keys = jax.random.split(jax.random.key(11))
    mean, log_std = (jax.random.uniform(key, shape, minval=-1, maxval=1) for key in keys)
    return TanhNormal(mean, log_std - 1)


@pytest.mark.usefixtures("strict_ranks")
def test_sample_and_its_log_prob_match_scipy(key: jax.Array) -> None:
    policy = a_distribution()
    action, log_prob = policy.sample(key)
    noise = np.asarray(jax.random.normal(key, policy.mean.shape), np.float64)
    pre_tanh = np.asarray(policy.mean, np.float64) + np.exp(np.asarray(policy.log_std, np.float64)) * noise
    np.testing.assert_allclose(action, np.tanh(pre_tanh), rtol=1e-5, atol=1e-6)
    expected = log_prob_of_pre_tanh(pre_tanh, policy.mean, policy.log_std)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-5, atol=1e-5)
    assert action.shape == (64, 3)
    assert log_prob.shape == (64,)


@pytest.mark.usefixtures("strict_ranks")
def test_log_prob_of_the_sample_is_the_samples_log_prob(key: jax.Array) -> None:
    policy = a_distribution()
    action, log_prob = policy.sample(key)
    # arctanh of a float32 near ±1 loses digits: |u| stays below 4 here, where that is about 1e-4
    assert np.abs(action).max() < np.tanh(4)
    np.testing.assert_allclose(policy.log_prob(action), log_prob, rtol=1e-3, atol=1e-3)


@pytest.mark.usefixtures("x64")
def test_log_prob_of_actions_matches_scipy_in_double_precision() -> None:
    pre_tanh = np.linspace(-4, 4, 41)[:, None]
    mean, log_std = np.full((41, 1), 0.3), np.full((41, 1), -0.7)
    policy = TanhNormal(jnp.asarray(mean), jnp.asarray(log_std))
    actual = policy.log_prob(jnp.asarray(np.tanh(pre_tanh)))
    np.testing.assert_allclose(actual, log_prob_of_pre_tanh(pre_tanh, mean, log_std), rtol=1e-10)


def integral(mean: float, log_std: float, power: int = 0) -> float:
    """∫ aᵏ π(a) da over (−1, 1), by the trapezoid rule in v with a = tanh v: exact to rounding for smooth tails."""
    v, step = np.linspace(-14, 14, 2001, retstep=True)
    policy = TanhNormal(jnp.full((2001, 1), mean), jnp.full((2001, 1), log_std))
    density = np.exp(policy.log_prob(jnp.asarray(np.tanh(v))[:, None]))
    return float(np.sum(density * np.tanh(v) ** power / np.cosh(v) ** 2) * step)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("mean", [-1.5, 0.0, 0.4])
@pytest.mark.parametrize("log_std", [-2.0, -0.5, 0.3])
def test_density_integrates_to_one(mean: float, log_std: float) -> None:
    assert integral(mean, log_std) == pytest.approx(1, abs=1e-9)


@pytest.mark.usefixtures("x64")
def test_samples_are_distributed_by_the_density(key: jax.Array) -> None:
    action = np.asarray(TanhNormal(jnp.full((40_000, 1), 0.4), jnp.full((40_000, 1), -0.5)).sample(key)[0])
    for power in (1, 2, 3):  # mean, scale, skew
        standard_error = np.std(action**power) / np.sqrt(len(action))
        assert np.mean(action**power) == pytest.approx(integral(0.4, -0.5, power), abs=4 * standard_error)


def test_dimensions_are_independent(key: jax.Array) -> None:
    policy = a_distribution((5, 3))
    action, log_prob = policy.sample(key)
    each = [TanhNormal(policy.mean[:, i : i + 1], policy.log_std[:, i : i + 1]) for i in range(3)]
    sum_of_each = sum(one.log_prob(action[:, i : i + 1]) for i, one in enumerate(each))
    np.testing.assert_allclose(sum_of_each, policy.log_prob(action), rtol=1e-5, atol=1e-5)
    assert log_prob.shape == (5,)


@pytest.mark.parametrize("mean", [-50.0, 50.0])
@pytest.mark.parametrize("log_std", [-20.0, 2.0])
def test_far_from_zero_the_samples_log_prob_is_right_and_its_gradients_finite(mean: float, log_std: float) -> None:
    # naively log(1 − tanh² u) is log 0 from |u| ≈ 9 on
    key = jax.random.key(2)
    params = jnp.full((8, 1), mean), jnp.full((8, 1), log_std)
    action, log_prob = TanhNormal(*params).sample(key)
    noise = np.asarray(jax.random.normal(key, (8, 1)), np.float64)
    pre_tanh = mean + np.exp(log_std) * noise
    expected = log_prob_of_distant_pre_tanh(pre_tanh, *params)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-5, atol=1e-4)
    assert (np.abs(action) <= 1).all()

    def mean_of(index: int, mean: jax.Array, log_std: jax.Array) -> jax.Array:
        return jnp.mean(TanhNormal(mean, log_std).sample(key)[index])

    for index in (0, 1):
        for grad in jax.grad(mean_of, argnums=(1, 2))(index, *params):
            assert np.isfinite(grad).all()


@pytest.mark.parametrize("mean", [-50.0, 0.3, 12.0])
def test_a_stored_choices_log_prob_is_the_draws_under_any_policy_and_so_are_its_gradients(mean: float) -> None:
    # tanh(12) is 1 in float32: nothing of what was drawn is left in the action
    spread, other = jnp.full((64, 2), np.log(0.3)), jnp.full((64, 2), mean - 0.5)
    policy = TanhNormal(jnp.full((64, 2), mean), spread)
    chosen = jax.jit(policy.choose)(jax.random.key(2))
    assert chosen.pre_tanh is not None
    drawn = np.asarray(chosen.pre_tanh, np.float64)
    assert scipy.stats.kstest((drawn.ravel() - mean) / 0.3, "norm").pvalue > 1e-3
    np.testing.assert_allclose(chosen.action, np.tanh(drawn), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(chosen.log_prob, log_prob_of_distant_pre_tanh(drawn, mean, spread), rtol=1e-5, atol=1e-5)

    def later(mean: jax.Array) -> jax.Array:
        return TanhNormal(mean, spread).log_prob_of_pre_tanh(chosen.pre_tanh)  # type: ignore[arg-type]

    expected = log_prob_of_distant_pre_tanh(drawn, other, spread)
    np.testing.assert_allclose(later(other), expected, rtol=1e-5, atol=1e-5)
    gradient = jax.grad(lambda mean: later(mean).sum())(other)
    np.testing.assert_allclose(gradient, (drawn - (mean - 0.5)) / 0.09, rtol=1e-4, atol=1e-4)


def test_gradient_of_the_samples_log_prob_is_the_analytic_one(key: jax.Array) -> None:
    # With u = m + s ε the normal part is constant in m, so d log π / dm = −d log(1 − tanh² u)/du = 2 tanh u,
    # and d log π / d log s = −1 + 2 tanh(u) s ε.
    policy = a_distribution((16, 1))

    def total(mean: jax.Array, log_std: jax.Array) -> jax.Array:
        return jnp.sum(TanhNormal(mean, log_std).sample(key)[1])

    grads = jax.grad(total, argnums=(0, 1))(policy.mean, policy.log_std)
    spread = np.exp(policy.log_std) * np.asarray(jax.random.normal(key, (16, 1)))
    tanh = np.tanh(policy.mean + spread)
    np.testing.assert_allclose(grads[0], 2 * tanh, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(grads[1], -1 + 2 * tanh * spread, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("action", [-1.0, 1.0])
def test_actions_on_the_bounds_have_a_finite_log_prob_and_gradient(action: float) -> None:
    def log_prob(mean: jax.Array) -> jax.Array:
        return TanhNormal(mean, jnp.zeros(1)).log_prob(jnp.full((1,), action))

    inside = jnp.nextafter(jnp.float32(action), jnp.float32(0))
    assert np.isfinite(log_prob(jnp.zeros(1)))
    assert np.isfinite(jax.grad(log_prob)(jnp.zeros(1))).all()
    nearest = TanhNormal(jnp.zeros(1), jnp.zeros(1)).log_prob(inside[None])
    np.testing.assert_array_equal(log_prob(jnp.zeros(1)), nearest)


def test_mode_is_the_squashed_mean_with_its_log_prob() -> None:
    policy = a_distribution()
    action, log_prob = policy.mode()
    np.testing.assert_allclose(action, np.tanh(policy.mean), rtol=1e-6)
    np.testing.assert_allclose(
        log_prob, log_prob_of_pre_tanh(np.asarray(policy.mean), policy.mean, policy.log_std), rtol=1e-5, atol=1e-5
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("log_std", [-1.0, 0.5])
def test_the_entropy_of_draws_is_right_on_average_and_so_is_its_gradient(key: jax.Array, log_std: float) -> None:
    def exact(mean: float, log_std: float) -> float:
        v, step = np.linspace(-14, 14, 2001, retstep=True)
        log_density = np.asarray(
            TanhNormal(*(jnp.full((2001, 1), x) for x in (mean, log_std))).log_prob(jnp.asarray(np.tanh(v))[:, None])
        )
        return float(-np.sum(np.exp(log_density) * log_density / np.cosh(v) ** 2) * step)

    def of_draw(params: jax.Array, key: jax.Array) -> jax.Array:
        return TanhNormal(params[:1], params[1:]).entropy(key)

    params = np.array([0.4, log_std])
    draws = jax.vmap(jax.value_and_grad(of_draw), (None, 0))(jnp.asarray(params), jax.random.split(key, 20_000))
    slopes = [(exact(*(params + h)) - exact(*(params - h))) / 2e-4 for h in 1e-4 * np.eye(2)]
    for drawn, expected in zip((draws[0], *draws[1].T), (exact(*params), *slopes), strict=True):
        assert np.mean(drawn) == pytest.approx(expected, abs=4 * float(np.std(drawn)) / np.sqrt(20_000))


def test_samples_keep_the_parameters_dtype(key: jax.Array) -> None:
    action, log_prob = TanhNormal(jnp.zeros((2, 1), jnp.bfloat16), jnp.zeros((2, 1), jnp.bfloat16)).sample(key)
    assert action.dtype == log_prob.dtype == jnp.bfloat16


# Categorical


def log_probs_of(*probs: float) -> jax.Array:
    return jnp.asarray([np.log(p) if p else -np.inf for p in probs], jnp.float32)


def test_actions_are_drawn_as_often_as_their_probabilities_say(key: jax.Array) -> None:
    probs = np.array([0.1, 0.6, 0, 0.3])
    distribution = Categorical(jnp.broadcast_to(log_probs_of(*probs), (20_000, 4)))
    action, log_prob = distribution.sample(key)
    assert action.dtype == jnp.int32
    counts = np.bincount(action, minlength=4)
    assert counts[2] == 0
    assert scipy.stats.chisquare(counts[[0, 1, 3]], 20_000 * probs[[0, 1, 3]]).pvalue > 1e-3
    np.testing.assert_allclose(np.exp(log_prob), probs[action], rtol=1e-5)
    np.testing.assert_array_equal(distribution.log_prob(action), log_prob)


@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
def test_actions_have_the_distributions_shape(key: jax.Array, shape: tuple[int, ...]) -> None:
    distribution = Categorical(jnp.broadcast_to(log_probs_of(0.2, 0.5, 0.3), (*shape, 3)))
    for action, log_prob in (distribution.sample(key), distribution.mode()):
        assert action.shape == log_prob.shape == shape
        assert action.dtype == jnp.int32
    action, log_prob = distribution.mode()
    np.testing.assert_array_equal(action, 1)
    np.testing.assert_allclose(np.exp(log_prob), 0.5, rtol=1e-6)


def test_of_equals_the_first_is_the_mode() -> None:
    assert Categorical(log_probs_of(0.2, 0.4, 0.4)).mode()[0] == 1


def test_the_entropy_of_discrete_actions_is_exact_also_where_some_are_never_taken(key: jax.Array) -> None:
    probs = np.array([[0.5, 0.25, 0.25], [0.5, 0.5, 0], [1, 0, 0]])
    entropy = Categorical(jnp.stack([log_probs_of(*p) for p in probs])).entropy(key)
    np.testing.assert_allclose(entropy, [1.5 * np.log(2), np.log(2), 0], rtol=1e-6, atol=1e-7)
    gradient = jax.grad(lambda x: Categorical(jax.nn.log_softmax(x)).entropy(key))(log_probs_of(0.5, 0.5, 0))
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_mixture_has_the_mixed_probabilities(share: float) -> None:
    first, second = np.array([[0.5, 0.5, 0], [0.2, 0.2, 0.6]]), np.array([0.1, 0, 0.9])
    mixture = mix(Categorical(jax.vmap(jnp.log)(first)), Categorical(log_probs_of(*second)), share)
    np.testing.assert_allclose(np.exp(mixture.log_probs), (1 - share) * first + share * second, rtol=1e-5, atol=1e-7)
    assert not np.isnan(mixture.log_probs).any()


def test_shares_can_be_vmapped() -> None:
    first, second = Categorical(log_probs_of(1, 0)), Categorical(log_probs_of(0, 1))
    mixtures = jax.vmap(lambda share: mix(first, second, share).log_probs)(jnp.asarray([0.0, 0.25, 1.0]))
    np.testing.assert_allclose(np.exp(mixtures), [[1, 0], [0.75, 0.25], [0, 1]], rtol=1e-6)

from __future__ import annotations

import itertools
from functools import partial

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
from jaxsoft.ops import (
    accumulate_trace,
    boltzmann_log_probs,
    decay_trace,
    kl_penalty,
    n_step_soft_returns,
    soft_lambda_returns,
    soft_tree_backup_returns,
    soft_value,
    trace_coefficients,
)

METHODS = pytest.mark.parametrize("method", ["sequential", "associative"])
LENGTH = 12
LAMBDA_RETURNS = jax.jit(soft_lambda_returns, static_argnames="method")
TREE_BACKUP = jax.jit(soft_tree_backup_returns, static_argnames="n")
N_STEP = jax.jit(n_step_soft_returns, static_argnames="n")


def sequence(seed: int, length: int = LENGTH) -> dict[str, np.ndarray]:
    """A random sequence, in which some steps end the task and some traces are cut."""
    rng = np.random.default_rng(seed)
    normal = rng.normal(size=(4, length))
    return {
        "r": normal[0],
        "discount": 0.97 * (rng.random(length) > 0.1),
        "v": 3 * normal[1],
        "q_a": 3 * normal[2],
        "c": rng.random(length) * (rng.random(length) > 0.1),
        "kl": normal[3] ** 2,
        "cut": rng.random(length) < 0.2,
    }


def of_case(case: dict, dtype: type, *, cuts: bool = True) -> dict[str, jax.Array]:
    """Arguments of the returns from one golden case."""
    log_pi = np.log(case["next_boltzmann_probs"])
    taken = (np.arange(len(log_pi)), case["next_action"])
    discount = case["discount"] * (1 - case["terminated"] * cuts)
    arrays = {
        "r": case["rewards"],
        "discount": discount,
        "v": case["next_soft_value"],
        "q_a": case["next_q"][taken],
        "kl": case["next_kl"],
        "log_pi_a": log_pi[taken],
        "log_mu_a": case["behaviour_log_probs"][taken],
        "uncut": ~case["truncated"],
    }
    return {name: jnp.asarray(x, bool if name == "uncut" else dtype) for name, x in arrays.items()}


@BOTH
@METHODS
@pytest.mark.parametrize("name", ["tree_backup", "retrace", "importance_sampling", "uncorrected"])
def test_golden_lambda_returns(name, method, dtype):
    for case in load("sequences"):
        with precision(dtype):
            a = of_case(case, dtype)
            c = trace_coefficients(name, a["log_pi_a"], a["log_mu_a"]) * a["uncut"]
            returns = LAMBDA_RETURNS(a["r"], a["discount"], a["v"], a["q_a"], c, case["lambda_"], method=method)
        assert_close(returns, case[name], dtype)
        assert returns.dtype == dtype


@BOTH
def test_golden_n_step_returns(dtype):
    for case in load("sequences"):
        with precision(dtype):
            a = of_case(case, dtype, cuts=False)
            tree = TREE_BACKUP(a["r"], a["discount"], a["v"], a["q_a"], jnp.exp(a["log_pi_a"]), n=3)
            on_policy = N_STEP(a["r"], a["discount"], a["v"], a["kl"], case["temperature"], n=3)
        assert_close(tree, case["n_step_tree_backup_3_no_cuts"], dtype)
        assert_close(on_policy, case["n_step_on_policy_3_no_cuts"], dtype)


@settings(deadline=None, max_examples=100)
@given(
    hnp.arrays(np.float64, (4, LENGTH), elements=st.floats(-10, 10, width=32)),
    hnp.arrays(np.float64, LENGTH, elements=st.floats(0, 2, width=32)),
    hnp.arrays(np.bool_, LENGTH),
    st.floats(0, 1, width=32),
    st.sampled_from(["sequential", "associative"]),
)
def test_lambda_returns_agree_with_the_sum_over_td_errors(values, c, terminated, lambda_, method):
    r, v, q_a, _ = values
    discount = 0.99 * ~terminated
    with precision(np.float64):
        returns = LAMBDA_RETURNS(*map(jnp.asarray, (r, discount, v, q_a, c)), lambda_, method=method)
    loop = reference.lambda_returns(r, discount, v, q_a, c, lambda_)
    np.testing.assert_allclose(returns, loop, rtol=1e-10, atol=1e-10 * np.abs(loop).max())


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.sampled_from([1, 2, 5, LENGTH - 1, LENGTH, LENGTH + 3]))
def test_windows_agree_with_the_loops(seed, n):
    s = sequence(seed)
    with precision(np.float64):
        a = {name: jnp.asarray(x) for name, x in s.items()}
        tree = TREE_BACKUP(a["r"], a["discount"], a["v"], a["q_a"], a["c"], n=n)
        on_policy = N_STEP(a["r"], a["discount"], a["v"], a["kl"], 0.3, n=n)
        cut = N_STEP(a["r"], a["discount"], a["v"], a["kl"], 0.3, n=n, cut_t=a["cut"])
    close = partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-11)
    close(tree, reference.tree_backup(s["r"], s["discount"], s["v"], s["q_a"], s["c"], n))
    loop = partial(reference.n_step, s["r"], s["discount"], s["v"], s["kl"], 0.3, n)
    close(on_policy, loop())
    close(cut, loop(s["cut"]))


TAU, GAMMA, STATES, ACTIONS, AHEAD = 1.0, 0.9, 6, 3, 4


def every_path(
    q: np.ndarray, next_state: np.ndarray, reward: np.ndarray, penalty: str
) -> tuple[np.ndarray, np.ndarray]:
    """On-policy returns of all action sequences from every pair, in a deterministic MDP, and their probabilities.

    Both are [STATES · ACTIONS, ACTIONS^(AHEAD − 1)]: the first action is given, the others are the policy's.
    """
    choices = np.array(list(itertools.product(range(ACTIONS), repeat=AHEAD - 1)))
    first = np.repeat(np.arange(STATES * ACTIONS), len(choices))
    actions = np.column_stack([first % ACTIONS, np.tile(choices, (STATES * ACTIONS, 1))])
    states = [first // ACTIONS]
    for k in range(AHEAD):
        states.append(next_state[states[-1], actions[:, k]])
    s = np.stack(states, axis=1)
    log_prior = jnp.full(ACTIONS, -np.log(ACTIONS))
    next_q = jnp.asarray(q)[s[:, 1:]]
    log_pi = boltzmann_log_probs(next_q, log_prior, TAU)
    next_action = np.roll(actions, -1, axis=1)
    returns = jax.vmap(partial(n_step_soft_returns, n=AHEAD), (0, 0, 0, 0, None))(
        jnp.asarray(reward[s[:, :-1], actions]),
        jnp.full(actions.shape, GAMMA),
        soft_value(next_q, log_prior, TAU),
        kl_penalty(penalty, log_pi, log_prior, jnp.asarray(next_action)),
        TAU,
    )[:, 0]
    log_probs = np.take_along_axis(np.asarray(log_pi), next_action[..., None], -1)[:, :-1, 0].sum(1)
    return np.asarray(returns).reshape(STATES * ACTIONS, -1), np.exp(log_probs).reshape(STATES * ACTIONS, -1)


def deviations(q: np.ndarray, next_state: np.ndarray, reward: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Mean returns of every pair, and the root mean square deviation with the full and with the sampled penalty."""
    means, sizes = [], []
    for penalty in ("full", "sampled"):
        with precision(np.float64):
            returns, probs = every_path(q, next_state, reward, penalty)
        means.append((probs * returns).sum(1))
        sizes.append(float(np.sqrt((probs * (returns - means[-1][:, None]) ** 2).sum(1).mean())))
    np.testing.assert_allclose(means[0], means[1], rtol=1e-11, atol=1e-11)  # both are right on average, whatever Q is
    return means[0], *sizes


@pytest.mark.thorough
def test_which_penalty_varies_less_depends_on_q():
    """Exactly, over all paths of deterministic MDPs: at Q* the sampled one leaves none, far off the full one less."""
    log_prior, far = np.full(ACTIONS, -np.log(ACTIONS)), []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        next_state, reward = rng.integers(STATES, size=(STATES, ACTIONS)), rng.normal(size=(STATES, ACTIONS))
        q_star = np.zeros((STATES, ACTIONS))
        for _ in range(300):
            v = np.array([reference.soft_value(row, log_prior, TAU) for row in q_star])
            q_star = reward + GAMMA * v[next_state]
        means, full, sampled = deviations(q_star, next_state, reward)
        np.testing.assert_allclose(means, q_star.ravel(), rtol=1e-11, atol=1e-11)
        assert sampled < 1e-11
        assert full > 0.3
        far.append(deviations(q_star + 4 * rng.normal(size=q_star.shape), next_state, reward)[1:])
    full, sampled = np.mean(far, axis=0)
    assert full < 0.95 * sampled


def test_the_full_penalty_adds_no_noise_where_actions_do_not_matter():
    rng = np.random.default_rng(0)
    next_state = np.tile(rng.integers(STATES, size=(STATES, 1)), ACTIONS)
    _, full, sampled = deviations(rng.normal(size=(STATES, ACTIONS)), next_state, np.tile(np.arange(6.0)[:, None], 3))
    assert full < 1e-11
    assert sampled > 0.3


@pytest.mark.parametrize("n", [1, 3, LENGTH])
def test_the_return_with_the_sampled_penalty_is_the_sum_of_n_td_errors(n):
    """τ log π_Q/π0 = Q − V: so it is the window of the uncorrected trace, and at full length its λ-return at λ = 1."""
    rng = np.random.default_rng(1)
    q, log_prior = 2 * rng.normal(size=(LENGTH, ACTIONS)), np.log(rng.dirichlet(np.ones(ACTIONS), LENGTH))
    r, action = rng.normal(size=LENGTH), rng.integers(ACTIONS, size=LENGTH)
    discount, taken = GAMMA * (rng.random(LENGTH) > 0.2), (np.arange(LENGTH), action)
    v, pi = (
        np.array([f(row, prior, TAU) for row, prior in zip(q, log_prior, strict=True)])
        for f in (reference.soft_value, reference.boltzmann)
    )
    with precision(np.float64):
        log_pi = boltzmann_log_probs(jnp.asarray(q), jnp.asarray(log_prior), TAU)
        penalty = kl_penalty("sampled", log_pi, jnp.asarray(log_prior), jnp.asarray(action))
        returns = N_STEP(*map(jnp.asarray, (r, discount, v)), penalty, TAU, n=n)
        ones = jnp.ones(LENGTH)
        uncorrected = LAMBDA_RETURNS(*map(jnp.asarray, (r, discount, v, q[taken])), ones, 1.0)
    sampled = np.log(pi[taken]) - log_prior[taken]
    np.testing.assert_allclose(returns, reference.n_step(r, discount, v, sampled, TAU, n), rtol=1e-11, atol=1e-11)
    errors = r + discount * v - np.append(0, q[taken][:-1])  # without the first Q, which cancels
    for t in range(LENGTH):
        weights = np.cumprod(np.append(1, discount[t : t + n - 1]))[: LENGTH - t]
        total = r[t] + discount[t] * v[t] + weights[1:] @ errors[t + 1 : t + len(weights)]
        np.testing.assert_allclose(returns[t], total, rtol=1e-11, atol=1e-11)
    if n == LENGTH:
        np.testing.assert_allclose(returns, uncorrected, rtol=1e-11, atol=1e-11)


Arguments = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]


def arguments(seed: int = 0, length: int = LENGTH) -> Arguments:
    s = sequence(seed, length)
    r, discount, v, q_a, c = (jnp.asarray(s[name], jnp.float32) for name in ("r", "discount", "v", "q_a", "c"))
    return r, discount, v, q_a, c


@METHODS
def test_lambda_0_is_the_one_step_target(method):
    r, discount, v, q_a, c = arguments()
    np.testing.assert_allclose(LAMBDA_RETURNS(r, discount, v, q_a, c, 0.0, method=method), r + discount * v, rtol=1e-6)


@METHODS
@pytest.mark.parametrize("n", [LENGTH, LENGTH + 5])
def test_lambda_1_is_the_tree_backup_of_the_whole_sequence(method, n):
    a = arguments()
    np.testing.assert_allclose(LAMBDA_RETURNS(*a, 1.0, method=method), TREE_BACKUP(*a, n=n), rtol=1e-5, atol=1e-6)


def test_one_step_windows_are_the_one_step_target():
    r, discount, v, q_a, c = arguments()
    np.testing.assert_allclose(TREE_BACKUP(r, discount, v, q_a, c, n=1), r + discount * v, rtol=1e-6)
    np.testing.assert_allclose(N_STEP(r, discount, v, q_a**2, 0.3, n=1), r + discount * v, rtol=1e-6)


@pytest.mark.parametrize("length", [1, 2, 3, 17, 64, 1000])
def test_the_two_scans_agree(length):
    a = arguments(length, length)
    np.testing.assert_allclose(
        LAMBDA_RETURNS(*a, 0.9, method="associative"),
        LAMBDA_RETURNS(*a, 0.9, method="sequential"),
        rtol=1e-5,
        atol=1e-5,
    )


def test_the_length_and_the_platform_choose_the_scan():
    """Beyond the threshold both are there for the compiler to choose from, under a gradient and a vmap too."""
    batch = [x[None] for x in arguments(0, 300)]

    def total(v, method):
        return jax.vmap(partial(soft_lambda_returns, method=method), (0, 0, 0, 0, 0, None))(
            batch[0], batch[1], v, batch[3], batch[4], 0.9
        ).sum()

    gradients = [jax.jit(jax.grad(total), static_argnums=1)(batch[2], m) for m in ("auto", "sequential", "associative")]
    np.testing.assert_allclose(gradients[0], gradients[1], rtol=1e-6)
    np.testing.assert_allclose(gradients[0], gradients[2], rtol=1e-5, atol=1e-6)


@METHODS
def test_the_last_steps_action_has_no_effect(method):
    r, discount, v, q_a, c = arguments()
    other = LAMBDA_RETURNS(r, discount, v, q_a.at[-1].set(jnp.nan), c.at[-1].set(jnp.inf), 0.9, method=method)
    np.testing.assert_array_equal(other, LAMBDA_RETURNS(r, discount, v, q_a, c, 0.9, method=method))


def test_a_lambda_for_every_step():
    a = arguments()
    np.testing.assert_allclose(LAMBDA_RETURNS(*a, jnp.full(LENGTH, 0.7)), LAMBDA_RETURNS(*a, 0.7), rtol=1e-6)


def test_tree_backup_of_a_deterministic_policy_that_was_followed_is_the_reward_sum():
    """π = 1 along the sequence: no correction is left, and V is Q of the action taken."""
    r, discount, _, q_a, _ = arguments()
    returns = TREE_BACKUP(r, discount, q_a, q_a, jnp.ones(LENGTH), n=LENGTH)
    loop = reference.n_step(np.asarray(r), np.asarray(discount), np.asarray(q_a), np.zeros(LENGTH), 1.0, LENGTH)
    np.testing.assert_allclose(returns, loop, rtol=1e-5, atol=1e-5)


def test_tree_backup_stops_where_a_deterministic_policy_was_left():
    r, discount, v, q_a, _ = arguments(3)
    followed = np.arange(LENGTH) != 4
    returns = TREE_BACKUP(r, discount, v, q_a, jnp.asarray(followed, jnp.float32), n=LENGTH)
    np.testing.assert_allclose(returns[4], r[4] + discount[4] * v[4], rtol=1e-6)


@BOTH
@pytest.mark.parametrize("name", ["tree_backup", "retrace", "importance_sampling", "uncorrected"])
def test_backward_view_sums_to_the_forward_view_with_q_frozen(name, dtype):
    """The updates Σ_t δ_t e_t of every pair equal Σ_{t: (s_t, a_t) is the pair} (G_t − Q(s_t, a_t))."""
    num_states, num_actions, length, discount, lambda_ = 4, 3, 30, 0.9, 0.8
    rng = np.random.default_rng(1)
    q, v = rng.normal(size=(num_states, num_actions)), rng.normal(size=num_states)
    states, actions = rng.integers(num_states, size=length + 1), rng.integers(num_actions, size=length + 1)
    log_pi_a, log_mu_a = np.log(rng.random((2, length + 1)))
    r = rng.normal(size=length)
    with precision(dtype):
        c = trace_coefficients(name, jnp.asarray(log_pi_a, dtype), jnp.asarray(log_mu_a, dtype))
        forward = LAMBDA_RETURNS(
            jnp.asarray(r, dtype),
            jnp.full(length, discount, dtype),
            jnp.asarray(v[states[1:]], dtype),
            jnp.asarray(q[states[1:], actions[1:]], dtype),
            c[1:],
            lambda_,
        )
        table = jnp.zeros((num_states * num_actions,), dtype)
        trace, backward = table, table
        pairs = states * num_actions + actions
        for t in range(length):
            error = r[t] + discount * v[states[t + 1]] - q[states[t], actions[t]]
            trace = decay_trace(trace, discount, lambda_, c[t])
            trace = accumulate_trace(trace, jax.nn.one_hot(pairs[t], num_states * num_actions, dtype=dtype))
            backward = backward + jnp.asarray(error, dtype) * trace
    expected = np.zeros(num_states * num_actions)
    np.add.at(expected, pairs[:-1], np.asarray(forward, np.float64) - q[states[:-1], actions[:-1]])
    scale = np.abs(expected).max()
    np.testing.assert_allclose(
        np.asarray(backward) / scale, expected / scale, atol=1e-5 if dtype is np.float32 else 1e-12
    )


def test_gradients_flow_through_either_scan_and_agree():
    a = arguments()

    def total(lambda_, q_a, method):
        return LAMBDA_RETURNS(a[0], a[1], a[2], q_a, a[4], lambda_, method=method).sum()

    sequential, associative = (jax.grad(total, argnums=(0, 1))(0.0, a[3], m) for m in ("sequential", "associative"))
    assert sequential[0] != 0  # λ = 0 is a value like any other
    np.testing.assert_allclose(sequential[0], associative[0], rtol=1e-4)
    np.testing.assert_allclose(sequential[1], associative[1], atol=1e-6)


def test_vmaps_over_sequences_and_lambda():
    batch = [jnp.stack(x) for x in zip(*(arguments(seed) for seed in range(3)), strict=True)]
    lambdas = jnp.array([0.0, 0.5, 1.0])
    returns = jax.vmap(LAMBDA_RETURNS)(*batch, lambdas)
    for i in range(3):
        np.testing.assert_allclose(returns[i], LAMBDA_RETURNS(*(x[i] for x in batch), lambdas[i]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("lambda_", [-0.1, 1.1, np.nan])
def test_refuses_a_lambda_outside_its_range(lambda_):
    with pytest.raises(InputError, match=r"lambda_ is .*; it must be between 0 and 1"):
        soft_lambda_returns(*arguments(), lambda_)


@pytest.mark.parametrize("n", [0, -1, 1.5, True])
def test_refuses_a_window_without_steps(n):
    with pytest.raises(InputError, match=r"n is .*; it must be a positive integer"):
        soft_tree_backup_returns(*arguments(), n)


def test_refuses_an_unknown_method():
    with pytest.raises(InputError, match="must be auto, sequential or associative"):
        soft_lambda_returns(*arguments(), 0.5, method="parallel")  # type: ignore[arg-type]


def test_refuses_sequences_of_different_lengths():
    r, discount, v, q_a, c = arguments()
    with pytest.raises(AssertionError):
        soft_lambda_returns(r, discount, v[:-1], q_a, c, 0.5)

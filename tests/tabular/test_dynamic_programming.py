from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.golden_cases import load
from support.precision import BOTH, assert_close, precision
from support.reference import dynamic_programming as reference

from jaxsoft.envs.finite import chain, frozen_lake, garnet, gridworld, taxi
from jaxsoft.envs.mdp import FiniteMDP, expected_rewards, mdp_env, transition_matrix
from jaxsoft.errors import InputError
from jaxsoft.tabular import (
    expected_return,
    soft_policy_evaluation,
    soft_policy_evaluation_exact,
    soft_policy_improvement,
    soft_policy_iteration,
    soft_value_iteration,
)

CASES = range(4)
AS_FAR_AS_ROUNDING_LETS = 0.0


def golden(index: int, dtype: type) -> tuple[FiniteMDP, dict, dict]:
    """One golden MDP, its objective, and the float64 results."""
    case = load("mdps")[index]
    mdp = FiniteMDP(case["transition_probs"], case["rewards"], discount=case["discount"])
    objective = {
        "temperature": case["temperature"],
        "reference_log_probs": jnp.asarray(case["reference_log_probs"], dtype),
    }
    return mdp, objective, case


def random_policy(key: jax.Array, mdp: FiniteMDP) -> jax.Array:
    return jax.nn.softmax(2 * jax.random.normal(key, (mdp.num_states, mdp.num_actions), mdp.rewards.dtype))


@BOTH
@pytest.mark.parametrize("index", CASES)
def test_golden_optimum_by_policy_iteration(index, dtype):
    with precision(dtype):
        mdp, objective, case = golden(index, dtype)
        result = soft_policy_iteration(mdp, **objective, tolerance=AS_FAR_AS_ROUNDING_LETS)
    assert_close(result.q, case["q_star"], dtype)
    assert_close(result.v, case["v_star"], dtype)
    # A probability's relative error is the error of Q over the temperature.
    slack = max(1.0, np.abs(case["q_star"]).max()) / case["temperature"]
    np.testing.assert_allclose(
        result.policy, case["policy_star"], atol=slack * (1e-6 if dtype is np.float32 else 1e-12)
    )
    assert result.q.dtype == dtype


@BOTH
@pytest.mark.parametrize("index", CASES)
def test_golden_optimum_by_value_iteration(index, dtype):
    with precision(dtype):
        mdp, objective, case = golden(index, dtype)
        result = soft_value_iteration(mdp, **objective, tolerance=AS_FAR_AS_ROUNDING_LETS)
    assert_close(result.q, case["q_star"], dtype)
    assert_close(result.v, case["v_star"], dtype)


@BOTH
@pytest.mark.parametrize("index", CASES)
def test_golden_evaluation_iterative_and_exact(index, dtype):
    with precision(dtype):
        mdp, objective, case = golden(index, dtype)
        policy = jnp.asarray(case["some_policy"], dtype)
        iterative = soft_policy_evaluation(mdp, policy, **objective, tolerance=AS_FAR_AS_ROUNDING_LETS).q
        exact = soft_policy_evaluation_exact(mdp, policy, **objective)
    assert_close(iterative, case["q_of_some_policy"], dtype)
    assert_close(exact, case["q_of_some_policy"], dtype)


def test_agrees_with_the_loops():
    case = load("mdps")[1]
    process = case["transition_probs"], case["rewards"], case["discount"]
    tau, log_prior = case["temperature"], case["reference_log_probs"]
    with precision(np.float64):
        mdp, objective, _ = golden(1, np.float64)
        policy = random_policy(jax.random.key(1), mdp)
        evaluated = soft_policy_evaluation(mdp, policy, **objective, tolerance=1e-13).q
        optimum = soft_value_iteration(mdp, **objective, tolerance=1e-13).q
    np.testing.assert_allclose(
        evaluated, reference.evaluate(*process, np.asarray(policy), tau, log_prior, 500), rtol=1e-9
    )
    np.testing.assert_allclose(optimum, reference.iterate_values(*process, tau, log_prior, 500), rtol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_lemma_1_evaluation_contracts_by_the_discount(seed):
    with precision(np.float64):
        mdp = garnet(jax.random.key(seed), 30, 4, 3, discount=0.9)
        policy = random_policy(jax.random.key(seed + 10), mdp)
        result = soft_policy_evaluation(mdp, policy, temperature=0.5, tolerance=1e-10)
        exact = soft_policy_evaluation_exact(mdp, policy, temperature=0.5)
        elsewhere = soft_policy_evaluation(mdp, policy, temperature=0.5, tolerance=1e-10, initial_v=100 * jnp.ones(30))
    n = int(result.history.num_sweeps)
    residuals = np.asarray(result.history.residuals[:n])
    assert np.all(residuals[1:] <= 0.9 * residuals[:-1] + 1e-13)
    assert residuals[-1] <= 1e-10 < residuals[-2]
    assert np.isnan(result.history.residuals[n:]).all()
    np.testing.assert_allclose(result.q, exact, atol=1e-9)
    np.testing.assert_allclose(elsewhere.q, exact, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("temperature", [0.05, 2.0])
def test_lemma_2_improvement_lowers_no_value(seed, temperature):
    with precision(np.float64):
        mdp = garnet(jax.random.key(seed), 30, 4, 3)
        log_prior = jnp.log(random_policy(jax.random.key(seed + 20), mdp))
        objective = {"temperature": temperature, "reference_log_probs": log_prior}
        before = soft_policy_evaluation_exact(mdp, random_policy(jax.random.key(seed + 10), mdp), **objective)
        after = soft_policy_evaluation_exact(mdp, soft_policy_improvement(before, **objective), **objective)
        gains = np.asarray(after - before)
    assert gains.min() > -1e-10
    assert gains.max() > 0.1


@pytest.mark.parametrize("build", [partial(garnet, jax.random.key(5), 25, 3, 2), partial(gridworld, 5, 5), taxi])
def test_theorem_1_every_start_leads_to_the_one_optimum(build):
    with precision(np.float64):
        mdp = build()
        iterate = partial(soft_policy_iteration, mdp, temperature=0.3, tolerance=1e-9)
        one, other = iterate(), iterate(initial_policy=random_policy(jax.random.key(1), mdp))
        optimum = soft_value_iteration(mdp, temperature=0.3, tolerance=1e-11).q
        one, other, optimum = jax.device_get((one, other, optimum))
    for result in (one, other):
        history, n = result.history, int(result.history.num_iterations)
        assert 1 < n < 30
        np.testing.assert_allclose(result.q, optimum, atol=1e-6)
        assert history.residuals[n - 1] <= 1e-9 < history.residuals[: n - 1].min()
        assert np.nanmin(history.smallest_gains) > -1e-6
        assert np.all(history.largest_gains[1:n] > 0)
        assert np.isnan(history.residuals[n:]).all()
        np.testing.assert_allclose(result.policy.sum(-1), 1, atol=1e-12)


def test_taxi_in_float32_reaches_what_float64_does():
    with precision(np.float64):
        exact = soft_policy_iteration(taxi(), temperature=0.1, tolerance=1e-10)
    result = soft_policy_iteration(taxi(), temperature=0.1)
    assert int(result.history.num_iterations) <= 6
    np.testing.assert_allclose(result.q, exact.q, atol=2e-5)


def test_a_cool_taxi_policy_earns_the_optimal_return():
    """Undiscounted, by the greedy policy from each of the 300 starts; 7.93 is the mean of the shortest routes."""
    mdp = taxi()
    policy = np.asarray(soft_policy_iteration(mdp, temperature=0.01).policy)
    next_states, rewards, terminated = (np.asarray(x)[..., 0] for x in (mdp.next_states, mdp.rewards, mdp.terminated))
    starts = np.flatnonzero(np.asarray(mdp.initial_probs))
    returns = []
    for start in starts:
        state, total, done = start, 0.0, False
        for _ in range(200):
            action = policy[state].argmax()
            total, done = total + rewards[state, action], terminated[state, action]
            state = next_states[state, action]
            if done:
                break
        assert done
        returns.append(total)
    np.testing.assert_allclose(np.mean(returns), 7.93, atol=0.005)


@pytest.mark.parametrize("max_episode_steps", [1, 7, 40])
def test_expected_return_is_the_mean_of_played_episodes(max_episode_steps):
    mdp = frozen_lake()
    policy = random_policy(jax.random.key(0), mdp)
    env = mdp_env(mdp, "lake", max_episode_steps)

    def act(key: jax.Array, obs: jax.Array) -> jax.Array:
        return jax.random.categorical(key, jnp.log(obs @ policy))

    def step(carry: tuple, key: jax.Array) -> tuple[tuple, jax.Array]:
        state, time_step, over = carry
        action_key, step_key = jax.random.split(key)
        state, after = env.step(step_key, state, act(action_key, time_step.obs))
        return (state, after, over | after.done), jnp.where(over, 0, after.reward)

    def play(key: jax.Array) -> jax.Array:
        first = (*env.reset(key), jnp.bool(False))
        return jax.lax.scan(step, first, jax.random.split(key, max_episode_steps))[1].sum()

    returns = np.asarray(jax.jit(jax.vmap(play))(jax.random.split(jax.random.key(1), 20_000)))
    mean = float(expected_return(mdp, policy, max_episode_steps=max_episode_steps))
    assert abs(returns.mean() - mean) <= 4 * returns.std() / np.sqrt(len(returns))
    if max_episode_steps == 40:
        assert mean > 0.01


def test_expected_return_without_an_end_counts_every_step():
    mdp = FiniteMDP(np.ones((1, 1, 1)), np.full((1, 1), 2.0), discount=0.5)
    np.testing.assert_allclose(expected_return(mdp, jnp.ones((1, 1)), max_episode_steps=10), 20.0)


def test_a_chain_has_a_closed_form_when_cold():
    """The reward of 1 is discounted by the steps before it; the penalty vanishes with the temperature."""
    result = soft_policy_iteration(chain(6, discount=0.9), temperature=1e-4)
    np.testing.assert_allclose(result.v, 0.9 ** np.arange(5, -1, -1), atol=1e-3)


def test_the_multi_goal_policy_keeps_all_optimal_routes():
    mdp = gridworld(5, 5)
    policy = soft_policy_iteration(mdp, temperature=0.01).policy
    np.testing.assert_allclose(policy[2 * 5 + 2], 0.25, atol=1e-4)  # in the middle, four ways are equally good
    np.testing.assert_allclose(policy[2 * 5 + 1], [0.25, 0.25, 0, 0.25], atol=0.15)


def test_a_forbidden_action_is_never_taken_and_changes_nothing_else():
    mdp = garnet(jax.random.key(0), 8, 3, 2)
    allowed = FiniteMDP(
        mdp.transition_probs[:, :2], mdp.rewards[:, :2], next_states=mdp.next_states[:, :2], discount=mdp.discount
    )
    log_prior = jnp.tile(jnp.log(jnp.array([0.5, 0.5, 0.0])), (8, 1))
    with_it = soft_policy_iteration(mdp, temperature=0.2, reference_log_probs=log_prior)
    without = soft_policy_iteration(allowed, temperature=0.2)
    assert (with_it.policy[:, 2] == 0).all()
    np.testing.assert_allclose(with_it.v, without.v, rtol=1e-5)


def test_zeros_as_reference_add_the_entropy_of_the_uniform_policy():
    """V of the counting measure is V of the uniform reference plus τ log A at every step."""
    mdp = garnet(jax.random.key(0), 8, 4, 2, discount=0.8)
    uniform = soft_policy_iteration(mdp, temperature=0.5)
    counting = soft_policy_iteration(mdp, temperature=0.5, reference_log_probs=jnp.zeros((8, 4)))
    np.testing.assert_allclose(counting.v - uniform.v, 0.5 * np.log(4) / (1 - 0.8), rtol=1e-4)
    np.testing.assert_allclose(counting.policy, uniform.policy, atol=1e-5)


def test_vmaps_over_temperatures_and_processes():
    temperatures = jnp.array([0.1, 0.5, 2.0])
    keys = jax.random.split(jax.random.key(0), 3)
    build = partial(garnet, num_states=10, num_actions=3, branching=2)
    batch = jax.vmap(lambda key, tau: soft_policy_iteration(build(key), temperature=tau))(keys, temperatures)
    for i in range(3):
        alone = soft_policy_iteration(build(keys[i]), temperature=temperatures[i])
        np.testing.assert_allclose(batch.q[i], alone.q, atol=1e-4)
        assert abs(int(batch.history.num_iterations[i]) - int(alone.history.num_iterations)) <= 1


def test_the_dense_form_of_the_outcomes():
    case = load("mdps")[0]
    mdp = FiniteMDP(case["transition_probs"], case["rewards"], discount=case["discount"])
    np.testing.assert_allclose(transition_matrix(mdp), case["transition_probs"], atol=1e-6)
    np.testing.assert_allclose(expected_rewards(mdp), case["rewards"], rtol=1e-6)


@pytest.mark.parametrize("solve", [soft_policy_iteration, soft_value_iteration])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0.0}, "temperature is 0; it must be a positive number"),
        ({"temperature": -1.0}, "temperature is -1"),
        ({"tolerance": -1e-3}, "tolerance is -0.001; it must be 0 or a positive number"),
        ({"max_sweeps": 0}, "max_sweeps is 0; it must be a positive integer"),
        ({"reference_log_probs": np.zeros(2)}, r"reference_log_probs has shape \[2\]; it must be \[3, 2\]"),
        ({"reference_log_probs": np.full((3, 2), np.nan)}, "reference_log_probs is nan"),
        (
            {"reference_log_probs": np.array([[0, 0], [-np.inf, -np.inf], [0, 0]])},
            r"reference_log_probs\[1\] is minus infinity throughout; it must allow an action",
        ),
    ],
)
def test_refuses_an_impossible_objective(solve, changes, message):
    with pytest.raises(InputError, match=message):
        solve(chain(3), **({"temperature": 1.0} | changes))


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (np.full((3, 2), 0.4), r"policy\[0\] sums to 0.8; it must sum to 1"),
        (np.array([[1.5, -0.5]] * 3), "policy is -0.5 .*; it must be 0 or a positive number"),
        (np.full((2, 2), 0.5), r"policy has shape \[2, 2\]; it must be \[3, 2\]"),
    ],
)
def test_refuses_what_is_no_policy(policy, message):
    with pytest.raises(InputError, match=message):
        soft_policy_evaluation(chain(3), policy, temperature=1.0)

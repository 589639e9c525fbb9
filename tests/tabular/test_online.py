from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.golden_cases import load
from support.precision import BOTH, assert_close, precision
from support.reference import online as reference

from jaxsoft.envs.finite import chain, garnet
from jaxsoft.envs.mdp import FiniteMDP
from jaxsoft.errors import InputError
from jaxsoft.ops import boltzmann_log_probs, soft_lambda_returns, soft_value, trace_coefficients
from jaxsoft.ops.traces import TRACES
from jaxsoft.tabular import (
    n_step_soft_q,
    n_step_soft_q_from_transitions,
    record_transitions,
    soft_policy_iteration,
    soft_q_lambda,
    soft_q_lambda_from_transitions,
    soft_q_learning,
)
from jaxsoft.tabular.behaviour import BoltzmannBehaviour, EpsilonGreedy, Fixed, OnPolicy, Uniform
from jaxsoft.tabular.online import advance, init_learner_state, make_learner
from jaxsoft.tabular.settings import NO_LIMIT, LearnerSettings, resolve_acting
from jaxsoft.tabular.soft_q_lambda import trace_rule
from jaxsoft.tabular.walk import TabularTransition

NUM_STATES, NUM_ACTIONS, NUM_STEPS = 4, 3, 60


def transitions_of(steps: list, dtype: type, mu: np.ndarray | None = None) -> TabularTransition:
    states, actions, rewards, next_states, terminated, truncated = (np.asarray(x) for x in zip(*steps, strict=True))
    return TabularTransition(
        jnp.asarray(states, jnp.int32),
        jnp.asarray(actions, jnp.int32),
        jnp.asarray(rewards, dtype),
        jnp.asarray(next_states, jnp.int32),
        jnp.asarray(terminated, bool),
        jnp.asarray(truncated, bool),
        None if mu is None else jnp.log(jnp.asarray(mu, dtype)),
    )


def recorded(seed: int = 0) -> tuple[list, np.ndarray, np.ndarray, np.ndarray]:
    """Random steps with ends of both kinds, their μ(a|s), a first Q and a log π0."""
    rng = np.random.default_rng(seed)
    steps, state = [], 0
    for _ in range(NUM_STEPS):
        next_state, u = int(rng.integers(NUM_STATES)), rng.random()
        terminated, truncated = bool(u < 0.1), bool(0.1 <= u < 0.2)
        steps.append((state, int(rng.integers(NUM_ACTIONS)), float(rng.normal()), next_state, terminated, truncated))
        state = int(rng.integers(NUM_STATES)) if terminated or truncated else next_state
    prior = rng.dirichlet(np.ones(NUM_ACTIONS), NUM_STATES)
    return steps, rng.uniform(0.3, 1, NUM_STEPS), rng.normal(size=(NUM_STATES, NUM_ACTIONS)), np.log(prior)


@BOTH
def test_golden_online_traces(dtype):
    for case in load("online_traces"):
        with precision(dtype):
            learned = soft_q_lambda_from_transitions(
                transitions_of(case["steps"], dtype),
                discount=case["discount"],
                temperature=case["temperature"],
                lambda_=case["lambda_"],
                step_size=case["step_size"],
                reference_log_probs=jnp.asarray(case["reference_log_probs"], dtype),
                num_records=4,
            )
        assert_close(learned.q, case["q_final"], dtype)
        assert learned.q.dtype == dtype
        np.testing.assert_array_equal(learned.history.q[-1], learned.q)
        ends = [terminated or truncated for *_, terminated, truncated in case["steps"]]
        np.testing.assert_array_equal(learned.history.num_episodes, np.reshape(ends, (4, -1)).sum(1))


@pytest.mark.parametrize("trace", TRACES)
@pytest.mark.parametrize("lambda_", [0.0, 0.8])
def test_soft_q_lambda_agrees_with_the_loop(trace, lambda_):
    steps, mu, q, log_prior = recorded()
    numbers = {"discount": 0.9, "temperature": 0.3, "lambda_": lambda_, "step_size": 0.2}
    with precision(np.float64):
        learned = soft_q_lambda_from_transitions(
            transitions_of(steps, np.float64, mu),
            reference_log_probs=jnp.asarray(log_prior),
            initial_q=jnp.asarray(q),
            trace=trace,
            **numbers,
        )
    np.testing.assert_allclose(
        learned.q, reference.soft_q_lambda(steps, mu, q, log_prior, trace=trace, **numbers), rtol=1e-10
    )


@pytest.mark.parametrize(
    ("backup", "penalty"), [("tree_backup", "full"), ("on_policy", "full"), ("on_policy", "sampled")]
)
@pytest.mark.parametrize("n", [1, 3, 70])
def test_n_step_agrees_with_the_loop(backup, penalty, n):
    steps, _, q, log_prior = recorded(1)
    numbers = {"n": n, "discount": 0.9, "temperature": 0.3, "step_size": 0.2}
    with precision(np.float64):
        learned = n_step_soft_q_from_transitions(
            transitions_of(steps, np.float64),
            reference_log_probs=jnp.asarray(log_prior),
            initial_q=jnp.asarray(q),
            backup=backup,
            penalty=penalty,
            **numbers,
        )
    loop = reference.n_step(steps, q, log_prior, backup=backup, penalty=penalty, **numbers)
    np.testing.assert_allclose(learned.q, loop, rtol=1e-10)


@pytest.mark.parametrize("trace", TRACES)
def test_backward_view_is_the_forward_view_while_q_hardly_moves(trace):
    """With α → 0 Q is frozen: (Q after − Q before)/α is the sum of the forward view's errors."""
    steps, mu, q, log_prior = recorded(2)
    discount, temperature, lambda_, step_size = 0.9, 0.5, 0.7, 1e-9
    with precision(np.float64):
        e = transitions_of(steps, np.float64, mu)
        prior, table = jnp.asarray(log_prior), jnp.asarray(q)
        learned = soft_q_lambda_from_transitions(
            e,
            discount=discount,
            temperature=temperature,
            lambda_=lambda_,
            step_size=step_size,
            reference_log_probs=prior,
            initial_q=table,
            trace=trace,
        )
        at = e.state, e.action
        log_pi = boltzmann_log_probs(table, prior, temperature)
        c = trace_coefficients(trace, log_pi[at], e.log_mu, log_pi.max(-1)[e.state])
        forward = soft_lambda_returns(
            e.reward,
            jnp.where(e.terminated, 0, discount),
            soft_value(table, prior, temperature)[e.next_state],
            jnp.roll(table[at], -1),
            jnp.where(e.truncated, 0, jnp.roll(c, -1)),
            lambda_,
        )
        moved, errors = jax.device_get(((learned.q - table) / step_size, forward - table[at]))
    expected = np.zeros_like(q)
    np.add.at(expected, jax.device_get(at), errors)
    np.testing.assert_allclose(moved, expected, rtol=1e-5, atol=1e-5)


def on_golden(index: int, learner, num_seeds: int, **settings):
    case = load("mdps")[index]
    mdp = FiniteMDP(case["transition_probs"], case["rewards"], discount=case["discount"])
    log_prior = jnp.asarray(case["reference_log_probs"], jnp.float32)

    def seed(key: jax.Array):
        return learner(key, mdp, temperature=case["temperature"], reference_log_probs=log_prior, **settings)

    # of all the tests' programs these alone run longer than they compile
    program = jax.jit(jax.vmap(seed), compiler_options={"xla_backend_optimization_level": 3})
    return jax.device_get(program(jax.random.split(jax.random.key(0), num_seeds))), case["q_star"]


@pytest.mark.parametrize("trace", ["tree_backup", "retrace"])
@pytest.mark.parametrize("index", range(4))
def test_converges_to_the_optimum_under_uniform_behaviour(index, trace):
    """No bias is left that 64 seeds could tell from their noise, and the noise falls as the step sizes say.

    Around Q* an update by α keeps a variance of α/(2 − α) times that of the targets; fourfold time halves the noise.
    """
    half_life = 20_000.0 if index == 2 else 2_000.0  # its discount is 0.99: what is left at first decays slowly
    learned, q_star = on_golden(
        index,
        partial(soft_q_lambda, trace=trace, lambda_=0.8),
        64,
        num_steps=80_000,
        num_records=4,
        step_size=0.5,
        half_life=half_life,
    )
    scale = np.abs(q_star).max()
    standard_errors = learned.q.std(0, ddof=1) / np.sqrt(64)
    assert standard_errors.max() < 0.006 * scale
    assert (np.abs(learned.q.mean(0) - q_star) < 4 * standard_errors + 0.001 * scale).all()
    early, late = (np.sqrt(learned.history.q[:, i].var(0, ddof=1).mean()) for i in (0, 3))
    step_sizes = 0.5 / (1 + np.array([20_000, 80_000]) / half_life)
    variances = step_sizes / (2 - step_sizes)
    np.testing.assert_allclose(late / early, np.sqrt(variances[1] / variances[0]), rtol=0.1)


def test_n_step_tree_backup_converges_where_the_on_policy_return_does_not():
    settings = {"n": 3, "num_steps": 100_000, "step_size": 0.5, "half_life": 5_000.0}
    off, q_star = on_golden(3, partial(n_step_soft_q, backup="tree_backup"), 8, **settings)
    on, _ = on_golden(3, partial(n_step_soft_q, backup="on_policy"), 8, **settings)
    assert np.abs(off.q.mean(0) - q_star).max() < 0.03
    assert np.abs(on.q.mean(0) - q_star).max() > 1


@pytest.mark.parametrize("penalty", ["full", "sampled"])
def test_the_on_policy_return_is_right_on_policy(penalty):
    learned, q_star = on_golden(
        3,
        partial(n_step_soft_q, backup="on_policy", penalty=penalty, behaviour=OnPolicy()),
        8,
        n=3,
        num_steps=100_000,
        step_size=0.5,
        half_life=5_000.0,
    )
    assert np.abs(learned.q.mean(0) - q_star).max() < 0.2  # rare actions are noisy; off-policy it is above 1


SETTINGS = {"num_steps": 300, "temperature": 0.3, "step_size": 0.2, "max_episode_steps": 20}


@pytest.mark.parametrize(
    "learner",
    [
        soft_q_learning,
        partial(soft_q_lambda, lambda_=0.0, trace="retrace"),
        partial(soft_q_lambda, lambda_=0.0, trace="uncorrected"),
        partial(n_step_soft_q, n=1),
        partial(n_step_soft_q, n=1, backup="on_policy", penalty="sampled"),
    ],
)
def test_lambda_0_and_one_step_are_soft_q_learning(learner):
    key, mdp = jax.random.key(0), garnet(jax.random.key(1), 6, 3, 2)
    one_step = soft_q_lambda(key, mdp, lambda_=0.0, **SETTINGS)
    np.testing.assert_allclose(learner(key, mdp, **SETTINGS).q, one_step.q, rtol=1e-5, atol=1e-6)
    assert np.abs(one_step.q).max() > 0.1


def test_traces_carry_a_reward_back_at_once():
    """One episode of a chain, always to the right: with traces every state learns from its end."""
    right = Fixed(jnp.tile(jnp.array([0.0, 1.0]), (5, 1)))
    learn = partial(
        soft_q_lambda, jax.random.key(0), chain(5), num_steps=5, temperature=0.1, step_size=0.5, behaviour=right
    )
    assert (learn(lambda_=0.9, trace="uncorrected").q[:, 1] > 0.1).all()
    np.testing.assert_array_equal(learn(lambda_=0.0).q[:4], 0)
    assert int(learn(lambda_=0.0).history.num_episodes[0]) == 1


def test_vmaps_over_seeds_and_settings():
    mdp = garnet(jax.random.key(1), 6, 3, 2)
    keys = jax.random.split(jax.random.key(2), 3)
    numbers = {
        "temperature": jnp.array([0.1, 0.5, 1.0]),
        "lambda_": jnp.array([0.0, 0.5, 1.0]),
        "step_size": jnp.array([0.1, 0.2, 0.3]),
        "reference_log_probs": jax.nn.log_softmax(jax.random.normal(jax.random.key(3), (3, 6, 3))),
        "behaviour": EpsilonGreedy(jnp.array([0.1, 0.5, 1.0])),
    }
    learn = partial(soft_q_lambda, num_steps=200, max_episode_steps=20)
    batch = jax.vmap(lambda key, kw: learn(key, mdp, **kw))(keys, numbers)
    for i in range(3):
        alone = learn(keys[i], mdp, **jax.tree.map(lambda x, i=i: x[i], numbers))
        np.testing.assert_allclose(batch.q[i], alone.q, rtol=1e-4, atol=1e-5)
    assert not np.allclose(batch.q[0], batch.q[1])


def test_a_time_limit_ends_episodes_and_keeps_the_value_beyond():
    """Reward 1 for ever, cut every 2 steps: the value is that of going on, 1/(1 − γ)."""
    mdp = FiniteMDP(np.ones((1, 1, 1)), np.ones((1, 1)), discount=0.5)
    learned = soft_q_lambda(
        jax.random.key(0), mdp, num_steps=200, temperature=1.0, lambda_=0.9, step_size=0.5, max_episode_steps=2
    )
    np.testing.assert_allclose(learned.q, 2.0, rtol=1e-4)
    assert int(learned.history.num_episodes.sum()) == 100
    np.testing.assert_allclose(learned.history.mean_rewards, 1.0)


def test_records_are_evenly_spaced_prefixes_of_one_run():
    learn = partial(soft_q_lambda, jax.random.key(0), chain(4), temperature=0.3, lambda_=0.9, step_size=0.2)
    history = learn(num_steps=400, num_records=4).history.q
    np.testing.assert_allclose(history[1], learn(num_steps=200).q, rtol=1e-6)


@pytest.mark.parametrize("max_episode_steps", [7, 1_000])
def test_learning_from_recorded_steps_is_learning_while_they_are_made(max_episode_steps):
    """The behaviour does not look at Q: with one key it makes the same steps, whoever learns from them."""
    mdp, key, prior = chain(5), jax.random.key(4), jnp.full((5, 2), -jnp.log(2.0))
    walked = {"behaviour": Fixed(jnp.tile(jnp.array([0.3, 0.7]), (5, 1))), "max_episode_steps": max_episode_steps}
    data = record_transitions(key, mdp, num_steps=400, temperature=0.3, **walked)
    assert bool(data.truncated.any()) == (max_episode_steps == 7)
    assert bool(data.terminated.any())
    settings = {"temperature": 0.3, "step_size": 0.2}
    recorded_settings: Any = settings | {"discount": mdp.discount, "reference_log_probs": prior}
    with_traces = {"lambda_": 0.8, "trace": "retrace"}
    acted = soft_q_lambda(key, mdp, num_steps=400, **settings, **walked, **with_traces)
    learned = soft_q_lambda_from_transitions(data, **recorded_settings, **with_traces)
    np.testing.assert_allclose(learned.q, acted.q, rtol=1e-5)
    acted = n_step_soft_q(key, mdp, n=3, num_steps=400, **settings, **walked)
    learned = n_step_soft_q_from_transitions(data, n=3, **recorded_settings)
    np.testing.assert_allclose(learned.q, acted.q, rtol=1e-5)
    assert int(learned.history.num_episodes[0]) == int(acted.history.num_episodes[0]) > 10


def test_a_run_goes_on_where_it_stopped():
    mdp, key = garnet(jax.random.key(1), 6, 3, 2), jax.random.key(3)
    settings = {"temperature": 0.3, "lambda_": 0.8, "step_size": 0.2, "half_life": 50.0, "max_episode_steps": 7}
    whole = soft_q_lambda(key, mdp, num_steps=300, trace="retrace", **settings)
    learner = make_learner(mdp, trace_rule("retrace"), LearnerSettings(num_steps=300, **settings))
    state = init_learner_state(key, learner)
    for _ in range(3):
        state, _ = advance(learner, state, 100)
    np.testing.assert_allclose(state.q, whole.q, rtol=1e-6)
    assert int(state.walk.time) == 300


Q_ROW, PRIOR_ROW = jnp.array([1.0, 2.0, 2.0]), jnp.log(jnp.array([0.5, 0.25, 0.25]))


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        (Uniform(), [1 / 3, 1 / 3, 1 / 3]),
        (EpsilonGreedy(0.3), [0.1, 0.45, 0.45]),
        (EpsilonGreedy(0.0), [0, 0.5, 0.5]),
        (Fixed(jnp.array([[1.0, 0.0, 0.0], [0.2, 0.3, 0.5]])), [0.2, 0.3, 0.5]),
        (BoltzmannBehaviour(1e6), [0.5, 0.25, 0.25]),
        (BoltzmannBehaviour(1e-3), [0, 0.5, 0.5]),
        (OnPolicy(), np.array([0.5, 0.25 * np.e, 0.25 * np.e]) / (0.5 + 0.5 * np.e)),
    ],
)
def test_behaviours_are_what_they_say(behaviour, expected):
    log_probs = behaviour.log_probs(Q_ROW, PRIOR_ROW, jnp.float32(1.0), jnp.int32(1))
    np.testing.assert_allclose(np.exp(log_probs), expected, atol=1e-5)


def test_actions_follow_the_behaviour():
    """In a bandit whose actions lead to states of their own number, visits count actions."""
    probs = np.tile(np.eye(3)[None], (3, 1, 1))
    mdp = FiniteMDP(probs, np.tile([0.0, 1.0, 10.0], (3, 1)), discount=0.0)
    fixed = Fixed(jnp.tile(jnp.array([0.6, 0.3, 0.1]), (3, 1)))
    learned = soft_q_lambda(
        jax.random.key(0), mdp, num_steps=20_000, temperature=1.0, lambda_=0.0, step_size=0.5, behaviour=fixed
    )
    np.testing.assert_allclose(learned.history.mean_rewards, 1.3, atol=0.08)  # 3 standard errors are 0.062


def test_off_policy_traces_reach_the_optimum_from_another_policys_actions():
    mdp = chain(6, discount=0.9)
    optimum = soft_policy_iteration(mdp, temperature=0.2).q
    learned = soft_q_lambda(
        jax.random.key(0),
        mdp,
        num_steps=20_000,
        temperature=0.2,
        lambda_=0.9,
        step_size=0.5,
        behaviour=EpsilonGreedy(0.5),
    )
    np.testing.assert_allclose(learned.q, optimum, atol=1e-3)


ARGUMENTS = {"num_steps": 10, "temperature": 0.5, "step_size": 0.1}


@pytest.mark.parametrize(
    ("learner", "changes", "message"),
    [
        (soft_q_lambda, {"temperature": 0.0}, "temperature is 0; it must be a positive number"),
        (soft_q_lambda, {"lambda_": 1.5}, "lambda_ is 1.5; it must be between 0 and 1"),
        (soft_q_lambda, {"step_size": 0.0}, "step_size is 0; it must be above 0 and at most 1"),
        (soft_q_lambda, {"half_life": 0.0}, "half_life is 0; it must be a positive number"),
        (soft_q_lambda, {"trace": "retrase"}, r"unknown trace coefficient 'retrase'; did you mean retrace\?"),
        (soft_q_lambda, {"num_steps": 0}, "num_steps is 0; it must be a positive integer"),
        (soft_q_lambda, {"num_records": 3}, "num_records is 3; it must divide the number of steps, 10"),
        (soft_q_lambda, {"max_episode_steps": 0}, "max_episode_steps is 0"),
        (soft_q_lambda, {"initial_q": np.zeros(3)}, r"initial_q has shape \[3\]; it must be \[3, 2\]"),
        (soft_q_lambda, {"behaviour": "uniform"}, r"behaviour is 'uniform'; it must be Uniform\(\)"),
        (soft_q_lambda, {"behaviour": EpsilonGreedy(2.0)}, "behaviour.epsilon is 2; it must be between 0 and 1"),
        (soft_q_lambda, {"behaviour": BoltzmannBehaviour(-1.0)}, "behaviour.temperature is -1"),
        (soft_q_lambda, {"behaviour": Fixed(jnp.ones((3, 2)))}, r"policy\[0\] sums to 2"),
        (soft_q_lambda, {"reference_log_probs": np.full((3, 2), -np.inf)}, "it must allow an action in every state"),
        (n_step_soft_q, {"n": 0}, "n is 0; it must be a positive integer"),
        (n_step_soft_q, {"backup": "tree"}, r"unknown backup 'tree'; did you mean tree_backup\?"),
        (n_step_soft_q, {"penalty": "sample"}, r"unknown penalty 'sample'; did you mean sampled\?"),
        (n_step_soft_q, {"penalty": "sampled"}, "penalty is sampled, which tree_backup has no use for; with on_policy"),
    ],
)
def test_refuses_what_cannot_be_learned(learner, changes, message):
    arguments = ARGUMENTS | ({"n": 2} if learner is n_step_soft_q else {"lambda_": 0.5}) | changes
    with pytest.raises(InputError, match=message):
        learner(jax.random.key(0), chain(3), **arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"discount": None}, "discount is None; recorded transitions have no default for it"),
        ({"reference_log_probs": None}, "reference_log_probs is None; recorded transitions have no default for it"),
        ({"behaviour": OnPolicy()}, r"behaviour is OnPolicy\(\); it must be None for recorded transitions"),
        ({"max_episode_steps": 5}, "max_episode_steps is 5; it must be None for recorded transitions"),
        ({"num_steps": 60}, "num_steps is 60; it must be None for recorded transitions"),
        ({"num_records": 7}, "num_records is 7; it must divide the number of steps, 60"),
        ({"reference_log_probs": np.zeros(3)}, r"reference_log_probs has shape \[3\]; it must be \[S, A\]"),
        ({"initial_q": np.zeros((2, 3))}, r"initial_q has shape \[2, 3\]; it must be \[4, 3\]"),
    ],
)
def test_refuses_settings_that_recorded_transitions_cannot_follow(changes: dict, message: str):
    steps, _, _, log_prior = recorded()
    settings = {"temperature": 0.5, "step_size": 0.1, "discount": 0.9, "reference_log_probs": log_prior} | changes
    with pytest.raises(InputError, match=message):
        n_step_soft_q_from_transitions(transitions_of(steps, np.float32), n=2, **settings)


@BOTH
def test_settings_are_completed_in_the_precision_of_the_process(dtype):
    given = LearnerSettings(temperature=0.3, step_size=0.2, num_steps=30, num_records=3)
    with precision(dtype):
        mdp = chain(4, discount=0.9)
        complete = resolve_acting(given, mdp)
        other = resolve_acting(replace(given, discount=0.5, max_episode_steps=7, behaviour=OnPolicy()), mdp)
        numbers = [leaf for leaf in jax.tree.leaves(complete) if jnp.issubdtype(leaf.dtype, jnp.floating)]
        assert [leaf.dtype for leaf in numbers] == 7 * [dtype]
        np.testing.assert_allclose(complete.reference_log_probs, np.full((4, 2), -np.log(2)), rtol=1e-6)
    np.testing.assert_array_equal(complete.initial_q, np.zeros((4, 2)))
    assert (float(complete.discount), float(other.discount)) == (dtype(0.9), 0.5)
    assert (int(complete.max_episode_steps), int(other.max_episode_steps)) == (NO_LIMIT, 7)
    assert (complete.behaviour, other.behaviour) == (Uniform(), OnPolicy())
    assert float(complete.half_life) == np.inf
    sizes = jax.tree.map(jnp.zeros_like, complete)  # sizes are static: a map over the leaves does not touch them
    assert (sizes.num_steps, sizes.num_records) == (30, 3)


@pytest.mark.parametrize("trace", ["retrace", "importance_sampling"])
def test_refuses_data_without_the_behaviours_probabilities(trace):
    steps, _, _, log_prior = recorded()
    with pytest.raises(InputError, match=f"{trace} needs the behaviour's log-probabilities; log_mu is None"):
        soft_q_lambda_from_transitions(
            transitions_of(steps, np.float32),
            discount=0.9,
            temperature=0.5,
            lambda_=0.5,
            step_size=0.1,
            reference_log_probs=jnp.asarray(log_prior),
            trace=trace,
        )

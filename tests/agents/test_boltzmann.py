"""What the Soft Q(λ) agents share: acting, exploring, temperatures, and references that are learned."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from support.probe_envs import choice_ahead
from support.reference import returns as reference

from jaxsoft.agents import boltzmann
from jaxsoft.agents.boltzmann import Boltzmann, PolicyState
from jaxsoft.agents.soft_q_config import SoftQConfig
from jaxsoft.errors import InputError
from jaxsoft.nn import normalisation
from jaxsoft.ops import boltzmann_policy
from jaxsoft.training.config import make_config
from jaxsoft.training.loop import make_agent, make_train
from jaxsoft.types import Discrete, EnvSpec

NUM_ACTIONS, TEMPERATURE = 3, 0.4
SPEC = EnvSpec("probe/spec", (2,), np.dtype(np.float32), Discrete(NUM_ACTIONS), 10)
OBS = jnp.asarray([[1.0, 0.0], [0.5, -2.0], [0.0, 0.3]])
TABLE = jnp.asarray([[1.0, 0.3, -0.5], [0.2, -0.4, 0.1]])


def q_values(params: jax.Array, obs: jax.Array) -> jax.Array:
    return obs @ params


def a_policy(num_updates: int = 100, **settings: Any) -> tuple[Boltzmann, PolicyState]:
    given: dict[str, Any] = {"temperature": TEMPERATURE} | settings
    config = SoftQConfig(**given)
    policy = boltzmann.make_boltzmann(config, SPEC, q_values, num_updates)
    return policy, boltzmann.init(policy, TABLE)


def expected_probs(log_prior: np.ndarray, temperature: float = TEMPERATURE) -> np.ndarray:
    q = np.asarray(OBS, np.float64) @ np.asarray(TABLE, np.float64)
    return np.array([reference.boltzmann(row, log_prior, temperature) for row in q])


UNIFORM = np.full(NUM_ACTIONS, -np.log(NUM_ACTIONS))


# Acting


def test_the_policy_is_boltzmanns_relative_to_the_reference() -> None:
    for name, log_prior in (("uniform", UNIFORM), ("0,2,1", np.log(np.exp([0, 2, 1]) / np.exp([0, 2, 1]).sum()))):
        policy, state = a_policy(reference=name)
        log_probs = boltzmann.policy_log_probs(policy, state, OBS)
        np.testing.assert_allclose(np.exp(log_probs), expected_probs(log_prior), rtol=1e-5)


def test_a_function_of_the_observation_sees_it_as_it_is_and_the_q_function_normalised() -> None:
    policy, state = a_policy(reference=lambda obs: jax.nn.log_softmax(obs @ TABLE * 2), normalise_obs=True)
    mean, deviation = jnp.asarray([3.0, -1.0]), jnp.asarray([2.0, 0.5])
    seen = jnp.concatenate([mean + deviation, mean - deviation]).reshape(2, 2)
    state = normalisation.observe(state, seen)
    q = np.asarray((OBS - mean) / deviation @ TABLE, np.float64)
    log_prior = np.asarray(jax.nn.log_softmax(OBS @ TABLE * 2), np.float64)
    expected = [reference.boltzmann(*rows, TEMPERATURE) for rows in zip(q, log_prior, strict=True)]
    np.testing.assert_allclose(np.exp(boltzmann.policy_log_probs(policy, state, OBS)), expected, rtol=1e-4)


@pytest.mark.parametrize("kind", ["uniform", "reference"])
@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_exploration_is_a_mixture_and_its_log_probs_those_of_the_mixture(kind: Any, share: float) -> None:
    policy, state = a_policy(reference="0,2,1", exploration=share, exploration_policy=kind)
    prior = np.exp([0, 2, 1]) / np.exp([0, 2, 1]).sum()
    mixed_in = np.exp(UNIFORM) if kind == "uniform" else prior
    mu = (1 - share) * expected_probs(np.log(prior)) + share * mixed_in
    many = jnp.broadcast_to(OBS[0], (20_000, 2))
    action, log_prob = jax.jit(lambda key: boltzmann.explore(key, policy, state, many))(jax.random.key(0))
    np.testing.assert_allclose(np.exp(log_prob), mu[0][action], rtol=1e-4)
    assert scipy.stats.chisquare(np.bincount(action, minlength=3), 20_000 * mu[0]).pvalue > 1e-3
    # each action's probability, once it was drawn: they sum to one
    probs = [np.exp(log_prob[np.flatnonzero(action == a)[0]]) for a in range(NUM_ACTIONS)]
    assert sum(probs) == pytest.approx(1, abs=1e-5)


def test_acting_does_not_explore() -> None:
    policy, state = a_policy(exploration=1.0)
    action, log_prob = boltzmann.act(jax.random.key(0), policy, state, OBS)
    np.testing.assert_allclose(np.exp(log_prob), expected_probs(UNIFORM)[np.arange(3), action], rtol=1e-5)


def test_a_forbidden_action_is_never_taken_unless_uniform_exploration_asks_for_it() -> None:
    many = jnp.broadcast_to(OBS[0], (5_000, 2))
    for share, kind, is_taken in ((0.0, "uniform", False), (0.5, "reference", False), (0.5, "uniform", True)):
        policy, state = a_policy(reference="-inf,0,0", exploration=share, exploration_policy=kind)
        explored, log_prob = jax.jit(lambda k, p=policy, s=state: boltzmann.explore(k, p, s, many))(jax.random.key(0))
        acted, _ = boltzmann.act(jax.random.key(1), policy, state, many)
        assert (np.asarray(acted) != 0).all()
        assert (np.asarray(explored) == 0).any() == is_taken
        assert np.isfinite(log_prob).all()


def after(policy: Boltzmann, state: PolicyState, num_updates: int, params: Any = TABLE) -> PolicyState:
    def update(state: PolicyState, _: None) -> tuple[PolicyState, None]:
        reference = boltzmann.reference_log_probs(policy, state, OBS)
        learned = boltzmann_policy(q_values(state.params, OBS), reference, boltzmann.temperature(policy, state))
        adapted = boltzmann.adapt_temperature(policy, state, *learned)
        return boltzmann.finish_update(policy, adapted, params), None

    return jax.jit(lambda state: jax.lax.scan(update, state, length=num_updates)[0])(state)


def test_exploration_falls_linearly_and_then_stays() -> None:
    policy, state = a_policy(exploration=0.8, final_exploration=0.2, decay_fraction=0.25, num_updates=200)
    for done, expected in ((0, 0.8), (25, 0.5), (50, 0.2), (80, 0.2)):
        now = replace(state, num_updates=jnp.int32(done))
        np.testing.assert_allclose(boltzmann.exploration(policy, now), expected, rtol=1e-6)
    # a schedule that begins at nothing explores as soon as it has risen
    policy, state = a_policy(exploration=0.0, final_exploration=1.0, decay_fraction=0.25, num_updates=200)
    _, log_prob = boltzmann.explore(jax.random.key(0), policy, replace(state, num_updates=jnp.int32(50)), OBS)
    np.testing.assert_allclose(np.exp(log_prob), 1 / NUM_ACTIONS, rtol=1e-5)


# Temperatures


def test_a_fixed_temperature_stays_to_the_last_bit() -> None:
    policy, state = a_policy()
    later = after(policy, state, 5)
    assert later.log_temperature == state.log_temperature
    assert later.num_updates == 5
    np.testing.assert_allclose(boltzmann.temperature(policy, later), TEMPERATURE, rtol=1e-6)


def test_a_scheduled_temperature_falls_geometrically_and_then_stays() -> None:
    policy, state = a_policy(temperature=1.0, final_temperature=0.01, decay_fraction=0.25, num_updates=200)
    for done, expected in ((0, 1), (25, 0.1), (50, 0.01), (100, 0.01)):
        now = replace(state, num_updates=jnp.int32(done))
        np.testing.assert_allclose(boltzmann.temperature(policy, now), expected, rtol=1e-5)
    np.testing.assert_allclose(boltzmann.temperature(policy, after(policy, state, 25)), 0.1, rtol=1e-5)


@pytest.mark.parametrize("first", [0.05, 5.0])
@pytest.mark.parametrize(("name", "target"), [("target_entropy", 0.6), ("target_kl", 0.3)])
def test_an_adapted_temperature_meets_its_target(name: str, target: float, first: float) -> None:
    settings = {name: target, "temperature": first, "temperature_learning_rate": 0.02, "reference": "0,2,1"}
    policy, state = a_policy(**settings)
    state = after(policy, state, 1500)
    log_probs = np.asarray(boltzmann.policy_log_probs(policy, state, OBS), np.float64)
    log_prior = np.asarray(boltzmann.reference_log_probs(policy, state, OBS), np.float64)
    measured = {
        "target_entropy": -(np.exp(log_probs) * log_probs).sum(-1).mean(),
        "target_kl": (np.exp(log_probs) * (log_probs - log_prior)).sum(-1).mean(),
    }
    assert measured[name] == pytest.approx(target, abs=0.005)
    assert abs(np.log(boltzmann.temperature(policy, state) / first)) > 0.1  # it had a way to go


def test_the_temperature_can_follow_only_one_of_them() -> None:
    with pytest.raises(InputError, match="target_entropy and target_kl are both given; the temperature can follow"):
        a_policy(target_entropy=0.5, target_kl=0.1)
    with pytest.raises(InputError, match="final_temperature and target_kl are both given"):
        a_policy(final_temperature=0.5, target_kl=0.1)


# The average reference


def test_an_average_reference_begins_as_the_agent_and_moves_by_polyak() -> None:
    policy, state = a_policy(reference="average", reference_polyak=0.9)
    np.testing.assert_array_equal(state.reference_params, state.params)
    first, second = TABLE + 1, 3 * TABLE
    for params in (first, second):
        state = boltzmann.finish_update(policy, state, params)
    expected = 0.9 * (0.9 * TABLE + 0.1 * first) + 0.1 * second
    np.testing.assert_allclose(state.reference_params, expected, rtol=1e-5)
    np.testing.assert_array_equal(state.params, second)


def test_an_average_reference_is_the_averages_own_boltzmann_policy_and_has_no_gradient() -> None:
    policy, state = a_policy(reference="average")
    state = replace(state, params=3 * TABLE)
    np.testing.assert_allclose(
        np.exp(boltzmann.reference_log_probs(policy, state, OBS)), expected_probs(UNIFORM), rtol=1e-5
    )
    gradient = jax.grad(lambda p: boltzmann.reference_log_probs(policy, replace(state, reference_params=p), OBS).sum())
    np.testing.assert_array_equal(gradient(TABLE), 0)


def test_other_references_keep_no_average() -> None:
    assert a_policy(reference="uniform")[1].reference_params is None
    assert a_policy(reference="0,0,1")[1].reference_params is None


# Where the temperature is judged


@pytest.mark.parametrize("name", ["soft_q", "soft_q_replay", "soft_q_stream"])
def test_the_entropy_that_is_adapted_is_that_of_the_states_acted_in(name: str) -> None:
    # where the task ends nobody acts, and nothing is learned of the values there
    env, target = choice_ahead((1.0, 0.5, -1.0)), 0.9
    settings: dict[str, Any] = {
        "soft_q": {"total_timesteps": 20_000, "num_envs": 4, "rollout_length": 10, "learning_rate": 5e-3},
        "soft_q_replay": {
            "total_timesteps": 3_000,
            "learning_rate": 5e-3,
            "polyak": 0.9,
            "batch_size": 16,
            "replay_capacity": 3_000,
            "learning_starts": 300,
        },
        "soft_q_stream": {"total_timesteps": 20_000, "scale_rewards": False, "sparsity": 0.0, "normalise_obs": False},
    }[name]
    settings |= {"temperature": 0.5, "target_entropy": target, "temperature_learning_rate": 5e-3, "eval_every": 0}
    settings |= {"hidden_sizes": (16,), "discount": 0.8}
    state = jax.jit(make_train(name, env, **settings))(jax.random.key(0))[0].agent_state
    agent = make_agent(env, make_config(name, env.spec.id, settings))
    assert agent.log_probs is not None
    log_probs = np.asarray(agent.log_probs(state, jnp.asarray([[0.0], [1.0]])), np.float64)
    entropies = -(np.exp(log_probs) * log_probs).sum(-1)
    assert entropies.mean() == pytest.approx(target, abs=0.03)  # both states are acted in equally often

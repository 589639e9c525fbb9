"""SAC: its losses against NumPy, what one update changes, and environments with known values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.learning import LEARNING, solve, solve_each
from support.probe_envs import (
    action_reward,
    constant_reward,
    countdown,
    ends_both_ways,
    obs_reward,
    steady_reward,
    stopped_on_reward,
    two_steps,
)
from support.reference import sac as reference

from jaxsoft.agents import sac
from jaxsoft.nn.networks import Layers, QFunction, TanhNormalPolicy, ensemble
from jaxsoft.ops import temperature_loss
from jaxsoft.types import Box, Env, EnvSpec, Transition

BATCH_SIZE, OBS_DIM, ACTION_DIM, NUM_UPDATES = 12, 3, 2, 1
CONFIG = sac.Config(hidden_sizes=(16, 16), learning_rate=1e-3, polyak=0.9, temperature=0.3, discount=0.7)


def unit_spec(obs_shape: tuple[int, ...] = (OBS_DIM,), action_dim: int = ACTION_DIM) -> EnvSpec:
    ones = np.ones((action_dim,), np.float32)
    return EnvSpec("probe/spec", obs_shape, np.dtype(np.float32), Box(-ones, ones), 1)


def a_batch(obs_shape: tuple[int, ...] = (OBS_DIM,), action_dim: int = ACTION_DIM) -> Transition:
    keys = jax.random.split(jax.random.key(5), 4)
    return Transition(
        obs=jax.random.normal(keys[0], (BATCH_SIZE, *obs_shape)),
        action=jax.random.uniform(keys[1], (BATCH_SIZE, action_dim), minval=-1),
        reward=jax.random.normal(keys[2], (BATCH_SIZE,)),
        next_obs=jax.random.normal(keys[3], (BATCH_SIZE, *obs_shape)),
        terminated=jnp.arange(BATCH_SIZE) % 3 == 0,
    )


LAYERS = Layers((16, 16))
NETWORKS = sac.make_networks(TanhNormalPolicy(ACTION_DIM, LAYERS), ensemble(QFunction, 2)(LAYERS), obs_rank=1)


# op by op each of these would take seconds
init = jax.jit(sac.make(CONFIG, unit_spec(), NUM_UPDATES).init)
critic_targets = jax.jit(sac.critic_targets, static_argnums=2)
actor_loss = jax.jit(sac.actor_loss, static_argnums=4)
actor_gradient = jax.jit(jax.grad(sac.actor_loss, has_aux=True), static_argnums=4)


@pytest.fixture(scope="module")
def state() -> sac.State:
    """A state whose target differs from its critic, as it does in training."""
    first, other = (init(jax.random.key(seed)) for seed in range(2))
    return replace(first, target_critic_params=other.critic_params)


def noise_of(key: jax.Array) -> np.ndarray:
    return np.asarray(jax.random.normal(key, (BATCH_SIZE, ACTION_DIM)))


def numpy_params(params: Any) -> Any:
    return jax.tree.map(lambda x: np.asarray(x, np.float64), params)


# The losses


def test_critic_targets_match_numpy(state: sac.State, key: jax.Array) -> None:
    batch = a_batch()
    with jax.numpy_rank_promotion("raise"):
        targets = critic_targets(key, state, NETWORKS, batch, CONFIG.discount)
    expected = reference.critic_targets(
        state.actor_params,
        state.target_critic_params,
        CONFIG.temperature,
        CONFIG.discount,
        np.asarray(batch.reward),
        np.asarray(batch.next_obs),
        np.asarray(batch.terminated),
        noise_of(key),
    )
    np.testing.assert_allclose(targets, expected, rtol=1e-5, atol=1e-5)


def test_beyond_a_terminal_step_the_target_is_the_reward_whatever_follows(state: sac.State, key: jax.Array) -> None:
    batch = a_batch()
    batch = replace(batch, next_obs=jnp.where(batch.terminated[:, None], jnp.nan, batch.next_obs))
    targets = np.asarray(critic_targets(key, state, NETWORKS, batch, CONFIG.discount))
    ended = np.asarray(batch.terminated)
    np.testing.assert_array_equal(targets[ended], np.asarray(batch.reward)[ended])
    assert np.isfinite(targets).all()


def test_critic_loss_matches_numpy(state: sac.State) -> None:
    batch, targets = a_batch(), jnp.linspace(-2, 2, BATCH_SIZE)
    loss, metrics = sac.critic_loss(state.critic_params, NETWORKS.q_values, batch, targets)
    obs, action = np.asarray(batch.obs), np.asarray(batch.action)
    expected = reference.critic_loss(state.critic_params, obs, action, np.asarray(targets))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["critic_loss"], expected, rtol=1e-5)
    q = reference.q_values(state.critic_params, obs, action)
    np.testing.assert_allclose(metrics["q_mean"], q.mean(), rtol=1e-5, atol=1e-6)


def test_actor_loss_matches_numpy(state: sac.State, key: jax.Array) -> None:
    batch = a_batch()
    critic_params, temperature = state.critic_params, CONFIG.temperature
    loss, (log_prob, metrics) = actor_loss(state.actor_params, key, critic_params, temperature, NETWORKS, batch.obs)
    obs, noise = np.asarray(batch.obs), noise_of(key)
    expected = reference.actor_loss(state.actor_params, state.critic_params, CONFIG.temperature, obs, noise)
    np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-6)
    expected_log_prob = reference.sample(state.actor_params, obs, noise)[1]
    np.testing.assert_allclose(log_prob, expected_log_prob, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(metrics["entropy"], -expected_log_prob.mean(), rtol=1e-4)


def test_actor_gradient_flows_through_the_drawn_actions(state: sac.State, key: jax.Array) -> None:
    # against central differences of the NumPy loss: dropping the path through Q or through log π changes it
    obs = a_batch().obs
    critic_params, temperature = state.critic_params, CONFIG.temperature
    grads, _ = actor_gradient(state.actor_params, key, critic_params, temperature, NETWORKS, obs)
    params = numpy_params(state.actor_params)
    for name, index in (("kernel", (3, 0)), ("kernel", (5, 3)), ("bias", (1,)), ("bias", (2,))):
        entry, values = params["params"]["Dense_0"][name], []
        for shift in (1e-5, -1e-5):
            entry[index] += shift
            values.append(
                reference.actor_loss(params, state.critic_params, CONFIG.temperature, np.asarray(obs), noise_of(key))
            )
            entry[index] -= shift
        numeric = (values[0] - values[1]) / 2e-5
        np.testing.assert_allclose(grads["params"]["Dense_0"][name][index], numeric, rtol=1e-3, atol=1e-5)


@pytest.mark.usefixtures("strict_ranks")
def test_temperature_loss_and_gradient_are_the_formulas() -> None:
    log_temperature, log_prob, target_entropy = jnp.float32(-0.5), jnp.float32(1.2), -2.0
    value, grad = jax.value_and_grad(temperature_loss)(log_temperature, log_prob, target_entropy)
    # J = −exp(log τ) (log π + H̄) is its own derivative in log τ
    np.testing.assert_allclose(value, -np.exp(-0.5) * (1.2 - 2.0), rtol=1e-6)
    np.testing.assert_allclose(grad, value)
    assert jax.grad(temperature_loss, argnums=1)(log_temperature, log_prob, target_entropy) == 0


def test_temperature_loss_is_averaged_over_the_batch() -> None:
    log_prob = jnp.asarray([0.5, -1.0, 3.0])
    expected = np.mean([-0.3 * (x - 2.0) for x in (0.5, -1.0, 3.0)])
    loss, _ = sac.mean_temperature_loss(jnp.log(0.3), log_prob, -2.0)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


# One update


class Updated(NamedTuple):
    before: sac.State
    after: sac.State
    metrics: dict[str, jax.Array]


def update_once(config: sac.Config, state: sac.State | None = None) -> Updated:
    agent = sac.make(config, unit_spec(), NUM_UPDATES)
    before = init(jax.random.key(0)) if state is None else state
    after, metrics = jax.jit(agent.update)(jax.random.key(9), before, a_batch())
    return Updated(before, after, metrics)


@pytest.fixture(scope="module")
def updated(state: sac.State) -> Updated:
    return update_once(CONFIG, state)


def test_one_update_changes_every_layer(updated: Updated) -> None:
    for name in ("actor_params", "critic_params", "target_critic_params", "log_temperature"):
        for old, new in zip(*(jax.tree.leaves(getattr(s, name)) for s in updated[:2]), strict=True):
            assert (np.asarray(old) != np.asarray(new)).any(), name
    for name, opt_state in updated.after.opt_states.items():
        assert optax.tree.get(opt_state, "count") == 1, name


def test_the_update_is_adam_on_each_loss_in_the_documented_order(updated: Updated) -> None:
    # an optimiser of our own, and the losses that are tested above; the actor sees the critic already moved
    before, after, batch = updated.before, updated.after, a_batch()
    target_key, actor_key = jax.random.split(jax.random.key(9))

    def adam_step(grad: Any, params: Any) -> Any:
        # Adam's first step: both moments are bias-corrected to the gradient and its square
        return jax.tree.map(lambda g, p: p - CONFIG.learning_rate * g / (jnp.abs(g) + 1e-8), grad, params)

    targets = critic_targets(target_key, before, NETWORKS, batch, CONFIG.discount)
    critic_gradient = jax.jit(jax.grad(lambda p: sac.critic_loss(p, NETWORKS.q_values, batch, targets)[0]))
    grad = critic_gradient(before.critic_params)
    critic_params = adam_step(grad, before.critic_params)
    grad, (log_prob, _) = actor_gradient(
        before.actor_params, actor_key, critic_params, CONFIG.temperature, NETWORKS, batch.obs
    )
    grad_temperature = -CONFIG.temperature * (np.mean(log_prob) - ACTION_DIM)
    expected = {
        "critic_params": critic_params,
        "actor_params": adam_step(grad, before.actor_params),
        "log_temperature": before.log_temperature - CONFIG.learning_rate * np.sign(grad_temperature),
    }
    for name, params in expected.items():
        # a step is 1e-3 long; where the gradient is tiny its sign is float noise, hence a share of the step
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=5e-5), getattr(after, name), params)
    # A first step tells little more than the gradient's sign. Adam's first moment, 0.1 of the gradient, tells all:
    # also whether the actor saw the critic before or after its step.
    moment = optax.tree.get(after.opt_states["actor"], "mu")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, 0.1 * b, rtol=1e-3, atol=2e-6), moment, grad)


def test_the_target_moves_to_the_new_critic_by_polyak(updated: Updated) -> None:
    # from the old critic it would differ by 0.1 of a step, 1e-4
    for old, critic, new in zip(
        *(jax.tree.leaves(p) for p in (
            updated.before.target_critic_params, updated.after.critic_params, updated.after.target_critic_params
        )),
        strict=True,
    ):  # fmt: skip
        np.testing.assert_allclose(new, 0.9 * np.asarray(old) + 0.1 * np.asarray(critic), atol=1e-6)


def test_metrics_are_finite_scalars_with_the_new_temperature(updated: Updated) -> None:
    assert set(updated.metrics) == {"critic_loss", "q_mean", "actor_loss", "entropy", "temperature"}
    for value in updated.metrics.values():
        assert value.shape == ()
        assert np.isfinite(value)
    np.testing.assert_allclose(updated.metrics["temperature"], np.exp(updated.after.log_temperature), rtol=1e-6)


@pytest.mark.parametrize(("target_entropy", "direction"), [(100.0, 1), (-100.0, -1)])
def test_learned_temperature_rises_where_entropy_is_short_and_falls_where_it_is_ample(
    target_entropy: float, direction: int
) -> None:
    before, after, _ = update_once(replace(CONFIG, target_entropy=target_entropy))
    assert np.sign(after.log_temperature - before.log_temperature) == direction


def test_fixed_temperature_stays_to_the_last_bit() -> None:
    before, after, metrics = update_once(replace(CONFIG, learn_temperature=False))
    np.testing.assert_array_equal(after.log_temperature, before.log_temperature)
    jax.tree.map(np.testing.assert_array_equal, after.opt_states["temperature"], before.opt_states["temperature"])
    np.testing.assert_allclose(metrics["temperature"], CONFIG.temperature, rtol=1e-6)


def test_target_entropy_is_minus_the_number_of_action_dimensions(updated: Updated) -> None:
    # Adam's first moment is 0.1 of the gradient, dJ/d log τ = τ (entropy − target)
    moment = optax.tree.get(updated.after.opt_states["temperature"], "mu")
    expected = 0.1 * CONFIG.temperature * (updated.metrics["entropy"] + ACTION_DIM)
    np.testing.assert_allclose(moment, expected, rtol=1e-4)


# Beginnings


def test_initial_states_differ_between_keys_and_between_critics() -> None:
    first, again, other = (init(jax.random.key(seed)) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    for name in ("actor_params", "critic_params"):
        paths = jax.tree_util.tree_leaves_with_path(getattr(first, name))
        for (path, x), y in zip(paths, jax.tree.leaves(getattr(other, name)), strict=True):
            if "kernel" in jax.tree_util.keystr(path):  # biases start at zero
                assert (np.asarray(x) != np.asarray(y)).all()
    for path, x in jax.tree_util.tree_leaves_with_path(first.critic_params):
        assert x.shape[0] == 2
        if "kernel" in jax.tree_util.keystr(path):
            assert (np.asarray(x[0]) != np.asarray(x[1])).all()


def test_actor_and_critic_begin_from_different_draws() -> None:
    state = init(jax.random.key(0))
    # the second layers are of one shape, 16 × 16: one key for both would make them alike
    actor, critic = (p["params"]["MLP_0"]["Dense_1"]["kernel"] for p in (state.actor_params, state.critic_params))
    assert (np.asarray(actor) != np.asarray(critic)).mean() > 0.99


def test_the_target_begins_as_the_critic_and_the_temperature_as_set() -> None:
    state = init(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, state.target_critic_params, state.critic_params)
    np.testing.assert_allclose(np.exp(state.log_temperature), CONFIG.temperature, rtol=1e-6)


def test_observations_of_any_rank_are_flattened() -> None:
    agent = sac.make(CONFIG, unit_spec((2, 3)), NUM_UPDATES)
    state = jax.jit(agent.init)(jax.random.key(0))
    batch = a_batch((2, 3))
    mean, _ = reference.policy(state.actor_params, np.asarray(batch.obs))
    act: Any = jax.jit(agent.act, static_argnames="deterministic")
    action, _ = act(jax.random.key(0), state, batch.obs, deterministic=True)
    np.testing.assert_allclose(action, np.tanh(mean), rtol=1e-4, atol=1e-5)
    alone, _ = act(jax.random.key(0), state, batch.obs[0], deterministic=True)
    np.testing.assert_allclose(alone, action[0], rtol=1e-5, atol=1e-6)
    _, metrics = jax.jit(agent.update)(jax.random.key(0), state, batch)
    assert np.isfinite(metrics["critic_loss"])


# Environments with known values

DISCOUNT = LEARNING["discount"]


def q_of(state: sac.State, obs: float, actions: np.ndarray) -> np.ndarray:
    """Both critics' values of these actions at one observation, [2, num_actions]."""
    return reference.q_values(state.critic_params, np.full((len(actions), 1), obs), actions[:, None])


ENDLESS = 1 / (1 - DISCOUNT)

PROBES: dict[str, tuple[Env, dict[float, float]]] = {
    "constant_reward": (constant_reward(), {0.0: 1.0}),
    "obs_reward": (obs_reward(), {-1.0: -1.0, 1.0: 1.0}),
    "two_steps": (two_steps(), {0.0: DISCOUNT, 1.0: 1.0}),
    # the three that tell time limits from terminals: 5; 2.95, 2.44, 1.8, 1; and 4, 5
    "steady_reward": (steady_reward(4), {0.0: ENDLESS}),
    "countdown": (countdown(4), {t / 4: sum(DISCOUNT**k for k in range(4 - t)) for t in range(4)}),
    "stopped_on_reward": (stopped_on_reward(), {0.0: DISCOUNT * ENDLESS, 1.0: ENDLESS}),
}
"""An environment, and the values of its observations."""


LOW_PRICE, HIGH_PRICE = LEARNING["temperature"], 0.02


@pytest.fixture(scope="module")
def learned() -> dict[str, list[sac.State]]:
    """What each seed has learned of every probe, and of one whose values depend on the action at two temperatures."""
    envs = {name: env for name, (env, _) in PROBES.items()}
    envs |= {"action_reward": action_reward(best=0.5), "entropy_reward": action_reward(best=0.5)}
    temperatures = [HIGH_PRICE if name == "entropy_reward" else LOW_PRICE for name in envs]
    # at an action that the policy has left two of 16 seeds are over 0.1 off with batches of 64, none with 256
    numbers = {"temperature": temperatures}
    states = solve_each("sac", list(envs.values()), numbers, runs_long=True, batch_size=256)
    return dict(zip(envs, states, strict=True))


@pytest.mark.parametrize("name", PROBES)
def test_learned_values_are_the_known_ones(name: str, learned: dict[str, list[sac.State]]) -> None:
    for state in learned[name]:
        for obs, value in PROBES[name][1].items():
            # at every action, also those that the policy has long left
            np.testing.assert_allclose(q_of(state, obs, np.linspace(-1, 1, 5)), value, atol=0.1)


def test_values_are_right_where_episodes_end_both_ways() -> None:
    # Truth 2.78. Time limits taken for terminals: 2.28; terminals for time limits: 5. Random ends make this
    # noisier than the others: 600 of 3000 steps end the task, give or take 22, which moves the value by 0.05.
    value = 1 / (1 - DISCOUNT * (1 - 0.2))
    settings = {"learning_rate": 1e-3, "batch_size": 256, "polyak": 0.95}
    for state in solve("sac", ends_both_ways(0.2, 5), runs_long=True, **settings):
        np.testing.assert_allclose(q_of(state, 0.0, np.linspace(-1, 1, 5)), value, atol=0.25)


def test_policy_finds_the_best_action_and_the_critic_the_rewards(learned: dict[str, list[sac.State]]) -> None:
    actions = np.linspace(-1, 1, 9)
    for state in learned["action_reward"]:
        np.testing.assert_allclose(q_of(state, 0.0, actions), np.tile(-((actions - 0.5) ** 2), (2, 1)), atol=0.1)
        mean, log_std = reference.policy(state.actor_params, np.zeros((1, 1)))
        assert np.tanh(mean) == pytest.approx(0.5, abs=0.05)
        assert np.exp(log_std) < 0.2


def test_entropy_has_its_price_in_the_learned_policy(learned: dict[str, list[sac.State]]) -> None:
    # For Q = −(a − ½)² the best soft policy is exp(Q/τ): a normal of variance τ/2 where the bounds are far.
    for state in learned["entropy_reward"]:
        noise = np.asarray(jax.random.normal(jax.random.key(0), (4000, 1)))
        action, _ = reference.sample(state.actor_params, np.zeros((4000, 1)), noise)
        assert action.mean() == pytest.approx(0.5, abs=0.05)
        assert action.std() == pytest.approx(np.sqrt(HIGH_PRICE / 2), rel=0.2)

"""PPO: a whole update against NumPy, and values and policies that are known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
from support.learning import solve, solve_each
from support.one_update import ACTION_DIM, CONTINUOUS, DISCOUNT, DISCRETE, a_batch, two_states
from support.probe_envs import action_reward, bang_bang, choice_ahead, stopped_on_reward
from support.reference import ppo as reference
from support.reference.soft_q import as_float64, leaves

from jaxsoft import make_train
from jaxsoft.agents import ppo
from jaxsoft.agents.minibatches import minibatch_indices
from jaxsoft.types import EnvSpec

LENGTH, NUM_ENVS, NUM_EPOCHS, NUM_MINIBATCHES = 7, 4, 2, 2
CONFIG = ppo.Config(
    learning_rate=0.01,
    discount=DISCOUNT,
    lambda_=0.8,
    clip_range=0.15,
    entropy_weight=0.3,
    value_weight=0.7,
    rollout_length=LENGTH,
    num_epochs=NUM_EPOCHS,
    num_minibatches=NUM_MINIBATCHES,
    normalise_obs=False,
    hidden_sizes=(5,),
)


@pytest.mark.parametrize(
    ("spec", "max_grad_norm"), [(CONTINUOUS, 1.5), (DISCRETE, 1.1)], ids=["continuous", "discrete"]
)
def test_an_update_is_that_of_numpy(spec: EnvSpec, max_grad_norm: float) -> None:
    rng, key = np.random.default_rng(2), jax.random.key(9)
    update, before, _ = two_states(ppo, replace(CONFIG, max_grad_norm=max_grad_norm), spec)
    # away from the start, where all means are about 0 and nothing but the last layer learns
    before = replace(before, params=jax.tree.map(lambda x: x + np.float32(rng.normal(0, 0.5, x.shape)), before.params))
    params = as_float64({"policy": before.params.policy, "value": before.params.value})
    batch = a_batch(spec, LENGTH, NUM_ENVS)
    assert batch.terminated.any()
    assert batch.truncated.any()
    drawn = batch.action
    if spec is CONTINUOUS:  # the first of two means is where tanh is 1 in float32
        offset = np.array([12, 0], np.float32)
        params["policy"]["params"]["mean"]["Dense_1"]["bias"] += offset
        before = replace(before, params=replace(before.params, policy=jax.tree.map(np.float32, params["policy"])))
        drawn = batch.action + offset
        batch = replace(batch, pre_tanh=drawn, action=np.tanh(drawn))
    old = reference.log_prob(params["policy"], batch.obs, drawn) + rng.normal(0, 0.2, (LENGTH, NUM_ENVS))
    batch = replace(batch, log_prob=old.astype(np.float32))
    after, metrics = update(key, before, batch)

    advantage = reference.advantages(params["value"], batch, DISCOUNT, CONFIG.lambda_)
    target = advantage + reference.value(params["value"], batch.obs)
    samples = [x.reshape(-1, *x.shape[2:]) for x in (batch.obs, drawn, batch.log_prob, advantage, target)]
    shuffle_key, entropy_key = jax.random.split(key)
    num_steps = NUM_EPOCHS * NUM_MINIBATCHES
    minibatches = np.asarray(minibatch_indices(shuffle_key, LENGTH * NUM_ENVS, NUM_EPOCHS, NUM_MINIBATCHES))
    adam, measured = reference.Adam(max_grad_norm, epsilon=1e-5), []
    for i, noise_key in enumerate(jax.random.split(entropy_key, num_steps)):
        minibatch = [x[minibatches[i]] for x in samples]
        shape = len(minibatches[i]), ACTION_DIM
        noise = None if spec is DISCRETE else np.asarray(jax.random.normal(noise_key, shape), np.float64)

        def losses(params: Any, minibatch: Any = minibatch, noise: Any = noise) -> dict[str, float]:
            return reference.losses(params, *minibatch, noise=noise, clip_range=CONFIG.clip_range)

        def loss(params: Any, losses: Any = losses) -> float:
            of = losses(params)
            return of["policy_loss"] + CONFIG.value_weight * of["value_loss"] - CONFIG.entropy_weight * of["entropy"]

        measured.append(losses(params))
        adam.step(params, loss, CONFIG.learning_rate * (1 - i / num_steps))  # a run of one update: it decays to 0

    for name in measured[0]:
        expected = np.mean([m[name] for m in measured])
        np.testing.assert_allclose(metrics[name], expected, rtol=1e-4, atol=1e-6, err_msg=name)
    for actual, expected in zip(jax.tree.leaves(after.params), leaves(params), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-4)
    # it was a test of everything: of clipping on both sides, of ratios and of gradients
    ratio = np.exp(reference.log_prob(as_float64(before.params.policy), samples[0], samples[1]) - samples[2])
    assert (ratio > 1 + CONFIG.clip_range).any()
    assert (ratio < 1 - CONFIG.clip_range).any()
    assert min(adam.norms) < max_grad_norm < max(adam.norms)


def test_the_first_policy_is_the_same_everywhere_and_as_wide_as_the_bounds() -> None:
    _, state, other = two_states(ppo, CONFIG, CONTINUOUS)
    obs = np.random.default_rng(0).normal(size=(50, 2))
    mean, std = reference.gaussian(state.params.policy, obs)
    np.testing.assert_allclose(mean, 0, atol=0.05)
    np.testing.assert_array_equal(std, 1)
    assert np.std(reference.value(state.params.value, obs)) > 0.1  # the value function's last layer is not small
    assert (mean != reference.gaussian(other.params.policy, obs)[0]).all()


def test_before_it_has_moved_the_policy_is_the_one_that_acted_also_where_tanh_rounds_to_the_bounds() -> None:
    config = replace(CONFIG, learning_rate=1e-9)
    update, state, _ = two_states(ppo, config, CONTINUOUS)
    wide = {**state.params.policy["params"], "log_std": np.full(ACTION_DIM, 2.0, np.float32)}
    state = replace(state, params=replace(state.params, policy={"params": wide}))
    batch = a_batch(CONTINUOUS, LENGTH, NUM_ENVS)
    explore = jax.jit(ppo.make(config, CONTINUOUS, 1).explore)
    chosen = explore(jax.random.key(1), state, batch.obs)
    assert (np.abs(chosen.action) > 1 - 1e-6).mean() > 0.2
    after, metrics = update(jax.random.key(2), state, replace(batch, **chosen._asdict()))
    assert metrics["clip_fraction"] == 0
    np.testing.assert_allclose(metrics["kl"], 0, atol=1e-6)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((after, metrics)))


# What it learns

LEARNING: dict[str, Any] = {
    "total_timesteps": 16_000,
    "num_envs": 4,
    "rollout_length": 20,
    "num_epochs": 4,
    "num_minibatches": 4,
    "learning_rate": 1e-2,
    "normalise_obs": False,
    "scale_rewards": False,
}
GAMMA, ENDLESS = 0.8, 1 / (1 - 0.8)


def test_values_and_policies_are_the_known_ones() -> None:
    stopped, rewarded = solve_each("ppo", [stopped_on_reward(), action_reward(best=0.5)], **LEARNING)
    for state in stopped:  # only ever by time limits
        learned = reference.value(state.params.value, np.array([[0.0], [1.0]]))
        np.testing.assert_allclose(learned, [GAMMA * ENDLESS, ENDLESS], atol=0.03)
    for state in rewarded:
        mean, std = reference.gaussian(state.params.policy, np.zeros((1, 1)))
        np.testing.assert_allclose(np.tanh(mean), 0.5, atol=0.05)
        assert std < 0.2


@pytest.mark.thorough
def test_where_the_best_actions_are_the_bounds_no_seed_fails() -> None:
    # A large step size that does not decay takes the means far out, where densities of actions that are ±1 would be
    # anything, and their ratios soon infinite.
    settings = {"num_envs": 16, "rollout_length": 64, "learning_rate": 3e-3, "decay_learning_rate": False}
    train = make_train("ppo", bang_bang(), total_timesteps=80 * 1024, eval_every=8 * 1024, **settings)
    _, metrics = jax.jit(jax.vmap(train))(jax.random.split(jax.random.key(0), 3))
    np.testing.assert_array_equal(metrics["failed_at"], 0)
    assert (np.max(metrics["eval_return"], axis=-1) > 0.99).all()


def test_the_policy_finds_the_best_of_discrete_actions() -> None:
    for state in solve("ppo", choice_ahead((0.5, 1.0, -1.0)), **LEARNING):
        obs = np.array([[0.0], [1.0]])
        assert reference.log_prob(state.params.policy, obs, np.array([0, 1]))[1] > np.log(0.97)
        np.testing.assert_allclose(reference.value(state.params.value, obs), [GAMMA, 1], atol=0.05)

"""Soft Q(λ) on rollouts and on replayed sequences: targets, losses and one whole update against NumPy."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.reference import soft_q as reference

from jaxsoft.agents import soft_q, soft_q_replay
from jaxsoft.agents.minibatches import minibatch_indices
from jaxsoft.nn.networks import DiscreteQFunction, Layers
from jaxsoft.ops.traces import TRACES
from jaxsoft.types import Agent, Discrete, EnvSpec, Transition

LENGTH, NUM_ENVS, OBS_DIM, NUM_ACTIONS, HIDDEN = 5, 4, 2, 3, (6,)
SPEC = EnvSpec("probe/spec", (OBS_DIM,), np.dtype(np.float32), Discrete(NUM_ACTIONS), 10)
NUMBERS: dict[str, Any] = {"discount": 0.9, "temperature": 0.3, "lambda_": 0.8}
SHARED: dict[str, Any] = NUMBERS | {
    "learning_rate": 0.01,
    "hidden_sizes": HIDDEN,
    "reference": "0,1,-1",
    "max_grad_norm": 1e6,
}
LOG_PRIOR = np.log(np.exp([0, 1, -1]) / np.exp([0, 1, -1]).sum())


def a_batch() -> dict[str, np.ndarray]:
    """Sequences in which episodes end in both ways, their true successors known, as the loop hands them over."""
    rng = np.random.default_rng(3)
    shape = LENGTH, NUM_ENVS
    numbered = np.arange(LENGTH * NUM_ENVS).reshape(shape)
    terminated, truncated = numbered % 7 == 4, numbered % 7 == 2
    obs, next_obs = rng.normal(size=(2, *shape, OBS_DIM))
    ended = (terminated | truncated)[:-1, :, None]
    next_obs[:-1] = np.where(ended, next_obs[:-1], obs[1:])
    return {
        "obs": obs.astype(np.float32),
        "action": rng.integers(NUM_ACTIONS, size=shape).astype(np.int32),
        "reward": rng.normal(size=shape).astype(np.float32),
        "next_obs": next_obs.astype(np.float32),
        "terminated": terminated,
        "truncated": truncated,
        "log_prob": np.log(rng.uniform(0.2, 0.9, shape)).astype(np.float32),
    }


def transition(batch: dict[str, np.ndarray]) -> Transition:
    return Transition(**{name: jnp.asarray(x) for name, x in batch.items()})


def assert_trees_close(actual: Any, expected: Any, rtol: float, atol: float) -> None:
    """Of JAX's leaves and NumPy's, both in order of their names."""
    for a, b in zip(jax.tree.leaves(actual), reference.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def distance(a: Any, b: Any) -> float:
    return float(
        np.sqrt(sum(np.sum((x - y) ** 2) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)))
    )


def jitted(agent: Agent) -> Agent:
    return agent._replace(init=jax.jit(agent.init), update=jax.jit(agent.update))


class Updated(NamedTuple):
    """An agent, whose functions are jitted, and one update on `a_batch`."""

    agent: Agent
    before: Any
    after: Any
    metrics: dict[str, jax.Array]


# Rollouts


@cache
def update_once(**settings: Any) -> Updated:
    one_step = {"num_epochs": 1, "num_minibatches": 1, "decay_learning_rate": False}
    given: dict[str, Any] = SHARED | {"rollout_length": LENGTH} | one_step | settings
    config = soft_q.Config(**given)
    agent = jitted(soft_q.make(config, SPEC, 10))
    before = agent.init(jax.random.key(0))
    after, metrics = agent.update(jax.random.key(1), before, transition(a_batch()))
    return Updated(agent, before, after, metrics)


def targets_of(params: Any, trace: str) -> np.ndarray:
    batch = a_batch()
    return reference.targets(reference.q_values(params, batch["next_obs"]), LOG_PRIOR, batch, trace=trace, **NUMBERS)


@pytest.mark.parametrize("trace", TRACES)
def test_one_gradient_step_on_the_whole_rollout_matches_numpy(trace: str) -> None:
    before, after, metrics = update_once(trace=trace)[1:]
    params, batch = reference.as_float64(before.policy.params), a_batch()
    targets = targets_of(params, trace)

    def loss(p: Any) -> float:
        return reference.loss(reference.q_values(p, batch["obs"]), batch["action"], targets)

    np.testing.assert_allclose(metrics["q_loss"], loss(params), rtol=1e-4)
    # RAdam begins without its denominator: the first step is the gradient, α long for each unit of it
    slopes = jax.tree.map(lambda new, old: (old - new) / 0.01, after.policy.params, before.policy.params)
    assert_trees_close(slopes, reference.gradient(loss, params), rtol=1e-3, atol=2e-4)
    q = reference.q_values(params, batch["obs"])
    taken = [q[i][batch["action"][i]] for i in np.ndindex(LENGTH, NUM_ENVS)]
    np.testing.assert_allclose(metrics["q_mean"], np.mean(taken), rtol=1e-4, atol=1e-6)


def test_a_reference_that_all_states_share_is_that_reference_in_every_state() -> None:
    def log_prior(obs: jax.Array) -> jax.Array:
        return jnp.broadcast_to(jnp.asarray(LOG_PRIOR, jnp.float32), (*obs.shape[:-1], NUM_ACTIONS))

    before, learned = update_once().before, []
    shared = jnp.asarray(LOG_PRIOR, jnp.float32)
    for given in (
        lambda obs: shared,
        log_prior,
        lambda obs: LOG_PRIOR,
        lambda obs: shared[None],
        lambda obs: shared[None, None],
    ):
        settings: dict[str, Any] = SHARED | {
            "reference": given,
            "target_kl": 0.1,
            "num_minibatches": 2,
            "decay_learning_rate": False,
        }
        agent = soft_q.make(soft_q.Config(**settings, rollout_length=LENGTH), SPEC, 10)
        learned.append(jax.jit(agent.update)(jax.random.key(1), before, transition(a_batch())))
    for other in learned[1:]:
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-7), learned[0], other)


def test_targets_are_those_of_the_parameters_before_all_epochs() -> None:
    # by hand, with an optimiser of our own over the agent's own order of samples
    settings: dict[str, Any] = SHARED | {"rollout_length": LENGTH, "num_epochs": 2, "num_minibatches": 2}
    config = soft_q.Config(**settings, trace="retrace", decay_learning_rate=False)
    agent = soft_q.make(config, SPEC, 10)
    before, key = update_once().before, jax.random.key(1)
    after, _ = jax.jit(agent.update)(key, before, transition(a_batch()))
    batch = a_batch()
    targets = jnp.asarray(targets_of(reference.as_float64(before.policy.params), "retrace"), jnp.float32).reshape(-1)
    obs, action = batch["obs"].reshape(-1, OBS_DIM), batch["action"].reshape(-1)
    network = DiscreteQFunction(NUM_ACTIONS, Layers(HIDDEN), (), 1)
    optimiser = optax.radam(0.01)

    @jax.jit
    def descend(params: Any, opt_state: Any, chosen: jax.Array) -> tuple[Any, Any]:
        def loss(p: Any) -> jax.Array:
            q: Any = network.apply(p, jnp.asarray(obs)[chosen])
            return 0.5 * jnp.mean((q[jnp.arange(len(chosen)), jnp.asarray(action)[chosen]] - targets[chosen]) ** 2)

        updates, opt_state = optimiser.update(jax.grad(loss)(params), opt_state)
        return optax.apply_updates(params, updates), opt_state

    params, opt_state = before.policy.params, optimiser.init(before.policy.params)
    for chosen in minibatch_indices(key, LENGTH * NUM_ENVS, 2, 2):
        params, opt_state = descend(params, opt_state, chosen)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), after.policy.params, params)


def test_long_gradients_are_shortened() -> None:
    before, after, _ = update_once(max_grad_norm=1e-3)[1:]
    moved = distance(after.policy.params, before.policy.params)
    np.testing.assert_allclose(moved, 0.01 * 1e-3, rtol=0.02)


@pytest.mark.parametrize(("decay", "expected"), [(True, [1, 0.75, 0.5, 0.25, 0, 0]), (False, [1] * 6)])
def test_the_step_size_falls_to_0_over_all_gradient_steps(decay: bool, expected: list[float]) -> None:
    # with a gradient of 1 momentum is 1, and RAdam's first five steps have no denominator
    config = soft_q.Config(learning_rate=0.5, num_epochs=2, num_minibatches=1, decay_learning_rate=decay)
    optimiser = soft_q.make_optimiser(config, num_updates=2)
    params, sizes = jnp.zeros(()), []
    state = optimiser.init(params)
    for _ in expected[:5]:
        updates, state = optimiser.update(jnp.ones(()), state)
        sizes.append(-np.asarray(updates) / 0.5)
    np.testing.assert_allclose(sizes, expected[:5], rtol=1e-5, atol=1e-7)


# Replayed sequences

REPLAY: dict[str, Any] = SHARED | {"sequence_length": LENGTH, "batch_size": NUM_ENVS, "polyak": 0.9}


@cache
def update_replay(num_critics: int, trace: str = "retrace", **settings: Any) -> Updated:
    config = soft_q_replay.Config(**(REPLAY | {"num_critics": num_critics, "trace": trace} | settings))
    agent = jitted(soft_q_replay.make(config, SPEC, 10))
    before = replace(agent.init(jax.random.key(0)), target_params=agent.init(jax.random.key(7)).policy.params)
    after, metrics = agent.update(jax.random.key(1), before, transition(a_batch()))
    return Updated(agent, before, after, metrics)


@pytest.mark.parametrize(
    ("num_critics", "trace"), [(1, "tree_backup"), (2, "retrace"), (2, "uncorrected"), (2, "watkins")]
)
def test_the_gradient_on_replayed_sequences_matches_numpy(num_critics: int, trace: str) -> None:
    before, after, metrics = update_replay(num_critics, trace)[1:]
    batch = a_batch()
    slow = [reference.member(reference.as_float64(before.target_params), i) for i in range(num_critics)]
    least = np.min([reference.q_values(params, batch["next_obs"]) for params in slow], axis=0)
    targets = reference.targets(least, LOG_PRIOR, batch, trace=trace, **NUMBERS)

    def loss(params: Any) -> float:
        members = [reference.member(params, i) for i in range(num_critics)]
        return sum(reference.loss(reference.q_values(p, batch["obs"]), batch["action"], targets) for p in members)

    params = reference.as_float64(before.policy.params)
    np.testing.assert_allclose(metrics["q_loss"], loss(params), rtol=1e-4)
    moment = jax.tree.map(
        lambda x: 10 * x, optax.tree.get(after.opt_state, "mu")
    )  # Adam's first is 0.1 of the gradient
    assert_trees_close(moment, reference.gradient(loss, params), rtol=1e-3, atol=2e-4)


def test_the_slow_copy_moves_to_the_new_parameters_by_polyak() -> None:
    before, after, _ = update_replay(2)[1:]
    jax.tree.map(
        lambda old, new, moved: np.testing.assert_allclose(moved, 0.9 * old + 0.1 * new, atol=1e-6),
        before.target_params,
        after.policy.params,
        after.target_params,
    )
    assert (
        distance(after.policy.params, before.policy.params) > 0.01
    )  # else new and old parameters could not be told apart


def test_twins_act_by_the_lesser_of_their_values() -> None:
    agent, _, state, _ = update_replay(2)
    obs = a_batch()["obs"]
    members = [reference.member(reference.as_float64(state.policy.params), i) for i in range(2)]
    q = np.min([reference.q_values(params, obs) for params in members], axis=0)
    weights = np.exp(LOG_PRIOR + q / NUMBERS["temperature"])
    expected = weights / weights.sum(-1, keepdims=True)
    assert agent.log_probs is not None
    np.testing.assert_allclose(np.exp(agent.log_probs(state, jnp.asarray(obs))), expected, rtol=1e-4, atol=1e-6)
    assert (np.argmax([reference.q_values(p, obs) for p in members], axis=-1) != q.argmax(-1)).any()


def test_the_slow_copy_begins_as_the_parameters_and_twins_begin_apart() -> None:
    state = update_replay(2).agent.init(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, state.target_params, state.policy.params)
    kernel = np.asarray(state.policy.params["params"]["Dense_0"]["kernel"])
    assert (kernel[0] != kernel[1]).all()


# Both


@pytest.mark.parametrize("update", [update_once, partial(update_replay, 2)])
def test_what_follows_a_terminal_step_has_no_effect(update: Any) -> None:
    agent, before, after, _ = update()
    batch = a_batch()
    batch["next_obs"] = np.where(batch["terminated"][..., None], np.float32(1e3), batch["next_obs"])
    other, _ = agent.update(jax.random.key(1), before, transition(batch))
    jax.tree.map(np.testing.assert_array_equal, other.policy.params, after.policy.params)


@pytest.mark.parametrize("update", [update_once, partial(update_replay, 2)])
def test_what_follows_a_time_limit_counts(update: Any) -> None:
    agent, before, after, _ = update()
    batch = a_batch()
    batch["next_obs"] = np.where(batch["truncated"][..., None], -batch["next_obs"], batch["next_obs"])
    other, _ = agent.update(jax.random.key(1), before, transition(batch))
    assert distance(other.policy.params, after.policy.params) > 1e-4

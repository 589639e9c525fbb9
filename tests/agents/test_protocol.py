"""What every agent promises: three pure functions of fixed shapes, one compilation, and seeds that do not mix."""

from __future__ import annotations

from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsoft.agents import AGENTS, get_agent
from jaxsoft.errors import InputError
from jaxsoft.random import fused
from jaxsoft.training import random_action
from jaxsoft.types import Agent, Box, Discrete, EnvSpec, Transition

BATCH_SIZE, OBS_SHAPE, ACTION_DIM = 8, (3,), 2

# LLVM's optimisations are half of the compile time, and these programs run for a moment
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


class Subject(NamedTuple):
    agent: Agent
    spec: EnvSpec
    batch: Transition


@pytest.fixture(scope="module", params=AGENTS)
def subject(request: pytest.FixtureRequest) -> Subject:
    module: ModuleType = AGENTS[request.param]
    ones = np.ones((ACTION_DIM,), np.float32)
    space = Box(-ones, ones) if module.ACTION_SPACE is Box else Discrete(4)
    spec = EnvSpec("probe/protocol", OBS_SHAPE, np.dtype(np.float32), space, 10)
    keys = jax.random.split(jax.random.key(1), 4)
    batch = Transition(
        obs=jax.random.normal(keys[0], (BATCH_SIZE, *OBS_SHAPE)),
        action=random_action(keys[1], space, BATCH_SIZE),
        reward=jax.random.normal(keys[2], (BATCH_SIZE,)),
        next_obs=jax.random.normal(keys[3], (BATCH_SIZE, *OBS_SHAPE)),
        terminated=jnp.arange(BATCH_SIZE) % 4 == 0,
    )
    agent: Agent = module.make(module.Config(hidden_sizes=(16, 16), batch_size=BATCH_SIZE), spec, 1)
    return Subject(agent._replace(init=jax.jit(agent.init)), spec, batch)  # op by op it takes seconds


@pytest.fixture
def key() -> jax.Array:
    return fused(jax.random.key(0))  # the same numbers, compiled in half the time


def assert_all_equal(actual: Any, expected: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def types_of(tree: Any) -> Any:
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)


def test_functions_are_pure(subject: Subject, key: jax.Array) -> None:
    agent, batch = subject.agent, subject.batch
    act, update = jit(agent.act), jit(agent.update)
    state = agent.init(key)
    assert_all_equal(agent.init(key), state)
    kept = jax.tree.map(np.array, (state, batch))
    assert_all_equal(act(key, state, batch.obs), act(key, state, batch.obs))
    assert_all_equal(update(key, state, batch), update(key, state, batch))
    assert_all_equal((state, batch), kept)


def test_jit_changes_nothing(subject: Subject, key: jax.Array) -> None:
    agent, batch = subject.agent, subject.batch
    state = agent.init(key)
    for jitted, plain in (
        (jit(agent.act)(key, state, batch.obs), agent.act(key, state, batch.obs)),
        (jit(agent.update)(key, state, batch), agent.update(key, state, batch)),
    ):
        # fusion reorders sums; Adam's first step is ±1e-3 or so whatever the gradient's size
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), jitted, plain)


@pytest.mark.parametrize("batch_shape", [(), (2, 3)])
@pytest.mark.parametrize("deterministic", [False, True])
def test_actions_have_the_batchs_shape_and_are_within_bounds(
    subject: Subject, key: jax.Array, batch_shape: tuple[int, ...], deterministic: bool
) -> None:
    agent, space = subject.agent, subject.spec.action_space
    obs = 100 * jax.random.normal(key, (*batch_shape, *OBS_SHAPE))  # far out, where a policy saturates
    action, log_prob = agent.act(key, agent.init(key), obs, deterministic=deterministic)
    assert action.shape == (*batch_shape, *space.shape)
    assert action.dtype == space.dtype
    assert log_prob.shape == batch_shape
    assert np.isfinite(log_prob).all()
    low, high = (space.low, space.high) if isinstance(space, Box) else (0, space.num_actions - 1)
    assert (np.asarray(action) >= low).all()
    assert (np.asarray(action) <= high).all()


def test_deterministic_actions_ignore_the_key_and_drawn_ones_do_not(subject: Subject) -> None:
    agent, keys = subject.agent, [fused(jax.random.key(seed)) for seed in range(2)]
    state, obs = agent.init(keys[0]), jnp.zeros((64, *OBS_SHAPE))
    modes, draws = ([agent.act(k, state, obs, deterministic=d)[0] for k in keys] for d in (True, False))
    np.testing.assert_array_equal(modes[0], modes[1])
    assert len(np.unique(modes[0], axis=0)) == 1  # one observation, one action
    assert (np.asarray(draws[0]) != np.asarray(draws[1])).any()
    assert len(np.unique(draws[0], axis=0)) > 1


def test_an_update_keeps_every_shape_and_dtype(subject: Subject, key: jax.Array) -> None:
    agent = subject.agent
    before = jax.eval_shape(agent.init, key)
    after, metrics = jax.eval_shape(agent.update, key, before, subject.batch)
    assert jax.tree.structure(after) == jax.tree.structure(before)
    assert types_of(after) == types_of(before)
    assert all(value.shape == () for value in metrics.values())


def test_updates_compile_once(subject: Subject, key: jax.Array) -> None:
    num_traces = {"act": 0, "update": 0}

    @jit
    def act(key: jax.Array, state: Any, obs: jax.Array) -> Any:
        num_traces["act"] += 1
        return subject.agent.act(key, state, obs)

    @jit
    def update(key: jax.Array, state: Any, batch: Transition) -> Any:
        num_traces["update"] += 1
        return subject.agent.update(key, state, batch)

    state = subject.agent.init(key)
    for i in range(4):
        state, _ = update(jax.random.fold_in(key, i), state, subject.batch)
        act(key, state, subject.batch.obs)
    assert num_traces == {"act": 1, "update": 1}


def test_metrics_and_parameters_stay_finite_and_the_loss_falls(subject: Subject, key: jax.Array) -> None:
    # on one batch that is seen over and over
    agent = subject.agent

    def step(state: Any, key: jax.Array) -> tuple[Any, Any]:
        return agent.update(key, state, subject.batch)

    state, metrics = jit(lambda s: jax.lax.scan(step, s, jax.random.split(key, 400)))(agent.init(key))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((state, metrics)))
    losses = np.asarray(metrics["critic_loss"])
    assert losses[-50:].mean() < 0.5 * losses[:10].mean()


def test_vmap_over_seeds_equals_a_loop(subject: Subject) -> None:
    agent, num_seeds = subject.agent, 2

    def learn(key: jax.Array) -> Any:
        init_key, act_key, update_key = jax.random.split(key, 3)
        state, metrics = jax.lax.scan(
            lambda state, key: agent.update(key, state, subject.batch),
            agent.init(init_key),
            jax.random.split(update_key, 3),
        )
        return state, metrics, agent.act(act_key, state, subject.batch.obs)

    keys = jax.random.split(fused(jax.random.key(3)), num_seeds)
    together, alone = jit(jax.vmap(learn))(keys), jit(learn)
    for seed in range(num_seeds):
        # a batched matrix product sums in another order than a single one
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
            jax.tree.map(lambda x, seed=seed: x[seed], together),
            alone(keys[seed]),
        )


def test_seeds_do_not_begin_alike(subject: Subject) -> None:
    each = [subject.agent.init(seed_key) for seed_key in jax.random.split(fused(jax.random.key(0)), 3)]
    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    kernels = [x for path, x in jax.tree_util.tree_leaves_with_path(states) if "kernel" in jax.tree_util.keystr(path)]
    learned = [x for x in kernels if np.any(x)]  # the optimisers' moments are zero
    assert learned
    for kernel in learned:
        assert len(np.unique(np.asarray(kernel).reshape(3, -1), axis=0)) == 3


def test_an_unknown_agent_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(InputError, match=r"unknown agent 'sacc'; did you mean sac\?"):
        get_agent("sacc")

"""The tests that every agent passes, for an agent of one's own: `check_agent(KIND)`.

Agents are pure functions of fixed shapes, compiled once, and seeds do not mix. `check_agent` runs all tests and tells
the first that fails; `AgentSuite` has them one by one for pytest:

    @pytest.fixture(scope="module", params=[Case(KIND, Discrete, {"batch_size": 8})])
    def subject(request): return make_subject(request.param)

    class TestMine(AgentSuite): ...
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal, jaxprs_in_params

from jaxsoft.random import fused
from jaxsoft.training.turns import random_action
from jaxsoft.types import Agent, AgentKind, Box, Discrete, EnvSpec, Experience, Rollouts, Transition, no_statistics

OBS_SHAPE, ACTION_DIM, NUM_ACTIONS = (3,), 2, 4


class Case(NamedTuple):
    """An agent to test.

    Attributes:
        kind: the agent.
        action_space: `Box` or `Discrete`, one of those that it acts in.
        settings: small ones, and those that make the most of it.
        has_density: whether its actions have log-probabilities; those of a deterministic policy have none.
    """

    kind: AgentKind
    action_space: type[Box] | type[Discrete]
    settings: Mapping[str, Any]
    has_density: bool = True

    def __str__(self) -> str:
        return f"{self.kind.name}-{self.action_space.__name__}"


class Subject(NamedTuple):
    """An agent, whose functions are jitted, and what it was made of."""

    case: Case
    agent: Agent
    plain: Agent
    spec: EnvSpec
    batch: Transition
    make: Callable[[Any], Agent]
    config: Any


def make_subject(case: Case) -> Subject:
    """Builds the agent of a case, by small networks where it has such settings."""
    ones = np.ones((ACTION_DIM,), np.float32)
    space = Box(-ones, ones) if case.action_space is Box else Discrete(NUM_ACTIONS)
    spec = EnvSpec("probe/protocol", OBS_SHAPE, np.dtype(np.float32), space, 10)
    hidden_sizes = (16, 16) if case.action_space is Box else (16,)
    small: dict[str, Any] = {"hidden_sizes": hidden_sizes, "normalise_obs": True, "discount": 0.9}
    known = {field.name for field in dataclasses.fields(case.kind.Config)}  # type: ignore[arg-type]
    config = case.kind.Config(**({name: small[name] for name in small if name in known} | dict(case.settings)))

    def make(config: Any) -> Agent:
        return case.kind.make(config, spec, 1000)

    plain = make(config)
    return Subject(case, jitted(plain), plain, spec, a_batch(spec, case.kind.experience(config)), make, config)


def jitted(agent: Agent) -> Agent:
    """Each function compiled once for all tests: op by op it would take seconds."""
    names = ["init", "update", "explore", "observe", *(["log_probs"] if agent.log_probs else [])]
    functions = {name: jax.jit(getattr(agent, name)) for name in names}
    act: Any = jax.jit(agent.act, static_argnames="deterministic")
    return agent._replace(act=act, **functions)


def a_batch(spec: EnvSpec, experience: Experience) -> Transition:
    """Random experience of an agent's kind, as its update takes it."""
    if isinstance(experience, Rollouts):
        shape = experience.length, 1 if experience.length == 1 else 3
    else:
        length, size = experience.sequence_length, experience.batch_size
        shape = (length, size) if length else (size,)
    has_order = len(shape) == 2
    keys = jax.random.split(jax.random.key(1), 5)
    numbered = jnp.arange(np.prod(shape)).reshape(shape)
    action = random_action(keys[1], spec.action_space, numbered.size).reshape(*shape, *spec.action_space.shape)
    return Transition(
        obs=jax.random.normal(keys[0], (*shape, *OBS_SHAPE)),
        action=action,
        reward=jax.random.normal(keys[2], shape),
        next_obs=jax.random.normal(keys[3], (*shape, *OBS_SHAPE)),
        terminated=numbered % 4 == 0,
        truncated=numbered % 4 == 2 if has_order else None,
        log_prob=jnp.log(jax.random.uniform(keys[4], shape, minval=0.2)) if has_order else None,
    )


def assert_all_equal(actual: Any, expected: Any) -> None:
    """Compares all leaves of two trees, to the bit."""
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def types_of(tree: Any) -> Any:
    """Shapes and dtypes of a tree's leaves."""
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)


def num_compiled(agent: Any) -> tuple[int, int]:
    """Programs that were compiled of acting and of updates."""
    return agent.act._cache_size(), agent.update._cache_size()


def equations(jaxpr: Any) -> Iterator[Any]:
    """All of a program's, those within its equations included."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from equations(inner)


def is_computed_float(x: Any) -> bool:
    """Whether a variable of a program is a floating-point number, and no constant."""
    return not isinstance(x, Literal) and jnp.issubdtype(x.aval.dtype, jnp.floating)


class AgentSuite:
    """The tests; each takes the fixture `subject`. Keys draw JAX's numbers, and compile in half the time."""

    def test_functions_are_pure(self, subject: Subject) -> None:
        key = fused(jax.random.key(0))
        agent, batch = subject.agent, subject.batch
        state = agent.init(key)
        assert_all_equal(agent.init(key), state)
        kept = jax.tree.map(np.array, (state, batch))
        for function in (agent.act, agent.explore):
            assert_all_equal(function(key, state, batch.obs), function(key, state, batch.obs))
        assert_all_equal(agent.update(key, state, batch), agent.update(key, state, batch))
        assert_all_equal(agent.observe(state, batch.obs), agent.observe(state, batch.obs))
        assert_all_equal((state, batch), kept)

    def test_jit_changes_nothing(self, subject: Subject) -> None:
        key = fused(jax.random.key(0))
        agent, plain, batch = subject.agent, subject.plain, subject.batch
        state = agent.init(key)
        compiled, op_by_op = agent.act(key, state, batch.obs), plain.act(key, state, batch.obs)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), compiled, op_by_op)

    def test_actions_have_the_batchs_shape_and_are_within_bounds(self, subject: Subject) -> None:
        agent, space, key = subject.agent, subject.spec.action_space, fused(jax.random.key(0))
        state, choices = agent.init(key), []
        for batch_shape in ((), (2, 3)):
            obs = 100 * jax.random.normal(key, (*batch_shape, *OBS_SHAPE))  # far out, where a policy saturates
            drawn, mode = (agent.act(key, state, obs, deterministic=x) for x in (False, True))
            choices += [(batch_shape, chosen) for chosen in (drawn, mode, agent.explore(key, state, obs))]
        for batch_shape, chosen in choices:
            action, log_prob, *_ = chosen
            assert action.shape == (*batch_shape, *space.shape)
            assert action.dtype == space.dtype
            assert (log_prob is not None) == subject.case.has_density
            assert log_prob is None or (log_prob.shape == batch_shape and np.isfinite(log_prob).all())
            low, high = (space.low, space.high) if isinstance(space, Box) else (0, space.num_actions - 1)
            assert (np.asarray(action) >= low).all()
            assert (np.asarray(action) <= high).all()

    def test_deterministic_actions_ignore_the_key_and_drawn_ones_do_not(self, subject: Subject) -> None:
        agent, keys = subject.agent, [fused(jax.random.key(seed)) for seed in range(2)]
        state, obs = agent.init(keys[0]), jnp.zeros((64, *OBS_SHAPE))
        modes, draws = ([agent.act(k, state, obs, deterministic=d)[0] for k in keys] for d in (True, False))
        if not subject.case.has_density:  # the policy draws nothing, only its exploration does
            np.testing.assert_array_equal(draws, modes)
            draws = [agent.explore(k, state, obs)[0] for k in keys]
        np.testing.assert_array_equal(modes[0], modes[1])
        assert len(np.unique(modes[0], axis=0)) == 1  # one observation, one action
        assert (np.asarray(draws[0]) != np.asarray(draws[1])).any()
        assert len(np.unique(draws[0], axis=0)) > 1

    def test_an_update_keeps_every_shape_and_dtype(self, subject: Subject) -> None:
        key = fused(jax.random.key(0))
        agent = subject.agent
        before = jax.eval_shape(agent.init, key)
        after, metrics = jax.eval_shape(agent.update, key, before, subject.batch)
        assert jax.tree.structure(after) == jax.tree.structure(before)
        assert types_of(after) == types_of(before)
        assert all(value.shape == () for value in metrics.values())
        assert set(metrics) == set(agent.metrics)

    def test_updates_compile_once_and_the_loss_falls(self, subject: Subject) -> None:
        key = fused(jax.random.key(0))
        # on one batch that is seen over and over
        agent, losses = subject.agent, []
        names = ("q_loss", "critic_loss", "value_loss", *agent.metrics)
        loss = next(name for name in names if name in agent.metrics)
        state, _ = agent.update(key, agent.init(key), subject.batch)
        agent.act(key, state, subject.batch.obs)
        num_programs = num_compiled(agent)
        for update_key in jax.random.split(key, 400):
            state, metrics = agent.update(update_key, state, subject.batch)
            losses.append(metrics[loss])
            assert all(np.isfinite(x) for x in metrics.values())
        agent.act(key, state, subject.batch.obs)
        assert num_compiled(agent) == num_programs
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(state))
        assert np.mean(losses[-50:]) < 0.5 * np.mean(losses[:10])

    def test_log_probs_are_those_of_the_learned_policy(self, subject: Subject) -> None:
        key = fused(jax.random.key(0))
        agent, space = subject.agent, subject.spec.action_space
        assert (agent.log_probs is None) == isinstance(space, Box)
        if agent.log_probs is None:
            return
        state = agent.update(key, agent.init(key), subject.batch)[0]
        for shape in ((), (2, 3)):
            obs = jax.random.normal(key, (*shape, *OBS_SHAPE))
            log_probs = np.asarray(agent.log_probs(state, obs), np.float64)
            assert log_probs.shape == (*shape, NUM_ACTIONS)
            np.testing.assert_allclose(np.exp(log_probs).sum(-1), 1, rtol=1e-5)
            for deterministic in (False, True):
                action, log_prob = agent.act(key, state, obs, deterministic=deterministic)
                taken = np.take_along_axis(log_probs, np.asarray(action)[..., None], -1)[..., 0]
                assert log_prob is not None
                np.testing.assert_allclose(log_prob, taken, rtol=1e-5, atol=1e-6)
                assert not deterministic or (taken == log_probs.max(-1)).all()

    def test_observing_changes_the_statistics_and_nothing_else(self, subject: Subject) -> None:
        key = fused(jax.random.key(0))
        agent = subject.agent
        state = agent.init(key)
        seen = 5 + 3 * jax.random.normal(key, (2, 50, *OBS_SHAPE))
        after = agent.observe(state, seen)
        assert types_of(after) == types_of(state)
        if subject.plain.observe is no_statistics:
            return
        changed = jax.tree.map(lambda a, b: bool((np.asarray(a) != np.asarray(b)).any()), after, state)
        paths = [jax.tree_util.keystr(path) for path, x in jax.tree_util.tree_leaves_with_path(changed) if x]
        assert paths
        assert all("obs_statistics" in path for path in paths)
        # acting and learning see observations through them; at first there are none, and all stays as it is
        x = jax.random.normal(key, (64, *OBS_SHAPE))
        mean, deviation = np.mean(seen, (0, 1)), np.std(seen, (0, 1))
        actual, expected = agent.act(key, after, x * deviation + mean), agent.act(key, state, x)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), actual, expected)
        batch = subject.batch
        raw = replace(batch, obs=batch.obs * deviation + mean, next_obs=batch.next_obs * deviation + mean)
        metrics, expected = agent.update(key, after, raw)[1], agent.update(key, state, batch)[1]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-4), metrics, expected)

    def test_vmap_over_seeds_and_all_floating_point_settings_equals_a_loop(self, subject: Subject) -> None:
        def update(config: Any, key: jax.Array, state: Any) -> Any:
            agent = subject.make(config)
            state, metrics = agent.update(key, state, subject.batch)
            return state, (metrics, agent.explore(key, state, subject.batch.obs))

        def init(config: Any, key: jax.Array) -> Any:
            return subject.make(config).init(key)

        def learn(init: Any, update: Any, config: Any, keys: jax.Array) -> Any:
            state, seen = init(config, keys[0]), None
            for key in keys:
                state, seen = update(config, key, state)
            return state, seen

        keys = jax.random.split(fused(jax.random.key(3)), (3, 2))
        configs = [jax.tree.map(lambda x, share=share: jnp.float32(share * x), subject.config) for share in (1.0, 0.9)]
        mapped = jax.jit(jax.vmap(init)), jax.jit(jax.vmap(update))
        together = learn(*mapped, jax.tree.map(lambda *x: jnp.stack(x), *configs), keys)
        plain = jax.jit(init), jax.jit(update)
        for i, config in enumerate(configs):
            # a batched matrix product sums in another order than a single one
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
                jax.tree.map(lambda x, i=i: x[i], together),
                learn(*plain, config, keys[:, i]),
            )

    def test_seeds_do_not_begin_alike(self, subject: Subject) -> None:
        each = [subject.agent.init(seed_key) for seed_key in jax.random.split(fused(jax.random.key(0)), 3)]
        states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
        leaves = jax.tree_util.tree_leaves_with_path(states)
        kernels = [x for path, x in leaves if "kernel" in jax.tree_util.keystr(path)]
        learned = [x for x in kernels if np.any(x)]  # the optimisers' moments are zero
        assert learned
        for kernel in learned:
            assert len(np.unique(np.asarray(kernel).reshape(3, -1), axis=0)) == 3

    def test_no_gradient_looks_for_equal_numbers(self, subject: Subject) -> None:
        """As those of `jnp.minimum`, `clip` and the like do: a fused program may round one of the two otherwise."""
        key = fused(jax.random.key(0))
        state = jax.eval_shape(subject.plain.init, key)
        jaxpr = jax.make_jaxpr(subject.plain.update)(key, state, subject.batch)
        compared = {
            str(equation)
            for equation in equations(jaxpr.jaxpr)
            if equation.primitive.name == "eq" and all(is_computed_float(x) for x in equation.invars)
        }
        assert not compared


def check_agent(kind: AgentKind, *, has_density: bool = True, **settings: Any) -> None:
    """Runs all tests of `AgentSuite` on an agent, in each kind of action space that it acts in; about a minute.

    Args:
        kind: the agent.
        has_density: whether its actions have log-probabilities.
        **settings: small ones, and those that make the most of it, for example `batch_size=8`.

    Raises:
        AssertionError: names the first test that fails.

    >>> from jaxsoft.agents import AGENTS
    >>> check_agent(AGENTS["soft_q_stream"], learning_rate=1.0)
    """
    for action_space in kind.action_spaces:
        subject, suite = make_subject(Case(kind, action_space, settings, has_density)), AgentSuite()
        for name in [name for name in vars(AgentSuite) if name.startswith("test_")]:
            try:
                getattr(suite, name)(subject)
            except Exception as error:
                message = f"{subject.case}: {name.removeprefix('test_').replace('_', ' ')}: {error or 'it is not so'}"
                raise AssertionError(message) from error

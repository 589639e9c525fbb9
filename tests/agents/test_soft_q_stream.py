"""Streaming Soft Q(λ): its step against NumPy, and with a table of values the tabular backward view."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.golden_cases import load
from support.reference import online
from support.reference import soft_q as reference

from jaxsoft.agents import soft_q_stream
from jaxsoft.ops.traces import TRACES
from jaxsoft.types import Discrete, EnvSpec, Metrics, Transition

OBS_DIM, NUM_ACTIONS = 3, 3
LOG_PRIOR = np.log(np.exp([0, 1, -1]) / np.exp([0, 1, -1]).sum())


def spec_of(obs_dim: int, num_actions: int) -> EnvSpec:
    return EnvSpec("probe/spec", (obs_dim,), np.dtype(np.float32), Discrete(num_actions), 10)


def learn(
    config: soft_q_stream.Config, spec: EnvSpec, state: Any, steps: Transition
) -> tuple[Any, tuple[Any, Metrics]]:
    """One update for each of `steps` [T, ...]; the last state, and every state and its metrics."""
    agent = soft_q_stream.make(config, spec, 1000)

    def update(state: Any, step: Transition) -> tuple[Any, tuple[Any, Metrics]]:
        state, metrics = agent.update(jax.random.key(0), state, jax.tree.map(lambda x: x[None, None], step))
        return state, (state, metrics)

    return jax.jit(lambda state, steps: jax.lax.scan(update, state, steps))(state, steps)


# Against NumPy


def some_steps(num_steps: int = 12) -> list[dict[str, Any]]:
    rng = np.random.default_rng(4)
    steps, obs = [], rng.normal(size=OBS_DIM)
    for t in range(num_steps):
        next_obs = rng.normal(size=OBS_DIM)
        step = {
            "obs": obs.astype(np.float32),
            "action": int(rng.integers(NUM_ACTIONS)),
            "reward": float(np.float32(3 * rng.normal())),
            "next_obs": next_obs.astype(np.float32),
            "terminated": t == 4,
            "truncated": t == 8,
            "log_prob": float(np.log(rng.uniform(0.2, 0.9))),
        }
        steps.append(step)
        obs = rng.normal(size=OBS_DIM) if t in (4, 8) else next_obs
    return steps


@pytest.mark.parametrize(
    ("trace", "overshoot_bound"), [("tree_backup", 0.0), ("retrace", 0.0), ("retrace", 0.5), ("retrace", 2.0)]
)
def test_parameters_trace_error_and_step_size_match_numpy(trace: Any, overshoot_bound: float) -> None:
    numbers: dict[str, Any] = {
        "discount": 0.9,
        "temperature": 0.3,
        "lambda_": 0.8,
        "learning_rate": 0.02 if overshoot_bound < 2 else 1.0,
        "overshoot_bound": overshoot_bound,
    }
    config = soft_q_stream.Config(
        **numbers, trace=trace, reference="0,1,-1", sparsity=0.3, hidden_sizes=(6,), normalise_obs=False
    )
    spec, steps = spec_of(OBS_DIM, NUM_ACTIONS), some_steps()
    state = jax.jit(soft_q_stream.make(config, spec, 1000).init)(jax.random.key(2))
    arrays = Transition(**{name: jnp.asarray(np.stack([step[name] for step in steps])) for name in steps[0]})
    _, (states, metrics) = learn(config, spec, state, arrays)
    history = reference.stream(state.policy.params, steps, LOG_PRIOR, trace=trace, **numbers)
    close = partial(np.testing.assert_allclose, rtol=2e-3, atol=2e-4)
    for t, expected in enumerate(history):
        close(np.sqrt(2 * metrics["q_loss"][t]), np.abs(expected["td_error"]))
        close(metrics["step_size"][t], expected["step_size"])
        for name, tree in (("params", states.policy.params), ("trace", states.trace)):
            for actual, x in zip(jax.tree.leaves(tree), expected[name], strict=True):
                close(actual[t], x)
    if overshoot_bound == 0.5:  # the bound holds at some steps and not at others
        sizes = np.asarray(metrics["step_size"])
        assert sizes.min() < 0.999 * numbers["learning_rate"]
        assert sizes.max() == np.float32(numbers["learning_rate"])


# Against the tabular backward view


def as_transitions(steps: list, mu: np.ndarray | None, num_states: int) -> Transition:
    s, a, r, next_s, terminated, truncated = (np.asarray(x) for x in zip(*steps, strict=True))
    return Transition(
        obs=jnp.eye(num_states)[s],
        action=jnp.asarray(a, jnp.int32),
        reward=jnp.asarray(r, float),
        next_obs=jnp.eye(num_states)[next_s],
        terminated=jnp.asarray(terminated, bool),
        truncated=jnp.asarray(truncated, bool),
        log_prob=jnp.zeros(len(s)) if mu is None else jnp.log(jnp.asarray(mu)),
    )


def table_after(
    steps: list, q: np.ndarray, log_prior: np.ndarray, mu: np.ndarray | None, trace: Any, **numbers: float
) -> np.ndarray:
    """Q after all steps, by the agent with a linear network of one-hot observations, in double precision."""
    config = soft_q_stream.Config(
        trace=trace,
        learning_rate=numbers["step_size"],
        discount=numbers["discount"],
        temperature=numbers["temperature"],
        lambda_=numbers["lambda_"],
        overshoot_bound=0.0,
        normalise_obs=False,
        hidden_sizes=(),
        reference=lambda obs: obs @ jnp.asarray(log_prior),
    )
    spec = spec_of(*q.shape)
    with jax.enable_x64(True):
        state = soft_q_stream.make(config, spec, 1000).init(jax.random.key(0))
        params = jax.tree.map(lambda x: jnp.asarray(q), state.policy.params)
        policy = replace(state.policy, params=params, log_temperature=jnp.log(numbers["temperature"]))
        state = replace(state, policy=policy, trace=jax.tree.map(jnp.zeros_like, params))
        (table,) = jax.tree.leaves(learn(config, spec, state, as_transitions(steps, mu, len(q)))[0].policy.params)
        assert table.dtype == np.float64
        return np.asarray(table)


def test_a_linear_network_of_one_hot_observations_is_the_golden_table() -> None:
    for case in load("online_traces"):
        ends = {kind: any(step[at] for step in case["steps"]) for kind, at in (("terminated", 4), ("truncated", 5))}
        assert ends["terminated"] or ends["truncated"]
        table = table_after(
            case["steps"],
            np.zeros((case["num_states"], case["num_actions"])),
            case["reference_log_probs"],
            None,
            "tree_backup",
            **{name: case[name] for name in ("discount", "temperature", "lambda_", "step_size")},
        )
        np.testing.assert_allclose(table, case["q_final"], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("trace", TRACES)
def test_a_linear_network_of_one_hot_observations_is_the_tabular_backward_view(trace: str) -> None:
    rng = np.random.default_rng(5)
    num_states, steps, state = 4, [], 0
    for _ in range(80):
        next_state, u = int(rng.integers(num_states)), rng.random()
        ended, stopped = bool(u < 0.1), bool(0.1 <= u < 0.2)
        steps.append((state, int(rng.integers(NUM_ACTIONS)), float(rng.normal()), next_state, ended, stopped))
        state = int(rng.integers(num_states)) if ended or stopped else next_state
    assert any(step[4] for step in steps)
    assert any(step[5] for step in steps)
    mu, q = rng.uniform(0.3, 1, 80), rng.normal(size=(num_states, NUM_ACTIONS))
    log_prior = np.log(rng.dirichlet(np.ones(NUM_ACTIONS), num_states))
    numbers = {"discount": 0.9, "temperature": 0.3, "lambda_": 0.8, "step_size": 0.2}
    table = table_after(steps, q, log_prior, mu, trace, **numbers)
    expected = online.soft_q_lambda(steps, mu, q, log_prior, trace=trace, **numbers)
    np.testing.assert_allclose(table, expected, rtol=1e-10, atol=1e-10)
    # the trace of the last episode is the only one left: resets matter here
    forgetful = [(*step[:4], step[4], False) for step in steps]
    without = online.soft_q_lambda(forgetful, mu, q, log_prior, trace=trace, **numbers)
    assert np.abs(without - expected).max() > 1e-3


def test_an_end_starts_a_new_trace_and_nothing_else_does() -> None:
    config = soft_q_stream.Config(hidden_sizes=(6,), sparsity=0.3, normalise_obs=False)
    spec, steps = spec_of(OBS_DIM, NUM_ACTIONS), some_steps()
    state = jax.jit(soft_q_stream.make(config, spec, 1000).init)(jax.random.key(2))
    assert not any(np.any(e) for e in jax.tree.leaves(state.trace))
    arrays = Transition(**{name: jnp.asarray(np.stack([step[name] for step in steps])) for name in steps[0]})
    _, (states, _) = learn(config, spec, state, arrays)
    assert [t for t, continues in enumerate(states.continues) if not continues] == [4, 8]

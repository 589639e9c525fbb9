from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsoft.envs import make_env
from jaxsoft.errors import InputError
from jaxsoft.ops import accumulate_trace, decay_trace, trace_coefficients
from jaxsoft.runs.config import RunConfig
from jaxsoft.runs.directory import create
from jaxsoft.training.config import TrainConfig, make_config, with_settings
from jaxsoft.training.loop import advance, init, make_loop

LOG_PI = jnp.log(jnp.array([0.5, 0.2, 0.0]))
LOG_MU = jnp.log(jnp.array([0.25, 0.8, 0.1]))
LOG_PI_MAX = jnp.log(jnp.array([0.5, 0.8, 0.9]))  # the first action is one of two greedy ones


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tree_backup", [0.5, 0.2, 0.0]),
        ("retrace", [1.0, 0.25, 0.0]),
        ("importance_sampling", [2.0, 0.25, 0.0]),
        ("uncorrected", [1.0, 1.0, 1.0]),
        ("watkins", [1.0, 0.0, 0.0]),
    ],
)
def test_the_five_coefficients(name, expected):
    np.testing.assert_allclose(trace_coefficients(name, LOG_PI, LOG_MU, LOG_PI_MAX), expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["tree_backup", "uncorrected"])
def test_two_need_no_behaviour(name):
    np.testing.assert_array_equal(trace_coefficients(name, LOG_PI), trace_coefficients(name, LOG_PI, LOG_MU))


@pytest.mark.parametrize("name", ["retrace", "importance_sampling"])
def test_two_refuse_to_guess_the_behaviour(name):
    with pytest.raises(InputError, match=rf"{name} needs the behaviour's log-probabilities"):
        trace_coefficients(name, LOG_PI)


def test_watkins_refuses_to_guess_which_action_is_greedy():
    with pytest.raises(InputError, match="watkins needs the greedy action's log-probability; log_pi_max is None"):
        trace_coefficients("watkins", LOG_PI, LOG_MU)


@pytest.mark.parametrize(("name", "meant"), [("retrase", "retrace"), ("tree-backup", "tree_backup")])
def test_an_unknown_coefficient_is_told_its_nearest(name, meant):
    with pytest.raises(InputError, match=rf"unknown trace coefficient '{name}'; did you mean {meant}\?"):
        trace_coefficients(name, LOG_PI, LOG_MU)


@pytest.mark.parametrize("name", ["tree_backup", "retrace", "importance_sampling"])
def test_an_action_of_probability_zero_has_a_finite_gradient(name):
    log_pi = jnp.array([-jnp.inf, -1.0])
    gradient = jax.grad(lambda x: trace_coefficients(name, x, jnp.array([-0.5, -0.5])).sum())(log_pi)
    assert jnp.isfinite(gradient).all()
    assert gradient[0] == 0


def test_a_trace_fades_and_accumulates_as_a_table():
    trace = decay_trace(jnp.array([1.0, 4.0]), 0.5, 0.5, jnp.float32(1.0))
    np.testing.assert_array_equal(accumulate_trace(trace, jnp.array([1.0, 0.0])), [1.25, 1.0])


def test_a_trace_fades_and_accumulates_as_parameters():
    params = {"kernel": jnp.ones((2, 3)), "bias": (jnp.ones(3), jnp.ones((), jnp.bfloat16))}
    trace = accumulate_trace(decay_trace(params, 0.5, 1.0, 0.5), params)
    assert jax.tree.structure(trace) == jax.tree.structure(params)
    for leaf, param in zip(jax.tree.leaves(trace), jax.tree.leaves(params), strict=True):
        assert leaf.dtype == param.dtype
        np.testing.assert_array_equal(leaf, jnp.full(param.shape, 1.25))


def test_a_coefficient_of_zero_starts_afresh():
    np.testing.assert_array_equal(decay_trace(jnp.ones(3), 0.9, 0.9, 0.0), jnp.zeros(3))


def test_refuses_a_decay_outside_its_range():
    with pytest.raises(InputError, match=r"lambda_ is 2; it must be between 0 and 1"):
        decay_trace(jnp.ones(3), 0.9, 2.0, 1.0)
    with pytest.raises(InputError, match=r"discount is -1; it must be between 0 and 1"):
        decay_trace(jnp.ones(3), -1.0, 0.5, 1.0)


def test_a_coefficient_may_be_a_function() -> None:
    log_pi, log_mu = jnp.log(jnp.array([0.2, 0.9])), jnp.log(jnp.array([0.5, 0.3]))

    def own(log_pi_a: jax.Array, log_mu_a: jax.Array | None) -> jax.Array:
        assert log_mu_a is not None
        return jnp.minimum(jnp.exp(log_pi_a - log_mu_a), 2.0)

    np.testing.assert_allclose(trace_coefficients(own, log_pi, log_mu), [0.4, 2.0], rtol=1e-6)
    np.testing.assert_allclose(trace_coefficients(lambda log_pi_a, _: log_pi_a, log_pi), log_pi)


def test_an_agent_takes_a_function_and_a_run_directory_does_not(tmp_path: Path) -> None:
    config = make_config("soft_q_stream", "finite/Chain-5", {"trace": lambda log_pi_a, log_mu_a: jnp.exp(log_pi_a)})
    named = make_config("soft_q_stream", "finite/Chain-5", {"trace": "tree_backup"})
    env, key = make_env("finite/Chain-5"), jax.random.key(0)

    def learned(config: TrainConfig) -> list[jax.Array]:
        loop = make_loop(env, with_settings(config, {"total_timesteps": 100, "hidden_sizes": (4,)}))
        return jax.tree.leaves(jax.jit(lambda key: advance(init(key, loop), 50, loop).agent_state.policy.params)(key))

    for own, theirs in zip(learned(config), learned(named), strict=True):
        np.testing.assert_array_equal(own, theirs)
    with pytest.raises(InputError, match="trace is a function, which a run directory cannot hold"):
        create(tmp_path / "run", RunConfig("finite/Chain-5", config))

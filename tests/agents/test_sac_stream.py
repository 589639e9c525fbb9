"""Streaming SAC: its step against NumPy, its views and gradients against sums, and the optimum that it reaches."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.learning import OPTIMISED, one_of
from support.one_update import UNIT_BOX
from support.probe_envs import UNIT_BOX as UNIT_INTERVAL
from support.probe_envs import countdown, steady_reward, stopped_on_reward
from support.reference import sac_stream as reference
from support.reference.soft_q import as_float64, leaves
from support.reference.tanh_normal import log_prob_of_pre_tanh

from jaxsoft.agents import sac_stream
from jaxsoft.envs.wrappers import time_limit
from jaxsoft.nn.distributions import TanhNormal
from jaxsoft.training.loop import make_train
from jaxsoft.types import Env, EnvSpec, Metrics, TimeStep, Transition, make_time_step

OBS_DIM = 2
SPEC = EnvSpec("probe/spec", (OBS_DIM,), np.dtype(np.float32), UNIT_BOX, 10)
SMALL: dict[str, Any] = {"sparsity": 0.3, "hidden_sizes": (5,), "normalise_obs": False}
NUMBERS: dict[str, Any] = {"discount": 0.9, "temperature": 0.3, "lambda_": 0.8}


def some_steps(num_steps: int = 10) -> list[dict[str, Any]]:
    """Steps of three episodes: the first ends, the second is stopped, the third goes on."""
    rng = np.random.default_rng(4)
    steps, obs = [], rng.normal(size=OBS_DIM).astype(np.float32)
    for t in range(num_steps):
        next_obs, pre_tanh = rng.normal(size=(2, OBS_DIM)).astype(np.float32)
        step = {"obs": obs, "action": np.tanh(pre_tanh), "reward": float(np.float32(3 * rng.normal()))}
        step |= {"next_obs": next_obs, "terminated": t == 3, "truncated": t == 6, "pre_tanh": pre_tanh}
        steps.append(step)
        obs = rng.normal(size=OBS_DIM).astype(np.float32) if t in (3, 6) else next_obs
    return steps


def stacked(steps: list[dict[str, Any]]) -> Transition:
    return Transition(**{name: jnp.asarray(np.stack([step[name] for step in steps])) for name in steps[0]})


@partial(jax.jit, static_argnames="keeps_params")
def learn(
    config: sac_stream.Config, state: sac_stream.State, steps: Transition, *, keeps_params: bool = False
) -> tuple[sac_stream.State, Metrics]:
    """The states after each of `steps` [T, ...], and the metrics; with `keeps_params` each step starts at the same."""
    agent = sac_stream.make(config, SPEC, 1000)

    def update(before: sac_stream.State, step: Transition) -> tuple[Any, tuple[Any, Metrics]]:
        after, metrics = agent.update(jax.random.key(0), before, jax.tree.map(lambda x: x[None, None], step))
        kept = {"actor_params": state.actor_params, "value_params": state.value_params} if keeps_params else {}
        return replace(after, **kept), (after, metrics)

    return jax.lax.scan(update, state, steps)[1]


@jax.jit
def first_state(config: sac_stream.Config) -> sac_stream.State:
    return sac_stream.make(config, SPEC, 1000).init(jax.random.key(2))


# Against NumPy


@pytest.mark.parametrize(("learning_rate", "bounds"), [(2e-3, (0.0, 0.0)), (2e-3, (15.0, 6.0)), (1.0, (2.0, 3.0))])
def test_parameters_traces_error_and_step_sizes_match_numpy(learning_rate: float, bounds: tuple[float, float]) -> None:
    sizes = dict(zip(("overshoot_bound", "actor_overshoot_bound"), bounds, strict=True))
    numbers = {**NUMBERS, "learning_rate": learning_rate, **sizes}
    config, steps = sac_stream.Config(**numbers, **SMALL), some_steps()
    state = first_state(config)
    states, metrics = learn(config, state, stacked(steps))
    history = reference.stream(state.actor_params, state.value_params, steps, **numbers)
    close = partial(np.testing.assert_allclose, rtol=2e-3, atol=2e-4)
    trees = (states.actor_params, states.value_params), (states.actor_trace, states.value_trace)
    for t, expected in enumerate(history):
        close(np.sqrt(2 * metrics["value_loss"][t]), np.abs(expected["td_error"]))
        close((metrics["actor_step_size"][t], metrics["step_size"][t]), expected["step_sizes"])
        for name, both in zip(("params", "traces"), trees, strict=True):
            for tree, arrays in zip(both, expected[name], strict=True):
                for actual, x in zip(jax.tree.leaves(tree), arrays, strict=True):
                    close(actual[t], x)
    if bounds[0] == 15:  # the bounds hold at some steps and not at others
        for name in ("actor_step_size", "step_size"):
            assert metrics[name].min() < 0.999 * learning_rate
            assert metrics[name].max() == np.float32(learning_rate)
    assert [t for t, continues in enumerate(states.continues) if not continues] == [3, 6]


def test_a_trace_is_of_no_effect_without_lambda_or_in_another_episode_and_otherwise_it_is() -> None:
    config = sac_stream.Config(**NUMBERS, **SMALL)
    first, steps = first_state(config), stacked(some_steps(1))

    def learned(lambda_: jax.Array, trace: jax.Array, continues: jax.Array) -> Any:
        actor_trace, value_trace = jax.tree.map(
            lambda x: jnp.full_like(x, trace), (first.actor_params, first.value_params)
        )
        state = replace(first, actor_trace=actor_trace, value_trace=value_trace, continues=continues)
        states, _ = learn(replace(config, lambda_=lambda_), state, steps)
        return states.actor_params, states.value_params

    cases = [
        (lambda_, trace, continues) for lambda_ in (0.0, 0.8) for continues in (False, True) for trace in (0.0, 1.0)
    ]
    params = jax.jit(jax.vmap(learned))(*(jnp.asarray(x) for x in zip(*cases, strict=True)))
    for network in params:
        of_all = np.concatenate([np.asarray(x).reshape(len(cases), -1) for x in jax.tree.leaves(network)], axis=1)
        for i in range(0, len(cases), 2):
            differs = np.abs(of_all[i] - of_all[i + 1]).max() > 1e-4
            assert differs == (cases[i][0] > 0 and cases[i][2]), cases[i]


def test_the_backward_view_is_the_forward_view_while_parameters_stay() -> None:
    """Σ_t δ_t e_t = Σ_t (G_t − V(s_t)) g_t in each episode, where G is the λ-return of the rewards r − τ log π."""
    with jax.enable_x64(True):
        config = sac_stream.Config(**NUMBERS, **SMALL, overshoot_bound=0.0, actor_overshoot_bound=0.0)
        state, steps = first_state(config), some_steps()
        state = jax.tree.map(lambda x: x.astype(np.float64) if x.dtype == np.float32 else x, state)
        states, _ = learn(config, state, stacked(steps), keeps_params=True)
        before, after = (jax.device_get((x.actor_params, x.value_params)) for x in (state, states))
    params = as_float64(before[0]), as_float64(before[1])
    for first, last in ((0, 4), (4, 7), (7, 10)):
        episode = steps[first:last]
        values = [float(reference.value(params[1], step["obs"])) for step in episode]
        beyond = 0.0 if episode[-1]["terminated"] else float(reference.value(params[1], episode[-1]["next_obs"]))
        log_probs = [reference.log_prob(params[0], step["obs"], step["pre_tanh"]) for step in episode]
        rewards = [step["reward"] - NUMBERS["temperature"] * x for step, x in zip(episode, log_probs, strict=True)]
        returns = reference.lambda_returns(rewards, values, beyond, NUMBERS["discount"], NUMBERS["lambda_"])
        each = [reference.gradients(*params, step) for step in episode]
        for i in range(2):
            moves = [
                np.sum((x - y)[first:last], axis=0) for x, y in zip(leaves(after[i]), leaves(before[i]), strict=True)
            ]
            for actual, *slopes in zip(moves, *(gradients[i] for gradients in each), strict=True):
                terms = [(g - v) * slope for g, v, slope in zip(returns, values, slopes, strict=True)]
                np.testing.assert_allclose(actual, np.sum(terms, axis=0), rtol=1e-5, atol=1e-7)


# The gradient of the soft return


def test_the_mean_step_of_the_actor_is_the_gradient_of_the_soft_return() -> None:
    """In one step J(θ) = E[r − τ log π]; the mean over all actions is an integral, and ∇J is a difference of two."""
    spec = replace(SPEC, action_space=UNIT_INTERVAL)
    config = sac_stream.Config(**NUMBERS, **SMALL, overshoot_bound=0.0, actor_overshoot_bound=0.0)
    nodes, obs = np.linspace(-9, 9, 361), np.array([0.5, -1.0])
    weights = np.exp(-0.5 * nodes**2) / np.exp(-0.5 * nodes**2).sum()
    with jax.enable_x64(True):
        agent = sac_stream.make(config, spec, 1)
        state = jax.jit(agent.init)(jax.random.key(2))
        state = jax.tree.map(lambda x: x.astype(np.float64) if x.dtype == np.float32 else x, state)
        params = as_float64(jax.device_get(state.actor_params))

        def soft_return(params: Any) -> float:
            mean, log_std = reference.policy(params, obs)
            pre_tanh = mean + np.exp(log_std) * nodes[:, None]
            log_probs = log_prob_of_pre_tanh(pre_tanh, mean, log_std)
            return float(weights @ (np.sin(3 * np.tanh(pre_tanh[:, 0])) - NUMBERS["temperature"] * log_probs))

        def step(pre_tanh: jax.Array) -> Any:
            one = partial(jnp.broadcast_to, shape=(1, 1))
            action, seen = jnp.tanh(pre_tanh)[None, None], jnp.asarray(obs)[None, None]
            ended, stopped = one(jnp.asarray(True)), one(jnp.asarray(False))
            reward = jnp.sin(3 * action[..., 0])
            batch = Transition(seen, action, reward, seen, ended, stopped, None, pre_tanh[None, None])
            after = agent.update(jax.random.key(0), state, batch)[0].actor_params
            return jax.tree.map(jnp.subtract, after, state.actor_params)

        mean, log_std = reference.policy(params, obs)
        steps = jax.device_get(jax.jit(jax.vmap(step))(jnp.asarray(mean + np.exp(log_std) * nodes[:, None])))
    expected = leaves(reference.gradient(soft_return, params))
    for actual, x in zip(leaves(steps), expected, strict=True):
        np.testing.assert_allclose(np.tensordot(weights, actual, 1), x, rtol=1e-5, atol=1e-7)
    assert max(np.abs(x).max() for x in expected) > 0.1


def test_the_temperature_descends_to_the_target_entropy() -> None:
    config = sac_stream.Config(**NUMBERS, **SMALL, target_entropy=-1.0, temperature_learning_rate=0.01)
    steps = some_steps(1)
    state = first_state(config)
    log_prob = reference.log_prob(as_float64(state.actor_params), steps[0]["obs"], steps[0]["pre_tanh"])
    for target, sign in ((-log_prob + 0.1, 1), (-log_prob - 0.1, -1)):  # less entropy than wanted: it is worth more
        states, metrics = learn(replace(config, target_entropy=target), state, stacked(steps))
        moved = states.log_temperature[0] - np.log(np.float32(0.3))
        np.testing.assert_allclose(moved, 0.01 * sign, rtol=1e-3)  # Adam's first step
        np.testing.assert_allclose(metrics["temperature"], np.exp(states.log_temperature))
        np.testing.assert_allclose(metrics["entropy"], -log_prob, rtol=1e-4)


# Values and policies that are known

DISCOUNT = 0.8
LEARNING: dict[str, Any] = {
    "total_timesteps": 40_000,
    "discount": DISCOUNT,
    "learning_rate": 1e-2,
    "overshoot_bound": 0.5,
    "actor_overshoot_bound": 0.5,
    "hidden_sizes": (16,),
    "sparsity": 0.0,
    "normalise_obs": False,
    "scale_rewards": False,
    "eval_every": 0,
}
ENDLESS = 1 / (1 - DISCOUNT)
FREE, PRICED = 1e-3, 0.5
MEAN, LOG_STD, OFFSET = 0.4, -0.7, 0.5


def two_bandits() -> Env:
    """One step at observation ±1, of the reward τ log p(a) + OFFSET, p the squashed normal of ±MEAN and LOG_STD.

    With the entropy at price τ the best policy is p, and its value OFFSET: every action has δ = 0.
    """

    def reset(key: jax.Array) -> tuple[Any, TimeStep]:
        sign = jax.random.rademacher(key, (), jnp.float32)
        return sign, make_time_step(sign[None])

    def step(key: jax.Array, sign: Any, action: jax.Array) -> tuple[Any, TimeStep]:
        log_prob = TanhNormal(MEAN * sign[None], jnp.full(1, LOG_STD)).log_prob(action)
        return sign, make_time_step(sign[None], PRICED * log_prob + OFFSET, terminated=True)

    return Env(EnvSpec("probe/two_bandits", (1,), np.dtype(np.float32), UNIT_INTERVAL, 1), reset, step)


PROBES: dict[str, tuple[Env, float, dict[float, float]]] = {
    "steady_reward": (steady_reward(4), FREE, {0.0: ENDLESS}),
    "countdown": (
        time_limit(countdown(4), 4),  # both at the same step: it is an end
        FREE,
        {t / 4: sum(DISCOUNT**k for k in range(4 - t)) for t in range(4)},
    ),
    "stopped_on_reward": (stopped_on_reward(), FREE, {0.0: DISCOUNT * ENDLESS, 1.0: ENDLESS}),
    "two_bandits": (two_bandits(), PRICED, {-1.0: OFFSET, 1.0: OFFSET}),
}
"""An environment, the price of entropy, and the values of observations."""


@cache
def learned() -> dict[str, list[sac_stream.State]]:
    """The states of two seeds in each probe, by one program."""
    envs, temperatures, _ = zip(*PROBES.values(), strict=True)

    def learn(which: jax.Array, temperature: jax.Array, key: jax.Array) -> Any:
        train = make_train("sac_stream", one_of(envs, which), temperature=temperature, **LEARNING)
        return train(key)[0].agent_state

    program = jax.jit(jax.vmap(jax.vmap(learn, (None, None, 0)), (0, 0, None)), compiler_options=OPTIMISED)
    keys = jax.random.split(jax.random.key(0), 2)
    states = jax.device_get(program(jnp.arange(len(envs)), jnp.asarray(temperatures), keys))
    return {
        name: [jax.tree.map(lambda x, e=e, s=s: x[e, s], states) for s in range(2)] for e, name in enumerate(PROBES)
    }


@pytest.mark.parametrize("probe", PROBES)
def test_learned_values_are_the_known_ones(probe: str) -> None:
    for obs, expected in PROBES[probe][2].items():
        actual = [reference.value(state.value_params, np.array([obs])) for state in learned()[probe]]
        np.testing.assert_allclose(actual, 2 * [expected], atol=0.06, err_msg=f"at observation {obs}")


def test_the_agent_reaches_the_soft_optimum() -> None:
    """An entropy that counts twice or not at all ends at other deviations."""
    for state in learned()["two_bandits"]:
        for sign in (-1.0, 1.0):
            mean, log_std = reference.policy(state.actor_params, np.array([sign]))
            np.testing.assert_allclose(mean, sign * MEAN, atol=0.05)
            np.testing.assert_allclose(log_std, LOG_STD, atol=0.08)

"""Steps of a stream, and stream Q(λ) with every step-size rule in NumPy, one step at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsoft.types import Discrete, EnvSpec, Transition
from support.reference.soft_q import as_float64, gradient, leaves, q_values

OBS_DIM, NUM_ACTIONS = 3, 3
SPEC = EnvSpec("probe/spec", (OBS_DIM,), np.dtype(np.float32), Discrete(NUM_ACTIONS), 10)
SMALL: dict[str, Any] = {"sparsity": 0.3, "hidden_sizes": (6,), "normalise_obs": False}
NUMBERS: dict[str, Any] = {"discount": 0.9, "lambda_": 0.8, "overshoot_bound": 0.5}
LEARNING_RATES = {"obgd": 0.02, "adaptive_obgd": 0.05, "intentional": 0.3, "adaptive_q": 0.02}
HARD: dict[str, Any] = {"temperature": 1e-6, "trace": "watkins"}


def some_steps(num_steps: int = 12) -> list[dict[str, Any]]:
    """Steps of three episodes: the first ends, the second is stopped; the last of all has a huge error."""
    rng = np.random.default_rng(4)
    steps, obs = [], rng.normal(size=OBS_DIM).astype(np.float32)
    for t in range(num_steps):
        next_obs = rng.normal(size=OBS_DIM).astype(np.float32)
        step = {"obs": obs, "action": int(rng.integers(NUM_ACTIONS)), "next_obs": next_obs}
        step |= {"reward": 100.0 if t == num_steps - 1 else float(np.float32(3 * rng.normal()))}
        steps.append(step | {"terminated": t == 4, "truncated": t == 8, "log_prob": -1.0})
        obs = rng.normal(size=OBS_DIM).astype(np.float32) if t in (4, 8) else next_obs
    return steps


def learn(module: Any, config: Any, steps: list[dict[str, Any]]) -> tuple[Any, list[np.ndarray], np.ndarray]:
    """The first parameters; all numbers of the parameters after each step [T, ...]; step sizes."""
    agent = module.make(config, SPEC, 1000)
    state = jax.jit(agent.init)(jax.random.key(2))
    batch = Transition(**{name: jnp.asarray(np.stack([step[name] for step in steps])) for name in steps[0]})

    def update(state: Any, step: Transition) -> tuple[Any, Any]:
        state, metrics = agent.update(jax.random.key(0), state, jax.tree.map(lambda x: x[None, None], step))
        return state, (state.policy.params, metrics["step_size"])

    params, sizes = jax.jit(lambda state: jax.lax.scan(update, state, batch))(state)[1]
    return as_float64(jax.device_get(state.policy.params)), jax.tree.leaves(params), np.asarray(sizes)


class RuleByHand:
    """The step-size rules in NumPy, each as its source has it; `move` gives every parameter's step."""

    def __init__(self, rule: str, shapes: list[np.ndarray], learning_rate: float, **numbers: float) -> None:
        self.rule, self.learning_rate, self.numbers, self.t = rule, learning_rate, numbers, 0
        self.v = [np.zeros_like(x) for x in shapes]
        self.sigma, self.errors = 0.0, 1.0

    def bounded(self, directions: list[np.ndarray], error: float) -> float:
        overshoot = max(abs(error), 1.0) * sum(np.abs(d).sum() for d in directions)
        overshoot *= self.learning_rate * self.numbers["overshoot_bound"]
        return self.learning_rate / overshoot if overshoot > 1 else self.learning_rate

    def move(self, g: list[np.ndarray], e: list[np.ndarray], error: float) -> tuple[list[np.ndarray], float]:
        self.t += 1
        fade = self.numbers["discount"] * self.numbers["lambda_"]
        if self.rule == "obgd":
            size = self.bounded(e, error)
            return [size * error * x for x in e], size
        if self.rule == "adaptive_obgd":
            self.v = [0.999 * v + 0.001 * (error * x) ** 2 for v, x in zip(self.v, e, strict=True)]
            d = [x / np.sqrt(v / (1 - 0.999**self.t) + 1e-8) for v, x in zip(self.v, e, strict=True)]
            size = self.bounded(d, error)
            return [size * error * x for x in d], size
        if self.rule == "adaptive_q":
            self.v = [fade * v + (1 - fade) * x**2 for v, x in zip(self.v, g, strict=True)]
            error = min(max(error, -1.0), 1.0)
            return [
                self.learning_rate * error * x / (np.sqrt(v) + 0.1) for v, x in zip(self.v, e, strict=True)
            ], self.learning_rate
        self.v = [0.999 * v + 0.001 * x**2 for v, x in zip(self.v, g, strict=True)]
        s = [np.sqrt(v / (1 - 0.999**self.t)) + 1e-8 for v in self.v]
        self.sigma += (1 - fade) * (sum((x**2 / y).sum() for x, y in zip(g, s, strict=True)) - self.sigma)
        length = sum((x**2 / y).sum() for x, y in zip(e, s, strict=True))
        size = self.learning_rate / np.sqrt(self.sigma / (1 - fade**self.t) * length)
        self.errors = 0.9998 * self.errors + 0.0002 * error**2
        most = 20 * np.sqrt(self.errors / (1 - 0.9998**self.t))
        error = min(max(error, -most), most)
        return [size * error * x / y for x, y in zip(e, s, strict=True)], size


def by_hand(
    rule: str, params: Any, steps: list[dict[str, Any]], learning_rate: float, *, late_cut: bool = False
) -> tuple[list[list[np.ndarray]], list[float]]:
    """Stream Q(λ) in NumPy: a hard maximum, Watkins's cut or the late one; parameters after each step, step sizes."""
    own = RuleByHand(rule, leaves(params), learning_rate, **NUMBERS)
    e, continues = [np.zeros_like(x) for x in leaves(params)], False
    history, sizes = [], []
    for step in steps:
        q, q_next = (q_values(params, step[name], 0.01) for name in ("obs", "next_obs"))
        error = step["reward"] + (0 if step["terminated"] else NUMBERS["discount"] * q_next.max()) - q[step["action"]]
        g = leaves(gradient(lambda p, step=step: float(q_values(p, step["obs"], 0.01)[step["action"]]), params))
        is_greedy = step["action"] == q.argmax()
        kept = continues and (is_greedy or late_cut)
        e = [NUMBERS["discount"] * NUMBERS["lambda_"] * kept * x + y for x, y in zip(e, g, strict=True)]
        moves, size = own.move(g, e, error)
        for x, move in zip(leaves(params), moves, strict=True):
            x += move
        continues = not (step["terminated"] or step["truncated"]) and (is_greedy or not late_cut)
        history.append([x.copy() for x in leaves(params)])
        sizes.append(size)
    return history, sizes


def assert_close(params: list[np.ndarray], sizes: np.ndarray, expected: Any) -> None:
    history, expected_sizes = expected
    np.testing.assert_allclose(sizes, expected_sizes, rtol=2e-3)
    for t, arrays in enumerate(history):
        for actual, x in zip(params, arrays, strict=True):
            np.testing.assert_allclose(actual[t], x, rtol=2e-3, atol=2e-4)


def learn_known_values(module: Any, config: Any) -> None:
    """Learns two steps to an end at which an action's reward is all that there is; actions at random."""
    rewards, steps, rng = (1.0, 0.5, -1.0), [], np.random.default_rng(0)
    first, second = np.array([1.0, 0, 0], np.float32), np.array([0, 1.0, 0], np.float32)
    for t in range(3000):
        action, ends = int(rng.integers(NUM_ACTIONS)), t % 2 == 1
        step = {"obs": second if ends else first, "action": action, "next_obs": second, "log_prob": -1.0}
        steps.append(step | {"reward": rewards[action] * ends, "terminated": ends, "truncated": False})
    config = replace(config, overshoot_bound=2.0, hidden_sizes=(16,), sparsity=0.0)
    _, params, _ = learn(module, config, steps)
    layers = {"params": {f"Dense_{i}": {"bias": params[2 * i][-1], "kernel": params[2 * i + 1][-1]} for i in (0, 1)}}
    np.testing.assert_allclose(q_values(layers, second, 0.01), rewards, atol=0.05)
    np.testing.assert_allclose(q_values(layers, first, 0.01), 0.9, atol=0.1)

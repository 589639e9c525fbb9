"""Step-size rules of streams: each against NumPy, what it promises, and the limit that is stream Q(λ)."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.reference.soft_q import as_float64, gradient, leaves, q_values

from jaxsoft.agents import soft_q_stream
from jaxsoft.types import Discrete, EnvSpec, Transition

OBS_DIM, NUM_ACTIONS = 3, 3
SPEC = EnvSpec("probe/spec", (OBS_DIM,), np.dtype(np.float32), Discrete(NUM_ACTIONS), 10)
SMALL: dict[str, Any] = {"sparsity": 0.3, "hidden_sizes": (6,), "normalise_obs": False}
NUMBERS: dict[str, Any] = {"discount": 0.9, "lambda_": 0.8, "overshoot_bound": 0.5}
LEARNING_RATES = {"obgd": 0.02, "adaptive_obgd": 0.05, "intentional": 0.3, "adaptive_q": 0.02}
HARD: dict[str, Any] = {"temperature": 1e-6, "trace": "watkins"}


@pytest.fixture
def rules(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, which stands in no package."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "experiments")
    return importlib.import_module("step_size_rules")


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


@pytest.mark.parametrize("rule", LEARNING_RATES)
def test_every_rule_matches_numpy(rule: str, rules: ModuleType) -> None:
    steps, learning_rate = some_steps(), LEARNING_RATES[rule]
    config = rules.Config(rule=rule, learning_rate=learning_rate, **NUMBERS, **HARD, **SMALL)
    first, params, sizes = learn(rules, config, steps)
    assert_close(params, sizes, by_hand(rule, first, steps, learning_rate))
    if "obgd" in rule:  # the bound holds at some steps and not at others
        assert sizes.min() < 0.999 * learning_rate
        assert sizes.max() == np.float32(learning_rate)


def test_the_own_rule_is_that_of_the_package(rules: ModuleType) -> None:
    steps, numbers = some_steps(), {"learning_rate": 0.02, "temperature": 0.3, **NUMBERS, **SMALL}
    _, params, sizes = learn(rules, rules.Config(**numbers), steps)
    _, expected, expected_sizes = learn(soft_q_stream, soft_q_stream.Config(**numbers), steps)
    for x, y in zip((*params, sizes), (*expected, expected_sizes), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-7)


def test_stream_q_is_a_setting_of_the_package_but_for_the_late_cut(rules: ModuleType) -> None:
    """At a temperature of 1e-6 the value is the maximum; `late_cut` without a coefficient is the other code's cut."""
    steps = some_steps()
    numbers = {"learning_rate": 0.02, **NUMBERS, **SMALL}
    first, params, sizes = learn(soft_q_stream, soft_q_stream.Config(**numbers, **HARD), steps)
    assert_close(params, sizes, by_hand("obgd", first, steps, 0.02))
    config = rules.Config(late_cut=True, **numbers, **HARD | {"trace": "uncorrected"})
    first, late, sizes = learn(rules, config, steps)
    assert_close(late, sizes, by_hand("obgd", first, steps, 0.02, late_cut=True))
    assert max(np.abs(x - y).max() for x, y in zip(params, late, strict=True)) > 1e-3


def test_an_intended_step_moves_a_linear_value_by_its_share_of_the_error(rules: ModuleType) -> None:
    steps, share = some_steps(), 0.3
    numbers = {**NUMBERS, "lambda_": 0.0, "hidden_sizes": (), "normalise_obs": False, "sparsity": 0.0}
    config = rules.Config(rule="intentional", learning_rate=share, **numbers, **HARD)
    first, (kernels,), _ = learn(rules, config, steps)
    before = [leaves(first)[0], *kernels[:-1]]
    for step, w, moved in zip(steps[:-1], before, kernels[:-1], strict=False):
        q, after = ((step["obs"] @ x)[step["action"]] for x in (w, moved))
        ahead = 0 if step["terminated"] else NUMBERS["discount"] * (step["next_obs"] @ w).max()
        np.testing.assert_allclose(after - q, share * (step["reward"] + ahead - q), rtol=1e-4)


def test_an_intended_step_bounds_errors_by_twenty_times_their_size(rules: ModuleType) -> None:
    one, number = {"w": jnp.ones(1)}, jnp.float32(1e6)
    for error, expected in ((1000.0, 20 * np.sqrt(0.9998 + 0.0002 * 1e6)), (-1000.0, -283.54), (20.0, 20.0)):
        step = rules.Step(one, one, jnp.float32(error), number)
        _, direction, _ = rules.intentional(rules.Config(), (one, jnp.ones(()), jnp.ones(())), step)
        np.testing.assert_allclose(direction["w"], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("rule", "learning_rate"), [("adaptive_obgd", 1.0), ("intentional", 0.25), ("adaptive_q", 3e-3)]
)
def test_every_rule_learns_values_that_are_known(rule: str, learning_rate: float, rules: ModuleType) -> None:
    """Two steps to an end at which an action's reward is all that there is; actions at random."""
    rewards, steps, rng = (1.0, 0.5, -1.0), [], np.random.default_rng(0)
    first, second = np.array([1.0, 0, 0], np.float32), np.array([0, 1.0, 0], np.float32)
    for t in range(3000):
        action, ends = int(rng.integers(NUM_ACTIONS)), t % 2 == 1
        step = {"obs": second if ends else first, "action": action, "next_obs": second, "log_prob": -1.0}
        steps.append(step | {"reward": rewards[action] * ends, "terminated": ends, "truncated": False})
    numbers = {**NUMBERS, "overshoot_bound": 2.0, **HARD, **SMALL, "hidden_sizes": (16,), "sparsity": 0.0}
    _, params, _ = learn(rules, rules.Config(rule=rule, learning_rate=learning_rate, **numbers), steps)
    layers = {"params": {f"Dense_{i}": {"bias": params[2 * i][-1], "kernel": params[2 * i + 1][-1]} for i in (0, 1)}}
    np.testing.assert_allclose(q_values(layers, second, 0.01), rewards, atol=0.05)
    np.testing.assert_allclose(q_values(layers, first, 0.01), 0.9, atol=0.1)


def test_the_words_of_the_page_have_the_numbers_of_its_tables(rules: ModuleType) -> None:
    streaming, curves = importlib.import_module("streaming"), importlib.import_module("curves")
    folder = Path(__file__).parents[2] / "experiments"
    measured = curves.read(folder / "streaming.csv")
    assert (folder / "streaming.md").read_text().startswith(streaming.answer(measured).strip())
    averages = {name: curves.average(curve) for name, curve in measured.items()}
    finals = {name: curves.final(curve) for name, curve in measured.items()}
    for kind in ("soft", "hard"):
        for other in ("ObGD", "AdaptiveObGD", "Adaptive Q"):
            for task in streaming.TASKS:
                for scores in (averages, finals):
                    assert scores[task, f"{kind}, Intentional"].high >= scores[task, f"{kind}, {other}"].low
        assert finals["Breakout", f"{kind}, Intentional"].low > finals["Breakout", f"{kind}, ObGD"].high
    for task in streaming.TASKS:
        for rule in streaming.RULES:
            soft, hard = (finals[task, f"{kind}, {rule}"] for kind in ("soft", "hard"))
            assert soft.low <= hard.high
            assert hard.low <= soft.high

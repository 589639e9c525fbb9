"""Step-size rules of streams beside the package's: each against NumPy, and the limit that is stream Q(λ)."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from support.streams import (
    HARD,
    LEARNING_RATES,
    NUMBERS,
    SMALL,
    assert_close,
    by_hand,
    learn,
    learn_known_values,
    some_steps,
)

from jaxsoft.agents import soft_q_stream


@pytest.fixture
def rules(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, which stands in no package."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "experiments")
    return importlib.import_module("step_size_rules")


@pytest.mark.parametrize("rule", LEARNING_RATES)
def test_every_rule_matches_numpy(rule: str, rules: ModuleType) -> None:
    steps, learning_rate = some_steps(), LEARNING_RATES[rule]
    config = rules.Config(step_size_rule=rule, learning_rate=learning_rate, **NUMBERS, **HARD, **SMALL)
    first, params, sizes = learn(rules, config, steps)
    assert_close(params, sizes, by_hand(rule, first, steps, learning_rate))
    if "obgd" in rule:  # the bound holds at some steps and not at others
        assert sizes.min() < 0.999 * learning_rate
        assert sizes.max() == np.float32(learning_rate)


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


@pytest.mark.parametrize(("rule", "learning_rate"), [("adaptive_obgd", 1.0), ("adaptive_q", 3e-3)])
def test_every_rule_learns_values_that_are_known(rule: str, learning_rate: float, rules: ModuleType) -> None:
    learn_known_values(
        rules, rules.Config(step_size_rule=rule, learning_rate=learning_rate, **NUMBERS, **HARD, **SMALL)
    )


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
    guide = " ".join((folder.parent / "docs" / "agents.md").read_text().split())
    acrobot = [f"{finals['Acrobot', f'soft, {label}'].point:.0f}".replace("-", "−") for label in ("ObGD", "constant")]
    breakout = [f"{finals['Breakout', f'soft, {rule}'].point:.1f}" for rule in ("Intentional", "ObGD")]
    assert "it ends at {} on Acrobot, with the default of 0.1 at {}".format(*acrobot) in guide
    assert "end at {} instead of {}".format(*breakout) in guide
    for task in streaming.TASKS:
        for rule in streaming.RULES:
            soft, hard = (finals[task, f"{kind}, {rule}"] for kind in ("soft", "hard"))
            assert soft.low <= hard.high
            assert hard.low <= soft.high
    kinds = {rule: [averages["Acrobot", f"{kind}, {rule}"] for kind in ("soft", "hard")] for rule in streaming.RULES}
    assert [rule for rule, (soft, hard) in kinds.items() if soft.high >= hard.low] == ["Adaptive Q"]
    early, hard = averages["CartPole", "soft, early fall"], averages["CartPole", "hard, ObGD"]
    assert early.high < hard.low

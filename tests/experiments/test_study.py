"""docs/soft_q_lambda.md is what its script makes of its words and of the committed numbers, and says what these say."""

import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"

SETTING = r"[λτεαQc] (?:=|>|<|≤) (?:[\d.]+, )*[\d.]+(?: (?:to|and) [\d.]+)?"
TYPED = (
    "95 %", "π0", "0 ≤ c", "sums to 1 at most", "0.2 × width", "where 1 is to", "c is 1", "< 1", "between 0 and 0.4",
    "between 0 and 0.5", "0.1 or less", "about 1 where", "returns up to 100", "8 sequences of 8", "optimum is 0.99",
)  # fmt: skip
"""Numbers that nobody measured, in the words that they stand in."""

ENDS = {"": "light", "_dark": "dark"}


@pytest.fixture(scope="module")
def study() -> Any:
    """The script, which stands in no package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXPERIMENTS)
        yield importlib.import_module("study")


@pytest.fixture(scope="module")
def numbers(study: Any) -> dict[str, Any]:
    return study.sources()


def test_the_page_is_what_the_script_makes(study: Any) -> None:
    assert study.PAGE.read_text() == study.make_page(), "run python experiments/study.py"


def test_no_measured_number_is_typed(study: Any) -> None:
    words = study.WORDS.read_text()
    for markup in (r"\{[^{}]*\}", r"`[^`]*`", r"^    .*$", r"\]\([^)]*\)", r"</?[a-z][^<>]*>", r"arXiv:[\d.]+"):
        words = re.sub(markup, "·", words, flags=re.MULTILINE)
    words = " ".join(words.split())
    for known in (SETTING, *map(re.escape, TYPED)):
        words = re.sub(known, "·", words)
    assert not re.findall(r".{0,40}\d.{0,40}", words)


def test_a_name_that_is_none_is_an_error_that_tells_the_nearest(numbers: dict[str, Any]) -> None:
    with pytest.raises(KeyError, match="did you mean"):
        "{deep[Acrobot; retrace; λ 0.8; τ 0.1]}".format(**numbers)


def test_the_verdicts_are_those_of_the_numbers(study: Any, numbers: dict[str, Any]) -> None:
    """What the page says in words."""
    deep, average, least, gain = (numbers[name] for name in ("deep", "deep_average", "least", "gain"))
    tables = study.deep_soft_q.TASKS

    def best(task: str, trace: str) -> Any:
        tau = {"CartPole": 1, "Acrobot": 0.1, "DeepSea": 0.1, "Breakout": 0.01}[task]
        return deep[f"{task}; {trace}; λ {0 if trace == 'one-step' else 0.9}; τ {tau:g}"]

    tried = {name: str(cell) for name, cell in numbers["convergence"].items() if name.count("; ") == 2}
    assert {name.partition(";")[0] for name, cell in tried.items() if "(" in cell} == {"uncorrected"}
    # when

    assert above(best("Acrobot", "retrace"), best("Acrobot", "one-step"))
    for task in ("CartPole", "DeepSea", "Breakout"):
        assert overlap(best(task, "retrace"), best(task, "one-step"))
    assert above(average["Breakout; retrace; λ 0.9; τ 0.01"], average["Breakout; one-step; λ 0; τ 0.01"])
    traces = [least[f"CliffWalking; on-policy; {trace}"] for trace in study.soft_q_lambda.TRACES]
    assert all(above(trace, least["CliffWalking; on-policy; one step"]) for trace in traces)
    assert min(traces) == least["CliffWalking; on-policy; tree_backup"]
    assert above(numbers["sac_average"]["Pendulum; λ = 0"], numbers["sac_average"]["Pendulum; λ = 1"])
    labels = ("λ = 0", "λ = 0.5", "λ = 0.9", "λ = 1")
    for task in ("Pendulum", "MountainCarContinuous"):
        finals = [numbers["sac"][f"{task}; {label}"] for label in labels]
        assert all(overlap(one, other) for one in finals for other in finals)
    cartpole = numbers["cartpole"]
    started, scaled = (
        [cartpole[f"{part}; α 0.003; λ {x}"] for x in ("0", "0.9")]
        for part in ("Q starts at 20", "scale_rewards, τ = 0.3")
    )
    assert overlap(*started)
    assert overlap(*scaled)
    small = {name: x for name, x in deep.items() if name.startswith("CartPole, small steps")}
    highest = max((name for name in small if "one-step" not in name), key=lambda name: small[name].point)
    assert highest == "CartPole, small steps; uncorrected; λ 1; τ 10"
    assert small["CartPole, small steps; one-step; λ 0; τ 1"].point > small[highest].point
    wide = [cartpole[f"layers of (128, 128), 200,000 steps; α 0.003; λ {x}"] for x in ("0", "0.9")]
    assert wide[0] == wide[1]
    # which coefficient
    for task in ("CartPole", "Acrobot", "DeepSea", "Breakout"):
        assert all(not above(best(task, trace), best(task, "retrace")) for trace in study.soft_q_lambda.TRACES)
    assert above(*(numbers["far_cartpole"][f"ε 0; {trace}"] for trace in ("retrace", "tree_backup")))

    assert above(best("CartPole", "retrace"), best("CartPole", "tree_backup"))
    assert above(best("Breakout", "tree_backup"), best("Breakout", "importance_sampling"))
    for trace in ("tree_backup", "uncorrected"):
        assert above(best("Breakout", trace), best("Breakout", "one-step"))
    warmer = {trace: deep[f"Breakout; {trace}; λ 0.9; τ 0.03"] for trace in study.soft_q_lambda.TRACES}
    assert [x for x in warmer if above(warmer[x], deep["Breakout; one-step; λ 0; τ 0.03"])] == ["uncorrected"]
    # temperature and reference
    for task, temperatures in ((name, task.temperatures) for name, task in tables.items() if "," not in name):
        for tau in temperatures:
            pair = deep[f"{task}; retrace; λ 0.9; τ {tau:g}"], deep[f"{task}; one-step; λ 0; τ {tau:g}"]
            assert pair[0].point > pair[1].point
    for task in study.reference_policies.TASKS[:2]:
        for tau in task.temperatures:
            bad, good = (gain[f"{task.name}; τ {tau:g}; {prior}; uniform; retrace"] for prior in ("bad", "good"))
            neutral = gain[f"{task.name}; τ {tau:g}; neutral; uniform; retrace"]
            assert above(bad, good)  # errors
            assert above(good, neutral) == ((task.name, tau) == ("MultiGoal-7x7", 0.2))
            assert gain[f"{task.name}; τ {tau:g}; bad; on-policy; retrace"] == (1, 1, 1)
    # watkins
    cut, kept = (numbers["far_cartpole"][f"ε 0.25; {trace}"] for trace in ("watkins", "retrace"))
    assert above(kept, cut)
    sharp = [cartpole[f"{trace}, ε-greedy; α 0.03; λ 0.9"] for trace in ("watkins", "retrace")]
    assert overlap(*sharp)
    assert above(cartpole["large steps; α 0.03; λ 0.9"], sharp[1])
    # how far
    fixed = numbers["fixed_early"]
    assert overlap(fixed["retrace; λ 1"], fixed["uncorrected; λ 1"])
    assert above(*(numbers["far_cartpole_gain"][f"ε 1; {trace}"] for trace in ("uncorrected", "retrace")))

    for share in study.off_policy.STRANGER:
        setting = f"Garnet-20x4x3; τ 0.1; neutral; {share:g}"
        assert gain[f"{setting}; uncorrected"].low > 1
        for trace in ("tree_backup", "watkins"):
            assert abs(gain[f"{setting}; {trace}"].point - gain[f"{setting}; retrace"].point) < 0.06
    assert overlap(
        *(gain[f"Garnet-20x4x3; τ {setting}; retrace"] for setting in ("0.1; neutral; 0.5", "1; neutral; 1"))
    )
    assert numbers["far_cartpole_gain"]["ε 1; retrace"].low < 0 < numbers["far_cartpole_gain"]["ε 1; uncorrected"].low


def test_the_page_on_off_policy_data_is_what_its_script_makes(study: Any) -> None:
    module, numbers = study.off_policy, study.read_numbers()
    rows = study.read_rows(module.ROWS, module.Row)
    assert module.ROWS.with_suffix(".md").read_text() == module.report(rows)
    for row in rows:
        if row.task == module.GARNET and row.trace in ("tree_backup", "retrace", "watkins"):
            assert row.num_diverged == 0
    for trace in ("importance_sampling", "uncorrected"):
        own = module.select(rows, task=module.GARNET, trace=trace, lambda_=0.9)
        settings = {(row.temperature, row.behaviour) for row in own}
        for temperature, behaviour in settings:
            some = module.select(own, temperature=temperature, behaviour=behaviour)
            assert sum(row.num_diverged for row in some) > sum(row.num_seeds for row in some) / 4
    near = [numbers["far_cartpole"][f"ε 0.25; {trace}"] for trace in ("retrace", "importance_sampling", "uncorrected")]
    assert all(overlap(one, other) for one in near for other in near)


def test_every_seed_of_the_other_networks_is_finite(study: Any) -> None:
    for stem in ("fixed_data", "multi_step_sac"):
        measured = importlib.import_module("curves").read(EXPERIMENTS / f"{stem}.csv")
        assert all(np.isfinite(curve.returns).all() for curve in measured.values())
    rows = study.read_rows(study.off_policy.ROWS, study.off_policy.Row)
    assert not any(row.num_diverged for row in rows if row.task == study.off_policy.CARTPOLE)


def test_figures_are_small_and_have_a_dark_version(study: Any) -> None:
    named = re.findall(r"\.\./experiments/(\w+\.png)#gh-(light|dark)-mode-only", study.WORDS.read_text())
    figures = [
        (f"study_{name}{end}.png", mode) for name in ("when", "temperature", "far") for end, mode in ENDS.items()
    ]
    assert named == figures
    for name, _ in figures:
        assert (EXPERIMENTS / name).stat().st_size < 100_000


def above(one: Any, other: Any) -> bool:
    return one.low > other.high


def overlap(one: Any, other: Any) -> bool:
    return one.low <= other.high and other.low <= one.high

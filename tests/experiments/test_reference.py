"""The reference results: pages say what the table says, every entry can be trained, and a budget loses nothing."""

from __future__ import annotations

import importlib
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxsoft.reports.statistics import iqm_interval

ROOT = Path(__file__).parents[2]


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of experiments/reference by its name."""
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"experiments.reference.{name}")


def test_every_number_of_the_pages_is_that_of_the_table(reference: Any) -> None:
    page, measured = reference("page"), reference("records").read()
    assert len(measured) > 1_000
    for file in page.PAGES:
        text = file.read_text()
        assert "<!-- reference:" in text
        assert page.filled(text, measured, file) == text, f"make reference writes {file.name}"


def test_what_the_page_says_of_single_seeds_is_in_the_table(reference: Any) -> None:
    measured = reference("records").read()

    def evaluations(agent: str, env: str, moment: str = "training") -> dict[int, list[float]]:
        found: dict[int, list[float]] = {}
        for row in measured:
            own = (row.agent, row.env, row.variant, row.moment, row.played_in, row.policy)
            if own == (agent, env, "", moment, env, "deterministic"):
                found.setdefault(row.timestep, []).append(row.mean_return)
        return dict(sorted(found.items()))

    stands = evaluations("ppo", "mjx/InvertedDoublePendulum-v5")
    low = {timestep: sum(x < 9_000 for x in returns) for timestep, returns in stands.items()}
    assert {round(x) for x in stands[100_352]} <= {9_327, 9_328}
    assert {x for t, x in low.items() if 100_352 < t < 510_000} == {0, 1, 2}
    assert low.pop(550_912) == 7
    assert {x for t, x in low.items() if t > 550_000} == {2, 3, 4, 5}
    (swims,) = evaluations("ppo", "mjx/Swimmer-v5", "final").values()
    assert sum(x > 100 for x in swims) == 2
    assert max(x for x in swims if x < 100) < 45
    (ends,) = evaluations("sac", "brax/inverted_pendulum", "final").values()
    fallen = [i for i, x in enumerate(ends) if x < 1_000]
    assert sorted(round(ends[i]) for i in fallen) == [278, 344, 383]
    assert all(evaluations("sac", "brax/inverted_pendulum")[24_000][i] == 1_000 for i in fallen)


def test_entries_have_settings_that_fit_and_names_of_their_own(reference: Any) -> None:
    tasks = reference("tasks")
    entries = tasks.ENTRIES
    assert len({entry.name for entry in entries}) == len(entries)
    for entry in entries:
        assert entry.config.num_seeds >= (5 if entry.variant == tasks.TWO_UPDATES else 8)
        assert entry.config.train.eval_every > 0
    assert {entry.group for entry in entries} < set(reference("page").PARTS)


def test_published_numbers_stand_beside_entries_and_name_their_source(reference: Any) -> None:
    published, tasks = reference("published"), reference("tasks")
    known = {(entry.agent, entry.env_id.partition("/")[2]) for entry in tasks.ENTRIES}
    for other in published.PUBLISHED:
        assert (other.agent, other.env) in known
        assert other.source in published.SOURCES
    assert {("sac", task) for task in published.CURVES} <= known


def never() -> bool:
    return False


def rows_of(reference: Any, entry: Any, returns: list[float]) -> list[Any]:
    row = reference("records").Row
    same = {"group": entry.group, "agent": entry.agent, "env": entry.env_id, "variant": entry.variant}
    how = {"moment": "final", "played_in": entry.env_id, "policy": "deterministic", "num_episodes": 3}
    machine = {"settings": entry.written_settings, "device": "x", "version": "0", "jax": "0"}
    return [row(seed=i, timestep=7, mean_return=x, **same, **how, **machine) for i, x in enumerate(returns)]


def test_a_failed_seed_counts_as_the_worst_and_is_named(reference: Any) -> None:
    page, entry = reference("page"), reference("tasks").CLASSIC[0]
    returns = [-math.inf, *range(7)]
    score = page.final(rows_of(reference, entry, returns), entry)
    assert (score.num_seeds, score.num_failed, score.timestep) == (8, 1, 7)
    assert score.interval == iqm_interval(np.array(returns))
    table = page.returns(rows_of(reference, entry, returns), "classic", "")
    assert "| 8, 1 failed | 7 |" in table[2]
    assert "−∞" in page.in_words(iqm_interval(np.array([-np.inf] * 3 + [1.0] * 5)))
    few = page.final(rows_of(reference, entry, [1.0, 2.0, 3.0]), entry)
    assert str(few) == "2.0 (1.0 – 3.0)"


def test_an_entry_whose_settings_have_changed_is_missing_until_its_rows_are_replaced(
    reference: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, records, entry = reference("page"), reference("records"), reference("tasks").CLASSIC[0]
    monkeypatch.setattr(records, "FILE", tmp_path / "results.parquet")
    other = reference("tasks").CLASSIC[1]
    records.add(rows_of(reference, other, [3.0] * 8))
    then = entry.written_settings.replace('"batch_size": 64', '"batch_size": 65')
    assert then != entry.written_settings
    records.add([row._replace(settings=then) for row in rows_of(reference, entry, [1.0] * 8)])
    assert page.names_of(records.read()) == {other.name}
    records.add(rows_of(reference, entry, [2.0] * 8))
    assert page.names_of(records.read()) == {entry.name, other.name}
    # rows of a version that lacks a setting are of its default
    earlier = json.loads(entry.written_settings)
    assert earlier["agent"].pop("activation") == "relu"
    rows = [row._replace(settings=json.dumps(earlier)) for row in rows_of(reference, entry, [2.0] * 8)]
    assert page.is_current(rows, entry)
    assert not page.is_current(rows, entry._replace(settings={"activation": "tanh"}))
    assert [row.mean_return for row in page.rows_of(records.read(), entry)] == [2.0] * 8


@pytest.mark.thorough
def test_an_entry_that_ran_out_of_time_goes_on_and_is_judged_once(reference: Any, tmp_path: Path, monkeypatch) -> None:
    records, tasks = reference("records"), reference("tasks")
    settings = {"total_timesteps": 3_000, "eval_every": 1_000, "learning_starts": 64, "eval_episodes": 2}
    entry = tasks.Entry("classic", "sac", "gymnax/Pendulum-v1", 2, settings, "short", both_ways=True)
    monkeypatch.setattr(records, "FILE", tmp_path / "results.parquet")
    monkeypatch.setattr(records, "NUM_EPISODES", 3)
    assert not records.train(entry, tmp_path, lambda: True)
    assert records.train(entry, tmp_path, never)
    records.add(list(records.judge(entry, tmp_path)))
    records.add(list(records.judge(entry, tmp_path)))  # does not add them twice
    rows = records.read()
    assert [row.timestep for row in rows if row.moment == "training"] == [1_000, 1_000, 2_000, 2_000, 3_000, 3_000]
    judged = [(row.policy, row.seed, row.timestep) for row in rows if row.moment == "final"]
    assert judged == [(policy, seed, 3_000) for policy in ("deterministic", "stochastic") for seed in (0, 1)]
    assert all(-2_000 < row.mean_return < 0 for row in rows)
    other = entry._replace(settings=settings | {"batch_size": 32})
    with pytest.raises(SystemExit, match="trained with other settings"):
        records.train(other, tmp_path, never)


def test_seeds_of_another_library_are_trained_once_and_killed_when_time_is_up(
    reference: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others, records, tasks = reference("others"), reference("records"), reference("tasks")
    entry = tasks.of_stable_baselines3("Hopper")._replace(num_seeds=3)
    script = tmp_path / "script.py"
    script.write_text(
        "import json, pathlib, sys, time\n"
        "told = json.loads(sys.argv[1])\n"
        "if told['seed'] == 2 and not pathlib.Path(sys.argv[2]).with_name('may').exists(): time.sleep(600)\n"
        "final = {'deterministic': told['seed'], 'stochastic': 0.0}\n"
        "found = {'arguments': told, 'training': [(told['eval_every'], 1.0)], 'final': final}\n"
        "pathlib.Path(sys.argv[2]).write_text(json.dumps(found))\n"
    )
    monkeypatch.setattr(others, "SCRIPT", script)
    monkeypatch.setattr(others, "install", lambda _: Path(sys.executable))
    assert records.train(entry._replace(num_seeds=2), tmp_path, never)
    written = tmp_path / entry.name / "seed_1.json"
    before = written.stat().st_mtime_ns
    stops = iter([False, False, True])
    assert not records.train(entry, tmp_path, lambda: next(stops))
    (tmp_path / entry.name / "may").touch()
    assert records.train(entry, tmp_path, never)
    assert written.stat().st_mtime_ns == before
    rows = list(records.judge(entry, tmp_path))
    assert [row.mean_return for row in rows if row.moment == "final" and row.policy == "deterministic"] == [0, 1, 2]
    score = reference("page").final(rows, entry, "gymnasium/Hopper-v5")
    assert (score.num_seeds, score.timestep) == (3, 200_000)
    with pytest.raises(SystemExit, match=r"seed_0.json was trained with other settings"):
        records.train(entry._replace(settings=entry.settings | {"batch_size": 64}), tmp_path, never)

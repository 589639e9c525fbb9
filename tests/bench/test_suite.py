"""The benchmark as a whole, on workloads that take a moment: ladders, notes, what is kept, files, ratios."""

from __future__ import annotations

import contextlib
import io
import json
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from support.processes import Shell

from jaxsoft.bench import cases, measure, suite
from jaxsoft.bench.cases import Case, replay_turns, returns_turns, training
from jaxsoft.bench.ceilings import Sizes
from jaxsoft.bench.clock import Effort, Spread, measure_rate
from jaxsoft.bench.compiled import turn_cost
from jaxsoft.bench.figures import draw_results
from jaxsoft.bench.measure import build, nearest_ceiling
from jaxsoft.bench.results import compare, read_results, write_results
from jaxsoft.bench.suite import Ladder
from jaxsoft.bench.tables import limits_table, ratios_table, speed_table
from jaxsoft.bench.workloads import WORKLOADS, Workload, find_workloads
from jaxsoft.cli import main
from jaxsoft.errors import InputError
from jaxsoft.fleet.memory import Capacity
from jaxsoft.training.config import make_config

MOMENT, SIZES = Effort(0.001, 3), Sizes(16, 4096)
RETURNS = Workload("returns", "a few returns", {"rollout_length": 8, "num_envs": 2}, (2, 1), returns_turns, "returns")
ENDLESS = {"total_timesteps": 10**6, "eval_every": 0}
STREAM = ENDLESS | {"agent": "soft_q_stream", "env": "finite/Chain-5", "hidden_sizes": (4,)}


def run_suite(*workloads: Workload, path: Path, members: Sequence[int] = (1, 2), **how: Any) -> dict[str, Any]:
    how |= {"members": members, "effort": MOMENT, "num_threads": 2, "sizes": SIZES}
    planned = suite.Suite(workloads, jax.devices()[:1], **how)
    return planned.run(lambda results: write_results(path, results), lambda name, row: None)


def row_of(results: Mapping[str, Any], name: str, members: int) -> dict[str, Any]:
    (workload,) = (one for one in results["workloads"] if one["name"] == name)
    (row,) = (row for row in workload["results"] if row["members"] == members)
    return row


def test_a_benchmark_writes_what_it_measured_and_draws_it(tmp_path: Path):
    path = tmp_path / "new" / "bench.json"
    settings = {"capacity": 64, "batch_size": 8, "obs_size": 3, "action_size": 1}
    replay = Workload("replay", "a small replay", settings, (1,), replay_turns, "transitions")
    stream = Workload("stream", "a small training", STREAM, (1,))
    results = run_suite(RETURNS, replay, stream, path=path)
    assert read_results(path) == json.loads(json.dumps(results, default=str))
    assert results["complete"]
    assert set(results["ceilings"]) == {"float32", "bfloat16", "copy", "kernels"}
    assert results["versions"]["jax"] == jax.__version__
    assert results["device"]["count"] == 1
    ceilings = {name: spread["median"] for name, spread in results["ceilings"].items()}
    for name, steps in (("returns", 2 * 8 * 2), ("replay", 2 * 8), ("stream", 2)):
        row = row_of(results, name, 2)
        rate, seconds, fractions = row["steps_per_second"], row["turn_seconds"], row["fractions"]
        assert 0 < rate["low"] <= rate["median"] <= rate["high"]
        assert rate["median"] * seconds == pytest.approx(steps)
        assert fractions["arithmetic"] * ceilings["float32"] * seconds == pytest.approx(row["flops"])
        assert fractions["bytes"] * ceilings["copy"] * seconds == pytest.approx(row["bytes"])
        assert fractions["kernels"] * ceilings["kernels"] * seconds == pytest.approx(row["kernels"])
        assert row["kernels"] > 0
        assert row["bytes"] > 0
        assert row["memory_bytes"] > 0
    trained = row_of(results, "stream", 2)
    assert trained["updates_per_second"] == trained["steps_per_second"]  # one update a step
    assert trained["flops"] > 0
    assert row_of(results, "returns", 2)["updates_per_second"] is None
    assert results["workloads"][2]["settings"]["learning_rate"] > 0  # all settings, also those that were left alone
    speed, limits = speed_table(results), limits_table(results)
    assert [row[:2] for row in speed.rows[:3]] == [("returns", "1"), ("", "2"), ("replay", "1")]
    assert len(speed.rows) == len(limits.rows) == 6
    assert len(speed.markdown().splitlines()) == 8
    picture = draw_results(tmp_path / "bench.png", results)
    assert 10_000 < picture.stat().st_size < 200_000
    for workload in results["workloads"]:
        del workload["results"][1:]  # no panel has more than a point
    smaller = draw_results(tmp_path / "one.png", results)
    assert 5_000 < smaller.stat().st_size < picture.stat().st_size


def failing(workload: Workload, at: int, error: BaseException) -> Workload:
    """The workload with an error at a number of members."""

    def make(settings: Mapping[str, Any], num_members: int, devices: Sequence[Any]) -> Case:
        if num_members >= at:
            raise error
        return workload.make(settings, num_members, devices)

    return workload._replace(make=make)


def test_where_memory_ends_a_ladder_ends_and_the_others_go_on(tmp_path: Path):
    full = RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 80 bytes.\nmore")
    small = failing(RETURNS._replace(name="small"), 2, full)
    broken = failing(RETURNS._replace(name="broken"), 1, TypeError("no such thing\nmore"))
    missing = failing(RETURNS._replace(name="missing"), 1, InputError("mjx needs a package"))
    results = run_suite(small, broken, missing, RETURNS, path=tmp_path / "bench.json", members=(4, 2, 1))
    entries = {entry["name"]: entry for entry in results["workloads"]}
    assert [row["members"] for row in entries["small"]["results"]] == [1]
    assert entries["small"]["notes"] == ["4 members: memory ends", "2 members: memory ends"]
    assert entries["broken"]["notes"] == ["4 members: TypeError: no such thing"]
    assert entries["missing"]["notes"] == ["4 members: mjx needs a package"]
    assert [entry["failed"] for entry in entries.values()] == [False, True, False, False]
    assert [row["members"] for row in entries["returns"]["results"]] == [1, 2, 4]


def test_programs_that_will_not_be_measured_are_not_compiled():
    ladder = Ladder(RETURNS, (1, 2, 4))
    ladder.programs = {number: Future() for number in (1, 2, 4)}
    two, four = ladder.programs[2], ladder.programs[4]
    ladder.programs.pop(1)
    ladder.fail(measure.OutOfMemory("memory ends"))  # at 1: none is left
    assert ladder.has_ended
    assert two.cancelled()
    assert four.cancelled()
    assert ladder.programs == {}


def test_members_that_cannot_fit_are_not_compiled(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(measure, "capacity_of", lambda devices: Capacity(1000))
    with pytest.raises(measure.OutOfMemory, match=r"^memory ends: \d+ B for each member, 80% of 1.0 kB"):
        build(RETURNS, 10, jax.devices()[:1])


def test_an_interrupted_benchmark_keeps_what_it_has(tmp_path: Path):
    path = tmp_path / "bench.json"
    with pytest.raises(KeyboardInterrupt):
        run_suite(failing(RETURNS, 2, KeyboardInterrupt()), path=path)
    results = read_results(path)
    assert not results["complete"]
    assert row_of(results, "returns", 1)["kernels"] > 0


def test_a_spent_budget_ends_a_benchmark(tmp_path: Path):
    results = run_suite(RETURNS, path=tmp_path / "bench.json", budget=0.001)
    assert not results["complete"]
    assert results["workloads"][0]["notes"] == ["1 members: time ends before"]


def test_a_program_that_is_compiled_for_long_holds_up_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    others_measured = threading.Event()

    def build_late(workload: Workload, num_members: int, devices: Sequence[Any]) -> measure.Built:
        if workload.name == "late":
            others_measured.wait(60)
        return build(workload, num_members, devices)

    one = Spread(1.0, 1.0, 1.0)
    ceilings = dict.fromkeys(("float32", "copy", "kernels"), one)
    monkeypatch.setattr(suite, "measure_ceilings", lambda *_: ceilings)
    monkeypatch.setattr(suite, "build", build_late)
    late = RETURNS._replace(name="late")
    how = {"members": (1,), "effort": MOMENT, "num_threads": 2, "budget": suite.RESERVE + 10}
    results = suite.Suite([late, RETURNS], jax.devices()[:1], **how).run(
        lambda results: None, lambda name, row: others_measured.set()
    )
    assert row_of(results, "returns", 1)["compiling_beside"] == 1
    assert row_of(results, "late", 1)["compiling_beside"] == 0
    assert results["complete"]


@pytest.mark.parametrize(("compiles_ahead", "built_before"), [(True, [1, 1, 2, 2]), (False, [1, 1])])
def test_programs_are_compiled_ahead_where_that_is_asked_for(
    compiles_ahead: bool, built_before: list[int], monkeypatch: pytest.MonkeyPatch
):
    built: list[int] = []

    def build_noted(workload: Workload, num_members: int, devices: Sequence[Any]) -> measure.Built:
        built.append(num_members)
        return build(workload, num_members, devices)

    ceilings = dict.fromkeys(("float32", "copy", "kernels"), Spread(1.0, 1.0, 1.0))
    monkeypatch.setattr(suite, "measure_ceilings", lambda *_: ceilings)
    monkeypatch.setattr(suite, "build", build_noted)
    before: list[list[int]] = []
    how = {"members": (1, 2), "effort": MOMENT, "num_threads": 2, "compiles_ahead": compiles_ahead}
    results = suite.Suite([RETURNS, RETURNS._replace(name="more")], jax.devices()[:1], **how).run(
        lambda results: None, lambda name, row: before.append(list(built))
    )
    assert before[0] == built_before
    assert [len(one["results"]) for one in results["workloads"]] == [2, 2]
    assert {row["compiling_beside"] for one in results["workloads"] for row in one["results"]} == {0}


def test_workloads_are_made_one_at_a_time_since_imports_mute_the_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    both = threading.Barrier(2)

    def make_muted(settings: Mapping[str, Any], num_members: int, devices: Sequence[Any]) -> Case:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.3)  # two at once would put back each other's output
        raise InputError("missing")

    first, second = (RETURNS._replace(name=name, make=make_muted) for name in ("first", "second"))
    results = run_suite(first, second, path=tmp_path / "bench.json", members=(1,))
    assert [entry["notes"] for entry in results["workloads"]] == [["1 members: missing"]] * 2
    assert both.broken
    print("still told")
    assert capsys.readouterr().out == "still told\n"


def climb(rates: Sequence[float]) -> Ladder:
    """A ladder that has had these rates."""
    ladder = Ladder(RETURNS)
    built: Any = type("Built", (), {"case": type("Case", (), {"settings": {}})})
    for rate in rates:
        ladder.add(built, {"members": ladder.members, "steps_per_second": {"median": rate}})
    return ladder


def test_a_ladder_climbs_while_throughput_rises():
    rising, level = climb([10.0, 30.0, 40.0]), climb([10.0, 30.0, 32.0])
    assert rising.members == 64
    assert level.has_ended
    assert [row["members"] for row in level.entry["results"]] == [1, 4, 16]
    assert level.entry["notes"] == ["16 members: throughput no longer rises"]


@pytest.mark.thorough
def test_blocks_of_members_count_like_as_many_programs(monkeypatch: pytest.MonkeyPatch):
    def count(num_members: int) -> np.ndarray:
        built = build(Workload("stream", "", STREAM, ()), num_members, jax.devices()[:1])
        cost = turn_cost(built.advance.as_text() or "")
        return np.array([cost.num_kernels, cost.num_bytes])

    one, two = count(1), count(2)
    monkeypatch.setattr(cases, "seeds_per_block", lambda need, device: 2)
    np.testing.assert_allclose(count(8), 4 * two, rtol=0.05)
    np.testing.assert_allclose(count(3), two + one, rtol=0.05)  # a block and a rest: no loop over blocks
    np.testing.assert_allclose(count(5), 2 * two + one, rtol=0.05)


def test_a_rate_is_that_of_long_enough_repeats():
    rounds, clock = [], [0.0]

    def call(num_rounds: int) -> None:
        rounds.append(num_rounds)
        clock[0] += 0.001 * num_rounds

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.perf_counter", lambda: clock[0])
        rate, num_rounds = measure_rate(call, Effort(0.5, 4))
    assert rate == pytest.approx((1000, 1000, 1000))
    assert rounds[-4:] == [num_rounds] * 4
    assert 350 <= num_rounds <= 501


def test_the_largest_share_binds_where_it_is_near():
    assert nearest_ceiling({"arithmetic": 0.2, "bytes": 0.6, "kernels": 0.5}) == "bytes"
    assert nearest_ceiling({"arithmetic": 0.2, "bytes": 0.1, "kernels": 0.3}) is None


def results_with(rates: Mapping[int, tuple[float, float, float]], **entry: Any) -> dict[str, Any]:
    rows = [
        {"members": members, "steps_per_second": Spread(*rate)._asdict(), "kernels": 100, "bytes": 2000}
        for members, rate in rates.items()
    ]
    workload = {"name": "returns", "settings": {}, "results": rows} | entry
    return {"device": {"name": "card"}, "workloads": [workload]}


def test_ratios_have_the_range_that_both_ranges_allow():
    before = results_with({1: (100, 90, 110), 4: (100, 90, 110), 16: (1, 1, 1)})
    after = results_with({1: (200, 180, 220), 4: (105, 95, 120), 64: (1, 1, 1)}, settings={"lambda_": 1})
    clear, blurred = compare(before, after)
    assert (clear.members, blurred.members) == (1, 4)
    assert clear.ratio == pytest.approx((2, 180 / 110, 220 / 90))
    assert blurred.ratio == pytest.approx((1.05, 95 / 110, 120 / 90))
    assert [one.is_clear for one in (clear, blurred)] == [True, False]
    remarks = [row[-1] for row in ratios_table([clear, blurred]).rows]
    assert remarks == ["other settings", "ranges overlap, other settings"]


def test_every_workload_is_made_for_one_member_without_compiling():
    for workload in WORKLOADS:
        settings = dict(workload.settings)
        env_id = settings.get("env", "")
        if env_id.startswith(("brax", "mjx")):  # which take seconds to make
            assert make_config(settings.pop("agent"), settings.pop("env"), settings).eval_every == 0
            continue
        case = workload.make(settings, 1, jax.devices()[:1])
        assert case.steps >= 1, workload.name
        assert case.need.total > 0, workload.name
        assert (case.updates > 0) == (workload.make is training), workload.name
    assert [one.name for one in find_workloads(["ppo", "sac-small"])] == ["sac-small", "ppo"]


def test_the_command_measures_shows_and_compares(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    command = "bench --quick --only lambda-returns --members 2 1 --out"
    assert Shell(JAX_NUM_CPU_DEVICES="2").run(*command.split(), str(first)) == (0, "")
    assert first.with_suffix(".png").is_file()
    results = read_results(first)
    assert [(row["members"], row["devices"]) for row in results["workloads"][0]["results"]] == [(1, 1), (2, 2)]
    assert main(["bench", "--show", str(first)]) == 0
    assert "products, float32" in capsys.readouterr().out
    for row in results["workloads"][0]["results"]:
        row["steps_per_second"] = Spread(**row["steps_per_second"]).times(2)._asdict()
    write_results(second, results)
    assert main(["bench", "--compare", str(first), str(second)]) == 0
    assert " 2.00 " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--only", "sac-smal"], "no workload 'sac-smal'; did you mean sac-small?"),
        (["--members", "0"], "members is 0; it must be positive integers"),
        (["--budget", "5"], "budget is 5; it must be at least 30 seconds"),
        (["--out", "bench.txt"], "out is 'bench.txt'; it must be a .json file"),
        (["--show", "nothing.json"], "nothing.json is missing"),
        (["--show", "other.json"], "other.json has the schema 'other'; it must be 'jaxsoft-bench/1'"),
        (["--show", "text.json"], "text.json holds no results of jaxsoft bench: it is not JSON, or no object"),
        (["--show", "empty.json"], "empty.json holds no results of jaxsoft bench: date, "),
        (["--show", "hollow.json"], "hollow.json holds no results of jaxsoft bench: KeyError in"),
        (["--show", "deep.json"], "deep.json holds no results of jaxsoft bench: it is not JSON, or no object"),
        (["--compare", "hollow.json", "hollow.json"], "hollow.json or hollow.json holds no results of jaxsoft bench: "),
    ],
)
def test_wrong_input_is_told_in_one_line(
    arguments: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.json").write_text('{"schema": "other"}')
    (tmp_path / "text.json").write_text("[1]")
    (tmp_path / "empty.json").write_text('{"schema": "jaxsoft-bench/1"}')
    hollow = {"schema": "jaxsoft-bench/1", "ceilings": {"copy": {}}, "workloads": [{}]}
    hollow |= {"date": "2026", "device": {}, "versions": {}, "how": {}}
    (tmp_path / "hollow.json").write_text(json.dumps(hollow))
    (tmp_path / "deep.json").write_text("[" * 100_000)
    assert main(["bench", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"jaxsoft: error: {told}")
    assert error.count("\n") == 1

"""Sweeps as runs: each cell is a run of its own, whole or interrupted, and bad cells harm no other."""

from __future__ import annotations

import dataclasses
import io
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import jax
import numpy as np
import pytest
from support.probe_envs import UNIT_BOX, ends_both_ways
from support.run_numbers import assert_same

from jaxsoft.agents import AGENTS
from jaxsoft.cli.console import PlainConsole, print_line
from jaxsoft.cli.reports import cells_header, cells_line, cells_table, failure_lines, seeds_table
from jaxsoft.fleet import programs
from jaxsoft.fleet.grid import (
    cells_of,
    check_grid,
    value_in_words,
)
from jaxsoft.fleet.hosts import ALONE
from jaxsoft.fleet.programs import Program
from jaxsoft.reports.statistics import iqm_interval
from jaxsoft.runs import config as config_file
from jaxsoft.runs import directory, results, tables
from jaxsoft.runs.config import RunConfig
from jaxsoft.runs.driver import Interrupted, train_run
from jaxsoft.runs.evaluation import Evaluation
from jaxsoft.runs.plan import Plan, plan_run
from jaxsoft.training.config import make_config
from jaxsoft.types import Box, Discrete, Env


class Subject(NamedTuple):
    """A small sweep of two programs, these, and the directory of it that nothing interrupted."""

    config: RunConfig
    env: Env
    programs: list[Program]
    whole: Path


SMALL: dict[str, Any] = {
    "total_timesteps": 96,
    "eval_every": 32,
    "eval_episodes": 2,
    "learning_rate": 1e-2,
}
GRID = {"temperature": (0.1, 0.5, 0.2), "hidden_sizes": ((4,), (6,)), "discount": (0.9,)}


def small_config(grid: dict[str, tuple[Any, ...]], **settings: Any) -> RunConfig:
    train = make_config("soft_q_stream", "probe/ends_both_ways", SMALL | settings)
    return RunConfig(
        *("probe/ends_both_ways", train, 3),
        num_seeds=2,
        seeds_per_chunk=3,  # a chunk ends in the middle of a cell
        checkpoint_every=50,
        sweep=grid,
    )


def train(subject: Subject, path: Path, **options: Any) -> Path:
    if not (path / config_file.CONFIG).exists():
        directory.create(path, subject.config)
    plan = Plan(subject.config, subject.env, [], [], [], ALONE)
    list(train_run(path, plan, subject.programs, **options))
    return path


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    config, env = small_config(GRID), ends_both_ways(0.2, 5, Discrete(3))
    made = plan_run(config, env, config.train).programs()
    prepared = Subject(config, env, made, tmp_path_factory.mktemp("runs") / "whole")
    train(prepared, prepared.whole)
    return prepared


def of_cell(path: Path, number: int) -> dict[str, np.ndarray]:
    """The metrics of one cell."""
    table = tables.read_metrics(path)
    if tables.CELL in table.column_names:
        table = table.filter(table[tables.CELL].to_numpy() == number)
    names = [name for name in table.column_names if "." not in name and name not in ("cell", "steps_per_second")]
    return {name: table[name].to_numpy() for name in names}


def test_the_table_tells_settings(subject: Subject) -> None:
    table = tables.read_metrics(subject.whole)
    assert table.column_names[:5] == ["cell", "agent.temperature", "agent.hidden_sizes", "agent.discount", "seed"]
    first = table.slice(0, 12).to_pydict()
    assert first["timestep"] == [32] * 12
    assert first["cell"] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert first["agent.temperature"] == [0.1] * 4 + [0.5] * 4 + [0.2] * 4
    assert first["agent.hidden_sizes"] == ["4", "4", "6", "6"] * 3
    assert first["seed"] == [3, 4] * 6
    np.testing.assert_allclose(first["temperature"], first["agent.temperature"], rtol=1e-6)  # what the agent used
    assert len(set(first["q_loss"])) == 12
    assert config_file.read_config(subject.whole) == subject.config


def test_memory_is_kept_for_copies_only_where_checkpoints_are_made(subject: Subject) -> None:
    config = subject.config
    never = dataclasses.replace(config, checkpoint_every=0)
    kept, free = (plan_run(x, subject.env, x.train).needs for x in (config, never))
    assert [need.checkpoint > 0 for need in kept] == [True] * len(kept)
    assert free == [need._replace(checkpoint=0) for need in kept]


@pytest.mark.parametrize("number", [2, 5])
def test_a_cell_is_a_run_with_its_settings(subject: Subject, tmp_path: Path, number: int) -> None:
    # To rounding: a number that is an argument is not folded into the program's constants, and six seeds are summed in
    # another order than two. After these 96 updates the largest difference is 6e-6 of the number, in a divergence of
    # two nearly equal policies; mostly it is the last bit.
    config = dataclasses.replace(small_config({}, **cells_of(GRID)[number]), seeds_per_chunk=0)
    made = plan_run(config, subject.env, config.train).programs()
    alone = train(Subject(config, subject.env, made, tmp_path), tmp_path)
    ours, theirs = of_cell(subject.whole, number), of_cell(alone, 0)
    assert ours.keys() == theirs.keys()
    for name, x in theirs.items():
        if np.issubdtype(x.dtype, np.floating):
            np.testing.assert_allclose(ours[name], x, rtol=1e-4, atol=1e-7, err_msg=name)
        else:
            np.testing.assert_array_equal(ours[name], x, err_msg=name)


def test_an_interrupted_sweep_ends_as_the_whole_one(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(subject.config.chunks) == 4
    monkeypatch.setattr(programs, "SECONDS_PER_SLICE", 0.0)
    for num_slices in (40, 170):  # in the first chunk; in the third, which is the other program's first
        slices = iter(range(num_slices))
        with pytest.raises(Interrupted):
            train(subject, tmp_path, should_stop=lambda slices=slices: next(slices, None) is None)
    train(subject, tmp_path)
    assert_same(tmp_path, subject.whole, subject.config)


def test_a_cell_whose_numbers_go_bad_harms_no_other(subject: Subject, tmp_path: Path) -> None:
    grid = GRID | {"temperature": (0.1, 1e-50, 0.2)}  # no float32: it becomes 0, and its logarithm infinite
    config = small_config(grid)
    path = train(subject._replace(config=config), tmp_path)
    for number in (0, 1, 4, 5):
        ours, theirs = of_cell(path, number), of_cell(subject.whole, number)
        for name, x in theirs.items():
            np.testing.assert_array_equal(ours[name], x, err_msg=name)
    table = tables.read_metrics(path)
    failed = table.filter(table[tables.CELL].to_numpy() == 2).to_pydict()
    assert set(failed["failed_at"]) <= {1, 2}
    assert tables.returns_of(failed).tolist() == [-np.inf] * 6
    rows, cells = tables.last_report(table).to_pydict(), config.cells
    told = failure_lines(rows, set(), cells)
    assert len(told) == 4
    assert told[0].startswith("seed 3 of temperature=1e-50, hidden_sizes=4, discount=0.9 failed at timestep 1 (not f")
    line = cells_line(rows, cells)
    assert "-inf" in line
    assert "temperature=1e-50" not in line


@pytest.mark.parametrize("agent", AGENTS)
def test_all_numbers_of_an_agent_can_be_arguments(agent: str) -> None:
    space = UNIT_BOX if Box in AGENTS[agent].action_spaces else Discrete(3)
    config = make_config(agent, "", {"hidden_sizes": (4,)})
    numbers = {f.name: getattr(config.agent, f.name) for f in dataclasses.fields(config.agent)}
    is_constant = {f.name: not f.metadata.get("pytree_node", True) for f in dataclasses.fields(config.agent)}
    grid = {name: (x,) for name, x in numbers.items() if isinstance(x, float) and not is_constant[name]}
    run_config = RunConfig("", config, num_seeds=2, sweep=check_grid(AGENTS[agent], grid))
    (traced,) = plan_run(run_config, ends_both_ways(0.2, 5, space), config).programs()
    arguments = run_config.arguments(run_config.chunks[0].cells)
    assert list(arguments) == list(grid)
    assert "learning_rate" in grid
    state = jax.eval_shape(traced.init, programs.seed_keys(run_config.seeds), arguments)
    state = jax.eval_shape(traced.advance, state, arguments, np.int32(1))
    _, metrics = jax.eval_shape(traced.report, state, arguments)
    assert metrics["eval_return"].shape == (2,)


def test_an_extended_sweep_is_the_same_sweep(subject: Subject, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(subject.whole, tmp_path / "copy"))
    config = config_file.extend(copy, 200)
    assert config.sweep == GRID
    results.write_config(copy, config_file.describe(config))
    assert config_file.read_config(copy) == config
    for program in plan_run(config, subject.env, config.train).programs():
        assert program.segments.sum() == 200


WIDE_GRID = {
    "temperature_learning_rate": (3e-4, 1.2345e-5),
    "learning_rate": (1e-4, 3e-4),
    "hidden_sizes": ((64, 64), (256, 256)),
    "normalise_obs": (True,),
    "target_entropy": (None,),
}


@pytest.mark.parametrize("has_failed", [False, True])
@pytest.mark.parametrize("num_settings", [1, 2, 3, 4, 5])
def test_no_word_of_a_sweep_is_broken(num_settings: int, has_failed: bool) -> None:
    cells = cells_of(dict(list(WIDE_GRID.items())[:num_settings]))
    returns = np.random.default_rng(0).normal(-12_345, 10, (len(cells), 8))
    if has_failed:
        returns[0, 0] = -np.inf
    intervals, were_tables = [iqm_interval(x) for x in returns], []
    config = SimpleNamespace(sweep=cells[0], cells=[cells[0]], seeds=np.arange(8))
    evaluation = SimpleNamespace(
        config=config, returns=returns[0][:, None], lengths=np.full((8, 1), 7e5), timesteps=np.full(8, 9)
    )
    for width in range(40, 208, 7):
        file = io.StringIO()
        console = PlainConsole(width=width, file=file, force_terminal=True, color_system=None, markup=False)
        console.print(cells_table(cells, returns, intervals))
        were_tables.append("┃" in file.getvalue())
        console.print(seeds_table(cast(Evaluation, evaluation)))
        for line in (cells_header(8), cells_line(ROWS | {"cell": [len(cells) - 1] * 8}, cells)):
            print_line(console, line)
        printed = file.getvalue()
        assert "…" not in printed
        assert all(len(line) <= width for line in printed.splitlines())
        words = [word.rstrip(",") for word in printed.split()]
        assert {f"{x:.1f}" for x in returns[0] if np.isfinite(x)} | {"700000.0"} <= set(words)
        assert {word for interval in intervals for word in str(interval).replace(",", "").split()} <= set(words)
        for name, value in (item for cell in cells for item in cell.items()):
            told = [name, value_in_words(value)] if were_tables[-1] else [f"{name}={value_in_words(value)}"]
            assert set(told) <= set(words)
    assert were_tables == sorted(were_tables)
    assert were_tables[-1]


ROWS = {
    "timestep": [1000] * 8,
    "eval_return": [float(-i) for i in range(8)],
    "episode_return": [0.0] * 8,
    "failed_at": [None] * 8,
    "steps_per_second": [1e6] * 8,
}

"""Grids of settings: cells, programs and chunks; a cell's numbers are those of its settings; every way to read them."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from support.probe_envs import UNIT_BOX, ends_both_ways
from support.reference import soft_q as reference
from support.run_numbers import assert_same

import jaxsoft
from jaxsoft.agents import AGENTS
from jaxsoft.cli import main
from jaxsoft.cli.console import PlainConsole, print_line
from jaxsoft.cli.reports import cells_header, cells_line, cells_table, failure_lines, seeds_table
from jaxsoft.errors import InputError
from jaxsoft.fleet import programs
from jaxsoft.fleet.grid import (
    Grid,
    cell_in_words,
    cells_of,
    check_grid,
    find_cell,
    lay_out,
    parse_grid,
    value_in_words,
)
from jaxsoft.fleet.hosts import ALONE, Hosts
from jaxsoft.fleet.programs import Program
from jaxsoft.nn.normalisation import CLIP
from jaxsoft.reports import plots
from jaxsoft.reports.statistics import iqm_interval
from jaxsoft.runs import config as config_file
from jaxsoft.runs import directory, policies, results, tables
from jaxsoft.runs.config import RunConfig
from jaxsoft.runs.driver import Interrupted, train_run
from jaxsoft.runs.evaluation import Evaluation
from jaxsoft.runs.plan import Plan, fair_shares, plan_run
from jaxsoft.training.config import make_config, settings_of
from jaxsoft.training.evaluation import member_keys
from jaxsoft.types import Box, Discrete, Env

# What a grid is


def test_a_grid_is_read_as_it_is_written() -> None:
    texts = ["agent.learning-rate=1e-4,3e-4", "lambda=0,1", "hidden-sizes=64x64,8,None", "learn_temperature=true,False"]
    assert parse_grid(AGENTS["sac"], [*texts, "target-entropy=NONE,-1", "num-envs=1,4e0"]) == {
        "learning_rate": (1e-4, 3e-4),
        "lambda_": (0.0, 1.0),
        "hidden_sizes": ((64, 64), (8,), ()),
        "learn_temperature": (True, False),
        "target_entropy": (None, -1.0),
        "num_envs": (1, 4),
    }


@given(st.floats(1e-300, 1e300))
def test_a_value_is_told_as_it_can_be_written(value: float) -> None:
    assert parse_grid(AGENTS["sac"], [f"learning-rate={value_in_words(value)}"]) == {"learning_rate": (value,)}


def test_only_numbers_share_a_program() -> None:
    grid = check_grid(AGENTS["sac"], {"learning_rate": [1e-4, 1e-3], "batch_size": [8, 16], "discount": [0.9, 1]})
    assert cells_of(grid)[:2] == [
        {"learning_rate": 1e-4, "batch_size": 8, "discount": 0.9},
        {"learning_rate": 1e-4, "batch_size": 8, "discount": 1.0},
    ]
    assert [cells.tolist() for cells in programs_of("sac", grid)] == [[0, 1, 4, 5], [2, 3, 6, 7]]
    # where one of the values is none the program itself is another
    assert len(programs_of("sac", {"target_entropy": (-1.0, -2.0)})) == 1
    assert len(programs_of("sac", {"target_entropy": (None, -1.0, -2.0)})) == 3
    # a number of the agent that shapes its networks
    assert len(programs_of("soft_q_stream", {"sparsity": (0.5, 0.9)})) == 2


def programs_of(agent: str, grid: Grid) -> list[np.ndarray]:
    return lay_out(AGENTS[agent], grid, np.arange(1), 0).programs


def test_chunks_hold_members_of_one_program() -> None:
    grid = {"learning_rate": (1e-4, 1e-3), "batch_size": (8, 16)}
    chunks = lay_out(AGENTS["sac"], grid, np.arange(5, 8), size=4).chunks
    assert [chunk.name for chunk in chunks] == ["0.5-2.5", "2.6-2.7", "1.5-3.5", "3.6-3.7"]
    assert [chunk.program for chunk in chunks] == [0, 0, 1, 1]
    assert chunks[0].cells.tolist() == [0, 0, 0, 2]
    assert chunks[0].seeds.tolist() == [5, 6, 7, 5]
    members = {(c, s) for chunk in chunks for c, s in zip(chunk.cells.tolist(), chunk.seeds.tolist(), strict=True)}
    assert members == {(c, s) for c in range(4) for s in (5, 6, 7)}
    (whole,) = lay_out(AGENTS["sac"], {}, np.arange(5, 8), size=0).chunks
    assert whole.name == "5-7"


def test_every_process_gets_about_as_much() -> None:
    grid = {"learning_rate": (1e-4, 1e-3), "batch_size": (8, 16, 32)}  # three programs
    config = RunConfig("gymnax/Pendulum-v1", make_config("sac", "", {}), num_seeds=4, sweep=grid)
    assert [fair_shares(config, Hosts(0, count)) for count in (1, 2, 3, 4, 24)] == [
        [size] * 3 for size in (8, 8, 8, 4, 1)
    ]
    one_program = dataclasses.replace(config, num_seeds=10, sweep={})
    assert [fair_shares(one_program, Hosts(0, count)) for count in (1, 4, 20)] == [[10], [3], [1]]


def test_a_cell_is_named_by_its_settings() -> None:
    cells = cells_of({"learning_rate": (1e-4, 1e-3), "hidden_sizes": ((8,), (8, 8))})
    assert find_cell(cells, {"learning_rate": 1e-3, "hidden_sizes": (8,)}) == 2
    listed = "it must name one of: learning_rate=0.0001, hidden_sizes=8; learning_rate=0.0001, hidden_sizes=8x8; learn"
    for settings, asked in (
        ({"learning_rate": 1e-3}, "learning_rate=0.001 names 2 cells"),
        ({"learning_rate": 0.5}, "learning_rate=0.5 names 0 cells"),
        ({"discount": 0.5}, "discount=0.5 names 0 cells"),
        ({}, "nothing names 4 cells"),
    ):
        with pytest.raises(InputError, match=f"{asked} of the sweep; {listed}"):
            find_cell(cells, settings)
    assert find_cell([{}], {}) == 0
    with pytest.raises(InputError, match=r"learning_rate=0\.5 names no cell: the run is no sweep"):
        find_cell([{}], {"learning_rate": 0.5})


# Training


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


# Reading a sweep: the command line, and Python


TRAIN = (
    "train soft_q_stream gymnax/CartPole-v1 --num-seeds 2 --total-timesteps 1000 --eval-every 500 --eval-episodes 1 "
    "--sparsity 0 --sweep agent.learning-rate=0.1,1 --sweep hidden-sizes=16,8x8 --out"
).split()


@pytest.fixture(scope="module")
def printed_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A sweep from the command line, and what it printed."""
    path, printed = tmp_path_factory.mktemp("cli") / "run", io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main([*TRAIN, str(path)]) == 0
    return path, printed.getvalue()


@pytest.fixture(scope="module")
def run(printed_run: tuple[Path, str]) -> Path:
    return printed_run[0]


def test_training_tells_the_best_cell_and_ends_with_a_table(printed_run: tuple[Path, str]) -> None:
    printed = printed_run[1]
    assert "soft_q_stream in gymnax/CartPole-v1, 4 cells × 2 seeds, on cpu" in printed
    assert "2 programs, 2 chunks of 4 seeds, one after the other" in printed
    lines = printed.splitlines()
    (start,) = [i for i, line in enumerate(lines) if line == "hidden_sizes=8x8: 2 cells, 4 seeds in all"]
    assert lines[start + 1].split()[0] == "500"
    assert lines[start + 1].endswith(("learning_rate=0.1, hidden_sizes=8x8", "learning_rate=1, hidden_sizes=8x8"))
    rows = [line.split("│")[1:4] for line in lines if line.startswith("│")]
    assert sorted((rate.strip(), sizes.strip()) for rate, sizes, _ in rows) == [
        *(("0.1", "16"), ("0.1", "8x8"), ("1", "16"), ("1", "8x8"))
    ]
    means = [float(interval.split()[0]) for *_, interval in rows]
    assert means == sorted(means, reverse=True)


def test_every_cell_is_judged_and_loaded(run: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["eval", str(run), "--num-episodes", "1", "--seed", "3", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["seeds"] == [0, 1]
    iqms = [cell["iqm"] for cell in answer["cells"]]
    assert iqms == sorted(iqms, reverse=True)
    # the same episodes by hand, with the policies that are loaded by their settings
    env = jaxsoft.make_env("gymnax/CartPole-v1")
    step = jax.jit(env.step)
    played, numbers = {}, [cell_in_words(cell) for cell in config_file.read_config(run).cells]
    for cell in answer["cells"]:
        settings = cell["settings"] | {"hidden_sizes": tuple(cell["settings"]["hidden_sizes"])}
        number = np.full(2, numbers.index(cell_in_words(settings)))
        for seed, key, expected in zip((0, 1), member_keys(3, number, np.arange(2)), cell["eval_return"], strict=True):
            policy, total = jaxsoft.load_policy(run, seed=seed, **settings), 0
            state, time_step = env.reset(jax.random.split(jax.random.split(key)[1], 1)[0])
            while not time_step.done:
                state, time_step = step(jax.random.key(0), state, policy(np.asarray(time_step.obs)))
                total += 1
            played[settings["learning_rate"], settings["hidden_sizes"], seed] = total
            assert total == expected
    assert len(set(played.values())) > 2


def test_a_loaded_policy_normalises_what_it_observes(run: Path) -> None:
    obs = np.asarray(np.random.default_rng(0).normal(size=(50, 4)) * [2, 2, 0.2, 2], np.float32)
    for learned in policies.read_agents(run)[2]:
        rate = round(float(learned.arguments["learning_rate"][0]), 6)
        sizes = settings_of(learned.train)["hidden_sizes"]
        policy = jaxsoft.load_policy(run, learning_rate=rate, hidden_sizes=sizes)
        state = jax.tree.map(lambda x: np.asarray(x[0]), learned.states.policy)
        seen = (obs - state.obs_statistics.mean) / np.sqrt(state.obs_statistics.variance)
        seen = np.clip(seen, -CLIP, CLIP)
        greedy, of_raw = (reference.q_values(state.params, x, slope=0.01).argmax(-1) for x in (seen, obs))
        assert [policy(x) for x in obs] == greedy.tolist()
        assert (greedy != of_raw).any()


def test_of_many_cells_the_best_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    curves = [plots.Curve(f"learning_rate={i}", np.arange(3), np.full((3, 2), float(i))) for i in range(40)]
    curves[39].returns[-1] = -np.inf  # the best, until it failed
    plots.learning_curves(tmp_path / "x.png", curves, title="", are_cells=True)
    labels = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert labels == ["28 others", *(f"learning_rate={i}" for i in range(27, 39))]
    lines = [(line.get_color(), line.get_linestyle()) for line in drawn[0].axes[0].lines if line.get_linewidth() == 2]
    assert len(set(lines)) == 12


def test_tables_and_pictures_show_each_cell(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    video = tmp_path / "episode.gif"
    assert main(["eval", str(run), "--num-episodes", "2", "--video", str(video)]) == 0
    lines = capsys.readouterr().out.splitlines()
    seeds_rows = [line for line in lines if line.startswith("│") and line.count("│") == 9]
    assert len(seeds_rows) == 8
    cells_rows = [line for line in lines if line.startswith("│") and line.count("│") == 4]
    best_rate, best_sizes = (x.strip() for x in cells_rows[0].split("│")[1:3])
    (told,) = [line for line in lines if "episode.gif: an episode of seed" in line]
    assert f"of learning_rate={best_rate}, hidden_sizes={best_sizes}, the median one" in told
    curves = plots.read_curves(run)
    assert [curve.label for curve in curves] == [cell_in_words(cell) for cell in config_file.read_config(run).cells]
    table = tables.read_metrics(run).filter(np.equal(tables.read_metrics(run)["cell"].to_numpy(), 3))
    np.testing.assert_array_equal(curves[3].returns.ravel(), table["eval_return"].to_numpy())
    assert main(["plot", str(run), str(run), "--out", str(tmp_path / "both.png")]) == 0


def test_a_missing_cell_is_told_with_those_that_there_are(run: Path) -> None:
    listed = "learning_rate=0.1, hidden_sizes=16; learning_rate=0.1, hidden_sizes=8x8; learning_rate=1, hidden_sizes=16"
    with pytest.raises(InputError, match=f"nothing names 4 cells of the sweep; it must name one of: {listed}"):
        jaxsoft.load_policy(run)
    with pytest.raises(InputError, match=r"learning_rate=0\.3 names 0 cells"):
        jaxsoft.load_reference(run, learning_rate=0.3)
    with pytest.raises(InputError, match="unknown setting 'learning_rat'; did you mean learning_rate"):
        jaxsoft.load_policy(run, learning_rat=0.1)
    with pytest.raises(InputError, match=r"seed is 2; .* has seeds 0 to 1"):
        jaxsoft.load_policy(run, seed=2, learning_rate=0.1, hidden_sizes=(16,))


REFUSED = {
    "learning-rate=1e-4 learning-rate=1e-3": "sweep names learning_rate twice; give all of its values at once",
    "learning-rate=1e-3,0.001": "sweep has learning_rate=0.001 twice",
    "learning-rat=1,2": "unknown setting 'learning_rat'; did you mean learning_rate",
    "learning-rate": "sweep is 'learning-rate'; it must be SETTING=VALUE,VALUE,...",
    "learning-rate=": "learning_rate is ''; it must be a number",
    "learning-rate=0.1,,1": "learning_rate is ''; it must be a number",
    "learning-rate=fast,1": "learning_rate is 'fast'; it must be a number",
    "learning-rate=0.1,-1": "learning_rate is -1.0; it must be a positive number",
    "learning-rate=nan": "learning_rate is nan; it must be a positive number",
    "batch-size=8,8.5": "batch_size is 8.5; it must be an integer",
    "hidden-sizes=8x,8": "it must be an integer",
    "hidden-sizes=8,0": "hidden_sizes is (0,); it must be positive integers",
    "learn-temperature=1,0": "learn_temperature is '1'; it must be true or false",
    "total-timesteps=1000,2000": "sweep names total_timesteps; all cells of a run have the same",
    "eval-every=100,200": "sweep names eval_every; all cells of a run have the same",
    "num-seeds=1,2": "unknown setting 'num_seeds'",
    "polyak=0.9,0.99": "polyak is given and swept over",
    "normalise-obs=true,false": "normalise_obs is given and swept over",
    "batch-size=8,300": "batch_size is 300, more than replay_capacity, 200",
    "lambda=0,0.5": "lambda_ is 0.5; without sequences it must be 0",
    "num-envs=1,7": "sweep has cells whose reports fall on other timesteps: num_envs=1: 200, …, 600; num_envs=7: 203,",
    "learning-starts=100,250": "learning_starts=100: 200, …, 600; learning_starts=250: 400, …, 600",
    "batch-size=" + ",".join(map(str, range(1, 201))) + " replay-capacity=" + ",".join(map(str, range(1, 202))): (
        "sweep has 200 × 201 cells; it must have 10,000 at most"
    ),
    "learning-rate=1,2,3 --num-seeds=400000": "num_seeds is 400000; with 3 cells it must be 333,333 at most",
}


@pytest.mark.parametrize("swept", REFUSED)
def test_what_is_no_grid_is_refused_in_one_line(swept: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    command = (
        "train sac gymnax/Pendulum-v1 --total-timesteps 600 --eval-every 200 --agent.learning-starts 100 --polyak 0.9 "
        "--agent.no-normalise-obs --agent.replay-capacity 200 --agent.batch-size 8 --out"
    ).split()
    (name,) = {x for x in ("batch-size", "learning-starts", "replay-capacity") if swept.startswith(x)} or {""}
    given = [i for i, arg in enumerate(command) if name and arg == f"--agent.{name}"]
    for i in given:
        del command[i : i + 2]
    assert main([*command, str(tmp_path / "run"), "--sweep", *swept.split()]) == 2
    error = capsys.readouterr().err
    assert REFUSED[swept] in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_sweep_of_earlier_runs_is_refused(run: Path) -> None:
    with pytest.raises(
        InputError, match=r"sweep has the reference '.*run'; an earlier run's policy is that of a whole"
    ):
        check_grid(AGENTS["soft_q"], {"reference": ["uniform", str(run)]})

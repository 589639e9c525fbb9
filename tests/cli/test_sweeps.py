"""Sweeps on the command line, and what is read of them in Python."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure
from support.reference import soft_q as reference

import jaxsoft
from jaxsoft.agents import AGENTS
from jaxsoft.cli import main
from jaxsoft.errors import InputError
from jaxsoft.fleet.grid import (
    cell_in_words,
    check_grid,
)
from jaxsoft.nn.normalisation import CLIP
from jaxsoft.reports import plots
from jaxsoft.runs import config as config_file
from jaxsoft.runs import policies, tables
from jaxsoft.training.config import settings_of
from jaxsoft.training.evaluation import member_keys

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

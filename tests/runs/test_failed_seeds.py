"""Failed seeds, and runs that are not trained to their end, where policies are judged, loaded and drawn."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pytest
from matplotlib.axes import Axes
from support.probe_envs import counting

import jaxsoft
from jaxsoft.cli import main
from jaxsoft.cli.reports import cells_table
from jaxsoft.errors import InputError
from jaxsoft.reports.plots import Curve, learning_curves, read_curves
from jaxsoft.reports.statistics import iqm_interval
from jaxsoft.reports.summary import NO_INTERVAL
from jaxsoft.runs import manifest, parquet, tables
from jaxsoft.runs.evaluation import evaluate_run
from jaxsoft.runs.policies import Policy
from jaxsoft.runs.tables import FailedSeed

COMMAND = "train soft_q_stream finite/Chain-5 --hidden-sizes 4 --total-timesteps 40 --eval-episodes 1".split()
SWEEP = "--num-seeds 2 --checkpoint-every 20 --sweep temperature=0.1,1e-50".split()  # 1e-50 is 0 in float32


def train(path: Path, *options: str) -> Path:
    assert main([*COMMAND, *options, "--out", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cells of two seeds, and both seeds of the second one fail at once."""
    return train(tmp_path_factory.mktemp("runs") / "run", *SWEEP, "--eval-every", "20")


@pytest.fixture(scope="module")
def chunked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seeds in two chunks, of which none fails."""
    options = "--num-seeds 4 --seeds-per-chunk 2 --checkpoint-every 20"
    return train(tmp_path_factory.mktemp("runs") / "chunked", *options.split())


def without_last_checkpoint(run: Path, path: Path) -> Path:
    shutil.copytree(run, path)
    (last,) = path.rglob("000000000040")
    shutil.rmtree(last)
    return path


def mark_failed(run: Path, *seeds: int) -> None:
    """Says in a run's last checkpoints that these seeds have failed."""
    for folder in run.rglob("000000000040"):
        rows = parquet.read(folder / tables.NAME)
        for name, value in (("failed_at", 7), ("failed_quantities", "q_loss")):
            i, told = rows.column_names.index(name), [value if x in seeds else None for x in rows["seed"].to_pylist()]
            rows = rows.set_column(i, name, pa.array(told, rows.schema.field(i).type))
        (folder / tables.NAME).write_bytes(parquet.encode(rows))
        content = manifest.read(folder, {})
        (folder / manifest.NAME).unlink()  # it does not list itself
        manifest.write(folder, {name: x for name, x in content.items() if name not in ("format", "files")})


def test_a_failed_seed_is_the_worst_and_plays_no_episode(run: Path) -> None:
    evaluation = evaluate_run(run, num_episodes=3, deterministic=True)
    assert evaluation.returns.shape == (4, 3)
    assert np.isfinite(evaluation.returns[:2]).all()
    assert np.isneginf(evaluation.returns[2:]).all()
    assert (evaluation.lengths > 0).tolist() == [[True] * 3] * 2 + [[False] * 3] * 2
    assert evaluation.timesteps.tolist() == [40] * 4
    assert [(one.cell, one.seed) for one in evaluation.failed] == [(1, 0), (1, 1)]
    assert all(1 <= one.timestep <= 20 and one.quantities for one in evaluation.failed)


def test_eval_and_plot_name_failed_seeds(run: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["eval", str(run), "--num-episodes", "2"]) == 0
    printed = capsys.readouterr().out
    assert "seed 0 of temperature=1e-50 failed at timestep " in printed
    assert "seed 1 of temperature=1e-50 failed at timestep " in printed
    assert "-inf (-inf – -inf)" in printed
    assert main(["plot", str(run)]) == 0
    assert f"{run}: seed 1 of temperature=1e-50 failed at timestep " in capsys.readouterr().out
    assert [curve.label for curve in read_curves(run)] == ["temperature=0.1", "temperature=1e-50, 2 failed"]
    assert main(["eval", str(run), "--num-episodes", "2", "--json"]) == 0

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    well, failed = json.loads(capsys.readouterr().out, parse_constant=refuse)["cells"]
    assert (well["failed"], len(well["min_max"])) == ([], 2)
    assert (failed["eval_return"], failed["iqm"], failed["min_max"]) == ([None, None], None, [None, None])
    assert [one["seed"] for one in failed["failed"]] == [0, 1]


def test_a_band_that_begins_at_minus_infinity_reaches_the_lowest_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bands = []
    monkeypatch.setattr(
        Axes, "fill_between", lambda self, x, low, high, **_: bands.append((low.tolist(), high.tolist()))
    )
    returns = np.arange(16.0).reshape(2, 8)
    returns[1, 0] = -np.inf  # the seed that returned 0 at first
    learning_curves(tmp_path / "curve.png", [Curve("8 seeds", np.array([10, 20]), returns)], title="")
    ((low, high),) = bands
    assert low == [iqm_interval(returns[0]).low, 0]
    assert high == [iqm_interval(returns[0]).high, iqm_interval(returns[1]).high]


def test_the_policy_of_a_failed_seed_is_refused_unless_asked_for(run: Path) -> None:
    for load in (jaxsoft.load_policy, jaxsoft.load_reference):
        assert load(run, seed=1, temperature=0.1)
        with pytest.raises(InputError, match=r"seed 1 of temperature=1e-50 failed at timestep \d+ \(not fin") as caught:
            load(run, seed=1, temperature=1e-50)
        assert "\n" not in str(caught.value)
    policy = jaxsoft.load_policy(run, seed=1, temperature=1e-50, allow_failed=True)
    assert policy(np.eye(5)).shape == (5,)
    assert np.isfinite(jaxsoft.load_reference(run, temperature=0.1, allow_failed=True)(jnp.eye(5))).all()


def test_a_run_not_trained_to_its_end_is_judged_by_its_newest_checkpoint(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    early = without_last_checkpoint(run, tmp_path / "early")
    assert main(["eval", str(early), "--num-episodes", "2"]) == 0
    printed = capsys.readouterr().out
    assert "not trained to its end, timestep 40: all policies are those of timestep 20" in printed
    assert "seed 1 of temperature=1e-50 failed" in printed
    with pytest.warns(UserWarning, match="early is not trained to its end: this policy is that of timestep 20 of 40"):
        assert jaxsoft.load_policy(early, temperature=0.1)(np.eye(5)).shape == (5,)


@pytest.mark.thorough
def test_a_run_as_reference_is_its_first_seed_that_has_not_failed(
    chunked: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    earlier = shutil.copytree(chunked, tmp_path / "earlier")
    second, third = (jaxsoft.load_reference(earlier, seed=seed)(jnp.eye(5)) for seed in (1, 2))
    for failed, expected in (((0,), second), ((0, 1), third)):
        mark_failed(earlier, *failed)
        capsys.readouterr()
        later = train(tmp_path / f"later{len(failed)}", "--temperature", "1e4", "--agent.reference", str(earlier))
        (line,) = capsys.readouterr().err.splitlines()
        seed = len(failed)
        assert line.endswith(
            f"seed 0 failed at timestep 7 (not finite: q_loss); the reference is the policy of seed {seed}"
        )
        with pytest.warns(UserWarning, match=f"the reference is the policy of seed {seed}"):
            # at a temperature without bound the Boltzmann policy is its reference
            np.testing.assert_allclose(jaxsoft.load_reference(later)(jnp.eye(5)), expected, atol=1e-3)
    mark_failed(earlier, 1)
    with warnings.catch_warnings(action="error"):
        jaxsoft.load_reference(earlier)
    mark_failed(earlier, 0, 1, 2, 3)
    assert main([*COMMAND, "--agent.reference", str(earlier), "--out", str(tmp_path / "none")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "earlier cannot be a reference: all its seeds failed; seed 0 failed at timestep 7 (not finite: q" in line
    assert not (tmp_path / "none").exists()


def test_the_median_seed_of_those_that_are_well_is_filmed_after_the_table(
    chunked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    run, filmed = shutil.copytree(chunked, tmp_path / "run"), []
    monkeypatch.setattr("jaxsoft.cli.eval.check_film", lambda path, env_id: None)
    monkeypatch.setattr("jaxsoft.cli.eval.film", lambda path, episode, env_id: filmed.append(episode))
    command = ["eval", str(run), "--num-episodes", "1", "--video", str(tmp_path / "x.gif")]
    mark_failed(run, 0, 1, 2)
    assert main(command) == 0
    assert "x.gif: an episode of seed 3, the median one of those that are well" in capsys.readouterr().out
    assert len(filmed) == 1
    mark_failed(run, 0, 1, 2, 3)
    assert main([*command, "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["eval_return"] == [None] * 4
    assert "x.gif: not filmed, no seed has a finite mean return" in printed.err
    assert len(filmed) == 1


def test_of_a_run_cut_between_its_chunks_the_saved_seeds_are_judged(
    chunked: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    cut = shutil.copytree(chunked, tmp_path / "cut")
    shutil.rmtree(cut / "checkpoints" / "0-1")
    whole, of_cut = (evaluate_run(run, num_episodes=2, deterministic=True) for run in (chunked, cut))
    np.testing.assert_array_equal(of_cut.returns[2:], whole.returns[2:])
    assert np.isnan(of_cut.returns[:2]).all()
    assert of_cut.timesteps.tolist() == [0, 0, 40, 40]
    capsys.readouterr()
    assert main(["eval", str(cut), "--num-episodes", "2"]) == 0
    printed = capsys.readouterr().out
    assert "not trained to its end, timestep 40: 2 of 4 seeds have no checkpoint yet" in printed
    assert printed.count("no checkpoint │") == 2
    interval = iqm_interval(whole.returns[2:].mean(axis=1))
    assert f"IQM over 2 seeds (min – max): {interval}" in printed
    assert main(["eval", str(cut), "--num-episodes", "2", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["missing"], answer["failed"], answer["eval_return"][:2]) == ([0, 1], [], [None, None])
    assert answer["iqm"] == pytest.approx(interval.point)
    returns = np.array([[np.nan] * 5, [4.0, 1.0, 3.0, 2.0, np.nan]])
    _, best, worst = cells_table([{"a": 1}, {"a": 2}], returns, [NO_INTERVAL, iqm_interval(returns[1, :4])]).lines
    assert best.split() == ["2.5", "(1.0", "–", "4.0)", "1.0", "4.0", "a=2"]
    assert worst.split() == ["no", "return", "–", "–", "a=1"]


def test_an_early_reference_is_one_printable_note_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    early = without_last_checkpoint(train(tmp_path / "run", "--checkpoint-every", "20"), tmp_path / "\x1b[31mearly")
    capsys.readouterr()
    train(tmp_path / "later", "--agent.reference", str(early))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("jaxsoft: note: ")
    assert "\\x1b[31mearly is not trained to its end: this policy is that of timestep 20 of 40" in line
    with pytest.warns(UserWarning, match=r"\\x1b\[31mearly is not trained to its end"):
        jaxsoft.load_policy(early)


def test_a_name_that_the_font_lacks_is_drawn_without_a_warning(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    learning_curves(tmp_path / "curve.png", [Curve("日本", np.array([10, 20]), np.ones((2, 2)))], title="日本")
    assert not list(recwarn)


def test_parameters_that_went_bad_after_the_last_report_have_failed(tmp_path: Path) -> None:
    whole = train(tmp_path / "run", *SWEEP, "--eval-every", "40")
    early = without_last_checkpoint(whole, tmp_path / "early")
    failed = evaluate_run(early, num_episodes=1, deterministic=True).failed
    assert failed == [FailedSeed(1, seed, 20, "parameters") for seed in (0, 1)]


def test_many_seeds_are_summarised_and_rows_shown_on_request(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = train(tmp_path / "run", "--num-seeds", "21", "--eval-every", "40")
    lengths = []
    for flags in ([], ["--all-rows"]):
        capsys.readouterr()
        assert main(["eval", str(run), "--num-episodes", "1", *flags]) == 0
        lengths.append(len(capsys.readouterr().out.splitlines()))
    summary, rows = lengths
    assert summary < 10
    assert rows == summary + 19  # 21 seeds instead of two rows


def test_observations_that_do_not_convert_are_refused() -> None:
    env = counting(4, terminates=True)
    env = env._replace(spec=replace(env.spec, obs_dtype=np.dtype(np.int32)))
    agent: Any = SimpleNamespace(act=lambda key, state, obs, deterministic: (obs.astype(jnp.float32), None))
    policy = Policy(agent, {}, env, deterministic=True)
    np.testing.assert_array_equal(policy(np.array([-1.0])), [-1])
    with pytest.raises(InputError, match=r"the observation has 0\.5 in it, which is no int32"):
        policy(np.array([0.5]))

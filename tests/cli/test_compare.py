"""`jaxsoft compare` and `jaxsoft eval` of several runs: what is printed and drawn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jaxsoft.cli import main
from jaxsoft.runs.tables import read_returns

SMALL = "--hidden-sizes 4 --total-timesteps 40 --eval-every 20 --eval-episodes 1".split()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A sweep of two cells, and other seeds of its first cell."""
    folder = tmp_path_factory.mktemp("compare")
    train = ["train", "soft_q_stream", "finite/Chain-5", *SMALL, "--num-seeds"]
    assert main([*train, "5", "--sweep", "temperature=0.1,1", "--out", str(folder / "sweep")]) == 0
    assert main([*train, "2", "--seed", "5", "--temperature", "0.1", "--out", str(folder / "more")]) == 0
    return [folder / "sweep", folder / "more"]


def test_compare_prints_a_table_and_draws_a_figure(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["compare", *map(str, runs)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("returns at the last report, in finite/Chain-5\n")
    rows = [line.split() for line in printed.splitlines() if line.startswith(" soft_q_stream")]
    assert sorted(row[1:3] for row in rows) == [["temperature=0.1", "7"], ["temperature=1", "5"]]
    for header in ("[95 % interval]", "median", "mean", "P(best > it)"):
        assert header in printed
    assert printed.endswith("\ncomparison.png\n")
    assert Path("comparison.png").read_bytes().startswith(b"\x89PNG")


def test_compare_json_holds_the_scores(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    figure = tmp_path / "x.png"
    words = ["--normalise", "0:2", "--by", "run", "--json", "--out", str(figure)]
    assert main(["compare", *map(str, runs), *words]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert figure.exists()
    found = {one["name"]: one["scores"] for one in answer["algorithms"]}
    cells = [cell for run in runs for cell in read_returns(run)]
    names = [f"{runs[0]}, temperature=0.1", f"{runs[0]}, temperature=1", str(runs[1])]
    expected = {name: [(cell.returns[-1] / 2).tolist()] for name, cell in zip(names, cells, strict=True)}
    assert found == expected
    few = next(one for one in answer["algorithms"] if one["name"] == str(runs[1]))
    assert few["iqm"]["min_max"] == [min(expected[str(runs[1])][0]), max(expected[str(runs[1])][0])]
    assert "interval" in next(one for one in answer["algorithms"] if one is not few)["optimality_gap"]


def test_compare_tells_what_it_cannot_do(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for argv, line in (
        ([], "name at least one run directory"),
        ([str(tmp_path)], "is not a run directory"),
        ([str(runs[0]), "--out", "x.txt"], "out is 'x.txt'; it must be a .png file"),
        ([str(runs[0]), "--normalise", "best"], "normalise is 'best'; it must be none, minmax or A:B"),
        ([str(runs[0]), "--by", "env"], "by is 'env'; it must be agent or run"),
    ):
        assert main(["compare", *argv]) == 2
        assert line in capsys.readouterr().err


def test_eval_of_several_runs_ends_with_a_line_for_each(runs: list[Path], capsys: pytest.CaptureFixture) -> None:
    command = ["eval", *map(str, runs), "--num-episodes", "2"]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"{runs[1]}: soft_q_stream in finite/Chain-5, deterministic, 2 episodes per seed" in lines
    assert lines[-2].startswith(f"{runs[0]}: soft_q_stream, IQM over 5 seeds ")
    assert ", best of 2 cells: temperature=" in lines[-2]
    assert lines[-1].startswith(f"{runs[1]}: soft_q_stream, IQM over 2 seeds ")
    assert main([*command, "--json"]) == 0
    assert [answer["run"] for answer in json.loads(capsys.readouterr().out)] == list(map(str, runs))
    assert main([*command, "--video", "x.gif"]) == 2
    assert "video is of one run; 2 are named" in capsys.readouterr().err

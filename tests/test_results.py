"""Runs from Python: `jaxsoft.train`, `jaxsoft.open_run` and the result that they give."""

from __future__ import annotations

import dataclasses
import gc
import io
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import jaxsoft
from jaxsoft.agents import AGENTS, get_agent
from jaxsoft.cli import main
from jaxsoft.errors import InputError
from jaxsoft.fleet.grid import split_sweep
from jaxsoft.reports.progress import watched_bar
from jaxsoft.reports.series import Report
from jaxsoft.results import Result
from jaxsoft.runs import RunConfig
from jaxsoft.training.config import make_config

SMALL: dict[str, Any] = {"total_timesteps": 60, "eval_every": 20, "eval_episodes": 2, "hidden_sizes": (4,)}
RATES = [1e-3, 1e-2]
ENV = "finite/Chain-5?max_episode_steps=50&discount=0.9"
"""Not as `make_env` writes it, which sorts the parameters."""


def train_small(**more: Any) -> Result:
    return jaxsoft.train("soft_q_stream", ENV, num_seeds=2, learning_rate=RATES, **(SMALL | more))


def numbers(result: Result) -> dict[str, list]:
    return result.metrics.drop_columns(["steps_per_second"]).to_pydict()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, list[Report]]:
    """A run that nothing interrupted, and its reports."""
    reports: list[Report] = []
    result = train_small(out=tmp_path_factory.mktemp("runs") / "whole", on_report=reports.append)
    return result, reports


def test_it_is_the_run_that_the_command_makes(whole: tuple[Result, list[Report]], tmp_path: Path) -> None:
    options = "--total-timesteps 60 --eval-every 20 --eval-episodes 2 --agent.hidden-sizes 4 --num-seeds 2"
    sweep = "--sweep learning-rate=1e-3,1e-2"
    command = ["train", "soft_q_stream", ENV, *options.split(), *sweep.split()]
    assert main([*command, "--out", str(tmp_path / "run"), "--log", "jsonl", "tensorboard"]) == 0
    opened = jaxsoft.open_run(tmp_path / "run")
    assert numbers(opened) == numbers(whole[0])
    assert opened.config == whole[0].config
    assert len((tmp_path / "run" / "logs" / "metrics.jsonl").read_text().splitlines()) == 6
    assert {path.name for path in (tmp_path / "run" / "logs" / "tensorboard").iterdir()} == {
        "learning_rate=0.001",
        "learning_rate=0.01",
    }
    # what goes on from its end makes no report anew
    assert main(["train", "--resume", str(tmp_path / "run"), "--log", "jsonl"]) == 0
    assert len((tmp_path / "run" / "logs" / "metrics.jsonl").read_text().splitlines()) == 6


def test_reports_are_those_of_the_table(whole: tuple[Result, list[Report]]) -> None:
    result, reports = whole
    assert [(report.timestep, report.cell["learning_rate"]) for report in reports] == [
        (timestep, rate) for timestep in (20, 40, 60) for rate in RATES
    ]
    table = result.metrics.to_pandas()
    for report in reports:
        own = table[
            (table["timestep"] == report.timestep) & (table["agent.learning_rate"] == report.cell["learning_rate"])
        ]
        assert report.seeds.tolist() == own["seed"].tolist() == [0, 1]
        assert report.returns.tolist() == own["eval_return"].tolist()
        assert report.rows["q_loss"].to_pylist() == own["q_loss"].tolist()
        assert report.iqm.point == own["eval_return"].mean()  # of two seeds
        assert report.label == f"learning_rate={report.cell['learning_rate']:g}"


def test_what_a_result_tells(whole: tuple[Result, list[Report]], tmp_path: Path) -> None:
    result, _ = whole
    assert result.is_finished
    assert "2 cells × 2 seeds, timestep 60 of 60" in repr(result)
    policy = result.policy(seed=1, learning_rate=1e-2)
    np.testing.assert_array_equal(
        policy(np.eye(5)), jaxsoft.load_policy(result.path, seed=1, learning_rate=1e-2)(np.eye(5))
    )
    summary = result.evaluate(num_episodes=3)
    assert summary.mean_returns.shape == (2, 2)
    assert summary.evaluation.returns.shape == (4, 3)
    assert result.plot(tmp_path / "curve.svg").read_text().startswith("<?xml")
    assert [x.shape[0] for states in result.states for x in jax.tree.leaves(states)] == [2] * len(
        jax.tree.leaves(result.states)
    )
    kernel = result.states[1].policy.params["params"]["Dense_0"]["kernel"]
    assert kernel.shape == (2, 5, 4)
    assert not np.array_equal(kernel, result.states[0].policy.params["params"]["Dense_0"]["kernel"])


def test_an_error_of_on_report_leaves_a_run_that_goes_on(whole: tuple[Result, list[Report]], tmp_path: Path) -> None:
    def fail(report: Report) -> None:
        raise RuntimeError("no more")

    logged: list[int] = []
    with pytest.raises(RuntimeError, match="no more") as raised:
        train_small(out=tmp_path / "run", on_report=fail, loggers=[lambda report: logged.append(report.timestep)])
    assert logged == [20, 20, 40, 40]  # the report of the slice in which it stops is not lost
    assert "open_run" in raised.value.__notes__[0]
    cut = jaxsoft.open_run(tmp_path / "run")
    assert not cut.is_finished
    with pytest.raises(InputError, match=r"a run already: jaxsoft.open_run\(.*\).resume\(\)"):
        train_small(out=tmp_path / "run")
    reports: list[Report] = []
    assert cut.resume(on_report=reports.append) is cut
    assert numbers(cut) == numbers(whole[0])
    assert [report.timestep for report in reports] == [60, 60]  # the others were made before
    with pytest.raises(InputError, match=r"a run already: jaxsoft.open_run\(.*\).extend\("):
        train_small(out=tmp_path / "run")
    assert cut.extend(80).timestep == 80


def test_ctrl_c_saves_and_says_how_to_go_on(whole: tuple[Result, list[Report]]) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="saved; go on with") as stopped:
        train_small(on_report=lambda report: signal.raise_signal(signal.SIGINT))
    assert signal.getsignal(signal.SIGINT) is before
    path = str(stopped.value).partition("open_run('")[2].partition("'")[0]
    del stopped
    gc.collect()
    result = jaxsoft.open_run(path).resume()  # the folder is there until the process ends
    assert numbers(result) == numbers(whole[0])


def test_a_temporary_folder_goes_with_its_result() -> None:
    result = train_small()
    path = result.path
    assert result.metrics.num_rows == 12
    del result
    gc.collect()
    assert not path.exists()


def test_a_list_of_values_is_a_sweep() -> None:
    kind = get_agent("soft_q")
    given = {
        "learning_rate": np.array([0.5, 0.25]),
        "hidden_sizes": [(4,), [8, 8]],
        "trace": ["retrace", "tree_backup"],
        "discount": [0.9],
    }
    single, grid = split_sweep(kind, given)
    assert grid == {
        "learning_rate": (0.5, 0.25),
        "hidden_sizes": ((4,), [8, 8]),
        "trace": ("retrace", "tree_backup"),
        "discount": (0.9,),
    }
    assert single == {"learning_rate": 0.5, "hidden_sizes": (4,), "trace": "retrace", "discount": 0.9}
    one = {"hidden_sizes": [4, 4], "reference": [0.0, 1.0], "discount": 0.9, "num_envs": 2}
    assert split_sweep(kind, one) == (one, {})
    assert split_sweep(kind, {"hidden_sizes": ()}) == ({"hidden_sizes": ()}, {})
    assert split_sweep(kind, {"reference": ["uniform", [0, 1]]})[1] == {"reference": ("uniform", [0, 1])}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"num_seeds": 1.5}, "num_seeds is 1.5; it must be an integer"),
        ({"num_seeds": [1, 2]}, r"num_seeds is \[1, 2\]; it must be an integer"),
        ({"total_timesteps": [10, 20]}, "sweep names total_timesteps"),
        ({"learning_rate": []}, r"learning_rate is \[\]; it must be a number"),
        ({"learning_rat": [1.0]}, "unknown setting 'learning_rat'"),
        ({"reference": lambda obs: jnp.zeros(2)}, "reference is a function, which a run directory cannot hold"),
        ({"network": nn.Dense(8)}, "network is a module, which a run directory cannot hold"),
        ({"loggers": print}, "loggers is <built-in function print>; it must be a list"),
        ({"loggers": "jsonl"}, "loggers is 'jsonl'; it must be a list"),
        ({"loggers": [jaxsoft.loggers.JsonLines]}, r"loggers has the class JsonLines; .* an instance: JsonLines\(\)"),
        ({"loggers": ["tensorboard"]}, r"loggers has 'tensorboard'; .* or like jaxsoft.loggers.TensorBoard\(\)"),
        ({"loggers": [np.zeros(3)]}, r"loggers has array\(.*; it must be a function"),
        ({"loggers": [[]]}, r"loggers has \[\]; it must be a function"),
        ({"on_report": "print"}, "on_report is 'print'; it must be a function"),
    ],
)
def test_what_no_run_can_be_is_refused_in_a_line(settings: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=told):
        jaxsoft.train("soft_q_stream", "finite/Chain-5", out=tmp_path / "run", **(SMALL | settings))
    assert not list(tmp_path.glob("run/*"))


def test_a_bar_shows_where_a_person_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    config = RunConfig("finite/Chain-5", make_config("soft_q_stream", "finite/Chain-5", SMALL))

    def shown(progress: bool | None, *, is_terminal: bool) -> str:
        stream = io.StringIO()
        monkeypatch.setattr(stream, "isatty", lambda: is_terminal, raising=False)
        monkeypatch.setattr(sys, "stdout", stream)
        with watched_bar(config, progress):
            pass
        monkeypatch.undo()
        return stream.getvalue()

    assert not shown(None, is_terminal=False)
    assert "compiling" in shown(None, is_terminal=True)
    assert "compiling" in shown(True, is_terminal=False)
    assert not shown(False, is_terminal=True)


NEWCOMER = """
import dataclasses, shutil, sys

import jax
import jax.numpy as jnp
import numpy as np

import jaxsoft
from jaxsoft.agents.soft_q_stream import KIND
from jaxsoft import Discrete, Env, EnvSpec, make_time_step

spec = EnvSpec("own/Line", (1,), np.dtype(np.float32), Discrete(2), max_episode_steps=10)


def reset(key):
    return jnp.int32(0), make_time_step(jnp.zeros(1))


def step(key, state, action):
    state = state + 2 * action - 1
    return state, make_time_step(state[None] / 3.0, state == 3, terminated=abs(state) == 3)


env = Env(spec, reset, step)
kind = dataclasses.replace(KIND, name="mine")
reports = []
result = jaxsoft.train(
    kind, env, num_seeds=2, total_timesteps=40, eval_every=20, hidden_sizes=(4,),
    on_report=reports.append, loggers=[jaxsoft.loggers.JsonLines("line.jsonl")],
)
assert [report.timestep for report in reports] == [20, 40]
assert len(open("line.jsonl").readlines()) == 2
assert len(result.metrics.to_pandas()) == 4
assert result.states.policy.params["params"]["Dense_0"]["kernel"].shape == (2, 1, 4)
assert result.policy(seed=1)(np.zeros((3, 1), np.float32)).shape == (3,)
assert result.evaluate(num_episodes=2).mean_returns.shape == (1, 2)
assert result.plot().exists()
shutil.copytree(result.path, "runs/x")
again = jaxsoft.open_run("runs/x", env=env)
assert again.is_finished and again.metrics.equals(result.metrics)
try:
    jaxsoft.open_run("runs/x").policy()
except ValueError as error:
    assert "own/Line" in str(error), error
else:
    raise AssertionError("an environment was made of nothing")
print("done", result.path, file=sys.stderr)
"""


def test_from_an_empty_folder_to_a_plot_in_an_environment_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "newcomer.py").write_text(NEWCOMER)
    done = subprocess.run(
        [sys.executable, "newcomer.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    *_, word, folder = done.stderr.split()
    assert word == "done"
    assert not Path(folder).exists()  # it went with the process
    assert not done.stdout  # nobody watches, so there is no bar
    assert "mine" not in AGENTS
    with pytest.raises(InputError, match="the agent mine is not known; if code of your own registers it"):
        jaxsoft.open_run(tmp_path / "runs" / "x")


def test_another_kind_or_environment_of_the_same_name_is_refused(whole: tuple[Result, list[Report]]) -> None:
    other = dataclasses.replace(get_agent("sac"), check=lambda config, num_envs: None)
    with pytest.raises(InputError, match="sac is registered already, as another agent"):
        jaxsoft.train(other, "gymnax/Pendulum-v1", total_timesteps=1_000)
    env = jaxsoft.make_env("finite/Chain-20")
    with pytest.raises(InputError, match=r"env is finite/Chain-20; .* was trained in finite/Chain-5"):
        jaxsoft.open_run(whole[0].path, env=env).evaluate(num_episodes=1)

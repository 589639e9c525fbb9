"""An agent that is defined outside of the package goes wherever a built-in one goes."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from types import FunctionType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.munchausen import KIND, LOWEST_BONUS, Config, munchausen_targets
from support.one_update import BATCH_SIZE, DISCOUNT, DISCRETE, NUM_ACTIONS, TEMPERATURE, a_batch
from support.probe_envs import choice_ahead

import jaxsoft
from jaxsoft import agents
from jaxsoft.agents import AGENTS, get_agent
from jaxsoft.cli import main
from jaxsoft.errors import InputError
from jaxsoft.runs import RunConfig, read_config, resume, train
from jaxsoft.training.config import make_config
from jaxsoft.types import Agent, AgentConfig, AgentKind, Discrete, Rollouts

ENV_ID = "finite/Chain-5"


def test_its_targets_match_numpy() -> None:
    config = Config(temperature=TEMPERATURE, discount=DISCOUNT, munchausen_weight=0.5)
    batch = a_batch(DISCRETE, BATCH_SIZE)
    table = np.random.default_rng(0).normal(size=(2, NUM_ACTIONS)).astype(np.float32)
    actual = munchausen_targets(table, lambda params, obs: obs @ params, batch, config)
    q, next_q = (np.asarray(obs, np.float64) @ table for obs in (batch.obs, batch.next_obs))
    values, next_values = (TEMPERATURE * np.log(np.exp(x / TEMPERATURE).sum(-1)) for x in (q, next_q))
    bonus = q[np.arange(BATCH_SIZE), batch.action] - values
    assert (bonus < LOWEST_BONUS).any()
    expected = batch.reward + 0.5 * np.maximum(bonus, LOWEST_BONUS)
    expected += DISCOUNT * np.where(batch.terminated, 0, next_values)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_make_train_takes_it_and_it_learns() -> None:
    train_seeds = jax.jit(jax.vmap(jaxsoft.make_train(KIND, choice_ahead((1.0, 0.5, -1.0)), total_timesteps=1500)))
    _, metrics = train_seeds(jax.random.split(jax.random.key(0), 2))
    assert not np.any(metrics["failed_at"])
    assert np.all(np.asarray(metrics["eval_return"])[:, -1] == 1)  # of the best arm


def test_a_run_directory_needs_its_name_only_to_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    settings = {"total_timesteps": 200, "eval_every": 100, "eval_episodes": 1, "hidden_sizes": (8,)}
    config = RunConfig(ENV_ID, make_config(KIND, ENV_ID, settings), num_seeds=2, checkpoint_every=100)
    *_, last = train(run, config)
    assert last.timestep == 200
    assert json.loads((run / "config.json").read_text())["agent"]["name"] == KIND.name
    with pytest.raises(InputError, match=r"the agent munchausen is not known; .* name that with --import FILE"):
        read_config(run)
    monkeypatch.setitem(AGENTS, KIND.name, KIND)
    assert read_config(run).train == config.train
    log_pi = np.asarray(jaxsoft.load_reference(run)(jnp.eye(5)))
    policy = jaxsoft.load_policy(run)
    assert [policy(x) for x in np.eye(5, dtype=np.float32)] == log_pi.argmax(-1).tolist()
    *_, last = resume(run, total_timesteps=300)
    assert last.timestep == 300


def test_the_command_line_takes_it_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(AGENTS, KIND.name, KIND)  # taken out again after the test
    del AGENTS[KIND.name]
    own, run = tmp_path / "own_agent.py", str(tmp_path / "run")
    own.write_text("import jaxsoft\nfrom support.munchausen import KIND\n\njaxsoft.register_agent(KIND)\n")
    small = "--total-timesteps 200 --eval-every 100 --eval-episodes 1 --hidden-sizes 8 --munchausen-weight 0.5".split()
    train_it = ["train", "munchausen", ENV_ID, *small, "--sweep", "temperature=0.1,1", "--out", run]
    assert main(train_it) == 2
    told = capsys.readouterr().err
    assert "unknown agent 'munchausen'" in told
    assert "--import FILE brings in those of your own" in told
    assert main([*train_it, "--import", str(own)]) == 0
    assert f"(jaxsoft eval {run} --import {own})" in capsys.readouterr().out
    assert main(["eval", run, "--num-episodes", "1"]) == 0
    assert main(["extend", run, "--total-timesteps", "300"]) == 0
    assert read_config(Path(run)).train.agent.munchausen_weight == 0.5  # type: ignore[attr-defined]
    assert main(["list"]) == 0
    assert "munchausen" in capsys.readouterr().out


def test_a_name_is_one_agents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(AGENTS, KIND.name, KIND)  # taken out again after the test
    del AGENTS[KIND.name]
    jaxsoft.register_agent(KIND)
    again = replace(KIND, make=FunctionType(KIND.make.__code__, KIND.make.__globals__))  # as a reload makes it
    again.make.__module__, again.make.__qualname__ = KIND.make.__module__, KIND.make.__qualname__
    jaxsoft.register_agent(again)
    assert AGENTS[KIND.name] is again
    with pytest.raises(InputError, match="munchausen is registered already, as another agent"):
        jaxsoft.register_agent(replace(again, check=print))
    for kind, message in (
        (replace(KIND, name="sac"), "sac is registered already, as another agent"),
        (replace(KIND, name="my agent"), "the agent's name is 'my agent'; it must be a word"),
        (Config, "it must be an AgentKind"),
    ):
        with pytest.raises(InputError, match=message):
            jaxsoft.register_agent(kind)  # type: ignore[arg-type]


def test_an_installed_package_names_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(AGENTS, KIND.name, KIND)  # taken out again after the test
    del AGENTS[KIND.name]
    entries = {
        "munchausen": "support.munchausen:KIND",
        "other": "support.munchausen:KIND",
        "gone": "no_such_module:KIND",
        "no_kind": "support.munchausen:Config",
    }
    packages = [EntryPoint(name, value, agents.GROUP) for name, value in entries.items()]
    monkeypatch.setattr(agents, "entry_points", lambda group: packages)
    for name, message in (
        ("gone", r"gone cannot be imported from no_such_module:KIND \(ModuleNotFoundError"),
        ("no_kind", "it must be an AgentKind"),
        ("other", "the entry point other is of an agent with another name, munchausen"),
        ("munchause", "did you mean munchausen"),
    ):
        with pytest.raises(InputError, match=message):
            get_agent(name)
    assert KIND.name not in AGENTS
    packages[1:] = []
    assert main(["list"]) == 0
    assert "munchausen" in capsys.readouterr().out
    assert get_agent("munchausen") is KIND


@pytest.mark.parametrize("state", [(), jnp.zeros(3), jnp.int32(7)], ids=["nothing", "an array", "a count"])
def test_an_agent_may_have_no_metrics_and_next_to_no_state(
    state: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def choose(
        key: jax.Array, state: Any, obs: jax.Array, *, deterministic: bool = False
    ) -> tuple[jax.Array, jax.Array]:
        return jax.random.bernoulli(key, shape=obs.shape[:-1]).astype(jnp.int32), jnp.full(obs.shape[:-1], -jnp.log(2))

    agent = Agent(lambda key: state, choose, lambda key, own, batch: (own, {}), choose, ())
    kind = AgentKind("nobody", AgentConfig, (Discrete,), lambda config: Rollouts(8), lambda *_: agent)
    monkeypatch.setitem(AGENTS, "nobody", kind)
    settings = {"num_seeds": 2, "eval_every": 40, "eval_episodes": 1, "checkpoint_every": 40, "progress": False}
    run = jaxsoft.train(kind, ENV_ID, total_timesteps=80, **settings, out=tmp_path / "run").extend(120, progress=False)
    assert run.is_finished
    assert run.metrics["failed_at"].null_count == len(run.metrics)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, np.broadcast_to(y, x.shape)), run.states, state)
    assert len(run.evaluate(num_episodes=2).evaluation.returns) == 2

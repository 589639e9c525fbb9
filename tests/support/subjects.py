"""Small runs of every agent in a probe environment, which tests interrupt, kill, and compare."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from jaxsoft.agents import AGENTS
from jaxsoft.fleet.hosts import ALONE
from jaxsoft.fleet.programs import Program, make_program
from jaxsoft.runs import config as config_file
from jaxsoft.runs import directory
from jaxsoft.runs.config import RunConfig
from jaxsoft.runs.driver import Progress, train_run
from jaxsoft.runs.plan import Plan
from jaxsoft.training.config import make_config
from jaxsoft.types import Box, Discrete
from support.probe_envs import UNIT_BOX, ends_both_ways

SMALL: dict[str, Any] = {
    "total_timesteps": 96,
    "eval_every": 32,
    "eval_episodes": 2,
    "num_envs": 2,
    "scale_rewards": True,
    "hidden_sizes": (8,),
    "normalise_obs": True,
    "learning_rate": 1e-2,
    "learning_starts": 10,
    "batch_size": 4,
    "replay_capacity": 64,
    "sequence_length": 3,
    "rollout_length": 4,
    "num_epochs": 1,
    "num_minibatches": 2,
    "reference": "average",
    "exploration": 0.5,
    "final_exploration": 0.1,
}
"""Whatever an agent has of these."""

ONE_ENV = {"sac_stream", "soft_q_stream"}


class Subject(NamedTuple):
    """A small run of one agent, its compiled program, and the directory of it that nothing interrupted."""

    config: RunConfig
    program: Program
    whole: Path


def small_config(agent: str, **settings: Any) -> RunConfig:
    known = {field.name for field in dataclasses.fields(AGENTS[agent].Config)} | set(vars(make_config(agent, "", {})))
    chosen = {name: value for name, value in (SMALL | settings).items() if name in known}
    if agent in ONE_ENV:
        chosen["num_envs"] = 1
    config = make_config(agent, "probe/ends_both_ways", chosen)
    return RunConfig("probe/ends_both_ways", config, seed=3, num_seeds=2, checkpoint_every=20)


def prepare(config: RunConfig, whole: Path) -> Subject:
    space = UNIT_BOX if Box in config.train.kind.action_spaces else Discrete(3)
    return Subject(config, make_program(ends_both_ways(0.2, 5, space), config.train), whole)


def train(subject: Subject, path: Path, **options: Any) -> list[Progress]:
    if not (path / config_file.CONFIG).exists():
        directory.create(path, subject.config)
    plan = Plan(subject.config, subject.program.loop.env, [], [], [], ALONE)
    return list(train_run(path, plan, [subject.program], **options))


def after(num_slices: int) -> Callable[[], bool]:
    """A request to stop that comes with the slice of that number."""
    slices = iter(range(num_slices))
    return lambda: next(slices, None) is None

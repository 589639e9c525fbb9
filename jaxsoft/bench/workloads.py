"""The workloads: names, settings, and the numbers of members at which they are measured when time is short."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from jaxsoft.bench.cases import Case, replay_turns, returns_turns, training
from jaxsoft.errors import InputError, nearest


class Workload(NamedTuple):
    """A kind of work, for any number of members.

    Attributes:
        name: for the command line and the results.
        summary: in words.
        settings: what `make` takes.
        members: numbers of members that are measured when time is short, the most telling first.
        make: `(settings, num_members, devices) -> Case`.
        unit: what is counted as a step.
    """

    name: str
    summary: str
    settings: Mapping[str, Any]
    members: tuple[int, ...]
    make: Callable[[Mapping[str, Any], int, Sequence[Any]], Case] = training
    unit: str = "steps"


PENDULUM, CARTPOLE = "gymnax/Pendulum-v1", "gymnax/CartPole-v1"
ENDLESS = {"total_timesteps": 10**8, "eval_every": 0}
SMALL = ENDLESS | {
    "learning_rate": 1e-3,
    "hidden_sizes": (64, 64),
    "batch_size": 64,
    "replay_capacity": 10_000,
    "learning_starts": 500,
    "num_envs": 1,
}
LARGE = SMALL | {"hidden_sizes": (256, 256), "batch_size": 256, "replay_capacity": 100_000}
ROBOT = LARGE | {"learning_starts": 128, "updates_per_step": 1}  # random steps are not timed, and these are slow
ROLLOUTS = ENDLESS | {
    "num_envs": 64,
    "rollout_length": 64,
    "num_epochs": 2,
    "num_minibatches": 16,
    "hidden_sizes": (64, 64),
}


MINATAR = "gymnax/Breakout-MinAtar"
SHORT_REPORTS = {"eval_every": 10**6, "eval_episodes": 10}


def _training(name: str, summary: str, agent: str, env: str, settings: Mapping[str, Any], *members: int) -> Workload:
    return Workload(name, summary, {"agent": agent, "env": env, **settings}, members)


WORKLOADS = [
    _training("sac-small", "SAC, Pendulum, (64, 64), batch 64", "sac", PENDULUM, SMALL, 1024, 1, 64),
    _training("soft-q", "Soft Q(λ), CartPole, 64 envs × 64 steps", "soft_q", CARTPOLE, ROLLOUTS, 64, 1024, 1),
    _training("sac-large", "SAC, Pendulum, (256, 256), batch 256", "sac", PENDULUM, LARGE, 256, 1, 64),
    _training("soft-q-stream", "Soft Q(λ) on a stream", "soft_q_stream", CARTPOLE, ENDLESS, 1024, 1, 16384),
    _training("mjx-hopper", "SAC, Hopper in MJX, (256, 256), batch 256", "sac", "mjx/Hopper-v5", ROBOT, 64),
    _training("brax-hopper", "SAC, Hopper in Brax, (256, 256), batch 256", "sac", "brax/hopper", ROBOT, 64, 1),
    _training("soft-q-minatar", "Soft Q(λ), MinAtar Breakout, its preset", "soft_q", MINATAR, ENDLESS, 32, 1),
    _training("ppo", "PPO, Pendulum, 64 envs × 64 steps", "ppo", PENDULUM, ROLLOUTS, 64, 1),
    _training("td3", "TD3, Pendulum, (64, 64), batch 64", "td3", PENDULUM, SMALL, 64, 1),
    _training("sac-discrete", "SAC for discrete actions, CartPole", "sac_discrete", CARTPOLE, SMALL, 64, 1),
    _training("sac-v1", "SAC's first version, Pendulum, (64, 64)", "sac_v1", PENDULUM, SMALL, 64, 1),
    _training("soft-q-replay", "Soft Q(λ) on a replay, CartPole", "soft_q_replay", CARTPOLE, SMALL, 64, 1),
    _training(
        "brax-hopper-128",
        "SAC, Hopper in Brax, 128 envs, 64 updates a turn",
        "sac",
        "brax/hopper",
        ROBOT | {"num_envs": 128, "updates_per_step": 64},
        1,
    ),
    _training("evaluation", "10 episodes, Pendulum", "sac", PENDULUM, SMALL | SHORT_REPORTS, 64, 1)._replace(
        make=partial(training, evaluates=True)
    ),
    Workload(
        "replay",
        "a transition added, a batch of 256 drawn",
        {"capacity": 100_000, "batch_size": 256, "obs_size": 11, "action_size": 3},
        (64, 1),
        replay_turns,
        "transitions",
    ),
    Workload(
        "lambda-returns",
        "λ-returns of 64 envs × 64 steps",
        {"rollout_length": 64, "num_envs": 64},
        (64, 1),
        returns_turns,
        "returns",
    ),
]
"""In the order of their worth: when time runs out the last are missing."""

QUICK = ("sac-small", "soft-q", "soft-q-stream", "evaluation", "replay", "lambda-returns")
"""The workloads of a quick benchmark."""

QUICK_MEMBERS = (1, 16)


def find_workloads(names: Sequence[str]) -> list[Workload]:
    """The workloads of these names, in their own order; without names all of them.

    Raises:
        InputError: there is none of a name.
    """
    known = [workload.name for workload in WORKLOADS]
    for name in names:
        if name not in known:
            raise InputError(f"no workload {name!r}{nearest(name, known)} (workloads: {', '.join(known)})")
    return [workload for workload in WORKLOADS if not names or workload.name in names]

"""Agents by name. Each is a module with a `Config`, the spaces it acts in, its losses and `make`."""

from __future__ import annotations

from types import ModuleType

from jaxsoft.agents import ddpg, ppo, sac, sac_discrete, sac_v1, soft_q, soft_q_replay, soft_q_stream, td3
from jaxsoft.errors import InputError, nearest

AGENTS: dict[str, ModuleType] = {
    "sac": sac,
    "sac_v1": sac_v1,
    "sac_discrete": sac_discrete,
    "td3": td3,
    "ddpg": ddpg,
    "ppo": ppo,
    "soft_q": soft_q,
    "soft_q_replay": soft_q_replay,
    "soft_q_stream": soft_q_stream,
}


def get_agent(name: str) -> ModuleType:
    """The module of one agent.

    Raises:
        InputError: there is no such agent; the nearest names are suggested.
    """
    if name not in AGENTS:
        raise InputError(f"unknown agent {name!r}{nearest(name, AGENTS)} (agents: {', '.join(AGENTS)})")
    return AGENTS[name]

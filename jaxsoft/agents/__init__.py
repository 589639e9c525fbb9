"""Agents by name. Each is a file with its settings, its losses, `make`, and its `KIND`, which joins them."""

from __future__ import annotations

from jaxsoft.agents import ddpg, ppo, sac, sac_discrete, sac_v1, soft_q, soft_q_replay, soft_q_stream, td3
from jaxsoft.errors import InputError, nearest
from jaxsoft.types import AgentKind

MODULES = (sac, sac_v1, sac_discrete, td3, ddpg, ppo, soft_q, soft_q_replay, soft_q_stream)

AGENTS: dict[str, AgentKind] = {module.KIND.name: module.KIND for module in MODULES}


def get_agent(agent: str | AgentKind) -> AgentKind:
    """The kind of agent that has a name; a kind is returned as it is.

    Raises:
        InputError: there is no such agent; the nearest names are suggested.
    """
    if isinstance(agent, AgentKind):
        return agent
    if agent not in AGENTS:
        raise InputError(f"unknown agent {agent!r}{nearest(agent, AGENTS)} (agents: {', '.join(AGENTS)})")
    return AGENTS[agent]

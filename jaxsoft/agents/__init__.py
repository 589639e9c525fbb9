"""Agents by name. Each is a file with its settings, its losses, `make`, and its `KIND`, which joins them."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

from jaxsoft.agents import ddpg, ppo, sac, sac_discrete, sac_stream, sac_v1, soft_q, soft_q_replay, soft_q_stream, td3
from jaxsoft.errors import InputError, is_defined_anew, load_entry, nearest
from jaxsoft.types import AgentKind

MODULES = (sac, sac_v1, sac_discrete, sac_stream, td3, ddpg, ppo, soft_q, soft_q_replay, soft_q_stream)

AGENTS: dict[str, AgentKind] = {module.KIND.name: module.KIND for module in MODULES}


GROUP = "jaxsoft.agents"
"""Group of entry points: `mine = "package.module:KIND"` in a package's `[project.entry-points."jaxsoft.agents"]`."""


def register_agent(kind: AgentKind) -> None:
    """Gives an agent of one's own a name, which then goes wherever a name of jaxsoft's does.

    A run remembers the name, never the code: whoever reads the run registers the kind before. A kind whose `make` is
    the same function of the same module, defined anew, takes the earlier one's place: a cell may be run twice.

    Raises:
        InputError: it is no kind, or its name is none or another kind's.
    """
    if not isinstance(kind, AgentKind):
        raise InputError(f"kind is {kind!r}; it must be an AgentKind")
    if not kind.name.isidentifier():
        raise InputError(f"the agent's name is {kind.name!r}; it must be a word of letters, digits and underscores")
    before = AGENTS.get(kind.name, kind)
    is_ours = any(before is module.KIND for module in MODULES)
    if before != kind and (is_ours or not is_defined_anew(before.make, kind.make)):
        raise InputError(f"{kind.name} is registered already, as another agent; take another name for this one")
    AGENTS[kind.name] = kind


def installed_agents() -> dict[str, EntryPoint]:
    """The entry points in which installed packages name agents, by name; imports none of them."""
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _load_installed(entry: EntryPoint) -> None:
    """Registers the kind that an entry point names.

    Raises:
        InputError: it cannot be imported, is no kind that can be registered, or has another name.
    """
    kind = load_entry(entry)
    if isinstance(kind, AgentKind) and kind.name != entry.name:
        raise InputError(f"the entry point {entry.name} is of an agent with another name, {kind.name}")
    register_agent(kind)


def get_agent(agent: str | AgentKind) -> AgentKind:
    """The kind of agent that has a name; a kind is returned as it is.

    Raises:
        InputError: there is no such agent; the nearest names are suggested.
    """
    if isinstance(agent, AgentKind):
        return agent
    if agent not in AGENTS:
        installed = installed_agents()
        if agent not in installed:
            known = list(dict.fromkeys([*AGENTS, *installed]))
            hint = f"agents: {', '.join(known)}; --import FILE brings in those of your own"
            raise InputError(f"unknown agent {agent!r}{nearest(agent, known)} ({hint})")
        _load_installed(installed[agent])
    return AGENTS[agent]


def agent_of_run(name: str) -> AgentKind:
    """The kind of agent that a run names, with a word of its own where code of the run's author is missing.

    Raises:
        InputError: as `get_agent`.
    """
    if name not in AGENTS and name not in installed_agents():
        raise InputError(
            f"the agent {name} is not known; if code of your own registers it, name that with --import FILE (in "
            "Python: import it)"
        )
    return get_agent(name)

"""`jaxsoft list`: agents and environments."""

from __future__ import annotations

from dataclasses import dataclass

from rich.table import Column, Table

from jaxsoft.agents import AGENTS, get_agent, installed_agents
from jaxsoft.cli.console import FittingTable, make_console, wrap
from jaxsoft.cli.options import parse_options
from jaxsoft.envs import SUITES, env_spec, missing_extras
from jaxsoft.envs import names as env_names
from jaxsoft.errors import InputError
from jaxsoft.training.config import preset
from jaxsoft.types import Box, Discrete


@dataclass(frozen=True)
class ListOptions:
    """Show all agents and environments, with their spaces, time limits and tuned presets."""


def list_command(argv: list[str]) -> None:
    """`jaxsoft list`."""
    parse_options(ListOptions, "jaxsoft list", argv)
    console = make_console()
    agents = Table("agent", "actions", title="agents")
    words = {Box: "continuous", Discrete: "discrete"}
    for name in dict.fromkeys([*AGENTS, *installed_agents()]):
        try:
            agents.add_row(name, ", ".join(words[space] for space in get_agent(name).action_spaces))
        except InputError:  # what an installed package names cannot be imported
            agents.add_row(name, "cannot be imported")
    columns = ("environment", "observation", "actions", "time limit", "tuned preset")
    environments = Table(*(Column(x, no_wrap=x != "tuned preset") for x in columns), title="environments")
    rows: list[tuple[str, ...]] = [columns]
    for env_id in env_names():
        if SUITES[env_id.partition("/")[0]]().slow:
            rows.append((env_id,))
            continue
        try:
            spec = env_spec(env_id)
        except InputError:
            rows.append((env_id, "needs a download" if env_id.startswith("gymnax/") else "cannot be made"))
            continue
        tuned = ", ".join(name for name, kind in AGENTS.items() if preset(kind, env_id))
        shape = " × ".join(map(str, spec.obs_shape))
        rows.append((env_id, shape, str(spec.action_space), f"{spec.max_episode_steps:,}", tuned))
    for row in rows[1:]:
        environments.add_row(*row)
    console.print(agents)
    console.print(FittingTable(environments, ["  ".join(row) for row in rows]))
    if missing := missing_extras():
        line = f"not installed: {', '.join(missing)} (pip install 'jaxsoft[{missing[0]}]')"
        for part in wrap(line, console.width):
            console.print(part, soft_wrap=True)

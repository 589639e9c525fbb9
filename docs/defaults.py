"""Writes the table of defaults into docs/agents.md: `python docs/defaults.py`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from jaxsoft.agents import AGENTS
from jaxsoft.training.config import make_config, settings_of

PAGE = Path(__file__).with_name("agents.md")


def main() -> None:
    """Writes it."""
    PAGE.write_text(filled(PAGE.read_text()))


def filled(page: str) -> str:
    """The page with the table between its two marks."""
    return re.sub(r"(?<=<!-- defaults -->\n\n).*?(?=\n\n<!-- end -->)", make_table(), page, flags=re.DOTALL)


def make_table() -> str:
    """Setting × agent, in Markdown: what an agent has where neither the user nor a preset says otherwise."""
    defaults = {agent: settings_of(make_config(agent, "without/preset", {})) for agent in AGENTS}
    names = dict.fromkeys(name for settings in defaults.values() for name in settings)
    head = ["setting", *(f"`{agent}`" for agent in AGENTS)]
    rows = [[f"`{name}`", *(_cell(settings, name) for settings in defaults.values())] for name in names]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] + ["--:"] * len(AGENTS), *rows])


def _cell(settings: dict[str, Any], name: str) -> str:
    value = settings.get(name, "")
    if isinstance(value, tuple):
        return "×".join(map(str, value))
    if isinstance(value, (bool, str)) or value is None:
        return str(value).lower()
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


if __name__ == "__main__":
    main()

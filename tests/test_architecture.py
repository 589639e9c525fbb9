"""How far it is from the command to the compiled call."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest

import jaxsoft
from jaxsoft.cli import main
from jaxsoft.fleet import programs

PACKAGE = Path(jaxsoft.__file__).parent
MOST_STEPS = 30


def test_a_setting_is_few_calls_away_from_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stacks: list[list[str]] = []
    take_turn = programs.take_turn

    def watched(*args: Any, **kwargs: Any) -> Any:
        frames = traceback.extract_stack()
        own = [frame for frame in frames if Path(frame.filename).is_relative_to(PACKAGE)]
        stacks.append([f"{Path(frame.filename).relative_to(PACKAGE)}: {frame.name}" for frame in own])
        return take_turn(*args, **kwargs)

    monkeypatch.setattr(programs, "take_turn", watched)
    small = "--agent.hidden-sizes 4 --total-timesteps 10 --eval-every 0 --checkpoint-every 0"
    assert main(["train", "soft_q_stream", "finite/Chain-5", *small.split(), "--out", str(tmp_path / "run")]) == 0
    assert stacks
    for stack in stacks:
        assert stack[0].startswith("cli/")
        assert len(stack) < MOST_STEPS, stack

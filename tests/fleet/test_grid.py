"""Grids of settings: their cells, programs and chunks, and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxsoft.agents import AGENTS
from jaxsoft.errors import InputError
from jaxsoft.fleet.grid import (
    Grid,
    cells_of,
    check_grid,
    find_cell,
    lay_out,
    parse_grid,
    value_in_words,
)
from jaxsoft.fleet.hosts import Hosts
from jaxsoft.runs.config import RunConfig
from jaxsoft.runs.plan import fair_shares
from jaxsoft.training.config import make_config


def test_a_grid_is_read_as_it_is_written() -> None:
    texts = ["agent.learning-rate=1e-4,3e-4", "lambda=0,1", "hidden-sizes=64x64,8,None", "learn_temperature=true,False"]
    assert parse_grid(AGENTS["sac"], [*texts, "target-entropy=NONE,-1", "num-envs=1,4e0"]) == {
        "learning_rate": (1e-4, 3e-4),
        "lambda_": (0.0, 1.0),
        "hidden_sizes": ((64, 64), (8,), ()),
        "learn_temperature": (True, False),
        "target_entropy": (None, -1.0),
        "num_envs": (1, 4),
    }


@given(st.floats(1e-300, 1e300))
def test_a_value_is_told_as_it_can_be_written(value: float) -> None:
    assert parse_grid(AGENTS["sac"], [f"learning-rate={value_in_words(value)}"]) == {"learning_rate": (value,)}


def test_only_numbers_share_a_program() -> None:
    grid = check_grid(AGENTS["sac"], {"learning_rate": [1e-4, 1e-3], "batch_size": [8, 16], "discount": [0.9, 1]})
    assert cells_of(grid)[:2] == [
        {"learning_rate": 1e-4, "batch_size": 8, "discount": 0.9},
        {"learning_rate": 1e-4, "batch_size": 8, "discount": 1.0},
    ]
    assert [cells.tolist() for cells in programs_of("sac", grid)] == [[0, 1, 4, 5], [2, 3, 6, 7]]
    # where one of the values is none the program itself is another
    assert len(programs_of("sac", {"target_entropy": (-1.0, -2.0)})) == 1
    assert len(programs_of("sac", {"target_entropy": (None, -1.0, -2.0)})) == 3
    # a number of the agent that shapes its networks
    assert len(programs_of("soft_q_stream", {"sparsity": (0.5, 0.9)})) == 2


def programs_of(agent: str, grid: Grid) -> list[np.ndarray]:
    return lay_out(AGENTS[agent], grid, np.arange(1), 0).programs


def test_chunks_hold_members_of_one_program() -> None:
    grid = {"learning_rate": (1e-4, 1e-3), "batch_size": (8, 16)}
    chunks = lay_out(AGENTS["sac"], grid, np.arange(5, 8), size=4).chunks
    assert [chunk.name for chunk in chunks] == ["0.5-2.5", "2.6-2.7", "1.5-3.5", "3.6-3.7"]
    assert [chunk.program for chunk in chunks] == [0, 0, 1, 1]
    assert chunks[0].cells.tolist() == [0, 0, 0, 2]
    assert chunks[0].seeds.tolist() == [5, 6, 7, 5]
    members = {(c, s) for chunk in chunks for c, s in zip(chunk.cells.tolist(), chunk.seeds.tolist(), strict=True)}
    assert members == {(c, s) for c in range(4) for s in (5, 6, 7)}
    (whole,) = lay_out(AGENTS["sac"], {}, np.arange(5, 8), size=0).chunks
    assert whole.name == "5-7"


def test_every_process_gets_about_as_much() -> None:
    grid = {"learning_rate": (1e-4, 1e-3), "batch_size": (8, 16, 32)}  # three programs
    config = RunConfig("gymnax/Pendulum-v1", make_config("sac", "", {}), num_seeds=4, sweep=grid)
    assert [fair_shares(config, Hosts(0, count)) for count in (1, 2, 3, 4, 24)] == [
        [size] * 3 for size in (8, 8, 8, 4, 1)
    ]
    one_program = dataclasses.replace(config, num_seeds=10, sweep={})
    assert [fair_shares(one_program, Hosts(0, count)) for count in (1, 4, 20)] == [[10], [3], [1]]


def test_a_cell_is_named_by_its_settings() -> None:
    cells = cells_of({"learning_rate": (1e-4, 1e-3), "hidden_sizes": ((8,), (8, 8))})
    assert find_cell(cells, {"learning_rate": 1e-3, "hidden_sizes": (8,)}) == 2
    listed = "it must name one of: learning_rate=0.0001, hidden_sizes=8; learning_rate=0.0001, hidden_sizes=8x8; learn"
    for settings, asked in (
        ({"learning_rate": 1e-3}, "learning_rate=0.001 names 2 cells"),
        ({"learning_rate": 0.5}, "learning_rate=0.5 names 0 cells"),
        ({"discount": 0.5}, "discount=0.5 names 0 cells"),
        ({}, "nothing names 4 cells"),
    ):
        with pytest.raises(InputError, match=f"{asked} of the sweep; {listed}"):
            find_cell(cells, settings)
    assert find_cell([{}], {}) == 0
    with pytest.raises(InputError, match=r"learning_rate=0\.5 names no cell: the run is no sweep"):
        find_cell([{}], {"learning_rate": 0.5})

"""Grids of settings, and their division into programs and chunks.

    grid      settings by name, each with the values that it takes
    cell      one value of each; every combination is one, the last setting's values changing fastest
    member    one seed of one cell
    program   the cells that differ only in numbers which a program can take as arguments, floating-point settings of
              the agent. Other sizes, words, settings of the loop, or none instead of a number make another program.
    chunk     members of one program that are trained at once

A seed is the same random key in every cell.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Number
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxsoft.agents.references import Reference, is_built_in
from jaxsoft.errors import InputError
from jaxsoft.training.config import RULES, check, coerce_all, setting_types
from jaxsoft.types import AgentKind

Grid = Mapping[str, tuple[Any, ...]]
Cell = Mapping[str, Any]

MOST_CELLS, MOST_MEMBERS = 10_000, 1_000_000

FIXED = ("total_timesteps", "eval_every")
"""Settings that say when reports are made: cells are compared at the same timesteps."""

MOST_LISTED = 12
"""How many cells an error message lists."""


class Chunk(NamedTuple):
    """Members that are trained at once.

    Attributes:
        name: its first and last member, of an empty grid their seeds alone.
        program: the number of their program.
        cells: [num_members], int32, the number of each one's cell.
        seeds: [num_members], int32.
    """

    name: str
    program: int
    cells: np.ndarray
    seeds: np.ndarray


class Layout(NamedTuple):
    """The division of a grid and its seeds.

    Attributes:
        cells: every combination of the settings' values; without a grid one cell, with none.
        arguments: names of the settings that are arguments of the programs, and not their constants.
        programs: numbers of the cells of each program, int32.
        chunks: all members in the order of training, cell by cell of each program.
    """

    cells: list[Cell]
    arguments: list[str]
    programs: list[np.ndarray]
    chunks: list[Chunk]


def lay_out(kind: AgentKind, grid: Grid, seeds: np.ndarray, size: int) -> Layout:
    """Divides a grid of an agent's settings, and the seeds [num_seeds] of every cell.

    A chunk has `size` members; only the last one of a program may have fewer. 0: every program is one chunk.
    """
    cells, arguments = cells_of(grid), argument_names(kind, grid)
    numbers: dict[tuple, list[int]] = {}
    for i, cell in enumerate(cells):
        constants = tuple(value for name, value in cell.items() if name not in arguments)
        numbers.setdefault(constants, []).append(i)
    programs = [np.array(own, np.int32) for own in numbers.values()]
    chunks = []
    for program, own in enumerate(programs):
        all_cells, all_seeds = np.repeat(own, len(seeds)), np.tile(seeds, len(own))
        for i in range(0, len(all_cells), size or len(all_cells)):
            part = slice(i, i + (size or len(all_cells)))
            own_cells, own_seeds = all_cells[part], all_seeds[part]
            ends = (f"{own_cells[j]}.{own_seeds[j]}" if grid else str(own_seeds[j]) for j in (0, -1))
            chunks.append(Chunk("-".join(ends), program, own_cells, own_seeds))
    return Layout(cells, arguments, programs, chunks)


def cells_of(grid: Grid) -> list[Cell]:
    """All cells; an empty grid has one, without settings.

    >>> cells_of({"discount": (0.9, 0.99), "num_envs": (1,)})
    [{'discount': 0.9, 'num_envs': 1}, {'discount': 0.99, 'num_envs': 1}]
    """
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def argument_names(kind: AgentKind, grid: Grid) -> list[str]:
    """The settings that are arguments of programs: numbers of the agent, all of whose values are numbers."""
    fields = dataclasses.fields(kind.Config)
    leaves = {field.name for field in fields if field.metadata.get("pytree_node", True)}
    return [name for name, values in grid.items() if name in leaves and all(type(x) is float for x in values)]


def parse_grid(kind: AgentKind, texts: Iterable[str]) -> Grid:
    """Parses a grid as the command line has it, one text per setting: `learning-rate=1e-4,3e-4`.

    Raises:
        InputError: that is no grid; see `check_grid`.
    """
    types, grid = setting_types(kind), {}
    for text in texts:
        written, equals, values = text.partition("=")
        name = written.removeprefix("agent.").rstrip("_").replace("-", "_")
        name = "lambda_" if name == "lambda" else name  # a word of Python's
        if not equals or not name:
            raise InputError(
                f"sweep is {text!r}; it must be SETTING=VALUE,VALUE,... (sizes: hidden-sizes=64x64,256x256)"
            )
        if name in grid:
            raise InputError(f"sweep names {name} twice; give all of its values at once, {name}=VALUE,VALUE,...")
        grid[name] = tuple(_value(x, types.get(name)) for x in values.split(","))
    return check_grid(kind, grid)


def split_sweep(kind: AgentKind, settings: Mapping[str, Any]) -> tuple[dict[str, Any], Grid]:
    """Splits keywords into settings and a grid: a setting that is given a list of values is swept over.

    The settings have the first value of each. Where a setting is sizes or logits, a flat list of numbers is one value.

    >>> from jaxsoft.agents import get_agent
    >>> split_sweep(get_agent("sac"), {"learning_rate": [1e-4, 1e-3], "hidden_sizes": [64, 64]})
    ({'learning_rate': 0.0001, 'hidden_sizes': [64, 64]}, {'learning_rate': (0.0001, 0.001)})
    """
    types, single, grid = setting_types(kind), {}, {}
    for name, value in settings.items():
        value = value.tolist() if isinstance(value, (np.ndarray, jax.Array)) else value
        values = tuple(value) if isinstance(value, (list, tuple, range)) else ()
        is_vector = types.get(name) in (tuple[int, ...], Reference) and all(isinstance(x, Number) for x in values)
        if values and not is_vector:
            grid[name] = values
        single[name] = grid.get(name, [value])[0]
    return single, grid


def _value(text: str, kind: Any) -> Any:
    """Parses a value of a setting of this type; what cannot be one stays text, which `check_grid` refuses."""
    if kind == tuple[int, ...]:
        return () if text.lower() == "none" else tuple(_number(size) for size in text.split("x"))
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    if kind in (int, float, float | None):
        return None if text.lower() == "none" else _number(text)
    return text


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def check_grid(kind: AgentKind, grid: Mapping[str, Sequence[Any]]) -> Grid:
    """The grid, every value checked by its setting's rule and converted to its type.

    Raises:
        InputError: names the setting, its value and what is allowed.
    """
    if math.prod(len(values) for values in grid.values()) > MOST_CELLS:
        size = " × ".join(str(len(values)) for values in grid.values())
        raise InputError(f"sweep has {size} cells; it must have {MOST_CELLS:,} at most")
    checked = {}
    for name, values in grid.items():
        checked[name] = tuple(coerce_all(kind, {name: value})[name] for value in values)
        if name in FIXED:
            raise InputError(f"sweep names {name}; all cells of a run have the same, so that their curves compare")
        if not values:
            raise InputError(f"sweep names {name} without a value")
        if len(set(checked[name])) < len(values):
            twice = next(x for i, x in enumerate(checked[name]) if x in checked[name][:i])
            raise InputError(f"sweep has {name}={value_in_words(twice)} twice")
        for value in checked[name]:
            if name in RULES:
                check(name, value)
            if name == "reference" and not (isinstance(value, str) and is_built_in(value)):
                raise InputError(f"sweep has the reference {value!r}; an earlier run's policy is that of a whole run")
    return checked


def check_size(grid: Grid, num_seeds: int) -> None:
    """Raises an `InputError` where there are too many members."""
    num_cells = math.prod(len(values) for values in grid.values())
    if num_cells * num_seeds > MOST_MEMBERS:
        raise InputError(
            f"num_seeds is {num_seeds}; with {num_cells:,} cells it must be {MOST_MEMBERS // num_cells:,} at most"
        )


def find_cell(cells: Sequence[Cell], settings: Mapping[str, Any]) -> int:
    """The number of the only cell with these settings.

    Raises:
        InputError: none has, or several; the cells are listed.
    """
    found = [i for i, cell in enumerate(cells) if all(name in cell and cell[name] == x for name, x in settings.items())]
    if len(found) == 1:
        return found[0]
    asked = cell_in_words(settings) or "nothing"
    listed = "; ".join(cell_in_words(cell) for cell in cells[:MOST_LISTED])
    more = f"; and {len(cells) - MOST_LISTED:,} more" if len(cells) > MOST_LISTED else ""
    raise InputError(
        f"{asked} names {len(found)} cells of the sweep; it must name one of: {listed}{more}"
        if cells[0]
        else f"{asked} names no cell: the run is no sweep, all its seeds have the same settings"
    )


def cell_in_words(cell: Cell) -> str:
    """A cell as text.

    >>> cell_in_words({"learning_rate": 0.0003, "hidden_sizes": (64, 64)})
    'learning_rate=0.0003, hidden_sizes=64x64'
    """
    return ", ".join(f"{name}={value_in_words(value)}" for name, value in cell.items())


def value_in_words(value: Any) -> str:
    """A value as text that `--sweep` reads."""
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)

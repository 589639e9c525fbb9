"""Finite MDPs by name, `finite/Taxi-v3`, and as functions that return their arrays, `taxi()`.

Those of gymnasium are its own tables, outcome by outcome.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsoft.envs.mdp import FiniteMDP, mdp_env
from jaxsoft.envs.parameters import check_params
from jaxsoft.envs.suites import Suite
from jaxsoft.errors import InputError, nearest
from jaxsoft.random import make_key
from jaxsoft.types import Env

_LEFT, _DOWN, _RIGHT, _UP = (0, -1), (1, 0), (0, 1), (-1, 0)

Outcome = tuple[float, int, float, bool]
"""Probability, next state, reward and whether the task ends."""


def taxi(*, discount: float = 0.99) -> FiniteMDP:
    """Taxi: fetch a passenger at one of four places and take them to another; 500 states, 6 actions.

    State ((row · 5 + column) · 5 + passenger) · 4 + destination, passenger 4 being in the taxi. Actions: south, north,
    east, west, pick up, drop off. −1 a step, −10 for a forbidden pick-up or drop-off, +20 for the delivery.

    Source: Dietterich 2000, arXiv:cs/9905014; gymnasium's Taxi-v3 (Taxi-v4 since gymnasium 1.3, the same table).
    """
    outcomes = [
        [[_taxi_outcome(state, action)] for action in range(6)]
        for state in np.ndindex(5, 5, 5, 4)  # row, column, passenger, destination
    ]
    start = np.array([passenger not in (4, goal) for _, _, passenger, goal in np.ndindex(5, 5, 5, 4)])
    return _tabulate(outcomes, start / start.sum(), discount)


_TAXI_PLACES = ((0, 0), (0, 4), (4, 0), (4, 3))
_TAXI_MOVES = (_DOWN, _UP, _RIGHT, _LEFT)
_TAXI_WALLS = {(0, 1), (1, 1), (3, 0), (4, 0), (3, 2), (4, 2)}
"""Cells with a wall on their east side."""


def _taxi_outcome(state: tuple[int, ...], action: int) -> Outcome:
    row, column, passenger, goal = state
    reward, terminated = -1, False
    if action < 4:
        row, column = _taxi_move(row, column, _TAXI_MOVES[action])
    elif action == 4:
        here = passenger < 4 and _TAXI_PLACES[passenger] == (row, column)
        passenger, reward = (4, -1) if here else (passenger, -10)
    elif passenger == 4 and (row, column) in _TAXI_PLACES:
        passenger = _TAXI_PLACES.index((row, column))
        terminated = passenger == goal
        reward = 20 if terminated else -1
    else:
        reward = -10
    return 1.0, ((row * 5 + column) * 5 + passenger) * 4 + goal, reward, terminated


def _taxi_move(row: int, column: int, move: tuple[int, int]) -> tuple[int, int]:
    edge = (row, min(column, column + move[1]))  # the cell west of the border that is crossed
    return (row, column) if move[1] and edge in _TAXI_WALLS else _move((5, 5), (row, column), move)


_LAKES = {
    "4x4": ("SFFF", "FHFH", "FFFH", "HFFG"),
    "8x8": ("SFFFFFFF", "FFFFFFFF", "FFFHFFFF", "FFFFFHFF", "FFFHFFFF", "FHHFFFHF", "FHFFHFHF", "FFFHFFFG"),
}


def frozen_lake(map_name: str = "4x4", *, is_slippery: bool = True, discount: float = 0.99) -> FiniteMDP:
    """FrozenLake: cross the ice to the goal and fall into no hole; reward 1 at the goal.

    State row · columns + column. Actions: left, down, right, up; on slippery ice each of the chosen direction and the
    two beside it has probability 1/3.

    Raises:
        InputError: there is no such map.

    Source: gymnasium's FrozenLake-v1.
    """
    if map_name not in _LAKES:
        raise InputError(f"map_name is {map_name!r}; it must be {' or '.join(_LAKES)}")
    lake = _LAKES[map_name]
    shape = (len(lake), len(lake[0]))

    def outcomes(cell: tuple[int, ...], action: int) -> Iterator[Outcome]:
        row, column = cell
        if lake[row][column] in "GH":
            yield 1.0, row * shape[1] + column, 0, True
            return
        directions = [(action - 1) % 4, action, (action + 1) % 4] if is_slippery else [action]
        for direction in directions:
            row, column = _move(shape, cell, (_LEFT, _DOWN, _RIGHT, _UP)[direction])
            letter = lake[row][column]
            yield 1 / len(directions), row * shape[1] + column, float(letter == "G"), letter in "GH"

    table = [[list(outcomes(cell, action)) for action in range(4)] for cell in np.ndindex(*shape)]
    return _tabulate(table, np.eye(shape[0] * shape[1])[0], discount)


def cliff_walking(*, is_slippery: bool = False, discount: float = 0.99) -> FiniteMDP:
    """CliffWalking: walk 12 cells along a cliff; −1 a step, −100 and back to the start for falling.

    State row · 12 + column. Actions: up, right, down, left; where it is slippery each of the chosen direction and
    the two beside it has probability 1/3.

    Source: Sutton & Barto 2018, example 6.6; gymnasium's CliffWalking-v1.
    """
    start, goal = 36, 47

    def outcomes(cell: tuple[int, ...], action: int) -> Iterator[Outcome]:
        directions = [(action - 1) % 4, action, (action + 1) % 4] if is_slippery else [action]
        for direction in directions:
            row, column = _move((4, 12), cell, (_UP, _RIGHT, _DOWN, _LEFT)[direction])
            next_state = row * 12 + column
            fell = start < next_state < goal
            yield 1 / len(directions), start if fell else next_state, -100 if fell else -1, next_state == goal

    table = [[list(outcomes(cell, action)) for action in range(4)] for cell in np.ndindex(4, 12)]
    return _tabulate(table, np.eye(48)[start], discount)


def chain(length: int, *, discount: float = 0.99) -> FiniteMDP:
    """A chain for credit assignment: only the step out of its far end is rewarded, by 1, and ends the task.

    States 0 (the start) to `length` − 1. Actions: left (at the start: stay) and right.

    Raises:
        InputError: the chain has no state.
    """
    if length < 1:
        raise InputError(f"length is {length}; it must be a positive integer")
    last = length - 1
    table: list[list[list[Outcome]]] = [
        [[(1.0, max(s - 1, 0), 0, False)], [(1.0, min(s + 1, last), float(s == last), s == last)]]
        for s in range(length)
    ]
    return _tabulate(table, np.eye(length)[0], discount)


def gridworld(height: int, width: int, *, discount: float = 0.95) -> FiniteMDP:
    """An open room with a goal in each corner, entered in its middle: many optimal routes, which a soft policy keeps.

    State row · width + column. Actions: left, down, right, up. Reward 1 for the step into a goal, which ends the task.
    Odd sizes put the start equally far from all four goals.

    Raises:
        InputError: a side is shorter than 3.
    """
    if min(height, width) < 3:
        raise InputError(f"the gridworld is {height}x{width}; each side must be 3 or longer")
    goals = {(row, column) for row in (0, height - 1) for column in (0, width - 1)}

    def outcome(cell: tuple[int, ...], action: int) -> Outcome:
        after = _move((height, width), cell, (_LEFT, _DOWN, _RIGHT, _UP)[action])
        if cell in goals:
            return 1.0, cell[0] * width + cell[1], 0, True
        return 1.0, after[0] * width + after[1], float(after in goals), after in goals

    table = [[[outcome(cell, action)] for action in range(4)] for cell in np.ndindex(height, width)]
    return _tabulate(table, np.eye(height * width)[height // 2 * width + width // 2], discount)


def garnet(key: jax.Array, num_states: int, num_actions: int, branching: int, *, discount: float = 0.95) -> FiniteMDP:
    """A random MDP: `branching` different successors of every state and action, normal rewards, no end.

    Successors are drawn without replacement; their probabilities are the parts of [0, 1] cut at uniform points; the
    reward of a state and action is N(0, 1) whatever the successor. Episodes start anywhere.

    Raises:
        InputError: more successors than states, or a size is not positive.

    Source: Bhatnagar et al. 2009, "Natural actor-critic algorithms", section 5.
    """
    if min(num_states, num_actions, branching) < 1 or branching > num_states:
        raise InputError(
            f"a Garnet of {num_states} states, {num_actions} actions and branching {branching}: all must be positive, "
            "and branching no more than the states"
        )
    successor_key, cut_key, reward_key = jax.random.split(key, 3)
    shape = (num_states, num_actions)
    next_states = jnp.argsort(jax.random.uniform(successor_key, (*shape, num_states)), axis=-1)[..., :branching]
    cuts = jnp.sort(jax.random.uniform(cut_key, (*shape, branching - 1)), axis=-1)
    probs = jnp.diff(cuts, axis=-1, prepend=jnp.zeros((*shape, 1)), append=jnp.ones((*shape, 1)))
    return FiniteMDP(probs, jax.random.normal(reward_key, shape), discount=discount, next_states=next_states)


def _numbered_garnet(
    num_states: int, num_actions: int, branching: int, *, seed: int = 0, discount: float = 0.95
) -> FiniteMDP:
    return garnet(make_key(seed), num_states, num_actions, branching, discount=discount)


def _tabulate(table: list[list[list[Outcome]]], initial_probs: np.ndarray, discount: float) -> FiniteMDP:
    """The arrays of a table [S][A] of lists of outcomes; shorter lists are filled with impossible ones."""
    longest = max(len(outcomes) for row in table for outcomes in row)
    filled = [
        [outcomes + [(0.0, state, 0.0, False)] * (longest - len(outcomes)) for outcomes in row]
        for state, row in enumerate(table)
    ]
    probs, next_states, rewards, terminated = np.moveaxis(np.asarray(filled, np.float64), -1, 0)
    return FiniteMDP(probs, rewards, terminated > 0, initial_probs, discount, next_states=next_states.astype(int))


def _move(shape: tuple[int, int], cell: tuple[int, ...], move: tuple[int, int]) -> tuple[int, int]:
    """The cell beside this one, or this one where there is none."""
    row, column = (min(max(x + dx, 0), size - 1) for x, dx, size in zip(cell, move, shape, strict=True))
    return row, column


class _Entry(NamedTuple):
    """An MDP or a family of them: an example's name, the pattern of all, the builder and its time limit."""

    example: str
    pattern: str
    build: Callable[..., FiniteMDP]
    max_episode_steps: Callable[[FiniteMDP], int]


_ENTRIES = (
    _Entry("Taxi-v3", r"Taxi-v[34]", taxi, lambda mdp: 200),
    _Entry("FrozenLake-v1", r"FrozenLake-v1", frozen_lake, lambda mdp: 100),
    _Entry("FrozenLake8x8-v1", r"FrozenLake8x8-v1", partial(frozen_lake, "8x8"), lambda mdp: 200),
    _Entry("CliffWalking-v1", r"CliffWalking-v1", cliff_walking, lambda mdp: 1_000),
    # A random walk needs the square of the chain's length on average.
    _Entry("Chain-20", r"Chain-(\d+)", chain, lambda mdp: 4 * mdp.num_states**2),
    _Entry("MultiGoal-9x9", r"MultiGoal-(\d+)x(\d+)", gridworld, lambda mdp: 10 * mdp.num_states),
    _Entry("Garnet-20x4x3", r"Garnet-(\d+)x(\d+)x(\d+)", _numbered_garnet, lambda mdp: 100),
)


LARGEST = 10_000_000
"""Product of the sizes in the largest MDP's name that is built."""


def names() -> list[str]:
    """The MDPs' names within this suite; numbers in `Chain-20`, `MultiGoal-9x9`, `Garnet-20x4x3` may be others."""
    return [entry.example for entry in _ENTRIES]


def make_mdp(name: str, **params: Any) -> FiniteMDP:
    """Builds one MDP's arrays by name.

    Args:
        name: one of `names()`, or of the same kind with other numbers: `Chain-33`, `Garnet-50x3x2` (states, actions,
            branching).
        **params: the builder's keywords, for example `discount=0.9`, `is_slippery=False`; of a Garnet also `seed=1`.

    Raises:
        InputError: no such MDP, no such keyword, or a value that the builder refuses.
    """
    entry, sizes = _find(name)
    if math.prod(sizes) > LARGEST:
        raise InputError(f"finite/{name} is too large: the product of its sizes must be {LARGEST:,} at most")
    keywords = [p for p in inspect.signature(entry.build).parameters.values() if p.kind is p.KEYWORD_ONLY]
    defaults = {p.name: p.default for p in keywords}
    return entry.build(*sizes, **check_params(f"finite/{name}", params, defaults, ("max_episode_steps",)))


def make(name: str, *, max_episode_steps: int | None = None, **params: Any) -> Env:
    """Builds one MDP as an environment of one-hot observations, with gymnasium's time limit where it has one.

    Args:
        name: see `make_mdp`.
        max_episode_steps: another time limit.
        **params: see `make_mdp`.

    Raises:
        InputError: see `make_mdp`, or the time limit is not a positive integer.
    """
    mdp = make_mdp(name, **params)
    limit = _find(name)[0].max_episode_steps(mdp) if max_episode_steps is None else max_episode_steps
    return mdp_env(mdp, f"finite/{name}", limit)


def _find(name: str) -> tuple[_Entry, list[int]]:
    """The entry that a name belongs to, and the numbers in it."""
    for entry in _ENTRIES:
        match = re.fullmatch(entry.pattern, name)
        if match:
            return entry, [int(size) if len(size) < 20 else 10**20 for size in match.groups()]
    raise InputError(f"unknown finite MDP {name!r}{nearest(name, names())} (there are: {', '.join(names())})")


SUITE = Suite(
    "finite",
    names,
    make,
    has=lambda name: any(re.fullmatch(entry.pattern, name) for entry in _ENTRIES),  # `Chain-33`, too
    fused_keys=True,
)

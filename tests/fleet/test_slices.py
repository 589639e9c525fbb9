"""The device has its next slice while the host works on the last one; what comes out does not depend on that."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from jax.sharding import SingleDeviceSharding

from jaxsoft.fleet import programs
from jaxsoft.fleet.programs import Program, run

BULK = (7, 11, 13)


@struct.dataclass
class Count:
    """Stands for a state: the turns taken, all reports made, and something of a shape that nothing else has."""

    timestep: jax.Array
    num_reports: jax.Array
    bulk: jax.Array
    replay_state: jax.Array | None


class Counting:
    """A program that counts turns; `dispatched` are the turns at which the slices end that the device was given."""

    def __init__(self, *, with_replay: bool = False, segments: Sequence[int] = (4, 3, 5)) -> None:
        self.dispatched: list[int] = []
        advance = jax.jit(lambda state, n: replace(state, timestep=state.timestep + n), donate_argnums=0)

        def take_turns(state: Count, settings: Any, num_turns: np.int32) -> Count:
            self.dispatched.append(int(num_turns) + (self.dispatched or [0])[-1])
            return advance(state, num_turns)

        def report(state: Count, settings: Any) -> tuple[Count, dict[str, jax.Array]]:
            return replace(state, num_reports=state.num_reports + 1), {"at": state.timestep[None] + 0}

        self.program = cast(
            Program,
            SimpleNamespace(
                advance=take_turns,
                report=jax.jit(report, donate_argnums=0),
                segments=np.array(segments, np.int32),
                num_devices=1,
                shardings=SimpleNamespace(key=SingleDeviceSharding(jax.devices()[0])),
            ),
        )
        replay = jnp.zeros(3) if with_replay else None
        self.start: Any = Count(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32), jnp.zeros(BULK), replay)


@pytest.fixture(autouse=True)
def slices_of_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "SECONDS_PER_SLICE", 0.0)


@pytest.mark.parametrize("with_replay", [False, True])
def test_the_next_slice_runs_while_the_host_works_and_states_are_those_of_their_turns(with_replay: bool) -> None:
    counting, pauses = Counting(with_replay=with_replay), (3, 6, 7)
    ahead, states, reports, num_states = {}, {}, {}, {}
    for state, turn, timestep, metrics, *_ in run(counting.program, counting.start, pauses=pauses):
        ahead[turn] = counting.dispatched[-1] - turn
        num_states[turn] = sum(x.shape == BULK for x in jax.live_arrays())
        assert timestep == turn
        if state is not None:
            states[turn] = int(state.timestep), int(cast(Any, state).num_reports)
        if metrics is not None:
            reports[turn] = metrics["at"].tolist()
        del state
    waits = {1, 12}  # the first tells how long slices may be, and nothing follows the last
    waits |= {3, 6, 7} if with_replay else {6}  # 7 needs a copy, too, and there is one at a time
    assert ahead == {turn: int(turn not in waits) for turn in range(1, 13)}
    assert states == {3: (3, 0), 6: (6, 1), 7: (7, 2), 12: (12, 3)}
    copied = set() if with_replay else {2, 3, 5, 6, 7}  # one is made as soon as its slice has been dispatched
    assert num_states == {turn: 1 + (turn in copied) for turn in range(1, 13)}
    assert reports == {4: [4], 7: [7], 12: [12]}


@pytest.mark.parametrize("stop_at", [1, 5, 11])
def test_a_stop_ends_with_the_slice_that_runs_and_gives_its_state(stop_at: int) -> None:
    counting, calls = Counting(), itertools.count(1)
    slices = list(run(counting.program, counting.start, should_stop=lambda: next(calls) == stop_at))
    assert [one.turn for one in slices] == list(range(1, stop_at + 1))
    assert counting.dispatched[-1] == stop_at
    assert [one.state is None for one in slices] == [True] * (stop_at - 1) + [False]
    assert next(calls) == stop_at + 1


def test_how_long_slices_are_follows_the_devices_time_and_not_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "SECONDS_PER_SLICE", 0.05)
    counting = Counting(segments=[10_000])
    for _ in itertools.islice(run(counting.program, counting.start), 30):
        time.sleep(0.1)
    assert counting.dispatched[-1] == 10_000


def test_a_slice_tells_when_the_device_ended_it_and_not_when_the_host_asked() -> None:
    counting, asked = Counting(), []
    slices, ended = run(counting.program, counting.start), []
    for one in slices:
        ended.append(one.ended)
        time.sleep(0.1)  # the host works; meanwhile the next slice, already dispatched, ends
        asked.append(time.perf_counter())
    assert ended == sorted(ended)
    # the first tells how long slices may be, so the second is dispatched when it is asked for
    assert all(end < ask for end, ask in zip(ended[2:], asked[1:], strict=False))

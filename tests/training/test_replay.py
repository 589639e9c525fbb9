"""The ring holds what a list would, and draws from all of it alike."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from support.reference.ring import RingReference

from jaxsoft.training import replay

NUM_ENVS = 2


def row(number: int) -> dict[str, jax.Array]:
    """A row that no other row resembles; no entry is 0, which is what rows that were never written hold."""
    entry = 1 + NUM_ENVS * number + jnp.arange(NUM_ENVS)
    return {
        "obs": jnp.stack([entry, -entry, 10 * entry], axis=-1).astype(jnp.float32),
        "action": entry.astype(jnp.int32),
        "pixels": (entry % 251).astype(jnp.uint8)[:, None, None] * jnp.ones((1, 2, 2), jnp.uint8),
        "terminated": entry % 3 == 0,
    }


def filled(num_adds: int, capacity: int) -> replay.ReplayState:
    state = replay.init(row(0), capacity)
    for i in range(num_adds):
        state = replay.add(state, row(i))
    return state


@pytest.mark.parametrize("num_adds", [0, 1, 4, 5, 6, 13])
def test_ring_holds_the_latest_rows(num_adds: int) -> None:
    num_rows = 5
    state, reference = replay.init(row(0), num_rows * NUM_ENVS), RingReference(num_rows)
    add = jax.jit(replay.add)
    for i in range(num_adds):
        state = add(state, row(i))
        reference.add(row(i))

    num_filled = len(reference.rows)
    assert int(state.num_filled) == num_filled
    assert int(state.insert_index) == num_adds % num_rows
    oldest = int(state.insert_index) if num_filled == num_rows else 0
    for age, expected in enumerate(reference.rows):
        held = jax.tree.map(lambda buffer, at=oldest + age: buffer[at % num_rows], state.data)
        jax.tree.map(np.testing.assert_array_equal, held, expected)


def test_dtypes_and_shapes_are_kept() -> None:
    state = filled(7, capacity=10)
    drawn = replay.sample(jax.random.key(0), state, 4)
    for name, entry in row(0).items():
        assert state.data[name].dtype == entry.dtype
        assert state.data[name].shape == (5, *entry.shape)
        assert drawn[name].dtype == entry.dtype
        assert drawn[name].shape == (4, *entry.shape[1:])


def test_a_row_of_a_wider_dtype_does_not_change_the_ring() -> None:
    state = replay.init({"x": jnp.zeros((2,), jnp.float16)}, 4)
    state = replay.add(state, {"x": jnp.full((2,), 1.5, jnp.float32)})
    assert state.data["x"].dtype == jnp.float16
    np.testing.assert_array_equal(state.data["x"][0], 1.5)


@pytest.mark.parametrize(("capacity", "num_rows"), [(2, 1), (3, 1), (10, 5), (11, 5)])
def test_capacity_counts_transitions_and_rounds_down_to_rows(capacity: int, num_rows: int) -> None:
    state = replay.init(row(0), capacity)
    assert (state.num_rows, state.num_envs) == (num_rows, NUM_ENVS)


def test_a_capacity_below_one_row_is_refused() -> None:
    with pytest.raises(ValueError, match=r"capacity is 1, but one row already holds 2 transitions"):
        replay.init(row(0), 1)


def test_an_example_of_shapes_alone_is_enough() -> None:
    shapes = jax.eval_shape(lambda: row(0))
    from_shapes, from_arrays = replay.init(shapes, 10), replay.init(row(0), 10)
    jax.tree.map(np.testing.assert_array_equal, from_shapes, from_arrays)


@pytest.mark.parametrize("num_adds", [1, 3, 5, 8])
def test_every_held_transition_is_drawn_equally_often_and_no_other(num_adds: int) -> None:
    state = filled(num_adds, capacity=10)
    first_held = max(0, num_adds - 5)
    held = np.concatenate([row(i)["action"] for i in range(first_held, num_adds)])
    drawn = np.asarray(replay.sample(jax.random.key(7), state, 20_000)["action"])
    values, counts = np.unique(drawn, return_counts=True)
    # in particular: never 0, which only rows that were not written yet hold
    np.testing.assert_array_equal(values, np.sort(held))
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_successive_draws_are_independent() -> None:
    drawn = np.asarray(replay.sample(jax.random.key(3), filled(5, capacity=10), 20_001)["action"]) - 1
    pairs = np.bincount(drawn[:-1] * 10 + drawn[1:], minlength=100)
    assert scipy.stats.chisquare(pairs).pvalue > 1e-3


def test_fields_of_a_drawn_transition_belong_together() -> None:
    drawn = replay.sample(jax.random.key(1), filled(8, capacity=10), 64)
    entry = np.asarray(drawn["action"])
    np.testing.assert_array_equal(drawn["obs"], np.stack([entry, -entry, 10 * entry], axis=-1))
    np.testing.assert_array_equal(drawn["terminated"], entry % 3 == 0)
    np.testing.assert_array_equal(drawn["pixels"][:, 1, 1], entry % 251)


def test_draws_depend_on_the_key_alone() -> None:
    state = filled(5, capacity=10)
    sample = jax.jit(partial(replay.sample, batch_size=32))
    first, again, other = (sample(jax.random.key(seed), state)["action"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (np.asarray(first) != np.asarray(other)).any()


# Sequences


@pytest.mark.parametrize(("num_adds", "length"), [(5, 5), (4, 2), (5, 3), (8, 3), (9, 1), (12, 5), (13, 4)])
def test_every_whole_stretch_is_drawn_equally_often_and_no_other(num_adds: int, length: int) -> None:
    # a ring of 5 rows: not full, just full, and written over
    state = filled(num_adds, capacity=10)
    drawn = jax.jit(partial(replay.sample_sequences, batch_size=10_000, length=length))(jax.random.key(5), state)
    entries = np.asarray(drawn["action"])
    assert entries.shape == (length, 10_000)
    held = range(max(0, num_adds - 5), num_adds)
    starts = [1 + NUM_ENVS * i + env for i in held if i + length <= num_adds for env in range(NUM_ENVS)]
    values, counts = np.unique(entries[0], return_counts=True)
    np.testing.assert_array_equal(values, starts)
    assert len(starts) == 1 or scipy.stats.chisquare(counts).pvalue > 1e-3
    # one environment, in the order of time: the newest row is never followed by the oldest
    np.testing.assert_array_equal(entries, entries[0] + NUM_ENVS * np.arange(length)[:, None])


def test_rows_of_the_longest_ring_are_counted_right() -> None:
    num_rows, rng = 2**31 - 1, np.random.default_rng(0)
    age, oldest = rng.integers(0, num_rows, (2, 1000))
    rows = replay.row_of_age(jnp.asarray(age, jnp.int32), jnp.asarray(oldest, jnp.int32), num_rows)
    np.testing.assert_array_equal(rows, (oldest + age) % num_rows)


def test_fields_of_a_drawn_sequence_belong_together() -> None:
    drawn = replay.sample_sequences(jax.random.key(1), filled(8, capacity=10), 16, 3)
    entry = np.asarray(drawn["action"])
    np.testing.assert_array_equal(drawn["obs"], np.stack([entry, -entry, 10 * entry], axis=-1))
    np.testing.assert_array_equal(drawn["terminated"], entry % 3 == 0)
    assert drawn["pixels"].shape == (3, 16, 2, 2)
    assert drawn["pixels"].dtype == jnp.uint8


def test_sequences_of_one_step_are_the_transitions() -> None:
    state, key = filled(8, capacity=10), jax.random.key(2)
    singles = np.asarray(replay.sample(key, state, 5000)["action"])
    sequences = np.asarray(replay.sample_sequences(key, state, 5000, 1)["action"])[0]
    np.testing.assert_array_equal(np.unique(sequences), np.unique(singles))


# ReplayState's axes under a vmap over seeds: the data are each seed's own, the counters are shared
SEED_AXES = replay.ReplayState(data=0, insert_index=cast(Any, None), num_filled=cast(Any, None))


def test_seeds_under_a_vmap_share_the_counters() -> None:
    num_seeds, num_adds = 3, 4
    rows = [
        jax.tree.map(lambda *xs: jnp.stack(xs), *(row(10 * s + i) for s in range(num_seeds))) for i in range(num_adds)
    ]
    state = jax.vmap(lambda r: replay.init(r, 6), out_axes=SEED_AXES)(rows[0])
    # out_axes=None is an error if a counter came out batched
    add = jax.vmap(replay.add, in_axes=(SEED_AXES, 0), out_axes=SEED_AXES)
    for batched_row in rows:
        state = add(state, batched_row)
    assert state.insert_index.shape == state.num_filled.shape == ()

    for s in range(num_seeds):
        alone = replay.init(row(0), 6)
        for i in range(num_adds):
            alone = replay.add(alone, row(10 * s + i))
        jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda x, s=s: x[s], state.data), alone.data)
        assert int(alone.insert_index) == int(state.insert_index)


def test_adding_under_a_vmap_writes_in_place() -> None:
    # a batched counter would turn the write into a scatter
    rows = jax.tree.map(lambda x: jnp.stack([x, x]), row(1))
    state = jax.vmap(lambda r: replay.init(r, 10_000), out_axes=SEED_AXES)(rows)
    add = jax.vmap(replay.add, in_axes=(SEED_AXES, 0), out_axes=SEED_AXES)
    program = jax.jit(add, donate_argnums=0).lower(state, rows).compile()
    memory, text = program.memory_analysis(), program.as_text()
    assert memory is not None
    assert text is not None
    size = sum(x.nbytes for x in jax.tree.leaves(state.data))
    assert memory.temp_size_in_bytes < 0.01 * size
    assert memory.alias_size_in_bytes >= size
    assert "scatter(" not in text


def test_rows_are_written_in_place_under_any_vmap():
    data, rows = jnp.zeros((2, 3, 5, 4)), jnp.arange(24.0).reshape(2, 3, 1, 4)

    def write_all(index: jax.Array, axes: int | None) -> jax.Array:
        write = jax.vmap(replay.write_slice, (0, 0, axes))
        return jax.vmap(write, (0, 0, axes))(data, rows, index)

    one = jax.jit(lambda i: write_all(i, None))
    np.testing.assert_array_equal(one(jnp.int32(2))[:, :, 2], rows[:, :, 0])
    assert float(jnp.sum(one(jnp.int32(2)))) == float(jnp.sum(rows))
    assert "scatter" not in one.lower(jnp.int32(2)).as_text()
    indices = jnp.arange(6).reshape(2, 3) % 5
    each = write_all(indices, 0)
    for i, j in np.ndindex(2, 3):
        np.testing.assert_array_equal(each[i, j, indices[i, j]], rows[i, j, 0])
    only_rows = jax.vmap(replay.write_slice, (None, 0, None))(data[0, 0], rows[0], jnp.int32(1))
    np.testing.assert_array_equal(only_rows[:, 1], rows[0, :, 0])

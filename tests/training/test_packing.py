"""Rows that were packed are the same rows, to the bit."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsoft.envs import make_env
from jaxsoft.fleet.programs import init_members, make_program
from jaxsoft.ops.averages import Sum
from jaxsoft.training import packing
from jaxsoft.training.loop import advance, init, make_config, make_loop
from jaxsoft.training.packing import (
    MAX_CARRIED,
    MAX_EQUATIONS,
    UNROLLED,
    EnvPacking,
    MemberPacking,
    WordPacking,
    pack,
    packs_members,
    scan_packed,
    take_turns,
    unpack,
    wants_few_kernels,
)
from jaxsoft.training.state import TrainState, seed_axes
from jaxsoft.training.turns import take_turn
from jaxsoft.types import FixedData, ReplayBatches, Rollouts


def row(num_envs: int = 3) -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(num_envs, 2, 2)).astype(np.float32)
    obs[0, 0] = [np.nan, -0.0]
    obs[1, 0] = np.array([1, 0x7FC12345], np.uint32).view(np.float32)  # a subnormal number, a NaN of its own
    return {
        "obs": jnp.asarray(obs),
        "action": jnp.asarray([-1, 2**31 - 1, -(2**31)], jnp.int32),
        "terminated": jnp.asarray([True, False, True]),
        "half": jnp.asarray([[1.5], [-2], [0.1]], jnp.bfloat16),
        "nibbles": jnp.asarray([[1, -2], [3, 0], [-8, 7]], jnp.int4),
        "pairs_of_bits": jnp.asarray([[1], [0], [-2]], jnp.int2),
        "tiny": jnp.asarray([[0.5], [-6], [0]], jnp.float4_e2m1fn),
        "image": jnp.asarray(rng.integers(0, 256, (num_envs, 5, 5)), jnp.uint8),
        "key": jax.random.split(jax.random.key(0), num_envs),
    }


def bits(x: jax.Array) -> np.ndarray:
    return np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)


def test_every_field_comes_back_to_the_bit():
    fields = row()
    words, others = pack(fields)
    assert words.dtype == jnp.uint32
    assert words.shape == (3, 4 + 1 + 1 + 1)
    assert {x.dtype.name for x in others} == {"int4", "int2", "float4_e2m1fn", "uint8", "key<fry>"}
    back = unpack(words, others, fields)
    for name, x in fields.items():
        assert back[name].dtype == x.dtype
        assert bits(back[name]).tobytes() == bits(x).tobytes(), name


def test_a_packed_scan_puts_out_what_a_scan_does():
    def step(carry: jax.Array, x: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        fields = row() | {"action": row()["action"] // 2 + x}
        return carry + x, fields | {"none": None}  # type: ignore[dict-item]

    for length in (1, 4):
        xs = jnp.arange(length)
        carry, rows = jax.jit(lambda xs: scan_packed(step, jnp.int32(0), xs))(xs)
        expected_carry, expected = jax.lax.scan(step, jnp.int32(0), xs)
        assert carry == expected_carry
        assert jax.tree.structure(rows) == jax.tree.structure(expected)
        for ours, theirs in zip(jax.tree.leaves(rows), jax.tree.leaves(expected), strict=True):
            assert bits(ours).tobytes() == bits(theirs).tobytes()


@pytest.mark.parametrize(
    ("agent", "env_id", "fits"),
    [
        ("ppo", "gymnax/Pendulum-v1", True),  # with statistics of rewards and observations, which have no axis of envs
        ("soft_q", "gymnax/Breakout-MinAtar", False),  # whose state has more numbers than a step
    ],
)
def test_a_turn_may_carry_its_environments_packed(agent: str, env_id: str, fits: bool) -> None:
    env = make_env(env_id)
    settings = {"total_timesteps": 64, "num_envs": 4, "rollout_length": 8, "num_minibatches": 2, "hidden_sizes": (8,)}
    loop = make_loop(env, make_config(agent, env.spec.id, settings | {"num_epochs": 1, "eval_every": 0}))
    state = jax.jit(partial(init, loop=loop))(jax.random.key(0))
    packing = EnvPacking(state)
    assert packing.fits == fits
    if fits:
        assert 1 < packing.join(state).env_state[0].shape[1] <= MAX_CARRIED
    back = packing.split(packing.join(state))
    assert jax.tree.structure(back) == jax.tree.structure(state)
    for x, y in zip(jax.tree.leaves(back), jax.tree.leaves(state), strict=True):
        assert (x.dtype, bits(x).tobytes()) == (y.dtype, bits(y).tobytes())
    assert_alike(*(jax.jit(partial(take_turn, loop=loop, few_kernels=few))(state) for few in (True, False)))


def test_a_step_that_changes_a_dtype_is_refused_as_by_any_scan():
    env = make_env("gymnax/Pendulum-v1")
    loop = make_loop(env, make_config("ppo", env.spec.id, {"total_timesteps": 64, "hidden_sizes": (8,)}))
    state = jax.eval_shape(partial(init, loop=loop), jax.random.key(0))

    def step(state, x):
        return replace(state, obs=state.obs.astype(jnp.bfloat16)), {"x": x}

    with pytest.raises(TypeError, match=r"carry .*bfloat16"):
        jax.eval_shape(lambda state: scan_packed(step, state, jnp.zeros((2, 3)), pack_envs=True), state)


def test_chosen_leaves_of_a_tree_come_back_to_the_bit():
    fields = row() | {"scalar": jnp.float32(-0.0), "matrix": jnp.arange(6.0).reshape(2, 3)}
    for names in ({"obs", "half", "terminated"}, {"image"}, set()):
        is_chosen = iter([name in names for name in sorted(fields)])
        words = WordPacking(fields, 3, lambda x: next(is_chosen) and packing.is_packed(x.shape[1:], x.dtype))  # noqa: B023
        joined, others = words.join(fields)
        assert (joined is None) == (words.width == 0) == (not names & {"obs", "half", "terminated"})
        assert len(others) == len(fields) - (0 if joined is None else len(names))
        back = words.split((joined, others))
        for name, x in fields.items():
            assert (back[name].shape, back[name].dtype) == (x.shape, x.dtype)
            assert bits(back[name]).tobytes() == bits(x).tobytes(), name


def test_turns_of_members_may_carry_small_arrays_packed(monkeypatch) -> None:
    env = make_env("gymnax/Pendulum-v1")
    settings = {"batch_size": 4, "replay_capacity": 32, "learning_starts": 8, "normalise_obs": True}
    config = make_config("sac", env.spec.id, SMALL | settings)

    def train(is_packed: bool) -> TrainState:
        monkeypatch.setattr("jaxsoft.fleet.programs.packs_members", lambda *_: is_packed)
        program = make_program(env, config)
        return program.advance(init_members(program, np.arange(3, dtype=np.int32)), {}, np.int32(5))

    state = train(is_packed=False)
    assert_alike(train(is_packed=True), state)
    assert_small_arrays_are_packed(state, seed_axes(config.experience), 3)


def test_turns_of_one_seed_may_carry_small_arrays_packed() -> None:
    env = make_env("gymnax/Breakout-MinAtar")
    loop = make_loop(env, make_config("soft_q_stream", env.spec.id, SMALL | {"num_envs": 1}))

    def train(platform: str) -> TrainState:
        return jax.jit(lambda key: advance(init(key, loop), 5, loop, platform=platform))(jax.random.key(0))

    state = train("cpu")
    assert_alike(train("gpu"), state)
    assert_small_arrays_are_packed(state, seed_axes(loop.experience), None)


SMALL = {"num_envs": 2, "total_timesteps": 64, "hidden_sizes": (8,), "eval_every": 0}


def assert_alike(state: TrainState, expected: TrainState) -> None:
    """Other programs round otherwise; of a sum and what rounding took from it, only both together are the same."""
    is_sum = lambda x: isinstance(x, Sum)  # noqa: E731
    trees = [
        jax.tree.map(lambda x: x.value + x.rest if is_sum(x) else x, tree, is_leaf=is_sum) for tree in (state, expected)
    ]
    assert jax.tree.structure(state) == jax.tree.structure(expected)
    for x, y in zip(*map(jax.tree.leaves, trees), strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        np.testing.assert_allclose(bits(x), bits(y), rtol=1e-4, atol=1e-6)


def assert_small_arrays_are_packed(state: TrainState, axes: Any, num_members: int | None) -> None:
    state, axes = replace(state, failure=None), replace(axes, failure=None)
    small = MemberPacking(state, axes, num_members)
    (own, others), (shared, none) = small.join(state)
    assert own.shape[0] == (num_members or 1)
    assert shared.shape[0] == 1  # the counters of a replay stay what all members share
    assert not none
    assert len(others) < len(jax.tree.leaves(state)) / 2
    for x, y in zip(jax.tree.leaves(small.split(small.join(state))), jax.tree.leaves(state), strict=True):
        assert (x.dtype, bits(x).tobytes()) == (y.dtype, bits(y).tobytes())


def test_a_turn_that_changes_a_dtype_is_refused():
    state = {"count": jnp.int32(1), "sum": jnp.zeros(2)}
    packing = MemberPacking(state, {"count": None, "sum": 0})
    with pytest.raises(TypeError, match=r"^float32\[2\] of a loop's carry is int32\[2\] after a round"):
        take_turns(2, lambda x: x | {"sum": x["sum"].astype(jnp.int32)}, state, packing)


def test_loops_for_accelerators_have_few_kernels_and_those_for_cpus_few_instructions() -> None:
    platforms = ("cpu", "gpu", "tpu")
    assert [wants_few_kernels(platform) for platform in platforms] == [False, True, True]
    for experience in (ReplayBatches(8, 4, 0, 1), FixedData(4), Rollouts(1)):
        assert [packs_members(experience, platform) for platform in platforms] == [False, True, False]
    assert not any(packs_members(Rollouts(2), platform) for platform in platforms)


@pytest.mark.parametrize(("length", "size", "is_unrolled"), [(8, 1, True), (6, 1, False), (8, MAX_EQUATIONS, False)])
def test_short_steps_of_rollouts_are_unrolled(length: int, size: int, is_unrolled: bool) -> None:
    def step(carry: jax.Array, x: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        for _ in range(size):
            carry = jnp.sin(carry + x)
        return carry, {"x": carry}

    def scan(xs: jax.Array) -> Any:
        return scan_packed(step, jnp.zeros(2), xs, unrolls=True)

    xs = jnp.linspace(0, 1, 2 * length).reshape(length, 2)
    (loop,) = [equation for equation in jax.make_jaxpr(scan)(xs).eqns if equation.primitive.name == "scan"]
    assert loop.params["unroll"] == (UNROLLED if is_unrolled else 1)
    for ours, theirs in zip(
        jax.tree.leaves(scan(xs)), jax.tree.leaves(jax.lax.scan(step, jnp.zeros(2), xs)), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)

"""Rows that were packed are the same rows, to the bit."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from jaxsoft.envs import make_env
from jaxsoft.fleet.programs import init_members, make_program
from jaxsoft.ops.averages import Sum
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
from jaxsoft.training.state import TrainState
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
    scans = list(equations(jax.make_jaxpr(partial(take_turn, loop=loop, few_kernels=True))(state).jaxpr))
    steps = next(x for x in scans if x.primitive.name == "scan" and x.params["length"] == 8)
    assert steps.params["unroll"] == UNROLLED
    assert any(x.aval.dtype == jnp.uint32 and x.aval.ndim == 2 for x in steps.invars) == fits
    if fits:
        assert_alike(*(jax.jit(partial(take_turn, loop=loop, few_kernels=few))(state) for few in (True, False)))


def test_a_step_that_changes_a_dtype_is_refused_as_by_any_scan():
    env = make_env("gymnax/Pendulum-v1")
    loop = make_loop(env, make_config("ppo", env.spec.id, {"total_timesteps": 64, "hidden_sizes": (8,)}))
    state = jax.eval_shape(partial(init, loop=loop), jax.random.key(0))

    def step(state, x):
        return replace(state, obs=state.obs.astype(jnp.bfloat16)), {"x": x}

    with pytest.raises(TypeError, match=r"carry .*bfloat16"):
        jax.eval_shape(lambda state: scan_packed(step, state, jnp.zeros((2, 3)), pack_envs=True), state)


def test_chosen_arrays_come_back_to_the_bit():
    fields = row() | {"matrix": jnp.arange(6.0).reshape(2, 3), "empty": jnp.zeros((3, 0))}
    for names in ({"obs", "half", "terminated", "matrix", "empty"}, {"image"}, set()):
        is_chosen = [name in names and x.dtype != jnp.uint8 for name, x in fields.items()]
        packing = WordPacking(list(fields.values()), 3, is_chosen)
        words, others = packing.join(list(fields.values()))
        assert (words is None) == (packing.width == 0) == (not any(is_chosen))
        assert len(others) == len(fields) - sum(is_chosen)
        for before, after in zip(fields.values(), packing.split(words, others), strict=True):
            assert (after.shape, after.dtype) == (before.shape, before.dtype)
            assert bits(after).tobytes() == bits(before).tobytes()


def test_turns_of_members_that_are_packed_give_the_same_numbers(monkeypatch) -> None:
    env = make_env("gymnax/Pendulum-v1")
    config = make_config("sac", env.spec.id, SMALL | REPLAYED | {"normalise_obs": True})

    def train(is_packed: bool) -> tuple[TrainState, list[Any]]:
        monkeypatch.setattr("jaxsoft.fleet.programs.packs_members", lambda *_: is_packed)
        program = make_program(env, config)
        state = init_members(program, np.arange(3, dtype=np.int32))
        carried = carry_of_turns(program.advance.trace(state, {}, np.int32(5)).jaxpr)
        return program.advance(state, {}, np.int32(5)), carried

    (packed, few), (plain, many) = train(is_packed=True), train(is_packed=False)
    assert len(few) < len(many) / 3
    words = {x.shape for x in few if x.dtype == jnp.uint32}
    assert (1, 4) in words  # the counters of a replay stay what all members share
    assert any(len(shape) == 2 and shape[0] == 3 and shape[1] > 50 for shape in words)
    assert_alike(packed, plain)


@pytest.mark.parametrize(
    ("agent", "settings"), [("soft_q_stream", {"num_envs": 1}), ("soft_q_replay", {"sequence_length": 3})]
)
def test_turns_of_one_seed_carry_small_arrays_packed_on_a_gpu(agent: str, settings: dict[str, int]) -> None:
    env = make_env("gymnax/CartPole-v1")
    replayed = REPLAYED if agent == "soft_q_replay" else {}
    loop = make_loop(env, make_config(agent, env.spec.id, SMALL | replayed | settings))
    state = jax.eval_shape(partial(init, loop=loop), jax.random.key(0))
    carried = {
        platform: carry_of_turns(jax.make_jaxpr(partial(advance, num_turns=5, loop=loop, platform=platform))(state))
        for platform in ("cpu", "gpu", "tpu")
    }
    assert len(carried["gpu"]) < len(carried["cpu"]) / 2
    assert len(carried["tpu"]) == len(carried["cpu"])


SMALL = {"num_envs": 2, "total_timesteps": 64, "hidden_sizes": (8,), "eval_every": 0}
REPLAYED = {"batch_size": 4, "replay_capacity": 32, "learning_starts": 8}


def carry_of_turns(jaxpr: Any) -> list[Any]:
    """What the loop over turns carries: of all loops, that which carries most."""
    loops = [x for x in equations(getattr(jaxpr, "jaxpr", jaxpr)) if x.primitive.name in ("while", "scan")]
    return [x.aval for x in max(loops, key=lambda loop: len(loop.outvars)).outvars]


def equations(jaxpr: Any) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from equations(inner)


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


def turns(turn: Any, state: Any) -> tuple[Any, Any]:
    """Two turns, packed and not."""
    return tuple(take_turns(2, turn, state, x) for x in (MemberPacking(state, jax.tree.map(lambda _: 0, state)), None))


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        (lambda x: x | {"sum": x["sum"].astype(jnp.int32)}, r"^sum is float32\[2\] before a turn and int32\[2\] after"),
        (lambda x: x | {"sum": x["sum"][None]}, r"^sum is float32\[2\] before a turn and float32\[1,2\] after it"),
        (lambda x: {"sum": x["sum"], "number": x["count"]}, r"^a turn makes PyTreeDef.*number.* of PyTreeDef.*count"),
        (lambda x: x | {"none": x["sum"]}, r"^a turn makes PyTreeDef.* of PyTreeDef.*none"),
    ],
)
def test_a_turn_that_changes_the_kind_of_its_state_is_refused(turn: Any, message: str) -> None:
    state = {"count": jnp.int32(1), "sum": jnp.zeros(2), "none": None}
    packing = MemberPacking(state, {"count": None, "sum": 0, "none": 0})
    with pytest.raises(TypeError, match=message):
        take_turns(2, turn, state, packing)


def test_numbers_without_a_dtype_of_their_own_go_on_as_unpacked():
    state = {"weak": jnp.asarray(1.0), "half": jnp.ones(3, jnp.bfloat16), "number": 0, "sum": jnp.zeros(2)}

    def turn(x: dict[str, Any]) -> dict[str, Any]:
        half = x["weak"] * x["half"] / 2
        return x | {"half": half, "number": x["number"] + 1, "sum": np.ones(2)}

    packed, plain = turns(turn, state)
    for name, x in plain.items():
        assert (packed[name].dtype, packed[name].tolist()) == (x.dtype, x.tolist())


def test_what_is_packed_refuses_to_be_differentiated():
    def last(x: jax.Array, state: Any) -> jax.Array:
        return turns(lambda state: state * x, state)[0]

    with pytest.raises(TypeError, match=r"^a training's loop cannot be differentiated"):
        jax.jvp(last, (jnp.ones(2), jnp.ones(2)), (jnp.ones(2), jnp.ones(2)))
    value, tangent = jax.jvp(lambda x: x + last(jax.lax.stop_gradient(x), jnp.ones(2)), (jnp.ones(2),), (jnp.ones(2),))
    assert (value.tolist(), tangent.tolist()) == ([2, 2], [1, 1])


def test_which_loops_are_packed() -> None:
    platforms = ("cpu", "gpu", "tpu")
    assert [wants_few_kernels(platform) for platform in platforms] == [False, True, True]
    for experience in (ReplayBatches(8, 4, 0, 1), FixedData(4), Rollouts(1)):
        assert [packs_members(experience, platform) for platform in platforms] == [False, True, False]
    assert not any(packs_members(Rollouts(2), platform) for platform in platforms)


@pytest.mark.parametrize(("length", "size", "is_unrolled"), [(8, 1, True), (6, 1, False), (8, MAX_EQUATIONS, False)])
def test_short_steps_of_rollouts_are_unrolled(length: int, size: int, is_unrolled: bool) -> None:
    @jax.jit
    def repeated_sine(x: jax.Array) -> jax.Array:
        for _ in range(size):
            x = jnp.sin(x)
        return x

    def step(carry: jax.Array, x: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        carry = repeated_sine(carry + x)
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

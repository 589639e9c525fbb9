"""Rows that were packed are the same rows, to the bit."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsoft.envs import make_env
from jaxsoft.training.loop import init, make_config, make_loop
from jaxsoft.training.packing import MAX_CARRIED, EnvPacking, pack, scan_packed, unpack
from jaxsoft.training.turns import take_turn


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
    plain, packed = (jax.jit(partial(take_turn, loop=loop, pack_envs=pack_envs)) for pack_envs in (False, True))
    after, expected = packed(state), plain(state)
    assert jax.tree.structure(after) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(after), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(bits(x), bits(y), rtol=1e-4, atol=1e-6)  # another program, and so another rounding


def test_a_step_that_changes_a_dtype_is_refused_as_by_any_scan():
    env = make_env("gymnax/Pendulum-v1")
    loop = make_loop(env, make_config("ppo", env.spec.id, {"total_timesteps": 64, "hidden_sizes": (8,)}))
    state = jax.eval_shape(partial(init, loop=loop), jax.random.key(0))

    def step(state, x):
        return replace(state, obs=state.obs.astype(jnp.bfloat16)), {"x": x}

    with pytest.raises(TypeError, match=r"carry .*bfloat16"):
        jax.eval_shape(lambda state: scan_packed(step, state, jnp.zeros((2, 3)), pack_envs=True), state)

"""The length of gradients is bounded as optax does it, and their dtypes stay."""

from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsoft.agents.gradients import MAX_SMALL, Packed, Packing, clip_by_norm, descend


@pytest.mark.parametrize("max_norm", [0.1, 100.0])
def test_gradients_are_shortened_like_optaxs(max_norm: float):
    key = jax.random.key(0)
    grads = {"kernel": jax.random.normal(key, (3, 4)), "bias": jnp.ones(4), "own": jnp.ones((2, 2), jnp.bfloat16)}
    clips = clip_by_norm(max_norm), optax.clip_by_global_norm(max_norm)
    ours, theirs = (cast(Any, clip.update(grads, clip.init(grads))[0]) for clip in clips)
    for name, x in grads.items():
        assert ours[name].dtype == x.dtype
        tolerance = 1e-2 if x.dtype == jnp.bfloat16 else 1e-5
        np.testing.assert_allclose(np.float32(ours[name]), np.float32(theirs[name]), rtol=tolerance)


def test_zeros_stay_zeros():
    grads = {"kernel": jnp.zeros((3, 4))}
    ours = cast(Any, clip_by_norm(1.0).update(grads, optax.EmptyState())[0])
    np.testing.assert_array_equal(ours["kernel"], 0)


def test_steps_of_packed_parameters_are_those_of_their_tree():
    keys = jax.random.split(jax.random.key(0), 3)
    params = {
        "head": {"kernel": jax.random.normal(keys[0], (4, 2)), "bias": jnp.ones(2)},
        "large": jax.random.normal(keys[1], (MAX_SMALL + 1, 1)),
        "scale": jax.random.normal(keys[2], (4,)),
    }
    optimiser = optax.chain(clip_by_norm(0.5), optax.radam(lambda count: 0.1 / (1 + count)))

    def loss(params: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = jnp.tanh(x * params["scale"]) @ params["head"]["kernel"] + params["head"]["bias"]
        return jnp.sum(y**2) + jnp.sum(jnp.sin(params["large"])), y

    packing = Packing(params)
    trees, packed = (params, optimiser.init(params)), (packing.join(params), packing.join_state(optimiser.init(params)))
    assert isinstance(packed[0], Packed)
    assert [x.size for x in packed[0].large] == [MAX_SMALL + 1]
    assert packed[0].small.shape == (4 * 2 + 2 + 4,)
    for x in jnp.arange(16.0).reshape(4, 4):
        trees = cast(Any, descend(optimiser, loss, *trees, x)[:2])
        packed = cast(Any, descend(optimiser, loss, *packed, x, packing=packing)[:2])
    again = packing.split(packed[0]), packing.split_state(packed[1])
    assert jax.tree.structure(again) == jax.tree.structure(trees)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), again, trees)

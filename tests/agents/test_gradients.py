"""The length of gradients is bounded as optax does it, and their dtypes stay."""

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsoft.agents.gradients import clip_by_norm


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

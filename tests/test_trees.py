"""Trees of arrays."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxsoft.trees import batch_like


def test_a_tree_is_batched_with_what_the_vmap_batches() -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    tree = {"constant": jnp.arange(2), "own": jnp.ones(3), "key": jax.random.key(1)}

    def batched(key: jax.Array, x: jax.Array) -> dict[str, jax.Array]:
        return batch_like(key, tree | {"own": x})

    found = jax.vmap(batched)(keys, jnp.arange(3.0))
    np.testing.assert_array_equal(found["constant"], np.tile(np.arange(2), (3, 1)))
    np.testing.assert_array_equal(found["own"], np.arange(3.0))
    assert found["key"].shape == (3,)
    both = jax.vmap(jax.vmap(batched, (0, None)), (None, 0))(keys, jnp.arange(2.0))
    assert [x.shape for x in jax.tree.leaves(both)] == [(2, 3, 2), (2, 3), (2, 3)]
    np.testing.assert_array_equal(both["own"], [[0, 0, 0], [1, 1, 1]])
    alone = batch_like(keys[0], tree)
    np.testing.assert_array_equal(alone["constant"], np.arange(2))


def test_batching_leaves_derivatives_as_they_are() -> None:
    keys = jax.random.split(jax.random.key(0), 3)

    def square(key: jax.Array, x: jax.Array | float) -> jax.Array:
        tree = batch_like(key, {"x": x, "count": jnp.int32(2), "key": jax.random.key(1), "constant": jnp.ones(2)})
        return tree["x"] ** tree["count"] * tree["constant"][0]

    assert jax.jvp(lambda x: square(keys[0], x), (3.0,), (1.0,)) == (9, 6)
    assert jax.grad(lambda x: square(keys[0], x))(3.0) == 6
    np.testing.assert_array_equal(jax.vmap(jax.grad(square, argnums=1), (0, None))(keys, 3.0), [6, 6, 6])
    assert jax.grad(lambda x: jnp.sum(jax.vmap(square, (0, None))(keys, x)))(3.0) == 18
    np.testing.assert_array_equal(jax.vmap(jax.jacfwd(square, argnums=1), (0, None))(keys, 3.0), [6, 6, 6])

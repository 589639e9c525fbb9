"""Shuffled minibatches of a rollout."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxsoft.agents.minibatches import minibatch_indices


def test_every_epoch_sees_every_sample_once_in_an_order_of_its_own() -> None:
    indices = np.asarray(minibatch_indices(jax.random.key(0), 24, 3, 4))
    assert indices.shape == (12, 6)
    epochs = indices.reshape(3, 24)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(24), (3, 1)))
    assert all((epochs[i] != epochs[j]).mean() > 0.5 for i, j in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize("num_samples", [8, 13])
def test_every_order_of_samples_is_as_likely(num_samples: int) -> None:
    orders = jax.jit(jax.vmap(lambda key: minibatch_indices(key, num_samples, 1, 1)[0]))(
        jax.random.split(jax.random.key(0), 20_000)
    )
    counts = np.stack([np.bincount(at, minlength=num_samples) for at in np.asarray(orders).T])
    expected = 20_000 / num_samples
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)
    first, second = np.asarray(orders)[:, :2].T
    assert abs((first < second).mean() - 0.5) < 5 * 0.5 / np.sqrt(20_000)

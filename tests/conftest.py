"""Fixtures for every test."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)


@pytest.fixture
def x64() -> Iterator[None]:
    """Double precision for one test; without it JAX makes every float64 a float32."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def strict_ranks() -> Iterator[None]:
    """A silent broadcast of [2, 1] against [3] is how a loss goes wrong unseen: here it is an error."""
    with jax.numpy_rank_promotion("raise"):
        yield

"""Fixtures for every test."""

from __future__ import annotations

import os
from collections.abc import Iterator

# Most of the tests' time is the compilation of programs that run for a moment: plain ones are ready in a third of it.
# XLA reads this when the first program is compiled, and programs that tests start inherit it.
FAST_COMPILATION = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"{FAST_COMPILATION} {os.environ.get('XLA_FLAGS', '')}".strip()

import jax  # noqa: E402
import pytest  # noqa: E402
from processes import Shell  # noqa: E402


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


@pytest.fixture(scope="session")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """Starts the command line in processes, which share what they compile."""
    return Shell(tmp_path_factory.mktemp("compiled"))

"""Both precisions in one process: a test runs in float32 and in float64, each with the tolerance it deserves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
import pytest

BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64])

TOLERANCE = {np.float32: 1e-5, np.float64: 1e-10}
"""Absolute and relative, as the golden cases ask for."""


@contextmanager
def precision(dtype: type) -> Iterator[None]:
    """Computes in this dtype, with rank promotion an error."""
    with jax.enable_x64(dtype is np.float64), jax.numpy_rank_promotion("raise"):
        yield


def assert_close(actual: Any, expected: Any, dtype: type) -> None:
    """Within the dtype's tolerance, absolute for numbers below 1 and relative above."""
    np.testing.assert_allclose(actual, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])

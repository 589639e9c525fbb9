"""Fixtures for every test."""

from __future__ import annotations

import atexit
import ctypes
import gc
import os
import shutil
import tempfile
from collections.abc import Iterator

from jaxlib.version import __version_info__ as jaxlib_version

# Most of the tests' time is the compilation of programs that run for a moment: plain ones are ready in a third of it,
# and in one piece each in four fifths of that: pytest's workers keep all cores busy as it is. XLA reads this when the
# first program is compiled, and programs that tests start inherit it. On a flag it does not know it ends the process
# without a word: jaxlib 0.11 has no second way to emit fusions.
FAST_COMPILATION = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
if jaxlib_version < (0, 11):
    FAST_COMPILATION += " --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"{FAST_COMPILATION} {os.environ.get('XLA_FLAGS', '')}".strip()

# One device, however many cores there are: what tests compare to the bit must not depend on the machine.
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "1")

# Tests make the same programs again and again: one is compiled once, for pytest's workers and all that they start. The
# folder is this session's own: no test finds what another version of the code left, and none writes in a user's cache.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="jaxsoft-tests-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import jax  # noqa: E402
import pytest  # noqa: E402
from support.processes import Shell  # noqa: E402


@pytest.fixture(autouse=True, scope="module")
def forget_programs() -> Iterator[None]:
    """Compiled programs go with the file that made them: each holds a megabyte, however small, and there are thousands.

    What is freed goes back to the system only where the C library is asked.
    """
    yield
    jax.clear_caches()
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim:
        trim(0)


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
def shell() -> Shell:
    """Starts the command line in processes."""
    return Shell()

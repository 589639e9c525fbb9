"""Trees of arrays on disk, through Orbax: no pickle, nothing executed on reading.

A tree is stored as a flat mapping from its leaves' paths to NumPy arrays; random keys are stored as their words.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from types import TracebackType
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from jaxsoft.errors import InputError
from jaxsoft.fleet.memory import bytes_of, require_host_memory


def write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes arrays to a new folder."""
    stored = {name: array for name, array in arrays.items() if array.size}  # Orbax stores no empty ones
    with _checkpointer() as checkpointer:
        checkpointer.save(path.resolve(), args=_orbax().args.PyTreeSave(stored))


def read(path: Path, expected: dict[str, jax.ShapeDtypeStruct]) -> dict[str, np.ndarray]:
    """Reads arrays that `write` wrote. Their names, shapes and dtypes are looked at before anything is allocated.

    Raises:
        InputError: nothing is there, or something else than `expected`.
    """
    with _opened(path, expected) as (checkpointer, found):
        require_host_memory(bytes_of(expected), path)
        wanted = {name: _orbax().RestoreArgs(restore_type=np.ndarray) for name in found}
        arrays = checkpointer.restore(path.resolve(), args=_orbax().args.PyTreeRestore(restore_args=wanted))
    return {name: arrays.get(name, np.zeros(x.shape, x.dtype)) for name, x in expected.items()}


def check(path: Path, expected: dict[str, jax.ShapeDtypeStruct]) -> None:
    """Compares names, shapes and dtypes of what `write` wrote with what is expected; reads no arrays.

    Raises:
        InputError: nothing is there, or something else than `expected`.
    """
    with _opened(path, expected):
        pass


@contextlib.contextmanager
def _opened(path: Path, expected: dict[str, jax.ShapeDtypeStruct]) -> Iterator[tuple[Any, Any]]:
    """An Orbax checkpointer, and the description of what is stored, once that is found to be as expected."""
    try:
        with _checkpointer() as checkpointer:
            found = checkpointer.metadata(path.resolve()).item_metadata.tree
            _compare(path, found, expected)
            yield checkpointer, found
    except InputError:
        raise
    except Exception as error:  # Orbax raises many kinds, one per way of being broken
        raise InputError(
            f"{path} cannot be read: it is cut short or of another configuration ({in_short(error)})"
        ) from error


def in_short(error: Exception) -> str:
    """Why Orbax failed, in a few words: the system's own, where it was the system."""
    text = str(error).strip()
    number = getattr(error, "errno", None) or next(iter(re.findall(r"\[os_error_code='(\d+)'\]", text)), None)
    return os.strerror(int(number)) if number else (text or type(error).__name__).splitlines()[0][:200]


def _compare(path: Path, found: Any, expected: dict[str, jax.ShapeDtypeStruct]) -> None:
    stored = {name: x for name, x in expected.items() if 0 not in x.shape}
    if set(found) != set(stored):
        name = min(set(found) ^ set(stored))
        raise InputError(f"{path} cannot be read: it is of another configuration ({name} is in one of them only)")
    for name, x in stored.items():
        if (tuple(found[name].shape), np.dtype(found[name].dtype)) != (tuple(x.shape), np.dtype(x.dtype)):
            raise InputError(
                f"{path} cannot be read: it is of another configuration ({name} is "
                f"{np.dtype(found[name].dtype)}{list(found[name].shape)}, not {x.dtype}{list(x.shape)})"
            )


def flatten(tree: Any) -> dict[str, Any]:
    """A tree's leaves by their paths, random keys as their words; arrays, or `ShapeDtypeStruct`s."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): _words(x) for path, x in leaves}


def unflatten(arrays: dict[str, Any], example: Any) -> Any:
    """The tree like `example` whose leaves are `arrays`, as `flatten` names them."""

    def leaf(path: Any, like: Any) -> Any:
        array = arrays[jax.tree_util.keystr(path, simple=True, separator="/")]
        return jax.random.wrap_key_data(array, impl=_generator(like)) if _is_key(like) else array

    return jax.tree_util.tree_map_with_path(leaf, example)


def _words(x: Any) -> Any:
    if not _is_key(x):
        return x
    return jax.eval_shape(jax.random.key_data, x) if isinstance(x, jax.ShapeDtypeStruct) else jax.random.key_data(x)


def _generator(like: Any) -> Any:
    """The random generator that keys like these are of."""
    found = []
    jax.eval_shape(lambda key: found.append(jax.random.key_impl(key)), like)
    return found[0]


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


@cache
def _orbax() -> Any:
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax narrates every step, and logs what it raises
    sys.excepthook = partial(_but_for_closed_loops, sys.excepthook)
    import orbax.checkpoint as ocp

    return ocp


def _but_for_closed_loops(
    excepthook: Callable[..., Any], kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """An `excepthook` without what TensorStore prints when a write ends after another has failed."""
    if not (kind is RuntimeError and str(error) == "Event loop is closed"):
        excepthook(kind, error, trace)


@contextlib.contextmanager
def _checkpointer() -> Iterator[Any]:
    """An Orbax checkpointer for which this process is the only one: each writes folders of its own.

    In a run of several processes Orbax lets the first of them write NumPy arrays for all, and the others write nothing,
    whatever its options say. Here, meanwhile, each is the first and only.
    """
    ocp = _orbax()
    alone = ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0}, barrier_sync_key_prefix="alone")
    with contextlib.ExitStack() as stack:
        if jax.process_count() > 1:
            from orbax.checkpoint._src.multihost import multihost

            stack.enter_context(mock.patch.object(multihost, "process_index", new=int))  # int() is 0
            stack.enter_context(mock.patch.object(multihost, "process_count", new=partial(int, 1)))
        handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
        yield stack.enter_context(ocp.Checkpointer(handler, multiprocessing_options=alone))

"""Trees of arrays on disk, through Orbax: no pickle, nothing executed on reading.

A tree is stored as a flat mapping from its leaves' paths to NumPy arrays; random keys are stored as their words.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from jaxsoft.errors import InputError
from jaxsoft.fleet.memory import require_host_memory
from jaxsoft.runs.files import tell_errors
from jaxsoft.trees import bytes_of

OBSOLETE = "settings/"
"""Prefix of the names of arrays that only earlier versions stored; they are ignored unless expected."""

FIELD, STORED_FIELD = "failure/last_good/", "failure/last_well/"
"""A field of the training state, and its name in run directories of format 3."""


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/").replace(FIELD, STORED_FIELD)


def write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays to a new folder; raises whatever Orbax does, see `tell_errors`."""
    # Orbax refuses empty arrays, and a tree without any
    stored = {name: array for name, array in arrays.items() if array.size}
    if not stored:
        path.mkdir()
        return
    with _checkpointer() as checkpointer:
        checkpointer.save(path.resolve(), args=_orbax().args.PyTreeSave(stored))


def read(path: Path, expected: Mapping[str, jax.ShapeDtypeStruct], *, only_check: bool = False) -> dict[str, Any]:
    """Reads arrays that `write` wrote, once names, shapes and dtypes are as expected; with `only_check` it reads none.

    Raises:
        InputError: the folder holds none, or others than `expected`.
    """
    wanted = {name: x for name, x in expected.items() if 0 not in x.shape}
    if not wanted and path.is_dir() and not any(path.iterdir()):
        return {name: np.zeros(x.shape, x.dtype) for name, x in expected.items()}
    with _open(path) as checkpointer:
        found = _stored(checkpointer, path)
        found = {name: x for name, x in found.items() if name in wanted or not name.startswith(OBSOLETE)}
        differing = difference(_kinds(found), _kinds(wanted))
        if differing:
            raise InputError(f"{path} cannot be read: it is of another configuration ({differing} here)")
        if only_check:
            return {}
        require_host_memory(bytes_of(expected), path)
        as_numpy = {name: _orbax().RestoreArgs(restore_type=np.ndarray) for name in wanted}
        args = _orbax().args.PyTreeRestore(wanted, restore_args=as_numpy, partial_restore=True)
        arrays = checkpointer.restore(path.resolve(), args=args)
    return {name: arrays[name] if name in wanted else np.zeros(x.shape, x.dtype) for name, x in expected.items()}


def names(path: Path) -> set[str]:
    """The names of the arrays in a folder that `write` wrote.

    Raises:
        InputError: the folder holds none.
    """
    with _open(path) as checkpointer:
        return set(_stored(checkpointer, path))


@contextlib.contextmanager
def _open(path: Path) -> Iterator[Any]:
    fate = "read; it is cut short or of another configuration"
    with tell_errors(path, fate, Exception), _checkpointer() as checkpointer:  # Orbax has a kind for each way to break
        yield checkpointer


def _stored(checkpointer: Any, path: Path) -> dict[str, Any]:
    return checkpointer.metadata(path.resolve()).item_metadata.tree


def _kinds(arrays: Mapping[str, Any]) -> dict[str, str]:
    return {name: f"{np.dtype(x.dtype)}{list(x.shape)}" for name, x in arrays.items()}


def difference(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """The first difference of two mappings, as «`name` is 1 there and 2»; empty where they are equal."""
    for name in sorted(found.keys() | expected.keys()):
        theirs, ours = found.get(name), expected.get(name)
        if isinstance(theirs, dict) and isinstance(ours, dict) and theirs != ours:
            return difference(theirs, ours)
        if theirs != ours:
            return f"{name} is {json.dumps(theirs)[:100]} there and {json.dumps(ours)[:100]}"
    return ""


def flatten(tree: Any) -> dict[str, jax.Array]:
    """A tree's leaves by their paths, random keys as their words."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {_name(path): jax.random.key_data(x) if _is_key(x) else x for path, x in leaves}


def unflatten(arrays: Mapping[str, Any], example: Any) -> Any:
    """The tree like `example` whose leaves are `arrays`, as `flatten` names them."""

    def leaf(path: Any, like: Any) -> Any:
        array = arrays[_name(path)]
        if not _is_key(like):
            return array
        return jax.random.wrap_key_data(array, impl=jax.random.key_impl(jnp.empty((), like.dtype)))

    return jax.tree_util.tree_map_with_path(leaf, example)


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


@cache
def _orbax() -> Any:
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax narrates every step, and logs what it raises
    excepthook = sys.excepthook

    def show_error(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        # TensorStore shows this when one write ends after another has failed
        if not (kind is RuntimeError and str(error) == "Event loop is closed"):
            excepthook(kind, error, trace)

    sys.excepthook = show_error
    import orbax.checkpoint as ocp

    return ocp


@contextlib.contextmanager
def _checkpointer() -> Iterator[Any]:
    """An Orbax checkpointer that knows of no other process: each process writes folders of its own.

    Whatever its options say, Orbax lets only the process of index 0 write NumPy arrays, and no process write arrays
    that are only on its own devices. So every process has index 0 here.
    """
    ocp = _orbax()
    alone = ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0}, barrier_sync_key_prefix="alone")
    with contextlib.ExitStack() as stack:
        if jax.process_count() > 1:
            from orbax.checkpoint._src.multihost import multihost

            stack.enter_context(mock.patch.object(multihost, "process_index", new=int))  # int() is 0
        handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
        yield stack.enter_context(ocp.Checkpointer(handler, multiprocessing_options=alone))

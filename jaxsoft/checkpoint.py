"""Trees of arrays on disk, through Orbax: no pickle, nothing executed on reading."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from jaxsoft.errors import InputError


def save(path: Path, tree: Any) -> None:
    """Writes a tree of arrays to a new directory; it appears there whole or not at all."""
    with _checkpointer() as checkpointer:
        checkpointer.save(path.resolve(), tree)


def restore(path: Path, example: Any) -> Any:
    """Reads a tree of arrays.

    Args:
        path: a directory that `save` wrote.
        example: the tree's structure, shapes and dtypes, as arrays or `ShapeDtypeStruct`s.

    Raises:
        InputError: nothing is there, or something else than `example` describes.
    """
    if not path.is_dir():
        raise InputError(f"{path} is missing: the run was cut short before it was saved")
    try:
        with _checkpointer() as checkpointer:
            return checkpointer.restore(path.resolve(), example)
    except Exception as error:  # Orbax raises many kinds, one per way of being broken
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise InputError(f"{path} cannot be read: it is cut short or of another configuration ({reason})") from error


def _checkpointer() -> Any:
    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax narrates every step
    import orbax.checkpoint as ocp

    return ocp.StandardCheckpointer()

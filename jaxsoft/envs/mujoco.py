"""Imports of MuJoCo and MJX without their messages and log files."""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def mute_warnings() -> Iterator[None]:
    """Mutes MuJoCo's warnings of deprecated attributes in model files that are not ours to change.

    Without it each is printed, and appended to a file MUJOCO_LOG.TXT in the working directory.
    """
    mujoco: Any = importlib.import_module("mujoco")
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda text: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)


def import_mjx() -> Any:
    """The module `mujoco.mjx`, without what its first import prints of back ends that are not installed."""
    if "mujoco.mjx" not in sys.modules:
        with contextlib.redirect_stdout(io.StringIO()):
            importlib.import_module("mujoco.mjx")
    return sys.modules["mujoco.mjx"]

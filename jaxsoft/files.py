"""Files and folders that are there whole or not at all, and a lock that keeps a second process away.

What is being written has a name that begins with a dot; it gets its own name once it is on the disk.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from jaxsoft.errors import InputError

PARTIAL = ".partial-"
"""How the names of unfinished files and folders begin."""

LOCK = ".lock"


def within(folder: Path, *names: str) -> Path:
    """A path in a folder of unknown origin.

    Raises:
        InputError: it leads outside, by a link.
    """
    path = folder.joinpath(*names)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{path} leads outside of {folder}; it is not read")
    return path


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that a reader, or a crash, finds the old content or the new, never half of one."""
    partial = path.with_name(PARTIAL + path.name)
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    _sync(path.parent)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which gets the name `path` when all that was put into it is on the disk.

    What had the name before is replaced. Where filling it fails, nothing is left of it.
    """
    partial = path.with_name(PARTIAL + path.name)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        for entry in partial.rglob("*"):
            _sync(entry)
        _sync(partial)
        if path.exists():
            remove_folder(path)
        os.replace(partial, path)
        _sync(path.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def remove_folder(path: Path) -> None:
    """Removes a folder; a crash leaves it whole, or under another name."""
    doomed = path.with_name(f"{PARTIAL}removed-{path.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    os.replace(path, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def remove_partial(folder: Path) -> None:
    """Removes what a crash has left unfinished in a folder."""
    for path in folder.glob(PARTIAL + "*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other processes from writing to a folder; the lock ends with the process, however that ends.

    Raises:
        InputError: another process has it, or it cannot be written.
    """
    import fcntl

    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("w")
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror or error}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{folder} is in use by another process; nothing was changed in it") from None
        yield


def _sync(path: Path) -> None:
    """Has the system put a file, or a folder's names, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

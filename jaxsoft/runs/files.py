"""Files and folders that are there whole or not at all, and a lock that keeps a second process away.

What is unfinished has a name that begins with a dot; it gets its own name once it is on the disk. Nothing is written
through a link, and nothing waits for a pipe or a device: folders may come from strangers.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import Any

from jaxsoft.errors import InputError

PARTIAL = ".partial-"
"""How the names of unfinished files and folders begin."""

LOCK = ".lock"


@contextlib.contextmanager
def tell_errors(path: object, what: str, kinds: Any = OSError) -> Iterator[None]:
    """Tells errors of some kinds, by default the system's, in one line: «`path` cannot be `what`: No such file»."""
    try:
        yield
    except InputError:
        raise
    except kinds as error:
        # TensorStore has kinds of its own for the system's errors
        number = getattr(error, "errno", None) or next(iter(re.findall(r"\[os_error_code='(\d+)'\]", str(error))), None)
        message = (
            os.strerror(int(number)) if number else f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]
        )
        raise InputError(f"{path} cannot be {what}: {message[:200]}") from error


def path_inside(folder: Path, *names: str) -> Path:
    """A path in a folder of unknown origin.

    Raises:
        InputError: a link leads it outside, or in circles.
    """
    path = folder.joinpath(*names)
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # pathlib's word for links in a circle
        inside = False
    if not inside:
        raise InputError(f"{path} leads outside of {folder}; it is not read")
    return path


def open_regular(path: Path) -> BufferedReader:
    """Opens a regular file for reading, and never waits for the other end of a pipe.

    Raises:
        InputError: it is missing, a link, no regular file, or cannot be read.
    """
    with tell_errors(path, "read", (OSError, ValueError)):
        if path.is_symlink():
            raise InputError(f"{path} cannot be read: it is a link")
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise InputError(f"{path} is missing") from None
    return os.fdopen(_require_regular(descriptor, path), "rb")


def read_regular(path: Path, longest: int) -> bytes:
    """The content of a regular file.

    Raises:
        InputError: as `open_regular`, or it has more than `longest` bytes.
    """
    with open_regular(path) as file, tell_errors(path, "read"):
        if os.fstat(file.fileno()).st_size > longest:
            raise InputError(f"{path} is longer than {longest:,} bytes")
        return file.read()


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that a reader, or a crash, finds the old content or the new, never half of one.

    A link of that name is replaced, not followed.

    Raises:
        InputError: it cannot be written, or a device, a pipe or a folder has this name.
    """
    with tell_errors(path, "written"):
        if path.exists() and not path.is_file():
            raise InputError(f"{path} cannot be written: it is not a regular file")
        with _replacement(path) as unfinished, unfinished.open("xb") as file:
            file.write(content)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which gets the name `path` when all that was put into it is on the disk.

    What had the name before is replaced. Where filling it fails, nothing is left of it. The folder around it must be
    there: one that was removed meanwhile is not made anew.

    Raises:
        InputError: the folder around it was removed or replaced meanwhile.
        OSError: it cannot be written; see `tell_errors`.
    """
    with _replacement(path) as unfinished:
        unfinished.mkdir()
        yield unfinished


@contextlib.contextmanager
def _replacement(path: Path) -> Iterator[Path]:
    """The name under which to make what then replaces `path`; where that fails, nothing is left of it."""
    unfinished = path.with_name(PARTIAL + path.name)
    remove(unfinished)
    with _descriptor_of(path.parent) as around:
        try:
            yield unfinished
            _require_place(around, path.parent)
            for entry in (*unfinished.rglob("*"), unfinished):
                with _descriptor_of(entry) as descriptor:
                    os.fsync(descriptor)
            if unfinished.is_dir() and os.path.lexists(path):
                remove_folder(path)
            os.replace(unfinished, path)
            os.fsync(around)
        except BaseException:
            remove(unfinished)
            raise


@contextlib.contextmanager
def _descriptor_of(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _require_place(descriptor: int, path: Path) -> None:
    """Makes sure that what was opened is still at its path; while it is open nothing else can have its number."""
    with contextlib.suppress(OSError):
        if os.path.samestat(os.stat(path), os.fstat(descriptor)):
            return
    raise InputError(f"{path} was removed or replaced while it was in use; nothing more is written")


def copy(source: Path, target: Path) -> None:
    """Copies a regular file, or a folder of them; in folders, names that begin with a dot are left out.

    Raises:
        InputError: a link, a pipe or a device is among them, or something cannot be read or written.
    """
    with tell_errors(target, "written"):
        if source.is_symlink():
            raise InputError(f"{source} is a link; it is not copied")
        if source.is_dir():
            target.mkdir()
            for entry in sorted(source.iterdir()):
                if not entry.name.startswith("."):
                    copy(entry, target / entry.name)
        else:
            with open_regular(source) as content, target.open("xb") as file:
                shutil.copyfileobj(content, file)


def remove(path: Path) -> None:
    """Removes a file, a link or a folder, whichever is there, if that is possible; links are not followed."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def remove_folder(path: Path) -> None:
    """Removes a folder; a crash leaves it whole, or under another name.

    Raises:
        InputError: it cannot be removed.
    """
    doomed = path.with_name(f"{PARTIAL}removed-{path.name}")
    remove(doomed)
    with tell_errors(path, "removed"):
        os.replace(path, doomed)
    remove(doomed)


def remove_partial(folder: Path) -> None:
    """Removes what a crash has left unfinished in a folder."""
    for path in folder.glob(PARTIAL + "*"):
        remove(path)


@contextlib.contextmanager
def lock(folder: Path, *names: str) -> Iterator[Callable[[], None]]:
    """Keeps other processes from writing to a folder; the lock ends with the process, however that ends.

    Args:
        folder: a run directory.
        *names: of the folder in it, and of one in that; they are made where they are missing.

    Yields:
        What raises an `InputError` once the folder is no longer where it was.

    Raises:
        InputError: another process has it, it cannot be written, or one of the names is a link.
    """
    import fcntl

    with tell_errors(folder, "written"):
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            folder /= name
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
            if not stat.S_ISDIR(folder.lstat().st_mode):
                raise InputError(f"{folder} is a link or a file, not a folder; nothing is written there")
        file = folder / LOCK
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = _require_regular(os.open(file, flags, 0o666), file)
    with contextlib.closing(os.fdopen(descriptor, "rb")):
        with tell_errors(file, "locked"):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(f"{folder} is in use by another process; nothing was changed in it") from None
        yield partial(_require_place, descriptor, file)


def _require_regular(descriptor: int, path: Path) -> int:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(f"{path} is not a regular file")
    return descriptor

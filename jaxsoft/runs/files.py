"""Files and folders that are there whole or not at all, and a lock that keeps a second process away.

What is unfinished has a name that begins with a dot; it gets its own name once it is on the disk. Nothing is written
through a link, and nothing waits for a pipe or a device: folders may come from strangers.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path

from jaxsoft.errors import InputError

PARTIAL = ".partial-"
"""How the names of unfinished files and folders begin."""

LOCK = ".lock"


def within(folder: Path, *names: str) -> Path:
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


def open_regular(path: Path, *, follow: bool = True) -> BufferedReader:
    """Opens a regular file for reading, and never waits for the other end of a pipe.

    Raises:
        InputError: it is missing, no regular file, cannot be read, or is a link and `follow` is false.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        reason = "it is a link" if not follow and path.is_symlink() else _reason(error)
        raise InputError(f"{path} cannot be read: {reason}") from None
    return os.fdopen(_require_regular(descriptor, path), "rb")


def read_regular(path: Path, longest: int, *, follow: bool = True) -> bytes:
    """The content of a regular file.

    Raises:
        InputError: as `open_regular`, or it has more than `longest` bytes.
    """
    with open_regular(path, follow=follow) as file, _told(path, "read"):
        if os.fstat(file.fileno()).st_size > longest:
            raise InputError(f"{path} is longer than {longest:,} bytes")
        return file.read()


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that a reader, or a crash, finds the old content or the new, never half of one.

    A link of that name is replaced, not followed.

    Raises:
        InputError: it cannot be written, or a device, a pipe or a folder has this name.
    """
    partial = path.with_name(PARTIAL + path.name)
    with _told(path, "written"):
        if path.exists() and not path.is_file():
            raise InputError(f"{path} cannot be written: it is not a regular file")
        remove(partial)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except OSError:
            remove(partial)
            raise
        _sync(path.parent)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which gets the name `path` when all that was put into it is on the disk.

    What had the name before is replaced. Where filling it fails, nothing is left of it. The folder around it must be
    there: one that was removed meanwhile is not made anew.

    Raises:
        InputError: it cannot be written.
    """
    partial = path.with_name(PARTIAL + path.name)
    remove(partial)
    with _told(path, "written"):
        partial.mkdir()
        try:
            yield partial
            for entry in partial.rglob("*"):
                _sync(entry)
            _sync(partial)
            if os.path.lexists(path):
                remove_folder(path)
            os.replace(partial, path)
            _sync(path.parent)
        except BaseException:
            remove(partial)
            raise


def copy(source: Path, target: Path) -> None:
    """Copies a regular file, or a folder of them; in folders, names that begin with a dot are left out.

    Raises:
        InputError: a link, a pipe or a device is among them, or something cannot be read or written.
    """
    with _told(target, "written"):
        if source.is_symlink():
            raise InputError(f"{source} is a link; it is not copied")
        if source.is_dir():
            target.mkdir()
            for entry in sorted(source.iterdir()):
                if not entry.name.startswith("."):
                    copy(entry, target / entry.name)
        else:
            with open_regular(source, follow=False) as content, target.open("xb") as file:
                shutil.copyfileobj(content, file)


def remove(path: Path) -> None:
    """Removes a file, a link or a folder, whichever is there, if that is possible; links are not followed."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def remove_folder(path: Path) -> None:
    """Removes a folder; a crash leaves it whole, or under another name."""
    doomed = path.with_name(f"{PARTIAL}removed-{path.name}")
    remove(doomed)
    os.replace(path, doomed)
    remove(doomed)


def remove_partial(folder: Path) -> None:
    """Removes what a crash has left unfinished in a folder."""
    for path in folder.glob(PARTIAL + "*"):
        remove(path)


@contextlib.contextmanager
def locked(folder: Path, *names: str) -> Iterator[Callable[[], None]]:
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

    path = _make_folders(folder, names)
    with _told(path, "written"):
        file = path / LOCK
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = _require_regular(os.open(file, flags, 0o666), file)
    own = os.fstat(descriptor)

    def require_place() -> None:
        try:
            is_there = os.path.samestat(os.stat(file), own)
        except OSError:
            is_there = False
        if not is_there:
            raise InputError(f"{path} was removed or replaced while it was in use; nothing more is written")

    with contextlib.closing(os.fdopen(descriptor, "rb")):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{path} is in use by another process; nothing was changed in it") from None
        except OSError as error:
            raise InputError(f"{file} cannot be locked: {_reason(error)}") from None
        yield require_place


def _make_folders(folder: Path, names: tuple[str, ...]) -> Path:
    """A folder within a folder, made where it is missing; refuses links."""
    with _told(folder, "written"):
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            folder /= name
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
            if not stat.S_ISDIR(folder.lstat().st_mode):
                raise InputError(f"{folder} is a link or a file, not a folder; nothing is written there")
    return folder


def _require_regular(descriptor: int, path: Path) -> int:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(f"{path} is not a regular file")
    return descriptor


@contextlib.contextmanager
def _told(path: Path, what: str) -> Iterator[None]:
    """Tells the system's errors in one line."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path} cannot be {what}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def _sync(path: Path) -> None:
    """Has the system put a file, or a folder's names, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

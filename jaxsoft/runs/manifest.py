"""A folder's manifest: what it holds, with a digest of every file, so that a flipped or missing byte is found.

    manifest.json   {"sha256": "…", "content": {"format": 1, …, "files": {"name": {"bytes": 3, "sha256": "…"}}}}

The outer digest is of the content, as JSON with sorted keys and no spaces. Reading one trusts nothing that it says.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path, PurePosixPath
from typing import Any

from jaxsoft.errors import InputError
from jaxsoft.runs.files import open_regular, read_regular, write_atomically

NAME = "manifest.json"

FORMAT = 1
"""Version of the layout of the folders that have a manifest."""

LONGEST = 10_000_000
"""Bytes of the longest manifest that is read."""


def write(folder: Path, facts: dict[str, Any]) -> None:
    """Writes the manifest of all files in a folder, and some facts about them."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": _digest_of(path)}
    content = {"format": FORMAT, **facts, "files": files}
    text = json.dumps({"sha256": _digest(content), "content": content}, indent=1)
    write_atomically(folder / NAME, text.encode())


def read(folder: Path, facts: dict[str, type]) -> dict[str, Any]:
    """Reads a manifest, without looking at the files.

    Args:
        folder: what it is about.
        facts: the names of the facts it must hold, and their types.

    Raises:
        InputError: it is missing, a link, cut short, changed, or of another format.
    """
    path = folder / NAME
    text = read_regular(path, LONGEST, follow=False)
    try:
        whole = json.loads(text)
        content, digest = whole["content"], whole["sha256"]
        if content["format"] != FORMAT:
            raise InputError(f"{folder} has format {content['format']!r}; this version reads {FORMAT}")
        if _digest(content) != digest:
            raise ValueError("its digest is another")
        for name, kind in {**facts, "files": dict}.items():
            if type(content[name]) is not kind:
                raise TypeError(f"{name} is no {kind.__name__}")
        for name, entry in content["files"].items():
            _check_entry(name, entry)
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is cut short or was changed ({type(error).__name__}: {str(error)[:100]})") from None
    return content


def verify(folder: Path, content: dict[str, Any], under: str = "") -> None:
    """Compares the files whose names begin with `under` with what the manifest says of them.

    Raises:
        InputError: names the first that is missing, changed, or not in the manifest.
    """
    files = {name: entry for name, entry in content["files"].items() if name.startswith(under)}
    entries = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    present = {path.relative_to(folder).as_posix() for path in entries}
    for name in sorted(present - set(content["files"]) - {NAME}):
        raise InputError(f"{folder} is broken: {name} is not in its manifest")
    for name, entry in files.items():
        path = folder / name
        if any(part.is_symlink() for part in (path, *path.parents) if part.is_relative_to(folder) and part != folder):
            raise InputError(f"{folder} is broken: {name} is a link")
        if not path.is_file():
            raise InputError(f"{folder} is broken: {name} is missing")
        if path.stat().st_size != entry["bytes"]:
            raise InputError(f"{folder} is broken: {name} has {path.stat().st_size} bytes, not {entry['bytes']}")
        if _digest_of(path) != entry["sha256"]:
            raise InputError(f"{folder} is broken: {name} is not what was written (its digest is another)")


def _check_entry(name: str, entry: Any) -> None:
    """Whether an entry names a file within the folder, and says what it must."""
    path = PurePosixPath(name)
    if not path.parts or "\\" in name or "\0" in name or path.is_absolute() or ".." in path.parts or str(path) != name:
        raise ValueError(f"{name!r} is no name of a file within the folder")
    if type(entry["bytes"]) is not int or entry["bytes"] < 0 or type(entry["sha256"]) is not str:
        raise TypeError(f"what it says of {name} is wrong")


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _digest_of(path: Path) -> str:
    with open_regular(path, follow=False) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

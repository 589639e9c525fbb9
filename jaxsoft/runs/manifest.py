"""A folder's manifest: what it holds, with a digest of every file, so that a flipped or missing byte is found.

    manifest.json   {"sha256": "…", "content": {"format": 1, …, "files": {"name": {"bytes": 3, "sha256": "…"}}}}

The outer digest is of the content, as JSON with sorted keys and no spaces. Reading one trusts nothing that it says, and
opens no file by a name that stands in it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from jaxsoft.errors import InputError
from jaxsoft.runs.files import open_regular, read_regular, tell_errors, write_atomically

NAME = "manifest.json"

FORMAT = 1
"""Version of the layout of the folders that have a manifest."""

LONGEST = 10_000_000
"""Bytes of the longest manifest that is read."""


def write(folder: Path, facts: dict[str, Any]) -> None:
    """Writes the manifest of all files in a folder, and some facts about them."""
    files = {name: {"bytes": path.stat().st_size, "sha256": _digest_of(path)} for name, path in _files(folder).items()}
    content = {"format": FORMAT, **facts, "files": files}
    write_atomically(folder / NAME, json.dumps({"sha256": _digest(content), "content": content}, indent=1).encode())


def read(folder: Path, facts: dict[str, type]) -> dict[str, Any]:
    """Reads a folder's manifest, without looking at the files; it must hold facts of these names and types.

    Raises:
        InputError: it is missing, a link, cut short, changed, or of another format.
    """
    path = folder / NAME
    text = read_regular(path, LONGEST)
    malformed = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
    with tell_errors(path, "read; it is cut short or was changed", malformed):
        whole = json.loads(text)
        content, digest = whole["content"], whole["sha256"]
        if content["format"] != FORMAT:
            raise InputError(f"{folder} has format {content['format']!r}; this version reads {FORMAT}")
        if _digest(content) != digest:
            raise ValueError("its digest is another")
        wrong = [name for name, kind in {**facts, "files": dict}.items() if type(content[name]) is not kind]
        if wrong or not all(isinstance(entry, dict) for entry in content["files"].values()):
            raise TypeError(f"{wrong or 'what it says of a file'} is of another type")
    return content


def verify(folder: Path, content: dict[str, Any]) -> None:
    """Compares the files in a folder with what its manifest says.

    Raises:
        InputError: names the first that is missing, changed, a link, or not in the manifest.
    """
    present, listed = _files(folder), content["files"]
    for name in sorted(present.keys() | listed.keys()):
        path, entry = present.get(name), listed.get(name)
        if path is None:
            wrong = "is missing"
        elif entry is None:
            wrong = "is not in its manifest"
        elif path.is_symlink():
            wrong = "is a link"
        elif (size := path.stat().st_size) != entry.get("bytes"):
            wrong = f"has {size} bytes, not {entry.get('bytes')}"
        elif _digest_of(path) != entry.get("sha256"):
            wrong = "is not what was written (its digest is another)"
        else:
            continue
        raise InputError(f"{folder} is broken: {name} {wrong}")


def _files(folder: Path) -> dict[str, Path]:
    """All that is in a folder but folders and its manifest, by name; links are not followed."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_symlink() or not path.is_dir())
    return {path.relative_to(folder).as_posix(): path for path in paths if path != folder / NAME}


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _digest_of(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

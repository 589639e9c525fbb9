"""Files are there whole or not at all; nothing is written through a link, and nothing waits for a pipe."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jaxsoft.errors import InputError
from jaxsoft.runs import files


@pytest.fixture
def secret(tmp_path: Path) -> Iterator[Path]:
    """A file outside of the folder in which the test writes: what it holds must stay."""
    path = tmp_path / "secret"
    path.write_text("another's")
    yield path
    assert path.read_text() == "another's"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "folder"
    path.mkdir()
    return path


def test_links_are_replaced_and_not_written_through(folder: Path, secret: Path) -> None:
    (folder / "file").symlink_to(secret)
    (folder / ".partial-file").symlink_to(secret)
    files.write_atomically(folder / "file", b"new")
    assert [(path.name, path.is_symlink(), path.read_text()) for path in folder.iterdir()] == [("file", False, "new")]
    (folder / "inner").symlink_to(secret.parent)
    (folder / ".partial-inner").symlink_to(secret.parent)
    (folder / ".partial-removed-inner").symlink_to(secret.parent)
    with files.new_folder(folder / "inner") as partial:
        (partial / "x").touch()
    assert sorted(os.listdir(folder)) == ["file", "inner"]
    assert os.listdir(folder / "inner") == ["x"]
    (folder / ".partial-left").symlink_to(secret.parent)
    files.remove_partial(folder)
    assert sorted(os.listdir(folder)) == ["file", "inner"]


def test_what_is_no_regular_file_is_not_replaced(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to("/dev/null")
    for path in (folder / "pipe", folder / "link", folder):
        with pytest.raises(InputError, match="cannot be written: it is not a regular file"):
            files.write_atomically(path, b"")
    assert (folder / "pipe").is_fifo()
    assert (folder / "link").is_symlink()


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_folder_is_not_finished_in_another_than_it_was_begun_in(folder: Path, is_replaced: bool) -> None:
    outer = folder / "outer"
    outer.mkdir()

    def fill(unfinished: Path) -> None:
        outer.rename(folder / "elsewhere")
        if is_replaced:  # as by a library that makes the folders that it misses
            unfinished.mkdir(parents=True)
            (unfinished / "x").touch()

    with pytest.raises(InputError, match="outer was removed or replaced"), files.new_folder(outer / "inner") as made:
        fill(made)
    assert not outer.exists() or not list(outer.iterdir())


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(folder: Path) -> None:
    files.write_atomically(folder / "file", b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
    try:
        with pytest.raises(InputError, match="file cannot be written: File too large"):
            files.write_atomically(folder / "file", bytes(2_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(folder) == ["file"]
    assert (folder / "file").read_bytes() == b"old"
    with pytest.raises(InputError, match="cannot be written: No such file or directory"):
        files.write_atomically(folder / "nowhere" / "file", b"")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "is missing"),
        (os.mkfifo, "is not a regular file"),
        (os.mkdir, "is not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "cannot be read: it is a link"),
        (lambda path: path.symlink_to(path), "cannot be read: it is a link"),
        (lambda path: path.write_bytes(bytes(11)), "is longer than 10 bytes"),
    ],
)
def test_only_regular_files_are_read(folder: Path, make: Callable[[Path], None], message: str) -> None:
    make(folder / "file")
    with pytest.raises(InputError, match=message):
        files.read_regular(folder / "file", 10)


def test_a_lock_changes_nothing_outside(folder: Path, secret: Path) -> None:
    (folder / "linked").symlink_to(secret.parent)
    (folder / "dangling").symlink_to(secret.parent / "nowhere")
    for name in ("linked", "dangling"):
        with pytest.raises(InputError, match=f"{name} is a link or a file, not a folder"), files.lock(folder, name):
            pass
    assert sorted(os.listdir(secret.parent)) == ["folder", "secret"]
    for name, make in {"a": lambda path: path.symlink_to(secret), "b": os.mkfifo}.items():
        (folder / name).mkdir()
        make(folder / name / files.LOCK)
        with pytest.raises(InputError, match=r"cannot be written: Too many|is not a regular file"):
            files.lock(folder, name).__enter__()


def test_a_lock_tells_that_its_folder_is_gone(folder: Path) -> None:
    with files.lock(folder, "a", "b") as require_place:
        require_place()
        (folder / "a").rename(folder / "c")
        with pytest.raises(InputError, match="was removed or replaced"):
            require_place()
        with files.lock(folder, "a", "b"), pytest.raises(InputError, match="was removed or replaced"):
            require_place()


@pytest.mark.parametrize("make", [lambda path: path.symlink_to(".."), lambda path: path.symlink_to("gone"), os.mkfifo])
def test_a_copy_has_only_regular_files(folder: Path, tmp_path: Path, make: Callable[[Path], None]) -> None:
    (folder / "inner").mkdir()
    (folder / "inner" / "file").write_text("x")
    make(folder / ".left-out")
    files.copy(folder, tmp_path / "copy")
    assert [path.relative_to(tmp_path / "copy").as_posix() for path in (tmp_path / "copy").rglob("*")] == [
        "inner",
        "inner/file",
    ]
    make(folder / "inner" / "odd")
    with pytest.raises(InputError, match=r"odd is (a link; it is not copied|not a regular file)"):
        files.copy(folder, tmp_path / "again")


def test_links_in_a_circle_lead_nowhere(folder: Path) -> None:
    (folder / "circle").symlink_to(folder / "circle")
    with pytest.raises(InputError, match="leads outside of"):
        files.path_inside(folder, "circle", "file")

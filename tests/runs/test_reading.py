"""Run directories of unknown origin: reading one executes nothing, stays inside, allocates nothing absurd, and ends in
what was read or in one clear line."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import jaxsoft
from jaxsoft.cli import main
from jaxsoft.envs import make_env
from jaxsoft.errors import InputError
from jaxsoft.fleet.grid import Chunk
from jaxsoft.fleet.programs import make_program
from jaxsoft.runs import config as config_file
from jaxsoft.runs import directory, manifest, parquet, tables
from jaxsoft.runs.config import RunConfig
from jaxsoft.training.config import make_config

COMMAND = (
    "train soft_q_stream finite/Chain-5 --hidden-sizes 4 --total-timesteps 40 --eval-every 20 --eval-episodes 1 "
    "--sweep temperature=0.1 --out"
).split()

QUIET = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    assert main([*COMMAND, str(path)]) == 0
    return path


@pytest.fixture
def a_copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "copy"))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.just(10**400)
    | st.just("../../x"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)


def changed(value: Any, path: tuple[int, ...], new: Any) -> Any:
    """A value of JSON with one of its parts replaced."""
    if not path or not isinstance(value, (dict, list)) or not value:
        return new
    value = copy.copy(value)
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key = keys[path[0] % len(keys)]
    value[key] = changed(value[key], path[1:], new)
    return value


PATHS = st.lists(st.integers(0, 40), min_size=1, max_size=4).map(tuple)


@QUIET
@given(path=PATHS, new=JSON)
def test_a_config_with_anything_in_it_is_read_or_refused(run: Path, tmp_path: Path, path: tuple, new: Any) -> None:
    values = changed(json.loads((run / config_file.CONFIG).read_text()), path, new)
    (tmp_path / config_file.CONFIG).write_text(json.dumps(values))
    try:
        config = config_file.read_config(tmp_path)
    except InputError:
        return
    assert isinstance(config, RunConfig)
    assert len(config.seeds) * len(config.cells) <= 1_000_000


@QUIET
@given(content=st.binary(max_size=200))
def test_a_config_of_any_bytes_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / config_file.CONFIG).write_bytes(content)
    with pytest.raises(InputError):
        config_file.read_config(tmp_path)


@QUIET
@given(path=PATHS, new=JSON, resign=st.booleans())
def test_a_manifest_with_anything_in_it_is_read_or_refused(
    run: Path, tmp_path: Path, path: tuple, new: Any, resign: bool
) -> None:
    (original,) = run.rglob(manifest.NAME)
    whole = changed(json.loads(original.read_text()), path, new)
    if resign and isinstance(whole, dict) and "content" in whole:  # a stranger can compute digests, too
        whole["sha256"] = manifest._digest(whole["content"])
    (tmp_path / manifest.NAME).write_text(json.dumps(whole))
    try:
        content = manifest.read(tmp_path, {"settings": dict, "timestep": int})
        manifest.verify(tmp_path, content)
    except InputError:
        return
    assert not content["files"]


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "", ".", "a//b", "a\\b", "\0"])
def test_a_manifest_names_nothing_outside_of_its_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("content")
    manifest.write(tmp_path, {})
    whole = json.loads((tmp_path / manifest.NAME).read_text())
    whole["content"]["files"][name] = whole["content"]["files"]["file"]
    whole["sha256"] = manifest._digest(whole["content"])
    (tmp_path / manifest.NAME).write_text(json.dumps(whole))
    with pytest.raises(InputError, match=r"is broken: .* is missing"):  # though there may be one of that name
        manifest.verify(tmp_path, manifest.read(tmp_path, {}))


def test_a_pipe_is_no_part_of_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    manifest.write(tmp_path, {})
    content = manifest.read(tmp_path, {})
    manifest.verify(tmp_path, content)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe is not in its manifest"):
        manifest.verify(tmp_path, content)


@pytest.mark.parametrize("name", [config_file.CONFIG, tables.NAME, directory.CHECKPOINTS])
def test_links_that_lead_outside_are_not_followed(run: Path, a_copy: Path, name: str) -> None:
    target = a_copy / name
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink()
    target.symlink_to(run / name)
    with pytest.raises(InputError, match="leads outside of"):
        (tables.read_metrics if name == tables.NAME else jaxsoft.load_policy)(a_copy)


@pytest.mark.parametrize("name", [tables.NAME, manifest.NAME])
def test_links_that_lead_elsewhere_within_the_run_are_not_followed_and_a_linked_run_is_read(
    a_copy: Path, name: str
) -> None:
    linked = a_copy.with_name("linked")
    linked.symlink_to(a_copy)

    def read() -> None:
        tables.read_metrics(linked)
        jaxsoft.load_policy(linked)

    read()
    path = a_copy / name if name == tables.NAME else next(a_copy.rglob(name))
    path.rename(a_copy / "elsewhere")
    path.symlink_to(a_copy / "elsewhere")
    with pytest.raises(InputError, match=f"{name} cannot be read: it is a link"):
        read()


@pytest.fixture(scope="module")
def rows(run: Path) -> pa.Table:
    return tables.read_metrics(run)


def with_column(rows: pa.Table, name: str, values: Any) -> pa.Table:
    """The table with another column of that name, or without it."""
    rest = rows.drop_columns([name])
    return rest if values is None else rest.append_column(name, values)


LIES = {
    **{f"without {name}": (name, None) for name in tables.KINDS},
    "cell of no sweep": ("cell", pa.array([1, 1], pa.int32())),
    "cell below": ("cell", pa.array([0, -1], pa.int32())),
    "cell above": ("cell", pa.array([0, 99], pa.int32())),
    "cell with gaps": ("cell", pa.array([0, None], pa.int32())),
    "return beyond": ("eval_return", pa.array([0.0, 1.7e308])),
    "return of integers": ("episode_return", pa.array([0, 1])),
    "words for returns": ("eval_return", pa.array(["a", "b"])),
    "failed at no number": ("failed_at", pa.array([None, np.nan], pa.float32())),
    "failed at nothing": ("failed_at", pa.array([None, 0], pa.int32())),
    "failed of nothing": ("failed_at", pa.array([None, 1], pa.int32())),
    "numbered quantities": ("failed_quantities", pa.array([None, 3])),
    "another seed": ("seed", pa.array([0, -7])),
    "a seed above": ("seed", pa.array([0, 1])),
    "before the start": ("timestep", pa.array([20, -20], pa.int32())),
    "no speed": ("steps_per_second", pa.array([1.0, None])),
}


@pytest.mark.parametrize("name", LIES)
def test_a_table_that_lies_is_told_in_one_line(run: Path, rows: pa.Table, name: str) -> None:
    column, values = LIES[name]
    with pytest.raises(InputError, match=f"(^| than ){column}") as told:
        tables.check_rows(with_column(rows, column, values), config_file.read_config(run))
    assert "\n" not in str(told.value)


def test_a_chunks_table_has_its_members_and_no_others(run: Path, rows: pa.Table) -> None:
    config = dataclasses.replace(config_file.read_config(run), num_seeds=4)
    whole = tables.concat_reports([rows.set_column(2, "seed", pa.array([i, i], pa.int32())) for i in range(4)])
    chunk = Chunk("0.0-0.3", 0, np.zeros(4, np.int32), np.arange(4, dtype=np.int32))
    tables.check_rows(whole, config, chunk)
    tables.check_rows(whole.slice(0, 0), config, chunk)
    lacking = whole.filter(whole["seed"].to_numpy() != 2)
    for wrong in (lacking, whole.slice(0, 7), tables.concat_reports([whole, rows]), whole.take([1, 0, *range(2, 8)])):
        tables.check_rows(wrong, config)
        with pytest.raises(InputError, match=r"is not that of all 4 members of 0\.0-0\.3 at each report"):
            tables.check_rows(wrong, config, chunk)


def replace_tables(run: Path, rows: pa.Table) -> None:
    """Gives a run and its checkpoint another table, with all digests right."""
    (folder,) = (path.parent for path in run.rglob(manifest.NAME))
    for path in (run / tables.NAME, folder / tables.NAME):
        path.write_bytes(parquet.encode(rows))
    facts = manifest.read(folder, {})
    (folder / manifest.NAME).unlink()
    manifest.write(folder, {name: x for name, x in facts.items() if name not in ("format", "files")})


def test_wherever_a_table_is_read_it_is_looked_at(a_copy: Path, rows: pa.Table, capsys: pytest.CaptureFixture) -> None:
    run, before = str(a_copy), (a_copy / config_file.CONFIG).read_bytes()
    replace_tables(a_copy, with_column(rows, *LIES["cell above"]))
    for command in (["plot", run], ["eval", run], ["train", "--resume", run], ["extend", run, "--total-timesteps=60"]):
        assert main(command) == 2
        assert re.fullmatch(
            r".*metrics\.parquet was changed by hand: its column cell has 99.*\n", capsys.readouterr().err
        )
    assert (a_copy / config_file.CONFIG).read_bytes() == before
    replace_tables(a_copy, with_column(rows, "timestep", pa.array([40, 40], pa.int32())))
    assert main(["plot", run]) == 0  # a run's table may lack members
    assert main(["train", "--resume", run]) == 2
    assert "is not that of all 1 members of 0.0-0.0" in capsys.readouterr().err


def test_a_table_without_reports_is_a_checkpoints_and_no_metrics(a_copy: Path) -> None:
    config = config_file.read_config(a_copy)
    tables.write_metrics(a_copy, [])
    assert tables.read(a_copy / tables.NAME, config).num_rows == 0
    with pytest.raises(InputError, match="has no reports"):
        tables.read_returns(a_copy)


def outside(a_copy: Path) -> Path:
    """A folder beside a run, whose content is a secret, and must stay."""
    folder = a_copy.parent / "outside"
    folder.mkdir()
    (folder / "secret").write_text("another's")
    return folder


def state_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_written_to_a_run_stays_in_it(a_copy: Path) -> None:
    folder = outside(a_copy)
    names = [
        "learning_curve.png",
        *(f".partial-{name}" for name in ("learning_curve.png", tables.NAME, config_file.CONFIG)),
    ]
    for name in names:
        (a_copy / name).unlink(missing_ok=True)
        (a_copy / name).symlink_to(folder / "secret")
    assert main(["plot", str(a_copy)]) == 0
    assert (a_copy / names[0]).read_bytes()[1:4] == b"PNG"
    for name in names:
        (a_copy / name).unlink(missing_ok=True)
        (a_copy / name).symlink_to(folder / "secret")
    assert main(["extend", str(a_copy), "--total-timesteps", "60"]) == 0
    assert not any((a_copy / name).is_symlink() for name in names)
    assert json.loads((a_copy / config_file.CONFIG).read_text())["total_timesteps"] == 60
    assert state_of(folder) == {"secret": b"another's"}


@pytest.mark.parametrize("name", ["", "/.lock", "/0.0-0.0", "/0.0-0.0/.lock"])
def test_a_linked_lock_or_folder_is_refused(a_copy: Path, name: str, capsys: pytest.CaptureFixture) -> None:
    folder, path = outside(a_copy), a_copy / f"{directory.CHECKPOINTS}{name}"
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(folder / "secret" if name.endswith("lock") else folder)
    assert main(["train", "--resume", str(a_copy)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert state_of(folder) == {"secret": b"another's"}


@pytest.mark.parametrize("name", [tables.NAME, config_file.CONFIG, manifest.NAME, "checkpoints/.lock"])
def test_nothing_waits_for_a_pipe(a_copy: Path, name: str, capsys: pytest.CaptureFixture) -> None:
    (path,) = a_copy.rglob(name) if name == manifest.NAME else [a_copy / name]
    path.unlink()
    os.mkfifo(path)
    assert (
        main(["plot", str(a_copy)] if name in (tables.NAME, config_file.CONFIG) else ["train", "--resume", str(a_copy)])
        == 2
    )
    assert capsys.readouterr().err.count("\n") == 1


def test_a_run_at_a_path_that_is_not_utf8_is_read_and_none_is_made_there(run: Path, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff")
    shutil.copytree(run, path)
    assert tables.read_returns(path)[0].returns.shape == (2, 1)
    with pytest.raises(InputError, match=r"the output folder is .*udcff.*; its name must be UTF-8"):
        directory.create(path / "new", config_file.read_config(run))


def test_an_extension_that_is_refused_changes_nothing(a_copy: Path, capsys: pytest.CaptureFixture) -> None:
    before = {path: path.read_bytes() for path in a_copy.rglob("*") if path.is_file()}
    assert main(["extend", str(a_copy), "--total-timesteps", "2000000000"]) == 2
    assert "eval_every is 20; at total_timesteps=2000000000 it must be" in capsys.readouterr().err
    (broken,) = a_copy.rglob("training/manifest.ocdbt")
    broken.write_bytes(b"")
    assert main(["extend", str(a_copy), "--total-timesteps", "60"]) == 2
    broken.write_bytes(before[broken])
    (path,) = a_copy.rglob(manifest.NAME)  # of another version, whose state has other shapes
    whole = json.loads(path.read_text())
    (metadata,) = a_copy.rglob("training/_METADATA")
    changed = metadata.read_bytes().replace(b"env_state", b"env_stute")
    entry = whole["content"]["files"]["training/_METADATA"]
    metadata.write_bytes(changed)
    entry["sha256"] = manifest._digest_of(metadata)
    whole["sha256"] = manifest._digest(whole["content"])
    path.write_text(json.dumps(whole))
    capsys.readouterr()
    assert main(["extend", str(a_copy), "--total-timesteps", "60"]) == 2
    assert "of another configuration" in capsys.readouterr().err
    metadata.write_bytes(before[metadata])
    path.write_bytes(before[path])
    assert {path: path.read_bytes() for path in before} == before
    assert jaxsoft.load_policy(a_copy)


def test_a_total_that_was_lowered_by_hand_is_refused(a_copy: Path, capsys: pytest.CaptureFixture) -> None:
    values = json.loads((a_copy / config_file.CONFIG).read_text())
    (a_copy / config_file.CONFIG).write_text(json.dumps(values | {"total_timesteps": 30}))
    for command in (["plot"], ["eval"], ["train", "--resume"], ["extend", "--total-timesteps", "35"]):
        assert (
            main([*command[:1], str(a_copy), *command[1:]] if command[0] == "extend" else [*command, str(a_copy)]) == 2
        )
        told = capsys.readouterr().err
        assert told.count("\n") == 1
        assert "is of timestep 40, after the end: total_timesteps is 3" in told


def test_a_reference_is_the_runs_own_copy_and_nothing_else(run: Path, a_copy: Path) -> None:
    values = json.loads((a_copy / config_file.CONFIG).read_text())
    values["agent"]["reference"] = str(run)
    (a_copy / config_file.CONFIG).write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"reference is '.*/copy/reference'"):
        jaxsoft.load_policy(a_copy)
    (a_copy / directory.REFERENCE).symlink_to(run)
    with pytest.raises(InputError, match="leads outside of"):
        jaxsoft.load_policy(a_copy)


@pytest.mark.parametrize(("name", "target"), [("more", ".."), ("more", "gone"), ("more", "/etc/passwd"), ("", "..")])
def test_a_run_with_links_is_no_reference(run: Path, a_copy: Path, name: str, target: str) -> None:
    config, link = config_file.read_config(run), a_copy / directory.CHECKPOINTS / name
    agent = dataclasses.replace(config.train.agent, reference=str(a_copy))
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, agent=agent))
    new = a_copy.parent / "new"
    (a_copy / "notes").symlink_to("/etc/passwd")  # not needed, and not looked at
    directory.create(new, config)
    kept = {path.name for path in (new / directory.REFERENCE).iterdir()}
    assert kept == {config_file.CONFIG, directory.CHECKPOINTS}
    shutil.rmtree(new)
    if not name:
        shutil.rmtree(link)
    link.symlink_to(target)
    with pytest.raises(InputError, match="is a link; it is not copied"):
        directory.create(new, config)
    assert not list(new.iterdir())


def test_loading_executes_nothing(run: Path) -> None:
    """What Python itself reports of a second loading: nothing unpickled, started, imported or connected to."""
    events: list[str] = []
    jaxsoft.load_policy(run)
    watching = True

    def watch(event: str, arguments: tuple) -> None:
        kinds = (
            "pickle.",
            "marshal.",
            "subprocess.",
            "os.system",
            "os.exec",
            "os.posix_spawn",
            "socket.connect",
            "import",
        )
        if watching and event.startswith(kinds):
            events.append(f"{event} {arguments[:1]}")

    sys.addaudithook(watch)
    jaxsoft.load_policy(run)
    tables.read_metrics(run)
    watching = False
    harmless = ("os.listdir", "os.scandir", "os.putenv", "os.stat")
    assert [event for event in events if not event.startswith(harmless)] == []


ABSURD = {
    "num_seeds": 10**12,
    "seed": 2**31,
    "total_timesteps": 2**40,
    "hidden_sizes": [10**6, 10**6],
    "env": "finite/Chain-1000000000000",
    "sweep": {name: [i / 100 for i in range(1, 100)] for name in ("temperature", "discount", "lambda_", "exploration")},
}


@pytest.mark.parametrize("name", ABSURD)
def test_absurd_sizes_are_refused_before_anything_is_allocated(a_copy: Path, name: str) -> None:
    values = json.loads((a_copy / config_file.CONFIG).read_text())
    (values if name in values else values["agent"])[name] = ABSURD[name]
    (a_copy / config_file.CONFIG).write_text(json.dumps(values))
    # a stranger's checkpoint agrees with its config
    (path,) = a_copy.rglob(manifest.NAME)
    whole = json.loads(path.read_text())
    if name not in ("num_seeds", "seed", "total_timesteps", "env", "sweep"):
        whole["content"]["settings"] = config_file.same_training(config_file.read_config(a_copy))
        whole["sha256"] = manifest._digest(whole["content"])
        path.write_text(json.dumps(whole))
    with pytest.raises(InputError):
        jaxsoft.load_policy(a_copy)


def test_more_reports_than_anyone_reads_are_refused() -> None:
    config = make_config("soft_q_stream", "", {"total_timesteps": 2**31 - 1, "eval_every": 1})
    with pytest.raises(InputError, match=r"eval_every is 1; at total_timesteps=2147483647 it must be 2148 at least"):
        make_program(make_env("finite/Chain-5"), config)

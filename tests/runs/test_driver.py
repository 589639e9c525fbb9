"""A run that was cut short ends as if it had not been: the same table and the same parameters, to the bit."""

from __future__ import annotations

import dataclasses
import itertools
import json
import resource
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
import pytest
from support.run_numbers import assert_same, results
from support.subjects import Subject, after, prepare, small_config, train

from jaxsoft.agents import AGENTS
from jaxsoft.errors import InputError
from jaxsoft.fleet import programs
from jaxsoft.fleet.programs import Slice
from jaxsoft.runs import arrays, checkpoint, directory, manifest, parquet, tables
from jaxsoft.runs import config as config_file
from jaxsoft.runs.config import RunConfig
from jaxsoft.runs.driver import Interrupted, require_fitting
from jaxsoft.runs.files import lock
from jaxsoft.runs.results import write_config
from jaxsoft.training.config import make_config
from jaxsoft.training.failures import failure_names
from jaxsoft.training.loop import TrainState

KINDS = ("sac", "soft_q", "soft_q_replay", "soft_q_stream", "ppo")
"""One agent of each way of learning; the others run with `make test-thorough`."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[] if name in KINDS else pytest.mark.thorough) for name in AGENTS],
)
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """One compiled program for all tests of an agent."""
    prepared = prepare(small_config(request.param), tmp_path_factory.mktemp("runs") / request.param)
    train(prepared, prepared.whole)
    return prepared


def test_an_interrupted_run_ends_as_the_whole_one(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # slices of one turn: neither their length nor where it was interrupted is to be seen in the end
    monkeypatch.setattr(programs, "SECONDS_PER_SLICE", 0.0)
    stops = []
    for num_slices in (3, 4):  # 32 timesteps are a report of every agent: before it, and after it
        with pytest.raises(Interrupted) as interrupted:
            train(subject, tmp_path, should_stop=after(num_slices))
        stops.append(interrupted.value.timestep)
    assert stops[0] < stops[1] < subject.config.train.total_timesteps
    train(subject, tmp_path)
    assert_same(tmp_path, subject.whole, subject.config)
    table, state = results(tmp_path, *subject.config.chunks)
    assert table["timestep"].to_pylist() == [32, 32, 64, 64, 96, 96]
    assert table["failed_at"].null_count == 6
    assert any(np.issubdtype(x.dtype, np.floating) and np.any(x) for x in state.values())
    (again,) = train(subject, tmp_path)  # nothing is left to do
    assert again.timestep == 96


def spoiled(agent_state: Any, seed: int, value: float) -> Any:
    """The state with one weight of each of a seed's layers changed."""

    def spoil(path: Any, x: jax.Array) -> jax.Array:
        name = jax.tree_util.keystr(path)
        is_weight = "kernel" in name and "opt_state" not in name and "target" not in name and "trace" not in name
        return x.at[(seed,) + (0,) * (x.ndim - 1)].set(value) if is_weight else x

    return jax.tree_util.tree_map_with_path(spoil, agent_state)


def slices_of(subject: Subject, state: TrainState, turn: int = 0, pauses: tuple[int, ...] = ()) -> Iterator[Slice]:
    return programs.run(subject.program, state, turn=turn, pauses=pauses)


def numbers(tree: Any) -> dict[str, np.ndarray]:
    return {name: np.array(x) for name, x in arrays.flatten(tree).items()}


def test_a_seed_whose_numbers_go_bad_is_marked_and_put_back_and_the_others_do_not_notice(subject: Subject) -> None:
    segments, good, bad = subject.program.segments, 0, 1
    spoil_at = int(segments[0]) + 1
    start = programs.init_members(subject.program, subject.config.seeds)
    states, expected = {}, []
    for state, turn, _, metrics, *_ in slices_of(subject, start, pauses=(int(segments[0]),)):
        expected += [metrics] if metrics is not None else []
        states |= {turn: numbers(state)} if state is not None else {}
    at_first_report, expected_end = states.values()

    slices = slices_of(subject, programs.init_members(subject.program, subject.config.seeds), pauses=(spoil_at,))
    state = next(state for state, *_ in slices if state is not None)
    state = dataclasses.replace(state, agent_state=spoiled(state.agent_state, bad, np.nan))
    shared = checkpoint.shared_names(state, subject.program.axes)
    reports, end = [], {}
    for state, _, _, metrics, *_ in slices_of(subject, state, spoil_at):  # noqa: B020
        reports += [metrics] if metrics is not None else []
        end = numbers(state) if state is not None else {}

    for name, x in expected_end.items():
        np.testing.assert_array_equal(*(y if name in shared else y[good] for y in (end[name], x)), err_msg=name)
    # the first update with the spoiled weights is that of the next turn, and so is the first bad loss
    per_turn = int(expected[1]["timestep"][bad] - expected[0]["timestep"][bad]) // int(segments[1])
    for report, unspoiled in zip(reports, expected[1:], strict=True):
        for name, values in report.items():
            np.testing.assert_array_equal(values[good], unspoiled[name][good], err_msg=name)
        for name in ("eval_return", "q_mean" if "q_mean" in report else "value_mean"):
            assert np.isnan(report[name]).tolist() == [False, True]
        assert report["failed_at"].tolist() == [0, int(expected[0]["timestep"][bad]) + 2 * per_turn]
        assert "_loss" in failure_names({name: values[bad] for name, values in report.items()})
    for name, x in end.items():
        if name.startswith(checkpoint.AGENT_STATE):
            np.testing.assert_array_equal(x[bad], at_first_report[name][bad], err_msg=name)


# What follows does not depend on the agent: one that is quickly compiled stands for all


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    prepared = prepare(small_config("soft_q_stream", hidden_sizes=()), tmp_path_factory.mktemp("runs") / "stream")
    train(prepared, prepared.whole)
    return prepared


@pytest.fixture
def cut(stream: Subject, tmp_path: Path) -> Path:
    """A run that was interrupted, with checkpoints of timesteps 20 and 40."""
    with mock.patch.object(programs, "SECONDS_PER_SLICE", 0.0), pytest.raises(Interrupted):
        train(stream, tmp_path, should_stop=after(39))
    assert checkpoint.timesteps(folder_of(stream, tmp_path)) == [20, 40]
    return tmp_path


def folder_of(subject: Subject, path: Path) -> Path:
    return directory.checkpoint_folder(path, *subject.config.chunks)


def test_the_newest_checkpoints_are_kept(stream: Subject) -> None:
    assert checkpoint.timesteps(folder_of(stream, stream.whole)) == [80, 96]


def test_seeds_in_chunks_are_trained_one_chunk_after_the_other(stream: Subject, tmp_path: Path) -> None:
    config = dataclasses.replace(stream.config, num_seeds=3, seeds_per_chunk=2)
    chunked = stream._replace(config=config)
    assert [chunk.seeds.tolist() for chunk in config.chunks] == [[3, 4], [5]]
    with pytest.raises(Interrupted):
        train(chunked, tmp_path, should_stop=after(6))
    train(chunked, tmp_path)
    assert {path.name for path in (tmp_path / directory.CHECKPOINTS).iterdir()} == {"3-4", "5-5"}
    table = parquet.read(tmp_path / tables.NAME)
    assert table["seed"].to_pylist() == [3, 4, 5] * 3
    assert table["timestep"].to_pylist() == [32] * 3 + [64] * 3 + [96] * 3
    alone = parquet.read(stream.whole / tables.NAME)
    for name in ("q_loss", "eval_return", "entropy"):  # the first chunk is the whole run of two seeds
        kept = table.filter(np.isin(table["seed"].to_numpy(), [3, 4]))
        np.testing.assert_array_equal(kept[name].to_numpy(), alone[name].to_numpy())


def test_an_extended_run_ends_as_a_longer_one_where_nothing_follows_a_schedule(tmp_path: Path) -> None:
    rule = {"step_size_rule": "intentional", "learning_rate": 0.25}  # which has moments of its own
    config = small_config("soft_q_stream", hidden_sizes=(), final_exploration=None, **rule)
    short = dataclasses.replace(config, train=dataclasses.replace(config.train, total_timesteps=64))
    long_subject, short_subject = prepare(config, tmp_path / "long"), prepare(short, tmp_path / "short")
    train(long_subject, long_subject.whole)
    train(short_subject, short_subject.whole)
    extended = config_file.extend(short_subject.whole, 96)
    require_fitting(short_subject.whole, extended, [long_subject.program])
    write_config(short_subject.whole, config_file.describe(extended))
    assert json.loads((short_subject.whole / config_file.CONFIG).read_text())["total_timesteps"] == 96
    train(long_subject, short_subject.whole)
    assert_same(short_subject.whole, long_subject.whole, config)
    with pytest.raises(InputError, match="total_timesteps is 96; it must be more than the run's 96"):
        config_file.extend(short_subject.whole, 96)


def test_without_checkpoints_only_what_was_learned_is_kept(stream: Subject, tmp_path: Path) -> None:
    config = dataclasses.replace(stream.config, checkpoint_every=0)
    train(stream._replace(config=config), tmp_path)
    (timestep,) = checkpoint.timesteps(folder_of(stream, tmp_path))
    assert timestep == 96
    assert not (folder_of(stream, tmp_path) / checkpoint.folder_name(96) / checkpoint.TRAINING).exists()
    with pytest.raises(InputError, match="it was trained with --checkpoint-every 0"):
        config_file.extend(tmp_path, 200)


def test_a_second_process_is_refused(stream: Subject, cut: Path) -> None:
    with (
        lock(cut, *folder_of(stream, cut).relative_to(cut).parts),
        pytest.raises(InputError, match="is in use by another process"),
    ):
        train(stream, cut)


@pytest.mark.parametrize("harm", ["flip", "shorten", "remove", "add", "link"])
def test_a_broken_checkpoint_is_refused_and_the_newest_whole_one_offered(stream: Subject, cut: Path, harm: str) -> None:
    folder = folder_of(stream, cut)
    broken = folder / checkpoint.folder_name(40)
    before = {path: path.read_bytes() for path in (folder / checkpoint.folder_name(20)).rglob("*") if path.is_file()}
    victim = max((broken / checkpoint.TRAINING).rglob("*"), key=lambda path: path.is_file() * path.stat().st_size)
    content = bytearray(victim.read_bytes())
    match harm:
        case "flip":
            content[len(content) // 2] ^= 1
            victim.write_bytes(content)
        case "shorten":
            victim.write_bytes(content[:-1])
        case "remove":
            victim.unlink()
        case "add":
            (broken / "more").write_text("")
        case "link":
            victim.rename(cut / "elsewhere")
            victim.symlink_to(cut / "elsewhere")
    with pytest.raises(InputError, match=r"000000000040 is broken: .*; the newest whole one: --from-timestep 20"):
        train(stream, cut)
    assert before == {path: path.read_bytes() for path in before}
    train(stream, cut, from_timestep=20)
    assert_same(cut, stream.whole, stream.config)


def test_any_flipped_byte_is_found(stream: Subject, cut: Path) -> None:
    folder, rng = folder_of(stream, cut), np.random.default_rng(0)
    files = [path for path in (folder / checkpoint.folder_name(40)).rglob("*") if path.is_file()]
    settings = config_file.same_training(stream.config)
    assert len(files) > 10
    for path in files:
        content = path.read_bytes()
        for position in rng.integers(len(content), size=3):
            changed = bytearray(content)
            changed[position] ^= 1 << rng.integers(8)
            path.write_bytes(changed)
            with pytest.raises(InputError, match="--from-timestep 20"):
                checkpoint.newest(folder, settings)
        path.write_bytes(content)
    found = checkpoint.newest(folder, settings)
    assert found is not None
    assert found.timestep == 40


def test_settings_that_format_3_has_gained_are_in_no_checkpoint_at_their_default() -> None:
    # else a run directory from before could not go on: a new setting belongs to LATER_SETTINGS, none to settings.json
    named = json.loads((Path(__file__).parents[1] / "golden" / "settings.json").read_text())
    for agent in AGENTS:
        settings = config_file.same_training(RunConfig("gymnax/CartPole-v1", make_config(agent, "", {})))
        assert sorted(settings["agent"]) == named[agent], agent


def test_a_checkpoint_of_another_version_or_other_settings_is_refused(stream: Subject, cut: Path) -> None:
    config = dataclasses.replace(stream.config, seed=4)
    with pytest.raises(InputError, match=r"is of other settings: seed is 3 there and 4 in config\.json"):
        checkpoint.newest(folder_of(stream, cut), config_file.same_training(config))
    path = folder_of(stream, cut) / checkpoint.folder_name(40) / manifest.NAME
    path.write_text(path.read_text().replace('"format": 1', '"format": 7'))
    with pytest.raises(InputError, match="has format 7; this version reads 1; the newest whole one"):
        train(stream, cut)


def test_settings_among_the_arrays_of_an_earlier_version_are_passed_over_and_others_are_not(tmp_path: Path) -> None:
    stored = {"key": np.arange(4, dtype=np.uint32), "obs": np.ones((2, 3)), "none": np.ones((2, 0), np.int32)}
    expected = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in stored.items()}
    for more in ("settings/learning_rate", "more"):
        arrays.write(tmp_path / more, stored | {more: np.full(2, 1e-3)})
    found = arrays.read(tmp_path / "settings/learning_rate", expected)
    assert found.keys() == stored.keys()
    for name, x in stored.items():
        np.testing.assert_array_equal(found[name], x, strict=True)
    for wrong in (expected | {"settings/discount": expected["key"]}, expected | {"obs": expected["key"]}):
        with pytest.raises(InputError, match=r"other configuration \((settings/discount|obs) is .* there and .* here"):
            arrays.read(tmp_path / "settings/learning_rate", wrong)
    with pytest.raises(InputError, match=r'of another configuration \(more is "float64\[2\]" there and null here\)'):
        arrays.read(tmp_path / "more", expected)


def test_a_timestep_before_all_checkpoints_is_refused(stream: Subject, cut: Path) -> None:
    with pytest.raises(InputError, match=r"from_timestep is 19; .* has no checkpoint so early \(there are: 20, 40\)"):
        train(stream, cut, from_timestep=19)
    assert checkpoint.timesteps(folder_of(stream, cut)) == [20, 40]
    train(stream, cut, from_timestep=0)
    assert_same(cut, stream.whole, stream.config)


def test_checkpoints_after_a_lowered_end_are_refused_before_any_is_forgotten(stream: Subject, cut: Path) -> None:
    train_config = dataclasses.replace(stream.config.train, total_timesteps=16)
    lowered = stream._replace(config=dataclasses.replace(stream.config, train=train_config))
    with pytest.raises(InputError, match=r"0020 is of timestep 20, after the end: total_timesteps is 16"):
        train(lowered, cut, from_timestep=20)
    assert checkpoint.timesteps(folder_of(stream, cut)) == [20, 40]


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_run_whose_folder_vanishes_stops_at_once_and_writes_in_no_others(
    stream: Subject, tmp_path: Path, is_replaced: bool
) -> None:
    path, slices = tmp_path / "run", itertools.count(1)
    config = dataclasses.replace(stream.config, checkpoint_every=40)

    def remove() -> bool:
        if next(slices) == 40:  # a checkpoint is due, and no report
            path.rename(tmp_path / "elsewhere")
            if is_replaced:
                directory.create(path, config)
                folder_of(stream, path).mkdir(parents=True)
        return False

    with (
        mock.patch.object(programs, "SECONDS_PER_SLICE", 0.0),
        pytest.raises(InputError, match="was removed or replaced"),
        directory.new_run(path, config),
    ):
        train(stream._replace(config=config), path, should_stop=remove)
    assert next(slices) == 41
    there = {entry.relative_to(path).as_posix() for entry in path.rglob("*")}
    assert there == (
        {config_file.CONFIG, directory.CHECKPOINTS, f"{directory.CHECKPOINTS}/3-4"} if is_replaced else set()
    )


@pytest.mark.parametrize("first", [tables.NAME, "the checkpoint"])
def test_a_full_disk_is_told_and_leaves_earlier_checkpoints_alone(
    stream: Subject,
    cut: Path,
    first: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # what the system refuses to write here is the rest of a file, as on a full disk
    if first != tables.NAME:
        monkeypatch.setattr(tables, "write_metrics", lambda *_: None)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, hard))
    try:
        with pytest.raises(InputError, match=rf"{first}.* cannot be written.*File too large"):
            train(stream, cut)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert checkpoint.timesteps(folder_of(stream, cut)) == [20, 40]
    assert (capfd.readouterr().err, caplog.records) == ("", [])  # no word of other libraries'
    monkeypatch.undo()
    train(stream, cut)
    assert_same(cut, stream.whole, stream.config)


def test_training_waits_for_no_checkpoint_that_later_ones_replace(
    stream: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, slices, may_write = [], itertools.count(1), threading.Event()
    write = checkpoint.Writer._write

    def write_late(writer: checkpoint.Writer, facts: dict[str, Any], *others: Any) -> None:
        written.append(facts["timestep"])
        may_write.wait(60)
        write(writer, facts, *others)

    def let_write() -> bool:
        if next(slices) == 70:
            assert written == [20]
            may_write.set()
        return False

    monkeypatch.setattr(checkpoint.Writer, "_write", write_late)
    monkeypatch.setattr(programs, "SECONDS_PER_SLICE", 0.0)
    train(stream, tmp_path, should_stop=let_write)
    assert written == [20, 80, 96]  # 40 and 60 fell due meanwhile; two are kept
    assert checkpoint.timesteps(folder_of(stream, tmp_path)) == [80, 96]
    assert_same(tmp_path, stream.whole, stream.config)

"""Loggers, each read back by what the program itself reads: they get every report, and none can stop a training."""

from __future__ import annotations

import importlib
import json
import sqlite3
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import jaxsoft
from jaxsoft.errors import InputError
from jaxsoft.reports import loggers
from jaxsoft.reports.background import Logging
from jaxsoft.reports.loggers import Logger
from jaxsoft.reports.series import Report, series_of
from jaxsoft.reports.statistics import iqm_interval
from jaxsoft.results import Result
from jaxsoft.runs.driver import Progress

NUM_SEEDS = 6
"""Enough for an interval."""


class Failing(Logger):
    """Fails at its second report."""

    num = 0

    def __call__(self, report: Report) -> None:
        self.num += 1
        if self.num == 2:
            raise OSError("the disk\nis full")


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """One training with all the loggers there are."""
    folder, got, failing = tmp_path_factory.mktemp("logged"), [], Failing()
    all_loggers: list[Any] = [
        loggers.TensorBoard(),
        loggers.TensorBoard(folder / "board", per_seed=True),
        loggers.JsonLines(),
        loggers.JsonLines(folder / "new" / "seeds.jsonl", per_seed=True),
        got.append,
        failing,
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACKIO_DIR", str(folder / "trackio"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("WANDB_SILENT", "true")
        if find_spec("wandb"):
            all_loggers.append(loggers.WandB("chain", mode="offline"))
        if find_spec("trackio"):
            all_loggers.append(loggers.Trackio("chain"))
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            result = jaxsoft.train(
                "soft_q_stream",
                "finite/Chain-5",
                num_seeds=NUM_SEEDS,
                total_timesteps=60,
                eval_every=20,
                hidden_sizes=(4,),
                out=folder / "run",
                loggers=all_loggers,
            )
    own = [str(one.message) for one in told if "logger" in str(one.message)]
    return SimpleNamespace(folder=folder, result=result, reports=got, failing=failing, told=own)


def expected(result: Result, name: str) -> np.ndarray:
    """[num_reports, 3]: the interquartile means of a metric and their intervals."""
    values = result.metrics[name].to_numpy().reshape(-1, NUM_SEEDS)
    return np.array([iqm_interval(row) for row in values], np.float32)


def test_a_logger_that_fails_is_told_of_once_and_left_alone(logged: SimpleNamespace) -> None:
    assert logged.told == ["the logger Failing failed and gets no more reports (OSError: the disk\\nis full)"]
    assert logged.failing.num == 2
    assert logged.result.is_finished
    assert [report.timestep for report in logged.reports] == [20, 40, 60]


def read_events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The scalars of a folder of events, with checksums checked as TensorBoard does."""
    event_pb2 = importlib.import_module("tensorboardX.proto.event_pb2")
    masked = importlib.import_module("tensorboardX.crc32c").crc32c
    (file,) = folder.glob("events.out.tfevents.*")
    content, scalars = file.read_bytes(), {}
    while content:
        size = int.from_bytes(content[:8], "little")
        data, check = content[12 : 12 + size], int.from_bytes(content[12 + size : 16 + size], "little")
        crc = masked(data)
        assert check == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
        event, content = event_pb2.Event.FromString(data), content[16 + size :]
        for value in event.summary.value:
            scalars.setdefault(value.tag, []).append((event.step, value.simple_value))
    return scalars


def test_tensorboard_reads_what_was_reported(logged: SimpleNamespace) -> None:
    scalars = read_events(logged.result.path / "logs" / "tensorboard")
    for name in ("eval_return", "q_loss"):
        for end, values in zip(("iqm", "low", "high"), expected(logged.result, name).T, strict=True):
            assert scalars[f"{name}/{end}"] == list(zip((20, 40, 60), values.tolist(), strict=True))
    assert scalars["num_failed"] == [(20, 0.0), (40, 0.0), (60, 0.0)]
    folders = sorted((logged.folder / "board").iterdir())
    assert [folder.name for folder in folders] == [f"seed={seed}" for seed in range(NUM_SEEDS)]
    own = logged.result.metrics.to_pandas().query("seed == 3")
    assert read_events(folders[3])["q_loss"] == list(zip(own["timestep"], own["q_loss"], strict=True))


def test_json_lines_are_the_reports(logged: SimpleNamespace) -> None:
    lines = [json.loads(x) for x in (logged.result.path / "logs" / "metrics.jsonl").read_text().splitlines()]
    assert [(line["timestep"], line["seeds"]) for line in lines] == [(t, list(range(NUM_SEEDS))) for t in (20, 40, 60)]
    names = ("eval_return/iqm", "eval_return/low", "eval_return/high")
    np.testing.assert_array_equal(
        np.array([[line[name] for name in names] for line in lines], np.float32),
        expected(logged.result, "eval_return"),
    )
    seeds = [json.loads(x) for x in (logged.folder / "new" / "seeds.jsonl").read_text().splitlines()]
    table = logged.result.metrics.to_pydict()
    assert [line["q_loss"] for line in seeds] == table["q_loss"]
    assert [line["seeds"] for line in seeds] == [[seed] for seed in table["seed"]]


def records_of(file: Path) -> Iterator[bytes]:
    """The records of a file of W&B's: after 7 bytes LevelDB's log format, blocks of 32 KiB."""
    content, place, record = file.read_bytes(), 7, b""
    while place + 7 <= len(content):
        room = 32768 - place % 32768
        if room < 7:
            place += room
            continue
        size, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        record += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def test_weights_and_biases_offline(logged: SimpleNamespace) -> None:
    pytest.importorskip("wandb")
    wandb_pb = importlib.import_module("wandb.proto.wandb_internal_pb2")
    (file,) = (logged.result.path / "logs").glob("wandb/offline-run-*/*.wandb")
    rows, config = [], {}
    for data in records_of(file):
        record = wandb_pb.Record.FromString(data)
        if record.WhichOneof("record_type") == "history":
            rows.append({"/".join(x.nested_key) or x.key: json.loads(x.value_json) for x in record.history.item})
        if record.WhichOneof("record_type") == "run":
            config |= {x.key: json.loads(x.value_json) for x in record.run.config.update}
    assert [row["timestep"] for row in rows] == [20, 40, 60]
    values = np.array([row["eval_return/iqm"] for row in rows], np.float32)
    np.testing.assert_array_equal(values, expected(logged.result, "eval_return")[:, 0])
    assert config["agent"]["name"] == "soft_q_stream"


def test_trackio(logged: SimpleNamespace) -> None:
    pytest.importorskip("trackio")
    (file,) = (logged.folder / "trackio").glob("chain.db")
    with sqlite3.connect(file) as database:
        rows = database.execute("select step, metrics from metrics order by step").fetchall()
    assert [step for step, _ in rows] == [20, 40, 60]
    values = np.array([json.loads(text)["q_loss/iqm"] for _, text in rows], np.float32)
    np.testing.assert_array_equal(values, expected(logged.result, "q_loss")[:, 0])


def test_seeds_that_failed_count_as_the_worst_in_returns_alone(logged: SimpleNamespace) -> None:
    report = logged.reports[-1]
    rows = report.rows.to_pydict()
    rows["failed_at"][0], rows["failed_quantities"][0] = 30, "q_loss"
    rows["eval_return"][0] = rows["q_loss"][0] = float("nan")
    rows["episode_return"] = [None] * NUM_SEEDS
    table = report.rows.from_pydict(rows, schema=report.rows.schema)
    failed = Report(60, {}, report.seeds, report.returns, table, "x=1")
    (whole,) = series_of(failed, per_seed=False)
    assert whole.name == "x=1"
    assert whole.scalars["num_failed"] == 1
    assert whole.scalars["eval_return/low"] == -np.inf
    assert whole.scalars["q_loss/iqm"] == iqm_interval(np.array(rows["q_loss"][1:])).point
    assert not [name for name in whole.scalars if name.startswith("episode_return")]
    first, *others = series_of(failed, per_seed=True)
    assert first.name == "x=1, seed=0"
    assert first.scalars["eval_return"] == -np.inf
    assert "q_loss" not in first.scalars
    assert others[0].scalars["q_loss"] == rows["q_loss"][1]


def progress_of(result: Result) -> Progress:
    plan: Any = SimpleNamespace(config=result.config)
    return Progress(plan, result.config.chunks[0], 60, result.metrics.slice(2 * NUM_SEEDS))


def test_the_training_waits_for_no_logger(logged: SimpleNamespace) -> None:
    release, progress, start = threading.Event(), progress_of(logged.result), time.monotonic()

    def wait(report: Report) -> None:
        release.wait(60)

    logging = Logging([wait], logged.result.path, logged.result.config, limit=0.1)
    log = logging.__enter__()
    log(progress)
    log(progress)
    with pytest.warns(UserWarning, match="the logger wait had too little time"):
        logging.__exit__()
    release.set()
    assert time.monotonic() - start < 10


def test_nothing_is_written_where_a_link_leads(logged: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "logs").symlink_to(tmp_path, target_is_directory=True)
    logging = Logging([loggers.JsonLines(), loggers.TensorBoard()], tmp_path / "run", logged.result.config)
    with pytest.warns(UserWarning, match="leads outside"), logging as log:
        log(progress_of(logged.result))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_is_not_installed_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(InputError, match=r"wandb is not installed: pip install 'jaxsoft\[wandb\]'"):
        loggers.WandB()
    with pytest.raises(InputError, match=r"trackio is not installed: pip install 'jaxsoft\[trackio\]'"):
        loggers.Trackio()

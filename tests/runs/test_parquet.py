"""Tables: every changed byte is found, and what a stranger wrote takes no more memory than its size suggests."""

from __future__ import annotations

import io
import multiprocessing
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxsoft.errors import InputError
from jaxsoft.runs import parquet

TABLE = pa.table(
    {
        "seed": pa.array([3, 4, 3], pa.int32()),
        "timestep": pa.array([200, 200, 400], pa.int64()),
        "eval_return": pa.nulls(3, pa.float32()),
        "q_loss": pa.array([0.5, np.nan, -np.inf], pa.float32()),
        "failed_quantities": pa.array([None, "q_loss, parameters", "π"]),
        "is_odd": pa.array([True, False, None]),
        "steps_per_second": pa.array([1.5, 2.5, 3.5]),
    }
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "table.parquet"
    path.write_bytes(parquet.encode(TABLE))
    return path


def same(table: pa.Table, other: pa.Table) -> bool:
    """With NaN equal to itself."""
    return table.schema == other.schema and str(table.to_pydict()) == str(other.to_pydict())


def test_it_reads_what_it_wrote_and_so_do_others(file: Path, tmp_path: Path) -> None:
    assert same(parquet.read(file), TABLE)
    assert same(pq.read_table(file), TABLE)
    for table in (TABLE.slice(0, 0), pa.concat_tables([TABLE] * 1_000)):
        (tmp_path / "other").write_bytes(parquet.encode(table))
        assert same(parquet.read(tmp_path / "other"), table)


def test_every_changed_byte_is_found(file: Path) -> None:
    content = bytearray(file.read_bytes())
    for position in range(0, len(content), 9):
        content[position] ^= 1 << position % 8
        file.write_bytes(content)
        with pytest.raises(InputError, match=r"is cut short, was changed, .*it holds no digest of itself"):
            parquet.read(file)
        content[position] ^= 1 << position % 8
    for end in range(0, len(content), 50):
        file.write_bytes(content[:end])
        with pytest.raises(InputError, match="is cut short, was changed"):
            parquet.read(file)


def test_where_pyarrow_cannot_be_loaded_one_line_says_so(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(InputError, match="pyarrow cannot be loaded"):
        parquet.read(file)


def seal(table: pa.Table, **how: Any) -> bytes:
    """A Parquet file of a stranger's, with the digest that it must have."""
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, table.schema, **{"compression": "none", **how}) as writer:
        writer.write_table(table, row_group_size=how.get("rows", len(table)) or None)
        writer.add_key_value_metadata({"digest": parquet.MARK.decode() + "0" * parquet.DIGITS})
    return signed(bytearray(buffer.getvalue()))


def signed(content: bytearray) -> bytes:
    start = content.rindex(parquet.MARK) + len(parquet.MARK)
    content[start : start + parquet.DIGITS] = parquet._digest(content, start)
    return bytes(content)


WORD = pa.table({"word": ["x" * 100_000] * 1_000, "random": np.random.default_rng(0).normal(size=1_000)})
BOMBS: dict[str, tuple[pa.Table, dict[str, Any], str]] = {
    "one long word": (
        WORD,
        {},
        "its words are longer than the file",
    ),
    "words that begin alike": (
        pa.table({"word": ["x" * 10_000] * 5_000, "random": np.random.default_rng(0).normal(size=5_000)}),
        {"use_dictionary": False, "column_encoding": {"word": "DELTA_BYTE_ARRAY", "random": "PLAIN"}},
        "is no table of this program's",
    ),
    "one number": (pa.table({"number": np.zeros(100_000_000, np.int8)}), {}, "it has more numbers than bytes"),
    "nothing at all": (pa.table({"gaps": pa.nulls(100_000_000, pa.bool_())}), {}, "it has more numbers than bytes"),
    "compressed": (pa.table({"number": np.zeros(1_000_000)}), {"compression": "zstd"}, "it is compressed"),
    "lists": (pa.table({"list": [[0] * 100_000] * 100}), {}, "it has columns of other kinds"),
    "records": (pa.table({"record": [{"a": 1}] * 3}), {}, "it has columns of other kinds"),
    "long numbers": (pa.table({"blob": pa.array([b"x" * 99], pa.binary(99))}), {}, "it has columns of other kinds"),
    "no text": (
        pa.table({"word": pa.array([b"\xff"])}).cast(pa.schema([("word", pa.binary())])),
        {},
        "is no table of this program's",
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_decodes_to_more_than_itself_is_refused(file: Path, name: str) -> None:
    table, how, message = BOMBS[name]
    file.write_bytes(seal(table, **how))
    with counted() as pool, pytest.raises(InputError, match=message) as error:
        parquet.read(file)
    assert "\n" not in str(error.value)
    assert pool.max_memory() < 20 * file.stat().st_size


def test_a_long_description_is_refused_before_it_is_parsed_and_many_columns_are_read(file: Path) -> None:
    columns = {f"the_name_of_a_metric_{i}": np.zeros(3) for i in range(1_000)}
    file.write_bytes(parquet.encode(pa.table(columns)))
    assert parquet.read(file).num_columns == 1_000
    mark = parquet.MARK + b"0" * parquet.DIGITS
    records = b"\x19\xfc" + b"\x80\x89\x7a" + bytes(2_000_000)  # a list of two million empty records
    description = records + b"\x00"
    file.write_bytes(signed(bytearray(b"PAR1" + mark + description + len(description).to_bytes(4, "little") + b"PAR1")))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="its description is longer than the file, or than 1,000,000 bytes"):
            parquet.read(file)
        assert tracemalloc.get_traced_memory()[1] < 10 * file.stat().st_size
    finally:
        tracemalloc.stop()


POOLS: list[pa.MemoryPool] = []
"""They must outlive all that was read with them, in pyarrow's own threads, too."""


@contextmanager
def counted() -> Iterator[pa.MemoryPool]:
    """pyarrow's memory meanwhile."""
    usual, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    POOLS.append(pool)
    pa.set_memory_pool(pool)
    try:
        yield pool
    finally:
        pa.set_memory_pool(usual)


def test_memory_is_counted(file: Path) -> None:
    file.write_bytes(seal(WORD))
    with counted() as pool:
        pq.read_table(file)
    assert pool.max_memory() > 200 * file.stat().st_size


def test_a_stranger_who_lies_is_told_in_one_line(file: Path) -> None:
    """In a process of its own: what pyarrow did to the memory would be another test's crash."""
    reader = multiprocessing.get_context("spawn").Process(target=read_lies, args=(file,))
    reader.start()
    reader.join()
    assert reader.exitcode == 0


def read_lies(file: Path) -> None:
    """Whatever the bytes are, with a right digest: a table, or one line."""
    content, rng = file.read_bytes(), np.random.default_rng(0)
    num_read = 0
    for _ in range(400):
        changed = bytearray(content)
        for position in rng.integers(len(content), size=rng.integers(1, 4)):
            changed[position] ^= 1 << rng.integers(8)
        if changed.count(parquet.MARK) != 1:
            continue
        file.write_bytes(signed(changed))
        told = ""
        try:
            num_read += parquet.read(file).num_rows > 0
        except InputError as error:
            told = str(error)
        assert "\n" not in told
    assert num_read

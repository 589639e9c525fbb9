"""Tables as Parquet files that hold a digest of themselves: a flipped byte is found before anything is decoded.

The digest stands in the file's own metadata, so that file and digest are replaced as one, and other programs read the
file as any other. It is the SHA-256 of the file with zeros in the digest's place. A stranger can compute one, too:
what decodes to much more than the file's own size is refused.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxsoft.errors import InputError
from jaxsoft.files import read_regular
from jaxsoft.memory import host_memory

if TYPE_CHECKING:
    import pyarrow as pa

MARK, DIGITS = b"jaxsoft's sha256 ", 64
"""What comes before the digest, and its length."""

ROWS_AT_ONCE = 1_024
"""Rows that are decoded before what they hold is looked at."""

NUMBERS, WORDS = {"BOOLEAN", "INT32", "INT64", "FLOAT", "DOUBLE"}, "BYTE_ARRAY"
"""Parquet's kinds of columns that are read."""


def to_bytes(table: pa.Table) -> bytes:
    """A table as a Parquet file. Without compression and dictionaries it is about as large as what it decodes to.

    Raises:
        InputError: pyarrow cannot be loaded.
    """
    pa = load()
    buffer = pa.BufferOutputStream()
    with pa.parquet.ParquetWriter(buffer, table.schema, compression="none", use_dictionary=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"digest": MARK.decode() + "0" * DIGITS})
    content = bytearray(buffer.getvalue())
    start = content.rindex(MARK) + len(MARK)
    content[start : start + DIGITS] = _digest(content, start)
    return bytes(content)


def read(file: Path) -> pa.Table:
    """Reads a file that `to_bytes` wrote.

    Raises:
        InputError: it is missing, cut short, changed, would take more memory than 10 times its size, or pyarrow cannot
            be loaded.
    """
    content = read_regular(file, host_memory() // 16)
    start = content.rfind(MARK) + len(MARK)
    if content[start : start + DIGITS] != _digest(content, start):
        raise InputError(f"{file} is cut short or was changed: it does not hold its own digest")
    pa = load()
    try:
        words = _words(pa.parquet.read_metadata(pa.BufferReader(content)), len(content))
        # a dictionary of one long word could stand for any number of them
        reader = pa.parquet.ParquetFile(pa.BufferReader(content), read_dictionary=words)
        schema = pa.schema([(f.name, pa.string() if f.name in words else f.type) for f in reader.schema_arrow])
        batches, room = [], len(content)
        for batch in reader.iter_batches(batch_size=ROWS_AT_ONCE, use_threads=False):
            room -= sum(_length(batch.column(name)) for name in words)
            if room < 0:
                raise ValueError("its words are longer than the file")
            batches.append(batch.cast(schema))
        table = pa.Table.from_batches(batches, schema).combine_chunks()
        table.validate(full=True)
    except Exception as error:  # pyarrow raises many kinds, one per way of being broken
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise InputError(f"{file} is no table of this program's ({reason})") from None
    return table


def load() -> Any:
    """The module pyarrow, with its `compute` and `parquet`.

    Raises:
        InputError: they cannot be loaded, for example because the address space is limited.
    """
    try:
        import pyarrow as pa
        import pyarrow.compute
        import pyarrow.parquet
    except (ImportError, MemoryError, OSError) as error:
        raise InputError(f"pyarrow cannot be loaded ({str(error).splitlines()[0][:120]})") from None
    return pa


def _digest(content: bytes | bytearray, start: int) -> bytes:
    """Of the content but for the digest that stands at `start`."""
    whole = memoryview(content)
    digest = hashlib.sha256(whole[:start])
    digest.update(b"0" * DIGITS)
    digest.update(whole[start + DIGITS :])
    return digest.hexdigest().encode()


def _words(described: Any, size: int) -> list[str]:
    """The names of a file's columns of words, once what it says of itself is found to fit its size.

    Raises:
        ValueError: it does not.
    """
    groups = [described.row_group(i) for i in range(described.num_row_groups)]
    columns = [group.column(i) for group in groups for i in range(group.num_columns)]
    if any(column.compression != "UNCOMPRESSED" for column in columns):
        raise ValueError("it is compressed")
    if sum(column.total_compressed_size for column in columns) > size:
        raise ValueError("its columns are longer than the file")
    if sum(max(group.num_rows, 1) for group in groups) * described.num_columns > size:
        raise ValueError("it has more numbers than bytes")
    leaves = [described.schema.column(i) for i in range(described.num_columns)]
    if any(x.physical_type not in {*NUMBERS, WORDS} or x.max_repetition_level or x.path != x.name for x in leaves):
        raise ValueError("it has columns of other kinds")
    if len({x.name for x in leaves}) < len(leaves):
        raise ValueError("it has two columns of one name")
    return [x.name for x in leaves if x.physical_type == WORDS]


def _length(words: Any) -> int:
    """Bytes of a dictionary-encoded column of words when it is decoded."""
    compute = load().compute
    return compute.sum(compute.binary_length(words.dictionary).take(words.indices)).as_py() or 0
